"""Bars: shares of bits, operations, bytes, rates."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from ..plots import BINARY, COLOURS, KEPT, NAMES, new_figure
from .look import DASHES, HATCHES, KINDS, described


def bits_before_after(before: np.ndarray, after: np.ndarray, shares: dict[str, Any]) -> Figure:
    """Draw two histograms split at 0, where the sign splits them, and {layer: (share of +1 before, after)} as bars."""
    figure = new_figure(12, 3.6)
    axes = figure.subplots(1, 3)
    for axis, values, title in zip(axes, (before, after), ("before BatchNorm", "after BatchNorm"), strict=False):
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
                    label=("before", "after")[i])  # fmt: skip
    axes[2].axhline(50, color="black", lw=1, ls=":", label="half")
    axes[2].set_xticks(np.arange(len(shares)) + 0.2, list(shares))
    axes[2].set(ylabel="bits that are +1 (%)", title="every binary layer", ylim=(0, 125))
    axes[2].legend(frameon=False, ncols=3, loc="upper center", fontsize=8)
    return figure


def strips(panels: dict[str, dict[str, list[tuple[str, float, str]]]]) -> Figure:
    """Draw {xlabel: {row: [(layer, width, kind)]}} as strips side by side: colour and hatch tell the precision."""
    figure, labelled = new_figure(12, 1.1 + 0.42 * max(map(len, panels.values()))), set()
    for axis, (label, rows) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        longest = max(sum(width for _, width, _ in parts) for parts in rows.values())
        for y, parts in enumerate(rows.values()):
            left = 0.0
            for name, width, kind in parts:
                (variant, hatch), new = KINDS[kind], kind not in labelled
                axis.barh(y, width, 0.75, left, color=COLOURS[variant], hatch=hatch, edgecolor="white", lw=0.6,
                          label=kind if new else None)  # fmt: skip
                labelled.add(kind)
                if width > 0.0061 * len(name) * len(panels) * longest:  # where the name fits
                    box = {"facecolor": "white", "edgecolor": "none", "pad": 1.2, "alpha": 0.85}
                    axis.text(left + width / 2, y, name, ha="center", va="center", fontsize=7.5, bbox=box)
                left += width
        axis.set_yticks(range(len(rows)), list(rows))
        axis.set(xlabel=label, xlim=(0, longest), ylim=(len(rows) - 0.5, -0.5))
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    said = "; ".join(f"{label}: {', '.join(map(_widest, rows, rows.values()))}" for label, rows in panels.items())
    return described(figure, f"Strips of parts laid end to end. {said}.")


def _widest(row, parts):
    name, width, kind = max(parts, key=lambda part: part[1])
    return f"{row} {sum(part[1] for part in parts):.3g}, the widest part {name or kind} with {width:.3g}"


def bytes_a_layer(before: dict[str, int], after: dict[str, int]) -> Figure:
    """Draw {layer: bytes} as float32 and packed: a pair of bars per layer, with the factor between them."""
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
        axis.axvline(rate, color="black", lw=1.5, ls=DASHES[1 + i % 3], label=f"{name}: {EngFormatter(places=1)(rate)}")
    axis.set_yticks(range(len(rates)), list(rates))
    axis.set(xscale="log", xlabel=xlabel, xlim=(min(rates.values()) / 100, 1.5 * max(limits.values())))
    axis.xaxis.set_major_formatter(EngFormatter())
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure
