"""Worker processes that die, launchers that are stopped: what is reported and left behind."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from evalbeam.beam_jobs.launch import processes

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="finds processes by Linux's /proc"
)

CONFIG = """
data: {files: data-*.csv, label: visited}
models: [{name: called, callable: 'model:predict', inputs: [age]}]
metrics: [ExampleCount]
output: results
"""
# The launcher also calls it, with the first examples.
MODEL = """
import os, pathlib, time

def predict(columns):
    if "WORKER_ID" in os.environ:
        pathlib.Path(f"predicting-{os.getpid()}").touch()
        print("a line of the model's", flush=True)
        exec(os.environ.get("IN_WORKERS", ""))
    return columns["age"] / 100
"""
FLAGS = ("--direct_num_workers=2", "--direct_running_mode=multi_processing")
SECONDS = 30  # within which everything ends
NAP = "time.sleep(300)"
# As Linux shows them.
LOOPBACK = {
    "0100007F",
    "0000000000000000FFFF00000100007F",
    "00000000000000000000000001000000",
}


class Run:
    """A run in two worker processes, in a process of its own."""

    def __init__(self, folder, in_workers=""):
        self.folder = folder
        self.mark = uuid.uuid4().hex
        (folder / "tmp").mkdir()
        environment = {"TMPDIR": str(folder / "tmp"), "IN_WORKERS": in_workers, "MARK": self.mark}
        self.launcher = subprocess.Popen(
            [sys.executable, "-m", "evalbeam", "run", "job.yaml", *FLAGS],
            cwd=folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def processes(self):
        """IDs of the run's processes, also of those that have lost their parent."""
        found = []
        for environment in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):  # another user's, or gone
                if f"MARK={self.mark}".encode() in environment.read_bytes():
                    found.append(int(environment.parent.name))
        return found

    def workers(self):
        found = []
        for process in self.processes():
            with contextlib.suppress(OSError):
                if b"local_worker" in Path(f"/proc/{process}/cmdline").read_bytes():
                    found.append(process)
        return found

    def addresses(self):
        """Those that the run's processes listen at, in hexadecimal."""
        sockets = set()
        for file in (file for p in self.processes() for file in Path(f"/proc/{p}/fd").iterdir()):
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                sockets.add(os.readlink(file).removeprefix("socket:[").removesuffix("]"))
        tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
        lines = [line.split() for table in tables for line in table.read_text().splitlines()]
        return {
            line[1].partition(":")[0] for line in lines if line[3] == "0A" and line[9] in sockets
        }

    def wait_for(self, happens):
        deadline = time.monotonic() + 120
        while not (result := happens()):
            assert self.launcher.poll() is None, self.launcher.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return result

    def wait_for_workers(self):
        """Returns the worker processes, which have only just started."""
        return self.wait_for(self.workers)

    def wait_for_predictions(self):
        """Returns the IDs of workers that are predicting."""
        seen = self.wait_for(lambda: list(self.folder.glob("predicting-*")))
        return [int(path.name.partition("-")[2]) for path in seen]

    def end(self):
        """Waits for the end; returns what was written to stderr, once nobody can write to it."""
        return self.launcher.communicate(timeout=SECONDS)[1]

    def assert_nothing_is_left(self):
        deadline = time.monotonic() + SECONDS
        while left := self.processes():
            assert time.monotonic() < deadline, left
            time.sleep(0.1)
        assert list((self.folder / "tmp").iterdir()) == []


@pytest.fixture
def start(tmp_path):
    """Starts a run in a folder with modules that nobody has asked for."""
    for part in range(4):
        rows = "".join(f"{age},{age % 2}\n" for age in range(part, 100, 4))
        (tmp_path / f"data-{part}.csv").write_text(f"age,visited\n{rows}")
    (tmp_path / "job.yaml").write_text(CONFIG)
    (tmp_path / "model.py").write_text(MODEL)
    for name in ("yaml", "json", "numpy", "apache_beam", "grpc", "logging", "click"):
        (tmp_path / f"{name}.py").write_text("import time; time.sleep(300)")
    # A shell's background jobs, such as these tests may be, ignore it, and so would the run.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    started = []

    def start(in_workers=""):
        started.append(Run(tmp_path, in_workers))
        return started[-1]

    yield start
    for run in started:
        for process in run.processes():
            os.kill(process, signal.SIGKILL)


def assert_failed(run, how):
    error = run.end()
    assert run.launcher.returncode == 4, error
    assert re.search(rf"^error: worker process \d \(PID \d+\) {how}", error, re.M), error
    assert error.count("\n") < 20
    assert "Traceback" not in error
    assert not (run.folder / "results").exists() or not any((run.folder / "results").iterdir())
    run.assert_nothing_is_left()
    return error


def test_modules_in_the_working_folder_are_not_imported(start):
    run = start()
    error = run.launcher.communicate(timeout=120)[1]
    assert run.launcher.returncode == 0, error
    assert "a line of the model's" in error
    run.assert_nothing_is_left()


def test_a_worker_is_killed_while_it_starts(start):
    run = start()
    os.kill(run.wait_for_workers()[0], signal.SIGKILL)
    assert_failed(run, r"was killed by signal 9 \(Killed\)")


def test_a_worker_is_killed_while_it_predicts(start):
    run = start(NAP)
    os.kill(run.wait_for_predictions()[0], signal.SIGKILL)
    error = assert_failed(run, r"was killed by signal 9 \(Killed\)")
    assert error.endswith("; its last output:\n  a line of the model's\n")


def test_a_model_ends_its_worker(start):
    assert_failed(start("os._exit(0)"), "ended early with exit code 0")


@pytest.mark.parametrize(
    ("number", "moment"), [(signal.SIGTERM, "starting"), (signal.SIGINT, "predicting")]
)
def test_the_launcher_is_stopped(start, number, moment):
    run = start(NAP)
    run.wait_for_workers() if moment == "starting" else run.wait_for_predictions()
    addresses = run.addresses()
    assert addresses
    assert addresses <= LOOPBACK
    run.launcher.send_signal(number)
    error = run.end()
    assert run.launcher.returncode == 130, error
    assert error.endswith("interrupted: nothing was published\n")
    assert "Traceback" not in error
    assert not (run.folder / "results").exists() or not any((run.folder / "results").iterdir())
    run.assert_nothing_is_left()


@pytest.mark.parametrize("moment", ["starting", "predicting"])
def test_the_launcher_is_killed(start, moment):
    run = start(NAP)
    run.wait_for_workers() if moment == "starting" else run.wait_for_predictions()
    run.launcher.kill()
    run.end()
    run.assert_nothing_is_left()


def test_memory_is_named_where_the_kernel_counts():
    killed = -signal.SIGKILL
    assert "9 (Killed), as memory ran out" in processes.explain_code(killed, 1, 2)
    assert "9 (Killed), probably as memory ran out" in processes.explain_code(killed, None, None)
    assert processes.explain_code(killed, 1, 1).endswith("9 (Killed)")
    assert "memory" not in processes.explain_code(-signal.SIGSEGV, 1, 2)
