"""data_tools: archives and folders in, three splits of visible strokes out, augmentation, errors, command line."""

import io
import itertools
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

import data_tools
from data_tools import DataError, augment, dataset, doodles, folder, tuberlin

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
    assert one.preprocessing == other.preprocessing
    assert_same_images(one, other)


def assert_same_images(one, other):
    assert one.classes == other.classes
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


def test_three_folders_of_parts_are_taken_as_they_are(tmp_path):
    parts = {"train": 6, "val": 2, "test": 3}
    files = {f"{part}/{name}": png for part, count in parts.items() for name, png in drawings(count=count).items()}
    data = load(make_folder(tmp_path / "images", files), size=16)
    assert [len(getattr(data, part)[1]) for part in ("train", "validation", "test")] == [12, 4, 6]


def test_both_editions_in_one_folder_count_once(tmp_path):
    files = {f"png/{name}": content for name, content in drawings().items()}
    svg = {f"svg/{c}/{k}.svg": b'<svg viewBox="0 0 8 8"><path d="M0 0L8 8"/></svg>' for c in "ab" for k in range(5)}
    assert_same_images(load(make_folder(tmp_path / "both", files | svg)), load(make_folder(tmp_path / "one", files)))


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
    "transform, expected",
    [
        ("rotate(90)", [[-2, 1], [-4, 3]]),
        ("matrix(1 2 3 4 5 6)", [[1 + 6 + 5, 2 + 8 + 6], [3 + 12 + 5, 6 + 16 + 6]]),
    ],
)
def test_svg_transforms_by_hand(transform, expected):
    body = f'<svg viewBox="0 0 10 10"><g transform="{transform}"><path d="M1 2L3 4"/></g></svg>'
    [stroke] = tuberlin.read_strokes(body.encode())
    np.testing.assert_allclose(10 * stroke, expected, atol=1e-9)


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


def test_a_network_of_photos_takes_no_strokes():
    with pytest.raises(DataError, match="trained on a photo; expected one trained on sketches"):
        data_tools.prepare_strokes([np.zeros((2, 2))], dataset.make_preprocessing(16, "photo", 3))


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


WIDE = {"area": (0.3, 1.8), "aspect": 1.5, "rotation": 40.0}


def test_warps_are_as_wide_as_asked():
    about = {**augment.AUGMENTATION, "area": (0.3, 0.5), "aspect": 1.4, "rotation": 30.0}
    warps = augment.random_warps(2000, np.random.default_rng(0), 64, 72, about).reshape(-1, 2, 3)
    area = np.abs(np.linalg.det(warps[:, :, :2])) * 64**2 / 72**2
    assert 0.3 - 1e-9 < area.min() < 0.31 and 0.49 < area.max() < 0.5 + 1e-9
    width, height = np.hypot(warps[:, 0, 0], warps[:, 1, 0]), np.hypot(warps[:, 0, 1], warps[:, 1, 1])
    assert 1.35 < (width / height).max() <= 1.4 + 1e-9 and 1.35 < (height / width).max() <= 1.4 + 1e-9
    turn = np.rad2deg(np.arctan(warps[:, 1, 0] / warps[:, 0, 0]))
    assert 29 < np.abs(turn).max() < 30 + 1e-9


def test_an_area_above_1_takes_in_paper_and_leaves_nothing_out():
    about = {**augment.AUGMENTATION, "area": (1.3, 1.8), "aspect": 1.0, "rotation": 0.0}
    warps = augment.random_warps(500, np.random.default_rng(0), 64, 72, about).reshape(-1, 2, 3)
    corners = warps @ np.array([[0, 64], [0, 64], [1, 1]])  # (500, 2, corner 0 and the one across)
    assert (corners.min(axis=2) <= 1e-9).all() and (corners.max(axis=2) >= 72 - 1e-9).all()


KINDS = {"sketch": ("sketch", 1), "grey photo": ("photo", 1), "photo": ("photo", 3)}


