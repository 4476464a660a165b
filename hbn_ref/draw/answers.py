"""A drawing as it comes from the page, checked, and the answer to it."""

import base64
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import deploy, gallery, hybrid

TOP = 3  # classes in an answer
MAX_MAPS = 32  # feature maps shown of each layer
MAX_POINTS_OF_MAPS = 256  # so many, if a map is one value
DARKEST = 2.0  # this and larger values are black, -2 and less white, 0 is grey
MAX_STROKES, MAX_POINTS = 500, 20_000
MAX_DEPTH = 8  # of brackets within brackets; a drawing needs 4
RANGE = (-1.0, 2.0)  # of x and y: the paper is 0 to 1, and a stroke may leave it
WIDTHS = (0.25, 4.0)  # of the pen: multiples of the one in training
PEN = 1.5 / 72  # the pen in training, as a share of the square: 1.5 of the 72 pixels that are stored
Prepare = Callable[[list[np.ndarray], dict[str, Any], float], np.ndarray]  # (strokes, preprocessing, width) -> input


class Refused(Exception):
    """A request is refused: a status, and one line that says what was expected."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


# ------------------------------------------------------------------------------------------ a drawing


def _object(pairs):
    """json calls this for each {...}: otherwise a name that is given twice would win or lose in silence."""
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a name stands twice in an object")
    return dict(pairs)


def _constant(name):
    raise ValueError(f"{name} is not JSON")


def _json(body):
    """The content of a JSON text, with floats for numbers. Deep nesting is refused before it can hurt the parser."""
    letters = np.frombuffer(body, np.uint8)
    opening, closing = np.isin(letters, list(b"[{")), np.isin(letters, list(b"]}"))
    if (np.cumsum(opening, dtype=np.int64) - np.cumsum(closing, dtype=np.int64)).max(initial=0) > MAX_DEPTH:
        raise Refused(400, f"body: expected brackets at most {MAX_DEPTH} deep")
    try:
        text = body.decode("utf-8")
        return json.loads(text, parse_int=float, parse_constant=_constant, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"body: expected JSON in UTF-8 ({error})") from None


def _stroke(index, points):
    """float64 (n, 2) of one stroke."""
    where = f"strokes[{index}]"
    if type(points) is not list or not points:
        raise Refused(400, f"{where}: expected a list of one or more points")
    for k, point in enumerate(points):
        if type(point) is not list or len(point) != 2 or type(point[0]) is not float or type(point[1]) is not float:
            raise Refused(400, f"{where}[{k}]: expected two numbers, [x, y]")
    stroke = np.array(points, np.float64)
    if not ((stroke >= RANGE[0]) & (stroke <= RANGE[1])).all():  # so infinity fails, too
        raise Refused(400, f"{where}: expected x and y from {RANGE[0]:g} to {RANGE[1]:g}; the paper is 0 to 1")
    return stroke


def parse_drawing(body: bytes) -> tuple[list[np.ndarray], float, int]:
    """Return (strokes, width, look) of a request's body: a list of float64 (n, 2), the pen's width, a network's number.

    Raises
    ------
    Refused
        Anything but {"strokes": [[[x, y], ...], ...], "width": 1.0, "look": 0} within the limits; "width" and "look"
        may be left out.
    """
    content = _json(body)
    if type(content) is not dict or "strokes" not in content or content.keys() - {"strokes", "width", "look"}:
        raise Refused(400, 'body: expected an object with "strokes", "width" and "look" and nothing else')
    width, look, strokes = content.get("width", 1.0), content.get("look", 0.0), content["strokes"]
    if type(look) is not float or not 0 <= look < gallery.LARGEST or look != int(look):
        raise Refused(400, "look: expected the number of a network, from 0")
    if type(width) is not float or not WIDTHS[0] <= width <= WIDTHS[1]:
        raise Refused(400, f"width: expected a number from {WIDTHS[0]:g} to {WIDTHS[1]:g}")
    if type(strokes) is not list or len(strokes) > MAX_STROKES:
        raise Refused(400, f"strokes: expected a list of at most {MAX_STROKES} strokes")
    if sum(len(points) for points in strokes if type(points) is list) > MAX_POINTS:
        raise Refused(400, f"strokes: expected at most {MAX_POINTS} points in all")
    if not strokes:
        raise Refused(400, "strokes: the paper is empty; draw something first")
    return [_stroke(index, points) for index, points in enumerate(strokes)], width, int(look)


# ----------------------------------------------------------------------------------------- a prediction


def _text(array):
    """Bytes as base64, for JSON."""
    return base64.b64encode(np.ascontiguousarray(array).data).decode("ascii")


def _sheets(maps):
    """The first maps of (1, H, W, C), each as its H * W values."""
    _, height, width, channels = maps.shape
    shown = MAX_POINTS_OF_MAPS if height * width == 1 else MAX_MAPS
    return maps.reshape(height * width, channels)[:, :shown].T


def feature_maps(name: str, values: Any, bits: Any, usual: Any = None) -> dict[str, Any]:
    """What enters one layer, for the page.

    Parameters
    ----------
    name : str
    values, bits : (1, H, W, C), or None
        As of `deploy.PackedNetwork.look`.
    usual : (mean, deviation) per channel, or None
        Of a layer with real inputs, see `gallery.usual_inputs`: what a BatchNorm would take off before a sign.

    Returns
    -------
    dict
        name, height, width, channels; inputs, "real" or "binary"; ones, the share of signs that are +1; maps, the signs
        of each map row by row, 8 per byte; levels, its values, one byte each (`DARKEST` is 255); error, E of all
        values. Without values, levels and error are None.
    """
    inputs = "binary" if bits is not None else "real"
    if usual is not None:
        values = (values - usual[0]) / usual[1]
    if bits is None:
        bits = values >= 0
    found = {
        "name": name, "inputs": inputs, "height": bits.shape[1], "width": bits.shape[2], "channels": bits.shape[3],
        "ones": float(bits.mean()), "maps": [_text(row) for row in np.packbits(_sheets(bits), axis=1)],
        "levels": None, "error": None,
    }  # fmt: skip
    if values is not None:
        grey = np.rint(127.5 + 127.5 / DARKEST * np.clip(_sheets(values), -DARKEST, DARKEST)).astype(np.uint8)
        found |= {"levels": [_text(row) for row in grey], "error": hybrid.binarization_error(values)}
    return found


def _picture(x):
    """The network's input (1, H, W, C) as 8-bit grey, ink 255."""
    grey = x[0].mean(axis=2)
    grey = (grey - grey.min()) / (grey.max() - grey.min())
    return {
        "height": grey.shape[0], "width": grey.shape[1],
        "pixels": _text(np.rint(255 * grey).astype(np.uint8)),
    }  # fmt: skip


