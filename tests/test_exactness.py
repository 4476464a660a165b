"""Chapters 1 to 3 with every kind of input: the documented result, or the documented error, and inputs left alone.

Sections: arrays in any form, types, extreme values, the range of the counts, threads, errors that name the argument.
"""

import numpy as np
import pytest
from conftest import JIT, KERNELS, WORD_LIMITS, assert_close, by_each_kernel, convolutions, random_arrays, thin
from hypothesis import given, settings
from hypothesis import strategies as st

from hbn_ref import binarize, bits, conv, deploy, engine, layers, reference
from hbn_ref.testing import (
    HARD_VALUES,
    check_binary_weight_conv,
    check_threshold,
    check_unpack,
    check_xnor_conv,
    check_xnor_conv_backward,
)

X, W = random_arrays(0, (3, 5, 4, 70), (3, 3, 70, 5), dtype=np.float32)
DOUT = random_arrays(1, (3, 3, 2, 5), dtype=np.float32)
WORDS = bits.pack(X)


# ------------------------------------------------------------------------------- every function, and its arrays


def forward_and_back(forward, backward, **options):
    """A function (x, w, dout) -> (out, dx, dw)."""

    def passes(x, w, dout):
        out, cache = forward(x, w, **options)
        return out, *backward(dout, cache)

    return passes


def packed(w):
    p = conv.pack_weights(w)
    return p.words, p.alpha, p.tap_sums, p.signs(), p.binary()


FUNCTIONS = {  # each takes arrays and gives arrays
    "pack": (bits.pack, (X,)),
    "unpack": (lambda words: bits.unpack(words, 70), (WORDS,)),
    "xnor_matmul": (lambda a, b: bits.xnor_matmul(a, b, 70), (WORDS[0, 0], WORDS[1, 1])),
    "sign": (binarize.sign, (X,)),
    "alpha": (binarize.alpha, (W,)),
    "binary_weight": (binarize.binary_weight, (W,)),
    "ste_backward": (binarize.ste_backward, (X, 2 * X[::-1])),
    "approx_sign_backward": (binarize.approx_sign_backward, (X, 2 * X[::-1])),
    "swish_sign_backward": (binarize.swish_sign_backward, (X, 2 * X[::-1])),
    "weight_gradient": (binarize.weight_gradient, (W, W[::-1])),
    "weight_gradient, exact": (lambda g, w: binarize.weight_gradient(g, w, "exact"), (W, W[::-1])),
    "pack_weights": (packed, (W,)),
    "pack_weights with alpha": (lambda w, alpha: conv.pack_weights(w, 1, alpha).alpha, (W, DOUT[0, 0, 0])),
    "count": (lambda words: conv.count(words, conv.pack_weights(W), stride=1, padding=1), (WORDS,)),
    "conv2d": (forward_and_back(conv.conv2d_forward, conv.conv2d_backward), (X, W, DOUT)),
    "binary_weight_conv2d": (
        forward_and_back(conv.binary_weight_conv2d_forward, conv.binary_weight_conv2d_backward),
        (X, W, DOUT),
    ),
    "xnor_conv2d": (forward_and_back(conv.xnor_conv2d_forward, conv.xnor_conv2d_backward), (X, W, DOUT)),
    "xnor_conv2d, approx_sign": (
        forward_and_back(conv.xnor_conv2d_forward, conv.xnor_conv2d_backward, estimator="approx_sign"),
        (X, W, DOUT),
    ),
}
# Sizes, tables and names: nothing that takes arrays of a user's. The last is of packed networks, in test_deploy.py
NO_ARRAYS = {"words_for", "output_size", "tile", "ESTIMATORS", "RULES", "PAD_VALUES", "PackedWeights"}
NO_ARRAYS |= {"unpacking_conv2d"}


def test_every_public_function_of_chapters_1_to_3_is_in_the_table():
    public = {*bits.__all__, *binarize.__all__, *conv.__all__} - NO_ARRAYS
    tested = {name.split(",")[0].split(" ")[0] for name in FUNCTIONS}
    convolutions = {name for name in tested if name.endswith("conv2d")}
    tested = tested - convolutions | {f"{name}_{way}" for name in convolutions for way in ("forward", "backward")}
    assert tested == public


