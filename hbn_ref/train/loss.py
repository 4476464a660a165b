"""The loss and its gradient, and the target: what a network should say."""

from typing import Any

import numpy as np

from ..checks import same_shape


def check_labels(labels: Any, scores: np.ndarray) -> np.ndarray:
    """Return labels, int (N,), or raise a ValueError if they do not fit scores (N, classes)."""
    labels = np.asarray(labels)
    if scores.ndim != 2 or labels.shape != (len(scores),) or len(labels) == 0:
        raise ValueError(f"labels: expected one for each row of logits, got {labels.shape} for {scores.shape}")
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise ValueError(f"labels: expected whole numbers from 0 to {scores.shape[1] - 1}")
    return labels


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities, float64 (N, classes): ``exp(logits) / sum exp(logits)``, after the largest is subtracted."""
    logits = np.asarray(logits, np.float64)
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def softmax_cross_entropy(
    logits: np.ndarray, labels: np.ndarray, target: np.ndarray | None = None
) -> tuple[float, np.ndarray]:
    """Mean cross-entropy of the softmax, and its gradient.

        L = -1/N sum_n sum_c t[n, c] log p[n, c],  p = softmax(logits),  dL/dlogits = (p - t) / N

    with t the one-hot labels, or ``target``.

    Parameters
    ----------
    logits : float (N, classes)
    labels : int (N,)
    target : float (N, classes), optional
        What to come close to instead of the one-hot labels: a share for each class, with the sum 1 (`soft_target`).

    Returns
    -------
    loss : float
    dlogits : (N, classes), of the type of logits
    """
    logits = np.asarray(logits)
    labels = check_labels(labels, logits)
    shifted = logits - logits.max(axis=1, keepdims=True)  # the same softmax, without overflow
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    if target is None:
        target = np.eye(logits.shape[1])[labels]
    target = np.asarray(target, logits.dtype)
    loss = -np.einsum("nc,nc->", target, log_p) / len(labels)
    return float(loss), (np.exp(log_p) - target) / logits.dtype.type(len(labels))


def soft_target(
    labels: np.ndarray, classes: int, smoothing: float = 0.0, teacher: np.ndarray | None = None,
    distillation: float = 0.0,
) -> np.ndarray:  # fmt: skip
    """Return what a network should come close to: smoothed labels, mixed with what a teacher says of the same images.

        t = (1 - d) ((1 - s) onehot(label) + s / classes) + d softmax(teacher's logits)

    s is label smoothing (Szegedy et al. 2016), d is distillation at temperature 1 (Hinton et al. 2015).

    Parameters
    ----------
    labels : int (N,)
    classes : int
    smoothing, distillation : float from 0 to 1
    teacher : float (N, classes), optional
        Logits.

    Returns
    -------
    float32 (N, classes)
    """
    labels = check_labels(labels, np.empty((len(labels), classes)))
    own = (1 - smoothing) * np.eye(classes)[labels] + smoothing / classes
    if teacher is not None:
        same_shape("teacher", teacher, own.shape)
        own = (1 - distillation) * own + distillation * softmax(teacher)
    return own.astype(np.float32)


def pairs(images: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return images and labels as arrays, or raise a ValueError unless there is one label for each image."""
    images, labels = np.asarray(images), np.asarray(labels)
    if labels.ndim != 1 or len(images) != len(labels) or len(images) == 0:
        raise ValueError(f"labels: expected one for each image, got {labels.shape} for {len(images)} images")
    return images, labels


def check_prepared(images: np.ndarray, prepare: Any) -> None:
    """Raise a TypeError if images of whole numbers, as data sets store them, are to go into a network as they are."""
    if prepare is None and np.issubdtype(images.dtype, np.integer):
        raise TypeError(
            f"images: expected float32 or float64, got {images.dtype}; stored images need prepare=:"
            " data.training_batch in fit, data.evaluation_batch elsewhere"
        )
