"""Top floor, choices: every choice of layers to keep real, trained and judged, and what each rule would have chosen.

The summary of `choice` is enough to go on: a network that has a row there is not trained again. It says which drawings
each network recognised, so any two rules can be compared later, on the same drawings.
"""

import itertools
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import cost, files, hybrid, models, study, train
from .recipe import AUGMENTATION, RECIPE, SEEDS

CLASSES, TEST = 10, 300  # the first so many; drawings per class to judge on, if they are made on the spot
EPOCHS = {"doodles": 12}  # of any other data: 20
DOODLE_SEEDS = (0, 1, 2, 3, 4)
SHARES = (1 / 2, 2 / 3, 5 / 6)  # of WBin's operations: budgets of `choice_rows`
STEPS = 200  # budgets of operations between FBin's and WBin's, over which `overall_rows` takes the mean
COLUMNS = ("choices", "ops", "hits", "seconds", "layers", "greedy", "rules", "kept")  # of the summary

# Rules by their names, and the trained network that they take; `order` says how
RULES = {"metric": "fbin", "cost alone": "", "error alone": "fbin"}
MEASURED = {
    "metric, rmse": "fbin", "metric, normalised": "fbin", "metric, one_minus_square": "fbin",
    "rise": "wbin", "rise per MAC": "wbin", "greedy rise": "wbin", "greedy rise per MAC": "wbin",
    "fall": "fbin", "fall per MAC": "fbin", "greedy fall": "fbin", "greedy fall per MAC": "fbin",
}  # fmt: skip

# --------------------------------------------------------------------------------------------- training


