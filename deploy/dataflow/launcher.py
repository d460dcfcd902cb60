"""The Flex Template's launcher: submits a Dataflow job of one step, the run's driver.

A template's launcher must return once its job is submitted, but `evalbeam run` waits for its
pipeline, verifies the counts and publishes. So the template launches a job with one worker, which
runs `evalbeam run`; this submits the evaluation as a separate job, and fails if that job fails.
"""

from __future__ import annotations

import argparse
import collections
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.options import pipeline_options

# Flags for the template, not for the evaluation.
_TEMPLATE_FLAGS = ("--job_name=", "--template_location=")


def drive(config: str, arguments: Sequence[str]) -> None:
    """Runs `evalbeam run` on the text of a config.

    Raises:
      RuntimeError: the run failed. Dataflow shows the error and retries three times, which is
        harmless: a published run is not repeated, as its ID is already in use.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "config.yaml")
        with open(path, "w") as file:
            file.write(config)
        command = [sys.executable, "-m", "evalbeam", "run", path, *arguments]
        last_lines: collections.deque[str] = collections.deque(maxlen=40)
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as run:
            for line in run.stderr or ():
                sys.stderr.write(line)  # shows progress immediately
                last_lines.append(line)
    if run.returncode:
        raise RuntimeError(f"evalbeam ended with exit code {run.returncode}: {''.join(last_lines)}")


def main(argv: Sequence[str]) -> None:
    """Submits the driver's job and returns."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--config", required=True)
    parser.add_argument("--output")
    parser.add_argument("--run_id")
    parser.add_argument("--engine")
    parsed, flags = parser.parse_known_args(argv)
    options = pipeline_options.PipelineOptions(flags)
    job = options.view_as(pipeline_options.GoogleCloudOptions).job_name
    arguments = [f"--run-id={parsed.run_id or job}"]
    if parsed.output:
        arguments.append(f"--output={parsed.output}")
    if parsed.engine:
        arguments.append(f"--engine={parsed.engine}")
    # The requested numbers of workers and machine types are for the evaluation.
    arguments += [flag for flag in flags if not flag.startswith(_TEMPLATE_FLAGS)]
    workers = options.view_as(pipeline_options.WorkerOptions)
    workers.num_workers = workers.max_num_workers = 1
    with FileSystems.open(parsed.config) as file:
        config = file.read().decode()
    pipeline = beam.Pipeline(options=options)
    _ = (
        pipeline
        | "Config" >> beam.Create([config])
        | "EvalbeamRun" >> beam.Map(drive, arguments=arguments)
    )
    pipeline.run()


if __name__ == "__main__":
    main(sys.argv[1:])
