"""Top floor, claims and abstract: the experiments go on from their summary alone, and verdicts follow from rules.

Trainings are those of a tiny network on a few doodles; the verdicts are put to made-up figures.
"""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from test_presets import FOUR, a_few

from hbn_ref import abstract, claims, files, models, plots, presets, study, train
from hbn_ref.__main__ import main

KEPT = {"keep_real": ["conv3", "conv4"]}
NETWORKS = {
    **claims.PLAIN, "hybrid1": ("hybrid", KEPT), "hybrid1-taught": ("hybrid", {**KEPT, **claims.TAUGHT}),
    "hybrid1-last": ("hybrid", {**KEPT, "last_layer": "binary"}), "metric": ("hybrid", {}),
}  # fmt: skip
SHORT = {name: NETWORKS[name] for name in ("fprec", "fbin", "hybrid1")}
EXPERIMENTS = {
    "sketchanet": claims.Experiment("four", 16, 2, NETWORKS, ratio=2 / 3, seeds=(0, 1)),
    "photos": claims.Experiment("four", 16, 1, SHORT, photos=True, seeds=(0,)),
    "sketchanet-double": claims.Experiment("four", 16, 4, SHORT, tuned_as="sketchanet", seeds=(0,)),
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def tiny():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.NETWORKS, "four", FOUR)
        patch.setattr(study, "milliseconds_per_image", lambda *args: (1.5, 1.0))
        patch.setattr(claims, "TRIED", [{"lr": lr, "batch": 6, "schedule": "step"} for lr in (0.001, 0.01)])
        yield


def load(classes, seed, size):
    return a_few(seed)


