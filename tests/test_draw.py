"""Top floor, the draw page: what the server refuses and what it answers; the page itself is in test_draw_page.

Most tests use a stand-in for a packed network: the nearest of 15 drawings. It is quick, right about its own drawings,
and needs no training. The last test of the server takes a packed network.
"""

import _thread
import base64
import contextlib
import hashlib
import http.client
import json
import logging
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from conftest import JIT
from hypothesis import given
from hypothesis import strategies as st

from data_tools import augment, dataset, doodles
from data_tools.strokes import render
from hbn_ref import deploy, draw, gallery, hybrid, models

SIZE = 64
ABOUT = dataset.make_preprocessing(SIZE)
LINE = {"strokes": [[[0.25, 0.25], [0.75, 0.75]]], "width": 1.0}


def prepare(strokes, width, about=ABOUT):
    image = render(strokes, about["stored"], width=draw.PEN * width * about["stored"])
    return augment.evaluation_batch(image[None, :, :, None], about)


def doodle(name, seed=0):
    return doodles.draw(name, np.random.default_rng([seed, doodles.CLASSES.index(name)]))


def pooled(x, size):
    ink = (x[0, :, :, 0] > 0).astype(np.float32)
    return ink.reshape(size, SIZE // size, size, SIZE // size).mean(axis=(1, 3))


class Nearest:
    """Cosine to one blurred drawing of each class; the bits are cuts through its averages.

    "conv1" has values and no bits, "conv2" bits of values, "conv3" bits alone, "conv6" values alone, of one pixel.
    """

    spec = {"name": "nearest", "variant": "hybrid", "input_size": SIZE}
    preprocessing, none_of_these, shift = ABOUT, None, 0

    def __init__(self, **changed):
        self.__dict__ |= changed
        self.classes = list(doodles.CLASSES)
        self.templates = np.stack([self.features(prepare(doodle(name), 1.0)) for name in self.classes])

    def features(self, x):
        blurred = pooled(x, 16)
        for axis in (0, 1, 0, 1):
            blurred = blurred + 0.7 * (np.roll(blurred, 1, axis) + np.roll(blurred, -1, axis))
        blurred = blurred.ravel() - blurred.mean()
        return blurred / max(np.linalg.norm(blurred), 1e-6)

    def __call__(self, x):
        return np.roll(12 * self.templates @ self.features(x), self.shift)[None].astype(np.float32)

    def look(self, x):
        seen = [("conv1", x, None)]
        for name, size, channels in (("conv2", 32, 40), ("conv3", 16, 8), ("conv6", 1, 12)):
            values = (pooled(x, size)[:, :, None] - np.linspace(0, 0.5, channels)).astype(np.float32)[None]
            bits = None if name == "conv6" else (values >= 0).astype(np.uint8)
            seen.append((name, None if name == "conv3" else values, bits))
        return self(x), seen


LAYERS = [
    {"name": "conv1", "inputs": "real", "weights": "real", "binarizable": False},
    {"name": "conv2", "inputs": "binary", "weights": "binary", "binarizable": True},
    {"name": "conv3", "inputs": "binary", "weights": "binary", "binarizable": True},
    {"name": "conv6", "inputs": "real", "weights": "binary", "binarizable": True},
]
USUAL = {"conv6": (np.linspace(0, 0.1, 12, dtype=np.float32), np.full(12, 0.125, np.float32))}
PACKED = Nearest()


def shown(packed=PACKED, name="Near", operations=2_500_000):
    return gallery.Shown(name, packed, operations, 12_345, LAYERS, USUAL)


def top_class(strokes, width=1.0, packed=PACKED):
    strokes = [np.array(stroke, float) for stroke in strokes]
    return packed.classes[int(packed(prepare(strokes, width))[0].argmax())]


class Running:
    """A server on a free port in a thread of its own, for the time of a block; of networks or stand-ins for them."""

    def __init__(self, *networks, prepare=lambda strokes, about, width: prepare(strokes, width, about), **options):
        networks = [one if isinstance(one, gallery.Shown) else shown(one) for one in networks or [PACKED]]
        self.server = draw.make_server(networks, prepare, **options)
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}/"

    def __enter__(self):
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def request(self, method="POST", path="/predict", body=b"", host=None, **headers):
        """(status, headers, body) of one request; a header given as None is left out."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        usual = {"Host": host or f"127.0.0.1:{self.port}"}
        if method == "POST":
            usual |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in (usual | given).items():
            if value is not None:
                connection.putheader(name, value)
        connection.endheaders()
        with contextlib.suppress(OSError):  # hung up on before it was sent: there is an answer all the same
            connection.send(body)
        response = connection.getresponse()
        found = response.status, dict(response.getheaders()), response.read()
        connection.close()
        return found

    def predict(self, content):
        status, _, body = self.request(body=content if isinstance(content, bytes) else json.dumps(content).encode())
        return status, json.loads(body)

    def raw(self, data, end=True):
        """What comes back for these bytes until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as client:
            found = b""
            try:
                client.sendall(data)
                if end:
                    client.shutdown(socket.SHUT_WR)
                while part := client.recv(65536):
                    found += part
            except OSError as error:  # closed in the middle of it
                assert not isinstance(error, TimeoutError)
            return found

    def refuses(self, status, word, **request):
        """One request gets this status and a line with this word; the next, good one is answered."""
        found, headers, body = self.request(**request)
        message = json.loads(body)
        assert (found, list(message)) == (status, ["error"]) and word in message["error"], (found, body)
        assert body.count(b"\n") == 1 and headers["Content-Type"] == "application/json"
        self.lives()

    def lives(self):
        status, answer = self.predict(LINE)
        assert status == 200 and answer["networks"][0]["top"][0]["class"] == top_class(LINE["strokes"])


