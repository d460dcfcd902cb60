"""Arrow's values: their kinds, in row order, and the rows that are refused for theirs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


class UnscorableRowsError(Exception):
    """Rows whose values a model's inputs cannot take; the other rows are fine.

    Attributes:
      reasons: by row of the batch, why.
    """

    def __init__(self, reasons: Mapping[int, str]) -> None:
        first = min(reasons)
        super().__init__(f"{len(reasons)} rows; row {first}: {reasons[first]}")
        self.reasons = reasons


def refuse(rows: np.ndarray, reason: Callable[[int], str]) -> None:
    """Raises UnscorableRowsError for the rows that are True in bool[N], each with its reason."""
    bad = np.flatnonzero(rows)
    if len(bad):
        raise UnscorableRowsError({int(row): reason(int(row)) for row in bad})


def flatten(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """A column's values in row order, and int64[N]: how many of them each row has.

    A scalar is a list of one; a null is an empty list; of lists of lists, all values count.
    """
    if isinstance(column, pa.ExtensionArray):  # Such as Arrow's tensors of fixed shape.
        column = column.storage
    if not _is_list(column.type):
        valid = column.is_valid().to_numpy(zero_copy_only=False).astype(np.int64)
        return _plain(column.drop_null()), valid
    lengths, values = _lengths(column), column.flatten()
    while _is_list(values.type):
        places = np.concatenate([np.zeros(1, np.int64), np.cumsum(_lengths(values))])
        ends = np.cumsum(lengths)
        lengths, values = places[ends] - places[ends - lengths], values.flatten()
    return _plain(values), lengths


def _lengths(column: pa.Array) -> np.ndarray:
    lengths = pc.fill_null(pc.list_value_length(column), 0)
    return lengths.to_numpy(zero_copy_only=False).astype(np.int64)


def _plain(values: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    return values.cast(pa.binary()) if pa.types.is_fixed_size_binary(values.type) else values


def cast(array: np.ndarray, dtype: np.dtype, size: int, what: str, remedy: str = "") -> np.ndarray:
    """Numbers, `size` of each row, in another dtype if they stay what they are.

    float64 may round to float32.

    Raises:
      UnscorableRowsError: rows with a number that the dtype does not have; said of `what`.
    """
    if array.dtype == dtype:
        return array
    with np.errstate(all="ignore"):
        result = array.astype(dtype)
        if array.dtype.kind == result.dtype.kind == "f":
            kept = np.isfinite(result) | ~np.isfinite(array)
        else:
            # The signs too: uint64 wraps around int64 and comes back unchanged.
            kept = (result.astype(array.dtype) == array) & ((result < 0) == (array < 0))

    def reason(row: int) -> str:
        value = array[row * size : (row + 1) * size][~kept[row * size : (row + 1) * size]][0]
        return f"{what} takes {dtype.name}, which has no value {value}{remedy}"

    refuse(~kept.reshape(-1, size).all(axis=1), reason)
    return result


def is_number(kind: pa.DataType) -> bool:
    """Whether values of this type are integers, floats or booleans."""
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def is_text(kind: pa.DataType) -> bool:
    """Whether values of this type are strings or bytes."""
    return is_binary(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)


def is_binary(kind: pa.DataType) -> bool:
    """Whether values of this type are bytes."""
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_list(kind: pa.DataType) -> bool:
    return (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )
