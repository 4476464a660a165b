"""Concurrency: two studies at once, kernels from several threads and processes, Ctrl-C in the middle of a kernel."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import JIT, KERNELS, random_arrays
from test_engine import COMPILED, PASSES, ROOT
from test_interruption import FEW, LIMIT, PROCESSES, assert_same_networks, command_line, few_studied, hbn_ref, options
from test_study import MODEL_FILES, SETTINGS, STUDY, TRAIN, call, data, loaded, names, refusing, tiny_network, whole

from hbn_ref import deploy, engine, files, models, study

__all__ = ["data", "loaded", "tiny_network", "whole"]  # fixtures

TAKEN = "is being written by another process"
POSIX = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs flock, signals and fork")


# ------------------------------------------------------------------------------------------------- the lock


def test_a_folder_and_a_file_are_for_one_at_a_time(tmp_path):
    for path in (tmp_path, tmp_path / "net.npz"):
        with files.alone(path):
            with pytest.raises(files.FileError, match=f"^{path}: {TAKEN}$"), files.alone(path):
                pytest.fail("two at once")
            with files.alone(tmp_path / "another.npz"):
                pass
        with pytest.raises(ZeroDivisionError), files.alone(path):
            raise ZeroDivisionError
        with files.alone(path):
            pass
    assert names(tmp_path) == set()


def test_who_is_refused_sweeps_nothing(tmp_path):
    half = tmp_path / f".fbin.{'0' * 32}.npz"
    with files.alone(tmp_path):
        half.write_bytes(b"half")
        with pytest.raises(files.FileError), files.alone(tmp_path):
            pass
        assert half.exists()
    with files.alone(tmp_path):
        assert not half.exists()


@POSIX
def test_a_lock_on_a_deleted_file_counts_for_nothing(tmp_path):
    """Opened while another had it, locked after that one deleted it: by now a third may have a new one."""
    with files.alone(tmp_path):
        late = os.open(tmp_path / ".lock", os.O_RDWR)
    assert not files._lock(late, tmp_path / ".lock")
    with files.alone(tmp_path):
        assert not files._lock(late, tmp_path / ".lock")
    os.close(late)


@POSIX
def test_the_lock_ends_with_its_process(tmp_path):
    code = f"""
import time
from hbn_ref import files
with files.alone({str(tmp_path)!r}):
    print("locked", flush=True)
    time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    with holder:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(files.FileError, match=TAKEN), files.alone(tmp_path):
            pass
        holder.kill()
    assert names(tmp_path) == {".lock"}
    with files.alone(tmp_path):
        pass
    assert names(tmp_path) == set()


