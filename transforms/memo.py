"""What several ask for, and is made once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

_T = TypeVar("_T")


class Memo:
    """Values by what they are made of, kept as long as the memo."""

    def __init__(self) -> None:
        self._made: dict[Hashable, Any] = {}

    def once(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """What `make` gives, made when the key is first asked for; not kept if it raises."""
        if key not in self._made:
            self._made[key] = make()
        made: _T = self._made[key]
        return made
