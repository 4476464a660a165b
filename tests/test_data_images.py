"""Images that are broken, rare or made to harm: read or refused, by name, at little cost."""

import io
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_data import ROOT, assert_same_images, drawing, encode, load, make_folder, make_zip, photo, run
from test_data_hostile import GOOD, assert_refused_then_mended, enclose, peak, refusal

import data_tools
from data_tools import dataset, folder

SKETCH = dataset.make_preprocessing(16)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    return enclose(tmp_path, monkeypatch)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width, height, depth=8, colour=0, rows=b"", before=b""):
    """A PNG file that claims a size, whatever its rows hold."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + before + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def svg(path, head='viewBox="0 0 8 8"', before=""):
    return f'{before}<svg {head}><path d="{path}"/></svg>'.encode()


def entities(*declared, use="&x9;"):
    lines = "".join(f"<!ENTITY {one}>" for one in declared)
    return svg(f"M0 0L1 {use}", before=f"<!DOCTYPE svg [{lines}]>")


LAUGHS = entities('x0 "1111111111"', *(f'x{k + 1} "{f"&x{k};" * 10}"' for k in range(9)))
GHOST = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\nshowpage\n"
NOTE = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**8)))
PHOTO = encode(photo(0, (60, 60, 3)), "jpeg")

PICTURES = {
    "no bytes": b"",
    "text": b"not an image\n" * 50,
    "PNG in half": encode(drawing(0))[: len(encode(drawing(0))) // 2],
    "PNG of a head": encode(drawing(0))[:33],
    "PNG, a byte wrong": encode(drawing(0))[:60] + b"?" + encode(drawing(0))[61:],
    "PNG of 100000 x 100000": png_of(100000, 100000),
    "PNG of 2**31 x 2**31": png_of(2**31 - 1, 2**31 - 1),
    "PNG of 1 x 100000": encode(np.full((100000, 1), 255, np.uint8)),
    "PNG of 0 x 0": png_of(0, 0),
    "PNG of 0 x 40": png_of(0, 40),
    "PNG without its rows": png_of(9000, 9000),
    "PNG with a note that expands": png_of(4, 4, rows=bytes(20), before=NOTE),
    "JPEG in half": PHOTO[: len(PHOTO) // 2],
    "JPEG of a head": PHOTO[:20],
    "GIF in half": encode(drawing(0), "gif")[:100],
    "PostScript": GHOST,
    "zip": b"PK\5\6" + bytes(18),
}

STROKES = {
    "no bytes": b"",
    "text": b"not an image",
    "PNG": encode(drawing(0)),
    "in half": svg("M0 0L4 4")[:30],
    "laughs": LAUGHS,
    "laughs in UTF-16": LAUGHS.decode().encode("utf-16"),
    "one long entity": entities(f'x9 "{"1 1 " * 2000}"', use="&x9;" * 2000),
    "entity of a file": entities('x9 SYSTEM "file:///etc/hostname"'),
    "parameter entity": entities('% x SYSTEM "file:///etc/hostname"> %x; <!ENTITY x9 "1"'),
    "unknown entity": svg("M0 0L1 &x;"),
    "unknown encoding": b'<?xml version="1.0" encoding="klingon"?>' + svg("M0 0L4 4"),
    "rare encoding": b'<?xml version="1.0" encoding="utf-7"?>' + svg("M0 0L4 4"),
    "no path": b'<svg viewBox="0 0 8 8"/>',
    "empty path": svg(""),
    "path of words": svg("hello"),
    "NaN": svg("M0 0L4 nan"),
    "infinity": svg("M0 0L4 inf"),
    "beyond floats": svg("M0 0L4 1e999"),
    "far away": svg("M0 0L1e9 1e9"),
    "very far away": svg("M0 0L1e300 1e300"),
    "far by steps": svg("M0 0" + "l1e308 1e308" * 4),
    "NaN as a box": svg("M0 0L4 4", 'viewBox="nan nan nan nan"'),
    "NaN as a corner": svg("M0 0L4 4", 'viewBox="nan 0 8 8"'),
    "infinite box": svg("M0 0L4 4", 'viewBox="0 0 inf inf"'),
    "box of nothing": svg("M0 0L4 4", 'viewBox="0 0 0 0"'),
    "box too small for floats": svg("M0 0L4 4", 'viewBox="0 0 1e-320 1e-320"'),
    "box of three numbers": svg("M0 0L4 4", 'viewBox="0 0 8"'),
    "scaled beyond floats": svg("M0 0L4 4").replace(b"<path", b'<path transform="scale(1e308) scale(1e308)"'),
    "translated by nothing": svg("M0 0L4 4").replace(b"<path", b'<path transform="translate()"'),
    "enormous path": svg("M0 0" + "L7 7L1 1" * 10**6),
    "millions of elements": b"<svg>" + b"<g/>" * 3 * 10**6 + b"</svg>",
    "deep": b"<svg>" + b"<g>" * 20000 + b"</g>" * 20000 + b"</svg>",
    "not closed": b"<svg>" + b"<g>" * 100000,
}


@pytest.mark.parametrize("make", [make_zip, make_folder])
@pytest.mark.parametrize("how", PICTURES)
def test_bad_picture_is_refused_and_a_mended_one_loads(place, how, make):
    source = make(place / "below" / "some", GOOD | {"a/9.png": PICTURES[how]})
    assert_refused_then_mended(place, source, make, "some", "a/9.png")


@pytest.mark.parametrize("how", STROKES)
def test_bad_strokes_are_refused_and_mended_ones_load(place, how):
    source = make_zip(place / "below" / "some.zip", GOOD | {"a/9.svg": STROKES[how]})
    assert_refused_then_mended(place, source, make_zip, "some.zip", "a/9.svg")


MEMORY = """
import pathlib, re, sys
import data_tools, data_tools.folder
def most():
    return int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) >> 10
