# %% ex-3-1
def convolve_bits(words, weights, channels, *, stride=1, padding=0, pad_value=0):
    """words (N, H, W, W64), weights (kh, kw, C_out, W64): uint64, of `channels` signs
    -> (N, Ho, Wo, C_out)"""
    (sh, sw), (ph, pw), (kh, kw, filters, _) = reference.pair(stride), reference.pair(padding), weights.shape
    n, height, width, _ = words.shape
    outside = bits.pack(np.full(channels, pad_value or 1))
    out = np.zeros((n, (height + 2 * ph - kh) // sh + 1, (width + 2 * pw - kw) // sw + 1, filters), int)
    for m, i, j in np.ndindex(out.shape[:3]):
        for a, b in np.ndindex(kh, kw):
            y, z = sh * i + a - ph, sw * j + b - pw
            inside = 0 <= y < height and 0 <= z < width
            if inside or pad_value:
                tap = words[m, y, z] if inside else outside
                out[m, i, j] += channels - 2 * np.bitwise_count(tap ^ weights[a, b]).sum(axis=1, dtype=int)
    return out


# %% ex-3-2
def mend_border(counts, w, size, *, stride=1, padding=0):
    """counts (N, Ho, Wo, C_out) of a map of size (H, W), padded with -1; real w
    (kh, kw, C_in, C_out) -> the counts with 0"""
    (sh, sw), (ph, pw) = reference.pair(stride), reference.pair(padding)
    sums = np.where(w >= 0, 1, -1).sum(axis=2)  # (kh, kw, C_out)
    out = counts.copy()
    for i, j in np.ndindex(counts.shape[1:3]):
        for a, b in np.ndindex(w.shape[:2]):
            if not (0 <= sh * i + a - ph < size[0] and 0 <= sw * j + b - pw < size[1]):
                out[:, i, j] += sums[a, b]
    return out


# %% ex-3-3
def binary_weight_backward(dout, x, w, *, stride=1, padding=0):
    """dout (N, Ho, Wo, C_out), x (N, H, W, C_in), real w (kh, kw, C_in, C_out) -> dx, dL/dW~"""
    binary = np.abs(w).mean(axis=(0, 1, 2)) * np.where(w >= 0, 1, -1)
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for i, j in np.ndindex(dout.shape[1:3]):
        for a, b in np.ndindex(w.shape[:2]):
            y, z = stride * i + a - padding, stride * j + b - padding
            if 0 <= y < x.shape[1] and 0 <= z < x.shape[2]:
                dx[:, y, z] += dout[:, i, j] @ binary[a, b].T
                dw[a, b] += x[:, y, z].T @ dout[:, i, j]
    return dx, dw


# %% ex-3-4
def first_failure(kernel, cases):
    """cases come smallest first -> the smallest that the kernel gets wrong, or None"""
    for case in cases:
        if not np.array_equal(kernel(*case.arrays(), **case.options()), truth(case)):
            return case
    return None