def results(function, args):
    """The arrays that a function returns, as a tuple; its arguments must come out as they went in."""
    before = [(value.tobytes(), value.shape, value.strides, value.dtype) for value in args]
    got = function(*args)
    assert before == [(value.tobytes(), value.shape, value.strides, value.dtype) for value in args]
    return got if isinstance(got, tuple) else (got,)


# ----------------------------------------------------------------------------------------- arrays in any form


class Contrary(np.ndarray):
    """A subclass of NumPy's array whose operators do something else, as those of np.matrix do."""

    def __array_ufunc__(self, *args, **options):
        raise AssertionError("the array was not taken for what it holds")

    __array_function__ = __array_ufunc__


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


def unaligned(x):
    """One byte beyond where the processor would like it."""
    return np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(x.dtype).reshape(x.shape)


FORMS = {
    "read-only": read_only,
    "Fortran's order": np.asfortranarray,
    "every second row": lambda x: np.repeat(x, 2, axis=0)[::2],
    "every third value": lambda x: np.repeat(x, 3, axis=-1)[..., 1::3],
    "negative strides": lambda x: (
        np.ascontiguousarray(x[::-1, ..., ::-1])[::-1, ..., ::-1] if x.ndim > 1 else np.ascontiguousarray(x[::-1])[::-1]
    ),
    "zero strides": lambda x: np.broadcast_to(x[:1], x.shape),
    "all strides zero": lambda x: np.broadcast_to(x.ravel()[-1], x.shape),
    "unaligned": unaligned,
    "the other byte order": lambda x: x.astype(x.dtype.newbyteorder()),
    "a subclass": lambda x: x.view(Contrary),
}


def plain(x):
    """The same values in an ordinary array."""
    return np.array(np.asarray(x), x.dtype.newbyteorder("="), order="C")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.filterwarnings("error")
def test_the_form_of_an_array_does_not_matter(name, form):
    function, args = FUNCTIONS[name]
    first, *others = [FORMS[form](value) for value in args]
    for formed in [(first, *others), (first, *args[1:])][: 2 if JIT and others else 1]:
        expected = results(function, [plain(value) for value in formed])
        for a, b in zip(results(function, formed), expected, strict=True):
            assert type(a) is np.ndarray
            assert a.dtype == b.dtype and a.dtype.isnative
            assert a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_masked_array_is_refused(name):
    """What stands under a mask is no value, and must not be taken for one."""
    function, args = FUNCTIONS[name]
    for k in range(len(args)):
        mixed = list(args)
        mixed[k] = np.ma.masked_array(args[k], mask=args[k] > args[k].ravel()[0])
        with pytest.raises(TypeError, match=r"^\w+: .*masked"):
            function(*mixed)


def test_mixed_forms_of_x_and_w_do_not_matter_either():
    for form_x, form_w in thin(zip(FORMS.values(), [*FORMS.values()][::-1], strict=True), 2):
        x, w = form_x(X), form_w(W)
        expected = reference.xnor_conv2d_forward(plain(x), plain(w), scale=False, padding=1)
        assert np.array_equal(conv.xnor_conv2d_forward(x, w, scale=False, padding=1)[0], expected)


# ----------------------------------------------------------------------------------------------------- types

LISTS = {"pack", "sign", "alpha", "binary_weight", "ste_backward", "approx_sign_backward", "swish_sign_backward"}
LISTS |= {"weight_gradient", "weight_gradient, exact"}  # chapters 1 and 2 take lists and float16, chapter 3 arrays
ON_FLOATS = [name for name, (_, args) in FUNCTIONS.items() if args[0].dtype == np.float32]
ON_WORDS = [name for name in FUNCTIONS if name not in ON_FLOATS]


@pytest.mark.parametrize("name", [name for name in ON_FLOATS if not name.startswith("pack")])
def test_float64_gives_float64(name):
    function, args = FUNCTIONS[name]
    for a, b in zip(function(*(value.astype(np.float64) for value in args)), function(*args), strict=True):
        assert a.dtype == np.float64
        assert_close(np.asarray(a), b.astype(np.float64), 1e-5)


