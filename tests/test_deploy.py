"""Chapter 9, deploy: thresholds for every count, packed networks against the trained ones. The file: test_deploy_file.

Sections, in the order in which a bug is best looked for: threshold, steps, whole networks, what is kept, bad input.
"""

import tracemalloc

import numpy as np
import pytest
from conftest import JIT, KERNELS, arrays_in, random_arrays, thin, with_zeros

from hbn_ref import binarize, bits, conv, deploy, engine, files, layers, models, train
from hbn_ref.models import average, classifier, concat, dropout, max_pool, relu, residual

needs_jit = pytest.mark.skipif(not JIT, reason="too slow in plain Python")

# In fbin: a chain of binary layers, with pools inside it, layers without a ReLU, more than one word of channels.
CHAIN = [
    models.conv("first", 4, 3, padding=1), max_pool(2),
    models.conv("second", 66, 3, padding=1), max_pool(3, 2, 1, True),
    models.conv("third", 5, 1, relu=False),
    models.conv("map", 6, "map"), dropout(0.2, per_channel=True),
    models.conv("point", 4, 1), dropout(0.5),
    classifier(),
]  # fmt: skip
BRANCHED = [
    models.conv("stem", 4, 3, padding=1), max_pool(2),
    residual("same", [models.conv("s1", 4, 3, padding=1), models.conv("s2", 4, 3, padding=1, relu=False)]), relu(),
    residual("half", [models.conv("h1", 6, 3, stride=2, padding=1, relu=False)],
             [models.conv("h2", 6, 1, stride=2, relu=False)]),
    concat("fork", [models.conv("f1", 2, 1)], [models.conv("f2", 3, 1), max_pool(2, 1, 1), max_pool(2, 1),
           models.conv("f3", 4, 3, padding=1)], [max_pool(3, 1, 1), models.conv("f4", 2, 1)], []),
    average(), classifier(),
]  # fmt: skip
ONE_BINARY = [models.conv("a", 4, 3, padding=1), max_pool(2), models.conv("b", 3, 3), average(), classifier()]


CUSTOM = {
    "chain-fprec": (CHAIN, "fprec", {}),
    "chain-wbin": (CHAIN, "wbin", {}),
    "chain-wbin-last": (CHAIN, "wbin", {"last_layer": "binary"}),
    "chain-fbin": (CHAIN, "fbin", {}),
    "chain-fbin-last": (CHAIN, "fbin", {"last_layer": "binary"}),
    "chain-fbin-pad1": (CHAIN, "fbin", {"pad_value": 1}),
    "chain-fbin-pad-1": (CHAIN, "fbin", {"pad_value": -1}),
    "chain-fbin-unscaled": (CHAIN, "fbin", {"scale": False}),
    "chain-hybrid": (CHAIN, "hybrid", {"keep_real": ["third"], "pad_value": -1}),
    "branched-fprec": (BRANCHED, "fprec", {}),
    "branched-wbin": (BRANCHED, "wbin", {}),
    "branched-fbin": (BRANCHED, "fbin", {}),
    "branched-fbin-unscaled": (BRANCHED, "fbin", {"scale": False, "pad_value": 1}),
    "branched-hybrid": (BRANCHED, "hybrid", {"keep_real": ["s1", "f3"], "last_layer": "binary"}),
}


def trained(network, variant=None, *, seed=0, size=8, channels=2, classes=3, steps=2, **options):
    """A network after a few steps on noise, whose BatchNorms then get all signs of gamma, zeros, and exact ties."""
    sizes = {"num_classes": classes, "in_channels": channels, "input_size": size}
    model, rng = models.build(network, variant, seed=seed, **sizes, **options), np.random.default_rng(seed)
    norms = [layer for layer in model.walk() if isinstance(layer, layers.BatchNorm)]
    for norm in norms:
        norm.momentum = 1.0
    adam, labels = train.Adam(0.01), np.arange(4 if JIT else 2) % classes
    for _ in range(steps):
        train.train_step(model, images(model, len(labels), rng), labels, adam)
    for norm in norms:
        gamma, beta = norm.params["gamma"], norm.params["beta"]
        gamma *= rng.choice([1, -1, 3, -0.2], gamma.size).astype(np.float32)
        beta += 0.3 * rng.standard_normal(beta.size).astype(np.float32)
        kind = rng.random(gamma.size)
        gamma[kind < 0.15], gamma[kind < 0.07] = 0.0, -0.0
        tie = rng.random(gamma.size) < 0.15  # a count of 0, or one that the ReLU clips, lies on the threshold
        beta[tie], norm.buffers["mean"][tie] = 0, 0
    return model


