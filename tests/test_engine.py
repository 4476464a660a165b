"""The engine room's controls: which kernels, which of them a call gets, threads, the environment."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import JIT, KERNELS, assert_close, by_each_kernel, random_arrays

from hbn_ref import bits, conv, engine, kernels, layers, models, simd, train

ROOT = Path(__file__).parents[1]
COMPILED = pytest.mark.skipif(not JIT, reason="without the JIT there are only plain kernels and one thread")


def python(code, **env):
    """Run code in a fresh interpreter that knows no setting of ours but ``env``."""
    ours = ("HBN_KERNEL", "HBN_NUM_THREADS", "NUMBA_DISABLE_JIT")
    env = {key: value for key, value in os.environ.items() if key not in ours} | {"PYTHONPATH": str(ROOT)} | env
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True)


# ------------------------------------------------------------------------------------- the choice of kernels


@COMPILED
@pytest.mark.parametrize("name", KERNELS)
def test_the_kernel_that_was_set_is_the_one_in_use(name):
    with engine.kernel(None):
        engine.set_kernel(name)
        assert engine.get_kernel() == name


@pytest.mark.parametrize("bits", [0, 128, 256, 512])
def test_vector_kernels_are_the_default_where_the_processor_has_registers_for_them(bits, monkeypatch):
    monkeypatch.setattr(simd, "register_bits", lambda: bits)
    with engine.kernel(None):
        assert engine.get_kernel() == ("vector" if bits and JIT else "plain")


@COMPILED
def test_the_default_here_follows_the_true_registers():
    with engine.kernel(None):
        assert engine.get_kernel() == ("vector" if simd.register_bits() > 0 else "plain")


@pytest.mark.skipif(JIT, reason="about the plain Python that replaces compiled kernels")
def test_without_the_jit_even_a_wish_for_vectors_gives_plain_kernels():
    with engine.kernel("vector"):
        assert engine.get_kernel() == "plain"


@COMPILED
def test_kernel_is_restored_after_the_block_and_after_an_exception():
    with engine.kernel("vector"):
        with engine.kernel("plain"):
            assert engine.get_kernel() == "plain"
            with engine.kernel("vector"):
                assert engine.get_kernel() == "vector"
            assert engine.get_kernel() == "plain"
        assert engine.get_kernel() == "vector"
        with pytest.raises(ZeroDivisionError), engine.kernel("plain"):
            raise ZeroDivisionError
        assert engine.get_kernel() == "vector"


@pytest.mark.parametrize("name", ["Plain", "fast", "", 1, True])
def test_an_unknown_kernel_is_refused_and_changes_nothing(name):
    with engine.kernel("plain"):
        with pytest.raises(ValueError, match="name: expected plain or vector"):
            engine.set_kernel(name)
        with pytest.raises(ValueError, match="name: expected plain or vector"), engine.kernel(name):
            pass
        assert engine.get_kernel() == "plain"


# ------------------------------------------------------------------------------------- which kernel a call gets


def twins_that_count(monkeypatch):
    """Let each plain product be its own twin, and return the list of the types that the twins are called with."""
    calls = []

    def twin(plain):
        def kernel(start, stop, x, *args):
            calls.append(args[-2].dtype.name)  # of out, or of alpha
            return plain(start, stop, x, *args)

        return kernel

    plain = [*kernels.xnor_gather.values(), *kernels.float_gather.values()]
    twins = {kernel: twin(kernel) for kernel in plain}
    monkeypatch.setattr(engine, "_twins", lambda: twins)
    return calls


def every_product(dtype):
    """A packed matrix product, three forward and three backward passes."""
    x, w = random_arrays(0, (2, 4, 4, 3), (3, 3, 3, 2), dtype=dtype)
    for forward, backward in (
        (conv.conv2d_forward, conv.conv2d_backward),
        (conv.binary_weight_conv2d_forward, conv.binary_weight_conv2d_backward),
        (conv.xnor_conv2d_forward, conv.xnor_conv2d_backward),
    ):
        out, cache = forward(x, w)
        backward(out, cache)


@COMPILED
def test_float64_takes_the_plain_kernels(monkeypatch):
    calls = twins_that_count(monkeypatch)
    with engine.kernel("vector"):
        every_product(np.float64)
        assert calls == []
        every_product(np.float32)
    assert calls == 9 * ["float32"]  # out, dw and dx of each


@COMPILED
def test_packed_matrix_products_take_the_kernels_that_were_chosen(monkeypatch):
    calls, words = twins_that_count(monkeypatch), np.arange(4, dtype=np.uint64)[:, None]
    with engine.kernel("plain"):
        bits.xnor_matmul(words, words, 64)
        every_product(np.float32)
        assert calls == []
    with engine.kernel("vector"):
        bits.xnor_matmul(words, words, 64)
    assert calls == ["int32"]


@COMPILED
def test_every_product_has_a_twin_and_nothing_else_has():
    twins = engine._twins()
    assert set(twins) == {*kernels.xnor_gather.values(), *kernels.float_gather.values()}
    assert not set(twins) & set(twins.values())


# ------------------------------------------------------------------------------------- the environment

WHICH = "from hbn_ref import engine; print(engine.get_kernel(), engine.get_num_threads())"


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"HBN_KERNEL": "plain", "HBN_NUM_THREADS": "3"}, "plain 3"),
        ({"HBN_KERNEL": "vector", "HBN_NUM_THREADS": "1"}, "vector 1"),
        ({"HBN_KERNEL": "vector", "HBN_NUM_THREADS": "2", "NUMBA_DISABLE_JIT": "1"}, "plain 2"),
        ({"NUMBA_DISABLE_JIT": "1", "HBN_NUM_THREADS": "2"}, "plain 2"),
    ],
)
def test_the_environment_chooses_kernels_and_threads(env, expected):
    done = python(WHICH, **env)
    assert done.stdout.strip() == expected, done.stderr


def test_an_empty_or_missing_environment_leaves_the_choice_to_the_processor():
    for env in ({}, {"HBN_KERNEL": "", "HBN_NUM_THREADS": ""}):
        code = "from hbn_ref import engine, simd; print(engine.get_kernel(), simd.register_bits() > 0)"
        assert python(code, **env).stdout.split() in (["vector", "True"], ["plain", "False"])


@pytest.mark.parametrize("wanted", ["zero", "0", "-1", "1025", "2.0"])
def test_a_number_of_threads_that_is_none_takes_all_cores_and_says_so(wanted):
    done = python(WHICH, HBN_NUM_THREADS=wanted)
    assert int(done.stdout.split()[1]) >= 1
    assert f"HBN_NUM_THREADS: expected a whole number from 1 to 1024, got {wanted!r}" in done.stderr


def test_an_unknown_kernel_in_the_environment_is_refused_by_name():
    """At the first product, not at import: whoever sets a kernel himself never looks at it."""
    code = """
