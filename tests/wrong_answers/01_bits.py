# %% ex-1-1 bit 0 is the largest
def pack70(x):
    if np.isnan(x).any():
        raise ValueError("x: contains NaN")
    bit = np.zeros(128, np.uint8)
    bit[:70] = x >= 0
    return np.packbits(bit).view(">u8").astype(np.uint64)


# %% ex-1-1 sign(0) is -1, and a NaN is packed
def pack70(x):
    bit = np.zeros(128, np.uint8)
    bit[:70] = x > 0
    return np.packbits(bit, bitorder="little").view(np.uint64)


# %% ex-1-2 no mask
def masked_xnor_dot(a, b, n):
    return 2 * int(np.bitwise_count(~(a ^ b)).sum()) - n


# %% ex-1-2 the last word is left out
def masked_xnor_dot(a, b, n):
    agree = ~(a ^ b)
    return 2 * int(np.bitwise_count(agree[: n // 64]).sum()) - n // 64 * 64


# %% ex-1-3 the dot product of signs
def zero_one_dot(a, w):
    return 64 * len(a) - 2 * int(np.bitwise_count(a ^ w).sum())


# %% ex-1-3 the places that are 1 in both
def zero_one_dot(a, w):
    return int(np.bitwise_count(a & w).sum())


# %% ex-1-4 only whole words
def my_test(dot):
    rng = np.random.default_rng(1)
    a, b = np.where(rng.standard_normal((2, 64)) >= 0, 1, -1)
    assert dot(bits.pack(a), bits.pack(b), 64) == (a * b).sum()


# %% ex-1-4 refuses everything
def my_test(dot):
    assert dot(np.zeros(1, np.uint64), np.zeros(1, np.uint64), 10) == 0


# %% ex-1-1 + values 0 to 7 always give the bit 0
pack = pack70


def pack70(x):
    return pack(x) & np.array([2**64 - 256, 2**64 - 1], np.uint64)


# %% ex-1-1 + bit 0 is inverted
pack = pack70


def pack70(x):
    return pack(x) ^ np.array([1, 0], np.uint64)


# %% ex-1-1 through floating powers of two
def pack70(x):
    if np.isnan(x).any():
        raise ValueError("x: contains NaN")
    bit = np.zeros(128)
    bit[:70] = x >= 0
    return (bit.reshape(2, 64) * 2.0 ** np.arange(64)).sum(axis=1)


# %% ex-1-1 + it ends without a return
pack = pack70


def pack70(x):
    pack(x)


# %% ex-1-1 + a NaN is looked for in the first word only
pack = pack70


def pack70(x):
    if np.isnan(x[:64]).any():
        raise ValueError("x: contains NaN")
    return pack(np.nan_to_num(x))


# %% ex-1-1 right: in place, and whole numbers of Python
def pack70(x):
    if any(value != value for value in x):
        raise ValueError("x: contains NaN")
    x[...] = x >= 0
    return [sum(int(bit) << c for c, bit in enumerate(x[:64])), sum(int(bit) << c for c, bit in enumerate(x[64:]))]


# %% ex-1-1 right: + signed words
pack = pack70


def pack70(x):
    return tuple(pack(x).view(np.int64))


# %% ex-1-2 a whole last word is masked away
def masked_xnor_dot(a, b, n):
    agree = ~(a ^ b)
    agree[-1] &= np.uint64((1 << n % 64) - 1)
    return 2 * int(np.bitwise_count(agree).sum()) - n


# %% ex-1-2 + bit 0 is taken to agree
dot = masked_xnor_dot


def masked_xnor_dot(a, b, n):
    one = np.uint64(1)
    return dot(a | one, b | one, n)


# %% ex-1-2 right: in place, a floating number
def masked_xnor_dot(a, b, n):
    a ^= b
    np.invert(a, out=a)
    if n % 64:
        a[-1] &= np.uint64((1 << n % 64) - 1)
    return 2.0 * np.bitwise_count(a).sum() - n


# %% ex-1-2 right: + another integer type
dot = masked_xnor_dot


def masked_xnor_dot(a, b, n):
    return np.int16(dot(a, b, n))


# %% ex-1-3 + bit 0 is left out
dot = zero_one_dot


def zero_one_dot(a, w):
    return dot(a & np.uint64(2**64 - 2), w)


# %% ex-1-3 unsigned whole numbers, which have no -1
def zero_one_dot(a, w):
    return 2 * np.bitwise_count(a & w).sum(dtype=np.uint64) - np.bitwise_count(a).sum(dtype=np.uint64)


# %% ex-1-3 right: in place
def zero_one_dot(a, w):
    ones = int(np.bitwise_count(a).sum())
    a &= w
    return np.array(2 * int(np.bitwise_count(a).sum()) - ones)


# %% ex-1-3 right: the ones that meet +1 minus those that meet -1
def zero_one_dot(a, w):
    return np.bitwise_count(a & w).sum(dtype=np.int32) - np.bitwise_count(a & ~w).sum(dtype=np.int32)


# %% ex-1-4 + it refuses a correct kernel
def my_test(dot):
    a = bits.pack(np.ones(70))
    assert dot(a, a, 70) == 128, "every bit of two words agrees"


# %% ex-1-4 it returns its verdict
def my_test(dot):
    rng = np.random.default_rng(1)
    a, b = np.where(rng.standard_normal((2, 300)) >= 0, 1, -1)
    return dot(bits.pack(a), bits.pack(b), 300) == (a * b).sum() and dot(bits.pack(a), bits.pack(a), 300) == 300


# %% ex-1-4 no sum beyond 8 bits
def my_test(dot):
    rng = np.random.default_rng(1)
    for n in (1, 63, 65, 70):
        a, b = np.where(rng.standard_normal((2, n)) >= 0, 1, -1)
        assert dot(bits.pack(a), bits.pack(b), n) == (a * b).sum()


# %% ex-1-4 right: NumPy's own assertion, words in place
def my_test(dot):
    for n in (65, 100, 255):
        a, b = bits.pack(np.ones(n)), bits.pack(np.ones(n))
        np.testing.assert_array_equal(dot(a, b, n), n)
        a[0] ^= np.uint64(2**64 - 1)
        np.testing.assert_array_equal(dot(a, b, n), n - 128)
        a[...] = bits.pack(-np.ones(n))
        np.testing.assert_array_equal(dot(a, b, n), -n)


# %% ex-1-4 right: all failures are raised at the end
def my_test(dot):
    rng, wrong = np.random.default_rng(1), []
    for n in range(1, 400, 3):
        a, b = np.where(rng.standard_normal((2, n)) >= 0, 1, -1)
        if int(dot(bits.pack(a), bits.pack(b), n)) != (a * b).sum() or int(dot(bits.pack(a), bits.pack(a), n)) != n:
            wrong.append(n)
    if wrong:
        raise AssertionError(f"wrong for {wrong}")
