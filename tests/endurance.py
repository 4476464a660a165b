"""Trains and predicts in a loop, and watches the memory of the process: it must not grow.

    python tests/endurance.py                # 30 minutes; writes results/endurance.json
    python tests/endurance.py --minutes 2    # printed only

A round is what a user does in a session: train a network, measure its layers, save, load, pack, predict many images at
once and one by one, take the time of each (with one thread, so that the threads begin anew). The rounds go through the
four variants, with new weights each. Linux only: the memory is read from /proc.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import sys
import tempfile
import time
from array import array
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from data_tools import doodles  # noqa: E402
from hbn_ref import deploy, engine, models, study, train  # noqa: E402

MINUTES = 30
LIMIT = 2.0  # MiB: what a process may gain from the second quarter of its time to the last


def resident():
    """The memory of this process in MiB, as the system counts it."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def one_round(data, seed, folder):
    """Train, measure, save, load, pack, predict, time; fails where the packed network differs from the trained one."""
    variant = models.VARIANTS[seed % len(models.VARIANTS)]
    model = models.build(
        "small", variant, num_classes=len(data.classes), in_channels=1, input_size=data.preprocessing["size"],
        keep_real=("conv5", "conv6") if variant == "hybrid" else (), width=0.5, seed=seed,
    )  # fmt: skip
    train.fit(
        model, *data.train, epochs=1, batch=32, lr=0.003, seed=seed, prepare=data.training_batch,
        checkpoint=folder / "checkpoint.npz", progress=False,
    )  # fmt: skip
    (folder / "checkpoint.npz").unlink()
    images = data.evaluation_batch(data.validation[0])
    if variant == "fbin":
        study.choose_layers(model, [images])
    labels = {"classes": data.classes, "preprocessing": data.preprocessing}
    models.save(model, folder / "model.npz", **labels)
    model, *_ = models.load(folder / "model.npz")
    deploy.save(deploy.compile(model, **labels), folder / "packed.npz")
    packed = deploy.load(folder / "packed.npz")
    expected = train.evaluate(model, *data.validation, prepare=data.evaluation_batch)["top1"]
    found = 100 * np.mean(packed(images).argmax(axis=1) == data.validation[1])
    if abs(expected - found) > 100 / len(images):  # a tie may fall either way
        raise AssertionError(f"{variant}, seed {seed}: the packed network recognises {found} %, not {expected} %")
    for image in images:
        packed(image[None])
    study.milliseconds_per_image(model, packed, images, repeats=2)


def rounds():
    """Yield the MiB after each round, without end."""
    data = doodles.load(size=32, train=8, validation=4, test=1)
    with tempfile.TemporaryDirectory() as folder:
        for seed in itertools.count():
            one_round(data, seed, Path(folder))
            yield resident()


def compile_kernels():
    """One round of each variant."""
    for _ in itertools.islice(rounds(), len(models.VARIANTS)):
        pass


def run(minutes):
    """Go round for some minutes; return the MiB after each, 8 bytes a round, so that the list hardly counts.

    The kernels are compiled by another process: memory that the compiler took and freed in this one would hide what
    grows into it.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        pool.apply(compile_kernels)
    memory, end = array("d"), time.monotonic() + 60 * minutes
    for found in rounds():
        memory.append(found)
        if time.monotonic() >= end:
            return memory


def growth(memory):
    """MiB gained between the second quarter of the rounds and the last, medians of each; in the first all warms up."""
    quarter = len(memory) // 4
    if quarter < 2:
        raise ValueError(f"memory: {len(memory)} rounds are too few to see a growth")
    return float(np.median(memory[-quarter:]) - np.median(memory[quarter : 2 * quarter]))


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=MINUTES)
    minutes = parser.parse_args(argv).minutes
    memory = run(minutes)
    gained = growth(memory)
    about = {
        "minutes": minutes, "rounds": len(memory), "threads": engine.get_num_threads(), "growth_mib": round(gained, 2),
        "first_mib": round(memory[0], 1), "peak_mib": round(max(memory), 1),
        "command": "python tests/endurance.py", "machine": study.machine(),
    }  # fmt: skip
    print(json.dumps(about, indent=1))
    if minutes == MINUTES:
        every = -(-len(memory) // 60)
        about["mib"] = [round(found, 1) for found in memory[::every]]
        (ROOT / "results" / "endurance.json").write_text(json.dumps(about, indent=1) + "\n", "utf-8")
    return int(gained > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
