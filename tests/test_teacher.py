"""The notebooks as they are committed, and the teacher's commands: the grader, the student's copy, nbgrader."""

import ast
import csv
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tutorials"))
nbformat = pytest.importorskip("nbformat", reason="needs jupyter")
course = pytest.importorskip("course")
teacher = pytest.importorskip("teacher")

NOTEBOOKS = teacher.notebooks()
BY_NAME = {"ids": [path.stem for path in NOTEBOOKS]}
HEADINGS = ("What you'll do", "What you'll learn", "What you'll need", "## In practice", "## Further")
MOST_LINES, MOST_BYTES = 25, 400_000


def read(path):
    return nbformat.read(path, 4)


def answered(path, folder, answers, name="handed in"):
    """A student's notebook with these answers in it."""
    notebook = read(path)
    for cell in notebook.cells:
        cell.source = answers.get(cell.id, cell.source)
    out = folder / f"{name}.ipynb"
    nbformat.write(notebook, out)
    return out


# ----------------------------------------------------------------------------------- as they are committed


@pytest.mark.parametrize("path", NOTEBOOKS, **BY_NAME)
def test_a_notebook_has_what_every_notebook_has(path):
    notebook = read(path)
    text = "\n".join(cell.source for cell in notebook.cells)
    assert all(heading in text for heading in HEADINGS), [h for h in HEADINGS if h not in text]
    assert "In the network" in text and "course.setup()" in text
    assert len(teacher.exercises(notebook)) in (3, 4, 5)
    ids = [cell.id for cell in notebook.cells]
    for number in teacher.exercises(notebook):
        cell = number.replace(".", "-")
        assert ids.index(f"check-{cell}") == ids.index(f"ex-{cell}") + 1
        texts = [c.source for c in notebook.cells[: ids.index(f"ex-{cell}")] if c.cell_type == "markdown"]
        assert re.search(rf"\*\*(Exercise )?{number}[ :]", texts[-1])
    assert max(len(cell.source.splitlines()) for cell in notebook.cells if cell.cell_type == "code") <= MOST_LINES


@pytest.mark.parametrize("path", NOTEBOOKS, **BY_NAME)
def test_a_notebook_is_fresh_and_small_and_without_errors(path):
    notebook = read(path)
    assert path.stat().st_size <= MOST_BYTES
    assert not teacher.failures(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code) and sum(bool(cell.outputs) for cell in code) > len(code) / 2
    streams = [[output.get("name") for output in cell.outputs] for cell in code]  # None: a picture or a value
    assert all(one is None or one != next_ for names in streams for one, next_ in zip(names, names[1:], strict=False))
    assert set(notebook.metadata) == {"hbn_ref", "kernelspec", "language_info"}
    found = teacher.fingerprint(notebook, path.stem)
    kept = {key: notebook.metadata["hbn_ref"][key] for key in found}
    assert kept == found, "the outputs are stale: python tutorials/course.py publish"


def test_only_a_chapters_code_makes_outputs_stale():
    code = 'def f(x):\n    y = "# no comment"\n    return y'
    text = f'"""What it is.\n\nMore of it."""\n\n{code}  # why\n'
    assert teacher.code_of(text) == code == teacher.code_of(code.replace("    y", '    """Say so."""\n\n    y', 1))
    assert teacher.code_of(text.replace("return y", "return x")) != code


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


def test_six_exercises_have_words_and_one_of_them_nothing_else():
    asked = {number: kinds for path in NOTEBOOKS for number, kinds in teacher.exercises(read(path)).items()}
    both = {"check", "words"}
    assert {number: kinds for number, kinds in asked.items() if kinds != {"check"}} == {
        "2.4": both, "5.4": {"words"}, "6.4": both, "7.4": both, "8.4": both, "8.5": both
    }  # fmt: skip


@pytest.mark.parametrize("path", NOTEBOOKS[:-1], **{"ids": BY_NAME["ids"][:-1]})
def test_the_end_leads_to_the_next_notebook(path):
    following = NOTEBOOKS[NOTEBOOKS.index(path) + 1].name
    assert re.search(rf"Next: \[[^]]+\]\({following}\), ", read(path).cells[-1].source)


