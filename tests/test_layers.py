"""Chapter 4, layers: each function against the reference and central differences, the objects, state, containers.

Sections, in the order in which a bug is best looked for: BatchNorm, ReLU, dropout, pooling, layer objects,
binary layers, packed weights, order of calls, state, shapes, watching.
"""

import numpy as np
import pytest
from conftest import JIT, assert_close, random_arrays, thin, with_zeros
from hypothesis import given
from hypothesis import strategies as st

from hbn_ref import layers, reference
from hbn_ref.layers import (
    AvgPool,
    BatchNorm,
    BinaryWeightConv,
    Concat,
    Conv,
    Dropout,
    Flatten,
    Linear,
    MaxPool,
    PReLU,
    ReLU,
    Residual,
    Sequential,
    XnorConv,
)
from hbn_ref.testing import check_vjp

MAPS = [(1, 1, 2, 1), (2, 3, 4, 3), (1, 5, 1, 2), (3, 2, 7, 5)]


def check_layer(layer, x, **options):
    """check_vjp on an object: its input and all its parameters, in float64, in training mode."""
    names = list(layer.parameters())

    def forward(x, *values):
        for (_, owner, key), value in zip(names, values, strict=True):
            owner.params[key] = value
        for inner in layer.walk():
            if isinstance(inner, Dropout):
                inner.rng = np.random.default_rng(5)  # the same mask at every call
        return layer.forward(x.copy(), training=True)

    def backward(dout, cache):
        dx = layer.backward(dout)
        return dx, *(owner.grads[key] for _, owner, key in names)

    check_vjp(forward, backward, (x, *(owner.params[key] for _, owner, key in names)), **options)


# ------------------------------------------------------------------------------------------- BatchNorm


@pytest.mark.parametrize("shape", [*MAPS, (2, 20, 30, 3)])  # the last: several blocks of rows, one incomplete
def test_batchnorm_agrees_with_the_reference(shape):
    x, dout, gamma, beta = random_arrays(1, shape, shape, shape[-1:], shape[-1:])
    out, cache = layers.batchnorm_forward(x, gamma, beta)
    assert_close(out, reference.batchnorm_forward(x, gamma, beta), 1e-12)
    for got, expected in zip(layers.batchnorm_backward(dout, cache), reference.batchnorm_backward(dout, x, gamma)):
        assert_close(got, expected, 1e-10)
    single = [value.astype(np.float32) for value in (x, gamma, beta)]
    out, cache = layers.batchnorm_forward(*single)
    assert out.dtype == np.float32
    assert_close(out, reference.batchnorm_forward(x, gamma, beta), 1e-5)


@pytest.mark.parametrize("shape", MAPS[1:])
def test_batchnorm_backward_agrees_with_central_differences(shape):
    x, gamma, beta = random_arrays(2, shape, shape[-1:], shape[-1:])
    check_vjp(layers.batchnorm_forward, layers.batchnorm_backward, (x + 3, gamma, beta), elementwise=True)


def test_batchnorm_cache_ends_with_the_batch_mean_and_biased_variance():
    x = random_arrays(0, (4, 3, 5, 2), dtype=np.float32) * 3 + 1
    mean, var = layers.batchnorm_forward(x, np.ones(2, np.float32), np.zeros(2, np.float32))[1][-2:]
    assert mean.dtype == var.dtype == np.float64
    assert_close(mean, x.astype(np.float64).mean(axis=(0, 1, 2)), 1e-12)
    assert_close(var, x.astype(np.float64).var(axis=(0, 1, 2)), 1e-10)


def test_batchnorm_of_a_constant_channel_is_beta():
    x = np.full((2, 3, 3, 2), 7.3, np.float32)
    out, cache = layers.batchnorm_forward(x, np.array([2, 3], np.float32), np.array([0.5, -1], np.float32))
    assert_close(out, np.broadcast_to([0.5, -1.0], x.shape), 1e-3)
    assert all(np.isfinite(value).all() for value in layers.batchnorm_backward(out, cache))


