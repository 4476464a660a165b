"""The packed network: it answers, and shows what enters its layers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from .. import bits, memory, models, train
from ..checks import float_array
from .steps import Watch, run

NONE = "none of these"  # a class like the others, with the same logit for every image; see `with_doubt`
DOUBTED = 0.2  # share of validation images whose largest logit is below that one: results/README.md says why


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

        ``watch`` is a function (name, x, channels) that sees what enters each convolution: real values (float32), or
        the words (uint64) of a fully binary one. Where these words are signs of real values, it sees those first.
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
        """Return (logits, [(layer, bits)]) of what enters each binary layer: bits uint8 (N, H, W, C), 1 for +1."""
        logits, seen = self.look(x)
        return logits, [(name, found) for name, _, found in seen if found is not None]

    def look(self, x: np.ndarray) -> tuple[np.ndarray, list[tuple[str, np.ndarray | None, np.ndarray | None]]]:
        """Return (logits, [(layer, values, bits)]) of what enters each convolution, in the order of computing.

        ``values``, float32 (N, H, W, C), are the real inputs. For a fully binary layer they are the values whose signs
        its bits are, or None if these bits come from whole numbers and a threshold. ``bits``, uint8 (N, H, W, C), are
        those of `trace`, or None for a layer with real inputs.
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
    """Return the network with one more class, `NONE`, for images of what it does not know.

    Softmax makes one of the classes likely, whatever the image shows. `NONE` has a logit, too, the same for each image:
    so high that for a share `DOUBTED` of images of known classes no other logit reaches it. So the network learns to
    doubt without any image of something else. It doubts those more often, as their largest logit tends to be low
    (Hendrycks et al. 2022, MaxLogit).

    Parameters
    ----------
    packed : PackedNetwork
    batches : iterable of float32 (B, H, W, C)
        Validation images, on which the network was not trained.
    """
    largest = [packed(x).max(axis=1) for x in batches]
    if not largest:
        raise ValueError("batches: expected images of known classes, got none")
    return replace(packed, none_of_these=float(np.quantile(np.concatenate(largest), DOUBTED)))


def best(packed: PackedNetwork, x: np.ndarray, count: int = 5) -> list[list[tuple[str, float]]]:
    """Return for each image of x the ``count`` most probable classes, as a list of (class, probability)."""
    return ranked(packed(x), packed.classes, count, packed.none_of_these)


def ranked(
    logits: np.ndarray, classes: Sequence[str], count: int, none_of_these: float | None = None
) -> list[list[tuple[str, float]]]:
    """Do the same for logits (N, classes); without names, a class is called by its number."""
    names = [*classes] or [str(k) for k in range(logits.shape[1])]
    if none_of_these is not None:
        logits = np.insert(logits, logits.shape[1], none_of_these, axis=1)
        names.append(NONE)
    shares = train.softmax(logits)
    order = np.argsort(-shares, axis=1, kind="stable")[:, :count]
    return [[(names[k], float(row[k])) for k in first] for row, first in zip(shares, order, strict=True)]