def predict(
    networks: Sequence[gallery.Shown], prepare: Prepare, strokes: list[np.ndarray], width: float = 1.0, look: int = 0
) -> dict[str, Any]:
    """Return the answer to a drawing, ready for JSON; Refused if a network would see bare paper."""
    if look >= len(networks):
        raise Refused(400, f"look: expected the number of a network, 0 to {len(networks) - 1}")
    inputs: dict[str, np.ndarray] = {}  # networks with the same preprocessing share one
    answers = []
    for shown in networks:
        packed = shown.packed
        key = json.dumps(packed.preprocessing, sort_keys=True)
        if key not in inputs:
            inputs[key] = prepare(strokes, packed.preprocessing, width)
        x = inputs[key]
        if x.min() == x.max():
            raise Refused(400, "strokes: nothing to see where the networks look; draw in the middle of the paper")
        started = time.perf_counter()
        logits = packed(x)
        seconds = time.perf_counter() - started
        if not np.isfinite(logits).all():
            raise FloatingPointError(f"{shown.name}: its logits are not finite")
        top = deploy.ranked(logits, packed.classes, TOP, packed.none_of_these)[0]
        rows = [{"class": name, "probability": share} for name, share in top]
        answers.append({"top": rows, "milliseconds": 1000 * seconds})
    return {"networks": answers, "look": look} | _inside(networks[look], inputs)


def _inside(shown, inputs):
    """What a network sees, and what enters the layers that are binary or could be."""
    x = inputs[json.dumps(shown.packed.preprocessing, sort_keys=True)]
    may = {row["name"] for row in shown.layers if row["binarizable"]}
    _, seen = shown.packed.look(x)
    layers = [feature_maps(name, values, bits, shown.usual.get(name)) for name, values, bits in seen if name in may]
    return {"input": _picture(x), "layers": layers}
