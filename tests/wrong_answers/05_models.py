# %% ex-5-1 every weight is taken for one bit
def my_network(macs, weight_bytes):
    c = max(c for c in range(8, 400) if (72 * c + 25 * c * c) / 8 <= weight_bytes and 4608 * c + 160 * c * c <= macs)
    return [
        models.conv("conv1", 8, 5, stride=2, padding=2), models.max_pool(2), models.conv("conv2", c, 3, padding=1),
        models.max_pool(2), models.conv("conv3", c, 3, padding=1), models.conv("conv4", c, "map"), models.classifier(),
    ]  # fmt: skip


# %% ex-5-1 one small network for all budgets
def my_network(macs, weight_bytes):
    return [
        models.conv("conv1", 8, 3, stride=2, padding=1), models.max_pool(2), models.conv("conv2", 32, 3, padding=1),
        models.max_pool(2), models.conv("conv3", 32, 3, padding=1), models.conv("conv4", 32, "map"),
        models.classifier(),
    ]  # fmt: skip


# %% ex-5-1 its end is a map of 32 x 32
def my_network(macs, weight_bytes):
    return [
        models.conv("conv1", 4, 3, padding=1), models.conv("conv2", 4, 3, padding=1),
        models.conv("conv3", 4, 3, padding=1), models.conv("conv4", 4, 3, padding=1), models.classifier(),
    ]  # fmt: skip


# %% ex-5-1 two fully binary layers
def my_network(macs, weight_bytes):
    for c in range(400, 1, -1):
        definition = [
            models.conv("conv1", 8, 5, stride=2, padding=2), models.max_pool(2), models.conv("conv2", c, 3, padding=1),
            models.max_pool(2), models.conv("conv3", c, "map"), models.classifier(),
        ]  # fmt: skip
        total = cost.table(built(definition, "fbin", 10, 1, 32))["total"]
        if total["weight_bytes"] <= weight_bytes and total["macs_real"] + total["macs_binary"] <= macs:
            return definition


# %% ex-5-1 a network, not its definition
def my_network(macs, weight_bytes):
    return built("small", "fbin", 10, 1, 32)


# %% ex-5-1 nothing where the budget is small
def my_network(macs, weight_bytes):
    if macs < 100:
        return [models.classifier()]


# %% ex-5-1 right: a tuple, and a shape of its own
def my_network(macs, weight_bytes):
    def at(c):
        return (
            models.conv("stem", 8, 5, stride=2, padding=2), models.max_pool(2), models.conv("a", c, 3, padding=1),
            models.max_pool(2), models.conv("b", c, 3, padding=1), models.conv("c", 2 * c, "map"), models.classifier(),
        )  # fmt: skip

    def fits(c):
        total = cost.table(built(at(c), "fbin", 10, 1, 32))["total"]
        return total["weight_bytes"] <= weight_bytes and total["macs_real"] + total["macs_binary"] <= macs

    low, high = 2, 400
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return at(low)


# %% ex-5-1 right: with an item that costs nothing
def my_network(macs, weight_bytes):
    def at(c):
        return [
            models.conv("conv1", 8, 5, stride=2, padding=2), models.max_pool(2), models.conv("conv2", c, 3, padding=1),
            models.max_pool(2), models.conv("conv3", c, 3, padding=1), models.dropout(0.2),
            models.conv("conv4", 2 * c, "map"), models.classifier(),
        ]  # fmt: skip

    def fits(c):
        total = cost.table(built(at(c), "fbin", 10, 1, 32))["total"]
        return total["weight_bytes"] <= weight_bytes and total["macs_real"] + total["macs_binary"] <= macs

    low, high = 2, 400
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return at(low)


# %% ex-5-2 one BatchNorm for both branches
def count_fire(size, c_in, squeeze, expand):
    weights = c_in * squeeze + 10 * squeeze * expand
    return [weights, weights * size**2, 2 * (squeeze + 2 * expand), 2 * (c_in + squeeze)]


# %% ex-5-2 the 3 x 3 convolution without its padding
def count_fire(size, c_in, squeeze, expand):
    pointwise, spatial = c_in * squeeze + squeeze * expand, 9 * squeeze * expand
    macs = pointwise * size**2 + spatial * (size - 2) ** 2
    return [pointwise + spatial, macs, 2 * (squeeze + 2 * expand), 2 * (c_in + 2 * squeeze)]


# %% ex-5-2 + one weight too many
listed = count_fire


def count_fire(size, c_in, squeeze, expand):
    weights, *others = listed(size, c_in, squeeze, expand)
    return [weights + 1, *others]


# %% ex-5-2 + only gamma of each BatchNorm
listed = count_fire


def count_fire(size, c_in, squeeze, expand):
    weights, macs, behind, before = listed(size, c_in, squeeze, expand)
    return [weights, macs, behind // 2, before // 2]


# %% ex-5-2 right: + floating numbers in a tuple
listed = count_fire


def count_fire(size, c_in, squeeze, expand):
    return tuple(float(number) for number in listed(size, c_in, squeeze, expand))


# %% ex-5-2 right: + an array
listed = count_fire


def count_fire(size, c_in, squeeze, expand):
    return np.array(listed(size, c_in, squeeze, expand), np.int32)


# %% ex-5-3 projections are numbered where they stand
def kinds(definition, keep_real):
    def walk(items):
        for item in items:
            if item["op"] in ("conv", "classifier"):
                yield item
            for part in (item.get("body", ()), item.get("shortcut", ()), *item.get("branches", ())):
                yield from walk(part)

    found = {}
    for number, item in enumerate(walk(definition), start=1):
        kept = item["name"] in keep_real or number in keep_real
        real = number == 1 or item["op"] == "classifier"
        found[item["name"]] = "real" if real else "binary weights" if kept else "fully binary"
    return found


# %% ex-5-3 what is kept real keeps real weights too
def kinds(definition, keep_real):
    numbers, can = models.layer_numbers(definition), models.binarizable(definition)
    kept = {name for name in numbers if name in keep_real or numbers[name] in keep_real}
    return {name: "fully binary" if name in can and name not in kept else "real" for name in numbers}


# %% ex-5-3 + one layer is wrong
of_all = kinds


def kinds(definition, keep_real):
    found = of_all(definition, keep_real)
    last = [name for name, kind in found.items() if kind != "real"][-1]
    return found | {last: "real"}


# %% ex-5-3 + pairs, not a dict
of_all = kinds


def kinds(definition, keep_real):
    return list(of_all(definition, keep_real).items())


# %% ex-5-3 + numbers in keep_real are not understood
of_all = kinds


def kinds(definition, keep_real):
    return of_all(definition, [name for name in keep_real if isinstance(name, str)])


# %% ex-5-3 right: + in another order, keep_real used up
of_all = kinds


def kinds(definition, keep_real):
    found = of_all(definition, keep_real)
    keep_real.clear()
    return dict(reversed(found.items()))


# %% ex-5-3 right: + NumPy's texts
of_all = kinds


def kinds(definition, keep_real):
    found = of_all(definition, tuple(keep_real))
    return dict(zip(found, np.array(list(found.values()))))
