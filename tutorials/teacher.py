"""The teacher's commands: run and publish the notebooks, hand them out, grade what comes back.

    python tutorials/course.py publish [NAME ...]            # run notebooks and keep their outputs
    python tutorials/course.py student OUT                   # a folder, or OUT.zip, without solutions and rubrics
    python tutorials/course.py grade FILE.ipynb ... --seed SECRET --csv OUT.csv
    python tutorials/course.py figures OUT                   # every figure as SVG and PNG, with its alternative text
    python tutorials/course.py nbgrader OUT [--seed SECRET]  # a folder for nbgrader: sources and settings
    python tutorials/course.py oracle results/choice.json    # data/oracle.json, for notebook 8, from that study

An exercise is a code cell with the id ``ex-3-2``; its check is the cell ``check-3-2``. A check cell with `course.check`
in it gives a point, one with `course.words` gives the teacher an answer to read; some have both.

The answers in ``solutions/`` are for everyone to read; only the grader's seed is secret. Students' code runs as it is,
with the rights of whoever grades.
"""

import argparse
import ast
import csv
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import sys
import tokenize
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # with Python's option -P it is not there
import course  # noqa: E402

TIMEOUT = 600  # seconds that a cell may take
COLUMNS = ("file", "exercise", "points", "comment", "words")  # of the grader's table
HANDOUT = """\
# Nine notebooks on binary neural networks

In a terminal, in this folder, once (Python 3.10 or later, and a network):

    python -m venv .venv
    source .venv/bin/activate            (Windows: .venv\\Scripts\\activate)
    python -m pip install -r requirements.txt

Where there is no `python`, the first line begins with `python3`, on Windows with `py`. From then on, offline:

    python -m jupyter lab tutorials

Begin with 01_bits.ipynb. Run the cells from top to bottom. An exercise is a cell to fill in, often where it says
`return ...`; the cell below it says "right", "not done yet" or what is wrong. Hand in the .ipynb file.

The package is hbn_ref, with a chapter's code in the file or folder that bears its name. Code: MIT, text and figures:
CC BY 4.0.
"""
UNWANTED = ("__pycache__", ".ipynb_checkpoints", "packed")  # packed: the networks in results/, which no notebook reads
WIDGET = "application/vnd.jupyter.widget-view+json"
ORACLE_KEYS = ("data", "classes", "epochs", "drawings", "command", "machine", "kept", "layers", "ops", "choices")


def notebooks(names=()):
    """The paths of the notebooks, chapters first, or of those whose names hold one of ``names``."""
    chapters = [course.HERE / f"{number:02}_{name}.ipynb" for number, name in enumerate(course.CHAPTERS, start=1)]
    paths = [*chapters, *sorted(set(course.HERE.glob("*.ipynb")) - set(chapters))]
    return [path for path in paths if path.exists() and (not names or any(name in path.stem for name in names))]


def answers(stem):
    """Return {cell id: source} of ``solutions/NN_name.py``, whose parts begin with a line ``# %% ex-3-2``."""
    path = course.HERE / "solutions" / f"{stem}.py"
    parts = re.split(r"^# %% (\S+)\n", path.read_text("utf-8"), flags=re.MULTILINE)[1:]
    return {cell: source.strip() for cell, source in zip(parts[::2], parts[1::2])}


def exercises(notebook):
    """Return {number: which of "check" and "words" it has}; the number is "3.2" for the cell ex-3-2."""
    found = {}
    for cell in notebook.cells:
        if cell.get("id", "").startswith("check-"):
            number = cell.id.removeprefix("check-").replace("-", ".")
            found[number] = {kind for kind in ("check", "words") if f"course.{kind}(" in cell.source}
    return found


