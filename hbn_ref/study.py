"""Top floor, study: the paper's experiment from end to end.

Train the variants. On the trained fully binary network, measure where binarizing the inputs hurts. Choose layers, train
that hybrid, and put accuracy beside cost. The layers are chosen on validation drawings. The test drawings are opened
once per variant, after its last epoch.

`run` takes arrays and functions, not paths: any object with the attributes of `data_tools.Dataset` will do.
"""

import datetime
import os
import platform
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numba
import numpy as np

from . import cost, deploy, engine, files, hybrid, layers, models, train
from .checks import one_of, real_number

REPORT_FORMAT = "hbn_ref study 1"
HYBRID_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
LEARNING_RATE, EPOCHS = 0.003, 16
START, BINARY_INPUTS = ("fprec", "wbin"), ("fbin", "hybrid")  # the others may begin with the first two's weights
RECIPE_OPTIONS = ("start", "distillation")  # parts of the recipe that a named hybrid may change
WEIGHT_DECAY = {"fprec": 1e-4}  # of binary weights: none, see train.Optimizer
RATIO, CLUSTERS = 0.4, 3  # share of the binarizable layers that may stay real (why: README.md); P to begin with
TABLE = {
    "variant": "variant", "top1": "top-1 %", "top5": "top-5 %", "macs_real": "real MACs", "macs_binary": "binary MACs",
    "equivalent_ops": "equivalent ops", "weight_bytes": "weight bytes", "ms_per_image": "ms/image",
    "train_seconds": "training s",
}  # fmt: skip
NAMES = {"fprec": "FPrec", "wbin": "WBin", "fbin": "FBin", "hybrid": "Hybrid"}  # of variants, in pictures and on pages
DEFAULTS = {"schedule": "cosine"}  # settings that older reports do not have
PACKED = {"ms_packed": "ms/image packed", "file_bytes": "packed file"}  # reports before chapter 9 do without


def machine() -> dict[str, Any]:
    """Return what a timing depends on: processor, threads, versions, and today's date."""
    processor = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        processor = names[0].partition(":")[2].strip() if names else processor
    return {
        "processor": processor, "cores": os.cpu_count(), "threads": engine.get_num_threads(),
        "kernel": engine.get_kernel(), "system": platform.system(), "python": platform.python_version(),
        "numpy": np.__version__, "numba": numba.__version__, "date": datetime.date.today().isoformat(),
    }  # fmt: skip


def milliseconds_per_image(
    model: layers.Sequential, packed: deploy.PackedNetwork, x: np.ndarray, repeats: int = 30
) -> list[float]:
    """Median times of one image in ms, on one thread: the model with weights packed beforehand, and the packed network.

    The two take turns.
    """
    calls = (lambda: model.forward(x[:1]), lambda: packed(x[:1]))
    seconds: tuple[list[float], list[float]] = ([], [])
    with engine.threads(1), layers.packed_weights(model):
        for _ in range(repeats):
            for call, seen in zip(calls, seconds, strict=True):
                seen.append(cost.median_seconds(call, 1, warmup=1))
    return [1000 * float(np.median(seen)) for seen in seconds]


def pack_hits(hits: np.ndarray) -> str:
    """Return bool (count,) as a report holds it: 8 per byte, in hex. `unpack_hits` is its inverse."""
    return np.packbits(hits).tobytes().hex()


def unpack_hits(entry: dict[str, Any]) -> np.ndarray:
    """Return bool (count,): which test drawings a network recognised, from what `pack_hits` made."""
    packed = np.frombuffer(bytes.fromhex(entry["hits"]), np.uint8)
    return np.unpackbits(packed, count=entry["count"]).astype(bool)


