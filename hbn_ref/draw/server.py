"""The server: it puts the page together, checks each request, and has a thread for each."""

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
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from .. import deploy, gallery
from .answers import MAX_POINTS, MAX_STROKES, PEN, WIDTHS, Prepare, Refused, parse_drawing, predict

MAX_BODY = 256 * 1024  # bytes
TIMEOUT = 10.0  # seconds for a whole request to arrive, then again for the answer to leave
MAX_CONNECTIONS = 64  # at the same time; a page needs two
PATIENCE = 0.5  # seconds that one more waits for its turn, before it is sent away
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
NOTEBOOKS = Path(__file__).resolve().parents[2] / "tutorials"
log = logging.getLogger(__name__)


class _Arriving(io.RawIOBase):
    """What comes from a socket before a deadline: it does not move for those who send a byte now and then."""

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
    """One connection for one request (HTTP/1.0): nothing that is left over can be taken for the next one."""

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
        """http.server calls this for a request that it cannot read."""
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
        except Exception:  # whatever it is, answer the next drawing
            log.exception("draw page: a request failed")
            status, content = 500, {"error": "the server made a mistake; its terminal says which"}
        self._answer(status, content)

    def _answer(self, status, content):
        """Send a `_File` as it is, and anything else as JSON in one line."""
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
        """Refuse any Host or Origin but our own: a foreign name that resolves to this machine is an attack."""
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
    """Return the page with its scripts and style sheets inside, and the policy that lets a browser run these alone.

    One request brings all of it: no page ever has half of its scripts.
    """
    hashes: dict[str, list[str]] = {kind: [] for kind in PARTS}
    text = folder.joinpath("page.html").read_text(encoding="utf-8")
    for kind, pattern in PARTS.items():

        def inline(found, kind=kind):
            part = folder.joinpath(found[1]).read_text(encoding="utf-8")
            digest = base64.b64encode(hashlib.sha256(part.encode()).digest()).decode("ascii")
            hashes[kind].append(f"'sha256-{digest}'")
            return f"<{kind}>{part}" + ("</style>" if kind == "style" else "")  # the page has a script's end tag

        text = re.sub(pattern, inline, text)
    return text.encode(), POLICY.format(**{kind: " ".join(found) for kind, found in hashes.items()})


BUSY = (
    b"HTTP/1.0 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Type: application/json\r\n\r\n"
    b'{"error": "too many pages at once; try again in a moment"}\n'
)


class _Server(ThreadingHTTPServer):
    """A thread for each connection, up to a number of them, and one lock around the kernels."""

    request_queue_size = MAX_CONNECTIONS
    allow_reuse_address = os.name != "nt"  # there, a second server could take the same port

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
        socketserver.TCPServer.server_bind(self)  # http.server would ask a name server for our name
        self.server_name, self.server_port = self.host, self.server_address[1]

    def is_own(self, host):
        """Whether a Host header names this server: loopback, its own host, or with `allow_remote` any plain address."""
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
        except BaseException:  # no thread has started that would release it
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
        if not isinstance(sys.exc_info()[1], OSError):  # a broken connection is the client's affair
            log.exception("draw page: a connection failed")


def _address(host):
    """The IP address that a host is written as, or None. IPv6 may have brackets or not."""
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
    """Return the server of the draw page, which is bound and does not serve yet; `server_address` tells the port.

    Parameters
    ----------
    networks : list of gallery.Shown
        Of the same classes. A `packed` may be anything that can be called like a deploy.PackedNetwork, and has its
        `classes`, `preprocessing`, `spec`, `none_of_these` and `look`.
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
        server.predict([np.array([[0.3, 0.3], [0.7, 0.7]])])  # compile now what the first stroke would wait for
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
        url = f"http://{shown}:{server.server_port}/"
        print(f"draw at {url} (Ctrl-C ends it)", flush=True)
        if open_browser:
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("\nstopped", flush=True)
