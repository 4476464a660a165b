"""Chapter 5, models: one definition a network, from which every variant is built.

A definition is a list that reads like the paper's table: plain data, so that a saved model carries its own. What the
variant changes is only how each convolution computes (paper, sections 1 and 3):

=======  ==================================  =====================================================
variant  weights, inputs                     block
=======  ==================================  =====================================================
fprec    real, real                          conv -> BatchNorm -> ReLU
wbin     alpha sign(w), real                 conv -> BatchNorm -> ReLU
fbin     alpha sign(w), sign(x)              BatchNorm -> sign -> conv -> ReLU
hybrid   as fbin, but ``keep_real`` as wbin
=======  ==================================  =====================================================

The first convolution is always real, and so is the classifier unless ``last_layer="binary"`` (its weights, not its
inputs). Convolutions are numbered in the order of the definition, the first is 1.
"""

import numpy as np

from . import files, layers
from .checks import one_of

VARIANTS = ("fprec", "wbin", "fbin", "hybrid")
FORMAT = "hbn_ref model 1"

# --------------------------------------------------------------------------- the words of a definition


def conv(name, channels, kernel, stride=1, padding=0, relu=True):
    """A convolution with its BatchNorm and ReLU. kernel="map" takes the whole remaining map."""
    return {
        "op": "conv", "name": name, "channels": channels, "kernel": kernel, "stride": stride, "padding": padding,
        "relu": relu,
    }  # fmt: skip


def classifier(name="classifier", kernel=1):
    """The last convolution, one channel a class, without BatchNorm and ReLU."""
    return {"op": "classifier", "name": name, "kernel": kernel}


def max_pool(size, stride=None, padding=0, ceil=False):
    """Max pooling; the stride is the size unless given."""
    return {"op": "max_pool", "size": size, "stride": stride or size, "padding": padding, "ceil": ceil}


def average():
    """Mean of the whole map."""
    return {"op": "average"}


def relu():
    """A ReLU of its own, after a residual sum."""
    return {"op": "relu"}


def dropout(rate, per_channel=False):
    """Dropout of values or of whole channels."""
    return {"op": "dropout", "rate": rate, "per_channel": per_channel}


def residual(name, body, shortcut=()):
    """body(x) + shortcut(x); an empty shortcut passes x on."""
    return {"op": "residual", "name": name, "body": list(body), "shortcut": list(shortcut)}


def concat(name, *branches):
    """Several branches side by side."""
    return {"op": "concat", "name": name, "branches": [list(branch) for branch in branches]}


# --------------------------------------------------------------------------------------- the networks

SMALL = [
    conv("conv1", 32, 5, padding=2), max_pool(2),
    conv("conv2", 64, 3, padding=1), max_pool(2),
    conv("conv3", 128, 3, padding=1), max_pool(2),
    conv("conv4", 128, 3, padding=1), max_pool(2),
    conv("conv5", 256, "map"),
    conv("conv6", 256, 1), dropout(0.2, per_channel=True),
    classifier(),
]  # fmt: skip

NETWORKS = {"small": SMALL}


def definition_of(name_or_definition):
    """Return the definition for a network's name; a definition is returned as it is."""
    if isinstance(name_or_definition, str):
        return NETWORKS[one_of("network", name_or_definition, tuple(NETWORKS))]
    if not isinstance(name_or_definition, (list, tuple)) or not all(isinstance(i, dict) for i in name_or_definition):
        raise TypeError("network: expected a name or a definition, a list made with models.conv, models.max_pool, ...")
    return list(name_or_definition)


def convolutions(definition):
    """Yield the convolutions of a definition, classifier included, in order: layer 1, layer 2, ..."""
    for item in definition:
        if item["op"] in ("conv", "classifier"):
            yield item
        for part in (item.get("body"), item.get("shortcut"), *item.get("branches", ())):
            if part:
                yield from convolutions(part)


