"""Converts Arrow columns to the NumPy arrays that a model's inputs take."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from evalbeam.transforms import arrow, batch, errors, memo
from evalbeam.transforms.models import images

# The start of PNG and JPEG images.
_IMAGE_STARTS = (b"\x89PNG", b"\xff\xd8\xff")
# The most characters of a value in a reason.
_SHOWN = 40
# Text that is a number, and one that is an integer.
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_INTEGER = r"^[+-]?[0-9]{1,18}$"


@dataclass(frozen=True)
class Parts:
    """The tensors by which an input takes rows that are lists of different lengths.

    Attributes:
      form: "ragged", flat values [V] and row splits, integers [N + 1]; or "sparse", indices of rows
        and of places in them, int64 [V, 2], values [V], and a dense shape, int64 [2].
      names: the names of these tensors in the model, in this order.
    """

    form: Literal["ragged", "sparse"]
    names: tuple[str, ...]

    @property
    def values(self) -> str:
        """The name of the tensor of the values."""
        return self.names[0 if self.form == "ragged" else 1]


@dataclass(frozen=True)
class Input:
    """A model's input that is filled from a column, or from several that are stacked.

    Attributes:
      name: the input's name in the model.
      column: the column's name in the data.
      dtype: the NumPy dtype; object for strings, which are passed as bytes; None to pass numbers,
        strings and bytes as they are in the data.
      shape: the shape of one example, with None for sizes that may vary; None to pass scalars and
        lists as they are in the data.
      image: how images in the column are decoded and scaled, if it holds images.
      more: the columns whose values follow those of `column` in each row.
      parts: the tensors of a ragged or sparse input, whose rows may be empty; None if it is dense.
    """

    name: str
    column: str
    dtype: np.dtype | None
    shape: tuple[int | None, ...] | None
    image: images.Image | None = None
    more: tuple[str, ...] = ()
    parts: Parts | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns, in the order of their values."""
        return (self.column, *self.more)

    def __str__(self) -> str:
        if not self.name:  # A stored prediction's only output.
            columns = errors.shortened(self.columns)
            return f"columns {columns}" if self.more else f"column {columns}"
        if self.image is not None:
            return f"input {self.name!r} ({self.image})"
        if self.more:
            return f"input {self.name!r} (columns {errors.shortened(self.columns)})"
        mapped = f" (column {self.column!r})" if self.column != self.name else ""
        form = f"{self.parts.form} " if self.parts else ""
        return f"{form}input {self.name!r}{mapped}"


def names(inputs: Iterable[Input]) -> tuple[str, ...]:
    """The columns that the inputs read, each once."""
    return tuple(dict.fromkeys(column for declared in inputs for column in declared.columns))


def texts(inputs: Iterable[Input]) -> tuple[str, ...]:
    """The columns that only inputs of strings read, which must not be parsed as numbers."""
    inputs = list(inputs)
    others = names(declared for declared in inputs if declared.dtype != object)
    strings = names(declared for declared in inputs if declared.dtype == object)
    return tuple(column for column in strings if column not in others)


def arrays(inputs: Sequence[Input], examples: batch.Batch) -> dict[str, np.ndarray]:
    """Input name -> an array [N, *shape] of the input's dtype; its parts instead, if it has some.

    Values are cast only if the dtype can represent them (float64 may round to float32): integers,
    booleans, decimals and text that is a number to numbers, integers to text.

    Raises:
      UnscorableRowsError: rows without a value, with too few or too many values, or with a value
        outside the input's dtype.
      UnequalRowsError: all rows can fill the inputs, but not in one array.
      DataError: the column cannot fill an input of this dtype or shape.
    """
    filled: dict[str, np.ndarray] = {}
    reasons: dict[int, str] = {}
    unequal: arrow.UnequalRowsError | None = None
    for declared in inputs:
        try:
            names = declared.parts.names if declared.parts else (declared.name,)
            tensors = examples.memo.once(
                replace(declared, name=""), functools.partial(_fill, declared, examples)
            )
            filled.update(zip(names, tensors, strict=True))
        except arrow.UnscorableRowsError as error:
            reasons.update({row: why for row, why in error.reasons.items() if row not in reasons})
        except arrow.UnequalRowsError as error:
            unequal = error
    if reasons:
        raise arrow.UnscorableRowsError(reasons)
    if unequal is not None:
        raise unequal
    return filled


