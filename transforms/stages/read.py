"""Reads shards into batches of decoded examples."""

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

from evalbeam.transforms import formats
from evalbeam.transforms.batch import Batch, DeadLetter, OpenEnd, Projection, Shard
from evalbeam.transforms.ledger import Ledger, ShardCounts
from evalbeam.transforms.stages import coders  # noqa: F401  # registers coders

_T = TypeVar("_T")

# Batches to read ahead; two, since neither reading nor predicting takes constant time.
_AHEAD = 2

BATCHES = "batches"
LEDGERS = "ledgers"


@dataclass(eq=False)  # Not frozen: Beam sets a transform's label.
class Read(beam.PTransform[pvalue.PCollection[tuple[Shard, ...]], pvalue.DoOutputsTuple]):
    """Decodes the columns of a projection from shards into batches of one size.

    The input is a PCollection of tasks; a task is the shards to read one after the other. There are
    two outputs:
      batches (main): `Batch`es of `batch_size` rows; the last one of a shard may be shorter.
      ledgers: a `Ledger` for each task, with its shards and the rows that could not be read.

    A shard that cannot be read fails its task with a JobError, so that the runner retries it; with
    a DataError if the file is damaged.

    Attributes:
      projection: what to decode.
      batch_size: rows per batch.
    """

    projection: Projection
    batch_size: int

    def expand(self, tasks: pvalue.PCollection[tuple[Shard, ...]]) -> pvalue.DoOutputsTuple:
        """Spreads the tasks over the workers; what is read is never shuffled."""
        return (
            tasks
            | "Spread tasks over workers" >> beam.Reshuffle()
            | "Read and decode"
            >> beam.ParDo(_ReadShards(self.projection, self.batch_size))
            .with_output_types(Batch)
            .with_outputs(LEDGERS, main=BATCHES)
        )


class _ReadShards(beam.DoFn):
    def __init__(self, projection: Projection, batch_size: int) -> None:
        self.projection = projection
        self.batch_size = batch_size
        self.examples_read = metric.Metrics.counter("evalbeam", "examples_read")
        self.dead = metric.Metrics.counter("evalbeam", "examples_dead_lettered")
        self.batches = metric.Metrics.counter("evalbeam", "batches")

    def process(
        self, task: tuple[Shard, ...]
    ) -> Iterator[Batch | pvalue.TaggedOutput[str, object]]:
        ledger = Ledger()
        for item in _read_ahead(itertools.chain.from_iterable(map(self._read, task))):
            if isinstance(item, Batch):
                self.batches.inc()
                yield item
            elif isinstance(item, DeadLetter):
                self.dead.inc(item.least)
                ledger.dead_letters.append(item)
            else:
                self.examples_read.inc(item.rows + item.dead_letters)
                ledger.shards.append(item)
        yield pvalue.TaggedOutput(LEDGERS, ledger)

    def _read(self, shard: Shard) -> Iterator[Batch | DeadLetter | ShardCounts]:
        rows = dead = 0
        open_end = False
        for item in formats.read(shard, self.projection, self.batch_size):
            if isinstance(item, OpenEnd):
                open_end = True
                continue
            if isinstance(item, Batch):
                rows += len(item)
            else:
                dead += item.least
            yield item
        yield ShardCounts(shard.split, shard.path, shard.piece, rows, dead, open_end)


def _read_ahead(items: Iterator[_T]) -> Iterator[_T]:
    """Yields the items; meanwhile, reads the next ones: decoding and predicting release the GIL."""
    with futures.ThreadPoolExecutor(1, "read-ahead") as pool:
        pending = collections.deque(pool.submit(next, items, None) for _ in range(_AHEAD))
        while (item := pending.popleft().result()) is not None:
            pending.append(pool.submit(next, items, None))
            yield item