@pytest.fixture(scope="module")
def running():
    with Running() as server:
        yield server


def body_of(content):
    return json.dumps(content).encode()


# ------------------------------------------------------------------------------------------- answers


def test_the_page_is_one_file_without_outside_resources(running):
    status, headers, body = running.request("GET", "/")
    assert status == 200 and headers["Content-Type"] == "text/html; charset=utf-8"
    assert b"http:" not in body and b"https:" not in body and b"src=" not in body and b"@import" not in body
    assert re.findall(rb'href="([^"]*)"', body) == [b"data:,"]
    assert headers["Cache-Control"] == "no-store" and headers["X-Content-Type-Options"] == "nosniff"
    assert "Python" not in headers["Server"]


def test_the_browser_may_run_the_parts_of_the_page_and_nothing_else(running):
    _, headers, body = running.request("GET", "/")
    policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
    for kind, end in (("script", "js"), ("style", "css")):
        found = re.findall(rf"<{kind}>(.*?)</{kind}>", body.decode(), re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in found]
        assert policy[f"{kind}-src"].split() == [f"'sha256-{digest}'" for digest in digests]
        parts = [path.read_text(encoding="utf-8") for path in draw.PAGE.glob(f"*.{end}")]
        assert sorted(found) == sorted(parts) and parts
    assert policy["default-src"] == "'none'" and b"onclick=" not in body and b"style=" not in body
    assert "script-src" not in running.request("GET", "/about")[1]["Content-Security-Policy"]


def test_about_names_the_networks_and_the_limits(running):
    status, _, body = running.request("GET", "/about")
    about = json.loads(body)
    assert status == 200 and about["classes"] == PACKED.classes and about["rest"] == []
    [network] = about["networks"]
    assert network == {
        "name": "Near", "variant": "hybrid", "input_size": SIZE, "operations": 2_500_000, "bytes": 12_345,
        "layers": LAYERS, "doubts": False,
    }  # fmt: skip
    assert (about["max_strokes"], about["max_points"], about["widths"]) == (500, 20_000, [0.25, 4.0])


def test_notebooks_are_served_and_nothing_else_beside_them(running):
    about = json.loads(running.request("GET", "/about")[2])
    assert "tutorials/08_hybrid.ipynb" in about["notebooks"]
    status, headers, body = running.request("GET", "/tutorials/08_hybrid.ipynb")
    assert status == 200 and body == (draw.NOTEBOOKS / "08_hybrid.ipynb").read_bytes()
    assert headers["Content-Disposition"].startswith("attachment")
    for path in ("course.py", "../pyproject.toml", "08_hybrid", "", "data", "%30%38_hybrid.ipynb"):
        running.refuses(404, "path", method="GET", path=f"/tutorials/{path}")
    running.refuses(405, "GET", path="/tutorials/08_hybrid.ipynb", body=b"{}")


@pytest.mark.parametrize("name", ["fish", "sun", "teapot"])
def test_an_answer_is_what_the_network_says(running, name):
    strokes = [stroke.tolist() for stroke in doodle(name)]
    status, answer = running.predict({"strokes": strokes})  # the width may be left out
    x = prepare(doodle(name), 1.0)
    logits, layers = PACKED.look(x)
    odds = np.exp(logits[0].astype(float))
    [network] = answer["networks"]
    assert status == 200 and network["top"][0]["class"] == name and network["milliseconds"] > 0 and answer["look"] == 0
    assert [one["class"] for one in network["top"]] == [PACKED.classes[k] for k in np.argsort(-odds)[:3]]
    np.testing.assert_allclose([one["probability"] for one in network["top"]], -np.sort(-odds / odds.sum())[:3])
    pixels = np.frombuffer(base64.b64decode(answer["input"]["pixels"]), np.uint8).reshape(SIZE, SIZE)
    assert ((pixels > 127) == (x[0, :, :, 0] > x.mean() + 0.3)).mean() > 0.99 and pixels.max() == 255
    assert [layer["name"] for layer in answer["layers"]] == ["conv2", "conv3", "conv6"]  # those that may be binary
    for found, (_, values, bits) in zip(answer["layers"], layers[1:], strict=True):
        check_layer(found, values, bits)