def clear(notebook):
    """Take the outputs out of a notebook."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def execute(notebook, **environment):
    """Run a notebook from an empty kernel in the folder of the course; cells that fail keep their error as output.

    If a cell ends the kernel, or does not end itself, that is its error, and the cells after it do not run.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from nbformat.v4 import new_output

    running = []
    options = {"timeout": TIMEOUT, "kernel_name": "python3", "allow_errors": True,
               "resources": {"metadata": {"path": str(course.HERE)}},
               "on_cell_execute": lambda cell, cell_index: running.append(cell)}  # fmt: skip
    before = {key: os.environ.get(key) for key in environment}
    os.environ.update({key: str(value) for key, value in environment.items()})
    try:
        NotebookClient(clear(notebook), **options).execute()
    except (CellTimeoutError, DeadKernelError) as error:
        late = isinstance(error, CellTimeoutError)
        reason = f"it did not end within {TIMEOUT} seconds" if late else "it ended the kernel"
        running[-1].outputs = [new_output("error", ename=type(error).__name__, evalue=reason)]
    finally:
        for key, value in before.items():
            os.environ.pop(key) if value is None else os.environ.update({key: value})
    return notebook


def failures(notebook):
    """Return {cell id: "Error: text"} of the cells that raised."""
    return {
        cell.id: f"{output.ename}: {output.evalue}"
        for cell in notebook.cells if cell.cell_type == "code"
        for output in cell.outputs if output.output_type == "error"
    }  # fmt: skip


def code_of(text):
    """Return a module's code: its lines without docstrings, comments and empty lines."""
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            for row in range(node.body[0].lineno - 1, node.body[0].end_lineno):
                lines[row] = ""
    return "\n".join(line.rstrip() for line in lines if line.strip())


def fingerprint(notebook, stem):
    """Return the state of what a notebook's outputs depend on: its cells, and its chapter's code.

    A chapter is a file or a folder; a notebook may have none. Its docstrings and comments may change.
    """
    parts = {
        "cells": json.dumps([[cell.cell_type, cell.source] for cell in notebook.cells]),
        "chapter": "\n".join(code_of(path.read_text("utf-8")) for path in course.sources(stem.split("_", 1)[1])),
    }
    return {name: hashlib.sha256(text.encode()).hexdigest()[:16] for name, text in parts.items()}


def publish(names):
    """Run notebooks in full, and write them back with their outputs. After an error the file is as it was."""
    import time

    import nbformat
    from nbconvert.preprocessors.coalescestreams import CoalesceStreamsPreprocessor

    for path in notebooks(names):
        started = time.perf_counter()
        notebook = execute(nbformat.read(path, 4), HBN_FAST=0, HBN_DATA="doodles")
        failed = failures(notebook)
        if failed:
            raise SystemExit(f"{path.name}: {'; '.join(f'{cell}: {text}' for cell, text in failed.items())}")
        seconds = time.perf_counter() - started
        notebook.metadata["hbn_ref"] = {**fingerprint(notebook, path.stem), "seconds": round(seconds)}
        tidy(notebook)
        notebook, _ = CoalesceStreamsPreprocessor().preprocess(notebook, {})  # some pages begin a line with each piece
        nbformat.write(notebook, path)
        print(f"{path.name}: {seconds:.0f} s, {path.stat().st_size / 1000:.0f} kB", flush=True)


