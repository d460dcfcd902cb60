"""Beam's options and runners: which one, with which flags, and what its failures mean."""

from __future__ import annotations

import contextlib
import copy
import glob
import logging
import os
import pathlib
import re
import signal
from collections.abc import Sequence
from typing import Any

import apache_beam as beam
from apache_beam.options import pipeline_options
from apache_beam.runners.runner import create_runner

from evalbeam.beam_jobs.launch import cluster
from evalbeam.transforms import batch, errors

_LOCAL = "DirectRunner"

# What worker processes cost and bring, measured with the benchmark's reference job on two cores:
# the seconds until they work, and bytes of tf.Examples per second, of one such process on a core of
# its own and of this process, whose threads share one interpreter and use about one and a half.
_START_SECONDS = 9.0
_PROCESS_RATE = 65e6
_HERE_RATE = 110e6
_BYTES_PER_PROCESS = 2 << 30  # of memory
_CONTAINER_LIMIT = pathlib.Path("/sys/fs/cgroup/memory.max")
_GPUS = "/dev/nvidia[0-9]*"

_CLUSTER_TASKS = 256
_TASKS_PER_WORKER = 4

# What Beam says each time, and nobody can act on: its local worker processes, its job servers.
_CHATTER = (
    "No semi_persistent_directory found",
    "Discarding unparseable args",
    "Really starting service",
    "Really destroying service",
)
_CHATTERERS = (
    "apache_beam.runners.portability.local_job_service",
    "apache_beam.utils.subprocess_server",
)
_JAVA_FRAME = re.compile(r"\s+at [\w.$]+|\s+\.\.\. \d+ more|Driver stacktrace:|\s*$")
_TOLD_LINES = 60
_INTERRUPTED = r"^KeyboardInterrupt\s*(\[while running '.*'\])?\s*$"
# In an option's name, or in its value, such as environment variables or a URL with a password.
_SECRET = re.compile(
    "secret|pass|pwd|token|key_|_key|apikey|credential|connection_s|auth|sig=|://[^/]*@"
)
# What anything may stand in.
_FREE = ("job_server_jvm_properties", "environment_options")

_CLUSTER_DEFAULTS = (
    # A list of the launcher's packages, which a cluster whose workers have theirs does not need: it
    # is the one file that would have to be staged where all workers can read it.
    "--experiments=disable_logging_submission_environment",
    # Else each stage starts its workers anew, and each worker TensorFlow.
    "--environment_cache_millis=60000",
)
_SPARK_DEFAULTS = (
    # An executor whose worker has died gets no other while that is kept: tasks must go elsewhere.
    "--job_server_jvm_property=-Dspark.excludeOnFailure.enabled=true",
)


def options(flags: Sequence[str]) -> pipeline_options.PipelineOptions:
    """Beam's options; the local runner where the flags name none.

    Raises:
      ConfigError: a flag that is not Beam's.
    """
    known = pipeline_options._BeamArgumentParser(allow_abbrev=False)
    for kind in {kind.__name__: kind for kind in _kinds(pipeline_options.PipelineOptions)}.values():
        if "_add_argparse_args" in vars(kind):
            kind._add_argparse_args(known)
    parsed, unknown = known.parse_known_args(list(flags))
    if unknown:
        flag = unknown[0].partition("=")[0]  # its value may be a secret
        raise errors.ConfigError(
            f"unknown option {flag}: neither evalbeam's (see `evalbeam run --help`) nor one of "
            "Beam's pipeline options"
        )
    if parsed.runner not in (None, _LOCAL):
        try:
            create_runner(parsed.runner)
        except (ValueError, ImportError, AttributeError) as e:
            raise errors.ConfigError(f"--runner={parsed.runner}: {e}") from e
        more = _SPARK_DEFAULTS if parsed.runner == "SparkRunner" else ()
        return pipeline_options.PipelineOptions([*_CLUSTER_DEFAULTS, *more, *flags])
    defaults = [f"--runner={_LOCAL}"]
    if parsed.direct_num_workers != 1 and parsed.direct_running_mode == "in_memory":
        # In Beam's own default mode more workers than one change nothing.
        defaults.append("--direct_running_mode=multi_threading")
    if not parsed.update_compatibility_version:
        # Else Beam would first look for Prism, a runner that it downloads.
        defaults.append(f"--update_compatibility_version={beam.version.__version__}")
    return pipeline_options.PipelineOptions([*defaults, *flags])


def tasks(chosen: pipeline_options.PipelineOptions) -> int:
    """Into how many tasks the data are split, if there are as many shards: a few for each worker.

    How many workers a cluster has is not known here, and may change.
    """
    if not is_local(chosen):
        return _CLUSTER_TASKS
    workers = chosen.view_as(pipeline_options.DirectOptions).direct_num_workers
    return 1 if workers == 1 else _TASKS_PER_WORKER * (workers or os.cpu_count() or 1)


