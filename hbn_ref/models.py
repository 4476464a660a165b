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

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from . import conv as convolution
from . import files, layers, memory
from .binarize import ESTIMATORS, RULES
from .checks import IntOrPair, one_of, pair, real_number, whole_number

VARIANTS = ("fprec", "wbin", "fbin", "hybrid")
MOST_WEIGHTS = 2**59  # of a layer: more bytes than an array may have
FORMAT = "hbn_ref model 1"
Item = dict[str, Any]  # of a definition: what `conv`, `max_pool`, ... return

# --------------------------------------------------------------------------- the words of a definition


def conv(
    name: str, channels: int, kernel: IntOrPair | str, stride: IntOrPair = 1, padding: IntOrPair = 0, relu: bool = True
) -> Item:
    """A convolution with its BatchNorm and ReLU. kernel="map" takes the whole remaining map."""
    return {
        "op": "conv", "name": name, "channels": channels, "kernel": kernel, "stride": stride, "padding": padding,
        "relu": relu,
    }  # fmt: skip


def classifier(name: str = "classifier", kernel: IntOrPair | str = 1) -> Item:
    """The last convolution, one channel a class, without BatchNorm and ReLU."""
    return {"op": "classifier", "name": name, "kernel": kernel}


def max_pool(size: IntOrPair, stride: IntOrPair | None = None, padding: IntOrPair = 0, ceil: bool = False) -> Item:
    """Max pooling; the stride is the size unless given."""
    stride = size if stride is None else stride
    return {"op": "max_pool", "size": size, "stride": stride, "padding": padding, "ceil": ceil}


def average() -> Item:
    """Mean of the whole map."""
    return {"op": "average"}


def relu() -> Item:
    """A ReLU of its own, after a residual sum."""
    return {"op": "relu"}


def dropout(rate: float, per_channel: bool = False) -> Item:
    """Dropout of values or of whole channels."""
    return {"op": "dropout", "rate": rate, "per_channel": per_channel}


def residual(name: str, body: Sequence[Item], shortcut: Sequence[Item] = ()) -> Item:
    """body(x) + shortcut(x); an empty shortcut passes x on."""
    return {"op": "residual", "name": name, "body": list(body), "shortcut": list(shortcut)}


def concat(name: str, *branches: Sequence[Item]) -> Item:
    """Several branches side by side."""
    return {"op": "concat", "name": name, "branches": [list(branch) for branch in branches]}


# --------------------------------------------------------------------------------------- the networks

SMALL = [
    conv("conv1", 32, 5, padding=2), max_pool(3, 2, padding=1),
    conv("conv2", 64, 3, padding=1), max_pool(3, 2, padding=1),
    conv("conv3", 128, 3, padding=1), max_pool(3, 2, padding=1),
    conv("conv4", 128, 3, padding=1), max_pool(3, 2, padding=1),
    conv("conv5", 256, "map"),
    conv("conv6", 256, 1), dropout(0.2, per_channel=True),
    classifier(),
]  # fmt: skip

SKETCHANET = [
    conv("conv1", 64, 15, stride=3), max_pool(3, 2),
    conv("conv2", 128, 5), max_pool(3, 2),
    conv("conv3", 256, 3, padding=1),
    conv("conv4", 256, 3, padding=1),
    conv("conv5", 256, 3, padding=1), max_pool(3, 2),
    conv("conv6", 512, "map"), dropout(0.2, per_channel=True),
    conv("conv7", 512, 1), dropout(0.2, per_channel=True),
    classifier("conv8"),
]  # fmt: skip

ALEXNET = [
    conv("conv1", 96, 11, stride=4, padding=2), max_pool(3, 2),
    conv("conv2", 256, 5, padding=2), max_pool(3, 2),
    conv("conv3", 384, 3, padding=1),
    conv("conv4", 384, 3, padding=1),
    conv("conv5", 256, 3, padding=1), max_pool(3, 2),
    conv("conv6", 4096, "map"), dropout(0.5),
    conv("conv7", 4096, 1), dropout(0.5),
    classifier("conv8"),
]  # fmt: skip