def tidy(notebook):
    """Take what is no use on a page out of a notebook that has run, and fold results that are to be guessed."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of day, which differ at each run
        if cell.cell_type == "code":  # a progress bar is a widget: without its kernel it shows nothing
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", ())]
            if "course.reveal(" in cell.source:
                cell.metadata["jupyter"] = {"outputs_hidden": True}
    return notebook


def student(out):
    """Copy the course into the folder ``out``, or into a zip file, without solutions and without what is for teachers.

    Its notebooks have no outputs, as these would answer what a student is asked to guess.
    """
    import nbformat

    target = Path(out)
    folder = target.with_suffix("") if target.suffix == ".zip" else target
    _refuse(target, folder)
    ours = ("solutions", "README.md", "LECTURE.md", "teacher.py", "measure.py")  # rubrics and answers stand in them
    leave = shutil.ignore_patterns(*ours, *UNWANTED)
    shutil.copytree(course.HERE, folder / "tutorials", ignore=leave)
    for path in (folder / "tutorials").glob("*.ipynb"):
        notebook = clear(nbformat.read(path, 4))
        for cell in notebook.cells:
            cell.metadata.pop("jupyter", None)  # nothing to fold yet
        nbformat.write(notebook, path)
    _copy_package(folder)
    (folder / "README.md").write_text(HANDOUT, "utf-8")
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(folder.rglob("*")):
                archive.write(path, path.relative_to(folder.parent))
        shutil.rmtree(folder)
    print(target)


def _refuse(*paths):
    for path in paths:
        if path.exists():
            raise SystemExit(f"{path}: is there already; choose another name")


def _copy_package(folder):
    """Copy what the notebooks need: the packages, and of the results what they read."""
    for name in ("hbn_ref", "data_tools", "results"):
        shutil.copytree(course.ROOT / name, folder / name, ignore=shutil.ignore_patterns(*UNWANTED))
    for name in ("requirements.txt", "LICENSE"):
        shutil.copy(course.ROOT / name, folder / name)


def grade_one(path, seed):
    """Grade a student's notebook: return rows of `COLUMNS`. Words are the whole cell of an answer for the teacher."""
    try:
        rows = _graded(path, seed)
    except Exception as error:  # a damaged file is one row of the table, not the end of grading
        rows = [("", 0, f"cannot be read or run: {error}", "")]
    return [dict(zip(COLUMNS, (path, *row))) for row in rows]


def _graded(path, seed):
    import nbformat

    notebook = nbformat.read(path, 4)
    handed_in = {cell.get("id"): cell.source for cell in notebook.cells if cell.cell_type == "code"}
    originals = [nbformat.read(own, 4) for own in notebooks()]
    own = max(originals, key=lambda own: len(handed_in.keys() & {cell.id for cell in own.cells}))
    for cell in own.cells:  # take only the answers from the student: checks and all else are ours
        if cell.id.startswith("ex-") and cell.id in handed_in:
            cell.source = handed_in[cell.id]
    failed = failures(execute(own, HBN_GRADE_SEED=seed, HBN_FAST=1, HBN_DATA="doodles"))
    ran = {cell.id for cell in own.cells if cell.get("execution_count")}
    rows = []
    for number, kinds in exercises(own).items():
        answer, test = (f"{kind}-{number.replace('.', '-')}" for kind in ("ex", "check"))
        comment = next((f"cell {cell}: {failed[cell]}" for cell in (answer, test) if cell in failed), "")
        if not comment and test not in ran:  # what failed last has ended the run
            comment = "not run, because of cell {}: {}".format(*list(failed.items())[-1])
        points = int(not comment) if "check" in kinds else ""
        rows.append((number, points, comment, handed_in.get(answer, "") if "words" in kinds else ""))
    return rows


