"""Chapter 5, models: definitions, variants, whole networks against the reference, files.

Sections, in the order in which a bug is best looked for: structure, options, definitions, sizes, whole networks,
threads, files.
"""

import json

import numpy as np
import pytest
from conftest import JIT, assert_close, random_arrays

from hbn_ref import binarize, engine, files, layers, models, reference, train
from hbn_ref.models import average, classifier, concat, conv, dropout, max_pool, relu, residual
from hbn_ref.testing import check_vjp

NAMES = ["conv1", "conv2", "conv3", "conv4", "conv5", "conv6", "classifier"]
SIZES = {"num_classes": 3, "in_channels": 1, "input_size": 16}
TINY = [
    conv("first", 4, 3, padding=1), max_pool(2), conv("second", 5, 3, padding=1), max_pool(3, 2, 1, True),
    conv("map", 6, "map"), conv("point", 4, 1), classifier(),
]  # fmt: skip
BRANCHED = [
    conv("stem", 4, 3, padding=1), max_pool(2),
    residual("same", [conv("s1", 4, 3, padding=1), conv("s2", 4, 3, padding=1, relu=False)]), relu(),
    residual("half", [conv("h1", 6, 3, stride=2, padding=1, relu=False)], [conv("h2", 6, 1, stride=2, relu=False)]),
    concat("fork", [conv("f1", 2, 1)], [conv("f2", 3, 1), conv("f3", 4, 3, padding=1)], []),
    average(), classifier(),
]  # fmt: skip
BRANCHED_NAMES = ["stem", "s1", "s2", "h1", "f1", "f2", "f3", "classifier", "h2"]  # by number: shortcuts come last


def tiny(variant, definition=TINY, seed=0, **options):
    """A tiny network for 8x8 images of two channels, in float64, with biases and BatchNorms away from 0 and 1."""
    model = models.build(definition, variant, num_classes=3, in_channels=2, input_size=8, seed=seed, **options)
    rng = np.random.default_rng(seed)
    for _, layer, key in model.parameters():
        layer.params[key] = layer.params[key].astype(np.float64)
        if key != "w":
            layer.params[key] += 0.3 * rng.standard_normal(layer.params[key].shape)
    return model


def kinds(model):
    """{name: class} of the convolutions."""
    return {layer.name: type(layer) for layer in model.walk() if isinstance(layer, layers.Conv)}


R, W, B = layers.Conv, layers.BinaryWeightConv, layers.XnorConv

# ------------------------------------------------------------------------------------------- structure

VARIANTS = {
    ("fprec", (), "real"): [R, R, R, R, R, R, R],
    ("wbin", (), "real"): [R, W, W, W, W, W, R],
    ("wbin", (), "binary"): [R, W, W, W, W, W, W],
    ("fbin", (), "real"): [R, B, B, B, B, B, R],
    ("fbin", (), "binary"): [R, B, B, B, B, B, W],
    ("hybrid", (), "real"): [R, B, B, B, B, B, R],
    ("hybrid", ("conv3", "conv6"), "real"): [R, B, W, B, B, W, R],
    ("hybrid", (3, 6), "real"): [R, B, W, B, B, W, R],
    ("hybrid", ("conv6", np.int64(3), "conv3"), "binary"): [R, B, W, B, B, W, W],
    ("hybrid", "conv2", "real"): [R, W, B, B, B, B, R],
    ("hybrid", 2, "real"): [R, W, B, B, B, B, R],
}


@pytest.mark.parametrize("variant, keep_real, last_layer", VARIANTS)
def test_variant_decides_the_kind_of_each_layer(variant, keep_real, last_layer):
    model = models.build("small", variant, keep_real=keep_real, last_layer=last_layer, **SIZES)
    assert kinds(model) == dict(zip(NAMES, VARIANTS[variant, keep_real, last_layer], strict=True))


