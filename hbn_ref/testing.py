"""A kit for testing somebody else's kernels: in C++, CUDA, Verilog, anything that a Python function can call.

========================  ====================================================  ==============================
check                     the function it is given                              in this package
========================  ====================================================  ==============================
check_pack                fn(x) -> words                                        bits.pack
check_unpack              fn(words, channels) -> +1 and -1                      bits.unpack
check_xnor_matmul         fn(a, b, n) -> counts                                 bits.xnor_matmul
check_xnor_conv           fn(x, w, stride=, padding=, pad_value=) -> counts     conv.xnor_conv2d_forward
check_xnor_conv_backward  fn(dout, x, w, stride=, padding=, pad_value=)         conv.xnor_conv2d_backward
                          -> dx, dw
check_binary_weight_conv  fn(x, w, stride=, padding=) -> out                    conv.binary_weight_conv2d_forward
check_threshold           fn(alpha, scale, shift, n, relu) -> t, flip           deploy.threshold
check_vjp                 any forward pass and its backward pass, in float64
========================  ====================================================  ==============================

Each is silent when all is well and raises AssertionError at the first case that fails. Cases run smallest first, so
that this is also the easiest one to look into, and are the same on every machine. The truth is hbn_ref.reference.

    >>> import numpy as np
    >>> from hbn_ref import testing
    >>> def mine(a, b, n):  # forgets that the last word is not full
    ...     return 64 * a.shape[1] - 2 * np.bitwise_count(a[:, None] ^ b).sum(axis=2, dtype=int)
    >>> testing.check_xnor_matmul(mine)
    Traceback (most recent call last):
        ...
    AssertionError: a (1, 1), b (1, 1), n=1, signs random: index (0, 0): expected 1, got 64 (1 of 1 values differ)
    again: a, b = testing.MatmulCase(rows=1, filters=1, n=1, signs='random', seed=0).arrays()
    >>> def mended(a, b, n):
    ...     return n - 2 * np.bitwise_count(a[:, None] ^ b).sum(axis=2, dtype=int)
    >>> testing.check_xnor_matmul(mended)

Results may be of any integer or float type (words: uint64), read-only, in any memory order. Inputs are a kernel's to
read, not to write; a result is the caller's, and no later call may change it. Who runs packed files with other code
compares each layer's bits with those of ``hbn_ref.deploy.load(path).trace(x)``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike

from hbn_ref import reference

__all__ = [
    "BackwardCase",
    "ConvCase",
    "MatmulCase",
    "PackCase",
    "ThresholdCase",
    "UnpackCase",
    "check_binary_weight_conv",
    "check_pack",
    "check_threshold",
    "check_unpack",
    "check_vjp",
    "check_xnor_conv",
    "check_xnor_conv_backward",
    "check_xnor_matmul",
    "conv_cases",
    "matmul_cases",
    "pack_cases",
]

# ------------------------------------------------------------------------------------------ values and cases

HARD_VALUES = (0.0, -0.0, np.inf, -np.inf, 1e-45, -1e-45, 1e-38, -1e-38, 3e38, -3e38)  # 1e-45 is denormal
SIGNS = {  # what a case is made of: its first array, its second
    "random": ("random", "random"),
    "edges": ("edges", "edges"),
    "mostly equal": ("mostly +1", "all +1"),
    "all equal": ("all +1", "all +1"),
    "all different": ("all +1", "all -1"),
    "hard": ("hard", "random"),
}
FINITE = tuple(SIGNS)[:-1]


def _values(kind, shape, rng):
    """Standard normal values, made what `kind` says."""
    x = rng.standard_normal(shape)
    some = rng.random(shape)
    if kind == "edges":  # sign(0) = sign(-0.0) = +1; a straight-through estimator ends before 1
        return np.where(some < 0.4, rng.choice([0.0, -0.0, 1.0, -1.0], shape), x)
    if kind == "hard":
        return np.where(some < 0.7, rng.choice(HARD_VALUES, shape), x)
    if kind == "mostly +1":
        return np.where(some < 0.95, np.abs(x), x)
    return {"random": x, "all +1": np.abs(x), "all -1": -np.abs(x)}[kind]


def _typed(dtype, *arrays):
    with np.errstate(over="ignore"):  # 3e38 becomes an infinity in float16, which is as hard
        return tuple(array.astype(dtype) for array in arrays)


class _Case:
    """What is needed to make the arrays of one call again: its repr is that code."""

    names: ClassVar[str]  # what the arrays are called

    def fail(self, message):
        raise AssertionError(f"{self}: {message}\nagain: {self.names} = testing.{self!r}.arrays()")


@dataclass(frozen=True)
class PackCase(_Case):
    """x (..., C), one array of one kind of values."""

    shape: tuple[int, ...]
    kind: str
    dtype: str = "float32"
    names = "(x,)"

    def __str__(self):
        return f"x of shape {self.shape} {self.dtype} ({self.kind})"

    def arrays(self) -> tuple[np.ndarray, ...]:
        return _typed(self.dtype, _values(self.kind, self.shape, np.random.default_rng(self.shape)))


@dataclass(frozen=True)
class UnpackCase(PackCase):
    """The words of a PackCase."""

    names = "(words,)"

    def __str__(self):
        return f"words of signs of shape {self.shape}, channels={self.shape[-1]} ({self.kind})"

    def arrays(self) -> tuple[np.ndarray, ...]:
        return (reference.pack(super().arrays()[0]),)


@dataclass(frozen=True)
class MatmulCase(_Case):
    """Words of two tables of n signs a row."""

    rows: int
    filters: int
    n: int
    signs: str
    seed: int
    names = "a, b"

    def __str__(self):
        words = -(-self.n // 64)
        return f"a ({self.rows}, {words}), b ({self.filters}, {words}), n={self.n}, signs {self.signs}"

    def arrays(self) -> tuple[np.ndarray, ...]:
        rng, kinds = np.random.default_rng(self.seed), SIGNS[self.signs]
        shapes = (self.rows, self.n), (self.filters, self.n)
        return tuple(reference.pack(_values(kind, shape, rng)) for kind, shape in zip(kinds, shapes, strict=True))


@dataclass(frozen=True)
class ConvCase(_Case):
    """x (N, H, W, C_in) and w (kh, kw, C_in, C_out) of one convolution."""

    x_shape: tuple[int, ...]
    w_shape: tuple[int, ...]
    stride: reference.IntOrPair
    padding: reference.IntOrPair
    pad_value: int
    signs: str
    seed: int
    dtype: str = "float32"
    names = "x, w"

    def __str__(self):
        return (
            f"x {self.x_shape}, w {self.w_shape} {self.dtype}, stride={self.stride}, padding={self.padding}, "
            f"pad_value={self.pad_value}, signs {self.signs}"
        )

    def options(self, *names: str) -> dict[str, Any]:
        """The named ones of stride, padding and pad_value, as keywords."""
        return {name: getattr(self, name) for name in names or ("stride", "padding", "pad_value")}

    def out_shape(self) -> tuple[int, ...]:
        axes = zip(self.x_shape[1:3], self.w_shape, reference.pair(self.stride), reference.pair(self.padding))
        return (self.x_shape[0], *(reference.output_size(*axis) for axis in axes), self.w_shape[3])

    def macs(self) -> int:
        """Multiply-accumulates: the size of the case."""
        return int(np.prod(self.out_shape()[:3]) * np.prod(self.w_shape))

    def arrays(self) -> tuple[np.ndarray, ...]:
        rng, kinds = np.random.default_rng(self.seed), SIGNS[self.signs]
        x, w = (_values(kind, shape, rng) for kind, shape in zip(kinds, (self.x_shape, self.w_shape), strict=True))
        return _typed(self.dtype, x, w)


@dataclass(frozen=True)
class BackwardCase(ConvCase):
    """The same with a gradient dout of the output in front."""

    names = "dout, x, w"

    def arrays(self) -> tuple[np.ndarray, ...]:
        dout = np.random.default_rng([self.seed, 1]).standard_normal(self.out_shape())
        return *_typed(self.dtype, dout), *super().arrays()


@dataclass(frozen=True)
class ThresholdCase(_Case):
    """alpha, scale, shift of some channels; short binary fractions, so that float32 rounds nowhere."""

    n: int
    relu: bool
    seed: int
    channels: int = 200
    names = "alpha, scale, shift"

    def __str__(self):
        return f"n={self.n}, relu={self.relu}, {self.channels} channels"

    def arrays(self) -> tuple[np.ndarray, ...]:
        rng = np.random.default_rng([self.n, self.relu, self.seed])
        alpha, scale = rng.integers(0, 9, self.channels) / 8, rng.integers(-8, 9, self.channels) / 4
        turn = rng.integers(-2 * self.n, 2 * self.n + 1, self.channels)  # where the bit would change
        return _typed("float32", alpha, scale, -alpha * scale * turn + rng.integers(-1, 2, self.channels) / 32)


# --------------------------------------------------------------------------------------------- the tables

CHANNELS = (1, 2, 3, 7, 8, 9, 16, 31, 32, 33, 48, 63, 64, 65, 95, 96, 97, 127, 128, 129, 191, 192, 193, 200)
LEADING = ((), (1,), (5,), (2, 3), (2, 3, 2))
MATMUL_SIZES = ((1, 1), (1, 7), (5, 1), (4, 4), (9, 17), (10, 70))
CONV_CHANNELS = (2, 3, 31, 63, 64, 65, 96, 128, 200)
CONV_KERNELS = (1, 2, 3, 4, 5, 6, 7, (1, 3), (3, 2))
CONV_STRIDES = (1, 2, 3, (1, 2), (2, 1))
CONV_PADDINGS = (0, 1, 2, 3, (1, 0), (0, 2))


def pack_cases(dtype: DTypeLike = np.float32, kind: type[PackCase] = PackCase) -> list[PackCase]:
    """Channel counts around the word limits, with zero to three axes before them."""
    kinds, dtype = ("all +1", "all -1", "random", "hard"), np.dtype(dtype).name
    shapes = sorted(((*leading, c) for c in CHANNELS for leading in LEADING), key=np.prod)
    return [kind(shape, values, dtype) for shape in shapes for values in kinds]


def matmul_cases() -> list[MatmulCase]:
    """The same counts, with few and many rows, each twice; at last counts that do not fit into 16 bits."""
    sizes = [(*size, n) for size in MATMUL_SIZES for n in CHANNELS]
    cases = [MatmulCase(*size, "random", seed) for size in sizes for seed in range(2)]
    cases += [MatmulCase(1, 2, 40_000, signs, 0) for signs in ("all equal", "all different")]
    return sorted(cases, key=lambda case: case.rows * case.filters * case.n)


def conv_cases(
    pad_values: Sequence[int] = (0, 1, -1), signs: Sequence[str] = tuple(SIGNS), dtype: DTypeLike = np.float32,
    kind: type[ConvCase] = ConvCase,
) -> list[ConvCase]:  # fmt: skip
    """All channel counts with all kernels and pad values, the rest drawn by seed; at last large ones.

    Each comes twice, with the same shapes and other values: what a kernel keeps from the last call is noticed.
    """
    cases: list[ConvCase] = []
    for channels in CONV_CHANNELS:
        for kernel in CONV_KERNELS:
            for pad_value in pad_values:
                rng = np.random.default_rng([2018, len(cases)])
                kh, kw = reference.pair(kernel)
                stride, padding = (table[rng.integers(len(table))] for table in (CONV_STRIDES, CONV_PADDINGS))
                (ph, pw), (more_h, more_w) = reference.pair(padding), rng.integers(0, 6, 2)
                height, width = max(1, kh - 2 * ph) + int(more_h), max(1, kw - 2 * pw) + int(more_w)
                batch, c_out = int(rng.integers(1, 6)), int(rng.choice([1, 2, 3, 5, 8, 17]))
                shapes = (batch, height, width, channels), (kh, kw, channels, c_out)
                drawn = signs[int(rng.integers(len(signs)))]
                cases += [kind(*shapes, stride, padding, pad_value, drawn, len(cases) + k) for k in range(2)]
    for pad_value in pad_values:
        wide = (1, 4, 5, 65), (3, 3, 65, 130)  # more filters than one tile of a vector kernel
        large = (1, 7, 7, 700), (7, 7, 700, 2)  # counts of +-34,300 do not fit into 16 bits
        cases.append(kind(*wide, 1, 1, pad_value, "random", len(cases)))
        cases += [kind(*large, 1, 0, pad_value, extreme, len(cases)) for extreme in ("all equal", "all different")]
    return sorted((replace(case, dtype=np.dtype(dtype).name) for case in cases), key=ConvCase.macs)


# ----------------------------------------------------------------------------------------------- the checks


def check_pack(fn: Callable[[np.ndarray], np.ndarray], *, dtype: DTypeLike = np.float32) -> None:
    """Checks fn(x) against the word convention of hbn_ref.bits.pack.

    x (..., C) -> uint64 (..., ceil(C / 64)); channel c is bit c % 64 of word c // 64, 1 means x >= 0 (so 0
    and -0.0 give 1), unused bits are 0. `dtype` is the type of the x that fn is given.
    """
    call = _Caller(fn)
    for case in pack_cases(dtype):
        (x,) = case.arrays()
        expected, (got,) = reference.pack(x), call(case, x)
        if got.dtype != np.uint64:
            case.fail(f"expected dtype uint64, got {got.dtype}")
        _check_shape(case, expected, got)
        if np.array_equal(expected, got):
            continue
        index = _first(expected != got)
        want, came = int(expected[index]), int(got[index])
        bit = ((want ^ came) & -(want ^ came)).bit_length() - 1  # the lowest bit that differs
        channel = 64 * index[-1] + bit
        used = channel < x.shape[-1]
        where = f"channel {channel}, x = {x[(*index[:-1], channel)]!r}" if used else "an unused bit"
        case.fail(f"word {index}: expected 0x{want:016x}, got 0x{came:016x}; first wrong bit {bit} ({where})")


def check_unpack(fn: Callable[[np.ndarray, int], np.ndarray]) -> None:
    """Checks fn(words, channels) -> +1 where the bit is 1, -1 where it is 0, (..., channels); see check_pack."""
    call = _Caller(fn)
    for case in pack_cases(kind=UnpackCase):
        (words,), channels = case.arrays(), case.shape[-1]
        (got,) = call(case, words, channels)
        _compare(case, reference.unpack(words, channels), got)


def check_xnor_matmul(fn: Callable[[np.ndarray, np.ndarray, int], np.ndarray]) -> None:
    """Checks fn(a, b, n): out[i, j] = the sum over n signs of a[i] * b[j], (M, N), from words a (M, W) and b (N, W)."""
    call = _Caller(fn)
    for case in matmul_cases():
        a, b = case.arrays()
        (got,) = call(case, a, b, case.n)
        _compare(case, reference.xnor_matmul(a, b, case.n), got)


def check_xnor_conv(
    fn: Callable[..., np.ndarray], *, pad_values: Sequence[int] = (0, 1, -1), scale: bool = False,
    dtype: DTypeLike = np.float32, rtol: float | None = None, max_cases: int | None = None,
) -> None:  # fmt: skip
    """Checks fn(x, w, stride=, padding=, pad_value=) against the convolution of the signs, exactly.

    x (N, H, W, C_in), w (kh, kw, C_in, C_out), both of `dtype`; fn returns the counts, (N, OH, OW, C_out).
    stride and padding are integers, or (height, width) pairs where the two differ. pad_value 0: a padded tap adds
    nothing; +1 or -1: it is an ordinary sign. scale=True expects the counts times alpha, the mean |w| of each
    filter, to `rtol` of the largest value. A kernel that knows one border only is checked with pad_values=(1,); a
    very slow one with max_cases=N, the N smallest cases.
    """
    call, rtol = _Caller(fn), _rtol(rtol, dtype) if scale else 0
    for case in conv_cases(pad_values, dtype=dtype)[:max_cases]:
        x, w = case.arrays()
        (got,) = call(case, x, w, **case.options())
        _compare(case, reference.xnor_conv2d_forward(x, w, scale=scale, **case.options()), got, rtol)


def check_xnor_conv_backward(
    fn: Callable[..., tuple[np.ndarray, np.ndarray]], *, pad_values: Sequence[int] = (0, 1, -1), scale: bool = True,
    estimator: str = "ste", dtype: DTypeLike = np.float32, rtol: float | None = None, max_cases: int | None = None,
) -> None:  # fmt: skip
    """Checks fn(dout, x, w, stride=, padding=, pad_value=) -> (dx, dw), the gradients of the scaled XNOR convolution.

    dx: with respect to x, through the estimator of the derivative of sign. dw: with respect to W~ = alpha sign(w)
    (scale=False: sign(w)), before `binarize.weight_gradient`. To `rtol` of the largest value.
    """
    call, rtol = _Caller(fn, results=2), _rtol(rtol, dtype)
    for case in conv_cases(pad_values, dtype=dtype, kind=BackwardCase)[:max_cases]:
        dout, x, w = case.arrays()
        got = call(case, dout, x, w, **case.options())
        options = case.options() | {"scale": scale, "estimator": estimator}
        expected = reference.xnor_conv2d_backward(dout, x, w, **options)
        for name, want, came in zip(("dx", "dw"), expected, got, strict=True):
            _compare(case, want, came, rtol, name)


def check_binary_weight_conv(
    fn: Callable[..., np.ndarray], *, dtype: DTypeLike = np.float32, rtol: float | None = None,
    max_cases: int | None = None,
) -> None:  # fmt: skip
    """Checks fn(x, w, stride=, padding=) against the convolution of x with alpha sign(w), to `rtol` of the largest.

    alpha is the mean |w| of each filter (the last axis of w); the border is 0. See check_xnor_conv.
    """
    call, rtol = _Caller(fn), _rtol(rtol, dtype)
    for case in conv_cases((0,), FINITE, dtype)[:max_cases]:
        x, w = case.arrays()
        options = case.options("stride", "padding")
        (got,) = call(case, x, w, **options)
        _compare(case, reference.binary_weight_conv2d_forward(x, w, **options), got, rtol)


def check_threshold(fn: Callable[..., tuple[np.ndarray, np.ndarray]]) -> None:
    """Checks fn(alpha, scale, shift, n, relu) -> (t, flip), which fold alpha, ReLU, BatchNorm and sign.

    For every channel and every count i from -n to n, the bit (i >= t) XOR flip must be that of
    max(alpha i, 0) scale + shift >= 0, without the maximum if relu is False. See hbn_ref.deploy.
    """
    call = _Caller(fn, results=2)
    kinds = [(relu, seed) for relu in (False, True) for seed in range(2)]
    cases = [ThresholdCase(n, *kind) for n in (1, 2, 9, 63, 576, 4608) for kind in kinds]
    cases += [ThresholdCase(147_000, relu, 0, channels=8) for relu in (False, True)]  # 7 x 7 x 3,000 weights
    for case in cases:
        alpha, scale, shift = case.arrays()
        t, flip = call(case, alpha, scale, shift, case.n, case.relu)
        for array in (t, flip):
            _check_shape(case, alpha, array)
        counts = np.arange(-case.n, case.n + 1)[:, None]
        values = np.maximum(alpha * counts, 0) if case.relu else alpha * counts
        expected, got = values * scale + shift >= 0, (counts >= t) ^ (flip != 0)
        if np.array_equal(expected, got):
            continue
        i, c = _first(expected != got)
        channel = f"channel {c} (alpha={alpha[c]}, scale={scale[c]}, shift={shift[c]})"
        bits = f"expected bit {int(expected[i, c])}, got {int(got[i, c])}"
        case.fail(f"{channel}, count {counts[i, 0]}: {bits} (t={t[c]}, flip={flip[c]})")


# ---------------------------------------------------------------------------------------- backward passes


def check_vjp(
    forward: Callable[..., Any], backward: Callable[..., Any], args: Sequence[Any], *,
    wrt: Sequence[int] | None = None, eps: float = 1e-6, rtol: float = 1e-6, seed: int = 0, directions: int = 3,
    elementwise: bool = False,
) -> None:  # fmt: skip
    """Checks a backward pass (a vector-Jacobian product) against central differences in float64.

    forward(*args) -> out or (out, cache);  backward(dout, cache) -> the gradients of <out, dout>, in the order
    of args (a tuple as long as args, or one array for one argument; None where there is none). Without a
    cache, backward is called with None. Floating arguments are converted to float64, which forward must keep.

    For a random dout, each argument v with a gradient g, and several random directions d:

        (<forward(v + eps d), dout> - <forward(v - eps d), dout>) / (2 eps)  =  <g, d>

    to `rtol`, relative to the larger side or the length of g (and above the rounding of the differences
    themselves). With elementwise=True, d also runs through the unit vectors: for tiny shapes, as it calls
    forward twice per number. `wrt` names the positions of the arguments to check; by default all that have a
    gradient.
    The pass must be smooth at args: for a sign, put its surrogate into forward.
    """
    args = [_float64(value) for value in args]
    rng = np.random.default_rng(
        [seed, 393]
    )  # a stream of its own: x from default_rng(seed) must not come again as dout
    out, cache = _split(forward(*args))
    if out.dtype != np.float64:
        raise AssertionError(f"forward must keep float64 for this check, but returned {out.dtype}")
    dout = rng.standard_normal(out.shape)
    gradients = _gradients(backward(dout.copy(), cache), len(args))
    if wrt is None:
        wrt = [k for k, gradient in enumerate(gradients) if gradient is not None]
    if len(wrt) == 0:
        raise AssertionError("nothing to check: backward returned no gradient")
    noise = 16 * np.finfo(np.float64).eps * np.linalg.norm(out * dout) / eps
    for k in wrt:
        gradient, value = gradients[k], args[k]
        if gradient is None:
            raise AssertionError(f"argument {k}: expected a gradient of shape {np.shape(value)}, got None")
        case = f"argument {k} of shape {np.shape(value)}"
        if np.shape(gradient) != np.shape(value):
            raise AssertionError(f"{case}: expected shape {np.shape(value)}, got {np.shape(gradient)}")
        for name, direction in _directions(rng, value.shape, directions, elementwise):
            step = eps * direction
            ahead = _split(forward(*args[:k], value + step, *args[k + 1 :]))[0]
            behind = _split(forward(*args[:k], value - step, *args[k + 1 :]))[0]
            expected = float(np.sum((ahead - behind) * dout)) / (2 * eps)
            got = float(np.sum(gradient * direction))
            length = np.linalg.norm(gradient) / (np.sqrt(value.size) if "element" in name else 1)
            tolerance = rtol * max(abs(expected), abs(got), length) + noise
            if not (np.isfinite(got) and abs(expected - got) <= tolerance):
                raise AssertionError(
                    f"{case}, {name}: expected {expected:.12g} (central difference), got {got:.12g} (backward)"
                )


def _directions(rng, shape, count, elementwise):
    """Random directions of unit variance; then, if asked, the unit vector of every element."""
    for d in range(count):
        yield f"random direction {d}", rng.standard_normal(shape)
    for index in np.ndindex(*shape) if elementwise else ():
        unit = np.zeros(shape)
        unit[index] = 1.0
        yield f"element {index}", unit


def _float64(value):
    """Floating arguments as float64 copies; integers (labels) and anything else as they are."""
    return np.array(value, np.float64) if np.asarray(value).dtype.kind == "f" else value


def _split(result):
    """forward's result as (out, cache)."""
    out, cache = result if isinstance(result, tuple) else (result, None)
    return np.asarray(out), cache


