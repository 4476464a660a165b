"""Files written whole or not at all, and read without trust: arrays and a JSON header in one .npz, no pickle."""

import json
import math
import os
import re
import sys
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

if sys.platform == "win32":
    import msvcrt

    fcntl = None
else:
    import fcntl

    msvcrt = None

HEADER = "header"
PathLike = Path | str


class FileError(ValueError):
    """A file that cannot be read or written; the message names it."""


def sweep(folder: PathLike, name: str = ".+") -> None:
    """Delete what a killed process left half-written in ``folder``: of files whose names match a pattern.

    Only for who is `alone` there. Otherwise it would delete what others are writing.
    """
    for path in Path(folder).glob(".*.*"):
        if re.fullmatch(rf"\.{name}\.[0-9a-f]{{32}}\.\w+", path.name):
            path.unlink(missing_ok=True)


@contextmanager
def alone(path: PathLike) -> Iterator[None]:
    """Keep other processes away from ``path``, a folder or a file, during the block, and sweep it first.

    Two processes that went on with one study, or with one checkpoint, would overwrite each other's work. The lock is
    the system's: it ends with its process, however that ends. It is on a file of its own, because the files that are
    written are replaced. At the end that file is deleted while it is still locked. A process that has opened it by then
    locks a file that is gone, which does not count.

    Raises
    ------
    FileError
        Another process is in such a block.
    """
    path = Path(path)
    lock = path / ".lock" if path.is_dir() else path.with_name(f".{path.name}.lock")
    handle = os.open(lock, os.O_RDWR | os.O_CREAT)
    try:
        if not _lock(handle, lock):
            raise FileError(f"{path}: is being written by another process")
        try:
            sweep(path) if path.is_dir() else sweep(path.parent, re.escape(path.stem) + r"(\..+)?")
            yield
        finally:
            _delete(lock)
    finally:
        os.close(handle)
        if fcntl is None:  # Windows deletes nothing that is open
            _delete(lock)


def _lock(handle, path):
    """Whether an open file is locked now, for this process alone, and still the one at ``path``."""
    try:
        if fcntl is None:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # some network drives have no locks: go on without
        pass
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _delete(path):
    with suppress(OSError):
        path.unlink()


@contextmanager
def replacing(path: PathLike) -> Iterator[Path]:
    """Yield a temporary path beside ``path``. It takes its place if the block ends well, and is deleted otherwise."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException as error:
        _delete(temporary)
        if isinstance(error, OSError) and error.errno:  # a full disk names no file, a folder names the temporary one
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


def _dumps(content, **options):
    """JSON without NaN; NumPy's numbers become plain ones."""

    def number(value):
        if isinstance(value, np.generic):
            return value.item()
        raise TypeError(f"{type(value).__name__} is not plain data")

    return json.dumps(content, allow_nan=False, default=number, **options)


def plain(content: Any) -> Any:
    """Return content as JSON would give it back, with lists for tuples: to compare it with what a file holds."""
    return json.loads(_dumps(content))


def check_same_study(path: PathLike, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    """Raise a FileError that names the settings of a study in ``path`` that are not ours."""
    differing = ", ".join(key for key in ours if theirs.get(key) != ours[key])
    if differing:
        raise FileError(f"{path}: a study with other settings ({differing}); choose another --out")


def write_json(path: PathLike, content: Any) -> None:
    """Write ``content`` as readable JSON."""
    with replacing(path) as temporary:
        temporary.write_text(_dumps(content, indent=1) + "\n", encoding="utf-8")


def read_json(path: PathLike) -> Any:
    """Read a JSON file; a FileError if it is none."""
    _expect_file(path)
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise FileError(f"{path}: expected a JSON file, could not read it ({error})") from None


def write_arrays(path: PathLike, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Write {name: array} and a JSON header (a dict with a "format" entry) as one .npz."""
    text = np.frombuffer(_dumps(header).encode(), np.uint8)
    content: dict[str, Any] = dict(**{HEADER: text}, **arrays)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **content)


def read_arrays(path: PathLike, expected: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return (header, arrays) of a file whose header's "format" is ``expected``.

    Raises
    ------
    FileError
        The file is missing, damaged, or of another format.
    """
    header, arrays = _read(Path(path))
    if header.get("format") != expected:
        raise FileError(f"{path}: expected the format {expected!r}, found {header.get('format')!r}")
    return header, arrays


def format_of(path: PathLike) -> str | None:
    """Return the "format" that the header of a file names; FileError as of `read_arrays`."""
    return _read(Path(path))[0].get("format")


def _expect_file(path):
    """Raise a FileError for a folder, a device or a pipe: the last two may never end."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise FileError(f"{path}: expected a file, found a {'folder' if os.path.isdir(path) else 'device or a pipe'}")


def _check_claims(content):
    """Raise a ValueError if an array in a zip claims to be larger than it is: NumPy would take that much memory."""
    for member in content.infolist():
        with content.open(member) as file:
            first = np.lib.format.read_magic(file) == (1, 0)
            read_header = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
            shape, _, dtype = read_header(file)
        if math.prod(shape) * dtype.itemsize > member.file_size:
            raise ValueError(f"{member.filename} claims more than it holds")


def _read(path):
    _expect_file(path)
    if os.path.exists(path) and not zipfile.is_zipfile(path):
        raise FileError(f"{path}: damaged, or not a file of this package")
    try:
        with zipfile.ZipFile(path) as content:  # this package compresses nothing: a small file is a small array
            if any(member.file_size != member.compress_size for member in content.infolist()):
                raise ValueError("it is compressed")
            _check_claims(content)
        with np.load(path, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
        header = json.loads(arrays.pop(HEADER).tobytes())
        if not isinstance(header, dict):
            raise ValueError("its header is no dictionary")
    except FileNotFoundError:
        raise FileError(f"{path}: no such file") from None
    except PermissionError:
        raise FileError(f"{path}: may not be read by this user") from None
    except Exception as error:  # a flipped bit in a zip may raise nearly anything, even NotImplementedError
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FileError(f"{path}: damaged, or not a file of this package ({reason})") from None
    return header, arrays
