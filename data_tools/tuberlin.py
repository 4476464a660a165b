"""TU-Berlin sketches: where the archives come from, and how pen strokes survive being drawn small.

They are 20,000 sketches, 250 classes of 80, by Eitz, Hays and Alexa (2012). The strokes are 3 units wide on a square
of 800, so a quarter of a pixel on one of 72: plain reduction would leave a grey haze. So drawings are drawn again with
a pen of `PEN` pixels, in the same way from originals of 1111 pixels, from copies of 150, and from the SVG edition.
"""

import contextlib
import functools
import math
import os
import re
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from .errors import DataError

URL = "https://cybertron.cg.tu-berlin.de/eitz/projects/classifysketch/"
ARCHIVES = {  # format: (file name, MD5, size in words); the SVG edition is a tenth of the size
    "svg": ("sketches_svg.zip", "aa7d8ae9c8bf5f5cb6d28cee9741737c", "about 50 MB"),
    "png": ("sketches_png.zip", "023123df86a928a5273e3ba11990d8fd", "about 525 MB"),
}
TIMEOUT = 30  # seconds within which the host must answer
LARGEST_ARCHIVE = 2 * 10**9  # bytes that a download may bring, all tries together
LICENCE = "CC BY 4.0"
CITATION = (
    "Mathias Eitz, James Hays, Marc Alexa: How Do Humans Sketch Objects? ACM Trans. Graph. (Proc. SIGGRAPH) 31(4), 2012"
)
NO_ARCHIVE = "set HBN_DATA=PATH to use an archive or folder at hand"

PEN = 1.5  # width of a stroke in stored pixels (less on squares below 72, see `pen_width`)
SMALL_EDITION = 150  # larger drawings are reduced to this size first, so that they look like the small edition
INK_SHARE = 0.4  # of the usual darkness of a drawing's strokes: darker is ink
LEAST_INK = 32  # of 255; lighter is paper in any case
CURVE_POINTS = 8  # straight pieces a cubic curve is drawn with
LARGEST_SVG = 10**6  # bytes; the strokes of a sketch are 20,000
FARTHEST = 100  # sides of the viewBox from its corner to a point

NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
STEPS = {"M": 2, "L": 2, "H": 1, "V": 1, "C": 6, "Z": 0}  # path command: numbers it takes


def cache_folder() -> Path:
    """Where downloads and reduced drawings are kept: HBN_CACHE, or the system's cache folder."""
    if os.environ.get("HBN_CACHE"):
        return Path(os.path.expanduser(os.environ["HBN_CACHE"]))
    import pooch

    return Path(pooch.os_cache("hbn_ref"))


def find() -> Path:
    """Return the path of the user's copy: HBN_DATA, else an archive that `fetch` left in the cache folder.

    Raises
    ------
    DataError
        There is none.
    """
    named = os.environ.get("HBN_DATA")
    if named:
        path = Path(os.path.expanduser(named))
        if not path.exists():
            raise DataError(f"HBN_DATA names {named}, which does not exist; expected an archive or a folder")
        return path
    for name, _, _ in ARCHIVES.values():
        if os.path.isfile(cache_folder() / name):  # also in somebody else's folder, where it just is not there
            return cache_folder() / name
    raise DataError(f"no TU-Berlin archive in {cache_folder()}; run 'python -m data_tools fetch', or {NO_ARCHIVE}")


