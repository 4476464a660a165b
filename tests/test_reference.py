"""The float64 reference's own passes, which the rest of the tests lean on: against central differences, and against
numbers worked out by hand. Nothing here needs a compiled kernel.
"""

import numpy as np
import pytest
from conftest import assert_close, random_arrays

from hbn_ref import reference
from hbn_ref.testing import check_vjp

both = reference.pair


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
