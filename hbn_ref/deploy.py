"""Chapter 9, deploy: a trained network as a packed one, that stays in bits and whole numbers from layer to layer.

Between two fully binary layers the trained network computes, for each channel,

    count -> alpha * count -> ReLU, max pooling -> BatchNorm: v * scale + shift -> sign -> one bit.

Each arrow is monotone in the count i, a whole number from -n to n: alpha >= 0, the ReLU and the maximum never
exchange two values, and neither does rounding; the line rises or falls with the sign of its scale (that of gamma).
So the bit as a function of i changes at most once, and all of this is one comparison with a whole number t:

    gamma > 0:  bit = (i >= t)                 the bit rises
    gamma < 0:  bit = (i <  t) = NOT (i >= t)  the bit falls: the same comparison, flipped
    gamma = 0:  bit = (shift >= 0) for all i   t = -n (always) or t = n + 1 (never)

The maximum goes before the comparison, on whole numbers. A formula, t = ceil(-shift / (scale alpha)), would be wrong
where a sum lies on the threshold up to rounding; `threshold` finds t by bisection over the very function that the
trained network evaluates, so that the bits are the same by construction. alpha is then not needed any more.

Everywhere else a value stays real: BatchNorm is folded into one scale and shift a channel, binary weights are kept as
bits. A file (`save`) holds one bit a binary weight and 32 a real weight, scale, shift and threshold.
"""

import copy
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from . import binarize, bits, conv, engine, files, kernels, layers, memory, models, train
from .checks import float_array

FORMAT = "hbn_ref packed 1"
NONE = "none of these"  # a class like the others, with the same logit for every image; see `with_doubt`
DOUBTED = 0.2  # share of validation images whose largest logit is below that one: README, "None of these", says why
Watch = Callable[[str, np.ndarray, int], Any] | None  # sees (name, values or words, channels), see `PackedNetwork`


# ------------------------------------------------------------------------------------------ the threshold


