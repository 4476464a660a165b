# %% ex-5-1 one BatchNorm for both branches
def count_fire(size, c_in, squeeze, expand):
    weights = c_in * squeeze + 10 * squeeze * expand
    return [weights, weights * size**2, 2 * (squeeze + 2 * expand), 2 * (c_in + squeeze)]


# %% ex-5-1 the 3 x 3 convolution without its padding
def count_fire(size, c_in, squeeze, expand):
    pointwise, spatial = c_in * squeeze + squeeze * expand, 9 * squeeze * expand
    macs = pointwise * size**2 + spatial * (size - 2) ** 2
    return [pointwise + spatial, macs, 2 * (squeeze + 2 * expand), 2 * (c_in + 2 * squeeze)]


# %% ex-5-2 every weight is taken for one bit
def my_network(macs, weight_bytes):
    c = max(c for c in range(8, 400) if (72 * c + 25 * c * c) / 8 <= weight_bytes and 4608 * c + 160 * c * c <= macs)
    return [
        models.conv("conv1", 8, 5, stride=2, padding=2), models.max_pool(2), models.conv("conv2", c, 3, padding=1),
        models.max_pool(2), models.conv("conv3", c, 3, padding=1), models.conv("conv4", c, "map"), models.classifier(),
    ]  # fmt: skip


# %% ex-5-2 one small network for all budgets
def my_network(macs, weight_bytes):
    return [
        models.conv("conv1", 8, 3, stride=2, padding=1), models.max_pool(2), models.conv("conv2", 32, 3, padding=1),
        models.max_pool(2), models.conv("conv3", 32, 3, padding=1), models.conv("conv4", 32, "map"),
        models.classifier(),
    ]  # fmt: skip


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
