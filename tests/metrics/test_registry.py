"""The registry's facts about each metric: its direction, and whether it needs classes."""

from __future__ import annotations

import pytest

from evalbeam.transforms import metrics
from evalbeam.transforms.metrics import metric

HIGHER = (
    *("BinaryAccuracy", "Precision", "PPV", "Recall", "TPR", "MaxRecall", "Specificity", "TNR"),
    *("NegativePredictiveValue", "NPV", "ThreatScore", "BalancedAccuracy", "F1Score"),
    *("MatthewsCorrelationCoefficient", "FowlkesMallowsIndex", "Informedness", "Markedness"),
    *("PositiveLikelihoodRatio", "DiagnosticOddsRatio", "AUC", "AUCPrecisionRecall"),
    *("SensitivityAtSpecificity", "SpecificityAtSensitivity", "PrecisionAtRecall"),
    *("RecallAtPrecision", "RecallAtFalsePositiveRate", "CategoricalAccuracy"),
    *("SparseCategoricalAccuracy", "SquaredPearsonCorrelation", "CoefficientOfDiscrimination"),
)
LOWER = (
    *("FallOut", "FPR", "MissRate", "FNR", "FalseDiscoveryRate", "FalseOmissionRate"),
    *("NegativeLikelihoodRatio", "MeanAbsoluteError", "MeanSquaredError"),
    *("RootMeanSquaredError", "MeanSquaredLogarithmicError", "MeanAbsolutePercentageError"),
    *("BinaryCrossentropy", "CategoricalCrossentropy", "SparseCategoricalCrossentropy"),
    *("BinaryCrossEntropy", "CategoricalCrossEntropy"),
)
NEITHER = (
    *("ExampleCount", "WeightedExampleCount", "TruePositives", "TP", "TrueNegatives", "TN"),
    *("FalsePositives", "FP", "FalseNegatives", "FN", "Prevalence", "PredictedPositiveRate"),
    *("PrevalenceThreshold", "ConfusionMatrixAtThresholds", "ThresholdAtRecall"),
    *("ConfusionMatrixPlot", "MeanLabel", "MeanPrediction", "Calibration", "CalibrationPlot"),
    *("RelativeCoefficientOfDiscrimination", "MultiClassConfusionMatrixPlot"),
    *("MultiClassConfusionMatrixAtThresholds", "MultiLabelConfusionMatrixPlot"),
    *("SymmetricFlipRate", "NegToNegFlipRate", "NegToPosFlipRate", "PosToNegFlipRate"),
    *("PosToPosFlipRate", "BooleanFlipRates"),
)
FOR_REGRESSION_TOO = (
    *("ExampleCount", "WeightedExampleCount", "MeanLabel", "MeanPrediction", "Calibration"),
    *("MeanAbsoluteError", "MeanSquaredError", "RootMeanSquaredError"),
    *("MeanSquaredLogarithmicError", "MeanAbsolutePercentageError", "SquaredPearsonCorrelation"),
    *("CoefficientOfDiscrimination", "RelativeCoefficientOfDiscrimination", "BinaryCrossEntropy"),
    *("BinaryCrossentropy", "CategoricalCrossEntropy", "CategoricalCrossentropy"),
    *("SparseCategoricalCrossentropy", "CalibrationPlot", "SymmetricFlipRate"),
    *("NegToNegFlipRate", "NegToPosFlipRate", "PosToNegFlipRate", "PosToPosFlipRate"),
    "BooleanFlipRates",
)


def test_each_metric_has_its_direction() -> None:
    directions = {name: metrics.direction(metric.snake_case(name)) for name in metrics.REGISTRY}
    assert directions == {
        **dict.fromkeys(HIGHER, 1),
        **dict.fromkeys(LOWER, -1),
        **dict.fromkeys(NEITHER, 0),
    }


@pytest.mark.parametrize("name", ["changed_decisions", "flip_rate", "ndcg", "Precision", ""])
def test_other_results_have_no_direction(name: str) -> None:
    assert metrics.direction(name) == 0


def test_metrics_of_decisions_need_classes() -> None:
    needs_classes = {name for name in metrics.REGISTRY if metrics.needs_classes(name)}
    assert needs_classes == set(metrics.REGISTRY) - set(FOR_REGRESSION_TOO)
    assert set(FOR_REGRESSION_TOO) < set(metrics.REGISTRY)
    assert not metrics.needs_classes("NDCG")
