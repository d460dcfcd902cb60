"""The merged table as metrics see it: the sums of a block of slices, whole or resampled by unit."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from evalbeam.transforms.memo import Memo
from evalbeam.transforms.metrics.statistics import Histogram, Statistic
from evalbeam.transforms.metrics.table import Table


class NotByUnit(ValueError):
    """A statistic was to be resampled whose sums are not kept by unit."""

    def __init__(self, statistic: Statistic) -> None:
        super().__init__(
            f"cannot resample {statistic.name!r}: its sums are not kept by unit; resample only "
            "metrics that are `by_unit`"
        )


@dataclass
class Sheet:
    """The sums of a block of slices, a row for each, from which metrics are finished.

    Resampled, it has a row for each replicate and slice: row r * S + s is slice s of S in replicate
    r. Metrics are finished from it as from any sheet, and `values.reshape(R, S)` are their
    replicates. Versions share the units, so that their difference within a replicate is paired.

    Two slices, and the absolute errors of the examples in unit 0 and unit 1 of each:

    >>> from evalbeam.transforms.examples.slices import SliceKey
    >>> from evalbeam.transforms.metrics.statistics import Moment, Target
    >>> from evalbeam.transforms.metrics.table import Layout, Sums
    >>> errors = Moment(Target("v1", "", "regression"), "absolute error")
    >>> slices = SliceKey("eval"), SliceKey("eval", (("country", "at"),))
    >>> sums = Sums(keys=np.arange(4), high=np.array([5.0, 3.0, 1.0, 2.0]))
    >>> sheet = Sheet(Table(slices, {errors.name: Layout(units=2, cells=1)}, {errors.name: sums}))
    >>> sheet.total(errors)[:, 0]
    array([8., 3.])

    Both slices without unit 0, then both without unit 1:

    >>> sheet.leave_one_out().total(errors)[:, 0]
    array([3., 2., 5., 1.])

    Attributes:
      table: the sums.
      multiplicities: float64[R, units], how often each replicate has each unit; None: the whole.
      memo: what several metrics are computed from.
    """

    table: Table
    multiplicities: np.ndarray | None = None
    memo: Memo = field(default_factory=Memo, repr=False)
    _units: Memo = field(default_factory=Memo, repr=False)  # shared by all replicates of a table

    def __len__(self) -> int:
        replicates = 1 if self.multiplicities is None else len(self.multiplicities)
        return replicates * len(self.table.slices)

    def total(self, statistic: Statistic) -> np.ndarray:
        """float64[rows, cells], summed over units.

        Raises:
          NotByUnit: the sheet is resampled, and the statistic's sums are not kept by unit.
        """
        return self.memo.once(statistic.name, lambda: self._total(statistic))

    def _total(self, statistic: Statistic) -> np.ndarray:
        if self.multiplicities is None:
            return self.table.dense(statistic.name)
        by_unit = self.by_unit(statistic)
        units, slices, cells = by_unit.shape
        sums = _combine(self.multiplicities, by_unit.reshape(units, slices * cells))
        return sums.reshape(len(self), cells)

    def by_unit(self, statistic: Statistic) -> np.ndarray:
        """float64[units, slices, cells], the sums of each unit's own examples.

        Raises:
          NotByUnit: the statistic's sums are not kept by unit.
        """
        if not statistic.by_unit:
            raise NotByUnit(statistic)

        def compute() -> np.ndarray:
            dense = self.table.dense(statistic.name, by_unit=True)
            return np.ascontiguousarray(dense.transpose(1, 0, 2))

        return self._units.once(statistic.name, compute)

    def pairs(self, statistic: Statistic) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where there are sums: slices and cells, int64[M], sorted, and the sums, float64[M].

        For statistics of too many cells to be made dense, which are not kept by unit.

        Raises:
          NotByUnit: the sheet is resampled.
        """
        if self.multiplicities is not None:
            raise NotByUnit(statistic)
        sums = self.table.sums[statistic.name]
        return *np.divmod(sums.keys, statistic.cells), sums.values

    def rebin(self, statistic: Histogram, bins: np.ndarray, count: int) -> np.ndarray:
        """float64[2, slices, count]: negatives and positives, bucket b of TFMA's in bins[b].

        Raises:
          NotByUnit: the sheet is resampled.
        """
        owner, cell, values = self.pairs(statistic)
        place = (cell % 2 * len(self) + owner) * count + bins[cell // 2]
        flat = np.bincount(place, values, minlength=2 * len(self) * count)
        return flat.reshape(2, len(self), count)

    def resample(self, multiplicities: np.ndarray) -> Sheet:
        """The table's sheet with R replicates, in which unit u is `multiplicities[r, u]` times.

        Its arrays have R times as many numbers, and those by unit stay with this sheet: resample
        blocks of few slices.

        Args:
          multiplicities: float64[R, units], finite, at least 0: counts of a bootstrap, weights of
            a Bayesian one, 0 or 1 where units are omitted or kept. A row of ones is the whole.

        Raises:
          ValueError: other multiplicities.
        """
        units = self.table.units
        if multiplicities.ndim != 2 or multiplicities.shape[1] != units:
            raise ValueError(
                f"multiplicities of shape {multiplicities.shape}: they need a row for each "
                f"replicate and a column for each of {units} units"
            )
        valid = np.isfinite(multiplicities) & (multiplicities >= 0)
        if not valid.all():
            raise ValueError(
                f"a multiplicity of {multiplicities[~valid][0]}: they must be finite and at least 0"
            )
        return Sheet(self.table, multiplicities.astype(np.float64), _units=self._units)

    def leave_one_out(self) -> Sheet:
        """The jackknife's sheet: replicate u is the whole without unit u."""
        # Summed anew rather than subtracted from the whole: nothing cancels, nor is inf - inf NaN.
        return self.resample(1.0 - np.eye(self.table.units))


def _combine(multiplicities: np.ndarray, by_unit: np.ndarray) -> np.ndarray:
    """multiplicities[R, units] @ by_unit[units, M], where 0 times an infinite sum is 0.

    Whole numbers are exact up to 2^53.
    """
    finite = np.isfinite(by_unit)
    if finite.all():
        return multiplicities @ by_unit
    sums = multiplicities @ np.where(finite, by_unit, 0.0)
    drawn = (multiplicities > 0).astype(np.float64)
    with np.errstate(invalid="ignore"):  # inf - inf
        for value, present in (
            (np.inf, by_unit == np.inf),
            (-np.inf, by_unit == -np.inf),
            (np.nan, np.isnan(by_unit)),
        ):
            sums[drawn @ present.astype(np.float64) > 0] += value
    return sums
