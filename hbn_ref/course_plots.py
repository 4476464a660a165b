"""Top floor, plots of the course: the pictures of the notebooks, drawn from plain data, in the colours of `plots`."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter
from numpy.typing import ArrayLike

from . import choices
from .plots import BINARY, COLOURS, KEPT, MARKERS, NAMES, choice, layer_bars, new_figure, style_of

DASHES = ("-", "--", ":", "-.")
HATCHES = ("", "//", "..", "xx", "\\\\", "oo", "++")


def _style(i):
    """Colour and marker of series i: no two series of a picture have the same marker before the eighth."""
    return {"color": list(COLOURS.values())[i % 4], "marker": (*MARKERS.values(), "^", "v", "P")[i % 7]}


def lines(
    x: Iterable[float], series: dict[str, Any], xlabel: str, ylabel: str, *, log: bool = False, title: str = ""
) -> Figure:
    """Draw {name: values} against x, each with a colour, a marker and a dash of its own."""
    figure, x = new_figure(7, 4), list(x)
    axis = figure.subplots()
    for i, (name, values) in enumerate(series.items()):
        axis.plot(x, values, DASHES[i % 4], label=name, **_style(i))
    axis.set(xlabel=xlabel, ylabel=ylabel, title=title, yscale="log" if log else "linear")
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    return figure


def words(x: ArrayLike) -> Figure:
    """Draw how a row of up to 64 values becomes one word: values, signs, bits, the tail grey."""
    x = np.asarray(x, float)
    bit = np.full(64, 0)
    bit[: len(x)] = x >= 0
    figure = new_figure(12, 2.6)
    axes = figure.subplots(3, 1, sharex=True)
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
        axis.tick_params(length=0)
    axes[-1].set_xticks([*range(0, 64, 8), 64])
    axes[-1].set_xlabel(f"channel = bit of the word; grey: the tail, {64 - len(x)} bits that stay 0")
    return figure


def bits_before_after(before: np.ndarray, after: np.ndarray, shares: dict[str, Any]) -> Figure:
    """Draw two histograms split at 0, where the sign splits them, and {layer: (share of +1 before, after)} as bars."""
    figure = new_figure(12, 3.6)
    axes = figure.subplots(1, 3)
    for axis, values, title in zip(axes, (before, after), ("before BatchNorm", "behind BatchNorm"), strict=False):
        low, high = np.quantile(values, (0.001, 0.995))
        edges = np.linspace(min(low, -high / 4), high, 41)
        edges -= edges[np.abs(edges).argmin()]  # so that 0 is an edge
        for part, bit, colour, hatch in ((values < 0, -1, BINARY, "//"), (values >= 0, 1, COLOURS["fbin"], None)):
            label = f"sign {bit:+}: {part.mean():.0%}"
            axis.hist(values[part], edges, color=colour, hatch=hatch, edgecolor="white", label=label)
        axis.axvline(0, color="black", lw=1)
        axis.set(xlabel="value", ylabel="values, logarithmic", title=title, yscale="log")
        axis.legend(frameon=False)
    for i, (colour, hatch) in enumerate(((COLOURS["wbin"], ".."), (COLOURS["hybrid"], None))):
        heights = [100 * pair[i] for pair in shares.values()]
        axes[2].bar(np.arange(len(shares)) + 0.4 * i, heights, 0.4, color=colour, hatch=hatch, edgecolor="white",
                    label=("before", "behind")[i])  # fmt: skip
    axes[2].axhline(50, color="black", lw=1, ls=":")
    axes[2].set_xticks(np.arange(len(shares)) + 0.2, list(shares))
    axes[2].set(ylabel="bits that are +1 (%)", title="every binary layer", ylim=(0, 125))
    axes[2].legend(frameon=False, ncols=2, loc="upper center")
    return figure


def seeds(groups: dict[str, Any], ylabel: str) -> Figure:
    """Draw {name: a value for each seed} as one column of marked dots a name, their mean as a line."""
    figure = new_figure(7, 3.6)
    axis = figure.subplots()
    for i, (name, values) in enumerate(groups.items()):
        style = _style(i)
        axis.plot(i + np.linspace(-0.1, 0.1, len(values)), values, ls="", markersize=9, label=name, **style)
        axis.hlines(np.mean(values), i - 0.25, i + 0.25, color=style["color"], lw=1)
    axis.set_xticks(range(len(groups)), [name.replace(": ", ":\n") for name in groups])
    axis.set(ylabel=ylabel, xlim=(-0.5, len(groups) - 0.5))
    axis.grid(alpha=0.3, axis="y")
    axis.spines[["top", "right"]].set_visible(False)
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


def staircase(w: np.ndarray, losses: dict[str, Any], gradients: dict[str, Any]) -> Figure:
    """Draw losses of one weight above what each estimator takes for the derivative of the first of them."""
    figure = new_figure(7.5, 5.6)
    upper, lower = figure.subplots(2, 1, sharex=True)
    _curves(upper, w, losses, "loss")
    _curves(lower, w, gradients, "gradient used")
    lower.set_xlabel("the weight w")
    for axis in (upper, lower):
        axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def filter_and_sign(w: np.ndarray, alpha: float) -> Figure:
    """Draw a filter (kh, kw), its sign, alpha times its sign and what is left over, numbers in the cells."""
    sign = np.where(w >= 0, 1.0, -1.0)
    panels = {"W": w, "B = sign(W)": sign, f"{alpha:.2f} B": alpha * sign, f"W - {alpha:.2f} B": w - alpha * sign}
    figure = new_figure(11, 3)
    for axis, (title, values) in zip(figure.subplots(1, 4), panels.items(), strict=True):
        image = axis.imshow(values, cmap="PuOr_r", vmin=-1, vmax=1)
        for (row, column), value in np.ndenumerate(values):
            dark = abs(value) > 0.6
            axis.text(column, row, f"{value:+.1f}", ha="center", va="center", fontsize=7.5,
                      color="white" if dark else "black")  # fmt: skip
        axis.set(title=title, xticks=[], yticks=[])
    figure.colorbar(image, ax=figure.axes, shrink=0.8, label="value")
    return figure


def bands(x: ArrayLike, series: dict[str, Any], xlabel: str, ylabel: str) -> Figure:
    """Draw {name: (seeds, points)} against x: the mean of the seeds, and a band from the lowest to the highest."""
    figure = new_figure(7.5, 4)
    axis = figure.subplots()
    for i, (name, values) in enumerate(series.items()):
        style, values = _style(i), np.asarray(values, float)
        axis.plot(x, values.mean(axis=0), DASHES[i % 4], label=name, **style)
        axis.fill_between(x, values.min(axis=0), values.max(axis=0), color=style["color"], alpha=0.15, lw=0)
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    return figure


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


def strips(panels: dict[str, dict[str, list[tuple[str, float, str]]]]) -> Figure:
    """Draw {xlabel: {row: [(layer, width, kind)]}} as strips side by side: colour and hatch tell the precision."""
    kinds = {"real": ("fprec", None), "binary weights": ("wbin", "//"), "fully binary": ("fbin", "xx")}
    figure, labelled = new_figure(12, 1.1 + 0.42 * max(map(len, panels.values()))), set()
    for axis, (label, rows) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        longest = max(sum(width for _, width, _ in parts) for parts in rows.values())
        for y, parts in enumerate(rows.values()):
            left = 0.0
            for name, width, kind in parts:
                (variant, hatch), new = kinds[kind], kind not in labelled
                axis.barh(y, width, 0.75, left, color=COLOURS[variant], hatch=hatch, edgecolor="white", lw=0.6,
                          label=kind if new else None)  # fmt: skip
                labelled.add(kind)
                if width * len(panels) > 0.011 * len(name) * longest:
                    box = {"facecolor": "white", "edgecolor": "none", "pad": 1.2, "alpha": 0.85}
                    axis.text(left + width / 2, y, name, ha="center", va="center", fontsize=7.5, bbox=box)
                left += width
        axis.set_yticks(range(len(rows)), list(rows))
        axis.set(xlabel=label, xlim=(0, longest), ylim=(len(rows) - 0.5, -0.5))
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def drops(published: dict[str, dict[str, list[float]]], xlabel: str) -> Figure:
    """Draw {network: {variant: accuracies}}, a row a network: a marker for each, a line where FPrec and FBin differ."""
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
    """Draw {variant: {arm: values of the seeds}}: a marker a seed, a line through the means."""
    figure = new_figure(7, 3.8)
    axis, names = figure.subplots(), max(map(list, groups.values()), key=len)
    for i, (variant, found) in enumerate(groups.items()):
        at = [names.index(name) for name in found]
        axis.plot(at, [np.mean(values) for values in found.values()], DASHES[i % 4], color=COLOURS[variant])
        for x, values in zip(at, found.values(), strict=True):
            label = NAMES[variant] if x == at[0] else None
            axis.plot(x + np.linspace(-0.06, 0.06, len(values)), values, label=label, **style_of(variant, NAMES))
    axis.set_xticks(range(len(names)), names)
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.grid(alpha=0.3, axis="y")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    return figure


def two_paths(counts: np.ndarray, panels: dict[str, Any]) -> Figure:
    """Draw {title: (values, bits by floats, bits by whole numbers, threshold)} against counts, values above bits."""
    figure = new_figure(3.9 * len(panels), 4.4)
    axes = figure.subplots(2, len(panels), sharex=True, sharey="row", squeeze=False, height_ratios=(2, 1))
    for (upper, lower), (title, (values, floats, whole, t)) in zip(axes.T, panels.items(), strict=True):
        upper.plot(counts, values, "o-", color=COLOURS["fprec"], markersize=3, label="value behind BatchNorm, float")
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


def bytes_a_layer(before: dict[str, int], after: dict[str, int]) -> Figure:
    """Draw {layer: bytes} as float32 and packed, a pair of bars a layer, with the factor between them."""
    figure = new_figure(8, 4.2)
    axis = figure.subplots()
    places = np.arange(len(before))
    styles = ((before, "float32, as trained", KEPT, "//"), (after, "packed", COLOURS["fbin"], None))
    for k, (sizes, label, colour, hatch) in enumerate(styles):
        style: dict[str, Any] = {"color": colour, "hatch": hatch, "edgecolor": "white", "label": label}
        axis.barh(places + 0.4 * k, [sizes[name] for name in before], 0.4, **style)
    for place, name in enumerate(before):
        axis.text(1.1 * before[name], place, f"{before[name] / after[name]:.1f} times", va="center", fontsize=8)
    axis.set_yticks(places + 0.2, list(before))
    axis.invert_yaxis()
    axis.set(xlabel="bytes, logarithmic", xscale="log", xlim=(min(after.values()) / 3, 8 * max(before.values())))
    axis.xaxis.set_major_formatter(EngFormatter())
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, loc="lower right")
    return figure


def answer(image: np.ndarray, title: str, top: list[tuple[str, float]]) -> Figure:
    """Draw an image as a network sees it, and beside it the classes that it holds likeliest, [(class, share)]."""
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


def _score_terms(axis, rows, gamma):
    """Stack the two terms of the score."""
    error, share = (np.array([row[key] for row in rows]) for key in ("error", "share"))
    places = range(len(rows))
    axis.bar(places, error, color=COLOURS["wbin"], hatch="..", edgecolor="white", label="E")
    axis.bar(
        places, gamma / share, bottom=error, color=COLOURS["fbin"], hatch="xx", edgecolor="white", label="gamma / NF"
    )
    axis.set_xticks(places, [row["layer"] for row in rows])
    axis.set(title=f"3. score, gamma = {gamma:.2g}", ylabel="M")
    axis.legend(frameon=False)


def _score_clusters(axis, rows, clusters):
    """Draw the scores on a line, a row a layer, the clusters by colour and marker, what is kept ringed."""
    score, kept = np.array([row["score"] for row in rows]), [i for i, row in enumerate(rows) if row["kept_real"]]
    for k, cluster in enumerate(reversed(clusters)):
        axis.plot(score[cluster], cluster, markersize=9, ls="", label=f"cluster {k + 1}", **_style(k))
    label = "kept real, on the left green and hatched"
    axis.plot(score[kept], kept, "o", color="black", markerfacecolor="none", markersize=17, ls="", label=label)
    axis.set_yticks(range(len(rows)), [row["layer"] for row in rows])
    axis.set(xscale="log", xlabel="M, logarithmic", title="4. clusters, from the highest", ylim=(len(rows), -1))
    axis.margins(x=0.12)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter(NullFormatter())


def metric_steps(rows: list[dict[str, Any]], gamma: float, clusters: list[list[int]]) -> Figure:
    """Draw chapter 8's steps for rows of layer, error, share, score and kept_real: E, NF, score, clusters of it."""
    figure = new_figure(14, 3.8)
    axes = figure.subplots(1, 4)
    layer_bars(axes[0], rows, [row["error"] for row in rows], "1. error", "E", False)
    layer_bars(axes[1], rows, [row["share"] for row in rows], "2. share of the operations", "NF, logarithmic", True)
    _score_terms(axes[2], rows, gamma)
    _score_clusters(axes[3], rows, clusters)
    figure.legend(*axes[3].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    return figure


def kept_maps(panels: dict[str, Any], columns: int, gammas: np.ndarray, names: list[str], mark: float) -> Figure:
    """Draw {title: kept or not (layers, gammas)} as small multiples: squares where a layer stays real, else dots."""
    figure = new_figure(3 * columns, 1.7 * -(-len(panels) // columns) + 0.4)
    axes = figure.subplots(-(-len(panels) // columns), columns, sharex=True, sharey=True, squeeze=False)
    for axis, (title, kept) in zip(axes.flat, panels.items(), strict=False):
        for i, row in enumerate(np.asarray(kept, bool)):
            axis.plot(gammas[row], np.full(row.sum(), i), "s", color=KEPT, markersize=5, ls="")
            axis.plot(gammas[~row], np.full((~row).sum(), i), ".", color=BINARY, markersize=3, ls="")
        axis.axvline(mark, color="black", lw=1, ls=":")
        axis.set_yticks(range(len(names)), names)
        axis.set(xscale="log", ylim=(len(names) - 0.5, -0.5))
        axis.set_title(title, fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    figure.supxlabel("gamma; squares: kept real; dotted: where both terms have equal geometric means", fontsize=10)
    return figure


def cloud(result: dict[str, Any]) -> Figure:
    """Draw `choice` with bars of one standard error over the seeds; one seed has none."""
    figure = choice(result)
    [axis] = figure.axes
    for key, found in result["choices"].items():
        tops = np.array(list(found.values()))
        if len(tops) < 2:
            return figure
        half = tops.std(ddof=1) / np.sqrt(len(tops))
        axis.vlines(result["ops"][key], tops.mean() - half, tops.mean() + half, color=BINARY, lw=1, zorder=1)
    colours = {line.get_label(): line.get_color() for line in axis.lines}
    for row in choices.choice_rows(result):
        if row["rule"] not in colours:
            continue
        low, high = row["top1"] - row["top1_se"], row["top1"] + row["top1_se"]
        axis.vlines(row["ops"], low, high, color=colours[row["rule"]], lw=1.5, zorder=1.5)
    return figure


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


def grouped_bars(labels: list[str], panels: dict[str, Any], ylabel: str, *, log: bool = False) -> Figure:
    """Draw {title: {series: a value for each label}} side by side; a series named after a variant has its colour."""
    figure = new_figure(5.6 * len(panels), 3.6)
    for axis, (title, series) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        width = 0.8 / len(series)
        for i, (name, values) in enumerate(series.items()):
            places = np.arange(len(labels)) + (i - (len(series) - 1) / 2) * width
            colour = next((COLOURS[key] for key, text in NAMES.items() if name.startswith(text)), BINARY)
            axis.bar(places, values, width, color=colour, hatch=HATCHES[i % 7], edgecolor="white",
                     label=name)  # fmt: skip
        axis.set_xticks(range(len(labels)), labels, rotation=30)
        axis.set(ylabel=ylabel, title=title, yscale="log" if log else "linear")
        axis.set_ylim(top=max(map(max, series.values())) * (15 if log else 1.3))  # room for the legend
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, loc="upper right")
    return figure


def ladder(rates: dict[str, float], limits: dict[str, float], xlabel: str) -> Figure:
    """Draw {rung: rate} from the bottom up on a logarithmic axis, and {name: rate} of limits as lines across."""
    figure = new_figure(9, 0.45 * len(rates) + 1.6)
    axis = figure.subplots()
    for i, (name, rate) in enumerate(rates.items()):
        real = name.startswith("real")
        colour = COLOURS["fprec" if real else "fbin"]
        axis.barh(i, rate, color=colour, hatch="//" if real else None, edgecolor="white")
        axis.annotate(EngFormatter(places=1)(rate), (rate, i), (-6, 0), textcoords="offset points", ha="right",
                      va="center", color="white", weight="bold", bbox={"color": colour, "pad": 2, "lw": 0})  # fmt: skip
    for i, (name, rate) in enumerate(limits.items()):
        axis.axvline(rate, color="black", lw=1.5, ls=DASHES[1 + i % 3], label=name)
    axis.set_yticks(range(len(rates)), list(rates))
    axis.set(xscale="log", xlabel=xlabel, xlim=(min(rates.values()) / 100, 1.5 * max(limits.values())))
    axis.xaxis.set_major_formatter(EngFormatter())
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure
