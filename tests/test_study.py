"""Top floor: files, plots, the study and its interruption, the command line.

Everything runs on a few doodles and a tiny network, put among models.NETWORKS for the time of a test.
"""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import JIT, random_arrays, thin
from matplotlib.figure import Figure

import data_tools
from data_tools import doodles
from hbn_ref import cost, deploy, engine, files, hybrid, layers, models, plots, study, train
from hbn_ref.__main__ import main
from hbn_ref.models import classifier, conv, dropout, max_pool

TINY = [
    conv("conv1", 4, 3, stride=2), max_pool(3, 2), conv("conv2", 6, 3, padding=1), max_pool(2),
    conv("conv3", 6, 3, padding=1), conv("conv4", 8, "map"), dropout(0.2), classifier(),
]  # fmt: skip
SIZE, EPOCHS = (32, 3) if JIT else (16, 2)
BATCH, BATCHES = 8, 3  # 24 drawings to learn from: 3 batches an epoch
MACS = [9 * 4 * 6 * 49, 9 * 6 * 6 * 9, 9 * 6 * 8] if JIT else [9 * 4 * 6 * 9, 9 * 6 * 6, 6 * 8]  # conv2, conv3, conv4
SETTINGS = {"model": "tiny", "epochs": EPOCHS, "batch": BATCH, "lr": 0.01, "ratio": 0.5, "progress": False}
MODEL_FILES = {f"{variant}{end}.npz" for variant in models.VARIANTS for end in ("", "-packed")}


@pytest.fixture(scope="module")
def data():
    return doodles.load(size=SIZE, classes=("car", "cat", "sun"), train=8, validation=4, test=5)


@pytest.fixture(autouse=True)
def tiny_network(monkeypatch):
    monkeypatch.setitem(models.NETWORKS, "tiny", TINY)
    monkeypatch.setattr(study, "milliseconds_per_image", lambda *args: (1.5, 1.0))  # thirty slow forward passes


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """An uninterrupted study: (folder, report)."""
    out = tmp_path_factory.mktemp("whole") / "study"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.NETWORKS, "tiny", TINY)
        return out, study.run(data, out, command="the command", **SETTINGS)


def names(folder):
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


# ---------------------------------------------------------------------------------------------- files


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "folder" / "a.json"
    files.write_json(path, {"a": [1, 2.5, None]})
    assert files.read_json(path) == {"a": [1, 2.5, None]}
    for bad in ({"a": float("nan")}, {"a": {1, 2}}):
        with pytest.raises((ValueError, TypeError)):
            files.write_json(path, bad)
    assert files.read_json(path) == {"a": [1, 2.5, None]} and names(path.parent) == {"a.json"}


def test_unreadable_json_is_a_file_error(tmp_path):
    (tmp_path / "a.json").write_text("{")
    for name in ("a.json", "missing.json"):
        with pytest.raises(files.FileError, match=name):
            files.read_json(tmp_path / name)


def test_plain_gives_what_json_would_give_back():
    assert files.plain({"a": (1, 2), 3: None}) == {"a": [1, 2], "3": None}


def test_format_of_a_file_is_what_its_header_says(whole, tmp_path):
    assert files.format_of(whole[0] / "fbin.npz") == models.FORMAT
    assert files.format_of(whole[0] / "fbin-packed.npz") == deploy.FORMAT
    files.write_arrays(tmp_path / "a.npz", {"something": "else"}, {"a": np.ones(2)})
    assert files.format_of(tmp_path / "a.npz") is None


def test_format_of_an_unreadable_file_is_a_file_error(tmp_path):
    (tmp_path / "text.npz").write_text("nothing")
    np.savez(tmp_path / "foreign.npz", a=np.ones(2))
    files.write_arrays(tmp_path / "list.npz", ["no", "dictionary"], {"a": np.ones(2)})
    for name in ("text.npz", "foreign.npz", "list.npz", "missing.npz", "."):
        with pytest.raises(files.FileError, match=name):
            files.format_of(tmp_path / name)
    with pytest.raises(files.FileError, match="list.npz"):
        files.read_arrays(tmp_path / "list.npz", models.FORMAT)


# ---------------------------------------------------------------------------------------------- study


def test_report_has_everything_the_paper_compares(whole, data):
    out, report = whole
    assert files.read_json(out / "report.json") == report
    assert {"data", "classes", "seed", "epochs", "command", "machine", "variants", "metric"} <= set(report)
    assert (report["data"], report["classes"]) == ("doodles", ["car", "cat", "sun"])
    assert (report["seed"], report["epochs"], report["command"]) == (0, EPOCHS, "the command")
    assert {"processor", "cores", "threads", "python", "numpy", "numba"} <= set(report["machine"])
    assert list(report["variants"]) == list(models.VARIANTS)
    keys = {"top1", "top5", "macs_real", "macs_binary", "equivalent_ops", "weight_bytes", "ms_per_image"}
    for found in report["variants"].values():
        assert keys | {"train_seconds", "history"} <= set(found)
        assert 0 <= found["top1"] <= found["top5"] == 100 and found["train_seconds"] > 0
        assert [row["epoch"] for row in found["history"]] == list(range(1, EPOCHS + 1))
        assert {"loss", "top1", "flip_ratio", "val_top1"} <= set(found["history"][0])


def test_folder_holds_report_and_models_and_nothing_else(whole):
    assert names(whole[0]) == {"report.json"} | MODEL_FILES


@pytest.mark.parametrize("variant", models.VARIANTS)
def test_saved_networks_give_the_reported_figures(whole, data, variant):
    out, report = whole
    model, classes, preprocessing = models.load(out / f"{variant}.npz")
    assert model.spec["variant"] == variant and list(classes) == ["car", "cat", "sun"]
    assert preprocessing == files.plain(data.preprocessing)
    found, reported = train.evaluate(model, *data.test, prepare=data.evaluation_batch), report["variants"][variant]
    assert found["top1"] == reported["top1"]
    total = cost.table(model)["total"]
    for key in ("macs_real", "macs_binary", "equivalent_ops", "weight_bytes"):
        assert reported[key] == total[key]


