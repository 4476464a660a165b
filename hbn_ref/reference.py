"""The truth everything else is tested against: slow, obvious loops in float64.

Nothing here is fast and nothing is clever. Each function states its equation, and then carries it out one image,
one output pixel and one kernel tap at a time. A fast function elsewhere in the package has its twin here, under the
same name. Only NumPy is used, so you can read a page of this file beside the equation that it implements.

Layout: activations (N, H, W, C), weights (kh, kw, C_in, C_out). `stride` and `padding` are an integer or a
(height, width) pair.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

WORD_BITS = 64
IntOrPair = int | tuple[int, int]  # one number for both directions, or (height, width)


def pair(value: Any) -> tuple[int, int]:
    """Return a pair; an integer v stands for (v, v)."""
    return (int(value), int(value)) if np.ndim(value) == 0 else (int(value[0]), int(value[1]))


# ---------------------------------------------------------------------------------------------------- bits


def sign(x: np.ndarray) -> np.ndarray:
    """sign(x) = +1 where x >= 0, else -1. A bit has two values, so sign(0) = sign(-0.0) = +1."""
    x = np.asarray(x, np.float64)
    if np.isnan(x).any():
        raise ValueError("x contains NaN, which has no sign")
    return np.where(x >= 0, 1.0, -1.0)


def pack(x: np.ndarray) -> np.ndarray:
    """Channel c becomes bit c % 64 of word c // 64; 1 means x >= 0; unused bits are 0.

    x (..., C) -> uint64 (..., ceil(C / 64)).
    """
    signs = sign(x)
    channels = signs.shape[-1]
    rows = signs.reshape(-1, channels)
    words = np.zeros((len(rows), math.ceil(channels / WORD_BITS)), np.uint64)
    for r, row in enumerate(rows):
        for c in range(channels):
            if row[c] > 0:
                words[r, c // WORD_BITS] |= np.uint64(1 << (c % WORD_BITS))
    return words.reshape(*signs.shape[:-1], words.shape[1])


def unpack(words: np.ndarray, channels: int) -> np.ndarray:
    """The inverse of pack: bit 1 -> +1.0, bit 0 -> -1.0, as float32 (..., channels)."""
    words = np.asarray(words, np.uint64)
    rows = words.reshape(-1, words.shape[-1])
    out = np.empty((len(rows), channels), np.float32)
    for r, row in enumerate(rows):
        for c in range(channels):
            bit = (int(row[c // WORD_BITS]) >> (c % WORD_BITS)) & 1
            out[r, c] = 1.0 if bit else -1.0
    return out.reshape(*words.shape[:-1], channels)


def xnor_matmul(a: np.ndarray, b: np.ndarray, n: int) -> np.ndarray:
    """out[i, j] = sum over the n valid bits of (+1 where the bits agree, -1 where they differ).

    a (M, W) uint64, b (N, W) uint64 -> int32 (M, N). Bits beyond n must be 0 in both, so they never differ:
    n - (number of differing bits) agree, hence out = n - 2 * popcount(a XOR b).
    """
    out = np.empty((len(a), len(b)), np.int32)
    for i in range(len(a)):
        for j in range(len(b)):
            differing = sum((int(p) ^ int(q)).bit_count() for p, q in zip(a[i], b[j], strict=True))
            out[i, j] = n - 2 * differing
    return out


# ------------------------------------------------------------------------------------------------ binarize


def ste_slope(x: float) -> float:
    """Straight-through estimator: sign is treated as clip(x, -1, 1), whose slope is 1[|x| < 1]."""
    return 1.0 if abs(x) < 1 else 0.0


def approx_sign_slope(x: float) -> float:
    """Bi-Real Net (Liu et al. 2018): slope of the parabola pair 2x + x^2 (x < 0), 2x - x^2 (x >= 0)."""
    return 2.0 - 2.0 * abs(x) if abs(x) < 1 else 0.0


def swish_sign_slope(x: float, beta: float = 5.0) -> float:
    """SignSwish (Darabi et al. 2018, BNN+), with z = beta x:

    SS(x) = 2 s(z) (1 + z (1 - s(z))) - 1,  s the logistic function;
    dSS/dx = beta (2 - z tanh(z / 2)) / (1 + cosh(z)).
    """
    z = min(abs(beta * x), 700.0)  # even in x; beyond 700 the slope is below 1e-300 and cosh overflows
    return beta * (2.0 - z * math.tanh(z / 2.0)) / (1.0 + math.cosh(z))


SLOPES = {"ste": ste_slope, "approx_sign": approx_sign_slope, "swish_sign": swish_sign_slope}


def estimator_backward(dout: np.ndarray, x: np.ndarray, estimator: str) -> np.ndarray:
    """dx_i = dout_i * slope(x_i): what the named estimator puts in the place of the derivative of sign."""
    if estimator not in SLOPES:
        raise ValueError(f"estimator must be one of {', '.join(SLOPES)}, got {estimator!r}")
    x = np.asarray(x, np.float64)
    slopes = np.array([SLOPES[estimator](value) for value in x.ravel()])
    return np.asarray(dout, np.float64) * slopes.reshape(x.shape)


def ste_backward(dout: np.ndarray, x: np.ndarray) -> np.ndarray:
    """dx = dout * 1[|x| < 1]."""
    return estimator_backward(dout, x, "ste")


def approx_sign_backward(dout: np.ndarray, x: np.ndarray) -> np.ndarray:
    """dx = dout * (2 - 2|x|) where |x| < 1, else 0."""
    return estimator_backward(dout, x, "approx_sign")


def swish_sign_backward(dout: np.ndarray, x: np.ndarray, beta: float = 5.0) -> np.ndarray:
    """dx = dout * dSS/dx, see swish_sign_slope."""
    x = np.asarray(x, np.float64)
    slopes = np.array([swish_sign_slope(value, beta) for value in x.ravel()])
    return np.asarray(dout, np.float64) * slopes.reshape(x.shape)


def alpha(w: np.ndarray) -> np.ndarray:
    """alpha_o = (1/n) sum_i |w_io|: the scale that minimises ||w_o - alpha_o sign(w_o)||^2. -> (C_out,)"""
    w = np.asarray(w, np.float64)
    filters = w.reshape(-1, w.shape[-1])  # (n, C_out)
    n = len(filters)
    return np.array([sum(abs(value) for value in filters[:, o]) / n for o in range(filters.shape[1])])


def binary_weight(w: np.ndarray) -> np.ndarray:
    """W~ = alpha(w) * sign(w), one alpha per output filter."""
    return alpha(w) * sign(w)


def weight_gradient(g: np.ndarray, w: np.ndarray, rule: str = "paper") -> np.ndarray:
    """Turns g = dL/dW~ into dL/dW, for each filter of n = kh kw C_in weights.

    exact: dL/dW_i = alpha 1[|W_i| < 1] g_i + (sign(W_i) / n) sum_j g_j sign(W_j)
    paper: dL/dW_i = g_i (1/n + alpha 1[|W_i| < 1]) (1 - 1/C_in) n
    """
    if rule not in ("paper", "exact"):
        raise ValueError(f"rule must be 'paper' or 'exact', got {rule!r}")
    w, g = np.asarray(w, np.float64), np.asarray(g, np.float64)
    kh, kw, c_in, c_out = w.shape
    n = kh * kw * c_in
    scales, signs = alpha(w), sign(w)
    out = np.zeros_like(w)
    for o in range(c_out):
        projection = sum((g[..., o] * signs[..., o]).ravel())
        for index in np.ndindex(kh, kw, c_in):
            i = (*index, o)
            straight = scales[o] * ste_slope(w[i])
            if rule == "exact":
                out[i] = straight * g[i] + signs[i] / n * projection
            else:
                out[i] = g[i] * (1.0 / n + straight) * (1.0 - 1.0 / c_in) * n
    return out


# ---------------------------------------------------------------------------------------------------- conv


def output_size(size: int, kernel: int, stride: int, padding: int) -> int:
    """Return the number of places where the kernel fits: floor((size + 2 padding - kernel) / stride) + 1."""
    return (size + 2 * padding - kernel) // stride + 1


def pad_border(x: np.ndarray, padding: IntOrPair, value: float) -> np.ndarray:
    """Return x (N, H, W, C) with `padding` rows and columns of `value` on each side."""
    (ph, pw), (n, h, w, c) = pair(padding), x.shape
    out = np.full((n, h + 2 * ph, w + 2 * pw, c), value, np.float64)
    out[:, ph : ph + h, pw : pw + w] = x
    return out


def conv2d_forward(
    x: np.ndarray, w: np.ndarray, *, stride: IntOrPair = 1, padding: IntOrPair = 0, pad_value: float = 0
) -> np.ndarray:
    """out[n, i, j, :] = sum over taps (a, b) of xp[n, i sh + a, j sw + b, :] @ w[a, b]

    with xp = x inside a border of pad_value. (The field's "convolution": the kernel is not flipped.)
    """
    x, w = np.asarray(x, np.float64), np.asarray(w, np.float64)
    (sh, sw), (ph, pw), (kh, kw) = pair(stride), pair(padding), w.shape[:2]
    out_h, out_w = output_size(x.shape[1], kh, sh, ph), output_size(x.shape[2], kw, sw, pw)
    padded = pad_border(x, padding, pad_value)
    out = np.zeros((len(x), out_h, out_w, w.shape[3]))
    for n, i, j in np.ndindex(len(x), out_h, out_w):
        for a, b in np.ndindex(kh, kw):
            out[n, i, j] += padded[n, i * sh + a, j * sw + b] @ w[a, b]
    return out


def conv2d_backward(
    dout: np.ndarray, x: np.ndarray, w: np.ndarray, *, stride: IntOrPair = 1, padding: IntOrPair = 0,
    pad_value: float = 0,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Every product of the forward pass, read backwards:

    dxp[n, i sh + a, j sw + b, :] += w[a, b] @ dout[n, i, j]
    dw[a, b]                      += outer(xp[n, i sh + a, j sw + b, :], dout[n, i, j])

    dx is dxp without its border. Returns (dx, dw).
    """
    dout, x, w = (np.asarray(value, np.float64) for value in (dout, x, w))
    (sh, sw), (ph, pw), (kh, kw) = pair(stride), pair(padding), w.shape[:2]
    padded = pad_border(x, padding, pad_value)
    dpadded, dw = np.zeros_like(padded), np.zeros_like(w)
    for n, i, j in np.ndindex(*dout.shape[:3]):
        for a, b in np.ndindex(kh, kw):
            row, column = i * sh + a, j * sw + b
            dpadded[n, row, column] += w[a, b] @ dout[n, i, j]
            dw[a, b] += np.outer(padded[n, row, column], dout[n, i, j])
    height, width = x.shape[1:3]
    return dpadded[:, ph : ph + height, pw : pw + width], dw


def binary_weight_conv2d_forward(
    x: np.ndarray, w: np.ndarray, *, stride: IntOrPair = 1, padding: IntOrPair = 0
) -> np.ndarray:
    """conv(x, W~) with W~ = alpha(w) sign(w)."""
    return conv2d_forward(x, binary_weight(w), stride=stride, padding=padding)


def binary_weight_conv2d_backward(
    dout: np.ndarray, x: np.ndarray, w: np.ndarray, *, stride: IntOrPair = 1, padding: IntOrPair = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (dx, dL/dW~); weight_gradient turns the second into dL/dW."""
    return conv2d_backward(dout, x, binary_weight(w), stride=stride, padding=padding)


def xnor_conv2d_forward(
    x: np.ndarray, w: np.ndarray, *, stride: IntOrPair = 1, padding: IntOrPair = 0, pad_value: float = 0,
    scale: bool = True,
) -> np.ndarray:  # fmt: skip
    """conv(sign(x), W~) with W~ = alpha(w) sign(w), or sign(w) when scale is False (integer counts).

    The border holds pad_value: with 0 a padded tap adds nothing, with +1 or -1 it is an ordinary sign.
    """
    weights = binary_weight(w) if scale else sign(w)
    return conv2d_forward(sign(x), weights, stride=stride, padding=padding, pad_value=pad_value)


def xnor_conv2d_backward(
    dout: np.ndarray, x: np.ndarray, w: np.ndarray, *, stride: IntOrPair = 1, padding: IntOrPair = 0,
    pad_value: float = 0, scale: bool = True, estimator: str = "ste",
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Backward through conv(sign(x), W~), then the estimator through sign. Returns (dx, dL/dW~)."""
    weights = binary_weight(w) if scale else sign(w)
    dsign, dw = conv2d_backward(dout, sign(x), weights, stride=stride, padding=padding, pad_value=pad_value)
    return estimator_backward(dsign, x, estimator), dw


# -------------------------------------------------------------------------------------------------- layers


def batchnorm_forward(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, eps: float = 1e-5) -> np.ndarray:
    """Training mode, per channel over (N, H, W): out = gamma (x - mean) / sqrt(var + eps) + beta.

    var is the biased variance (divided by the number of values, not by one less).
    """
    x = np.asarray(x, np.float64)
    out = np.empty_like(x)
    for c in range(x.shape[-1]):
        values = x[..., c]
        mean = values.sum() / values.size
        variance = ((values - mean) ** 2).sum() / values.size
        out[..., c] = gamma[c] * (values - mean) / math.sqrt(variance + eps) + beta[c]
    return out


def batchnorm_backward(
    dout: np.ndarray, x: np.ndarray, gamma: np.ndarray, eps: float = 1e-5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """With m values per channel, xhat = (x - mean) / std and std = sqrt(var + eps):

    dbeta = sum dout,   dgamma = sum dout xhat,
    dx = (gamma / std) (dout - dbeta / m - xhat dgamma / m)

    the two subtractions being the paths through mean and variance. Returns (dx, dgamma, dbeta).
    """
    dout, x = np.asarray(dout, np.float64), np.asarray(x, np.float64)
    channels = x.shape[-1]
    dx, dgamma, dbeta = np.empty_like(x), np.empty(channels), np.empty(channels)
    for c in range(channels):
        values, grad = x[..., c], dout[..., c]
        m = values.size
        mean = values.sum() / m
        std = math.sqrt(((values - mean) ** 2).sum() / m + eps)
        xhat = (values - mean) / std
        dbeta[c] = grad.sum()
        dgamma[c] = (grad * xhat).sum()
        dx[..., c] = gamma[c] / std * (grad - dbeta[c] / m - xhat * dgamma[c] / m)
    return dx, dgamma, dbeta


def pool_output_size(size: int, window: int, stride: int, padding: int, ceil: bool = False) -> int:
    """As output_size; with ceil, an incomplete last window counts, too, if it starts before the far border."""
    if not ceil:
        return output_size(size, window, stride, padding)
    count = math.ceil((size + 2 * padding - window) / stride) + 1
    return count - 1 if (count - 1) * stride >= size + padding else count


def pool_windows(
    x: np.ndarray, size: IntOrPair, stride: IntOrPair, padding: IntOrPair, ceil: bool = False
) -> Iterator[tuple[int, int, int, list[tuple[int, int]]]]:
    """Yields (n, i, j, taps): the output position and the (row, column) of x under the window, row-major.

    Only taps inside x are listed: those in the border hold -inf for max pooling and 0 for average pooling, which
    never changes the result.
    """
    (kh, kw), (sh, sw), (ph, pw) = pair(size), pair(stride), pair(padding)
    height, width = x.shape[1:3]
    out_h = pool_output_size(height, kh, sh, ph, ceil)
    out_w = pool_output_size(width, kw, sw, pw, ceil)
    for n, i, j in np.ndindex(len(x), out_h, out_w):
        taps = [(i * sh + a - ph, j * sw + b - pw) for a in range(kh) for b in range(kw)]
        yield n, i, j, [(r, c) for r, c in taps if 0 <= r < height and 0 <= c < width]


def pool_output(
    x: np.ndarray, size: IntOrPair, stride: IntOrPair, padding: IntOrPair, ceil: bool = False
) -> np.ndarray:
    """Return an empty output, of the shape that all pooling functions share."""
    (kh, kw), (sh, sw), (ph, pw) = pair(size), pair(stride), pair(padding)
    out_h = pool_output_size(x.shape[1], kh, sh, ph, ceil)
    return np.empty((len(x), out_h, pool_output_size(x.shape[2], kw, sw, pw, ceil), x.shape[3]))


def max_pool_forward(
    x: np.ndarray, size: IntOrPair, stride: IntOrPair, padding: IntOrPair = 0, ceil: bool = False
) -> np.ndarray:
    """out[n, i, j, c] = max of channel c under the window; the border is -inf, so it never wins."""
    x = np.asarray(x, np.float64)
    out = pool_output(x, size, stride, padding, ceil)
    for n, i, j, taps in pool_windows(x, size, stride, padding, ceil):
        for c in range(x.shape[3]):
            out[n, i, j, c] = max(x[n, row, column, c] for row, column in taps)
    return out


def max_pool_backward(
    dout: np.ndarray, x: np.ndarray, size: IntOrPair, stride: IntOrPair, padding: IntOrPair = 0, ceil: bool = False
) -> np.ndarray:
    """The whole gradient of an output goes to the tap that won; among equals that is the first, row by row."""
    x = np.asarray(x, np.float64)
    dx = np.zeros_like(x)
    for n, i, j, taps in pool_windows(x, size, stride, padding, ceil):
        for c in range(x.shape[3]):
            row, column = max(taps, key=lambda tap: x[n, tap[0], tap[1], c])  # the first of equal maxima
            dx[n, row, column, c] += dout[n, i, j, c]
    return dx


def avg_pool_forward(x: np.ndarray, size: IntOrPair, stride: IntOrPair, padding: IntOrPair = 0) -> np.ndarray:
    """out = (sum under the window) / (size * size); the border counts as zeros."""
    x = np.asarray(x, np.float64)
    kh, kw = pair(size)
    out = pool_output(x, size, stride, padding)
    for n, i, j, taps in pool_windows(x, size, stride, padding):
        out[n, i, j] = sum((x[n, row, column] for row, column in taps), np.zeros(x.shape[3])) / (kh * kw)
    return out


def avg_pool_backward(
    dout: np.ndarray, x: np.ndarray, size: IntOrPair, stride: IntOrPair, padding: IntOrPair = 0
) -> np.ndarray:
    """Every tap under the window gets dout / (size * size)."""
    kh, kw = pair(size)
    dx = np.zeros(np.shape(x))
    for n, i, j, taps in pool_windows(dx, size, stride, padding):
        for row, column in taps:
            dx[n, row, column] += dout[n, i, j] / (kh * kw)
    return dx


# --------------------------------------------------------------------------------------------------- train


def softmax_cross_entropy(logits: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """loss = mean over rows of -log p[label],  p = exp(z) / sum exp(z);  dlogits = (p - onehot) / N.

    The largest logit of a row is subtracted first: p does not change and exp cannot overflow.
    """
    logits = np.asarray(logits, np.float64)
    loss, dlogits = 0.0, np.empty_like(logits)
    for row, label in enumerate(labels):
        shifted = logits[row] - logits[row].max()
        total = np.exp(shifted).sum()
        loss += math.log(total) - shifted[label]
        dlogits[row] = np.exp(shifted) / total
        dlogits[row, label] -= 1.0
    return loss / len(logits), dlogits / len(logits)


def adam_step(
    w: np.ndarray, g: np.ndarray, m: np.ndarray, v: np.ndarray, t: int, lr: float, beta1: float = 0.9,
    beta2: float = 0.999, eps: float = 1e-8,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Step t = 1, 2, ... of Adam (Kingma & Ba 2015). Returns the new (w, m, v).

    m <- beta1 m + (1 - beta1) g,          v <- beta2 v + (1 - beta2) g^2
    w <- w - lr mhat / (sqrt(vhat) + eps), mhat = m / (1 - beta1^t), vhat = v / (1 - beta2^t)
    """
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    mhat = m / (1 - beta1**t)
    vhat = v / (1 - beta2**t)
    return w - lr * mhat / (np.sqrt(vhat) + eps), m, v


def sgd_step(
    w: np.ndarray, g: np.ndarray, velocity: np.ndarray, lr: float, momentum: float = 0.0, nesterov: bool = False,
    weight_decay: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """PyTorch's convention. Returns the new (w, velocity).

    g <- g + weight_decay w,   v <- momentum v + g,   w <- w - lr v   (Nesterov: w - lr (g + momentum v))
    """
    g = g + weight_decay * w
    velocity = momentum * velocity + g
    return w - lr * (g + momentum * velocity if nesterov else velocity), velocity
