"""Stages a run's parts before it is published, and publishes it.

The layout is the same for every output: workers write to a location that all of them can reach, and
the driver finishes the run in a local folder. For a local output, both are the same folder, which
the driver moves. For a URL, workers write under a prefix in the store; the driver gathers their
files in a temporary folder and uploads it: a store has neither folders to move nor links, but it
never shows a partial object.
"""

from __future__ import annotations

import contextlib
import fnmatch
import glob
import json
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalbeam.beam_jobs.config import NAME, NAME_RULE
from evalbeam.transforms import errors
from evalbeam.transforms.formats import files
from evalbeam.transforms.results.index import Index
from evalbeam.transforms.sinks import state, tables

_TRANSFERS = 8  # at once
_STAGING = ".staging"
# How often a folder is created in one that other runs delete when they end.
_TRIES = 100
# More than any `latest` has.
_LATEST_BYTES = 1 << 12
# `latest` while it is written.
_POINTER = ".latest-"
# In the name of a run's folder while it is replaced.
_OLD = "@old"
_INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Staging:
    """The staging location of an attempt at a run.

    Attributes:
      folder: a local folder, which becomes the run's folder; its `work` is not published.
      url: where workers write, if not to the folder.
    """

    folder: Path
    url: str | None = None

    @property
    def state(self) -> Path:
        """The folder of the state, see `sinks.state`."""
        return self.folder / "state"

    @property
    def index(self) -> Path:
        """The index of the state's parts."""
        return self.state / state.INDEX

    @property
    def tfma(self) -> Path:
        """The folder of the TFMA result."""
        return self.folder / "tfma"

    @property
    def dead_letters(self) -> Path:
        """A line for each row that could not be scored."""
        return self.folder / "dead_letter" / "rows.jsonl"

    @property
    def work(self) -> Path:
        """The folder of files that only the run itself reads."""
        return self.folder / "work"

    @property
    def ledgers(self) -> Path:
        """A line for each ledger."""
        return self.work / "ledgers.jsonl"

    @property
    def edges(self) -> Path:
        """A line for each slice column that is cut into quantiles."""
        return self.work / "edges.jsonl"

    @property
    def classes(self) -> Path:
        """A line for each output whose classes were found in the data."""
        return self.work / "classes.jsonl"

    @property
    def tables(self) -> dict[str, Path]:
        """By table of results, the folder of its parts."""
        return {name: self.work / name for name in tables.SCHEMAS}

    @property
    def finished(self) -> Path:
        """A line for each finished part of the state."""
        return self.work / "finished.jsonl"

    @property
    def progress(self) -> Path:
        """A file for each worker, with the number of examples that it has added up."""
        return self.work / "progress"

    def shared(self, path: Path) -> str:
        """Where workers write what `path`, in the folder, has once it is gathered."""
        if self.url is None:
            return str(path)
        return f"{self.url}/{path.relative_to(self.folder).as_posix()}"

    def gather(self) -> None:
        """Gathers what the workers wrote in the folder, without what killed ones left unfinished.

        Raises:
          JobError: it cannot be read.
        """
        if self.url is None:
            for path in self.folder.rglob(f"*{files.UNFINISHED}"):
                path.unlink(missing_ok=True)
            return
        # Beam may also leave files of failed bundles.
        parts = (
            *(self.state / pattern for pattern in ("*.parquet", "*.tfrecord", "*.json")),
            *(folder / "*.parquet" for folder in self.tables.values()),
            self.tfma / "*.tfrecord",
            self.work / "*.jsonl",
        )
        try:
            urls = [url for pattern in map(self.shared, parts) for url in files.match(pattern)]
            _download({url: self.folder / url[len(self.url) + 1 :] for url in urls})
        except errors.JobError:  # names the file
            raise
        except Exception as e:  # every filesystem has its own errors
            raise errors.JobError(
                f"cannot read what the workers wrote to {self.url}: {files.reason(e)}"
            ) from e

    def copy_state(self, folder: str) -> None:
        """Copies a saved state to the folder; raises JobError if it cannot be read."""
        _download({path: self.state / path.rpartition("/")[2] for path in files.children(folder)})

    def read_index(self) -> Index:
        """The index of the state's parts, as the pipeline wrote it."""
        return Index.from_json(self.index.read_text(encoding="utf-8"))

    def keep_parts(self, index: Index) -> None:
        """Removes files from the state that the index does not list: a retried task's."""
        listed = {part.name for part in index.parts}
        for path in (*self.state.glob("*.parquet"), *self.state.glob("*.tfrecord")):
            if path.name not in listed:
                path.unlink()

    def read_entries(self, path: Path) -> list[dict[str, Any]]:
        """Reads a file of JSON lines; a missing file has none."""
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.splitlines()]