def test_no_word_before_the_chapter_that_explains_it():
    for path in NOTEBOOKS[:6]:
        for cell in read(path).cells:
            said = "".join(str(output.get("text", "")) for output in cell.get("outputs", ()))
            assert "equivalent" not in cell.source + said, (path.name, cell.id)


@pytest.mark.parametrize("path", NOTEBOOKS, **BY_NAME)
def test_outputs_name_networks_as_a_reader_knows_them(path):
    for cell in read(path).cells:
        assert not any("fprec-twice" in str(output.get("text", "")) for output in cell.get("outputs", ())), cell.id


def test_notebook_3_speaks_of_an_option_only_where_a_cell_uses_it():
    cells = read(NOTEBOOKS[2]).cells
    assert any("`wrt`" in cell.source for cell in cells) == any("wrt=" in cell.source for cell in cells)


def test_the_lecture_fills_45_minutes_and_shows_what_there_is():
    text = (ROOT / "tutorials" / "LECTURE.md").read_text("utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:3] != "| -"
            and line.startswith("| ")][1:]  # fmt: skip
    assert sum(int(row[0]) for row in rows) == 45
    assert all(len(row) == 5 and all(row) and "?" in row[3] for row in rows)
    code = "\n".join(cell.source for path in NOTEBOOKS for cell in read(path).cells if cell.cell_type == "code")
    pictures = [name for row in rows for name in re.findall(r"`(\d\d-[\w-]+)`", row[1])]
    known = set(re.findall(r'"(\d\d-[a-z-]*[a-z])', code))  # a knob, or a picture that grows, has a number at its end
    assert pictures and {re.sub(r"-\d$", "", name) for name in pictures} <= known
    for row in rows:
        sections = re.findall(r"\[([^]]+)\]\((\w+\.ipynb)\)", row[2])
        assert sections
        for title, name in sections:
            headings = [cell.source for cell in read(ROOT / "tutorials" / name).cells if cell.cell_type == "markdown"]
            assert re.search(rf"^## {re.escape(title)}\b", "\n".join(headings), re.MULTILINE), (title, name)


# --------------------------------------------------------------------------------------------- the grader


def points(rows):
    return [row["points"] for row in rows if row["points"] != ""]


@pytest.mark.slow
def test_a_syntax_error_costs_its_exercise_and_is_named(tmp_path):
    path = NOTEBOOKS[0]
    rows = teacher.grade_one(
        answered(path, tmp_path, teacher.answers(path.stem) | {"ex-1-1": "def pack70(x:"}), "secret"
    )
    assert points(rows) == [0, 1, 1, 1]
    assert rows[0]["comment"].startswith("cell ex-1-1: SyntaxError")


