"""Every metric, on every slice, against scikit-learn, SciPy or its plain definition."""

from __future__ import annotations

import dataclasses
import json
import re
import warnings
from collections.abc import Callable

import hypothesis
import metric_cases
import numpy as np
import pyarrow as pa
import pytest
import sklearn.metrics
from hypothesis import strategies as st
from scipy import stats

from evalbeam.transforms import errors, metrics
from evalbeam.transforms.metrics import metric, ranks, statistics
from evalbeam.transforms.metrics.evaluation import MetricSpec
from evalbeam.transforms.metrics.sheet import Sheet


def test_every_registered_metric_has_a_case_on_every_task_that_it_is_for() -> None:
    covered = {(case.class_name, metric_cases.DATA[case.data].task) for case in metric_cases.CASES}
    wanted = {(name, task) for name in metrics.REGISTRY for task in metrics.list_tasks(name)}
    assert wanted <= covered
    assert {name for name, _ in covered} == set(metrics.REGISTRY)


@pytest.mark.parametrize("case", metric_cases.CASES, ids=str)
def test_metric_is_what_its_definition_says(case: metric_cases.Case) -> None:
    data = metric_cases.DATA[case.data]
    spec = case.metric_spec()
    plan = metric_cases.planned(data, [spec])
    assert not plan.by_tfma, "has no columnar kernel"
    assert plan.metrics
    sums = metric_cases.added(data, plan.statistics)
    slices = metric_cases.rows_by_slice(data)
    assert {key.pairs for key in sums.slices} == set(slices)
    sheet = Sheet(sums)
    for part in plan.metrics:
        values = metric_cases.numbers(part.finish(sheet))
        for i, key in enumerate(sums.slices):
            weighted = spec.weighted is not False
            rows = metric_cases.rows_of(data, slices[key.pairs], part.key.model, weighted)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                expected = case.oracle(rows, part.key, spec)
            np.testing.assert_allclose(
                values[i], expected, rtol=case.near, atol=1e-12, err_msg=f"{part.key} of {key}"
            )


@pytest.mark.parametrize("class_name", metric_cases.SKLEARN)
@pytest.mark.parametrize("data_name", ["binary", "unweighted", "fractional"])
def test_definitions_are_scikit_learns(class_name: str, data_name: str) -> None:
    data = metric_cases.DATA[data_name]
    checked = 0
    for index in metric_cases.rows_by_slice(data).values():
        rows = metric_cases.rows_of(data, index, "cand", True)
        ours = metric_cases.DEFINITIONS[class_name](
            *metric_cases.counts(rows.y, rows.p, rows.w, 0.5)
        )
        y = np.repeat([1, 0], len(rows.y))
        up = np.tile(rows.p > 0.5, 2).astype(int)
        weight = np.concatenate([rows.w * rows.y, rows.w * (1 - rows.y)])
        y, up, weight = y[weight > 0], up[weight > 0], weight[weight > 0]
        if np.isnan(ours):
            continue  # scikit-learn has a 0 or a warning where the quotient is not defined
        theirs = metric_cases.SKLEARN[class_name](y, up, sample_weight=weight)
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)
        checked += 1
    assert checked > 3


def _finish(data: metric_cases.Data, class_name: str, **config: object) -> np.ndarray:
    case = metric_cases.Case(class_name, "", lambda *_: None, dict(config))
    plan = metric_cases.planned(data, [case.metric_spec()])
    sums = metric_cases.added(data, plan.statistics, specs=[()])
    of_candidate = next(part for part in plan.metrics if part.key.model == "cand")
    return metric_cases.numbers(of_candidate.finish(Sheet(sums)))[0]


def _coin(size: int, scores: np.ndarray, y: np.ndarray) -> metric_cases.Data:
    data = metric_cases.binary(seed=11, size=size, weighted=False)
    return metric_cases.Data(
        "binary", None, data.columns, y, None, {"base": scores, "cand": scores}, data.hashes
    )


