"""Chapter 8, hybrid: which layers' inputs to binarize. The paper's algorithm, step by step.

Train the fully binary network. Then, for each layer l whose input is binarized:

1. measure E_l, the error that binarizing its input makes (`binarization_errors`);
2. count NF_l, its share of the multiply-accumulates;
3. compute the score ``M_l = E_l + gamma / NF_l`` (`metric`): it is worth keeping a layer real whose error is large,
   or which costs little;
4. cluster the scores, and take the highest clusters while they fit the wanted share of layers (`partition`);
5. give these layers real inputs, while their weights stay binary, and train that hybrid from scratch (`convert`).

The form of the score and of the partition are recalled from the paper (Prabhu et al. 2018, section 3), not quoted.

Two other rules ask the loss itself: `loss_sensitivity` and `greedy_order`. `within` turns any order of preference into
a choice that fits a budget.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from . import cost, layers, models, train
from .checks import one_of, real_number, whole_number

FORMS = ("mse", "rmse", "normalised", "one_minus_square")


# -------------------------------------------------------------------------------------------- step 1: error


def _sums(x):
    """Means over all elements, of which every form is made: (I - sign I)^2, I^2, |1 - clip(I)^2|."""
    x = np.asarray(x, np.float64)
    squares = x * x
    distance = 1 - np.abs(x)  # |I - sign(I)| = |1 - |I||
    return np.array([(distance * distance).mean(), squares.mean(), np.abs(1 - np.minimum(squares, 1)).mean()])


def _error(sums, form):
    error, power, window = sums
    if form == "normalised":
        return float(error / power) if power > 0 else float("inf")
    return float({"mse": error, "rmse": np.sqrt(error), "one_minus_square": window}[form])


def binarization_error(x: ArrayLike, form: str = "mse") -> float:
    """Return the error of putting sign(x) in the place of x.

    Parameters
    ----------
    x : float array, any shape
    form : {"mse", "rmse", "normalised", "one_minus_square"}
        In this order: mean((x - sign x)^2); its root; the first divided by mean(x^2);
        mean(abs(1 - clip(x, -1, 1)^2)).

    Returns
    -------
    error : float
    """
    one_of("form", form, FORMS)
    x = np.asarray(x)
    if x.size == 0 or not np.isfinite(x).all():
        raise ValueError(f"x: expected finite values, got {'none' if x.size == 0 else 'NaN or infinity'}")
    return _error(_sums(x), form)


def binarization_errors(model: layers.Sequential, batches: Iterable[np.ndarray], form: str = "mse") -> dict[str, float]:
    """Return the error at each layer of ``model`` whose input is binarized, averaged over ``batches``.

    It is measured where the sign is taken: after BatchNorm, with BatchNorm's running statistics.

    Parameters
    ----------
    model : a trained network with fully binary layers
    batches : iterable of float32 (B, H, W, C)

    Returns
    -------
    errors : dict {layer name: float}, in the order of the layers' numbers
    """
    one_of("form", form, FORMS)
    sums: dict[str, np.ndarray] = {}
    count = 0

    def look(layer, x):
        sums[layer.name] = sums.get(layer.name, 0) + _sums(x) * len(x)

    with layers.watching(model, look, layers.XnorConv), layers.packed_weights(model):
        for x in batches:
            model.forward(x)
            count += len(x)
    if not sums:
        raise ValueError("model: no layer with binary inputs saw a batch; the metric needs a trained FBin network")
    order = models.layer_numbers(model.spec["definition"]) if model.spec else sums
    return {name: _error(sums[name] / count, form) for name in order if name in sums}


# ------------------------------------------------------------------------------------- steps 2 and 3: score


def _columns(errors: ArrayLike, macs: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    errors, macs = np.asarray(errors, np.float64), np.asarray(macs, np.float64)
    if errors.ndim != 1 or errors.shape != macs.shape or errors.size == 0:
        raise ValueError(f"macs: expected one for each error, got {macs.shape} for {errors.shape}")
    if not np.isfinite(errors).all():
        raise ValueError(f"errors: expected finite numbers, got {errors}")
    if not (np.isfinite(macs) & (macs > 0)).all():
        raise ValueError(f"macs: expected numbers above 0, got {macs}")
    return errors, macs / macs.sum()


def balanced_gamma(errors: ArrayLike, macs: ArrayLike) -> float:
    """Return the gamma at which the two terms of the score have equal geometric means over the layers.

        gamma = (prod_l E_l NF_l)^(1/L)

    Shares of the operations span three orders of magnitude, so gamma = 1 would choose by cost alone. The arithmetic
    mean of 1/NF would be nearly that of the cheapest layer, and no other layer's cost would count. The means leave out
    layers without an error.
    """
    errors, share = _columns(errors, macs)
    some = errors > 0
    return float(np.exp(np.log(errors[some]).mean() + np.log(share[some]).mean())) if some.any() else 0.0


def metric(errors: ArrayLike, macs: ArrayLike, gamma: float | None = None) -> np.ndarray:
    """Return the score of each layer, ``M_l = E_l + gamma / NF_l`` with ``NF_l = macs_l / sum macs``.

    Parameters
    ----------
    errors, macs : sequences of L numbers, one per layer
    gamma : float or None
        Weight of the second term; None takes `balanced_gamma`.

    Returns
    -------
    scores : float64 (L,)
    """
    errors, share = _columns(errors, macs)
    if gamma is None:
        gamma = balanced_gamma(errors, macs)
    return errors + real_number("gamma", gamma) / share


# -------------------------------------------------------------------------------------- step 4: partition


def kmeans_1d(values: ArrayLike, clusters: int) -> list[list[int]]:
    """Exact k-means of numbers on a line: the partition with the least sum of squared distances to the means.

    On a line, clusters are intervals of the sorted values. So the best cut of the first i values into k clusters
    extends a best cut of fewer values into k - 1. This is dynamic programming, written plainly: there are few layers.

    Returns
    -------
    list of lists of positions in ``values``; the clusters and their members ascend by value
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not np.isfinite(values).all() or not 1 <= clusters <= len(values):
        raise ValueError(f"clusters: expected 1 to {values.size} clusters of finite values, got {clusters!r}")
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    best = [[0.0 if i == 0 else np.inf for i in range(len(values) + 1)]]  # best[k][i]: first i values, k clusters
    cuts = []
    for _ in range(clusters):
        row, cut = [np.inf], [0]
        for i in range(1, len(values) + 1):
            costs = [best[-1][j] + ((ranked[j:i] - ranked[j:i].mean()) ** 2).sum() for j in range(i)]
            cut.append(int(np.argmin(costs)))
            row.append(costs[cut[-1]])
        best.append(row)
        cuts.append(cut)
    found, end = [], len(values)
    for cut in reversed(cuts):
        found.append(order[cut[end] : end].tolist())
        end = cut[end]
    return found[::-1]


def partition(scores: ArrayLike, ratio: float, clusters: int = 2, *, total: int | None = None) -> list[int]:
    """Choose the layers to keep real: the highest clusters of the scores that fit the ratio.

    Clusters are taken from the highest mean downwards, as long as they hold at most ``ratio * total`` layers. If even
    the first is too large, the scores are clustered again, into one cluster more.

    Parameters
    ----------
    scores : sequence of L numbers
    ratio : float, 0 to 1
        The share of layers that may be kept real.
    clusters : int
        P, the number of clusters to begin with.
    total : int or None
        The number of layers that the ratio is a share of; None means L.

    Returns
    -------
    kept : list of int
        Positions in ``scores`` from 0, ascending; empty if nothing fits. `convert` takes names:
        ``[names[i] for i in partition(...)]``, with the names in the order of the scores.
    """
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 1 or scores.size == 0 or not np.isfinite(scores).all():
        raise ValueError(f"scores: expected a list of finite numbers, got {scores}")
    total = whole_number("total", len(scores) if total is None else total)
    if not 0 <= real_number("ratio", ratio) <= 1:
        raise ValueError(f"ratio: expected a share from 0 to 1, got {ratio!r}")
    whole_number("clusters", clusters)
    allowed = int(np.floor(ratio * total + 1e-9))  # 2/7 of 7 is 2, whatever rounding says
    for count in range(min(clusters, len(scores)), len(scores) + 1):
        kept: list[int] = []
        for cluster in reversed(kmeans_1d(scores, count)):
            if len(kept) + len(cluster) > allowed:
                break
            kept += cluster
        if kept:
            return sorted(kept)
    return []


# ------------------------------------------------------------------------------------ step 5: conversion


def convert(model: layers.Sequential, keep_real: Sequence[str | int]) -> layers.Sequential:
    """Return the untrained hybrid of a network: the layers of ``keep_real`` get real inputs.

    ``keep_real`` holds names or layer numbers (conv1 is 1), not the positions that `partition` returns.
    """
    spec = dict(models.spec_of(model))
    definition = spec.pop("definition")
    name = spec.pop("name")
    spec |= {"variant": "hybrid", "keep_real": keep_real}
    hybrid = models.build(definition, **spec)
    hybrid.name = hybrid.spec["name"] = name
    return hybrid


# ------------------------------------------------------------------------- other rules: what the loss says


def _sequentials(layer: layers.Layer) -> Iterator[layers.Sequential]:
    """Yield every list of layers in a network; in each of them a layer can be replaced."""
    parts: Sequence[layers.Layer] = ()
    if isinstance(layer, layers.Sequential):
        yield layer
        parts = layer.layers
    elif isinstance(layer, layers.Residual):
        parts = layer.body, layer.shortcut
    elif isinstance(layer, layers.Concat):
        parts = layer.branches
    for part in parts:
        yield from _sequentials(part)


def _without_sign(layer, size):
    """A fully binary layer without its sign. Its inputs are divided by ``size``; the weights take that factor."""
    w = layer.params["w"]
    w = w if layer.scale else np.where(w >= 0, 1, -1).astype(w.dtype)  # whose alpha is 1
    return layers.BinaryWeightConv(
        layer.name, w / w.dtype.type(size), stride=layer.stride, padding=layer.padding, rule=layer.rule
    )


def _with_sign(layer, spec):
    """A layer with real inputs, made fully binary: they are centred, then their signs are taken."""
    options = {key: spec[key] for key in ("rule", "estimator", "pad_value", "scale")}
    w = layer.params["w"]
    centre = layers.BatchNorm(f"{layer.name}.centre", w.shape[2], w.dtype)
    signs = layers.XnorConv(layer.name, w, stride=layer.stride, padding=layer.padding, **options)
    return layers.Sequential([centre, signs])


class _Probe:
    """A trained WBin or FBin network and labelled images: how does its loss change with the other kind of inputs?"""

    def __init__(self, model, images, labels, prepare, batch):
        self.model, self.names = model, models.binarizable(models.spec_of(model)["definition"])
        kinds = {type(layer) for layer in model.walk() if layer.name in self.names}
        if kinds not in ({layers.XnorConv}, {layers.BinaryWeightConv}):
            raise ValueError(
                "model: expected a trained WBin or FBin network, its binary layers with one kind of inputs"
            )
        self.binary = kinds == {layers.XnorConv}
        order = np.random.default_rng(0).permutation(len(labels))  # `train.recalibrate_batchnorm` wants mixed batches
        self.images, self.labels = np.asarray(images)[order], np.asarray(labels)[order]
        self.options = {"prepare": prepare, "batch": batch}
        self.sums = {name: np.zeros(2) for name in self.names}

        def look(layer, x):
            self.sums[layer.name] += np.abs(x).sum(dtype=np.float64), x.size

        network = self.network(())
        with layers.watching(network, look, layers.XnorConv):
            self.unchanged = self.judge(network)

    def network(self, names):
        """A copy with the other kind of inputs in the layers ``names``, and new statistics for BatchNorm."""
        network = copy.deepcopy(self.model)
        for part in list(_sequentials(network)):
            part.layers = [self.changed(layer) if layer.name in names else layer for layer in part.layers]
        train.recalibrate_batchnorm(network, self.images, **self.options)
        return network

    def changed(self, layer):
        total, count = self.sums[layer.name]
        return _without_sign(layer, total / count or 1) if self.binary else _with_sign(layer, self.model.spec)

    def judge(self, network):
        return train.evaluate(network, self.images, self.labels, **self.options)["loss"]

    def worth(self, name, changed, before, macs):
        """By how much real inputs in one layer lower the loss, compared with binary ones, per MAC of the layer."""
        loss = self.judge(self.network([*changed, name]))
        return (before - loss if self.binary else loss - before) / macs, loss


def _macs(model, per_mac):
    return {row["layer"]: row["macs"] if per_mac else 1 for row in cost.table(model)["layers"]}


