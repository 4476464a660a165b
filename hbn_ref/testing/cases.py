"""A case is one call of a kernel: arrays, options, what is expected. Its repr is the code that makes it again."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from .. import reference
from . import truth
from .values import SIGNS, laid_out, values

PLAIN = "contiguous"


def _range(value, *limits):
    """Return in words which of some ranges a number lies in."""
    lowest = 1
    for limit in limits:
        if value <= limit:
            return str(limit) if lowest == limit else f"{lowest:,} to {limit:,}"
        lowest = limit + 1
    return f"{lowest:,} and more"


@lru_cache(maxsize=1)
def _kept(case):
    """The arrays of a case, made once for its call and for what is expected of it; nobody else may hold them."""
    return case._arrays()


class Case:
    """What all cases have in common."""

    names: ClassVar[str]  # what the arrays are called
    signs: str
    dtype: str
    layout: str

    def __repr__(self) -> str:
        """Return the code that makes the case, without defaults."""
        given = [(f.name, getattr(self, f.name)) for f in fields(self) if getattr(self, f.name) != f.default]  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in given)})"

    def arrays(self) -> tuple[np.ndarray, ...]:
        """The arrays of the call."""
        return tuple(laid_out(array.copy(), self.layout) for array in _kept(self))

    def _arrays(self) -> tuple[np.ndarray, ...]:
        raise NotImplementedError

    def arguments(self) -> tuple[Any, ...]:
        """What follows the arrays in the call."""
        return ()

    def options(self) -> dict[str, Any]:
        """The keywords of the call."""
        return {}

    def call(self, fn: Callable[..., Any]) -> Any:
        """Call fn with this case's arrays and options."""
        return fn(*self.arrays(), *self.arguments(), **self.options())

    def size(self) -> int:
        """A rough count of the work, which decides which cases are small."""
        raise NotImplementedError

    def attributes(self) -> dict[str, str]:
        """What kind of case this is, in words by which a report groups."""
        return {"signs": self.signs, "arrays": self.layout, "type": self.dtype}

    def oddness(self) -> int:
        """How far this is from the plainest case of its size."""
        return (self.signs != "random") + (self.layout != PLAIN) + (self.dtype != "float32")

    def order(self) -> tuple[int, int, int]:
        """A key to sort by: small ones first, and among those of about one size the plainest."""
        return max(0, math.ceil(math.log(max(self.size(), 1) / 20_000, 4))), self.oddness(), self.size()

    def again(self, how: str = "") -> str:
        """Return code that makes the call again; `how` is what `expected` gets."""
        after = "".join(f", {name}" for name in ("*case.arguments()", "**case.options()") if self._has(name))
        return (
            f"case = testing.{self!r}; {self.names} = case.arrays(); got = fn({self.names.strip('(),')}{after}); "
            f"expected = case.expected({how})"
        )

    def _has(self, what):
        return bool(self.arguments() if "arguments" in what else self.options())

    def _end(self):
        """What a title says of arrays that are not contiguous."""
        return "" if self.layout == PLAIN else f", arrays {self.layout}"


@dataclass(frozen=True, repr=False)
class PackCase(Case):
    """x (..., C), one array of one kind of values."""

    shape: tuple[int, ...]
    signs: str
    dtype: str = "float32"
    layout: str = PLAIN
    names = "(x,)"

    def __str__(self):
        return f"x of shape {self.shape} {self.dtype}, signs {self.signs}{self._end()}"

    def _x(self):
        rng = np.random.default_rng(self.shape)
        return values(SIGNS[self.signs][0], self.shape, rng, self.dtype)

    def _arrays(self):
        return (self._x(),)

    def expected(self) -> np.ndarray:
        """The words."""
        return truth.pack(_kept(self)[0])

    def size(self) -> int:
        """Values."""
        return math.prod(self.shape)

    def attributes(self) -> dict[str, str]:
        """See `Case`."""
        channels = self.shape[-1]
        return {
            "C % 64": "0" if channels % 64 == 0 else "1 to 63",
            "C": _range(channels, 1, 8, 63, 64, 128, 256, 1024, 65_536),
            "axes": str(len(self.shape)),
            "rows": _range(math.prod(self.shape[:-1]), 1, 8, 64, 256, 65_536),
        } | super().attributes()

    def oddness(self) -> int:
        """See `Case`."""
        return super().oddness() + (len(self.shape) > 2)


@dataclass(frozen=True, repr=False)
class UnpackCase(PackCase):
    """The words of a PackCase."""

    names = "(words,)"

    def __str__(self):
        return f"words of signs of shape {self.shape}, channels={self.shape[-1]}, signs {self.signs}{self._end()}"

    def _arrays(self):
        return (truth.pack(self._x()),)

    def arguments(self) -> tuple[Any, ...]:
        """The number of channels."""
        return (self.shape[-1],)

    def expected(self) -> np.ndarray:
        """The signs, int32."""
        return truth.signs(self._x())


