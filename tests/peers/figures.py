"""Figures that other projects publish: data and results of their unit tests and documentation.

A figure is a number, which is meant to be exact, or text: what was printed, rounded or cut. Of an
output with several classes, a list has a figure for each of them (None where none is published).
Keys are the names of results, `confusion` their matrix by actual and predicted class (of several
labels, one for each); ` macro` and the like are averages, ` top_2` is a `top_k`, and ` @0.5` a
threshold.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from math import exp, inf, log, log1p, nan, sqrt
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


def pr_area(*points: tuple[float, float]) -> float:
    """The area under precision over recall through (TP, FP), in between as Davis and Goadrich.

    Between two points the false positives grow in proportion to the true ones (2006, section 3),
    so the precision at x more true positives is (tp + x) / (tp + x + fp + slope * x).
    """
    area = 0.0
    for (tp, fp), (later, more) in itertools.pairwise([(0.0, 0.0), *points]):
        gained = later - tp
        if gained:
            growth, start = 1 + (more - fp) / gained, tp + fp
            area += gained / growth
            if start:
                area += (tp - start / growth) / growth * log1p(growth * gained / start)
    return area / points[-1][0]


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
SKTEST = "scikit-learn 1.9, metrics/tests/"
KTEST = "Keras 3.15, metrics/"
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
    named("auc_3_majoring", "AUC", num_thresholds=3, summation_method="majoring"),
    named("auc_3_minoring", "AUC", num_thresholds=3, summation_method="minoring"),
    named("auc_pr_3", "AUC", num_thresholds=3, curve="PR"),
    named("auc_pr_3_majoring", "AUC", num_thresholds=3, curve="PR", summation_method="majoring"),
    named("auc_pr_3_minoring", "AUC", num_thresholds=3, curve="PR", summation_method="minoring"),
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
    "keras-auc": Example(
        # Its comments have the figures as fractions.
        KTEST + "confusion_metrics_test.py, AUCTest, test_weighted_*",
        [0, 0, 1, 1],
        [0, 0.5, 0.3, 0.9],
        {
            "auc_3": (1 + 4 / 7) / 2,
            "auc_3_majoring": 1.0,
            "auc_3_minoring": 4 / 7,
            "auc_pr_3": (0.5 * (3 + 2 * log(2.5)) + 4) / 7,
            "auc_pr_3_majoring": 1.0,
            "auc_pr_3_minoring": 0.7 * 3 / 7,
        },
        w=[1, 2, 3, 4],
    ),
    "keras-precision": Example(
        KTEST + "confusion_metrics_test.py, PrecisionTest, test_unweighted",
        [0, 1, 1, 0],
        [1, 0, 1, 0],
        {"precision": 0.5},
    ),
    "keras-precision-of-none": Example(
        KTEST + "confusion_metrics_test.py, PrecisionTest, test_div_by_zero", [0] * 4, [0] * 4
    ),
    "keras-clipped": Example(
        KTEST + "probabilistic_metrics_test.py, BinaryCrossentropyTest; the same of tf_keras",
        [1, 0, 1, 0],
        [1, 1, 1, 0],
    ),
    "keras-clipped-weights": Example(
        KTEST + "probabilistic_metrics_test.py, BinaryCrossentropyTest; the same of tf_keras",
        [1, 0, 1, 0],
        [1, 1, 1, 0],
        w=[1.5, 1.5, 2, 2],
    ),
    "sklearn-kappa": Example(
        SKTEST + "test_classification.py, test_cohen_kappa (Artstein and Poesio 2008, Table 1)",
        [0] * 40 + [1] * 60,
        [0] * 20 + [1] * 20 + [0] * 10 + [1] * 50,
        {"cohen_kappa": "0.348"},
    ),
    "sklearn-auc-right": Example(
        SKTEST + "test_ranking.py, test_roc_curve_toydata", [0, 1], [0, 1], {"auc": 1.0}
    ),
    "sklearn-auc-wrong": Example(
        SKTEST + "test_ranking.py, test_roc_curve_toydata", [0, 1], [1, 0], {"auc": 0.0}
    ),
    "sklearn-auc-tied": Example(
        SKTEST + "test_ranking.py, test_roc_curve_toydata", [1, 0], [0.5, 0.5], {"auc": 0.5}
    ),
    "sklearn-one-label": Example(
        SKTEST + "test_ranking.py, test_roc_curve_one_label",
        [1] * 10,
        [0, 1] * 5,
        {"fall_out": nan},
    ),
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
            "group=a;other=6": {"recall": 0.0, "precision": 0.0, "example_count": 2},
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
    "fairlearn-ones": Example(
        FAIRLEARN + "test/unit/metrics/test_base_metrics.py, TestSingleValueArrays.test_all_ones",
        [1] * 10,
        [1] * 10,
        {"recall": 1, "miss_rate": 0},
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
    "Poisson", "MeanPrediction", "MeanLabel", "Calibration", "SpearmanCorrelation",
]  # fmt: skip

_SK_Y, _SK_P = [3, -0.5, 2, 7], [2.5, 0.0, 2, 8]
_SK_Y2, _SK_P2 = [0.5, 1, -1, 1, 7, -6], [0, 2, -1, 2, 8, -5]
_KERAS_Y, _KERAS_P, _KERAS_W = [0, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]

REGRESSION = {
    "sklearn-test-1": Example(
        SKTEST + "test_regression.py, test_regression_multioutput_array, the first output",
        [1, 2.5, 4.5, 5],
        [1, 2, 5, 5],
        {
            "mean_squared_error": 0.125,
            "mean_absolute_error": 0.25,
            "mean_absolute_percentage_error": "7.78",
            "r2_score": "0.95",
        },
    ),
    "sklearn-test-2": Example(
        SKTEST + "test_regression.py, test_regression_multioutput_array, the second output",
        [2, -1, 3, 7],
        [1, -1, 4, 6.5],
        {
            "mean_squared_error": 0.5625,
            "mean_absolute_error": 0.625,
            "mean_absolute_percentage_error": "22.62",
            "r2_score": "0.93",
        },
    ),
    "tfma-errors": Example(
        TFMA + "mean_regression_error_test.py, testRegressionErrorWithWeights, one label a row",
        [0.1, 0.3, 0.5, 1, 2, 3, 3],
        [1, 0, 2, 0.5, 1.0, 5, 5],
        {
            "mean_absolute_error": "1.292857",
            "mean_squared_error": "2.07607",
            "mean_absolute_percentage_error": "120.238095",
            "mean_squared_logarithmic_error": "0.20117",
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
        {"mean_absolute_error": 0.5, "mean_squared_error": 0.41666667},
    ),
    "sklearn-output-2": Example(
        SKLEARN + "mean_absolute_error, mean_squared_error(multioutput='raw_values')",
        [1, 1, -6],
        [2, 2, -5],
        {"mean_absolute_error": 1.0, "mean_squared_error": 1.0},
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
    "torch-r2-output-1": Example(
        TORCH + "regression, r2_score(multioutput='raw_values')",
        [0.5, -1, 7],
        [0, -1, 8],
        {"r2_score": "0.9654"},
    ),
    "torch-r2-output-2": Example(
        TORCH + "regression, r2_score(multioutput='raw_values')",
        [1, 1, -6],
        [2, 2, -5],
        {"r2_score": "0.9082"},
    ),
    "torch-r2": Example(
        TORCH + "regression, r2_score, pearson_corrcoef (squared), spearman_corrcoef",
        _SK_Y,
        _SK_P,
        {
            "r2_score": "0.9486",
            "squared_pearson_correlation": "0.970",
            "spearman_correlation": "1.0000",
        },
    ),
    "scipy-spearman": Example(
        "SciPy 1.17, docstring of stats.spearmanr",
        [1, 2, 3, 4, 5],
        [5, 6, 7, 8, 7],
        {"spearman_correlation": 0.8207826816681233, "spearman_correlation_error_bound": 0.0},
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

LOGITS = {
    "tf-keras-far": Example(
        "Keras 2 (tf_keras), metrics/probabilistic_metrics_test.py, test_unweighted_with_logits",
        [1, 0, 1, 0, 1, 1],
        [100, -100, 100, 100, 100, -100],
    ),
    "tf-keras-far-weights": Example(
        "Keras 2 (tf_keras), metrics/probabilistic_metrics_test.py, test_weighted_from_logits",
        [1, 0, 1, 0, 1, 1],
        [100, -100, 100, 100, 100, -100],
        w=[2, 2, 2, 2.5, 2.5, 2.5],
    ),
    "keras-test": Example(
        KTEST + "probabilistic_metrics_test.py, BinaryCrossentropyTest, ..._with_logits",
        [1, 0, 1, 0, 1, 1],
        [10, -10, 10, 10, 10, -10],
        {"log_loss": "3.333"},
    ),
    "keras-test-weights": Example(
        KTEST + "probabilistic_metrics_test.py, BinaryCrossentropyTest, ..._weighted_from_logits",
        [1, 0, 1, 0, 1, 1],
        [10, -10, 10, 10, 10, -10],
        {"log_loss": "3.7037"},
        w=[2, 2, 2, 2.5, 2.5, 2.5],
    ),
    "keras": Example(
        "Keras 3.15, docstring of losses.BinaryCrossentropy(from_logits=True)",
        [0, 1, 0, 0],
        [-18.6, 0.51, 2.94, -12.8],
        {"binary_crossentropy": "0.8654", "log_loss": "0.8654"},
    ),
    "tfma": Example(
        TFMA + "cross_entropy_metrics_test.py, ..._binary_two_examples_per_batch_from_logits",
        [0, 1, 0, 0],
        [-18.6, 0.51, 2.94, -12.8],
        {"log_loss": "0.86545"},
    ),
    "keras-loss-1": Example(
        "Keras 3.15, docstring of losses.BinaryCrossentropy(reduction=None), the first sample",
        [0, 1],
        [-18.6, 0.51],
        {"log_loss": "0.235"},
    ),
    "keras-loss-2": Example(
        "Keras 3.15, docstring of losses.BinaryCrossentropy(reduction=None), the second sample",
        [0, 0],
        [2.94, -12.8],
        {"log_loss": "1.496"},
    ),
    "keras-weights": Example(
        "Keras 3.15, docstring of losses.BinaryCrossentropy(sample_weight=[0.8, 0.2])",
        [0, 1, 0, 0],
        [-18.6, 0.51, 2.94, -12.8],
        w=[0.8, 0.8, 0.2, 0.2],
    ),
}

# Labels of other kinds than 0 and 1.
SIGNS = {
    "sklearn": Example(
        SKLEARN + "matthews_corrcoef",
        [1, 1, 1, -1],
        ["1", "-1", "1", "1"],
        {"matthews_correlation_coefficient": "-0.33"},
    ),
    "fairlearn-tnr": Example(
        FAIRLEARN + "test/unit/metrics/test_base_metrics.py, TestTNR.test_some_correct",
        [-1, -1, -1, -1, 1],
        ["-1", "-1", "-1", "1", "1"],
        {"specificity": 0.75, "recall": 1},
    ),
    "fairlearn-fpr": Example(
        FAIRLEARN + "test/unit/metrics/test_base_metrics.py, TestFPR.test_some_correct",
        [-1, -1, -1, -1, 1, 1, 1],
        ["-1", "1", "1", "-1", "-1", "1", "-1"],
        {"fall_out": 0.5, "miss_rate": 0.6666667},
    ),
}

LETTERS = {
    "fairlearn-selected": Example(
        FAIRLEARN + "test/unit/metrics/test_selection_rate.py, test_selection_rate_non_numeric",
        list("abababab"),
        list("aaabbbaa"),
        {"predicted_positive_rate": 0.375},
    ),
    "fairlearn-tnr": Example(
        FAIRLEARN + "test/unit/metrics/test_base_metrics.py, test_some_correct_other_labels",
        list("bbbba"),
        list("bbbaa"),
        {"specificity": 1, "recall": 0.75},
    ),
    "fairlearn-fnr": Example(
        FAIRLEARN + "test/unit/metrics/test_base_metrics.py, TestFNR.test_some_correct_other_...",
        list("aaaabb"),
        list("bbabba"),
        {"fall_out": 0.75, "miss_rate": 0.5},
    ),
}

CATS = {
    "sklearn": Example(
        SKLEARN + "class_likelihood_ratios(labels=['non-cat', 'cat'])",
        ["non-cat", "cat", "non-cat", "cat", "non-cat"],
        ["cat", "cat", "non-cat", "non-cat", "non-cat"],
        {"positive_likelihood_ratio": 1.5, "negative_likelihood_ratio": 0.75},
    ),
}
NON_CATS = {
    "sklearn": Example(
        SKLEARN + "class_likelihood_ratios, 'non-cat' is positive as the last in sorted order",
        ["non-cat", "cat", "non-cat", "cat", "non-cat"],
        ["cat", "cat", "non-cat", "non-cat", "non-cat"],
        {"positive_likelihood_ratio": "1.33", "negative_likelihood_ratio": "0.66"},
    ),
}

SPAM = {
    "sklearn-test": Example(
        SKTEST + "test_classification.py, test_log_loss",
        ["ham", "spam", "spam", "ham"],
        [[0.3, 0.7], [0.6, 0.4], [0.4, 0.6], [0.7, 0.3]],
        {"log_loss": 0.7469410},
    ),
    "sklearn": Example(
        SKLEARN + "log_loss",
        ["spam", "ham", "ham", "spam"],
        [[0.1, 0.9], [0.9, 0.1], [0.8, 0.2], [0.35, 0.65]],
        {"log_loss": "0.21616"},
    ),
}
HAM = {
    "sklearn": Example(
        SKLEARN + "brier_score_loss(pos_label='ham')",
        ["spam", "ham", "ham", "spam"],
        [0.1, 0.9, 0.8, 0.3],
        {"brier_score": 0.0375},
    ),
}

# What an SVM returns, not a probability.
MARGINS = {
    "keras": Example(
        KTEST + "hinge_metrics_test.py, test_unweighted, one label a row",
        [-1, 1, -1, 1, -1, -1, 1, 1],
        [-0.3, 0.2, -0.1, 1.6, -0.25, -1.0, 0.5, 0.6],
        {"hinge": "0.506", "squared_hinge": "0.364"},
    ),
    "keras-weights": Example(
        KTEST + "hinge_metrics_test.py, test_weighted, one label a row",
        [-1, 1, -1, 1, -1, -1, 1, 1],
        [-0.3, 0.2, -0.1, 1.6, -0.25, -1.0, 0.5, 0.6],
        {"hinge": "0.493", "squared_hinge": "0.347"},
        w=[1.5] * 4 + [2.0] * 4,
    ),
    "sklearn": Example(SKLEARN + "hinge_loss", [-1, 1, 1], [-2.18, 2.36, 0.09], {"hinge": "0.30"}),
}

# --- several classes -----------------------------------------------------------------------------

KINDS = ("micro", "weighted_macro")


def _several(classes: int) -> list[Any]:
    """Metrics of an output with some classes."""
    ids = {"class_ids": list(range(classes))}
    rates = [
        "TruePositives", "FalsePositives", "TrueNegatives", "FalseNegatives", "Specificity",
        "NegativePredictiveValue", "ThreatScore", "Precision", "Recall", "F1Score",
    ]  # fmt: skip
    found: list[Any] = [*rates, "MatthewsCorrelationCoefficient"]
    for rate in rates:
        found += averages(rate, *KINDS)
    for name, beta in (("fbeta_2", 2.0), ("fbeta_0.5", 0.5)):
        found.append(named(name, "FBetaScore", beta=beta))
        found += averages("FBetaScore", *KINDS, name=name, beta=beta)
    curves = {
        "auc": ("AUC", {}),
        "auc_pr": ("AUCPrecisionRecall", {}),
        "precision_at_recall": ("PrecisionAtRecall", {"recall": 0.5}),
        "recall_at_precision": ("RecallAtPrecision", {"precision": 0.5}),
        "sensitivity_at_specificity": ("SensitivityAtSpecificity", {"specificity": 0.5}),
        "specificity_at_sensitivity": ("SpecificityAtSensitivity", {"sensitivity": 0.5}),
        "hinge": ("Hinge", {}),
    }
    for name, (class_name, config) in curves.items():
        found.append(named(name, class_name, **config, _binarize=ids))
        found += averages(class_name, "macro", name=name, **config)
    return found


def _multiclass(classes: int) -> list[Any]:
    return [
        *_several(classes),
        "ExampleCount", "SparseCategoricalAccuracy", "CategoricalAccuracy", "CohenKappa", "LogLoss",
        "BrierScore", "CategoricalCrossentropy", "SparseCategoricalCrossentropy",
        "CategoricalHinge",
        named(
            "recall_of_some",
            "Recall",
            _aggregate={"average": "micro", "class_weights": {c: 1.0 for c in range(1, classes)}},
        ),
        named("kappa_linear", "CohenKappa", weights="linear"),
        named("kappa_quadratic", "CohenKappa", weights="quadratic"),
        named("top_1", "TopKCategoricalAccuracy", k=1),
        named("top_2", "SparseTopKCategoricalAccuracy", k=2),
        named("top_3", "TopKCategoricalAccuracy", k=3),
    ]  # fmt: skip


_T3_Y = [2, 1, 0, 0]
_T3_P = [[0.16, 0.26, 0.58], [0.22, 0.61, 0.17], [0.71, 0.09, 0.20], [0.05, 0.82, 0.13]]
_T3_FIGURES = {
    "recall macro": "0.8333",
    "recall": ["0.5000", "1.0000", "1.0000"],
    "precision macro": "0.8333",
    "precision": ["1.0000", "0.5000", "1.0000"],
    "cohen_kappa": "0.6364",
    "confusion": [[1, 1, 0], [0, 1, 0], [0, 0, 1]],
    "fbeta_2 macro": "0.7963",
    "fbeta_2": ["0.5556", "0.8333", "1.0000"],
    "f1_score macro": "0.7778",
    "f1_score": ["0.6667", "0.6667", "1.0000"],
    "negative_predictive_value macro": "0.8889",
    "negative_predictive_value": ["0.6667", "1.0000", "1.0000"],
    "specificity macro": "0.8889",
    "specificity": ["1.0000", "0.6667", "1.0000"],
    "threat_score macro": "0.6667",
    "true_positives": [1, 1, 1],
    "false_positives": [0, 1, 0],
    "true_negatives": [2, 2, 3],
    "false_negatives": [1, 0, 0],
    "true_positives micro": 3,
    "false_positives micro": 1,
    "true_negatives micro": 7,
    "false_negatives micro": 1,
}
_F_Y, _F_P = [0, 1, 2, 0, 1, 2], hot([0, 2, 1, 0, 0, 1], 3)
_K3_P = [[0.05, 0.95, 0], [0.1, 0.8, 0.1]]

THREE = {
    "sklearn-kappa": Example(
        SKTEST + "test_classification.py, test_cohen_kappa (Artstein and Poesio 2008, Table 4)",
        [0] * 46 + [1] * 44 + [2] * 10,
        hot([0] * 52 + [1] * 32 + [2] * 16, 3),
        {"cohen_kappa": "0.8013"},
    ),
    "sklearn-kappa-weights": Example(
        SKTEST + "test_classification.py, test_cohen_kappa",
        [0] * 46 + [1] * 44 + [2] * 10,
        hot([0] * 50 + [1] * 40 + [2] * 10, 3),
        {"cohen_kappa": "0.9315", "kappa_linear": "0.9412", "kappa_quadratic": "0.9541"},
    ),
    "sklearn-losses": Example(
        SKTEST + "test_classification.py, test_log_loss, test_brier_score_loss_multiclass",
        [1, 0, 2],
        [[0.2, 0.7, 0.1], [0.6, 0.2, 0.2], [0.6, 0.1, 0.3]],
        {"log_loss": 0.6904911, "brier_score": 0.41333333},
    ),
    "sklearn-brier-right": Example(
        SKTEST + "test_classification.py, test_brier_score_loss_multiclass",
        [0, 1, 2],
        hot([0, 1, 2], 3),
        {"brier_score": 0},
    ),
    "sklearn-brier-wrong": Example(
        SKTEST + "test_classification.py, test_brier_score_loss_multiclass",
        [0, 1, 2],
        hot([1, 0, 0], 3),
        {"brier_score": 2},
    ),
    "keras-test-weights": Example(
        KTEST + "probabilistic_metrics_test.py, CategoricalCrossentropyTest, test_weighted",
        [1, 2],
        _K3_P,
        {"categorical_crossentropy": "1.338", "sparse_categorical_crossentropy": "1.338"},
        w=[1.5, 2.0],
    ),
    "torch": Example(
        TORCH + "classification, multiclass_accuracy, _recall, _cohen_kappa, _fbeta_score, ...",
        _T3_Y,
        _T3_P,
        # The micro averages of TFMA decide at 0.5, as the largest scores do here.
        _T3_FIGURES,
    ),
    "torch-decided": Example(
        TORCH + "classification, multiclass_*, decisions in place of scores",
        _T3_Y,
        hot([2, 1, 0, 1], 3),
        _T3_FIGURES,
    ),
    "torch-averages": Example(
        TORCH + "classification, precision, recall, specificity, negative_predictive_value",
        [1, 1, 2, 0],
        hot([2, 0, 2, 1], 3),
        {
            "precision macro": "0.1667",
            "precision micro": "0.2500",
            "recall macro": "0.3333",
            "recall micro": "0.2500",
            "specificity macro": "0.6111",
            "specificity micro": "0.6250",
            "negative_predictive_value macro": "0.6667",
            "negative_predictive_value micro": "0.6250",
        },
    ),
    "torch-samplewise-1": Example(
        TORCH + "classification, multiclass_*(multidim_average='samplewise'), the first sample",
        [0, 1, 2, 1, 0, 2],
        hot([0, 2, 2, 0, 0, 1], 3),
        {
            "recall macro": "0.5000",
            "recall": ["1.0000", "0.0000", "0.5000"],
            "precision macro": "0.3889",
            "precision": ["0.6667", "0.0000", "0.5000"],
            "f1_score macro": "0.4333",
            "f1_score": ["0.8000", "0.0000", "0.5000"],
            "fbeta_2 macro": "0.4697",
            "fbeta_2": ["0.9091", "0.0000", "0.5000"],
            "negative_predictive_value": ["1.0000", "0.6000", "0.7500"],
            "negative_predictive_value macro": "0.7833",
            "specificity": ["0.7500", "0.7500", "0.7500"],
            "true_positives micro": 3,
            "false_positives micro": 3,
            "true_negatives micro": 9,
            "false_negatives micro": 3,
        },
    ),
    "torch-samplewise-2": Example(
        TORCH + "classification, multiclass_*(multidim_average='samplewise'), the second sample",
        [1, 1, 2, 0, 1, 2],
        hot([2, 2, 2, 1, 1, 0], 3),
        {
            "recall": ["0.0000", "0.3333", "0.5000"],
            "recall macro": "0.2778",
            "precision": ["0.0000", "0.5000", "0.3333"],
            "f1_score": ["0.0000", "0.4000", "0.4000"],
            "fbeta_2": ["0.0000", "0.3571", "0.4545"],
            "negative_predictive_value": ["0.8000", "0.5000", "0.6667"],
            "specificity": ["0.8000", "0.6667", "0.5000"],
        },
    ),
    "torch-f": Example(
        TORCH + "classification, f1_score, fbeta_score",
        _F_Y,
        _F_P,
        {"f1_score micro": "0.3333", "fbeta_0.5 micro": "0.3333"},
    ),
    "torch-counts": Example(
        TORCH + "classification, stat_scores",
        [1, 1, 2, 0],
        hot([1, 0, 2, 1], 3),
        {
            "true_positives": [0, 1, 1],
            "false_positives": [1, 1, 0],
            "true_negatives": [2, 1, 3],
            "false_negatives": [1, 1, 0],
            "true_positives micro": 2,
            "false_positives micro": 2,
            "true_negatives micro": 6,
            "false_negatives micro": 2,
        },
    ),
    "torch-auroc": Example(
        TORCH + "classification, auroc",
        [0, 1, 1, 2, 2],
        [[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.05, 0.05, 0.9], [0.85, 0.05, 0.1],
         [0.1, 0.1, 0.8]],
        {"auc macro": "0.7778"},
    ),
    "torch-top": Example(
        TORCH + "classification, accuracy(top_k=2)",
        [0, 1, 2],
        [[0.1, 0.9, 0], [0.3, 0.1, 0.6], [0.2, 0.5, 0.3]],
        {"top_2": "0.6667"},
    ),
    "torch-hinge": Example(
        TORCH + "classification, multiclass_hinge_loss",
        [0, 1, 2, 0],
        [[0.25, 0.20, 0.55], [0.55, 0.05, 0.40], [0.10, 0.30, 0.60], [0.90, 0.05, 0.05]],
        {"categorical_hinge": "0.9125", "hinge": ["0.8750", "1.1250", "1.1000"]},
    ),
    "sklearn-f": Example(
        SKLEARN + "f1_score, fbeta_score, precision_score, recall_score",
        _F_Y,
        _F_P,
        {
            "f1_score macro": "0.267",
            "f1_score micro": "0.33",
            "f1_score weighted_macro": "0.267",
            "f1_score": [0.8, 0.0, 0.0],
            "fbeta_0.5 macro": "0.238",
            "fbeta_0.5 micro": "0.33",
            "fbeta_0.5 weighted_macro": "0.238",
            "fbeta_0.5": ["0.71", 0.0, 0.0],
            "precision macro": "0.22",
            "precision micro": "0.33",
            "precision weighted_macro": "0.22",
            "precision": ["0.66", 0.0, 0.0],
            "recall macro": "0.33",
            "recall micro": "0.33",
            "recall weighted_macro": "0.33",
            "recall": [1.0, 0.0, 0.0],
        },
    ),
    "guide-some-classes": Example(
        GUIDE + "recall_score(labels=[1, 2], average='micro')",
        _F_Y,
        _F_P,
        {"recall_of_some micro": 0.0},
    ),
    "sklearn-one-predicted": Example(
        SKLEARN + "precision_score(zero_division=np.nan), fbeta_score(zero_division=np.nan)",
        _F_Y,
        hot([0] * 6, 3),
        {"precision": ["0.33", nan, nan], "fbeta_0.5 macro": "0.128"},
    ),
    "sklearn-one-actual": Example(
        SKLEARN + "recall_score(zero_division=np.nan)",
        [0] * 6,
        _F_P,
        {"recall": [0.5, nan, nan]},
    ),
    "sklearn-report": Example(
        SKLEARN + "classification_report",
        [0, 1, 2, 2, 2],
        hot([0, 0, 2, 2, 1], 3),
        {
            "precision": ["0.50", "0.00", "1.00"],
            "recall": ["1.00", "0.00", "0.67"],
            "f1_score": ["0.67", "0.00", "0.80"],
            "sparse_categorical_accuracy": "0.60",
            "precision macro": "0.50",
            "recall macro": "0.56",
            "f1_score macro": "0.49",
            "precision weighted_macro": "0.70",
            "recall weighted_macro": "0.60",
            "f1_score weighted_macro": "0.61",
            "example_count": 5,
        },
    ),
    "sklearn-confusion": Example(
        SKLEARN + "confusion_matrix",
        [2, 0, 2, 2, 0, 1],
        hot([0, 0, 2, 2, 0, 2], 3),
        {"confusion": [[2, 0, 0], [0, 0, 1], [1, 0, 2]]},
    ),
    "sklearn-jaccard": Example(
        SKLEARN + "jaccard_score, and " + GUIDE + "Jaccard similarity coefficient score",
        [0, 1, 2, 2],
        hot([0, 2, 1, 2], 3),
        {
            "threat_score": [1.0, 0.0, "0.33"],
            "threat_score macro": "0.44",
            "threat_score micro": "0.33",
        },
    ),
    "sklearn-brier": Example(
        SKLEARN + "brier_score_loss(labels=['eggs', 'ham', 'spam'])",
        [0, 1, 2],
        [[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.2, 0.2, 0.6]],
        {"brier_score": "0.146"},
    ),
    "sklearn-precision": Example(
        SKLEARN + "average_precision_score",
        [0, 0, 1, 1, 2, 2],
        [[0.7, 0.2, 0.1], [0.4, 0.3, 0.3], [0.1, 0.8, 0.1], [0.2, 0.3, 0.5], [0.4, 0.4, 0.2],
         [0.1, 0.2, 0.7]],
    ),
    "tfma-plot": Example(
        TFMA + "multi_class_confusion_matrix_plot_test.py, testMultiClassConfusionMatrixPlot",
        [2, 0, 1, 1, 1, 2],
        [
            [0.2, 0.3, 0.5],
            [0.1, 0.4, 0.5],
            [0.3, 0.2, 0.5],
            [0.1, 0.9, 0.0],
            [0.1, 0.8, 0.1],
            [0.3, 0.2, 0.5],
        ],
        {"confusion": [[0, 0, 1], [0, 2, 0.25], [0, 0, 1.5]]},
        w=[0.5, 1.0, 0.25, 1.0, 1.0, 1.0],
    ),
    "tfma-matrix": Example(
        TFMA + "multi_class_confusion_matrix_metrics_test.py, ...AtThresholds",
        [2, 0, 1, 1, 1, 2],
        [[0.2, 0.3, 0.5], [0.1, 0.3, 0.6], [0.3, 0.1, 0.6], [0.1, 0.9, 0.0], [0.1, 0.8, 0.1],
         [0.3, 0.1, 0.6]],
        w=[0.5, 1.0, 0.25, 1.0, 1.0, 1.0],
    ),
    "keras-cross-entropy": Example(
        KERAS + "CategoricalCrossentropy, SparseCategoricalCrossentropy",
        [1, 2],
        _K3_P,
        {
            "categorical_crossentropy": 1.1769392,
            "sparse_categorical_crossentropy": 1.1769392,
        },
    ),
    "keras-cross-entropy-weights": Example(
        KERAS + "CategoricalCrossentropy, SparseCategoricalCrossentropy",
        [1, 2],
        _K3_P,
        {
            "categorical_crossentropy": 1.6271976,
            "sparse_categorical_crossentropy": 1.6271976,
        },
        w=[0.3, 0.7],
    ),
    "keras-loss-weights": Example(
        "Keras 3.15, docstring of losses.CategoricalCrossentropy", [1, 2], _K3_P, w=[0.3, 0.7]
    ),
    "keras-accuracy": Example(
        KERAS + "SparseCategoricalAccuracy",
        [2, 1],
        [[0.1, 0.6, 0.3], [0.05, 0.95, 0]],
        {"sparse_categorical_accuracy": 0.5},
    ),
    "keras-accuracy-weights": Example(
        KERAS + "SparseCategoricalAccuracy",
        [2, 1],
        [[0.1, 0.6, 0.3], [0.05, 0.95, 0]],
        {"sparse_categorical_accuracy": 0.3},
        w=[0.7, 0.3],
    ),
}  # fmt: skip

THREE_INNER = {
    "tfma": Example(
        TFMA + "cross_entropy_metrics_test.py, ..._categorical_two_examples",
        [1, 2],
        _K3_P,
        {"categorical_crossentropy": "1.17694", "log_loss": "1.17694"},
    ),
    "tfma-weights": Example(
        TFMA + "cross_entropy_metrics_test.py, ..._categorical_two_examples_with_weights",
        [1, 2],
        _K3_P,
        {"categorical_crossentropy": "1.62720"},
        w=[0.3, 0.7],
    ),
}

_IOU_Y = [2, 0, 1, 0]
_IOU_P = [[0.2, 0.3, 0.5], [0.1, 0.2, 0.7], [0.5, 0.3, 0.1], [0.1, 0.4, 0.5]]
_K_P = [[0.1, 0.9, 0.8], [0.05, 0.95, 0]]

# Scores whose sum is not 1.
THREE_AS_IS = {
    "keras-accuracy": Example(
        KERAS + "CategoricalAccuracy, TopKCategoricalAccuracy, SparseTopKCategoricalAccuracy",
        [2, 1],
        _K_P,
        {"categorical_accuracy": 0.5, "top_1": 0.5},
    ),
    "keras-accuracy-weights": Example(
        KERAS + "CategoricalAccuracy, TopKCategoricalAccuracy, SparseTopKCategoricalAccuracy",
        [2, 1],
        _K_P,
        {"categorical_accuracy": 0.3, "top_1": 0.3},
        w=[0.7, 0.3],
    ),
    "tf-keras-top": Example(
        "Keras 2 (tf_keras), docstring of metrics.top_k_categorical_accuracy(k=3)",
        [2, 1],
        _K_P,
        {"top_3": 1.0},
    ),
    "keras-iou": Example(
        KERAS + "OneHotIoU, OneHotMeanIoU",
        _IOU_Y,
        _IOU_P,
        {"threat_score macro": "0.048"},
        w=[0.1, 0.2, 0.3, 0.4],
    ),
    "sklearn-top": Example(
        SKLEARN + "top_k_accuracy_score",
        [0, 1, 2, 2],
        [[0.5, 0.2, 0.2], [0.3, 0.4, 0.2], [0.2, 0.4, 0.3], [0.7, 0.2, 0.1]],
        {"top_2": 0.75},
    ),
}

THREE_LOGITS = {
    "keras-test": Example(
        KTEST + "probabilistic_metrics_test.py, CategoricalCrossentropyTest, ..._from_logits",
        [1, 2],
        [[1, 9, 0], [1, 8, 1]],
        {"categorical_crossentropy": "3.5011", "log_loss": "3.5011"},
    ),
    "keras-test-weights": Example(
        KTEST + "probabilistic_metrics_test.py, ..., test_weighted_from_logits",
        [1, 2],
        [[1, 9, 0], [1, 8, 1]],
        {"categorical_crossentropy": "4.0012", "log_loss": "4.0012"},
        w=[1.5, 2.0],
    ),
    "tfma": Example(
        TFMA + "cross_entropy_metrics_test.py, ..._categorical_two_examples_from_logits",
        [1, 2],
        [[-5, 0.95, -10], [5, -1, 0.5]],
        {"log_loss": "2.25806", "categorical_crossentropy": "2.25806"},
    ),
    "torch": Example(
        TORCH + "classification, hinge_loss",
        [0, 1, 2],
        [[-1.0, 0.9, 0.2], [0.5, -1.1, 0.8], [2.2, -0.5, 0.3]],
        {"categorical_hinge": "1.5551", "hinge": ["1.3743", "1.1945", "1.2359"]},
    ),
}

TWO = {
    "torch": Example(
        TORCH + "classification, cohen_kappa, matthews_corrcoef(task='multiclass')",
        [1, 1, 0, 0],
        hot([0, 1, 0, 0], 2),
        {
            "cohen_kappa": "0.5000",
            "matthews_correlation_coefficient": "0.5774",
        },
    ),
    "keras-iou": Example(
        KERAS + "IoU, MeanIoU",
        [0, 0, 1, 1],
        hot([0, 1, 0, 1], 2),
        {"threat_score": [0.33333334, None], "threat_score macro": 0.33333334},
    ),
    "keras-iou-weights": Example(
        KERAS + "IoU, MeanIoU",
        [0, 0, 1, 1],
        hot([0, 1, 0, 1], 2),
        {"threat_score": [0.33333334, None], "threat_score macro": 0.23809525},
        w=[0.3, 0.3, 0.3, 0.1],
    ),
    "guide-log-loss": Example(
        GUIDE + "Log loss",
        [0, 0, 1, 1],
        [[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.01, 0.99]],
        {"log_loss": "0.1738"},
    ),
    "guide-f": Example(
        GUIDE + "Binary classification, precision_recall_fscore_support(beta=0.5)",
        [0, 1, 0, 1],
        hot([0, 1, 0, 0], 2),
        {
            "precision": ["0.66", 1.0],
            "recall": [1.0, 0.5],
            "fbeta_0.5": ["0.71", "0.83"],
        },
    ),
    "fairlearn": Example(
        FAIRLEARN + "test/unit/metrics/test_base_metrics.py, TestTPR.test_some_correct(pos_label)",
        [0, 0, 0, 0, 1, 1, 1, 1],
        hot([0, 0, 0, 1, 1, 0, 0, 0], 2),
        {"recall": [0.75, 0.25]},
    ),
}

FOUR = {
    "sklearn": Example(
        SKLEARN + "accuracy_score",
        [0, 1, 2, 3],
        hot([0, 2, 1, 3], 4),
        {"sparse_categorical_accuracy": 0.5},
    ),
    "guide": Example(
        GUIDE + "precision_score(labels=[0, 1, 2, 3], average='macro')",
        _F_Y,
        hot([0, 2, 1, 0, 0, 1], 4),
    ),
}

_TOP_METRICS: list[Any] = [
    "CategoricalAccuracy",
    named("precision_top_2", "Precision", top_k=2),
    named("precision_top_3", "Precision", _binarize={"top_k_list": [3]}),
    named("recall_top_2", "Recall", _binarize={"top_k_list": [2]}),
    named("recall_top_3", "Recall", top_k=3),
    named("precision_of_1", "Precision", thresholds=[0.1], _binarize={"class_ids": [1]}),
    named("precision_of_1_too", "Precision", thresholds=[0.1], class_id=1),
    named("recall_of_3", "Recall", thresholds=[0.1], class_id=3),
    named("precision_of_1_top_2", "Precision", thresholds=[0.1], class_id=1, top_k=2),
    named("recall_of_3_top_2", "Recall", thresholds=[0.1], class_id=3, top_k=2),
]

FIVE = {
    "tfma-class-top": Example(
        TFMA + "confusion_matrix_metrics_test.py, testConfusionMatrixMetricsWithClassIdAndTopK",
        [1, 3, 3, 1],
        [
            [0.1, 0.5, 0.1, 0.45, 0.35],
            [0.2, 0.3, 0.05, 0.31, 0.3],
            [0.01, 0.2, 0.2, 0.09, 0.5],
            [0.1, 0.05, 0.3, 0.4, 0.05],
        ],
        {"precision_of_1_top_2": [0.5 / 2.1], "recall_of_3_top_2": [0.7 / 1.6]},
        w=[0.5, 0.7, 0.9, 0.3],
    ),
    "tfma-top": Example(
        TFMA + "confusion_matrix_metrics_test.py, testConfusionMatrixMetricsWithTopK",
        [2, 1, 3, 1],
        [[0.1, 0.2, 0.1, 0.25, 0.35], [0.2, 0.3, 0.05, 0.15, 0.3], [0.01, 0.2, 0.09, 0.5, 0.2],
         [0.3, 0.2, 0.05, 0.4, 0.05]],
        {
            "precision_top_2": 1.6 / 4.8,
            "recall_top_2": 1.6 / 2.4,
            "precision_top_3": 1.9 / 7.2,
            "recall_top_3": 1.9 / 2.4,
        },
        w=[0.5, 0.7, 0.9, 0.3],
    ),
    "tfma-class": Example(
        TFMA + "confusion_matrix_metrics_test.py, testConfusionMatrixMetricsWithClassId",
        [1, 3, 3, 1],
        [[0.1, 0.2, 0.1, 0.25, 0.35], [0.2, 0.3, 0.05, 0.15, 0.3], [0.01, 0.2, 0.2, 0.09, 0.5],
         [0.1, 0.05, 0.3, 0.4, 0.05]],
        {
            "precision_of_1": [0.5 / 2.1],
            "precision_of_1_too": [0.5 / 2.1],
            "recall_of_3": [0.7 / 1.6],
        },
        w=[0.5, 0.7, 0.9, 0.3],
    ),
    "sklearn": Example(
        SKLEARN + "zero_one_loss, hamming_loss (1 less their 0.25)",
        [2, 2, 3, 4],
        hot([1, 2, 3, 4], 5),
        {"categorical_accuracy": 0.75},
    ),
    "keras": Example(
        KERAS + "Accuracy",
        [1, 2, 3, 4],
        hot([0, 2, 3, 4], 5),
        {"categorical_accuracy": 0.75},
    ),
    "keras-weights": Example(
        KERAS + "Accuracy",
        [1, 2, 3, 4],
        hot([0, 2, 3, 4], 5),
        {"categorical_accuracy": 0.5},
        w=[1, 1, 0, 0],
    ),
}  # fmt: skip

CURVES = {
    "torch": Example(
        TORCH + "classification, multiclass_auroc, multiclass_*_at_fixed_*, multiclass_*_at_*",
        [0, 1, 3, 2],
        [[0.75 if k == c else 0.05 for k in range(5)] for c in range(4)],
        {
            "auc": ["1.0000", "1.0000", "0.3333", "0.3333", None],
            "auc_pr": ["1.0000", "1.0000", None, None, nan],
            "precision_at_recall": ["1.0000", "1.0000", "0.2500", "0.2500", None],
            "recall_at_precision": ["1.0000", "1.0000", "0.0000", "0.0000", None],
            "sensitivity_at_specificity": ["1.0000", "1.0000", "0.0000", "0.0000", None],
            "specificity_at_sensitivity": ["1.0000", "1.0000", "0.0000", "0.0000", None],
        },
    ),
}

ANIMALS = {
    "sklearn": Example(
        SKLEARN + "confusion_matrix, multilabel_confusion_matrix",
        ["cat", "ant", "cat", "cat", "ant", "bird"],
        ["ant", "ant", "cat", "cat", "ant", "cat"],
        {
            "confusion": [[2, 0, 0], [0, 0, 1], [1, 0, 2]],
            "true_negatives": [3, 5, 2],
            "false_positives": [1, 0, 1],
            "false_negatives": [0, 1, 1],
            "true_positives": [2, 0, 2],
        },
    ),
}
PETS = {
    "sklearn": Example(
        SKLEARN + "precision_recall_fscore_support",
        ["cat", "dog", "pig", "cat", "dog", "pig"],
        ["cat", "pig", "dog", "cat", "cat", "dog"],
        {
            "precision macro": "0.222",
            "recall macro": "0.333",
            "f1_score macro": "0.267",
            "precision": ["0.66", 0.0, 0.0],
            "recall": [1.0, 0.0, 0.0],
            "f1_score": [0.8, 0.0, 0.0],
        },
    ),
}
MOODS = {
    "sklearn": Example(
        SKLEARN + "cohen_kappa_score",
        ["negative", "positive", "negative", "neutral", "positive"],
        ["negative", "positive", "negative", "neutral", "negative"],
        {"cohen_kappa": 0.6875},
    ),
}
DECIDED: list[Any] = [
    "TruePositives", "FalsePositives", "TrueNegatives", "FalseNegatives", "Precision", "Recall",
    "F1Score", "CohenKappa",
]  # fmt: skip

# --- several labels ------------------------------------------------------------------------------


def _multilabel(classes: int) -> list[Any]:
    """The same, with those of each label by its own threshold."""
    ids = {"class_ids": list(range(classes))}
    found: list[Any] = []
    for entry in [*_several(classes), "BinaryAccuracy", "FallOut", "MissRate"]:
        entry = {"class_name": entry} if isinstance(entry, str) else entry
        if "binarize" in entry:
            found.append(entry)
        elif "aggregate" not in entry:
            found.append({**entry, "binarize": ids})
            found += [{**entry, "aggregate": {"average": kind}} for kind in ("macro", "micro")]
        elif entry["aggregate"]["average"] == "macro":
            found.append(entry)
    return found


_ML_Y = [[0, 1, 0], [1, 0, 1]]
_ML_P = [[0.11, 0.22, 0.84], [0.73, 0.33, 0.92]]

LABELS = {
    "torch": Example(
        TORCH + "classification, multilabel_accuracy, _recall, _f1_score, _specificity, ...",
        _ML_Y,
        _ML_P,
        {
            "binary_accuracy": ["1.0000", "0.5000", "0.5000"],
            "binary_accuracy macro": "0.6667",
            "recall": ["1.0000", "0.0000", "1.0000"],
            "recall macro": "0.6667",
            "precision": ["1.0000", None, "0.5000"],
            "f1_score": ["1.0000", "0.0000", "0.6667"],
            "f1_score macro": "0.5556",
            "fbeta_2": ["1.0000", "0.0000", "0.8333"],
            "fbeta_2 macro": "0.6111",
            "negative_predictive_value": ["1.0000", "0.5000", None],
            "specificity": ["1.0000", "1.0000", "0.0000"],
            "specificity macro": "0.6667",
            "threat_score macro": "0.5000",
            "matthews_correlation_coefficient micro": "0.3333",
            "confusion @0.5": [[[1, 0], [0, 1]], [[1, 0], [1, 0]], [[0, 1], [0, 1]]],
            "true_positives": [1, 0, 1],
            "false_positives": [0, 0, 1],
            "true_negatives": [1, 1, 0],
            "false_negatives": [0, 1, 0],
            "true_positives micro": 2,
            "false_positives micro": 1,
            "true_negatives micro": 2,
            "false_negatives micro": 1,
        },
    ),
    "torch-samplewise": Example(
        TORCH + "classification, multilabel_*(multidim_average='samplewise'), the first sample",
        [[0, 1, 0], [1, 0, 1]],
        [[0.59, 0.91, 0.63], [0.91, 0.99, 0.04]],
        {
            "binary_accuracy": ["0.5000", "0.5000", "0.0000"],
            "binary_accuracy macro": "0.3333",
            "precision": ["0.5000", "0.5000", "0.0000"],
            "precision macro": "0.3333",
            "recall": ["1.0000", "1.0000", "0.0000"],
            "recall macro": "0.6667",
            "f1_score": ["0.6667", "0.6667", "0.0000"],
            "f1_score macro": "0.4444",
            "fbeta_2": ["0.8333", "0.8333", "0.0000"],
            "fbeta_2 macro": "0.5556",
            "specificity": ["0.0000", "0.0000", "0.0000"],
        },
    ),
    "torch-curves": Example(
        TORCH + "classification, multilabel_auroc, multilabel_*_at_fixed_*, multilabel_*_at_*",
        [[1, 0, 1], [0, 0, 0], [0, 1, 1], [1, 1, 1]],
        [[0.75, 0.05, 0.35], [0.45, 0.75, 0.05], [0.05, 0.55, 0.75], [0.05, 0.65, 0.05]],
        {
            "auc": ["0.6250", "0.5000", "0.8333"],
            "auc macro": "0.6528",
            "precision_at_recall": ["1.0000", "0.6667", "1.0000"],
            "recall_at_precision": ["1.0000", "1.0000", "1.0000"],
            "sensitivity_at_specificity": ["0.5000", "1.0000", "0.6667"],
            "specificity_at_sensitivity": ["1.0000", "0.5000", "1.0000"],
        },
    ),
    "sklearn-f": Example(
        SKLEARN + "f1_score, precision_score, recall_score",
        [[0, 0, 0], [1, 1, 1], [0, 1, 1]],
        [[0, 0, 0], [1, 1, 1], [1, 1, 0]],
        {
            "f1_score": [0.66666667, 1.0, 0.66666667],
            "precision": [0.5, 1.0, 1.0],
            "recall": [1.0, 1.0, 0.5],
        },
    ),
    "sklearn-jaccard": Example(
        SKLEARN + "jaccard_score",
        [[0, 1, 1], [1, 1, 0]],
        [[1, 1, 1], [1, 0, 0]],
        {
            "threat_score micro": 0.6,
            "threat_score macro": "0.6666",
            "threat_score": [0.5, 0.5, 1.0],
        },
    ),
    "sklearn-confusion": Example(
        SKLEARN + "multilabel_confusion_matrix",
        [[1, 0, 1], [0, 1, 0]],
        [[1, 0, 0], [0, 1, 1]],
        {"confusion @0.5": [[[1, 0], [0, 1]], [[1, 0], [0, 1]], [[0, 1], [1, 0]]]},
    ),
    "guide-rates": Example(
        GUIDE + "Multi-label confusion matrix",
        [[0, 0, 1], [0, 1, 0], [1, 1, 0]],
        [[0, 1, 0], [0, 0, 1], [1, 1, 0]],
        {
            "recall": [1.0, 0.5, 0.0],
            "specificity": [1.0, 0.0, 0.5],
            "fall_out": [0.0, 1.0, 0.5],
            "miss_rate": [0.0, 0.5, 1.0],
        },
    ),
    "keras-f": Example(
        KERAS + "F1Score, FBetaScore",
        [[1, 1, 1], [1, 0, 0], [1, 1, 0]],
        [[0.2, 0.6, 0.7], [0.2, 0.6, 0.6], [0.6, 0.8, 0.0]],
        {
            "f1_score": [0.5, 0.8, 0.6666667],
            "fbeta_2": [0.3846154, 0.90909094, 0.8333334],
        },
    ),
    "tfma-averages": Example(
        # Its metrics by class are 0.1, 0.2 and 0.3, as the mean of these predictions.
        TFMA + "aggregation_test.py, testMacroAverage, ...WithWeights, testWeightedMacroAverage",
        [[0, 1, 1], [0, 1, 1], [1, 0, 1]],
        [[0.1, 0.2, 0.3]] * 3,
        {
            "mean_prediction macro": 0.6 / 3,
            "mean_prediction weighted_macro": 0.1 / 6 + 0.4 / 6 + 0.9 / 6,
            "mean_by_weights macro": 0.1 * 0.2 + 0.2 * 0.3 + 0.3 * 0.5,
        },
    ),
}
_MEANS = [
    *averages("MeanPrediction", "macro", "weighted_macro"),
    named(
        "mean_by_weights", "MeanPrediction",
        _aggregate={"average": "macro", "class_weights": {0: 0.2, 1: 0.3, 2: 0.5}},
    ),
]  # fmt: skip

_PAIR_Y, _PAIR_P = [[0, 1], [0, 0]], [[0.6, 0.4], [0.4, 0.6]]

PAIRS = {
    "keras": Example(
        KERAS + "BinaryCrossentropy, Hinge, SquaredHinge, CategoricalHinge, KLDivergence",
        _PAIR_Y,
        _PAIR_P,
        {
            "binary_crossentropy": 0.81492424,
            "hinge": 1.3,
            "squared_hinge": 1.86,
            "categorical_hinge": 1.4000001,
            "kl_divergence": 0.45814306,
        },
    ),
    "keras-weights": Example(
        KERAS + "BinaryCrossentropy, Hinge, SquaredHinge, CategoricalHinge, KLDivergence",
        _PAIR_Y,
        _PAIR_P,
        {
            "binary_crossentropy": "0.91629",
            "hinge": 1.1,
            "squared_hinge": 1.46,
            "categorical_hinge": 1.2,
            "kl_divergence": 0.9162892,
        },
        w=[1, 0],
    ),
    "keras-errors": Example(
        KERAS + "Poisson, MeanSquaredError, MeanAbsoluteError",
        [[0, 1], [0, 0]],
        [[1, 1], [0, 0]],
        {"poisson": 0.49999997, "mean_squared_error": 0.25, "mean_absolute_error": 0.25},
    ),
    "keras-cosine": Example(
        KERAS + "CosineSimilarity",
        [[0, 1], [1, 1]],
        [[1, 0], [1, 1]],
        {"cosine_similarity": 0.49999997},
    ),
    "keras-cosine-weights": Example(
        KERAS + "CosineSimilarity",
        [[0, 1], [1, 1]],
        [[1, 0], [1, 1]],
        {"cosine_similarity": 0.6999999},
        w=[0.3, 0.7],
    ),
}
PAIR_METRICS: list[Any] = [
    "BinaryCrossentropy", "Hinge", "SquaredHinge", "CategoricalHinge", "KLDivergence",
    "CosineSimilarity", "Poisson", "MeanSquaredError", "MeanAbsoluteError",
]  # fmt: skip

FOUR_LABELS = {
    "sklearn-1": Example(
        SKTEST + "test_classification.py, test_precision_recall_f1_score_multilabel_1",
        [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1]],
        [[0, 1, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0]],
        {
            "precision": [0.0, 0.5, 1.0, None],
            "recall": [0.0, 1.0, 1.0, 0.0],
            "f1_score": [0.0, 1 / 1.5, 1, 0.0],
            "fbeta_2": ["0", "0.83", "1", "0"],
            "recall macro": 0.5,
            "f1_score macro": 2.5 / 1.5 * 0.25,
            "precision micro": 0.5,
            "recall micro": 0.5,
            "f1_score micro": 0.5,
            "recall weighted_macro": 0.5,
            "f1_score weighted_macro": 2.5 / 1.5 * 0.25,
        },
    ),
    "sklearn-2": Example(
        SKTEST + "test_classification.py, test_precision_recall_f1_score_multilabel_2",
        [[1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0]],
        [[0, 0, 0, 1], [0, 0, 0, 1], [1, 1, 0, 0]],
        {
            "precision": [0.0, 1.0, None, 0.0],
            "recall": [0.0, 0.5, 0.0, None],
            "f1_score": [0.0, "0.66", 0.0, 0.0],
            "fbeta_2": ["0", "0.55", "0", "0"],
            "f1_score macro": 2 / 12,
            "precision micro": 0.25,
            "recall micro": 0.25,
            "f1_score micro": 0.25,
            "f1_score weighted_macro": 2 / 3 * 2 / 4,
        },
    ),
}
_FOUR_LABELS: list[Any] = [
    entry
    for class_name, config in (
        ("Precision", {}),
        ("Recall", {}),
        ("F1Score", {}),
        ("FBetaScore", {"name": "fbeta_2", "beta": 2.0}),
    )
    for entry in (
        {"class_name": class_name, "config": config, "binarize": {"class_ids": [0, 1, 2, 3]}},
        *averages(class_name, "macro", "micro", "weighted_macro", **config),
    )
]

_FIVE_Y = [[0, 1, 0, 1, 0], [0, 0, 1, 1, 1], [1, 1, 1, 1, 0], [0, 0, 0, 0, 1]]
_FIVE_P = [[0, 0, 1, 1, 0], [1, 1, 1, 1, 1], [0, 1, 0, 1, 0], [1, 1, 1, 1, 1]]

FIVE_LABELS = {
    "keras": Example(
        KTEST + "hinge_metrics_test.py, CategoricalHingeTest, test_unweighted",
        _FIVE_Y,
        _FIVE_P,
        {"categorical_hinge": 0.5},
    ),
    "keras-weights": Example(
        KTEST + "hinge_metrics_test.py, CategoricalHingeTest, test_weighted",
        _FIVE_Y,
        _FIVE_P,
        {"categorical_hinge": 0.5},
        w=[1.0, 1.5, 2.0, 2.5],
    ),
    "keras-top": Example(
        KTEST + "confusion_metrics_test.py, PrecisionTest, test_unweighted_top_k",
        [[0, 1, 1, 0, 0]],
        [[0.2, 0.1, 0.5, 0, 0.2]],
        {"precision_top_3": 1 / 3},
    ),
}

RANKED = {
    "keras": Example(
        KERAS + "Precision(top_k=2), Precision(top_k=4)",
        [[0, 0, 1, 1]],
        [[1, 1, 1, 1]],
        {"precision_top_2": 0.0, "precision_top_4": 0.5},
    ),
}

# What TFMA's own combiners compute.
BY_TFMA = {
    "tfma-smoothing": Example(
        TFMA + "cross_entropy_metrics_test.py, ..._binary_two_examples_with_label_smoothing",
        [0, 1],
        [0.6, 0.6],
        {"binary_crossentropy": "0.73383"},
        w=[1, 0.8],
    ),
    "tfma-difference": Example(
        TFMA + "prediction_difference_metrics_test.py, testSymmetricPredictionDifference",
        [0, 0, 1],
        [0.1, 0.2, 0.9],
        {"symmetric_prediction_difference": (0.2 / 0.3 + 0.4 / 0.5 + 0.6 / 1.7) / 6},
        w=[1, 2, 3],
        q=[0.2, 0.3, 0.8],
    ),
    "keras-iou": Example(
        KERAS + "BinaryIoU", [0, 1, 0, 1], [0.1, 0.2, 0.4, 0.7], {"binary_io_u": 0.33333334}
    ),
    "keras-iou-weights": Example(
        KERAS + "BinaryIoU",
        [0, 1, 0, 1],
        [0.1, 0.2, 0.4, 0.7],
        {"binary_io_u": 0.17361112},
        w=[0.2, 0.3, 0.4, 0.1],
    ),
}
BY_TFMA_METRICS: list[Any] = [
    named("binary_crossentropy", "BinaryCrossEntropy", label_smoothing=0.1),
    "SymmetricPredictionDifference",
    named("binary_io_u", "BinaryIoU", target_class_ids=[0, 1], threshold=0.3),
]

THREE_BY_TFMA = {
    "keras-iou": Example(
        KERAS + "OneHotIoU, OneHotMeanIoU",
        _IOU_Y,
        _IOU_P,
        {"one_hot_io_u": "0.071", "one_hot_mean_io_u": "0.048"},
        w=[0.1, 0.2, 0.3, 0.4],
    ),
    "tfma-smoothing": Example(
        TFMA + "cross_entropy_metrics_test.py, ..._two_examples_from_logits_with_smoothing",
        [1, 2],
        [[-5, 0.95, -10], [5, -1, 0.5]],
        {"smooth": "2.48972"},
    ),
}
THREE_BY_TFMA_METRICS: list[Any] = [
    named("one_hot_io_u", "OneHotIoU", num_classes=3, target_class_ids=[0, 2]),
    named("one_hot_mean_io_u", "OneHotMeanIoU", num_classes=3),
    named("smooth", "CategoricalCrossEntropy", from_logits=True, label_smoothing=0.1),
]

# Labels and predictions of searches: TFMA groups examples by query.
QUERIES = {
    "ndcg": Example(
        TFMA + "ndcg_test.py, testNDCG",
        [1, 0, 0, 1, 0, 1, 1],
        [0.2, 0.8, 0.5, 0.9, 0.1, 0.9, 0.9],
        {"ndcg top_1": "0.91667", "ndcg top_2": "0.97662"},
        w=[1, 1, 2, 2, 2, 3, 3],
        groups={
            "query": ["n1", "n1", "n2", "n2", "n2", "n3", "n4"],
            "gain": [1.0, 0.5, 0.5, 1.0, 0.1, 1.0, 0.0],
        },
    ),
    "position": Example(
        TFMA + "min_label_position_test.py, testMinLabelPosition",
        [1, 0, 1, 0, 0, 1],
        [0.2, 0.8, 0.9, 0.1, 0.5, 0.9],
        {"min_label_position": "1.16666"},
        w=[1, 1, 2, 2, 2, 3],
        groups={"query": ["p1", "p1", "p2", "p2", "p2", "p3"], "gain": [1.0] * 6},
    ),
}
QUERY_CONFIG = """
    model_specs { label_key: "y" example_weight_key: "w" }
    slicing_specs { feature_keys: "example" }
    metrics_specs {
      query_key: "query"
      metrics { class_name: "NDCG" config: '{"gain_key": "gain", "top_k_list": [1, 2]}' }
      metrics { class_name: "MinLabelPosition" }
    }
