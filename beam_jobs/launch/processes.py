"""Local worker processes, which are watched, and end with the run or with this process.

Beam's own handler of such processes waits forever for one that has died, ignores signals meanwhile,
leaves the workers running if this process is killed, and lets them import what happens to be in the
working folder.
"""

from __future__ import annotations

import contextlib
import functools
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import grpc
from apache_beam.options import pipeline_options
from apache_beam.portability import python_urns
from apache_beam.runners.portability.fn_api_runner import worker_handlers
from google.protobuf import json_format, text_format

from evalbeam.transforms import errors

# The import path is the launcher's, as otherwise modules in the working folder would come first.
_PROGRAM = """
import sys
sys.path[:] = sys.argv[2:]
from evalbeam.beam_jobs.launch import local_worker
local_worker.work(sys.argv[1])
"""
_SECONDS_TO_FINISH = 10
_SECONDS_TO_NOTICE = 0.5
_TAIL_BYTES = 4096
_TAIL_LINES = 3
_LINE_CHARACTERS = 200


class WorkerDiedError(errors.JobError):
    """A worker process has ended before its work was done."""


def use_processes(options: pipeline_options.PipelineOptions) -> bool:
    """Whether a local pipeline runs in worker processes."""
    direct = options.view_as(pipeline_options.DirectOptions)
    return bool(direct.direct_running_mode == "multi_processing")


def run(built: beam.Pipeline) -> None:
    """Runs a pipeline in worker processes to its end; none is left, whatever happens.

    Raises:
      WorkerDiedError: a worker ended early.
      Exception: what Beam raises for a pipeline that failed.
    """
    with tempfile.TemporaryDirectory(
        prefix="evalbeam-workers-", ignore_cleanup_errors=True
    ) as folder:
        threading.excepthook = functools.partial(_report_thread, threading.excepthook)
        crew = _Crew(Path(folder))
        # Beam may wait forever for what a dead worker should have sent, in a thread of its own.
        threading.Thread(target=crew.execute, args=(built,), daemon=True).start()
        try:
            outcome = crew.wait()
        finally:
            crew.kill()
        if isinstance(outcome, _Worker):
            raise outcome.describe_death()
        if outcome is not None:
            raise crew.find_death() or outcome


def _report_thread(report: Callable[[Any], object], failure: threading.ExceptHookArgs) -> None:
    """Unless it is one of Beam's that has lost the connection to a dead worker."""
    if not issubclass(failure.exc_type, grpc.RpcError):
        report(failure)


