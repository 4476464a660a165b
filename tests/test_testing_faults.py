"""Faults planted in other people's kernels: the kit sees each, with a message that says where.

Nothing here needs a compiled kernel.
"""

import numpy as np
import pytest
from other_kernels import (
    backward,
    binary_weight,
    both,
    conv2d,
    counts,
    fold,
    pack,
    scaled,
    unpack,
    word_kernel,
    xnor_matmul,
)

from hbn_ref import reference, testing
from hbn_ref.testing import (
    check_binary_weight_conv,
    check_pack,
    check_threshold,
    check_unpack,
    check_xnor_conv,
    check_xnor_conv_backward,
    check_xnor_matmul,
    conv_cases,
    truth,
)

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
    pack,
    {
        "swapped bit order": (lambda x: reversed_bits(pack(x)), "bit 0 .channel 0"),
        "swapped word order": (lambda x: pack(x)[..., ::-1], "first wrong bit"),
        "swapped byte order": (lambda x: pack(x).byteswap(), "first wrong bit"),
        "tail bits set": (lambda x: ones_in_the_tail(pack(x), x.shape[-1]), "an unused bit"),
        "inverted": (lambda x: pack(-np.where(x == 0, 1, x)), "expected 0x"),
        "sign(0) = -1": (lambda x: pack(np.where(x > 0, 1.0, -1.0)), "x = -?0.0"),
        "-0.0 taken for negative": (lambda x: pack(np.where(np.signbit(x), -1.0, 1.0)), "-0.0"),
        "denormals flushed to zero": (lambda x: pack(np.where(np.abs(x) < 2e-38, 0.0, x)), "x = .*e-(38|45)"),
        "infinities lost": (lambda x: pack(np.where(np.isinf(x), 0.0, x)), "-inf"),
        "wrong dtype": (lambda x: pack(x).astype(np.int64), "expected dtype uint64, got int64"),
        "a word too many": (lambda x: np.pad(pack(x), [(0, 0)] * (x.ndim - 1) + [(0, 1)]), "shape"),
        "raises": (lambda x: x.no_such_attribute, "raised AttributeError"),
    },
)


@pytest.mark.parametrize("fault", PACK_FAULTS)
def test_check_pack_catches(fault):
    faulty, message = PACK_FAULTS[fault]
    with pytest.raises(AssertionError, match=message):
        check_pack(faulty)


UNPACK_FAULTS = both_kinds(
    unpack,
    {
        "swapped bit order": (lambda words, c: unpack(reversed_bits(words), c), r"index \(0,\): expected 1"),
        "swapped word order": (lambda words, c: unpack(words[..., ::-1], c), "expected"),
        "0 for -1": (lambda words, c: np.maximum(unpack(words, c), 0), "expected -1, got 0"),
        "the tail unpacked too": (
            lambda words, c: unpack(words, 64 * words.shape[-1]),
            r"expected shape \(1,\), got \(64,\)",
        ),
        "booleans": (lambda words, c: unpack(words, c) > 0, "got dtype bool"),
    },
)


@pytest.mark.parametrize("fault", UNPACK_FAULTS)
def test_check_unpack_catches(fault):
    faulty, message = UNPACK_FAULTS[fault]
    with pytest.raises(AssertionError, match=message):
        check_unpack(faulty)


# --------------------------------------------------------------------------------- faults in the products