def _fill(declared: Input, examples: batch.Batch) -> tuple[np.ndarray, ...]:
    """The input's tensor, or its parts."""
    if declared.image is not None:
        column = _column(examples, declared.column)
        return (_image_array(declared, declared.image, column, examples.memo),)
    parts = [_Part.read(declared, examples, column) for column in declared.columns]
    lengths = np.sum([part.lengths for part in parts], axis=0)
    shape = _shape(declared, lengths)
    values = _cast(declared, parts[0]) if len(parts) == 1 else _stack(declared, parts)
    if declared.parts is None:
        return (values.reshape(-1, *shape),)
    if declared.parts.form == "ragged":
        size = math.prod(shape)
        splits = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths // size)])
        return values.reshape(-1, *shape), splits
    indices = np.stack([axis.ravel() for axis in np.indices((len(lengths), *shape))], axis=1)
    return indices, values, np.array([len(lengths), *shape], np.int64)


@dataclass(frozen=True)
class _Part:
    """The values of one column: none is null; only of inputs with parts may rows be empty."""

    column: str
    values: pa.Array
    lengths: np.ndarray

    @classmethod
    def read(cls, declared: Input, examples: batch.Batch, column: str) -> _Part:
        array = _column(examples, column)
        values, lengths = arrow.flatten(array)
        _check_type(declared, values.type)
        _refuse_images(declared, values)
        what = f"column {column!r}" if declared.more else str(declared)
        missing = lengths == 0
        if declared.parts is not None:
            # A tf.Example without a feature has an empty list of it, as TensorFlow's parsers do.
            given = examples.shard.format == "tfrecord"
            missing &= not given and array.is_null().to_numpy(zero_copy_only=False)
        arrow.refuse(missing, lambda row: f"no value for {what}")
        if values.null_count:
            nulls = values.is_null().to_numpy(zero_copy_only=False)
            arrow.refuse(_any_by_row(nulls, lengths), lambda row: f"null in {what}")
        return cls(column, values, lengths)


def _refuse_images(declared: Input, values: pa.Array) -> None:
    """Raises DataError for encoded images where an input takes numbers."""
    is_number = declared.dtype is not None and declared.dtype != object
    if not (is_number and arrow.is_binary(values.type) and len(values)):
        return
    if (values[0].as_py() or b"").startswith(_IMAGE_STARTS):
        raise errors.DataError(
            f"{declared} takes {declared.dtype}, but the data has encoded images. Declare them: "
            f"`data: {{images: {{{declared.name}: {{column: {declared.column}}}}}}}`"
        )


def _column(examples: batch.Batch, name: str) -> pa.Array:
    index = examples.columns.schema.get_field_index(name)
    # A column that no row of a batch has may be absent.
    return pa.nulls(len(examples)) if index < 0 else examples.columns.column(index)


