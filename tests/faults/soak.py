"""Random faults against random small jobs: a run is published whole and right, or not at all.

Faults come at a random moment of a run: its process or one of its workers is killed, interrupted or
stopped for a while, a file of its data is truncated or replaced, its object store is slow or
answers with errors. What is published must then be, to the bit, what an undisturbed run publishes;
otherwise nothing is, a sentence says why, and a retry with the same run id works.

  python tests/faults/soak.py --minutes 60
  python tests/faults/soak.py --minutes 60 --flink   # which make test-cluster fetches
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import yaml
from moto.moto_server import werkzeug_app
from werkzeug import serving

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SECONDS = 180
LINES = 20
SHARDS = 4
ROWS = 60_000
# Of a run folder, what only says how it came about.
_OWN = ("manifest.json", "run.json")
_KEY = "soak"


class Store:
    """An S3 server on loopback that can be slow, or refuse some of its requests."""

    def __init__(self) -> None:
        self._app = werkzeug_app.DomainDispatcherApplication(werkzeug_app.create_backend_app)
        self._server = serving.make_server("127.0.0.1", 0, self._answer, threaded=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.delay_s = 0.0
        self.refused = 0.0
        self._rng = random.Random(0)
        self.client = boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=_KEY,
            aws_secret_access_key=_KEY,
        )
        self.client.create_bucket(Bucket="soak")

    def _answer(self, environ: dict, start: Callable) -> Iterator[bytes]:
        time.sleep(self.delay_s * self._rng.random())
        if self._rng.random() < self.refused:
            start("503 Slow Down", [("Content-Length", "0")])
            return iter(())
        return self._app(environ, start)

    def flags(self) -> list[str]:
        return [
            *(f"--s3_endpoint_url={self.url}", "--s3_region_name=us-east-1"),
            *(f"--s3_access_key_id={_KEY}", f"--s3_secret_access_key={_KEY}"),
        ]

    def mirror(self, prefix: str, folder: Path) -> None:
        """Downloads all objects under a prefix."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket="soak", Prefix=prefix)
        for entry in itertools.chain.from_iterable(page.get("Contents", ()) for page in pages):
            target = folder / entry["Key"][len(prefix) :]
            target.parent.mkdir(parents=True, exist_ok=True)
            self.client.download_file("soak", entry["Key"], str(target))

    def end(self) -> None:
        self._server.shutdown()


@dataclass(frozen=True)
class Kind:
    """A job: the format of its data, where its results go, and how it runs."""

    form: str
    flags: tuple[str, ...]
    remote: bool
    config: str


