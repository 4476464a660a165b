"""Chapter 8, hybrid: error forms, score, k-means on a line, partition, conversion.

Sections, in the order in which a bug is best looked for: errors, errors in a network, score, k-means, partition,
conversion, what the loss says, budgets.
"""

import itertools

import numpy as np
import pytest
from conftest import JIT, random_arrays
from hypothesis import given
from hypothesis import strategies as st

from hbn_ref import cost, hybrid, layers, models, reference, study, train
from hbn_ref.models import average, classifier, concat, conv, max_pool, residual

# Published scores (PAPER.md, section 3) and the number of the first one's layer.
SKETCHANET = [7.192, 14.398, 13.058, 15.476, 19.616, 41.402]
RESNET18 = [
    7.778, 8.461, 7.505, 7.681, 8.898, 7.159, 8.935, 8.603, 10.467, 8.399, 9.866, 10.005, 12.747, 10.787, 13.668,
    13.946,
]  # fmt: skip

# ---------------------------------------------------------------------------------------------- errors

FORMULAS = {
    "mse": lambda x: np.mean((x - np.where(x >= 0, 1, -1)) ** 2),
    "rmse": lambda x: np.sqrt(np.mean((x - np.where(x >= 0, 1, -1)) ** 2)),
    "normalised": lambda x: np.mean((x - np.where(x >= 0, 1, -1)) ** 2) / np.mean(x**2),
    "one_minus_square": lambda x: np.mean(np.abs(1 - np.clip(x, -1, 1) ** 2)),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("form", hybrid.FORMS)
def test_error_agrees_with_its_formula(form, dtype):
    x = (2 * random_arrays(0, (3, 4, 5, 6))).astype(dtype)
    x.ravel()[:3] = 0, -0.0, 1
    assert hybrid.binarization_error(x, form) == pytest.approx(FORMULAS[form](x.astype(np.float64)), rel=1e-12)
    assert isinstance(hybrid.binarization_error(x, form), float)


def test_forms_are_those_of_the_paper_and_the_first_is_the_default():
    assert tuple(hybrid.FORMS) == ("mse", "rmse", "normalised", "one_minus_square")
    x = random_arrays(0, (50,))
    assert hybrid.binarization_error(x) == hybrid.binarization_error(x, "mse")


@pytest.mark.parametrize("form", ["mse", "rmse", "normalised", "one_minus_square"])
def test_signs_have_no_error_and_zeros_the_largest(form):
    assert hybrid.binarization_error(np.array([1.0, -1.0, 1.0]), form) == 0
    assert hybrid.binarization_error(np.zeros(4), form) == (np.inf if form == "normalised" else 1)


def test_error_of_a_gaussian():
    x = np.random.default_rng(0).standard_normal(1_000_000)
    assert hybrid.binarization_error(x) == pytest.approx(2 - 2 * np.sqrt(2 / np.pi), abs=2e-3)  # 0.404


@pytest.mark.parametrize("x", [[], [np.nan, 1.0], [np.inf, 1.0]])
def test_error_of_nothing_or_of_not_finite_values_is_refused(x):
    with pytest.raises(ValueError, match="x: expected finite values"):
        hybrid.binarization_error(np.array(x))


def test_unknown_form_is_refused():
    with pytest.raises(ValueError, match="form.*'mse'.*'l1'"):
        hybrid.binarization_error(np.ones(3), "l1")


# ---------------------------------------------------------------------------------- errors in a network

TINY = [
    conv("conv1", 4, 3, padding=1), max_pool(2), conv("conv2", 6, 3, padding=1), conv("conv3", 5, 1), average(),
    classifier(),
]  # fmt: skip


def tiny(variant="fbin", **options):
    model = models.build(TINY, variant, num_classes=3, in_channels=2, input_size=8, **options)
    for k in range(3):  # running statistics that differ from the batch's
        model.forward(2 * random_arrays(k, (4, 8, 8, 2), dtype=np.float32), training=True)
    return model


@pytest.mark.parametrize("form", hybrid.FORMS)
def test_errors_are_measured_after_batchnorm_where_the_sign_is_taken(form):
    model, x = tiny(), random_arrays(9, (5, 8, 8, 2), dtype=np.float32)
    taken, value = {}, x
    for layer in model.layers:
        if isinstance(layer, layers.XnorConv):
            taken[layer.name] = value.astype(np.float64)  # what BatchNorm, with its running statistics, made
        value = layer.forward(value.copy())
    before = {name: array.copy() for name, array in model.state().items()}
    errors = hybrid.binarization_errors(model, [x[:2], x[2:]], form)  # batches of unequal size
    assert list(errors) == ["conv2", "conv3"]
    for name, error in errors.items():
        assert error == pytest.approx(FORMULAS[form](taken[name]), rel=1e-6)
    assert all(np.array_equal(before[name], array) for name, array in model.state().items())
    assert all(layer.watch is None for layer in model.walk())


def test_errors_of_a_hybrid_leave_out_what_is_kept_real():
    model = tiny("hybrid", keep_real=["conv2"])
    assert list(hybrid.binarization_errors(model, [np.ones((1, 8, 8, 2), np.float32)])) == ["conv3"]


def test_errors_need_binary_inputs_and_a_batch():
    x = np.ones((1, 8, 8, 2), np.float32)
    for model, batches in ((tiny("wbin"), [x]), (tiny(), [])):
        with pytest.raises(ValueError, match="model: no layer with binary inputs"):
            hybrid.binarization_errors(model, batches)
    with pytest.raises(ValueError, match="form"):
        hybrid.binarization_errors(tiny(), [x], "l1")


# ----------------------------------------------------------------------------------------------- score


def test_metric_agrees_with_its_formula():
    errors, macs = [0.5, 0.4, 0.9], [100, 600, 300]
    assert hybrid.metric(errors, macs, 0.02).tolist() == pytest.approx([0.5 + 0.2, 0.4 + 0.02 / 0.6, 0.9 + 0.02 / 0.3])
    assert hybrid.metric(errors, macs, 0).tolist() == errors
    assert np.array_equal(hybrid.metric(errors, [1000 * m for m in macs], 0.02), hybrid.metric(errors, macs, 0.02))


def test_balanced_gamma_gives_both_terms_equal_geometric_means():
    errors, macs = [0.5, 0.4, 0.9], [3_000_000, 600, 90_000]
    gamma = hybrid.balanced_gamma(errors, macs)
    assert np.prod(errors) == pytest.approx(np.prod([gamma * sum(macs) / m for m in macs]))
    assert np.array_equal(hybrid.metric(errors, macs), hybrid.metric(errors, macs, gamma))


def test_balanced_gamma_leaves_out_layers_without_an_error():
    assert hybrid.balanced_gamma([0.0, 0.5], [1, 3]) == pytest.approx(0.5 * 3 / 4)
    assert hybrid.balanced_gamma([0.0, 0.0], [1, 3]) == 0


# Errors of the authors' logs (PAPER.md, section 3), and the MACs of Sketch-A-Net's conv2 to conv7.
LOGGED = np.array([0.608, 0.620, 0.782, 0.791, 0.684, 0.943])


@pytest.mark.parametrize("errors", [LOGGED, LOGGED**2], ids=["rmse", "mse"])
@pytest.mark.parametrize("ratio, kept", [(1 / 7, ["conv7"]), (2 / 7, ["conv6", "conv7"])])
def test_the_balance_makes_the_authors_choice_of_their_own_errors(errors, ratio, kept):
    model = models.build("sketchanet", "fbin", num_classes=250, in_channels=1, input_size=225, init=False)
    rows = [row for row in cost.table(model)["layers"] if row["inputs"] == "binary"]
    scores = hybrid.metric(errors, [row["macs"] for row in rows])
    assert [rows[i]["layer"] for i in hybrid.partition(scores, ratio, study.CLUSTERS, total=7)] == kept


BAD_METRICS = [
    ([0.1, 0.2], [1], 1.0, "macs"),
    ([], [], 1.0, "macs"),
    ([0.1, np.nan], [1, 2], 1.0, "errors"),
    ([0.1, 0.2], [1, 0], 1.0, "macs"),
    ([0.1, 0.2], [1, np.nan], 1.0, "macs"),
    ([0.1, 0.2], [1, np.inf], 1.0, "macs"),
    ([0.1, 0.2], [1, np.nan], None, "macs"),
    ([0.1, 0.2], [1, 2], np.nan, "gamma"),
    ([0.1, 0.2], [1, 2], -0.1, "gamma"),
]


@pytest.mark.parametrize("errors, macs, gamma, name", BAD_METRICS)
def test_metric_refuses_bad_values_by_name(errors, macs, gamma, name):
    with pytest.raises(ValueError, match=name):
        hybrid.metric(errors, macs, gamma)


# --------------------------------------------------------------------------------------------- k-means


def spread(values):
    values = np.asarray(values, float)
    return ((values - values.mean()) ** 2).sum()


def least_spread(values, clusters):
    """Over every way to cut the values, in any grouping, into so many clusters that are not empty."""
    best = np.inf
    for labels in itertools.product(range(clusters), repeat=len(values)):
        groups = [[v for v, label in zip(values, labels) if label == k] for k in range(clusters)]
        if all(groups):
            best = min(best, sum(spread(group) for group in groups))
    return best


numbers = st.one_of(st.integers(-5, 5).map(float), st.floats(-100, 100, width=32))


@given(st.lists(numbers, min_size=1, max_size=6 if JIT else 5), st.data())
def test_kmeans_finds_the_least_spread_of_all_partitions(values, data):
    clusters = data.draw(st.integers(1, min(3, len(values))))
    found = hybrid.kmeans_1d(values, clusters)
    assert len(found) == clusters and all(found)
    assert sorted(sum(found, [])) == list(range(len(values)))
    assert np.all(np.diff([values[i] for i in sum(found, [])]) >= 0)  # clusters and members in ascending order
    total = sum(spread([values[i] for i in cluster]) for cluster in found)
    assert total == pytest.approx(least_spread(values, clusters), rel=1e-9, abs=1e-6)


def test_kmeans_by_hand():
    assert hybrid.kmeans_1d([5.0, 1.0, 5.5, 0.0, 9.0], 3) == [[3, 1], [0, 2], [4]]
    assert hybrid.kmeans_1d([3.0, 1.0, 2.0], 3) == [[1], [2], [0]]
    assert hybrid.kmeans_1d([3.0, 1.0], 1) == [[1, 0]]


@pytest.mark.parametrize("clusters", [0, 4])
def test_kmeans_refuses_clusters_that_cannot_be(clusters):
    with pytest.raises(ValueError, match="clusters"):
        hybrid.kmeans_1d([1.0, 2.0, 3.0], clusters)


# ------------------------------------------------------------------------------------------- partition

PUBLISHED = [  # scores, number of the first one's layer, ratio, clusters, total, layers kept real
    (SKETCHANET, 2, 1 / 7, 2, 7, {7}),
    (SKETCHANET, 2, 2 / 7, 2, 7, {7}),
    (SKETCHANET, 2, 2 / 7, 4, 7, {6, 7}),
    (RESNET18, 2, 2 / 19, 2, 19, {16, 17}),
]


@pytest.mark.parametrize("scores, first, ratio, clusters, total, expected", PUBLISHED)
def test_published_scores_give_the_published_layers(scores, first, ratio, clusters, total, expected):
    kept = hybrid.partition(scores, ratio, clusters, total=total)
    assert kept == sorted(kept) and {first + position for position in kept} == expected


def test_two_clusters_are_the_default_and_the_ratio_is_of_the_scores():
    assert hybrid.partition(SKETCHANET, 1 / 7, total=7) == hybrid.partition(SKETCHANET, 1 / 7, 2, total=7) == [5]
    assert hybrid.partition(SKETCHANET, 1 / 6) == [5] and hybrid.partition(SKETCHANET, 1 / 7) == []


def test_a_first_cluster_too_large_is_split():
    scores = [1, 1.1, 1.2, 8, 9, 9.6]  # two clusters: three layers above
    assert hybrid.partition(scores, 3 / 6) == [3, 4, 5]
    assert hybrid.partition(scores, 2 / 6) == [4, 5]  # three clusters: {8}, {9, 9.6}
    assert hybrid.partition(scores, 1 / 6) == [5]


def test_taking_stops_at_the_first_cluster_that_does_not_fit():
    scores = [1, 5, 5.1, 5.2, 9]  # three clusters; the middle one is too large, the lowest would fit
    assert hybrid.partition(scores, 2 / 5, 3) == [4]


@pytest.mark.parametrize("count", range(1, 20))
def test_a_ratio_of_k_of_n_allows_k_layers(count):
    scores = list(range(19))
    assert len(hybrid.partition(scores, count / 19, 19)) == count


def test_nothing_fits_and_everything_fits():
    assert hybrid.partition(SKETCHANET, 0) == []
    assert hybrid.partition(SKETCHANET, 0.1) == []
    for clusters in (1, 2, 3, 6, 99):
        assert hybrid.partition(SKETCHANET, 1.0, clusters) == [0, 1, 2, 3, 4, 5]
    assert hybrid.partition([3.0], 1.0) == [0]


def test_equal_scores_never_exceed_the_ratio():
    for ratio in (0, 0.2, 0.5, 0.99):
        assert len(hybrid.partition([2.0] * 6, ratio)) <= 6 * ratio


@given(
    st.lists(numbers, min_size=1, max_size=8), st.floats(0, 1), st.integers(1, 4), st.integers(0, 5)
)  # fmt: skip
def test_partition_takes_the_highest_scores_within_the_ratio(scores, ratio, clusters, more):
    total = len(scores) + more
    kept = hybrid.partition(scores, ratio, clusters, total=total)
    assert len(kept) <= ratio * total + 1e-6
    left = [scores[i] for i in range(len(scores)) if i not in kept]
    assert not kept or not left or min(scores[i] for i in kept) >= max(left)
    if ratio * total >= 1:
        assert kept  # clusters of one always fit


BAD_PARTITIONS = [
    ({"ratio": -0.1}, "ratio"),
    ({"ratio": 1.5}, "ratio"),
    ({"ratio": float("nan")}, "ratio"),
    ({"clusters": 0}, "clusters"),
    ({"clusters": 2.5}, "clusters"),
    ({"scores": [1.0, float("nan")]}, "scores"),
    ({"scores": []}, "scores"),
    ({"scores": [[1.0, 2.0]]}, "scores"),
    ({"total": -1}, "total"),
]


@pytest.mark.parametrize("change, name", BAD_PARTITIONS)
def test_partition_refuses_bad_values_by_name(change, name):
    with pytest.raises((ValueError, TypeError), match=f"^{name}"):
        hybrid.partition(**{"scores": [1.0, 2.0], "ratio": 0.5, **change})


# ------------------------------------------------------------------------------------------ conversion


def kinds(model):
    return [type(layer) for layer in model.walk() if isinstance(layer, layers.Conv)]


@pytest.mark.parametrize("keep_real", [["conv2"], [2], 2, "conv2"])
def test_conversion_builds_the_hybrid_from_the_definition(keep_real):
    options = {"seed": 7, "rule": "exact", "pad_value": 1, "estimator": "approx_sign", "last_layer": "binary"}
    source = tiny(**options)
    before = {name: value.copy() for name, value in source.state().items()}
    made = hybrid.convert(source, keep_real)
    fresh = models.build(
        TINY, "hybrid", num_classes=3, in_channels=2, input_size=8, keep_real=["conv2"], **options
    )  # fmt: skip
    assert made.spec == fresh.spec and made.spec["keep_real"] == ["conv2"]
    assert kinds(made) == [layers.Conv, layers.BinaryWeightConv, layers.XnorConv, layers.BinaryWeightConv]
    assert made.state().keys() == fresh.state().keys()
    assert all(np.array_equal(made.state()[name], value) for name, value in fresh.state().items())  # untrained
    assert source.spec["variant"] == "fbin"
    assert all(np.array_equal(before[name], value) for name, value in source.state().items())


def test_conversion_keeps_the_name_and_refuses_unknown_layers():
    source = models.build("small", "fbin", num_classes=3, in_channels=1, input_size=16, width=0.1)
    made = hybrid.convert(source, ["conv6", 3])
    assert made.name == made.spec["name"] == "small" and made.spec["width"] == 0.1
    assert made.spec["keep_real"] == ["conv3", "conv6"]
    with pytest.raises(ValueError, match="keep_real: no layer 'conv9'"):
        hybrid.convert(source, ["conv9"])


def test_the_whole_chapter_in_a_row():
    model, x = tiny(), random_arrays(0, (6, 8, 8, 2), dtype=np.float32)
    train.fit(model, x, np.arange(6) % 3, epochs=1, progress=False)
    errors = list(hybrid.binarization_errors(model, [x]).values())
    scores = hybrid.metric(errors, [9 * 4 * 6 * 16, 6 * 5 * 16])
    kept = hybrid.partition(scores, 0.5)
    assert kept == [int(np.argmax(scores))]
    made = hybrid.convert(model, [kept[0] + 2])
    expected = reference.conv2d_forward(x, made.state()["conv1.w"], padding=1)
    assert np.allclose(made.layers[0].forward(x), expected, atol=1e-5)
    assert np.isfinite(made.forward(x)).all()


# ------------------------------------------------------------------------------------- what the loss says

COUNT = 12
IMAGES = random_arrays(5, (COUNT, 8, 8, 2), dtype=np.float32)
LABELS = np.arange(COUNT) % 3
ALL = {"batch": COUNT}  # one batch: BatchNorm's statistics on the way are those of all images


def by_hand(model, changed, x, labels):
    """Loss of a network without branches, step by step, with the other kind of inputs in the layer ``changed``."""
    measured = {}

    def normalise(name, value, gamma=1.0, beta=0.0):
        if name not in measured:
            measured[name] = value.mean((0, 1, 2)), value.var((0, 1, 2)), value.var((0, 1, 2), ddof=1)
            mean, var, _ = measured[name]
        else:
            mean, _, var = measured[name]
        return gamma * (value - mean) / np.sqrt(var + layers.EPS) + beta

    for _ in range(2):  # the first pass measures, the second computes with what was measured
        value = x.astype(np.float64)
        for layer in model.layers:
            w = layer.params.get("w")
            if isinstance(layer, layers.BatchNorm):
                value = normalise(layer.name, value, *(layer.params[key] for key in ("gamma", "beta")))
            elif w is None:
                value = layer.forward(value.copy())
            else:
                if layer.inputs == "binary":
                    value = value / np.abs(value).mean() if layer.name == changed else np.where(value >= 0, 1.0, -1.0)
                elif layer.name == changed:
                    value = np.where(normalise("new", value) >= 0, 1.0, -1.0)
                w = w.astype(np.float64)
                if layer.weights == "binary":
                    w = np.abs(w).mean((0, 1, 2)) * np.where(w >= 0, 1, -1)
                value = reference.conv2d_forward(value, w, stride=layer.stride, padding=layer.padding)
                value = value + layer.params.get("b", 0)
    return train.softmax_cross_entropy(value, labels)[0]


@pytest.mark.parametrize("variant", ["wbin", "fbin"])
def test_loss_sensitivity_agrees_with_a_slow_twin(variant):
    model = tiny(variant)
    for name, layer, key in model.parameters():
        if key in ("gamma", "beta"):
            layer.params[key] += 0.3 * random_arrays(len(name), layer.params[key].shape, dtype=np.float32)
    before = {name: array.copy() for name, array in model.state().items()}
    found = hybrid.loss_sensitivity(model, IMAGES, LABELS, **ALL)
    unchanged = by_hand(model, None, IMAGES, LABELS)
    for name in ("conv2", "conv3"):
        difference = by_hand(model, name, IMAGES, LABELS) - unchanged
        assert abs(difference) > 1e-3
        assert found[name] == pytest.approx(difference if variant == "wbin" else -difference, abs=2e-6)
    assert list(found) == ["conv2", "conv3"]
    assert all(np.array_equal(before[name], array) for name, array in model.state().items())


def lossless(variant):
    """A network whose conv2 sees two values in each channel, equally far apart, and images for it."""
    definition = [conv("conv1", 6, 1), conv("conv2", 9, 1), conv("conv3", 8, 1), average(), classifier()]
    model = models.build(definition, variant, num_classes=3, in_channels=6, input_size=8)
    state = model.state()
    state["conv1.w"][...] = np.eye(6)
    state["conv1.bn.beta"][...] = 1  # so that the ReLU leaves 0 and 2
    state["classifier.w"][...] *= 9
    rng = np.random.default_rng(3)
    each = rng.random((COUNT // 2, 1, 1, 6)) > rng.random((COUNT // 2, 8, 8, 6))  # images differ in their shares
    x = np.concatenate([each, ~each])  # half of all values: +1
    return model, np.where(x, 1, -1).astype(np.float32)


@pytest.mark.parametrize("variant", ["wbin", "fbin"])
def test_real_inputs_are_worth_nothing_where_a_sign_loses_nothing(variant):
    model, x = lossless(variant)
    found = hybrid.loss_sensitivity(model, x, LABELS, **ALL)
    assert (
        abs(found["conv2"]) < 2e-3 < 2e-2 < abs(found["conv3"])
    )  # conv1's variance is that of 768 values, then of 767


def test_alpha_left_out_is_left_out_of_real_inputs_too():
    model, x = lossless("fbin")
    spec = {**model.spec, "scale": False}
    without = models.from_spec(spec)
    without.load_state(model.state())
    found = hybrid.loss_sensitivity(without, x, LABELS, **ALL)
    assert abs(found["conv2"]) < 1e-6


def test_sensitivity_per_mac_is_divided_by_the_macs():
    model = tiny()
    plain = hybrid.loss_sensitivity(model, IMAGES, LABELS)
    macs = {row["layer"]: row["macs"] for row in cost.table(model)["layers"]}
    for name, value in hybrid.loss_sensitivity(model, IMAGES, LABELS, per_mac=True).items():
        assert value == plain[name] / macs[name]


@pytest.mark.parametrize("variant", ["wbin", "fbin"])
def test_layers_in_branches_are_found(variant):
    body = [conv("a", 4, 3, padding=1), conv("b", 4, 1, relu=False)]
    branches = concat("both", [conv("c", 3, 1)], [conv("d", 2, 3, padding=1)])
    definition = [conv("first", 4, 3, padding=1), residual("block", body), branches, average(), classifier()]
    model = models.build(definition, variant, num_classes=3, in_channels=2, input_size=8)
    found = hybrid.loss_sensitivity(model, IMAGES, LABELS)
    assert list(found) == ["a", "b", "c", "d"] and all(abs(value) > 1e-6 for value in found.values())
    assert sorted(hybrid.greedy_order(model, IMAGES, LABELS)) == list(found)


def test_sensitivity_needs_one_kind_of_inputs():
    for model in (tiny("fprec"), tiny("hybrid", keep_real=["conv2"])):
        for rule in (hybrid.loss_sensitivity, hybrid.greedy_order):
            with pytest.raises(ValueError, match="^model: expected a trained WBin or FBin"):
                rule(model, IMAGES, LABELS)


THREE = [conv("conv1", 4, 1), *(conv(name, 4, 1) for name in "abc"), average(), classifier()]
LOSSES = {  # layers with binary inputs: loss. b costs most alone, and little beside a
    "": 1.0, "a": 1.1, "b": 1.4, "c": 1.3, "ab": 1.45, "ac": 1.9, "bc": 1.6, "abc": 2.0,
}  # fmt: skip


@pytest.mark.parametrize(
    "variant, macs, order",
    [
        ("wbin", (1, 1, 1), "cba"),  # a becomes binary first (0.1), then b (0.35) and not c (0.8)
        ("fbin", (1, 1, 1), "cba"),  # c becomes real first (0.55), then b (0.35) and not a (0.05)
        ("wbin", (1, 1, 9), "abc"),  # c first (0.3 / 9), then b (0.3)
        ("fbin", (1, 1, 9), "abc"),  # a first (0.4), then b (0.3) and not c (0.2 / 9)
    ],
)
def test_greedy_order_by_hand(variant, macs, order, monkeypatch):
    model = models.build(THREE, variant, num_classes=3, in_channels=2, input_size=8)
    rows = [{"layer": name, "macs": count} for name, count in zip("abc", macs, strict=True)]
    monkeypatch.setattr(cost, "table", lambda model: {"layers": rows})

    def network(probe, names):
        probe.asked = names
        return model

    def judge(probe, network):
        return LOSSES["".join(name for name in "abc" if (name in probe.asked) != probe.binary)]

    monkeypatch.setattr(hybrid._Probe, "network", network)

    monkeypatch.setattr(hybrid._Probe, "judge", judge)
    assert "".join(hybrid.greedy_order(model, IMAGES, LABELS, per_mac=len(set(macs)) > 1)) == order


# ----------------------------------------------------------------------------------------------- budgets


@pytest.mark.parametrize(
    "count, operations, kept",
    [
        (None, None, "abcd"), (0, None, ""), (1, None, "c"), (2, None, "ac"), (9, None, "abcd"),
        (None, 10, "cd"), (None, 25, "acd"), (None, 9, "d"), (None, 0, ""), (1, 9, "d"), (2, 25, "ac"),
    ],
)  # fmt: skip
def test_within_a_budget_by_hand(count, operations, kept):
    macs = {"a": 15, "b": 40, "c": 9.5, "d": 0.5}
    assert "".join(hybrid.within("cabd", macs, count=count, operations=operations)) == kept