def _basic_block(number, channels, stride=1):
    """Two 3x3 convolutions, conv<number> and the next, beside a shortcut: a 1x1 projection where the shape changes."""
    shortcut = [conv(f"shortcut{number}", channels, 1, stride=stride, relu=False)] if stride > 1 else []
    body = [
        conv(f"conv{number}", channels, 3, stride=stride, padding=1),
        conv(f"conv{number + 1}", channels, 3, padding=1, relu=False),
    ]
    return [residual(f"block{number}", body, shortcut), relu()]


RESNET18 = [
    conv("conv1", 64, 7, stride=2, padding=3), max_pool(3, 2, padding=1),
    *_basic_block(2, 64), *_basic_block(4, 64),
    *_basic_block(6, 128, stride=2), *_basic_block(8, 128),
    *_basic_block(10, 256, stride=2), *_basic_block(12, 256),
    *_basic_block(14, 512, stride=2), *_basic_block(16, 512),
    average(), classifier("conv18"),
]  # fmt: skip


def _fire(name, squeeze, expand):
    """A 1x1 convolution to few channels, then ``expand`` channels each of 1x1 and 3x3 side by side."""
    return [
        conv(f"{name}.squeeze", squeeze, 1),
        concat(
            f"{name}.expand", [conv(f"{name}.expand1x1", expand, 1)], [conv(f"{name}.expand3x3", expand, 3, padding=1)]
        ),
    ]


SQUEEZENET = [
    conv("conv1", 96, 7, stride=2), max_pool(3, 2, ceil=True),
    *_fire("fire2", 16, 64), *_fire("fire3", 16, 64), *_fire("fire4", 32, 128), max_pool(3, 2, ceil=True),
    *_fire("fire5", 32, 128), *_fire("fire6", 48, 192), *_fire("fire7", 48, 192), *_fire("fire8", 64, 256),
    max_pool(3, 2, ceil=True), *_fire("fire9", 64, 256), dropout(0.5),
    classifier("conv10"), average(),
]  # fmt: skip


def _inception(name, c1, reduce3, c3, reduce5, c5, pool):
    """Four branches: 1x1 | 1x1, 3x3 | 1x1, 5x5 | pool, 1x1 (Szegedy et al. 2015)."""
    return concat(
        name,
        [conv(f"{name}.1x1", c1, 1)],
        [conv(f"{name}.reduce3x3", reduce3, 1), conv(f"{name}.3x3", c3, 3, padding=1)],
        [conv(f"{name}.reduce5x5", reduce5, 1), conv(f"{name}.5x5", c5, 5, padding=2)],
        [max_pool(3, 1, padding=1), conv(f"{name}.pool", pool, 1)],
    )


GOOGLENET = [
    conv("conv1", 64, 7, stride=2, padding=3), max_pool(3, 2, ceil=True),
    conv("conv2", 64, 1), conv("conv3", 192, 3, padding=1), max_pool(3, 2, ceil=True),
    _inception("3a", 64, 96, 128, 16, 32, 32), _inception("3b", 128, 128, 192, 32, 96, 64), max_pool(3, 2, ceil=True),
    _inception("4a", 192, 96, 208, 16, 48, 64), _inception("4b", 160, 112, 224, 24, 64, 64),
    _inception("4c", 128, 128, 256, 24, 64, 64), _inception("4d", 112, 144, 288, 32, 64, 64),
    _inception("4e", 256, 160, 320, 32, 128, 128), max_pool(3, 2, ceil=True),
    _inception("5a", 256, 160, 320, 32, 128, 128), _inception("5b", 384, 192, 384, 48, 128, 128),
    average(), dropout(0.4), classifier(),
]  # fmt: skip

NETWORKS = {
    "small": SMALL, "sketchanet": SKETCHANET, "alexnet": ALEXNET, "resnet18": RESNET18, "squeezenet": SQUEEZENET,
    "googlenet": GOOGLENET,
}  # fmt: skip