before = most()
for path in pathlib.Path(sys.argv[1]).glob("*.zip"):
    try:
        data_tools.load(path, size=16, progress=False)
    except data_tools.DataError:
        print(path.name, most() - before, "MiB")
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the memory of a process")
def test_pictures_that_claim_much_cost_little(place):
    for name, kinds in (("a/9.png", PICTURES), ("a/9.svg", STROKES)):
        for how in kinds:
            make_zip(place / f"{how}.zip", GOOD | {name: kinds[how]})
    command = [sys.executable, "-c", MEMORY, place]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(PICTURES.keys() | STROKES.keys())
    assert max(int(line.split()[-2]) for line in lines) < 400, done.stdout


def test_no_other_program_is_run_for_a_picture(place, monkeypatch):
    ran = []
    monkeypatch.setattr("subprocess.Popen", lambda *command, **_: ran.append(command))
    refusal(lambda: load(make_zip(place / "some.zip", GOOD | {"a/9.png": GHOST})), "a/9.png")
    assert not ran


CLEAR = np.zeros((40, 40, 4), np.uint8)
CLEAR[..., 3] = 255 - drawing(0)
DRAWN = {  # drawing(0), in other forms
    "animated GIF": encode(drawing(0), "gif", save_all=True, append_images=[Image.fromarray(drawing(9))] * 3),
    "animated PNG": encode(drawing(0), "png", save_all=True, append_images=[Image.fromarray(drawing(9))] * 3),
    "16 bit": encode(drawing(0, 65535, np.uint16)),
    "strokes on clear paper": encode(CLEAR),
}
KINDS = {
    "1 x 1": encode(np.full((1, 1), 255, np.uint8)),
    "1 x 300": encode(np.full((300, 1), 255, np.uint8)),
    "JPEG called PNG": encode(drawing(0), "jpeg", quality=95),
}


@pytest.mark.parametrize("how", KINDS)
def test_rare_kinds_of_images_load(place, how):
    data = load(make_zip(place / "some.zip", GOOD | {"a/9.png": KINDS[how]}), size=16)
    assert sum(len(part[0]) for part in (data.train, data.validation, data.test)) == 7


@pytest.mark.parametrize("how", DRAWN)
def test_first_frames_deep_pixels_and_clear_paper_load_as_the_drawing(place, how):
    first, second, plain = (
        load(make_zip(place / f"{k}.zip", GOOD | {"a/9.png": content}), size=16)
        for k, content in enumerate((DRAWN[how], encode(drawing(9)), encode(drawing(0))))
    )
    assert_same_images(first, plain)
    with pytest.raises(AssertionError):
        assert_same_images(second, plain)


def test_palette_with_a_transparent_colour_lies_on_white():
    image = Image.fromarray((drawing(0) == 0).astype(np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 0, 0])
    stream = io.BytesIO()
    image.save(stream, "png", transparency=0)
    np.testing.assert_array_equal(folder.read_image(stream.getvalue(), "it"), drawing(0))


def test_grumbles_of_pillow_do_not_reach_the_terminal(place):
    exif = encode(drawing(0), "jpeg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff")
    samples = b"\x15\1\3\0\1\0\0\0"
    tiff = encode(photo(1), "tiff").replace(samples + b"\3", samples + b"\xff")
    source = make_zip(place / "some.zip", GOOD | {"a/8.jpg": exif})
    assert run("info", source).stderr == ""
    done = run("info", make_zip(source, GOOD | {"a/9.tif": tiff}))
    assert done.returncode == 2 and done.stderr.count("\n") == 1


@pytest.mark.parametrize("how", ["no bytes", "text", "PNG in half", "PNG of 100000 x 100000"])
def test_bad_pictures_to_predict_are_named(place, how):
    (place / "it.png").write_bytes(PICTURES[how])
    refusal(lambda: data_tools.prepare_files([place / "it.png"], SKETCH), "it.png")


@pytest.mark.parametrize("path", ["nothing.png", "/dev/zero", "."])
def test_what_is_no_file_cannot_be_predicted(path):
    name = Path(path).name
    assert peak(lambda: refusal(lambda: data_tools.prepare_files([Path(path)], SKETCH), name)) < 2 * 10**8


def test_numbers_that_are_none_are_black(place):
    stream = io.BytesIO()
    Image.fromarray(np.float32([[np.nan, -np.inf, np.inf, 3e38, -3e38]])).save(stream, "tiff")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(folder.read_image(stream.getvalue(), "it"), [[0, 0, 0, 255, 0]])
