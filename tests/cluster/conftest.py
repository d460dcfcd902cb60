"""Real clusters on loopback, the jobs that run on them, and the command that runs the jobs."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "cluster"
BIN = Path(sys.executable).parent
sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))

import reference  # noqa: E402

from evalbeam.transforms import meter  # noqa: E402
from evalbeam.transforms.sinks import tables  # noqa: E402


class Processes:
    """What a cluster consists of; ended by process id, with all that it has started."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: list[object], **environment: object) -> None:
        with (self._folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **{key: str(value) for key, value in environment.items()}},
            )

    def ids(self) -> list[int]:
        """The process ids."""
        return [process.pid for process in self._running.values()]

    def workers(self) -> list[int]:
        """The process ids of the Beam workers that these processes have started."""
        sessions = ",".join(map(str, self.ids()))
        found = subprocess.run(
            ["pgrep", "--full", "--session", sessions, "sdk_worker_main"],
            capture_output=True,
            text=True,
            check=False,
        )
        return [int(pid) for pid in found.stdout.split()]

    def kill(self, name: str) -> None:
        """At once, and only this process: what it has started must cope."""
        self._running[name].kill()
        self._running[name].wait()

    def end(self) -> None:
        for signal_number in (signal.SIGTERM, signal.SIGKILL):
            for process in self._running.values():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal_number)
            deadline = time.monotonic() + 10
            for process in self._running.values():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, deadline - time.monotonic()))


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def eventually(what: str, condition: Callable[[], object], seconds: float = 180) -> None:
    """Waits until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)


def need(*parts: Path) -> None:
    for part in parts:
        if not part.exists():
            pytest.skip(f"{part.relative_to(ROOT)} is not there: `make test-cluster` fetches it")
    if shutil.which("java") is None:
        pytest.skip("there is no java")


class Flink:
    """A JobManager and TaskManagers of one slot; each TaskManager has a worker pool of its own."""

    def __init__(self, folder: Path) -> None:
        self._home = CACHE / "flink" / "pyflink"
        self._folder = folder
        self.processes = Processes(folder)
        rest, rpc, self._pools = free_ports(3)
        self._config = {
            **yaml.safe_load((self._home / "conf" / "config.yaml").read_text()),
            **yaml.safe_load((ROOT / "deploy" / "flink" / "config.yaml").read_text()),
            "jobmanager.rpc.port": rpc,
            "rest.port": rest,
            "rest.bind-port": rest,
            "taskmanager.numberOfTaskSlots": 1,
        }
        self._added = self._lost = 0
        self.master = f"localhost:{rest}"
        self.flags = (
            "--runner=FlinkRunner",
            "--flink_version=1.20",
            f"--flink_master={self.master}",
            f"--flink_job_server_jar={CACHE / 'flink-jars' / 'flink-job-server.jar'}",
            "--parallelism=2",
        )
        # The name stands for another address on each "machine": see `add_taskmanager`.
        self.pools = (
            "--environment_type=EXTERNAL",
            f"--environment_config=worker-pool:{self._pools}",
        )
        self._start("jobmanager")

    def _start(self, name: str, **more: object) -> None:
        conf = self._folder / f"{name}-conf"
        shutil.copytree(self._home / "conf", conf)
        (conf / "config.yaml").write_text(yaml.safe_dump(self._config | more))
        script = self._home / "bin" / f"{name.partition('-')[0]}.sh"
        self.processes.start(
            name,
            ["bash", script, "start-foreground"],
            FLINK_CONF_DIR=conf,
            FLINK_LOG_DIR=self._folder,
            PATH=f"{BIN}:{os.environ['PATH']}",
        )

    def add_taskmanager(self) -> str:
        """One more, on a loopback address of its own, as if on another machine."""
        self._added += 1
        address = f"127.0.0.{1 + self._added}"
        hosts = self._folder / f"hosts-{self._added}"
        hosts.write_text(f"127.0.0.1 localhost {socket.gethostname()}\n{address} worker-pool\n")
        pool = [BIN / "evalbeam-worker", "--worker_pool", f"--address={address}:{self._pools}"]
        self.processes.start(f"pool-{self._added}", pool)
        name = f"taskmanager-{self._added}"
        self._start(name, **{"env.java.opts.taskmanager": f"-Djdk.net.hosts.file={hosts}"})
        slots = self._added - self._lost
        eventually(
            "the TaskManagers register",
            lambda: self.get("overview").get("slots-total") == slots,
        )
        return name

    def get(self, path: str) -> dict:
        """The answer of Flink's REST interface; nothing while there is none."""
        try:
            with urllib.request.urlopen(f"http://{self.master}/{path}", timeout=5) as answer:
                return json.load(answer)
        except OSError:
            return {}

    def jobs(self) -> list[dict]:
        """The jobs, the newest last."""
        return sorted(self.get("jobs/overview")["jobs"], key=lambda job: job["start-time"])

    def kill_taskmanager(self, name: str) -> None:
        self.processes.kill(name)
        self._lost += 1

    def end(self) -> None:
        self.processes.end()


