"""Chapter 3, conv: exact counts of the packed convolution, backward passes, packed weights, cache, errors.

Sections, in the order in which a bug is best looked for: counts, scale, real and binary-weight convolution,
backward passes, packed weights, cache, errors.
"""

import itertools

import numpy as np
import pytest
from conftest import (
    BINARY_CHANNELS,
    JIT,
    SURROGATES,
    arrays_in,
    assert_close,
    by_each_kernel,
    convolutions,
    random_arrays,
    table_case,
    thin,
    with_zeros,
)
from hypothesis import given
from hypothesis import strategies as st

from hbn_ref import conv, engine, reference
from hbn_ref.testing import check_vjp, check_xnor_conv, layer_cases

TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12}  # relative to the largest value of the result
# Strided, padded and not square: x, w, stride, padding.
SHAPES = [
    ((1, 1, 1, 2), (1, 1, 2, 1), 1, 0),
    ((2, 5, 5, 3), (3, 3, 3, 4), 1, 1),
    ((1, 6, 4, 5), (3, 2, 5, 2), 2, 1),
    ((2, 7, 5, 3), (2, 3, 3, 3), (1, 2), (2, 0)),
    ((1, 4, 8, 2), (1, 4, 2, 3), (3, 2), (0, 3)),
    ((3, 8, 7, 4), (5, 5, 4, 2), 3, 2),
    ((1, 5, 5, 65), (3, 3, 65, 3), 2, 0),
    ((2, 4, 3, 3), (4, 3, 3, 5), 1, 0),  # one output pixel sees the whole map
    ((2, 3, 3, 4), (3, 3, 4, 5), 3, 1),  # one output pixel sees a part of the map and the border
    ((1, 1, 2, 3), (5, 5, 3, 2), 2, 3),  # the kernel is larger than the map
]
TINY = [SHAPES[0], ((2, 3, 4, 2), (2, 3, 2, 2), (1, 2), (1, 0)), ((1, 4, 3, 3), (3, 2, 3, 1), 2, 1)]


def counts(x, w, **options):
    """The integers of the packed convolution, with nothing kept."""
    return conv.xnor_conv2d_forward(x, w, scale=False, need_cache=False, **options)[0]


# ------------------------------------------------------------- counts: packed = float convolution of signs


def table(channels, kernel):
    """The float32 cases of the table for these channels and this kernel: every stride, padding and border."""
    grid = itertools.product((1, 2, 3), (0, 1, 2, 3), (0, 1))
    for k, (stride, padding, pad_value) in enumerate(thin(grid, 3)):
        number = 31 * channels + 7 * kernel + k
        x, w, options = table_case(number, channels, kernel, stride, padding, pad_value)
        yield x.astype(np.float32), w.astype(np.float32), options


@pytest.mark.parametrize("kernel", range(1, 8))
@pytest.mark.parametrize("channels", BINARY_CHANNELS)
def test_packed_convolution_counts_exactly(channels, kernel):
    for x, w, options in table(channels, kernel):
        expected = reference.conv2d_forward(reference.sign(x), reference.sign(w), **options)
        for name, got in by_each_kernel(counts, x, w, **options).items():
            assert got.dtype == np.float32
            assert np.array_equal(got, expected), f"{name}: x {x.shape}, w {w.shape}, {options}"


@pytest.mark.skipif(not JIT, reason="without the JIT there are only the plain kernels")
@pytest.mark.parametrize("kernel", range(1, 8))
@pytest.mark.parametrize("channels", BINARY_CHANNELS)
def test_plain_and_vector_kernels_give_the_same_bits_with_alpha_too(channels, kernel):
    for x, w, options in table(channels, kernel):
        got = by_each_kernel(conv.xnor_conv2d_forward, x, w, need_cache=False, **options)
        plain, vector = got["plain"][0], got["vector"][0]
        assert plain.tobytes() == vector.tobytes(), f"x {x.shape}, w {w.shape}, {options}"


FEW = {"where": lambda case: case.size() < 3_000, "max_cases": 60}  # without the JIT


def counts_by_each_kernel(x, w, **options):
    """What all kernels give, the same bits."""
    first, *others = by_each_kernel(counts, x, w, **options).values()
    assert all(first.tobytes() == other.tobytes() for other in others), "plain and vector differ"
    return first


