"""The course: notebooks as they are committed, exercises and their checks, the grader, the student's copy."""

import csv
import json
import re
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tutorials"))
nbformat = pytest.importorskip("nbformat", reason="needs jupyter")
course = pytest.importorskip("course")

NOTEBOOKS = course.notebooks()
BY_NAME = {"ids": [path.stem for path in NOTEBOOKS]}
HEADINGS = ("What you'll do", "What you'll learn", "What you'll need", "## Exercises", "## In practice", "## Further")
MOST_LINES, MOST_BYTES = 25, 400_000


def read(path):
    return nbformat.read(path, 4)


def wrong_answers(stem):
    """Two wrong answers for each exercise that is checked: a list of two {cell id: source}."""
    parts = re.split(
        r"^# %% (\S+).*\n", (ROOT / "tests" / "wrong_answers" / f"{stem}.py").read_text("utf-8"), flags=re.M
    )
    found = {}
    for cell, source in zip(parts[1::2], parts[2::2]):
        found.setdefault(cell, []).append(source.strip())
    assert all(len(sources) == 2 for sources in found.values()), {cell: len(s) for cell, s in found.items()}
    return [{cell: sources[i] for cell, sources in found.items()} for i in range(2)]


def answered(path, folder, answers):
    """A student's notebook with these answers in it."""
    notebook = read(path)
    for cell in notebook.cells:
        cell.source = answers.get(cell.id, cell.source)
    out = folder / "handed in.ipynb"
    nbformat.write(notebook, out)
    return out


# ----------------------------------------------------------------------------------- as they are committed


@pytest.mark.parametrize("path", NOTEBOOKS, **BY_NAME)
def test_a_notebook_has_what_every_notebook_has(path):
    notebook = read(path)
    text = "\n".join(cell.source for cell in notebook.cells)
    assert all(heading in text for heading in HEADINGS), [h for h in HEADINGS if h not in text]
    assert "In the network" in text and "course.setup()" in text
    assert len(course.exercises(notebook)) in (3, 4)
    ids = [cell.id for cell in notebook.cells]
    for number in course.exercises(notebook):
        cell = number.replace(".", "-")
        assert ids.index(f"check-{cell}") == ids.index(f"ex-{cell}") + 1
    assert max(len(cell.source.splitlines()) for cell in notebook.cells if cell.cell_type == "code") <= MOST_LINES


@pytest.mark.parametrize("path", NOTEBOOKS, **BY_NAME)
def test_a_notebook_is_fresh_and_small_and_without_errors(path):
    notebook = read(path)
    assert path.stat().st_size <= MOST_BYTES
    assert not course.failures(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code) and sum(bool(cell.outputs) for cell in code) > len(code) / 2
    found = course.fingerprint(notebook, path.stem)
    kept = {key: notebook.metadata["hbn_ref"][key] for key in found}
    assert kept == found, "the outputs are stale: python tutorials/course.py publish"


@pytest.mark.parametrize("path", NOTEBOOKS, **BY_NAME)
def test_every_picture_has_an_alternative_text(path):
    for cell in read(path).cells:
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                assert len(output.metadata["image/png"]["alt"]) > 40, cell.id


@pytest.mark.parametrize("path", NOTEBOOKS, **BY_NAME)
def test_local_links_lead_somewhere(path):
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            for link in re.findall(r"\]\(([^)#]+)\)", cell.source):
                assert link.startswith("https://") or (path.parent / link).exists(), link


@pytest.mark.parametrize("path", NOTEBOOKS, **BY_NAME)
def test_exercises_have_solutions_and_wrong_answers(path):
    checked = {f"ex-{n.replace('.', '-')}" for n, written in course.exercises(read(path)).items() if not written}
    assert checked <= course.answers(path.stem).keys()
    assert all(checked == wrong.keys() for wrong in wrong_answers(path.stem))


# --------------------------------------------------------------------------------------------- the checks