def grade(paths, seed, out):
    """Grade students' notebooks into a table. It also holds what they wrote, to be read, without points."""
    count = total = 0
    with open(out, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        for path in paths:
            rows = grade_one(path, seed)
            table.writerows(rows)
            file.flush()  # whatever happens to the next one
            count, total = count + len(rows), total + sum(row["points"] or 0 for row in rows)
    print(f"{out}: {count} rows, {total} points")


def figures(out):
    """Write every figure of the course as SVG and PNG, and its alternative text beside it."""
    import nbformat

    failed = False
    for path in notebooks():
        notebook = execute(nbformat.read(path, 4), HBN_FIGURES=Path(out).resolve(), HBN_FAST=int(course.FAST))
        for cell, text in failures(notebook).items():
            failed = True
            print(f"{path.name}, cell {cell}: {text}", file=sys.stderr, flush=True)
    print(f"{out}: {len(list(Path(out).glob('*.svg')))} figures")
    if failed:
        raise SystemExit(1)


NBGRADER_CONFIG = """\
c = get_config()
c.ClearSolutions.code_stub = {"python": ""}  # students get our own stub, which stands above each answer
c.ExecutePreprocessor.timeout = TIMEOUT  # seconds per cell
"""


def nbgrader(out, seed=None):
    """Write a folder for nbgrader: its settings, and as its sources the notebooks, with answers between its markers.

    A released cell keeps its stub. Checks print for students. Hidden lines make them raise: nbgrader puts these lines
    back into what was handed in.
    """
    import nbformat

    _refuse(Path(out))
    hidden = f"import os\n\nos.environ['HBN_GRADE_SEED'] = {seed or secrets.token_hex(8)!r}"
    for path in notebooks():
        notebook, solved = clear(nbformat.read(path, 4)), answers(path.stem)
        asked = exercises(notebook)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":  # the package is beside the notebook, other notebooks are not
                cell.source = re.sub(r"\]\((\d\d_\w+)\.ipynb", r"](../\1/\1.ipynb", cell.source.replace("](../", "]("))
            kind, _, number = cell.id.partition("-")
            kinds = asked.get(number.replace("-", "."), ())
            if kind not in ("ex", "check") or not kinds:
                continue
            about = {"schema_version": 3, "grade_id": cell.id, "solution": kind == "ex", "locked": kind == "check"}
            if kind == "ex":  # with words, nbgrader has it graded by hand
                cell.source += f"\n### BEGIN SOLUTION\n{solved[cell.id]}\n### END SOLUTION"
                points = 2 if "words" in kinds else 0
            else:
                points = int("check" in kinds)
                if points:
                    cell.source = f"### BEGIN HIDDEN TESTS\n{hidden}\n### END HIDDEN TESTS\n{cell.source}"
            cell.metadata["nbgrader"] = about | ({"grade": True, "points": points} if points else {"grade": False})
        folder = Path(out) / "source" / path.stem
        folder.mkdir(parents=True)
        nbformat.write(notebook, folder / path.name)
        for module in ("course.py", "exercises.py", "lesson.py", "kernels_to_test.py"):
            shutil.copy(course.HERE / module, folder)
        if course.ORACLE.exists():
            shutil.copytree(course.ORACLE.parent, folder / course.ORACLE.parent.name)
        _copy_package(folder)
    Path(out, "nbgrader_config.py").write_text(NBGRADER_CONFIG.replace("TIMEOUT", str(TIMEOUT)), "utf-8")
    print(out)


def write_oracle(path):
    """Write into data/ what notebook 8 needs of the summary that `python -m hbn_ref study --preset choice` wrote."""
    found = json.loads(Path(path).read_text("utf-8"))
    try:
        found["drawings"] = found["settings"]["drawings"]
        kept = {key: found[key] for key in ORACLE_KEYS}
    except (KeyError, TypeError):
        raise SystemExit(
            f"{path}: expected choice.json, as 'python -m hbn_ref study --preset choice' writes it"
        ) from None
    course.ORACLE.parent.mkdir(exist_ok=True)
    course.ORACLE.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
    print(course.ORACLE)


def main():
    """Parse and call."""
    parser = argparse.ArgumentParser(prog="python tutorials/course.py", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    p = commands.add_parser("publish", help="run notebooks and keep their outputs")
    p.add_argument("names", nargs="*", metavar="NAME")
    p.set_defaults(run=lambda a: publish(a.names))
    for name, function in (("student", student), ("figures", figures)):
        p = commands.add_parser(name, help=function.__doc__.splitlines()[0])
        p.add_argument("out", metavar="OUT")
        p.set_defaults(run=lambda a, function=function: function(a.out))
    p = commands.add_parser("nbgrader", help=nbgrader.__doc__.splitlines()[0])
    p.add_argument("out", metavar="OUT")
    p.add_argument("--seed", metavar="SECRET", help="the hidden cases come from it; by default it is drawn")
    p.set_defaults(run=lambda a: nbgrader(a.out, a.seed))
    p = commands.add_parser("oracle", help=write_oracle.__doc__.splitlines()[0])
    p.add_argument("path", metavar="CHOICE.json")
    p.set_defaults(run=lambda a: write_oracle(a.path))
    p = commands.add_parser("grade", help="points for students' notebooks")
    p.add_argument("files", nargs="+", metavar="FILE.ipynb")
    p.add_argument("--seed", required=True, help="a secret: the hidden cases come from it")
    p.add_argument("--csv", default="points.csv")
    p.set_defaults(run=lambda a: grade(a.files, a.seed, a.csv))
    a = parser.parse_args()
    a.run(a)


if __name__ == "__main__":
    main()