def use_processes(
    chosen: pipeline_options.PipelineOptions, flags: Sequence[str], shards: Sequence[batch.Shard]
) -> str | None:
    """Lets a local run of much data work in processes, where that is faster; says so.

    Processes take seconds to start and then use all cores; they are worth it for gigabytes. Flags
    that say how to run (`--direct_...`) are left alone. TensorFlow gets as many threads in each
    process as there are cores for it.
    """
    if not is_local(chosen):
        return None
    direct = chosen.view_as(pipeline_options.DirectOptions)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = cores or 1
    note = None
    if not any(flag.startswith("--direct_") for flag in flags):
        direct.direct_num_workers = _workers(cores, [shard.size_bytes for shard in shards])
        if direct.direct_num_workers > 1:
            direct.direct_running_mode = "multi_processing"
            size_bytes = sum(shard.size_bytes for shard in shards)
            note = (
                f"starting {direct.direct_num_workers} worker processes for "
                f"{size_bytes / 1e9:.1f} GB of data (--direct_num_workers=1 for none)"
            )
    if direct.direct_running_mode == "multi_processing":
        threads = str(max(1, cores // (direct.direct_num_workers or cores)))
        for variable in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
            os.environ.setdefault(variable, threads)
    return note


def _workers(cores: int, sizes: Sequence[int]) -> int:
    """How many processes are fastest for shards of these sizes in bytes; 1: none but this one."""
    total, largest = sum(sizes), max(sizes, default=0)
    if not total or glob.glob(_GPUS):  # TensorFlow takes all of a GPU's memory in each process
        return 1
    workers = max(1, min(cores, _memory_bytes() // _BYTES_PER_PROCESS, total // largest))
    seconds = _START_SECONDS + total / (workers * _PROCESS_RATE)
    return workers if seconds < total / _HERE_RATE else 1


def _memory_bytes() -> int:
    """The machine's memory, or what the container may use of it."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):
        memory = min(memory, int(_CONTAINER_LIMIT.read_text()))
    return memory


def _kinds(
    kind: type[pipeline_options.PipelineOptions],
) -> list[type[pipeline_options.PipelineOptions]]:
    below = [found for one in kind.__subclasses__() for found in _kinds(one)]
    return [*kind.__subclasses__(), *below]


def name(chosen: pipeline_options.PipelineOptions) -> str:
    """The runner's name."""
    return str(chosen.view_as(pipeline_options.StandardOptions).runner)


def is_local(chosen: pipeline_options.PipelineOptions) -> bool:
    """Whether the workers run on this machine and share its files."""
    return name(chosen) == _LOCAL


def shown(chosen: pipeline_options.PipelineOptions) -> dict[str, Any]:
    """The options that were chosen, without the values of those that may be secret."""
    given = chosen.get_all_options(drop_default=True)
    return {option: _without_secrets(option, given[option]) for option in sorted(given)}


def _without_secrets(option: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_without_secrets(option, part) for part in value]
    text = str(value)
    if option in _FREE and "=" in text:
        return f"{text.partition('=')[0]}=(hidden)"
    if option == "environment_config" and text.startswith("{") and '"env"' in text:
        return "(hidden)"
    return "(hidden)" if _SECRET.search(f"{option}={text}".lower()) else value


def pipeline(chosen: pipeline_options.PipelineOptions) -> beam.Pipeline:
    """A new pipeline; it has options of its own, for portable runners change them."""
    return beam.Pipeline(options=copy.deepcopy(chosen))


def run(built: beam.Pipeline) -> str | None:
    """Runs the pipeline to its end; returns the cluster's name for the job.

    Raises:
      EvalbeamError: what went wrong on a worker, as our own error.
      KeyboardInterrupt: the job was interrupted, and the cluster told to cancel it.
    """
    # An exception on a worker comes home with its traceback: once is enough.
    for module in ("common", "worker.sdk_worker", "worker.operations", "worker.bundle_processor"):
        logging.getLogger(f"apache_beam.runners.{module}").setLevel(logging.CRITICAL)
    for chatterer in _CHATTERERS:
        logging.getLogger(chatterer).addFilter(_is_news)
    # Messages of the job, of which errors are raised too, and of waiting for its server.
    logging.getLogger().addFilter(_is_no_message)
    local = is_local(built.options)
    flink = cluster.flink_url(built.options)
    try:
        job = built.run()
        if not local:
            # Beam's own handler would stop the job server, and the job go on without it.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            job.wait_until_finish()
        except KeyboardInterrupt:
            if not local:
                cluster.cancel(job, _job_id(job), flink)
            raise
    except Exception as e:
        raise _cause(e) from e
    return None if local else _job_id(job)


def _job_id(job: Any) -> str | None:
    """The job's name, which is an attribute of portable runners' jobs, a method of Dataflow's."""
    found = getattr(job, "job_id", None) or getattr(job, "_job_id", None)
    return found() if callable(found) else found


def _is_no_message(record: logging.LogRecord) -> bool:
    error = record.module == "portable_runner" and record.levelno >= logging.ERROR
    return not error and not record.getMessage().startswith("Waiting for grpc channel")


def _is_news(record: logging.LogRecord) -> bool:
    return not any(chatter in record.getMessage() for chatter in _CHATTER)


def _cause(error: BaseException) -> errors.EvalbeamError:
    """What went wrong on a worker: Beam adds the step to it, or brings home only a traceback."""
    text = str(error)
    if isinstance(error, KeyboardInterrupt) or re.search(_INTERRUPTED, text, re.M):
        raise KeyboardInterrupt from error
    for kind in (errors.ConfigError, errors.NotComparableError, errors.JobError):
        named = f"evalbeam.transforms.errors.{kind.__name__}: "
        if isinstance(error, kind) or named in text:
            told = text.rpartition(named)[2]
            return kind(re.split(r" \[while running '|\n\n", told)[0].strip())
    # A fault of ours or of the machine: whoever mends it needs the traceback, but none of Java's.
    lines = [line for line in text.splitlines() if not _JAVA_FRAME.match(line)]
    if len(lines) > _TOLD_LINES:  # TFMA's errors may show every example.
        half = _TOLD_LINES // 2
        lines[half:-half] = [f"... {len(lines) - _TOLD_LINES:,} lines ..."]
    told = "\n".join(lines)
    if "java.io.IOException: error=" in told or "Process died with exit code" in told:
        told += (
            ". A worker could not be started: is evalbeam-worker at the path that "
            "--environment_config names, on every machine of the cluster?"
        )
    return errors.JobError(f"The pipeline failed: {told.strip()}")
