# %% ex-2-1 two values, but not centred: all are +1
def signs_after_relu(x):
    y = np.maximum(x, 0)
    return [int((np.sign(y) == value).sum()) for value in (-1, 0, 1)], np.where(y >= 0, 1, -1)


# %% ex-2-1 centred, but still three values
def signs_after_relu(x):
    y = np.maximum(x, 0)
    return [int((np.sign(y) == value).sum()) for value in (-1, 0, 1)], np.sign(y - y.mean(axis=0))


# %% ex-2-2 no window
def ste(dout, x):
    return dout


def stand_in(x):
    return x


# %% ex-2-2 finite differences on the sign
def ste(dout, x):
    return dout * (np.abs(x) < 1)


def stand_in(x):
    return np.where(x >= 0, 1.0, -1.0)


# %% ex-2-3 only n is left out
def distances(g, w):
    found = []
    for make in (lambda: train.SGD(0.001, momentum=0), lambda: train.Adam(0.001)):
        for divisor in (1, w[..., 0].size):
            optimizer, moved = make(), w.copy()
            running = [np.zeros_like(w) for _ in optimizer.slots]
            for own in g:
                optimizer.steps += 1
                optimizer.update(moved, binarize.weight_gradient(own, w, "paper") / divisor, *running)
            found.append(np.linalg.norm(moved - w))
    return found


# %% ex-2-3 Adam's steps are not counted
def distances(g, w):
    factor = (1 - 1 / w.shape[2]) * w[..., 0].size
    found = []
    for make in (lambda: train.SGD(0.001, momentum=0), lambda: train.Adam(0.001)):
        for divisor in (1, factor):
            optimizer, moved = make(), w.copy()
            running = [np.zeros_like(w) for _ in optimizer.slots]
            optimizer.steps = 1
            for own in g:
                optimizer.update(moved, binarize.weight_gradient(own, w, "paper") / divisor, *running)
            found.append(np.linalg.norm(moved - w))
    return found


# %% ex-2-4 not centred
def centred(w, g):
    channels, n = w.shape[2], w[..., 0].size
    alphas = np.abs(w).mean(axis=(0, 1, 2))
    dw = g * (1 / n + alphas * (np.abs(w) < 1)) * (1 - 1 / channels) * n
    return [np.abs(w).max(), alphas.max(), (w >= 0).mean(), np.abs(dw).max()]


why = "All signs are the same, so the layer cannot learn."


# %% ex-2-4 the gradient without the factor (1 - 1 / C_in) n
def centred(w, g):
    n = w[..., 0].size
    w = w - w.mean(axis=2, keepdims=True)
    alphas = np.abs(w).mean(axis=(0, 1, 2))
    dw = g * (1 / n + alphas * (np.abs(w) < 1))
    return [np.abs(w).max(), alphas.max(), (w >= 0).mean(), np.abs(dw).max()]


why = ""