def test_metric_rows_agree_with_chapter_8(whole, data):
    out, report = whole
    rows = report["metric"]
    assert [row["layer"] for row in rows] == ["conv2", "conv3", "conv4"]
    assert all({"layer", "error", "macs", "score", "kept_real"} <= set(row) for row in rows)
    fbin, _, _ = models.load(out / "fbin.npz")
    errors = hybrid.binarization_errors(fbin, [data.evaluation_batch(data.validation[0])])
    assert [row["error"] for row in rows] == pytest.approx(list(errors.values()), rel=1e-6)
    assert [row["macs"] for row in rows] == MACS
    scores = hybrid.metric([row["error"] for row in rows], [row["macs"] for row in rows])
    assert [row["score"] for row in rows] == pytest.approx(scores.tolist())
    kept = [row["layer"] for row in rows if row["kept_real"]]
    assert kept == [rows[i]["layer"] for i in hybrid.partition(scores, 0.5, study.CLUSTERS)] and len(kept) == 1
    made, _, _ = models.load(out / "hybrid.npz")
    assert made.spec["keep_real"] == kept
    kinds = {layer.name: layer.inputs for layer in made.walk() if isinstance(layer, layers.XnorConv)}
    assert set(kinds) == {"conv2", "conv3", "conv4"} - set(kept)


def test_finished_study_is_read_not_repeated(whole, data):
    out, report = whole
    times = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    again = study.run(refusing(data), out, command="another", **SETTINGS)
    assert again == report and times == {path.name: path.stat().st_mtime_ns for path in out.iterdir()}


def test_hybrid_brings_the_fully_binary_network_along(data, tmp_path):
    report = study.run(data, tmp_path, variants=("hybrid",), **{**SETTINGS, "epochs": 1})
    assert set(report["variants"]) == {"fbin", "hybrid"} and report["metric"]
    alone = study.run(data, tmp_path / "alone", variants=["wbin"], **{**SETTINGS, "epochs": 1})
    assert set(alone["variants"]) == {"wbin"} and alone["metric"] == []


def test_table_shows_every_variant_and_what_was_kept(whole):
    text = study.table(whole[1])
    assert all(variant in text for variant in models.VARIANTS)
    kept = next(row["layer"] for row in whole[1]["metric"] if row["kept_real"])
    assert f"Kept real: {kept}" in text
    assert f"{whole[1]['variants']['fbin']['macs_binary']:,}" in text


def test_hits_unpack_to_the_reported_accuracy(whole, data):
    out, report = whole
    for variant, found in report["variants"].items():
        hits = study.unpack_hits(found)
        assert hits.dtype == bool and len(hits) == found["count"] == len(data.test[1])
        assert 100 * hits.mean() == pytest.approx(found["top1"])
        model, _, _ = models.load(out / f"{variant}.npz")
        assert np.array_equal(hits, train.evaluate(model, *data.test, prepare=data.evaluation_batch)["hits"])


@pytest.mark.parametrize("count", [1, 7, 8, 9, 17])
def test_hits_of_any_number_of_drawings_unpack(count):
    hits = random_arrays(count, (count,)) > 0
    packed = {"hits": np.packbits(hits).tobytes().hex(), "count": count}
    assert np.array_equal(study.unpack_hits(packed), hits)


def test_standard_error_and_how_it_is_written():
    values = np.array([80.0, 82.0, 87.0])  # mean 83: squares 9 + 1 + 16
    assert study.standard_error(values) == pytest.approx(np.sqrt(26 / 2) / np.sqrt(3))
    assert study.standard_error(values[:1]) is None
    assert study.with_error(84.06, 0.349) == "84.1 +- 0.3" and study.with_error(84.06, None) == "84.1"
    assert study.with_error(-1.25, 0.0) == "-1.2 +- 0.0"


def with_tops(report, seed, **tops):
    """The report as that of another seed's study of another split, with made-up accuracies."""
    settings = report["settings"]
    preprocessing = {**settings["preprocessing"], "split_seed": seed}
    settings = {**settings, "seed": seed, "checksum": seed, "preprocessing": preprocessing}
    variants = {name: {**report["variants"][name], "top1": top} for name, top in tops.items()}
    return {**report, "seed": seed, "settings": settings, "variants": variants}


def test_mean_over_seeds_by_hand(whole):
    """Each seed has a split of its own."""
    reports = [with_tops(whole[1], seed, fprec=80.0 + seed, fbin=70.0 + 3 * seed) for seed in (0, 1)]
    fprec, fbin = study.over_seeds(reports)
    assert fprec == {"variant": "fprec", "runs": 2, "top1": 80.5, "top1_se": pytest.approx(0.5), "minus_fprec": None,
                     "minus_fprec_se": None, "minus_fbin": 9.0, "minus_fbin_se": pytest.approx(1.0)}  # fmt: skip
    assert (fbin["minus_fprec"], fbin["minus_fbin"]) == (-9, None)
    lines = study.over_seeds_table([fprec, fbin]).splitlines()
    assert lines[2].split() == "fprec 2 80.5 +- 0.5 9.0 +- 1.0".split()


def test_studies_of_other_settings_or_of_one_seed_have_no_mean(whole):
    one, other = (with_tops(whole[1], seed, fprec=80.0) for seed in (0, 1))
    with pytest.raises(ValueError, match="different seed"):
        study.over_seeds([one, one])
    for changed in ({"epochs": 99}, {"preprocessing": {**other["settings"]["preprocessing"], "mean": 0.5}}):
        with pytest.raises(ValueError, match=f"reports: {next(iter(changed))} differs"):
            study.over_seeds([one, {**other, "settings": {**other["settings"], **changed}}])


def test_a_file_that_is_no_report_is_named(whole, tmp_path):
    path, figureless = tmp_path / "report.json", {**whole[1], "variants": {"fbin": {"top1": 90.0}}}
    for content, message in (({}, "expected a study's report.json"), (figureless, "figures missing")):
        files.write_json(path, content)
        with pytest.raises(files.FileError, match=f"{re.escape(str(path))}: .*{message}"):
            study.load_report(path)


