"""Chooses Beam's runner and options, runs pipelines, and explains their failures."""

from __future__ import annotations

import copy
import glob
import logging
import os
import re
import signal
import types
from collections.abc import Sequence
from typing import Any, NoReturn

import apache_beam as beam
import grpc
from apache_beam.options import pipeline_options
from apache_beam.runners.portability.fn_api_runner import worker_handlers
from apache_beam.runners.runner import create_runner
from apache_beam.runners.worker import sdk_worker

from evalbeam.beam_jobs.launch import cluster, processes
from evalbeam.transforms import batch, errors
from evalbeam.transforms.models import memory

_LOCAL = "DirectRunner"

# The cost and speed of worker processes, measured with the benchmark's reference job on two cores:
# the seconds to start, and bytes of tf.Examples per second for a worker process with its own core,
# and for this process, whose threads share one interpreter and use about one and a half cores.
_START_SECONDS = 9.0
_PROCESS_RATE = 65e6
_THREADS_RATE = 110e6
_MEMORY_BYTES_PER_PROCESS = 2 << 30
_GPUS = "/dev/nvidia[0-9]*"

_NEVER_MS = 10**9

_CLUSTER_TASKS = 256
_TASKS_PER_WORKER = 4

# Messages that Beam logs in every run and that nobody can act on.
_CHATTER = (
    "No semi_persistent_directory found",
    "Discarding unparseable args",
    "Really starting service",
    "Really destroying service",
)
_CHATTERER = "apache_beam.utils.subprocess_server"
_JAVA_FRAME = re.compile(r"\s+at [\w.$]+|\s+\.\.\. \d+ more|Driver stacktrace:|\s*$")
_MAX_LINES = 16
_INTERRUPTED = r"^KeyboardInterrupt\s*(\[while running '.*'\])?\s*$"
# In an option's name or value, such as environment variables or a URL with a password.
_SECRET = re.compile(
    "secret|pass|pwd|token|key_|_key|apikey|credential|connection_s|auth|sig=|://[^/]*@"
)
# Options whose values may be secret whatever they look like.
_FREE_FORM = ("job_server_jvm_properties", "environment_options")

_CLUSTER_DEFAULTS = (
    # Do not submit the list of the launcher's packages, the only file that would need staging in a
    # place that all workers can read.
    "--experiments=disable_logging_submission_environment",
    # Otherwise each stage starts new workers, which load TensorFlow again.
    "--environment_cache_millis=60000",
)
_SPARK_DEFAULTS = (
    # With cached environments, an executor does not replace a dead worker: tasks must go elsewhere.
    "--job_server_jvm_property=-Dspark.excludeOnFailure.enabled=true",
)


