"""The table's statistics and the metrics made of them. To add one: see CONTRIBUTING.md."""

from __future__ import annotations

from evalbeam.transforms.metrics import (
    classes,
    confusion,
    counts,
    curves,
    flips,
    means,
    metric,
    ranks,
)

# Metric class name -> what is known of it, and the columnar kernel that computes it. The other
# classes that TFMA knows go through TFMA's own combiners (transforms/tfma/).
REGISTRY: dict[str, metric.Kind] = {
    **counts.METRICS,
    **confusion.METRICS,
    **curves.METRICS,
    **means.METRICS,
    **classes.METRICS,
    **flips.METRICS,
    **ranks.METRICS,
}
# The metrics if the config names none.
DEFAULTS = {
    "binary": (
        "ExampleCount",
        "BinaryAccuracy",
        "Precision",
        "Recall",
        "F1Score",
        "AUC",
        "AUCPrecisionRecall",
        "BinaryCrossentropy",
        "Calibration",
    ),
    "multiclass": ("ExampleCount", "CategoricalAccuracy", "Precision", "Recall", "F1Score"),
    "multilabel": ("ExampleCount", "BinaryAccuracy", "Precision", "Recall", "F1Score"),
    "regression": (
        "ExampleCount",
        "MeanSquaredError",
        "MeanAbsoluteError",
        "MeanLabel",
        "MeanPrediction",
    ),
}

_DIRECTIONS = {
    result: kind.direction
    for name, kind in REGISTRY.items()
    for result in (metric.snake_case(name), kind.name or metric.snake_case(name))
}


def build(request: metric.Request) -> tuple[metric.Metric, ...]:
    """The columnar metrics of a request.

    Raises:
      NeedsTfma: only TFMA can compute it.
    """
    if request.class_name not in REGISTRY:
        raise metric.NeedsTfma("evalbeam has no kernel of its own for it")
    return REGISTRY[request.class_name].build(request)


def list_tasks(class_name: str) -> tuple[str, ...]:
    """The tasks that a metric makes sense of, among those that it is known for."""
    return REGISTRY[class_name].tasks if class_name in REGISTRY else metric.ALL_TASKS


def direction(name: str) -> int:
    """1 for a result whose higher values are better, -1 for lower, 0 for neither.

    `name` is what the metric's class calls the result by default, such as "mean_squared_error" or
    "absolute_error_quantile@0.9".
    """
    return _DIRECTIONS.get(name.partition("@")[0], metric.NEITHER)
