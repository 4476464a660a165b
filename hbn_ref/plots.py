"""Top floor, plots: every picture of the package, drawn from plain reports, in colours safe for the colour-blind."""

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from . import files

# Okabe and Ito's palette; a variant has one colour and one marker everywhere
COLOURS = {"fprec": "#0072B2", "wbin": "#56B4E9", "fbin": "#D55E00", "hybrid": "#009E73"}
MARKERS = {"fprec": "s", "wbin": "D", "fbin": "o", "hybrid": "*"}
NAMES = {"fprec": "FPrec", "wbin": "WBin", "fbin": "FBin", "hybrid": "Hybrid"}
KEPT, BINARY = "#009E73", "#B0B0B0"


def _figure(width, height):
    """A figure that needs no screen and leaves the user's matplotlib settings alone."""
    return Figure(figsize=(width, height), layout="constrained", dpi=120)


def save(figure, path):
    """Write a figure to ``path``, whole or not at all."""
    with files.replacing(path) as temporary:
        figure.savefig(temporary)


def _bars(axis, rows, values, title, label, log):
    for i, (row, value) in enumerate(zip(rows, values, strict=True)):
        kept = row["kept_real"]
        axis.bar(i, value, color=KEPT if kept else BINARY, hatch="//" if kept else None, edgecolor="white")
    axis.set_xticks(range(len(rows)), [row["layer"] for row in rows], rotation=60 if len(rows) > 6 else 0)
    axis.set_title(title)
    axis.set_ylabel(label)
    if log:
        axis.set_yscale("log")
    axis.spines[["top", "right"]].set_visible(False)


def _accuracy_against(axis, variants, key, label):
    for name, found in variants.items():
        size = 14 if name == "hybrid" else 9
        text = f"{NAMES[name]}, {found['top1']:.1f} %"
        axis.plot(found[key], found["top1"], MARKERS[name], color=COLOURS[name], markersize=size, ls="", label=text)
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(EngFormatter())
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.margins(x=0.25, y=0.2)
    axis.set_xlabel(label)
    axis.set_ylabel("top-1, test drawings (%)")
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)


def study(report):
    """Draw a study: error, cost and score of each layer, the ones kept real marked; below, accuracy against cost.

    Parameters
    ----------
    report : dict, as `study.run` returns it

    Returns
    -------
    matplotlib.figure.Figure
    """
    rows = report["metric"]
    figure = _figure(12, 8 if rows else 4.5)
    grid = figure.add_gridspec(2 if rows else 1, 6)
    if rows:
        total = sum(row["macs"] for row in rows)
        kept = ", ".join(row["layer"] for row in rows if row["kept_real"]) or "none"
        panels = (
            ("Binarization error E", report["settings"]["form"], [row["error"] for row in rows], False),
            ("Share of the operations NF", "share, logarithmic", [row["macs"] / total for row in rows], True),
            (f"Score E + {report['gamma']:.2g} / NF", "score, logarithmic", [row["score"] for row in rows], True),
        )
        for i, (title, label, values, log) in enumerate(panels):
            _bars(figure.add_subplot(grid[0, 2 * i : 2 * i + 2]), rows, values, title, label, log)
        figure.suptitle(
            f"{report['settings']['model']} on {report['data']}, {len(report['classes'])} classes: "
            f"inputs kept real in {kept} (green, hatched)"
        )
    operations, weights = figure.add_subplot(grid[-1, :3]), figure.add_subplot(grid[-1, 3:])
    _accuracy_against(operations, report["variants"], "equivalent_ops", "equivalent operations")
    _accuracy_against(weights, report["variants"], "weight_bytes", "bytes of weights")
    figure.legend(*operations.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure
