"""Every table of figures on a page is what the reports in results/ say."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from hbn_ref import abstract, choices, cost, hybrid, models, presets, study

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
FIRST, TOLD, SPEED = ((ROOT / part / "README.md").read_text("utf-8") for part in (".", "results", "benchmarks"))
M = 1e6


def report(name):
    return json.loads((RESULTS / name).read_text("utf-8"))


def rows(page, start):
    """The rows of the table whose heading begins with ``start``, the first of several alike, as lists of cells."""
    lines = page[page.index("\n" + start) + 1 :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


# ------------------------------------------------------------------------------------------------ accuracy

EVIDENCE = report("evidence.json")
NAMES = {  # how the pages call the networks of the evidence, in their order
    "FPrec": "fprec", "FPrec, 120 epochs": presets.LONGER, "WBin": "wbin",
    "Hybrid: conv4, conv5, conv6 real inputs": "hybrid-conv4-conv5-conv6",
    "Hybrid: conv5, conv6 real inputs": "hybrid-conv5-conv6",
    "the same, last layer's weights binary": "hybrid-conv5-conv6-last", "FBin": "fbin",
}  # fmt: skip


def mean(network, key):
    return np.mean([entry[key] for entry in EVIDENCE[network].values()])


def fast(network):
    return f"{min(entry['ms_packed'] for entry in EVIDENCE[network].values()):.2f}"


def evidence_row(network):
    tops = np.array([entry["top1"] for entry in EVIDENCE[network].values()])
    differences = [
        "" if network == other else study.with_error(*presets.compare(EVIDENCE, network, other))
        for other in ("fprec", "fbin")
    ]
    costs = EVIDENCE[network]["0"]
    return [
        study.with_error(tops.mean(), study.standard_error(tops)), *differences, f"{mean(network, 'top5'):.1f}",
        f"{mean(network, 'top1_ten_crops'):.1f}", f"{costs['equivalent_ops'] / M:.1f} M", f"{costs['weight_bytes']:,}",
        f"{costs['file_bytes']:,}", fast(network), f"{mean(network, 'train_seconds'):.0f}",
    ]  # fmt: skip


def test_evidence():
    found = rows(TOLD, "| | top-1 % | minus FPrec | minus FBin | top-5 %")
    assert found == [[name, *evidence_row(network)] for name, network in NAMES.items()]


def test_the_first_page_has_rows_of_the_evidence():
    networks = ("fprec", "hybrid-conv5-conv6", "fbin")
    costs = [EVIDENCE[network]["0"] for network in networks]
    assert [row[1:] for row in rows(FIRST, "| network | top-1 %")] == [
        [
            f"{mean(network, 'top1'):.1f}", f"{cost['equivalent_ops'] / M:.1f} M", f"{cost['weight_bytes']:,}",
            fast(network),
        ]
        for network, cost in zip(networks, costs, strict=True)
    ]  # fmt: skip
    full, hybrid = costs[:2]
    fewer, smaller = (round(full[key] / hybrid[key]) for key in ("equivalent_ops", "weight_bytes"))
    assert all(f"1/{fewer} of" in page and f"1/{smaller} of" in page for page in (FIRST, TOLD))


def test_the_first_page_has_the_costs_of_the_demo():
    shown = {row[0]: row[2:4] for row in rows(FIRST, "| | top-1 % | equivalent ops")}
    hybrid_of = {"variant": "hybrid", "keep_real": ("conv5", "conv6")}
    for name, options in {
        **{name: {"variant": name} for name in ("fprec", "wbin", "fbin")},
        "hybrid": hybrid_of, "hybrid-last": {**hybrid_of, "last_layer": "binary"},
    }.items():  # fmt: skip
        model = models.build("small", num_classes=15, in_channels=1, input_size=64, init=False, **options)
        total = cost.table(model)["total"]
        assert shown[name] == [f"{total['equivalent_ops']:,.0f}", f"{total['weight_bytes']:,}"]


def doodle_rows(name):
    """{variant: cells} over three seeds, and the layers that the hybrids keep."""
    reports = [report(f"doodles/{name}{seed}.json") for seed in range(3)]
    made = {}
    for row in study.over_seeds(reports):
        parts = [
            "" if row[key] is None else study.with_error(row[key], row[key + "_se"])
            for key in ("top1", "minus_fprec", "minus_fbin")
        ]
        costs = reports[0]["variants"][row["variant"]]
        made[row["variant"]] = [*parts, f"{costs['equivalent_ops'] / M:.1f} M", f"{costs['weight_bytes']:,}"]
    kept = {tuple(row["layer"] for row in one["metric"] if row["kept_real"]) for one in reports}
    return made, kept


def test_doodles():
    (now, kept), (before, kept_before) = doodle_rows("seed"), doodle_rows("old_default_seed")
    found = rows(TOLD, "| | top-1 % | minus FPrec | minus FBin | equivalent operations")
    expected = [now[name] for name in ("fprec", "wbin", "hybrid", "hybrid-last", "fbin")]
    assert [row[1:] for row in found] == [*expected, before["hybrid"]]
    assert kept == {tuple(re.findall(r"conv\d", found[2][0]))}
    assert kept_before == {tuple(re.findall(r"conv\d", found[5][0]))}


def test_what_the_new_default_costs():
    each = [
        report(f"doodles/old_default_seed{seed}.json")["variants"]["hybrid"]["top1"]
        - report(f"doodles/seed{seed}.json")["variants"]["hybrid"]["top1"]
        for seed in range(3)
    ]
    cost = study.with_error(np.mean(each), study.standard_error(np.array(each)))
    assert f"cost {cost} points ({', '.join(f'{value:.1f}' for value in each)})" in TOLD
    for name in ("fprec", "wbin", "fbin"):
        hits = [[report(f"doodles/{kind}{seed}.json")["variants"][name]["hits"] for seed in range(3)]
                for kind in ("seed", "old_default_seed")]  # fmt: skip
        assert hits[0] == hits[1]


def test_choice():
    made = {(row["count"], row["rule"]): row for row in choices.choice_rows(report("choice.json"))}
    expected = []
    for count in range(1, 5):
        of = {rule: study.with_error(made[count, rule]["top1"], made[count, rule]["top1_se"]) for _, rule in made}
        best = made[count, "best of all"]["chosen"].replace("+", " ")
        columns = [of[rule] for rule in ("metric", "cost alone", "error alone", "at random")]
        expected.append([str(count), *columns, f"{of['best of all']}: {best}"])
    assert rows(TOLD, "| layers kept real | metric") == expected


RULES = report("choice-doodles.json")


def rule_cells():
    """Each rule: what it needs, what it costs, and how it compares; the metric's other forms choose as it does."""
    costs = {row["rule"]: row for row in choices.cost_rows(RULES)}
    made = []
    for row in choices.overall_rows(RULES):
        if row["rule"].startswith("metric, "):
            continue
        cost = costs.get(row["rule"])
        needs = (
            ["", ""] if cost is None else [abstract.plain(cost["takes"]), f"{cost['training s']} + {cost['rule s']}"]
        )
        differences = []
        for kind in ("layers", "operations"):
            for other in ("at random", "metric"):
                value, seeds, drawings = row[kind][other]
                differences.append("" if row["rule"] == other else f"{value:+.2f} +- {seeds:.2f}, {drawings:.2f}")
        made.append(["metric, any form of E" if row["rule"] == "metric" else row["rule"], *needs, *differences])
    return made


