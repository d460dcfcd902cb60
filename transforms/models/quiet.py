"""Keeps the start-up banners of TensorFlow and LiteRT off the user's screen."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator

# Lines of absl's C++ log from before it is set up, which no environment variable silences:
# "I0000 00:00:... port.cc:153] oneDNN custom operations are on", and that there is no GPU.
_BANNER = re.compile(rb"WARNING: All log messages before absl::|[IWE]0000 00:00:")
_LITERT_NEWS = re.compile(
    rb"INFO: |WARNING: Attempting to use a delegate that only supports static-"
)


@contextlib.contextmanager
def starting_tensorflow() -> Iterator[None]:
    """Holds back what the process writes to stderr in this block, and drops the banner from it.

    Where TensorFlow is loaded already the block runs as it is.
    """
    if "tensorflow" in sys.modules:
        yield
        return
    with without(_BANNER):
        yield


@contextlib.contextmanager
def starting_litert() -> Iterator[None]:
    """Holds back what the process writes to stderr in this block, and drops LiteRT's news from it.

    Its delegate tells, once per process, that it was created; the log has no switch in Python.
    """
    with without(_LITERT_NEWS):
        yield


@contextlib.contextmanager
def without(lines: re.Pattern[bytes]) -> Iterator[None]:
    """Holds back what the process writes to stderr in this block, and drops these lines from it.

    A process that aborts in the block takes what was held back with it.
    """
    sys.stderr.flush()
    screen = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(screen, 2)
            os.close(screen)
            held.seek(0)
            for line in held:
                if not lines.match(line):
                    os.write(2, line)
