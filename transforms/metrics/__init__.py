"""The table's statistics and the metrics made of them. To add one: see CONTRIBUTING.md."""

from __future__ import annotations

from evalbeam.transforms.metrics import classes, confusion, counts, curves, flips, means, metric

# Metric class name -> what is known of it, and the columnar kernel that computes it. The other
# classes that TFMA knows go through TFMA's own combiners (transforms/tfma/).
REGISTRY: dict[str, metric.Kind] = {
    **counts.METRICS,
    **confusion.METRICS,
    **curves.METRICS,
    **means.METRICS,
    **classes.METRICS,
    **flips.METRICS,
}
_DIRECTIONS = {metric.snake_case(name): kind.direction for name, kind in REGISTRY.items()}


def build(request: metric.Request) -> tuple[metric.Metric, ...]:
    """The columnar metrics of a request.

    Raises:
      NeedsTfma: only TFMA can compute it.
    """
    if request.class_name not in REGISTRY:
        raise metric.NeedsTfma("evalbeam has no kernel of its own for it")
    return REGISTRY[request.class_name].build(request)


def needs_classes(class_name: str) -> bool:
    """Whether a metric is about decisions, which a regression does not make."""
    return class_name in REGISTRY and REGISTRY[class_name].classification


def direction(name: str) -> int:
    """1 for a result whose higher values are better, -1 for lower, 0 for neither.

    `name` is what the metric's class calls the result by default, such as "mean_squared_error".
    """
    return _DIRECTIONS.get(name, metric.NEITHER)
