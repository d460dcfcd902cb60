"""Adds scored batches up, and the workers' tables together."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import apache_beam as beam
from apache_beam import pvalue
from apache_beam.utils import windowed_value

from transforms import batch, identity, merge, meter, slices
from transforms.metrics import adding, statistics, table

LEDGER = "ledger"


@dataclass
class Ledger:
    """What a bundle did, kept beside the table because Beam's counters count retries twice.

    Attributes:
      scored: by split, how many examples were scored.
      fingerprints: by split, the sum modulo 2^64 of one hash for each example's identity and
        labels: equal for the same examples in whatever order, files and batches.
      predict_seconds: by version, the time its predictions took.
      batches: how many batches were scored.
    """

    scored: Counter[str] = field(default_factory=Counter)
    fingerprints: Counter[str] = field(default_factory=Counter)
    predict_seconds: Counter[str] = field(default_factory=Counter)
    batches: int = 0

    def add(self, scored: batch.Scored) -> None:
        """Enters a batch."""
        split = scored.batch.shard.split
        self.scored[split] += len(scored)
        fingerprint = identity.fingerprint(scored.hashes, scored.labels.values())
        self.fingerprints[split] = (self.fingerprints[split] + fingerprint) % 2**64
        self.predict_seconds.update(scored.predict_seconds)
        self.batches += 1

    def merge(self, other: Ledger) -> Ledger:
        """Both bundles' entries."""
        fingerprints = self.fingerprints + other.fingerprints
        return Ledger(
            self.scored + other.scored,
            Counter({split: value % 2**64 for split, value in fingerprints.items()}),
            self.predict_seconds + other.predict_seconds,
            self.batches + other.batches,
        )


def partition(key: slices.SliceKey, partitions: int) -> int:
    """Where a slice's sums are merged; the same on every worker and in every run."""
    return zlib.crc32(f"{key.split}/{key}".encode()) % partitions


@dataclass(eq=False)  # Not frozen: Beam sets a transform's label.
class Aggregate(beam.PTransform):
    """PCollection[Scored] -> `tables`: PCollection[(partition, Table)], `ledger`: [Ledger].

    Every bundle adds up its own table; only tables are shuffled, a partition of the slices each.

    Attributes:
      specs: the slicing specs.
      statistics: what to add up.
      units: hash buckets of examples.
      partitions: into how many parts the slices are split for merging.
      progress: a local folder to say in how many examples are added up; None: nobody watches.
    """

    specs: tuple[slices.Spec, ...]
    statistics: tuple[statistics.Statistic, ...]
    units: int
    partitions: int
    progress: str | None = None

    def expand(self, scored: pvalue.PCollection[batch.Scored]) -> dict[str, pvalue.PCollection]:
        """Fused with what scores the batches, up to the merge."""
        added = scored | "Add up" >> beam.ParDo(
            _AddUp(self.specs, self.statistics, self.units, self.partitions, self.progress)
        ).with_outputs(LEDGER, main="tables")
        empty = table.Table.empty(adding.layouts(self.statistics, self.units))
        return {
            "tables": added.tables | "Merge tables" >> beam.CombinePerKey(merge.Merge(empty)),
            LEDGER: added[LEDGER] | "Merge ledgers" >> beam.CombineGlobally(merge.Merge(Ledger())),
        }


class _AddUp(beam.DoFn):
    def __init__(
        self,
        specs: tuple[slices.Spec, ...],
        chosen: tuple[statistics.Statistic, ...],
        units: int,
        partitions: int,
        progress: str | None,
    ) -> None:
        self._specs = specs
        self._chosen = chosen
        self._units = units
        self._partitions = partitions
        self._progress = progress

    def setup(self) -> None:
        self._meter = None if self._progress is None else meter.Meter(self._progress)

    def start_bundle(self) -> None:
        self._adder = adding.Adder(self._specs, self._chosen, self._units)
        self._ledger = Ledger()

    def process(self, scored: batch.Scored) -> None:
        self._adder.add(scored)
        self._ledger.add(scored)
        if self._meter is not None:
            self._meter.add(len(scored))

    def finish_bundle(self) -> Iterator[windowed_value.WindowedValue | pvalue.TaggedOutput]:
        for number, part in _partitioned(self._adder.table(), self._partitions):
            yield merge.in_global_window((number, part))
        yield pvalue.TaggedOutput(LEDGER, merge.in_global_window(self._ledger))


def _partitioned(whole: table.Table, partitions: int) -> Iterator[tuple[int, table.Table]]:
    if partitions == 1:
        yield 0, whole
        return
    members: dict[int, list[int]] = {}
    for i, key in enumerate(whole.slices):
        members.setdefault(partition(key, partitions), []).append(i)
    for number, chosen in members.items():
        yield number, whole.select(chosen)
