"""Interruption: kill -9, a full disk, a folder that cannot be written, NaN. What was finished stays, and goes on.

The killed ones are real processes; the others run here. `slow` takes doodles as the commands do, the rest the few of
test_study.
"""

import errno
import os
import shutil
import signal
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from conftest import JIT, locked, random_arrays, thin
from test_study import (
    BATCH,
    BATCHES,
    EPOCHS,
    MODEL_FILES,
    SETTINGS,
    SIZE,
    STUDY,
    TRAIN,
    Interrupted,
    call,
    data,
    figures,
    files_arrays,
    loaded,
    names,
    tiny_network,
    whole,
)

import data_tools
from hbn_ref import files, models, study, train

__all__ = ["data", "loaded", "tiny_network", "whole"]  # fixtures

ROOT = Path(__file__).parents[1]
LIMIT = 500  # seconds for one process, should its kernels have to be compiled first
PROCESSES = pytest.mark.skipif(not JIT or not hasattr(signal, "SIGKILL"), reason="needs compiled kernels and kill -9")
DOODLES = ["--classes", "3", "--size", "32", "--width", "0.25", "--epochs", "3"]
FEW = ("--width", "0.25", "--epochs", "3", "--batch", "8")
PRESET = ("--preset", "evidence", "--epochs", "1")
STUDIED = {"report.json", "study.png"} | MODEL_FILES


def writes(epochs):
    """Of a study: progress.json, (a checkpoint an epoch, 2 networks, progress.json) x 4, choice, report, picture."""
    return 1 + 4 * (epochs + 3) + 3


WRITES = writes(3)  # of those in processes of their own

# The drawings of test_study's fixture ``data``.
FEW_DRAWINGS = """
import data_tools
from data_tools import doodles
few = doodles.load(size=32, classes=("car", "cat", "sun"), train=8, validation=4, test=5)
data_tools.load = lambda *args, **options: few
"""
ONE_SEED = """
from hbn_ref import presets
presets.evidence.__kwdefaults__["seeds"] = (0,)
"""
SMALLER = {FEW: FEW_DRAWINGS, PRESET: FEW_DRAWINGS + ONE_SEED}

# Runs the command line and kills (or stops) it some seconds after it has put its n-th file in its place; just before,
# if -1.
KILLER = """
import os, runpy, signal, sys, threading
writes, seconds, by = int(sys.argv.pop(1)), float(sys.argv.pop(1)), signal.Signals[sys.argv.pop(1)]
put = os.replace

def kill():
    os.kill(os.getpid(), by)

def kill_later():
    if seconds == 0:
        kill()
    timer = threading.Timer(seconds, kill)
    timer.daemon = True
    timer.start()

def replace(source, target):
    global writes
    if not os.fspath(target).startswith("out"):  # Numba writes files, too
        return put(source, target)
    writes -= 1
    if writes == 0 and seconds < 0:
        kill()
    put(source, target)
    if writes == 0 and seconds >= 0:
        kill_later()

os.replace = replace
if writes == 0:
    kill_later()
runpy.run_module("hbn_ref", run_name="__main__", alter_sys=True)
"""
NEVER = (-1, 0)


def command_line(command, *words, killed=NEVER, by="SIGKILL"):
    """The words that run a command with ``--out out``; ``killed``: (writes, seconds), see KILLER."""
    code = SMALLER.get(words, "") + KILLER
    start = ["-m", "hbn_ref"] if killed == NEVER and code == KILLER else ["-c", code, *map(str, killed), by]
    return [sys.executable, *start, command, *words, "--out", "out"]