def images(model, count, rng=None):
    rng = rng or np.random.default_rng(count)
    size, channels = model.spec["input_size"], model.spec["in_channels"]
    return rng.standard_normal((count, size, size, channels)).astype(np.float32)


def signs_of(model, x):
    """(logits, [(layer, bits)]) of the trained network's evaluation: what `PackedNetwork.trace` gives."""
    seen = []
    with layers.watching(model, lambda layer, x: seen.append((layer.name, x >= 0)), layers.XnorConv):
        return model.forward(x), seen


def assert_the_same_inputs(model, packed, x):
    """What enters each convolution: bits and, where there are any, the real values that they are the signs of."""
    seen = {}
    with layers.watching(model, lambda layer, x: seen.update({layer.name: x.copy()}), layers.Conv):
        model.forward(x)
    logits, found = packed.look(x)
    assert np.array_equal(logits, packed(x)) and [name for name, _, _ in found] == list(seen)
    binary = {layer.name for layer in model.walk() if isinstance(layer, layers.XnorConv)}
    for name, values, signs in found:
        assert (signs is not None) == (name in binary) and not (values is None and signs is None)
        if values is not None:
            np.testing.assert_array_equal(values, seen[name], err_msg=name)
        if signs is not None:
            np.testing.assert_array_equal(signs, seen[name] >= 0, err_msg=name)


def assert_the_same_network(model, packed, batches=(1, 5)):
    """Identical bits into every binary layer and identical logits, with each kernel."""
    for kernel in KERNELS:
        for batch in batches:
            x = images(model, batch)
            with engine.kernel(kernel):
                expected, expected_bits = signs_of(model, x)
                logits, found = packed.trace(x)
                assert np.array_equal(packed(x), logits)
            assert [name for name, _ in found] == [name for name, _ in expected_bits]
            for (name, got), (_, wanted) in zip(found, expected_bits, strict=True):
                assert got.dtype == np.uint8 and np.array_equal(got, wanted), name
            assert logits.dtype == np.float32 and np.array_equal(logits, expected)  # the top-1 with them
            assert_the_same_inputs(model, packed, x)
            assert np.isfinite(logits).all()


# ------------------------------------------------------------------------------------------- threshold

ALWAYS, NEVER = (-9, False), (10, False)  # for n = 9
ALWAYS_FALLING, NEVER_FALLING = (10, True), (-9, True)
BY_HAND = [  # (alpha, scale, shift, relu), (t, flip); all sums are exact
    ((1, 1, 0, False), (0, False)),
    ((1, 1, 0, True), ALWAYS),
    ((1, 1, -3, True), (3, False)),
    ((1, 1, -2.5, False), (3, False)),
    ((0.5, 2, -3, True), (3, False)),
    ((0.25, 8, -5, False), (3, False)),
    ((1, 1, 3, False), (-3, False)),
    ((1, 1, 3.5, False), (-3, False)),
    ((1, 1, 3, True), ALWAYS),
    ((1, 1, -9, True), (9, False)),
    ((1, 1, -9.5, True), NEVER),
    ((1, 1, 9, False), ALWAYS),
    ((1, -1, 3, True), (4, True)),  # bits of ..., 2, 3 are 1
    ((1, -1, 3.5, False), (4, True)),
    ((1, -1, 0, True), (1, True)),
    ((1, -1, 0, False), (1, True)),
    ((1, -1, -1, True), NEVER_FALLING),
    ((1, -1, -1, False), (0, True)),
    ((1, -1, 9, True), ALWAYS_FALLING),
    ((1, -1, 8, True), (9, True)),
    ((1, -1, -9, False), (-8, True)),
    ((1, -1, -10, False), NEVER_FALLING),
    ((1, 0, 0, True), ALWAYS),
    ((1, 0, -0.0, False), ALWAYS),
    ((1, -0.0, 0, True), ALWAYS),
    ((1, 0, 2, False), ALWAYS),
    ((1, 0, -1, True), NEVER),
    ((1, -0.0, -1, False), NEVER),
    ((0, 1, 0, False), ALWAYS),
    ((0, 1, -1, True), NEVER),
    ((0, -1, 1, False), ALWAYS_FALLING),
    ((0, -1, 0, True), ALWAYS_FALLING),
    ((0, -1, -1, True), NEVER_FALLING),
    ((1, 1e-30, -2e-30, True), (2, False)),
    ((1, -1e30, 2e30, True), (3, True)),
]