def test_batchnorm_layer_learns_running_statistics_and_uses_them_in_evaluation_only():
    layer, x = BatchNorm("bn", 3, np.float64), random_arrays(0, (4, 5, 5, 3)) * 2 + 1
    assert_close(layer.forward(x), x / np.sqrt(1 + layers.EPS), 1e-12)  # before training: mean 0, variance 1
    in_training = layer.forward(x, training=True)
    assert_close(in_training, reference.batchnorm_forward(x, np.ones(3), np.zeros(3)), 1e-12)
    mean, var = 0.1 * x.mean(axis=(0, 1, 2)), 0.9 + 0.1 * x.var(axis=(0, 1, 2), ddof=1)
    assert_close(layer.buffers["mean"], mean, 1e-12)
    assert_close(layer.buffers["var"], var, 1e-12)
    before = {key: value.copy() for key, value in layer.buffers.items()}
    assert_close(layer.forward(x), (x - mean) / np.sqrt(var + layers.EPS), 1e-12)
    assert all(np.array_equal(before[key], layer.buffers[key]) for key in before)


# ------------------------------------------------------------------------- ReLU, PReLU, dropout: functions


def test_relu_forward_and_backward():
    x = np.array([-2, -0.0, 0.0, 1e-30, 3, np.inf, -np.inf], np.float32)
    out, cache = layers.relu_forward(x)
    assert np.array_equal(out, [0, 0, 0, np.float32(1e-30), 3, np.inf, 0]) and out.dtype == np.float32
    assert np.array_equal(layers.relu_backward(np.full(7, 5, np.float32), cache), [0, 0, 0, 5, 5, 5, 0])
    x = random_arrays(0, (2, 3, 4, 3))
    check_vjp(layers.relu_forward, layers.relu_backward, (x + np.copysign(0.01, x),), elementwise=True)


def test_relu_does_not_hide_nan():
    assert np.isnan(layers.relu_forward(np.array([np.nan, 1.0]))[0]).tolist() == [True, False]


@pytest.mark.parametrize("in_place", [False, True])
def test_relu_overwrites_its_input_only_when_told_to(in_place):
    x = random_arrays(0, (2, 3, 4, 5), dtype=np.float32)
    before = x.copy()
    out, _ = layers.relu_forward(x, in_place=in_place)
    assert np.shares_memory(out, x) == in_place
    assert np.array_equal(out, np.maximum(before, 0))
    assert np.array_equal(x, out if in_place else before)


def test_in_place_relu_layer_gives_the_same_gradient():
    x, dout = random_arrays(0, (2, 3, 4, 5), (2, 3, 4, 5), dtype=np.float32)
    gradients = []
    for in_place in (False, True):
        layer = ReLU("relu", in_place=in_place)
        layer.forward(x.copy(), training=True)
        gradients.append(layer.backward(dout))
    assert np.array_equal(gradients[0], dout * (x > 0)) and np.array_equal(gradients[0], gradients[1])


def test_relu_of_a_view_leaves_the_rest_of_the_array_alone():
    x = random_arrays(0, (2, 4, 4, 6))
    before = x.copy()
    out, _ = layers.relu_forward(x[..., ::2], in_place=False)
    assert np.array_equal(out, np.maximum(before[..., ::2], 0)) and np.array_equal(x, before)


def test_prelu_against_its_formula_and_central_differences():
    x, slope = np.array([-2.0, -0.5, 0.5, 2.0]).reshape(1, 1, 2, 2), np.array([0.25, -1.0])
    out, cache = layers.prelu_forward(x, slope)
    assert out.ravel().tolist() == [-0.5, 0.5, 0.5, 2.0]
    dx, dslope = layers.prelu_backward(np.ones(x.shape), cache)
    assert dx.ravel().tolist() == [0.25, -1.0, 1.0, 1.0] and dslope.tolist() == [-2.0, -0.5]
    x, slope = random_arrays(0, (2, 3, 4, 3), (3,))
    check_vjp(
        layers.prelu_forward, layers.prelu_backward, (x + np.copysign(0.01, x), slope), elementwise=True
    )  # fmt: skip


@pytest.mark.parametrize("per_channel", [False, True])
def test_dropout_keeps_the_mean_and_passes_the_gradient_through_its_mask(per_channel):
    def forward(x):
        return layers.dropout_forward(x, 0.25, np.random.default_rng(3), per_channel)

    check_vjp(forward, layers.dropout_backward, (random_arrays(0, (3, 2, 4, 5)),), elementwise=True)
    x = np.ones((50, 4, 4, 40), np.float32)
    out, _ = forward(x)
    assert out.dtype == np.float32
    assert set(np.unique(out).tolist()) == {0.0, float(np.float32(1) / np.float32(0.75))}
    kept = out[:, 0, 0] != 0 if per_channel else out != 0
    assert abs(kept.mean() - 0.75) < 4 * np.sqrt(0.75 * 0.25 / kept.size)
    whole_channels = (out == out[:, :1, :1]).all()
    assert whole_channels == per_channel


