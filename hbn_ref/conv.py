"""Chapter 3, conv: three convolutions, forward and backward.

With x (N, H, W, C_in), w (kh, kw, C_in, C_out), stride s and padding p, every one of them is

    out[n, i, j, o] = sum_{a, b, c} x[n, s i + a - p, s j + b - p, c] * w[a, b, c, o],

and they differ only in what stands for x and w:

=================  ===========  ===================  =======================================
convolution        x            w                    product
=================  ===========  ===================  =======================================
conv2d             real         real                 multiply and add
binary_weight      real         alpha sign(w)        multiply and add (an add would do)
xnor               sign(x)      alpha sign(w)        XOR, count bits; alpha once at the end
=================  ===========  ===================  =======================================

Given ``dout = dL/dout``, the chain rule on the sum above yields, for all three,

    dw[a, b, c, o] = sum_{n, i, j} x[n, s i + a - p, s j + b - p, c] * dout[n, i, j, o]
    dx[n, y, z, c] = sum_{a, b, o} dout[n, i, j, o] * w[a, b, c, o]   over all s i + a - p = y, s j + b - p = z.

No pass copies patches: a table says where each patch starts and how far its elements lie from there
(`kernels.float_gather`, `kernels.xnor_gather`). The input scale K of XNOR-Net is left out, as the paper's authors do.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from . import binarize, bits, engine, kernels
from .checks import FLOATS, IntOrPair, float_array, one_of, pair, plain_array, same_shape

__all__ = [
    "PackedWeights",
    "binary_weight_conv2d_backward",
    "binary_weight_conv2d_forward",
    "conv2d_backward",
    "conv2d_forward",
    "count",
    "output_size",
    "pack_weights",
    "xnor_conv2d_backward",
    "xnor_conv2d_forward",
]

PAD_VALUES = (0, 1, -1)
SMALL = 2**15  # bytes that are filled faster than their four borders are


# ---------------------------------------------------------------------------------------------- geometry


def output_size(
    size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> tuple[int, ...]:
    """Return the (height, width) of a convolution's output; arguments are pairs.

    Raises
    ------
    ValueError
        The kernel is larger than the padded input.
    """
    for length, k, p in zip(size, kernel, padding, strict=True):
        if length + 2 * p < k:
            raise ValueError(f"x: a {size} map with padding {padding} is smaller than the kernel {kernel}")
    return tuple((length + 2 * p - k) // s + 1 for length, k, s, p in zip(size, kernel, stride, padding, strict=True))


def _window(x, rows, columns, fill=0):
    """Return x[:, rows[0]:rows[1], columns[0]:columns[1]] where positions outside x hold ``fill``."""
    n, height, width, channels = x.shape
    if rows == (0, height) and columns == (0, width):
        return x
    out = np.empty((n, rows[1] - rows[0], columns[1] - columns[0], channels), x.dtype)
    top, bottom = max(rows[0], 0), min(rows[1], height)
    left, right = max(columns[0], 0), min(columns[1], width)
    outside = top >= bottom or left >= right
    a, b, c, d = top - rows[0], bottom - rows[0], left - columns[0], right - columns[0]
    if outside or out.nbytes <= SMALL:
        out[:] = fill
    else:
        out[:, :a], out[:, b:], out[:, a:b, :c], out[:, a:b, d:] = fill, fill, fill, fill
    if not outside:
        out[:, a:b, c:d] = x[:, top:bottom, left:right]
    return out


def _padded(x, padding, fill=0):
    (ph, pw), (height, width) = padding, x.shape[1:3]
    return _window(x, (-ph, height + ph), (-pw, width + pw), fill)


@lru_cache(maxsize=128)
def _tables(shape, kernel, stride):
    """(base, off) of a padded batch of ``shape`` (N, H, W, C), flat, each with spare rows (`kernels.spare`)."""
    (n, height, width, channels), (kh, kw), (sh, sw) = shape, kernel, stride
    i, j = np.arange(0, height - kh + 1, sh), np.arange(0, width - kw + 1, sw)
    a, b, c = np.arange(kh), np.arange(kw), np.arange(channels)
    image = np.arange(n)[:, None, None] * height
    base = ((image + i[:, None]) * width + j) * channels  # (N, Ho, Wo)
    off = (a[:, None, None] * width + b[:, None]) * channels + c  # (kh, kw, C)
    return kernels.spare(base.ravel()), kernels.spare(off.ravel())


def _whole_tiles(columns, width):
    """Columns (..., C_out) with zeros up to a multiple of ``width``."""
    missing = -columns.shape[-1] % width
    if not missing:
        return columns
    return np.concatenate([columns, np.zeros((*columns.shape[:-1], missing), columns.dtype)], axis=-1)


def _float_product(x, base, off, w):
    """out[m] = sum_k x[base[m] + off[k]] * w[k], (M, C_out) for flat x, w (K, C_out) and tables with spare rows."""
    (terms, filters), rows = w.shape, len(base) - kernels.SPARE
    width = kernels.tile_width(filters)
    w = np.ascontiguousarray(_whole_tiles(w, width))
    out = np.empty((len(base), w.shape[1]), x.dtype)
    engine.run(kernels.float_gather[width], rows, x, base, off[:terms], w, out, True, work=rows * w.size)
    return np.ascontiguousarray(out[:rows, :filters])


def _correlate(xp, w, stride):
    """The sum at the top of this page, without padding: xp (N, Hp, Wp, C), w (kh, kw, C, O) -> (N, Ho, Wo, O)."""
    size, filters = output_size(xp.shape[1:3], w.shape[:2], stride, (0, 0)), w.shape[3]
    base, off = _tables(xp.shape, w.shape[:2], stride)
    return _float_product(xp.reshape(-1), base, off, w.reshape(-1, filters)).reshape(len(xp), *size, filters)


def _weight_gradient(xp, dout, kernel, stride):
    """dw (kh, kw, C, O) from xp (N, Hp, Wp, C) and dout (N, Ho, Wo, O): the product with base and off exchanged."""
    filters, channels = dout.shape[3], xp.shape[3]
    base, off = _tables(xp.shape, kernel, stride)
    return _float_product(xp.reshape(-1), off, base, dout.reshape(-1, filters)).reshape(*kernel, channels, filters)


def _input_gradient(dout, w, size, stride, padding):
    """dx (N, H, W, C) from dout (N, Ho, Wo, O) and w (kh, kw, C, O).

    Rows y = s q + r - p with one remainder r meet only the taps a = r, r + s, ...: for those rows the sum is an
    ordinary stride-1 convolution of dout with these taps, turned round. One product for each of the s x s remainders.
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
            window = _window(dout, (top - len(taps) + 1, bottom), (left - taps.shape[1] + 1, right))
            turned = np.ascontiguousarray(taps[::-1, ::-1].swapaxes(2, 3))
            part = _correlate(window, turned, (1, 1))
            if stride == (1, 1):
                return part
            dx[:, sh * top + r - ph :: sh, sw * left + t - pw :: sw] = part
    return dx