def _gradients(result, count):
    """backward's result as a tuple of `count` gradients."""
    gradients = tuple(result) if isinstance(result, (tuple, list)) else (result,)
    if len(gradients) != count:
        raise AssertionError(f"backward must return a gradient (or None) per argument: {count}, got {len(gradients)}")
    return gradients


# ------------------------------------------------------------------------------------------------- helpers


class _Caller:
    """Calls fn; what it raises and what it writes where it should not become the failure of the case."""

    def __init__(self, fn, results=1):
        self.fn, self.results = fn, results
        self.last: list[tuple[np.ndarray, np.ndarray]] = []  # results of the call before, and copies of them

    def __call__(self, case, *args, **options):
        """fn's results, a tuple of arrays."""
        before = [np.copy(value) for value in args]
        try:
            got = self.fn(*args, **options)
            if self.results == 1:
                if isinstance(got, tuple):
                    raise TypeError("expected the result alone, got a tuple; wrap the function, return its first part")
                got = (got,)
            elif not isinstance(got, (tuple, list)) or len(got) != self.results:
                raise TypeError(f"expected a tuple of {self.results} arrays")
            got = tuple(np.asarray(array) for array in got)
        except Exception as error:
            case.fail(f"raised {type(error).__name__}: {error}")
        if not all(_same(*pair) for pair in zip(before, args, strict=True)):
            case.fail("the function changed its input")
        if not all(_same(*pair) for pair in self.last):
            case.fail("this call changed the result of the call before")
        self.last = [(array, array.copy()) for array in got]
        return got


