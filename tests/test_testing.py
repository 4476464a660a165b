"""The kit itself: good functions pass, and every planted fault is caught, with a message that says where.

Also the float64 reference's own passes, which the rest of the tests lean on: against central differences, and
against numbers worked out by hand. Nothing here needs a compiled kernel.
"""

import doctest
import re

import numpy as np
import pytest
from conftest import assert_close, random_arrays

from hbn_ref import reference, testing
from hbn_ref.testing import (
    check_binary_weight_conv,
    check_pack,
    check_threshold,
    check_unpack,
    check_vjp,
    check_xnor_conv,
    check_xnor_conv_backward,
    check_xnor_matmul,
    conv_cases,
    matmul_cases,
    pack_cases,
)


def counts(x, w, **options):
    """The reference's unscaled counts: a good function for check_xnor_conv."""
    return reference.xnor_conv2d_forward(x, w, scale=False, **options)


def fold(alpha, scale, shift, n, relu):
    """A good function for check_threshold: it looks at every count."""
    i = np.arange(-n, n + 1)[:, None]
    values = np.maximum(alpha * i, 0) if relu else alpha * i
    bits, flip = values * scale + shift >= 0, scale < 0
    return ((bits ^ flip) == 0).sum(axis=0) - n, flip


def both(value):
    return reference.pair(value)


# ------------------------------------------------------------------------------------------ good functions


def frozen(array):
    """Nobody may write into it, and it lies in memory the other way round."""
    array = np.asfortranarray(array)
    array.flags.writeable = False
    return array


RESULTS = {
    "float64": lambda array: array,
    "float32": lambda array: array.astype(np.float32),
    "int32": lambda array: array.astype(np.int32),
    "int64, read-only, in Fortran's order": lambda array: frozen(array.astype(np.int64)),
    "a list": lambda array: array.tolist(),
}


@pytest.mark.parametrize("result", RESULTS)
def test_right_kernels_pass_whatever_they_return(result):
    made = RESULTS[result]
    check_unpack(lambda words, channels: made(reference.unpack(words, channels)))
    check_xnor_matmul(lambda a, b, n: made(reference.xnor_matmul(a, b, n)))
    check_xnor_conv(lambda x, w, **options: made(counts(x, w, **options)), max_cases=120)
    check_threshold(lambda *args: tuple(made(array.astype(np.int64)) for array in fold(*args)))


def test_words_may_be_read_only_and_in_another_memory_order():
    check_pack(lambda x: frozen(reference.pack(x)))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_right_kernels_pass_with_every_input_type(dtype):
    check_pack(reference.pack, dtype=dtype)
    check_xnor_conv(counts, dtype=dtype, max_cases=60)
    check_xnor_conv(reference.xnor_conv2d_forward, scale=True, dtype=dtype, max_cases=60)
    check_xnor_conv_backward(reference.xnor_conv2d_backward, dtype=dtype, max_cases=60)
    check_binary_weight_conv(reference.binary_weight_conv2d_forward, dtype=dtype, max_cases=60)


@pytest.mark.parametrize("pad_values", [(0, 1, -1), (0,), (1,), (-1,)])
def test_check_xnor_conv_accepts_the_reference_with_every_border(pad_values):
    seen = set()

    def remember(x, w, *, pad_value, **options):
        seen.add(pad_value)
        return counts(x, w, pad_value=pad_value, **options)

    check_xnor_conv(remember, pad_values=pad_values)
    assert seen == set(pad_values)


@pytest.mark.parametrize("estimator", ["ste", "approx_sign", "swish_sign"])
@pytest.mark.parametrize("scale", [True, False])
def test_check_xnor_conv_backward_takes_every_estimator_and_scale(estimator, scale):
    def backward(dout, x, w, **options):
        dx, dw = reference.xnor_conv2d_backward(dout, x, w, estimator=estimator, scale=scale, **options)
        return [dx.astype(np.float32), dw.astype(np.float32)]

    check_xnor_conv_backward(backward, estimator=estimator, scale=scale, max_cases=60)
    with pytest.raises(AssertionError):
        check_xnor_conv_backward(backward, estimator=estimator, scale=not scale, max_cases=60)


def test_kernels_that_round_to_float32_pass():
    def rounded(function):
        return lambda x, w, **options: function(x, w, **options).astype(np.float32)

    check_binary_weight_conv(rounded(reference.binary_weight_conv2d_forward))
    check_xnor_conv(rounded(reference.xnor_conv2d_forward), scale=True, max_cases=200)


def test_the_example_of_the_module_runs():
    found = doctest.testmod(testing)
    assert found.attempted >= 4 and found.failed == 0


# ---------------------------------------------------------------------------------------------- the tables


def test_pack_cases_reach_every_limit():
    arrays = [case.arrays()[0] for case in pack_cases()]
    assert {1, 63, 64, 65, 127, 128, 129, 200} <= {x.shape[-1] for x in arrays}
    assert {x.ndim for x in arrays} == {1, 2, 3, 4}
    values = np.concatenate([x.ravel() for x in arrays])
    assert np.isinf(values).any() and not np.isnan(values).any()
    assert (np.signbit(values) & (values == 0)).any()
    assert ((values != 0) & (np.abs(values) < np.finfo(np.float32).tiny)).any()


