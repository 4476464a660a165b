"""Plants faults in the package, one at a time, and shows that the tests of that chapter fail for each.

    python tests/mutations.py                    # all of them, about 15 minutes; writes results/mutations.json
    python tests/mutations.py conv layers        # some chapters, printed only

The project is copied to a temporary folder, so nothing here is touched. A fault that no test of its chapter notices is
a gap in the tests: the script names it and ends with the exit code 1.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIMIT = 600  # seconds for the tests of a chapter; a fault that makes them hang is noticed, too


@dataclass(frozen=True)
class Fault:
    """In ``file`` of the package, ``old`` (which stands there once) becomes ``new``; ``what`` says it in words."""

    chapter: str
    file: str
    what: str
    old: str
    new: str


FAULTS = [
    # ------------------------------------------------------------------------------------------------ bits
    Fault("bits", "kernels", "sign(0) is -1",
          'signs = _mask(lambda b, v: b.fcmp_ordered(">=", v', 'signs = _mask(lambda b, v: b.fcmp_ordered(">", v'),
    Fault("bits", "kernels", "tail bits are 1",
          "rest, nan = channels // 64, np.full(64, -1, x.dtype)", "rest, nan = channels // 64, np.ones(64, x.dtype)"),
    Fault("bits", "kernels", "a NaN in the tail is not noticed",
          "words[r, whole] = signs(rest, 0)\n            nan |= nans(rest, 0)", "words[r, whole] = signs(rest, 0)"),
    Fault("bits", "kernels", "unpacking reads the bits from the other end",
          "bit = (words[r, c >> 6] >> np.uint64(c & 63)) & np.uint64(1)\n            x[r, c] = 2",
          "bit = (words[r, c >> 6] >> np.uint64(63 - (c & 63))) & np.uint64(1)\n            x[r, c] = 2"),
    Fault("bits", "bits", "the dot product takes whole words for n",
          "np.full((1, columns), n, np.int32)", "np.full((1, columns), 64 * width, np.int32)"),
    Fault("bits", "bits", "one word too many at multiples of 64",
          "return -(-channels // 64)", "return channels // 64 + 1"),
    Fault("bits", "bits", "bits beyond the last channel are accepted",
          "if channels % 64 and np.any(", "if channels % 64 > 64 and np.any("),
    Fault("bits", "kernels", "words beyond a multiple of four are left out of the count",
          "for k in range(words % 4):", "for k in range(words % 4, 0):"),
    Fault("bits", "bits", "rows beyond 128 begin again",
          "kernels.spare(np.arange(rows) * width)", "kernels.spare(np.arange(rows) % 129 * width)"),
    # -------------------------------------------------------------------------------------------- binarize
    Fault("binarize", "binarize", "alpha is the largest weight, not the mean",
          "flat.mean(axis=0, dtype=np.float64)", "flat.max(axis=0)"),
    Fault("binarize", "binarize", "the estimator's window includes 1",
          "return dout * (np.abs(x) < 1)", "return dout * (np.abs(x) <= 1)"),
    Fault("binarize", "binarize", "ApproxSign at half its height",
          "np.maximum(2 - 2 * np.abs(x), 0)", "np.maximum(1 - np.abs(x), 0)"),
    Fault("binarize", "binarize", "the exact rule has the wrong sign in its second term",
          "scale * window * g + signs", "scale * window * g - signs"),
    Fault("binarize", "binarize", "the paper's rule without its window",
          "((1 / n + scale * window) *", "((1 / n + scale) *"),
    Fault("binarize", "binarize", "1 + 1/C_in for 1 - 1/C_in", "(1 - 1 / channels)", "(1 + 1 / channels)"),
    # ------------------------------------------------------------------------------------------------ conv
    Fault("conv", "conv/geometry", "stride axes swapped",
          "np.arange(0, height - kh + 1, sh), np.arange(0, width - kw + 1, sw)",
          "np.arange(0, height - kh + 1, sw), np.arange(0, width - kw + 1, sh)"),
    Fault("conv", "conv/geometry", "padding axes swapped",
          "crop(x, (-ph, height + ph), (-pw, width + pw), fill)",
          "_window(x, (-pw, height + pw), (-ph, width + ph), fill)"),
    Fault("conv", "conv/geometry", "the last tap at the border is off by one",
          "np.clip(length - start, 0, k)", "np.clip(length - start - 1, 0, k)"),
    Fault("conv", "conv/packed", "padded taps are not given back (zero padding acts as -1)",
          "            if self.pad_value == 0:", "            if self.pad_value == 2:"),
    Fault("conv", "conv/xnor", "+1 padding is stored as -1",
          "if packed.pad_value == 1 else np.uint64(0)", "if packed.pad_value == 2 else np.uint64(0)"),
    Fault("conv", "conv/real", "the gradient of the input does not turn the kernel round",
          "taps[::-1, ::-1].swapaxes(2, 3)", "taps.swapaxes(2, 3)"),
    Fault("conv", "conv/xnor", "the gradient of the input passes the sign unhindered",
          "    engine.run(kernels.clear_rows, len(rows), kept, rows, work=rows.size)\n", ""),
    Fault("conv", "conv/xnor", "the gradient of the weights sees zeros where the padding is +1",
          "padded(signs, padding, packed.pad_value)", "padded(signs, padding)"),
    Fault("conv", "conv/xnor", "the gradient of the input lacks alpha",
          "w = packed.binary(dtype) if scale else", "w = packed.signs() if scale else"),
    Fault("conv", "kernels", "each difference is counted once, not twice",
          "(total[j] - 2 * count[j])", "(total[j] - count[j])"),
    Fault("conv", "kernels", "the float product loses its first odd term",
          "for k in range(begin, quads):", "for k in range(begin + 1, quads):"),
    Fault("conv", "kernels", "a NaN in the weights is not noticed", "                nan |= bad != 0\n", ""),
    Fault("conv", "conv/geometry", "images beyond 65,535 words begin again",
          "base = ((image + i[:, None]) * width + j) * channels",
          "base = ((image + i[:, None]) * width + j) * channels % 65_536"),
    Fault("conv", "conv/packed", "counts of more than 65,535 products lose their 17th bit",
          "np.full((len(a0), filters), kh * kw * channels)",
          "np.full((len(a0), filters), kh * kw * channels % 65_536)"),
    Fault("conv", "conv/geometry", "taps beyond the eighth row are the eighth",
          "a, b, c = np.arange(kh), np.arange(kw)", "a, b, c = np.minimum(np.arange(kh), 7), np.arange(kw)"),
    Fault("conv", "conv/geometry", "strides beyond 3 are 3",
          "(n, height, width, channels), (kh, kw), (sh, sw) = shape, kernel, stride",
          "(n, height, width, channels), (kh, kw), (sh, sw) = shape, kernel, [min(s, 3) for s in stride]"),
    # ---------------------------------------------------------------------------------------------- layers
    Fault("layers", "layers/passes", "BatchNorm's gradient has a wrong sign",
          "c = -a * dbeta / len(rows) - b * mean", "c = -a * dbeta / len(rows) + b * mean"),
    Fault("layers", "layers/passes", "BatchNorm's gradient takes the statistics for constants",
          "b = -a * inv * dgamma / len(rows)", "b = 0 * dgamma"),
    Fault("layers", "layers/objects", "the running variance is the biased one",
          "unbiased = cache[4] * (count / max(count - 1, 1))", "unbiased = cache[4]"),
    Fault("layers", "layers/objects", "the running statistics keep what they should forget",
          "+= self.momentum * (value", "+= (1 - self.momentum) * (value"),
    Fault("layers", "layers/objects", "evaluation uses the stale mean of the start",
          'gamma, beta, self.buffers["mean"], self.buffers["var"]), None',
          'gamma, beta, 0 * self.buffers["mean"], self.buffers["var"]), None'),
    Fault("layers", "kernels", "ReLU passes gradients at 0",
          'positive = _mask(lambda b, v: b.fcmp_unordered(">", v',
          'positive = _mask(lambda b, v: b.fcmp_unordered(">=", v'),
    Fault("layers", "kernels", "of equals the last wins the pool", "larger = (v > b) |", "larger = (v >= b) |"),
    Fault("layers", "layers/passes", "dropout does not scale up what it leaves",
          ".astype(x.dtype) / x.dtype.type(1 - rate)", ".astype(x.dtype)"),
    Fault("layers", "layers/passes", "mean pooling shares out too much",
          "share = dout / dout.dtype.type(window[0] * window[1])", "share = dout / dout.dtype.type(window[0])"),
    Fault("layers", "layers/containers", "the shortcut passes no gradient back",
          "self.body.backward(dout.copy()) + self.shortcut.backward(dout)",
          "self.body.backward(dout.copy()) + 0 * self.shortcut.backward(dout)"),
    Fault("layers", "layers/objects", "the bias gets no gradient",
          'self.grads["b"] = dout.sum(axis=(0, 1, 2))', 'self.grads["b"] = 0 * dout.sum(axis=(0, 1, 2))'),
    # ---------------------------------------------------------------------------------------------- models
    Fault("models", "models/building", "the first layer is binarized, too",
          'return chosen and self.numbers[name] > 1', "return chosen"),
    Fault("models", "models/building", "a hybrid binarizes what it should keep",
          'name not in self.spec["keep_real"])', 'name in self.spec["keep_real"])'),
    Fault("models", "models/definitions", "shortcuts are numbered as they come",
          "key=lambda found: found[1])", "key=lambda found: 0)"),
    Fault("models", "models/building", "all layers begin with the same random numbers",
          'default_rng([self.spec["seed"], self.numbers[item["name"]]])', 'default_rng([self.spec["seed"]])'),
    Fault("models", "models/building", "the binary classifier stays real",
          'if self.spec["last_layer"] == "binary":', 'if self.spec["last_layer"] == "never":'),
    # ----------------------------------------------------------------------------------------------- train
    Fault("train", "train/steps", "the clamp is forgotten", "            np.clip(w, -1, 1, out=w)\n", ""),
    Fault("train", "train/steps", "centred over the filters, not the input channels",
          "w -= w.mean(axis=2, keepdims=True)", "w -= w.mean(axis=3, keepdims=True)"),
    Fault("train", "train/optimizers", "Adam does not correct its first mean",
          "(self.lr / (1 - b1**t)) * m / root", "self.lr * m / root"),
    Fault("train", "train/optimizers", "Nesterov's momentum is the plain one",
          "(g + self.momentum * velocity if self.nesterov else velocity)", "velocity"),
    Fault("train", "train/loss", "the loss is not divided by the batch",
          "(np.exp(log_p) - target) / logits.dtype.type(len(labels))", "(np.exp(log_p) - target)"),
    Fault("train", "train/evaluation", "top-5 counts six",
          "hits5 += int((rank < 5).sum())", "hits5 += int((rank < 6).sum())"),
    Fault("train", "train/loop", "a checkpoint's epoch is repeated",
          "for epoch in range(len(history), epochs):", "for epoch in range(max(len(history) - 1, 0), epochs):"),
    Fault("train", "train/loop", "the order of the drawings is the same in every epoch",
          "rng = np.random.default_rng([seed, epoch])", "rng = np.random.default_rng([seed, 0])"),
    # ------------------------------------------------------------------------------------------------ cost
    Fault("cost", "cost", "MACs of the input's size, not the output's",
          "macs = int(w.size) * output[0] * output[1]", "macs = int(w.size) * shape[0] * shape[1]"),
    Fault("cost", "cost", "a binary MAC costs 58 real ones", "macs_real + macs_binary / factor",
          "macs_real + macs_binary * factor"),
    Fault("cost", "cost", "the scales of binary filters weigh nothing",
          "(-(-w.size // 8) + 4 * w.shape[3])", "-(-w.size // 8)"),
    # ---------------------------------------------------------------------------------------------- hybrid
    Fault("hybrid", "hybrid", "expensive layers score higher",
          'real_number("gamma", gamma) / share', 'real_number("gamma", gamma) * share'),
    Fault("hybrid", "hybrid", "the lowest cluster is taken first",
          "for cluster in reversed(kmeans_1d(scores, count)):", "for cluster in kmeans_1d(scores, count):"),
    Fault("hybrid", "hybrid", "the ratio itself is too much", "len(cluster) > allowed:", "len(cluster) >= allowed:"),
    Fault("hybrid", "hybrid", "the error of negative values is wrong", "distance = 1 - np.abs(x)", "distance = 1 - x"),
    Fault("hybrid", "hybrid", "a short last batch weighs as much as the others",
          "_sums(x) * len(x)", "_sums(x) * 4"),
    # ---------------------------------------------------------------------------------------------- deploy
    Fault("deploy", "kernels", "a threshold is exceeded, not reached",
          'builder.icmp_signed(">=", values, least)', 'builder.icmp_signed(">", values, least)'),
    Fault("deploy", "deploy/thresholds", "negative scales do not flip", "flip = scale < 0\n", "flip = scale < -1e30\n"),
    Fault("deploy", "deploy/thresholds", "the ReLU before a threshold is ignored",
          "v = np.maximum(v, np.float32(0)) if relu else v", "v = v if relu else v"),
    Fault("deploy", "deploy/thresholds", "no threshold lies above the largest count",
          "np.full(len(alpha), n + 1)  #", "np.full(len(alpha), n)  #"),
    Fault("deploy", "deploy/compiling", "pooling before a threshold is left out",
          "                made += map(_pool, pools)\n", ""),
    # ------------------------------------------------------------------------------------------------ simd
    Fault("simd", "simd", "all pixels of a block are taken for the border pixel that the first is",
          "kind_type, kind, builder.add(m, _I64(r))", "kind_type, kind, builder.add(m, _I64(0))"),
    Fault("simd", "simd", "sums longer than a chunk begin again", "if k0 or not fresh:", "if not fresh:"),
]  # fmt: skip


def plant(fault, package):
    """Write the fault into the copy ``package``; return a function that takes it out again, times of files included."""
    path = package / f"{fault.file}.py"
    text, times = path.read_text("utf-8"), path.stat()
    if text.count(fault.old) != 1:
        raise SystemExit(
            f"{fault.what}: expected its text once in {fault.file}.py, found it {text.count(fault.old)} times"
        )
    path.write_text(text.replace(fault.old, fault.new), "utf-8")

    def mend():
        path.write_text(text, "utf-8")
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # kernels compiled before stay good

    return mend


def first_failure(folder, chapter):
    """Run the tests of a chapter; (name of the first that fails or None, seconds)."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow", "-p", "no:cacheprovider"]
    started = time.perf_counter()
    try:
        done = subprocess.run(
            [*command, f"tests/test_{chapter}.py"], cwd=folder, capture_output=True, text=True, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        return "(the tests hang)", time.perf_counter() - started
    seconds = time.perf_counter() - started
    if done.returncode == 0:
        return None, seconds
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    if not failed:
        return f"exit code {done.returncode}", seconds
    name = failed[0].removeprefix("FAILED ").removeprefix("ERROR ").split(" - ")[0]
    return name.split("::", 1)[-1], seconds


def main(chapters):
    """Plant every fault of the chapters named (all by default); return the exit code."""
    faults = [fault for fault in FAULTS if not chapters or fault.chapter in chapters]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("hbn_ref", "data_tools", "tests"):
            shutil.copytree(ROOT / name, Path(folder, name), ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        for chapter in dict.fromkeys(fault.chapter for fault in faults):  # that they pass without a fault
            failed, seconds = first_failure(folder, chapter)
            print(f"{chapter}: {'the tests pass' if failed is None else failed}, {seconds:.0f} s", flush=True)
            if failed is not None:
                return 2
        for fault in faults:
            mend = plant(fault, Path(folder, "hbn_ref"))
            failed, seconds = first_failure(folder, fault.chapter)
            mend()
            print(f"{fault.chapter}: {fault.what}: {failed or 'NOT NOTICED'} ({seconds:.0f} s)", flush=True)
            rows.append(
                {"chapter": fault.chapter, "file": f"{fault.file}.py", "fault": fault.what, "noticed_by": failed}
            )
    missed = [row for row in rows if row["noticed_by"] is None]
    if not chapters:
        (ROOT / "results" / "mutations.json").write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    print(f"{len(rows) - len(missed)} of {len(rows)} faults noticed")
    return 1 if missed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("chapters", nargs="*", metavar="CHAPTER", help="only these, printed; default: all, written")
    asked = parser.parse_args().chapters
    if unknown := set(asked) - {fault.chapter for fault in FAULTS}:
        parser.error(f"no such chapter: {', '.join(sorted(unknown))}")
    raise SystemExit(main(asked))
