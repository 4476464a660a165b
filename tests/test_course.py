"""What the notebooks import: which drawings a notebook runs on, and what to expect on others."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tutorials"))
course = pytest.importorskip("course")
data_tools = pytest.importorskip("data_tools")


# ------------------------------------------------------------------------------------------- the drawings


@pytest.fixture
def no_archive(monkeypatch, tmp_path):
    monkeypatch.setenv("HBN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HBN_DATA", raising=False)


def test_doodles_where_nothing_else_is_at_hand_and_where_they_are_asked_for(no_archive, monkeypatch, tmp_path, capsys):
    said = "This notebook runs on the built-in doodles: 3 classes, "
    course.sketches(classes=3)
    assert capsys.readouterr().out.startswith(said)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "sketches_svg.zip").write_bytes(b"PK")
    monkeypatch.setenv("HBN_DATA", "doodles")
    course.sketches(classes=3)
    assert capsys.readouterr().out.startswith(said)


@pytest.mark.parametrize("name, reason", [("mistyped", "mistyped, which does not exist"), ("", "no images in ")])
def test_a_path_without_drawings_is_an_error(no_archive, monkeypatch, tmp_path, name, reason):
    monkeypatch.setenv("HBN_DATA", str(tmp_path / name))
    with pytest.raises(data_tools.DataError, match=reason):
        course.sketches()


def test_of_many_classes_the_first_15(no_archive, monkeypatch, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for k in range(17):
        (tmp_path / "some" / f"class{k:02}").mkdir(parents=True)
        for i in range(8):
            picture = Image.fromarray(np.where(rng.random((24, 24)) < 0.1, 0, 255).astype(np.uint8))
            picture.save(tmp_path / "some" / f"class{k:02}" / f"{i}.png")
    monkeypatch.setenv("HBN_DATA", str(tmp_path / "some"))
    assert course.sketches().classes == tuple(f"class{k:02}" for k in range(15))
    assert "TU-Berlin sketches: 15 of 17 classes" in capsys.readouterr().out
    assert len(course.sketches(classes=17).classes) == 17


def test_what_to_expect_is_the_mean_over_the_seeds(monkeypatch, capsys):
    def run(top1, seconds):
        about = {"classes": 3, "drawings": [12, 0, 6], "epochs": 4}
        return about | {"top1": top1, "train_seconds": seconds, "weight_bytes": 1_234_567, "ms_per_image": 0.4567}

    found = {"fprec": {"0": run(80.0, 10.0), "1": run(84.0, 11.0)}, "fbin": {"0": run(70.0, 5.0), "1": run(70.0, 5.0)}}
    monkeypatch.setattr(course, "results", {"evidence.json": found}.__getitem__)
    course.expect("top1", "train_seconds", "weight_bytes", "ms_per_image")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("TU-Berlin, 3 classes: 12 drawings to train, 6 to test; 4 epochs, 2 seeds")
    assert lines[3].split() == ["FPrec", "82.0", "+-", "2.0", "10", "1,234,567", "0.46"]  # 10.5, to even
    assert lines[4].split() == ["FBin", "70.0", "+-", "0.0", "5", "1,234,567", "0.46"]
    course.expect("top1", networks=("fbin",))
    assert "FPrec" not in capsys.readouterr().out


def test_what_a_network_saves_against_another(monkeypatch):
    sizes = {"fprec": (1000, 580.0), "fbin": (50, 58.0), "wbin": (50, 290.0)}
    found = {
        name: {"0": {"weight_bytes": weights, "equivalent_ops": ops}} for name, (weights, ops) in sizes.items()
    }  # fmt: skip
    monkeypatch.setattr(course, "results", {"evidence.json": found}.__getitem__)
    assert course.savings("fbin") == (20, 10) and course.savings("fbin", "wbin") == (1, 5)


def test_networks_are_named_to_a_reader():
    names = [course.called(name) for name in course.results("evidence.json")]
    assert names[:3] == ["FPrec", "WBin", "FBin"] and names[-1] == "FPrec, twice as long"
    assert all(name.startswith("hybrid-conv") for name in names[3:-1])
