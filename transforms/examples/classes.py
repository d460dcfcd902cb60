"""Classes by name: labels and stored decisions become indices of the classes' scores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from evalbeam.transforms import arrow, batch, errors

# A column with more distinct values than this holds something else than classes.
MOST = 10_000

# This many are listed in messages.
_LISTED = 10


def name(value: str | int | float) -> str:
    """The name of a class that the config gives as a value: 1 and 1.0 are "1", true is "true".

    >>> [name(value) for value in ("benign", 1, 1.0, 0.5, True)]
    ['benign', '1', '1', '0.5', 'true']
    """
    return texts(pa.array([value]))[0].as_py()


def text(value: object) -> str:
    """A class as messages write it, which may be the bytes of its name."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def texts(values: pa.Array) -> pa.Array:
    """string[N]: the names of the classes that text, bytes, numbers or booleans stand for.

    Raises:
      ValueError: the bytes are not UTF-8.
    """
    if pa.types.is_floating(values.type):
        return arrow.number_text(values)
    return values.cast(pa.string())


def are_numbers(names: Iterable[str]) -> bool:
    """Whether all names are those of numbers, so that a label 1 is the class "1", not index 1."""
    return all(_is_number(text) for text in names)


def sort(names: Iterable[str]) -> tuple[str, ...]:
    """Distinct names in order: numbers by value, other text alphabetically."""
    distinct = set(names)
    return tuple(sorted(distinct, key=float if are_numbers(distinct) else None))


def describe(names: Sequence[str]) -> str:
    """The names for a message, ten at most."""
    more = len(names) - _LISTED
    return errors.listed(names[:_LISTED]) + (f" and {more:,} more" if more > 0 else "")


def indices(values: pa.Array, names: Sequence[str]) -> np.ndarray:
    """int64[N]: the index of each value's class; -1 for a value that is not among the names."""
    found = pc.index_in(texts(values), value_set=pa.array(names, pa.string()))
    return pc.fill_null(found, -1).to_numpy().astype(np.int64)


def names_by_value(kind: pa.DataType, names: Sequence[str]) -> bool:
    """Whether values of this type are looked up among the names; else they are indices of them.

    So `classes: [cat, dog]` names the classes of labels 0 and 1 as well as those of "cat", "dog".

    >>> names_by_value(pa.int64(), ("cat", "dog")), names_by_value(pa.int64(), ("1", "2"))
    (False, True)
    """
    if pa.types.is_boolean(kind):
        return {"true", "false"} >= set(names)
    return arrow.is_text(kind) or are_numbers(names)


@dataclass(frozen=True)
class Found:
    """The classes of one output that were found in the data.

    Attributes:
      output: the output; "" if there is only one, or none yet.
      names: the distinct names, sorted; at most MOST + 1, which are too many.
    """

    output: str
    names: tuple[str, ...] = ()

    @staticmethod
    def of(output: str, columns: Iterable[str], examples: batch.Batch) -> Found:
        """The classes in these columns of a batch."""
        names: set[str] = set()
        for column in columns:
            if column in examples.columns.schema.names:
                values, _ = arrow.flatten(examples.columns.column(column))
                names.update(texts(pc.unique(values.drop_null())).to_pylist())
        return Found(output, sort(names)[: MOST + 1])

    def merge(self, other: Found) -> Found:
        """The classes of both."""
        return Found(self.output or other.output, sort((*self.names, *other.names))[: MOST + 1])


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