def run(out, **options):
    return claims.run(load, out, photos=load, progress=False, command="the command", experiments=EXPERIMENTS, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("claims")
    return out, run(out)


@pytest.fixture
def fits(monkeypatch):
    """Every training that begins: (variant, whether it has a teacher, epochs, first weights of conv3)."""
    seen = []

    def fit(model, *data, **options):
        weights = {layer.name: layer.params["w"].copy() for layer in model.walk() if "w" in layer.params}
        seen.append((model.spec["variant"], options["teacher"] is not None, options["epochs"], weights["conv3"]))
        return real(model, *data, **options)

    real = train.fit
    monkeypatch.setattr(train, "fit", fit)
    return seen


def without(row):
    return {key: value for key, value in row.items() if key not in ("train_seconds", "machine")}


def test_every_network_of_every_seed_has_a_row(whole):
    _, found = whole
    for name, one in EXPERIMENTS.items():
        for network in one.networks:
            assert list(found["networks"][name][network]) == [str(seed) for seed in one.seeds], (name, network)
    row = found["networks"]["sketchanet"]["hybrid1-last"]["1"]
    assert row["kept_real"] == ["conv3", "conv4"] and row["last_layer"] == "binary" and row["epochs"] == 2
    assert row["command"] == "the command" and row["machine"]["processor"] and row["drawings"][0]
    assert row["top1_ten_crops"] >= 0 and len(study.unpack_hits(row)) == row["count"]
    assert found["networks"]["sketchanet-double"]["fbin"]["0"]["epochs"] == 4


def test_learning_rate_schedule_and_batch_are_chosen_once_on_drawings_held_out(whole):
    out, found = whole
    rows = found["tuning"]["sketchanet"]
    assert [row["lr"] for row in rows] == [0.001, 0.01] and "sketchanet-double" not in found["tuning"]
    best = min(rows, key=lambda row: row["fprec"]["loss"] + row["fbin"]["loss"])
    for name in ("sketchanet", "sketchanet-double"):
        runs = [run for network in found["networks"][name].values() for run in network.values()]
        assert {(run["lr"], run["schedule"], run["batch"]) for run in runs} == {(best["lr"], "step", 6)}
    report = study.load_report(out / "sketchanet-tuning" / "try0" / "report.json")
    held_out = len(a_few(0).development(0).test[1])
    assert rows[0]["fbin"]["count"] == held_out and report["settings"]["drawings"][2] == held_out


def test_only_the_taught_network_has_a_teacher_and_wbins_weights(tmp_path, fits):
    run(tmp_path, seeds=(1,))
    taught = [seen for seen in fits if seen[1]]
    assert len(taught) == 1 and taught[0][0] == "hybrid"
    wbin = models.load(tmp_path / "sketchanet" / "seed1" / "wbin.npz")[0]
    np.testing.assert_array_equal(taught[0][3], next(x.params["w"] for x in wbin.walk() if x.name == "conv3"))


def test_the_summary_alone_is_enough_to_go_on(whole, tmp_path, fits):
    out, found = whole
    shutil.copy(out / "claims.json", tmp_path)
    assert run(tmp_path) == found and not fits

    less = json.loads((out / "claims.json").read_text())
    del less["networks"]["sketchanet"]["hybrid1-last"]["1"]
    files.write_json(tmp_path / "claims.json", less)
    again = run(tmp_path)
    assert [seen[0] for seen in fits] == ["hybrid"]
    row, before = (f["networks"]["sketchanet"]["hybrid1-last"]["1"] for f in (again, found))
    assert without(row) == without(before)


def test_what_a_missing_network_needs_is_made_again_but_not_told_again(whole, tmp_path, fits):
    out, found = whole
    less = json.loads((out / "claims.json").read_text())
    for network in ("hybrid1-taught", "metric"):
        del less["networks"]["sketchanet"][network]["0"]
    files.write_json(tmp_path / "claims.json", less)
    again = run(tmp_path)
    kept = found["kept"]["sketchanet"]["0"] == KEPT["keep_real"]  # then the metric's hybrid is hybrid1
    assert [seen[0] for seen in fits] == ["fprec", "wbin", "hybrid", "fbin", *([] if kept else ["hybrid"])]
    assert again["networks"]["sketchanet"]["fprec"] == found["networks"]["sketchanet"]["fprec"]


def test_a_network_is_in_the_summary_as_soon_as_it_is_judged(tmp_path, monkeypatch):
    real, count = train.fit, []

    def fit(*args, **options):
        count.append(1)
        if len(count) == 6:  # four to tune, then fprec
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(train, "fit", fit)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    found = claims.load_summary(tmp_path / "claims.json")
    assert len(found["tuning"]["sketchanet"]) == 2 and list(found["networks"]["sketchanet"]) == ["fprec"]


def test_the_metrics_own_hybrid_is_not_trained_twice(whole, tmp_path, fits, monkeypatch):
    monkeypatch.setattr(study.Study, "choose", lambda self: list(KEPT["keep_real"]))
    one = dataclasses.replace(EXPERIMENTS["sketchanet"], seeds=(0,))
    found = claims.run(load, tmp_path, progress=False, experiments={"sketchanet": one})
    row = found["networks"]["sketchanet"]["metric"]["0"]
    assert row["same_as"] == "hybrid1" and row["hits"] == found["networks"]["sketchanet"]["hybrid1"]["0"]["hits"]
    assert [seen[0] for seen in fits].count("hybrid") == 3


def test_without_photos_their_experiment_is_left_out(tmp_path):
    found = claims.run(load, tmp_path, progress=False, experiments=EXPERIMENTS, seeds=(0,), epochs=1)
    assert "photos" not in found["networks"]
    assert found["networks"]["sketchanet"]["fbin"]["0"]["epochs"] == 1
    assert found["networks"]["sketchanet-double"]["fbin"]["0"]["epochs"] == 2
    row = next(row for row in abstract.claim_rows({**found, "errors": {}}) if "ResNet-18" in row["claim"])
    assert row["verdict"] == abstract.MISSING and row["measured"] == "-"


@pytest.mark.parametrize("content", ["[]", "{", '{"format": "hbn_ref claims 1"}', '{"format": "other"}'])
def test_a_damaged_summary_is_refused_and_kept(tmp_path, content):
    path = tmp_path / "claims.json"
    path.write_text(content)
    with pytest.raises(files.FileError, match=r"claims\.json"):
        run(tmp_path)
    assert path.read_text() == content


# ------------------------------------------------------------------------------------------------ the abstract


def runs(*tops, count=100):
    """Rows of as many seeds, each with the first drawings recognised."""
    made = {}
    for seed, top in enumerate(tops):
        hits = np.packbits(np.arange(count) < top).tobytes().hex()
        made[str(seed)] = {
            "top1": 100 * top / count, "top5": 90.0, "top1_ten_crops": 80.0, "hits": hits, "count": count, "epochs": 40,
            "equivalent_ops": 1e6, "weight_bytes": 1000, "file_bytes": 2000, "ms_packed": 1.0, "train_seconds": 3.0,
        }  # fmt: skip
    return made


def summary(**experiments):
    return {"format": claims.FORMAT, "tuning": {}, "networks": experiments, "errors": {}, "kept": {}}


def verdict(found, words):
    return next(row["verdict"] for row in abstract.claim_rows(found) if words in row["claim"])


def test_a_difference_carries_both_of_its_errors():
    found = summary(photos={"hybrid-v2": runs(60, 62, 64), "fbin": runs(50, 56, 56)})
    d = abstract.difference(found, "photos", "hybrid-v2", "fbin")
    assert d.seeds == 3 and d.mean == pytest.approx(8) and d.over_seeds == pytest.approx(2 / np.sqrt(3))
    each = np.mean([(np.arange(100) < a) * 100.0 - (np.arange(100) < b) * 100.0
                    for a, b in ((60, 50), (62, 56), (64, 56))], axis=0)  # fmt: skip
    assert d.over_drawings == pytest.approx(each.std(ddof=1) / 10)
    assert abstract.difference(found, "photos", "hybrid-v1", "fbin") is None


@pytest.mark.parametrize(
    "hybrid, fbin, expected",
    [((80, 80, 80), (70, 70, 70), "shown"), ((72, 72, 72), (70, 70, 70), "not shown"),
     ((62, 80, 90), (61, 60, 60), "not shown"), ((70, 70, 70), (70, 70, 70), "not shown")],
)  # fmt: skip
def test_the_verdict_on_photos_asks_for_three_points_and_two_errors(hybrid, fbin, expected):
    found = summary(photos={"hybrid-v2": runs(*hybrid), "fbin": runs(*fbin)})
    assert verdict(found, "(ResNet-18)") == expected


def test_a_claim_shown_for_one_network_only_is_shown_in_part():
    networks = {"fprec": runs(80), "hybrid1": runs(80), "hybrid1-taught": runs(70)}
    assert verdict(summary(sketchanet=networks), "matches") == abstract.PART
    networks["hybrid1-taught"] = runs(79)
    assert verdict(summary(sketchanet=networks), "matches") == abstract.PART  # ResNet-18 is missing
    resnet = {"fprec": runs(70), "hybrid-v2": runs(70)}
    assert verdict(summary(sketchanet=networks, resnet18=resnet), "matches") == abstract.SHOWN
    assert verdict(summary(sketchanet={"fprec": runs(80), "hybrid1": runs(70)}), "matches") == abstract.NOT


def test_every_claim_has_a_row_even_before_anything_is_trained():
    rows = abstract.claim_rows(summary())
    assert len(rows) == 8 and all(set(row) == {"claim", "published", "measured", "verdict", "rule"} for row in rows)
    verdicts = {row["claim"]: row["verdict"] for row in rows if "compression and speed" not in row["claim"]}
    assert verdicts.pop("Photos: 3 to 4 points above fully binary (AlexNet)") == abstract.UNTESTED
    assert set(verdicts.values()) == {abstract.MISSING}


def test_what_is_lost_by_the_counts_at_full_size(monkeypatch):
    row = next(row for row in abstract.claim_rows(summary()) if "speed" in row["claim"])
    assert "Hybrid-1 6.9, Hybrid-2 7.4, FBin 7.4; ResNet-18 v1 4.6, v2 2.2, FBin 13.3" in row["measured"]
    assert "Sketch-A-Net Hybrid-1 89 M, Hybrid-2 82 M, FBin 82 M of 608 M" in row["published"]
    for network, verdict_alone in (("sketchanet", abstract.SHOWN), ("resnet18", abstract.NOT)):
        with monkeypatch.context() as patch:
            patch.setattr(abstract, "CLAIMED", {network: abstract.CLAIMED[network]})
            assert verdict(summary(), "speed") == verdict_alone
    assert row["verdict"] == abstract.PART  # all but nothing on Sketch-A-Net, most of it elsewhere


# -------------------------------------------------------------------------------------------------- the metric


def test_rank_correlation_is_that_of_ranks():
    assert abstract.rank_correlation([1, 20, 300], [2, 3, 4]) == pytest.approx(1)
    assert abstract.rank_correlation([3, 2, 1], [0.1, 5, 7]) == pytest.approx(-1)
    a, b = [0.2, 0.9, 0.4, 0.6], [1, 3, 4, 2]
    d = np.array([0, 3, 1, 2]) - np.array([0, 2, 3, 1])
    assert abstract.rank_correlation(a, b) == pytest.approx(1 - 6 * (d**2).sum() / (4 * 15))


def errors(names, values, macs):
    return [
        {"layer": name, "macs": m, "mse": v**2, "rmse": v, "normalised": v, "one_minus_square": v}
        for name, v, m in zip(names, values, macs, strict=True)
    ]


def test_errors_are_compared_in_the_order_of_the_authors_logs():
    names = [f"conv{i}" for i in range(2, 18)] + ["shortcut6", "shortcut10", "shortcut14"]
    rows = errors(names, range(1, 20), [1] * 19)
    order = [row["layer"] for row in abstract.as_logged(rows)]
    assert order[4:8] == ["conv6", "conv7", "shortcut6", "conv8"] and order[-1] == "conv17"
    logged = dict(zip(order, abstract.LOGGED_RMSE["resnet18"], strict=True))
    found = summary() | {"errors": {"resnet18": {"0": errors(names, [logged[n] for n in names], range(100, 119))}}}
    assert abstract.metric_rows(found)[0]["rank_correlation"] == pytest.approx(1)


def test_the_rule_is_held_against_the_authors_choice():
    names, logged = [f"conv{i}" for i in range(2, 8)], abstract.LOGGED_RMSE["sketchanet"]
    rows = errors(names, logged, [9e6, 9e6, 9e6, 9e6, 3e5, 1e5])
    found = summary() | {"errors": {"sketchanet": {"0": rows}}}
    row = abstract.metric_rows(found)[0]
    assert row["chosen"] == {"sketchanet-hybrid2": ["conv7"], "sketchanet-hybrid1": ["conv6", "conv7"]}
    assert verdict(found, "metric") == abstract.SHOWN
    found["errors"]["sketchanet"]["1"] = errors(names, logged[::-1], [1e5, 9e6, 9e6, 9e6, 9e6, 9e6])
    assert verdict(found, "metric") == abstract.PART
    assert abstract.same_choice(["conv17", "conv16"], "resnet18-hybrid-v1")
    assert not abstract.same_choice(["conv17"], "resnet18-hybrid-v1")


# --------------------------------------------------------------------------------------- table, picture, command


def test_table_and_picture_tell_every_network(whole, tmp_path, capsys):
    out, found = whole
    found = {**found, "errors": {}}
    text = abstract.table(found)
    assert all(abstract.plain(network) in text for network in NETWORKS) and text.count("(shown:") >= 6
    figure = plots.claims(found)
    assert [axis.get_title() for axis in figure.axes][:2] == ["Sketch-A-Net, sketches", "ResNet-18, photos"]
    plots.save(figure, tmp_path / "claims.png")
    files.write_json(tmp_path / "claims.json", found)
    assert main(["report", str(tmp_path / "claims.json")]) == 0
    assert capsys.readouterr().out.strip() == text.strip()


def test_the_curve_is_the_share_of_the_gap_that_the_hybrid_closes():
    one = {"fprec": runs(80), "hybrid1": runs(75), "fbin": runs(60)}
    [row] = abstract.curve_rows(summary(sketchanet=one))
    assert row["share"] == pytest.approx(0.75) and (row["epochs"], row["seeds"], row["over_seeds"]) == (40, 1, None)
    each = np.array([0.25] * 60 + [1 - 0.75] * 15 + [-0.75] * 5 + [0] * 20) - 0.25 * (np.arange(100) < 60)
    assert row["over_drawings"] == pytest.approx(100 * each.std(ddof=1) / 10 / 20)  # of a gap of 20 points
    assert abstract.share_cell(row) == f"75 +- {100 * row['over_drawings']:.0f} over drawings"
    assert abstract.curve_rows(summary(sketchanet={"fprec": runs(80)})) == []
    assert abstract.curve_rows(summary(sketchanet={**one, "fprec": runs(60)})) == []
    figure = plots.claims(summary(sketchanet=one, **{"sketchanet-half": one}))
    line = figure.axes[1].lines[0]
    assert list(line.get_ydata()) == [75, 75] and "time" in figure.axes[1].get_title()


def test_the_curve_takes_the_seeds_that_all_lengths_have():
    three = {"fprec": runs(80, 90, 70), "hybrid1": runs(75, 80, 70), "fbin": runs(60, 60, 60)}
    one = {name: {"1": {**own["1"], "epochs": 20}} for name, own in three.items()}
    half, whole = abstract.curve_rows(summary(sketchanet=three, **{"sketchanet-half": one}))
    assert (half["epochs"], whole["epochs"]) == (20, 40) and half["seeds"] == whole["seeds"] == 1
    assert half["share"] == whole["share"] == pytest.approx(2 / 3)
    [row] = abstract.curve_rows(summary(sketchanet=three))
    assert row["share"] == pytest.approx((15 + 20 + 10) / (20 + 30 + 10))
    left = [15 - 0.75 * 20, 20 - 0.75 * 30, 10 - 0.75 * 10]
    assert row["over_seeds"] == pytest.approx(np.std(left, ddof=1) / np.sqrt(3) / 20)
    assert "75 +- 7 over seeds, " in abstract.table(summary(sketchanet=three))


def test_the_command_takes_photos_for_claims_only(tmp_path, capsys, monkeypatch):
    seen = {}

    def run(load, out, *, photos=None, command="", **changed):
        seen.update(photos=photos, command=command, changed=changed)
        return summary()

    monkeypatch.setitem(presets.PRESETS, "claims", dataclasses.replace(presets.PRESETS["claims"], run=run))
    out = str(tmp_path / "out")
    assert main(["study", "--preset", "claims", "--photos", "here.zip", "--epochs", "3", "--out", out]) == 0
    assert callable(seen["photos"]) and seen["changed"] == {"epochs": 3} and "--photos here.zip" in seen["command"]
    assert (tmp_path / "out" / "claims.png").exists()
    for argv in (["--preset", "choice", "--photos", "x"], ["--photos", "x"]):
        assert main(["study", *argv, "--out", out]) == 2
        assert "--photos" in capsys.readouterr().err
