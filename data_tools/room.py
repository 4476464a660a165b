"""Memory for images: asked for before it is taken. `hbn_ref.memory` knows how much there is."""

from typing import Any

from .errors import DataError

LITTLE = 2**26  # bytes: for less nobody asks, and hbn_ref is not imported


def ask(what: str, count: int, advice: str) -> None:
    """Raise a DataError unless ``count`` bytes can be had."""
    if count <= LITTLE:
        return
    from hbn_ref import memory

    if text := memory.short(count):
        raise DataError(f"{what} would take {text}; {advice}")


def ask_for_images(count: int, preprocessing: dict[str, Any]) -> None:
    """Raise a DataError unless ``count`` images can be drawn, stored, and put into splits."""
    stored, channels = preprocessing["stored"], preprocessing["channels"]
    needed = count * stored**2 * channels * 3 // 2 + 16 * stored**2  # put into splits; drawn at four times the side
    what = f"size is {preprocessing['size']}: {count} images of {stored} x {stored} pixels"
    ask(what, needed, "choose a smaller size, or fewer classes or images")


def ask_for_batch(count: int, preprocessing: dict[str, Any], each: int) -> None:
    """Raise a DataError unless a batch can be prepared that takes ``each`` bytes per value."""
    size, channels = preprocessing["size"], preprocessing["channels"]
    what = f"a batch of {count} images of {size} x {size} pixels"
    ask(what, each * count * size**2 * channels, "choose a smaller batch")
