"""The benchmarks' own rules: a limit that is one, a report for each kind of processor, contenders held back alike."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import JIT

from benchmarks import limit, processors, threads
from hbn_ref import limits, simd

RESULTS = Path(__file__).parents[1] / "results" / "benchmarks"
REPORTS = sorted(RESULTS.glob("bench-*.json"))


def test_there_is_a_report_for_processors_with_and_without_avx_512():
    assert {report.stem for report in REPORTS} >= {"bench-avx2", "bench-avx512"}


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: path.stem)
def test_a_report_is_named_by_its_processor_and_no_kernel_exceeded_its_limit(path):
    report = json.loads(path.read_text())
    assert path.stem == f"bench-{processors.KINDS[report['machine']['register_bits']]}"
    assert limit.exceeded(report["limit"]) == []
    assert len(report["limit"]["rows"]) == len(report["convolutions"]["rows"]) == 16


def test_a_kernel_that_does_more_than_the_limit_is_noticed():
    rows = [{"layer": name, "batch": 1, "share": {"plain": 0.5, "vector": share}} for name, share in
            (("a", 0.9), ("b", 1.04), ("c", 1.06))]  # fmt: skip
    assert limit.exceeded({"rows": rows}) == rows[2:]


@pytest.mark.skipif(not JIT, reason="the loops are compiled")
@pytest.mark.parametrize("way", simd.COUNTS)
def test_the_loops_of_the_limit_count_what_they_say(way):
    """A loop that leaves work out would be a limit that nothing can reach."""
    if way == "lookup" and simd.register_bits() < 256:
        pytest.skip("this processor has no look-ups of 32 bytes")
    rng, rows, steps = np.random.default_rng(0), 2, 16
    x, base, out = rng.integers(0, 2**64, 40, np.uint64), np.array([3, 20]), np.zeros(rows * 32, np.uint8)
    pieces = x[base[0] : base[0] + steps], x[base[1] : base[1] + steps]
    if way == "words":
        w, out = rng.integers(0, 2**64, steps * 32, np.uint64), out.astype(np.uint64)
        limits.product_loop(rows, 32)(1, x, base, np.arange(steps), w, out)
        differ = [piece[:, None] ^ w.reshape(steps, 32) for piece in pieces]
    else:
        halves = 2 if way == "lookup" else 1
        w = rng.integers(0, 16 if halves == 2 else 256, steps * halves * 32).astype(np.uint8)
        limits.byte_loop(rows, 32, 32 * (halves - 1))(1, x, base, np.arange(steps), w, out)
        bytes_of_w = w.reshape(steps, halves, 32)
        bytes_of_w = bytes_of_w[:, 0] | (bytes_of_w[:, 1] << 4 if halves == 2 else 0)
        differ = [piece.view(np.uint8)[:steps, None] ^ bytes_of_w for piece in pieces]
    assert np.array_equal(out.reshape(rows, 32), [np.bitwise_count(d).sum(axis=0) for d in differ])


@pytest.mark.skipif(not JIT, reason="the loops are compiled")
def test_the_loop_of_floats_adds_products():
    rng, rows, lanes, steps = np.random.default_rng(0), 2, 16, 9
    x, w = rng.random(20, np.float32), rng.random((steps, lanes), np.float32)
    out = np.zeros(rows * lanes, np.float32)
    limits.product_loop(rows, lanes)(3, x, np.array([1, 11]), np.arange(steps), w.ravel(), out)
    expected = [3 * x[first : first + steps] @ w for first in (1, 11)]
    assert np.allclose(out.reshape(rows, lanes), expected, rtol=1e-5)


@pytest.mark.parametrize("way", simd.COUNTS)
def test_a_loop_says_how_many_products_it_adds(monkeypatch, way):
    monkeypatch.setattr(simd, "counting", lambda: way)
    sizes = {"words": [(4, 2)], "bytes": [(3, 32)], "real": [(2, 8)]}
    each = {"words, 4 x 2": 4 * 2 * 64} | ({} if way == "words" else {f"{way}, 3 x 32": 3 * 32 * 8})
    for kind, products in (("binary", each), ("real", {"real, 2 x 8": 2 * 8})):
        found = {name: macs for name, (_, macs) in limits.loops(kind, sizes).items()}
        assert found == {name: limits.REPEATS * limits.STEPS * macs for name, macs in products.items()}
    assert limits.few().keys() == sizes.keys()


def test_a_limit_of_another_kind_is_an_error():
    with pytest.raises(ValueError, match="kind: expected one of binary, real, got 'bits'"):
        limits.loops("bits")


def test_held_back_the_program_starts_again_with_settings_for_everyone(monkeypatch):
    calls = []

    def run(command, env):
        calls.append((command, env))
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.delenv(processors.MARK, raising=False)
    assert processors.restarted(None, []) is None and not calls
    assert processors.restarted("avx2", ["--cpu", "avx2", "--rounds", "3"]) == 3
    command, environment = calls[0]
    assert command[1:] == ["-m", "benchmarks", "--cpu", "avx2", "--rounds", "3"]
    assert {"NUMBA_CPU_NAME", "OPENBLAS_CORETYPE", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA"} <= environment.keys()
    monkeypatch.setenv(processors.MARK, environment[processors.MARK])
    assert processors.restarted("avx2", []) is None and processors.held_back() == "avx2"


def test_a_peer_that_does_not_hold_back_is_left_out(monkeypatch):
    monkeypatch.delenv(processors.MARK, raising=False)
    assert processors.obeys("jit_avx512_u1")
    monkeypatch.setenv(processors.MARK, "avx2")
    assert not processors.obeys("jit_avx512_u1") and not processors.obeys("AVX512")
    assert processors.obeys("jit_avx2_u1") and processors.obeys("AVX2")


def test_two_threads_are_not_measured_on_one_core(monkeypatch):
    monkeypatch.setattr(threads, "cores", lambda: 1)
    title, rows, remarks = threads.lines(threads.measure(1))
    assert rows == [] and remarks == ["left out: 1 core for this process"]