def test_mean_over_seeds_from_the_command_line(data, tmp_path, capsys):
    for seed in (0, 1):
        again = dataclasses.replace(data, preprocessing={**data.preprocessing, "split_seed": seed})
        study.run(again, tmp_path / str(seed), **{**SETTINGS, "epochs": 1, "seed": seed, "variants": ("fbin",)})
    assert call("report", *(tmp_path / str(seed) / "report.json" for seed in (0, 1))) == 0
    assert call("report", tmp_path / "0", tmp_path / "1" / "report.json") == 0  # a folder means the report in it
    assert "standard error of the mean" in capsys.readouterr().out


def test_any_object_with_the_documented_attributes_will_do(data, tmp_path):
    named = "name classes train validation test preprocessing training_batch evaluation_batch".split()
    plainest = SimpleNamespace(**{name: getattr(data, name) for name in named})
    assert study.run(plainest, tmp_path, **{**SETTINGS, "epochs": 1, "variants": ("fbin",)})["data"] == "doodles"


def test_without_validation_drawings_nothing_is_validated_and_no_layers_are_chosen(data, tmp_path):
    options = {**SETTINGS, "epochs": 1, "variants": ("fbin",)}
    report = study.run(data.without_validation(), tmp_path, **options)
    assert "val_top1" not in report["variants"]["fbin"]["history"][0]
    with pytest.raises(ValueError, match="validation"):
        study.run(refusing(data.without_validation()), tmp_path / "hybrid", **SETTINGS)
    assert names(tmp_path / "hybrid") == set()


# ------------------------------------------------------------------- named hybrids, ten crops, latent weights, teacher

NAMED = {"with-conv2": {"keep_real": ["conv2"]}, "with-3-and-last": {"keep_real": [3, "conv4"], "last_layer": "binary"}}
MORE = {
    **SETTINGS, "epochs": 2, "variants": ("fprec", "wbin"), "hybrids": NAMED, "ten_crops": True, "latent": False,
    "smoothing": 0.1, "distillation": 0.5, "start": "wbin",
}  # fmt: skip
MORE_BATCHES = 2


@pytest.fixture(scope="module")
def few(data):
    """Half of the drawings to learn from, and fewer to judge."""
    every = {"train": 2, "validation": 4, "test": 4}
    parts = {name: tuple(array[::step] for array in getattr(data, name)) for name, step in every.items()}
    return dataclasses.replace(data, **parts)


@pytest.fixture(scope="module")
def more(few, tmp_path_factory):
    """A study of all that `run` offers beyond the paper's: (folder, report)."""
    out = tmp_path_factory.mktemp("more") / "study"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.NETWORKS, "tiny", TINY)
        patch.setattr(study, "milliseconds_per_image", lambda *args: (1.5, 1.0))
        return out, study.run(few, out, **MORE)


def test_named_hybrids_keep_the_named_layers(more):
    out, report = more
    assert list(report["variants"]) == ["fprec", "wbin", *NAMED] and report["metric"] == []
    for name, (kept, last) in {
        "with-conv2": (["conv2"], "real"), "with-3-and-last": (["conv3", "conv4"], "binary"),
    }.items():  # fmt: skip
        found, spec = report["variants"][name], deploy.load(out / f"{name}-packed.npz").spec
        for entry in (found, spec):
            assert (entry["variant"], list(entry.get("kept_real", kept)), entry["last_layer"]) == ("hybrid", kept, last)
        assert spec["keep_real"] == kept


def test_named_hybrids_have_their_names_in_table_and_plot(more):
    rows = [line.split()[0] for line in study.table(more[1]).splitlines()[2:]]
    assert rows == ["fprec", "wbin", *NAMED]
    texts = [text.get_text() for text in plots.study(more[1]).legends[0].get_texts()]
    assert [text.partition(",")[0] for text in texts] == ["FPrec", "WBin", *NAMED]


def test_a_named_hybrid_is_the_hybrid_of_the_same_layers(whole, data, tmp_path):
    kept = [row["layer"] for row in whole[1]["metric"] if row["kept_real"]]
    options = {**SETTINGS, "variants": ("fbin",), "hybrids": {"again": {"keep_real": kept}}}
    study.run(data, tmp_path, **options)
    ours, theirs = files_arrays(tmp_path / "again.npz"), files_arrays(whole[0] / "hybrid.npz")
    assert all(np.array_equal(ours[key], theirs[key]) for key in theirs)


def test_last_layer_both_trains_the_chosen_hybrid_a_second_time(whole, data, tmp_path):
    report = study.run(data, tmp_path, **{**SETTINGS, "variants": ("hybrid",), "last_layer": "both"})
    assert {name: own["last_layer"] for name, own in report["variants"].items()} == {
        "fbin": "real", "hybrid": "real", "hybrid-last": "binary",
    }  # fmt: skip
    kept = [row["layer"] for row in whole[1]["metric"] if row["kept_real"]]
    assert kept and report["variants"]["hybrid-last"]["kept_real"] == report["variants"]["hybrid"]["kept_real"] == kept
    ours, theirs = files_arrays(tmp_path / "hybrid.npz"), files_arrays(whole[0] / "hybrid.npz")
    assert all(np.array_equal(ours[key], theirs[key]) for key in theirs)
    again = {"hybrids": {"hybrid-last": {"keep_real": kept}}, "last_layer": "both"}
    with pytest.raises(ValueError, match="hybrids: 'hybrid-last' names files"):
        study.run(data, tmp_path / "another", **{**SETTINGS, **again})


def test_without_latent_weights_packed_networks_stay_and_those_of_the_teacher_and_the_start(more):
    packed = {f"{name}-packed.npz" for name in ("fprec", "wbin", *NAMED)}
    assert names(more[0]) == packed | {"fprec.npz", "wbin.npz", "report.json"}


def test_without_latent_weights_the_layers_are_still_chosen(data, whole, tmp_path):
    report = study.run(data, tmp_path, **{**SETTINGS, "variants": ("hybrid",), "latent": False})
    assert report["metric"] == whole[1]["metric"]
    assert names(tmp_path) == {"fbin.npz", "fbin-packed.npz", "hybrid-packed.npz", "report.json"}


