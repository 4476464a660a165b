"""Chapter 7, cost: operations, bits and bytes, layer by layer.

A convolution with n = kh kw C_in weights a filter does ``n C_out Ho Wo`` multiply-accumulates (MACs). One whose inputs
and weights are both binary does them 64 at a time in words; XNOR-Net's factor for that, 58, is the default here:

    equivalent operations = real MACs + binary MACs / 58.

Weights (the paper's rule): 32 bits for a real weight, 1 bit for a binary one and one float32 alpha a filter.
BatchNorm is left out of both, as in the paper; its parameters are counted under ``params``.
"""

from . import layers

FACTOR = 58  # binary MACs per real MAC, XNOR-Net section 4.1

COLUMNS = ("number", "layer", "inputs", "weights", "output", "macs", "params", "weight_bytes")


def equivalent_ops(macs_real, macs_binary, factor=FACTOR):
    """Return real MACs + binary MACs / factor."""
    return macs_real + macs_binary / factor


def _convolution(number, layer, shape, output):
    w = layer.params["w"]
    macs = int(w.size) * output[0] * output[1]
    binary = layer.weights == "binary"
    real_weights = (0 if binary else w.size) + layer.params.get("b", w[:0, 0, 0, 0]).size
    fully = binary and layer.inputs == "binary"
    return {
        "number": number, "layer": layer.name, "inputs": layer.inputs, "weights": layer.weights,
        "kernel": list(w.shape[:2]), "input": list(shape), "output": list(output), "macs": macs,
        "macs_real": 0 if fully else macs, "macs_binary": macs if fully else 0,
        "params": int(sum(p.size for p in layer.params.values())),
        "weight_bytes": int(4 * real_weights + ((-(-w.size // 8) + 4 * w.shape[3]) if binary else 0)),
    }  # fmt: skip


def _visit(layer, shape):
    """Yield (leaf layer, input shape, output shape) in the order of the definition."""
    if isinstance(layer, layers.Sequential):
        for inner in layer.layers:
            yield from _visit(inner, shape)
            shape = inner.output_shape(shape)
    elif isinstance(layer, layers.Residual):
        yield from _visit(layer.body, shape)
        yield from _visit(layer.shortcut, shape)
    elif isinstance(layer, layers.Concat):
        for branch in layer.branches:
            yield from _visit(branch, shape)
    else:
        yield layer, shape, layer.output_shape(shape)


def table(model):
    """Return the cost of each convolution and in total, as plain numbers.

    Returns
    -------
    dict
        ``layers``: a dict a convolution (number, layer, inputs, weights, kernel, input, output, macs, macs_real,
        macs_binary, params, weight_bytes); ``total``: macs_real, macs_binary, equivalent_ops, params, weight_bytes.
    """
    size = model.spec["input_size"]
    rows, other = [], 0
    for layer, shape, output in _visit(model, (size, size, model.spec["in_channels"])):
        if isinstance(layer, layers.Conv):
            rows.append(_convolution(len(rows) + 1, layer, shape, output))
        else:
            other += sum(int(p.size) for p in layer.params.values())
    total = {key: sum(row[key] for row in rows) for key in ("macs_real", "macs_binary", "params", "weight_bytes")}
    total["params"] += other
    total["equivalent_ops"] = equivalent_ops(total["macs_real"], total["macs_binary"])
    return {"layers": rows, "total": total}


def format_table(rows, columns):
    """Return rows (dicts) as lines of aligned text; numbers to the right."""
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


def summary(model):
    """Return the cost table as text."""
    costs = table(model)
    total, spec = costs["total"], model.spec
    real = sum(4 * row["params"] for row in costs["layers"])
    return "\n".join([
        f"{spec['name']}, {spec['variant']}"
        + (f" (real inputs: {', '.join(spec['keep_real'])})" if spec["keep_real"] else "")
        + f", input {spec['input_size']} x {spec['input_size']} x {spec['in_channels']}, {spec['num_classes']} classes",
        "",
        format_table(costs["layers"], COLUMNS),
        "",
        f"MACs: {total['macs_real']:,} real + {total['macs_binary']:,} binary"
        f" = {total['equivalent_ops']:,.0f} equivalent operations (binary / {FACTOR})",
        f"parameters: {total['params']:,} with BatchNorm; weights: {total['weight_bytes']:,} bytes,"
        f" {real / total['weight_bytes']:.1f} times smaller than as float32",
    ])  # fmt: skip
