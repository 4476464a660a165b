"""From stored 8-bit images to a network's input: one random warp an image to train, plain crops to evaluate.

Stroke statistics must be the same in training and test. A warp blends neighbouring pixels and so dims a thin
stroke, which a network would learn to expect. So drawings pass a contrast step that makes strokes solid again,
after the warp and likewise in evaluation.
"""

import numpy as np
from PIL import Image

from .errors import DataError

CROP_AREA = (0.7, 1.0)  # share of the stored image; a centre crop takes 64 x 64 of 72 x 72 = 0.79, inside it
ASPECT = 1.1  # sides differ by up to this factor, drawn evenly on a log scale from 1 / ASPECT to ASPECT
ROTATION = 10.0  # degrees either way
SOLID = (0.2, 0.5)  # ink up to the first becomes paper, from the second a full stroke, straight in between


def training_batch(images, rng, preprocessing):
    """Random resized crop, mirror image and rotation as one affine warp an image, then normalisation.

    Parameters
    ----------
    images : uint8 (B, S, S, C)
        Stored images, S = `preprocessing["stored"]`.
    rng : numpy.random.Generator
        The same state gives the same batch.
    preprocessing : dict
        See `dataset.make_preprocessing`.

    Returns
    -------
    float32 (B, size, size, C)

    Raises
    ------
    DataError
        Images of another type or shape.
    """
    images = _check_images(images, preprocessing)
    size = preprocessing["size"]
    warps = random_warps(len(images), rng, size, preprocessing["stored"])
    fill = _paper(preprocessing)
    out = np.empty((len(images), size, size, images.shape[3]), np.uint8)
    for target, image, warp in zip(out, images, warps.tolist()):
        picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
        warped = picture.transform(
            (size, size), Image.Transform.AFFINE, warp, Image.Resampling.BILINEAR, fillcolor=fill
        )
        target[:] = np.asarray(warped).reshape(target.shape)
    return _normalise(out, preprocessing)


def random_warps(count, rng, size, stored):
    """The warps of `training_batch`, float64 (count, 6): a to f of x_in = a x + b y + c, y_in = d x + e y + f.

    Positions are in pixels from the image's corner; (x, y) lies in the output, (x_in, y_in) in the stored one.
    """
    area, aspect, shift_x, shift_y, turn, mirror = rng.random((count, 6)).T
    side = stored * np.sqrt(CROP_AREA[0] + (CROP_AREA[1] - CROP_AREA[0]) * area)
    stretch = ASPECT ** (aspect - 0.5)
    width, height = np.minimum(side * stretch, stored), np.minimum(side / stretch, stored)
    centre_x = stored / 2 + (shift_x - 0.5) * (stored - width)
    centre_y = stored / 2 + (shift_y - 0.5) * (stored - height)
    angle = np.deg2rad(ROTATION * (2 * turn - 1))
    step_x, step_y = width / size * np.where(mirror < 0.5, -1, 1), height / size
    a, b = np.cos(angle) * step_x, -np.sin(angle) * step_y
    d, e = np.sin(angle) * step_x, np.cos(angle) * step_y
    return np.stack([a, b, centre_x - (a + b) * size / 2, d, e, centre_y - (d + e) * size / 2], axis=1)


def evaluation_batch(images, preprocessing):
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
    size = preprocessing["size"]
    start = (preprocessing["stored"] - size) // 2
    return _normalise(images[:, start : start + size, start : start + size], preprocessing)


def ten_crops(images, preprocessing):
    """Four corners, the centre, and the mirror image of each, in this order, for predictions to be averaged.

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
    """What fills the corners that a rotation uncovers: paper, or for photos the mean colour."""
    if preprocessing["kind"] == "sketch":
        return 0
    mean = np.rint(255 * np.atleast_1d(preprocessing["mean"])).astype(int).tolist()
    return tuple(mean) if preprocessing["channels"] == 3 else mean[0]


def _normalise(images, preprocessing):
    """float32 of uint8 (..., C): solid strokes, then (value - mean) / std, by a table of 256 a channel."""
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
