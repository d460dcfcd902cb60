"""Compares versions over the same rows of every slice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from evalbeam.transforms.metrics import metric
from evalbeam.transforms.metrics.evaluation import Bounds, Pair, SliceComparison
from evalbeam.transforms.metrics.plan import Plan
from evalbeam.transforms.results.finish import Block


@dataclass(frozen=True)
class Difference:
    """A candidate's values and the baseline's, in the shape of `metric.Values`.

    Attributes:
      key: the candidate's key.
      baseline: the version it is compared with.
      thresholds: the thresholds of the values, if any.
      decision: how scores become decisions, as in `metric.Values`.
      before, after: float64, the baseline's values and the candidate's.
      relative: float64, how much better the candidate is (see `measure_changes`); NaN if the metric
        has no preferred direction.
      verdicts: object, the verdicts of a conversion (see `judge`); None if there is nothing to
        judge.
    """

    key: metric.Key
    baseline: str
    thresholds: tuple[float, ...] | None
    decision: str
    before: np.ndarray
    after: np.ndarray
    relative: np.ndarray
    verdicts: np.ndarray

    @property
    def values(self) -> np.ndarray:
        """After minus before; NaN where both are infinite."""
        with np.errstate(invalid="ignore"):
            return self.after - self.before


# From the best to the worst.
VERDICTS = ("good", "acceptable", "better", "worse", "bad")
# A value at a bound is within it, whatever the last bit of the quotient.
_ROUNDING = 1e-9


def compare(block: Block, planned: Plan, pairs: Sequence[Pair]) -> Iterator[Difference]:
    """The differences of all metrics that both versions of a pair have."""
    for pair in pairs:
        for key, result in block.results.items():
            if key.model != pair.candidate or not isinstance(result, metric.Values):
                continue
            before = block.results.get(replace(key, model=pair.baseline))
            if not isinstance(before, metric.Values) or before.thresholds != result.thresholds:
                continue
            relative = np.full(result.values.shape, np.nan)
            if direction := planned.direction(key.metric):
                relative = measure_changes(before.values, result.values, direction)
            verdicts = np.full(relative.shape, None)
            if pair.bounds is not None:
                verdicts = judge(relative, pair.bounds)
            yield Difference(
                key=key,
                baseline=pair.baseline,
                thresholds=result.thresholds,
                decision=result.decision,
                before=before.values,
                after=result.values,
                relative=relative,
                verdicts=verdicts,
            )


@dataclass(frozen=True)
class SliceDifference:
    """Slices of a block that are compared with a baseline slice.

    Attributes:
      baseline: a block of the baseline slice alone.
      rows: int64[R], the rows of the slices in their block, ascending.
    """

    baseline: Block
    rows: np.ndarray


def compare_slices(
    block: Block, baselines: Iterable[Block], comparisons: Sequence[SliceComparison]
) -> Iterator[SliceDifference]:
    """The slices of a block to compare with each baseline slice; none too small to be reported.

    Args:
      block: the slices.
      baselines: a block for each baseline slice.
      comparisons: which slices to compare with which.
    """
    compared = [np.array([each.compares(key) for key in block.slices]) for each in comparisons]
    splits = np.array([key.split for key in block.slices])
    for baseline in baselines:
        (key,) = baseline.slices
        chosen = np.zeros(len(block.slices), bool)
        for comparison, of_comparison in zip(comparisons, compared, strict=True):
            if comparison.has_baseline(key):
                chosen |= of_comparison
        chosen &= block.reported & baseline.reported[0] & (splits == key.split)
        if key in block.slices:
            chosen[block.slices.index(key)] = False
        if chosen.any():
            yield SliceDifference(baseline, np.flatnonzero(chosen))


def measure_changes(before: np.ndarray, after: np.ndarray, direction: int) -> np.ndarray:
    """How much better (positive) or worse the values became, as a share of `before`.

    Any change from 0 or infinity is infinite. NaN where either is: a precision that is undefined
    because nothing is predicted positive any more may be that of a version without a false alarm,
    or of one that finds nothing; recall tells which.

    Args:
      before, after: float64, of the same shape.
      direction: 1 if higher values are better, -1 if lower values are.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = direction * (after - before)
        share = np.where(np.isinf(before), gain, gain / np.abs(before))
        return np.where(before == after, 0.0, share)


def judge(changes: np.ndarray, bounds: Bounds) -> np.ndarray:
    """The verdicts on a conversion's changes (shares): object of their shape, None for NaN.

    "good" and "acceptable" are within these bounds, in either direction. Beyond them, a gain is
    "better" (not the same model either) and a loss "worse", or "bad" beyond that bound.
    """
    size = np.abs(changes) * (1 - _ROUNDING)
    verdicts = np.full(changes.shape, None, object)
    verdicts[changes > 0] = "better"
    verdicts[changes < 0] = "worse"
    verdicts[(changes < 0) & (size > bounds.bad)] = "bad"
    verdicts[size <= bounds.acceptable] = "acceptable"
    verdicts[size <= bounds.good] = "good"
    return verdicts
