"""The memory of a process, where Linux reports it, of the machine, and what to do without."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re

# Written to a process's clear_refs, resets its peak to the current value; see proc(5).
_RESET_PEAK = "5"
_CONTAINER_LIMIT = pathlib.Path("/sys/fs/cgroup/memory.max")


class Watch:
    """The memory, in bytes, that this process gains from now on.

    Reused memory that was freed earlier is not counted.
    """

    def __init__(self) -> None:
        self._before = None
        with contextlib.suppress(OSError):
            pathlib.Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
            self._before = _read("VmRSS")

    def peak(self) -> int | None:
        """The peak so far; None if the system does not report it."""
        highest = None if self._before is None else _read("VmHWM")
        return None if highest is None or self._before is None else max(0, highest - self._before)

    def kept(self) -> int | None:
        """The current value; None if the system does not report it."""
        now = None if self._before is None else _read("VmRSS")
        return None if now is None or self._before is None else max(0, now - self._before)


def limit_bytes() -> int:
    """The memory of the machine, or the container's limit if that is smaller."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):
        memory = min(memory, int(_CONTAINER_LIMIT.read_text()))
    return memory


def explain(text: str) -> str:
    """What to do about an error, whose text is given, since memory ran out."""
    what = re.search(r"Unable to allocate [^\n\[]*", text)
    return (
        f"out of memory{f': {what[0].strip()}' if what else ''}; this machine, or its container, "
        f"has {limit_bytes() / 1e9:.1f} GB. A smaller `data.batch_size`, fewer slices, thresholds "
        "and buckets, and one process (--direct_num_workers=1) take less; nothing was published"
    )


def peak_of(pid: int) -> int | None:
    """The peak memory of another process, in bytes; None if unknown."""
    return _read("VmHWM", pid)


def _read(field: str, pid: int | str = "self") -> int | None:
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    match = re.search(rf"^{field}:\s+(\d+) kB", status, re.M)
    return int(match[1]) * 1024 if match else None
