"""Cases as files, for kernels that Python cannot call: raw little-endian arrays, a JSON index, and a C program."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..checks import one_of
from .cases import ConvCase

WORD_BITS = (8, 16, 32, 64)
EXAMPLE = Path(__file__).with_name("compare.c")


def packed(x: np.ndarray, word: int = 64, bit_order: str = "lsb") -> np.ndarray:
    """Packs signs along the last axis into little-endian words of 8 to 64 bits; unused bits are 0.

    Channel c is bit c % word of word c // word, counted from the least significant bit, or with "msb" from the most
    significant.
    """
    bits = np.zeros((*x.shape[:-1], -(-x.shape[-1] // word), word), bool)
    bits.reshape(*x.shape[:-1], -1)[..., : x.shape[-1]] = x >= 0
    if bit_order == "msb":
        bits = bits[..., ::-1]
    return np.packbits(bits, axis=-1, bitorder="little").view(f"<u{word // 8}")[..., 0]


def write_cases(folder: Path, cases: Sequence[ConvCase], *, word: int = 64, bit_order: str = "lsb") -> int:
    """Writes the cases, index.json (one line per case) and compare.c into a new or empty folder.

    Parameters
    ----------
    folder : Path
    cases : list of ConvCase
        For each, NAME.x and NAME.w are float32, NAME.xw (N, H, W, words) and NAME.ww (kh, kw, C_out, words) their
        packed signs, and NAME.counts int32 (N, OH, OW, C_out).
    word : {8, 16, 32, 64}
        Bits per word.
    bit_order : {"lsb", "msb"}

    Returns
    -------
    int
        The bytes written.
    """
    one_of("word", word, WORD_BITS), one_of("bit_order", bit_order, ("lsb", "msb"))
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ValueError(f"{folder}: is not empty; choose a new folder")
    rows, size = [], 0
    for number, case in enumerate(cases):
        x, w = case.arrays()
        arrays = {
            "x": x.astype("<f4"), "w": w.astype("<f4"), "xw": packed(x, word, bit_order),
            "ww": packed(w.swapaxes(2, 3), word, bit_order), "counts": case.expected().astype("<i4"),
        }  # fmt: skip
        for name, array in arrays.items():
            (folder / f"{number:05}.{name}").write_bytes(array.tobytes())
            size += array.nbytes
        rows.append(json.dumps(_row(f"{number:05}", case, arrays)))
    about = {"word": word, "bit_order": bit_order, "types": "x, w float32; xw, ww words; counts int32; little-endian"}
    text = json.dumps(about)[:-1] + ', "cases": [\n' + ",\n".join(rows) + "\n]}\n"
    (folder / "index.json").write_text(text, "utf-8")
    shutil.copy(EXAMPLE, folder)
    return size


def _row(name: str, case: ConvCase, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """One line of the index, its keys always in this order: a program in C can read it with sscanf."""
    pairs = {key: [int(v) for v in np.broadcast_to(getattr(case, key), 2)] for key in ("stride", "padding")}
    return {
        "name": name, "x": case.x_shape, "w": case.w_shape, "counts": arrays["counts"].shape,
        "words": arrays["xw"].shape[3], **pairs, "pad_value": case.pad_value, "signs": case.signs,
    }  # fmt: skip


def select(network: str | None, pad_values: Sequence[int], level: str, max_cases: int | None) -> list[ConvCase]:
    """The cases of a network's layers, or of the kit's table, contiguous as files are."""
    from .tables import conv_cases, layer_cases, spread

    cases = layer_cases(network, pad_values) if network else conv_cases(pad_values, level=level)
    cases = [case for case in cases if case.layout == "contiguous"]
    return cases if max_cases is None else spread(cases, max_cases)
