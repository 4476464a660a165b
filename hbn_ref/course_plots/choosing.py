"""Which inputs stay real: the steps of the metric, and every choice."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from .. import choices
from ..plots import BINARY, COLOURS, KEPT, choice, layer_bars, new_figure
from .look import described, style_of_series


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
    """Draw the scores on a line, one row per layer; colour and marker show the cluster, a ring what is kept."""
    score, kept = np.array([row["score"] for row in rows]), [i for i, row in enumerate(rows) if row["kept_real"]]
    for k, cluster in enumerate(reversed(clusters)):
        axis.plot(score[cluster], cluster, markersize=9, ls="", label=f"cluster {k + 1}", **style_of_series(k))
    label = "kept real, on the left green and hatched"
    if kept:
        axis.plot(score[kept], kept, "o", color="black", markerfacecolor="none", markersize=17, ls="", label=label)
    axis.set_yticks(range(len(rows)), [row["layer"] for row in rows])
    axis.set(
        xscale="log",
        xlabel="M, logarithmic",
        title="4. clusters",
        ylim=(len(rows), -1),
    )
    axis.margins(x=0.12)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter(NullFormatter())


STEPS = ("error", "cost share", "score", "clusters", "choice")


def _choice(axis, rows):
    """What each layer is given: real inputs, or bits."""
    for i, row in enumerate(rows):
        colour, hatch, text = (KEPT, "//", "real") if row["kept_real"] else (BINARY, None, "bits")
        axis.barh(i, 1, 0.7, color=colour, hatch=hatch, edgecolor="white")
        axis.text(0.5, i, text, ha="center", va="center", bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})
    axis.set_yticks(range(len(rows)), [row["layer"] for row in rows])
    axis.set(xticks=[], title="5. choice: inputs", ylim=(len(rows), -1))
    axis.spines[["top", "right", "bottom"]].set_visible(False)


def five_steps(rows: list[dict[str, Any]], gamma: float, clusters: list[list[int]], step: int = 5) -> Figure:
    """Draw chapter 8's five steps up to ``step``; what comes later is an empty frame, so that the figure grows.

    Parameters
    ----------
    rows : a dict for each layer: layer, error, share, score, kept_real
    gamma : of the score, error + gamma / share
    clusters : positions in rows, the cluster of the lowest scores first
    step : 1 error, 2 cost share, 3 score, 4 clusters, 5 choice

    Returns
    -------
    matplotlib.figure.Figure
    """
    if step not in range(1, 6):
        raise ValueError(f"step: expected a whole number from 1 to 5, got {step!r}")
    figure = new_figure(14, 3.6)
    axes = figure.subplots(1, 5, width_ratios=(1, 1, 1, 1.2, 0.8))
    known = rows if step == 5 else [{**row, "kept_real": False} for row in rows]  # do not tell the end before it comes
    panels = (
        lambda axis: layer_bars(axis, known, [row["error"] for row in rows], "1. error", "E", False),
        lambda axis: layer_bars(axis, known, [row["share"] for row in rows], "2. cost share", "NF, logarithmic", True),
        lambda axis: _score_terms(axis, rows, gamma),
        lambda axis: _score_clusters(axis, known, clusters),
        lambda axis: _choice(axis, rows),
    )
    for k, (axis, draw) in enumerate(zip(axes, panels, strict=True)):
        if k < step:
            draw(axis)
            axis.tick_params(axis="x", rotation=30 if k < 3 else 0)
        else:
            axis.set(xticks=[], yticks=[])
            axis.set_title(f"{k + 1}. {STEPS[k]}", color=BINARY)
            axis.spines[:].set(color=BINARY, linestyle=":")
    if step >= 4:
        figure.legend(*axes[3].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    return described(figure, _said(rows, gamma, clusters, step))


def _said(rows, gamma, clusters, step):
    names = [row["layer"] for row in rows]
    parts = [
        "error " + ", ".join(f"{row['layer']} {row['error']:.2f}" for row in rows),
        "cost share " + ", ".join(f"{row['layer']} {row['share']:.2g}" for row in rows),
        f"score with gamma {gamma:.2g} " + ", ".join(f"{row['layer']} {row['score']:.2f}" for row in rows),
        "clusters from the highest " + " | ".join(" ".join(names[i] for i in own) for own in reversed(clusters)),
        "kept real: " + (", ".join(row["layer"] for row in rows if row["kept_real"]) or "none"),
    ]
    done = "; ".join(f"{k}. {text}" for k, text in enumerate(parts[:step], start=1))
    return f"{'Five steps' if step == 5 else f'The first {step} of five steps'}, a panel each: {done}."


def cloud(result: dict[str, Any]) -> Figure:
    """Draw `choice` with bars of one standard error over the seeds; one seed has none."""
    figure = choice(result)
    axis = figure.axes[0]
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
