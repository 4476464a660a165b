"""The checks: each is a function, with the cases of its table and a rule for what is right."""

from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from .. import reference
from ..checks import one_of
from . import truth
from .cases import (
    BackwardCase,
    BinaryWeightCase,
    Case,
    ConvCase,
    MatmulCase,
    PackCase,
    ThresholdCase,
    UnpackCase,
)
from .reporting import Wrong, check_shape, compare, first
from .running import Plan
from .tables import PAD_VALUES, borders, conv_cases, matmul_cases, pack_cases, threshold_cases, unpack_cases

Types = DTypeLike | list[DTypeLike] | tuple[DTypeLike, ...] | None
Where = Callable[[Any], Any] | None
Cases = Iterable[Case] | None

BACKWARD_SIZE = 1_500_000  # multiply-accumulates of the largest case whose gradients are worked out


def check_pack(
    fn: Callable[[np.ndarray], np.ndarray], *, dtype: Types = None, cases: Cases = None, level: str = "default",
    where: Where = None, without: Collection[str] = (), max_cases: int | None = None, repeat: int = 1,
    report: bool = False,
) -> None:  # fmt: skip
    """Checks fn(x) against the word convention of hbn_ref.bits.pack.

    x (..., C) -> uint64 (..., ceil(C / 64)); channel c is bit c % 64 of word c // 64, 1 means x >= 0 (so 0
    and -0.0 give 1), unused bits are 0. `dtype` is the type of the x that fn is given, float32 unless said.
    """
    __tracebackhide__ = True
    plan = Plan("check_pack", cases, level, where, without, max_cases, repeat, report)
    plan.run(fn, plan.choose(PackCase, pack_cases, dtype=dtype), _compare_words)


def _compare_words(case, results):
    expected, (got,) = case.expected(), results
    if got.dtype != np.uint64:
        raise Wrong(f"expected dtype uint64, got {got.dtype}", "wrong type")
    check_shape(expected, got)
    if np.array_equal(expected, got):
        return
    index, (x,) = first(expected != got), case.arrays()
    want, came = int(expected[index]), int(got[index])
    bit = ((want ^ came) & -(want ^ came)).bit_length() - 1  # the lowest bit that differs
    channel = 64 * index[-1] + bit
    used = channel < x.shape[-1]
    place = f"channel {channel}, x = {float(x[(*index[:-1], channel)])!r}" if used else "an unused bit"
    raise Wrong(f"word {index}: expected 0x{want:016x}, got 0x{came:016x}; first wrong bit {bit} ({place})")


def check_unpack(
    fn: Callable[[np.ndarray, int], np.ndarray], *, cases: Cases = None, level: str = "default", where: Where = None,
    without: Collection[str] = (), max_cases: int | None = None, repeat: int = 1, report: bool = False,
) -> None:  # fmt: skip
    """Checks fn(words, channels) -> +1 where the bit is 1, -1 where it is 0, (..., channels); see check_pack."""
    __tracebackhide__ = True
    plan = Plan("check_unpack", cases, level, where, without, max_cases, repeat, report)
    plan.run(fn, plan.choose(UnpackCase, unpack_cases), _compare_exactly)


def _compare_exactly(case, results):
    compare(case.expected(), results[0])


def check_xnor_matmul(
    fn: Callable[[np.ndarray, np.ndarray, int], np.ndarray], *, cases: Cases = None, level: str = "default",
    where: Where = None, without: Collection[str] = (), max_cases: int | None = None, repeat: int = 1,
    report: bool = False,
) -> None:  # fmt: skip
    """Checks fn(a, b, n): out[i, j] = the sum over n signs of a[i] * b[j], (M, N), from words a (M, W) and b (N, W)."""
    __tracebackhide__ = True
    plan = Plan("check_xnor_matmul", cases, level, where, without, max_cases, repeat, report)
    plan.run(fn, plan.choose(MatmulCase, matmul_cases), _compare_exactly)


