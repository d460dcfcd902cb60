"""Multi-class and multi-label confusion matrices, and the share of right classes."""

from __future__ import annotations

import numpy as np

from evalbeam.transforms.metrics import metric, statistics
from evalbeam.transforms.metrics.metric import HIGHER, Kind, ratio
from evalbeam.transforms.metrics.sheet import Sheet


def _class_matrix(sheet: Sheet, statistic: statistics.ClassMatrix) -> np.ndarray:
    """float64[rows, K, K + 1]: actual x predicted, the last column for no prediction."""
    classes = statistic.target.classes or 0
    return sheet.total(statistic).reshape(len(sheet), classes, classes + 1)


def _class_matrices(request: metric.Request) -> tuple[metric.Metric, ...]:
    request.require_task("multiclass")
    request.require("thresholds")
    request.require_whole()
    plot = request.class_name.endswith("Plot")
    thresholds = request.config.get("thresholds") or ([0.0] if plot else [0.5])
    needed = tuple(
        statistics.ClassMatrix(request.target, float(threshold)) for threshold in thresholds
    )

    def finish(sheet: Sheet) -> metric.ClassMatrices:
        counts = tuple(_class_matrix(sheet, statistic) for statistic in needed)
        return metric.ClassMatrices(tuple(map(float, thresholds)), counts)

    return (metric.Metric(request.key(), needed, finish, plot),)


def _label_matrices(request: metric.Request) -> tuple[metric.Metric, ...]:
    request.require_task("multiclass", "multilabel")
    request.require_whole()
    request.require("thresholds")
    thresholds = tuple(map(float, request.config.get("thresholds") or [0.5]))
    needed = tuple(statistics.LabelMatrix(request.target, threshold) for threshold in thresholds)
    classes = request.target.classes or 0

    def finish(sheet: Sheet) -> metric.LabelMatrices:
        shape = (len(sheet), classes, classes, 4)
        return metric.LabelMatrices(
            thresholds, tuple(sheet.total(statistic).reshape(shape) for statistic in needed)
        )

    return (metric.Metric(request.key(), needed, finish, plot=True),)


def _accuracy(request: metric.Request) -> tuple[metric.Metric, ...]:
    """The share of examples whose largest score is the actual class's."""
    request.require_task("multiclass")
    request.require_whole()
    request.require(dtype="float32")
    statistic = statistics.ClassCounts(request.target)
    examples = statistics.Examples(request.target.weighted)

    def finish(sheet: Sheet) -> metric.Values:
        right = sheet.total(statistic)[:, ::3].sum(axis=1)
        weight = sheet.total(examples)[:, examples.weight_cell]
        return metric.Values(ratio(right, weight), decision=metric.ARGMAX)

    return (metric.Metric(request.key(), (statistic, examples), finish),)


def _top_accuracy(request: metric.Request) -> tuple[metric.Metric, ...]:
    """The share of examples whose actual class has one of the k largest scores."""
    request.require_task("multiclass")
    request.require_whole()
    request.require("k", dtype="float32")
    k = request.config.get("k", TOP)
    if not isinstance(k, int) or k < 1:
        raise request.refuse("k", "a number of classes, from 1 on")
    statistic = statistics.TopClasses(request.target, k)
    examples = statistics.Examples(request.target.weighted)

    def finish(sheet: Sheet) -> metric.Values:
        weight = sheet.total(examples)[:, examples.weight_cell]
        share = ratio(sheet.total(statistic)[:, 0], weight)
        return metric.Values(share, decision=f"top {k}")

    return (metric.Metric(request.key(), (statistic, examples), finish),)


def _kappa(request: metric.Request) -> tuple[metric.Metric, ...]:
    """Agreement beyond chance (Cohen 1960); with `weights`, far classes disagree more."""
    request.require_whole()
    request.require("weights")
    weighting = request.config.get("weights")
    if weighting not in (None, "linear", "quadratic"):
        raise request.refuse("weights", "linear or quadratic")
    statistic: statistics.ClassMatrix | statistics.Confusion
    if request.target.task == "multiclass":
        statistic = statistics.ClassMatrix(request.target)
    else:
        request.require_task("binary")
        statistic = statistics.Confusion(request.target, (0.5,))

    def finish(sheet: Sheet) -> metric.Values:
        if isinstance(statistic, statistics.ClassMatrix):
            counts = _class_matrix(sheet, statistic)[:, :, :-1]
        else:
            # From [predicted, actual] to [actual, predicted].
            counts = sheet.total(statistic).reshape(len(sheet), 2, 2).swapaxes(1, 2)
        kappa = _compute_kappa(counts, weighting)
        if isinstance(statistic, statistics.ClassMatrix):
            return metric.Values(kappa, decision=metric.ARGMAX)
        return metric.Values(kappa, statistic.thresholds, metric.THRESHOLD)

    return (metric.Metric(request.key(), (statistic,), finish),)


def _compute_kappa(counts: np.ndarray, weighting: str | None) -> np.ndarray:
    """float64[rows], of float64[rows, K, K] counts; NaN where chance agrees always."""
    distance = np.abs(np.subtract.outer(*[np.arange(counts.shape[1])] * 2)).astype(np.float64)
    penalty = {None: distance != 0, "linear": distance, "quadratic": distance**2}[weighting]
    total = counts.sum(axis=(1, 2))
    expected = counts.sum(axis=2)[:, :, None] * counts.sum(axis=1)[:, None, :]
    observed = (counts * penalty).sum(axis=(1, 2)) * total
    return 1 - ratio(observed, (expected * penalty).sum(axis=(1, 2)))


# Keras's default.
TOP = 5

METRICS: dict[str, Kind] = {
    "MultiClassConfusionMatrixPlot": Kind(_class_matrices, tasks=("multiclass",)),
    "MultiClassConfusionMatrixAtThresholds": Kind(_class_matrices, tasks=("multiclass",)),
    "MultiLabelConfusionMatrixPlot": Kind(_label_matrices, tasks=metric.SEVERAL_CLASSES),
    "CategoricalAccuracy": Kind(_accuracy, HIGHER, tasks=("multiclass",)),
    "SparseCategoricalAccuracy": Kind(_accuracy, HIGHER, tasks=("multiclass",)),
    "TopKCategoricalAccuracy": Kind(_top_accuracy, HIGHER, ("multiclass",)),
    "SparseTopKCategoricalAccuracy": Kind(_top_accuracy, HIGHER, ("multiclass",)),
    "CohenKappa": Kind(_kappa, HIGHER, ("binary", "multiclass")),
}
