"""Talk to a peer: another library, in a process of its own, which answers a line of JSON with a line of JSON.

It has its own process, because two libraries with threads of their own slow each other down, up to ten times.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import processors
from .clock import repeated

TORCH = ("PyTorch nchw", "PyTorch nhwc")  # contenders' names: the peer, its memory layout


@dataclass(frozen=True)
class About:
    """What is asked of a peer: the names of its contenders, the tables it takes part in, what its convolution takes.

    A binary convolution takes real numbers and finds their signs itself, as ours does, and scales by alpha; any other
    takes signs, and its output is compared with the counts.
    """

    names: tuple[str, ...]
    tables: frozenset[str]
    binary: bool = False


PEERS = {  # by the name of their module, peer_NAME
    "torch": About(TORCH, frozenset({"convolutions", "training", "networks"})),
    "openvino": About(("OpenVINO nchw", "OpenVINO nhwc"), frozenset({"convolutions"}), binary=True),
}


class Absent(Exception):
    """The peer is not installed."""


class Peer:
    """The parent's end: ``Peer("torch", threads)`` starts ``python -m benchmarks.peer_torch``."""

    def __init__(self, name, threads):
        limits = {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "MKL", "OPENBLAS")}
        command = [sys.executable, "-m", f"benchmarks.peer_{name}", str(threads)]
        environment = {**os.environ, **limits, "OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            cwd=Path(__file__).parents[1],
        )  # fmt: skip
        self.folder = tempfile.TemporaryDirectory()
        hello = self._read()
        if "absent" in hello:
            self.close()
            raise Absent(hello["absent"])
        self.version, self.kernels = hello["version"], hello["kernels"]

    def _read(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(self.process.args)} ended with exit status {self.process.wait()}")
        return json.loads(line)

    def ask(self, task, arrays=None, **options):
        """Let the peer prepare a task; returns (its answer, a function (n) that has it run n times)."""
        path = Path(self.folder.name) / "task.npz"
        np.savez(path, **(arrays or {}))
        print(json.dumps({"task": task, "path": str(path), **options}), file=self.process.stdin, flush=True)
        key = self._read()["key"]
        with np.load(path) as file:
            out = file["out"]

        def timed(n):
            print(json.dumps({"time": key, "n": n}), file=self.process.stdin, flush=True)
            return self._read()["seconds"]

        return out, timed

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.folder.cleanup()


def convolutions(peers, real, signs, padding):
    """Have all peers prepare a convolution; yields (contender, whether it scales by alpha, its output, function (n)).

    ``peers`` is {name: Peer or None}; ``real`` and ``signs`` are {x, w, alpha}.
    """
    for peer, about in ((peer, PEERS[name]) for name, peer in peers.items() if peer):
        for name in about.names:
            arrays = real if about.binary else signs
            yield name, about.binary, *peer.ask("convolution", arrays, padding=padding, layout=name.split()[1])


def connect(name, threads):
    """Return a Peer, or None and say why there is none."""
    try:
        peer = Peer(name, threads)
    except Absent as reason:
        print(f"{name}: left out, {reason}; `make bench-peers` installs it", flush=True)
        return None
    if processors.obeys(peer.kernels):
        return peer
    print(f"{name}: left out, it was told {processors.held_back()} and uses {peer.kernels}", flush=True)
    peer.close()
    return None


def serve(version, kernels, tasks):
    """The peer's end: prepare tasks and time them until the parent hangs up.

    ``kernels`` names the peer's kernels, and so the processor that they are for. ``tasks`` maps a name to a function
    (arrays, **options) that returns (call, array of results); the call is timed.
    """
    print(json.dumps({"version": version, "kernels": kernels}), flush=True)
    prepared = []
    for line in sys.stdin:
        request = json.loads(line)
        if "time" in request:
            print(json.dumps({"seconds": repeated(prepared[request["time"]])(request["n"])}), flush=True)
            continue
        task, path = tasks[request.pop("task")], request.pop("path")
        with np.load(path) as file:
            arrays = dict(file)
        call, out = task(arrays, **request)
        np.savez(path, out=out)
        prepared.append(call)
        print(json.dumps({"key": len(prepared) - 1}), flush=True)


def absent(reason):
    """The peer's end if its library cannot be imported."""
    print(json.dumps({"absent": str(reason)}), flush=True)
