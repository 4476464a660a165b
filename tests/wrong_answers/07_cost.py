# %% ex-7-1 the output is as large as the input
def convolution_cost(size, kernel, channels, filters, stride, padding, kind):
    weights = kernel * kernel * channels * filters
    macs = weights * size * size
    weight_bytes = 4 * weights if kind == "fprec" else -(-weights // 8) + 4 * filters
    pixel_bytes = -(-channels // 8) if kind == "fbin" else 4 * channels
    return [0 if kind == "fbin" else macs, macs if kind == "fbin" else 0, weight_bytes, size * size * pixel_bytes]


# %% ex-7-1 binary weights without alpha, and binary MACs in WBin
def convolution_cost(size, kernel, channels, filters, stride, padding, kind):
    side = (size + 2 * padding - kernel) // stride + 1
    weights = kernel * kernel * channels * filters
    macs = weights * side * side
    weight_bytes = 4 * weights if kind == "fprec" else -(-weights // 8)
    pixel_bytes = -(-channels // 8) if kind == "fbin" else 4 * channels
    return [macs if kind == "fprec" else 0, 0 if kind == "fprec" else macs, weight_bytes, size * size * pixel_bytes]


# %% ex-7-2 the mean of the layers' factors
def measured_factor(timings):
    return np.mean([np.median(found["real"]) / np.median(found["binary"]) for found in timings.values()])


# %% ex-7-2 means, which disturbed rounds carry away
def measured_factor(timings):
    real, binary = (sum(np.mean(found[kind]) for found in timings.values()) for kind in ("real", "binary"))
    return real / binary


# %% ex-7-3 the share of the layers, not of the time
def speed_ups(seconds, names, factor):
    share = len(names) / len(seconds)
    return [1 / (1 - share + share / factor), 1 / (1 - share), share / (1 - share)]


# %% ex-7-3 the speed-up of the binary part for that of the whole
def speed_ups(seconds, names, factor):
    binary = sum(seconds[name] for name in names)
    rest = sum(seconds.values()) - binary
    return [factor, np.inf, binary / rest]


# %% ex-7-4 better in all three
def dominated(points):
    gain = (points[:, None] - points) * (1, 1, -1)
    return (gain > 0).all(axis=2).any(axis=1)


why = "Yes, one point is a difference, as 90 is more than 89."


# %% ex-7-4 no worse in any: equals dominate each other, and a network itself
def dominated(points):
    gain = (points[:, None] - points) * (1, 1, -1)
    return (gain >= 0).all(axis=2).any(axis=1)


why = ""
