"""Images in a zip archive or a folder, one folder a class: listed, read, reduced to 8 bit, kept in a cache.

Understood layouts, as they are or below further folders: class/image (ImageFolder; TU-Berlin's png/class/1.png and
svg/class/1.svg) and train/class/image beside val/class/image (ImageNet). Archives are read in place, never unpacked.
"""

import hashlib
import io
import json
import lzma
import os
import re
import stat
import tempfile
import warnings
import zipfile
import zlib
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from . import dataset, tuberlin
from .errors import DataError

SUFFIXES = {".png", ".jpg", ".jpeg", ".svg", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
LARGEST_FILE = 50 * 10**6  # bytes of one image; an archive can claim any number
LARGEST_IMAGE = 10**8  # pixels
PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
EXPECTED = "a zip archive or folder with class/image in it"
SAMPLES = 32  # images looked at to tell drawings from photos
WHITE, WHITE_SHARE = 230, 0.6  # a drawing: grey, and most of it at least this light
CACHE_VERSION = 1  # to be raised whenever the same files would give other bytes


def load(path, *, classes=None, size=64, seed=0, progress=True):
    """Load a zip archive or a folder of images; see `data_tools.load` for the parameters.

    Drawings (SVG, or grey and mostly white: `looks_drawn`) are drawn again with a visible pen, ink 255 on paper 0.
    Anything else is a photo: cropped to a square and reduced, grey if all `SAMPLES` looked at are grey.

    Returns
    -------
    data_tools.dataset.Dataset

    Raises
    ------
    DataError
        What cannot be found, read or understood, in one line.
    """
    with open_source(path) as source:
        layout = read_layout(source)
        names = dataset.choose_classes(sorted(layout), classes, source.name)
        positions = [split(layout[name], seed, name) for name in names]
        images, preprocessing = _reduced(source, layout, names, dataset.make_preprocessing(size), progress)
    parts = [[rows[part] for rows, part in zip(images, parts)] for parts in zip(*positions)]
    splits = [dataset.stack_split(part) for part in parts]
    return dataset.Dataset(
        source.name, names, *splits, preprocessing | {"source": source.name, "split_seed": int(seed)}
    )


# ----------------------------------------------------------------------------------------------------------
# Where the bytes come from: a zip archive or a folder, behind the same three methods.
# ----------------------------------------------------------------------------------------------------------


def open_source(path):
    """A `Zip` or a `Folder` to read from; use it in a `with` statement."""
    if not isinstance(path, (str, os.PathLike)):
        raise DataError(f"source is {path!r}; expected 'doodles', 'tuberlin' or the path of {EXPECTED}")
    path = Path(path).expanduser()
    if path.is_dir():
        return Folder(path)
    if not path.exists():
        raise DataError(f"{path} does not exist; expected 'doodles', 'tuberlin' or the path of {EXPECTED}")
    return Zip(path)


class Zip:
    """The images in a zip archive, read in place."""

    def __init__(self, path):
        self.path, self.name = path, path.name
        if not path.is_file():
            raise DataError(f"{path} is neither a file nor a folder; expected {EXPECTED}")
        with open(path, "rb") as file:
            start = file.read(4)
        try:
            self.archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
            if start[:2] == b"PK":
                raise DataError(f"{path} is damaged or cut short ({error}); get the archive again") from error
            raise DataError(f"{path} is not a zip archive; expected {EXPECTED}") from error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.archive.close()

    def images(self):
        """{name: what tells that it has changed} of the images, names checked, sizes checked."""
        found = {}
        for info in self.archive.infolist():
            parts = re.split(r"[/\\]", info.filename)
            if ".." in parts or not parts[0] or ":" in parts[0]:
                raise DataError(f"{self.path} names {info.filename!r}, outside of itself; refused: do not trust it")
            if _is_image(info.filename) and not info.is_dir():
                _check_bytes(info.file_size, info.filename, self.name)
                found[info.filename] = info.CRC
        return found

    def read(self, name):
        """The bytes of one image."""
        try:
            return self.archive.read(name)
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError) as error:
            raise DataError(f"{name} in {self.path} is damaged ({error}); get the archive again") from error
        except (RuntimeError, NotImplementedError) as error:  # a password, or a rare compression
            raise DataError(f"cannot read {name} in {self.path} ({error}); pack the archive again, plainly") from error

    def stamp(self):
        """What changes when the content does."""
        about = self.path.stat()
        return [about.st_size, about.st_mtime_ns]


