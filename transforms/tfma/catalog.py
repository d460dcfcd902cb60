"""What is known of the metrics that TFMA and Keras compute, without importing either."""

from __future__ import annotations

from collections.abc import Iterable

from evalbeam.transforms import errors, metrics
from evalbeam.transforms.metrics import metric

# The tasks of classes that evalbeam has no kernel for; others are for any task.
_TASKS = {
    "BinaryIoU": ("binary",),
    "IoU": ("multiclass",),
    "MeanIoU": ("multiclass",),
    "OneHotIoU": ("multiclass",),
    "OneHotMeanIoU": ("multiclass",),
    "ExactMatch": metric.SEVERAL_CLASSES,
    "SetMatchPrecision": metric.SEVERAL_CLASSES,
    "SetMatchRecall": metric.SEVERAL_CLASSES,
    "FalseNegativeFeatureSampler": metric.CLASSIFICATION,
    "FalsePositiveFeatureSampler": metric.CLASSIFICATION,
    "ScoreDistributionPlot": metric.CLASSIFICATION,
}
# Keras's classes that take a multi-class label as an index, and those that take it one-hot: either
# computes something else, without an error, of the other form. TFMA's own classes take both.
_INDICES = frozenset(
    {
        "SparseCategoricalAccuracy",
        "SparseCategoricalCrossentropy",
        "SparseTopKCategoricalAccuracy",
    }
)
_ONE_HOT = frozenset(
    {
        "CategoricalAccuracy",
        "CategoricalCrossentropy",
        "CategoricalHinge",
        "CosineSimilarity",
        "FBetaScore",
        "Hinge",
        "KLDivergence",
        "LogCoshError",
        "OneHotIoU",
        "OneHotMeanIoU",
        "Poisson",
        "RootMeanSquaredError",
        "SquaredHinge",
        "TopKCategoricalAccuracy",
    }
)
# Classes that make nothing of scores, however labels are given, and what to use instead.
_REFUSED = {
    "Accuracy": "Keras's Accuracy counts predictions that exactly equal the label; for classes use "
    "CategoricalAccuracy or BinaryAccuracy",
    "IoU": "Keras's IoU compares class ids, not scores; use OneHotIoU",
    "MeanIoU": "Keras's MeanIoU compares class ids, not scores; use OneHotMeanIoU",
    "MeanRelativeError": "Keras's MeanRelativeError needs a normalizer for each example; use "
    "MeanAbsolutePercentageError",
    "MeanTensor": "Keras's MeanTensor is no metric of labels and predictions; use MeanPrediction",
    "Sum": "Keras's Sum is no metric of labels and predictions; use MeanPrediction",
    "MeanMetricWrapper": "it is a base class of Keras's metrics; name one of them",
    "Metric": "it is a base class of Keras's metrics; name one of them",
}


def list_tasks(class_name: str) -> tuple[str, ...]:
    """The tasks whose outputs a metric makes sense of; all for one that is not known."""
    return _TASKS.get(class_name) or metrics.list_tasks(class_name)


def refuse(class_name: str) -> None:
    """Raises ConfigError for a class of Keras that is no metric of labels and scores."""
    if class_name in _REFUSED and class_name not in metrics.REGISTRY:
        raise errors.ConfigError(f"metrics: {_REFUSED[class_name]}")


def check_together(class_names: Iterable[str]) -> None:
    """Raises ConfigError for metrics of which TFMA would keep only one."""
    samplers = [name for name in class_names if name.endswith("FeatureSampler")]
    if len(samplers) > 1:
        raise errors.ConfigError(
            f"metrics: of {' and '.join(samplers)}, TFMA would keep one and drop the other without "
            "an error: evaluate them in runs of their own"
        )


def takes_one_hot(class_names: Iterable[str]) -> bool:
    """Whether TFMA must get multi-class labels one-hot for these metrics, instead of as indices.

    Raises:
      ConfigError: some take them one-hot and some as indices.
    """
    names = list(class_names)
    one_hot = [name for name in names if name in _ONE_HOT]
    indices = [name for name in names if name in _INDICES]
    if one_hot and indices:
        raise errors.ConfigError(
            f"metrics: where TFMA computes them, {one_hot[0]} takes labels one-hot, and "
            f"{indices[0]} as indices. Use {indices[0].removeprefix('Sparse')}, or evaluate them "
            "in runs of their own"
        )
    return bool(one_hot)
