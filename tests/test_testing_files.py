"""Cases as files, read by a program in C; and kernels of others that can be had: C by ctypes, PyTorch, OpenVINO."""

import ctypes
import json
import shutil
import subprocess

import numpy as np
import pytest
from conftest import JIT

from hbn_ref import reference
from hbn_ref.__main__ import main
from hbn_ref.testing import check_xnor_conv, conv_cases, export, tables, truth

GCC = shutil.which("gcc")
needs_gcc = pytest.mark.skipif(not GCC, reason="no gcc")


@needs_gcc
def test_the_program_in_c_reads_what_the_command_writes_and_finds_a_fault(tmp_path, capsys):
    folder = tmp_path / "cases"
    assert main(["cases", str(folder), "--max-cases", "60"]) == 0
    assert "60 cases, " in capsys.readouterr().out
    program = tmp_path / "compare"
    subprocess.run([GCC, "-O2", "-Wall", "-Werror", str(folder / "compare.c"), "-o", str(program)], check=True)
    done = subprocess.run([program, folder], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "60 of 60 cases agree\n")
    counts = folder / "00007.counts"
    values = np.frombuffer(counts.read_bytes(), "<i4").copy()
    values[-1] += 2
    counts.write_bytes(values.tobytes())
    done = subprocess.run([program, folder], capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout.endswith("59 of 60 cases agree\n")
    assert f"00007: count {len(values) - 1}: expected {values[-1]}, got {values[-1] - 2}\n" in done.stdout


@pytest.mark.parametrize("word", [8, 16, 32, 64])
@pytest.mark.parametrize("bit_order", ["lsb", "msb"])
def test_words_of_every_size_and_order(word, bit_order):
    x = np.random.default_rng(0).standard_normal((2, 3, 70))
    words = export.packed(x, word, bit_order)
    assert words.shape == (2, 3, -(-70 // word)) and words.dtype == np.dtype(f"<u{word // 8}")
    for c in range(70):
        place = c % word if bit_order == "lsb" else word - 1 - c % word
        assert np.array_equal((words[..., c // word] >> words.dtype.type(place)) & 1, x[..., c] >= 0)
    if (word, bit_order) == (64, "lsb"):
        assert np.array_equal(words, truth.pack(x))


def test_the_index_says_what_the_files_are(tmp_path, capsys):
    folder = tmp_path / "cases"
    assert main(["cases", str(folder), "--network", "small", "--pad-values", "1", "--word", "32"]) == 0
    index = json.loads((folder / "index.json").read_text())
    assert (index["word"], index["bit_order"]) == (32, "lsb")
    row = index["cases"][-1]
    x, w = (np.fromfile(folder / f"{row['name']}.{name}", "<f4").reshape(row[name]) for name in ("x", "w"))
    got = np.fromfile(folder / f"{row['name']}.counts", "<i4").reshape(row["counts"])
    options = {"stride": row["stride"], "padding": row["padding"], "pad_value": row["pad_value"]}
    assert np.array_equal(got, truth.conv(truth.signs(x), truth.signs(w), got.shape[1:3], **options))
    words = np.fromfile(folder / f"{row['name']}.ww", "<u4").reshape(*row["w"][:2], row["w"][3], row["words"])
    assert np.array_equal(words, export.packed(w.swapaxes(2, 3), 32))
    assert {row["pad_value"] for row in index["cases"]} == {1}
    assert main(["cases", str(folder)]) == 2 and "is not empty" in capsys.readouterr().err
    assert (
        main(["cases", str(folder / "no"), "--network", "vgg"]) == 2 and "network: expected" in capsys.readouterr().err
    )


# --------------------------------------------------------------------------------------- kernels of others

SOURCE = """
void conv(const float *x, const float *w, int *out, const int *g) {
    int N = g[0], H = g[1], W = g[2], C = g[3], kh = g[4], kw = g[5], O = g[6], OH = g[7], OW = g[8];
    for (int n = 0; n < N; n++) for (int i = 0; i < OH; i++) for (int j = 0; j < OW; j++) {
        int *q = out + ((n * OH + i) * OW + j) * O;
        for (int o = 0; o < O; o++) q[o] = 0;
        for (int a = 0; a < kh; a++) for (int b = 0; b < kw; b++) for (int c = 0; c < C; c++) {
            int y = i * g[9] + a - g[11], z = j * g[10] + b - g[12], inside = y >= 0 && y < H && z >= 0 && z < W;
            int s = inside ? (x[((n * H + y) * W + z) * C + c] >= 0 ? 1 : -1) : g[13];
            for (int o = 0; o < O; o++) q[o] += w[((a * kw + b) * C + c) * O + o] >= 0 ? s : -s;
        }
    }
}
"""


@needs_gcc
def test_a_kernel_in_c_by_ctypes_passes(tmp_path):
    (tmp_path / "conv.c").write_text(SOURCE)
    library = tmp_path / "conv.so"
    subprocess.run([GCC, "-O3", "-shared", "-fPIC", tmp_path / "conv.c", "-o", library], check=True)
    function = ctypes.CDLL(str(library)).conv

    def kernel(x, w, *, stride, padding, pad_value):
        x, w = (np.require(array, np.float32, "CA") for array in (x, w))
        pairs = zip(x.shape[1:3], w.shape, reference.pair(stride), reference.pair(padding))
        size = [reference.output_size(*one) for one in pairs]
        out = np.empty((len(x), *size, w.shape[3]), np.int32)
        geometry = (
            *x.shape,
            *w.shape[:2],
            w.shape[3],
            *size,
            *reference.pair(stride),
            *reference.pair(padding),
            pad_value,
        )
        pointers = (array.ctypes.data_as(ctypes.c_void_p) for array in (x, w, out))
        function(*pointers, (ctypes.c_int * len(geometry))(*geometry))
        return out

    check_xnor_conv(kernel, **({} if JIT else {"level": "quick"}))


def test_pytorchs_convolution_of_signs_passes():
    torch = pytest.importorskip("torch")

    def kernel(x, w, *, stride, padding, pad_value):
        (ph, pw) = reference.pair(padding)
        x, w = torch.from_numpy(truth.signs(x).astype("f")), torch.from_numpy(truth.signs(w).astype("f"))
        x = torch.nn.functional.pad(x.permute(0, 3, 1, 2), (pw, pw, ph, ph), value=pad_value)
        return torch.nn.functional.conv2d(x, w.permute(3, 2, 0, 1), stride=stride).permute(0, 2, 3, 1).numpy()

    check_xnor_conv(kernel, level="quick")


def test_openvinos_binary_convolution_passes():
    ov = pytest.importorskip("openvino")
    from openvino import opset13 as opset

    core = ov.Core()

    def kernel(x, w, *, stride, padding, pad_value):
        """Bits only behind a FakeQuantize with outputs (0, 1) and weights of type u1."""
        filters = np.ascontiguousarray(w.transpose(3, 2, 0, 1))
        bits = np.packbits((filters >= 0).ravel(), bitorder="little")
        tensor = ov.Tensor(bits, ov.Shape(filters.shape), ov.Type.u1)
        nchw = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
        data = opset.parameter(nchw.shape, ov.Type.f32)
        ends = [opset.constant(np.full((1, x.shape[3], 1, 1), value, np.float32)) for value in (0, 0, 0, 1)]
        pads, strides = list(reference.pair(padding)), list(reference.pair(stride))
        counts = opset.binary_convolution(
            opset.fake_quantize(data, *ends, 2),
            ov.op.Constant(tensor),
            strides,
            pads,
            pads,
            [1, 1],
            "xnor-popcount",
            0.0,
        )
        compiled = core.compile_model(ov.Model([counts], [data]), "CPU")
        return compiled([nchw])[0].transpose(0, 2, 3, 1)

    cases = [case for case in conv_cases((0,), level="quick") if case.signs == "random"]
    whole = [case for case in cases if case.x_shape[3] % 64 == 0]  # it has other numbers, or errors, for C_in such as 5
    check_xnor_conv(kernel, cases=tables.spread(whole, 12))