_EXPAND1X1 = tuple(f"fire{i}.expand1x1" for i in range(2, 10))
_SQUEEZE_V1 = ("fire2.squeeze", "fire2.expand3x3", *_EXPAND1X1)
_SQUEEZE_V2 = (*_SQUEEZE_V1, "fire9.squeeze", "fire9.expand3x3")

# The hybrids that the paper's authors published: which layers keep real inputs (weights binary).
HYBRIDS = {
    "sketchanet-hybrid1": ("conv6", "conv7"),
    "sketchanet-hybrid2": ("conv7",),
    "alexnet-hybrid1": ("conv6", "conv7"),
    "alexnet-hybrid2": ("conv7",),
    "resnet18-hybrid-v1": (16, 17),
    "resnet18-hybrid-v2": (*range(12, 18), "shortcut14"),
    "resnet18-hybrid-v3": (3, 8, 9, *range(12, 18)),
    "squeezenet-hybrid-v1": _SQUEEZE_V1,
    "squeezenet-hybrid-v2": _SQUEEZE_V2,
    "squeezenet-hybrid-v3": (*_SQUEEZE_V2, *(f"fire{i}.squeeze" for i in range(3, 9))),
}


def parse(name: str) -> tuple[str, str, Sequence[str | int]]:
    """Return (network, variant, keep_real) for NETWORK-VARIANT ("small-fbin") or an authors' hybrid.

    Raises
    ------
    ValueError
        No such network, variant or hybrid; the message lists what there is.
    """
    network, _, variant = name.partition("-")
    if network in NETWORKS and variant in VARIANTS:
        return network, variant, ()
    if name in HYBRIDS:
        return network, "hybrid", HYBRIDS[name]
    known = [f"{network}-{v}" for v in VARIANTS] if network in NETWORKS else [f"NETWORK-{v}" for v in VARIANTS]
    known += [hybrid for hybrid in HYBRIDS if hybrid.startswith(network) or network not in NETWORKS]
    if "/" in name or "\\" in name:
        raise ValueError(f"model: {name!r} is no model file; a file's name ends in .npz")
    raise ValueError(f"model: no {name!r}; there are {', '.join(known)}; networks: {', '.join(NETWORKS)}")


def definition_of(name_or_definition: str | Sequence[Item]) -> list[Item]:
    """Return the definition for a network's name; a definition is returned as it is."""
    if isinstance(name_or_definition, str):
        return NETWORKS[one_of("network", name_or_definition, tuple(NETWORKS))]
    items = name_or_definition if isinstance(name_or_definition, (list, tuple)) else [None]
    if not all(isinstance(item, dict) and "op" in item for item in items):
        raise TypeError("network: expected a name or a definition, a list made with models.conv, models.max_pool, ...")
    return list(name_or_definition)


def _walk(definition, in_shortcut=False):
    """Yield (item, whether it stands on a shortcut) for each convolution, classifier included, as they come."""
    for item in definition:
        if item["op"] in ("conv", "classifier"):
            yield item, in_shortcut
        for part in (item.get("body", ()), *item.get("branches", ())):
            yield from _walk(part, in_shortcut)
        yield from _walk(item.get("shortcut", ()), in_shortcut=True)


def layer_numbers(definition: Sequence[Item]) -> dict[str, int]:
    """Return {name: number} of all convolutions, classifier included.

    Numbers follow the definition from 1; projections on shortcuts come after all others, so that ResNet-18's conv17 is
    layer 17.
    """
    in_order = sorted(_walk(definition), key=lambda found: found[1])  # stable: only shortcuts move, to the end
    names = [item["name"] for item, _ in in_order]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"definition: two layers are called {min(twice)!r}")
    return {name: number for number, name in enumerate(names, start=1)}


def binarizable(name_or_definition: str | Sequence[Item]) -> list[str]:
    """Return the names of the layers whose inputs can be binary: all convolutions but the first and the classifier."""
    definition = definition_of(name_or_definition)
    numbers = layer_numbers(definition)
    classifiers = [item["name"] for item, _ in _walk(definition) if item["op"] == "classifier"]
    return [name for name in numbers if numbers[name] > 1 and name not in classifiers]


