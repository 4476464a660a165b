"""Table 1: what this processor could do at most, and how much of it each kernel does.

The limit is the best of the loops of `hbn_ref.limits`.

The processor changes its speed while it is measured. So the best loop takes its turn in each round of each layer, and
a kernel's share is measured against the limit in the same rounds.
"""

import numpy as np

from hbn_ref import conv, engine, limits, simd

from . import shapes
from .clock import geometric_mean, kernel_seconds, medians, repeated

MOST = 1.05  # a share above this means that the loop was no limit


def blocks():
    """Return the shapes (rows, lanes) of blocks that may fit this processor, as `limits.loops` takes them."""
    bits, found = max(simd.register_bits(), 128), {"words": [], "bytes": []}
    registers = 16 if bits == 256 else 32
    for rows in (2, 3, 4, 5, 6, 8):
        for lanes in (1, 8, 16, 32, 64):
            if (lanes == 1 and rows == 8) or registers // 4 <= rows * lanes * 64 // bits <= 3 * registers // 4:
                found["words"].append((rows, lanes))
            if lanes >= 32 and registers // 4 <= rows * lanes * 8 // bits <= 3 * registers // 4:
                found["bytes"].append((rows, lanes))
    return found


def _product_alone(shape, batch, kernel):
    """Return a function (n) that runs a packed convolution n times, and returns the seconds of its product alone."""
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
    found = limits.loops("binary", blocks())
    seconds = medians({name: repeated(call) for name, (call, _) in found.items()}, rounds)
    rates = {name: macs / seconds[name] for name, (_, macs) in found.items()}
    best = max(rates, key=rates.get)
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
        "limit": float(np.median([row["limit"] for row in rows])), "block": best, "blocks": rates, "rows": rows,
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
    title = f"1. The limit: {table['limit'] / 1e12:.2f} T binary multiply-accumulates per second, one thread"
    share = ", ".join(f"{kernel} {100 * value:.0f} %" for kernel, value in table["share"].items())
    remarks = [
        f"the best loop: {table['block']}", f"geometric mean over layers of 128 channels and more: {share}",
        *(f"NO LIMIT: {row['layer']}, batch {row['batch']} does more" for row in exceeded(table)),
    ]  # fmt: skip
    return title, rows, remarks


def exceeded(table):
    """The rows in which a kernel does more than the limit."""
    return [row for row in table["rows"] if max(row["share"].values()) > MOST]
