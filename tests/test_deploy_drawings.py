"""Chapter 9, deploy: packed networks on every validation drawing, doodles and real ones. Slow: `make test-all`."""

from pathlib import Path

import numpy as np
import pytest
from conftest import JIT
from test_deploy import signs_of

import data_tools
from hbn_ref import deploy, models, train

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "sketches_png_33.zip"


def assert_the_same_on_every_drawing(model, drawings):
    """Bits, classes and logits of every validation drawing, some at a time."""
    packed = deploy.compile(model)
    for first in range(0, len(drawings.validation[0]), 50):
        x = drawings.evaluation_batch(drawings.validation[0][first : first + 50])
        logits, expected = signs_of(model, x)
        got, seen = packed.trace(x)
        assert [name for name, _ in seen] == [name for name, _ in expected]
        assert all(np.array_equal(found, right) for (_, found), (_, right) in zip(seen, expected, strict=True))
        assert np.array_equal(got, logits)


@pytest.mark.slow
@pytest.mark.skipif(not JIT, reason="too slow in plain Python")
@pytest.mark.parametrize("epochs", [0, 1])
@pytest.mark.parametrize("source", ["doodles", "real drawings"])
@pytest.mark.parametrize("name", ["small-fprec", "small-wbin", "small-hybrid", "small-fbin"])
def test_small_networks_on_every_validation_drawing(name, source, epochs):
    if source == "real drawings" and not REAL.exists():
        pytest.skip(f"needs {REAL}")
    drawings = data_tools.load("doodles" if source == "doodles" else REAL, size=64)
    options = {"keep_real": ["conv5", "conv6"]} if name == "small-hybrid" else {}
    model = models.build(name, num_classes=len(drawings.classes), in_channels=1, input_size=64, **options)
    if epochs:
        train.fit(model, *drawings.train, epochs=1, lr=0.003, prepare=drawings.training_batch, progress=False)
    assert_the_same_on_every_drawing(model, drawings)


@pytest.mark.slow
@pytest.mark.skipif(not JIT or not REAL.exists(), reason=f"needs compiled kernels and {REAL}")
@pytest.mark.parametrize("steps", [0, 8])
@pytest.mark.parametrize("name", ["sketchanet-fbin", "sketchanet-hybrid1"])
def test_sketchanet_on_every_validation_drawing(name, steps):
    drawings = data_tools.load(REAL, size=225)
    model = models.build(name, num_classes=len(drawings.classes), in_channels=1, input_size=225)
    optimizer, rng = train.Adam(0.003), np.random.default_rng(0)
    for _ in range(steps):
        some = rng.choice(len(drawings.train[0]), 16, replace=False)
        x = drawings.training_batch(drawings.train[0][some], rng)
        train.train_step(model, x, drawings.train[1][some], optimizer)
    assert_the_same_on_every_drawing(model, drawings)