def resolve_keep_real(definition: Sequence[Item], keep_real: Sequence[str | int] | int | None) -> list[str]:
    """Return the names of the layers to keep real, from names or layer numbers, in order.

    Raises
    ------
    ValueError
        No such layer, or one whose inputs are never binarized (the first, the classifier).
    """
    numbers = layer_numbers(definition)
    names = {number: name for name, number in numbers.items()}
    choosable, chosen = binarizable(definition), set()
    for wanted in [keep_real] if isinstance(keep_real, (str, int)) else keep_real or ():
        name = names.get(wanted, wanted) if isinstance(wanted, (int, np.integer)) else wanted
        if name not in numbers:
            raise ValueError(f"keep_real: no layer {wanted!r}; choose among {', '.join(choosable)}")
        if name not in choosable:
            raise ValueError(f"keep_real: {name} has real inputs in every variant; choose among {', '.join(choosable)}")
        chosen.add(name)
    return [name for name in numbers if name in chosen]


# ------------------------------------------------------------------------------------------- building


class _Builder:
    """Walks a definition with the shape of the map that reaches each item."""

    def __init__(self, spec, init=True):
        self.spec, self.init = spec, init
        self.numbers = layer_numbers(spec["definition"])
        self.made = 0  # layers without weights are numbered as they come

    def sequence(self, items, shape, inside=""):
        """Return (layers, shape) for a list of items and the shape (H, W, C) that enters it."""
        made = []
        for item in items:
            for layer in getattr(self, "_" + item["op"], self._unknown)(item, shape):
                try:
                    shape = layer.output_shape(shape)
                except ValueError as error:
                    if isinstance(layer, (layers.Residual, layers.Concat)):
                        raise  # parts of different shapes, whatever the size of the images
                    if not str(error).startswith("x: "):
                        raise ValueError(f"{layer.name}: {error}") from None
                    size = self.spec["input_size"]
                    text = str(error).removeprefix("x: ")
                    raise ValueError(f"{layer.name}: {text}; input_size {size} is too small for this network") from None
                made.append(layer)
                if isinstance(layer, layers.MaxPool) and isinstance(made[-2:][0], layers.ReLU):
                    made[-2:] = (
                        layer,
                        made[-2],
                    )  # max(relu(x)) = relu(max(x)), gradients too, and fewer values
        return made, shape

    def _unknown(self, item, shape):
        raise ValueError(f"definition: unknown item {item['op']!r}")

    def _weights(self, item, shape, filters):
        kernel = item["kernel"]
        kh, kw = shape[:2] if kernel == "map" else pair("kernel", kernel, 1)
        if kh * kw * shape[2] * filters > MOST_WEIGHTS:
            raise ValueError(
                f"{item['name']}: {kh:g} x {kw:g} x {shape[2]:g} x {filters:g} weights are more than any machine holds;"
                " choose a smaller width, input_size or num_classes"
            )
        rng = np.random.default_rng([self.spec["seed"], self.numbers[item["name"]]])
        if not self.init:
            return np.broadcast_to(np.float32(0), (kh, kw, shape[2], filters))  # its shape and no memory
        bound = 1 / np.sqrt(kh * kw * shape[2])
        return rng.uniform(-bound, bound, (kh, kw, shape[2], filters)).astype(np.float32)

    def _inputs_binary(self, name):
        variant = self.spec["variant"]
        chosen = variant == "fbin" or (variant == "hybrid" and name not in self.spec["keep_real"])
        return chosen and self.numbers[name] > 1

    def _conv(self, item, shape):
        spec, name = self.spec, item["name"]
        first = self.numbers[name] == 1
        filters = item["channels"] if spec["width"] == 1 else max(2, round(min(item["channels"] * spec["width"], 1e30)))
        w = self._weights(item, shape, filters)
        geometry = {"stride": item["stride"], "padding": item["padding"]}
        if max(pair("padding", item["padding"], 0)) > max(w.shape[:2]):
            raise ValueError(f"{name}: padding {item['padding']} is larger than the kernel {w.shape[:2]}")
        if self._inputs_binary(name):
            options = {key: spec[key] for key in ("rule", "estimator", "pad_value", "scale")}
            yield layers.BatchNorm(f"{name}.bn", shape[2], in_place=True, init=self.init)
            yield layers.XnorConv(name, w, **geometry, **options)
        elif first or spec["variant"] == "fprec":
            begins = first and spec["definition"][0] is item
            yield layers.Conv(name, w, **geometry, need_dx=not begins)
            yield layers.BatchNorm(f"{name}.bn", filters, in_place=True, init=self.init)
        else:
            yield layers.BinaryWeightConv(name, w, **geometry, rule=spec["rule"])
            yield layers.BatchNorm(f"{name}.bn", filters, in_place=True, init=self.init)
        if item["relu"]:
            yield layers.ReLU(f"{name}.relu", in_place=True)

    def _classifier(self, item, shape):
        w = self._weights(item, shape, self.spec["num_classes"])
        if self.spec["last_layer"] == "binary":
            yield layers.BinaryWeightConv(item["name"], w, rule=self.spec["rule"])
        else:
            yield layers.Conv(item["name"], w, bias=True)

    def _name(self, kind):
        self.made += 1
        return f"{kind}{self.made}"

    def _max_pool(self, item, shape):
        options = {key: item[key] for key in ("stride", "padding", "ceil")}
        yield layers.MaxPool(self._name("pool"), item["size"], **options)

    def _average(self, item, shape):
        yield layers.AvgPool(self._name("average"))

    def _relu(self, item, shape):
        yield layers.ReLU(self._name("relu"))

    def _dropout(self, item, shape):
        yield layers.Dropout(self._name("dropout"), item["rate"], item["per_channel"])

    def _residual(self, item, shape):
        body, _ = self.sequence(item["body"], shape)
        shortcut, _ = self.sequence(item["shortcut"], shape)
        yield layers.Residual(layers.Sequential(body), layers.Sequential(shortcut), item["name"])

    def _concat(self, item, shape):
        if not item["branches"]:
            raise ValueError(f"{item['name']}: expected at least one branch")
        branches = [layers.Sequential(self.sequence(branch, shape)[0]) for branch in item["branches"]]
        yield layers.Concat(branches, item["name"])


