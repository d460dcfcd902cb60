"""Adds up scored batches, and merges the workers' tables."""

from __future__ import annotations

import math
import os
import socket
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import apache_beam as beam
from apache_beam import pvalue
from apache_beam.metrics.metric import Metrics
from apache_beam.utils import windowed_value

from evalbeam.transforms import meter
from evalbeam.transforms.batch import Scored
from evalbeam.transforms.examples.slices import SliceKey
from evalbeam.transforms.ledger import Ledger
from evalbeam.transforms.metrics import adding
from evalbeam.transforms.metrics.evaluation import Evaluation
from evalbeam.transforms.metrics.plan import plan
from evalbeam.transforms.metrics.table import Table
from evalbeam.transforms.stages import coders, merge  # noqa: F401  # coders: registers coders

TABLES = "tables"
LEDGERS = "ledgers"

# The target number of sums in a partition: a single worker merges them in memory, at about 200
# bytes each.
_PARTITION_CELLS = 1 << 22
# Each bundle emits a piece of its table for each partition.
_MAX_PARTITIONS = 1 << 12


def count_partitions(cells: float) -> int:
    """The number of partitions, a power of two, for about `cells` sums."""
    needed = max(1.0, min(cells / _PARTITION_CELLS, _MAX_PARTITIONS))
    return 1 << math.ceil(math.log2(needed))


def estimate_cells(examples: float, evaluation: Evaluation) -> float:
    """The number of sums in a table of so many examples, rather too high than too low.

    Every example adds to a cell of each statistic in each of its slices. In tables of up to a
    million slices, at most a quarter of these cells were new.
    """
    return examples * len(evaluation.slices) * len(plan(evaluation).statistics) / 4


def assign_partition(key: SliceKey, partitions: int) -> int:
    """The partition that merges a slice's sums, the same on every worker and in every run."""
    return zlib.crc32(f"{key.split}/{key}".encode()) % partitions


def split(table: Table, partitions: int) -> Iterator[tuple[int, Table]]:
    """The table's partitions; those without slices are omitted."""
    if partitions == 1:
        yield 0, table
        return
    numbers = [assign_partition(key, partitions) for key in table.slices]
    order = sorted(range(len(numbers)), key=numbers.__getitem__)
    # Once it is sorted, each partition is a block.
    table = table.reorder(order)
    start = 0
    for stop in range(1, len(order) + 1):
        if stop == len(order) or numbers[order[stop]] != numbers[order[start]]:
            yield numbers[order[start]], table.block(start, stop)
            start = stop


@dataclass(eq=False)  # Not frozen: Beam sets a transform's label.
class Aggregate(beam.PTransform):
    """PCollection[Scored] -> `tables`, PCollection[(partition, Table)], and `ledgers`, [Ledger].

    Every bundle adds up a table and a ledger of its own. Only tables are shuffled, in partitions
    by slice; examples are not.

    Attributes:
      evaluation: what to add up.
      partitions: the number of partitions for merging.
      progress: where to report the number of examples added up.
    """

    evaluation: Evaluation
    partitions: int
    progress: meter.Board

    def expand(self, scored: pvalue.PCollection[Scored]) -> dict[str, pvalue.PCollection]:
        """Up to the merge, fused with the step that scores the batches."""
        added = scored | "Add up" >> beam.ParDo(
            _AddUp(self.evaluation, self.partitions, self.progress)
        ).with_output_types(tuple[int, Table]).with_outputs(LEDGERS, main=TABLES)
        return {
            TABLES: added[TABLES] | "Merge" >> MergeTables(self.evaluation),
            LEDGERS: added[LEDGERS],
        }


@dataclass(eq=False)  # Not frozen: Beam sets a transform's label.
class MergeTables(beam.PTransform):
    """PCollection[(partition, Table)] -> the same, with one table per partition."""

    evaluation: Evaluation

    def expand(self, tables: pvalue.PCollection[tuple[int, Table]]) -> pvalue.PCollection:
        """A single shuffle, of compressed tables."""
        layouts = adding.layouts(plan(self.evaluation).statistics, self.evaluation.units)
        merging = beam.CombinePerKey(merge.Merge(Table.empty(layouts)))
        return tables | "Merge tables" >> merging.with_output_types(tuple[int, Table])


class _AddUp(beam.DoFn):
    def __init__(self, evaluation: Evaluation, partitions: int, progress: meter.Board) -> None:
        self._evaluation = evaluation
        self._partitions = partitions
        self._progress = progress
        self._state_bytes = Metrics.distribution("evalbeam", "state_bytes")

    def setup(self) -> None:
        self._worker = f"{socket.gethostname()}:{os.getpid()}"
        self._meter = meter.Meter(self._progress)

    def start_bundle(self) -> None:
        evaluation = self._evaluation
        statistics = plan(evaluation).statistics
        self._adder = adding.Adder(evaluation.slices, statistics, evaluation.units)
        self._ledger = Ledger()

    def process(self, scored: Scored) -> None:
        self._adder.add(scored)
        self._ledger.add(scored, self._worker, self._evaluation.conversions)
        self._meter.add(len(scored))

    def finish_bundle(self) -> Iterator[windowed_value.WindowedValue | pvalue.TaggedOutput]:
        table = self._adder.table()
        self._ledger.state_bytes = table.nbytes
        self._state_bytes.update(table.nbytes)
        for numbered in split(table, self._partitions):
            yield merge.in_global_window(numbered)
        yield pvalue.TaggedOutput(LEDGERS, merge.in_global_window(self._ledger))
