# %% ex-8-1 the deviation is not squared
def normal_error(sigma):
    return 1 - 2 * sigma * np.sqrt(2 / np.pi) + sigma


def best_sigma():
    return np.sqrt(2 / np.pi)


# %% ex-8-1 the square of the mean in the place of the mean of the square
def normal_error(sigma):
    return (1 - sigma * np.sqrt(2 / np.pi)) ** 2


def best_sigma():
    return np.sqrt(np.pi / 2)


# %% ex-8-2 cuts at the widest gaps
def exact_kmeans(values, clusters):
    order = np.argsort(values)
    gaps = np.diff(values[order])
    cuts = np.sort(np.argsort(-gaps)[: clusters - 1]) + 1
    return [group.tolist() for group in np.split(order, cuts)]


# %% ex-8-2 Lloyd's method from the lowest values
def exact_kmeans(values, clusters):
    centres = np.sort(values)[:clusters]
    for _ in range(100):
        nearest = np.abs(values[:, None] - centres).argmin(axis=1)
        centres = np.array([values[nearest == k].mean() for k in range(clusters)])
    return [np.flatnonzero(nearest == k).tolist() for k in range(clusters)]


# %% ex-8-3 counts in the place of shares
def switch_gamma(errors, macs):
    slopes, cheapest = 1 / macs, np.argmin(macs)
    others = np.arange(len(macs)) != cheapest
    return max(0.0, ((errors[others] - errors[cheapest]) / (slopes[cheapest] - slopes[others])).max())


# %% ex-8-3 compared with the layer of the largest error only
def switch_gamma(errors, macs):
    slopes, cheapest, largest = macs.sum() / macs, np.argmin(macs), np.argmax(errors)
    if cheapest == largest:
        return 0.0
    return (errors[largest] - errors[cheapest]) / (slopes[cheapest] - slopes[largest])


# %% ex-8-4 E over the mean square, the sign not scaled
def scale_free(x):
    return np.mean((1 - np.abs(x)) ** 2) / np.mean(np.square(x))


why = "It is better, because it is scale-free."


# %% ex-8-4 E of the values divided by their deviation
def scale_free(x):
    return np.mean((1 - np.abs(x) / np.std(x)) ** 2)


why = ""


# %% ex-8-1 + the best deviation, rounded
def best_sigma():
    return 0.8


# %% ex-8-1 + the least E, not where it is
def best_sigma():
    return 1 - 2 / np.pi


# %% ex-8-1 + off by a ten-thousandth
whole = normal_error


def normal_error(sigma):
    return whole(sigma) + 1e-4


# %% ex-8-1 right: by the square's two terms, arrays without axes
def normal_error(sigma):
    return np.array((1 - sigma) ** 2 + 2 * sigma * (1 - (2 / np.pi) ** 0.5))


def best_sigma():
    return np.array((2 / np.pi) ** 0.5)


# %% ex-8-1 right: found by trying
def normal_error(sigma):
    return 1 - sigma * (8 / np.pi) ** 0.5 + sigma * sigma


def best_sigma():
    low, high = 0.0, 4.0
    while high - low > 1e-9:
        a, b = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, b) if normal_error(a) < normal_error(b) else (a, high)
    return low


# %% ex-8-2 + one position stands in the wrong cluster
clusters_of = exact_kmeans


def exact_kmeans(values, clusters):
    groups = clusters_of(values, clusters)
    longest = max(range(len(groups)), key=lambda k: len(groups[k]))
    if len(groups) > 1 and len(groups[longest]) > 1:
        groups[longest - 1].append(groups[longest].pop(0 if longest == 0 else -1))
    return groups


# %% ex-8-2 + the number of each position's cluster
clusters_of = exact_kmeans


def exact_kmeans(values, clusters):
    groups = clusters_of(values, clusters)
    return [next(k for k, group in enumerate(groups) if i in group) for i in range(len(values))]


# %% ex-8-2 + values, not positions
clusters_of = exact_kmeans


def exact_kmeans(values, clusters):
    return [values[group].tolist() for group in clusters_of(values, clusters)]


