"""The table's statistics and the metrics made of them. To add one: see CONTRIBUTING.md."""

from __future__ import annotations

from evalbeam.transforms.metrics import classes, confusion, counts, curves, flips, means, metric

# Metric class name -> the columnar kernel that computes it. Whatever else TFMA knows goes through
# TFMA's own combiners (tfma.py).
REGISTRY: dict[str, metric.Builder] = {
    **counts.METRICS,
    **confusion.METRICS,
    **curves.METRICS,
    **means.METRICS,
    **classes.METRICS,
    **flips.METRICS,
}


def build(request: metric.Request) -> tuple[metric.Metric, ...] | None:
    """The columnar metrics of a request; None where only TFMA can compute it."""
    builder = REGISTRY.get(request.class_name)
    return builder(request) if builder else None


def needs_classes(class_name: str) -> bool:
    """Whether a metric is about decisions, which a regression does not make."""
    return class_name in {**confusion.METRICS, **curves.METRICS, **classes.METRICS}


def direction(name: str) -> int:
    """1 for a result whose higher values are better, -1 for lower, 0 for neither.

    Counts have no better way, as they grow with the data; nor have means and rates of decisions.
    """
    return (name in _HIGHER_IS_BETTER) - (name in _LOWER_IS_BETTER)


_HIGHER_IS_BETTER = frozenset(
    metric.snake_case(name)
    for name in (
        *("BinaryAccuracy", "Precision", "PPV", "Recall", "TPR", "MaxRecall", "Specificity", "TNR"),
        *("NegativePredictiveValue", "NPV", "ThreatScore", "BalancedAccuracy", "F1Score"),
        *("MatthewsCorrelationCoefficient", "FowlkesMallowsIndex", "Informedness", "Markedness"),
        *("PositiveLikelihoodRatio", "DiagnosticOddsRatio", "AUC", "AUCPrecisionRecall"),
        *("SensitivityAtSpecificity", "SpecificityAtSensitivity", "PrecisionAtRecall"),
        *("RecallAtPrecision", "RecallAtFalsePositiveRate", "CategoricalAccuracy"),
        *("SparseCategoricalAccuracy", "SquaredPearsonCorrelation", "CoefficientOfDiscrimination"),
    )
)
_LOWER_IS_BETTER = frozenset(
    metric.snake_case(name)
    for name in (
        *("FallOut", "FPR", "MissRate", "FNR", "FalseDiscoveryRate", "FalseOmissionRate"),
        *("NegativeLikelihoodRatio", "MeanAbsoluteError", "MeanSquaredError"),
        *("RootMeanSquaredError", "MeanSquaredLogarithmicError", "MeanAbsolutePercentageError"),
        *("BinaryCrossentropy", "CategoricalCrossentropy", "SparseCategoricalCrossentropy"),
        *("BinaryCrossEntropy", "CategoricalCrossEntropy"),
    )
)
