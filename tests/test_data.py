"""data_tools: archives and folders in, three splits of visible strokes out, augmentation, errors, command line."""

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

import data_tools
from data_tools import DataError, augment, dataset, folder, tuberlin

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
PNG_33, SVG_15 = SHARED / "sketches_png_33.zip", SHARED / "sketches_svg_15.zip"
shared = pytest.mark.skipif(not PNG_33.exists(), reason=f"no sketches in {SHARED}")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Every test has a cache folder of its own and no HBN_DATA."""
    monkeypatch.setenv("HBN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HBN_DATA", raising=False)
    return tmp_path / "cache"


def load(path, **options):
    return data_tools.load(path, progress=False, **options)


def encode(pixels, kind="png", **options):
    stream = io.BytesIO()
    Image.fromarray(np.asarray(pixels)).save(stream, kind, **options)
    return stream.getvalue()


def drawing(k, top=255, dtype=np.uint8):
    """40 x 40, white with a dark cross, different for each k."""
    pixels = np.full((40, 40), top, dtype)
    pixels[4:36, 6 + k % 28] = pixels[6 + 3 * k % 28, 4:36] = 0
    return pixels


def photo(k, shape=(40, 60, 3)):
    return np.random.default_rng(k).integers(0, 256, shape, dtype=np.uint8)


def drawings(classes="ab", count=5):
    return {f"{name}/{k}.png": encode(drawing(k)) for name in classes for k in range(count)}


def make_zip(path, files, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def make_folder(path, files):
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def assert_same(one, other):
    assert one.classes == other.classes and one.preprocessing == other.preprocessing
    for part in ("train", "validation", "test"):
        for a, b in zip(getattr(one, part), getattr(other, part)):
            np.testing.assert_array_equal(a, b)


def solid_share(image, stroke=127):
    """Share of the pixels of strokes that are near-full ink or touch such a pixel."""
    around = np.asarray(Image.fromarray(image).filter(ImageFilter.MaxFilter(3)))
    return np.mean(around[image > stroke] >= 230)


def correlation(a, b):
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]


# Splits


@pytest.mark.parametrize(("count", "expected"), [(80, (48, 6, 26)), (40, (24, 3, 13)), (3, (1, 1, 1)), (5, (2, 1, 2))])
def test_split_sizes(count, expected):
    parts = dataset.split_class(count, 0, "ant")
    assert tuple(map(len, parts)) == expected
    assert sorted(np.concatenate(parts)) == list(range(count))


def test_split_depends_on_seed_and_class_alone():
    first = dataset.split_class(80, 0, "ant")
    for same, other in zip(first, dataset.split_class(80, 0, "ant")):
        np.testing.assert_array_equal(same, other)
    assert not np.array_equal(first[2], dataset.split_class(80, 1, "ant")[2])
    assert not np.array_equal(first[2], dataset.split_class(80, 0, "bee")[2])


@shared
def test_tuberlin_layout():
    data = load(PNG_33, classes=["cat", "ant", "tree"])
    assert data.classes == ("ant", "cat", "tree")
    for part, count in (("train", 48), ("validation", 6), ("test", 26)):
        images, labels = getattr(data, part)
        assert images.shape == (3 * count, 72, 72, 1) and images.dtype == np.uint8
        assert labels.dtype == np.int64 and np.bincount(labels).tolist() == [count] * 3
    whole = [image.tobytes() for part in (data.train, data.validation, data.test) for image in part[0]]
    assert len(set(whole)) == 240
    np.testing.assert_array_equal(load(PNG_33, classes=["cat", "ant"]).test[0], data.test[0][:52])


@pytest.mark.parametrize("held_out", ["val", "test"])
def test_imagenet_layout(tmp_path, held_out):
    files = {f"train/{c}/{k}.png": encode(photo(k)) for c in "ab" for k in range(9)}
    files |= {f"{held_out}/{c}/{k}.png": encode(photo(100 + k)) for c in "ab" for k in range(4)}
    data = load(make_folder(tmp_path / "images", files))
    assert [len(part[0]) for part in (data.train, data.validation, data.test)] == [16, 2, 8]
    assert data.preprocessing["kind"] == "photo" and data.preprocessing["channels"] == 3
    assert len(data.preprocessing["mean"]) == 3
    batch = data.training_batch(data.train[0], np.random.default_rng(0))
    assert batch.shape == (16, 64, 64, 3) and abs(batch.mean()) < 1


def test_classes_are_chosen_and_stray_files_are_left_out(tmp_path):
    files = {f"top/png/{name}": data for name, data in drawings("abc").items()}
    files |= {"top/sheet.png": encode(photo(1)), "__MACOSX/top/png/a/._0.png": b"x", "top/png/filelist.txt": b"a/0.png"}
    path = make_zip(tmp_path / "some.zip", files)
    assert load(path).classes == ("a", "b", "c")
    assert load(path, classes=2).classes == ("a", "b")
    assert load(path, classes=["c", "b"]).classes == ("b", "c")


def test_link_back_up_repeats_no_image(tmp_path):
    path = make_folder(tmp_path / "images", drawings())
    os.symlink(path, path / "a" / "up")
    assert sum(len(part[0]) for part in (load(path).train, load(path).validation, load(path).test)) == 10


# Strokes


@shared
def test_three_editions_look_alike():
    with zipfile.ZipFile(PNG_33) as large, zipfile.ZipFile(SVG_15) as strokes:
        for k in range(1, 6):
            original = Image.open(io.BytesIO(large.read(f"png/airplane/{k}.png")))
            assert original.size == (1111, 1111)
            png = tuberlin.draw_image(original, 72)
            small = tuberlin.draw_image(original.resize((150, 150), Image.Resampling.LANCZOS), 72)
            svg = tuberlin.draw_svg(strokes.read(f"svg/airplane/{k}.svg"), 72, "svg")
            for one in (png, small):
                assert abs(one.mean() / svg.mean() - 1) < 0.1
                assert correlation(one, svg) > 0.98
            for one in (png, small, svg):
                assert solid_share(one) > 0.75 and 0.03 < np.mean(one > 127) < 0.2
            plain = 255 - np.asarray(original.resize((72, 72), Image.Resampling.BOX))
            assert solid_share(plain, stroke=10) < 0.05  # what a plain reduction would leave


@shared
def test_native_small_drawings_have_the_ink_of_large_ones():
    data = load(PNG_33, classes=["airplane", "cloud", "dolphin", "fish"])  # airplanes are 1111 px, the rest 150
    images, labels = data.train
    full = [np.mean(images[labels == k] > 230) / np.mean(images[labels == k] > 25) for k in range(4)]
    assert max(full) / min(full) < 1.25


@pytest.mark.parametrize("size", [32, 64, 160])
def test_line_width(size):
    stored = size * 9 // 8
    pixels = np.full((1111, 1111), 255, np.uint8)
    pixels[300:304, 100:1000] = 0
    ink = tuberlin.draw_image(Image.fromarray(pixels), stored)
    width = ink[:, stored // 2].sum() / 255
    assert width == pytest.approx(tuberlin.pen_width(stored), abs=0.3)


def test_wide_strokes_and_blank_paper():
    pixels = np.full((200, 200), 255, np.uint8)
    assert not tuberlin.draw_image(Image.fromarray(pixels), 72).any()
    pixels[:, 80:120] = 0
    assert tuberlin.draw_image(Image.fromarray(pixels), 72)[36].sum() / 255 == pytest.approx(14.4, abs=0.5)


def test_svg_commands_and_transforms():
    head = b'<svg viewBox="0 0 10 10"><g transform="translate(1,2) scale(2)"><g transform="translate(1)">'
    [stroke] = tuberlin.read_strokes(head + b'<path d="M0 0 l1-1 H2 v1.5e0"/></g></g></svg>')
    np.testing.assert_allclose(stroke, [[0.3, 0.2], [0.5, 0], [0.7, 0], [0.7, 0.3]], atol=1e-12)
    [curve] = tuberlin.read_strokes(b'<svg viewBox="0 0 1 1"><path d="M0,0C0,1,1,1,1,0"/></svg>')
    np.testing.assert_allclose(curve[len(curve) // 2], [0.5, 0.75])
    two = tuberlin.read_strokes(b'<svg viewBox="0 0 1 1"><path d="M0 0 1 0 1 1zM0 0 1 1"/></svg>')
    assert [len(stroke) for stroke in two] == [4, 2]


@pytest.mark.parametrize(
    "body", [b"<svg", b"<svg/>", b'<svg><path d="M0 0 A1 1 0 0 0 2 2"/></svg>', b'<svg><path d="M1"/></svg>']
)
def test_svg_errors_name_the_file(tmp_path, body):
    with pytest.raises(DataError, match="a/1.svg"):
        load(make_zip(tmp_path / "bad.zip", drawings() | {"a/1.svg": body}))


# Kinds and formats of images


def test_grey_folder_is_told_by_its_whiteness(tmp_path):
    assert load(make_folder(tmp_path / "drawn", drawings())).preprocessing["kind"] == "sketch"
    grey = {f"{c}/{k}.jpg": encode(photo(k, (50, 40)), "jpeg") for c in "ab" for k in range(4)}
    about = load(make_folder(tmp_path / "grey", grey)).preprocessing
    assert (about["kind"], about["channels"]) == ("photo", 1)


def test_photos_are_neither_inverted_nor_inked(tmp_path):
    flat = {f"{c}/{k}.png": encode(np.full((90, 120, 3), (200, 100, 20 + k), np.uint8)) for c in "ab" for k in range(4)}
    data = load(make_folder(tmp_path / "flat", flat))
    assert data.test[0].shape[1:] == (72, 72, 3) and (data.test[0][..., :2] == (200, 100)).all()
    red = (200 / 255 - 0.485) / 0.229
    np.testing.assert_allclose(data.evaluation_batch(data.test[0])[..., 0], red, rtol=1e-5)


def test_alpha_16_bit_palette_and_animation_are_read():
    clear = np.zeros((40, 40, 4), np.uint8)
    clear[..., 3] = 255 - drawing(3)
    first, second = Image.fromarray(drawing(3)), Image.fromarray(drawing(9))
    stream = io.BytesIO()
    first.save(stream, "gif", save_all=True, append_images=[second])
    for data in (
        encode(drawing(3)),
        encode(np.stack([drawing(3)] * 3, axis=2)),
        encode(clear),
        encode(drawing(3, 65535, np.uint16)),
        stream.getvalue(),
    ):
        grey = np.asarray(folder.read_image(data, "it").convert("L"))
        np.testing.assert_array_equal(grey, drawing(3))


# Augmentation


@pytest.fixture(scope="module")
def lines():
    """Drawn images as a Dataset stores them, (200, 72, 72, 1), and their preprocessing."""
    data = data_tools.load(classes=5)
    return data.train[0][::2], data.preprocessing


def ink(batch, about):
    return batch * about["std"] + about["mean"]


def assert_same_statistics(images, about):
    train = ink(augment.training_batch(images, np.random.default_rng(0), about), about)
    test = ink(augment.evaluation_batch(images, about), about)
    assert train.mean() == pytest.approx(test.mean(), rel=0.1)
    for level in (0.5, 0.99):
        assert np.mean(train > level) == pytest.approx(np.mean(test > level), rel=0.12)


def test_training_and_evaluation_have_the_same_ink(lines):
    assert_same_statistics(*lines)


@shared
def test_training_and_evaluation_have_the_same_ink_on_sketches():
    data = load(PNG_33, classes=["ant", "bicycle", "cat", "cloud"])
    assert_same_statistics(data.train[0], data.preprocessing)


def test_training_batch_is_drawn_from_the_generator(lines):
    images, about = lines
    one, two, three = (augment.training_batch(images[:8], np.random.default_rng(seed), about) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert one.dtype == np.float32 and one.shape == (8, 64, 64, 1) and not np.array_equal(one, three)
    paper = np.float32((0 - about["mean"]) / about["std"])
    assert one.min() == paper and (one[:, 0, 0] == paper).mean() > 0.8


def test_warps_stay_within_their_limits():
    warps = augment.random_warps(2000, np.random.default_rng(0), 64, 72).reshape(-1, 2, 3)
    area = np.abs(np.linalg.det(warps[:, :, :2])) * 64**2 / 72**2
    assert 0.62 < area.min() and area.max() <= 1.0001
    turn = np.rad2deg(np.arctan(warps[:, 1, 0] / warps[:, 0, 0]))
    assert 9 < np.abs(turn).max() <= 10.001
    mirrored = np.mean(warps[:, 0, 0] < 0)
    assert 0.45 < mirrored < 0.55
    centre = warps @ [32, 32, 1]
    assert 26 < centre.min() and centre.max() < 46


def test_ten_crops(lines):
    images, about = lines
    crops = augment.ten_crops(images[:3], about)
    assert crops.shape == (10, 3, 64, 64, 1) and crops.dtype == np.float32
    np.testing.assert_array_equal(crops[4], augment.evaluation_batch(images[:3], about))
    np.testing.assert_array_equal(crops[5:], crops[:5, :, :, ::-1])
    np.testing.assert_array_equal(crops[0][:, 8:, 8:], crops[3][:, :-8, :-8])


@pytest.mark.parametrize(
    "images", [np.zeros((2, 64, 64, 1), np.uint8), np.zeros((2, 72, 72, 1)), np.zeros((72, 72), np.uint8)]
)
def test_wrong_batches(lines, images):
    for prepare in (augment.evaluation_batch, augment.ten_crops):
        with pytest.raises(DataError, match="expected uint8"):
            prepare(images, lines[1])


# Cache


def test_cache_round_trip_and_rebuild(tmp_path, cache, monkeypatch):
    path = make_zip(tmp_path / "some.zip", drawings())
    first = load(path)
    [array] = cache.rglob("*.npy")
    with monkeypatch.context() as patch:
        patch.setattr(folder, "reduce", None)  # a second load reduces nothing
        assert_same(load(path), first)
    whole = array.read_bytes()
    for damaged in (whole[:-100], b"", whole[:-1] + bytes([whole[-1] ^ 255]), b"x" * len(whole)):
        array.write_bytes(damaged)
        assert_same(load(path), first)
        assert array.read_bytes() == whole
    array.with_suffix(".json").write_text("{")
    assert_same(load(path), first)
    assert sorted(item.suffix for item in cache.rglob("*") if item.is_file()) == [".json", ".npy"]


def test_changed_archive_size_or_folder_misses_the_cache(tmp_path):
    path = make_folder(tmp_path / "images", drawings())
    before = load(path)
    (path / "a" / "0.png").write_bytes(encode(drawing(20)))
    os.utime(path / "a" / "0.png", ns=(1, 1))
    after = load(path)
    assert any(
        not np.array_equal(a[0], b[0]) for a, b in zip((before.train, before.test), (after.train, after.test))
    ) or (not np.array_equal(before.validation[0], after.validation[0]))
    assert load(path, size=32).train[0].shape[1:] == (36, 36, 1)


def test_unwritable_cache_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HBN_CACHE", str(tmp_path / "file" / "below"))
    path = make_zip(tmp_path / "some.zip", drawings())
    assert_same(load(path), load(path))


def test_archive_and_folder_give_the_same(tmp_path):
    data = load(make_zip(tmp_path / "some.zip", drawings()))
    other = load(make_folder(tmp_path / "some", drawings()))
    for part in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(data, part)[0], getattr(other, part)[0])


# Errors


def damaged(path, how):
    make_zip(path, drawings())
    data = bytearray(path.read_bytes())
    if how == "cut short":
        del data[-200:]
    elif how == "CRC":
        with zipfile.ZipFile(path) as archive:
            data[archive.getinfo("a/1.png").header_offset + 60] ^= 255
    else:
        data = {"empty": b"", "text": b"no archive at all"}[how]
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("how", "message"),
    [("cut short", "damaged or cut short"), ("CRC", "a/1.png.*CRC"), ("empty", "not a zip"), ("text", "not a zip")],
)
def test_damaged_archives(tmp_path, cache, how, message):
    with pytest.raises(DataError, match=message):
        load(damaged(tmp_path / "bad.zip", how))
    assert not list(cache.rglob("*"))  # nothing half-written


@pytest.mark.parametrize("name", ["../x.png", "a/../../x.png", "/etc/x.png", "C:/x.png", "..\\x.png"])
def test_unsafe_names_are_refused(tmp_path, name):
    with pytest.raises(DataError, match="refused"):
        load(make_zip(tmp_path / "bad.zip", drawings() | {name: encode(drawing(0))}))


def test_oversize_member_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "LARGEST_FILE", 10**5)  # 50 MB is the real limit
    assert folder.LARGEST_FILE < 50 * 10**6
    with pytest.raises(DataError, match="a/9.png.*100001 bytes"):
        load(make_zip(tmp_path / "bad.zip", drawings() | {"a/9.png": bytes(100001)}, zipfile.ZIP_DEFLATED))
    with pytest.raises(DataError, match="a/9.png.*100001 bytes"):
        load(make_folder(tmp_path / "bad", drawings() | {"a/9.png": bytes(100001)}))


@pytest.mark.parametrize("data", [b"", b"not an image", encode(drawing(0))[:-30], encode(drawing(0))[:60]])
@pytest.mark.parametrize("make", [make_zip, make_folder])
def test_unreadable_image_is_named(tmp_path, cache, make, data):
    with pytest.raises(DataError, match="a/1.png"):
        load(make(tmp_path / "bad", drawings() | {"a/1.png": data}))
    assert not list(cache.rglob("*"))


def test_large_image_is_refused_without_a_warning(tmp_path, recwarn):
    large = io.BytesIO()
    Image.new("1", (12000, 12000)).save(large, "png")
    with pytest.raises(DataError, match="12000 x 12000"):
        load(make_zip(tmp_path / "bad.zip", drawings() | {"a/1.png": large.getvalue()}))
    assert not recwarn.list


def test_drawing_among_photos_is_named(tmp_path):
    files = {f"{c}/{k}.png": encode(photo(k)) for c in "ab" for k in range(8)}
    svg = b'<svg viewBox="0 0 8 8"><path d="M1 1L7 7"/></svg>'
    with pytest.raises(DataError, match="b/1.svg.*among photos"):
        load(make_zip(tmp_path / "bad.zip", files | {"b/1.svg": svg}))
    inside = {f"man in {c}/{k}.SVG": svg for c in "ab" for k in range(4)}  # " in " and capitals mean nothing
    assert load(make_zip(tmp_path / "good.zip", inside)).preprocessing["kind"] == "sketch"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a/x.txt": b"1"}, "no images"),
        ({"1.png": encode(drawing(0))}, "no folder for each class"),
        (drawings("a"), "1 class"),
        (drawings() | {"few/1.png": encode(drawing(0)), "few/2.png": encode(drawing(1))}, "'few' has 2 images"),
        (
            {f"train/{c}/{k}.png": encode(drawing(k)) for c in "ab" for k in range(4)}
            | {"val/a/1.png": encode(drawing(0))},
            "'b'",
        ),
    ],
)
def test_layouts_that_cannot_be_used(tmp_path, files, message):
    for make in (make_zip, make_folder):
        with pytest.raises(DataError, match=message):
            load(make(tmp_path / make.__name__, files))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 8}, "size is 8"),
        ({"size": "64"}, "size is '64'"),
        ({"size": True}, "size is True"),
        ({"seed": -1}, "seed is -1"),
        ({"classes": 3}, "3 classes asked for.*has 2"),
        ({"classes": 1}, "expected 2 or more"),
        ({"classes": 0}, "expected 2 or more"),
        ({"classes": ["a", "dragon"]}, "no class 'dragon'"),
        ({"classes": ["a", "a"]}, "'a' twice"),
        ({"classes": "ab"}, "expected a whole number or a list"),
    ],
)
def test_wrong_arguments(tmp_path, options, message):
    with pytest.raises(DataError, match=message) as raised:
        load(make_zip(tmp_path / "some.zip", drawings()), **options)
    assert "\n" not in str(raised.value)


def test_missing_sources(tmp_path, cache, monkeypatch):
    with pytest.raises(DataError, match="does not exist"):
        load(tmp_path / "nowhere")
    with pytest.raises(DataError, match="fetch.*HBN_DATA"):
        load("tuberlin")
    monkeypatch.setenv("HBN_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="HBN_DATA"):
        load("tuberlin")
    monkeypatch.setenv("HBN_DATA", str(make_zip(tmp_path / "mine.zip", drawings())))
    assert load("tuberlin").classes == ("a", "b")
    monkeypatch.delenv("HBN_DATA")
    make_zip(cache / "sketches_svg.zip", drawings("cd"))
    assert load("tuberlin").classes == ("c", "d")


def test_fetch_keeps_nothing_of_a_bad_download(cache, monkeypatch):
    import pooch

    def broken(self, url, output_file, pooch, check_only=False):
        Path(output_file).write_bytes(b"half of it")
        raise ConnectionError("the host went away")

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", broken)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(DataError, match="the host went away.*HBN_DATA") as raised:
        tuberlin.fetch("svg", progress=False)
    assert "\n" not in str(raised.value) and not list(cache.rglob("*.*"))


# Command line


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "data_tools", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def test_info_and_preview(tmp_path):
    path = make_zip(tmp_path / "some.zip", drawings())
    done = run("info", path, "--classes", "a,b", "--size", 32)
    assert done.returncode == 0 and done.stderr == ""
    assert "2 classes" in done.stdout and "36 x 36 x 1" in done.stdout and "CC BY 4.0" in done.stdout
    done = run("preview", path, "--out", tmp_path / "sheet.png", "--augmented")
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert np.asarray(sheet).min() == 0
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("info", "nowhere"),
        ("info", "tuberlin"),
        ("info", "--size", "3"),
        ("info", "--classes", "nothing,of,these"),
        ("preview", "--out", "/nowhere/sheet.png"),
        ("preview", "--out", "sheet.txt"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(arguments):
    done = run(*arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("data_tools: ") and done.stderr.count("\n") == 1


def test_data_tools_needs_nothing_of_hbn_ref():
    code = "import sys, data_tools.folder, data_tools.doodles, data_tools.__main__; print('hbn_ref' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
