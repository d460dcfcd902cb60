"""The main job: check, run the pipeline, verify its counts, publish."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from apache_beam.options.pipeline_options import PipelineOptions

from evalbeam.beam_jobs import config, pipeline
from evalbeam.beam_jobs.check import check, stores
from evalbeam.beam_jobs.job import Job
from evalbeam.beam_jobs.launch import cluster, progress, runner
from evalbeam.beam_jobs.publish import assemble, manifest, staging, verify
from evalbeam.beam_jobs.publish.staging import Staging
from evalbeam.beam_jobs.report import terminal
from evalbeam.transforms import errors, meter
from evalbeam.transforms.checks import scores
from evalbeam.transforms.examples import classes, labels, slices, tasks
from evalbeam.transforms.ledger import Ledger
from evalbeam.transforms.metrics.evaluation import Engine, Evaluation
from evalbeam.transforms.models import measure
from evalbeam.transforms.results.index import Index
from evalbeam.transforms.stages import aggregate

# How often a worker reports its progress: to local files, or possibly to an object store.
_LOCAL_SECONDS = 0.2
_CLUSTER_SECONDS = 5.0
# The assumed size of an example, if only the size of the data is known.
_EXAMPLE_BYTES = 100


@dataclass(frozen=True)
class Arguments:
    """The command line's arguments.

    Attributes:
      config_path, config_text: the path and content of the YAML file.
      settings: the validated config.
      started: when the command started, by time.monotonic.
      output: a folder or URL that overrides the config's output.
      run_id: the id of the run; None for one with the name and the time.
      engine: "columnar", or "tfma" for TFMA's own evaluators.
      dry_run: only check, and print what a run would do.
      beam_options: Beam's pipeline options, as on a command line.
    """

    config_path: str
    config_text: str
    settings: config.Config
    started: float
    output: str | None = None
    run_id: str | None = None
    engine: Engine = "columnar"
    dry_run: bool = False
    beam_options: tuple[str, ...] = ()


def run(arguments: Arguments) -> None:
    """Runs the job, then publishes and prints its results.

    Raises:
      ConfigError, JobError: nothing was published, and `latest` is unchanged.
    """
    clock = [arguments.started]
    output = arguments.settings.output if arguments.output is None else arguments.output
    run_id = staging.check_run_id(arguments.run_id) or staging.new_run_id(arguments.settings.name)
    options = runner.options(arguments.beam_options)
    cluster_note = cluster.check(options)
    stores.check(stores.inputs(arguments.settings), output, options)
    if not arguments.dry_run and arguments.run_id and _complete(arguments, output, run_id):
        return
    staging.check_output(output, run_id)
    try:
        job = check(arguments.settings, arguments.engine)
    except errors.ConfigError as error:
        if not error.keys:
            raise
        text = config.locate(arguments.config_path, arguments.config_text, error)
        raise errors.ConfigError(text) from error
    terminal.note(*job.notes)
    clock.append(time.monotonic())
    if arguments.dry_run:
        print(terminal.describe_plan(job))
        if cluster_note is not None:
            print(cluster_note)
        return
    terminal.note(cluster_note, runner.use_processes(options, arguments.beam_options, job.shards))
    costs = _measure(job)
    clock.append(time.monotonic())
    if not runner.is_local(options):
        job = job.with_absolute_paths()
    with staging.staged(output, run_id) as stage:
        job = _look_ahead(job, stage, options)
        job_id = _evaluate(job, stage, options)
        clock.append(time.monotonic())
        ledger, index = _gather(job, stage)
        scales = {spec.name: spec.scores for spec in job.models}
        notes = [
            *verify.note_open_ends(ledger),
            *scores.check(job.evaluation, scales, ledger.seen),
            *verify.note_empty_slices(job.evaluation, index),
            *verify.note_missing_numbers(job.evaluation, index),
            *assemble.note_plots(job.evaluation, index),
            *assemble.note_baselines(index),
        ]
        terminal.note(*notes)
        description = manifest.describe(
            dataclasses.replace(job, notes=(*job.notes, *notes)),
            costs,
            run_id=run_id,
            config_path=arguments.config_path,
            config_text=arguments.config_text,
            runner=runner.name(options),
            job_id=job_id,
            options=runner.redact(options),
        )
        steps = ("check", "measure", "pipeline")
        description["timings_s"] = dict(zip(steps, np.diff(clock).tolist(), strict=True))
        assemble.assemble(stage, job.evaluation, job.evaluation, index, ledger, description)
        results = staging.publish(stage, output, run_id)
        terminal.show_published(
            results, staging.run_path(output, run_id), time.monotonic() - clock[0]
        )


def _complete(arguments: Arguments, output: str, run_id: str) -> bool:
    """Completes what an earlier attempt has published, and reports that; False if it has not."""

    def is_same(published: Mapping[str, Any]) -> bool:
        return manifest.is_of(published, arguments.config_text, arguments.engine)

    latest = staging.complete(output, run_id, is_same)
    if latest is not None:
        terminal.show_completed(staging.run_path(output, run_id), latest)
    return latest is not None


def count_partitions(job: Job, expected: float | None) -> int:
    """The number of partitions of slices for merging, the same on every runner.

    Args:
      job: the checked job.
      expected: the approximate number of examples; None if unknown, then from the files' sizes.
    """
    size = sum(shard.size_bytes for shard in job.shards)
    examples = expected or size / _EXAMPLE_BYTES
    return aggregate.count_partitions(aggregate.estimate_cells(examples, job.evaluation))


def _measure(job: Job) -> dict[str, measure.Measures]:
    """Measures the cost of each version; prints a note on versions that cannot be measured."""
    costs, failures = measure.measure(job.models, job.first, job.batch_size)
    for name, reason in failures.items():
        terminal.note(f"version {name!r} was not measured: {reason}")
    return costs


def _look_ahead(job: Job, stage: Staging, options: PipelineOptions) -> Job:
    """The job with the edges of slice columns in quantiles, and with all classes."""
    if not job.open_classes and not any(term.quantiles for term in job.evaluation.terms()):
        return job
    built = runner.pipeline(options)
    pipeline.look_ahead(built, job, stage, runner.tasks(options))
    runner.run(built)
    stage.gather()
    edges = {
        (cut["column"], cut["quantiles"]): tuple(cut["edges"])
        for cut in stage.read_entries(stage.edges)
    }
    names = {found["output"]: tuple(found["names"]) for found in stage.read_entries(stage.classes)}
    job = _set_classes(job, names)
    return dataclasses.replace(job, evaluation=_set_edges(job.evaluation, edges))


def _set_classes(job: Job, names: Mapping[str, tuple[str, ...]]) -> Job:
    """The job with these names of the classes that were found, reported in its notes."""
    wanted = {each.output: each.wanted for each in job.open_classes}
    heads, notes = [], []
    for head in job.evaluation.heads:
        if head.output in wanted:
            head = tasks.complete(head, names[head.output], wanted[head.output])
            notes.append(_describe_classes(head))
        heads.append(head)
    terminal.note(*notes)
    evaluation = dataclasses.replace(job.evaluation, heads=tuple(heads))
    return dataclasses.replace(
        job, evaluation=evaluation, open_classes=(), notes=(*job.notes, *notes)
    )


def _describe_classes(head: labels.Head) -> str:
    found = f"classes found in {head.column!r}, sorted: {classes.describe(head.names)}"
    if head.task == "binary":
        return (
            f"{found}; {head.class_name(1)!r} is the positive class; `data.positive` sets another"
        )
    return f"{found}; scores are taken to be in this order. `data.classes` sets another"


def _set_edges(
    evaluation: Evaluation, edges: Mapping[tuple[str, int | None], tuple[float, ...]]
) -> Evaluation:
    def set_edges(term: slices.Term) -> slices.Term:
        if not term.quantiles:
            return term
        if (term.column, term.quantiles) not in edges:
            raise errors.ConfigError(
                f"slices: column {term.column!r} has no value in any row, so it has no quantiles; "
                "check its name"
            )
        return dataclasses.replace(term, edges=edges[term.column, term.quantiles])

    specs = tuple(tuple(map(set_edges, spec)) for spec in evaluation.slices)
    return dataclasses.replace(evaluation, slices=specs)


def _evaluate(job: Job, stage: Staging, options: PipelineOptions) -> str | None:
    """Runs the pipeline; returns the cluster's id of the job, if any."""
    built = runner.pipeline(options)
    local = runner.is_local(options)
    board = meter.Board(
        str(stage.progress) if local else stage.shared(stage.progress),
        _LOCAL_SECONDS if local else _CLUSTER_SECONDS,
    )
    expected = progress.estimate(job.shards)
    partitions = count_partitions(job, expected)
    pipeline.evaluate(built, job, stage, runner.tasks(options), partitions, board)
    with progress.watch(board, expected):
        job_id = runner.run(built)
    stage.gather()
    return job_id


def _gather(job: Job, stage: Staging) -> tuple[Ledger, Index]:
    """Gathers and verifies the total ledger and the index of the table."""
    ledger = Ledger.merge(map(Ledger.parse, stage.read_entries(stage.ledgers)))
    verify.reconcile(job, ledger)
    index = stage.read_index()
    verify.verify(job.evaluation, index, ledger)
    return ledger, index
