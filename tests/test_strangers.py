"""Drawings of what a network does not know: where they come from, and how often it claims to know them."""

import re
from dataclasses import replace

import numpy as np
import pytest
from conftest import JIT
from PIL import Image

import data_tools
from data_tools import dataset, doodles, strangers
from data_tools.strokes import render
from hbn_ref import deploy, gallery, train
from hbn_ref.__main__ import main

ABOUT = dataset.make_preprocessing(16)


def test_strangers_are_drawings_the_same_ones_every_time():
    images, labels = strangers.images(3, 18)
    assert images.shape == (36, 18, 18, 1) and images.dtype == np.uint8 and np.bincount(labels).tolist() == [3] * 12
    assert not set(strangers.KINDS) & set(doodles.CLASSES)
    assert np.array_equal(strangers.images(2, 18)[0], images[np.arange(36) % 3 < 2])
    share = (strangers.images(2, 72)[0] > 0).mean(axis=(1, 2, 3))
    assert share.min() > 0.01 and share.max() < 0.4 and len({image.tobytes() for image in images}) == 36


def test_unknown_takes_the_classes_that_are_not_known(tmp_path):
    images, kinds = data_tools.unknown("strangers", ["cat"], ABOUT)
    assert kinds == 12 and images.shape == (300, 18, 18, 1)
    for name in ("ant", "bee", "cow"):
        (tmp_path / name).mkdir()
        for k in range(4):
            lines = doodles.draw("cat", np.random.default_rng([k, ord(name[0])]))
            Image.fromarray(255 - render(lines, 36, width=2)).save(tmp_path / name / f"{k}.png")
    every = data_tools.load(tmp_path, size=16)
    expected = [part[0][part[1] != 1] for part in (every.train, every.validation, every.test)]
    images, kinds = data_tools.unknown(tmp_path, ["bee", "dog"], ABOUT)
    assert kinds == 2 and np.array_equal(images, np.concatenate(expected)) and len(images) == 8
    with pytest.raises(data_tools.DataError, match="knows all"):
        data_tools.unknown(tmp_path, ["ant", "bee", "cow"], ABOUT)
    for call in (data_tools.unknown, lambda *args: data_tools.doodles_for(args[2])):
        with pytest.raises(data_tools.DataError, match="trained on sketches"):
            call("strangers", [], ABOUT | {"kind": "photo"})


def test_doodles_for_a_network_are_of_every_class_and_of_its_size():
    x = data_tools.doodles_for(ABOUT, 2)
    assert x.shape == (30, 16, 16, 1) and x.dtype == np.float32
    assert np.array_equal(x, data_tools.doodles_for(ABOUT, 2))


@pytest.mark.skipif(not JIT, reason="a whole network as plain Python takes minutes")
def test_evaluate_says_how_often_a_network_is_wrong_about_what_it_knows(tmp_path, capsys, monkeypatch):
    few = doodles.load(test=2)
    monkeypatch.setattr(data_tools, "load", lambda *args, **options: few)
    path = gallery.BUILT_IN / "hybrid.npz"
    assert main(["evaluate", str(path), "--unknown", "strangers"]) == 0
    line = capsys.readouterr().out.splitlines()[1]
    doubted, right, strange = (float(number) for number in re.findall(r"([\d.]+) %", line))
    packed = deploy.load(path)
    logits = packed(few.evaluation_batch(few.test[0]))
    below, named = logits.max(axis=1) < packed.none_of_these, logits.argmax(axis=1) == few.test[1]
    assert doubted == pytest.approx(100 * below.mean(), abs=0.06)
    assert right == pytest.approx(100 * below[named].mean(), abs=0.06)
    others = strangers.images(25, 72)[0]
    shown = [packed(x).max(axis=1) for x in train.batches(others, 100, few.evaluation_batch)]
    assert strange == pytest.approx(100 * np.mean(np.concatenate(shown) < packed.none_of_these), abs=0.06)
    assert "300 drawings of 12 kinds" in line and strange > 50 > right
    deploy.save(replace(packed, none_of_these=None), tmp_path / "old.npz")
    assert main(["evaluate", str(tmp_path / "old.npz"), "--unknown", "strangers"]) == 2
    assert "export --data" in capsys.readouterr().err