def build(
    name_or_definition: str | Sequence[Item], variant: str | None = None, *, num_classes: int, in_channels: int,
    input_size: int, keep_real: Sequence[str | int] | int | None = (), last_layer: str = "real", seed: int = 0,
    width: float = 1, rule: str = "paper", estimator: str = "ste", pad_value: int = 0, scale: bool = True,
    init: bool = True,
) -> layers.Sequential:  # fmt: skip
    """Build an untrained network.

    Parameters
    ----------
    name_or_definition : str or list
        One of NETWORKS, NETWORK-VARIANT or an authors' hybrid (see `parse`), or a list made with `conv`,
        `max_pool`, ... of this module.
    variant : {"fprec", "wbin", "fbin", "hybrid"}
        "fprec" unless the name says it.
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
    init : bool
        False makes a network without weights, for counting only.

    Returns
    -------
    layers.Sequential
        (N, input_size, input_size, in_channels) float32 to logits (N, num_classes). Its ``spec`` holds the arguments.
    """
    if isinstance(name_or_definition, str) and "-" in name_or_definition:
        name_or_definition, named, layers_named = parse(name_or_definition)
        if variant not in (None, named):
            raise ValueError(f"variant: the name says {named!r}, got {variant!r}")
        variant, keep_real = named, keep_real or layers_named
    definition = definition_of(name_or_definition)
    spec: dict[str, Any] = {
        "name": name_or_definition if isinstance(name_or_definition, str) else "custom",
        "definition": definition, "variant": variant or "fprec", "num_classes": num_classes,
        "in_channels": in_channels, "input_size": input_size, "keep_real": keep_real, "last_layer": last_layer,
        "seed": seed, "width": width, "rule": rule, "estimator": estimator, "pad_value": pad_value, "scale": scale,
    }  # fmt: skip
    _check_spec(spec)
    spec["keep_real"] = resolve_keep_real(definition, keep_real)
    if spec["keep_real"] and spec["variant"] != "hybrid":
        raise ValueError(f"keep_real: only a hybrid chooses layers, the variant is {spec['variant']!r}")
    for key in ("num_classes", "in_channels", "input_size"):
        spec[key] = int(spec[key])
    return from_spec(spec, init)


