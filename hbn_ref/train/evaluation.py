"""Loss and accuracy of a trained network, and new statistics for its BatchNorms."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np

from .. import layers
from ..checks import whole_number
from .loss import check_labels, check_prepared, pairs, softmax
from .steps import ask_for_memory


def batches(
    images: np.ndarray, batch: int, prepare: Callable[[np.ndarray], np.ndarray] | None = None
) -> Iterator[np.ndarray]:
    """Yield float32 batches (B, H, W, C), or (crops, B, H, W, C) where ``prepare`` makes several crops."""
    whole_number("batch", batch)
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        yield part if prepare is None else prepare(part)


def evaluate(
    model: layers.Sequential | Callable[[np.ndarray], np.ndarray], images: np.ndarray, labels: np.ndarray, *,
    prepare: Callable[[np.ndarray], np.ndarray] | None = None, batch: int = 64,
) -> dict[str, Any]:  # fmt: skip
    """Return the loss and the accuracy of a model.

    Parameters
    ----------
    model : layers.Sequential, or a function from a batch to logits, such as deploy.PackedNetwork
    images, labels : arrays (N, ...), int (N,)
    prepare : function (images) -> float32 (B, H, W, C) or (crops, B, H, W, C), or None
        With several crops, the class probabilities are averaged over them.

    Returns
    -------
    dict
        top1 and top5 (per cent; with fewer than five classes top5 is 100), loss, count, and hits, bool (N,): whether
        the first guess for each image is right
    """
    images, labels = pairs(images, labels)
    if isinstance(model, layers.Layer):
        check_prepared(images, prepare)
    loss, hits, hits5, start = 0.0, [], 0, 0
    forward = model.forward if isinstance(model, layers.Sequential) else model
    ask_for_memory(model, min(batch, len(images)))
    with layers.packed_weights(model) if isinstance(model, layers.Sequential) else nullcontext():
        for x in batches(images, batch, prepare):
            p = _probabilities(forward, x)
            y = check_labels(labels[start : start + len(p)], p)
            start += len(p)
            own = p[np.arange(len(y)), y]
            first = np.arange(p.shape[1]) < y[:, None]  # among equals the first class wins, as in argmax
            rank = ((p > own[:, None]) | ((p == own[:, None]) & first)).sum(axis=1)
            rank[~np.isfinite(own)] = p.shape[1]
            hits.append(rank == 0)
            hits5 += int((rank < 5).sum())
            loss -= float(np.log(np.maximum(own, 1e-30)).sum())
    n, first_hits = len(labels), np.concatenate(hits)
    top1, top5 = 100 * int(first_hits.sum()) / n, 100 * hits5 / n
    return {"top1": top1, "top5": top5, "loss": loss / n, "count": n, "hits": first_hits}


def _probabilities(forward, x):
    if x.ndim == 5:
        return np.mean([_probabilities(forward, crop) for crop in x], axis=0)
    return softmax(forward(x))


def recalibrate_batchnorm(
    model: layers.Layer, images: np.ndarray, *, prepare: Callable[[np.ndarray], np.ndarray] | None = None,
    batch: int = 64,
) -> None:  # fmt: skip
    """Set BatchNorm's running statistics to those of a whole pass, with the present weights.

    Call it after weights have changed without training, for example after alpha was set to 1; and for binary networks,
    whose statistics move with each flip. Dropout is off during the pass. On the way each batch is normalised by its own
    statistics, as in training: so shuffle images that come class by class. ``prepare`` is that of `evaluate`, with one
    crop.
    """
    check_prepared(np.asarray(images), prepare)
    norms = [layer for layer in model.walk() if isinstance(layer, layers.BatchNorm)]
    drops = [(layer, layer.rate) for layer in model.walk() if isinstance(layer, layers.Dropout)]
    sums: dict[str, tuple[int, Any, Any]] = {}

    def look(layer, x):
        count, total, squares = sums.get(layer.name, (0, 0.0, 0.0))
        total = total + x.sum(axis=(0, 1, 2), dtype=np.float64)
        squares = squares + np.einsum("nhwc,nhwc->c", x, x, dtype=np.float64)
        sums[layer.name] = count + x.size // x.shape[-1], total, squares

    try:
        for drop, _ in drops:
            drop.rate = 0.0
        with layers.watching(model, look, layers.BatchNorm):
            for x in batches(images, batch, prepare):
                model.forward(x, training=True)
    finally:
        for drop, rate in drops:
            drop.rate = rate
        for layer in model.walk():
            layer.cache = None
    for norm in norms:
        count, total, squares = sums[norm.name]
        mean = total / count
        norm.buffers["mean"][...] = mean
        norm.buffers["var"][...] = np.maximum(squares - count * mean * mean, 0) / max(count - 1, 1)