def _any_by_row(flags: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Whether any value of each row has its flag set."""
    result = np.zeros(len(lengths), bool)
    if flags.any():
        result[np.repeat(np.arange(len(lengths)), lengths)[flags]] = True
    return result


def _stack(declared: Input, parts: Sequence[_Part]) -> np.ndarray:
    """The parts' values, row by row; rows have equally many in total."""
    if declared.dtype is None:
        are_texts = {arrow.is_text(part.values.type) for part in parts}
        if len(are_texts) > 1:
            kinds = ", ".join(f"{part.column!r} is {part.values.type}" for part in parts)
            raise errors.DataError(
                f"{declared} stacks numbers and text ({kinds}); stack columns of one kind, and "
                "pass the others as inputs of their own"
            )
        if not are_texts.pop():
            declared = replace(declared, dtype=np.dtype(np.float64))
    starts = np.cumsum([np.zeros_like(parts[0].lengths), *(part.lengths for part in parts)], axis=0)
    ends = np.cumsum(starts[-1])
    result = np.empty(ends[-1], declared.dtype or object)
    for part, start in zip(parts, starts, strict=False):
        first = ends - starts[-1] + start
        within = np.arange(len(part.values)) - np.repeat(
            np.cumsum(part.lengths) - part.lengths, part.lengths
        )
        result[np.repeat(first, part.lengths) + within] = _cast(declared, part)
    return result


def _image_array(
    declared: Input, image: images.Image, column: pa.Array, shared: memo.Memo
) -> np.ndarray:
    if declared.dtype == object:
        raise errors.DataError(
            f"{declared} takes string: the model decodes images itself. Map the input to the "
            f"column (`inputs: {{{declared.name}: {declared.column}}}`), or rename the image"
        )
    decode = functools.partial(image.decode, column)
    array = image.rescale(shared.once(image.without_scaling, decode))
    if declared.shape is None or declared.dtype is None:  # A callable accepts any array.
        return array.astype(np.float32, copy=False)
    return image.fit(array, declared.dtype, declared.shape, str(declared))


def _check_type(declared: Input, kind: pa.DataType) -> None:
    fits = pa.types.is_null(kind) or arrow.is_text(kind) or pa.types.is_integer(kind)
    if declared.dtype != object:
        fits = fits or arrow.is_number(kind)
    if fits:
        return
    allowed = "numbers or strings"
    if declared.dtype is not None:
        allowed = "string" if declared.dtype == object else declared.dtype.name
    raise errors.DataError(
        f"{declared} takes {allowed}, but the data has {kind}. Use a column of that type, or "
        "convert the data"
    )


def _shape(declared: Input, lengths: np.ndarray) -> tuple[int, ...]:
    """The shape of one example; sizes that the model leaves open are those of the rows.

    Rows of other sizes go into arrays of their own, so that what is scored depends on a row alone.
    Of a ragged input, the shape of each of its elements: its rows are of any number of them.
    """
    sizes = (None,) if declared.shape is None else declared.shape
    fixed = math.prod(size for size in sizes if size is not None)
    open_sizes = sizes.count(None)
    if not open_sizes:
        arrow.refuse(
            lengths != fixed,
            lambda row: f"{declared} takes {fixed} values, but the row has {lengths[row]}",
        )
        return tuple(size for size in sizes if size is not None)
    if open_sizes > 1:
        raise errors.DataError(
            f"{declared} takes {_describe(sizes)} values per example; the data has lists, whose "
            "values cannot be divided among several open sizes. Export the model with at most one "
            "of them open, or a signature over serialised tf.Examples"
        )
    arrow.refuse(
        (lengths % fixed).astype(bool),
        lambda row: f"{declared} takes {_describe(sizes)} values, but the row has {lengths[row]}",
    )
    if declared.parts is not None and declared.parts.form == "ragged":
        return tuple(size for size in sizes if size is not None)
    arrow.separate(lengths)
    steps = int(lengths[0]) // fixed if len(lengths) else 1
    if declared.shape is None and steps == 1:
        return ()
    return tuple(steps if size is None else size for size in sizes)


def _describe(sizes: Sequence[int | None]) -> str:
    return " x ".join("any number of" if size is None else str(size) for size in sizes)


def _cast(declared: Input, part: _Part) -> np.ndarray:
    """The part's values as the input takes them, in row order."""
    values, dtype = part.values, declared.dtype
    if dtype is not None and dtype.kind == "O":
        if not arrow.is_text(values.type):
            values = values.cast(pa.string())
        return _to_bytes(values)
    if arrow.is_text(values.type):
        if dtype is None:
            return values.to_numpy(zero_copy_only=False)
        values = _parse(declared, dtype, values, part.lengths)
    array = values.to_numpy(zero_copy_only=False)
    if dtype is None or array.dtype == dtype:
        return array
    cast, exact = arrow.cast_values(array, dtype)
    wrong = _any_by_row(~exact, part.lengths)

    def reason(row: int) -> str:
        end = int(part.lengths[: row + 1].sum())
        cells = slice(end - int(part.lengths[row]), end)
        value = array[cells][~exact[cells]][0]
        return f"{declared} takes {dtype.name}, which cannot represent {value}"

    arrow.refuse(wrong, reason)
    return cast


def _to_bytes(values: pa.Array) -> np.ndarray:
    return values.cast(pa.large_binary()).to_numpy(zero_copy_only=False)


def _parse(declared: Input, dtype: np.dtype, values: pa.Array, lengths: np.ndarray) -> pa.Array:
    """Text as float64 or, for inputs of integers, as int64."""
    if arrow.is_binary(values.type):
        blobs = values.to_pylist()
        values = pa.array([blob.decode("utf-8", "replace") for blob in blobs], pa.string())
    texts = pc.utf8_trim_whitespace(values)
    whole = dtype.kind in "iub"
    matches = pc.match_substring_regex(texts, _INTEGER if whole else _NUMBER)
    wrong = ~matches.to_numpy(zero_copy_only=False)

    def reason(row: int) -> str:
        end = int(lengths[: row + 1].sum())
        index = end - int(lengths[row]) + int(np.argmax(wrong[end - int(lengths[row]) : end]))
        return f"{declared} takes {dtype.name}, but the row has {_quote(values[index].as_py())}"

    arrow.refuse(_any_by_row(wrong, lengths), reason)
    return texts.cast(pa.int64() if whole else pa.float64())


def _quote(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