def _check_spec(spec):
    one_of("variant", spec["variant"], VARIANTS)
    one_of("last_layer", spec["last_layer"], ("real", "binary"))
    one_of("rule", spec["rule"], RULES)
    one_of("estimator", spec["estimator"], tuple(ESTIMATORS))
    one_of("pad_value", spec["pad_value"], convolution.PAD_VALUES)
    real_number("width", spec["width"], 0.01)
    whole_number("seed", spec["seed"], 0)
    for key in ("num_classes", "in_channels", "input_size"):
        whole_number(key, spec[key])
    if spec["variant"] == "fprec" and spec["last_layer"] == "binary":
        raise ValueError("last_layer: fprec has real weights everywhere; use wbin, fbin or hybrid")


def from_spec(spec: dict[str, Any], init: bool = True) -> layers.Sequential:
    """Build the network that ``spec``, the record kept by `build`, describes; ValueError where memory is short."""
    _check_spec(spec)
    if init:
        count = _numbers(from_spec(spec, init=False))
        settings = ", ".join(f"{key} {spec[key]:g}" for key in ("input_size", "width", "num_classes", "in_channels"))
        memory.ask(f"network: {count:,} weights ({settings})", 4 * count)
    image = (spec["input_size"], spec["input_size"], spec["in_channels"])
    try:
        made, shape = _Builder(spec, init).sequence(spec["definition"], image)
    except (KeyError, TypeError, OverflowError, AttributeError) as error:
        raise ValueError(
            f"definition: an item is not as models.conv, models.max_pool, ... make it ({error!r})"
        ) from None
    expected = (1, 1, spec["num_classes"])
    if shape != expected:
        ends = spec["definition"][-1]["op"] == "classifier"
        advice = "reduce the map first: a kernel of 'map', pooling, average()" if ends else "end it with a classifier"
        raise ValueError(f"definition: its end has the shape {shape}, expected {expected}; {advice}")
    return layers.Sequential([*made, layers.Flatten("logits", logits=True)], spec["name"], spec)


def _numbers(model):
    """How many numbers a network holds."""
    return sum(array.size for array in model.state().values())


def start_from(model: layers.Sequential, trained: layers.Sequential) -> None:
    """Give a network the weights of another variant: convolutions and classifier, layer by layer, in place.

    BatchNorm begins anew, as it stands before a fully binary layer and behind any other.

    Raises
    ------
    ValueError
        The networks differ in a layer's name or shape; nothing is changed.
    """
    theirs = {layer.name: layer.params["w"] for layer in trained.walk() if "w" in layer.params}
    ours = [layer for layer in model.walk() if "w" in layer.params]
    for layer in ours:
        if layer.name not in theirs or theirs[layer.name].shape != layer.params["w"].shape:
            found = theirs[layer.name].shape if layer.name in theirs else "no such layer"
            raise ValueError(f"trained: {layer.name} has {layer.params['w'].shape} here and {found} there")
    for layer in ours:
        layer.params["w"][...] = theirs[layer.name]


# --------------------------------------------------------------------------------------------- memory


def leaves(
    layer: layers.Layer, shape: tuple[int, ...]
) -> Iterator[tuple[layers.Layer, tuple[int, ...], tuple[int, ...]]]:
    """Yield (leaf layer, input shape, output shape) in the order of the definition."""
    if isinstance(layer, layers.Sequential):
        for inner in layer.layers:
            yield from leaves(inner, shape)
            shape = inner.output_shape(shape)
    elif isinstance(layer, layers.Residual):
        yield from leaves(layer.body, shape)
        yield from leaves(layer.shortcut, shape)
    elif isinstance(layer, layers.Concat):
        for branch in layer.branches:
            yield from leaves(branch, shape)
    else:
        yield layer, shape, layer.output_shape(shape)