def check_layer(found, values, bits):
    """A layer of an answer against what the network says of it."""
    if found["name"] == "conv6":  # kept real: as a BatchNorm would deliver it
        values = (values - USUAL["conv6"][0]) / USUAL["conv6"][1]
        bits = values >= 0
    height, width, channels = bits.shape[1:]
    assert (found["height"], found["width"], found["channels"]) == (height, width, channels)
    assert found["inputs"] == ("real" if found["name"] == "conv6" else "binary")
    assert len(found["maps"]) == min(channels, 32) and found["ones"] == pytest.approx(bits.mean())
    for k, text in enumerate(found["maps"]):
        flat = np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8))[: height * width]
        assert np.array_equal(flat.reshape(height, width), bits[0, :, :, k])
    if values is None:
        assert found["levels"] is None and found["error"] is None
        return
    assert found["error"] == pytest.approx(((values - np.where(values >= 0, 1, -1)) ** 2).mean(), rel=1e-5)
    assert found["error"] == pytest.approx(hybrid.binarization_error(values))
    for k, text in enumerate(found["levels"]):
        flat = np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width) / 127.5 - 1  # -1 white, 1 black
        np.testing.assert_allclose(2 * flat, np.clip(values[0, :, :, k], -2, 2), atol=0.02)


def test_several_networks_answer_the_same_drawing_and_one_is_looked_into():
    others = [Nearest(), Nearest(shift=1), Nearest(none_of_these=100.0)]
    networks = [shown(one, name) for one, name in zip(others, ("one", "two", "three"), strict=True)]
    with Running(*networks) as server:
        about = json.loads(server.request("GET", "/about")[2])
        assert [(one["name"], one["doubts"]) for one in about["networks"]] == [
            ("one", False), ("two", False), ("three", True),
        ]  # fmt: skip
        strokes = [stroke.tolist() for stroke in doodle("fish")]
        for look in (0, 2, 1):
            status, answer = server.predict({"strokes": strokes, "look": look})
            assert status == 200 and answer["look"] == look
            tops = [one["top"] for one in answer["networks"]]
            assert [top[0]["class"] for top in tops] == ["fish", "flower", about["none"]]
            assert tops[2][0]["probability"] > 0.999 and tops[2][1]["class"] == "fish"
        server.refuses(400, "0 to 2", body=body_of(LINE | {"look": 3}))


