"""Drawings of things that are no doodles: twelve kinds, to see what a network makes of what it does not know.

The same hand draws them and the doodles, so that nothing but the shape tells them apart.
"""

import numpy as np

from .strokes import arc, both_sides, box, by_hand, curve, ellipse, line, polygon, pose, render, scribble


def _arrow(rng):
    head = rng.uniform(0.25, 0.5)
    return [line((-1, 0), (1, 0)), line((1 - head, -head), (1, 0), (1 - head, head))]


def _boat(rng):
    high = rng.uniform(0.8, 1.1)
    hull = polygon((-1, 0.3), (1, 0.3), (0.6, 0.8), (-0.6, 0.8))
    return [hull, line((0, 0.3), (0, -high)), polygon((0.05, 0.15), (0.05, -high), (0.75, 0.15))]


def _chair(rng):
    seat, back = rng.uniform(0.0, 0.2), rng.uniform(0.8, 1.0)
    strokes = [line((-0.5, -back), (-0.5, seat), (0.5, seat)), line((-0.5, seat), (-0.5, 1))]
    return [*strokes, line((0.5, seat), (0.5, 1)), line((-0.2, seat + 0.05), (-0.2, 0.8))]


def _heart(rng):
    wide = rng.uniform(0.8, 1.0)
    right = [(0, -0.45), (0.35 * wide, -0.8), (wide, -0.5), (0.75 * wide, 0.2), (0, 0.9)]
    return both_sides(curve(*right))


def _house(rng):
    top = rng.uniform(-0.3, -0.1)
    strokes = [box(-0.7, top, 0.7, 0.9), line((-0.85, top), (0, -1), (0.85, top)), box(-0.15, 0.3, 0.2, 0.9)]
    return strokes + [box(x, top + 0.2, x + 0.3, top + 0.5) for x in (-0.55, 0.25)]


def _key(rng):
    teeth = [line((x, 0), (x, rng.uniform(0.2, 0.35))) for x in (0.6, 0.8, 0.95)]
    return [ellipse(-0.6, 0, 0.4, 0.35), line((-0.2, 0), (1, 0)), *teeth]


def _ladder(rng):
    wide, rungs = rng.uniform(0.3, 0.5), int(rng.integers(4, 7))
    steps = [line((-wide, y), (wide, y)) for y in np.linspace(-0.8, 0.8, rungs)]
    return both_sides(line((wide, -1), (wide, 1))) + steps


def _letters(rng):
    high = rng.uniform(0.5, 0.8)
    a = [line((-1, high), (-0.65, -high), (-0.3, high)), line((-0.85, 0.1), (-0.45, 0.1))]
    return [
        *a,
        line((0.1, high), (0.1, -high)),
        curve((0.1, -high), (0.7, -high / 2), (0.15, 0), (0.8, high / 2), (0.1, high)),
    ]


def _scribble(rng):
    return [scribble(0, 0, 1, rng.uniform(0.5, 1), int(rng.integers(4, 8))), scribble(0.2, 0, 0.6, 0.8, 3)]


def _spiral(rng):
    turns = rng.uniform(2, 4)
    angle = np.linspace(0, 2 * np.pi * turns, int(18 * turns))
    return [np.stack([np.cos(angle), np.sin(angle)], axis=1) * angle[:, None] / angle[-1]]


def _star(rng):
    angle = np.pi * (0.8 * np.arange(6) - 0.5) + rng.uniform(-0.2, 0.2)
    return [np.stack([np.cos(angle), np.sin(angle)], axis=1)]


def _umbrella(rng):
    high = rng.uniform(0.6, 0.8)
    scallops = [arc(x, 0, 1 / 3, 0.15, 180, 360) for x in (-2 / 3, 0, 2 / 3)]
    return [arc(0, 0, 1, high, 180, 360), curve((0, 0), (0, 0.9), (0.15, 1.05), (0.3, 0.9)), *scallops]


_DRAWERS = {
    drawer.__name__.removeprefix("_"): drawer
    for drawer in (
        *(_arrow, _boat, _chair, _heart, _house, _key),
        *(_ladder, _letters, _scribble, _spiral, _star, _umbrella),
    )
}
KINDS = tuple(_DRAWERS)


def images(count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ``count`` drawings of each kind, always the same: uint8 (12 count, size, size, 1), and labels."""
    drawn = np.zeros((len(KINDS) * count, size, size, 1), np.uint8)
    for k, drawing in enumerate(drawn):
        rng = np.random.default_rng([k // count, k % count])
        strokes = pose(by_hand(_DRAWERS[KINDS[k // count]](rng), rng), rng)
        drawing[..., 0] = render(strokes, size, width=max(1.0, rng.uniform(1.2, 1.8) * size / 72))
    return drawn, np.repeat(np.arange(len(KINDS)), count)
