"""The registry's facts about each metric: its direction, and whether it needs classes."""

from __future__ import annotations

import pytest

from evalbeam.transforms import metrics
from evalbeam.transforms.metrics import glossary, metric

HIGHER = (
    *("BinaryAccuracy", "Precision", "PPV", "Recall", "TPR", "MaxRecall", "Specificity", "TNR"),
    *("NegativePredictiveValue", "NPV", "ThreatScore", "BalancedAccuracy", "F1Score"),
    *("MatthewsCorrelationCoefficient", "FowlkesMallowsIndex", "Informedness", "Markedness"),
    *("PositiveLikelihoodRatio", "DiagnosticOddsRatio", "AUC", "AUCPrecisionRecall"),
    *("SensitivityAtSpecificity", "SpecificityAtSensitivity", "PrecisionAtRecall"),
    *("RecallAtPrecision", "RecallAtFalsePositiveRate", "CategoricalAccuracy"),
    *("SparseCategoricalAccuracy", "SquaredPearsonCorrelation", "CoefficientOfDiscrimination"),
    *("R2Score", "FBetaScore", "CohenKappa", "CosineSimilarity", "TopKCategoricalAccuracy"),
    *("SparseTopKCategoricalAccuracy", "OneVersusOneAUC", "SpearmanCorrelation"),
)
LOWER = (
    *("FallOut", "FPR", "MissRate", "FNR", "FalseDiscoveryRate", "FalseOmissionRate"),
    *("NegativeLikelihoodRatio", "MeanAbsoluteError", "MeanSquaredError"),
    *("RootMeanSquaredError", "MeanSquaredLogarithmicError", "MeanAbsolutePercentageError"),
    *("BinaryCrossentropy", "CategoricalCrossentropy", "SparseCategoricalCrossentropy"),
    *("BinaryCrossEntropy", "CategoricalCrossEntropy", "LogLoss", "BrierScore", "Hinge"),
    *("ExpectedCalibrationError", "SquaredHinge", "CategoricalHinge", "KLDivergence"),
    *("LogCoshError", "Poisson", "MedianAbsoluteError", "AbsoluteErrorQuantiles"),
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
    *("CalibrationPlot", "SymmetricFlipRate", "R2Score", "LogCoshError"),
    *("Poisson", "MedianAbsoluteError", "AbsoluteErrorQuantiles"),
    *("NegToNegFlipRate", "NegToPosFlipRate", "PosToNegFlipRate", "PosToPosFlipRate"),
    *("BooleanFlipRates", "SpearmanCorrelation"),
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


def test_each_metric_is_described() -> None:
    aliases = {"TP", "TN", "FP", "FN", "PPV", "TPR", "TNR", "FPR", "FNR", "NPV"}
    missing = set(metrics.REGISTRY) - set(glossary.DEFINITIONS) - aliases
    assert not missing
    assert set(glossary.DIFFERENCES) <= set(glossary.DEFINITIONS)


@pytest.mark.parametrize(
    ("spelled", "name"),
    {
        "auc": "AUC",
        "roc_auc_score": "AUC",
        "Log_Loss": "LogLoss",
        "neg_log_loss": "LogLoss",
        "CohensKappa": "CohenKappa",
        "cohen_kappa_score": "CohenKappa",
        "f1_score": "F1Score",
        "balanced_accuracy_score": "BalancedAccuracy",
        "matthews_corrcoef": "MatthewsCorrelationCoefficient",
        "brier_score_loss": "BrierScore",
        "mean_squared_error": "MeanSquaredError",
        "r2_score": "R2Score",
        "average_precision_score": "AUCPrecisionRecall",
        "top_k_accuracy_score": "TopKCategoricalAccuracy",
        "median_absolute_error": "MedianAbsoluteError",
        "mean_absolute_percentage_error": "MeanAbsolutePercentageError",
        "ndcg": "NDCG",
        "spearman": "SpearmanCorrelation",
        "spearmanr": "SpearmanCorrelation",
        "SpearmanCorrCoef": "SpearmanCorrelation",
        "zero_one": None,
        "": None,
    }.items(),
)
def test_names_are_found_whatever_their_spelling(spelled: str, name: str | None) -> None:
    assert glossary.find(spelled) == name


def test_other_names_mean_classes_that_there_are() -> None:
    for alias, meant in glossary._ALIASES.items():
        for name in [meant] if isinstance(meant, str) else meant.values():
            assert name in glossary.DEFINITIONS, alias