def test_ten_crops_are_judged_too(more, few):
    out, report = more
    for name in thin(report["variants"], 2):
        packed, found = deploy.load(out / f"{name}-packed.npz"), report["variants"][name]
        assert found["top1_ten_crops"] == train.evaluate(packed, *few.test, prepare=few.ten_crops)["top1"]
        assert found["top1"] == train.evaluate(packed, *few.test, prepare=few.evaluation_batch)["top1"]


def test_ten_crops_are_left_alone_where_not_asked_for(whole):
    assert all("top1_ten_crops" not in found for found in whole[1]["variants"].values())


def test_the_teacher_is_the_trained_fprec_network(more, few):
    """The named hybrid again, by hand."""
    out, report = more
    model = models.build("tiny", "hybrid", num_classes=3, in_channels=1, input_size=SIZE, seed=0, keep_real=["conv2"])
    options = {key: MORE[key] for key in ("epochs", "batch", "lr", "smoothing", "distillation", "progress")}
    teacher, _, _ = models.load(out / "fprec.npz")
    models.start_from(model, models.load(out / "wbin.npz")[0])
    history = train.fit(model, *few.train, seed=0, teacher=teacher, prepare=few.training_batch, **options)
    reported = report["variants"]["with-conv2"]["history"]
    assert [row["loss"] for row in history] == [row["loss"] for row in reported]
    x = few.evaluation_batch(few.test[0])
    assert np.array_equal(deploy.load(out / "with-conv2-packed.npz")(x), model.forward(x))


def test_the_teacher_itself_learns_from_labels(more, few, tmp_path):
    alone = {**MORE, "variants": ("fprec",), "hybrids": {}, "distillation": 0.0, "start": None}
    study.run(few, tmp_path, **alone)
    assert same_file(tmp_path / "fprec.npz", more[0] / "fprec.npz")


def same_file(one, other):
    ours, theirs = files_arrays(one), files_arrays(other)
    return ours.keys() == theirs.keys() and all(np.array_equal(ours[key], theirs[key]) for key in ours)


WITHIN = [2 * 2 * MORE_BATCHES + 1, (2 * 3 + 1) * MORE_BATCHES + 1]  # a hybrid's first epoch, another's second


@pytest.mark.parametrize("after", WITHIN if JIT else WITHIN[1:])
def test_an_interrupted_study_with_a_teacher_goes_on_to_the_same_figures(more, few, tmp_path, after):
    with pytest.raises(KeyboardInterrupt):
        study.run(Interrupted(few, after), tmp_path, **MORE)
    left = 2 * 4 * MORE_BATCHES - after // MORE_BATCHES * MORE_BATCHES  # nothing that is done is repeated
    report = study.run(Interrupted(few, left, Trained), tmp_path, **MORE)
    assert figures(report) == figures(more[1])
    assert names(tmp_path) == names(more[0])
    assert all(same_file(tmp_path / name, more[0] / name) for name in names(tmp_path) if name.endswith(".npz"))
    assert study.run(refusing(few), tmp_path, **MORE) == report


BAD_HYBRIDS = [
    {"Hybrid": {}}, {"a b": {}}, {"../a": {}}, {"a_b": {}}, {"-a": {}}, {"": {}}, {"fbin": {}}, {"hybrid": {}},
    {"a\n": {}}, {"a-packed": {"keep_real": ["conv2"]}}, {"fbin-packed": {}},
]  # fmt: skip


@pytest.mark.parametrize("hybrids", BAD_HYBRIDS)
def test_names_that_could_not_be_those_of_files_are_refused(hybrids, data, tmp_path):
    with pytest.raises((ValueError, TypeError), match="hybrids"):
        study.run(refusing(data), tmp_path / "out", **{**SETTINGS, "hybrids": hybrids})
    assert names(tmp_path / "out") == set()


@pytest.mark.parametrize(
    "options, named",
    [({"keep_real": ["conv9"]}, "conv9"), ({"keep_real": ["conv1"]}, "conv1"), ({"last_layer": "x"}, "last_layer"),
     ({"width": 2}, "width"), ({"keep": ["conv2"]}, "keep")],
)  # fmt: skip
def test_hybrids_that_cannot_be_built_are_refused_before_any_training(options, named, data, tmp_path):
    with pytest.raises((ValueError, TypeError), match=named):
        study.run(refusing(data), tmp_path / "out", **{**SETTINGS, "hybrids": {"a": options}})
    assert names(tmp_path / "out") == set()


def test_networks_with_binary_inputs_begin_with_the_weights_of_another_variant(few, tmp_path, monkeypatch):
    begun, fit = {}, train.fit

    def noting(model, *args, **options):
        begun[model.spec["variant"]] = {k: v.copy() for k, v in model.state().items() if k.endswith(".w")}
        return fit(model, *args, **options)

    monkeypatch.setattr(train, "fit", noting)
    study.run(few, tmp_path, **{**SETTINGS, "epochs": 1, "start": "fprec", "hybrids": NAMED})
    state = models.load(tmp_path / "fprec.npz")[0].state()
    assert set(begun) == set(models.VARIANTS)
    for variant, weights in begun.items():
        alike = all(np.array_equal(value, state[key]) for key, value in weights.items())
        assert alike == (variant in ("fbin", "hybrid"))
    assert all(np.array_equal(value, begun["wbin"][key]) for key, value in begun["fprec"].items())


@pytest.mark.parametrize("start, variants", [("wbin", ("fprec", "fbin")), ("fprec", ("wbin", "hybrid"))])
def test_a_start_that_is_not_trained_is_refused_before_any_training(start, variants, data, tmp_path):
    with pytest.raises(ValueError, match=f"start: needs {start}"):
        study.run(refusing(data), tmp_path / "out", **{**SETTINGS, "start": start, "variants": variants})
    assert names(tmp_path / "out") == set()


def test_distillation_without_fprec_is_refused_before_any_training(data, tmp_path):
    options = {**SETTINGS, "distillation": 0.5, "variants": ("wbin", "fbin")}
    with pytest.raises(ValueError, match="distillation.*fprec"):
        study.run(refusing(data), tmp_path / "out", **options)
    assert names(tmp_path / "out") == set()