def test_dropout_layer_does_nothing_in_evaluation_and_refuses_bad_rates():
    layer, x = Dropout("drop", 0.5, rng=np.random.default_rng(0)), np.ones((2, 3, 3, 4), np.float32)
    assert np.array_equal(layer.forward(x), x)
    assert (layer.forward(x, training=True) == 0).any()
    for rate in (-0.1, 1.0, 1.5, float("nan")):
        with pytest.raises(ValueError, match="rate"):
            Dropout("drop", rate)


# ---------------------------------------------------------------------------------------------- pooling

POOLS = [  # shape, size, stride, padding, ceil
    ((2, 4, 4, 3), 2, 2, 0, False),
    ((1, 7, 6, 2), 3, 2, 0, False),
    ((1, 6, 7, 2), 3, 2, 0, True),
    ((2, 5, 5, 3), 3, 2, 1, False),
    ((1, 6, 6, 2), 3, 2, 1, True),
    ((1, 5, 7, 2), (2, 3), (2, 1), (1, 0), False),
    ((1, 3, 3, 1), 2, 2, 1, True),  # a fourth window would start in the far border: left out
    ((2, 4, 5, 2), 2, 3, 0, True),
    ((1, 3, 4, 5), (3, 4), 1, 0, False),  # the whole map
    ((1, 5, 5, 2), 1, 2, 0, False),
]


@pytest.mark.parametrize("shape, size, stride, padding, ceil", POOLS)
def test_max_pooling_agrees_with_the_reference_and_central_differences(shape, size, stride, padding, ceil):
    def forward(x):
        return layers.max_pool_forward(x, size, stride, padding, ceil)

    x = random_arrays(3, shape)
    out, cache = forward(x)
    assert np.array_equal(out, reference.max_pool_forward(x, size, stride, padding, ceil))
    dout = random_arrays(4, out.shape)
    expected = reference.max_pool_backward(dout, x, size, stride, padding, ceil)
    assert_close(layers.max_pool_backward(dout, cache), expected, 1e-14)
    check_vjp(forward, layers.max_pool_backward, (x,), elementwise=True)


@pytest.mark.parametrize("shape, size, stride, padding, ceil", [case for case in POOLS if not case[4]])
def test_average_pooling_agrees_with_the_reference_and_central_differences(shape, size, stride, padding, ceil):
    def forward(x):
        return layers.avg_pool_forward(x, size, stride, padding)

    x = random_arrays(3, shape)
    out, cache = forward(x)
    assert_close(out, reference.avg_pool_forward(x, size, stride, padding), 1e-14)
    dout = random_arrays(4, out.shape)
    assert_close(
        layers.avg_pool_backward(dout, cache), reference.avg_pool_backward(dout, x, size, stride, padding), 1e-14
    )
    check_vjp(forward, layers.avg_pool_backward, (x,), elementwise=True)


