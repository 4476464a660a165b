"""The passes between convolutions, forward and backward: BatchNorm, ReLU, PReLU, dropout, pooling.

Forward returns ``(out, cache)``, backward takes ``(dout, cache)``. The convolutions' passes are chapter 3.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from .. import engine, kernels
from ..checks import IntOrPair, float_array, floats, pair, same_shape

EPS = 1e-5  # added to the variance in BatchNorm


# ---------------------------------------------------------------------------------------------- BatchNorm


def _blocks(kernel, x, *args):
    """Add up two channel sums over blocks of fixed size, so that they are the same for any number of threads."""
    count = -(-len(x) // kernels.BLOCK)
    sums = np.zeros((count, 2, x.shape[1]))
    engine.run(kernel, count, x, *args, sums, work=x.size)
    return sums.sum(axis=0)


def batchnorm_forward(
    x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, *, eps: float = EPS
) -> tuple[np.ndarray, Any]:
    """BatchNorm in training, with the batch's own statistics.

        out = gamma * xhat + beta,  xhat = (x - mean) / sqrt(var + eps),  mean and var over all but the channels

    Parameters
    ----------
    x : float (N, H, W, C)
    gamma, beta : float (C,)

    Returns
    -------
    out : (N, H, W, C)
    cache : for `batchnorm_backward`; its last two entries are the batch's mean and (biased) variance, float64 (C,)
    """
    x = float_array("x", x, 4)
    rows = x.reshape(-1, x.shape[-1])
    total, squares = _blocks(kernels.channel_sums, rows)
    mean = total / len(rows)
    var = np.maximum(squares / len(rows) - mean * mean, 0)
    return batchnorm_inference(x, gamma, beta, mean, var, eps=eps), (x, gamma, eps, mean, var)


def fold_batchnorm(
    gamma: np.ndarray, beta: np.ndarray, mean: np.ndarray, var: np.ndarray, *, eps: float = EPS,
    dtype: DTypeLike = np.float32,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Return (scale, shift), (C,) each: BatchNorm with given statistics is ``x * scale + shift``."""
    scale = gamma / np.sqrt(np.asarray(var, np.float64) + eps)
    return scale.astype(dtype), (beta - mean * scale).astype(dtype)


