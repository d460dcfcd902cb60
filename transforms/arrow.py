"""Arrow columns: value types, values in row order, and rows rejected for their values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


class UnscorableRowsError(Exception):
    """Rows whose values a model's inputs cannot take; the other rows are fine.

    Attributes:
      reasons: row of the batch -> why it cannot be scored.
    """

    def __init__(self, reasons: Mapping[int, str]) -> None:
        first = min(reasons)
        super().__init__(f"{len(reasons)} rows; row {first}: {reasons[first]}")
        self.reasons = reasons


class UnequalRowsError(Exception):
    """Rows that can all be scored, but whose values do not fit into one array.

    Attributes:
      groups: the rows of each array, int64, ascending; each row is in one group.
    """

    def __init__(self, groups: Sequence[np.ndarray]) -> None:
        super().__init__(f"rows of {len(groups)} different sizes")
        self.groups = groups


def separate(sizes: np.ndarray) -> None:
    """Raises UnequalRowsError unless all rows have the same size; int64, [N] or [N, K]."""
    _, first, kinds = np.unique(sizes, axis=0, return_index=True, return_inverse=True)
    if len(first) > 1:
        raise UnequalRowsError([np.flatnonzero(kinds == kind) for kind in range(len(first))])


def refuse(rows: np.ndarray, reason: Callable[[int], str]) -> None:
    """Raises UnscorableRowsError for the rows where bool[N] is True, with a reason for each."""
    bad = np.flatnonzero(rows)
    if len(bad):
        raise UnscorableRowsError({int(row): reason(int(row)) for row in bad})


def flatten(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """A column's values in row order, and the number of values per row, int64[N].

    A scalar counts as a list of one, a null as an empty list; nested lists are flattened.
    """
    if isinstance(column, pa.ExtensionArray):  # Such as Arrow's fixed-shape tensors.
        column = column.storage
    if not _is_list(column.type):
        valid = column.is_valid().to_numpy(zero_copy_only=False).astype(np.int64)
        return _decode(column.drop_null()), valid
    lengths, values = _lengths(column), column.flatten()
    while _is_list(values.type):
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(_lengths(values))])
        ends = np.cumsum(lengths)
        lengths, values = offsets[ends] - offsets[ends - lengths], values.flatten()
    return _decode(values), lengths


def _lengths(column: pa.Array) -> np.ndarray:
    lengths = pc.fill_null(pc.list_value_length(column), 0)
    return lengths.to_numpy(zero_copy_only=False).astype(np.int64)


def _decode(values: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_decimal(values.type):
        values = values.cast(pa.float64())
    return values.cast(pa.binary()) if pa.types.is_fixed_size_binary(values.type) else values


def cast(array: np.ndarray, dtype: np.dtype, size: int, what: str, remedy: str = "") -> np.ndarray:
    """Numbers, `size` per row, cast to another dtype that can represent them.

    float64 may round to float32. Errors call the values `what`.

    Raises:
      UnscorableRowsError: rows with a number that the dtype cannot represent.
    """
    result, exact = cast_values(array, dtype)

    def reason(row: int) -> str:
        cells = slice(row * size, (row + 1) * size)
        value = array[cells][~exact[cells]][0]
        return f"{what} takes {dtype.name}, which cannot represent {value}{remedy}"

    refuse(np.logical_not(exact.reshape(-1, size).all(axis=1)), reason)
    return result


def number_text(values: pa.Array) -> pa.Array:
    """Floats as text; whole ones as integers: pandas stores integers with nulls as floats."""
    numbers = values.to_numpy(zero_copy_only=False)
    whole = (np.abs(numbers) < 2**63) & (numbers == np.floor(numbers))
    integers = np.where(whole, numbers, 0).astype(np.int64)
    return pc.if_else(
        pa.array(whole), pa.array(integers).cast(pa.string()), values.cast(pa.string())
    )


def cast_values(array: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Numbers cast to another dtype, and for each whether the dtype can represent it.

    float64 may round to float32.
    """
    if array.dtype == dtype:
        return array, np.ones(array.shape, bool)
    with np.errstate(all="ignore"):
        result = array.astype(dtype)
        if array.dtype.kind == result.dtype.kind == "f":
            return result, np.isfinite(result) | ~np.isfinite(array)
        # Signs too: uint64 wraps around to int64 and back unchanged.
        exact: np.ndarray = (result.astype(array.dtype) == array) & ((result < 0) == (array < 0))
    return result, exact


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
