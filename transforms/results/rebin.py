"""Derives the sums that another plan needs from the sums that a state keeps."""

from __future__ import annotations

import functools

import numpy as np

from evalbeam.transforms.metrics import statistics
from evalbeam.transforms.metrics.plan import Plan
from evalbeam.transforms.metrics.table import Layout, Sums, Table


def find_missing(kept: Plan, wanted: Plan) -> list[statistics.Statistic]:
    """The statistics that the wanted plan needs and that cannot be derived from the kept ones."""
    names = {statistic.name for statistic in kept.statistics}
    return [
        statistic
        for statistic in wanted.statistics
        if statistic.name not in names and _find_source(kept, statistic) is None
    ]


def rebin(table: Table, kept: Plan, wanted: Plan) -> Table:
    """The table with the sums that the wanted plan needs.

    Confusion counts at a subset of the kept thresholds are sums of the kept counts. `find_missing`
    must return no statistics.
    """
    layouts, sums = {}, {}
    for statistic in wanted.statistics:
        source = _find_source(kept, statistic)
        if statistic.name in table.layouts:
            layouts[statistic.name] = table.layouts[statistic.name]
            sums[statistic.name] = table.sums[statistic.name]
        elif isinstance(statistic, statistics.Confusion) and source is not None:
            layout = table.layouts[source.name]
            layouts[statistic.name] = Layout(layout.units, statistic.cells)
            sums[statistic.name] = _drop_thresholds(
                table.sums[source.name], layout, source, statistic
            )
    return Table(table.slices, layouts, sums)


def _find_source(kept: Plan, statistic: statistics.Statistic) -> statistics.Confusion | None:
    """The kept counts of the same target at these and other thresholds, if any."""
    if not isinstance(statistic, statistics.Confusion):
        return None
    wanted = set(statistic.thresholds)
    for candidate in kept.statistics:
        if not isinstance(candidate, statistics.Confusion):
            continue
        if candidate.target == statistic.target and wanted <= set(candidate.thresholds):
            return candidate
    return None


def _drop_thresholds(
    sums: Sums, layout: Layout, source: statistics.Confusion, wanted: statistics.Confusion
) -> Sums:
    # For each bin of the source, the number of wanted thresholds below it.
    bins = np.searchsorted(wanted.thresholds, source.thresholds, side="right")
    bins = np.concatenate([[0], bins])
    place, cell = np.divmod(sums.keys, layout.cells)
    parts = []
    for source_cell in range(layout.cells):
        chosen = cell == source_cell
        keys = place[chosen] * wanted.cells + 2 * bins[source_cell // 2] + source_cell % 2
        low = None if sums.low is None else sums.low[chosen]
        parts.append(Sums(keys, sums.high[chosen], low))
    return functools.reduce(Sums.add, parts, Sums.empty())