def test_which_rule_chooses_well():
    assert rows(TOLD, "| rule | needs trained") == rule_cells()
    assert choices.clearly_above(choices.overall_rows(RULES)) == {"layers": ["rise", "greedy rise"], "operations": []}
    found = {row["rule"]: row["layers"]["metric"] for row in choices.overall_rows(RULES)}
    rise, greedy = (found[rule][0] / max(found[rule][1:]) for rule in ("rise", "greedy rise"))
    assert f"above the metric by {rise:.1f} and {greedy:.1f} standard errors" in TOLD


def test_what_the_rules_chose():
    """What the page says in words: the metric's forms choose alike, and in all seeds; what half a point costs."""
    for budget in [{"count": count} for count in range(1, 5)] + [{"share": k / 40} for k in range(4, 40)]:
        made = choices.picks(RULES, **budget)
        assert all(made[f"metric, {form}"] == made["metric"] for form in hybrid.FORMS[1:])
        assert all(one == made["metric"][0] for one in made["metric"])
    for rows_of in RULES["layers"].values():
        orders = ["".join(name[-1] for name in choices.order(rows_of, rule)) for rule in ("cost alone", "metric")]
        assert orders == ["65423", "65243"]
    ops = {(row["count"], row["rule"]): row["ops"] for row in choices.choice_rows(RULES)}
    times = [ops[count, rule] / ops[count, "metric"] for count in range(1, 5) for rule in ("rise", "greedy rise")]
    assert f"for {min(times):.1f} to {max(times):.0f} times the operations" in TOLD
    gained, _, drawings = choices.difference(RULES, [{"conv5+conv6": 1.0}] * 5, [{"none": 1.0}] * 5)
    assert f"buy {gained:.1f} +- {drawings:.1f} of" in TOLD
    rises = sum(row["fall"] < 0 for rows_of in RULES["layers"].values() for row in rows_of)
    assert f"In {rises} of 25 cases" in TOLD


