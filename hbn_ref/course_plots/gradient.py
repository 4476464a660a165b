"""BatchNorm of a few values as a graph: what comes out of each box, and the three arrows of the gradient."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from ..plots import COLOURS, new_figure
from .look import bare, described

ROADS = {  # the road of the gradient back to x_j: its colour and dash
    "straight": ("fprec", "-"),
    "through the mean": ("fbin", "--"),
    "through the deviation": ("hybrid", ":"),
}
MEAN, DEVIATION = 41, -3  # heights of these boxes: above and below the straight road of any x


def _passes(x, dout, gamma, beta, eps):
    """Forward values, and the gradient for every x by its three roads: {road: (M,)}."""
    mean, deviation = x.mean(), np.sqrt(x.var() + eps)
    normal = (x - mean) / deviation
    straight = gamma * dout / deviation
    roads = straight, np.full_like(x, -straight.mean()), -normal * (straight * normal).mean()
    return mean, deviation, normal, gamma * normal + beta, dict(zip(ROADS, roads, strict=True))


def _node(axis, x, y, name, value, width=12.0):
    axis.add_patch(Rectangle((x - width / 2, y - 3), width, 6, facecolor="white", edgecolor="black", zorder=3))
    axis.text(x, y + 1.2, name, ha="center", va="center", fontsize=10, zorder=4)
    axis.text(x, y - 1.4, value, ha="center", va="center", fontsize=10, weight="bold", zorder=4)


def _arrow(axis, start, end, **style):
    axis.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": "black", "lw": 1.1, "shrinkA": 0,
                  "shrinkB": 0, **style}, zorder=2)  # fmt: skip


def _forward(axis, x, j, mean, deviation, normal, out):
    """The boxes with their values, and the arrows to the right."""
    for i, value in enumerate(x):
        y = 33 - 7.5 * i
        _node(axis, 9, y, f"$x_{{{i}}}$", f"{value:.2f}")
        for height in (MEAN, DEVIATION):
            _arrow(axis, (15, y), (30, height), lw=0.6, alpha=0.5)
    _node(axis, 37, MEAN, "mean $\\mu$", f"{mean:.2f}", 14)
    _node(axis, 37, DEVIATION, "deviation $s$", f"{deviation:.2f}", 14)
    y = 33 - 7.5 * j
    _node(axis, 66, y, f"$\\hat{{x}}_{{{j}}} = (x_{{{j}}} - \\mu) / s$", f"{normal[j]:+.2f}", 22)
    _node(axis, 95, y, f"out$_{{{j}}} = \\gamma \\hat{{x}}_{{{j}}} + \\beta$", f"{out[j]:+.2f}", 20)
    _arrow(axis, (15, y + 1), (55, y + 1))
    _arrow(axis, (44, MEAN), (55, y + 2))
    _arrow(axis, (44, DEVIATION), (55, y - 2))
    _arrow(axis, (77, y + 1), (85, y + 1))
    return y


def _backward(axis, y, j, roads):
    """The three roads back to x_j, each with its part of the gradient."""
    ends = {
        "straight": ((55, y - 1), (15, y - 1), (49.5, y - 3)),
        "through the mean": ((30, MEAN + 2), (15, y + 2), (22, MEAN + 3)),
        "through the deviation": ((30, DEVIATION - 2), (15, y - 2), (22, DEVIATION - 4)),
    }
    for name, (start, end, (left, height)) in ends.items():
        colour, dash = COLOURS[ROADS[name][0]], ROADS[name][1]
        _arrow(axis, start, end, color=colour, lw=2.4, linestyle=dash)
        axis.text(left, height, f"{roads[name][j]:+.3f}", ha="center", va="center", fontsize=10, color=colour,
                  weight="bold", bbox={"facecolor": "white", "edgecolor": "none", "pad": 1}, zorder=5)  # fmt: skip
        axis.plot([], [], dash, color=colour, lw=2.4, label=f"{name}: {roads[name][j]:+.3f}")


def batchnorm_graph(
    x: ArrayLike, dout: ArrayLike, gamma: float = 1.0, beta: float = 0.0, j: int = 0, eps: float = 1e-5
) -> Figure:
    """Draw BatchNorm of one channel as a graph, with its values and the three arrows of the gradient for x_j.

    dL/dx_j = gamma/s (d_j - mean(d) - x^_j mean(d x^)): one term for each road back, straight, through the mean and
    through the deviation.

    Parameters
    ----------
    x, dout : (M,), M from 2 to 5: a channel's values, and the gradient that comes back to each of its outputs
    gamma, beta, eps : numbers
    j : whose gradient is drawn

    Returns
    -------
    matplotlib.figure.Figure
    """
    x, dout = np.asarray(x, float), np.asarray(dout, float)
    if x.ndim != 1 or x.shape != dout.shape or not 2 <= len(x) <= 5:
        raise ValueError(f"x and dout: expected two rows of 2 to 5 numbers, got shapes {x.shape} and {dout.shape}")
    mean, deviation, normal, out, roads = _passes(x, dout, gamma, beta, eps)
    figure = new_figure(11, 5)
    axis = figure.subplots()
    y = _forward(axis, x, j, mean, deviation, normal, out)
    _backward(axis, y, j, roads)
    _arrow(axis, (115, y - 1), (105, y - 1), lw=2.4)
    axis.text(110, y - 3, f"$d_{{{j}}}$ = {dout[j]:+.2f}", ha="center", va="top", fontsize=10)
    top = 13 if y > 20 else 38  # where the boxes leave room
    total = sum(part[j] for part in roads.values())
    terms = " ".join(f"{part[j]:+.3f}" for part in roads.values())
    axis.text(55, top, f"$\\partial L / \\partial x_{{{j}}}$ = {terms} = {total:+.3f}", fontsize=11, va="center")
    formula = f"(d_{{{j}}} - \\overline{{d}} - \\hat{{x}}_{{{j}}}\\,\\overline{{d\\,\\hat{{x}}}})"
    axis.text(62.5, top - 4.5, f"$= \\frac{{\\gamma}}{{s}}\\,{formula}$, a bar is a mean", fontsize=11, va="center")
    gathered = f"Mean and deviation gather the d of all {len(x)} outputs."
    axis.text(55, top - 10, gathered, fontsize=10, va="center", style="italic")
    axis.set(xlim=(0, 118), ylim=(DEVIATION - 6, MEAN + 5))
    bare(axis)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, title=f"the gradient's roads back to $x_{{{j}}}$")
    three = ", ".join(f"{name} {part[j]:+.3f}" for name, part in roads.items())
    return described(
        figure,
        f"BatchNorm of {len(x)} values as a graph: each goes into the mean {mean:.2f} and the deviation"
        f" {deviation:.2f}; x_{j} = {x[j]:.2f} becomes {normal[j]:+.2f} and, with gamma and beta,"
        f" {out[j]:+.2f}. The gradient comes back to x_{j} by three arrows: {three}; their sum is {total:+.3f}.",
    )