# %% ex-8-2 right: + arrays in a tuple, from the highest to the lowest
clusters_of = exact_kmeans


def exact_kmeans(values, clusters):
    return tuple(np.array(group, np.uint8) for group in clusters_of(values, clusters)[::-1])


# %% ex-8-2 right: + in place
clusters_of = exact_kmeans


def exact_kmeans(values, clusters):
    found = clusters_of(values, clusters)
    values.sort()
    return [tuple(group) for group in found]


# %% ex-8-3 a gamma below 0
def switch_gamma(errors, macs):
    slopes, cheapest = macs.sum() / macs, np.argmin(macs)
    others = np.arange(len(macs)) != cheapest
    return ((errors[others] - errors[cheapest]) / (slopes[cheapest] - slopes[others])).max()


# %% ex-8-3 + off by a thousandth
gamma = switch_gamma


def switch_gamma(errors, macs):
    return gamma(errors, macs) * 1.001


# %% ex-8-3 right: in place
def switch_gamma(errors, macs):
    slopes, cheapest = macs.sum() / macs, int(np.argmin(macs))
    errors -= errors[cheapest]
    slopes -= slopes[cheapest]
    macs[...] = 0
    return np.float64(max([0, *(e / -s for e, s in zip(errors, slopes) if s)]))


# %% ex-8-3 right: + an array without axes
gamma = switch_gamma


def switch_gamma(errors, macs):
    return np.array(gamma(errors.tolist() @ np.eye(len(errors)), macs))


# %% ex-8-4 the deviation in the place of the root of the mean square
def scale_free(x):
    return 1 - np.mean(np.abs(x)) ** 2 / np.var(x)


why = ""


# %% ex-8-4 not squared
def scale_free(x):
    return 1 - np.mean(np.abs(x)) / np.sqrt(np.mean(np.square(x)))


why = ""


# %% ex-8-4 + right but for large values
free = scale_free


def scale_free(x):
    return free(np.clip(x, -6, 6))


# %% ex-8-4 right: in place
def scale_free(x):
    np.abs(x, out=x)
    x /= x.max()
    mean = x.mean()
    x *= x
    return 1 - mean**2 / x.mean()


why = ""


# %% ex-8-4 right: + an array without axes
free = scale_free


def scale_free(x):
    return np.array(free(x))


# %% ex-8-5 the layers with the most MACs
def predict(macs):
    return sorted(macs, key=macs.get)[-int(0.4 * len(macs)) :]


why_these = ""


# %% ex-8-5 always the two cheapest
def predict(macs):
    return sorted(macs, key=macs.get)[:2]


why_these = ""


# %% ex-8-5 as many of the cheapest as R allows, without clusters
def predict(macs):
    return sorted(macs, key=macs.get)[: int(0.4 * len(macs))]


why_these = ""


# %% ex-8-5 the last layers
def predict(macs):
    return list(macs)[-int(0.4 * len(macs)) :]


why_these = ""


# %% ex-8-5 + positions, not names
names_of = predict


def predict(macs):
    return [list(macs).index(name) for name in names_of(macs)]


# %% ex-8-5 + one name, not in a list
names_of = predict


def predict(macs):
    return names_of(macs)[0]


# %% ex-8-5 right: + a set
names_of = predict


def predict(macs):
    return set(names_of(macs))


# %% ex-8-5 right: the clusters of 1 / MACs, in an array, from the cheapest
def predict(macs):
    names = np.array(list(macs))
    kept = hybrid.partition([1 / count for count in macs.values()], 0.4, 3)
    return names[sorted(kept, key=lambda i: macs[names[i]])]


why_these = ""


# %% ex-8-5 right: by hand, and macs emptied
def predict(macs):
    names = sorted(macs, key=macs.get, reverse=True)
    inverse = [1e3 / macs.pop(name) for name in names]
    for count in range(min(3, len(names)), len(names) + 1):
        kept = []
        for cluster in hybrid.kmeans_1d(inverse, count)[::-1]:
            if len(kept) + len(cluster) > int(0.4 * len(names)):
                break
            kept += cluster
        if kept:
            break
    return tuple(names[i] for i in kept)


why_these = ""
