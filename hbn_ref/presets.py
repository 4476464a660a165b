"""Top floor, presets: the published studies, each of them one command.

==========  ============================================================================================
evidence    seven networks, three seeds: does a hybrid keep the accuracy of full precision?
choice      every choice of layers to keep real, ten classes: does the metric choose well? (`choices`)
ablation    the recipe with one thing changed at a time: what is it that helps?
claims      the paper's own networks, from scratch: its abstract, claim by claim (`claims`, `abstract`)
==========  ============================================================================================

A preset takes ``load``, a function (classes, seed) that returns data for `study.run`, which also has the methods
`without_validation`, `with_augmentation` and `development` of `data_tools.Dataset`. It makes a folder of studies and a
summary of them. Like a study, it goes on where it was interrupted.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import abstract, claims, cost, files, models, study
from .checks import whole_number
from .choices import choice, choice_table
from .choices import choice_rows as choice_rows
from .choices import choose as choose
from .recipe import AUGMENTATION, RECIPE, SEEDS

LONGER = "fprec-twice-as-long"
HYBRIDS = {
    "hybrid-conv4-conv5-conv6": {"keep_real": ["conv4", "conv5", "conv6"]},
    "hybrid-conv5-conv6": {"keep_real": ["conv5", "conv6"]},
    "hybrid-conv5-conv6-last": {"keep_real": ["conv5", "conv6"], "last_layer": "binary"},
}

# ------------------------------------------------------------------------------------------------- evidence


def evidence(
    load: Callable[..., Any], out: files.PathLike, *, command: str = "", progress: bool = True,
    seeds: Sequence[int] = SEEDS, **changed: Any,
) -> dict[str, Any]:  # fmt: skip
    """Train FPrec, WBin, FBin and `HYBRIDS` on 54 drawings per class, and judge each once, on the 26 of the test.

    Every choice in the recipe was made on drawings held out from the 54 (`ablation`), so these networks learn from all
    of them. The split is always that of seed 0; seeds differ in the weights and in everything random. FPrec is also
    trained for twice as many epochs (`LONGER`), as the others profit from FPrec's training, or from WBin's, too.

    Returns
    -------
    dict {network: {seed: dict}}
        top1, top5, top1_ten_crops (per cent), hits (see `study.unpack_hits`), costs, seconds, classes, drawings (to
        train, to validate, to test), command and machine. ``out/evidence.json`` holds the same.
    """
    data = load(classes=None, seed=0).without_validation().with_augmentation(**AUGMENTATION)
    found: dict[str, Any] = {}
    for seed in seeds:
        settings = {**RECIPE, "seed": seed, "ten_crops": True, "command": command, "progress": progress, **changed}
        alone = {"epochs": 2 * settings["epochs"], "distillation": 0.0, "start": None}
        report = study.run(
            data, Path(out) / f"seed{seed}", variants=("fprec", "wbin", "fbin"), hybrids=HYBRIDS, **settings
        )
        longer = study.run(data, Path(out) / f"seed{seed}-{LONGER}", variants=("fprec",), **{**settings, **alone})
        rows = [(name, report, entry) for name, entry in report["variants"].items()]
        for name, of, entry in (*rows, (LONGER, longer, longer["variants"]["fprec"])):
            about = {key: of[key] for key in ("data", "epochs", "command", "machine")}
            about |= {"classes": len(of["classes"]), "drawings": of["settings"]["drawings"]}
            kept = {key: value for key, value in entry.items() if key != "history"}
            found.setdefault(name, {})[str(seed)] = {**kept, **about}
    files.write_json(Path(out) / "evidence.json", found)
    return found


def compare(found: dict[str, Any], name: str, other: str) -> tuple[float, float | None]:
    """Return top-1 of one network minus that of another, over the same seeds and the same test drawings.

    Returns
    -------
    difference : float, in points
    error : float
        Its standard error: average the difference of the hits over the seeds, and take the spread over the drawings.
    """
    return study.paired(found[name], found[other])


def evidence_table(found: dict[str, Any]) -> str:
    """Return the table of `evidence` as text: means over the seeds (milliseconds: the least), and differences."""
    rows = []
    for name, runs in found.items():
        first = next(iter(runs.values()))
        tops = [np.array([entry[key] for entry in runs.values()]) for key in ("top1", "top5", "top1_ten_crops")]
        row = {"network": name, "seeds": len(runs)}
        row |= {t: f"{v.mean():.1f}" for t, v in zip(("top-1 %", "top-5 %", "ten crops %"), tops, strict=True)}
        row["over seeds"] = " ".join(f"{value:.1f}" for value in tops[0])
        for other, title in (("fprec", "minus FPrec"), ("fbin", "minus FBin")):
            row[title] = "" if name == other else study.with_error(*compare(found, name, other))
        row["equivalent ops"] = first["equivalent_ops"]
        row["weight bytes"] = first["weight_bytes"]
        row["packed file"] = first["file_bytes"]
        row["ms packed"] = f"{min(entry['ms_packed'] for entry in runs.values()):.2f}"
        row["training s"] = round(np.mean([entry["train_seconds"] for entry in runs.values()]))
        rows.append(row)
    return cost.format_table(rows, rows[0]) + "\n\n+-: one standard error, over test drawings"


# ------------------------------------------------------------------------------------------------- ablation

SIDE_BY_SIDE = [models.max_pool(2) if item["op"] == "max_pool" else item for item in models.NETWORKS[RECIPE["model"]]]
CHANGES: dict[str, Any] = {  # name: (what changes in the recipe, what changes in the augmentation)
    "as it is": ({}, {}),
    "pools of 2 x 2, side by side": ({"model": SIDE_BY_SIDE}, {}),
    "no elastic bending": ({}, {"elastic": 0.0}),
    "twice the elastic bending": ({}, {"elastic": 4.0}),
    "crops and turns of the default": ({}, {"area": (0.7, 1.0), "rotation": 10.0}),
    "more turning and stretching": ({}, {"rotation": 20.0, "aspect": 1.3}),
    "strokes wider and thinner": ({}, {"pen": 0.4}),
    "a patch wiped off": ({}, {"erase": 0.3}),
    "no distillation": ({"distillation": 0.0}, {}),
    "binary inputs from random weights": ({"start": None}, {}),
    "binary inputs from FPrec's weights": ({"start": "fprec"}, {}),
    "twice as many epochs": ({"epochs": 2 * (RECIPE["epochs"] // 4)}, {}),
    "labels smoothed by 0.1": ({"smoothing": 0.1}, {}),
    "twice the learning rate": ({"lr": 0.006}, {}),
    "half the learning rate": ({"lr": 0.0015}, {}),
    "the exact weight gradient": ({"rule": "exact"}, {}),
    "ApproxSign": ({"estimator": "approx_sign"}, {}),
    "SignSwish": ({"estimator": "swish_sign"}, {}),
}
JUDGED = ("fprec", "hybrid-conv5-conv6")


def ablation(
    load: Callable[..., Any], out: files.PathLike, *, command: str = "", progress: bool = True,
    seeds: Sequence[int] = SEEDS, changes: dict[str, Any] | None = None, repeated: int = 3, **settings: Any,
) -> dict[str, Any]:  # fmt: skip
    """Train FPrec and a hybrid with the recipe, and with one thing changed, for a quarter of its epochs.

    The networks are judged on drawings held out from the 54 per class; the test drawings are not opened. All changes
    are tried with the first seed. Those with the largest effect on the mean of both networks are tried with the other
    seeds, too. A seed also draws what is held out.

    Returns
    -------
    dict
        runs {change: {seed: {network: {top1, hits, count}}}}, epochs, command, machine; also in ``out/ablation.json``.
    """
    changes = CHANGES if changes is None else changes
    plain = next(iter(changes))
    result: dict[str, Any] = {"runs": {name: {} for name in changes}}
    epochs = max(1, whole_number("epochs", settings.pop("epochs", RECIPE["epochs"])) // 4)

    def add(name, seed):
        in_recipe, in_augmentation = changes[name]
        data = load(classes=None, seed=0).development(seed)
        recipe = {**RECIPE, **settings, "epochs": epochs, **in_recipe}
        report = study.run(
            data.with_augmentation(**{**AUGMENTATION, **in_augmentation}),
            Path(out) / f"{'-'.join(re.findall('[a-z0-9]+', name.lower()))}-seed{seed}", seed=seed,
            variants=[v for v in ("fprec", recipe["start"]) if v], hybrids={JUDGED[1]: HYBRIDS[JUDGED[1]]},
            latent=False, command=command, progress=progress, **recipe,
        )  # fmt: skip
        kept = ("top1", "hits", "count", "train_seconds")
        found = {network: {k: report["variants"][network][k] for k in kept} for network in JUDGED}
        result["runs"][name][str(seed)] = found
        result.update({key: report[key] for key in ("data", "epochs", "command", "machine")})

    for name in changes:
        add(name, seeds[0])
    effect = {name: abs(_effect(result, name, plain, [seeds[0]])) for name in changes if name != plain}
    for name in [plain, *sorted(effect, key=effect.__getitem__, reverse=True)[:repeated]]:
        for seed in seeds[1:]:
            add(name, seed)
    files.write_json(Path(out) / "ablation.json", result)
    return result


def _effect(result, name, plain, seeds):
    runs = result["runs"]
    return np.mean([runs[name][str(s)][n]["top1"] - runs[plain][str(s)][n]["top1"] for s in seeds for n in JUDGED])


def ablation_table(result: dict[str, Any]) -> str:
    """Return as text: one row per change, top-1 of both networks, and the difference to the recipe as it is."""
    runs = result["runs"]
    plain = next(iter(runs))
    rows = []
    for name, found in runs.items():
        row = {"change": name, "seeds": len(found)}
        for network in JUDGED:
            row[f"{network} %"] = f"{np.mean([entry[network]['top1'] for entry in found.values()]):.1f}"
            differences = [
                study.unpack_hits(entry[network]).astype(int) - study.unpack_hits(runs[plain][seed][network])
                for seed, entry in found.items()
            ]
            each = 100.0 * np.concatenate(differences)
            same = name == plain
            row[f"{network}: change"] = "" if same else study.with_error(each.mean(), study.standard_error(each))
        rows.append(row)
    return cost.format_table(rows, rows[0]) + "\n\n+-: one standard error, over drawings held out from training"


@dataclass(frozen=True)
class Preset:
    """How a study is run, how its result is told by its keys, and its table."""

    run: Callable[..., dict[str, Any]]
    table: Callable[[dict[str, Any]], str]
    keys: frozenset[str]
    photos: bool = False  # whether it takes a second set of images


PRESETS = {
    "evidence": Preset(evidence, evidence_table, frozenset({"fprec", "fbin"})),
    "choice": Preset(choice, choice_table, frozenset({"choices", "ops", "layers", "kept"})),
    "ablation": Preset(ablation, ablation_table, frozenset({"runs", "epochs"})),
    "claims": Preset(claims.run, abstract.table, frozenset({"tuning", "networks", "errors", "kept"}), photos=True),
}


def table_of(path: files.PathLike) -> str | None:
    """Return the table of a summary that a preset wrote, or None if the file is something else.

    Raises
    ------
    files.FileError
        The file is no JSON, or a summary in which figures are missing.
    """
    found = files.read_json(path)
    for name, preset in PRESETS.items():
        if isinstance(found, dict) and preset.keys <= found.keys():
            try:
                return preset.table(found)
            except (KeyError, TypeError, ValueError, AttributeError, IndexError, StopIteration):
                raise files.FileError(f"{path}: a summary of {name} with figures missing") from None
    return None
