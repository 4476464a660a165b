"""Chapter 8, hybrid: which layers' inputs to binarize. The paper's algorithm, step by step.

Train the fully binary network. For each layer l whose input is binarized:

1. E_l, the error that binarizing its input makes (`binarization_errors`);
2. NF_l, its share of the operations (multiply-accumulates);
3. the score ``M_l = E_l + gamma / NF_l`` (`metric`): a layer with a large error, or one that costs little, is
   worth keeping real;
4. cluster the scores and take the highest clusters while they fit the wanted share of layers (`partition`);
5. give the layers taken real inputs (weights stay binary), and train that hybrid from scratch (`convert`).

The form of the score and of the partition are recalled from the paper (Prabhu et al. 2018, section 3), not quoted.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from . import layers, models
from .checks import one_of, real_number, whole_number

FORMS = ("mse", "rmse", "normalised", "one_minus_square")


# -------------------------------------------------------------------------------------------- step 1: error


def _sums(x):
    """Per-element means that all forms are made of: (I - sign I)^2, I^2, |1 - clip(I)^2|."""
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
    """Error of putting sign(x) in the place of x.

    Parameters
    ----------
    x : float array, any shape
    form : {"mse", "rmse", "normalised", "one_minus_square"}
        mean((x - sign x)^2); its root; the first divided by mean(x^2); mean(abs(1 - clip(x, -1, 1)^2)).

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
    """Error at each layer of ``model`` whose input is binarized, averaged over ``batches``.

    Measured at the place where the sign is taken, after BatchNorm, with BatchNorm's running statistics.

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
    """Return the gamma at which the two terms of the score have equal means over the layers.

    Shares of the operations span three orders of magnitude: gamma = 1 would choose by cost alone.
    """
    errors, share = _columns(errors, macs)
    return float(errors.mean() / (1 / share).mean())


def metric(errors: ArrayLike, macs: ArrayLike, gamma: float | None = None) -> np.ndarray:
    """Score of each layer, ``M_l = E_l + gamma / NF_l`` with ``NF_l = macs_l / sum macs``.

    Parameters
    ----------
    errors, macs : sequences of L numbers, one a layer
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
    """K-means of numbers on a line, exactly: the partition with the least sum of squared distances to the means.

    On a line clusters are intervals of the sorted values, so the best cut of the first i values into k clusters extends
    a best cut of fewer values into k - 1: dynamic programming, written plainly, as L is the number of layers.

    Returns
    -------
    list of lists of positions in ``values``; clusters and their members in ascending order of value
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

    Clusters are taken from the highest mean downwards while the layers taken are at most ``ratio * total``. Where
    even the first is too large, the scores are clustered again into one cluster more.

    Parameters
    ----------
    scores : sequence of L numbers
    ratio : float, 0 to 1
        The share of layers that may be kept real.
    clusters : int
        The P to begin with.
    total : int or None
        The number of layers that the ratio is a share of; None means L.

    Returns
    -------
    kept : list of int
        0-based positions in ``scores``, ascending; empty if nothing fits. `convert` takes names:
        ``[names[i] for i in partition(...)]`` for the names that belong to the scores.
    """
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 1 or scores.size == 0 or not np.isfinite(scores).all():
        raise ValueError(f"scores: expected a list of finite numbers, got {scores}")
    total = whole_number("total", len(scores) if total is None else total)
    if not 0 <= real_number("ratio", ratio) <= 1:
        raise ValueError(f"ratio: expected a share from 0 to 1, got {ratio!r}")
    whole_number("clusters", clusters)
    allowed = int(np.floor(ratio * total + 1e-9))  # 2/7 of 7 is 2, whatever its last bit says
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