def _download(paths: Mapping[str, Path]) -> None:
    """Copies files, local or remote, to local paths."""
    with futures.ThreadPoolExecutor(_TRANSFERS) as pool:
        list(pool.map(files.download, paths, map(str, paths.values())))


def staged(output: str, run_id: str) -> contextlib.AbstractContextManager[Staging]:
    """A new staging location for `output`, which is deleted on exit in any case.

    Raises:
      ConfigError: the output is not writable, or the run exists.
    """
    if files.is_remote(output):
        return _stage_remotely(output, run_id)
    return _stage_locally(Path(output), run_id)


def check_output(output: str, run_id: str) -> None:
    """Checks a local output, without writing to it; stores are checked by `stores.check`.

    Raises:
      ConfigError: it is not writable, or the run exists.
    """
    if files.is_remote(output):
        return
    folder = Path(output).absolute()
    try:
        str(folder).encode()
        if (folder / "runs" / run_id).exists():
            raise _report_existing(output, run_id)
        for path in (folder, folder / "runs"):
            existing = next(path for path in (path, *path.parents) if path.exists())
            if not existing.is_dir():
                raise _report_unusable(output, f"{existing} is a file")
            if not os.access(existing, os.W_OK | os.X_OK):
                raise _report_unusable(output, f"{existing} cannot be written to")
        if (folder / _STAGING).is_file():
            raise _report_unusable(output, f"{folder / _STAGING} is a file")
    except OSError as e:  # such as a name that is too long
        raise _report_unusable(output, str(e.strerror)) from e
    except UnicodeEncodeError as e:
        raise _report_unusable(output, f"{str(folder)!r} is not UTF-8") from e
    latest = folder / "latest"
    if latest.exists() and not latest.is_symlink() and _read_latest(output) is None:
        raise errors.ConfigError(
            f"{latest} is not a link to a run's results: move it away, or choose another output"
        )


def _report_unusable(output: str, problem: str) -> errors.ConfigError:
    return errors.ConfigError(
        f"output {output}: {problem}; choose another output, in the config or with --output"
    )


@contextlib.contextmanager
def _stage_locally(output: Path, run_id: str) -> Iterator[Staging]:
    check_output(str(output), run_id)
    with _create_locally(output, run_id) as staging:
        yield staging


@contextlib.contextmanager
def replacing(run: str) -> Iterator[Staging]:
    """A staging location for new results of a local run folder, deleted on exit.

    Raises:
      ConfigError: the run is at a URL, or its folder is not writable.
    """
    if files.is_remote(run):
        raise errors.ConfigError(
            f"{run}: a store cannot replace a run atomically: add --output, a folder or URL"
        )
    folder = Path(run)
    with _create_locally(folder.parent, folder.name) as staging:
        yield staging


