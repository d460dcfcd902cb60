"""The same jobs where everything is read-only but what deploy/ mounts, and nobody has any rights.

The folders are those of `WRITES` in tests/deploy/test_policy.py: logs are in /tmp here, and so is
what Spark spills.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CACHE, ROOT, need

LOCKED = ("unshare", "--map-root-user", "--mount", Path(__file__).parent / "locked.sh")
JOBS = (
    "tests/cluster/test_flink.py::test_the_demo_through_worker_pools",
    "tests/cluster/test_spark.py::test_as_a_spark_application",
)


@pytest.fixture(scope="module")
def folders() -> list[Path]:
    """What may be written to."""
    need(CACHE / "flink", CACHE / "flink-jars", CACHE / "spark", CACHE / "spark-jars")
    # Where `local-cluster` starts its executors; on Kubernetes they start in /tmp.
    work = CACHE / "spark" / "pyspark" / "work"
    work.mkdir(exist_ok=True)
    folders = [Path("/tmp"), work]
    try:
        subprocess.run([*LOCKED, *folders, "--", "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this machine does not permit namespaces of mounts: {error}")
    return folders


def test_nothing_else_can_be_written_to(folders: list[Path]) -> None:
    for folder in (ROOT, CACHE / "flink", CACHE / "spark", Path.home(), Path("/var/tmp")):
        command = [*LOCKED, *folders, "--", "touch", folder / "written"]
        ended = subprocess.run(command, capture_output=True, text=True)
        assert "Read-only file system" in ended.stderr


def test_jobs_run(folders: list[Path], tmp_path: Path) -> None:
    pytest_ = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--basetemp={tmp_path}/t"]
    ended = subprocess.run(
        [*LOCKED, *folders, "--", *pytest_, *JOBS], cwd=ROOT, capture_output=True, text=True
    )
    assert f"{len(JOBS)} passed" in ended.stdout, ended.stdout
