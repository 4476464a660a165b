"""From stored 8-bit images to a network's input: one random warp per image to train, plain crops to evaluate.

Strokes must look the same in training and test. A warp blends neighbouring pixels and so dims a thin stroke, and a
network would learn to expect that. So drawings pass a contrast step that makes strokes solid again: after the warp, and
in evaluation, too.
"""

import functools
from typing import Any

import numpy as np

from .errors import DataError
from .room import ask_for_batch

AUGMENTATION: dict[str, Any] = {
    "area": (0.7, 1.0),  # of the crop, as a share of the stored image; a centre crop has 64 x 64 of 72 x 72 = 0.79
    "aspect": 1.1,  # sides differ by up to this factor, drawn evenly on a log scale from 1 / aspect to aspect
    "rotation": 10.0,  # degrees, to either side
    "elastic": 0.0,  # smooth random displacement, in 1/64 of the network's input; its spread is about half of this
    "pen": 0.0,  # ink times exp(-pen) to exp(pen), which makes strokes thinner or wider (sketches only)
    "erase": 0.0,  # mean side of a rectangle wiped off, as a share of the network's input; it may stick out
}
SOLID = (0.2, 0.5)  # ink up to the first becomes paper, from the second on a full stroke; linear in between
KNOTS = 4  # cells per side of an elastic displacement: a quarter of the image bends together


def check_augmentation(augmentation: dict[str, Any] | None) -> dict[str, Any]:
    """Return `AUGMENTATION` with some of its values replaced, or raise a DataError."""
    changed = dict(augmentation or {})
    for name, value in changed.items():
        if name not in AUGMENTATION:
            raise DataError(f"augmentation has {name!r}; expected some of {', '.join(AUGMENTATION)}")
        values = value if name == "area" and isinstance(value, (tuple, list)) and len(value) == 2 else [value]
        low, high = {"area": (0.05, 2), "aspect": (1, 4), "rotation": (0, 180), "erase": (0, 1)}.get(name, (0, 10))
        if len(values) < len(np.atleast_1d(AUGMENTATION[name])) or not all(
            isinstance(v, (int, float)) and low <= v <= high for v in values
        ):
            raise DataError(f"augmentation's {name} is {value!r}; expected from {low} to {high}")
        if list(values) != sorted(values):
            raise DataError(f"augmentation's {name} is {value!r}; expected the smaller number first")
    return AUGMENTATION | changed


def training_batch(
    images: np.ndarray, rng: np.random.Generator, preprocessing: dict[str, Any],
    augmentation: dict[str, Any] | None = None,
) -> np.ndarray:  # fmt: skip
    """Crop, resize, mirror, rotate and bend at random, in one warp per image; then normalise.

    Parameters
    ----------
    images : uint8 (B, S, S, C)
        Stored images, S = `preprocessing["stored"]`.
    rng : numpy.random.Generator
        The same state gives the same batch.
    preprocessing : dict
        See `dataset.make_preprocessing`.
    augmentation : dict, optional
        Values to replace in `AUGMENTATION`.

    Returns
    -------
    float32 (B, size, size, C)

    Raises
    ------
    DataError
        Images of another type or shape.
    """
    images, how = _check_images(images, preprocessing), AUGMENTATION | (augmentation or {})
    ask_for_batch(len(images), preprocessing, 32)
    size, stored = preprocessing["size"], preprocessing["stored"]
    warps = random_warps(len(images), rng, size, stored, how).astype(np.float32)[:, :, None, None]
    pixels = np.arange(size, dtype=np.float32) + np.float32(0.5)
    across, down = pixels[None, None, :], pixels[None, :, None]
    x = warps[:, 0] * across + warps[:, 1] * down + warps[:, 2]  # (B, size, size), in the stored image
    y = warps[:, 3] * across + warps[:, 4] * down + warps[:, 5]
    if how["elastic"]:
        bend = random_bends(len(images), rng, size) * np.float32(how["elastic"] * size / 64)
        x, y = x + bend[0], y + bend[1]
    warped = _sample(images, x, y, _paper(preprocessing))
    if how["pen"] and preprocessing["kind"] == "sketch":
        pressed = np.exp(how["pen"] * (2 * rng.random(len(images)) - 1))
        warped = np.minimum(warped * pressed[:, None, None, None], 255)
    if how["erase"]:
        _erase(warped, rng, how["erase"], _paper(preprocessing))
    return _normalise(np.rint(warped).astype(np.uint8), preprocessing)


