"""Lines, dots and bands against a number: losses, derivatives, thresholds."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from ..plots import BINARY, COLOURS, MARKERS, NAMES, new_figure, style_of
from .look import DASHES, described, style_of_series


def lines(
    x: Iterable[float], series: dict[str, Any], xlabel: str, ylabel: str, *, log: bool = False, title: str = ""
) -> Figure:
    """Draw {name: values} against x, each with a colour, a marker and a dash of its own."""
    figure, x = new_figure(7, 4), list(x)
    axis = figure.subplots()
    for i, (name, values) in enumerate(series.items()):
        axis.plot(x, values, DASHES[i % 4], label=name, **style_of_series(i))
    axis.set(xlabel=xlabel, ylabel=ylabel, title=title, yscale="log" if log else "linear")
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    return figure


def bands(x: ArrayLike, series: dict[str, Any], xlabel: str, ylabel: str) -> Figure:
    """Draw {name: (seeds, points)} against x: the mean of the seeds, and a band from the lowest to the highest."""
    figure = new_figure(7.5, 4)
    axis = figure.subplots()
    for i, (name, values) in enumerate(series.items()):
        style, values = style_of_series(i), np.asarray(values, float)
        axis.plot(x, values.mean(axis=0), DASHES[i % 4], label=name, **style)
        axis.fill_between(x, values.min(axis=0), values.max(axis=0), color=style["color"], alpha=0.15, lw=0)
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    return figure


def seeds(groups: dict[str, Any], ylabel: str) -> Figure:
    """Draw {name: a value for each seed}: one column of marked dots per name, and a line at their mean."""
    figure = new_figure(7, 3.6)
    axis = figure.subplots()
    for i, (name, values) in enumerate(groups.items()):
        style = style_of_series(i)
        axis.plot(i + np.linspace(-0.1, 0.1, len(values)), values, ls="", markersize=9, label=name, **style)
        axis.hlines(np.mean(values), i - 0.25, i + 0.25, color=style["color"], lw=1)
    axis.set_xticks(range(len(groups)), [name.replace(": ", ":\n") for name in groups])
    axis.set(ylabel=ylabel, xlim=(-0.5, len(groups) - 0.5))
    axis.grid(alpha=0.3, axis="y")
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def scatters(panels: dict[str, Any], xlabel: str, ylabel: str) -> Figure:
    """Draw {title: (x, y)} as points side by side, each with the line on which both are equal."""
    figure = new_figure(3.7 * len(panels), 3.5)
    axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    both = np.concatenate([np.ravel(values) for pair in panels.values() for values in pair])
    ends = (both.min(), both.max())
    for axis, (title, (x, y)) in zip(axes, panels.items(), strict=True):
        axis.plot(ends, ends, "--", color=BINARY, label="equal")
        axis.plot(x, y, "o", color=COLOURS["fprec"], markersize=5, alpha=0.6)
        axis.set(title=title, xlabel=xlabel)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel(ylabel)
    axes[0].legend(frameon=False)
    return figure


def _curves(axis, x, series, ylabel):
    """Draw {name: values} against many x, told apart by colour, dash and a few markers."""
    for i, (name, values) in enumerate(series.items()):
        colour, marker = ("black", *COLOURS.values())[i % 5], ("", *MARKERS.values())[i % 5]
        every = (i * len(x) // 40, max(1, len(x) // 8))
        axis.plot(x, values, DASHES[i % 4], color=colour, marker=marker, markevery=every, markersize=5, label=name)
    axis.set_ylabel(ylabel)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)


def pseudo_gradients(x: np.ndarray, surrogates: dict[str, Any], slopes: dict[str, Any]) -> Figure:
    """Draw the functions that stand in for the sign, the sign first, and beside them their slopes (no slope: 0)."""
    figure = new_figure(10, 3.8)
    left, right = figure.subplots(1, 2, sharex=True)
    _curves(left, x, surrogates, "forward pass of the stand-in")
    _curves(right, x, slopes, "slope, used in the backward pass")
    for axis in (left, right):
        axis.set_xlabel("x")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    return figure


def staircase(w: np.ndarray, losses: dict[str, Any], gradients: dict[str, Any], *, at: float | None = None) -> Figure:
    """Draw losses of one weight above what each estimator takes for the derivative of the first of them.

    ``at`` is a weight to look at: a line across both.
    """
    figure = new_figure(7.5, 5.6)
    upper, lower = figure.subplots(2, 1, sharex=True)
    _curves(upper, w, losses, "loss")
    _curves(lower, w, gradients, "gradient used")
    lower.set_xlabel("the weight w")
    for axis in (upper, lower):
        if at is not None:
            axis.axvline(at, color=BINARY, lw=3, zorder=1)
        axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    here = "" if at is None else f" A line marks w = {at:.3g}."
    return described(
        figure,
        f"Against one weight w: above, losses ({', '.join(losses)}); below, what is taken for the slope of the first"
        f" ({', '.join(gradients)}).{here}",
    )


def latent_weights(w: np.ndarray, crossings: np.ndarray) -> Figure:
    """Draw latent weights w (steps, few) with their crossings of zero marked, and how often all of them flipped."""
    figure = new_figure(10, 4)
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    moving, still = {"color": COLOURS["fbin"], "lw": 1.2}, {"color": BINARY, "lw": 0.8}
    for i, own in enumerate(w.T):
        flipped = np.flatnonzero((own[1:] >= 0) != (own[:-1] >= 0)) + 1
        left.plot(own, DASHES[i % 4], **(moving if len(flipped) else still))
        left.plot(flipped, own[flipped], "o", color="black", markersize=4)
    left.axhline(0, color="black", lw=1)
    for text, style in (("flipped", moving), ("never flipped", still),
                        ("a flip", {"color": "black", "marker": "o", "ls": ""})):  # fmt: skip
        left.plot([], [], label=text, **style)
    left.set(xlabel="step", ylabel="latent weight")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    shares = [100 * np.mean(np.minimum(crossings, 6) == count) for count in range(7)]
    right.bar(range(7), shares, color=COLOURS["wbin"], hatch="//", edgecolor="white")
    right.set_xticks(range(7), [*map(str, range(6)), "6+"])
    right.set(xlabel="flips of a weight", ylabel="share of the weights (%)")
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def two_paths(counts: np.ndarray, panels: dict[str, Any]) -> Figure:
    """Draw {title: (values, bits by floats, bits by whole numbers, threshold)} against counts, values above bits."""
    figure = new_figure(3.9 * len(panels), 4.4)
    axes = figure.subplots(2, len(panels), sharex=True, sharey="row", squeeze=False, height_ratios=(2, 1))
    for (upper, lower), (title, (values, floats, whole, t)) in zip(axes.T, panels.items(), strict=True):
        upper.plot(counts, values, "o-", color=COLOURS["fprec"], markersize=3, label="value after BatchNorm, float")
        upper.axhline(0, color="black", lw=1)
        lower.step(counts, whole, where="mid", color=COLOURS["fbin"], lw=4, label="(i >= t) XOR flip, whole numbers")
        lower.plot(counts, floats, "o", color=COLOURS["fprec"], markersize=2, label="its sign as a bit")
        for axis in (upper, lower):
            if counts[0] < t <= counts[-1]:
                axis.axvline(t, color=COLOURS["hybrid"], ls="--", label="threshold t")
            axis.spines[["top", "right"]].set_visible(False)
        upper.set_title(title, fontsize=10)
        lower.set(xlabel="count i", ylim=(-0.2, 1.2), yticks=[0, 1])
    axes[0, 0].set_ylabel("value")
    axes[1, 0].set_ylabel("bit")
    named = {text: line for axis in axes.T.flat for line, text in zip(*axis.get_legend_handles_labels())}
    columns = 4 if len(panels) > 2 else 2
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    return figure


def drops(published: dict[str, dict[str, list[float]]], xlabel: str) -> Figure:
    """Draw {network: {variant: accuracies}}: one row per network, a marker for each, a line from FBin to FPrec."""
    figure = new_figure(8, 1.2 + 0.5 * len(published))
    axis, labelled = figure.subplots(), set()
    for y, tops in enumerate(published.values()):
        low, high = tops["fbin"][0], tops["fprec"][0]
        axis.plot([low, high], [y, y], color=BINARY, lw=3, zorder=1)
        axis.text((low + high) / 2, y - 0.15, f"{high - low:.1f} points", ha="center", va="bottom")
        for variant, values in tops.items():
            label = None if variant in labelled else NAMES[variant]
            axis.plot(values, [y] * len(values), label=label, alpha=0.85, **style_of(variant, NAMES))
            labelled.add(variant)
    axis.set_yticks(range(len(published)), list(published))
    axis.set(xlabel=xlabel, ylim=(len(published) - 0.5, -0.7))
    axis.grid(alpha=0.3, axis="x")
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    return figure


def arms(groups: dict[str, dict[str, Any]], xlabel: str, ylabel: str) -> Figure:
    """Draw {variant: {arm: values of the seeds}}: a marker per seed, and a line through the means of neighbours.

    The line ends where a variant has no values for an arm: nothing was measured there.
    """
    figure = new_figure(7, 3.8)
    axis, names = figure.subplots(), max(map(list, groups.values()), key=len)
    for i, (variant, found) in enumerate(groups.items()):
        at = [names.index(name) for name in found]
        means = [np.mean(found[name]) if name in found else np.nan for name in names]
        axis.plot(range(len(names)), means, DASHES[i % 4], color=COLOURS[variant])
        for x, values in zip(at, found.values(), strict=True):
            label = NAMES[variant] if x == at[0] else None
            axis.plot(x + np.linspace(-0.06, 0.06, len(values)), values, label=label, **style_of(variant, NAMES))
    axis.set_xticks(range(len(names)), names)
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.grid(alpha=0.3, axis="y")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    return figure
