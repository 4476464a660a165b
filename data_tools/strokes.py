"""Pen strokes: how to render them (ink 255 on paper 0), shapes to build them from, an unsteady hand."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw

# An unsteady stroke is bent by three waves: their lengths along it, in a frame 2 wide, and their heights.
WAVES = 2 * np.pi / np.array([2.0, 0.9, 0.35])
AMPLITUDES = np.array([1.0, 0.6, 0.3])


def render(strokes: Sequence[np.ndarray], size: int, *, width: float, supersample: int = 4) -> np.ndarray:
    """Draw polylines with a round pen and average down to the wanted size.

    Parameters
    ----------
    strokes : list of float arrays (n, 2)
        Points x, y of each stroke, in 0..1 of the square, y down. A stroke of one point is a dot; what lies
        outside of the square is cut off.
    size : int
        Side of the image in pixels.
    width : float
        Width of the pen in pixels of the image; it is at least one fine pixel (see `supersample`).
    supersample : int
        Strokes are drawn without grey and `supersample` times larger; then each block of pixels is averaged.

    Returns
    -------
    uint8 array (size, size)
        0 is paper, 255 is ink. The same input gives the same bytes.
    """
    if size < 1 or supersample < 1:
        raise ValueError(f"size and supersample must be at least 1, got {size} and {supersample}")
    if not width > 0:
        raise ValueError(f"width must be above 0, got {width}")
    fine_size = size * supersample
    pen = max(1, round(width * supersample))
    image = Image.new("L", (fine_size, fine_size), 0)
    draw = ImageDraw.Draw(image)
    for index, stroke in enumerate(strokes):
        points = np.asarray(stroke, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
            raise ValueError(f"strokes[{index}] must hold finite points (n, 2), got shape {points.shape}")
        _draw_stroke(draw, points * fine_size - 0.5, pen)  # -0.5: Pillow counts from the middle of a pixel
    return np.array(image.reduce(supersample) if supersample > 1 else image)


def _draw_stroke(draw, points, pen):
    """Draw one polyline and a disc on each of its points, which makes the joints and the caps round."""
    corners = points.tolist()
    if len(corners) > 1:
        draw.line([coordinate for corner in corners for coordinate in corner], fill=255, width=pen)
    radius = (pen - 1) / 2
    if corners and (pen > 2 or len(corners) == 1):
        for x, y in corners:
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)


def line(*points: ArrayLike) -> np.ndarray:
    """Stroke through the points (x, y), straight from one to the next."""
    return np.array(points, dtype=np.float64)


def polygon(*points: ArrayLike) -> np.ndarray:
    """Closed stroke with the points (x, y) as its corners."""
    return np.array(points + points[:1], dtype=np.float64)


def box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """Closed stroke around a rectangle."""
    return polygon((left, top), (right, top), (right, bottom), (left, bottom))


def arc(x: float, y: float, radius_x: float, radius_y: float, start: float, stop: float) -> np.ndarray:
    """Part of an ellipse around (x, y); degrees, 0 to the right, growing clockwise because y points down."""
    count = max(4, int(abs(stop - start) / 12) + 1)
    angle = np.radians(np.linspace(start, stop, count))
    return np.stack([x + radius_x * np.cos(angle), y + radius_y * np.sin(angle)], axis=1)


def ellipse(x: float, y: float, radius_x: float, radius_y: float | None = None) -> np.ndarray:
    """Closed ellipse around (x, y), a circle when only one radius is given."""
    return arc(x, y, radius_x, radius_x if radius_y is None else radius_y, 0.0, 360.0)


def curve(*points: ArrayLike, closed: bool = False) -> np.ndarray:
    """Smooth stroke through the points (a Catmull-Rom spline), as a blob when `closed`."""
    knots = np.array(points, dtype=np.float64)
    if closed:
        knots = np.concatenate([knots[-1:], knots, knots[:2]])
    else:  # the ends are mirrored, so that the curve starts and stops on the first and the last point
        knots = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    before, a, b, after = (knots[i : len(knots) - 3 + i, None] for i in range(4))
    t = np.linspace(0.0, 1.0, 6, endpoint=False)[:, None]
    pieces = 0.5 * (
        2 * a + (b - before) * t + (2 * before - 5 * a + 4 * b - after) * t**2 + (3 * a - before - 3 * b + after) * t**3
    )
    return np.concatenate([pieces.reshape(-1, 2), knots[-2:-1]])


def symmetric(*points: tuple[float, float]) -> tuple[tuple[float, float], ...]:
    """Points of a left half, from one end to the other, followed by their mirror images about x = 0."""
    return points + tuple((-x, y) for x, y in reversed(points) if x != 0)


def both_sides(stroke: np.ndarray) -> list[np.ndarray]:
    """The stroke and its mirror image about x = 0, as a list."""
    return [stroke, stroke * (-1, 1)]


def scribble(x: float, y: float, radius_x: float, radius_y: float, turns: int = 4) -> np.ndarray:
    """Zigzag that fills an ellipse around (x, y)."""
    height = np.linspace(-1.0, 1.0, 2 * turns)
    reach = np.sqrt(np.maximum(1.0 - height**2, 0.05)) * (-1.0) ** np.arange(2 * turns)
    return np.stack([x + radius_x * reach, y + radius_y * height], axis=1)


def resample(stroke: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Return points about `step` apart along the stroke, and how far along it each of them lies."""
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(stroke, axis=0).T))])
    distance = np.linspace(0.0, along[-1], max(2, round(along[-1] / step) + 1))
    columns = [np.interp(distance, along, column) for column in stroke.T]
    return np.stack(columns, axis=1), distance


