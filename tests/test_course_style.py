"""What can be measured of the notebooks' readability, and that the measure sees what it should."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tutorials"))
measure = pytest.importorskip("measure")

NOTEBOOKS = sorted((ROOT / "tutorials").glob("0*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_short_shows_a_drawing_and_says_what_you_now_know(path):
    assert measure.faults(path) == []


# ------------------------------------------------------------------------------------- the measure itself

TITLE = (
    "# 1. A chapter\n\n**What you'll learn.**\n1. To see.\n2. To count,\n   and more.\n\n**What you'll need.** Nothing."
)
KNOW = "## What you now know\n\n1. You saw 3 things.\n2. You counted\n   to 4."
PICTURE = {"output_type": "display_data", "data": {"image/png": ""}, "metadata": {}}


def written(tmp_path, *cells):
    """A notebook of (kind, id, source, outputs)."""
    path = tmp_path / "01_chapter.ipynb"
    made = []
    for kind, place, source, *outputs in cells:
        made.append({"cell_type": kind, "id": place, "source": source.splitlines(keepends=True), "metadata": {}})
        made[-1].update({"outputs": outputs} if kind == "code" else {})
    path.write_text(json.dumps({"cells": made}), "utf-8")
    return path


def good(tmp_path, **changed):
    cells = {
        "title": ("markdown", TITLE),
        "imports": ("code", "from hbn_ref import bits, course_plots as p"),
        "s1": ("markdown", "Now `bits.pack` and `entering_bits`."),
        "draw": ("code", "bits.pack(x)\np.entering_bits(x, {})", PICTURE),
        "end": ("markdown", KNOW),
    } | changed  # fmt: skip
    return written(tmp_path, *((kind, place, *rest) for place, (kind, *rest) in cells.items()))


def test_a_good_notebook_has_no_faults(tmp_path):
    path = good(tmp_path)
    assert measure.faults(path) == []
    found = measure.measure(path)
    assert found["words"] == len((TITLE + " Now a b c. " + KNOW).split())
    assert (found["lines"], found["width"], found["functions"]) == (2, 43, [])
    assert found["drawings"] == ["draw"]
    assert found["learn"] == ["To see.", "To count,\n   and more."] and len(found["know"]) == 2


@pytest.mark.parametrize("changed, fault", [
    ({"s1": ("markdown", "`bits.pack` " + "word " * 2000)}, "words: 20"),
    ({"more": ("code", "x = 1\n" * 21)}, "lines: 21, at most 20"),
    ({"more": ("code", f"x = '{'a' * 96}'")}, "width: 102, at most 100"),
    ({"more": ("code", "\n".join(f"bits.f{k}()" for k in range(16)))}, "functions: 16, at most 15"),
    ({"draw": ("code", "p.entering_bits(x, {})")}, "drawings: no picture of a drawing"),
    ({"draw": ("code", "p.lines(x, {})", PICTURE)}, "drawings: no picture of a drawing"),
    ({"end": ("markdown", "## The end\n\n1. One 1.\n2. Two 2.")}, "What you now know: 0 lines, What you'll learn: 2"),
    ({"end": ("markdown", "## What you now know\n\n1. One 1.")}, "What you now know: 1 lines, What you'll learn: 2"),
    ({"end": ("markdown", "## What you now know\n1. One 1.\n2. Two.")}, "What you now know: without a number: Two."),
])  # fmt: skip
def test_every_fault_is_said(tmp_path, changed, fault):
    found = measure.faults(good(tmp_path, **changed))
    assert len(found) == 1 and found[0].startswith(fault)


def test_what_comes_unannounced(tmp_path):
    def used(source, *before):
        return measure.measure(good(tmp_path, s1=("markdown", " ".join(before)), draw=("code", source)))["functions"]

    assert used("bits.pack(x)") == ["bits.pack"]
    assert used("bits.pack(x)", "You pack your bits.") == ["bits.pack"]  # a word of the language is no name
    assert used("bits.pack(x)", "`pack` makes words.") == used("bits.pack(x)", "`w = bits.pack(x)`") == []
    assert used("bits.pack(x)", "`bits.unpack`") == ["bits.pack"]
    assert used("p.lines(x)") == ["course_plots.lines"]  # by the name that the package gives it
    assert used("np.dot(x, x)\nx.forward()\nbits = 1") == []
    assert used("from hbn_ref.conv import pack_weights as pw\npw(w)") == ["pack_weights"]


def test_checks_are_not_read_and_later_text_announces_nothing(tmp_path):
    cells = [("markdown", "t", "# T"), ("code", "a", "from hbn_ref import bits\nbits.pack(x)")]
    cells += [("markdown", "b", "`bits.pack`"), ("code", "check-1-1", "bits.unpack(x)"), ("code", "c", "bits.sign(x)")]
    assert measure.measure(written(tmp_path, *cells))["functions"] == ["bits.pack", "bits.sign"]


def test_the_measure_on_the_command_line():
    command = [sys.executable, ROOT / "tutorials" / "measure.py"]
    table = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(table) == 10 and table[1].split()[0] == "01_bits"
    one = subprocess.run([*command, "deploy"], capture_output=True, text=True, check=True).stdout
    assert "09_deploy: not in words before they are used: " in one
