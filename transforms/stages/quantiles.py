"""Where to cut numeric slice columns into bins of equal size, found in a pass of their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
from apache_beam import pvalue

from evalbeam.transforms import batch
from evalbeam.transforms.examples import identity, slices
from evalbeam.transforms.stages import merge

# Quantiles are exact up to this many values; of more, this many are drawn, and a bin's share of
# the examples is then off by about 0.2 percentage points.
_SAMPLE = 100_000


@dataclass(frozen=True)
class Sample:
    """An even sample of one column's values: those whose rows have the smallest hashes.

    So it is the same whatever the order of rows, batches and workers, and samples merge.
    """

    hashes: np.ndarray
    values: np.ndarray

    @staticmethod
    def empty() -> Sample:
        """No values."""
        return Sample(np.zeros(0, np.uint64), np.zeros(0))

    def merge(self, other: Sample) -> Sample:
        """The sample of both samples' rows."""
        hashes = np.concatenate([self.hashes, other.hashes])
        values = np.concatenate([self.values, other.values])
        if len(hashes) > _SAMPLE:
            kept = np.argpartition(hashes, _SAMPLE)[:_SAMPLE]
            hashes, values = hashes[kept], values[kept]
        return Sample(hashes, values)


@dataclass(frozen=True)
class Cut:
    """The edges of a column cut into `quantiles` bins; fewer than asked where values repeat."""

    column: str
    quantiles: int
    edges: tuple[float, ...]


@dataclass(eq=False)  # Not frozen: Beam sets a transform's label.
class FindEdges(beam.PTransform):
    """PCollection[Batch] -> PCollection[Cut], one for each of the terms that have quantiles."""

    terms: tuple[slices.Term, ...]

    def expand(self, batches: pvalue.PCollection[batch.Batch]) -> pvalue.PCollection[Cut]:
        """Samples are taken where the batches are; only they are shuffled."""
        columns = tuple(sorted({term.column for term in self.terms}))
        return (
            batches
            | "Sample values" >> beam.ParDo(_SampleValues(columns))
            | "Merge samples" >> beam.CombinePerKey(merge.Merge(Sample.empty()))
            | "Cut" >> beam.FlatMap(_cut, self.terms)
        )


class _SampleValues(beam.DoFn):
    def __init__(self, columns: tuple[str, ...]) -> None:
        self._columns = columns

    def start_bundle(self) -> None:
        self._samples = {column: Sample.empty() for column in self._columns}

    def process(self, examples: batch.Batch) -> None:
        places = identity.place_hashes(examples)
        for column in self._columns:
            rows, values = slices.numbers(examples, column)
            part = Sample(places if rows is None else places[rows], values)
            self._samples[column] = self._samples[column].merge(part)

    def finish_bundle(self) -> Iterator[object]:
        for numbered in self._samples.items():
            yield merge.in_global_window(numbered)


def _cut(named: tuple[str, Sample], terms: Iterable[slices.Term]) -> Iterator[Cut]:
    column, sample = named
    for term in terms:
        if term.column == column and term.quantiles is not None and len(sample.values):
            inner = np.arange(1, term.quantiles) / term.quantiles
            edges = np.unique(np.quantile(sample.values, inner))
            yield Cut(column, term.quantiles, tuple(edges.tolist()))