def check_xnor_conv(
    fn: Callable[..., np.ndarray], *, pad_values: Iterable[int] = PAD_VALUES, scale: bool = False,
    dtype: Types = None, rtol: float | None = None, cases: Cases = None, level: str = "default", where: Where = None,
    without: Collection[str] = (), max_cases: int | None = None, repeat: int = 1, report: bool = False,
) -> None:  # fmt: skip
    """Checks fn(x, w, stride=, padding=, pad_value=) against the convolution of the signs, exactly.

    x is (N, H, W, C_in), w (kh, kw, C_in, C_out), both of `dtype`. fn returns the counts, (N, OH, OW, C_out): of n
    products the matches minus the mismatches, a whole number from -n to n. stride and padding are integers, or
    (height, width) pairs if the two differ. With pad_value 0 a tap beyond the border adds nothing; with +1 or -1 that
    sign stands there, and is multiplied by the weight's sign. scale=True expects the counts times alpha, the mean |w|
    of each filter, to `rtol`: by default eps (4 + sqrt(n)) of the type, as alpha is rounded.
    """
    __tracebackhide__ = True
    plan = Plan("check_xnor_conv", cases, level, where, without, max_cases, repeat, report)
    wanted = borders(pad_values)
    chosen = plan.choose(ConvCase, partial(conv_cases, wanted, without=without), pad_values=wanted, dtype=dtype)
    if scale:
        plan.run(fn, chosen, partial(_compare_scaled, rtol=rtol), how="scale=True")
    else:
        plan.run(fn, chosen, _compare_counts)


def _compare_counts(case, results):
    expected = case.expected()
    try:
        compare(expected, results[0])
    except Wrong:
        if results[0].shape == expected.shape and results[0].dtype.kind in "iuf":
            _confirm(case, expected, first(~(results[0].astype(np.float64) == expected)))
        raise


def _confirm(case, expected, index):
    """Report a failure only if the loops of the reference agree with what was expected."""
    slow = case.expected_at(index)
    if slow != expected[index]:
        raise RuntimeError(f"{case}, index {index}: NumPy's sum {expected[index]} is wrong on this machine, not {slow}")


def _compare_scaled(case, results, rtol):
    """Allow the scale to be rounded, but not the count, whose neighbours are 2 apart."""
    scale, expected = truth.alpha(case.arrays()[-1]), case.expected(scale=True)
    n, kind = case.products(), np.finfo(case.dtype)
    if rtol is None:
        rtol = max(float(kind.eps) * (4 + np.sqrt(n)), 1e-10) if kind.bits > 16 else 2e-2
    sums = min(4 * n * max(float(kind.eps), 1e-14), 0.5)  # if alpha n and 2 alpha popcount were rounded one by one
    compare(expected, results[0], rtol * np.abs(expected) + sums * scale)


def check_xnor_conv_backward(
    fn: Callable[..., tuple[np.ndarray, np.ndarray]], *, pad_values: Iterable[int] = PAD_VALUES, scale: bool = True,
    estimator: str = "ste", dtype: Types = None, rtol: float | None = None, cases: Cases = None,
    level: str = "default", where: Where = None, without: Collection[str] = (), max_cases: int | None = None,
    repeat: int = 1, report: bool = False,
) -> None:  # fmt: skip
    """Checks fn(dout, x, w, stride=, padding=, pad_value=) -> (dx, dw), the gradients of the scaled XNOR convolution.

    dx is the gradient with respect to x, through an estimator of the derivative of sign: "ste" (1 where |x| < 1, so 0
    where |x| = 1), "approx_sign" or "swish_sign". dw is that with respect to W~ = alpha sign(w), or with scale=False to
    sign(w), before `binarize.weight_gradient`. Both to `rtol` of the largest value, or of such a sum's usual size.
    """
    __tracebackhide__ = True
    one_of("estimator", estimator, tuple(reference.SLOPES))
    plan = Plan("check_xnor_conv_backward", cases, level, where, without, max_cases, repeat, report)

    wanted = borders(pad_values)

    def table(level):
        cases = conv_cases(wanted, level=level, without=without)
        return [case.as_kind(BackwardCase) for case in cases if case.size() <= BACKWARD_SIZE]

    def compare_gradients(case, results):
        dout, x, w = case.arrays()
        expected, largest = case.expected(scale, estimator), truth.alpha(w).max() if scale else 1
        usual = _usual(dout, w[:, :, 0].size, largest), _usual(dout, dout[..., 0].size)
        for name, want, came, at, sums in zip(("dx", "dw"), expected, results, (x, None), usual, strict=True):
            compare(want, came, _tolerance(rtol, case, want, sums), name=name, at=at)

    chosen = plan.choose(BackwardCase, table, pad_values=wanted, dtype=dtype)
    plan.run(fn, chosen, compare_gradients, results=2, how=f"scale={scale}, estimator={estimator!r}")


