"""Metrics of a binary confusion matrix, at thresholds or for each class of a multi-class output.

Definitions: https://en.wikipedia.org/wiki/Confusion_matrix, with TFMA's class names. A quotient
without a denominator is NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from evalbeam.transforms.metrics import metric, statistics
from evalbeam.transforms.metrics.metric import HIGHER, LOWER, NEITHER, Kind, ratio
from evalbeam.transforms.metrics.sheet import Sheet

Counts = np.ndarray
Formula = Callable[[Counts, Counts, Counts, Counts], Counts]

# TFMA's MaxRecall is recall at this threshold.
_MAX_RECALL_THRESHOLD = 1e-12


def at_thresholds(
    sheet: Sheet, statistic: statistics.Confusion
) -> tuple[Counts, Counts, Counts, Counts]:
    """TP, TN, FP, FN at each of the statistic's thresholds, each float64[rows, T]."""
    bins = sheet.total(statistic).reshape(len(sheet), statistic.cells // 2, 2)
    below = bins.cumsum(axis=1)[:, :-1]
    above = bins[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
    return above[..., 1], below[..., 0], above[..., 0], below[..., 1]


def count_classes(sheet: Sheet, statistic: statistics.ClassCounts) -> tuple[Counts, Counts, Counts]:
    """For each class how often it is both, predicted, and actual, each float64[rows, K]."""
    both, predicted, actual = np.moveaxis(
        sheet.total(statistic).reshape(len(sheet), statistic.cells // 3, 3), 2, 0
    )
    return both, predicted, actual


def _statistic(
    request: metric.Request, thresholds: list[float]
) -> tuple[statistics.Confusion, list[int]]:
    """The statistic at the sorted thresholds, and the place of each configured one in it."""
    ascending = sorted(set(thresholds))
    places = [ascending.index(threshold) for threshold in thresholds]
    return statistics.Confusion(request.target, tuple(ascending)), places


def _argument(class_name: str) -> str:
    """What TFMA calls the class's thresholds."""
    return "threshold" if class_name == "BinaryAccuracy" else "thresholds"


def _thresholds(request: metric.Request) -> list[float]:
    """The metric's thresholds; NeedsTfma where TFMA would read them from its histogram."""
    if request.class_name == "MaxRecall":
        return [_MAX_RECALL_THRESHOLD]
    argument = _argument(request.class_name)
    given = request.config.get(argument)
    if given is None or given == []:
        # In the top k is what is above -inf: the other scores become -inf.
        return [-np.inf] if request.target.top_k is not None else [0.5]
    values = [float(t) for t in (given if isinstance(given, list | tuple) else [given])]
    if len(values) == 1 and values[0] < 0:
        raise request.no_kernel_for(argument)
    return values


def _rate(formula: Formula, direction: int = NEITHER, by_class: bool = True) -> Kind:
    """A formula of the counts, at thresholds or, if `by_class`, for each class."""

    def build(request: metric.Request) -> tuple[metric.Metric, ...]:
        if request.by_class:
            request.require()
            return _by_class(request, formula)
        return _at_thresholds(request, formula)

    return Kind(build, direction, tasks=metric.CLASSIFICATION, by_class=by_class)


def _at_thresholds(request: metric.Request, formula: Formula) -> tuple[metric.Metric, ...]:
    request.require_classes()
    request.require(_argument(request.class_name), "class_id", "top_k")
    moved = request.with_class()
    thresholds = _thresholds(moved)
    statistic, places = _statistic(moved, thresholds)

    def finish(sheet: Sheet) -> metric.Values:
        values = formula(*(counts[:, places] for counts in at_thresholds(sheet, statistic)))
        if len(places) == 1:
            values = values[:, 0]
        if thresholds == [-np.inf]:
            return metric.Values(values, None, f"top {moved.target.top_k}")
        return metric.Values(values, tuple(thresholds), metric.THRESHOLD)

    return (metric.Metric(moved.key(), (statistic,), finish),)


def _by_class(request: metric.Request, formula: Formula) -> tuple[metric.Metric, ...]:
    """The metric of each class against the rest, by the largest score, and their average."""
    statistic = statistics.ClassCounts(request.target)
    examples = statistics.Examples(request.target.weighted)
    classes = range(request.target.classes or 0)
    weights = dict(request.class_weights) or dict.fromkeys(classes, 1.0)
    averaged, shares = list(weights), np.array(list(weights.values()))

    def count(sheet: Sheet) -> tuple[Counts, Counts, Counts, Counts]:
        both, predicted, actual = count_classes(sheet, statistic)
        fp, fn = metric.remainder(predicted, both), metric.remainder(actual, both)
        total = sheet.total(examples)[:, examples.weight_cell, None]
        return both, metric.remainder(total, both + fp + fn), fp, fn

    def all_classes(sheet: Sheet) -> np.ndarray:
        return sheet.memo.once(average.key, lambda: formula(*count(sheet)))

    def of_class(class_id: int) -> Callable[[Sheet], metric.Values]:
        return lambda sheet: metric.Values(all_classes(sheet)[:, class_id], decision=metric.ARGMAX)

    def micro(sheet: Sheet) -> metric.Values:
        together = formula(*((counts[:, averaged] * shares).sum(axis=1) for counts in count(sheet)))
        return metric.Values(together, decision=metric.ARGMAX)

    def macro(sheet: Sheet) -> metric.Values:
        by_class, of_classes = all_classes(sheet)[:, averaged], shares
        if request.aggregation == "weighted_macro":
            _, _, actual = count_classes(sheet, statistic)
            of_classes = shares * actual[:, averaged]
        values, counted = metric.average(by_class, of_classes, request.zero_division)
        return metric.Values(values, decision=metric.ARGMAX, classes=counted)

    needed, key = (statistic, examples), request.key()
    if request.aggregation == "micro":
        return (metric.Metric(key, needed, micro),)
    average = metric.Metric(replace(key, aggregation=request.aggregation or "macro"), needed, macro)
    if request.aggregation:
        return (average,)
    return (
        average,
        *(metric.Metric(replace(key, class_id=c), needed, of_class(c)) for c in classes),
    )


def _for_classes(
    binary: Formula, formula: Callable[[Counts, Counts, Counts, Counts], Counts]
) -> Kind:
    """A rate that has a definition of its own for K classes, decided by the largest score.

    `formula` takes how often each class is both, predicted, and actual, each float64[rows, K], and
    the sum of weights, float64[rows].
    """
    rate = _rate(binary, HIGHER)

    def build(request: metric.Request) -> tuple[metric.Metric, ...]:
        if not request.by_class or request.aggregation:
            return rate.build(request)
        statistic = statistics.ClassCounts(request.target)
        examples = statistics.Examples(request.target.weighted)

        def finish(sheet: Sheet) -> metric.Values:
            total = sheet.total(examples)[:, examples.weight_cell]
            values = formula(*count_classes(sheet, statistic), total)
            return metric.Values(values, decision=metric.ARGMAX)

        return (metric.Metric(request.key(), (statistic, examples), finish),)

    return replace(rate, build=build)


def _balanced_accuracy(both: Counts, _: Counts, actual: Counts, __: Counts) -> Counts:
    """The mean recall of the classes that occur."""
    recall = ratio(both, actual)
    return metric.average(recall, np.ones(recall.shape[1]), "skip")[0]


def _correlation(both: Counts, predicted: Counts, actual: Counts, total: Counts) -> Counts:
    """Matthews' coefficient for K classes (Gorodkin 2004), as scikit-learn has it."""
    # Shares: the fourth powers of counts of 10^5 no longer fit into 53 bits.
    shares = [ratio(each, total[:, None]) for each in (both, predicted, actual)]
    right, decided, truth = shares
    covariance = right.sum(axis=1) - (decided * truth).sum(axis=1)
    # Rows of no class leave the shares' sum below 1.
    spread = _root((decided - decided**2).sum(axis=1)) * _root((truth - truth**2).sum(axis=1))
    return ratio(covariance, spread)


def _counts_at_thresholds(request: metric.Request) -> tuple[metric.Metric, ...]:
    """The counts themselves: TFMA's ConfusionMatrixAtThresholds."""
    moved = request.with_class()
    moved.require_classes()
    moved.require("thresholds")
    if not moved.config.get("thresholds"):
        raise moved.no_kernel_for("thresholds")
    thresholds = _thresholds(moved)
    statistic, places = _statistic(moved, thresholds)

    def finish(sheet: Sheet) -> metric.Confusions:
        tp, tn, fp, fn = (counts[:, places] for counts in at_thresholds(sheet, statistic))
        return metric.Confusions(tuple(thresholds), tp, tn, fp, fn)

    return (metric.Metric(moved.key(), (statistic,), finish),)


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


def _recall(tp: Counts, tn: Counts, fp: Counts, fn: Counts) -> Counts:
    return ratio(tp, tp + fn)


_RATES: dict[str, Kind] = {
    "TruePositives": _rate(lambda tp, tn, fp, fn: tp),
    "TrueNegatives": _rate(lambda tp, tn, fp, fn: tn),
    "FalsePositives": _rate(lambda tp, tn, fp, fn: fp),
    "FalseNegatives": _rate(lambda tp, tn, fp, fn: fn),
    "BinaryAccuracy": _rate(lambda tp, tn, fp, fn: ratio(tp + tn, tp + tn + fp + fn), HIGHER),
    "Precision": _rate(lambda tp, tn, fp, fn: ratio(tp, tp + fp), HIGHER),
    "Recall": _rate(_recall, HIGHER),
    "Specificity": _rate(lambda tp, tn, fp, fn: ratio(tn, tn + fp), HIGHER),
    "FallOut": _rate(lambda tp, tn, fp, fn: ratio(fp, fp + tn), LOWER),
    "MissRate": _rate(lambda tp, tn, fp, fn: ratio(fn, fn + tp), LOWER),
    "NegativePredictiveValue": _rate(lambda tp, tn, fp, fn: ratio(tn, tn + fn), HIGHER),
    "FalseDiscoveryRate": _rate(lambda tp, tn, fp, fn: ratio(fp, fp + tp), LOWER),
    "FalseOmissionRate": _rate(lambda tp, tn, fp, fn: ratio(fn, fn + tn), LOWER),
    "Prevalence": _rate(lambda tp, tn, fp, fn: ratio(tp + fn, tp + tn + fp + fn)),
    "PredictedPositiveRate": _rate(lambda tp, tn, fp, fn: ratio(tp + fp, tp + tn + fp + fn)),
    "PrevalenceThreshold": _rate(_prevalence_threshold),
    "ThreatScore": _rate(lambda tp, tn, fp, fn: ratio(tp, tp + fn + fp), HIGHER),
    "BalancedAccuracy": _for_classes(
        lambda tp, tn, fp, fn: (ratio(tp, tp + fn) + ratio(tn, tn + fp)) / 2, _balanced_accuracy
    ),
    "F1Score": _rate(lambda tp, tn, fp, fn: ratio(2 * tp, 2 * tp + fp + fn), HIGHER),
    "MatthewsCorrelationCoefficient": _for_classes(_mcc, _correlation),
    "FowlkesMallowsIndex": _rate(
        lambda tp, tn, fp, fn: _root(ratio(tp, tp + fp) * ratio(tp, tp + fn)), HIGHER
    ),
    "Informedness": _rate(
        lambda tp, tn, fp, fn: ratio(tp, tp + fn) + ratio(tn, tn + fp) - 1, HIGHER
    ),
    "Markedness": _rate(lambda tp, tn, fp, fn: ratio(tp, tp + fp) + ratio(tn, tn + fn) - 1, HIGHER),
    "PositiveLikelihoodRatio": _rate(
        lambda tp, tn, fp, fn: ratio(ratio(tp, tp + fn), ratio(fp, fp + tn)), HIGHER
    ),
    "NegativeLikelihoodRatio": _rate(
        lambda tp, tn, fp, fn: ratio(ratio(fn, fn + tp), ratio(tn, tn + fp)), LOWER
    ),
    "DiagnosticOddsRatio": _rate(
        lambda tp, tn, fp, fn: ratio(ratio(tp, fn), ratio(fp, tn)), HIGHER
    ),
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


def _f_beta(request: metric.Request) -> tuple[metric.Metric, ...]:
    """(1 + beta^2) times the harmonic mean of precision and recall, beta^2 on recall's side."""
    beta = request.config.get("beta", 1.0)
    if not isinstance(beta, int | float) or beta <= 0:
        raise request.refuse("beta", "a number above 0")
    config = {key: value for key, value in request.config.items() if key != "beta"}
    if "threshold" in config:
        config["thresholds"] = config.pop("threshold")
    config.setdefault("name", "fbeta_score")

    def formula(tp: Counts, tn: Counts, fp: Counts, fn: Counts) -> Counts:
        return ratio((1 + beta**2) * tp, (1 + beta**2) * tp + beta**2 * fn + fp)

    return _rate(formula).build(replace(request, config=config))


def _fairness_indicators(request: metric.Request) -> tuple[metric.Metric, ...]:
    """The rates of the package fairness-indicators, under its names, at each threshold."""
    request.require_classes()
    request.require("thresholds")
    thresholds = request.config.get("thresholds") or _FAIRNESS_THRESHOLDS
    given = thresholds if isinstance(thresholds, list | tuple) else [thresholds]
    at = [float(threshold) for threshold in given]
    statistic, places = _statistic(request, at)
    digits = max(len(str(threshold).partition(".")[2]) for threshold in at)

    def at_place(place: int, rate: Formula) -> Callable[[Sheet], metric.Values]:
        return lambda sheet: metric.Values(
            rate(*(counts[:, place] for counts in at_thresholds(sheet, statistic)))
        )

    name = request.config.get("name", METRICS[request.class_name].name)
    return tuple(
        metric.Metric(
            replace(request.key(), metric=f"{name}/{rate}@{threshold:.{digits}f}"),
            (statistic,),
            at_place(place, formula),
        )
        for threshold, place in zip(at, places, strict=True)
        for rate, formula in _FAIRNESS_RATES.items()
    )


_FAIRNESS_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_FAIRNESS_RATES: dict[str, Formula] = {
    "false_positive_rate": lambda tp, tn, fp, fn: ratio(fp, fp + tn),
    "false_negative_rate": lambda tp, tn, fp, fn: ratio(fn, fn + tp),
    "true_positive_rate": _recall,
    "true_negative_rate": lambda tp, tn, fp, fn: ratio(tn, tn + fp),
    "positive_rate": lambda tp, tn, fp, fn: ratio(tp + fp, tp + tn + fp + fn),
    "negative_rate": lambda tp, tn, fp, fn: ratio(tn + fn, tp + tn + fp + fn),
    "false_discovery_rate": lambda tp, tn, fp, fn: ratio(fp, fp + tp),
    "false_omission_rate": lambda tp, tn, fp, fn: ratio(fn, fn + tn),
    "precision": lambda tp, tn, fp, fn: ratio(tp, tp + fp),
    "recall": _recall,
}

METRICS: dict[str, Kind] = {
    **_RATES,
    "FairnessIndicators": Kind(
        _fairness_indicators,
        tasks=("binary", "multilabel"),
        name="fairness_indicators_metrics",
    ),
    "FBetaScore": Kind(_f_beta, HIGHER, metric.CLASSIFICATION, "fbeta_score", by_class=True),
    **{alias: _RATES[name] for alias, name in _ALIASES.items()},
    "MaxRecall": _rate(_recall, HIGHER, by_class=False),
    "ConfusionMatrixAtThresholds": Kind(_counts_at_thresholds, tasks=metric.CLASSIFICATION),
}
