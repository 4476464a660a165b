"""The whole of TU-Berlin: 250 classes, 20,000 drawings, in an archive of the official layout made on the spot."""

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_tools import strokes

CLASSES, DRAWINGS = 250, 80
LOAD = """
import resource, sys
import numpy as np
import data_tools
data = data_tools.load(sys.argv[1], progress=False)
merged = data.without_validation()
batch = merged.training_batch(merged.train[0][:64], np.random.default_rng(0))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
parts = data.train, data.validation, data.test, merged.train
print(len(data.classes), *(len(part[1]) for part in parts), round(peak))
"""


def write_archive(path):
    """The same 80 drawings in every class, 150 x 150, as in the reduced edition of the archive."""
    rng, drawings = np.random.default_rng(0), []
    for _ in range(DRAWINGS):
        lines = [np.cumsum(rng.normal(0, 0.05, (20, 2)), axis=0) + 0.5 for _ in range(6)]
        stream = io.BytesIO()
        Image.fromarray(255 - strokes.render(lines, 150, width=1.2)).save(stream, "png")
        drawings.append(stream.getvalue())
    with zipfile.ZipFile(path, "w") as archive:
        for k in range(CLASSES):
            for i, drawing in enumerate(drawings):
                archive.writestr(f"png/class {k:03}/{DRAWINGS * k + i + 1}.png", drawing)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="memory is asked of the resource module")
def test_twenty_thousand_drawings_load_within_a_gibibyte(tmp_path, monkeypatch):
    monkeypatch.setenv("HBN_CACHE", str(tmp_path / "cache"))
    write_archive(tmp_path / "sketches_png.zip")
    for _ in range(2):  # drawn, then from the cache
        done = subprocess.run(
            [sys.executable, "-c", LOAD, tmp_path / "sketches_png.zip"],
            capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1],
        )  # fmt: skip
        *counts, peak = map(int, done.stdout.split())
        assert counts == [250, 12000, 1500, 6500, 13500]
        assert peak < 1024, f"{peak} MiB"
        print(f"{peak} MiB")
