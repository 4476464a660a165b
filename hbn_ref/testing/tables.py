"""The cases: first one thing at a time goes to its limits, then everything is drawn at random; and a spread over kinds.

Dimensions lie just below, at and just above 8, 16, 64 and 256, the sizes of vectors, words and tiles. A case that is
large in one dimension has one pixel or one filter, so that it costs nothing.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from heapq import heapify, heappop, heappush
from itertools import chain, product
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from .. import reference
from ..checks import one_of
from .cases import Case, ConvCase, MatmulCase, PackCase, ThresholdCase, UnpackCase
from .values import HARD, LAYOUTS, SIGNS

C = TypeVar("C", bound=Case)
K = TypeVar("K", bound=ConvCase)

LEVELS = ("quick", "default", "full")
QUICK = 200  # cases of a quick check, spread over the kinds
PAD_VALUES = (0, 1, -1)

SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257)
CHANNELS = (*SIZES, 48, 95, 96, 97, 191, 192, 193, 200, 383, 384, 385, 511, 512, 513, 700, 1023, 1024, 1025)
MANY_CHANNELS = (2047, 2048, 2049, 4095, 4096, 4097)
FILTERS = (*SIZES, 6, 24, 48, 96, 130, 200, 511, 512, 513, 1023, 1024, 1025)
MAPS = (7, 8, 9, 14, 15, 16, 17, 27, 28, 31, 32, 33, 55, 56, 57, 63, 64, 65, 112)
KERNELS = (*range(1, 12), (1, 3), (3, 1), (3, 2), (2, 3), (1, 7), (7, 1), (5, 3), (11, 1), (1, 11))
STRIDES = (1, 2, 3, 4, (1, 2), (2, 1), (1, 4), (4, 1), (3, 2))
PADDINGS = (0, 1, 2, 3, 4, 5, (1, 0), (0, 1), (0, 2), (2, 1))
BLOCKS = (  # pixels, filters, products: whole tiles of a matrix product, and what is left over
    (7, 70, 65), (4, 4, 200), (9, 17, 193), (10, 70, 128), (130, 64, 256), (64, 130, 256), (65, 65, 64), (129, 17, 300),
    (17, 257, 128), (257, 65, 96), (256, 256, 64),
)  # fmt: skip
PRODUCTS = (  # (kh, kw, C_in): their counts do not fit into 15, 16 and 17 bits
    (1, 7, 4681), (4, 4, 2048), (7, 7, 700), (5, 3, 4369), (4, 4, 4096), (11, 11, 700), (5, 5, 4096),
)  # fmt: skip
USUAL = (  # (C_in, C_out, map): layers as networks have them, 3 x 3, stride 1 and 2, padding 1
    (64, 64, 7), (64, 8, 14), (128, 16, 14), (128, 128, 7), (256, 64, 8), (256, 130, 4), (512, 32, 7), (65, 65, 9),
    (100, 40, 10), (192, 96, 7), (32, 64, 16), (3, 32, 32),
)  # fmt: skip
LEADING = ((), (1,), (5,), (2, 3), (2, 3, 2))
EXTREME = ("all equal", "all different")


# ------------------------------------------------------------------------------------- what the tables hold


def _ones(shape: Sequence[int], filters: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A map and 1 x 1 kernels."""
    return tuple(shape), (1, 1, shape[3], filters)


