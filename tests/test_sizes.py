"""Sizes that no machine has: computed before memory is taken, and refused in one line; what needs none just works."""

import io
import json
import os
import struct
import subprocess
import sys
import threading
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from conftest import JIT
from PIL import Image

import data_tools
from data_tools import augment, dataset, doodles
from data_tools.__main__ import main as tools
from hbn_ref import cost, deploy, draw, engine, files, gallery, memory, models, train
from hbn_ref.__main__ import main

HYBRID = gallery.BUILT_IN / "hybrid.npz"

ROOT = Path(__file__).resolve().parents[1]
GIB = 2**30


@pytest.fixture
def sketchy(monkeypatch):
    """Doodles that are there at once: noise, a twentieth of them. What is asked for before is what it always is."""

    def images(name, count, rng, size):
        return rng.integers(0, 256, (max(3, count // 20), size, size, 1), dtype=np.uint8)

    monkeypatch.setattr(doodles, "images", images)


@pytest.fixture
def free(monkeypatch):
    """Set how many bytes there are."""
    return lambda count: monkeypatch.setattr(memory, "available", lambda: count)


def refused(capsys, line, *expected, run=main):
    """A command ends with 2, one line that says all of ``expected``, and took no memory worth speaking of."""
    tracemalloc.start()
    try:
        try:
            code = run(line.split() if isinstance(line, str) else line)
        except SystemExit as end:  # what the parser refuses
            code = end.code
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    out, err = capsys.readouterr()
    assert code == 2 and err.count("\n") == 1 and out == "", (code, err)
    assert all(word in err for word in expected), err
    assert peak < 2**27, peak


# -------------------------------------------------------------------------------------- how much there is


def test_what_linux_can_still_give(tmp_path):
    info = tmp_path / "meminfo"
    info.write_text("MemTotal:  24000 kB\nMemFree: 100 kB\nMemAvailable: 5000 kB\nSwapTotal: 9 kB\nSwapFree: 7 kB\n")
    assert memory._meminfo(info) == 5007 * 1024


GROUPS = {
    "version 2": ("0::/a/b\n", "", "memory.max", "memory.current", "inactive_file 300\nactive_file 100\nanon 5\n"),
    "version 1": (
        "4:cpu:/\n3:memory:/a/b\n0::/\n", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
        "inactive_file 1\nactive_file 1\ntotal_inactive_file 300\ntotal_active_file 100\n",
    ),
}  # fmt: skip


@pytest.mark.parametrize("version", GROUPS)
def test_what_a_container_leaves(tmp_path, version):
    text, top, limit, usage, stat = GROUPS[version]
    groups, mount = tmp_path / "cgroup", tmp_path / "mount"
    groups.write_text(text)
    assert memory._cgroup(groups, mount) is None
    for inner, most, taken in (("a/b", "max", 700), ("a", 2000, 900), ("", 9000, 8000)):
        folder = mount / top / inner
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in ((limit, most), (usage, taken), ("memory.stat", stat)):
            (folder / name).write_text(f"{content}".strip() + "\n")
    assert memory._cgroup(groups, mount) == 9000 - (8000 - 400)
    (mount / top / limit).write_text("max\n")
    assert memory._cgroup(groups, mount) == 2000 - (900 - 400)
    (mount / top / "a" / usage).write_text("5000\n")
    assert memory._cgroup(groups, mount) == 0


def test_where_linux_says_nothing_it_is_what_is_built_in(monkeypatch):
    def nothing():
        raise FileNotFoundError

    for name in ("_meminfo", "_cgroup", "_process"):
        monkeypatch.setattr(memory, name, nothing)
    monkeypatch.setattr(memory, "_physical", lambda: 7)
    assert memory.available() == 7
    monkeypatch.setattr(memory, "_physical", nothing)
    assert memory.available() == memory.ADDRESSES


def test_the_least_of_all_counts(monkeypatch):
    for name, count in (("_meminfo", 3), ("_cgroup", 2), ("_process", None)):
        monkeypatch.setattr(memory, name, lambda count=count: count)
    assert memory.available() == 2


@pytest.mark.skipif(sys.platform != "linux", reason="asks this system")
def test_a_limit_of_the_shell_counts():
    code = "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))\n"
    code += "import importlib.util as u; s = u.spec_from_file_location('m', 'hbn_ref/memory.py')\n"
    code += "m = u.module_from_spec(s); s.loader.exec_module(m); print(m.available())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 2**30 < int(done.stdout) < 2**32


def test_numbers_in_words(free):
    assert [memory.words(n) for n in (5, 2**10, 3 * 2**29, 2**80, 10**400)] == [
        "5 bytes", "1.0 KiB", "1.5 GiB", "1.0e+06 EiB", "8.7e+281 EiB",
    ]  # fmt: skip
    free(GIB)
    memory.ask("x: this", GIB)
    with pytest.raises(ValueError, match=r"^x: this would take 2\.0 GiB of memory, and 1\.0 GiB are free$"):
        memory.ask("x: this", 2 * GIB)
    free(0)
    memory.ask("x: a little", memory.LITTLE)


# --------------------------------------------------------------------------------------- what is needed

CASES = [("small", 64, 1, 8), ("resnet18", 64, 0.25, 4), ("squeezenet", 96, 0.5, 4)]


def peak_of(function):
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(not JIT, reason="whole networks as plain Python take minutes")
@pytest.mark.parametrize("network, size, width, batch", CASES)
@pytest.mark.parametrize("variant", ["fprec", "fbin"])
def test_what_a_batch_needs_is_close_to_what_it_takes_and_never_above(network, size, width, batch, variant):
    model = models.build(network, variant, num_classes=10, in_channels=1, input_size=size, width=width)
    x = np.random.default_rng(0).standard_normal((batch, size, size, 1)).astype(np.float32)
    labels, optimizer = np.arange(batch), train.Adam()
    packed = deploy.compile(model)
    train.train_step(model, x, labels, train.Adam())  # compiles
    model.forward(x), packed(x)

    def two_steps():  # gradients and running arrays of the first are there in the second
        train.train_step(model, x, labels, optimizer)
        train.train_step(model, x, labels, optimizer)

    for layer in model.walk():
        layer.grads = {}
    needed = models.bytes_needed(model, batch, slots=2)
    assert 0.5 * needed <= needed <= peak_of(two_steps) + x.nbytes <= 2 * needed
    needed = models.bytes_needed(model, batch)
    for forward in (lambda: model.forward(x), lambda: packed(x)):
        assert needed <= peak_of(forward) + x.nbytes
    assert peak_of(lambda: packed(x)) <= 2 * needed


def test_what_images_need_is_never_above_what_they_take(monkeypatch):
    asked = []
    monkeypatch.setattr(memory, "short", lambda count: asked.append(count))
    monkeypatch.setattr("data_tools.room.LITTLE", 0)
    found = []
    peak = peak_of(
        lambda: found.append(doodles.load(size=64, classes=("apple", "bus"), train=30, validation=5, test=60))
    )
    data = found[0]
    assert 0.5 * peak <= max(asked) <= peak
    rng = np.random.default_rng(0)
    images = data.test[0][:64]
    for prepare in (lambda x: data.training_batch(x, rng), data.evaluation_batch, data.ten_crops):
        prepare(images[:2])
        asked.clear()
        peak = peak_of(lambda prepare=prepare: prepare(images))
        assert 0.3 * peak <= max(asked) <= 1.01 * peak


@pytest.mark.parametrize("name", ["small-fprec", "small-wbin", "small-fbin", "resnet18-hybrid-v2", "googlenet-fbin"])
@pytest.mark.parametrize("last_layer", ["real", "binary"])
def test_bytes_of_a_file_are_known_without_a_network(name, last_layer):
    if name.endswith("fprec") and last_layer == "binary":
        pytest.skip("fprec has real weights everywhere")
    options = {"num_classes": 7, "in_channels": 1, "input_size": 64, "width": 0.1, "last_layer": last_layer}
    packed = deploy.compile(models.build(name, **options))
    assert deploy.file_bytes(models.build(name, **options, init=False)) == deploy.file_bytes(packed)


# -------------------------------------------------------------------------------------------- commands

SMALL = "--classes 2 --size 16 --width 0.1 --epochs 1 --out OUT"
HUGE = [
    ("study --size 100000", "size is 100000", "112500 x 112500", "TiB", "free"),
    (f"study {SMALL} --size 1000000000000", "size is 1000000000000", "EiB"),
    (f"study {SMALL} --width 1e9", "conv2", "width"),
    (f"study {SMALL} --width 1e300", "conv1", "width"),
    (f"study {SMALL} --width 5000", "network", "width 5000", "TiB"),
    (f"train {SMALL} --width 5000", "network", "width 5000", "TiB"),
    (f"train {SMALL} --size 100000", "size is 100000", "TiB"),
    (f"train {SMALL} --threads 1000000000", "threads", "1024"),
    (f"train {SMALL} --threads 1" + "0" * 30, "threads", "1024"),
    ("summary small-fbin --time --size 100000", "input_size 100000", "TiB"),
    ("summary small-fbin --time --channels 10000000000", "in_channels 1e+10", "TiB"),
    ("summary small-fbin --time --classes 1000000000000", "num_classes 1e+12", "TiB"),
    ("summary resnet18-fbin --time --size 1000000", "one image", "TiB"),
    ("summary small-fbin --size 1" + "0" * 30, "conv5", "input_size"),
    ("summary small-fbin --width 1e9", "conv2", "width"),
    ("summary small-fbin --classes 1" + "0" * 30, "classifier", "num_classes"),
    ("summary small --compare --width 1e9", "conv2", "width"),
]


@pytest.mark.parametrize("line", HUGE, ids=lambda case: case[0][:60])
def test_a_command_that_would_need_too_much_says_what_and_how_much(capsys, tmp_path, sketchy, line):
    refused(capsys, line[0].replace("OUT", str(tmp_path / "out")), *line[1:])


@pytest.mark.parametrize(
    "line",
    [
        "summary small-fbin --size 100000",
        "summary small-fprec --size 100000 --json",
        "summary small --compare --size 100000",
        "summary resnet18-fbin --size 1" + "0" * 30,
        "summary small-fbin --width 10000",
        "summary small-fbin --channels 1000000000 --classes 1000000000",
    ],
)
def test_counting_needs_no_memory(capsys, free, line):
    free(0)
    assert peak_of(lambda: main(line.split())) < 2**24
    out, err = capsys.readouterr()
    assert out and not err


def test_a_summary_counts_what_a_built_network_has(capsys):
    assert main("summary small-hybrid --keep-real conv5 --classes 15 --json".split()) == 0
    found = json.loads(capsys.readouterr().out)
    model = models.build("small", "hybrid", num_classes=15, in_channels=1, input_size=64, keep_real=["conv5"])
    assert found["total"] == cost.table(model)["total"] | {"file_bytes": deploy.file_bytes(deploy.compile(model))}


@pytest.mark.parametrize("option", ["--size 100000", "--size 1" + "0" * 30])
@pytest.mark.parametrize("command", ["info", "preview --out x.png"])
def test_data_tools_say_it_too(capsys, command, option):
    refused(capsys, f"{command} {option}", "size is 1", "images", "free", run=tools)


def test_a_sheet_too_large(capsys, sketchy, free, tmp_path):
    free(200 * 2**20)
    line = f"preview --classes 2 --size 400 --augmented --out {tmp_path}/x.png"  # 450 stored, a sheet of 5534 x 904
    assert tools(line.split()) == 0
    capsys.readouterr()
    data = doodles.load(size=64)
    free(1)
    object.__setattr__(data, "preprocessing", data.preprocessing | {"stored": 2000})
    from data_tools.__main__ import contact_sheet

    with pytest.raises(data_tools.DataError, match=r"a sheet of 12122 x 30030 pixels would take"):
        contact_sheet(data)


def test_training_and_evaluating_ask_for_the_batch(sketchy, free):
    data = data_tools.load("doodles", classes=3, size=64)
    model = models.build("small", "wbin", num_classes=3, in_channels=1, input_size=64)
    many = np.broadcast_to(data.evaluation_batch(data.test[0][:1]), (2000, 64, 64, 1))
    labels = np.zeros(2000, np.int64)
    free(GIB)
    for call in (
        lambda: train.fit(model, many, labels, epochs=1, batch=10**30, progress=False),
        lambda: train.evaluate(model, many, labels, batch=2000),
    ):
        with pytest.raises(ValueError, match=r"^batch: 2000 images at once would take .* GiB of memory, and 1\.0 GiB"):
            assert peak_of(call) < 2**27
    packed = deploy.compile(model)
    with pytest.raises(ValueError, match="^x: 2000 images at once would take"):
        packed(many)


def test_ten_crops_ask_for_all_of_them(free):
    about = dataset.make_preprocessing(600)
    images = np.broadcast_to(np.uint8(0), (64, 675, 675, 1))
    free(GIB)
    with pytest.raises(data_tools.DataError, match="a batch of 64 images of 600 x 600 pixels would take 1.3 GiB"):
        augment.ten_crops(images, about)
    free(memory.LITTLE)
    for prepare in (augment.evaluation_batch, lambda *x: augment.training_batch(x[0], np.random.default_rng(0), x[1])):
        with pytest.raises(data_tools.DataError, match="choose a smaller batch"):
            prepare(images, about)


# ------------------------------------------------------------------------------- what files claim to hold


def png(width, height):
    """A PNG of a few bytes that claims to be as large as wanted."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.skipif(not JIT, reason="whole networks as plain Python take minutes")
def test_an_image_that_claims_much(capsys, tmp_path, free):
    path = tmp_path / "claim.png"
    path.write_bytes(png(10**6, 10**6))
    refused(capsys, ["predict", str(HYBRID), str(path)], "claim.png", "1000000000000 pixels", "limit")
    path.write_bytes(png(9000, 9000))
    free(500 * 2**20)
    refused(capsys, ["predict", str(HYBRID), str(path)], "claim.png", "9000 x 9000", "618.0 MiB", "500.0 MiB are free")


def test_an_archive_of_more_images_than_fit(capsys, tmp_path, free):
    content = io.BytesIO()
    Image.new("RGB", (40, 40), "red").save(content, "png")
    for k in range(4):
        for name in "ab":
            path = tmp_path / "photos" / name / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.getvalue())
    free(GIB // 2)
    line = ["info", str(tmp_path / "photos"), "--size", "4000"]
    refused(capsys, line, "8 images of 4500 x 4500", "512.0 MiB are free", run=tools)


def test_a_model_file_that_claims_a_network_larger_than_itself(tmp_path, capsys):
    model = models.build("small", "fbin", num_classes=2, in_channels=1, input_size=16, width=0.1)
    path = tmp_path / "model.npz"
    about = dataset.make_preprocessing(16)
    models.save(model, path, classes=["a", "b"], preprocessing=about)
    header, arrays = files.read_arrays(path, models.FORMAT)
    for width in (50, 5000, 1e9):
        header["spec"]["width"] = width
        files.write_arrays(path, header, arrays)
        refused(capsys, ["evaluate", str(path)], "model.npz", "damaged")
        refused(capsys, ["summary", str(path)], "model.npz", "damaged")


def test_an_array_that_claims_more_than_its_file_has(tmp_path, capsys):
    import zipfile

    path = tmp_path / "claim.npz"
    head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }"
    head += b" " * (117 - len(head)) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("floats.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + b"1234")
    for command in ("draw --no-browser", "summary", "evaluate", "export"):
        line = [*command.split(), str(path)] + ["x"] * (command == "export")
        refused(capsys, line, "claim.npz", "damaged")


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="this system has no such devices")
@pytest.mark.parametrize("line", ["draw --no-browser X", "evaluate X", "predict X y.png", "export X y", "report X"])
def test_what_has_no_end_is_no_file(capsys, line):
    refused(capsys, line.replace("X", "/dev/zero"), "/dev/zero", "device")


@pytest.mark.skipif(not JIT, reason="whole networks as plain Python take minutes")
def test_predict_takes_many_images_in_parts(capsys, tmp_path, monkeypatch):
    sizes, inner = [], deploy.PackedNetwork.__call__

    def watched(packed, x, watch=None):
        sizes.append(len(x))
        return inner(packed, x, watch)

    monkeypatch.setattr(deploy.PackedNetwork, "__call__", watched)
    path = tmp_path / "white.png"
    Image.new("L", (80, 80), 255).save(path)
    assert main(["predict", str(HYBRID), *[str(path)] * 130]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 130 and len(set(lines)) == 1 and sizes == [64, 64, 2]


def test_the_draw_page_answers_after_a_drawing_that_was_too_much(free):
    networks, _ = gallery.load([HYBRID])
    preprocessing = networks[0].packed.preprocessing
    prepared = data_tools.prepare_strokes([np.array([[0.3, 0.3], [0.7, 0.7]])], preprocessing)
    about = preprocessing | {"stored": 45_000, "size": 40_000}
    free(GIB)
    with pytest.raises(data_tools.DataError, match="GiB are free"):
        data_tools.prepare_strokes([np.array([[0.3, 0.3]])], about)
    assert draw.predict(networks, lambda *_: prepared, [])["networks"]


def test_a_training_that_diverges_says_so(sketchy, tmp_path):
    data = data_tools.load("doodles", classes=2, size=16)
    model = models.build("small", "wbin", num_classes=2, in_channels=1, input_size=16, width=0.1)
    with pytest.raises(FloatingPointError, match="^epoch 1: val_loss is inf; .* choose a smaller lr$"):
        validate = {"validate": lambda model: {"val_loss": np.inf}, "progress": False}
        train.fit(model, *data.train, epochs=1, prepare=data.training_batch, checkpoint=tmp_path / "c.npz", **validate)
    assert not (tmp_path / "c.npz").exists()


def test_memory_that_is_short_all_the_same_ends_in_a_line(capsys, monkeypatch):
    def none(*_, **__):
        raise MemoryError("Unable to allocate 5 GiB")

    monkeypatch.setattr(models, "build", none)
    refused(capsys, "summary small-fbin", "out of memory", "5 GiB")
    monkeypatch.setattr(doodles, "images", none)
    refused(capsys, "info", "out of memory", "5 GiB", run=tools)


@pytest.mark.skipif(sys.platform != "linux", reason="asks this system")
def test_more_threads_than_a_system_has_are_refused_before_they_begin():
    before = threading.active_count()
    with pytest.raises(ValueError, match="threads"), engine.threads(10**9):
        pass
    assert threading.active_count() == before
