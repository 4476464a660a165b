"""Compare results, and say what is wrong with them."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from .cases import Case

ATTRIBUTES = 6  # of a report: those that explain best


class Wrong(Exception):
    """What is wrong with the result of a case, and the kind of fault in a word or two."""

    def __init__(self, message: str, kind: str = "wrong values") -> None:
        super().__init__(message)
        self.kind = kind


# -------------------------------------------------------------------------------------------- comparing


def compare(
    expected: np.ndarray, got: np.ndarray, tolerance: Any = 0.0, *, name: str = "", at: np.ndarray | None = None
) -> None:
    """Raise `Wrong` unless numbers of any type are equal to `tolerance`; `at` is the x that its message shows."""
    label = f"{name} " if name else ""
    if got.dtype.kind not in "iuf":
        raise Wrong(f"{label}expected integers or floats, got dtype {got.dtype}", "wrong type")
    check_shape(expected, got, label)
    with np.errstate(invalid="ignore"):  # infinity - infinity is NaN, and wrong
        wrong = ~(np.abs(got.astype(np.float64) - expected) <= tolerance)
    if wrong.any():
        index = first(wrong)
        numbers = f"expected {expected[index]:.9g}, got {got[index]:.9g}"
        x = "" if at is None else f", x = {at[index]:.9g}"
        raise Wrong(f"{label}index {index}{x}: {numbers} ({wrong.sum()} of {wrong.size} values differ)")


def check_shape(expected: np.ndarray, got: np.ndarray, label: str = "") -> None:
    """Raise `Wrong` unless both have the same shape."""
    if got.shape != expected.shape:
        raise Wrong(f"{label}expected shape {expected.shape}, got {got.shape}", "wrong shape")


def first(wrong: np.ndarray) -> tuple[int, ...]:
    """The first index, in row-major order, at which `wrong` is true."""
    return tuple(int(i) for i in np.argwhere(wrong)[0])


# --------------------------------------------------------------------------------------------- telling


def title(case: Case, wrong: Wrong, how: str = "") -> str:
    """What a failure says: the case, what is wrong, and code that makes the call again."""
    return f"{case}: {wrong}\nagain: {case.again(how)}"


def report_of(ran: str, failures: Sequence[tuple[Case, Wrong]], cases: Sequence[Case], how: str) -> str:
    """Return what to say of all failures: how many of each kind, the plainest, and what the failing cases share."""
    failed = {id(case) for case, _ in failures}
    kinds = Counter(wrong.kind for _, wrong in failures)
    lines = [f"{len(failures)} cases fail ({ran}): " + ", ".join(f"{n} {kind}" for kind, n in kinds.most_common())]
    lines += [f"the plainest: {title(*failures[0], how)}", "what they share, as failing of all:"]
    rows = [(case.attributes(), id(case) in failed) for case in cases]
    tables = {name: _counts(name, rows) for name in rows[0][0]}
    unknown = {name: _uncertainty(table) for name, table in tables.items()}
    least = 0.9 * _uncertainty({"": [len(failures), len(cases)]})
    explained = [name for name in sorted(tables, key=unknown.__getitem__)[:ATTRIBUTES] if unknown[name] <= least]
    width = max(map(len, explained), default=0)
    lines += [f"  {name:{width}}  {_shares(tables[name])}" for name in explained] or ["  nothing in particular"]
    return "\n".join(lines)


def _counts(name, rows):
    """{value of an attribute: [failing, all]}, in the order in which they come."""
    table: dict[str, list[int]] = {}
    for attributes, failed in rows:
        counts = table.setdefault(attributes[name], [0, 0])
        counts[0] += failed
        counts[1] += 1
    return table


def _uncertainty(table):
    """How many bits one still needs to say which cases fail, when one knows this attribute of each."""
    bits = 0.0
    for failing, cases in table.values():
        for part in (failing, cases - failing):
            bits -= part * np.log2(part / cases) if part else 0.0
    return bits


def _shares(table):
    some = {value: counts for value, counts in table.items() if counts[0]}
    parts = [f"{value}: {failing} of {cases}" for value, (failing, cases) in some.items()]
    if len(some) < len(table):
        others = sum(cases for failing, cases in table.values() if not failing)
        parts.append(f"all others: 0 of {others}")
    return "; ".join(parts)
