"""Chapter 6, train: loss, optimisers, schedules, golden steps against a slow network, the loop, evaluation.

Sections, in the order in which a bug is best looked for: loss, optimisers, schedules, centre and clamp, golden steps,
the loop, smoothing and distillation, checkpoints, not-finite numbers, evaluation, recalibration.
"""

import itertools

import numpy as np
import pytest
from conftest import JIT, assert_close, random_arrays, thin

from hbn_ref import deploy, files, layers, models, reference, train
from hbn_ref.models import average, classifier, conv, dropout, max_pool
from hbn_ref.testing import check_vjp

TINY = [
    conv("conv1", 4, 3, padding=1), max_pool(2), conv("conv2", 6, 3, padding=1), max_pool(2),
    conv("conv3", 6, "map"), conv("conv4", 5, 1), classifier(),
]  # fmt: skip
WITH_DROPOUT = [conv("conv1", 4, 3, stride=2), conv("conv2", 6, 3), average(), dropout(0.3), classifier()]


def tiny(variant="hybrid", definition=TINY, **options):
    if variant == "hybrid":
        options.setdefault("keep_real", ["conv3"])
    return models.build(definition, variant, num_classes=3, in_channels=1, input_size=8, **options)


def drawings(count=12, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, 8, 8, 1)).astype(np.float32), np.arange(count) % 3


def copy(state):
    return {name: value.copy() for name, value in state.items()}


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


# ----------------------------------------------------------------------------------------------- loss


def test_loss_agrees_with_the_reference_and_central_differences():
    logits, labels = random_arrays(0, (5, 4)) * 3, np.array([0, 3, 1, 1, 2])
    loss, dlogits = train.softmax_cross_entropy(logits, labels)
    expected, dexpected = reference.softmax_cross_entropy(logits, labels)
    assert abs(loss - expected) < 1e-12
    assert_close(dlogits, dexpected, 1e-12)
    check_vjp(
        lambda z: (np.array(train.softmax_cross_entropy(z, labels)[0]), z),
        lambda dout, z: dout * train.softmax_cross_entropy(z, labels)[1],
        (logits,),
        elementwise=True,
    )


def test_loss_of_huge_logits_does_not_overflow():
    loss, dlogits = train.softmax_cross_entropy(np.array([[1e4, -1e4, 0]], np.float32), np.array([1]))
    assert loss == pytest.approx(2e4) and dlogits.dtype == np.float32
    assert dlogits.tolist() == [[1, -1, 0]]


@pytest.mark.parametrize("labels", [[0, 3], [-1, 0], [0.0, 1.0], [0], [[0, 1]], [], [True, False]])
def test_labels_that_do_not_fit_are_refused(labels):
    with pytest.raises((ValueError, TypeError), match="labels"):
        train.softmax_cross_entropy(np.zeros((2, 3)), np.array(labels))


def some_targets(count, classes, seed=0):
    """Shares of each class, none of them 0, with the sum 1."""
    shares = np.random.default_rng(seed).random((count, classes)) + 0.1
    return shares / shares.sum(axis=1, keepdims=True)


def test_loss_with_a_target_agrees_with_a_slow_loop_and_central_differences():
    logits, labels, target = random_arrays(0, (5, 4)) * 3, np.array([0, 3, 1, 1, 2]), some_targets(5, 4)
    loss, _ = train.softmax_cross_entropy(logits, labels, target)
    slow = 0.0
    for n in range(5):
        for c in range(4):
            slow -= target[n, c] * np.log(np.exp(logits[n, c]) / np.exp(logits[n]).sum()) / 5
    assert loss == pytest.approx(slow, abs=1e-12)
    check_vjp(
        lambda z: (np.array(train.softmax_cross_entropy(z, labels, target)[0]), z),
        lambda dout, z: dout * train.softmax_cross_entropy(z, labels, target)[1],
        (logits,),
        elementwise=True,
    )


def test_one_hot_shares_as_a_target_are_the_labels_themselves():
    logits, labels = random_arrays(0, (5, 4), dtype=np.float32), np.array([0, 3, 1, 1, 2])
    loss, dlogits = train.softmax_cross_entropy(logits, labels)
    same_loss, same_dlogits = train.softmax_cross_entropy(logits, labels, np.eye(4, dtype=np.float32)[labels])
    assert loss == same_loss and np.array_equal(dlogits, same_dlogits)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradient_of_the_loss_has_the_type_of_the_logits(dtype):
    logits, labels = random_arrays(0, (5, 4), dtype=dtype), np.arange(5) % 4
    for target in (None, some_targets(5, 4), some_targets(5, 4).astype(np.float32)):
        assert train.softmax_cross_entropy(logits, labels, target)[1].dtype == dtype


@pytest.mark.parametrize("smoothing, distillation", [(0, 0), (0.1, 0), (0, 0.5), (0.3, 0.25), (1, 0), (0.2, 1)])
def test_soft_target_agrees_with_a_slow_loop(smoothing, distillation):
    labels, teacher = np.array([2, 0, 0, 1]), random_arrays(1, (4, 3)) * 2
    target = train.soft_target(labels, 3, smoothing, teacher, distillation)
    assert target.dtype == np.float32 and target.sum(axis=1) == pytest.approx(1)
    for n in range(4):
        for c in range(3):
            own = (1 - smoothing) * (labels[n] == c) + smoothing / 3
            said = np.exp(teacher[n, c]) / sum(np.exp(value) for value in teacher[n])
            assert target[n, c] == pytest.approx((1 - distillation) * own + distillation * said, abs=1e-6)


def test_soft_target_without_a_teacher_is_smoothed_labels():
    target = train.soft_target(np.array([1, 0]), 4, 0.2, distillation=0.7)
    np.testing.assert_allclose(target, [[0.05, 0.85, 0.05, 0.05], [0.85, 0.05, 0.05, 0.05]], rtol=1e-6)
    assert train.soft_target(np.array([1, 0]), 3).tolist() == [[0, 1, 0], [1, 0, 0]]


