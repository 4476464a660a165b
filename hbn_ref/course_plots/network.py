"""The map of the course: a drawing, the layers that it goes through, one binary layer seen closely, "you are here"."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from ..plots import BINARY, COLOURS, new_figure
from .look import KINDS, bare, described

HERE = COLOURS["fbin"]
BOX, PITCH, FIRST = 9.6, 13.2, 19.0  # of the upper row, in hundredths of the width of the picture and a bit
CLOSE = {"BatchNorm": (4, 19), "sign": (26, 37), "bits": (40, 61), "convolution": (64, 88), "after": (95, 113)}
SUBJECTS = {  # chapter: what it is about
    "bits": "64 signs in a word, and how to count them",
    "binarize": "the sign, its scale, and a stand-in for its derivative",
    "conv": "the convolution of bits, and its border",
    "layers": "BatchNorm before the sign, ReLU and pooling after it",
    "models": "one list of layers, four networks",
    "train": "training, from the answer back to the weights",
    "cost": "what each layer costs",
    "hybrid": "which inputs stay real",
    "deploy": "the whole layer in bits and whole numbers",
}


def _box(axis, left, bottom, width, height, text, colour="white", hatch=None):
    """A box with its name on a white ground."""
    style = {"facecolor": colour, "edgecolor": "white" if hatch else "black", "hatch": hatch, "lw": 0 if hatch else 1}
    axis.add_patch(Rectangle((left, bottom), width, height, **style))
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 1.5} if colour != "white" else None
    axis.text(left + width / 2, bottom + height / 2, text, ha="center", va="center", fontsize=10, bbox=ground)


def _arrow(axis, start, end, **style):
    axis.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": "black", "lw": 1.2, **style})


def _upper_row(axis, drawing, rows, classes):
    """The drawing, a box for each layer with what enters it above and its MACs below, the classes."""
    axis.imshow(drawing, cmap="Greys", extent=(1, 11, 24, 34.3), aspect="auto", zorder=1)
    axis.add_patch(Rectangle((1, 24), 10, 10.3, facecolor="none", edgecolor="black", lw=0.8))
    for i, row in enumerate(rows):
        left, bits = FIRST + PITCH * i, row["inputs"] == "binary"
        colour, hatch = KINDS["fully binary" if bits else "binary weights" if row["weights"] == "binary" else "real"]
        _arrow(axis, (11 if i == 0 else left - PITCH + BOX, 28), (left, 28))
        _box(axis, left, 24, BOX, 8, row["layer"].replace("classifier", "classi-\nfier"), COLOURS[colour], hatch)
        shape = " x ".join(map(str, row["input"]))
        axis.text(left + BOX / 2, 33, f"{shape}\n{'bits' if bits else 'real'}", ha="center", va="bottom", fontsize=9)
        axis.text(left + BOX / 2, 23.3, f"{row['macs'] / 1e6:.2g} M", ha="center", va="top", fontsize=9)
    end = FIRST + PITCH * (len(rows) - 1) + BOX
    _arrow(axis, (end, 28), (end + 3.5, 28))
    axis.text(end + 4, 28, "\n".join([*classes[:3], "..."]), va="center", fontsize=9)
    axis.text(FIRST - 1, 33, "enters", ha="right", va="bottom", fontsize=9, style="italic")
    axis.text(FIRST - 1, 23.3, "MACs", ha="right", va="top", fontsize=9, style="italic")
    _arrow(axis, (end + 3, 18.8), (FIRST, 18.8), linestyle="--")
    axis.text((FIRST + end) / 2, 18.9, "training: gradients", ha="center", va="center", fontsize=9, style="italic",
              bbox={"facecolor": "white", "edgecolor": "none", "pad": 2})  # fmt: skip
    return end


def _lower_row(axis, name):
    """One fully binary layer, box by box."""
    texts = {"BatchNorm": "BatchNorm", "sign": "sign", "convolution": "convolution:\nXOR, popcount",
             "after": "x alpha,\nReLU, pooling"}  # fmt: skip
    for key, text in texts.items():
        left, right = CLOSE[key]
        _box(axis, left, 4, right - left, 7, text)
    left, right = CLOSE["bits"]
    for k, bit in enumerate("10011010"):
        cell = (right - left) / 8
        axis.add_patch(Rectangle((left + k * cell, 5.5), cell, 4, facecolor="black" if bit == "1" else "white", lw=0.8,
                                 edgecolor="black"))  # fmt: skip
        axis.text(left + (k + 0.5) * cell, 7.5, bit, ha="center", va="center", fontsize=9,
                  color="white" if bit == "1" else "black")  # fmt: skip
    ends = list(CLOSE.values())
    for (_, start), (stop, _) in zip(ends, ends[1:], strict=False):
        _arrow(axis, (start, 7.5), (stop, 7.5))
    _arrow(axis, (CLOSE["after"][1], 7.5), (CLOSE["after"][1] + 5, 7.5))
    axis.text(5, 14, f"one binary layer, {name}, seen closely", va="center", fontsize=9, style="italic")


def _key(axis, kinds):
    """What the colours of the boxes mean."""
    for k, kind in enumerate(kinds):
        (variant, hatch), left = KINDS[kind], 62 + 20 * k
        axis.add_patch(
            Rectangle((left, 13.2), 3, 1.7, facecolor=COLOURS[variant], hatch=hatch, edgecolor="white", lw=0)
        )
        axis.text(left + 3.8, 14, kind, va="center", fontsize=9)


def _places(end, rows):
    """{chapter: rectangles (left, bottom, right, top) of what it is about}."""
    close = {key: (left - 1, 3, right + 1, 12) for key, (left, right) in CLOSE.items()}
    binary = [i for i, row in enumerate(rows) if row["weights"] == "binary"]
    chosen = FIRST + PITCH * binary[0] - 1, FIRST + PITCH * binary[-1] + BOX + 1
    return {
        "bits": [close["bits"]],
        "binarize": [close["sign"]],
        "conv": [close["convolution"]],
        "layers": [close["BatchNorm"], close["after"]],
        "models": [(FIRST - 1, 23.6, end + 1, 32.6)],
        "train": [(FIRST - 1, 17.6, end + 3.5, 20.2)],
        "cost": [(FIRST - 6, 20.9, end + 1, 23.6)],
        "hybrid": [(chosen[0], 32.8, chosen[1], 37.6)],
        "deploy": [(1, 2, 120, 15.6)],
    }


def _mark(axis: Axes, chapter: str, number: int, boxes: list[tuple[float, ...]], here: bool) -> None:
    """A frame where the reader is, with these words; elsewhere the number of the chapter."""
    for k, (left, bottom, right, top) in enumerate(boxes):
        if here:
            axis.add_patch(FancyBboxPatch((left, bottom), right - left, top - bottom, boxstyle="round,pad=0.2",
                                          facecolor="none", edgecolor=HERE, lw=3, zorder=5))  # fmt: skip
        if k == 0:
            text = f"{number}: you are here" if here else str(number)
            ground = {"boxstyle": "round,pad=0.25", "facecolor": HERE if here else "white", "lw": 0.8,
                      "edgecolor": HERE if here else BINARY}  # fmt: skip
            x, y, align = left + 0.3, top, "left"
            if chapter in ("cost", "train"):  # low and wide: on its edge the words would hide what is in it
                x, y, align = left - 1, (bottom + top) / 2, "right"
            elif chapter == "models":  # above its edge stands what enters
                x = right + 0.3
            axis.text(x, y, text, va="center", ha=align, zorder=7 if here else 6, fontsize=9,
                      color="white" if here else "black", weight="bold" if here else None, bbox=ground)  # fmt: skip


def network_map(
    drawing: np.ndarray, rows: list[dict[str, Any]], classes: Sequence[str], chapter: str | None = None
) -> Figure:
    """Draw the map of the course: what a drawing goes through, and where on its way a chapter stands.

    Parameters
    ----------
    drawing : (H, W), larger is darker
    rows : the layers of a network as `cost.table` gives them: layer, input, inputs, weights, macs
    classes : names of classes, of which the first three are written
    chapter : one of `SUBJECTS`, which is marked, or None

    Returns
    -------
    matplotlib.figure.Figure
    """
    if chapter is not None and chapter not in SUBJECTS:
        raise ValueError(f"chapter: expected one of {', '.join(SUBJECTS)}, got {chapter!r}")
    figure = new_figure(12, 3.9)
    axis = figure.subplots()
    end = _upper_row(axis, drawing, rows, classes)
    name = next((row["layer"] for row in rows if row["inputs"] == "binary"), "conv2")
    _lower_row(axis, name)
    for number, (own, boxes) in enumerate(_places(end, rows).items(), start=1):
        _mark(axis, own, number, boxes, own == chapter)
    _key(axis, KINDS)
    first = FIRST + PITCH * next((i for i, row in enumerate(rows) if row["inputs"] == "binary"), 1)
    for x, corner in ((first, 1), (first + BOX, 120)):  # from the layer down to its close view
        axis.plot((x, corner), (24, 15.6), color=BINARY, lw=1, ls=":", zorder=0)
    axis.set(xlim=(0, 122), ylim=(1.3, 39.2))
    bare(axis)
    through = ", ".join(f"{row['layer']} ({'bits' if row['inputs'] == 'binary' else 'real'})" for row in rows)
    marked = f" Marked as the place of this chapter: {SUBJECTS[chapter]}." if chapter else ""
    return described(
        figure,
        f"Map of the course. A drawing goes through the layers {through}, in brackets what enters each, to one of"
        f" {len(classes)} classes; below, {name} seen closely: BatchNorm, sign, bits, convolution by XOR and popcount,"
        f" ReLU and pooling.{marked}",
    )