def test_kept_layers_are_recorded_by_name_in_the_order_of_the_definition():
    model = models.build("small", "hybrid", keep_real=["conv6", 3, "conv3"], **SIZES)
    assert model.spec["keep_real"] == ["conv3", "conv6"]
    assert models.resolve_keep_real(BRANCHED, [9, "s2", 5]) == ["s2", "f1", "h2"]


def test_binarizable_layers_are_all_but_the_first_and_the_classifier():
    assert models.binarizable("small") == models.binarizable(models.SMALL) == NAMES[1:-1]
    assert models.binarizable(BRANCHED) == ["s1", "s2", "h1", "f1", "f2", "f3", "h2"]  # by number
    assert models.binarizable([conv("only", 4, 3), average(), classifier()]) == []
    with pytest.raises(ValueError, match="network.*'smallest'"):
        models.binarizable("smallest")


@pytest.mark.parametrize("network", [*models.NETWORKS, "branched"])
def test_binarizable_layers_are_those_that_can_be_kept_real_and_are_binary_otherwise(network):
    definition = BRANCHED if network == "branched" else models.NETWORKS[network]
    names = models.binarizable(definition)
    assert models.resolve_keep_real(definition, names) == names
    size = {"branched": 8, "small": 16}.get(network, 225)
    model = models.build(definition, "fbin", num_classes=3, in_channels=2, input_size=size, init=False)
    assert sorted(names) == sorted(name for name, kind in kinds(model).items() if kind is B)


def test_blocks_have_the_order_of_the_paper():
    def order(variant, **options):
        model = models.build("small", variant, **options, **SIZES)
        names = [layer.name for layer in model.walk() if not isinstance(layer, (layers.MaxPool, layers.Dropout))]
        return [name for name in names if name.startswith("conv")]

    conv_first = [f"conv{i}{part}" for i in range(1, 7) for part in ("", ".bn", ".relu")]
    assert order("fprec") == order("wbin") == conv_first
    norm_first = conv_first[:3] + [f"conv{i}{part}" for i in range(2, 7) for part in (".bn", "", ".relu")]
    assert order("fbin") == norm_first
    mixed = norm_first[:6] + conv_first[6:9] + norm_first[9:]
    assert order("hybrid", keep_real=[3]) == mixed


def test_batchnorm_normalises_what_the_sign_sees_or_what_the_convolution_made():
    for variant, channels in {"fbin": [32, 32, 64, 128, 128, 256], "wbin": [32, 64, 128, 128, 256, 256]}.items():
        model = models.build("small", variant, **SIZES)
        norms = [layer for layer in model.walk() if isinstance(layer, layers.BatchNorm)]
        assert [layer.params["gamma"].size for layer in norms] == channels


def test_only_the_real_classifier_has_a_bias():
    for last_layer in ("real", "binary"):
        model = models.build("small", "fbin", last_layer=last_layer, **SIZES)
        biased = [layer.name for layer in model.walk() if "b" in layer.params]
        assert biased == (["classifier"] if last_layer == "real" else [])


def test_initial_weights_are_the_same_in_every_variant_and_differ_with_the_seed():
    def weights(seed, *variant, **options):
        model = models.build("small", *variant, seed=seed, **options, **SIZES)
        return {layer.name: layer.params["w"] for layer in model.walk() if isinstance(layer, layers.Conv)}

    first = weights(0, "fprec")
    assert list(first) == NAMES and all(w.dtype == np.float32 for w in first.values())
    for other in (weights(0, "wbin"), weights(0, "fbin", last_layer="binary"), weights(0, "hybrid", keep_real=4)):
        assert all(np.array_equal(first[name], other[name]) for name in NAMES)
    assert not any(np.array_equal(first[name], w) for name, w in weights(1, "fprec").items())
    assert len({w.ravel()[0].item() for w in first.values()}) == len(NAMES)  # nor do two layers share theirs