@pytest.fixture(params=KINDS)
def noise(request):
    """Stored noise of each kind of images (6, 36, 36, C), and its preprocessing."""
    kind, channels = KINDS[request.param]
    about = dataset.make_preprocessing(32, kind, channels)
    images = np.random.default_rng(0).integers(0, 256, (6, 36, 36, channels), dtype=np.uint8)
    return images, about


def prepared(images, about):
    """8-bit images of the network's size as its input: nothing to crop."""
    return augment.evaluation_batch(images, about | {"stored": about["size"]})


def paper_of(about):
    level = 0 if about["kind"] == "sketch" else np.rint(255 * np.atleast_1d(about["mean"]))
    size = about["size"]
    return prepared(np.zeros((1, size, size, about["channels"]), np.uint8) + np.uint8(level), about)[0, 0, 0]


def one_level(about):
    """What one grey level of 255 is in the network's input, and a little for rounding."""
    step = 1 / 255 / np.min(about["std"])
    return 1.001 * (step / (about["solid"][1] - about["solid"][0]) if about["kind"] == "sketch" else step)


@pytest.fixture
def straight(monkeypatch):
    """Warps that are the centre crop, every time."""

    def warps(count, rng, size, stored, augmentation):
        start = (stored - size) // 2
        return np.tile([1.0, 0, start, 0, 1, start], (count, 1))

    monkeypatch.setattr(augment, "random_warps", warps)


def test_a_warp_that_changes_nothing_gives_the_image_exactly(noise, straight):
    images, about = noise
    batch = augment.training_batch(images, np.random.default_rng(0), about)
    np.testing.assert_array_equal(batch, augment.evaluation_batch(images, about))


def test_positions_of_the_pixels_give_the_pixels_exactly(noise):
    images, _ = noise
    at = np.broadcast_to(np.arange(36, dtype=np.float32) + np.float32(0.5), (6, 36, 36))
    for paper in (0, 200):
        np.testing.assert_array_equal(augment._sample(images, at, at.transpose(0, 2, 1), paper), images)


def test_values_between_pixels_by_hand():
    image = np.zeros((1, 2, 2, 1), np.uint8)
    image[0, :, :, 0] = [[10, 20], [50, 100]]
    x, y = np.float32([0.5, 1.0, 1.0, 1.25, 1.5]), np.float32([0.5, 0.5, 1.0, 0.75, 1.5])
    expected = [10, 15, 45, 0.75 * (0.25 * 10 + 0.75 * 20) + 0.25 * (0.25 * 50 + 0.75 * 100), 100]
    assert augment._sample(image, x[None, None], y[None, None], 7)[0, 0, :, 0].tolist() == expected


@pytest.mark.parametrize("x, y", [*itertools.product((-1e6, -0.5, 18, 36.5, 1e6), repeat=2)])
def test_beyond_the_image_is_paper(x, y):
    image = np.full((1, 36, 36, 3), (255, 0, 255), np.uint8)
    at = np.full((1, 1, 1), x, np.float32), np.full((1, 1, 1), y, np.float32)
    inside = x == y == 18
    assert augment._sample(image, *at, (9, 8, 7))[0, 0, 0].tolist() == ([255, 0, 255] if inside else [9, 8, 7])


def test_without_bending_a_warp_is_what_pillow_makes_of_it(noise):
    """To within one of 255 grey levels. Along the edge Pillow repeats the last pixel; here it fades to paper."""
    images, about = noise
    size, stored, channels = (about[key] for key in ("size", "stored", "channels"))
    warps = augment.random_warps(6, np.random.default_rng(3), size, stored, augment.AUGMENTATION | WIDE)
    batch = augment.training_batch(images, np.random.default_rng(3), about, WIDE | {"elastic": 0.0})
    fill = [0] if about["kind"] == "sketch" else np.rint(255 * np.atleast_1d(about["mean"])).astype(int).tolist()
    beyond = 0
    for image, warp, got in zip(images, warps, batch):
        picture = Image.fromarray(image[:, :, 0] if channels == 1 else image)
        fillcolor = fill[0] if channels == 1 else tuple(fill)
        warped = picture.transform(
            (size, size), Image.Transform.AFFINE, warp.tolist(), Image.Resampling.BILINEAR, fillcolor=fillcolor
        )
        expected = prepared(np.asarray(warped).reshape(1, size, size, channels), about)[0]
        across, down = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
        x, y = (warp[k] * across + warp[k + 1] * down + warp[k + 2] for k in (0, 3))
        nearest = np.minimum(np.minimum(x, stored - x), np.minimum(y, stored - y))  # to the edge; below 0 beyond it
        inside, outside = nearest >= 0.5, nearest < -0.51
        np.testing.assert_allclose(got[inside], expected[inside], atol=one_level(about))
        np.testing.assert_array_equal(got[outside], expected[outside])
        beyond += outside.sum()
    assert beyond > 100  # the warps go so far


