"""How kernels are compiled, and where the result is kept: `compiled` stands above each of them.

Numba can keep compiled kernels by itself, in an index and in data files. But two processes that compile at once, or a
disk that fills up between the two files, may leave an index that names another kernel's code. A flipped bit in a data
file is run as it is. And where no folder can be written, the import fails. So here each compiled kernel is one file
with a checksum, whole or not there. If anything is wrong with it or its folder, the kernel is compiled again. Numba
decides which folder it is: NUMBA_CACHE_DIR, else ``__pycache__`` beside the source, else the user's cache.
"""

import hashlib
import os
import pickle
import sys
import uuid
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numba
from numba import config, njit
from numba.core.caching import CompileResultCacheImpl, NullCache
from numba.core.serialize import dumps

SUFFIX = ".kernel"
_warned = False


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a kernel: ``numba.njit`` without the GIL, with NumPy's division, and kept from process to process.

    ``options`` go to ``njit``, too. With ``NUMBA_DISABLE_JIT=1`` the function stays as it is.
    """
    options = {"nogil": True, "error_model": "numpy", **options}

    def decorate(function):
        kernel = njit(**options)(function)
        if not config.DISABLE_JIT:
            kernel._cache = _Kept(function, options)
        return kernel

    return decorate


def _digest(*parts):
    return hashlib.sha256(repr(parts).encode()).hexdigest()


class _Kept(NullCache):
    """Numba's dispatcher asks it for a compiled kernel, and gives it one to keep. No error leaves it."""

    def __init__(self, function, options):
        self.function, self.options = function, options
        self.place: Any = None  # found at the first use

    def load_overload(self, sig, target_context):
        """The compiled kernel for the types ``sig``, or None."""
        target_context.refresh()
        try:
            path = self._path(sig, target_context.codegen())
            found = path.read_bytes()
            if found[:32] == _checksum(path, found[32:]):
                return self.place.rebuild(target_context, pickle.loads(found[32:]))
        except Exception:  # none kept, no folder, another Numba's: in each case compile it
            pass
        return None

    def save_overload(self, sig, result):
        """Keep a compiled kernel, if that is possible."""
        try:
            path = self._path(sig, result.codegen)
            if not self.place.check_cachable(result):
                return
            content = dumps(self.place.reduce(result))
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, _checksum(path, content) + content)
            _sweep(path)
        except Exception as error:
            _warn(error)

    def _path(self, sig, codegen):
        """NAME.PYTHON.SOURCE.KEY.kernel: the name holds everything that the code depends on."""
        if self.place is None:
            try:
                self.place = CompileResultCacheImpl(self.function)
            except RuntimeError:  # Numba found no folder
                raise OSError("there is no folder that can be written") from None
        locator, function = self.place.locator, self.function
        name = f"{Path(function.__code__.co_filename).stem}.{function.__qualname__}".replace("<", "").replace(">", "")
        python = f"py{sys.version_info[0]}{sys.version_info[1]}{getattr(sys, 'abiflags', '')}"
        source = _digest(numba.__version__, locator.get_source_stamp())
        closure = dumps(tuple(cell.cell_contents for cell in function.__closure__ or ()))
        key = _digest(str(sig), codegen.magic_tuple(), function.__code__.co_code, closure, self.options)
        return Path(locator.get_cache_path(), f"{name}.{python}.{source[:12]}.{key[:24]}{SUFFIX}")


def _checksum(path, content):
    return hashlib.sha256(path.name.encode() + content).digest()  # with the name: no kernel is taken for another


def _write(path, content):
    """Write a file that is whole or not there, whoever else writes it."""
    temporary = path.with_suffix(f".{uuid.uuid4().hex[:8]}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        if not path.exists():  # Windows replaces no open file; what is there is as good
            raise


def _sweep(path):
    """Delete what the same kernel left here when its source was another."""
    name, source, *_ = path.name.rsplit(".", 3)
    for other in path.parent.iterdir():
        if other.name.startswith(f"{name}.") and not other.name.startswith(f"{name}.{source}."):
            with suppress(OSError):
                other.unlink()


def _warn(error):
    global _warned
    if not _warned:
        _warned = True
        warnings.warn_explicit(
            f"compiled kernels cannot be kept ({error}): each process compiles them again;"
            " set NUMBA_CACHE_DIR to a folder that can be written",
            RuntimeWarning, "hbn_ref", 1,
        )  # fmt: skip
