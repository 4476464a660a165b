"""What the arrays of a case hold, and how they lie in memory."""

from typing import Any

import numpy as np

SIGNS = {  # {name: (values of the first array, of the second)}
    "random": ("random", "random"),
    "edges": ("edges", "edges"),
    "mostly equal": ("mostly +1", "all +1"),
    "all equal": ("all +1", "all +1"),
    "all different": ("all +1", "all -1"),
    "denormals": ("denormals", "denormals"),
    "infinities": ("infinities", "random"),
    "extremes": ("extremes", "random"),
}
HARD = ("denormals", "infinities", "extremes")  # what a kernel may be excused from, by name
HARD_VALUES = (0.0, -0.0, np.inf, -np.inf, 1e-45, -1e-45, 1e-38, -1e-38, 3e38, -3e38)  # 1e-45 is denormal
LAYOUTS = ("contiguous", "cropped", "stepped", "reversed", "transposed", "Fortran", "read-only", "misaligned")


def _hard(kind, dtype):
    """Return the hardest values of a type, of one kind."""
    info = np.finfo(dtype)
    positive = {
        "denormals": (info.smallest_subnormal, info.tiny / 2),
        "infinities": (np.inf,),
        "extremes": (info.tiny, info.eps, info.max),
    }[kind]
    return np.array([sign * value for value in positive for sign in (1, -1)], dtype)


def values(kind: str, shape: tuple[int, ...], rng: np.random.Generator, dtype: Any = np.float32) -> np.ndarray:
    """Standard normal values of a float type, changed as `kind` says; never NaN."""
    dtype = np.dtype(dtype)
    x = rng.standard_normal(shape, np.float64 if dtype == np.float64 else np.float32)
    if kind == "edges":  # sign(0) = sign(-0.0) = +1; a straight-through estimator ends before 1
        x = np.where(rng.random(shape) < 0.4, rng.choice([0.0, -0.0, 1.0, -1.0], shape), x)
    elif kind in HARD:
        x = np.where(rng.random(shape) < 0.7, rng.choice(_hard(kind, dtype), shape), x.astype(dtype))
    elif kind == "mostly +1":
        x = np.where(rng.random(shape) < 0.95, np.abs(x), x)
    elif kind != "random":
        x = {"all +1": 1, "all -1": -1}[kind] * np.abs(x)
    return x.astype(dtype, copy=False)


def _junk(shape, dtype):
    """Return what to fill the memory around an array with: nothing that belongs to it."""
    around = np.empty(shape, dtype)
    around.view(np.uint8)[...] = 0xA5
    return around


def laid_out(x: np.ndarray, layout: str) -> np.ndarray:
    """Return the same values as a caller may hold them: in one piece, as a part, a view, or another kind of copy."""
    if layout == "read-only":
        x.flags.writeable = False
    elif layout == "Fortran":
        x = np.asfortranarray(x)
    elif layout == "transposed":  # activations from (N, C, H, W)
        axis = 1 if x.ndim == 4 else 0
        x = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, -1, axis)), axis, -1)
    elif layout == "reversed":
        back = tuple(slice(None, None, -1) for _ in x.shape)
        x = x[back].copy()[back]
    elif layout == "misaligned":
        memory = np.empty(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
        memory[...] = x
        x = memory
    elif layout in ("cropped", "stepped"):
        cropped = layout == "cropped"
        around = _junk([n + 2 if cropped else 2 * n for n in x.shape], x.dtype)
        inner = around[tuple(slice(1, -1) if cropped else slice(None, None, 2) for _ in x.shape)]
        inner[...] = x
        x = inner
    elif layout != "contiguous":
        raise ValueError(f"layout: expected one of {', '.join(LAYOUTS)}, got {layout!r}")
    return x
