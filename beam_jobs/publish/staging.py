"""Where a run's parts are written before it is published, and how it is published.

One layout, whatever the output: workers write to a place that all of them reach, and the driver
finishes the run in a local folder. For a local output that is one folder, which is moved. For a URL
it is a prefix in the store, whose files the driver gathers, and a temporary folder, which it
uploads: a store has no folders to move and no links, but it never shows half an object.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalbeam.transforms import errors
from evalbeam.transforms.formats import files

_UPLOADS = 8  # at once


@dataclass(frozen=True)
class Staging:
    """One attempt at a run.

    Attributes:
      folder: a local folder, which becomes the run's; `work` in it is not published.
      url: where workers write, if not into the folder.
    """

    folder: Path
    url: str | None = None

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
        """A file for each worker, with the number of examples that it has added up."""
        return self.work / "progress"

    def shared(self, path: Path) -> str:
        """Where workers write what is at the folder's `path` once it is gathered."""
        if self.url is None:
            return str(path)
        return f"{self.url}/{path.relative_to(self.folder).as_posix()}"

    def gather(self) -> None:
        """Brings what the workers have written into the folder.

        Raises:
          JobError: it cannot be read.
        """
        if self.url is None:
            return
        # Beside these, Beam may leave files of bundles that failed.
        parts = (self.state / "*.parquet", self.work / "*.jsonl", self.tfma / "*.tfrecord")
        try:
            for pattern in map(self.shared, parts):
                for url in files.match(pattern):
                    files.download(url, str(self.folder / url[len(self.url) + 1 :]))
        except Exception as e:  # every filesystem has errors of its own
            raise errors.JobError(
                f"cannot read what the workers wrote to {self.url}: {files.reason(e)}"
            ) from e

    def entries(self, path: Path) -> list[dict[str, Any]]:
        """The objects of a file of JSON lines, which is not there where there are none."""
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.splitlines()]


def staged(output: str, run_id: str) -> contextlib.AbstractContextManager[Staging]:
    """A new staging place for `output`, which is gone when the block ends, however it ends.

    Raises:
      ConfigError: nothing can be written there, or the run exists.
    """
    if files.is_remote(output):
        return _staged_remotely(output, run_id)
    return _staged_locally(Path(output), run_id)