def test_packed_convolution_passes_the_kit():
    check_xnor_conv(counts_by_each_kernel, **({} if JIT else FEW))


def test_packed_convolution_of_float64_passes_the_kit():
    check_xnor_conv(counts, dtype=np.float64, **({"level": "quick"} if JIT else FEW))


@pytest.mark.skipif(not JIT, reason="whole layers are for compiled kernels")
@pytest.mark.parametrize("network", ["resnet18", "squeezenet"])
def test_packed_convolution_passes_the_kit_on_the_layers_of_a_network(network):
    few = [case for case in layer_cases(network) if case.macs() < 60e6][::2]
    check_xnor_conv(counts_by_each_kernel, cases=few)


@given(convolutions())
def test_any_packed_convolution_counts_exactly(case):
    x, w, options = case
    expected = reference.xnor_conv2d_forward(x, w, scale=False, **options)
    for name, got in by_each_kernel(counts, x, w, **options).items():
        assert got.dtype == x.dtype
        assert np.array_equal(got, expected), name


@pytest.mark.parametrize("c_out", thin([1, 2, 7, 8, 9, 31, 64, 65, 127, 128, 129, 200, 256, 300], 4))
def test_any_number_of_filters_counts_exactly(c_out):
    x, w = random_arrays(c_out, (2, 4, 3, 65), (3, 3, 65, c_out), dtype=np.float32)
    expected = reference.xnor_conv2d_forward(x, w, padding=1, scale=False)
    for name, got in by_each_kernel(counts, x, w, padding=1).items():
        assert np.array_equal(got, expected), name


def test_an_image_counts_the_same_alone_and_in_a_batch():
    x, w = random_arrays(0, (5, 6, 7, 96), (3, 3, 96, 4), dtype=np.float32)
    together = counts(x, w, padding=1, stride=2)
    for n in range(5):
        assert np.array_equal(counts(x[n : n + 1], w, padding=1, stride=2)[0], together[n])


def test_views_in_any_memory_order_count_the_same():
    x, w = random_arrays(0, (4, 6, 8, 130), (3, 3, 65, 6), dtype=np.float32)
    for view in (x[::2, ::-1, :, ::2], np.asfortranarray(x[..., 30:95]), x[..., :65].transpose(0, 2, 1, 3)):
        expected = reference.xnor_conv2d_forward(view, w[:, :, ::-1], scale=False, padding=1)
        assert np.array_equal(counts(view, w[:, :, ::-1], padding=1), expected)


def test_stride_and_padding_are_height_then_width():
    x, w = random_arrays(0, (1, 9, 9, 3), (3, 3, 3, 2), dtype=np.float32)
    for forward in (conv.conv2d_forward, conv.binary_weight_conv2d_forward, conv.xnor_conv2d_forward):
        assert forward(x, w, stride=(1, 2), padding=(3, 1))[0].shape == (1, 13, 5, 2)
        assert forward(x, w, stride=[1, np.int64(2)], padding=np.array([3, 1]).tolist())[0].shape == (1, 13, 5, 2)


# --------------------------------------------------------------------------------------------- scale


