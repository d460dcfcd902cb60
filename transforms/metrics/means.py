"""Means over examples: losses, regression errors, calibration and correlation.

Each is a function of a few weighted sums; a mean over nothing is NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from evalbeam.transforms.metrics import metric, statistics
from evalbeam.transforms.metrics.metric import HIGHER, LOWER, Builder, Kind, ratio
from evalbeam.transforms.metrics.sheet import Sheet

_PLOT_BUCKETS = 1_000
# Arguments that TFMA and Keras write into their configs, with the values that we compute.
_DEFAULTS = {"dtype": "float32", "axis": -1, "from_logits": False, "label_smoothing": 0}


def _mean(moment: str, name: str | None = None, root: bool = False) -> Builder:
    """The mean of a moment over a target's (label, score) pairs, or its root."""

    def build(request: metric.Request) -> tuple[metric.Metric, ...]:
        request.require(**_DEFAULTS)
        weight = metric.Weight(request.target)
        statistic = statistics.Moment(request.target, moment)

        def finish(sheet: Sheet) -> metric.Values:
            mean = ratio(sheet.total(statistic)[:, 0], weight.of(sheet))
            return metric.Values(np.sqrt(mean) if root else mean)

        return (metric.Metric(request.key(name), (statistic, weight.statistic), finish),)

    return build


def _mean_over_examples(moment: str, name: str | None = None) -> Builder:
    """The mean over examples of a moment of all their classes' scores."""

    def build(request: metric.Request) -> tuple[metric.Metric, ...]:
        request.require(**_DEFAULTS)
        request.require_whole()
        request.require_task("multiclass", "multilabel")
        statistic = statistics.Moment(request.target, moment)
        examples = statistics.Examples(request.target.weighted)

        def finish(sheet: Sheet) -> metric.Values:
            weight = sheet.total(examples)[:, examples.weight_cell]
            return metric.Values(ratio(sheet.total(statistic)[:, 0], weight))

        return (metric.Metric(request.key(name), (statistic, examples), finish),)

    return build


def _formula(names: tuple[str, ...], formula: Callable[..., np.ndarray]) -> Builder:
    """A formula of the sums of some moments and of the weights, in that order."""

    def build(request: metric.Request) -> tuple[metric.Metric, ...]:
        request.require()
        weight = metric.Weight(request.target)
        moments = [statistics.Moment(request.target, name) for name in names]

        def finish(sheet: Sheet) -> metric.Values:
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
    return ratio(covariance**2, _spread(label, label2, weight) * _spread(score, score2, weight))


