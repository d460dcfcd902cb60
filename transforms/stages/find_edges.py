"""Finds the edges that cut numeric slice columns into bins of equal size, in a separate pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import apache_beam as beam
from apache_beam import pvalue

from evalbeam.transforms.batch import Batch
from evalbeam.transforms.examples import identity, quantiles, slices
from evalbeam.transforms.stages import merge


@dataclass(eq=False)  # Not frozen: Beam sets a transform's label.
class FindEdges(beam.PTransform):
    """PCollection[Batch] -> PCollection[Cut], one for each term with quantiles."""

    terms: tuple[slices.Term, ...]

    def expand(self, batches: pvalue.PCollection[Batch]) -> pvalue.PCollection[quantiles.Cut]:
        """Takes samples where the batches are; only samples are shuffled."""
        columns = slices.columns([self.terms])
        return (
            batches
            | "Sample values" >> beam.ParDo(_SampleValues(columns))
            | "Merge samples" >> beam.CombinePerKey(merge.Merge(quantiles.Sample.empty()))
            | "Cut" >> beam.FlatMap(_cut, self.terms)
        )


class _SampleValues(beam.DoFn):
    def __init__(self, columns: tuple[str, ...]) -> None:
        self._columns = columns

    def start_bundle(self) -> None:
        self._samples = {column: quantiles.Sample.empty() for column in self._columns}

    def process(self, batch: Batch) -> None:
        hashes = identity.place_hashes(batch)
        for column in self._columns:
            rows, values = slices.numbers(batch, column)
            sample = quantiles.Sample(hashes if rows is None else hashes[rows], values)
            self._samples[column] = self._samples[column].merge(sample)

    def finish_bundle(self) -> Iterator[object]:
        for named in self._samples.items():
            yield merge.in_global_window(named)


def _cut(
    named: tuple[str, quantiles.Sample], terms: Iterable[slices.Term]
) -> Iterator[quantiles.Cut]:
    column, sample = named
    yield from quantiles.cut(column, sample, terms)
