"""From a definition to a network: each item becomes layers, according to the variant."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import conv, layers, memory
from ..binarize import ESTIMATORS, RULES
from ..checks import one_of, pair, real_number, whole_number
from .definitions import VARIANTS, Item, definition_of, layer_numbers, parse, resolve_keep_real
from .sizes import numbers

MOST_WEIGHTS = 2**59  # in a layer: more would be more bytes than an array may have


class _Builder:
    """Walks a definition with the shape of the map that reaches each item."""

    def __init__(self, spec, init=True):
        self.spec, self.init = spec, init
        self.numbers = layer_numbers(spec["definition"])
        self.made = 0  # layers without weights, which are numbered as they come

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
                    )  # max(relu(x)) = relu(max(x)), gradients too: this order has fewer values to compute
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
            return np.broadcast_to(np.float32(0), (kh, kw, shape[2], filters))  # a shape without memory
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
        A name in NETWORKS, NETWORK-VARIANT or a hybrid of the authors (see `parse`), or a list made with `conv`,
        `max_pool`, ... of this chapter.
    variant : {"fprec", "wbin", "fbin", "hybrid"}
        By default what the name says, else "fprec".
    num_classes, in_channels, input_size : int
        Images are (input_size, input_size, in_channels).
    keep_real : names or numbers of layers
        The layers whose inputs stay real in a hybrid; their weights are binary.
    last_layer : {"real", "binary"}
        Whether the classifier's weights are binary.
    seed : int
        Of the initial weights, which are the same in every variant, layer by layer.
    width : float
        Scales the number of channels.
    rule, estimator, pad_value, scale
        See `binarize.weight_gradient` and `conv.xnor_conv2d_forward`.
    init : bool
        False makes a network that can be counted and has no weights.

    Returns
    -------
    layers.Sequential
        Takes float32 (N, input_size, input_size, in_channels), returns logits (N, num_classes). ``spec`` holds the
        arguments.
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
    one_of("pad_value", spec["pad_value"], conv.PAD_VALUES)
    real_number("width", spec["width"], 0.01)
    whole_number("seed", spec["seed"], 0)
    for key in ("num_classes", "in_channels", "input_size"):
        whole_number(key, spec[key])
    if spec["variant"] == "fprec" and spec["last_layer"] == "binary":
        raise ValueError("last_layer: fprec has real weights everywhere; use wbin, fbin or hybrid")


def from_spec(spec: dict[str, Any], init: bool = True) -> layers.Sequential:
    """Build the network that ``spec`` describes, the record kept by `build`; a ValueError if memory is short."""
    _check_spec(spec)
    if init:
        count = numbers(from_spec(spec, init=False))
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


def start_from(model: layers.Sequential, trained: layers.Sequential) -> None:
    """Give a network the weights of another variant: convolutions and classifier, layer by layer, in place.

    BatchNorm begins anew: it stands before a fully binary layer, but after any other.

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
