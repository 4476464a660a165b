"""One step of training with binary weights: the step, where it went wrong if it did, and which signs it flipped."""

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import layers, memory, models
from .loss import softmax_cross_entropy
from .optimizers import Optimizer


def centre_and_clamp(model: layers.Layer) -> None:
    """Steps 1 and 2 of the chapter, on the latent weights of all binary layers, in place."""
    for layer in model.walk():
        if isinstance(layer, layers.BinaryWeightConv):
            w = layer.params["w"]
            w -= w.mean(axis=2, keepdims=True)
            np.clip(w, -1, 1, out=w)


@np.errstate(over="ignore", invalid="ignore")  # no warnings: the step below stops, and says where
def train_step(
    model: layers.Layer, x: np.ndarray, labels: np.ndarray, optimizer: Optimizer,
    target: Callable[[np.ndarray, np.ndarray, int], np.ndarray] | None = None,
) -> tuple[float, np.ndarray]:  # fmt: skip
    """Take one step on one batch: x float32 (N, H, W, C), labels (N,). Returns (loss, logits).

    ``target`` is a function (x, labels, classes) that returns what to come close to instead of one-hot labels.
    """
    centre_and_clamp(model)
    try:
        logits = model.forward(x, training=True)
        wanted = None if target is None else target(x, labels, logits.shape[1])
        loss, dlogits = softmax_cross_entropy(logits, labels, wanted)
    except ValueError:  # a NaN has no sign; or the caller made a mistake
        where = first_not_finite(model, x)
        if where is None:
            raise
        raise FloatingPointError(f"step {optimizer.steps + 1}: NaN or infinity in {where}") from None
    if not np.isfinite(loss):
        where = first_not_finite(model, x) or "the loss"
        raise FloatingPointError(f"step {optimizer.steps + 1}: the loss is {loss}; NaN or infinity in {where}")
    model.backward(dlogits)
    optimizer.step(model)
    for name, value in reversed(model.state().items()):  # the backward pass begins at the last layer
        if not np.isfinite(value).all():
            raise FloatingPointError(f"step {optimizer.steps}: NaN or infinity in {name} after the update")
    return loss, logits


def first_not_finite(model: layers.Layer, x: np.ndarray) -> str | None:
    """Return where a NaN or an infinity first appears in a forward pass: an input, a weight or an output of a layer."""

    class Found(Exception):
        pass

    def look_before(layer, value):
        if not np.isfinite(value).all():
            raise Found(f"the input of {layer.name}")
        for key, own in layer.params.items():
            if not np.isfinite(own).all():
                raise Found(f"{layer.name}.{key}")

    def look_after(layer, value):
        if not np.isfinite(value).all():
            raise Found(f"the output of {layer.name}")

    try:
        with layers.watching(model, look_before), layers.watching(model, look_after, output=True):
            model.forward(x, training=True)
    except Found as found:
        return str(found)
    except ValueError:
        return None
    return None


def binary_signs(model: layers.Layer) -> dict[str, np.ndarray]:
    """Return {name: bool array} of the signs of all binary weights."""
    binary = (layer for layer in model.walk() if isinstance(layer, layers.BinaryWeightConv))
    return {layer.name: layer.params["w"] >= 0 for layer in binary}


def flip_ratio(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> float:
    """Share of binary weights whose sign differs between two results of `binary_signs`; 0 if there are none."""
    total = sum(signs.size for signs in before.values())
    return sum(int((before[name] != after[name]).sum()) for name in before) / total if total else 0.0


def ask_for_memory(model: layers.Layer | Callable[..., Any], batch: int, slots: int | None = None) -> None:
    """Raise a ValueError if a step of a built model would take too much memory; without ``slots``, a forward pass."""
    if isinstance(model, layers.Sequential) and model.spec is not None:
        memory.ask(f"batch: {batch} images at once", models.bytes_needed(model, batch, slots))