def options(folder):
    """How `subprocess` runs them: in a folder, and what they say is kept."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HBN_NUM_THREADS": "2"}
    return {"cwd": folder, "env": env, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}


def hbn_ref(folder, *words, killed=NEVER, **more):
    """Run a command in a folder."""
    return subprocess.run(command_line(*words, killed=killed), timeout=LIMIT, **options(folder), **more)


@lru_cache(maxsize=1)
def uninterrupted():
    """The folder of a study that nobody disturbed; it goes when the tests end."""
    folder = TemporaryDirectory(prefix="hbn_ref")
    done = hbn_ref(folder.name, "study", *DOODLES)
    assert done.returncode == 0, done.stderr
    assert names(Path(folder.name, "out")) == STUDIED
    return folder


def assert_same_study(out):
    """The folder of a study holds what that of the uninterrupted one holds."""
    expected = Path(uninterrupted().name, "out")
    assert names(out) == STUDIED
    assert figures(files.read_json(out / "report.json")) == figures(files.read_json(expected / "report.json"))
    for name in MODEL_FILES:
        ours, theirs = files_arrays(out / name), files_arrays(expected / name)
        assert ours.keys() == theirs.keys()
        assert all(ours[key].tobytes() == theirs[key].tobytes() for key in theirs), name


def kill(folder, command, *words, at):
    done = hbn_ref(folder, command, *words, killed=at)
    assert done.returncode == -signal.SIGKILL, done.stderr


def go_on(folder, command, *words):
    done = hbn_ref(folder, command, *words)
    assert done.returncode == 0, done.stderr


# ----------------------------------------------------------------------------------------------- kill -9


@pytest.fixture
def two_folders(tmp_path):
    """One for what nobody disturbs, one for the same with kills."""
    folders = tmp_path / "expected", tmp_path / "killed"
    for folder in folders:
        folder.mkdir()
    return folders


@PROCESSES
def test_a_study_killed_three_times_goes_on_to_the_same_weights(data, tmp_path):
    for at in ((0, 0.3), (4, -1), (4, 0.01)):  # at the start, within a checkpoint, in the middle of an epoch
        kill(tmp_path, "study", *FEW, at=at)
    assert {".lock", "progress.json"} < names(tmp_path / "out")
    go_on(tmp_path, "study", *FEW)
    assert names(tmp_path / "out") == STUDIED
    assert_same_networks(tmp_path / "out", few_studied(data, tmp_path / "whole"))


def few_studied(data, out):
    """The study of ``FEW``, in this process: (folder, report)."""
    return out, study.run(data, out, width=0.25, epochs=3, batch=8, progress=False)


def moments(count=20, seed=0):
    """(writes, seconds after) of random moments: a tenth while the process begins, a quarter within a write."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        if number % 10 == 0:
            yield 0, round(rng.uniform(0.1, 2), 2)
        else:
            yield int(rng.integers(1, WRITES)), -1 if number % 4 == 1 else round(rng.uniform(0, 0.15), 3)


@PROCESSES
@pytest.mark.slow
@pytest.mark.parametrize("at", list(moments()), ids=str)
def test_a_study_killed_at_any_moment_goes_on_to_the_same_weights(tmp_path, at):
    kill(tmp_path, "study", *DOODLES, at=at)
    go_on(tmp_path, "study", *DOODLES)
    assert_same_study(tmp_path / "out")


@PROCESSES
@pytest.mark.slow
@pytest.mark.parametrize("at", [(3, -1), (2, 0)], ids=["just before", "just after"])
def test_a_study_killed_at_every_file_that_it_writes_gets_there_all_the_same(data, tmp_path, at):
    for _ in range(WRITES):  # each time it comes one file further: its first is progress.json again
        done = hbn_ref(tmp_path, "study", *FEW, killed=at)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
    go_on(tmp_path, "study", *FEW)
    assert names(tmp_path / "out") == STUDIED
    assert_same_networks(tmp_path / "out", few_studied(data, tmp_path / "whole"))


@PROCESSES
@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_same_weights(two_folders):
    expected, killed = two_folders
    go_on(expected, "train", *DOODLES)
    for at in ((0, 1), (2, -1), (1, 0.02), (1, -1), (2, -1), (1, -1), (1, 0)):  # 3 checkpoints, the network
        kill(killed, "train", *DOODLES, at=at)
    go_on(killed, "train", *DOODLES)
    assert names(killed) == names(expected) == {"out.npz"}
    ours, theirs = (models.load(folder / "out.npz")[0].state() for folder in (killed, expected))
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in theirs)


@PROCESSES
@pytest.mark.slow
def test_a_preset_killed_five_times_leaves_the_very_files_of_one_that_was_not(two_folders):
    """Networks begin with the weights of others and learn from a teacher, in two studies; about 45 files in all."""
    expected, killed = two_folders
    go_on(expected, "study", *PRESET)
    rng = np.random.default_rng(0)
    for _ in range(5):
        kill(killed, "study", *PRESET, at=(int(rng.integers(2, 8)), round(rng.uniform(0, 0.3), 3)))
    go_on(killed, "study", *PRESET)
    ours, theirs = ({path.relative_to(folder): path for path in folder.rglob("*.*")} for folder in (killed, expected))
    assert ours.keys() == theirs.keys()
    networks = [name for name in theirs if name.suffix == ".npz"]
    assert len(networks) == 14
    assert [name for name in networks if ours[name].read_bytes() != theirs[name].read_bytes()] == []