import numpy as np
from hbn_ref import bits, engine
try:
    bits.xnor_matmul(np.ones((1, 1), np.uint64), np.ones((1, 1), np.uint64), 64)
except ValueError as error:
    print(error)
engine.set_kernel("plain")
print(engine.get_kernel())
"""
    done = python(code, HBN_KERNEL="fast")
    assert done.stdout.splitlines() == ["HBN_KERNEL: expected plain or vector, got 'fast'", "plain"], done.stderr


# ------------------------------------------------------------------------------------- threads

PASSES = {
    "real": (conv.conv2d_forward, conv.conv2d_backward),
    "binary weight": (conv.binary_weight_conv2d_forward, conv.binary_weight_conv2d_backward),
    "xnor": (conv.xnor_conv2d_forward, conv.xnor_conv2d_backward),
}


@COMPILED
@pytest.mark.parametrize("c_out", [32, 70])  # tiles of 32 and 64
@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("kind", PASSES)
def test_no_bit_depends_on_the_number_of_threads_with_either_kernel(kind, name, c_out):
    forward, backward = PASSES[kind]
    x, w = random_arrays(0, (5, 17, 15, 64), (3, 3, 64, c_out), dtype=np.float32)  # 1275 pixels: no whole pieces
    results = []
    for number in (1, 2, 3):
        with engine.kernel(name), engine.threads(number):
            out, cache = forward(x, w, padding=1)
            results.append([array.tobytes() for array in (out, *backward(out, cache))])
            assert (engine._pool is not None) == (number > 1)  # large enough for threads to be used
    assert results[1] == results[0] and results[2] == results[0]


@COMPILED
@pytest.mark.parametrize("name", KERNELS)
def test_packed_matrix_product_does_not_depend_on_the_number_of_threads(name):
    a, b = random_arrays(0, (1001, 640), (130, 640))
    a, b, results = bits.pack(a), bits.pack(b), []
    for number in (1, 2, 3):
        with engine.kernel(name), engine.threads(number):
            results.append(bits.xnor_matmul(a, b, 640))
            assert (engine._pool is not None) == (number > 1)
    assert np.array_equal(results[1], results[0]) and np.array_equal(results[2], results[0])


def test_threads_are_restored_after_the_block_and_after_an_exception():
    before = engine.get_num_threads()
    with engine.threads(5):
        assert engine.get_num_threads() == 5
        with pytest.raises(ZeroDivisionError), engine.threads(2):
            raise ZeroDivisionError
        assert engine.get_num_threads() == 5
    assert engine.get_num_threads() == before


@pytest.mark.parametrize("number", [0, -1, 1025, 10**30, 1.5, "2", None])
def test_a_wrong_number_of_threads_is_refused_by_name(number):
    with pytest.raises(ValueError, match=r"\bthreads\b"):
        engine.set_num_threads(number)


@COMPILED
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_starts_its_own_threads():
    code = """
