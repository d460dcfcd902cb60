"""The main job: check, run the pipeline, verify its counts, finish, publish."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from apache_beam.options.pipeline_options import PipelineOptions

from evalbeam.beam_jobs import check, config, pipeline
from evalbeam.beam_jobs.check import stores
from evalbeam.beam_jobs.job import Job
from evalbeam.beam_jobs.launch import cluster, progress, runner
from evalbeam.beam_jobs.publish import manifest, staging, verify
from evalbeam.beam_jobs.report import terminal
from evalbeam.transforms import batch, errors, ledger, meter
from evalbeam.transforms.checks import conversion
from evalbeam.transforms.examples import slices
from evalbeam.transforms.metrics import table
from evalbeam.transforms.models import measure
from evalbeam.transforms.results import compare, finish
from evalbeam.transforms.sinks import state, tables
from evalbeam.transforms.tfma import protos, result_files

# On a cluster the slices are merged in so many parts, by as many workers.
_CLUSTER_PARTITIONS = 16
# So often a worker writes how far it is: in files of this machine, or in an object store perhaps.
_LOCAL_SECONDS = 0.2
_CLUSTER_SECONDS = 5.0


@dataclass(frozen=True)
class Request:
    """What the command line asks for.

    Attributes:
      config_path, config_text: the YAML file and what it holds.
      settings: the same, validated.
      output: in place of the config's output, a folder or URL.
      run_id: in place of one made of the name and the time.
      engine: "columnar", or "tfma" for TFMA's own evaluators.
      dry_run: check and say what would be done, no more.
      beam_options: Beam's pipeline options, as on a command line.
      started: when the command began, by time.monotonic.
    """

    config_path: str
    config_text: str
    settings: config.Config
    output: str | None = None
    run_id: str | None = None
    engine: str = "columnar"
    dry_run: bool = False
    beam_options: tuple[str, ...] = ()
    started: float = field(default_factory=time.monotonic)


def run(request: Request) -> None:
    """Runs the job, publishes its results and prints them.

    Raises:
      ConfigError, JobError: nothing was published, `latest` is what it was.
    """
    clock = [request.started]
    output = request.output or request.settings.output
    run_id = request.run_id or _new_id(request.settings.name)
    if not re.match(config.NAME, run_id):
        raise errors.ConfigError(f"--run-id {run_id!r}: {config.NAME_RULE}")
    options = runner.options(request.beam_options)
    described = cluster.check(options)
    stores.check(request.settings, output, options)
    job = check.check(request.settings, request.engine)
    for note in job.notes:
        print(note, file=sys.stderr)
    clock.append(time.monotonic())
    if request.dry_run:
        print(terminal.plan(job))
        if described is not None:
            print(described)
        return
    if described is not None:
        print(described, file=sys.stderr)
    if told := runner.use_processes(options, request.beam_options, job.shards):
        print(told, file=sys.stderr)
    costs = _costs(job)
    clock.append(time.monotonic())
    if not runner.is_local(options):
        job = job.with_absolute_paths()
    with staging.staged(output, run_id) as stage:
        job = _with_edges(job, stage, options)
        job_id = _execute(job, stage, options)
        stage.gather()
        clock.append(time.monotonic())
        entered = ledger.Ledger.total(stage.entries(stage.ledgers))
        verify.reconcile(job, entered)
        parts = [state.read(path) for path in sorted(stage.state.glob("*.parquet"))]
        merged = table.Table.joined(parts)
        notes = [*verify.verify(job, merged, entered), *_plots_left_out(job, len(merged.slices))]
        for note in notes:
            print(note, file=sys.stderr)
        job = dataclasses.replace(job, notes=(*job.notes, *notes))
        letters = (json.dumps(vars(letter)) + "\n" for letter in entered.dead_letters)
        with stage.dead_letters.open("w") as file:
            file.writelines(letters)
        _write_results(job, merged, stage)
        found = _findings(job, merged, entered, stage.folder, costs)
        (stage.folder / "findings.json").write_text(json.dumps(found, indent=2) + "\n")
        clock.append(time.monotonic())
        steps = ("check", "measure", "pipeline", "finish")
        entries = manifest.build(
            job,
            entered,
            found,
            costs,
            run_id=run_id,
            config_path=request.config_path,
            config_text=request.config_text,
            runner=runner.name(options),
            job_id=job_id,
            options=runner.shown(options),
            timings_s=dict(zip(steps, map(float, np.diff(clock)), strict=True)),
        )
        (stage.folder / "manifest.json").write_text(json.dumps(entries, indent=2) + "\n")
        results = staging.publish(stage, output, run_id)
        _show(results, staging.published(output, run_id), clock[-1] - clock[0])


def _show(results: Path, published: str, seconds: float) -> None:
    """Prints the run; it is published, whatever becomes of what is printed of it."""
    try:
        terminal.show(results, published, seconds)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print(f"results are in {published}", file=sys.stderr)
    except Exception as e:
        # A closed pipe, or a terminal that lacks a letter. Python would stumble over the rest of
        # the pipe again at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if not isinstance(e, BrokenPipeError):
            print(f"results are in {published}, but cannot be printed: {e}", file=sys.stderr)


def _new_id(name: str) -> str:
    now = datetime.datetime.now(datetime.timezone.utc)
    return f"{name}-{now:%Y%m%dT%H%M%S}-{os.urandom(2).hex()}"


def _with_edges(job: Job, stage: staging.Staging, options: PipelineOptions) -> Job:
    """The job with the edges of slice columns that are cut into quantiles."""
    if not any(term.quantiles for spec in job.specs for term in spec):
        return job
    built = runner.pipeline(options)
    pipeline.find_edges(built, job, stage, runner.tasks(options))
    runner.run(built)
    stage.gather()
    found = {(c["column"], c["quantiles"]): tuple(c["edges"]) for c in stage.entries(stage.edges)}

    def cut(term: slices.Term) -> slices.Term:
        if not term.quantiles:
            return term
        if (term.column, term.quantiles) not in found:
            raise errors.ConfigError(
                f"slices: column {term.column!r} has no value in any row, so no quantiles; check "
                "its name"
            )
        return dataclasses.replace(term, edges=found[term.column, term.quantiles])

    return dataclasses.replace(job, specs=tuple(tuple(map(cut, spec)) for spec in job.specs))


def _costs(job: Job) -> dict[str, measure.Measures]:
    """What each version costs; says so where one cannot be measured."""
    if job.first is None:
        return {}
    found, failed = measure.measure(job.models, job.first, job.batch_size)
    for name, why in failed.items():
        print(f"version {name!r} was not measured: {why}", file=sys.stderr)
    return found


def _execute(job: Job, stage: staging.Staging, options: PipelineOptions) -> str | None:
    """Runs the pipeline; returns the cluster's name for the job."""
    built = runner.pipeline(options)
    tasks = runner.tasks(options)
    if runner.is_local(options):
        partitions, board = 1, meter.Board(str(stage.progress), _LOCAL_SECONDS)
    else:
        partitions = _CLUSTER_PARTITIONS
        board = meter.Board(stage.shared(stage.progress), _CLUSTER_SECONDS)
    pipeline.build(built, job, stage, tasks, partitions, board)
    with progress.watch(board, job.shards):
        return runner.run(built)