# ------------------------------------------------------------------------------------------ interruption


class Interrupted:
    """The data, with Ctrl-C (or another end) at the n-th batch of training."""

    def __init__(self, data, after, end=KeyboardInterrupt):
        self.data, self.left, self.end = data, after, end

    def __getattr__(self, name):
        return getattr(self.data, name)

    def training_batch(self, images, rng):
        if self.left == 0:
            raise self.end
        self.left -= 1
        return self.data.training_batch(images, rng)


class Trained(Exception):
    """Training began where it should not have."""


def refusing(data):
    return Interrupted(data, 0, Trained)


def interrupt_at(where, data, monkeypatch):
    """The data to use; some interruptions are planted elsewhere."""
    if isinstance(where, int):
        return Interrupted(data, where)

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    if where == "model written, report not":
        monkeypatch.setattr(study, "milliseconds_per_image", stop)
    elif where == "layers to be chosen":
        monkeypatch.setattr(study, "choose_layers", stop)
    else:
        write = files.write_json

        def stop_at_the_report(path, content):
            if path.name == "report.json":
                raise KeyboardInterrupt
            write(path, content)

        monkeypatch.setattr(files, "write_json", stop_at_the_report)
    return data


def figures(report):
    """A report without times and machine."""
    variants = {}
    for name, found in report["variants"].items():
        history = [{key: value for key, value in row.items() if key != "seconds"} for row in found["history"]]
        variants[name] = {**found, "history": history, "train_seconds": 0, "ms_per_image": 0, "ms_packed": 0}
    return {**report, "variants": variants, "machine": {}, "command": ""}


def files_arrays(path):
    """Every array of a model file or a packed file, its header included."""
    with np.load(path) as content:
        return dict(content)


PLACES = [  # batches of training before Ctrl-C, or a place
    BATCHES + 2,  # within fprec's second epoch
    (2 * EPOCHS) * BATCHES,  # at the first batch of fbin
    (3 * EPOCHS + 1) * BATCHES + 1,  # within the hybrid's second epoch
    "model written, report not",
    "layers to be chosen",
    "all but the report",
]


@pytest.mark.parametrize("where", thin(PLACES, 4))
def test_interrupted_study_goes_on_to_the_same_figures(whole, data, tmp_path, where):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        study.run(interrupt_at(where, data, patch), tmp_path, **SETTINGS)
    assert "report.json" not in names(tmp_path)
    report = study.run(data, tmp_path, **SETTINGS)
    assert figures(report) == figures(whole[1]) == figures(files.read_json(tmp_path / "report.json"))
    for name in MODEL_FILES:
        ours, theirs = (files_arrays(folder / name) for folder in (tmp_path, whole[0]))
        assert all(np.array_equal(ours[key], theirs[key]) for key in theirs)
    assert names(tmp_path) == names(whole[0])


def test_interruption_just_before_a_checkpoint_is_deleted_leaves_no_litter(whole, data, tmp_path, monkeypatch):
    save = study.Study._save

    def save_and_stop(self):
        save(self)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(study.Study, "_save", save_and_stop)
        study.run(data, tmp_path, **SETTINGS)
    study.run(data, tmp_path, **SETTINGS)
    assert names(tmp_path) == names(whole[0])


