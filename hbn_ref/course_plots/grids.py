"""Grids of numbers: rows of bits, filters, maps."""

import math

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from ..plots import BINARY, COLOURS, new_figure
from .look import described


def words(x: ArrayLike, *, drawing: np.ndarray | None = None, place: tuple[int, int] = (0, 0)) -> Figure:
    """Draw how a row of up to 64 values becomes one word: values, signs, bits, the tail grey.

    ``drawing`` (H, W), larger is darker, stands on the left; there the row, which begins at ``place``, is framed.
    """
    x = np.asarray(x, float)
    figure = new_figure(12, 2.6)
    if drawing is None:
        axes = figure.subplots(3, 1, sharex=True)
    else:
        grid = figure.add_gridspec(3, 2, width_ratios=(1, 4.2))
        left = figure.add_subplot(grid[:, 0])
        left.imshow(drawing, cmap="Greys")
        left.add_patch(
            Rectangle((place[1] - 0.5, place[0] - 1), len(x), 2, facecolor="none", edgecolor=COLOURS["fbin"], lw=2)
        )
        left.set(xticks=[], yticks=[], xlabel=f"row {place[0]}, {_pixels(x)}")
        axes = [figure.add_subplot(grid[k, 1]) for k in range(3)]
    _word_rows(axes, x)
    word = sum(int(value >= 0) << c for c, value in enumerate(x))
    said = f"A row of {_pixels(x)}" + (" of a drawing" if drawing is not None else "")
    return described(
        figure,
        f"{said}, the {len(x)} signs made of them, {np.mean(x >= 0):.0%} of them +1, and the 64-bit word {word}:"
        f" {len(x)} bits in use, and a tail of {64 - len(x)} zero bits in grey.",
    )


def _pixels(x):
    return f"{len(x)} pixel{'s' * (len(x) != 1)}"


def _word_rows(axes, x):
    """Values, signs and bits, each in a row of its own."""
    bit = np.full(64, 0)
    bit[: len(x)] = x >= 0
    rows = (("value", x, "Greys"), ("sign", np.where(x >= 0, 1.0, -1.0), "Greys"), ("bit", None, None))
    for axis, (name, row, colours) in zip(axes, rows, strict=True):
        if row is not None:
            axis.imshow(row[None], cmap=colours, aspect="auto", extent=(0, len(x), 0, 1), vmin=-1.5, vmax=1.5)
        for c in range(64 if row is None else 0):
            used = c < len(x)
            axis.axvspan(c, c + 1, color=(COLOURS["wbin"] if bit[c] else "white") if used else BINARY, lw=0)
            axis.text(c + 0.5, 0.5, str(bit[c]), ha="center", va="center", fontsize=7, color="black")
        if name == "sign":
            for c, value in enumerate(x):
                axis.text(c + 0.5, 0.5, "+" if value >= 0 else "-", ha="center", va="center", fontsize=8,
                          color="white" if value >= 0 else "black")  # fmt: skip
        axis.set_yticks([0.5], [name])
        axis.set_xlim(0, 64)
        axis.spines[:].set_visible(False)
        axis.tick_params(length=0, labelbottom=name == "bit")
    axes[-1].set_xticks([*range(0, 64, 8), 64])
    axes[-1].set_xlabel(f"position = bit of the word; grey: the tail, {64 - len(x)} bits that stay 0")


def _numbers(axis, values, framed, top, digits):
    """A small array with a number in each cell: bits black and white, other numbers on a scale of colours."""
    bits = values.dtype == bool
    shown = np.where(values, top, 0) if bits else values
    axis.imshow(
        shown, cmap="Greys" if bits else "PuOr", vmin=0 if bits else -1.6 * top, vmax=top if bits else 1.6 * top
    )
    for (i, j), value in np.ndenumerate(values):
        text = str(int(value)) if bits else f"{value:d}" if values.dtype.kind in "iu" else f"{value:+.{digits}f}"
        axis.text(j, i, text, ha="center", va="center", fontsize=9, color="white" if bits and value else "black")
        if framed is not None and framed[i, j]:
            axis.add_patch(
                Rectangle((j - 0.47, i - 0.47), 0.94, 0.94, facecolor="none", edgecolor=COLOURS["fbin"], lw=3)
            )
    axis.set_xticks(np.arange(values.shape[1] - 1) + 0.5, minor=True)
    axis.set_yticks(np.arange(values.shape[0] - 1) + 0.5, minor=True)
    axis.grid(which="minor", color=BINARY, lw=0.8)
    axis.tick_params(which="both", length=0)
    axis.set(xticks=[], yticks=[])