def _plots_left_out(job: Job, count: int) -> list[str]:
    """A note, where there are plots and not of all `count` slices."""
    if count <= finish.PLOTTED or not any(one.plot for one in job.evaluation.plan.metrics):
        return []
    return [f"plots: only of the {finish.PLOTTED:,} largest of {count:,} slices; metrics: of all"]


def _write_results(job: Job, merged: table.Table, stage: staging.Staging) -> None:
    """The tables and the TFMA result, block by block of slices."""
    eval_config = protos.config_pb2.EvalConfig.FromString(job.eval_config)
    by_tfma, tfma_config = result_files.Messages(), eval_config
    if job.tfma_config is not None:
        by_tfma = result_files.read(stage.tfma)
        tfma_config = protos.config_pb2.EvalConfig.FromString(job.tfma_config)
    blocks = finish.blocks(merged, job.evaluation)
    main = next(shard for shard in job.shards if shard.split == batch.MAIN_SPLIT)
    locations = {model.name: model.path for model in job.models}
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(tables.Writer(stage.folder, job.min_slice_size))
        theirs = stack.enter_context(
            result_files.Writer(
                stage.folder / "tfma", eval_config, locations, main.path, main.format, by_tfma
            )
        )
        joined = result_files.joined(_passing(blocks, theirs), by_tfma, tfma_config, job.names)
        for block in joined:
            ours.add(block, list(compare.differences(block, job.evaluation.plan, job.pairs)))


def _findings(
    job: Job,
    merged: table.Table,
    entered: ledger.Ledger,
    folder: Path,
    costs: Mapping[str, measure.Measures],
) -> list[dict[str, Any]]:
    """The entries of findings.json."""
    if not job.conversions:
        return []
    judged = tables.verdicts(folder, batch.MAIN_SPLIT)
    found = conversion.findings(
        merged, job.evaluation, job.pairs, judged, entered.differences, costs
    )
    return [one.entry() for one in found]


def _passing(blocks: Iterator[finish.Block], theirs: result_files.Writer) -> Iterator[finish.Block]:
    """The blocks, each written as TFMA's files have it before TFMA's own numbers join it."""
    for block in blocks:
        theirs.add(block)
        yield block
