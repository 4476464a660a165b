"""Kernels as others write them: right ones, fast enough for every case of the kit, for tests to plant faults in."""

import numpy as np

from hbn_ref import reference
from hbn_ref.testing import truth


def both(value):
    return reference.pair(value)


def _size(x, w, stride, padding):
    axes = zip(x.shape[1:3], w.shape, both(stride), both(padding))
    return tuple(reference.output_size(*axis) for axis in axes)


def conv2d(x, w, *, stride=1, padding=0, pad_value=0):
    """The convolution of two arrays of one type."""
    return truth.conv(x, w, _size(x, w, stride, padding), stride, padding, pad_value)


def counts(x, w, **options):
    """For check_xnor_conv."""
    return conv2d(truth.signs(x), truth.signs(w), **options)


def scaled(x, w, **options):
    """For check_xnor_conv with scale=True."""
    return counts(x, w, **options) * truth.alpha(w)


def binary_weight(x, w, **options):
    """For check_binary_weight_conv."""
    return conv2d(x.astype(np.float64), truth.alpha(w) * truth.signs(w), **options)


def backward(dout, x, w, *, scale=True, estimator="ste", stride=1, padding=0, pad_value=0):
    """For check_xnor_conv_backward."""
    dout, signs = dout.astype(np.float64), truth.signs(x).astype(np.float64)
    binary = truth.alpha(w) * truth.signs(w) if scale else truth.signs(w).astype(np.float64)
    dsign, dw = truth.conv_backward(dout, signs, binary, stride, padding, pad_value)
    return dsign * truth.slope(x, estimator), dw


def fold(alpha, scale, shift, n, relu):
    """For check_threshold: it looks at every count."""
    i = np.arange(-n, n + 1)[:, None]
    sums = np.maximum(alpha * i, 0) if relu else alpha * i
    bits, flip = sums * scale + shift >= 0, scale < 0
    return ((bits ^ flip) == 0).sum(axis=0) - n, flip


pack, unpack = truth.pack, truth.unpack


def popcount(words):
    """Bits that are 1 along the last axis, with NumPy 1, too."""
    octets = np.ascontiguousarray(words).view(np.uint8)
    return np.unpackbits(octets, axis=-1).sum(axis=-1, dtype=np.int64)


def xnor_matmul(a, b, n):
    """For check_xnor_matmul."""
    return np.stack([n - 2 * popcount(a ^ row) for row in b], axis=1)


def word_kernel(x, w, *, stride, padding, pad_value, fault=None):
    """A convolution of words as others write it, ``fault`` is what its author got wrong."""
    (sh, sw), (ph, pw), (kh, kw, channels, _) = both(stride), both(padding), w.shape
    if fault == "swapped stride axes":
        sh, sw = sw, sh
    positive = np.greater if fault == "wrong sign at zero" else np.greater_equal
    more = -channels % 64

    def words(bits, tail=False, order="little"):
        bits = np.concatenate([bits, np.full((*bits.shape[:-1], more), tail)], axis=-1)
        return np.ascontiguousarray(np.packbits(bits, axis=-1, bitorder=order)).view(np.uint64)

    top = max(ph - 1, 0) if fault == "off-by-one border" else ph
    around = [(0, 0), (top, 2 * ph - top), (pw, pw), (0, 0)]
    filled = pad_value == 1 and fault != "wrong padding"
    bits = np.pad(positive(x, 0), around, constant_values=filled)
    inside = np.pad(np.ones(x.shape[:3], bool), around[:3], constant_values=pad_value != 0)
    xw = words(bits, fault == "wrong tail bits", "big" if fault == "swapped bit order" else "little")
    ww = words(positive(w, 0).swapaxes(2, 3))  # (kh, kw, C_out, W)
    size = (bits.shape[1] - kh) // sh + 1, (bits.shape[2] - kw) // sw + 1
    out = 0
    for a, b in np.ndindex(kh, kw):
        place = np.s_[:, a : a + sh * (size[0] - 1) + 1 : sh, b : b + sw * (size[1] - 1) + 1 : sw]
        differ = popcount(xw[place][..., None, :] ^ ww[a, b])
        count = channels - 2 * differ
        if fault == "unmasked last word":  # XNOR instead: the unused bits agree, and nobody masks them
            count += 2 * more
        out = out + count * inside[place][..., None]
    return out.astype(np.int16) if fault == "int16 overflow" else out
