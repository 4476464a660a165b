"""Chapter 2, binarize: sign and scale, the estimators against their numbers, both weight-gradient rules."""

import math

import numpy as np
import pytest
from conftest import SURROGATES, assert_close, random_arrays, with_zeros
from hypothesis import given
from hypothesis import strategies as st

from hbn_ref import binarize, reference
from hbn_ref.testing import check_vjp

FLOATS = [np.float32, np.float64]
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-12}  # relative to the largest value

# ------------------------------------------------------------------------------------------ sign, alpha


@pytest.mark.parametrize("dtype", FLOATS)
def test_sign_of_zero_is_plus_one_and_the_type_is_kept(dtype):
    x = np.array([-np.inf, -2, -1e-45, -0.0, 0.0, 1e-45, 2, np.inf], dtype)
    signs = binarize.sign(x)
    assert signs.dtype == dtype
    assert signs.tolist() == [-1, -1, -1, 1, 1, 1, 1, 1]


def test_sign_refuses_nan():
    with pytest.raises(ValueError, match=r"\bx\b.*NaN|NaN.*\bx\b"):
        binarize.sign(np.array([1.0, np.nan]))


def test_alpha_by_hand():
    w = np.array([[[[1.0, -2.0], [-3.0, 0.0], [0.5, -1.0]]]])  # (1, 1, 3, 2)
    assert binarize.alpha(w).tolist() == [1.5, 1.0]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(3, 3, 64, 5), (1, 1, 2, 1), (7, 5, 3, 4), (10, 6)])