def test_more_layers_count_for_more_than_which():
    tops = {key: np.mean(list(each.values())) for key, each in RULES["choices"].items() if key != "none"}
    ends = [[top for key, top in tops.items() if key.count("+") == count] for count in range(4)]
    assert all(max(fewer) < min(more) for fewer, more in zip(ends, ends[1:], strict=False))
    words = ("{:.1f} to {:.1f} % with one", "{:.1f} to {:.1f} with two", "{:.1f} to {:.1f} with three",
             "{:.1f} to {:.1f} with four")  # fmt: skip
    told = " ".join(TOLD.split())
    assert all(text.format(min(own), max(own)) in told for text, own in zip(words, ends, strict=True))


def budget_cells():
    made = {rule: [] for rule in ("metric", "cost alone", "error alone", "rise", "at random", "best of all")}
    for by in ("layers", "operations"):
        for row in choices.choice_rows(RULES, by):
            if row["rule"] in made:
                made[row["rule"]].append(study.with_error(row["top1"], row["top1_se"]))
    return [[rule, *cells] for rule, cells in made.items()]


def test_rules_by_budget():
    assert rows(TOLD, "| top-1 % | 1 layer") == budget_cells()


def test_ablation():
    text = presets.ablation_table(report("ablation.json")).split("\n\n")[0].splitlines()[2:]
    printed = {parts[0]: parts[1:] for parts in (re.split(r" {2,}", line.strip()) for line in text)}
    found = {row[0]: [cell for cell in row[1:] if cell] for row in rows(TOLD, "| one thing changed")}
    assert found == printed


def published(row):
    return f"{row['equivalent_ops'] / M:.1f}, {row['published']}"


@pytest.mark.parametrize("network, channels, size, classes", [
    ("AlexNet", 3, 224, 1000), ("Sketch-A-Net", 1, 225, 250), ("ResNet-18", 3, 225, 250), ("SqueezeNet", 3, 225, 250),
])  # fmt: skip
def test_operations(network, channels, size, classes):
    name = network.lower().replace("sketch-a-net", "sketchanet").replace("-", "")
    found = cost.compare(name, in_channels=channels, input_size=size, num_classes=classes)
    shown = {row["model"].removeprefix(f"{name}-"): row for row in found}
    if network == "SqueezeNet":
        ours, _, theirs = (row[1:] for row in rows(TOLD, "| SqueezeNet v1.0"))
        order = [shown[variant] for variant in ("wbin", "hybrid-v3", "hybrid-v2", "hybrid-v1", "fbin")]
        assert ours == [f"{row['equivalent_ops'] / M:.1f}" for row in order]
        assert theirs == [str(row["published"]) for row in order]
    else:
        hybrids = ("hybrid-v2", "hybrid-v1") if name == "resnet18" else ("hybrid1", "hybrid2")
        line = next(row for row in rows(TOLD, "| network, input") if row[0].startswith(network))
        assert line[0] == f"{network}, {channels} x {size} x {size}, {classes} classes"
        assert line[1:] == [published(shown[variant]) for variant in ("wbin", *hybrids, "fbin")]


