"""data_tools given what nobody should give it: archives, images and folders made to harm or merely broken.

The promise: one line that names the culprit, nothing written but the cache, little memory, and a second try works.
"""

import os
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from test_data import ROOT, assert_same, drawing, drawings, encode, load, make_folder, make_zip, run

from data_tools import DataError, folder

GOOD = drawings(count=3)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    return enclose(tmp_path, monkeypatch)


def enclose(tmp_path, monkeypatch):
    """The folder that all of it happens in: cache, working folder and system's temporary folder lie below it."""
    for name, variable in (("cache", "HBN_CACHE"), ("tmp", "TMPDIR")):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / name))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.delenv("HBN_DATA", raising=False)
    for name in ("again", "below/work"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "below" / "work")
    return tmp_path


def tree(path):
    """What lies below a folder: names, sizes, times."""
    found = {}
    for where, folders, files in os.walk(path):
        for name in folders + files:
            about = os.lstat(os.path.join(where, name))
            found[os.path.join(where, name)] = (about.st_mode, about.st_size, about.st_mtime_ns)
    return found


def refusal(call, *words):
    """The message of the DataError that a call ends in: one line for a terminal, with all the words in it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ResourceWarning)  # requests leaves sockets to the garbage collector
        with pytest.raises(DataError) as raised:
            call()
    text = str(raised.value)
    assert len(text) < 6000 and not any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in text)
    for word in words:
        assert word in text
    return text


def assert_refused_then_mended(place, source, make, *words):
    """`source` is refused and leaves no trace; the same place mended loads like any other."""
    before = tree(place)
    refusal(lambda: load(source, size=16), *words)
    assert tree(place) == before
    source.rename(place / "bad")
    assert_same(load(make(source, GOOD), size=16), load(make(place / "again" / source.name, GOOD), size=16))


def peak(call):
    """Most bytes held at once by Python and NumPy during a call, whatever it raises."""
    tracemalloc.start()
    try:
        call()
    except DataError:
        pass
    finally:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return most


# Archives


def rewritten(path, name, **fields):
    """Change what the headers of a member claim: size (expanded), packed, crc, flags, method."""
    at = {"flags": (6, "H"), "method": (8, "H"), "crc": (14, "I"), "packed": (18, "I"), "size": (22, "I")}
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        local, start = archive.getinfo(name).header_offset, archive.start_dir
    central = data.index(name.encode(), start) - 46
    for field, value in fields.items():
        offset, kind = at[field]
        struct.pack_into("<" + kind, data, local + offset, value)
        struct.pack_into("<" + kind, data, central + offset + 2, value)
    path.write_bytes(data)
    return path


def bomb(path, method=zipfile.ZIP_DEFLATED, size=60 * 10**6):
    make_zip(path, GOOD)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("a/9.png", bytes(size), method)
    return path


def cut_in_half(path):
    data = make_zip(path, GOOD).read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


def nested(path):
    inner = make_zip(path.with_name("inner"), GOOD).read_bytes()
    path.with_name("inner").unlink()
    return make_zip(path, {"a/inner.zip": inner, "inner.zip": inner})


def linked(path):
    """A member that unpackers make a symbolic link."""
    info = zipfile.ZipInfo("a/9.png")
    info.create_system, info.external_attr = 3, 0o120777 << 16
    return make_zip(path, GOOD | {info: "../../../../etc/hostname"})


def named(*names):
    return lambda path: make_zip(path, GOOD | {name: encode(drawing(0)) for name in names})


ARCHIVES = {
    "up": (named("../x.png"), "x.png"),
    "up inside": (named("a/../../x.png"), "x.png"),
    "up, no image": (named("../x.txt"), "x.txt"),
    "up, class": (named("../c/1.png"), "../c/1.png"),
    "absolute": (named("/etc/x.png"), "/etc/x.png"),
    "network": (named("//server/share/x.png"), "//server"),
    "drive": (named("C:/x.png"), "C:/x.png"),
    "drive, backslash": (named("C:\\x.png"), "x.png"),
    "drive, relative": (named("C:x.png"), "C:x.png"),
    "backslash up": (named("..\\..\\x.png"), "x.png"),
    "backslash root": (named("\\x.png"), "x.png"),
    "claims gigabytes": (lambda p: rewritten(make_zip(p, GOOD), "a/1.png", size=4 * 10**9), "a/1.png", "4000000000"),
    "claims more": (lambda p: rewritten(make_zip(p, GOOD), "a/1.png", size=10**6), "a/1.png"),
    "claims less": (lambda p: rewritten(make_zip(p, GOOD), "a/1.png", size=60), "a/1.png"),
    "claims none": (lambda p: rewritten(make_zip(p, GOOD), "a/1.png", size=0, packed=0), "a/1.png"),
    "packed beyond the end": (lambda p: rewritten(make_zip(p, GOOD), "b/2.png", packed=10**7, size=10**7), "b/2.png"),
    "CRC": (lambda p: rewritten(make_zip(p, GOOD), "a/1.png", crc=1), "a/1.png"),
    "encrypted": (lambda p: rewritten(make_zip(p, GOOD), "a/1.png", flags=1), "a/1.png", "encrypted"),
    "unknown compression": (lambda p: rewritten(make_zip(p, GOOD), "a/1.png", method=97), "a/1.png"),
    "bomb": (bomb, "a/9.png", "60000000"),
    "in half": (cut_in_half, "cut short"),
    "empty": (lambda p: make_zip(p, {}), "no images"),
    "folders only": (lambda p: make_zip(p, {"a/": b"", "b/": b""}), "no images"),
    "archives only": (nested, "no images"),
    "symbolic link": (linked, "a/9.png"),
    "empty class": (lambda p: make_zip(p, GOOD | {"c/": b""}), "'c'", "0 images"),
    "class without images": (lambda p: make_zip(p, GOOD | {"c/1.heic": b"", "c/2.heic": b""}), "'c'", "0 images"),
    "class of one": (named("c/1.png"), "'c'", "1 image"),
    "class of two": (named("c/1.png", "c/2.png"), "'c'", "2 images"),
    "line break in a name": (lambda p: make_zip(p, GOOD | {"a/\n9\x1b[2J.png": b"x"}), "9", ".png"),
}


@pytest.mark.parametrize("how", ARCHIVES)
def test_bad_archive_is_refused_and_a_mended_one_loads(place, how):
    make, *words = ARCHIVES[how]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = make(place / "below" / "some.zip")
    assert_refused_then_mended(place, source, make_zip, "some.zip", *words)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_lying_bomb_is_not_expanded(place, method):
    source = rewritten(bomb(place / "bomb.zip", method), "a/9.png", size=1000, crc=zlib.crc32(bytes(1000)))
    assert source.stat().st_size < 10**6
    assert peak(lambda: refusal(lambda: load(source, size=16), "bomb.zip", "a/9.png")) < 10**7


def test_declared_bomb_is_not_expanded(place):
    source = bomb(place / "bomb.zip")
    assert peak(lambda: refusal(lambda: load(source, size=16), "a/9.png", "60000000")) < 10**7


def test_name_given_twice_counts_once(place):
    source = make_zip(place / "some.zip", GOOD)
    with zipfile.ZipFile(source, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a/1.png", encode(drawing(7)))
    data = load(source)
    assert sum(len(part[0]) for part in (data.train, data.validation, data.test)) == 6


def test_backslashes_of_an_old_packer_are_folders(place):
    packed = make_zip(place / "windows.zip", {name.replace("/", "\\"): data for name, data in GOOD.items()})
    assert load(packed).classes == ("a", "b")


def test_numbers_of_any_length_in_names(place):
    digits = {f"a/{'7' * 5000}{k}.png": encode(drawing(k)) for k in range(3)}
    assert load(make_zip(place / "some.zip", GOOD | digits)).classes == ("a", "b")
    names = [f"{k}.png" for k in (1, 2, 10, 12345678901234567890123)]
    assert sorted({*names}, key=folder._natural) == names


@pytest.mark.parametrize("seed", range(8))
def test_any_flipped_bytes_give_data_or_an_error_in_words(place, seed):
    """Whatever eight broken archives hold, it is a Dataset or a DataError."""
    rng = np.random.default_rng(seed)
    compression = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)[seed % 2]
    whole = make_zip(place / "whole.zip", GOOD, compression).read_bytes()
    for k in range(8):
        data = bytearray(whole)
        start = 0 if k % 2 else len(data) - 700  # the directory is at the end
        for at in rng.integers(start, len(data), 1 + k % 4):
            data[at] = rng.integers(256)
        (place / f"{k}.zip").write_bytes(data)
        try:
            load(place / f"{k}.zip", size=16)
        except DataError:
            pass


# Folders

WORDS = ["two words", "Bär Öl", "图 像", "🐈‍⬛ cat", "'; rm -rf {0} %s", "-rf", "x" * 250]


def with_link(target, name="a/9.png"):
    def make(path):
        make_folder(path, GOOD)
        os.symlink(target, path / name)

    return make


def with_folder(*names, files=GOOD):
    def make(path):
        make_folder(path, files)
        for name in names:
            (path / name).mkdir(parents=True)

    return make


def with_files(files, good=GOOD):
    return lambda path: make_folder(path, good | files)


def with_fifo(path):
    make_folder(path, GOOD)
    os.mkfifo(path / "a" / "9.png")


def in_parts(*parts):
    """Three images of two classes in each part."""
    return {f"{part}/{name}": data for part in parts for name, data in GOOD.items()}


FOLDERS = {
    "empty": (lambda path: path.mkdir(), "no images"),
    "empty class": (with_folder("c"), "'c'", "0 images"),
    "class of hidden files": (with_files({"c/.DS_Store": b"", "c/Thumbs.db": b"", "c/._1.png": b""}), "'c'", "0 im"),
    "class of other files": (with_files({"c/1.heic": b"", "c/notes.txt": b""}), "'c'", "0 images"),
    "class of one": (with_files({"c/1.png": GOOD["a/0.png"]}), "'c'", "1 image"),
    "class of two": (with_files({f"c/{k}.png": GOOD[f"a/{k}.png"] for k in range(2)}), "'c'", "2 images"),
    "empty class to train": (with_folder("train/c", files=in_parts("train", "val")), "'c'", "train"),
    "empty classes": (with_folder("train/c", "val/c", files=in_parts("train", "val")), "'c'", "train"),
    "empty class, parts of three": (with_folder("train/c", files=in_parts("train", "val", "test")), "'c'", "train"),
    "no class to validate": (with_files({"train/c/1.png": b""}, in_parts("train", "val")), "'c'", "val"),
    "link to itself": (with_link("9.png"), "a/9.png"),
    "link to nothing": (with_link("nothing.png"), "a/9.png"),
    "link to a device": (with_link("/dev/zero"), "a/9.png"),
    "link to a text": (with_link("/proc/version"), "a/9.png"),
    "pipe": (with_fifo, "a/9.png"),
}


@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes")
@pytest.mark.parametrize("how", FOLDERS)
def test_bad_folder_is_refused_and_a_mended_one_loads(place, how):
    make, *words = FOLDERS[how]
    make(place / "below" / "some")
    assert_refused_then_mended(place, place / "below" / "some", make_folder, "some", *words)


def test_folders_within_themselves_end(place):
    source = make_folder(place / "some", GOOD)
    plain = load(source)
    for name in ("a/up", "b/round/and/round", "a/9.png"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        os.symlink(source, source / name, target_is_directory=True)
    os.symlink("loop", source / "a" / "loop")
    assert_same(load(source), plain)


def test_hidden_files_change_nothing(place):
    hidden = ".DS_Store Thumbs.db desktop.ini a/.DS_Store a/Thumbs.db a/._0.png .git/x/0.png __MACOSX/a/._0.png".split()
    files = GOOD | dict.fromkeys(hidden, b"\0\0nothing")
    plain = load(make_zip(place / "some", GOOD))
    assert_same(load(make_zip(place / "again" / "some", files)), plain)
    assert_same(load(make_folder(place / "below" / "some", files)), plain)


@pytest.mark.parametrize("make", [make_zip, make_folder])
def test_names_in_any_script_are_kept(place, make):
    files = {f"{word}/{word[:240]} {k}.png": encode(drawing(k)) for word in WORDS for k in range(3)}
    source = make(place / "my 图 é.zip", files)
    assert load(source).classes == load(source).classes == tuple(sorted(WORDS))  # the second time from the cache
    assert load(source, classes=WORDS[:2]).classes == tuple(sorted(WORDS[:2]))
    files[f"{WORDS[3]}/{WORDS[2]}.png"] = b"no image"
    refusal(lambda: load(make(place / "bad 图.zip", files)), "bad 图.zip", WORDS[3], WORDS[2])


def not_unicode(place):
    """A folder whose own name, a class and a file are no UTF-8."""
    files = GOOD | {f"\udcff/{k}\udcfe.png": GOOD["a/1.png"] for k in range(3)}
    try:
        return make_folder(place / os.fsdecode(b"caf\xe9"), files)
    except OSError:
        pytest.skip("a file system of Unicode names")


def test_names_that_are_no_unicode_are_kept(place):
    source = not_unicode(place)
    assert load(source).classes == load(source).classes == (r"\udcff", "a", "b")
    (source / "\udcff" / "9.png").write_bytes(b"no image")
    refusal(lambda: load(source), r"caf\udce9", r"\udcff/9.png").encode()


@pytest.mark.parametrize("names", ["any", "no unicode"])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_info_and_preview_of_any_names(place, monkeypatch, names, encoding):
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    files = {f"{word}/{k}.png": encode(drawing(k)) for word in WORDS for k in range(3)}
    source = not_unicode(place) if names == "no unicode" else make_folder(place / "图", files)
    for command in (["info"], ["preview", "--out", place / "sheet.png"]):
        done = run(*command, source, "--size", 16)
        assert (done.returncode, done.stderr) == (0, "")


def test_unreadable_folder_is_named(place, monkeypatch):
    source, walk = make_folder(place / "some", GOOD), os.scandir

    def scandir(path):
        if str(path).endswith("b"):
            raise PermissionError(13, "Permission denied", str(path))
        return walk(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        refusal(lambda: load(source), str(source / "b"), "denied")
    assert load(source).classes == ("a", "b")


@pytest.mark.parametrize("make", [make_zip, make_folder])
def test_unreadable_file_is_named(place, monkeypatch, make):
    source, whole = make(place / "some", GOOD), open

    def refuse(path, *options, **more):
        if "some" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return whole(path, *options, **more)

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", refuse)
        refusal(lambda: load(source), str(source), "denied")
    assert load(source).classes == ("a", "b")


@pytest.mark.parametrize("source", ["", "a\0b", "x" * 5000, "~nobody at all/x.zip", "/dev/null", "/dev/zero", 7, b"x"])
def test_paths_that_are_none(source):
    refusal(lambda: load(source))


# Cache


def test_full_disk_is_done_without_a_cache(place, monkeypatch):
    source = make_zip(place / "some.zip", GOOD)

    def full(file, *_, **__):
        Path(file).write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full)
        before = tree(place / "cache")
        first = load(source)
        assert tree(place / "cache") == before
    assert_same(load(source), first)
    assert len(tree(place / "cache")) == 2


def test_damaged_cache_is_made_again(place):
    source = make_zip(place / "some.zip", GOOD)
    first = load(source, size=16)
    files = sorted((place / "cache").iterdir())
    whole = [file.read_bytes() for file in files]
    for file, data in zip(files, whole):
        for at in [*range(0, 120, 4), *range(120, len(data), 80)]:
            file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            assert_same(load(source, size=16), first)
            assert [file.read_bytes() for file in files] == whole


SHARE = """
import pathlib, sys, zlib
import data_tools
source, cache = map(pathlib.Path, sys.argv[1:])
found = set()
for _ in range(20):
    data = data_tools.load(source, size=16, progress=False)
    found.add(zlib.crc32(data.train[0]))
    for file in cache.glob("*.npy"):
        file.unlink(missing_ok=True)
print(found, data.classes)
"""


def test_processes_share_a_cache_without_harm(place):
    source = make_zip(place / "some.zip", GOOD)
    command = [sys.executable, "-c", SHARE, source, place / "cache"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    running = [subprocess.Popen(command, **pipes) for _ in range(2)]
    said = [process.communicate(timeout=60) for process in running]
    assert {out for out, _ in said} == {f"{{{zlib.crc32(load(source, size=16).train[0])}}} ('a', 'b')\n"}
    assert {error for _, error in said} == {""}
    assert sorted(path.suffix for path in (place / "cache").iterdir()) == [".json", ".npy"]
    assert not list((place / "tmp").iterdir())


# Command lines


@pytest.mark.parametrize("how", ["in half", "empty class"])
def test_command_names_a_bad_archive_in_one_line(place, how):
    make, *_ = ARCHIVES[how]
    source = make(place / "some.zip")
    for command in (["data_tools", "info", source], ["hbn_ref", "study", "--data", source, "--out", place / "new"]):
        done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=100)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1 and "some.zip" in done.stderr and "Traceback" not in done.stderr
    assert not (place / "new").exists()
