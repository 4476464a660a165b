"""Chapters 5 and 7 for the paper's networks: parameters, published costs, presets, gradients, learning, memory."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import JIT, random_arrays, thin

from hbn_ref import __main__ as command_line
from hbn_ref import conv as convolution
from hbn_ref import cost, layers, models, reference, train
from hbn_ref.testing import check_vjp

NETWORKS = [name for name in models.NETWORKS if name != "small"]


def counted(name, channels, size, classes, **options):
    """The cost table of NETWORK-VARIANT, without making weights."""
    network, variant, keep_real = models.parse(name)
    model = models.build(
        network, variant, num_classes=classes, in_channels=channels, input_size=size, keep_real=keep_real, init=False,
        **options,
    )  # fmt: skip
    return cost.table(model)


# ------------------------------------------------------------------------------------------- parameters


def bn_conv(kernel, c_in, c_out):
    """Weights of a convolution and its BatchNorm's gamma and beta."""
    return kernel * kernel * c_in * c_out + 2 * c_out


def resnet18_by_hand(channels, classes):
    total = bn_conv(7, channels, 64) + 4 * bn_conv(3, 64, 64)
    for c in (128, 256, 512):
        total += bn_conv(3, c // 2, c) + 3 * bn_conv(3, c, c) + bn_conv(1, c // 2, c)
    return total + 512 * classes + classes


def fire_by_hand(c_in, squeeze, expand):
    return bn_conv(1, c_in, squeeze) + bn_conv(1, squeeze, expand) + bn_conv(3, squeeze, expand)


def squeezenet_by_hand(channels, classes):
    fires = [(96, 16, 64), (128, 16, 64), (128, 32, 128), (256, 32, 128), (256, 48, 192), (384, 48, 192)]
    fires += [(384, 64, 256), (512, 64, 256)]
    return bn_conv(7, channels, 96) + sum(fire_by_hand(*fire) for fire in fires) + 512 * classes + classes


def inception_by_hand(c_in, c1, r3, c3, r5, c5, pool):
    total = bn_conv(1, c_in, c1) + bn_conv(1, c_in, r3) + bn_conv(3, r3, c3)
    return total + bn_conv(1, c_in, r5) + bn_conv(5, r5, c5) + bn_conv(1, c_in, pool)


def googlenet_by_hand(channels, classes):
    blocks = [
        (192, 64, 96, 128, 16, 32, 32), (256, 128, 128, 192, 32, 96, 64), (480, 192, 96, 208, 16, 48, 64),
        (512, 160, 112, 224, 24, 64, 64), (512, 128, 128, 256, 24, 64, 64), (512, 112, 144, 288, 32, 64, 64),
        (528, 256, 160, 320, 32, 128, 128), (832, 256, 160, 320, 32, 128, 128), (832, 384, 192, 384, 48, 128, 128),
    ]  # fmt: skip
    stem = bn_conv(7, channels, 64) + bn_conv(1, 64, 64) + bn_conv(3, 64, 192)
    return stem + sum(inception_by_hand(*block) for block in blocks) + 1024 * classes + classes


def chain_by_hand(channels, classes, convs):
    total, c_in = 0, channels
    for kernel, c_out in convs:
        total, c_in = total + bn_conv(kernel, c_in, c_out), c_out
    return total + c_in * classes + classes


BY_HAND = {
    ("resnet18", 3, 224, 1000): 11_689_512,  # what torchvision's has, too
    ("resnet18", 1, 225, 250): resnet18_by_hand(1, 250),
    ("squeezenet", 3, 224, 1000): squeezenet_by_hand(3, 1000),
    ("googlenet", 3, 224, 1000): googlenet_by_hand(3, 1000),
    ("sketchanet", 1, 225, 250): chain_by_hand(
        1, 250, [(15, 64), (5, 128), (3, 256), (3, 256), (3, 256), (7, 512), (1, 512)]
    ),
    ("alexnet", 3, 224, 1000): chain_by_hand(
        3, 1000, [(11, 96), (5, 256), (3, 384), (3, 384), (3, 256), (6, 4096), (1, 4096)]
    ),
}


def test_resnet18_by_hand_is_the_well_known_number():
    assert resnet18_by_hand(3, 1000) == 11_689_512


@pytest.mark.parametrize("network, channels, size, classes", BY_HAND)
def test_parameters_are_those_counted_by_hand(network, channels, size, classes):
    found = counted(f"{network}-fprec", channels, size, classes)["total"]["params"]
    assert found == BY_HAND[network, channels, size, classes]


# ------------------------------------------------------------------------------------- published costs

# Equivalent operations in millions, as published; the input they were counted on is in cost.PUBLISHED.
ROWS = {
    "alexnet-wbin": 1135, "alexnet-hybrid1": 180, "alexnet-hybrid2": 143, "alexnet-fbin": 127,
    "sketchanet-wbin": 608, "sketchanet-hybrid1": 89, "sketchanet-hybrid2": 82, "sketchanet-fbin": 82,
    "resnet18-wbin": 2049, "resnet18-hybrid-v2": 942, "resnet18-hybrid-v1": 450, "resnet18-fbin": 153,
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_published_operations_come_out_within_a_million(name):
    counted_on, published = cost.PUBLISHED[name.partition("-")[0]]
    channels, size, classes = counted_on
    assert published[name.partition("-")[2]] == ROWS[name]
    assert abs(counted(name, channels, size, classes)["total"]["equivalent_ops"] / 1e6 - ROWS[name]) <= 1


def test_compare_puts_the_published_figures_beside_ours_only_on_their_input():
    rows = cost.compare("sketchanet", num_classes=250, in_channels=1, input_size=225)
    assert [row["model"].partition("-")[2] for row in rows] == ["fprec", "wbin", "hybrid1", "hybrid2", "fbin"]
    assert [row["published"] for row in rows] == [None, 608, 89, 82, 82]
    assert all(
        row["published"] is None for row in cost.compare("sketchanet", num_classes=10, in_channels=1, input_size=225)
    )
    assert rows[-1]["smaller"] > 20
    binary = cost.compare("sketchanet", num_classes=250, in_channels=1, input_size=225, last_layer="binary")
    assert binary[-1]["weight_bytes"] < rows[-1]["weight_bytes"] and binary[0] == rows[0]


# -------------------------------------------------------------------------------- presets and numbers


@pytest.mark.parametrize("preset", models.HYBRIDS)
def test_authors_hybrids_keep_the_inputs_they_name_and_no_others(preset):
    network, variant, keep_real = models.parse(preset)
    model = models.build(
        network, variant, num_classes=5, in_channels=1, input_size=225, keep_real=keep_real, width=0.1, init=False
    )  # fmt: skip
    kept = [layer.name for layer in model.walk() if type(layer) is layers.BinaryWeightConv]
    assert sorted(kept) == sorted(models.resolve_keep_real(model.spec["definition"], keep_real))
    assert len(kept) == len(keep_real)


def test_squeezenet_v1_keeps_twelve_of_the_twenty_four_less_fire9_and_squeezes():
    kept = {version: set(models.HYBRIDS[f"squeezenet-hybrid-{version}"]) for version in ("v1", "v2", "v3")}
    assert kept["v1"] < kept["v2"] < kept["v3"]
    assert kept["v2"] - kept["v1"] == {"fire9.squeeze", "fire9.expand3x3"}
    assert kept["v3"] - kept["v2"] == {f"fire{i}.squeeze" for i in range(3, 9)}


def test_resnet18_numbers_count_the_3x3_convolutions_and_then_the_projections():
    numbers = models.layer_numbers(models.RESNET18)
    assert [numbers[f"conv{i}"] for i in range(1, 19)] == list(range(1, 19))
    assert [numbers[f"shortcut{i}"] for i in (6, 10, 14)] == [19, 20, 21]


@pytest.mark.parametrize("name", ["sketchanet-hybrid9", "lenet-fbin", "small", "small-xnor", ""])
def test_unknown_names_list_what_there_is(name):
    with pytest.raises(ValueError, match="model: no .*there are .*small"):
        models.parse(name)


def test_a_path_that_is_no_model_file_is_not_taken_for_a_name():
    with pytest.raises(ValueError, match="'runs/net.pth' is no model file; .*npz"):
        models.parse("runs/net.pth")


@pytest.mark.parametrize("network, size", [("sketchanet", 64), ("alexnet", 32), ("squeezenet", 12), ("sketchanet", 40)])
def test_sizes_too_small_say_which_layer_fails(network, size):
    with pytest.raises(ValueError, match=rf"^(conv|pool)\S*: .*input_size {size} is too small"):
        models.build(network, "fbin", num_classes=5, in_channels=1, input_size=size, init=False)


@pytest.mark.parametrize("size, map_size", [(225, 7), (112, 2), (160, 4)])
def test_whole_map_kernels_follow_the_input(size, map_size):
    rows = {row["layer"]: row for row in counted("sketchanet-fbin", 1, size, 10)["layers"]}
    assert rows["conv6"]["kernel"] == [map_size, map_size] and rows["conv6"]["output"][:2] == [1, 1]


# ------------------------------------------------------------------------------------ blocks' gradients

# Odd channels and odd kernels: with pad value 1 no sum of signs is 0, where ReLU has a kink.
BLOCKS = {
    "basic": [
        models.conv("conv1", 5, 3, padding=1),
        *models.definitions._basic_block(2, 5),
        *models.definitions._basic_block(4, 7, stride=2),
    ],
    "fire": [models.conv("conv1", 5, 3, padding=1), *models.definitions._fire("fire2", 3, 5)],
    "inception": [models.conv("conv1", 5, 3, padding=1), models.definitions._inception("3a", 3, 3, 5, 3, 5, 3)],
}


def block_model(block, variant):
    """A tiny network around one block, in float64, BatchNorms away from 1 and 0; and its smooth parameters."""
    definition = [*BLOCKS[block], models.average(), models.classifier()]
    model = models.build(definition, variant, num_classes=3, in_channels=2, input_size=6, pad_value=1)
    rng = np.random.default_rng(0)
    for _, layer, key in model.parameters():
        layer.params[key] = layer.params[key].astype(np.float64) + (key != "w") * 0.3 * rng.standard_normal()
    return model, [p for p in model.parameters() if p[2] != "w" or p[1].weights == "real"]


def set_parameters(smooth, values):
    for (_, layer, key), value in zip(smooth, values, strict=True):
        layer.params[key] = value


@pytest.mark.parametrize("variant", ["fprec", "wbin"])
@pytest.mark.parametrize("block", BLOCKS)
def test_blocks_agree_with_central_differences(block, variant):
    """All learned arrays for fprec; for wbin what is smooth: everything but the latent weights of binary layers."""
    model, smooth = block_model(block, variant)
    x = random_arrays(6, (3, 6, 6, 2))

    def forward(*values):
        set_parameters(smooth, values)
        return model.forward(x, training=True), None

    def backward(dout, cache):
        model.backward(dout)
        return tuple(layer.grads[key] for _, layer, key in smooth)

    check_vjp(forward, backward, [layer.params[key] for _, layer, key in smooth], eps=1e-7, rtol=1e-6)


@pytest.mark.parametrize("block", BLOCKS)
def test_blocks_with_signs_agree_with_central_differences_of_their_surrogate(block, monkeypatch):
    """Each sign(x) becomes sign(x0) + clip(x) - clip(x0): equal at x0, with the derivative that the STE stands for."""
    model, smooth = block_model(block, "fbin")
    x, start = random_arrays(6, (3, 6, 6, 2)), [layer.params[key] for _, layer, key in smooth]
    at = {}
    with layers.watching(model, lambda layer, value: at.update({layer.name: value.copy()}), layers.XnorConv):
        model.forward(x, training=True)
    real = layers.XnorConv._convolve

    def surrogate(layer, value, training):
        base = at[layer.name]
        soft = np.where(base >= 0, 1.0, -1.0) + np.clip(value, -1, 1) - np.clip(base, -1, 1)
        (ph, pw), w = layer.padding, reference.binary_weight(layer.params["w"])
        soft = np.pad(soft, ((0, 0), (ph, ph), (pw, pw), (0, 0)), constant_values=1)
        return convolution.conv2d_forward(soft, w, stride=layer.stride)

    def forward(*values):
        set_parameters(smooth, values)
        monkeypatch.setattr(layers.XnorConv, "_convolve", surrogate)
        return model.forward(x, training=True), None

    def backward(dout, cache):
        set_parameters(smooth, start)
        monkeypatch.setattr(layers.XnorConv, "_convolve", real)
        model.forward(x, training=True)
        model.backward(dout)
        return tuple(layer.grads[key] for _, layer, key in smooth)

    assert len(at) > 2
    check_vjp(forward, backward, start, eps=1e-7, rtol=1e-6)


# ---------------------------------------------------------------------------------------- they all learn

LEARNING = {  # input size, width, learning rate
    "small": (32, 0.5, 0.003), "sketchanet": (112, 0.25, 0.003), "alexnet": (67, 0.125, 0.003),
    "resnet18": (32, 0.25, 0.003), "squeezenet": (48, 0.5, 0.01), "googlenet": (64, 0.5, 0.005),
}  # fmt: skip


def binarizable(network):
    """The layers whose inputs a hybrid may keep real."""
    options = {"num_classes": 5, "in_channels": 1, "input_size": 225, "init": False}
    model = models.build(network, "fbin", **options)
    return [layer.name for layer, _, _ in cost.visit(model) if layer.inputs == "binary"]


@pytest.mark.slow
@pytest.mark.skipif(not JIT, reason="200 steps in plain Python take hours")
@pytest.mark.parametrize("variant", models.VARIANTS)
@pytest.mark.parametrize("network", LEARNING)
def test_every_network_learns_32_drawings_by_heart(network, variant):
    from data_tools import doodles

    size, width, lr = LEARNING[network]
    data = doodles.load(size=size, train=3, validation=1, test=1)
    x, labels = data.evaluation_batch(data.train[0][:32]), data.train[1][:32]
    keep_real = binarizable(network)[-2:] if variant == "hybrid" else ()
    model = models.build(
        network, variant, num_classes=15, in_channels=1, input_size=size, width=width, keep_real=keep_real
    )  # fmt: skip
    adam, losses = train.Adam(lr), []
    for step in range(200):
        adam.lr = lr * train.cosine(step, 200)
        losses.append(train.train_step(model, x, labels, adam)[0])
        if step > 10 and np.mean(losses[-5:]) < 0.2 * losses[0]:
            return
    pytest.fail(f"the loss went from {losses[0]:.2f} to {np.mean(losses[-5:]):.2f} only")


@pytest.mark.parametrize("network", thin(NETWORKS, 2))
def test_training_reaches_the_weights_of_every_layer(network):
    size = {"sketchanet": 112, "alexnet": 67, "googlenet": 48}.get(network, 32)
    model = models.build(network, "fbin", num_classes=4, in_channels=3, input_size=size, width=0.05)
    before = {name: value.copy() for name, value in model.state().items()}
    x, labels = random_arrays(0, (4, size, size, 3), dtype=np.float32), np.arange(4)
    for _ in range(2):
        loss, logits = train.train_step(model, x, labels, train.Adam(0.01))
    assert np.isfinite(loss) and logits.shape == (4, 4)
    weights = [name for name, _, key in model.parameters() if key == "w"]
    assert [name for name in weights if np.array_equal(before[name], model.state()[name])] == []


# ------------------------------------------------------------------------------------ memory at full size

MEASURE = """
import resource, numpy as np
from hbn_ref import models, train
model = models.build({network!r}, {variant!r}, num_classes=250, in_channels=3, input_size={size})
x = np.random.default_rng(0).standard_normal(({batch}, {size}, {size}, 3)).astype(np.float32)
if {training}:
    train.train_step(model, x, np.arange({batch}), train.Adam())
else:
    model.forward(x)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def gibibytes(**case):
    command = [sys.executable, "-c", MEASURE.format(**case)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    return int(done.stdout) / 2**20


@pytest.mark.slow
@pytest.mark.skipif(not JIT or sys.platform != "linux", reason="full size needs the JIT; ru_maxrss is in kB on Linux")
@pytest.mark.parametrize("variant", ["fprec", "fbin"])
@pytest.mark.parametrize("network", models.NETWORKS)
def test_a_forward_pass_of_32_images_fits_in_1_gib(network, variant):
    size = 224 if network == "alexnet" else 225
    assert gibibytes(network=network, variant=variant, size=size, batch=32, training=False) < 1


@pytest.mark.slow
@pytest.mark.skipif(not JIT or sys.platform != "linux", reason="full size needs the JIT; ru_maxrss is in kB on Linux")
@pytest.mark.parametrize("variant", ["fprec", "fbin"])
def test_a_training_step_of_alexnet_with_8_images_fits_in_2_gib(variant):
    assert gibibytes(network="alexnet", variant=variant, size=224, batch=8, training=True) < 2


# -------------------------------------------------------------------------------------- the command line


def run(capsys, *words):
    try:
        code = command_line.main([str(word) for word in words])
    except SystemExit as leaving:
        code = leaving.code
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_summary_of_a_preset_prints_every_layer_and_the_equivalent_operations(capsys):
    code, out, _ = run(capsys, "summary", "sketchanet-hybrid1", "--size", 225, "--channels", 1, "--classes", 250)
    assert code == 0 and "real inputs: conv6, conv7" in out and "88,516,672 equivalent operations" in out
    assert all(f"conv{i}" in out for i in range(1, 9))


def test_summary_as_json_is_plain_numbers(capsys):
    code, out, _ = run(capsys, "summary", "resnet18-hybrid-v1", "--size", 225, "--channels", 3, "--json")
    found = json.loads(out)
    assert code == 0 and len(found["layers"]) == 21
    assert {"macs_real", "macs_binary", "equivalent_ops", "params", "weight_bytes"} <= found["total"].keys()
    assert found["total"]["macs_real"] == sum(row["macs_real"] for row in found["layers"])


def test_factor_can_be_chosen(capsys):
    found = {}
    for factor in ("58", "64"):
        _, out, _ = run(capsys, "summary", "small-fbin", "--json", "--factor", factor)
        found[factor] = json.loads(out)["total"]
    total = found["64"]
    assert total["equivalent_ops"] == total["macs_real"] + total["macs_binary"] / 64 < found["58"]["equivalent_ops"]


@pytest.mark.skipif(not JIT, reason="measures the compiled kernels")
def test_measured_factor_and_times_are_positive_and_complete(capsys):
    code, out, _ = run(capsys, "summary", "small-fbin", "--json", "--factor", "measured", "--time")
    found = json.loads(out)
    assert code == 0 and found["factor"] > 0
    assert [row["layer"] for row in found["timing"]] == [row["layer"] for row in found["layers"]]
    for key in ("share", "predicted_share"):
        assert sum(row[key] for row in found["timing"]) == pytest.approx(1)
    assert all(row["ms"] > 0 for row in found["timing"])


@pytest.mark.skipif(not JIT, reason="measures the compiled kernels")
def test_times_are_a_table_of_their_own_below_the_summary(capsys):
    code, out, _ = run(capsys, "summary", "small-fbin", "--size", 32, "--width", 0.1, "--time")
    head, *rows = out.partition("a few kB\n\n")[2].splitlines()
    assert code == 0 and head.split() == ["number", "layer", "inputs", "weights", "ms", "share", "predicted_share"]
    assert [row.split()[1] for row in rows if "%" in row] == [f"conv{i}" for i in range(1, 7)] + ["classifier"]


def test_compare_prints_a_row_a_variant(capsys):
    code, out, _ = run(capsys, "summary", "alexnet", "--compare", "--size", 224, "--channels", 3, "--classes", 1000)
    assert code == 0 and all(f"alexnet-{v}" in out for v in ("fprec", "wbin", "hybrid1", "hybrid2", "fbin"))
    assert all(str(figure) in out for figure in (1135, 180, 143, 127))


def test_compare_says_which_input_the_published_figures_are_for(capsys):
    code, out, _ = run(capsys, "summary", "squeezenet", "--compare")
    channels, size, classes = cost.PUBLISHED["squeezenet"][0]
    assert code == 0 and f"add --channels {channels} --size {size} --classes {classes}\n" in out
    assert "not reproduced" in out


@pytest.mark.parametrize(
    "words, named",
    [
        (["summary", "lenet-fbin"], "lenet-fbin"),
        (["summary", "lenet", "--compare"], "lenet"),
        (["summary", "sketchanet-fbin", "--size", "64"], "input_size 64"),
        (["summary", "small-hybrid", "--keep-real", "conv9"], "conv9"),
        (["summary", "small-fbin", "--width", "0"], "width"),
        (["summary", "small-fbin", "--factor", "0"], "factor"),
        (["summary", "small-fbin", "--factor", "x"], "expected a number or measured, got 'x'"),
        (["summary", "small-fbin", "--compare", "--time"], "--compare"),
        (["summary", "small-fprec", "--last-layer", "binary"], "last_layer"),
    ],
)
def test_bad_summaries_are_one_line_and_exit_code_2(capsys, words, named):
    code, out, err = run(capsys, *words)
    assert code == 2 and out == "" and len(err.splitlines()) == 1 and named in err


def test_presets_can_be_built_by_name():
    model = models.build("sketchanet-hybrid1", num_classes=5, in_channels=1, input_size=225, init=False)
    assert model.spec["variant"] == "hybrid" and model.spec["keep_real"] == ["conv6", "conv7"]
    with pytest.raises(ValueError, match="variant: the name says 'fbin'"):
        models.build("small-fbin", "wbin", num_classes=5, in_channels=1, input_size=64)
