"""Metrics of a binary confusion matrix, at thresholds or for each class of a multi-class output.

Definitions: https://en.wikipedia.org/wiki/Confusion_matrix, with TFMA's class names. A quotient
without a denominator is NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from evalbeam.transforms.metrics import metric, statistics
from evalbeam.transforms.metrics.metric import ratio

Counts = np.ndarray
Formula = Callable[[Counts, Counts, Counts, Counts], Counts]


def _root(values: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(values, 0.0))


def _mcc(tp: Counts, tn: Counts, fp: Counts, fn: Counts) -> Counts:
    # Roots first: the product of four counts of 10^5 no longer fits into 53 bits.
    scale = _root(tp + fp) * _root(tp + fn) * _root(tn + fp) * _root(tn + fn)
    return ratio(tp * tn - fp * fn, scale)


def _prevalence_threshold(tp: Counts, tn: Counts, fp: Counts, fn: Counts) -> Counts:
    tpr, tnr = ratio(tp, tp + fn), ratio(tn, tn + fp)
    informedness = tpr + tnr - 1
    return np.divide(
        _root(tpr * (1 - tnr)) + tnr - 1,
        informedness,
        out=np.full(informedness.shape, np.nan),
        where=informedness != 0,
    )


FORMULAS: dict[str, Formula] = {
    "TruePositives": lambda tp, tn, fp, fn: tp,
    "TrueNegatives": lambda tp, tn, fp, fn: tn,
    "FalsePositives": lambda tp, tn, fp, fn: fp,
    "FalseNegatives": lambda tp, tn, fp, fn: fn,
    "BinaryAccuracy": lambda tp, tn, fp, fn: ratio(tp + tn, tp + tn + fp + fn),
    "Precision": lambda tp, tn, fp, fn: ratio(tp, tp + fp),
    "Recall": lambda tp, tn, fp, fn: ratio(tp, tp + fn),
    "Specificity": lambda tp, tn, fp, fn: ratio(tn, tn + fp),
    "FallOut": lambda tp, tn, fp, fn: ratio(fp, fp + tn),
    "MissRate": lambda tp, tn, fp, fn: ratio(fn, fn + tp),
    "NegativePredictiveValue": lambda tp, tn, fp, fn: ratio(tn, tn + fn),
    "FalseDiscoveryRate": lambda tp, tn, fp, fn: ratio(fp, fp + tp),
    "FalseOmissionRate": lambda tp, tn, fp, fn: ratio(fn, fn + tn),
    "Prevalence": lambda tp, tn, fp, fn: ratio(tp + fn, tp + tn + fp + fn),
    "PredictedPositiveRate": lambda tp, tn, fp, fn: ratio(tp + fp, tp + tn + fp + fn),
    "PrevalenceThreshold": _prevalence_threshold,
    "ThreatScore": lambda tp, tn, fp, fn: ratio(tp, tp + fn + fp),
    "BalancedAccuracy": lambda tp, tn, fp, fn: (ratio(tp, tp + fn) + ratio(tn, tn + fp)) / 2,
    "F1Score": lambda tp, tn, fp, fn: ratio(2 * tp, 2 * tp + fp + fn),
    "MatthewsCorrelationCoefficient": _mcc,
    "FowlkesMallowsIndex": lambda tp, tn, fp, fn: _root(ratio(tp, tp + fp) * ratio(tp, tp + fn)),
    "Informedness": lambda tp, tn, fp, fn: ratio(tp, tp + fn) + ratio(tn, tn + fp) - 1,
    "Markedness": lambda tp, tn, fp, fn: ratio(tp, tp + fp) + ratio(tn, tn + fn) - 1,
    "PositiveLikelihoodRatio": lambda tp, tn, fp, fn: ratio(ratio(tp, tp + fn), ratio(fp, fp + tn)),
    "NegativeLikelihoodRatio": lambda tp, tn, fp, fn: ratio(ratio(fn, fn + tp), ratio(tn, tn + fp)),
    "DiagnosticOddsRatio": lambda tp, tn, fp, fn: ratio(ratio(tp, fn), ratio(fp, tn)),
}

_ALIASES = {
    "TP": "TruePositives",
    "TN": "TrueNegatives",
    "FP": "FalsePositives",
    "FN": "FalseNegatives",
    "PPV": "Precision",
    "TPR": "Recall",
    "TNR": "Specificity",
    "FPR": "FallOut",
    "FNR": "MissRate",
    "NPV": "NegativePredictiveValue",
}
FORMULAS |= {alias: FORMULAS[name] for alias, name in _ALIASES.items()}

# TFMA's MaxRecall is recall at this threshold.
_MAX_RECALL_THRESHOLD = 1e-12


def at_thresholds(
    sheet: statistics.Sheet, statistic: statistics.Confusion
) -> tuple[Counts, Counts, Counts, Counts]:
    """TP, TN, FP, FN at each of the statistic's thresholds, each float64[slices, T]."""
    bins = sheet.total(statistic).reshape(len(sheet), statistic.cells // 2, 2)
    below = bins.cumsum(axis=1)[:, :-1]
    above = bins[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
    return above[..., 1], below[..., 0], above[..., 0], below[..., 1]


def _statistic(
    request: metric.Request, thresholds: list[float]
) -> tuple[statistics.Confusion, list[int]]:
    """The statistic at the sorted thresholds, and where each configured one stands in it."""
    ascending = sorted(set(thresholds))
    places = [ascending.index(threshold) for threshold in thresholds]
    return statistics.Confusion(request.target, tuple(ascending)), places


def _argument(class_name: str) -> str:
    """What TFMA calls the class's thresholds."""
    return "threshold" if class_name == "BinaryAccuracy" else "thresholds"


def _thresholds(request: metric.Request) -> list[float] | None:
    """The metric's thresholds; None where TFMA would read them from its histogram."""
    given = request.config.get(_argument(request.class_name))
    if request.class_name == "MaxRecall":
        given = [_MAX_RECALL_THRESHOLD]
    if given is None or given == []:
        # In the top k is what is above -inf: the other scores become -inf.
        return [-np.inf] if request.target.top_k is not None else [0.5]
    values = [float(t) for t in (given if isinstance(given, list | tuple) else [given])]
    return None if len(values) == 1 and values[0] < 0 else values


def _ratio_metric(request: metric.Request) -> tuple[metric.Metric, ...] | None:
    if request.by_class and request.accepts() and request.class_name in FORMULAS:
        return _by_class(request)
    if request.target.task == "regression":
        return None  # TFMA checks that the labels lie in [0, 1]
    if not request.accepts(_argument(request.class_name), "class_id", "top_k"):
        return None
    moved = request.with_class()
    if moved is None or (thresholds := _thresholds(moved)) is None:
        return None
    statistic, places = _statistic(moved, thresholds)
    name = "Recall" if request.class_name == "MaxRecall" else request.class_name

    def finish(sheet: statistics.Sheet) -> metric.Values:
        counts = (c[:, places] for c in at_thresholds(sheet, statistic))
        values = FORMULAS[name](*counts)
        if len(places) == 1:
            return metric.Values(values[:, 0])
        return metric.Values(values, tuple(thresholds))

    return (metric.Metric(moved.key(), (statistic,), finish),)


def _by_class(request: metric.Request) -> tuple[metric.Metric, ...]:
    """The metric of each class against the rest, by the largest score, and their mean."""
    statistic = statistics.ClassCounts(request.target)
    examples = statistics.Examples(request.target.weighted)
    classes = range(request.target.classes or 0)

    def compute(sheet: statistics.Sheet) -> np.ndarray:
        both, predicted, actual = np.moveaxis(
            sheet.total(statistic).reshape(len(sheet), len(classes), 3), 2, 0
        )
        fp, fn = metric.remainder(predicted, both), metric.remainder(actual, both)
        total = sheet.total(examples)[:, examples.weight_cell, None]
        tn = metric.remainder(total, both + fp + fn)
        return FORMULAS[request.class_name](both, tn, fp, fn)

    def all_classes(sheet: statistics.Sheet) -> np.ndarray:
        return sheet.memo.once(macro, lambda: compute(sheet))

    def of_class(class_id: int) -> Callable[[statistics.Sheet], metric.Values]:
        return lambda sheet: metric.Values(all_classes(sheet)[:, class_id])

    needed = (statistic, examples)
    macro = replace(request.key(), aggregation="macro")
    return (
        metric.Metric(macro, needed, lambda s: metric.Values(all_classes(s).mean(axis=1))),
        *(metric.Metric(replace(request.key(), class_id=c), needed, of_class(c)) for c in classes),
    )


def _at_thresholds(request: metric.Request) -> tuple[metric.Metric, ...] | None:
    """The counts themselves: TFMA's ConfusionMatrixAtThresholds."""
    moved = request.with_class()
    if request.target.task == "regression" or moved is None:
        return None
    if not moved.accepts("thresholds") or not moved.config.get("thresholds"):
        return None
    if (thresholds := _thresholds(moved)) is None:
        return None
    statistic, places = _statistic(moved, thresholds)

    def finish(sheet: statistics.Sheet) -> metric.Confusions:
        tp, tn, fp, fn = (c[:, places] for c in at_thresholds(sheet, statistic))
        return metric.Confusions(tuple(thresholds), tp, tn, fp, fn)

    return (metric.Metric(moved.key(), (statistic,), finish),)


METRICS: dict[str, metric.Builder] = {
    **{name: _ratio_metric for name in FORMULAS},
    "MaxRecall": _ratio_metric,
    "ConfusionMatrixAtThresholds": _at_thresholds,
}
