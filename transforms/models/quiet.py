"""Suppresses the start-up messages of TensorFlow and LiteRT."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator

# Lines that absl's C++ log writes before it is set up, which no environment variable silences, such
# as "I0000 00:00:... port.cc:153] oneDNN custom operations are on".
_BANNER = re.compile(rb"WARNING: All log messages before absl::|[IWE]0000 00:00:")
_LITERT_MESSAGES = re.compile(
    rb"INFO: |WARNING: Attempting to use a delegate that only supports static-"
)


@contextlib.contextmanager
def starting_tensorflow() -> Iterator[None]:
    """Buffers stderr during the block and drops TensorFlow's banner from it.

    Does nothing if TensorFlow is already loaded.
    """
    if "tensorflow" in sys.modules:
        yield
        return
    with without(_BANNER):
        yield
        if (tensorflow := sys.modules.get("tensorflow")) is not None:
            # Looks for GPUs now, rather than with a message when it is first used.
            tensorflow.config.list_physical_devices()


@contextlib.contextmanager
def starting_litert() -> Iterator[None]:
    """Buffers stderr during the block and drops LiteRT's messages from it.

    LiteRT's delegate reports once per process that it was created; Python cannot turn that off.
    """
    with without(_LITERT_MESSAGES):
        yield


@contextlib.contextmanager
def without(lines: re.Pattern[bytes]) -> Iterator[None]:
    """Buffers what the process writes to stderr during the block, and drops these lines from it.

    If the process aborts in the block, the buffered output is lost.
    """
    sys.stderr.flush()
    screen = os.dup(2)
    with tempfile.TemporaryFile() as buffer:
        os.dup2(buffer.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(screen, 2)
            os.close(screen)
            buffer.seek(0)
            for line in buffer:
                if not lines.match(line):
                    os.write(2, line)
