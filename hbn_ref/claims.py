"""Top floor, claims: the paper's abstract, claim by claim, on the paper's own networks.

Every network learns from scratch, as the authors' did: random weights, no teacher. Learning rate, schedule and batch
are chosen once for all variants of a network, on drawings held out from those to train on (`tune`). Sketch-A-Net is
also trained with the recipe of `presets.evidence`: it begins with WBin's weights, and FPrec teaches it.

The summary, ``claims.json``, is written after each network. A later run needs nothing else to go on: what has a row
there is not trained again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import cost, files, hybrid, models, study, train
from .recipe import AUGMENTATION, RECIPE, SEEDS

FORMAT = "hbn_ref claims 1"
PHOTOS = {"area": (0.6, 1.0), "rotation": 0.0}  # how photos are varied
TAUGHT = {key: RECIPE[key] for key in ("start", "distillation")}  # of presets.evidence
TRIED: list[dict[str, Any]] = [
    {"lr": 0.002, "batch": 64, "schedule": "cosine"},
    {"lr": 0.004, "batch": 64, "schedule": "cosine"},
    {"lr": 0.001, "batch": 32, "schedule": "cosine"},
    {"lr": 0.002, "batch": 32, "schedule": "cosine"},
    {"lr": 0.002, "batch": 32, "schedule": "step"},
]


def _kept(name, **options):
    """A hybrid of the authors, as `study.Study.train` takes it."""
    return "hybrid", {"keep_real": list(models.HYBRIDS[name]), **options}


@dataclass(frozen=True)
class Experiment:
    """One network of the paper at a laptop's scale: {name: (variant, options)} in the order of training."""

    model: str
    size: int
    epochs: int
    networks: dict[str, tuple[str, dict[str, Any]]]
    width: float = 1.0
    photos: bool = False
    ratio: float = 1 / 3  # the share that the metric may keep real, if it chooses: two of six, as the authors did
    tuned_as: str = ""  # another experiment whose learning rate it takes
    seeds: Sequence[int] = field(default=SEEDS)


PLAIN: dict[str, tuple[str, dict[str, Any]]] = {"fprec": ("fprec", {}), "fbin": ("fbin", {}), "wbin": ("wbin", {})}
HYBRID1 = {"hybrid1": _kept("sketchanet-hybrid1")}
SHORT = {"fprec": PLAIN["fprec"], "fbin": PLAIN["fbin"], **HYBRID1}
EXPERIMENTS = {
    "sketchanet": Experiment("sketchanet", 113, 40, {
        **PLAIN, **HYBRID1,
        "hybrid2": _kept("sketchanet-hybrid2"),
        "hybrid1-last": _kept("sketchanet-hybrid1", last_layer="binary"),
        "hybrid1-taught": _kept("sketchanet-hybrid1", **TAUGHT),
        "fbin-taught": ("hybrid", {"keep_real": [], **TAUGHT}),
        "hybrid2-last": _kept("sketchanet-hybrid2", last_layer="binary"),
        "metric": ("hybrid", {}),
    }),
    "resnet18": Experiment("resnet18", 64, 40, {
        "fprec": PLAIN["fprec"], "fbin": PLAIN["fbin"],
        "hybrid-v1": _kept("resnet18-hybrid-v1"), "hybrid-v2": _kept("resnet18-hybrid-v2"),
    }, width=0.5),
    "squeezenet": Experiment("squeezenet", 64, 40, {
        "fprec": PLAIN["fprec"], "fbin": PLAIN["fbin"],
        "hybrid-v1": _kept("squeezenet-hybrid-v1"), "hybrid-v3": _kept("squeezenet-hybrid-v3"),
    }, width=0.5),
    "photos": Experiment("resnet18", 32, 25, {
        **PLAIN, "hybrid-v1": _kept("resnet18-hybrid-v1"), "hybrid-v2": _kept("resnet18-hybrid-v2"),
    }, width=0.5, photos=True),
    "sketchanet-half": Experiment("sketchanet", 113, 20, SHORT, tuned_as="sketchanet"),
    "sketchanet-double": Experiment("sketchanet", 113, 80, SHORT, tuned_as="sketchanet"),
}  # fmt: skip
MEASURED = ("sketchanet", "resnet18")  # experiments whose errors are compared with the authors' logs


