"""Table 1: what this processor could do at most, and how much of it each kernel does.

The limit is a loop of nothing but the work, on a block of sums in registers, inputs and weights in the first-level
cache, nothing stored. There are several ways to count (`hbn_ref.simd`) and several shapes of block; the best counts: a
loop that does less is not the limit. Left out are carry-save adders, which take 26 instructions of AVX2 for 4 vectors
of 256 bits (4 to XOR, 15 to add, 7 to count), where look-ups take 16.

The processor changes its speed while it is measured, so the best loop takes its turn in each round of each layer, and
a kernel's share is of the limit in those rounds.
"""

import numpy as np
from numba import njit

from hbn_ref import conv, engine, simd

from . import shapes
from .clock import geometric_mean, kernel_seconds, medians, repeated

STEPS, REPEATS = 64, 2_000  # of one sum (4 to 8 KB of weights); sums a call
MOST = 1.05  # a share above this means that the loop was no limit


def _word_loop(rows, lanes):
    @njit(nogil=True, error_model="numpy")
    def loop(repeats, x, base, off, w, out):
        counts = simd.zeros(rows, lanes, x)
        for _ in range(repeats):
            at = 0
            for k in range(off.size):
                counts = simd.add_products(counts, x, base, 0, off, k, w, at)
                at += lanes
        simd.store(counts, out, 0, lanes)

    return loop


def _byte_loop(rows, lanes, width):
    step = 2 * lanes if width else lanes

    @njit(nogil=True, error_model="numpy")
    def loop(repeats, x, base, off, w, out):
        counts = simd.zeros(rows, lanes, w)
        for _ in range(repeats):
            at = 0
            for byte in range(off.size):
                counts = simd.add_counts(counts, x, base, 0, off, 0, byte, w, at, width)
                at += step
        simd.store(counts, out, 0, lanes)

    return loop


def _call(loop, rows, columns, dtype):
    """A function without arguments that runs a loop over random inputs and ``columns`` weights a step."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2**63, (STEPS + 1) * rows).astype(np.uint64)
    w = rng.integers(0, 16, STEPS * columns + 64).astype(dtype)  # 16: any weights for words, half bytes for look-ups
    first = -w.ctypes.data % 64 // w.itemsize  # a vector that begins where a cache line does loads faster
    args = x, np.arange(rows) * (STEPS + 1), np.arange(STEPS), w[first : first + STEPS * columns]
    out = np.zeros(rows * columns, dtype)
    return lambda: loop(REPEATS, *args, out)


def loops():
    """Return {name: (call, binary multiply-accumulates a call)} for the blocks that may fit this processor."""
    bits, found = max(simd.register_bits(), 128), {}
    registers = 16 if bits == 256 else 32
    for rows in (2, 3, 4, 5, 6, 8):
        for lanes in (1, 8, 16, 32, 64):
            if (lanes == 1 and rows == 8) or registers // 4 <= rows * lanes * 64 // bits <= 3 * registers // 4:
                call = _call(_word_loop(rows, lanes), rows, lanes, np.uint64)
                found[f"words, {rows} x {lanes}"] = call, REPEATS * STEPS * rows * lanes * 64
        for lanes in (32, 64) if simd.counting() != "words" else ():
            width = min(bits // 8, lanes) if simd.counting() == "lookup" else 0
            if registers // 4 <= rows * lanes * 8 // bits <= 3 * registers // 4:
                call = _call(_byte_loop(rows, lanes, width), rows, 2 * lanes if width else lanes, np.uint8)
                found[f"{simd.counting()}, {rows} x {lanes}"] = call, REPEATS * STEPS * rows * lanes * 8
    return found


def _product_alone(shape, batch, kernel):
    """A function (n) that runs a packed convolution n times and returns the seconds of its product alone."""
    x, w = shapes.tensors(shape, batch)
    packed = conv.pack_weights(w)

    def timed(n):
        with engine.kernel(kernel), kernel_seconds() as seen:
            for _ in range(n):
                conv.xnor_conv2d_forward(x, packed, padding=shape.padding, need_cache=False)
        return seen["xnor_gather"]

    return timed


def measure(rounds):
    """Table 1 as plain numbers."""
    found = loops()
    seconds = medians({name: repeated(call) for name, (call, _) in found.items()}, rounds)
    blocks = {name: macs / seconds[name] for name, (_, macs) in found.items()}
    best = max(blocks, key=blocks.get)
    call, macs = found[best]
    rows = []
    for batch in shapes.BATCHES:
        for shape in shapes.SHAPES:
            contenders = {kernel: _product_alone(shape, batch, kernel) for kernel in engine.KERNELS}
            seconds = medians({**contenders, "limit": repeated(call)}, rounds)
            limit = macs / seconds.pop("limit")
            rate = {kernel: shape.macs * batch / value for kernel, value in seconds.items()}
            share = {kernel: value / limit for kernel, value in rate.items()}
            rows.append({"layer": shape.name, "batch": batch, "rate": rate, "limit": limit, "share": share})
    wide = [row for row in rows if shapes.named(row["layer"]).is_wide]
    return {
        "limit": float(np.median([row["limit"] for row in rows])), "block": best, "blocks": blocks, "rows": rows,
        "share": {kernel: geometric_mean(row["share"][kernel] for row in wide) for kernel in engine.KERNELS},
    }  # fmt: skip


def lines(table):
    """Table 1 as (title, rows, remarks)."""
    rows = [
        {
            "layer": row["layer"], "batch": row["batch"],
            **{f"{kernel}, T/s": f"{row['rate'][kernel] / 1e12:.2f}" for kernel in row["rate"]},
            "limit, T/s": f"{row.get('limit', table['limit']) / 1e12:.2f}",
            **{f"{kernel}, % of limit": f"{100 * row['share'][kernel]:.0f}" for kernel in row["share"]},
        }
        for row in table["rows"]
    ]  # fmt: skip
    title = f"1. The limit: {table['limit'] / 1e12:.2f} T binary multiply-accumulates a second, one thread"
    share = ", ".join(f"{kernel} {100 * value:.0f} %" for kernel, value in table["share"].items())
    remarks = [
        f"the best loop: {table['block']}", f"geometric mean over layers of 128 channels and more: {share}",
        *(f"NO LIMIT: {row['layer']}, batch {row['batch']} does more" for row in exceeded(table)),
    ]  # fmt: skip
    return title, rows, remarks


def exceeded(table):
    """The rows in which a kernel does more than the limit."""
    return [row for row in table["rows"] if max(row["share"].values()) > MOST]