def _one_place_at_a_time() -> Iterator[tuple[Any, ...]]:
    for n in SIZES:
        yield *_ones((n, 1, 1, 5), 2), 1, 0
        yield *_ones((1, n, 1, 5), 2), 1, 0
        yield *_ones((1, 1, n, 5), 2), 1, 0
        yield *_ones((1, n, n, 3), 1), max(1, n // 16), 0
        yield (2, n, 3, 5), (3, 3, 5, 2), 1, 1
        yield (1, 3, n, 65), (3, 3, 65, 2), 1, 1
    for n in FILTERS:
        yield *_ones((1, 1, 1, 70), n), 1, 0
        yield (1, 2, 3, 65), (3, 2, 65, n), 1, 1
    for n in (*CHANNELS, *MANY_CHANNELS):
        for signs in ("random", *EXTREME):
            yield *_ones((1, 1, 1, n), 1), 1, 0, signs
        yield *_ones((1, 1, 1, n), 3), 1, 0, "mostly equal"
    for n in CHANNELS:
        yield (1, 2, 2, n), (2, 2, n, 2), 1, 0
        yield (1, 2, 2, n), (3, 3, n, 1), 1, 1
    for kh, kw, n in PRODUCTS:
        for signs in ("random", *EXTREME):
            yield (1, kh, kw, n), (kh, kw, n, 1), 1, 0, signs


def _geometry() -> Iterator[tuple[Any, ...]]:
    for shape in KERNELS:
        kh, kw = reference.pair(shape)
        for n in (3, 64, 65):
            yield (1, kh + 2, kw + 1, n), (kh, kw, n, 2), 1, 0
        yield (1, kh + 1, kw + 2, 65), (kh, kw, 65, 2), 1, max(kh, kw) // 2 or 1
    for stride, (k, p, n) in product(STRIDES, ((1, 0, 3), (3, 0, 64), (3, 1, 65), (5, 2, 3), (2, 1, 64))):
        yield (1, 9, 9, n), (k, k, n, 2), stride, p
        yield (2, 10, 8, n), (k, k, n, 3), stride, p
    for padding, (kh, kw, n) in product(PADDINGS[1:], ((1, 1, 3), (3, 3, 64), (3, 2, 65), (5, 5, 2))):
        yield (1, 5, 5, n), (kh, kw, n, 2), 1, padding
    for n in MAPS:
        yield (1, n, n, 3), (3, 3, 3, 2), 1, 1
        yield (1, n, n, 64 if n <= 33 else 2), (3, 3, 64 if n <= 33 else 2, 3), 2, 1
        yield (1, n, n, 65 if n < 20 else 5), (1, 1, 65 if n < 20 else 5, 2), 1, 0
    yield (1, 56, 56, 64), (3, 3, 64, 9), 1, 1
    yield (1, 32, 31, 3), (7, 7, 3, 8), 2, 3
    yield (1, 35, 35, 3), (11, 11, 3, 9), 4, 2
    yield (1, 27, 27, 96), (5, 5, 96, 8), 1, 2


def _large() -> Iterator[tuple[Any, ...]]:
    """An index beyond 2^16: into the words of x, of w, and into what comes out."""
    yield *_ones((1, 257, 257, 2), 1), 1, 0
    yield (1, 257, 258, 2), (3, 3, 2, 1), 3, 1
    yield *_ones((1, 16, 17, 3), 257), 1, 0
    yield *_ones((1, 32, 33, 4096), 1), (31, 32), 0
    yield *_ones((1, 1, 1, 4096), 1025), 1, 0


def _together() -> Iterator[tuple[Any, ...]]:
    """Layers as networks have them, blocks of matrix products, every kind of value and every way to hold arrays."""
    for c_in, c_out, n in USUAL:
        yield (1, n, n, c_in), (3, 3, c_in, c_out), 1, 1
        yield (2, n, n, c_in), (3, 3, c_in, max(2, c_out // 4)), 2, 1
        yield (1, n, n, c_in), (1, 1, c_in, c_out), 2, 0
    for rows, filters, n in BLOCKS:
        yield *_ones((1, 1, rows, n), filters), 1, 0
    for signs, n in product(tuple(SIGNS)[1:], (2, 3, 64, 65, 130)):
        yield *_ones((1, 3, 3, n), 2), 1, 0, signs
        yield (1, 4, 3, n), (3, 3, n, 2), 1, 1, signs
    for layout, n in product(LAYOUTS[1:], (3, 64, 130)):
        yield *_ones((2, 3, 4, n), 3), 1, 0, "random", layout
        yield (2, 5, 4, n), (3, 2, n, 3), (1, 2), 1, "random", layout


def _drawn(number: int) -> tuple[Any, ...]:
    """Cases in which everything is drawn at random, by seed."""
    rng = np.random.default_rng([2018, number])

    def one_of(table):
        return table[int(rng.integers(len(table)))]

    kernel, stride, padding = one_of(KERNELS[:7] + KERNELS[11:16]), one_of(STRIDES), one_of(PADDINGS)
    (kh, kw), (ph, pw), (more_h, more_w) = reference.pair(kernel), reference.pair(padding), rng.integers(0, 6, 2)
    height, width = max(1, kh - 2 * ph) + int(more_h), max(1, kw - 2 * pw) + int(more_w)
    batch, c_in, c_out = int(rng.integers(1, 6)), one_of((1, 2, 3, 31, 63, 64, 65, 96, 128, 200)), one_of(SIZES[:11])
    return (batch, height, width, c_in), (kh, kw, c_in, c_out), stride, padding, one_of(tuple(SIGNS))


@lru_cache(maxsize=1)
def _conv_table() -> tuple[ConvCase, ...]:
    """All cases of the default level. Drawn shapes come twice, with other values: that shows if a kernel keeps some."""
    found: list[ConvCase] = []
    for row in chain(_one_place_at_a_time(), _geometry(), _large(), _together()):
        x, w, stride, padding = row[:4]
        signs, layout = row[4:] + ("random", "contiguous")[len(row) - 4 :]
        for pad_value in PAD_VALUES if np.any(padding) else (0,):
            found.append(ConvCase(x, w, stride, padding, pad_value, signs, 0, layout=layout))
    table = [replace(case, seed=seed) for seed, case in enumerate(dict.fromkeys(found))]
    for number in range(180):
        x, w, stride, padding, signs = _drawn(number)
        case = ConvCase(x, w, stride, padding, PAD_VALUES[number % 3], signs, len(table))
        table += [case, replace(case, seed=len(table) + 1)]
    return tuple(sorted(table, key=Case.order))


# ----------------------------------------------------------------------------------------------- the tables


def pack_cases(
    dtype: DTypeLike = np.float32, kind: type[PackCase] = PackCase, *, level: str = "default",
    without: Collection[str] = (),
) -> list[PackCase]:  # fmt: skip
    """Channel counts around the word limits, with zero to three axes before them; values and layouts of all kinds."""
    name, kinds = np.dtype(dtype).name, ("random", "all equal", "all different", "edges", *HARD)
    shapes = [((*leading, c), signs) for c in CHANNELS for leading in LEADING for signs in kinds[:2]]
    shapes += [((3, c), signs) for c in CHANNELS for signs in kinds[2:]]
    shapes += [((n, c), "random") for n in SIZES for c in (3, 64, 130)]
    shapes += [((1, c), signs) for c in MANY_CHANNELS for signs in ("random", "edges")]
    shapes += [((66_000, 2), "random"), ((257, 16_448), "random"), ((4_200_000,), "random")]  # beyond 2^16 words
    cases = [kind(*row, name) for row in dict.fromkeys(shapes)]
    layouts = product(LAYOUTS[1:], (3, 64, 130))
    cases += [kind((2, 3, 4, c), "random", name, layout) for layout, c in layouts]
    cases += [kind((5, c), "random", name, layout) for layout, c in product(LAYOUTS[1:], (3, 64, 130))]
    return _level(sorted(allowed(cases, without), key=Case.order), level)


def unpack_cases(*, level: str = "default") -> list[PackCase]:
    """The words of `pack_cases`."""
    return pack_cases(kind=UnpackCase, level=level, without=("edges", *HARD))


def matmul_cases(*, level: str = "default") -> list[MatmulCase]:
    """The same counts, with few and many rows, each twice; counts that do not fit into 8, 16 and 17 bits."""
    cases = [MatmulCase(*size, n, "random", seed) for size in ((1, 1), (2, 3)) for n in CHANNELS for seed in range(2)]
    cases += [MatmulCase(1, 2, n, signs, 0) for n in (*CHANNELS, *MANY_CHANNELS) for signs in EXTREME]
    cases += [MatmulCase(3, 2, n, "random", 2) for n in MANY_CHANNELS]
    cases += [MatmulCase(rows, 3, n, "random", 3) for rows in SIZES for n in (65, 128)]
    cases += [MatmulCase(2, filters, n, "random", 4) for filters in FILTERS for n in (65, 128)]
    cases += [MatmulCase(*block, "random", seed) for block in BLOCKS for seed in range(2)]
    many = (32_767, 32_768, 40_000, 65_535, 65_536, 65_537, 140_000)
    cases += [MatmulCase(1, 2, n, signs, 5) for n in many for signs in ("random", *EXTREME)]
    cases += [MatmulCase(1025, 2, 4096, "random", 6), MatmulCase(2, 1025, 4096, "random", 6)]  # beyond 2^16 words
    cases.append(MatmulCase(257, 257, 5, "random", 6))
    cases += [MatmulCase(5, 6, n, "random", 7, layout) for layout in LAYOUTS[1:] for n in (64, 130)]
    return _level(sorted(cases, key=Case.order), level)


def conv_cases(
    pad_values: Iterable[int] = PAD_VALUES, *, level: str = "default", without: Collection[str] = (),
    dtype: DTypeLike = np.float32,
) -> list[ConvCase]:  # fmt: skip
    """Return convolutions, small ones first, and among those of about one size the plainest.

    Parameters
    ----------
    pad_values : some of 0, 1, -1
        The borders that the kernel knows.
    level : {"quick", "default", "full"}
        In this order: a spread of 200 cases; all; all, and the layers of the six networks.
    without : names of values to leave out, of `SIGNS`
        "denormals", "infinities", "extremes" (together `HARD`), ...
    dtype : float16, float32 or float64
    """
    wanted = borders(pad_values)
    cases = bordered(allowed(_conv_table(), without), wanted)
    if one_of("level", level, LEVELS) == "full":
        cases += [case for name in LAYER_SIZES for case in layer_cases(name, wanted[:1])]
        cases.sort(key=Case.order)
    return [replace(case, dtype=np.dtype(dtype).name) for case in _level(cases, level)]


def threshold_cases(*, level: str = "default") -> list[ThresholdCase]:
    """Few and many products, with and without ReLU."""
    kinds = [(relu, seed) for relu in (False, True) for seed in range(2)]
    cases = [ThresholdCase(n, *kind) for n in (1, 2, 9, 63, 576, 4608) for kind in kinds]
    cases += [
        ThresholdCase(n, relu, 2, channels) for n in (64, 65) for relu, _ in kinds[::2] for channels in (1, 8, 65)
    ]
    cases += [ThresholdCase(576, relu, 3, 65, layout) for layout in LAYOUTS[1:] for relu, _ in kinds[::2]]
    cases += [ThresholdCase(147_000, relu, 0, channels=8) for relu in (False, True)]  # 7 x 7 x 3,000 weights
    return _level(sorted(cases, key=Case.order), level)


LAYER_SIZES = {"small": 64, "sketchanet": 225, "alexnet": 224, "resnet18": 224, "squeezenet": 224, "googlenet": 224}


def layer_cases(network: str, pad_values: Iterable[int] = (0,), *, input_size: int | None = None) -> list[ConvCase]:
    """Return the layers of a network that can be binary, each shape once, for one image of the usual size.

    Parameters
    ----------
    network : {"small", "sketchanet", "alexnet", "resnet18", "squeezenet", "googlenet"}
    pad_values : some of 0, 1, -1
    input_size : int, optional
        Of the images: 64 for "small", 225 for "sketchanet", 224 for the others.
    """
    from .. import cost, models  # here, as the rest of the kit needs no chapter

    size = LAYER_SIZES[one_of("network", network, tuple(LAYER_SIZES))] if input_size is None else input_size
    model = models.build(network, "fbin", num_classes=2, in_channels=1, input_size=size, init=False)
    shapes = {
        ((1, *shape), layer.params["w"].shape, _short(layer.stride), _short(layer.padding)): None
        for layer, shape, _ in cost.visit(model)
        if layer.inputs == "binary"
    }
    made = [ConvCase(*shape, 0, "random", seed) for seed, shape in enumerate(shapes)]
    padded = [replace(case, pad_value=p) for case in made for p in (PAD_VALUES if np.any(case.padding) else (0,))]
    return bordered(sorted(padded, key=Case.order), borders(pad_values))


def _short(pair):
    return pair[0] if pair[0] == pair[1] else pair


# ---------------------------------------------------------------------------------------- choosing from them


def borders(pad_values: Iterable[int]) -> tuple[int, ...]:
    """pad_values, checked."""
    wanted = tuple(pad_values)
    if not wanted or not set(wanted) <= set(PAD_VALUES):
        raise ValueError(f"pad_values: expected some of 0, 1 and -1, got {wanted!r}")
    return wanted


def bordered(cases: Iterable[K], pad_values: Sequence[int]) -> list[K]:
    """The cases with one of these borders; those without padding have the first of them."""
    kept = []
    for case in cases:
        if not np.any(case.padding) and case.pad_value not in pad_values:
            case = replace(case, pad_value=pad_values[0])
        if case.pad_value in pad_values:
            kept.append(case)
    return kept


def allowed(cases: Iterable[C], without: Collection[str]) -> list[C]:
    """The cases whose values are not among the names in `without`."""
    names = (without,) if isinstance(without, str) else tuple(without)
    if unknown := [name for name in names if name not in SIGNS]:
        raise ValueError(f"without: no values {unknown[0]!r}; there are {', '.join(SIGNS)}")
    return [case for case in cases if case.signs not in names]


def _level(cases: list[C], level: str) -> list[C]:
    if one_of("level", level, LEVELS) == "quick":
        return spread([case for case in cases if case.size() <= 300_000], QUICK)
    return cases


def spread(cases: Sequence[C], count: int) -> list[C]:
    """Return `count` cases that show as many kinds as possible, in the order in which they came.

    They are taken one by one: each time the case with the most attributes that the fewest cases before it had; of
    equals the plainest and smallest. Cases that differ only in their values count as one, and come together.
    """
    groups: dict[Any, list[int]] = {}
    for k, case in enumerate(cases):
        groups.setdefault(replace(case, seed=0) if hasattr(case, "seed") else case, []).append(k)  # type: ignore[type-var]
    kinds = {key: (*key.attributes().items(), ("again", len(members) > 1)) for key, members in groups.items()}
    costs = {key: 0.25 * key.oddness() + 0.5 * key.order()[0] for key in groups}
    seen: dict[Any, int] = {}

    def worth(key):
        return sum(1.0 if kind not in seen else 0.1 / seen[kind] for kind in kinds[key]) - costs[key]

    heap = [(-worth(key), members[0], key) for key, members in groups.items()]
    heapify(heap)
    chosen: list[int] = []
    while len(chosen) < count and heap:
        _, place, key = heappop(heap)
        now = -worth(key)
        if heap and now > heap[0][0]:  # its worth has fallen since; worth never rises
            heappush(heap, (now, place, key))
            continue
        chosen += groups[key]
        for kind in kinds[key]:
            seen[kind] = seen.get(kind, 0) + 1
    return [cases[k] for k in sorted(chosen[:count])]