"""

# --- plots and matrices, which only TFMA's own files have ----------------------------------------

_M_Y, _M_W = [2, 0, 1, 1, 1, 2], [0.5, 1.0, 0.25, 1.0, 1.0, 1.0]
_L_Y = [[1, 1, 0], [0, 1, 0], [0, 0, 0], [1, 0, 0]]
_L_P = [[0.7, 0.5, 0.2], [0.3, 0.6, 0.1], [0.2, 0.4, 0.5], [1.0, 0.4, 0.1]]

# By threshold and (actual, predicted) class, the count; -1 is no prediction.
MATRICES = {
    "tfma": Example(
        TFMA + "multi_class_confusion_matrix_metrics_test.py, ...MatrixAtThresholds",
        _M_Y,
        [
            [0.2, 0.3, 0.5],
            [0.1, 0.3, 0.6],
            [0.3, 0.1, 0.6],
            [0.1, 0.9, 0.0],
            [0.1, 0.8, 0.1],
            [0.3, 0.1, 0.6],
        ],
        {"matrices": {0.5: {(0, 2): 1, (1, 1): 2, (1, 2): 0.25, (2, -1): 0.5, (2, 2): 1}}},
        w=_M_W,
    ),
}
CARS = {
    "tfma": Example(
        TFMA + "multi_class_confusion_matrix_metrics_test.py, ...WithStringLabels",
        ["unacc", "vgood"],
        [[1.0, 6.9407083e-24, 2.7419115e-38, 0.0], [0.2, 0.3, 0.4, 0.1]],
        {"matrices": {0.5: {(0, 0): 0.5, (2, -1): 1}}},
        w=[0.5, 1.0],
    ),
}
# By threshold and (actual, predicted) label, false negatives, true negatives, false and true
# positives.
LABEL_MATRICES = {
    "tfma": Example(
        TFMA + "multi_label_confusion_matrix_plot_test.py, testMultiLabelConfusionMatrixPlot",
        _L_Y,
        _L_P,
        {
            "matrices": {
                0.5: {
                    (0, 0): (0, 0, 0, 2),
                    (0, 1): (1, 1, 0, 0),
                    (0, 2): (0, 2, 0, 0),
                    (1, 0): (0, 1, 0, 1),
                    (1, 1): (1, 0, 0, 1),
                    (1, 2): (0, 2, 0, 0),
                }
            }
        },
    ),
    "tfma-weights": Example(
        TFMA + "multi_label_confusion_matrix_plot_test.py, ...PlotWithThresholds",
        _L_Y,
        _L_P,
        {
            "matrices": {
                0.0: {
                    (0, 0): (0, 0, 0, 1.25),
                    (0, 1): (0, 0, 1, 0.25),
                    (0, 2): (0, 0, 1.25, 0),
                    (1, 0): (0, 0, 0.5, 0.25),
                    (1, 1): (0, 0, 0, 0.75),
                    (1, 2): (0, 0, 0.75, 0),
                },
                0.5: {
                    (0, 0): (0, 0, 0, 1.25),
                    (0, 1): (0.25, 1, 0, 0),
                    (0, 2): (0, 1.25, 0, 0),
                    (1, 0): (0, 0.5, 0, 0.25),
                    (1, 1): (0.25, 0, 0, 0.5),
                    (1, 2): (0, 0.75, 0, 0),
                },
                1.0: {
                    (0, 0): (1.25, 0, 0, 0),
                    (0, 1): (0.25, 1, 0, 0),
                    (0, 2): (0, 1.25, 0, 0),
                    (1, 0): (0.25, 0.5, 0, 0),
                    (1, 1): (0.75, 0, 0, 0),
                    (1, 2): (0, 0.75, 0, 0),
                },
            }
        },
        w=[0.25, 0.5, 0.75, 1.0],
    ),
}
PLOTS = {
    # By threshold, FN, TN, FP, TP, precision, recall, F1, accuracy and false omission rate.
    "tfma-confusion": Example(
        TFMA + "confusion_matrix_plot_test.py, testConfusionMatrixPlot",
        [0, 0, 1, 1],
        [0.0, 0.5, 0.3, 0.9],
        {
            "confusions": {
                -1e-6: (0, 0, 2, 2, 0.5, 1, 0.6666667, 0.5, nan),
                0.0: (0, 0, 2, 2, 0.5, 1, 0.6666667, 0.5, nan),
                0.25: (0, 1, 1, 2, 0.6666667, 1, 0.8, 0.75, 0),
                0.5: (1, 2, 0, 1, 1, 0.5, 0.6666667, 0.75, 0.3333333),
                0.75: (1, 2, 0, 1, 1, 0.5, 0.6666667, 0.75, 0.3333333),
            }
        },
    ),
    # By the lower edge of a bucket, weight, labels and predictions.
    "tfma-calibration": Example(
        TFMA + "calibration_plot_test.py, testCalibrationPlot",
        [0, 1, 0, 1, 1, 1, 0, 1],
        [0.2, 0.8, 0.5, -0.1, 0.5, 0.8, 0.2, 1.1],
        {
            "buckets": {
                -inf: (4, 4, -0.4),
                0.2: (8, 0, 1.6),
                0.5: (8, 5, 4.0),
                0.8: (8, 8, 6.4),
                1.0: (8, 8, 8.8),
            }
        },
        w=[1, 2, 3, 4, 5, 6, 7, 8],
    ),
}

# --- all runs ------------------------------------------------------------------------------------

_RATES: list[Any] = [
    "Precision", "Recall", "Specificity", "FallOut", "MissRate", "PredictedPositiveRate",
    "MatthewsCorrelationCoefficient", "PositiveLikelihoodRatio", "NegativeLikelihoodRatio",
]  # fmt: skip
_AS_IS, _OF_LOGITS = {"scores": "as_is"}, {"scores": "logits"}

JOBS = {
    "binary": Job(BINARY_METRICS, BINARY, {"task": "binary", "thresholds": [0.3, 0.5, 0.8]}),
    "inner": Job(["BinaryCrossEntropy", "LogLoss"], INNER, {"task": "binary"}),
    "logits": Job(["BinaryCrossentropy", "LogLoss"], LOGITS, {"task": "binary"}, model=_OF_LOGITS),
    "signs": Job(_RATES, SIGNS, {"task": "binary"}, {"classes": ["-1", "1"]}),
    "letters": Job(_RATES, LETTERS, {"task": "binary"}),
    "cats": Job(_RATES, CATS, {"task": "binary"}, {"positive": "cat"}),
    "non-cats": Job(_RATES, NON_CATS, {"task": "binary"}),
    "spam": Job(["LogLoss"], SPAM, {"task": "binary"}),
    "ham": Job(["BrierScore"], HAM, {"task": "binary"}, {"positive": "ham"}),
    "margins": Job(["Hinge", "SquaredHinge"], MARGINS, {"task": "binary"}, model=_AS_IS),
    "regression": Job(REGRESSION_METRICS, REGRESSION, {"task": "regression"}),
    "three": Job(_multiclass(3), THREE, {"task": "multiclass"}),
    "three-inner": Job(["CategoricalCrossEntropy", "LogLoss"], THREE_INNER, {"task": "multiclass"}),
    "three-as-is": Job(_multiclass(3), THREE_AS_IS, {"task": "multiclass"}, model=_AS_IS),
    "three-logits": Job(_multiclass(3), THREE_LOGITS, {"task": "multiclass"}, model=_OF_LOGITS),
    "two": Job(_multiclass(2), TWO, {"task": "multiclass"}),
    "four": Job(_multiclass(4), FOUR, {"task": "multiclass"}),
    "five": Job(_TOP_METRICS, FIVE, {"task": "multiclass"}, model=_AS_IS),
    "curves": Job(_several(5), CURVES, {"task": "multiclass"}, model=_AS_IS),
    "animals": Job(DECIDED, ANIMALS, {"task": "multiclass"}),
    "pets": Job(DECIDED, PETS, {"task": "multiclass"}),
    "moods": Job(DECIDED, MOODS, {"task": "multiclass"}),
    "labels": Job([*_multilabel(3), *_MEANS], LABELS, {"task": "multilabel"}),
    "pairs": Job(PAIR_METRICS, PAIRS, {"task": "multilabel"}),
    "four-labels": Job(_FOUR_LABELS, FOUR_LABELS, {"task": "multilabel"}),
    "five-labels": Job(
        ["CategoricalHinge", named("precision_top_3", "Precision", top_k=3)],
        FIVE_LABELS,
        {"task": "multilabel"},
    ),
    "ranked": Job(
        [named(f"precision_top_{k}", "Precision", top_k=k) for k in (2, 4)],
        RANKED,
        {"task": "multilabel"},
    ),
    "queries": Job([], QUERIES, {"task": "binary", "eval_config": QUERY_CONFIG}),
    "by-tfma": Job(BY_TFMA_METRICS, BY_TFMA, {"task": "binary"}),
    "three-by-tfma": Job(
        THREE_BY_TFMA_METRICS, THREE_BY_TFMA, {"task": "multiclass"}, model=_AS_IS
    ),
}

# Their figures are in TFMA's files.
FILES = {
    "matrices": Job(["MultiClassConfusionMatrixAtThresholds"], MATRICES, {"task": "multiclass"}),
    "cars": Job(
        ["MultiClassConfusionMatrixAtThresholds"],
        CARS,
        {"task": "multiclass"},
        {"classes": ["unacc", "acc", "vgood", "good"]},
    ),
    "label-matrices": Job(
        [named("labels", "MultiLabelConfusionMatrixPlot", thresholds=[0.0, 0.5, 1.0])],
        LABEL_MATRICES,
        {"task": "multilabel"},
    ),
    "plots": Job(
        [
            named("confusion", "ConfusionMatrixPlot", num_thresholds=4),
            named("calibration", "CalibrationPlot", num_buckets=10),
        ],
        PLOTS,
        {"task": "binary"},
        model=_AS_IS,
    ),
}
ALL = {**JOBS, **FILES}

_ZERO = "scikit-learn and those built on it have 0 for 0/0, which is not defined: NaN."
_STEP = "The average precision is a step function; the area is interpolated (Davis and Goadrich)."
_ABSENT = "A class without examples has no positives to find, so that nothing is defined: NaN."
_LEFT_OUT = (
    "A class without examples, or never predicted, counts as 0 there, and is left out of the "
    "average here, unless `zero_division` says otherwise."
)
_BATCH = "Keras' losses divide by the number of examples, a weighted mean by the sum of weights."
_PERCENT = "Of a label of 0 there is no percentage; scikit-learn and Keras divide by a tiny number."
_FLAT = "All labels are equal, so that there is no variance to explain: NaN."
_FLOAT = (
    "TFMA's Keras clips at 1e-7, adds 1e-7, and does so in single precision, Keras 3 only clips."
)
_SIGMOID = "scikit-learn's log loss, as evalbeam's, is of probabilities, whose step is 2.2e-16."
_COARSE = "Five thresholds are too few to see each score."
_LOGITS = [log1p(exp(x)) for x in (-18.6, -0.51, 2.94, -12.8)]
_MCC = 2 / sqrt(12)  # of classes 0 and 1; class 2 has 1

DIFFERENT: list[Different] = [
    Different(
        "binary", "tfma-count", "example_count", 2.2, 4,
        "TFMA's count of weighted examples is the sum of the weights, here weighted_example_count.",
    ),
    Different(
        "binary", "sklearn-curves", "auc_precision_recall", "0.83", pr_area((1, 0), (1, 1), (2, 1)),
        _STEP,
    ),
    Different(
        "binary", "torch-curve", "auc_precision_recall", "0.5833", pr_area((0, 1), (1, 1), (2, 1)),
        _STEP,
    ),
    Different(
        "binary", "torch-curve", "auc_precision_recall", "0.6667", pr_area((0, 1), (1, 1), (2, 1)),
        _COARSE,
    ),
    Different(
        "binary", "torch-sensitivity", "sensitivity_at_specificity", "0.6667", 1.0, _COARSE
    ),
    Different("binary", "keras-precision-of-none", "precision", 0, nan, _ZERO),
    *(
        Different("binary", example, "binary_crossentropy", figure, value, _FLOAT)
        for example, published, value in (
            ("keras-clipped", ("3.9855", "3.833"), -log(2e-7) / 4),
            ("keras-clipped-weights", ("3.4162", "3.285"), -1.5 * log(2e-7) / 7),
        )
        for figure in published
    ),
    Different("logits", "tf-keras-far", "log_loss", "33.333", -2 * log(2**-52) / 6, _SIGMOID),
    Different(
        "logits", "tf-keras-far-weights", "log_loss", "37.037", -5 * log(2**-52) / 13.5, _SIGMOID
    ),
    Different("binary", "sklearn-nothing", "f1_score", 0.0, nan, _ZERO),
    Different(
        "binary", "sklearn-nothing", "f1_score", 1.0, nan,
        "zero_division=1 takes 0/0 for 1, which is not defined: NaN.",
    ),
    Different("binary", "fairlearn-zeros", "recall", 0, nan, _ZERO),
    Different("binary", "fairlearn-zeros", "miss_rate", 0, nan, _ZERO),
    Different("binary", "fairlearn-ones", "fall_out", 0, nan, _ZERO),
    Different("binary", "fairlearn-ones", "specificity", 0, nan, _ZERO),
    Different(
        "logits", "keras-weights", "log_loss", "0.243",
        (0.8 * sum(_LOGITS[:2]) + 0.2 * sum(_LOGITS[2:])) / 2, _BATCH,
    ),
    Different("regression", "keras", "mean_absolute_percentage_error", 250000000.0, 0.0, _PERCENT),
    Different(
        "regression", "keras-weights", "mean_absolute_percentage_error", 500000000.0, 0.0, _PERCENT
    ),
    Different(
        "regression", "sklearn-mape-zero", "mean_absolute_percentage_error", 11258999068426248.0,
        100 * (0.2 + 0 + 1 / 7) / 3, _PERCENT,
    ),
    Different("regression", "sklearn-r2-constant", "r2_score", 1.0, nan, _FLAT),
    Different("regression", "sklearn-r2-near", "r2_score", 0.0, nan, _FLAT),
    Different("regression", "sklearn-r2-near", "r2_score", -inf, nan, _FLAT),
    Different(
        "three", "keras-loss-weights", "categorical_crossentropy", "0.814",
        -0.3 * log(0.95) - 0.7 * log(0.1), _BATCH,
    ),
    Different(
        "three", "sklearn-one-predicted", "precision", ["0.33", 0.0, 0.0], [1 / 3, nan, nan], _ZERO
    ),
    Different(
        "three", "sklearn-one-predicted", "precision", ["0.33", 1.0, 1.0], [1 / 3, nan, nan],
        "zero_division=1 takes 0/0 for 1, which is not defined: NaN.",
    ),
    Different("three", "sklearn-one-actual", "recall", [0.5, 0.0, 0.0], [0.5, nan, nan], _ZERO),
    Different(
        "three", "sklearn-precision", "auc_pr macro", "0.77",
        (
            pr_area((1, 0), (2, 1))
            + pr_area((1, 0), (1, 1), (2, 2))
            + pr_area((1, 0), (1, 2), (2, 2))
        ) / 3,
        _STEP,
    ),
    Different(
        "three", "tfma-matrix", "confusion", [[0, 0, 1], [0, 2, 0.25], [0, 0, 1]],
        [[0, 0, 1], [0, 2, 0.25], [0, 0, 1.5]],
        "TFMA predicts no class if the largest score is not above 0.5.",
    ),
    Different("four", "guide", "precision macro", "0.166", 2 / 3 / 3, _LEFT_OUT),
    Different(
        "curves", "torch", "auc", ["1.0000", "1.0000", "0.3333", "0.3333", "0.0000"],
        [1, 1, 1 / 3, 1 / 3, nan], _ABSENT,
    ),
    Different("curves", "torch", "auc macro", "0.5333", (1 + 1 + 2 / 3) / 4, _LEFT_OUT),
    Different(
        "curves", "torch", "auc_pr", ["1.0000", "1.0000", "0.2500", "0.2500", nan],
        [1, 1, pr_area((0, 1), (1, 3)), pr_area((0, 1), (1, 3)), nan], _STEP,
    ),
    *(
        Different(
            "curves", "torch", key, ["1.0000", "1.0000", third, third, "0.0000"],
            [1, 1, float(third), float(third), nan], _ABSENT,
        )
        for key, third in {
            "precision_at_recall": "0.2500",
            "recall_at_precision": "0.0000",
            "sensitivity_at_specificity": "0.0000",
            "specificity_at_sensitivity": "0.0000",
        }.items()
    ),
    Different("four-labels", "sklearn-1", "precision", [0, 0.5, 1, 0], [0, 0.5, 1, nan], _ZERO),
    Different("four-labels", "sklearn-1", "precision macro", 1.5 / 4, 1.5 / 3, _LEFT_OUT),
    Different("four-labels", "sklearn-1", "precision weighted_macro", 1.5 / 4, 0.5, _LEFT_OUT),
    Different("four-labels", "sklearn-2", "precision", [0, 1, 0, 0], [0, 1, nan, 0], _ZERO),
    Different("four-labels", "sklearn-2", "recall", [0, 0.5, 0, 0], [0, 0.5, 0, nan], _ZERO),
    Different("four-labels", "sklearn-2", "precision macro", 0.25, 1 / 3, _LEFT_OUT),
    Different("four-labels", "sklearn-2", "recall macro", 0.125, 0.5 / 3, _LEFT_OUT),
    Different("four-labels", "sklearn-2", "precision weighted_macro", 2 / 4, 2 / 3, _LEFT_OUT),
    Different("labels", "torch", "precision", ["1.0000", "0.0000", "0.5000"], [1, nan, 0.5], _ZERO),
    Different("labels", "torch", "precision macro", "0.5000", 1.5 / 2, _LEFT_OUT),
    Different(
        "labels", "torch", "negative_predictive_value", ["1.0000", "0.5000", "0.0000"],
        [1, 0.5, nan], _ZERO,
    ),
    Different(
        "labels", "torch", "negative_predictive_value macro", "0.5000", 1.5 / 2, _LEFT_OUT
    ),
    Different(
        "labels", "torch-samplewise", "negative_predictive_value", ["0.0000", "0.0000", "0.0000"],
        [nan, nan, 0], _ZERO,
    ),
    Different(
        "labels", "torch-curves", "auc_pr", ["0.7500", "0.5833", "0.9167"],
        [
            pr_area((1, 0), (1, 1), (2, 2)),
            pr_area((0, 1), (1, 1), (2, 1), (2, 2)),
            pr_area((1, 0), (2, 0), (3, 1)),
        ],
        _STEP,
    ),
]  # fmt: skip

# What compares the second version with the first.
OF_TWO = (
    "flip_rate", "neg_to_neg_flip_rate", "neg_to_pos_flip_rate", "pos_to_neg_flip_rate",
    "pos_to_pos_flip_rate", "symmetric_prediction_difference",
)  # fmt: skip
# The first words of sources.
PROJECTS = ("TFMA", "Keras", "scikit-learn", "torchmetrics", "fairlearn")
