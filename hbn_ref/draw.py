"""Top floor, the draw page: draw in a browser, and see what several packed networks make of it, and with which bits.

A server of the standard library on this machine's loopback, for one page, put together from the folder `page`:

    GET /            the page
    GET /about       what the networks are, and the limits below
    GET /tutorials/NAME    a notebook, where this package runs from its repository
    POST /predict    {"strokes": [[[x, y], ...], ...], "width": 1.0, "look": 0}: for each network the likeliest classes
                     and the time, and what enters the layers of network number `look`

Any page in a browser may send requests to this machine, and any program on it may send anything at all. So a request
counts only with this server's own Host and Origin, and what is not as expected gets a 4xx with a line that says why.
"""

import base64
import hashlib
import http
import io
import ipaddress
import json
import logging
import os
import re
import socket
import socketserver
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from . import deploy, gallery, hybrid

TOP = 3  # classes in an answer
MAX_MAPS = 32  # feature maps shown of each layer
MAX_POINTS_OF_MAPS = 256  # where a map is one value, as many of them
DARKEST = 2.0  # a real value of this much or more is black, minus as much white, 0 a grey
MAX_BODY = 256 * 1024  # bytes
MAX_STROKES, MAX_POINTS = 500, 20_000
MAX_DEPTH = 8  # of brackets within brackets; a drawing needs 4
RANGE = (-1.0, 2.0)  # of x and y: the paper is 0..1, and a stroke may leave it
WIDTHS = (0.25, 4.0)  # of the pen, as a multiple of the one in training
PEN = 1.5 / 72  # that one, as a share of the square: 1.5 pixels of the 72 that a drawing is stored at
TIMEOUT = 10.0  # seconds for a whole request to arrive, then again for the answer to leave
MAX_CONNECTIONS = 64  # at the same time; a page needs two
PATIENCE = 0.5  # seconds that one more waits for its turn before it is told to come again
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
POLICY = (
    "default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE = resources.files(__package__).joinpath("page")  # also in a zip
PARTS = {"script": r'<script src="([a-z]+\.js)">', "style": r'<link rel="stylesheet" href="([a-z]+\.css)">'}
NOTEBOOKS = Path(__file__).resolve().parents[1] / "tutorials"
Prepare = Callable[[list[np.ndarray], dict[str, Any], float], np.ndarray]  # (strokes, preprocessing, width) -> input
log = logging.getLogger(__name__)


class Refused(Exception):
    """A request that is not answered: the status, and one line that says what was expected."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


# ------------------------------------------------------------------------------------------ a drawing


def _object(pairs):
    """What json calls for each {...}: a name given twice would silently win or lose."""
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a name stands twice in an object")
    return dict(pairs)


def _constant(name):
    raise ValueError(f"{name} is not JSON")


def _json(body):
    """The content of a JSON text, every number a float; deep nesting is refused before it can hurt the parser."""
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
    if not ((stroke >= RANGE[0]) & (stroke <= RANGE[1])).all():  # an infinite number fails, too
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
        Of a layer with real inputs, see `gallery.usual_inputs`: what a BatchNorm would do to them before a sign.

    Returns
    -------
    dict
        name, height, width, channels; inputs, "real" or "binary"; ones, the share of signs that are +1; maps, the signs
        of each map row by row, 8 to a byte; levels, its values in a byte each (`DARKEST` is 255), and error, the
        binarization error E of all values; both None where there are no values.
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
    """Return the answer to a drawing, ready for JSON; Refused where a network would see bare paper."""
    if look >= len(networks):
        raise Refused(400, f"look: expected the number of a network, 0 to {len(networks) - 1}")
    inputs: dict[str, np.ndarray] = {}  # networks prepared for alike share one
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
    """What a network sees, and what enters the layers that might be binary, or are."""
    x = inputs[json.dumps(shown.packed.preprocessing, sort_keys=True)]
    may = {row["name"] for row in shown.layers if row["binarizable"]}
    _, seen = shown.packed.look(x)
    layers = [feature_maps(name, values, bits, shown.usual.get(name)) for name, values, bits in seen if name in may]
    return {"input": _picture(x), "layers": layers}


# ------------------------------------------------------------------------------------------- the server


class _Arriving(io.RawIOBase):
    """What comes from a socket until a moment: who sends a byte now and then gets no longer for it."""

    def __init__(self, connection):
        self.connection, self.until = connection, time.monotonic() + TIMEOUT

    def readable(self):
        return True

    def readinto(self, buffer):
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the request took too long")
        self.connection.settimeout(left)
        return self.connection.recv_into(buffer)


class _Handler(BaseHTTPRequestHandler):
    """One connection, one request (HTTP/1.0): nothing left over can be taken for the next one."""

    server: "_Server"
    server_version, sys_version = "hbn_ref", ""
    disable_nagle_algorithm = True
    unread = True  # the client may still be sending

    def setup(self):
        super().setup()
        self.rfile = io.BufferedReader(_Arriving(self.connection))

    def log_message(self, *args):
        """A line for each request would bury the server's own."""

    def send_error(self, code, message=None, explain=None):
        """What http.server calls for a request that it cannot read."""
        status = {501: 405, 505: 400}.get(code, code)
        default = "expected GET / or POST /predict" if status == 405 else http.HTTPStatus(status).phrase
        self._answer(status, {"error": default if status == 405 else str(message or default)[:200]})

    def do_GET(self):
        self.unread = False
        self._respond(self._get)

    def do_POST(self):
        self._respond(self._post)

    def _respond(self, work):
        try:
            status, content = 200, work()
        except Refused as refused:
            status, content = refused.status, {"error": str(refused)}
        except TimeoutError:
            status, content = 408, {"error": f"expected the whole request within {TIMEOUT:g} s"}
        except ConnectionError:
            return
        except Exception:  # whatever it is, the next drawing shall be answered
            log.exception("draw page: a request failed")
            status, content = 500, {"error": "the server made a mistake; its terminal says which"}
        self._answer(status, content)

    def _answer(self, status, content):
        """Send what `_File` says as it is, anything else as JSON in one line."""
        if not isinstance(content, _File):
            content = _File("application/json", json.dumps(content).encode("ascii") + b"\n")
        body = content.body
        self.connection.settimeout(TIMEOUT)
        try:
            self.send_response(status)
            self.send_header("Content-Type", content.kind)
            self.send_header("Content-Length", str(len(body)))
            for name, value in (HEADERS | content.headers).items():
                self.send_header(name, value)
            if status == 405:
                self.send_header("Allow", "GET, POST")
            self.end_headers()
            self.wfile.write(body)
            if self.unread:
                self._drain()
        except OSError:  # the client has gone, or does not read
            self.close_connection = True

    def _drain(self):
        """Read on for a moment: closing with bytes unread would reset the connection and lose the answer."""
        self.connection.shutdown(socket.SHUT_WR)
        self.connection.settimeout(0.2)
        until = time.monotonic() + 1
        while time.monotonic() < until and self.connection.recv(65536):
            pass

    def _header(self, name, status, expected):
        """The value of a header that must be there exactly once."""
        values = self.headers.get_all(name, [])
        if len(values) != 1:
            raise Refused(status, f"{name}: expected {expected}, once")
        return values[0].strip()

    def _check_sender(self):
        """Own Host only: a foreign name that resolves to this machine is an attack. Own Origin only."""
        host = self._header("Host", 400, "this server's address")
        if not self.server.is_own(host):
            raise Refused(403, f"Host: expected this server's address, such as 127.0.0.1:{self.server.server_port}")
        if any(origin != f"http://{host}" for origin in self.headers.get_all("Origin", [])):
            raise Refused(403, f"Origin: expected http://{host}")

    def _get(self):
        self._check_sender()
        if self.path == "/":
            return self.server.page
        if self.path == "/about":
            return self.server.about
        if self.path in self.server.notebooks:
            path = self.server.notebooks[self.path]
            saved = {"Content-Disposition": f'attachment; filename="{path.name}"'}
            return _File("application/x-ipynb+json", path.read_bytes(), saved)
        self._no_such("GET")

    def _post(self):
        self._check_sender()
        if self.path != "/predict":
            self._no_such("POST")
        if "Transfer-Encoding" in self.headers:
            raise Refused(411, "Content-Length: expected one, and no Transfer-Encoding")
        length = self._header("Content-Length", 411, "the number of bytes in the body")
        if not re.fullmatch(r"[0-9]{1,18}", length):
            raise Refused(400, "Content-Length: expected a whole number")
        if int(length) > MAX_BODY:
            raise Refused(413, f"Content-Length: expected at most {MAX_BODY} bytes")
        self._header("Content-Type", 415, "application/json")
        if self.headers.get_content_type() != "application/json":
            raise Refused(415, "Content-Type: expected application/json")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise Refused(400, f"body: expected {int(length)} bytes as Content-Length says, got {len(body)}")
        self.unread = False
        return self.server.predict(*parse_drawing(body))

    def _no_such(self, method):
        if self.path in ("/", "/about", "/predict", *self.server.notebooks):
            raise Refused(405, f"{self.path}: expected {'POST' if method == 'GET' else 'GET'}")
        raise Refused(404, "path: expected / or /about or /predict")


@dataclass(frozen=True)
class _File:
    kind: str
    body: bytes
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Security-Policy": "default-src 'none'"})


def assemble(folder: Any = PAGE) -> tuple[bytes, str]:
    """Return the page, its scripts and style sheets put in, and the policy that lets a browser run these and no others.

    One request brings all of it: a page never stands there with half of its scripts.
    """
    hashes: dict[str, list[str]] = {kind: [] for kind in PARTS}
    text = folder.joinpath("page.html").read_text(encoding="utf-8")
    for kind, pattern in PARTS.items():

        def inline(found, kind=kind):
            part = folder.joinpath(found[1]).read_text(encoding="utf-8")
            digest = base64.b64encode(hashlib.sha256(part.encode()).digest()).decode("ascii")
            hashes[kind].append(f"'sha256-{digest}'")
            return f"<{kind}>{part}" + ("</style>" if kind == "style" else "")  # a script's end tag stands there

        text = re.sub(pattern, inline, text)
    return text.encode(), POLICY.format(**{kind: " ".join(found) for kind, found in hashes.items()})


BUSY = (
    b"HTTP/1.0 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Type: application/json\r\n\r\n"
    b'{"error": "too many pages at once; try again in a moment"}\n'
)


class _Server(ThreadingHTTPServer):
    """A thread for each connection, a bounded number of them; one lock around the kernels."""

    request_queue_size = MAX_CONNECTIONS
    allow_reuse_address = os.name != "nt"  # there it would let a second server take the same port

    def __init__(self, networks, prepare, host, port, allow_remote, rest):
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.networks, self.prepare, self.host, self.allow_remote = list(networks), prepare, host, allow_remote
        page, policy = assemble()
        self.page = _File("text/html; charset=utf-8", page, {"Content-Security-Policy": policy})
        self.notebooks = {f"/tutorials/{path.name}": path for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))}
        self.about = {
            "classes": list(self.networks[0].packed.classes), "none": deploy.NONE,
            "networks": [
                {
                    "name": shown.name, "operations": shown.operations, "bytes": shown.bytes, "layers": shown.layers,
                    "doubts": shown.packed.none_of_these is not None,
                    "variant": shown.packed.spec["variant"], "input_size": shown.packed.spec["input_size"],
                }
                for shown in self.networks
            ],
            "network": self.networks[0].packed.spec["name"], "notebooks": [path[1:] for path in self.notebooks],
            "rest": list(rest),
            "pen": PEN, "widths": WIDTHS, "max_strokes": MAX_STROKES, "max_points": MAX_POINTS, "max_body": MAX_BODY,
        }  # fmt: skip
        self.kernels, self.free = threading.Lock(), threading.Semaphore(MAX_CONNECTIONS)
        super().__init__((host, port), _Handler)

    def server_bind(self):
        socketserver.TCPServer.server_bind(self)  # http.server would also ask a name server for our name
        self.server_name, self.server_port = self.host, self.server_address[1]

    def is_own(self, host):
        """Whether a Host header names this server: loopback, or what it was bound to; remotely any plain address."""
        name, _, port = host.rpartition(":") if re.search(r":[0-9]+$", host) else (host, ":", "80")
        name = name.lower()
        if int(port[:6]) != self.server_port:
            return False
        return (
            name in ("localhost", self.host) or _is_loopback(name) or (self.allow_remote and _address(name) is not None)
        )

    def predict(self, strokes, width=1.0, look=0):
        with self.kernels:
            return predict(self.networks, self.prepare, strokes, width, look)

    def process_request(self, request, client_address):
        if not self.free.acquire(timeout=PATIENCE):
            self._send_away(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread was started that would give it back
            self.free.release()
            raise

    def _send_away(self, request):
        try:
            request.settimeout(0.1)
            request.sendall(BUSY)
            request.shutdown(socket.SHUT_WR)
            request.recv(65536)  # closing with bytes unread would reset the connection and lose the answer
        except OSError:
            pass
        self.shutdown_request(request)

    def process_request_thread(self, request, client_address):
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.free.release()

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], OSError):  # one that broke is the client's affair
            log.exception("draw page: a connection failed")


