"""The built-in data set: procedural sketches of 15 kinds of objects, drawn as by a quick and careless hand.

Each class has a function that returns clean strokes in a frame of about -1..1 (y down), put together from
optional parts in a few structurally different ways. `draw` lets an unsteady hand retrace them and puts the
drawing at an angle and in a place. Some classes share parts on purpose: sun and flower; apple and tomato;
face and cat; cup and teapot; car, truck and bus; light bulb, mushroom and tree.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from .dataset import Dataset, drawn
from .errors import DataError
from .strokes import (
    arc,
    both_sides,
    box,
    by_hand,
    curve,
    ellipse,
    leaf,
    line,
    polygon,
    pose,
    render,
    ring,
    scribble,
    symmetric,
)

# ----------------------------------------------------------------------------------------------------------
# Parts which several classes share. The first two strokes of a drawing are never left out.
# ----------------------------------------------------------------------------------------------------------


def _chance(rng, probability):
    return rng.random() < probability


def _maybe(rng, probability, *strokes):
    """Optional strokes: all of them or none."""
    return strokes if _chance(rng, probability) else ()


def _features(rng, size):
    """Eyes, mouth and sometimes a nose around (0, 0), for whatever looks at us."""
    gap, level, style = rng.uniform(0.3, 0.45), -rng.uniform(0.1, 0.35), rng.integers(4)
    eye = rng.uniform(0.06, 0.17)
    if style == 0:
        strokes = both_sides(scribble(gap, level, eye * 0.6, eye, turns=2))
    elif style == 1:
        strokes = both_sides(ellipse(gap, level, eye * 1.4, eye)) + both_sides(line((gap, level)))
    elif style == 2:
        strokes = both_sides(ellipse(gap, level, eye * 0.7, eye * 1.2))
    else:
        strokes = both_sides(arc(gap, level, eye * 1.4, eye, 180, 360))
    wide, deep, low = rng.uniform(0.25, 0.5), rng.uniform(-0.1, 0.3), rng.uniform(0.3, 0.45)
    strokes.append(curve((-wide, low), (0, low + deep), (wide, low)))
    strokes += _maybe(rng, 0.2, line((-wide, low), (wide, low)))
    nose = rng.uniform(0.08, 0.2)
    strokes += _maybe(rng, 0.5, line((0, level + nose), (-nose * 0.6, nose), (nose * 0.3, nose)))
    return [stroke * size for stroke in strokes]


def _steam(rng, x, y, height):
    """Two or three wavy lines that rise from (x, y)."""
    count, strokes = rng.integers(2, 4), []
    for column in x + 0.22 * (np.arange(count) - (count - 1) / 2):
        rise = np.linspace(0, height * rng.uniform(0.7, 1.1), 5)
        sway = rng.uniform(0.04, 0.09) * np.array([0, 1, 0, -1, 0])
        strokes.append(curve(*zip(column + sway, y - rise)))
    return strokes


def _handle(rng, x, y, wide, high):
    """The ear of a cup to the right of (x, y), one line or two."""
    strokes = [arc(x, y, wide, high, -90, 90)]
    strokes += _maybe(rng, 0.5, arc(x, y, wide * 0.6, high * 0.6, -90, 90))
    return strokes


def _wheels(rng, places, y, radius):
    """Wheels with or without hubs, alike within a drawing."""
    style, strokes = rng.integers(4), []
    for x in places:
        strokes.append(ellipse(x, y, radius))
        if style == 1:
            strokes.append(ellipse(x, y, radius * rng.uniform(0.3, 0.6)))
        elif style == 2:
            strokes.append(scribble(x, y, radius * 0.6, radius * 0.6, turns=3))
        elif style == 3:
            strokes += ring(rng, x, y, 0.02, radius * 0.9, 4, "ray")
    return strokes


def _windows(rng, left, right, top, bottom, count):
    """A row of windows; the careless draw one long window with bars."""
    if _chance(rng, 0.3):
        bars = np.linspace(left, right, count + 1)[1:-1]
        return [box(left, top, right, bottom)] + [line((x, top), (x, bottom)) for x in bars]
    edges = np.linspace(left, right, count + 1)
    gap = (right - left) / count * rng.uniform(0.05, 0.2)
    return [box(a + gap, top, b - gap, bottom) for a, b in pairwise(edges)]


def _ground(rng, y, probability=0.2):
    """Perhaps the line on which the thing stands, or some grass."""
    if not _chance(rng, probability):
        return []
    if _chance(rng, 0.5):
        return [line((-rng.uniform(0.6, 1.2), y), (rng.uniform(0.6, 1.2), y))]
    places = rng.uniform(-0.8, 0.8, rng.integers(2, 5))
    return [line((x - 0.08, y - 0.15), (x, y), (x + 0.02, y - 0.2), (x + 0.06, y)) for x in places]


# ----------------------------------------------------------------------------------------------------------
# The classes.
# ----------------------------------------------------------------------------------------------------------


def _apple(rng):
    wide, dip, foot = rng.uniform(0.8, 1.0), rng.uniform(0.08, 0.25), rng.uniform(0.0, 0.12)
    if _chance(rng, 0.25):  # hardly more than a circle
        strokes = [ellipse(0, 0, wide, 0.85), curve((-0.25, -0.7), (0, -0.7 + dip), (0.25, -0.7))]
    else:
        shoulder = (0, -0.72 + dip), (-0.42 * wide, -0.72), (-wide, -0.3)
        outline = symmetric(*shoulder, (-0.8 * wide, 0.45), (-0.35 * wide, 0.85), (0, 0.85 - foot))
        if _chance(rng, 0.2):  # somebody took a bite
            bite = ((0.85 * wide, 0.15), (0.5 * wide, 0.0), (0.55 * wide, -0.3), (0.85 * wide, -0.5))
            outline = outline[:8] + bite + outline[9:]
        strokes = [curve(*outline, closed=True)]
    lean = rng.uniform(-0.2, 0.25)
    stem = curve((0, -0.72 + dip), (lean * 0.3, -0.85), (lean, -1.1))
    strokes += _maybe(rng, 0.85, stem, *_maybe(rng, 0.3, stem + (0.08, 0)))
    strokes += _maybe(rng, 0.6, *leaf(rng, lean * 0.4, -0.85, rng.uniform(-0.7, 0.1), rng.uniform(0.35, 0.6)))
    strokes += _maybe(rng, 0.3, arc(-0.1, 0, 0.6 * wide, 0.55, 180, 250))
    return strokes


def _tomato(rng):
    wide, high = rng.uniform(0.88, 1.1), rng.uniform(0.72, 0.9)
    strokes = [ellipse(0, 0, wide, high)]
    if _chance(rng, 0.5):
        dip = rng.uniform(0.05, 0.2)
        left = [(0, -high + dip), (-0.5 * wide, -high), (-wide, -0.2), (-0.75 * wide, 0.55 * high)]
        strokes = [curve(*symmetric(*left, (0, high)), closed=True)]
    y, style = -high + rng.uniform(0.05, 0.2), rng.integers(4)
    if style == 0:  # the star of leaves as a zigzag
        tips = rng.integers(4, 7)
        angle = np.linspace(0, 2 * np.pi, 2 * tips, endpoint=False) + rng.uniform(0, 1)
        reach = np.where(np.arange(2 * tips) % 2, 0.42, 0.12) * rng.uniform(0.8, 1.2, 2 * tips)
        strokes.append(polygon(*zip(reach * np.cos(angle), y + 0.6 * reach * np.sin(angle))))
    elif style == 1:
        strokes += ring(rng, 0, y, 0.05, rng.uniform(0.3, 0.5), rng.integers(4, 7), "ray")
    elif style == 2:
        for angle in np.linspace(-0.3, np.pi + 0.3, rng.integers(3, 5)):
            strokes += leaf(rng, 0, y, angle + rng.normal(0, 0.15), rng.uniform(0.3, 0.5))
    if style == 3 or _chance(rng, 0.5):
        strokes.append(curve((0, y), (0.03, y - 0.15), (rng.uniform(-0.15, 0.2), y - 0.3)))
    strokes += _maybe(rng, 0.2, *[arc(0, 0, wide * x, high * 0.8, 100, 250) for x in (0.35, 0.7)])  # ribs
    strokes += _maybe(rng, 0.3, arc(0, 0, 0.7 * wide, 0.65 * high, -60, 0))
    return strokes


def _sun(rng):
    shape = ("ray", "ray", "spike", "wave")[rng.integers(4)]
    radius, count = rng.uniform(0.4, 0.65), int(rng.integers(7, 15))
    gap = 1.0 if shape == "spike" else rng.uniform(1.0, 1.2)
    if _chance(rng, 0.12):  # at the horizon
        strokes = [arc(0, 0.3, radius, radius, 180, 360), line((-1, 0.3), (1, 0.3))]
        return strokes + ring(rng, 0, 0.3, radius * gap, 1.0, count // 2 + 1, shape, np.pi, 2 * np.pi)
    strokes = [ellipse(0, 0, radius, radius * rng.uniform(0.88, 1.1))]
    strokes += ring(rng, 0, 0, radius * gap, 1.0, count, shape)
    strokes += _maybe(rng, 0.25, *_features(rng, radius * 0.9))
    return strokes


def _flower(rng):
    tulip, low = _chance(rng, 0.25), rng.uniform(1.3, 2.2)
    if tulip:
        top = symmetric((-0.5, -0.6), (-0.25, -0.2), (0, -0.7))
        strokes = [line((0, 0.45), (-0.4, 0.25), *top, (0.4, 0.25), (0, 0.45))]
        foot = 0.45
    else:
        radius, count = rng.uniform(0.18, 0.4), int(rng.integers(5, 11))
        shape = "spike" if _chance(rng, 0.2) else "petal"
        strokes = [ellipse(0, 0, radius)] + ring(rng, 0, 0, radius, rng.uniform(0.7, 1.0), count, shape)
        strokes += _maybe(rng, 0.15, *_features(rng, radius * 0.9))
        strokes += _maybe(rng, 0.25, scribble(0, 0, radius * 0.7, radius * 0.7, turns=3))
        foot = 0.8
    if tulip or _chance(rng, 0.6):
        bend = rng.uniform(-0.2, 0.2)
        strokes.append(curve((0, foot), (bend, (foot + low) / 2), (0, low)))
        for side in (-1, 1):
            if _chance(rng, 0.6):
                at, angle = rng.uniform(0.5, 0.85), rng.uniform(0.3, 0.9)
                angle = -angle if side > 0 else np.pi + angle
                strokes += leaf(rng, bend * 0.8, foot + (low - foot) * at, angle, rng.uniform(0.4, 0.7))
    return strokes


def _face(rng):
    wide, high = rng.uniform(0.65, 0.9), rng.uniform(0.8, 1.0)
    strokes = [ellipse(0, 0, wide, high)]
    if _chance(rng, 0.3):  # a chin
        strokes = [curve(*symmetric((0, -high), (-wide, -0.5), (-wide * 0.8, 0.4), (0, high)), closed=True)]
    strokes += _features(rng, rng.uniform(0.75, 1.0) * wide)
    strokes += _maybe(rng, 0.45, *both_sides(arc(wide, 0, 0.15, 0.22, -90, 90)))  # ears
    style, x = rng.integers(5), np.linspace(-0.85, 0.85, 10) * wide
    up_down = np.arange(10) % 2
    if style == 0:  # hair on end
        strokes += ring(rng, 0, 0, high * 0.92, 1.25, 9, "ray", np.pi * 1.1, np.pi * 1.9)
    elif style == 1:  # a fringe
        strokes.append(line(*zip(x, -0.45 - 0.2 * up_down)))
    elif style == 2:  # long hair
        strokes += both_sides(curve((0, -high), (1.1 * wide, -0.7), (1.2 * wide, 0.3), (1.3 * wide, 0.9)))
    elif style == 3:  # curls
        strokes.append(curve(*zip(x, -high * np.sqrt(1 - (x / wide) ** 2) - 0.12 * up_down)))
    strokes += _maybe(rng, 0.2, *both_sides(line((0.3, high * 0.9), (0.35, high + 0.3))))  # a neck
    return strokes


def _cat_head(rng, x, y, size):
    wide = rng.uniform(0.95, 1.15)
    strokes = [ellipse(0, 0, wide, 0.9)]
    strokes += both_sides(line((wide * 0.25, -0.85), (wide * 0.75, -rng.uniform(1.2, 1.5)), (wide * 0.9, -0.4)))
    strokes += _features(rng, 0.9)
    for slope in np.linspace(-0.2, 0.2, rng.integers(2, 4)) if _chance(rng, 0.75) else ():  # whiskers
        strokes += both_sides(line((0.35, 0.25), (wide * 1.3, 0.2 + slope)))
    return [stroke * size + (x, y) for stroke in strokes]


def _cat(rng):
    style, tail = rng.integers(4), rng.uniform(0.2, 0.6)
    if style == 2:  # it sits
        wide = rng.uniform(0.4, 0.6)
        body = symmetric((-0.25, -0.25), (-wide, 0.5), (-wide * 0.8, 0.95), (0, 1))
        strokes = [curve(*body)] + _cat_head(rng, 0, -0.6, 0.42)
        strokes.append(curve((wide * 0.8, 0.9), (wide + tail, 0.8), (wide + tail, 0.4), (wide + 0.3, 0.1)))
        strokes += _maybe(rng, 0.6, *both_sides(line((0.12, 0.4), (0.14, 0.95))))
        return strokes
    if style == 3:  # it stands
        strokes = [ellipse(0.2, 0.1, 0.75, rng.uniform(0.3, 0.42))] + _cat_head(rng, -0.75, -0.3, 0.38)
        for x in (-0.35, -0.15, 0.5, 0.75):
            strokes.append(line((x, 0.35), (x + rng.normal(0, 0.05), 0.9)))
        strokes.append(curve((0.9, 0.0), (1.1, -0.2), (1.0, -0.4 - tail), (1.2, -0.6 - tail)))
        return strokes
    return _cat_head(rng, 0, 0, 0.8)


def _cup(rng):
    top, taper, high = rng.uniform(0.55, 0.8), rng.uniform(0.55, 1.0), rng.uniform(0.5, 0.85)
    if _chance(rng, 0.4):  # a bowl
        strokes = [curve(*symmetric((-top, -high), (-top * 0.9, 0), (-top * 0.4, high)))]
    else:
        strokes = [line(*symmetric((-top, -high), (-top * taper, high)))]
    rim = ellipse(0, -high, top, rng.uniform(0.08, 0.2))
    strokes.append(rim if _chance(rng, 0.7) else line((-top, -high), (top, -high)))
    side, level = top * (1 + taper) / 2, rng.uniform(-0.2, 0.05)
    strokes += _handle(rng, side, level, rng.uniform(0.25, 0.4), high * 0.5)
    strokes += _maybe(rng, 0.35, ellipse(0, high + 0.08, rng.uniform(0.9, 1.1), 0.15))  # a saucer
    strokes += _maybe(rng, 0.4, *_steam(rng, 0, -high - 0.25, 0.6))
    strokes += _maybe(rng, 0.12, *ring(rng, 0, 0.1, 0.12, 0.3, 5, "petal"))
    strokes += _maybe(rng, 0.12, line((-top * 0.9, 0), (top * 0.9, 0)))
    return strokes


def _teapot(rng):
    wide, high = rng.uniform(0.6, 0.75), rng.uniform(0.5, 0.7)
    style, neck = rng.integers(3), wide * 0.6
    if style == 0:
        strokes = [ellipse(0, 0, wide, high)]
    elif style == 1:
        strokes = [polygon((-neck, -high), (-wide, high), (wide, high), (neck, -high))]
    else:
        strokes = [curve(*symmetric((-neck, -high), (-wide, 0), (-wide * 0.7, high)))]
        strokes.append(line((-neck, -high), (neck, -high)))
    lift, reach = rng.uniform(-0.7, -0.3), rng.uniform(1.05, 1.25)
    strokes.append(curve((-wide * 0.9, 0.3), (-wide - 0.2, 0.1), (-reach, lift)))
    strokes.append(curve((-wide * 0.9, -0.1), (-wide - 0.1, -0.2), (-reach + 0.15, lift - 0.05)))
    strokes += _maybe(rng, 0.5, line((-reach, lift), (-reach + 0.15, lift - 0.05)))
    if _chance(rng, 0.3):  # a kettle's handle
        strokes.append(arc(0, -high * 0.8, wide * 0.8, rng.uniform(0.45, 0.65), 180, 360))
    else:
        strokes += _handle(rng, wide * 0.9, rng.uniform(-0.1, 0.1), rng.uniform(0.3, 0.45), high * 0.65)
    lid = -high * 0.9
    strokes += _maybe(rng, 0.85, arc(0, lid, wide * 0.5, 0.2, 180, 360), ellipse(0, lid - 0.27, 0.08))
    strokes += _maybe(rng, 0.2, *_steam(rng, -reach, lift - 0.15, 0.4))
    strokes += _maybe(rng, 0.25, line((-wide * 0.8, high + 0.05), (wide * 0.8, high + 0.05)))
    return strokes


def _car(rng):
    hood, roof = rng.uniform(-0.15, 0.05), rng.uniform(-0.6, -0.4)
    front, back = rng.uniform(-0.55, -0.35), rng.uniform(0.4, 0.75)
    radius, style = rng.uniform(0.16, 0.25), rng.integers(3)
    if style == 0:  # a beetle
        bonnet = (-1, 0.35), (-0.95, 0), (-0.5, -0.1)
        strokes = [curve(*bonnet, (-0.2, roof), (0.35, roof), (0.75, -0.1), (1, 0.35))]
        strokes.append(line((-1, 0.35), (1, 0.35)))
    elif style == 1:
        cabin = [(front, hood), (front + 0.25, roof), (back - 0.25, roof), (back, hood)]
        strokes = [polygon((-1, hood + 0.05), *cabin, (1, hood + 0.05), (1, 0.4), (-1, 0.4))]
    else:  # a box with a box on top
        strokes = [box(-1, hood, 1, 0.4), line((front, hood), (front + 0.2, roof), (back - 0.1, roof), (back, hood))]
    if _chance(rng, 0.85):
        strokes += _windows(rng, front + 0.2, back - 0.2, roof + 0.1, hood, int(rng.integers(1, 4)))
    strokes += _wheels(rng, (-0.55, 0.55), 0.4, radius)
    strokes += _maybe(rng, 0.4, line((0.1, hood), (0.1, 0.38)))
    strokes += _maybe(rng, 0.4, ellipse(-0.92, 0.15, 0.07))
    return strokes + _ground(rng, 0.4 + radius)


def _bus(rng):
    top, front = rng.uniform(-0.65, -0.45), rng.uniform(-0.1, 0.12)
    radius = rng.uniform(0.14, 0.22)
    if _chance(rng, 0.35):  # a nose, as a school bus
        strokes = [polygon((-1, 0.05), (-0.7, 0.0), (-0.65, top), (1, top), (1, 0.5), (-1, 0.5))]
        left = -0.6
    else:
        strokes = [polygon((-1 + front, top), (1, top), (1, 0.5), (-1, 0.5))]
        left = -0.9 + max(front, 0)
    if _chance(rng, 0.4):
        strokes.append(box(left, top + 0.15, left + 0.25, 0.45))
        left += 0.3
    strokes += _windows(rng, left, 0.93, top + 0.15, rng.uniform(-0.15, 0.02), int(rng.integers(3, 6)))
    strokes += _wheels(rng, (-0.6, 0.6) if _chance(rng, 0.8) else (-0.6, 0.4, 0.75), 0.5, radius)
    strokes += _maybe(rng, 0.35, line((-0.97, 0.2), (0.97, 0.2)))
    return strokes + _ground(rng, 0.5 + radius)


def _truck(rng):
    top, split, cab = rng.uniform(-0.75, -0.4), rng.uniform(-0.5, -0.25), rng.uniform(-0.4, -0.15)
    radius, style = rng.uniform(0.14, 0.22), rng.integers(3)
    nose = [(split, cab), (-0.75, cab), (-0.9, 0.05), (-1, 0.1), (-1, 0.45), (split, 0.45)]
    if style == 0:  # a pickup: the load bed is open
        strokes = [line(*nose, (1, 0.45), (1, 0.05), (split, 0.05), (split, cab))]
    else:
        strokes = [box(split + 0.05, top, 1, 0.45), line(*nose)]
    strokes += _maybe(rng, 0.8, *_windows(rng, -0.8, split - 0.05, cab + 0.1, 0.08, 1))
    if style == 2 and _chance(rng, 0.5):
        strokes += [line((x, top), (x, 0.45)) for x in np.linspace(split, 1, 5)[1:-1]]
    strokes += _wheels(rng, (-0.7, 0.6) if _chance(rng, 0.5) else (-0.7, 0.25, 0.7), 0.5, radius)
    return strokes + _ground(rng, 0.5 + radius)


def _fish(rng):
    high, end, style = rng.uniform(0.35, 0.6), rng.uniform(0.45, 0.6), rng.integers(3)
    tail = rng.uniform(0.25, 0.5)
    if style == 0:  # in one go
        lower = [(1, -tail), (end, 0), (0, high), (-0.6, high * 0.7), (-1, 0)]
        strokes = [curve(*lower, (-0.6, -high * 0.7), (0, -high), (end, 0), (1, tail))]
        strokes.append(line((1, -tail), (1, tail)))
    elif style == 1:
        strokes = [ellipse(-0.25, 0, 0.75, high), polygon((end - 0.08, 0), (1, -tail), (1, tail))]
    else:
        strokes = [curve((-1, 0), (-0.5, y), (0.2, y * 0.6), (end, y * 0.2)) for y in (-high, high)]
        strokes.append(curve((end, -0.08), (0.95, -tail), (0.85, 0), (0.95, tail), (end, 0.08)))
    strokes.append(ellipse(-0.65, -high * 0.3, rng.uniform(0.04, 0.1)))
    strokes += _maybe(rng, 0.4, curve((-0.98, 0.08), (-0.85, 0.12), (-0.75, 0.08)))  # mouth
    strokes += _maybe(rng, 0.5, arc(-0.55, 0, 0.15, high * 0.6, -70, 70))  # gills
    strokes += _maybe(rng, 0.55, curve((-0.4, -high * 0.9), (0.0, -high - 0.25), (0.25, -high * 0.6)))  # fins
    strokes += _maybe(rng, 0.45, line((-0.2, high * 0.2), (0.1, high * 0.5), (-0.15, high * 0.5)))
    scales = [arc(x, y * high, 0.1, 0.12, -80, 80) for x in (-0.25, 0.0) for y in (-0.4, 0, 0.4)]
    strokes += _maybe(rng, 0.3, *scales)
    strokes += _maybe(rng, 0.15, *[ellipse(-1.1 - 0.1 * i, -0.3 - 0.2 * i, 0.05) for i in range(3)])  # bubbles
    return strokes


def _lightbulb(rng):
    radius, neck, foot = rng.uniform(0.55, 0.7), rng.uniform(0.2, 0.28), rng.uniform(0.35, 0.5)
    if _chance(rng, 0.6):
        strokes = [curve(*symmetric((-neck, foot), (-radius * 0.8, 0), (-radius, -0.4), (0, -1)))]
    else:
        strokes = [arc(0, -0.35, radius, radius, 110, 430)]
        strokes += both_sides(line((neck, 0.27), (neck, foot)))
    style = rng.integers(3)
    if style == 0:  # the thread of the cap as rings, as a box, as a zigzag
        strokes += [line((-neck, y), (neck, y + 0.06)) for y in np.linspace(foot, 0.9, rng.integers(3, 5))]
    elif style == 1:
        strokes.append(box(-neck, foot, neck, 0.85))
        strokes += [line((-neck, y), (neck, y)) for y in np.linspace(foot, 0.85, 4)[1:-1]]
    else:
        strokes.append(line(*[(neck * (-1) ** i, foot + 0.09 * i) for i in range(7)]))
    strokes += _maybe(rng, 0.6, arc(0, 0.85, neck * 0.6, 0.12, 0, 180))
    trace = curve if _chance(rng, 0.5) else line
    filament = trace(*symmetric((-0.1, foot), (-0.2, -0.2), (-0.1, -0.35), (0, -0.2)))
    strokes += _maybe(rng, 0.65, filament)
    if _chance(rng, 0.3):  # it shines
        strokes += ring(rng, 0, -0.35, radius * 1.25, radius * 1.7, 7, "ray", np.pi * 0.9, np.pi * 2.1)
    return strokes


def _mushroom(rng):
    wide, top, style = rng.uniform(0.7, 1.0), rng.uniform(-0.95, -0.65), rng.integers(3)
    stem, foot, rim = rng.uniform(0.15, 0.35), rng.uniform(0.7, 1.0), rng.uniform(-0.1, 0.1)
    if style == 0:  # a round cap, a pointed one, a flat one
        cap = [curve(*symmetric((-wide, rim), (-wide * 0.75, top * 0.7), (0, top)))]
    elif style == 1:
        wide *= 0.7
        cap = [curve(*symmetric((-wide, rim), (-0.3, -0.4), (0, -1)))]
    else:
        cap = [ellipse(0, -0.4, wide, 0.45)]
    if style < 2:
        cap.append(curve((-wide, rim), (0, rim + rng.uniform(-0.1, 0.2)), (wide, rim)))
    bulge = stem * rng.uniform(0.9, 1.6)
    foot_line = symmetric((-stem, rim), (-stem * 0.9, 0.4), (-bulge, foot), (0, foot + 0.06))
    strokes = [cap[0], curve(*foot_line)] + cap[1:]
    spots = rng.uniform((-0.5 * wide, -0.5), (0.5 * wide, -0.15), (rng.integers(2, 6), 2))
    strokes += _maybe(rng, 0.6, *[ellipse(x, y, rng.uniform(0.06, 0.14)) for x, y in spots])
    strokes += _maybe(rng, 0.25, curve((-stem, 0.3), (0, 0.42), (stem, 0.3)))  # a ring
    return strokes + _ground(rng, foot, 0.25)


def _crown(rng, wide, high, y):
    """Outline of a leafy crown as a cloud."""
    bumps = int(rng.integers(6, 11))
    angle = np.linspace(0, 2 * np.pi, 4 * bumps, endpoint=False)
    reach = 1 + rng.uniform(0.08, 0.16) * np.abs(np.sin(angle * bumps / 2)) * rng.uniform(0.7, 1.3, 4 * bumps)
    return curve(*zip(wide * reach * np.cos(angle), y + high * reach * np.sin(angle)), closed=True)


def _tree(rng):
    stem, foot, style = rng.uniform(0.1, 0.22), rng.uniform(0.8, 1.1), rng.integers(4)
    if style == 3:  # a fir
        tiers = int(rng.integers(1, 4))
        level = np.linspace(-1, 0.5, tiers + 1)
        wide = np.linspace(0.75, 0.5, tiers)[::-1]
        strokes = [polygon((0, a - 0.15), (w, b), (-w, b)) for w, (a, b) in zip(wide, pairwise(level))]
        knot = 0.5
    else:
        wide, high = rng.uniform(0.55, 0.85), rng.uniform(0.45, 0.6)
        strokes = [ellipse(0, -0.4, wide, high) if style == 0 else _crown(rng, wide, high, -0.4)]
        knot = -0.4 + high
    strokes += both_sides(curve((stem, knot), (stem * 0.9, 0.6), (stem * 1.5, foot)))
    if style < 3:  # branches, fruit
        strokes += _maybe(rng, 0.35, line((0, knot), (0, -0.3)), *both_sides(line((0, 0), (0.3, -0.4))))
        places = rng.uniform((-0.45, -0.75), (0.45, -0.1), (rng.integers(3, 7), 2))
        strokes += _maybe(rng, 0.3, *[ellipse(x, y, rng.uniform(0.05, 0.1)) for x, y in places])
    return strokes + _ground(rng, foot, 0.3)


_DRAWERS = {
    drawer.__name__.removeprefix("_"): drawer
    for drawer in (
        *(_apple, _bus, _car, _cat, _cup, _face, _fish, _flower),
        *(_lightbulb, _mushroom, _sun, _teapot, _tomato, _tree, _truck),
    )
}
CLASSES = tuple(_DRAWERS)

# ----------------------------------------------------------------------------------------------------------
# The data set.
# ----------------------------------------------------------------------------------------------------------


def draw(class_name: str, rng: np.random.Generator) -> list[np.ndarray]:
    """Return the strokes of one new drawing: float arrays (n, 2), x, y in 0..1, y down."""
    return pose(by_hand(_drawer(class_name)(rng), rng), rng)


def _drawer(class_name):
    if class_name not in _DRAWERS:
        raise DataError(f"no class {class_name!r} in doodles; its classes are {', '.join(CLASSES)}")
    return _DRAWERS[class_name]


def images(class_name: str, count: int, rng: np.random.Generator, size: int) -> np.ndarray:
    """Return `count` new drawings of a class, uint8 (count, size, size, 1), ink 255 on paper 0."""
    _drawer(class_name)
    drawings = np.zeros((count, size, size, 1), np.uint8)
    for drawing in drawings:
        width = max(1.0, rng.uniform(1.2, 1.8) * size / 72)  # visible in a small image, too
        drawing[..., 0] = render(draw(class_name, rng), size, width=width)
    return drawings


def load(
    size: int = 64, seed: int = 0, classes: int | Sequence[str] | None = None, train: int = 80, validation: int = 20,
    test: int = 200,
) -> Dataset:  # fmt: skip
    """Draw the data set.

    Parameters
    ----------
    size : int
        Side of the images that a network sees; 9/8 of it is stored, so that crops have room.
    seed : int
        The same seed gives the same bytes.
    classes : sequence of str, optional
        Some of `CLASSES`; all of them by default.
    train, validation, test : int
        Drawings per class in each split.

    Returns
    -------
    data_tools.dataset.Dataset
    """
    return drawn("doodles", CLASSES, images, size, seed, classes, train=train, validation=validation, test=test)
