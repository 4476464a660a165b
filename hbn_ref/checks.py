"""Checks of arguments, shared by all chapters: name the argument, what came and what was expected."""

from collections.abc import Sequence
from typing import Any

import numpy as np

FLOATS = (np.float32, np.float64)
IntOrPair = int | tuple[int, int]  # one number for both directions, or (vertical, horizontal)


def plain_array(name: str, x: Any) -> np.ndarray:
    """Return x as a plain array: no subclass of NumPy's, in this machine's byte order, at aligned addresses.

    Raises
    ------
    TypeError
        x is a masked array: what stands under its mask is no value.
    ValueError
        x is a list that makes no array.
    """
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{name}: expected a plain array, got a masked one; choose values with .filled()")
    try:
        x = np.asarray(x)
    except ValueError as error:
        raise ValueError(f"{name}: expected an array; {error}") from None
    return x if x.dtype.isnative and x.flags.aligned else x.astype(x.dtype.newbyteorder("="))


def _of_floats(name, x):
    if not isinstance(x, np.ndarray):
        raise TypeError(f"{name}: expected a NumPy array, got {type(x).__name__}")
    x = plain_array(name, x)
    if x.dtype not in FLOATS:
        raise TypeError(f"{name}: expected float32 or float64, got {x.dtype}; convert it with .astype(np.float32)")
    return x


def float_array(name: str, x: Any, ndim: int, like: np.ndarray | None = None) -> np.ndarray:
    """Return x as a C-contiguous float32 or float64 array of ``ndim`` axes, none of them empty.

    Raises
    ------
    TypeError
        x is no NumPy array, or a masked one, or neither float32 nor float64; or it differs in type from ``like``.
    ValueError
        The number of axes differs or an axis has length 0.
    """
    x = _of_floats(name, x)
    if x.ndim != ndim:
        raise ValueError(f"{name}: expected {ndim} axes, got shape {x.shape}")
    if x.size == 0:
        raise ValueError(f"{name}: an axis is empty in shape {x.shape}")
    if like is not None and x.dtype != like.dtype:
        raise TypeError(f"{name}: expected {like.dtype} like its partner, got {x.dtype}")
    return np.ascontiguousarray(x)


def floats(name: str, x: Any, dtype: Any = None) -> np.ndarray:
    """Return x, of any number of axes, as a plain C-contiguous array of float32 or float64 (cast to ``dtype``)."""
    x = _of_floats(name, x)
    return np.ascontiguousarray(x, dtype)


def pair(name: str, value: Any, least: int) -> tuple[int, int]:
    """Return (vertical, horizontal) from one whole number or two, each at least ``least``."""
    if type(value) is int and value >= least:  # fast: nearly always this line or the next
        return value, value
    if type(value) is tuple and [*map(type, value)] == [int, int] and min(value) >= least:
        return value
    both = (value, value) if isinstance(value, (int, np.integer)) else value
    whole = isinstance(both, (tuple, list)) and len(both) == 2
    whole = whole and all(isinstance(v, (int, np.integer)) and not isinstance(v, bool) for v in both)
    if not whole or min(both) < least:
        raise ValueError(f"{name}: expected a whole number or two, each at least {least}, got {value!r}")
    return int(both[0]), int(both[1])


def whole_number(name: str, value: Any, least: int = 1) -> int:
    """Return value as an int of at least ``least``."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}: expected a whole number of at least {least}, got {value!r}")
    return int(value)


def real_number(name: str, value: Any, least: float = 0.0) -> float:
    """Return value as a finite float of at least ``least``."""
    if not isinstance(value, (int, float, np.integer, np.floating)) or not np.isfinite(value) or value < least:
        raise ValueError(f"{name}: expected a finite number of at least {least:g}, got {value!r}")
    return float(value)


def same_shape(name: str, x: Any, shape: Sequence[int]) -> None:
    """Raise a ValueError unless x has ``shape``: otherwise a kernel would read foreign memory."""
    if np.shape(x) != tuple(shape):
        raise ValueError(f"{name}: expected shape {tuple(shape)}, got {np.shape(x)}")


def one_of(name: str, value: Any, choices: Sequence[Any]) -> Any:
    """Return value if it is among ``choices``, else raise a ValueError that lists them."""
    if not isinstance(value, (str, int, float, np.integer)) or value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, choices))}, got {value!r}")
    return value
