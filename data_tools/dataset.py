"""What every source of images becomes: three splits of 8-bit images, and how to prepare them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from . import augment
from .errors import DataError
from .room import ask_for_images

MIN_SIZE = 16
# Normalisation of the authors' code for drawings; the customary ImageNet figures for photos.
SKETCH_MEAN, SKETCH_STD = 0.06, 0.93
PHOTO_MEAN, PHOTO_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
GREY_PHOTO_MEAN, GREY_PHOTO_STD = 0.449, 0.226
TEST_SHARE, VALIDATION_SHARE = 26 / 80, 6 / 80


@dataclass(frozen=True)
class Dataset:
    """Images and labels in three splits, and how to prepare them for a network.

    Attributes
    ----------
    name : str
    classes : tuple of str
        Alphabetical; label k is `classes[k]`.
    train, validation, test : tuple of (images, labels)
        images: uint8 (N, S, S, C), S = `preprocessing["stored"]`; labels: int64 (N,).
        Drawings hold ink: 0 is paper, 255 is a stroke. Photos hold plain brightness.
    preprocessing : dict
        Plain JSON: size, stored, channels, kind ("sketch" or "photo"), mean, std, source, split_seed; for drawings
        also solid. A saved model carries it, so that new images can be prepared in the same way, and the test images
        can be found again.
    augmentation : dict
        How training images are varied: `augment.AUGMENTATION`, perhaps with other values.
    """

    name: str
    classes: tuple[str, ...]
    train: tuple[np.ndarray, np.ndarray] = field(repr=False)
    validation: tuple[np.ndarray, np.ndarray] = field(repr=False)
    test: tuple[np.ndarray, np.ndarray] = field(repr=False)
    preprocessing: dict[str, Any]
    augmentation: dict[str, Any] = field(default_factory=augment.AUGMENTATION.copy)

    def training_batch(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Randomly warped float32 (B, size, size, C) from stored images; see `augment.training_batch`."""
        return augment.training_batch(images, rng, self.preprocessing, self.augmentation)

    def development(self, seed: int) -> "Dataset":
        """Return data to make choices with: a quarter of all but the test (13 of 54) stands in for the test images.

        The test images themselves are left out. ``seed`` draws the quarter, class by class.
        """
        images, labels = self.without_validation().train
        held = np.zeros(len(labels), bool)
        for k, name in enumerate(self.classes):
            places = _stream(check_seed(seed), name).permutation(np.flatnonzero(labels == k))
            held[places[: max(1, len(places) // 4)]] = True
        train, test = (images[~held], labels[~held]), (images[held], labels[held])
        return replace(self, train=train, validation=(images[:0], labels[:0]), test=test)

    def with_augmentation(self, **changed: Any) -> "Dataset":
        """The same data, with other `augment.AUGMENTATION` of the training images; a DataError for bad values."""
        return replace(self, augmentation=augment.check_augmentation({**self.augmentation, **changed}))

    def evaluation_batch(self, images: np.ndarray) -> np.ndarray:
        """Centre crops, float32 (B, size, size, C); see `augment.evaluation_batch`."""
        return augment.evaluation_batch(images, self.preprocessing)

    def ten_crops(self, images: np.ndarray) -> np.ndarray:
        """Corners, centre and their mirrors, float32 (10, B, size, size, C); see `augment.ten_crops`."""
        return augment.ten_crops(images, self.preprocessing)

    def without_validation(self) -> "Dataset":
        """The same data, with the validation images among those to train on: 54 of 80, once every choice is made."""
        images, labels = (np.concatenate(pair) for pair in zip(self.train, self.validation, strict=True))
        order = np.argsort(labels, kind="stable")
        return replace(self, train=(images[order], labels[order]), validation=(images[:0], labels[:0]))


def check_size(size: Any) -> int:
    """The wanted image size as an int of at least 16, or DataError."""
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < MIN_SIZE:
        raise DataError(f"size is {size!r}; expected a whole number of pixels, {MIN_SIZE} or more, such as 64")
    return int(size)


def check_seed(seed: Any) -> int:
    """The seed as an int >= 0, or DataError."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise DataError(f"seed is {seed!r}; expected a whole number, 0 or more")
    return int(seed)


def make_preprocessing(size: int, kind: str = "sketch", channels: int = 1) -> dict[str, Any]:
    """Return the dictionary that says how stored images become a network's input.

    Parameters
    ----------
    size : int
        Side of the network's input; images are stored at 9/8 of it, which leaves room for crops.
    kind : {"sketch", "photo"}
    channels : {1, 3}
    """
    size = check_size(size)
    about = {"size": size, "stored": size * 9 // 8, "channels": channels, "kind": kind}
    if kind == "sketch":
        return about | {"mean": SKETCH_MEAN, "std": SKETCH_STD, "solid": list(augment.SOLID)}
    if channels == 3:
        return about | {"mean": list(PHOTO_MEAN), "std": list(PHOTO_STD)}
    return about | {"mean": GREY_PHOTO_MEAN, "std": GREY_PHOTO_STD}


def choose_classes(available: Sequence[str], classes: int | Sequence[str] | None, source: str) -> tuple[str, ...]:
    """Return the chosen class names, in alphabetical order.

    Parameters
    ----------
    available : sequence of str
        All classes of the source, alphabetical.
    classes : None, int or sequence of str
        None: all; N: the first N; names: those.
    source : str
        For the messages.

    Raises
    ------
    DataError
        Unknown or repeated names, more than there are, fewer than 2.
    """
    available = list(available)
    if classes is None:
        chosen = available
    elif isinstance(classes, (int, np.integer)) and not isinstance(classes, bool):
        if classes > len(available):
            raise DataError(f"{classes} classes asked for, {source} has {len(available)}; ask for that many or fewer")
        chosen = available[: max(int(classes), 0)]
    else:
        chosen = _named_classes(available, classes, source)
    if len(chosen) < 2:
        names = f" ({', '.join(chosen)})" if chosen else ""
        raise DataError(
            f"{len(chosen)} class{'' if len(chosen) == 1 else 'es'}{names} from {source}; expected 2 or more"
        )
    return tuple(chosen)


def _named_classes(available, classes, source):
    if isinstance(classes, str) or not hasattr(classes, "__iter__"):
        raise DataError(f"classes is {classes!r}; expected a whole number or a list of class names")
    names = list(classes)
    unknown = [name for name in names if name not in available]
    if unknown:
        some = ", ".join(available[:8]) + (", ..." if len(available) > 8 else "")
        raise DataError(f"no class {unknown[0]!r} in {source}; its {len(available)} classes are {some}")
    if len(set(names)) < len(names):
        raise DataError(f"classes names {next(n for n in names if names.count(n) > 1)!r} twice; name each class once")
    return sorted(names)


def split_counts(count: int) -> tuple[int, int, int]:
    """How many of `count` images go to (train, validation, test): 48, 6, 26 of 80, or in proportion."""
    test = max(1, round(count * TEST_SHARE))
    validation = max(1, round(count * VALIDATION_SHARE))
    return count - test - validation, validation, test


def split_class(count: int, seed: int, name: str) -> tuple[np.ndarray, ...]:
    """Share out the images of one class: places in (train, validation, test), int64, each image in one of them.

    Parameters
    ----------
    count : int
    seed : int
    name : str
        The class. It takes part in the draw, so that a class is split alike, whatever other classes there are.

    Raises
    ------
    DataError
        Fewer than 3 images.
    """
    if count < 3:
        raise DataError(f"class {name!r} has {count} image{'s' * (count != 1)}; expected 3 or more, one for each split")
    train, validation, _ = split_counts(count)
    order = _stream(seed, name).permutation(count)
    return tuple(np.sort(part) for part in np.split(order, [train, train + validation]))


def hold_out(count: int, seed: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Places of one class's training images in (train, validation), if the source has test images of its own."""
    if count < 2:
        raise DataError(f"class {name!r} has {count} training image; expected 2 or more, one of them to validate")
    validation = max(1, round(count * VALIDATION_SHARE / (1 - TEST_SHARE)))
    order = _stream(seed, name).permutation(count)
    return np.sort(order[validation:]), np.sort(order[:validation])


def _stream(seed, name):
    return np.random.default_rng([seed, *name.encode("utf-8", "surrogateescape")])


def stack_split(parts: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return one (images, labels) from a list with the images of each class; a label is a place in that list."""
    images = np.concatenate(parts)
    labels = np.repeat(np.arange(len(parts), dtype=np.int64), [len(part) for part in parts])
    return images, labels


def drawn(
    source: str, every: Sequence[str], images: Callable[[str, int, np.random.Generator, int], np.ndarray],
    size: int, seed: int, classes: int | Sequence[str] | None, **counts: int,
) -> Dataset:  # fmt: skip
    """Return a data set whose images are drawn on the spot.

    Each class and each split has a random stream of its own. So a drawing depends neither on the other classes that
    are wanted, nor on the number of drawings in other splits.

    Parameters
    ----------
    source : str
        Its name.
    every : sequence of str
        All of its classes, alphabetical.
    images : function (class, count, generator, side) -> uint8 (count, side, side, 1), ink 255 on paper 0
    size, seed, classes : see `data_tools.load`
    counts : train, validation, test
        Drawings per class.
    """
    names = choose_classes(every, classes, source)
    preprocessing = make_preprocessing(size) | {"source": source, "split_seed": check_seed(seed)}
    for split, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
            raise DataError(f"{split} is {count!r}; expected the drawings per class, 1 or more")
    ask_for_images(len(names) * sum(counts.values()), preprocessing)
    splits: list[tuple[np.ndarray, np.ndarray]] = []
    for number, split in enumerate(("train", "validation", "test")):
        streams = [np.random.default_rng([preprocessing["split_seed"], number, every.index(name)]) for name in names]
        made = [images(name, counts[split], rng, preprocessing["stored"]) for name, rng in zip(names, streams)]
        splits.append(stack_split(made))
    return Dataset(source, names, splits[0], splits[1], splits[2], preprocessing)