def test_drawings_are_warped_as_pillow_does_it(lines):
    images, about = lines
    rng, again = (np.random.default_rng(5) for _ in range(2))
    batch = augment.training_batch(images[:8], rng, about)
    for image, warp, got in zip(images[:8], augment.random_warps(8, again, 64, 72), batch):
        warped = Image.fromarray(image[:, :, 0]).transform(
            (64, 64), Image.Transform.AFFINE, warp.tolist(), Image.Resampling.BILINEAR, fillcolor=0
        )
        expected = prepared(np.asarray(warped)[None, :, :, None], about)[0]
        assert (np.abs(got - expected) <= one_level(about)).mean() > 0.999  # but for strokes that meet the edge


def test_training_batches_of_every_kind_of_images(noise):
    images, about = noise
    everything = {**WIDE, "elastic": 3.0, "pen": 0.5, "erase": 0.4}
    batch, again, plain = (
        augment.training_batch(images, np.random.default_rng(0), about, how) for how in (everything, everything, None)
    )
    np.testing.assert_array_equal(batch, again)
    assert batch.shape == plain.shape == (6, 32, 32, about["channels"]) and batch.dtype == np.float32
    low, high = (prepared(np.full((1, 32, 32, about["channels"]), k, np.uint8), about)[0, 0, 0] for k in (0, 255))
    assert (low <= batch).all() and (batch <= high).all() and not np.array_equal(batch, plain)


def test_what_is_not_named_stays_as_it_is(noise):
    images, about = noise
    batches = [augment.training_batch(images, np.random.default_rng(0), about, how) for how in (
        None, {}, augment.AUGMENTATION, {"rotation": 10.0},
    )]  # fmt: skip
    for other in batches[1:]:
        np.testing.assert_array_equal(other, batches[0])


# Bending, pens, wiping


