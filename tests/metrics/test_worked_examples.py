"""The worked examples of the documents that ask for this job: counts in, their figures out."""

from __future__ import annotations

import metric_cases
import numpy as np
import pyarrow as pa
import pytest

from evalbeam.transforms.metrics.evaluation import MetricSpec
from evalbeam.transforms.metrics.sheet import Sheet

Counts = dict[str, int]


def _decide(**counts: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores that give these confusion counts at 0.5."""
    kinds = {"tp": (1, 0.9), "fp": (0, 0.8), "fn": (1, 0.2), "tn": (0, 0.1)}
    labels = np.concatenate([np.full(counts[kind], y) for kind, (y, _) in kinds.items()])
    scores = np.concatenate([np.full(counts[kind], p) for kind, (_, p) in kinds.items()])
    return labels.astype(float), scores


def _measure(
    task: str,
    classes: int | None,
    labels: np.ndarray,
    scores: dict[str, np.ndarray],
    *names: str,
) -> dict[tuple, float]:
    """Overall values by (metric, model) or (metric, model, class)."""
    size = len(labels)
    data = metric_cases.Data(
        task,
        classes,
        pa.record_batch([pa.nulls(size)], names=["unused"]),
        labels,
        None,
        scores,
        np.arange(size, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15),
    )
    planned = metric_cases.planned(data, [MetricSpec(name, native=True) for name in names])
    halves = np.array_split(np.random.default_rng(1).permutation(size), 3)
    sums = metric_cases.added(data, planned.statistics, halves, units=20, specs=[()])
    values = {}
    for part in planned.metrics:
        value = float(metric_cases.numbers(part.finish(Sheet(sums)))[0])
        mark = () if part.key.class_id is None else (part.key.class_id,)
        values[(part.key.metric, part.key.model, *mark)] = value
    return values


def _binary(counts: Counts, *names: str) -> dict[tuple, float]:
    labels, scores = _decide(**counts)
    return _measure("binary", None, labels, {"base": scores, "cand": scores}, *names)


def test_row_1_confusion_matrix_of_200_examples() -> None:
    values = _binary(
        {"tp": 85, "fp": 15, "fn": 10, "tn": 90},
        "BinaryAccuracy", "Precision", "Recall",
        "TruePositives", "FalsePositives", "FalseNegatives", "TrueNegatives", "ExampleCount",
    )  # fmt: skip
    assert values["binary_accuracy", "cand"] == 0.875
    assert values["precision", "cand"] == 0.85
    assert round(values["recall", "cand"], 4) == 0.8947
    counts = ("true_positives", "false_positives", "false_negatives", "true_negatives")
    assert [values[name, "cand"] for name in counts] == [85, 15, 10, 90]
    assert values["example_count", "cand"] == 200


def test_row_4_98_percent_accuracy_with_12_percent_recall() -> None:
    counts = {"tp": 3, "fp": 22, "fn": 22, "tn": 2153}
    values = _binary(counts, "BinaryAccuracy", "Recall", "Precision", "Prevalence", "F1Score")
    assert values["binary_accuracy", "cand"] == 0.98
    assert values["recall", "cand"] == 0.12
    assert values["precision", "cand"] == 0.12
    assert values["f1_score", "cand"] == pytest.approx(0.12)
    # Always guessing "no fraud" is more accurate still.
    assert 1 - values["prevalence", "cand"] == pytest.approx(2175 / 2200)
    assert 1 - values["prevalence", "cand"] > values["binary_accuracy", "cand"]


def test_row_8_conversion() -> None:
    values = _binary(
        {"tp": 45, "fn": 5, "fp": 3, "tn": 47}, "BinaryAccuracy", "Precision", "Recall"
    )
    assert values["binary_accuracy", "cand"] == 0.92
    assert values["precision", "cand"] == 0.9375
    assert values["recall", "cand"] == 0.9


def test_row_10_cats_and_dogs_by_class() -> None:
    cat, dog = [0.8, 0.2], [0.3, 0.7]
    labels = np.repeat([0.0, 0.0, 1.0, 1.0], [50, 10, 5, 35])
    scores = np.repeat([cat, dog, cat, dog], [50, 10, 5, 35], axis=0)
    values = _measure(
        "multiclass", 2, labels, {"base": scores, "cand": scores},
        "Precision", "Recall", "F1Score", "SparseCategoricalAccuracy",
    )  # fmt: skip
    assert values["precision", "cand", 0] == 50 / 55
    assert round(values["precision", "cand", 0], 2) == 0.91
    assert values["recall", "cand", 0] == 50 / 60
    assert round(values["recall", "cand", 0], 2) == 0.83
    assert round(values["f1_score", "cand", 0], 2) == 0.87
    assert values["precision", "cand", 1] == 35 / 45
    assert values["recall", "cand", 1] == 35 / 40
    assert values["precision", "cand"] == pytest.approx((50 / 55 + 35 / 45) / 2)
    assert values["sparse_categorical_accuracy", "cand"] == 0.85


def test_row_11_two_versions_side_by_side() -> None:
    """Both on the same 200 examples, 95 of them positive."""
    labels, first = _decide(tp=80, fp=20, fn=15, tn=85)
    other, second = _decide(tp=85, fp=15, fn=10, tn=90)
    first, second = (
        scores[np.argsort(y, kind="stable")] for y, scores in ((labels, first), (other, second))
    )
    labels, other = np.sort(labels), np.sort(other)
    np.testing.assert_array_equal(labels, other)
    values = _measure(
        "binary", None, labels, {"base": first, "cand": second},
        "Precision", "Recall", "BinaryAccuracy", "SymmetricFlipRate", "NegToPosFlipRate",
    )  # fmt: skip
    assert values["precision", "base"] == 0.80
    assert round(values["recall", "base"], 3) == 0.842
    assert values["precision", "cand"] == 0.85
    assert round(values["recall", "cand"], 3) == 0.895
    assert values["binary_accuracy", "base"] == 0.825
    assert values["binary_accuracy", "cand"] == 0.875
    flipped = (first > 0.5) != (second > 0.5)
    assert values["symmetric_flip_rate", "cand"] == flipped.mean()
    assert values["neg_to_pos_flip_rate", "cand"] == ((first < 0.5) & (second > 0.5)).mean()
    assert ("symmetric_flip_rate", "base") not in values
