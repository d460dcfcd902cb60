"""Spearman's correlation: that of the ranks of labels and scores, which are told by buckets.

Ranks of buckets add up, those of examples do not. A bucket's rank is the mean rank of its examples,
as if they were equal. What their order could change is bounded: see `_correlate`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from evalbeam.transforms.metrics import metric, statistics
from evalbeam.transforms.metrics.metric import HIGHER, Kind, ratio
from evalbeam.transforms.metrics.sheet import Sheet


@dataclass(frozen=True)
class _Correlation:
    """The estimates of all rows, float64[rows], and how far they may be from the correlation."""

    estimate: np.ndarray
    bound: np.ndarray


@dataclass(frozen=True)
class _Side:
    """The ranks of labels or of scores, as shares of the weight, from the middle one.

    Attributes:
      rank: float64[M], that of each cell's bucket.
      offset: float64[M], how far a cell's rank is from its bucket's if the examples of the bucket
        are ordered by the other side's buckets; 0 where they are known to be equal.
      spread: float64[G], the variance of the ranks of each of G slices.
      hidden: float64[G], at most what the order within buckets adds to it.
    """

    rank: np.ndarray
    offset: np.ndarray
    spread: np.ndarray
    hidden: np.ndarray


def _spearman(request: metric.Request) -> tuple[metric.Metric, ...]:
    request.require_task("regression")
    request.require("center")
    center = request.config.get("center", 0.0)
    if isinstance(center, bool) or not isinstance(center, int | float) or not np.isfinite(center):
        raise request.refuse("center", "a finite number, such as the mean of the labels")
    statistic = statistics.RankCells(request.target, float(center))
    key = request.key()

    def correlate(sheet: Sheet) -> _Correlation:
        return sheet.memo.once(
            ("correlation", statistic), lambda: _correlate(len(sheet), *sheet.pairs(statistic))
        )

    return (
        metric.Metric(key, (statistic,), lambda sheet: metric.Values(correlate(sheet).estimate)),
        metric.Metric(
            replace(key, metric=f"{key.metric}_error_bound"),
            (statistic,),
            lambda sheet: metric.Values(correlate(sheet).bound),
        ),
    )


def _correlate(size: int, owner: np.ndarray, cell: np.ndarray, weight: np.ndarray) -> _Correlation:
    """The correlation of `size` slices, NaN where all labels or all scores are in one bucket.

    Let u and v be the ranks of a label's and a score's bucket, and u + a, v + b the true ones. The
    covariance is the mean of u v + a v + u b + a b. That of a v is largest if the examples of each
    label's bucket are in the order of v, smallest in the reverse order, and so is that of u b; that
    of a b is at most the root of the mean of a^2 times that of b^2 (Cauchy and Schwarz). The
    variance of the labels' ranks is that of u and the mean of a^2, which is at most that of an
    order without ties, the bucket's share^2 / 12.
    """
    occurs = weight > 0
    slices, owner = np.unique(owner[occurs], return_inverse=True)
    share = weight[occurs] / np.bincount(owner, weight[occurs])[owner]
    label, score = np.divmod(cell[occurs], statistics.RankCells.BUCKETS)
    labels, scores = _rank(owner, label, share), _rank(owner, score, share)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(owner, share * values, len(slices))

    covariance = mean(labels.rank * scores.rank)
    # Each slice's smallest and largest covariance, by its smallest and largest variances.
    ordered = labels.offset * scores.rank + labels.rank * scores.offset
    unknown = mean(ordered) + np.sqrt(labels.hidden * scores.hidden)
    least = np.sqrt(labels.spread * scores.spread)
    most = np.sqrt((labels.spread + labels.hidden) * (scores.spread + scores.hidden))
    found = ratio(covariance, least)
    low, high = covariance - unknown, covariance + unknown
    low = np.maximum(ratio(low, np.where(low < 0, least, most)), -1.0)
    high = np.minimum(ratio(high, np.where(high > 0, least, most)), 1.0)
    estimate, bound = np.full((2, size), np.nan)
    estimate[slices] = found
    bound[slices] = np.maximum(high - found, found - low)
    return _Correlation(estimate, bound)


def _rank(owner: np.ndarray, bucket: np.ndarray, share: np.ndarray) -> _Side:
    """Of M cells of G slices: int64[M], sorted; int64[M]; float64[M], 1 in sum for each slice."""
    count = statistics.RankCells.BUCKETS
    lines, line = np.unique(owner * count + bucket, return_inverse=True)
    slice_of_line, bucket_of_line = np.divmod(lines, count)
    total = np.bincount(line, share)
    rank = _find_middles(slice_of_line, total)
    unordered = ~statistics.RankCells.holds_one_value(bucket_of_line)
    return _Side(
        rank[line],
        np.where(unordered[line], _find_middles(line, share), 0.0),
        np.bincount(slice_of_line, total * rank**2),
        np.bincount(slice_of_line, np.where(unordered, total**3 / 12, 0.0)),
    )


def _find_middles(group: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Where the middle of each length is if those of a group, int64[M], are laid in a row.

    float64[M], from the middle of the group's row; lengths stay in their order.
    """
    # In whole steps: a group must not depend on those before it, whose sum may overflow, too.
    steps = np.round(length * _STEPS).astype(np.int64)
    order = np.argsort(group, kind="stable")
    total = np.bincount(group, steps).astype(np.int64)
    start = np.cumsum(total) - total
    reached = np.empty(len(steps), np.int64)
    reached[order] = np.cumsum(steps[order]) - start[group[order]]
    return (reached - steps / 2 - total[group] / 2) / _STEPS


# Those of a whole slice: a number that is exact in a float64, as is twice as much.
_STEPS = 2.0**52

METRICS: dict[str, Kind] = {
    "SpearmanCorrelation": Kind(_spearman, HIGHER, ("regression",)),
}
