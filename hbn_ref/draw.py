"""Top floor, the draw page: draw in a browser, and see what a packed network thinks and the bits it thinks with.

A server of the standard library on this machine's loopback, for one page, `draw.html`:

    GET /            the page
    GET /about       what the network is, and the limits below
    POST /predict    {"strokes": [[[x, y], ...], ...], "width": 1.0}: the five likeliest classes, the time, the bits

Any page in a browser may send requests to this machine, and any program on it may send anything at all. So a request
counts only with this server's own Host and Origin, and what is not as expected gets a 4xx with a line that says why.
"""

import base64
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
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any

import numpy as np

from . import deploy

TOP = 5  # classes in an answer
MAX_MAPS = 32  # feature maps shown of each layer
MAX_BODY = 256 * 1024  # bytes
MAX_STROKES, MAX_POINTS = 500, 20_000
MAX_DEPTH = 8  # of brackets within brackets; a drawing needs 4
RANGE = (-1.0, 2.0)  # of x and y: the paper is 0..1, and a stroke may leave it
WIDTHS = (0.25, 4.0)  # of the pen, as a multiple of the one in training
PEN = 1.5 / 72  # that one, as a share of the square: 1.5 pixels of the 72 that a drawing is stored at
TIMEOUT = 10.0  # seconds for a whole request to arrive, then again for the answer to leave
MAX_CONNECTIONS = 64  # at the same time; a page needs two
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}
PAGE = resources.files(__package__).joinpath("draw.html")  # also in a zip
Prepare = Callable[[list[np.ndarray], float], np.ndarray]  # (strokes, width) -> the network's input
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


def parse_drawing(body: bytes) -> tuple[list[np.ndarray], float]:
    """Return (strokes, width) of a request's body: a list of float64 (n, 2), and the pen's width.

    Raises
    ------
    Refused
        Anything but {"strokes": [[[x, y], ...], ...], "width": 1.0} within the limits; "width" may be left out.
    """
    content = _json(body)
    if type(content) is not dict or "strokes" not in content or content.keys() - {"strokes", "width"}:
        raise Refused(400, 'body: expected an object with "strokes" and "width" and nothing else')
    width, strokes = content.get("width", 1.0), content["strokes"]
    if type(width) is not float or not WIDTHS[0] <= width <= WIDTHS[1]:
        raise Refused(400, f"width: expected a number from {WIDTHS[0]:g} to {WIDTHS[1]:g}")
    if type(strokes) is not list or len(strokes) > MAX_STROKES:
        raise Refused(400, f"strokes: expected a list of at most {MAX_STROKES} strokes")
    if sum(len(points) for points in strokes if type(points) is list) > MAX_POINTS:
        raise Refused(400, f"strokes: expected at most {MAX_POINTS} points in all")
    if not strokes:
        raise Refused(400, "strokes: the paper is empty; draw something first")
    return [_stroke(index, points) for index, points in enumerate(strokes)], width


# ----------------------------------------------------------------------------------------- a prediction


def _text(array):
    """Bytes as base64, for JSON."""
    return base64.b64encode(np.ascontiguousarray(array).data).decode("ascii")


def feature_maps(name: str, bits: np.ndarray) -> dict[str, Any]:
    """One layer's bits, uint8 (1, H, W, C), for the page: each map's H * W bits, row by row, 8 in a byte."""
    _, height, width, channels = bits.shape
    shown = bits.reshape(height * width, channels)[:, :MAX_MAPS]
    maps = [_text(row) for row in np.packbits(shown.T, axis=1)]
    return {
        "name": name, "height": height, "width": width, "channels": channels,
        "ones": float(bits.mean()), "maps": maps,
    }  # fmt: skip


def _picture(x):
    """The network's input (1, H, W, C) as 8-bit grey, ink 255."""
    grey = x[0].mean(axis=2)
    grey = (grey - grey.min()) / (grey.max() - grey.min())
    return {
        "height": grey.shape[0], "width": grey.shape[1],
        "pixels": _text(np.rint(255 * grey).astype(np.uint8)),
    }  # fmt: skip


