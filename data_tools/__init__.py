"""Data sets: built-in doodles, TU-Berlin sketches, any folder of images.

They do not depend on hbn_ref, except that `room` asks it how much memory there is when much is wanted.
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from .dataset import Dataset, check_seed, check_size, choose_classes
from .errors import DataError
from .room import ask_for_images

__all__ = ["DataError", "Dataset", "doodles_for", "load", "prepare_files", "prepare_strokes", "unknown"]

MADE = ("doodles",)  # modules of this package whose images are drawn on the spot


def load(
    source: Path | str | None = "doodles", *, classes: int | Sequence[str] | None = None, size: int = 64,
    seed: int = 0, progress: bool = True, test: int | None = None,
) -> Dataset:  # fmt: skip
    """Load a data set in three splits.

    Parameters
    ----------
    source : str or path
        "doodles" or None: drawings made on the spot. "tuberlin": the archive or folder that HBN_DATA names, else the
        one that `python -m data_tools fetch` left. A path: a zip or folder in TU-Berlin's layout (png/class/1.png or
        svg/class/1.svg), or with class/image, or with train/class/image and val/class/image.
    classes : int or sequence of str, optional
        A number takes the first ones in alphabetical order, names take those. Default: all.
    size : int
        Side of the images that a network will see; they are stored at 9/8 of it.
    seed : int
        Of the split and of the doodles.
    progress : bool
        Show a bar on stderr if it takes long to reduce the images.
    test : int, optional
        For doodles, the drawings per class to test on (default: 200). Other data has as many as it has.

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        An argument is bad, the source is missing, damaged or empty, or an image cannot be read.
    """
    size, seed = check_size(size), check_seed(seed)
    name = "doodles" if source is None else str(source)
    if name in MADE:
        made = import_module(f".{name}", __name__)
        drawings = {} if test is None else {"test": test}
        return made.load(size=size, seed=seed, classes=choose_classes(made.CLASSES, classes, name), **drawings)
    from . import folder, tuberlin

    path = tuberlin.find() if name == "tuberlin" else name
    return folder.load(path, classes=classes, size=size, seed=seed, progress=progress)


def prepare_files(paths: Sequence[Path], preprocessing: dict[str, Any]) -> np.ndarray:
    """Return images (PNG, JPEG, ...) and SVG sketches, dark on white, as a network's input, float32 (B, size, size, C).

    Raises
    ------
    DataError
        A file cannot be opened, or is no image.
    """
    from . import augment, folder

    ask_for_images(len(paths), preprocessing)
    stored = [folder.reduce(folder.read_file(path), path.name, preprocessing, str(path)) for path in paths]
    return augment.evaluation_batch(np.stack(stored), preprocessing)


def prepare_strokes(strokes: Sequence[np.ndarray], preprocessing: dict[str, Any], width: float = 1.0) -> np.ndarray:
    """Return strokes (float arrays (n, 2), x, y in 0..1, y down) as a network's input, float32 (1, size, size, 1).

    ``width`` is that of the pen: 1 for the pen of the training drawings.
    """
    from . import augment, tuberlin
    from .strokes import render

    _check_sketch(preprocessing)
    ask_for_images(1, preprocessing)
    stored = preprocessing["stored"]
    image = render(strokes, stored, width=width * tuberlin.pen_width(stored))
    return augment.evaluation_batch(image[None, :, :, None], preprocessing)


def doodles_for(preprocessing: dict[str, Any], count: int = 8) -> np.ndarray:
    """Return ``count`` doodles of each class, always the same, as a network's input, float32 (B, size, size, 1)."""
    from . import augment, doodles

    _check_sketch(preprocessing)
    rng = np.random.default_rng(0)
    drawn = [doodles.images(name, count, rng, preprocessing["stored"]) for name in doodles.CLASSES]
    return augment.evaluation_batch(np.concatenate(drawn), preprocessing)


def unknown(
    source: Path | str, known: Sequence[str], preprocessing: dict[str, Any], progress: bool = True
) -> tuple[np.ndarray, int]:
    """Return images of what a network does not know.

    Parameters
    ----------
    source : str or path
        "strangers": 25 drawings each of twelve kinds of things (`strangers.KINDS`). Otherwise a source as of `load`, of
        which all classes are taken that are not ``known``.
    known : sequence of str
    preprocessing : dict

    Returns
    -------
    images : uint8 (N, S, S, C), as of `Dataset`
    kinds : int
        How many kinds or classes they are of.
    """
    if str(source) == "strangers":
        from . import strangers

        _check_sketch(preprocessing)
        return strangers.images(25, preprocessing["stored"])[0], len(strangers.KINDS)
    data = load(source, size=preprocessing["size"], progress=progress)
    images, labels = (np.concatenate(part) for part in zip(data.train, data.validation, data.test, strict=True))
    strange = [k for k, name in enumerate(data.classes) if name not in known]
    if not strange:
        raise DataError(f"{source}: the network knows all of its classes; expected some that it does not")
    if data.preprocessing["channels"] != preprocessing["channels"]:
        raise DataError(f"{source}: expected images of {preprocessing['channels']} channels")
    return images[np.isin(labels, strange)], len(strange)


def _check_sketch(preprocessing):
    if preprocessing["kind"] != "sketch" or preprocessing["channels"] != 1:
        raise DataError(f"the network was trained on a {preprocessing['kind']}; expected one trained on sketches")