def test_going_on_does_not_repeat_what_is_done(data, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        study.run(Interrupted(data, 2 * EPOCHS * BATCHES), tmp_path, **SETTINGS)
    assert {"fprec.npz", "wbin.npz"} <= names(tmp_path)
    study.run(Interrupted(data, 2 * EPOCHS * BATCHES, Trained), tmp_path, **SETTINGS)  # enough for the other two


OTHER = {
    "epochs": 5, "batch": 4, "lr": 0.02, "seed": 1, "ratio": 0.4, "clusters": 2, "gamma": 0.5, "form": "rmse",
    "last_layer": "binary", "width": 2, "estimator": "approx_sign", "variants": ("fbin",), "rule": "exact",
    "smoothing": 0.1, "distillation": 0.5, "hybrids": {"a": {"keep_real": ["conv2"]}}, "ten_crops": True,
    "latent": False, "start": "wbin",
}  # fmt: skip


@pytest.mark.parametrize("setting", OTHER)
def test_folder_of_other_settings_is_refused(whole, data, setting):
    out, _ = whole
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(files.FileError, match=f"report.json.*other settings.*{setting}.*--out"):
        study.run(refusing(data), out, **{**SETTINGS, setting: OTHER[setting]})
    assert before == {path.name: path.read_bytes() for path in out.iterdir()}


def test_folder_of_drawings_varied_otherwise_is_refused(whole, data):
    with pytest.raises(files.FileError, match="other settings.*augmentation"):
        study.run(refusing(data.with_augmentation(elastic=1.0)), whole[0], **SETTINGS)


def test_folder_of_other_drawings_is_refused_finished_or_not(whole, data, tmp_path):
    changed = dataclasses.replace(data, train=(data.train[0][::-1], data.train[1]))
    with pytest.raises(files.FileError, match="other settings"):
        study.run(refusing(changed), whole[0], **SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        study.run(Interrupted(data, EPOCHS * BATCHES + 1), tmp_path, **SETTINGS)
    with pytest.raises(files.FileError, match="progress.json.*other settings"):
        study.run(refusing(data), tmp_path, **{**SETTINGS, "seed": 1})


def test_other_settings_are_refused_from_the_first_epoch_on(data, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        study.run(Interrupted(data, BATCHES + 1), tmp_path, **SETTINGS)
    with pytest.raises(files.FileError, match="other settings"):
        study.run(refusing(data), tmp_path, **{**SETTINGS, "seed": 1})


BAD_SETTINGS = [
    ("variants", ("fbin", "xnor")), ("variants", ()), ("form", "l1"), ("ratio", 1.5), ("clusters", 0), ("gamma", -1.0),
    ("gamma", float("nan")), ("last_layer", "weights"), ("estimator", "tanh"), ("epochs", 0), ("batch", 0),
    ("lr", float("nan")), ("seed", -1), ("rule", "papier"), ("smoothing", 1.5), ("smoothing", -0.1),
    ("smoothing", float("nan")), ("distillation", 2), ("distillation", -0.5),
    ("start", "fbin"), ("start", True),
]  # fmt: skip


@pytest.mark.parametrize("name, value", BAD_SETTINGS)
def test_bad_settings_are_refused_before_any_training(data, tmp_path, name, value):
    with pytest.raises((ValueError, TypeError), match=name):
        study.run(refusing(data), tmp_path / "out", **{**SETTINGS, name: value})
    assert names(tmp_path / "out") == set()


def test_unknown_network_is_refused(data, tmp_path):
    with pytest.raises(ValueError, match="network.*'big'"):
        study.run(refusing(data), tmp_path, **{**SETTINGS, "model": "big"})


# ---------------------------------------------------------------------------------------------- plots


def test_plot_marks_what_was_kept(whole):
    figure = plots.study(whole[1])
    assert isinstance(figure, Figure) and len(figure.axes) == 5
    kept = [row["kept_real"] for row in whole[1]["metric"]]
    for axis in figure.axes[:3]:
        assert [bool(bar.get_hatch()) for bar in axis.patches] == kept
        assert [label.get_text() for label in axis.get_xticklabels()] == ["conv2", "conv3", "conv4"]
    for axis, key in zip(figure.axes[3:], ("equivalent_ops", "weight_bytes"), strict=True):
        points = {(line.get_xdata()[0], line.get_ydata()[0]) for line in axis.lines}
        assert points == {(found[key], found["top1"]) for found in whole[1]["variants"].values()}


def test_plot_of_a_study_without_a_metric(whole):
    report = {**whole[1], "metric": [], "gamma": None, "variants": {"fprec": whole[1]["variants"]["fprec"]}}
    assert len(plots.study(report).axes) == 2


def test_plot_is_written_as_a_picture(whole, tmp_path):
    plots.save(plots.study(whole[1]), tmp_path / "study.png")
    assert (tmp_path / "study.png").read_bytes().startswith(b"\x89PNG") and names(tmp_path) == {"study.png"}


# ---------------------------------------------------------------------------------------- command line


@pytest.fixture
def loaded(data, monkeypatch):
    """Gives the small data set to the command line; the arguments of each load."""
    calls = []

    def load(source="doodles", **options):
        calls.append({"source": source, **options})
        return dataclasses.replace(data, preprocessing={**data.preprocessing, "split_seed": options["seed"]})

    monkeypatch.setattr(data_tools, "load", load)
    return calls


@pytest.fixture(autouse=True)
def same_threads():
    threads = engine.get_num_threads()
    yield
    engine.set_num_threads(threads)


def call(*argv):
    """The exit code of a command; argparse leaves by SystemExit."""
    try:
        return main([str(word) for word in argv])
    except SystemExit as leaving:
        return leaving.code


STUDY = ["study", "--model", "tiny", "--epochs", EPOCHS, "--batch", BATCH, "--lr", 0.01, "--ratio", 0.5]
TRAIN = ["train", "--model", "tiny", "--epochs", EPOCHS, "--batch", BATCH, "--lr", 0.01]


def test_study_from_the_command_line(loaded, whole, tmp_path, capsys):
    out = tmp_path / "a folder" / "study"
    assert call(*STUDY, "--size", SIZE, "--classes", "car,cat,sun", "--threads", 1, "--out", out) == 0
    assert loaded == [{"source": "doodles", "classes": ["car", "cat", "sun"], "size": SIZE, "seed": 0}]
    assert names(out) == {"report.json", "study.png"} | MODEL_FILES
    report = files.read_json(out / "report.json")
    assert {**figures(report), "settings": 0} == {**figures(whole[1]), "settings": 0}
    assert report["command"].startswith("python -m hbn_ref study --model tiny") and "'" in report["command"]
    assert report["machine"]["threads"] == 1
    printed = capsys.readouterr().out
    assert all(variant in printed for variant in models.VARIANTS) and "Kept real" in printed


def test_interrupted_study_command_says_so_and_goes_on(data, whole, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(data_tools, "load", lambda *args, **options: Interrupted(data, 4))
    assert call(*STUDY, "--out", tmp_path) == 130
    assert "goes on after the last whole epoch" in capsys.readouterr().err.splitlines()[-1]
    monkeypatch.setattr(data_tools, "load", lambda *args, **options: data)
    assert call(*STUDY, "--out", tmp_path) == 0
    assert figures(files.read_json(tmp_path / "report.json"))["variants"] == figures(whole[1])["variants"]
    assert names(tmp_path) == {"report.json", "study.png"} | MODEL_FILES


def test_train_and_evaluate_from_the_command_line(loaded, data, tmp_path, capsys):
    out = tmp_path / "folder" / "net.npz"
    hybrid_options = ["--variant", "hybrid", "--keep-real", "3,conv4", "--last-layer", "binary"]
    assert call(*TRAIN, *hybrid_options, "--out", out) == 0
    assert names(out.parent) == {"net.npz"}  # the checkpoint is gone
    model, classes, _ = models.load(out)
    assert model.spec["keep_real"] == ["conv3", "conv4"] and model.spec["last_layer"] == "binary"
    assert list(classes) == ["car", "cat", "sun"]
    capsys.readouterr()
    for split, crops in (("test", 1), ("validation", 10)):
        assert call("evaluate", out, "--split", split, "--crops", crops) == 0
        prepare = data.ten_crops if crops == 10 else data.evaluation_batch
        found = train.evaluate(model, *getattr(data, split), prepare=prepare)
        printed = capsys.readouterr().out
        assert f"top-1 {found['top1']:.2f} %" in printed and f"{found['count']} drawings" in printed
    assert loaded[-1]["classes"] == ["car", "cat", "sun"] and loaded[-1]["size"] == SIZE


def test_interrupted_train_command_goes_on_to_the_same_network(data, loaded, tmp_path, monkeypatch):
    whole, out = tmp_path / "whole.npz", tmp_path / "net.npz"
    assert call(*TRAIN, "--out", whole) == 0
    with monkeypatch.context() as patch:
        patch.setattr(data_tools, "load", lambda *args, **options: Interrupted(data, BATCHES + 1))
        assert call(*TRAIN, "--out", out) == 130
    assert call(*TRAIN, "--out", tmp_path / "net") == 0  # .npz is added
    a, b = (models.load(path)[0].state() for path in (whole, out))
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert names(tmp_path) == {"whole.npz", "net.npz"}


def test_evaluation_splits_the_data_as_training_did(loaded, tmp_path):
    """With another seed, drawings that the network was trained on would be among the test drawings."""
    assert call(*TRAIN, "--seed", 5, "--epochs", 1, "--out", tmp_path / "net.npz") == 0
    assert call("evaluate", tmp_path / "net.npz") == 0
    assert [options["seed"] for options in loaded] == [5, 5]


def test_evaluation_of_a_packed_file_is_that_of_its_model_file(loaded, whole, capsys):
    for variant, *options in thin([("hybrid",), ("hybrid", "--crops", 10), ("fbin", "--split", "validation")], 2):
        printed = []
        for name in (f"{variant}.npz", f"{variant}-packed.npz"):
            assert call("evaluate", whole[0] / name, *options) == 0
            printed.append(capsys.readouterr().out)
        assert printed[0] == printed[1] and "top-1" in printed[0]
    assert loaded[-1]["classes"] == ["car", "cat", "sun"] and loaded[-1]["size"] == SIZE


def test_evaluation_uses_the_split_of_the_training_whatever_the_seed_of_the_weights(loaded, data, tmp_path):
    apart = dataclasses.replace(data, preprocessing={**data.preprocessing, "split_seed": 3})
    study.run(apart, tmp_path, **{**SETTINGS, "epochs": 1, "variants": ("fbin",), "seed": 7})
    for name in ("fbin.npz", "fbin-packed.npz"):
        assert call("evaluate", tmp_path / name) == 0
        assert call("evaluate", tmp_path / name, "--seed", 5) == 0
    assert [options["seed"] for options in loaded] == [3, 5, 3, 5]


def test_evaluation_of_a_network_from_before_splits_were_noted_takes_the_seed_of_its_weights(loaded, data, tmp_path):
    model = models.build("tiny", "fbin", num_classes=3, in_channels=1, input_size=SIZE, seed=4)
    about = {key: value for key, value in data.preprocessing.items() if key != "split_seed"}
    models.save(model, tmp_path / "m.npz", classes=data.classes, preprocessing=about)
    assert call("export", tmp_path / "m.npz", tmp_path / "p.npz") == 0
    assert call("evaluate", tmp_path / "m.npz") == call("evaluate", tmp_path / "p.npz") == 0
    assert [options["seed"] for options in loaded] == [4, 4]


def test_evaluation_of_a_packed_network_without_classes_or_preprocessing_is_one_line(loaded, data, tmp_path, capsys):
    model = models.build("tiny", "fbin", num_classes=3, in_channels=1, input_size=SIZE)
    for labels in ({}, {"classes": data.classes}, {"preprocessing": data.preprocessing}):
        deploy.save(deploy.compile(model, **labels), tmp_path / "p.npz")
        assert call("evaluate", tmp_path / "p.npz") == 2
        captured = capsys.readouterr()
        assert len(captured.err.splitlines()) == 1 and "p.npz" in captured.err and captured.out == ""


def test_summary_as_json_and_as_text(whole, capsys):
    assert call("summary", whole[0] / "hybrid.npz", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert {"layers", "total"} <= set(found)
    assert {"macs_real", "macs_binary", "equivalent_ops", "params", "weight_bytes"} <= set(found["total"])
    model, _, _ = models.load(whole[0] / "hybrid.npz")
    packed_bytes = deploy.file_bytes(deploy.compile(model))
    assert found["total"] == cost.table(model)["total"] | {"file_bytes": packed_bytes}
    for name, words in (("small-fbin", "small, fbin"), (whole[0] / "wbin.npz", "tiny, wbin")):
        assert call("summary", name) == 0
        printed = capsys.readouterr().out
        assert printed.startswith(words) and "classifier" in printed and "equivalent operations" in printed


def test_a_packed_network_of_a_study_is_small_and_predicts_like_its_model(whole):
    out, report = whole
    for variant in models.VARIANTS:
        packed, (model, classes, _) = deploy.load(out / f"{variant}-packed.npz"), models.load(out / f"{variant}.npz")
        found = report["variants"][variant]
        assert packed.classes == classes
        assert found["file_bytes"] == (out / f"{variant}-packed.npz").stat().st_size
        size = packed.spec["input_size"]
        x = random_arrays(0, (3, size, size, 1), dtype=np.float32)
        assert np.array_equal(packed(x), model.forward(x))


@pytest.mark.parametrize("command", ["", "study", "train", "evaluate", "summary", "export", "predict", "draw"])
def test_help_works(command, capsys):
    assert call(*[command][: len(command)], "--help") == 0
    printed = capsys.readouterr().out
    assert "usage: python -m hbn_ref" in printed and (command or "study") in printed


def test_python_m_hbn_ref_is_the_command_line():
    command = [sys.executable, "-m", "hbn_ref", "study", "--ratio", "2", "--size", "3"]
    done = subprocess.run(command, capture_output=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 2 and done.stdout == b""
    assert len(done.stderr.splitlines()) == 1 and b"size" in done.stderr


def write_bad_files(folder):
    (folder / "text.npz").write_text("no model\n")
    (folder / "empty.npz").write_bytes(b"")
    model = models.build("tiny", "fbin", num_classes=3, in_channels=1, input_size=SIZE)
    header = {"format": models.FORMAT, "spec": model.spec, "classes": ["car", "cat", "sun"], "preprocessing": {}}
    files.write_arrays(folder / "unprepared.npz", header, model.state())
    whole = (folder / "unprepared.npz").read_bytes()
    (folder / "half.npz").write_bytes(whole[: len(whole) // 2])


BAD_COMMANDS = {  # words, what the message must name
    "unknown variant in a study": ("study --variants fprec,xnor", "xnor"),
    "no variant in a study": ("study --variants ,", "variants"),
    "unknown variant": ("train --variant xnor", "xnor"),
    "unknown network": ("train --model big", "big"),
    "no threads": ("study --threads 0", "threads"),
    "threads in letters": ("study --threads many", "threads"),
    "ratio above 1": ("study --ratio 1.5", "ratio"),
    "ratio that is no number": ("study --ratio nan", "ratio"),
    "clusters": ("study --clusters 0", "clusters"),
    "gamma": ("study --gamma -1", "gamma"),
    "gamma that is no number": ("study --gamma nan", "gamma"),
    "epochs": ("study --epochs 0", "epochs"),
    "batch": ("train --batch 0", "batch"),
    "learning rate": ("train --lr nan", "lr"),
    "width": ("study --width -1", "width"),
    "a hybrid of nothing": ("train --variant hybrid", "--keep-real: a hybrid keeps layers real"),
    "a report that is not there": ("report runs/nowhere.json", "nowhere.json: no such file"),
    "unknown layer": ("train --variant hybrid --keep-real conv9", "conv9"),
    "layers of no hybrid": ("train --variant wbin --keep-real conv2", "keep_real"),
    "missing model": ("evaluate FOLDER/missing.npz", "missing.npz"),
    "text for a model": ("evaluate FOLDER/text.npz", "text.npz"),
    "half a model": ("evaluate FOLDER/half.npz", "half.npz"),
    "empty model": ("summary FOLDER/empty.npz", "empty.npz"),
    "folder for a model": ("evaluate FOLDER", "FOLDER"),
    "model without preprocessing": ("evaluate FOLDER/unprepared.npz", "unprepared.npz"),
    "summary without a variant": ("summary small", "small"),
    "summary of an unknown variant": ("summary small-xnor", "xnor"),
    "summary of an unknown network": ("summary big-fbin", "big"),
    "summary of a size too small": ("summary sketchanet-fbin --size 8", "size"),
    "unknown command": ("compare", "compare"),
}


@pytest.mark.parametrize("case", BAD_COMMANDS)
def test_bad_input_gives_one_line_and_exit_code_2(case, loaded, tmp_path, capsys):
    line, named = BAD_COMMANDS[case]
    write_bad_files(tmp_path)
    words = line.replace("FOLDER", str(tmp_path)).split()
    if words[0] in ("study", "train"):
        words += ["--out", tmp_path / "out" / "run"]
        words += ["--model", "tiny"] if "--model" not in words else []
    assert call(*words) == 2
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert len(lines) == 1, captured.err
    assert named.replace("FOLDER", str(tmp_path)) in lines[0] and "Traceback" not in captured.err
    assert captured.out == "" and not names(tmp_path / "out")  # nothing half-written


def test_unknown_data_gives_one_line_and_exit_code_2(tmp_path, capsys):
    for command in ("study", "train"):
        assert call(command, "--data", tmp_path / "missing.zip", "--out", tmp_path / "out") == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and "missing.zip" in lines[0]
    assert names(tmp_path) == set()


def test_folder_that_cannot_be_written_gives_one_line(loaded, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert call(*STUDY, "--out", tmp_path / "file") == 2
    assert "file" in capsys.readouterr().err.splitlines()[-1]
    assert (tmp_path / "file").read_text() == "in the way"


# ------------------------------------------------------------------------------- what the first readers found


def test_each_score_belongs_to_its_own_layer_where_shortcuts_come_last():
    definition = [
        conv("conv1", 4, 3, padding=1),
        models.residual("b", [conv("conv2", 4, 3, 2, 1, relu=False)], [conv("short", 4, 1, 2, relu=False)]),
        conv("conv3", 4, 3, padding=1), max_pool(2), conv("conv4", 4, "map"), classifier(),
    ]  # fmt: skip
    model = models.build(definition, "fbin", num_classes=3, in_channels=1, input_size=8)
    rng = np.random.default_rng(0)
    for layer in model.walk():  # errors that differ from layer to layer
        if isinstance(layer, layers.BatchNorm):
            layer.params["gamma"][:] = rng.uniform(0.2, 3)
    batch = rng.standard_normal((8, 8, 8, 1)).astype(np.float32)
    seen = {}
    with layers.watching(model, lambda layer, x: seen.update({layer.name: x.copy()}), layers.XnorConv):
        model.forward(batch)
    rows, _ = study.choose_layers(model, [batch])
    assert [row["layer"] for row in rows] == ["conv2", "conv3", "conv4", "short"]
    for row in rows:
        assert row["error"] == pytest.approx(hybrid.binarization_error(seen[row["layer"]])), row["layer"]


def test_a_file_in_the_place_of_the_folder_is_refused_before_training(data, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(files.FileError, match="out: expected a folder"):
        study.run(refusing(data), tmp_path / "out", **SETTINGS)
    assert (tmp_path / "out").read_text() == "mine"


def test_what_a_killed_process_left_is_swept_and_nothing_else(tmp_path):
    for name in (f".fbin.{'0' * 32}.npz", f".progress.{'a' * 32}.json", ".hidden.npz", "fbin.npz"):
        (tmp_path / name).write_bytes(b"half")
    files.sweep(tmp_path)
    assert names(tmp_path) == {".hidden.npz", "fbin.npz"}


def test_drawings_prepared_in_another_way_are_refused(tmp_path, capsys):
    model = models.build("tiny", "fbin", num_classes=3, in_channels=1, input_size=32)
    about = {**doodles.load(size=32, train=1, validation=1, test=1).preprocessing, "mean": 0.5}
    models.save(model, tmp_path / "m.npz", classes=("car", "cat", "sun"), preprocessing=about)
    assert main(["evaluate", str(tmp_path / "m.npz")]) == 2
    assert "mean" in capsys.readouterr().err


def test_a_missing_package_is_named_in_one_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "hbn_ref.plots", None)
    monkeypatch.delattr("hbn_ref.plots", raising=False)
    assert main(["study", "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and "hbn_ref.plots" in err and "hbn-ref[study]" in err
