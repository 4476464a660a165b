"""A kit for testing somebody else's kernels: packing, the XNOR convolution, and any backward pass.

    from hbn_ref.testing import check_pack, check_xnor_conv, check_vjp

    check_pack(my_pack)                # my_pack(x) -> uint64 words
    check_xnor_conv(my_conv)           # my_conv(x, w, stride=, padding=, pad_value=) -> integer counts
    check_vjp(forward, backward, (x, w))

Each is silent when all is well and raises AssertionError at the first case that fails, with everything
needed to repeat it: shapes, stride, padding, pad_value, the first wrong index, what was expected and what
came. Cases are seeded (the same on every machine) and run smallest first, so that the first failure is
also the easiest one to look into. The truth is hbn_ref.reference.
"""

from dataclasses import dataclass

import numpy as np

from hbn_ref import reference

# ------------------------------------------------------------------------------------------------- packing

PACK_CHANNELS = (
    1,
    2,
    3,
    7,
    8,
    9,
    16,
    31,
    32,
    33,
    48,
    63,
    64,
    65,
    95,
    96,
    97,
    127,
    128,
    129,
    191,
    192,
    193,
    200,
)
PACK_LEADING = ((), (1,), (5,), (2, 3), (2, 3, 2))
HARD_VALUES = (0.0, -0.0, np.inf, -np.inf, 1e-45, -1e-45, 1e-38, -1e-38, 3e38, -3e38)  # 1e-45 is denormal


def pack_cases(dtype=np.float32):
    """Yields (description, x): channel counts around the word limits, all one sign, random, hard values."""
    for channels in PACK_CHANNELS:
        for leading in PACK_LEADING:
            shape = (*leading, channels)
            rng = np.random.default_rng([channels, len(leading)])
            hard = rng.standard_normal(shape)
            hard[rng.random(shape) < 0.5] = 0.0
            hard = np.where(rng.random(shape) < 0.5, rng.choice(HARD_VALUES, shape), hard)
            kinds = {
                "all +1": np.ones(shape),
                "all -1": -np.ones(shape),
                "random": rng.standard_normal(shape),
                "zeros, -0.0, infinities and denormals": hard,
            }
            for kind, x in kinds.items():
                with np.errstate(over="ignore"):  # 3e38 becomes an infinity in float16, which is as hard
                    yield f"x of shape {shape} {np.dtype(dtype)} ({kind})", x.astype(dtype)


def check_pack(fn, *, dtype=np.float32):
    """Checks fn(x) against the word convention of hbn_ref.bits.pack.

    x (..., C) -> uint64 (..., ceil(C / 64)); channel c is bit c % 64 of word c // 64, 1 means x >= 0 (so 0
    and -0.0 give 1), unused bits are 0. `dtype` is the type of the x that fn is given.
    """
    for case, x in pack_cases(dtype):
        expected = reference.pack(x)
        got = _call(case, fn, x)
        if got.dtype != np.uint64:
            raise AssertionError(f"{case}: expected dtype uint64, got {got.dtype}")
        _check_shape(case, expected, got)
        if np.array_equal(expected, got):
            continue
        index = _first(expected != got)
        want, came = int(expected[index]), int(got[index])
        bit = ((want ^ came) & -(want ^ came)).bit_length() - 1  # the lowest bit that differs
        channel = 64 * index[-1] + bit
        where = f"channel {channel}" if channel < x.shape[-1] else "an unused bit"
        value = f", x = {x[(*index[:-1], channel)]!r}" if channel < x.shape[-1] else ""
        raise AssertionError(
            f"{case}: word {index}: expected 0x{want:016x}, got 0x{came:016x}; first wrong bit {bit} ({where}{value})"
        )


# ---------------------------------------------------------------------------------------- XNOR convolution

CONV_CHANNELS = (2, 3, 31, 63, 64, 65, 96, 128, 200)
CONV_KERNELS = (1, 2, 3, 4, 5, 6, 7, (1, 3), (3, 2))
CONV_STRIDES = (1, 2, 3, (1, 2), (2, 1))
CONV_PADDINGS = (0, 1, 2, 3, (1, 0), (0, 2))
SIGNS = ("random", "zeros", "mostly equal", "all equal", "all different")


@dataclass(frozen=True)
class ConvCase:
    """One convolution of the table: everything needed to make its arrays again."""

    x_shape: tuple[int, ...]
    w_shape: tuple[int, ...]
    stride: int | tuple[int, int]
    padding: int | tuple[int, int]
    pad_value: int
    signs: str
    seed: int

    def __str__(self):
        return (
            f"x {self.x_shape}, w {self.w_shape}, stride={self.stride}, padding={self.padding}, "
            f"pad_value={self.pad_value}, signs {self.signs}, seed {self.seed}"
        )

    def macs(self):
        """Multiply-accumulates: the size of the case."""
        (n, h, w, _), (kh, kw, *_) = self.x_shape, self.w_shape
        (sh, sw), (ph, pw) = reference.pair(self.stride), reference.pair(self.padding)
        out_h, out_w = reference.output_size(h, kh, sh, ph), reference.output_size(w, kw, sw, pw)
        return n * out_h * out_w * int(np.prod(self.w_shape))

    def arrays(self, dtype=np.float32):
        """x and w, from the seed. "zeros": a third of the values are 0 or -0.0, whose sign is +1."""
        rng = np.random.default_rng(self.seed)
        x, w = rng.standard_normal(self.x_shape), rng.standard_normal(self.w_shape)
        if self.signs == "zeros":
            for values in (x, w):
                zero = rng.random(values.shape) < 1 / 3
                values[zero] = rng.choice([0.0, -0.0], zero.sum())
        elif self.signs == "mostly equal":
            x, w = np.where(rng.random(x.shape) < 0.95, np.abs(x), x), np.abs(w)
        elif self.signs in ("all equal", "all different"):
            x, w = np.abs(x), np.abs(w) * (1 if self.signs == "all equal" else -1)
        return x.astype(dtype), w.astype(dtype)


