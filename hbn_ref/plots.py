"""Top floor, plots: pictures of studies, drawn from plain reports, in colours safe for the colour-blind.

The pictures of the notebooks are in `course_plots`.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from . import abstract, choices, files
from .study import NAMES, larger

# Okabe and Ito's palette; a variant has one colour and one marker everywhere
COLOURS = {"fprec": "#0072B2", "wbin": "#56B4E9", "fbin": "#D55E00", "hybrid": "#009E73"}
MARKERS = {"fprec": "s", "wbin": "D", "fbin": "o", "hybrid": "*"}
KEPT, BINARY = "#009E73", "#B0B0B0"
RULE_STYLES = {  # of the rules in the picture of `choice`, the first on top; the others are in its second panel
    "metric": ("*", "#009E73"), "cost alone": ("v", "#0072B2"), "error alone": ("^", "#D55E00"),
    "rise": ("<", "#E69F00"), "best of all": ("o", "#000000"), "at random": ("x", "#CC79A7"),
}  # fmt: skip


def new_figure(width: float, height: float) -> Figure:
    """A figure that needs no screen and leaves the user's matplotlib settings alone."""
    return Figure(figsize=(width, height), layout="constrained", dpi=120)


def save(figure: Figure, path: files.PathLike) -> None:
    """Write a figure to ``path``, whole or not at all."""
    with files.replacing(path) as temporary:
        figure.savefig(temporary)


def layer_bars(
    axis: Axes, rows: list[dict[str, Any]], values: Iterable[float], title: str, label: str, log: bool
) -> None:
    """Draw a bar for each layer of a study's metric, and mark the layers that are kept real."""
    for i, (row, value) in enumerate(zip(rows, values, strict=True)):
        kept = row["kept_real"]
        axis.bar(i, value, color=KEPT if kept else BINARY, hatch="//" if kept else None, edgecolor="white")
    axis.set_xticks(range(len(rows)), [row["layer"] for row in rows], rotation=60 if len(rows) > 6 else 0)
    axis.set_title(title)
    axis.set_ylabel(label)
    if log:
        axis.set_yscale("log")
    axis.spines[["top", "right"]].set_visible(False)


def title_of(name: str) -> str:
    """Return how a study's network is called: "FBin", "Hybrid: conv5 conv6"; a name of the user's own stays."""
    variant, *rest = name.split("-")
    return ": ".join([NAMES[variant], " ".join(rest)]) if rest and variant in NAMES else NAMES.get(name, name)


def style_of(name: str, names: Iterable[str]) -> dict[str, Any]:
    """How a network of ``names`` is drawn: a name begins with its variant, which gives the colour."""
    named = [other for other in names if other not in NAMES]
    marker = MARKERS[name] if name in MARKERS else "*^v<>"[(named.index(name) + ("hybrid" in names)) % 5]
    colour = COLOURS.get(name.partition("-")[0], COLOURS["hybrid"])
    return {"marker": marker, "color": colour, "markersize": 14 if marker == "*" else 9, "ls": ""}


def _accuracy_against(axis, variants, key, label):
    for name, found in variants.items():
        text = f"{title_of(name)}, {found['top1']:.1f} %"
        axis.plot(found[key], found["top1"], label=text, **style_of(name, variants))
    _cost_axis(axis, label)


def _cost_axis(axis, label):
    """Accuracy upwards, a cost to the right, logarithmic."""
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(EngFormatter())
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.margins(x=0.25, y=0.2)
    axis.set_xlabel(label)
    axis.set_ylabel("top-1, test drawings (%)")
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)