MATMUL_FAULTS = both_kinds(
    xnor_matmul,
    {
        "tail bits counted": (lambda a, b, n: xnor_matmul(a, b, 64 * a.shape[1]), "n=1,.*expected -1, got 62"),
        "last word not masked": (
            lambda a, b, n: xnor_matmul(ones_in_the_tail(a, n), b, n),
            "n=1,.*expected -1, got -12[0-9]",
        ),
        "last word left out": (
            lambda a, b, n: xnor_matmul(a[:, : n // 64], b[:, : n // 64], n),
            "n=[1-9],.*expected",
        ),
        "bit order of a swapped": (lambda a, b, n: xnor_matmul(reversed_bits(a), b, n), "expected"),
        "transposed": (lambda a, b, n: xnor_matmul(b, a, n), r"expected shape \(2, 1\), got \(1, 2\)"),
        "int16": (
            lambda a, b, n: xnor_matmul(a, b, n).astype(np.int16),
            "n=32768.*expected -?32768, got -?32768",
        ),
        "agreeing places instead of the sum": (
            lambda a, b, n: (xnor_matmul(a, b, n) + n) // 2,
            "expected -1, got 0",
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
    padded = reference.pad_border(truth.signs(x), padding, pad_value)
    padded = np.roll(padded, (-1, -1), (1, 2)) if min(both(padding)) else padded
    return conv2d(padded, truth.signs(w), stride=stride)


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
        "stride axes swapped": (swapped_stride, r"stride=\(\d, \d\)"),
        "padding axes swapped": (swapped_padding, r"padding=\((1, 0|0, 2)\)"),
        "border off by one": (shifted_border, r"padding=(1|2|3|\()"),
        "a row too many": (extra_row, "expected shape"),
        "sign(0) = -1 in x": (lambda x, w, **o: counts(np.where(x > 0, 1.0, -1.0), w, **o), "signs edges"),
        "sign(0) = -1 in w": (lambda x, w, **o: counts(x, np.where(w > 0, 1.0, -1.0), **o), "signs edges"),
        "denormals flushed": (lambda x, w, **o: counts(np.where(np.abs(x) < 2e-38, 0.0, x), w, **o), "signs denormals"),
        "kernel flipped": (lambda x, w, **o: counts(x, w[::-1, ::-1], **o), "expected"),
        "weights transposed": (transposed_weights, "expected"),
        "first image used for all": (lambda x, w, **o: counts(x[:1].repeat(len(x), 0), w, **o), "index .1"),
        "first filter used for all": (lambda x, w, **o: counts(x, w[..., :1].repeat(w.shape[3], 3), **o), "expected"),
        "counts in int8": (counted_in(np.int8), "expected -?[0-9]{3}"),
        "counts in int16": (counted_in(np.int16), "expected 32768, got -32768"),
        "counts in uint16": (counted_in(np.uint16), "expected -"),
        "popcount instead of counts": (lambda x, w, **o: (counts(x, w, **o) + w[..., 0].size) / 2, "expected"),
        "values instead of signs": (conv2d, "expected"),
        "scaled": (scaled, "expected"),
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
    return conv2d(x.astype(np.float64), np.asarray(w, np.float64), **options)


BINARY_WEIGHT_FAULTS = both_kinds(
    binary_weight,
    {
        "wrong alpha axis": (lambda x, w, **o: real_conv(x, truth.signs(w) * wrong_alpha_axis(w), **o), "expected"),
        "not scaled": (lambda x, w, **o: real_conv(x, truth.signs(w), **o), "expected"),
        "weights left real": (real_conv, "expected"),
        "inputs binarized too": (scaled, "expected"),
        "sign(0) = -1": (
            lambda x, w, **o: real_conv(x, truth.alpha(w) * np.where(w > 0, 1, -1), **o),
            "signs edges",
        ),
        "transposed weights": (
            lambda x, w, **o: real_conv(
                x, truth.alpha(w) * truth.signs(w).transpose(1, 0, 2, 3).reshape(w.shape), **o
            ),
            "expected",
        ),
        "inputs in float16": (
            lambda x, w, **o: binary_weight(x.astype(np.float16), w, **o),
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


def without_window(dout, x, w, **options):
    """The derivative of sign taken for 1 everywhere."""
    return backward(dout, np.full_like(x, 0.5), w, **options)[0], backward(dout, x, w, **options)[1]


def window_with_one(dout, x, w, **options):
    """1[|x| <= 1] for 1[|x| < 1]."""
    return backward(dout, np.where(np.abs(x) == 1, x / 2, x), w, **options)


def reals_backward(dout, x, w, *, stride, padding, pad_value):
    """dw as if x had been convolved, not its sign."""
    dout, x = dout.astype(np.float64), x.astype(np.float64)
    return truth.conv_backward(dout, x, w.astype(np.float64), stride, padding, pad_value)[1]


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
            lambda d, x, w, **o: (backward(d, x, w, **o)[0], reals_backward(d, x, w, **o)),
            "dw",
        ),
        "stride axes swapped": (
            lambda d, x, w, *, stride, **o: backward(d.reshape(d.shape), x, w, stride=both(stride)[::-1], **o),
            r"stride=\(\d, \d\).*(dx|dw|raised)",
        ),
        "in the wrong order": (lambda *args, **o: backward(*args, **o)[::-1], "dx (index|expected shape)"),
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
        "no flip": (lambda *args: (fold(*args)[0], np.zeros(len(args[0]), bool)), "scale=-.*expected bit"),
        "ReLU forgotten": (lambda a, s, h, n, relu: fold(a, s, h, n, False), "relu=True.*count -"),
        "ReLU always": (lambda a, s, h, n, relu: fold(a, s, h, n, True), "relu=False.*count -"),
        "never is never": (
            lambda *args: (np.minimum(fold(*args)[0], args[3]), fold(*args)[1]),
            r"count [0-9]+: expected bit",
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


def again(caught, fn):
    """What the last line of a message makes: case, got, expected."""
    code = str(caught.value).splitlines()[-1]
    made = {"testing": testing, "fn": fn}
    exec(code.removeprefix("again: "), made)
    return made


@pytest.mark.parametrize("kind", CHECKS)
def test_the_last_line_of_a_message_makes_the_call_again(kind):
    check, faulty = CHECKS[kind]
    calls = []

    def remember(*args, **options):
        calls.append(([np.copy(value) for value in args], options))
        return faulty(*args, **options)

    with pytest.raises(AssertionError) as caught:
        check(remember)
    made = again(caught, remember)
    (args, options), (args_again, options_again) = calls[-2:]
    assert options == options_again
    for array, given in zip(args_again, args, strict=True):
        assert array.dtype == given.dtype and array.tobytes() == given.tobytes()
    expected, got = ((v,) if isinstance(v, np.ndarray) else v for v in (made["expected"], made["got"]))
    if kind != "threshold":  # there expected are bits, and got is what makes them
        assert any(a.shape != b.shape or not np.allclose(a, b) for a, b in zip(expected, got, strict=True))


# ------------------------------------------------------------------------- faults in a kernel that works on words

ISSUE = {
    "wrong padding": "pad_value=1,",
    "wrong tail bits": "expected",
    "int16 overflow": "expected 32768, got -32768",
    "swapped bit order": "expected",
    "swapped stride axes": r"stride=\(\d, \d\)",
    "off-by-one border": r"padding=([1-5]|\([1-5])",
    "unmasked last word": "expected",
    "wrong sign at zero": "signs edges",
}


def test_a_right_kernel_on_words_passes():
    check_xnor_conv(word_kernel, level="quick")


@pytest.mark.parametrize("fault", ISSUE)
def test_a_fault_in_a_kernel_on_words_is_caught_with_the_first_case(fault):
    def faulty(x, w, **options):
        return word_kernel(x, w, fault=fault, **options)

    with pytest.raises(AssertionError, match=ISSUE[fault]) as caught:
        check_xnor_conv(faulty, level="quick")
    first = next(case for case in conv_cases(level="quick") if is_wrong(faulty, case))
    assert str(caught.value).startswith(f"{first}: ")
    made = again(caught, faulty)
    assert not np.array_equal(made["got"], made["expected"])


# ------------------------------------------------------------------- faults that only some shape, array or call shows


def spoiled(change, function=counts):
    """The function with a change to what it returns: change(out, x, w, options), in place."""

    def kernel(x, w, **options):
        out = function(x, w, **options)
        change(out, x, w, options)
        return out

    return kernel


def clipped(name, limit):
    """An option beyond a limit is taken for the limit."""

    def kernel(x, w, **options):
        options[name] = tuple(min(v, limit) for v in both(options[name]))
        return counts(x, w, **options)

    return kernel


def pixels(case):
    return int(np.prod(case.out_shape()[:3]))


def zeroed(place):
    """Nothing is written to some place of the output."""

    def change(out, x, w, options):
        out[place] = 0

    return spoiled(change)


def flat_zeroed(first):
    """Nothing is written from a pixel on: a counter that is too small, a loop that ends too early."""

    def change(out, x, w, options):
        out.reshape(-1, out.shape[3])[first:] = 0

    return spoiled(change)


def wrong_from(limit, of):
    """Counts are off by 2 where a number of the case reaches a limit."""

    def change(out, x, w, options):
        out[...] += 2 * (of(x, w) >= limit)

    return spoiled(change)


def remainder_lost(place, width, least=0):
    """A loop over whole vectors or tiles, beyond `least`, forgets what is left over."""

    def change(out, x, w, options):
        moved = np.moveaxis(out, place, 0)
        if len(moved) > least:
            moved[len(moved) - len(moved) % width :] = 0

    return spoiled(change)


def products(x, w):
    return w[..., 0].size


def channels(x, w):
    return w.shape[2]


def words_beyond(limit, function=counts):
    """The words of a tap beyond a limit are not read."""
    return lambda x, w, **o: function(x[..., : 64 * limit], w[:, :, : 64 * limit], **o)


def wrapped(places):
    """An index into the words of x that wraps around."""

    def kernel(x, w, **options):
        width = -(-x.shape[3] // 64)
        pixels = np.arange(np.prod(x.shape[:3])) * width % places // width
        return counts(x.reshape(-1, x.shape[3])[pixels].reshape(x.shape), w, **options)

    return kernel


def same_padding(x, w, *, stride, padding, **options):
    """With a stride, more padding on the far side, as TensorFlow has it."""
    (ph, pw), (sh, sw) = both(padding), both(stride)
    if (sh, sw) == (1, 1) or not ph or not pw or options["pad_value"]:
        return counts(x, w, stride=stride, padding=padding, **options)
    signs = np.pad(truth.signs(x), [(0, 0), (ph - 1, ph + 1), (pw - 1, pw + 1), (0, 0)])
    return conv2d(signs, truth.signs(w), stride=stride)


def summed_in(dtype):
    return lambda x, w, **o: counts(x, w, **o).astype(dtype).astype(np.float64)


SHAPE_FAULTS = {  # the fault, and which cases it is looked for in (all that could show it, and many that do not)
    "columns beyond 16 stay 0": (zeroed(np.s_[:, :, 16:]), lambda c: c.out_shape()[2] > 12),
    "columns beyond 32 stay 0": (zeroed(np.s_[:, :, 32:]), lambda c: c.out_shape()[2] > 24),
    "rows beyond 32 stay 0": (zeroed(np.s_[:, 32:]), lambda c: c.out_shape()[1] > 24),
    "rows beyond 255 stay 0": (zeroed(np.s_[:, 255:]), lambda c: c.out_shape()[1] > 200),
    "images beyond 5 stay 0": (zeroed(np.s_[5:]), lambda c: c.x_shape[0] > 4),
    "images beyond 255 stay 0": (zeroed(np.s_[255:]), lambda c: c.x_shape[0] > 200),
    "filters beyond 130 stay 0": (zeroed(np.s_[..., 130:]), lambda c: c.w_shape[3] > 100),
    "filters beyond 512 stay 0": (zeroed(np.s_[..., 512:]), lambda c: c.w_shape[3] > 500),
    "filters beyond 1,024 stay 0": (zeroed(np.s_[..., 1024:]), lambda c: c.w_shape[3] > 1000),
    "pixels beyond 4,096 stay 0": (flat_zeroed(4096), lambda c: pixels(c) > 3000),
    "pixels beyond 65,535 stay 0": (flat_zeroed(65_535), lambda c: pixels(c) > 60_000),
    "the last of an odd number of columns": (remainder_lost(2, 2), None),
    "columns left of 4": (remainder_lost(2, 4, 4), None),
    "columns left of 16, after the first 16": (remainder_lost(2, 16, 16), lambda c: c.out_shape()[2] > 15),
    "filters left of 8": (remainder_lost(3, 8, 8), lambda c: c.w_shape[3] > 7),
    "filters left of 64": (remainder_lost(3, 64, 64), lambda c: c.w_shape[3] > 60),
    "filters left of 256": (remainder_lost(3, 256, 256), lambda c: c.w_shape[3] > 200),
    "C above 700 without padding": (wrong_from(701, channels), lambda c: c.x_shape[3] > 600),
    "C from 256": (wrong_from(256, channels), lambda c: c.x_shape[3] > 200),
    "C from 1,024": (wrong_from(1024, channels), lambda c: c.x_shape[3] > 1000),
    "C above 4,095": (wrong_from(4096, channels), lambda c: c.x_shape[3] > 4000),
    "words beyond 4 of a tap": (words_beyond(4), lambda c: c.x_shape[3] > 250),
    "words beyond 31 of a tap": (words_beyond(31), lambda c: c.x_shape[3] > 1900),
    "more than 65,535 products": (wrong_from(65_536, products), lambda c: c.products() > 60_000),
    "kernels above 7": (wrong_from(8, lambda x, w: max(w.shape[:2])), lambda c: max(c.w_shape[:2]) > 6),
    "kernels above 10": (wrong_from(11, lambda x, w: max(w.shape[:2])), lambda c: max(c.w_shape[:2]) > 9),
    "strides above 3": (clipped("stride", 3), lambda c: max(both(c.stride)) > 2),
    "padding above 3": (clipped("padding", 3), lambda c: max(both(c.padding)) > 2),
    "padding on the far side with a stride": (same_padding, lambda c: c.stride == 2),
    "an index of 16 bits": (wrapped(2**16), lambda c: np.prod(c.x_shape[:3]) * -(-c.x_shape[3] // 64) > 60_000),
    "an index of 15 bits": (wrapped(2**15), lambda c: np.prod(c.x_shape[:3]) * -(-c.x_shape[3] // 64) > 30_000),
    "counts in int8": (counted_in(np.int8), lambda c: c.products() > 100),
    "counts in int16": (counted_in(np.int16), lambda c: c.products() > 30_000),
    "counts in float16": (summed_in(np.float16), lambda c: c.products() > 2000),
    "56 x 56 maps of 64 channels": (
        wrong_from(56, lambda x, w: x.shape[1] * (x.shape[1:] == (56, 56, 64))),
        lambda c: c.x_shape[1] > 50,
    ),
    "one input channel": (wrong_from(1, lambda x, w: x.shape[3] == 1), lambda c: c.x_shape[3] < 3),
}  # fmt: skip


@pytest.mark.parametrize("fault", SHAPE_FAULTS)
def test_check_xnor_conv_catches_what_only_some_shapes_show(fault):
    faulty, where = SHAPE_FAULTS[fault]
    with pytest.raises(AssertionError, match="index .*expected|expected shape"):
        check_xnor_conv(faulty, where=where)


def by_memory(x):
    """The values as they lie in memory, whatever the strides say."""
    order = np.argsort([-abs(stride) for stride in x.strides], kind="stable")
    back = tuple(slice(None, None, -1) if stride < 0 else slice(None) for stride in x.strides)
    return np.ascontiguousarray(x[back].transpose(order)).reshape(x.shape)


def takes(fits):
    """Reads the memory as it lies, unless the flags fit."""
    return lambda x, w, **o: counts(*(v if fits(v) else np.roll(v, 1, -1) for v in (x, w)), **o)


def wants_to_write(x, w, **options):
    x[...] = x  # ValueError: read-only
    return counts(x, w, **options)


def as_float32(x, w, **options):
    """Reads the memory of any type as float32."""
    half = [np.ascontiguousarray(v).view(np.float32)[..., : v.shape[-1]] if v.itemsize > 4 else v for v in (x, w)]
    return counts(*half, **options)


LAYOUT_FAULTS = {
    "strides ignored": lambda x, w, **o: counts(by_memory(x), w, **o),
    "strides of w ignored": lambda x, w, **o: counts(x, by_memory(w), **o),
    "the last axis taken for contiguous": takes(lambda v: abs(v.strides[-1]) == v.itemsize),
    "a part of a larger array": takes(lambda v: v.base is None or v.base.size <= v.size or v.strides[-1] != v.itemsize),
    "negative strides": takes(lambda v: min(v.strides) > 0),
    "Fortran's order": takes(lambda v: not v.flags.f_contiguous or v.flags.c_contiguous),
    "read-only": wants_to_write,
    "misaligned": takes(lambda v: v.flags.aligned),
}


@pytest.mark.parametrize("fault", LAYOUT_FAULTS)
def test_check_xnor_conv_catches_what_only_some_arrays_show(fault):
    with pytest.raises(AssertionError, match="arrays (cropped|stepped|reversed|transposed|Fortran|read-only|misal)"):
        check_xnor_conv(LAYOUT_FAULTS[fault], where=lambda case: case.layout != "contiguous" or case.size() < 50)


def flushed_in_half(x, w, **options):
    return counts(np.where(np.abs(x) < 6e-5, 0, x) if x.dtype == np.float16 else x, w, **options)


TYPE_FAULTS = {
    "float64 read as float32": (as_float32, np.float64),
    "float64 rounded to float32": (lambda x, w, **o: counts(x.astype("f"), w.astype("f"), **o), np.float64),
    "denormals of float16 lost": (flushed_in_half, np.float16),
}


@pytest.mark.parametrize("fault", TYPE_FAULTS)
def test_check_xnor_conv_catches_what_only_some_types_show(fault):
    faulty, dtype = TYPE_FAULTS[fault]
    with pytest.raises(AssertionError, match=np.dtype(dtype).name), np.errstate(over="ignore"):
        check_xnor_conv(faulty, dtype=(np.float32, dtype), level="quick")


class Racy:
    """Now and then one output misses a sum, as when two threads add to it; never in a single pixel."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def __call__(self, x, w, **options):
        out = counts(x, w, **options)
        if out.size > 8 and self.rng.random() < 0.01:
            out.flat[self.rng.integers(out.size)] += 2
        return out


@pytest.mark.parametrize("seed", range(6))
def test_a_race_is_found_with_repeat(seed):
    with pytest.raises(AssertionError, match="5 calls with the same arrays gave different results: index"):
        check_xnor_conv(Racy(seed), level="quick", repeat=5, where=lambda case: case.size() < 20_000)


def off_by_2(x, w, **options):
    return (counts(x, w, **options) - 2 * (w[..., 0].size == 34_300)) * truth.alpha(w)


def alpha_in_float16(x, w, **options):
    return counts(x, w, **options) * truth.alpha(w).astype(np.float16)


SCALE_FAULTS = {
    "off by 2 at 34,300 products": off_by_2,
    "alpha in float16": alpha_in_float16,
    "counts in float16": lambda x, w, **o: counts(x, w, **o).astype(np.float16) * truth.alpha(w),
    "the last weight left out of alpha": lambda x, w, **o: (
        counts(x, w, **o) * (truth.alpha(w) - np.abs(w[-1, -1, -1]) / w[..., 0].size)
    ),
}


@pytest.mark.parametrize("fault", SCALE_FAULTS)
def test_check_xnor_conv_catches_scales_that_are_nearly_right(fault):
    with pytest.raises(AssertionError, match="expected"):
        check_xnor_conv(SCALE_FAULTS[fault], scale=True, where=lambda case: case.products() > 2_000)


def matmul_spoiled(where):
    def kernel(a, b, n):
        out = xnor_matmul(a, b, n)
        where(out, n)
        return out

    return kernel


def _wrong(rows, columns, n_least=0):
    def change(out, n):
        if n >= n_least:
            out[rows, columns] += 2

    return matmul_spoiled(change)


BLOCK_FAULTS = {
    "rows beyond 10": _wrong(slice(10, None), slice(None)),
    "columns beyond 70": _wrong(slice(None), slice(70, None)),
    "rows beyond 128, n = 256": _wrong(slice(128, None), slice(63, None), 256),
    "columns beyond 128, n = 256": _wrong(slice(63, None), slice(128, None), 256),
    "columns beyond 1,024": _wrong(slice(None), slice(1024, None)),
    "n from 4,096": _wrong(slice(None), slice(None), 4096),
    "counts in uint16, signs aside": lambda a, b, n: (
        np.abs(xnor_matmul(a, b, n)).astype(np.uint16) * np.sign(xnor_matmul(a, b, n))
    ),
    "strides ignored": lambda a, b, n: xnor_matmul(by_memory(a), b, n),
}


@pytest.mark.parametrize("fault", BLOCK_FAULTS)
def test_check_xnor_matmul_catches_what_only_some_blocks_show(fault):
    with pytest.raises(AssertionError, match="expected"):
        check_xnor_matmul(BLOCK_FAULTS[fault], where=lambda case: case.size() > 100_000 or case.rows > 4)


PACKING_FAULTS = {
    "strides ignored": lambda x: pack(by_memory(x)),
    "read-only": lambda x: pack(x) if x.flags.writeable else pack(-x),
    "misaligned": lambda x: pack(x) if x.flags.aligned else pack(-x),
    "an index of 16 bits": lambda x: np.where(np.arange(-(-x.shape[-1] // 64)) < 2**16, pack(x), 0).astype(np.uint64),
    "rows beyond 65,535": lambda x: pack(x) if x[..., 0].size < 2**16 else pack(np.roll(x, 1, 0)),
    "C above 4,096": lambda x: pack(x) if x.shape[-1] <= 4096 else pack(-x),
}


@pytest.mark.parametrize("fault", PACKING_FAULTS)
def test_check_pack_catches_what_only_some_arrays_show(fault):
    with pytest.raises(AssertionError, match="expected"):
        check_pack(PACKING_FAULTS[fault], where=lambda case: case.size() > 4000 or case.layout != "contiguous")


def test_the_message_about_dx_shows_x():
    with pytest.raises(AssertionError, match=r"dx index \(.*\), x = -?1: expected -?0, got"):
        check_xnor_conv_backward(window_with_one)
