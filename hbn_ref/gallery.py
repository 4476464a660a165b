"""Top floor, gallery: find several packed networks, compare them, and ask them about the same image.

The networks that come with the package are the files in one folder, `BUILT_IN`; nothing else lists them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from . import cost, deploy, files, layers, models, study

# Of the doodles; README.md has the commands that made them. If this package is in a zip, they are in it, too.
BUILT_IN = resources.files(__package__).joinpath("networks")
LARGEST = 8  # networks side by side
FOLDER_END = "-packed"  # of packed files: a study's folder holds the trained networks, too
EPS = 1e-5  # of the variance, as in BatchNorm


@dataclass(frozen=True)
class Shown:
    """A packed network, and what it costs.

    Attributes
    ----------
    name : str
        Different from that of every other network beside it.
    packed : deploy.PackedNetwork
    operations, bytes : int
        Equivalent operations of one image (`cost`), and the bytes of all numbers in the file.
    layers : list of dict
        name, inputs, weights ("real" or "binary") and binarizable of each convolution, in the order of their numbers.
    usual : dict {layer: (mean, deviation)}
        Of its real inputs, per channel: see `usual_inputs`.
    """

    name: str
    packed: Any
    operations: int
    bytes: int
    layers: list[dict[str, Any]]
    usual: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)


def _described(name, packed):
    spec = packed.spec
    table = cost.table(models.from_spec(spec, init=False))
    every_bit = models.from_spec({**spec, "variant": "fbin", "keep_real": []}, init=False)
    may = {layer.name for layer in every_bit.walk() if isinstance(layer, layers.XnorConv)}
    rows = [
        {"name": row["layer"], "inputs": row["inputs"], "weights": row["weights"], "binarizable": row["layer"] in may}
        for row in table["layers"]
    ]
    return Shown(name, packed, round(table["total"]["equivalent_ops"]), deploy.file_bytes(packed), rows)


def usual_inputs(shown: Shown, x: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return mean and deviation per channel, over images x, of what enters the layers that a network keeps real.

    If such a layer were binary, a BatchNorm would measure them before the sign.
    """
    kept = {row["name"] for row in shown.layers if row["binarizable"] and row["inputs"] == "real"}
    _, seen = shown.packed.look(x)
    return {
        name: (values.mean(axis=(0, 1, 2)), np.sqrt(values.var(axis=(0, 1, 2)) + EPS))
        for name, values, _ in seen
        if name in kept and values is not None
    }


# ------------------------------------------------------------------------------------------- finding files


def _in_folder(folder):
    """Packed files of a folder, and a line for each that cannot be read."""
    found, rest = [], []
    paths = sorted(folder.glob(f"*{FOLDER_END}.npz")) or sorted(folder.glob("*.npz"))
    for path in paths:
        try:
            if files.format_of(path) == deploy.FORMAT:
                found.append((path, _readable(path)))
        except files.FileError as error:
            rest.append(str(error))
    if not found and not rest:
        raise files.FileError(f"{folder}: no packed network in this folder; export makes one of a trained network")
    return found, rest


def _readable(path):
    packed = deploy.load(path)
    about = packed.preprocessing
    if not packed.classes or not {"size", "stored", "kind"} <= about.keys():
        raise files.FileError(f"{path}: packed without the classes and the preprocessing that images need")
    return packed


def _built_in():
    found = []
    for part in sorted(BUILT_IN.iterdir(), key=lambda part: part.name):
        with resources.as_file(part) as path:
            found.append((Path(part.name), _readable(path)))
    return found


def _named(found):
    """A name for each (path, packed): its variant, or as much of its path as tells it from the others."""
    stems = [path.stem.removesuffix(FOLDER_END) for path, _ in found]
    choices = [
        [study.NAMES[packed.spec["variant"]] for _, packed in found], stems,
        [f"{path.parent.name}/{stem}" for (path, _), stem in zip(found, stems, strict=True)],
        [str(path) for path, _ in found],
    ]  # fmt: skip
    counts = [Counter(names) for names in choices]
    return [
        next((names[i] for names, count in zip(choices, counts, strict=True) if count[names[i]] == 1), choices[-1][i])
        for i in range(len(found))
    ]


def load(paths: Sequence[files.PathLike] = ()) -> tuple[list[Shown], list[str]]:
    """Load packed networks that can be put side by side.

    Parameters
    ----------
    paths : sequence of paths
        Packed files, and folders with some in them, such as a study's. None: the built-in ones.

    Returns
    -------
    shown : list of Shown, the one with the most operations first
    rest : list of str
        A line for each network that was left out: it is one of a folder, and damaged; its classes are not those of the
        first; or there are too many.

    Raises
    ------
    files.FileError
        A file cannot be read, or a folder holds no packed network.
    """
    found: list[tuple[Path, Any]] = [] if paths else _built_in()
    rest: list[str] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside, left_out = _in_folder(path)
            found += inside
            rest += left_out
        else:
            found.append((path, _readable(path)))
    if not found:
        raise files.FileError("; ".join(rest))
    first = found[0]
    kept: list[tuple[Path, Any]] = []
    for path, packed in found:
        if packed.classes != first[1].classes:
            rest.append(f"{path}: left out, its classes are not those of {first[0]}")
        elif any(path.resolve() == other.resolve() for other, _ in kept):
            rest.append(f"{path}: named twice")
        elif len(kept) == LARGEST:
            rest.append(f"{path}: left out, {LARGEST} networks are as many as fit")
        else:
            kept.append((path, packed))
    shown = [_described(name, packed) for name, (_, packed) in zip(_named(kept), kept, strict=True)]
    return sorted(shown, key=lambda one: (-one.operations, -one.bytes)), rest