def resolve_keep_real(definition, keep_real):
    """Return the names of the layers to keep real, from names or layer numbers, in order.

    Raises
    ------
    ValueError
        No such layer, or one whose inputs are never binarized (the first, the classifier).
    """
    names = [item["name"] for item in convolutions(definition)]
    chosen = set()
    keep_real = [keep_real] if isinstance(keep_real, (str, int)) else keep_real
    for wanted in keep_real:
        if isinstance(wanted, (int, np.integer)) and 1 <= wanted <= len(names):
            wanted = names[wanted - 1]
        if wanted not in names:
            raise ValueError(f"keep_real: no layer {wanted!r}; the layers are {', '.join(names)}")
        if wanted in (names[0], names[-1]):
            others = ", ".join(names[1:-1])
            raise ValueError(f"keep_real: {wanted} has real inputs in every variant; choose among {others}")
        chosen.add(wanted)
    return [name for name in names if name in chosen]


# ------------------------------------------------------------------------------------------- building


class _Builder:
    """Walks a definition with the shape of the map that reaches each item."""

    def __init__(self, spec):
        self.spec = spec
        self.items = list(convolutions(spec["definition"]))
        self.number = 0
        self.names = set()

    def sequence(self, items, shape, inside=""):
        """Return (layers, shape) for a list of items and the shape (H, W, C) that enters it."""
        made = []
        for item in items:
            for layer in getattr(self, "_" + item["op"], self._unknown)(item, shape):
                try:
                    shape = layer.output_shape(shape)
                except ValueError as error:
                    size = self.spec["input_size"]
                    text = str(error).removeprefix("x: ")
                    raise ValueError(f"{layer.name}: {text}; input_size {size} is too small for this network") from None
                made.append(layer)
        return made, shape

    def _unknown(self, item, shape):
        raise ValueError(f"definition: unknown item {item['op']!r}")

    def _weights(self, item, shape, filters):
        kernel = item["kernel"]
        kh, kw = shape[:2] if kernel == "map" else (kernel, kernel) if isinstance(kernel, int) else kernel
        rng = np.random.default_rng([self.spec["seed"], self.number])
        bound = 1 / np.sqrt(kh * kw * shape[2])
        return rng.uniform(-bound, bound, (kh, kw, shape[2], filters)).astype(np.float32)

    def _next(self, item):
        if item["name"] in self.names:
            raise ValueError(f"definition: two layers are called {item['name']!r}")
        self.names.add(item["name"])
        self.number += 1

    def _inputs_binary(self, name):
        spec = self.spec
        return self.number > 1 and (
            spec["variant"] == "fbin" or (spec["variant"] == "hybrid" and name not in spec["keep_real"])
        )

    def _conv(self, item, shape):
        self._next(item)
        spec, name = self.spec, item["name"]
        filters = max(2, round(item["channels"] * spec["width"]))
        w = self._weights(item, shape, filters)
        geometry = {"stride": item["stride"], "padding": item["padding"]}
        if self._inputs_binary(name):
            options = {key: spec[key] for key in ("rule", "estimator", "pad_value", "scale")}
            yield layers.BatchNorm(f"{name}.bn", shape[2])
            yield layers.XnorConv(name, w, **geometry, **options)
        elif self.number == 1 or spec["variant"] == "fprec":
            yield layers.Conv(name, w, **geometry, need_dx=self.number > 1)
            yield layers.BatchNorm(f"{name}.bn", filters)
        else:
            yield layers.BinaryWeightConv(name, w, **geometry, rule=spec["rule"])
            yield layers.BatchNorm(f"{name}.bn", filters)
        if item["relu"]:
            yield layers.ReLU(f"{name}.relu", in_place=True)

    def _classifier(self, item, shape):
        self._next(item)
        w = self._weights(item, shape, self.spec["num_classes"])
        if self.spec["last_layer"] == "binary":
            yield layers.BinaryWeightConv(item["name"], w, rule=self.spec["rule"])
        else:
            yield layers.Conv(item["name"], w, bias=True)

    def _max_pool(self, item, shape):
        options = {key: item[key] for key in ("stride", "padding", "ceil")}
        yield layers.MaxPool(f"pool{self.number}", item["size"], **options)

    def _average(self, item, shape):
        yield layers.AvgPool(f"average{self.number}")

    def _relu(self, item, shape):
        yield layers.ReLU(f"relu{self.number}")

    def _dropout(self, item, shape):
        yield layers.Dropout(f"dropout{self.number}", item["rate"], item["per_channel"])

    def _residual(self, item, shape):
        body, _ = self.sequence(item["body"], shape)
        shortcut, _ = self.sequence(item["shortcut"], shape)
        yield layers.Residual(layers.Sequential(body), layers.Sequential(shortcut), item["name"])

    def _concat(self, item, shape):
        branches = [layers.Sequential(self.sequence(branch, shape)[0]) for branch in item["branches"]]
        yield layers.Concat(branches, item["name"])