def _address(host):
    """The IP address that a host is written as, or None; IPv6 with or without its brackets."""
    try:
        return ipaddress.ip_address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
    except ValueError:
        return None


def _is_loopback(host):
    address = _address(host)
    return host == "localhost" or address is not None and address.is_loopback


def make_server(
    networks: Sequence[gallery.Shown], prepare: Prepare, host: str = "127.0.0.1", port: int = 0, *,
    allow_remote: bool = False, rest: Sequence[str] = (),
) -> _Server:  # fmt: skip
    """Return the server of the draw page, bound and not yet serving; `server_address` tells the port.

    Parameters
    ----------
    networks : list of gallery.Shown
        Of the same classes. A `packed` may be anything that is called as a deploy.PackedNetwork is, with its `classes`,
        `preprocessing`, `spec`, `none_of_these` and `look`.
    prepare : function
        prepare(strokes, preprocessing, width) returns a network's input, float32 (1, size, size, channels).
    host, port : str, int
        Port 0 takes a free one.
    allow_remote : bool
        Let other machines in. There is no password and no encryption.
    rest : sequence of str
        Lines about networks that are not shown.

    Raises
    ------
    ValueError
        `host` is not this machine's loopback, or `port` is no port.
    OSError
        The port is in use, or may not be used.
    """
    if not isinstance(port, (int, np.integer)) or isinstance(port, bool) or not 0 <= port <= 65535:
        raise ValueError(f"port: expected a whole number from 0 to 65535, got {port!r}")
    if not allow_remote and not _is_loopback(host):
        raise ValueError(f"host: expected this machine's loopback, such as 127.0.0.1, got {host!r}")
    try:
        return _Server(networks, prepare, host, int(port), allow_remote, rest)
    except OSError as error:
        raise OSError(f"port {port} of {host}: cannot be used ({error.strerror}); choose another") from None


def serve(
    networks: Sequence[gallery.Shown], prepare: Prepare, host: str = "127.0.0.1", port: int = 8000,
    open_browser: bool = True, *, allow_remote: bool = False, rest: Sequence[str] = (),
) -> None:  # fmt: skip
    """Serve the draw page until Ctrl-C. Arguments and errors as for `make_server`."""
    with make_server(networks, prepare, host, port, allow_remote=allow_remote, rest=rest) as server:
        server.predict([np.array([[0.3, 0.3], [0.7, 0.7]])])  # compiles what the first stroke would wait for
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
        url = f"http://{shown}:{server.server_port}/"
        print(f"draw at {url} (Ctrl-C ends it)", flush=True)
        if open_browser:
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("\nstopped", flush=True)
