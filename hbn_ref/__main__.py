"""The command line, `python -m hbn_ref COMMAND`. Parses and calls; no logic lives here."""

import argparse
import io
import json
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from . import binarize, cost, deploy, engine, files, gallery, hybrid, models, presets, study, train

BATCH = 64  # images that predict has in memory at a time


def _names(text):
    """A list with commas between; whole numbers become layer numbers."""
    return [int(part) if part.isdigit() else part for part in _words(text)]


def _words(text):
    return [part.strip() for part in text.split(",") if part.strip()]


def _whole_numbers(text):
    return [int(part) for part in _words(text)]


def _classes(text):
    return int(text) if text.isdigit() else _words(text)


def _out_file(text):
    return Path(text if text.endswith(".npz") else text + ".npz")


def _load_data(args):
    import data_tools  # here, so that `summary` works with nothing but NumPy and Numba

    return data_tools.load(args.data, classes=args.classes, size=args.size, seed=args.seed)


def _preset(args):
    import data_tools

    from . import plots

    given = [name for name, value in vars(args).items() if value != args.defaults.get(name)]
    known = {"preset", "data", "photos", "out", "threads", "epochs", "argv", "name", "run", "defaults"}
    other = sorted(set(given) - known)
    if other:
        raise ValueError(f"--preset: has its own settings, and goes without --{other[0].replace('_', '-')}")
    preset = presets.PRESETS[args.preset]
    if args.photos and not preset.photos:
        raise ValueError(f"--photos: {args.preset} takes none")

    def load(**options):
        return data_tools.load(args.data, **options)

    def load_photos(**options):
        return data_tools.load(args.photos, **options)

    changed: dict[str, Any] = {} if args.epochs is None else {"epochs": args.epochs}
    if args.photos:
        changed["photos"] = load_photos
    args.out.mkdir(parents=True, exist_ok=True)
    with files.alone(args.out):
        found = preset.run(load, args.out, command=shlex.join(["python", "-m", "hbn_ref", *args.argv]), **changed)
        if hasattr(plots, args.preset):
            plots.save(getattr(plots, args.preset)(found), args.out / f"{args.preset}.png")
    print(preset.table(found))


def _study(args):
    from . import plots

    if args.preset:
        _preset(args)
        return
    if args.photos:
        raise ValueError("--photos: goes with --preset claims; one set of images is --data")
    data = _load_data(args)
    options = "model epochs batch seed ratio clusters gamma form lr last_layer width estimator".split()
    chosen = {name: getattr(args, name) for name in options if name != "epochs" or args.epochs is not None}
    command = shlex.join(["python", "-m", "hbn_ref", *args.argv])
    started = time.perf_counter()

    def picture(report):
        plots.save(plots.study(report), args.out / "study.png")

    report = study.run(data, args.out, variants=_words(args.variants), command=command, finish=picture, **chosen)
    print(study.table(report))
    seconds = time.perf_counter() - started
    print(f"\n{seconds:.0f} s; in {args.out}: report.json, study.png and the trained networks")


def _train(args):
    args.out.parent.mkdir(parents=True, exist_ok=True)
    data = _load_data(args)
    about = data.preprocessing
    model = models.build(
        args.model, args.variant, num_classes=len(data.classes), in_channels=about["channels"],
        input_size=about["size"], keep_real=args.keep_real, last_layer=args.last_layer, seed=args.seed,
        estimator=args.estimator, width=args.width,
    )  # fmt: skip
    if model.spec["variant"] == "hybrid" and not model.spec["keep_real"]:
        choosable = ", ".join(models.binarizable(model.spec["definition"]))
        raise ValueError(f"--keep-real: a hybrid keeps layers real; without any it is FBin; choose among {choosable}")
    checkpoint = args.out.with_suffix(".checkpoint.npz")
    with files.alone(args.out):
        train.fit(
            model, *data.train, epochs=args.epochs, batch=args.batch, lr=args.lr, optimizer=args.optimizer,
            schedule=args.schedule, weight_decay=args.weight_decay, seed=args.seed, prepare=data.training_batch,
            checkpoint=checkpoint,
            validate=lambda m: {"val_top1": train.evaluate(m, *data.validation, prepare=data.evaluation_batch)["top1"]},
        )  # fmt: skip
        models.save(model, args.out, classes=data.classes, preprocessing=about)
        checkpoint.unlink()
    found = train.evaluate(model, *data.validation, prepare=data.evaluation_batch)
    print(f"validation top-1 {found['top1']:.1f} %, top-5 {found['top5']:.1f} %; wrote {args.out}")