def test_networks_of_several_sizes_get_the_drawing_each_at_its_own():
    sizes = []

    class Sized(Nearest):
        def __call__(self, x):
            sizes.append(x.shape[1])
            return super().__call__(x)

        def features(self, x):
            return super().features(np.kron(x, np.ones((1, SIZE // x.shape[1], SIZE // x.shape[1], 1))))

    small = dataset.make_preprocessing(32)
    networks = [shown(Sized(), "a"), shown(Sized(preprocessing=small), "b"), shown(Sized(), "c")]
    prepared = []

    def prepare_and_count(strokes, about, width):
        prepared.append(about["size"])
        return prepare(strokes, width, about)

    with Running(*networks, prepare=prepare_and_count) as server:
        status, answer = server.predict({"strokes": [stroke.tolist() for stroke in doodle("sun")]})
    assert status == 200 and [one["top"][0]["class"] for one in answer["networks"]] == ["sun"] * 3
    assert sizes[:3] == [64, 32, 64] and prepared == [64, 32]  # once for all that prepare alike


def test_fewer_classes_than_three():
    packed = Nearest()
    packed.classes, packed.templates = packed.classes[:2], packed.templates[:2]
    with Running(packed) as server:
        assert len(server.predict(LINE)[1]["networks"][0]["top"]) == 2


def test_pen_width_reaches_the_network(running):
    ones = [running.predict(LINE | {"width": width})[1]["layers"][1]["ones"] for width in (0.25, 1, 4)]
    assert ones == sorted(ones) and ones[0] < ones[2]


def test_many_at_once_and_one_in_the_kernels():
    busy = threading.Lock()

    class Alone(Nearest):
        def __call__(self, x):
            assert busy.acquire(blocking=False), "two predictions at the same time"
            time.sleep(0.001)
            busy.release()
            return super().__call__(x)

    names = [name for name in doodles.CLASSES for _ in range(4)]
    with Running(Alone()) as server, ThreadPoolExecutor(8) as clients:
        bodies = [{"strokes": [stroke.tolist() for stroke in doodle(name)]} for name in names]
        answers = list(clients.map(server.predict, bodies))
    assert [(status, first_class(answer)) for status, answer in answers] == [(200, name) for name in names]


def first_class(answer):
    return answer["networks"][0]["top"][0]["class"]


def test_fifty_pages_at_once_are_answered():
    bodies = [{"strokes": [stroke.tolist() for stroke in doodle(name)]} for name in ("sun", "fish") * 25]
    together = threading.Barrier(50)

    def page(body):
        together.wait()
        assert server.request("GET", "/")[0] == 200 and server.request("GET", "/about")[0] == 200
        return server.predict(body)

    with Running() as server, ThreadPoolExecutor(50) as pages:
        answers = list(pages.map(page, bodies))
    assert [(status, first_class(answer)) for status, answer in answers] == [(200, "sun"), (200, "fish")] * 25


@pytest.mark.skipif(not JIT, reason="the whole network as plain Python takes minutes")
@pytest.mark.parametrize("variant", ["fbin", "wbin"])
def test_a_packed_network(variant, tmp_path):
    model = models.build("small", variant, num_classes=15, in_channels=1, input_size=SIZE, width=0.5)
    deploy.save(deploy.compile(model, classes=doodles.CLASSES, preprocessing=ABOUT), tmp_path / "one.npz")
    [network], _ = gallery.load([tmp_path / "one.npz"])
    packed = network.packed
    network = replace(network, usual=gallery.usual_inputs(network, prepare(doodle("cat"), 1.0)))
    with Running(network) as server:
        for name in ("fish", "sun"):
            strokes = [stroke.tolist() for stroke in doodle(name)]
            status, answer = server.predict({"strokes": strokes})
            assert status == 200 and first_class(answer) == top_class(strokes, packed=packed)
            seen = packed.look(prepare(doodle(name), 1.0))[1][1:-1]  # without conv1 and the classifier
            assert [layer["name"] for layer in answer["layers"]] == [layer for layer, _, _ in seen]
            kinds = [layer["error"] is not None for layer in answer["layers"]]
            assert kinds == [True, False, False, False, False] if variant == "fbin" else all(kinds)


# ------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "127.0.0.1:1", "127.0.0.1", "localhost", "10.0.0.1:{port}", "[::1:{port}",
     "127.0.0.1.evil.example:{port}", "", "127.0.0.1:{port}@evil.example", "127.0.0.1:99999999999999999999"],
)  # fmt: skip
@pytest.mark.parametrize("request_line", [("GET", "/"), ("GET", "/about"), ("POST", "/predict")])
def test_a_foreign_host_is_refused(running, host, request_line):
    method, path = request_line
    running.refuses(403, "Host", method=method, path=path, Host=host.format(port=running.port), body=body_of(LINE))


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.1.2.3", "[::1]"])
def test_each_own_host_is_accepted(running, host):
    own = f"{host}:{running.port}"
    assert running.request("GET", "/", Host=own)[0] == 200
    assert running.request(body=body_of(LINE), Host=own, Origin=f"http://{own}")[0] == 200


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "https://127.0.0.1:{port}", "http://127.0.0.1", "http://localhost:{port}", ""],
)
def test_a_foreign_origin_is_refused(running, origin):
    origin = origin.format(port=running.port)
    running.refuses(403, "Origin", body=body_of(LINE), Origin=origin)
    running.refuses(403, "Origin", method="GET", path="/about", Origin=origin)


def test_a_missing_or_second_host_is_refused(running):
    running.refuses(400, "Host", method="GET", path="/", Host=None)
    own = f"Host: 127.0.0.1:{running.port}\r\n"
    assert b" 400 " in running.raw(f"GET / HTTP/1.1\r\n{own}{own}\r\n".encode())
    assert b"Host" in running.raw(b"GET /\r\n\r\n")  # HTTP/0.9: no status line
    running.lives()


