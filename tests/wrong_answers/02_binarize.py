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


# %% ex-2-1 + one sign is wrong
repaired = signs_after_relu


def signs_after_relu(x):
    counts, signs = repaired(x)
    signs[0, 0] *= -1
    return counts, signs


# %% ex-2-1 one mean for all channels
def signs_after_relu(x):
    y = np.maximum(x, 0)
    return [int((np.sign(y) == value).sum()) for value in (-1, 0, 1)], np.where(y >= y.mean(), 1, -1)


# %% ex-2-1 + the signs only
repaired = signs_after_relu


def signs_after_relu(x):
    return repaired(x)[1]


# %% ex-2-1 right: in place, lists
def signs_after_relu(x):
    np.maximum(x, 0, out=x)
    counts = np.array([0, (x == 0).sum(), (x > 0).sum()])
    x -= x.mean(axis=0)
    return [counts, np.where(x < 0, -1.0, 1.0).tolist()]


# %% ex-2-1 right: + other integer types
repaired = signs_after_relu


def signs_after_relu(x):
    counts, signs = repaired(x)
    return np.array(counts, np.uint8), signs.astype(np.int8)


# %% ex-2-2 the window takes its ends in
def ste(dout, x):
    return dout * (np.abs(x) <= 1)


def stand_in(x):
    return np.clip(x, -1, 1)


# %% ex-2-2 + one element of the gradient is wrong
whole = ste


def ste(dout, x):
    dx = whole(dout, x)
    dx[-1, -1] += 1e-6
    return dx


# %% ex-2-2 a smooth stand-in
def ste(dout, x):
    return dout * (np.abs(x) < 1)


def stand_in(x):
    return np.tanh(x)


# %% ex-2-2 + the stand-in returns nothing
def stand_in(x):
    np.clip(x, -1, 1)


# %% ex-2-2 right: in place
def ste(dout, x):
    dout[np.abs(x) >= 1] = 0
    return dout


def stand_in(x):
    x[x > 1] = 1
    x[x < -1] = -1
    return x


# %% ex-2-2 right: + lists, and a constant that no slope has
whole = ste


def ste(dout, x):
    return whole(dout, x).tolist()


def stand_in(x):
    return (np.clip(x, -1, 1) + 3).tolist()


# %% ex-2-3 the optimiser's state is made anew for each step
def distances(g, w):
    factor = (1 - 1 / w.shape[2]) * w[..., 0].size
    found = []
    for make in (lambda: train.SGD(0.001, momentum=0), lambda: train.Adam(0.001)):
        for divisor in (1, factor):
            moved = w.copy()
            for own in g:
                optimizer = make()
                running = [np.zeros_like(w) for _ in optimizer.slots]
                optimizer.steps += 1
                optimizer.update(moved, binarize.weight_gradient(own, w, "paper") / divisor, *running)
            found.append(np.linalg.norm(moved - w))
    return found


# %% ex-2-3 + Adam is taken to move by its rate at each step
all_four = distances


def distances(g, w):
    return [*all_four(g, w)[:2], 0.005 * np.sqrt(w.size), 0.005 * np.sqrt(w.size)]


# %% ex-2-3 + SGD's second is off by a thousandth
all_four = distances


def distances(g, w):
    return np.array(all_four(g, w)) * (1, 1.001, 1, 1)


# %% ex-2-3 + SGD's pair only
all_four = distances


def distances(g, w):
    return all_four(g, w)[:2]


# %% ex-2-3 right: in place, and left where the last run ended
def distances(g, w):
    factor = (1 - 1 / w.shape[2]) * w[..., 0].size
    start, found = w.copy(), []
    gradients = np.array([binarize.weight_gradient(own, start, "paper") for own in g])
    for make in (lambda: train.SGD(0.001, momentum=0), lambda: train.Adam(0.001)):
        for divisor in (1, factor):
            w[...] = start
            optimizer = make()
            running = [np.zeros_like(w) for _ in optimizer.slots]
            for own in gradients:
                optimizer.steps += 1
                optimizer.update(w, own / divisor, *running)
            found.append(np.linalg.norm(w - start))
    return found


# %% ex-2-3 right: + an array
all_four = distances


def distances(g, w):
    return np.array(all_four(g, w))


# %% ex-2-4 centred over the whole filter
def centred(w, g):
    channels, n = w.shape[2], w[..., 0].size
    w = w - w.mean(axis=(0, 1, 2))
    alphas = np.abs(w).mean(axis=(0, 1, 2))
    dw = g * (1 / n + alphas * (np.abs(w) < 1)) * (1 - 1 / channels) * n
    return [np.abs(w).max(), alphas.max(), (w >= 0).mean(), np.abs(dw).max()]


why = ""


# %% ex-2-4 + of one sign more it is said to be +1
found = centred


def centred(w, g):
    largest, alpha, share, gradient = found(w, g)
    return [largest, alpha, min(share + 1 / w.size, 1), gradient]


# %% ex-2-4 + the mean alpha, not the largest
found = centred


def centred(w, g):
    half = w - w.mean(axis=2, keepdims=True)
    return [np.abs(half).mean() if k == 1 else value for k, value in enumerate(found(w, g))]


# %% ex-2-4 right: in place, a tuple
def centred(w, g):
    channels, n = w.shape[2], w[..., 0].size
    w -= w.mean(axis=2, keepdims=True)
    alphas = np.abs(w).mean(axis=(0, 1, 2))
    g *= (1 / n + alphas * (np.abs(w) < 1)) * (1 - 1 / channels) * n
    return np.abs(w).max(), alphas.max(), (w >= 0).mean(), np.abs(g).max()


why = ""


# %% ex-2-4 right: + an array
found = centred


def centred(w, g):
    return np.array(found(w, g))


# %% ex-2-3 each gradient by the rule at where W has come
def distances(g, w):
    factor, found = (1 - 1 / w.shape[2]) * w[..., 0].size, []
    for make in (sgd, adam):
        for divisor in (1, factor):
            optimizer, end = make(), w.copy()
            running = [np.zeros_like(w) for _ in optimizer.slots]
            for own in g:
                optimizer.steps += 1
                optimizer.update(end, binarize.weight_gradient(own, end, "paper") / divisor, *running)
            found.append(np.linalg.norm(end - w))
    return found


# %% ex-2-3 one optimizer for both runs
def distances(g, w):
    factor = (1 - 1 / w.shape[2]) * w[..., 0].size
    paper = [binarize.weight_gradient(own, w, "paper") for own in g]
    optimizers = sgd(), adam()
    return [
        moved(optimizer, gradients, w)
        for optimizer in optimizers
        for gradients in (paper, [own / factor for own in paper])
    ]