def test_binary_layers_compute_with_alpha_times_signs():
    model, x = tiny("fbin", last_layer="binary"), random_arrays(1, (2, 8, 8, 2))
    for layer in model.walk():
        if isinstance(layer, layers.BinaryWeightConv):
            w = layer.params["w"]
            assert not np.isin(np.abs(w), reference.alpha(w)).any()  # the stored weights are real
    expected = model.forward(x)
    for layer in model.walk():
        if isinstance(layer, layers.BinaryWeightConv):
            layer.params["w"] = reference.binary_weight(layer.params["w"])
    assert_close(model.forward(x), expected, 1e-12)


# --------------------------------------------------------------------------------------------- options

REFUSED = {
    "network: expected one of 'small'.*'smallest'": {"name_or_definition": "smallest"},
    "variant: expected one of 'fprec'.*'xnor'": {"variant": "xnor"},
    "last_layer: expected one of": {"last_layer": "weights"},
    "num_classes": {"num_classes": 0},
    "in_channels": {"in_channels": 1.5},
    "input_size": {"input_size": -3},
    "keep_real: no layer 'conv9'.*conv2, conv3": {"keep_real": ["conv9"]},
    "keep_real: no layer 8": {"keep_real": [8]},
    "keep_real: no layer 0": {"keep_real": [0]},
    "keep_real: conv1 has real inputs": {"keep_real": ["conv1"]},
    "keep_real: classifier has real inputs": {"keep_real": [7]},
    "keep_real: only a hybrid.*'wbin'": {"variant": "wbin", "keep_real": [2]},
    "last_layer: fprec": {"variant": "fprec", "last_layer": "binary"},
    "rule: expected one of": {"rule": "papier"},
    "estimator": {"estimator": "tanh"},
    "pad_value": {"pad_value": 7},
    "seed": {"seed": -1},
    "width": {"width": 0},
}


@pytest.mark.parametrize("message", REFUSED)
def test_build_refuses_bad_arguments_by_name(message):
    arguments = {"name_or_definition": "small", "variant": "hybrid", **SIZES, **REFUSED[message]}
    with pytest.raises((ValueError, TypeError), match=message):
        models.build(**arguments)


def test_options_reach_the_layers():
    options = {"rule": "exact", "estimator": "swish_sign", "pad_value": 1, "scale": False}
    model = models.build("small", "hybrid", keep_real=[2], width=0.25, **options, **SIZES)
    binary = [layer for layer in model.walk() if isinstance(layer, layers.XnorConv)]
    assert len(binary) == 4
    assert all(getattr(layer, key) == value for layer in binary for key, value in options.items())
    shapes = {layer.name: layer.params["w"].shape for layer in model.walk() if isinstance(layer, layers.Conv)}
    assert shapes["conv1"] == (5, 5, 1, 8) and shapes["conv6"] == (1, 1, 64, 64)
    assert shapes["classifier"] == (1, 1, 64, 3)


# ----------------------------------------------------------------------------------------- definitions


def test_convolutions_are_numbered_through_blocks():
    assert models.layer_numbers(BRANCHED) == {name: i for i, name in enumerate(BRANCHED_NAMES, start=1)}
    model = models.build(BRANCHED, "hybrid", num_classes=3, in_channels=2, input_size=8, keep_real=[4, "f2"])
    expected = dict.fromkeys(BRANCHED_NAMES, B) | {"stem": R, "classifier": R, "h1": W, "f2": W}
    assert kinds(model) == expected
    assert list(kinds(model)) == ["stem", "s1", "s2", "h1", "h2", "f1", "f2", "f3", "classifier"]  # as defined


def test_definitions_are_plain_data():
    assert json.loads(json.dumps(BRANCHED)) == BRANCHED
    again = json.loads(json.dumps(models.SMALL))
    a, b = models.build(again, "fbin", **SIZES), models.build("small", "fbin", **SIZES)
    x = random_arrays(0, (1, 16, 16, 1), dtype=np.float32)
    assert np.array_equal(a.forward(x), b.forward(x))


BAD_DEFINITIONS = {
    "two layers are called 'a'": [conv("a", 4, 1), conv("a", 4, 1), average(), classifier()],
    "two layers are called 'classifier'": [conv("classifier", 4, 1), average(), classifier()],
    "unknown item 'pool'": [{"op": "pool"}, classifier()],
    "end it with a classifier": [conv("a", 4, 3), max_pool(2)],
    r"its end has the shape \(6, 6, 3\), expected \(1, 1, 3\); reduce the map first": [conv("a", 4, 3), classifier()],
    "expected a name or a definition": {"op": "conv"},
    "block: the body makes .* the shortcut": [conv("a", 4, 1), residual("block", [conv("b", 5, 1)]), average()],
    "block: branches of different sizes": [conv("a", 4, 1), concat("block", [conv("b", 4, 3)], []), average()],
    "C_in = 1": [concat("block", [conv("a", 4, 1)], [conv("b", 4, 1)]), average(), classifier()],
}


@pytest.mark.parametrize("message", BAD_DEFINITIONS)
def test_bad_definitions_are_refused(message):
    with pytest.raises((ValueError, TypeError), match=message) as error:
        models.build(BAD_DEFINITIONS[message], "fbin", num_classes=3, in_channels=1, input_size=8)
    assert "too small" not in str(error.value)  # a larger input would not help
    assert "block: block:" not in str(error.value)


FIRST = {  # what may stand before, or around, the first convolution
    "pool": [max_pool(2), conv("a", 4, 3, padding=1)],
    "dropout": [dropout(0.2), conv("a", 4, 3, padding=1)],
    "residual": [residual("block", [conv("a", 2, 3, padding=1)])],
    "concat": [concat("block", [conv("a", 2, 3, padding=1)], [conv("b", 2, 1)])],
    "projection": [residual("block", [conv("a", 4, 1)], [conv("b", 4, 1)])],
}


@pytest.mark.parametrize("first", FIRST)
def test_a_network_may_begin_with_anything(first):
    model = models.build([*FIRST[first], average(), classifier()], num_classes=3, in_channels=2, input_size=8)
    x = random_arrays(0, (2, 8, 8, 2), dtype=np.float32)
    loss, _ = train.train_step(model, x, np.array([0, 2]), train.SGD())
    assert np.isfinite(loss)


# ----------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize("size, map_size", [(1, 1), (16, 1), (31, 2), (32, 2), (48, 3), (64, 4), (72, 5), (80, 5)])
def test_conv5_takes_the_whole_remaining_map(size, map_size):
    model = models.build("small", "fbin", num_classes=3, in_channels=1, input_size=size)
    conv5 = next(layer for layer in model.walk() if layer.name == "conv5")
    assert conv5.params["w"].shape == (map_size, map_size, 128, 256)
    assert model.output_shape((size, size, 1)) == (1, 1, 3)


@pytest.mark.parametrize("size, layer", [(50, "pool2"), (30, "conv2"), (20, "pool1"), (14, "conv1"), (1, "conv1")])
def test_inputs_too_small_name_the_layer_that_does_not_fit(size, layer):
    with pytest.raises(ValueError, match=f"{layer}: .*input_size {size} is too small"):
        models.build("sketchanet", "fbin", num_classes=3, in_channels=1, input_size=size)


@pytest.mark.parametrize("shape", [(1, 48, 48, 1), (1, 8, 8, 1), (1, 16, 16, 3), (16, 16, 1), (0, 16, 16, 1)])
def test_images_of_another_shape_are_refused(shape):
    model = models.build("small", "fprec", width=0.1, **SIZES)  # made for 16x16; 48x48 would give 9 x 3 logits
    with pytest.raises(ValueError):
        model.forward(np.zeros(shape, np.float32))


def test_logits_are_a_matrix():
    model = models.build("small", "fbin", width=0.1, **SIZES)
    assert model.forward(np.zeros((2, 16, 16, 1), np.float32)).shape == (2, 3)


# --------------------------------------------------------------------- whole networks against the reference


