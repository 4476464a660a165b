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


# %% ex-7-1 + bits of weights are rounded down
four = convolution_cost


def convolution_cost(size, kernel, channels, filters, stride, padding, kind):
    real, binary, weight_bytes, input_bytes = four(size, kernel, channels, filters, stride, padding, kind)
    return [real, binary, weight_bytes - (kind != "fprec"), input_bytes]


# %% ex-7-1 + bits of an input are rounded up once a map
four = convolution_cost


def convolution_cost(size, kernel, channels, filters, stride, padding, kind):
    *others, input_bytes = four(size, kernel, channels, filters, stride, padding, kind)
    return [*others, -(-size * size * channels // 8) if kind == "fbin" else input_bytes]


# %% ex-7-1 right: + floating numbers in a tuple
four = convolution_cost


def convolution_cost(*args):
    return tuple(map(float, four(*args)))


# %% ex-7-1 right: + an array
four = convolution_cost


def convolution_cost(*args):
    return np.array(four(*args), np.uint64)


# %% ex-7-2 the share of the layers, not of the time
def speed_ups(seconds, names, factor):
    share = len(names) / len(seconds)
    return [1 / (1 - share + share / factor), 1 / (1 - share), share / (1 - share)]


# %% ex-7-2 the speed-up of the binary part for that of the whole
def speed_ups(seconds, names, factor):
    binary = sum(seconds[name] for name in names)
    rest = sum(seconds.values()) - binary
    return [factor, np.inf, binary / rest]


# %% ex-7-2 + the factor for all of it
three = speed_ups


def speed_ups(seconds, names, factor):
    first, second, _ = three(seconds, names, factor)
    return [first, second, np.inf]


# %% ex-7-2 + the first two in the wrong order
three = speed_ups


def speed_ups(seconds, names, factor):
    first, second, third = three(seconds, names, factor)
    return [second, first, third]


# %% ex-7-2 right: + an array
three = speed_ups


def speed_ups(seconds, names, factor):
    return np.array(three(seconds, names, factor))


# %% ex-7-2 right: in place
def speed_ups(seconds, names, factor):
    binary = 0.0
    while names:
        binary += seconds.pop(names.pop())
    rest = sum(seconds.values())
    return (rest + binary) / (rest + binary / factor), (rest + binary) / rest, binary / rest


# %% ex-7-3 the mean of the layers' factors
def measured_factor(timings):
    return np.mean([np.median(found["real"]) / np.median(found["binary"]) for found in timings.values()])


# %% ex-7-3 means, which disturbed rounds carry away
def measured_factor(timings):
    real, binary = (sum(np.mean(found[kind]) for found in timings.values()) for kind in ("real", "binary"))
    return real / binary


# %% ex-7-3 binary by real
def measured_factor(timings):
    real, binary = (sum(np.median(found[kind]) for found in timings.values()) for kind in ("real", "binary"))
    return binary / real


# %% ex-7-3 + off by a millionth
factor_of_all = measured_factor


def measured_factor(timings):
    return factor_of_all(timings) * (1 + 1e-6)


# %% ex-7-3 right: in place
def measured_factor(timings):
    sums = {"real": 0.0, "binary": 0.0}
    while timings:
        _, found = timings.popitem()
        for kind, seconds in found.items():
            seconds.sort()
            sums[kind] += seconds[len(seconds) // 2]
    return sums["real"] / sums["binary"]


# %% ex-7-3 right: + an array without axes
factor_of_all = measured_factor


def measured_factor(timings):
    return np.array(factor_of_all(timings))


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


# %% ex-7-4 + one truth value is wrong
of_all = dominated


def dominated(points):
    found = of_all(points)
    found[0] ^= True
    return found


# %% ex-7-4 + the higher accuracy is taken to be worse
of_all = dominated


def dominated(points):
    return of_all(points * (1, 1, -1))


# %% ex-7-4 right: + whole numbers in a list
of_all = dominated


def dominated(points):
    return [int(value) for value in of_all(points)]


# %% ex-7-4 right: in place
def dominated(points):
    points *= (1, 1, -1)  # now less is better in all three
    found = []
    for own in points:
        found.append(any((other <= own).all() and (other < own).any() for other in points))
    return tuple(found)


why = ""
