"""A job on Flink where all is read-only but what deploy/ mounts, and nobody has any rights.

The folders are those of `WRITES` in tests/deploy/test_policy.py: logs are in /tmp here.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CACHE, ROOT, need

LOCKED = ("unshare", "--map-root-user", "--mount", Path(__file__).parent / "locked.sh")
JOB = "tests/cluster/test_flink.py::test_the_demo_through_worker_pools"


@pytest.fixture(scope="module")
def folders() -> list[Path]:
    """What may be written to."""
    need(CACHE / "flink", CACHE / "flink-jars")
    folders = [Path("/tmp")]
    try:
        subprocess.run([*LOCKED, *folders, "--", "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this machine does not permit namespaces of mounts: {error}")
    return folders


def test_nothing_else_can_be_written_to(folders: list[Path]) -> None:
    others = (ROOT, CACHE / "flink", Path.home(), Path("/var/tmp"))
    for folder in (each for each in others if not each.is_relative_to(folders[0])):
        command = [*LOCKED, *folders, "--", "touch", folder / "written"]
        ended = subprocess.run(command, capture_output=True, text=True)
        assert "Read-only file system" in ended.stderr


def test_a_job_runs(folders: list[Path], tmp_path: Path) -> None:
    pytest_ = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--basetemp={tmp_path}/t"]
    ended = subprocess.run(
        [*LOCKED, *folders, "--", *pytest_, JOB], cwd=ROOT, capture_output=True, text=True
    )
    assert "1 passed" in ended.stdout, ended.stdout