def check_binary_weight_conv(
    fn: Callable[..., np.ndarray], *, dtype: Types = None, rtol: float | None = None, cases: Cases = None,
    level: str = "default", where: Where = None, without: Collection[str] = (), max_cases: int | None = None,
    repeat: int = 1, report: bool = False,
) -> None:  # fmt: skip
    """Checks fn(x, w, stride=, padding=) against the convolution of x with alpha sign(w).

    alpha is the mean |w| of each filter (the last axis of w); the border is 0. Results are compared to `rtol` of the
    largest value, or of such a sum's usual size. See check_xnor_conv.
    """
    __tracebackhide__ = True
    sums = {"infinities", "extremes"}  # have none
    names = {without} if isinstance(without, str) else set(without)
    plan = Plan("check_binary_weight_conv", cases, level, where, sorted(names | sums), max_cases, repeat, report)

    def table(level):
        return [case.as_kind(BinaryWeightCase) for case in conv_cases((0,), level=level, without=plan.without)]

    def compare_sums(case, results):
        (x, w), expected = case.arrays(), case.expected()
        sums = _usual(x, case.products(), truth.alpha(w).max())
        compare(expected, results[0], _tolerance(rtol, case, expected, sums))

    plan.run(fn, plan.choose(BinaryWeightCase, table, pad_values=(0,), dtype=dtype), compare_sums)


def _usual(x, terms, largest=1.0):
    """The usual size of a sum of so many random terms: x times a weight of the size `largest`."""
    return largest * np.sqrt(terms * np.square(x, dtype=np.float64).mean())


def _tolerance(rtol, case, expected, usual):
    """Enough for sums of 10,000 terms in any order: relative to the largest sum, or to the usual size of one."""
    if rtol is None:
        rtol = {"float64": 1e-10, "float32": 1e-4}.get(case.dtype, 2e-2)
    return rtol * max(np.abs(expected).max(), usual)


def check_threshold(
    fn: Callable[..., tuple[np.ndarray, np.ndarray]], *, cases: Cases = None, level: str = "default",
    where: Where = None, max_cases: int | None = None, repeat: int = 1, report: bool = False,
) -> None:  # fmt: skip
    """Checks fn(alpha, scale, shift, n, relu) -> (t, flip), which fold alpha, ReLU, BatchNorm and sign.

    For every channel and every count i from -n to n, the bit (i >= t) XOR flip must be that of
    max(alpha i, 0) scale + shift >= 0, without the maximum if relu is False. See hbn_ref.deploy.
    """
    __tracebackhide__ = True
    plan = Plan("check_threshold", cases, level, where, (), max_cases, repeat, report)
    plan.run(fn, plan.choose(ThresholdCase, threshold_cases), _compare_bits, results=2)


def _compare_bits(case, results):
    (alpha, scale, shift), (t, flip) = case.arrays(), results
    for array in (t, flip):
        check_shape(alpha, array)
    counts = np.arange(-case.n, case.n + 1)[:, None]
    expected, got = case.expected(), (counts >= t) ^ (flip != 0)
    if np.array_equal(expected, got):
        return
    i, c = first(expected != got)
    channel = f"channel {c} (alpha={alpha[c]}, scale={scale[c]}, shift={shift[c]})"
    bits = f"expected bit {int(expected[i, c])}, got {int(got[i, c])}"
    raise Wrong(f"{channel}, count {counts[i, 0]}: {bits} (t={t[c]}, flip={flip[c]})")