def _spread(total: np.ndarray, squares: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The sum of squared distances from the mean; 0 where it is no more than rounding of sums."""
    spread = squares - ratio(total**2, weight)
    return np.where(spread > _LOST * squares, spread, 0.0)


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


def _calibration_plot(request: metric.Request) -> tuple[metric.Metric, ...]:
    request.require("num_buckets", "left", "right")
    if request.target.top_k is not None:
        raise metric.NeedsTfma(f"it has no kernel for top_k={request.target.top_k}")
    count = request.config.get("num_buckets", _PLOT_BUCKETS)
    if not isinstance(count, int) or count < 1:
        raise request.no_kernel_for("num_buckets")
    left = float(request.config.get("left") or 0.0)
    right = 1.0 if request.config.get("right") is None else float(request.config["right"])
    scores, labels, weights = (
        statistics.BucketMoment(request.target, moment, count, left, right)
        for moment in ("score", "label", "count")
    )
    edges = tuple(scores.edges().tolist())
    histogram = statistics.Histogram(request.target, left, right)

    def from_moments(sheet: Sheet) -> metric.Buckets:
        return metric.Buckets(edges, sheet.total(scores), sheet.total(labels), sheet.total(weights))

    def from_histogram(sheet: Sheet) -> metric.Buckets:
        negative, positive = sheet.rebin(histogram, scores.bins(), count + 2)
        return metric.Buckets(edges, sheet.total(scores), positive, negative + positive)

    if request.target.task == "regression":
        return (metric.Metric(request.key(), (scores, labels, weights), from_moments, plot=True),)
    # Classes are in the histogram that the curves are read off.
    return (metric.Metric(request.key(), (scores, histogram), from_histogram, plot=True),)


def _determination(
    label: np.ndarray, label2: np.ndarray, error: np.ndarray, weight: np.ndarray
) -> np.ndarray:
    """R^2: the share of the labels' variance that is explained; NaN if all labels are equal."""
    return 1 - ratio(error, _spread(label, label2, weight))


def _r2(request: metric.Request) -> tuple[metric.Metric, ...]:
    request.require(class_aggregation="uniform_average", num_regressors=0, dtype="float32")
    bare = replace(request, config={k: v for k, v in request.config.items() if k == "name"})
    return _formula(("label", "label^2", "squared error"), _determination)(bare)


def _by_task(binary: Builder, several: Builder) -> Builder:
    """One builder for multi-class outputs, another for all else."""
    return lambda request: (
        several(request)
        if request.target.task == "multiclass" and request.target.class_id is None
        else binary(request)
    )


def _calibration_error(request: metric.Request) -> tuple[metric.Metric, ...]:
    """The mean distance of the scores in a bin from their labels; bins of equal width.

    Of several classes, of the largest score and whether its class is the label (Guo et al. 2017).
    """
    request.require("num_bins")
    target = request.target
    if target.task == "multiclass" and target.class_id is None and target.k is None:
        target = replace(target, k=1)
    bins = request.config.get("num_bins", _CALIBRATION_BINS)
    if not isinstance(bins, int) or bins < 1:
        raise request.refuse("num_bins", "a whole number from 1 on")
    # Metrics of other numbers of bins are other metrics.
    key = request.key(f"expected_calibration_error@{bins}")
    scores, labels = (
        statistics.BucketMoment(target, moment, bins, 0.0, 1.0) for moment in ("score", "label")
    )
    weight = metric.Weight(target)

    def finish(sheet: Sheet) -> metric.Values:
        distance = np.abs(sheet.total(scores) - sheet.total(labels)).sum(axis=1)
        return metric.Values(ratio(distance, weight.of(sheet)))

    return (metric.Metric(key, (scores, labels, weight.statistic), finish),)


def _quantiles(request: metric.Request) -> tuple[metric.Metric, ...]:
    """Quantiles of |label - score|; where one falls between two errors, their mean."""
    request.require_task("binary", "regression")
    is_median = request.class_name == "MedianAbsoluteError"
    request.require(*(() if is_median else ("quantiles",)))
    wanted = [0.5] if is_median else request.config.get("quantiles")
    if not isinstance(wanted, list) or not wanted or not all(map(_is_share, wanted)):
        raise request.refuse("quantiles", "a list of shares from 0 to 1, such as [0.5, 0.9]")
    statistic = statistics.ErrorHistogram(request.target)

    def at(share: float) -> Callable[[Sheet], metric.Values]:
        return lambda sheet: metric.Values(_find_quantile(sheet, statistic, share))

    key = request.key(None if is_median else "absolute_error_quantile")
    return tuple(
        metric.Metric(
            key if is_median else replace(key, metric=f"{key.metric}@{share:g}"),
            (statistic,),
            at(float(share)),
        )
        for share in wanted
    )


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1


def _find_quantile(sheet: Sheet, statistic: statistics.ErrorHistogram, share: float) -> np.ndarray:
    """float64[rows]; NaN where there are no examples."""
    owner, cell, weight = sheet.pairs(statistic)
    occurs = weight > 0
    owner, middle, weight = owner[occurs], statistic.middles(cell[occurs]), weight[occurs]
    result = np.full(len(sheet), np.nan)
    rows, start = np.unique(owner, return_index=True)
    if not len(rows):
        return result
    last = np.append(start[1:], len(owner)) - 1
    # One sum over all slices: whole weights stay exact up to 2^53.
    reached = np.cumsum(weight)
    before = reached[start] - weight[start]
    wanted = before + share * (reached[last] - before)
    place = np.clip(np.searchsorted(reached, wanted * (1 - _ROUNDING)), start, last)
    is_between = np.abs(reached[place] - wanted) <= wanted * _ROUNDING
    after = np.where(is_between, np.minimum(place + 1, last), place)
    result[rows] = (middle[place] + middle[after]) / 2
    return result


# A spread that is a smaller share of the squares has fewer than six right digits.
_LOST = 1e-10
# Sums of weights may differ from a share of them by rounding.
_ROUNDING = 1e-12

# Also the number of bins of torchmetrics' BinaryCalibrationError and of Guo et al. 2017.
_CALIBRATION_BINS = 15

_DISCRIMINATION = ("label", "score", "label*score")

METRICS: dict[str, Kind] = {
    "MeanLabel": Kind(_mean("label")),
    "MeanPrediction": Kind(_mean("score")),
    "Calibration": Kind(_formula(("score", "label"), _calibration)),
    "MeanAbsoluteError": Kind(_mean("absolute error"), LOWER),
    "MeanSquaredError": Kind(_mean("squared error"), LOWER),
    "RootMeanSquaredError": Kind(_mean("squared error", root=True), LOWER),
    "MeanSquaredLogarithmicError": Kind(_mean("squared log error"), LOWER),
    "MeanAbsolutePercentageError": Kind(
        _formula(("percentage error", "nonzero label"), _percentage), LOWER
    ),
    "SquaredPearsonCorrelation": Kind(
        _formula(("label", "score", "label^2", "score^2", "label*score"), _squared_pearson),
        HIGHER,
    ),
    "CoefficientOfDiscrimination": Kind(
        _formula(_DISCRIMINATION, _discrimination), HIGHER, metric.CLASSIFICATION
    ),
    "RelativeCoefficientOfDiscrimination": Kind(
        _formula(_DISCRIMINATION, _relative_discrimination), tasks=metric.CLASSIFICATION
    ),
    # TFMA's own takes the logarithm of the score as it is, Keras's of the score clipped by 1e-7.
    "MedianAbsoluteError": Kind(_quantiles, LOWER, ("binary", "regression")),
    "AbsoluteErrorQuantiles": Kind(
        _quantiles, LOWER, ("binary", "regression"), "absolute_error_quantile"
    ),
    "BinaryCrossEntropy": Kind(
        _mean("cross entropy", "binary_crossentropy"), LOWER, metric.CLASSIFICATION
    ),
    "BinaryCrossentropy": Kind(_mean("clipped cross entropy"), LOWER, metric.CLASSIFICATION),
    "CategoricalCrossEntropy": Kind(
        _mean_over_examples("categorical cross entropy", "categorical_crossentropy"),
        LOWER,
        metric.SEVERAL_CLASSES,
    ),
    "CategoricalCrossentropy": Kind(
        _mean_over_examples("clipped categorical cross entropy"), LOWER, metric.SEVERAL_CLASSES
    ),
    "SparseCategoricalCrossentropy": Kind(
        _mean_over_examples("clipped sparse categorical cross entropy"), LOWER, ("multiclass",)
    ),
    "CalibrationPlot": Kind(_calibration_plot),
    "R2Score": Kind(_r2, HIGHER, ("binary", "regression")),
    # scikit-learn's: clipped by the step of a double, classes not normalized.
    "LogLoss": Kind(
        _by_task(_mean("log loss"), _mean_over_examples("categorical log loss")),
        LOWER,
        metric.CLASSIFICATION,
    ),
    # Of several classes, their squared errors add up (Brier 1950).
    "BrierScore": Kind(
        _by_task(_mean("squared error"), _mean_over_examples("squared distance")),
        LOWER,
        metric.CLASSIFICATION,
    ),
    "ExpectedCalibrationError": Kind(_calibration_error, LOWER, metric.CLASSIFICATION),
    "Hinge": Kind(_mean("hinge"), LOWER, metric.CLASSIFICATION),
    "SquaredHinge": Kind(_mean("squared hinge"), LOWER, metric.CLASSIFICATION),
    "CategoricalHinge": Kind(
        _mean_over_examples("categorical hinge"), LOWER, metric.SEVERAL_CLASSES
    ),
    "KLDivergence": Kind(
        _mean_over_examples("divergence"),
        LOWER,
        metric.SEVERAL_CLASSES,
    ),
    "CosineSimilarity": Kind(_mean_over_examples("cosine"), HIGHER, metric.SEVERAL_CLASSES),
    "LogCoshError": Kind(_mean("log cosh"), LOWER),
    "Poisson": Kind(_mean("poisson"), LOWER),
}