def test_alpha_is_the_mean_magnitude_of_each_filter(shape, dtype):
    w = random_arrays(0, shape, dtype=dtype)
    scales = binarize.alpha(w)
    assert scales.dtype == dtype
    assert_close(scales, reference.alpha(w), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", FLOATS)
def test_binary_weight_is_alpha_times_sign(dtype):
    w = with_zeros(random_arrays(0, (3, 2, 5, 4), dtype=dtype))
    scaled = binarize.binary_weight(w)
    assert scaled.dtype == dtype
    assert_close(scaled, reference.binary_weight(w), TOLERANCE[dtype])
    assert np.array_equal(scaled > 0, w >= 0)


def test_no_other_scale_brings_the_signs_closer_to_the_weights():
    w = random_arrays(0, (3, 3, 4, 5))
    best = ((w - binarize.binary_weight(w)) ** 2).sum()
    for factor in (0.9, 0.999, 1.001, 1.1):
        assert ((w - factor * binarize.binary_weight(w)) ** 2).sum() > best


# ------------------------------------------------------------------------------------------- estimators

POINTS = [-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0]
SLOPES = {
    "ste": [0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0],
    "approx_sign": [0.0, 0.0, 1.0, 2.0, 1.0, 0.0, 0.0],
    # beta (2 - z tanh(z / 2)) / (1 + cosh z) with beta = 5, z = 5 x
    "swish_sign": [
        -0.003631252444292286,
        -0.194992254900325,
        -0.0846215652336886,
        5.0,
        -0.0846215652336886,
        -0.194992254900325,
        -0.003631252444292286,
    ],
}


def test_every_estimator_is_tested_here():
    assert set(binarize.ESTIMATORS) == set(SLOPES)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", SLOPES)
def test_estimator_has_the_slopes_of_its_formula(name, dtype):
    x = np.array(POINTS, dtype)
    dx = binarize.ESTIMATORS[name](np.ones_like(x), x)
    assert dx.dtype == dtype
    assert dx == pytest.approx(np.array(SLOPES[name]), rel=1e-5 if dtype == np.float32 else 1e-12, abs=1e-7)


@pytest.mark.parametrize("name", SLOPES)
def test_estimator_multiplies_by_dout(name):
    dout = np.array([3.0, -1.0, 2.0, -0.5, 0.0, 7.0, 1.5])
    dx = binarize.ESTIMATORS[name](dout, np.array(POINTS))
    assert dx == pytest.approx(dout * SLOPES[name], rel=1e-12)


def test_estimators_go_by_their_own_names():
    dout, x = random_arrays(0, (50,), (50,))
    for name, function in (
        ("ste", binarize.ste_backward),
        ("approx_sign", binarize.approx_sign_backward),
        ("swish_sign", binarize.swish_sign_backward),
    ):
        assert np.array_equal(binarize.ESTIMATORS[name](dout, x), function(dout, x))


def test_swish_sign_takes_beta():
    expected = [-0.13113572514789715, 0.20024867477882768, 1.2094644752400612, 2.0, 1.2094644752400612]
    x = np.array(POINTS[:5])
    assert binarize.swish_sign_backward(np.ones(5), x, beta=2.0) == pytest.approx(np.array(expected), rel=1e-12)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", SLOPES)
@pytest.mark.filterwarnings("error")
def test_estimator_of_huge_values_is_zero_without_warnings(name, dtype):
    x = np.array([-1e30, -1e4, -200.0, 200.0, 1e4, 1e30], dtype)
    dx = binarize.ESTIMATORS[name](np.ones_like(x), x)
    assert np.abs(dx).max() < 1e-30


@pytest.mark.parametrize("name", SLOPES)
@pytest.mark.parametrize("shape", [(1,), (5, 3), (2, 3, 4, 65)])
def test_estimator_equals_the_reference(name, shape):
    dout, x = random_arrays(0, shape, shape)
    x = with_zeros(x)
    before = dout.copy(), x.copy()
    dx = binarize.ESTIMATORS[name](dout, x)
    assert_close(dx, reference.estimator_backward(dout, x, name), 1e-12)
    assert np.array_equal(before[0], dout) and np.array_equal(before[1], x)


@pytest.mark.parametrize("name", SLOPES)
def test_estimator_is_the_derivative_of_its_surrogate(name):
    x = 1.5 * random_arrays(0, (3, 7))
    check_vjp(SURROGATES[name], lambda dout, _: binarize.ESTIMATORS[name](dout, x), (x,), elementwise=True)


# --------------------------------------------------------------------------------- weight-gradient rules


def rule_by_formula(g, w, rule):
    """PAPER's formulas for one filter at a time, in scalars, apart from any code of the package."""
    kh, kw, c_in, c_out = w.shape
    n = kh * kw * c_in
    out = np.empty(w.shape)
    for o in range(c_out):
        weights, grads = [float(v) for v in w[..., o].ravel()], [float(v) for v in g[..., o].ravel()]
        alpha = math.fsum(abs(v) for v in weights) / n
        inner = math.fsum(gj if wj >= 0 else -gj for gj, wj in zip(grads, weights, strict=True))
        row = []
        for wi, gi in zip(weights, grads, strict=True):
            inside = 1 if -1 < wi < 1 else 0
            if rule == "exact":
                row.append(alpha * inside * gi + (1 if wi >= 0 else -1) * inner / n)
            else:
                row.append(gi * (1 / n + alpha * inside) * (1 - 1 / c_in) * n)
        out[..., o] = np.array(row).reshape(kh, kw, c_in)
    return out


def test_weight_gradient_by_hand():
    # One filter of n = 2 weights: alpha = (0.5 + 1.5) / 2 = 1; the second lies outside (-1, 1).
    w = np.array([0.5, -1.5]).reshape(1, 1, 2, 1)
    g = np.array([2.0, 4.0]).reshape(1, 1, 2, 1)
    # exact: sum_j g_j sign(w_j) = 2 - 4 = -2, so +-(-2) / 2 is added: (1 * 2 - 1, 0 + 1)
    assert binarize.weight_gradient(g, w, "exact").ravel().tolist() == [1.0, 1.0]
    # paper: g (1/2 + [inside]) (1 - 1/2) 2 = 2 * 1.5 and 4 * 0.5
    assert binarize.weight_gradient(g, w, "paper").ravel().tolist() == [3.0, 2.0]


def test_paper_is_the_default_rule():
    g, w = random_arrays(0, (3, 3, 4, 2), (3, 3, 4, 2))
    assert np.array_equal(binarize.weight_gradient(g, w), binarize.weight_gradient(g, w, rule="paper"))


@pytest.mark.parametrize("rule", ["paper", "exact"])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(1, 1, 2, 1), (3, 3, 5, 4), (2, 5, 3, 2), (1, 1, 65, 3)])
def test_weight_gradient_equals_its_formula(rule, dtype, shape):
    g, w = random_arrays(0, shape, shape, dtype=dtype)
    w = with_zeros(w)
    w[0, 0, 0, 0], w[0, 0, 1, 0] = 1.0, -1.0  # the ends of the open interval have no straight-through part
    got = binarize.weight_gradient(g, w, rule)
    assert got.dtype == dtype
    assert_close(got, rule_by_formula(g, w, rule), TOLERANCE[dtype])
    assert_close(reference.weight_gradient(g, w, rule), rule_by_formula(g, w, rule), 1e-12)


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(2, 6), st.integers(1, 3)),
    spread=st.sampled_from([0.1, 1.0, 3.0]),
    rule=st.sampled_from(["paper", "exact"]),
    seed=st.integers(0, 2**32),
)
def test_weight_gradient_of_any_filter_equals_its_formula(shape, spread, rule, seed):
    g, w = random_arrays(seed, shape, shape)
    assert_close(binarize.weight_gradient(g, spread * w, rule), rule_by_formula(g, spread * w, rule), 1e-12)