# ------------------------------------------------------------------------------------------------ checks


def _check(
    x: Any, w: Any, stride: IntOrPair, padding: IntOrPair
) -> tuple[np.ndarray, np.ndarray, tuple[int, int], tuple[int, int]]:
    x = float_array("x", x, 4)
    w = float_array("w", w, 4, like=x)
    _check_fit(x, w.shape)
    stride, padding = pair("stride", stride, 1), pair("padding", padding, 0)
    output_size(x.shape[1:3], w.shape[:2], stride, padding)
    return x, w, stride, padding


def _check_fit(x, shape):
    if x.shape[3] != shape[2]:
        raise ValueError(f"w: takes {shape[2]} channels, x has {x.shape[3]} (x {x.shape}, w {tuple(shape)})")


def _check_words(words, channels):
    words, width = plain_array("words", words), bits.words_for(channels)
    if words.dtype != np.uint64 or words.size == 0 or words.ndim != 4 or words.shape[3] != width:
        raise ValueError(f"words: expected uint64 (N, H, W, {width}), got {words.dtype} {words.shape}")
    return words


def _kept(cache, length):
    if cache is None:
        raise ValueError("cache: is None; call the forward pass with need_cache=True")
    if not isinstance(cache, tuple) or len(cache) != length:
        raise ValueError("cache: expected what the forward pass of this convolution returned")
    return cache


