"""The job on a Spark cluster is the job on a laptop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from conftest import (
    BIN,
    CACHE,
    ROOT,
    Job,
    Processes,
    Spark,
    assert_equal,
    free_ports,
    manifest,
)


def test_the_demo(spark: Spark, processes: tuple[str, str], demo: tuple[Job, Path]) -> None:
    job, expected = demo
    found = job.run("spark", *spark.flags, *processes)
    assert_equal(found, expected)
    assert manifest(found)["runner"] == "SparkRunner"
    assert len(manifest(found)["workers"]) == 2


def test_a_worker_that_dies_costs_time_only(
    spark: Spark, processes: tuple[str, str], large: tuple[Job, Path]
) -> None:
    job, expected = large
    command = job.start_scoring("spark-worker-died", *spark.flags, *processes)
    os.kill(spark.processes.workers()[0], signal.SIGKILL)
    found = job.finished(command, "spark-worker-died")
    assert_equal(found, expected, exactly=True)


def test_as_a_spark_application(spark: Spark, demo: tuple[Job, Path]) -> None:
    """What a SparkApplication runs: evalbeam in the driver, one worker pool beside an executor."""
    job, expected = demo
    (port,) = free_ports(1)
    pool = Processes(job.folder)
    pool.start("pool", [BIN / "evalbeam-worker", "--worker_pool", f"--address=localhost:{port}"])
    try:
        submitted = subprocess.run(
            [
                *(CACHE / "spark" / "pyspark" / "bin" / "spark-submit", "--master"),
                "local-cluster[1,2,1024]",
                *("--conf", f"spark.driver.extraClassPath={spark.jar}"),
                *("--conf", f"spark.executor.extraClassPath={spark.jar}"),
                *(ROOT / "deploy" / "spark" / "submit.py", job.config),
                *("--run-id=submitted", "--output=results"),
                f"--environment_config=localhost:{port}",
            ],
            cwd=job.folder,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env={
                **os.environ,
                "SPARK_HOME": str(CACHE / "spark" / "pyspark"),
                "PATH": f"{BIN}:{os.environ['PATH']}",
                "PYSPARK_PYTHON": sys.executable,
            },
        )
    finally:
        pool.end()
    assert submitted.returncode == 0, submitted.stderr
    assert_equal(job.runs / "submitted", expected)
