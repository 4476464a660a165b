"""Chapter 1, bits: which bit holds which channel, round trips, and exact products of packed rows."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from conftest import JIT, KERNELS, WORD_CHANNELS, by_each_kernel, random_arrays, thin, with_zeros
from hypothesis import given
from hypothesis import strategies as st

from hbn_ref import bits, engine, kernels, reference
from hbn_ref.testing import check_pack, check_xnor_matmul

ALL_ONES = (1 << 64) - 1

# ------------------------------------------------------------------------- pack: the convention, by hand


@pytest.mark.parametrize("channel", [0, 1, 31, 32, 62, 63, 64, 65, 127, 128, 199])
def test_channel_c_is_bit_c_mod_64_of_word_c_div_64(channel):
    x = -np.ones((1, 200), np.float32)
    x[0, channel] = 1
    expected = [0, 0, 0, 0]
    expected[channel // 64] = 1 << (channel % 64)
    assert bits.pack(x)[0].tolist() == expected


@pytest.mark.parametrize(
    ("channels", "words"),
    [
        (1, [1]),
        (3, [7]),
        (63, [ALL_ONES >> 1]),
        (64, [ALL_ONES]),
        (65, [ALL_ONES, 1]),
        (130, [ALL_ONES, ALL_ONES, 3]),
    ],
)
def test_unused_bits_are_zero(channels, words):
    packed = bits.pack(np.ones((2, channels), np.float32))
    assert packed.dtype == np.uint64
    assert packed.tolist() == [words, words]


def test_zero_and_minus_zero_are_plus_one():
    x = np.array([0.0, -0.0, -1e-45, 1e-45, np.inf, -np.inf, -1.0], np.float32)
    assert bits.pack(x).tolist() == [0b0011011]


def test_pack_passes_the_kit():
    few = {} if JIT else {"where": lambda case: case.size() < 3_000, "max_cases": 100}
    check_pack(bits.pack, **few)
    check_pack(bits.pack, dtype=[np.float16, np.float64], **few | {"max_cases": 200})


@pytest.mark.parametrize("name", KERNELS)
def test_xnor_matmul_passes_the_kit(name):
    with engine.kernel(name):
        few = {} if JIT else {"where": lambda case: case.size() < 3_000, "max_cases": 30}
        check_xnor_matmul(bits.xnor_matmul, **few)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.int16, np.int32, np.int64])
def test_pack_takes_every_signed_type(dtype):
    x = np.random.default_rng(0).integers(-2, 3, (3, 70)).astype(dtype)
    x[0, :2] = -128, 127
    assert bits.pack(x).tolist() == reference.pack(x).tolist()


@pytest.mark.parametrize("leading", [(), (1,), (4,), (2, 3), (2, 3, 4), (2, 1, 2, 2)])
def test_pack_keeps_the_leading_axes(leading):
    x = random_arrays(0, (*leading, 65), dtype=np.float32)
    packed = bits.pack(x)
    assert packed.shape == (*leading, 2)
    assert np.array_equal(packed, reference.pack(x))


def test_pack_takes_views_in_any_memory_order():
    x = random_arrays(0, (4, 6, 140), dtype=np.float32)
    for view in (x[::2, ::-1, ::2], x.transpose(1, 2, 0), np.asfortranarray(x), x[..., 3:70]):
        assert np.array_equal(bits.pack(view), reference.pack(view))


def test_pack_leaves_its_input_alone():
    x = with_zeros(random_arrays(0, (3, 65), dtype=np.float32))
    before = x.copy()
    bits.pack(x)
    assert x.tobytes() == before.tobytes()


# ------------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("channels", WORD_CHANNELS)
def test_unpack_of_pack_is_the_sign(channels):
    x = with_zeros(random_arrays(channels, (2, 3, channels), dtype=np.float32))
    signs = bits.unpack(bits.pack(x), channels)
    assert signs.dtype == np.float32
    assert np.array_equal(signs, np.where(x >= 0, 1, -1))


@given(
    x=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 3), st.integers(1, 200 if JIT else 70)),
        elements=st.floats(width=32, allow_nan=False),
    )
)
def test_any_array_survives_the_round_trip(x):
    packed = bits.pack(x)
    assert np.array_equal(packed, reference.pack(x))
    signs = bits.unpack(packed, x.shape[-1])
    assert np.array_equal(signs, reference.sign(x))
    assert np.array_equal(bits.pack(signs), packed)


def test_unpack_reads_the_documented_bits():
    words = np.array([[0b101, 0b10]], np.uint64)
    signs = bits.unpack(words, 66)
    assert np.flatnonzero(signs[0] > 0).tolist() == [0, 2, 65]
    assert signs.shape == (1, 66)
    assert set(np.unique(signs)) == {-1.0, 1.0}


# ------------------------------------------------------------------------------------------- xnor_matmul


def test_xnor_matmul_by_hand():
    # Of three valid bits, 0b101 and 0b100 agree in two: 2 - 1 = 1; 0b101 and 0b010 in none: -3.
    a, b = np.array([[0b101]], np.uint64), np.array([[0b100], [0b010], [0b101]], np.uint64)
    product = bits.xnor_matmul(a, b, 3)
    assert product.dtype == np.int32
    assert product.tolist() == [[1, -3, 3]]


@pytest.mark.parametrize("n", WORD_CHANNELS)
@pytest.mark.parametrize(
    ("rows", "columns"), thin([(1, 1), (1, 7), (5, 1), (4, 4), (9, 17), (33, 130)], 3)[: None if JIT else 2]
)
def test_xnor_matmul_is_exact(n, rows, columns):
    a, b = random_arrays(n, (rows, n), (columns, n))
    a, b = with_zeros(a), with_zeros(b, seed=1)
    expected = reference.sign(a) @ reference.sign(b).T
    for name, product in by_each_kernel(bits.xnor_matmul, bits.pack(a), bits.pack(b), n).items():
        assert product.dtype == np.int32
        assert np.array_equal(product, expected), name


@given(n=st.integers(1, 200), rows=st.integers(1, 6), columns=st.integers(1, 6), seed=st.integers(0, 2**32))
def test_xnor_matmul_of_any_size_is_exact(n, rows, columns, seed):
    a, b = random_arrays(seed, (rows, n), (columns, n))
    expected = reference.xnor_matmul(reference.pack(a), reference.pack(b), n)
    assert np.array_equal(expected, reference.sign(a) @ reference.sign(b).T)
    for name, product in by_each_kernel(bits.xnor_matmul, bits.pack(a), bits.pack(b), n).items():
        assert np.array_equal(product, expected), name


def test_xnor_matmul_counts_beyond_16_bits():
    n = 40_000 if JIT else 33_000
    ones = np.ones((1, n), np.float32)
    both = np.concatenate([ones, -ones])
    for name, product in by_each_kernel(bits.xnor_matmul, bits.pack(ones), bits.pack(both), n).items():
        assert product.tolist() == [[n, -n]], name


# ------------------------------------------------------- masks: kernels that make words of floats, or obey them

FLOATS = pytest.mark.parametrize("dtype", [np.float32, np.float64])
LENGTHS = pytest.mark.parametrize("length", [1, 63, 64, 65, 127, 128, 200])  # values in a row: around the words


def hard(seed, shape, dtype):
    """Random values, about half of them zeros, ones, their neighbours, denormals, infinities or NaN."""
    near = [np.nextafter(dtype(a), dtype(b)) for a in (0, 1, -1) for b in (-2, 2)]
    rng, special = np.random.default_rng(seed), [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, *near]
    x = np.where(rng.random(shape) < 0.5, rng.choice(special, shape), rng.standard_normal(shape))
    return x.astype(dtype)


def words_of(mask):
    """The words of a table of booleans, bit by bit."""
    padded = np.zeros((len(mask), 64 * bits.words_for(mask.shape[1])), bool)
    padded[:, : mask.shape[1]] = mask
    return np.packbits(padded, axis=1, bitorder="little").view("<u8").astype(np.uint64)


@FLOATS
@LENGTHS
@pytest.mark.parametrize(
    ("kernel", "mask"), [(kernels.pack_signs, lambda x: x >= 0), (kernels.pack_inside, lambda x: np.abs(x) < 1)]
)
def test_masks_of_rows_are_what_numpy_compares(kernel, mask, length, dtype):
    x = hard(length, (5, length), dtype)
    words = np.full((5, bits.words_for(length)), 7, np.uint64)
    kernel(1, 4, x, words)
    assert np.array_equal(words[1:4], words_of(mask(x))[1:4])
    assert np.all(words[[0, 4]] == 7)  # other rows may be another thread's


@FLOATS
@LENGTHS
def test_a_single_nan_is_noticed_wherever_it_is(length, dtype):
    for at in {0, 31, 63, 64, length - 65, length - 2, length - 1} & set(range(length)):
        x = np.where(np.arange(3 * length) % 2, np.inf, -1).reshape(3, length).astype(dtype)
        words = np.empty((3, bits.words_for(length)), np.uint64)
        assert not kernels.pack_signs(0, 3, x, words)
        x[1, at] = np.nan
        assert kernels.pack_signs(0, 3, x, words)
        assert not kernels.pack_signs(2, 3, x, words)


@FLOATS
@LENGTHS
def test_rows_are_cleared_where_the_bit_is_zero(length, dtype):
    x, keep = random_arrays(length, (5, length), dtype=dtype), random_arrays(1, (5, length)) > 0
    x[random_arrays(2, (5, length)) > 1] = np.inf
    expected = np.where(keep, x, 0)
    expected[[0, 4]] = x[[0, 4]]
    kernels.clear_rows(1, 4, words_of(keep), x)
    assert np.array_equal(x, expected)


@FLOATS
@LENGTHS
@pytest.mark.parametrize("in_place", [False, True])
def test_relu_keeps_positive_values_and_nan_and_a_bit_for_each(in_place, length, dtype):
    x = hard(length, (3 * length,), dtype)  # flat: 3, 189, 192, ... values
    before, words = x.copy(), np.full(bits.words_for(x.size), 7, np.uint64)
    out = x if in_place else np.empty_like(x)
    kernels.relu(0, words.size, x, out, words)
    assert np.array_equal(out, np.where(before <= 0, 0, before), equal_nan=True)
    assert np.array_equal(words, words_of(~(before[None] <= 0))[0])


@FLOATS
@LENGTHS
@pytest.mark.parametrize("in_place", [False, True])
def test_gradient_of_relu_passes_where_the_bit_is_one(in_place, length, dtype):
    dout, keep = hard(length, (3 * length,), dtype), random_arrays(1, (3 * length,)) > 0
    expected, dx = np.where(keep, dout, 0), dout if in_place else np.full_like(dout, 7)
    words = words_of(keep[None])[0]
    kernels.relu_dx(0, words.size, words, dout, dx)
    assert np.array_equal(dx, expected, equal_nan=True)


@FLOATS
def test_relu_and_its_gradient_write_only_the_words_they_are_given(dtype):
    x = hard(0, (300,), dtype)
    out, words = np.full(300, 7, dtype), np.full(5, 7, np.uint64)
    kernels.relu(1, 4, x, out, words)
    dx = np.full(300, 7, dtype)
    kernels.relu_dx(1, 4, words_of(x[None] > 0)[0], x, dx)
    for array in (out, dx):
        assert np.all(array[:64] == 7) and np.all(array[256:] == 7) and not np.all(array[64:256] == 7)
    assert words[0] == words[4] == 7


# ------------------------------------------------------------------------------------------------ errors

WRONG = (ValueError, TypeError)


def test_pack_refuses_nan():
    x = np.ones((2, 70), np.float32)
    x[1, 69] = np.nan
    with pytest.raises(ValueError, match=r"\bx\b.*NaN|NaN.*\bx\b"):
        bits.pack(x)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint64, np.complex64, object])
def test_pack_refuses_types_without_a_sign(dtype):
    with pytest.raises(TypeError, match=r"\bx\b"):
        bits.pack(np.ones((2, 3), dtype))


@pytest.mark.parametrize("shape", [(), (0,), (4, 0)])
def test_pack_refuses_arrays_without_channels(shape):
    with pytest.raises(ValueError, match=r"\bx\b"):
        bits.pack(np.ones(shape, np.float32))


@pytest.mark.parametrize("channels", [0, -1, 64, 129, 200])
def test_unpack_refuses_channels_that_do_not_fit_the_words(channels):
    with pytest.raises(ValueError, match=r"\bchannels\b"):
        bits.unpack(np.zeros((3, 2), np.uint64), channels)


@pytest.mark.parametrize("dtype", [np.int64, np.uint32, np.float64])
def test_unpack_refuses_other_word_types(dtype):
    with pytest.raises(TypeError, match=r"\bwords\b"):
        bits.unpack(np.zeros((3, 1), dtype), 5)


@pytest.mark.parametrize("n", [0, -1, 64, 129, 200])
def test_xnor_matmul_refuses_an_n_that_does_not_fit_the_words(n):
    words = np.zeros((3, 2), np.uint64)
    with pytest.raises(ValueError, match=r"\b[abn]\b"):
        bits.xnor_matmul(words, words, n)


@pytest.mark.parametrize("name", ["a", "b"])
@pytest.mark.parametrize(("n", "words"), [(3, [8]), (63, [1 << 63]), (65, [0, 2]), (100, [0, 1 << 63])])
def test_xnor_matmul_refuses_set_bits_beyond_n(name, n, words):
    rows = {"a": np.zeros((2, len(words)), np.uint64), "b": np.zeros((3, len(words)), np.uint64)}
    rows[name][-1] = words
    with pytest.raises(ValueError, match=rf"\b{name}\b"):
        bits.xnor_matmul(rows["a"], rows["b"], n)


@pytest.mark.parametrize("name", ["a", "b"])
@pytest.mark.parametrize("bad", [np.zeros((2, 1), np.int64), np.zeros(1, np.uint64), np.zeros((2, 1, 1), np.uint64)])
def test_xnor_matmul_refuses_wrong_types_and_ranks(name, bad):
    rows = {"a": np.zeros((2, 1), np.uint64), "b": np.zeros((3, 1), np.uint64)}
    rows[name] = bad
    with pytest.raises(WRONG, match=rf"\b{name}\b"):
        bits.xnor_matmul(rows["a"], rows["b"], 3)


def test_xnor_matmul_refuses_rows_of_different_lengths():
    with pytest.raises(ValueError, match=r"\b[ab]\b"):
        bits.xnor_matmul(np.zeros((2, 1), np.uint64), np.zeros((2, 2), np.uint64), 3)