@dataclass
class Try:
    """A run of a job in a folder of its own."""

    kind: Kind
    folder: Path
    run_id: str
    store: Store
    runner: tuple[str, ...] = ()

    @property
    def output(self) -> str:
        return f"s3://soak/{self.folder.name}" if self.kind.remote else "results"

    def start(self) -> subprocess.Popen[str]:
        """The command, in a session of its own."""
        flags = [*self.kind.flags, *self.runner, *(self.store.flags() if self.kind.remote else ())]
        command = [str(BIN / "evalbeam"), "run", self.kind.config, "--run-id", self.run_id]
        return subprocess.Popen(
            [*command, "--output", self.output, *flags],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def published(self) -> dict[str, str] | None:
        """The digests of the files of the run, by path; None if there is no run."""
        results = self.folder / "results"
        if self.kind.remote:
            shutil.rmtree(results, ignore_errors=True)
            self.store.mirror(f"{self.folder.name}/", results)
        run = results / "runs" / self.run_id
        if not run.exists():
            return None
        return {
            path.relative_to(run).as_posix(): hashlib.sha256(_content(path)).hexdigest()
            for path in sorted(run.rglob("*"))
            if path.is_file() and path.name not in _OWN
        }

    def latest(self) -> str | None:
        """The id of the run that `latest` names."""
        latest = self.folder / "results" / "latest"
        if latest.is_symlink():
            return Path(os.readlink(latest)).name
        return Path(latest.read_text().strip()).name if latest.exists() else None


def _content(path: Path) -> bytes:
    if path.name != "ledger.json":
        return path.read_bytes()
    ledger = json.loads(path.read_text())
    for name in ("workers", "batches", "state_bytes", "predict_seconds"):  # how it was worked out
        del ledger[name]
    ledger["shards"].sort(key=lambda shard: (shard["path"], str(shard["piece"])))
    return json.dumps(ledger, sort_keys=True).encode()


def make_data(folder: Path, *, other: bool = False) -> None:
    """Writes the shards in both formats; `other` ones have the same rows in another order."""
    rng = np.random.default_rng(0)
    for shard in range(SHARDS):
        label = rng.integers(0, 2, ROWS)
        columns = {"label": label, "id": np.arange(ROWS) + shard * ROWS}
        for name, strength in (("s1", 0.1), ("s2", 0.2)):
            columns[name] = np.clip(rng.normal(0.4 + strength * label, 0.2), 0, 1).round(6)
        frame = pd.DataFrame(columns | {"group": rng.integers(0, 40, ROWS)})
        if other:
            frame = frame.iloc[::-1]
        table = pa.Table.from_pandas(frame, preserve_index=False)
        pq.write_table(table, folder / f"d-{shard}.parquet", row_group_size=10_000)
        pyarrow.csv.write_csv(table, folder / f"d-{shard}.csv")
    for form in ("csv", "parquet"):
        config = {
            "data": {"files": f"d-*.{form}", "label": "label", "id": "id", "batch_size": 2000},
            "models": [{"name": name, "predictions": f"s{name[1]}"} for name in ("v1", "v2")],
            "slices": [["group"]],
            "metrics": ["ExampleCount", "AUC", "Recall", "BinaryCrossentropy", "CalibrationPlot"],
        }
        (folder / f"{form}.yaml").write_text(yaml.safe_dump(config))


def workers(session: int) -> list[int]:
    """The processes of a session but its leader."""
    found = subprocess.run(
        ["pgrep", "--session", str(session)], capture_output=True, text=True, check=False
    )
    return [int(pid) for pid in found.stdout.split() if int(pid) != session]


def send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


class Faults:
    """What happens to a run that has been started."""

    def __init__(self, rng: random.Random, store: Store, spare: Path) -> None:
        self._rng = rng
        self._store = store
        self._spare = spare

    def kill_launcher(self, command: subprocess.Popen, _: Try) -> None:
        send(command.pid, signal.SIGKILL)

    def kill_worker(self, command: subprocess.Popen, _: Try) -> None:
        if pids := workers(command.pid):
            send(self._rng.choice(pids), signal.SIGKILL)

    def interrupt(self, command: subprocess.Popen, _: Try) -> None:
        send(command.pid, self._rng.choice((signal.SIGINT, signal.SIGTERM)))

    def interrupt_twice(self, command: subprocess.Popen, tried: Try) -> None:
        self.interrupt(command, tried)
        time.sleep(0.2 * self._rng.random())
        self.interrupt(command, tried)

    def stop(self, command: subprocess.Popen, _: Try) -> None:
        pids = [command.pid, *workers(command.pid)]
        pid = self._rng.choice(pids)
        send(pid, signal.SIGSTOP)
        time.sleep(3 * self._rng.random())
        send(pid, signal.SIGCONT)

    def truncate(self, _: subprocess.Popen, tried: Try) -> None:
        path = self._shard(tried)
        os.truncate(path, self._rng.randrange(path.stat().st_size))

    def replace(self, _: subprocess.Popen, tried: Try) -> None:
        path = self._shard(tried)
        shutil.copyfile(self._spare / path.name, path.with_suffix(".new"))
        os.replace(path.with_suffix(".new"), path)

    def slow_store(self, command: subprocess.Popen, _: Try) -> None:
        self._store.delay_s = 0.5 * self._rng.random()
        command.wait(SECONDS)

    def failing_store(self, command: subprocess.Popen, _: Try) -> None:
        self._store.refused = self._rng.choice((0.02, 0.2, 1.0))
        time.sleep(3 * self._rng.random())
        if self._rng.random() < 0.5:
            self._store.refused = 0.0
        command.wait(SECONDS)

    def _shard(self, tried: Try) -> Path:
        return self._rng.choice(sorted(tried.folder.glob(f"d-*.{tried.kind.form}")))


def judge(
    command: subprocess.Popen, err: str, fault: str, tried: Try, expected: dict[str, str]
) -> Iterator[str]:
    """What is wrong with how a disturbed run ended."""
    code = command.returncode
    killed = fault == "kill_launcher" and code == -signal.SIGKILL
    # Signals may come before the command has begun, while Python starts.
    early = fault.startswith("interrupt") and code in (-signal.SIGINT, -signal.SIGTERM)
    if code not in (0, 2, 4, 130) and not (killed or early):
        yield f"ended with {code}"
    found = tried.published()
    if code == 0:
        if found != expected:
            yield f"published other results: {_difference(found, expected)}"
        if tried.latest() != tried.run_id:
            yield f"latest names {tried.latest()}"
    elif found is not None and not killed:
        yield "published, and failed"
    elif found not in (None, expected):
        yield f"published a part: {_difference(found, expected)}"
    if found is None and tried.latest() is not None:
        yield f"latest names {tried.latest()}, which is not there"
    lines = err.splitlines()
    if ("Traceback" in err and not early) or len(lines) > LINES:
        yield "a traceback or too many lines"
    if code not in (0, -signal.SIGKILL) and not (lines or early):
        yield "no word"


def _difference(found: dict[str, str] | None, expected: dict[str, str]) -> str:
    if found is None:
        return "nothing"
    return ", ".join(sorted(dict(found.items() ^ expected.items())))[:200]


class Soak:
    """Tries faults until the time is up, and counts what came of them."""

    def __init__(self, seed: int, folder: Path, runner: tuple[str, ...]) -> None:
        self._rng = random.Random(seed)
        self._folder = folder
        self._runner = runner
        self._store = Store()
        self._data, spare = folder / "data", folder / "spare"
        for path, other in ((self._data, False), (spare, True)):
            path.mkdir()
            make_data(path, other=other)
        self._faults = Faults(self._rng, self._store, spare)
        self._undisturbed: dict[Kind, tuple[dict[str, str], float]] = {}
        self.ended: Counter[tuple[str, int]] = Counter()
        self.wrong = 0
        self.tries = 0

    def run(self, deadline: float) -> None:
        """Tries until the deadline, by time.monotonic."""
        while time.monotonic() < deadline:
            kind = self._choose()
            if kind not in self._undisturbed:
                self._undisturbed[kind] = self._measure(kind)
            self._try(kind)
        self._store.end()

    def _choose(self) -> Kind:
        form = self._rng.choice(("csv", "parquet"))
        flags: tuple[str, ...] = ()
        if not self._runner:
            flags = self._rng.choice(
                (
                    (),
                    ("--direct_num_workers=2",),
                    ("--direct_num_workers=2", "--direct_running_mode=multi_processing"),
                )
            )
        remote = not self._runner and self._rng.random() < 0.3
        return Kind(form, flags, remote, f"{form}.yaml")

    def _prepare(self, kind: Kind) -> Try:
        self.tries += 1
        folder = self._folder / f"try-{self.tries}"
        folder.mkdir()
        for path in (*self._data.glob(f"d-*.{kind.form}"), self._data / kind.config):
            shutil.copyfile(path, folder / path.name)
        return Try(kind, folder, "one", self._store, self._runner)

    def _measure(self, kind: Kind) -> tuple[dict[str, str], float]:
        """What an undisturbed run publishes, and how long it takes."""
        tried = self._prepare(kind)
        started = time.monotonic()
        command = tried.start()
        _, err = command.communicate(timeout=SECONDS)
        assert command.returncode == 0, err
        seconds = time.monotonic() - started
        found = tried.published()
        assert found is not None
        shutil.rmtree(tried.folder)
        return found, seconds

    def _measure_again(self, tried: Try, expected: dict[str, str]) -> dict[str, str]:
        """What is expected of data that had changed before the run listed them, if they had."""
        if tried.published() == expected:
            return expected
        folder = tried.folder.with_name(f"{tried.folder.name}-again")
        shutil.copytree(tried.folder, folder, ignore=shutil.ignore_patterns("results"))
        again = Try(tried.kind, folder, tried.run_id, self._store, self._runner)
        again.start().communicate(timeout=SECONDS)
        found = again.published()
        shutil.rmtree(folder)
        return found or expected

    def _try(self, kind: Kind) -> None:
        expected, seconds = self._undisturbed[kind]
        tried = self._prepare(kind)
        names = [name for name in vars(Faults) if not name.startswith("_")]
        names = [name for name in names if kind.remote or "store" not in name]
        fault = self._rng.choice(names)
        command = tried.start()
        with contextlib.suppress(subprocess.TimeoutExpired):
            command.wait(1.1 * seconds * self._rng.random())
        getattr(self._faults, fault)(command, tried)
        try:
            _, err = command.communicate(timeout=SECONDS)
            if command.returncode == 0 and fault in ("replace", "truncate"):
                expected = self._measure_again(tried, expected)
            problems = list(judge(command, err, fault, tried, expected))
        except subprocess.TimeoutExpired:
            os.killpg(command.pid, signal.SIGKILL)
            _, err = command.communicate()
            problems = [f"hung for {SECONDS} s"]
        problems += self._check_left(command.pid)
        self._store.delay_s = self._store.refused = 0.0
        self.ended[fault, command.returncode] += 1
        problems += [f"a retry {problem}" for problem in self._retry(tried, expected)]
        if problems:
            self.wrong += 1
            print(f"try {self.tries}: {fault}, {kind}: {'; '.join(problems)}\n{err}", flush=True)
        else:
            shutil.rmtree(tried.folder)

    def _check_left(self, session: int) -> Iterator[str]:
        deadline = time.monotonic() + 30
        while left := workers(session):
            if time.monotonic() > deadline:
                for pid in left:
                    send(pid, signal.SIGKILL)
                yield f"left {len(left)} processes"
                return
            time.sleep(0.1)

    def _retry(self, tried: Try, expected: dict[str, str]) -> Iterator[str]:
        for path in self._data.glob(f"d-*.{tried.kind.form}"):
            shutil.copyfile(path, tried.folder / path.name)
        published = tried.published() is not None
        command = tried.start()
        _, err = command.communicate(timeout=SECONDS)
        if command.returncode != 0:
            yield f"ended with {command.returncode}: {err}"
        elif tried.published() != expected or tried.latest() != tried.run_id:
            yield f"of a {'whole' if published else 'failed'} run published something else"
        if not tried.kind.remote and (tried.folder / "results" / ".staging").exists():
            yield "left its staging folder"


def main() -> None:
    """Exits with 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--flink", action="store_true", help="on a Flink of two workers")
    given = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    deadline = time.monotonic() + 60 * given.minutes
    folder = Path(tempfile.mkdtemp(prefix="evalbeam-soak-"))
    with contextlib.ExitStack() as stack:
        runner: tuple[str, ...] = ()
        if given.flink:
            sys.path.insert(0, str(ROOT / "tests" / "cluster"))
            import conftest

            flink = conftest.Flink(Path(tempfile.mkdtemp(dir=folder)))
            stack.callback(flink.end)
            flink.add_taskmanager()
            flink.add_taskmanager()
            runner = (*flink.flags, *flink.pools)
        soak = Soak(given.seed, folder, runner)
        soak.run(deadline)
    for (fault, code), count in sorted(soak.ended.items()):
        print(f"{fault}: {count:,} ended with {code}")
    faults = sum(soak.ended.values())
    print(f"{soak.tries:,} runs, {faults:,} faults from seed {given.seed}; {soak.wrong:,} losses")
    if not soak.wrong:
        shutil.rmtree(folder)
    sys.exit(bool(soak.wrong))


if __name__ == "__main__":
    main()
