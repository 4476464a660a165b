"""The built-in drawings: the same for a seed, plausible as sketches, and not too easy."""

import numpy as np
import pytest

from data_tools import doodles, strokes
from data_tools.errors import DataError


@pytest.fixture(scope="module")
def dataset():
    return doodles.load(seed=3, train=60, validation=10, test=30)


def ink(images):
    """Share of the paper under ink, an image."""
    return images.mean(axis=(1, 2, 3)) / 255


def test_classes_are_many_and_alphabetical():
    assert len(doodles.CLASSES) >= 12
    assert list(doodles.CLASSES) == sorted(set(doodles.CLASSES))


def test_shapes_types_and_labels(dataset):
    count = len(doodles.CLASSES)
    for (images, labels), each in [(dataset.train, 60), (dataset.validation, 10), (dataset.test, 30)]:
        assert images.shape == (count * each, 72, 72, 1) and images.dtype == np.uint8
        assert labels.dtype == np.int64
        np.testing.assert_array_equal(np.bincount(labels), each)
    assert dataset.classes == doodles.CLASSES
    expected = {"size": 64, "stored": 72, "channels": 1, "kind": "sketch", "source": "doodles"}
    assert dataset.preprocessing.items() >= expected.items()


def test_default_split_has_80_20_200_drawings_a_class():
    dataset = doodles.load(size=16, classes=["bus", "sun"])  # small, to be quick
    assert [len(labels) for _, labels in (dataset.train, dataset.validation, dataset.test)] == [160, 40, 400]
    assert dataset.test[0].shape == (400, 18, 18, 1)


def test_same_seed_same_bytes_and_another_seed_other_drawings():
    few = {"classes": ["cat", "cup"], "train": 4, "validation": 2, "test": 3}
    first, again, other = (doodles.load(seed=seed, **few) for seed in (5, 5, 6))
    for split in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(first, split)[0], getattr(again, split)[0])
        assert (getattr(first, split)[0] != getattr(other, split)[0]).any(axis=(1, 2, 3)).all()


def test_a_drawing_depends_on_no_other_class_and_no_other_count():
    many = doodles.load(seed=1, classes=["car", "fish", "tree"], train=3, validation=2, test=2)
    few = doodles.load(seed=1, classes=["fish", "tree"], train=2, validation=2, test=2)
    np.testing.assert_array_equal(few.test[0], many.test[0][2:])
    np.testing.assert_array_equal(few.train[0][:2], many.train[0][3:5])


def test_no_drawing_comes_twice(dataset):
    """Within a split or in two splits: every image is unlike every other."""
    seen = {image.tobytes() for images, _ in (dataset.train, dataset.validation, dataset.test) for image in images}
    assert len(seen) == sum(len(labels) for _, labels in (dataset.train, dataset.validation, dataset.test))


def test_ink_is_white_on_black_and_thin(dataset):
    images, labels = dataset.train
    share = ink(images)
    assert share.min() > 0.005 and share.max() < 0.3
    assert images.max() == 255 and (images[:, 0, 0, 0] == 0).mean() > 0.9  # paper in the corner
    for label, name in enumerate(dataset.classes):
        assert 0.03 < share[labels == label].mean() < 0.14, name


def test_drawings_fill_the_frame(dataset):
    """The longer side of a drawing takes more than half of the frame and all of it is inside."""
    for image in dataset.test[0][::7, :, :, 0] > 0:
        sides = [np.flatnonzero(image.any(axis=axis)) for axis in (0, 1)]
        assert max(side[-1] - side[0] + 1 for side in sides) > 36
    for name in doodles.CLASSES:
        points = np.concatenate(doodles.draw(name, np.random.default_rng(0)))
        assert points.min() > 0 and points.max() < 1, name


def test_classes_differ_from_one_another(dataset):
    images, labels = dataset.train
    means = [images[labels == label].mean(axis=0) for label in range(len(dataset.classes))]
    for i, one in enumerate(means):
        for j in range(i):
            assert np.abs(one - means[j]).mean() > 1, (dataset.classes[i], dataset.classes[j])


def test_nearest_mean_fails(dataset):
    """A linear model cannot do the task; the shapes have to be learnt."""
    (images, labels), (test_images, test_labels) = dataset.train, dataset.test
    x, test_x = (part[:, 4:68, 4:68].reshape(len(part), -1) / 255.0 for part in (images, test_images))
    means = np.stack([x[labels == label].mean(axis=0) for label in range(len(dataset.classes))])
    guess = np.argmax(test_x @ means.T - (means**2).sum(axis=1) / 2, axis=1)
    assert 1 / len(means) < (guess == test_labels).mean() < 0.5


@pytest.mark.parametrize("call", [lambda name: doodles.draw(name, np.random.default_rng(0)),
                                  lambda name: doodles.images(name, 0, np.random.default_rng(0), 72),
                                  lambda name: doodles.load(classes=["cat", name])])  # fmt: skip
def test_unknown_class_is_named(call):
    with pytest.raises(DataError, match="zeppelin"):
        call("zeppelin")


@pytest.mark.parametrize("bad", [{"train": -1}, {"test": 2.5}, {"validation": "many"}, {"seed": -1}, {"size": 0}])
def test_bad_arguments_are_named(bad):
    (name,) = bad
    with pytest.raises(DataError, match=name):
        doodles.load(classes=["cat", "cup"], **bad)


def test_render_puts_ink_where_the_stroke_is():
    image = strokes.render([np.array([[0.25, 0.5], [0.75, 0.5]])], 32, width=2)
    assert image.shape == (32, 32) and image.dtype == np.uint8
    np.testing.assert_array_equal(image[15:17, 9:23], 255)
    assert image[:14].max() == 0 and image[18:].max() == 0 and image[:, :6].max() == 0 and image[:, 26:].max() == 0


def test_render_of_nothing_and_of_a_dot():
    assert strokes.render([], 8, width=2).max() == 0
    dot = strokes.render([np.array([[0.5, 0.5]])], 9, width=3)
    assert dot[4, 4] == 255 and dot[0].max() == 0
    assert strokes.render([np.zeros((0, 2))], 8, width=2).max() == 0


@pytest.mark.parametrize("stroke", [[[0.1, np.nan]], [0.1, 0.2], [[0.1, 0.2, 0.3]]])
def test_render_refuses_what_is_no_stroke(stroke):
    with pytest.raises(ValueError, match=r"strokes\[1\]"):
        strokes.render([np.zeros((2, 2)), stroke], 8, width=2)


@pytest.mark.parametrize("size, width, message", [(0, 1, "size .* at least 1, got 0"), (8, 0, "width must be above 0")])
def test_render_refuses_a_sheet_or_a_pen_of_no_size(size, width, message):
    with pytest.raises(ValueError, match=message):
        strokes.render([], size, width=width)


def test_render_grows_with_the_width():
    stroke = [np.array([[0.1, 0.2], [0.9, 0.8]])]
    shares = [strokes.render(stroke, 72, width=width).mean() for width in (1.0, 1.5, 2.0, 3.0)]
    assert shares == sorted(shares) and shares[0] > 0
