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
