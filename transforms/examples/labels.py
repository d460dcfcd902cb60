"""Labels and weights as the metrics take them, and the task that labels imply."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from evalbeam.transforms import arrow, batch, errors

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
    """

    output: str
    column: str
    task: Task
    classes: int | None = None


@dataclass(frozen=True)
class Inferred:
    """A task inferred from the data, and the reason in one sentence."""

    task: Task
    classes: int | None
    reason: str


def labels(examples: batch.Batch, head: Head) -> np.ndarray:
    """The head's labels: float64[N], or float64[N, classes] for multilabel.

    Binary and multilabel labels are in [0, 1]; fractions are allowed. A multiclass label is a
    class index, or -1 for no class; one-hot lists become indices, all zeros -1.

    Raises:
      DataError: a label is missing, not numeric or invalid for the task; names file, row and value.
    """
    values = raw(examples, head.column)
    where = f"label column {head.column!r}"
    if values.ndim == 2 or head.task == "multilabel":
        _check_lists(examples, where, values, head)
    if head.task == "multiclass" and values.ndim == 2:
        return _indices(examples, where, values)
    if head.task == "multiclass":
        top = np.inf if head.classes is None else head.classes - 1
        allowed = "integers from -1 (no class)" + (
            "" if head.classes is None else f" to {head.classes - 1}"
        )
        fits = (values == np.floor(values)) & (values >= -1) & (values <= top)
        _check(examples, where, values, fits, f"class indices are {allowed}")
    elif head.task != "regression":
        fits = (values >= -TOLERANCE) & (values <= 1 + TOLERANCE)
        _check(examples, where, values, fits, f"{head.task} labels are in [0, 1]")
    return values


def weights(examples: batch.Batch, column: str) -> np.ndarray:
    """The examples' weights, float64[N], none negative.

    Raises:
      DataError: a weight is missing, not a number or negative; names file, row and value.
    """
    where = f"weight column {column!r}"
    values = _numbers(examples, column, where)
    if values.ndim == 2:
        raise errors.DataError(
            f"{examples.shard}: {where} holds {values.shape[1]} values per row; a weight is a "
            "single value"
        )
    _check(examples, where, values, values >= 0, "weights must not be negative")
    return values


def raw(examples: batch.Batch, column: str) -> np.ndarray:
    """A label column as finite numbers, float64[N] or float64[N, K], for any task.

    Raises:
      DataError: a label is missing or not a number, or lists have different lengths.
    """
    return _numbers(examples, column, f"label column {column!r}")


def infer_task(labels: np.ndarray, predictions: np.ndarray) -> Inferred:
    """The task that labels ([N] or [N, K], see `raw`) and predictions ([N] or [N, K]) imply.

    Raises:
      ConfigError: the shapes fit no task.
    """
    if predictions.ndim == 1 and labels.ndim == 1:
        # NaN predictions count as inside [0, 1]: they become dead letters and imply nothing.
        if not (_outside(labels) or _outside(predictions)):
            return Inferred(
                "binary",
                None,
                "binary: one prediction per example; labels and predictions are in [0, 1]",
            )
        what = "labels" if _outside(labels) else "predictions"
        return Inferred(
            "regression",
            None,
            f"regression: one prediction per example; some {what} are outside [0, 1]",
        )
    if predictions.ndim == 2 and labels.ndim == 1:
        classes = predictions.shape[1]
        return Inferred(
            "multiclass",
            classes,
            f"multiclass: {classes} predictions per example; the label is a class index",
        )
    if predictions.shape[1:] == labels.shape[1:]:
        classes = predictions.shape[1]
        if _one_hot(labels).all():
            return Inferred(
                "multiclass", classes, f"multiclass: labels are one-hot lists of {classes} values"
            )
        return Inferred(
            "multilabel",
            classes,
            f"multilabel: labels are lists of {classes} values, not all one-hot",
        )
    raise errors.ConfigError(
        f"Labels of shape {_shape(labels)} and predictions of shape {_shape(predictions)} fit no "
        "task: a label is one value, or a list of one value per prediction"
    )


def _numbers(examples: batch.Batch, column: str, where: str) -> np.ndarray:
    names = examples.columns.schema.names
    if column not in names:
        hint = errors.did_you_mean(column, names)
        raise errors.DataError(
            f"{examples.shard}: no row has the {where} (columns: {', '.join(sorted(names))}).{hint}"
        )
    values, lengths = arrow.flatten(examples.columns.column(column))
    _refuse(examples, where, lengths == 0, lambda row: "is missing; each example needs one")
    if not arrow.is_number(values.type):
        raise errors.DataError(
            f"{examples.shard}: {where} holds {values.type}, such as {values[0].as_py()!r}; it "
            "must be numeric. Encode it as numbers (class names as indices from 0)"
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
    fits = _one_hot(values) | none
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
        lambda row: f"is {values[row].tolist()}; {allowed}. Fix the data or `task`",
    )


def _refuse(
    examples: batch.Batch, where: str, wrong: np.ndarray, problem: Callable[[int], str]
) -> None:
    rows = np.flatnonzero(wrong)
    if len(rows):
        more = f" ({len(rows)} such rows in this batch of {len(examples)})" * (len(rows) > 1)
        raise errors.DataError(
            f"{examples.shard} row {examples.positions[rows[0]]}: {where} {problem(rows[0])}{more}"
        )


def _outside(values: np.ndarray) -> bool:
    return bool(((values < -TOLERANCE) | (values > 1 + TOLERANCE)).any())


def _one_hot(values: np.ndarray) -> np.ndarray:
    return np.logical_and((values == 1).sum(axis=1) == 1, (values != 0).sum(axis=1) == 1)


def _shape(values: np.ndarray) -> str:
    return f"[{', '.join(['N', *map(str, values.shape[1:])])}]"
