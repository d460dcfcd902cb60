"""Adding scored batches up into a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from evalbeam.transforms import batch
from evalbeam.transforms.examples import slices
from evalbeam.transforms.metrics.statistics import Statistic, View
from evalbeam.transforms.metrics.table import Accumulator, Layout, Room, Table


def layouts(statistics: Sequence[Statistic], units: int) -> dict[str, Layout]:
    """The shapes of the statistics' sums, by name."""
    return {
        statistic.name: Layout(units if statistic.by_unit else 1, statistic.cells)
        for statistic in statistics
    }


@dataclass
class Adder:
    """One worker's sums: `add` batches, then take the `table`.

    Attributes:
      specs: the slicing specs; the empty one, (), is every split as a whole.
      statistics: what to add up.
      units: into how many hash buckets the examples fall; at least 1.
    """

    specs: Sequence[slices.Spec]
    statistics: Sequence[Statistic]
    units: int
    _encoder: slices.Encoder = field(init=False)
    _sums: dict[str, Accumulator] = field(init=False)

    def __post_init__(self) -> None:
        self._encoder = slices.Encoder(self.specs)
        room = Room()
        self._sums = {
            name: Accumulator(layout, room)
            for name, layout in layouts(self.statistics, self.units).items()
        }

    def add(self, scored: batch.Scored) -> None:
        """Adds a batch: every example to every slice it belongs to, in every statistic."""
        if not len(scored):
            return
        members = self._encoder.encode(scored.batch)
        unit = (scored.hashes % np.uint64(self.units)).astype(np.int64)
        view = View(scored)
        for statistic in self.statistics:
            entries = statistic.entries(view)
            # A cell of -1 is no cell at all.
            mask = None if (entries.cells >= 0).all() else entries.cells >= 0
            offsets = entries.cells  # of the keys, from their slice's first
            if statistic.by_unit:
                unit_start = unit * statistic.cells
                offsets = offsets + (unit_start if offsets.ndim == 1 else unit_start[:, None])
            for member in members:
                self._add(statistic, member, offsets, entries.values, mask)

    def _add(
        self,
        statistic: Statistic,
        member: slices.Members,
        offsets: np.ndarray,
        values: np.ndarray | None,
        mask: np.ndarray | None,
    ) -> None:
        rows = member.rows
        if rows is not None:
            offsets = offsets[rows]
            values = None if values is None else values[rows]
            mask = None if mask is None else mask[rows]
        sums = self._sums[statistic.name]
        start = member.ids * sums.layout.stride
        keys = offsets + (start if offsets.ndim == 1 else start[:, None])
        if mask is not None:
            keys = keys[mask]
            values = None if values is None else values[mask]
        sums.add(
            keys.reshape(-1),
            None if values is None else values.reshape(-1),
            len(self._encoder.keys),
        )

    def table(self) -> Table:
        """Everything added so far."""
        return Table(
            tuple(self._encoder.keys),
            {name: sums.layout for name, sums in self._sums.items()},
            {name: sums.sums() for name, sums in self._sums.items()},
        )
