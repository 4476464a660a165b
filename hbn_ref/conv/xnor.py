"""The fully binary convolution: signs of inputs and of weights, XOR, count bits.

    out = alpha (n - 2 popcount(bits(x) XOR bits(w)))

takes the place of the sum in `real`. The two gradients are the sums there, with sign(x) for x and W~ = alpha sign(w)
for w.
"""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from .. import binarize, bits, engine, kernels
from ..checks import FLOATS, IntOrPair, float_array, one_of, pair
from .geometry import (
    border,
    check,
    check_cache,
    check_dout,
    check_fit,
    check_words,
    output_size,
    padded,
    tables,
    whole_tiles,
)
from .packed import PAD_VALUES, PackedWeights, pack_weights
from .real import input_gradient, weight_gradient


def xnor_conv2d_forward(
    x: np.ndarray, w: np.ndarray | PackedWeights, *, stride: IntOrPair = 1, padding: IntOrPair = 0, pad_value: int = 0,
    scale: bool = True, estimator: str = "ste", need_cache: bool = True,
) -> tuple[np.ndarray, Any]:  # fmt: skip
    """Fully binary convolution: pack the signs of x, XOR with the packed weights, count bits.

        out = alpha * (n - 2 popcount(bits(x) XOR bits(w)))

    With pad value 0, n is C_in times the number of taps inside the map; otherwise all taps count.

    Parameters
    ----------
    x : float32 or float64 (N, H, W, C_in)
    w : same type (kh, kw, C_in, C_out), or PackedWeights
    stride, padding : int or (vertical, horizontal)
    pad_value : 0, 1 or -1
        With 0 a padded tap adds nothing, as in the authors' code; +1 or -1 stands there as a sign.
    scale : bool
        False leaves alpha out: ``W~ = sign(w)``. The result is then a whole number, exact up to 2^24 in float32.
    estimator : {"ste", "approx_sign", "swish_sign"}
        Whose derivative stands in for that of sign(x). For it "ste" keeps two bits per input, the others keep x.
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
        x, w, _, _ = check(x, w, stride, padding)
        packed = pack_weights(w, pad_value)
    check_fit(x, packed.shape)
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
    """Multiply words by packed weights: the convolution as counts.

    Parameters
    ----------
    words : uint64 (N, H, W, ceil(C_in / 64)), as `bits.pack` makes them: bits beyond the last channel are 0
    packed : PackedWeights
    dtype : int32, float32 or float64
    stride, padding : int or (vertical, horizontal)
    scale : bool

    Returns
    -------
    out : (N, Ho, Wo, C_out) of ``dtype``
        The counts ``n - 2 popcount``, which are whole numbers; with ``scale``, alpha times these.
    """
    if not isinstance(packed, PackedWeights):
        raise TypeError(f"packed: expected PackedWeights, got {type(packed).__name__}")
    kh, kw, channels, filters = packed.shape
    words, dtype = check_words(words, channels), np.dtype(dtype)
    if dtype not in (FLOATS if scale else (np.int32, *FLOATS)):
        raise TypeError(f"dtype: expected float32 or float64, or int32 without scale, got {dtype}")
    stride, padding = pair("stride", stride, 1), pair("padding", padding, 0)
    inner, width = words.shape[1:3], packed.words.shape[2]
    size = output_size(inner, (kh, kw), stride, padding)
    total = packed.totals(inner, stride, padding, dtype)
    kind, _ = border(len(words), inner, (kh, kw), stride, padding)
    fill = bits.pack(np.ones(channels)) if packed.pad_value == 1 else np.uint64(0)
    xp = padded(words, padding, fill)
    base, off = tables(xp.shape, (kh, kw), stride)
    rows, off = len(base) - kernels.SPARE, off[: packed.words.shape[1]]
    alpha = packed.alpha.astype(dtype, copy=False) if scale else np.ones(filters, dtype)
    out = np.empty((len(base), total.shape[1]), dtype)
    args = (xp.reshape(-1), base, off, packed.words, total, kind, whole_tiles(alpha, width), out)
    engine.run(kernels.xnor_gather[width], rows, *args, work=out.size * len(off))
    return np.ascontiguousarray(out[:rows, :filters]).reshape(len(words), *size, filters)


def _inside(x):
    """One bit per value: is |x| < 1? The straight-through estimator needs nothing else."""
    rows = x.reshape(-1, x.shape[-1])
    words = np.empty((len(rows), bits.words_for(x.shape[-1])), np.uint64)
    engine.run(kernels.pack_inside, len(rows), rows, words, work=x.size)
    return words


def xnor_conv2d_backward(dout: np.ndarray, cache: Any, need_dx: bool = True) -> tuple[np.ndarray | None, np.ndarray]:
    """Gradients of `xnor_conv2d_forward`.

    dw is the sum at the top of `real` with sign(x) for x: the derivative with respect to ``W~``. dx is the other sum
    with W~ for w, the derivative with respect to sign(x); the estimator then takes it through the sign.

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
    words, kept, packed, stride, padding, scale, estimator, dtype = check_cache(cache, 8)
    channels, size = packed.shape[2], words.shape[1:3]
    dout = check_dout(dout, words.shape, packed.shape, stride, padding, dtype)
    signs = bits.unpack(words, channels).astype(dtype, copy=False)
    dw = weight_gradient(padded(signs, padding, packed.pad_value), dout, packed.shape[:2], stride)
    if not need_dx:
        return None, dw
    w = packed.binary(dtype) if scale else packed.signs().astype(dtype)
    dx = input_gradient(dout, w, size, stride, padding)
    if estimator != "ste":
        return binarize.ESTIMATORS[estimator](dx, kept), dw
    rows = dx.reshape(-1, channels)
    engine.run(kernels.clear_rows, len(rows), kept, rows, work=rows.size)
    return dx, dw