def test_what_gamma_does():
    found = report("doodles/seed0.json")["metric"]
    names, errors, macs = ([row[key] for row in found] for key in ("layer", "error", "macs"))
    shown = rows(TOLD, "| gamma | kept at ratio 0.6")
    at = {0: 0, 0.00005: 0, 0.0001: 1, 0.0002: 0, 0.0008: 0, 0.0009: 2, 0.0024: 2, 0.0044: 2, 0.0046: 3, 0.021: 3, 9: 3}
    for gamma, row in at.items():
        scores = hybrid.metric(errors, macs, gamma)
        kept = [" ".join(names[i] for i in hybrid.partition(scores, ratio, 3)) for ratio in (0.6, 0.4)]
        assert kept == shown[row][1:], gamma
    assert f"the default, {hybrid.balanced_gamma(errors, macs):.3f}, gives" in shown[3][0]


# --------------------------------------------------------------------------------------------------- speed

KINDS = ("avx512", "avx2")
BENCH = {kind: report(f"benchmarks/bench-{kind}.json") for kind in KINDS}


def two(*values, places=1):
    return ", ".join(f"{value:.{places}f}" for value in values)


def ratios(bench):
    summary = bench["convolutions"]["summary"]
    torch = [summary[f"PyTorch, batch {batch}"]["median"] for batch in (1, 32)]
    openvino = [summary[f"OpenVINO {layout}"]["geometric mean"] for layout in ("nhwc", "nchw")]
    return torch, openvino


def test_the_first_page_has_ratios_of_both_processors():
    expected = []
    for bench in BENCH.values():
        (one, many), (openvino, _) = ratios(bench)
        expected.append([f"{one:.1f}", f"{many:.1f}", f"{openvino:.2f}"])
    assert [row[1:] for row in rows(FIRST, "| one thread of")] == expected


