"""What each metric is, where it differs from others of its name, and the names it goes by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from evalbeam.transforms import errors, metrics
from evalbeam.transforms.examples.labels import Head
from evalbeam.transforms.metrics import metric
from evalbeam.transforms.metrics.evaluation import MetricSpec

# What a metric class computes, in a phrase. TP, FP, TN, FN are weighted counts.
DEFINITIONS: Mapping[str, str] = {
    "AUC": "the area under the ROC curve (or, `curve: PR`, as AUCPrecisionRecall)",
    "AUCPrecisionRecall": "the area under the precision-recall curve",
    "BalancedAccuracy": "the mean of recall and specificity, of all labels together; of several "
    "classes, their mean recall",
    "BinaryAccuracy": "(TP + TN) / all",
    "BinaryCrossEntropy": "the mean of -log of the probability of the label, not clipped",
    "BinaryCrossentropy": "the mean of -log of the probability of the label, clipped by 1e-7",
    "AbsoluteErrorQuantiles": "quantiles of |label - score|: `quantiles: [0.5, 0.9]`",
    "BinaryIoU": "the mean over both classes of TP / (TP + FP + FN)",
    "BooleanFlipRates": "all five flip rates",
    "BrierScore": "the mean squared error of probabilities; of several classes (not labels) they "
    "add up",
    "Calibration": "mean score / mean label",
    "CalibrationPlot": "sums of labels and scores in buckets of scores",
    "CategoricalAccuracy": "the share of examples whose largest score is the label's",
    "CategoricalCrossEntropy": "the mean of -log of the label's probability, not clipped",
    "CategoricalCrossentropy": "the mean of -log of the label's normalized score, clipped by 1e-7",
    "CategoricalHinge": "the mean of max(0, largest score of another class - the label's + 1)",
    "CoefficientOfDiscrimination": "mean score of positives - mean score of negatives (Tjur)",
    "CohenKappa": "agreement beyond chance (Cohen 1960); `weights: linear` or `quadratic`",
    "ConfusionMatrixAtThresholds": "TP, TN, FP, FN at `thresholds`",
    "ConfusionMatrixPlot": "TP, TN, FP, FN along the whole curve",
    "CosineSimilarity": "the mean cosine of scores and one-hot labels",
    "DiagnosticOddsRatio": "TP * TN / (FP * FN)",
    "ExampleCount": "the number of examples, never weighted",
    "ExpectedCalibrationError": "the mean distance of scores from labels in `num_bins` bins",
    "F1Score": "2 TP / (2 TP + FP + FN)",
    "FBetaScore": "the mean of precision and recall, recall `beta` times as important",
    "FairnessIndicators": "ten rates at each of `thresholds`, by the names of fairness-indicators",
    "FallOut": "FP / (FP + TN), the false positive rate",
    "FalseDiscoveryRate": "FP / (FP + TP)",
    "FalseNegativeFeatureSampler": "a sample of the false negatives' features",
    "FalseNegatives": "FN",
    "FalseOmissionRate": "FN / (FN + TN)",
    "FalsePositiveFeatureSampler": "a sample of the false positives' features",
    "FalsePositives": "FP",
    "FowlkesMallowsIndex": "the root of precision * recall",
    "Hinge": "the mean of max(0, 1 - label * score), labels being -1 and 1",
    "Informedness": "recall + specificity - 1",
    "KLDivergence": "the mean divergence of scores from labels (Kullback and Leibler)",
    "LogCoshError": "the mean logarithm of cosh(error)",
    "LogLoss": "the mean of -log of the label's probability, clipped by 2.2e-16",
    "Markedness": "precision + negative predictive value - 1",
    "MatthewsCorrelationCoefficient": "the correlation of decisions and labels",
    "MaxRecall": "recall if all scores above 0 are positive",
    "Mean": "the mean of a feature (`feature_key_path`)",
    "MeanAbsoluteError": "the mean of |label - score|",
    "MeanAbsolutePercentageError": "100 times the mean of |label - score| / |label|",
    "MeanLabel": "the mean of the labels",
    "MeanPrediction": "the mean of the scores",
    "MeanSquaredError": "the mean of (label - score)^2",
    "MeanSquaredLogarithmicError": "the mean of (log(1 + label) - log(1 + score))^2",
    "MedianAbsoluteError": "the median of |label - score|",
    "MinLabelPosition": "the position of the first positive label in a query",
    "MissRate": "FN / (FN + TP), the false negative rate",
    "ModelCosineSimilarity": "the cosine of both versions' scores",
    "MultiClassConfusionMatrixAtThresholds": "actual by predicted classes, at `thresholds`",
    "MultiClassConfusionMatrixPlot": "actual by predicted classes",
    "MultiLabelConfusionMatrixPlot": "TP, FP, TN, FN of each label, among examples of each other",
    "NDCG": "the gain of a query's ranking, as a share of the best (`gain_key`, `top_k_list`)",
    "NegToNegFlipRate": "the share of examples that stay negative",
    "NegToPosFlipRate": "the share of examples that become positive",
    "NegativeLikelihoodRatio": "false negative rate / specificity",
    "NegativePredictiveValue": "TN / (TN + FN)",
    "OneHotIoU": "TP / (TP + FP + FN), the mean over `target_class_ids`",
    "OneHotMeanIoU": "TP / (TP + FP + FN), the mean over classes",
    "Poisson": "the mean of score - label * log(score)",
    "OneVersusOneAUC": "the mean area under the ROC curves of all pairs of classes (Hand and Till)",
    "PosToNegFlipRate": "the share of examples that become negative",
    "PosToPosFlipRate": "the share of examples that stay positive",
    "PositiveLikelihoodRatio": "recall / false positive rate",
    "Precision": "TP / (TP + FP)",
    "PrecisionAtRecall": "the best precision where recall is at least `recall`",
    "PredictedPositiveRate": "(TP + FP) / all",
    "Prevalence": "(TP + FN) / all",
    "PrevalenceThreshold": "the prevalence below which precision falls fast",
    "QueryStatistics": "how many queries there are, and how many examples they have",
    "R2Score": "the share of the labels' variance that scores explain",
    "Recall": "TP / (TP + FN)",
    "RecallAtFalsePositiveRate": "the best recall where FP / (FP + TN) is at most the bound",
    "RecallAtPrecision": "the best recall where precision is at least `precision`",
    "RelativeCoefficientOfDiscrimination": "mean score of positives / that of negatives",
    "RootMeanSquaredError": "the root of the mean of (label - score)^2",
    "ScoreDistributionPlot": "the distribution of scores",
    "SensitivityAtSpecificity": "the best recall where specificity is at least `specificity`",
    "SparseCategoricalAccuracy": "CategoricalAccuracy of labels that are indices",
    "SparseCategoricalCrossentropy": "CategoricalCrossentropy of labels that are indices",
    "SparseTopKCategoricalAccuracy": "TopKCategoricalAccuracy of labels that are indices",
    "Specificity": "TN / (TN + FP), the true negative rate",
    "SpearmanCorrelation": "the correlation of the ranks of labels and scores",
    "SpecificityAtSensitivity": "the best specificity where recall is at least `sensitivity`",
    "SquaredHinge": "the mean of max(0, 1 - label * score)^2, labels being -1 and 1",
    "SquaredPearsonCorrelation": "the squared correlation of labels and scores",
    "SymmetricFlipRate": "the share of examples that the two versions decide differently",
    "SymmetricPredictionDifference": "the mean relative difference of both versions' scores",
    "ThreatScore": "TP / (TP + FP + FN), the Jaccard index",
    "ThresholdAtRecall": "the largest threshold where recall is at least `recall`",
    "TopKCategoricalAccuracy": "the share of examples whose label has one of `k` largest scores",
    "TrueNegatives": "TN",
    "TruePositives": "TP",
    "WeightedExampleCount": "the sum of the example weights",
}

# Where a metric differs from others' of that name.
DIFFERENCES: Mapping[str, str] = {
    "AUC": "read off 10,000 equal buckets of scores, as TFMA does; scikit-learn's is exact, which "
    "differs most where many scores are next to 0 or 1. NaN for a "
    "slice of one class, where TFMA gives 0. Of several classes the mean of each against all "
    "others; TFMA takes their scores together",
    "AUCPrecisionRecall": "interpolates between thresholds (Davis and Goadrich 2006); "
    "scikit-learn's average precision is a step function",
    "BalancedAccuracy": "TFMA's is of two classes only",
    "BinaryCrossentropy": "Keras's: it clips by 1e-7 and adds as much within the logarithm; "
    "LogLoss is scikit-learn's",
    "BrierScore": "scikit-learn halves that of several classes if `scale_by_half` is set",
    "CategoricalCrossentropy": "Keras's: scores are divided by their sum; LogLoss is "
    "scikit-learn's",
    "ExpectedCalibrationError": "of several classes, of the largest score and whether it is right "
    "(Guo et al. 2017); 15 bins of equal width",
    "ExampleCount": "TFMA's is the sum of the weights, if there are any",
    "F1Score": "of several classes by the largest score and as their macro average; "
    "scikit-learn counts undefined classes as 0, which `zero_division: 0` does",
    "LogLoss": "scikit-learn's; Keras's crossentropies clip by 1e-7",
    "MatthewsCorrelationCoefficient": "TFMA's is of two classes only. Undefined, where "
    "scikit-learn gives 0, if all labels or all decisions are the same",
    "MeanAbsolutePercentageError": "in percent, 100 times scikit-learn's; rows whose label is 0 "
    "are left out, where scikit-learn divides by "
    "its smallest number",
    "MeanAbsoluteError": "TFMA counts one bundle twice when it merges",
    "MeanSquaredError": "TFMA counts one bundle twice when it merges",
    "MedianAbsoluteError": "read off buckets of errors: within 0.2% of scikit-learn's",
    "AbsoluteErrorQuantiles": "read off buckets of errors: within 0.2% of numpy's "
    "`averaged_inverted_cdf`",
    "OneVersusOneAUC": "scikit-learn's `multi_class='ovo'`; read off 10,000 buckets of scores",
    "Precision": "undefined, not 0, if nothing is predicted positive",
    "R2Score": "undefined if all labels are equal, where scikit-learn gives 0 or 1, or if their "
    "spread is below a hundred-thousandth of their size, as it is then lost in rounding",
    "SpearmanCorrelation": "read off buckets of labels and scores: within "
    "`spearman_correlation_error_bound`, a row of its own, of scipy's spearmanr. A bucket's width "
    "is a 64th or less of its values' distance from `center` (0 if not given): where values lie "
    "close together far from 0, as years do, the bound is large, and a round number near the "
    "labels' mean as the `center` makes it small. An example of weight 2 counts as two. NaN where "
    "all labels or all scores are in one bucket",
    "SymmetricFlipRate": "TFMA counts one bundle twice when it merges",
    "SquaredPearsonCorrelation": "undefined if the labels' or scores' spread is below a "
    "hundred-thousandth of their size, as it is then lost in rounding",
    "TopKCategoricalAccuracy": "`k` is 5 if not given, as in Keras (scikit-learn's is 2); "
    "of scores that are equal, all count as among the k largest",
}

# The names of decisions' accuracy by task.
_ACCURACY = {
    "binary": "BinaryAccuracy",
    "multiclass": "CategoricalAccuracy",
    "multilabel": "BinaryAccuracy",
}
# What the names of scikit-learn's scorers end with, for an average over classes.
_AVERAGES = {"macro": "macro", "micro": "micro", "weighted": "weighted_macro"}
# Names of what is to be had in another way.
_ELSEWHERE = {
    "classificationreport": "name Precision, Recall and F1Score: they are given by class",
    "confusionmatrix": "every run has confusion counts, in confusion.parquet",
    "f1samples": "there is no average over examples",
    "rocaucovoweighted": "use roc_auc_ovo, whose pairs of classes count alike",
    "rocauccurve": "use AUC, or ConfusionMatrixPlot for the curve",
    "roccurve": "use ConfusionMatrixPlot",
}
# Other names, squeezed: those of scikit-learn's functions and scorers, and common short ones.
_ALIASES: Mapping[str, str | Mapping[str, str]] = {
    "acc": _ACCURACY,
    "accuracy": _ACCURACY,
    "ap": "AUCPrecisionRecall",
    "aucpr": "AUCPrecisionRecall",
    "auprc": "AUCPrecisionRecall",
    "auroc": "AUC",
    "averageprecision": "AUCPrecisionRecall",
    "binarycrossentropy": "BinaryCrossentropy",
    "brier": "BrierScore",
    "brierscoreloss": "BrierScore",
    "calibrationerror": "ExpectedCalibrationError",
    "categoricalcrossentropy": "CategoricalCrossentropy",
    "cohenskappa": "CohenKappa",
    "count": "ExampleCount",
    "crossentropy": "LogLoss",
    "ece": "ExpectedCalibrationError",
    "f1": "F1Score",
    "falsenegativerate": "MissRate",
    "falsepositiverate": "FallOut",
    "fbeta": "FBetaScore",
    "fdr": "FalseDiscoveryRate",
    "fn": "FalseNegatives",
    "fnr": "MissRate",
    "for": "FalseOmissionRate",
    "fp": "FalsePositives",
    "fpr": "FallOut",
    "jaccard": "ThreatScore",
    "kappa": "CohenKappa",
    "mae": "MeanAbsoluteError",
    "mape": "MeanAbsolutePercentageError",
    "matthewscorrcoef": "MatthewsCorrelationCoefficient",
    "mcc": "MatthewsCorrelationCoefficient",
    "meanabsolutepercentage": "MeanAbsolutePercentageError",
    "medae": "MedianAbsoluteError",
    "mse": "MeanSquaredError",
    "msle": "MeanSquaredLogarithmicError",
    "npv": "NegativePredictiveValue",
    "positivepredictivevalue": "Precision",
    "ppv": "Precision",
    "prauc": "AUCPrecisionRecall",
    "r2": "R2Score",
    "rmse": "RootMeanSquaredError",
    "rocauc": "AUC",
    "rocaucovo": "OneVersusOneAUC",
    "rocaucovr": "AUC",
    "sensitivity": "Recall",
    "spearman": "SpearmanCorrelation",
    "spearmancorrcoef": "SpearmanCorrelation",
    "spearmanr": "SpearmanCorrelation",
    "spearmanrho": "SpearmanCorrelation",
    "tn": "TrueNegatives",
    "tnr": "Specificity",
    "topkaccuracy": "TopKCategoricalAccuracy",
    "tp": "TruePositives",
    "tpr": "Recall",
    "truenegativerate": "Specificity",
    "truepositiverate": "Recall",
}


@dataclass(frozen=True)
class Entry:
    """A metric class that there is.

    Attributes:
      name: the class.
      aliases: other names, as they are squeezed.
      definition: what it is, in a phrase.
      differences: where it differs from others of its name; "" if nowhere.
    """

    name: str
    aliases: tuple[str, ...]
    definition: str
    differences: str


def find(name: str) -> str | Mapping[str, str] | None:
    """The class that a name means, however it is spelled; by task if that decides; None if none.

    >>> find("log_loss"), find("CohensKappa"), find("neg_mean_squared_error")
    ('LogLoss', 'CohenKappa', 'MeanSquaredError')
    >>> find("accuracy_score")["multiclass"]
    'CategoricalAccuracy'
    """
    squeezed = _squeeze(name)
    for candidate in (squeezed, squeezed.removesuffix("score"), squeezed.removeprefix("neg")):
        if candidate in _ALIASES:
            return _ALIASES[candidate]
        if candidate in _CLASSES:
            return _CLASSES[candidate]
    return None


def list_meant(spec: MetricSpec) -> tuple[MetricSpec, ...]:
    """The metric by the names of the classes that its own name may mean, depending on the task.

    Raises:
      ConfigError: the name is that of something else than a metric.
    """
    if spec.native and (instead := _ELSEWHERE.get(_squeeze(spec.class_name))):
        raise errors.ConfigError(f"metrics: {spec.class_name!r} is no metric: {instead}")
    spec = _read_average(spec)
    meant = _interpret(spec)
    names = [meant] if isinstance(meant, str) else dict.fromkeys(meant.values())
    return tuple(replace(spec, class_name=name) for name in names)


def spell(
    specs: Sequence[MetricSpec], heads: Sequence[Head]
) -> tuple[tuple[MetricSpec, ...], list[str]]:
    """The metrics by their classes' names, and a sentence on each that had another name.

    A name whose class depends on the task becomes a metric for each output.
    """
    spelled, notes = [], []
    for requested in specs:
        spec = _read_average(requested)
        meant = _interpret(spec)
        if isinstance(meant, str):
            found = [replace(spec, class_name=meant)]
        else:
            found = [
                replace(spec, class_name=meant[head.task], outputs=(head.output,))
                for head in heads
                if spec.is_for(head.output) and head.task in meant
            ]
        spelled += found
        names = errors.listed(dict.fromkeys(each.class_name for each in found))
        if not found:
            tasks = errors.listed(dict.fromkeys(head.task for head in heads))
            raise errors.ConfigError(f"metrics: {spec.class_name!r} is no metric of task {tasks}")
        if any(_squeeze(each.class_name) != _squeeze(requested.class_name) for each in found):
            average = f", {spec.aggregate} average" if spec is not requested else ""
            first_difference, _, _ = DIFFERENCES.get(found[0].class_name, "").partition(". ")
            differs = f": {first_difference}" if first_difference else ""
            notes.append(f"metric {requested.class_name!r} is {names}{average}{differs}")
    return tuple(spelled), notes


def _read_average(spec: MetricSpec) -> MetricSpec:
    """The metric with the average over classes that its name ends with, such as f1_macro."""
    stem, _, ending = metric.snake_case(spec.class_name).rpartition("_")
    if spec.native and not spec.aggregate and ending in _AVERAGES and find(stem):
        return replace(spec, class_name=stem, aggregate=_AVERAGES[ending])
    return spec


def _interpret(spec: MetricSpec) -> str | Mapping[str, str]:
    """The class that a metric's name means; the name itself if it is one, or means none."""
    name = spec.class_name
    if not spec.native or spec.module or name in DEFINITIONS or name in metrics.REGISTRY:
        return name
    return find(name) or name


def describe(name: str) -> Entry:
    """The entry of a class of DEFINITIONS."""
    aliases = tuple(
        alias
        for alias, meant in _ALIASES.items()
        if name == meant or (isinstance(meant, Mapping) and name in meant.values())
    )
    return Entry(name, aliases, DEFINITIONS[name], DIFFERENCES.get(name, ""))


def _squeeze(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))


_CLASSES = {_squeeze(metric.snake_case(name)): name for name in sorted(DEFINITIONS, reverse=True)}