def test_auc_of_scores_within_buckets_is_scikit_learns() -> None:
    rng = np.random.default_rng(12)
    scores = (rng.integers(0, 100, 2000) + 0.5) / 100
    y = (rng.random(2000) < scores).astype(float)
    data = _coin(2000, scores, y)
    expected = sklearn.metrics.roc_auc_score(y, scores)
    assert _finish(data, "AUC") == pytest.approx(expected, rel=1e-12)


def test_auc_of_any_scores_is_scikit_learns_within_the_buckets() -> None:
    rng = np.random.default_rng(13)
    scores = rng.beta(2, 5, 3000)
    y = (rng.random(3000) < scores).astype(float)
    exact = sklearn.metrics.roc_auc_score(y, scores)
    bucket = np.floor(scores * 10_000).astype(int)
    pos = np.bincount(bucket, y, 10_000)
    neg = np.bincount(bucket, 1 - y, 10_000)
    # Within a bucket pairs are ties, which count a half instead of 0 or 1.
    error = (pos * neg).sum() / 2 / (pos.sum() * neg.sum())
    ours = _finish(_coin(3000, scores, y), "AUC")
    assert 0 < abs(ours - exact) <= error


def test_area_under_the_precision_recall_curve_is_near_average_precision() -> None:
    rng = np.random.default_rng(14)
    scores = rng.random(20_000)
    y = (rng.random(20_000) < scores).astype(float)
    expected = sklearn.metrics.average_precision_score(y, scores)
    assert _finish(_coin(20_000, scores, y), "AUCPrecisionRecall") == pytest.approx(
        expected, abs=1e-3
    )


def test_score_on_a_threshold_is_no_alarm() -> None:
    scores = np.array([0.25, 0.5, np.nextafter(0.5, 1), 0.75])
    data = _coin(4, scores, np.ones(4))
    at = _finish(data, "TruePositives", thresholds=[0.25, 0.5, 0.75])
    np.testing.assert_array_equal(at, [3, 2, 0])


def test_by_class_is_scikit_learns_classification_report() -> None:
    data = metric_cases.DATA["multiclass"]
    predicted = data.predictions["cand"].argmax(axis=1)
    report = sklearn.metrics.classification_report(
        data.labels,
        predicted,
        sample_weight=data.weights,
        output_dict=True,
        zero_division=np.nan,
    )
    names = {"Precision": "precision", "Recall": "recall", "F1Score": "f1-score"}
    for class_name, column in names.items():
        case = metric_cases.Case(class_name, "", lambda *_: None, spec={"native": True})
        plan = metric_cases.planned(data, [case.metric_spec()])
        sheet = Sheet(metric_cases.added(data, plan.statistics, specs=[()]))
        values = {
            part.key.class_id: metric_cases.numbers(part.finish(sheet))[0]
            for part in plan.metrics
            if part.key.model == "cand"
        }
        for c in range(4):
            assert values[c] == pytest.approx(report[f"{c}.0"][column], rel=1e-12, nan_ok=True)
        macro = np.mean([report[f"{c}.0"][column] for c in range(4)])
        assert values[None] == pytest.approx(macro, rel=1e-12, nan_ok=True)


def test_undefined_quotients_are_nan_not_zero() -> None:
    quiet = _coin(4, np.array([0.1, 0.2, 0.3, 0.4]), np.array([1.0, 0, 1, 0]))
    assert np.isnan(_finish(quiet, "Precision"))
    assert _finish(quiet, "Recall") == 0
    negatives = _coin(4, np.array([0.1, 0.6, 0.3, 0.8]), np.zeros(4))
    for name in ("Recall", "AUC", "AUCPrecisionRecall", "Calibration", "BalancedAccuracy"):
        assert np.isnan(_finish(negatives, name)), name
    assert np.isnan(_finish(negatives, "RecallAtPrecision", precision=0.5))
    assert np.isnan(_finish(negatives, "SquaredPearsonCorrelation"))


