"""Multi-class and multi-label confusion matrices, and the share of right classes."""

from __future__ import annotations

import numpy as np

from evalbeam.transforms.metrics import metric, statistics
from evalbeam.transforms.metrics.metric import ratio


def _class_matrix(sheet: statistics.Sheet, statistic: statistics.ClassMatrix) -> np.ndarray:
    """float64[slices, K, K + 1]: actual x predicted, the last column for no prediction."""
    classes = statistic.target.classes or 0
    return sheet.total(statistic).reshape(len(sheet), classes, classes + 1)


def _whole(request: metric.Request) -> bool:
    target = request.target
    return target.class_id is None and target.k is None and target.top_k is None


def _class_matrices(request: metric.Request) -> tuple[metric.Metric, ...] | None:
    plot = request.class_name.endswith("Plot")
    if request.target.task != "multiclass" or not request.accepts("thresholds"):
        return None
    if not _whole(request):
        return None
    thresholds = request.config.get("thresholds") or ([0.0] if plot else [0.5])
    needed = tuple(
        statistics.ClassMatrix(request.target, float(threshold)) for threshold in thresholds
    )

    def finish(sheet: statistics.Sheet) -> metric.ClassMatrices:
        counts = tuple(_class_matrix(sheet, statistic) for statistic in needed)
        return metric.ClassMatrices(tuple(map(float, thresholds)), counts)

    return (metric.Metric(request.key(), needed, finish, plot),)


def _label_matrices(request: metric.Request) -> tuple[metric.Metric, ...] | None:
    if request.target.task not in ("multiclass", "multilabel") or not _whole(request):
        return None
    if not request.accepts("thresholds"):
        return None
    thresholds = tuple(map(float, request.config.get("thresholds") or [0.5]))
    needed = tuple(statistics.LabelMatrix(request.target, threshold) for threshold in thresholds)
    classes = request.target.classes or 0

    def finish(sheet: statistics.Sheet) -> metric.LabelMatrices:
        shape = (len(sheet), classes, classes, 4)
        return metric.LabelMatrices(
            thresholds, tuple(sheet.total(statistic).reshape(shape) for statistic in needed)
        )

    return (metric.Metric(request.key(), needed, finish, plot=True),)


def _accuracy(request: metric.Request) -> tuple[metric.Metric, ...] | None:
    """The share of examples whose largest score is the actual class's."""
    if request.target.task != "multiclass" or not _whole(request):
        return None
    if not request.accepts(dtype="float32") or not _whole(request):
        return None
    statistic = statistics.ClassCounts(request.target)
    examples = statistics.Examples(request.target.weighted)

    def finish(sheet: statistics.Sheet) -> metric.Values:
        right = sheet.total(statistic)[:, ::3].sum(axis=1)
        return metric.Values(ratio(right, sheet.total(examples)[:, examples.weight_cell]))

    return (metric.Metric(request.key(), (statistic, examples), finish),)


METRICS: dict[str, metric.Builder] = {
    "MultiClassConfusionMatrixPlot": _class_matrices,
    "MultiClassConfusionMatrixAtThresholds": _class_matrices,
    "MultiLabelConfusionMatrixPlot": _label_matrices,
    "CategoricalAccuracy": _accuracy,
    "SparseCategoricalAccuracy": _accuracy,
}