@pytest.fixture
def grading(monkeypatch):
    monkeypatch.setenv("HBN_GRADE_SEED", "secret")


def said(capsys, *answers, body=lambda rng, answer: course.same(answer(2), 4)):
    course.check("9.9", *answers)(body)
    return capsys.readouterr().out.strip()


def test_a_check_says_right_wrong_or_not_done_yet(capsys):
    assert said(capsys, lambda x: 2 * x) == "9.9: right"
    assert said(capsys, lambda x: x) == "9.9: not right yet. the result is 2, expected 4; 100% of it differs"
    assert said(capsys, lambda x: ...) == said(capsys, lambda x: None) == said(capsys, ...) == "9.9: not done yet"
    assert "not right yet: it ends with ZeroDivisionError" in said(capsys, lambda x: x / 0)


@pytest.mark.parametrize("answer", [lambda x: x, lambda x: ..., lambda x: x / 0])
def test_only_grading_makes_a_check_raise(grading, answer):
    with pytest.raises(course.CheckFailed, match=r"^9\.9: not"):
        course.check("9.9", answer)(lambda rng, answer: course.same(answer(2), 4))


def test_hidden_cases_come_from_the_seed(monkeypatch):
    drawn = []

    def draw(seed):
        monkeypatch.setenv("HBN_GRADE_SEED", seed)
        course.check("9.9", 1)(lambda rng, answer: drawn.append(rng.random()))

    for seed in ("a", "a", "b"):
        draw(seed)
    assert drawn[:3] == drawn[3:6] and not set(drawn[:3]) & set(drawn[6:]) and len(set(drawn[:3])) == course.ROUNDS


def test_same_names_shape_place_and_share():
    with pytest.raises(AssertionError, match=r"the map has the shape \(2,\), expected \(3,\)"):
        course.same(np.zeros(2), np.zeros(3), what="the map")
    with pytest.raises(AssertionError, match=r"at \(1, 0\) is 5.0, expected 0.0; 25% of it differs"):
        course.same(np.array([[0, 0], [5.0, 0]]), np.zeros((2, 2)))
    course.same(np.array([1.0, np.nan]), np.array([1.0 + 1e-9, np.nan]), tolerance=1e-6)


def test_catches_wants_good_code_passed_and_every_fault_noticed():
    def test(thing):
        assert thing == 1

    course.catches(test, 1, {"two": 2, "three": 3})
    with pytest.raises(AssertionError, match="does not notice: one"):
        course.catches(test, 1, {"two": 2, "one": 1})
    with pytest.raises(AssertionError):
        course.catches(test, 2, {})
    with pytest.raises(course.NotDone):
        course.catches(lambda thing: ..., 1, {})


# --------------------------------------------------------------------------------------------- the grader


def points(rows):
    return [row["points"] for row in rows if row["points"] != ""]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, **BY_NAME)
def test_solutions_get_full_marks(path, tmp_path):
    rows = course.grade_one(answered(path, tmp_path, course.answers(path.stem)), "secret")
    assert len(rows) >= 3 and set(points(rows)) == {1}, rows


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, **BY_NAME)
def test_an_untouched_notebook_gets_nothing(path, tmp_path):
    rows = course.grade_one(path, "secret")
    assert set(points(rows)) == {0}
    assert all("not done yet" in row["comment"] for row in rows if row["points"] != "")


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("path", NOTEBOOKS, **BY_NAME)
def test_wrong_answers_get_nothing(path, number, tmp_path):
    rows = course.grade_one(answered(path, tmp_path, wrong_answers(path.stem)[number]), "secret")
    assert set(points(rows)) == {0}, [row for row in rows if row["points"] == 1]


@pytest.mark.slow
def test_a_syntax_error_costs_its_exercise_and_is_named(tmp_path):
    path = NOTEBOOKS[0]
    rows = course.grade_one(answered(path, tmp_path, course.answers(path.stem) | {"ex-1-1": "def pack70(x:"}), "secret")
    assert points(rows) == [0, 1, 1, 1]
    assert rows[0]["comment"].startswith("cell ex-1-1: SyntaxError")