@contextlib.contextmanager
def _create_locally(parent: Path, name: str) -> Iterator[Staging]:
    staging = Staging(parent.resolve() / _STAGING / _attempt(name))
    _sweep(staging.folder.parent)
    try:
        try:
            _make_folders(staging)
        except OSError as e:
            kind = errors.JobError if e.errno in errors.UNWRITABLE else errors.ConfigError
            raise kind(f"cannot write results to {parent}: {e}") from e
        yield staging
    finally:
        shutil.rmtree(staging.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            staging.folder.parent.rmdir()  # unless another run is staged


@contextlib.contextmanager
def _stage_remotely(output: str, run_id: str) -> Iterator[Staging]:
    if paths := files.match(f"{run_path(output, run_id)}/**"):
        if f"{run_path(output, run_id)}/manifest.json" in paths:
            raise _report_existing(output, run_id)
        raise errors.ConfigError(
            f"{run_path(output, run_id)} is incomplete: its upload is under way, or was killed. "
            "Use another --run-id, or delete it"
        )
    with tempfile.TemporaryDirectory(prefix="evalbeam-run-") as folder:
        # What a killed run left stays, since nothing here shows that it is dead.
        staging = Staging(Path(folder), _join(output, f"{_STAGING}/{_attempt(run_id)}"))
        _make_folders(staging)
        note = staging.work / "README.txt"
        note.write_text("Parts of a run that is under way. It deletes them when it ends.\n")
        try:
            try:
                files.upload(str(note), staging.shared(note))  # fails now, not after hours
            except errors.JobError as e:
                raise errors.ConfigError(f"cannot write results to {output}: {e}") from e
            yield staging
        finally:
            _delete(f"{staging.url}/**")


def check_run_id(run_id: str | None) -> str | None:
    """Returns the id; raises ConfigError if it is not a valid one."""
    if run_id is not None and not re.fullmatch(NAME, run_id):
        raise errors.ConfigError(f"--run-id {run_id!r}: {NAME_RULE}")
    return run_id


def new_run_id(name: str) -> str:
    """A unique id: the name, the time and random digits."""
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    return f"{name[:100]}-{stamp}-{os.urandom(2).hex()}"


def _attempt(run_id: str) -> str:
    """A name for this attempt, as a killed one may have left its folder."""
    return f"{run_id}@{_machine()}@{os.getpid()}"


def _machine() -> str:
    """The namespace of process ids: containers may share a host name, but not their ids."""
    try:
        return f"{socket.gethostname()}.{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:  # not Linux
        return socket.gethostname()


def _make_folders(staging: Staging) -> None:
    for tries in range(_TRIES):
        try:
            staging.folder.mkdir(parents=True, exist_ok=True)
            break
        except (FileNotFoundError, FileExistsError):  # another run has just deleted the parent
            if tries == _TRIES - 1:
                raise
    for folder in (
        staging.state,
        staging.dead_letters.parent,
        staging.tfma,
        staging.progress,
        *staging.tables.values(),
    ):
        folder.mkdir(parents=True)


def _report_existing(output: str, run_id: str) -> errors.ConfigError:
    return errors.ConfigError(
        f"{run_path(output, run_id)} already exists, and published results are never changed: "
        "use another --run-id or --output"
    )


def _sweep(folder: Path) -> None:
    """Removes what killed runs on this machine left, and brings back what they were replacing."""
    with contextlib.suppress(OSError):  # there is none, or another run sweeps it
        for name in _list_left(folder):
            run, _, _ = name.partition(f"{_OLD}@")
            if run != name and not (folder.parent / run).exists():
                os.rename(folder / name, folder.parent / run)
            else:
                shutil.rmtree(folder / name, ignore_errors=True)


def _list_left(folder: Path) -> list[str]:
    """The names of what killed attempts on this machine left in a folder; raises OSError."""
    names = fnmatch.filter(os.listdir(folder), f"*@{glob.escape(_machine())}@*")
    return [name for name in names if _is_dead(name.rpartition("@")[2])]


def _is_dead(process: str) -> bool:
    """Whether there is no process with this id; not of other users' or what is no id."""
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, ValueError):
        pass
    return False


def _delete(pattern: str) -> None:
    """Deletes remote files; only prints a note if it fails, as it runs during cleanup."""
    try:
        files.delete(files.match(pattern))
    except Exception as e:  # every filesystem has its own errors
        print(
            f"cannot delete {pattern}, which is no longer needed: {files.reason(e)}",
            file=sys.stderr,
        )


def run_path(output: str, run_id: str) -> str:
    """The path or URL of a run's results."""
    return _join(output, f"runs/{run_id}")


def _join(output: str, name: str) -> str:
    return f"{output.rstrip('/')}/{name}"


def publish(staging: Staging, output: str, run_id: str) -> Path:
    """Publishes the finished folder as a run, then updates `latest` atomically.

    If it fails, `latest` is unchanged, and no part of the run remains at its path. Signals come
    before, and then nothing is published, or too late: from then on, this process ignores them.

    Returns:
      A local folder with the published results, which lasts as long as the staging location.

    Raises:
      JobError: it cannot be written, or another run was published under this id in the meantime.
    """
    shutil.rmtree(staging.work)
    if staging.url is None:
        return _move(staging.folder, Path(output), run_id)
    _upload(staging.folder, output, run_id)
    return staging.folder


def replace(staging: Staging, run: str) -> Path:
    """Replaces a local run with the finished folder; signals are as for `publish`.

    Raises:
      JobError: the folder cannot be moved; the run is unchanged.
    """
    shutil.rmtree(staging.work)
    target = Path(run)
    # A killed process leaves this, and `_sweep` brings it back.
    old = staging.folder.with_name(_attempt(f"{target.name}{_OLD}"))
    with _final():
        try:
            os.rename(target, old)
            try:
                os.rename(staging.folder, target)
            except OSError:
                os.rename(old, target)
                raise
        except OSError as e:
            raise errors.JobError(f"cannot replace {target}: {e}") from e
        shutil.rmtree(old, ignore_errors=True)
    return target