def _same(a, b):
    """The same bits, NaN and the sign of zero included."""
    return np.asarray(a).tobytes() == np.asarray(b).tobytes()


def _rtol(rtol, dtype):
    """Sums of 10,000 terms, in any order."""
    return {"float64": 1e-10, "float32": 1e-4}.get(np.dtype(dtype).name, 2e-2) if rtol is None else rtol


def _compare(case, expected, got, rtol=0.0, name=""):
    """Numbers of any type, equal to `rtol` of the largest."""
    label = f"{name} " if name else ""
    if got.dtype.kind not in "iuf":
        case.fail(f"{label}expected integers or floats, got dtype {got.dtype}")
    _check_shape(case, expected, got, label)
    with np.errstate(invalid="ignore"):  # infinity - infinity is NaN, and wrong
        off = np.abs(got.astype(np.float64) - expected)
    wrong = ~(off <= rtol * np.abs(expected).max())
    if wrong.any():
        index = _first(wrong)
        numbers = f"expected {expected[index]:.9g}, got {got[index]:.9g}"
        case.fail(f"{label}index {index}: {numbers} ({wrong.sum()} of {wrong.size} values differ)")


def _check_shape(case, expected, got, label=""):
    if got.shape != expected.shape:
        case.fail(f"{label}expected shape {expected.shape}, got {got.shape}")


def _first(wrong):
    """The first index, in row-major order, at which `wrong` is true."""
    return tuple(int(i) for i in np.argwhere(wrong)[0])
