"""The additive table: (statistic, slice, unit, cell) -> sum, and how tables add up.

Everything a run measures is a sum in this table, and merging two tables is adding them, so any
split of the data into batches, shards and workers gives the same table. Whole numbers add up
exactly. Other sums carry their rounding error along in a second float64 (Knuth's two-sum), which
makes them independent of the order of merging to about 1e-32 of their size; only where the
batches are cut still shows, around 1e-16.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from evalbeam.transforms.examples import slices

# A statistic's sums are kept in an array of all its cells up to this many (64 MiB), and as sorted
# (key, sum) pairs beyond: an array is several times faster, pairs stay small when cells are many.
_DENSE_CELLS = 1 << 23
# Keys with up to this many cells each between the first and the last one are counted in an array.
_CLOSE = 8
# The arrays of all statistics together take up to 1 GiB; statistics that come later use pairs.
_ALL_DENSE_CELLS = 1 << 27
# Loose pairs are sorted and added up when there are this many of them.
_LOOSE_PAIRS = 1 << 22


@dataclass(frozen=True)
class Layout:
    """The shape of one statistic's sums: slices x units x cells.

    `units` is 1 for a statistic that is not kept by unit.
    """

    units: int
    cells: int

    @property
    def stride(self) -> int:
        """Keys per slice."""
        return self.units * self.cells


@dataclass(frozen=True)
class Sums:
    """Sums of one statistic.

    Attributes:
      keys: int64[M], sorted and distinct: (slice * units + unit) * cells + cell.
      high: float64[M], the sums.
      low: float64[M], what rounding took from them; None when all are whole numbers.
    """

    keys: np.ndarray
    high: np.ndarray
    low: np.ndarray | None = None

    @property
    def values(self) -> np.ndarray:
        """float64[M], the sums rounded."""
        return self.high if self.low is None else self.high + self.low

    def normalize(self) -> tuple[np.ndarray, np.ndarray]:
        """float64[M] twice: the rounded sums, and the rest, which depends on them alone.

        Of a sum there are several pairs, depending on the order in which it was merged.
        """
        if self.low is None:
            return self.high, np.zeros(len(self.high))
        with np.errstate(invalid="ignore"):
            rest = (self.high - self.values) + self.low
        return self.values, np.where(np.isfinite(self.values), rest, 0.0)

    @property
    def nbytes(self) -> int:
        """The size in bytes."""
        return self.keys.nbytes + self.high.nbytes + (0 if self.low is None else self.low.nbytes)

    @staticmethod
    def empty() -> Sums:
        """No sums at all: the identity of `add`."""
        return Sums(np.zeros(0, np.int64), np.zeros(0))

    @staticmethod
    def concatenate(parts: Sequence[Sums], starts: Sequence[int]) -> Sums:
        """The parts' sums; `starts`, added to their keys, put one part after another."""
        lows = [np.zeros(len(part.high)) if part.low is None else part.low for part in parts]
        return Sums(
            np.concatenate([part.keys + start for part, start in zip(parts, starts, strict=True)]),
            np.concatenate([part.high for part in parts]),
            None if all(part.low is None for part in parts) else np.concatenate(lows),
        )

    def add(self, other: Sums) -> Sums:
        """The sums of both."""
        if not len(other.keys):
            return self
        if not len(self.keys):
            return other
        keys = slices.distinct(np.concatenate([self.keys, other.keys]))
        high, low = np.zeros(len(keys)), None
        here, there = np.searchsorted(keys, self.keys), np.searchsorted(keys, other.keys)
        if self.low is None and other.low is None:
            high[here] = self.high
            high[there] += other.high
        else:
            low = np.zeros(len(keys))
            high[here], low[here] = self.high, 0.0 if self.low is None else self.low
            _add_exactly(high, low, there, other.high)
            if other.low is not None:
                _add_exactly(high, low, there, other.low)
        return Sums(keys, high, low)

    def select(self, layout: Layout, index: np.ndarray) -> Sums:
        """The sums of the slices `index` (int64[S], sorted), renumbered 0..S-1."""
        if not len(index):
            return Sums.empty()
        # What lies outside their range is cut off first: they are mostly a block of many.
        bounds = np.array([index[0], index[-1] + 1]) * layout.stride
        block = slice(*np.searchsorted(self.keys, bounds).tolist())
        owner, rest = np.divmod(self.keys[block], layout.stride)
        position = np.searchsorted(index, owner)
        inside = index[position] == owner
        keys = (position * layout.stride + rest)[inside]
        low = None if self.low is None else self.low[block][inside]
        return Sums(keys, self.high[block][inside], low)

    def renumber(self, layout: Layout, new: np.ndarray) -> Sums:
        """The same sums with slice i called new[i]."""
        owner, rest = np.divmod(self.keys, layout.stride)
        keys = new[owner] * layout.stride + rest
        order = np.argsort(keys, kind="stable")
        return Sums(keys[order], self.high[order], None if self.low is None else self.low[order])


