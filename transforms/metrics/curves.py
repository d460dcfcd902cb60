"""Metrics of the whole curve of thresholds, from TFMA's histogram of 10,000 score buckets.

TFMA reads a curve off the histogram at T interpolated thresholds, -1e-7, 1/(T-1), ..., 1+1e-7
(`binary_confusion_matrices._interpolated_thresholds`). Between two thresholds with no score in
between nothing changes, so only a slice's occupied buckets are kept: a slice of 20 examples costs
20 points, not 10,000, and the numbers are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from evalbeam.transforms import errors
from evalbeam.transforms.metrics import metric, statistics
from evalbeam.transforms.metrics.metric import HIGHER, NEITHER, Kind, ratio
from evalbeam.transforms.metrics.sheet import Sheet

_EPSILON = 1e-7
_DEFAULT_THRESHOLDS = 10_000
_PLOT_THRESHOLDS = 1_000


def _edges() -> np.ndarray:
    """Each bucket's lower edge, float64[10,002]; computed as TFMA does, division by division."""
    inner = np.arange(statistics.HISTOGRAM_BUCKETS) / statistics.HISTOGRAM_BUCKETS
    return np.concatenate([[-np.inf], inner, [np.inf]])


def interpolate(count: int) -> np.ndarray:
    """TFMA's and Keras's `count` thresholds."""
    inner = (np.arange(count - 2) + 1) * 1.0 / (count - 1)
    return np.concatenate([[-_EPSILON], inner, [1.0 + _EPSILON]])


def _rebin(thresholds: np.ndarray) -> np.ndarray:
    """For each bucket the last threshold whose decision it is still above, int64[10,002].

    A bucket is above a threshold when its lower edge is at least 1e-7 beyond it: a score right
    on a threshold is below it, as the strict comparison of the exact path has it.
    """
    shifted = np.where(thresholds == 0, thresholds, thresholds + _EPSILON)
    return np.searchsorted(shifted[1:], _edges(), side="right")


@dataclass(frozen=True)
class Curve:
    """Curves of some slices, padded to the same number of points.

    Point 0 is the lowest threshold (all predicted positive), the last one the highest (none).

    Attributes:
      rows: the slices, int64[G].
      tp, fp, fn, tn: float64[G, P].
      thresholds: float64[G, P], the largest threshold at which the point's counts hold.
    """

    rows: np.ndarray
    tp: np.ndarray
    fp: np.ndarray
    fn: np.ndarray
    tn: np.ndarray
    thresholds: np.ndarray


def curves(sheet: Sheet, statistic: statistics.Histogram, count: int) -> list[Curve]:
    """The curves of all slices that have examples, together where they have about as many points.

    All of a sheet at once: whoever makes sheets bounds the number of points of their curves.
    """
    return sheet.memo.once((statistic, count), lambda: list(_curves(sheet, statistic, count)))


def _curves(sheet: Sheet, statistic: statistics.Histogram, count: int) -> Iterator[Curve]:
    thresholds = interpolate(count)
    owner, cell, values = sheet.pairs(statistic)
    # TFMA sets the last threshold's positives to 0, so the last two bins go in one step.
    step = np.minimum(_rebin(thresholds)[cell // 2], count - 2)
    key = owner * count + step
    first = np.flatnonzero(np.diff(key, prepend=-1))
    if not len(first):
        return
    positive = np.add.reduceat(np.where(cell % 2 == 1, values, 0.0), first)
    negative = np.add.reduceat(np.where(cell % 2 == 0, values, 0.0), first)
    owner, step = owner[first], step[first]
    rows, start, length = np.unique(owner, return_index=True, return_counts=True)
    width = 1 << np.ceil(np.log2(length)).astype(np.int64)
    for points in np.unique(width):
        similar = np.flatnonzero(width == points)
        inside = np.arange(points) < length[similar, None]
        index = np.where(inside, start[similar, None] + np.arange(points), 0)
        pos = np.where(inside, positive[index], 0.0)
        neg = np.where(inside, negative[index], 0.0)
        last = np.where(inside, thresholds[step[index]], thresholds[-1])
        yield Curve(
            rows[similar],
            _sum_above(pos),
            _sum_above(neg),
            _sum_below(pos),
            _sum_below(neg),
            np.concatenate([last, np.full((len(similar), 1), thresholds[-1])], axis=1),
        )


def _sum_above(steps: np.ndarray) -> np.ndarray:
    sums = steps[:, ::-1].cumsum(axis=1)[:, ::-1]
    return np.concatenate([sums, np.zeros((len(steps), 1))], axis=1)


def _sum_below(steps: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros((len(steps), 1)), steps.cumsum(axis=1)], axis=1)


_HEIGHTS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "interpolation": lambda left, right: (left + right) / 2,
    "minoring": np.minimum,
    "majoring": np.maximum,
}


