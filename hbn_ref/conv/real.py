"""Convolutions of real inputs, with real weights or ``alpha sign(w)``: the sum and its gradients.

With x (N, H, W, C_in), w (kh, kw, C_in, C_out), stride s and padding p, every convolution of the chapter is

    out[n, i, j, o] = sum_{a, b, c} x[n, s i + a - p, s j + b - p, c] * w[a, b, c, o].

Given ``dout = dL/dout``, the chain rule yields

    dw[a, b, c, o] = sum_{n, i, j} x[n, s i + a - p, s j + b - p, c] * dout[n, i, j, o]
    dx[n, y, z, c] = sum_{a, b, o} dout[n, i, j, o] * w[a, b, c, o]   over all s i + a - p = y, s j + b - p = z.
"""

from typing import Any

import numpy as np

from .. import binarize, engine, kernels
from ..checks import IntOrPair, float_array
from .geometry import check, check_cache, check_dout, check_fit, crop, output_size, padded, tables, whole_tiles
from .packed import PackedWeights


def _float_product(x, base, off, w):
    """out[m] = sum_k x[base[m] + off[k]] * w[k], (M, C_out): x is flat, w (K, C_out), the tables have spare rows."""
    (terms, filters), rows = w.shape, len(base) - kernels.SPARE
    width = kernels.tile_width(filters)
    w = np.ascontiguousarray(whole_tiles(w, width))
    out = np.empty((len(base), w.shape[1]), x.dtype)
    engine.run(kernels.float_gather[width], rows, x, base, off[:terms], w, out, True, work=rows * w.size)
    return np.ascontiguousarray(out[:rows, :filters])


def _correlate(xp, w, stride):
    """The sum at the top of this page, without padding: xp (N, Hp, Wp, C), w (kh, kw, C, O) -> (N, Ho, Wo, O)."""
    size, filters = output_size(xp.shape[1:3], w.shape[:2], stride, (0, 0)), w.shape[3]
    base, off = tables(xp.shape, w.shape[:2], stride)
    return _float_product(xp.reshape(-1), base, off, w.reshape(-1, filters)).reshape(len(xp), *size, filters)


def weight_gradient(xp: np.ndarray, dout: np.ndarray, kernel: tuple[int, ...], stride: tuple[int, ...]) -> np.ndarray:
    """dw (kh, kw, C, O) from xp (N, Hp, Wp, C) and dout (N, Ho, Wo, O): the product with base and off exchanged."""
    filters, channels = dout.shape[3], xp.shape[3]
    base, off = tables(xp.shape, kernel, stride)
    return _float_product(xp.reshape(-1), off, base, dout.reshape(-1, filters)).reshape(*kernel, channels, filters)


