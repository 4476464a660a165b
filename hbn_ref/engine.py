"""The engine room's controls: how many threads, which kernels, and the one function that calls them.

Threads are a pool of Python threads over kernels that release the GIL: nothing to install or to choose, no trouble
with fork, and no result depends on their number. Nothing on the way calls BLAS, whose own threads would fight them.
"""

import itertools
import os
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from functools import lru_cache

import numpy as np

from . import kernels, simd

ROWS = 24  # threads share out rows in multiples of this, a multiple of every block's rows


def _default_threads():
    wanted = os.environ.get("HBN_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_threads = _default_threads()
_pool = None


def _forget_pool():
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):  # a forked child has no worker threads: let it start its own
    os.register_at_fork(after_in_child=_forget_pool)


def get_num_threads():
    """Return how many threads kernels may use."""
    return _threads


def set_num_threads(threads):
    """Use ``threads`` threads in kernels from now on. No result depends on the number."""
    global _threads, _pool
    if not isinstance(threads, (int, np.integer)) or threads < 1:
        raise ValueError(f"threads: expected a whole number of at least 1, got {threads!r}")
    _threads, _pool = int(threads), None


@contextmanager
def threads(number):
    """Within the block, use ``number`` threads."""
    before = get_num_threads()
    set_num_threads(number)
    try:
        yield
    finally:
        set_num_threads(before)


# -------------------------------------------------------------------------------------- plain or vector

KERNELS = ("plain", "vector")
_kernel = os.environ.get("HBN_KERNEL") or None


def get_kernel():
    """Return which kernels compute the products: "plain" (`kernels`) or "vector" (`simd`).

    Unless HBN_KERNEL or `set_kernel` say otherwise: vector where the processor has vector registers to hold a block.
    """
    if _kernel not in (None, *KERNELS):
        raise ValueError(f"HBN_KERNEL: expected plain or vector, got {_kernel!r}")
    if not kernels.JIT:
        return "plain"  # the vector kernels are written in the compiler's own words
    return _kernel or ("vector" if simd.register_bits() else "plain")


def set_kernel(name):
    """Use "plain" or "vector" kernels from now on; None chooses by the processor. Both give the same integers."""
    global _kernel
    if name not in (None, *KERNELS):
        raise ValueError(f"name: expected plain or vector, got {name!r}")
    _kernel = name


@contextmanager
def kernel(name):
    """Within the block, use "plain" or "vector" kernels."""
    global _kernel
    before = _kernel
    set_kernel(name)
    try:
        yield
    finally:
        _kernel = before


@lru_cache(maxsize=1)
def _twins():
    """{plain kernel: its vector twin}."""
    return {
        **{plain: simd.xnor_gather(lanes) for lanes, plain in kernels.xnor_gather.items()},
        **{plain: simd.float_gather(lanes) for lanes, plain in kernels.float_gather.items()},
    }


# -------------------------------------------------------------------------------------------------- run


def run(kernel, n, *args, work=0):
    """Call ``kernel(start, stop, *args)`` over pieces of ``range(n)``, on several threads where it pays.

    ``work`` is a rough count of elementary operations. Returns True if any piece returned something true. A product
    is replaced by its vector twin where `get_kernel` says so, except for float64, the type of checks and not of speed.
    """
    global _pool
    if get_kernel() == "vector" and kernel in _twins() and args[-2].dtype.char != "d":  # of alpha, or of out
        kernel = _twins()[kernel]
    if _threads == 1 or work < 500_000 or not kernels.JIT:
        return bool(kernel(0, n, *args))
    count, pool = _threads, _pool  # another Python thread may change the globals meanwhile
    if pool is None:
        pool = _pool = ThreadPoolExecutor(count - 1, thread_name_prefix="hbn")
    step = -(-n // (4 * count * ROWS)) * ROWS  # about four pieces a thread
    pieces = itertools.count(0, step)  # next() is atomic: whoever is free takes the next piece
    others, end = [], n

    def worker():
        found = False
        while (start := next(pieces)) < end:
            found |= bool(kernel(start, min(start + step, n), *args))
        return found

    try:
        with suppress(RuntimeError):  # no more threads, as after the end of the main one: then without
            for _ in range(count - 1):
                others.append(pool.submit(worker))
        found = worker()
    except BaseException:  # Ctrl-C: the others stop at their next piece
        end = 0
        raise
    finally:
        wait(others)  # nobody writes into an array after its owner has gone on
    return any([found, *(other.result() for other in others)])
