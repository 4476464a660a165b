# %% ex-6-1
def five_steps(w, x, labels, rate):
    """w (kh, kw, C, classes), x (5, N, kh, kw, C), labels (5, N) -> latent weights after five steps; w itself stays"""
    velocity = np.zeros_like(w)
    for own, own_labels in zip(x, labels):
        w = np.clip(w - w.mean(axis=2, keepdims=True), -1, 1)
        out, cache = conv.xnor_conv2d_forward(own, w)
        _, dlogits = train.softmax_cross_entropy(out[:, 0, 0], own_labels)
        _, g = conv.xnor_conv2d_backward(dlogits[:, None, None], cache)
        velocity = 0.9 * velocity + binarize.weight_gradient(g, w)
        w = w - rate * velocity
    return w


# %% ex-6-2
def flip_ratios(history):
    """list of T dicts {name: array} -> list of T - 1 numbers, number, number"""
    bits = np.array([np.concatenate([w.ravel() >= 0 for w in moment.values()]) for moment in history])
    flips = bits[1:] != bits[:-1]  # (T - 1, weights); equal sums where no weight flips twice
    return list(flips.mean(axis=1)), np.mean(bits[0] != bits[-1]), np.mean(~flips.any(axis=0))


# %% ex-6-3
def bit_history(w, x, labels, rate, steps):
    """w (n, classes), x (N, n) -> bool (steps, n, classes): W >= 0 as each step's forward pass uses it"""
    found, t = [], np.eye(w.shape[1])[labels]
    for _ in range(steps):
        found.append(w >= 0)
        p = softmax(x @ np.where(w >= 0, 1, -1))
        w = w - rate * (np.abs(w) < 1) * (x.T @ (p - t) / len(x))
    return np.array(found)


def differing(w, x, labels, rate, steps, scale, rate_scale):
    """How many bits of bit_history differ when w is multiplied by scale, and the rate by rate_scale: a whole number"""
    before = bit_history(w, x, labels, rate, steps)
    return int((bit_history(scale * w, x, labels, rate_scale * rate, steps) != before).sum())


# %% ex-6-4
def hybrid_from(fbin, keep_real):
    """FBin network, names of layers -> (hybrid, the number of numbers taken over); fbin stays as it is"""
    hybrid = models.from_spec({**fbin.spec, "variant": "hybrid", "keep_real": list(keep_real)})
    own, taken = hybrid.state(), 0
    for name, value in fbin.state().items():
        if name.rpartition(".")[0] not in [f"{layer}.bn" for layer in keep_real]:  # these stand behind the conv now
            own[name][...] = value
            taken += value.size
    return hybrid, taken


why = """I expected the FBin weights to be ahead after the same number of hybrid steps, as their signs have been chosen
already, and level or behind when the steps of FBin are counted too. The printed losses of three seeds say whether it
is so; the fair comparison counts all steps, and only a difference of one sign in all seeds decides anything."""