def _load_network(path):
    """Return a network from a model file or a packed file, its classes, and its preprocessing."""
    if files.format_of(path) == deploy.FORMAT:
        packed = deploy.load(path)
        if not packed.classes or "size" not in packed.preprocessing:
            raise files.FileError(f"{path}: packed without the classes and the preprocessing that find its drawings")
        return packed, packed.classes, packed.preprocessing
    return models.load(path)


def _evaluate(args):
    model, args.classes, preprocessing = _load_network(args.model)
    trained_with = preprocessing.get("split_seed", model.spec["seed"])
    args.size, args.seed = preprocessing["size"], trained_with if args.seed is None else args.seed
    data = _load_data(args)
    models.check_preprocessing(preprocessing, data.preprocessing)
    prepare = data.ten_crops if args.crops == 10 else data.evaluation_batch
    found = train.evaluate(model, *getattr(data, args.split), prepare=prepare)
    print(
        f"{args.split}: top-1 {found['top1']:.2f} %, top-5 {found['top5']:.2f} %, loss {found['loss']:.4f},"
        f" {found['count']} drawings, {args.crops} crop{'s' * (args.crops > 1)}"
    )
    if args.unknown:
        _evaluate_doubt(model, getattr(data, args.split), data, args.unknown)


def _evaluate_doubt(packed, known, data, source):
    """Print how often a packed network is wrong about whether it knows what it sees, in both directions."""
    import data_tools

    if getattr(packed, "none_of_these", None) is None:
        raise ValueError("--unknown: expected a packed network with a doubt, of a study or of export --data")
    images, kinds = data_tools.unknown(source, data.classes, data.preprocessing)

    def logits_of(images):
        return np.concatenate([packed(x) for x in train.batches(images, 100, data.evaluation_batch)])

    logits, strange = logits_of(known[0]), logits_of(images)
    doubted, right = logits.max(axis=1) < packed.none_of_these, logits.argmax(axis=1) == known[1]
    claimed = strange.max(axis=1) >= packed.none_of_these
    print(
        f'said to be "{deploy.NONE}": {100 * doubted.mean():.1f} % of these {len(doubted)} drawings,'
        f" {100 * doubted[right].mean():.1f} % of those named right without it;"
        f" {100 * (1 - claimed.mean()):.1f} % of {len(claimed)} drawings of {kinds} kinds that it does not know"
    )


def _summary_model(args):
    if Path(args.model).suffix == ".npz":
        return models.load(args.model)[0]
    network, variant, keep_real = models.parse(args.model)
    return models.build(
        network, variant, num_classes=args.classes, in_channels=args.channels, input_size=args.size,
        keep_real=args.keep_real or keep_real, last_layer=args.last_layer, width=args.width, init=args.time,
    )  # fmt: skip


def _summary(args):
    factor = cost.measured_factor() if args.factor == "measured" else args.factor
    if args.compare and (args.time or args.keep_real or args.model.endswith(".npz")):
        raise ValueError("--compare: takes the name of a network, and goes without --time and --keep-real")
    if args.compare:
        shape = {"num_classes": args.classes, "in_channels": args.channels, "input_size": args.size}
        network = args.model.partition("-")[0]
        found = cost.compare(network, **shape, factor=factor, last_layer=args.last_layer, width=args.width)
        print(json.dumps(found, indent=1) if args.json else cost.compare_text(found, factor))
        return
    model = _summary_model(args)
    timing = {"timing": cost.measured_layers(model, factor)} if args.time else {}
    file_bytes = deploy.file_bytes(model)
    if args.json:
        table = cost.table(model, factor) | timing
        table["total"]["file_bytes"] = file_bytes
        print(json.dumps(table, indent=1))
        return
    print(cost.summary(model, factor))
    print(f"packed file (export): {file_bytes:,} bytes and a header of a few kB")
    if timing:
        print("\n" + cost.timing_text(timing["timing"]))


