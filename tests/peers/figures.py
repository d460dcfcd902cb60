"""Figures that other projects publish: data and results of their unit tests and documentation.

A figure is a number, which is meant to be exact, or text: what was printed, rounded or cut. Of an
output with several classes, a list has a figure for each of them (None where none is published).
Keys are the names of results, `confusion` their matrix by actual and predicted class (of several
labels, one for each); ` macro` and the like are averages, ` @0.5` is a threshold.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import log, nan, sqrt
from typing import Any

Figure = Any
Figures = dict[str, Figure]


@dataclass(frozen=True)
class Example:
    """Examples of one source, and what it says of them.

    Attributes:
      source: project, file or page, and the test or function in it.
      y, p, w: labels, scores and weights; `q` are the scores of a second version.
      groups: by column, what the examples are sliced by.
      slices: by slice within these examples, its figures.
    """

    source: str
    y: list
    p: list
    figures: Figures = field(default_factory=dict)
    w: list | None = None
    q: list | None = None
    groups: dict[str, list] = field(default_factory=dict)
    slices: dict[str, Figures] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """One run of evalbeam over several examples, a slice for each.

    Attributes:
      config: what its config has beyond data, metrics and slices.
    """

    metrics: list
    examples: dict[str, Example]
    config: dict[str, Any]
    data: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Different:
    """A published figure that evalbeam differs from, its own value by definition, and why."""

    job: str
    example: str
    key: str
    figure: Figure
    value: Figure
    why: str
    part: str = ""


def named(name: str, class_name: str, **config: Any) -> dict[str, Any]:
    """A metric with arguments; those of its entry start with an underscore."""
    entry = {key[1:]: value for key, value in config.items() if key.startswith("_")}
    config = {key: value for key, value in config.items() if not key.startswith("_")}
    return {"class_name": class_name, "config": {"name": name, **config}, **entry}


def averages(class_name: str, *kinds: str, **config: Any) -> list[dict[str, Any]]:
    """A metric averaged over all classes in several ways."""
    extra = {"config": config} if config else {}
    return [{"class_name": class_name, "aggregate": {"average": k}, **extra} for k in kinds]


def hot(classes: list[int], count: int) -> list[list[float]]:
    """Scores of which one is 1: a decision without a probability."""
    return [[float(k == c) for k in range(count)] for c in classes]


TFMA = "TFMA 0.52, metrics/"
KERAS = "Keras 3.15, docstring of metrics."
SKLEARN = "scikit-learn 1.9, docstring of "
GUIDE = "scikit-learn, doc/modules/model_evaluation.rst, "
TORCH = "torchmetrics, docstring of functional/"
FAIRLEARN = "fairlearn, "

# --- two classes ---------------------------------------------------------------------------------

# Between their scores, the curves of scikit-learn and torchmetrics (which decide by >=) are those
# of the thresholds published for the scores (evalbeam, TFMA and Keras decide by >).
BETWEEN = [0.09, 0.34, 0.39, 0.49, 0.69, 0.79]

BINARY_METRICS: list[Any] = [
    "ExampleCount", "WeightedExampleCount", "TruePositives", "TrueNegatives", "FalsePositives",
    "FalseNegatives", "TP", "TN", "FP", "FN", "BinaryAccuracy", "Precision", "PPV", "Recall", "TPR",
    "Specificity", "TNR", "FallOut", "FPR", "MissRate", "FNR", "NegativePredictiveValue", "NPV",
    "FalseDiscoveryRate", "FalseOmissionRate", "Prevalence", "PredictedPositiveRate",
    "PrevalenceThreshold", "ThreatScore", "BalancedAccuracy", "F1Score",
    "MatthewsCorrelationCoefficient", "FowlkesMallowsIndex", "Informedness", "Markedness",
    "PositiveLikelihoodRatio", "NegativeLikelihoodRatio", "DiagnosticOddsRatio",
    "AUC", "AUCPrecisionRecall", "MeanLabel", "MeanPrediction", "Calibration",
    "CoefficientOfDiscrimination", "RelativeCoefficientOfDiscrimination", "BinaryCrossentropy",
    "LogLoss", "BrierScore", "CohenKappa", "Hinge", "SquaredHinge",
    "BooleanFlipRates",
    named("precision_unweighted", "Precision", _weighted=False),
    named("auc_unweighted", "AUC", _weighted=False),
    named("auc_3", "AUC", num_thresholds=3),
    named("auc_200", "AUC", num_thresholds=200),
    named("auc_pr_200", "AUC", num_thresholds=200, curve="PR"),
    named("fbeta_2", "FBetaScore", beta=2.0),
    named("fbeta_0.6", "FBetaScore", beta=0.6),
    named("fbeta_0.5", "FBetaScore", beta=0.5),
    named("ece_2", "ExpectedCalibrationError", num_bins=2),
    named("specificity_at_sensitivity", "SpecificityAtSensitivity", sensitivity=0.5),
    named("sensitivity_at_specificity", "SensitivityAtSpecificity", specificity=0.5),
    named("precision_at_recall", "PrecisionAtRecall", recall=0.5),
    named("recall_at_precision", "RecallAtPrecision", precision=0.5),
    named("recall_at_precision_0.8", "RecallAtPrecision", precision=0.8),
    named("recall_at_fpr_0.6", "RecallAtFalsePositiveRate", false_positive_rate=0.6),
    named("recall_at_fpr_0.36", "RecallAtFalsePositiveRate", false_positive_rate=0.5 / 1.4),
    named("threshold_at_recall", "ThresholdAtRecall", recall=0.5),
    named("precision_between", "Precision", thresholds=BETWEEN),
    named("recall_between", "Recall", thresholds=BETWEEN),
    named("fall_out_between", "FallOut", thresholds=BETWEEN),
    named("miss_rate_between", "MissRate", thresholds=BETWEEN),
    named("accuracy_between", "BinaryAccuracy", threshold=BETWEEN),
    named("fair", "FairnessIndicators", thresholds=[0.5]),
]  # fmt: skip

_TFMA_Y = [1, 0, 0, 0, 0, 0, 1, 1, 1, 1]
_TFMA_P = [0.6, 0.3, 0.2, 0.6, 0.7, 0.8, 0.1, 0.2, 0.3, 0.4]
_FAIR_Y = [0, 1, 1, 1, 1, 0, 1, 0, 1, 0, 0, 0, 1, 1, 1, 1, 1, 1]
_FAIR_P = [0, 0, 1, 0, 1, 1, 1, 0, 0, 1, 1, 1, 1, 0, 0, 1, 1, 0]
_FAIR_GROUP = list("bbabbcccaacabccbcc")
_FAIR_OTHER = list("868888666866668666")
_TORCH_Y = [0, 1, 0, 1, 0, 1]
_TORCH_P = [0.11, 0.22, 0.84, 0.73, 0.33, 0.92]
_FOUR_Y, _FOUR_P = [0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]
_RATE = "fair/"

BINARY = {
    "tfma": Example(
        TFMA + "confusion_matrix_metrics_test.py, testConfusionMatrixMetrics",
        _TFMA_Y,
        _TFMA_P,
        {
            "auc": 0.26,
            "auc_precision_recall": "0.36205",
            "specificity_at_sensitivity": 0.2,
            "sensitivity_at_specificity": 0.0,
            "precision_at_recall": 0.5,
            "recall_at_precision": 1.0,
            "recall_at_fpr_0.6": 0.4,
            "threshold_at_recall": "0.29993",
            "true_positives": 1,
            "false_positives": 3,
            "true_negatives": 2,
            "false_negatives": 4,
            "tp": 1,
            "fp": 3,
            "tn": 2,
            "fn": 4,
            "binary_accuracy": 3 / 10,
            "precision": 1 / 4,
            "ppv": 1 / 4,
            "recall": 1 / 5,
            "tpr": 1 / 5,
            "specificity": 2 / 5,
            "tnr": 2 / 5,
            "fall_out": 3 / 5,
            "fpr": 3 / 5,
            "miss_rate": 4 / 5,
            "fnr": 4 / 5,
            "negative_predictive_value": 2 / 6,
            "npv": 2 / 6,
            "false_discovery_rate": 3 / 4,
            "false_omission_rate": 4 / 6,
            "prevalence": 5 / 10,
            "prevalence_threshold": (sqrt(1 / 5 * (1 - 2 / 5)) + 2 / 5 - 1) / (1 / 5 + 2 / 5 - 1),
            "threat_score": 1 / 8,
            "balanced_accuracy": (1 / 5 + 2 / 5) / 2,
            "f1_score": 2 / 9,
            "matthews_correlation_coefficient": (2 - 12) / sqrt(4 * 5 * 5 * 6),
            "fowlkes_mallows_index": sqrt(1 / 4 * 1 / 5),
            "informedness": 1 / 5 + 2 / 5 - 1,
            "markedness": 1 / 4 + 2 / 6 - 1,
            "positive_likelihood_ratio": (1 / 5) / (3 / 5),
            "negative_likelihood_ratio": (4 / 5) / (2 / 5),
            "diagnostic_odds_ratio": (1 / 3) / (4 / 2),
            "predicted_positive_rate": 4 / 10,
        },
    ),
    "tfma-weights": Example(
        TFMA + "confusion_matrix_metrics_test.py, testConfusionMatrixMetricsWithWeights",
        [0, 1, 0],
        [1.0, 0.7, 0.5],
        {
            "auc": "0.64286",
            "auc_precision_recall": "0.37467",
            "specificity_at_sensitivity": "0.642857",
            "sensitivity_at_specificity": 1.0,
            "precision_at_recall": "0.58333",
            "recall_at_precision": 1.0,
            "recall_at_fpr_0.36": 1.0,
            "true_positives": 0.7,
            "false_positives": 0.5,
            "true_negatives": 0.9,
            "false_negatives": 0.0,
            "binary_accuracy": 1.6 / 2.1,
            "precision": 0.7 / 1.2,
            "recall": 1.0,
            "specificity": 0.9 / 1.4,
            "fall_out": 0.5 / 1.4,
            "miss_rate": 0.0,
            "negative_predictive_value": 1.0,
            "false_discovery_rate": 0.5 / 1.2,
            "false_omission_rate": 0.0,
            "prevalence": 0.7 / 2.1,
            "prevalence_threshold": (sqrt(1 - 0.9 / 1.4) + 0.9 / 1.4 - 1) / (0.9 / 1.4),
            "threat_score": 0.7 / 1.2,
            "balanced_accuracy": (1 + 0.9 / 1.4) / 2,
            "f1_score": 1.4 / 1.9,
            "matthews_correlation_coefficient": 0.63 / sqrt(1.2 * 0.7 * 1.4 * 0.9),
            "fowlkes_mallows_index": sqrt(0.7 / 1.2),
            "informedness": 0.9 / 1.4,
            "markedness": 0.7 / 1.2,
            "positive_likelihood_ratio": 1.4 / 0.5,
            "negative_likelihood_ratio": 0.0,
            "predicted_positive_rate": 1.2 / 2.1,
            # calibration_test.py, testCalibrationMetricsWithWeights: the same examples
            "mean_label": 0.7 / 2.1,
            "mean_prediction": (0.5 + 0.7 * 0.7 + 0.5 * 0.9) / 2.1,
            "calibration": (0.5 + 0.7 * 0.7 + 0.5 * 0.9) / 0.7,
        },
        w=[0.5, 0.7, 0.9],
    ),
    "tfma-fractions": Example(
        TFMA + "confusion_matrix_metrics_test.py, testConfusionMatrixMetricsWithFractionalLabels",
        [0.0, 0.6, 0.8],
        [0.0, 0.7, 1.0],
        {
            "auc": "0.857142",
            "auc_precision_recall": "0.77369",
            "true_positives": 1.4,
            "false_positives": 0.6,
            "true_negatives": 1.0,
            "false_negatives": 0.0,
        },
    ),
    "tfma-negative": Example(
        TFMA + "confusion_matrix_metrics_test.py, testConfusionMatrixMetrics_DivideByZero",
        [0],
        [0.0],
        dict.fromkeys(
            [
                "precision", "recall", "miss_rate", "false_discovery_rate", "threat_score",
                "f1_score", "matthews_correlation_coefficient",
            ],
            nan,
        ),
    ),
    "tfma-positive": Example(
        TFMA + "confusion_matrix_metrics_test.py, testConfusionMatrixMetrics_DivideByZero",
        [1],
        [1.0],
        dict.fromkeys(
            ["specificity", "fall_out", "negative_predictive_value", "false_omission_rate"], nan
        ),
    ),
    "tfma-thresholds": Example(
        TFMA + "confusion_matrix_metrics_test.py, testConfusionMatrixAtThresholds",
        [0, 0, 1, 1],
        [0.0, 0.5, 0.3, 0.9],
        {
            "confusion @0.3": [[1, 1], [1, 1]],
            "confusion @0.5": [[2, 0], [1, 1]],
            "confusion @0.8": [[2, 0], [1, 1]],
            # tf_metric_wrapper_test.py, testMetricsWithoutWeights: the same examples
            "auc_200": 0.75,
            "auc_pr_200": "0.79727",
            "precision": 1.0,
            "recall": 0.5,
            "true_positives": 1,
            "false_positives": 0,
            "true_negatives": 2,
            "false_negatives": 1,
            "specificity_at_sensitivity": 1.0,
            "sensitivity_at_specificity": 1.0,
        },
    ),
    "tfma-unweighted": Example(
        TFMA + "tf_metric_wrapper_test.py, testMetricsWithoutWeights",
        [0, 0, 1, 1],
        [0.0, 0.5, 0.3, 0.9],
        {"auc_unweighted": 0.75, "precision_unweighted": 1.0},
        w=[0.1, 0.2, 0.3, 0.4],
    ),
    "tfma-calibration": Example(
        TFMA + "calibration_test.py, testCalibrationMetricsWithoutWeights",
        [0, 1, 1],
        [0.0, 0.3, 0.9],
        {"mean_label": 2 / 3, "mean_prediction": 1.2 / 3, "calibration": 1.2 / 2},
    ),
    "tfma-tjur": Example(
        TFMA + "tjur_discrimination_test.py, testTjuDicriminationMetricsWithoutWeights",
        [0, 1, 1],
        [0.8, 0.3, 0.9],
        {
            "coefficient_of_discrimination": 1.2 / 2 - 0.8,
            "relative_coefficient_of_discrimination": (1.2 / 2) / 0.8,
        },
    ),
    "tfma-tjur-weights": Example(
        TFMA + "tjur_discrimination_test.py, testTjuDicriminationMetricsWithWeights",
        [0, 1, 1, 0],
        [0.8, 0.3, 0.9, 0.2],
        {
            "coefficient_of_discrimination": 3.3 / 5 - 1.6 / 5,
            "relative_coefficient_of_discrimination": 3.3 / 1.6,
        },
        w=[1, 2, 3, 4],
    ),
    "tfma-tjur-one-class": Example(
        TFMA + "tjur_discrimination_test.py, testTjurDiscriminationMetricsWithNan",
        [0],
        [1.0],
        {"coefficient_of_discrimination": nan, "relative_coefficient_of_discrimination": nan},
    ),
    "tfma-flips": Example(
        TFMA + "flip_metrics_test.py, testBooleanFlipRates",
        [0, 0, 1, 1],
        [0.1, 0.9, 0.1, 0.9],
        {
            "flip_rate": 3 / 10,
            "neg_to_neg_flip_rate": 3 / 10,
            "neg_to_pos_flip_rate": 1 / 10,
            "pos_to_neg_flip_rate": 2 / 10,
            "pos_to_pos_flip_rate": 4 / 10,
        },
        w=[1, 2, 3, 4],
        q=[0.9, 0.1, 0.2, 0.8],
    ),
    "tfma-count": Example(
        TFMA + "example_count_test.py, testExampleCount",
        [0, 0, 1, 1],
        [0.5, 0.5, 0.5, 0.5],
        {"weighted_example_count": 2.2, "example_count": 4},
        w=[0.0, 0.5, 1.0, 0.7],
    ),
    "keras-accuracy": Example(
        KERAS + "BinaryAccuracy", [1, 1, 0, 0], [0.98, 1, 0, 0.6], {"binary_accuracy": 0.75}
    ),
    "keras-accuracy-weights": Example(
        KERAS + "BinaryAccuracy",
        [1, 1, 0, 0],
        [0.98, 1, 0, 0.6],
        {"binary_accuracy": 0.5},
        w=[1, 0, 0, 1],
    ),
    "keras-fp": Example(
        KERAS + "FalsePositives", [0, 1, 0, 0], [0, 0, 1, 1], {"false_positives": 2}
    ),
    "keras-fp-weights": Example(
        KERAS + "FalsePositives",
        [0, 1, 0, 0],
        [0, 0, 1, 1],
        {"false_positives": 1},
        w=[0, 0, 1, 0],
    ),
    "keras-fn": Example(
        KERAS + "FalseNegatives", [0, 1, 1, 1], [0, 1, 0, 0], {"false_negatives": 2}
    ),
    "keras-fn-weights": Example(
        KERAS + "FalseNegatives",
        [0, 1, 1, 1],
        [0, 1, 0, 0],
        {"false_negatives": 1},
        w=[0, 0, 1, 0],
    ),
    "keras-tn": Example(
        KERAS + "TrueNegatives", [0, 1, 0, 0], [1, 1, 0, 0], {"true_negatives": 2}
    ),
    "keras-tn-weights": Example(
        KERAS + "TrueNegatives",
        [0, 1, 0, 0],
        [1, 1, 0, 0],
        {"true_negatives": 1},
        w=[0, 0, 1, 0],
    ),
    "keras-tp": Example(
        KERAS + "TruePositives, Precision, Recall",
        [0, 1, 1, 1],
        [1, 0, 1, 1],
        {"true_positives": 2, "precision": 0.6666667, "recall": 0.6666667},
    ),
    "keras-tp-weights": Example(
        KERAS + "TruePositives, Precision, Recall",
        [0, 1, 1, 1],
        [1, 0, 1, 1],
        {"true_positives": 1, "precision": 1.0, "recall": 1.0},
        w=[0, 0, 1, 0],
    ),
    "keras-bounds": Example(
        KERAS + "SensitivityAtSpecificity, SpecificityAtSensitivity, PrecisionAtRecall",
        [0, 0, 0, 1, 1],
        [0, 0.3, 0.8, 0.3, 0.8],
        {
            "sensitivity_at_specificity": 0.5,
            "specificity_at_sensitivity": 0.66666667,
            "precision_at_recall": 0.5,
        },
    ),
    "keras-sensitivity-weights": Example(
        KERAS + "SensitivityAtSpecificity",
        [0, 0, 0, 1, 1],
        [0, 0.3, 0.8, 0.3, 0.8],
        {"sensitivity_at_specificity": "0.333333"},
        w=[1, 1, 2, 2, 1],
    ),
    "keras-specificity-weights": Example(
        KERAS + "SpecificityAtSensitivity",
        [0, 0, 0, 1, 1],
        [0, 0.3, 0.8, 0.3, 0.8],
        {"specificity_at_sensitivity": 0.5},
        w=[1, 1, 2, 2, 2],
    ),
    "keras-precision-weights": Example(
        KERAS + "PrecisionAtRecall",
        [0, 0, 0, 1, 1],
        [0, 0.3, 0.8, 0.3, 0.8],
        {"precision_at_recall": 0.33333333},
        w=[2, 2, 2, 1, 1],
    ),
    "keras-recall": Example(
        KERAS + "RecallAtPrecision, AUC",
        [0, 0, 1, 1],
        [0, 0.5, 0.3, 0.9],
        {"recall_at_precision_0.8": 0.5, "auc_3": 0.75},
    ),
    "keras-recall-weights": Example(
        KERAS + "RecallAtPrecision, AUC",
        [0, 0, 1, 1],
        [0, 0.5, 0.3, 0.9],
        {"recall_at_precision_0.8": 1.0, "auc_3": 1.0},
        w=[1, 0, 0, 1],
    ),
    "keras-losses": Example(
        KERAS + "BinaryCrossentropy, Hinge, SquaredHinge, one label at a time",
        [0, 1, 0, 0],
        [0.6, 0.4, 0.4, 0.6],
        {"binary_crossentropy": 0.81492424, "hinge": 1.3, "squared_hinge": 1.86},
    ),
    "keras-losses-weights": Example(
        KERAS + "BinaryCrossentropy, Hinge, SquaredHinge, one label at a time",
        [0, 1, 0, 0],
        [0.6, 0.4, 0.4, 0.6],
        {"binary_crossentropy": "0.91629", "hinge": 1.1, "squared_hinge": 1.46},
        w=[1, 1, 0, 0],
    ),
    "torch": Example(
        TORCH + "classification, binary_accuracy, _fbeta_score, _f1_score, _precision, ...",
        _TORCH_Y,
        _TORCH_P,
        {
            "binary_accuracy": "0.6667",
            "fbeta_2": "0.6667",
            "f1_score": "0.6667",
            "negative_predictive_value": "0.6667",
            "precision": "0.6667",
            "recall": "0.6667",
            "specificity": "0.6667",
            "true_positives": 2,
            "false_positives": 1,
            "true_negatives": 2,
            "false_negatives": 1,
        },
    ),
    "torch-decided": Example(
        TORCH + "classification, binary_accuracy, ..., decisions in place of scores",
        _TORCH_Y,
        [0, 0, 1, 1, 0, 1],
        {"binary_accuracy": "0.6667", "f1_score": "0.6667", "specificity": "0.6667"},
    ),
    "torch-samplewise-1": Example(
        TORCH + "classification, binary_*(multidim_average='samplewise'), the first sample",
        [0, 1, 1, 0, 0, 1],
        [0.59, 0.91, 0.91, 0.99, 0.63, 0.04],
        {
            "binary_accuracy": "0.3333",
            "fbeta_2": "0.5882",
            "f1_score": "0.5000",
            "negative_predictive_value": "0.0000",
            "precision": "0.4000",
            "recall": "0.6667",
            "specificity": "0.0000",
            "confusion @0.5": [[0, 3], [1, 2]],
        },
    ),
    "torch-samplewise-2": Example(
        TORCH + "classification, binary_*(multidim_average='samplewise'), the second sample",
        [1, 1, 0, 0, 1, 0],
        [0.38, 0.04, 0.86, 0.780, 0.45, 0.37],
        {
            "binary_accuracy": "0.1667",
            "fbeta_2": "0.0000",
            "f1_score": "0.0000",
            "negative_predictive_value": "0.2500",
            "precision": "0.0000",
            "recall": "0.0000",
            "specificity": "0.3333",
            "confusion @0.5": [[1, 2], [3, 0]],
        },
    ),
    "torch-curve": Example(
        TORCH + "classification, binary_auroc, _roc, _precision_recall_curve, _at_fixed_recall",
        [0, 1, 1, 0],
        [0, 0.5, 0.7, 0.8],
        {
            "auc": "0.5000",
            "precision_at_recall": "0.6667",
            "recall_at_precision": "1.0000",
            "precision_between @0.49": "0.6667",
            "precision_between @0.69": "0.5000",
            "precision_between @0.79": "0.0000",
            "recall_between @0.49": "1.0000",
            "recall_between @0.69": "0.5000",
            "recall_between @0.79": "0.0000",
            "fall_out_between @0.49": "0.5000",
            "fall_out_between @0.69": "0.5000",
            "fall_out_between @0.79": "0.5000",
        },
    ),
    "torch-sensitivity": Example(
        TORCH + "classification, binary_sensitivity_at_specificity, binary_specificity_at_...",
        [0, 1, 1, 1],
        [0, 0.5, 0.4, 0.1],
        {"sensitivity_at_specificity": "1.0000", "specificity_at_sensitivity": "1.0000"},
    ),
    "torch-auroc": Example(
        TORCH + "classification, auroc", [0, 0, 1, 1, 1], [0.13, 0.26, 0.08, 0.19, 0.34],
        {"auc": "0.5000"},
    ),
    "torch-calibration": Example(
        TORCH + "classification, binary_calibration_error, binary_hinge_loss",
        [0, 0, 1, 1, 1],
        [0.25, 0.25, 0.55, 0.75, 0.75],
        {"ece_2": "0.2900", "hinge": "0.6900", "squared_hinge": "0.6905"},
    ),
    "torch-hinge": Example(
        TORCH + "classification, hinge_loss", [0, 1, 1], [0.5, 0.7, 0.1], {"hinge": "0.9000"}
    ),
    "torch-kappa": Example(
        TORCH + "classification, binary_cohen_kappa, _confusion_matrix, _jaccard_index, ...",
        [1, 1, 0, 0],
        [0.35, 0.85, 0.48, 0.01],
        {
            "cohen_kappa": "0.5000",
            "confusion @0.5": [[2, 0], [1, 1]],
            "threat_score": "0.5000",
            "matthews_correlation_coefficient": "0.5774",
        },
    ),
    "torch-groups": Example(
        TORCH + "classification, binary_groups_stat_rates (tp, fp, tn, fn as shares)",
        [0, 1, 0, 1, 0, 1],
        [0.11, 0.84, 0.22, 0.73, 0.33, 0.92],
        groups={"group": list("010101")},
        slices={
            "group=0": {"prevalence": 0.0, _RATE + "negative_rate@0.5": 1.0},
            "group=1": {_RATE + "true_positive_rate@0.5": 1.0, _RATE + "positive_rate@0.5": 1.0},
        },
    ),
    "sklearn-confusion": Example(
        SKLEARN + "confusion_matrix", [0, 1, 0, 1], [1, 1, 1, 0],
        {"confusion @0.5": [[0, 2], [1, 1]]},
    ),
    "sklearn-balanced": Example(
        SKLEARN + "balanced_accuracy_score",
        [0, 1, 0, 0, 1, 0],
        [0, 1, 0, 0, 0, 1],
        {"balanced_accuracy": 0.625},
    ),
    "sklearn-ratios": Example(
        SKLEARN + "class_likelihood_ratios",
        [0, 1, 0, 1, 0],
        [1, 1, 0, 0, 0],
        {"positive_likelihood_ratio": 1.5, "negative_likelihood_ratio": 0.75},
    ),
    "sklearn-jaccard": Example(
        SKLEARN + "jaccard_score", [0, 1, 1], [1, 1, 1], {"threat_score": "0.6666"}
    ),
    "sklearn-brier": Example(
        SKLEARN + "brier_score_loss", [0, 1, 1, 0], [0.1, 0.9, 0.8, 0.3], {"brier_score": 0.0375}
    ),
    "sklearn-brier-decided": Example(
        SKLEARN + "brier_score_loss", [0, 1, 1, 0], [0, 1, 1, 0], {"brier_score": 0.0}
    ),
    "guide-brier": Example(
        GUIDE + "Brier score loss", [0, 1, 1, 0], [0.1, 0.9, 0.8, 0.4], {"brier_score": 0.055}
    ),
    "guide-log-loss": Example(
        GUIDE + "Log loss", [0, 0, 1, 1], [0.1, 0.2, 0.7, 0.99], {"log_loss": "0.1738"}
    ),
    "guide-binary": Example(
        GUIDE + "Binary classification",
        [0, 1, 0, 1],
        [0, 1, 0, 0],
        {
            "precision": 1.0,
            "recall": 0.5,
            "f1_score": "0.66",
            "fbeta_0.5": "0.83",
            "fbeta_2": "0.55",
        },
    ),
    "sklearn-curves": Example(
        SKLEARN + "roc_curve, auc, det_curve, precision_recall_curve, metric_at_thresholds, ...",
        _FOUR_Y,
        _FOUR_P,
        {
            "auc": 0.75,
            "precision_between @0.09": 0.5,
            "precision_between @0.34": 0.66666667,
            "precision_between @0.39": 0.5,
            "precision_between @0.79": 1.0,
            "recall_between @0.09": 1.0,
            "recall_between @0.34": 1.0,
            "recall_between @0.39": 0.5,
            "recall_between @0.79": 0.5,
            "fall_out_between @0.09": 1.0,
            "fall_out_between @0.34": 0.5,
            "fall_out_between @0.39": 0.5,
            "fall_out_between @0.79": 0.0,
            "miss_rate_between @0.34": 0.0,
            "miss_rate_between @0.39": 0.5,
            "miss_rate_between @0.79": 0.5,
            "accuracy_between @0.09": 0.5,
            "accuracy_between @0.34": 0.75,
            "accuracy_between @0.39": 0.5,
            "accuracy_between @0.79": 0.75,
        },
    ),
    "sklearn-nothing": Example(
        SKLEARN + "f1_score(zero_division=np.nan)", [0] * 6, [0] * 6, {"f1_score": nan}
    ),
    "fairlearn": Example(
        FAIRLEARN + "docs/user_guide/assessment/perform_fairness_assessment.rst, "
        "intersecting_groups.rst and advanced_metricframe.rst",
        _FAIR_Y,
        _FAIR_P,
        {
            "recall": 0.5,
            "fall_out": "0.666667",
            "predicted_positive_rate": "0.555556",
            "mean_prediction": "0.55555",
            "example_count": 18,
            "precision": 0.6,
            "fbeta_0.6": "0.56983",
            "confusion @0.5": [[2, 4], [6, 6]],
        },
        groups={"group": _FAIR_GROUP, "other": _FAIR_OTHER},
        slices={
            "group=a": {
                "recall": 0.5,
                "fall_out": 1.0,
                "predicted_positive_rate": 0.75,
                _RATE + "positive_rate@0.5": 0.75,
                "mean_prediction": 0.75,
                "example_count": 4,
                "fbeta_0.6": "0.365591",
                "confusion @0.5": [[0, 2], [1, 1]],
            },
            "group=b": {
                "recall": 0.6,
                "fall_out": 0.0,
                "predicted_positive_rate": 0.5,
                _RATE + "true_positive_rate@0.5": 0.6,
                "mean_prediction": 0.5,
                "example_count": 6,
                "fbeta_0.6": "0.85",
                "confusion @0.5": [[1, 0], [2, 3]],
            },
            "group=c": {
                "recall": 0.4,
                "fall_out": "0.666667",
                "predicted_positive_rate": 0.5,
                _RATE + "false_positive_rate@0.5": "0.666667",
                "mean_prediction": 0.5,
                "example_count": 8,
                "fbeta_0.6": "0.468966",
                "confusion @0.5": [[1, 2], [3, 2]],
            },
            "group=a;other=6": {"recall": 0.0, "example_count": 2},
            "group=a;other=8": {"recall": 1.0, "precision": 0.5, "example_count": 2},
            "group=b;other=6": {"recall": "0.666667", "precision": 1.0, "example_count": 3},
            "group=b;other=8": {"recall": 0.5, "precision": 1.0, "example_count": 3},
            "group=c;other=6": {"recall": 0.5, "precision": "0.666667", "example_count": 6},
            "group=c;other=8": {"recall": 0.0, "precision": 0.0, "example_count": 2},
        },
    ),
    "fairlearn-weights": Example(
        FAIRLEARN + "docs/user_guide/assessment/advanced_metricframe.rst, recall_weighted",
        _FAIR_Y,
        _FAIR_P,
        {"recall": "0.454545"},
        w=[1, 2, 1, 3, 2, 3, 1, 2, 1, 2, 3, 1, 2, 3, 2, 3, 1, 1],
        groups={"group": _FAIR_GROUP},
        slices={
            "group=a": {"recall": 0.5},
            "group=b": {"recall": "0.583333"},
            "group=c": {"recall": 0.25},
        },
    ),
    "fairlearn-weights-2": Example(
        FAIRLEARN + "docs/user_guide/assessment/advanced_metricframe.rst, recall_weight_2",
        _FAIR_Y,
        _FAIR_P,
        {"recall": "0.458333"},
        w=[3, 1, 2, 3, 2, 3, 1, 4, 1, 2, 3, 1, 2, 1, 4, 2, 2, 3],
        groups={"group": _FAIR_GROUP},
        slices={
            "group=a": {"recall": "0.666667"},
            "group=b": {"recall": 0.6},
            "group=c": {"recall": "0.272727"},
        },
    ),
    "fairlearn-control": Example(
        FAIRLEARN + "docs/user_guide/assessment/intersecting_groups.rst, control features",
        [0, 0, 0, 1, 1, 0, 1, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 1, 0, 1, 1, 1, 1, 1, 0],
        [1, 1, 0, 1, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1, 0, 0, 1, 1, 0, 0, 1],
        groups={
            "group": list("ABBCCBAABACBCACCBBCABBCABABBAA"),
            "other": list("HLHLHLLHHLLHHLLHLLHHLHLLHHLLHL"),
        },
        slices={
            "other=H": {"binary_accuracy": "0.4285"},
            "other=L": {"binary_accuracy": "0.375"},
            "group=A;other=H": {"binary_accuracy": 0.2},
            "group=B;other=H": {"binary_accuracy": 0.4},
            "group=C;other=H": {"binary_accuracy": 0.75},
            "group=A;other=L": {"binary_accuracy": 0.4},
            "group=B;other=L": {"binary_accuracy": "0.2857"},
            "group=C;other=L": {"binary_accuracy": 0.5},
        },
    ),
    "fairlearn-right": Example(
        FAIRLEARN + "test/unit/metrics/test_base_metrics.py, test_all_correct",
        [0, 0, 0, 0, 1],
        [0, 0, 0, 0, 1],
        {"recall": 1, "specificity": 1, "miss_rate": 0, "fall_out": 0},
    ),
    "fairlearn-wrong": Example(
        FAIRLEARN + "test/unit/metrics/test_base_metrics.py, test_none_correct",
        [0, 0, 0, 0, 1],
        [1, 1, 1, 1, 0],
        {"recall": 0, "specificity": 0, "miss_rate": 1, "fall_out": 1},
    ),
    "fairlearn-tpr": Example(
        FAIRLEARN + "test/unit/metrics/test_base_metrics.py, TestTPR.test_some_correct",
        [0, 0, 0, 0, 1, 1, 1, 1],
        [0, 0, 0, 1, 1, 0, 0, 0],
        {"recall": 0.25, "specificity": 0.75},
    ),
    "fairlearn-tnr": Example(
        FAIRLEARN + "test/unit/metrics/test_base_metrics.py, test_tnr_some_correct_with_...",
        [0, 0, 0, 0, 1],
        [0, 0, 1, 0, 0],
        {"specificity": 0.75},
    ),
    "fairlearn-fnr": Example(
        FAIRLEARN + "test/unit/metrics/test_base_metrics.py, TestFNR.test_some_correct",
        [1, 1, 1, 1, 0, 0],
        [0, 0, 1, 0, 0, 1],
        {"miss_rate": 0.75, "fall_out": 0.5},
    ),
    "fairlearn-zeros": Example(
        FAIRLEARN + "test/unit/metrics/test_base_metrics.py, TestSingleValueArrays.test_all_zeros",
        [0] * 10,
        [0] * 10,
        {"fall_out": 0, "specificity": 1},
    ),
    "fairlearn-selected": Example(
        FAIRLEARN + "test/unit/metrics/test_selection_rate.py, test_selection_rate_unweighted",
        [0] * 8,
        [0, 0, 0, 1, 1, 1, 1, 1],
        {"predicted_positive_rate": 0.625},
    ),
    "fairlearn-selected-weights": Example(
        FAIRLEARN + "test/unit/metrics/test_selection_rate.py, test_selection_rate_weighted",
        [0] * 8,
        [0, 1, 1, 0, 0, 0, 0, 0],
        {"predicted_positive_rate": 0.3125},
        w=[1, 2, 3, 4, 1, 2, 1, 2],
    ),
}  # fmt: skip

# --- numbers -------------------------------------------------------------------------------------

REGRESSION_METRICS: list[Any] = [
    "MeanAbsoluteError", "MeanSquaredError", "RootMeanSquaredError", "MeanSquaredLogarithmicError",
    "MeanAbsolutePercentageError", "SquaredPearsonCorrelation", "R2Score", "LogCoshError",
    "Poisson", "MeanPrediction", "MeanLabel", "Calibration",
]  # fmt: skip

_SK_Y, _SK_P = [3, -0.5, 2, 7], [2.5, 0.0, 2, 8]
_SK_Y2, _SK_P2 = [0.5, 1, -1, 1, 7, -6], [0, 2, -1, 2, 8, -5]
_KERAS_Y, _KERAS_P, _KERAS_W = [0, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]

REGRESSION = {
    "tfma-errors": Example(
        TFMA + "mean_regression_error_test.py, testRegressionErrorWithWeights, one label a row",
        [0.1, 0.3, 0.5, 1, 2, 3, 3],
        [1, 0, 2, 0.5, 1.0, 5, 5],
        {
            "mean_absolute_error": "1.292857",
            "mean_squared_error": "2.07607",
            "mean_absolute_percentage_error": "120.238095",
        },
        w=[0.1, 0.5, 1, 1, 1, 1, 1],
    ),
    "tfma-pearson": Example(
        TFMA + "squared_pearson_correlation_test.py, ...WithoutWeights",
        [2, 1, 2, 3],
        [1, 2, 3, 4],
        {"squared_pearson_correlation": 0.4},
    ),
    "tfma-pearson-weights": Example(
        TFMA + "squared_pearson_correlation_test.py, ...WithWeights",
        [1, 4, 3, 3],
        [1, 2, 3, 4],
        {"squared_pearson_correlation": "0.06667"},
        w=[1, 2, 3, 4],
    ),
    "tfma-pearson-one": Example(
        TFMA + "squared_pearson_correlation_test.py, ...MetricsWithNan",
        [0],
        [1],
        {"squared_pearson_correlation": nan},
    ),
    "keras": Example(
        KERAS + "MeanSquaredError, MeanAbsoluteError, ..., one label a row",
        _KERAS_Y,
        _KERAS_P,
        {
            "mean_squared_error": 0.25,
            "mean_absolute_error": 0.25,
            "root_mean_squared_error": 0.5,
            "mean_squared_logarithmic_error": 0.12011322,
            "log_cosh_error": 0.10844523,
            "poisson": 0.49999997,
        },
    ),
    "keras-weights": Example(
        KERAS + "MeanAbsoluteError, ..., one label a row",
        _KERAS_Y,
        _KERAS_P,
        {
            "mean_absolute_error": 0.5,
            "root_mean_squared_error": 0.70710677,
            "mean_squared_logarithmic_error": 0.24022643,
            "log_cosh_error": 0.21689045,
            "poisson": 0.99999994,
        },
        w=_KERAS_W,
    ),
    "keras-r2": Example(KERAS + "R2Score", [1, 4, 3], [2, 4, 4], {"r2_score": 0.57142854}),
    "keras-mse-loss": Example(
        "Keras 3.15, docstring of losses.MeanSquaredError",
        [1.0, 0.0, 1.0],
        [0.9, 0.1, 0.8],
        {"mean_squared_error": 0.02},
    ),
    "keras-mae-loss": Example(
        "Keras 3.15, docstring of losses.MeanAbsoluteError",
        [1.0, 0.3, 1.0],
        [1.9, 0.3, 1.8],
        {"mean_absolute_error": 0.5666667},
    ),
    "keras-mape-loss": Example(
        "Keras 3.15, docstring of losses.MeanAbsolutePercentageError",
        [100, 200, 300],
        [90, 210, 310],
        {"mean_absolute_percentage_error": "6.111111"},
    ),
    "sklearn": Example(
        SKLEARN + "mean_absolute_error, mean_squared_error, r2_score, ... (shares, not percents)",
        _SK_Y,
        _SK_P,
        {
            "mean_absolute_error": 0.5,
            "mean_absolute_percentage_error": "32.73",
            "mean_squared_error": 0.375,
            "root_mean_squared_error": "0.612",
            "r2_score": "0.948",
        },
    ),
    "sklearn-outputs": Example(
        SKLEARN + "mean_absolute_error, mean_squared_error, ..., two outputs, one a row",
        _SK_Y2,
        _SK_P2,
        {
            "mean_absolute_error": 0.75,
            "mean_absolute_percentage_error": "55.15",
            "mean_squared_error": "0.708",
        },
    ),
    "sklearn-output-1": Example(
        SKLEARN + "mean_absolute_error, mean_squared_error(multioutput='raw_values')",
        [0.5, -1, 7],
        [0, -1, 8],
        {"mean_absolute_error": 0.5, "mean_squared_error": 0.41666667, "r2_score": "0.965"},
    ),
    "sklearn-output-2": Example(
        SKLEARN + "mean_absolute_error, mean_squared_error(multioutput='raw_values')",
        [1, 1, -6],
        [2, 2, -5],
        {"mean_absolute_error": 1.0, "mean_squared_error": 1.0, "r2_score": "0.908"},
    ),
    "sklearn-msle": Example(
        SKLEARN + "mean_squared_log_error",
        [3, 5, 2.5, 7],
        [2.5, 5, 4, 8],
        {"mean_squared_logarithmic_error": "0.039"},
    ),
    "sklearn-msle-outputs": Example(
        SKLEARN + "mean_squared_log_error, two outputs, one a row",
        [0.5, 1, 1, 2, 7, 6],
        [0.5, 2, 1, 2.5, 8, 8],
        {"mean_squared_logarithmic_error": "0.044"},
    ),
    "sklearn-r2-right": Example(
        SKLEARN + "r2_score", [1, 2, 3], [1, 2, 3], {"r2_score": 1.0}
    ),
    "sklearn-r2-mean": Example(SKLEARN + "r2_score", [1, 2, 3], [2, 2, 2], {"r2_score": 0.0}),
    "sklearn-r2-reversed": Example(
        SKLEARN + "r2_score", [1, 2, 3], [3, 2, 1], {"r2_score": -3.0}
    ),
    "sklearn-r2-constant": Example(
        SKLEARN + "r2_score(force_finite=False)", [-2] * 3, [-2] * 3, {"r2_score": nan}
    ),
    "sklearn-r2-near": Example(SKLEARN + "r2_score", [-2] * 3, [-2, -2, -2 + 1e-8]),
    "sklearn-mape-zero": Example(
        SKLEARN + "mean_absolute_percentage_error", [1.0, 0.0, 2.4, 7.0], [1.2, 0.1, 2.4, 8.0]
    ),
    "torch": Example(
        TORCH + "regression, mean_squared_log_error, mean_absolute_error, mean_squared_error",
        [0, 1, 2, 2],
        [0, 1, 2, 3],
        {
            "mean_squared_logarithmic_error": "0.0207",
            "mean_absolute_error": "0.2500",
            "mean_squared_error": "0.2500",
        },
    ),
    "torch-log-cosh": Example(
        TORCH + "regression, log_cosh_error",
        [2.5, 5.0, 4.0, 8.0],
        [3.0, 5.0, 2.5, 7.0],
        {"log_cosh_error": "0.3523"},
    ),
    "torch-log-cosh-1": Example(
        TORCH + "regression, log_cosh_error, the first output",
        [2.5, 0.3],
        [3.0, -2.1],
        {"log_cosh_error": "0.9176"},
    ),
    "torch-mape": Example(
        TORCH + "regression, mean_absolute_percentage_error (a share, not percents)",
        [1, 10, 1e6],
        [0.9, 15, 1.2e6],
        {"mean_absolute_percentage_error": "26.67"},
    ),
    "torch-r2": Example(
        TORCH + "regression, r2_score, pearson_corrcoef (squared)",
        _SK_Y,
        _SK_P,
        {"r2_score": "0.9486", "squared_pearson_correlation": "0.970"},
    ),
    "fairlearn-mean": Example(
        FAIRLEARN + "test/unit/metrics/test_mean_predictions.py, test_mean_prediction_unweighted",
        [0] * 5,
        [0, 1, 2, 3, 4],
        {"mean_prediction": 2},
    ),
    "fairlearn-mean-weights": Example(
        FAIRLEARN + "test/unit/metrics/test_mean_predictions.py, test_mean_prediction_weighted",
        [0] * 5,
        [0, 1, 2, 3, 4],
        {"mean_prediction": 1},
        w=[8, 2, 1, 2, 1],
    ),
    "fairlearn-mean-one": Example(
        FAIRLEARN + "test/unit/metrics/test_mean_predictions.py, ..._weighted_single",
        [0],
        [42],
        {"mean_prediction": 42},
        w=[2],
    ),
}  # fmt: skip
# Scores within (0, 1): TFMA's cross entropy is infinite at 0 and 1.
INNER = {
    "tfma": Example(
        TFMA + "cross_entropy_metrics_test.py, testBinaryCrossEntropy_binary_two_examples",
        [0, 1],
        [0.6, 0.6],
        {"binary_crossentropy": "0.73608", "log_loss": "0.73608"},
        w=[1, 0.8],
    ),
}

JOBS = {
    "binary": Job(BINARY_METRICS, BINARY, {"task": "binary", "thresholds": [0.3, 0.5, 0.8]}),
    "inner": Job(["BinaryCrossEntropy", "LogLoss"], INNER, {"task": "binary"}),
    "regression": Job(REGRESSION_METRICS, REGRESSION, {"task": "regression"}),
}

DIFFERENT: list[Different] = []
PROJECTS = ("TFMA", "Keras", "scikit-learn", "torchmetrics", "fairlearn")