@pytest.mark.parametrize("size, spread", [(2, 1 / 2), (4, 1060 / 2304), (32, 151 / 315)])
def test_bends_have_the_stated_spread(size, spread):
    """Pixels' centres lie at knots in an image of 2 x 2, in the middle between them in one of 4 x 4."""
    bends = augment.random_bends(6000 if size < 32 else 1000, np.random.default_rng(0), size)
    assert bends.dtype == np.float32 and bends.shape[2:] == (size, size)
    assert abs(bends.mean()) < 0.02 and bends.std() == pytest.approx(spread, rel=0.03)
    across, down = bends[:, :, size // 2, size // 2]
    assert abs(np.corrcoef(across, down)[0, 1]) < 0.12


def test_bends_are_smooth_and_not_flat():
    bends = augment.random_bends(50, np.random.default_rng(0), 64)
    for axis in (2, 3):
        first, second = (np.diff(bends, n=n, axis=axis).std() / bends.std() for n in (1, 2))
        assert 0.05 < first < 0.1 and second < 0.015  # of noise without any smoothness: 1.4 and 2.4
    assert bends.std(axis=(2, 3)).min() > 0.1


def test_bends_are_drawn_from_the_generator():
    one, two, other = (augment.random_bends(3, np.random.default_rng(seed), 16) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other) and not np.array_equal(one[:, 0], one[:, 1])


@pytest.mark.parametrize("size", [32, 64])
def test_elastic_moves_pixels_by_that_many_64ths_of_the_image(straight, size):
    """Red rises from left to right, green downwards: what comes out says where it came from."""
    about = dataset.make_preprocessing(size, "photo", 3)
    stored = about["stored"]
    slope = 240 // stored
    image = np.zeros((stored, stored, 3), np.uint8)
    image[..., 0], image[..., 1] = slope * np.arange(stored), slope * np.arange(stored)[:, None]
    images = np.stack([image] * 60)
    bent = augment.training_batch(images, np.random.default_rng(0), about, {"elastic": 4.0})
    moved = (bent - augment.evaluation_batch(images, about)) * np.array(about["std"]) * 255 / slope
    margin = size // 4
    moved = moved[:, margin:-margin, margin:-margin]  # elsewhere some come from beyond the image
    for channel in (0, 1):
        assert moved[..., channel].std() == pytest.approx(4 * size / 64 * 151 / 315, rel=0.15)
    np.testing.assert_allclose(moved[..., 2], 0, atol=1e-3)


def patches(level, kind="sketch", count=300):
    about = dataset.make_preprocessing(32, kind, 1)
    images = np.zeros((count, 36, 36, 1), np.uint8)
    images[:, 10:20, 8:28] = level
    return images, about


def test_the_pen_presses_each_drawing_as_a_whole(straight):
    images, about = patches(80)
    batch = ink(augment.training_batch(images, np.random.default_rng(0), about, {"pen": 0.3}), about)
    inside = batch[:, 8:18, 6:26].reshape(300, -1)
    assert (inside.min(axis=1) == inside.max(axis=1)).all()
    levels = (inside[:, 0] * 0.3 + 0.2) * 255  # solid: ink from 0.2 to 0.5 of 255
    pressed = np.log(levels / 80)
    assert -0.3 - 0.01 < pressed.min() < -0.27 and 0.27 < pressed.max() < 0.3 + 0.01 and abs(pressed.mean()) < 0.03
    batch[:, 8:18, 6:26] = 0
    np.testing.assert_allclose(batch, 0, atol=1e-6)  # paper stays paper


def test_a_full_stroke_stays_one_under_any_pen(straight):
    images, about = patches(255)
    batch = augment.training_batch(images, np.random.default_rng(0), about, {"pen": 0.6})
    np.testing.assert_array_equal(batch, augment.evaluation_batch(images, about))


def test_photos_know_no_pen(straight):
    images, about = patches(80, "photo", 3)
    batch = augment.training_batch(images, np.random.default_rng(0), about, {"pen": 0.6})
    np.testing.assert_array_equal(batch, augment.evaluation_batch(images, about))


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
def test_wiping_takes_a_rectangle_of_about_the_stated_share_and_leaves_the_rest(straight, share):
    about = dataset.make_preprocessing(64, "photo", 3)
    images = np.full((400, 72, 72, 3), (255, 0, 255), np.uint8)
    before = augment.evaluation_batch(images, about)
    batch = augment.training_batch(images, np.random.default_rng(0), about, {"erase": share})
    wiped = (batch != before).any(axis=3)
    assert (batch[wiped] == paper_of(about)).all()
    rows, columns = wiped.any(axis=2), wiped.any(axis=1)
    np.testing.assert_array_equal(wiped, rows[:, :, None] & columns[:, None, :])
    for lines in (rows, columns):
        assert (np.abs(np.diff(lines.astype(int), axis=1)).sum(axis=1) <= 2).all()  # in one piece
        sides = lines.sum(axis=1)
        sides = sides[~lines[:, 0] & ~lines[:, -1]]  # what sticks out is cut off
        assert 0.5 * share * 64 - 1 <= sides.min() and sides.max() <= 1.5 * share * 64 + 1
    # of a side s from share / 2 to 3 share / 2 with its middle anywhere, s - s^2 / 4 lies within the image
    side = share - share**2 * (1 + 1 / 12) / 4
    assert wiped.mean() == pytest.approx(side**2, rel=0.08)


def test_wiping_differs_from_image_to_image_and_wipes_drawings_to_paper(straight):
    images, about = patches(255)
    batch = augment.training_batch(images, np.random.default_rng(0), about, {"erase": 0.3})
    plain = augment.evaluation_batch(images, about)
    wiped = batch != plain
    assert (batch[wiped] == paper_of(about)).all() and len({part.tobytes() for part in wiped}) > 100


BAD_AUGMENTATION = [
    ("area", 0.7), ("area", (0.7,)), ("area", (0.7, 0.8, 0.9)), ("area", (0, 1)), ("area", (0.7, 2.5)),
    ("area", ("a", "b")), ("area", "ab"), ("area", None), ("area", (1.0, 0.7)), ("aspect", 0.9), ("aspect", 5),
    ("rotation", -1), ("rotation", 181), ("rotation", (0, 10)), ("elastic", -0.1), ("elastic", 11), ("elastic", "1"),
    ("elastic", None), ("elastic", float("nan")), ("pen", -1), ("pen", 1e9), ("erase", 1.1), ("erase", -0.1),
    ("bend", 1), ("Elastic", 1),
]  # fmt: skip


@pytest.mark.parametrize("name, value", BAD_AUGMENTATION)
def test_bad_augmentation_is_refused_by_name(few, name, value):
    with pytest.raises(DataError, match=f"augmentation.*{name}") as raised:
        few.with_augmentation(**{name: value})
    assert "\n" not in str(raised.value)


def test_augmentation_at_its_limits_is_taken():
    assert augment.check_augmentation(None) == augment.check_augmentation({}) == augment.AUGMENTATION
    for good in ({"area": [0.05, 2]}, {"area": (1, 1)}, {"aspect": 1, "rotation": 180}, {"erase": 1}, {"elastic": 10}):
        assert augment.check_augmentation(good) == augment.AUGMENTATION | good


def test_augmentation_varies_training_batches_and_nothing_else(few):
    other = few.with_augmentation(elastic=2.0, area=(0.5, 1.2))
    assert few.augmentation == augment.AUGMENTATION
    assert other.augmentation == {**augment.AUGMENTATION, "elastic": 2.0, "area": (0.5, 1.2)}
    assert other.with_augmentation(elastic=1.0).augmentation == {**other.augmentation, "elastic": 1.0}
    assert_same(few, other)
    images = few.train[0][:6]
    for prepare in ("evaluation_batch", "ten_crops"):
        np.testing.assert_array_equal(getattr(few, prepare)(images), getattr(other, prepare)(images))
    batch, plain = (data.training_batch(images, np.random.default_rng(0)) for data in (other, few))
    expected = augment.training_batch(images, np.random.default_rng(0), few.preprocessing, other.augmentation)
    np.testing.assert_array_equal(batch, expected)
    assert not np.array_equal(batch, plain)


# Data to choose with, data to finish with


@pytest.fixture(scope="module")
def few():
    """As many drawings a class as TU-Berlin has, 54 and 26, small."""
    return doodles.load(size=16, classes=["car", "cat", "sun"], seed=2, train=48, validation=6, test=26)


def drawings_in(*parts):
    return {image.tobytes(): label for images, labels in parts for image, label in zip(images, labels.tolist())}


def test_without_validation_everything_but_the_test_is_learned_from(few):
    whole = few.without_validation()
    images, labels = whole.train
    assert np.bincount(labels).tolist() == [54] * 3 and (np.diff(labels) >= 0).all() and labels.dtype == np.int64
    assert drawings_in(whole.train) == drawings_in(few.train, few.validation) and len(drawings_in(whole.train)) == 162
    assert len(whole.validation[0]) == len(whole.validation[1]) == 0 and whole.validation[0].shape[1:] == (18, 18, 1)
    np.testing.assert_array_equal(whole.test[0], few.test[0])
    assert (whole.name, whole.classes, whole.preprocessing) == (few.name, few.classes, few.preprocessing)
    assert len(few.validation[1]) == 18  # itself as it was


def test_development_holds_out_a_quarter_and_leaves_the_test_out(few):
    for seed in range(3):
        data = few.development(seed)
        learned, held = drawings_in(data.train), drawings_in(data.test)
        assert not learned.keys() & held.keys()
        assert not (learned.keys() | held.keys()) & drawings_in(few.test).keys()
        assert learned | held == drawings_in(few.train, few.validation)  # with the labels they had
        assert np.bincount(data.train[1]).tolist() == [41] * 3 and np.bincount(data.test[1]).tolist() == [13] * 3
        assert len(data.validation[0]) == len(data.validation[1]) == 0


def test_development_draws_each_class_by_itself(few):
    whole, held = few.without_validation().train[0], drawings_in(few.development(0).test)
    places = [[image.tobytes() in held for image in part] for part in np.split(whole, 3)]
    assert places[0] != places[1] != places[2] != places[0]


def test_development_depends_on_the_seed_and_the_class_alone(few):
    first, again, other = (few.development(seed) for seed in (0, 0, 1))
    assert_same(first, again)
    held, others = drawings_in(first.test), drawings_in(other.test)
    assert 0 < len(held.keys() & others.keys()) < 0.6 * len(held)
    for k in range(3):
        one, two = ({key for key, label in found.items() if label == k} for found in (held, others))
        assert one != two
    two = doodles.load(size=16, classes=["car", "sun"], seed=2, train=48, validation=6, test=26).development(0)
    assert set(drawings_in(two.test)) == {key for key, label in held.items() if label != 1}


def test_development_keeps_the_augmentation_and_begins_anew_with_validation_drawings(few):
    bent = few.with_augmentation(elastic=1.0)
    assert bent.development(0).augmentation == bent.augmentation == bent.without_validation().augmentation
    assert_same(few.without_validation().development(3), few.development(3))


def test_development_of_very_few_drawings_holds_one_out():
    data = doodles.load(size=16, classes=["car", "sun"], train=1, validation=1, test=1).development(0)
    assert np.bincount(data.train[1]).tolist() == np.bincount(data.test[1]).tolist() == [1, 1]


@pytest.mark.parametrize("seed", [-1, 1.5, "0", None, True])
def test_development_refuses_a_bad_seed(few, seed):
    with pytest.raises(DataError, match="seed"):
        few.development(seed)


def test_the_seed_of_the_split_travels_with_the_data(tmp_path):
    path = make_zip(tmp_path / "some.zip", drawings())
    for seed in (0, 5, np.int64(7)):
        made = doodles.load(size=16, classes=["car", "sun"], seed=seed, train=1, validation=1, test=1)
        for about in (load(path, seed=seed).preprocessing, made.preprocessing):
            assert json.loads(json.dumps(about))["split_seed"] == seed


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


def test_downloads_and_reduced_drawings_have_a_folder_of_the_user(monkeypatch):
    monkeypatch.setenv("HBN_CACHE", "~/drawings")
    assert tuberlin.cache_folder() == Path.home() / "drawings"
    monkeypatch.delenv("HBN_CACHE")
    assert tuberlin.cache_folder().is_absolute() and "hbn_ref" in tuberlin.cache_folder().parts


def test_archive_and_folder_give_the_same(tmp_path):
    packed, plain = make_zip(tmp_path / "some.zip", drawings()), make_folder(tmp_path / "some", drawings())
    assert_same_images(load(packed), load(plain))


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
        (
            {f"{part}/{name}": png for part in ("train", "test") for name, png in drawings(count=1).items()},
            "class 'a' has 1 training image",
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


def test_the_command_line_writes_to_whatever_stands_for_stdout():
    code = "import io, runpy, sys; sys.argv[1:] = ['info', '--help']; out, sys.stdout = sys.stdout, io.StringIO()\n"
    code += "try:\n    runpy.run_module('data_tools', run_name='__main__')\n"
    code += "except SystemExit as end:\n    print(end.code, 'SOURCE' in sys.stdout.getvalue(), file=out)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "0 True", done.stderr


def test_data_tools_needs_nothing_of_hbn_ref():
    code = "import sys, data_tools.folder, data_tools.doodles, data_tools.__main__; print('hbn_ref' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