def _add_exactly(
    high: np.ndarray, low: np.ndarray, at: np.ndarray | slice, values: np.ndarray
) -> None:
    """high[at] + low[at] += values, without losing the rounding error.

    Where `at` repeats, its values must be the same, and are added once.
    """
    before = high[at]
    total = before + values
    with np.errstate(invalid="ignore"):
        rounded = total - before
        lost = (before - (total - rounded)) + (values - rounded)
    low[at] += np.where(np.isfinite(total), lost, 0.0)  # inf - inf would make NaN of an inf
    high[at] = total


def _by_key(keys: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct keys, sorted, and each one's values added up.

    In the order of the rows, as np.bincount of the keys adds: both must give the same sums.
    """
    distinct, place = np.unique(keys, return_inverse=True)
    return distinct, np.bincount(place, values)


@dataclass
class Room:
    """How many cells the arrays of all of a worker's statistics may still take, together."""

    cells: int = _ALL_DENSE_CELLS
    _scratch: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def take(self, cells: int) -> bool:
        """Takes so many cells, if there are as many."""
        if cells > self.cells:
            return False
        self.cells -= cells
        return True

    def scratch(self, cells: int) -> np.ndarray:
        """Zeros, float64[at least `cells`]; the caller must leave them zero."""
        if cells > len(self._scratch):
            self._scratch = np.zeros(cells)
        return self._scratch


@dataclass
class Accumulator:
    """Where one worker adds up one statistic, batch by batch."""

    layout: Layout
    room: Room = field(default_factory=Room)
    # Of full size from the start: memory is taken only where it is written to, and never moves.
    _whole_high: np.ndarray = field(default_factory=lambda: np.zeros(0))
    _whole_low: np.ndarray | None = None
    _inside: int = 0  # how many of their cells are in use
    _loose_keys: list[np.ndarray] = field(default_factory=list)
    _loose_sums: list[Sums] = field(default_factory=list)
    _sparse: Sums = field(default_factory=Sums.empty)

    def add(self, keys: np.ndarray, values: np.ndarray | None, slices_known: int) -> None:
        """Adds `values` (float64, None for ones) at `keys` (int64, repeats welcome).

        `slices_known` is how many slices have been seen so far; all keys belong to them.
        """
        self._grow(slices_known)
        inside = self._inside
        if slices_known * self.layout.stride > inside:
            beyond = keys >= inside
            self._add_sparse(keys[beyond], None if values is None else values[beyond])
            keys, values = keys[~beyond], None if values is None else values[~beyond]
        if values is None:
            self._count(keys)
        else:
            self._add_dense(keys, values)

    def sums(self) -> Sums:
        """Everything added so far."""
        self._compact()
        high = self._high
        low = None if self._whole_low is None else self._whole_low[: self._inside]
        filled = high != 0
        if low is not None:
            filled |= low != 0
        keys = np.flatnonzero(filled)
        return Sums(keys, high[keys], None if low is None else low[keys]).add(self._sparse)

    def _grow(self, slices_known: int) -> None:
        most = _DENSE_CELLS // self.layout.stride * self.layout.stride
        needed = min(slices_known * self.layout.stride, most)
        # For two arrays, though whole numbers need one: which it will be is not known yet.
        if needed > self._inside and self.room.take(2 * (needed - self._inside)):
            self._inside = needed
            if not len(self._whole_high):
                self._whole_high = np.zeros(most)

    @property
    def _high(self) -> np.ndarray:
        return self._whole_high[: self._inside]

    def _count(self, keys: np.ndarray) -> None:
        high = self._high
        if len(high) <= 4 * len(keys):
            high += np.bincount(keys, minlength=len(high))
        else:
            np.add.at(high, keys, 1.0)

    def _add_dense(self, keys: np.ndarray, values: np.ndarray) -> None:
        """Adds the batch up first, so that the result depends on the batch, not on its rows."""
        if self._whole_low is None:
            self._whole_low = np.zeros(len(self._whole_high))
        if not len(keys):
            return
        high, low = self._high, self._whole_low[: self._inside]
        first, last = int(keys.min()), int(keys.max())
        if last - first < _CLOSE * len(keys):
            sums = np.bincount(keys - first, values)
            _add_exactly(high, low, slice(first, last + 1), sums)
        else:
            scratch = self.room.scratch(len(high))
            np.add.at(scratch, keys, values)
            # Where a key repeats, the same sum is stored as often.
            _add_exactly(high, low, keys, scratch[keys])
            scratch[keys] = 0.0

    def _add_sparse(self, keys: np.ndarray, values: np.ndarray | None) -> None:
        if not len(keys):
            return
        if values is None:
            self._loose_keys.append(keys)
        else:
            distinct, sums = _by_key(keys, values)
            self._loose_sums.append(Sums(distinct, sums, np.zeros(len(sums))))
        loose = sum(map(len, self._loose_keys)) + sum(len(s.keys) for s in self._loose_sums)
        if loose > _LOOSE_PAIRS:
            self._compact()

    def _compact(self) -> None:
        if self._loose_keys:
            keys, counts = np.unique(np.concatenate(self._loose_keys), return_counts=True)
            self._loose_sums.append(Sums(keys, counts.astype(np.float64)))
        parts = [*self._loose_sums, self._sparse]
        while len(parts) > 1:  # pairwise, so that every pair is moved only log2(parts) times
            pairs = zip(parts[::2], [*parts[1::2], Sums.empty()], strict=False)
            parts = [left.add(right) for left, right in pairs]
        self._sparse, self._loose_keys, self._loose_sums = parts[0], [], []


@dataclass(frozen=True)
class Table:
    """The sums of all statistics, by the statistic's name, over one numbering of slices.

    A key is (slice * units + unit) * cells + cell. Of the statistic "decisions", with 2 units and
    3 cells, slice 0 has a sum in unit 0, cell 1, and slice 1 in unit 1, cell 2:

    >>> overall, austria = slices.SliceKey("eval"), slices.SliceKey("eval", (("country", "at"),))
    >>> keys = np.array([(0 * 2 + 0) * 3 + 1, (1 * 2 + 1) * 3 + 2])
    >>> sums = Sums(keys, high=np.array([5.0, 7.0]))
    >>> table = Table(
    ...     (overall, austria), {"decisions": Layout(units=2, cells=3)}, {"decisions": sums}
    ... )
    >>> table.dense("decisions")
    array([[0., 5., 0.],
           [0., 0., 7.]])

    Merging adds the sums of the same slice, unit and cell, whatever the numbers of the slices:

    >>> table.merge(table.select([1])).dense("decisions")
    array([[ 0.,  5.,  0.],
           [ 0.,  0., 14.]])
    """

    slices: tuple[slices.SliceKey, ...]
    layouts: Mapping[str, Layout]
    sums: Mapping[str, Sums]

    @property
    def nbytes(self) -> int:
        """The size of its numbers in bytes, without the slices' names."""
        return sum(sums.nbytes for sums in self.sums.values())

    @property
    def units(self) -> int:
        """Hash buckets of examples, in the statistics that are kept by unit."""
        return max((layout.units for layout in self.layouts.values()), default=1)

    @staticmethod
    def empty(layouts: Mapping[str, Layout]) -> Table:
        """A table of no examples: the identity of `merge`."""
        return Table((), layouts, {name: Sums.empty() for name in layouts})

    @staticmethod
    def join(parts: Sequence[Table]) -> Table:
        """The table of at least one part, with sorted slices; no slice may be in two parts."""
        starts = np.cumsum([0, *(len(part.slices) for part in parts)]).tolist()
        sums = {
            name: Sums.concatenate(
                [part.sums[name] for part in parts],
                [start * layout.stride for start in starts[:-1]],
            )
            for name, layout in parts[0].layouts.items()
        }
        names = itertools.chain.from_iterable(part.slices for part in parts)
        return Table(tuple(names), parts[0].layouts, sums).sort()

    def merge(self, other: Table) -> Table:
        """The table of both tables' examples."""
        if not other.slices:
            return self
        if not self.slices:
            return other
        ids = {key: i for i, key in enumerate(self.slices)}
        new = np.array([ids.setdefault(key, len(ids)) for key in other.slices], np.int64)
        sums = {
            name: self.sums[name].add(other.sums[name].renumber(layout, new))
            for name, layout in self.layouts.items()
        }
        return Table(tuple(ids), self.layouts, sums)

    def select(self, index: Sequence[int]) -> Table:
        """The table of some of the slices (ascending indices)."""
        array = np.asarray(index, np.int64)
        return Table(
            tuple(self.slices[i] for i in index),
            self.layouts,
            {name: self.sums[name].select(layout, array) for name, layout in self.layouts.items()},
        )

    def block(self, start: int, stop: int) -> Table:
        """The table of the slices start..stop - 1."""
        sums = {}
        for name, layout in self.layouts.items():
            whole = self.sums[name]
            low, high = np.searchsorted(whole.keys, np.array([start, stop]) * layout.stride)
            sums[name] = Sums(
                whole.keys[low:high] - start * layout.stride,
                whole.high[low:high],
                None if whole.low is None else whole.low[low:high],
            )
        return Table(self.slices[start:stop], self.layouts, sums)

    def sort(self) -> Table:
        """The same table with sorted slices, so that equal tables look equal."""
        keys = [sort_key(key) for key in self.slices]
        return self.reorder(sorted(range(len(keys)), key=keys.__getitem__))

    def reorder(self, order: Sequence[int]) -> Table:
        """The same table with the slice at `order[i]` as its i-th."""
        new = np.empty(len(order), np.int64)
        new[np.asarray(order, np.int64)] = np.arange(len(order))
        return Table(
            tuple(self.slices[i] for i in order),
            self.layouts,
            {name: self.sums[name].renumber(layout, new) for name, layout in self.layouts.items()},
        )

    def dense(self, name: str, by_unit: bool = False) -> np.ndarray:
        """A statistic as float64[slices, cells], or [slices, units, cells]."""
        layout = self.layouts[name]
        sums = self.sums[name]
        if by_unit:
            full = np.zeros(len(self.slices) * layout.stride)
            full[sums.keys] = sums.values
            return full.reshape(len(self.slices), layout.units, layout.cells)
        keys = sums.keys
        if layout.units > 1:
            keys = keys // layout.stride * layout.cells + keys % layout.cells
        added = np.bincount(keys, sums.values, minlength=len(self.slices) * layout.cells)
        return added.reshape(len(self.slices), layout.cells)


def sort_key(key: slices.SliceKey) -> tuple[str, int, str]:
    """The order of slices: each split as a whole first, then by the number of columns."""
    return key.split, len(key.pairs), str(key)
