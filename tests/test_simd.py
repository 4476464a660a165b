"""The engine room's vector kernels: every block shape against NumPy, the choice of a block, other processors."""

import itertools
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import pytest
from conftest import JIT, thin

from hbn_ref import engine, kernels, simd

ROOT = Path(__file__).parents[1]
ROWS = (1, 2, 3, 7, 23, 24, 25, 481)  # not only whole blocks; the last are more than a chunk
GUARD = -77  # what the rows before and after those of a kernel must still hold

# (name, kernel, tile width). LLVM compiles a block of any shape for any processor: all of them are tested on this one.
WIDTHS = kernels.TILE_WIDTHS
XNOR = [("plain", kernels.xnor_gather[width], width) for width in WIDTHS]
FLOAT = [("plain", kernels.float_gather[width], width) for width in WIDTHS]
if JIT:
    for shape in sorted({shape for shapes in simd.BLOCKS.values() for shape in shapes[:2]}):
        kernel = simd._make_xnor_gather(*shape)
        XNOR += [("block {} x {}".format(*shape), kernel, width) for width in WIDTHS if width % shape[1] == 0]
    for shape in sorted({shape for shapes in simd.BLOCKS.values() for shape in shapes[2:]}):
        kernel = simd._make_float_gather(*shape)
        FLOAT += [("block {} x {}".format(*shape), kernel, width) for width in WIDTHS if width % shape[1] == 0]


def by_name(cases):
    return {"argvalues": [case[1:] for case in cases], "ids": [f"{case[0]}, tiles of {case[2]}" for case in cases]}


# ---------------------------------------------------------------------- every kernel against NumPy, directly


