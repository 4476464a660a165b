"""The course around the notebooks: what their first cell needs, exercises and their checks, and the teacher's commands.

    python tutorials/course.py publish [NAME ...]            # run notebooks and keep their outputs
    python tutorials/course.py student OUT                   # a folder, or OUT.zip, without solutions and rubrics
    python tutorials/course.py grade FILE.ipynb ... --seed SECRET --csv OUT.csv
    python tutorials/course.py figures OUT                   # every figure as SVG and PNG, with its alternative text
    python tutorials/course.py nbgrader OUT [--seed SECRET]  # a folder for nbgrader: sources and settings
    python tutorials/course.py oracle results/choice.json    # data/oracle.json, for notebook 8, from that study

An exercise is a code cell with the id ``ex-3-2``; its check is the cell ``check-3-2``. An exercise that nobody has
touched gives None, and its check then says "not done yet". Only when grading does a check raise. A check cell with
`course.check` in it gives a point, one with `course.words` an answer for the teacher to read; some have both.

Answers stand in ``solutions/`` for everyone to read; only the grader's seed is secret. Students' code is run as it is,
with the rights of whoever grades.
"""

import argparse
import csv
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE if (HERE / "hbn_ref").is_dir() else HERE.parent  # nbgrader's folders have all beside the notebook
if (ROOT / "hbn_ref").is_dir() and str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))  # a checkout works without being installed

import numpy as np  # noqa: E402

CHAPTERS = ("bits", "binarize", "conv", "layers", "models", "train", "cost", "hybrid", "deploy")
FAST = os.environ.get("HBN_FAST") == "1"  # fewer steps in the same cells, for tests
ROUNDS = 3  # times a check draws new cases
WORDS = 25  # of a written answer
MOST_CLASSES = 15  # of TU-Berlin's 250, unless a notebook asks for more: as many as there are doodles
TIMEOUT = 600  # seconds a cell may take
COLUMNS = ("file", "exercise", "points", "comment", "words")  # of the grader's table
UNWANTED = ("__pycache__", ".ipynb_checkpoints")
WIDGET = "application/vnd.jupyter.widget-view+json"
ORACLE = HERE / "data" / "oracle.json"
ORACLE_KEYS = ("data", "classes", "epochs", "drawings", "command", "machine", "kept", "layers", "ops", "choices")


# ------------------------------------------------------------------------------- what a notebook's first cell needs


def setup():
    """Print versions, threads and memory, and compile the kernels: from here on nothing is timed while it compiles."""
    import matplotlib
    import numba
    from tqdm.auto import tqdm

    import hbn_ref
    from hbn_ref import engine, models, train

    print(f"Python {sys.version.split()[0]}, NumPy {np.__version__}, Numba {numba.__version__}, matplotlib"
          f" {matplotlib.__version__}, hbn_ref {hbn_ref.__version__}")  # fmt: skip
    print(f"{engine.get_num_threads()} threads, {engine.get_kernel()} kernels, {_memory()} of memory")
    rng = np.random.default_rng(0)
    for variant in tqdm(models.VARIANTS, desc="compiling kernels", unit="network", leave=False):
        model = models.build("small", variant, num_classes=2, in_channels=1, input_size=32, width=0.25)
        x = rng.standard_normal((4, 32, 32, 1)).astype(np.float32)
        train.train_step(model, x, np.array([0, 1, 0, 1]), train.Adam())
        model.forward(x)


def _memory():
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    except (AttributeError, ValueError, OSError):  # Windows
        return "unknown size"


def sketches(classes=None, size=64, seed=0):
    """Return TU-Berlin's sketches where they are at hand (`python -m data_tools fetch`, HBN_DATA), else the doodles.

    By default the first 15 classes. HBN_DATA=doodles asks for the doodles; a path in it that is not there is an error.
    """
    import data_tools
    from data_tools import doodles, folder, tuberlin

    source, words, every = "doodles", "the built-in doodles", doodles.CLASSES
    named = os.environ.get("HBN_DATA")
    try:
        if named != "doodles":
            source, words = tuberlin.find(), "TU-Berlin sketches"
            with folder.open_source(source) as files:
                every = folder.read_layout(files)
    except data_tools.DataError:
        if named or source != "doodles":
            raise
    if classes is None and len(every) > MOST_CLASSES:
        classes = MOST_CLASSES
    data = data_tools.load(source, classes=classes, size=size, seed=seed)
    counts = ", ".join(
        f"{len(part[1]):,} {name}"
        for name, part in zip(("to train", "to validate", "to test"), (data.train, data.validation, data.test))
    )
    fewer = f" of {len(every)}" if source != "doodles" and len(data.classes) < len(every) else ""
    print(f"This notebook runs on {words}: {len(data.classes)}{fewer} classes, {counts}.")
    return data