class Folder:
    """The images in a folder and the folders below it."""

    def __init__(self, path):
        self.path, self.name = path, path.resolve().name or str(path)
        self.found = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def images(self):
        """{name: what tells that it has changed} of the images, sizes checked."""
        self.found = {}
        seen = {os.path.realpath(self.path)}
        for folder, inner, files in os.walk(self.path, onerror=_raise, followlinks=True):
            # a folder reached twice, by a link back up say, would put the same image into train and test
            real = {name: os.path.realpath(os.path.join(folder, name)) for name in sorted(inner)}
            inner[:] = [name for name in real if real[name] not in seen]
            seen.update(real.values())
            for file in files:
                path = Path(folder, file)
                name = path.relative_to(self.path).as_posix()
                if not _is_image(name):
                    continue
                try:
                    about = path.stat()
                except OSError as error:
                    raise DataError(f"cannot read {path} ({error.strerror}); repair or remove it") from error
                if not stat.S_ISREG(about.st_mode):
                    raise DataError(f"{path} is not a file; expected an image, remove it")
                _check_bytes(about.st_size, name, self.path)
                self.found[name] = [about.st_size, about.st_mtime_ns]
        return self.found

    def read(self, name):
        """The bytes of one image."""
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise DataError(f"cannot read {self.path / name} ({error.strerror}); repair or remove it") from error

    def stamp(self):
        """What changes when the content does."""
        return sorted(self.found.items())


def _raise(error):
    raise error


def _is_image(name):
    path = PurePosixPath(name)
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not hidden


def _check_bytes(count, name, source):
    if count > LARGEST_FILE:
        raise DataError(f"{name} in {source} has {count} bytes; expected {LARGEST_FILE} at most, remove it")


# ----------------------------------------------------------------------------------------------------------
# Which images make a class, and which of them a split.
# ----------------------------------------------------------------------------------------------------------


def read_layout(source):
    """{class: {part: names of its images}}; part is "all", or "train", "val", "test" where the source says so."""
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
    layout = {}
    for path in paths:
        part = PARTS[path[depth].lower()] if parted else "all"
        below = path[depth + 1 :] if parted else path[depth:]
        if len(below) > 1:
            layout.setdefault(below[0], {}).setdefault(part, []).append("/".join(path))
    if not layout:
        raise DataError(f"{source.path} has images, but no folder for each class; expected {EXPECTED}")
    return _with_test_part(layout, source) if parted else layout


def _with_test_part(layout, source):
    """In a source of train, val and perhaps test: without labelled test images, val are the test images."""
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
        if "test" not in parts:
            raise DataError(f"class {name!r} of {source.path} has no images in val; expected the classes of train")
    return classes


def _natural(name):
    """Sort key by which 2.png comes before 10.png, so that both editions of TU-Berlin have the same order."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def split(parts, seed, name):
    """Places of one class's images in (train, validation, test); images are counted through in the order of `parts`."""
    if "all" in parts:
        return dataset.split_class(len(parts["all"]), seed, name)
    places = np.split(np.arange(sum(map(len, parts.values()))), np.cumsum([len(part) for part in parts.values()])[:-1])
    places = dict(zip(parts, places))
    if "val" in places:
        return places["train"], places["val"], places["test"]
    train, validation = dataset.hold_out(len(places["train"]), seed, name)
    return places["train"][train], places["train"][validation], places["test"]


# ----------------------------------------------------------------------------------------------------------
# From a file's bytes to a small 8-bit image.
# ----------------------------------------------------------------------------------------------------------