def bytes_needed(model: layers.Sequential, batch: int, slots: int | None = None) -> int:
    """Return how many bytes a batch takes on its way through a network, at least: the images and what is made of them.

    Without ``slots``, a forward pass: the largest input and output of a layer. With them, a training step: what each
    layer keeps for its backward pass, a gradient for each weight, and so many running arrays of the optimiser.
    """
    spec = spec_of(model)
    size = spec["input_size"]
    kept, most = 0, 0
    for layer, before, after in leaves(model, (size, size, spec["in_channels"])):
        x, out = (4 * shape[0] * shape[1] * shape[2] for shape in (before, after))
        most = max(most, kept + x + out)
        kept += 0 if slots is None else _kept_bytes(layer, before, x, out)
    weights = sum(layer.params[key].size for _, layer, key in model.parameters())
    return batch * max(most, kept) + 4 * weights * (0 if slots is None else 1 + slots)


def _kept_bytes(layer, before, x, out):
    """Of one image, for the backward pass of one layer; x and out are the bytes of its input and output."""
    if isinstance(layer, layers.XnorConv):
        return x // 16  # two bits a value
    if isinstance(layer, layers.Conv):
        (ph, pw), (height, width, channels) = layer.padding, before
        return 4 * (height + 2 * ph) * (width + 2 * pw) * channels
    if isinstance(layer, layers.BatchNorm):
        return x
    if isinstance(layer, layers.MaxPool):
        return out // 4  # a byte a value
    return x // 32 if isinstance(layer, layers.ReLU) else 0


# ---------------------------------------------------------------------------------------------- files


def spec_of(model: layers.Sequential) -> dict[str, Any]:
    """Return the record that `build` kept of a model, or raise a ValueError where there is none."""
    if model.spec is None:
        raise ValueError("model: expected one made by models.build, this Sequential carries no definition")
    return model.spec


def _check_labels(spec, classes, preprocessing):
    if len(classes) != spec["num_classes"]:
        raise ValueError(f"classes: expected {spec['num_classes']} names, got {len(classes)}")
    if preprocessing.get("size") != spec["input_size"]:
        raise ValueError(f"preprocessing: expected size {spec['input_size']}, got {preprocessing.get('size')!r}")


def check_preprocessing(trained: dict[str, Any], found: dict[str, Any]) -> None:
    """Raise a ValueError where images are prepared otherwise than those that a network was trained on."""
    for key in ("channels", "kind", "stored", "mean", "std", "solid"):
        if trained.get(key) != files.plain(found.get(key)):
            raise ValueError(
                f"data: prepared with {key} {found.get(key)}, the network was trained with {trained.get(key)}"
            )


def save(
    model: layers.Sequential, path: files.PathLike, *, classes: Sequence[str], preprocessing: dict[str, Any]
) -> None:
    """Write a network made by `build` to ``path`` (.npz): definition, weights, class names, preprocessing."""
    spec = spec_of(model)
    _check_labels(spec, classes, preprocessing)
    header = {"format": FORMAT, "spec": spec, "classes": list(classes), "preprocessing": preprocessing}
    files.write_arrays(path, header, model.state())


def load(path: files.PathLike) -> tuple[layers.Sequential, list[str], dict[str, Any]]:
    """Read what `save` wrote: (model, classes, preprocessing).

    Raises
    ------
    files.FileError
        Missing, damaged, or not a model file.
    """
    header, arrays = files.read_arrays(path, FORMAT)
    try:
        if _numbers(from_spec(header["spec"], init=False)) != sum(array.size for array in arrays.values()):
            raise ValueError("its arrays are not those of its network")  # before memory is taken for what it claims
        model = from_spec(header["spec"])
        model.load_state(arrays)
        _check_labels(model.spec, header["classes"], header["preprocessing"])
        return model, header["classes"], header["preprocessing"]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        raise files.FileError(f"{path}: damaged, or not a model file ({error})") from None