def test_matmul_cases_reach_every_limit():
    cases = matmul_cases()
    assert {1, 63, 64, 65, 127, 128, 129, 200, 40_000} <= {case.n for case in cases}
    largest = [reference.xnor_matmul(*case.arrays(), case.n) for case in cases if case.n == 40_000]
    assert {40_000, -40_000} == {int(value) for product in largest for value in product.ravel()}


def test_conv_cases_reach_every_limit():
    cases = conv_cases()
    assert {2, 3, 31, 63, 64, 65, 96, 128, 200} <= {case.x_shape[3] for case in cases}
    assert {(k, k) for k in range(1, 8)} < {case.w_shape[:2] for case in cases}
    assert {1, 2, 3, (1, 2)} <= {case.stride for case in cases}
    assert {0, 1, 2, 3} <= {case.padding for case in cases}
    assert {0, 1, -1} == {case.pad_value for case in cases}
    assert {1, 2, 3, 4, 5} == {case.x_shape[0] for case in cases}
    assert {0, 1} == {case.x_shape[1] % 2 for case in cases}
    assert any(case.x_shape[1] != case.x_shape[2] for case in cases)
    assert set(testing.SIGNS) == {case.signs for case in cases}
    largest = [np.abs(counts(*case.arrays())).max() for case in cases if case.x_shape[3] == 700]
    assert min(largest) > np.iinfo(np.int16).max


def test_cases_run_smallest_first():
    for sizes in (
        [case.macs() for case in conv_cases()],
        [case.rows * case.filters * case.n for case in matmul_cases()],
        [case.arrays()[0].size for case in pack_cases()],
    ):
        assert sizes == sorted(sizes)


@pytest.mark.parametrize("case", [pack_cases()[7], matmul_cases()[5], conv_cases()[11], conv_cases()[-1]], ids=str)
def test_the_repr_of_a_case_makes_it_again(case):
    again = eval(f"testing.{case!r}")
    assert all(np.array_equal(a, b) for a, b in zip(again.arrays(), case.arrays(), strict=True))


# --------------------------------------------------------------------------------------- faults in packing


def reversed_bits(words):
    """Bit 63 first instead of bit 0 first."""
    return sum(((words >> np.uint64(b)) & np.uint64(1)) << np.uint64(63 - b) for b in range(64))


def ones_in_the_tail(words, channels):
    """Unused bits set instead of cleared."""
    words = words.copy()
    if channels % 64:
        words[..., -1] |= np.uint64((1 << 64) - (1 << (channels % 64)))
    return words


def overwriting(function):
    """The right result, and zeros where the input was."""

    def kernel(x, *args, **options):
        result = function(x, *args, **options)
        x[...] = 0
        return result

    return kernel


def one_call_late(function):
    """The result of the call before."""
    results = []

    def kernel(*args, **options):
        results.append(function(*args, **options))
        return results[max(len(results) - 2, 0)]

    return kernel


def kept_by_shape(function):
    """The result of the first call with these shapes and options, whatever the values."""
    results = {}

    def kernel(*args, **options):
        key = str([np.shape(value) or value for value in args]) + str(options)
        return results.setdefault(key, function(*args, **options))

    return kernel


def one_buffer(function):
    """Each result is written over the one before."""
    buffers = {}

    def stored(k, result):
        view = buffers.setdefault(k, np.zeros(200_000, result.dtype))[: result.size].reshape(result.shape)
        view[...] = result
        return view

    def kernel(*args, **options):
        results = function(*args, **options)
        return tuple(map(stored, range(2), results)) if isinstance(results, tuple) else stored(0, results)

    return kernel


STATEFUL = {
    "input overwritten": (overwriting, "changed its input"),
    "the result of the call before": (one_call_late, "expected"),
    "the result of the first call with these shapes": (kept_by_shape, "expected"),
    "one buffer for all results": (one_buffer, "changed the result of the call before"),
}


def both_kinds(function, faults):
    """The faults of one function, and those of memory that every function can have."""
    return faults | {what: (spoil(function), message) for what, (spoil, message) in STATEFUL.items()}


PACK_FAULTS = both_kinds(
    reference.pack,
    {
        "swapped bit order": (lambda x: reversed_bits(reference.pack(x)), "bit 0 .channel 0"),
        "swapped word order": (lambda x: reference.pack(x)[..., ::-1], "first wrong bit"),
        "swapped byte order": (lambda x: reference.pack(x).byteswap(), "first wrong bit"),
        "tail bits set": (lambda x: ones_in_the_tail(reference.pack(x), x.shape[-1]), "an unused bit"),
        "inverted": (lambda x: reference.pack(-np.where(x == 0, 1, x)), "expected 0x"),
        "sign(0) = -1": (lambda x: reference.pack(np.where(x > 0, 1.0, -1.0)), "x = np.float32.-?0.0"),
        "-0.0 taken for negative": (lambda x: reference.pack(np.where(np.signbit(x), -1.0, 1.0)), "-0.0"),
        "denormals flushed to zero": (lambda x: reference.pack(np.where(np.abs(x) < 2e-38, 0.0, x)), "x = .*e-(38|45)"),
        "infinities lost": (lambda x: reference.pack(np.where(np.isinf(x), 0.0, x)), "-inf"),
        "wrong dtype": (lambda x: reference.pack(x).astype(np.int64), "expected dtype uint64, got int64"),
        "a word too many": (lambda x: np.pad(reference.pack(x), [(0, 0)] * (x.ndim - 1) + [(0, 1)]), "shape"),
        "raises": (lambda x: x.no_such_attribute, "raised AttributeError"),
    },
)


