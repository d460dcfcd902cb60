"""Adding scored batches up into a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from evalbeam.transforms import batch
from evalbeam.transforms.examples import slices
from evalbeam.transforms.metrics import statistics, table


def layouts(chosen: Sequence[statistics.Statistic], units: int) -> dict[str, table.Layout]:
    """The shapes of the statistics' sums, by name."""
    return {
        statistic.name: table.Layout(units if statistic.by_unit else 1, statistic.cells)
        for statistic in chosen
    }


@dataclass
class Adder:
    """One worker's sums: `add` batches, then take the `table`.

    Attributes:
      specs: the slicing specs; the empty one, (), is every split as a whole.
      chosen: what to add up.
      units: into how many hash buckets the examples fall; at least 1.
    """

    specs: Sequence[slices.Spec]
    chosen: Sequence[statistics.Statistic]
    units: int
    _encoder: slices.Encoder = field(init=False)
    _sums: dict[str, table.Accumulator] = field(init=False)

    def __post_init__(self) -> None:
        self._encoder = slices.Encoder(self.specs)
        room = table.Room()
        self._sums = {
            name: table.Accumulator(layout, room)
            for name, layout in layouts(self.chosen, self.units).items()
        }

    def add(self, scored: batch.Scored) -> None:
        """Adds a batch: every example to every slice it belongs to, in every statistic."""
        if not len(scored):
            return
        members = self._encoder.encode(scored.batch)
        unit = (scored.hashes % np.uint64(self.units)).astype(np.int64)
        view = statistics.View(scored)
        for statistic in self.chosen:
            entries = statistic.entries(view)
            # A cell of -1 is no cell at all.
            counted = None if (entries.cells >= 0).all() else entries.cells >= 0
            within = entries.cells
            if statistic.by_unit:
                unit_start = unit * statistic.cells
                within = within + (unit_start if within.ndim == 1 else unit_start[:, None])
            for member in members:
                self._add(statistic, member, within, entries.values, counted)

    def _add(
        self,
        statistic: statistics.Statistic,
        member: slices.Members,
        within: np.ndarray,
        values: np.ndarray | None,
        counted: np.ndarray | None,
    ) -> None:
        rows = member.rows
        if rows is not None:
            within = within[rows]
            values = None if values is None else values[rows]
            counted = None if counted is None else counted[rows]
        sums = self._sums[statistic.name]
        start = member.ids * sums.layout.stride
        keys = within + (start if within.ndim == 1 else start[:, None])
        if counted is not None:
            keys = keys[counted]
            values = None if values is None else values[counted]
        sums.add(
            keys.reshape(-1),
            None if values is None else values.reshape(-1),
            len(self._encoder.keys),
        )

    def table(self) -> table.Table:
        """Everything added so far."""
        return table.Table(
            tuple(self._encoder.keys),
            {name: sums.layout for name, sums in self._sums.items()},
            {name: sums.sums() for name, sums in self._sums.items()},
        )
