"""Answers to the exercises of the notebooks: the solution, wrong ones, unusual right ones, and what is said of them.

``wrong_answers/NN_name.py`` holds them under lines such as ``# %% ex-1-1 right: + signed words``. Without ``right:`` an
answer is wrong; with ``+`` it stands below the solution, and changes it.
"""

import ast
import re
import symtable
import sys
import types
from collections import namedtuple
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tutorials"))
nbformat = pytest.importorskip("nbformat", reason="needs jupyter")
course = pytest.importorskip("course")
teacher = pytest.importorskip("teacher")

NOTEBOOKS = teacher.notebooks()
BY_NAME = {"ids": [path.stem for path in NOTEBOOKS]}
LONG = ("03_conv", "05_models")  # their checks or solutions take more than a few seconds
Given = namedtuple("Given", "cell right title source")


def read(path):
    return nbformat.read(path, 4)


def given_answers(stem):
    """All answers but the solution: wrong ones, and right ones of another kind."""
    text = (ROOT / "tests" / "wrong_answers" / f"{stem}.py").read_text("utf-8")
    parts = re.split(r"^# %% (\S+) (right: )?(\+ )?(.*)\n", text, flags=re.MULTILINE)[1:]
    solved = teacher.answers(stem)
    return [
        Given(cell, bool(right), title, f"{solved[cell]}\n\n\n{source.strip()}" if plus else source.strip())
        for cell, right, plus, title, source in zip(*(parts[k::5] for k in range(5)), strict=True)
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, **BY_NAME)
def test_each_checked_exercise_has_a_solution_and_answers_of_both_kinds(path):
    asked = {f"ex-{number.replace('.', '-')}": kinds for number, kinds in teacher.exercises(read(path)).items()}
    assert teacher.answers(path.stem).keys() == asked.keys()
    found = given_answers(path.stem)
    assert {answer.cell for answer in found} == {cell for cell, kinds in asked.items() if "check" in kinds}
    for cell in {answer.cell for answer in found}:
        right = [answer.right for answer in found if answer.cell == cell]
        assert right.count(False) >= 4 and right.count(True) >= 2, (cell, right)


# ------------------------------------------------------------------------------- checks without their notebook


def _used(source):
    """The names that a piece of code takes from outside its functions."""
    found, tables = set(), [symtable.symtable(source, "cell", "exec")]
    for table in tables:  # it grows: functions within functions
        top = table.get_type() == "module"
        found |= {name.get_name() for name in table.get_symbols() if name.is_referenced() and (top or name.is_global())}
        tables.extend(table.get_children())
    return found


def _made(source):
    names = symtable.symtable(source, "cell", "exec").get_symbols()
    return {name.get_name() for name in names if name.is_assigned() or name.is_imported()}


def what_checks_need(path):
    """The names that answers and checks of a notebook use: only those of its lines are run that make them."""
    notebook = read(path)
    own = [cell for cell in notebook.cells if cell.cell_type == "code"]
    checks = [cell.source for cell in own if cell.id.startswith("check-")]
    lines = [
        ast.unparse(line) for cell in own if cell.id[:3] not in ("ex-", "che") for line in ast.parse(cell.source).body
    ]
    needed, kept = set().union(*map(_used, [*checks, *teacher.answers(path.stem).values()])), {}
    while True:
        more = {i: line for i, line in enumerate(lines) if i not in kept and _made(line) & needed}
        if not more:
            break
        kept |= more
        needed = needed.union(*map(_used, more.values()))
    names = {}
    for i, line in enumerate(lines):
        if i in kept or line.startswith(("import ", "from ")):
            exec(line, names)
    return names


@pytest.fixture
def verdict(monkeypatch, capsys):
    """A function (exercise such as "3.2", source of its answer) -> what its check says."""
    monkeypatch.setenv("HBN_FAST", "1")
    monkeypatch.delenv("HBN_GRADE_SEED", raising=False)
    monkeypatch.setattr(course, "sketches", lambda **options: types.SimpleNamespace(classes=("a", "b", "c")))

    def run(number, source):
        path = NOTEBOOKS[int(number.split(".")[0]) - 1]
        if path not in NAMES:
            NAMES[path] = what_checks_need(path)
        check = next(cell.source for cell in read(path).cells if cell.id == f"check-{number.replace('.', '-')}")
        names = dict(NAMES[path])
        exec(f"{source}\n\n\n{check}", names)
        return capsys.readouterr().out.splitlines()[0].removeprefix(f"{number}: ")

    return run


NAMES = {}


def solution(number):
    return teacher.answers(NOTEBOOKS[int(number.split(".")[0]) - 1].stem)[f"ex-{number.replace('.', '-')}"]


ALL = [(path, answer) for path in NOTEBOOKS for answer in given_answers(path.stem)]


