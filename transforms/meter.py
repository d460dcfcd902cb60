"""How far a local run is: each worker keeps a number in a file, whoever watches adds them up.

Files, because they serve threads and processes alike, and Beam's local runners report their own
counters only when the job is over.
"""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path

_SECONDS_BETWEEN_WRITES = 0.2


class Meter:
    """One worker's number of examples, in a file of its own in `folder`."""

    def __init__(self, folder: str) -> None:
        os.makedirs(folder, exist_ok=True)
        self._path = os.path.join(folder, uuid.uuid4().hex)
        self._examples = 0
        self._written = 0.0

    def add(self, examples: int) -> None:
        """Counts examples; the file follows within a moment."""
        self._examples += examples
        now = time.monotonic()
        if now - self._written >= _SECONDS_BETWEEN_WRITES:
            self._written = now
            with open(self._path, "w") as file:
                file.write(str(self._examples))


def total(folder: str | Path) -> int:
    """The examples of all workers."""
    examples = 0
    for path in Path(folder).glob("*"):
        # A file that is being written is empty for a moment.
        examples += int(path.read_text() or 0)
    return examples
