"""A kit for testing somebody else's kernels: in C++, CUDA, Verilog, anything that a Python function can call.

========================  ====================================================  ==============================
check                     the function it is given                              in this package
========================  ====================================================  ==============================
check_pack                fn(x) -> words                                        bits.pack
check_unpack              fn(words, channels) -> +1 and -1                      bits.unpack
check_xnor_matmul         fn(a, b, n) -> counts                                 bits.xnor_matmul
check_xnor_conv           fn(x, w, stride=, padding=, pad_value=) -> counts     conv.xnor_conv2d_forward
check_xnor_conv_backward  fn(dout, x, w, stride=, padding=, pad_value=)         conv.xnor_conv2d_backward
                          -> dx, dw
check_binary_weight_conv  fn(x, w, stride=, padding=) -> out                    conv.binary_weight_conv2d_forward
check_threshold           fn(alpha, scale, shift, n, relu) -> t, flip           deploy.threshold
check_vjp                 any forward pass and its backward pass, in float64
========================  ====================================================  ==============================

Each is silent when all is well, and raises AssertionError at the first case that fails. Small cases run first, and
among those of about one size the plainest (stride 1, no padding, square): so the first failure is also the easiest to
look into. The cases are the same on every machine. The truth is hbn_ref.reference.

    >>> import numpy as np
    >>> from hbn_ref import testing
    >>> def mine(a, b, n):  # forgets that the last word is not full
    ...     return 64 * a.shape[1] - 2 * np.bitwise_count(a[:, None] ^ b).sum(axis=2, dtype=int)
    >>> testing.check_xnor_matmul(mine)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    AssertionError: a (1, 1), b (1, 1), n=1, signs random: index (0, 0): expected -1, got 62 (1 of 1 values differ)
    again: case = testing.MatmulCase(rows=1, filters=1, n=1, signs='random', seed=0); a, b = case.arrays(); got = ...
    >>> def mended(a, b, n):
    ...     return n - 2 * np.bitwise_count(a[:, None] ^ b).sum(axis=2, dtype=int)
    >>> testing.check_xnor_matmul(mended)

Every check but check_vjp takes

* ``level``: "quick" (200 cases, 2 seconds), "default" (all) or "full" (with the layers of the six networks);
* ``where``: a function of the case, for a kernel that does only some: ``where=lambda case: case.stride == 1``. A
  kernel that raises NotImplementedError is excused from that case. The check prints how many cases were left out;
* ``cases``: cases of your own, or of `layer_cases`, instead of the table;
* ``max_cases``: at most so many, spread over all kinds;
* ``without``: names of values to leave out, such as `HARD`;
* ``repeat``: so many calls back to back with the same arrays, which finds races;
* ``report``: True runs all cases, and then tells what those that fail have in common.

With pytest: ``@pytest.mark.parametrize("case", testing.conv_cases(), ids=str)`` over a test that calls
``testing.check_xnor_conv(kernel, cases=[case])``. By hand: compare ``case.call(kernel)`` with ``case.expected()``. If a
call ends the process, as a segmentation fault does, its case is left in a file ``hbn_ref-case-*`` of the folder for
temporary files; the next check shows it on stderr.

**Values.** The sign of x is +1 if x >= 0, so also for 0 and -0.0. "edges" are many 0, -0.0, 1 and -1: if only these
fail, look at the sign of 0 first. There are denormals ("denormals"), infinities ("infinities"), and the smallest and
largest numbers ("extremes"), too. A kernel that flushes denormals to zero takes a negative one for +1. NaN has no sign
and is in no case; this package refuses it with a ValueError.

**Arrays** come as callers hold them, in all of `LAYOUTS`: in one piece, a part of a larger array, with steps, reversed,
transposed, in Fortran's order, read-only, misaligned. Results may be of any integer or float type (words: uint64),
read-only, in any memory order. A kernel may read its inputs, but not write to them. A result belongs to the caller, and
no later call may change it.

**Adapters** for what others take and give (a kernel in C: ``np.require(x, np.float32, "CA")`` is contiguous and
aligned)::

    def nchw(x, w, **options):                            # (N, C, H, W), weights (O, I, kh, kw)
        x, w = np.ascontiguousarray(x.transpose(0, 3, 1, 2)), np.ascontiguousarray(w.transpose(3, 2, 0, 1))
        return kernel(x, w, **options).transpose(0, 2, 3, 1)

    def words32(a, b, n):                                 # for words of 8 bits: np.uint8, n // 8
        a, b = (np.ascontiguousarray(words).view(np.uint32)[:, : -(-n // 32)] for words in (a, b))
        return kernel(a, b, n)

    def msb_first(a, b, n):                               # the first channel in the most significant bit
        a, b = (np.unpackbits(np.ascontiguousarray(v).view(np.uint8), axis=1, bitorder="little") for v in (a, b))
        a, b = (np.packbits(bits, axis=1).view(">u8").astype(np.uint64) for bits in (a, b))
        return kernel(a, b, n)

    def from_matches(a, b, n):                            # counts the places that agree
        return 2 * kernel(a, b, n).astype(np.int64) - n

    def from_and(a, b, n):                                # counts of a AND b, bits 0 and 1 taken for 0 and 1
        ones = lambda words: kernel(words, np.full_like(words[:1], 2**64 - 1), n).astype(np.int64)
        return n - 2 * (ones(a) + ones(b).T - 2 * kernel(a, b, n).astype(np.int64))

Without Python: ``python -m hbn_ref cases DIR`` writes cases to files, with a C program that reads them. If other code
of yours runs packed files, compare each layer's bits with those of ``hbn_ref.deploy.load(path).trace(x)``.
"""

from .cases import BackwardCase, BinaryWeightCase, Case, ConvCase, MatmulCase, PackCase, ThresholdCase, UnpackCase
from .checks import (
    check_binary_weight_conv,
    check_pack,
    check_threshold,
    check_unpack,
    check_xnor_conv,
    check_xnor_conv_backward,
    check_xnor_matmul,
)
from .tables import conv_cases, layer_cases, matmul_cases, pack_cases, threshold_cases, unpack_cases
from .values import HARD, HARD_VALUES, LAYOUTS, SIGNS
from .vjp import check_vjp

__all__ = [
    "HARD",
    "HARD_VALUES",
    "LAYOUTS",
    "SIGNS",
    "BackwardCase",
    "BinaryWeightCase",
    "Case",
    "ConvCase",
    "MatmulCase",
    "PackCase",
    "ThresholdCase",
    "UnpackCase",
    "check_binary_weight_conv",
    "check_pack",
    "check_threshold",
    "check_unpack",
    "check_vjp",
    "check_xnor_conv",
    "check_xnor_conv_backward",
    "check_xnor_matmul",
    "conv_cases",
    "layer_cases",
    "matmul_cases",
    "pack_cases",
    "threshold_cases",
    "unpack_cases",
]
