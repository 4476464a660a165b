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
