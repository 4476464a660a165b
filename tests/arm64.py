"""Run the kernels' tests, a packed file and a short study on emulated ARM: python tests/arm64.py [--all].

Sets up Debian's Python for arm64 and the libraries' wheels in a folder of its own, once, and runs everything there with
QEMU's user mode: exact, and slow. Needs root on a Debian machine for debootstrap; elsewhere it says so and does
nothing. Processes that a test starts are not emulated, so tests that start Python again are left out.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
SUITE = "bookworm"
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
LIBRARIES = ("numpy", "numba", "llvmlite", "pytest", "hypothesis", "pillow", "tqdm", "matplotlib")
CHOSEN = ["tests/test_simd.py", "tests/test_bits.py"]
WHOLE = [
    *CHOSEN, "tests/test_exactness.py", "tests/test_binarize.py", "tests/test_conv.py", "tests/test_layers.py",
    "tests/test_hybrid.py", "tests/test_deploy.py",
]  # fmt: skip
STARTS_PYTHON = "other_processors"
LEFT_OUT = f"{STARTS_PYTHON} or kit or [look-ups or [words"  # and the blocks that ARM never chooses
PACKED = ("fbin", "hybrid-conv5-conv6", "wbin")
LOGITS = """
import sys, hashlib, numpy as np
from hbn_ref import deploy, engine
for path in sys.argv[1:]:
    packed = deploy.load(path)
    size = packed.preprocessing["size"]
    x = np.random.default_rng(0).integers(0, 256, (4, size, size, 1)).astype(np.float32) / np.float32(255)
    print(path, hashlib.sha256(packed(x).tobytes()).hexdigest())
"""


def why_not() -> str | None:
    """Return what this machine lacks, or None."""
    if not shutil.which("apt-get"):
        return "needs Debian: debootstrap and qemu-user-static come from its packages"
    if os.geteuid() != 0:
        return "needs root: debootstrap makes device files"
    return None


def set_up(folder: Path) -> None:
    """Debian's Python in folder/root, the libraries in folder/site; what is there already stays."""
    if not (shutil.which("qemu-aarch64-static") and shutil.which("debootstrap")):
        subprocess.run(["apt-get", "update", "-q"], check=True, stdout=subprocess.DEVNULL)
        packages = ["qemu-user-static", "debootstrap"]
        install = ["apt-get", "install", "-qy", "--no-install-recommends", *packages]
        subprocess.run(install, check=True, stdout=subprocess.DEVNULL)
    done = folder / "done"
    if done.exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    root, wheels, site = (folder / name for name in ("root", "wheels", "site"))
    folder.mkdir(parents=True)
    print("Debian for arm64 ...", flush=True)
    command = ["debootstrap", "--arch=arm64", "--foreign", "--variant=minbase", "--include=python3", SUITE, str(root)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    for package in sorted((root / "var/cache/apt/archives").glob("*.deb")):
        subprocess.run(["dpkg", "-x", str(package), str(root)], check=True)
    print("libraries ...", flush=True)
    platforms = [word for name in PLATFORMS for word in ("--platform", f"{name}_aarch64")]
    download = [sys.executable, "-m", "pip", "download", "-q", "--only-binary=:all:", "--python-version", "3.11",
                "--implementation", "cp", *platforms, "-d", str(wheels), *LIBRARIES]  # fmt: skip
    subprocess.run(download, check=True)
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as content:
            content.extractall(site)
    done.touch()


def emulated(folder: Path, *arguments: str) -> list[str]:
    """The command that runs Python with these arguments on emulated ARM."""
    root = folder / "root"
    variables = {
        "LD_LIBRARY_PATH": root / "usr/lib/aarch64-linux-gnu", "PYTHONHOME": root / "usr",
        "PYTHONPATH": folder / "site", "NUMBA_CACHE_DIR": folder / "cache",
        "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    words = [word for name, value in variables.items() for word in ("-E", f"{name}={value}")]
    return ["qemu-aarch64-static", "-L", str(root), "-cpu", "max", *words, str(root / "usr/bin/python3.11"), *arguments]


def same_logits(folder: Path) -> bool:
    """Whether packed files that were made on x86 give the same logits there, to the last bit."""
    files = [f"results/packed/{name}.npz" for name in PACKED]
    here = subprocess.run([sys.executable, "-c", LOGITS, *files], cwd=HERE, check=True, capture_output=True, text=True)
    there = subprocess.run(emulated(folder, "-c", LOGITS, *files), cwd=HERE, check=True, capture_output=True, text=True)
    same = here.stdout == there.stdout
    print(f"packed files: logits {'equal to the last bit' if same else 'DIFFER'}\n{there.stdout}", flush=True)
    return same


def passed(folder: Path, tests: list[str], left_out: str) -> bool:
    """Whether all tests of these files pass there, a process per file, as many at once as there are cores."""
    options = ["-q", "-p", "no:cacheprovider", "-m", "not slow", "-k", f"not ({left_out})"]

    def run(file):
        command = emulated(folder, "-m", "pytest", *options, file)
        done = subprocess.run(command, cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        print(f"{file}\n{done.stdout}", flush=True)
        return done.returncode == 0

    with ThreadPoolExecutor(os.cpu_count()) as cores:
        return all(list(cores.map(run, tests)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--all", action="store_true", help="every test of the chapters, an hour, not a chosen set")
    parser.add_argument("--folder", type=Path, default=HERE / ".arm64", help="(default: %(default)s)")
    args = parser.parse_args()
    reason = why_not()
    if reason:
        print(f"skipped: {reason}")
        return 0
    started = time.monotonic()
    folder = args.folder.resolve()
    set_up(folder)
    ready = time.monotonic()
    kernel = "import platform; from hbn_ref import engine; print(platform.machine(), engine.get_kernel(), 'kernels')"
    subprocess.run(emulated(folder, "-c", kernel), cwd=HERE, check=True)
    fine = same_logits(folder)
    fine &= passed(folder, *((WHOLE, STARTS_PYTHON) if args.all else (CHOSEN, LEFT_OUT)))
    study = ["-m", "hbn_ref", "study", "--epochs", "1", "--classes", "2", "--size", "32", "--variants", "fbin", "--out"]
    out = folder / f"study-{hashlib.sha256(str(started).encode()).hexdigest()[:8]}"
    fine &= subprocess.run(emulated(folder, *study, str(out)), cwd=HERE).returncode == 0
    shutil.rmtree(out, ignore_errors=True)
    print(f"set-up {ready - started:.0f} s, the rest {time.monotonic() - ready:.0f} s")
    return 0 if fine else 1


if __name__ == "__main__":
    raise SystemExit(main())