class SlowLayers:
    """A whole network by reference functions: forward keeps what backward needs, gradients go into a dict."""

    def __init__(self):
        self.grads = {}

    def forward(self, layer, x):
        """Returns (out, backward), backward a function of dout."""
        if isinstance(layer, layers.Sequential):
            steps = []
            for inner in layer.layers:
                x, step = self.forward(inner, x)
                steps.append(step)
            return x, lambda dout: self.chain(steps, dout)
        if isinstance(layer, layers.Residual):
            (a, back_a), (b, back_b) = self.forward(layer.body, x), self.forward(layer.shortcut, x)
            return a + b, lambda dout: back_a(dout) + back_b(dout)
        if isinstance(layer, layers.Concat):
            outs, backs = zip(*(self.forward(branch, x) for branch in layer.branches))
            cuts = np.cumsum([out.shape[3] for out in outs])[:-1]
            join = lambda dout: sum(back(part) for back, part in zip(backs, np.split(dout, cuts, axis=3)))  # noqa: E731
            return np.concatenate(outs, axis=3), join
        return getattr(self, type(layer).__name__)(layer, x)

    def chain(self, steps, dout):
        for step in reversed(steps):
            dout = step(dout)
        return dout

    def keep(self, layer, dx, **grads):
        self.grads |= {f"{layer.name}.{key}": value for key, value in grads.items()}
        return dx

    def Conv(self, layer, x):
        w, options = layer.params["w"], {"stride": layer.stride, "padding": layer.padding}

        def backward(dout):
            dx, dw = reference.conv2d_backward(dout, x, w, **options)
            bias = {"b": dout.sum(axis=(0, 1, 2))} if "b" in layer.params else {}
            return self.keep(layer, dx, w=dw, **bias)

        return reference.conv2d_forward(x, w, **options) + layer.params.get("b", 0), backward

    def BinaryWeightConv(self, layer, x):
        w, options = layer.params["w"], {"stride": layer.stride, "padding": layer.padding}

        def backward(dout):
            dx, g = reference.binary_weight_conv2d_backward(dout, x, w, **options)
            return self.keep(layer, dx, w=reference.weight_gradient(g, w, layer.rule))

        return reference.binary_weight_conv2d_forward(x, w, **options), backward

    def XnorConv(self, layer, x):
        w = layer.params["w"]
        options = {key: getattr(layer, key) for key in ("stride", "padding", "pad_value", "scale")}

        def backward(dout):
            dx, g = reference.xnor_conv2d_backward(dout, x, w, estimator=layer.estimator, **options)
            return self.keep(layer, dx, w=reference.weight_gradient(g, w, layer.rule))

        # alpha times the exact counts: equal counts stay equal, so that max pooling sees the same ties
        counts = reference.xnor_conv2d_forward(x, w, **{**options, "scale": False})
        return (reference.alpha(w) if layer.scale else 1.0) * counts, backward

    def BatchNorm(self, layer, x):
        def backward(dout):
            dx, dgamma, dbeta = reference.batchnorm_backward(dout, x, layer.params["gamma"])
            return self.keep(layer, dx, gamma=dgamma, beta=dbeta)

        return reference.batchnorm_forward(x, layer.params["gamma"], layer.params["beta"]), backward

    def ReLU(self, layer, x):
        return np.maximum(x, 0), lambda dout: dout * (x > 0)

    def MaxPool(self, layer, x):
        options = layer.size, layer.stride, layer.padding, layer.ceil
        return reference.max_pool_forward(x, *options), lambda d: reference.max_pool_backward(d, x, *options)

    def AvgPool(self, layer, x):
        whole = x.shape[1:3]
        return reference.avg_pool_forward(x, whole, 1), lambda d: reference.avg_pool_backward(d, x, whole, 1)

    def Flatten(self, layer, x):
        return x.reshape(len(x), -1), lambda dout: dout.reshape(x.shape)


WHOLE = [
    ("fprec", TINY, {}),
    ("wbin", TINY, {"last_layer": "binary"}),
    ("fbin", TINY, {}),
    ("fbin", TINY, {"rule": "exact", "estimator": "approx_sign", "pad_value": 1, "last_layer": "binary"}),
    ("fbin", TINY, {"estimator": "swish_sign", "scale": False}),
    ("hybrid", TINY, {"keep_real": ["map"]}),
    ("fprec", BRANCHED, {}),
    ("fbin", BRANCHED, {}),
    ("hybrid", BRANCHED, {"keep_real": ["s2", "h2", "f3"]}),
]


