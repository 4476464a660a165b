"""How series look: told apart by colour, marker, dash and hatch. And what a picture says to those who cannot see it."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..plots import COLOURS, MARKERS

KINDS: dict[str, tuple[str, str | None]] = {  # how a convolution computes: whose colour it has, and its hatch
    "real": ("fprec", None),
    "binary weights": ("wbin", "//"),
    "fully binary": ("fbin", "xx"),
}
DASHES = ("-", "--", ":", "-.")
HATCHES = ("", "//", "..", "xx", "\\\\", "oo", "++")


def style_of_series(i: int) -> dict[str, Any]:
    """Colour and marker of series i; the first seven series of a picture all have different markers."""
    return {"color": list(COLOURS.values())[i % 4], "marker": (*MARKERS.values(), "^", "v", "P")[i % 7]}


def described(figure: Figure, text: str) -> Figure:
    """Give a figure its alternative text, as its label: `course.show` takes it from there."""
    figure.set_label(text)
    return figure


def bare(axis: Axes) -> None:
    """Take ticks and frame away."""
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
