"""Errors meant for the user, each with the exit code of the command line."""

import difflib
import errno
import re
from collections.abc import Iterable, Sequence

# The most names that `shortened` lists.
_NAMES = 10
# Of an OSError: the disk is full or read-only, or a limit is reached.
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


class EvalbeamError(Exception):
    """Says what was wrong, the actual value, what is allowed and what to do.

    The command line prints the text without a traceback and exits with `exit_code`.
    """

    exit_code = 4


class ConfigError(EvalbeamError):
    """A mistake in the command line or the config, or data and models that do not match it.

    Attributes:
      keys: where in the config it is, if known: the keys from the outermost on.
    """

    exit_code = 2

    def __init__(self, message: str, keys: tuple[str | int, ...] = ()) -> None:
        super().__init__(message)
        self.keys = keys


class NotComparableError(EvalbeamError):
    """Results that cannot be compared, or too little data to decide."""

    exit_code = 3


class JobError(EvalbeamError):
    """The job ran and failed, and a retry may succeed; nothing was published."""

    exit_code = 4


class DataError(JobError):
    """The job failed because of data or predictions, which a retry does not change."""

    exit_code = 2


def printable(text: str) -> str:
    """Text to print: its control characters are escaped, and passwords in its URLs are hidden.

    A name in data could otherwise clear the screen, move the cursor, or look like a line of ours.
    Lines of `text` stay lines.

    >>> print(printable("\\x1b[2J0 dead letters"))
    \\x1b[2J0 dead letters
    >>> print(printable("s3://key:secret@bucket/data.csv"))
    s3://(hidden)@bucket/data.csv
    """
    return _CREDENTIALS.sub("://(hidden)@", text.translate(_ESCAPES))


_CREDENTIALS = re.compile(r"://[^/@\s]*@")


# Control characters, separators of lines, and marks of direction; not the line feed.
_CONTROLS = ((0, 10), (11, 32), (127, 160), (0x200E, 0x2010), (0x2028, 0x202F), (0x2066, 0x206A))
_ESCAPES = {code: repr(chr(code))[1:-1] for first, end in _CONTROLS for code in range(first, end)}


def listed(names: Iterable[str]) -> str:
    """Quoted names, separated by commas, for an error message."""
    return ", ".join(repr(name) for name in names)


def shortened(names: Sequence[str]) -> str:
    """Like `listed`, but only the first few of many names."""
    more = f", ... ({len(names)} in all)" if len(names) > _NAMES else ""
    return f"{listed(names[:_NAMES])}{more}"


def nearest(name: str, valid: Iterable[str]) -> str:
    """The first few of the valid names, those like `name` first; "none" if there are none."""
    names = sorted(valid)
    near = difflib.get_close_matches(name, names, n=3)
    return shortened([*near, *(other for other in names if other not in near)]) or "none"


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """A sentence to append to an error message: the closest valid name; "" if none is close."""
    near = difflib.get_close_matches(name, list(valid), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
