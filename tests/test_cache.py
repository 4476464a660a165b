"""Where compiled kernels are kept, and what happens where they cannot be: the kernel is right all the same.

Most tests compile a small kernel of their own in this process; those at the end begin processes in folders that refuse
even root: mounted read-only, too small, or another user's.
"""

import errno
import importlib.util
import itertools
import os
import shutil
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numba
import numpy as np
import pytest

from hbn_ref import compiler
from tests.conftest import JIT

pytestmark = pytest.mark.skipif(not JIT, reason="without the compiler nothing is kept")
ROOT = Path(__file__).resolve().parents[1]
SOURCE = """
from hbn_ref.compiler import compiled

def make(step):
    @compiled()
    def kernel(x):
        return x[0] + step
    return kernel

one, ten = make(1), make(10)
"""
numbers = itertools.count()


def fresh(folder, source=SOURCE):
    """A module with kernels that nobody has compiled in this process."""
    path = Path(folder, "some_kernels.py")
    if not path.exists() or path.read_text() != source:
        path.write_text(source)
    spec = importlib.util.spec_from_file_location(f"some_kernels{next(numbers)}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def no_bytecode(monkeypatch):
    """Python's own cache takes a source of the same size and the same second for the same: it would run the old one."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """The folder that NUMBA_CACHE_DIR names; no warning has been given yet."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "kept"))
    monkeypatch.setattr(compiler, "_warned", False)
    return tmp_path / "kept"


def files_in(folder):
    return sorted(path for path in Path(folder).rglob("*") if path.is_file())


def hits(kernel):
    return sum(kernel.stats.cache_hits.values())


def right(module, dtype=np.float32):
    return module.one(np.full(1, 2, dtype)) == 3


@contextmanager
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_a_kernel_is_compiled_once_and_kept_in_a_folder_that_is_made(kept, tmp_path):
    two = np.full(1, 2, np.float32)
    with quiet():
        first = fresh(tmp_path)
        assert not kept.exists(), "an import writes nothing"
        assert (first.one(two), first.ten(two), first.one(np.full(1, 2, np.int32))) == (3, 12, 3)
        assert hits(first.one) == hits(first.ten) == 0 and len(files_in(kept)) == 3
        again = fresh(tmp_path)
        assert (again.one(two), again.ten(two), again.one(np.full(1, 2, np.int32))) == (3, 12, 3)
        assert (hits(again.one), hits(again.ten)) == (2, 1) and len(files_in(kept)) == 3


def test_another_source_is_compiled_and_takes_the_old_ones_place(kept, tmp_path):
    with quiet():
        assert right(fresh(tmp_path))
        before = files_in(kept)
        changed = fresh(tmp_path, SOURCE.replace("x[0] + step", "x[0] - step"))
        assert changed.one(np.full(1, 2, np.float32)) == 1 and hits(changed.one) == 0
    assert len(files_in(kept)) == 1 and files_in(kept) != before


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _link(path):
    path.unlink()
    path.symlink_to(path.parent / "nowhere")


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "one bit flipped": _flip,
    "noise": lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)),
    "another kernel's, whole": lambda path: shutil.copyfile(path.parent.parent / "other", path),
    "a link to nowhere": _link,
    "deleted": Path.unlink,
    "its folder deleted": lambda path: shutil.rmtree(path.parent),
}


def test_a_damaged_file_is_compiled_again_and_mended(kept, tmp_path):
    with quiet():
        assert fresh(tmp_path).ten(np.full(1, 2, np.float32)) == 12
        files_in(kept)[0].rename(kept / "other")
        assert right(fresh(tmp_path))
        (file,) = set(files_in(kept)) - {kept / "other"}
        for name, damage in DAMAGES.items():
            damage(file)
            again = fresh(tmp_path)
            assert right(again) and hits(again.one) == 0, name
            mended = fresh(tmp_path)
            assert right(mended) and hits(mended.one) == 1, name


def test_what_cannot_be_replaced_or_read_is_compiled_each_time(kept, tmp_path, monkeypatch):
    assert right(fresh(tmp_path))
    with monkeypatch.context() as patch, quiet():
        patch.setattr(compiler.CompileResultCacheImpl, "rebuild", lambda *_: 1 / 0)  # written by a Numba to come
        assert right(fresh(tmp_path))
    (file,) = files_in(kept)
    file.unlink()
    file.mkdir()
    with quiet():
        assert right(fresh(tmp_path))