@pytest.mark.parametrize("numbers, expected", BY_HAND)
def test_threshold_by_hand(numbers, expected):
    *numbers, with_relu = numbers
    t, flip = deploy.threshold(*(np.array([v], np.float32) for v in numbers), 9, with_relu)
    assert (t[0], flip[0]) == expected


def float_bits(counts, alpha, scale, shift, with_relu):
    """The trained network's own arithmetic, for counts (N, H, W, C)."""
    v = alpha * counts.astype(np.float32)
    if with_relu:
        v, _ = layers.relu_forward(v)
    return layers.scale_shift(v, scale, shift) >= 0


def batchnorms(channels, n, seed):
    """(alpha, scale, shift): both signs, zeros, tiny and huge, and sums that are 0, or nearly, for one count."""
    rng = np.random.default_rng(seed)
    alpha = rng.uniform(0.001, 0.2, channels).astype(np.float32)
    gamma = rng.standard_normal(channels).astype(np.float32)
    gamma *= rng.choice([1, 1, 1e-30, 1e20, 0.01], channels).astype(np.float32)
    beta, mean = rng.standard_normal((2, channels)).astype(np.float32)
    mean *= 0.2 * np.sqrt(n)
    scale, shift = layers.fold_batchnorm(gamma, beta, mean, rng.uniform(0.01, 2 + 0.01 * n, channels))
    kind = (np.arange(channels) + 3 * seed) % 8
    short = kind == 6  # few digits, so that the sum is exactly 0 for one count
    alpha[short] = rng.integers(1, 64, short.sum()) / 256
    scale[short] = rng.choice([-1, 1], short.sum()) * rng.integers(1, 64, short.sum()) / 8
    tie = rng.integers(-n, n + 1, channels)
    v = (alpha * np.abs(tie).astype(np.float32)) * np.sign(tie).astype(np.float32)
    exact = (-v.astype(np.float64) * scale).astype(np.float32)
    above, below = np.nextafter(exact, np.float32(np.inf)), np.nextafter(exact, -np.float32(np.inf))
    for k, value in {0: exact, 1: above, 2: below, 6: exact}.items():
        shift[kind == k] = value[kind == k]
    scale[kind == 3], scale[kind == 4] = 0.0, -0.0
    shift[(kind == 3) & (rng.random(channels) < 0.3)] = 0
    alpha[kind == 5] = 0
    shift[(kind == 5) & (rng.random(channels) < 0.3)] = 0
    return alpha, scale, shift


def all_counts(n, channels):
    return np.broadcast_to(np.arange(-n, n + 1, dtype=np.int32)[:, None, None, None], (2 * n + 1, 1, 1, channels))


THRESHOLD_CASES = [
    (n, channels, with_relu)
    for n in (1, 2, 9, 576, 2304)
    for channels in (1, 63, 64, 65, 130)
    for with_relu in (True, False)
]


@pytest.mark.parametrize("n, channels, with_relu", thin(THRESHOLD_CASES, 12))
def test_threshold_is_the_float_function_for_every_count(n, channels, with_relu):
    counts = np.ascontiguousarray(all_counts(n, channels))
    for seed in range(8 if JIT and n < 100 else 2):
        alpha, scale, shift = batchnorms(channels, n, seed)
        t, flip = deploy.threshold(alpha, scale, shift, n, with_relu)
        assert t.shape == flip.shape == (channels,) and t.dtype == np.int64 and flip.dtype == bool
        assert t.min() >= -n and t.max() <= n + 1
        expected = float_bits(counts, alpha, scale, shift, with_relu)
        assert np.array_equal((counts >= t) ^ flip, expected)
        words = deploy.steps.threshold_step(t, flip)(counts, None)  # the step: 64 comparisons a word
        assert np.array_equal(bits.unpack(words, channels) > 0, expected)  # unpack refuses bits beyond the channels


def test_the_cases_of_the_threshold_hold_ties_and_every_kind_of_channel():
    n, kinds, on_it, near_it = 576, set(), 0, 0
    for seed in range(2):
        alpha, scale, shift = batchnorms(130, n, seed)
        kinds |= {(np.sign(s), np.signbit(s)) for s in scale.tolist()}
        assert np.isfinite(scale).all() and np.isfinite(shift).all() and (alpha == 0).any()
        sums = layers.scale_shift(alpha * all_counts(n, 130).astype(np.float32), scale, shift)
        moving = (alpha > 0) & (scale != 0)
        on_it += (sums[..., moving] == 0).sum()
        near_it += (np.abs(sums[..., moving]) < 1e-6 * np.abs(shift[moving])).sum()
    assert kinds == {(1, False), (-1, True), (0, False), (0, True)}
    assert on_it > 10 and near_it > on_it + 20