def _export(args):
    model, classes, preprocessing = models.load(args.model)
    packed = deploy.compile(model, classes=classes, preprocessing=preprocessing)
    if args.data is not None:
        args.classes, args.size = classes, preprocessing["size"]
        args.seed = preprocessing.get("split_seed", model.spec["seed"])
        data = _load_data(args)
        models.check_preprocessing(preprocessing, data.preprocessing)
        packed = deploy.with_doubt(packed, train.batches(data.validation[0], 100, data.evaluation_batch))
    deploy.save(packed, args.out)
    before, after = (path.stat().st_size for path in (args.model, args.out))
    print(f"{args.model}: {before:,} bytes; {args.out}: {after:,} bytes, {before / after:.1f} times smaller")


def _is_network(path):
    return path.suffix == ".npz" or path.exists() and not path.is_file()  # devices, too, to be refused later


def _predict(args):
    import data_tools

    paths, images = ([path for path in args.paths if _is_network(path) == wanted] for wanted in (True, False))
    if not images:
        raise ValueError("IMAGE: expected at least one image after the networks")
    networks, rest = gallery.load(paths)
    for line in rest:
        print(line, file=sys.stderr)
    found = {}
    for shown in networks:
        rows = []
        for start in range(0, len(images), BATCH):
            some = images[start : start + BATCH]
            rows += deploy.best(shown.packed, data_tools.prepare_files(some, shown.packed.preprocessing))
        found[shown.name] = dict(zip(map(str, images), rows, strict=True))
    if args.json:
        plain = {
            name: {path: [{"class": one, "probability": share} for one, share in row] for path, row in rows.items()}
            for name, rows in found.items()
        }
        one_file = len(networks) == 1 and len(paths) == 1
        print(json.dumps(next(iter(plain.values())) if one_file else plain, indent=1))
        return
    for path in map(str, images):
        for name, by_path in found.items():
            shares = ", ".join(f"{one} {100 * share:.1f} %" for one, share in by_path[path])
            print(f"{path}: {f'{name}: ' * (len(networks) > 1)}{shares}")


def _draw(args):
    import data_tools

    from . import draw

    networks, rest = gallery.load(args.paths)
    for line in rest:
        print(line, flush=True)
    shown = [
        replace(one, usual=gallery.usual_inputs(one, data_tools.doodles_for(one.packed.preprocessing)))
        for one in networks
    ]
    draw.serve(shown, data_tools.prepare_strokes, port=args.port, open_browser=not args.no_browser, rest=rest)


def _cases(args):
    from .testing import export

    cases = export.select(args.network, args.pad_values, args.level, args.max_cases)
    size = export.write_cases(args.out, cases, word=args.word, bit_order=args.bit_order)
    print(f"{len(cases)} cases, {size:,} bytes, in {args.out}: index.json says what is what, compare.c reads it")


def _report(args):
    args.reports = [path / "report.json" if path.is_dir() else path for path in args.reports]
    if len(args.reports) == 1 and (text := presets.table_of(args.reports[0])):
        print(text)
        return
    reports = [study.load_report(path) for path in args.reports]
    print(study.table(reports[0]) if len(reports) == 1 else study.over_seeds_table(study.over_seeds(reports)))


def _factor(text):
    try:
        return text if text == "measured" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number or measured, got {text!r}") from None


def _add_data(parser, default="doodles"):
    parser.add_argument(
        "--data", default=default, help="doodles, tuberlin, an archive or a folder (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the split, the weights and the training")
    parser.add_argument("--threads", type=int, help="kernel threads (default: all cores)")


def _add_training(parser, epochs, last=("real", "binary")):
    _add_data(parser)
    parser.add_argument("--classes", type=_classes, help="how many, or names with commas between (default: all)")
    parser.add_argument("--size", type=int, default=64, help="side of the images that the network sees")
    parser.add_argument("--width", type=float, default=1, help="scales the number of channels (%(default)s)")
    parser.add_argument("--epochs", type=int, default=epochs, help=f"of training ({epochs or study.EPOCHS})")
    parser.add_argument("--batch", type=int, default=64, help="images per step (%(default)s)")
    parser.add_argument("--lr", type=float, default=study.LEARNING_RATE, help="learning rate (%(default)s)")
    both = "; both: train the hybrid with each" if "both" in last else ""
    parser.add_argument("--last-layer", choices=last, default="real", help=f"weights of the classifier{both}")
    parser.add_argument("--estimator", choices=tuple(binarize.ESTIMATORS), default="ste")


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, and leaves the usage to --help."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {message}; see --help\n")