@contextlib.contextmanager
def _final() -> Iterator[None]:
    """Ignores what would interrupt the block and, unless it fails, all that follows it.

    In the main thread only, which is the one that signals interrupt. Python keeps what is ignored,
    unlike what has a handler, to the very end of the process.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in _INTERRUPTS}
    try:
        yield
    except BaseException:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        raise


def complete(output: str, run_id: str, is_same: Callable[[Mapping[str, Any]], bool]) -> str | None:
    """Completes an earlier attempt at a run that was killed before it had updated `latest`.

    Args:
      output: the folder or URL of all runs.
      run_id: the id of both attempts.
      is_same: whether a published run, given its manifest, is what this attempt would publish.

    Returns:
      The id of the run that `latest` names, a later one perhaps; None if there is no such run.

    Raises:
      JobError: `latest` cannot be written.
    """
    manifest = _read_manifest(output, run_id)
    if manifest is None or not is_same(manifest):
        return None
    named = _read_latest(output)
    other = named and _read_manifest(output, named)
    if named is not None and other and other["finished_at"] >= manifest["finished_at"]:
        return named
    try:
        _point(output, run_id)
    except OSError as e:
        raise errors.JobError(f"cannot update {_join(output, 'latest')}: {e}") from e
    return run_id


def _read_manifest(output: str, run_id: str) -> dict[str, Any] | None:
    """The manifest of a published run; None if it has none, or cannot be read."""
    try:
        with files.open_raw(f"{run_path(output, run_id)}/manifest.json") as file:
            return json.load(file)
    except Exception:  # every filesystem has its own errors, also for missing files
        return None


def resolve(run: str) -> str:
    """The path or URL of a run's folder; resolves `latest`."""
    path = run.rstrip("/") if files.is_remote(run) else os.path.realpath(run)
    output, name = os.path.split(path)
    if name == "latest" and (run_id := _read_latest(output)) is not None:
        return run_path(output, run_id)
    if not files.is_remote(run) and not os.path.exists(path):
        _sweep(Path(output) / _STAGING)
    return path


def _move(folder: Path, output: Path, run_id: str) -> Path:
    target = output / "runs" / run_id
    with _final():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                raise _report_meantime(target)
            os.rename(folder, target)
            try:
                _point(str(output), run_id)
            except OSError:
                os.rename(target, folder)
                raise
        except OSError as e:
            raise errors.JobError(f"cannot publish {target}: {e}") from e
    return target


def _upload(folder: Path, output: str, run_id: str) -> None:
    target = run_path(output, run_id)
    if files.match(f"{target}/**"):
        raise _report_meantime(target)
    manifest = folder / "manifest.json"
    parts = sorted(path for path in folder.rglob("*") if path.is_file() and path != manifest)

    def send(path: Path) -> None:
        files.upload(str(path), f"{target}/{path.relative_to(folder).as_posix()}")

    try:
        # Threads, as an interrupt does not reach them: they finish the uploads they started.
        with futures.ThreadPoolExecutor(_TRANSFERS) as pool:
            list(pool.map(send, parts))
        with _final():
            try:
                send(manifest)
                _point(output, run_id)
            except errors.JobError:
                if _read_latest(output) != run_id:  # otherwise, only the response was lost
                    raise
    except BaseException:
        with _final():
            # The manifest first, without which a run is not complete.
            _delete(f"{target}/manifest.json")
            _delete(f"{target}/**")
        raise


def _report_meantime(target: object) -> errors.JobError:
    return errors.JobError(
        f"cannot publish {target}: another run was published there in the meantime"
    )


def _point(output: str, run_id: str) -> None:
    """Makes `latest` name the run, in one step: a link or, where there are none, a file.

    Raises:
      OSError: it cannot be written, locally.
      JobError: it cannot be written in a store.
    """
    name = f"runs/{run_id}"
    latest = _join(output, "latest")
    if files.is_remote(output):
        with tempfile.NamedTemporaryFile("w", prefix="evalbeam-latest-") as file:
            file.write(f"{name}\n")
            file.flush()
            files.upload(file.name, latest)
        return
    pointer = Path(output, f"{_POINTER}{_attempt(run_id)}")
    try:
        for left in (pointer.name, *_list_left(pointer.parent)):
            if left.startswith(_POINTER):
                pointer.with_name(left).unlink(missing_ok=True)
        try:
            os.symlink(name, pointer)
        except OSError:  # of many kinds, where the filesystem has no links: vfat, SMB
            pointer.write_text(f"{name}\n")
        os.replace(pointer, latest)
    except OSError:
        with contextlib.suppress(OSError):
            pointer.unlink()
        raise


def _read_latest(output: str) -> str | None:
    """The id of the run that `latest` names; None if it cannot be read, or names none."""
    latest = _join(output, "latest")
    try:
        if os.path.islink(latest):
            name = os.readlink(latest)
        else:
            with files.open_raw(latest) as file:
                name = file.read(_LATEST_BYTES).decode().strip()
    except Exception:  # every filesystem has its own errors, also for missing files
        return None
    run_id = name.removeprefix("runs/")
    return run_id if run_id != name and re.fullmatch(NAME, run_id) else None
