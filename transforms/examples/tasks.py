"""What an output is evaluated as: the task and the classes that labels and predictions imply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from evalbeam.transforms import arrow, errors
from evalbeam.transforms.examples import classes, labels
from evalbeam.transforms.examples.labels import Head, Task

# A task is inferred from at least this share of the values; the others are reported as damage.
_BULK = 0.9
# If so many labels are 0 and 1, and predictions are probabilities, the others are a mistake.
_MOST = 0.5


@dataclass(frozen=True)
class Wanted:
    """What the config says of an output.

    Attributes:
      task: its task, if given.
      classes: the names of its classes, in the order of scores; () if not given.
      positive: the name of a binary task's positive class; "" for the last one.
      unknown: the name of the class of all labels that are not among `classes`; "" to refuse them.
      version: the version whose own classes these are; "" for those of the config.
    """

    task: Task | None = None
    classes: tuple[str, ...] = ()
    positive: str = ""
    unknown: str = ""
    version: str = ""


@dataclass(frozen=True)
class Truth:
    """Labels of first examples.

    Attributes:
      values: the values of all rows, one after the other.
      lengths: int64[N], the number of values of each row.
    """

    values: pa.Array
    lengths: np.ndarray

    @property
    def width(self) -> int:
        """The usual number of values of a row that has a label."""
        return int(np.bincount(self.lengths[self.lengths > 0], minlength=2).argmax())


@dataclass(frozen=True)
class Inferred:
    """An output's head, and how it came about.

    Attributes:
      head: the head; its names are those of first examples if `is_open`.
      wanted: what the config says of the output.
      reason: why it has this task, as a sentence; "" if the config says it.
      is_open: whether the classes have yet to be found, in all the data.
    """

    head: Head
    wanted: Wanted
    reason: str = ""
    is_open: bool = False


def infer(
    output: str, column: str, truth: Truth, predictions: np.ndarray, wanted: Wanted
) -> Inferred:
    """The head that first labels and a version's predictions imply.

    Args:
      output: the output; "" if there is only one.
      column: the label column.
      truth: the labels.
      predictions: the output of a version: numbers, [N] or [N, K], or names of classes, object[N].
      wanted: what the config says of the output.

    Raises:
      ConfigError: labels and predictions fit no task, or not the one that the config demands.
    """
    if wanted.task == "regression":
        return Inferred(Head(output, column, "regression"), wanted)
    names, is_open = wanted.classes, False
    if not names and _is_code(truth, predictions, wanted):
        names, is_open = _name(truth, predictions, wanted), True
    if not names:
        task, reason = _infer_from_numbers(truth, predictions)
        task, reason = (wanted.task, "") if wanted.task else (task, reason)
        size = predictions.shape[1] if predictions.ndim > 1 else None
        count = size if task in ("multiclass", "multilabel") else None
        return Inferred(Head(output, column, task, count), wanted, reason)
    decided = _are_names(predictions)
    width = predictions.shape[1] if predictions.ndim > 1 else 1
    task, reason = _infer_from_names(names, is_open, truth, width, decided, wanted)
    count = None
    if task != "binary":
        scored = len(names) if decided or width == 1 else width
        count = scored + bool(wanted.unknown)
    head = Head(output, column, task, count, names, unknown=bool(wanted.unknown))
    if not is_open:
        head = complete(head, names, wanted)
    return Inferred(head, wanted, reason, is_open)


def complete(head: Head, names: Sequence[str], wanted: Wanted) -> Head:
    """The head with all of its classes' names, in the order of scores.

    Raises:
      ConfigError: there are too many or too few of them for the task or the scores.
    """
    where = f"label column {head.column!r}"
    if len(names) > classes.MOST:
        raise errors.ConfigError(
            f"{where} has more than {classes.MOST:,} distinct values, such as "
            f"{classes.describe(names[:3])}: these are no classes. Set `task: regression`, or "
            "another label column"
        )
    names = tuple(names)
    listed = classes.describe(names)
    if head.task == "binary":
        if len(names) != 2:
            raise errors.ConfigError(
                f"{where} has {len(names)} classes, {listed}; a binary task has two. List them in "
                "`data.classes`, or set `task: multiclass`"
            )
        if wanted.positive and wanted.positive not in names:
            raise errors.ConfigError(
                f"data.positive is {wanted.positive!r}, but the classes of {where} are {listed}"
            )
        positive = names.index(wanted.positive) if wanted.positive else 1
        return Head(head.output, head.column, "binary", None, names, positive)
    if wanted.positive:
        raise errors.ConfigError(
            f"data.positive is {wanted.positive!r}, but {head.task} tasks have no positive class: "
            "remove it"
        )
    scored = head.scored_classes
    if scored not in (None, len(names)):
        raise errors.ConfigError(
            f"{where} has {len(names)} classes, {listed}, but there are {scored} scores per "
            "example. List all classes in `data.classes`, in the order of the scores"
        )
    if wanted.unknown:
        if wanted.unknown in names:
            raise errors.ConfigError(
                f"data.unknown_class is {wanted.unknown!r}, which is one of the classes {listed}"
            )
        names = (*names, wanted.unknown)
    return Head(
        head.output, head.column, head.task, len(names), names, unknown=bool(wanted.unknown)
    )


def _is_code(truth: Truth, predictions: np.ndarray, wanted: Wanted) -> bool:
    """Whether labels stand for classes in another way than 0/1, indices or one-hot lists do."""
    if arrow.is_text(truth.values.type) or _are_names(predictions) or wanted.positive:
        return True
    if not arrow.is_number(truth.values.type) or truth.width != 1:
        return False
    values = truth.values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    distinct = np.unique(values[np.isfinite(values)])
    whole = bool((distinct == np.floor(distinct)).all()) and len(distinct) > 0
    if predictions.ndim == 1:
        if wanted.task == "multiclass" and whole:
            return not _are_shares(predictions)  # decisions, as numbers
        return (
            len(distinct) == 2
            and _outside_share(values, 0, 1) > 1 - _BULK
            and (
                wanted.task == "binary"
                or _outside_share(predictions, 0, 1) < 1 - _BULK
                or distinct.tolist() == [-1, 1]
            )
        )
    width = predictions.shape[1]
    if not whole or len(distinct) > width or truth.values.type == pa.bool_():
        return False
    if width == 2 and distinct.tolist() == [-1, 1]:
        return True
    # Labels 1 to K, or others that are no indices.
    return (distinct[0] >= 1 and distinct[-1] == width) or (
        _outside_share(values, -1, width - 1) > 1 - _BULK
    )


def _name(truth: Truth, predictions: np.ndarray, wanted: Wanted) -> tuple[str, ...]:
    """The classes of first examples, by name; numbers 0 and 1 where only those were seen."""
    texts = {text for text in classes.texts(truth.values).to_pylist() if text is not None}
    if predictions.dtype == object:
        texts.update(classes.texts(pa.array(predictions.tolist())).to_pylist())
    elif predictions.dtype.names:
        listed = [each for each in predictions["classes"].reshape(-1) if each is not None]
        texts.update(classes.texts(pa.array(listed)).to_pylist())
    elif predictions.ndim == 1 and wanted.task == "multiclass":
        texts.update(classes.texts(pa.array(np.unique(predictions))).to_pylist())
    return classes.sort(texts)


def _infer_from_names(
    names: Sequence[str],
    is_open: bool,
    truth: Truth,
    width: int,
    decided: bool,
    wanted: Wanted,
) -> tuple[Task, str]:
    """The task of named classes, and why."""
    count = len(names) + bool(wanted.unknown)
    if wanted.task is not None:
        return wanted.task, ""
    by_value = classes.names_by_value(truth.values.type, names)
    if (truth.lengths > 1).any():  # Empty lists alone may be missing labels.
        if by_value:
            return "multilabel", "labels are lists of classes"
        numbers = truth.values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        if len(numbers) == len(truth.lengths) * width and is_one_hot(numbers.reshape(-1, width)):
            return "multiclass", f"labels are one-hot lists of {width} values"
        return "multilabel", f"labels are lists of {width} values, not all one-hot"
    if decided:
        task: Task = "binary" if count == 2 else "multiclass"
        return task, f"labels and predictions are names of {count} classes"
    if width <= 2 and (count == 2 or (is_open and count < 2)):
        each = "one prediction" if width == 1 else "two predictions, one per class,"
        return "binary", f"labels are two classes; {each} per example"
    if width == 1:
        raise errors.ConfigError(
            f"the labels are {count} classes, {classes.describe(names)}, but there is one "
            "prediction per example; a multiclass task needs one score per class. If it is the "
            "score of one class against all others, make the label binary"
        )
    return "multiclass", f"labels are classes; {width} predictions per example"


def _infer_from_numbers(truth: Truth, predictions: np.ndarray) -> tuple[Task, str]:
    """The task of labels that are numbers, and why.

    Raises:
      ConfigError: the shapes fit no task.
    """
    width = truth.width
    values = truth.values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    if predictions.ndim == 1 and width == 1:
        return _infer_from_scores(values, predictions)
    if predictions.ndim == 2 and width == 1:
        count = predictions.shape[1]
        if count == 2 and _share_of_bits(values) >= _BULK:
            return "binary", "labels are 0 and 1; two predictions, one per class, per example"
        return "multiclass", f"{count} predictions per example; the label is a class index"
    if predictions.shape[1:] == (width,):
        regular = truth.lengths == width
        rows = values[np.repeat(regular, truth.lengths)].reshape(-1, width)
        if is_one_hot(rows):
            return "multiclass", f"labels are one-hot lists of {width} values"
        return "multilabel", f"labels are lists of {width} values, not all one-hot"
    of_labels = "[N]" if width == 1 else f"[N, {width}]"
    of_predictions = ", ".join(["N", *map(str, predictions.shape[1:])])
    raise errors.ConfigError(
        f"Labels of shape {of_labels} and predictions of shape [{of_predictions}] fit no task: a "
        "label is one value, or a list of one value per prediction"
    )


def _infer_from_scores(values: np.ndarray, predictions: np.ndarray) -> tuple[Task, str]:
    """The task of one label and one prediction per example, by what most of them are."""
    if _share_of_bits(values) >= _BULK and (values == 1).any():
        return "binary", "one prediction per example; labels are 0 and 1"
    inside = [1 - _outside_share(each, 0, 1) for each in (values, predictions)]
    if min(inside) >= _BULK:
        return "binary", "one prediction per example; labels and predictions are in [0, 1]"
    others = values[np.isfinite(values) & (values != 0) & (values != 1)]
    if inside[1] >= _BULK and _share_of_bits(values) >= _MOST and (others % 1 == 0).all():
        raise errors.ConfigError(
            f"the labels are 0 and 1, but {len(others)} of {len(values)} are others, such as "
            f"{others[0]:g}: remove these rows if they are not labelled, set `task: regression` if "
            "labels are quantities, or list their classes in `data.classes`"
        )
    what = "labels" if inside[0] < _BULK else "predictions"
    reason = f"one prediction per example; {what} are not in [0, 1]"
    whole = [bool((v[np.isfinite(v)] % 1 == 0).all()) for v in (values, predictions)]
    if all(whole):
        reason += ". If these whole numbers are classes, set `task: multiclass`"
    return "regression", reason


def is_one_hot(values: np.ndarray) -> bool:
    """Whether all rows of [N, K] have a single 1, all others 0."""
    return bool(labels.one_hot_rows(values).all())


def _are_names(predictions: np.ndarray) -> bool:
    """Whether predictions name classes: one per example, or lists of the largest scores."""
    return predictions.dtype == object or predictions.dtype.names is not None


def _are_shares(predictions: np.ndarray) -> bool:
    """Whether predictions are scores rather than whole numbers."""
    finite = predictions[np.isfinite(predictions)]
    return bool((finite % 1 != 0).any())


def _share_of_bits(values: np.ndarray) -> float:
    """The share of finite values that are 0 or 1."""
    finite = values[np.isfinite(values)]
    return float(np.isin(finite, (0, 1)).mean()) if len(finite) else 1.0


def _outside_share(values: np.ndarray, low: float, high: float) -> float:
    """The share of values outside [low, high]; NaN implies nothing, infinite is outside."""
    given = values[~np.isnan(values)]
    outside = (given < low - labels.TOLERANCE) | (given > high + labels.TOLERANCE)
    return float(outside.mean()) if len(given) else 0.0