@pytest.mark.parametrize(
    "path, answer",
    [pytest.param(path, answer, marks=[pytest.mark.slow] * (path.stem in LONG), id=f"{answer.cell} {answer.title}")
     for path, answer in ALL],
)  # fmt: skip
def test_an_answer_is_right_or_not(verdict, path, answer):
    said = verdict(answer.cell.removeprefix("ex-").replace("-", "."), answer.source)
    assert said == "right" if answer.right else said.startswith("not right yet"), said


@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if path.stem not in LONG], ids=lambda path: path.stem)
def test_solutions_are_right_and_stubs_are_not_done(verdict, path):
    notebook = read(path)
    for number, kinds in teacher.exercises(notebook).items():
        if "check" in kinds:
            stub = next(cell.source for cell in notebook.cells if cell.id == f"ex-{number.replace('.', '-')}")
            assert verdict(number, solution(number)) == "right", number
            assert verdict(number, stub).startswith("not done yet"), number


# Exercise, title of an answer: what its check says of it
MESSAGES = {
    ("ex-1-1", "bit 0 is inverted"): "the pair of words: bit 0 of word 0 is",
    ("ex-1-1", "values 0 to 7 always give the bit 0"): "of word 0 is 0, expected 1: it stands for value",
    ("ex-1-1", "through floating powers of two"): "the pair of words holds float64, expected words of uint64",
    ("ex-1-1", "bit 0 is the largest"): "value 0 belongs to bit 0; yours is in bit 63",
    ("ex-1-1", "it ends without a return"): "pack70 returned nothing",
    (
        "ex-1-4",
        "it refuses a correct kernel",
    ): "your test refuses a correct kernel: a = [18446744073709551615, 63]",
    ("ex-2-3", "the optimiser's state is made anew for each step"): "with five different g: Adam is",
    (
        "ex-2-3",
        "Adam is taken to move by its rate at each step",
    ): "with five different g: Adam is",
    ("ex-3-3", "dx only"): "expected (dx, dW~), got one array of the shape (2, 6, 5, 3)",
    ("ex-3-4", "the words about the case"): "expected one of the cases, or None; got str: x (",
    ("ex-4-1", "dx only"): "expected (dx, dgamma, dbeta), got one array of the shape (",
    ("ex-4-3", "bit 0 of word 0 is cleared"): "bit 0 of word 0 is 0, expected 1: it stands for value 0;",
    ("ex-5-1", "its end is a map of 32 x 32"): "reduce the map first",
    ("ex-6-4", "fbin does not stay as it is"): "fbin's own conv1.w at (0, 0, 0, 0) is",
    ("ex-9-1", "t lies between two counts"): "expected a whole number",
}


@pytest.mark.parametrize("cell, title", MESSAGES)
def test_what_is_said_of_an_answer(verdict, cell, title):
    number = cell.removeprefix("ex-").replace("-", ".")
    [source] = [a.source for _, a in ALL if (a.cell, a.title) == (cell, title)]
    assert MESSAGES[cell, title] in verdict(number, source)


# ------------------------------------------------------------------------------------------------- the grader


def with_variants(path, folder, variants):
    """The notebook with its exercises once more for each answer, and a student's copy that holds the answers."""
    own = teacher.clear(read(path))
    cells = {cell.id: cell for cell in own.cells}
    handed_in = {}
    for k, answer in enumerate(variants):
        check = cells[answer.cell.replace("ex", "check")]
        at = [cell.id for cell in own.cells].index(check.id) + 1 + 2 * sum(a.cell == answer.cell for a in variants[:k])
        names = f"{answer.cell}-{k}", f"{check.id}-{k}"
        handed_in[names[0]] = answer.source
        own.cells[at:at] = [
            nbformat.v4.new_code_cell(source, id=name)
            for name, source in zip(names, (cells[answer.cell].source, check.source))
        ]
    (folder / "own").mkdir()
    nbformat.write(own, folder / "own" / path.name)
    for cell in own.cells:
        cell.source = handed_in.get(cell.id, cell.source)
    nbformat.write(own, folder / "handed in.ipynb")
    return folder / "own" / path.name, folder / "handed in.ipynb"


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, **BY_NAME)
def test_the_grader_on_stubs_solutions_and_all_answers(path, monkeypatch, tmp_path):
    solutions = [
        Given(cell, True, "the solution", source)
        for cell, source in teacher.answers(path.stem).items()
        if "check" in teacher.exercises(read(path))[cell.removeprefix("ex-").replace("-", ".")]
    ]
    variants = given_answers(path.stem) + solutions
    own, handed_in = with_variants(path, tmp_path, variants)
    monkeypatch.setattr(teacher, "notebooks", lambda names=(): [own])
    rows = {row["exercise"]: row for row in teacher.grade_one(handed_in, "secret")}
    for row in rows.values():
        if row["exercise"].count(".") == 1 and row["points"] != "":
            assert row["points"] == 0 and "not done yet" in row["comment"], row
    for k, answer in enumerate(variants):
        row = rows[f"{answer.cell.removeprefix('ex-').replace('-', '.')}.{k}"]
        assert row["points"] == answer.right and ("not right yet" in row["comment"]) != answer.right, row
