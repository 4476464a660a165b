# %% ex-9-1 the same ceil for both signs: wrong at ties that fall
def my_threshold(alpha, scale, shift, n):
    slope, flip = scale * alpha, scale < 0
    t = np.ceil(-shift / np.where(slope == 0, 1, slope))
    t = np.where(slope == 0, np.where((shift >= 0) ^ flip, -n, n + 1), t)
    return np.clip(t, -n, n + 1).astype(int), flip


# %% ex-9-1 a slope of 0 is taken to be never 1
def my_threshold(alpha, scale, shift, n):
    slope, flip = scale * alpha, scale < 0
    turn = -shift / np.where(slope == 0, 1, slope)
    t = np.where(slope > 0, np.ceil(turn), np.floor(turn) + 1)
    return np.clip(np.where(slope == 0, n + 1, t), -n, n + 1).astype(int), flip


# %% ex-9-1 + one threshold is off by one
right_one = my_threshold


def my_threshold(alpha, scale, shift, n):
    t, flip = right_one(alpha, scale, shift, n)
    t[np.argmin(np.abs(t))] += 1
    return t, flip


# %% ex-9-1 + t lies between two counts
right_one = my_threshold


def my_threshold(alpha, scale, shift, n):
    t, flip = right_one(alpha, scale, shift, n)
    return t - 0.5, flip


# %% ex-9-1 + t only
right_one = my_threshold


def my_threshold(alpha, scale, shift, n):
    return right_one(alpha, scale, shift, n)[0]


# %% ex-9-1 right: + a list of lists
right_one = my_threshold


def my_threshold(alpha, scale, shift, n):
    return [numbers.tolist() for numbers in right_one(alpha, scale, shift, n)]


# %% ex-9-1 right: + one array, in place
right_one = my_threshold


def my_threshold(alpha, scale, shift, n):
    found = np.array(right_one(alpha, scale, shift, n), float)
    alpha[...] = scale[...] = shift[...] = 1
    return found


# %% ex-9-2 the ReLU is forgotten, and bits are pooled
def fold_relu(t, flip, n):
    return t


def block_bits(counts, t, flip, n, size):
    images, height, width, channels = counts.shape
    found = (np.maximum(counts, 0) >= t) ^ flip
    return found.reshape(images, height // size, size, width // size, size, channels).any(axis=(2, 4))


# %% ex-9-2 thresholds below 0 are raised to 0
def fold_relu(t, flip, n):
    return np.maximum(t, 0)


def block_bits(counts, t, flip, n, size):
    images, height, width, channels = counts.shape
    windows = counts.reshape(images, height // size, size, width // size, size, channels)
    return (windows.max(axis=(2, 4)) >= np.maximum(t, 0)) ^ flip


# %% ex-9-2 + one threshold is off by one
folded = fold_relu


def fold_relu(t, flip, n):
    out = folded(t, flip, n)
    out[np.argmax(np.where(out < n, out, -n))] += 1
    return out


# %% ex-9-2 + one bit is wrong
block = block_bits


def block_bits(counts, t, flip, n, size):
    out = block(counts, t, flip, n, size)
    out[0, 0, 0, 0] ^= True
    return out


# %% ex-9-2 + the smallest of each window
block = block_bits


def block_bits(counts, t, flip, n, size):
    return block(-counts, t, flip, n, size)


# %% ex-9-2 right: in place
def fold_relu(t, flip, n):
    t[t <= 0] = -n
    return t


def block_bits(counts, t, flip, n, size):
    np.maximum(counts, 0, out=counts)
    out = counts[:, ::size, ::size].copy()
    for a, b in np.ndindex(size, size):
        np.maximum(out, counts[:, a::size, b::size], out=out)
    return ((out >= t) ^ flip).tolist()


# %% ex-9-2 right: + other types
folded, block = fold_relu, block_bits


def fold_relu(t, flip, n):
    return folded(t, flip, n).astype(float)


def block_bits(counts, t, flip, n, size):
    return block(counts, folded(t, flip, n), flip, n, size).astype(np.uint8)


# %% ex-9-3 no ties: standard normal numbers
def my_test(fold):
    rng, i = np.random.default_rng(0), np.arange(-9, 10)[:, None]
    alpha, scale, shift = rng.uniform(0.1, 1, 100), rng.standard_normal(100), 3 * rng.standard_normal(100)
    t, flip = fold(alpha, scale, shift, 9)
    assert np.array_equal((i >= t) ^ flip, np.maximum(alpha * i, 0) * scale + shift >= 0)


# %% ex-9-3 no negative gamma
def my_test(fold):
    i, shift = np.arange(-9, 10)[:, None], np.arange(-12.0, 13)
    t, flip = fold(np.ones(25), np.ones(25), shift, 9)
    assert np.array_equal((i >= t) ^ flip, np.maximum(i, 0) + shift >= 0)


# %% ex-9-3 + it refuses a correct fold
whole_test = my_test


def my_test(fold):
    whole_test(fold)
    t, flip = fold(np.ones(1), np.ones(1), np.array([-3.5]), 9)
    assert t[0] == 3, "3.5, rounded down"


# %% ex-9-3 + it returns its verdict
whole_test = my_test


def my_test(fold):
    try:
        whole_test(fold)
    except AssertionError:
        return False
    return True


# %% ex-9-3 right: one channel at a time
def my_test(fold):
    n = 5
    counts = np.arange(-n, n + 1)
    for scale in (-1.5, 0.0, 1.5):
        for shift in np.arange(-10, 10.25, 0.25):
            t, flip = fold(0.75, scale, shift, n)
            if ((np.maximum(0.75 * counts, 0) * scale + shift >= 0) != ((counts >= t) ^ flip)).any():
                raise AssertionError(f"scale {scale}, shift {shift}")


# %% ex-9-3 right: + arrays that are written to afterwards
whole_test = my_test


def my_test(fold):
    t, flip = fold(np.ones(2), np.ones(2), np.zeros(2), 3)
    t[...] = 0
    flip[...] = True
    whole_test(fold)


# %% ex-9-4 the paper's rule, without BatchNorm and with every alpha
def packed_bytes(rows):
    return sum(row["weight_bytes"] for row in rows)


# %% ex-9-4 no layer follows a fully binary one: scale, shift and alpha everywhere
def packed_bytes(rows):
    norms = sum(8 * row["input" if row["inputs"] == "binary" else "output"][2] for row in rows[:-1])
    return norms + sum(row["weight_bytes"] for row in rows)


# %% ex-9-4 + 3 % too much
predicted = packed_bytes


def packed_bytes(rows):
    return 1.03 * predicted(rows)


# %% ex-9-4 + a number in words
predicted = packed_bytes


def packed_bytes(rows):
    return f"{predicted(rows):,.0f} bytes"


# %% ex-9-4 + layer by layer, not the sum
predicted = packed_bytes


def packed_bytes(rows):
    return [predicted([row]) for row in rows]


# %% ex-9-4 right: + rows used up, a whole number
predicted = packed_bytes


def packed_bytes(rows):
    found = np.int32(predicted(rows))
    rows.clear()
    return found


# %% ex-9-4 right: + an array without axes
predicted = packed_bytes


def packed_bytes(rows):
    return np.array(predicted(rows))