def _add_study(commands):
    p = commands.add_parser("study", help="train the variants, choose layers, train the hybrid, compare")
    _add_training(p, epochs=None, last=("real", "binary", "both"))  # None: what `study.run` or the preset takes
    p.add_argument("--model", default="small", choices=tuple(models.NETWORKS))
    p.add_argument("--variants", default=",".join(models.VARIANTS), help="with commas between (default: %(default)s)")
    p.add_argument("--ratio", type=float, default=study.RATIO, help="share of layers that may stay real (%(default)s)")
    p.add_argument("--clusters", type=int, default=study.CLUSTERS, help="clusters of scores, at first (%(default)s)")
    p.add_argument(
        "--gamma", type=float, help="weight of 1 / cost in the score (default: both terms have equal geometric means)"
    )
    p.add_argument("--form", choices=hybrid.FORMS, default="mse", help="of the binarization error")
    about = "folder; an interrupted study goes on there (default: %(default)s)"
    p.add_argument("--out", type=Path, default=Path("runs/study"), help=about)
    p.add_argument(
        "--preset",
        choices=tuple(presets.PRESETS),
        help="a published study; of its settings only --epochs can be changed",
    )
    p.add_argument("--photos", help="an archive or a folder of photos, for --preset claims")
    p.set_defaults(run=_study)
    p.set_defaults(defaults={action.dest: action.default for action in p._actions})


def _add_train(commands):
    p = commands.add_parser("train", help="train one network")
    _add_training(p, epochs=study.EPOCHS)
    p.add_argument("--model", default="small", help="a network, or NETWORK-VARIANT such as sketchanet-hybrid1")
    p.add_argument("--variant", choices=models.VARIANTS, help="(default: fprec, or what --model says)")
    names = "of a hybrid: names or numbers, commas between"
    p.add_argument("--keep-real", type=_names, default=(), metavar="LAYER,LAYER", help=names)
    p.add_argument("--optimizer", choices=tuple(train.OPTIMIZERS), default="adam")
    p.add_argument("--schedule", choices=tuple(train.SCHEDULES), default="cosine")
    p.add_argument("--weight-decay", type=float, default=0.0, help="of real weights")
    p.add_argument("--out", type=_out_file, default=Path("runs/model.npz"), help="model file (default: %(default)s)")
    p.set_defaults(run=_train)


def _add_evaluate(commands):
    p = commands.add_parser("evaluate", help="accuracy of a trained network")
    p.add_argument("model", type=Path, metavar="MODEL", help="a model file or a packed one (.npz)")
    _add_data(p)
    p.set_defaults(seed=None)  # None: the one of its training; another would put training drawings into the test
    p.add_argument("--split", choices=("train", "validation", "test"), default="test")
    p.add_argument("--crops", type=int, choices=(1, 10), default=1)
    p.add_argument(
        "--unknown", metavar="SOURCE",
        help="how often does it claim to know these? strangers, or the other classes of a source as of --data",
    )  # fmt: skip
    p.set_defaults(run=_evaluate)


def _add_summary(commands):
    p = commands.add_parser("summary", help="cost of a network, layer by layer")
    p.add_argument(
        "model", metavar="MODEL", help="a model file (.npz), or NETWORK-VARIANT: small-fbin, sketchanet-hybrid1, ..."
    )
    p.add_argument("--size", type=int, default=64, help="side of the images (%(default)s)")
    p.add_argument("--channels", type=int, default=1, help="of the images (%(default)s)")
    p.add_argument("--classes", type=int, default=250, help="(%(default)s)")
    p.add_argument("--keep-real", type=_names, default=(), help="layers of a hybrid, names or numbers, commas between")
    p.add_argument("--last-layer", choices=("real", "binary"), default="real", help="weights of the classifier")
    p.add_argument("--width", type=float, default=1, help="scales the number of channels (%(default)s)")
    p.add_argument(
        "--factor",
        type=_factor,
        default=cost.FACTOR,
        help="how many binary MACs count as one real MAC: a number, or measured (%(default)s)",
    )
    p.add_argument("--compare", action="store_true", help="all variants of the network, beside the published figures")
    p.add_argument("--time", action="store_true", help="measure each layer, beside what counting predicts")
    p.add_argument("--json", action="store_true", help="print the table as JSON")
    p.set_defaults(run=_summary, threads=None)


