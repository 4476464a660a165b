"""Runs a function over cases: a case fails if the function raises, or writes or keeps what it should not."""

import os
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..checks import whole_number
from .cases import Case, ConvCase
from .reporting import Wrong, report_of, title
from .tables import allowed, bordered, spread


@dataclass(frozen=True)
class Chosen:
    """The cases to run, how many there were, and how many of those `where` left out."""

    cases: list[Case]
    all: int
    left_out: int


@dataclass(frozen=True)
class Plan:
    """What every check lets its caller choose; see the top of hbn_ref.testing."""

    name: str
    cases: Iterable[Case] | None
    level: str
    where: Callable[[Any], Any] | None
    without: Collection[str]
    max_cases: int | None
    repeat: int
    report: bool

    def choose(
        self, kind: type[Case], table: Callable[..., Sequence[Case]], *, pad_values: Sequence[int] | None = None,
        dtype: Any = None,
    ) -> "Chosen":  # fmt: skip
        """The cases to run."""
        cases = list(table(level=self.level) if self.cases is None else (_as_kind(kind, case) for case in self.cases))
        cases = allowed(cases, self.without)
        if pad_values is not None:
            cases = bordered(cases, pad_values)
        if dtype is not None:
            names = [np.dtype(one).name for one in (dtype if isinstance(dtype, (list, tuple)) else [dtype])]
            cases = sorted((replace(case, dtype=name) for name in names for case in cases), key=Case.order)
        kept = [case for case in cases if self.where is None or self.where(case)]
        some = kept if self.max_cases is None else spread(kept, whole_number("max_cases", self.max_cases))
        if not some:
            raise ValueError("cases: nothing to run" + f"; where= leaves out all {len(cases)}" * (len(cases) > 0))
        return Chosen(some, len(cases), len(cases) - len(kept))

    def run(
        self, fn: Callable[..., Any], chosen: "Chosen", compare: Callable[[Any, Any], None], *,
        results: int = 1, how: str = "",
    ) -> None:  # fmt: skip
        """Calls fn for each case and compares. Raises AssertionError at the first that fails, or reports on all."""
        __tracebackhide__ = True
        cases, call = chosen.cases, _Caller(fn, results, whole_number("repeat", self.repeat))
        failures: list[tuple[Case, Wrong]] = []
        refused = 0
        with _Record(self.name) as record:
            for case in cases:
                record(case, how)
                try:
                    call(case, compare)
                except _Skipped:
                    refused += 1
                except Wrong as wrong:
                    if not self.report:
                        raise AssertionError(title(case, wrong, how)) from wrong.__cause__
                    failures.append((case, wrong))
        ran = f"ran {len(cases) - refused} of {chosen.all} cases"
        if chosen.left_out or refused:
            print(f"{self.name}: {ran}; {chosen.left_out} left out by where=, {refused} not implemented")
        if refused == len(cases):
            raise AssertionError(f"{self.name}: the function is not implemented for any of {len(cases)} cases")
        if failures:
            raise AssertionError(report_of(ran, failures, cases, how))


def _as_kind(kind, case):
    if isinstance(case, ConvCase) and issubclass(kind, ConvCase):
        return case.as_kind(kind)
    if type(case) is not kind:
        raise TypeError(f"cases: expected {kind.__name__} objects, got {type(case).__name__}")
    return case


class _Skipped(Exception):
    """The function raised NotImplementedError."""


class _Caller:
    """Calls fn `repeat` times with the same arrays, and has each result compared."""

    def __init__(self, fn, results, repeat):
        self.fn, self.results, self.repeat = fn, results, repeat
        self.last: list[tuple[np.ndarray, np.ndarray]] = []  # results of the calls before, and copies of them

    def __call__(self, case, compare):
        args = case.arrays()
        before = [np.copy(value) for value in args]
        calls = []
        for _ in range(self.repeat):
            calls.append(self._results(case, args))
            if not all(_same(*pair) for pair in zip(before, args, strict=True)):
                raise Wrong("the function changed its input", "input changed")
            if not all(_same(*pair) for pair in self.last):
                raise Wrong("this call changed the result of the call before", "old result changed")
            self.last = [(array, array.copy()) for array in calls[-1]]
        try:
            for got in calls:
                compare(case, got)
        except Wrong as wrong:
            if all(_same(*pair) for got in calls for pair in zip(got, calls[0], strict=True)):
                raise
            text = f"{self.repeat} calls with the same arrays gave different results: {wrong}"
            raise Wrong(text, "results differ") from None

    def _results(self, case, args):
        """fn's results, a tuple of arrays."""
        try:
            got = self.fn(*args, *case.arguments(), **case.options())
            if got is None:
                raise TypeError("the function returned nothing")
            if self.results == 1:
                if isinstance(got, tuple):
                    raise TypeError("expected the result alone, got a tuple; wrap the function, return its first part")
                got = (got,)
            elif not isinstance(got, (tuple, list)) or len(got) != self.results:
                raise TypeError(f"expected a tuple of {self.results} arrays")
            return tuple(np.asarray(array) for array in got)
        except NotImplementedError:
            raise _Skipped from None
        except Exception as error:
            raise Wrong(f"raised {type(error).__name__}: {error}", type(error).__name__) from error


def _same(a, b):
    """The same bits, NaN and the sign of zero included."""
    return a.shape == b.shape and a.tobytes() == b.tobytes()


class _Record:
    """A temporary file that holds the case in flight: a call that ends the process leaves it there.

    The next check shows on stderr what a dead process has left, and removes it.
    """

    def __init__(self, name):
        self.name, self.file = name, -1

    def __enter__(self):
        with suppress(OSError):  # no place to write, no record
            _show_what_is_left()
            self.file, self.path = tempfile.mkstemp(".txt", f"hbn_ref-case-{os.getpid()}-")
        return self

    def __call__(self, case, how):
        if self.file >= 0:
            with suppress(OSError):
                os.lseek(self.file, 0, os.SEEK_SET)
                text = f"{self.name}, process {os.getpid()}, in flight: {case}\nagain: {case.again(how)}\n"
                os.truncate(self.file, os.write(self.file, text.encode()))

    def __exit__(self, *_):
        if self.file >= 0:
            os.close(self.file)
            with suppress(OSError):
                os.unlink(self.path)


def _show_what_is_left():
    for path in Path(tempfile.gettempdir()).glob("hbn_ref-case-*-*.txt"):
        if os.name == "posix" and path.stat().st_uid == os.getuid() and not _alive(int(path.name.split("-")[2])):
            print(f"this call ended its process: {path.read_text()}", end="", file=sys.stderr)
            path.unlink()


def _alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # somebody else's
    return True