def choose_layers(
    model: layers.Sequential, batches: Iterable[np.ndarray], *, ratio: float = RATIO, clusters: int = CLUSTERS,
    gamma: float | None = None, form: str = "mse",
) -> tuple[list[dict[str, Any]], float]:  # fmt: skip
    """Steps 1 to 4 of chapter 8 on a trained fully binary network.

    Returns
    -------
    rows : list of dict
        layer, number, error, macs, score, kept_real for each layer with binary inputs
    gamma : float, the one that was used
    """
    errors = hybrid.binarization_errors(model, batches, form)
    costs = [row for row in cost.table(model)["layers"] if row["layer"] in errors]
    macs, values = [row["macs"] for row in costs], [errors[row["layer"]] for row in costs]
    gamma = hybrid.balanced_gamma(values, macs) if gamma is None else gamma
    scores = hybrid.metric(values, macs, gamma)
    kept = hybrid.partition(scores, ratio, clusters)
    rows = [
        {
            "layer": row["layer"], "number": row["number"], "error": values[i], "macs": macs[i],
            "score": float(scores[i]), "kept_real": i in kept,
        }
        for i, row in enumerate(costs)
    ]  # fmt: skip
    return rows, gamma


class Study:
    """One study and its folder. progress.json holds what is finished, a checkpoint what is running."""

    def __init__(
        self, data: Any, out: files.PathLike, settings: dict[str, Any], command: str = "", progress: bool = True
    ) -> None:
        self.data, self.out, self.settings, self.progress = data, Path(out), settings, progress
        self.report = {
            "format": REPORT_FORMAT, "data": data.name, "classes": list(data.classes), "seed": settings["seed"],
            "epochs": settings["epochs"], "command": command, "machine": machine(), "settings": settings,
            "variants": {}, "metric": [], "gamma": None,
        }  # fmt: skip
        self.finished = False
        if self.out.exists() and not self.out.is_dir():
            raise files.FileError(f"{self.out}: expected a folder to write into, found a file")

    def _resume(self):
        for name, finished in (("report.json", True), ("progress.json", False)):
            path = self.out / name
            if path.exists():
                found, ours = load_report(path), files.plain(self.settings)
                files.check_same_study(path, DEFAULTS | found["settings"], ours)
                self.report, self.finished = found, finished
                return

    def _save(self):
        files.write_json(self.out / "progress.json", self.report)

    def build(
        self, variant: str, keep_real: Sequence[str | int] = (), last_layer: str | None = None, init: bool = True
    ) -> layers.Sequential:
        """Return the untrained network of a variant."""
        s, p = self.settings, self.data.preprocessing
        last_layer = last_layer or s["last_layer"]
        last_layer = "real" if variant == "fprec" or last_layer == "both" else last_layer
        return models.build(
            s["model"], variant, num_classes=len(self.data.classes), in_channels=p["channels"], input_size=p["size"],
            keep_real=keep_real, last_layer=last_layer, seed=s["seed"], width=s["width"], rule=s["rule"],
            estimator=s["estimator"], init=init,
        )  # fmt: skip

    def _untrained(self, variant, options):
        """Return the network of a variant as it is when training begins."""
        model, start = self.build(variant, **_without_recipe(options)), options.get("start", self.settings["start"])
        if start is not None and variant in BINARY_INPUTS:
            models.start_from(model, models.load(self.out / f"{start}.npz")[0])
        return model

    def train(self, name: str, variant: str, **options: Any) -> None:
        """Train and judge one network, unless that is done; write its files and its entry in the report."""
        path, packed_path, checkpoint = (self.out / f"{name}{end}.npz" for end in ("", "-packed", ".checkpoint"))
        if name in self.report["variants"] and packed_path.exists() and (path.exists() or not self._keeps(name)):
            checkpoint.unlink(missing_ok=True)  # if the last run ended just before it deleted this
            return
        data, s = self.data, self.settings
        model, share = self._untrained(variant, options), options.get("distillation", self.settings["distillation"])

        def validate(model):
            found = train.evaluate(model, *data.validation, prepare=data.evaluation_batch)
            return {"val_top1": found["top1"], "val_loss": found["loss"]}

        history = train.fit(
            model, *data.train, epochs=s["epochs"], batch=s["batch"], lr=s["lr"], seed=s["seed"],
            schedule=s["schedule"], weight_decay=WEIGHT_DECAY.get(variant, 0.0), smoothing=s["smoothing"],
            distillation=share, teacher=self._teacher(variant, share), prepare=data.training_batch,
            validate=validate if len(data.validation[1]) else None, checkpoint=checkpoint, progress=self.progress,
        )  # fmt: skip
        labels = {"classes": data.classes, "preprocessing": data.preprocessing}
        packed = deploy.compile(model, **labels)
        if len(data.validation[1]):
            packed = deploy.with_doubt(packed, train.batches(data.validation[0], s["batch"], data.evaluation_batch))
        deploy.save(packed, packed_path)
        if self._keeps(name):
            models.save(model, path, **labels)
        self.report["variants"][name] = self._judge(model, packed) | {
            "file_bytes": packed_path.stat().st_size, "train_seconds": sum(row["seconds"] for row in history),
            "variant": variant, "kept_real": list(model.spec["keep_real"]), "last_layer": model.spec["last_layer"],
            "history": history,
        }  # fmt: skip
        self._save()
        checkpoint.unlink(missing_ok=True)

    def _keeps(self, name):
        """Whether a network's latent weights are kept: fbin is measured, fprec teaches, others may begin with some."""
        starts = {options.get("start") for options in self.settings["hybrids"].values()}
        return self.settings["latent"] or name in {"fbin", "fprec", self.settings["start"], *starts}

    def _teacher(self, variant, share):
        if variant == "fprec" or not share:
            return None
        return models.load(self.out / "fprec.npz")[0]

    def _judge(self, model, packed):
        """Accuracy on the test drawings, cost, and the time of one image."""
        data = self.data
        found = train.evaluate(model, *data.test, prepare=data.evaluation_batch)
        total, image = cost.table(model)["total"], data.evaluation_batch(data.test[0][:1])
        entry = {
            "top1": found["top1"], "top5": found["top5"], "loss": found["loss"], "count": found["count"],
            "hits": pack_hits(found["hits"]),
            **{key: total[key] for key in ("macs_real", "macs_binary", "equivalent_ops", "weight_bytes")},
            **dict(zip(("ms_per_image", "ms_packed"), milliseconds_per_image(model, packed, image), strict=True)),
        }  # fmt: skip
        if self.settings["ten_crops"]:
            entry["top1_ten_crops"] = train.evaluate(packed, *data.test, prepare=data.ten_crops)["top1"]
        return entry

    def choose(self) -> list[str]:
        """Measure the metric on the trained FBin network's validation drawings; return the layers to keep real."""
        if not self.report["metric"]:
            s, (images, _) = self.settings, self.data.validation
            model, _, _ = models.load(self.out / "fbin.npz")
            batches = train.batches(images, s["batch"], self.data.evaluation_batch)
            options = {key: s[key] for key in ("ratio", "clusters", "gamma", "form")}
            self.report["metric"], self.report["gamma"] = choose_layers(model, batches, **options)
            self._save()
        return [row["layer"] for row in self.report["metric"] if row["kept_real"]]

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Keep the folder for this process during the block, and go on with what was done there before."""
        self.out.mkdir(parents=True, exist_ok=True)
        with files.alone(self.out):
            self._resume()
            if not self.finished:
                self._save()  # fail now if the folder cannot be written, not after the first network
            yield

    def run(self, finish: Callable[[dict[str, Any]], Any] | None = None) -> dict[str, Any]:
        """Do what is not yet done, and return the report."""
        with self.opened():
            if not self.finished:
                self._train_all()
                files.write_json(self.out / "report.json", self.report)
                self.finished = True
            (self.out / "progress.json").unlink(missing_ok=True)  # the last run may have ended just before this, too
            if finish is not None:
                finish(self.report)
        return self.report

    def _train_all(self):
        wanted = self.settings["variants"]
        for variant in models.VARIANTS:
            if variant != "hybrid" and (variant in wanted or (variant == "fbin" and "hybrid" in wanted)):
                self.train(variant, variant)
        if "hybrid" in wanted:
            self.train("hybrid", "hybrid", keep_real=self.choose())
            if self.settings["last_layer"] == "both":
                self.train("hybrid-last", "hybrid", keep_real=self.choose(), last_layer="binary")
        for name, options in self.settings["hybrids"].items():
            self.train(name, "hybrid", **options)


def _without_recipe(options):
    return {key: value for key, value in options.items() if key not in RECIPE_OPTIONS}


def settings_of(data: Any, **settings: Any) -> dict[str, Any]:
    """Return what decides a study's networks: the settings as given, and what the data are."""
    about = {
        "preprocessing": data.preprocessing, "augmentation": files.plain(getattr(data, "augmentation", None)),
        "drawings": [len(part[1]) for part in (data.train, data.validation, data.test)],
        "checksum": zlib.crc32(np.ascontiguousarray(data.train[0]).data),
    }  # fmt: skip
    return {**settings, **about}


