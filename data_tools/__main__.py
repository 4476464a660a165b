"""Command line of the data tools: fetch TU-Berlin, describe a data set, look at it."""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

NEEDS = "data_tools: needs {}; install hbn-ref[study] or requirements.txt"
try:
    from PIL import Image, ImageDraw

    from . import MADE, DataError, Dataset, load, tuberlin
    from .room import ask
except ModuleNotFoundError as error:  # the package alone: without Pillow no command works
    if __name__ != "__main__":
        raise
    print(NEEDS.format(error.name), file=sys.stderr)
    sys.exit(2)

COLUMNS = 6  # drawings in a row of a preview, and as many augmented ones
LABEL_WIDTH, GAP = 110, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0, or 2 after one line on stderr."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except MemoryError as error:
        print(f"data_tools: out of memory ({error}); choose a smaller size", file=sys.stderr)
        return 2
    except (DataError, OSError) as error:
        print(f"data_tools: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(NEEDS.format(error.name), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("data_tools: stopped", file=sys.stderr)
        return 130
    return 0


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, and leaves the usage to --help."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {message}; see --help\n")


def _parser():
    parser = _Parser(prog="python -m data_tools", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    fetch = commands.add_parser("fetch", help="download TU-Berlin's sketches (CC BY 4.0)")
    sizes = ", ".join(f"{edition} is {size}" for edition, (_, _, size) in tuberlin.ARCHIVES.items())
    fetch.add_argument("--format", choices=list(tuberlin.ARCHIVES), default="svg", help=f"{sizes}")
    fetch.add_argument("--data-dir", metavar="DIR", help="folder for the archive; default: the cache folder")
    fetch.set_defaults(run=run_fetch)

    source = _Parser(add_help=False)
    source.add_argument(
        "source", nargs="?", default="doodles", metavar="SOURCE", help="doodles, tuberlin, or a zip or folder"
    )
    source.add_argument(
        "--classes",
        type=_classes,
        metavar="N|NAMES",
        help="the first N classes, or names with commas between",
    )
    source.add_argument("--size", type=int, default=64, help="side of the network's input (64)")
    source.add_argument("--seed", type=int, default=0, help="of the split (0)")

    info = commands.add_parser("info", parents=[source], help="classes, counts, sizes, ink, licence")
    info.set_defaults(run=run_info)

    preview = commands.add_parser("preview", parents=[source], help="draw a contact sheet, one row per class")
    preview.add_argument("--out", required=True, metavar="FILE.png")
    preview.add_argument("--augmented", action="store_true", help="beside each row, as training sees them")
    preview.set_defaults(run=run_preview)
    return parser


def _classes(text):
    return int(text) if text.lstrip("-").isdigit() else [name.strip() for name in text.split(",")]


def _load(options):
    return load(options.source, classes=options.classes, size=options.size, seed=options.seed)


def run_fetch(options: argparse.Namespace) -> None:
    """Download an archive and say where it is and how to use it."""
    path = tuberlin.fetch(options.format, options.data_dir)
    print(f"{path}\nlicence: {tuberlin.LICENCE}; cite: {tuberlin.CITATION}")
    if options.data_dir:
        print(f"to use it: HBN_DATA={path.resolve()} python -m data_tools info tuberlin")
    else:
        print("to use it: python -m data_tools info tuberlin")


def run_info(options: argparse.Namespace) -> None:
    """Print what a data set holds."""
    data = _load(options)
    about = data.preprocessing
    stored, kind = about["stored"], about["kind"]
    print(f"{data.name}: {len(data.classes)} classes, kind {kind}, seed {options.seed}")
    print("classes: " + ", ".join(data.classes))
    for name in ("train", "validation", "test"):
        images, labels = getattr(data, name)
        counts = np.bincount(labels, minlength=len(data.classes))
        each = f"{counts.min()}" if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}"
        print(f"{name:<11}{len(images):>7} images, {each} per class, mean {_word(kind)} {images.mean() / 255:.4f}")
    total = sum(getattr(data, name)[0].nbytes for name in ("train", "validation", "test"))
    print(
        f"stored {stored} x {stored} x {about['channels']}, {total / 1e6:.1f} MB;"
        f" a network sees {about['size']} x {about['size']}"
    )
    if data.name in MADE:
        print("licence: drawn by this program; CC BY 4.0")
    elif kind == "sketch":
        print(f"licence: if these are TU-Berlin's sketches, {tuberlin.LICENCE}; cite: {tuberlin.CITATION}")
    else:
        print("licence: whatever the owner of these images grants")


def _word(kind):
    return "ink" if kind == "sketch" else "brightness"


def run_preview(options: argparse.Namespace) -> None:
    """Write a contact sheet, whole or not at all."""
    path = Path(options.out)
    if path.suffix.lower() != ".png":
        raise DataError(f"--out is {options.out}; expected a file name that ends in .png")
    if not path.parent.is_dir():
        raise DataError(f"no folder {path.parent} for {path.name}; make it first, or choose another --out")
    sheet = contact_sheet(_load(options), augmented=options.augmented, seed=options.seed)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")  # the sheet is there whole or not at all
    try:
        sheet.save(temporary, "png")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    print(f"{path}: {sheet.width} x {sheet.height} pixels")


def contact_sheet(data: Dataset, augmented: bool = False, seed: int = 0) -> Image.Image:
    """Return a Pillow image with one row of training images per class and, if wanted, augmented ones beside them."""
    about = data.preprocessing
    images, labels = data.train
    cell = about["stored"] + GAP
    columns = COLUMNS * (2 if augmented else 1)
    width, height = LABEL_WIDTH + columns * cell, len(data.classes) * cell
    ask(f"a sheet of {width} x {height} pixels", 4 * width * height, "choose a smaller size or fewer classes")
    sheet = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(sheet)
    rng = np.random.default_rng(seed)
    for row, name in enumerate(data.classes):
        pen.text((4, row * cell + cell // 2 - 6), name[:17], fill="black")
        some = images[labels == row][:COLUMNS]
        shown = list(some)
        if augmented:
            shown += [None] * (COLUMNS - len(some)) + list(_visible(data.training_batch(some, rng), about))
        for column, image in enumerate(shown):
            if image is None:
                continue
            picture = 255 - image if about["kind"] == "sketch" else image
            place = (LABEL_WIDTH + column * cell, row * cell)
            sheet.paste(Image.fromarray(picture.squeeze()), place)
    return sheet


def _visible(batch, about):
    """8-bit images of a normalised batch."""
    return np.rint((batch * np.float32(about["std"]) + np.float32(about["mean"])) * 255).clip(0, 255).astype(np.uint8)


if __name__ == "__main__":
    if isinstance(sys.stdout, io.TextIOWrapper):  # some consoles have something else
        sys.stdout.reconfigure(errors="backslashreplace")  # a class may have a name that the terminal cannot write
    sys.exit(main())