@pytest.mark.slow
def test_grading_writes_a_table_and_restores_the_checks(tmp_path, capsys):
    path = NOTEBOOKS[0]
    cheat = {f"check-1-{k}": "print('right')" for k in range(1, 5)}
    handed_in = answered(path, tmp_path, cheat)
    broken = tmp_path / "broken.ipynb"
    broken.write_text("{")
    course.grade([str(handed_in), str(broken)], "secret", tmp_path / "points.csv")
    with open(tmp_path / "points.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["points"] for row in rows] == ["0"] * 5
    assert "cannot be read" in rows[-1]["comment"] and "5 rows, 0 points" in capsys.readouterr().out


# ------------------------------------------------------------------------------------- the other commands


def test_the_students_copy_has_no_solutions(tmp_path, capsys):
    course.student(tmp_path / "course")
    names = {path.relative_to(tmp_path / "course").as_posix() for path in (tmp_path / "course").rglob("*")}
    assert not any("solution" in name for name in names)
    assert {"tutorials/01_bits.ipynb", "tutorials/course.py", "hbn_ref/bits.py", "requirements.txt"} <= names
    with pytest.raises(SystemExit, match="is there already"):
        course.student(tmp_path / "course")


def test_the_students_copy_as_a_zip(tmp_path):
    course.student(tmp_path / "copy.zip")
    with zipfile.ZipFile(tmp_path / "copy.zip") as archive:
        names = archive.namelist()
    assert "copy/tutorials/01_bits.ipynb" in names and not any("solution" in name for name in names)
    assert not (tmp_path / "copy").exists()


def test_nbgrader_sources_hold_answers_between_its_markers(tmp_path):
    course.nbgrader(tmp_path)
    for path in NOTEBOOKS:
        cells = {cell.id: cell for cell in read(tmp_path / path.stem / path.name).cells}
        for number in course.exercises(read(path)):
            exercise, check = (cells[f"{kind}-{number.replace('.', '-')}"] for kind in ("ex", "check"))
            assert exercise.source.startswith("### BEGIN SOLUTION") and exercise.metadata["nbgrader"]["solution"]
            assert check.metadata["nbgrader"]["grade"] and check.metadata["nbgrader"]["points"] == 1


# ------------------------------------------------------------------------------------------------ the oracle

SUMMARY = ROOT / "results" / "choice.json"


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """A place for the oracle other than the course's own."""
    monkeypatch.setattr(course, "ORACLE", tmp_path / "data" / "oracle.json")
    return tmp_path


def test_the_oracle_keeps_what_notebook_8_needs(elsewhere):
    summary = {key: f"the {key}" for key in course.ORACLE_KEYS if key != "drawings"}
    path = elsewhere / "choice.json"
    path.write_text(json.dumps({**summary, "settings": {"drawings": [4, 2, 3], "lr": 0.003}}))
    course.write_oracle(path)
    assert course.oracle() == {**summary, "drawings": [4, 2, 3]}


@pytest.mark.parametrize("summary", [{}, [], {"settings": {"drawings": []}, "choices": {}}])
def test_the_oracle_is_made_of_a_study_of_choices_only(elsewhere, summary):
    path = elsewhere / "choice.json"
    path.write_text(json.dumps(summary))
    with pytest.raises(SystemExit, match="expected choice.json"):
        course.write_oracle(path)
    assert not course.ORACLE.exists()


@pytest.mark.skipif(not (SUMMARY.exists() and course.ORACLE.exists()), reason="the study is not in this checkout")
def test_the_committed_oracle_is_that_of_the_published_study(elsewhere):
    committed = (ROOT / "tutorials" / "data" / "oracle.json").read_text("utf-8")
    course.write_oracle(SUMMARY)
    assert course.ORACLE.read_text("utf-8") == committed
