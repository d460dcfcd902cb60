"""Arrow columns to the NumPy arrays that a model's inputs take."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from evalbeam.transforms import arrow, batch, errors, memo
from evalbeam.transforms.models import images


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
        except arrow.UnscorableRowsError as error:
            reasons.update({row: why for row, why in error.reasons.items() if row not in reasons})
    if reasons:
        raise arrow.UnscorableRowsError(reasons)
    return taken


def _array(declared: Input, examples: batch.Batch) -> np.ndarray:
    index = examples.columns.schema.get_field_index(declared.column)
    # A column that no row of a batch has may be absent.
    column = pa.nulls(len(examples)) if index < 0 else examples.columns.column(index)
    if declared.image is not None:
        return _pictures(declared, declared.image, column, examples.memo)
    values, lengths = arrow.flatten(column)
    if not pa.types.is_null(values.type):
        _check_type(declared, values.type)
    arrow.refuse(lengths == 0, lambda row: f"no value for {declared}")
    shape = _shape(declared, lengths)
    size = math.prod(shape)
    arrow.refuse(
        lengths != size, lambda row: f"{declared} takes {size} values, the row has {lengths[row]}"
    )
    if values.null_count:
        nulls = values.is_null().to_numpy(zero_copy_only=False)
        arrow.refuse(nulls.reshape(-1, size).any(axis=1), lambda row: f"a null within {declared}")
    return _cast(declared, values, size).reshape(-1, *shape)


def _pictures(
    declared: Input, image: images.Image, column: pa.Array, shared: memo.Memo
) -> np.ndarray:
    if declared.dtype == object:
        raise errors.JobError(
            f"{declared} takes string: the model decodes by itself. Map the input to the column "
            f"(`inputs: {{{declared.name}: {declared.column}}}`), or name the image otherwise"
        )
    array = image.scaled(shared.once(image.decoding, functools.partial(image.decoded, column)))
    if declared.shape is None or declared.dtype is None:  # A callable takes what it is given.
        return array.astype(np.float32, copy=False)
    return image.fitted(array, declared.dtype, declared.shape, str(declared))


def _check_type(declared: Input, found: pa.DataType) -> None:
    if declared.dtype is None:
        fits, wanted = arrow.is_number(found) or arrow.is_text(found), "numbers or strings"
    elif declared.dtype == object:
        fits, wanted = arrow.is_text(found), "string"
    else:
        fits, wanted = arrow.is_number(found), declared.dtype.name
    if fits:
        return
    remedy = "Name a column of that type, or convert the data"
    if arrow.is_binary(found) and declared.shape is not None:  # No stored prediction.
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
    if arrow.is_text(values.type):
        return values.cast(pa.binary()).to_numpy(zero_copy_only=False)
    array = values.to_numpy(zero_copy_only=False)
    return (
        array if declared.dtype is None else arrow.cast(array, declared.dtype, size, str(declared))
    )