def run(
    data: Any, out: files.PathLike, *, model: str | Sequence[models.Item] = "small", epochs: int = EPOCHS,
    batch: int = 64, seed: int = 0, variants: Sequence[str] = models.VARIANTS, ratio: float = RATIO,
    clusters: int = CLUSTERS, gamma: float | None = None, form: str = "mse", lr: float = LEARNING_RATE,
    last_layer: str = "real", width: float = 1, rule: str = "paper", estimator: str = "ste", smoothing: float = 0.0,
    distillation: float = 0.0, start: str | None = None, schedule: str = "cosine",
    hybrids: dict[str, Any] | None = None, ten_crops: bool = False, latent: bool = True, command: str = "",
    progress: bool = True, finish: Callable[[dict[str, Any]], Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Run a study into the folder ``out``, or go on with one that was interrupted there.

    Parameters
    ----------
    data : an object like data_tools.Dataset
        name, classes, train, validation, test (pairs of images and labels), preprocessing (size, channels, ...),
        training_batch(images, rng), evaluation_batch(images); with ten_crops also ten_crops(images). The report notes
        its augmentation, if it has one
    out : path of a folder
    model : a network of chapter 5 by its name, or a definition
    epochs, batch, seed, lr, schedule, smoothing : see `train.fit`
    last_layer : {"real", "binary", "both"}
        Weights of the classifier in all variants but fprec; "both" trains the chosen hybrid a second time, with binary
        ones.
    width, rule, estimator : see `models.build`
    variants : the ones to train; a hybrid adds fbin, which it needs
    ratio, clusters, gamma, form : see `hybrid.partition`, `hybrid.metric` and `hybrid.binarization_error`
    distillation : float
        If above 0, the trained fprec network teaches the others, with this share: see `train.soft_target`.
    start : {"fprec", "wbin"} or None
        Networks with binary inputs (fbin, hybrids) begin with the trained weights of this variant, see
        `models.start_from`; with None they begin with random ones. These are two stages, weights first, as in Zhuang et
        al. 2018.
    hybrids : dict {name: {"keep_real": layers, "last_layer": "real" or "binary"}}
        Further hybrids, with layers that are named, not chosen. They may have "start" and "distillation" of their own.
    ten_crops : bool
        Judge with ten crops, too.
    latent : bool
        False keeps the packed networks, and of latent weights only those of fbin and fprec.
    finish : function (report), or None
        Called at the end, while no other process may write into the folder: to write there, too.

    Returns
    -------
    report : dict
        What is also written to ``out/report.json``: data, classes, seed, epochs, command, machine, variants, metric.
        Each variant's network is written to ``out/VARIANT.npz``, and packed to ``out/VARIANT-packed.npz``.

    Raises
    ------
    files.FileError
        The folder holds a study with other settings or a damaged file, or another process writes into it.
    """
    if not variants:
        raise ValueError(f"variants: expected some of {', '.join(models.VARIANTS)}, got none")
    for variant in variants:
        one_of("variants", variant, models.VARIANTS)
    train.check_settings(epochs, batch, lr, 0.0, seed, smoothing, distillation)
    if gamma is not None:
        real_number("gamma", gamma)
    one_of("form", form, hybrid.FORMS)
    one_of("last_layer", last_layer, ("real", "binary", "both"))
    one_of("schedule", schedule, tuple(train.SCHEDULES))
    wanted = [v for v in models.VARIANTS if v in variants]
    settings = settings_of(
        data, model=model, epochs=epochs, batch=batch, seed=seed, variants=wanted, ratio=ratio, clusters=clusters,
        gamma=gamma, form=form, lr=lr, last_layer=last_layer, width=width, rule=rule, estimator=estimator,
        smoothing=smoothing, distillation=distillation, start=start, schedule=schedule,
        hybrids=files.plain(hybrids or {}), ten_crops=ten_crops, latent=latent,
    )  # fmt: skip
    study = Study(data, out, settings, command, progress)
    hybrid.partition([1.0, 2.0], ratio, clusters)  # refuse bad values now, not after an hour
    for variant in settings["variants"]:
        study.build(variant, init=False)
    for name, options in settings["hybrids"].items():
        taken = name in models.VARIANTS or (name == "hybrid-last" and last_layer == "both")
        if not HYBRID_NAME.fullmatch(name) or taken or name.endswith("-packed"):
            raise ValueError(
                f"hybrids: {name!r} names files; expected small letters, digits and -, no -packed at the end"
            )
        study.build("hybrid", **_without_recipe(options), init=False)
    if "hybrid" in variants and len(data.validation[1]) == 0:
        raise ValueError("variants: hybrid chooses its layers on validation drawings, and the data has none")
    for begins in (start, *(options.get("start") for options in settings["hybrids"].values())):
        if begins is not None and one_of("start", begins, START) not in variants:
            raise ValueError(f"start: needs {begins} among the variants, the others begin with its weights")
    shares = [distillation, *(options.get("distillation", 0) for options in settings["hybrids"].values())]
    if any(shares) and "fprec" not in variants:
        raise ValueError("distillation: needs fprec among the variants, it is the teacher")
    return study.run(finish)


def table(report: dict[str, Any]) -> str:
    """Return the report's table, and the choice of layers, as text."""
    rows = [{**found, "variant": name} for name, found in report["variants"].items()]
    columns = TABLE | {key: title for key, title in PACKED.items() if all(key in row for row in rows)}
    lines = [cost.format_table([{title: row[key] for key, title in columns.items()} for row in rows], columns.values())]
    if report["metric"]:
        shown = ("layer", "error", "macs", "score", "kept_real")
        rows = [{**row, "error": f"{row['error']:.3f}", "score": f"{row['score']:.3f}",
                 "kept_real": "real" if row["kept_real"] else ""} for row in report["metric"]]  # fmt: skip
        kept = [row["layer"] for row in report["metric"] if row["kept_real"]]
        none = "none (no cluster fits the ratio: this hybrid is FBin)"
        lines += [
            "",
            f"Kept real: {', '.join(kept) or none}, by error + gamma / cost share, gamma = {report['gamma']:.4g}",
            cost.format_table(rows, shown),
        ]
    return "\n".join(lines)


def load_report(path: files.PathLike) -> dict[str, Any]:
    """Read a report written by `run`; a FileError if it is none."""
    report = files.read_json(path)
    number_or_none: Any = (float, int, type(None))
    wanted = {"variants": dict, "metric": list, "settings": dict, "seed": int, "gamma": number_or_none}
    whole = isinstance(report, dict) and report.get("format") == REPORT_FORMAT
    if not whole or not all(isinstance(report.get(key), kind) for key, kind in wanted.items()):
        raise files.FileError(f"{path}: expected a study's report.json")
    if not all(
        isinstance(found, dict) and TABLE.keys() <= {"variant", *found} for found in report["variants"].values()
    ):
        raise files.FileError(f"{path}: a study's report with figures missing")
    return report


def over_seeds(reports: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the mean top-1 of each variant, with standard errors, over studies that differ in nothing but the seed.

    Returns
    -------
    list of dict
        variant, runs, top1 (mean, per cent), top1_se (standard error of the mean), minus_fprec and minus_fbin (mean
        paired differences) with their _se; None if there is only one run, or no partner
    """
    first = reports[0]
    wanted = _but_for_the_seed(first)
    for report in reports[1:]:
        found = _but_for_the_seed(report)
        for key, value in wanted.items():
            if found.get(key) != value:
                raise ValueError(f"reports: {key} differs, {value!r} and {found.get(key)!r}")
    seeds = [report["seed"] for report in reports]
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"reports: expected a different seed each, got {seeds}")
    tops = {v: np.array([r["variants"][v]["top1"] for r in reports]) for v in first["variants"]}
    rows = []
    for variant, top in tops.items():
        row = {"variant": variant, "runs": len(top), "top1": float(top.mean()), "top1_se": standard_error(top)}
        for other in ("fprec", "fbin"):
            pair = top - tops[other] if other in tops and other != variant else None
            row[f"minus_{other}"] = None if pair is None else float(pair.mean())
            row[f"minus_{other}_se"] = None if pair is None else standard_error(pair)
        rows.append(row)
    return rows


def _but_for_the_seed(report):
    """A report's settings, without those that another seed changes."""
    settings = {key: value for key, value in report["settings"].items() if key not in ("seed", "checksum")}
    preprocessing = settings.get("preprocessing", {})
    return settings | {"preprocessing": {key: v for key, v in preprocessing.items() if key != "split_seed"}}


def standard_error(values: np.ndarray) -> float | None:
    """Return the standard error of the mean of an array, or None for a single value."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None


def larger(*errors: float | None) -> float:
    """Return the largest of several standard errors of one figure; one that is not known counts as 0."""
    return max(error or 0.0 for error in errors)


def paired(ours: dict[str, Any], theirs: dict[str, Any]) -> tuple[float, float | None]:
    """Return top-1 of one network minus that of another, over the seeds that both have and the same test drawings.

    Parameters
    ----------
    ours, theirs : dict {seed: entry with hits and count}

    Returns
    -------
    difference : float, in points
    error : float
        Its standard error: average the difference of the hits over the seeds, and take the spread over the drawings.
    """
    rows = [
        100.0 * (unpack_hits(entry).astype(int) - unpack_hits(theirs[seed]))
        for seed, entry in ours.items() if seed in theirs
    ]  # fmt: skip
    each = np.mean(rows, axis=0)  # one difference per drawing
    return float(each.mean()), standard_error(each)


def with_error(value: float, error: float | None) -> str:
    """Return "84.1 +- 0.3", or "84.1" if there is no error."""
    return f"{value:.1f}" + ("" if error is None else f" +- {error:.1f}")


def over_seeds_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return `over_seeds` as text."""

    titles = {"top1": "top-1 %", "minus_fprec": "minus FPrec", "minus_fbin": "minus FBin"}
    shown = [
        {"variant": row["variant"], "runs": row["runs"]}
        | {t: "" if row[k] is None else with_error(row[k], row[f"{k}_se"]) for k, t in titles.items()}
        for row in rows
    ]
    return cost.format_table(shown, ("variant", "runs", *titles.values())) + "\n\n+-: one standard error of the mean"
