"""The kit itself: good functions pass, its cases reach what they should, and what a caller asks for is done.

Faults planted in functions are in test_testing_faults.py. Nothing here needs a compiled kernel.
"""

import doctest
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from conftest import random_arrays
from other_kernels import backward, binary_weight, both, counts, fold, pack, scaled, unpack, xnor_matmul

from hbn_ref import reference, testing
from hbn_ref.testing import (
    check_binary_weight_conv,
    check_pack,
    check_threshold,
    check_unpack,
    check_vjp,
    check_xnor_conv,
    check_xnor_conv_backward,
    check_xnor_matmul,
    conv_cases,
    layer_cases,
    matmul_cases,
    pack_cases,
    tables,
    truth,
)


def small(case):
    return case.size() < 3_000


# ------------------------------------------------------------------------------------------ good functions


def frozen(array):
    """Nobody may write into it, and it lies in memory the other way round."""
    array = np.asfortranarray(array)
    array.flags.writeable = False
    return array


RESULTS = {
    "float64": lambda array: array.astype(np.float64),
    "float32": lambda array: array.astype(np.float32),
    "int32": lambda array: array.astype(np.int32),
    "int64, read-only, in Fortran's order": lambda array: frozen(array.astype(np.int64)),
    "a list": lambda array: array.tolist(),
}


@pytest.mark.parametrize("result", RESULTS)
def test_right_kernels_pass_whatever_they_return(result):
    made = RESULTS[result]
    check_unpack(lambda words, channels: made(unpack(words, channels)), level="quick")
    check_xnor_matmul(lambda a, b, n: made(xnor_matmul(a, b, n)), level="quick")
    check_xnor_conv(lambda x, w, **options: made(counts(x, w, **options)), max_cases=60)
    check_threshold(lambda *args: tuple(made(array.astype(np.int64)) for array in fold(*args)), where=small)


def test_a_kernel_that_is_not_yet_written_is_told_that_it_returns_nothing():
    with pytest.raises(AssertionError, match="the function returned nothing"):
        check_xnor_conv(lambda x, w, **options: None, max_cases=1)


def test_words_may_be_read_only_and_in_another_memory_order():
    check_pack(lambda x: frozen(pack(x)), level="quick")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_right_kernels_pass_with_every_input_type(dtype):
    check_pack(pack, dtype=dtype, level="quick")
    check_xnor_conv(counts, dtype=dtype, max_cases=60)
    check_xnor_conv(scaled, scale=True, dtype=dtype, max_cases=60)
    check_xnor_conv_backward(backward, dtype=dtype, max_cases=60)
    check_binary_weight_conv(binary_weight, dtype=dtype, max_cases=60)


def test_the_reference_itself_passes():
    """Slow loops, so small cases only: what is expected was worked out in another way."""
    check_pack(reference.pack, where=small, max_cases=150)
    check_unpack(reference.unpack, where=small, max_cases=100)
    check_xnor_matmul(reference.xnor_matmul, where=small, max_cases=100)
    check_xnor_conv(lambda x, w, **o: reference.xnor_conv2d_forward(x, w, scale=False, **o), where=small, max_cases=150)
    check_xnor_conv(reference.xnor_conv2d_forward, scale=True, where=small, max_cases=60)
    check_xnor_conv_backward(reference.xnor_conv2d_backward, where=small, max_cases=100)
    check_binary_weight_conv(reference.binary_weight_conv2d_forward, where=small, max_cases=60)


@pytest.mark.parametrize("wanted", [(0, 1, -1), (0,), (1,), (-1,)])
@pytest.mark.parametrize("form", [tuple, iter, set])
def test_check_xnor_conv_hands_out_the_borders_it_was_asked_for_from_any_iterable(wanted, form):
    seen = set()

    def remember(x, w, *, pad_value, **options):
        seen.add((pad_value, np.any(options["padding"])))
        return counts(x, w, pad_value=pad_value, **options)

    check_xnor_conv(remember, pad_values=form(wanted), max_cases=30)
    assert {value for value, _ in seen} == set(wanted)
    assert {padded for _, padded in seen} == {False, True}