def _check_dout(dout, x_shape, w_shape, stride, padding, dtype):
    size = output_size(x_shape[1:3], w_shape[:2], stride, padding)
    expected = (x_shape[0], *size, w_shape[3])
    dout = float_array("dout", dout, 4)
    if dout.shape != expected or dout.dtype != dtype:
        raise ValueError(f"dout: expected {expected} of {dtype}, got {dout.shape} of {dout.dtype}")
    return dout


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
    cache : for `conv2d_backward`, or None; it may hold x and w themselves, so leave them as they are till then
    """
    x, w, stride, padding = _check(x, w, stride, padding)
    xp = _padded(x, padding)
    return _correlate(xp, w, stride), (xp, w, stride, padding) if need_cache else None


def conv2d_backward(dout: np.ndarray, cache: Any, need_dx: bool = True) -> tuple[np.ndarray | None, np.ndarray]:
    """Gradients of `conv2d_forward`.

    Parameters
    ----------
    dout : (N, Ho, Wo, C_out)
    cache : what the forward pass returned
    need_dx : bool
        False for a first layer, whose dx nobody asks for.

    Returns
    -------
    dx : (N, H, W, C_in) or None
    dw : (kh, kw, C_in, C_out)
    """
    xp, w, stride, padding = _kept(cache, 4)
    dout = _check_dout(dout, xp.shape, w.shape, stride, (0, 0), xp.dtype)
    dw = _weight_gradient(xp, dout, w.shape[:2], stride)
    size = tuple(length - 2 * p for length, p in zip(xp.shape[1:3], padding, strict=True))
    return _input_gradient(dout, w, size, stride, padding) if need_dx else None, dw


def binary_weight_conv2d_forward(
    x: np.ndarray, w: "np.ndarray | PackedWeights", *, stride: IntOrPair = 1, padding: IntOrPair = 0,
    need_cache: bool = True,
) -> tuple[np.ndarray, Any]:  # fmt: skip
    """Convolution of real inputs with ``W~ = alpha sign(w)``; w may be `PackedWeights`. See `conv2d_forward`."""
    if isinstance(w, PackedWeights):
        x = float_array("x", x, 4)
        _check_fit(x, w.shape)
        if w.pad_value != 0:
            raise ValueError(f"w: packed for pad value {w.pad_value}; real inputs are padded with 0")
        binary = w.binary(x.dtype)
    else:
        x, w, _, _ = _check(x, w, stride, padding)
        binary = binarize.binary_weight(w)
    return conv2d_forward(x, binary, stride=stride, padding=padding, need_cache=need_cache)


def unpacking_conv2d(
    x: np.ndarray, words: np.ndarray, alpha: np.ndarray, kernel: tuple[int, ...], *,
    stride: tuple[int, ...], padding: tuple[int, ...],
) -> np.ndarray:  # fmt: skip
    """`binary_weight_conv2d_forward` from weights that are bits in memory, made real a few at a time.

    Parameters
    ----------
    x : float32 (N, H, W, C_in)
    words : uint64 (kh * kw * C_in, ceil(C_out / 64))
        Signs, packed along the output channels: ``bits.pack(w.reshape(-1, C_out))``.
    alpha : float32 (C_out,)
    kernel, stride, padding : pairs

    Returns
    -------
    out : (N, Ho, Wo, C_out), the very numbers of `binary_weight_conv2d_forward`
    """
    filters, width = len(alpha), kernels.tile_width(len(alpha))
    xp, alpha = _padded(x, padding), _whole_tiles(alpha, width)
    base, off = _tables(xp.shape, kernel, stride)
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


# ------------------------------------------------------------------------------------------ fully binary


@lru_cache(maxsize=128)
def _border(batch, size, kernel, stride, padding):
    """Sort the output pixels of a batch by which taps fall inside the map.

    Returns the kind of each pixel, with spare rows, and, for each kind, the rows of its first and last + 1 tap inside,
    and the columns: four arrays. A 3x3 kernel with padding 1 has 9 kinds: four corners, four edges, the interior.
    """
    ranges, kinds = [], []
    for length, k, s, p in zip(size, kernel, stride, padding, strict=True):
        start = np.arange((length + 2 * p - k) // s + 1) * s - p
        lo, hi = np.clip(-start, 0, k), np.clip(length - start, 0, k)
        distinct, kind = np.unique(np.stack([lo, np.maximum(lo, hi)], axis=1), axis=0, return_inverse=True)
        ranges.append(distinct)
        kinds.append(kind.ravel())
    rows, columns = ranges
    kind = (kinds[0][:, None] * len(columns) + kinds[1]).ravel()
    a0, a1 = np.repeat(rows, len(columns), axis=0).T
    b0, b1 = np.tile(columns, (len(rows), 1)).T
    return kernels.spare(np.tile(kind, batch)), (a0, a1, b0, b1)


@dataclass(frozen=True)
class PackedWeights:
    """The weights of a binary convolution as bits, packed once and used many times.

    Attributes
    ----------
    words : uint64 (tiles, kh * kw * W, lanes)
        Sign bits: word k of filter t * lanes + j is words[t, k, j].
    alpha : (C_out,), the type of the weights
    tap_sums : int64 (kh, kw, C_out)
        Sum over the channels of each tap's signs: what a padded tap has to give back.
    shape : (kh, kw, C_in, C_out)
    pad_value : 0, 1 or -1
    """

    words: np.ndarray
    alpha: np.ndarray
    tap_sums: np.ndarray
    shape: tuple[int, ...]
    pad_value: int = 0
    _totals: dict = field(default_factory=dict, repr=False, compare=False)  # what `totals` has worked out so far

    def signs(self) -> np.ndarray:
        """Return sign(w) as float32 (kh, kw, C_in, C_out)."""
        kh, kw, channels, filters = self.shape
        rows = self.words.transpose(1, 0, 2).reshape(kh, kw, bits.words_for(channels), -1)[..., :filters]
        return bits.unpack(rows.swapaxes(2, 3), channels).swapaxes(2, 3)

    def binary(self, dtype: DTypeLike = np.float32) -> np.ndarray:
        """Return ``W~ = alpha sign(w)``, (kh, kw, C_in, C_out)."""
        return np.ascontiguousarray((self.alpha * self.signs()).astype(dtype, copy=False))

    def totals(
        self, size: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...], dtype: DTypeLike
    ) -> np.ndarray:
        """Return what to take 2 popcount from, (kinds of output pixels, C_out in whole tiles), for maps of ``size``.

        A padded tap is stored as zero bits and so counts as -1 against each weight: in place of 0 it adds
        ``-sum_c sign(w)``. For pad value 0 that sum, known from the weights, is given back for each tap outside the
        map. Worked out once for each size of map.
        """
        key = size, stride, padding, dtype
        if key not in self._totals:
            kh, kw, channels, filters = self.shape
            _, (a0, a1, b0, b1) = _border(1, size, (kh, kw), stride, padding)
            total = np.full((len(a0), filters), kh * kw * channels)
            if self.pad_value == 0:
                area = np.zeros((kh + 1, kw + 1, filters), np.int64)  # area[a, b]: the taps above and left of (a, b)
                area[1:, 1:] = self.tap_sums.cumsum(axis=0).cumsum(axis=1)
                total += area[kh, kw] - (area[a1, b1] - area[a0, b1] - area[a1, b0] + area[a0, b0])
            self._totals[key] = _whole_tiles(total.astype(dtype), self.words.shape[2])
        return self._totals[key]


def _popcount(words):
    """Bits that are 1, by NumPy 2; by NumPy 1 from a table of its own."""
    if hasattr(np, "bitwise_count"):
        return np.bitwise_count(words)
    return np.unpackbits(words[..., None].view(np.uint8), axis=-1).sum(axis=-1, dtype=np.int64)


def pack_weights(w: np.ndarray, pad_value: int = 0, alpha: np.ndarray | None = None) -> PackedWeights:
    """Pack the weights of a binary convolution.

    Parameters
    ----------
    w : float32 or float64 (kh, kw, C_in, C_out)
    pad_value : 0, 1 or -1
        What a tap on the border will see: nothing, +1 or -1.
    alpha : float32 or float64 (C_out,), optional
        Other scales than ``mean |w|``.

    Returns
    -------
    PackedWeights
        To be passed in place of w. Changing w afterwards does not change it: pack again.
    """
    one_of("pad_value", pad_value, PAD_VALUES)
    w = float_array("w", w, 4)
    kh, kw, channels, filters = w.shape
    per_tap, lanes = bits.words_for(channels), kernels.tile_width(filters)
    words = np.empty((-(-filters // lanes), kh * kw * per_tap, lanes), np.uint64)
    if engine.run(kernels.pack_columns, words.shape[1], w.reshape(kh * kw, channels, filters), words, work=w.size):
        raise ValueError("w: contains NaN, which has no sign")
    ones = _popcount(words).reshape(len(words), kh, kw, per_tap, lanes).sum(axis=3, dtype=np.int64)
    tap_sums = 2 * ones.transpose(1, 2, 0, 3).reshape(kh, kw, -1)[..., :filters] - channels
    alpha = binarize.alpha(w) if alpha is None else float_array("alpha", alpha, 1)
    same_shape("alpha", alpha, (filters,))
    return PackedWeights(words, alpha, np.ascontiguousarray(tap_sums), w.shape, pad_value)


def xnor_conv2d_forward(
    x: np.ndarray, w: np.ndarray | PackedWeights, *, stride: IntOrPair = 1, padding: IntOrPair = 0, pad_value: int = 0,
    scale: bool = True, estimator: str = "ste", need_cache: bool = True,
) -> tuple[np.ndarray, Any]:  # fmt: skip
    """Fully binary convolution: pack the signs of x, XOR with the packed weights, count bits.

        out = alpha * (n - 2 popcount(bits(x) XOR bits(w))), n the taps inside the map times C_in (pad value 0).

    Parameters
    ----------
    x : float32 or float64 (N, H, W, C_in)
    w : same type (kh, kw, C_in, C_out), or PackedWeights
    stride, padding : int or (vertical, horizontal)
    pad_value : 0, 1 or -1
        A padded tap adds nothing (the authors' way), or stands for +1 or -1.
    scale : bool
        False leaves alpha out: the result is the exact integer (up to 2^24 in float32), and ``W~ = sign(w)``.
    estimator : {"ste", "approx_sign", "swish_sign"}
        Whose derivative stands in for that of sign(x); "ste" keeps two bits an input for it, the others keep x.
    need_cache : bool
        False keeps nothing for the backward pass.

    Returns
    -------
    out : (N, Ho, Wo, C_out), of x's type
    cache : for `xnor_conv2d_backward`, or None
    """
    one_of("estimator", estimator, tuple(binarize.ESTIMATORS))
    one_of("pad_value", pad_value, PAD_VALUES)
    if isinstance(w, PackedWeights):
        packed, x = w, float_array("x", x, 4)
        if packed.pad_value != pad_value:
            raise ValueError(f"pad_value: the weights were packed for {packed.pad_value}, got {pad_value}")
    else:
        x, w, _, _ = _check(x, w, stride, padding)
        packed = pack_weights(w, pad_value)
    _check_fit(x, packed.shape)
    stride, padding = pair("stride", stride, 1), pair("padding", padding, 0)
    words = bits.pack(x)  # (N, H, W, ceil(C/64))
    out = count(words, packed, x.dtype, stride=stride, padding=padding, scale=scale)
    if not need_cache:
        return out, None
    kept = _inside(x) if estimator == "ste" else x
    return out, (words, kept, packed, stride, padding, scale, estimator, x.dtype)


def count(
    words: np.ndarray, packed: PackedWeights, dtype: DTypeLike = np.int32, *, stride: IntOrPair, padding: IntOrPair,
    scale: bool = False,
) -> np.ndarray:  # fmt: skip
    """The packed product of words with packed weights.

    Parameters
    ----------
    words : uint64 (N, H, W, ceil(C_in / 64)), the bits beyond the last channel 0, as `bits.pack` makes them
    packed : PackedWeights
    dtype : int32, float32 or float64
    stride, padding : int or (vertical, horizontal)
    scale : bool

    Returns
    -------
    out : (N, Ho, Wo, C_out) of ``dtype``
        The counts ``n - 2 popcount``, whole numbers; with ``scale`` times alpha.
    """
    if not isinstance(packed, PackedWeights):
        raise TypeError(f"packed: expected PackedWeights, got {type(packed).__name__}")
    kh, kw, channels, filters = packed.shape
    words, dtype = _check_words(words, channels), np.dtype(dtype)
    if dtype not in (FLOATS if scale else (np.int32, *FLOATS)):
        raise TypeError(f"dtype: expected float32 or float64, or int32 without scale, got {dtype}")
    stride, padding = pair("stride", stride, 1), pair("padding", padding, 0)
    inner, width = words.shape[1:3], packed.words.shape[2]
    size = output_size(inner, (kh, kw), stride, padding)
    total = packed.totals(inner, stride, padding, dtype)
    kind, _ = _border(len(words), inner, (kh, kw), stride, padding)
    fill = bits.pack(np.ones(channels)) if packed.pad_value == 1 else np.uint64(0)
    xp = _padded(words, padding, fill)
    base, off = _tables(xp.shape, (kh, kw), stride)
    rows, off = len(base) - kernels.SPARE, off[: packed.words.shape[1]]
    alpha = packed.alpha.astype(dtype, copy=False) if scale else np.ones(filters, dtype)
    out = np.empty((len(base), total.shape[1]), dtype)
    args = (xp.reshape(-1), base, off, packed.words, total, kind, _whole_tiles(alpha, width), out)
    engine.run(kernels.xnor_gather[width], rows, *args, work=out.size * len(off))
    return np.ascontiguousarray(out[:rows, :filters]).reshape(len(words), *size, filters)


def _inside(x):
    """One bit an element: |x| < 1, all that the straight-through estimator wants to know."""
    rows = x.reshape(-1, x.shape[-1])
    words = np.empty((len(rows), bits.words_for(x.shape[-1])), np.uint64)
    engine.run(kernels.pack_inside, len(rows), rows, words, work=x.size)
    return words


def xnor_conv2d_backward(dout: np.ndarray, cache: Any, need_dx: bool = True) -> tuple[np.ndarray | None, np.ndarray]:
    """Gradients of `xnor_conv2d_forward`.

    dw is the sum at the top of the page with sign(x) for x: the derivative with respect to ``W~``; dx is the sum
    with W~ for w, the derivative with respect to sign(x), passed through the estimator.

    Parameters
    ----------
    dout : (N, Ho, Wo, C_out)
    cache : what the forward pass returned
    need_dx : bool

    Returns
    -------
    dx : (N, H, W, C_in) or None
    dw : (kh, kw, C_in, C_out), ``dL/dW~``; `binarize.weight_gradient` turns it into dL/dW
    """
    words, kept, packed, stride, padding, scale, estimator, dtype = _kept(cache, 8)
    channels, size = packed.shape[2], words.shape[1:3]
    dout = _check_dout(dout, words.shape, packed.shape, stride, padding, dtype)
    signs = bits.unpack(words, channels).astype(dtype, copy=False)
    dw = _weight_gradient(_padded(signs, padding, packed.pad_value), dout, packed.shape[:2], stride)
    if not need_dx:
        return None, dw
    w = packed.binary(dtype) if scale else packed.signs().astype(dtype)
    dx = _input_gradient(dout, w, size, stride, padding)
    if estimator != "ste":
        return binarize.ESTIMATORS[estimator](dx, kept), dw
    rows = dx.reshape(-1, channels)
    engine.run(kernels.clear_rows, len(rows), kept, rows, work=rows.size)
    return dx, dw
