"""The pipelines on one screen, in the order of the data flow."""

from __future__ import annotations

import apache_beam as beam
from apache_beam import pvalue

from evalbeam.beam_jobs.job import Job
from evalbeam.beam_jobs.publish.staging import Staging
from evalbeam.transforms import batch, meter
from evalbeam.transforms.formats import shards as file_shards
from evalbeam.transforms.metrics.evaluation import Evaluation
from evalbeam.transforms.models import quiet
from evalbeam.transforms.results.index import Index
from evalbeam.transforms.sinks.state import State
from evalbeam.transforms.stages import (
    aggregate,
    find_classes,
    find_edges,
    finish,
    predict,
    read,
    restore,
    write,
)
from evalbeam.transforms.tfma import catalog, eval_config


def look_ahead(pipeline: beam.Pipeline, job: Job, stage: Staging, tasks: int) -> None:
    """Finds edges of slice columns in quantiles, and classes, in a pass before the main one."""
    terms = tuple(term for term in job.evaluation.terms() if term.quantiles is not None)
    named = {each.output: each.columns for each in job.open_classes}
    columns = {term.column for term in terms}.union(*named.values())
    # Quantiles are those of the main split; other splits may have more classes.
    shards = [shard for shard in job.shards if named or shard.split == batch.MAIN_SPLIT]
    texts = columns.intersection(job.projection.texts)
    projection = batch.Projection(tuple(sorted(columns)), texts=tuple(sorted(texts)))
    read_out = (
        pipeline
        | "List shards" >> beam.Create(file_shards.tasks(shards, tasks), reshuffle=False)
        | "Read" >> read.Read(projection, job.batch_size)
    )
    batches = read_out[read.BATCHES]
    if terms:
        main = batches | "Main split" >> beam.Filter(_is_in_main)
        cuts = main | "Find edges" >> find_edges.FindEdges(terms)
        cuts | "Write edges" >> write.WriteJson(stage.shared(stage.edges))
    if named:
        found = batches | "Find classes" >> find_classes.FindClasses(named)
        found | "Write classes" >> write.WriteJson(stage.shared(stage.classes))


def evaluate(
    pipeline: beam.Pipeline,
    job: Job,
    stage: Staging,
    tasks: int,
    partitions: int,
    progress: meter.Board,
) -> None:
    """Reads in at least `tasks` tasks, predicts with every version, adds up, merges, finishes."""
    evaluation = job.evaluation
    read_out = (
        pipeline
        | "List shards" >> beam.Create(file_shards.tasks(job.shards, tasks), reshuffle=False)
        | "Read" >> read.Read(job.projection, job.batch_size)
    )
    predicted = read_out[read.BATCHES] | "Predict" >> predict.Predict(
        *(job.models, evaluation.heads, evaluation.weight, evaluation.id, job.preprocessing),
        strict=job.max_dead_letters == 0,
    )
    added = predicted.scored | "Aggregate" >> aggregate.Aggregate(evaluation, partitions, progress)
    indexes = [
        added[aggregate.TABLES]
        | "Write tables" >> write.WriteTables(evaluation, partitions, stage.shared(stage.state))
    ]
    if (config := eval_config.build_for_tfma(evaluation)) is not None:
        with quiet.starting_tensorflow():
            from evalbeam.transforms.tfma import evaluator  # imports TFMA: 16 seconds

        indexes.append(
            predicted.scored
            | "Main split" >> beam.Filter(_is_main)
            | "Evaluate with TFMA"
            >> evaluator.EvaluateWithTfma(
                eval_config=config.SerializeToString(deterministic=True),
                models=evaluation.models,
                heads=evaluation.heads,
                slices=evaluation.slices,
                # Unmodified for comparison; fixed where it replaces our kernels.
                correct=evaluation.engine != "tfma",
                one_hot=catalog.takes_one_hot(eval_config.list_classes(config)),
            )
            | "Write messages"
            >> write.WriteMessages(evaluation, partitions, stage.shared(stage.state))
        )
    _finish(indexes, evaluation, stage)
    (
        (read_out[read.LEDGERS], predicted[predict.LEDGERS], added[aggregate.LEDGERS])
        | "All ledgers" >> beam.Flatten()
        | "Write ledgers" >> write.WriteJson(stage.shared(stage.ledgers))
    )


def rebuild(pipeline: beam.Pipeline, state: State, evaluation: Evaluation, stage: Staging) -> None:
    """Finishes a saved state again, whose sums suffice for the evaluation."""
    (
        pipeline
        | "Saved index" >> beam.Create([state.index], reshuffle=False)
        | "Results" >> finish.Finish(state.evaluation, evaluation, state.folder, _places(stage))
    )


def merge(
    pipeline: beam.Pipeline,
    states: list[State],
    evaluation: Evaluation,
    stage: Staging,
    partitions: int,
) -> None:
    """Reads the tables of several states, merges and finishes them."""
    parts = [
        (state.folder, part)
        for state in states
        for part in state.index.parts
        if part.kind == "table"
    ]
    merged = (
        pipeline
        | "List parts" >> beam.Create(parts)
        | "Read tables" >> restore.ReadTables(partitions)
        | "Merge" >> aggregate.MergeTables(evaluation)
    )
    indexes = [
        merged
        | "Write tables" >> write.WriteTables(evaluation, partitions, stage.shared(stage.state))
    ]
    _finish(indexes, evaluation, stage)


def _finish(
    indexes: list[pvalue.PCollection[Index]], evaluation: Evaluation, stage: Staging
) -> None:
    (
        indexes
        | "All parts" >> beam.Flatten()
        | "Write index" >> write.WriteTotal(stage.shared(stage.index))
        | "Results"
        >> finish.Finish(evaluation, evaluation, stage.shared(stage.state), _places(stage))
    )


def _places(stage: Staging) -> finish.Places:
    return finish.Places(
        tables={name: stage.shared(folder) for name, folder in stage.tables.items()},
        tfma=stage.shared(stage.tfma),
        finished=stage.shared(stage.finished),
    )


def _is_in_main(examples: batch.Batch) -> bool:
    return examples.shard.split == batch.MAIN_SPLIT


def _is_main(scored: batch.Scored) -> bool:
    return scored.batch.shard.split == batch.MAIN_SPLIT