def ring(
    rng: np.random.Generator, x: float, y: float, inner: float, outer: float, count: int, shape: str,
    start: float = 0.0, stop: float = 2 * np.pi,
) -> list[np.ndarray]:  # fmt: skip
    """Rays or petals around a centre, one stroke each; shape: "ray", "spike", "wave" or "petal"."""
    strokes = []
    turn = (stop - start) / count
    for angle in start + turn * (np.arange(count) + rng.uniform(0.2, 0.8)) + rng.normal(0, 0.06, count):
        reach = inner + (outer - inner) * rng.uniform(0.75, 1.15)
        out = np.array([np.cos(angle), np.sin(angle)])
        side = np.array([-out[1], out[0]]) * inner * np.tan(min(turn, 1.4) * 0.45)
        base, tip, centre = out * inner, out * reach, np.array([x, y])
        if shape == "ray":
            points = line(base, tip)
        elif shape == "spike":
            points = line(base - side, tip, base + side)
        elif shape == "wave":
            points = curve(base, base * 0.7 + tip * 0.3 + side * 0.4, base * 0.3 + tip * 0.7 - side * 0.4, tip)
        else:
            wide = side * rng.uniform(1.0, 1.5)
            points = curve(base - side, (base + tip) / 2 - wide, tip, (base + tip) / 2 + wide, base + side)
        strokes.append(points + centre)
    return strokes


def leaf(rng: np.random.Generator, x: float, y: float, angle: float, length: float) -> list[np.ndarray]:
    """Strokes of a leaf that starts at (x, y), often with its rib."""
    along = length * np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-along[1], along[0]]) * rng.uniform(0.2, 0.35)
    foot = np.array([x, y])
    strokes = [curve(foot, foot + along / 2 + across, foot + along, foot + along / 2 - across, foot)]
    if rng.random() < 0.4:
        strokes.append(line(foot, foot + along * 0.8))
    return strokes


def _retrace(stroke, rng, wobble, slip):
    """Draw a stroke again, unsteady: `wobble` along the way, `slip` in where it is and how large."""
    if len(stroke) == 1:
        return stroke + rng.normal(0, slip, 2)
    closed = np.abs(stroke[0] - stroke[-1]).max() < 1e-9
    if closed:  # begin anywhere
        start = int(rng.integers(len(stroke) - 1))
        stroke = np.concatenate([stroke[start:-1], stroke[: start + 1]])
    points, along = resample(stroke, 0.07)
    middle = points.mean(axis=0)
    points = middle + (points - middle) * rng.normal(1, 2 * slip, 2) + rng.normal(0, slip, 2)
    if closed:  # and miss the beginning at the end
        points = points + np.linspace(-0.5, 0.5, len(points))[:, None] * rng.normal(0, 2.5 * slip, 2)
    elif len(points) > 2:  # stop short of the end, or go beyond it
        points[0] += (points[0] - points[1]) * rng.uniform(-0.5, 1.2)
        points[-1] += (points[-1] - points[-2]) * rng.uniform(-0.5, 1.2)
    phase = rng.uniform(0, 2 * np.pi, (2, len(WAVES)))
    wave = np.sin(along[:, None, None] * WAVES + phase)  # (n, x or y, wave)
    return points + wave @ (wobble * AMPLITUDES)


def by_hand(strokes: Sequence[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Let somebody retrace clean strokes in a frame of about -1..1: unsteady, some missing, some drawn twice.

    The first two strokes are always drawn, so put the outline there.
    """
    wobble, slip = 0.024 * np.exp(rng.normal(0, 0.5)), 0.03 * np.exp(rng.normal(0, 0.5))
    missing, twice = rng.uniform(0, 0.25), rng.uniform(0, 0.2) * (rng.random() < 0.4)
    drawn = []
    for index, stroke in enumerate(strokes):
        if index < 2 or rng.random() >= missing:
            drawn.append(_retrace(stroke, rng, wobble, slip))
        if rng.random() < twice:
            drawn.append(_retrace(stroke, rng, wobble, 1.5 * slip))
    return drawn


def pose(strokes: Sequence[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Bend, turn, shear, stretch, perhaps mirror the whole drawing, and put it into the unit square."""
    points = np.concatenate(strokes)
    phase = rng.uniform(0, 2 * np.pi, 2)
    wave = np.sin(points @ rng.normal(0, 1.2, (2, 2)) + phase)  # one slow wave per coordinate
    points = points + wave * rng.normal(0, 0.08, 2)
    angle, shear, stretch = rng.normal(0, [0.17, 0.12, 0.09])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = points @ (turn @ [[np.exp(stretch), shear], [0, np.exp(-stretch)]]).T
    if rng.random() < 0.5:
        points[:, 0] *= -1
    low, high = points.min(axis=0), points.max(axis=0)
    scale = rng.uniform(0.6, 0.9) / (high - low).max()
    room = 0.96 - (high - low) * scale
    points = (points - low) * scale + 0.02 + room * rng.uniform(0.25, 0.75, 2)
    return np.split(points, np.cumsum([len(stroke) for stroke in strokes])[:-1])
