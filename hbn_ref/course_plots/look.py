"""How series look: told apart by colour, marker, dash and hatch."""

from typing import Any

from ..plots import COLOURS, MARKERS

DASHES = ("-", "--", ":", "-.")
HATCHES = ("", "//", "..", "xx", "\\\\", "oo", "++")


def style_of_series(i: int) -> dict[str, Any]:
    """Colour and marker of series i: no two series of a picture have the same marker before the eighth."""
    return {"color": list(COLOURS.values())[i % 4], "marker": (*MARKERS.values(), "^", "v", "P")[i % 7]}