class Claims:
    """All experiments, their folder and their summary."""

    def __init__(
        self, load: Callable[..., Any], photos: Callable[..., Any] | None, out: files.PathLike, command: str = "",
        progress: bool = True, epochs: int | None = None, experiments: dict[str, Experiment] | None = None,
    ) -> None:  # fmt: skip
        self.load, self.photos, self.out = load, photos, Path(out)
        self.command, self.progress, self.changed = command, progress, epochs
        self.experiments = EXPERIMENTS if experiments is None else experiments
        self.path = self.out / "claims.json"
        self.found: dict[str, Any] = {"format": FORMAT, "tuning": {}, "networks": {}, "errors": {}, "kept": {}}
        if self.path.exists():
            self.found |= load_summary(self.path)

    def save(self) -> None:
        files.write_json(self.path, self.found)

    def epochs(self, name: str) -> int:
        """Epochs of an experiment; a changed number is that of all but the two others of the curve."""
        factor = {"sketchanet-half": 0.5, "sketchanet-double": 2}.get(name, 1)
        own = self.experiments[name].epochs
        return own if self.changed is None else max(1, round(self.changed * factor))

    def data(self, name: str) -> Any:
        one = self.experiments[name]
        load, varied = (self.photos, PHOTOS) if one.photos else (self.load, AUGMENTATION)
        assert load is not None
        return load(classes=None, seed=0, size=one.size).with_augmentation(**varied)

    def tune(self, name: str) -> dict[str, Any]:
        """Return the best of `TRIED` for an experiment, judged on held-out drawings; the test drawings stay closed.

        FPrec and FBin train for a fifth of the epochs. The least mean of both losses wins.
        """
        one = self.experiments[name]
        rows = self.found["tuning"].setdefault(name, [])
        for settings in TRIED[len(rows) :]:
            data, epochs = self.data(name).development(0), max(1, self.epochs(name) // 5)
            report = study.run(
                data, self.out / f"{name}-tuning" / f"try{len(rows)}", model=one.model, width=one.width, epochs=epochs,
                variants=("fprec", "fbin"), latent=False, progress=self.progress, command=self.command, **settings,
            )  # fmt: skip
            judged = {
                v: {key: report["variants"][v][key] for key in ("top1", "loss", "count")} for v in ("fprec", "fbin")
            }
            rows.append({**settings, "epochs": epochs, **judged})
            self.save()
        best = min(rows, key=lambda row: row["fprec"]["loss"] + row["fbin"]["loss"])
        return {key: best[key] for key in TRIED[0]}

    def run(self, seeds: Sequence[int] | None = None) -> dict[str, Any]:
        """Do what is not yet done: seed by seed, experiment by experiment."""
        for seed, name in self._order(seeds):
            one = self.experiments[name]
            networks = self.found["networks"].setdefault(name, {})
            missing = [n for n in one.networks if str(seed) not in networks.get(n, {})]
            if missing or (name in MEASURED and str(seed) not in self.found["errors"].get(name, {})):
                self._train(name, seed, missing, self.tune(one.tuned_as or name))
        return self.found

    def _order(self, seeds):
        usable = {n: one for n, one in self.experiments.items() if self.photos is not None or not one.photos}
        every = sorted({seed for one in usable.values() for seed in one.seeds}) if seeds is None else seeds
        late = [name for name in usable if name.partition("-")[2]]  # the curve comes last
        yield from ((seed, n) for seed in every for n, one in usable.items() if seed in one.seeds and n not in late)
        yield from ((seed, n) for n in late for seed in usable[n].seeds if seeds is None or seed in seeds)

    def _train(self, name, seed, missing, recipe):
        one, data = self.experiments[name], self.data(name)
        settings = study.settings_of(
            data, model=one.model, width=one.width, epochs=self.epochs(name), seed=seed, ratio=one.ratio,
            clusters=4, gamma=None, form="mse", last_layer="real", rule="paper", estimator="ste", smoothing=0.0,
            distillation=0.0, start=None, ten_crops=True, latent=True, variants=[], hybrids={}, **recipe,
        )  # fmt: skip
        own = study.Study(data, self.out / name / f"seed{seed}", settings, self.command, self.progress)
        with own.opened():
            for network in missing:
                self._train_one(own, name, seed, network)
            if name in MEASURED and str(seed) not in self.found["errors"].get(name, {}):
                own.train("fbin", "fbin")  # trained again only if its folder is gone
                self.found["errors"].setdefault(name, {})[str(seed)] = self._errors(own)
                self.save()

    def _train_one(self, own, name, seed, network):
        variant, options = self.experiments[name].networks[network]
        if network == "metric":
            own.train("fbin", "fbin")
            options = {"keep_real": own.choose()}
            self.found["kept"].setdefault(name, {})[str(seed)] = options["keep_real"]
            twin = self._twin(name, options["keep_real"])
            if twin and str(seed) in self.found["networks"][name].get(twin, {}):
                row = self.found["networks"][name][twin][str(seed)]
                self._add(name, seed, network, {**row, "same_as": twin, "train_seconds": 0.0})
                return
        if options.get("start"):
            own.train("fprec", "fprec")
            own.train("wbin", "wbin")
        own.train(network, variant, **options)
        kept = {k: v for k, v in own.report["variants"][network].items() if k != "history"}
        about = {"data": own.data.name, "classes": len(own.data.classes), "command": self.command,
                 "machine": study.machine(), "drawings": own.settings["drawings"]}  # fmt: skip
        about |= {key: own.settings[key] for key in ("epochs", "lr", "batch", "schedule")}
        self._add(name, seed, network, {**kept, **about})

    def _twin(self, name, keep_real):
        """The network of an experiment that keeps the same layers real and is trained alike."""
        for other, (variant, options) in self.experiments[name].networks.items():
            if variant == "hybrid" and options == {"keep_real": keep_real}:
                return other
        return None

    def _add(self, name, seed, network, row):
        self.found["networks"].setdefault(name, {}).setdefault(network, {})[str(seed)] = row
        self.save()

    def _errors(self, own):
        """Rows of layer, macs and E in its four forms, on the validation drawings, in the order of the definition."""
        model = models.load(own.out / "fbin.npz")[0]
        images, _ = own.data.validation
        by_form = {
            form: hybrid.binarization_errors(model, train.batches(images, 64, own.data.evaluation_batch), form)
            for form in hybrid.FORMS
        }
        macs = {row["layer"]: row["macs"] for row in cost.table(model)["layers"]}
        return [
            {"layer": layer, "macs": macs[layer], **{form: by_form[form][layer] for form in hybrid.FORMS}}
            for layer in by_form["mse"]
        ]


def load_summary(path: files.PathLike) -> dict[str, Any]:
    """Read a summary; a FileError if it is none."""
    found = files.read_json(path)
    parts = ("tuning", "networks", "errors", "kept")
    if (
        not isinstance(found, dict)
        or found.get("format") != FORMAT
        or not all(isinstance(found.get(p), dict) for p in parts)
    ):
        raise files.FileError(f"{path}: expected a summary of claims")
    return found


def run(
    load: Callable[..., Any], out: files.PathLike, *, photos: Callable[..., Any] | None = None, command: str = "",
    progress: bool = True, epochs: int | None = None, seeds: Sequence[int] | None = None,
    experiments: dict[str, Experiment] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Train all that the abstract's claims ask for; see the top of this file.

    Parameters
    ----------
    load, photos : function (classes, seed, size) -> data as `study.run` takes it
        Sketches, and photos; None leaves out the experiments on photos.
    out : path of a folder
        If there is a ``claims.json``, the run goes on from it.
    epochs : int, optional
        For all experiments, instead of their own.

    Returns
    -------
    dict
        tuning {experiment: rows}, networks {experiment: {network: {seed: row}}}, errors {experiment: {seed: rows}},
        kept {experiment: {seed: layers that the metric chose}}. ``out/claims.json`` holds the same.
    """
    return Claims(load, photos, out, command, progress, epochs, experiments).run(seeds)