@pytest.mark.parametrize(
    "method, path, status, word",
    [
        ("GET", "/draw.html", 404, "path"), ("GET", "/../pyproject.toml", 404, "path"), ("GET", "//etc", 404, "path"),
        ("GET", "/%2e%2e/", 404, "path"), ("POST", "/else", 404, "path"), ("GET", "http://evil.example/", 404, "path"),
        ("GET", "/?x=1", 404, "path"), ("GET", "/predict", 405, "POST"), ("POST", "/", 405, "GET"),
        ("POST", "/about", 405, "GET"), ("PUT", "/predict", 405, "POST"), ("DELETE", "/", 405, "GET"),
        ("OPTIONS", "/predict", 405, "POST"), ("TRACE", "/", 405, "GET"), ("BREW", "/", 405, "GET"),
    ],
)  # fmt: skip
def test_wrong_path_or_method(running, method, path, status, word):
    running.refuses(status, word, method=method, path=path)


HEADERS = [
    (411, "Content-Length", {"Content_Length": None}),
    (411, "Transfer-Encoding", {"Transfer_Encoding": "chunked", "Content_Length": None}),
    (411, "Transfer-Encoding", {"Transfer_Encoding": "chunked"}),
    (413, "262144", {"Content_Length": "262145"}),
    (413, "262144", {"Content_Length": "9" * 18}),
    (400, "whole number", {"Content_Length": "9" * 5000}),
    (400, "whole number", {"Content_Length": "-1"}),
    (400, "whole number", {"Content_Length": "1e3"}),
    (400, "whole number", {"Content_Length": "0x10"}),
    (400, "whole number", {"Content_Length": ""}),
    (400, "JSON", {"Content_Length": "0"}),
    (415, "application/json", {"Content_Type": None}),
    (415, "application/json", {"Content_Type": "text/plain"}),
    (415, "application/json", {"Content_Type": "application/x-www-form-urlencoded"}),
    (415, "application/json", {"Content_Type": "application/jsonx"}),
]


@pytest.mark.parametrize("status, word, headers", HEADERS)
def test_wrong_headers(running, status, word, headers):
    running.refuses(status, word, body=body_of(LINE), **headers)


def test_a_large_body_is_refused_with_its_message(running):
    body = b"[" * (draw.MAX_BODY + 1)
    running.refuses(413, "262144", body=body)
    running.refuses(413, "262144", body=b"x" * 1_000_000)
    running.refuses(400, "deep", body=body[: draw.MAX_BODY])


def test_two_lengths_are_refused(running):
    own = f"Host: 127.0.0.1:{running.port}\r\nContent-Type: application/json\r\n"
    both = f"POST /predict HTTP/1.1\r\n{own}Content-Length: 2\r\nContent-Length: 200\r\n\r\n{{}}"
    assert b" 411 " in running.raw(both.encode())
    running.lives()


def test_a_body_cut_short(running):
    own = f"Host: 127.0.0.1:{running.port}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n"
    found = running.raw(f"POST /predict HTTP/1.1\r\n{own}\r\n{{}}".encode())
    assert b" 400 " in found and b"100 bytes" in found
    running.lives()


def nested(depth):
    return b'{"strokes": ' + b"[" * depth + b"]" * depth + b"}"