def build(
    name_or_definition, variant="fprec", *, num_classes, in_channels, input_size, keep_real=(), last_layer="real",
    seed=0, width=1, rule="paper", estimator="ste", pad_value=0, scale=True,
):  # fmt: skip
    """Build an untrained network.

    Parameters
    ----------
    name_or_definition : str or list
        "small", or a list made with `conv`, `max_pool`, ... of this module.
    variant : {"fprec", "wbin", "fbin", "hybrid"}
    num_classes, in_channels, input_size : int
        Images are (input_size, input_size, in_channels).
    keep_real : names or numbers of layers
        The layers whose inputs stay real (weights binary) in a hybrid.
    last_layer : {"real", "binary"}
        Whether the classifier's weights are binary.
    seed : int
        Of the initial weights: the same in every variant, layer by layer.
    width : float
        Scales the number of channels.
    rule, estimator, pad_value, scale
        See `binarize.weight_gradient` and `conv.xnor_conv2d_forward`.

    Returns
    -------
    layers.Sequential
        (N, input_size, input_size, in_channels) float32 to logits (N, num_classes). Its ``spec`` holds the arguments.
    """
    definition = definition_of(name_or_definition)
    one_of("variant", variant, VARIANTS)
    one_of("last_layer", last_layer, ("real", "binary"))
    for key, value in (("num_classes", num_classes), ("in_channels", in_channels), ("input_size", input_size)):
        if not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(f"{key}: expected a whole number of at least 1, got {value!r}")
    kept = resolve_keep_real(definition, keep_real)
    if kept and variant != "hybrid":
        raise ValueError(f"keep_real: only a hybrid chooses layers, the variant is {variant!r}")
    if variant == "fprec" and last_layer == "binary":
        raise ValueError("last_layer: fprec has real weights everywhere; use wbin, fbin or hybrid")
    spec = {
        "name": name_or_definition if isinstance(name_or_definition, str) else "custom",
        "definition": definition, "variant": variant, "num_classes": int(num_classes),
        "in_channels": int(in_channels), "input_size": int(input_size), "keep_real": kept, "last_layer": last_layer,
        "seed": seed, "width": width, "rule": rule, "estimator": estimator, "pad_value": pad_value, "scale": scale,
    }  # fmt: skip
    return from_spec(spec)


def from_spec(spec):
    """Build the network that ``spec``, the record kept by `build`, describes."""
    image = (spec["input_size"], spec["input_size"], spec["in_channels"])
    made, shape = _Builder(spec).sequence(spec["definition"], image)
    expected = (1, 1, spec["num_classes"])
    if shape != expected:
        raise ValueError(f"definition: its end has the shape {shape}, expected {expected}; end it with a classifier")
    return layers.Sequential([*made, layers.Flatten("logits", logits=True)], spec["name"], spec)


# ---------------------------------------------------------------------------------------------- files


def save(model, path, *, classes, preprocessing):
    """Write a network to ``path`` (.npz): definition, weights, class names, preprocessing."""
    header = {"format": FORMAT, "spec": model.spec, "classes": list(classes), "preprocessing": preprocessing}
    files.write_arrays(path, header, model.state())


def load(path):
    """Read what `save` wrote: (model, classes, preprocessing).

    Raises
    ------
    files.FileError
        Missing, damaged, or not a model file.
    """
    header, arrays = files.read_arrays(path, FORMAT)
    try:
        model = from_spec(header["spec"])
        model.load_state(arrays)
        return model, header["classes"], header["preprocessing"]
    except (KeyError, TypeError, ValueError) as error:
        raise files.FileError(f"{path}: damaged, or not a model file ({error})") from None
