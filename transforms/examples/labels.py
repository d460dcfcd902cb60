"""Labels and weights as the metrics take them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from evalbeam.transforms import arrow, batch, errors
from evalbeam.transforms.examples import classes

Task = Literal["binary", "multiclass", "multilabel", "regression"]

# As in TFMA: labels outside [0, 1] by no more than this are float rounding.
TOLERANCE = 1e-7


@dataclass(frozen=True)
class Head:
    """One output that is evaluated against one label.

    Attributes:
      output: the models' output; "" if they have only one.
      column: the label column.
      task: binary, multiclass, multilabel or regression.
      classes: the number of classes for multiclass and multilabel, else None.
      names: the classes' names, in the order of their scores; () if classes are numbers. The two
        of a binary task are in the order of scores in two columns.
      positive: of a binary task, the index of the positive class, whose score is evaluated.
      unknown: whether the last class is that of all labels that are not among the others. No
        version has a score for it.
    """

    output: str
    column: str
    task: Task
    classes: int | None = None
    names: tuple[str, ...] = ()
    positive: int = 1
    unknown: bool = False

    @property
    def scored_classes(self) -> int | None:
        """The number of classes that versions have scores for, for multiclass and multilabel."""
        return None if self.classes is None else self.classes - self.unknown

    def class_name(self, class_id: int) -> str:
        """The name of a class; of a binary task 1 is the positive class, 0 the other. "" if none.

        >>> Head("", "y", "binary", names=("spam", "ham"), positive=0).class_name(1)
        'spam'
        """
        if self.task == "binary" and self.positive == 0:
            class_id = 1 - class_id
        return self.names[class_id] if 0 <= class_id < len(self.names) else ""


def find_class(head: Head, value: int | str, *, is_id: bool = False) -> int:
    """The id of a class of several, given by its name or its id.

    Args:
      head: the output.
      value: a name or an id.
      is_id: whether a number is an id even if it may be a name, as in an EvalConfig.

    Raises:
      ConfigError: there is no such class; or the names are other numbers than the ids, so that a
        number may be either.
    """
    ids = f"0 to {head.classes - 1}" if head.classes else f"none, as the task is {head.task}"
    if isinstance(value, int):
        if not 0 <= value < (head.classes or 0):
            raise errors.ConfigError(f"the class id {value}; valid ids: {ids}")
        if not is_id and str(value) in head.names and head.names[value] != str(value):
            raise errors.ConfigError(
                f"the class {value}, which may be the class {str(value)!r} or the one of id "
                f"{value}, {head.names[value]!r}: write a class's name in quotes"
            )
        return value
    if value not in head.names:
        known = errors.nearest(value, head.names) if head.names else f"ids {ids}"
        raise errors.ConfigError(f"the class {value!r}; there are {known}")
    return head.names.index(value)


def labels(examples: batch.Batch, head: Head) -> np.ndarray:
    """The head's labels: float64[N], or float64[N, classes] for multilabel.

    Binary and multilabel labels are in [0, 1]; fractions are allowed. A multiclass label is a
    class index, or -1 for no class; one-hot lists become indices, all zeros -1. Where the head has
    names, labels may be names of classes: binary ones become 1 for the positive class and 0 for
    the other, multilabel lists of names 1 for each class in them.

    Raises:
      DataError: a label is missing, not numeric or invalid for the task; names file, row and value.
    """
    where = f"label column {head.column!r}"
    column, lengths = _read(examples, head.column, where)
    if head.names and classes.names_by_value(column.type, head.names):
        return _named(examples, where, column, lengths, head)
    values = _numbers(examples, where, column, lengths)
    if values.ndim == 2 or head.task == "multilabel":
        _check_lists(examples, where, values, head)
    if head.task == "multiclass" and values.ndim == 2:
        return _indices(examples, where, values)
    if head.task == "multiclass":
        top = np.inf if head.classes is None else head.classes - 1
        allowed = "integers from -1 (no class)" + (
            "" if head.classes is None else f" to {head.classes - 1}"
        )
        if head.unknown:
            values = np.where(values > top - 1, top, values)
        fits = (values == np.floor(values)) & (values >= -1) & (values <= top)
        allowed += ". Fix the data, or list the labels' classes in `data.classes`"
        _check(examples, where, values, fits, f"class indices are {allowed}")
    elif head.task != "regression":
        fits = (values >= -TOLERANCE) & (values <= 1 + TOLERANCE)
        allowed = f"{head.task} labels are in [0, 1]. Fix the data or `task`"
        _check(examples, where, values, fits, allowed)
    return values if head.positive or head.task != "binary" else 1.0 - values


def weights(examples: batch.Batch, column: str) -> np.ndarray:
    """The examples' weights, float64[N], none negative.

    Raises:
      DataError: a weight is missing, not a number or negative; names file, row and value.
    """
    where = f"weight column {column!r}"
    values = _numbers(examples, where, *_read(examples, column, where))
    if values.ndim == 2:
        raise errors.DataError(
            f"{examples.shard}: {where} holds {values.shape[1]} values per row; a weight is a "
            "single value"
        )
    _check(examples, where, values, values >= 0, "weights must not be negative")
    return values


def raw(examples: batch.Batch, column: str) -> tuple[pa.Array, np.ndarray]:
    """A label column's values in row order, and their number per row, int64[N].

    Raises:
      DataError: no row has the column.
    """
    return _read(examples, column, f"label column {column!r}")


def _read(examples: batch.Batch, column: str, where: str) -> tuple[pa.Array, np.ndarray]:
    names = examples.columns.schema.names
    if column not in names:
        raise errors.DataError(
            f"{examples.shard}: no row has the {where}; there are {errors.nearest(column, names)}"
        )
    return arrow.flatten(examples.columns.column(column))


def _numbers(
    examples: batch.Batch, where: str, values: pa.Array, lengths: np.ndarray
) -> np.ndarray:
    """Finite numbers, float64[N] or float64[N, K]."""
    _refuse_missing(examples, where, lengths)
    if not arrow.is_number(values.type):
        example = classes.text(values[0].as_py())
        raise errors.DataError(
            f"{examples.shard}: {where} holds {values.type}, such as {example!r}; it must be "
            "numeric"
        )
    size = int(np.bincount(lengths).argmax())
    _refuse(
        examples,
        where,
        lengths != size,
        lambda row: f"has {lengths[row]} values, other rows have {size}",
    )
    numbers = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    numbers = numbers if size == 1 else numbers.reshape(-1, size)
    # A null in a list is NaN here, so it is rejected too.
    _check(examples, where, numbers, np.isfinite(numbers), "it must be a finite number")
    return numbers


def _named(
    examples: batch.Batch, where: str, values: pa.Array, lengths: np.ndarray, head: Head
) -> np.ndarray:
    """Labels that are names of classes: float64[N], or float64[N, classes] for multilabel."""
    several = head.task == "multilabel"
    if not several:
        _refuse_missing(examples, where, lengths, head)
        _refuse(
            examples,
            where,
            lengths > 1,
            lambda row: f"has {lengths[row]} values; task {head.task} takes one class per example",
        )
    index = classes.indices(values, head.names)
    unknown = index < 0
    if head.unknown:
        index[unknown] = len(head.names) - 1
    elif unknown.any():
        first = classes.text(values[int(unknown.argmax())].as_py())
        rows = np.repeat(np.arange(len(examples)), lengths)[unknown]
        _refuse(
            examples,
            where,
            np.isin(np.arange(len(examples)), rows),
            lambda row: (
                f"is {first!r}, which is none of the classes {classes.describe(head.names)}. Fix "
                "the data or `data.classes`, or set `data.unknown_class`, the name of a class for "
                "all other labels"
            ),
        )
    if several:
        result = np.zeros((len(examples), len(head.names)))
        result[np.repeat(np.arange(len(examples)), lengths), index] = 1.0
        return result
    return (index == head.positive if head.task == "binary" else index).astype(np.float64)


def _refuse_missing(
    examples: batch.Batch, where: str, lengths: np.ndarray, head: Head | None = None
) -> None:
    remedy = " (`unknown_class` is for other labels, not for none)" if head and head.unknown else ""
    _refuse(
        examples, where, lengths == 0, lambda row: f"is missing; each example needs one{remedy}"
    )


def _check_lists(examples: batch.Batch, where: str, values: np.ndarray, head: Head) -> None:
    size = 1 if values.ndim == 1 else values.shape[1]
    if head.task in ("binary", "regression"):
        allowed = "one. Use another column, or set `task: multilabel`"
    elif size > 1 and head.classes in (None, size):
        return
    else:
        allowed = f"a list of {head.classes or 'several'}, one per class"
    raise errors.DataError(
        f"{examples.shard}: {where} holds {size} values per row; task {head.task} takes {allowed}"
    )


def _indices(examples: batch.Batch, where: str, values: np.ndarray) -> np.ndarray:
    """float64[N]: the class of one-hot rows, -1 for all zeros."""
    none = ~values.any(axis=1)
    fits = one_hot_rows(values) | none
    _check(examples, where, values, fits, "a class is one-hot: a single 1, all others 0")
    return np.where(none, -1.0, values.argmax(axis=1))


def _check(
    examples: batch.Batch, where: str, values: np.ndarray, fits: np.ndarray, allowed: str
) -> None:
    wrong = np.logical_not(fits if fits.ndim == 1 else fits.all(axis=1))
    _refuse(
        examples,
        where,
        wrong,
        lambda row: f"is {values[row].tolist()}; {allowed}",
    )


def _refuse(
    examples: batch.Batch, where: str, wrong: np.ndarray, problem: Callable[[int], str]
) -> None:
    rows = np.flatnonzero(wrong)
    if len(rows):
        more = f" ({len(rows)} such rows in this batch of {len(examples)})" * (len(rows) > 1)
        raise errors.DataError(f"{examples.name_row(rows[0])}: {where} {problem(rows[0])}{more}")


def one_hot_rows(values: np.ndarray) -> np.ndarray:
    """bool[N]: the rows of [N, K] with a single 1, all others 0."""
    return np.logical_and((values == 1).sum(axis=1) == 1, (values != 0).sum(axis=1) == 1)