def test_a_study_killed_after_its_report_leaves_nothing_behind(whole, loaded, tmp_path):
    """Killed before progress.json was deleted, or while the picture was written."""
    out = tmp_path / "out"
    assert call(*STUDY, "--out", out) == 0
    (out / "progress.json").write_bytes((out / "report.json").read_bytes())
    (out / f".study.{'0' * 32}.png").write_bytes(b"half")
    (out / ".lock").write_bytes(b"")
    assert call(*STUDY, "--out", out) == 0
    assert names(out) == STUDIED


def test_a_killed_training_leaves_nothing_behind(loaded, tmp_path):
    others = {f".net2.{'0' * 32}.npz", f".other.checkpoint.{'0' * 32}.npz"}  # another's, who may be writing them
    for name in {f".net.checkpoint.{'0' * 32}.npz", f".net.{'0' * 32}.npz", ".net.npz.lock"} | others:
        (tmp_path / name).write_bytes(b"half")
    assert call(*TRAIN, "--out", tmp_path / "net.npz") == 0
    assert names(tmp_path) == {"net.npz"} | others


# ------------------------------------------------------------------- a full disk, a folder that is not to be written


@pytest.fixture
def begun(data, loaded, tmp_path, monkeypatch):
    """The folder of a study that was interrupted in its second epoch, with the checkpoint of the first."""
    with monkeypatch.context() as patch:
        patch.setattr(data_tools, "load", lambda *args, **options: Interrupted(data, BATCHES + 1))
        assert call(*STUDY, "--out", tmp_path / "out") == 130
    assert names(tmp_path / "out") == {"progress.json", "fprec.checkpoint.npz"}
    return tmp_path / "out"


