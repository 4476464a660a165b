"""Images in a zip archive or a folder, one folder per class: listed, read, reduced to 8 bits, kept in a cache.

These layouts are understood, also below further folders: class/image (ImageFolder; TU-Berlin's png/class/1.png and
svg/class/1.svg) and train/class/image beside val/class/image (ImageNet). Archives are read in place, never unpacked.
"""

import hashlib
import io
import json
import logging
import os
import re
import stat
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from . import dataset, room, tuberlin
from .errors import DataError, readable

logging.getLogger("PIL").addHandler(logging.NullHandler())  # otherwise it writes to stderr about damaged files
SUFFIXES = {".png", ".jpg", ".jpeg", ".svg", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
BOUNDED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # zipfile expands other methods without a limit
LARGEST_FILE = 50 * 10**6  # bytes of one image; an archive can claim any number
LARGEST_SIDE = 10**4  # pixels of an image's longer side; drawings are padded to a square
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")  # some of Pillow's; it would even run a PostScript file
PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
EXPECTED = "a zip archive or folder with class/image in it"
SAMPLES = 32  # so many images tell drawings from photos
WHITE, WHITE_SHARE = 230, 0.6  # a drawing: grey, and most of it at least this light
CACHE_VERSION = 1  # raise it when the same files would give other bytes


def load(
    path: Path | str, *, classes: int | Sequence[str] | None = None, size: int = 64, seed: int = 0,
    progress: bool = True,
) -> dataset.Dataset:  # fmt: skip
    """Load a zip archive or a folder of images; see `data_tools.load` for the parameters.

    Drawings are SVG, or grey and mostly white (`looks_drawn`): they are drawn again with a visible pen, ink 255 on
    paper 0. Anything else is a photo: it is cropped to a square and reduced, to grey if all `SAMPLES` are grey.

    Returns
    -------
    data_tools.dataset.Dataset

    Raises
    ------
    DataError
        Something cannot be found, read or understood; one line says what.
    """
    with open_source(path) as source:
        layout = read_layout(source)
        names = dataset.choose_classes(sorted(layout), classes, source.name)
        try:
            positions = [split(layout[name], seed, name) for name in names]
        except DataError as error:
            raise DataError(f"{source.path}: {error}") from None
        images, preprocessing = _reduced(source, layout, names, dataset.make_preprocessing(size), progress)
    parts = [[rows[part] for rows, part in zip(images, parts)] for parts in zip(*positions)]
    train, validation, test = (dataset.stack_split(part) for part in parts)
    about = preprocessing | {"source": source.name, "split_seed": int(seed)}
    return dataset.Dataset(source.name, names, train, validation, test, about)


# ----------------------------------------------------------------------------------------------------------
# Where the bytes come from: a zip archive or a folder, which have the same three methods.
# ----------------------------------------------------------------------------------------------------------


def open_source(path: Path | str) -> "Zip | Folder":
    """A `Zip` or a `Folder` to read from; use it in a `with` statement."""
    if not isinstance(path, (str, os.PathLike)):
        raise DataError(f"source is {path!r}; expected 'doodles', 'tuberlin' or the path of {EXPECTED}")
    path = Path(os.path.expanduser(path))
    if os.path.isdir(path):
        return Folder(path)
    if not os.path.exists(path):
        raise DataError(f"{path} does not exist; expected 'doodles', 'tuberlin' or the path of {EXPECTED}")
    return Zip(path)


class Zip:
    """The images in a zip archive, read in place."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, readable(path.name)
        self.members: dict[str, zipfile.ZipInfo] = {}
        self.folders: set[tuple[str, ...]] = set()
        if not path.is_file():
            raise DataError(f"{path} is neither a file nor a folder; expected {EXPECTED}")
        start = _first_bytes(path, 2)
        try:
            self.archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, OSError) as error:
            if start == b"PK":
                raise DataError(f"{path} is damaged or cut short ({error}); get the archive again") from error
            raise DataError(f"{path} is not a zip archive; expected {EXPECTED}") from error

    def __enter__(self) -> "Zip":
        return self

    def __exit__(self, *_: Any) -> None:
        self.archive.close()

    def images(self) -> dict[str, Any]:
        """{name: what tells that it has changed} of the images; names and sizes are checked."""
        for info in self.archive.infolist():
            name = info.filename.replace("\\", "/")  # as old packers on Windows wrote them
            parts = name.split("/")
            if ".." in parts or not parts[0] or ":" in parts[0]:
                raise DataError(f"{self.path} names {info.filename!r}, outside of itself; refused: do not trust it")
            self.folders.add(tuple(parts[:-1]))
            if _is_image(name):
                _check_bytes(info.file_size, name, self.path)
                self.members[name] = info
        return {name: info.CRC for name, info in self.members.items()}

    def read(self, name: str) -> bytes:
        """The bytes of one image."""
        info = self.members[name]
        try:
            if info.compress_type not in BOUNDED:
                raise NotImplementedError("expected it stored or deflated")
            with self.archive.open(info) as member:
                data = member.read(info.file_size)  # with a number: otherwise a bomb would expand
            if len(data) != info.file_size:
                raise zipfile.BadZipFile(f"it has {len(data)} bytes and claims {info.file_size}")
            return data
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
            raise DataError(f"{name} in {self.path} is damaged ({error}); get the archive again") from error
        except (RuntimeError, NotImplementedError) as error:  # a password, or a rare compression
            raise DataError(f"cannot read {name} in {self.path} ({error}); pack the archive again, plainly") from error

    def stamp(self) -> list[Any]:
        """What changes when the content does."""
        about = self.path.stat()
        return [about.st_size, about.st_mtime_ns]


class Folder:
    """The images in a folder and the folders below it."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, readable(path.resolve().name or str(path))
        self.found: dict[str, Any] = {}
        self.folders: set[tuple[str, ...]] = set()

    def __enter__(self) -> "Folder":
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def images(self) -> dict[str, Any]:
        """{name: what tells that it has changed} of the images; sizes are checked."""
        seen = {os.path.realpath(self.path)}
        for folder, inner, files in os.walk(self.path, onerror=_raise, followlinks=True):
            # a folder that is reached twice, by a link upwards, would put the same image into train and test
            real = {name: os.path.realpath(os.path.join(folder, name)) for name in sorted(inner)}
            inner[:] = [name for name in real if real[name] not in seen]
            seen.update(real.values())
            self.folders.add(Path(folder).relative_to(self.path).parts)
            for file in files:
                path = Path(folder, file)
                name = path.relative_to(self.path).as_posix()
                if not _is_image(name):
                    continue
                try:
                    about = path.stat()
                except OSError as error:
                    _raise(error, path)
                if not stat.S_ISREG(about.st_mode):
                    raise DataError(f"{path} is not a file; expected an image, remove it")
                _check_bytes(about.st_size, name, self.path)
                self.found[name] = [about.st_size, about.st_mtime_ns]
        return self.found

    def read(self, name: str) -> bytes:
        """The bytes of one image."""
        return read_file(self.path / name)

    def stamp(self) -> list[Any]:
        """What changes when the content does."""
        return sorted(self.found.items())


def _raise(error, path=None):
    if isinstance(error, FileNotFoundError):
        raise DataError(f"{path or error.filename}: no such file") from error
    raise DataError(f"cannot read {path or error.filename} ({error.strerror}); repair or remove it") from error


def read_file(path: Path) -> bytes:
    """Return the bytes of one image; a DataError if it cannot be read, or has more than `LARGEST_FILE` bytes."""
    data = _first_bytes(path, LARGEST_FILE + 1)
    _check_bytes(len(data), path.name, path.parent)
    return data


def _first_bytes(path, count):
    try:
        with open(path, "rb") as file:
            return file.read(count)
    except OSError as error:
        _raise(error, path)


def _is_image(name):
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES and not _is_hidden(path.parts) and not name.endswith("/")


def _is_hidden(parts):
    return any(part.startswith((".", "__MACOSX")) for part in parts if part != ".")


def _check_bytes(count, name, source):
    if count > LARGEST_FILE:
        raise DataError(f"{name} in {source} has {count} bytes; expected {LARGEST_FILE} at most, remove it")


# ----------------------------------------------------------------------------------------------------------
# Which images make a class, and which of them a split.
# ----------------------------------------------------------------------------------------------------------


def read_layout(source: Zip | Folder) -> dict[str, dict[str, list[str]]]:
    """Return {class: {part: names of its images}}; a part is "all", or "train", "val", "test" if the source says so."""
    paths = [tuple(name.split("/")) for name in sorted(source.images(), key=_natural)]
    if not paths:
        raise DataError(f"no images in {source.path}; expected {EXPECTED}, such as apple/1.png")
    depth = 0
    while True:
        paths = [path for path in paths if len(path) > depth + 1]  # loose images belong to no class
        tops = {path[depth] for path in paths}
        if tops == {"png", "svg"}:  # both editions unpacked into one folder: the same drawings twice
            paths = [path for path in paths if path[depth] == "png"]
        elif len(tops) != 1 or not any(len(path) > depth + 2 for path in paths):
            break
        else:
            depth += 1
    lower = {top.lower() for top in tops}
    parted = "train" in lower and len(lower) > 1 and lower <= set(PARTS)
    layout: dict[str, dict[str, list[str]]] = {}
    for path in paths:
        part = PARTS[path[depth].lower()] if parted else "all"
        below = path[depth + 1 :] if parted else path[depth:]
        if len(below) > 1:
            layout.setdefault(readable(below[0]), {}).setdefault(part, []).append("/".join(path))
    if not layout:
        raise DataError(f"{source.path} has images, but no folder for each class; expected {EXPECTED}")
    _add_empty_classes(layout, source.folders, paths[0][:depth], parted)
    return _with_test_part(layout, source) if parted else layout


def _add_empty_classes(layout, folders, above, parted):
    """Add class folders without an image to the layout: an error names them, instead of passing them over."""
    for folder in folders:
        below = folder[len(above) :]
        part: str | None = "all"
        if parted and below:
            below, part = below[1:], PARTS.get(below[0].lower())
        if below and part in ("all", "train") and folder[: len(above)] == above and not _is_hidden(folder):
            layout.setdefault(readable(below[0]), {}).setdefault(part, [])


def _with_test_part(layout, source):
    """In a source with train, val and perhaps test: if no test image has a label, val are the test images."""
    classes = {name: parts for name, parts in layout.items() if "train" in parts}
    if not all("test" in parts for parts in classes.values()):
        for parts in classes.values():
            parts.pop("test", None)
            if "val" in parts:
                parts["test"] = parts.pop("val")
    elif not all("val" in parts for parts in classes.values()):
        for parts in classes.values():
            parts.pop("val", None)
    for name, parts in classes.items():
        for part, where in (("train", "train"), ("test", "val")):
            if not parts.get(part):
                raise DataError(f"class {name!r} of {source.path} has no images in {where}; expected some in both")
    return classes


def _natural(name):
    """A sort key that puts 2.png before 10.png: so both editions of TU-Berlin have the same order."""
    parts = re.split(r"0*(\d+)", name)  # a longer number is larger; int() refuses 5000 digits
    return [(len(part), part) if part.isdecimal() else (-1, part) for part in parts]


def split(parts: dict[str, list[str]], seed: int, name: str) -> tuple[np.ndarray, ...]:
    """Places of one class's images in (train, validation, test); they are counted in the order of `parts`."""
    if "all" in parts:
        return dataset.split_class(len(parts["all"]), seed, name)
    counts = [len(part) for part in parts.values()]
    places = dict(zip(parts, np.split(np.arange(sum(counts)), np.cumsum(counts)[:-1])))
    if "val" in places:
        return places["train"], places["val"], places["test"]
    train, validation = dataset.hold_out(len(places["train"]), seed, name)
    return places["train"][train], places["train"][validation], places["test"]


# ----------------------------------------------------------------------------------------------------------
# From a file's bytes to a small 8-bit image.
# ----------------------------------------------------------------------------------------------------------


def read_image(data: bytes, name: str) -> Image.Image:
    """Return a PIL image of mode L or RGB: its first frame, upright, on white if it has alpha, 16 bits scaled to 8.

    Parameters
    ----------
    data : bytes
        A file that Pillow can read.
    name : str
        For the messages.

    Raises
    ------
    DataError
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an image is read or refused, without more words
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                if not 0 < min(image.size) <= max(image.size) <= LARGEST_SIDE:
                    raise ValueError(f"it is {image.width} x {image.height} pixels; the limit is {LARGEST_SIDE} a side")
                room.ask(
                    f"it is {image.width} x {image.height} pixels, which",
                    2 * image.width * image.height * len(image.getbands()),
                    "reduce it first",
                )
                image.load()
                ImageOps.exif_transpose(image, in_place=True)
                return _eight_bit(image)
    except Exception as error:  # damaged files raise nearly anything, from SyntaxError to struct.error
        reason = "unknown format" if isinstance(error, Image.UnidentifiedImageError) else error
        raise DataError(f"cannot read {name} ({reason}); expected an image, repair or remove it") from error


def _eight_bit(image):
    if image.mode.startswith(("I", "F")):
        level = np.nan_to_num(np.array(image, np.float32), copy=False, posinf=0)
        top = 65535 if image.mode.startswith("I") else max(1, float(level.max()))
        np.clip(level, 0, top, out=level)
        level *= 255 / top
        return Image.fromarray(np.rint(level, out=level).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    if image.mode in ("1", "L"):
        return image.convert("L")
    colours = image if image.mode == "RGB" else image.convert("RGB")
    red, green, blue = (band.tobytes() for band in colours.split())
    return colours.getchannel(0) if red == green == blue else colours


def looks_drawn(image: Image.Image) -> bool:
    """Whether an image of mode L or RGB is a drawing: grey, and at least 60 % of it nearly white (230 or more)."""
    return image.mode == "L" and bool(np.mean(np.asarray(image) >= WHITE) >= WHITE_SHARE)


def _judge(source, members):
    """Tell kind and channels of a source from some of its images, spread evenly over the list."""
    if all(name.lower().endswith(".svg") for name in members):
        return "sketch", 1
    painted = [name for name in members if not name.lower().endswith(".svg")]
    chosen = [painted[k] for k in np.unique(np.linspace(0, len(painted) - 1, SAMPLES).astype(int))]
    looked_at = [read_image(source.read(name), f"{name} in {source.path}") for name in chosen]
    if np.mean([looks_drawn(image) for image in looked_at]) > 0.5:
        return "sketch", 1
    return "photo", 3 if any(image.mode == "RGB" for image in looked_at) else 1


def reduce(data: bytes, name: str, preprocessing: dict[str, Any], where: str | None = None) -> np.ndarray:
    """Turn a file's bytes into the image to store, uint8 (stored, stored, channels); messages call it `where`."""
    stored, channels, where = preprocessing["stored"], preprocessing["channels"], where or name
    if name.lower().endswith(".svg"):
        if preprocessing["kind"] != "sketch":
            raise DataError(f"{where} is a drawing among photos; expected one kind, put it into another folder")
        return tuberlin.draw_svg(data, stored, where)[:, :, None]
    image = read_image(data, where)
    if preprocessing["kind"] == "sketch":
        return tuberlin.draw_image(image.convert("L"), stored)[:, :, None]
    image = image.convert("RGB" if channels == 3 else "L")
    area = Image.Resampling.BOX if min(image.size) >= stored else Image.Resampling.BILINEAR
    return np.asarray(ImageOps.fit(image, (stored, stored), area)).reshape(stored, stored, channels)


# ----------------------------------------------------------------------------------------------------------
# Reduced images are kept: drawing 20,000 takes minutes.
# ----------------------------------------------------------------------------------------------------------


def _reduced(source, layout, names, preprocessing, progress):
    """(list of each class's images in the order of its parts, preprocessing), from the cache if they are there."""
    for kept in dict.fromkeys([tuple(sorted(layout)), names]):  # the cache of all classes serves for some of them, too
        found = _read_cache(_cache_path(source, kept, preprocessing), preprocessing["size"])
        counts = [sum(map(len, layout[name].values())) for name in kept]
        if found is not None and len(found[0]) == sum(counts):
            rows = dict(zip(kept, np.split(found[0], np.cumsum(counts)[:-1])))
            return [rows[name] for name in names], found[1]
    kind, channels = _judge(source, [m for name in sorted(layout) for part in layout[name].values() for m in part])
    wanted = dataset.make_preprocessing(preprocessing["size"], kind, channels)
    members = [[member for part in layout[name].values() for member in part] for name in names]
    room.ask_for_images(sum(map(len, members)), wanted)
    images = np.empty((sum(map(len, members)), wanted["stored"], wanted["stored"], channels), np.uint8)
    every = tqdm(
        [member for part in members for member in part],
        desc=f"reducing {source.name}",
        unit="image",
        delay=1,  # no bar if it is soon done
        disable=None if progress else True,  # None: only if stderr is a terminal
    )
    for row, member in zip(images, every):
        row[:] = reduce(source.read(member), member, wanted, f"{member} in {source.path}")
    _write_cache(_cache_path(source, names, preprocessing), images, wanted)
    return np.split(images, np.cumsum([len(part) for part in members])[:-1]), wanted


def _cache_path(source, names, preprocessing):
    about = [CACHE_VERSION, str(source.path.resolve()), source.stamp(), list(names), preprocessing["size"]]
    key = hashlib.sha256(json.dumps(about).encode("utf-8", "surrogateescape")).hexdigest()[:20]
    return tuberlin.cache_folder() / f"images-{key}.npy"


def _read_cache(path, size):
    """(images, preprocessing), or None if there is no cache or it is damaged."""
    try:
        kept = json.loads(path.with_suffix(".json").read_text("utf-8"))
        about = kept["preprocessing"]
        images = np.load(path, mmap_mode="r", allow_pickle=False)
        good = (
            about == dataset.make_preprocessing(size, about["kind"], about["channels"])
            and images.dtype == np.uint8
            and images.shape[1:] == (about["stored"], about["stored"], about["channels"])
            and zlib.crc32(images) == kept["crc32"]
        )
        return (images, about) if good else None
    except Exception:  # a damaged header raises nearly anything, from KeyError to tokenize.TokenError
        return None


def _write_cache(path, images, preprocessing):
    """Write each file so that it appears when it is whole. If nothing can be written, go on without a cache."""
    about = {"preprocessing": preprocessing, "crc32": zlib.crc32(images)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            np.save(Path(folder, "images.npy"), images)
            Path(folder, "images.json").write_text(json.dumps(about), "utf-8")
            os.replace(Path(folder, "images.npy"), path)
            os.replace(Path(folder, "images.json"), path.with_suffix(".json"))
    except OSError:
        pass