def loss_sensitivity(
    model: layers.Sequential, images: np.ndarray, labels: np.ndarray, *, per_mac: bool = False,
    prepare: Callable[[np.ndarray], np.ndarray] | None = None, batch: int = 64,
) -> dict[str, float]:  # fmt: skip
    """Return what real inputs are worth in each layer: the loss of a trained network, with one layer changed at a time.

        S_l = L(inputs of l binary) - L(inputs of l real),  or S_l / MACs_l

    For a trained WBin network this is the rise when layer l is binarized, for a trained FBin network the fall when it
    is not. No weight is trained. The blocks of the two networks differ in their order, so this is how one becomes the
    other:

    * WBin, conv -> BatchNorm -> ReLU, becomes BatchNorm' -> sign -> conv -> BatchNorm -> ReLU. BatchNorm' is new
      (gamma 1, beta 0): after a ReLU alone every sign would be +1. The trained one stays after the convolution. So
      each channel that leaves the layer keeps its mean, its spread, and the threshold of its ReLU.
    * FBin, BatchNorm -> sign -> conv -> ReLU, loses its sign, and its inputs are divided by mean |x|. Then the scale is
      the same: sign(x) is the best +-1 in the place of x / mean |x| (Rastegari et al. 2016, section 3.2).
    * BatchNorm's statistics are measured on ``images`` again for every network, also for the unchanged one. So inputs
      are worth 0 if they are +-1 already (FBin), or if they take two values that are equally far apart in all channels
      (WBin).

    This is the yardstick of mixed precision, as in HAWQ (Dong et al. 2019) and ZeroQ (Cai et al. 2020). Here the loss
    itself is measured.

    Parameters
    ----------
    model : a trained WBin or FBin network, made by `models.build`; it is left as it is
    images, labels : arrays (N, ...), int (N,)
        Of the validation. They are shuffled, always in the same way.
    per_mac : bool
        Divide by the layer's multiply-accumulates.
    prepare, batch : see `train.evaluate`

    Returns
    -------
    dict {layer: float}; the higher, the more worth keeping real
    """
    probe, macs = _Probe(model, images, labels, prepare, batch), _macs(model, per_mac)
    return {name: probe.worth(name, (), probe.unchanged, macs[name])[0] for name in probe.names}


def greedy_order(
    model: layers.Sequential, images: np.ndarray, labels: np.ndarray, *, per_mac: bool = False,
    prepare: Callable[[np.ndarray], np.ndarray] | None = None, batch: int = 64,
) -> list[str]:  # fmt: skip
    """Return the order in which to keep layers real, the most valuable first: `loss_sensitivity`, layer after layer.

    WBin: binarize the layer that raises the loss least, then with it the next; the one that is left at the end comes
    first. FBin: give real inputs to the layer that lowers the loss most, then to the next. ``per_mac`` divides these
    changes by the MACs. That takes L (L + 1) / 2 losses instead of L. Parameters as of `loss_sensitivity`.

    Returns
    -------
    list of names, for `within`
    """
    probe, macs = _Probe(model, images, labels, prepare, batch), _macs(model, per_mac)
    changed: list[str] = []
    before = probe.unchanged
    while len(changed) < len(probe.names):
        left = [name for name in probe.names if name not in changed]
        found = {name: probe.worth(name, changed, before, macs[name]) for name in left}
        taken = (max if probe.binary else min)(left, key=lambda name: found[name][0])
        changed.append(taken)
        before = found[taken][1]
    return changed if probe.binary else changed[::-1]


def within(
    order: Sequence[str], macs: Mapping[str, float], *, count: int | None = None, operations: float | None = None
) -> list[str]:
    """Go down an order of preference, and keep every layer that still fits the budget.

    Parameters
    ----------
    order : names, the most wanted first
    macs : {name: MACs}
    count : int or None
        How many layers may be real.
    operations : float or None
        How many MACs may be real. A layer that does not fit is passed over; those after it may still fit.

    Returns
    -------
    list of names, in the order of ``macs``
    """
    kept: list[str] = []
    for name in order:
        fits = operations is None or sum(macs[other] for other in (*kept, name)) <= operations
        if fits and (count is None or len(kept) < count):
            kept.append(name)
    return [name for name in macs if name in kept]