@pytest.mark.parametrize("kind", KINDS)
def test_by_processor(kind):
    bench = BENCH[kind]
    found = {row[0]: row[1 + KINDS.index(kind)] for row in rows(SPEED, "| | AVX-512 (Zen 5) | AVX2")}
    torch, openvino = ratios(bench)
    share, steps = bench["limit"]["share"], bench["training"]["ratio"]
    networks = {(row["network"], row["variant"]): row["torch"] for row in bench["networks"]["rows"]}

    def whole(network):
        return two(*(networks[network, variant] for variant in ("fprec", "fbin", "fbin packed")))

    expected = {
        "product alone, % of the limit (128 channels and more): vector, plain":
            two(*(100 * share[kernel] for kernel in ("vector", "plain")), places=0),
        "PyTorch / ours, median: batch 1, 32": two(*torch),
        "OpenVINO binary / ours, geometric mean: channels-last, NCHW": two(*openvino, places=2),
        "PyTorch's training step / ours: FPrec, WBin, hybrid, FBin": two(*steps.values(), places=2),
        "ResNet-18, PyTorch / ours: FPrec, FBin, FBin packed": whole("resnet18"),
        "Sketch-A-Net before conv6, the same": whole("sketchanet, before conv6"),
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("kind", KINDS)
def test_convolutions(kind):
    heading = "| layer | batch | ours | plain | PyTorch float32, better layout | OpenVINO binary, channels-last"
    page = SPEED[SPEED.index({"avx512": "## AVX-512", "avx2": "## AVX2"}[kind]) :]
    expected = []
    for row in BENCH[kind]["convolutions"]["rows"]:
        own, parts = row["seconds"], row["parts"]
        torch = min(own["PyTorch nchw"], own["PyTorch nhwc"])
        seconds = [own["vector"], own["plain"], torch, own["OpenVINO nhwc"], own["OpenVINO nchw"], own["NumPy"]]
        seconds += [parts["pack"], parts["rest"]] if kind == "avx2" else []
        expected.append([row["layer"], str(row["batch"]), *(f"{M * value:,.0f}" for value in seconds)])
    assert rows(page, heading) == expected


def test_whole_networks():
    made = {}
    for row in BENCH["avx512"]["networks"]["rows"]:
        made.setdefault(row["network"], {})[row["variant"]] = row
    expected = []
    for network, own in made.items():
        torch = min(own[f"PyTorch {layout}"]["seconds"] for layout in ("nchw", "nhwc"))
        cells = [
            f"{1e3 * own[v]['seconds']:.1f} ({own[v]['torch']:.1f})" for v in ("fprec", "wbin", "fbin", "fbin packed")
        ]
        ratio = own["fprec"]["seconds"] / own["fbin"]["seconds"]
        expected.append([network, f"{1e3 * torch:.1f}", *cells, f"{ratio:.1f}", f"{own['fbin']['predicted']:.1f}"])
    assert rows(SPEED, "| | PyTorch | FPrec") == expected


def test_training_steps():
    own = BENCH["avx512"]["training"]
    milliseconds, ratio = rows(SPEED, "| | FPrec | WBin | Hybrid: ")
    assert milliseconds[1:] == [f"{1e3 * own['seconds'][variant]:.0f}" for variant in own["ratio"]]
    assert ratio[1:] == [f"{value:.2f}" for value in own["ratio"].values()]


def test_packed_files():
    made = {row["network"]: row for row in BENCH["avx512"]["deployed"]["rows"]}
    expected = [
        [
            f"{made[f'{network} {variant}']['on_disk']:,} ({made[f'{network} {variant}']['peak'] / M:.0f} MB)"
            for variant in ("fprec", "wbin", "hybrid1", "fbin")
        ]
        for network in ("sketchanet", "alexnet")
    ]
    assert [row[1:] for row in rows(SPEED, "| bytes on disk")] == expected


# ---------------------------------------------------------------------------------------------- the abstract

CLAIMS = report("claims.json")


def claim_cells():
    return [[row[key] for key in ("claim", "published", "measured", "verdict")] for row in abstract.claim_rows(CLAIMS)]


def test_the_abstract_claim_by_claim():
    assert rows(TOLD, "| claim | published | measured") == claim_cells()


def short_cells():
    """As `claim_cells`, without errors, and of the metric only how often it agrees."""
    made = []
    for claim, _, measured, verdict in claim_cells():
        without_errors = re.sub(r" \+- [^;]*", "", measured)
        made.append([claim, re.sub("^rank correlation.*; ", "", without_errors), verdict])
    return made


def test_the_first_page_has_the_claims_in_short():
    assert rows(FIRST, "| claim | points above") == short_cells()


def network_cells():
    made = []
    for row in abstract.network_rows(CLAIMS):
        costs = [f"{row['equivalent ops'] / M:.1f} M", f"{row['weight bytes']:,}", f"{row['packed file']:,}"]
        cells = [row["experiment"], row["network"], row["epochs"], row["seeds"], row["top-1 %"], row["top-5 %"]]
        cells += [row["ten crops %"], row.get("minus fprec", ""), row.get("minus fbin", ""), *costs, row["ms packed"]]
        made.append([str(cell) for cell in cells])
    return made


def test_networks_of_the_abstract():
    assert rows(TOLD, "| experiment | network") == network_cells()


def curve_cells():
    return [
        [str(row["epochs"]), str(row["seeds"]), *(f"{row[n]:.1f}" for n in ("fprec", "hybrid1", "fbin")),
         abstract.share_cell(row)] for row in abstract.curve_rows(CLAIMS)
    ]  # fmt: skip


def test_the_curve():
    assert rows(TOLD, "| epochs | seeds | FPrec") == curve_cells()
    longer, taught = (
        CLAIMS["networks"]["sketchanet-double"]["fprec"],
        CLAIMS["networks"]["sketchanet"]["hybrid1-taught"],
    )
    ahead = abstract.Difference(longer, taught)
    assert f"FPrec with 80 epochs is {ahead.mean:.1f} points above Hybrid-1 taught" in " ".join(TOLD.split())
    _, before, after = abstract.curve_rows(CLAIMS)
    gained = [f"{after[name] - before[name]:.1f}" for name in ("hybrid1", "fprec", "fbin")]
    told = " ".join(TOLD.split())
    assert "Hybrid-1 gained {} points, FPrec {} and FBin {}:".format(*gained) in told


def metric_cells():
    return [
        [row["experiment"], row["seed"], f"{row['rank_correlation']:.2f}",
         *(" ".join(layers) or "none" for layers in row["chosen"].values())]
        for row in abstract.metric_rows(CLAIMS)
    ]  # fmt: skip


def test_the_metric_on_the_papers_networks():
    assert rows(TOLD, "| network | seed | rank correlation") == metric_cells()
