"""Shards to batches of decoded examples."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass
from typing import TypeVar

import apache_beam as beam
from apache_beam import pvalue
from apache_beam.metrics import metric

from transforms import batch, coders, errors, formats  # noqa: F401  # coders: registers itself

_T = TypeVar("_T")

BATCHES = "batches"
DEAD_LETTERS = "dead_letters"
READ_COUNTS = "read_counts"


@dataclass(frozen=True)
class Counts:
    """What a shard held; in the data, since Beam's counters may count a retried task twice."""

    split: str
    path: str
    piece: int | None
    rows: int
    dead_letters: int


# Not frozen: Beam sets a transform's label. Compared by identity, as Beam expects.
@dataclass(eq=False)
class Read(beam.PTransform[pvalue.PCollection[batch.Shard], pvalue.DoOutputsTuple]):
    """Decodes the columns of a projection from shards, into batches of one size.

    The input is a PCollection of `Shard`; the output has three:
      batches (main): `Batch`, of `batch_size` rows, the last of a shard shorter.
      dead_letters: `DeadLetter`, for what could not be read.
      read_counts: `Counts`, for each shard at its end.

    A shard that cannot be opened fails its task with JobError, so that the runner retries it.

    Attributes:
      projection: what to decode.
      batch_size: rows in a batch.
    """

    projection: batch.Projection
    batch_size: int

    def expand(self, shards: pvalue.PCollection[batch.Shard]) -> pvalue.DoOutputsTuple:
        """Spreads the shards over the workers, and never what is read from them."""
        return (
            shards
            | "Spread shards over workers" >> beam.Reshuffle()
            | "Read and decode"
            >> beam.ParDo(_ReadShard(self.projection, self.batch_size))
            .with_output_types(batch.Batch)
            .with_outputs(DEAD_LETTERS, READ_COUNTS, main=BATCHES)
        )


class _ReadShard(beam.DoFn):
    def __init__(self, projection: batch.Projection, batch_size: int) -> None:
        self.projection = projection
        self.batch_size = batch_size
        self.examples_read = metric.Metrics.counter("evalbeam", "examples_read")
        self.batches = metric.Metrics.counter("evalbeam", "batches")

    def process(
        self, shard: batch.Shard
    ) -> Iterator[batch.Batch | pvalue.TaggedOutput[str, object]]:
        rows = dead = 0
        for item in _ahead(self._read(shard)):
            if isinstance(item, batch.DeadLetter):
                lost = item.rows or 1  # of an unknown number, at least one
                dead += lost
                self.examples_read.inc(lost)
                yield pvalue.TaggedOutput(DEAD_LETTERS, item)
            else:
                rows += len(item)
                self.examples_read.inc(len(item))
                self.batches.inc()
                yield item
        yield pvalue.TaggedOutput(
            READ_COUNTS, Counts(shard.split, shard.path, shard.piece, rows, dead)
        )

    def _read(self, shard: batch.Shard) -> Iterator[batch.Batch | batch.DeadLetter]:
        try:
            yield from formats.get(shard.format).read(shard, self.projection, self.batch_size)
        except Exception as error:
            raise errors.JobError(f"Cannot read {shard}: {error}") from error


def _ahead(items: Iterator[_T]) -> Iterator[_T]:
    """The items, the next one made while one is used: decoding and predicting release the GIL."""
    with futures.ThreadPoolExecutor(1, "read-ahead") as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item
