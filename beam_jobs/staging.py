"""Where a run's parts are written before it is published, and how it is published."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from transforms import errors


@dataclass(frozen=True)
class Staging:
    """A folder of one attempt at a run; `work` in it is not published."""

    folder: Path

    @property
    def state(self) -> Path:
        """The folder of the merged table."""
        return self.folder / "state"

    @property
    def dead_letters(self) -> Path:
        """A line for each row that could not be scored."""
        return self.folder / "dead_letter" / "rows.jsonl"

    @property
    def work(self) -> Path:
        """What only the run itself reads."""
        return self.folder / "work"

    @property
    def ledgers(self) -> Path:
        """A line for each ledger: what was read and scored, of which data, in what time."""
        return self.work / "ledgers.jsonl"

    @property
    def edges(self) -> Path:
        """A line for each slice column that is cut into quantiles."""
        return self.work / "edges.jsonl"

    @property
    def tfma(self) -> Path:
        """What TFMA computed itself, as its own files."""
        return self.work / "tfma"

    @property
    def progress(self) -> Path:
        """A file for each local worker, with the number of examples that it has added up."""
        return self.work / "progress"


@contextlib.contextmanager
def staged(output: Path, run_id: str) -> Iterator[Staging]:
    """A new staging folder under `output`, which is gone when the block ends, however it ends.

    Raises:
      ConfigError: the folder cannot be made, or the run exists.
    """
    if published(output, run_id).exists():
        raise errors.ConfigError(
            f"{published(output, run_id)} exists already, and a run's results are never changed: "
            "give another --run-id, or none"
        )
    latest = output / "latest"
    if latest.exists() and not latest.is_symlink():
        raise errors.ConfigError(
            f"{latest} is no link to a run's results: move it away, or choose another output"
        )
    # Of this attempt's own: one that was killed may have left another behind.
    here = f"{socket.gethostname()}-{os.getpid()}"
    staging = Staging(output.resolve() / ".staging" / f"{run_id}-{here}")
    _sweep(staging.folder.parent)
    try:
        staging.progress.mkdir(parents=True)
        staging.dead_letters.parent.mkdir()
    except OSError as e:
        raise errors.ConfigError(f"cannot write results to {output}: {e}") from e
    try:
        yield staging
    finally:
        shutil.rmtree(staging.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            staging.folder.parent.rmdir()  # if no other run is staged


def _sweep(folder: Path) -> None:
    """Removes what runs on this machine that were killed have left."""
    for left in folder.glob(f"*-{socket.gethostname()}-*"):
        try:
            os.kill(int(left.name.rpartition("-")[2]), 0)
        except ProcessLookupError:
            shutil.rmtree(left, ignore_errors=True)
        except (PermissionError, ValueError):
            pass  # somebody's, or no run's


def published(output: Path, run_id: str) -> Path:
    """The folder of a run's results."""
    return output / "runs" / run_id


def publish(staging: Staging, output: Path, run_id: str) -> None:
    """Moves the finished folder to its place, then flips `latest`; each step is atomic.

    Raises:
      JobError: another run has taken the place meanwhile, or `latest` is no link.
    """
    shutil.rmtree(staging.work)
    target, latest = published(output, run_id), output / "latest"
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.rename(staging.folder, target)
    except OSError as e:
        raise errors.JobError(f"cannot publish {target}: {e}") from e
    pointer = output / f".latest-{run_id}"
    pointer.symlink_to(Path("runs") / run_id)
    os.replace(pointer, latest)