@pytest.mark.parametrize("name", ON_FLOATS)
@pytest.mark.filterwarnings("error")
def test_float16_is_taken_by_chapters_1_and_2_and_refused_by_3(name):
    function, args = FUNCTIONS[name]
    args = [value.astype(np.float16) for value in args]
    if name not in LISTS:
        with pytest.raises(TypeError, match=r"^(x|w): .*float16"):
            function(*args)
        return
    expected = function(*(value.astype(np.float64) for value in args))
    (got,) = results(function, args)
    assert got.dtype == (np.uint64 if name == "pack" else np.float16)
    assert np.abs(got - expected).max() <= 4e-3 * np.abs(expected).max()


@pytest.mark.parametrize("name", ON_FLOATS)
def test_lists_are_taken_by_chapters_1_and_2_and_refused_by_3(name):
    function, args = FUNCTIONS[name]
    lists = [value.tolist() for value in args]
    if name in LISTS:
        assert np.array_equal(function(*lists), function(*(value.astype(np.float64) for value in args)))
    else:
        with pytest.raises(TypeError, match=r"^(x|w): .*list"):
            function(*lists)


WRONG_TYPES = {
    "booleans": lambda x: x > 0,
    "unsigned": lambda x: np.ones(x.shape, np.uint8),
    "complex": lambda x: x.astype(np.complex64),
    "objects": lambda x: x.astype(object),
    "text": lambda x: x.astype(str),
    "times": lambda x: np.ones(x.shape, "m8[s]"),
    "records": lambda x: np.zeros(x.shape, [("a", "f4"), ("b", "f4")]),
    "None": lambda x: None,
    "a number": lambda x: 1,
    "text alone": lambda x: "x",
    "a dict": lambda x: {},
    "a ragged list": lambda x: [[1.0], [1.0, 2.0]],
}


@pytest.mark.parametrize("kind", WRONG_TYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_wrong_types_are_refused_by_name(name, kind):
    function, args = FUNCTIONS[name]
    for k in range(len(args)):
        mixed = list(args)
        mixed[k] = WRONG_TYPES[kind](args[k])
        if name == "pack_weights with alpha" and k == 1 and mixed[k] is None:
            continue  # that is how to leave alpha out
        with pytest.raises((TypeError, ValueError), match=r"^(x|w|words|a|b|alpha|g|dout): "):
            function(*mixed)


@pytest.mark.parametrize("name", [name for name in ON_FLOATS if name.endswith(("_backward", "conv2d"))])
def test_partners_share_a_type(name):
    function, (first, second, *rest) = FUNCTIONS[name]
    with pytest.raises(TypeError, match=r"^(w|dout): .*float(32|64).*float(64|32)"):
        function(first, second.astype(np.float64), *rest)


# -------------------------------------------------------------------------------------------- extreme values

FLOATS = (np.float16, np.float32, np.float64)
FEWER = settings(max_examples=80 if JIT else 15)  # there is one such test a type, or every example is large
ROUNDING = {np.float16: 1e-2, np.float32: 1e-5, np.float64: 1e-12}


def numbers(dtype, most=np.inf):
    """Any number of a type up to ``most`` but NaN; often 0, denormals, 1 and its neighbours, the largest."""
    info = np.finfo(dtype)
    special = (0, info.smallest_subnormal, info.tiny, 1 - info.epsneg, 1, 1 + info.eps, info.max, np.inf)
    special = [sign * float(v) for v in special if v <= most for sign in (1, -1)]
    return st.one_of(st.floats(-most, most, width=info.bits, allow_nan=False), st.sampled_from(special))


def formed(draw, dtype, shape, most=np.inf):
    """An array of such numbers in one of the forms."""
    some = draw(st.lists(numbers(dtype, most), min_size=1, max_size=9))  # and these again and again
    return draw(st.sampled_from([*FORMS.values()]))(np.resize(np.array(some, dtype), shape))


@pytest.mark.parametrize("dtype", FLOATS)
@FEWER
@given(st.data())
def test_any_numbers_have_the_reference_s_signs(dtype, data):
    shape = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 200 if JIT else 70)))
    x = formed(data.draw, dtype, shape)
    signs, words = reference.sign(plain(x)), bits.pack(x)
    assert np.array_equal(words, reference.pack(plain(x)))
    assert np.array_equal(bits.unpack(words, shape[1]), signs)
    assert np.array_equal(binarize.sign(x), signs) and binarize.sign(x).dtype == dtype


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", binarize.ESTIMATORS)
@pytest.mark.parametrize("dtype", FLOATS)
@FEWER
@given(st.data())
def test_any_numbers_have_the_reference_s_slopes(dtype, name, data):
    shape = data.draw(st.tuples(st.integers(1, 2), st.integers(1, 9)))
    dout, x = formed(data.draw, dtype, shape, most=64), formed(data.draw, dtype, shape)
    got = binarize.ESTIMATORS[name](dout, x)
    with np.errstate(over="ignore"):  # beta x of the largest float64
        expected = reference.estimator_backward(dout, x, name)
    assert got.dtype == dtype
    assert np.abs(got - expected).max() <= ROUNDING[dtype] * 5 * 64