def refusing_to_write(number):
    def refuse(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return refuse


def last_line(capsys):
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return err.splitlines()[-1]


REFUSALS = [  # what fails, why, the file that the message names
    ("numpy.savez", errno.ENOSPC, "fprec.checkpoint.npz"), ("pathlib.Path.write_text", errno.ENOSPC, "progress.json"),
    ("os.replace", errno.EACCES, "progress.json"), ("os.replace", errno.EROFS, "progress.json"),
    ("os.open", errno.EROFS, "out"),
]  # fmt: skip


@pytest.mark.parametrize("where, number, named", REFUSALS)
def test_what_cannot_be_written_is_named_and_the_checkpoint_stays(
    begun, data, whole, monkeypatch, capsys, where, number, named
):
    before = {path.name: path.read_bytes() for path in begun.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(where, refusing_to_write(number))
        assert call(*STUDY, "--out", begun) == 2
    line = last_line(capsys)
    assert line.startswith("hbn_ref study: ") and os.strerror(number) in line
    assert str(begun / named) in line or where == "os.open"  # a real one names its file itself
    assert {path.name: path.read_bytes() for path in begun.iterdir()} == before
    study.run(data, begun, **SETTINGS)
    assert_same_networks(begun, whole)


def assert_same_networks(out, whole):
    assert names(out) - {"study.png"} == STUDIED - {"study.png"}
    assert figures(files.read_json(out / "report.json"))["variants"] == figures(whole[1])["variants"]
    for name in MODEL_FILES:
        ours, theirs = files_arrays(out / name), files_arrays(whole[0] / name)
        assert all(ours[key].tobytes() == theirs[key].tobytes() for key in theirs), name


def test_training_that_cannot_write_names_the_file_and_keeps_its_checkpoint(
    data, loaded, tmp_path, monkeypatch, capsys
):
    out, checkpoint = tmp_path / "net.npz", tmp_path / "net.checkpoint.npz"
    with monkeypatch.context() as patch:
        patch.setattr(data_tools, "load", lambda *args, **options: Interrupted(data, BATCHES + 1))
        assert call(*TRAIN, "--out", out) == 130
    before = checkpoint.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", refusing_to_write(errno.ENOSPC))
        assert call(*TRAIN, "--out", out) == 2
    assert str(checkpoint) in last_line(capsys)
    assert names(tmp_path) == {checkpoint.name} and checkpoint.read_bytes() == before
    for path in (out, tmp_path / "whole.npz"):
        assert call(*TRAIN, "--out", path) == 0
    assert models_are_equal(out, tmp_path / "whole.npz")


def test_a_locked_folder_is_named_and_what_lies_in_it_stays(begun, loaded, open_to_all, capsys):
    out, new = open_to_all / "out", open_to_all / "new"
    shutil.copytree(begun, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for closed, folder in ((out, out), (open_to_all, new)):
        for words in ([*STUDY, "--out", folder], [*TRAIN, "--out", folder / "net.npz"]):
            with locked(closed):
                assert call(*words) == 2
            line = last_line(capsys)
            assert os.strerror(errno.EACCES) in line and str(folder) in line
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before and names(open_to_all) == {"out"}


def models_are_equal(*paths):
    ours, theirs = (models.load(path)[0].state() for path in paths)
    return all(ours[name].tobytes() == theirs[name].tobytes() for name in theirs)


@PROCESSES
@pytest.mark.slow
def test_a_process_that_may_not_write_more_says_where_it_stopped_and_goes_on(tmp_path):
    resource = pytest.importorskip("resource")
    kill(tmp_path, "study", *DOODLES, at=(2, 0))
    checkpoint = tmp_path / "out" / "fprec.checkpoint.npz"
    before = checkpoint.read_bytes()

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2,) * 2)

    done = hbn_ref(tmp_path, "study", *DOODLES, preexec_fn=limit)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    line = f"hbn_ref study: [Errno {errno.EFBIG}] {os.strerror(errno.EFBIG)}: 'out/fprec.checkpoint.npz'"
    assert done.stderr.splitlines()[-1] == line
    assert names(tmp_path / "out") == {"progress.json", checkpoint.name} and checkpoint.read_bytes() == before
    go_on(tmp_path, "study", *DOODLES)
    assert_same_study(tmp_path / "out")


@pytest.fixture
def small_disk(tmp_path):
    """A function that gives a file system in memory other options; it holds 24 kB to begin with."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        return subprocess.run(command, capture_output=True).returncode == 0

    if not sys.platform.startswith("linux") or not mount("size=1m"):
        pytest.skip("a file system of its own needs Linux and its permission")
    try:
        yield folder, mount
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_a_disk_that_is_full_and_one_that_is_read_only(small_disk, begun, whole, tmp_path, capsys):
    folder, mount = small_disk
    out = folder / "out"
    out.mkdir()
    for path in begun.iterdir():
        (out / path.name).write_bytes(path.read_bytes())
    checkpoint = (out / "fprec.checkpoint.npz").read_bytes()
    used = sum(4096 * -(-path.stat().st_size // 4096) for path in out.iterdir())
    capsys.readouterr()
    for options, reason in ((f"remount,size={used + len(checkpoint) // 2}", errno.ENOSPC), ("remount,ro", errno.EROFS)):
        assert mount(options)
        assert call(*STUDY, "--out", out) == 2
        line = last_line(capsys)
        assert os.strerror(reason) in line and str(out) in line
        assert names(out) == {"progress.json", "fprec.checkpoint.npz"}
        assert (out / "fprec.checkpoint.npz").read_bytes() == checkpoint
    assert mount("remount,rw,size=10m")
    assert call(*STUDY, "--out", out) == 0
    assert_same_networks(out, whole)


@pytest.mark.parametrize("number", thin(range(1, writes(EPOCHS) + 1), 3)[:: 4 if JIT else 1])
def test_a_disk_that_is_full_at_any_file_loses_nothing_before_it(
    data, loaded, whole, tmp_path, monkeypatch, capsys, number
):
    """Checkpoints, networks, the choice, the report, the picture: the n-th file finds no room."""
    out, put, left, before = tmp_path / "out", os.replace, [number], {}

    def replace(source, target):
        left[0] -= os.fspath(target).startswith(str(out))
        if left[0] == 0:
            before.update({path.name: path.read_bytes() for path in out.iterdir() if path.name[0] != "."})
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        put(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        assert call(*STUDY, "--out", out) == 2
    line = last_line(capsys)
    assert os.strerror(errno.ENOSPC) in line and str(out) in line
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert call(*STUDY, "--out", out) == 0
    assert names(out) == STUDIED
    assert_same_networks(out, whole)


# --------------------------------------------------------------------------------------------------- NaN


def tiny(variant):
    options = {"keep_real": ["conv3"]} if variant == "hybrid" else {}
    return models.build("tiny", variant, num_classes=3, in_channels=1, input_size=SIZE, seed=1, **options)


def fit(model, **options):
    x, y = random_arrays(0, (9, SIZE, SIZE, 1), dtype=np.float32), np.arange(9) % 3
    return train.fit(model, x, y, **{"epochs": 3, "batch": 3, "progress": False, **options})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("variant", models.VARIANTS)
def test_every_array_that_is_not_finite_is_named_in_the_first_step(variant, value):
    """Also where a sign or the batch's own statistics hide it, and the loss is a number all the same."""
    for name in tiny(variant).state():
        model = tiny(variant)
        model.state()[name].flat[0] = value
        with pytest.raises(FloatingPointError, match=rf"^step 1: .*NaN or infinity in {name}\b"):
            fit(model)


@pytest.mark.parametrize("step", [1, 2, 3, 5, 6, 9])
@pytest.mark.parametrize("variant", ["fprec", "fbin"])
def test_a_rate_that_overflows_stops_at_its_step_and_the_last_good_checkpoint_stays(
    tmp_path, monkeypatch, variant, step
):
    """The last steps of the epochs, too: nothing computes with their weights before they would be saved."""
    checkpoint = tmp_path / "run.npz"
    with monkeypatch.context() as patch:
        patch.setitem(train.SCHEDULES, "constant", lambda at, epochs: 1e38 if at > (step - 1.5) / 3 else 1)
        with pytest.raises(FloatingPointError, match=rf"^step {step}: NaN or infinity in \w+\.\w+"):
            fit(tiny(variant), lr=3.0, schedule="constant", checkpoint=checkpoint)
    epochs = (step - 1) // 3
    assert names(tmp_path) == ({"run.npz"} if epochs else set())
    done, again = tiny(variant), tiny(variant)
    fit(done, lr=3.0, schedule="constant")
    history = fit(again, lr=3.0, schedule="constant", checkpoint=checkpoint)
    assert len(history) == 3
    assert all(np.array_equal(value, done.state()[name]) for name, value in again.state().items())


class Spoiled(Interrupted):
    """The data, with one pixel of the n-th batch that is no number."""

    def __init__(self, data, after, value):
        super().__init__(data, after, end=None)
        self.value = value

    def training_batch(self, images, rng):
        batch = self.data.training_batch(images, rng)
        self.left -= 1
        if self.left == -1:
            batch[0, 0, 0, 0] = self.value
        return batch


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_study_stops_at_a_batch_that_is_not_finite_and_goes_on_from_its_checkpoint(data, whole, tmp_path, value):
    with pytest.raises(FloatingPointError, match=rf"^step {BATCHES + 2}: .*NaN or infinity in the input of conv1$"):
        study.run(Spoiled(data, BATCHES + 1, value), tmp_path, **SETTINGS)
    assert names(tmp_path) == {"progress.json", "fprec.checkpoint.npz"}
    assert figures(study.run(data, tmp_path, **SETTINGS)) == figures(whole[1])


@pytest.mark.parametrize("command", [STUDY, TRAIN], ids=["study", "train"])
def test_the_command_line_says_in_one_line_where_it_was_not_finite(command, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(data_tools, "load", lambda *args, **options: Spoiled(data, 1, np.nan))
    assert call(*command, "--out", tmp_path / "out") == 2
    expected = f"hbn_ref {command[0]}: step 2: the loss is nan; NaN or infinity in the input of conv1"
    assert last_line(capsys) == expected


def test_a_rate_that_overflows_gives_one_line_and_no_warnings(loaded, tmp_path, capsys, recwarn):
    assert call(*TRAIN[:-1], "1e38", "--epochs", EPOCHS, "--batch", BATCH, "--out", tmp_path / "net.npz") == 2
    assert last_line(capsys).startswith("hbn_ref train: step 1: NaN or infinity in ")
    assert not recwarn.list and names(tmp_path) == set()


@pytest.mark.parametrize("name", ["conv1", "conv2", "conv3", "conv4", "classifier"])
def test_an_overflow_is_named_after_the_layer_that_made_it(name):
    """All weights are finite, and so is every input up to here."""
    model = tiny("fprec")
    model.state()[f"{name}.w"][...] = 3e38
    with pytest.raises(FloatingPointError, match=f"^step 1: the loss is nan; NaN or infinity in the output of {name}$"):
        fit(model)


def test_a_target_that_is_no_number_is_named():
    x, y = random_arrays(0, (3, SIZE, SIZE, 1), dtype=np.float32), np.arange(3)
    with pytest.raises(FloatingPointError, match="^step 1: the loss is nan; NaN or infinity in the loss$"):
        train.train_step(tiny("fprec"), x, y, train.SGD(), lambda x, labels, classes: np.full((3, classes), np.nan))
