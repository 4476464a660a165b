"""Engine room, the limit: loops that do the work and nothing else, and so tell what this processor could do at most.

A block of sums stays in registers (`simd`), inputs and weights stay in the first-level cache; nothing is packed, scaled
or stored. There are several ways to count and several shapes of block; the fastest loop is the limit. Carry-save adders
are left out: for 4 vectors of 256 bits they take 26 instructions of AVX2 (4 to XOR, 15 to add, 7 to count), and
look-ups take 16.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba import njit

from . import simd

STEPS, REPEATS = 64, 2_000  # of one sum (4 to 8 KB of weights); sums per call
KINDS = ("binary", "real")
Shapes = dict[str, Sequence[tuple[int, int]]]


def product_loop(rows: int, lanes: int) -> Callable[..., None]:
    """Return a loop that adds products to rows x lanes sums: ``x w`` for floats, ``popcount(x XOR w)`` for words."""

    @njit(nogil=True, error_model="numpy")
    def loop(repeats, x, base, off, w, out):
        sums = simd.zeros(rows, lanes, w)
        for _ in range(repeats):
            at = 0
            for k in range(off.size):
                sums = simd.add_products(sums, x, base, 0, off, k, w, at)
                at += lanes
        simd.store(sums, out, 0, lanes)

    return loop


def byte_loop(rows: int, lanes: int, width: int) -> Callable[..., None]:
    """Return a loop that counts bits in bytes; with look-ups (``width`` above 0) each weight takes 2 bytes."""
    step = 2 * lanes if width else lanes

    @njit(nogil=True, error_model="numpy")
    def loop(repeats, x, base, off, w, out):
        sums = simd.zeros(rows, lanes, w)
        for _ in range(repeats):
            at = 0
            for byte in range(off.size):
                sums = simd.add_counts(sums, x, base, 0, off, 0, byte, w, at, width)
                at += step
        simd.store(sums, out, 0, lanes)

    return loop


def _call(loop, rows, columns, kind, dtype):
    """A function without arguments that runs a loop over random inputs and ``columns`` weights per step."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2**63, (STEPS + 1) * rows).astype(np.uint64)
    x = rng.random(x.size, np.float32) if kind == "real" else x
    w = rng.integers(0, 16, STEPS * columns + 64).astype(dtype)  # 16: any weights for words, half bytes for look-ups
    first = -w.ctypes.data % 64 // w.itemsize  # a vector loads faster if it begins where a cache line does
    args = x, np.arange(rows) * (STEPS + 1), np.arange(STEPS), w[first : first + STEPS * columns]
    out = np.zeros(rows * columns, dtype)
    return lambda: loop(REPEATS, *args, out)


def few() -> Shapes:
    """Return a few shapes (rows, lanes); on the processors at hand the best was among them."""
    if simd.register_bits() == 512:
        return {"words": ((4, 16), (8, 8), (8, 16)), "bytes": (), "real": ((4, 32), (8, 16), (8, 32))}
    return {"words": ((4, 1), (4, 4), (4, 8)), "bytes": ((4, 32), (4, 64), (6, 64)), "real": ((4, 8), (4, 16), (6, 16))}


def loops(kind: str, shapes: Shapes | None = None) -> dict[str, tuple[Callable[[], Any], int]]:
    """Return {name: (call, multiply-accumulates per call)} of the loops that may be the limit.

    Parameters
    ----------
    kind : {"binary", "real"}
    shapes : {"words", "bytes", "real": pairs (rows, lanes)}; by default `few`

    Raises
    ------
    ValueError
        There is no such kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    shapes, found, way = few() if shapes is None else shapes, {}, simd.counting()
    name, dtype, each = ("words", np.uint64, 64) if kind == "binary" else ("real", np.float32, 1)
    for rows, lanes in shapes[name]:
        call = _call(product_loop(rows, lanes), rows, lanes, kind, dtype)
        found[f"{name}, {rows} x {lanes}"] = call, REPEATS * STEPS * rows * lanes * each
    for rows, lanes in shapes["bytes"] if kind == "binary" and way != "words" else ():
        width = min(max(simd.register_bits(), 128) // 8, lanes) if way == "lookup" else 0
        call = _call(byte_loop(rows, lanes, width), rows, 2 * lanes if width else lanes, kind, np.uint8)
        found[f"{way}, {rows} x {lanes}"] = call, REPEATS * STEPS * rows * lanes * 8
    return found