@pytest.mark.parametrize("dtype", FLOATS)
@FEWER
@given(st.data())
def test_any_weights_have_the_reference_s_scale(dtype, data):
    w = formed(data.draw, dtype, data.draw(st.tuples(st.integers(1, 9), st.integers(1, 3))))
    info = np.finfo(dtype)
    with np.errstate(over="ignore"):  # a sum of the largest float64 is infinite
        expected, scales, scaled = reference.alpha(plain(w)), binarize.alpha(w), binarize.binary_weight(w)
    assert scales.dtype == scaled.dtype == dtype
    np.testing.assert_allclose(scales, expected.astype(dtype), rtol=2 * info.eps, atol=info.smallest_subnormal)
    assert np.array_equal(scaled, scales * reference.sign(plain(w)))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("rule", binarize.RULES)
@pytest.mark.parametrize("dtype", FLOATS)
@FEWER
@given(st.data())
def test_any_weights_have_the_reference_s_gradient(dtype, rule, data):
    small = st.integers(1, 2)
    shape = data.draw(st.tuples(small, small, st.integers(2, 4), small))
    g, w = formed(data.draw, dtype, shape, most=64), formed(data.draw, dtype, shape, most=2)
    got, expected = binarize.weight_gradient(g, w, rule), reference.weight_gradient(plain(g), plain(w), rule)
    assert got.dtype == dtype
    assert np.abs(got - expected).max() <= ROUNDING[dtype] * 64 * 2 * 16  # g, alpha, n