def short(full, fast):
    """Return ``full``, or ``fast`` where HBN_FAST=1 asks for a quick run."""
    return fast if FAST else full


def warm_start(variant="hybrid", epochs=None, seed=0, **options):
    """Return (trained small network, its data), from a file where this version of the code has trained it before.

    At most 90 seconds on two cores, with the doodles or 15 classes of TU-Berlin. A hybrid keeps conv5 and conv6 real.
    ``options`` go to `models.build`.
    """
    from hbn_ref import files, models, train

    epochs = short(12, 1) if epochs is None else epochs
    data = sketches(classes=short(None, 3))
    if variant == "hybrid":
        options = {"keep_real": ("conv5", "conv6"), **options}
    about = [
        variant,
        epochs,
        seed,
        data.name,
        list(data.classes),
        _digest(),
        {key: str(value) for key, value in options.items()},
    ]
    from data_tools.tuberlin import cache_folder

    path = cache_folder() / f"course-{hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]}.npz"
    try:
        return models.load(path)[0], data
    except files.FileError:
        pass
    model = models.build("small", variant, num_classes=len(data.classes), in_channels=data.preprocessing["channels"],
                         input_size=data.preprocessing["size"], seed=seed, **options)  # fmt: skip
    train.fit(model, *data.train, epochs=epochs, lr=0.003, seed=seed, prepare=data.training_batch)
    try:
        models.save(model, path, classes=data.classes, preprocessing=data.preprocessing)
    except OSError as error:
        print(f"(not kept for the next time: {error})")
    return model, data


def _digest():
    """A name for the state of the code that a training depends on."""
    found = hashlib.sha256()
    for name in (*("kernels", "simd", "engine"), *CHAPTERS[:6]):
        found.update((ROOT / "hbn_ref" / f"{name}.py").read_bytes())
    for path in sorted((ROOT / "data_tools").glob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


def results(name):
    """Return a report of ``results/`` by its path, such as "evidence.json"."""
    return json.loads((ROOT / "results" / name).read_text("utf-8"))


def oracle():
    """Return every choice of layers to keep real, trained and judged: the summary of `presets.choice`, shortened.

    data, classes, epochs, drawings (to train, to validate, to test), command, machine, and by seed: choices, layers,
    kept; ops of each choice.
    """
    return json.loads(ORACLE.read_text("utf-8"))


def show(figure, name, alt):
    """Display a matplotlib figure with its alternative text; HBN_FIGURES=FOLDER also writes it there."""
    from IPython.display import Image, display

    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=80)
    folder = os.environ.get("HBN_FIGURES")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for kind in ("svg", "png"):
            figure.savefig(Path(folder, f"{name}.{kind}"), dpi=200)
        Path(folder, f"{name}.txt").write_text(alt + "\n", "utf-8")
    display(Image(stream.getvalue(), alt=alt), metadata={"image/png": {"alt": alt}})


# --------------------------------------------------------------------------------------------- exercises and checks


class NotDone(Exception):
    """The exercise is as it came."""


class CheckFailed(AssertionError):
    """Raised by a check while grading."""


def _grading():
    return os.environ.get("HBN_GRADE_SEED")


def check(number, *answers):
    """Decorate the check of an exercise, a function (rng, *answers): it is run at once, on cases drawn by rng.

    It says "right", "not done yet" or what is wrong; while grading it raises unless all is right.
    """

    def run(function):
        try:
            for round_ in range(ROUNDS):
                secret = int.from_bytes(hashlib.sha256((_grading() or "").encode()).digest()[:8], "big")
                if any(answer is None or answer is Ellipsis for answer in answers):
                    raise NotDone
                function(np.random.default_rng([secret, round_]), *answers)
        except NotDone:
            _verdict(number, "not done yet")
        except Exception as error:
            reason = str(error).strip() or type(error).__name__
            _verdict(number, f"not right yet. {reason}" if isinstance(error, AssertionError)
                     else f"not right yet: it ends with {type(error).__name__}: {reason}")  # fmt: skip
        else:
            print(f"{number}: right")
        return None

    return run