@pytest.mark.parametrize("with_relu", ["before", "after", None])
def test_pooling_may_go_before_the_comparison_but_not_after_it(with_relu):
    n, channels = 40, 70
    alpha, scale, shift = batchnorms(channels, n, seed=3)
    counts = np.random.default_rng(0).integers(-n, n + 1, (2, 7, 6, channels)).astype(np.int32)
    pool = layers.MaxPool("pool", 3, 2, 1, ceil=True)
    v = alpha * counts.astype(np.float32)
    v = np.maximum(v, 0) if with_relu == "before" else v
    v = pool.forward(v)
    v = np.maximum(v, 0) if with_relu == "after" else v
    expected = layers.scale_shift(v, scale, shift) >= 0
    t, flip = deploy.threshold(alpha, scale, shift, n, with_relu is not None)
    pooled = deploy.compiling._pool(pool)(counts, None)
    assert pooled.dtype == np.int32 and pooled.shape == expected.shape
    assert np.array_equal(bits.unpack(deploy.steps.threshold_step(t, flip)(pooled, None), channels) > 0, expected)
    late = pool.forward(((counts >= t) ^ flip).astype(np.float32)) > 0
    falling = scale < 0
    assert np.array_equal(late[..., ~falling], expected[..., ~falling])
    assert not np.array_equal(late[..., falling], expected[..., falling])  # the case would notice


# ----------------------------------------------------------------------------------------------- steps

UNPACKING = [  # kernel, channels, filters: 480 weights of a filter are made real at a time
    ((1, 1), 2, 1), ((1, 1), 479, 31), ((1, 1), 480, 32), ((1, 1), 481, 33), ((1, 1), 482, 3), ((3, 3), 7, 63),
    ((3, 3), 60, 64), ((2, 5), 48, 65), ((3, 2), 81, 96), ((3, 3), 107, 130), ((3, 3), 110, 2), ((2, 2), 360, 128),
]  # fmt: skip


@pytest.mark.parametrize("kernel, channels, filters", thin(UNPACKING, 4))
def test_unpacking_convolution_gives_the_very_numbers_of_the_one_with_real_weights(kernel, channels, filters):
    w = with_zeros(random_arrays(channels, (*kernel, channels, filters), dtype=np.float32))
    words, alpha = bits.pack(w.reshape(-1, filters)), binarize.alpha(w)
    for batch, stride, padding in (((1, (1, 1), (0, 0)), (3, (2, 1), (1, 2)))) if JIT else ((1, (2, 1), (0, 1)),):
        x = random_arrays(batch, (batch, 4, 5, channels), dtype=np.float32)
        for name in KERNELS:
            with engine.kernel(name):
                got = conv.unpacking_conv2d(x, words, alpha, kernel, stride=stride, padding=padding)
                expected, _ = conv.binary_weight_conv2d_forward(x, w, stride=stride, padding=padding)
            assert got.dtype == np.float32 and np.array_equal(got, expected)


def run_recording(steps, x, seen):
    """As `deploy.steps.run`, with (step, its input, its output) of every step appended to ``seen``."""
    for step in steps:
        if isinstance(step, deploy.Residual):
            y = run_recording(step.body, x, seen) + run_recording(step.shortcut, x, seen)
        elif isinstance(step, deploy.Concat):
            y = np.concatenate([run_recording(branch, x, seen) for branch in step.branches], axis=3)
        else:
            y = step(x, None)
        seen.append((step, x, y))
        x = y
    return x


def test_a_chain_of_binary_layers_holds_bits_and_whole_numbers_only():
    packed = deploy.compile(trained(CHAIN, "fbin"))
    seen = []
    run_recording(packed.steps, random_arrays(0, (2, 8, 8, 2), dtype=np.float32), seen)
    real, whole, word = np.dtype(np.float32), np.dtype(np.int32), np.dtype(np.uint64)
    assert [(type(step).__name__, y.dtype) for step, _, y in seen] == [
        ("Convolve", real), ("Scale", real), ("MaxPool", real), ("Apply", real), ("Signs", word),
        ("Count", whole), ("MaxPool", whole), ("Threshold", word),  # second
        ("Count", whole), ("Threshold", word),  # third
        ("Count", whole), ("Threshold", word),  # map
        ("Count", real), ("Apply", real), ("Convolve", real), ("Apply", real),
    ]  # fmt: skip