@contextlib.contextmanager
def _staged_locally(output: Path, run_id: str) -> Iterator[Staging]:
    if (output / "runs" / run_id).exists():
        raise _exists(str(output), run_id)
    latest = output / "latest"
    if latest.exists() and not latest.is_symlink():
        raise errors.ConfigError(
            f"{latest} is no link to a run's results: move it away, or choose another output"
        )
    staging = Staging(output.resolve() / ".staging" / _attempt(run_id))
    _sweep(staging.folder.parent)
    try:
        _make_folders(staging)
    except OSError as e:
        raise errors.ConfigError(f"cannot write results to {output}: {e}") from e
    try:
        yield staging
    finally:
        shutil.rmtree(staging.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            staging.folder.parent.rmdir()  # if no other run is staged


@contextlib.contextmanager
def _staged_remotely(output: str, run_id: str) -> Iterator[Staging]:
    if found := files.match(f"{published(output, run_id)}/**"):
        if f"{published(output, run_id)}/manifest.json" in found:
            raise _exists(output, run_id)
        raise errors.ConfigError(
            f"{published(output, run_id)} is no whole run: one is being uploaded, or was killed "
            "meanwhile. Give another --run-id, or delete what is there"
        )
    with tempfile.TemporaryDirectory(prefix="evalbeam-run-") as folder:
        # What a killed run leaves stays: nobody here can know that it is dead.
        staging = Staging(Path(folder), _under(output, f".staging/{_attempt(run_id)}"))
        _make_folders(staging)
        note = staging.work / "README.txt"
        note.write_text("Parts of a run that is under way. It deletes them when it ends.\n")
        try:
            try:
                files.upload(str(note), staging.shared(note))  # known now, not after hours
            except errors.JobError as e:
                raise errors.ConfigError(f"cannot write results to {output}: {e}") from e
            yield staging
        finally:
            _delete(f"{staging.url}/**")


def _attempt(run_id: str) -> str:
    """A name of this attempt's own: one that was killed may have left another behind."""
    return f"{run_id}@{_machine()}@{os.getpid()}"


def _machine() -> str:
    """What numbers of processes belong to: containers of one name have numbers of their own."""
    try:
        return f"{socket.gethostname()}.{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:  # no Linux
        return socket.gethostname()


def _make_folders(staging: Staging) -> None:
    for folder in (staging.state, staging.dead_letters.parent, staging.tfma, staging.progress):
        folder.mkdir(parents=True)


def _exists(output: str, run_id: str) -> errors.ConfigError:
    return errors.ConfigError(
        f"{published(output, run_id)} exists already, and a run's results are never changed: give "
        "another --run-id, or none"
    )


def _sweep(folder: Path) -> None:
    """Removes what runs on this machine that were killed have left."""
    for left in folder.glob(f"*@{_machine()}@*"):
        try:
            os.kill(int(left.name.rpartition("@")[2]), 0)
        except ProcessLookupError:
            shutil.rmtree(left, ignore_errors=True)
        except (PermissionError, ValueError):
            pass  # somebody's, or no run's


def _delete(pattern: str) -> None:
    """Deletes remote files; says so where it cannot, since more important things are going on."""
    try:
        files.delete(files.match(pattern))
    except Exception as e:  # every filesystem has errors of its own
        print(f"cannot delete {pattern}, which nobody needs: {files.reason(e)}", file=sys.stderr)


def published(output: str, run_id: str) -> str:
    """The path or URL of a run's results."""
    return _under(output, f"runs/{run_id}")


def _under(output: str, name: str) -> str:
    return f"{output.rstrip('/')}/{name}"


def publish(staging: Staging, output: str, run_id: str) -> Path:
    """Brings the finished folder to its place, then flips `latest`, in one step.

    Where it fails, `latest` is what it was, and nothing of the run is left in its place.

    Returns:
      A local folder of the published results, which lasts as long as the staging place.

    Raises:
      JobError: it cannot be written, another run has taken the place meanwhile, or `latest` is no
        link.
    """
    shutil.rmtree(staging.work)
    if staging.url is None:
        return _move(staging.folder, Path(output), run_id)
    _upload(staging.folder, output, run_id)
    return staging.folder


def _move(folder: Path, output: Path, run_id: str) -> Path:
    target, latest = output / "runs" / run_id, output / "latest"
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        raise errors.JobError(f"cannot publish {target}: another run has taken the place")
    try:
        os.rename(folder, target)
    except OSError as e:
        raise errors.JobError(f"cannot publish {target}: {e}") from e
    pointer = output / f".latest-{run_id}"
    pointer.symlink_to(Path("runs") / run_id)
    os.replace(pointer, latest)
    return target


def _upload(folder: Path, output: str, run_id: str) -> None:
    target = published(output, run_id)
    if files.match(f"{target}/**"):
        raise errors.JobError(f"cannot publish {target}: another run has taken the place")
    manifest, pointer = folder / "manifest.json", folder / "latest"
    parts = sorted(path for path in folder.rglob("*") if path.is_file() and path != manifest)
    pointer.write_text(f"runs/{run_id}\n")

    def send(path: Path) -> None:
        files.upload(str(path), f"{target}/{path.relative_to(folder).as_posix()}")

    try:
        # Threads, which an interrupt does not reach: what they have begun, they end.
        with futures.ThreadPoolExecutor(_UPLOADS) as pool:
            list(pool.map(send, parts))
            pool.submit(send, manifest).result()
            pool.submit(files.upload, str(pointer), _under(output, "latest")).result()
    except BaseException:
        if _latest(output) != run_id:  # else it was flipped, and only the answer is lost
            _delete(f"{target}/**")
            raise


def _latest(output: str) -> str | None:
    """The id of the run that a remote `latest` names, if it can be read."""
    try:
        with files.open_raw(_under(output, "latest")) as file:
            return file.read().decode().strip().removeprefix("runs/")
    except Exception:  # every filesystem has errors of its own, for none too
        return None
