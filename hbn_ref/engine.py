"""The engine room's controls: how many threads, which kernels, and the one function that calls them.

The threads are a pool of Python threads, and the kernels release the GIL: there is nothing to install or to choose,
and fork makes no trouble. No result depends on their number. Nothing here calls BLAS, whose own threads would compete.
"""

import itertools
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from queue import SimpleQueue
from typing import Any

import numpy as np

from . import kernels, simd

MOST_THREADS = 1024  # more than a machine can use, fewer than a system refuses
ROWS = 24  # threads take rows in multiples of this, which is a multiple of the rows of every block


def _default_threads():
    wanted = os.environ.get("HBN_NUM_THREADS", "")
    if wanted.isdigit() and 0 < int(wanted[:9]) <= MOST_THREADS:
        return int(wanted)
    if wanted:
        expected = f"expected a whole number from 1 to {MOST_THREADS}"
        warnings.warn(f"HBN_NUM_THREADS: {expected}, got {wanted!r}", stacklevel=2)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_threads = _default_threads()
_pool = None


def _forget_pool():
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):  # a forked child has no worker threads: let it start its own
    os.register_at_fork(after_in_child=_forget_pool)


def get_num_threads() -> int:
    """Return how many threads kernels may use."""
    return _threads


def set_num_threads(threads: int) -> None:
    """Use ``threads`` threads in kernels from now on. No result depends on the number."""
    global _threads, _pool
    if not isinstance(threads, (int, np.integer)) or not 1 <= threads <= MOST_THREADS:
        raise ValueError(f"threads: expected a whole number from 1 to {MOST_THREADS}, got {threads!r}")
    _threads, _pool = int(threads), None


@contextmanager
def threads(number: int) -> Iterator[None]:
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


def get_kernel() -> str:
    """Return which kernels compute the products: "plain" (`kernels`) or "vector" (`simd`).

    HBN_KERNEL or `set_kernel` chooses. Otherwise it is vector if the processor has vector registers for a block.
    """
    if _kernel not in (None, *KERNELS):
        raise ValueError(f"HBN_KERNEL: expected plain or vector, got {_kernel!r}")
    if not kernels.JIT:
        return "plain"  # the vector kernels are written in the compiler's own words
    return _kernel or ("vector" if simd.register_bits() else "plain")


def set_kernel(name: str | None) -> None:
    """Use "plain" or "vector" kernels from now on; None chooses by the processor. Both give the same integers."""
    global _kernel
    if name not in (None, *KERNELS):
        raise ValueError(f"name: expected plain or vector, got {name!r}")
    _kernel = name


@contextmanager
def kernel(name: str | None) -> Iterator[None]:
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


def run(kernel: Callable[..., Any], n: int, *args: Any, work: int = 0) -> bool:
    """Call ``kernel(start, stop, *args)`` over pieces of ``range(n)``, on several threads if it pays.

    ``work`` is a rough count of elementary operations. Returns True if any piece returned something true. If
    `get_kernel` says so, the vector twin of a product is called instead; but not for float64, the type of checks.
    """
    global _pool
    if get_kernel() == "vector" and kernel in _twins() and args[-2].dtype.char != "d":  # of alpha, or of out
        kernel = _twins()[kernel]
    if _threads == 1 or work < 500_000 or not kernels.JIT:
        return bool(kernel(0, n, *args))
    count, pool = _threads, _pool  # another Python thread may change the globals meanwhile
    if pool is None:
        pool = _pool = _Pool(count - 1)
    step = -(-n // (4 * count * ROWS)) * ROWS  # about four pieces per thread
    return pool.share(lambda start: kernel(start, min(start + step, n), *args), n, step)


class _Pool:
    """Threads that call what comes out of a queue, until nobody holds the pool any more.

    They are not those of concurrent.futures, whose locks are Python code: Ctrl-C can leave these locked for ever.
    """

    size = 0

    def __init__(self, size):
        self.queue: SimpleQueue[Any] = SimpleQueue()
        with suppress(RuntimeError):  # the system has no more threads, or the program ends: do with fewer, or none
            for _ in range(size):
                threading.Thread(target=_serve, args=(self.queue,), name="hbn", daemon=True).start()
                self.size += 1

    def __del__(self):
        for _ in range(self.size):
            self.queue.put(None)

    def share(self, call, n, step):
        """Call ``call(start)`` for every start in ``range(0, n, step)``, here and in the threads; True if any was."""
        pieces = itertools.count(0, step)  # next() is atomic: each thread takes the next piece when it is free
        end = n
        busy: list[None] = []
        results: SimpleQueue[Any] = SimpleQueue()

        def work():
            found = False
            while (start := next(pieces)) < end:
                found |= bool(call(start))
            return found

        def help_out():
            busy.append(None)
            try:
                results.put(work())
            except BaseException as error:
                results.put(error)
            finally:
                busy.pop()

        try:
            for _ in range(self.size):
                self.queue.put(help_out)
            found = [work(), *(results.get() for _ in range(self.size))]
        except BaseException:  # Ctrl-C: begin no more pieces, and wait for those at work
            end = 0
            while busy:
                time.sleep(0.001)
            raise
        for error in found:
            if isinstance(error, BaseException):
                raise error
        return any(found)


def _serve(queue):
    for call in iter(queue.get, None):
        call()
        del call  # it holds arrays
