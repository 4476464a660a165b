"""Table 6: what two threads bring, ours and the peers': the time with one thread divided by that with two.

A peer with two threads is a process of its own, started anew. Both cores must be free: beside another program a figure
says nothing.
"""

import json
import os

import numpy as np

from hbn_ref import binarize, conv, engine, train

from . import shapes
from .clock import medians, repeated
from .peers import PEERS, TORCH, connect, convolutions
from .training import BATCH, CLASSES, RATE, SIZE, build

LAYERS = ("128@28", "256@14")  # batch 32
COUNTS = (1, 2)


def _ours(call, count):
    def timed(n):
        with engine.threads(count):
            return repeated(call)(n)

    return timed


def _convolutions(count, peers):
    found = {}
    for shape in map(shapes.named, LAYERS):
        x, w = shapes.tensors(shape, 32)
        packed, options = conv.pack_weights(w), {"padding": shape.padding}

        def call(x=x, packed=packed, options=options):
            conv.xnor_conv2d_forward(x, packed, need_cache=False, **options)

        found[shape.name, "ours", count] = _ours(call, count)
        real = {"x": x, "w": w, "alpha": packed.alpha}
        signs = {**real, "x": binarize.sign(x), "w": binarize.sign(w)}
        for name, _, _, timed in convolutions(peers, real, signs, **options):
            found[shape.name, name, count] = timed
    return found


def _steps(count, torch):
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((BATCH, SIZE, SIZE, 1)).astype(np.float32), rng.integers(0, CLASSES, BATCH)
    found = {}
    for variant in ("fprec", "hybrid"):
        model, optimizer = build(variant), train.Adam(RATE)

        def call(model=model, optimizer=optimizer):
            train.train_step(model, x, labels, optimizer)

        found["training step", f"ours, {variant}", count] = _ours(call, count)
    if torch:
        model = build("fprec")
        for name in TORCH:
            options = {"definition": json.dumps(model.spec["definition"]), "layout": name.split()[1], "lr": RATE}
            arrays = {**model.state(), "x": x, "labels": labels}
            found["training step", name, count] = torch.ask("step", arrays, **options)[1]
    return found


def cores():
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def measure(rounds):
    """Table 6 as plain numbers: seconds with one thread and with two."""
    if cores() < max(COUNTS):
        return {"rows": [], "cores": cores()}
    peers = {(name, count): connect(name, count) for name in PEERS for count in COUNTS}
    try:
        contenders = {}
        for count in COUNTS:
            contenders |= _convolutions(count, {name: peers[name, count] for name in PEERS})
            contenders |= _steps(count, peers["torch", count])
        ours = {name: timed for name, timed in contenders.items() if name[1].startswith("ours")}
        seconds = medians(ours, rounds)  # apart: a peer still tidies up when the next has its turn
        seconds |= medians({name: timed for name, timed in contenders.items() if name not in ours}, rounds)
    finally:
        for peer in peers.values():
            if peer:
                peer.close()
    rows = [
        {"what": what, "who": who, "one": seconds[what, who, 1], "two": seconds[what, who, 2]}
        for what, who, count in contenders if count == 1
    ]  # fmt: skip
    return {"rows": rows, "cores": cores()}


def lines(table):
    """Table 6 as (title, rows, remarks)."""
    rows = [
        {
            "what": row["what"], "who": row["who"], "one thread, ms": f"{1e3 * row['one']:.1f}",
            "two, ms": f"{1e3 * row['two']:.1f}", "one / two": f"{row['one'] / row['two']:.2f}",
        }
        for row in table["rows"]
    ]  # fmt: skip
    remarks = ["both cores must be free while this is measured"]
    if not rows:
        remarks = [f"left out: {table['cores']} core for this process"]
    return "6. Two threads: convolutions with batch 32, a training step", rows, remarks
