"""Converts Arrow columns to the NumPy arrays that a model's inputs take."""

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
    """A model's input that is filled from a column.

    Attributes:
      name: the input's name in the model.
      column: the column's name in the data.
      dtype: the NumPy dtype; object for strings, which are passed as bytes; None to pass numbers
        and strings as they are in the data.
      shape: the shape of one example, with None for sizes that may vary; None to pass scalars and
        lists as they are in the data.
      image: how images in the column are decoded and scaled, if it holds images.
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
    """Input name -> an array [N, *shape] of the input's dtype.

    Values are cast only if the dtype can represent them (float64 may round to float32).

    Raises:
      UnscorableRowsError: rows without a value, with too few or too many values, or with a value
        outside the input's dtype.
      JobError: the column cannot fill an input of this dtype or shape.
    """
    filled, reasons = {}, {}
    for declared in inputs:
        try:
            filled[declared.name] = examples.memo.once(
                replace(declared, name=""), functools.partial(_array, declared, examples)
            )
        except arrow.UnscorableRowsError as error:
            reasons.update({row: why for row, why in error.reasons.items() if row not in reasons})
    if reasons:
        raise arrow.UnscorableRowsError(reasons)
    return filled


def _array(declared: Input, examples: batch.Batch) -> np.ndarray:
    index = examples.columns.schema.get_field_index(declared.column)
    # A column that no row of a batch has may be absent.
    column = pa.nulls(len(examples)) if index < 0 else examples.columns.column(index)
    if declared.image is not None:
        return _image_array(declared, declared.image, column, examples.memo)
    values, lengths = arrow.flatten(column)
    if not pa.types.is_null(values.type):
        _check_type(declared, values.type)
    arrow.refuse(lengths == 0, lambda row: f"no value for {declared}")
    shape = _shape(declared, lengths)
    size = math.prod(shape)
    arrow.refuse(
        lengths != size,
        lambda row: f"{declared} takes {size} values, but the row has {lengths[row]}",
    )
    if values.null_count:
        nulls = values.is_null().to_numpy(zero_copy_only=False)
        arrow.refuse(nulls.reshape(-1, size).any(axis=1), lambda row: f"null in {declared}")
    return _cast(declared, values, size).reshape(-1, *shape)


def _image_array(
    declared: Input, image: images.Image, column: pa.Array, shared: memo.Memo
) -> np.ndarray:
    if declared.dtype == object:
        raise errors.JobError(
            f"{declared} takes string: the model decodes images itself. Map the input to the "
            f"column (`inputs: {{{declared.name}: {declared.column}}}`), or rename the image"
        )
    decode = functools.partial(image.decode, column)
    array = image.rescale(shared.once(image.without_scaling, decode))
    if declared.shape is None or declared.dtype is None:  # A callable accepts any array.
        return array.astype(np.float32, copy=False)
    return image.fit(array, declared.dtype, declared.shape, str(declared))


def _check_type(declared: Input, kind: pa.DataType) -> None:
    if declared.dtype is None:
        fits, allowed = arrow.is_number(kind) or arrow.is_text(kind), "numbers or strings"
    elif declared.dtype == object:
        fits, allowed = arrow.is_text(kind), "string"
    else:
        fits, allowed = arrow.is_number(kind), declared.dtype.name
    if fits:
        return
    remedy = "Use a column of that type, or convert the data"
    if arrow.is_binary(kind) and declared.shape is not None:  # Not a stored prediction.
        remedy += (
            ". If the column holds encoded images, declare them: "
            f"`data: {{images: {{{declared.name}: {{column: {declared.column}}}}}}}`"
        )
    raise errors.JobError(f"{declared} takes {allowed}, but the data has {kind}. {remedy}")


def _shape(declared: Input, lengths: np.ndarray) -> tuple[int, ...]:
    """The shape of one example; sizes that the model leaves open are those of the rows."""
    if declared.shape is None:
        # Not the first row's length: one bad row must not make all others unscorable.
        usual = int(np.bincount(lengths).argmax())
        return () if usual == 1 else (usual,)
    fixed = tuple(size for size in declared.shape if size is not None)
    if len(fixed) == len(declared.shape):
        return fixed
    counts, step = np.unique(lengths), math.prod(fixed)
    if len(counts) > 1 or counts[0] % step or len(declared.shape) - len(fixed) > 1:
        sizes = ", ".join("None" if size is None else str(size) for size in declared.shape)
        raise errors.JobError(
            f"{declared} takes dense batches of shape [None, {sizes}], but the rows of this batch "
            f"have {counts[0]} to {counts[-1]} values, which cannot fill one. Export a signature "
            "over serialised tf.Examples that pads them"
        )
    steps = int(counts[0]) // step
    return tuple(steps if size is None else size for size in declared.shape)


def _cast(declared: Input, values: pa.Array, size: int) -> np.ndarray:
    if arrow.is_text(values.type):
        return values.cast(pa.binary()).to_numpy(zero_copy_only=False)
    array = values.to_numpy(zero_copy_only=False)
    return (
        array if declared.dtype is None else arrow.cast(array, declared.dtype, size, str(declared))
    )
