"""Shards to batches of decoded examples."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass
from typing import TypeVar

import apache_beam as beam
from apache_beam import pvalue
from apache_beam.metrics import metric

from evalbeam.transforms import batch, errors, formats, ledger
from evalbeam.transforms.stages import coders  # noqa: F401

_T = TypeVar("_T")

# Batches read before they are used; two, since neither reading nor predicting is steady.
_AHEAD = 2

BATCHES = "batches"
LEDGERS = "ledgers"


# Not frozen: Beam sets a transform's label. Compared by identity, as Beam expects.
@dataclass(eq=False)
class Read(beam.PTransform[pvalue.PCollection[tuple[batch.Shard, ...]], pvalue.DoOutputsTuple]):
    """Decodes the columns of a projection from shards, into batches of one size.

    The input is a PCollection of tasks, the shards to read one after the other; the output has
    two:
      batches (main): `Batch`, of `batch_size` rows, the last of a shard shorter.
      ledgers: a `Ledger` for each task, of its shards and of what could not be read.

    A shard that cannot be opened fails its task with JobError, so that the runner retries it.

    Attributes:
      projection: what to decode.
      batch_size: rows in a batch.
    """

    projection: batch.Projection
    batch_size: int

    def expand(self, tasks: pvalue.PCollection[tuple[batch.Shard, ...]]) -> pvalue.DoOutputsTuple:
        """Spreads the tasks over the workers, and never what is read from them."""
        return (
            tasks
            | "Spread tasks over workers" >> beam.Reshuffle()
            | "Read and decode"
            >> beam.ParDo(_ReadShards(self.projection, self.batch_size))
            .with_output_types(batch.Batch)
            .with_outputs(LEDGERS, main=BATCHES)
        )


class _ReadShards(beam.DoFn):
    def __init__(self, projection: batch.Projection, batch_size: int) -> None:
        self.projection = projection
        self.batch_size = batch_size
        self.examples_read = metric.Metrics.counter("evalbeam", "examples_read")
        self.dead = metric.Metrics.counter("evalbeam", "examples_dead_lettered")
        self.batches = metric.Metrics.counter("evalbeam", "batches")

    def process(
        self, task: tuple[batch.Shard, ...]
    ) -> Iterator[batch.Batch | pvalue.TaggedOutput[str, object]]:
        entered = ledger.Ledger()
        for item in _ahead(itertools.chain.from_iterable(map(self._read, task))):
            if isinstance(item, batch.Batch):
                self.batches.inc()
                yield item
            elif isinstance(item, batch.DeadLetter):
                self.dead.inc(item.rows or 1)
                entered.dead_letters.append(item)
            else:
                self.examples_read.inc(item.rows + item.dead_letters)
                entered.shards.append(item)
        yield pvalue.TaggedOutput(LEDGERS, entered)

    def _read(
        self, shard: batch.Shard
    ) -> Iterator[batch.Batch | batch.DeadLetter | ledger.ShardCounts]:
        rows = dead = 0
        try:
            for item in formats.get(shard.format).read(shard, self.projection, self.batch_size):
                if isinstance(item, batch.Batch):
                    rows += len(item)
                else:
                    dead += item.rows or 1  # of an unknown number, at least one
                yield item
        except Exception as error:
            raise errors.JobError(f"Cannot read {shard}: {error}") from error
        yield ledger.ShardCounts(shard.split, shard.path, shard.piece, rows, dead)


def _ahead(items: Iterator[_T]) -> Iterator[_T]:
    """The items, the next ones made while one is used: decoding and predicting release the GIL."""
    with futures.ThreadPoolExecutor(1, "read-ahead") as pool:
        coming = collections.deque(pool.submit(next, items, None) for _ in range(_AHEAD))
        while (item := coming.popleft().result()) is not None:
            coming.append(pool.submit(next, items, None))
            yield item
