"""``python -m benchmarks``: measure, print, save (JSON and picture)."""

import argparse
import os
import sys
from importlib.metadata import version

from threadpoolctl import threadpool_info

from hbn_ref import cost, engine, files, plots, simd, study

from . import convolutions, deployed, limit, networks, pictures, processors, threads, training
from .peers import PEERS, connect

TABLES = ("limit", "convolutions", "training", "networks", "deployed")
MORE = ("threads",)  # only on request: it needs two cores that nobody else uses


def _parser():
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Timings; see benchmarks/README.md.")
    parser.add_argument(
        "--only", nargs="+", choices=TABLES + MORE, default=TABLES, metavar="TABLE", help=", ".join(TABLES + MORE)
    )
    parser.add_argument("--cpu", choices=processors.HELD_BACK, help="hold all contenders back to this processor")
    parser.add_argument("--rounds", type=int, default=7, help="each contender is timed once per round (default 7)")
    parser.add_argument("--threads", type=int, default=1, help="for all contenders (default 1: two share a cache)")
    parser.add_argument("--out", default="runs/bench", help="folder for bench-KIND.json and .png (default runs/bench)")
    return parser


def _machine(peers):
    blas = [info for info in threadpool_info() if info["user_api"] == "blas"]
    return {
        **study.machine(), "register_bits": simd.register_bits(), "counting": simd.counting(),
        "held_back": processors.held_back(),
        "blas": " ".join(str(blas[0].get(key)) for key in ("internal_api", "version", "architecture")) if blas else "",
        "llvmlite": version("llvmlite"),
        **{name: f"{peer.version} ({peer.kernels})" for name, peer in peers.items() if peer},
    }  # fmt: skip


def _show(title, rows, remarks):
    """Print one table; rows may lack columns that others have."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    rows = [{column: str(row.get(column, "")) for column in columns} for row in rows]
    print("\n" + "\n".join([title, "", cost.format_table(rows, columns), *remarks]), flush=True)


def main(argv=None):
    options = _parser().parse_args(argv)
    if min(options.rounds, options.threads) < 1:
        sys.exit("--rounds and --threads: expected at least 1")
    status = processors.restarted(options.cpu, sys.argv[1:] if argv is None else argv)
    if status is not None:
        sys.exit(status)
    os.makedirs(options.out, exist_ok=True)
    peers = {
        name: connect(name, options.threads) if about.tables & {*options.only} else None
        for name, about in PEERS.items()
    }
    measures = {
        "limit": lambda: (limit, limit.measure(options.rounds)),
        "convolutions": lambda: (convolutions, convolutions.measure(options.rounds, options.threads, peers)),
        "training": lambda: (training, training.measure(options.rounds, peers["torch"])),
        "networks": lambda: (networks, networks.measure(options.rounds, peers["torch"])),
        "deployed": lambda: (deployed, deployed.measure()),
        "threads": lambda: (threads, threads.measure(options.rounds)),
    }
    path = os.path.join(options.out, f"bench-{processors.kind()}")
    try:
        with engine.threads(options.threads):
            report = {"machine": _machine(peers), "rounds": options.rounds}
            print(", ".join(f"{key} {value}" for key, value in report["machine"].items()), flush=True)
            for name in TABLES + MORE:
                if name in options.only:
                    module, report[name] = measures[name]()
                    _show(*module.lines(report[name]))
                    files.write_json(path + ".json", report)
    finally:
        for peer in peers.values():
            if peer:
                peer.close()
    if any(name in pictures.PANELS for name in report):
        plots.save(pictures.draw(report), path + ".png")
    print(f"\nsaved {path}.json and picture in {options.out}")


if __name__ == "__main__":
    main()