BODIES = [
    ("JSON", b""), ("JSON", b"{"), ("JSON", b"not json"), ("JSON", b"\xff\xfe\x00"), ("JSON", b"\xef\xbb\xbf{}"),
    ("JSON", b'{"strokes": [[[NaN, 0]]]}'), ("JSON", b'{"strokes": [[[0, Infinity]]]}'),
    ("JSON", b'{"strokes": [[[0, -Infinity]]]}'), ("JSON", b'{"strokes": [], "strokes": [[[0, 0]]]}'),
    ("JSON", body_of(LINE) + b"{}"), ("JSON", b"\x00" * 100), ("JSON", b'{"strokes": [[[0.5, 0.5]]]\x00}'),
    ("deep", nested(9)), ("deep", nested(100_000)), ("deep", b"[" * 200_000), ("deep", b'{"a":' * 40_000),
    ("object", b"[]"), ("object", b"1"), ("object", b"null"), ("object", b'"strokes"'), ("object", b"{}"),
    ("object", body_of(LINE | {"more": 1})), ("object", b'{"width": 1}'),
    ("width", body_of(LINE | {"width": 0.2})), ("width", body_of(LINE | {"width": 4.1})),
    ("width", body_of(LINE | {"width": "1"})), ("width", body_of(LINE | {"width": True})),
    ("width", body_of(LINE | {"width": None})), ("width", b'{"strokes": [[[0, 0]]], "width": 1e999}'),
    ("look", body_of(LINE | {"look": -1})), ("look", body_of(LINE | {"look": 0.5})),
    ("look", body_of(LINE | {"look": 1})),
    ("look", body_of(LINE | {"look": "0"})), ("look", body_of(LINE | {"look": True})),
    ("look", b'{"strokes": [[[0, 0]]], "look": 1e999}'), ("look", body_of(LINE | {"look": 8})),
    ("strokes", b'{"strokes": null}'), ("strokes", b'{"strokes": {}}'), ("strokes", b'{"strokes": "abc"}'),
    ("500 strokes", body_of({"strokes": [[[0.5, 0.5]]] * 501})),
    ("20000 points", b'{"strokes": [[' + b",".join([b"[0,1]"] * 20_001) + b"]]}"),
    ("empty", b'{"strokes": []}'), ("strokes[0]", b'{"strokes": [[]]}'), ("strokes[1]", b'{"strokes": [[[0,0]], []]}'),
    ("strokes[0]", b'{"strokes": [1]}'), ("strokes[0]", b'{"strokes": ["ab"]}'),
    ("strokes[0][0]", b'{"strokes": [[1, 2]]}'), ("strokes[0][0]", b'{"strokes": [[[1]]]}'),
    ("strokes[0][1]", b'{"strokes": [[[0, 0], [0, 0, 0]]]}'), ("strokes[0][0]", b'{"strokes": [[["0", 0]]]}'),
    ("strokes[0][0]", b'{"strokes": [[[true, 0]]]}'), ("strokes[0][0]", b'{"strokes": [[[null, 0]]]}'),
    ("strokes[0][0]", b'{"strokes": [[{"x": 0, "y": 0}]]}'), ("from -1 to 2", b'{"strokes": [[[1e999, 0]]]}'),
    ("from -1 to 2", b'{"strokes": [[[0, ' + b"9" * 5000 + b"]]]}"), ("from -1 to 2", b'{"strokes": [[[0, -1.01]]]}'),
    ("from -1 to 2", b'{"strokes": [[[1e300, 0]]]}'), ("nothing to see", b'{"strokes": [[[-0.9, -0.9]]]}'),
    ("nothing to see", b'{"strokes": [[[0, 0]]], "width": 0.25}'),
]  # fmt: skip


@pytest.mark.parametrize("word, body", BODIES, ids=[f"{k}-{word}" for k, (word, _) in enumerate(BODIES)])
def test_wrong_bodies(running, word, body):
    running.refuses(400, word, body=body)


@pytest.mark.alone
def test_the_largest_drawing_is_answered_soon(running):
    points = np.random.default_rng(0).integers(31, 60, (draw.MAX_POINTS, 2)) / 100
    strokes = [stroke.tolist() for stroke in np.array_split(points, draw.MAX_STROKES)]
    body = json.dumps({"strokes": strokes, "width": 4.0}, separators=(",", ":")).encode()
    assert 0.8 * draw.MAX_BODY < len(body) <= draw.MAX_BODY
    started = time.perf_counter()
    assert running.predict(body)[0] == 200
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\r\n", b"\r\n\r\n", b"GET", b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/x\r\n\r\n", b"G" * 70_000,
        b"GET / extra HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", b"GET / HTTP/1.1\r\nA: " + b"b" * 70_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"GET / HTTP/1.1\r\n: empty\r\n\r\n", bytes(1000), b"\xff" * 1000,
        b"POST /predict HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)  # fmt: skip
def test_what_is_no_request(running, data):
    found = running.raw(data)
    assert not found or found.split(b" ")[1][:1] == b"4" or found.startswith(b'{"error"'), found[:100]
    assert len(found) < 2000
    running.lives()


# -------------------------------------------------------------------------------- the slow, the broken


@pytest.mark.alone
def test_slow_clients_stop_nobody_and_are_let_go(monkeypatch):
    monkeypatch.setattr(draw.server, "TIMEOUT", 1.0)
    with Running() as server:
        idle = [socket.create_connection(("127.0.0.1", server.port), timeout=5) for _ in range(12)]
        own = f"Host: 127.0.0.1:{server.port}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n"
        for client in idle[4:8]:
            client.sendall(b"GET / HT")
        for client in idle[8:]:
            client.sendall(f"POST /predict HTTP/1.1\r\n{own}\r\n{{".encode())
        server.lives()
        started = time.perf_counter()
        while time.perf_counter() - started < 1.5:  # a byte now and then buys no time
            for client in idle[8:]:
                try:
                    client.sendall(b" ")
                except OSError:
                    pass
            time.sleep(0.05)
        assert b"".join(iter(lambda: idle[0].recv(1000), b"")) == b""
        assert b" 408 " in idle[8].recv(1000)
        server.lives()
        for client in idle:
            client.close()


def test_a_request_that_comes_after_its_time_gets_no_page(monkeypatch):
    with Running() as server:
        request = f"GET / HTTP/1.0\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode()
        assert b" 200 " in server.raw(request)
        with monkeypatch.context() as patch:
            patch.setattr(draw.server, "TIMEOUT", 0)
            assert b" 200 " not in server.raw(request)
        server.lives()