@POSIX
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EBADF])
def test_a_drive_without_locks_is_written_all_the_same(tmp_path, monkeypatch, number):
    def refuse(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    with files.alone(tmp_path):
        (tmp_path / "a").write_text("mine")
    assert names(tmp_path) == {"a"}


@POSIX
def test_the_lock_of_windows_with_another_function_in_its_place(tmp_path, monkeypatch):
    import fcntl

    def locking(handle, mode, count):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PermissionError(errno.EACCES, "Permission denied") from None

    monkeypatch.setattr(files, "fcntl", None)
    monkeypatch.setattr(files, "msvcrt", SimpleNamespace(LK_NBLCK=2, locking=locking), raising=False)
    test_a_folder_and_a_file_are_for_one_at_a_time(tmp_path)


# ---------------------------------------------------------------------------------------------- two studies at once


def test_a_study_in_a_folder_that_is_taken_is_refused_and_changes_nothing(data, whole, tmp_path, loaded, capsys):
    with files.alone(tmp_path):
        with pytest.raises(files.FileError, match=f"^{tmp_path}: {TAKEN}$"):
            study.run(refusing(data), tmp_path, **SETTINGS)
        assert call(*STUDY, "--out", tmp_path) == 2
        assert capsys.readouterr().err == f"hbn_ref study: {tmp_path}: {TAKEN}\n"
        assert call("study", "--preset", "choice", "--out", tmp_path) == 2
        assert capsys.readouterr().err == f"hbn_ref study: {tmp_path}: {TAKEN}\n"
        assert names(tmp_path) == {".lock"}
    before = {path.name: path.read_bytes() for path in whole[0].iterdir()}
    with files.alone(whole[0]), pytest.raises(files.FileError, match=TAKEN):
        study.run(refusing(data), whole[0], **SETTINGS)  # a finished one: its picture may be on the way
    assert {path.name: path.read_bytes() for path in whole[0].iterdir()} == before


def test_a_training_into_a_file_that_is_taken_is_refused_and_one_beside_it_is_not(loaded, tmp_path, capsys):
    with files.alone(tmp_path / "net.npz"):
        assert call(*TRAIN, "--out", tmp_path / "net.npz") == 2
        assert capsys.readouterr().err == f"hbn_ref train: {tmp_path / 'net.npz'}: {TAKEN}\n"
        assert call(*TRAIN, "--epochs", 1, "--out", tmp_path / "other.npz") == 0
        assert names(tmp_path) == {".net.npz.lock", "other.npz"}


def test_what_comes_last_is_done_before_another_may_write(data, whole, tmp_path):
    def finish(report):
        assert names(tmp_path) == {".lock", "report.json"} | MODEL_FILES
        with pytest.raises(files.FileError, match=TAKEN), files.alone(tmp_path):
            pass
        finished.append(report)

    finished = []
    for _ in range(2):
        report = study.run(data, tmp_path, finish=finish, **SETTINGS)
        assert finished.pop() is report
    assert names(tmp_path) == {"report.json"} | MODEL_FILES


@PROCESSES
def test_two_processes_in_one_folder_and_one_in_another(data, tmp_path):
    """The first stops at the first file that it writes, until the second has been refused."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    stopping = command_line("study", *FEW, killed=(1, -1), by="SIGSTOP")
    first = subprocess.Popen(stopping, **options(tmp_path / "one"))
    other = subprocess.Popen(command_line("study", *FEW), **options(tmp_path / "two"))
    with first, other:
        try:
            assert os.waitid(os.P_PID, first.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT).si_code == os.CLD_STOPPED
            second = hbn_ref(tmp_path / "one", "study", *FEW)
            first.send_signal(signal.SIGCONT)
            errors = [process.communicate(timeout=LIMIT)[1] for process in (first, other)]
        finally:
            first.kill(), other.kill()
    assert (second.returncode, second.stderr) == (2, f"hbn_ref study: out: {TAKEN}\n")
    assert (first.returncode, other.returncode) == (0, 0), errors
    alone = few_studied(data, tmp_path / "alone")
    for name in ("one", "two"):
        assert_same_networks(tmp_path / name / "out", alone)


def until(true, seconds=LIMIT):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)


@PROCESSES
@pytest.mark.slow
def test_many_processes_that_want_one_folder_leave_one_good_study(data, tmp_path):
    """Without waiting for each other: every one is refused, or finds or makes the whole study."""
    crowd = [subprocess.Popen(command_line("study", *FEW), **options(tmp_path)) for _ in range(6)]
    done = [(process.communicate(timeout=LIMIT)[1], process.returncode) for process in crowd]
    for stderr, code in done:
        assert code == 0 or (code, stderr) == (2, f"hbn_ref study: out: {TAKEN}\n")
    assert 0 in [code for _, code in done]
    assert_same_networks(tmp_path / "out", few_studied(data, tmp_path / "alone"))


# ---------------------------------------------------------------------------------------- kernels in several threads


def both_passes(kind, seed):
    """Forward and backward of a convolution large enough for two threads, as bytes."""
    forward, backward = PASSES[kind]
    x, w = random_arrays(seed, (4, 17, 15, 64), (3, 3, 64, 70), dtype=np.float32)
    out, cache = forward(x, w, padding=1)
    return [array.tobytes() for array in (out, *backward(out, cache))]


def at_once(function, *arguments):
    """[function(a) for each a], each in a thread of its own that begins when all are there."""
    ready = threading.Barrier(len(arguments))

    def begin(argument):
        ready.wait(60)
        return function(argument)

    with ThreadPoolExecutor(len(arguments)) as pool:
        return list(pool.map(begin, arguments, timeout=LIMIT))


@COMPILED
@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("kind", PASSES)
def test_kernels_called_from_several_threads_give_what_one_gets(kind, name):
    with engine.kernel(name), engine.threads(2):
        expected = [both_passes(kind, seed) for seed in range(4)]
        for _ in range(2):
            assert at_once(lambda seed: both_passes(kind, seed), *range(4)) == expected


@COMPILED
def test_networks_asked_by_several_threads_say_what_they_say_to_one():
    model = models.build("small", "fbin", num_classes=5, in_channels=1, input_size=32, width=0.25)
    packed, images = deploy.compile(model), random_arrays(0, (4, 16, 32, 32, 1), dtype=np.float32)
    with engine.threads(2):
        for network in (model.forward, packed):
            expected = [network(x).tobytes() for x in images]
            assert at_once(lambda x, ask=network: ask(x).tobytes(), *images) == expected


@COMPILED
def test_the_number_of_threads_changed_by_several_threads_changes_no_result():
    expected = [both_passes("xnor", seed) for seed in range(2)]

    def compute(seed):
        return all(both_passes("xnor", seed) == expected[seed] for _ in range(20))

    def change(numbers):
        for number in numbers:
            engine.set_num_threads(number)
            time.sleep(0.001)
        return True

    with engine.threads(2):
        works = [lambda: compute(0), lambda: compute(1), lambda: change([1, 3] * 50), lambda: change([2, 4, 5] * 30)]
        assert all(at_once(lambda work: work(), *works))
        assert both_passes("xnor", 0) == expected[0]


@COMPILED
def test_without_further_threads_the_caller_works_alone(monkeypatch):
    expected = both_passes("real", 0)

    def refuse(self):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch, engine.threads(3):
        patch.setattr(threading.Thread, "start", refuse)
        assert both_passes("real", 0) == expected


@COMPILED
def test_threads_end_when_another_number_is_set():
    def ours():
        return [thread for thread in threading.enumerate() if thread.name == "hbn"]

    engine.set_num_threads(engine.get_num_threads())
    until(lambda: not ours(), 60)
    for number in (2, 5, 3):
        with engine.threads(number):
            both_passes("xnor", 0)
            assert len(ours()) == number - 1
        until(lambda: not ours(), 60)


@COMPILED
def test_threads_that_wait_for_work_hold_no_arrays():
    array = np.zeros(10)
    gone = weakref.ref(array)
    with engine.threads(3):
        engine.run(lambda start, stop, a: None, 1000, array, work=10**9)
        del array
        until(lambda: gone() is None, 60)


@COMPILED
def test_a_kernel_that_fails_in_another_thread_fails_for_its_caller():
    def kernel(start, stop):
        if threading.current_thread() is threading.main_thread():
            failed.wait(60)
        else:
            failed.set()
            raise MemoryError("no room")

    failed = threading.Event()
    with engine.threads(2), pytest.raises(MemoryError, match="no room"):
        engine.run(kernel, 1000, work=10**9)


# ------------------------------------------------------------------------------------------------- Ctrl-C


@COMPILED
def test_after_ctrl_c_no_thread_goes_on_writing():
    written, inside, pressed = [], threading.Event(), threading.Event()

    def kernel(start, stop, written):
        if threading.current_thread() is threading.main_thread():
            inside.wait(60)
            threading.Timer(0.5, pressed.set).start()  # no piece ends before there was time to stop the next ones
            raise KeyboardInterrupt
        inside.set()
        pressed.wait(60)
        written.append(start)

    with engine.threads(3):
        with pytest.raises(KeyboardInterrupt):
            engine.run(kernel, 24_000, written, work=10**9)
        count = len(written)
        assert 1 <= count <= 2  # the pieces that had begun
        time.sleep(0.15)
        assert len(written) == count
        assert both_passes("xnor", 0) == both_passes("xnor", 0)


# --------------------------------------------------------------------------------- processes: fork, spawn, the end

METHODS = [
    pytest.param(method, marks=[pytest.mark.slow] if method == "forkserver" else [])
    for method in multiprocessing.get_all_start_methods()
]
SUMS = """
import os, signal, sys, threading, time
sys.path.insert(0, "tests")
import numpy as np
from hbn_ref import conv, engine
if hasattr(signal, "alarm"):
    signal.alarm(300)  # a child that hangs is ended, too

def sums(seed):
    x, w = np.random.default_rng(seed).standard_normal((2, 4, 12, 12, 64)).astype(np.float32)
    w, found = np.ascontiguousarray(w[:, :3, :3].transpose(1, 2, 3, 0)), []
    for kind in ("conv2d", "binary_weight_conv2d", "xnor_conv2d"):
        out, cache = getattr(conv, kind + "_forward")(np.tile(x, (8, 1, 1, 1)), w, padding=1)
        found += [float(a.sum()) for a in (out, *getattr(conv, kind + "_backward")(out, cache))]
    return found
"""


def script(folder, code):
    """What a program prints, as a file of its own, which spawn needs."""
    path = folder / "program.py"
    path.write_text(SUMS + code)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HBN_NUM_THREADS": "2"}
    quiet = "ignore:This process:DeprecationWarning"  # Python's own, from 3.12 on, at each fork with threads
    done = subprocess.run([sys.executable, "-W", quiet, path], env=env, capture_output=True, text=True, timeout=LIMIT)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@COMPILED
@pytest.mark.parametrize("method", METHODS)
def test_processes_started_after_a_parallel_kernel_compute_the_same(tmp_path, method):
    code = f"""
import multiprocessing
if __name__ == "__main__":
    here = [sums(seed) for seed in range(4)]
    assert engine._pool is not None
    with multiprocessing.get_context({method!r}).Pool(2) as pool:
        print(pool.map_async(sums, range(4)).get(250) == here)
"""
    assert script(tmp_path, code) == ["True"]


@COMPILED
@POSIX
@pytest.mark.parametrize("times", [30, pytest.param(1000, marks=pytest.mark.slow)])
def test_ctrl_c_at_any_moment_leaves_the_threads_usable(tmp_path, times):
    """Locks of Python code can stay locked for ever: a pool of concurrent.futures hung after some thousand times."""
    code = f"""
def press(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGVTALRM, press)
here, rng = sums(0), np.random.default_rng(0)
for _ in range({times}):
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, rng.uniform(0.0005, 0.02))
        while True:
            sums(1)
    except KeyboardInterrupt:
        print(sums(0) == here)