def hard(x, draw):
    """x with every other value, about, an infinity, a denormal, a zero or among the largest; in any form."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    x = np.where(rng.random(x.shape) < 0.5, rng.choice(HARD_VALUES, x.shape), x).astype(x.dtype)
    return draw(st.sampled_from([*FORMS.values()]))(x)


@FEWER
@given(convolutions(), st.data())
def test_any_convolution_of_any_numbers_counts_exactly(case, data):
    x, w, options = case
    x, w = hard(x, data.draw), hard(w, data.draw)
    expected = reference.xnor_conv2d_forward(plain(x), plain(w), scale=False, **options)
    passes = {"scale": False, "need_cache": False, **options}
    for name, (got, _) in by_each_kernel(conv.xnor_conv2d_forward, x, w, **passes).items():
        assert np.array_equal(got, expected), name


@pytest.mark.parametrize("channels", WORD_LIMITS)  # drawn at random, hardly one of them is ever met
@settings(max_examples=20 if JIT else 5)
@given(st.data())
def test_any_convolution_around_the_words_counts_exactly(channels, data):
    x, w, options = data.draw(convolutions(channels))
    x, w = hard(x, data.draw), hard(w, data.draw)
    expected = reference.xnor_conv2d_forward(plain(x), plain(w), scale=False, **options)
    for number in (1, 2, 4) if JIT else (1,):
        with engine.threads(number):
            passes = {"scale": False, "need_cache": False, **options}
            for name, (got, _) in by_each_kernel(conv.xnor_conv2d_forward, x, w, **passes).items():
                assert np.array_equal(got, expected), (name, number)


@FEWER
@given(convolutions(), st.sampled_from(sorted(binarize.ESTIMATORS)), st.data())
def test_any_convolution_of_any_numbers_has_the_reference_s_gradients(case, estimator, data):
    x, w, options = case
    x = hard(x, data.draw)
    out, cache = conv.xnor_conv2d_forward(x, w, estimator=estimator, **options)
    dout = random_arrays(1, out.shape, dtype=w.dtype)
    expected = reference.xnor_conv2d_backward(dout, plain(x), w, estimator=estimator, **options)
    for got, want in zip(conv.xnor_conv2d_backward(dout, cache), expected, strict=True):
        assert_close(got, want, {np.float32: 2e-5, np.float64: 1e-12}[w.dtype.type])


@pytest.mark.parametrize("dtype", FLOATS[1:])
@FEWER
@given(st.data())
def test_a_kernel_of_a_single_one_passes_any_number_there_and_back(dtype, data):
    sizes = data.draw(st.tuples(*3 * [st.integers(1, 4)]))
    x, dout = (formed(data.draw, dtype, (*sizes, 1)) for _ in range(2))
    passes = forward_and_back(conv.conv2d_forward, conv.conv2d_backward)
    with np.errstate(all="ignore"):  # dw may be anything: infinity - infinity
        for name, (out, dx, _) in by_each_kernel(passes, x, np.ones((1, 1, 1, 1), dtype), dout).items():
            assert np.array_equal(out, plain(x)) and np.array_equal(dx, plain(dout)), name


@pytest.mark.parametrize("power", thin([-50, -25, 25, 50], 2))
def test_powers_of_two_pass_through_a_real_convolution_unrounded(power):
    """Scaling by a power of two rounds nothing: the bits of out, dx and dw stay what they are."""
    x, w = random_arrays(0, (2, 5, 4, 7), (3, 3, 7, 5), dtype=np.float32)
    dout, factor = random_arrays(1, (2, 3, 2, 5), dtype=np.float32), np.float32(2.0**power)
    passes = forward_and_back(conv.conv2d_forward, conv.conv2d_backward)
    before, after = by_each_kernel(passes, x, w, dout), by_each_kernel(passes, factor * x, w, factor * dout)
    for name in before:
        for a, b, scale in zip(before[name], after[name], (factor, factor, factor * factor), strict=True):
            assert np.array_equal(a.astype(np.float64) * scale.astype(np.float64), b), name


# ------------------------------------------------------------------------------------- the range of the counts

TYPES = (np.int32, np.float32, np.float64)


def count_by_each_kernel(x, w, dtype, pad_value, **options):
    return by_each_kernel(conv.count, bits.pack(x), conv.pack_weights(w, pad_value), dtype, **options)


@pytest.mark.parametrize("dtype", TYPES if JIT else TYPES[:1])
def test_the_largest_count_of_both_signs(dtype):
    """3,000 channels under a 7 x 7 kernel: 147,000 bits, all equal and all different."""
    x, w = np.ones((2, 7, 7, 3000), np.float32), np.ones((7, 7, 3000, 2), np.float32)
    x[1], w[..., 1] = -1, -1
    x[0, 3, 3, 1234] = -1  # one of them is not
    for name, out in count_by_each_kernel(x, w, dtype, 0, stride=1, padding=0).items():
        assert out.dtype == dtype
        assert out.reshape(2, 2).tolist() == [[146_998, -146_998], [-147_000, 147_000]], name


@pytest.mark.skipif(not JIT, reason="millions of bits: only with compiled kernels")
@pytest.mark.parametrize("pad_value", [0, 1, -1])
@pytest.mark.parametrize("dtype", TYPES)
def test_the_largest_counts_at_the_border(dtype, pad_value):
    x, w = np.ones((1, 7, 7, 3000), np.float32), np.ones((7, 7, 3000, 2), np.float32)
    w[..., 1] = -1
    inside = np.array([4, 7, 4])  # taps inside the map, of the three places of a row
    taps = np.outer(inside, inside)
    expected = 3000 * (taps + pad_value * (49 - taps))
    for name, out in count_by_each_kernel(x, w, dtype, pad_value, stride=3, padding=3).items():
        assert np.array_equal(out[0, ..., 0], expected) and np.array_equal(out[0, ..., 1], -expected), name


@pytest.mark.skipif(not JIT, reason="millions of bits: only with compiled kernels")
def test_large_counts_in_between():
    x, w = random_arrays(0, (2, 7, 7, 3000), (7, 7, 3000, 3), dtype=np.float32)
    expected = np.einsum("nabc,abco->no", reference.sign(x), reference.sign(w))
    for dtype in TYPES:
        for name, out in count_by_each_kernel(x, w, dtype, 0, stride=1, padding=0).items():
            assert np.array_equal(out.reshape(2, 3), expected), name


def test_the_largest_product_of_packed_rows():
    ones = bits.pack(np.ones((1, 147_000), np.float32))
    both = np.concatenate([ones, bits.pack(-np.ones((1, 147_000), np.float32))])
    for name, out in by_each_kernel(bits.xnor_matmul, ones, both, 147_000).items():
        assert out.tolist() == [[147_000, -147_000]], name


# ------------------------------------------------------------------------------------- threads, and the kit


def threaded(dtype):
    """Everything that several threads share out, with enough of it."""
    x, w = random_arrays(0, (4, 15, 14, 70), (3, 3, 70, 66), dtype=dtype)
    dout = random_arrays(1, (4, 13, 12, 66), dtype=dtype)
    large = random_arrays(2, (5, 200, 700), dtype=dtype)
    words, norm = bits.pack(large), layers.BatchNorm("bn", 70, dtype)
    yield words
    yield bits.unpack(words, 700)
    yield bits.xnor_matmul(words[0], words[1], 700)
    yield conv.count(bits.pack(x), conv.pack_weights(w), stride=1, padding=0)
    for name in ("conv2d", "binary_weight_conv2d", "xnor_conv2d"):
        yield from FUNCTIONS[name][0](x, w, dout)
    big = np.concatenate(4 * [x])
    yield norm.forward(big, training=True)
    yield norm.backward(big[::-1])
    yield from norm.grads.values()
    yield from norm.buffers.values()


@pytest.mark.skipif(not JIT, reason="threads serve compiled kernels only")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", KERNELS)
def test_one_two_and_four_threads_give_the_same_bits(name, dtype):
    found = []
    for number in (1, 2, 4):
        with engine.kernel(name), engine.threads(number):
            found.append([array.tobytes() for array in threaded(dtype)])
    assert found[0] == found[1] == found[2]


def scaled(x, w, **options):
    return conv.xnor_conv2d_forward(x, w, need_cache=False, **options)[0]


def xnor_backward(dout, x, w, **options):
    return conv.xnor_conv2d_backward(dout, conv.xnor_conv2d_forward(x, w, **options)[1])


def binary_weight(x, w, **options):
    return conv.binary_weight_conv2d_forward(x, w, need_cache=False, **options)[0]


FEW = {"where": lambda case: case.size() < 3_000, "max_cases": 30}  # without the JIT


@pytest.mark.parametrize("name", KERNELS)
def test_the_products_pass_the_kit(name):
    with engine.kernel(name):
        check_xnor_conv(scaled, scale=True, **({"level": "quick"} if JIT else FEW))
        check_xnor_conv_backward(xnor_backward, **({"max_cases": 400} if JIT else FEW))
        check_binary_weight_conv(binary_weight, **({"max_cases": 400} if JIT else FEW))


def test_the_products_of_float64_pass_the_kit():
    few = {"dtype": np.float64} | ({"max_cases": 100} if JIT else FEW)
    check_xnor_conv(scaled, scale=True, **few)
    check_xnor_conv_backward(xnor_backward, **few)
    check_binary_weight_conv(binary_weight, **few)


def test_unpacking_and_thresholds_pass_the_kit():
    check_unpack(bits.unpack, **({} if JIT else FEW))
    check_threshold(deploy.threshold)


# ------------------------------------------------------------------------------ errors that name the argument

CONV = conv.xnor_conv2d_forward(X, W)
PACKED = conv.pack_weights(W)
WITH_NAN = np.where(np.arange(W.size).reshape(W.shape) == 7, np.nan, W)
GEOMETRY = {"stride": 1, "padding": 0}

ERRORS = {  # what is wrong: the call, the beginning of the message
    "channels that are a float": (lambda: bits.unpack(WORDS, 70.0), "channels: "),
    "channels that are text": (lambda: bits.words_for("70"), "channels: "),
    "half a channel": (lambda: bits.words_for(0.5), "channels: "),
    "channels True": (lambda: bits.unpack(WORDS[..., :1], True), "channels: "),
    "n None": (lambda: bits.xnor_matmul(WORDS[0, 0], WORDS[0, 0], None), "n: "),
    "NaN in w of binary_weight": (lambda: binarize.binary_weight(WITH_NAN), "w: contains NaN"),
    "NaN in w of weight_gradient": (lambda: binarize.weight_gradient(W, WITH_NAN, "exact"), "w: contains NaN"),
    "no filters": (lambda: binarize.weight_gradient(W[..., :0], W[..., :0]), "w: "),
    "no channels": (lambda: binarize.weight_gradient(W[:, :, :0], W[:, :, :0]), "w: "),
    "an empty kernel": (lambda: binarize.weight_gradient(W[:0], W[:0]), "w: "),
    "alpha of too few filters": (lambda: conv.pack_weights(W, 0, np.ones(4, np.float32)), "alpha: "),
    "alpha of two axes": (lambda: conv.pack_weights(W, 0, np.ones((1, 5), np.float32)), "alpha: "),
    "alpha a list": (lambda: conv.pack_weights(W, 0, [1.0] * 5), "alpha: "),
    "words too narrow": (lambda: conv.count(WORDS[..., :1], PACKED, **GEOMETRY), "words: "),
    "words too wide": (lambda: conv.count(np.concatenate(2 * [WORDS], 3), PACKED, **GEOMETRY), "words: "),
    "words of one image alone": (lambda: conv.count(WORDS[0], PACKED, **GEOMETRY), "words: "),
    "no words": (lambda: conv.count(WORDS[:0], PACKED, **GEOMETRY), "words: "),
    "words of int64": (lambda: conv.count(WORDS.astype(np.int64), PACKED, **GEOMETRY), "words: "),
    "count of weights that are not packed": (lambda: conv.count(WORDS, W, **GEOMETRY), "packed: "),
    "counts in int16": (lambda: conv.count(WORDS, PACKED, np.int16, **GEOMETRY), "dtype: "),
    "counts in int64": (lambda: conv.count(WORDS, PACKED, np.int64, **GEOMETRY), "dtype: "),
    "alpha in whole numbers": (lambda: conv.count(WORDS, PACKED, np.int32, scale=True, **GEOMETRY), "dtype: "),
    "count with stride 0": (lambda: conv.count(WORDS, PACKED, stride=0, padding=0), "stride: "),
    "count with padding -1": (lambda: conv.count(WORDS, PACKED, stride=1, padding=-1), "padding: "),
    "stride an array": (lambda: conv.conv2d_forward(X, W, stride=np.array([1, 1])), "stride: "),
    "stride True": (lambda: conv.conv2d_forward(X, W, stride=True), "stride: "),
    "stride NaN": (lambda: conv.conv2d_forward(X, W, stride=(np.nan, 1)), "stride: "),
    "pad_value NaN": (lambda: conv.xnor_conv2d_forward(X, W, pad_value=np.nan), "pad_value: "),
    "pad_value an array": (lambda: conv.xnor_conv2d_forward(X, W, pad_value=np.array(0)), "pad_value: "),
    "the cache of another convolution": (lambda: conv.conv2d_backward(CONV[0], CONV[1]), "cache: "),
    "no cache": (lambda: conv.xnor_conv2d_backward(CONV[0], 3), "cache: "),
}


@pytest.mark.parametrize("what", ERRORS)
def test_errors_name_the_argument(what):
    call, message = ERRORS[what]
    with pytest.raises((ValueError, TypeError), match=f"^{message}"):
        call()


def test_empty_batches_of_words_are_no_error():
    assert bits.pack(np.ones((0, 70), np.float32)).shape == (0, 2)
    assert bits.pack(np.ones((3, 0, 70), np.float32)).shape == (3, 0, 2)
    assert bits.unpack(np.ones((0, 2), np.uint64), 70).shape == (0, 70)
    assert bits.xnor_matmul(np.ones((0, 2), np.uint64), np.ones((3, 2), np.uint64), 70).shape == (0, 3)


# ----------------------------------------------------------------------------- chapter 4, arrays in any form

MAP, HALF = X, np.ascontiguousarray(X[:, :2, :2])  # (3, 5, 4, 70), and what 2 x 2 pooling makes of its shape
GAMMA = np.linspace(0.5, 2, 70, dtype=np.float32)
BETWEEN = {  # each takes float arrays and gives arrays
    "relu": (lambda x: layers.relu_forward(x)[0], (MAP,)),
    "relu, in place": (lambda x: layers.relu_forward(x, in_place=True)[0], (MAP,)),
    "relu_backward": (lambda dout: layers.relu_backward(dout, layers.relu_forward(MAP)[1]), (MAP,)),
    "relu_backward, in place": (lambda dout: layers.relu_backward(dout, layers.relu_forward(MAP)[1], True), (MAP,)),
    "batchnorm": (lambda x: layers.batchnorm_forward(x, GAMMA, GAMMA)[0], (MAP,)),
    "batchnorm_inference": (lambda x: layers.batchnorm_inference(x, *4 * [GAMMA]), (MAP,)),
    "batchnorm_backward": (
        lambda dout: layers.batchnorm_backward(dout, layers.batchnorm_forward(MAP, GAMMA, GAMMA)[1]),
        (MAP,),
    ),
    "batchnorm_backward, in place": (
        lambda dout: layers.batchnorm_backward(dout, layers.batchnorm_forward(MAP, GAMMA, GAMMA)[1], True),
        (MAP,),
    ),
    "prelu": (lambda x: layers.prelu_forward(x, GAMMA)[0], (MAP,)),
    "prelu_backward": (lambda dout: layers.prelu_backward(dout, layers.prelu_forward(MAP, GAMMA)[1]), (MAP,)),
    "dropout": (lambda x: layers.dropout_forward(x, 0.5, np.random.default_rng(0))[0], (MAP,)),
    "dropout_backward": (
        lambda dout: layers.dropout_backward(dout, layers.dropout_forward(MAP, 0.5, np.random.default_rng(0))[1]),
        (MAP,),
    ),
    "max_pool": (lambda x: layers.max_pool_forward(x, 2)[0], (MAP,)),
    "max_pool_backward": (lambda dout: layers.max_pool_backward(dout, layers.max_pool_forward(MAP, 2)[1]), (HALF,)),
    "avg_pool": (lambda x: layers.avg_pool_forward(x, 2)[0], (MAP,)),
    "avg_pool_backward": (lambda dout: layers.avg_pool_backward(dout, layers.avg_pool_forward(MAP, 2)[1]), (HALF,)),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", BETWEEN)
@pytest.mark.filterwarnings("error")
def test_the_form_of_an_array_does_not_matter_to_chapter_4(name, form):
    function, (x,) = BETWEEN[name]
    formed = FORMS[form](x.copy())
    expected, got = function(plain(formed)), function(formed)
    for a, b in zip(*(r if isinstance(r, tuple) else (r,) for r in (got, expected)), strict=True):
        assert type(a) is np.ndarray and a.dtype == b.dtype and a.dtype.isnative
        assert a.shape == b.shape and a.tobytes() == b.tobytes()
    if "in place" not in name or not formed.flags.writeable:
        assert np.asarray(formed).tobytes() == np.asarray(FORMS[form](x.copy())).tobytes()


@pytest.mark.parametrize("kind", [*WRONG_TYPES, "masked", "float16", "a list"])
@pytest.mark.parametrize("name", BETWEEN)
@pytest.mark.filterwarnings("error")
def test_wrong_types_are_refused_by_chapter_4_by_name(name, kind):
    function, (x,) = BETWEEN[name]
    make = WRONG_TYPES | {
        "masked": lambda x: np.ma.masked_array(x, mask=x > 0),
        "float16": lambda x: x.astype(np.float16),
        "a list": lambda x: x.tolist(),
    }
    with pytest.raises((TypeError, ValueError), match=r"^(x|dout): "):
        function(make[kind](x))