@pytest.mark.parametrize("pad_value", [-1, 0, 1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shapes", SHAPES)
def test_scaled_output_is_alpha_times_counts(shapes, dtype, pad_value):
    x_shape, w_shape, stride, padding = shapes
    x, w = random_arrays(0, x_shape, w_shape, dtype=dtype)
    options = {"stride": stride, "padding": padding, "pad_value": pad_value}
    out, _ = conv.xnor_conv2d_forward(x, w, **options)
    assert out.dtype == dtype
    assert_close(out, reference.xnor_conv2d_forward(x, w, **options), TOLERANCE[dtype])
    assert_close(out, reference.alpha(w) * counts(x, w, **options), TOLERANCE[dtype])


def test_scale_and_a_border_that_adds_nothing_are_the_defaults():
    x, w = random_arrays(0, (1, 4, 4, 3), (3, 3, 3, 2))
    out, _ = conv.xnor_conv2d_forward(x, w, padding=1)
    assert_close(out, reference.xnor_conv2d_forward(x, w, padding=1, pad_value=0, scale=True), 1e-12)


# ----------------------------------------------------------------- real and binary-weight convolution

FORWARD = {
    "real": (conv.conv2d_forward, reference.conv2d_forward),
    "binary weight": (conv.binary_weight_conv2d_forward, reference.binary_weight_conv2d_forward),
}
BACKWARD = {
    "real": (conv.conv2d_backward, reference.conv2d_backward),
    "binary weight": (conv.binary_weight_conv2d_backward, reference.binary_weight_conv2d_backward),
}


def assert_equals_reference(kind, x, w, options, tolerance):
    """Forward and both gradients against the float64 loops."""
    forward, slow_forward = FORWARD[kind]
    backward, slow_backward = BACKWARD[kind]
    out, cache = forward(x, w, **options)
    assert_close(out, slow_forward(x, w, **options), tolerance)
    dout = random_arrays(1, out.shape, dtype=x.dtype)
    dx, dw = backward(dout, cache)
    expected_dx, expected_dw = slow_backward(dout, x, w, **options)
    assert out.dtype == dx.dtype == dw.dtype == x.dtype
    assert_close(dx, expected_dx, tolerance)
    assert_close(dw, expected_dw, tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("kind", FORWARD)
def test_float_convolution_equals_the_reference(kind, shapes, dtype):
    x_shape, w_shape, stride, padding = shapes
    x, w = random_arrays(0, x_shape, w_shape, dtype=dtype)
    assert_equals_reference(kind, x, w, {"stride": stride, "padding": padding}, TOLERANCE[dtype])


@pytest.mark.parametrize("kernel", range(1, 8))
@pytest.mark.parametrize("kind", FORWARD)
def test_float_convolution_equals_the_reference_for_every_stride_and_padding(kind, kernel):
    for k, (stride, padding) in enumerate(thin(itertools.product((1, 2, 3), (0, 1, 2, 3)), 4)):
        x, w, options = table_case(11 * kernel + k, 2 + k % 4, kernel, stride, padding, 0)
        del options["pad_value"]
        assert_equals_reference(kind, x.astype(np.float32), w.astype(np.float32), options, TOLERANCE[np.float32])


def real_passes(x, w, options):
    """(out, dx, dw) of the real convolution, with small whole numbers made of out for dout."""
    out, cache = conv.conv2d_forward(x, w, **options)
    return (out, *conv.conv2d_backward(out % 16, cache))


@pytest.mark.parametrize("kernel", range(1, 8))
def test_real_convolution_of_whole_numbers_is_exact(kernel):
    """Sums of small whole numbers are not rounded: no order of the terms excuses a difference."""
    for k, (stride, padding) in enumerate(thin(itertools.product((1, 2, 3), (0, 1, 2, 3)), 4)):
        channels = (1, 3, 33, 64)[k % 4 if JIT else k % 2]  # 64 channels of a 3 x 3 kernel are 576 products
        x, w, options = table_case(13 * kernel + k, channels, kernel, stride, padding, 0)
        del options["pad_value"]
        x, w = np.round(3 * x).astype(np.float32), np.round(3 * w).astype(np.float32)
        out = reference.conv2d_forward(x, w, **options)
        expected = (out, *reference.conv2d_backward(out % 16, x, w, **options))
        for name, got in by_each_kernel(real_passes, x, w, options).items():
            for what, a, b in zip(("out", "dx", "dw"), got, expected, strict=True):
                assert a.dtype == np.float32
                assert np.array_equal(a, b), f"{what}, {name}: x {x.shape}, w {w.shape}, {options}"


@pytest.mark.parametrize("kernel", range(1, 6))
def test_float_convolution_equals_the_reference_for_every_small_map(kernel):
    """Every map that is smaller than the kernel, equal to it or a little larger: corners meet here."""
    grid = itertools.product((1, 2, 3), (0, 1, 2, 3), range(1, 7), range(2))
    fitting = [case for case in grid if case[2] + 2 * case[1] >= kernel]
    for stride, padding, height, more in thin(fitting, 40):
        x, w = random_arrays(height, (1, height, height + more, 2), (kernel, kernel, 2, 2))
        assert_equals_reference("real", x, w, {"stride": stride, "padding": padding}, TOLERANCE[np.float64])


@pytest.mark.parametrize("c_out", thin([1, 7, 8, 16, 33, 64, 65, 96, 130], 3))
def test_real_convolution_of_one_channel_takes_any_number_of_filters(c_out):
    x, w = random_arrays(0, (2, 6, 5, 1), (3, 3, 1, c_out), dtype=np.float32)
    assert_equals_reference("real", x, w, {"stride": 1, "padding": 1}, TOLERANCE[np.float32])


@pytest.mark.skipif(not JIT, reason="thousands of values: only with compiled kernels")
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", FORWARD)
def test_float_convolution_of_layer_size_equals_the_reference(kind, stride):
    x, w = random_arrays(0, (4, 14, 13, 64), (3, 3, 64, 96), dtype=np.float32)
    assert_equals_reference(kind, x, w, {"stride": stride, "padding": 1}, TOLERANCE[np.float32])


# --------------------------------------------------------------------------------------- backward passes


@pytest.mark.parametrize("shapes", SHAPES + TINY[1:])
def test_real_backward_against_central_differences(shapes):
    x_shape, w_shape, stride, padding = shapes
    check_vjp(
        lambda x, w: conv.conv2d_forward(x, w, stride=stride, padding=padding),
        conv.conv2d_backward,
        random_arrays(0, x_shape, w_shape),
        elementwise=shapes in TINY,
    )


@pytest.mark.parametrize("shapes", SHAPES + TINY[1:])
def test_binary_weight_backward_against_central_differences(shapes):
    """dx: the pass itself, which is smooth in x. dw = dL/dW~: the real convolution with W~ for w."""
    x_shape, w_shape, stride, padding = shapes
    x, w = random_arrays(0, x_shape, w_shape)
    elementwise = shapes in TINY

    def forward(x):
        return conv.binary_weight_conv2d_forward(x, w, stride=stride, padding=padding)

    check_vjp(
        forward,
        lambda dout, cache: conv.binary_weight_conv2d_backward(dout, cache)[0],
        (x,),
        elementwise=elementwise,
    )
    check_vjp(
        lambda scaled: reference.conv2d_forward(x, scaled, stride=stride, padding=padding),
        lambda dout, _: conv.binary_weight_conv2d_backward(dout, forward(x)[1])[1],
        (reference.binary_weight(w),),
        elementwise=elementwise,
    )


def xnor_passes(x, w, estimator, options, scale=True):
    """(surrogate(x) -> out, backward(dout) -> (dx, dw), the weights W~ in effect)."""
    weights = reference.binary_weight(w) if scale else reference.sign(w)
    cache = conv.xnor_conv2d_forward(x, w, estimator=estimator, scale=scale, **options)[1]
    return (
        lambda x: reference.conv2d_forward(SURROGATES[estimator](x), weights, **options),
        lambda dout: conv.xnor_conv2d_backward(dout, cache),
        weights,
    )


@pytest.mark.parametrize("estimator", SURROGATES)
@pytest.mark.parametrize("pad_value", [0, 1])
@pytest.mark.parametrize("shapes", SHAPES + TINY[1:])
def test_xnor_dx_is_the_derivative_of_the_surrogate(shapes, pad_value, estimator):
    """dx: the convolution of the estimator's surrogate of sign (for the STE, clip), same W~ and border."""
    x_shape, w_shape, stride, padding = shapes
    x, w = random_arrays(0, x_shape, w_shape)
    options = {"stride": stride, "padding": padding, "pad_value": pad_value}
    surrogate, backward, _ = xnor_passes(x, w, estimator, options)
    check_vjp(surrogate, lambda dout, _: backward(dout)[0], (x,), elementwise=shapes in TINY)


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("pad_value", [-1, 0, 1])
@pytest.mark.parametrize("shapes", SHAPES + TINY[1:])
def test_xnor_dw_is_the_derivative_with_respect_to_the_scaled_weights(shapes, pad_value, scale):
    """dw = dL/dW~: the convolution of sign(x), in its border of pad_value, is linear in W~."""
    x_shape, w_shape, stride, padding = shapes
    x, w = random_arrays(0, x_shape, w_shape)
    options = {"stride": stride, "padding": padding, "pad_value": pad_value}
    _, backward, weights = xnor_passes(x, w, "ste", options, scale)
    check_vjp(
        lambda scaled: reference.conv2d_forward(reference.sign(x), scaled, **options),
        lambda dout, _: backward(dout)[1],
        (weights,),
        elementwise=shapes in TINY,
    )


def assert_xnor_backward_equals_reference(x, w, options, estimator, scale, tolerance):
    out, cache = conv.xnor_conv2d_forward(x, w, estimator=estimator, scale=scale, **options)
    dout = random_arrays(1, out.shape, dtype=x.dtype)
    dx, dw = conv.xnor_conv2d_backward(dout, cache)
    slow = reference.xnor_conv2d_backward(dout, x, w, estimator=estimator, scale=scale, **options)
    assert dx.dtype == dw.dtype == x.dtype
    assert_close(dx, slow[0], tolerance)
    assert_close(dw, slow[1], tolerance)


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("estimator", SURROGATES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shapes", SHAPES)
def test_xnor_backward_equals_the_reference(shapes, dtype, estimator, scale):
    x_shape, w_shape, stride, padding = shapes
    x, w = random_arrays(0, x_shape, w_shape, dtype=dtype)
    for pad_value in (-1, 0, 1):
        options = {"stride": stride, "padding": padding, "pad_value": pad_value}
        tolerance = TOLERANCE[dtype]
        assert_xnor_backward_equals_reference(with_zeros(x), w, options, estimator, scale, tolerance)


@pytest.mark.parametrize("channels", thin(BINARY_CHANNELS, 3))
@pytest.mark.parametrize("kernel", thin([1, 3, 4, 7], 2))
def test_xnor_backward_equals_the_reference_around_the_word_limits(channels, kernel):
    for k, (stride, padding, pad_value) in enumerate(thin(itertools.product((1, 2, 3), (0, 2), (0, 1)), 2)):
        x, w, options = table_case(channels + k, channels, kernel, stride, padding, pad_value)
        x, w = x.astype(np.float32), w.astype(np.float32)
        assert_xnor_backward_equals_reference(x, w, options, "ste", True, TOLERANCE[np.float32])


@given(convolutions(), st.sampled_from(sorted(SURROGATES)), st.booleans())
def test_any_xnor_backward_equals_the_reference(case, estimator, scale):
    x, w, options = case
    assert_xnor_backward_equals_reference(x, w, options, estimator, scale, TOLERANCE[x.dtype.type])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ste_lets_nothing_through_at_one_and_beyond(dtype):
    x = np.array([-2, -1, -0.5, -0.0, 0, 0.5, 1, 2], dtype).reshape(1, 1, 4, 2)
    w = np.ones((1, 1, 2, 1), dtype)
    _, cache = conv.xnor_conv2d_forward(x, w)
    dx, _ = conv.xnor_conv2d_backward(np.ones((1, 1, 4, 1), dtype), cache)
    assert dx.ravel().tolist() == [0, 0, 1, 1, 1, 1, 0, 0]


PASSES = {
    "real": (conv.conv2d_forward, conv.conv2d_backward),
    "binary weight": (conv.binary_weight_conv2d_forward, conv.binary_weight_conv2d_backward),
    "xnor": (conv.xnor_conv2d_forward, conv.xnor_conv2d_backward),
}


@pytest.mark.parametrize("kind", PASSES)
def test_need_dx_false_leaves_dx_out_and_dw_as_it_is(kind):
    forward, backward = PASSES[kind]
    x, w = random_arrays(0, (2, 5, 4, 3), (3, 3, 3, 2), dtype=np.float32)
    out, cache = forward(x, w, padding=1)
    dx, dw = backward(out, cache, need_dx=False)
    assert dx is None
    assert np.array_equal(dw, backward(out, cache)[1])


@pytest.mark.parametrize("kind", PASSES)
def test_backward_can_be_repeated_and_changes_nothing(kind):
    forward, backward = PASSES[kind]
    x, w = random_arrays(0, (2, 5, 4, 3), (3, 3, 3, 2), dtype=np.float32)
    before = x.copy(), w.copy()
    out, cache = forward(x, w, padding=1)
    dout = random_arrays(1, out.shape, dtype=np.float32)
    kept = dout.copy()
    first, second = backward(dout, cache), backward(dout, cache)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert np.array_equal(x, before[0]) and np.array_equal(w, before[1]) and np.array_equal(dout, kept)


@pytest.mark.skipif(not JIT, reason="threads serve compiled kernels only")
@pytest.mark.parametrize("kind", PASSES)
def test_no_bit_depends_on_the_number_of_threads(kind):
    forward, backward = PASSES[kind]
    x, w = random_arrays(0, (5, 15, 14, 64), (3, 3, 64, 70), dtype=np.float32)
    results, before = [], engine.get_num_threads()
    try:
        for threads in (1, 2, 5):
            engine.set_num_threads(threads)
            out, cache = forward(x, w, padding=1)
            results.append((out, *backward(out, cache)))
    finally:
        engine.set_num_threads(before)
    for result in results[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(result, results[0], strict=True))


@pytest.mark.parametrize("kind", PASSES)
def test_backward_takes_a_dout_in_any_memory_order(kind):
    forward, backward = PASSES[kind]
    x, w = random_arrays(0, (2, 5, 5, 3), (3, 3, 3, 2), dtype=np.float32)
    out, cache = forward(x, w, padding=1)
    dout = random_arrays(1, out.shape, dtype=np.float32).transpose(0, 2, 1, 3)
    got, expected = backward(dout, cache), backward(np.ascontiguousarray(dout), cache)
    assert all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True))


# ---------------------------------------------------------------------------------------- packed weights


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("pad_value", [-1, 0, 1])
@pytest.mark.parametrize("shapes", SHAPES)
def test_packed_weights_in_the_place_of_w_give_identical_results(shapes, pad_value, scale):
    x_shape, w_shape, stride, padding = shapes
    x, w = random_arrays(0, x_shape, w_shape, dtype=np.float32)
    options = {"stride": stride, "padding": padding, "pad_value": pad_value, "scale": scale}
    packed = conv.pack_weights(w, pad_value=pad_value)
    out, cache = conv.xnor_conv2d_forward(x, w, **options)
    out_packed, cache_packed = conv.xnor_conv2d_forward(x, packed, **options)
    assert np.array_equal(out, out_packed)
    plain, by_packed = conv.xnor_conv2d_backward(out, cache), conv.xnor_conv2d_backward(out, cache_packed)
    assert np.array_equal(plain[0], by_packed[0])
    assert np.array_equal(plain[1], by_packed[1])


@pytest.mark.parametrize("shapes", SHAPES)
def test_packed_weights_serve_the_binary_weight_convolution_too(shapes):
    x_shape, w_shape, stride, padding = shapes
    x, w = random_arrays(0, x_shape, w_shape, dtype=np.float32)
    options = {"stride": stride, "padding": padding}
    out, cache = conv.binary_weight_conv2d_forward(x, w, **options)
    out_packed, cache_packed = conv.binary_weight_conv2d_forward(x, conv.pack_weights(w), **options)
    assert np.array_equal(out, out_packed)
    plain = conv.binary_weight_conv2d_backward(out, cache)
    by_packed = conv.binary_weight_conv2d_backward(out, cache_packed)
    assert all(np.array_equal(a, b) for a, b in zip(plain, by_packed, strict=True))


def test_packed_weights_do_not_follow_later_changes_of_w():
    x, w = random_arrays(0, (1, 4, 4, 3), (3, 3, 3, 2), dtype=np.float32)
    before = counts(x, w)
    packed = conv.pack_weights(w)
    w *= -1
    assert np.array_equal(counts(x, packed), before)


@pytest.mark.parametrize(("packed_for", "used_with"), [(0, 1), (1, 0), (0, -1), (-1, 1)])
def test_packed_weights_for_another_border_are_refused(packed_for, used_with):
    x, w = random_arrays(0, (1, 4, 4, 3), (3, 3, 3, 2), dtype=np.float32)
    packed = conv.pack_weights(w, pad_value=packed_for)
    with pytest.raises(ValueError, match=r"\bpad_value\b"):
        conv.xnor_conv2d_forward(x, packed, padding=1, pad_value=used_with)


def test_real_inputs_refuse_weights_packed_for_a_border_of_signs():
    x, w = random_arrays(0, (1, 4, 4, 3), (3, 3, 3, 2), dtype=np.float32)
    with pytest.raises(ValueError, match="^w: packed for pad value 1"):
        conv.binary_weight_conv2d_forward(x, conv.pack_weights(w, pad_value=1), padding=1)


def test_packed_weights_with_other_channels_are_refused():
    x, w = random_arrays(0, (1, 4, 4, 5), (3, 3, 3, 2), dtype=np.float32)
    with pytest.raises(ValueError, match=r"\b(x|w)\b"):
        conv.xnor_conv2d_forward(x, conv.pack_weights(w), padding=1)


# ------------------------------------------------------------------------------------------------- cache


@pytest.mark.parametrize("kind", PASSES)
def test_need_cache_false_keeps_nothing_and_changes_nothing(kind):
    x, w = random_arrays(0, (2, 5, 4, 3), (3, 3, 3, 2), dtype=np.float32)
    out, cache = PASSES[kind][0](x, w, padding=1, need_cache=False)
    assert cache is None
    assert np.array_equal(out, PASSES[kind][0](x, w, padding=1)[0])


def bytes_kept(cache, w):
    """Bytes that grow with the activations: arrays with as many numbers as w are the weights."""
    arrays = {id(array): array for array in arrays_in(cache, skip=conv.PackedWeights) if array.size != w.size}
    return sum(array.nbytes for array in arrays.values())


@pytest.mark.parametrize("padding", [0, 1])
def test_xnor_cache_keeps_bits_where_bits_are_enough(padding):
    x, w = random_arrays(0, (2, 24, 24, 128) if JIT else (1, 8, 8, 128), (3, 3, 128, 3), dtype=np.float32)
    real = bytes_kept(conv.conv2d_forward(x, w, padding=padding)[1], w)
    binary = bytes_kept(conv.xnor_conv2d_forward(x, w, padding=padding, estimator="ste")[1], w)
    assert real >= x.nbytes  # the walk found what it has to find
    assert binary > 0
    assert binary <= real / 15


# ------------------------------------------------------------------------------------------------ errors

WRONG = (ValueError, TypeError)
X, W = random_arrays(0, (2, 5, 5, 3), (3, 3, 3, 2), dtype=np.float32)


def with_nan(array):
    array = array.copy()
    array[-1, -1, -1, -1] = np.nan
    return array


BAD_INPUT = {  # what is wrong: x, w, options, the argument that the message must name
    "x of rank 3": (X[0], W, {}, "x"),
    "x of rank 5": (X[None], W, {}, "x"),
    "w of rank 3": (X, W[0], {}, "w"),
    "x float32 and w float64": (X, W.astype(np.float64), {}, "(x|w)"),
    "x float64 and w float32": (X.astype(np.float64), W, {}, "(x|w)"),
    "both int64": (X.astype(np.int64), W.astype(np.int64), {}, "(x|w)"),
    "both float16": (X.astype(np.float16), W.astype(np.float16), {}, "(x|w)"),
    "both complex": (X.astype(np.complex64), W.astype(np.complex64), {}, "(x|w)"),
    "x a list": (X.tolist(), W, {}, "x"),
    "w a list": (X, W.tolist(), {}, "w"),
    "x None": (None, W, {}, "x"),
    "an empty batch": (X[:0], W, {}, "x"),
    "an image without rows": (X[:, :0], W, {"padding": 3}, "x"),
    "no filters": (X, W[..., :0], {}, "w"),
    "a kernel without rows": (X, W[:0], {}, "w"),
    "other channels": (X[..., :2], W, {}, "(x|w)"),
    "kernel higher than the input": (X[:, :2], W, {}, "(x|w)"),
    "kernel wider than the padded input": (X, np.ones((3, 8, 3, 2), np.float32), {"padding": 1}, "(x|w)"),
    "stride 0": (X, W, {"stride": 0}, "stride"),
    "stride -1": (X, W, {"stride": -1}, "stride"),
    "stride (1, 0)": (X, W, {"stride": (1, 0)}, "stride"),
    "stride 1.5": (X, W, {"stride": 1.5}, "stride"),
    "three strides": (X, W, {"stride": (1, 1, 1)}, "stride"),
    "padding -1": (X, W, {"padding": -1}, "padding"),
    "padding (0, -1)": (X, W, {"padding": (0, -1)}, "padding"),
    "padding 'same'": (X, W, {"padding": "same"}, "padding"),
    "padding None": (X, W, {"padding": None}, "padding"),
}
BAD_BINARY = {
    "NaN in w": (X, with_nan(W), {}, "w"),
}
BAD_XNOR = {
    "NaN in x": (with_nan(X), W, {}, "x"),
    "pad_value 2": (X, W, {"pad_value": 2}, "pad_value"),
    "pad_value 0.5": (X, W, {"pad_value": 0.5}, "pad_value"),
    "pad_value None": (X, W, {"pad_value": None}, "pad_value"),
    "pad_value 'zero'": (X, W, {"pad_value": "zero"}, "pad_value"),
    "unknown estimator": (X, W, {"estimator": "relu"}, "estimator"),
    "estimator None": (X, W, {"estimator": None}, "estimator"),
}


@pytest.mark.parametrize(
    ("kind", "what"),
    [(kind, what) for kind in PASSES for what in BAD_INPUT]
    + [(kind, what) for kind in ("binary weight", "xnor") for what in BAD_BINARY]
    + [("xnor", what) for what in BAD_XNOR],
)
def test_bad_input_is_refused_by_name(kind, what):
    x, w, options, name = (BAD_INPUT | BAD_BINARY | BAD_XNOR)[what]
    with pytest.raises(WRONG, match=rf"\b{name}\b"):
        PASSES[kind][0](x, w, **options)


@pytest.mark.parametrize("what", ["w of rank 3", "w a list", "no filters", "NaN in w"])
def test_pack_weights_refuses_bad_weights_by_name(what):
    w = (BAD_INPUT | BAD_BINARY)[what][1]
    with pytest.raises(WRONG, match=r"\bw\b"):
        conv.pack_weights(w)


@pytest.mark.parametrize("pad_value", [0, 1, -1])
def test_one_input_channel_is_an_ordinary_convolution(pad_value):
    """Only centring would erase it, which is a layer's business."""
    x, w = with_zeros(X[..., :1]), with_zeros(W[:, :, :1], seed=1)
    options = {"padding": 2, "pad_value": pad_value}
    out, cache = conv.xnor_conv2d_forward(x, w, **options)
    assert_close(out, reference.xnor_conv2d_forward(x, w, **options), 1e-6)
    dx, dw = reference.xnor_conv2d_backward(out, x, w, **options)
    for got, expected in zip(conv.xnor_conv2d_backward(out, cache), (dx, dw), strict=True):
        assert_close(got, expected, 1e-5)
    packed = conv.pack_weights(w, pad_value)
    assert np.array_equal(packed.signs(), reference.sign(w))
    assert_close(conv.binary_weight_conv2d_forward(x, w)[0], reference.binary_weight_conv2d_forward(x, w), 1e-6)


@pytest.mark.parametrize("pad_value", [2, 0.5, None])
def test_pack_weights_refuses_an_unknown_pad_value(pad_value):
    with pytest.raises(WRONG, match=r"\bpad_value\b"):
        conv.pack_weights(W, pad_value=pad_value)


@pytest.mark.parametrize("kind", PASSES)
@pytest.mark.parametrize("wrong", ["shape", "dtype", "rank"])
def test_backward_refuses_a_dout_that_does_not_fit(kind, wrong):
    forward, backward = PASSES[kind]
    out, cache = forward(X, W)
    dout = {"shape": out[:, :-1], "dtype": out.astype(np.float64), "rank": out[0]}[wrong]
    with pytest.raises(WRONG, match=r"\bdout\b"):
        backward(dout, cache)


@pytest.mark.parametrize("kind", PASSES)
def test_backward_without_a_cache_says_so(kind):
    forward, backward = PASSES[kind]
    out, cache = forward(X, W, need_cache=False)
    with pytest.raises(WRONG, match=r"\b(cache|need_cache)\b"):
        backward(out, cache)
