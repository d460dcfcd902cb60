"""Finds the classes of labels that are names, in a separate pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import apache_beam as beam
from apache_beam import pvalue

from evalbeam.transforms.batch import Batch
from evalbeam.transforms.examples.classes import Found
from evalbeam.transforms.stages import merge


@dataclass(eq=False)  # Not frozen: Beam sets a transform's label.
class FindClasses(beam.PTransform):
    """PCollection[Batch] -> PCollection[Found], one for each output.

    Attributes:
      columns: by output, the columns that hold names of its classes.
    """

    columns: Mapping[str, Sequence[str]]

    def expand(self, batches: pvalue.PCollection[Batch]) -> pvalue.PCollection[Found]:
        """Finds distinct names where the batches are; only names are shuffled."""
        return (
            batches
            | "Find names" >> beam.ParDo(_FindNames(self.columns))
            | "Merge names" >> beam.CombinePerKey(merge.Merge(Found("")))
            | "Found" >> beam.Values()
        )


class _FindNames(beam.DoFn):
    def __init__(self, columns: Mapping[str, Sequence[str]]) -> None:
        self._columns = columns

    def start_bundle(self) -> None:
        self._found = {output: Found(output) for output in self._columns}

    def process(self, batch: Batch) -> None:
        for output, columns in self._columns.items():
            found = Found.of(output, columns, batch)
            self._found[output] = self._found[output].merge(found)

    def finish_bundle(self) -> Iterator[object]:
        for named in self._found.items():
            yield merge.in_global_window(named)
