"""Chapter 7, cost: operations, bits and bytes, layer by layer.

A convolution with n = kh kw C_in weights per filter does ``n C_out Ho Wo`` multiply-accumulates (MACs). If its inputs
and its weights are binary, it does 64 at a time, in words. XNOR-Net's factor for that, 58, is the default here:

    equivalent operations = real MACs + binary MACs / 58.

Weights, by the paper's rule: 32 bits per real weight, 1 bit per binary weight, and one float32 alpha per binary filter.
Both counts leave BatchNorm out, as in the paper; ``params`` counts its parameters. Activation bytes are those of a
layer's input as its convolution reads it: 32 bits per value, or one.
"""

import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import numpy as np

from . import conv, engine, layers, memory, models

FACTOR = 58  # binary MACs per real MAC, XNOR-Net section 4.1
COLUMNS = {
    "number": "", "layer": "layer", "inputs": "inputs", "weights": "weights", "output": "output",
    "macs_real": "real MACs", "macs_binary": "binary MACs", "equivalent_ops": "equivalent",
    "params_real": "real params", "params_binary": "binary params",
    "activation_bytes": "input bytes", "weight_bytes": "weight bytes",
}  # fmt: skip

# Equivalent operations as published, in millions, after the input they were counted for: (channels, size, classes).
PUBLISHED = {
    "alexnet": ((3, 224, 1000), {"wbin": 1135, "hybrid1": 180, "hybrid2": 143, "fbin": 127}),
    "sketchanet": ((1, 225, 250), {"wbin": 608, "hybrid1": 89, "hybrid2": 82, "fbin": 82}),
    "resnet18": ((3, 225, 250), {"wbin": 2049, "hybrid-v2": 942, "hybrid-v1": 450, "fbin": 153}),
    "squeezenet": (
        (3, 225, 250), {"wbin": 444, "hybrid-v3": 278, "hybrid-v2": 220, "hybrid-v1": 213, "fbin": 177}
    ),
}  # fmt: skip


def equivalent_ops(macs_real: float, macs_binary: float, factor: float = FACTOR) -> float:
    """Return real MACs + binary MACs / factor."""
    return macs_real + macs_binary / factor


