"""What versions predict, as the scores that metrics take: their scale, and the checks on it."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa
from scipy import special

from evalbeam.transforms import errors
from evalbeam.transforms.batch import Seen
from evalbeam.transforms.examples import classes
from evalbeam.transforms.examples.labels import Head

Scale = Literal["", "probabilities", "logits", "percent", "as_is"]

# Scores this far outside [0, 1] are rounding, of float16 at worst.
_ROUNDING = 1e-3
# How far a row's sum may be from one: in all, and for each class, as 8-bit models round scores.
_SUM_ROUNDING, _SUM_ROUNDING_PER_CLASS = 0.02, 1 / 512


def look(scores: np.ndarray, given: np.ndarray, head: Head, *, listed: bool = False) -> Seen:
    """What is seen of finite scores, [N] or [N, K], of a classification output.

    `given`: the same before their conversion; `listed`: only the largest are known, so that a row
    may sum to less than one.
    """
    if not len(scores):
        return Seen()
    low, high = float(scores.min()), float(scores.max())
    outside = unnormalized = 0
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        outside = _count_rows((scores < -_ROUNDING) | (scores > 1 + _ROUNDING))
    if head.task == "multiclass" and scores.ndim == 2:
        bound = max(_SUM_ROUNDING, _SUM_ROUNDING_PER_CLASS * scores.shape[1])
        sums = scores.sum(axis=1, dtype=np.float64)
        unnormalized = int(((sums > 1 + bound) | ((sums < 1 - bound) & (not listed))).sum())
    graded = _count_rows((scores != 0) & (scores != 1))
    bounds = (low, high) if scores is given else (float(given.min()), float(given.max()))
    return Seen(len(scores), low, high, outside, unnormalized, graded, *bounds)


def convert(
    predictions: np.ndarray, head: Head, scale: Scale
) -> tuple[np.ndarray, dict[int, str], Seen | None]:
    """A version's predictions as the head's metrics take them, on the scale of probabilities.

    Logits go through sigmoid or, if exactly one of several classes is right, softmax; names of
    classes become 0 and 1. Of the two scores of a binary output, the positive class's is kept; the
    single score of two classes becomes two. A class without a score has one that is never the
    largest.

    Returns:
      The scores, float32 or float64, [N], or [N, classes] for multiclass and multilabel; why rows
      have none, by row; and what was seen, of classification outputs.

    Raises:
      DataError: the shape does not match the task.
    """
    if head.task == "regression":
        _check_shape(predictions, head)
        return predictions, _find_undefined(predictions), None
    if _are_decisions(predictions, head):
        if scale not in ("", "as_is"):
            raise errors.DataError(
                f"its predictions are classes, such as {_example(predictions)!r}, and no scores: "
                f"remove `scores: {scale}`, or store numbers as numbers"
            )
        return *_one_hot(predictions, head), None
    if lists := predictions.dtype.names:
        if scale == "logits":
            raise errors.DataError(
                "its predictions are lists of the largest scores, which must be probabilities: the "
                "softmax of logits needs those of all classes"
            )
        predictions, is_listed, unlisted = _spread(predictions, head)
    _check_shape(predictions, head)
    given = predictions
    if scale == "logits":
        several = predictions.ndim == 2 and head.task != "multilabel"
        logits = predictions.astype(np.float64)
        predictions = _softmax(logits) if several else special.expit(logits)
    elif scale == "percent":
        predictions = predictions / 100.0
    undefined = _find_undefined(predictions)
    if lists:
        undefined |= unlisted
    if undefined:
        kept = np.delete(np.arange(len(predictions)), list(undefined))
        seen = look(predictions[kept], given[kept], head, listed=bool(lists))
    else:
        seen = look(predictions, given, head, listed=bool(lists))
    if lists:
        predictions = np.where(is_listed, predictions, _below(predictions))
    return _shape(predictions, head), undefined, seen


def judge(head: Head, scale: Scale, seen: Seen, *, by_scale: bool) -> tuple[str, str]:
    """What is wrong with a version's scores, and what is worth a note; "" if nothing is.

    Args:
      head: the output.
      scale: what the config says of them.
      seen: what was seen of them.
      by_scale: whether some metric depends on more than which of a row's scores is the largest.
    """
    if not seen.rows or scale == "as_is":
        if seen.outside or seen.unnormalized:
            return "", f"{_describe(seen)}; they are taken as they are (`scores: as_is`)"
        return "", ""
    problem = _describe(seen)
    # A single score of two classes says which one by its place in [0, 1].
    by_scale = by_scale or head.scored_classes == 2
    if problem and by_scale and (seen.outside or scale != "logits"):
        return f"{problem}. {_advise(head, scale, seen)}", ""
    if problem:
        remedy = (
            "" if scale else "; `scores: logits` puts them through softmax" * bool(seen.outside)
        )
        return (
            "",
            f"{problem}; the metrics depend only on which class has the largest score{remedy}",
        )
    if seen.low == seen.high and _is_name(seen.low, head):
        return f"all {seen.rows:,} scores are {seen.low:g}. {_STORE_AS_TEXT}", ""
    if scale in ("logits", "percent") and seen.given_low >= 0 and seen.given_high <= 1:
        return "", (
            f"all {seen.rows:,} scores lie in [0, 1] before `scores: {scale}` is applied: they may "
            "be probabilities already"
        )
    if seen.low == seen.high:
        return "", f"all {seen.rows:,} scores are {seen.low:g}"
    if not seen.graded and head.task != "multilabel":
        return "", (
            f"all {seen.rows:,} scores are 0 or 1: decisions rather than probabilities. Metrics "
            "that compare scores, such as AUC and losses, say little about them"
        )
    return "", ""


def _describe(seen: Seen) -> str:
    """What is unusual about scores as probabilities; "" if nothing is."""
    if seen.outside:
        return (
            f"{seen.outside:,} of {seen.rows:,} rows ({_percent(seen.outside, seen.rows)}) have "
            f"scores outside [0, 1], from {seen.low:.4g} to {seen.high:.4g}"
        )
    if seen.unnormalized:
        return (
            f"the scores of {seen.unnormalized:,} of {seen.rows:,} rows "
            f"({_percent(seen.unnormalized, seen.rows)}) do not sum to one"
        )
    return ""


def _advise(head: Head, scale: Scale, seen: Seen) -> str:
    function = "softmax" if head.task == "multiclass" else "sigmoid"
    if scale in ("logits", "percent"):
        return f"These are not {scale}: remove or correct `scores: {scale}` of this version"
    percent = seen.outside and seen.low >= 0 and seen.high <= 100
    advice = "Metrics assume probabilities. Write for this version "
    if percent:
        advice += "`scores: percent` to divide them by 100, "
    elif seen.outside:
        advice += f"`scores: logits` to put them through {function}, "
    advice += "`scores: as_is` to take them as they are"
    if _is_name(seen.low, head) and _is_name(seen.high, head):
        advice += f". {_STORE_AS_TEXT}"
    elif head.task == "binary" and not percent:
        advice += "; or `task: regression` if the label is a quantity"
    return advice


_STORE_AS_TEXT = "If they are the classes themselves, store them as text"


def _is_name(score: float, head: Head) -> bool:
    """Whether a score may be the name of one of two classes, which is not its index."""
    return len(head.names) == 2 and head.names != ("0", "1") and f"{score:g}" in head.names


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if part / whole >= 0.001 else "under 0.1%"


def _are_decisions(predictions: np.ndarray, head: Head) -> bool:
    """Whether predictions are classes: names, or one number where there are several classes."""
    if predictions.dtype == object:
        return True
    several = head.task == "multiclass" and (head.scored_classes or 0) > 2
    return several and predictions.ndim == 1 and predictions.dtype.names is None


def _one_hot(predictions: np.ndarray, head: Head) -> tuple[np.ndarray, dict[int, str]]:
    """1 for each row's predicted class and 0 for others; float64."""
    if predictions.ndim > 1 or head.task == "multilabel" or not (head.names or head.classes):
        raise errors.DataError(
            f"predictions are names of classes, such as {_example(predictions)!r}; "
            f"task {head.task} needs scores"
        )
    values = pa.array(predictions.tolist())
    names = _names_of(values, head)
    index = classes.indices(values, names)
    unknown = {
        int(row): (
            f"the prediction {classes.text(values[int(row)].as_py())!r} is none of the classes "
            f"{classes.describe(names)}"
        )
        for row in np.flatnonzero(index < 0)
    }
    if head.task == "binary":
        return (index == head.positive).astype(np.float64), unknown
    return (index[:, None] == np.arange(head.classes or 0)).astype(np.float64), unknown


def _spread(predictions: np.ndarray, head: Head) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """The scores of all classes, of which rows list the largest.

    Returns:
      The scores, float64[N, classes], 0 for others; which are listed; why rows have none, by row.
    """
    if head.task not in ("multiclass", "multilabel"):
        raise errors.DataError(
            f"its predictions are lists of classes and scores; task {head.task} takes one score"
        )
    listed = predictions["classes"]
    rows, places = np.nonzero(listed != None)  # noqa: E711  # by element
    values = pa.array(listed[rows, places].tolist())
    names = _names_of(values, head)
    index = classes.indices(values, names)
    known = index >= 0
    times = np.zeros((len(predictions), head.scored_classes or 0), np.int64)
    np.add.at(times, (rows[known], index[known]), 1)
    result = np.zeros(times.shape)
    result[rows[known], index[known]] = predictions["scores"][rows, places][known]
    wrong = {
        int(row): f"the class {names[times[row].argmax()]!r} is listed several times"
        for row in np.flatnonzero((times > 1).any(axis=1))
    }
    return (
        result,
        times > 0,
        wrong
        | {
            int(rows[at]): f"{classes.text(values[int(at)].as_py())!r} is none of the classes "
            f"{classes.describe(names)}"
            for at in np.flatnonzero(~known)[::-1]
        },
    )