@pytest.mark.parametrize("seed", range(20))
def test_nothing_left_is_nothing_whatever_the_weights_round_to(seed: int) -> None:
    """0.1 + 0.2 - 0.3 is not 0: what is left of a sum must not become a denominator."""
    rng = np.random.default_rng(seed)
    data = metric_cases.multiclass(seed=seed)
    y = rng.integers(0, 2, len(data))
    predicted = np.where(y == 0, 1, rng.integers(0, 2, len(data)))  # no true negative of class 1
    scores = np.eye(4)[predicted]
    muddled = metric_cases.Data(
        "multiclass", 4, data.columns, y.astype(float), data.weights,
        {"base": scores, "cand": scores}, data.hashes,
    )  # fmt: skip
    for class_name in ("TrueNegatives", "NegativeLikelihoodRatio"):
        case = metric_cases.Case(class_name, "", lambda *_: None, spec={"native": True})
        plan = metric_cases.planned(muddled, [case.metric_spec()])
        sums = metric_cases.added(muddled, plan.statistics, units=7)
        for part in plan.metrics:
            if part.key.class_id == 1:
                values = metric_cases.numbers(part.finish(Sheet(sums)))
                expected = 0.0 if class_name == "TrueNegatives" else np.nan
                np.testing.assert_array_equal(values, expected)
    for flipped in (0.0, 1.0):
        binary = metric_cases.binary(seed=seed)
        constant = metric_cases.Data(
            "binary", None, binary.columns, np.full(len(binary), flipped), binary.weights,
            binary.predictions, binary.hashes,
        )  # fmt: skip
        case = metric_cases.Case("CoefficientOfDiscrimination", "", lambda *_: None)
        plan = metric_cases.planned(constant, [case.metric_spec()])
        sums = metric_cases.added(constant, plan.statistics, units=7)
        for part in plan.metrics:
            assert np.isnan(metric_cases.numbers(part.finish(Sheet(sums)))).all()


def test_an_example_without_weight_counts_nothing_not_even_an_infinite_loss() -> None:
    data = metric_cases.binary(seed=15, size=50, inner=True)
    weights = data.weights.copy()
    scores = data.predictions["cand"].copy()
    weights[0], scores[0], data.labels[0] = 0.0, 0.0, 1.0
    weightless = metric_cases.Data(
        "binary", None, data.columns, data.labels, weights,
        {"base": scores, "cand": scores}, data.hashes,
    )  # fmt: skip
    ours = _finish(weightless, "BinaryCrossEntropy")
    rest = np.arange(1, 50)
    losses = -np.log(np.where(data.labels == 1, scores, 1 - scores)[rest])
    assert ours == pytest.approx(np.average(losses, weights=weights[rest]), rel=1e-12)


def test_calibration_may_be_negative() -> None:
    data = metric_cases.regression()
    shifted = metric_cases.Data(
        "regression", None, data.columns, data.labels - 20, data.weights, data.predictions,
        data.hashes,
    )  # fmt: skip
    expected = (data.weights * data.predictions["cand"]).sum() / (
        data.weights * (data.labels - 20)
    ).sum()
    assert expected < 0
    assert _finish(shifted, "Calibration") == pytest.approx(expected, rel=1e-12)


def test_max_recall_has_no_by_class_form_and_stays_recall_above_zero() -> None:
    data = metric_cases.DATA["multiclass"]
    case = metric_cases.Case("MaxRecall", "", lambda *_: None, spec={"native": True})
    plan = metric_cases.planned(data, [case.metric_spec()])
    sheet = Sheet(metric_cases.added(data, plan.statistics, specs=[()]))
    for part in plan.metrics:
        assert metric_cases.numbers(part.finish(sheet)) == pytest.approx([1.0])


