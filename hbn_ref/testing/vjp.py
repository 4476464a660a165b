"""Check any backward pass against differences of its forward pass."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


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

    to `rtol`, relative to the larger side or to the length of g, and allowing for the rounding of the differences.
    With elementwise=True, d also runs through the unit vectors; that is for tiny shapes, as it calls forward twice per
    number. `wrt` names the positions of the arguments to check: by default all that have a gradient.
    The pass must be smooth at args: for a sign, put its surrogate into forward.
    """
    __tracebackhide__ = True
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