def _convolution(number, layer, shape, output):
    w = layer.params["w"]
    macs = int(w.size) * output[0] * output[1]
    binary = layer.weights == "binary"
    real_weights = (0 if binary else w.size) + layer.params.get("b", w[:0, 0, 0, 0]).size
    fully = binary and layer.inputs == "binary"
    values = shape[0] * shape[1]
    return {
        "number": number, "layer": layer.name, "inputs": layer.inputs, "weights": layer.weights,
        "kernel": list(w.shape[:2]), "input": list(shape), "output": list(output), "macs": macs,
        "macs_real": 0 if fully else macs, "macs_binary": macs if fully else 0,
        "params": int(sum(p.size for p in layer.params.values())),
        "params_real": int(real_weights), "params_binary": int(w.size) if binary else 0,
        "weight_bytes": int(4 * real_weights + ((-(-w.size // 8) + 4 * w.shape[3]) if binary else 0)),
        "activation_bytes": int(values * (-(-shape[2] // 8) if fully else 4 * shape[2])),
    }  # fmt: skip


def visit(model: layers.Sequential) -> list[tuple[layers.Conv, tuple[int, ...], tuple[int, ...]]]:
    """Return [(convolution, input shape, output shape)] of a built model, in the order of the layers' numbers."""
    spec = models.spec_of(model)
    size = spec["input_size"]
    leaves = models.leaves(model, (size, size, spec["in_channels"]))
    found = [(leaf, before, after) for leaf, before, after in leaves if isinstance(leaf, layers.Conv)]
    numbers = models.layer_numbers(spec["definition"])
    return sorted(found, key=lambda seen: numbers[seen[0].name])


def table(model: layers.Sequential, factor: float = FACTOR) -> dict[str, Any]:
    """Return the cost of each convolution and in total, as plain numbers.

    Returns
    -------
    dict
        ``layers``: one dict per convolution, with number, layer, inputs, weights, kernel, input, output, macs,
        macs_real, macs_binary, equivalent_ops, params, params_real, params_binary, weight_bytes, activation_bytes.
        ``total``: their sums; its params include BatchNorm.
    """
    if not np.isfinite(factor) or factor <= 0:
        raise ValueError(f"factor: expected a number above 0, got {factor!r}")
    rows = [_convolution(number, *seen) for number, seen in enumerate(visit(model), start=1)]
    for row in rows:
        row["equivalent_ops"] = equivalent_ops(row["macs_real"], row["macs_binary"], factor)
    keys = ("macs_real", "macs_binary", "params_real", "params_binary", "activation_bytes", "weight_bytes")
    total = {key: sum(row[key] for row in rows) for key in keys}
    total["params"] = sum(int(layer.params[key].size) for _, layer, key in model.parameters())
    total["equivalent_ops"] = equivalent_ops(total["macs_real"], total["macs_binary"], factor)
    return {"layers": rows, "total": total, "factor": factor}


# ------------------------------------------------------------------------------------------------ measuring


def median_seconds(function: Callable[[], Any], repeats: int, warmup: int = 3) -> float:
    """Return the median time of ``repeats`` calls, after ``warmup`` calls that do not count: the first one compiles."""
    for _ in range(warmup):
        function()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return float(np.median(times))


def measured_factor(channels: int = 128, size: int = 28, repeats: int = 15) -> float:
    """Measure how many binary MACs of a 3x3 convolution this machine does in the time of one real MAC.

    It uses one thread and weights packed beforehand; the time includes packing the inputs. So it is what a layer of
    ``channels`` channels gains.
    """
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, size, size, channels)).astype(np.float32)
    w = rng.standard_normal((3, 3, channels, channels)).astype(np.float32)
    packed = conv.pack_weights(w)
    with engine.threads(1):
        real = median_seconds(lambda: conv.conv2d_forward(x, w, padding=1, need_cache=False), repeats)
        binary = median_seconds(lambda: conv.xnor_conv2d_forward(x, packed, padding=1, need_cache=False), repeats)
    return real / binary


def measured_layers(model: layers.Sequential, factor: float = FACTOR, repeats: int = 9) -> list[dict[str, Any]]:
    """Time each convolution's forward pass with one image, one thread, and weights packed beforehand.

    Returns
    -------
    list of dict
        number, layer, inputs, weights, ms, share (of the time of all convolutions), predicted_share (the share of the
        equivalent operations)
    """
    memory.ask("model: one image", models.bytes_needed(model, 1))
    rng, rows = np.random.default_rng(0), []
    with layers.packed_weights(model), engine.threads(1):
        for row, (layer, shape, _) in zip(table(model, factor)["layers"], visit(model), strict=True):
            x = rng.standard_normal((1, *shape)).astype(np.float32)
            rows.append(
                {key: row[key] for key in ("number", "layer", "inputs", "weights")}
                | {"ms": 1000 * median_seconds(partial(layer.forward, x), repeats)}
                | {"predicted_share": row["equivalent_ops"]}
            )
    for key, share in (("ms", "share"), ("predicted_share", "predicted_share")):
        total = sum(row[key] for row in rows)
        for row in rows:
            row[share] = row[key] / total
    return rows


# ------------------------------------------------------------------------------------------------- printing


def format_table(rows: Sequence[dict[str, Any]], columns: Collection[str]) -> str:
    """Return rows (dicts) as lines of text, in columns; numbers are aligned to the right."""
    cells = [[str(column) for column in columns]]
    cells += [[row[c] if isinstance(row[c], str) else _number(row[c]) for c in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    right = [not isinstance(rows[0][c], str) for c in columns] if rows else [False] * len(columns)
    lines = [
        "  ".join(t.rjust(w) if r else t.ljust(w) for t, w, r in zip(line, widths, right, strict=True)).rstrip()
        for line in cells
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _number(value):
    if isinstance(value, (list, tuple)):
        return " x ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def timing_text(rows: Sequence[dict[str, Any]]) -> str:
    """Return `measured_layers` as text."""
    shown = [
        {**row, "ms": f"{row['ms']:.3f}"} | {k: f"{100 * row[k]:.1f} %" for k in ("share", "predicted_share")}
        for row in rows
    ]
    return format_table(shown, ("number", "layer", "inputs", "weights", "ms", "share", "predicted_share"))


def compare(
    network: str, *, num_classes: int, in_channels: int, input_size: int, factor: float = FACTOR,
    last_layer: str = "real", width: float = 1,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return the paper's table for a network: one row per variant, published equivalent operations beside ours.

    Returns
    -------
    list of dict
        model, macs_real, macs_binary, equivalent_ops, params, weight_bytes; published, in millions, or None if the
        paper has no figure for this input and number of classes; smaller, by how many times than float32
    """
    names = [f"{network}-{variant}" for variant in models.VARIANTS if variant != "hybrid"]
    names[2:2] = [name for name in models.HYBRIDS if name.startswith(network + "-")]
    counted_on, published = PUBLISHED.get(network, (None, {}))
    same = counted_on == (in_channels, input_size, num_classes)
    rows = []
    for name in names:
        _, variant, keep_real = models.parse(name)
        model = models.build(
            network, variant, num_classes=num_classes, in_channels=in_channels, input_size=input_size,
            keep_real=keep_real, last_layer="real" if variant == "fprec" else last_layer, width=width, init=False,
        )  # fmt: skip
        costs = table(model, factor)
        total = costs["total"]
        rows.append(
            {"model": name, "published": published.get(name.partition("-")[2]) if same else None}
            | {key: total[key] for key in ("macs_real", "macs_binary", "equivalent_ops", "params", "weight_bytes")}
            | {"smaller": _smaller(costs)}
        )
    return rows


def compare_text(rows: Sequence[dict[str, Any]], factor: float = FACTOR) -> str:
    """Return `compare` as text."""
    shown = [
        {
            "model": row["model"], "real MACs": row["macs_real"], "binary MACs": row["macs_binary"],
            "equivalent, M": f"{row['equivalent_ops'] / 1e6:,.1f}",
            "published, M": "" if row["published"] is None else str(row["published"]),
            "parameters": row["params"], "weight bytes": row["weight_bytes"], "smaller": f"{row['smaller']:.1f} x",
        }
        for row in rows
    ]  # fmt: skip
    lines = [format_table(shown, tuple(shown[0])), "", f"equivalent operations: real + binary / {factor:g}"]
    network = rows[0]["model"].partition("-")[0]
    if network in PUBLISHED and all(row["published"] is None for row in rows):
        channels, size, classes = PUBLISHED[network][0]
        lines.append(f"published for another input: add --channels {channels} --size {size} --classes {classes}")
    if network == "squeezenet":
        lines.append("the published row is not reproduced: see results/README.md")
    return "\n".join(lines)


def _smaller(costs):
    """By how many times the weights are smaller than in float32."""
    return 4 * sum(row["params"] for row in costs["layers"]) / costs["total"]["weight_bytes"]


def _titled(costs):
    """The rows of a summary under the titles to print, the total last."""
    names = {"number": "", "layer": "total", "inputs": "", "weights": "", "output": ""}
    rows = [*costs["layers"], names | costs["total"]]
    shown = [{title: row[key] for key, title in COLUMNS.items()} for row in rows]
    for row in shown:
        row["equivalent"] = round(row["equivalent"])
    return shown


def summary(model: layers.Sequential, factor: float = FACTOR) -> str:
    """Return the cost table as text."""
    costs = table(model, factor)
    total, spec = costs["total"], model.spec
    return "\n".join([
        f"{spec['name']}, {spec['variant']}"
        + (f" (real inputs: {', '.join(spec['keep_real'])})" if spec["keep_real"] else "")
        + f", input {spec['input_size']} x {spec['input_size']} x {spec['in_channels']}, {spec['num_classes']} classes",
        "",
        format_table(_titled(costs), tuple(COLUMNS.values())),
        "",
        f"MACs: {total['macs_real']:,} real + {total['macs_binary']:,} binary"
        f" = {total['equivalent_ops']:,.0f} equivalent operations (binary / {factor:g})",
        f"parameters: {total['params']:,} with BatchNorm; weights: {total['weight_bytes']:,} bytes,"
        f" {_smaller(costs):.1f} times smaller than as float32",
    ])  # fmt: skip