CHAINED = {  # the layers whose counts stay whole numbers
    "chain-fbin": {"second", "third", "map"},
    "chain-hybrid": {"map"},
    "branched-fbin": {"s1", "f2"},
    "branched-hybrid": set(),
}


@pytest.mark.parametrize("case", CHAINED)
def test_floats_begin_only_where_the_next_step_is_real(case):
    definition, variant, options = CUSTOM[case]
    packed, seen = deploy.compile(trained(definition, variant, steps=0, **options)), []
    run_recording(packed.steps, random_arrays(0, (1, 8, 8, 2), dtype=np.float32), seen)
    steps = [step for step, _, _ in seen]
    for (step, x, y), following in zip(seen, [*steps[1:], None], strict=True):
        if isinstance(step, (deploy.Signs, deploy.Threshold)):
            assert y.dtype == np.uint64 and isinstance(following, deploy.Count)
        if isinstance(step, deploy.Threshold):
            assert x.dtype == np.int32 and step.t.dtype == np.int32 and step.flip.dtype == np.uint64
        if isinstance(step, deploy.Count):
            assert x.dtype == np.uint64 and y.dtype == (np.float32 if step.real else np.int32)
            assert step.real or isinstance(following, (deploy.MaxPool, deploy.Threshold))
    assert {step.name for step in steps if isinstance(step, deploy.Count) and not step.real} == CHAINED[case]
    assert sum(isinstance(step, deploy.Threshold) for step in steps) == len(CHAINED[case])


# -------------------------------------------------------------------------------------- whole networks


@pytest.mark.parametrize("case", CUSTOM)
def test_packed_network_gives_the_bits_and_logits_of_the_trained_one(case, tmp_path):
    definition, variant, options = CUSTOM[case]
    for seed in range(5 if JIT else 1):
        model = trained(definition, variant, seed=seed, **options)
        packed = deploy.compile(model)
        assert_the_same_network(model, packed, batches=(1, 5) if JIT else (2,))
        deploy.save(packed, tmp_path / "packed.npz")
        assert_identical(deploy.load(tmp_path / "packed.npz"), packed)


NETWORKS = {
    **{f"small-{variant}": {} for variant in ("fprec", "wbin", "fbin")},
    "small-hybrid": {"keep_real": ["conv3"]},
    "small-hybrid, two": {"keep_real": ["conv2", "conv6"], "last_layer": "binary"},
    "small-fbin, +1": {"pad_value": 1},
    "small-fbin, -1": {"pad_value": -1},
    "small-fbin, unscaled": {"scale": False},
    "small-fbin, last": {"last_layer": "binary"},
    "small-wbin, last": {"last_layer": "binary"},
    "sketchanet-fbin": {"size": 81, "width": 0.3},
    "sketchanet-hybrid1": {"size": 81, "width": 0.3},
    **{f"resnet18-{variant}": {} for variant in ("fprec", "wbin", "fbin", "hybrid-v1")},
    **{f"squeezenet-{variant}": {} for variant in ("wbin", "fbin", "hybrid-v3")},
    **{f"googlenet-{variant}": {"size": 48} for variant in ("wbin", "fbin")},
    "googlenet-fbin, -1": {"size": 48, "pad_value": -1, "scale": False},
    **{f"alexnet-{variant}": {"size": 67, "width": 0.05} for variant in ("fprec", "wbin", "fbin", "hybrid1")},
}


def network(case, **options):
    options = {"size": 32, "channels": 1, "classes": 5, **NETWORKS.get(case, {}), **options}
    if not case.startswith("small"):
        options.setdefault("width", 0.125)
    return trained(case.partition(",")[0], **options)


@needs_jit
@pytest.mark.parametrize("case", NETWORKS)
def test_every_network_gives_the_bits_and_logits_of_the_trained_one(case, tmp_path):
    model = network(case)
    packed = deploy.compile(model)
    assert_the_same_network(model, packed)
    deploy.save(packed, tmp_path / "packed.npz")
    assert_identical(deploy.load(tmp_path / "packed.npz"), packed)


@needs_jit
@pytest.mark.slow
@pytest.mark.parametrize("name", ["sketchanet-fbin", "sketchanet-hybrid1", "sketchanet-wbin"])
def test_sketchanet_of_full_size(name):
    model = trained(name, size=225, channels=1, classes=250, steps=1)
    assert_the_same_network(model, deploy.compile(model))


