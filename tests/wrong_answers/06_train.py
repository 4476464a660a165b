# %% ex-6-1 centred over the whole filter
def five_steps(w, x, labels, rate):
    velocity = np.zeros_like(w)
    for own, own_labels in zip(x, labels):
        w = np.clip(w - w.mean(axis=(0, 1, 2)), -1, 1)
        out, cache = conv.xnor_conv2d_forward(own, w)
        _, dlogits = train.softmax_cross_entropy(out[:, 0, 0], own_labels)
        _, g = conv.xnor_conv2d_backward(dlogits[:, None, None], cache)
        velocity = 0.9 * velocity + binarize.weight_gradient(g, w)
        w = w - rate * velocity
    return w


# %% ex-6-1 centred and clamped after the update
def five_steps(w, x, labels, rate):
    velocity = np.zeros_like(w)
    for own, own_labels in zip(x, labels):
        out, cache = conv.xnor_conv2d_forward(own, w)
        _, dlogits = train.softmax_cross_entropy(out[:, 0, 0], own_labels)
        _, g = conv.xnor_conv2d_backward(dlogits[:, None, None], cache)
        velocity = 0.9 * velocity + binarize.weight_gradient(g, w)
        w = w - rate * velocity
        w = np.clip(w - w.mean(axis=2, keepdims=True), -1, 1)
    return w


# %% ex-6-2 the mean of the layers' ratios
def flip_ratios(history):
    bits = [{name: w >= 0 for name, w in moment.items()} for moment in history]

    def ratio(a, b):
        return np.mean([np.mean(a[name] != b[name]) for name in a])

    still = [np.mean(np.all([b[name] == bits[0][name] for b in bits], axis=0)) for name in bits[0]]
    return [ratio(a, b) for a, b in zip(bits, bits[1:])], ratio(bits[0], bits[-1]), np.mean(still)


# %% ex-6-2 from first to last: the sum of the steps
def flip_ratios(history):
    bits = np.array([np.concatenate([w.ravel() >= 0 for w in moment.values()]) for moment in history])
    flips = bits[1:] != bits[:-1]
    return list(flips.mean(axis=1)), flips.mean(axis=1).sum(), np.mean(~flips.any(axis=0))


# %% ex-6-3 alpha in the rule
def bit_history(w, x, labels, rate, steps):
    found, t = [], np.eye(w.shape[1])[labels]
    for _ in range(steps):
        found.append(w >= 0)
        p = softmax(x @ np.where(w >= 0, 1, -1))
        w = w - rate * np.abs(w).mean(axis=0) * len(w) * (x.T @ (p - t) / len(x))
    return np.array(found)


def differing(w, x, labels, rate, steps, scale, rate_scale):
    before = bit_history(w, x, labels, rate, steps)
    return int((bit_history(scale * w, x, labels, rate_scale * rate, steps) != before).sum())


# %% ex-6-3 only the bits of the last step are compared
def bit_history(w, x, labels, rate, steps):
    found, t = [], np.eye(w.shape[1])[labels]
    for _ in range(steps):
        found.append(w >= 0)
        p = softmax(x @ np.where(w >= 0, 1, -1))
        w = w - rate * (x.T @ (p - t) / len(x))
    return np.array(found)


def differing(w, x, labels, rate, steps, scale, rate_scale):
    before = bit_history(w, x, labels, rate, steps)
    return int((bit_history(scale * w, x, labels, rate_scale * rate, steps)[-1] != before[-1]).sum())


# %% ex-6-4 all that has the same name and shape
def hybrid_from(fbin, keep_real):
    hybrid = models.from_spec({**fbin.spec, "variant": "hybrid", "keep_real": list(keep_real)})
    own, taken = hybrid.state(), 0
    for name, value in fbin.state().items():
        if own[name].shape == value.shape:
            own[name][...] = value
            taken += value.size
    return hybrid, taken


why = "I expect the hybrid from FBin weights to be ahead."


# %% ex-6-4 nothing of the kept layers, not even their weights
def hybrid_from(fbin, keep_real):
    hybrid = models.from_spec({**fbin.spec, "variant": "hybrid", "keep_real": list(keep_real)})
    own, taken = hybrid.state(), 0
    for name, value in fbin.state().items():
        if name.split(".")[0] not in keep_real:
            own[name][...] = value
            taken += value.size
    return hybrid, taken


why = ""


# %% ex-6-1 + one weight is wrong
five = five_steps


def five_steps(w, x, labels, rate):
    found = five(w, x, labels, rate)
    found[0, 0, 0, 0] += 1e-6
    return found


