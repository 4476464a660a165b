"""Chapter 1, bits: a sign is one bit, 64 of them are one word, and a dot product is counting.

Channel c of an array is bit ``c % 64`` of word ``c // 64``; a 1 stands for +1, a 0 for -1, and the bits beyond the
last channel (the tail) are 0. For two vectors a, b of n signs each,

    a . b = (places that agree) - (places that differ) = n - 2 popcount(a XOR b),

because the two agree or differ at every place. The tails of both are zeros: XOR gives 0 there, so no mask is needed.
XNOR would count them.
"""

import numpy as np

from . import engine, kernels
from .checks import plain_array, whole_number

__all__ = ["pack", "tile", "unpack", "words_for", "xnor_matmul"]


def words_for(channels: int) -> int:
    """Return how many 64-bit words hold ``channels`` bits."""
    channels = whole_number("channels", channels)
    return -(-channels // 64)


def _signed(x):
    """Return x as a contiguous float array with the same signs."""
    x = plain_array("x", x)
    if x.ndim == 0:
        raise ValueError("x: expected an array with channels along its last axis, got a single number")
    if x.dtype == np.float16:
        x = x.astype(np.float32)
    elif x.dtype.kind == "i":
        x = np.where(x >= 0, np.float32(1), np.float32(-1))
    elif x.dtype not in (np.float32, np.float64):
        raise TypeError(f"x: expected floats or signed integers, got {x.dtype}; what would its sign be?")
    return np.ascontiguousarray(x)


def pack(x: np.ndarray) -> np.ndarray:
    """Pack the signs of x along its last axis.

    Parameters
    ----------
    x : array (..., C)
        float16, float32, float64 or signed integers. x >= 0 gives the bit 1; so do 0 and -0.0.

    Returns
    -------
    words : uint64 (..., ceil(C / 64))

    Raises
    ------
    ValueError
        x contains NaN, which has no sign; or it has no axis, or no channels.
    TypeError
        x holds booleans (False would be +1), unsigned integers, complex numbers or objects, or is a masked array.
    """
    x = _signed(x)
    if x.shape[-1] == 0:
        raise ValueError(f"x: expected at least one channel along the last axis, got shape {x.shape}")
    rows = x.reshape(-1, x.shape[-1])
    width = words_for(x.shape[-1])
    words = np.empty((len(rows), width), np.uint64)
    if engine.run(kernels.pack_signs, len(rows), rows, words, work=x.size):
        raise ValueError("x: contains NaN, which has no sign")
    return words.reshape(*x.shape[:-1], width)


def _check_words(name, words, channels):
    words = plain_array(name, words)
    if words.dtype != np.uint64:
        raise TypeError(f"{name}: expected packed words of type uint64, got {words.dtype}")
    if words.ndim == 0 or words.shape[-1] != words_for(channels):
        raise ValueError(
            f"{name}: {channels} channels need {words_for(channels)} words on the last axis, got shape {words.shape}"
        )
    if channels % 64 and np.any(words[..., -1] >> np.uint64(channels % 64)):
        raise ValueError(f"{name}: bits are set beyond channel {channels}; they must be 0")
    return np.ascontiguousarray(words)


def unpack(words: np.ndarray, channels: int) -> np.ndarray:
    """Turn packed words back into signs, the inverse of `pack`.

    Parameters
    ----------
    words : uint64 (..., ceil(channels / 64))
    channels : int

    Returns
    -------
    x : float32 (..., channels), each +1 or -1

    Raises
    ------
    ValueError
        The channels need another number of words, or a bit beyond the last channel is set.
    TypeError
        The words are not uint64.
    """
    channels = whole_number("channels", channels)
    words = _check_words("words", words, channels)
    rows = words.reshape(-1, words.shape[-1])
    x = np.empty((len(rows), channels), np.float32)
    engine.run(kernels.unpack_rows, len(rows), rows, x, work=x.size)
    return x.reshape(*words.shape[:-1], channels)


def tile(columns: np.ndarray) -> np.ndarray:
    """Lay out a (K, C_out) table as (tiles, K, width), as the gather kernels read it; missing columns are 0."""
    size, filters = columns.shape
    width = kernels.tile_width(filters)
    tiles = -(-filters // width)
    if tiles * width != filters:
        columns = np.concatenate([columns, np.zeros((size, tiles * width - filters), columns.dtype)], axis=1)
    return np.ascontiguousarray(columns.reshape(size, tiles, width).transpose(1, 0, 2))


def xnor_matmul(a: np.ndarray, b: np.ndarray, n: int) -> np.ndarray:
    """Multiply the packed rows of a by the packed rows of b: out[i, j] = sum over n signs of a[i] * b[j].

    Parameters
    ----------
    a : uint64 (M, W)
    b : uint64 (N, W)
    n : int
        Number of valid bits per row; W = ceil(n / 64).

    Returns
    -------
    out : int32 (M, N), exact: n - 2 popcount(a[i] XOR b[j])

    Raises
    ------
    ValueError, TypeError
        As of `unpack`.
    """
    n = whole_number("n", n)
    a, b = _check_words("a", a, n), _check_words("b", b, n)
    for name, words in (("a", a), ("b", b)):
        if words.ndim != 2:
            raise ValueError(f"{name}: expected packed rows, 2 axes, got shape {words.shape}")
    (rows, width), filters = a.shape, len(b)
    if rows * filters == 0:
        return np.empty((rows, filters), np.int32)
    w = tile(b.T)
    base, off = kernels.spare(np.arange(rows) * width), np.arange(width)
    columns = len(w) * w.shape[2]
    total, kind = np.full((1, columns), n, np.int32), np.zeros(len(base), np.int64)
    out, one = np.empty((len(base), columns), np.int32), np.ones(columns, np.int32)
    engine.run(
        kernels.xnor_gather[w.shape[2]], rows, a.ravel(), base, off, w, total, kind, one, out, work=out.size * width
    )
    return np.ascontiguousarray(out[:rows, :filters])