def input_gradient(
    dout: np.ndarray, w: np.ndarray, size: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...]
) -> np.ndarray:
    """dx (N, H, W, C) from dout (N, Ho, Wo, O) and w (kh, kw, C, O).

    Rows y = s q + r - p with one remainder r meet only the taps a = r, r + s, ...: for these rows the sum is an
    ordinary stride-1 convolution of dout with these taps, turned round. Each of the s x s remainders is one product.
    """
    if size == w.shape[:2] and padding == (0, 0):  # one output pixel sees the whole map: a matrix product
        flat = w.reshape(1, 1, -1, w.shape[3]).swapaxes(2, 3)
        return _correlate(dout, flat, (1, 1)).reshape(len(dout), *size, w.shape[2])
    (sh, sw), (ph, pw) = stride, padding
    dx = np.zeros((len(dout), *size, w.shape[2]), dout.dtype)
    for r in range(min(sh, w.shape[0])):
        for t in range(min(sw, w.shape[1])):
            taps = w[r::sh, t::sw]
            top, bottom = -((r - ph) // sh), -((r - ph - size[0]) // sh)  # the q of rows inside the image
            left, right = -((t - pw) // sw), -((t - pw - size[1]) // sw)
            if bottom <= top or right <= left:
                continue
            window = crop(dout, (top - len(taps) + 1, bottom), (left - taps.shape[1] + 1, right))
            turned = np.ascontiguousarray(taps[::-1, ::-1].swapaxes(2, 3))
            part = _correlate(window, turned, (1, 1))
            if stride == (1, 1):
                return part
            dx[:, sh * top + r - ph :: sh, sw * left + t - pw :: sw] = part
    return dx


# ------------------------------------------------------------------------------ real and binary weights


def conv2d_forward(
    x: np.ndarray, w: np.ndarray, *, stride: IntOrPair = 1, padding: IntOrPair = 0, need_cache: bool = True
) -> tuple[np.ndarray, Any]:
    """Real convolution.

    Parameters
    ----------
    x : float32 or float64 (N, H, W, C_in)
    w : same type (kh, kw, C_in, C_out)
    stride, padding : int or (vertical, horizontal)
    need_cache : bool
        False keeps nothing for the backward pass.

    Returns
    -------
    out : (N, Ho, Wo, C_out), Ho = (H + 2 padding - kh) // stride + 1
    cache : for `conv2d_backward`, or None; it may hold x and w themselves, so do not change them before that
    """
    x, w, stride, padding = check(x, w, stride, padding)
    xp = padded(x, padding)
    return _correlate(xp, w, stride), (xp, w, stride, padding) if need_cache else None


def conv2d_backward(dout: np.ndarray, cache: Any, need_dx: bool = True) -> tuple[np.ndarray | None, np.ndarray]:
    """Gradients of `conv2d_forward`.

    Parameters
    ----------
    dout : (N, Ho, Wo, C_out)
    cache : what the forward pass returned
    need_dx : bool
        False leaves dx out: nobody asks for that of a first layer.

    Returns
    -------
    dx : (N, H, W, C_in) or None
    dw : (kh, kw, C_in, C_out)
    """
    xp, w, stride, padding = check_cache(cache, 4)
    dout = check_dout(dout, xp.shape, w.shape, stride, (0, 0), xp.dtype)
    dw = weight_gradient(xp, dout, w.shape[:2], stride)
    size = tuple(length - 2 * p for length, p in zip(xp.shape[1:3], padding, strict=True))
    return input_gradient(dout, w, size, stride, padding) if need_dx else None, dw


def binary_weight_conv2d_forward(
    x: np.ndarray, w: "np.ndarray | PackedWeights", *, stride: IntOrPair = 1, padding: IntOrPair = 0,
    need_cache: bool = True,
) -> tuple[np.ndarray, Any]:  # fmt: skip
    """Convolution of real inputs with ``W~ = alpha sign(w)``; w may be `PackedWeights`. See `conv2d_forward`."""
    if isinstance(w, PackedWeights):
        x = float_array("x", x, 4)
        check_fit(x, w.shape)
        if w.pad_value != 0:
            raise ValueError(f"w: packed for pad value {w.pad_value}; real inputs are padded with 0")
        binary = w.binary(x.dtype)
    else:
        x, w, _, _ = check(x, w, stride, padding)
        binary = binarize.binary_weight(w)
    return conv2d_forward(x, binary, stride=stride, padding=padding, need_cache=need_cache)


def unpacking_conv2d(
    x: np.ndarray, words: np.ndarray, alpha: np.ndarray, kernel: tuple[int, ...], *,
    stride: tuple[int, ...], padding: tuple[int, ...],
) -> np.ndarray:  # fmt: skip
    """Compute `binary_weight_conv2d_forward` from weights that are bits in memory, and are made real a few at a time.

    Parameters
    ----------
    x : float32 (N, H, W, C_in)
    words : uint64 (kh * kw * C_in, ceil(C_out / 64))
        Signs, packed along the output channels: ``bits.pack(w.reshape(-1, C_out))``.
    alpha : float32 (C_out,)
    kernel, stride, padding : pairs

    Returns
    -------
    out : (N, Ho, Wo, C_out), exactly the numbers of `binary_weight_conv2d_forward`
    """
    filters, width = len(alpha), kernels.tile_width(len(alpha))
    xp, alpha = padded(x, padding), whole_tiles(alpha, width)
    base, off = tables(xp.shape, kernel, stride)
    rows, columns = len(base) - kernels.SPARE, len(alpha)
    out, w = np.empty((len(base), columns), x.dtype), np.empty((kernels.CHUNK, columns), x.dtype)
    for first in range(0, len(words), kernels.CHUNK):
        some = words[first : first + kernels.CHUNK]
        engine.run(kernels.unpack_scaled, len(some), some, alpha, w, work=w.size)
        args = (xp.reshape(-1), base, off[first : first + len(some)], w, out, first == 0)
        engine.run(kernels.float_gather[width], rows, *args, work=out.size * len(some))
    size = output_size(xp.shape[1:3], kernel, stride, (0, 0))
    return np.ascontiguousarray(out[:rows, :filters]).reshape(len(x), *size, filters)


def binary_weight_conv2d_backward(
    dout: np.ndarray, cache: Any, need_dx: bool = True
) -> tuple[np.ndarray | None, np.ndarray]:
    """Gradients (dx, dL/dW~) of `binary_weight_conv2d_forward`; `binarize.weight_gradient` turns dL/dW~ into dL/dW."""
    return conv2d_backward(dout, cache, need_dx)