@pytest.mark.parametrize("fault", PACK_FAULTS)
def test_check_pack_catches(fault):
    faulty, message = PACK_FAULTS[fault]
    with pytest.raises(AssertionError, match=message):
        check_pack(faulty)


UNPACK_FAULTS = both_kinds(
    reference.unpack,
    {
        "swapped bit order": (lambda words, c: reference.unpack(reversed_bits(words), c), r"index \(0,\): expected 1"),
        "swapped word order": (lambda words, c: reference.unpack(words[..., ::-1], c), "expected"),
        "0 for -1": (lambda words, c: np.maximum(reference.unpack(words, c), 0), "expected -1, got 0"),
        "the tail unpacked too": (
            lambda words, c: reference.unpack(words, 64 * words.shape[-1]),
            r"expected shape \(1,\), got \(64,\)",
        ),
        "booleans": (lambda words, c: reference.unpack(words, c) > 0, "got dtype bool"),
    },
)


@pytest.mark.parametrize("fault", UNPACK_FAULTS)
def test_check_unpack_catches(fault):
    faulty, message = UNPACK_FAULTS[fault]
    with pytest.raises(AssertionError, match=message):
        check_unpack(faulty)


# --------------------------------------------------------------------------------- faults in the products

MATMUL_FAULTS = both_kinds(
    reference.xnor_matmul,
    {
        "tail bits counted": (lambda a, b, n: reference.xnor_matmul(a, b, 64 * a.shape[1]), "n=1,.*expected 1, got 64"),
        "last word not masked": (
            lambda a, b, n: reference.xnor_matmul(ones_in_the_tail(a, n), b, n),
            "n=1,.*expected 1, got -125",
        ),
        "last word left out": (
            lambda a, b, n: reference.xnor_matmul(a[:, : n // 64], b[:, : n // 64], n),
            "n=[1-9],.*expected",
        ),
        "bit order of a swapped": (lambda a, b, n: reference.xnor_matmul(reversed_bits(a), b, n), "expected"),
        "transposed": (lambda a, b, n: reference.xnor_matmul(b, a, n), r"expected shape \(5, 1\), got \(1, 5\)"),
        "int16": (
            lambda a, b, n: reference.xnor_matmul(a, b, n).astype(np.int16),
            "n=40000.*expected -?40000, got -?25536",
        ),
        "agreeing places instead of the sum": (
            lambda a, b, n: (reference.xnor_matmul(a, b, n) + n) // 2,
            "expected -2, got 0",
        ),
    },
)


@pytest.mark.parametrize("fault", MATMUL_FAULTS)
def test_check_xnor_matmul_catches(fault):
    faulty, message = MATMUL_FAULTS[fault]
    with pytest.raises(AssertionError, match=message):
        check_xnor_matmul(faulty)


def shifted_border(x, w, *, stride, padding, pad_value):
    """Off by one: the image sits one pixel too far up and left in its border."""
    padded = reference.pad_border(np.where(x >= 0, 1.0, -1.0), padding, pad_value)
    padded = np.roll(padded, (-1, -1), (1, 2)) if min(both(padding)) else padded
    return reference.conv2d_forward(padded, reference.sign(w), stride=stride)


def extra_row(x, w, **options):
    """Off by one: a row of outputs for a kernel that only half fits."""
    out = counts(x, w, **options)
    return np.concatenate([out, out[:, -1:]], axis=1)


def tail_counted(x, w, **options):
    """The unused bits of the last word differ between x and w and are counted at every tap."""
    return counts(x, w, **options) - 2.0 * (-x.shape[3] % 64) * w.shape[0] * w.shape[1]


def last_word_not_masked(x, w, **options):
    """XNOR instead of XOR: the unused bits agree, and are counted."""
    return counts(x, w, **options) + 1.0 * (-x.shape[3] % 64) * w.shape[0] * w.shape[1]


def swapped_stride(x, w, *, stride, **options):
    return counts(x, w, stride=both(stride)[::-1], **options)


def swapped_padding(x, w, *, padding, **options):
    return counts(x, w, padding=both(padding)[::-1], **options)


def bits_of_x_reversed(x, w, **options):
    """x packed with bit 63 first, w with bit 0 first."""
    blocks = [x[..., c : c + 64][..., ::-1] for c in range(0, x.shape[3], 64)]
    return counts(np.concatenate(blocks, axis=3), w, **options)


def transposed_weights(x, w, **options):
    """(kw, kh, ...) read as (kh, kw, ...)."""
    return counts(x, w.transpose(1, 0, 2, 3).reshape(w.shape), **options)


def border_as(value):
    """A kernel that fills the border with `value` whatever it was asked."""
    return lambda x, w, *, pad_value, **options: counts(x, w, pad_value=value, **options)


def counted_in(dtype):
    """Accumulators too small for the counts wrap around."""
    return lambda x, w, **options: counts(x, w, **options).astype(np.int64).astype(dtype)


CONV_FAULTS = both_kinds(
    counts,
    {
        "border of zeros filled with +1": (border_as(1), "pad_value=(0|-1).*expected"),
        "border of zeros filled with -1": (border_as(-1), "pad_value=(0|1).*expected"),
        "border of ones left empty": (border_as(0), "pad_value=(1|-1).*expected"),
        "tail bits counted": (tail_counted, "index .0, 0, 0, 0.: expected"),
        "last word not masked": (last_word_not_masked, "index .0, 0, 0, 0.: expected"),
        "bit order of x swapped": (bits_of_x_reversed, "expected"),
        "stride axes swapped": (swapped_stride, r"stride=\((1, 2|2, 1)\)"),
        "padding axes swapped": (swapped_padding, r"padding=\((1, 0|0, 2)\)"),
        "border off by one": (shifted_border, r"padding=(1|2|3|\()"),
        "a row too many": (extra_row, "expected shape"),
        "sign(0) = -1 in x": (lambda x, w, **o: counts(np.where(x > 0, 1.0, -1.0), w, **o), "signs (edges|hard)"),
        "sign(0) = -1 in w": (lambda x, w, **o: counts(x, np.where(w > 0, 1.0, -1.0), **o), "signs edges"),
        "denormals flushed": (lambda x, w, **o: counts(np.where(np.abs(x) < 2e-38, 0.0, x), w, **o), "signs hard"),
        "kernel flipped": (lambda x, w, **o: counts(x, w[::-1, ::-1], **o), "expected"),
        "weights transposed": (transposed_weights, "expected"),
        "first image used for all": (lambda x, w, **o: counts(x[:1].repeat(len(x), 0), w, **o), "index .1"),
        "first filter used for all": (lambda x, w, **o: counts(x, w[..., :1].repeat(w.shape[3], 3), **o), "expected"),
        "counts in int8": (counted_in(np.int8), "expected -?[0-9]{3}"),
        "counts in int16": (counted_in(np.int16), "expected -?34300, got -?31236"),
        "counts in uint16": (counted_in(np.uint16), "expected -"),
        "popcount instead of counts": (lambda x, w, **o: (counts(x, w, **o) + w[..., 0].size) / 2, "expected"),
        "values instead of signs": (reference.conv2d_forward, "expected"),
        "scaled": (reference.xnor_conv2d_forward, "expected"),
        "NaN": (lambda x, w, **o: counts(x, w, **o) * np.nan, "got nan"),
        "a tuple": (lambda x, w, **o: (counts(x, w, **o), None), "got a tuple"),
    },
)


@pytest.mark.parametrize("fault", CONV_FAULTS)
def test_check_xnor_conv_catches(fault):
    faulty, message = CONV_FAULTS[fault]
    with pytest.raises(AssertionError, match=message), np.errstate(invalid="ignore"):
        check_xnor_conv(faulty)


def test_check_xnor_conv_names_the_whole_case():
    def wrong_in_one_place(x, w, **options):
        out = counts(x, w, **options)
        out[-1, -1, 0, -1] += 2
        return out

    with pytest.raises(AssertionError) as caught:
        check_xnor_conv(wrong_in_one_place)
    first = conv_cases()[0]
    expected = counts(*first.arrays(), **first.options())
    index = (len(expected) - 1, expected.shape[1] - 1, 0, expected.shape[3] - 1)
    message = str(caught.value)
    assert f"x {first.x_shape}, w {first.w_shape} float32" in message
    for name in ("stride", "padding", "pad_value"):
        assert f"{name}={getattr(first, name)}" in message
    assert f"index {index}: expected {int(expected[index])}, got {int(expected[index]) + 2}" in message
    assert f"1 of {expected.size} values differ" in message


def test_check_xnor_conv_stops_after_max_cases():
    seen = []

    def remember(x, w, **options):
        seen.append(x.shape)
        return counts(x, w, **options)

    check_xnor_conv(remember, max_cases=7)
    assert seen == [case.x_shape for case in conv_cases()[:7]]


def is_wrong(faulty, case):
    x, w = case.arrays()
    got, expected = faulty(x, w, **case.options()), counts(x, w, **case.options())
    return got.shape != expected.shape or not np.array_equal(got, expected)


@pytest.mark.parametrize("fault", ["stride axes swapped", "last word not masked", "counts in int8", "kernel flipped"])
def test_the_smallest_case_that_fails_is_the_one_shown(fault):
    faulty = CONV_FAULTS[fault][0]
    with pytest.raises(AssertionError) as caught:
        check_xnor_conv(faulty)
    smallest = next(case for case in conv_cases() if is_wrong(faulty, case))
    assert str(caught.value).startswith(f"{smallest}: ")


def wrong_alpha_axis(w):
    """The mean over what would be one filter if C_out were the first axis."""
    return np.abs(w).reshape(w.shape[3], -1).mean(axis=1)


SCALED_FAULTS = {
    "wrong alpha axis": (lambda x, w, **o: counts(x, w, **o) * wrong_alpha_axis(w), "expected"),
    "one alpha for all filters": (lambda x, w, **o: counts(x, w, **o) * np.abs(w).mean(), "expected"),
    "alpha with its signs": (lambda x, w, **o: counts(x, w, **o) * w.mean((0, 1, 2)), "expected"),
    "not scaled": (counts, "expected"),
}


@pytest.mark.parametrize("fault", SCALED_FAULTS)
def test_check_xnor_conv_catches_wrong_scales(fault):
    faulty, message = SCALED_FAULTS[fault]
    with pytest.raises(AssertionError, match=message):
        check_xnor_conv(faulty, scale=True)


def real_conv(x, w, **options):
    return reference.conv2d_forward(x, w, **options)


BINARY_WEIGHT_FAULTS = both_kinds(
    reference.binary_weight_conv2d_forward,
    {
        "wrong alpha axis": (lambda x, w, **o: real_conv(x, reference.sign(w) * wrong_alpha_axis(w), **o), "expected"),
        "not scaled": (lambda x, w, **o: real_conv(x, reference.sign(w), **o), "expected"),
        "weights left real": (real_conv, "expected"),
        "inputs binarized too": (reference.xnor_conv2d_forward, "expected"),
        "sign(0) = -1": (
            lambda x, w, **o: real_conv(x, reference.alpha(w) * np.where(w > 0, 1, -1), **o),
            "signs edges",
        ),
        "transposed weights": (
            lambda x, w, **o: real_conv(
                x, reference.binary_weight(w).transpose(1, 0, 2, 3).reshape(w.shape), **o
            ),
            "expected",
        ),
        "inputs in float16": (
            lambda x, w, **o: reference.binary_weight_conv2d_forward(x.astype(np.float16), w, **o),
            "expected",
        ),
    },
)  # fmt: skip


@pytest.mark.parametrize("fault", BINARY_WEIGHT_FAULTS)
def test_check_binary_weight_conv_catches(fault):
    faulty, message = BINARY_WEIGHT_FAULTS[fault]
    with pytest.raises(AssertionError, match=message):
        check_binary_weight_conv(faulty)


# -------------------------------------------------------------------------------- faults behind the products

backward = reference.xnor_conv2d_backward


def without_window(dout, x, w, **options):
    """The derivative of sign taken for 1 everywhere."""
    dx, _ = reference.conv2d_backward(dout, x, reference.binary_weight(w), **options)
    return dx, backward(dout, x, w, **options)[1]


def window_with_one(dout, x, w, **options):
    """1[|x| <= 1] for 1[|x| < 1]."""
    return backward(dout, np.where(np.abs(x) == 1, x / 2, x), w, **options)


def flipped_dx(dout, x, w, **options):
    return backward(dout, x, w[::-1, ::-1], **options)[0], backward(dout, x, w, **options)[1]


def adding_up():
    """Gradients added to a table that is kept by shape, as a framework's are, and never cleared."""
    kept = {}

    def kernel(dout, x, w, **options):
        dx, dw = backward(dout, x, w, **options)
        kept[w.shape] = kept.get(w.shape, 0) + dw
        return dx, kept[w.shape].copy()

    return kernel


BACKWARD_FAULTS = both_kinds(
    backward,
    {
        "no window": (without_window, "dx index"),
        "window with 1 in it": (window_with_one, "signs edges.*dx index"),
        "kernel not turned round": (flipped_dx, "dx index"),
        "without alpha": (lambda *args, **o: backward(*args, scale=False, **o), "dx index"),
        "dw sees a border of zeros": (
            lambda d, x, w, *, pad_value, **o: backward(d, x, w, **o),
            "pad_value=-?1.*dw index",
        ),
        "dw from x, not its sign": (
            lambda d, x, w, **o: (backward(d, x, w, **o)[0], reference.conv2d_backward(d, x, w, **o)[1]),
            "dw",
        ),
        "stride axes swapped": (
            lambda d, x, w, *, stride, **o: backward(d.reshape(d.shape), x, w, stride=both(stride)[::-1], **o),
            r"stride=\((1, 2|2, 1)\).*(dx|dw|raised)",
        ),
        "in the wrong order": (lambda *args, **o: backward(*args, **o)[::-1], "dx expected shape"),
        "dw summed with the last call's": (adding_up(), "dw index"),
        "dx alone": (lambda *args, **o: backward(*args, **o)[0], "expected a tuple of 2"),
    },
)


@pytest.mark.parametrize("fault", BACKWARD_FAULTS)
def test_check_xnor_conv_backward_catches(fault):
    faulty, message = BACKWARD_FAULTS[fault]
    with pytest.raises(AssertionError, match=message), np.errstate(invalid="ignore"):
        check_xnor_conv_backward(faulty)


def by_formula(alpha, scale, shift, n, relu):
    """t = ceil(-shift / (scale alpha)), as if nothing were ever 0 and the ReLU away."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.nan_to_num(np.ceil(-shift / (scale * alpha)), posinf=n + 1, neginf=-n)
    return t.astype(int), scale < 0


THRESHOLD_FAULTS = both_kinds(
    fold,
    {
        "> for >=": (lambda a, s, h, n, r: fold(a, s, h - np.float32(1e-6), n, r), "expected bit 1, got 0"),
        "no flip": (lambda *args: (fold(*args)[0], np.zeros(200, bool)), "scale=-.*expected bit"),
        "ReLU forgotten": (lambda a, s, h, n, relu: fold(a, s, h, n, False), "relu=True.*count -"),
        "ReLU always": (lambda a, s, h, n, relu: fold(a, s, h, n, True), "relu=False.*count -"),
        "never is never": (
            lambda *args: (np.minimum(fold(*args)[0], args[3]), fold(*args)[1]),
            r"count 1: expected bit",
        ),
        "by the formula": (by_formula, "expected bit"),
        "t in int16": (lambda *args: (fold(*args)[0].astype(np.int16), fold(*args)[1]), "n=147000.*expected bit"),
        "alpha left out": (lambda a, s, h, n, r: fold(np.ones_like(a), s, h, n, r), "expected bit"),
        "one threshold for all": (lambda *args: (fold(*args)[0][:1], fold(*args)[1]), "expected shape"),
        "no tuple": (lambda *args: fold(*args)[0], "expected a tuple of 2"),
    },
)  # fmt: skip


@pytest.mark.parametrize("fault", THRESHOLD_FAULTS)
def test_check_threshold_catches(fault):
    faulty, message = THRESHOLD_FAULTS[fault]
    with pytest.raises(AssertionError, match=message):
        check_threshold(faulty)


CHECKS = {
    "pack": (check_pack, PACK_FAULTS["inverted"][0]),
    "unpack": (check_unpack, UNPACK_FAULTS["0 for -1"][0]),
    "matmul": (check_xnor_matmul, MATMUL_FAULTS["tail bits counted"][0]),
    "conv": (check_xnor_conv, CONV_FAULTS["stride axes swapped"][0]),
    "binary weights": (check_binary_weight_conv, BINARY_WEIGHT_FAULTS["not scaled"][0]),
    "backward": (check_xnor_conv_backward, BACKWARD_FAULTS["no window"][0]),
    "threshold": (check_threshold, THRESHOLD_FAULTS["no flip"][0]),
}


@pytest.mark.parametrize("kind", CHECKS)
def test_the_last_line_of_a_message_makes_the_arrays_again(kind):
    check, faulty = CHECKS[kind]
    calls = []

    def remember(*args, **options):
        calls.append([np.copy(value) for value in args])
        return faulty(*args, **options)

    with pytest.raises(AssertionError) as caught:
        check(remember)
    names, code = re.fullmatch(r"again: (.*) = (testing\..*)", str(caught.value).splitlines()[-1]).groups()
    made = eval(code)
    assert names.strip("()").count(",") + (names[0] != "(") == len(made)
    for array, given in zip(made, calls[-1], strict=False):
        assert array.dtype == given.dtype and array.tobytes() == given.tobytes()


# --------------------------------------------------------------------------------------------- check_vjp


def product(x, w):
    return x @ w, (x, w)


def product_backward(dout, cache):
    x, w = cache
    return dout @ w.T, x.T @ dout


def wrong_in_one_element(dout, cache):
    dx, dw = product_backward(dout, cache)
    dw[1, 0] *= 1.0001
    return dx, dw


PRODUCT_FAULTS = {
    "half the gradient": (lambda d, c: (d @ c[1].T / 2, c[0].T @ d), "argument 0 .*expected"),
    "wrong sign": (lambda d, c: (d @ c[1].T, -c[0].T @ d), "argument 1 .*expected"),
    "one element wrong": (wrong_in_one_element, r"argument 1 of shape \(4, 2\)"),
    "wrong shape": (lambda d, c: (d @ c[1].T, d.T @ c[0]), r"expected shape \(4, 2\), got \(2, 4\)"),
    "too few gradients": (lambda d, c: d @ c[1].T, "2, got 1"),
    "no gradient at all": (lambda d, c: (None, None), "nothing to check"),
    "NaN": (lambda d, c: (d @ c[1].T * np.nan, None), "got nan"),
    "infinity": (lambda d, c: (None, np.full((4, 2), np.inf)), "got (inf|nan)"),
}


def test_check_vjp_accepts_a_right_backward_pass():
    x, w = random_arrays(0, (3, 4), (4, 2))
    check_vjp(product, product_backward, (x, w))
    check_vjp(product, product_backward, (x, w), elementwise=True)
    check_vjp(product, lambda dout, cache: (None, cache[0].T @ dout), (x.astype(np.float32), w), wrt=(1,))
    check_vjp(np.sin, lambda dout, cache: dout * np.cos(x), (x,))  # no cache, one argument


@pytest.mark.parametrize("fault", PRODUCT_FAULTS)
def test_check_vjp_catches(fault):
    faulty, message = PRODUCT_FAULTS[fault]
    with pytest.raises(AssertionError, match=message), np.errstate(invalid="ignore"):
        check_vjp(product, faulty, random_arrays(0, (3, 4), (4, 2)))


def test_check_vjp_elementwise_names_the_element():
    x, w = random_arrays(0, (3, 4), (4, 2))
    with pytest.raises(AssertionError, match=r"argument 1 .*element \(1, 0\)"):
        check_vjp(product, wrong_in_one_element, (x, w), elementwise=True, directions=0)


def test_check_vjp_wants_the_gradients_it_was_asked_for():
    x, w = random_arrays(0, (3, 4), (4, 2))
    with pytest.raises(AssertionError, match="argument 0: expected a gradient"):
        check_vjp(product, lambda dout, cache: (None, cache[0].T @ dout), (x, w), wrt=(0, 1))


def test_check_vjp_refuses_a_forward_in_float32():
    with pytest.raises(AssertionError, match="float64"):
        check_vjp(lambda x: x.astype(np.float32), lambda dout, cache: dout, (np.ones(3),))


# --------------------------------------------------------------------------- the reference's own passes


def test_reference_estimators_go_by_their_own_names():
    x, dout = random_arrays(0, (9,), (9,))
    for name in ("ste", "approx_sign", "swish_sign"):
        expected = reference.estimator_backward(dout, x, name)
        assert getattr(reference, f"{name}_backward")(dout, x).tolist() == expected.tolist()


def test_reference_refuses_what_has_no_answer():
    with pytest.raises(ValueError, match="x contains NaN"):
        reference.sign([0.0, np.nan])
    with pytest.raises(ValueError, match="rule must be 'paper' or 'exact', got 'best'"):
        reference.weight_gradient(np.ones((1, 1, 2, 1)), np.ones((1, 1, 2, 1)), "best")


def test_reference_words_have_channel_0_in_bit_0():
    x = -np.ones(66)
    x[[0, 5, 63, 65]] = 1.0
    assert reference.pack(x).tolist() == [1 + (1 << 5) + (1 << 63), 1 << 1]
    assert reference.unpack(reference.pack(x), 66).tolist() == x.tolist()


@pytest.mark.parametrize("pad_value", [-1, 0, 1])
def test_reference_convolution_equals_an_einsum_over_windows(pad_value):
    x, w = random_arrays(0, (2, 6, 7, 3), (3, 2, 3, 4))
    padded = np.pad(x, [(0, 0), (2, 2), (1, 1), (0, 0)], constant_values=pad_value)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 2), (1, 2))[:, ::2, ::3]
    expected = np.einsum("nijcab,abco->nijo", windows, w)
    got = reference.conv2d_forward(x, w, stride=(2, 3), padding=(2, 1), pad_value=pad_value)
    assert_close(got, expected, 1e-14)


def test_reference_convolution_backward():
    x, w = random_arrays(0, (2, 5, 4, 3), (3, 2, 3, 2))
    options = {"stride": (2, 1), "padding": (1, 2), "pad_value": 1}
    check_vjp(
        lambda x, w: (reference.conv2d_forward(x, w, **options), (x, w)),
        lambda dout, cache: reference.conv2d_backward(dout, *cache, **options),
        (x, w),
        elementwise=True,
    )


def test_reference_batchnorm():
    x, gamma, beta = random_arrays(0, (3, 2, 4, 5), (5,), (5,))
    out = reference.batchnorm_forward(x, gamma, beta, 1e-3)
    expected = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-3) * gamma + beta
    assert_close(out, expected, 1e-13)
    check_vjp(
        lambda x, gamma, beta: (reference.batchnorm_forward(x, gamma, beta, 1e-3), (x, gamma)),
        lambda dout, cache: reference.batchnorm_backward(dout, *cache, 1e-3),
        (x, gamma, beta),
        elementwise=True,
    )


def test_reference_max_pooling_by_hand():
    x = np.array([[1.0, 5.0, 2.0], [5.0, 3.0, 9.0], [-4.0, -7.0, -6.0]]).reshape(1, 3, 3, 1)
    assert reference.max_pool_forward(x, 2, 1)[0, :, :, 0].tolist() == [[5, 9], [5, 9]]
    assert reference.max_pool_forward(x, 2, 2)[0, :, :, 0].tolist() == [[5]]
    assert reference.max_pool_forward(x, 2, 2, ceil=True)[0, :, :, 0].tolist() == [[5, 9], [-4, -6]]
    # Window 2, stride 2 with a border of -inf: single corners, pairs on the edges, four in the middle.
    assert reference.max_pool_forward(x, 2, 2, 1)[0, :, :, 0].tolist() == [[1, 5], [5, 9]]
    # With ceil a window that would start in the far border does not exist (as in PyTorch).
    assert reference.max_pool_forward(x, 2, 3, 1, ceil=True).shape == (1, 2, 2, 1)
    # Equal maxima (the two fives): the first in row-major order gets the gradient.
    dx = reference.max_pool_backward(np.ones((1, 1, 1, 1)), x, 2, 2)
    assert dx[0, :, :, 0].tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("size", "stride", "padding", "ceil"),
    [(2, 2, 0, False), (3, 2, 1, True), ((3, 2), (1, 2), (1, 0), False)],
)
def test_reference_max_pooling_backward(size, stride, padding, ceil):
    x = random_arrays(0, (2, 6, 5, 3))
    check_vjp(
        lambda x: reference.max_pool_forward(x, size, stride, padding, ceil),
        lambda dout, _: reference.max_pool_backward(dout, x, size, stride, padding, ceil),
        (x,),
        elementwise=True,
    )


@pytest.mark.parametrize(("size", "stride", "padding"), [(2, 2, 0), (3, 2, 1), ((3, 2), (1, 2), (1, 0))])
def test_reference_average_pooling(size, stride, padding):
    x = random_arrays(0, (2, 6, 5, 3))
    (kh, kw), (ph, pw) = both(size), both(padding)
    padded = np.pad(x, [(0, 0), (ph, ph), (pw, pw), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kh, kw), (1, 2))
    sh, sw = both(stride)
    expected = windows[:, ::sh, ::sw].sum((-1, -2)) / (kh * kw)
    assert_close(reference.avg_pool_forward(x, size, stride, padding), expected, 1e-14)
    check_vjp(
        lambda x: reference.avg_pool_forward(x, size, stride, padding),
        lambda dout, _: reference.avg_pool_backward(dout, x, size, stride, padding),
        (x,),
    )


def test_reference_softmax_cross_entropy():
    loss, dlogits = reference.softmax_cross_entropy([[0.0, 0.0], [1000.0, 1000.0 + np.log(3.0)]], [0, 1])
    assert loss == pytest.approx((np.log(2.0) + np.log(4.0 / 3.0)) / 2, rel=1e-12)
    assert dlogits == pytest.approx(np.array([[-0.25, 0.25], [0.125, -0.125]]), rel=1e-12)
    check_vjp(
        lambda z, labels: reference.softmax_cross_entropy(z, labels),
        lambda dout, dlogits: (dout * dlogits, None),
        (random_arrays(0, (4, 5)), np.array([0, 4, 2, 2])),
        elementwise=True,
    )


def test_reference_adam_by_hand():
    # The first step is lr * g / (|g| + eps): here 0.1 either way. The second, with g = 1 and then g = 3:
    # m = 0.9 * 0.1 + 0.1 * 3 = 0.39, v = 0.999 * 0.001 + 0.001 * 9 = 0.009999, divided by 0.19 and 0.001999.
    w, m, v = reference.adam_step(np.array([1.0, 1.0]), np.array([1.0, -5.0]), 0.0, 0.0, 1, 0.1, eps=0.0)
    assert w == pytest.approx(np.array([0.9, 1.1]), rel=1e-12)
    w, m, v = reference.adam_step(w[:1], np.array([3.0]), m[:1], v[:1], 2, 0.1, eps=0.0)
    assert (m[0], v[0]) == pytest.approx((0.39, 0.009999), rel=1e-12)
    assert w[0] == pytest.approx(0.9 - 0.1 * (0.39 / 0.19) / np.sqrt(0.009999 / 0.001999), rel=1e-12)


@pytest.mark.parametrize(("nesterov", "step"), [(False, 8.6), (True, 10.94)])
def test_reference_sgd_by_hand(nesterov, step):
    # g = 3 + 0.1 * 2 = 3.2 and v = 0.9 * 6 + 3.2 = 8.6; the step is v, with Nesterov 3.2 + 0.9 * v = 10.94.
    w, velocity = reference.sgd_step(2.0, 3.0, 6.0, 0.1, momentum=0.9, nesterov=nesterov, weight_decay=0.1)
    assert velocity == pytest.approx(8.6)
    assert w == pytest.approx(2.0 - 0.1 * step)


# ------------------------------------------------------------------------- faults in a kernel that works on words


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
        differ = np.bitwise_count(xw[place][..., None, :] ^ ww[a, b]).sum(axis=-1, dtype=np.int64)
        count = channels - 2 * differ
        if fault == "unmasked last word":  # XNOR instead: the unused bits agree, and nobody masks them
            count += 2 * more
        out = out + count * inside[place][..., None]
    return out.astype(np.int16) if fault == "int16 overflow" else out


ISSUE = {
    "wrong padding": "pad_value=1,",
    "wrong tail bits": "expected",
    "int16 overflow": "expected -?34300, got -?31236",
    "swapped bit order": "expected",
    "swapped stride axes": r"stride=\((1, 2|2, 1)\)",
    "off-by-one border": r"padding=(1|2|3|\([1-3])",
    "unmasked last word": "expected",
    "wrong sign at zero": "signs (edges|hard)",
}


def test_a_right_kernel_on_words_passes():
    check_xnor_conv(word_kernel)


@pytest.mark.parametrize("fault", ISSUE)
def test_a_fault_in_a_kernel_on_words_is_caught_with_the_smallest_case(fault):
    def faulty(x, w, **options):
        return word_kernel(x, w, fault=fault, **options)

    with pytest.raises(AssertionError, match=ISSUE[fault]) as caught:
        check_xnor_conv(faulty)
    smallest = min((case for case in conv_cases() if is_wrong(faulty, case)), key=testing.ConvCase.macs)
    text, again = str(caught.value).splitlines()
    assert text.startswith(f"{smallest}: ")
    assert is_wrong(faulty, eval(again.partition(" = ")[2].removesuffix(".arrays()")))