class _Choice:
    """One study of all choices: its folder, its summary, and what is still to be done."""

    def __init__(self, load, out, seeds, command, progress, changed):
        self.load, self.out, self.progress = load, Path(out), progress
        data = self.data((seeds or SEEDS)[0])
        known = data.name in EPOCHS
        self.seeds = seeds or (DOODLE_SEEDS if known else SEEDS)
        self.recipe = {key: RECIPE[key] for key in ("model", "batch", "lr")} | {"epochs": EPOCHS.get(data.name, 20)}
        unknown = sorted(changed.keys() - self.recipe.keys())
        if unknown:
            raise ValueError(f"{unknown[0]}: expected some of {', '.join(self.recipe)}")
        self.recipe |= changed
        train.check_settings(self.recipe["epochs"], self.recipe["batch"], self.recipe["lr"], 0.0, 0)
        self.names = models.binarizable(self.recipe["model"])
        self.first = self.seeds[0], data
        self.result = self._begun(data, command)

    def data(self, seed):
        return self.load(classes=CLASSES, seed=seed, test=TEST).with_augmentation(**AUGMENTATION)

    def _begun(self, data, command):
        """The summary so far, or an empty one; a FileError if it is of another study."""
        settings = files.plain({
            **self.recipe, "ratio": study.RATIO, "clusters": study.CLUSTERS, "augmentation": data.augmentation,
            "preprocessing": {key: value for key, value in data.preprocessing.items() if key != "split_seed"},
            "drawings": [len(part[1]) for part in (data.train, data.validation, data.test)],
        })  # fmt: skip
        about = {"data": data.name, "classes": list(data.classes), "epochs": self.recipe["epochs"]}
        path = self.out / "choice.json"
        if not path.exists():
            kept: dict[str, Any] = {key: {} for key in COLUMNS}
            machine = {"command": command, "machine": study.machine(), "settings": settings}
            return {**kept, "checksums": {}, "count": len(data.test[1]), **about, **machine}
        found = files.read_json(path)
        try:
            theirs = {**found["settings"], **{key: found[key] for key in about}}
            _ = [found[key] for key in (*COLUMNS, "checksums", "count")]
        except (KeyError, TypeError):
            raise files.FileError(f"{path}: not a summary that can be gone on with; choose another --out") from None
        files.check_same_study(path, theirs, {**settings, **about})
        return found

    def run(self):
        """Train what is missing, one seed after the other."""
        self.out.mkdir(parents=True, exist_ok=True)
        parts = [part for size in range(1, len(self.names)) for part in itertools.combinations(self.names, size)]
        wanted = [(), tuple(self.names), *parts]  # first the two on which rules are measured
        for seed in self.seeds:
            left = [part for part in wanted if str(seed) not in self.result["choices"].get(_key(part), {})]
            if left:
                data = self.first[1] if self.first[0] == seed else self.data(seed)
                self._check_drawings(seed, data)
                for part in left:
                    self._train(seed, data, part)
        return self.result

    def _check_drawings(self, seed, data):
        parts = zlib.crc32(data.test[0].tobytes(), zlib.crc32(data.train[0].tobytes()))
        if self.result["checksums"].setdefault(str(seed), parts) != parts:
            raise files.FileError(f"{self.out}/choice.json: of other drawings (seed {seed}); choose another --out")

    def _train(self, seed, data, kept):
        """Train and judge one network, measure on it what rules need, and write the summary."""
        key, s = _key(kept), self.recipe
        variant = {0: "fbin", len(self.names): "wbin"}.get(len(kept), "hybrid")
        model = models.build(
            s["model"], variant, num_classes=len(data.classes), in_channels=data.preprocessing["channels"],
            input_size=data.preprocessing["size"], keep_real=kept if variant == "hybrid" else (), seed=seed,
        )  # fmt: skip
        checkpoint = self.out / f"seed{seed}-{key}.checkpoint"
        history = train.fit(
            model, *data.train, epochs=s["epochs"], batch=s["batch"], lr=s["lr"], seed=seed,
            prepare=data.training_batch, checkpoint=checkpoint, progress=self.progress,
        )  # fmt: skip
        found = train.evaluate(model, *data.test, prepare=data.evaluation_batch)
        seconds = sum(epoch["seconds"] for epoch in history)
        row = {"choices": found["top1"], "seconds": seconds, "hits": study.pack_hits(found["hits"])}
        if variant != "hybrid":
            self._measure(seed, data, model, variant)
        self.result["ops"][key] = cost.table(model)["total"]["equivalent_ops"]
        for column, value in row.items():
            self.result[column].setdefault(key, {})[str(seed)] = value
        files.write_json(self.out / "choice.json", self.result)
        checkpoint.unlink(missing_ok=True)

    def _measure(self, seed, data, model, variant):
        """Measure what rules need of a trained FBin or WBin network, on validation drawings, and time it."""
        seed, (images, labels) = str(seed), data.validation
        options = {"prepare": data.evaluation_batch, "batch": self.recipe["batch"]}
        seconds = self.result["rules"].setdefault(seed, {})

        def timed(name, function, *args, **more):
            started = time.perf_counter()
            value = function(model, *args, **more)
            seconds[name] = time.perf_counter() - started
            return value

        if variant == "fbin":
            rows, _ = timed("metric", study.choose_layers, train.batches(images, 64, data.evaluation_batch))
            self.result["kept"][seed] = [row["layer"] for row in rows if row["kept_real"]]
            self.result["layers"][seed] = [{key: row[key] for key in ("layer", "error", "macs")} for row in rows]
            for form in hybrid.FORMS[1:]:
                batches = train.batches(images, 64, data.evaluation_batch)
                self._add(seed, form, timed(f"metric, {form}", hybrid.binarization_errors, batches, form))
        word = {"fbin": "fall", "wbin": "rise"}[variant]
        self._add(seed, word, timed(word, hybrid.loss_sensitivity, images, labels, **options))
        for name, per_mac in ((f"greedy {word}", False), (f"greedy {word} per MAC", True)):
            order = timed(name, hybrid.greedy_order, images, labels, per_mac=per_mac, **options)
            self.result["greedy"].setdefault(seed, {})[name] = order

    def _add(self, seed, column, values):
        for row in self.result["layers"][seed]:
            row[column] = values[row["layer"]]


def _key(kept):
    return "+".join(kept) or "none"