def read_image(data, name):
    """A PIL image of mode L or RGB: first frame, alpha laid over white, 16 bit scaled to 8, upright.

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
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large ones are refused below
            image = Image.open(io.BytesIO(data))
        with image:
            width, height = image.size
            if not 0 < width * height <= LARGEST_IMAGE:
                raise ValueError(f"it is {width} x {height} pixels")
            image.load()
            return _eight_bit(ImageOps.exif_transpose(image))
    except Exception as error:  # damaged files raise nearly anything, from SyntaxError to struct.error
        reason = "unknown format" if isinstance(error, Image.UnidentifiedImageError) else error
        raise DataError(f"cannot read {name} ({reason}); expected an image, repair or remove it") from error


def _eight_bit(image):
    if image.mode.startswith(("I", "F")):
        level = np.asarray(image, np.float64)
        top = 65535 if image.mode.startswith("I") else max(1.0, np.nanmax(level))
        return Image.fromarray(np.rint(np.nan_to_num(level) / top * 255).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    if image.mode in ("1", "L"):
        return image.convert("L")
    colours = image.convert("RGB")
    red, green, blue = (band.tobytes() for band in colours.split())
    return colours.getchannel(0) if red == green == blue else colours


def looks_drawn(image):
    """Whether an image of mode L or RGB is a drawing: grey, and at least 60 % of it nearly white (230 or more)."""
    return image.mode == "L" and np.mean(np.asarray(image) >= WHITE) >= WHITE_SHARE


def _judge(source, members):
    """Kind and channels of a source from some of its images, evenly spread over the list."""
    if all(name.lower().endswith(".svg") for name in members):
        return "sketch", 1
    painted = [name for name in members if not name.lower().endswith(".svg")]
    chosen = [painted[k] for k in np.unique(np.linspace(0, len(painted) - 1, SAMPLES).astype(int))]
    looked_at = [read_image(source.read(name), f"{name} in {source.path}") for name in chosen]
    if np.mean([looks_drawn(image) for image in looked_at]) > 0.5:
        return "sketch", 1
    return "photo", 3 if any(image.mode == "RGB" for image in looked_at) else 1


def reduce(data, name, preprocessing, where=None):
    """A file's bytes as the image to store, uint8 (stored, stored, channels); `where` is its name in messages."""
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
    """(a list of each class's images in the order of its parts, preprocessing), from the cache if it is there."""
    for kept in dict.fromkeys([tuple(sorted(layout)), names]):  # the cache of all classes serves for some as well
        found = _read_cache(_cache_path(source, kept, preprocessing))
        counts = [sum(map(len, layout[name].values())) for name in kept]
        if found is not None and len(found[0]) == sum(counts):
            rows = dict(zip(kept, np.split(found[0], np.cumsum(counts)[:-1])))
            return [rows[name] for name in names], found[1]
    kind, channels = _judge(source, [m for name in sorted(layout) for part in layout[name].values() for m in part])
    wanted = dataset.make_preprocessing(preprocessing["size"], kind, channels)
    members = [[member for part in layout[name].values() for member in part] for name in names]
    images = np.empty((sum(map(len, members)), wanted["stored"], wanted["stored"], channels), np.uint8)
    every = tqdm(
        [member for part in members for member in part],
        desc=f"reducing {source.name}",
        unit="image",
        delay=1,  # no bar for what is soon done
        disable=not progress,
    )
    for row, member in zip(images, every):
        row[:] = reduce(source.read(member), member, wanted, f"{member} in {source.path}")
    _write_cache(_cache_path(source, names, preprocessing), images, wanted)
    return np.split(images, np.cumsum([len(part) for part in members])[:-1]), wanted


def _cache_path(source, names, preprocessing):
    about = [CACHE_VERSION, str(source.path.resolve()), source.stamp(), list(names), preprocessing["size"]]
    key = hashlib.sha256(json.dumps(about).encode("utf-8", "surrogateescape")).hexdigest()[:20]
    return tuberlin.cache_folder() / f"images-{key}.npy"


def _read_cache(path):
    """(images, preprocessing), or None where there is no cache or it is damaged."""
    try:
        about = json.loads(path.with_suffix(".json").read_text("utf-8"))
        images = np.load(path, mmap_mode="r", allow_pickle=False)
        good = images.dtype == np.uint8 and images.ndim == 4 and zlib.crc32(images) == about["crc32"]
        return (images, about["preprocessing"]) if good else None
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None


def _write_cache(path, images, preprocessing):
    """Each file appears under its name when it is whole; without a place to write, go on without a cache."""
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
