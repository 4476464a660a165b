"""Timing in rounds: A B C, A B C, ... and the median of each."""

import math
import statistics
import time
from collections import defaultdict
from contextlib import contextmanager

from hbn_ref import engine

SECONDS = 0.03  # that one contender may take in a round, unless a single call takes longer


def repeated(call):
    """Return a function (n) that calls n times, and returns the seconds of each call."""

    def timed(n):
        seconds = []
        for _ in range(n):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        return seconds

    return timed


def medians(contenders, rounds):
    """Time contenders in turn.

    Parameters
    ----------
    contenders : {name: function (n) -> list of n seconds}
    rounds : int

    Returns
    -------
    {name: seconds per call, the median over all rounds}
    """
    counts, seen = {}, {name: [] for name in contenders}
    for name, timed in contenders.items():
        timed(1)  # compiles, fills caches
        counts[name] = max(1, min(200, int(SECONDS / max(min(timed(2)), 1e-7))))
    for _ in range(rounds):
        for name, timed in contenders.items():
            seen[name] += timed(counts[name])
    return {name: statistics.median(seconds) for name, seconds in seen.items()}


@contextmanager
def kernel_seconds():
    """Within the block, note how long each kernel takes, in {name of the kernel: list of seconds}."""
    run, seen = engine.run, defaultdict(list)

    def watched(kernel, *args, **options):
        start = time.perf_counter()
        found = run(kernel, *args, **options)
        seen[kernel.__name__].append(time.perf_counter() - start)
        return found

    engine.run = watched
    try:
        yield seen
    finally:
        engine.run = run


def geometric_mean(values):
    """Return the geometric mean, which suits ratios: 2 and 1/2 make 1. None if there are no values."""
    values = list(values)
    return math.exp(statistics.fmean(map(math.log, values))) if values else None