def cells(panels: dict[str, ArrayLike], *, framed: dict[str, ArrayLike] | None = None, label: str = "") -> Figure:
    """Draw {title: small (H, W) array} side by side with a number in each cell; booleans are bits, 1 black, 0 white.

    ``framed`` {title: bool (H, W)} are cells to look at, ``label`` says what they are. Real numbers have one scale of
    colours in all panels, and as many decimals as the largest of them needs.
    """
    figure = new_figure(2.6 * len(panels), 2.9)
    said, arrays = [], {title: np.asarray(values) for title, values in panels.items()}
    real = max((float(np.abs(values).max()) for values in arrays.values() if values.dtype.kind == "f"), default=0) or 1
    digits = max(2, 1 - math.floor(math.log10(real)))
    for axis, (title, values) in zip(figure.subplots(1, len(panels), squeeze=False)[0], arrays.items(), strict=True):
        marked = np.broadcast_to(np.asarray((framed or {}).get(title, False)), values.shape)
        top = real if values.dtype.kind == "f" else max(float(np.abs(values.astype(float)).max()), 1)
        _numbers(axis, values, marked, top, digits)
        axis.set_title(title, fontsize=10)
        rows = "; ".join(" ".join(f"{value:.3g}" for value in row) for row in values.astype(float))
        said.append(f"{title}: {rows}")
    if label:
        figure.supxlabel(f"framed: {label}", fontsize=10)
    return described(figure, f"Small arrays, row by row. {'. '.join(said)}." + (f" Framed: {label}." if label else ""))


def maps(panels: dict[str, np.ndarray], label: str, *, signed: bool = False) -> Figure:
    """Draw {title: (H, W) array} side by side, each on its own scale of colours; small maps have numbers in them."""
    figure = new_figure(3.9 * len(panels), 3.4)
    for axis, (title, values) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        top = max(float(np.abs(values).max()), 1e-12)
        image = axis.imshow(values, cmap="PuOr" if signed else "Blues", vmin=-top if signed else 0, vmax=top)
        for (i, j), value in np.ndenumerate(values) if values.size <= 100 else ():
            if value:
                colour = "white" if abs(value) > 0.6 * top else "black"
                axis.text(j, i, f"{value:.2g}", ha="center", va="center", fontsize=7, color=colour)
        axis.set(title=title, xlabel="column", ylabel="row")
        for side in (axis.xaxis, axis.yaxis):
            side.get_major_locator().set_params(integer=True)
        figure.colorbar(image, ax=axis, label=label, shrink=0.8)
    return figure


def answer(image: np.ndarray, title: str, top: list[tuple[str, float]]) -> Figure:
    """Draw an image as a network sees it, and beside it the classes that it finds likeliest, [(class, share)]."""
    figure = new_figure(7, 2.9)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.4))
    left.imshow(image, cmap="Greys")
    left.set(xticks=[], yticks=[], xlabel="as the network sees it")
    left.set_title(title, fontsize=10)
    shares = [100 * share for _, share in top]
    bars = right.barh(range(len(top)), shares, color=[COLOURS["fbin"], *[BINARY] * (len(top) - 1)])
    right.bar_label(bars, fmt="%.0f %%", padding=3)
    right.set_yticks(range(len(top)), [name for name, _ in top])
    right.invert_yaxis()
    right.set(xlabel="probability (%)", xlim=(0, 115))
    right.spines[["top", "right"]].set_visible(False)
    return figure