def test_label_minus_one_is_no_class() -> None:
    data = metric_cases.multiclass(weighted=False)
    y = data.labels.copy()
    y[:40] = -1
    some = metric_cases.Data("multiclass", 4, data.columns, y, None, data.predictions, data.hashes)
    known = np.arange(40, len(data))
    predicted = data.predictions["cand"].argmax(axis=1)
    assert _finish(some, "SparseCategoricalAccuracy") == pytest.approx(
        sklearn.metrics.accuracy_score(y, predicted)
    )
    matrix = _finish(some, "MultiClassConfusionMatrixPlot")[0]
    np.testing.assert_array_equal(
        matrix[:, :4], sklearn.metrics.confusion_matrix(y[known], predicted[known], labels=range(4))
    )
    assert (
        _finish(some, "TruePositives", class_id=0) + _finish(some, "FalseNegatives", class_id=0)
        == (y == 0).sum()
    )


NO_REGRESSION = "of a regression output, TFMA checks that labels lie in [0, 1]"


@pytest.mark.parametrize(
    ("class_name", "config", "data", "reason"),
    [
        ("AUC", {"thresholds": [0.1]}, "binary", "its argument thresholds=[0.1] has no kernel"),
        ("AUC", {"num_thresholds": 1}, "binary", "its argument num_thresholds=1 has no kernel"),
        ("AUC", {"top_k": 2}, "multiclass", "it has no kernel for top_k=2"),
        ("AUC", {}, "regression", NO_REGRESSION),
        (
            "Precision",
            {"thresholds": [-0.5]},
            "binary",
            "its argument thresholds=[-0.5] has no kernel",
        ),
        ("Precision", {}, "regression", NO_REGRESSION),
        ("ConfusionMatrixAtThresholds", {"thresholds": [0.5]}, "regression", NO_REGRESSION),
        ("ConfusionMatrixAtThresholds", {}, "binary", "its argument thresholds is missing"),
        (
            "RecallAtPrecision",
            {"precision": 1.5},
            "binary",
            "its argument precision=1.5 has no kernel",
        ),
        (
            "RecallAtPrecision",
            {"precision": [0.5, 0.6]},
            "binary",
            "its argument precision=[0.5, 0.6] has no kernel",
        ),
        ("RecallAtPrecision", {}, "binary", "its argument precision is missing"),
        (
            "BinaryCrossEntropy",
            {"from_logits": True},
            "binary",
            "its argument from_logits=True has no kernel",
        ),
        ("CategoricalAccuracy", {}, "binary", "it has no kernel for binary outputs"),
        ("CategoricalCrossentropy", {}, "regression", "it has no kernel for regression outputs"),
        (
            "CalibrationPlot",
            {"num_buckets": 0},
            "binary",
            "its argument num_buckets=0 has no kernel",
        ),
        ("SymmetricFlipRate", {}, "multiclass", "it has no kernel for multiclass outputs"),
        ("NDCG", {"gain_key": "x"}, "binary", "evalbeam has no kernel of its own for it"),
    ],
)
def test_a_metric_goes_to_tfma_for_a_reason(class_name, config, data, reason) -> None:
    case = metric_cases.Case(class_name, data, lambda *_: None, config)
    plan = metric_cases.planned(metric_cases.DATA[data], [case.metric_spec()])
    assert [(part.spec.class_name, part.reason) for part in plan.by_tfma] == [(class_name, reason)]
    assert not plan.metrics


