"""How much memory there is, asked before much of it is taken: so a size that no machine has ends at once, in a line."""

import os
import sys
from pathlib import Path

if sys.platform == "win32":
    resource = None
else:
    import resource

LITTLE = 2**26  # bytes: for less, nobody asks; to look up what is free takes longer than some predictions
ADDRESSES = 2**47  # bytes that a process can address: the limit where the system names none


def _meminfo(path="/proc/meminfo"):
    """Bytes that Linux can still give, swap included."""
    found = {}
    for line in Path(path).read_text().splitlines():
        name, _, rest = line.partition(":")
        found[name] = 1024 * int(rest.split()[0])
    return found["MemAvailable"] + found.get("SwapFree", 0)


def _cgroup(groups="/proc/self/cgroup", mount="/sys/fs/cgroup"):
    """Bytes that control groups (version 2 or 1) leave this process: its own, and those above it."""
    least = None
    for line in Path(groups).read_text().splitlines():
        _, controllers, inner = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        top, limit, usage = (
            ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes")
            if controllers
            else ("", "memory.max", "memory.current")
        )
        below = Path(inner.lstrip("/"))
        for folder in [below, *below.parents]:
            left = _left(Path(mount, top, folder), limit, usage)
            if left is not None and (least is None or left < least):
                least = left
    return least


def _left(folder, limit, usage):
    """Bytes that one group may still take; files that are cached in memory give way."""
    try:
        most, taken = int((folder / limit).read_text()), int((folder / usage).read_text())
        rows = [line.split() for line in (folder / "memory.stat").read_text().splitlines()]
        stat = {name: int(value) for name, value in rows}
        files = sum(stat.get(f"total_{name}", stat.get(name, 0)) for name in ("active_file", "inactive_file"))
        return max(0, most - max(0, taken - files))
    except (OSError, ValueError):  # no such group here, or "max"
        return None


def _process():
    """Bytes of addresses that ``ulimit -v`` leaves this process."""
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    if most == resource.RLIM_INFINITY:
        return None
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return max(0, most - pages * resource.getpagesize())


def _physical():
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def available() -> int:
    """Return the bytes that this process may still take: the least of what the machine, a container and a limit leave.

    If the system does not say what is free, it is the memory that is built in, or at last what a process can address.
    """
    found = []
    for source in (_meminfo, _cgroup, _process):
        try:
            found.append(source())
        except (OSError, ValueError, KeyError, IndexError, AttributeError):  # not Linux, or no /proc
            pass
    known = [count for count in found if count is not None]
    if known:
        return min(known)
    try:
        return _physical()
    except (OSError, ValueError, AttributeError):
        return ADDRESSES


def words(count: int) -> str:
    """Return a number of bytes in words: 21.3 GiB."""
    size = float(min(count, 10**300))
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"):
        if size < 1024 or unit == "EiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}" if size < 1e5 else f"{size:.1e} {unit}"


def short(count: int) -> str | None:
    """Return what is wrong with taking ``count`` bytes, "5.0 TiB of memory, and 21.3 GiB are free", or None."""
    if count <= LITTLE:
        return None
    free = available()
    return None if count <= free else f"{words(count)} of memory, and {words(free)} are free"


def ask(what: str, count: int) -> None:
    """Raise a ValueError that begins with ``what`` unless ``count`` bytes can be had."""
    if text := short(count):
        raise ValueError(f"{what} would take {text}")