@pytest.mark.parametrize("variant, definition, options", WHOLE)
def test_whole_network_agrees_with_the_reference(variant, definition, options):
    model, x = tiny(variant, definition, **options), random_arrays(3, (3, 8, 8, 2))
    slow = SlowLayers()
    expected, slow_backward = slow.forward(model, x)
    logits = model.forward(x, training=True)
    assert logits.dtype == np.float64
    assert_close(logits, expected, 1e-9)
    dout = random_arrays(4, logits.shape)
    model.backward(dout)
    slow_backward(dout)
    names = [name for name, _, _ in model.parameters()]
    assert sorted(slow.grads) == sorted(names)
    for name, layer, key in model.parameters():
        assert_close(layer.grads[key], slow.grads[name], 1e-8)
        assert np.abs(slow.grads[name]).max() > 1e-8, name  # the case says something about this parameter


@pytest.mark.parametrize("definition", [TINY, BRANCHED])
def test_real_network_agrees_with_central_differences(definition):
    model, x = tiny("fprec", definition), random_arrays(3, (3, 8, 8, 2))
    names = list(model.parameters())

    def forward(*values):
        for (_, layer, key), value in zip(names, values, strict=True):
            layer.params[key] = value
        return model.forward(x, training=True), None

    def backward(dout, cache):
        model.backward(dout)
        return tuple(layer.grads[key] for _, layer, key in names)

    check_vjp(forward, backward, [layer.params[key] for _, layer, key in names], rtol=1e-6)


def binary_layers_of(model):
    return [layer for layer in model.walk() if isinstance(layer, layers.BinaryWeightConv)]


@pytest.mark.parametrize("definition", [TINY, BRANCHED])
def test_gradient_of_the_binarized_weights_agrees_with_central_differences(definition, monkeypatch):
    """dL/dW~ through a whole binary-weight network: W~ is smooth, so it is moved directly."""
    monkeypatch.setattr(binarize, "weight_gradient", lambda g, w, rule: g)  # leaves dL/dW~ in grads
    model, x = tiny("wbin", definition), random_arrays(3, (3, 8, 8, 2))
    binary = binary_layers_of(model)

    def forward(*effective):
        for layer, value in zip(binary, effective, strict=True):
            layer.held = value
        return model.forward(x, training=True), None

    def backward(dout, cache):
        model.backward(dout)
        return tuple(layer.grads["w"] for layer in binary)

    check_vjp(forward, backward, [reference.binary_weight(layer.params["w"]) for layer in binary], rtol=1e-6)


@pytest.mark.parametrize("definition", [TINY, BRANCHED])
def test_exact_rule_agrees_with_central_differences_of_its_surrogate(definition):
    """alpha(W) sign(W) with the sign's straight-through surrogate, which is sign(W0) + (W - W0) while |W| < 1."""
    model, x = tiny("wbin", definition, rule="exact"), random_arrays(3, (3, 8, 8, 2))
    binary = binary_layers_of(model)
    start = [layer.params["w"].copy() for layer in binary]
    assert all((np.abs(w) < 1).all() and (np.abs(w) > 1e-5).all() for w in start)

    def forward(*weights):
        for layer, w, w0 in zip(binary, weights, start, strict=True):
            layer.held = reference.alpha(w) * (reference.sign(w0) + w - w0)
        return model.forward(x, training=True), None

    def backward(dout, cache):
        model.backward(dout)
        return tuple(layer.grads["w"] for layer in binary)

    check_vjp(forward, backward, start, rtol=1e-6)


# --------------------------------------------------------------------------------------------- threads