@pytest.fixture(scope="session")
def flink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flink]:
    need(CACHE / "flink", CACHE / "flink-jars")
    cluster = Flink(tmp_path_factory.mktemp("flink"))
    try:
        cluster.add_taskmanager()
        cluster.add_taskmanager()
        yield cluster
    finally:
        cluster.end()


class Spark:
    """A standalone master and two workers of one core."""

    def __init__(self, folder: Path) -> None:
        home = CACHE / "spark" / "pyspark"
        self.processes = Processes(folder)
        port, *pages = free_ports(4)
        self.jar = CACHE / "spark-jars" / "spark-job-server.jar"
        self.flags = (
            "--runner=SparkRunner",
            f"--spark_master_url=spark://localhost:{port}",
            f"--spark_job_server_jar={self.jar}",
        )
        deploy = "org.apache.spark.deploy"
        run = [home / "bin" / "spark-class"]
        ports = ["--port", port, "--webui-port", pages[0]]
        master = [*run, f"{deploy}.master.Master", "--host", "localhost", *ports]
        self.processes.start("master", master, SPARK_HOME=home)
        for number, page in enumerate(pages[1:]):
            own = ["--webui-port", page, "--work-dir", folder / f"worker-{number}"]
            size = ["--cores", 1, "--memory", "1g", "--host", "localhost"]
            worker = [*run, f"{deploy}.worker.Worker", *size, *own, f"spark://localhost:{port}"]
            self.processes.start(f"worker-{number}", worker, SPARK_HOME=home)
        state = f"http://localhost:{pages[0]}/json/"
        eventually("both Spark workers register", lambda: _alive(state) == 2)

    def end(self) -> None:
        self.processes.end()


def _alive(state: str) -> int:
    try:
        with urllib.request.urlopen(state, timeout=5) as answer:
            return json.load(answer)["aliveworkers"]
    except OSError:
        return 0


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spark]:
    need(CACHE / "spark", CACHE / "spark-jars")
    cluster = Spark(tmp_path_factory.mktemp("spark"))
    try:
        yield cluster
    finally:
        cluster.end()


@pytest.fixture(scope="session")
def processes() -> tuple[str, str]:
    """Flags for workers that the cluster starts itself, each as a process."""
    command = json.dumps({"command": str(BIN / "evalbeam-worker")})
    return "--environment_type=PROCESS", f"--environment_config={command}"