@pytest.mark.parametrize("at", ["write", "replace"])
def test_a_disk_that_fills_up_costs_one_warning_and_no_half_file(kept, tmp_path, monkeypatch, at):
    module = fresh(tmp_path)
    assert right(module)

    def full(path, *content):
        if at == "write":
            with open(path, "wb") as file:
                file.write(content[0][:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(*((Path, "write_bytes") if at == "write" else (compiler.os, "replace")), full)
        with pytest.warns(RuntimeWarning) as found:
            assert right(module, np.int32) and module.ten(np.full(1, 2, np.float32)) == 12
    assert len(found) == 1
    assert "No space left on device" in str(found[0].message) and "NUMBA_CACHE_DIR" in str(found[0].message)
    assert len(files_in(kept)) == 1, "what was written before stays, and nothing is half there"
    with quiet():
        again = fresh(tmp_path)
        assert right(again) and hits(again.one) == 1


def test_an_upgrade_on_a_full_disk_does_not_run_the_old_code(kept, tmp_path, monkeypatch):
    """Numba's own index, small, is written before the data, large: it would name the old data from then on."""
    assert right(fresh(tmp_path))
    changed = SOURCE.replace("x[0] + step", "x[0] - step")

    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.warns(RuntimeWarning):
        patch.setattr(Path, "write_bytes", full)
        assert fresh(tmp_path, changed).one(np.full(1, 2, np.float32)) == 1
    assert fresh(tmp_path, changed).one(np.full(1, 2, np.float32)) == 1


def test_two_that_write_at_once_do_not_take_each_others_code(kept, tmp_path, monkeypatch):
    """Between one's last look at the folder and its file, the other does all it has to do."""
    ours, theirs, replace = fresh(tmp_path), fresh(tmp_path), os.replace

    def late(source, target):
        monkeypatch.setattr(compiler.os, "replace", replace)
        assert right(theirs, np.int32)
        replace(source, target)

    monkeypatch.setattr(compiler.os, "replace", late)
    with quiet():
        assert right(ours)
        again = fresh(tmp_path)
        assert right(again) and right(again, np.int32) and hits(again.one) == 2


def test_all_our_kernels_can_be_kept():
    from hbn_ref import kernels, simd

    every = [k for k in vars(kernels).values() if hasattr(k, "py_func")]
    every += [
        *kernels.xnor_gather.values(),
        *kernels.float_gather.values(),
        simd.xnor_gather(64),
        simd.float_gather(64),
    ]
    assert len(every) > 20 and all(isinstance(k._cache, compiler._Kept) for k in every)


# ------------------------------------------------------------------------- processes in folders that refuse all


PACK = """
import numpy as np
from hbn_ref import bits
x = np.random.default_rng(0).standard_normal((5, 70)).astype(np.float32)
assert ((bits.unpack(bits.pack(x), 70) > 0) == (x >= 0)).all()
print("right")
"""
POWERLESS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")  # root who may write only what is root's
EVERYTHING = """
import pathlib, sys, threading, urllib.request
out, images = pathlib.Path(sys.argv[1]), sys.argv[2]
sys.path.append("tutorials")
import course
course.setup()
from hbn_ref.__main__ import main
from data_tools.__main__ import main as tools
small = "--classes 3 --size 32 --width 0.25 --epochs 1"
for line in (
    f"train {small} --out {out}/model",
    f"study {small} --variants fbin,hybrid --out {out}/study",
    f"report {out}/study/report.json",
    f"evaluate {out}/model.npz",
    f"export {out}/model.npz {out}/packed",
    f"predict {out}/packed.npz {images}/a/0.png",
    "summary small-fbin --time",
    f"summary {out}/model.npz",
):
    assert main(line.split()) == 0, line
for line in ("info --classes 3", f"info {images}", f"preview --classes 3 --out {out}/sheet.png"):
    assert tools(line.split()) == 0, line
import data_tools
from hbn_ref import draw, gallery
with draw.make_server(gallery.load()[0], data_tools.prepare_strokes, port=0) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/"
    page = urllib.request.urlopen(url, timeout=60).read()
    body = b'{"strokes": [[[0.3, 0.3], [0.7, 0.7]]]}'
    asked = urllib.request.Request(url + "predict", body, {"Content-Type": "application/json"})
    assert b"canvas" in page and b"probability" in urllib.request.urlopen(asked, timeout=60).read()
    server.shutdown()
print("right")
"""


def copy_of_the_package(folder):
    for name in ("hbn_ref", "data_tools", "tutorials"):
        ignored = shutil.ignore_patterns("__pycache__", "*.ipynb", "data")
        shutil.copytree(ROOT / name, Path(folder, "site", name), ignore=ignored)
    for name in ("home", "out", "images/a", "images/b"):
        Path(folder, name).mkdir(parents=True)
    for k, name in enumerate("ab" * 3):
        shutil.copyfile(ROOT / "results" / "choice.png", Path(folder, "images", name, f"{k // 2}.png"))


def run(folder, code, before="", prefix=(), path="site", **environment):
    """A process that begins in ``folder``/site, its home ``folder``/home; ``before`` mounts things for it alone."""
    unwanted = ("NUMBA_CACHE_DIR", "HBN_CACHE", "XDG_CACHE_HOME", "HBN_DATA", "IPYTHONDIR", "MPLCONFIGDIR")
    env = {name: value for name, value in os.environ.items() if name not in unwanted}
    env |= {"HOME": str(folder / "home"), "PYTHONPATH": str(folder / path), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", code, str(folder / "out"), str(folder / "images")]
    if before:
        command = ["unshare", "-m", "sh", "-ec", f'{before}\nexec "$@"', "sh", *command]
    done = subprocess.run(
        [*prefix, *command], cwd=folder / "site", env=env | environment, capture_output=True, text=True, timeout=600
    )
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["right"]), done.stderr
    return [line for line in done.stderr.splitlines() if "Warning" in line]


def one_warning(lines):
    return len(lines) == 1 and "NUMBA_CACHE_DIR" in lines[0]


@pytest.fixture
def mounts():
    """Skips where this user may not mount; root may, for a process and its children only."""
    probe = ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"]
    if not shutil.which("unshare") or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("this user may not mount a file system")


@pytest.fixture
def others(open_to_all):
    """Gives folders to another user; this one, though root, may then not write there: see `POWERLESS`."""
    probe = [*POWERLESS, sys.executable, "-c", "import numpy"]
    if not shutil.which("setpriv") or subprocess.run(probe, cwd="/", capture_output=True).returncode:
        pytest.skip("only root gives folders away")

    def give(*folders):
        for folder in folders:
            for path in [folder, *folder.rglob("*")]:
                os.chown(path, 65534, 65534)

    return give


def read_only(folder):
    return f"mount --bind {folder} {folder}\nmount -o remount,ro,bind {folder}\nmount -t tmpfs none {folder}/out"


def test_a_read_only_system(open_to_all, mounts):
    copy_of_the_package(open_to_all)
    assert one_warning(run(open_to_all, PACK, read_only(open_to_all)))


@pytest.mark.slow
def test_a_zip_of_the_package_and_no_home(open_to_all, others):
    copy_of_the_package(open_to_all)
    shutil.make_archive(str(open_to_all / "package"), "zip", open_to_all / "site")
    shutil.rmtree(open_to_all / "site" / "hbn_ref")
    others(open_to_all)
    code = PACK.replace("print", "from hbn_ref import draw, gallery\nprint")
    code = code.replace("print", "assert len(gallery.load()[0]) == 3 and b'canvas' in draw.assemble()[0]\nprint")
    assert one_warning(run(open_to_all, code, prefix=POWERLESS, path="package.zip"))


@pytest.mark.slow
@pytest.mark.parametrize("kept", ["missing", "a file", "someone else's", "ours"])
def test_only_a_folder_of_ours_is_written_to(open_to_all, others, kept):
    copy_of_the_package(open_to_all)
    folder = open_to_all / "kept"
    if kept == "a file":
        folder.write_text("")
    elif kept != "missing":
        folder.mkdir()
    others(open_to_all)
    if kept == "ours":
        os.chown(folder, os.geteuid(), os.getegid())
    warned = run(open_to_all, PACK, prefix=POWERLESS, NUMBA_CACHE_DIR=str(folder))
    assert warned == [] if kept == "ours" else one_warning(warned)
    assert bool(files_in(folder)) == (kept == "ours")


@pytest.mark.slow
def test_two_processes_compile_into_one_folder_at_once(tmp_path):
    copy_of_the_package(tmp_path)
    kept = tmp_path / "site" / "hbn_ref" / "__pycache__"
    two = [PACK, PACK.replace("astype(np.float32)", "astype(np.float64)")]
    with ThreadPoolExecutor() as pool:
        assert list(pool.map(lambda code: run(tmp_path, code), two * 2)) == [[]] * 4
    count = len(files_in(kept))
    check = (
        "\nfrom hbn_ref import kernels; assert sum(kernels.pack_signs.stats.cache_hits.values()) == 1; print('right')"
    )
    assert [run(tmp_path, code + check) for code in two] == [[], []]
    assert len(files_in(kept)) == count


@pytest.mark.slow
@pytest.mark.parametrize("place", ["read-only", "fills up", "another user's"])
def test_every_command_the_notebooks_start_and_the_draw_page(open_to_all, request, place):
    copy_of_the_package(open_to_all)
    if place == "another user's":
        request.getfixturevalue("others")(open_to_all / "site", open_to_all / "home")
        warned = run(open_to_all, EVERYTHING, prefix=POWERLESS)
    else:
        request.getfixturevalue("mounts")
        (open_to_all / "kept").mkdir()
        small = f"mount -t tmpfs -o size=400k none {open_to_all}/kept"  # room for some kernels
        before, name = (read_only(open_to_all), "home") if place == "read-only" else (small, "kept")
        warned = run(open_to_all, EVERYTHING, before, NUMBA_CACHE_DIR=str(open_to_all / name))
    assert one_warning(warned), warned