def random_warps(
    count: int, rng: np.random.Generator, size: int, stored: int, augmentation: dict[str, Any] = AUGMENTATION
) -> np.ndarray:
    """The affine warps of `training_batch`, float64 (count, 6): a to f of x_in = a x + b y + c, y_in = d x + e y + f.

    Positions are in pixels from the image's corner; (x, y) lies in the output, (x_in, y_in) in the stored one.
    """
    area, aspect, shift_x, shift_y, turn, mirror = rng.random((count, 6)).T
    least, most = augmentation["area"]
    side = stored * np.sqrt(least + (most - least) * area)
    stretch = augmentation["aspect"] ** (aspect - 0.5)
    widest = stored * max(1, np.sqrt(most))  # a share above 1 takes in paper beyond the image
    width, height = np.minimum(side * stretch, widest), np.minimum(side / stretch, widest)
    centre_x = stored / 2 + (shift_x - 0.5) * (stored - width)
    centre_y = stored / 2 + (shift_y - 0.5) * (stored - height)
    angle = np.deg2rad(augmentation["rotation"] * (2 * turn - 1))
    step_x, step_y = width / size * np.where(mirror < 0.5, -1, 1), height / size
    a, b = np.cos(angle) * step_x, -np.sin(angle) * step_y
    d, e = np.sin(angle) * step_x, np.cos(angle) * step_y
    return np.stack([a, b, centre_x - (a + b) * size / 2, d, e, centre_y - (d + e) * size / 2], axis=1)


def random_bends(count: int, rng: np.random.Generator, size: int) -> np.ndarray:
    """Smooth random displacements, float32 (2, count, size, size): x and y, normal, with the spread 151 / 315 = 0.48.

    They are bicubic B-splines over a grid of coefficients of spread 1, which they smooth: the spread is 0.50 at a knot,
    0.46 between knots.
    """
    basis = _splines(size)
    knots = rng.standard_normal((2, count, basis.shape[1], basis.shape[1]), dtype=np.float32)
    rows = np.einsum("ip,bnpq->bniq", basis, knots)
    return np.einsum("jq,bniq->bnij", basis, rows)