@given(st.data())
def test_any_max_pooling_agrees_with_the_reference(data):
    pairs = st.tuples(st.integers(1, 4), st.integers(1, 4))
    size, stride = data.draw(pairs), data.draw(pairs)
    padding = tuple(data.draw(st.integers(0, k // 2)) for k in size)
    height, width = (data.draw(st.integers(max(1, k - 2 * p), 8)) for k, p in zip(size, padding))
    x = np.random.default_rng(data.draw(st.integers(0, 99))).integers(-1, 2, (2, height, width, 2)).astype(np.float32)
    ceil = data.draw(st.booleans())
    out, cache = layers.max_pool_forward(x, size, stride, padding, ceil)  # three values only: many ties
    assert np.array_equal(out, reference.max_pool_forward(x, size, stride, padding, ceil))
    dout = np.arange(out.size, dtype=np.float32).reshape(out.shape)
    expected = reference.max_pool_backward(dout, x, size, stride, padding, ceil)
    assert np.array_equal(layers.max_pool_backward(dout, cache), expected)


def test_first_of_equal_values_wins_a_window():
    x = np.array([[0, 5, 5], [5, 5, 0]], np.float32).reshape(1, 2, 3, 1)
    out, cache = layers.max_pool_forward(x, 2, 1)
    assert out.ravel().tolist() == [5, 5]
    dx = layers.max_pool_backward(np.array([1, 10], np.float32).reshape(1, 1, 2, 1), cache)
    assert dx[0, :, :, 0].tolist() == [[0, 11, 0], [0, 0, 0]]


def test_border_never_wins_even_against_minus_infinity():
    x = np.full((1, 2, 2, 1), -np.inf)
    out, cache = layers.max_pool_forward(x, 3, 2, 1)
    assert out.ravel().tolist() == [-np.inf]
    assert layers.max_pool_backward(np.ones((1, 1, 1, 1)), cache).ravel().tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("place", range(9))
def test_pooling_does_not_lose_nan(place):
    x = random_arrays(0, (1, 3, 3, 2))
    x.reshape(9, 2)[place, 1] = np.nan
    for pooled in (layers.max_pool_forward(x, 3)[0], layers.avg_pool_forward(x, 3)[0]):
        assert np.isnan(pooled).ravel().tolist() == [False, True]


@pytest.mark.parametrize("size, expected", [(109, 54), (110, 55), (111, 55), (112, 56)])
def test_ceil_counts_an_incomplete_last_window(size, expected):
    assert layers.pool_size((size, size), (3, 3), (2, 2), ceil=True) == (expected, expected)
    assert layers.pool_size((size, size), (3, 3), (2, 2)) == ((size - 3) // 2 + 1,) * 2


def test_pooling_refuses_what_makes_no_sense():
    x = np.zeros((1, 4, 4, 2), np.float32)
    with pytest.raises(ValueError, match="x.*does not fit"):
        layers.max_pool_forward(x, 5)
    with pytest.raises(ValueError, match="padding"):
        layers.max_pool_forward(x, 3, 1, 2)  # some windows would see the border only
    with pytest.raises(ValueError, match="stride"):
        layers.max_pool_forward(x, 2, 0)
    with pytest.raises(ValueError, match="at most 256"):
        layers.max_pool_forward(np.zeros((1, 20, 20, 1)), 17)
    with pytest.raises(TypeError, match="x"):
        layers.max_pool_forward(x.astype(int), 2)


# --------------------------------------------------------------------------------- layers as objects


def conv(name, c_in, c_out, kernel=3, **options):
    w = random_arrays(sum(name.encode()), (kernel, kernel, c_in, c_out))
    return Conv(name, w, **options)


OBJECTS = {
    "conv": lambda: conv("a", 3, 4, padding=1),
    "conv, stride, padding, bias": lambda: conv("a", 3, 4, stride=(2, 1), padding=(0, 2), bias=True),
    "batch norm": lambda: BatchNorm("a", 3, np.float64),
    "relu": lambda: ReLU("a"),
    "prelu": lambda: PReLU("a", 3, np.float64),
    "max pool": lambda: MaxPool("a", 3, 2, padding=1, ceil=True),
    "average pool": lambda: AvgPool("a", 2, 1, padding=1),
    "average of the map": lambda: AvgPool("a"),
    "dropout": lambda: Dropout("a", 0.5),
    "dropout of channels": lambda: Dropout("a", 0.5, per_channel=True),
    "flatten": lambda: Flatten("a"),
    "logits": lambda: Flatten("a", logits=True),
    "linear": lambda: Linear("a", random_arrays(1, (1, 1, 90, 4))),
    "residual": lambda: Residual(Sequential([conv("a", 3, 3, padding=1), ReLU("r"), conv("b", 3, 3, padding=1)])),
    "residual, projection": lambda: Residual(
        Sequential([conv("a", 3, 4, stride=2, padding=1)]), Sequential([conv("b", 3, 4, 1, stride=2)])
    ),
    "concat": lambda: Concat(
        [Sequential([conv("a", 3, 2, 1)]), Sequential([conv("b", 3, 4, padding=1), ReLU("r")]), Sequential([])]
    ),
    "sequential": lambda: Sequential([
        conv("a", 3, 4, padding=1), BatchNorm("a.bn", 4, np.float64), ReLU("r", in_place=True), MaxPool("p", 2),
        Residual(Sequential([conv("b", 4, 2, 1), PReLU("q", 2, np.float64), conv("c", 2, 4, 1)])),
        Flatten("f"), conv("d", 24, 3, 1, bias=True), Flatten("g", logits=True),
    ]),
}  # fmt: skip


@pytest.mark.parametrize("kind", OBJECTS)
def test_layer_backward_agrees_with_central_differences(kind):
    layer = OBJECTS[kind]()
    for _, owner, key in layer.parameters():
        owner.params[key] = owner.params[key] + 0.1 * random_arrays(len(key), owner.params[key].shape)
    check_layer(layer, random_arrays(7, (2, 5, 6, 3)), elementwise=JIT)


@pytest.mark.parametrize("kind", OBJECTS)
def test_output_shape_foretells_the_output(kind):
    layer = OBJECTS[kind]()
    out = layer.forward(random_arrays(7, (2, 5, 6, 3)))
    assert (2, *layer.output_shape((5, 6, 3))) == (out.shape if out.ndim == 4 else (2, 1, 1, out.shape[1]))


def test_residual_adds_and_concat_sets_side_by_side():
    x = random_arrays(0, (1, 3, 3, 2))
    a, b = conv("a", 2, 2, 1), conv("b", 2, 3, 1)
    assert np.array_equal(Residual(Sequential([a])).forward(x), a.forward(x) + x)
    out = Concat([Sequential([b]), Sequential([a])]).forward(x)
    assert np.array_equal(out, np.concatenate([b.forward(x), a.forward(x)], axis=-1))


def test_layers_whose_shapes_do_not_meet_say_so():
    with pytest.raises(ValueError, match="^a: takes 3 channels, gets 5"):
        conv("a", 3, 4, 1).output_shape((5, 5, 5))
    with pytest.raises(ValueError, match="block.*one shape"):
        Residual(Sequential([conv("a", 3, 4, 1)]), name="block").output_shape((5, 5, 3))
    with pytest.raises(ValueError, match="block.*different sizes"):
        Concat([Sequential([]), Sequential([conv("a", 3, 4)])], name="block").output_shape((5, 5, 3))


# -------------------------------------------------------------------------------------- binary layers


@pytest.mark.parametrize("rule", ["paper", "exact"])
@pytest.mark.parametrize("stride, padding", [(1, 1), ((2, 1), (0, 2))])
def test_binary_weight_layer_agrees_with_the_reference(stride, padding, rule):
    x, w = random_arrays(0, (2, 5, 4, 3), (3, 2, 3, 4))
    layer = BinaryWeightConv("a", w.copy(), stride=stride, padding=padding, rule=rule)
    options = {"stride": stride, "padding": padding}
    out = layer.forward(x, training=True)
    assert_close(out, reference.binary_weight_conv2d_forward(x, w, **options), 1e-12)
    dout = random_arrays(1, out.shape)
    dx, g = reference.binary_weight_conv2d_backward(dout, x, w, **options)
    assert_close(layer.backward(dout), dx, 1e-12)
    assert_close(layer.grads["w"], reference.weight_gradient(g, w, rule), 1e-12)
    assert np.array_equal(layer.params["w"], w)  # nothing is swapped in or out


XNOR = [
    {},
    {"rule": "exact", "estimator": "approx_sign", "pad_value": 1},
    {"estimator": "swish_sign", "scale": False, "pad_value": -1},
    {"rule": "exact", "scale": False},
]


@pytest.mark.parametrize("settings", XNOR)
@pytest.mark.parametrize("stride, padding", [(1, 1), ((2, 1), (0, 2))])
def test_fully_binary_layer_agrees_with_the_reference(stride, padding, settings):
    x, w = random_arrays(0, (2, 5, 4, 3), (3, 2, 3, 4))
    x, w = with_zeros(x), with_zeros(w, seed=1)
    layer = XnorConv("a", w.copy(), stride=stride, padding=padding, **settings)
    options = {"stride": stride, "padding": padding, "pad_value": 0, "scale": True, **settings}
    rule, estimator = options.pop("rule", "paper"), options.pop("estimator", "ste")
    out = layer.forward(x, training=True)
    assert_close(out, reference.xnor_conv2d_forward(x, w, **options), 1e-12)
    dout = random_arrays(1, out.shape)
    dx, g = reference.xnor_conv2d_backward(dout, x, w, estimator=estimator, **options)
    assert_close(layer.backward(dout), dx, 1e-12)
    assert_close(layer.grads["w"], reference.weight_gradient(g, w, rule), 1e-12)
    assert np.array_equal(layer.params["w"], w)


def test_binary_layers_refuse_one_input_channel_and_unknown_rules():
    for kind in (BinaryWeightConv, XnorConv):
        with pytest.raises(ValueError, match="conv7.*C_in = 1"):
            kind("conv7", np.ones((3, 3, 1, 4), np.float32))
        with pytest.raises(ValueError, match="rule"):
            kind("conv7", np.ones((3, 3, 2, 4), np.float32), rule="papier")


# ------------------------------------------------------------------------------------- packed weights


def binary_stack():
    """A binary-weight and a fully binary layer, float32, with a BatchNorm between."""
    w1, w2 = random_arrays(0, (3, 3, 3, 5), (2, 2, 5, 4), dtype=np.float32)
    return Sequential([BinaryWeightConv("a", w1, padding=1), BatchNorm("n", 5), XnorConv("b", w2, padding=1)])


def test_packed_weights_give_the_same_outputs_and_are_prepared_once(monkeypatch):
    model, x = binary_stack(), random_arrays(1, (2, 4, 5, 3), dtype=np.float32)
    expected = model.forward(x)
    with layers.packed_weights(model) as same:
        assert same is model
        for layer in (model.layers[0], model.layers[2]):
            monkeypatch.setattr(layer, "prepare", lambda: pytest.fail("prepared again"))
        for _ in range(2):
            assert np.array_equal(model.forward(x), expected)


def test_packed_weights_are_forgotten_after_the_block_and_after_an_error():
    model, x = binary_stack(), random_arrays(1, (2, 4, 5, 3), dtype=np.float32)
    before = model.forward(x)
    with layers.packed_weights(model):
        pass
    with pytest.raises(ZeroDivisionError), layers.packed_weights(model):
        raise ZeroDivisionError
    model.layers[0].params["w"] *= -1
    assert np.array_equal(model.forward(x), -before)  # each input of the second layer changes its sign
    model.layers[2].params["w"] *= -1
    assert np.array_equal(model.forward(x), before)


# -------------------------------------------------------------------------------- the order of calls


@pytest.mark.parametrize("kind", [kind for kind in OBJECTS if kind not in ("residual", "residual, projection")])
def test_backward_without_a_training_forward_says_so(kind):
    layer, x = OBJECTS[kind](), random_arrays(7, (2, 5, 6, 3))
    dout = np.ones_like(layer.forward(x))
    with pytest.raises(RuntimeError, match="training=True"):
        layer.backward(dout)
    layer.forward(x, training=True)
    layer.backward(dout)
    with pytest.raises(RuntimeError, match="training=True"):
        layer.backward(dout)  # used up
    layer.forward(x, training=True)
    layer.forward(x)
    with pytest.raises(RuntimeError, match="training=True"):
        layer.backward(dout)


def test_a_first_layer_without_dx_returns_none():
    layer, x = conv("a", 3, 4, need_dx=False), random_arrays(0, (2, 5, 5, 3))
    assert layer.backward(np.ones_like(layer.forward(x, training=True))) is None
    assert layer.grads["w"].shape == (3, 3, 3, 4)


# --------------------------------------------------------------------------------------------- state


def test_state_round_trip_restores_parameters_and_buffers():
    model, other = binary_stack(), binary_stack()
    x = random_arrays(1, (2, 4, 5, 3), dtype=np.float32)
    for value in model.state().values():
        value += 0.5
    assert set(model.state()) == {"a.w", "n.gamma", "n.beta", "n.mean", "n.var", "b.w"}
    assert not np.array_equal(model.forward(x), other.forward(x))
    saved = {name: value.copy() for name, value in model.state().items()}
    other.load_state(saved)
    assert np.array_equal(model.forward(x), other.forward(x))
    saved["a.w"][...] = 0  # the network has copies
    assert np.array_equal(model.forward(x), other.forward(x))


def with_text(state):
    return {**state, "n.var": np.array(["x"] * 5)}


BAD_STATES = {
    "missing": (lambda s: {k: v for k, v in s.items() if k != "n.var"}, "missing.*n.var"),
    "unknown": (lambda s: {**s, "c.w": np.ones(1)}, "unknown.*c.w"),
    "renamed": (lambda s: {("c.w" if k == "b.w" else k): v for k, v in s.items()}, "missing.*b.w.*unknown.*c.w"),
    "shape": (lambda s: {**s, "b.w": np.ones((2, 2, 5, 1))}, r"b.w has shape \(2, 2, 5, 1\), expected \(2, 2, 5, 4\)"),
    "text": (with_text, "n.var"),
}


@pytest.mark.parametrize("fault", BAD_STATES)
def test_state_that_does_not_fit_is_refused_and_nothing_changes(fault):
    change, message = BAD_STATES[fault]
    model = binary_stack()
    before = {name: value.copy() for name, value in model.state().items()}
    with pytest.raises((ValueError, TypeError), match=message):
        model.load_state(change({name: value + 1 for name, value in before.items()}))
    assert all(np.array_equal(before[name], value) for name, value in model.state().items())


def test_parameters_come_in_a_fixed_order_without_buffers():
    assert [name for name, _, _ in binary_stack().parameters()] == ["a.w", "n.gamma", "n.beta", "b.w"]


# -------------------------------------------------------------------------------------- wrong shapes

MISFITS = {
    "batch norm, evaluation": lambda x: BatchNorm("bn", 3).forward(x),
    "batch norm, training": lambda x: BatchNorm("bn", 3).forward(x, training=True),
    "relu backward": lambda x: layers.relu_backward(x[:1], layers.relu_forward(x)[1]),
    "max pool backward": lambda x: layers.max_pool_backward(x[:1, :1, :1], layers.max_pool_forward(x, 2)[1]),
    "batch norm backward": lambda x: layers.batchnorm_backward(
        x[:1], layers.batchnorm_forward(x, np.ones(5, np.float32), np.zeros(5, np.float32))[1]
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_arrays_that_do_not_fit_are_an_error_not_foreign_memory(case):
    with pytest.raises((ValueError, TypeError)):
        MISFITS[case](np.ones((2, 4, 4, 5), np.float32))


@pytest.mark.parametrize("kind", thin(["conv", "linear", "sequential"], 2))
def test_empty_batches_and_foreign_types_are_refused(kind):
    layer = OBJECTS[kind]()
    with pytest.raises(ValueError, match="empty"):
        layer.forward(np.zeros((0, 5, 6, 3)))
    with pytest.raises(TypeError, match="x"):
        layer.forward(np.zeros((1, 5, 6, 3), np.uint8))


# --------------------------------------------------------------------------------------------- watching


def test_watching_sees_what_enters_and_leaves_one_kind_of_layer_and_stops_after_an_error():
    model, x, seen = binary_stack(), random_arrays(1, (2, 4, 5, 3), dtype=np.float32), []
    between, after = (Sequential(model.layers[:end]).forward(x) for end in (2, 3))

    def see(layer, value):
        seen.append((layer.name, value))

    with layers.watching(model, see, XnorConv), layers.watching(model, see, XnorConv, output=True):
        model.forward(x)
    assert [name for name, _ in seen] == ["b", "b"]
    assert np.array_equal(seen[0][1], between) and np.array_equal(seen[1][1], after)
    for output in (False, True):
        with pytest.raises(ZeroDivisionError), layers.watching(model, lambda layer, value: 1 / 0, output=output):
            model.forward(x)
    model.forward(x)
    assert len(seen) == 2


@pytest.mark.parametrize("block", ["residual", "concat"])
def test_a_branch_that_begins_by_overwriting_leaves_the_others_their_input(block):
    x = random_arrays(0, (1, 2, 2, 3))
    branch = Sequential([ReLU("r", in_place=True)])
    made = Residual(branch) if block == "residual" else Concat([branch, Sequential([])])
    out = made.forward(x.copy())
    relu = np.maximum(x, 0)
    assert np.array_equal(out, relu + x if block == "residual" else np.concatenate([relu, x], axis=-1))


def test_a_stride_of_0_is_refused_by_every_pooling_and_not_taken_for_none_given():
    x = np.zeros((1, 4, 4, 2), np.float32)
    for forward in (lambda: layers.AvgPool("a", 2, 0).forward(x), lambda: layers.MaxPool("m", 2, 0).forward(x)):
        with pytest.raises(ValueError, match="stride"):
            forward()
