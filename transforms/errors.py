"""The errors that a user is meant to read, each with the exit code of the command line."""

import difflib
from collections.abc import Iterable


class EvalbeamError(Exception):
    """What went wrong, with which value, what was allowed and what to do.

    The command line prints the text alone, without a traceback, and exits with `exit_code`.
    """

    exit_code = 4


class ConfigError(EvalbeamError):
    """The command line, the config, or data and models that do not fit it."""

    exit_code = 2


class NotComparableError(EvalbeamError):
    """Results that may not be compared, or too little data to decide."""

    exit_code = 3


class JobError(EvalbeamError):
    """The job ran and failed; nothing was published."""

    exit_code = 4


def listed(names: Iterable[str]) -> str:
    """Names, quoted, for an error's text."""
    return ", ".join(repr(name) for name in names)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence for the end of an error's text: the known name that is nearest; "" if none is."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