# %% ex-6-1 + the w that was given is changed
five = five_steps


def five_steps(w, x, labels, rate):
    w[...] = five(w, x, labels, rate)
    return w


# %% ex-6-1 + four steps
five = five_steps


def five_steps(w, x, labels, rate):
    return five(w, x[:4], labels[:4], rate)


# %% ex-6-1 right: + lists
five = five_steps


def five_steps(w, x, labels, rate):
    return five(w, x, labels, rate).tolist()


# %% ex-6-1 right: + on copies, in place
five = five_steps


def five_steps(w, x, labels, rate):
    w = w.copy(order="F")
    w[...] = five(w, x, labels, rate)
    x[...] = 0
    labels[...] = 0
    return w


# %% ex-6-2 + one ratio is wrong
three = flip_ratios


def flip_ratios(history):
    steps, whole, still = three(history)
    return [*steps[:-1], steps[-1] + 1e-3], whole, still


# %% ex-6-2 the sign of 0 is -1
def flip_ratios(history):
    bits = np.array([np.concatenate([w.ravel() > 0 for w in moment.values()]) for moment in history])
    flips = bits[1:] != bits[:-1]
    return list(flips.mean(axis=1)), np.mean(bits[0] != bits[-1]), np.mean(~flips.any(axis=0))


# %% ex-6-2 + the ratios only
three = flip_ratios


def flip_ratios(history):
    return three(history)[0]


# %% ex-6-2 right: + a list with an array, the history used up
three = flip_ratios


def flip_ratios(history):
    steps, whole, still = three(history)
    for moment in history:
        for w in moment.values():
            w[...] = 0
    history.clear()
    return [np.array(steps), np.array(whole), float(still)]


# %% ex-6-2 right: + a tuple of a tuple
three = flip_ratios


def flip_ratios(history):
    steps, whole, still = three(history)
    return tuple(steps), whole, still


# %% ex-6-3 + one bit is wrong
bits_of_all = bit_history


def bit_history(w, x, labels, rate, steps):
    found = bits_of_all(w, x, labels, rate, steps)
    found[-1, 0, 0] ^= True
    return found


# %% ex-6-3 + the bits after each step
bits_of_all = bit_history


def bit_history(w, x, labels, rate, steps):
    return bits_of_all(w, x, labels, rate, steps + 1)[1:]


# %% ex-6-3 + the share that differs
how_many = differing


def differing(w, x, labels, rate, steps, scale, rate_scale):
    return how_many(w, x, labels, rate, steps, scale, rate_scale) / (steps * w.size)


# %% ex-6-3 right: + whole numbers of another type
bits_of_all, how_many = bit_history, differing


def bit_history(w, x, labels, rate, steps):
    return bits_of_all(w, x, labels, rate, steps).astype(np.uint8)


def differing(w, x, labels, rate, steps, scale, rate_scale):
    return np.int16(how_many(w, x, labels, rate, steps, scale, rate_scale))


# %% ex-6-3 right: in place, lists
def bit_history(w, x, labels, rate, steps):
    found = []
    for _ in range(steps):
        found.append((w >= 0).tolist())
        p = softmax(x @ np.where(w >= 0, 1, -1))
        p[np.arange(len(p)), labels] -= 1
        w -= rate * (x.T @ p / len(x))
    return found


def differing(w, x, labels, rate, steps, scale, rate_scale):
    before = np.array(bit_history(w.copy(), x, labels, rate, steps))
    w *= scale
    return float((np.array(bit_history(w, x, labels, rate_scale * rate, steps)) != before).sum())


# %% ex-6-4 + the count is off by one
taken_over = hybrid_from


def hybrid_from(fbin, keep_real):
    hybrid, count = taken_over(fbin, keep_real)
    return hybrid, count + 1


# %% ex-6-4 + fbin does not stay as it is
taken_over = hybrid_from


def hybrid_from(fbin, keep_real):
    found = taken_over(fbin, keep_real)
    for value in fbin.state().values():
        value.flat[0] += 1
    return found


# %% ex-6-4 + the hybrid only
taken_over = hybrid_from


def hybrid_from(fbin, keep_real):
    return taken_over(fbin, keep_real)[0]


# %% ex-6-4 right: + a list
taken_over = hybrid_from


def hybrid_from(fbin, keep_real):
    return list(taken_over(fbin, keep_real))


# %% ex-6-4 right: + keep_real used up, another integer type
taken_over = hybrid_from


def hybrid_from(fbin, keep_real):
    hybrid, count = taken_over(fbin, tuple(keep_real))
    keep_real.clear()
    return hybrid, np.uint32(count)
