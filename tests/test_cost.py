"""Chapter 7, cost: the small network against numbers worked out by hand, published rows, blocks, text.

Sections: the small network, rules, blocks, published rows, text.
"""

import json

import pytest

from hbn_ref import cost, models
from hbn_ref.models import average, classifier, concat, conv, max_pool, relu, residual

# The small network at 64 x 64 x 1 with 15 classes, from its definition alone:
# name, taps, C_in, C_out, side of the output map
SMALL = [
    ("conv1", 25, 1, 32, 64),
    ("conv2", 9, 32, 64, 32),
    ("conv3", 9, 64, 128, 16),
    ("conv4", 9, 128, 128, 8),
    ("conv5", 16, 128, 256, 1),
    ("conv6", 1, 256, 256, 1),
    ("classifier", 1, 256, 15, 1),
]
MACS = {
    "conv1": 3_276_800, "conv2": 18_874_368, "conv3": 18_874_368, "conv4": 9_437_184, "conv5": 524_288,
    "conv6": 65_536, "classifier": 3_840,
}  # fmt: skip
PARAMS = {
    "conv1": 800, "conv2": 18_432, "conv3": 73_728, "conv4": 147_456, "conv5": 524_288, "conv6": 65_536,
    "classifier": 3_855,
}  # fmt: skip
# bits in whole bytes and a float for each filter
BINARY_BYTES = {
    "conv2": 2_304 + 256, "conv3": 9_216 + 512, "conv4": 18_432 + 512, "conv5": 65_536 + 1_024, "conv6": 8_192 + 1_024,
}  # fmt: skip


def small(variant, **options):
    return models.build("small", variant, num_classes=15, in_channels=1, input_size=64, **options)


def rows_by_name(model):
    return {row["layer"]: row for row in cost.table(model)["layers"]}


# ------------------------------------------------------------------------------------ the small network


def test_the_numbers_by_hand_are_right():
    for name, taps, c_in, c_out, side in SMALL:
        assert MACS[name] == taps * c_in * c_out * side * side
        assert PARAMS[name] == taps * c_in * c_out + (c_out if name == "classifier" else 0)


