"""Versions against one another, over the same rows of every slice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from evalbeam.transforms.metrics import metric, plan
from evalbeam.transforms.results import finish


@dataclass(frozen=True)
class Bounds:
    """How far a conversion's metrics may be from the original's, as shares of the original's.

    Attributes:
      good, acceptable: up to these, either way.
      bad: a worsening by more than this.
    """

    good: float = 0.01
    acceptable: float = 0.02
    bad: float = 0.05


@dataclass(frozen=True)
class Pair:
    """Two versions to compare; the candidate is judged by `bounds` if it is a conversion."""

    baseline: str
    candidate: str
    bounds: Bounds | None = None


@dataclass(frozen=True)
class Difference:
    """A candidate's values beside the baseline's, in the shape of `metric.Values`.

    Attributes:
      key: the candidate's.
      baseline: the version it is compared with.
      thresholds: of the values, if they have some.
      before, after: float64, the baseline's values and the candidate's.
      relative: float64, how much better the candidate is (see `changes`); NaN where the metric has
        no better way.
      verdicts: object, a conversion's (see `verdicts`); None where there is nothing to judge.
    """

    key: metric.Key
    baseline: str
    thresholds: tuple[float, ...] | None
    before: np.ndarray
    after: np.ndarray
    relative: np.ndarray
    verdicts: np.ndarray

    @property
    def values(self) -> np.ndarray:
        """After minus before; NaN where both are infinite."""
        with np.errstate(invalid="ignore"):
            return self.after - self.before


def conversions(pairs: Iterable[Pair]) -> tuple[tuple[str, str], ...]:
    """Originals and what was converted from them."""
    return tuple((pair.baseline, pair.candidate) for pair in pairs if pair.bounds is not None)


# From the best to the worst.
VERDICTS = ("good", "acceptable", "better", "worse", "bad")
# Values at a bound are within it, whatever the last bit of their quotient says.
_ROUNDING = 1e-9


def differences(
    block: finish.Block, planned: plan.Plan, pairs: Sequence[Pair]
) -> Iterator[Difference]:
    """The differences of all metrics that both versions of a pair have."""
    for pair in pairs:
        for key, result in block.results.items():
            if key.model != pair.candidate or not isinstance(result, metric.Values):
                continue
            before = block.results.get(replace(key, model=pair.baseline))
            if not isinstance(before, metric.Values) or before.thresholds != result.thresholds:
                continue
            relative = np.full(result.values.shape, np.nan)
            if better := planned.direction(key.metric):
                relative = changes(before.values, result.values, better)
            judged = np.full(relative.shape, None)
            if pair.bounds is not None:
                judged = verdicts(relative, pair.bounds)
            yield Difference(
                key=key,
                baseline=pair.baseline,
                thresholds=result.thresholds,
                before=before.values,
                after=result.values,
                relative=relative,
                verdicts=judged,
            )


def changes(before: np.ndarray, after: np.ndarray, better: int) -> np.ndarray:
    """How much better (positive) or worse the values after are, as a share of those before.

    From 0 or infinity any change is infinite, as is the loss of a value that was defined. NaN where
    the one before is.

    Args:
      before, after: float64 of one shape.
      better: 1 where higher values are better, -1 where lower ones are.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        moved = better * (after - before)
        share = np.where(np.isinf(before), moved, moved / np.abs(before))
        changed = np.where(before == after, 0.0, share)
    return np.where(np.isnan(after) & ~np.isnan(before), -np.inf, changed)


def verdicts(changed: np.ndarray, bounds: Bounds) -> np.ndarray:
    """What changes, as shares, mean for a conversion; object of their shape, None for NaN.

    "good" and "acceptable" are within the bounds of these names either way; beyond them are
    "better" (which is not the same model either), "worse", and "bad" for a worsening beyond that
    bound.
    """
    size = np.abs(changed) * (1 - _ROUNDING)
    found = np.full(changed.shape, None, object)
    found[changed > 0] = "better"
    found[changed < 0] = "worse"
    found[(changed < 0) & (size > bounds.bad)] = "bad"
    found[size <= bounds.acceptable] = "acceptable"
    found[size <= bounds.good] = "good"
    return found
