"""Top floor, abstract: what `claims` measured beside what the paper's abstract says, with a verdict per claim.

A difference carries two standard errors: one over the seeds, for another training, and one over the test drawings, for
other drawings. A verdict follows from a rule that stands beside the claim, never from a look at the figures.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import cost, hybrid, models, study

SHOWN, PART, NOT = "shown", "shown in part", "not shown"
UNTESTED, MISSING = "not testable here", "not measured"
# Root-mean-square binarization errors of FBin networks on TU-Berlin, from the authors' logs; ResNet-18's in the order
# of the network, each shortcut after its block
LOGGED_RMSE = {
    "sketchanet": (0.608, 0.620, 0.782, 0.791, 0.684, 0.943),
    "resnet18": (0.665, 0.721, 0.638, 0.655, 0.547, 0.573, 0.565, 0.754, 0.719, 0.640, 0.666, 0.665, 0.805, 0.801,
                 0.707, 0.818, 0.786, 1.071, 1.028),
}  # fmt: skip
# How many layers of how many the authors kept real, and which
SHARES = {"sketchanet": ((1, 7, "sketchanet-hybrid2"), (2, 7, "sketchanet-hybrid1")),
          "resnet18": ((2, 19, "resnet18-hybrid-v1"), (7, 19, "resnet18-hybrid-v2"))}  # fmt: skip
CLUSTERS = 4  # the P at which the rule gives both of the authors' choices on their Sketch-A-Net scores
# Hybrids whose gains are claimed: {network: (channels of an image, hybrids)}
CLAIMED = {
    "sketchanet": (1, ("hybrid1", "hybrid2")), "resnet18": (3, ("hybrid-v1", "hybrid-v2")),
    "squeezenet": (3, ("hybrid-v1", "hybrid-v3")),
}  # fmt: skip
# (experiment, network, other network, published difference): what the claims compare
PUBLISHED = {
    ("sketchanet", "hybrid1", "fprec"): 73.1 - 72.8, ("sketchanet", "hybrid1-taught", "fprec"): None,
    ("resnet18", "hybrid-v2", "fprec"): 73.8 - 74.1,
    ("sketchanet", "hybrid1", "fbin"): 73.1 - 59.6, ("sketchanet", "hybrid2", "fbin"): 71.0 - 59.6,
    ("sketchanet", "hybrid1-taught", "fbin-taught"): None, ("resnet18", "hybrid-v2", "fbin"): 73.8 - 68.8,
    ("photos", "hybrid-v2", "fbin"): None, ("photos", "hybrid-v1", "fbin"): None,
    ("squeezenet", "hybrid-v3", "fbin"): 64.8 - 56.8, ("squeezenet", "hybrid-v1", "fbin"): 59.3 - 56.8,
    ("sketchanet", "hybrid1-last", "hybrid1"): 72.1 - 73.1, ("sketchanet", "hybrid2-last", "hybrid2"): 70.3 - 71.0,
}  # fmt: skip

WORDS = {  # how the pages and the pictures call what the summary calls by short names
    "sketchanet": "Sketch-A-Net", "resnet18": "ResNet-18", "squeezenet": "SqueezeNet", "hybrid1": "Hybrid-1",
    "hybrid2": "Hybrid-2", "hybrid-v": "v", **study.NAMES, "metric": "the metric's", "photos": "ResNet-18 on photos",
    "-taught": " taught", "-last": " last binary", "-half": ", half as long", "-double": ", twice as long",
}  # fmt: skip


def plain(text: str) -> str:
    """Return names as the pages write them: "hybrid1" is "Hybrid-1". For names, not for whole sentences."""
    for word, name in WORDS.items():
        text = text.replace(word, name)
    return text


class Difference:
    """Top-1 of one network minus another's: mean, and its standard errors over seeds and over drawings."""

    def __init__(self, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
        seeds = [seed for seed in ours if seed in theirs]
        each = np.array([ours[seed]["top1"] - theirs[seed]["top1"] for seed in seeds])
        self.seeds, self.mean, self.over_seeds = len(seeds), float(each.mean()), study.standard_error(each)
        self.over_drawings = study.paired(ours, theirs)[1] or 0.0

    @property
    def error(self) -> float:
        """The larger of both errors."""
        return study.larger(self.over_seeds, self.over_drawings)

    def __str__(self) -> str:
        over = "" if self.over_seeds is None else f"{self.over_seeds:.1f} over seeds, "
        seeds = f"{self.seeds} seed" + "s" * (self.seeds > 1)
        return f"{self.mean:+.1f} +- {over}{self.over_drawings:.1f} over drawings, {seeds}"


def difference(found: dict[str, Any], experiment: str, ours: str, theirs: str) -> Difference | None:
    """Return the difference of two networks of an experiment, or None if they have no seed in common."""
    networks = found["networks"].get(experiment, {})
    a, b = networks.get(ours, {}), networks.get(theirs, {})
    return Difference(a, b) if set(a) & set(b) else None


def _verdict(differences, full, part):
    """`SHOWN` if all pass ``full``, `PART` if one passes ``part``."""
    known = [d for d in differences if d is not None]
    if not known:
        return MISSING
    if len(known) == len(differences) and all(full(d) for d in known):
        return SHOWN
    return PART if any(part(d) for d in known) else NOT


def claim_rows(found: dict[str, Any]) -> list[dict[str, str]]:
    """The abstract, claim by claim.

    Returns
    -------
    list of dict
        claim, published, measured, verdict, rule (when it counts as shown; when as shown in part)
    """

    def of(*key):
        return difference(found, *key)

    def row(claim, keys, rule, full, part):
        known = {key: of(*key) for key in keys}
        names = {key: plain(f"{key[0]} {key[1]} - {key[2]}") for key in keys}
        return {
            "claim": claim,
            "published": "; ".join(f"{names[k]} {PUBLISHED[k]:+.1f}" for k in keys if PUBLISHED[k] is not None) or "-",
            "measured": "; ".join(f"{names[k]} {d}" for k, d in known.items() if d is not None) or "-",
            "verdict": _verdict(list(known.values()), full, part), "rule": rule,
        }  # fmt: skip

    above = "a difference above two of its standard errors"
    rows = [
        row(
            "Sketches: a hybrid matches full precision",
            [("sketchanet", "hybrid1", "fprec"), ("sketchanet", "hybrid1-taught", "fprec"),
             ("resnet18", "hybrid-v2", "fprec")],
            "shown: none below -1.5; in part: one not below -1.5",
            lambda d: d.mean >= -1.5, lambda d: d.mean >= -1.5,
        ),
        row(
            "Sketches: over 8 points above fully binary",
            [("sketchanet", "hybrid1", "fbin"), ("sketchanet", "hybrid2", "fbin"), ("resnet18", "hybrid-v2", "fbin")],
            f"shown: each 8 or more; in part: {above}",
            lambda d: d.mean >= 8, lambda d: d.mean > 2 * d.error,
        ),
        row(
            "Photos: 3 to 4 points above fully binary (ResNet-18)", [("photos", "hybrid-v2", "fbin")],
            f"shown: 3 or more, and {above}; in part: {above}",
            lambda d: d.mean >= 3 and d.mean > 2 * d.error, lambda d: d.mean > 2 * d.error,
        ),
        {"claim": "Photos: 3 to 4 points above fully binary (AlexNet)", "published": "ImageNet", "measured": "-",
         "verdict": UNTESTED, "rule": "AlexNet was not trained: its 61 M weights do not fit the hours of two cores"},
        _metric_row(found),
        row(
            "On top of other compression: SqueezeNet",
            [("squeezenet", "hybrid-v3", "fbin"), ("squeezenet", "hybrid-v1", "fbin")],
            f"shown: each {above}; in part: one",
            lambda d: d.mean > 2 * d.error, lambda d: d.mean > 2 * d.error,
        ),
        row(
            "The last layer's weights can be binary, too",
            [("sketchanet", "hybrid1-last", "hybrid1"), ("sketchanet", "hybrid2-last", "hybrid2")],
            "shown: none loses more than 2 points; in part: one does not",
            lambda d: d.mean >= -2, lambda d: d.mean >= -2,
        ),
        _cost_row(),
    ]  # fmt: skip
    return rows


def _cost_row():
    """Operations and bytes at full size, counted: the factor by which FPrec's are more, for hybrids and FBin."""
    published, measured, held, smaller = [], [], [], []
    for network, (channels, hybrids) in CLAIMED.items():
        rows = {
            row["model"].removeprefix(f"{network}-"): row
            for row in cost.compare(network, num_classes=250, in_channels=channels, input_size=225)
        }
        full, names = rows["fprec"], (*hybrids, "fbin")
        saved = {name: full["equivalent_ops"] / rows[name]["equivalent_ops"] for name in names}
        bytes_saved = {name: full["weight_bytes"] / rows[name]["weight_bytes"] for name in names}
        held += [min(saved[name] / saved["fbin"], bytes_saved[name] / bytes_saved["fbin"]) for name in hybrids]
        given = ", ".join(f"{name} {rows[name]['published']} M" for name in names)
        published.append(plain(f"{network} {given} of {rows['wbin']['published']} M"))
        measured.append(plain(f"{network} " + ", ".join(f"{name} {saved[name]:.1f}" for name in names)))
        smaller.append(plain(f"{network} {min(bytes_saved.values()):.0f}"))
    return {
        "claim": "Little is lost of compression and speed",
        "published": f"equivalent operations: {'; '.join(published)}",
        "measured": f"equivalent operations, 1/n of FPrec's: {'; '.join(measured)};"
        f" weight bytes of hybrids and FBin alike, 1/n: {', '.join(smaller)}",
        "verdict": SHOWN if min(held) > 0.9 else PART if max(held) > 0.9 else NOT,
        "rule": "shown: each hybrid keeps 90 % of the factor that FBin saves, in both; in part: one does",
    }


# ---------------------------------------------------------------------------------------------- the metric


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's rank correlation of two sequences without ties: Pearson's of their ranks."""
    first, second = (np.argsort(np.argsort(values)) for values in (a, b))
    return float(np.corrcoef(first, second)[0, 1])


def as_logged(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of layers in the order of the network: conv6, conv7, shortcut6, conv8."""

    def place(row):
        kind = row["layer"].rstrip("0123456789")
        return int(row["layer"].removeprefix(kind)) + (1.5 if kind == "shortcut" else 0)

    return sorted(rows, key=place)


def metric_rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The metric on the trained FBin networks: their errors beside the authors', and what the rule keeps.

    Returns
    -------
    list of dict
        experiment, seed, rank_correlation (of RMSE with the authors' logs), chosen {authors' hybrid: layers that the
        rule keeps at that share, with the balanced gamma and P = `CLUSTERS`}
    """
    rows = []
    for name, seeds in found["errors"].items():
        for seed, layers in seeds.items():
            ordered = as_logged(layers)
            scores = hybrid.metric([row["mse"] for row in layers], [row["macs"] for row in layers])
            chosen = {}
            for count, of, authors in SHARES[name]:
                kept = hybrid.partition(scores, count / of, CLUSTERS, total=of)
                chosen[authors] = [layers[i]["layer"] for i in kept]
            rows.append({
                "experiment": plain(name), "seed": seed, "chosen": chosen,
                "rank_correlation": rank_correlation([row["rmse"] for row in ordered], LOGGED_RMSE[name]),
            })  # fmt: skip
    return rows


def same_choice(chosen: Sequence[str], authors: str) -> bool:
    """Whether the rule chose the layers of one of the authors' hybrids, in any order."""
    network, _, kept = models.parse(authors)
    return set(chosen) == set(models.resolve_keep_real(models.definition_of(network), kept))


def _metric_row(found):
    logs: dict[str, list[str]] = {}
    agreed: dict[str, list[bool]] = {}
    for row in metric_rows(found):
        logs.setdefault(row["experiment"], []).append(f"{row['rank_correlation']:.2f}")
        own = [same_choice(layers, authors) for authors, layers in row["chosen"].items()]
        agreed.setdefault(row["experiment"], []).extend(own)
    every = [one for own in agreed.values() for one in own]
    ranks = "; ".join(f"{name} {', '.join(values)}" for name, values in logs.items())
    cases = ", ".join(f"{sum(own)} of {len(own)} cases on {name}" for name, own in agreed.items())
    return {
        "claim": "The metric finds the layers",
        "published": "Sketch-A-Net {7}, {6, 7}; ResNet-18 {16, 17}, {12 to 17, a shortcut}",
        "measured": f"rank correlation of E with the authors' logs: {ranks};"
        f" the rule chose the authors' layers in {cases}" if every else "-",
        "verdict": MISSING if not every else SHOWN if all(every) else PART if any(every) else NOT,
        "rule": "shown: the authors' choice in every case; in part: in some",
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------- as text


def network_rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """A row per experiment and network: means over seeds, differences, costs; milliseconds are the least."""
    rows = []
    for name, networks in found["networks"].items():
        for network, runs in networks.items():
            tops = {key: np.mean([run[key] for run in runs.values()]) for key in ("top1", "top5", "top1_ten_crops")}
            each = np.array([run["top1"] for run in runs.values()])
            first = next(iter(runs.values()))
            row = {
                "experiment": plain(name), "network": plain(network), "epochs": first["epochs"], "seeds": len(runs),
                "top-1 %": study.with_error(tops["top1"], study.standard_error(each)), "top-5 %": f"{tops['top5']:.1f}",
                "ten crops %": f"{tops['top1_ten_crops']:.1f}",
            }  # fmt: skip
            for other in ("fprec", "fbin"):
                found_difference = None if other == network else difference(found, name, network, other)
                row[f"minus {other}"] = "" if found_difference is None else _short(found_difference)
            row |= {"equivalent ops": first["equivalent_ops"], "weight bytes": first["weight_bytes"],
                    "packed file": first["file_bytes"],
                    "ms packed": f"{min(run['ms_packed'] for run in runs.values()):.2f}",
                    "training s": round(np.mean([run["train_seconds"] for run in runs.values()]))}  # fmt: skip
            if any(run.get("same_as") for run in runs.values()):
                same = sorted({plain(run.get("same_as", "?")) for run in runs.values()})
                row["network"] += " = " + ", ".join(same)
            rows.append(row)
    return rows


def _short(found):
    over = "" if found.over_seeds is None else f"{found.over_seeds:.1f}, "
    return f"{found.mean:+.1f} +- {over}{found.over_drawings:.1f}"


def curve_rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Is it a matter of time? The share of the gap between FBin and FPrec that Hybrid-1 closes, by length of training.

        S = (Hybrid-1 - FBin) / (FPrec - FBin)

    Its error is that of the mean of (Hybrid-1 - FBin) - S (FPrec - FBin), divided by the gap (the delta method).

    Returns
    -------
    list of dict, the shortest training first; none where FPrec is not above FBin
        epochs, seeds (those that all lengths have), fprec, hybrid1, fbin (top-1, means), share, over_seeds (its
        standard error; None with one seed) and over_drawings
    """
    names = ("fprec", "hybrid1", "fbin")
    lengths = [
        networks for name, networks in found["networks"].items()
        if name.partition("-")[0] == "sketchanet" and all(networks.get(n) for n in names)
    ]  # fmt: skip
    seeds = [s for s in (lengths[0]["fprec"] if lengths else ()) if all(s in own[n] for own in lengths for n in names)]
    rows = []
    for own in sorted(lengths, key=_epochs_of) if seeds else ():
        hits = {n: np.array([study.unpack_hits(own[n][seed]) for seed in seeds]) * 100.0 for n in names}
        tops = {n: float(each.mean()) for n, each in hits.items()}
        gap = tops["fprec"] - tops["fbin"]
        if gap <= 0:
            continue  # nothing to close
        share = (tops["hybrid1"] - tops["fbin"]) / gap
        rest = (hits["hybrid1"] - hits["fbin"] - share * (hits["fprec"] - hits["fbin"])) / gap
        rows.append({
            "epochs": _epochs_of(own), "seeds": len(seeds), **tops, "share": share,
            "over_seeds": study.standard_error(rest.mean(axis=1)),
            "over_drawings": study.standard_error(rest.mean(axis=0)),
        })  # fmt: skip
    return rows


def share_cell(row: dict[str, Any]) -> str:
    """Return the share of a row of `curve_rows` as text, in per cent: "58 +- 8 over seeds, 9 over drawings"."""
    over = "" if row["over_seeds"] is None else f"{100 * row['over_seeds']:.0f} over seeds, "
    return f"{100 * row['share']:.0f} +- {over}{100 * (row['over_drawings'] or 0):.0f} over drawings"


def _epochs_of(networks):
    return next(iter(networks["fprec"].values()))["epochs"]


def table(found: dict[str, Any]) -> str:
    """Return the networks, the metric's choices and the claims as text."""
    networks, claims = network_rows(found), claim_rows(found)
    lines = [] if not networks else [cost.format_table(networks, networks[0])]
    lines += [
        "",
        "top-1 +- one standard error over the seeds; differences +- one over the seeds, one over the drawings",
    ]
    metric = [
        {"experiment": row["experiment"], "seed": row["seed"], "rank correlation": f"{row['rank_correlation']:.2f}",
         **{f"as many as {plain(name.partition('-')[2])}": " ".join(kept) or "none"
            for name, kept in row["chosen"].items()}}
        for row in metric_rows(found)
    ]  # fmt: skip
    for name in dict.fromkeys(row["experiment"] for row in metric):
        own = [row for row in metric if row["experiment"] == name]
        lines += ["", cost.format_table(own, own[0])]
    curve = [
        {"epochs": row["epochs"], "seeds": row["seeds"],
         **{plain(n): f"{row[n]:.1f}" for n in ("fprec", "hybrid1", "fbin")}, "share of the gap %": share_cell(row)}
        for row in curve_rows(found)
    ]  # fmt: skip
    if curve:
        lines += ["", cost.format_table(curve, curve[0])]
    for row in claims:
        lines += ["", f"{row['claim']}: {row['verdict']}", f"  published: {row['published']}",
                  f"  measured: {row['measured']}", f"  ({row['rule']})"]  # fmt: skip
    return "\n".join(lines)