def threshold(
    alpha: np.ndarray, scale: np.ndarray, shift: np.ndarray, n: int, relu: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Fold alpha, ReLU, BatchNorm and sign into one comparison a channel; see the top of the page.

    Parameters
    ----------
    alpha, scale, shift : float32 (C,)
    n : int
        Counts are whole numbers from -n to n.
    relu : bool
        Whether a ReLU stands between.

    Returns
    -------
    t : int64 (C,), from -n to n + 1
    flip : bool (C,)
        The bit of count i is ``(i >= t) XOR flip``.
    """
    flip = scale < 0

    def rising(i):
        v = alpha * i.astype(np.float32)
        v = np.maximum(v, np.float32(0)) if relu else v
        return (layers.scale_shift(v.reshape(1, 1, 1, -1), scale, shift).ravel() >= 0) ^ flip

    low, high = np.full(len(alpha), -n - 1), np.full(len(alpha), n + 1)  # false up to low, true from high on
    while np.any(apart := high - low > 1):
        middle = (low + high) // 2
        true = rising(middle)
        low, high = np.where(apart & ~true, middle, low), np.where(apart & true, middle, high)
    return high, flip


# ---------------------------------------------------------------------------------------------- the steps


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
    """A fully binary convolution of words: whole numbers (int32), or times alpha where the next step is real."""

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
    """A folded BatchNorm and the sign, of real values: gives words."""

    name: str  # of the layer that takes them
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

    t: np.ndarray  # int32 (C,), with the largest int32 up to whole words
    flip: np.ndarray  # uint64 (words,)

    def __call__(self, counts: np.ndarray, watch: Watch) -> np.ndarray:
        rows = counts.reshape(-1, counts.shape[3])
        words = np.empty((len(rows), len(self.flip)), np.uint64)
        engine.run(kernels.pack_at_least, len(rows), rows, self.t, self.flip, words, work=rows.size)
        return words.reshape(*counts.shape[:3], -1)


@dataclass(frozen=True)
class MaxPool:
    """The largest of each window, of real values or whole numbers."""

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
    """A layer without weights, as the trained network has it: ReLU, pooling by means, the last reshape."""

    layer: layers.Layer

    def __call__(self, x: np.ndarray, watch: Watch) -> np.ndarray:
        return self.layer.forward(x)


@dataclass(frozen=True)
class Residual:
    """body(x) + shortcut(x), in float32."""

    body: tuple
    shortcut: tuple

    def __call__(self, x: np.ndarray, watch: Watch) -> np.ndarray:
        return _run(self.body, x, watch) + _run(self.shortcut, x, watch)


@dataclass(frozen=True)
class Concat:
    """Several branches side by side."""

    branches: tuple

    def __call__(self, x: np.ndarray, watch: Watch) -> np.ndarray:
        return np.concatenate([_run(branch, x, watch) for branch in self.branches], axis=3)


def _run(steps, x, watch):
    for step in steps:
        x = step(x, watch)
    return x


# ---------------------------------------------------------------------------------------------- compiling


class _FromModel:
    """Where `compile` takes numbers from: a trained network."""

    def real(self, array):
        return np.array(array, np.float32)

    def weights(self, layer, with_alpha):
        w = layer.params["w"]
        alpha = None if with_alpha and layer.scale else np.ones(w.shape[3], np.float32)
        return conv.pack_weights(w, layer.pad_value, alpha)

    def columns(self, layer):
        w = layer.params["w"]
        return bits.pack(w.reshape(-1, w.shape[3])), binarize.alpha(w)

    def fold(self, norm):
        values = norm.params["gamma"], norm.params["beta"], norm.buffers["mean"], norm.buffers["var"]
        return layers.fold_batchnorm(*values)

    def threshold(self, layer, norm, relu):
        w = layer.params["w"]
        alpha = binarize.alpha(w) if layer.scale else np.ones(w.shape[3], np.float32)
        scale, shift = self.fold(norm)
        return _threshold(*threshold(alpha, scale, shift, w[..., 0].size, relu))


def _is(items, i, kind):
    return i < len(items) and isinstance(items[i], kind)


def _after(items, i):
    """What follows a fully binary layer: (pools, relu, j), j the next layer that is none of these."""
    pools, relu = [], False
    while _is(items, i, (layers.MaxPool, layers.ReLU)):
        relu |= isinstance(items[i], layers.ReLU)
        pools += [items[i]] * isinstance(items[i], layers.MaxPool)
        i += 1
    return pools, relu, i


def _alone(layer):
    """A copy of a layer without weights that shares nothing with the trained network's."""
    layer = copy.copy(layer)
    layer.cache = layer.watch = layer.watch_output = None
    return layer


def _pool(layer):
    return MaxPool(layer.size, layer.stride, layer.padding, layer.ceil)


def _steps(items, source):
    """The steps of a list of layers; every number is asked of ``source`` in one fixed order."""
    items = [layer for layer in items if not isinstance(layer, layers.Dropout)]
    made: list[Any] = []
    i = 0
    while i < len(items):
        layer, i = items[i], i + 1
        if isinstance(layer, layers.XnorConv):
            pools, relu, j = _after(items, i)
            chain = _is(items, j, layers.BatchNorm) and _is(items, j + 1, layers.XnorConv)
            w = source.weights(layer, with_alpha=not chain)
            made.append(Count(layer.name, w, layer.stride, layer.padding, real=not chain))
            if chain:
                made += map(_pool, pools)
                made.append(source.threshold(layer, items[j], relu))
                i = j + 1
        elif isinstance(layer, layers.BatchNorm):
            fold = source.fold(layer)
            made.append(Signs(items[i].name, *fold) if _is(items, i, layers.XnorConv) else Scale(*fold))
        elif isinstance(layer, layers.BinaryWeightConv):
            shape, (words, alpha) = layer.params["w"].shape, source.columns(layer)
            made.append(BinaryWeightConvolve(layer.name, words, alpha, shape, layer.stride, layer.padding))
        elif isinstance(layer, layers.Conv):
            w = source.real(layer.params["w"])
            bias = source.real(layer.params["b"]) if "b" in layer.params else None
            made.append(Convolve(layer.name, w, bias, layer.stride, layer.padding))
        elif isinstance(layer, layers.MaxPool):
            made.append(_pool(layer))
        elif isinstance(layer, layers.Residual):
            made.append(Residual(_steps(layer.body.layers, source), _steps(layer.shortcut.layers, source)))
        elif isinstance(layer, layers.Concat):
            made.append(Concat(tuple(_steps(branch.layers, source) for branch in layer.branches)))
        else:
            made.append(Apply(layers.ReLU(layer.name) if isinstance(layer, layers.ReLU) else _alone(layer)))
    return tuple(made)


def _threshold(t, flip):
    whole = 64 * bits.words_for(len(t))
    padded = np.full(whole, np.iinfo(np.int32).max, np.int32)
    padded[: len(t)] = t
    word = np.zeros(whole, bool)
    word[: len(t)] = flip
    return Threshold(padded, np.packbits(word, bitorder="little").view(np.uint64))


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
        return _run(self.steps, x, watch)

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


def compile(
    model: layers.Sequential, *, classes: Sequence[str] = (), preprocessing: dict[str, Any] | None = None
) -> PackedNetwork:
    """Turn a trained network, made by `models.build`, into a packed one.

    Parameters
    ----------
    model : layers.Sequential
    classes : sequence of str
    preprocessing : dict

    Returns
    -------
    PackedNetwork
        Of the model as it is now; training the model on does not change it.
    """
    spec = models.spec_of(model)
    if classes and len(classes) != spec["num_classes"]:
        raise ValueError(f"classes: expected {spec['num_classes']} names, got {len(classes)}")
    for name, array in model.state().items():
        if not np.isfinite(array).all():
            raise ValueError(f"model: {name} contains NaN or infinity")
    for name, layer, key in model.parameters():
        if layer.params[key].dtype != np.float32:
            raise TypeError(f"model: expected float32 parameters, {name} is {layer.params[key].dtype}")
    return PackedNetwork(spec, list(classes), dict(preprocessing or {}), _steps(model.layers, _FromModel()))


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


# ------------------------------------------------------------------------------------------------- the file


class _Blobs:
    """All numbers of a network in the order of its steps: floats (and thresholds, exact in float32), and bits."""

    def __init__(self):
        self.floats, self.bits, self.shapes = [], [], []

    def add(self, kind, array):
        self.shapes.append([kind, list(array.shape)])
        (self.bits if kind == "bits" else self.floats).append(array.ravel())


def _collect(steps, blobs):
    for step in steps:
        if isinstance(step, Convolve):
            blobs.add("floats", step.w)
            if step.bias is not None:
                blobs.add("floats", step.bias)
        elif isinstance(step, Count):
            blobs.add("bits", step.w.signs() > 0)
            if step.real:
                blobs.add("floats", step.w.alpha)
        elif isinstance(step, BinaryWeightConvolve):
            blobs.add("bits", bits.unpack(step.words, step.shape[3]).reshape(step.shape) > 0)
            blobs.add("floats", step.alpha)
        elif isinstance(step, (Scale, Signs)):
            blobs.add("floats", step.scale)
            blobs.add("floats", step.shift)
        elif isinstance(step, Threshold):
            flip = np.unpackbits(step.flip.view(np.uint8), bitorder="little").astype(bool)
            channels = int((step.t != np.iinfo(np.int32).max).sum())
            blobs.add("floats", step.t[:channels].astype(np.float32))
            blobs.add("bits", flip[:channels])
        elif isinstance(step, Residual):
            _collect(step.body, blobs)
            _collect(step.shortcut, blobs)
        elif isinstance(step, Concat):
            for branch in step.branches:
                _collect(branch, blobs)
    return blobs


class _FromFile:
    """Where `load` takes numbers from: the two blobs, in the order in which `_collect` wrote them."""

    def __init__(self, floats, packed_bits, shapes):
        self.floats, self.bits, self.shapes = floats, packed_bits, list(reversed(shapes))
        self.used = {"floats": 0, "bits": 0}

    def take(self, kind, shape):
        if not self.shapes or self.shapes.pop() != [kind, list(shape)]:
            raise ValueError("its arrays are not those of its network")
        start = self.used[kind]
        end = self.used[kind] = start + int(np.prod(shape, dtype=np.int64))
        if kind == "floats":
            values = self.floats[start:end]
        else:
            values = np.unpackbits(self.bits[start // 8 : -(-end // 8)])[start % 8 :][: end - start]
        return values.reshape(shape)

    def real(self, array):
        return self.take("floats", array.shape).copy()

    def signs(self, shape):
        signs = self.take("bits", shape).astype(np.float32)  # the one large array: change it in place
        signs *= 2
        signs -= 1
        return signs

    def weights(self, layer, with_alpha):
        w = layer.params["w"]
        signs = self.signs(w.shape)
        alpha = self.real(w[0, 0, 0]) if with_alpha else np.ones(w.shape[3], np.float32)
        return conv.pack_weights(signs, layer.pad_value, alpha)

    def columns(self, layer):
        w = layer.params["w"]
        return bits.pack(self.signs(w.shape).reshape(-1, w.shape[3])), self.real(w[0, 0, 0])

    def fold(self, norm):
        return tuple(self.real(norm.params["gamma"]) for _ in range(2))

    def threshold(self, layer, norm, relu):
        w = layer.params["w"]
        n, shape = w[..., 0].size, w.shape[3:]
        t = self.take("floats", shape)
        if not np.all((t >= -n) & (t <= n + 1) & (t == np.round(t))):
            raise ValueError("a threshold is no count")
        return _threshold(t.astype(np.int64), self.take("bits", shape).astype(bool))


def _checksum(header, floats, packed_bits):
    text = json.dumps({**header, "checksum": None}, sort_keys=True).encode()
    return hashlib.sha256(text + floats.tobytes() + packed_bits.tobytes()).hexdigest()


class _Counted:
    """Where numbers are only counted: shapes are all that it looks at, so that a network may have no memory."""

    def __init__(self):
        self.floats = self.bits = 0

    def real(self, array):
        self.floats += array.size
        return array

    def weights(self, layer, with_alpha):
        w = layer.params["w"]
        self.bits += w.size
        self.floats += w.shape[3] if with_alpha else 0

    def columns(self, layer):
        return self.weights(layer, with_alpha=True), None

    def fold(self, norm):
        return tuple(self.real(norm.params["gamma"]) for _ in range(2))

    def threshold(self, layer, norm, relu):
        self.bits += layer.params["w"].shape[3]
        self.floats += layer.params["w"].shape[3]


def file_bytes(network: PackedNetwork | layers.Sequential) -> int:
    """Bytes of all numbers in the file of a packed network: 1 bit a binary weight and flip, 4 bytes for all else.

    Of a network of `models.build`, also one with ``init=False``, the bytes that it will have when it is packed.
    """
    if isinstance(network, layers.Sequential):
        counted = _Counted()
        _steps(network.layers, counted)
        return 4 * counted.floats + -(-counted.bits // 8)
    blobs = _collect(network.steps, _Blobs())
    return 4 * sum(a.size for a in blobs.floats) + -(-sum(a.size for a in blobs.bits) // 8)


def save(packed: PackedNetwork, path: files.PathLike) -> None:
    """Write a packed network to ``path`` (.npz): one blob of bits, one of floats, one header in JSON."""
    blobs = _collect(packed.steps, _Blobs())
    floats = np.concatenate([np.zeros(0, np.float32), *(array.astype(np.float32) for array in blobs.floats)])
    packed_bits = np.packbits(np.concatenate([*blobs.bits, np.zeros(0, bool)]))
    header = files.plain({
        "format": FORMAT, "spec": packed.spec, "classes": packed.classes, "preprocessing": packed.preprocessing,
        "shapes": blobs.shapes, "checksum": None,
        **({} if packed.none_of_these is None else {"none_of_these": packed.none_of_these}),
    })  # fmt: skip
    header["checksum"] = _checksum(header, floats, packed_bits)
    files.write_arrays(path, header, {"floats": floats, "bits": packed_bits})


def load(path: files.PathLike) -> PackedNetwork:
    """Read what `save` wrote.

    Raises
    ------
    files.FileError
        Missing, damaged, of a newer format, or not a packed network.
    """
    header, arrays = files.read_arrays(path, FORMAT)
    try:
        floats, packed_bits = arrays["floats"], arrays["bits"]
        if floats.dtype != np.float32 or packed_bits.dtype != np.uint8 or floats.ndim != 1 or packed_bits.ndim != 1:
            raise ValueError("its blobs are not float32 and bytes")
        if header["checksum"] != _checksum(header, floats, packed_bits):
            raise ValueError("its checksum does not fit")
        if not np.isfinite(floats).all():
            raise ValueError("it holds NaN or infinity")
        classes, preprocessing = header["classes"], header["preprocessing"]
        if not isinstance(preprocessing, dict) or not isinstance(classes, list):
            raise ValueError("its classes or its preprocessing are not what save writes")
        if len(classes) not in (0, header["spec"]["num_classes"]) or not all(isinstance(c, str) for c in classes):
            raise ValueError("its classes are not as many names as the network has")
        none_of_these = header.get("none_of_these")  # files of earlier versions have none
        if none_of_these is not None and not (isinstance(none_of_these, float) and np.isfinite(none_of_these)):
            raise ValueError("its none_of_these is no number")
        source = _FromFile(floats, packed_bits, header["shapes"])
        model = models.from_spec(header["spec"], init=False)
        steps = _steps(model.layers, source)
        if source.shapes or source.used["floats"] != len(floats) or -(-source.used["bits"] // 8) != len(packed_bits):
            raise ValueError("its arrays are not those of its network")
        return PackedNetwork(header["spec"], classes, preprocessing, steps, none_of_these)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, MemoryError, RecursionError) as error:
        raise files.FileError(f"{path}: damaged, or not a packed network ({error})") from None