@pytest.mark.parametrize("estimator", ["ste", "approx_sign", "swish_sign"])
@pytest.mark.parametrize("scale", [True, False])
def test_check_xnor_conv_backward_takes_every_estimator_and_scale(estimator, scale):
    def rounded(dout, x, w, **options):
        dx, dw = backward(dout, x, w, estimator=estimator, scale=scale, **options)
        return [dx.astype(np.float32), dw.astype(np.float32)]

    check_xnor_conv_backward(rounded, estimator=estimator, scale=scale, where=small, max_cases=60)
    with pytest.raises(AssertionError):
        check_xnor_conv_backward(rounded, estimator=estimator, scale=not scale, max_cases=60)


def test_an_unknown_estimator_is_named_before_anything_runs():
    with pytest.raises(ValueError, match="estimator: expected one of 'ste', 'approx_sign', 'swish_sign', got 'relu'"):
        check_xnor_conv_backward(backward, estimator="relu")
    with pytest.raises(ValueError, match="estimator.*'relu'"):
        reference.estimator_backward(np.ones(1), np.ones(1), "relu")


def test_kernels_that_round_to_float32_pass():
    def rounded(function):
        return lambda x, w, **options: function(x, w, **options).astype(np.float32)

    check_binary_weight_conv(rounded(binary_weight), level="quick")
    check_xnor_conv(rounded(scaled), scale=True, level="quick")


def test_a_scale_summed_in_float32_in_order_passes():
    """What the tolerance must allow: the rounding of n float32 numbers added one by one."""

    def plain(x, w, **options):
        alpha = np.add.accumulate(np.abs(w.reshape(-1, w.shape[3])), axis=0, dtype=np.float32)[-1]
        return counts(x, w, **options) * (alpha / np.float32(w[..., 0].size))

    check_xnor_conv(plain, scale=True, where=lambda case: case.products() > 3_000)


@pytest.mark.skipif(not hasattr(np, "bitwise_count"), reason="NumPy 1 has no popcount")
def test_the_example_of_the_module_runs():
    found = doctest.testmod(testing)
    assert found.attempted >= 4 and found.failed == 0


# ---------------------------------------------------------------------------------------------- the tables


def test_pack_cases_reach_every_limit():
    arrays = [case.arrays()[0] for case in pack_cases()]
    assert {1, 63, 64, 65, 127, 128, 129, 200} <= {x.shape[-1] for x in arrays}
    assert {x.ndim for x in arrays} == {1, 2, 3, 4}
    values = np.concatenate([x.ravel() for x in arrays])
    assert np.isinf(values).any() and not np.isnan(values).any()
    assert (np.signbit(values) & (values == 0)).any()
    assert ((values != 0) & (np.abs(values) < np.finfo(np.float32).tiny)).any()


AROUND = {limit + d for limit in (8, 16, 64, 256) for d in (-1, 0, 1)}


def test_matmul_cases_reach_every_limit():
    cases = matmul_cases()
    assert AROUND | {1, 127, 128, 129, 200, 4096, 65_537} <= {case.n for case in cases}
    assert AROUND <= {case.rows for case in cases} and AROUND | {1025} <= {case.filters for case in cases}
    assert {(130, 64, 256), (64, 130, 256)} <= {(case.rows, case.filters, case.n) for case in cases}
    largest = [case.expected() for case in cases if case.n == 140_000]
    assert {140_000, -140_000} <= {int(value) for product in largest for value in product.ravel()}
    assert set(testing.LAYOUTS) == {case.layout for case in cases}


