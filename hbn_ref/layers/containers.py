"""Containers of layers: one after another, a body beside a shortcut, branches side by side."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from .objects import BinaryWeightConv, Layer, ReLU


class Sequential(Layer):
    """Layers one after another. ``spec`` is what `models.build` made it from: enough to build it again."""

    spec: Any  # a dict, or None

    def __init__(self, layers: Iterable[Layer], name: str = "", spec: dict[str, Any] | None = None) -> None:
        super().__init__(name)
        self.layers, self.spec = list(layers), spec

    def walk(self) -> Iterator[Layer]:
        for layer in self.layers:
            yield from layer.walk()

    def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        if self.spec is not None:
            self._check_images(x)
        for layer in self.layers:
            x = layer.forward(x, training)
        return x

    def _check_images(self, x):
        size = self.spec["input_size"]
        expected = (size, size, self.spec["in_channels"])
        if np.ndim(x) != 4 or x.shape[1:] != expected or len(x) == 0:
            raise ValueError(f"x: expected images (N, {size}, {size}, {expected[2]}), N >= 1, got shape {np.shape(x)}")
        own = next((layer.params[key].dtype for _, layer, key in self.parameters()), x.dtype)
        if x.dtype != own:
            raise TypeError(f"x: expected images of {own}, got {x.dtype}")

    def backward(self, dout: np.ndarray) -> np.ndarray | Any:
        for layer in reversed(self.layers):
            dout = layer.backward(dout)
        return dout

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        for layer in self.layers:
            shape = layer.output_shape(shape)
        return shape


def _own(branch, x):
    """Return x, or a copy if the branch begins by overwriting it: others still read it."""
    first = next(branch.walk(), None)
    return x.copy() if isinstance(first, ReLU) and first.in_place else x


class Residual(Layer):
    """``out = body(x) + shortcut(x)``. An empty shortcut passes x on."""

    def __init__(self, body: Sequential, shortcut: Sequential | None = None, name: str = "") -> None:
        super().__init__(name)
        self.body, self.shortcut = body, shortcut or Sequential([])

    def walk(self) -> Iterator[Layer]:
        yield from self.body.walk()
        yield from self.shortcut.walk()

    def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        return self.body.forward(_own(self.body, x), training) + self.shortcut.forward(x, training)

    def backward(self, dout: np.ndarray) -> np.ndarray | Any:
        return self.body.backward(dout.copy()) + self.shortcut.backward(dout)  # the body may work in place

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        body, shortcut = self.body.output_shape(shape), self.shortcut.output_shape(shape)
        if body != shortcut:
            raise ValueError(f"{self.name}: the body makes {body}, the shortcut {shortcut}; their sum needs one shape")
        return body


class Concat(Layer):
    """The outputs of several branches, side by side along the channels."""

    def __init__(self, branches: Iterable[Sequential], name: str = "") -> None:
        super().__init__(name)
        self.branches = list(branches)

    def walk(self) -> Iterator[Layer]:
        for branch in self.branches:
            yield from branch.walk()

    def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        outs = [branch.forward(_own(branch, x), training) for branch in self.branches]
        self.cache = np.cumsum([out.shape[-1] for out in outs])[:-1] if training else None
        return np.concatenate(outs, axis=-1)

    def _backward(self, dout, cache):
        parts = np.split(dout, cache, axis=-1)
        return sum(b.backward(np.ascontiguousarray(d)) for b, d in zip(self.branches, parts, strict=True))

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        shapes = [branch.output_shape(shape) for branch in self.branches]
        if len({s[:2] for s in shapes}) > 1:
            raise ValueError(f"{self.name}: branches of different sizes {shapes}")
        return *shapes[0][:2], sum(s[2] for s in shapes)


@contextmanager
def watching(
    model: Layer, function: Callable[[Any, np.ndarray], Any], kind: type[Layer] = Layer, output: bool = False
) -> Iterator[None]:
    """Within the block, call ``function(layer, x)`` for every layer of class ``kind``, with its input or its output."""
    watched = [layer for layer in model.walk() if isinstance(layer, kind)]
    attribute = "watch_output" if output else "watch"
    try:
        for layer in watched:
            setattr(layer, attribute, function)
        yield
    finally:
        for layer in watched:
            setattr(layer, attribute, None)


@contextmanager
def packed_weights(model: Layer) -> Iterator[Layer]:
    """Within the block, binary layers binarize and pack their weights once instead of at every forward pass.

    This is for evaluation: the weights must not change inside the block.
    """
    binary = [layer for layer in model.walk() if isinstance(layer, BinaryWeightConv)]
    try:
        for layer in binary:
            layer.held = layer.prepare()
        yield model
    finally:
        for layer in binary:
            layer.held = None
