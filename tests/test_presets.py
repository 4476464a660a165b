"""Top floor, presets: evidence, choice, ablation; their tables, plots, command line.

Everything runs on a few doodles and two tiny networks, put among models.NETWORKS for the time of a test.
"""

import dataclasses
import functools
import itertools

import numpy as np
import pytest
from conftest import JIT, thin
from matplotlib.figure import Figure

import data_tools
from data_tools import Dataset, augment, doodles
from hbn_ref import choices, cost, deploy, engine, files, hybrid, models, plots, presets, study, train
from hbn_ref.__main__ import main
from hbn_ref.models import classifier, conv, max_pool

START = [conv("conv1", 2, 3, stride=4), max_pool(2), conv("conv2", 3, 3, padding=1)]
FOUR = [*START, conv("conv3", 4, "map"), conv("conv4", 4, 1), classifier()]
SIX = [
    *START, conv("conv3", 3, 1), conv("conv4", 3, 1), conv("conv5", 4, "map"), conv("conv6", 4, 1), classifier(),
]  # fmt: skip
CLASSES = ("car", "cat", "sun")
TRAIN, VALIDATION, TEST = (5, 3, 4) if JIT else (3, 1, 2)  # drawings a class
EPOCHS, BATCH = 2, 6
BATCHES = -(-3 * (TRAIN + VALIDATION) // BATCH)  # an epoch of what is not test
CHOICE_BATCHES = -(-3 * TRAIN // BATCH)
ABLATION_BATCHES = -(-3 * (TRAIN + VALIDATION - (TRAIN + VALIDATION) // 4) // BATCH)
TINY = {"seeds": (0, 1), "epochs": EPOCHS, "batch": BATCH, "progress": False}
STUDIED = ["fprec", "wbin", "fbin", *presets.HYBRIDS]
NETWORKS = [*STUDIED, presets.LONGER]
CHOICES = ["none", "conv2", "conv3", "conv4", "conv2+conv3", "conv2+conv4", "conv3+conv4", "conv2+conv3+conv4"]
CHANGES = {
    "as it is": ({}, {}),
    "no distillation": ({"distillation": 0.0}, {}),
    "Crops, wider (by 0.1)": ({}, {"area": (0.5, 1.2), "erase": 0.3}),
}
EVIDENCE = {"model": "six", **TINY}
CHOICE = {"model": "four", **TINY}
ABLATION = {"model": "six", "changes": CHANGES, "repeated": 1, **TINY, "epochs": 4 * EPOCHS + 3}


@functools.lru_cache
def a_few(seed=0, kind=Dataset):
    data = doodles.load(size=16, classes=CLASSES, seed=seed, train=TRAIN, validation=VALIDATION, test=TEST)
    return kind(**vars(data))


def load(classes, seed, test=None):
    return a_few(seed)


@pytest.fixture(autouse=True, scope="module")
def tiny_networks():
    with pytest.MonkeyPatch.context() as patch:
        for name, definition in {"four": FOUR, "six": SIX}.items():
            patch.setitem(models.NETWORKS, name, definition)
        patch.setattr(study, "milliseconds_per_image", lambda *args: (1.5, 1.0))  # thirty slow forward passes
        yield


def wholly(preset, options, tmp_path_factory):
    """An uninterrupted preset: (folder, what it found)."""
    out = tmp_path_factory.mktemp("whole") / "a new folder"
    return out, preset(load, out, command="the command", **options)


@pytest.fixture(scope="module")
def evidence(tmp_path_factory):
    return wholly(presets.evidence, EVIDENCE, tmp_path_factory)


@pytest.fixture(scope="module")
def choice(tmp_path_factory):
    return wholly(presets.choice, CHOICE, tmp_path_factory)


@pytest.fixture(scope="module")
def ablation(tmp_path_factory):
    return wholly(presets.ablation, ABLATION, tmp_path_factory)


WHOLE = {
    "evidence": (presets.evidence, EVIDENCE),
    "choice": (presets.choice, CHOICE),
    "ablation": (presets.ablation, ABLATION),
}


def names(folder):
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def learned(out):
    """What tells one training from another: the losses of every epoch in every study, and every packed network."""
    losses, networks = {}, {}
    for path in out.glob("*/report.json"):
        variants = study.load_report(path)["variants"]
        losses[path.parent.name] = {name: [row["loss"] for row in own["history"]] for name, own in variants.items()}
    for path in out.glob("*/*-packed.npz"):
        _, arrays = files.read_arrays(path, deploy.FORMAT)
        networks[path.relative_to(out)] = {name: array.tobytes() for name, array in arrays.items()}
    return losses, networks


def without_times(found):
    """What a preset found without what differs from run to run."""
    if isinstance(found, dict):
        left_out = ("train_seconds", "machine", "command", "seconds", "rules")
        return {key: without_times(value) for key, value in found.items() if key not in left_out}
    return found


def entry(hits, **more):
    """A network that recognised some drawings, as a report has it."""
    packed = np.packbits(np.array(hits, bool)).tobytes().hex()
    return {"hits": packed, "count": len(hits), "top1": 100 * float(np.mean(hits)), **more}


# -------------------------------------------------------------------------------- who sees which drawings


@dataclasses.dataclass(frozen=True)
class Watched(Dataset):
    """Notes of each batch whether it is learned from or looked at, and its drawings, in order."""

    events = []

    def note(self, kind, images):
        self.events.append((kind, {image.tobytes() for image in images}))

    def training_batch(self, images, rng):
        self.note("train", images)
        return super().training_batch(images, rng)

    def evaluation_batch(self, images):
        self.note("look", images)
        return super().evaluation_batch(images)

    def ten_crops(self, images):
        self.note("look", images)
        return super().ten_crops(images)


@pytest.fixture
def watched(monkeypatch):
    """A load function whose data notes what is seen, and the notes."""
    monkeypatch.setattr(Watched, "events", [])
    return lambda classes, seed, test=None: a_few(seed, Watched), Watched.events


def drawings(*parts):
    return {image.tobytes() for images, _ in parts for image in images}


def test_evidence_learns_from_all_but_the_test_and_looks_at_the_test_after_the_last_epoch(watched, tmp_path):
    load, events = watched
    presets.evidence(load, tmp_path, **{**EVIDENCE, "seeds": (1,)})
    data = a_few(0)
    learned = set().union(*(seen for kind, seen in events if kind == "train"))
    looked_at = set().union(*(seen for kind, seen in events if kind == "look"))
    assert learned == drawings(data.train, data.validation) and len(learned) == 3 * (TRAIN + VALIDATION)
    assert looked_at == drawings(data.test) and not learned & looked_at
    runs = [(kind, len(list(batches))) for kind, batches in itertools.groupby(events, key=lambda event: event[0])]
    steps = [*[EPOCHS * BATCHES] * len(STUDIED), 2 * EPOCHS * BATCHES]
    assert [count for kind, count in runs if kind == "train"] == steps


def test_ablation_never_sees_a_test_drawing_and_never_learns_from_those_held_out(watched, tmp_path):
    load, events = watched
    presets.ablation(load, tmp_path, **{**ABLATION, "repeated": 0, "seeds": (3,)})
    data = a_few(0)
    development = data.development(3)
    learned = set().union(*(seen for kind, seen in events if kind == "train"))
    looked_at = set().union(*(seen for kind, seen in events if kind == "look"))
    assert learned == drawings(development.train) and looked_at == drawings(development.test)
    assert not (learned | looked_at) & drawings(data.test)


def test_choice_chooses_layers_on_validation_drawings_and_judges_on_test_drawings(watched, tmp_path):
    load, events = watched
    presets.choice(load, tmp_path, **{**CHOICE, "seeds": (1,), "epochs": 1})
    data = a_few(1)
    assert set().union(*(seen for kind, seen in events if kind == "train")) == drawings(data.train)
    assert set().union(*(seen for kind, seen in events if kind == "look")) == drawings(data.validation, data.test)


def test_which_data_is_asked_for(monkeypatch, tmp_path):
    """Evidence and ablation keep one split; choice splits anew for each seed, and takes ten classes."""
    asked = []

    def noting(**options):
        asked.append(options)
        return a_few()

    def no_study(*args, **options):
        raise ValueError("far enough")

    monkeypatch.setattr(study, "run", no_study)
    monkeypatch.setattr(train, "fit", no_study)
    for preset in (presets.evidence, presets.choice, presets.ablation):
        with pytest.raises(ValueError, match="far enough"):
            preset(noting, tmp_path, seeds=(7,))
    all_classes = {"classes": None, "seed": 0}
    assert asked == [all_classes, {"classes": 10, "seed": 7, "test": 300}, all_classes]


# ----------------------------------------------------------------------------------------------- evidence


def test_evidence_has_every_network_and_seed(evidence):
    out, found = evidence
    assert list(found) == NETWORKS and all(list(runs) == ["0", "1"] for runs in found.values())
    assert files.read_json(out / "evidence.json") == found
    documented = {"top1", "top5", "top1_ten_crops", "hits", "equivalent_ops", "train_seconds", "command", "machine"}
    for name, runs in found.items():
        for entry in runs.values():
            assert documented | {"weight_bytes", "file_bytes"} <= set(entry)
            epochs = 2 * EPOCHS if name == presets.LONGER else EPOCHS
            assert (entry["epochs"], entry["command"], entry["data"]) == (epochs, "the command", "doodles")
            assert (entry["classes"], entry["drawings"]) == (3, [3 * (TRAIN + VALIDATION), 0, 3 * TEST])
            assert 0 <= entry["top1"] <= entry["top5"] == 100 and entry["count"] == 3 * TEST
    longer = {f"seed{seed}-{presets.LONGER}" for seed in (0, 1)}
    assert names(out) == {"evidence.json", "seed0", "seed1", *longer}


def test_evidence_hybrids_are_those_of_the_preset(evidence):
    for name, options in presets.HYBRIDS.items():
        for entry in evidence[1][name].values():
            assert (entry["variant"], entry["kept_real"]) == ("hybrid", options["keep_real"])
            assert entry["last_layer"] == options.get("last_layer", "real")


def test_evidence_is_trained_by_the_recipe(evidence):
    for seed in (0, 1):
        settings = study.load_report(evidence[0] / f"seed{seed}" / "report.json")["settings"]
        wanted = {key: presets.RECIPE[key] for key in ("lr", "distillation")} | {"seed": seed, "model": "six"}
        assert wanted.items() <= settings.items()
        assert settings["augmentation"] == files.plain({**augment.AUGMENTATION, **presets.AUGMENTATION})
        assert settings["preprocessing"]["split_seed"] == 0


def test_evidence_figures_are_those_of_the_saved_networks(evidence):
    out, found = evidence
    data = a_few()
    for name in thin(STUDIED, 2):
        network = deploy.load(out / "seed1" / f"{name}-packed.npz")
        judged = train.evaluate(network, *data.test, prepare=data.evaluation_batch)
        own = found[name]["1"]
        assert (judged["top1"], judged["top5"]) == (own["top1"], own["top5"])
        assert np.array_equal(study.unpack_hits(own), judged["hits"])
        ten = train.evaluate(network, *data.test, prepare=data.ten_crops)
        assert own["top1_ten_crops"] == ten["top1"]


BY_HAND = {
    "a": {"0": entry([1, 1, 0, 1]), "1": entry([1, 0, 0, 1])},
    "b": {"0": entry([0, 1, 0, 0]), "1": entry([1, 1, 0, 0])},
}


def test_compare_by_hand():
    """Differences of a drawing over two seeds, in points: 50, -50, 0, 100; their spread is 64.55."""
    difference, error = presets.compare(BY_HAND, "a", "b")
    assert difference == 25
    assert error == pytest.approx(np.sqrt((25**2 + 75**2 + 25**2 + 75**2) / 3) / np.sqrt(4))
    assert presets.compare(BY_HAND, "b", "a") == pytest.approx((-25, error))
    assert presets.compare(BY_HAND, "a", "a") == (0, 0)


def test_compare_is_the_difference_of_the_means(evidence):
    found = evidence[1]
    for name in NETWORKS:
        tops = [np.mean([entry["top1"] for entry in found[n].values()]) for n in (name, "fprec")]
        assert presets.compare(found, name, "fprec")[0] == pytest.approx(tops[0] - tops[1])


def test_evidence_table_by_hand():
    costs = {"top5": 100.0, "top1_ten_crops": 50.0, "equivalent_ops": 1234.5, "weight_bytes": 99, "file_bytes": 5678}
    hits = {"fprec": BY_HAND["a"], "fbin": BY_HAND["b"]}
    found = {
        name: {
            seed: {**run, **costs, "ms_packed": 1 - int(seed) / 4, "train_seconds": 3.2 + int(seed)}
            for seed, run in runs.items()
        }
        for name, runs in hits.items()
    }
    titles, _, fprec, fbin, *rest = presets.evidence_table(found).splitlines()
    assert all(word in titles for word in ("network", "top-1 %", "minus FPrec", "minus FBin", "packed file"))
    assert fprec.split() == "fprec 2 62.5 100.0 50.0 75.0 50.0 25.0 +- 32.3 1,234.5 99 5,678 0.75 4".split()
    assert fbin.split() == "fbin 2 37.5 100.0 50.0 25.0 50.0 -25.0 +- 32.3 1,234.5 99 5,678 0.75 4".split()
    assert "standard error" in rest[-1]


def test_evidence_table_has_a_row_a_network(evidence):
    lines = presets.evidence_table(evidence[1]).splitlines()
    for name, line in zip(NETWORKS, lines[2:], strict=False):
        tops = [entry["top1"] for entry in evidence[1][name].values()]
        assert line.split()[:3] == [name, "2", f"{np.mean(tops):.1f}"]


def test_evidence_plot_shows_means_and_each_seed(evidence):
    found = evidence[1]
    figure = plots.evidence(found)
    assert isinstance(figure, Figure) and len(figure.axes) == 2
    for axis, key in zip(figure.axes, ("equivalent_ops", "file_bytes"), strict=True):
        drawn = [(np.array(line.get_xdata()), list(line.get_ydata())) for line in axis.lines]
        for runs in found.values():
            tops = [entry["top1"] for entry in runs.values()]
            for points in ([np.mean(tops)], tops):  # seeds stand a little beside each other
                assert any(y == points and np.allclose(x, runs["0"][key], rtol=0.1) for x, y in drawn)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(texts) == len(NETWORKS) and any(text.startswith("Hybrid: conv5 conv6 last,") for text in texts)


# ------------------------------------------------------------------------------------------------- choice


def test_choice_covers_every_set_of_layers(choice):
    out, result = choice
    assert sorted(result["choices"]) == sorted(CHOICES) == sorted(result["ops"])
    assert all(list(tops) == ["0", "1"] for tops in result["choices"].values())
    assert files.read_json(out / "choice.json") == files.plain(result)
    assert (result["data"], result["epochs"], result["command"]) == ("doodles", EPOCHS, "the command")


@pytest.mark.parametrize("key, name", [("none", "fbin"), ("conv2+conv3+conv4", "wbin"), ("conv2+conv4", "keep")])
def test_choice_trains_the_networks_that_a_study_trains(choice, key, name, tmp_path):
    options = {"variants": (name,)} if name != "keep" else {"hybrids": {"keep": {"keep_real": key.split("+")}}}
    data = a_few(1).with_augmentation(**presets.AUGMENTATION)
    report = study.run(
        data, tmp_path, **{"variants": ("fbin",), **options}, model="four", seed=1, epochs=EPOCHS, batch=BATCH,
        lr=presets.RECIPE["lr"], progress=False,
    )  # fmt: skip
    own, result = report["variants"][name], choice[1]
    assert (result["choices"][key]["1"], result["hits"][key]["1"]) == (own["top1"], own["hits"])
    assert (result["ops"][key], result["count"]) == (own["equivalent_ops"], own["count"])


def test_choice_measures_what_each_rule_needs(choice):
    result = choice[1]
    for seed in ("0", "1"):
        model, data = {}, a_few(int(seed)).with_augmentation(**presets.AUGMENTATION)
        for variant in ("fbin", "wbin"):
            model[variant] = models.build("four", variant, num_classes=3, in_channels=1, input_size=16, seed=int(seed))
            train.fit(
                model[variant], *data.train, epochs=EPOCHS, batch=BATCH, lr=presets.RECIPE["lr"], seed=int(seed),
                prepare=data.training_batch, progress=False,
            )  # fmt: skip
        images, labels = data.validation
        rows, options = result["layers"][seed], {"prepare": data.evaluation_batch, "batch": BATCH}
        for column, form in (("error", "mse"), *((form, form) for form in hybrid.FORMS[1:])):
            errors = hybrid.binarization_errors(model["fbin"], [data.evaluation_batch(images)], form)
            assert [row[column] for row in rows] == pytest.approx(list(errors.values()))
        for variant, word in (("fbin", "fall"), ("wbin", "rise")):
            values = hybrid.loss_sensitivity(model[variant], images, labels, **options)
            assert [row[word] for row in rows] == list(values.values())
            order = hybrid.greedy_order(model[variant], images, labels, per_mac=True, **options)
            assert result["greedy"][seed][f"greedy {word} per MAC"] == order
        scores = hybrid.metric([row["error"] for row in rows], [row["macs"] for row in rows])
        kept = hybrid.partition(scores, study.RATIO, study.CLUSTERS)
        assert result["kept"][seed] == [rows[i]["layer"] for i in kept]
        assert all(seconds > 0 for seconds in result["rules"][seed].values())
        if not JIT:
            break


def test_more_real_layers_cost_more(choice):
    ops = choice[1]["ops"]
    for a, b in itertools.permutations(CHOICES[1:], 2):
        if set(a.split("+")) < set(b.split("+")):
            assert ops["none"] < ops[a] < ops[b]


def test_choice_leaves_its_summary_and_nothing_else(choice):
    assert names(choice[0]) == {"choice.json"}


# Errors 3, 1, 2, shares of the operations 0.5, 0.25, 0.25: gamma = cbrt(6 / 32) = 0.572, scores 4.1, 3.3, 4.3.
LAYERS = [
    {"layer": "a", "error": 3.0, "macs": 100},
    {"layer": "b", "error": 1.0, "macs": 50},
    {"layer": "c", "error": 2.0, "macs": 50},
]
MORE = [  # what a summary has beside
    {"rmse": 1.0, "normalised": 1.0, "one_minus_square": 9.0, "rise": 0.5, "fall": 0.3},
    {"rmse": 9.0, "normalised": 1.0, "one_minus_square": 1.0, "rise": 0.4, "fall": 0.1},
    {"rmse": 1.0, "normalised": 9.0, "one_minus_square": 1.0, "rise": 0.1, "fall": 0.2},
]


@pytest.mark.parametrize(
    "rule, one, two", [("metric", "c", "a+c"), ("cost alone", "b", "b+c"), ("error alone", "a", "a+c")]
)
def test_rules_by_hand(rule, one, two):
    assert presets.choose(LAYERS, rule, 1) == one  # of equal costs the first layer
    assert presets.choose(LAYERS, rule, 2) == two  # in the order of the network, not of the scores
    assert presets.choose(LAYERS, rule, 3) == "a+b+c"


def a_choice():
    """Two seeds; on the second the layers' errors are another."""
    tops = {
        "none": (10, 12), "a": (50, 40), "b": (30, 32), "c": (41, 43),
        "a+b": (60, 62), "a+c": (70, 78), "b+c": (72, 60), "a+b+c": (80, 81),
    }  # fmt: skip
    ops = {key: 100.0 + 10 * len(key) + ord(key[0]) for key in tops} | {"none": 1.0}
    second = [{**row, "error": error} for row, error in zip(LAYERS, (1.0, 3.0, 2.0), strict=True)]
    return {
        "choices": {key: {"0": float(a), "4": float(b)} for key, (a, b) in tops.items()}, "ops": ops,
        "layers": {"0": LAYERS, "4": second}, "kept": {"0": ["c"], "4": ["a", "c"]}, "classes": ["x", "y"],
    }  # fmt: skip


@pytest.mark.parametrize(
    "rule, names",
    [
        ("metric", "cab"), ("metric, rmse", "bca"), ("metric, normalised", "cba"), ("metric, one_minus_square", "abc"),
        ("rise", "abc"), ("rise per MAC", "bac"), ("fall", "acb"), ("fall per MAC", "cab"), ("greedy rise", "bca"),
    ],
)  # fmt: skip
def test_orders_by_hand(rule, names):
    rows = [{**row, **more} for row, more in zip(LAYERS, MORE, strict=True)]
    assert choices.order(rows, rule, {"greedy rise": ["b", "c", "a"]}) == list(names)
    assert choices.choose(rows, rule, 2, {"greedy rise": ["b", "c", "a"]}) == "+".join(sorted(names[:2]))


def measured_choice():
    """`a_choice` with all that rules need, and two drawings in a hundred behind each per cent of top-1."""
    result = a_choice()
    result |= {"count": 200, "hits": {}, "seconds": {}, "greedy": {}, "rules": {}}
    for number, (key, tops) in enumerate(result["choices"].items()):
        for seed, top in tops.items():
            hits = np.roll(np.arange(200) < 2 * top, 7 * number)
            result["hits"].setdefault(key, {})[seed] = entry(hits)["hits"]
            result["seconds"].setdefault(key, {})[seed] = 10.0 + number
    for seed in ("0", "4"):
        result["layers"][seed] = [{**row, **more} for row, more in zip(result["layers"][seed], MORE, strict=True)]
        result["greedy"][seed] = {rule: list("bca") for rule in choices.MEASURED if rule.startswith("greedy")}
        result["rules"][seed] = {rule: 2.0 + int(seed) for rule in ("metric", *choices.MEASURED)}
    return result


def test_difference_by_hand():
    """Of "b" (30, 32) and the mean of "a" and "c" (45.5, 41.5)."""
    result = measured_choice()
    ours, theirs = [{"b": 1.0}] * 2, [{"a": 0.5, "c": 0.5}] * 2
    value, over_seeds, over_drawings = choices.difference(result, ours, theirs)
    assert (value, over_seeds) == (pytest.approx(-12.5), pytest.approx(np.std([-15.5, -9.5], ddof=1) / np.sqrt(2)))
    hits = {k: [study.unpack_hits({"hits": result["hits"][k][s], "count": 200}) for s in ("0", "4")] for k in "abc"}
    each = [100 * (hits["b"][i] - (hits["a"][i].astype(float) + hits["c"][i]) / 2) for i in range(2)]
    assert np.mean(each) == pytest.approx(value)
    assert over_drawings == pytest.approx(np.sqrt(sum(np.var(d, ddof=1) / 200 for d in each)) / 2)
    assert choices.difference(result, ours, ours) == (0, 0, 0)
    assert choices.difference(a_choice(), ours, theirs)[2] is None


def test_every_rule_has_a_row_for_every_budget():
    result = measured_choice()
    rules = {*choices.RULES, *choices.MEASURED, "at random", "best of all"}
    for by, budgets in (("layers", 2), ("operations", len(choices.SHARES))):
        rows = choices.choice_rows(result, by)
        assert {row["rule"] for row in rows} == rules and len(rows) == budgets * len(rules)
    assert {row["rule"] for row in choices.overall_rows(result)} == rules


def test_as_many_operations_by_hand(monkeypatch):
    """Equivalent operations 1 (none) to 201 (all), MACs 100, 50, 50: half of 201 leaves 99.5 of 200 MACs."""
    result = measured_choice()
    result["ops"] |= {"none": 1.0, "a+b+c": 201.0}
    monkeypatch.setattr(choices, "SHARES", (1 / 2, 0.8))
    rows = {(row["share"], row["rule"]): row for row in choices.choice_rows(result, "operations")}
    chosen = [row["chosen"] for (share, rule), row in rows.items() if share == 0.5 and rule != "at random"]
    assert set(" or ".join(chosen).split(" or ")) == {
        "b",
        "c",
    }  # one of the cheap ones, which differs from seed to seed
    assert rows[0.5, "rise"]["chosen"] == "b"  # a is worth most, and passed over
    assert rows[0.5, "at random"]["top1"] == pytest.approx(np.mean([30, 32, 41, 43]))
    assert rows[0.8, "rise"]["chosen"] == "a+b" and rows[0.8, "fall"]["chosen"] == "a+c"
    chances = {"a+b": 1 / 3, "a+c": 1 / 3, "b+c": 1 / 3}  # of the six orders two each
    expected = np.mean([sum(w * result["choices"][k][s] for k, w in chances.items()) for s in ("0", "4")])
    assert rows[0.8, "at random"]["top1"] == pytest.approx(expected)
    assert rows[0.8, "best of all"]["chosen"] == "a+c"


def test_overall_is_the_mean_of_the_budgets():
    result = measured_choice()
    rows = choices.choice_rows(result)
    for row in choices.overall_rows(result):
        each = [one["minus"]["metric"][0] for one in rows if one["rule"] == row["rule"]]
        assert row["layers"]["metric"][0] == pytest.approx(np.mean(each))


def test_overall_takes_every_budget_of_operations(monkeypatch):
    """FBin 1, WBin 201: two budgets, of a quarter and of three quarters of the 200 MACs that can be real."""
    monkeypatch.setattr(choices, "STEPS", 2)
    result = measured_choice()
    result["ops"] |= {"none": 1.0, "a+b+c": 201.0}
    made = [choices.picks(result, share=share) for share in (51 / 201, 151 / 201)]
    for row in choices.overall_rows(result):
        each = [choices.difference(result, one[row["rule"]], one["metric"])[0] for one in made]
        assert row["operations"]["metric"][0] == pytest.approx(np.mean(each))


def test_clearly_above_takes_the_larger_of_both_errors():
    def row(rule, layers, operations):
        return {"rule": rule, "layers": {"metric": layers}, "operations": {"metric": operations}}

    rows = [
        row("metric", (0, 0, 0), (0, 0, 0)), row("rise", (2.1, 1, 0.5), (2.1, 0.5, 1)),
        row("fall", (2, 1, 0), (1, 1, 0)), row("cost alone", (1, 0.6, 0.1), (1, None, 0.4)),
        row("best of all", (9, 1, 1), (9, 1, 1)), row("at random", (9, 1, 1), (9, 1, 1)),
    ]  # fmt: skip
    assert choices.clearly_above(rows) == {"layers": ["rise"], "operations": ["rise", "cost alone"]}


def test_what_rules_cost_by_hand():
    rows = {row["rule"]: row for row in choices.cost_rows(measured_choice())}
    assert set(rows) == {*choices.RULES, *choices.MEASURED}
    assert rows["cost alone"] == {"rule": "cost alone", "takes": "", "training s": 0, "rule s": "0.0"}
    assert rows["rise per MAC"] == {"rule": "rise per MAC", "takes": "wbin", "training s": 17, "rule s": "4.0"}
    assert rows["fall"]["training s"] == 10


def test_a_seed_that_lacks_a_network_is_left_out():
    result = measured_choice()
    del result["choices"]["b"]["4"]
    only = measured_choice()
    for part in (*only["choices"].values(), only["layers"]):
        part.pop("4")
    assert choices.choice_rows(result) == choices.choice_rows(only)
    del result["choices"]["b"]["0"]
    with pytest.raises(ValueError, match="no seed has all its networks yet"):
        choices.choice_table(result)


def test_the_table_of_a_measured_choice():
    text = choices.choice_table({**measured_choice(), "settings": {"ratio": 0.25, "clusters": 7}})
    for words in (
        "share 0.25, P = 7",
        "greedy fall per MAC",
        "minus metric",
        "training s",
        "over seeds (over drawings)",
    ):
        assert words in text


@pytest.mark.parametrize("seeds", [None, (3,)])
def test_doodles_have_five_seeds_and_twelve_epochs_of_their_own(seeds, monkeypatch, tmp_path):
    asked = []

    def fit(model, *data, epochs, seed, **options):
        asked.append((seed, epochs))
        return [{"seconds": 1.0}]

    monkeypatch.setattr(train, "fit", fit)
    monkeypatch.setattr(choices._Choice, "_measure", lambda *args: None)
    for name, epochs, default in (("doodles", 12, range(5)), ("sketches", 20, range(3))):
        asked.clear()
        named = functools.partial(lambda name, **o: dataclasses.replace(a_few(0), name=name), name)
        choices.choice(named, tmp_path / name, seeds=seeds, model="four", batch=BATCH, progress=False)
        assert asked == [(seed, epochs) for seed in seeds or default for _ in CHOICES]


def test_choice_rows_by_hand():
    result = a_choice()
    rows = {(row["count"], row["rule"]): row for row in presets.choice_rows(result)}
    assert set(rows) == set(itertools.product((1, 2), (*choices.RULES, "best of all", "at random")))
    first = rows[1, "error alone"]  # a on the first seed, b on the second
    assert first["chosen"] == "a or b" and first["top1"] == (50 + 32) / 2
    assert first["top1_se"] == pytest.approx(np.std([50, 32], ddof=1) / np.sqrt(2))
    assert first["ops"] == pytest.approx((result["ops"]["a"] + result["ops"]["b"]) / 2)
    assert (rows[1, "best of all"]["chosen"], rows[1, "best of all"]["top1"]) == ("a", 45)  # by the mean of the seeds
    assert (rows[2, "best of all"]["chosen"], rows[2, "best of all"]["top1"]) == ("a+c", 74)
    anything = rows[1, "at random"]
    assert anything["top1"] == pytest.approx(np.mean([50, 40, 30, 32, 41, 43]))
    each_seed = [np.mean([50, 30, 41]), np.mean([40, 32, 43])]
    assert anything["top1_se"] == pytest.approx(np.std(each_seed, ddof=1) / np.sqrt(2))
    assert anything["ops"] == pytest.approx(np.mean([result["ops"][key] for key in "abc"]))
    assert rows[1, "cost alone"]["chosen"] == "b" and rows[1, "cost alone"]["top1"] == 31


def test_choice_table_by_hand():
    text = presets.choice_table(a_choice())
    lines = [line.split() for line in text.splitlines()]
    assert "1 error alone 41.0 +- 9.0".split() == lines[4][:6] and lines[4][-3:] == ["a", "or", "b"]
    assert len([line for line in lines if line[:1] in (["1"], ["2"])]) == 10
    assert "none 11.0 %" in text and "a+b+c 80.5 %" in text and "kept c / a+c" in text


def test_one_seed_has_no_standard_error():
    result = a_choice()
    for part in (*result["choices"].values(), result["layers"], result["kept"]):
        part.pop("4")
    assert all(row["top1_se"] is None for row in presets.choice_rows(result))
    text = presets.choice_table(result)
    assert " 50.0 " in text and " +- " not in text


def test_choice_plot_shows_every_choice_and_every_rule(choice):
    result = choice[1]
    axis = plots.choice(result).axes[0]
    lines = {line.get_label(): line for line in axis.lines}
    dots = lines.pop("every choice, and how many layers it keeps")
    assert set(lines) == set(plots.RULE_STYLES)
    points = set(zip(dots.get_xdata(), dots.get_ydata(), strict=True))
    assert points == {(result["ops"][key], np.mean(list(tops.values()))) for key, tops in result["choices"].items()}
    for rule in choices.RULES:
        own = [row for row in presets.choice_rows(result) if row["rule"] == rule]
        assert lines[rule].get_ydata().tolist() == [row["top1"] for row in own]


def test_a_measured_choice_has_a_second_panel_with_every_rule(choice):
    assert len(plots.choice(a_choice()).axes) == 1
    result = choice[1]
    axis = plots.choice(result).axes[1]
    names = [label.get_text().removesuffix(" (hindsight)") for label in axis.get_yticklabels()]
    others = {rule for rule in choices.RULES | choices.MEASURED if not rule.startswith("metric")}
    assert set(names) == {*others, "best of all", "at random"} and len(names) == len(set(names))
    rows = {row["rule"]: row for row in choices.overall_rows(result)}
    for kind, bars in zip(("layers", "operations"), axis.containers, strict=True):
        line, _, [sticks] = bars
        assert bars.get_label() == f"at most as many {kind}"
        for name, x, stick in zip(names, line.get_xdata(), sticks.get_segments(), strict=True):
            value, *errors = rows[name][kind]["metric"]
            assert x == pytest.approx(value)
            assert np.ptp(stick[:, 0]) == pytest.approx(2 * max(error or 0.0 for error in errors))
    sums = [sum(rows[name][kind]["metric"][0] for kind in ("layers", "operations")) for name in names]
    assert sums == sorted(sums)


def test_choice_plot_counts_the_layers_of_its_network(choice):
    assert plots.choice(choice[1]).axes[0].get_legend().get_title().get_text() == "1, 2 layers kept real by"


# ----------------------------------------------------------------------------------------------- ablation


def test_ablation_has_every_change_and_repeats_some(ablation):
    out, result = ablation
    assert list(result["runs"]) == list(CHANGES)
    assert [list(found) for found in result["runs"].values()].count(["0", "1"]) == 2  # as it is, and one change
    assert list(result["runs"]["as it is"]) == ["0", "1"]
    assert files.read_json(out / "ablation.json") == result
    assert (result["epochs"], result["command"], result["data"]) == (EPOCHS, "the command", "doodles")
    for found in result["runs"].values():
        for networks in found.values():
            assert set(networks) == set(presets.JUDGED)
            for own in networks.values():
                assert own["top1"] == pytest.approx(100 * study.unpack_hits(own).mean())
                assert own["count"] == 3 * ((TRAIN + VALIDATION) // 4)


def settings_of_ablation(out, name):
    return study.load_report(out / name / "report.json")["settings"]


def test_a_change_changes_one_thing(ablation):
    plain = settings_of_ablation(ablation[0], "as-it-is-seed0")
    assert plain["distillation"] == presets.RECIPE["distillation"]
    assert plain["augmentation"] == files.plain({**augment.AUGMENTATION, **presets.AUGMENTATION})
    other = settings_of_ablation(ablation[0], "no-distillation-seed0")
    assert other == {**plain, "distillation": 0}
    other = settings_of_ablation(ablation[0], "crops-wider-by-0-1-seed0")
    assert other == {**plain, "augmentation": {**plain["augmentation"], "area": [0.5, 1.2], "erase": 0.3}}


def test_published_changes_are_settings_that_exist():
    for name, (in_recipe, in_augmentation) in presets.CHANGES.items():
        settings = {**presets.RECIPE, **in_recipe}
        assert len(in_recipe) + len(in_augmentation) >= (name != "as it is")
        augment.check_augmentation({**presets.AUGMENTATION, **in_augmentation})
        options = {key: settings[key] for key in ("rule", "estimator") if key in settings}
        models.build(settings["model"], "fbin", num_classes=33, in_channels=1, input_size=64, init=False, **options)


def test_pools_side_by_side_cost_what_overlapping_ones_do():
    both = [
        cost.table(models.build(network, "fbin", num_classes=33, in_channels=1, input_size=64, init=False))["total"]
        for network in ("small", presets.SIDE_BY_SIDE)
    ]
    assert both[0] == both[1]
    assert [item for item in presets.SIDE_BY_SIDE if item["op"] == "max_pool"] == 4 * [max_pool(2)]


def test_a_change_may_be_a_definition_and_goes_on_where_it_was(tmp_path):
    other = [conv("conv1", 2, 3, stride=4), max_pool(3, 2, padding=1), *SIX[2:]]
    changes = {"as it is": ({}, {}), "other pools": ({"model": other}, {})}
    options = {**ABLATION, "changes": changes, "repeated": 0, "seeds": (0,)}
    first = presets.ablation(load, tmp_path, **options)
    assert settings_of_ablation(tmp_path, "other-pools-seed0")["model"] == files.plain(other)
    written = (tmp_path / "other-pools-seed0" / "report.json").stat().st_mtime_ns
    assert presets.ablation(load, tmp_path, **options) == first
    assert (tmp_path / "other-pools-seed0" / "report.json").stat().st_mtime_ns == written


EFFECTS = {
    "as it is": (50, 50), "up": (53, 53), "down": (45, 46), "apart": (60, 40), "little": (51, 50), "up 2": (58, 48),
}  # fmt: skip


@pytest.fixture
def made_up(monkeypatch):
    """ablation with made-up accuracies in the place of training; the studies asked for, in order."""
    asked = []

    def run(data, out, *, seed, epochs, **options):
        asked.append((out.name, seed, epochs))
        name = next(n for n in EFFECTS if out.name == f"{n.replace(' ', '-')}-seed{seed}")
        about = {"data": data.name, "epochs": epochs, "command": "", "machine": {}}
        tops = zip(presets.JUDGED, EFFECTS[name], strict=True)
        networks = {n: {**entry([1, 0]), "top1": float(top), "train_seconds": 1.0} for n, top in tops}
        return {**about, "variants": networks}

    monkeypatch.setattr(study, "run", run)
    return asked


@pytest.mark.parametrize("repeated, again", [(0, []), (2, ["down", "up"]), (3, ["down", "up", "up-2"])])
def test_ablation_repeats_the_largest_effects(made_up, tmp_path, repeated, again):
    """Effects on the mean of both networks: 3, -4.5, 0, 0.5 and 3; of equal ones the first."""
    changes = {name: ({}, {}) for name in EFFECTS}
    result = presets.ablation(load, tmp_path, changes=changes, repeated=repeated, seeds=(5, 6, 7))
    first = [f"{name.replace(' ', '-')}-seed5" for name in EFFECTS]
    more = [f"{name}-seed{seed}" for name in ["as-it-is", *again] for seed in (6, 7)]
    assert [name for name, *_ in made_up] == first + more
    assert {name for name, found in result["runs"].items() if len(found) == 3} == {
        "as it is", *(name.replace("-", " ") for name in again),
    }  # fmt: skip
    assert {epochs for *_, epochs in made_up} == {presets.RECIPE["epochs"] // 4}


def test_each_seed_of_an_ablation_holds_out_drawings_of_its_own(monkeypatch, tmp_path):
    judges = {}

    def run(data, out, *, seed, **options):
        judges[seed] = data
        about = {"data": "", "epochs": 1, "command": "", "machine": {}}
        return {**about, "variants": {n: {**entry([1]), "train_seconds": 0} for n in presets.JUDGED}}

    monkeypatch.setattr(study, "run", run)
    presets.ablation(load, tmp_path, changes=CHANGES, seeds=(0, 3))
    for seed in (0, 3):
        expected = a_few(0).development(seed)
        assert drawings(judges[seed].test) == drawings(expected.test)
        assert drawings(judges[seed].train) == drawings(expected.train)


@pytest.mark.parametrize("epochs, quarter", [(100, 25), (9, 2), (2, 1)])
def test_ablation_takes_a_quarter_of_the_epochs(made_up, tmp_path, epochs, quarter):
    changes = {"as it is": ({}, {})}
    assert presets.ablation(load, tmp_path, changes=changes, seeds=(0,), epochs=epochs)["epochs"] == quarter


@pytest.mark.parametrize("epochs", [0, -8, 2.5])
@pytest.mark.parametrize("preset", WHOLE)
def test_bad_epochs_are_refused(preset, epochs, tmp_path):
    run, options = WHOLE[preset]
    with pytest.raises(ValueError, match="^epochs"):
        run(refusing, tmp_path, **{**options, "epochs": epochs})
    assert names(tmp_path) == set()


def test_ablation_table_by_hand():
    one, other = presets.JUDGED
    runs = {
        "as it is": {"0": {one: entry([1, 1, 0, 0]), other: entry([0, 0, 0, 1])},
                     "1": {one: entry([1, 0, 0, 0]), other: entry([0, 0, 0, 0])}},
        "better": {"0": {one: entry([1, 1, 1, 0]), other: entry([1, 0, 0, 0])}},
    }  # fmt: skip
    titles, _, plain, better, *rest = presets.ablation_table({"runs": runs, "epochs": 3}).splitlines()
    assert "change" in titles and all(network in titles for network in presets.JUDGED)
    assert plain.split() == "as it is 2 37.5 12.5".split()
    assert better.split() == "better 1 75.0 25.0 +- 25.0 25.0 0.0 +- 40.8".split()
    assert "standard error" in rest[-1]


@pytest.mark.parametrize("name", presets.CHANGES)
def test_every_published_change_is_one_that_can_be_trained(name, tmp_path):
    with pytest.raises(Trained):
        presets.ablation(refusing, tmp_path, changes={name: presets.CHANGES[name]}, **EVIDENCE)


def test_published_changes_write_to_folders_of_their_own(monkeypatch, tmp_path):
    folders = []

    def run(data, out, **options):
        folders.append(out)
        about = {"data": "", "epochs": 1, "command": "", "machine": {}}
        return {**about, "variants": {n: {**entry([1]), "train_seconds": 0} for n in presets.JUDGED}}

    monkeypatch.setattr(study, "run", run)
    presets.ablation(load, tmp_path, repeated=len(presets.CHANGES))
    assert len(folders) == len(set(folders)) == len(presets.CHANGES) * len(presets.SEEDS)


def test_recipes_fit_the_network_that_they_name():
    for options in presets.HYBRIDS.values():
        models.build(
            presets.RECIPE["model"], "hybrid", num_classes=3, in_channels=1, input_size=64, init=False, **options
        )


# ----------------------------------------------------------------------------------- interruption, repetition


@dataclasses.dataclass(frozen=True)
class Interrupted(Dataset):
    """Ctrl-C at the n-th batch of training, counted over all data of this kind."""

    left, end = [0], KeyboardInterrupt

    def training_batch(self, images, rng):
        if self.left[0] == 0:
            raise self.end
        self.left[0] -= 1
        return super().training_batch(images, rng)


class Trained(Exception):
    """Training began where it should not have."""


def interrupting(after, end=KeyboardInterrupt):
    """A load function of data that interrupts."""
    kind = dataclasses.make_dataclass("Once", [], bases=(Interrupted,), frozen=True)
    kind.left, kind.end = [after], end
    return lambda classes, seed, test=None: a_few(seed, kind)


def refusing(classes, seed, test=None):
    return interrupting(0, Trained)(classes, seed)


@pytest.mark.parametrize("preset", WHOLE)
def test_a_finished_preset_is_read_and_not_repeated(preset, request):
    run, options = WHOLE[preset]
    out, found = request.getfixturevalue(preset)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.parent != out}
    assert run(refusing, out, command="another", **options) == found
    assert times == {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.parent != out}


PLACES = [  # preset, batches of training before Ctrl-C
    ("evidence", BATCHES + 1),  # within fprec's second epoch
    ("evidence", (7 * EPOCHS + 1) * BATCHES + 1),  # within wbin's second epoch, second seed: taught by fprec
    ("choice", 11 * EPOCHS * CHOICE_BATCHES + 1),  # in the second seed, within a network's first epoch
    ("ablation", 2 * EPOCHS * ABLATION_BATCHES + 1),  # in the second change
    ("ablation", 8 * EPOCHS * ABLATION_BATCHES + 1),  # in the last repetition
]


@pytest.mark.parametrize("preset, after", thin(PLACES, 3))
def test_an_interrupted_preset_goes_on_to_the_same_summary(preset, after, request, tmp_path):
    run, options = WHOLE[preset]
    out, found = request.getfixturevalue(preset)
    with pytest.raises(KeyboardInterrupt):
        run(interrupting(after), tmp_path, **options)
    assert (f"{preset}.json" in names(tmp_path)) == (preset == "choice")  # which grows with each network
    assert without_times(run(load, tmp_path, **options)) == without_times(found)
    assert without_times(files.read_json(tmp_path / f"{preset}.json")) == files.plain(without_times(found))
    assert learned(tmp_path) == learned(out)
    assert {path.relative_to(tmp_path) for path in tmp_path.rglob("*")} == {p.relative_to(out) for p in out.rglob("*")}


@pytest.mark.parametrize("after", [1, 9])
def test_a_choice_goes_on_from_its_summary_alone(after, choice, tmp_path):
    """Networks done, of 16: the folder of the run that ended is lost, but for the summary."""
    one = EPOCHS * CHOICE_BATCHES
    with pytest.raises(KeyboardInterrupt):
        choices.choice(interrupting(after * one + 1), tmp_path / "lost", **CHOICE)
    begun = files.read_json(tmp_path / "lost" / "choice.json")
    assert sum(len(tops) for tops in begun["choices"].values()) == after
    (tmp_path / "new").mkdir()
    (tmp_path / "lost" / "choice.json").rename(tmp_path / "new" / "choice.json")
    result = choices.choice(interrupting((16 - after) * one), tmp_path / "new", **CHOICE)  # one batch more would end it
    assert without_times(result) == without_times(choice[1])
    assert all(result["seconds"][key][s] == t for key, own in begun["seconds"].items() for s, t in own.items())


def test_a_choice_takes_further_seeds(choice, tmp_path):
    files.write_json(tmp_path / "choice.json", choice[1])
    load = interrupting(8 * EPOCHS * CHOICE_BATCHES)
    result = choices.choice(load, tmp_path, **{**CHOICE, "seeds": (0, 1, 2)})
    assert (
        list(result["layers"]) == ["0", "1", "2"]
        and result["choices"]["none"]["0"] == choice[1]["choices"]["none"]["0"]
    )


@pytest.mark.parametrize("missing", ["hits", "settings", "layers", None])
def test_a_choice_refuses_a_summary_that_it_cannot_go_on_with(missing, choice, tmp_path):
    begun = {key: value for key, value in choice[1].items() if key != missing}
    files.write_json(tmp_path / "choice.json", begun if missing else [])
    if missing == "layers":
        begun.pop("checksums")
    with pytest.raises(files.FileError, match="choice.json: .*choose another --out"):
        choices.choice(refusing, tmp_path, **CHOICE)


def test_a_choice_refuses_other_drawings(choice, tmp_path):
    begun = {**choice[1], "checksums": {"0": 1}, "choices": {**choice[1]["choices"], "none": {}}}
    files.write_json(tmp_path / "choice.json", begun)
    with pytest.raises(files.FileError, match="other drawings.*seed 0"):
        choices.choice(refusing, tmp_path, **CHOICE)


def test_a_choice_refuses_settings_it_does_not_know(tmp_path):
    with pytest.raises(ValueError, match="^smoothing: expected some of"):
        choices.choice(refusing, tmp_path, **CHOICE, smoothing=0.1)


@pytest.mark.parametrize("preset", WHOLE)
def test_a_folder_of_another_preset_or_other_settings_is_refused(preset, request):
    run, options = WHOLE[preset]
    out, _ = request.getfixturevalue(preset)
    with pytest.raises(files.FileError, match="other settings.*lr.*--out"):
        run(refusing, out, **{**options, "lr": 0.5})


# ------------------------------------------------------------------------------------------- command line


@pytest.fixture(autouse=True)
def same_threads():
    threads = engine.get_num_threads()
    yield
    engine.set_num_threads(threads)


@pytest.fixture
def loaded(monkeypatch):
    """Gives a few doodles to the command line, and a tiny network and few changes for those of the presets."""
    calls = []

    def load(source="doodles", *, classes=None, seed=0, test=None):
        calls.append({"source": source, "classes": classes, "seed": seed})
        return a_few(seed)

    monkeypatch.setattr(data_tools, "load", load)
    monkeypatch.setitem(models.NETWORKS, "small", SIX)
    monkeypatch.setattr(presets, "CHANGES", {name: CHANGES[name] for name in ("as it is", "no distillation")})
    if not JIT:
        monkeypatch.setattr(presets, "HYBRIDS", {presets.JUDGED[1]: presets.HYBRIDS[presets.JUDGED[1]]})
    return calls


def call(*argv):
    """The exit code of a command; argparse leaves by SystemExit."""
    try:
        return main([str(word) for word in argv])
    except SystemExit as leaving:
        return leaving.code


@pytest.mark.parametrize("preset", ["evidence", "choice", "ablation"])
def test_preset_from_the_command_line_and_its_report(preset, loaded, monkeypatch, tmp_path, capsys):
    if preset == "choice":
        monkeypatch.setitem(models.NETWORKS, "small", FOUR)
    out = tmp_path / "a folder"
    assert call("study", "--preset", preset, "--epochs", 1, "--threads", 1, "--data", "some.zip", "--out", out) == 0
    assert {asked["source"] for asked in loaded} == {"some.zip"}
    found = files.read_json(out / f"{preset}.json")
    pictures = set() if preset == "ablation" else {f"{preset}.png"}
    assert {path.name for path in out.iterdir() if path.is_file()} == {f"{preset}.json"} | pictures
    about = found["fprec"]["2"] if preset == "evidence" else found
    assert about["epochs"] == 1 and about["machine"]["threads"] == 1
    assert about["command"].startswith(f"python -m hbn_ref study --preset {preset} --epochs 1")
    printed = capsys.readouterr().out.splitlines()
    assert printed == presets.PRESETS[preset].table(found).splitlines()
    assert call("report", out / f"{preset}.json") == 0
    assert capsys.readouterr().out.splitlines() == printed


def test_an_interrupted_preset_command_says_so(monkeypatch, loaded, tmp_path, capsys):
    stopping = interrupting(1)
    monkeypatch.setattr(data_tools, "load", lambda source, classes, seed: stopping(classes, seed))
    assert call("study", "--preset", "evidence", "--epochs", 2, "--out", tmp_path) == 130
    assert "goes on after the last whole epoch" in capsys.readouterr().err.splitlines()[-1]


@pytest.fixture
def asked(loaded, monkeypatch):
    """What the preset called evidence is asked for; it does nothing."""
    calls = []

    def run(load, out, **options):
        calls.append(options)
        return {}

    nothing = presets.Preset(run, lambda found: "the table", frozenset({"nothing"}))
    monkeypatch.setitem(presets.PRESETS, "evidence", nothing)
    monkeypatch.setattr(plots, "evidence", lambda found: Figure())
    return calls


@pytest.mark.parametrize("epochs", [1, 16, 100])
def test_epochs_of_a_preset_are_those_asked_for(epochs, asked, tmp_path):
    assert call("study", "--preset", "evidence", "--epochs", epochs, "--out", tmp_path) == 0
    assert asked[0]["epochs"] == epochs


def test_epochs_of_a_preset_are_its_own_where_none_are_asked_for(asked, tmp_path):
    assert call("study", "--preset", "evidence", "--out", tmp_path) == 0
    assert "epochs" not in asked[0]


BAD_COMMANDS = {  # words, what the message must name
    "learning rate": ("--preset evidence --lr 0.1", "--lr"),
    "seed": ("--preset choice --seed 1", "--seed"),
    "classes": ("--preset evidence --classes 3", "--classes"),
    "network": ("--preset ablation --model sketchanet", "--model"),
    "last layer": ("--preset ablation --last-layer binary", "--last-layer"),
    "variants": ("--preset evidence --variants fprec,fbin", "--variants"),
    "unknown preset": ("--preset proof", "proof"),
    "epochs": ("--preset evidence --epochs 0", "epochs"),
    "threads": ("--preset evidence --threads 0", "threads"),
}


@pytest.mark.parametrize("case", BAD_COMMANDS)
def test_bad_preset_commands_give_one_line_and_exit_code_2(case, loaded, tmp_path, capsys):
    words, named = BAD_COMMANDS[case]
    assert call("study", *words.split(), "--out", tmp_path / "out") == 2
    captured = capsys.readouterr()
    assert len(captured.err.splitlines()) == 1 and named in captured.err and captured.out == ""
    assert not names(tmp_path / "out")  # nothing half-written


@pytest.mark.parametrize("preset", ["evidence", "choice", "ablation"])
def test_a_table_is_known_by_what_the_file_holds(preset, request, tmp_path):
    found = request.getfixturevalue(preset)[1]
    files.write_json(tmp_path / "renamed.json", found)
    assert presets.table_of(tmp_path / "renamed.json") == presets.PRESETS[preset].table(found)


@pytest.mark.parametrize("content", [{}, [], None, "text", {"fprec": {}}, {"variants": {}, "metric": []}])
def test_something_else_has_no_table(content, tmp_path):
    files.write_json(tmp_path / "found.json", content)
    assert presets.table_of(tmp_path / "found.json") is None


DAMAGED = [
    {"fprec": {}, "fbin": {}}, {"fprec": {"0": {}}, "fbin": {"0": {}}}, {"runs": {}, "epochs": 1},
    {"choices": {}, "ops": {}, "layers": {}, "kept": {}}, {"runs": 3, "epochs": 1},
]  # fmt: skip


@pytest.mark.parametrize("content", DAMAGED)
def test_a_summary_with_figures_missing_is_one_line(content, tmp_path, capsys):
    files.write_json(tmp_path / "found.json", content)
    assert call("report", tmp_path / "found.json") == 2
    captured = capsys.readouterr()
    assert len(captured.err.splitlines()) == 1 and "found.json" in captured.err and captured.out == ""


def test_a_report_of_a_study_is_still_its_table(evidence, capsys):
    path = evidence[0] / "seed0" / "report.json"
    assert call("report", path) == 0
    printed = capsys.readouterr().out
    assert printed == study.table(files.read_json(path)) + "\n"
    assert all(name in printed for name in STUDIED)