def _add_export(commands):
    p = commands.add_parser("export", help="pack a trained network into a small file")
    p.add_argument("model", type=Path, metavar="MODEL", help="a model file (.npz) of train or study")
    p.add_argument("out", type=_out_file, metavar="OUT", help="the packed file (.npz)")
    p.add_argument(
        "--data", help='the data of its training: from the validation drawings it learns to say "none of these"'
    )
    p.set_defaults(run=_export, threads=None)


def _add_predict(commands):
    p = commands.add_parser("predict", help="the five most probable classes of images, by packed networks")
    p.add_argument(
        "paths", type=Path, nargs="+", metavar="PATH",
        help="packed files (.npz) or folders with some in them, such as a study's (default: those of doodles); and "
        "images: PNG, JPEG, ... or SVG, black on white",
    )  # fmt: skip
    p.add_argument("--json", action="store_true", help="print JSON")
    p.set_defaults(run=_predict, threads=None)


def _add_draw(commands):
    p = commands.add_parser("draw", help="draw on a page, on this computer only, and see what networks make of it")
    p.add_argument(
        "paths", type=Path, nargs="*", metavar="PATH",
        help="packed files, or folders with some in them, such as a study's (default: three networks of doodles)",
    )  # fmt: skip
    p.add_argument("--port", type=int, default=8000, help="(%(default)s; 0 takes a free one)")
    p.add_argument("--no-browser", action="store_true", help="only print the address")
    p.set_defaults(run=_draw, threads=None)


def _add_report(commands):
    p = commands.add_parser("report", help="print a study's table again, or the mean over studies of several seeds")
    about = "a study's folder or its report.json, or PRESET.json"
    p.add_argument("reports", type=Path, nargs="+", metavar="REPORT", help=about)
    p.set_defaults(run=_report, threads=None)


def _add_cases(commands):
    p = commands.add_parser("cases", help="write test cases of binary convolutions to files, for kernels of your own")
    p.add_argument("out", type=Path, metavar="DIR", help="a new or empty folder")
    p.add_argument("--network", help="the layers of a network instead of the table: resnet18, ...")
    p.add_argument("--level", choices=("quick", "default", "full"), default="quick", help="of the table (%(default)s)")
    p.add_argument("--max-cases", type=int, help="at most so many, spread over all kinds")
    p.add_argument("--pad-values", type=_whole_numbers, default=(0, 1, -1), help="with commas between (0,1,-1)")
    p.add_argument("--word", type=int, choices=(8, 16, 32, 64), default=64, help="bits per word (%(default)s)")
    p.add_argument("--bit-order", choices=("lsb", "msb"), default="lsb", help="where channel 0 is (%(default)s)")
    p.set_defaults(run=_cases, threads=None)


def parser() -> argparse.ArgumentParser:
    """Return the argument parser of all commands."""
    top = _Parser(prog="python -m hbn_ref", description="Hybrid Binary Networks in NumPy and Numba.")
    commands = top.add_subparsers(dest="name", required=True, metavar="COMMAND")
    for add in (
        _add_study, _add_train, _add_evaluate, _add_summary, _add_report, _add_export, _add_predict, _add_draw,
        _add_cases,
    ):  # fmt: skip
        add(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code: 0, 2 for bad input, 130 for Ctrl-C."""
    args = parser().parse_args(argv)
    args.argv = sys.argv[1:] if argv is None else list(argv)
    try:
        engine.get_kernel()  # a wrong HBN_KERNEL fails now, and not as a damaged file
        if args.threads is not None:
            engine.set_num_threads(args.threads)
        args.run(args)
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"hbn_ref {args.name}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except MemoryError as error:
        print(f"hbn_ref {args.name}: out of memory ({error}); choose a smaller size or batch", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(f"hbn_ref {args.name}: needs {error.name}; install hbn-ref[study] or requirements.txt", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        again = "; the same command goes on after the last whole epoch" if args.name in ("study", "train") else ""
        print(f"\nhbn_ref {args.name}: interrupted{again}", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    if isinstance(sys.stdout, io.TextIOWrapper):  # some consoles have something else
        sys.stdout.reconfigure(errors="backslashreplace")  # a file may have a name that the terminal cannot write
    raise SystemExit(main())
