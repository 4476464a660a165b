"""Table 3: a training step of the small network in each variant, beside the float network in PyTorch.

A step is the forward pass, the loss, the backward pass and Adam, on a batch of 64 images of 64 x 64. The hybrid keeps
conv2, conv5 and conv6 real, as the defaults until 2026-11-29 chose on the doodles.
"""

import json

import numpy as np

import data_tools
from hbn_ref import layers, models, train

from .clock import medians, repeated
from .peers import TORCH

BATCH, SIZE, CLASSES, RATE = 64, 64, 15, 0.003
VARIANTS = {"fprec": (), "wbin": (), "hybrid": ("conv2", "conv5", "conv6"), "fbin": ()}


def build(variant):
    return models.build(
        "small", variant, keep_real=list(VARIANTS[variant]) or None, num_classes=CLASSES, in_channels=1, input_size=SIZE
    )  # fmt: skip


def _ours(variant, x, labels):
    model, optimizer = build(variant), train.Adam(RATE)
    return repeated(lambda: train.train_step(model, x, labels, optimizer))


def _kept(layer):
    """{id: bytes} of the arrays that a layer keeps for its backward pass, without weights."""
    w = layer.params.get("w", np.empty(0))
    arrays = [value for value in layer.cache if isinstance(value, np.ndarray) and value.shape != w.shape]
    owners = [array if array.base is None else array.base for array in arrays]
    return {id(array): array.nbytes for array in owners}


def kept_bytes():
    """Bytes kept between forward and backward, {what: bytes}, on a 16 x 16 map of 64 channels, batch 64, 3 x 3."""
    rng, found = np.random.default_rng(0), {}
    x = rng.standard_normal((64, 16, 16, 64)).astype(np.float32)
    w = rng.standard_normal((3, 3, 64, 64)).astype(np.float32)
    blocks = {
        "real": [layers.Conv("conv", w, padding=1), layers.BatchNorm("bn", 64), layers.ReLU("relu", in_place=True)],
        "binary": [
            layers.BatchNorm("bn", 64),
            layers.XnorConv("conv", w, padding=1),
            layers.ReLU("relu", in_place=True),
        ],
    }
    for name, block in blocks.items():
        layers.Sequential(block).forward(x, training=True)
        found[f"{name} convolution"] = next(sum(_kept(layer).values()) for layer in block if layer.name == "conv")
        kept = {}
        for layer in block:
            kept |= _kept(layer)
        found[f"{name} block"] = sum(kept.values())
    return found


def measure(rounds, torch):
    """Return table 3 as plain numbers, in seconds per step."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((BATCH, SIZE, SIZE, 1)).astype(np.float32)
    labels = rng.integers(0, CLASSES, BATCH)
    contenders = {variant: _ours(variant, x, labels) for variant in VARIANTS}
    if torch:
        model = build("fprec")
        arrays, definition = {**model.state(), "x": x}, json.dumps(model.spec["definition"])
        for name in TORCH:
            layout = name.split()[1]
            out, _ = torch.ask("forward", arrays, definition=definition, layout=layout)
            if not np.allclose(out.reshape(BATCH, -1), model.forward(x).reshape(BATCH, -1), rtol=1e-3, atol=1e-3):
                raise AssertionError(f"{name} computes something else than hbn_ref")
            options = {"definition": definition, "layout": layout, "lr": RATE}
            _, contenders[name] = torch.ask("step", {**arrays, "labels": labels}, **options)
    data = data_tools.load("doodles", size=SIZE, classes=CLASSES)
    images = data.train[0][:BATCH]
    contenders["augmentation"] = repeated(lambda: data.training_batch(images, rng))
    seconds = medians(contenders, rounds)
    ratio = {v: min(seconds[name] for name in TORCH) / seconds[v] for v in VARIANTS} if torch else {}
    return {
        "batch": BATCH, "size": SIZE, "seconds": seconds, "ratio": ratio, "keep_real": VARIANTS["hybrid"],
        "kept_bytes": kept_bytes(),
    }  # fmt: skip


def lines(table):
    """Table 3 as (title, rows, remarks)."""
    rows = [
        {"step": name, "ms": f"{1e3 * seconds:.0f}", "PyTorch / ours": f"{table['ratio'][name]:.2f}"
         if name in table["ratio"] else ""}
        for name, seconds in table["seconds"].items()
    ]  # fmt: skip
    title = f"3. A training step of the small network, batch {table['batch']}, {table['size']} x {table['size']}"
    kept = table["kept_bytes"]
    shares = (f"{what} 1/{kept[f'real {what}'] / kept[f'binary {what}']:.1f}" for what in ("convolution", "block"))
    return (
        title,
        rows,
        [
            "PyTorch / ours: the faster of its layouts; augmentation is of a batch, beside the step",
            f"bytes kept for the backward pass, binary of real, weights left out: {', '.join(shares)}",
        ],
    )
