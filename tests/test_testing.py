"""The kit itself: good functions pass, and every planted fault is caught, with a message that says where.

Also the float64 reference's own passes, which the rest of the tests lean on: against central differences, and
against numbers worked out by hand. Nothing here needs a compiled kernel.
"""

import numpy as np
import pytest
from conftest import assert_close, random_arrays

from hbn_ref import reference
from hbn_ref.testing import check_pack, check_vjp, check_xnor_conv, conv_cases, pack_cases


def counts(x, w, **options):
    """The reference's unscaled counts: a good function for check_xnor_conv."""
    return reference.xnor_conv2d_forward(x, w, scale=False, **options)


# -------------------------------------------------------------------------------------------- check_pack


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_check_pack_accepts_the_reference(dtype):
    check_pack(reference.pack, dtype=dtype)


def test_pack_cases_reach_every_limit():
    arrays = [x for _, x in pack_cases()]
    assert {1, 63, 64, 65, 127, 128, 129, 200} <= {x.shape[-1] for x in arrays}
    assert {x.ndim for x in arrays} == {1, 2, 3, 4}
    values = np.concatenate([x.ravel() for x in arrays])
    assert np.isinf(values).any() and not np.isnan(values).any()
    assert (np.signbit(values) & (values == 0)).any()
    assert ((values != 0) & (np.abs(values) < np.finfo(np.float32).tiny)).any()


def reversed_bits(words):
    """Bit 63 first instead of bit 0 first."""
    return sum(((words >> np.uint64(b)) & np.uint64(1)) << np.uint64(63 - b) for b in range(64))


def ones_in_the_tail(words, channels):
    """Unused bits set instead of cleared."""
    words = words.copy()
    if channels % 64:
        words[..., -1] |= np.uint64((1 << 64) - (1 << (channels % 64)))
    return words


def overwrite_input(x):
    words = reference.pack(x)
    x[...] = 0
    return words


PACK_FAULTS = {
    "swapped bit order": (lambda x: reversed_bits(reference.pack(x)), "bit 0 .channel 0"),
    "swapped word order": (lambda x: reference.pack(x)[..., ::-1], "first wrong bit"),
    "tail bits set": (lambda x: ones_in_the_tail(reference.pack(x), x.shape[-1]), "an unused bit"),
    "inverted": (lambda x: reference.pack(-np.where(x == 0, 1, x)), "expected 0x"),
    "sign(0) = -1": (lambda x: reference.pack(np.where(x > 0, 1.0, -1.0)), "x = np.float32|x = -?0.0"),
    "-0.0 taken for negative": (lambda x: reference.pack(np.where(np.signbit(x), -1.0, 1.0)), "-0.0"),
    "denormals flushed to zero": (
        lambda x: reference.pack(np.where(np.abs(x) < 2e-38, 0.0, x)),
        "denormals",
    ),
    "infinities lost": (lambda x: reference.pack(np.where(np.isinf(x), 0.0, x)), "-inf"),
    "wrong dtype": (lambda x: reference.pack(x).astype(np.int64), "expected dtype uint64, got int64"),
    "a word too many": (lambda x: np.pad(reference.pack(x), [(0, 0)] * (x.ndim - 1) + [(0, 1)]), "shape"),
    "input overwritten": (overwrite_input, "changed its input"),
    "raises": (lambda x: x.no_such_attribute, "raised AttributeError"),
}


@pytest.mark.parametrize("fault", PACK_FAULTS)
def test_check_pack_catches(fault):
    faulty, message = PACK_FAULTS[fault]
    with pytest.raises(AssertionError, match=message):
        check_pack(faulty)


# --------------------------------------------------------------------------------------- check_xnor_conv


@pytest.mark.parametrize("pad_values", [(0, 1), (0,), (1,), (-1,)])
def test_check_xnor_conv_accepts_the_reference(pad_values):
    check_xnor_conv(counts, pad_values=pad_values)


def test_check_xnor_conv_accepts_integer_counts():
    check_xnor_conv(lambda x, w, **options: counts(x, w, **options).astype(np.int32), dtype=np.float64)


def test_conv_cases_reach_every_limit_smallest_first():
    cases = conv_cases()
    sizes = [case.macs() for case in cases]
    assert sizes == sorted(sizes)
    assert {2, 3, 31, 63, 64, 65, 96, 128, 200} <= {case.x_shape[3] for case in cases}
    assert {(k, k) for k in range(1, 8)} < {case.w_shape[:2] for case in cases}
    assert {1, 2, 3, (1, 2)} <= {case.stride for case in cases}
    assert {0, 1, 2, 3} <= {case.padding for case in cases}
    assert {0, 1} == {case.pad_value for case in cases}
    assert {1, 2, 3, 4, 5} == {case.x_shape[0] for case in cases}
    assert {0, 1} == {case.x_shape[1] % 2 for case in cases}
    assert any(case.x_shape[1] != case.x_shape[2] for case in cases)
    largest = [np.abs(counts(*case.arrays(), stride=1)).max() for case in cases if case.x_shape[3] == 700]
    assert min(largest) > np.iinfo(np.int16).max


def both(value):
    return reference.pair(value)


