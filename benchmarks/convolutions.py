"""Table 2: packed convolutions beside PyTorch's and NumPy's float ones and OpenVINO's binary one.

Ours takes and returns floats, channels-last and scaled by alpha; its weights are packed beforehand. PyTorch and
OpenVINO are timed with both layouts. NumPy does a matrix product over copied patches. Before anything is timed, the
output of every contender is compared with ours.
"""

import statistics
import subprocess
import sys

import numpy as np
from threadpoolctl import threadpool_limits

from hbn_ref import binarize, conv, engine

from . import shapes
from .clock import geometric_mean, kernel_seconds, medians, repeated
from .peers import PEERS, TORCH, convolutions


def _numpy(x, w, padding, threads):
    """im2col and BLAS: the usual float convolution in NumPy."""
    kh, kw, channels, filters = w.shape
    flat = np.ascontiguousarray(w.reshape(-1, filters))

    def call():
        xp = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
        patches = np.lib.stride_tricks.sliding_window_view(xp, (kh, kw), axis=(1, 2))  # (N, Ho, Wo, C, kh, kw)
        rows = patches.transpose(0, 1, 2, 4, 5, 3).reshape(-1, kh * kw * channels)
        return (rows @ flat).reshape(*patches.shape[:3], filters)

    def timed(n):
        with threadpool_limits(threads, user_api="blas"):
            return repeated(call)(n)

    return call(), timed


def _same(name, shape, got, expected, exact):
    if not (np.array_equal(got, expected) if exact else np.allclose(got, expected, rtol=1e-4, atol=1e-4)):
        worst = np.abs(got - expected).max()
        raise AssertionError(f"{name} and hbn_ref differ on {shape.name} by {worst:g}: nothing to compare")


def _contenders(shape, batch, threads, peers):
    x, w = shapes.tensors(shape, batch)
    packed, padding = conv.pack_weights(w), shape.padding

    def ours(kernel):
        def timed(n):
            with engine.kernel(kernel):
                return repeated(lambda: conv.xnor_conv2d_forward(x, packed, padding=padding, need_cache=False))(n)

        return timed

    def parts(n):
        with kernel_seconds() as seen:
            whole = statistics.median(ours("vector")(n))
        pack, product = (statistics.median(seen[kernel]) for kernel in ("pack_signs", "xnor_gather"))
        return pack, product, whole - pack - product

    counts, _ = conv.xnor_conv2d_forward(x, packed, padding=padding, scale=False, need_cache=False)
    scaled, _ = conv.xnor_conv2d_forward(x, packed, padding=padding, need_cache=False)
    real = {"x": x, "w": w, "alpha": packed.alpha}
    signs = {**real, "x": binarize.sign(x), "w": binarize.sign(w)}
    contenders = {"vector": ours("vector"), "plain": ours("plain")}
    out, contenders["NumPy"] = _numpy(signs["x"], signs["w"], padding, threads)
    _same("NumPy", shape, out, counts, exact=True)
    for name, binary, out, contenders[name] in convolutions(peers, real, signs, padding):
        _same(name, shape, out, scaled if binary else counts, exact=True)
    return contenders, parts


FIRST = """
import time
import numba
start = time.perf_counter()
import numpy as np
from hbn_ref import conv
x, w = np.ones((1, 14, 14, 256), np.float32), np.ones((3, 3, 256, 256), np.float32)
conv.xnor_conv2d_forward(x, conv.pack_weights(w), padding=1, need_cache=False)
print(time.perf_counter() - start)
"""


def first_convolution(rounds):
    """Seconds from ``import numba`` to the end of the first convolution of a process, with kernels compiled before."""
    command = [sys.executable, "-c", FIRST]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(rounds + 1)]
    return statistics.median(float(run.stdout) for run in runs[1:])  # the first may have compiled


def measure(rounds, threads, peers):
    """Return table 2 as plain numbers, in seconds per call. ``peers`` is {name: Peer or None}."""
    rows = []
    for batch in shapes.BATCHES:
        for shape in shapes.SHAPES:
            contenders, parts = _contenders(shape, batch, threads, peers)
            seconds = medians(contenders, rounds)
            each = np.median([parts(5 if batch > 1 else 50) for _ in range(rounds)], axis=0)
            row = {
                "layer": shape.name, "batch": batch, "seconds": seconds,
                "parts": dict(zip(("pack", "product", "rest"), each.tolist(), strict=True)),
            }  # fmt: skip
            if peers.get("torch"):
                row["torch"] = min(seconds[name] for name in TORCH) / seconds["vector"]
            rows.append(row)
    return {"rows": rows, "summary": _summary(rows, peers), "first": first_convolution(rounds)}


def _summary(rows, peers):
    """The ratios that the pages quote: a peer's time divided by ours."""
    found = {}
    if peers.get("torch"):
        for batch in shapes.BATCHES:
            ratios = [row["torch"] for row in rows if row["batch"] == batch]
            found[f"PyTorch, batch {batch}"] = {"worst": min(ratios), "median": statistics.median(ratios)}
    for peer in sorted(name for name, peer in peers.items() if peer and name != "torch"):
        for name in PEERS[peer].names:
            ratios = [row["seconds"][name] / row["seconds"]["vector"] for row in rows]
            found[name] = {"geometric mean": geometric_mean(ratios), "worst": min(ratios)}
    return found


def lines(table):
    """Table 2 as (title, rows, remarks)."""
    rows = []
    for row in table["rows"]:
        shown = {"layer": row["layer"], "batch": row["batch"]}
        for name, seconds in row["seconds"].items():
            shown[f"{name}, us"] = f"{1e6 * seconds:,.0f}"
        for part, seconds in row["parts"].items():
            shown[part] = f"{1e6 * seconds:,.0f}"
        if "torch" in row:
            shown["PyTorch / ours"] = f"{row['torch']:.1f}"
        rows.append(shown)
    remarks = [
        f"{name} / ours: " + ", ".join(f"{what} {value:.2f}" for what, value in values.items())
        for name, values in table["summary"].items()
    ]
    remarks.append(f"first convolution of a process, with compiled kernels: {table['first']:.2f} s after import numba")
    return "2. Convolutions: microseconds; pack, product and rest: parts of ours, timed apart", rows, remarks