def _below(scores: np.ndarray) -> np.ndarray:
    """float64[N, 1]: what a class without a score has; 0 beside probabilities."""
    return np.where((scores < 0).any(axis=1, keepdims=True), -np.inf, 0.0)


def _names_of(values: pa.Array, head: Head) -> tuple[str, ...]:
    """The names that values have among the head's classes: their own, or indices."""
    if head.names and classes.names_by_value(values.type, head.names):
        return head.names
    return tuple(map(str, range(head.classes or 0)))


def _example(predictions: np.ndarray) -> str:
    return classes.text(predictions.reshape(-1)[0])


def _check_shape(predictions: np.ndarray, head: Head) -> None:
    shape = predictions.shape
    description = (
        f"output {head.output!r}" if head.output else "its output"
    ) + f" has the shape {'[N]' if len(shape) == 1 else f'[N, {shape[1]}]'}"
    if head.task == "regression" and len(shape) == 2:
        raise errors.DataError(f"{description}; task regression needs one prediction per example")
    if head.task == "binary" and len(shape) == 2 and shape[1] != 2:
        raise errors.DataError(
            f"{description}; task binary needs one prediction per example, [N], or one for each of "
            "the two classes, [N, 2]"
        )
    if head.task in ("multiclass", "multilabel"):
        count = head.scored_classes
        if len(shape) == 1 and not (head.task == "multiclass" and count == 2):
            width: int | None = 1
        else:
            width = 2 if len(shape) == 1 else shape[1]
        if count not in (None, width) or (count is None and width == 1):
            raise errors.DataError(
                f"{description}; task {head.task} needs one prediction per class, "
                f"[N, {count or 'K'}]"
            )


def _find_undefined(predictions: np.ndarray) -> dict[int, str]:
    """Why rows have no score: it is NaN or infinite."""
    wrong = ~np.isfinite(predictions)
    if not wrong.any():
        return {}
    rows = np.flatnonzero(wrong if wrong.ndim == 1 else wrong.any(axis=1))
    nan = np.isnan(predictions).reshape(len(predictions), -1).any(axis=1)
    return {int(row): f"the prediction is {'NaN' if nan[row] else 'infinite'}" for row in rows}


def _softmax(logits: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # a row of NaN, which has no score
        return special.softmax(logits, axis=1)


def _shape(scores: np.ndarray, head: Head) -> np.ndarray:
    if head.task == "binary":
        return scores[:, head.positive] if scores.ndim == 2 else scores
    if scores.ndim == 1:
        scores = np.stack([1 - scores, scores], axis=1)
    if head.unknown:
        scores = np.concatenate([scores, _below(scores).astype(scores.dtype)], axis=1)
    return scores


def _count_rows(marked: np.ndarray) -> int:
    return int((marked if marked.ndim == 1 else marked.any(axis=1)).sum())
