"""The packed network, what it looks at, and its answers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from .. import bits, memory, models, train
from ..checks import float_array
from .steps import Watch, run

NONE = "none of these"  # a class like the others, with the same logit for every image; see `with_doubt`
DOUBTED = 0.2  # share of validation images whose largest logit is below that one: README, "None of these", says why


@dataclass(frozen=True)
class PackedNetwork:
    """A trained network in bits and whole numbers; call it with images.

    Attributes
    ----------
    spec : dict, as of `models.build`
    classes : list of str
    preprocessing : dict
    steps : tuple
    none_of_these : float or None
        The logit of `NONE`, see `with_doubt`; None names a class for every image.
    """

    spec: dict[str, Any]
    classes: list[str]
    preprocessing: dict[str, Any]
    steps: tuple
    none_of_these: float | None = None

    def __call__(self, x: np.ndarray, watch: Watch = None) -> np.ndarray:
        """Return logits (N, num_classes) for x (N, H, W, C) float32.

        ``watch``, a function (name, x, channels), sees what enters each convolution: the real values (float32), or the
        words (uint64) of a fully binary one, and before them the real values they are the signs of, if there are any.
        """
        size, x = self.spec["input_size"], float_array("x", x, 4)
        expected = (size, size, self.spec["in_channels"])
        if x.shape[1:] != expected or x.dtype != np.float32:
            raise ValueError(
                f"x: expected float32 images (N, {', '.join(map(str, expected))}), got {x.dtype} {x.shape}"
            )
        memory.ask(f"x: {len(x)} images at once", len(x) * self._image_bytes)
        return run(self.steps, x, watch)

    @cached_property
    def _image_bytes(self):
        return models.bytes_needed(models.from_spec(self.spec, init=False), 1)

    def trace(self, x: np.ndarray) -> tuple[np.ndarray, list[tuple[str, np.ndarray]]]:
        """Return (logits, [(layer, bits)]): bits uint8 (N, H, W, C), 1 for +1, of what enters each binary layer."""
        logits, seen = self.look(x)
        return logits, [(name, found) for name, _, found in seen if found is not None]

    def look(self, x: np.ndarray) -> tuple[np.ndarray, list[tuple[str, np.ndarray | None, np.ndarray | None]]]:
        """Return (logits, [(layer, values, bits)]) of what enters each convolution, in the order of computing.

        ``values``, float32 (N, H, W, C): the real inputs; of a fully binary layer what its bits are the signs of, or
        None where there are whole numbers and a threshold only. ``bits``, uint8 (N, H, W, C): as of `trace`, None for
        a layer with real inputs.
        """
        seen: dict[str, Any] = {}

        def watch(name, found, channels):
            values, _ = seen.get(name, (None, None))
            if found.dtype == np.uint64:
                seen[name] = values, (bits.unpack(found, channels) > 0).astype(np.uint8)
            else:
                seen[name] = found.copy(), None

        logits = self(x, watch)
        return logits, [(name, *found) for name, found in seen.items()]


def with_doubt(packed: PackedNetwork, batches: Iterable[np.ndarray]) -> PackedNetwork:
    """Return the network with a class more, `NONE`, for images of what it does not know.

    Softmax makes one of the classes likely whatever it is shown. `NONE` has a logit, too, the same for every image: the
    one that a share of `DOUBTED` of images of known classes stays below. So a network needs no image of anything else
    to learn it, and doubts more of those, as their largest logit tends to be low (Hendrycks et al. 2022, MaxLogit).

    Parameters
    ----------
    packed : PackedNetwork
    batches : iterable of float32 (B, H, W, C)
        Validation images, which it was not trained on.
    """
    largest = [packed(x).max(axis=1) for x in batches]
    if not largest:
        raise ValueError("batches: expected images of known classes, got none")
    return replace(packed, none_of_these=float(np.quantile(np.concatenate(largest), DOUBTED)))


def best(packed: PackedNetwork, x: np.ndarray, count: int = 5) -> list[list[tuple[str, float]]]:
    """Return, for each image of x, the ``count`` most probable classes: a list of (class, probability)."""
    return ranked(packed(x), packed.classes, count, packed.none_of_these)


def ranked(
    logits: np.ndarray, classes: Sequence[str], count: int, none_of_these: float | None = None
) -> list[list[tuple[str, float]]]:
    """The same for logits (N, classes); without names a class is its number."""
    names = [*classes] or [str(k) for k in range(logits.shape[1])]
    if none_of_these is not None:
        logits = np.insert(logits, logits.shape[1], none_of_these, axis=1)
        names.append(NONE)
    shares = train.softmax(logits)
    order = np.argsort(-shares, axis=1, kind="stable")[:, :count]
    return [[(names[k], float(row[k])) for k in first] for row, first in zip(shares, order, strict=True)]
