"""What the test files share: the JIT switch, the kernels, hypothesis settings, seeded arrays, comparisons.

With NUMBA_DISABLE_JIT=1 the kernels run as plain Python: the same tests then take a thinned grid of small
shapes.
"""

import dataclasses
import os
import shutil
import signal
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numba
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from hbn_ref import engine

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so a shell's background jobs begin; some tests press Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)

JIT = not numba.config.DISABLE_JIT
KERNELS = ("plain", "vector") if JIT else ("plain",)  # without the compiler there are no vector kernels

settings.register_profile(
    "hbn_ref",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=300 if JIT else 25,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("hbn_ref")

# The limits of words: one bit, one short of a word, a word, one more, several words.
WORD_CHANNELS = (1, 3, 31, 63, 64, 65, 96, 128, 200)
WORD_LIMITS = (2, 31, 32, 33, 63, 64, 65, 127, 128, 129, 191, 192, 193, 255, 256, 257)[: None if JIT else 7]
BINARY_CHANNELS = WORD_CHANNELS[1:]  # a binary layer with one input channel is an error


def thin(cases, keep):
    """All cases with the JIT on; with it off `keep` of them, evenly spread, first and last included."""
    cases = list(cases)
    if JIT or len(cases) <= keep:
        return cases
    return [cases[round(k * (len(cases) - 1) / (keep - 1))] for k in range(keep)]


def by_each_kernel(function, *args, **options):
    """{kernel: what function returns with it}. Only float32 and integers ever reach the vector kernels."""
    results = {}
    for name in KERNELS:
        with engine.kernel(name):
            results[name] = function(*args, **options)
    return results


def random_arrays(seed, *shapes, dtype=np.float64):
    """One standard normal array for each shape."""
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    return arrays[0] if len(arrays) == 1 else arrays


def with_zeros(x, seed=0):
    """x with about a third of its values replaced by 0 and -0.0."""
    rng = np.random.default_rng(seed)
    zero = rng.random(x.shape) < 1 / 3
    x = x.copy()
    x[zero] = rng.choice([0.0, -0.0], zero.sum())
    return x


def assert_close(got, expected, tolerance):
    """Largest difference at most `tolerance` times the largest expected value; same shape."""
    assert got.shape == expected.shape
    scale = max(np.abs(expected).max(initial=0.0), 1e-30)
    difference = np.abs(got.astype(np.float64) - expected)
    worst = np.unravel_index(difference.argmax(), difference.shape)
    assert difference[worst] <= tolerance * scale, (
        f"index {worst}: expected {expected[worst]}, got {got[worst]}; relative to the largest value "
        f"{difference[worst] / scale:.3g} > {tolerance:g}"
    )


def table_case(number, channels, kernel, stride, padding, pad_value):
    """Batch, sizes and filters change from case to case; the kernel always fits the padded input."""
    batch, c_out = 1 + number % 5, (1, 3, 6, 17)[number % 4]
    height = max(1, kernel - 2 * padding) + number % 6
    width = max(1, kernel - 2 * padding) + (number // 6) % 5
    shape = (batch, height, width, channels) if JIT else (1 + number % 2, height, width, channels)
    x, w = random_arrays(number, shape, (kernel, kernel, channels, c_out if JIT else 1 + number % 3))
    return (
        with_zeros(x),
        with_zeros(w, seed=1),
        {"stride": stride, "padding": padding, "pad_value": pad_value},
    )


@st.composite
def convolutions(draw, channels=None):
    """Anything the convolution accepts: sizes drawn so that the kernel fits the padded input."""
    largest = 7 if JIT else 4
    kernel = draw(st.tuples(st.integers(1, largest), st.integers(1, largest)))
    padding = draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    more = draw(st.tuples(st.integers(0, 6), st.integers(0, 6)))
    height, width = (max(1, k - 2 * p) + m for k, p, m in zip(kernel, padding, more, strict=True))
    batch = draw(st.integers(1, 5 if JIT else 2))
    channels = draw(st.integers(2, 200 if JIT else 70)) if channels is None else channels
    c_out = draw(st.sampled_from([1, 2, 3, 4, 7, 8, 16, 17] if JIT else [1, 3]))
    x, w = random_arrays(draw(st.integers(0, 2**32)), (batch, height, width, channels), (*kernel, channels, c_out))
    bias = draw(st.sampled_from([0.0, 2.0, -2.0]))  # mostly one sign: large counts
    x = with_zeros(x + bias).astype(draw(st.sampled_from([np.float32, np.float64])))
    options = {"stride": stride, "padding": padding, "pad_value": draw(st.sampled_from([-1, 0, 1]))}
    return x, with_zeros(w, seed=1).astype(x.dtype), options


def two_parabolas(x):
    return np.where(np.abs(x) < 1, 2 * x - np.sign(x) * x**2, np.sign(x))


def sign_swish(x, beta=5.0):
    s = 1 / (1 + np.exp(-beta * x))
    return 2 * s * (1 + beta * x * (1 - s)) - 1


# The function that each estimator differentiates in the place of sign.
SURROGATES = {"ste": lambda x: np.clip(x, -1, 1), "approx_sign": two_parabolas, "swish_sign": sign_swish}


def arrays_in(value, skip=()):
    """Every array reachable through tuples, lists, dicts and fields of objects; those of type `skip` left out.

    Of a view its base is counted, which is what it keeps alive.
    """
    if isinstance(value, np.ndarray):
        return [value.base if isinstance(value.base, np.ndarray) else value]
    if isinstance(value, (skip, type)):
        return []
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        return [array for item in value for array in arrays_in(item, skip)]
    if dataclasses.is_dataclass(value):
        return arrays_in([getattr(value, field.name) for field in dataclasses.fields(value)], skip)
    return arrays_in(vars(value), skip) if hasattr(value, "__dict__") else []


@pytest.fixture
def open_to_all():
    """A folder that every user may enter, unlike pytest's; see `locked`."""
    with TemporaryDirectory(prefix="hbn_ref") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@contextmanager
def locked(folder):
    """Within the block nobody here may write into a folder: root, to whom all are open, becomes another user."""
    if not hasattr(os, "seteuid"):
        pytest.skip("this system has other ways to lock a folder")
    root, mode = os.geteuid() == 0, folder.stat().st_mode
    folder.chmod(0o555)
    try:
        if root:
            os.seteuid(65534)  # nobody
        yield
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(mode)


@pytest.fixture(scope="module")  # while playwright is open, its thread has an event loop
def browser():
    """Chromium, driven by playwright; tests that need it are skipped where either is missing."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    paths = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    path = next(filter(None, paths), None)
    if path is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on the PATH")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield found
        found.close()