def predict(packed: Any, prepare: Prepare, strokes: list[np.ndarray], width: float) -> dict[str, Any]:
    """Return the answer to a drawing, ready for JSON; Refused where the network would see bare paper."""
    x = prepare(strokes, width)
    if x.min() == x.max():
        raise Refused(400, "strokes: nothing to see where the network looks; draw in the middle of the paper")
    started = time.perf_counter()
    logits, layers = packed.trace(x)
    seconds = time.perf_counter() - started
    if not np.isfinite(logits).all():
        raise FloatingPointError("the network's logits are not finite")
    return {
        "top": [{"class": name, "probability": share} for name, share in deploy.ranked(logits, packed.classes, TOP)[0]],
        "milliseconds": 1000 * seconds,
        "input": _picture(x),
        "layers": [feature_maps(name, bits) for name, bits in layers],
    }


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
        """Send bytes as the page, anything else as JSON in one line."""
        page = isinstance(content, bytes)
        body = content if page else json.dumps(content).encode("ascii") + b"\n"
        self.connection.settimeout(TIMEOUT)
        try:
            self.send_response(status)
            self.send_header("Content-Type", "text/html; charset=utf-8" if page else "application/json")
            self.send_header("Content-Length", str(len(body)))
            for name, value in HEADERS.items():
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
        if self.path in ("/", "/about", "/predict"):
            raise Refused(405, f"{self.path}: expected {'POST' if method == 'GET' else 'GET'}")
        raise Refused(404, "path: expected / or /about or /predict")


class _Server(ThreadingHTTPServer):
    """A thread for each connection, a bounded number of them; one lock around the kernels."""

    request_queue_size = MAX_CONNECTIONS
    allow_reuse_address = os.name != "nt"  # there it would let a second server take the same port

    def __init__(self, packed, prepare, host, port, allow_remote):
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.packed, self.prepare, self.host, self.allow_remote = packed, prepare, host, allow_remote
        self.page = PAGE.read_bytes()
        self.about = {
            "classes": list(packed.classes),
            **{key: packed.spec[key] for key in ("name", "variant", "input_size", "in_channels")},
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

    def predict(self, strokes, width):
        with self.kernels:
            return predict(self.packed, self.prepare, strokes, width)

    def process_request(self, request, client_address):
        if not self.free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread was started that would give it back
            self.free.release()
            raise

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
    packed: Any, prepare: Prepare, host: str = "127.0.0.1", port: int = 0, *, allow_remote: bool = False
) -> _Server:
    """Return the server of the draw page, bound and not yet serving; `server_address` tells the port.

    Parameters
    ----------
    packed : deploy.PackedNetwork, or anything with its `classes`, `spec` and `trace`
    prepare : function
        prepare(strokes, width) returns the network's input, float32 (1, size, size, channels).
    host, port : str, int
        Port 0 takes a free one.
    allow_remote : bool
        Let other machines in. There is no password and no encryption.

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
        return _Server(packed, prepare, host, int(port), allow_remote)
    except OSError as error:
        raise OSError(f"port {port} of {host}: cannot be used ({error.strerror}); choose another") from None


def serve(
    packed: Any, prepare: Prepare, host: str = "127.0.0.1", port: int = 8000, open_browser: bool = True, *,
    allow_remote: bool = False,
) -> None:  # fmt: skip
    """Serve the draw page until Ctrl-C. Arguments and errors as for `make_server`."""
    with make_server(packed, prepare, host, port, allow_remote=allow_remote) as server:
        server.predict([np.array([[0.3, 0.3], [0.7, 0.7]])], 1.0)  # compiles what the first stroke would wait for
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
        url = f"http://{shown}:{server.server_port}/"
        print(f"draw at {url} (Ctrl-C ends it)", flush=True)
        if open_browser:
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("\nstopped", flush=True)
