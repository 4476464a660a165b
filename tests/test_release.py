"""What is released: the version, the list of packages, and the wheel, installed alone and used from another folder."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import llvmlite
import numba
import numpy as np
import pytest
from conftest import JIT

import hbn_ref

ROOT = Path(__file__).parents[1]
SOURCES = ("hbn_ref", "data_tools")
SETTINGS = (ROOT / "pyproject.toml").read_text("utf-8")


def setting(name):
    """The value of ``name = ...`` in pyproject.toml."""
    return ast.literal_eval(re.search(rf"^{re.escape(name)} = (\[.*?\])", SETTINGS, re.M | re.S)[1])


def files():
    """Every file of the packages, but for pages that are read in the repository."""
    found = (path for name in SOURCES for path in (ROOT / name).rglob("*") if path.is_file())
    return {path for path in found if "__pycache__" not in path.parts and path.suffix != ".md"}


def test_the_version_is_the_same_everywhere():
    version = hbn_ref.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
    newest = re.search(r"^## (\S+), .*\((\d{4}-\d\d-\d\d)\)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert newest[1] == version


def test_the_wheel_has_every_package_and_every_file_beside_its_code():
    on_disk = {path.parent.relative_to(ROOT) for path in files() if path.suffix == ".py"}
    packages = setting("packages")
    assert sorted(packages) == sorted(".".join(path.parts) for path in on_disk)
    listed = set()
    for name in packages:
        pattern = re.search(rf'^"?{re.escape(name)}"? = (\[.*?\])', SETTINGS, re.M)
        folder = ROOT.joinpath(*name.split("."))
        listed |= {path for glob in ast.literal_eval(pattern[1]) for path in folder.glob(glob)} if pattern else set()
    assert listed == {path for path in files() if path.suffix != ".py"}


# ------------------------------------------------------------------------------- built, installed, and used

KIT = """
from hbn_ref import conv, testing

def kernel(x, w, **options):
    return conv.xnor_conv2d_forward(x, w, scale=False, need_cache=False, **options)[0]

testing.check_xnor_conv(kernel, max_cases=20)
try:
    testing.check_xnor_conv(lambda *args, **options: kernel(*args, **options) + 1, max_cases=20)
except AssertionError as found:
    print(str(found).splitlines()[0])
"""
PAGE = """
import numpy as np
from hbn_ref import draw, gallery

def prepare(strokes, preprocessing, width):
    size = preprocessing["size"]
    x = np.zeros((1, size, size, 1), np.float32)
    rows, columns = (np.clip((strokes[0][:, axis] * size).astype(int), 0, size - 1) for axis in (1, 0))
    x[0, rows, columns] = 1
    return x

networks, rest = gallery.load()
line = np.stack([np.linspace(0.2, 0.8, 200)] * 2, axis=1)
answer = draw.predict(networks, prepare, [line])
page, _ = draw.assemble()
print(len(networks), len(rest), [len(one["top"]) for one in answer["networks"]], b"<canvas" in page)
"""
RUN_WITHOUT = {
    "study": "matplotlib", "study --preset choice": "matplotlib", "train": "PIL", "predict drawing.png": "PIL",
    "draw --no-browser --port 0": "PIL",
}  # fmt: skip


def build(folder):
    """Build the sdist of the project, and the wheel from that sdist alone; return both paths."""
    project, out = folder / "project", folder / "dist"
    ignored = shutil.ignore_patterns("__pycache__")
    for name in SOURCES:
        shutil.copytree(ROOT / name, project / name, ignore=ignored)
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff"):
        shutil.copy(ROOT / name, project)
    shutil.copytree(ROOT / "tests", project / "tests", ignore=ignored)
    out.mkdir()
    backend = "from setuptools import build_meta; print(build_meta.build_{}({!r}))"
    command = [sys.executable, "-c", backend.format("sdist", str(out))]
    subprocess.run(command, cwd=project, check=True, capture_output=True, timeout=120)
    (sdist,) = out.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    (unpacked,) = (folder / "unpacked").iterdir()
    assert (unpacked / "CHANGELOG.md").exists() and not (unpacked / "tests").exists()  # a part of them would not run
    command = [sys.executable, "-c", backend.format("wheel", str(out))]
    subprocess.run(command, cwd=unpacked, check=True, capture_output=True, timeout=120)
    (wheel,) = out.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The wheel, and run(arguments...): Python with the wheel, NumPy and Numba alone, in an empty folder."""
    pytest.importorskip("setuptools", "77")
    folder = tmp_path_factory.mktemp("release")
    _, wheel = build(folder)
    site, elsewhere = folder / "site", folder / "elsewhere"
    elsewhere.mkdir()
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", site, wheel]
    subprocess.run(install, check=True, capture_output=True, timeout=120)
    for module in (np, numba, llvmlite):  # linked, that nothing beside them can be imported
        for path in Path(module.__file__).parents[1].glob(f"{module.__name__}*"):
            if path.name in (module.__name__, f"{module.__name__}.libs"):
                (site / path.name).symlink_to(path)

    def run(*arguments):
        environment = {**os.environ, "PYTHONPATH": str(site), "MPLBACKEND": "Agg"}
        command = [sys.executable, "-S", *arguments]  # -S: without the folder of installed packages
        return subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=300)

    return wheel, run


@pytest.mark.slow
def test_the_wheel_holds_what_runs_and_nothing_else(alone):
    wheel, _ = alone
    names = zipfile.ZipFile(wheel).namelist()
    ours = {name for name in names if ".dist-info/" not in name}
    assert ours == {path.relative_to(ROOT).as_posix() for path in files()}
    assert f"hbn_ref-{hbn_ref.__version__}-py3-none-any.whl" == wheel.name
    assert any(name.endswith("LICENSE") for name in names)


@pytest.mark.slow
def test_the_wheel_alone_counts_a_network(alone):
    _, run = alone
    done = run("-m", "hbn_ref", "summary", "small-fbin")
    assert done.returncode == 0 and done.stderr == ""
    here = [sys.executable, "-m", "hbn_ref", "summary", "small-fbin"]
    assert done.stdout == subprocess.run(here, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "packed file (export): " in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not JIT, reason="as slow as the kernels are without the compiler")
def test_the_wheel_alone_checks_a_kernel_and_answers_a_drawing(alone):
    _, run = alone
    done = run("-c", KIT)
    assert done.returncode == 0 and "expected 1, got 2" in done.stdout, done.stdout + done.stderr
    done = run("-c", PAGE)
    assert done.stdout.strip() == "3 0 [3, 3, 3] True", done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", RUN_WITHOUT)
def test_what_needs_more_than_the_wheel_says_what(alone, command):
    _, run = alone
    done = run("-m", "hbn_ref", *command.split())
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    name = command.split()[0]
    assert line == f"hbn_ref {name}: needs {RUN_WITHOUT[command]}; install hbn-ref[study] or requirements.txt"


@pytest.mark.slow
def test_the_data_tools_say_what_they_need(alone):
    _, run = alone
    done = run("-m", "data_tools", "info")
    assert done.returncode == 2
    assert done.stderr == "data_tools: needs PIL; install hbn-ref[study] or requirements.txt\n"