@functools.lru_cache
def _splines(size):
    """Cubic B-splines (size, KNOTS + 3) at the centres of pixels; each row has the sum 1."""
    at = (np.arange(size) + 0.5) / size * KNOTS
    cell = at.astype(int)
    t = at - cell
    parts = (1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3
    basis = np.zeros((size, KNOTS + 3), np.float32)
    for i, part in enumerate(parts):
        basis[np.arange(size), cell + i] = part / 6
    return basis


def _sample(images, x, y, paper):
    """Values of images (B, S, S, C) at positions x, y (B, h, w), in pixels from the corner: bilinear, paper outside.

    Returns float32 (B, h, w, C), from 0 to 255.
    """
    count, side, _, channels = images.shape
    padded = np.empty((count, side + 2, side + 2, channels), np.uint8)  # one pixel of paper around each image
    padded[:] = paper
    padded[:, 1:-1, 1:-1] = images
    x, y = (np.clip(v + np.float32(0.5), 0, side + 1) for v in (x, y))  # centres of pixels, padded
    left, top = (np.minimum(v.astype(np.int32), side) for v in (x, y))
    right, below = (x - left)[..., None], (y - top)[..., None]
    flat = padded.reshape(-1, channels)
    first = (np.arange(count, dtype=np.int32)[:, None, None] * (side + 2) + top) * (side + 2) + left
    values = [flat[first + step].astype(np.float32) for step in (0, 1, side + 2, side + 3)]
    upper = values[0] + (values[1] - values[0]) * right
    lower = values[2] + (values[3] - values[2]) * right
    return upper + (lower - upper) * below


def _erase(images, rng, share, paper):
    """Wipe a rectangle off each image (B, h, w, C), in place. Its sides are half to one and a half of ``share``."""
    for image, (across, down, wide, high) in zip(images, rng.random((len(images), 4)), strict=True):
        height, width = image.shape[:2]
        half = (0.5 + wide) * share * width / 2, (0.5 + high) * share * height / 2
        left, right = (max(0, round(across * width + sign * half[0])) for sign in (-1, 1))
        top, bottom = (max(0, round(down * height + sign * half[1])) for sign in (-1, 1))
        image[top:bottom, left:right] = paper


def evaluation_batch(images: np.ndarray, preprocessing: dict[str, Any]) -> np.ndarray:
    """Centre crops, made solid and normalised as in training.

    Parameters
    ----------
    images : uint8 (B, S, S, C)
    preprocessing : dict

    Returns
    -------
    float32 (B, size, size, C)

    Raises
    ------
    DataError
        Images of another type or shape.
    """
    images = _check_images(images, preprocessing)
    ask_for_batch(len(images), preprocessing, 4)
    size = preprocessing["size"]
    start = (preprocessing["stored"] - size) // 2
    return _normalise(images[:, start : start + size, start : start + size], preprocessing)


def ten_crops(images: np.ndarray, preprocessing: dict[str, Any]) -> np.ndarray:
    """Return four corners, the centre, and the mirror image of each, in this order: predictions are averaged over them.

    Parameters
    ----------
    images : uint8 (B, S, S, C)
    preprocessing : dict

    Returns
    -------
    float32 (10, B, size, size, C)
        Crop 4 is the centre crop of `evaluation_batch`; crops 5 to 9 mirror crops 0 to 4.

    Raises
    ------
    DataError
        Images of another type or shape.
    """
    images = _check_images(images, preprocessing)
    ask_for_batch(len(images), preprocessing, 60)  # five crops in float32, and ten
    size = preprocessing["size"]
    far = preprocessing["stored"] - size
    corners = [(0, 0), (0, far), (far, 0), (far, far), (far // 2, far // 2)]
    crops = np.stack([images[:, y : y + size, x : x + size] for y, x in corners])
    crops = _normalise(crops, preprocessing)  # (5, B, size, size, C)
    return np.concatenate([crops, crops[:, :, :, ::-1]])


def _check_images(images, preprocessing):
    images = np.asarray(images)
    stored, channels = preprocessing["stored"], preprocessing["channels"]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (stored, stored, channels):
        raise DataError(
            f"images came as {images.dtype} {images.shape}; expected uint8"
            f" (B, {stored}, {stored}, {channels}) as a Dataset stores them"
        )
    return images


def _paper(preprocessing):
    """Return what fills the corners that a rotation uncovers: paper, or for photos the mean colour."""
    if preprocessing["kind"] == "sketch":
        return 0
    mean = np.rint(255 * np.atleast_1d(preprocessing["mean"])).astype(int).tolist()
    return tuple(mean) if preprocessing["channels"] == 3 else mean[0]


def _normalise(images, preprocessing):
    """float32 of uint8 (..., C): solid strokes, then (value - mean) / std, by a table of 256 values per channel."""
    level = np.arange(256) / 255
    if preprocessing["kind"] == "sketch":
        low, high = preprocessing["solid"]
        level = np.clip((level - low) / (high - low), 0, 1)
    mean, std = np.atleast_1d(preprocessing["mean"]), np.atleast_1d(preprocessing["std"])
    table = ((level[:, None] - mean) / std).astype(np.float32)  # (256, C)
    out = np.empty(images.shape, np.float32)
    for channel in range(images.shape[-1]):
        out[..., channel] = table[images[..., channel], channel]
    return out