def wait(true):
    for _ in range(6000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("not within a minute")


@pytest.mark.alone
def test_connections_are_bounded_and_who_is_too_much_is_told_to_wait(monkeypatch):
    with Running() as server:
        server.server.free = threading.Semaphore(2)
        idle = [socket.create_connection(("127.0.0.1", server.port), timeout=60) for _ in range(2)]
        wait(lambda: server.server.free._value == 0)
        monkeypatch.setattr(draw.server, "PATIENCE", 0.05)
        found = server.raw(b"GET / HTTP/1.0\r\n\r\n")
        head, body = found.split(b"\r\n\r\n")
        assert b" 503 " in head and b"Retry-After: 1" in head and "again" in json.loads(body)["error"]
        monkeypatch.setattr(draw.server, "PATIENCE", 60)  # a place that falls free is worth the wait
        freed = threading.Timer(0.1, idle[0].close)
        freed.start()
        server.lives()
        for client in idle:
            client.close()
        wait(lambda: server.server.free._value == 2)
        server.lives()


def test_a_client_that_leaves_is_no_mistake(running, caplog):
    own = f"Host: 127.0.0.1:{running.port}\r\nContent-Type: application/json\r\n"
    body = body_of(LINE)
    for k in range(20):
        with socket.create_connection(("127.0.0.1", running.port)) as client:
            client.sendall(
                f"POST /predict HTTP/1.1\r\n{own}Content-Length: {len(body)}\r\n\r\n".encode()
                + body[: None if k % 2 else 9]
            )
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # leaves with a reset
    time.sleep(0.1)
    running.lives()
    assert not caplog.records


@pytest.mark.parametrize("wrong", ["raises", "nan"])
def test_a_mistake_of_ours_is_a_500_and_the_server_lives(caplog, wrong):
    class Broken(Nearest):
        broken = True

        def __call__(self, x):
            if not self.broken:
                return super().__call__(x)
            if wrong == "raises":
                raise ZeroDivisionError("our secret")
            return np.full((1, 15), np.nan, np.float32)

    packed = Broken()
    with Running(packed) as server, caplog.at_level(logging.ERROR):
        status, answer = server.predict(LINE)
        assert status == 500 and list(answer) == ["error"] and "secret" not in answer["error"]
        assert len(caplog.records) == 1 and caplog.records[0].exc_info
        packed.broken = False
        server.lives()


def test_a_connection_for_which_there_is_no_thread_is_let_go_and_the_server_lives(caplog, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    with Running() as server, caplog.at_level(logging.ERROR):
        free = server.server.free._value
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            assert server.raw(b"GET / HTTP/1.0\r\n\r\n") == b""
        assert [record.exc_info[0] for record in caplog.records] == [RuntimeError]
        assert server.server.free._value == free
        server.lives()


# ---------------------------------------------------------------------------------------------- fuzz

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from([0, 0.5, 1, -1, 2]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=20,
)
coordinates = st.floats(0, 1) | st.floats(-1, 2) | st.integers(0, 1)
points = st.lists(coordinates, min_size=2, max_size=2)
drawings = st.lists(st.lists(points, min_size=1, max_size=6), min_size=1, max_size=5)
like_drawings = st.fixed_dictionaries(
    {"strokes": drawings | st.lists(st.lists(st.lists(json_values, max_size=3), max_size=3), max_size=3) | json_values},
    optional={"width": st.floats(0.25, 4) | json_values, "look": st.just(0) | json_values, "more": json_values},
)


@st.composite
def damaged(draw_from):
    """A good body with bytes changed, left out, put in, or a piece of it repeated or moved."""
    body = bytearray(body_of({"strokes": draw_from(drawings), "width": draw_from(st.floats(0.25, 4))}))
    for _ in range(draw_from(st.integers(1, 4))):
        start, stop = sorted(draw_from(st.tuples(st.integers(0, len(body)), st.integers(0, len(body)))))
        piece = body[start:stop]
        bit = draw_from(st.sampled_from([b"", b"]", b"[", b"-", b"e9", b"0", b",", b'"', b"\x80", b"null", b"9" * 400]))
        new = draw_from(st.sampled_from([bit, piece + piece, piece[::-1], bit + piece, piece + bit]))
        body[start:stop] = new[:5000]
    return bytes(body)


def check_answer(status, answer, body):
    """200 with what the network says about this very drawing, read by other code; or a 4xx with a line."""
    if 400 <= status < 500:
        assert isinstance(answer["error"], str) and "\n" not in answer["error"] and list(answer) == ["error"]
        return
    content = json.loads(body)
    assert status == 200 and not content.keys() - {"strokes", "width", "look"}
    assert first_class(answer) == top_class(content["strokes"], content.get("width", 1.0))
    assert sum(one["probability"] for one in answer["networks"][0]["top"]) <= 1 + 1e-9


@given(content=json_values | like_drawings)
def test_fuzz_values(running, content):
    body = body_of(content)
    check_answer(*running.predict(body), body)


@given(body=damaged() | st.binary(max_size=200))
def test_fuzz_damaged_bodies(running, body):
    check_answer(*running.predict(body), body)


def test_fuzz_thousands_of_flipped_bytes(running):
    rng = np.random.default_rng(0)
    good = np.frombuffer(body_of({"strokes": [stroke.round(3).tolist() for stroke in doodle("fish")]}), np.uint8)
    refused = 0
    for _ in range(3000 if JIT else 500):
        body = good.copy()
        places = rng.integers(0, len(body), rng.integers(1, 4))
        body[places] = rng.choice(np.frombuffer(b'[]{},.:"0123456789-+eE \x00\x7f\xff', np.uint8), len(places))
        body = body.tobytes()[: rng.integers(1, len(body)) if rng.random() < 0.1 else None]
        try:
            answer = draw.predict([shown()], served, *draw.parse_drawing(body))
        except draw.Refused as error:
            assert error.status == 400 and str(error)
            refused += 1
        else:
            check_answer(200, answer, body)
    assert 0.3 < refused / (3000 if JIT else 500) < 1
    running.lives()


@given(data=st.data())
def test_fuzz_damaged_heads(running, data):
    body = body_of(LINE)
    head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{running.port}\r\nContent-Type: application/json\r\n"
    request = bytearray(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(request)))
        request[start : start + data.draw(st.integers(0, 6))] = data.draw(st.binary(max_size=6))
    found = running.raw(bytes(request))
    status = found.split(b" ")[1] if found.startswith(b"HTTP/1.0 ") else b""
    assert status == b"200" or status[:1] == b"4" or not found or found.startswith(b'{"error"'), found[:200]


def test_the_server_lives_after_all_that(running, caplog):
    running.lives()
    others = [thread for thread in threading.enumerate() if thread.name != "hbn"]  # those compute
    assert running.thread.is_alive() and len(others) < 40


# --------------------------------------------------------------------------------- make_server, serve


def served(strokes, about, width):
    return prepare(strokes, width, about)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.1", "example.org", "", "::", "8.8.8.8"])
def test_only_loopback_unless_allowed(host):
    with pytest.raises(ValueError, match="loopback"):
        draw.make_server([shown()], served, host)
    with pytest.raises(ValueError, match="loopback"):
        draw.serve([shown()], served, host, 0, open_browser=False)


def test_remote_when_allowed_takes_addresses_and_no_names():
    with Running(host="0.0.0.0", allow_remote=True) as server:
        for host, status in (("127.0.0.1", 200), ("192.168.7.7", 200), ("localhost", 200), ("evil.example", 403)):
            assert server.request("GET", "/", Host=f"{host}:{server.port}")[0] == status


@pytest.mark.parametrize("port", [-1, 65536, "8000", 80.0, True, None])
def test_a_port_is_a_whole_number(port):
    with pytest.raises(ValueError, match="port"):
        draw.make_server([shown()], served, port=port)


def test_a_port_in_use_is_named(running):
    with pytest.raises(OSError, match=f"port {running.port} .*cannot be used"):
        draw.serve([shown()], served, port=running.port, open_browser=False)
    running.lives()


def test_ipv6():
    try:
        server = draw.make_server([shown()], served, "::1")
    except OSError:
        pytest.skip("no IPv6 here")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    connection = http.client.HTTPConnection("::1", server.server_port, timeout=60)
    connection.request("GET", "/about")
    assert connection.getresponse().status == 200
    server.shutdown()
    server.server_close()
    thread.join()


def test_serve_prints_a_line_opens_the_page_and_ends_with_ctrl_c(monkeypatch, capsys):
    opened = []

    def browser(url):
        with socket.create_connection(("127.0.0.1", int(url.split(":")[2].strip("/")))) as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            opened.append((url, client.recv(20)))
        _thread.interrupt_main()

    monkeypatch.setattr(draw.server.webbrowser, "open", browser)
    draw.serve([shown()], served, port=0)
    url, answer = opened[0]
    assert answer.startswith(b"HTTP/1.0 4")  # no Host; but it was there
    assert capsys.readouterr().out.split("\n") == [f"draw at {url} (Ctrl-C ends it)", "", "stopped", ""]