def options(flags: Sequence[str]) -> pipeline_options.PipelineOptions:
    """Beam's options from flags; the local runner by default.

    Raises:
      ConfigError: a flag is not one of Beam's.
    """
    parser = pipeline_options._BeamArgumentParser(allow_abbrev=False)
    parser.error = _reject  # type: ignore[method-assign]
    for kind in {kind.__name__: kind for kind in _kinds(pipeline_options.PipelineOptions)}.values():
        if "_add_argparse_args" in vars(kind):
            kind._add_argparse_args(parser)
    parsed, unknown = parser.parse_known_args(list(flags))
    if unknown:
        flag = unknown[0].partition("=")[0]  # its value may be a secret
        raise errors.ConfigError(
            f"unknown option {flag}: it is neither an option of evalbeam (see `evalbeam run "
            "--help`) nor one of Beam's pipeline options."
            f"{errors.did_you_mean(flag, parser._option_string_actions)}"
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
        # In Beam's default mode, additional workers have no effect.
        defaults.append("--direct_running_mode=multi_threading")
    if not parsed.update_compatibility_version:
        # Otherwise Beam would first try Prism, a runner that it downloads.
        defaults.append(f"--update_compatibility_version={beam.version.__version__}")
    return pipeline_options.PipelineOptions([*defaults, *flags])


def _reject(message: str) -> NoReturn:
    """Instead of argparse's error, which prints a hundred lines of usage."""
    raise errors.ConfigError(f"Beam's pipeline options: {message}")


def tasks(beam_options: pipeline_options.PipelineOptions) -> int:
    """The number of tasks to divide the shards into: a few for each worker.

    The number of workers of a cluster is not known here, and may change.
    """
    if not is_local(beam_options):
        return _CLUSTER_TASKS
    workers = beam_options.view_as(pipeline_options.DirectOptions).direct_num_workers
    return 1 if workers == 1 else _TASKS_PER_WORKER * (workers or os.cpu_count() or 1)


def use_processes(
    beam_options: pipeline_options.PipelineOptions,
    flags: Sequence[str],
    shards: Sequence[batch.Shard],
) -> str | None:
    """Configures a local run to use worker processes if that is faster; returns a note if it does.

    Processes take seconds to start but use all cores, which pays off for gigabytes of data.
    Explicit flags (`--direct_...`) are respected. In each process, TensorFlow gets its share of the
    cores as threads.
    """
    if not is_local(beam_options):
        return None
    direct = beam_options.view_as(pipeline_options.DirectOptions)
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
    """The fastest number of processes for shards of these sizes in bytes; 1: only this one."""
    total, largest = sum(sizes), max(sizes, default=0)
    if not total or glob.glob(_GPUS):  # each process would take all of a GPU's memory
        return 1
    workers = max(
        1, min(cores, memory.limit_bytes() // _MEMORY_BYTES_PER_PROCESS, total // largest)
    )
    seconds = _START_SECONDS + total / (workers * _PROCESS_RATE)
    return workers if seconds < total / _THREADS_RATE else 1


def _kinds(
    kind: type[pipeline_options.PipelineOptions],
) -> list[type[pipeline_options.PipelineOptions]]:
    """All subclasses, at any depth."""
    children = kind.__subclasses__()
    return [*children, *(descendant for child in children for descendant in _kinds(child))]


def name(beam_options: pipeline_options.PipelineOptions) -> str:
    """The runner's name."""
    return str(beam_options.view_as(pipeline_options.StandardOptions).runner)


def is_local(beam_options: pipeline_options.PipelineOptions) -> bool:
    """Whether the workers run on this machine and share its files."""
    return name(beam_options) == _LOCAL


def redact(beam_options: pipeline_options.PipelineOptions) -> dict[str, Any]:
    """The options that differ from their defaults, with possible secrets hidden."""
    values = beam_options.get_all_options(drop_default=True)
    return {option: _redact_value(option, values[option]) for option in sorted(values)}


def _redact_value(option: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_redact_value(option, item) for item in value]
    text = str(value)
    if option in _FREE_FORM and "=" in text:
        return f"{text.partition('=')[0]}=(hidden)"
    if option == "environment_config" and text.startswith("{") and '"env"' in text:
        return "(hidden)"
    return "(hidden)" if _SECRET.search(f"{option}={text}".lower()) else value


def pipeline(beam_options: pipeline_options.PipelineOptions) -> beam.Pipeline:
    """A new pipeline, with a copy of the options, as portable runners change them."""
    # In threads, Beam sends what is encoded every second from yet another thread without a lock,
    # even half an element, which is then decoded as if it were whole (seen: "Invalid
    # PaneInfoEncoding"). Between elements it sends what exceeds 10 MB and, at the end, the rest.
    worker_handlers.DATA_BUFFER_TIME_LIMIT_MS = _NEVER_MS
    # Beam's servers do not authenticate who connects, and listen at all interfaces.
    vars(worker_handlers)["grpc"] = types.SimpleNamespace(server=_serve_locally)
    built = beam.Pipeline(options=copy.deepcopy(beam_options))
    # For transforms in other languages; it would stay if this process were killed.
    os.rmdir(built.local_tempdir)
    return built


def _serve_locally(*arguments: Any, **more: Any) -> grpc.Server:
    server = grpc.server(*arguments, **more)
    add_port = server.add_insecure_port
    server.add_insecure_port = lambda address: add_port(address.replace("[::]", "localhost"))
    return server


def run(built: beam.Pipeline) -> str | None:
    """Runs the pipeline to its end; returns the cluster's name for the job.

    Raises:
      EvalbeamError: a worker failed; the error that it raised.
      KeyboardInterrupt: the job was interrupted; it has been cancelled on the cluster.
    """
    quiet_beam()
    logging.getLogger(_CHATTERER).addFilter(is_informative)
    # Drop the job's errors, which are raised too, and messages about waiting for its server.
    logging.getLogger().addFilter(_is_not_from_job)
    local = is_local(built.options)
    flink = cluster.flink_url(built.options)
    try:
        if local and processes.use_processes(built.options):
            processes.run(built)
            return None
        job = built.run()
        if not local:
            # Beam's own handler would stop the job server but not the job.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            job.wait_until_finish()
        except KeyboardInterrupt:
            if not local:
                cluster.cancel(job, _job_id(job), flink)
            raise
    except processes.WorkerDiedError:
        raise
    except Exception as e:
        raise _explain(e) from e
    return None if local else _job_id(job)


def quiet_beam() -> None:
    """Makes Beam not print the traceback of a worker's exception, which is also raised."""
    for module in ("sdk_worker", "operations", "bundle_processor", "data_plane"):
        logging.getLogger(f"apache_beam.runners.worker.{module}").setLevel(logging.CRITICAL)
    logging.getLogger("apache_beam.runners.common").setLevel(logging.CRITICAL)
    vars(sdk_worker)["print"] = lambda *_, **__: None


def is_informative(record: logging.LogRecord) -> bool:
    """Whether a message of Beam's is not one that it logs in every run."""
    return not any(chatter in record.getMessage() for chatter in _CHATTER)


def _job_id(job: Any) -> str | None:
    """The job's name: an attribute of portable runners' jobs, a method of Dataflow's."""
    job_id = getattr(job, "job_id", None) or getattr(job, "_job_id", None)
    return job_id() if callable(job_id) else job_id


def _is_not_from_job(record: logging.LogRecord) -> bool:
    is_error = record.module == "portable_runner" and record.levelno >= logging.ERROR
    return not is_error and not record.getMessage().startswith("Waiting for grpc channel")


def _explain(error: BaseException) -> errors.EvalbeamError:
    """The worker's error, to which Beam adds the step, or of which it only keeps the traceback."""
    text = str(error)
    if isinstance(error, KeyboardInterrupt) or re.search(_INTERRUPTED, text, re.M):
        raise KeyboardInterrupt from error
    for kind in (
        *(errors.ConfigError, errors.NotComparableError, errors.DataError),
        errors.JobError,  # last, as DataError is one
    ):
        prefix = f"evalbeam.transforms.errors.{kind.__name__}: "
        if isinstance(error, kind) or prefix in text:
            message = text.rpartition(prefix)[2]
            return kind(re.split(r" \[while running '|\n\n", message)[0].strip())
    if isinstance(error, MemoryError) or "MemoryError" in text:
        return errors.JobError(memory.explain(text))
    # A bug or a fault of the machine: keep the traceback for whoever fixes it, but not Java's.
    lines = [line for line in text.splitlines() if not _JAVA_FRAME.match(line)]
    if len(lines) > _MAX_LINES:  # TFMA's errors may contain every example.
        half = _MAX_LINES // 2
        lines[half:-half] = [f"... {len(lines) - _MAX_LINES:,} lines ..."]
    message = "\n".join(lines)
    if "java.io.IOException: error=" in message or "Process died with exit code" in message:
        message += (
            ". A worker could not be started: check that evalbeam-worker is at the path in "
            "--environment_config on every machine of the cluster"
        )
    return errors.JobError(f"The pipeline failed: {message.strip()}")
