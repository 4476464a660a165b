"""A convolution of bits, tap by tap: the map, one filter, XOR, popcount, the count, and what a tap outside does."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..plots import BINARY, COLOURS, new_figure
from .look import bare, described

BORDERS = {0: "adds nothing", 1: "counts as the bit 1", -1: "counts as the bit 0"}
WINDOW = COLOURS["fbin"]


def _padded(bits, kernel, border):
    """A map of bits with a ring: 0, 1, and where nothing stands, -1."""
    ring = {0: -1, 1: 1, -1: 0}[border]
    (top, left) = kernel[0] // 2, kernel[1] // 2
    return np.pad(np.asarray(bits, int), ((top, top), (left, left)), constant_values=ring)


def _count(window, weights):
    """(bits that differ, -1 where a tap counts for nothing; taps that count; popcount; the count)."""
    counted = window >= 0
    differ = np.where(counted, window ^ weights, -1)
    n, popcount = int(counted.sum()), int((differ == 1).sum())
    return differ, n, popcount, n - 2 * popcount


def _signed(count):
    return f"{count:+d}" if count else "0"


def _cells(axis, values, top=0, left=0, outside=None):
    """Draw bits in cells: 1 black, 0 white, -1 an empty cell; cells of the ring are hatched."""
    for (i, j), value in np.ndenumerate(values):
        ring = outside is not None and outside[i, j]
        axis.add_patch(Rectangle((left + j, top + i), 1, 1, facecolor="black" if value == 1 and not ring else "white",
                                 edgecolor=BINARY, hatch="///" if ring else None, lw=0.8))  # fmt: skip
        ground = {"facecolor": "white", "edgecolor": "none", "pad": 1} if ring else None
        axis.text(left + j + 0.5, top + i + 0.5, "·" if value < 0 else str(value), ha="center", va="center",
                  fontsize=10, color="white" if value == 1 and not ring else "black", bbox=ground)  # fmt: skip


def _frame(axis, top, left, height, width):
    axis.add_patch(Rectangle((left, top), width, height, facecolor="none", edgecolor=WINDOW, lw=3, zorder=4))


def _result(axis, padded, weights, shape, pixel):
    """The counts so far, the last of them framed."""
    for k, (i, j) in enumerate(np.ndindex(*shape)):
        axis.add_patch(Rectangle((j, i), 1, 1, facecolor="white", edgecolor=BINARY, lw=0.8))
        if k <= pixel[0] * shape[1] + pixel[1]:
            *_, count = _count(padded[i : i + weights.shape[0], j : j + weights.shape[1]], weights)
            axis.text(j + 0.5, i + 0.5, _signed(count), ha="center", va="center", fontsize=10)
    _frame(axis, pixel[0], pixel[1], 1, 1)


def bit_convolution(bits: np.ndarray, weights: np.ndarray, pixel: tuple[int, int], border: int = 0) -> Figure:
    """Draw how one output pixel of a convolution of bits is counted, and all that were counted before it.

    count = n - 2 popcount(bits XOR weights), over the n taps that count; stride 1, and so much padding that the map
    keeps its size.

    Parameters
    ----------
    bits : (H, W), 0 or 1: a map of one channel
    weights : (kh, kw), 0 or 1: one filter, odd sizes
    pixel : row and column of the output
    border : what stands outside the map: 0 (a tap there adds nothing), +1 (the bit 1) or -1 (the bit 0)

    Returns
    -------
    matplotlib.figure.Figure
    """
    if border not in BORDERS:
        raise ValueError(f"border: expected 0, 1 or -1, got {border!r}")
    bits, weights = np.asarray(bits, int), np.asarray(weights, int)
    kh, kw = weights.shape
    padded, (row, column) = _padded(bits, (kh, kw), border), pixel
    window = padded[row : row + kh, column : column + kw]
    differ, n, popcount, count = _count(window, weights)
    outside = np.pad(np.zeros(bits.shape, bool), ((kh // 2, kh // 2), (kw // 2, kw // 2)), constant_values=True)
    figure = new_figure(12, 3.5)
    shapes = (padded.shape, (kh, kw), (kh, kw), bits.shape)
    axes = figure.subplots(1, 4, width_ratios=[width for _, width in shapes])
    _cells(axes[0], padded, outside=outside)
    _frame(axes[0], row, column, kh, kw)
    _cells(axes[1], weights)
    _cells(axes[2], differ, outside=outside[row : row + kh, column : column + kw])
    _result(axes[3], padded, weights, bits.shape, pixel)
    taps = int(outside[row : row + kh, column : column + kw].sum())
    titles = ("the map, its window framed", "the filter", "XOR: 1 where they differ", "counts")
    below = (
        f"hatched: outside, {BORDERS[border]}",
        f"{kh} x {kw} taps",
        f"{taps} taps outside: n = {n}\npopcount = {popcount}",
        f"{n} - 2 · {popcount} = {_signed(count)}",
    )
    for axis, title, text, (height, width) in zip(axes, titles, below, shapes, strict=True):
        axis.set(xlim=(-0.1, width + 0.1), ylim=(padded.shape[0] + 1.3, -0.1), aspect="equal")
        axis.set_title(title, fontsize=10)
        axis.text(width / 2, height + 0.25, text, ha="center", va="top", fontsize=10)
        bare(axis)
    return described(
        figure,
        f"A convolution of bits at row {row}, column {column}: a {bits.shape[0]} x {bits.shape[1]} map with the window"
        f" framed, the filter, their XOR, and the counts so far. {taps} of {kh * kw} taps lie outside the map; each"
        f" {BORDERS[border]}. n is {n}, {popcount} bits differ, the count is"
        f" {_signed(count)}.",
    )
