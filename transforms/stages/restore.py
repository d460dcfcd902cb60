"""Reads saved tables back into a pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import apache_beam as beam
from apache_beam import pvalue

from evalbeam.transforms.metrics.table import Table
from evalbeam.transforms.results.index import Part
from evalbeam.transforms.sinks import state
from evalbeam.transforms.stages import aggregate


@dataclass(eq=False)  # Not frozen: Beam sets a transform's label.
class ReadTables(beam.PTransform):
    """PCollection[(folder, Part)], parts with sums -> PCollection[(partition, Table)]."""

    partitions: int

    def expand(self, parts: pvalue.PCollection[tuple[str, Part]]) -> pvalue.PCollection:
        """A saved part may span several partitions: states differ in their number."""
        return (
            parts
            | "Spread parts over workers" >> beam.Reshuffle()
            | "Read table"
            >> beam.FlatMap(_read, self.partitions).with_output_types(tuple[int, Table])
        )


def _read(located: tuple[str, Part], partitions: int) -> Iterator[tuple[int, Table]]:
    folder, part = located
    yield from aggregate.split(state.read_table(folder, part), partitions)