@dataclass(frozen=True, repr=False)
class MatmulCase(Case):
    """Words of two tables with n signs per row."""

    rows: int
    filters: int
    n: int
    signs: str
    seed: int
    layout: str = PLAIN
    names = "a, b"
    dtype = "uint64"

    def __str__(self):
        words = -(-self.n // 64)
        shapes = f"a ({self.rows}, {words}), b ({self.filters}, {words})"
        return f"{shapes}, n={self.n}, signs {self.signs}{self._end()}"

    def _arrays(self):
        rng, kinds = np.random.default_rng(self.seed), SIGNS[self.signs]
        shapes = (self.rows, self.n), (self.filters, self.n)
        return tuple(truth.pack(values(kind, shape, rng)) for kind, shape in zip(kinds, shapes, strict=True))

    def arguments(self) -> tuple[Any, ...]:
        """The number of signs."""
        return (self.n,)

    def expected(self) -> np.ndarray:
        """The counts, int32 (rows, filters)."""
        a, b = _kept(self)
        return truth.xnor_matmul(a, b, self.n)

    def size(self) -> int:
        """Products."""
        return self.rows * self.filters * self.n

    def attributes(self) -> dict[str, str]:
        """See `Case`."""
        return {
            "n % 64": "0" if self.n % 64 == 0 else "1 to 63",
            "n": _range(self.n, 1, 8, 63, 64, 127, 255, 2047, 32_767, 65_535),
            "rows": _range(self.rows, 1, 8, 16, 64, 256),
            "columns": _range(self.filters, 1, 8, 16, 64, 256),
        } | super().attributes()

    def oddness(self) -> int:
        """See `Case`."""
        return super().oddness() - 1 + (self.rows > 1) + (self.filters > 1)


@dataclass(frozen=True, repr=False)
class ConvCase(Case):
    """x (N, H, W, C_in) and w (kh, kw, C_in, C_out) of one convolution of signs."""

    x_shape: tuple[int, ...]
    w_shape: tuple[int, ...]
    stride: reference.IntOrPair
    padding: reference.IntOrPair
    pad_value: int
    signs: str
    seed: int
    dtype: str = "float32"
    layout: str = PLAIN
    names = "x, w"

    def __str__(self):
        return (
            f"x {self.x_shape}, w {self.w_shape} {self.dtype}, stride={self.stride}, padding={self.padding}, "
            f"pad_value={self.pad_value}, signs {self.signs}{self._end()}"
        )

    def options(self, *names: str) -> dict[str, Any]:
        """The named ones of stride, padding and pad_value, as keywords."""
        return {name: getattr(self, name) for name in names or ("stride", "padding", "pad_value")}

    def out_shape(self) -> tuple[int, ...]:
        """(N, OH, OW, C_out)."""
        axes = zip(self.x_shape[1:3], self.w_shape, reference.pair(self.stride), reference.pair(self.padding))
        return (self.x_shape[0], *(reference.output_size(*axis) for axis in axes), self.w_shape[3])

    def products(self) -> int:
        """The number of products that one count adds up."""
        return math.prod(self.w_shape[:3])

    def macs(self) -> int:
        """Multiply-accumulates."""
        return math.prod(self.out_shape()) * self.products()

    def size(self) -> int:
        """Multiply-accumulates, or numbers if these are more."""
        return max(self.macs(), math.prod(self.x_shape) + math.prod(self.w_shape))

    def as_kind(self, kind: "type[ConvCase]") -> "ConvCase":
        """The same shapes and values for another check."""
        return kind(**{field.name: getattr(self, field.name) for field in fields(self)})

    def _arrays(self):
        rng, kinds = np.random.default_rng(self.seed), SIGNS[self.signs]
        shapes = self.x_shape, self.w_shape
        return tuple(values(kind, shape, rng, self.dtype) for kind, shape in zip(kinds, shapes, strict=True))

    def expected(self, scale: bool = False) -> np.ndarray:
        """The counts, int32 (N, OH, OW, C_out); with scale times the mean |w|, float64."""
        x, w = _kept(self)[-2:]
        counts = truth.conv(truth.signs(x), truth.signs(w), self.out_shape()[1:3], **self.options_of_truth())
        return counts * truth.alpha(w) if scale else counts

    def options_of_truth(self) -> dict[str, Any]:
        """stride, padding, pad_value."""
        return {"stride": self.stride, "padding": self.padding, "pad_value": self.pad_value}

    def expected_at(self, index: tuple[int, ...]) -> float:
        """One count, by the loops of hbn_ref.reference."""
        (n, i, j, o), (sh, sw) = index, reference.pair(self.stride)
        x, w = _kept(self)[-2:]
        padded = reference.pad_border(reference.sign(x[n : n + 1]), self.padding, self.pad_value)
        patch = padded[:, i * sh : i * sh + w.shape[0], j * sw : j * sw + w.shape[1]]
        return float(reference.conv2d_forward(patch, reference.sign(w[..., o : o + 1])).item())

    def attributes(self) -> dict[str, str]:
        """See `Case`."""
        (batch, height, width, channels), (kh, kw, _, filters) = self.x_shape, self.w_shape
        _, oh, ow, _ = self.out_shape()
        return {
            "C_in % 64": "0" if channels % 64 == 0 else "1 to 63",
            "C_in": _range(channels, 1, 8, 63, 64, 128, 256, 512, 700, 1024),
            "C_out": _range(filters, 1, 8, 16, 64, 130, 256, 512),
            "batch": _range(batch, 1, 8, 64),
            "height": _range(height, 8, 16, 32, 64, 256),
            "width": _range(width, 8, 16, 32, 64, 256),
            "output width": _range(ow, 8, 16, 32, 64),
            "output pixels": _range(batch * oh * ow, 1, 8, 64, 256, 4096, 65_535),
            "kernel": f"{kh} x {kw}",
            "stride": str(self.stride),
            "padding": str(self.padding),
            "pad value": f"{self.pad_value:+d}" if np.any(self.padding) else "no padding",
            "products": _range(self.products(), 127, 255, 2047, 32_767, 65_535),
        } | super().attributes()

    def oddness(self) -> int:
        """See `Case`."""
        (sh, sw), (ph, pw), (kh, kw) = reference.pair(self.stride), reference.pair(self.padding), self.w_shape[:2]
        strange = (sh != sw) + (ph != pw) + (kh != kw) + (self.x_shape[1] != self.x_shape[2])
        return super().oddness() + strange + (max(sh, sw) > 1) + 2 * (max(ph, pw) > 0) + (self.x_shape[0] > 1)


@dataclass(frozen=True, repr=False)
class BinaryWeightCase(ConvCase):
    """The same for a convolution of real x with alpha sign(w), whose border is 0."""

    def options(self, *names: str) -> dict[str, Any]:
        """stride and padding."""
        return super().options(*(names or ("stride", "padding")))

    def expected(self, scale: bool = True) -> np.ndarray:
        """The sums, float64 (N, OH, OW, C_out)."""
        x, w = (array.astype(np.float64) for array in _kept(self))
        return truth.conv(x, truth.alpha(w) * truth.signs(w), self.out_shape()[1:3], self.stride, self.padding, 0)


@dataclass(frozen=True, repr=False)
class BackwardCase(ConvCase):
    """A ConvCase with a gradient dout of the output as its first array."""

    names = "dout, x, w"

    def _arrays(self):
        dout = values("random", self.out_shape(), np.random.default_rng([self.seed, 1]), self.dtype)
        return dout, *super()._arrays()

    def expected(self, scale: bool = True, estimator: str = "ste") -> tuple[np.ndarray, np.ndarray]:  # type: ignore[override]
        """(dx, dw), float64; dw with respect to alpha sign(w), or to sign(w) without scale."""
        dout, x, w = (array.astype(np.float64) for array in _kept(self))
        binary = truth.alpha(w) * truth.signs(w) if scale else truth.signs(w).astype(np.float64)
        signs = truth.signs(x).astype(np.float64)
        dsign, dw = truth.conv_backward(dout, signs, binary, **self.options_of_truth())
        return dsign * truth.slope(x, estimator), dw


@dataclass(frozen=True, repr=False)
class ThresholdCase(Case):
    """alpha, scale, shift of some channels. They are short binary fractions, so that float32 never rounds."""

    n: int
    relu: bool
    seed: int
    channels: int = 200
    layout: str = PLAIN
    names = "alpha, scale, shift"
    signs = "random"
    dtype = "float32"

    def __str__(self):
        return f"n={self.n}, relu={self.relu}, {self.channels} channels{self._end()}"

    def _arrays(self):
        rng = np.random.default_rng([self.n, self.relu, self.seed])
        alpha, scale = rng.integers(0, 9, self.channels) / 8, rng.integers(-8, 9, self.channels) / 4
        turn = rng.integers(-2 * self.n, 2 * self.n + 1, self.channels)  # where the bit would change
        shift = -alpha * scale * turn + rng.integers(-1, 2, self.channels) / 32
        return tuple(array.astype(np.float32) for array in (alpha, scale, shift))

    def arguments(self) -> tuple[Any, ...]:
        """n and relu."""
        return self.n, self.relu

    def expected(self) -> np.ndarray:
        """The bits of all counts from -n to n, booleans (2 n + 1, channels)."""
        alpha, scale, shift = _kept(self)
        counts = np.arange(-self.n, self.n + 1)[:, None]
        sums = np.maximum(alpha * counts, 0) if self.relu else alpha * counts
        return sums * scale + shift >= 0

    def size(self) -> int:
        """Bits."""
        return (2 * self.n + 1) * self.channels

    def attributes(self) -> dict[str, str]:
        """See `Case`."""
        n = _range(self.n, 127, 255, 2047, 32_767, 65_535)
        return {"n": n, "relu": str(self.relu), "channels": _range(self.channels, 8)} | super().attributes()