def test_exact_rule_is_the_derivative_of_alpha_times_sign():
    # The product rule, sign's derivative replaced by clip's: alpha(w) sign(w0) + alpha(w0) clip(w), at w0.
    w0 = random_arrays(0, (2, 3, 3, 2))
    signs, scales = reference.sign(w0), reference.alpha(w0)
    check_vjp(
        lambda w: np.abs(w).mean((0, 1, 2)) * signs + scales * np.clip(w, -1, 1),
        lambda g, _: binarize.weight_gradient(g, w0, "exact"),
        (w0,),
        elementwise=True,
    )


def test_the_rules_differ():
    g, w = random_arrays(0, (3, 3, 4, 2), (3, 3, 4, 2))
    difference = binarize.weight_gradient(g, w, "paper") - binarize.weight_gradient(g, w, "exact")
    assert np.abs(difference).max() > 0.1


# ------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize("rule", ["papre", "", None, "ste"])
def test_weight_gradient_refuses_an_unknown_rule(rule):
    w = np.ones((1, 1, 2, 1))
    with pytest.raises((ValueError, TypeError), match=r"\brule\b"):
        binarize.weight_gradient(w, w, rule)


def test_weight_gradient_refuses_a_gradient_of_another_shape():
    with pytest.raises(ValueError, match=r"\bg\b"):
        binarize.weight_gradient(np.ones((3, 3, 4, 1)), np.ones((3, 3, 4, 2)))


def test_weight_gradient_refuses_one_input_channel():
    w = np.ones((3, 3, 1, 2))
    with pytest.raises(ValueError, match=r"\bw\b"):
        binarize.weight_gradient(w, w)


def test_weight_gradient_refuses_a_wrong_rank():
    with pytest.raises(ValueError, match=r"\b[gw]\b"):
        binarize.weight_gradient(np.ones((4, 2)), np.ones((4, 2)))


@pytest.mark.parametrize("name", SLOPES)
def test_estimator_refuses_a_gradient_of_another_shape(name):
    with pytest.raises(ValueError, match=r"\bdout\b"):
        binarize.ESTIMATORS[name](np.ones((2, 3)), np.ones((2, 4)))