def _area(curve: Curve, which: str, method: str) -> np.ndarray:
    """The area under the ROC or PR curve, float64[G]; NaN without both classes.

    TFMA gives 0 for a slice of one class only, where the area is not defined.
    """
    tp, fp = curve.tp, curve.fp
    positives, negatives = tp[:, :1], fp[:, :1]
    if which == "PR" and method == "interpolation":
        return _interpolate_pr(tp, fp)
    recall = ratio(tp, np.broadcast_to(positives, tp.shape))
    if which == "ROC":
        x, y = ratio(fp, np.broadcast_to(negatives, fp.shape)), recall
    else:
        x = recall
        y = np.divide(tp, tp + fp, out=np.zeros(tp.shape), where=tp + fp != 0)
    pairs = y[:, :-1], y[:, 1:]
    return ((x[:, :-1] - x[:, 1:]) * _HEIGHTS[method](*pairs)).sum(axis=1)


def _interpolate_pr(tp: np.ndarray, fp: np.ndarray) -> np.ndarray:
    """Area under the PR curve after Davis & Goadrich (2006), as TFMA and Keras compute it."""
    predicted = tp + fp
    gained = tp[:, :-1] - tp[:, 1:]
    step = predicted[:, :-1] - predicted[:, 1:]
    after = predicted[:, 1:]
    slope = np.divide(gained, step, out=np.zeros(step.shape), where=step > 0)
    intercept = tp[:, 1:] - slope * after
    growth = np.divide(predicted[:, :-1], after, out=np.ones(after.shape), where=after != 0)
    area = np.where(step > 0, slope * (gained + intercept * np.log(growth)), 0.0).sum(axis=1)
    return ratio(area, tp[:, 0])


def _best(bound: np.ndarray, wanted: np.ndarray, feasible: np.ndarray) -> np.ndarray:
    """The largest wanted value at a feasible point; 0 where none is (TFMA), NaN if undefined."""
    undefined = np.isnan(bound).all(axis=1) | np.isnan(wanted).all(axis=1)
    best = np.where(feasible & ~np.isnan(wanted), wanted, -np.inf).max(axis=1)
    return np.where(undefined, np.nan, np.where(np.isneginf(best), 0.0, best))


def _rates(curve: Curve) -> dict[str, np.ndarray]:
    return {
        "recall": ratio(curve.tp, curve.tp + curve.fn),
        "precision": ratio(curve.tp, curve.tp + curve.fp),
        "specificity": ratio(curve.tn, curve.tn + curve.fp),
        "false_positive_rate": ratio(curve.fp, curve.fp + curve.tn),
        "threshold": curve.thresholds,
    }


def _metric_of_curves(
    request: metric.Request, value: Callable[[Curve], np.ndarray]
) -> tuple[metric.Metric, ...]:
    statistic = statistics.Histogram(request.target)
    count = request.config.get("num_thresholds", _DEFAULT_THRESHOLDS)

    def finish(sheet: Sheet) -> metric.Values:
        values = np.full(len(sheet), np.nan)
        for curve in curves(sheet, statistic, count):
            values[curve.rows] = value(curve)
        return metric.Values(values)

    return (metric.Metric(request.key(), (statistic,), finish),)


def _require_curve(request: metric.Request) -> None:
    """Raises NeedsTfma unless TFMA reads the curve off the histogram that we keep."""
    if request.target.top_k is not None:
        # The omitted scores become -inf, which TFMA keeps in a histogram of its own.
        raise metric.NeedsTfma(f"it has no kernel for top_k={request.target.top_k}")
    request.require_classes()
    count = request.config.get("num_thresholds", _DEFAULT_THRESHOLDS)
    if not isinstance(count, int) or count < 2:
        raise request.no_kernel_for("num_thresholds")


def _auc(request: metric.Request) -> tuple[metric.Metric, ...]:
    moved = request.with_class()
    _require_curve(moved)
    moved.require("num_thresholds", "curve", "summation_method")
    which = "PR" if request.class_name == "AUCPrecisionRecall" else moved.config.get("curve", "ROC")
    method = moved.config.get("summation_method", "interpolation")
    if str(which).upper() not in ("ROC", "PR"):
        raise moved.refuse("curve", "ROC or PR")
    if method not in _HEIGHTS:
        raise moved.refuse("summation_method", errors.listed(_HEIGHTS))
    return _metric_of_curves(moved, lambda curve: _area(curve, which.upper(), method))


def _one_versus_one(request: metric.Request) -> tuple[metric.Metric, ...]:
    """The mean area over all pairs of classes, each by its own score (Hand and Till 2001)."""
    request.require_task("multiclass")
    request.require_whole()
    request.require()
    statistic = statistics.ClassHistograms(request.target)
    classes = request.target.classes or 0
    if classes > _MOST_CLASSES:
        raise errors.ConfigError(
            f"metrics: {request.class_name} compares all pairs of classes, of which there may be "
            f"at most {_MOST_CLASSES} here, not {classes}; use AUC, each class against all others"
        )

    def finish(sheet: Sheet) -> metric.Values:
        values = np.full(len(sheet), np.nan)
        rows, areas = _areas_of_pairs(sheet, statistic, classes)
        values[rows], _ = metric.average(areas, np.ones(areas.shape[1]), request.zero_division)
        return metric.Values(values)

    return (metric.Metric(request.key(), (statistic,), finish),)