@needs_jit
@pytest.mark.parametrize("name", ["small-fbin", "resnet18-fbin"])
def test_the_bits_that_are_compared_say_something(name):
    model = network(name)
    logits, seen = deploy.compile(model).trace(images(model, 5))
    binary = [layer.name for layer in model.walk() if isinstance(layer, layers.XnorConv)]
    assert sorted(name for name, _ in seen) == sorted(binary)
    assert len(np.unique(logits, axis=0)) == 5
    for name, found in seen:
        channels = found.reshape(-1, found.shape[3])
        assert 0.1 < channels.mean() < 0.9, name
        assert ((channels.min(axis=0) == 0) & (channels.max(axis=0) == 1)).mean() > 0.25, name


@needs_jit
def test_no_result_depends_on_the_number_of_threads():
    model = network("small-hybrid", size=64)
    packed, x = deploy.compile(model), images(model, 5)
    results = []
    for threads in (1, 2, 4):
        with engine.threads(threads):
            logits, seen = packed.trace(x)
        results.append([logits, *(found for _, found in seen)])
    assert all(np.array_equal(*pair) for more in results[1:] for pair in zip(results[0], more, strict=True))


def test_best_gives_the_most_probable_classes_first():
    def logits(x):
        return np.array([[1, 3, 2, 3], [1000, -1000, 999, 0]], np.float32)

    spec = models.build([models.classifier()], num_classes=4, in_channels=1, input_size=1, init=False).spec
    packed = deploy.PackedNetwork(spec, list("abcd"), {}, (lambda x, watch: logits(x),))
    first, second = deploy.best(packed, np.zeros((2, 1, 1, 1), np.float32), count=9)
    assert [name for name, _ in first] == ["b", "d", "c", "a"]  # of equals the first
    shares = np.exp([3.0, 3, 2, 1]) / np.exp([3.0, 3, 2, 1]).sum()
    assert [share for _, share in first] == pytest.approx(shares)
    assert second[0] == ("a", pytest.approx(1 / (1 + np.exp(-1))))
    top = deploy.best(packed, np.zeros((2, 1, 1, 1), np.float32), count=1)
    assert top == [first[:1], second[:1]]


# ----------------------------------------------------------------------------------------- what is kept


def assert_identical(got, expected):
    """Two packed networks with the same arrays, steps, names and logits."""
    assert [type(step) for step in got.steps] == [type(step) for step in expected.steps]
    x = images(expected, 2)
    assert np.array_equal(got(x), expected(x))
    for a, b in zip(parts(got.steps), parts(expected.steps), strict=True):
        assert a.dtype == b.dtype and np.array_equal(a, b)
    assert got.spec == files.plain(expected.spec) and got.classes == expected.classes
    assert got.preprocessing == files.plain(expected.preprocessing)


def parts(steps):
    """The arrays of packed steps in their order, without what a call works out (`PackedWeights.totals`)."""
    found = []
    for step in steps:
        for value in vars(step).values():
            if isinstance(value, conv.PackedWeights):
                found += [value.words, value.alpha, value.tap_sums]
            elif isinstance(value, np.ndarray):
                found.append(value)
        if isinstance(step, deploy.Residual):
            found += parts(step.body) + parts(step.shortcut)
        if isinstance(step, deploy.Concat):
            found += [array for branch in step.branches for array in parts(branch)]
    return found


@pytest.mark.parametrize("case", ["chain-fbin", "chain-wbin", "chain-fprec", "branched-hybrid"])
def test_training_on_does_not_change_the_packed_network(case):
    definition, variant, options = CUSTOM[case]
    model = trained(definition, variant, steps=1, **options)
    classes, preprocessing = ["a", "b", "c"], {"size": 8}
    packed = deploy.compile(model, classes=classes, preprocessing=preprocessing)
    x = images(model, 2)
    before, adam = packed(x), train.Adam(0.1)
    assert not any(np.shares_memory(a, b) for a in parts(packed.steps) for b in model.state().values())
    train.train_step(model, x, np.arange(2), adam)
    for array in model.state().values():
        array += 1
    classes[0], preprocessing["size"] = "z", 9
    assert np.array_equal(packed(x), before)
    assert not np.array_equal(model.forward(x), before)
    assert packed.classes == ["a", "b", "c"] and packed.preprocessing == {"size": 8}


def test_a_call_of_the_packed_network_leaves_the_training_of_the_model_alone():
    model = trained(ONE_BINARY, "fbin", steps=0)
    packed, x, seen = deploy.compile(model), images(model, 2), []
    logits = model.forward(x, training=True)
    with layers.watching(model, lambda layer, x: seen.append(layer.name)):
        packed(x)
    assert seen == []
    model.backward(np.ones_like(logits))


