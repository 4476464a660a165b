"""The engine room's vector kernels: every block shape against NumPy, the choice of a block, other processors."""

import itertools
import os
import platform
import re
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import pytest
from conftest import JIT, thin
from numba import types
from numba.core.caching import NullCache

from hbn_ref import engine, kernels, simd

ROOT = Path(__file__).parents[1]
X86, ARM = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"
ROWS = (1, 2, 3, 7, 23, 24, 25, 481)  # not only whole blocks; the last are more than a chunk
GUARD = -77  # what the rows before and after those of a kernel must still hold

# (name, kernel, tile width). LLVM compiles a block of any shape for any processor: all of them are tested on this one.
WIDTHS = kernels.TILE_WIDTHS
XNOR = [("plain", kernels.xnor_gather[width], width) for width in WIDTHS]
FLOAT = [("plain", kernels.float_gather[width], width) for width in WIDTHS]
if JIT:
    for rows, lanes in simd.COUNTS["words"]:
        XNOR.append((f"words, block {rows} x {lanes}", simd._make_word_gather(rows, lanes), lanes))
    for rows, lanes in simd.COUNTS["bytes"]:
        XNOR.append((f"bytes, block {rows} x {lanes}", simd._make_byte_gather(rows, lanes, 0), lanes))
    for rows, lanes in simd.COUNTS["lookup"]:  # but for x86's look-ups of 32 and of 64 bytes
        for shuffle in (32, 64):
            if shuffle <= min(lanes, simd.register_bits() // 8):
                kernel = simd._make_byte_gather(rows, lanes, shuffle)
                XNOR.append((f"look-ups of {shuffle}, block {rows} x {lanes}", kernel, lanes))
    XNOR += [(name, kernel, 64) for name, kernel, lanes in XNOR[2:] if lanes == 32]  # two blocks a tile
    for shape in sorted({shape for shapes in simd.FLOATS.values() for shape in shapes}):
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


@pytest.mark.skipif(not JIT, reason="plain Python takes too long for so many words")
@pytest.mark.parametrize(("kernel", "width"), **by_name(XNOR))
def test_no_number_of_words_is_too_many_to_count(kernel, width):
    """Every bit differs: 24 bytes of ones, and 1020 words, are as many as bytes and 16 bits are trusted with."""
    for terms in (2, 3, 4, simd.MANY - 1, simd.MANY, simd.MANY + 1, 2 * simd.MANY, 2 * simd.MANY + 2):
        x, w = np.full(terms, 2**64 - 1, np.uint64), np.zeros((2, terms, width), np.uint64)
        w[1, :, ::3] = 2**64 - 1
        base, off = np.zeros(5 + kernels.SPARE, np.int64), np.arange(terms)
        one, total = np.ones(2 * width, np.int32), np.zeros((1, 2 * width), np.int32)
        out = np.zeros((len(base), 2 * width), np.int32)
        kernel(0, 5, x, base, off, w, total, base, one, out)
        expected = np.full(2 * width, -2 * 64 * terms)
        expected[width::3] = 0
        assert np.array_equal(out[:5], np.tile(expected, (5, 1))), terms


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
    for rows, _ in (shape for shapes in (*simd.COUNTS.values(), *simd.FLOATS.values()) for shape in shapes):
        assert engine.ROWS % rows == 0, "a block would write into the rows of another thread"
        assert simd.CHUNK % rows == 0 and rows - 1 <= kernels.SPARE
    assert simd.CHUNK == kernels.CHUNK and simd.CHUNK % engine.ROWS == 0 and engine.ROWS % 4 == 0  # the plain kernels


def test_lanes_divide_the_tiles_that_they_serve():
    assert kernels.TILE_WIDTHS == (64, 32)
    for shapes in (*simd.COUNTS.values(), *simd.FLOATS.values()):
        assert [width % lanes for width, (_, lanes) in zip((64, 32), shapes, strict=True)] == [0, 0]


def test_sums_of_bytes_and_of_16_bits_hold_what_they_are_given():
    assert simd.FEW * 8 * 8 < 2**8 and simd.MANY * 64 < 2**16 and simd.MANY % simd.FEW == 0


@pytest.mark.parametrize(("bits", "registers"), [(512, 32), (256, 16), (128, 32)])
def test_every_block_fits_into_the_registers_with_what_it_is_multiplied_by(bits, registers):
    blocks = [(*shape, 32) for shape in simd.FLOATS[bits]]
    blocks += [
        (*shape, 64 if bits == 512 else 8) for shape in simd.COUNTS[{512: "words", 256: "lookup"}.get(bits, "bytes")]
    ]
    for rows, lanes, item in blocks:
        weights = lanes * item // bits  # registers of one row
        assert lanes * item % bits == 0
        assert rows * weights + weights + 1 <= registers


@pytest.mark.parametrize("bits", [512, 256, 128, 0])
@pytest.mark.parametrize("way", simd.COUNTS)
def test_the_block_is_chosen_by_the_registers_of_the_processor(way, bits, monkeypatch):
    monkeypatch.setattr(simd, "register_bits", lambda: bits)
    monkeypatch.setattr(simd, "counting", lambda: way)
    for name in ("word", "byte", "float"):
        monkeypatch.setattr(simd, f"_make_{name}_gather", lambda *shape, name=name: (name, *shape))
    shuffles = {"words": [()] * 2, "lookup": [(min(bits // 8, lanes),) for lanes in (64, 32)], "bytes": [(0,)] * 2}
    name = "word" if way == "words" else "byte"
    expected = [(name, *shape, *shuffle) for shape, shuffle in zip(simd.COUNTS[way], shuffles[way], strict=True)]
    assert [simd.xnor_gather(width) for width in (64, 32)] == expected
    shapes = simd.FLOATS[bits or 128]  # somebody insists on vectors without having any
    assert [simd.float_gather(width) for width in (64, 32)] == [("float", *shape) for shape in shapes]


class Processor:
    """Stands in for Numba's description of the processor that it compiles for."""

    def __init__(self, *triple_name_features):
        self.magic_tuple = lambda: triple_name_features
        self.codegen = lambda: self
        self.target_context = self


@pytest.mark.parametrize(
    ("triple", "name", "features", "bits", "way"),
    [
        (X86, "x86-64", "+avx512f,+avx512vpopcntdq", 512, "words"),  # older compilers know no znver4
        (X86, "skylake-avx512", "", 512, "lookup"),
        (X86, "skylake-avx512", "-avx512f,-avx512bw,-avx512dq,-avx512vl,-evex512", 256, "lookup"),
        (X86, "haswell", "", 256, "lookup"),
        (X86, "sandybridge", "", 256, "bytes"),  # floats in 256 bits, no whole numbers
        (X86, "nehalem", "", 0, "bytes"),
        (X86, "generic", "", 0, "bytes"),
        (ARM, "generic", "+neon", 128, "bytes"),
        ("arm64-apple-darwin", "apple-m1", "", 128, "bytes"),
    ],
)
def test_registers_and_counting_of_processors_that_are_not_here(triple, name, features, bits, way, monkeypatch):
    try:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        llvm.Target.from_triple(triple)
    except RuntimeError:
        pytest.skip(f"this llvmlite cannot compile for {triple}")
    monkeypatch.setattr(simd, "cpu_target", Processor(triple, name, features))
    monkeypatch.setattr(simd, "_processor", simd._processor.__wrapped__)
    assert (simd.register_bits(), simd.counting()) == (bits, way)


# ------------------------------------------------------------------------------------------- the inner loops

WORDS, TABLE, FLOAT32 = types.uint64[::1], types.int64[::1], types.float32[::1]
ARGUMENTS = {
    "xnor": (types.int64, types.int64, WORDS, TABLE, TABLE, types.uint64[:, :, ::1], types.float32[:, ::1], TABLE,
             FLOAT32, types.float32[:, ::1]),
    "float": (types.int64, types.int64, FLOAT32, TABLE, TABLE, types.float32[:, ::1], types.float32[:, ::1],
              types.boolean),
}  # fmt: skip
# (which, block, triple, processor): what the work of a step is made of, and how much else there may be: reading the
# inputs and the weights, counting the steps.
LOOPS = [
    ("xnor", (4, 64, 0), ARM, "neoverse-n1", {"eor": 16, "cnt": 16, "add\tv": 16}, 18),  # 16 x 128 bits
    ("xnor", (4, 64, 0), ARM, "apple-m1", {"eor": 16, "cnt": 16, "add\tv": 16}, 18),
    ("float", (6, 16), ARM, "neoverse-n1", {"fmla": 24}, 20),
    ("xnor", (4, 64, 32), X86, "haswell", {"vpshufb": 16, "vpaddb": 16}, 28),
    ("float", (6, 16), X86, "haswell", {"vfmadd": 12}, 20 + (llvm.llvm_version_info < (15,))),  # LLVM 14 takes one more
]


@lru_cache(maxsize=8)
def compiled(which, block):
    """LLVM's code of a kernel, compiled anew: what was kept of another time has none."""
    kernel = {"xnor": simd._make_byte_gather, "float": simd._make_float_gather}[which](*block)
    kernel._cache = NullCache()
    kernel.compile(ARGUMENTS[which])
    return next(iter(kernel.inspect_llvm().values()))


def translated(code, triple, name):
    """The instructions of a processor, also of one that is not here."""
    try:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        machine = llvm.Target.from_triple(triple).create_target_machine(cpu=name, opt=3)
    except RuntimeError:
        pytest.skip(f"this llvmlite cannot compile for {triple}")
    code = re.sub("(target datalayout = ).*", rf'\1"{machine.target_data}"', code)
    code = re.sub("(target triple = ).*", rf'\1"{triple}"', code)
    code = code.replace("llvm.x86.atomic", "x86.atomic")  # counts the references to an array; any function does
    return machine.emit_assembly(llvm.parse_assembly(code))


def innermost_loop(text, word):
    """The instructions of the shortest loop with a certain word."""
    lines, labels, loops = text.splitlines(), {}, []
    for at, line in enumerate(lines):
        if label := re.match(r"(\.?L\w+):", line):
            labels[label[1]] = at
        if (jump := re.match(r"\s+(?:j|b|cb|tb)\S*\s.*?(\.?L\w+)$", line)) and jump[1] in labels:
            loops.append([line for line in lines[labels[jump[1]] : at + 1] if re.match(r"\s+[a-z]", line)])
    return min((loop for loop in loops if any(word in line for line in loop)), key=len)


@pytest.mark.skipif(not JIT, reason="without the JIT nothing is compiled")
@pytest.mark.parametrize(("which", "block", "triple", "processor", "work", "rest"), LOOPS)
def test_inner_loops_do_their_work_and_little_else(which, block, triple, processor, work, rest):
    if platform.machine() not in ("x86_64", "AMD64") and triple == X86:
        pytest.skip("translated from x86 only")
    if block[2:] == (32,) and simd.register_bits() < 256:
        pytest.skip("only a compiler for AVX2 can be asked for its look-ups")
    loop = innermost_loop(translated(compiled(which, block), triple, processor), next(iter(work)))
    text, found = "\n".join(loop), {word: sum(word in line for line in loop) for word in work}
    steps = min(found.values()) // min(work.values())  # older compilers take two steps of floats at once
    assert steps >= 1 and found == {word: steps * count for word, count in work.items()}, text
    assert len(loop) <= steps * (sum(work.values()) + rest), text
    assert not re.search(r"csel|cmov|\bmov\s+v|vmovdqa|vmovaps", text), f"tests or moves:\n{text}"
    assert not re.search(r"\bv\w+\s.*\(%rsp|\b(st|ld)[rp]\s+q.*\[sp", text), f"a sum that is not in a register:\n{text}"


# ------------------------------------------------------------------------------------------- other processors

AVX2 = "avx2 fma popcnt bmi bmi2 lzcnt movbe"
AVX512 = "avx512f avx512bw avx512dq avx512vl avx512cd"
OTHERS = {  # NUMBA_CPU_NAME: NUMBA_CPU_FEATURES, register bits, what this machine must have to run it
    "generic": ("", 0, ""),
    "haswell": ("+avx2,+fma,+popcnt", 256, AVX2),
    "skylake-avx512": ("+avx512f,+avx512bw,+avx512dq,+avx512vl,+avx2,+fma,+popcnt", 512, f"{AVX2} {AVX512}"),
}
REPEATED = ("generic", "haswell")  # `make test-cpus` runs all of the kernels' tests for these
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
def runs(request):
    """{processor: (process, file with what it prints)}, all started at once: they mostly compile, on one core each."""
    callspecs = [getattr(item, "callspec", None) for item in request.session.items if "other_processors" in item.name]
    wanted = {spec.params["name"] for spec in callspecs if spec and "name" in spec.params}
    env = {key: value for key, value in os.environ.items() if key not in ("HBN_KERNEL", "PYTEST_ADDOPTS")}
    started = {}
    try:
        for name, (features, bits, _) in OTHERS.items():
            if name in wanted and not missing(name):
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
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in REPEATED else ()) for n in OTHERS])
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
