"""The merged table to results: every metric of a block of slices at once.

This runs where the run was started, on the table that the workers have merged, and again whenever
results are rebuilt from a saved table: it needs neither the data nor the models.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evalbeam.transforms import batch
from evalbeam.transforms.examples import labels, slices
from evalbeam.transforms.metrics import confusion, metric, plan, statistics, table

# Plots have thousands of numbers each: only this many slices have them, those of most examples. And
# only those of the main split: TFMA's files, where plots go, know one data set.
PLOTTED = 1000
# A block's largest array has about this many numbers (16 MiB).
_BLOCK_CELLS = 1 << 21
# What a plot of a thousand thresholds or buckets takes, of a slice.
_PLOT_CELLS = 11_000


@dataclass(frozen=True)
class Counts:
    """Confusion counts of a version in a block, a list of M of them.

    Binary ones are complete, with 0 (absent) and 1 (present); of the classes of a multi-class
    output only the pairs that occur are there.

    Attributes:
      model, output: whose.
      class_id: the label, of a multi-label output.
      rows: int64[M], the slice in the block.
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
      slices: S of them.
      examples: float64[S], how many examples each has.
      weights: float64[S], what they weigh; the same as `examples` without weights.
      results: by key.
      counts: the confusion counts that every run keeps.
      plotted: int64[P], the slices that have plots, ascending.
      plots: by key, of the P slices.
    """

    slices: tuple[slices.SliceKey, ...]
    examples: np.ndarray
    weights: np.ndarray
    results: Mapping[metric.Key, metric.Result]
    counts: tuple[Counts, ...]
    plotted: np.ndarray
    plots: Mapping[metric.Key, metric.Result]


@dataclass(frozen=True)
class Evaluation:
    """What to finish: the planned metrics, and what the kept confusion counts are of."""

    plan: plan.Plan
    models: tuple[str, ...]
    heads: tuple[labels.Head, ...]
    weighted: bool
    thresholds: tuple[float, ...]


def blocks(whole: table.Table, evaluation: Evaluation) -> Iterator[Block]:
    """The results of all slices, in their order."""
    plotted = _plotted(whole)
    for start, stop in itertools.pairwise(_bounds(whole, evaluation, plotted)):
        yield _block(whole.block(start, stop), evaluation, plotted[start:stop])


def _plotted(whole: table.Table) -> np.ndarray:
    """Which slices have plots, bool[slices]."""
    inside = np.array([key.split == batch.MAIN_SPLIT for key in whole.slices], bool)
    ranked = np.where(inside, whole.dense(statistics.Examples.name)[:, 0], -1.0)
    plotted = np.zeros(len(inside), bool)
    plotted[np.argsort(-ranked, kind="stable")[:PLOTTED]] = True
    return plotted & inside


def _bounds(whole: table.Table, evaluation: Evaluation, plotted: np.ndarray) -> list[int]:
    """Where blocks start and end, so that their arrays have about _BLOCK_CELLS numbers."""
    planned = evaluation.plan
    plots = [one for one in planned.metrics if one.plot]
    numbers = [one for one in planned.metrics if not one.plot]
    size = _cells(numbers) + _cells(plots) * plotted + _PLOT_CELLS * len(plots) * plotted
    for statistic in planned.statistics:
        if isinstance(statistic, statistics.Confusion):  # a row of results for each cell
            size = size + statistic.cells
        if isinstance(statistic, statistics.Histogram):  # a point of a curve for each sum
            starts = np.arange(len(whole.slices) + 1) * statistic.cells
            size = size + np.diff(np.searchsorted(whole.sums[statistic.name].keys, starts))
    ends = np.cumsum(size)
    bounds = [0]
    while bounds[-1] < len(ends):
        before = ends[bounds[-1] - 1] if bounds[-1] else 0
        within = int(np.searchsorted(ends, before + _BLOCK_CELLS, side="right"))
        bounds.append(max(bounds[-1] + 1, within))
    return bounds


def _cells(metrics: Sequence[metric.Metric]) -> int:
    """How many cells of a slice these metrics make dense, and how many results they have."""
    needed = {statistic for one in metrics for statistic in one.statistics}
    dense = (one.cells for one in needed if not isinstance(one, statistics.Histogram))
    return sum(dense) + len(metrics)


def _block(sums: table.Table, evaluation: Evaluation, plotted: np.ndarray) -> Block:
    sheet = statistics.Sheet(sums)
    examples = sheet.total(statistics.Examples(evaluation.weighted))
    rows = np.flatnonzero(plotted)
    drawn = sheet if plotted.all() else statistics.Sheet(sums.select(rows.tolist()))
    metrics = evaluation.plan.metrics
    with np.errstate(invalid="ignore", over="ignore"):  # Sums of infinite scores: NaN is right.
        results = {one.key: one.finish(sheet) for one in metrics if not one.plot}
        plots = {one.key: one.finish(drawn) for one in metrics if one.plot}
    return Block(
        slices=sums.slices,
        examples=examples[:, 0],
        weights=examples[:, -1],
        results=results,
        counts=tuple(_counts(sheet, evaluation)),
        plotted=rows,
        plots=plots,
    )


def _counts(sheet: statistics.Sheet, evaluation: Evaluation) -> Iterator[Counts]:
    for head in evaluation.heads:
        for model in evaluation.models:
            for target in plan.targets(model, head, evaluation.weighted):
                statistic = plan.confusion_statistic(target, evaluation.thresholds)
                if isinstance(statistic, statistics.ClassMatrix):
                    rows, cells, counts = sheet.pairs(statistic)
                    actual, predicted = np.divmod(cells, (head.classes or 0) + 1)
                    at = np.full(len(rows), np.nan)
                    # The last class stands for none; sums of weights may be 0.
                    occur = (predicted < (head.classes or 0)) & (counts != 0)
                    found = (one[occur] for one in (rows, at, actual, predicted, counts))
                    yield Counts(model, head.output, None, *found)
                elif isinstance(statistic, statistics.Confusion):
                    tp, tn, fp, fn = confusion.at_thresholds(sheet, statistic)
                    matrix = np.stack(
                        [np.stack([tn, fp], axis=-1), np.stack([fn, tp], axis=-1)], axis=-2
                    )
                    rows, at, actual, predicted = np.indices(matrix.shape).reshape(4, -1)
                    at = np.array(statistic.thresholds)[at]
                    flat = matrix.reshape(-1)
                    yield Counts(
                        model, head.output, target.class_id, rows, at, actual, predicted, flat
                    )