def reals_and_bits(model):
    """(real numbers, bits) that the file has to hold, counted from the layers of the trained network."""
    reals, ones = 0, 0
    for chain in sequences(model):
        chain = [layer for layer in chain if layer.params]  # pools, ReLUs and dropout hold nothing
        kinds = [type(layer).__name__ for layer in chain]
        for i, layer in enumerate(chain):
            sizes = {key: value.size for key, value in layer.params.items()}
            folded = kinds[i - 1 : i + 2] == ["XnorConv", "BatchNorm", "XnorConv"]
            if kinds[i] == "BatchNorm":  # one threshold and one flip a channel, or scale and shift
                reals += sizes["gamma"] * (1 if folded else 2)
                ones += sizes["gamma"] * folded
            elif kinds[i] == "Conv":
                reals += sum(sizes.values())
            else:
                ones += sizes["w"]
                in_chain = kinds[i : i + 3] == ["XnorConv", "BatchNorm", "XnorConv"]
                reals += 0 if in_chain else layer.params["w"].shape[3]  # alpha
    return reals, ones


def sequences(layer):
    """Every list of layers that follow one another, blocks counted as what separates two of them."""
    run = []
    for one in layer.layers:
        inner = getattr(one, "branches", [])
        inner = [one.body, one.shortcut] if isinstance(one, layers.Residual) else inner
        for part in inner:
            yield from sequences(part)
        if isinstance(one, (layers.Residual, layers.Concat, layers.AvgPool)):
            yield run
            run = []
        run.append(one)
    yield run


