"""Merges anything that has an identity and an associative `merge`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

import apache_beam as beam
from apache_beam.coders import typecoders
from apache_beam.transforms import window
from apache_beam.utils import timestamp, windowed_value

_M = TypeVar("_M", bound="Mergeable")


class Mergeable(Protocol):
    """A value that merges with another of its type."""

    def merge(self: _M, other: _M) -> _M:
        """The merged value; changes neither operand."""


class Merge(beam.CombineFn):
    """Merges the elements of a collection; `empty` is the identity."""

    def __init__(self, empty: Mergeable) -> None:
        self._empty = empty

    def create_accumulator(self) -> Mergeable:
        """The identity."""
        return self._empty

    def add_input(self, total: Mergeable, part: Mergeable) -> Mergeable:
        """Merges one more value."""
        return total.merge(part)

    def merge_accumulators(self, parts: Iterable[Mergeable]) -> Mergeable:
        """Merges in pairs, so that each of many large values is copied only a few times."""
        # At most one total of each size, like the bits of a binary counter.
        totals: list[tuple[int, Mergeable]] = []
        for part in parts:
            size = 1
            while totals and totals[-1][0] == size:
                part = totals.pop()[1].merge(part)
                size *= 2
            totals.append((size, part))
        total = self._empty
        for _, part in reversed(totals):
            total = part.merge(total)
        return total

    def extract_output(self, total: Mergeable) -> Mergeable:
        """The merged value."""
        return total

    def get_accumulator_coder(self) -> beam.coders.Coder:
        """The coder of the merged values: totals are shuffled, too."""
        return typecoders.registry.get_coder(type(self._empty))


def in_global_window(value: object) -> windowed_value.WindowedValue:
    """A value as `finish_bundle` must yield it."""
    return windowed_value.WindowedValue(value, timestamp.MIN_TIMESTAMP, (window.GlobalWindow(),))
