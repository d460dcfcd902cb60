"""Arrow columns to the NumPy arrays that a model's inputs take."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms import batch, errors, memo

if TYPE_CHECKING:
    from transforms.models import images

# So little a number may lie off a whole one, and be meant as one.
_ALMOST = 1e-3


class UnscorableRowsError(Exception):
    """Rows whose values a model's inputs cannot take; the other rows are fine.

    Attributes:
      reasons: by row of the batch, why.
    """

    def __init__(self, reasons: Mapping[int, str]) -> None:
        first = min(reasons)
        super().__init__(f"{len(reasons)} rows; row {first}: {reasons[first]}")
        self.reasons = reasons


@dataclass(frozen=True)
class Input:
    """What a model takes from a column.

    Attributes:
      name: the model's name for it.
      column: the data's name for it.
      dtype: NumPy's dtype; object for strings, which arrive as bytes; None for numbers and strings
        as the data has them.
      shape: of one example, None where any size goes; the whole is None where scalars and lists
        are taken as the data has them.
      image: what is made of the column before, if it holds images.
    """

    name: str
    column: str
    dtype: np.dtype | None
    shape: tuple[int | None, ...] | None
    image: images.Image | None = None

    def __str__(self) -> str:
        if not self.name:  # A stored prediction's only output.
            return f"column {self.column!r}"
        if self.image is not None:
            return f"input {self.name!r} ({self.image})"
        mapped = f" (column {self.column!r})" if self.column != self.name else ""
        return f"input {self.name!r}{mapped}"


def names(inputs: Iterable[Input]) -> tuple[str, ...]:
    """The columns that the inputs read, each once."""
    return tuple(dict.fromkeys(declared.column for declared in inputs))


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


def arrays(inputs: Sequence[Input], examples: batch.Batch) -> dict[str, np.ndarray]:
    """By input name, an array [N, *shape] of the input's dtype.

    Values are cast where they stay what they are (float64 may round to float32).

    Raises:
      UnscorableRowsError: rows without a value, with too few or too many of them, or with a value
        outside the input's dtype.
      JobError: a column that no input of this dtype or shape can take.
    """
    taken, reasons = {}, {}
    for declared in inputs:
        try:
            taken[declared.name] = examples.memo.once(
                replace(declared, name=""), functools.partial(_array, declared, examples)
            )
        except UnscorableRowsError as error:
            reasons.update({row: why for row, why in error.reasons.items() if row not in reasons})
    if reasons:
        raise UnscorableRowsError(reasons)
    return taken


def _array(declared: Input, examples: batch.Batch) -> np.ndarray:
    index = examples.columns.schema.get_field_index(declared.column)
    # A column that no row of a batch has may be absent.
    column = pa.nulls(len(examples)) if index < 0 else examples.columns.column(index)
    if declared.image is not None:
        return _pixels(declared, declared.image, column, examples.memo)
    values, lengths = flatten(column)
    if not pa.types.is_null(values.type):
        _check_type(declared, values.type)
    refuse(lengths == 0, lambda row: f"no value for {declared}")
    shape = _shape(declared, lengths)
    size = math.prod(shape)
    refuse(
        lengths != size, lambda row: f"{declared} takes {size} values, the row has {lengths[row]}"
    )
    if values.null_count:
        nulls = values.is_null().to_numpy(zero_copy_only=False)
        refuse(nulls.reshape(-1, size).any(axis=1), lambda row: f"a null within {declared}")
    return _cast(declared, values, size).reshape(-1, *shape)


def _pixels(
    declared: Input, image: images.Image, column: pa.Array, shared: memo.Memo
) -> np.ndarray:
    if declared.dtype == object:
        raise errors.JobError(
            f"{declared} takes string: the model decodes by itself. Map the input to the column "
            f"(`inputs: {{{declared.name}: {declared.column}}}`), or name the image otherwise"
        )
    array = image.scaled(shared.once(image.decoding, functools.partial(image.decoded, column)))
    if declared.shape is None or declared.dtype is None:  # a callable takes what it is given
        return array.astype(np.float32, copy=False)
    array = _fitted(declared, image, array)
    # All floats have 0 to 255; and bfloat16 and its kin, of kind V, are meant to round.
    if declared.dtype.kind == "V" or (array.dtype == np.uint8 and declared.dtype.kind == "f"):
        return array.astype(declared.dtype)
    if array.dtype != np.uint8 and declared.dtype.kind in "iu":
        # What a scale makes of whole numbers need not be whole to the last bit.
        whole = np.rint(array)
        array = np.where(np.abs(whole - array) < _ALMOST, whole, array)
    size = math.prod(array.shape[1:])
    remedy = f". Give {image} a `scale` and `offset` whose results are whole and in range"
    flat = _cast_numbers(declared, array.reshape(-1), declared.dtype, size, remedy)
    return flat.reshape(array.shape)


def _fitted(declared: Input, image: images.Image, array: np.ndarray) -> np.ndarray:
    """The images in the rank of the input, whose sizes they must have."""
    wanted, found = declared.shape or (), array.shape[1:]
    if len(wanted) == 2 and image.channels_first and found[0] == 1:
        array = array[:, 0]
    elif len(wanted) == 2 and not image.channels_first and found[-1] == 1:
        array = array[..., 0]
    sizes = array.shape[1:]
    if len(wanted) == len(sizes) and all(
        one in (None, size) for one, size in zip(wanted, sizes, strict=True)
    ):
        return array
    why = f"{declared} takes the shape {list(wanted)}, and the image has {list(found)}"
    why = f"{why.replace('None', 'any')}. {image.remedy(wanted, found)}"
    if image.is_of_one_shape:
        raise errors.JobError(why)
    raise UnscorableRowsError(dict.fromkeys(range(len(array)), why))


def _check_type(declared: Input, found: pa.DataType) -> None:
    if declared.dtype is None:
        fits, wanted = is_number(found) or _is_text(found), "numbers or strings"
    elif declared.dtype == object:
        fits, wanted = _is_text(found), "string"
    else:
        fits, wanted = is_number(found), declared.dtype.name
    if fits:
        return
    remedy = "Name a column of that type, or convert the data"
    if is_binary(found) and declared.shape is not None:  # No stored prediction.
        remedy += (
            ". Encoded images are declared: "
            f"`data: {{images: {{{declared.name}: {{column: {declared.column}}}}}}}`"
        )
    raise errors.JobError(f"{declared} takes {wanted}, the data has {found}. {remedy}")


def _shape(declared: Input, lengths: np.ndarray) -> tuple[int, ...]:
    """The shape of one example, with the sizes that the model leaves open taken from the rows."""
    if declared.shape is None:
        # Not the first row's length: a damaged row must not condemn the others.
        usual = int(np.bincount(lengths).argmax())
        return () if usual == 1 else (usual,)
    fixed = tuple(size for size in declared.shape if size is not None)
    if len(fixed) == len(declared.shape):
        return fixed
    found, per_step = np.unique(lengths), math.prod(fixed)
    if len(found) > 1 or found[0] % per_step or len(declared.shape) - len(fixed) > 1:
        sizes = ", ".join("None" if size is None else str(size) for size in declared.shape)
        raise errors.JobError(
            f"{declared} takes dense batches of shape [None, {sizes}], and the rows of a batch "
            f"have {found[0]} to {found[-1]} values, which do not fill one. Export a signature "
            "over serialised tf.Examples that pads them"
        )
    steps = int(found[0]) // per_step
    return tuple(steps if size is None else size for size in declared.shape)


def _cast(declared: Input, values: pa.Array, size: int) -> np.ndarray:
    if _is_text(values.type):
        return values.cast(pa.binary()).to_numpy(zero_copy_only=False)
    array = values.to_numpy(zero_copy_only=False)
    return array if declared.dtype is None else _cast_numbers(declared, array, declared.dtype, size)


def _cast_numbers(
    declared: Input, array: np.ndarray, dtype: np.dtype, size: int, remedy: str = ""
) -> np.ndarray:
    if array.dtype == dtype:
        return array
    with np.errstate(all="ignore"):
        cast = array.astype(dtype)
        if array.dtype.kind == cast.dtype.kind == "f":
            kept = np.isfinite(cast) | ~np.isfinite(array)
        else:
            # The signs too: uint64 wraps around int64 and comes back unchanged.
            kept = (cast.astype(array.dtype) == array) & ((cast < 0) == (array < 0))

    def reason(row: int) -> str:
        value = array[row * size : (row + 1) * size][~kept[row * size : (row + 1) * size]][0]
        return f"{declared} takes {dtype.name}, which has no value {value}{remedy}"

    refuse(~kept.reshape(-1, size).all(axis=1), reason)
    return cast


def refuse(rows: np.ndarray, reason: Callable[[int], str]) -> None:
    """Raises UnscorableRowsError for the rows that are True in bool[N], each with its reason."""
    bad = np.flatnonzero(rows)
    if len(bad):
        raise UnscorableRowsError({int(row): reason(int(row)) for row in bad})


def _is_list(kind: pa.DataType) -> bool:
    return (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _is_text(kind: pa.DataType) -> bool:
    return is_binary(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)


def is_binary(kind: pa.DataType) -> bool:
    """Whether values of this type are bytes."""
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def is_number(kind: pa.DataType) -> bool:
    """Whether values of this type are integers, floats or booleans."""
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