"""
    assert script(tmp_path, code) == ["True"] * times


@COMPILED
@POSIX
def test_a_fork_while_other_threads_compute(tmp_path):
    code = """
here, stop = sums(0), threading.Event()

def busy():
    while not stop.is_set():
        sums(1)

threads = [threading.Thread(target=busy) for _ in range(2)]
for thread in threads:
    thread.start()
for _ in range(5):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os._exit(0 if sums(0) == here else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
stop.set()
"""
    assert script(tmp_path, code) == ["0"] * 5


@COMPILED
@POSIX
def test_a_forked_child_that_ends_in_the_usual_way(tmp_path):
    code = """
here, child = sums(0), os.fork()
if child == 0:
    signal.alarm(60)
    sys.exit(0 if sums(0) == here else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert script(tmp_path, code) == ["0"]


@COMPILED
def test_threads_at_once_from_the_first_kernel_of_a_process_on(tmp_path):
    code = """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(4) as pool:
    found = list(pool.map(sums, [0, 0, 0, 0]))
print(all(own == sums(0) for own in found))
"""
    assert script(tmp_path, code) == ["True"]


@COMPILED
def test_a_thread_that_outlives_the_main_one_computes_to_its_end(tmp_path):
    code = """
here = sums(0)

def late():
    threading.main_thread().join()
    print(all(sums(0) == here for _ in range(3)), flush=True)

threading.Thread(target=late).start()
"""
    assert script(tmp_path, code) == ["True"]


@pytest.mark.skipif(JIT, reason="about the plain Python that replaces compiled kernels")
def test_without_the_jit_no_threads_are_started():
    with engine.threads(3):
        engine.run(lambda start, stop: None, 100_000, work=10**9)
        assert engine._pool is None
