"""Table 1: what this processor could do at most, and how much of it each kernel does.

The limit is a loop of nothing but the work: XOR, count, add, on a block of sums in registers, inputs and weights in
the first-level cache, nothing stored. Of several shapes of block the best counts: a loop that does less is not the
limit.
"""

import numpy as np
from numba import njit

from hbn_ref import conv, engine, simd

from . import shapes
from .clock import geometric_mean, kernel_seconds, medians, repeated

TERMS, REPEATS = 32, 4_000  # words of one sum (4 to 8 KB of weights); sums a call


def _make_loop(rows, lanes):
    @njit(nogil=True, error_model="numpy")
    def loop(repeats, x, base, off, w, out):
        counts = simd.zeros(rows, lanes, x)
        for _ in range(repeats):
            at = 0
            for k in range(off.size):
                counts = simd.add_products(counts, x, base, 0, off[k], w, at)
                at += lanes
        simd.store(counts, out, 0, lanes)

    return loop


def measure_limit(rounds):
    """Return {(rows, lanes): binary multiply-accumulates a second} of the loop, for blocks that fit the registers."""
    most = 24 * max(simd.register_bits(), 128) // 64  # words in 24 registers
    most = most if simd.register_bits() != 256 else most // 2  # AVX2 has 16
    rng, contenders, work = np.random.default_rng(0), {}, {}
    for rows in (2, 4, 6, 8):
        for lanes in (4, 8, 16, 32, 64):
            if not most // 3 <= rows * lanes <= most:
                continue
            x = rng.integers(0, 2**63, TERMS * rows).astype(np.uint64)
            w = rng.integers(0, 2**63, TERMS * lanes + 8).astype(np.uint64)
            first = -w.ctypes.data // 8 % 8  # a vector that begins where a cache line does loads faster
            args = (x, np.arange(rows) * TERMS, np.arange(TERMS), w[first : first + TERMS * lanes])
            out = np.zeros(rows * lanes, np.uint64)
            loop = _make_loop(rows, lanes)
            contenders[rows, lanes] = repeated(lambda loop=loop, args=args, out=out: loop(REPEATS, *args, out))
            work[rows, lanes] = REPEATS * TERMS * rows * lanes * 64
    return {key: work[key] / seconds for key, seconds in medians(contenders, rounds).items()}


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
    limit = measure_limit(rounds)
    best = max(limit, key=limit.get)
    rows = []
    for batch in shapes.BATCHES:
        for shape in shapes.SHAPES:
            seconds = medians({kernel: _product_alone(shape, batch, kernel) for kernel in engine.KERNELS}, rounds)
            rate = {kernel: shape.macs * batch / value for kernel, value in seconds.items()}
            share = {kernel: value / limit[best] for kernel, value in rate.items()}
            rows.append({"layer": shape.name, "batch": batch, "rate": rate, "share": share})
    wide = [row for row in rows if shapes.named(row["layer"]).is_wide]
    return {
        "limit": limit[best], "block": best, "blocks": {f"{r} x {n}": v for (r, n), v in limit.items()}, "rows": rows,
        "share": {kernel: geometric_mean(row["share"][kernel] for row in wide) for kernel in engine.KERNELS},
    }  # fmt: skip


def lines(table):
    """Table 1 as (title, rows, remarks)."""
    rows = [
        {
            "layer": row["layer"], "batch": row["batch"],
            **{f"{kernel}, T/s": f"{row['rate'][kernel] / 1e12:.2f}" for kernel in row["rate"]},
            **{f"{kernel}, % of limit": f"{100 * row['share'][kernel]:.0f}" for kernel in row["share"]},
        }
        for row in table["rows"]
    ]  # fmt: skip
    title = f"1. The limit: {table['limit'] / 1e12:.2f} T binary multiply-accumulates a second, one thread"
    share = ", ".join(f"{kernel} {100 * value:.0f} %" for kernel, value in table["share"].items())
    return title, rows, [f"geometric mean over layers of 128 channels and more: {share}"]
