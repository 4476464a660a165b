"""From a trained network to a packed one."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import binarize, bits, conv, layers, models
from .network import PackedNetwork
from .steps import (
    Apply,
    BinaryWeightConvolve,
    Concat,
    Convolve,
    Count,
    MaxPool,
    Residual,
    Scale,
    Signs,
    threshold_step,
)  # fmt: skip
from .thresholds import threshold


class _FromModel:
    """Where `compile` takes its numbers from: a trained network."""

    def real(self, array):
        return np.array(array, np.float32)

    def weights(self, layer, with_alpha):
        w = layer.params["w"]
        alpha = None if with_alpha and layer.scale else np.ones(w.shape[3], np.float32)
        return conv.pack_weights(w, layer.pad_value, alpha)

    def columns(self, layer):
        w = layer.params["w"]
        return bits.pack(w.reshape(-1, w.shape[3])), binarize.alpha(w)

    def fold(self, norm):
        values = norm.params["gamma"], norm.params["beta"], norm.buffers["mean"], norm.buffers["var"]
        return layers.fold_batchnorm(*values)

    def threshold(self, layer, norm, relu):
        w = layer.params["w"]
        alpha = binarize.alpha(w) if layer.scale else np.ones(w.shape[3], np.float32)
        scale, shift = self.fold(norm)
        return threshold_step(*threshold(alpha, scale, shift, w[..., 0].size, relu))


def _is(items, i, kind):
    return i < len(items) and isinstance(items[i], kind)


def _after(items, i):
    """Return (pools, relu, j): what follows a fully binary layer, and the next layer j that is none of these."""
    pools, relu = [], False
    while _is(items, i, (layers.MaxPool, layers.ReLU)):
        relu |= isinstance(items[i], layers.ReLU)
        pools += [items[i]] * isinstance(items[i], layers.MaxPool)
        i += 1
    return pools, relu, i


def _alone(layer):
    """A copy of a layer without weights that shares nothing with the trained network's."""
    layer = copy.copy(layer)
    layer.cache = layer.watch = layer.watch_output = None
    return layer


def _pool(layer):
    return MaxPool(layer.size, layer.stride, layer.padding, layer.ceil)


def steps_of(items: list, source: Any) -> tuple:
    """Return the steps of a list of layers. It asks ``source`` for every number, always in the same order."""
    items = [layer for layer in items if not isinstance(layer, layers.Dropout)]
    made: list[Any] = []
    i = 0
    while i < len(items):
        layer, i = items[i], i + 1
        if isinstance(layer, layers.XnorConv):
            pools, relu, j = _after(items, i)
            chain = _is(items, j, layers.BatchNorm) and _is(items, j + 1, layers.XnorConv)
            w = source.weights(layer, with_alpha=not chain)
            made.append(Count(layer.name, w, layer.stride, layer.padding, real=not chain))
            if chain:
                made += map(_pool, pools)
                made.append(source.threshold(layer, items[j], relu))
                i = j + 1
        elif isinstance(layer, layers.BatchNorm):
            fold = source.fold(layer)
            made.append(Signs(items[i].name, *fold) if _is(items, i, layers.XnorConv) else Scale(*fold))
        elif isinstance(layer, layers.BinaryWeightConv):
            shape, (words, alpha) = layer.params["w"].shape, source.columns(layer)
            made.append(BinaryWeightConvolve(layer.name, words, alpha, shape, layer.stride, layer.padding))
        elif isinstance(layer, layers.Conv):
            w = source.real(layer.params["w"])
            bias = source.real(layer.params["b"]) if "b" in layer.params else None
            made.append(Convolve(layer.name, w, bias, layer.stride, layer.padding))
        elif isinstance(layer, layers.MaxPool):
            made.append(_pool(layer))
        elif isinstance(layer, layers.Residual):
            made.append(Residual(steps_of(layer.body.layers, source), steps_of(layer.shortcut.layers, source)))
        elif isinstance(layer, layers.Concat):
            made.append(Concat(tuple(steps_of(branch.layers, source) for branch in layer.branches)))
        else:
            made.append(Apply(layers.ReLU(layer.name) if isinstance(layer, layers.ReLU) else _alone(layer)))
    return tuple(made)


def compile(
    model: layers.Sequential, *, classes: Sequence[str] = (), preprocessing: dict[str, Any] | None = None
) -> PackedNetwork:
    """Turn a trained network, made by `models.build`, into a packed one.

    Parameters
    ----------
    model : layers.Sequential
    classes : sequence of str
    preprocessing : dict

    Returns
    -------
    PackedNetwork
        The model as it is now: training it further does not change the packed network.
    """
    spec = models.spec_of(model)
    if classes and len(classes) != spec["num_classes"]:
        raise ValueError(f"classes: expected {spec['num_classes']} names, got {len(classes)}")
    for name, array in model.state().items():
        if not np.isfinite(array).all():
            raise ValueError(f"model: {name} contains NaN or infinity")
    for name, layer, key in model.parameters():
        if layer.params[key].dtype != np.float32:
            raise TypeError(f"model: expected float32 parameters, {name} is {layer.params[key].dtype}")
    return PackedNetwork(spec, list(classes), dict(preprocessing or {}), steps_of(model.layers, _FromModel()))