def fetch(edition: str = "svg", folder: Path | str | None = None, progress: bool = True) -> Path:
    """Download an official archive and check its MD5; a good copy that is there already is kept.

    Parameters
    ----------
    edition : {"svg", "png"}
    folder : path, optional
        Default: `cache_folder()`.
    progress : bool
        Show a bar on stderr.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    DataError
        The host does not answer, the download is damaged, the folder cannot be written.
    """
    import pooch
    import requests

    if edition not in ARCHIVES:
        raise DataError(f"edition is {edition!r}; expected one of {', '.join(ARCHIVES)}")
    name, md5, _ = ARCHIVES[edition]
    folder = Path(folder or cache_folder())
    store = pooch.create(folder, URL, registry={name: f"md5:{md5}"}, retry_if_failed=2)
    pooch.get_logger().setLevel("ERROR")
    try:
        _sweep(folder)
        # the download goes to a temporary file and is moved into place when its MD5 is right
        with _Bar(unit="B", unit_scale=True, leave=False, delay=1, disable=None if progress else True) as bar:
            return Path(store.fetch(name, downloader=pooch.HTTPDownloader(progressbar=bar, timeout=TIMEOUT)))
    except (requests.RequestException, ConnectionError, TimeoutError, ValueError) as error:
        reason = str(error).split("\n")[0][:200]
        raise DataError(f"cannot fetch {URL}{name}: {reason}; try again later, or {NO_ARCHIVE}") from error
    except OSError as error:
        raise DataError(f"cannot write {folder / name}: {error}; make room, or choose another folder") from error


def _sweep(folder):
    """Delete pooch's temporary files, left by downloads that were killed a day ago or earlier."""
    for path in folder.glob("tmp????????"):
        with contextlib.suppress(FileNotFoundError):  # another download moved its own away
            if path.is_file() and time.time() - path.stat().st_mtime > 86_400:
                path.unlink()


class _Bar(tqdm):
    """A progress bar for pooch that stops a download which does not end."""

    received = 0

    def __bool__(self):
        return True  # pooch asks: is there a bar? tqdm would answer: is there something to do?

    def update(self, n=1):
        self.received += n
        if self.received > LARGEST_ARCHIVE:
            raise ValueError(f"the host sends more than {LARGEST_ARCHIVE} bytes")
        return super().update(n)


def pen_width(stored: int) -> float:
    """Return the width of the pen in pixels on a square of `stored`: 1.5 from 72 up, less below, at least 1."""
    return min(PEN, max(1.0, PEN * stored / 72))


def draw_image(image: Image.Image, stored: int) -> np.ndarray:
    """Draw a drawing of any size, dark on white, again: with a pen of `pen_width`, on a square of `stored`.

    The width of its strokes is measured, and they are widened by what is missing. Wider strokes keep their width.

    Parameters
    ----------
    image : PIL.Image.Image
        Mode L; an oblong one is padded with white.
    stored : int

    Returns
    -------
    uint8 (stored, stored)
        0 is paper, 255 is ink.
    """
    side = max(image.size)
    if image.size != (side, side):
        image = ImageOps.pad(image, (side, side), color=255)
    base = max(SMALL_EDITION, 2 * stored)
    if side > base:  # to judge by its greys, the small edition was made with this filter
        image = image.resize((base, base), Image.Resampling.BILINEAR)
    fine = 4 if stored <= 128 else 2
    ink = 255 - np.asarray(image.resize((fine * stored,) * 2, Image.Resampling.BICUBIC))
    dark = ink[ink > LEAST_INK]
    if not dark.size:
        return np.zeros((stored, stored), np.uint8)
    strokes = ink > max(INK_SHARE * np.percentile(dark, 90), LEAST_INK)
    wide = _widen(strokes, pen_width(stored) * fine - _mean_width(strokes))
    return np.asarray(Image.fromarray(wide).reduce(fine))


def _mean_width(strokes):
    """Mean width in pixels of the lines of a boolean image: area over half the outline.

    The outline's length comes from how often rows, columns and both diagonals cross it (Cauchy-Crofton).
    """
    straight = np.count_nonzero(strokes[1:] ^ strokes[:-1]) + np.count_nonzero(strokes[:, 1:] ^ strokes[:, :-1])
    oblique = np.count_nonzero(strokes[1:, 1:] ^ strokes[:-1, :-1])
    oblique += np.count_nonzero(strokes[1:, :-1] ^ strokes[:-1, 1:])
    outline = math.pi / 8 * (straight + oblique / math.sqrt(2))
    return 2 * np.count_nonzero(strokes) / max(outline, 1)