@pytest.mark.parametrize(
    ("class_name", "config", "target", "reason"),
    [
        (
            "Recall",
            {"class_id": 2},
            {"class_id": 1},
            "its argument class_id=2 and the way it is made binary both choose classes",
        ),
        (
            "AUC",
            {"top_k": 3},
            {"top_k": 1},
            "its argument top_k=3 and the way it is made binary both choose classes",
        ),
        ("SparseCategoricalAccuracy", {}, {"k": 1}, "it has no kernel for k=1"),
        ("CalibrationPlot", {}, {"top_k": 2}, "it has no kernel for top_k=2"),
        ("ConfusionMatrixPlot", {}, {"top_k": 2}, "it has no kernel for top_k=2"),
    ],
)
def test_a_binarized_metric_goes_to_tfma_for_a_reason(class_name, config, target, reason) -> None:
    target = statistics.Target("cand", "", "multiclass", 4, **target)
    request = metric.Request(class_name, config, target)
    with pytest.raises(metric.NeedsTfma, match=f"^{re.escape(reason)}$"):
        metrics.build(request)


def test_a_micro_average_of_flips_goes_to_tfma() -> None:
    target = statistics.Target("cand", "", "binary")
    request = metric.Request("SymmetricFlipRate", {}, target, "micro")
    with pytest.raises(metric.NeedsTfma, match="it has no kernel for a micro average"):
        metrics.build(request)


def test_default_names_are_snake_case() -> None:
    assert metric.snake_case("AUCPrecisionRecall") == "auc_precision_recall"
    assert metric.snake_case("F1Score") == "f1_score"
    assert metric.snake_case("TP") == "tp"


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e12])
@pytest.mark.parametrize("size", [1, 2, 7, 500])
def test_quantiles_of_errors_are_near_the_errors_own(scale: float, size: int) -> None:
    rng = np.random.default_rng(size)
    labels = rng.normal(size=size) * scale
    scores = labels + rng.standard_t(2, size=size) * scale * (rng.random(size) > 0.2)
    weights = rng.integers(0, 4, size).astype(float)
    weights[0] = 1
    data = dataclasses.replace(_coin(size, scores, labels), task="regression", weights=weights)
    shares = [0.0, 0.25, 0.5, 0.9, 1.0]
    spec = MetricSpec("AbsoluteErrorQuantiles", json.dumps({"quantiles": shares}))
    plan = metric_cases.planned(data, [spec, MetricSpec("MedianAbsoluteError")])
    sheet = Sheet(metric_cases.added(data, plan.statistics, specs=[()]))
    found = {
        part.key.metric: part.finish(sheet).values[0]
        for part in plan.metrics
        if part.key.model == "cand"
    }
    errors = np.repeat(np.abs(labels - data.predictions["cand"]), weights.astype(int))
    for share in shares:
        right = np.quantile(errors, share, method="averaged_inverted_cdf")
        near = pytest.approx(right, rel=0.002, abs=scale * 1e-12)
        assert found[f"absolute_error_quantile@{share:g}"] == near
    assert found["median_absolute_error"] == pytest.approx(
        np.median(errors), rel=0.002, abs=scale * 1e-12
    )


def _correlate(
    labels: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None, center: float = 0.0
) -> tuple[float, float]:
    """Spearman's correlation and its bound."""
    target = statistics.Target("cand", "", "regression", weighted=True)
    request = metric.Request("SpearmanCorrelation", {"center": center}, target)
    parts = metrics.build(request)
    columns = pa.RecordBatch.from_pydict({"row": np.arange(len(labels))})
    hashes = np.arange(len(labels), dtype=np.uint64)
    predictions = {"cand": scores}
    data = metric_cases.Data("regression", None, columns, labels, weights, predictions, hashes)
    sheet = Sheet(metric_cases.added(data, parts[0].statistics, specs=[()]))
    estimate, bound = (part.finish(sheet).values[0] for part in parts)
    return estimate, bound


_VALUES = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(-3, 3),
    st.floats(1990, 2020),
    st.integers(-5, 300).map(float),
    st.sampled_from([0.0, -0.0, 0.1, 1e-30, -1e-30, 1e30, 2.0**-80, 2.0**80, 5e-324]),
)


