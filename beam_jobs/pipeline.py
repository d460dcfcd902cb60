"""The whole job on one screen, in the data's order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import apache_beam as beam

from beam_jobs import check
from transforms import aggregate, batch, predict, quantiles, read, write


@dataclass(frozen=True)
class Staging:
    """Where a run's parts are written before it is published."""

    folder: Path

    @property
    def state(self) -> Path:
        """The folder of the merged table."""
        return self.folder / "state"

    @property
    def dead_letters(self) -> Path:
        """A line for each row that could not be scored."""
        return self.folder / "dead_letter" / "rows.jsonl"

    @property
    def read_counts(self) -> Path:
        """A line for each shard that was read to its end."""
        return self.folder / "work" / "read.jsonl"

    @property
    def ledger(self) -> Path:
        """One line: what was scored, of which data, in what time."""
        return self.folder / "work" / "ledger.jsonl"

    @property
    def tfma(self) -> Path:
        """What TFMA computed itself, as its own files."""
        return self.folder / "work" / "tfma"

    @property
    def edges(self) -> Path:
        """A line for each slice column that is cut into quantiles."""
        return self.folder / "work" / "edges.jsonl"

    @property
    def progress(self) -> Path:
        """A file for each worker, with the number of examples that it has added up."""
        return self.folder / "work" / "progress"


def find_edges(pipeline: beam.Pipeline, job: check.Job, staging: Staging) -> None:
    """The pass before the main one that cuts slice columns into quantiles, where any are."""
    terms = tuple(term for spec in job.specs for term in spec if term.quantiles is not None)
    columns = tuple(sorted({term.column for term in terms}))
    shards = [shard for shard in job.shards if shard.split == check.MAIN_SPLIT]
    read_out = (
        pipeline
        | "List shards" >> beam.Create(shards)
        | "Read" >> read.Read(batch.Projection(columns), job.batch_size)
    )
    cuts = read_out[read.BATCHES] | "Find edges" >> quantiles.FindEdges(terms)
    cuts | "Write edges" >> write.WriteJson(str(staging.edges))


def build(
    pipeline: beam.Pipeline, job: check.Job, staging: Staging, partitions: int, engine: str
) -> None:
    """Read, predict with every version, add up, merge, write."""
    read_out = (
        pipeline
        | "List shards" >> beam.Create(job.shards)
        | "Read" >> read.Read(job.projection, job.batch_size)
    )
    predicted = read_out[read.BATCHES] | "Predict" >> predict.Predict(
        job.models, job.evaluation.heads, job.weight, job.id
    )
    added = predicted.scored | "Aggregate" >> aggregate.Aggregate(
        job.specs,
        job.evaluation.plan.statistics,
        job.units,
        partitions,
        str(staging.progress),
    )
    if job.tfma_config is not None:
        from transforms import evaluate_with_tfma  # imports TFMA, for 16 seconds

        (
            predicted.scored
            | "Main split" >> beam.Filter(_is_main)
            | "Evaluate with TFMA"
            >> evaluate_with_tfma.EvaluateWithTfma(
                eval_config=job.tfma_config,
                models=job.evaluation.models,
                heads=job.evaluation.heads,
                slices=job.specs,
                model_locations={model.name: model.path for model in job.models},
                output=str(staging.tfma),
                # As it is for doubt and comparison; mended where it stands in for our kernels.
                correct=engine != "tfma",
            )
        )
    added["tables"] | "Write state" >> write.WriteState(str(staging.state), partitions)
    added[aggregate.LEDGER] | "Write ledger" >> write.WriteJson(str(staging.ledger))
    read_out[read.READ_COUNTS] | "Write read counts" >> write.WriteJson(str(staging.read_counts))
    (
        (read_out[read.DEAD_LETTERS], predicted[predict.DEAD_LETTERS])
        | "All dead letters" >> beam.Flatten()
        | "Write dead letters" >> write.WriteJson(str(staging.dead_letters))
    )


def _is_main(scored: batch.Scored) -> bool:
    return scored.batch.shard.split == check.MAIN_SPLIT
