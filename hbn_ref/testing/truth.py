"""What is expected, worked out fast: the sums of hbn_ref.reference, for all pixels of a tap at once.

Sums of signs are whole numbers, added as such, in int32. einsum adds them without BLAS, whose threads would compete
with a kernel's. Before a check reports a fault, the loops of the reference work out that value once more.
"""

from collections.abc import Iterator

import numpy as np

from .. import reference
from ..checks import IntOrPair


def signs(x: np.ndarray) -> np.ndarray:
    """+1 where x >= 0, else -1, as int32."""
    return np.where(x >= 0, np.int32(1), np.int32(-1))


def pack(x: np.ndarray) -> np.ndarray:
    """The words of `reference.pack`."""
    bits = np.zeros((*x.shape[:-1], -(-x.shape[-1] // 64) * 64), bool)
    bits[..., : x.shape[-1]] = x >= 0
    return np.packbits(bits, axis=-1, bitorder="little").view("<u8").astype(np.uint64)


def unpack(words: np.ndarray, channels: int) -> np.ndarray:
    """The signs of `reference.unpack`, as int32."""
    octets = np.ascontiguousarray(words).astype("<u8").view(np.uint8)
    return 2 * np.unpackbits(octets, axis=-1, count=channels, bitorder="little").astype(np.int32) - 1


def xnor_matmul(a: np.ndarray, b: np.ndarray, n: int) -> np.ndarray:
    """The counts of `reference.xnor_matmul`."""
    return np.einsum("mk,nk->mn", unpack(a, n), unpack(b, n))


def _taps(
    padded: np.ndarray, kernel: tuple[int, ...], stride: IntOrPair, size: tuple[int, ...]
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yields (a, b, what tap (a, b) of every output pixel sees: a view (N, OH, OW, C))."""
    sh, sw = reference.pair(stride)
    for a, b in np.ndindex(*kernel):
        rows, columns = slice(a, a + sh * (size[0] - 1) + 1, sh), slice(b, b + sw * (size[1] - 1) + 1, sw)
        yield a, b, padded[:, rows, columns]


def _padded(x, padding, value):
    (ph, pw) = reference.pair(padding)
    return np.pad(x, [(0, 0), (ph, ph), (pw, pw), (0, 0)], constant_values=value) if ph or pw else x


def conv(
    x: np.ndarray, w: np.ndarray, size: tuple[int, ...], stride: IntOrPair, padding: IntOrPair, pad_value: float
) -> np.ndarray:
    """out (N, OH, OW, C_out) of `reference.conv2d_forward` for an output of `size` (OH, OW), in the type of x and w."""
    w = np.ascontiguousarray(w.swapaxes(2, 3))
    out = np.zeros((len(x), *size, w.shape[2]), x.dtype)
    for a, b, seen in _taps(_padded(x, padding, pad_value), w.shape[:2], stride, size):
        out += np.einsum("nijc,oc->nijo", seen, w[a, b])
    return out


def conv_backward(
    dout: np.ndarray, x: np.ndarray, w: np.ndarray, stride: IntOrPair, padding: IntOrPair, pad_value: float
) -> tuple[np.ndarray, np.ndarray]:
    """(dx, dw) of `reference.conv2d_backward`."""
    padded, size = _padded(x, padding, pad_value), dout.shape[1:3]
    dpadded, dw = np.zeros_like(padded), np.zeros_like(w)
    gradients = _taps(dpadded, w.shape[:2], stride, size)
    for (a, b, seen), (_, _, gradient) in zip(_taps(padded, w.shape[:2], stride, size), gradients, strict=True):
        gradient += np.einsum("nijo,co->nijc", dout, w[a, b])
        dw[a, b] = np.einsum("nijc,nijo->co", seen, dout)
    (ph, pw), (height, width) = reference.pair(padding), x.shape[1:3]
    return dpadded[:, ph : ph + height, pw : pw + width], dw


def alpha(w: np.ndarray) -> np.ndarray:
    """The mean |w| of each filter, in float64."""
    return np.abs(w.astype(np.float64)).reshape(-1, w.shape[3]).mean(axis=0)


def slope(x: np.ndarray, estimator: str) -> np.ndarray:
    """What an estimator takes for the derivative of sign at x; for "ste" it is 0 where |x| = 1."""
    if estimator == "ste":
        return (np.abs(x) < 1).astype(np.float64)
    return reference.estimator_backward(np.ones(x.shape), x, estimator)
