# %% ex-3-1 a tap outside is left out of the popcount, but not of n
def convolve_bits(words, weights, channels, *, stride=1, padding=0, pad_value=0):
    (sh, sw), (ph, pw), (kh, kw, filters, _) = reference.pair(stride), reference.pair(padding), weights.shape
    n, height, width, _ = words.shape
    outside = bits.pack(np.full(channels, pad_value or 1))
    out = np.full((n, (height + 2 * ph - kh) // sh + 1, (width + 2 * pw - kw) // sw + 1, filters), kh * kw * channels)
    for m, i, j in np.ndindex(out.shape[:3]):
        for a, b in np.ndindex(kh, kw):
            y, z = sh * i + a - ph, sw * j + b - pw
            inside = 0 <= y < height and 0 <= z < width
            if inside or pad_value:
                tap = words[m, y, z] if inside else outside
                out[m, i, j] -= 2 * np.bitwise_count(tap ^ weights[a, b]).sum(axis=1, dtype=int)
    return out


# %% ex-3-1 the border is zero bits, whatever pad_value says
def convolve_bits(words, weights, channels, *, stride=1, padding=0, pad_value=0):
    (sh, sw), (ph, pw), (kh, kw, _, _) = reference.pair(stride), reference.pair(padding), weights.shape
    padded = np.pad(words, ((0, 0), (ph, ph), (pw, pw), (0, 0)))
    rows, columns = (padded.shape[1] - kh) // sh + 1, (padded.shape[2] - kw) // sw + 1
    out = np.full((len(words), rows, columns, weights.shape[2]), kh * kw * channels)
    for m, i, j in np.ndindex(out.shape[:3]):
        for a, b in np.ndindex(kh, kw):
            differ = padded[m, sh * i + a, sw * j + b] ^ weights[a, b]
            out[m, i, j] -= 2 * np.bitwise_count(differ).sum(axis=1, dtype=int)
    return out


# %% ex-3-2 subtracts where it should add
def mend_border(counts, w, size, *, stride=1, padding=0):
    (sh, sw), (ph, pw) = reference.pair(stride), reference.pair(padding)
    sums = np.where(w >= 0, 1, -1).sum(axis=2)
    out = counts.copy()
    for i, j in np.ndindex(counts.shape[1:3]):
        for a, b in np.ndindex(w.shape[:2]):
            if not (0 <= sh * i + a - ph < size[0] and 0 <= sw * j + b - pw < size[1]):
                out[:, i, j] -= sums[a, b]
    return out


# %% ex-3-2 every pixel of the ring is given back all taps
def mend_border(counts, w, size, *, stride=1, padding=0):
    out = counts.copy()
    ring = np.ones(counts.shape[1:3], bool)
    ring[1:-1, 1:-1] = False
    out[:, ring] += np.where(w >= 0, 1, -1).sum(axis=(0, 1, 2))
    return out


# %% ex-3-3 dx from the real weights
def binary_weight_backward(dout, x, w, *, stride=1, padding=0):
    return reference.conv2d_backward(dout, x, w, stride=stride, padding=padding)


# %% ex-3-3 an output overwrites its neighbour's stamp
def binary_weight_backward(dout, x, w, *, stride=1, padding=0):
    binary = np.abs(w).mean(axis=(0, 1, 2)) * np.where(w >= 0, 1, -1)
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for i, j in np.ndindex(dout.shape[1:3]):
        for a, b in np.ndindex(w.shape[:2]):
            y, z = stride * i + a - padding, stride * j + b - padding
            if 0 <= y < x.shape[1] and 0 <= z < x.shape[2]:
                dx[:, y, z] = dout[:, i, j] @ binary[a, b].T
                dw[a, b] += x[:, y, z].T @ dout[:, i, j]
    return dx, dw


# %% ex-3-4 only whole words of channels
def first_failure(kernel, cases):
    for case in cases:
        if case.x_shape[3] % 64 == 0 and not np.array_equal(kernel(*case.arrays(), **case.options()), truth(case)):
            return case
    return None


# %% ex-3-4 the largest case that fails
def first_failure(kernel, cases):
    for case in reversed(cases):
        if not np.array_equal(kernel(*case.arrays(), **case.options()), truth(case)):
            return case
    return None


# %% ex-3-1 + value 0 is taken to agree
counted = convolve_bits


def convolve_bits(words, weights, channels, **options):
    one = np.uint64(1)
    return counted(words | one, weights | one, channels, **options)


# %% ex-3-1 + one count is wrong
counted = convolve_bits


def convolve_bits(words, weights, channels, **options):
    out = counted(words, weights, channels, **options)
    out[-1, -1, -1, -1] += 2
    return out


# %% ex-3-1 + one stride for both directions
counted = convolve_bits


def convolve_bits(words, weights, channels, *, stride=1, **options):
    return counted(words, weights, channels, stride=reference.pair(stride)[0], **options)


# %% ex-3-1 right: + in place, floating numbers
counted = convolve_bits


def convolve_bits(words, weights, channels, **options):
    out = counted(words, weights, channels, **options).astype(np.float64)
    words[...] = 0
    weights[...] = 0
    return out


# %% ex-3-1 right: + another integer type
counted = convolve_bits


def convolve_bits(words, weights, channels, **options):
    return counted(words, weights, channels, **options).astype(np.int32)


# %% ex-3-2 + one count is wrong
mended = mend_border


def mend_border(counts, w, size, **options):
    out = mended(counts, w, size, **options)
    out[0, 0, 0, 0] += 1
    return out


# %% ex-3-2 only above and below
def mend_border(counts, w, size, *, stride=1, padding=0):
    (sh, _), (ph, _) = reference.pair(stride), reference.pair(padding)
    sums, out = np.where(w >= 0, 1, -1).sum(axis=2), counts.copy()
    for i, j in np.ndindex(counts.shape[1:3]):
        for a, b in np.ndindex(w.shape[:2]):
            if not 0 <= sh * i + a - ph < size[0]:
                out[:, i, j] += sums[a, b]
    return out


# %% ex-3-2 + mended twice
mended = mend_border


def mend_border(counts, w, size, **options):
    return mended(mended(counts, w, size, **options), w, size, **options)


# %% ex-3-2 right: in place
def mend_border(counts, w, size, *, stride=1, padding=0):
    (sh, sw), (ph, pw) = reference.pair(stride), reference.pair(padding)
    sums = np.where(w >= 0, 1, -1).sum(axis=2)
    for i, j in np.ndindex(counts.shape[1:3]):
        for a, b in np.ndindex(w.shape[:2]):
            if not (0 <= sh * i + a - ph < size[0] and 0 <= sw * j + b - pw < size[1]):
                counts[:, i, j] += sums[a, b].astype(counts.dtype)
    return counts


# %% ex-3-2 right: + another integer type
mended = mend_border


def mend_border(counts, w, size, **options):
    return mended(counts, w, size, **options).astype(np.int32)


# %% ex-3-3 + dx only
both = binary_weight_backward


def binary_weight_backward(dout, x, w, **options):
    return both(dout, x, w, **options)[0]


# %% ex-3-3 + one element of dW~ is wrong
both = binary_weight_backward


def binary_weight_backward(dout, x, w, **options):
    dx, dw = both(dout, x, w, **options)
    dw[0, 0, 0, 0] += 1e-3
    return dx, dw


# %% ex-3-3 + the gradient for sign(w), not for alpha sign(w)
both = binary_weight_backward


def binary_weight_backward(dout, x, w, **options):
    dx, dw = both(dout, x, w, **options)
    return dx, dw * np.abs(w).mean(axis=(0, 1, 2))


# %% ex-3-3 + the two in the wrong order
both = binary_weight_backward


def binary_weight_backward(dout, x, w, **options):
    return both(dout, x, w, **options)[::-1]


# %% ex-3-3 right: + a list of lists
both = binary_weight_backward


def binary_weight_backward(dout, x, w, **options):
    return [array.tolist() for array in both(dout, x, w, **options)]


# %% ex-3-3 right: + in place
both = binary_weight_backward


def binary_weight_backward(dout, x, w, **options):
    x[...], w[...] = both(dout, x, w, **options)
    dout[...] = 0
    return [x, w]


# %% ex-3-4 + the words about the case
first = first_failure


def first_failure(kernel, cases):
    found = first(kernel, cases)
    return found and str(found)


# %% ex-3-4 every kernel passes
def first_failure(kernel, cases):
    for case in cases:
        kernel(*case.arrays(), **case.options())


# %% ex-3-4 + a case of the right size that the kernel gets right
first = first_failure


def first_failure(kernel, cases):
    import dataclasses

    found = first(kernel, cases)
    return found and dataclasses.replace(found, seed=found.seed + 1)


# %% ex-3-4 only the sum of the counts is compared
def first_failure(kernel, cases):
    for case in cases:
        if abs(int(kernel(*case.arrays(), **case.options()).sum()) - int(truth(case).sum())) > 20:
            return case
    return None


# %% ex-3-4 right: the list is used up
def first_failure(kernel, cases):
    while cases:
        case = cases.pop(0)
        if kernel(*case.arrays(), **case.options()).tolist() != truth(case).tolist():
            return case


# %% ex-3-4 right: + an equal case, and arrays that are written to
first = first_failure


def first_failure(kernel, cases):
    import dataclasses

    found = first(kernel, cases)
    for case in cases:
        x = case.arrays()[0]
        if x.flags.writeable:  # some cases come read-only
            x[...] = 0
    return found and dataclasses.replace(found)
