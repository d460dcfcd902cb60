"""Values that several callers need, computed once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

_T = TypeVar("_T")


class Memo:
    """Computed values by key, kept as long as the memo."""

    def __init__(self) -> None:
        self._values: dict[Hashable, Any] = {}

    def once(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """The value of `make()`, called at the key's first request; not kept if it raises."""
        if key not in self._values:
            self._values[key] = make()
        value: _T = self._values[key]
        return value
