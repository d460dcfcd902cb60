"""Workers without Docker: a pool, and what a job has staged for them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

COMMAND = Path(sys.executable).parent / "evalbeam-worker"


def start(address, log):
    return subprocess.Popen(
        [COMMAND, "--worker_pool", f"--address={address}"],
        stdin=subprocess.DEVNULL,
        stderr=log.open("w"),
        start_new_session=True,
    )


def eventually(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def pool(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"localhost:{free.getsockname()[1]}"
    log = tmp_path / "pool.log"
    process = start(address, log)
    try:
        eventually(lambda: f"worker pool at {address}" in log.read_text())
        yield process, address
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def flags(address):
    return [
        "--runner=PortableRunner",
        "--job_endpoint=embed",
        "--environment_type=EXTERNAL",
        f"--environment_config={address}",
    ]


# Jobs, in processes of their own: one whose workers are gone may wait for them for ever.
GREETER = """
import os, pathlib, sys
import apache_beam as beam

def greet(path):
    import greetings
    print("x" * 200_000)  # more than a pipe holds that nobody reads
    pathlib.Path(path).write_text(f"{greetings.WORD} from {os.getpid()}")

with beam.Pipeline(argv=sys.argv[2:]) as pipeline:
    _ = pipeline | beam.Create([sys.argv[1]]) | beam.Map(greet)
"""
SLEEPER = """
import os, pathlib, sys, time
import apache_beam as beam

def sleep(path):
    pathlib.Path(path).write_text(str(os.getpid()))
    time.sleep(600)

with beam.Pipeline(argv=sys.argv[2:]) as pipeline:
    _ = pipeline | beam.Create([sys.argv[1]]) | beam.Map(sleep)
"""


@pytest.fixture
def wheel(tmp_path):
    """A package that is not installed here."""
    path = tmp_path / "greetings-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as package:
        package.writestr("greetings.py", "WORD = 'hello'\n")
        package.writestr("greetings-1.0.dist-info/METADATA", "Name: greetings\nVersion: 1.0\n")
        tags = "Wheel-Version: 1.0\nGenerator: us\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        package.writestr("greetings-1.0.dist-info/WHEEL", tags)
        package.writestr("greetings-1.0.dist-info/RECORD", "")
    return path


def test_a_pool_starts_workers_that_have_what_is_staged(pool, wheel, tmp_path):
    _, address = pool
    greeting = tmp_path / "greeting"
    subprocess.run(
        [sys.executable, "-c", GREETER, greeting, *flags(address), f"--extra_package={wheel}"],
        check=True,
        timeout=120,
    )
    word, _, worker = greeting.read_text().split()
    assert word == "hello"
    assert int(worker) != os.getpid()


def test_a_pool_that_ends_takes_its_workers_along(pool, tmp_path):
    process, address = pool
    pid = tmp_path / "pid"
    job = subprocess.Popen(
        [sys.executable, "-c", SLEEPER, str(pid), *flags(address)],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: pid.exists() and pid.read_text())
        process.terminate()
        assert process.wait(30) == 0
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid.read_text()), 0)
    finally:
        job.kill()
        job.wait()


def test_two_pools_cannot_share_an_address(pool, tmp_path):
    _, address = pool
    log = tmp_path / "second.log"
    assert start(address, log).wait(60) == 1
    message = f"cannot listen at {address}: it is not an address of this machine, or is in use\n"
    assert log.read_text().endswith(f"error: {message}")


def test_neither_pool_nor_worker_is_a_usage_error():
    called = subprocess.run([COMMAND], capture_output=True, text=True, check=False)
    assert called.returncode == 2
    assert "give --worker_pool, or --id and --provision_endpoint" in called.stderr
