# %% ex-5-1
def my_network(macs, weight_bytes):
    """-> a definition: a list made with models.conv, models.max_pool, ..., models.classifier"""
    for c in range(400, 1, -2):
        definition = [
            models.conv("conv1", 8, 5, stride=2, padding=2),  # few real weights, and a small map for what follows
            models.max_pool(2),
            models.conv("conv2", c, 3, padding=1),
            models.max_pool(2),
            models.conv("conv3", c, 3, padding=1),
            models.conv("conv4", 2 * c, "map"),  # most of the bytes, each weight used once
            models.classifier(),
        ]
        total = cost.table(built(definition, "fbin", 10, 1, 32))["total"]
        if total["weight_bytes"] <= weight_bytes and total["macs_real"] + total["macs_binary"] <= macs:
            return definition


# %% ex-5-2
def count_fire(size, c_in, squeeze, expand):
    """-> [weights, MACs, BatchNorm parameters in FPrec, in FBin]"""
    weights = c_in * squeeze + squeeze * expand + 9 * squeeze * expand
    behind = 2 * (squeeze + expand + expand)
    before = 2 * (c_in + squeeze + squeeze)  # each branch has a BatchNorm of its own on the squeezed map
    return [weights, weights * size**2, behind, before]


# %% ex-5-3
def kinds(definition, keep_real):
    """-> {name: "real", "binary weights" or "fully binary"} of all convolutions, classifier included"""

    def walk(items, on_shortcut=False):
        for item in items:
            if item["op"] in ("conv", "classifier"):
                yield on_shortcut, item
            for part in (item.get("body", ()), *item.get("branches", ())):
                yield from walk(part, on_shortcut)
            yield from walk(item.get("shortcut", ()), True)

    found = {}
    for number, (_, item) in enumerate(sorted(walk(definition), key=lambda pair: pair[0]), start=1):
        name = item["name"]
        if number == 1 or item["op"] == "classifier":
            found[name] = "real"
        else:
            found[name] = "binary weights" if {name, number} & set(keep_real) else "fully binary"
    return found


# %% ex-5-4
explanations = """Sketch-A-Net is one chain: every path passes all of its signs, and what one of them loses is lost. In
GoogLeNet each block sets four branches with different kernels side by side, and one can keep what another loses.
Or else it is depth: GoogLeNet has far more layers, and later ones can mend what earlier signs lose.
Test: in every block of GoogLeNet replace the four branches by two 3x3 convolutions, one after the other, as deep as the
longest branch, and of such a width that the MACs stay the same. Train FPrec and FBin of both networks with the same
settings on five seeds each. If the drop grows by clearly more than its spread over the seeds, branches matter; if it
stays, depth remains."""
