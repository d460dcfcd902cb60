"""How much memory a process has come to hold, where Linux says so."""

from __future__ import annotations

import contextlib
import pathlib
import re

# Written to a process's clear_refs, makes its peak what it holds now; see proc(5).
_RESET_PEAK = "5"


class Watch:
    """What this process holds from now on, beyond what it holds now, in bytes.

    Memory that was freed before and is used again does not show.
    """

    def __init__(self) -> None:
        self._before = None
        with contextlib.suppress(OSError):
            pathlib.Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
            self._before = _read("VmRSS")

    def peak(self) -> int | None:
        """The most so far; None where the system does not say."""
        most = None if self._before is None else _read("VmHWM")
        return None if most is None or self._before is None else max(0, most - self._before)

    def kept(self) -> int | None:
        """What it holds now."""
        now = None if self._before is None else _read("VmRSS")
        return None if now is None or self._before is None else max(0, now - self._before)


def peak_of(pid: int) -> int | None:
    """The most that another process has ever held, in bytes; None where that is not known."""
    return _read("VmHWM", pid)


def _read(what: str, pid: int | str = "self") -> int | None:
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    found = re.search(rf"^{what}:\s+(\d+) kB", status, re.M)
    return int(found[1]) * 1024 if found else None
