# %% ex-2-1
def signs_after_relu(x):
    """x (N, C), before the ReLU -> [count of -1, of 0, of +1] of np.sign, repaired signs (N, C)"""
    y = np.maximum(x, 0)
    counts = [int((np.sign(y) == value).sum()) for value in (-1, 0, 1)]
    return counts, np.where(y - y.mean(axis=0) >= 0, 1, -1)


# %% ex-2-2
def ste(dout, x):
    """dL/dsign(x) and x, of one shape -> dL/dx"""
    return dout * (np.abs(x) < 1)


def stand_in(x):
    """The function whose slope ste uses."""
    return np.clip(x, -1, 1)


# %% ex-2-3
def distances(g, w):
    """g (5, kh, kw, C_in, C_out), w (kh, kw, C_in, C_out)
    -> [SGD, SGD without, Adam, Adam without]"""
    factor = (1 - 1 / w.shape[2]) * w[..., 0].size
    paper = [binarize.weight_gradient(own, w, "paper") for own in g]
    without = [own / factor for own in paper]
    return [moved(make(), gradients, w) for make in (sgd, adam) for gradients in (paper, without)]


# %% ex-2-4
def centred(w, g):
    """w, g (kh, kw, C_in, C_out); w is centred first
    -> [largest |W|, largest alpha, share of +1, largest |dL/dW|]"""
    channels, n = w.shape[2], w[..., 0].size
    w = w - w.mean(axis=2, keepdims=True)
    alphas = np.abs(w).mean(axis=(0, 1, 2))
    dw = g * (1 / n + alphas * (np.abs(w) < 1)) * (1 - 1 / channels) * n
    return [np.abs(w).max(), alphas.max(), (w >= 0).mean(), np.abs(dw).max()]


why = """Every weight equals the mean that is subtracted from it, so all signs are +1, alpha is 0, and the layer gives 0
for every input. The factor 1 - 1/C_in makes the gradient 0 as well, and whatever a step did, the next centring would
erase it. Such a layer, often the first one, has to keep real weights."""
