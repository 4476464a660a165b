# %% ex-1-1
def pack70(x):
    """x (70,) -> uint64 (2,)"""
    if np.isnan(x).any():
        raise ValueError("x: contains NaN")
    bit = np.zeros(128, np.uint64)
    bit[:70] = x >= 0
    return (bit.reshape(2, 64) << np.arange(64, dtype=np.uint64)).sum(axis=1, dtype=np.uint64)


# %% ex-1-2
def masked_xnor_dot(a, b, n):
    """a, b: uint64 (ceil(n / 64),) -> the dot product of n signs"""
    agree = ~(a ^ b)
    if n % 64:
        agree[-1] &= np.uint64((1 << n % 64) - 1)
    return 2 * int(np.bitwise_count(agree).sum()) - n


# %% ex-1-3
def zero_one_dot(a, w):
    """a: words of {0, 1}, w: words of signs -> the dot product"""
    return 2 * int(np.bitwise_count(a & w).sum()) - int(np.bitwise_count(a).sum())


# %% ex-1-4
def my_test(dot):
    """Raise an AssertionError where dot is wrong."""
    rng = np.random.default_rng(1)
    for n in (1, 63, 64, 65, 70, 300):  # around a word, and beyond what 8 bits hold
        a, b = np.where(rng.standard_normal((2, n)) >= 0, 1, -1)
        for p, q in ((a, b), (a, a), (a, -a)):
            assert dot(bits.pack(p), bits.pack(q), n) == (p * q).sum(), f"wrong for n = {n}"
