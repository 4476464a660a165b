"""The weights of a binary convolution as bits, and the sums of signs that correct the border of a map."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import DTypeLike

from .. import binarize, bits, engine, kernels
from ..checks import float_array, one_of, same_shape
from .geometry import border, whole_tiles

PAD_VALUES = (0, 1, -1)


@dataclass(frozen=True)
class PackedWeights:
    """The weights of a binary convolution as bits, packed once and used many times.

    Attributes
    ----------
    words : uint64 (tiles, kh * kw * W, lanes)
        Sign bits: word k of filter t * lanes + j is words[t, k, j].
    alpha : (C_out,), the type of the weights
    tap_sums : int64 (kh, kw, C_out)
        Sum of each tap's signs over the channels: what a padded tap has to give back.
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
        """Return n of ``n - 2 popcount``, (kinds of output pixels, C_out in whole tiles), for maps of ``size``.

        A padded tap is stored as zero bits, which stand for -1: it adds ``-sum_c sign(w)`` instead of 0. The weights
        tell that sum, so with pad value 0 it is given back for each tap outside the map. This is worked out once for
        each size of map.
        """
        key = size, stride, padding, dtype
        if key not in self._totals:
            kh, kw, channels, filters = self.shape
            _, (a0, a1, b0, b1) = border(1, size, (kh, kw), stride, padding)
            total = np.full((len(a0), filters), kh * kw * channels)
            if self.pad_value == 0:
                area = np.zeros((kh + 1, kw + 1, filters), np.int64)  # area[a, b]: the taps above and left of (a, b)
                area[1:, 1:] = self.tap_sums.cumsum(axis=0).cumsum(axis=1)
                total += area[kh, kw] - (area[a1, b1] - area[a0, b1] - area[a1, b0] + area[a0, b0])
            self._totals[key] = whole_tiles(total.astype(dtype), self.words.shape[2])
        return self._totals[key]


def _popcount(words):
    """How many bits are 1: NumPy 2 counts them itself, for NumPy 1 they are unpacked."""
    if hasattr(np, "bitwise_count"):
        return np.bitwise_count(words)
    return np.unpackbits(words[..., None].view(np.uint8), axis=-1).sum(axis=-1, dtype=np.int64)


def pack_weights(w: np.ndarray, pad_value: int = 0, alpha: np.ndarray | None = None) -> PackedWeights:
    """Pack the weights of a binary convolution.

    Parameters
    ----------
    w : float32 or float64 (kh, kw, C_in, C_out)
    pad_value : 0, 1 or -1
        What a tap beyond the border will see: nothing, +1 or -1.
    alpha : float32 or float64 (C_out,), optional
        Scales to use instead of ``mean |w|``.

    Returns
    -------
    PackedWeights
        Pass it in the place of w. If w changes afterwards, pack it again.
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
