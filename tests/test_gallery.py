"""Top floor, gallery: which files are found, what they are called, what is left out, and what they cost."""

import numpy as np
import pytest

from hbn_ref import deploy, files, gallery, layers, models, study
from hbn_ref.__main__ import main

ABOUT = {"size": 8, "stored": 9, "channels": 1, "kind": "sketch", "mean": 0.0, "std": 1.0, "solid": [0.2, 0.5]}
TINY = [models.conv("a", 4, 3, padding=1), models.conv("b", 6, "map"), models.conv("c", 3, 1), models.classifier()]


def write(path, variant="fbin", classes=("x", "y"), about=ABOUT, **options):
    sizes = {"num_classes": len(classes), "in_channels": 1, "input_size": about["size"]}
    model = models.build(TINY, variant, **sizes, **options)
    deploy.save(deploy.compile(model, classes=classes, preprocessing=about), path)
    return model


@pytest.fixture
def folder(tmp_path):
    """What a study leaves behind."""
    for variant in models.VARIANTS:
        options = {"keep_real": ["c"]} if variant == "hybrid" else {}
        model = write(tmp_path / f"{variant}-packed.npz", variant, **options)
        models.save(model, tmp_path / f"{variant}.npz", classes=["x", "y"], preprocessing=ABOUT)
    (tmp_path / "report.json").write_text("{}")
    return tmp_path


def test_a_study_s_folder_from_the_most_operations_to_the_fewest(folder):
    shown, rest = gallery.load([folder])
    assert [one.name for one in shown] == ["FPrec", "WBin", "Hybrid", "FBin"] and rest == []
    assert [one.operations for one in shown] == sorted((one.operations for one in shown), reverse=True)
    assert [[row["inputs"] for row in one.layers] for one in shown] == [
        ["real"] * 4, ["real"] * 4, ["real", "binary", "real", "real"], ["real", "binary", "binary", "real"],
    ]  # fmt: skip
    assert [row["weights"] for row in shown[1].layers] == ["real", "binary", "binary", "real"]
    assert all([row["binarizable"] for row in one.layers] == [False, True, True, False] for one in shown)
    assert [one.bytes for one in shown] == [deploy.file_bytes(one.packed) for one in shown]


def test_names_tell_networks_apart_with_as_little_as_will_do(folder):
    other = folder / "other"
    other.mkdir()
    write(other / "fbin-packed.npz", last_layer="binary")
    write(other / "hybrid-late-packed.npz", "hybrid", keep_real=["b"])
    shown, rest = gallery.load([folder, other])
    assert rest == [] and {one.name for one in shown} == {
        "FPrec", "WBin", "hybrid", "hybrid-late", f"{folder.name}/fbin", "other/fbin",
    }  # fmt: skip


def test_a_folder_of_packed_files_only_and_one_file(folder, tmp_path):
    plain = tmp_path / "plain"
    plain.mkdir()
    write(plain / "first.npz")
    assert [one.name for one in gallery.load([plain])[0]] == ["FBin"]
    assert [one.name for one in gallery.load([folder / "hybrid-packed.npz"])[0]] == ["Hybrid"]


def test_what_does_not_fit_is_left_out_with_a_line(folder):
    (folder / "damaged-packed.npz").write_bytes((folder / "fbin-packed.npz").read_bytes()[:-40])
    write(folder / "other-packed.npz", classes=["x", "z"])
    write(folder / "nameless-packed.npz", about={"size": 8})
    shown, rest = gallery.load([folder, folder / "fbin-packed.npz"])
    assert len(shown) == 4 and len(rest) == 4
    for name, why in (("damaged", "damaged"), ("nameless", "preprocessing"), ("other", "classes"), ("fbin", "twice")):
        assert any(f"{name}-packed.npz" in line and why in line for line in rest), name


def test_no_more_than_fit(tmp_path):
    for k in range(gallery.LARGEST + 2):
        write(tmp_path / f"n{k}-packed.npz")
    shown, rest = gallery.load([tmp_path])
    assert len(shown) == gallery.LARGEST and len(rest) == 2 and "as many as fit" in rest[0]


def test_nothing_to_show_is_an_error(folder, tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(files.FileError, match="empty: no packed network"):
        gallery.load([empty])
    models_only = tmp_path / "models"
    models_only.mkdir()
    (models_only / "fbin.npz").write_bytes((folder / "fbin.npz").read_bytes())
    with pytest.raises(files.FileError, match="no packed network"):
        gallery.load([models_only])
    (models_only / "bad-packed.npz").write_bytes(b"PK")
    with pytest.raises(files.FileError, match="bad-packed.npz: damaged"):
        gallery.load([models_only])
    with pytest.raises(files.FileError, match="no such file"):
        gallery.load([folder / "fbin-packed.npz", folder / "missing.npz"])
    for command, *paths in (("draw", empty), ("draw", folder, folder / "fbin.npz"), ("predict", empty, "x")):
        assert main([command, *map(str, paths)]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_draw_needs_networks_of_sketches(tmp_path, capsys):
    write(tmp_path / "photos.npz", about=ABOUT | {"kind": "photo"})
    assert main(["draw", str(tmp_path / "photos.npz"), "--no-browser"]) == 2
    assert "trained on sketches" in capsys.readouterr().err


def test_usual_inputs_are_what_a_batchnorm_would_measure(folder):
    shown, _ = gallery.load([folder])
    x = np.random.default_rng(0).random((20, 8, 8, 1), np.float32)
    assert [sorted(gallery.usual_inputs(one, x)) for one in shown] == [["b", "c"], ["b", "c"], ["c"], []]
    hybrid = models.load(folder / "hybrid.npz")[0]
    seen = {}
    with layers.watching(hybrid, lambda layer, x: seen.update({layer.name: x.copy()}), layers.BinaryWeightConv):
        hybrid.forward(x)
    mean, deviation = gallery.usual_inputs(shown[2], x)["c"]
    norm = layers.BatchNorm("n", seen["c"].shape[3])
    normed = norm.forward(seen["c"], training=True)
    np.testing.assert_allclose((seen["c"] - mean) / deviation, normed, atol=1e-5)


def noise(count):
    return np.random.default_rng(count).integers(0, 256, (count, 8, 8, 1), np.uint8), np.arange(count) % 2


def test_a_study_s_networks_doubt_as_validation_drawings_say(tmp_path):
    class Data:
        name, classes, preprocessing = "noise", ("x", "y"), ABOUT
        train, validation, test = (noise(count) for count in (16, 40, 4))

        def training_batch(self, images, rng):
            return self.evaluation_batch(images)

        def evaluation_batch(self, images):
            return images.astype(np.float32) / 255

    data = Data()
    study.run(data, tmp_path, model=TINY, epochs=1, batch=8, variants=["fbin"], progress=False)
    packed = deploy.load(tmp_path / "fbin-packed.npz")
    largest = packed(data.evaluation_batch(data.validation[0])).max(axis=1)
    assert packed.none_of_these == pytest.approx(np.quantile(largest, deploy.DOUBTED))