# The weights of each class in each bucket of each class are in memory together.
_MOST_CLASSES = 50


def _areas_of_pairs(
    sheet: Sheet, statistic: statistics.ClassHistograms, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """The slices with examples, int64[G], and the areas of their pairs, float64[G, K * (K - 1)]."""
    owner, cell, values = sheet.pairs(statistic)
    pair, bucket = np.divmod(cell, statistics.HISTOGRAM_BUCKETS + 2)
    scored, actual = np.divmod(pair, classes)
    # A line for each slice, class and bucket: the weights of all actual classes.
    line = (owner * classes + scored) * (statistics.HISTOGRAM_BUCKETS + 2) + bucket
    lines, place = np.unique(line, return_inverse=True)
    weights = np.zeros((len(lines), classes))
    np.add.at(weights, (place, actual), values)
    curve = lines // (statistics.HISTOGRAM_BUCKETS + 2)
    start = np.flatnonzero(np.diff(curve, prepend=-1))
    rows = np.unique(curve[start] // classes)
    if not len(start):
        return rows, np.zeros((0, classes * (classes - 1)))
    total = np.add.reduceat(weights, start, axis=0)
    reached = weights.cumsum(axis=0)
    before = (reached[start] - weights[start]).repeat(np.diff(start, append=len(lines)), axis=0)
    below = reached - weights / 2 - before
    own = curve % classes
    above = np.add.reduceat(weights[np.arange(len(lines)), own][:, None] * below, start, axis=0)
    mine = own[start]
    positives = total[np.arange(len(start)), mine]
    areas = ratio(above, positives[:, None] * total)
    others = np.arange(classes) != mine[:, None]
    return rows, areas[others].reshape(len(rows), classes * (classes - 1))


def _constrained(argument: str, bounded: str, wanted: str, direction: int = HIGHER) -> Kind:
    """The best of one rate where another keeps within the bound that an argument sets."""

    def build(request: metric.Request) -> tuple[metric.Metric, ...]:
        moved = request.with_class()
        _require_curve(moved)
        moved.require("num_thresholds", argument)
        bound = moved.config.get(argument)
        if not isinstance(bound, int | float) or not 0 <= bound <= 1:
            raise moved.no_kernel_for(argument)  # a list of bounds, or a mistake

        def value(curve: Curve) -> np.ndarray:
            rates = _rates(curve)
            limited = rates[bounded]
            feasible = limited <= bound if bounded == "false_positive_rate" else limited >= bound
            return _best(limited, rates[wanted], feasible)

        return _metric_of_curves(moved, value)

    return Kind(build, direction, tasks=metric.CLASSIFICATION)


def _confusion_plot(request: metric.Request) -> tuple[metric.Metric, ...]:
    """TFMA's ConfusionMatrixPlot: counts at -1e-6, 0, 1/n, ..., 1."""
    request.require("num_thresholds")
    _require_curve(request)
    statistic = statistics.Histogram(request.target)
    count = request.config.get("num_thresholds", _PLOT_THRESHOLDS)
    thresholds = np.concatenate([[-1e-6], np.arange(count + 1) * 1.0 / count])

    def finish(sheet: Sheet) -> metric.Confusions:
        bins = sheet.rebin(statistic, _rebin(thresholds), len(thresholds))
        above = bins[..., ::-1].cumsum(axis=-1)[..., ::-1]
        below = np.zeros(bins.shape)
        np.cumsum(bins[..., :-1], axis=-1, out=below[..., 1:])
        (fp, tp), (tn, fn) = above, below
        return metric.Confusions(tuple(thresholds.tolist()), tp, tn, fp, fn)

    return (metric.Metric(request.key(), (statistic,), finish, plot=True),)


METRICS: dict[str, Kind] = {
    "AUC": Kind(_auc, HIGHER, tasks=metric.CLASSIFICATION),
    "AUCPrecisionRecall": Kind(_auc, HIGHER, tasks=metric.CLASSIFICATION),
    "OneVersusOneAUC": Kind(_one_versus_one, HIGHER, tasks=("multiclass",)),
    "SensitivityAtSpecificity": _constrained("specificity", "specificity", "recall"),
    "SpecificityAtSensitivity": _constrained("sensitivity", "recall", "specificity"),
    "PrecisionAtRecall": _constrained("recall", "recall", "precision"),
    "RecallAtPrecision": _constrained("precision", "precision", "recall"),
    "RecallAtFalsePositiveRate": _constrained(
        "false_positive_rate", "false_positive_rate", "recall"
    ),
    "ThresholdAtRecall": _constrained("recall", "recall", "threshold", NEITHER),
    "ConfusionMatrixPlot": Kind(_confusion_plot, tasks=metric.CLASSIFICATION),
}
