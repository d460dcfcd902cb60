"""The merged table to results: every metric of a block of slices at once.

This runs where the run was started, on the table that the workers have merged, and again whenever
results are rebuilt from a saved table: it needs neither the data nor the models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from transforms import labels, slices
from transforms.metrics import classes, confusion, metric, plan, statistics, table

# A block's largest array has about this many numbers (64 MiB).
_BLOCK_CELLS = 1 << 23


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
    """

    slices: tuple[slices.SliceKey, ...]
    examples: np.ndarray
    weights: np.ndarray
    results: Mapping[metric.Key, metric.Result]
    counts: tuple[Counts, ...]


@dataclass(frozen=True)
class Evaluation:
    """What to finish: the planned metrics, and what the kept confusion counts are of."""

    plan: plan.Plan
    models: tuple[str, ...]
    heads: tuple[labels.Head, ...]
    weighted: bool
    thresholds: tuple[float, ...]


def blocks(sums: table.Table, evaluation: Evaluation) -> Iterator[Block]:
    """The results of all slices, in the table's order."""
    widest = max(
        layout.stride
        for name, layout in sums.layouts.items()
        if not name.startswith("histogram")  # never made dense
    )
    size = max(1, _BLOCK_CELLS // max(widest, 1))
    for start in range(0, len(sums.slices), size):
        yield _block(sums.block(start, start + size), evaluation)


def _block(sums: table.Table, evaluation: Evaluation) -> Block:
    sheet = statistics.Sheet(sums)
    examples = sheet.total(statistics.Examples(evaluation.weighted))
    return Block(
        sums.slices,
        examples[:, 0],
        examples[:, -1],
        {one.key: one.finish(sheet) for one in evaluation.plan.metrics},
        tuple(_counts(sheet, evaluation)),
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