def choice(
    load: Callable[..., Any], out: files.PathLike, *, command: str = "", progress: bool = True,
    seeds: Sequence[int] | None = None, **changed: Any,
) -> dict[str, Any]:  # fmt: skip
    """Train the network with every choice of layers to keep real, and see what each rule would have chosen.

    The networks begin with random weights, without a teacher. Each seed also draws the split, so there are as many sets
    of test drawings. What rules need is measured on the validation drawings, with each seed's FBin and WBin networks.

    Parameters
    ----------
    load : function (classes, seed, test) -> data
    out : path of a folder; if it holds a ``choice.json``, only what is missing there is trained
    seeds : by default five for the doodles, three for other data
    changed : model, epochs (12 for the doodles, 20 for other data), batch, lr

    Returns
    -------
    dict
        choices {layers, "+" between them, or "none": {seed: top1}}, hits (see `study.unpack_hits`) and seconds (of
        training) likewise, count of the test drawings, ops {the same: equivalent operations}, layers {seed: rows of
        layer, macs, error and its other forms, rise and fall of the loss}, greedy {seed: {rule: order}}, rules {seed:
        {rule: seconds to compute}}, kept {seed: the partition's choice}, and what was asked for. The same stands in
        ``out/choice.json``, which is written after each network.

    Raises
    ------
    files.FileError
        ``out`` holds a summary of another study.
    """
    return _Choice(load, out, seeds and tuple(seeds), command, progress, changed).run()


# ------------------------------------------------------------------------------- what the rules would choose

Picks = dict[str, list[dict[str, float]]]  # {rule: for each seed {choice: weight}}, weights with the sum 1


def order(rows: Sequence[dict[str, Any]], rule: str, greedy: dict[str, list[str]] | None = None) -> list[str]:
    """Return the names of the layers as a rule prefers them, the most wanted first.

    Parameters
    ----------
    rows : list of dict: layer, macs, error, and for the rules of `MEASURED` rmse, normalised, ..., rise, fall
    rule : a name in `RULES` or `MEASURED`
        metric (of another form of the error): the score of chapter 8 at its balanced gamma; the cheapest first; the
        largest error first; the largest rise or fall of the loss (`hybrid.loss_sensitivity`); `hybrid.greedy_order`.
    greedy : {rule: order}, for the greedy ones
    """
    if rule.startswith("greedy"):
        return list((greedy or {})[rule])
    macs = np.array([row["macs"] for row in rows], float)
    kind, _, form = rule.partition(", ")
    word = kind.removesuffix(" per MAC")
    column = form or {"metric": "error", "cost alone": "macs", "error alone": "error"}.get(word, word)
    values = np.array([row[column] for row in rows], float)
    scores = {"metric": lambda: hybrid.metric(values, macs), "cost alone": lambda: -macs}.get(word, lambda: values)()
    best = np.argsort(-(scores / macs if kind != word else scores), kind="stable")
    return [rows[i]["layer"] for i in best]


def choose(rows: Sequence[dict[str, Any]], rule: str, count: int, greedy: dict[str, list[str]] | None = None) -> str:
    """Return the ``count`` layers that a rule prefers, "+" between them; see `order`."""
    return _key(hybrid.within(order(rows, rule, greedy), _macs(rows), count=count))


def _macs(rows):
    return {row["layer"]: row["macs"] for row in rows}


def _seeds(result):
    """Seeds whose networks are all there; a summary that still grows has others, too."""
    names = [row["layer"] for row in next(iter(result["layers"].values()))]
    keys = [_key(part) for size in range(len(names) + 1) for part in itertools.combinations(names, size)]
    seeds = [s for s in result["layers"] if all(s in result["choices"].get(key, {}) for key in keys)]
    if not seeds:
        raise ValueError("choice: no seed has all its networks yet")
    return seeds, names


def is_measured(result: dict[str, Any]) -> bool:
    """Whether a summary has what the rules of `MEASURED` need; the first ones had not."""
    return all("greedy" in result and "rise" in result["layers"][seed][0] for seed in _seeds(result)[0])


def picks(result: dict[str, Any], *, count: int | None = None, share: float | None = None) -> Picks:
    """Return what each rule chooses: at most ``count`` layers, or at most a ``share`` of WBin's operations.

    "at random" stands for all choices of as many layers, or for all orders in which the budget can be filled. "best of
    all" is the choice within the budget that has the highest mean: picked with hindsight, and so too high.
    """
    seeds, names = _seeds(result)
    rules = (*RULES, *(MEASURED if is_measured(result) else ()))
    made: Picks = {}
    for seed in seeds:
        rows = result["layers"][seed]
        limit = {"count": count, "operations": None if share is None else _real_macs(result, rows, names, share)}
        for rule in rules:
            preferred = order(rows, rule, result.get("greedy", {}).get(seed))
            made.setdefault(rule, []).append({_key(hybrid.within(preferred, _macs(rows), **limit)): 1.0})
        every = [_key(hybrid.within(one, _macs(rows), **limit)) for one in itertools.permutations(names)]
        made.setdefault("at random", []).append({key: every.count(key) / len(every) for key in dict.fromkeys(every)})
    best = max(made["at random"][0], key=lambda key: np.mean([result["choices"][key][seed] for seed in seeds]))
    return {**made, "best of all": [{best: 1.0}] * len(seeds)}