@functools.lru_cache
def _pens(largest):
    """Digital discs from a single pixel up: a list of (mean width added, offsets not in the disc before)."""
    reach = np.arange(-largest, largest + 1)
    squared = reach[:, None] ** 2 + reach**2
    angles = np.linspace(0, math.pi, 90, endpoint=False)
    pens = []
    for radius in np.unique(squared[squared <= largest**2]):
        y, x = np.nonzero(squared <= radius)
        extent = np.cos(angles) * (x - largest)[:, None] + np.sin(angles) * (y - largest)[:, None]
        new = np.argwhere(squared == radius).tolist()
        pens.append((float(np.mean(np.ptp(extent, axis=0))), new))
    return pens


def _widen(strokes, by):
    """Dilate boolean strokes by `by` pixels in width; uint8, between two digital discs their weighted mean."""
    pens = _pens(max(1, math.ceil(by / 2) + 1))
    reach = max(1, math.ceil(by / 2) + 1)
    padded = np.pad(strokes, reach)
    height, width = strokes.shape
    wide, reached = np.zeros_like(strokes), 0.0
    before: Any = None
    for added, offsets in pens:
        if before is not None and reached >= by:
            break
        before, last = wide.copy(), reached
        for y, x in offsets:
            wide |= padded[y : y + height, x : x + width]
        reached = added
    if reached <= by or reached == 0:  # the single pixel: nothing to widen
        return wide * np.uint8(255)
    share = (by - last) / (reached - last)
    return np.where(wide & ~before, np.uint8(round(255 * share)), before * np.uint8(255))


def draw_svg(data: bytes, stored: int, name: str) -> np.ndarray:
    """Draw a drawing of the SVG edition, with a pen of `pen_width`, on a square of `stored`.

    Parameters
    ----------
    data : bytes
    stored : int
    name : str
        For the messages.

    Returns
    -------
    uint8 (stored, stored)
        0 is paper, 255 is ink.

    Raises
    ------
    DataError
        It is not SVG, or has paths with other commands than M, L, H, V, C and Z.
    """
    from .strokes import render

    return render(read_strokes(data, name), stored, width=pen_width(stored), supersample=8)


def read_strokes(data: bytes, name: str = "the SVG file") -> list[np.ndarray]:
    """Return the strokes of an SVG drawing as polylines: a list of float64 (n, 2), x, y in 0..1 of the viewBox, y down.

    Curves become `CURVE_POINTS` straight pieces each. Transforms may be nested. DataError as in `draw_svg`.
    """
    try:
        if len(data) > LARGEST_SVG:
            raise ValueError(f"it has {len(data)} bytes, more than {LARGEST_SVG}")
        with np.errstate(all="ignore"):  # overflow is refused at the end
            return _strokes(_parse(data))
    except (expat.ExpatError, ValueError, LookupError) as error:  # LookupError: Python does not know its encoding
        reason = str(error)[:200]
        raise DataError(f"cannot read {name}: {reason}; expected SVG strokes as in TU-Berlin's archive") from error


def _parse(data):
    """Return the root of an XML file. Entities are refused: a few lines of them could expand to gigabytes."""
    builder, parser = ElementTree.TreeBuilder(), expat.ParserCreate(namespace_separator="}")
    parser.StartElementHandler, parser.EndElementHandler = builder.start, builder.end
    parser.EntityDeclHandler = _refuse_entity
    parser.Parse(data, True)
    return builder.close()


def _refuse_entity(*_):
    raise ValueError("it declares entities")


