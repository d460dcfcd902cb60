"""The merged table to results: every metric of a block of slices at once.

This runs where the run was started, on the table that the workers have merged, and again whenever
results are rebuilt from a saved table: it needs neither the data nor the models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from transforms import labels, slices
from transforms.metrics import confusion, metric, plan, statistics, table

# Plots have thousands of numbers each: only this many slices have them, those of most examples.
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


def blocks(parts: Sequence[table.Table], evaluation: Evaluation) -> Iterator[Block]:
    """The results of all slices of all parts of the table, in their order."""
    for part, plotted in zip(parts, _plotted(parts, evaluation), strict=True):
        start = 0
        for stop in _stops(part, evaluation, plotted):
            yield _block(part.block(start, stop), evaluation, plotted[start:stop])
            start = stop


def _plotted(parts: Sequence[table.Table], evaluation: Evaluation) -> list[np.ndarray]:
    """Which of each part's slices have plots: the PLOTTED of most examples, bool[slices]."""
    if not parts:
        return []
    counts = [_examples(part, evaluation)[:, 0] for part in parts]
    ends = np.cumsum([len(one) for one in counts])
    plotted = np.zeros(ends[-1], bool)
    plotted[np.argsort(-np.concatenate(counts), kind="stable")[:PLOTTED]] = True
    return np.split(plotted, ends[:-1])


def _examples(part: table.Table, evaluation: Evaluation) -> np.ndarray:
    return part.dense(statistics.Examples(evaluation.weighted).name)


def _stops(part: table.Table, evaluation: Evaluation, plotted: np.ndarray) -> Iterator[int]:
    """Where blocks end, so that their arrays have about _BLOCK_CELLS numbers."""
    numbers = [one for one in evaluation.plan.metrics if not one.plot]
    plots = [one for one in evaluation.plan.metrics if one.plot]
    size = _widest(numbers) + (_widest(plots) + _PLOT_CELLS * len(plots)) * plotted
    for name, sums in part.sums.items():
        if name.startswith(statistics.HISTOGRAM):  # never dense: its curves have so many points
            starts = np.arange(len(part.slices) + 1) * part.layouts[name].stride
            size = size + np.diff(np.searchsorted(sums.keys, starts))
    ends = np.cumsum(size)
    stop = 0
    while stop < len(ends):
        before = ends[stop - 1] if stop else 0
        stop = max(stop + 1, int(np.searchsorted(ends, before + _BLOCK_CELLS, side="right")))
        yield stop


def _widest(metrics: Sequence[metric.Metric]) -> int:
    """The most cells that these metrics make dense for a slice."""
    needed = (statistic for one in metrics for statistic in one.statistics)
    cells = [one.cells for one in needed if not isinstance(one, statistics.Histogram)]
    return max(cells, default=1)


def _block(sums: table.Table, evaluation: Evaluation, plotted: np.ndarray) -> Block:
    sheet = statistics.Sheet(sums)
    examples = _examples(sums, evaluation)
    rows = np.flatnonzero(plotted)
    drawn = sheet if plotted.all() else statistics.Sheet(sums.select(rows.tolist()))
    metrics = evaluation.plan.metrics
    return Block(
        sums.slices,
        examples[:, 0],
        examples[:, -1],
        {one.key: one.finish(sheet) for one in metrics if not one.plot},
        tuple(_counts(sheet, evaluation)),
        rows,
        {one.key: one.finish(drawn) for one in metrics if one.plot},
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
                    occur = predicted < (head.classes or 0)  # the last stands for none
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