def _verdict(number, text):
    if _grading():
        raise CheckFailed(f"{number}: {text}")
    print(f"{number}: {text}")


def same(got, expected, tolerance=0.0, what="the result"):
    """Raise where an answer is None (not done), of another shape, or further from what is expected than tolerance."""
    if got is None or got is Ellipsis:
        raise NotDone
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape, f"{what} has the shape {got.shape}, expected {expected.shape}"
    wrong = ~np.isclose(got.astype(float), expected.astype(float), rtol=tolerance, atol=tolerance, equal_nan=True)
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        place = f" at {at}" if at else ""
        raise AssertionError(f"{what}{place} is {got[at]}, expected {expected[at]}; {wrong.mean():.0%} of it differs")


def catches(test, good, faults):
    """Check a student's own test: it passes ``good`` and raises AssertionError for each of ``faults`` {name: thing}."""
    if test(good) is Ellipsis:
        raise NotDone
    for name, fault in faults.items():
        try:
            test(fault)
        except AssertionError:
            continue
        raise AssertionError(f"your test does not notice: {name}")


def words(number, text):
    """A written answer: counted here, marked by the teacher."""
    count = len(re.findall(r"\w+", str(text)))
    print(f"{number}: {'not done yet' if count < WORDS else f'{count} words, for your teacher to read'}")


# ------------------------------------------------------------------------------------------------ teacher's commands


def notebooks(names=()):
    """The paths of the notebooks, or of those whose names hold one of ``names``."""
    paths = [HERE / f"{number:02}_{name}.ipynb" for number, name in enumerate(CHAPTERS, start=1)]
    return [path for path in paths if path.exists() and (not names or any(name in path.stem for name in names))]


