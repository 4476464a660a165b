"""Downloads from a host that fails in every way: an error that names it, nothing left behind, a second try works."""

import _thread
import errno
import gzip
import hashlib
import http.server
import os
import socket
import struct
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import locked
from test_data import ROOT, drawings, load, make_zip
from test_data_hostile import refusal, tree

from data_tools import __main__ as command_line
from data_tools import tuberlin

NAME = "sketches_tiny.zip"


class Host(http.server.ThreadingHTTPServer):
    """A host on loopback; `behaviour`, a function of a request, answers for it."""

    daemon_threads, block_on_close = True, False

    def __init__(self, body):
        super().__init__(("127.0.0.1", 0), Request)
        self.body, self.behaviour, self.asked, self.closing = body, good, [], threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/files/"

    def handle_error(self, *_):
        """A client that has gone is no news."""


class Request(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        self.close_connection = True
        self.server.behaviour(self)

    def answer(self, status=200, body=None, length=None, **headers):
        """Send a whole answer; a length of its own, None for the true one, "" for none."""
        body = self.server.body if body is None else body
        self.send_response(status)
        if length != "":
            self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def half(self):
        return self.server.body[: len(self.server.body) // 2]

    def wait(self):
        """Longer than any client does."""
        self.server.closing.wait(30)

    def log_message(self, *_):
        """Not on the terminal."""


def good(request):
    request.answer()


def dropped(request):
    request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.connection.close()


def closed(request):
    request.connection.shutdown(socket.SHUT_RDWR)


def half(request):
    request.answer(body=request.half(), length=len(request.server.body))


def half_of_unknown_length(request):
    request.answer(body=request.half(), length="")


def length_too_large(request):
    request.answer(length=2 * len(request.server.body))


def length_too_small(request):
    request.answer(length=100)


def length_in_words(request):
    request.answer(length="many")


def silent(request):
    request.wait()


def stalled(request):
    request.answer(body=request.half(), length=len(request.server.body))
    request.wait()


def flipped(request):
    body = bytearray(request.server.body)
    body[len(body) // 2] ^= 1
    request.answer(body=bytes(body))


def other_file(request):
    request.answer(body=b"<html>Please log in to this network.</html>")


def nothing(request):
    request.answer(body=b"")


def twice(request):
    request.answer(body=2 * request.server.body)


def endless(request):
    request.answer(body=b"", length="")
    try:
        while not request.server.closing.is_set():
            request.wfile.write(bytes(2**16))
    except OSError:
        request.server.hung_up = True


def not_found(request):
    request.answer(404, b"not here")


def broken(request):
    request.answer(500, b"oops")


def forbidden(request):
    request.answer(403)  # the body of the file, even so


def partial(request):
    request.answer(206, request.half())


def no_gzip(request):
    request.answer(Content_Encoding="gzip")


def gzip_bomb(request):
    request.answer(body=gzip.compress(bytes(10**8), 1), Content_Encoding="gzip")


def chunks_cut(request):
    request.answer(body=b"ff\r\n" + bytes(20), length="", Transfer_Encoding="chunked")


def chunks_wrong(request):
    request.answer(body=b"what?\r\n" + bytes(20), length="", Transfer_Encoding="chunked")


def babble(request):
    request.wfile.write(b"Hello!\r\nWhat do you want?\r\n\r\n" * 20)


def endless_header(request):
    request.wfile.write(b"HTTP/1.0 200 OK\r\nX: " + bytes(10**6))


def loop(request):
    request.answer(302, b"", Location=request.path)


def to_a_closed_port(request):
    request.answer(302, b"", Location="http://127.0.0.1:9/files/")


def to_a_file(request):
    request.answer(302, b"", Location="file:///etc/hostname")


def to_nonsense(request):
    request.answer(302, b"", Location="http://[::bad/")


FAILURES = [
    dropped, closed, half, half_of_unknown_length, length_too_large, length_too_small, length_in_words,
    silent, stalled, flipped, other_file, nothing, twice, endless, not_found, broken, forbidden,
    partial, no_gzip, gzip_bomb, chunks_cut, chunks_wrong, babble, endless_header, loop, to_a_closed_port, to_a_file,
    to_nonsense,
]  # fmt: skip


def by_name(behaviour):
    return behaviour.__name__


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host that `tuberlin.fetch` asks, with an empty cache folder and no waiting between tries."""
    body = make_zip(tmp_path / "tiny", drawings()).read_bytes()
    with Host(body) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        digest = hashlib.md5(body, usedforsecurity=False).hexdigest()
        monkeypatch.setattr(tuberlin, "URL", server.url)
        monkeypatch.setattr(tuberlin, "ARCHIVES", {"svg": (NAME, digest, "very small")})
        monkeypatch.setattr(tuberlin, "TIMEOUT", 20)
        monkeypatch.setattr(tuberlin, "LARGEST_ARCHIVE", 10**6)
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        monkeypatch.setenv("HBN_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("NO_PROXY", "*")
        monkeypatch.delenv("HBN_DATA", raising=False)
        yield server
        server.closing.set()
        server.shutdown()


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def fetch(**options):
    return tuberlin.fetch("svg", progress=False, **options)


def assert_fetched(host, cache):
    """The archive is whole, in its place, alone there, and of use."""
    path = fetch()
    assert path == cache / NAME and path.read_bytes() == host.body
    assert list(cache.iterdir()) == [path]
    assert load("tuberlin").classes == ("a", "b")


@pytest.mark.parametrize("behaviour", FAILURES, ids=by_name)
def test_failed_download_leaves_nothing_and_a_second_try_works(host, cache, monkeypatch, behaviour):
    host.behaviour, slow = behaviour, behaviour in (silent, stalled)
    before = tree(cache.parent)
    with monkeypatch.context() as patch:
        patch.setattr(tuberlin, "TIMEOUT", 0.1 if slow else 20)
        refusal(fetch, host.url + NAME, "HBN_DATA", *["timed out"] * slow)
    assert {name: about for name, about in tree(cache.parent).items() if Path(name) != cache} == before
    host.behaviour = good
    assert_fetched(host, cache)


@pytest.mark.parametrize("behaviour", [half, dropped, flipped, broken], ids=by_name)
def test_host_that_recovers_is_asked_again(host, cache, behaviour):
    host.behaviour = lambda request: (good if len(host.asked) > 1 else behaviour)(request)
    assert_fetched(host, cache)
    assert len(host.asked) == 2


def moved(request):
    request.answer(302, b"", Location="/elsewhere/it.zip") if "elsewhere" not in request.path else good(request)


def in_chunks(request):
    parts = (request.half(), request.server.body[len(request.half()) :], b"")
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    request.answer(body=body, length="", Transfer_Encoding="chunked")


def of_unknown_length(request):
    request.answer(length="")


def of_negative_length(request):
    request.answer(length=-1)


@pytest.mark.parametrize("behaviour", [good, moved, in_chunks, of_unknown_length, of_negative_length], ids=by_name)
def test_ways_to_send_a_good_file(host, cache, behaviour):
    host.behaviour = behaviour
    assert_fetched(host, cache)


def test_good_copy_is_kept_and_a_damaged_one_replaced(host, cache):
    fetch()
    host.behaviour = broken
    fetch()
    assert len(host.asked) == 1
    (cache / NAME).write_bytes(host.body[:100])
    refusal(fetch, host.url + NAME)
    host.behaviour = good
    assert_fetched(host, cache)


def test_endless_download_is_hung_up(host):
    host.behaviour, host.hung_up = endless, False
    refusal(fetch, NAME, "1000000")
    for _ in range(100):
        if host.hung_up:
            break
        threading.Event().wait(0.02)
    assert host.hung_up


def test_interrupted_download_leaves_nothing(host, cache):
    def interrupt(request):
        request.answer(body=request.half(), length=len(request.server.body))
        _thread.interrupt_main()
        request.wait()

    host.behaviour = interrupt
    with pytest.raises(KeyboardInterrupt):
        fetch()
    assert not list(cache.iterdir())
    host.behaviour = good
    assert_fetched(host, cache)


def test_two_downloads_at_once(host, cache):
    with ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(lambda _: fetch(), range(2)))
    assert paths == [cache / NAME] * 2
    assert_fetched(host, cache)


KILLED = """
import sys
from data_tools import tuberlin
tuberlin.URL, tuberlin.ARCHIVES = sys.argv[1], {"svg": (sys.argv[2], "0" * 32, "")}
tuberlin.fetch("svg", progress=False)
"""


def test_killed_download_is_no_archive(host, cache):
    host.behaviour = stalled
    process = subprocess.Popen([sys.executable, "-c", KILLED, host.url, NAME], cwd=ROOT)
    while not host.asked and process.poll() is None:
        threading.Event().wait(0.02)
    process.kill()
    process.wait()
    refusal(tuberlin.find, "fetch")
    host.behaviour = good
    (left,) = cache.iterdir()
    assert fetch().read_bytes() == host.body
    assert left.exists()  # it might be another's, who is fetching
    os.utime(left, (0, 0))
    (cache / NAME).unlink()
    assert_fetched(host, cache)


def test_a_file_that_another_download_moves_away_meanwhile_is_no_mistake(host, cache, monkeypatch):
    cache.mkdir()
    gone, is_file = cache / "tmp12345678", Path.is_file
    gone.write_bytes(b"half")

    def look(path, **options):
        found = is_file(path, **options)
        if path == gone:
            gone.unlink(missing_ok=True)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Path, "is_file", look)
        fetch()
    assert_fetched(host, cache)


# The folder


def test_an_unknown_edition_is_refused_before_anything_is_asked(host):
    refusal(lambda: tuberlin.fetch("pdf"), "edition is 'pdf'; expected one of svg")
    assert host.asked == []


@pytest.mark.parametrize("below", ["", "below", "below/that"])
def test_file_in_the_place_of_the_folder_is_named(host, tmp_path, below):
    (tmp_path / "file").write_text("mine")
    text = refusal(lambda: fetch(folder=tmp_path / "file" / below), str(tmp_path / "file"))
    assert "later" not in text and (tmp_path / "file").read_text() == "mine"
    assert fetch(folder=tmp_path / "other" / below).read_bytes() == host.body


def test_folder_in_the_place_of_the_archive_is_named(host, cache):
    (cache / NAME / "mine").mkdir(parents=True)
    before = tree(cache)
    refusal(fetch, str(cache / NAME))
    assert tree(cache) == before
    (cache / NAME / "mine").rmdir()
    (cache / NAME).rmdir()
    assert_fetched(host, cache)


class Full:
    """A file on a disk that is full after 100 bytes."""

    def __init__(self, *options):
        self.file = open(*options)

    def write(self, data):
        self.file.write(data[:100])
        raise OSError(28, "No space left on device")

    def close(self):
        self.file.close()


def test_full_disk_is_named_and_nothing_left(host, cache, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("pooch.downloaders.open", Full, raising=False)
        text = refusal(fetch, str(cache), "No space left")
        assert "later" not in text
    assert not list(cache.iterdir())
    assert_fetched(host, cache)


def test_locked_folder_is_named(host, open_to_all):
    fetch()  # what root imports on the way another user may not read
    with locked(open_to_all):
        for folder in (open_to_all, open_to_all / "below"):
            text = refusal(lambda folder=folder: fetch(folder=folder), str(folder), os.strerror(errno.EACCES))
            assert "later" not in text
    assert list(open_to_all.iterdir()) == []
    assert fetch(folder=open_to_all).read_bytes() == host.body


def test_refused_folder_is_named(host, cache, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", str(cache))

    with monkeypatch.context() as patch:
        patch.setattr(os, "makedirs", refuse)
        refusal(fetch, str(cache), "denied")
    assert_fetched(host, cache)


# Command line


@pytest.mark.parametrize("behaviour", [half, flipped, not_found], ids=by_name)
def test_command_says_it_in_one_line(host, tmp_path, capsys, behaviour):
    command = ["fetch", "--data-dir", str(tmp_path / "here")]
    host.behaviour = behaviour
    assert command_line.main(command) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.startswith("data_tools: ") and error.count("\n") == 1 and "\r" not in error
    host.behaviour = good
    assert command_line.main(command) == 0
    assert str(tmp_path / "here" / NAME) in capsys.readouterr().out
