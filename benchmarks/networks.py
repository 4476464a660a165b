"""Table 4: whole networks, one image at a time, beside PyTorch and beside what counting operations predicts."""

import json
from dataclasses import replace

import numpy as np

from hbn_ref import cost, deploy, layers, models

from .clock import medians, repeated
from .peers import TORCH

NETWORKS = {"sketchanet": (225, 1, 250), "resnet18": (225, 3, 250)}  # input size, channels, classes, as in the paper


def _variants(name):
    return ["fprec", "wbin", *(key.partition("-")[2] for key in models.HYBRIDS if key.startswith(name + "-")), "fbin"]


def _until(definition, name):
    """The items of a definition before the convolution ``name``."""
    names = [item.get("name") for item in definition]
    return definition[: names.index(name)]


def _cut(model, name):
    """The layers of a model before the convolution ``name`` and its BatchNorm."""
    names = [layer.name for layer in model.layers]
    return layers.Sequential(model.layers[: min(names.index(name), names.index(name + ".bn"))])


def _cut_packed(packed, name):
    """A packed network without the convolution ``name``, what makes its bits, and all that follows."""
    steps = packed.steps
    at = next(i for i, step in enumerate(steps) if getattr(step, "name", "") == name)
    return replace(packed, steps=steps[: at - isinstance(steps[at - 1], (deploy.Signs, deploy.Threshold))])


def _rows(name, rounds, torch, stop=None):
    size, channels, classes = NETWORKS[name]
    x = np.random.default_rng(0).standard_normal((1, size, size, channels)).astype(np.float32)
    options = {"num_classes": classes, "in_channels": channels, "input_size": size}
    contenders, operations = {}, {}
    for variant in _variants(name):
        model = models.build(f"{name}-{variant}", **options)
        packed, whole = deploy.compile(model), model
        table = cost.table(model)["layers"]
        if stop:
            names = [row["layer"] for row in table]
            table, model, packed = table[: names.index(stop)], _cut(model, stop), _cut_packed(packed, stop)
        operations[variant] = cost.equivalent_ops(*(sum(row[k] for row in table) for k in ("macs_real", "macs_binary")))
        held = layers.packed_weights(model)
        held.__enter__()  # pack the weights once, for as long as the model lives
        contenders[variant] = repeated(lambda model=model, held=held: model.forward(x))
        contenders[variant + " packed"] = repeated(lambda packed=packed: packed(x))
        if variant == "fprec" and torch:
            definition = whole.spec["definition"]
            arrays = {**whole.state(), "x": x}
            task = {"definition": json.dumps(_until(definition, stop) if stop else definition)}
            for peer in TORCH:
                out, contenders[peer] = torch.ask("forward", arrays, layout=peer.split()[1], **task)
                if not np.allclose(out, model.forward(x), rtol=1e-3, atol=1e-3):
                    raise AssertionError(f"{peer} computes something else than hbn_ref")
    seconds = medians(contenders, rounds)
    float_time = min(seconds[peer] for peer in TORCH) if torch else None
    label = f"{name}, before {stop}" if stop else name
    return [
        {
            "network": label, "variant": variant, "seconds": value,
            "torch": float_time / value if torch else None,
            "ours": seconds["fprec"] / value,
            "packed": seconds[variant.removesuffix(" packed")] / value if variant.endswith(" packed") else None,
            "predicted": operations["fprec"] / operations[variant] if variant in operations else None,
        }
        for variant, value in seconds.items()
    ]  # fmt: skip


def measure(rounds, torch):
    """Return table 4 as plain numbers, in seconds per image."""
    rows = _rows("sketchanet", rounds, torch)
    rows += _rows("sketchanet", rounds, torch, stop="conv6")
    return {"rows": rows + _rows("resnet18", rounds, torch)}


def lines(table):
    """Table 4 as (title, rows, remarks)."""
    rows = [
        {
            "network": row["network"], "variant": row["variant"], "ms": f"{1e3 * row['seconds']:.2f}",
            "PyTorch / this": "" if row["torch"] is None else f"{row['torch']:.1f}",
            "our FPrec / this": f"{row['ours']:.1f}",
            "model / packed": "" if row["packed"] is None else f"{row['packed']:.2f}",
            "predicted": "" if row["predicted"] is None else f"{row['predicted']:.1f}",
        }
        for row in table["rows"]
    ]  # fmt: skip
    remarks = [
        "predicted: the float network's operations divided by the variant's, binary ones counted 1/58",
        "PyTorch: the faster of its layouts for PyTorch / this",
    ]
    return "4. Whole networks, evaluation, one image of 225 x 225, weights packed beforehand", rows, remarks
