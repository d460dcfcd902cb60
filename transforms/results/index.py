"""The index of a merged table's parts: the little that the driver must know of all slices.

Workers finish the parts. The index lists the parts, their numbers of examples, and what cannot be
known from a single part: which slices are the largest overall.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import pydantic

from evalbeam.transforms.examples.slices import SliceKey, Value
from evalbeam.transforms.metrics import metric, statistics
from evalbeam.transforms.metrics.evaluation import SliceComparison
from evalbeam.transforms.metrics.table import Table, sort_key
from evalbeam.transforms.results import finish

_T = TypeVar("_T")

# A task has parts of up to about this many sums, each of which takes about 100 bytes of memory.
_TASK_CELLS = 1 << 22

# Each slice may have a row for each baseline slice, so only this many are compared with.
BASELINES = 100

Kind = Literal["table", "metrics", "plots"]  # sums, or what TFMA computed


@dataclass(frozen=True)
class Part:
    """A file of the state: the sums of a partition of the slices, or what TFMA computed for them.

    Attributes:
      name: the file's name.
      kind: sums ("table") or TFMA's messages.
      partition: the number of the partition.
      slices: the number of slices.
      cells: the number of sums.
      nbytes, sha256: the file's size and digest.
    """

    name: str
    kind: Kind
    partition: int
    slices: int
    cells: int
    nbytes: int
    sha256: str


@dataclass(frozen=True)
class Number:
    """A metric that TFMA computed: a number for each slice, or one for each of its `thresholds`."""

    key: metric.Key
    thresholds: tuple[float, ...] | None


@dataclass(frozen=True)
class Baseline:
    """A slice that others are compared with, its number of examples, and where its sums are."""

    key: SliceKey
    examples: int
    partition: int


@dataclass(frozen=True)
class Task:
    """Parts to finish together, and what cannot be known from these parts alone.

    Attributes:
      number, count: the task's number, from 0, and the number of tasks.
      parts: all parts of some partitions.
      plotted: the slices of all parts that have plots.
      numbers: what TFMA computed for any slice of all parts.
      baselines: the slices that others are compared with.
      baseline_parts: the parts that they are in.
    """

    number: int
    count: int
    parts: tuple[Part, ...]
    plotted: tuple[SliceKey, ...]
    numbers: tuple[Number, ...]
    baselines: tuple[SliceKey, ...]
    baseline_parts: tuple[Part, ...]


@dataclass(frozen=True)
class Index:
    """An index of some parts; indexes merge.

    Attributes:
      parts: the parts.
      examples: by split, the number of examples.
      columns: the slice columns that have a value in any example.
      values: the (column, value) pairs named in the config that occur.
      plottable: the number of slices that may have plots.
      largest: the largest of these, as (examples, slice); at most PLOTTED.
      numbers: what TFMA computed.
      baseline_slices: the number of slices that others are to be compared with.
      baselines: the largest of these; at most BASELINES.
    """

    parts: tuple[Part, ...] = ()
    examples: Mapping[str, int] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    values: tuple[tuple[str, Value], ...] = ()
    plottable: int = 0
    largest: tuple[tuple[int, SliceKey], ...] = ()
    numbers: tuple[Number, ...] = ()
    baseline_slices: int = 0
    baselines: tuple[Baseline, ...] = ()

    @property
    def slices(self) -> int:
        """The number of slices."""
        return sum(part.slices for part in self.parts)

    @property
    def cells(self) -> int:
        """The number of sums."""
        return sum(part.cells for part in self.parts)

    def tasks(self) -> Iterator[Task]:
        """The parts, grouped by whole partitions so that a task's sums fit in memory."""
        groups: list[list[Part]] = []
        cells = 0
        by_partition: dict[int, list[Part]] = {}
        for part in self.parts:
            by_partition.setdefault(part.partition, []).append(part)
        for partition in sorted(by_partition):
            parts = by_partition[partition]
            added = sum(part.cells for part in parts)
            if not groups or cells + added > _TASK_CELLS:
                groups.append([])
                cells = 0
            groups[-1] += parts
            cells += added
        plotted = tuple(key for _, key in self.largest)
        baselines = tuple(baseline.key for baseline in self.baselines)
        theirs = {baseline.partition for baseline in self.baselines}
        baseline_parts = tuple(part for part in self.parts if part.partition in theirs)
        for number, parts in enumerate(groups):
            yield Task(
                *(number, len(groups), tuple(parts), plotted, self.numbers),
                *(baselines, baseline_parts),
            )

    def to_json(self) -> str:
        """The index as JSON; `from_json` gives an equal one."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @staticmethod
    def from_json(text: str) -> Index:
        """The index that `to_json` wrote; raises ValueError for any other text."""
        return _ADAPTER.validate_python(json.loads(text))


_ADAPTER = pydantic.TypeAdapter(Index)


def index_table(
    part: Part,
    table: Table,
    wanted: Collection[tuple[str, Value]] = (),
    comparisons: Collection[SliceComparison] = (),
) -> Index:
    """The index of a part with sums.

    Args:
      part: the part.
      table: its sums.
      wanted: the (column, value) pairs that the config names.
      comparisons: the comparisons of slices that it asks for.
    """
    examples = table.dense(statistics.Examples.name)[:, 0].astype(int).tolist()
    counts = list(zip(examples, table.slices, strict=True))
    plottable = [(n, key) for n, key in counts if finish.may_be_plotted(key)]
    baselines = [
        Baseline(key, n, part.partition)
        for n, key in counts
        if any(comparison.has_baseline(key) for comparison in comparisons)
    ]
    return Index(
        parts=(part,),
        examples={key.split: n for n, key in counts if not key.pairs},
        columns=tuple(sorted({column for key in table.slices for column, _ in key.pairs})),
        values=tuple(
            sorted({pair for key in table.slices for pair in key.pairs} & set(wanted), key=str)
        ),
        plottable=len(plottable),
        largest=_select_largest(plottable),
        baseline_slices=len(baselines),
        baselines=_select_baselines(baselines),
    )


def merge_all(indexes: Iterable[Index]) -> Index:
    """The index of the parts of all indexes."""
    indexes = list(indexes)
    examples: Counter[str] = Counter()
    for index in indexes:
        examples.update(index.examples)
    return Index(
        parts=tuple(sorted(_distinct(i.parts for i in indexes), key=lambda part: part.name)),
        examples=dict(sorted(examples.items())),
        columns=tuple(sorted(_distinct(index.columns for index in indexes))),
        values=tuple(sorted(_distinct(index.values for index in indexes), key=str)),
        plottable=sum(index.plottable for index in indexes),
        largest=_select_largest(itertools.chain.from_iterable(i.largest for i in indexes)),
        numbers=tuple(sorted(_distinct(index.numbers for index in indexes), key=str)),
        baseline_slices=sum(index.baseline_slices for index in indexes),
        baselines=_select_baselines(_distinct(index.baselines for index in indexes)),
    )


def _distinct(lists: Iterable[Iterable[_T]]) -> set[_T]:
    return set(itertools.chain.from_iterable(lists))


def _select_largest(
    counts: Iterable[tuple[int, SliceKey]],
) -> tuple[tuple[int, SliceKey], ...]:
    """The slices with the most examples; ties go to the first in slice order."""
    return tuple(
        heapq.nsmallest(finish.PLOTTED, counts, key=lambda pair: (-pair[0], sort_key(pair[1])))
    )


def _select_baselines(baselines: Iterable[Baseline]) -> tuple[Baseline, ...]:
    """Those with the most examples; ties go to the first in slice order."""
    return tuple(
        heapq.nsmallest(BASELINES, baselines, key=lambda each: (-each.examples, sort_key(each.key)))
    )