import os
import numpy as np
from hbn_ref import bits, engine
engine.set_num_threads(2)
a = np.random.default_rng(0).integers(0, 2**63, (2000, 8), np.uint64)
here = bits.xnor_matmul(a, a, 512)
assert engine._pool is not None
child = os.fork()
if child == 0:
    signal.alarm(60)
    os._exit(0 if np.array_equal(bits.xnor_matmul(a, a, 512), here) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = python(f"import signal; signal.alarm(120)\n{code}")
    assert done.stdout.strip() == "0", done.stderr


# ------------------------------------------------------------------------------------- a whole training step

NET = [
    models.conv("conv1", 32, 3, padding=1), models.max_pool(2), models.conv("conv2", 65, 3, padding=1),
    models.conv("conv3", 40, "map"), models.conv("conv4", 33, 1), models.classifier(),
]  # fmt: skip


def one_step(variant, binary_inputs=None):
    """Logits, all gradients, all weights and statistics of one step of a small network, always from the same start."""
    options = {"keep_real": ["conv3"]} if variant == "hybrid" else {}
    model = models.build(NET, variant, num_classes=5, in_channels=1, input_size=8, **options)
    x, labels = random_arrays(0, (16, 8, 8, 1), dtype=np.float32), np.arange(16) % 5
    watch = (lambda layer, x: binary_inputs.append((layer, x.copy()))) if binary_inputs is not None else None
    with layers.watching(model, watch, layers.XnorConv):
        logits = train.train_step(model, x, labels, train.SGD(lr=0.1))[1]
    gradients = [layer.grads[key].ravel() for _, layer, key in model.parameters()]
    return logits, np.concatenate(gradients), np.concatenate([value.ravel() for value in model.state().values()])


@COMPILED
@pytest.mark.parametrize("variant", models.VARIANTS)
def test_a_training_step_is_the_same_with_either_kernel_up_to_rounding(variant):
    results = by_each_kernel(one_step, variant)  # all gradients together: one alone may be 0 but for its rounding
    for plain, vector in zip(results["plain"], results["vector"], strict=True):
        assert_close(vector, plain.astype(np.float64), 2e-5)


@COMPILED
@pytest.mark.parametrize("variant", ["fbin", "hybrid"])
def test_binary_layers_of_a_network_give_the_same_bits_with_either_kernel(variant):
    inputs = []
    with engine.kernel("plain"):
        one_step(variant, inputs)
    assert len(inputs) == (3 if variant == "fbin" else 2)
    for layer, x in inputs:
        got = by_each_kernel(layer.forward, x)
        assert got["plain"].tobytes() == got["vector"].tobytes(), layer.name
