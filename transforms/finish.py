"""The merged table to results: every metric of a block of slices at once.

This runs where the run was started, on the table that the workers have merged, and again whenever
results are rebuilt from a saved table: it needs neither the data nor the models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from transforms import labels, slices
from transforms.metrics import classes, confusion, metric, plan, statistics, table

# Plots have thousands of numbers each: only this many slices have them, those of most examples.
PLOTTED = 1000
# A block's largest array has about this many numbers (16 MiB), but for plots.
_BLOCK_CELLS = 1 << 21
# The curves of a block's slices have about this many points.
_BLOCK_POINTS = 1 << 20


@dataclass(frozen=True)
class Counts:
    """Confusion counts of a version in a block: float64[slices, thresholds, actual, predicted].

    Multi-class counts stand under the one threshold None. `class_id` is the label of a
    multi-label output, whose classes are 0 (absent) and 1 (present).
    """

    model: str
    output: str
    class_id: int | None
    thresholds: tuple[float | None, ...]
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
        for stop in _stops(part):
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


def _stops(part: table.Table) -> Iterator[int]:
    """Where blocks end: dense arrays and the points of curves stay within bounds."""
    curves = [name for name in part.layouts if name.startswith(statistics.HISTOGRAM)]
    widest = max(layout.stride for name, layout in part.layouts.items() if name not in curves)
    points = np.zeros(len(part.slices) + 1, np.int64)
    for name in curves:
        starts = np.arange(len(points)) * part.layouts[name].stride
        points += np.searchsorted(part.sums[name].keys, starts)
    start = 0
    while start < len(part.slices):
        within = int(np.searchsorted(points, points[start] + _BLOCK_POINTS, side="right")) - 1
        start = max(start + 1, min(within, start + _BLOCK_CELLS // widest, len(part.slices)))
        yield start


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
                    matrix = classes.class_matrix(sheet, statistic)[:, None, :, :-1]
                    yield Counts(model, head.output, None, (None,), matrix)
                elif isinstance(statistic, statistics.Confusion):
                    tp, tn, fp, fn = confusion.at_thresholds(sheet, statistic)
                    matrix = np.stack(
                        [np.stack([tn, fp], axis=-1), np.stack([fn, tp], axis=-1)], axis=-2
                    )
                    yield Counts(model, head.output, target.class_id, statistic.thresholds, matrix)