@pytest.mark.skipif(not JIT, reason="without the JIT there is one thread")
@pytest.mark.parametrize("variant", models.VARIANTS)
def test_results_do_not_depend_on_the_number_of_threads(variant):
    x, dout = random_arrays(0, (8, 64, 64, 1), (8, 5), dtype=np.float32)
    before, results = engine.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            engine.set_num_threads(threads)
            options = {"keep_real": [3, 5]} if variant == "hybrid" else {}
            model = models.build("small", variant, num_classes=5, in_channels=1, input_size=64, **options)
            logits = model.forward(x, training=True)
            model.backward(dout)
            assert (engine._pool is not None) == (threads > 1)  # large enough for threads to be used
            results.append(
                [logits, *(layer.grads[key] for _, layer, key in model.parameters()), *model.state().values()]
            )
    finally:
        engine.set_num_threads(before)
    for other in results[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(results[0], other, strict=True))


# ----------------------------------------------------------------------------------------------- files

PREPROCESSING = {"size": 8, "channels": 2, "mean": 0.06, "std": [0.93]}


def saved(path, variant="hybrid", definition=BRANCHED, **options):
    model = models.build(definition, variant, num_classes=3, in_channels=2, input_size=8, **options)
    model.forward(random_arrays(5, (4, 8, 8, 2), dtype=np.float32), training=True)  # moves running statistics
    models.save(model, path, classes=("ant", "bee", "cat"), preprocessing=PREPROCESSING)
    return model


def test_saved_network_comes_back_with_identical_outputs(tmp_path):
    for i, options in enumerate([{}, {"keep_real": ["s2", 7], "last_layer": "binary", "pad_value": 1, "width": 2.5}]):
        path = tmp_path / f"new folder {i}" / "model.npz"
        model = saved(path, seed=np.int64(i), **options)
        again, classes, preprocessing = models.load(path)
        x = random_arrays(1, (2, 8, 8, 2), dtype=np.float32)
        assert np.array_equal(again.forward(x), model.forward(x))
        assert (list(classes), preprocessing) == (["ant", "bee", "cat"], PREPROCESSING)
        assert again.spec == model.spec and kinds(again) == kinds(model)
        assert [file.name for file in path.parent.iterdir()] == ["model.npz"]  # nothing left beside it


def test_model_files_hold_no_pickle(tmp_path):
    saved(tmp_path / "model.npz")
    with np.load(tmp_path / "model.npz", allow_pickle=False) as content:
        assert all(content[name].dtype != object for name in content.files)


def foreign_arrays(path):
    np.savez(path, a=np.ones(3))


def other_format(path):
    files.write_arrays(path, {"format": "hbn_ref checkpoint 1"}, {"a": np.ones(3)})


def without_spec(path):
    header, arrays = files.read_arrays(path, models.FORMAT)
    del header["spec"]
    files.write_arrays(path, header, arrays)


def with_a_missing_array(path):
    header, arrays = files.read_arrays(path, models.FORMAT)
    del arrays["stem.w"]
    files.write_arrays(path, header, arrays)


def with_another_definition(path):
    header, arrays = files.read_arrays(path, models.FORMAT)
    header["spec"]["definition"] = ["conv", 3]
    files.write_arrays(path, header, arrays)


DAMAGES = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("no model\n"),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "foreign arrays": foreign_arrays,
    "other format": other_format,
    "one array": lambda path: np.save(open(path, "wb"), np.ones(3)),
    "pickle": lambda path: np.savez(path, header=np.array([{}], object)),
    "no spec": without_spec,
    "missing array": with_a_missing_array,
    "another definition": with_another_definition,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_and_foreign_files_are_refused_in_one_line_that_names_them(damage, tmp_path):
    path = tmp_path / "model.npz"
    saved(path)
    DAMAGES[damage](path)
    with pytest.raises(files.FileError, match="model.npz") as error:
        models.load(path)
    assert "\n" not in str(error.value)


