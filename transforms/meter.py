"""How far a run is: each worker keeps a number in a file, whoever watches adds them up.

Files where the run is staged, because they serve threads, processes and clusters alike: Beam's
local runners and the job servers of Flink and Spark report counters only when the job is over.
"""

from __future__ import annotations

import glob
import os
import time
import uuid
from dataclasses import dataclass

from evalbeam.transforms import errors
from evalbeam.transforms.formats import files


@dataclass(frozen=True)
class Board:
    """A folder, local or remote, of the workers' numbers, and how often they write, in seconds."""

    folder: str
    seconds: float

    def total(self) -> int:
        """The examples of all workers; those of a bundle that was tried twice count twice."""
        examples = 0
        folder = self.folder if files.is_remote(self.folder) else glob.escape(self.folder)
        for path in files.match(f"{folder}/*.examples"):
            with files.open_raw(path) as file:
                examples += int(file.read())
        return examples


class Meter:
    """One worker's number of examples, on the board."""

    def __init__(self, board: Board) -> None:
        self._path = f"{board.folder}/{uuid.uuid4().hex}.examples"
        self._seconds = board.seconds
        self._examples = 0
        self._written = 0.0

    def add(self, examples: int) -> None:
        """Counts examples; the file follows within a moment.

        Raises:
          JobError: the folder is not there. A run whose launcher was killed so ends once
            another has removed what it left.
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
                    f"{os.path.dirname(self._path)} is not there: whoever started the job is gone, "
                    "or this worker does not see the output: use a folder that all machines mount, "
                    "or an s3:// or gs:// URL"
                ) from e
            except (OSError, errors.JobError):
                pass  # A number that cannot be written is not worth a job.
