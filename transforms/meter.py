"""A run's progress: each worker writes its count to a file, and the launcher adds them up.

The files are in the run's staging folder, which works for threads, processes and clusters alike:
Beam's local runners and the Flink and Spark job servers report counters only when the job is over.
"""

from __future__ import annotations

import os
import time
import uuid
from dataclasses import dataclass

from evalbeam.transforms import errors
from evalbeam.transforms.formats import files


@dataclass(frozen=True)
class Board:
    """The folder, local or remote, of the workers' counts, and their write interval in seconds."""

    folder: str
    seconds: float

    def total(self) -> int:
        """The examples of all workers; those of a retried bundle count twice."""
        examples = 0
        for path in files.children(self.folder, "*.examples"):
            with files.open_raw(path) as file:
                examples += int(file.read())
        return examples


class Meter:
    """One worker's count of examples, written to the board."""

    def __init__(self, board: Board) -> None:
        self._path = f"{board.folder}/{uuid.uuid4().hex}.examples"
        self._seconds = board.seconds
        self._examples = 0
        self._written = 0.0

    def add(self, examples: int) -> None:
        """Counts examples; the file is updated at most once per interval.

        Raises:
          JobError: the folder does not exist. This is how a run whose launcher was killed ends:
            the next run removes its folder.
        """
        self._examples += examples
        now = time.monotonic()
        if now - self._written >= self._seconds:
            self._written = now
            try:
                with files.writing(self._path) as path, open(path, "w") as file:
                    file.write(str(self._examples))
            except FileNotFoundError as e:
                raise errors.JobError(
                    f"{os.path.dirname(self._path)} does not exist. Either the process that "
                    "started the job is gone, or this worker cannot see the output folder: use a "
                    "folder that all machines mount, or an s3:// or gs:// URL"
                ) from e
            except (OSError, errors.JobError):
                pass  # Failing to report progress must not fail the job.
