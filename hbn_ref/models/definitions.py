"""The networks as plain data: the words of a definition, one list per network, the authors' hybrids, layer numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..checks import IntOrPair, one_of

VARIANTS = ("fprec", "wbin", "fbin", "hybrid")
Item = dict[str, Any]  # of a definition: what `conv`, `max_pool`, ... return

# --------------------------------------------------------------------------- the words of a definition


def conv(
    name: str, channels: int, kernel: IntOrPair | str, stride: IntOrPair = 1, padding: IntOrPair = 0, relu: bool = True
) -> Item:
    """A convolution with its BatchNorm and ReLU. kernel="map" is as large as the map that is left."""
    return {
        "op": "conv", "name": name, "channels": channels, "kernel": kernel, "stride": stride, "padding": padding,
        "relu": relu,
    }  # fmt: skip


def classifier(name: str = "classifier", kernel: IntOrPair | str = 1) -> Item:
    """The last convolution: one channel per class, no BatchNorm, no ReLU."""
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
    """A 1x1 convolution to few channels, then 1x1 and 3x3 side by side, ``expand`` channels each."""
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

# The hybrids that the paper's authors published: the layers that keep real inputs. Their weights are binary.
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
    """Return (network, variant, keep_real) for NETWORK-VARIANT, such as "small-fbin", or a hybrid of the authors.

    Raises
    ------
    ValueError
        There is no such network, variant or hybrid; the message lists what there is.
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
    """Return the definition of a network by its name; a definition is returned as it is."""
    if isinstance(name_or_definition, str):
        return NETWORKS[one_of("network", name_or_definition, tuple(NETWORKS))]
    items = name_or_definition if isinstance(name_or_definition, (list, tuple)) else [None]
    if not all(isinstance(item, dict) and "op" in item for item in items):
        raise TypeError("network: expected a name or a definition, a list made with models.conv, models.max_pool, ...")
    return list(name_or_definition)


def _walk(definition, in_shortcut=False):
    """Yield (item, whether it is on a shortcut) for each convolution and classifier, in the definition's order."""
    for item in definition:
        if item["op"] in ("conv", "classifier"):
            yield item, in_shortcut
        for part in (item.get("body", ()), *item.get("branches", ())):
            yield from _walk(part, in_shortcut)
        yield from _walk(item.get("shortcut", ()), in_shortcut=True)


def layer_numbers(definition: Sequence[Item]) -> dict[str, int]:
    """Return {name: number} of all convolutions, classifier included.

    Numbers follow the definition, from 1. Projections on shortcuts come after all others: so ResNet-18's conv17 is
    layer 17.
    """
    in_order = sorted(_walk(definition), key=lambda found: found[1])  # stable: only shortcuts move, to the end
    names = [item["name"] for item, _ in in_order]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"definition: two layers are called {min(twice)!r}")
    return {name: number for number, name in enumerate(names, start=1)}


def binarizable(name_or_definition: str | Sequence[Item]) -> list[str]:
    """Return the names of the layers whose inputs can be binary: all but the first convolution and the classifier."""
    definition = definition_of(name_or_definition)
    numbers = layer_numbers(definition)
    classifiers = [item["name"] for item, _ in _walk(definition) if item["op"] == "classifier"]
    return [name for name in numbers if numbers[name] > 1 and name not in classifiers]


def resolve_keep_real(definition: Sequence[Item], keep_real: Sequence[str | int] | int | None) -> list[str]:
    """Return the names of the layers to keep real, from names or layer numbers, in order.

    Raises
    ------
    ValueError
        There is no such layer, or its inputs are never binarized: the first layer, the classifier.
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