@pytest.mark.parametrize("labels", [[0, 3], [-1, 0], [0.0, 1.0], []])
def test_soft_target_refuses_labels_that_do_not_fit(labels):
    with pytest.raises(ValueError, match="labels"):
        train.soft_target(np.array(labels), 3, 0.1)


@pytest.mark.parametrize("shape", [(2, 1), (2, 4), (1, 3)])
def test_a_teacher_of_other_classes_is_refused(shape):
    with pytest.raises(ValueError, match="teacher: expected shape"):
        train.soft_target(np.array([0, 1]), 3, teacher=np.zeros(shape), distillation=0.5)


def test_soft_target_of_a_sure_teacher_does_not_overflow():
    target = train.soft_target(np.array([1]), 3, 0.0, np.array([[1e4, 0, -1e4]], np.float32), 0.5)
    assert target.tolist() == [[0.5, 0.5, 0]]


# ----------------------------------------------------------------------------------------- optimisers


def one_parameter(w):
    return layers.Sequential([layers.Linear("a", w.copy(), bias=False)])


ADAMS = [{"lr": 0.01}, {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-3}]
SGDS = [
    {"lr": 0.1, "momentum": 0.0},
    {"lr": 0.1, "momentum": 0.9},
    {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    {"lr": 0.1, "momentum": 0.5, "nesterov": True, "weight_decay": 0.2},
]


@pytest.mark.parametrize("options", ADAMS)
def test_adam_agrees_with_the_reference(options):
    w, *gradients = random_arrays(0, *[(1, 1, 3, 4)] * 5)
    model, adam = one_parameter(w), train.Adam(**options)
    settings = {"lr": options["lr"], "eps": options.get("eps", 1e-8)}
    settings["beta1"], settings["beta2"] = options.get("betas", (0.9, 0.999))
    m = v = np.zeros_like(w)
    for t, g in enumerate(gradients, start=1):
        model.layers[0].grads["w"] = g.copy()
        adam.step(model)
        w, m, v = reference.adam_step(w, g, m, v, t, **settings)
        assert_close(model.layers[0].params["w"], w, 1e-12)
        assert np.array_equal(model.layers[0].grads["w"], g)


@pytest.mark.parametrize("options", SGDS)
def test_sgd_agrees_with_the_reference(options):
    w, *gradients = random_arrays(0, *[(1, 1, 3, 4)] * 5)
    model, sgd, velocity = one_parameter(w), train.SGD(**options), np.zeros_like(w)
    for g in gradients:
        model.layers[0].grads["w"] = g.copy()
        sgd.step(model)
        w, velocity = reference.sgd_step(w, g, velocity, **options)
        assert_close(model.layers[0].params["w"], w, 1e-12)
        assert np.array_equal(model.layers[0].grads["w"], g)


@pytest.mark.parametrize("kind", [train.SGD, train.Adam])
def test_weight_decay_pulls_on_the_weights_of_real_convolutions_only(kind):
    model = tiny()
    for _, layer, key in model.parameters():
        layer.params[key] += 0.5
        layer.grads[key] = np.zeros_like(layer.params[key])
    before = copy(model.state())
    kind(lr=0.1, weight_decay=0.1).step(model)
    changed = {name for name, value in model.state().items() if not np.array_equal(before[name], value)}
    assert changed == {"conv1.w", "classifier.w"}


@pytest.mark.parametrize("name", train.OPTIMIZERS)
def test_optimiser_state_round_trip_gives_the_same_next_step(name):
    (w, g), results = random_arrays(0, (1, 1, 3, 4), (1, 1, 3, 4), dtype=np.float32), []
    for interrupted in (False, True):
        model, optimizer = one_parameter(w), train.OPTIMIZERS[name](lr=0.1)
        for step in range(4):
            model.layers[0].grads["w"] = g * (step + 1)
            optimizer.step(model)
            if interrupted and step == 1:
                state = copy(optimizer.state())
                optimizer = train.OPTIMIZERS[name](lr=0.1)
                optimizer.load_state(state)
        results.append(model.layers[0].params["w"])
    assert np.array_equal(*results)


# ------------------------------------------------------------------------------------------ schedules


def test_schedules_at_given_epochs():
    assert [train.constant(e, 10) for e in (0, 5, 9)] == [1, 1, 1]
    assert [train.cosine(e, 8) for e in (0, 4, 8)] == pytest.approx([1, 0.5, 0], abs=1e-12)
    assert train.cosine(2, 8) == pytest.approx((1 + np.sqrt(0.5)) / 2)
    assert [train.step(e, 8) for e in (0, 3.99, 4, 5.99, 6, 7)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    halved = [0.002 * train.halving(e, 600) for e in (0, 49.9, 50, 100, 250, 300, 599)]
    assert halved == pytest.approx([2e-3, 2e-3, 1e-3, 5e-4, 6.25e-5, 5e-5, 5e-5])  # PAPER.md, section 6


@pytest.mark.parametrize("name", train.SCHEDULES)
def test_rates_of_a_run_follow_the_schedule(name):
    used, x, y = [], *drawings(12)
    model = tiny("fprec")

    class Watched(train.SGD):
        def step(self, model):
            used.append(self.lr)
            super().step(model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(train.OPTIMIZERS, "sgd", Watched)
        train.fit(model, x, y, epochs=4, batch=6, lr=0.1, optimizer="sgd", schedule=name, progress=False)
    assert used == pytest.approx([0.1 * train.SCHEDULES[name](e / 2, 4) for e in range(8)])
    assert all(type(rate) is float for rate in used)  # a NumPy scalar would turn float32 updates into float64 ones


# ----------------------------------------------------------------------------------- centre and clamp


def test_centre_and_clamp_changes_the_latent_weights_of_binary_layers_only():
    model = tiny(last_layer="binary")
    for _, layer, key in model.parameters():
        layer.params[key] *= 8
    before = copy(model.state())
    train.centre_and_clamp(model)
    for name, value in model.state().items():
        if name in ("conv2.w", "conv3.w", "conv4.w", "classifier.w"):
            w = before[name].astype(np.float64)
            expected = np.clip(w - w.mean(axis=2, keepdims=True), -1, 1)
            assert (np.abs(expected) == 1).any() and (np.abs(expected) < 1).any()
            assert_close(value, expected, 1e-6)
        else:
            assert np.array_equal(value, before[name])


# -------------------------------------------------------------------------------------- golden steps

MARGIN = 1e-4  # no value may lie this near to where a sign, a ReLU or the straight-through window turns


def far_from(values, *corners, margin=MARGIN):
    """values, once it is sure that rounding in float32 cannot carry one of them over a corner.

    Zero itself is no danger: it comes from a ReLU or an exact count, the same in both precisions.
    """
    for corner in corners:
        distance = np.abs(values - corner)
        assert (distance[values != 0] > margin).all(), "unlucky seed: choose another"
    return values


class SlowHybrid:
    """TINY with conv3 real inputs, written out with reference functions, Adam and the paper's rule, in float64."""

    def __init__(self, model):
        self.p = {name: v.astype(np.float64) for name, v in model.state().items() if not name.endswith(("mean", "var"))}
        self.m = {name: np.zeros_like(value) for name, value in self.p.items()}
        self.v = {name: np.zeros_like(value) for name, value in self.p.items()}
        self.t = 0

    def norm(self, name, x):
        return reference.batchnorm_forward(x, self.p[f"{name}.bn.gamma"], self.p[f"{name}.bn.beta"])

    def norm_back(self, name, dout, x):
        dx, self.g[f"{name}.bn.gamma"], self.g[f"{name}.bn.beta"] = reference.batchnorm_backward(
            dout, x, self.p[f"{name}.bn.gamma"]
        )
        return dx

    def xnor(self, name, x, padding):
        """alpha times the exact counts, so that equal counts stay equal for max pooling."""
        far_from(x, -1, 0, 1)
        w = far_from(self.p[f"{name}.w"], 0, margin=1e-5)
        return reference.alpha(w) * reference.xnor_conv2d_forward(x, w, padding=padding, scale=False)

    def xnor_back(self, name, dout, x, padding):
        w = self.p[f"{name}.w"]
        dx, g = reference.xnor_conv2d_backward(dout, x, w, padding=padding)
        self.g[f"{name}.w"] = reference.weight_gradient(g, w, "paper")
        return dx

    def step(self, x, labels, lr):
        p, pool = self.p, (2, 2)
        for name in ("conv2.w", "conv3.w", "conv4.w"):
            p[name] = np.clip(p[name] - p[name].mean(axis=2, keepdims=True), -1, 1)
        a1 = reference.conv2d_forward(x, p["conv1.w"], padding=1)
        b1 = far_from(self.norm("conv1", a1), 0)
        r1 = np.maximum(b1, 0)
        q1 = reference.max_pool_forward(r1, *pool)
        b2 = self.norm("conv2", q1)  # fully binary: BatchNorm, sign, conv, ReLU
        a2 = self.xnor("conv2", b2, 1)
        r2 = np.maximum(a2, 0)
        q2 = reference.max_pool_forward(r2, *pool)
        a3 = reference.binary_weight_conv2d_forward(q2, p["conv3.w"])  # real inputs: conv, BatchNorm, ReLU
        b3 = far_from(self.norm("conv3", a3), 0)
        r3 = np.maximum(b3, 0)
        b4 = self.norm("conv4", r3)
        a4 = self.xnor("conv4", b4, 0)
        r4 = np.maximum(a4, 0)
        logits = (reference.conv2d_forward(r4, p["classifier.w"]) + p["classifier.b"])[:, 0, 0]
        loss, dlogits = reference.softmax_cross_entropy(logits, labels)

        self.g = {"classifier.b": dlogits.sum(axis=0)}
        d, self.g["classifier.w"] = reference.conv2d_backward(dlogits[:, None, None], r4, p["classifier.w"])
        d = self.norm_back("conv4", self.xnor_back("conv4", d * (a4 > 0), b4, 0), r3)
        d = self.norm_back("conv3", d * (b3 > 0), a3)
        d, g = reference.binary_weight_conv2d_backward(d, q2, p["conv3.w"])
        self.g["conv3.w"] = reference.weight_gradient(g, p["conv3.w"], "paper")
        d = reference.max_pool_backward(d, r2, *pool)
        d = self.norm_back("conv2", self.xnor_back("conv2", d * (a2 > 0), b2, 1), q1)
        d = reference.max_pool_backward(d, r1, *pool)
        d = self.norm_back("conv1", d * (b1 > 0), a1)
        _, self.g["conv1.w"] = reference.conv2d_backward(d, x, p["conv1.w"], padding=1)

        self.t += 1
        for name in p:
            p[name], self.m[name], self.v[name] = reference.adam_step(
                p[name], self.g[name], self.m[name], self.v[name], self.t, lr
            )
        return loss, logits


GOLDEN_SEED, GOLDEN_LR = 3, 0.01
GOLDEN_LOSSES = [1.167619419077, 1.058811041744, 1.242130549445]
GOLDEN_WEIGHTS = {
    ("conv1.w", (0, 1, 0, 2)): -0.138948000,
    ("conv2.w", (1, 2, 3, 4)): 0.152333661,
    ("conv3.w", (1, 0, 5, 1)): 0.035836897,
    ("conv4.w", (0, 0, 2, 3)): -0.146232498,
    ("conv4.bn.beta", (1,)): 0.181249641,
    ("classifier.w", (0, 0, 4, 0)): 0.359180234,
    ("classifier.b", (2,)): -0.109231414,
}


def golden_model():
    """With beta = 0 the gradient of gamma would vanish before the next BatchNorm: start somewhere else."""
    model, rng = tiny(seed=GOLDEN_SEED), np.random.default_rng(GOLDEN_SEED)
    for _, layer, key in model.parameters():
        if key != "w":
            layer.params[key] += (0.3 * rng.standard_normal(layer.params[key].shape)).astype(np.float32)
    return model


def golden_batches():
    return [(random_arrays(100 + GOLDEN_SEED + k, (4, 8, 8, 1)), np.array([0, 1, 2, k])) for k in range(3)]


def test_three_slow_steps_give_the_pinned_numbers():
    slow = SlowHybrid(golden_model())
    losses = [slow.step(x, labels, GOLDEN_LR)[0] for x, labels in golden_batches()]
    assert losses == pytest.approx(GOLDEN_LOSSES, abs=1e-6)
    for (name, index), value in GOLDEN_WEIGHTS.items():
        assert slow.p[name][index] == pytest.approx(value, abs=1e-6), name


def test_fast_path_in_float64_takes_the_same_three_steps():
    model, adam = golden_model(), train.Adam(lr=GOLDEN_LR)
    slow = SlowHybrid(model)
    for _, layer, key in model.parameters():
        layer.params[key] = layer.params[key].astype(np.float64)
    for x, labels in golden_batches():
        loss, logits = train.train_step(model, x, labels, adam)
        expected, slow_logits = slow.step(x, labels, GOLDEN_LR)
        assert abs(loss - expected) < 1e-9
        assert_close(logits, slow_logits, 1e-9)
        for name, layer, key in model.parameters():
            assert_close(layer.grads[key], slow.g[name], 1e-8)
            assert_close(layer.params[key], slow.p[name], 1e-8)


def test_fast_path_in_float32_follows_one_step_at_a_time():
    """From the reference's state before each step.

    Tolerances, relative to the largest value: loss 1e-6, logits and gradients 1e-5. Adam divides a gradient by its own
    size, rounding and all: the new weights are compared, to 1e-6, with a reference step along the fast gradients.
    """
    model = golden_model()
    slow = SlowHybrid(model)
    for step, (x, labels) in enumerate(golden_batches()):
        adam = train.Adam(lr=GOLDEN_LR)
        adam.steps = step
        for name, layer, key in model.parameters():
            layer.params[key] = slow.p[name].astype(np.float32)
            adam.running[name] = [slow.m[name].astype(np.float32), slow.v[name].astype(np.float32)]
        m, v = copy(slow.m), copy(slow.v)
        loss, logits = train.train_step(model, x.astype(np.float32), labels, adam)
        before = copy(slow.p)
        expected, slow_logits = slow.step(x, labels, GOLDEN_LR)
        assert loss == pytest.approx(expected, rel=1e-6) and logits.dtype == np.float32
        assert_close(logits, slow_logits, 1e-5)
        for name, layer, key in model.parameters():
            gradient, w = layer.grads[key], before[name]
            assert_close(gradient, slow.g[name], 1e-5)
            assert np.abs(slow.g[name]).max() > 1e-4, name  # the step says something about this parameter
            if name in ("conv2.w", "conv3.w", "conv4.w"):
                w = np.clip(w - w.mean(axis=2, keepdims=True), -1, 1)
            stepped, _, _ = reference.adam_step(w, gradient.astype(np.float64), m[name], v[name], step + 1, GOLDEN_LR)
            assert layer.params[key].dtype == np.float32
            assert_close(layer.params[key], stepped, 1e-6)


# -------------------------------------------------------------------------------------------- the loop


def fit(model, epochs=4, **options):
    x, y = drawings()
    return train.fit(model, x, y, **{"epochs": epochs, "batch": 5, "lr": 0.01, "progress": False, **options})


@pytest.mark.parametrize("variant", thin(models.VARIANTS, 2))
def test_training_learns_the_drawings_by_heart(variant):
    model = tiny(variant, width=3 if JIT else 2)
    history = fit(model, epochs=25 if JIT else 15)
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]
    assert train.evaluate(model, *drawings())["top1"] > 60  # chance is 33


@pytest.mark.parametrize("optimizer", train.OPTIMIZERS)
def test_one_seed_gives_one_network(optimizer):
    noisy = {"prepare": lambda images, rng: images + rng.standard_normal(images.shape).astype(np.float32)}
    states = []
    for seed in (0, 0, 1):
        model = tiny("wbin", WITH_DROPOUT)
        fit(model, epochs=2, optimizer=optimizer, seed=seed, **noisy)
        states.append(model.state())
    assert same(states[0], states[1]) and not same(states[0], states[2])


def test_history_has_an_entry_an_epoch():
    rows, model = [], tiny()
    history = fit(model, epochs=3, validate=lambda m: {"val_top1": float(m is model)}, on_epoch=rows.append)
    assert history == rows and [row["epoch"] for row in history] == [1, 2, 3]
    keys = {"epoch", "loss", "top1", "flip_ratio", "lr", "seconds", "val_top1"}
    assert all(set(row) == keys and row["val_top1"] == 1 for row in history)
    assert all(0 <= row["flip_ratio"] < 1 and 0 <= row["top1"] <= 100 for row in history)
    assert [row["lr"] for row in history] == sorted((row["lr"] for row in history), reverse=True)


def test_without_tqdm_training_is_silent_and_the_same(monkeypatch, capsys):
    with_bar, without = tiny(), tiny()
    fit(with_bar, epochs=1, progress=True)
    assert "1/1" in capsys.readouterr().err
    monkeypatch.setattr(train.loop, "tqdm", None)  # as the module has it where tqdm cannot be imported
    fit(without, epochs=1, progress=True)
    assert capsys.readouterr().err == "" and same(without.state(), with_bar.state())


def test_every_image_is_seen_once_an_epoch():
    seen = []

    def prepare(images, rng):
        seen.append(images[:, 0, 0, 0].tolist())
        return images

    x, y = drawings(12)
    train.fit(tiny("fprec"), x, y, epochs=2, batch=5, prepare=prepare, progress=False)
    assert [len(batch) for batch in seen] == [5, 5, 2] * 2
    first, second = sum(seen[:3], []), sum(seen[3:], [])
    assert sorted(first) == sorted(second) == sorted(x[:, 0, 0, 0].tolist()) and first != second


def test_flip_ratio_counts_changed_signs():
    before = {"a": np.array([True, True, False]), "b": np.array([[True], [False]])}
    after = {"a": np.array([True, False, False]), "b": np.array([[False], [False]])}
    assert train.flip_ratio(before, after) == 2 / 5
    assert train.flip_ratio(before, before) == 0 and train.flip_ratio({}, {}) == 0
    signs = train.binary_signs(tiny())
    assert {name: value.shape for name, value in signs.items()} == {
        "conv2": (3, 3, 4, 6), "conv3": (2, 2, 6, 6), "conv4": (1, 1, 6, 5),
    }  # fmt: skip
    assert train.binary_signs(tiny("fprec")) == {}


BAD_FITS = [
    ("optimizer", "adamw"), ("schedule", "linear"), ("epochs", 0), ("batch", 2.5), ("lr", -0.1), ("lr", np.nan),
    ("weight_decay", -1.0), ("seed", -1), ("smoothing", -0.1), ("smoothing", 1.5), ("smoothing", np.nan),
    ("distillation", -0.1), ("distillation", 1.01), ("distillation", "half"),
]  # fmt: skip


@pytest.mark.parametrize("name, value", BAD_FITS)
def test_bad_settings_are_refused_by_name(name, value):
    with pytest.raises((ValueError, TypeError), match=f"^{name}"):
        fit(tiny(), **{name: value})


def test_images_and_labels_that_do_not_match_are_refused():
    x, y = drawings()
    for images, labels in ((x, y[:-1]), (x[:0], y[:0])):
        with pytest.raises(ValueError, match="labels"):
            train.fit(tiny(), images, labels, epochs=1, progress=False)
    for smoothing, labels in itertools.product((0.0, 0.1), (y + 1, y - 1)):
        with pytest.raises(ValueError, match="labels"):
            train.fit(tiny(), x, labels, epochs=1, smoothing=smoothing, progress=False)


def test_images_of_another_size_are_named_by_a_step():
    x, y = drawings()
    with pytest.raises(ValueError, match=r"^x: expected images \(N, 8, 8, 1\)"):
        train.train_step(tiny(), x[:, 1:], y, train.SGD())


# ----------------------------------------------------------------------------- smoothing and distillation


def old_loss(logits, labels, target=None):
    """The loss as it was before there were targets."""
    assert target is None
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    rows = np.arange(len(labels))
    dlogits = np.exp(log_p)
    dlogits[rows, labels] -= 1
    return float(-log_p[rows, labels].mean()), dlogits / logits.dtype.type(len(labels))


def test_without_smoothing_and_teacher_the_weights_are_those_of_before(monkeypatch):
    model, before = tiny(), tiny()
    history = fit(model, epochs=3, smoothing=0.0, distillation=0.5)
    monkeypatch.setattr(train.steps, "softmax_cross_entropy", old_loss)
    old = fit(before, epochs=3)
    assert same(model.state(), before.state())
    assert [row["loss"] for row in history] == pytest.approx([row["loss"] for row in old], rel=1e-6)


def a_teacher(seed=7):
    """A network with an opinion on every drawing."""
    teacher = tiny("fprec", seed=seed)
    fit(teacher, epochs=2, seed=seed)
    return teacher


def linear(seed):
    """One linear layer over the 64 pixels of a drawing: quick to train for long."""
    return one_parameter(0.3 * random_arrays(seed, (1, 1, 64, 3), dtype=np.float32))


def fit_linear(model, labels=None, **options):
    x, y = drawings()
    options = {"epochs": 30, "batch": 6, "lr": 0.02, "progress": False, **options}
    train.fit(model, x.reshape(12, 1, 1, 64), y if labels is None else labels, **options)
    return train.softmax(model.forward(x.reshape(12, 1, 1, 64)))


def test_smoothing_and_a_teacher_change_what_is_learned():
    states = []
    for options in (
        {}, {"smoothing": 0.1}, {"smoothing": 0.3}, {"teacher": linear(7)}, {"teacher": linear(7), "smoothing": 0.1},
        {"teacher": linear(7), "distillation": 0.9}, {"teacher": linear(8)},
    ):  # fmt: skip
        model = linear(1)
        fit_linear(model, epochs=2, **options)
        states.append(model.state())
    assert not any(same(a, b) for a, b in itertools.combinations(states, 2))


def test_a_teacher_that_has_no_say_changes_nothing():
    alone, taught = tiny(), tiny()
    fit(alone)
    fit(taught, teacher=a_teacher(), distillation=0.0)
    assert same(alone.state(), taught.state())


def test_a_network_taught_by_its_teacher_alone_comes_to_say_the_same_whatever_the_labels():
    _, y = drawings()
    teacher, networks = linear(7), [linear(1), linear(1)]
    wanted = train.softmax(teacher.forward(drawings()[0].reshape(12, 1, 1, 64)))
    told = [
        fit_linear(model, labels, teacher=teacher, distillation=1.0)
        for model, labels in zip(networks, (y, (y + 1) % 3), strict=True)
    ]
    assert np.array_equal(*told) and same(networks[0].state(), networks[1].state())
    np.testing.assert_allclose(told[0], wanted, atol=0.1)
    assert wanted.max(axis=1).min() < 0.8 and np.abs(wanted - np.eye(3)[y]).mean() > 0.2  # it says nothing trivial


def test_the_teacher_sees_the_same_batches_and_stays_as_it_was():
    model, teacher, seen = tiny(), a_teacher(), {"model": [], "teacher": []}
    before = copy(teacher.state())

    class Watching(layers.Sequential):
        def forward(self, x, training=False):
            assert not training
            seen["teacher"].append(x.tobytes())
            return teacher.forward(x)

    def prepare(images, rng):
        batch = images + rng.standard_normal(images.shape).astype(np.float32)
        seen["model"].append(batch.tobytes())
        return batch

    fit(model, epochs=2, teacher=Watching(teacher.layers), prepare=prepare)
    assert seen["teacher"] == seen["model"] and len(seen["model"]) == 6
    assert same(before, teacher.state())


def test_top1_of_the_history_counts_the_labels_whatever_the_target():
    teacher, (x, y) = a_teacher(), drawings()
    wrong = train.fit(tiny(), x, y, epochs=1, lr=0.0, batch=12, teacher=teacher, distillation=1.0, progress=False)
    plain = train.fit(tiny(), x, y, epochs=1, lr=0.0, batch=12, progress=False)
    assert wrong[0]["top1"] == plain[0]["top1"]


def test_smoothed_labels_keep_the_probabilities_from_the_ends():
    _, y = drawings()
    sure, smoothed = (fit_linear(linear(1), smoothing=smoothing)[np.arange(12), y] for smoothing in (0.0, 0.3))
    assert sure.min() > 0.9
    np.testing.assert_allclose(smoothed, 0.7 + 0.3 / 3, atol=0.05)


# ----------------------------------------------------------------------------------------- checkpoints


class Interrupt:
    """Ctrl-C after so many epochs."""

    def __init__(self, epoch):
        self.epoch = epoch

    def __call__(self, row):
        if row["epoch"] == self.epoch:
            raise KeyboardInterrupt


def without_seconds(history):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history]


@pytest.mark.parametrize("optimizer", train.OPTIMIZERS)
@pytest.mark.parametrize("variant, definition", [("hybrid", TINY), ("wbin", WITH_DROPOUT)])
def test_interrupted_training_goes_on_bit_for_bit(tmp_path, variant, definition, optimizer):
    path, whole = tmp_path / "run.npz", tiny(variant, definition)
    options = {
        "optimizer": optimizer,
        "prepare": lambda images, rng: images + rng.standard_normal(images.shape).astype(np.float32),
        "validate": lambda model: {"val_top1": train.evaluate(model, *drawings(seed=5))["top1"]},
    }
    expected = fit(whole, **options)
    with pytest.raises(KeyboardInterrupt):
        fit(tiny(variant, definition), checkpoint=path, on_epoch=Interrupt(2), **options)
    rows, again = [], tiny(variant, definition, seed=0)
    history = fit(again, checkpoint=path, on_epoch=rows.append, **options)
    assert [row["epoch"] for row in rows] == [3, 4]
    assert same(whole.state(), again.state())
    assert without_seconds(history) == without_seconds(expected)
    assert [file.name for file in tmp_path.iterdir()] == ["run.npz"]


def test_interrupted_distillation_goes_on_bit_for_bit(tmp_path):
    path, (whole, half, again) = tmp_path / "run.npz", (tiny("fbin", WITH_DROPOUT) for _ in range(3))
    options = {"smoothing": 0.1, "distillation": 0.4}
    expected = fit(whole, teacher=a_teacher(), **options)
    with pytest.raises(KeyboardInterrupt):
        fit(half, teacher=a_teacher(), checkpoint=path, on_epoch=Interrupt(2), **options)
    history = fit(again, teacher=a_teacher(), checkpoint=path, **options)
    assert same(whole.state(), again.state())
    assert without_seconds(history) == without_seconds(expected)


@pytest.mark.parametrize(
    "setting, options",
    [
        ("smoothing", {"smoothing": 0.2}), ("distillation", {"distillation": 0.6}), ("distillation", {"teacher": None}),
        ("teacher", {"teacher": tiny("fprec", seed=8)}),
    ],
)  # fmt: skip
def test_checkpoint_of_another_target_is_refused(tmp_path, setting, options):
    taught = {"teacher": a_teacher(), "smoothing": 0.1, "checkpoint": tmp_path / "run.npz"}
    fit(tiny(), epochs=1, **taught)
    with pytest.raises(files.FileError, match=f"run.npz.*other settings.*{setting}"):
        fit(tiny(), epochs=1, **{**taught, **options})


def test_interruption_inside_an_epoch_goes_on_from_its_start(tmp_path):
    whole, path, calls = tiny(), tmp_path / "run.npz", []
    fit(whole)

    def prepare(images, rng):
        calls.append(1)
        if len(calls) == 5:  # the second batch of the second epoch
            raise KeyboardInterrupt
        return images

    model = tiny()
    with pytest.raises(KeyboardInterrupt):
        fit(model, checkpoint=path, prepare=prepare)
    fit(model, checkpoint=path)
    assert same(whole.state(), model.state())


def test_finished_training_is_not_repeated(tmp_path):
    path, model = tmp_path / "run.npz", tiny()
    history, state = fit(model, checkpoint=path), copy(model.state())
    again = tiny()
    assert fit(again, checkpoint=path, on_epoch=lambda row: pytest.fail("trained again")) == history
    assert same(again.state(), state)


def test_whole_numbers_of_numpy_are_good_settings_for_a_checkpoint(tmp_path):
    fit(tiny(seed=np.int64(1)), epochs=np.int64(1), seed=np.int64(3), checkpoint=tmp_path / "run.npz")
    fit(tiny(), epochs=1, validate=lambda m: {"val_loss": np.float32(1)}, checkpoint=tmp_path / "other.npz")


OTHER = {
    "epochs": {"epochs": 5}, "batch": {"batch": 6}, "lr": {"lr": 0.02}, "optimizer": {"optimizer": "sgd"},
    "schedule": {"schedule": "step"}, "weight_decay": {"weight_decay": 0.1}, "seed": {"seed": 1},
}  # fmt: skip


@pytest.mark.parametrize("setting", [*OTHER, "spec", "images"])
def test_checkpoint_of_other_settings_is_refused_and_kept(tmp_path, setting):
    path, options = tmp_path / "run.npz", OTHER.get(setting, {})
    fit(tiny(), checkpoint=path)
    content = path.read_bytes()
    model = tiny(keep_real=["conv4"]) if setting == "spec" else tiny()
    before = copy(model.state())
    x, y = drawings(11 if setting == "images" else 12)
    settings = {"epochs": 4, "batch": 5, "lr": 0.01, "progress": False, **options}
    with pytest.raises(files.FileError, match=f"run.npz.*other settings.*{setting}"):
        train.fit(model, x, y, checkpoint=path, **settings)
    assert path.read_bytes() == content and same(before, model.state())


def damage(path, name):
    header, arrays = files.read_arrays(path, train.CHECKPOINT_FORMAT)
    if name == "settings":
        del header["settings"]
    elif name == "history":
        del header["history"]
    elif name == "foreign":
        arrays["elsewhere"] = np.ones(1)
    else:
        del arrays[name]
    files.write_arrays(path, header, arrays)


DAMAGES = ["half", "model/conv1.w", "optimizer/steps", "optimizer/conv1.w/m", "settings", "history", "foreign"]


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_checkpoint_is_a_file_error_and_changes_nothing(tmp_path, name):
    path = tmp_path / "run.npz"
    fit(tiny(), epochs=1, checkpoint=path)
    if name == "half":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        damage(path, name)
    model = tiny()
    before = copy(model.state())
    with pytest.raises(files.FileError, match="run.npz"):
        fit(model, epochs=1, checkpoint=path)
    assert same(before, model.state())


# ------------------------------------------------------------------------------------ not-finite numbers


@pytest.mark.parametrize("variant", models.VARIANTS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_not_finite_input_stops_training_naming_step_and_layer(variant, value):
    x, y = drawings()
    x[3, 2, 2, 0] = value
    with pytest.raises(FloatingPointError, match="step [123].*conv1"):
        train.fit(tiny(variant), x, y, epochs=1, batch=5, progress=False)


@pytest.mark.parametrize("variant", models.VARIANTS)
def test_a_not_finite_weight_stops_training_naming_step_and_layer(variant):
    model, adam, (x, y) = tiny(variant), train.Adam(), drawings(4)
    train.train_step(model, x, y, adam)
    next(found for found in model.walk() if found.name == "conv3").params["w"][0, 0, 0, 0] = np.nan
    with pytest.raises(FloatingPointError, match="step 2.*conv3"):
        train.train_step(model, x, y, adam)


# ------------------------------------------------------------------------------------------- evaluation


def scores(table):
    """A network whose logits for image k are row k of `table`."""
    table = np.asarray(table, np.float32)
    model = layers.Sequential([layers.Linear("a", np.eye(table.shape[1], dtype=np.float32)[None, None])])
    return model, table[:, None, None]


def test_top1_and_top5_count_the_rank_of_the_true_class():
    model, images = scores([[7, 6, 5, 4, 3, 2, 1]] * 7)
    found = train.evaluate(model, images, np.arange(7), batch=3)
    assert found["top1"] == pytest.approx(100 / 7) and found["top5"] == pytest.approx(500 / 7)
    assert found["count"] == 7
    expected, _ = reference.softmax_cross_entropy(images[:, 0, 0], np.arange(7))
    assert found["loss"] == pytest.approx(expected, rel=1e-6)


def test_top5_of_few_classes_is_always_right():
    model, images = scores([[3, 2, 1]] * 3)
    assert train.evaluate(model, images, np.arange(3))["top5"] == 100


def test_a_network_that_cannot_tell_classes_apart_is_right_by_chance_only():
    model, images = scores(np.zeros((20, 10)))
    found = train.evaluate(model, images, np.arange(20) % 10)
    assert found["top1"] <= 10 and found["top5"] <= 50  # one guess in ten, five in ten


def test_not_finite_scores_are_never_right():
    model, images = scores(np.full((4, 3), np.nan))
    try:
        found = train.evaluate(model, images, np.array([0, 1, 2, 0]))
    except (ValueError, FloatingPointError):
        return
    assert found["top1"] == 0


@pytest.mark.parametrize("label", [-1, 3])
def test_evaluation_refuses_labels_out_of_range(label):
    model, images = scores(np.eye(3))
    with pytest.raises(ValueError, match="labels"):
        train.evaluate(model, images, np.array([0, 1, label]))


def test_evaluation_does_not_depend_on_the_batch_and_changes_nothing():
    model, (x, y) = tiny(last_layer="binary"), drawings(12)
    fit(model, epochs=2)
    before = copy(model.state())
    results = [train.evaluate(model, x, y, batch=batch) for batch in (1, 5, 12, 64)]
    hits = [found.pop("hits") for found in results]
    for found, own in zip(results[1:], hits[1:], strict=True):
        assert found == pytest.approx(results[0], rel=1e-9) and np.array_equal(own, hits[0])
    assert same(before, model.state())
    assert all(layer.held is None for layer in model.walk() if isinstance(layer, layers.BinaryWeightConv))


def test_ten_crops_average_the_probabilities():
    model, (x, y) = tiny(), drawings(6)
    crops = np.stack([np.roll(x, shift, axis=2) for shift in range(10)])

    def prepare(images):
        first = next(i for i in range(6) if np.array_equal(x[i], images[0]))
        return crops[:, first : first + len(images)]

    found = train.evaluate(model, x, y, prepare=prepare, batch=4)
    p = np.zeros((6, 3))
    for crop in crops:
        e = np.exp(model.forward(crop).astype(np.float64))
        p += e / e.sum(axis=1, keepdims=True) / 10
    assert found["loss"] == pytest.approx(-np.log(p[np.arange(6), y]).mean(), rel=1e-6)
    assert found["top1"] == pytest.approx(100 * (p.argmax(axis=1) == y).mean())
    assert found["count"] == 6


def test_hits_are_the_images_recognised():
    model, images = scores([[3, 2, 1], [1, 3, 2], [1, 2, 3], [2, 2, 1], [2, 2, 1]])
    labels = np.array([0, 0, 2, 0, 1])
    for batch in (2, 5):
        found = train.evaluate(model, images, labels, batch=batch)
        assert found["hits"].dtype == bool
        assert found["hits"].tolist() == [True, False, True, True, False]  # of equal scores the first class is taken
        assert found["top1"] == 60


def test_a_packed_network_and_a_function_are_judged_like_the_model():
    model, (x, y) = tiny(), drawings()
    fit(model, epochs=2)
    crops = {"prepare": lambda images: np.stack([images, images[:, :, ::-1]])}
    for options in ({}, crops):
        expected = train.evaluate(model, x, y, batch=5, **options)
        for other in (deploy.compile(model), lambda x: model.forward(x)):
            found = train.evaluate(other, x, y, batch=5, **options)
            assert np.array_equal(found.pop("hits"), expected["hits"])
            assert found.items() <= expected.items()


def test_evaluation_refuses_nothing_to_evaluate():
    model, (x, y) = tiny(), drawings(3)
    for images, labels in ((x[:0], y[:0]), (x, y[:2])):
        with pytest.raises(ValueError, match="labels"):
            train.evaluate(model, images, labels)


def test_stored_images_are_refused_with_what_prepares_them():
    model, (x, y) = tiny(), drawings(3)
    stored = (255 * x).astype(np.uint8)
    for call in (
        lambda: train.fit(model, stored, y, epochs=1, progress=False),
        lambda: train.evaluate(model, stored, y),
        lambda: train.recalibrate_batchnorm(model, stored),
    ):
        with pytest.raises(TypeError, match=r"^images: expected float32 or float64, got uint8; .*evaluation_batch"):
            call()
    as_floats = train.evaluate(model, stored, y, prepare=lambda part: part.astype(np.float32) / 255)
    assert as_floats["count"] == 3
    by_a_function = train.evaluate(lambda part: model.forward(part.astype(np.float32)), stored, y)  # its own affair
    assert by_a_function["count"] == 3


# ---------------------------------------------------------------------------------------- recalibration


def test_recalibration_in_one_batch_gives_the_statistics_of_the_whole_set():
    model, (x, _) = tiny(definition=[conv("conv1", 4, 3), dropout(0.5), conv("conv2", 5, 3), average(), classifier()],
                         variant="fprec"), drawings()  # fmt: skip
    parameters = copy(model.state())
    drop = next(layer for layer in model.walk() if isinstance(layer, layers.Dropout))
    train.recalibrate_batchnorm(model, x, batch=len(x))
    first, state = model.layers[0].forward(x).astype(np.float64), model.state()
    assert_close(state["conv1.bn.mean"], first.mean(axis=(0, 1, 2)), 1e-6)
    assert_close(state["conv1.bn.var"], first.var(axis=(0, 1, 2), ddof=1), 1e-6)
    # what reaches conv2's BatchNorm: without dropout, conv1 normalised by the batch
    normed = reference.batchnorm_forward(first, state["conv1.bn.gamma"], state["conv1.bn.beta"])
    inputs = reference.conv2d_forward(np.maximum(normed, 0), state["conv2.w"])
    assert_close(state["conv2.bn.mean"], inputs.mean(axis=(0, 1, 2)), 1e-4)
    assert_close(state["conv2.bn.var"], inputs.var(axis=(0, 1, 2), ddof=1), 1e-4)
    assert drop.rate == 0.5
    assert all(layer.momentum == layers.MOMENTUM for layer in model.walk() if isinstance(layer, layers.BatchNorm))
    assert all(layer.cache is None for layer in model.walk())
    changed = {name for name, value in state.items() if not np.array_equal(parameters[name], value)}
    assert changed == {"conv1.bn.mean", "conv1.bn.var", "conv2.bn.mean", "conv2.bn.var"}


def test_recalibration_takes_all_batches_together_and_forgets_what_was_before():
    model, (x, _) = tiny("fprec"), drawings()
    model.layers[1].buffers["mean"][...] = 1e6
    train.recalibrate_batchnorm(model, x, batch=4)
    inputs = model.layers[0].forward(x).astype(np.float64)
    assert_close(model.layers[1].buffers["mean"], inputs.mean(axis=(0, 1, 2)), 1e-5)
    assert_close(model.layers[1].buffers["var"], inputs.var(axis=(0, 1, 2), ddof=1), 1e-5)


def test_recalibration_counts_what_differs_between_batches():
    """Images that come class by class: the spread between batches is spread, too."""
    model, (x, _) = tiny("fprec"), drawings()
    x = x + np.repeat(np.float32([0, 10, 20]), len(x) // 3)[:, None, None, None]
    train.recalibrate_batchnorm(model, x, batch=len(x) // 3)
    inputs = model.layers[0].forward(x).astype(np.float64)
    assert_close(model.layers[1].buffers["var"], inputs.var(axis=(0, 1, 2), ddof=1), 1e-4)


def test_recalibration_leaves_momentum_and_dropout_as_they_were_after_an_error():
    model = tiny("fprec", WITH_DROPOUT)
    with pytest.raises(TypeError):
        train.recalibrate_batchnorm(model, np.zeros((2, 8, 8, 1), np.uint8))
    assert [layer.rate for layer in model.walk() if isinstance(layer, layers.Dropout)] == [0.3]
    assert all(layer.momentum == layers.MOMENTUM for layer in model.walk() if isinstance(layer, layers.BatchNorm))


# ------------------------------------------------------------------------------- what the first readers found


def test_a_checkpoint_of_other_drawings_is_refused(tmp_path):
    (x, y), path = drawings(), tmp_path / "run.npz"
    train.fit(tiny(), x, y, epochs=1, checkpoint=path, progress=False)
    for images, labels in ((-x, y), (x, y[::-1].copy())):
        with pytest.raises(files.FileError, match="run.npz.*checksum"):
            train.fit(tiny(), images, labels, epochs=1, checkpoint=path, progress=False)


def test_what_is_judged_and_saved_is_centred_and_clamped():
    model, seen = tiny("fbin"), []

    def look(model):
        means = [np.abs(layer.params["w"].mean(axis=2)).max() for layer in model.walk() if hasattr(layer, "rule")]
        seen.append(max(means))
        return {}

    fit(model, epochs=2, validate=look)
    assert len(seen) == 2 and max(seen) < 1e-7
