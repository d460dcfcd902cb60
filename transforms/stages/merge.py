"""What bundles add up and merge: anything with an identity and an associative `merge`."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Protocol, TypeVar

import apache_beam as beam
from apache_beam.transforms import window
from apache_beam.utils import timestamp, windowed_value

_M = TypeVar("_M", bound="Mergeable")


class Mergeable(Protocol):
    """Something of which two are as good as one."""

    def merge(self: _M, other: _M) -> _M:
        """Both together; neither is changed."""


class Merge(beam.CombineFn):
    """Merges whatever the collection holds, from `empty`, the identity."""

    def __init__(self, empty: Mergeable) -> None:
        self._empty = empty

    def create_accumulator(self) -> Mergeable:
        """The identity."""
        return self._empty

    def add_input(self, total: Mergeable, part: Mergeable) -> Mergeable:
        """One more."""
        return total.merge(part)

    def merge_accumulators(self, parts: Iterable[Mergeable]) -> Mergeable:
        """All of them."""
        return functools.reduce(lambda one, other: one.merge(other), parts, self._empty)

    def extract_output(self, total: Mergeable) -> Mergeable:
        """What they add up to."""
        return total


def in_global_window(value: object) -> windowed_value.WindowedValue:
    """A value as `finish_bundle` must yield it."""
    return windowed_value.WindowedValue(value, timestamp.MIN_TIMESTAMP, (window.GlobalWindow(),))
