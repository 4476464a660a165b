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