class _Crew:
    """The workers of a pipeline.

    Attributes:
      folder: for the workers' output and temporary files.
      outcomes: None at the pipeline's end, its error, or a worker that died; the first one counts.
      oom_kills: how many the kernel had counted before there were workers; None if unknown.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.outcomes: queue.SimpleQueue[BaseException | _Worker | None] = queue.SimpleQueue()
        self.oom_kills = count_oom_kills()
        self._workers: list[_Worker] = []
        self._lock = threading.Lock()
        self._is_over = False

    def execute(self, built: beam.Pipeline) -> None:
        register = worker_handlers.WorkerHandler.register_environment
        register(python_urns.SUBPROCESS_SDK, bytes)(functools.partial(_Worker, self))
        try:
            built.run().wait_until_finish()
        except BaseException as error:
            self.outcomes.put(error)
        else:
            self.outcomes.put(None)

    def wait(self) -> BaseException | _Worker | None:
        """The first outcome."""
        while True:
            # In short waits: a signal that another thread received does not end a long one.
            with contextlib.suppress(queue.Empty):
                return self.outcomes.get(timeout=_SECONDS_TO_NOTICE)

    def start(self, worker: _Worker) -> None:
        with self._lock:
            if self._is_over:
                raise errors.JobError("the run is over")
            worker.start(len(self._workers) + 1)
            self._workers.append(worker)

    def kill(self) -> None:
        """Kills the workers that have not ended, and starts no others."""
        with self._lock:
            self._is_over = True
            for worker in self._workers:
                worker.kill()

    def find_death(self) -> WorkerDiedError | None:
        """Once all have ended: how one ended early; None if none did."""
        return next((worker.describe_death() for worker in self._workers if worker.died), None)


class _Worker(worker_handlers.GrpcWorkerHandler):
    """A worker process, which Beam starts and closes, and connects to by the superclass."""

    _process: subprocess.Popen[bytes] | None = None
    _is_finishing = False
    _was_killed = False

    def __init__(
        self, crew: _Crew, _command: bytes, state: Any, provision_info: Any, grpc_server: Any
    ) -> None:
        super().__init__(state, provision_info, grpc_server)
        self._crew = crew

    def start_worker(self) -> None:
        self._crew.start(self)

    def start(self, number: int) -> None:
        self._number = number
        self._output = self._crew.folder / f"{number}.log"
        beam_options = self.provision_info.provision_info.pipeline_options
        address = self.control_api_service_descriptor()
        environment = {
            "WORKER_ID": self.worker_id,
            "CONTROL_API_SERVICE_DESCRIPTOR": text_format.MessageToString(address),
            "PIPELINE_OPTIONS": json_format.MessageToJson(beam_options),
            "TMPDIR": str(self._crew.folder),
        }
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(self._crew.folder), *sys.path],
                env={**os.environ, **environment},
                # Only this process has the other end, so it closes however this process ends.
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                # Ctrl-C must only reach this process.
                start_new_session=True,
            )
        threading.Thread(target=self._watch, args=(self._process,), daemon=True).start()

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        if self.died and not self._is_finishing:
            self._crew.outcomes.put(self)

    def close(self) -> None:
        self._is_finishing = self._process is not None and self._process.poll() is None
        super().close()

    def stop_worker(self) -> None:
        """Waits for the worker to finish, and prints what it has printed."""
        if self._process is None:
            return
        try:
            self._process.wait(_SECONDS_TO_FINISH)
        except subprocess.TimeoutExpired:
            self.kill()
        if not self.died:
            sys.stderr.write(self._output.read_text(errors="replace"))

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._was_killed = True
            self._process.kill()
            self._process.wait()

    @property
    def died(self) -> bool:
        """Whether it ended early; always False before it has ended."""
        code = self._process and self._process.returncode
        return code is not None and not self._was_killed and (code != 0 or not self._is_finishing)

    def describe_death(self) -> WorkerDiedError:
        assert self._process is not None
        how = explain_code(self._process.returncode, self._crew.oom_kills, count_oom_kills())
        text = f"worker process {self._number} (PID {self._process.pid}) {how}"
        with self._output.open("rb") as output:
            output.seek(max(0, self._output.stat().st_size - _TAIL_BYTES))
            lines = output.read().decode(errors="replace").split("\n")
        last = [line.strip()[:_LINE_CHARACTERS] for line in lines if line.strip()][-_TAIL_LINES:]
        return WorkerDiedError("\n  ".join([f"{text}; its last output:" if last else text, *last]))


def explain_code(code: int, before: int | None, after: int | None) -> str:
    """How a process with this exit code ended, given the kernel's counts of kills for memory."""
    if code >= 0:
        return f"ended early with exit code {code}"
    how = f"was killed by signal {-code} ({signal.strsignal(-code)})"
    if code != -signal.SIGKILL or (after is not None and after == before):
        return how
    certainty = "as" if after is not None else "probably as"
    return (
        f"{how}, {certainty} memory ran out: fewer workers (--direct_num_workers=1) and smaller "
        "batches (data.batch_size) take less"
    )


def count_oom_kills() -> int | None:
    """How often the kernel has killed a process of this container for memory; None if unknown."""
    try:
        group = Path("/proc/self/cgroup").read_text().partition("0::/")[2].strip()
        events = Path("/sys/fs/cgroup", group, "memory.events").read_text()
        return int(events.partition("oom_kill ")[2].split()[0])
    except (OSError, ValueError, IndexError):  # not Linux, or version 1 of cgroups
        return None
