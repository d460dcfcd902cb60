"""Means over examples: losses, regression errors, calibration and correlation.

Every one is a function of a few weighted sums; a mean over nothing is NaN.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from evalbeam.transforms.metrics import metric, statistics
from evalbeam.transforms.metrics.metric import ratio

_PLOT_BUCKETS = 1_000
# Arguments that TFMA and Keras write into their configs, as we compute them.
_DEFAULTS = {"dtype": "float32", "axis": -1, "from_logits": False, "label_smoothing": 0}


def _mean(moment: str, name: str | None = None, root: bool = False) -> metric.Builder:
    """The mean of a moment over a target's (label, score) pairs, or its root."""

    def build(request: metric.Request) -> tuple[metric.Metric, ...] | None:
        if not request.accepts(**_DEFAULTS):
            return None
        weight = metric.Weight(request.target)
        statistic = statistics.Moment(request.target, moment)

        def finish(sheet: statistics.Sheet) -> metric.Values:
            mean = ratio(sheet.total(statistic)[:, 0], weight.of(sheet))
            return metric.Values(np.sqrt(mean) if root else mean)

        return (metric.Metric(request.key(name), (statistic, weight.statistic), finish),)

    return build


def _over_examples(moment: str, name: str | None = None) -> metric.Builder:
    """The mean over examples of a moment of all their classes' scores."""

    def build(request: metric.Request) -> tuple[metric.Metric, ...] | None:
        target = request.target
        whole = target.class_id is None and target.k is None and target.top_k is None
        if (
            not request.accepts(**_DEFAULTS)
            or not whole
            or target.task not in ("multiclass", "multilabel")
        ):
            return None
        statistic = statistics.Moment(target, moment)
        examples = statistics.Examples(target.weighted)

        def finish(sheet: statistics.Sheet) -> metric.Values:
            weight = sheet.total(examples)[:, examples.weight_cell]
            return metric.Values(ratio(sheet.total(statistic)[:, 0], weight))

        return (metric.Metric(request.key(name), (statistic, examples), finish),)

    return build


def _of_moments(names: tuple[str, ...], formula: Callable[..., np.ndarray]) -> metric.Builder:
    """A formula of the sums of some moments and of the weights, in that order."""

    def build(request: metric.Request) -> tuple[metric.Metric, ...] | None:
        if not request.accepts():
            return None
        weight = metric.Weight(request.target)
        moments = [statistics.Moment(request.target, name) for name in names]

        def finish(sheet: statistics.Sheet) -> metric.Values:
            sums = [sheet.total(moment)[:, 0] for moment in moments]
            return metric.Values(formula(*sums, weight.of(sheet)))

        return (metric.Metric(request.key(), (*moments, weight.statistic), finish),)

    return build


def _percentage(error: np.ndarray, nonzero: np.ndarray, _: np.ndarray) -> np.ndarray:
    """100 * |label - score| / |label|, over the examples whose label is not 0."""
    return 100 * ratio(error, nonzero)


def _squared_pearson(
    label: np.ndarray,
    score: np.ndarray,
    label2: np.ndarray,
    score2: np.ndarray,
    product: np.ndarray,
    weight: np.ndarray,
) -> np.ndarray:
    """r^2 of labels and scores; https://en.wikipedia.org/wiki/Pearson_correlation_coefficient."""
    covariance = product - ratio(label * score, weight)
    spread = (label2 - ratio(label**2, weight)) * (score2 - ratio(score**2, weight))
    return ratio(covariance**2, spread)


def _class_means(
    label: np.ndarray, score: np.ndarray, product: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The mean score of the positives and of the negatives (Tjur 2009)."""
    negative = metric.remainder(weight, label)
    return ratio(product, label), ratio(metric.remainder(score, product), negative)


def _calibration(score: np.ndarray, label: np.ndarray, _: np.ndarray) -> np.ndarray:
    """Mean score over mean label, which in a regression may be negative."""
    undefined = np.full(label.shape, np.nan)
    return np.divide(score, label, out=undefined, where=label != 0)


def _discrimination(*sums: np.ndarray) -> np.ndarray:
    positive, negative = _class_means(*sums)
    return positive - negative


def _relative_discrimination(*sums: np.ndarray) -> np.ndarray:
    positive, negative = _class_means(*sums)
    return ratio(positive, negative)


def _calibration_plot(request: metric.Request) -> tuple[metric.Metric, ...] | None:
    if not request.accepts("num_buckets", "left", "right") or request.target.top_k is not None:
        return None
    count = request.config.get("num_buckets", _PLOT_BUCKETS)
    if not isinstance(count, int) or count < 1:
        return None
    left = float(request.config.get("left") or 0.0)
    right = 1.0 if request.config.get("right") is None else float(request.config["right"])
    scores, labels, weights = (
        statistics.BucketMoment(request.target, moment, count, left, right)
        for moment in ("score", "label", "count")
    )
    edges = tuple(scores.edges().tolist())
    histogram = statistics.Histogram(request.target, left, right)

    def from_moments(sheet: statistics.Sheet) -> metric.Buckets:
        return metric.Buckets(edges, sheet.total(scores), sheet.total(labels), sheet.total(weights))

    def from_histogram(sheet: statistics.Sheet) -> metric.Buckets:
        negative, positive = sheet.rebinned(histogram, scores.rebinned(), count + 2)
        return metric.Buckets(edges, sheet.total(scores), positive, negative + positive)

    if request.target.task == "regression":
        return (metric.Metric(request.key(), (scores, labels, weights), from_moments, plot=True),)
    # Classes are in the histogram that the curves are read off.
    return (metric.Metric(request.key(), (scores, histogram), from_histogram, plot=True),)


_DISCRIMINATION = ("label", "score", "label*score")

METRICS: dict[str, metric.Builder] = {
    "MeanLabel": _mean("label"),
    "MeanPrediction": _mean("score"),
    "Calibration": _of_moments(("score", "label"), _calibration),
    "MeanAbsoluteError": _mean("absolute error"),
    "MeanSquaredError": _mean("squared error"),
    "RootMeanSquaredError": _mean("squared error", root=True),
    "MeanSquaredLogarithmicError": _mean("squared log error"),
    "MeanAbsolutePercentageError": _of_moments(("percentage error", "nonzero label"), _percentage),
    "SquaredPearsonCorrelation": _of_moments(
        ("label", "score", "label^2", "score^2", "label*score"), _squared_pearson
    ),
    "CoefficientOfDiscrimination": _of_moments(_DISCRIMINATION, _discrimination),
    "RelativeCoefficientOfDiscrimination": _of_moments(_DISCRIMINATION, _relative_discrimination),
    # TFMA's own takes the logarithm of the score as it is, Keras's of the score clipped by 1e-7.
    "BinaryCrossEntropy": _mean("cross entropy", "binary_crossentropy"),
    "BinaryCrossentropy": _mean("clipped cross entropy"),
    "CategoricalCrossEntropy": _over_examples(
        "categorical cross entropy", "categorical_crossentropy"
    ),
    "CategoricalCrossentropy": _over_examples("clipped categorical cross entropy"),
    "SparseCategoricalCrossentropy": _over_examples("clipped sparse categorical cross entropy"),
    "CalibrationPlot": _calibration_plot,
}
