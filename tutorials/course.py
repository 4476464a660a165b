"""What the notebooks of the course import and call: setup, data, and the checks of exercises.py.

The teacher's commands, `python tutorials/course.py COMMAND`, are in teacher.py, which students do not get.
"""

import hashlib
import json
import os
import runpy
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE if (HERE / "hbn_ref").is_dir() else HERE.parent  # nbgrader's folders have everything beside the notebook
for folder in (HERE, ROOT):  # so that a checkout works without installation
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

import numpy as np  # noqa: E402
from exercises import Answer, CheckFailed, NotDone, array, catches, check, parts, pieces, same, words  # noqa: E402, F401
from lesson import CHAPTERS, guess, here, in_turns, reveal, show, slider  # noqa: E402, F401

FAST = os.environ.get("HBN_FAST") == "1"  # fewer steps in the same cells, for tests
MOST_CLASSES = 15  # of TU-Berlin's 250, unless a notebook asks for more: as many as there are doodles
ORACLE = HERE / "data" / "oracle.json"


# ------------------------------------------------------------------------------- what a notebook's first cell needs


def setup():
    """Print versions, threads and memory, and compile the kernels, so that no later timing includes that."""
    import matplotlib
    import numba
    from tqdm.auto import tqdm

    import hbn_ref
    from hbn_ref import engine, models, train

    print(f"Python {sys.version.split()[0]}, NumPy {np.__version__}, Numba {numba.__version__}, matplotlib"
          f" {matplotlib.__version__}, hbn_ref {hbn_ref.__version__}")  # fmt: skip
    threads = engine.get_num_threads()
    print(f"{threads} thread{'s' * (threads > 1)}, {engine.get_kernel()} kernels, {_memory()} of memory")
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
    """Return TU-Berlin's sketches if they are at hand (`python -m data_tools fetch`, HBN_DATA), else the doodles.

    By default these are the first 15 classes. HBN_DATA=doodles asks for the doodles; if it is a path, it must exist.
    """
    import data_tools
    from data_tools import doodles, folder, tuberlin

    source, called, every = "doodles", "the built-in doodles", doodles.CLASSES
    named = os.environ.get("HBN_DATA")
    try:
        if named != "doodles":
            source, called = tuberlin.find(), "TU-Berlin sketches"
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
    print(f"This notebook runs on {called}: {len(data.classes)}{fewer} classes, {counts}.")
    return data


def short(full, fast):
    """Return ``full``, or ``fast`` if HBN_FAST=1 asks for a quick run."""
    return fast if FAST else full


def warm_start(variant="hybrid", epochs=None, seed=0, **options):
    """Return (trained small network, its data): from a file, if this version of the code has trained it before.

    Otherwise it trains at most 90 seconds on two cores, with the doodles or 15 classes of TU-Berlin. A hybrid keeps
    conv5 and conv6 real.
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
    """A name for the state of the code on which a training depends."""
    found = hashlib.sha256()
    names = (*("compiler", "kernels", "simd", "engine"), *CHAPTERS[:6])
    for path in (*(path for name in names for path in sources(name)), *sorted((ROOT / "data_tools").glob("*.py"))):
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


def sources(name):
    """Return the files of a module or chapter of the package, which may be a folder; of no other name there are any."""
    package = ROOT / "hbn_ref"
    return sorted(package.glob(f"{name}/*.py")) or list(package.glob(f"{name}.py"))


def results(name):
    """Return a report in ``results/`` by its path, such as "evidence.json"."""
    return json.loads((ROOT / "results" / name).read_text("utf-8"))


EVIDENCE = {
    "top1": "top-1 %", "top5": "top-5 %", "equivalent_ops": "equivalent ops", "weight_bytes": "weight bytes",
    "file_bytes": "packed file", "ms_per_image": "ms per image", "ms_packed": "ms packed",
    "train_seconds": "training s",
}  # fmt: skip


def called(name):
    """Return what readers call a network of the study `evidence`."""
    from hbn_ref import plots, presets

    return {**plots.NAMES, presets.LONGER: "FPrec, twice as long"}.get(name, name)


def expect(*columns, networks=None):
    """Print what the study `evidence` measured on TU-Berlin, in columns of `EVIDENCE`, for some of its networks or all.

    Figures are means over the seeds; +- is one standard error. Milliseconds are the least of all seeds: whatever else a
    machine does can only add to a time.
    """
    from hbn_ref import cost, study

    def written(column, values):
        if column.startswith("top"):
            return study.with_error(np.mean(values), study.standard_error(np.array(values)))
        return f"{min(values):.2f}" if column.startswith("ms") else f"{np.mean(values):,.0f}"

    found = results("evidence.json")
    rows = [
        {"network": called(name)}
        | {EVIDENCE[column]: written(column, [run[column] for run in found[name].values()]) for column in columns}
        for name in networks or found
    ]
    first = next(iter(found["fprec"].values()))
    train, _, test = first["drawings"]
    print(f"TU-Berlin, {first['classes']} classes: {train:,} drawings to train, {test:,} to test; {first['epochs']}"
          f" epochs, {len(found['fprec'])} seeds (results/evidence.json)")  # fmt: skip
    print(cost.format_table(rows, rows[0]))


def savings(network, against="fprec"):
    """Return by how many times one network of the study `evidence` has fewer bytes of weights, and fewer operations.

    An operation is a multiplication and an addition. An operation on bits counts 1/58, as in chapter 7.
    """
    small, large = (next(iter(results("evidence.json")[name].values())) for name in (network, against))
    return tuple(large[key] / small[key] for key in ("weight_bytes", "equivalent_ops"))


def oracle():
    """Return every choice of layers to keep real, trained and judged: the summary of `presets.choice`, shortened.

    It holds data, classes, epochs, drawings (to train, to validate, to test), command, machine, ops of each choice; and
    by seed choices, layers, kept.
    """
    return json.loads(ORACLE.read_text("utf-8"))


if __name__ == "__main__":  # the teacher's commands, which nothing here imports
    if not (HERE / "teacher.py").exists():
        raise SystemExit("course.py: the teacher's commands are not in this copy of the course")
    runpy.run_path(str(HERE / "teacher.py"), run_name="__main__")