@pytest.mark.slow
def test_grading_writes_a_table_and_restores_the_checks(tmp_path, capsys):
    path = NOTEBOOKS[0]
    cheat = {f"check-1-{k}": "print('right')" for k in range(1, 5)}
    handed_in = answered(path, tmp_path, cheat)
    broken = tmp_path / "broken.ipynb"
    broken.write_text("{")
    teacher.grade([str(handed_in), str(broken)], "secret", tmp_path / "points.csv")
    with open(tmp_path / "points.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["points"] for row in rows] == ["0"] * 5
    assert "cannot be read" in rows[-1]["comment"] and "5 rows, 0 points" in capsys.readouterr().out


RIGHT = {f"ex-1-{k}": f"def f{k}():\n    return {k}\n\n\nwhy = 'because'" for k in (1, 2, 3)}


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """A course of one notebook, which runs in a few seconds; 1.3 has words, too."""
    cells = [nbformat.v4.new_code_cell("import course", id="setup")]
    for k in (1, 2, 3):
        check = f'@course.check("1.{k}", f{k})\ndef _(rng, answer):\n    course.same(answer(), {k})'
        cells.append(nbformat.v4.new_code_cell(f"def f{k}():\n    return ...\n\n\nwhy = ''", id=f"ex-1-{k}"))
        cells.append(nbformat.v4.new_code_cell(check, id=f"check-1-{k}"))
    cells[-1].source += '\n\n\ncourse.words("1.3", why)'
    path = tmp_path / "01_tiny.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    monkeypatch.setattr(teacher, "notebooks", lambda names=(): [path])
    monkeypatch.setattr(teacher, "TIMEOUT", 60)
    return path


@pytest.mark.parametrize(
    "answer, cell, reason",
    [
        ("import os\nos._exit(1)", "ex-1-2", "DeadKernelError: it ended the kernel"),
        ("while True:\n    pass", "ex-1-2", "CellTimeoutError: it did not end within 15 seconds"),
        ("def f2():\n    while True:\n        pass", "check-1-2", "CellTimeoutError: it did not end within 15 seconds"),
    ],
)
def test_a_file_that_ends_its_kernel_or_never_ends_costs_no_other_its_points(
    tiny, monkeypatch, tmp_path, answer, cell, reason
):
    monkeypatch.setattr(teacher, "TIMEOUT", 15)
    bad = answered(tiny, tmp_path, RIGHT | {"ex-1-2": answer}, "bad")
    good = answered(tiny, tmp_path, RIGHT, "good")
    teacher.grade([str(bad), str(good)], "secret", tmp_path / "points.csv")
    with open(tmp_path / "points.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["points"] for row in rows] == ["1", "0", "0", "1", "1", "1"]
    assert rows[1]["comment"] == f"cell {cell}: {reason}"
    assert rows[2]["comment"] == f"not run, because of cell {cell}: {reason}"
    assert rows[2]["words"] == rows[5]["words"] == RIGHT["ex-1-3"]


@pytest.mark.parametrize("why, answer", [("not right yet", "def f3():\n    return 4"), ("SyntaxError", "def f3(:")])
def test_words_can_be_read_where_the_code_is_wrong(tiny, tmp_path, why, answer):
    answer += "\n\n\nwhy = 'my words'"
    row = teacher.grade_one(answered(tiny, tmp_path, RIGHT | {"ex-1-3": answer}), "secret")[2]
    assert row["points"] == 0 and why in row["comment"] and row["words"] == answer


def test_the_table_holds_what_was_graded_whatever_comes_next(monkeypatch, tmp_path):
    def graded(path, seed):
        if path == "interrupted":
            raise KeyboardInterrupt
        return [("1.1", 1, "a text that no file can hold: \ud800", "")]

    monkeypatch.setattr(teacher, "_graded", graded)
    with pytest.raises(KeyboardInterrupt):
        teacher.grade(["anna", "ben", "interrupted"], "secret", tmp_path / "points.csv")
    assert [line.split(",")[:3] for line in (tmp_path / "points.csv").read_text("utf-8").splitlines()[1:]] == [
        ["anna", "1.1", "1"], ["ben", "1.1", "1"]
    ]  # fmt: skip


def test_grading_is_on_the_doodles_whatever_the_teacher_has(tiny, monkeypatch, tmp_path):
    monkeypatch.setenv("HBN_DATA", str(tmp_path))
    print_it = 'import os\ndef f1():\n    raise AssertionError(os.environ["HBN_DATA"])'
    row = teacher.grade_one(answered(tiny, tmp_path, {"ex-1-1": print_it}), "secret")[0]
    assert row["comment"].endswith("not right yet. f1 ends with an AssertionError: doodles")


# ------------------------------------------------------------------------------------- the other commands


def command_line(folder, *arguments):
    """Call course.py as a process of its own, with no folder in its path that it does not put there itself."""
    command = [sys.executable, folder / "tutorials" / "course.py", *arguments]
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8")


def test_the_commands_are_called_through_course():
    done = command_line(ROOT, "--help")
    assert done.returncode == 0 and done.stdout.startswith("usage: python tutorials/course.py "), done
    assert all(f"\n    {name} " in done.stdout for name in "publish student grade figures nbgrader oracle".split())


def test_only_the_teachers_side_imports_the_other():
    own = {path.stem: ast.walk(ast.parse(path.read_text("utf-8"))) for path in (ROOT / "tutorials").glob("*.py")}
    imported = {
        name: {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        | {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
        for name, nodes in ((name, list(nodes)) for name, nodes in own.items())
    }
    assert {name: found & own.keys() for name, found in imported.items()} == {
        "teacher": {"course"}, "course": {"exercises", "lesson"}, "exercises": set(), "lesson": set(),
        "kernels_to_test": set(), "measure": set(),
    }  # fmt: skip


@pytest.mark.parametrize("arguments", [(), ("--help",), ("grade", "01_bits.ipynb", "--seed", "secret")])
def test_the_students_copy_says_that_it_has_no_commands(tmp_path, arguments):
    teacher.student(tmp_path / "course")
    done = command_line(tmp_path / "course", *arguments)
    assert done.returncode == 1 and not done.stdout
    assert done.stderr == "course.py: the teacher's commands are not in this copy of the course\n"


def test_the_students_copy_has_no_solutions(tmp_path, capsys):
    teacher.student(tmp_path / "course")
    names = {path.relative_to(tmp_path / "course").as_posix() for path in (tmp_path / "course").rglob("*")}
    assert not any("solution" in name for name in names)
    assert {
        "tutorials/01_bits.ipynb",
        "tutorials/course.py",
        "tutorials/exercises.py",
        "hbn_ref/bits.py",
        "requirements.txt",
    } <= names
    assert not {f"tutorials/{name}" for name in ("README.md", "LECTURE.md", "teacher.py")} & names  # rubrics, answers
    assert {"tutorials/lesson.py", "tutorials/kernels_to_test.py"} <= names and "tutorials/measure.py" not in names
    handout = tmp_path / "course" / "README.md"
    assert "-m jupyter lab tutorials" in handout.read_text("utf-8")
    pages = {handout: handout.read_text("utf-8")}
    for path in (tmp_path / "course" / "tutorials").glob("*.ipynb"):
        pages[path] = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    for page, text in pages.items():
        links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if not link.startswith("https://")]
        assert all((page.parent / link).exists() for link in links), (page, links)
    with pytest.raises(SystemExit, match="is there already"):
        teacher.student(tmp_path / "course")


def test_the_students_copy_shows_no_result_before_it_is_guessed(tmp_path, monkeypatch):
    folder, v4 = tmp_path / "here", nbformat.v4
    folder.mkdir()
    out = v4.new_output("stream", text="it was 81")
    guessed, plain = (v4.new_code_cell(source, outputs=[out]) for source in ("course.reveal('1.6', 81)", "x"))
    cells = teacher.tidy(v4.new_notebook(cells=[guessed, plain])).cells
    assert [cell.outputs for cell in cells] == [[out], [out]]  # published: folded
    assert [cell.metadata for cell in cells] == [{"jupyter": {"outputs_hidden": True}}, {}]
    nbformat.write(v4.new_notebook(cells=cells), folder / "01_bits.ipynb")
    monkeypatch.setattr(teacher.course, "HERE", folder)
    teacher.student(tmp_path / "course")
    for cell in read(tmp_path / "course" / "tutorials" / "01_bits.ipynb").cells:
        assert (cell.outputs, cell.execution_count, cell.metadata) == ([], None, {})


def test_the_students_copy_as_a_zip(tmp_path):
    teacher.student(tmp_path / "copy.zip")
    with zipfile.ZipFile(tmp_path / "copy.zip") as archive:
        names = archive.namelist()
    assert "copy/tutorials/01_bits.ipynb" in names and not any("solution" in name for name in names)
    assert not (tmp_path / "copy").exists()


def released(cell):
    """What nbgrader leaves of a cell for students, with the settings that we write."""
    source = re.sub(r"### BEGIN SOLUTION\n.*?### END SOLUTION", "", cell.source, flags=re.S)
    return re.sub(r"### BEGIN HIDDEN TESTS\n.*?### END HIDDEN TESTS\n", "", source, flags=re.S)


def test_nbgrader_releases_the_notebook_as_it_is(tmp_path):
    teacher.nbgrader(tmp_path / "class", "secret")
    assert '{"python": ""}' in (tmp_path / "class" / "nbgrader_config.py").read_text()
    for path in NOTEBOOKS:
        cells = {cell.id: cell for cell in read(tmp_path / "class" / "source" / path.stem / path.name).cells}
        for cell in read(path).cells:
            if cell.cell_type == "code":
                assert released(cells[cell.id]).strip() == cell.source
        for number, kinds in teacher.exercises(read(path)).items():
            exercise, check = (cells[f"{kind}-{number.replace('.', '-')}"] for kind in ("ex", "check"))
            assert (
                teacher.answers(path.stem)[exercise.id] in exercise.source and exercise.metadata["nbgrader"]["solution"]
            )
            assert check.metadata["nbgrader"]["grade"] == ("check" in kinds) and check.metadata["nbgrader"]["locked"]
            assert exercise.metadata["nbgrader"].get("points") == (2 if "words" in kinds else None)
    with pytest.raises(SystemExit, match="is there already"):
        teacher.nbgrader(tmp_path / "class")


def test_nbgrader_checks_raise_by_themselves(tiny, monkeypatch, tmp_path):
    monkeypatch.setattr(teacher, "answers", lambda stem: RIGHT)
    teacher.nbgrader(tmp_path / "class")
    monkeypatch.setenv("HBN_GRADE_SEED", "")  # and put back when the test ends
    check = read(tmp_path / "class" / "source" / "01_tiny" / "01_tiny.ipynb").cells[2].source
    exec(check, {"course": course, "f1": lambda: 1})
    with pytest.raises(course.CheckFailed):
        exec(check, {"course": course, "f1": lambda: 2})


def test_nbgrader_sources_have_what_they_import_beside_them(tiny, monkeypatch, tmp_path):
    monkeypatch.setattr(teacher, "answers", lambda stem: RIGHT)
    teacher.nbgrader(tmp_path / "class")
    folder = tmp_path / "class" / "source" / "01_tiny"
    code = (
        "import course, exercises, kernels_to_test, data_tools, hbn_ref\n"
        "course.results('doodles/seed0.json'); print(course._digest())\n"
    )
    code += "modules = course, exercises, kernels_to_test, data_tools, hbn_ref\n"
    code += "print(*(module.__file__ for module in modules), sep='\\n')"
    found = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True).stdout
    assert all(Path(line).is_relative_to(folder) for line in found.splitlines()[1:]), found


def test_figures_names_the_cells_that_fail_and_writes_the_others(monkeypatch, tmp_path, capsys):
    bad = "raise ValueError('no figure')"
    good = "import matplotlib.pyplot as plt, course\ncourse.show(plt.figure(), 'one', 'An empty figure.')"
    paths = [tmp_path / "a.ipynb", tmp_path / "b.ipynb"]
    for path, source in zip(paths, (bad, good)):
        cells = [nbformat.v4.new_code_cell(source, id="the-cell")]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    monkeypatch.setattr(teacher, "notebooks", lambda names=(): paths)
    with pytest.raises(SystemExit) as stop:
        teacher.figures(tmp_path / "figures")
    said = capsys.readouterr()
    assert stop.value.code == 1 and "1 figures" in said.out
    assert "a.ipynb, cell the-cell: ValueError: no figure" in said.err and "b.ipynb" not in said.err
    assert (tmp_path / "figures" / "one.svg").exists()


# ------------------------------------------------------------------------------------------------ the oracle

SUMMARY = ROOT / "results" / "choice.json"


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """A place for the oracle other than the course's own."""
    monkeypatch.setattr(course, "ORACLE", tmp_path / "data" / "oracle.json")
    return tmp_path


def test_the_oracle_keeps_what_notebook_8_needs(elsewhere):
    summary = {key: f"the {key}" for key in teacher.ORACLE_KEYS if key != "drawings"}
    path = elsewhere / "choice.json"
    path.write_text(json.dumps({**summary, "settings": {"drawings": [4, 2, 3], "lr": 0.003}}))
    teacher.write_oracle(path)
    assert course.oracle() == {**summary, "drawings": [4, 2, 3]}


@pytest.mark.parametrize("summary", [{}, [], {"settings": {"drawings": []}, "choices": {}}])
def test_the_oracle_is_made_of_a_study_of_choices_only(elsewhere, summary):
    path = elsewhere / "choice.json"
    path.write_text(json.dumps(summary))
    with pytest.raises(SystemExit, match="expected choice.json"):
        teacher.write_oracle(path)
    assert not course.ORACLE.exists()


@pytest.mark.skipif(not (SUMMARY.exists() and course.ORACLE.exists()), reason="the study is not in this checkout")
def test_the_committed_oracle_is_that_of_the_published_study(elsewhere):
    committed = (ROOT / "tutorials" / "data" / "oracle.json").read_text("utf-8")
    teacher.write_oracle(SUMMARY)
    assert course.ORACLE.read_text("utf-8") == committed
