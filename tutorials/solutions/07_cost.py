# %% ex-7-1
def convolution_cost(size, kernel, channels, filters, stride, padding, kind):
    """A square map of size x size pixels -> [real MACs, binary MACs, weight bytes, input bytes]"""
    side = (size + 2 * padding - kernel) // stride + 1
    weights = kernel * kernel * channels * filters
    macs = weights * side * side
    weight_bytes = 4 * weights if kind == "fprec" else -(-weights // 8) + 4 * filters
    pixel_bytes = -(-channels // 8) if kind == "fbin" else 4 * channels
    return [0 if kind == "fbin" else macs, macs if kind == "fbin" else 0, weight_bytes, size * size * pixel_bytes]


# %% ex-7-2
def speed_ups(seconds, names, factor):
    """{layer: seconds}, binary layers, a number -> [speed-up, speed-up if free, factor for half]"""
    binary = sum(seconds[name] for name in names)
    rest = sum(seconds.values()) - binary
    whole = rest + binary
    return [whole / (rest + binary / factor), whole / rest, binary / rest]  # half: rest + binary / s = 2 rest


# %% ex-7-3
def measured_factor(timings):
    """{layer: {"real": seconds of each round, "binary": the same}} -> a number"""
    real, binary = (sum(np.median(found[kind]) for found in timings.values()) for kind in ("real", "binary"))
    return real / binary  # a mean of ratios would let the smallest layer count as much as the largest


# %% ex-7-4
def dominated(points):
    """points (N, 3): operations, bytes, accuracy -> N truth values"""
    gain = (points[:, None] - points) * (1, 1, -1)  # gain[i, j] above 0: j is better than i
    return ((gain >= 0).all(axis=2) & (gain > 0).any(axis=2)).any(axis=1)


why = """Between two networks judged on other drawings one point is hardly more than the standard error of the
difference, so a single pair of accuracies cannot tell them apart. In pairs, on the same drawings and over several
seeds, the error is smaller, and then one point may be a difference: it depends on the number of drawings and seeds,
and on whether they are the same for both."""
