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
        return metric.Values(ratio(right, sheet.total(examples)[:, examples.weight_cell]))

    return (metric.Metric(request.key(), (statistic, examples), finish),)


METRICS: dict[str, Kind] = {
    "MultiClassConfusionMatrixPlot": Kind(_class_matrices, classification=True),
    "MultiClassConfusionMatrixAtThresholds": Kind(_class_matrices, classification=True),
    "MultiLabelConfusionMatrixPlot": Kind(_label_matrices, classification=True),
    "CategoricalAccuracy": Kind(_accuracy, HIGHER, classification=True),
    "SparseCategoricalAccuracy": Kind(_accuracy, HIGHER, classification=True),
}