@hypothesis.given(
    st.lists(st.tuples(_VALUES, _VALUES, st.integers(0, 3)), min_size=1, max_size=30),
    st.sampled_from([0.0, 0.1, 256.0, 2005.0, 1e30]),
)
@hypothesis.settings(max_examples=300, deadline=None)
def test_spearmans_correlation_is_within_its_bound(
    rows: list[tuple[float, float, int]], center: float
) -> None:
    labels, scores, weights = np.array(rows, float).T
    estimate, bound = _correlate(labels, scores, weights, center)
    repeated = np.repeat([labels, scores], weights.astype(int), axis=1)
    if repeated.shape[1] < 2 or (repeated == repeated[:, :1]).all(axis=1).any():
        assert np.isnan([estimate, bound]).all()
        return
    assert np.isnan(estimate) == np.isnan(bound)
    if not np.isnan(estimate):
        assert abs(estimate - stats.spearmanr(*repeated).statistic) <= bound + 1e-9


@pytest.mark.parametrize("correlation", [0.0, 0.9])
@pytest.mark.parametrize(
    ("of_normal", "center", "largest"),
    [
        (lambda z: np.exp(z), 0.0, 0.007),
        (lambda z: -np.exp(3 * z), 0.0, 0.003),
        (lambda z: z, 0.0, 0.005),
        (lambda z: 1e-12 * stats.t.ppf(stats.norm.cdf(z), 1), 0.0, 0.003),
        (lambda z: np.clip(np.round(3.5 + z), 1, 5), 0.0, 1e-12),
        (lambda z: np.round(20 + 5 * z), 0.0, 1e-12),
        (lambda z: 288 + 8 * z, 288.0, 0.005),
        (lambda z: np.round(2005 + 8 * z), 2000.0, 1e-12),
    ],
    ids=["lognormal", "wide", "normal", "cauchy", "ratings", "counts", "kelvin", "years"],
)
def test_the_bound_of_spearmans_correlation_is_small(
    of_normal: Callable[[np.ndarray], np.ndarray],
    center: float,
    largest: float,
    correlation: float,
) -> None:
    z, noise = np.random.default_rng(7).normal(size=(2, 20_000))
    labels = of_normal(z)
    scores = of_normal(correlation * z + np.sqrt(1 - correlation**2) * noise)
    estimate, bound = _correlate(labels, scores, center=center)
    assert bound < largest
    right = stats.spearmanr(labels, scores).statistic
    assert estimate == pytest.approx(right, abs=min(bound + 1e-9, 1e-4))


def test_spearmans_correlation_is_undefined_where_nothing_is_told_apart() -> None:
    one = np.array([1.5])
    for labels, scores in [
        (one, one),
        (np.full(9, 0.3), np.arange(9.0)),
        (np.arange(9.0), np.full(9, 0.3)),
        (1e6 + np.arange(9.0) / 100, np.arange(9.0)),
    ]:
        assert np.isnan(_correlate(labels, scores)).all()
    labels = 1e6 + np.arange(9.0) / 4
    assert _correlate(labels, labels, center=1e6) == pytest.approx((1, 0), abs=1e-12)


def test_a_slices_correlation_is_to_the_bit_the_same_among_many() -> None:
    rng = np.random.default_rng(8)
    cells = np.unique(rng.integers(0, statistics.RankCells.BUCKETS**2, 40))
    weights = rng.uniform(0, 3, 40)
    alone = ranks._correlate(1, np.zeros(40, np.int64), cells, weights)
    owners = np.arange(5_000).repeat(40)
    many = ranks._correlate(5_000, owners, np.tile(cells, 5_000), np.tile(weights, 5_000))
    assert set(many.estimate) == set(alone.estimate)
    assert set(many.bound) == set(alone.bound)


@pytest.mark.parametrize("center", ["mean", float("inf"), True, None])
def test_a_center_must_be_a_number(center: object) -> None:
    target = statistics.Target("cand", "", "regression")
    request = metric.Request("SpearmanCorrelation", {"center": center}, target)
    with pytest.raises(errors.ConfigError, match="argument center is"):
        metrics.build(request)
