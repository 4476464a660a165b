"""Where the patches of a convolution lie: sizes, borders, tables of addresses, and checks of what fits together.

No pass copies patches: a table says where each patch starts and how far its elements lie from there
(`kernels.float_gather`, `kernels.xnor_gather`).
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from .. import bits, kernels
from ..checks import IntOrPair, float_array, pair, plain_array

SMALL = 2**15  # bytes: filling so few is faster than filling their four borders


def output_size(
    size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> tuple[int, ...]:
    """Return the (height, width) of a convolution's output; all arguments are pairs.

    Raises
    ------
    ValueError
        The kernel is larger than the padded input.
    """
    for length, k, p in zip(size, kernel, padding, strict=True):
        if length + 2 * p < k:
            raise ValueError(f"x: a {size} map with padding {padding} is smaller than the kernel {kernel}")
    return tuple((length + 2 * p - k) // s + 1 for length, k, s, p in zip(size, kernel, stride, padding, strict=True))


def crop(
    x: np.ndarray, rows: tuple[int, int], columns: tuple[int, int], fill: np.ndarray | np.generic | int = 0
) -> np.ndarray:
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


def padded(x: np.ndarray, padding: tuple[int, ...], fill: np.ndarray | np.generic | int = 0) -> np.ndarray:
    """Return x with a border of ``fill``."""
    (ph, pw), (height, width) = padding, x.shape[1:3]
    return crop(x, (-ph, height + ph), (-pw, width + pw), fill)


@lru_cache(maxsize=128)
def tables(shape: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return (base, off): where the patches of a padded batch start, and how far their elements lie from there.

    ``shape`` is (N, H, W, C). Both tables are flat, with spare rows (`kernels.spare`).
    """
    (n, height, width, channels), (kh, kw), (sh, sw) = shape, kernel, stride
    i, j = np.arange(0, height - kh + 1, sh), np.arange(0, width - kw + 1, sw)
    a, b, c = np.arange(kh), np.arange(kw), np.arange(channels)
    image = np.arange(n)[:, None, None] * height
    base = ((image + i[:, None]) * width + j) * channels  # (N, Ho, Wo)
    off = (a[:, None, None] * width + b[:, None]) * channels + c  # (kh, kw, C)
    return kernels.spare(base.ravel()), kernels.spare(off.ravel())


def whole_tiles(columns: np.ndarray, width: int) -> np.ndarray:
    """Return columns (..., C_out) with zeros up to a multiple of ``width``."""
    missing = -columns.shape[-1] % width
    if not missing:
        return columns
    return np.concatenate([columns, np.zeros((*columns.shape[:-1], missing), columns.dtype)], axis=-1)


@lru_cache(maxsize=128)
def border(
    batch: int, size: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...]
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Sort the output pixels of a batch into kinds, by which taps fall inside the map.

    A 3x3 kernel with padding 1 has 9 kinds: four corners, four edges, the interior. Returns the kind of each pixel,
    with spare rows, and for each kind four numbers: the first row of taps inside the map and the one after the last,
    and the same for columns.
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


# ---------------------------------------------------------------------------------------------- what fits


def check(
    x: Any, w: Any, stride: IntOrPair, padding: IntOrPair
) -> tuple[np.ndarray, np.ndarray, tuple[int, int], tuple[int, int]]:
    """Return (x, w, stride, padding) of a convolution, stride and padding as pairs, or raise a ValueError."""
    x = float_array("x", x, 4)
    w = float_array("w", w, 4, like=x)
    check_fit(x, w.shape)
    stride, padding = pair("stride", stride, 1), pair("padding", padding, 0)
    output_size(x.shape[1:3], w.shape[:2], stride, padding)
    return x, w, stride, padding


def check_fit(x: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raise a ValueError unless weights of ``shape`` take as many channels as x has."""
    if x.shape[3] != shape[2]:
        raise ValueError(f"w: takes {shape[2]} channels, x has {x.shape[3]} (x {x.shape}, w {tuple(shape)})")


def check_words(words: Any, channels: int) -> np.ndarray:
    """Return words, uint64 (N, H, W, ceil(channels / 64)), or raise a ValueError."""
    words, width = plain_array("words", words), bits.words_for(channels)
    if words.dtype != np.uint64 or words.size == 0 or words.ndim != 4 or words.shape[3] != width:
        raise ValueError(f"words: expected uint64 (N, H, W, {width}), got {words.dtype} {words.shape}")
    return words


def check_cache(cache: Any, length: int) -> tuple:
    """Return the cache of a forward pass, or raise a ValueError if it is none."""
    if cache is None:
        raise ValueError("cache: is None; call the forward pass with need_cache=True")
    if not isinstance(cache, tuple) or len(cache) != length:
        raise ValueError("cache: expected what the forward pass of this convolution returned")
    return cache


def check_dout(
    dout: Any, x_shape: tuple[int, ...], w_shape: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...],
    dtype: DTypeLike,
) -> np.ndarray:  # fmt: skip
    """Return dout, of the shape and type of the output, or raise a ValueError."""
    size = output_size(x_shape[1:3], w_shape[:2], stride, padding)
    expected = (x_shape[0], *size, w_shape[3])
    dout = float_array("dout", dout, 4)
    if dout.shape != expected or dout.dtype != dtype:
        raise ValueError(f"dout: expected {expected} of {dtype}, got {dout.shape} of {dout.dtype}")
    return dout