def unaligned(array):
    """The same array one element behind a multiple of 64 bytes: no kernel may count on more."""
    room = np.empty(array.size + 64 // array.itemsize + 1, array.dtype)
    first = -room.ctypes.data % 64 // array.itemsize + 1
    out = room[first : first + array.size].reshape(array.shape)
    out[...] = array
    assert out.ctypes.data % 64 == array.itemsize
    return out


def tables(rng, start, rows, terms):
    """base and off of ``rows`` pixels behind ``start`` others, with spare rows and guard rows after them."""
    base = rng.integers(0, 50, start + rows + 3 * kernels.SPARE)  # in no order, some of them twice
    return base, rng.permutation(3 * terms)[:terms]


def guarded(start, rows, columns, base, dtype):
    return unaligned(np.full((len(base), columns), GUARD, dtype))


def check_rows(out, start, rows, expected, case):
    """The rows asked for are as expected; of the others only spare rows that fill up the last block were touched."""
    spare = min(kernels.SPARE, -rows % engine.ROWS)  # none behind a thread's piece: those rows are another thread's
    assert np.array_equal(out[start : start + rows], expected), case
    assert np.all(out[:start] == GUARD), f"{case}: rows before the first were written"
    assert np.all(out[start + rows + spare :] == GUARD), f"{case}: rows after the spare rows were written"


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
@pytest.mark.parametrize(("kernel", "width"), **by_name(XNOR))
def test_packed_product_is_exact_and_stays_in_its_rows(kernel, width, dtype):
    grid = itertools.product(thin(ROWS[:-1], 3), (0, 5), (1, 4, 7, 18), (1, 3))
    large = [(ROWS[-1], 24, 5, 2)] if JIT else []
    for seed, (rows, start, terms, tiles) in enumerate([*thin(grid, 10), *large]):
        rng = np.random.default_rng(seed)
        base, off = tables(rng, start, rows, terms)
        x = rng.integers(0, 2**64, 50 + 3 * terms, np.uint64)
        w = rng.integers(0, 2**64, (tiles, terms, width), np.uint64)
        w[rng.random(w.shape) < 0.2] = 2**64 - 1
        kind = rng.integers(0, 3, len(base))
        total = rng.integers(-500, 500, (3, tiles * width)).astype(dtype)
        alpha = rng.standard_normal(tiles * width) if dtype == np.float32 else rng.integers(-3, 4, tiles * width)
        alpha = alpha.astype(dtype)
        columns = w.transpose(1, 0, 2).reshape(terms, -1)  # tile by tile back to (K, columns)
        patches = x[base[start : start + rows, None] + off]  # (M, K)
        counts = sum(np.bitwise_count(patches[:, k, None] ^ columns[k]).astype(np.int64) for k in range(terms))
        expected = alpha * (total[kind[start : start + rows]] - 2 * counts).astype(dtype)
        out = guarded(start, rows, tiles * width, base, dtype)
        arrays = [unaligned(array) for array in (x, base, off, w, total, kind, alpha)]
        kernel(start, start + rows, *arrays, out)
        check_rows(out, start, rows, expected, f"{rows} rows from {start}, {terms} words, {tiles} tiles")


def float_cases(values):
    """(case, start, rows, terms, arrays, patches, w) with numbers made by ``values(rng, shape)``."""
    lengths = (1, 4, simd.CHUNK - 1, simd.CHUNK, simd.CHUNK + 1, 2 * simd.CHUNK + 5, 1030)
    small = [(rows, 5 * (rows % 2), terms) for rows, terms in itertools.product(ROWS[:-1], lengths)]
    large = [(ROWS[-1], 24, 3), (ROWS[-1], 0, simd.CHUNK + 1)]
    for seed, (rows, start, terms) in enumerate([*small, *large] if JIT else [(1, 0, 1), (3, 5, 515)]):
        rng = np.random.default_rng(seed)
        base, off = tables(rng, start, rows, terms)
        x = values(rng, 50 + 3 * terms).astype(np.float32)
        patches = x[base[start : start + rows, None] + off].astype(np.float64)  # (M, K)
        yield rng, f"{rows} rows from {start}, {terms} products", start, rows, terms, (x, base, off), patches


@pytest.mark.parametrize("tiles", [1, 2])
@pytest.mark.parametrize(("kernel", "width"), **by_name(FLOAT))
def test_float_product_of_whole_numbers_is_exact_and_stays_in_its_rows(kernel, width, tiles):
    """Sums of whole numbers below 2^24 are not rounded, in whatever order and grouping they are added."""

    def values(rng, shape):
        return rng.integers(-9, 10, shape)

    for rng, case, start, rows, terms, arrays, patches in float_cases(values):
        w = values(rng, (terms, tiles * width)).astype(np.float32)
        out = guarded(start, rows, tiles * width, arrays[1], np.float32)
        kernel(start, start + rows, *(unaligned(array) for array in (*arrays, w)), out, True)
        check_rows(out, start, rows, patches @ w.astype(np.float64), case)


@pytest.mark.parametrize(("kernel", "width"), **by_name(FLOAT))
def test_float_product_is_within_the_rounding_of_a_sum(kernel, width):
    """A sum of K products in float32 is off by at most about K 2^-24 times the sum of their sizes, in any order."""

    def values(rng, shape):
        return rng.standard_normal(shape)

    for rng, case, start, rows, terms, arrays, patches in float_cases(values):
        w = values(rng, (terms, width)).astype(np.float32)
        out = guarded(start, rows, width, arrays[1], np.float32)
        kernel(start, start + rows, *arrays, w, out, True)
        difference = np.abs(out[start : start + rows] - patches @ w.astype(np.float64))
        bound = (terms + 4) * 2.0**-24 * (np.abs(patches) @ np.abs(w))  # 4: a product, a chunk more
        assert np.all(difference <= bound), f"{case}: {(difference / bound).max():.3g} times the bound"


# ------------------------------------------------------------------------------------------- the choice of a block


def test_blocks_fit_the_rows_that_threads_share_and_the_spare_rows():
    for shapes in simd.BLOCKS.values():
        for rows, _ in shapes:
            assert engine.ROWS % rows == 0, "a block would write into the rows of another thread"
            assert simd.CHUNK % rows == 0 and rows - 1 <= kernels.SPARE
    assert simd.CHUNK == kernels.CHUNK and simd.CHUNK % engine.ROWS == 0 and engine.ROWS % 4 == 0  # the plain kernels


def test_lanes_divide_the_tiles_that_they_serve():
    assert kernels.TILE_WIDTHS == (64, 32)
    for shapes in simd.BLOCKS.values():
        assert [width % lanes for width, (_, lanes) in zip((64, 32, 64, 32), shapes, strict=True)] == [0] * 4


@pytest.mark.parametrize(("bits", "registers"), [(512, 32), (256, 16), (128, 32)])
def test_every_block_fits_into_the_registers_with_what_it_is_multiplied_by(bits, registers):
    for (rows, lanes), item in zip(simd.BLOCKS[bits], (64, 64, 32, 32), strict=True):
        weights = lanes * item // bits  # registers of one row
        assert lanes * item % bits == 0
        assert rows * weights + weights + 1 <= registers


@pytest.mark.parametrize("bits", [512, 256, 128, 0])
def test_the_block_is_chosen_by_the_registers_of_the_processor(bits, monkeypatch):
    monkeypatch.setattr(simd, "register_bits", lambda: bits)
    monkeypatch.setattr(simd, "_make_xnor_gather", lambda *shape: ("xnor", shape))
    monkeypatch.setattr(simd, "_make_float_gather", lambda *shape: ("float", shape))
    shapes = simd.BLOCKS[bits or 128]  # somebody insists on vectors without having any
    made = [make(width) for make in (simd.xnor_gather, simd.float_gather) for width in (64, 32)]
    assert made == list(zip(("xnor", "xnor", "float", "float"), shapes, strict=True))


class Processor:
    """Stands in for Numba's description of the processor that it compiles for."""

    def __init__(self, *triple_name_features):
        self.magic_tuple = lambda: triple_name_features
        self.codegen = lambda: self
        self.target_context = self


@pytest.mark.parametrize(
    ("triple", "name", "features", "bits"),
    [
        ("x86_64-unknown-linux-gnu", "x86-64", "+avx512f,+avx512vpopcntdq", 512),  # older compilers know no znver4
        ("x86_64-unknown-linux-gnu", "skylake-avx512", "-avx512f,-avx512bw,-avx512dq,-avx512vl,-evex512", 256),
        ("x86_64-unknown-linux-gnu", "haswell", "", 256),
        ("x86_64-unknown-linux-gnu", "nehalem", "", 0),
        ("x86_64-unknown-linux-gnu", "generic", "", 0),
        ("aarch64-unknown-linux-gnu", "generic", "+neon", 128),
        ("arm64-apple-darwin", "apple-m1", "", 128),
    ],
)
def test_register_bits_of_processors_that_are_not_here(triple, name, features, bits, monkeypatch):
    try:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        llvm.Target.from_triple(triple)
    except RuntimeError:
        pytest.skip(f"this llvmlite cannot compile for {triple}")
    monkeypatch.setattr(simd, "cpu_target", Processor(triple, name, features))
    assert simd.register_bits.__wrapped__() == bits


# ------------------------------------------------------------------------------------------- other processors

AVX2 = "avx2 fma popcnt bmi bmi2 lzcnt movbe"
AVX512 = "avx512f avx512bw avx512dq avx512vl avx512cd"
OTHERS = {  # NUMBA_CPU_NAME: NUMBA_CPU_FEATURES, register bits, what this machine must have to run it
    "generic": ("", 0, ""),
    "haswell": ("+avx2,+fma,+popcnt", 256, AVX2),
    "skylake-avx512": ("+avx512f,+avx512bw,+avx512dq,+avx512vl,+avx2,+fma,+popcnt", 512, f"{AVX2} {AVX512}"),
}
BLOCK_TESTS = [
    "tests/test_simd.py::test_packed_product_is_exact_and_stays_in_its_rows",
    "tests/test_simd.py::test_float_product_of_whole_numbers_is_exact_and_stays_in_its_rows",
    "tests/test_simd.py::test_float_product_is_within_the_rounding_of_a_sum",
    "tests/test_conv.py::test_any_number_of_filters_counts_exactly",
]
GRIDS = [
    "tests/test_conv.py::test_packed_convolution_counts_exactly",
    "tests/test_conv.py::test_plain_and_vector_kernels_give_the_same_bits_with_alpha_too",
    "tests/test_conv.py::test_real_convolution_of_whole_numbers_is_exact",
    "tests/test_bits.py::test_xnor_matmul_is_exact",
]
RUN = """
import sys, pytest
from hbn_ref import engine, simd
print(f"{simd.register_bits()} bits, {engine.get_kernel()} kernels", flush=True)
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[1:]]))
"""


def missing(name):
    """What this machine lacks to run code for the processor."""
    here = llvm.get_host_cpu_features()
    return [feature for feature in OTHERS[name][2].split() if not here.get(feature)]


@pytest.fixture(scope="module")
def runs():
    """{processor: (process, file with what it prints)}, all started at once: they mostly compile, on one core each."""
    env = {key: value for key, value in os.environ.items() if key not in ("HBN_KERNEL", "PYTEST_ADDOPTS")}
    started = {}
    try:
        for name, (features, bits, _) in OTHERS.items():
            if not missing(name):
                new = {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features, "PYTHONPATH": str(ROOT)}
                file = tempfile.TemporaryFile("w+")  # a pipe that nobody reads yet would fill up
                tests = BLOCK_TESTS + GRIDS if bits < 512 else BLOCK_TESTS  # two processors take the large grids
                command = [sys.executable, "-c", RUN, *tests]
                process = subprocess.Popen(command, cwd=ROOT, env=env | new, stdout=file, stderr=subprocess.STDOUT)
                started[name] = process, file
        yield started
    finally:
        for process, file in started.values():
            process.kill()
            process.wait()
            file.close()


@pytest.mark.skipif(not JIT, reason="without the JIT nothing is compiled for any processor")
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the processors are all x86-64")
@pytest.mark.parametrize("name", OTHERS)
def test_both_kernels_are_exact_on_other_processors(name, runs):
    if name not in runs:
        pytest.skip(f"this machine has no {', '.join(missing(name))}")
    process, file = runs[name]
    status = process.wait(timeout=600)
    file.seek(0)
    printed, bits = file.read(), OTHERS[name][1]
    assert status == 0, printed[-6000:]
    assert printed.startswith(f"{bits} bits, {'vector' if bits else 'plain'} kernels\n"), printed[:200]
    assert " passed" in printed and " skipped" not in printed
