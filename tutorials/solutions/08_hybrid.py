# %% ex-8-1
def normal_error(sigma):
    """E of normal values with mean 0 and this deviation"""
    return 1 - 2 * sigma * np.sqrt(2 / np.pi) + sigma**2  # mean (1 - 2 |x| + x^2)


def best_sigma():
    """the deviation at which that E is least"""
    return np.sqrt(2 / np.pi)  # where 2 sigma = 2 sqrt(2 / pi); what is left is 1 - 2 / pi


# %% ex-8-2
def exact_kmeans(values, clusters):
    """values (n,), clusters from 1 to n -> list of lists of positions in values, one list a cluster, none empty"""
    order, best = np.argsort(values), None
    for cuts in itertools.combinations(range(1, len(values)), clusters - 1):
        groups = np.split(order, cuts)
        total = sum(((values[group] - values[group].mean()) ** 2).sum() for group in groups)
        if best is None or total < best[0]:
            best = total, [group.tolist() for group in groups]
    return best[1]


# %% ex-8-3
def switch_gamma(errors, macs):
    """errors (L,), macs (L,), one layer the cheapest -> gamma"""
    slopes, cheapest = macs.sum() / macs, np.argmin(macs)
    others = np.arange(len(macs)) != cheapest  # each of their lines is met at a gamma of its own
    meets = (errors[others] - errors[cheapest]) / (slopes[cheapest] - slopes[others])
    return max(0.0, meets.max())


# %% ex-8-4
def scale_free(x):
    """x, any shape -> a number from 0 to 1"""
    return 1 - np.mean(np.abs(x)) ** 2 / np.mean(np.square(x))


# Rubric. The first sentence: a common factor cancels, so the choice no longer moves when BatchNorm is multiplied while
# bits and predictions stay. The second: being blind to scale does not make it a forecast of the accuracy that a layer
# loses; to show that, hybrids chosen by both forms must be trained (or looked up among all choices) on several seeds.
why = """The new form does not change when gamma and beta of a BatchNorm are multiplied, so the choice depends only on
what the signs leave out, and no longer on a scale that the forward pass never sees. That repairs one fault and proves
nothing about accuracy: I would look up, on several seeds, the networks that both forms choose among all trained
choices, and compare them with each other, with cost alone and with chance."""


# %% ex-8-5
def predict(macs):
    """macs {name: MACs} of the layers that can be chosen -> names of those that stay real"""
    names = list(macs)
    scores = hybrid.metric(np.ones(len(names)), list(macs.values()))  # all errors alike: what they are does not matter
    return [names[i] for i in hybrid.partition(scores, 0.4, 3)]


# Rubric. The first sentence: with errors that are alike, 1 / NF decides, and it spans orders of magnitude: the layers
# with the fewest MACs stay real (1 x 1 kernels, maps of one pixel, few channels). The second: an error would have to
# grow as large as the other layers' gamma / NF, as BatchNorm times 4 makes it, or gamma would have to be small.
why_these = """The errors of all layers are nearly the same, but the MACs differ by orders of magnitude, so gamma / NF
decides and the layers with the fewest MACs, small kernels on small maps, stay real as long as their cluster fits. My
prediction fails if one layer's error is many times the others', as after BatchNorm times 4, or if gamma is small."""
