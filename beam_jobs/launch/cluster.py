"""Clusters that the launcher can reach itself: are they there, and how is a job cancelled?"""

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


def check(chosen: pipeline_options.PipelineOptions) -> str | None:
    """Asks a cluster that can be asked whether it is there; describes it.

    Raises:
      ConfigError: a job server's jar that is not there, or workers that cannot be started so.
      JobError: a Flink that does not answer.
    """
    runner = chosen.view_as(pipeline_options.StandardOptions).runner
    jar = {
        "FlinkRunner": chosen.view_as(pipeline_options.FlinkRunnerOptions).flink_job_server_jar,
        "SparkRunner": chosen.view_as(pipeline_options.SparkRunnerOptions).spark_job_server_jar,
    }.get(runner)
    if jar and "://" not in jar and not os.path.exists(jar):
        kind = runner.removesuffix("Runner").lower()
        raise errors.ConfigError(
            f"--{kind}_job_server_jar={jar}: there is no such file. "
            f"`deploy/fetch_jars.sh {kind} {os.path.dirname(jar) or '.'}` makes it"
        )
    portable = chosen.view_as(pipeline_options.PortableOptions)
    if runner == "PortableRunner" and not portable.job_endpoint:
        raise errors.ConfigError(
            "--runner=PortableRunner needs the address of a job server: --job_endpoint=HOST:PORT"
        )
    if portable.environment_type == "PROCESS":
        _check_process(portable.environment_config)
    url = flink_url(chosen)
    if url is None:
        return None
    try:
        found = _ask(f"{url}/overview")
    except (OSError, ValueError) as e:
        raise errors.JobError(f"no Flink answers at {url} (--flink_master): {e}") from e
    slots = f"{found['slots-available']} of {found['slots-total']} slots are free"
    return f"Flink {found['flink-version']} at {url}: {slots}"


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
            f"--environment_config: the command {command!r} is looked for in folders of the "
            f"cluster's: give its whole path, such as {example}"
        )


def flink_url(chosen: pipeline_options.PipelineOptions) -> str | None:
    """The URL of Flink's REST interface, if that is where the job runs."""
    master = str(chosen.view_as(pipeline_options.FlinkRunnerOptions).flink_master)
    runner = chosen.view_as(pipeline_options.StandardOptions).runner
    if runner != "FlinkRunner" or master.startswith("["):
        return None
    return master if "://" in master else f"http://{master}"


def cancel(job: Any, job_id: str | None, flink: str | None) -> None:
    """Cancels a job as far as that is possible: it may be over, or out of reach.

    Args:
      job: Beam's result of the pipeline.
      job_id: Beam's name for it.
      flink: `flink_url`.
    """
    # Beam's threads end with tracebacks when their streams do.
    threading.excepthook = lambda _: None
    with contextlib.suppress(Exception):
        job.cancel()
    # Beam's job server cancels only its own waiting for the job; its id is Flink's name, and more.
    # Flink may not have it yet: what is submitted just now appears in a moment.
    job_name = str(job_id).rpartition("_")[0]
    deadline = time.monotonic() + _CANCEL_SECONDS
    while flink is not None and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            running = [one for one in _ask(f"{flink}/jobs/overview")["jobs"] if one["end-time"] < 0]
            for one in running:
                if one["name"] == job_name:
                    _ask(f"{flink}/jobs/{one['jid']}?mode=cancel", "PATCH")
                    return
        time.sleep(0.5)


def _ask(url: str, method: str = "GET") -> Any:
    """The answer of a REST interface."""
    with request.urlopen(request.Request(url, method=method), timeout=_REST_SECONDS) as answer:
        return json.load(answer)