def _real_macs(result, rows, names, share):
    """Return how many MACs may be real within a share of WBin's equivalent operations."""
    none, everything = result["ops"]["none"], result["ops"][_key(names)]
    return (share * everything - none) / (everything - none) * sum(_macs(rows).values())


def difference(
    result: dict[str, Any], ours: list[dict[str, float]], theirs: list[dict[str, float]]
) -> tuple[float, float | None, float | None]:
    """Return top-1 of what one rule chose minus that of another, seed by seed on the same drawings.

    Returns
    -------
    difference, its standard error over the seeds, and that over the drawings (None if it cannot be told)
    """
    seeds, _ = _seeds(result)
    each, variance = [], 0.0
    for seed, a, b in zip(seeds, ours, theirs, strict=True):
        weights = {key: a.get(key, 0.0) - b.get(key, 0.0) for key in {**a, **b}}
        each.append(sum(weight * result["choices"][key][seed] for key, weight in weights.items()))
        if "hits" in result:
            drawings = np.zeros(result["count"])
            for key, weight in weights.items():
                entry = {"hits": result["hits"][key][seed], "count": result["count"]}
                drawings += 100 * weight * study.unpack_hits(entry)
            variance += drawings.var(ddof=1) / len(drawings)
    over_drawings = np.sqrt(variance) / len(seeds) if "hits" in result else None
    return float(np.mean(each)), study.standard_error(np.array(each)), over_drawings


# ---------------------------------------------------------------------------------------------- tables


def choice_rows(result: dict[str, Any], by: str = "layers") -> list[dict[str, Any]]:
    """Compare the rules at the same number of layers, or of operations.

    Parameters
    ----------
    result : as `choice` returns it
    by : {"layers", "operations"}

    Returns
    -------
    list of dict
        count (of layers) or share (of WBin's operations), rule (see `picks`), chosen, top1 (mean over seeds) and its
        standard error, ops (mean), minus {"at random" and "metric": see `difference`}
    """
    seeds, names = _seeds(result)
    rows = []
    for budget in _budgets(by, names):
        made = picks(result, **budget)
        for rule, own in made.items():
            top = np.array([sum(w * result["choices"][key][s] for key, w in one.items()) for s, one in zip(seeds, own)])
            ops = np.mean([sum(w * result["ops"][key] for key, w in one.items()) for one in own])
            chosen = " or ".join(dict.fromkeys(key for one in own for key in one))
            rows.append({
                **budget, "rule": rule, "top1": float(top.mean()), "top1_se": study.standard_error(top),
                "ops": float(ops), "chosen": "any" if rule == "at random" else chosen,
                "minus": {other: difference(result, own, made[other]) for other in ("at random", "metric")},
            })  # fmt: skip
    return rows


def _budgets(by: str, names: list[str]) -> list[dict[str, Any]]:
    return (
        [{"share": share} for share in SHARES] if by == "operations" else [{"count": c} for c in range(1, len(names))]
    )


