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
    "ModelCosineSimilarity": metric.SEVERAL_CLASSES,  # 1 for a single score, whatever it is
    "SymmetricPredictionDifference": ("binary", "regression"),  # else of the first class only
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
    "ExactMatch": "it compares predictions with labels as they are, and scores hardly ever equal "
    "labels; use CategoricalAccuracy or BinaryAccuracy",
    **dict.fromkeys(
        ("SetMatchPrecision", "SetMatchRecall"),
        "it compares sets of classes given as text; use Precision and Recall of a multi-label task",
    ),
    **dict.fromkeys(("Bleu", "Rouge"), "it compares texts; versions here give scores"),
    **{
        f"{amount}{absolute}Attributions": "it needs attributions of features, which versions here "
        "do not give"
        for amount in ("Mean", "Total")
        for absolute in ("", "Absolute")
    },
}
# Classes that evalbeam alone computes: TFMA lacks them, or (Keras's FBetaScore and R2Score) fails
# to restore their sums while the job runs.
ONLY_OURS = frozenset(
    {
        "AbsoluteErrorQuantiles",
        "BrierScore",
        "CohenKappa",
        "ExpectedCalibrationError",
        "FBetaScore",
        "FairnessIndicators",
        "LogLoss",
        "MedianAbsoluteError",
        "OneVersusOneAUC",
        "R2Score",
        "SpearmanCorrelation",
    }
)
# The beginnings of the names of others.
_REFUSED_KINDS = {
    "COCO": "it compares boxes in images; versions here give scores",
    "ObjectDetection": "it compares boxes in images; versions here give scores",
    "SemanticSegmentation": "it compares the pixels of images; versions here give scores",
}
# What ranks the examples of a query.
_OF_QUERIES = ("MinLabelPosition", "NDCG", "QueryStatistics")


def list_tasks(class_name: str) -> tuple[str, ...]:
    """The tasks whose outputs a metric makes sense of; all for one that is not known."""
    return _TASKS.get(class_name) or metrics.list_tasks(class_name)


def refuse(class_name: str) -> None:
    """Raises ConfigError for a class of TFMA or Keras that is no metric of labels and scores."""
    if class_name in metrics.REGISTRY:
        return
    if class_name in _OF_QUERIES:
        raise errors.ConfigError(
            f"metrics: {class_name} ranks the examples of a query: use an EvalConfig whose "
            "metrics_specs has a query_key, the column that names an example's query"
        )
    for kind, reason in _REFUSED_KINDS.items():
        if class_name.startswith(kind):
            raise errors.ConfigError(f"metrics: {class_name} is not supported: {reason}")
    if class_name in _REFUSED:
        raise errors.ConfigError(f"metrics: {class_name} is not supported: {_REFUSED[class_name]}")


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
