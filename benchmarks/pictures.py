"""The picture of a benchmark report: one panel per table."""

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

COLOURS = {
    "vector": "#009E73", "plain": "#56B4E9", "NumPy": "#B0B0B0", "PyTorch": "#D55E00", "OpenVINO": "#0072B2",
}  # fmt: skip


def _limit(axis, table):
    rows = table["rows"]
    for i, kernel in enumerate(("plain", "vector")):
        places = [3 * j + i for j in range(len(rows))]
        axis.bar(places, [100 * row["share"][kernel] for row in rows], 0.9, color=COLOURS[kernel], label=kernel)
    axis.set_xticks(
        [3 * j + 0.5 for j in range(len(rows))], [f"{r['layer']}, {r['batch']}" for r in rows], rotation=60
    )  # fmt: skip
    axis.set_ylabel("% of the popcount limit")
    axis.set_ylim(0, 119)
    axis.axhline(100, color="black", lw=0.8)
    axis.set_title(f"Packed product; limit {table['limit'] / 1e12:.2f} T MAC/s; layer, batch")
    axis.legend(frameon=False, ncols=2, loc="upper left")


def _convolutions(axis, table):
    rows = table["rows"]
    for peer in ("PyTorch", "OpenVINO", "NumPy", "plain"):
        values = [
            min((s for name, s in row["seconds"].items() if name.startswith(peer)), default=float("nan"))
            / row["seconds"]["vector"]
            for row in rows
        ]
        best = ", faster layout" if peer in ("PyTorch", "OpenVINO") else ""
        axis.plot(range(len(rows)), values, "o-", color=COLOURS[peer], label=f"{peer}{best}")
    axis.axhline(1, color="black", lw=0.8)
    axis.set_yscale("log")
    axis.set_xticks(range(len(rows)), [f"{r['layer']}, {r['batch']}" for r in rows], rotation=60)
    axis.set_ylabel("time / that of the vector kernel")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(ScalarFormatter())
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.set_title("Packed convolution beside others; layer, batch")
    axis.legend(frameon=False, ncols=2, loc="center", bbox_to_anchor=(0.5, 0.55))


def _training(axis, table):
    seconds = {name: value for name, value in table["seconds"].items() if name != "augmentation"}  # beside the step
    colours = [COLOURS["PyTorch"] if name.startswith("PyTorch") else COLOURS["vector"] for name in seconds]
    axis.barh(list(seconds)[::-1], [1e3 * s for s in seconds.values()][::-1], color=colours[::-1])
    axis.set_xlabel("ms")
    axis.set_title(f"Training step of the small network, batch {table['batch']}")


def _networks(axis, table):
    rows = table["rows"]
    labels = [f"{row['network']} {row['variant']}" for row in rows]
    colours = [COLOURS["PyTorch"] if "PyTorch" in label else COLOURS["vector"] for label in labels]
    axis.barh(labels[::-1], [1e3 * row["seconds"] for row in rows][::-1], color=colours[::-1])
    axis.tick_params(axis="y", labelsize=7)
    axis.set_xlabel("ms per image")
    axis.set_title("Whole networks, one image")


PANELS = {"limit": _limit, "convolutions": _convolutions, "training": _training, "networks": _networks}


def draw(report):
    """Return a figure of the tables that a report has."""
    shown = [name for name in PANELS if name in report]
    figure = Figure(figsize=(13, 5 * -(-len(shown) // 2)), layout="constrained", dpi=110)
    parts = figure.subfigures(-(-len(shown) // 2), min(2, len(shown)), squeeze=False).ravel()
    for part, name in zip(parts, shown, strict=False):
        axis = part.add_subplot()
        PANELS[name](axis, report[name])
        axis.spines[["top", "right"]].set_visible(False)
    machine = report["machine"]
    threads = "one thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
    held = f" held back to {machine['held_back']}" if machine.get("held_back") else ""
    figure.suptitle(f"{machine['processor']}{held}, {threads}, {machine['date']}")
    return figure
