# %% ex-9-1
def my_threshold(alpha, scale, shift, n):
    """alpha, scale, shift (C,) -> t, whole numbers (C,), and flip, bool (C,)"""
    slope, flip = scale * alpha, scale < 0
    turn = -shift / np.where(slope == 0, 1, slope)
    t = np.where(slope > 0, np.ceil(turn), np.floor(turn) + 1)  # falling: 1 up to floor(turn), the tie included
    t = np.where(slope == 0, np.where((shift >= 0) ^ flip, -n, n + 1), t)
    return np.clip(t, -n, n + 1).astype(int), flip


# %% ex-9-2
def fold_relu(t, flip, n):
    """t (C,) and flip (C,) of 9.1 -> t (C,) with a ReLU; flip stays"""
    return np.where(t <= 0, -n, t)  # counts below 0 have the bit of 0: i >= t is true there if t <= 0, else false


def block_bits(counts, t, flip, n, size):
    """counts: whole (N, H, W, C); t, flip of 9.1 -> bool (N, H / size, W / size, C)"""
    images, height, width, channels = counts.shape
    windows = counts.reshape(images, height // size, size, width // size, size, channels)
    return (windows.max(axis=(2, 4)) >= fold_relu(t, flip, n)) ^ flip


# %% ex-9-3
def my_test(fold):
    """Raise an AssertionError where fold is wrong."""
    n, alpha = 9, 0.5
    scale, turn, aside = np.meshgrid([-2, -0.5, 0, 0.5, 2], np.arange(-n - 2, n + 3), [-0.125, 0, 0.125])
    scale, shift = scale.ravel(), (aside - alpha * scale * turn).ravel()  # v = aside where i = turn: ties in a third
    t, flip = fold(np.full(scale.shape, alpha), scale, shift, n)
    i = np.arange(-n, n + 1)[:, None]
    expected = np.maximum(alpha * i, 0) * scale + shift >= 0
    assert np.array_equal((i >= t) ^ flip, expected), "a bit is wrong"


# %% ex-9-4
def packed_bytes(rows):
    """rows of cost.table(...)["layers"] -> bytes"""
    total, chained = 0, False  # chained: the layer before was fully binary
    for row, following in zip(rows, [*rows[1:], None]):
        fully = row["inputs"] == row["weights"] == "binary"
        into_chain = fully and following is not None and following["inputs"] == following["weights"] == "binary"
        total += 4 * row["params_real"] + row["params_binary"] / 8
        if row["weights"] == "binary" and not into_chain:
            total += 4 * row["output"][2]  # alpha
        if fully:
            total += row["input"][2] * (4 + 1 / 8 if chained else 8)
        elif following is not None:
            total += 8 * row["output"][2]
        chained = fully
    return total
