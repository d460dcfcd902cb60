"""What the Flex Template launches: a Dataflow job of one step, which is the run's driver.

A template's launcher has to return when its job is submitted, while `evalbeam run` waits for its
pipeline, verifies the counts and publishes. So the job that the template launches has one worker;
that runs `evalbeam run`, which submits the evaluation as a job of its own, and fails if it does.
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

# The template's own, and no business of the evaluation.
_OF_THE_LAUNCH = ("--job_name=", "--template_location=")


def drive(config: str, arguments: Sequence[str]) -> None:
    """Runs `evalbeam run` on the text of a config.

    Raises:
      RuntimeError: it failed; Dataflow shows this, and tries three times more. That is harmless: a
        run that is published is not run again, since its id is taken.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "config.yaml")
        with open(path, "w") as file:
            file.write(config)
        command = [sys.executable, "-m", "evalbeam", "run", path, *arguments]
        said: collections.deque[str] = collections.deque(maxlen=40)
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as run:
            for line in run.stderr or ():
                sys.stderr.write(line)  # the progress, now
                said.append(line)
    if run.returncode:
        raise RuntimeError(f"evalbeam ended with exit code {run.returncode}: {''.join(said)}")


def main(argv: Sequence[str]) -> None:
    """Submits the driver's job, and returns."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--config", required=True)
    parser.add_argument("--output")
    parser.add_argument("--run_id")
    parser.add_argument("--engine")
    asked, flags = parser.parse_known_args(argv)
    options = pipeline_options.PipelineOptions(flags)
    job = options.view_as(pipeline_options.GoogleCloudOptions).job_name
    arguments = [f"--run-id={asked.run_id or job}"]
    if asked.output:
        arguments.append(f"--output={asked.output}")
    if asked.engine:
        arguments.append(f"--engine={asked.engine}")
    # Workers and machines that were asked for are the evaluation's.
    arguments += [flag for flag in flags if not flag.startswith(_OF_THE_LAUNCH)]
    workers = options.view_as(pipeline_options.WorkerOptions)
    workers.num_workers = workers.max_num_workers = 1
    with FileSystems.open(asked.config) as file:
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