def shifted_border(x, w, *, stride, padding, pad_value):
    """Off by one: the image sits one pixel too far up and left in its border."""
    padded = reference.pad_border(np.where(x >= 0, 1.0, -1.0), padding, pad_value)
    padded = np.roll(padded, (-1, -1), (1, 2)) if min(both(padding)) else padded
    return reference.conv2d_forward(padded, reference.sign(w), stride=stride)


def extra_row(x, w, *, stride, padding, pad_value):
    """Off by one: a row of outputs for a kernel that only half fits."""
    out = counts(x, w, stride=stride, padding=padding, pad_value=pad_value)
    return np.concatenate([out, out[:, -1:]], axis=1)


def tail_counted(x, w, *, stride, padding, pad_value):
    """The unused bits of the last word differ between x and w and are counted at every tap."""
    out = counts(x, w, stride=stride, padding=padding, pad_value=pad_value)
    return out - 2.0 * (-x.shape[3] % 64) * w.shape[0] * w.shape[1]


def swapped_stride(x, w, *, stride, padding, pad_value):
    return counts(x, w, stride=both(stride)[::-1], padding=padding, pad_value=pad_value)


def swapped_padding(x, w, *, stride, padding, pad_value):
    return counts(x, w, stride=stride, padding=both(padding)[::-1], pad_value=pad_value)


def bits_of_x_reversed(x, w, **options):
    """x packed with bit 63 first, w with bit 0 first."""
    blocks = [x[..., c : c + 64][..., ::-1] for c in range(0, x.shape[3], 64)]
    return counts(np.concatenate(blocks, axis=3), w, **options)


def border_as(value):
    """A kernel that fills the border with `value` whatever it was asked."""
    return lambda x, w, *, stride, padding, pad_value: counts(x, w, stride=stride, padding=padding, pad_value=value)


def counted_in(dtype):
    """Accumulators too small for the counts wrap around."""
    return lambda x, w, **options: counts(x, w, **options).astype(np.int64).astype(dtype)


CONV_FAULTS = {
    "border of zeros filled with +1": (border_as(1), "pad_value=0.*expected"),
    "border of zeros filled with -1": (border_as(-1), "pad_value=0.*expected"),
    "border of ones left empty": (border_as(0), "pad_value=1.*expected"),
    "tail bits counted": (tail_counted, "index .0, 0, 0, 0.: expected"),
    "bit order of x swapped": (bits_of_x_reversed, "expected"),
    "stride axes swapped": (swapped_stride, r"stride=\((1, 2|2, 1)\)"),
    "padding axes swapped": (swapped_padding, r"padding=\((1, 0|0, 2)\)"),
    "border off by one": (shifted_border, r"padding=(1|2|3|\()"),
    "a row too many": (extra_row, "expected shape"),
    "sign(0) = -1 in x": (lambda x, w, **o: counts(np.where(x > 0, 1.0, -1.0), w, **o), "signs zeros"),
    "sign(0) = -1 in w": (lambda x, w, **o: counts(x, np.where(w > 0, 1.0, -1.0), **o), "signs zeros"),
    "kernel flipped": (lambda x, w, **o: counts(x, w[::-1, ::-1], **o), "expected"),
    "first image used for all": (lambda x, w, **o: counts(x[:1].repeat(len(x), 0), w, **o), "index .1"),
    "counts in int8": (counted_in(np.int8), "expected -?[0-9]{3}"),
    "counts in int16": (counted_in(np.int16), "expected -?34300, got -?31236"),
    "counts in uint16": (counted_in(np.uint16), "expected -"),
    "popcount instead of counts": (
        lambda x, w, **o: (counts(x, w, **o) + w[..., 0].size) / 2,
        "expected",
    ),
    "values instead of signs": (reference.conv2d_forward, "expected"),
    "NaN": (lambda x, w, **o: counts(x, w, **o) * np.nan, "got nan"),
}


@pytest.mark.parametrize("fault", CONV_FAULTS)
def test_check_xnor_conv_catches(fault):
    faulty, message = CONV_FAULTS[fault]
    with pytest.raises(AssertionError, match=message):
        check_xnor_conv(faulty)


def test_check_xnor_conv_names_the_whole_case():
    def wrong_in_one_place(x, w, **options):
        out = counts(x, w, **options)
        out[-1, -1, 0, -1] += 2
        return out

    with pytest.raises(AssertionError) as caught:
        check_xnor_conv(wrong_in_one_place)
    first = conv_cases()[0]
    x, w = first.arrays()
    expected = counts(x, w, stride=first.stride, padding=first.padding, pad_value=first.pad_value)
    index = (len(expected) - 1, expected.shape[1] - 1, 0, expected.shape[3] - 1)
    message = str(caught.value)
    assert f"x {first.x_shape}, w {first.w_shape}" in message
    for name in ("stride", "padding", "pad_value"):
        assert f"{name}={getattr(first, name)}" in message
    assert f"index {index}: expected {int(expected[index])}, got {expected[index] + 2}" in message
    assert f"1 of {expected.size} values differ" in message


def test_check_xnor_conv_stops_after_max_cases():
    seen = []

    def remember(x, w, **options):
        seen.append(x.shape)
        return counts(x, w, **options)

    check_xnor_conv(remember, max_cases=7)
    assert seen == [case.x_shape for case in conv_cases()[:7]]


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