def test_conv_cases_reach_every_limit():
    cases = conv_cases()
    assert AROUND | {1, 2, 3, 31, 96, 128, 200, 1025, 4096} <= {case.x_shape[3] for case in cases}
    assert AROUND | {1, 130, 1024} <= {case.w_shape[3] for case in cases}
    for place in (0, 1, 2):  # batch, height, width
        assert AROUND <= {case.x_shape[place] for case in cases}
    assert {(k, k) for k in range(1, 12)} < {case.w_shape[:2] for case in cases}
    assert {1, 2, 3, 4, (1, 2), (4, 1)} <= {case.stride for case in cases}
    assert {0, 1, 2, 3, 4, 5} <= {case.padding for case in cases}
    assert {0, 1, -1} == {case.pad_value for case in cases}
    assert any(case.x_shape[1:3] == (56, 56) and case.w_shape[:3] == (3, 3, 64) and case.padding == 1 for case in cases)
    assert set(testing.SIGNS) == {case.signs for case in cases}
    assert set(testing.LAYOUTS) == {case.layout for case in cases}
    assert max(case.products() for case in cases) > 2**16
    words = {np.prod(case.x_shape[:3]) * -(-case.x_shape[3] // 64) for case in cases}
    assert max(words) > 2**16 and max(np.prod(case.out_shape()) for case in cases) > 2**16
    assert max(np.prod(case.w_shape[:2]) * case.w_shape[3] * -(-case.w_shape[2] // 64) for case in cases) > 2**16


def test_the_default_check_costs_little_beside_the_kernel():
    """A billion multiply-accumulates and 50 million numbers are seconds; quick is a tenth of that."""
    for cases, macs, numbers in ((conv_cases(), 1e9, 5e7), (conv_cases(level="quick"), 3e7, 3e6)):
        assert sum(case.macs() for case in cases) < macs
        assert sum(np.prod(case.x_shape) + np.prod(case.w_shape) for case in cases) < numbers


def test_quick_is_a_spread_and_full_has_the_networks():
    quick, full = conv_cases(level="quick"), conv_cases(level="full")
    assert len(quick) == tables.QUICK and set(quick) < set(conv_cases()) < set(full)
    assert {case.attributes()["kernel"] for case in quick} >= {f"{k} x {k}" for k in range(1, 12)}
    assert {replace(case, seed=0) for case in layer_cases("resnet18")} <= {replace(case, seed=0) for case in full}


def test_layer_cases_are_the_layers_of_the_network():
    cases = layer_cases("resnet18")
    shapes = {(case.x_shape, case.w_shape, case.stride, case.padding) for case in cases}
    assert ((1, 56, 56, 64), (3, 3, 64, 64), 1, 1) in shapes and ((1, 14, 14, 256), (3, 3, 256, 512), 2, 1) in shapes
    assert ((1, 28, 28, 128), (1, 1, 128, 256), 2, 0) in shapes and len(shapes) == len(cases) == 10
    assert sorted(len(layer_cases(name)) for name in tables.LAYER_SIZES) == [5, 5, 6, 10, 20, 48]
    assert {case.pad_value for case in layer_cases("small", (1, -1))} == {1, -1}
    assert layer_cases("small", input_size=32)[-1].x_shape != layer_cases("small")[-1].x_shape
    with pytest.raises(ValueError, match="network: .*resnet18.*got 'vgg'"):
        layer_cases("vgg")
    check_xnor_conv(counts, cases=layer_cases("small"))


def test_what_is_expected_equals_the_slow_loops():
    for case in tables.spread([case for case in conv_cases() if small(case)], 150):
        x, w = case.arrays()
        slow = reference.xnor_conv2d_forward(x, w, scale=False, **case.options())
        assert np.array_equal(case.expected(), slow)
        assert case.expected_at((0, 0, 0, 0)) == slow[0, 0, 0, 0]


def test_a_failure_is_not_reported_where_the_expected_sum_was_wrong(monkeypatch):
    monkeypatch.setattr(truth, "conv", lambda x, w, size, *args, **options: np.full((len(x), *size, w.shape[3]), 9))
    with pytest.raises(RuntimeError, match="NumPy's sum 9 is wrong on this machine"):
        check_xnor_conv(lambda x, w, **options: 0 * counts(x, w, **options), max_cases=20)


@pytest.mark.parametrize("table", [pack_cases, matmul_cases, conv_cases])
def test_small_cases_come_first_and_of_about_one_size_the_plainest(table):
    cases = table()
    assert cases == sorted(cases, key=testing.Case.order)
    assert cases[0].oddness() == 0 and cases[0].size() <= 2
    before = [case for case in cases if case.order()[0] == 0]
    assert [case.oddness() for case in before] == sorted(case.oddness() for case in before)


@pytest.mark.parametrize("case", [pack_cases()[7], matmul_cases()[5], conv_cases()[11], conv_cases()[-1]], ids=str)
def test_the_repr_of_a_case_makes_it_again(case):
    again = eval(f"testing.{case!r}")
    assert all(np.array_equal(a, b) for a, b in zip(again.arrays(), case.arrays(), strict=True))


# --------------------------------------------------------------------------------------------- check_vjp


def product(x, w):
    return x @ w, (x, w)


def product_backward(dout, cache):
    x, w = cache
    return dout @ w.T, x.T @ dout


def wrong_in_one_element(dout, cache):
    dx, dw = product_backward(dout, cache)
    dw[1, 0] *= 1.0001
    return dx, dw


PRODUCT_FAULTS = {
    "half the gradient": (lambda d, c: (d @ c[1].T / 2, c[0].T @ d), "argument 0 .*expected"),
    "wrong sign": (lambda d, c: (d @ c[1].T, -c[0].T @ d), "argument 1 .*expected"),
    "one element wrong": (wrong_in_one_element, r"argument 1 of shape \(4, 2\)"),
    "wrong shape": (lambda d, c: (d @ c[1].T, d.T @ c[0]), r"expected shape \(4, 2\), got \(2, 4\)"),
    "too few gradients": (lambda d, c: d @ c[1].T, "2, got 1"),
    "no gradient at all": (lambda d, c: (None, None), "nothing to check"),
    "NaN": (lambda d, c: (d @ c[1].T * np.nan, None), "got nan"),
    "infinity": (lambda d, c: (None, np.full((4, 2), np.inf)), "got (inf|nan)"),
}


def test_check_vjp_accepts_a_right_backward_pass():
    x, w = random_arrays(0, (3, 4), (4, 2))
    check_vjp(product, product_backward, (x, w))
    check_vjp(product, product_backward, (x, w), elementwise=True)
    check_vjp(product, lambda dout, cache: (None, cache[0].T @ dout), (x.astype(np.float32), w), wrt=(1,))
    check_vjp(np.sin, lambda dout, cache: dout * np.cos(x), (x,))  # no cache, one argument


@pytest.mark.parametrize("fault", PRODUCT_FAULTS)
def test_check_vjp_catches(fault):
    faulty, message = PRODUCT_FAULTS[fault]
    with pytest.raises(AssertionError, match=message), np.errstate(invalid="ignore"):
        check_vjp(product, faulty, random_arrays(0, (3, 4), (4, 2)))


def test_check_vjp_elementwise_names_the_element():
    x, w = random_arrays(0, (3, 4), (4, 2))
    with pytest.raises(AssertionError, match=r"argument 1 .*element \(1, 0\)"):
        check_vjp(product, wrong_in_one_element, (x, w), elementwise=True, directions=0)


def test_check_vjp_wants_the_gradients_it_was_asked_for():
    x, w = random_arrays(0, (3, 4), (4, 2))
    with pytest.raises(AssertionError, match="argument 0: expected a gradient"):
        check_vjp(product, lambda dout, cache: (None, cache[0].T @ dout), (x, w), wrt=(0, 1))


def test_check_vjp_refuses_a_forward_in_float32():
    with pytest.raises(AssertionError, match="float64"):
        check_vjp(lambda x: x.astype(np.float32), lambda dout, cache: dout, (np.ones(3),))


# -------------------------------------------------------------------------------------- what a caller asks for


def test_where_leaves_cases_out_and_says_how_many(capsys):
    def one_stride(x, w, *, stride, **options):
        assert stride == 1
        return counts(x, w, stride=stride, **options)

    cases = conv_cases(level="quick")
    check_xnor_conv(one_stride, cases=cases, where=lambda case: case.stride == 1)
    ran = sum(case.stride == 1 for case in cases)
    assert f"ran {ran} of {len(cases)} cases; {len(cases) - ran} left out by where=, 0 not" in capsys.readouterr().out
    check_xnor_conv(counts, max_cases=5)
    assert capsys.readouterr().out == ""


def test_not_implemented_skips_is_counted_and_printed_and_is_an_error_everywhere(capsys):
    def only_square(x, w, **options):
        if x.shape[1] != x.shape[2]:
            raise NotImplementedError("a square map")
        return counts(x, w, **options)

    cases = conv_cases(level="quick")
    odd = sum(case.x_shape[1] != case.x_shape[2] for case in cases)
    check_xnor_conv(only_square, cases=cases)
    assert f"ran {len(cases) - odd} of {len(cases)} cases; 0 left out by where=, {odd} not" in capsys.readouterr().out

    def nothing(*args, **options):
        raise NotImplementedError

    with pytest.raises(AssertionError, match="not implemented for any of 9 cases"):
        check_xnor_conv(nothing, max_cases=9)


NOTHING = {
    "pad_values=()": ({"pad_values": ()}, "pad_values"),
    "pad_values=(2,)": ({"pad_values": (2,)}, "pad_values"),
    "max_cases=0": ({"max_cases": 0}, "max_cases"),
    "max_cases=-1": ({"max_cases": -1}, "max_cases"),
    "cases=[]": ({"cases": []}, "cases: nothing to run"),
    "where": ({"where": lambda case: False}, "cases: nothing to run; where= leaves out all"),
    "level": ({"level": "slow"}, "level"),
    "repeat=0": ({"repeat": 0}, "repeat"),
    "without": ({"without": ("NaN",)}, "without: no values 'NaN'"),
}


@pytest.mark.parametrize("what", NOTHING)
def test_a_check_that_would_run_nothing_is_an_error(what):
    options, message = NOTHING[what]
    with pytest.raises(ValueError, match=message):
        check_xnor_conv(counts, **options)


def test_cases_are_those_of_the_caller_also_of_another_convolution():
    calls = []

    def remember(dout, x, w, **options):
        calls.append(x.shape)
        return backward(dout, x, w, **options)

    cases = layer_cases("small")[:2]
    check_xnor_conv_backward(remember, cases=(case for case in cases))
    check_binary_weight_conv(binary_weight, cases=cases)
    assert calls == [case.x_shape for case in cases]
    with pytest.raises(TypeError, match="cases: expected PackCase objects, got ConvCase"):
        check_pack(pack, cases=cases)


def test_max_cases_is_a_spread_over_the_kinds_in_order():
    cases = tables.spread(conv_cases(), 50)
    assert len(cases) == 50 and cases == sorted(cases, key=testing.Case.order)
    assert max(case.x_shape[3] for case in cases) > 512 and max(case.products() for case in cases) > 2**16
    assert {1, 2, 3, 4} <= {case.stride for case in cases} and len({case.layout for case in cases}) == 8
    again = {replace(case, seed=0) for case in cases}
    assert len(again) < 50  # some come twice, with other values
    assert tables.spread(conv_cases()[:7], 50) == conv_cases()[:7]


def test_values_can_be_left_out_by_name():
    seen = set()

    def finite(x, w, **options):
        seen.add(bool(np.isinf(x).any()))
        return counts(x, w, **options)

    check_xnor_conv(finite, where=lambda case: case.signs == "infinities", max_cases=5)
    assert seen == {True}
    seen.clear()
    check_xnor_conv(finite, without=testing.HARD, max_cases=100)
    assert seen == {False}
    assert {case.signs for case in conv_cases(without="denormals")} == set(testing.SIGNS) - {"denormals"}
    assert not {case.signs for case in pack_cases(without=testing.HARD)} & set(testing.HARD)


def test_hard_values_are_hard_in_every_type():
    for dtype in (np.float16, np.float32, np.float64):
        for kind in testing.HARD:
            cases = [case for case in pack_cases(dtype) if case.signs == kind]
            values = np.concatenate([case.arrays()[0].ravel() for case in cases])
            info = np.finfo(dtype)
            assert values.dtype == dtype and not np.isnan(values).any()
            hard = {
                "denormals": (np.abs(values) < info.tiny) & (values != 0),
                "infinities": np.isinf(values),
                "extremes": np.abs(values) == info.max,
            }[kind]
            assert hard.mean() > 0.1 and (values[hard] < 0).any() and (values[hard] > 0).any()


def test_layouts_are_what_they_are_called_and_hold_the_same_values():
    case = testing.ConvCase((2, 3, 4, 5), (3, 2, 5, 3), 1, 1, 0, "random", 0)
    plain = case.arrays()
    for layout in testing.LAYOUTS:
        arrays = replace(case, layout=layout).arrays()
        for x, same in zip(arrays, plain, strict=True):
            assert np.array_equal(x, same)
            assert {
                "contiguous": x.flags.c_contiguous and x.flags.writeable and x.flags.aligned,
                "cropped": x.strides[-1] == x.itemsize and not x.flags.c_contiguous,
                "stepped": x.strides[-1] == 2 * x.itemsize,
                "reversed": max(x.strides) < 0,
                "transposed": x.strides[-1] > x.itemsize and not x.flags.f_contiguous,
                "Fortran": x.flags.f_contiguous,
                "read-only": not x.flags.writeable,
                "misaligned": not x.flags.aligned,
            }[layout], layout


def test_a_report_tells_all_failures_and_what_they_share():
    def tail(x, w, **options):
        return counts(x, w, **options) + 2 * (x.shape[3] % 64 > 0)

    cases = conv_cases(level="quick")
    with pytest.raises(AssertionError) as caught:
        check_xnor_conv(tail, cases=cases, report=True)
    text = str(caught.value)
    failing = sum(case.x_shape[3] % 64 > 0 for case in cases)
    assert text.startswith(f"{failing} cases fail (ran {len(cases)} of {len(cases)} cases): {failing} wrong values\n")
    plainest = next(case for case in cases if case.x_shape[3] % 64)
    assert f"\nthe plainest: {plainest}: index" in text and "\nagain: case = testing.ConvCase(" in text
    best = text.partition("what they share, as failing of all:\n")[2].splitlines()[0]
    assert best.split() == f"C_in % 64 1 to 63: {failing} of {failing}; all others: 0 of {200 - failing}".split()


def test_a_report_groups_by_stride_and_counts_kinds_of_failure(capsys):
    def swapped(x, w, *, stride, **options):
        return counts(x, w, stride=both(stride)[::-1], **options)

    with pytest.raises(AssertionError, match="wrong shape") as caught:
        check_xnor_conv(swapped, level="quick", report=True)
    first = str(caught.value).partition("of all:\n")[2].splitlines()[0]
    assert first.startswith("  stride ") and "(1, 2):" in first and "all others: 0 of" in first
    check_xnor_conv(counts, max_cases=5, report=True)  # silent
    assert capsys.readouterr().out == ""


def test_repeat_calls_back_to_back_and_compares():
    calls = []

    def remember(a, b, n):
        calls.append(n)
        return xnor_matmul(a, b, n)

    check_xnor_matmul(remember, max_cases=4, repeat=3)
    assert len(calls) == 12 and all(len(set(calls[k : k + 3])) == 1 for k in range(0, 12, 3))


def test_the_kit_stays_out_of_the_traceback():
    with pytest.raises(AssertionError) as caught:
        check_xnor_conv(lambda x, w, **options: x, max_cases=3)
    shown = caught.traceback.filter(caught)
    assert {os.path.basename(str(entry.path)) for entry in shown} == {"test_testing.py"}


USER_TEST = """
import numpy as np, pytest
from hbn_ref import testing
from other_kernels import counts

@pytest.mark.parametrize("case", testing.conv_cases(level="quick")[:6], ids=str)
def test_my_kernel(case):
    testing.check_xnor_conv(counts, cases=[case])

def test_my_faulty_kernel():
    testing.check_xnor_conv(lambda x, w, **options: x)
"""


def test_with_pytest_as_documented(tmp_path):
    (tmp_path / "test_mine.py").write_text(USER_TEST)
    paths = [os.path.dirname(__file__), os.path.dirname(os.path.dirname(__file__)), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", str(tmp_path)], capture_output=True, text=True,
        timeout=300, cwd=tmp_path, env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )  # fmt: skip
    assert "6 passed" in done.stdout and "1 failed" in done.stdout
    assert "test_my_kernel[x (1, 1, 1, 1), w (1, 1, 1, 1) float32, stride=1" in done.stdout
    assert "running.py" not in done.stdout and "again: case = testing.ConvCase(" in done.stdout


CRASH = """
import os, sys
from hbn_ref import testing
def kernel(x, w, **options):
    if x.shape[3] == 3:
        os._exit(3)  # as a segmentation fault would
    from other_kernels import counts
    return counts(x, w, **options)
testing.check_xnor_conv(kernel, max_cases=40)
"""


@pytest.mark.skipif(os.name != "posix", reason="nobody here knows whether a process of Windows is alive")
def test_a_call_that_ends_the_process_leaves_its_case_on_record(tmp_path):
    paths = [os.path.dirname(__file__), os.path.dirname(os.path.dirname(__file__)), os.environ.get("PYTHONPATH", "")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "TMPDIR": str(tmp_path)}
    options = {"capture_output": True, "text": True, "timeout": 300, "env": env}
    done = subprocess.run([sys.executable, "-c", CRASH], **options)
    (left,) = tmp_path.glob("hbn_ref-case-*.txt")
    text = left.read_text()
    case = next(case for case in tables.spread(conv_cases(), 40) if case.x_shape[3] == 3)
    assert done.returncode == 3 and f"in flight: {case}\nagain: case = testing.{case!r}; " in text
    good = CRASH.replace("== 3", "== -1")
    done = subprocess.run([sys.executable, "-c", good], **options)
    assert done.returncode == 0 and done.stderr == f"this call ended its process: {text}"
    assert not list(tmp_path.iterdir())


def test_a_check_runs_where_no_record_can_be_kept(monkeypatch):
    def full(*args):
        raise OSError("no space left")

    monkeypatch.setattr("tempfile.mkstemp", full)
    check_xnor_conv(counts, max_cases=3)


def adapters():
    """The functions that the docstring of the kit hands out, {name: function}, around a kernel put into them."""
    text = testing.__doc__.partition("**Adapters**")[2].partition("\n\n")[2].partition("\n\nWithout Python")[0]
    made = {"np": np}
    exec("\n".join(line.removeprefix("    ") for line in text.splitlines()), made)
    return made


def word_adapter(name, kernel):
    made = adapters()
    made["kernel"] = kernel
    return made[name]


def test_the_adapters_of_the_docstring_do_what_they_say():
    def bits_of(words, order):
        return np.unpackbits(np.ascontiguousarray(words).astype(">u8").view(np.uint8), axis=1, bitorder=order)

    def words32(a, b, n):
        assert a.dtype == b.dtype == np.uint32 and a.shape[1] == b.shape[1] == -(-n // 32)
        a, b = (
            np.unpackbits(np.ascontiguousarray(v).view(np.uint8), axis=1, count=n, bitorder="little") for v in (a, b)
        )
        return n - 2 * (a[:, None] != b).sum(axis=2)

    def msb(a, b, n):
        a, b = bits_of(a, "big")[:, :n], bits_of(b, "big")[:, :n]
        return n - 2 * (a[:, None] != b).sum(axis=2)

    def matches(a, b, n):
        return ((xnor_matmul(a, b, n) + n) // 2).astype(np.uint32)

    def both_one(a, b, n):
        return np.stack([np.bitwise_count(a & row).sum(axis=1) for row in b], axis=1).astype(np.uint16)

    kernels = {"words32": words32, "msb_first": msb, "from_matches": matches}
    if hasattr(np, "bitwise_count"):
        kernels["from_and"] = both_one
    for name, kernel in kernels.items():
        check_xnor_matmul(word_adapter(name, kernel), where=lambda case: case.size() < 40_000, max_cases=80)

    def nchw(x, w, *, stride, padding, pad_value):
        assert x.flags.c_contiguous and w.flags.c_contiguous and x.shape[1] == w.shape[1]
        x, w = x.transpose(0, 2, 3, 1), w.transpose(2, 3, 1, 0)
        return counts(x, w, stride=stride, padding=padding, pad_value=pad_value).transpose(0, 3, 1, 2)

    check_xnor_conv(word_adapter("nchw", nchw), max_cases=60)
