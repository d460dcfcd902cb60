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
    *("R2Score", "FBetaScore", "CohenKappa", "CosineSimilarity", "TopKCategoricalAccuracy"),
    "SparseTopKCategoricalAccuracy",
)
LOWER = (
    *("FallOut", "FPR", "MissRate", "FNR", "FalseDiscoveryRate", "FalseOmissionRate"),
    *("NegativeLikelihoodRatio", "MeanAbsoluteError", "MeanSquaredError"),
    *("RootMeanSquaredError", "MeanSquaredLogarithmicError", "MeanAbsolutePercentageError"),
    *("BinaryCrossentropy", "CategoricalCrossentropy", "SparseCategoricalCrossentropy"),
    *("BinaryCrossEntropy", "CategoricalCrossEntropy", "LogLoss", "BrierScore", "Hinge"),
    *("ExpectedCalibrationError", "SquaredHinge", "CategoricalHinge", "KLDivergence"),
    *("LogCoshError", "Poisson"),
)
NEITHER = (
    *("ExampleCount", "WeightedExampleCount", "TruePositives", "TP", "TrueNegatives", "TN"),
    *("FalsePositives", "FP", "FalseNegatives", "FN", "Prevalence", "PredictedPositiveRate"),
    *("PrevalenceThreshold", "ConfusionMatrixAtThresholds", "ThresholdAtRecall"),
    *("ConfusionMatrixPlot", "MeanLabel", "MeanPrediction", "Calibration", "CalibrationPlot"),
    *("RelativeCoefficientOfDiscrimination", "MultiClassConfusionMatrixPlot"),
    *("MultiClassConfusionMatrixAtThresholds", "MultiLabelConfusionMatrixPlot"),
    *("SymmetricFlipRate", "NegToNegFlipRate", "NegToPosFlipRate", "PosToNegFlipRate"),
    *("PosToPosFlipRate", "BooleanFlipRates", "FairnessIndicators"),
)
FOR_REGRESSION_TOO = (
    *("ExampleCount", "WeightedExampleCount", "MeanLabel", "MeanPrediction", "Calibration"),
    *("MeanAbsoluteError", "MeanSquaredError", "RootMeanSquaredError"),
    *("MeanSquaredLogarithmicError", "MeanAbsolutePercentageError", "SquaredPearsonCorrelation"),
    *("CoefficientOfDiscrimination", "RelativeCoefficientOfDiscrimination", "BinaryCrossEntropy"),
    *("BinaryCrossentropy", "CalibrationPlot", "SymmetricFlipRate", "R2Score", "LogCoshError"),
    "Poisson",
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


def test_results_have_the_direction_of_their_class() -> None:
    for name, kind in metrics.REGISTRY.items():
        assert metrics.direction(kind.name or metric.snake_case(name)) == kind.direction


def test_metrics_of_decisions_need_classes() -> None:
    for_regression = {name for name in metrics.REGISTRY if "regression" in metrics.list_tasks(name)}
    assert for_regression == set(FOR_REGRESSION_TOO)
    assert "regression" in metrics.list_tasks("NDCG")
