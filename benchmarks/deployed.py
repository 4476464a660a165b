"""Table 5: what a packed network takes on the disk and in memory.

Peak memory is that of a fresh process that loads the file and predicts one image; it includes Python and Numba. In the
first row such a process has a network of a few kilobytes.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from hbn_ref import cost, deploy, models

NETWORKS = {"sketchanet": (225, 1, 250), "alexnet": (224, 3, 1000)}  # input size, channels, classes
VARIANTS = ("fprec", "wbin", "hybrid1", "fbin")
NOTHING = [models.conv("conv1", 4, 3), models.conv("conv2", 4, "map"), models.classifier()]
PREDICT = """
import os, re, sys
import numpy as np
from hbn_ref import deploy, engine
engine.set_num_threads(1)
packed = deploy.load(sys.argv[1])
size, channels = packed.spec["input_size"], packed.spec["in_channels"]
packed(np.ones((1, size, size, channels), np.float32))
if os.path.exists("/proc/self/status"):  # here, as ru_maxrss would begin at the parent's
    print(1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read()).group(1)))
else:
    import resource
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


def _peak(path):
    done = subprocess.run([sys.executable, "-c", PREDICT, str(path)], capture_output=True, text=True, check=True)
    return int(done.stdout)


def _row(label, model, path):
    packed = deploy.compile(model)
    deploy.save(packed, path)
    table = cost.table(model)["total"]
    return {
        "network": label, "weight_bytes": table["weight_bytes"], "file_bytes": deploy.file_bytes(packed),
        "on_disk": path.stat().st_size, "peak": _peak(path),
    }  # fmt: skip


def measure():
    """Table 5 as plain numbers, in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "packed.npz"
        tiny = models.build(NOTHING, "fbin", num_classes=2, in_channels=1, input_size=8)
        rows = [_row("next to nothing", tiny, path)]
        for name, (size, channels, classes) in NETWORKS.items():
            shape = {"num_classes": classes, "in_channels": channels, "input_size": size}
            rows += [_row(f"{name} {v}", models.build(f"{name}-{v}", **shape), path) for v in VARIANTS]
    return {"rows": rows}


def lines(table):
    """Table 5 as (title, rows, remarks)."""
    rows = [
        {
            "network": row["network"], "paper's weight bytes": f"{row['weight_bytes']:,}",
            "file_bytes": f"{row['file_bytes']:,}", "on disk": f"{row['on_disk']:,}",
            "peak memory, MB": f"{row['peak'] / 1e6:.0f}",
        }
        for row in table["rows"]
    ]  # fmt: skip
    return "5. Packed networks: bytes of the file, peak memory of a process that predicts", rows, []