def answers(stem):
    """Return {cell id: source} of ``solutions/NN_name.py``, whose parts begin with a line ``# %% ex-3-2``."""
    path = HERE / "solutions" / f"{stem}.py"
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

    A cell that ends the kernel, or does not end itself, keeps that as its error, and those behind it do not run.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from nbformat.v4 import new_output

    running = []
    options = {"timeout": TIMEOUT, "kernel_name": "python3", "allow_errors": True,
               "resources": {"metadata": {"path": str(HERE)}},
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


def fingerprint(notebook, stem):
    """Return what makes a notebook's outputs stale when it changes: its cells, and its chapter's code."""
    sources = json.dumps([[cell.cell_type, cell.source] for cell in notebook.cells])
    module = (ROOT / "hbn_ref" / f"{stem.split('_', 1)[1]}.py").read_text("utf-8")
    return {
        name: hashlib.sha256(text.encode()).hexdigest()[:16] for name, text in (("cells", sources), ("chapter", module))
    }


def publish(names):
    """Run notebooks in full and write them back with their outputs; an error leaves the file as it was."""
    import time

    import nbformat

    for path in notebooks(names):
        started = time.perf_counter()
        notebook = execute(nbformat.read(path, 4), HBN_FAST=0, HBN_DATA="doodles")
        failed = failures(notebook)
        if failed:
            raise SystemExit(f"{path.name}: {'; '.join(f'{cell}: {text}' for cell, text in failed.items())}")
        seconds = time.perf_counter() - started
        notebook.metadata["hbn_ref"] = {**fingerprint(notebook, path.stem), "seconds": round(seconds)}
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # times of day, which would differ at each run
            if cell.cell_type == "code":  # a progress bar is a widget, and has nothing to show once its kernel is gone
                cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", ())]
        nbformat.write(notebook, path)
        print(f"{path.name}: {seconds:.0f} s, {path.stat().st_size / 1000:.0f} kB", flush=True)


def student(out):
    """Copy the course without solutions and the teacher's page into the folder ``out``, or into a zip file."""
    target = Path(out)
    folder = target.with_suffix("") if target.suffix == ".zip" else target
    _refuse(target, folder)
    leave = shutil.ignore_patterns("solutions", "README.md", *UNWANTED)  # rubrics stand in the README
    shutil.copytree(HERE, folder / "tutorials", ignore=leave)
    _copy_package(folder)
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
    """Copy what the notebooks run on. In the README only links that lead somewhere stay links."""
    for name in ("hbn_ref", "data_tools", "results"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns(*UNWANTED))
    for name in ("requirements.txt", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)

    def kept(link):
        return link[0] if link[2].startswith("https://") or (folder / link[2]).exists() else link[1]

    text = (ROOT / "README.md").read_text("utf-8")
    (folder / "README.md").write_text(re.sub(r"(?<!!)\[([^][]+)\]\(([^)#\s]+)\)", kept, text), "utf-8")


def grade_one(path, seed):
    """Grade a student's notebook: rows of `COLUMNS`. Words are the whole cell of an answer that the teacher reads."""
    try:
        rows = _graded(path, seed)
    except Exception as error:  # any damaged file is one row of the table, and not the end of the grading
        rows = [("", 0, f"cannot be read or run: {error}", "")]
    return [dict(zip(COLUMNS, (path, *row))) for row in rows]


def _graded(path, seed):
    import nbformat

    notebook = nbformat.read(path, 4)
    handed_in = {cell.get("id"): cell.source for cell in notebook.cells if cell.cell_type == "code"}
    originals = [nbformat.read(own, 4) for own in notebooks()]
    own = max(originals, key=lambda own: len(handed_in.keys() & {cell.id for cell in own.cells}))
    for cell in own.cells:  # only the answers are the student's: checks and everything else are as they were
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
    """Grade students' notebooks into a table; what they wrote is in it to be read, without points."""
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
        notebook = execute(nbformat.read(path, 4), HBN_FIGURES=Path(out).resolve(), HBN_FAST=int(FAST))
        for cell, text in failures(notebook).items():
            failed = True
            print(f"{path.name}, cell {cell}: {text}", file=sys.stderr, flush=True)
    print(f"{out}: {len(list(Path(out).glob('*.svg')))} figures")
    if failed:
        raise SystemExit(1)


NBGRADER_CONFIG = """\
c = get_config()
c.ClearSolutions.code_stub = {"python": ""}  # our own stub stands above each answer, and is what students get
c.ExecutePreprocessor.timeout = TIMEOUT  # seconds a cell
"""


def nbgrader(out, seed=None):
    """Write a folder for nbgrader: its settings, and the notebooks with answers between its markers as its sources.

    In a released cell the stub is left. Checks print for students; nbgrader puts the hidden lines, which make them
    raise, back into what was handed in.
    """
    import nbformat

    _refuse(Path(out))
    hidden = f"import os\n\nos.environ['HBN_GRADE_SEED'] = {seed or secrets.token_hex(8)!r}"
    for path in notebooks():
        notebook, solved = clear(nbformat.read(path, 4)), answers(path.stem)
        asked = exercises(notebook)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":  # the package lies beside the notebook, the other notebooks do not
                cell.source = re.sub(r"\]\((\d\d_\w+)\.ipynb", r"](../\1/\1.ipynb", cell.source.replace("](../", "]("))
            kind, _, number = cell.id.partition("-")
            kinds = asked.get(number.replace("-", "."), ())
            if kind not in ("ex", "check") or not kinds:
                continue
            about = {"schema_version": 3, "grade_id": cell.id, "solution": kind == "ex", "locked": kind == "check"}
            if kind == "ex":  # words make it one of nbgrader's manually graded cells
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
        shutil.copy(HERE / "course.py", folder)
        if ORACLE.exists():
            shutil.copytree(ORACLE.parent, folder / ORACLE.parent.name)
        _copy_package(folder)
    Path(out, "nbgrader_config.py").write_text(NBGRADER_CONFIG.replace("TIMEOUT", str(TIMEOUT)), "utf-8")
    print(out)


def write_oracle(path):
    """What notebook 8 needs of the summary that `python -m hbn_ref study --preset choice` wrote, into data/."""
    found = json.loads(Path(path).read_text("utf-8"))
    try:
        found["drawings"] = found["settings"]["drawings"]
        kept = {key: found[key] for key in ORACLE_KEYS}
    except (KeyError, TypeError):
        raise SystemExit(
            f"{path}: expected choice.json, as 'python -m hbn_ref study --preset choice' writes it"
        ) from None
    ORACLE.parent.mkdir(exist_ok=True)
    ORACLE.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
    print(ORACLE)


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
    p.add_argument("--seed", metavar="SECRET", help="the hidden cases come from it; else one is drawn")
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
