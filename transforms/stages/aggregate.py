"""Adds scored batches up, and the workers' tables together."""

from __future__ import annotations

import os
import socket
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import apache_beam as beam
from apache_beam import pvalue
from apache_beam.metrics.metric import Metrics
from apache_beam.utils import windowed_value

from evalbeam.transforms import batch, ledger, meter
from evalbeam.transforms.examples import slices
from evalbeam.transforms.metrics import adding, statistics, table
from evalbeam.transforms.stages import merge

TABLES = "tables"
LEDGERS = "ledgers"


def partition(key: slices.SliceKey, partitions: int) -> int:
    """Where a slice's sums are merged; the same on every worker and in every run."""
    return zlib.crc32(f"{key.split}/{key}".encode()) % partitions


@dataclass(eq=False)  # Not frozen: Beam sets a transform's label.
class Aggregate(beam.PTransform):
    """PCollection[Scored] -> `tables`, PCollection[(partition, Table)], and `ledgers`, [Ledger].

    Every bundle adds up its own table and ledger; no example is shuffled; tables are, a
    partition of the slices each.

    Attributes:
      specs: the slicing specs.
      statistics: what to add up.
      units: hash buckets of examples.
      conversions: (original, converted) versions.
      partitions: into how many parts the slices are split for merging.
      progress: where to say how many examples are added up.
    """

    specs: tuple[slices.Spec, ...]
    statistics: tuple[statistics.Statistic, ...]
    units: int
    conversions: tuple[tuple[str, str], ...]
    partitions: int
    progress: meter.Board

    def expand(self, scored: pvalue.PCollection[batch.Scored]) -> dict[str, pvalue.PCollection]:
        """Fused with what scores the batches, up to the merge."""
        added = scored | "Add up" >> beam.ParDo(
            _AddUp(
                self.specs,
                self.statistics,
                self.units,
                self.conversions,
                self.partitions,
                self.progress,
            )
        ).with_outputs(LEDGERS, main=TABLES)
        empty = table.Table.empty(adding.layouts(self.statistics, self.units))
        return {
            TABLES: added[TABLES] | "Merge tables" >> beam.CombinePerKey(merge.Merge(empty)),
            LEDGERS: added[LEDGERS],
        }


class _AddUp(beam.DoFn):
    def __init__(
        self,
        specs: tuple[slices.Spec, ...],
        chosen: tuple[statistics.Statistic, ...],
        units: int,
        conversions: tuple[tuple[str, str], ...],
        partitions: int,
        progress: meter.Board,
    ) -> None:
        self._specs = specs
        self._chosen = chosen
        self._units = units
        self._conversions = conversions
        self._partitions = partitions
        self._progress = progress
        self._state_bytes = Metrics.distribution("evalbeam", "state_bytes")

    def setup(self) -> None:
        self._worker = f"{socket.gethostname()}:{os.getpid()}"
        self._meter = meter.Meter(self._progress)

    def start_bundle(self) -> None:
        self._adder = adding.Adder(self._specs, self._chosen, self._units)
        self._ledger = ledger.Ledger()

    def process(self, scored: batch.Scored) -> None:
        self._adder.add(scored)
        self._ledger.add(scored, self._worker, self._conversions)
        self._meter.add(len(scored))

    def finish_bundle(self) -> Iterator[windowed_value.WindowedValue | pvalue.TaggedOutput]:
        whole = self._adder.table()
        self._ledger.state_bytes = whole.nbytes
        self._state_bytes.update(whole.nbytes)
        for number, part in _partitioned(whole, self._partitions):
            yield merge.in_global_window((number, part))
        yield pvalue.TaggedOutput(LEDGERS, merge.in_global_window(self._ledger))


def _partitioned(whole: table.Table, partitions: int) -> Iterator[tuple[int, table.Table]]:
    if partitions == 1:
        yield 0, whole
        return
    members: dict[int, list[int]] = {}
    for i, key in enumerate(whole.slices):
        members.setdefault(partition(key, partitions), []).append(i)
    for number, chosen in members.items():
        yield number, whole.select(chosen)