def overall_rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Compare each rule with "at random" and with the metric: the mean over all budgets of a kind.

    These are all numbers of layers, and `STEPS` evenly spaced numbers of operations between FBin's and WBin's: three
    would leave it to chance whether orders differ at them.

    Returns
    -------
    list of dict
        rule, layers and operations: {"at random" and "metric": see `difference`}
    """
    _, names = _seeds(result)
    found: dict[str, dict[str, Any]] = {}
    every = {"layers": _budgets("layers", names), "operations": _even_budgets(result, names)}
    for kind, budgets in every.items():
        made = [picks(result, **budget) for budget in budgets]
        mean = {rule: [_mean(parts) for parts in zip(*(one[rule] for one in made), strict=True)] for rule in made[0]}
        for rule, own in mean.items():
            minus = {other: difference(result, own, mean[other]) for other in ("at random", "metric")}
            found.setdefault(rule, {"rule": rule})[kind] = minus
    return list(found.values())


def _even_budgets(result, names):
    none, everything = result["ops"]["none"], result["ops"][_key(names)]
    return [{"share": (none + (everything - none) * (k + 0.5) / STEPS) / everything} for k in range(STEPS)]


def _mean(parts):
    """The mean of several {choice: weight}."""
    keys = dict.fromkeys(key for part in parts for key in part)
    return {key: sum(part.get(key, 0.0) for part in parts) / len(parts) for key in keys}


def clearly_above(rows: Sequence[dict[str, Any]], other: str = "metric") -> dict[str, list[str]]:
    """Return the rules that are above another by more than twice the larger of both standard errors, by kind of budget.

    ``rows`` are those of `overall_rows`. "At random" and "best of all" are no rules, and left out.
    """
    found: dict[str, list[str]] = {"layers": [], "operations": []}
    for row in rows:
        for kind, names in found.items():
            value, *errors = row[kind][other]
            if row["rule"] in RULES | MEASURED and value > 2 * study.larger(*errors):
                names.append(row["rule"])
    return found


def cost_rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what each measured rule costs: which trained network, seconds to train it, seconds to compute the rule.

    They are means over the seeds. A rule per MAC costs as much as the one per layer.
    """
    seeds, names = _seeds(result)
    rows = []
    for rule, network in (RULES | MEASURED).items():
        source = rule if rule.startswith("greedy") else rule.removesuffix(" per MAC")
        source = "metric" if source.startswith("error") else source
        key = {"wbin": _key(names), "fbin": "none", "": None}[network]
        own = [0.0 if key is None else result["rules"][seed][source] for seed in seeds]
        training = [0.0 if key is None else result["seconds"][key][seed] for seed in seeds]
        rows.append({
            "rule": rule, "takes": network, "training s": round(np.mean(training)), "rule s": f"{np.mean(own):.1f}",
        })  # fmt: skip
    return rows


def _differences(minus):
    """Columns of a table: the difference, +- over the seeds, in brackets over the drawings."""
    shown = {}
    for other, (value, seeds, drawings) in minus.items():
        text = "" if drawings is None else f" ({drawings:.1f})"
        shown[f"minus {other}"] = study.with_error(value, seeds) + text
    return shown


def choice_table(result: dict[str, Any]) -> str:
    """Return as text `choice_rows` of both kinds, and if there is enough for them, `overall_rows` and `cost_rows`."""
    parts = []
    for by, title in (("layers", "layers real"), ("operations", "of WBin's ops")):
        rows = [
            {
                title: row["count"] if by == "layers" else f"{row['share']:.2f}", "by": row["rule"],
                "top-1 %": study.with_error(row["top1"], row["top1_se"]), **_differences(row["minus"]),
                "equivalent ops": round(row["ops"]), "chosen": row["chosen"],
            }
            for row in choice_rows(result, by)
        ]  # fmt: skip
        parts.append(cost.format_table(rows, rows[0]))
    compared = overall_rows(result)
    overall = [
        {"by": row["rule"]}
        | {f"{k}: {title}": text for k in ("layers", "operations") for title, text in _differences(row[k]).items()}
        for row in compared
    ]
    parts.append("Mean over all budgets:\n\n" + cost.format_table(overall, overall[0]))
    if "rules" in result:
        rows = cost_rows(result)
        parts.append(cost.format_table(rows, rows[0]))
        better = "; ".join(f"as many {kind}: {', '.join(n) or 'none'}" for kind, n in clearly_above(compared).items())
        parts.append(f"Above the metric by more than twice the larger of both errors: {better}.")
    return "\n\n".join([*parts, _note(result)])


def _note(result):
    seeds, names = _seeds(result)
    ends = ("none", _key(names))
    tops = ", ".join(f"{key} {np.mean([result['choices'][key][seed] for seed in seeds]):.1f} %" for key in ends)
    kept = " / ".join("+".join(layers) for layers in result["kept"].values())
    s = result.get("settings", {"ratio": 0.6, "clusters": 3})  # notebook 8's data goes without: these were its own
    text = f"Real inputs in {tops}. The partition (share {s['ratio']:g}, P = {s['clusters']}) kept {kept}."
    return text + "\n+-: one standard error, over seeds" + (" (over drawings)" if "hits" in result else "")
