"""Computes results from a partition of the merged table, for a block of slices at once.

It needs neither data nor models, so it runs where the sums are, and again whenever results are
rebuilt from a saved table.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evalbeam.transforms import batch
from evalbeam.transforms.examples import slices
from evalbeam.transforms.metrics import confusion, metric, statistics
from evalbeam.transforms.metrics.evaluation import Evaluation
from evalbeam.transforms.metrics.plan import KeptConfusions, Plan, plan
from evalbeam.transforms.metrics.sheet import Sheet
from evalbeam.transforms.metrics.table import Table

# A plot has thousands of numbers, so only this many slices have plots: the largest of the main
# split, since plots are in TFMA's files, which have a single data set.
PLOTTED = 1000
# About the number of elements in a block's largest array (16 MiB).
_BLOCK_CELLS = 1 << 21
# The size of a slice's plot with a thousand thresholds or buckets.
_PLOT_CELLS = 11_000


# Statistics of which only the sums that there are get used.
_SPARSE = (
    statistics.Histogram
    | statistics.ClassHistograms
    | statistics.ErrorHistogram
    | statistics.RankCells
)


@dataclass(frozen=True)
class Counts:
    """The M confusion counts of a version in a block.

    Binary counts are complete, with 0 (absent) and 1 (present). Multi-class counts have only the
    pairs of classes that occur.

    Attributes:
      model, output: the version and its output.
      class_id: the label of a multi-label output.
      rows: int64[M], the slice's row in the block.
      at: float64[M], the threshold; NaN for multi-class counts.
      actual, predicted: int64[M], the classes.
      counts: float64[M].
    """

    model: str
    output: str
    class_id: int | None
    rows: np.ndarray
    at: np.ndarray
    actual: np.ndarray
    predicted: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True)
class Block:
    """The results of some slices.

    Attributes:
      slices: the S slices.
      sheet: their sums.
      reported: bool[S], whether a slice has as many examples as the evaluation demands; a whole
        split always has.
      examples: float64[S], the number of examples in each slice.
      weights: float64[S], the sum of their weights; `examples` if there are no weights.
      results: the results by key.
      counts: the confusion counts that every run keeps.
      plotted: int64[P], the rows of slices that have plots, ascending.
      plots: the plots of these P slices by key.
    """

    slices: tuple[slices.SliceKey, ...]
    sheet: Sheet
    reported: np.ndarray
    examples: np.ndarray
    weights: np.ndarray
    results: Mapping[metric.Key, metric.Result]
    counts: tuple[Counts, ...]
    plotted: np.ndarray
    plots: Mapping[metric.Key, metric.Result]


def finish(
    table: Table, evaluation: Evaluation, plotted: Collection[slices.SliceKey]
) -> Iterator[Block]:
    """The results of all slices of a table, in its order; the `plotted` ones have plots."""
    planned = plan(evaluation)
    keys = frozenset(plotted)
    has_plots = np.array([key in keys for key in table.slices], bool)
    for start, stop in itertools.pairwise(_find_bounds(table, planned, has_plots)):
        yield _finish_block(table.block(start, stop), evaluation, planned, has_plots[start:stop])


def may_be_plotted(key: slices.SliceKey) -> bool:
    """Whether the slice has plots if it is large enough."""
    return key.split == batch.MAIN_SPLIT


def _find_bounds(table: Table, planned: Plan, plotted: np.ndarray) -> list[int]:
    """The bounds of blocks whose arrays have about _BLOCK_CELLS elements."""
    plots = [each for each in planned.metrics if each.plot]
    numbers = [each for each in planned.metrics if not each.plot]
    size = (
        _count_cells(numbers) + _count_cells(plots) * plotted + _PLOT_CELLS * len(plots) * plotted
    )
    for statistic in planned.statistics:
        if isinstance(statistic, statistics.Confusion):  # a result row per cell
            size = size + statistic.cells
        if isinstance(statistic, _SPARSE):  # a curve point per sum
            starts = np.arange(len(table.slices) + 1) * statistic.cells
            size = size + np.diff(np.searchsorted(table.sums[statistic.name].keys, starts))
    ends = np.cumsum(size)
    bounds = [0]
    while bounds[-1] < len(ends):
        before = ends[bounds[-1] - 1] if bounds[-1] else 0
        within = int(np.searchsorted(ends, before + _BLOCK_CELLS, side="right"))
        bounds.append(max(bounds[-1] + 1, within))
    return bounds


def _count_cells(metrics: Sequence[metric.Metric]) -> int:
    """The number of a slice's cells that these metrics make dense, plus the number of results."""
    needed = {statistic for each in metrics for statistic in each.statistics}
    dense = (each.cells for each in needed if not isinstance(each, _SPARSE))
    return sum(dense) + len(metrics)


def _finish_block(
    table: Table, evaluation: Evaluation, planned: Plan, plotted: np.ndarray
) -> Block:
    sheet = Sheet(table)
    examples = sheet.total(statistics.Examples(evaluation.weighted))
    rows = np.flatnonzero(plotted)
    plotted_sheet = sheet if plotted.all() else Sheet(table.select(rows.tolist()))
    with np.errstate(invalid="ignore", over="ignore"):  # Sums of infinite scores: NaN is correct.
        results = {each.key: each.finish(sheet) for each in planned.metrics if not each.plot}
        plots = {each.key: each.finish(plotted_sheet) for each in planned.metrics if each.plot}
    whole = np.array([not key.pairs for key in table.slices])
    return Block(
        slices=table.slices,
        sheet=sheet,
        reported=whole | (examples[:, 0] >= evaluation.min_slice_size),
        examples=examples[:, 0],
        weights=examples[:, -1],
        results=results,
        counts=tuple(_count_confusions(sheet, kept) for kept in planned.confusions),
        plotted=rows,
        plots=plots,
    )


def _count_confusions(sheet: Sheet, kept: KeptConfusions) -> Counts:
    target = kept.target
    if isinstance(kept.statistic, statistics.ClassMatrix):
        rows, cells, counts = sheet.pairs(kept.statistic)
        classes = target.classes or 0
        actual, predicted = np.divmod(cells, classes + 1)
        # The last class means no prediction; sums of weights may be 0.
        occur = (predicted < classes) & (counts != 0)
        columns = (rows, np.full(len(rows), np.nan), actual, predicted, counts)
        return Counts(target.model, target.output, None, *(column[occur] for column in columns))
    tp, tn, fp, fn = confusion.at_thresholds(sheet, kept.statistic)
    matrix = np.stack([np.stack([tn, fp], axis=-1), np.stack([fn, tp], axis=-1)], axis=-2)
    rows, at, actual, predicted = np.indices(matrix.shape).reshape(4, -1)
    thresholds = np.array(kept.statistic.thresholds)[at]
    return Counts(
        *(target.model, target.output, target.class_id),
        *(rows, thresholds, actual, predicted, matrix.reshape(-1)),
    )