class Job:
    """A config in a folder of its own, and its results on the local runner."""

    def __init__(self, folder: Path, config: str) -> None:
        self.folder = folder
        self.config = config
        self.runs = folder / "results" / "runs"
        self.told = ""

    def start(self, run_id: str, *flags: str) -> subprocess.Popen[str]:
        """The evalbeam command, in a session of its own."""
        return self._command("run", self.config, "--run-id", run_id, "--output=results", *flags)

    def _command(self, *arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(part) for part in (BIN / "evalbeam", *arguments)],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def start_scoring(self, run_id: str, *flags: str) -> subprocess.Popen[str]:
        """The same, in the middle of its work: its workers have scored some examples."""
        command = self.start(run_id, *flags)
        eventually("examples are scored", lambda: self._scored() or command.poll() is not None)
        assert command.poll() is None, ended(command)
        return command

    def run(self, run_id: str, *flags: str) -> Path:
        """Runs the job to its end; returns its published results."""
        return self.finished(self.start(run_id, *flags), run_id)

    def halves(self) -> list[Path]:
        """The local results of every second shard, and of the others."""
        settings = yaml.safe_load((self.folder / self.config).read_text())
        shards = sorted(self.folder.glob(settings["data"]["files"]))
        runs = []
        for number in range(2):
            settings["data"]["files"] = [str(shard) for shard in shards[number::2]]
            config = self.folder / f"half-{number}.yaml"
            config.write_text(yaml.safe_dump(settings))
            runs.append(Job(self.folder, str(config)).run(f"half-{number}"))
        return runs

    def rebuild(self, run: Path, run_id: str, *flags: str) -> Path:
        """Makes a run's results anew from its state, as another run."""
        command = self._command("results", run, "--run-id", run_id, "--output=results", *flags)
        return self.finished(command, run_id)

    def merge(self, runs: list[Path], run_id: str, *flags: str) -> Path:
        """Adds runs up to another one."""
        command = self._command("merge", *runs, f"--run-id={run_id}", "--output=results", *flags)
        return self.finished(command, run_id)

    def finished(self, command: subprocess.Popen[str], run_id: str) -> Path:
        out, self.told = ended(command)
        assert command.returncode == 0, f"{out}\n{self.told}"
        assert (self.folder / "results" / "latest").resolve() == (self.runs / run_id).resolve()
        return self.runs / run_id

    def _scored(self) -> int:
        """The examples that the workers of the jobs that run now have scored."""
        boards = (self.folder / "results" / ".staging").glob("*/work/progress")
        return sum(meter.Board(str(folder), 1).total() for folder in boards)


def ended(command: subprocess.Popen[str], seconds: float = 300) -> tuple[str, str]:
    """What it printed, after its end; its whole session is ended if that does not come."""
    try:
        return command.communicate(timeout=seconds)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(command.pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, Path]:
    """The README's demo, and its results on the local runner."""
    folder = tmp_path_factory.mktemp("demo")
    subprocess.run([BIN / "evalbeam", "demo"], cwd=folder, check=True, capture_output=True)
    job = Job(folder, "demo/demo.yaml")
    return job, (folder / "results" / "latest").resolve()


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, Path]:
    """The demo of one model in every form, and its results on the local runner."""
    folder = tmp_path_factory.mktemp("digits")
    subprocess.run(
        [BIN / "evalbeam", "demo", "digits"], cwd=folder, check=True, capture_output=True
    )
    job = Job(folder, "demo/digits.yaml")
    return job, (folder / "results" / "latest").resolve()


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, Path]:
    """Some seconds of work in 40 shards, 4 million examples, and its results locally."""
    folder = tmp_path_factory.mktemp("large")
    script = (
        "import pathlib, reference; here = pathlib.Path.cwd(); reference.write_models(here); "
        "reference.write_examples(here, 4_000_000)"
    )
    subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests" / "benchmarks")},
    )
    models = [{"name": name, "path": name} for name in ("v1", "v2")]
    config = reference.config(Path("data-4000000/eval-*.tfrecord"), models)
    (folder / "job.yaml").write_text(yaml.safe_dump(config))
    job = Job(folder, "job.yaml")
    return job, job.run("local")


def assert_equal(found: Path, expected: Path, *, exactly: bool = False) -> None:
    """The same rows in the same order; counts are the same, numbers to 1e-12, or to the bit."""
    for name in tables.SCHEMAS:
        one, other = (table(run, name) for run in (found, expected))
        tolerance = {"check_exact": True} if exactly else {"rtol": 1e-12, "atol": 1e-15}
        pd.testing.assert_frame_equal(one, other, **tolerance)
    counts = [table(run, "confusion")["count"] for run in (found, expected)]
    assert counts[0].equals(counts[1])
    entries = [manifest(run)["data"] for run in (found, expected)]
    for split, entry in entries[1].items():
        for part in ("read", "scored", "dead_lettered", "fingerprint"):
            assert entries[0][split][part] == entry[part], (split, part)


def table(run: Path, name: str) -> pd.DataFrame:
    """A table of results, be it a file or a folder of parts; names as text."""
    frame = tables.read(run / f"{name}.parquet").to_table().to_pandas()
    names = frame.select_dtypes("category").columns
    return frame.astype(dict.fromkeys(names, object))


def findings(run: Path) -> list[dict]:
    """What was found, without what a run measures anew."""
    found = json.loads((run / "findings.json").read_text())
    for one in found:
        for name in ("speed_ratio", "single_speed_ratio"):
            assert one["evidence"].pop(name) > 0
    return found


def manifest(run: Path) -> dict:
    return json.loads((run / "manifest.json").read_text())