def scale_shift(x: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """``x * scale + shift``, x (N, H, W, C)."""
    x = float_array("x", x, 4)
    same_shape("scale", scale, x.shape[3:])
    same_shape("shift", shift, x.shape[3:])
    out = np.empty(x.shape, x.dtype)
    rows = x.reshape(-1, x.shape[-1])
    engine.run(kernels.scale_shift, len(rows), rows, scale, shift, out.reshape(rows.shape), work=x.size)
    return out


def batchnorm_inference(
    x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, mean: np.ndarray, var: np.ndarray, *, eps: float = EPS
) -> np.ndarray:
    """BatchNorm with given statistics: one multiplication and one addition per value."""
    x = float_array("x", x, 4)
    for name, value in (("gamma", gamma), ("beta", beta), ("mean", mean), ("var", var)):
        same_shape(name, value, np.shape(x)[3:])
    return scale_shift(x, *fold_batchnorm(gamma, beta, mean, var, eps=eps, dtype=x.dtype))


def batchnorm_backward(
    dout: np.ndarray, cache: Any, in_place: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of `batchnorm_forward`; ``in_place`` overwrites dout with dx.

    Each channel has M = N H W values, and mean and var depend on all of them. With inv = 1 / sqrt(var + eps) that gives

        dbeta = sum dout,   dgamma = sum dout xhat,
        dx = gamma inv (dout - dbeta / M - xhat dgamma / M).

    Returns
    -------
    dx : (N, H, W, C)
    dgamma, dbeta : (C,)
    """
    x, gamma, eps, mean, var = cache
    dout = floats("dout", dout, x.dtype)
    same_shape("dout", dout, x.shape)
    rows = x.reshape(-1, x.shape[-1])
    d = dout.reshape(rows.shape)
    inv = 1 / np.sqrt(var + eps)
    dbeta, centred = _blocks(kernels.batchnorm_sums, rows, d, mean)
    dgamma = centred * inv
    a = gamma * inv  # dx = a dout + b x + c, with xhat = (x - mean) inv written out
    b = -a * inv * dgamma / len(rows)
    c = -a * dbeta / len(rows) - b * mean
    dx = dout if in_place and dout.flags.writeable else np.empty(x.shape, x.dtype)
    engine.run(
        kernels.batchnorm_dx, len(rows), rows, d, *(v.astype(x.dtype) for v in (a, b, c)), dx.reshape(rows.shape),
        work=x.size,
    )  # fmt: skip
    return dx, dgamma.astype(x.dtype), dbeta.astype(x.dtype)


# ---------------------------------------------------------------------------------- ReLU, PReLU, dropout


def relu_forward(x: np.ndarray, in_place: bool = False) -> tuple[np.ndarray, Any]:
    """``out = max(x, 0)``. The cache holds one bit per value. ``in_place`` overwrites x, which saves memory."""
    x = floats("x", x)
    out = x if in_place and x.flags.writeable else np.empty(x.shape, x.dtype)
    words = np.empty(-(-x.size // 64), np.uint64)
    engine.run(kernels.relu, words.size, x.reshape(-1), out.reshape(-1), words, work=x.size)
    return out, (words, x.shape, x.dtype)


def relu_backward(dout: np.ndarray, cache: Any, in_place: bool = False) -> np.ndarray:
    """``dx = dout 1[x > 0]``. ``in_place`` overwrites dout."""
    words, shape, dtype = cache
    dout = floats("dout", dout, dtype)
    same_shape("dout", dout, shape)
    dx = dout if in_place and dout.flags.writeable else np.empty(shape, dtype)
    engine.run(kernels.relu_dx, words.size, words, dout.reshape(-1), dx.reshape(-1), work=dx.size)
    return dx


def prelu_forward(x: np.ndarray, slope: np.ndarray) -> tuple[np.ndarray, Any]:
    """``out = x where x > 0, slope x elsewhere``, with one learned slope per channel (He et al. 2015)."""
    x = floats("x", x)
    same_shape("slope", slope, x.shape[-1:])
    return np.where(x > 0, x, slope * x), (x, slope)


def prelu_backward(dout: np.ndarray, cache: Any) -> tuple[np.ndarray, np.ndarray]:
    """Gradients (dx, dslope) of `prelu_forward`."""
    x, slope = cache
    dout = floats("dout", dout)
    same_shape("dout", dout, x.shape)
    negative = x <= 0
    dslope = (dout * x * negative).reshape(-1, x.shape[-1]).sum(axis=0)
    return np.where(negative, slope * dout, dout), dslope


def dropout_forward(
    x: np.ndarray, rate: float, rng: np.random.Generator, per_channel: bool = False
) -> tuple[np.ndarray, Any]:
    """Set a share ``rate`` of the values (``per_channel``: of each image's channels) to 0, scale up the rest."""
    x = floats("x", x)
    shape = (len(x), *(1,) * (x.ndim - 2), x.shape[-1]) if per_channel else x.shape
    mask = (rng.random(shape) >= rate).astype(x.dtype) / x.dtype.type(1 - rate)
    return x * mask, mask


def dropout_backward(dout: np.ndarray, cache: Any) -> np.ndarray:
    """``dx = dout * mask``."""
    return floats("dout", dout) * cache


# ------------------------------------------------------------------------------------------------- pooling


def pool_size(
    size: Sequence[int], window: Sequence[int], stride: Sequence[int], padding: Sequence[int] = (0, 0),
    ceil: bool = False,
) -> tuple[int, ...]:  # fmt: skip
    """Return the (height, width) of a pooled map; with ``ceil`` the last window may hang over the edge."""
    out = []
    for length, k, s, p in zip(size, window, stride, padding, strict=True):
        if p * 2 > k:
            raise ValueError(f"padding: {padding} is more than half of the window {window}; some would see no value")
        if length + 2 * p < k:
            raise ValueError(f"x: a {tuple(size)} map does not fit a {window} pooling window with padding {padding}")
        n = (length + 2 * p - k + (s - 1 if ceil else 0)) // s + 1
        out.append(n - 1 if (n - 1) * s >= length + p else n)  # no window may start outside
    return tuple(out)


def pooling(
    size: IntOrPair, stride: IntOrPair | None, padding: IntOrPair
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Return (window, stride, padding) as pairs; the stride is the size unless given."""
    stride = size if stride is None else stride
    return pair("size", size, 1), pair("stride", stride, 1), pair("padding", padding, 0)


def max_pool_forward(
    x: np.ndarray, size: IntOrPair, stride: IntOrPair | None = None, padding: IntOrPair = 0, ceil: bool = False
) -> tuple[np.ndarray, Any]:
    """Largest value of each window; padding never wins. The cache holds one byte per window: which tap won."""
    window, stride, padding = pooling(size, stride, padding)
    x = float_array("x", x, 4)
    if window[0] * window[1] > 256:
        raise ValueError(f"size: a window holds at most 256 values, got {window}")
    shape = (len(x), *pool_size(x.shape[1:3], window, stride, padding, ceil), x.shape[3])
    out, tap = np.empty(shape, x.dtype), np.empty(shape, np.uint8)
    engine.run(kernels.max_pool, len(x), x, *window, *stride, *padding, out, tap, work=x.size)
    return out, (x.shape, tap, window, stride, padding)


def max_pool_backward(dout: np.ndarray, cache: Any) -> np.ndarray:
    """Each gradient goes to the value that won its window; of equal ones, to the first."""
    shape, tap, window, stride, padding = cache
    dout = floats("dout", dout)
    same_shape("dout", dout, tap.shape)
    dx = np.empty(shape, dout.dtype)
    engine.run(kernels.max_pool_dx, len(dx), dout, tap, *window, *stride, *padding, dx, work=dx.size)
    return dx


def _taps(shape, window, stride):
    """Yield the index of each tap's values in the padded map: a loop over a few taps, not over many pixels."""
    for a in range(window[0]):
        for b in range(window[1]):
            rows = slice(a, a + stride[0] * (shape[1] - 1) + 1, stride[0])
            yield slice(None), rows, slice(b, b + stride[1] * (shape[2] - 1) + 1, stride[1])


def avg_pool_forward(
    x: np.ndarray, size: IntOrPair, stride: IntOrPair | None = None, padding: IntOrPair = 0
) -> tuple[np.ndarray, Any]:
    """Mean of each window; padding counts as zeros."""
    window, stride, padding = pooling(size, stride, padding)
    x = float_array("x", x, 4)
    shape = (len(x), *pool_size(x.shape[1:3], window, stride, padding), x.shape[3])
    (ph, pw), out = padding, np.zeros(shape, x.dtype)
    padded = np.pad(x, ((0, 0), (ph, ph), (pw, pw), (0, 0)))
    for tap in _taps(shape, window, stride):
        out += padded[tap]
    return out / x.dtype.type(window[0] * window[1]), (x.shape, window, stride, padding)


def avg_pool_backward(dout: np.ndarray, cache: Any) -> np.ndarray:
    """Each value of a window gets an equal share of its gradient."""
    (n, height, width, channels), window, stride, (ph, pw) = cache
    dout = floats("dout", dout)
    dx = np.zeros((n, height + 2 * ph, width + 2 * pw, channels), dout.dtype)
    share = dout / dout.dtype.type(window[0] * window[1])
    for tap in _taps(dout.shape, window, stride):
        dx[tap] += share
    return dx[:, ph : ph + height, pw : pw + width]