def assert_size(model, path):
    packed = deploy.compile(model)
    reals, ones = reals_and_bits(model)
    assert deploy.file_bytes(packed) == 4 * reals + -(-ones // 8)
    deploy.save(packed, path)
    assert path.stat().st_size <= 1.02 * deploy.file_bytes(packed) + 8192
    assert path.stat().st_size >= deploy.file_bytes(packed)


@pytest.mark.parametrize("case", CUSTOM)
def test_file_bytes_are_one_bit_a_binary_weight_and_32_a_real_number(case, tmp_path):
    definition, variant, options = CUSTOM[case]
    assert_size(trained(definition, variant, steps=0, **options), tmp_path / "packed.npz")


@needs_jit
@pytest.mark.parametrize(
    "name",
    ["small-fprec", "small-wbin", "small-fbin", "sketchanet-fbin", "sketchanet-wbin", "sketchanet-hybrid1",
     "resnet18-fbin", "resnet18-hybrid-v2", "squeezenet-fbin", "squeezenet-hybrid-v1", "googlenet-fbin",
     "googlenet-wbin"],
)  # fmt: skip
def test_files_of_full_networks_are_hardly_larger(name, tmp_path):
    assert_size(trained(name, size=225, channels=3, classes=250, steps=0), tmp_path / "packed.npz")


@needs_jit
def test_small_fbin_by_hand():
    packed = deploy.compile(models.build("small-fbin", num_classes=12, in_channels=1, input_size=64))
    reals = 25 * 32 + 2 * 32 + 2 * 32  # conv1, its BatchNorm, the one before the first sign
    reals += 64 + 128 + 128 + 256 + 256  # thresholds behind conv2 to conv5; alpha of conv6
    reals += 256 * 12 + 12
    weights = 9 * 32 * 64 + 9 * 64 * 128 + 9 * 128 * 128 + 16 * 128 * 256 + 256 * 256
    assert deploy.file_bytes(packed) == 4 * reals + (weights + 64 + 128 + 128 + 256) // 8


@needs_jit
@pytest.mark.parametrize("name", ["sketchanet-fbin", "sketchanet-wbin", "sketchanet-hybrid1"])
def test_binary_weights_are_bits_in_memory(name):
    packed = deploy.compile(models.build(name, num_classes=250, in_channels=1, input_size=225))
    held = {id(array): array.nbytes for array in arrays_in(packed.steps)}
    assert sum(held.values()) <= 1.3 * deploy.file_bytes(packed)


@needs_jit
def test_a_call_makes_few_binary_weights_real_at_a_time():
    packed = deploy.compile(models.build("sketchanet-wbin", num_classes=250, in_channels=1, input_size=81))
    largest = max(np.prod(step.shape) for step in packed.steps if isinstance(step, deploy.BinaryWeightConvolve))
    x = images(packed, 1)
    packed(x)
    tracemalloc.start()
    try:
        packed(x)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert largest == 9 * 256 * 256 and peak < 0.8 * 4 * largest


# ------------------------------------------------------------------------------------------- bad input


@pytest.fixture(scope="module")
def packed():
    return deploy.compile(
        trained(CHAIN, "fbin"), classes=["cat", "dog", "é\u2028"], preprocessing={"size": 8, "mean": 0.5}
    )


WRONG_INPUT = {
    "float64": (lambda x: x.astype(np.float64), "float32"),
    "float16": (lambda x: x.astype(np.float16), "float32"),
    "bytes": (lambda x: x.astype(np.uint8), "float32"),
    "a list": (lambda x: x.tolist(), "array"),
    "None": (lambda x: None, "array"),
    "one image": (lambda x: x[0], "4 axes"),
    "no image": (lambda x: x[:0], "empty"),
    "channels": (lambda x: x[..., :1], r"\(N, 8, 8, 2\)"),
    "more channels": (lambda x: np.repeat(x, 2, axis=3), r"\(N, 8, 8, 2\)"),
    "size": (lambda x: x[:, 1:], r"\(N, 8, 8, 2\)"),
    "channels first": (lambda x: x.transpose(0, 3, 1, 2), r"\(N, 8, 8, 2\)"),
    "NaN": (lambda x: np.where(x == x.max(), np.float32(np.nan), x), "NaN"),
}


@pytest.mark.parametrize("wrong", WRONG_INPUT)
def test_wrong_images_are_refused(wrong, packed):
    change, text = WRONG_INPUT[wrong]
    with pytest.raises((TypeError, ValueError), match="^x: .*" + text):
        packed(change(images(packed, 2)))


def test_images_may_lie_in_memory_as_they_like(packed):
    x = images(packed, 3)
    expected = packed(x)
    assert np.array_equal(packed(np.asfortranarray(x)), expected)
    assert np.array_equal(packed(x[::-1].copy()[::-1]), expected)
    kept = x.copy()
    kept.flags.writeable = False
    assert np.array_equal(packed(kept), expected)
    assert np.array_equal(x, images(packed, 3))  # not overwritten


def test_a_network_without_a_definition_says_so():
    with pytest.raises(ValueError, match=r"models\.build"):
        deploy.compile(layers.Sequential([layers.ReLU("relu")]))


@pytest.mark.parametrize("classes", [["a", "b"], ["a", "b", "c", "d"]])
def test_compile_refuses_another_number_of_names_than_classes(classes):
    with pytest.raises(ValueError, match="classes"):
        deploy.compile(trained(CHAIN, "fbin", steps=0), classes=classes)


def test_compile_refuses_a_diverged_network():
    model = trained(CHAIN, "fbin", steps=0)
    next(layer for layer in model.walk() if layer.name == "map.bn").params["gamma"][0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        deploy.compile(model)


@needs_jit
def test_a_float64_network_is_refused_or_computes_in_float32():
    model = trained(CHAIN, "wbin", steps=0)
    for _, layer, key in model.parameters():
        layer.params[key] = layer.params[key].astype(np.float64)
    try:
        packed = deploy.compile(model)
    except (TypeError, ValueError) as error:
        assert "float32" in str(error)
    else:
        x = images(packed, 2)
        assert np.allclose(packed(x), model.forward(x.astype(np.float64)), rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------- none of these


def test_doubt_is_a_class_with_one_logit_for_all():
    packed = deploy.compile(trained(ONE_BINARY, "fbin"), classes=["a", "b", "c"])
    x = images(packed, 200)
    doubting = deploy.with_doubt(packed, [x[:150], x[150:]])
    largest = packed(x).max(axis=1)
    assert packed.none_of_these is None and doubting.none_of_these == pytest.approx(np.quantile(largest, 0.2))
    rows = deploy.best(doubting, x)
    assert np.mean([row[0][0] == deploy.NONE for row in rows]) == pytest.approx(deploy.DOUBTED, abs=0.03)
    for row, known, logits in zip(rows, deploy.best(packed, x), packed(x), strict=True):
        shares = dict(row)
        assert len(row) == 4 and sum(shares.values()) == pytest.approx(1)
        assert (row[0][0] == deploy.NONE) == (logits.max() < doubting.none_of_these)
        assert shares["a"] / shares[deploy.NONE] == pytest.approx(np.exp(logits[0] - doubting.none_of_these), rel=1e-3)
        assert [name for name, _ in row if name != deploy.NONE] == [name for name, _ in known]
    assert np.array_equal(doubting(x), packed(x))  # logits are those of the classes alone


def test_doubt_needs_images():
    with pytest.raises(ValueError, match="batches"):
        deploy.with_doubt(deploy.compile(trained(ONE_BINARY, "fbin", steps=0)), [])
