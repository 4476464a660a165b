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


# %% ex-9-3 the paper's rule, without BatchNorm and with every alpha
def packed_bytes(rows):
    return sum(row["weight_bytes"] for row in rows)


# %% ex-9-3 no layer follows a fully binary one: scale, shift and alpha everywhere
def packed_bytes(rows):
    norms = sum(8 * row["input" if row["inputs"] == "binary" else "output"][2] for row in rows[:-1])
    return norms + sum(row["weight_bytes"] for row in rows)


# %% ex-9-4 no ties: standard normal numbers
def my_test(fold):
    rng, i = np.random.default_rng(0), np.arange(-9, 10)[:, None]
    alpha, scale, shift = rng.uniform(0.1, 1, 100), rng.standard_normal(100), 3 * rng.standard_normal(100)
    t, flip = fold(alpha, scale, shift, 9)
    assert np.array_equal((i >= t) ^ flip, np.maximum(alpha * i, 0) * scale + shift >= 0)


# %% ex-9-4 no negative gamma
def my_test(fold):
    i, shift = np.arange(-9, 10)[:, None], np.arange(-12.0, 13)
    t, flip = fold(np.ones(25), np.ones(25), shift, 9)
    assert np.array_equal((i >= t) ^ flip, np.maximum(i, 0) + shift >= 0)