def _strokes(root):
    """The polylines below an SVG element, in 0..1 of its viewBox."""
    box = root.get("viewBox", "0 0 800 800")
    values = [float(number) for number in box.replace(",", " ").split()]
    if len(values) != 4 or not 0 < max(values[2:]) < math.inf:
        raise ValueError(f"its viewBox is {box[:80]!r}")
    strokes, waiting = [], [(root, np.eye(3))]
    while waiting:
        element, matrix = waiting.pop()
        matrix = matrix @ _transform(element.get("transform", ""))
        if element.tag.split("}")[-1] == "path":
            strokes += [points @ matrix[:2, :2].T + matrix[:2, 2] for points in _polylines(element.get("d", ""))]
        waiting += [(child, matrix) for child in reversed(element)]
    if not strokes:
        raise ValueError("it holds no path")
    strokes = [(points - values[:2]) / max(values[2:]) for points in strokes]
    if not all(np.abs(points).max() <= FARTHEST for points in strokes):
        raise ValueError("a path runs far out of its viewBox")
    return strokes


def _transform(text):
    """3 x 3 matrix of an SVG transform attribute."""
    matrix = np.eye(3)
    for kind, arguments in re.findall(r"(\w+)\s*\(([^)]*)\)", text):
        v = [float(number) for number in NUMBER.findall(arguments)]
        step = np.eye(3)
        if kind == "translate" and v:
            step[:2, 2] = v[0], v[1] if len(v) > 1 else 0
        elif kind == "scale" and v:
            step[0, 0], step[1, 1] = v[0], v[-1]
        elif kind == "rotate" and len(v) == 1:
            turn = math.radians(v[0])
            step[:2, :2] = [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
        elif kind == "matrix" and len(v) == 6:
            step[:2] = np.reshape(v, (3, 2)).T
        else:
            found = f"{kind}({arguments})"[:80]
            raise ValueError(f"transform {found} is not among translate, scale, rotate(angle), matrix")
        matrix = matrix @ step
    return matrix


def _polylines(path):
    """Polylines, float64 (n, 2) each, of an SVG path of moves, lines and cubics, absolute or relative."""
    lines: list[list[tuple[float, float]]] = []
    points: list[tuple[float, float]] = []
    commands = re.findall(r"([A-DF-Za-df-z])([^A-DF-Za-df-z]*)", path)  # e belongs to numbers
    for command, arguments in commands:
        v = [float(number) for number in NUMBER.findall(arguments)]
        takes = STEPS.get(command.upper())
        if takes is None or (takes and (not v or len(v) % takes)) or (not points and command.upper() != "M"):
            raise ValueError(f"path command {command} with {len(v)} numbers is not understood")
        if command.upper() == "Z":
            points.append(points[0])
            continue
        for values in np.reshape(v, (-1, takes)).tolist():
            here = points[-1] if points else (0.0, 0.0)
            if command in "Mm":
                lines.append(points := [_step(command, values, here)])
                command = "L" if command == "M" else "l"  # further pairs are lines
            else:
                points += _draw(command, values, here)
    return [np.array(points, dtype=np.float64) for points in lines]


def _step(command, values, here):
    x, y = here if command.islower() else (0.0, 0.0)
    return x + values[0], y + values[1]


def _draw(command, values, here):
    """The points that one line or curve adds after `here`."""
    if command in "Hh":
        return [(values[0] + (here[0] if command == "h" else 0.0), here[1])]
    if command in "Vv":
        return [(here[0], values[0] + (here[1] if command == "v" else 0.0))]
    corners = [_step(command, values[k : k + 2], here) for k in range(0, len(values), 2)]
    if command in "Ll":
        return corners
    return [tuple(point) for point in (_cubic() @ np.array([here, *corners])).tolist()]


@functools.lru_cache
def _cubic():
    """Bernstein polynomials (CURVE_POINTS, 4): points on a cubic curve from its four control points."""
    t = np.linspace(0, 1, CURVE_POINTS + 1)[1:]
    return np.stack([(1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3], axis=1)
