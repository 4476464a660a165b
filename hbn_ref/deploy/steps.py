"""The steps of a packed network: each takes what the step before it returns."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import bits, conv, engine, kernels, layers

Watch = Callable[[str, np.ndarray, int], Any] | None  # sees (name, values or words, channels), see `PackedNetwork`


@dataclass(frozen=True)
class Convolve:
    """A real convolution, with a bias for the classifier."""

    name: str
    w: np.ndarray  # float32 (kh, kw, C_in, C_out)
    bias: np.ndarray | None
    stride: tuple[int, int]
    padding: tuple[int, int]

    def __call__(self, x: np.ndarray, watch: Watch) -> np.ndarray:
        if watch is not None:
            watch(self.name, x, x.shape[3])
        out, _ = conv.conv2d_forward(x, self.w, stride=self.stride, padding=self.padding, need_cache=False)
        return out if self.bias is None else out + self.bias


@dataclass(frozen=True)
class BinaryWeightConvolve:
    """A convolution of real inputs with weights kept as bits."""

    name: str
    words: np.ndarray  # uint64 (kh * kw * C_in, ceil(C_out / 64))
    alpha: np.ndarray
    shape: tuple[int, ...]  # (kh, kw, C_in, C_out)
    stride: tuple[int, int]
    padding: tuple[int, int]

    def __call__(self, x: np.ndarray, watch: Watch) -> np.ndarray:
        if watch is not None:
            watch(self.name, x, x.shape[3])
        options = {"stride": self.stride, "padding": self.padding}
        return conv.unpacking_conv2d(x, self.words, self.alpha, self.shape[:2], **options)


@dataclass(frozen=True)
class Count:
    """A fully binary convolution of words. Gives whole numbers (int32), times alpha if the next step is real."""

    name: str
    w: conv.PackedWeights
    stride: tuple[int, int]
    padding: tuple[int, int]
    real: bool

    def __call__(self, words: np.ndarray, watch: Watch) -> np.ndarray:
        if watch is not None:
            watch(self.name, words, self.w.shape[2])
        dtype = np.float32 if self.real else np.int32
        return conv.count(words, self.w, dtype, stride=self.stride, padding=self.padding, scale=self.real)


@dataclass(frozen=True)
class Scale:
    """A folded BatchNorm."""

    scale: np.ndarray
    shift: np.ndarray

    def __call__(self, x: np.ndarray, watch: Watch) -> np.ndarray:
        return layers.scale_shift(x, self.scale, self.shift)


@dataclass(frozen=True)
class Signs:
    """A folded BatchNorm and the sign: real values to words."""

    name: str  # of the layer that takes these words
    scale: np.ndarray
    shift: np.ndarray

    def __call__(self, x: np.ndarray, watch: Watch) -> np.ndarray:
        values = layers.scale_shift(x, self.scale, self.shift)
        if watch is not None:
            watch(self.name, values, values.shape[3])
        return bits.pack(values)


@dataclass(frozen=True)
class Threshold:
    """Whole numbers to words, (i >= t) XOR flip."""

    t: np.ndarray  # int32 (C,), filled up to whole words with the largest int32, which no count reaches
    flip: np.ndarray  # uint64 (words,)

    def __call__(self, counts: np.ndarray, watch: Watch) -> np.ndarray:
        rows = counts.reshape(-1, counts.shape[3])
        words = np.empty((len(rows), len(self.flip)), np.uint64)
        engine.run(kernels.pack_at_least, len(rows), rows, self.t, self.flip, words, work=rows.size)
        return words.reshape(*counts.shape[:3], -1)


@dataclass(frozen=True)
class MaxPool:
    """The largest value of each window: real values or whole numbers."""

    window: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    ceil: bool

    def __call__(self, x: np.ndarray, watch: Watch) -> np.ndarray:
        size = layers.pool_size(x.shape[1:3], self.window, self.stride, self.padding, self.ceil)
        shape = len(x), *size, x.shape[3]
        out, tap = np.empty(shape, x.dtype), np.empty(shape, np.uint8)
        args = (*self.window, *self.stride, *self.padding)
        engine.run(kernels.max_pool, len(x), x, *args, out, tap, work=x.size)
        return out


@dataclass(frozen=True)
class Apply:
    """A layer without weights, as it is in the trained network: ReLU, average pooling, the last reshape."""

    layer: layers.Layer

    def __call__(self, x: np.ndarray, watch: Watch) -> np.ndarray:
        return self.layer.forward(x)


@dataclass(frozen=True)
class Residual:
    """body(x) + shortcut(x), in float32."""

    body: tuple
    shortcut: tuple

    def __call__(self, x: np.ndarray, watch: Watch) -> np.ndarray:
        return run(self.body, x, watch) + run(self.shortcut, x, watch)


@dataclass(frozen=True)
class Concat:
    """Several branches side by side."""

    branches: tuple

    def __call__(self, x: np.ndarray, watch: Watch) -> np.ndarray:
        return np.concatenate([run(branch, x, watch) for branch in self.branches], axis=3)


def run(steps: tuple, x: np.ndarray, watch: Watch) -> np.ndarray:
    """Return what comes out of the last of ``steps`` for x."""
    for step in steps:
        x = step(x, watch)
    return x


def threshold_step(t: np.ndarray, flip: np.ndarray) -> Threshold:
    """Return the step for what `thresholds.threshold` found."""
    whole = 64 * bits.words_for(len(t))
    padded = np.full(whole, np.iinfo(np.int32).max, np.int32)
    padded[: len(t)] = t
    word = np.zeros(whole, bool)
    word[: len(t)] = flip
    return Threshold(padded, np.packbits(word, bitorder="little").view(np.uint64))
