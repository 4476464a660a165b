"""What a built network is made of: its record and its leaves, how many numbers it holds and how many bytes it takes."""

from collections.abc import Iterator
from typing import Any

from .. import layers


def spec_of(model: layers.Sequential) -> dict[str, Any]:
    """Return the record that `build` kept in a model, or raise a ValueError if there is none."""
    if model.spec is None:
        raise ValueError("model: expected one made by models.build, this Sequential carries no definition")
    return model.spec


def numbers(model: layers.Layer) -> int:
    """Return how many numbers a network holds."""
    return sum(array.size for array in model.state().values())


def leaves(
    layer: layers.Layer, shape: tuple[int, ...]
) -> Iterator[tuple[layers.Layer, tuple[int, ...], tuple[int, ...]]]:
    """Yield (leaf layer, input shape, output shape) in the order of the definition."""
    if isinstance(layer, layers.Sequential):
        for inner in layer.layers:
            yield from leaves(inner, shape)
            shape = inner.output_shape(shape)
    elif isinstance(layer, layers.Residual):
        yield from leaves(layer.body, shape)
        yield from leaves(layer.shortcut, shape)
    elif isinstance(layer, layers.Concat):
        for branch in layer.branches:
            yield from leaves(branch, shape)
    else:
        yield layer, shape, layer.output_shape(shape)


def bytes_needed(model: layers.Sequential, batch: int, slots: int | None = None) -> int:
    """Return the least number of bytes that a batch takes on its way through a network.

    Without ``slots`` this is a forward pass: the largest input and output of a layer. With ``slots`` it is a training
    step: what each layer keeps for its backward pass, a gradient for each weight, and ``slots`` running arrays of the
    optimiser for each weight.
    """
    spec = spec_of(model)
    size = spec["input_size"]
    kept, most = 0, 0
    for layer, before, after in leaves(model, (size, size, spec["in_channels"])):
        x, out = (4 * shape[0] * shape[1] * shape[2] for shape in (before, after))
        most = max(most, kept + x + out)
        kept += 0 if slots is None else _kept_bytes(layer, before, x, out)
    weights = sum(layer.params[key].size for _, layer, key in model.parameters())
    return batch * max(most, kept) + 4 * weights * (0 if slots is None else 1 + slots)


def _kept_bytes(layer, before, x, out):
    """Bytes that a layer keeps of one image for its backward pass; x and out: bytes of its input and output."""
    if isinstance(layer, layers.XnorConv):
        return x // 16  # two bits per value
    if isinstance(layer, layers.Conv):
        (ph, pw), (height, width, channels) = layer.padding, before
        return 4 * (height + 2 * ph) * (width + 2 * pw) * channels
    if isinstance(layer, layers.BatchNorm):
        return x
    if isinstance(layer, layers.MaxPool):
        return out // 4  # a byte per value
    return x // 32 if isinstance(layer, layers.ReLU) else 0