def test_no_flipped_byte_gives_anything_but_a_file_error(tmp_path):
    path = tmp_path / "model.npz"
    saved(path, "fbin", [conv("a", 2, 1), average(), classifier()])
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    directory = content.index(b"PK\x01\x02")  # names, sizes and kinds of compression: the fragile part
    places = {*rng.integers(0, len(content), 150).tolist(), *rng.integers(directory, len(content), 250).tolist()}
    for place in sorted(places) if JIT else sorted(places)[::8]:
        changed = bytearray(content)
        changed[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        try:
            models.load(path)
        except files.FileError:
            pass
        except Exception as error:
            pytest.fail(f"byte {place}: {type(error).__name__}: {error}")


def test_failed_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "model.npz"
    model = saved(path)
    before = path.read_bytes()
    with pytest.raises((TypeError, ValueError)):
        models.save(model, path, classes=("a",), preprocessing={"mean": {1, 2}})  # no JSON
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["model.npz"]


def test_files_can_be_read_by_whom_the_umask_lets(tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("")
    saved(tmp_path / "model.npz")
    assert (tmp_path / "model.npz").stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("wrong", [{"classes": ["a"]}, {"preprocessing": {}}, {"preprocessing": {"size": 9}}])
def test_nothing_is_written_that_could_not_be_read(wrong, tmp_path):
    model = tiny("fbin")
    good = {"classes": ["a", "b", "c"], "preprocessing": {"size": 8}}
    models.save(model, tmp_path / "good.npz", **good)
    with pytest.raises(ValueError, match="classes|preprocessing"):
        models.save(model, tmp_path / "wrong.npz", **{**good, **wrong})
    assert [path.name for path in tmp_path.iterdir()] == ["good.npz"]


def test_a_network_without_a_definition_says_so(tmp_path):
    model = layers.Sequential([layers.ReLU("relu")])
    with pytest.raises(ValueError, match="models.build"):
        models.save(model, tmp_path / "m.npz", classes=[], preprocessing={})
    with pytest.raises(TypeError, match="definition"):
        models.build([{"name": "conv1"}], num_classes=2, in_channels=1, input_size=8)


def test_a_definition_keeps_a_stride_of_0_for_the_layer_to_refuse():
    definition = [conv("conv1", 4, 3), max_pool(2, 0), average(), classifier()]
    with pytest.raises(ValueError, match="stride"):
        models.build(definition, num_classes=2, in_channels=1, input_size=8)


# ----------------------------------------------------------------------------------- weights of another variant


def weights_of(model):
    return {layer.name: layer.params["w"].copy() for layer in model.walk() if "w" in layer.params}


@pytest.mark.parametrize("name", ["small", "resnet18"])
def test_a_network_starts_from_the_weights_of_another_variant(name):
    options = {"num_classes": 3, "in_channels": 1, "input_size": 64, "width": 0.1}
    trained, model = (models.build(name, variant, seed=seed, **options) for seed, variant in ((1, "wbin"), (2, "fbin")))
    before = {key: value.copy() for key, value in model.state().items()}
    models.start_from(model, trained)
    theirs, ours = weights_of(trained), weights_of(model)
    assert ours.keys() == theirs.keys() and all(np.array_equal(ours[key], theirs[key]) for key in ours)
    assert all(np.array_equal(value, before[key]) for key, value in model.state().items() if not key.endswith(".w"))
    trained.layers[0].params["w"][...] = 9
    assert not np.array_equal(weights_of(model)["conv1"], weights_of(trained)["conv1"])  # a copy


@pytest.mark.parametrize(
    "other", [{"width": 0.2}, {"name_or_definition": "sketchanet", "input_size": 225}, {"num_classes": 4}]
)
def test_weights_that_do_not_fit_are_refused_and_nothing_changes(other):
    options = {"name_or_definition": "small", "num_classes": 3, "in_channels": 1, "input_size": 64, "width": 0.1}
    model, trained = models.build(variant="fbin", **options), models.build(variant="wbin", **{**options, **other})
    before = weights_of(model)
    with pytest.raises(ValueError, match="trained: (conv1|classifier)"):
        models.start_from(model, trained)
    assert all(np.array_equal(value, before[key]) for key, value in weights_of(model).items())
