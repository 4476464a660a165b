"""What a sign makes of a drawing: the bits that enter each layer, a feature map before and after its sign."""

import math
from typing import Any

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from ..plots import BINARY, new_figure
from .look import bare, described

BITS = ListedColormap(["white", "black", BINARY])  # -1, +1, and what lies between tiles


def _tiles(bits):
    """Some channels of a map of bits (H, W, C), those that vary most, side by side: (image, how many)."""
    height, width, channels = bits.shape
    across = min(math.isqrt(channels), max(3, 32 // max(height, width)))
    share = bits.mean(axis=(0, 1))
    shown = np.sort(np.argsort(-share * (1 - share), kind="stable")[: across**2])
    gap = int(height * width > 1)
    image = np.full((across * (height + gap) - gap, across * (width + gap) - gap), 2)
    for k, channel in enumerate(shown):
        top, left = k // across * (height + gap), k % across * (width + gap)
        image[top : top + height, left : left + width] = bits[:, :, channel]
    return image, len(shown)


def entering_bits(drawing: np.ndarray, layers: dict[str, Any]) -> Figure:
    """Draw a drawing, and beside it what enters each binary layer: some of its channels as maps of bits.

    Parameters
    ----------
    drawing : (H, W), larger is darker
    layers : {name: bool (H, W, C)}, True where the sign is +1

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = new_figure(2.1 * (len(layers) + 1), 3.1)
    axes = figure.subplots(1, len(layers) + 1)
    axes[0].imshow(drawing, cmap="Greys")
    axes[0].set_title("a drawing", fontsize=10)
    axes[0].set_xlabel(" x ".join(map(str, drawing.shape)), fontsize=9)
    for axis, (name, bits) in zip(axes[1:], layers.items(), strict=True):
        bits = np.asarray(bits, bool)
        image, count = _tiles(bits)
        axis.imshow(image, cmap=BITS, vmin=0, vmax=2, interpolation="nearest")
        axis.set_title(f"enters {name}", fontsize=10)
        axis.set_xlabel(f"{' x '.join(map(str, bits.shape))} bits\n{count} of {bits.shape[2]} channels", fontsize=9)
    for axis in axes:
        axis.set(xticks=[], yticks=[])
    figure.supxlabel("black: +1, white: -1", fontsize=9)
    said = ", ".join(f"{name} ({np.mean(bits):.0%} of the bits +1)" for name, bits in layers.items())
    return described(figure, f"A drawing, and the bits that enter {said}: black for +1, white for -1; of each"
                     " layer those channels whose bits vary most.")  # fmt: skip


def maps_and_signs(maps: dict[str, Any], *, drawing: np.ndarray | None = None, error: bool = False) -> Figure:
    """Draw {title: (H, W) values}: each map above its signs, and on demand above its squared distance to them.

    ``drawing`` (H, W) stands on the left, larger is darker.
    """
    columns = len(maps) + (drawing is not None)
    figure = new_figure(3.1 * columns, 2.75 * (2 + error))
    axes = figure.subplots(2 + error, columns, squeeze=False)
    if drawing is not None:
        axes[0, 0].imshow(drawing, cmap="Greys")
        axes[0, 0].set_title("the drawing", fontsize=10)
        for axis in axes[:, 0]:
            bare(axis)
    said = []
    for column, (title, values) in zip(axes.T[columns - len(maps) :], maps.items(), strict=True):
        values = np.asarray(values, float)
        positive, top = values >= 0, max(float(np.abs(values).max()), 1e-12)
        image = column[0].imshow(values, cmap="PuOr", vmin=-top, vmax=top)
        figure.colorbar(image, ax=column[0], label="value", shrink=0.85)
        column[0].set_title(title, fontsize=10)
        column[1].imshow(positive, cmap=BITS, vmin=0, vmax=2, interpolation="nearest")
        column[1].set_title(f"its sign: {positive.mean():.0%} are +1", fontsize=10)
        said.append(f"{title}, from {values.min():.2g} to {values.max():.2g}, {positive.mean():.0%} of its signs +1")
        if error:
            squares = (values - np.where(positive, 1, -1)) ** 2
            image = column[2].imshow(squares, cmap="Blues", vmin=0, vmax=max(float(squares.max()), 1e-12))
            figure.colorbar(image, ax=column[2], label="(value - sign)²", shrink=0.85)
            column[2].set_title(f"squared error, mean {squares.mean():.2f}", fontsize=10)
            said[-1] += f", mean squared error {squares.mean():.2f}"
        for axis in column:
            axis.set(xticks=[], yticks=[])
    below = "its signs (black +1, white -1)" + (" and its squared error" if error else "")
    return described(figure, f"Maps of one channel, each above {below}: {'; '.join(said)}.")