def study(report: dict[str, Any]) -> Figure:
    """Draw a study: error, cost and score of each layer, with those kept real marked; below, accuracy against cost.

    Parameters
    ----------
    report : dict, as `study.run` returns it

    Returns
    -------
    matplotlib.figure.Figure
    """
    rows = report["metric"]
    figure = new_figure(12, 8 if rows else 4.5)
    grid = figure.add_gridspec(2 if rows else 1, 6)
    if rows:
        total = sum(row["macs"] for row in rows)
        kept = ", ".join(row["layer"] for row in rows if row["kept_real"]) or "none"
        panels = (
            ("Binarization error E", report["settings"]["form"], [row["error"] for row in rows], False),
            ("Share of the operations NF", "share, logarithmic", [row["macs"] / total for row in rows], True),
            (f"Score E + {report['gamma']:.2g} / NF", "score", [row["score"] for row in rows], False),
        )
        for i, (title, label, values, log) in enumerate(panels):
            layer_bars(figure.add_subplot(grid[0, 2 * i : 2 * i + 2]), rows, values, title, label, log)
        figure.suptitle(
            f"{report['settings']['model']} on {report['data']}, {len(report['classes'])} classes: "
            f"inputs kept real in {kept} (green, hatched)"
        )
    operations, weights = figure.add_subplot(grid[-1, :3]), figure.add_subplot(grid[-1, 3:])
    _accuracy_against(operations, report["variants"], "equivalent_ops", "equivalent operations")
    _accuracy_against(weights, report["variants"], "weight_bytes", "bytes of weights")
    figure.legend(*operations.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def evidence(found: dict[str, Any]) -> Figure:
    """Draw `presets.evidence` against operations and bytes: large marks are means over seeds, small ones seeds."""
    figure = new_figure(12, 5)
    axes = figure.subplots(1, 2)
    for axis, key, label in zip(
        axes, ("equivalent_ops", "file_bytes"), ("equivalent operations", "bytes of the packed file"), strict=True
    ):
        for name, runs in found.items():
            tops, style = [run["top1"] for run in runs.values()], style_of(name, found)
            cost = next(iter(runs.values()))[key]
            axis.plot(cost, np.mean(tops), label=f"{title_of(name)}, {np.mean(tops):.1f} %", **style)
            beside = cost * 1.04 ** (np.arange(len(tops)) - (len(tops) - 1) / 2)
            axis.plot(beside, tops, **{**style, "markersize": 5, "alpha": 0.5})
        _cost_axis(axis, label)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    name, counts = next(iter(found["fprec"].values()))["data"], {len(runs) for runs in found.values()}
    seeds = " to ".join(str(count) for count in sorted({min(counts), max(counts)}))
    figure.suptitle(f"{name}: mean of {seeds} seeds (small: each), last epoch, one crop")
    return figure


def choice(result: dict[str, Any]) -> Figure:
    """Draw `choices.choice`: every choice of layers, accuracy against operations; lines join what each rule picks.

    The number in a dot is that of the layers that it keeps real. If rules of `choices.MEASURED` are there, a second
    panel compares all rules with the metric, on the mean of all budgets.
    """
    measured = choices.is_measured(result)
    figure = new_figure(15 if measured else 9, 6)
    axis, *others = figure.subplots(1, 1 + measured, squeeze=False)[0]
    if measured:
        _rules_panel(others[0], choices.overall_rows(result))
    ops, tops = result["ops"], {key: np.mean(list(found.values())) for key, found in result["choices"].items()}
    axis.plot(
        [ops[key] for key in tops], list(tops.values()), "o", color=BINARY, markersize=11, ls="",
        label="every choice, and how many layers it keeps",
    )  # fmt: skip
    for key, top in tops.items():
        count = 0 if key == "none" else key.count("+") + 1
        axis.annotate(str(count), (ops[key], top), ha="center", va="center", fontsize=7, zorder=5)
    rows = choices.choice_rows(result)
    for place, (rule, (marker, colour)) in enumerate(RULE_STYLES.items()):
        own = [row for row in rows if row["rule"] == rule]
        hollow: dict[str, Any] = {"markerfacecolor": "none"} if marker in "ov^<" else {}
        if own:
            axis.plot(
                [row["ops"] for row in own], [row["top1"] for row in own], marker, color=colour, markersize=15, lw=1,
                ls=":" if marker != "o" else "", label=rule, zorder=4 - place / 10, **hollow,
            )  # fmt: skip
    _cost_axis(axis, "equivalent operations")
    counts = ", ".join(map(str, dict.fromkeys(row["count"] for row in rows)))
    axis.legend(frameon=False, title=f"{counts} layers kept real by", markerscale=0.7)
    seeds = len(next(iter(result["choices"].values())))
    axis.set_title(
        f"Which inputs to keep real: all {len(tops)} choices, {len(result['classes'])} classes, {seeds} seeds"
    )
    return figure


def _rules_panel(axis, rows):
    """Each rule minus the metric, the highest sum at the top: with as many layers, and with as many operations."""
    kinds = {"layers": ("o", "#0072B2", -0.14), "operations": ("s", "#D55E00", 0.14)}
    rows = [row for row in rows if not row["rule"].startswith("metric")]  # other forms of E are in the table
    rows.sort(key=lambda row: sum(row[kind]["metric"][0] for kind in kinds))
    for kind, (marker, colour, beside) in kinds.items():
        found = [row[kind]["metric"] for row in rows]
        errors = [larger(*own[1:]) for own in found]
        axis.errorbar(
            [own[0] for own in found], np.arange(len(rows)) - beside, xerr=errors, fmt=marker, color=colour,
            label=f"at most as many {kind}", lw=1,
        )  # fmt: skip
    axis.axvline(0, color="#808080", lw=1, ls=":")
    axis.set_yticks(range(len(rows)), [row["rule"] + " (hindsight)" * (row["rule"] == "best of all") for row in rows])
    axis.set(title="Each rule, mean over all budgets", xlabel="top-1 minus that of the metric (points)")
    axis.legend(frameon=False, title="bars: one standard error", loc="lower right")
    axis.grid(alpha=0.3, axis="x")
    axis.spines[["top", "right"]].set_visible(False)


CLAIM_TITLES = {
    "sketchanet": "Sketch-A-Net, sketches",
    "resnet18": "ResNet-18, sketches",
    "squeezenet": "SqueezeNet, sketches",
    "photos": "ResNet-18, photos",
}


def claims(found: dict[str, Any]) -> Figure:
    """Draw `claims.run`: a panel per experiment with each network's top-1; last, the gap that Hybrid-1 closes.

    A bar is the mean over seeds, a mark a single seed. Two lines show the levels of FPrec and FBin. Networks stand in
    the order of their operations; one that is the same as another in all seeds is left out.
    """
    shown = [name for name in CLAIM_TITLES if found["networks"].get(name)]
    curve = abstract.curve_rows(found)
    panels = len(shown) + bool(curve)
    figure = new_figure(12, 4 * max(1, -(-panels // 3)))
    axes = list(figure.subplots(max(1, -(-panels // 3)), 3, squeeze=False).flat)
    for axis, name in zip(axes, shown):
        _claim_panel(axis, name, found["networks"][name])
    if curve:
        _curve_panel(axes[len(shown)], curve)
    for axis in axes[panels:]:
        axis.set_visible(False)
    figure.suptitle("Each network's accuracy (bar: mean of the seeds, marks: each); the cheapest stands left")
    return figure


def _curve_panel(axis, rows):
    """The share of the gap that Hybrid-1 closes against epochs, with the larger of its two standard errors."""
    epochs, shares = [row["epochs"] for row in rows], [100 * row["share"] for row in rows]
    errors = [100 * larger(row["over_seeds"], row["over_drawings"]) for row in rows]
    axis.errorbar(epochs, shares, yerr=errors, fmt="o", color=COLOURS["hybrid"], capsize=4)
    axis.set_xscale("log")
    axis.set_xticks(epochs, [str(count) for count in epochs])
    axis.minorticks_off()
    axis.axhline(100, color="#808080", lw=1, ls=":")
    axis.set_ylim(0, max(110, *(1.1 * share for share in shares)))
    axis.set(title="Sketch-A-Net: is it a matter of time?", xlabel="epochs", ylabel="gap closed by Hybrid-1 (%)")
    axis.spines[["top", "right"]].set_visible(False)


def _claim_panel(axis, name, networks):
    own = {n: runs for n, runs in networks.items() if not all(run.get("same_as") for run in runs.values())}
    order = sorted(own, key=lambda n: next(iter(own[n].values()))["equivalent_ops"])
    for place, network in enumerate(order):
        tops = [run["top1"] for run in networks[network].values()]
        kind = network.partition("-")[0].rstrip("0123456789")
        colour, marker = COLOURS.get(kind, COLOURS["hybrid"]), MARKERS.get(kind, MARKERS["hybrid"])
        beside = place + 0.12 * (np.arange(len(tops)) - (len(tops) - 1) / 2)
        axis.plot(beside, tops, marker, color=colour, markersize=8 if marker == "*" else 6, alpha=0.7)
        axis.plot(place, np.mean(tops), "_", color=colour, markersize=22, markeredgewidth=2.5)
        if network in ("fprec", "fbin"):
            axis.axhline(float(np.mean(tops)), color=colour, lw=1, ls=":")
    axis.set_xticks(range(len(order)), [abstract.plain(n) for n in order], rotation=50, ha="right", fontsize=8)
    axis.set(title=CLAIM_TITLES[name], ylabel="top-1, test images (%)")
    axis.spines[["top", "right"]].set_visible(False)
