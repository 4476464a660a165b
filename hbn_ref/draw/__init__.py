"""Top floor, the draw page: draw in a browser, and see what several packed networks make of it, and with which bits.

A server of the standard library on this machine's loopback, for one page, put together from the folder `page`:

    GET /            the page
    GET /about       what the networks are, and the limits of a drawing
    GET /tutorials/NAME    a notebook, if this package runs from its repository
    POST /predict    {"strokes": [[[x, y], ...], ...], "width": 1.0, "look": 0}: for each network the likeliest classes
                     and the time, and what enters the layers of network number `look`

Any page in a browser may send requests to this machine, and any program on it may send anything at all. So the server
answers only requests with its own Host and Origin. To anything else that it does not expect it answers 4xx, with a line
that says why.

`answers` checks a drawing and answers it, `server` speaks with browsers.
"""

from .answers import MAX_POINTS, MAX_STROKES, PEN, RANGE, WIDTHS, Prepare, Refused, feature_maps, parse_drawing, predict
from .server import MAX_BODY, NOTEBOOKS, PAGE, assemble, make_server, serve

__all__ = [
    "MAX_BODY",
    "MAX_POINTS",
    "MAX_STROKES",
    "NOTEBOOKS",
    "PAGE",
    "PEN",
    "RANGE",
    "WIDTHS",
    "Prepare",
    "Refused",
    "assemble",
    "feature_maps",
    "make_server",
    "parse_drawing",
    "predict",
    "serve",
]
