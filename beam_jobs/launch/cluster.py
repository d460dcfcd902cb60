"""Checks clusters that the launcher can reach, and cancels their jobs."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from typing import Any
from urllib import request

from apache_beam.options import pipeline_options

from evalbeam.transforms import errors

_CANCEL_SECONDS = 10
_REST_SECONDS = 5


def check(beam_options: pipeline_options.PipelineOptions) -> str | None:
    """Checks that the cluster is available; returns a description, or None if it cannot be queried.

    Raises:
      ConfigError: a job server's jar does not exist, or the flags cannot start workers.
      JobError: Flink does not answer.
    """
    runner = beam_options.view_as(pipeline_options.StandardOptions).runner
    jar = {
        "FlinkRunner": beam_options.view_as(
            pipeline_options.FlinkRunnerOptions
        ).flink_job_server_jar,
        "SparkRunner": beam_options.view_as(
            pipeline_options.SparkRunnerOptions
        ).spark_job_server_jar,
    }.get(runner)
    if jar and "://" not in jar and not os.path.exists(jar):
        kind = runner.removesuffix("Runner").lower()
        raise errors.ConfigError(
            f"--{kind}_job_server_jar={jar}: there is no such file. "
            f"`deploy/fetch_jars.sh {kind} {os.path.dirname(jar) or '.'}` builds it"
        )
    portable = beam_options.view_as(pipeline_options.PortableOptions)
    if runner == "PortableRunner" and not portable.job_endpoint:
        raise errors.ConfigError(
            "--runner=PortableRunner needs the address of a job server: --job_endpoint=HOST:PORT"
        )
    if portable.environment_type == "PROCESS":
        _check_process(portable.environment_config)
    url = flink_url(beam_options)
    if url is None:
        return None
    try:
        overview = _request(f"{url}/overview")
    except (OSError, ValueError) as e:
        raise errors.JobError(f"Flink does not answer at {url} (--flink_master): {e}") from e
    slots = f"{overview['slots-available']} of {overview['slots-total']} slots are free"
    return f"Flink {overview['flink-version']} at {url}: {slots}"


def _check_process(config: str | None) -> None:
    example = """--environment_config='{"command": "/opt/evalbeam/bin/evalbeam-worker"}'"""
    try:
        command = json.loads(config or "")["command"]
    except (ValueError, KeyError, TypeError) as e:
        raise errors.ConfigError(
            f"--environment_type=PROCESS needs a command in --environment_config, such as {example}"
        ) from e
    if not os.path.isabs(command):
        raise errors.ConfigError(
            f"--environment_config: the command {command!r} is not an absolute path, and is not "
            f"looked up on the PATH: write its full path, such as {example}"
        )


def flink_url(beam_options: pipeline_options.PipelineOptions) -> str | None:
    """The URL of Flink's REST API if the job runs on Flink, else None."""
    master = str(beam_options.view_as(pipeline_options.FlinkRunnerOptions).flink_master)
    runner = beam_options.view_as(pipeline_options.StandardOptions).runner
    if runner != "FlinkRunner" or master.startswith("["):
        return None
    return master if "://" in master else f"http://{master}"


def cancel(job: Any, job_id: str | None, flink: str | None) -> None:
    """Tries to cancel a job, which may already have ended or be unreachable.

    Args:
      job: the pipeline result from Beam.
      job_id: Beam's name for the job.
      flink: the result of `flink_url`.
    """
    # Beam's threads print tracebacks when their streams are closed.
    threading.excepthook = lambda _: None
    with contextlib.suppress(Exception):
        job.cancel()
    # Beam's job server only stops waiting for the job, so cancel it in Flink, where its name is the
    # first part of Beam's id. A job that was just submitted may take a moment to appear.
    job_name = str(job_id).rpartition("_")[0]
    deadline = time.monotonic() + _CANCEL_SECONDS
    while flink is not None and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            for entry in _request(f"{flink}/jobs/overview")["jobs"]:
                if entry["name"] == job_name and entry["end-time"] < 0:
                    _request(f"{flink}/jobs/{entry['jid']}?mode=cancel", "PATCH")
                    return
        time.sleep(0.5)


def _request(url: str, method: str = "GET") -> Any:
    """Calls a REST API and returns its JSON answer."""
    with request.urlopen(request.Request(url, method=method), timeout=_REST_SECONDS) as answer:
        return json.load(answer)
