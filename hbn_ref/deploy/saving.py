"""The file of a packed network: one bit per binary weight, 32 per real weight, scale, shift and threshold."""

import hashlib
import json

import numpy as np

from .. import bits, conv, files, layers, models
from .compiling import steps_of
from .network import PackedNetwork
from .steps import BinaryWeightConvolve, Concat, Convolve, Count, Residual, Scale, Signs, Threshold, threshold_step

FORMAT = "hbn_ref packed 1"


class _Blobs:
    """All numbers of a network in the order of its steps: bits, and floats; thresholds are floats, exact in float32."""

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
    """Where `load` takes its numbers from: the two blobs, in the order in which `_collect` wrote them."""

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
        signs = self.take("bits", shape).astype(np.float32)  # the one large array, so change it in place
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
        return threshold_step(t.astype(np.int64), self.take("bits", shape).astype(bool))


def _checksum(header, floats, packed_bits):
    text = json.dumps({**header, "checksum": None}, sort_keys=True).encode()
    return hashlib.sha256(text + floats.tobytes() + packed_bits.tobytes()).hexdigest()


class _Counted:
    """A source that only counts: it looks at shapes alone, so the network need not have weights."""

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
    """Return the bytes of all numbers in a packed network's file: 1 bit per binary weight and flip, 4 bytes per other.

    For a network of `models.build`, also with ``init=False``, these are the bytes that it will have when it is packed.
    """
    if isinstance(network, layers.Sequential):
        counted = _Counted()
        steps_of(network.layers, counted)
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
        steps = steps_of(model.layers, source)
        if source.shapes or source.used["floats"] != len(floats) or -(-source.used["bits"] // 8) != len(packed_bits):
            raise ValueError("its arrays are not those of its network")
        return PackedNetwork(header["spec"], classes, preprocessing, steps, none_of_these)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, MemoryError, RecursionError) as error:
        raise files.FileError(f"{path}: damaged, or not a packed network ({error})") from None
