"""The whole job on one screen, in the data's order."""

from __future__ import annotations

import apache_beam as beam

from evalbeam.beam_jobs.job import Job
from evalbeam.beam_jobs.publish import staging
from evalbeam.transforms import batch, meter
from evalbeam.transforms.formats import shards as file_shards
from evalbeam.transforms.models import quiet
from evalbeam.transforms.stages import aggregate, predict, quantiles, read, write


def find_edges(pipeline: beam.Pipeline, job: Job, stage: staging.Staging, tasks: int) -> None:
    """The pass before the main one that cuts slice columns into quantiles, where any are."""
    terms = tuple(term for spec in job.specs for term in spec if term.quantiles is not None)
    columns = tuple(sorted({term.column for term in terms}))
    shards = [shard for shard in job.shards if shard.split == batch.MAIN_SPLIT]
    read_out = (
        pipeline
        | "List shards" >> beam.Create(file_shards.tasks(shards, tasks), reshuffle=False)
        | "Read" >> read.Read(batch.Projection(columns), job.batch_size)
    )
    cuts = read_out[read.BATCHES] | "Find edges" >> quantiles.FindEdges(terms)
    cuts | "Write edges" >> write.WriteJson(stage.shared(stage.edges))


def build(
    pipeline: beam.Pipeline,
    job: Job,
    stage: staging.Staging,
    tasks: int,
    partitions: int,
    progress: meter.Board,
) -> None:
    """Read in at least so many tasks, predict with every version, add up, merge, write."""
    read_out = (
        pipeline
        | "List shards" >> beam.Create(file_shards.tasks(job.shards, tasks), reshuffle=False)
        | "Read" >> read.Read(job.projection, job.batch_size)
    )
    predicted = read_out[read.BATCHES] | "Predict" >> predict.Predict(
        job.models, job.evaluation.heads, job.weight, job.id
    )
    added = predicted.scored | "Aggregate" >> aggregate.Aggregate(
        job.specs,
        job.evaluation.plan.statistics,
        job.units,
        job.conversions,
        partitions,
        progress,
    )
    if job.tfma_config is not None:
        with quiet.starting_tensorflow():
            from evalbeam.transforms.tfma import evaluator

        (
            predicted.scored
            | "Main split" >> beam.Filter(_is_main)
            | "Evaluate with TFMA"
            >> evaluator.EvaluateWithTfma(
                eval_config=job.tfma_config,
                models=job.evaluation.models,
                heads=job.evaluation.heads,
                slices=job.specs,
                model_locations={model.name: model.path for model in job.models},
                output=stage.shared(stage.tfma),
                # As it is for doubt and comparison; mended where it stands in for our kernels.
                correct=job.engine != "tfma",
            )
        )
    added[aggregate.TABLES] | "Write state" >> write.WriteState(
        stage.shared(stage.state), partitions
    )
    (
        (read_out[read.LEDGERS], predicted[predict.LEDGERS], added[aggregate.LEDGERS])
        | "All ledgers" >> beam.Flatten()
        | "Write ledgers" >> write.WriteJson(stage.shared(stage.ledgers))
    )


def _is_main(scored: batch.Scored) -> bool:
    return scored.batch.shard.split == batch.MAIN_SPLIT