@pytest.mark.parametrize("variant", models.VARIANTS)
def test_small_network_layer_by_layer(variant):
    rows = cost.table(small(variant, **({"keep_real": [3, 6]} if variant == "hybrid" else {})))["layers"]
    assert [row["layer"] for row in rows] == list(MACS)
    assert [row["number"] for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    for row, (name, taps, c_in, c_out, side) in zip(rows, SMALL, strict=True):
        middle = name not in ("conv1", "classifier")
        binary_weights = middle and variant != "fprec"
        kept = variant == "hybrid" and name in ("conv3", "conv6")
        binary_inputs = middle and (variant == "fbin" or (variant == "hybrid" and not kept))
        assert row["macs"] == MACS[name] and row["params"] == PARAMS[name]
        assert (row["macs_real"], row["macs_binary"]) == ((0, MACS[name]) if binary_inputs else (MACS[name], 0))
        assert row["weights"] == ("binary" if binary_weights else "real")
        assert row["inputs"] == ("binary" if binary_inputs else "real")
        assert row["weight_bytes"] == (BINARY_BYTES[name] if binary_weights else 4 * PARAMS[name])
        assert list(row["output"]) == [side, side, c_out] and row["input"][2] == c_in
        assert row["kernel"][0] * row["kernel"][1] == taps


ALL = 51_056_384
REAL = 3_276_800 + 3_840
TOTALS = {  # macs_real, macs_binary, weight_bytes
    "fprec": (ALL, 0, 3_336_380),
    "wbin": (ALL, 0, 125_628),
    "fbin": (REAL, ALL - REAL, 125_628),
    "hybrid": (REAL + 18_874_368 + 65_536, ALL - REAL - 18_874_368 - 65_536, 125_628),
}


@pytest.mark.parametrize("variant", TOTALS)
def test_small_network_in_total(variant):
    total = cost.table(small(variant, **({"keep_real": [3, 6]} if variant == "hybrid" else {})))["total"]
    real, binary, weight_bytes = TOTALS[variant]
    assert (total["macs_real"], total["macs_binary"], total["weight_bytes"]) == (real, binary, weight_bytes)
    assert total["equivalent_ops"] == pytest.approx(real + binary / 58)
    # BatchNorm: two a channel, after each convolution but the classifier, or before it where inputs are binary
    after = [32, 64, 128, 128, 256, 256]
    before = [32, 32, 64, 128, 128, 256]
    channels = {"fbin": before, "hybrid": [32, 32, 128, 128, 128, 256]}.get(variant, after)
    assert total["params"] == sum(PARAMS.values()) + 2 * sum(channels)
    assert {"macs_real", "macs_binary", "equivalent_ops", "params", "weight_bytes"} <= set(total)


def test_hand_totals_are_the_sums_of_hand_rows():
    assert sum(MACS.values()) == ALL
    assert 4 * sum(PARAMS.values()) == TOTALS["fprec"][2]
    assert 4 * (800 + 3_855) + sum(BINARY_BYTES.values()) == TOTALS["wbin"][2]


# ----------------------------------------------------------------------------------------------- rules


def test_58_binary_operations_count_as_one_real_one():
    assert cost.equivalent_ops(100, 580) == 110
    assert cost.equivalent_ops(100, 580, factor=10) == 158


def test_binary_weights_take_whole_bytes_and_a_float_a_filter():
    for channels, filters, expected in ((3, 3, 2 + 12), (8, 2, 2 + 8), (5, 5, 4 + 20)):
        definition = [conv("a", channels, 1), conv("b", filters, 1), average(), classifier()]
        model = models.build(definition, "wbin", num_classes=2, in_channels=3, input_size=4)
        row = rows_by_name(model)["b"]
        assert row["params"] == channels * filters and row["weight_bytes"] == expected


def test_binary_classifier_has_no_bias_and_real_inputs():
    row = rows_by_name(small("fbin", last_layer="binary"))["classifier"]
    assert (row["params"], row["weight_bytes"]) == (3_840, 480 + 60)
    assert (row["inputs"], row["weights"], row["macs_real"]) == ("real", "binary", 3_840)


# ---------------------------------------------------------------------------------------------- blocks

BRANCHED = [
    conv("stem", 4, 3, padding=1), max_pool(2),
    residual("half", [conv("h1", 6, 3, stride=2, padding=1, relu=False)], [conv("h2", 6, 1, stride=2, relu=False)]),
    relu(), concat("fork", [conv("f1", 2, 1)], [conv("f2", 3, 1), conv("f3", 4, 3, padding=1)]),
    average(), classifier(),
]  # fmt: skip


def test_blocks_are_counted_branch_by_branch():
    model = models.build(BRANCHED, "fbin", num_classes=3, in_channels=2, input_size=8)
    macs = {name: row["macs"] for name, row in rows_by_name(model).items()}
    assert macs == {
        "stem": 9 * 2 * 4 * 64, "h1": 9 * 4 * 6 * 4, "h2": 4 * 6 * 4, "f1": 6 * 2 * 4, "f2": 6 * 3 * 4,
        "f3": 9 * 3 * 4 * 4, "classifier": 6 * 3,
    }  # fmt: skip


def test_numbers_in_the_table_are_those_that_keep_real_takes():
    model = models.build(BRANCHED, "fbin", num_classes=3, in_channels=2, input_size=8)
    numbers = {name: row["number"] for name, row in rows_by_name(model).items()}
    for name in ("h1", "h2", "f1", "f2", "f3"):
        assert models.resolve_keep_real(BRANCHED, [numbers[name]]) == [name]


# --------------------------------------------------------------------------------------- published rows

PUBLISHED = {  # equivalent operations in millions (PAPER.md, section 4)
    "sketchanet": ({"wbin": 608, "fbin": 82, ("conv6", "conv7"): 89, ("conv7",): 82}, 1, 225, 250),
    "resnet18": ({"wbin": 2049, "fbin": 153, (16, 17): 450, (*range(12, 18), "shortcut14"): 942}, 3, 225, 250),
}


@pytest.mark.parametrize("network", PUBLISHED)
def test_published_operations_come_out(network):
    rows, channels, size, classes = PUBLISHED[network]
    for variant, expected in rows.items():
        name, keep_real = (variant, ()) if isinstance(variant, str) else ("hybrid", variant)
        model = models.build(
            network, name, num_classes=classes, in_channels=channels, input_size=size, keep_real=keep_real
        )  # fmt: skip
        assert cost.table(model)["total"]["equivalent_ops"] / 1e6 == pytest.approx(expected, abs=1), variant


# ------------------------------------------------------------------------------------------------ text


def test_table_is_plain_json():
    table = cost.table(small("hybrid", keep_real=["conv4"]))
    assert json.loads(json.dumps(table)) == table


def test_summary_shows_every_layer_and_the_totals():
    text = cost.summary(small("hybrid", keep_real=["conv4"]))
    assert all(name in text for name in MACS)
    total = cost.table(small("hybrid", keep_real=["conv4"]))["total"]
    for key in ("macs_real", "macs_binary", "params", "weight_bytes"):
        assert f"{total[key]:,}" in text
    assert "conv4" in text.splitlines()[0] and "15 classes" in text


def test_text_tables_are_aligned():
    rows = [{"a": "x", "b": 1}, {"a": "longer", "b": 23456}]
    lines = cost.format_table(rows, ("a", "b")).splitlines()
    assert lines[0].split() == ["a", "b"] and lines[-1].split() == ["longer", "23,456"]
    assert lines[2].index("1") == lines[3].index("6")  # numbers end in one column
    assert cost.format_table([], ("a", "b")).splitlines()[0].split() == ["a", "b"]