def conv_cases(pad_values=(0, 1)):
    """The table, smallest first: all channel counts with all kernels and pad values, the rest drawn by seed."""
    cases = []
    for channels in CONV_CHANNELS:
        for kernel in CONV_KERNELS:
            for pad_value in pad_values:
                seed = len(cases)
                rng = np.random.default_rng([2018, seed])
                kh, kw = reference.pair(kernel)
                stride = CONV_STRIDES[rng.integers(len(CONV_STRIDES))]
                padding = CONV_PADDINGS[rng.integers(len(CONV_PADDINGS))]
                (ph, pw), (more_h, more_w) = reference.pair(padding), rng.integers(0, 6, 2)
                height, width = max(1, kh - 2 * ph) + int(more_h), max(1, kw - 2 * pw) + int(more_w)
                batch, c_out = int(rng.integers(1, 6)), int(rng.choice([1, 2, 3, 5, 8, 17]))
                shapes = (batch, height, width, channels), (kh, kw, channels, c_out)
                cases.append(ConvCase(*shapes, stride, padding, pad_value, SIGNS[rng.integers(len(SIGNS))], seed))
    for pad_value in pad_values:
        wide = (1, 4, 5, 65), (3, 3, 65, 130)  # more filters than one tile of a vector kernel
        cases.append(ConvCase(*wide, 1, 1, pad_value, "random", len(cases)))
        for signs in ("all equal", "all different"):  # counts of +-34,300 do not fit into 16 bits
            large = (1, 7, 7, 700), (7, 7, 700, 2)
            cases.append(ConvCase(*large, 1, 0, pad_value, signs, len(cases)))
    return sorted(cases, key=ConvCase.macs)


def check_xnor_conv(fn, *, pad_values=(0, 1), dtype=np.float32, max_cases=None):
    """Checks fn(x, w, stride=, padding=, pad_value=) against the convolution of the signs, exactly.

    x (N, H, W, C_in), w (kh, kw, C_in, C_out), both of `dtype`; fn returns the unscaled counts, integers or
    floats, (N, OH, OW, C_out). stride and padding are integers, or (height, width) pairs where the two differ.
    pad_value 0: a padded tap adds nothing; +1 or -1: it is an ordinary sign. A kernel that knows one border
    only is checked with pad_values=(1,); a very slow one with max_cases=N, the N smallest cases.
    """
    for case in conv_cases(pad_values)[:max_cases]:
        x, w = case.arrays(dtype)
        options = {"stride": case.stride, "padding": case.padding, "pad_value": case.pad_value}
        expected = reference.xnor_conv2d_forward(x, w, scale=False, **options)
        got = _call(case, fn, x, w, **options)
        if got.dtype.kind not in "iuf":
            raise AssertionError(f"{case}: expected integer or float counts, got dtype {got.dtype}")
        _check_shape(case, expected, got)
        wrong = expected != got.astype(np.float64)
        if wrong.any():
            index = _first(wrong)
            raise AssertionError(
                f"{case}: index {index}: expected {int(expected[index])}, got {got[index]} "
                f"({wrong.sum()} of {wrong.size} values differ)"
            )


# ---------------------------------------------------------------------------------------- backward passes


def check_vjp(forward, backward, args, *, wrt=None, eps=1e-6, rtol=1e-6, seed=0, directions=3, elementwise=False):
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
    rng = np.random.default_rng(seed)
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
        _check_shape(f"{case}: its gradient", value, np.asarray(gradient))
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


def _call(case, fn, *args, **options):
    """fn's result as an array; what it raises, and writing into its input, become the case's failure."""
    copies = [value.copy() for value in args]
    try:
        got = fn(*args, **options)
        if isinstance(got, tuple):
            raise TypeError("expected the result alone, got a tuple; wrap the function, return its first part")
        got = np.asarray(got)
    except Exception as error:
        raise AssertionError(f"{case}: raised {type(error).__name__}: {error}") from error
    if not all(np.array_equal(before, after) for before, after in zip(copies, args, strict=True)):
        raise AssertionError(f"{case}: the function changed its input")
    return got


def _check_shape(case, expected, got):
    if got.shape != expected.shape:
        raise AssertionError(f"{case}: expected shape {expected.shape}, got {got.shape}")


def _first(wrong):
    """The first index, in row-major order, at which `wrong` is true."""
    return tuple(int(i) for i in np.argwhere(wrong)[0])
