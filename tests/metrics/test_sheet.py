"""Laws of resampling by unit, over every registered metric whose sums are kept by unit.

A replicate's value must be what the metric is of the examples that the replicate has: with units
really removed from the data, or really added to it again.
"""

from __future__ import annotations

from collections.abc import Iterator

import metric_cases
import numpy as np
import pytest

from evalbeam.transforms import metrics
from evalbeam.transforms.metrics import statistics
from evalbeam.transforms.metrics.metric import Metric
from evalbeam.transforms.metrics.plan import Plan
from evalbeam.transforms.metrics.sheet import NotByUnit, Sheet
from evalbeam.transforms.metrics.statistics import Statistic
from evalbeam.transforms.metrics.table import Table

UNITS = 7
DATA = list(metric_cases.DATA)
# Class name -> why its metrics have no replicates.
NOT_BY_UNIT = {
    "AUC": "histogram",
    "AUCPrecisionRecall": "histogram",
    **dict.fromkeys(metric_cases.BOUNDED, "histogram"),
    "ConfusionMatrixPlot": "histogram",
    "CalibrationPlot": "buckets",
    "ExpectedCalibrationError": "buckets",
    "MedianAbsoluteError": "histogram",
    "OneVersusOneAUC": "histogram",
    "AbsoluteErrorQuantiles": "histogram",
    "SpearmanCorrelation": "rank cells",
    "CohenKappa": "class matrix",
    "MultiClassConfusionMatrixPlot": "class matrix",
    "MultiClassConfusionMatrixAtThresholds": "class matrix",
    "MultiLabelConfusionMatrixPlot": "label matrix",
}


def _plan(name: str) -> Plan:
    """The metrics of all cases on this data, each under a name of its own."""
    specs = [
        case.metric_spec(None if case.class_name == "BooleanFlipRates" else f"case {i}")
        for i, case in enumerate(metric_cases.CASES)
        if case.data == name
    ]
    return metric_cases.planned(metric_cases.DATA[name], specs, [("base", "cand")])


@pytest.fixture(scope="module", params=DATA)
def data(request: pytest.FixtureRequest) -> metric_cases.Data:
    return metric_cases.DATA[request.param]


@pytest.fixture(scope="module")
def plan(data: metric_cases.Data) -> Plan:
    return _plan(next(name for name in DATA if metric_cases.DATA[name] is data))


@pytest.fixture(scope="module")
def table(data: metric_cases.Data, plan: Plan) -> Table:
    return metric_cases.added(data, plan.statistics, units=UNITS).sort()


def _resampled_metrics(plan: Plan) -> Iterator[Metric]:
    yield from (metric for metric in plan.metrics if metric.by_unit)


def _by_unit(plan: Plan) -> list[Statistic]:
    return [statistic for statistic in plan.statistics if statistic.by_unit]


def _rows(data: metric_cases.Data, unit: int) -> np.ndarray:
    return np.flatnonzero(data.hashes % np.uint64(UNITS) == unit)


def _assert_same(actual: np.ndarray, expected: np.ndarray, table: Table, name: str) -> None:
    """To the bit where the sums are whole numbers, else to rounding."""
    if table.sums[name].low is None:
        np.testing.assert_array_equal(actual, expected, err_msg=name)
    else:
        np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-13, err_msg=name)


def _assert_same_metric(actual: np.ndarray, expected: np.ndarray, metric: Metric) -> None:
    message = str(metric.key)
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12, err_msg=message)


def test_every_metric_has_replicates_or_a_reason_why_not() -> None:
    by_unit: dict[str, bool] = {}
    for case in metric_cases.CASES:
        plan = metric_cases.planned(metric_cases.DATA[case.data], [case.metric_spec()])
        by_unit[case.class_name] = all(metric.by_unit for metric in plan.metrics)
    assert set(by_unit) == set(metrics.REGISTRY)
    assert {name for name, kept in by_unit.items() if not kept} == set(NOT_BY_UNIT)


@pytest.mark.parametrize("unit", range(UNITS))
def test_leaving_a_unit_out_is_removing_its_examples(
    unit: int, data: metric_cases.Data, plan: Plan, table: Table
) -> None:
    others = np.setdiff1d(np.arange(len(data)), _rows(data, unit))
    removed = metric_cases.added(data, plan.statistics, [others], units=UNITS)
    places = [table.slices.index(key) for key in removed.slices]
    resampled = Sheet(table).leave_one_out()
    assert len(resampled) == UNITS * len(table.slices)
    for statistic in _by_unit(plan):
        sums = resampled.total(statistic).reshape(UNITS, len(table.slices), -1)[unit]
        _assert_same(sums[places], removed.dense(statistic.name), table, statistic.name)
        gone = np.delete(sums, places, axis=0)
        np.testing.assert_array_equal(gone, np.zeros(gone.shape))
    for metric in _resampled_metrics(plan):
        values = metric_cases.numbers(metric.finish(resampled))
        replicates = values.reshape(UNITS, len(table.slices), *values.shape[1:])
        expected = metric_cases.numbers(metric.finish(Sheet(removed)))
        _assert_same_metric(replicates[unit][places], expected, metric)


def test_every_unit_once_is_the_sheet_itself(plan: Plan, table: Table) -> None:
    whole = Sheet(table)
    once = whole.resample(np.ones((1, UNITS)))
    for statistic in _by_unit(plan):
        _assert_same(once.total(statistic), whole.total(statistic), table, statistic.name)
    for metric in _resampled_metrics(plan):
        actual = metric_cases.numbers(metric.finish(once))
        _assert_same_metric(actual, metric_cases.numbers(metric.finish(whole)), metric)


def test_units_add_up_to_the_sheet(plan: Plan, table: Table) -> None:
    whole = Sheet(table)
    alone = whole.resample(np.eye(UNITS))
    for statistic in _by_unit(plan):
        by_unit = whole.by_unit(statistic)
        np.testing.assert_array_equal(
            alone.total(statistic), by_unit.reshape(-1, by_unit.shape[-1])
        )
        np.testing.assert_array_equal(
            by_unit, table.dense(statistic.name, by_unit=True).transpose(1, 0, 2)
        )
        _assert_same(by_unit.sum(axis=0), whole.total(statistic), table, statistic.name)


def test_a_unit_twice_is_its_examples_added_twice(
    data: metric_cases.Data, plan: Plan, table: Table
) -> None:
    unit = 3
    batches = [np.arange(len(data)), _rows(data, unit)]
    twice = metric_cases.added(data, plan.statistics, batches, units=UNITS).sort()
    assert twice.slices == table.slices
    multiplicities = np.ones((2, UNITS))
    multiplicities[1, unit] = 2
    resampled = Sheet(table).resample(multiplicities)
    size = len(table.slices)
    for statistic in _by_unit(plan):
        sums = resampled.total(statistic)[size:]
        _assert_same(sums, twice.dense(statistic.name), table, statistic.name)
    for metric in _resampled_metrics(plan):
        actual = metric_cases.numbers(metric.finish(resampled))[size:]
        _assert_same_metric(actual, metric_cases.numbers(metric.finish(Sheet(twice))), metric)


def test_blocks_of_slices_have_the_replicates_of_the_whole(plan: Plan, table: Table) -> None:
    size = len(table.slices)
    multiplicities = np.random.default_rng(71).poisson(1.0, (5, UNITS)).astype(float)
    whole = Sheet(table).resample(multiplicities)
    middle = Sheet(table.block(2, 6)).resample(multiplicities)
    for metric in _resampled_metrics(plan):
        values = metric_cases.numbers(metric.finish(whole))
        replicates = values.reshape(5, size, *values.shape[1:])[:, 2:6]
        actual = metric_cases.numbers(metric.finish(middle))
        _assert_same_metric(actual, replicates.reshape(actual.shape), metric)


def test_a_statistic_that_is_not_by_unit_cannot_be_resampled(plan: Plan, table: Table) -> None:
    resampled = Sheet(table).leave_one_out()
    others = [statistic for statistic in plan.statistics if not statistic.by_unit]
    assert others
    for statistic in others:
        with pytest.raises(NotByUnit) as error:
            resampled.total(statistic)
        assert repr(statistic.name) in str(error.value)
        with pytest.raises(NotByUnit, match="not kept by unit"):
            resampled.pairs(statistic)
        with pytest.raises(NotByUnit, match="resample only metrics that are `by_unit`"):
            Sheet(table).by_unit(statistic)
    for metric in plan.metrics:
        if not metric.by_unit:
            with pytest.raises(NotByUnit):
                metric.finish(resampled)


def test_resampling_again_starts_from_the_whole(plan: Plan, table: Table) -> None:
    whole = Sheet(table)
    again = whole.leave_one_out().resample(np.ones((1, UNITS)))
    for statistic in _by_unit(plan):
        _assert_same(again.total(statistic), whole.total(statistic), table, statistic.name)


def test_an_infinite_loss_counts_only_where_its_unit_does() -> None:
    data = metric_cases.binary(seed=72, inner=True)
    scores = data.predictions["cand"].copy()
    scores[0], data.labels[0] = 0.0, 1.0  # log 0
    data.predictions.update(base=scores, cand=scores)
    data.weights[0] = 1.0
    case = metric_cases.Case("BinaryCrossEntropy", "", lambda *_: None)
    plan = metric_cases.planned(data, [case.metric_spec()])
    sums = metric_cases.added(data, plan.statistics, units=UNITS, specs=[()])
    unit = int(data.hashes[0] % np.uint64(UNITS))
    infinite = np.arange(UNITS) != unit
    metric = plan.metrics[0]
    values = metric_cases.numbers(metric.finish(Sheet(sums).leave_one_out()))
    np.testing.assert_array_equal(np.isinf(values), infinite)
    rest = np.setdiff1d(np.arange(len(data)), _rows(data, unit))
    removed = metric_cases.added(data, plan.statistics, [rest], units=UNITS, specs=[()])
    expected = metric_cases.numbers(metric.finish(Sheet(removed)))
    np.testing.assert_allclose(values[unit], expected[0], rtol=1e-12)


def test_infinities_of_both_signs_are_nan_together_only() -> None:
    moment = statistics.Moment(statistics.Target("m", "", "regression"), "score")
    data = metric_cases.regression(size=4)
    data.predictions["m"] = np.array([np.inf, -np.inf, 2.0, 3.0])
    hashes = np.arange(4, dtype=np.uint64)
    data = metric_cases.Data(
        "regression", None, data.columns, data.labels, None, data.predictions, hashes
    )
    sums = metric_cases.added(data, [moment], units=4, specs=[()])
    replicates = Sheet(sums).resample(
        np.array([[1.0, 0, 1, 0], [0, 2, 0, 1], [0, 0, 0.5, 2], [1, 1, 0, 0]])
    )
    np.testing.assert_array_equal(replicates.total(moment)[:, 0], [np.inf, -np.inf, 7.0, np.nan])


@pytest.mark.parametrize(
    ("multiplicities", "message"),
    [
        (np.ones(UNITS), r"multiplicities of shape \(7,\): they need a row .* of 7 units"),
        (np.ones((2, 3)), r"multiplicities of shape \(2, 3\)"),
        (np.full((1, UNITS), -1.0), "a multiplicity of -1.0: they must be finite and at least 0"),
        (np.full((1, UNITS), np.nan), "a multiplicity of nan"),
    ],
)
def test_wrong_multiplicities_are_refused(multiplicities: np.ndarray, message: str) -> None:
    data = metric_cases.DATA["binary"]
    sums = metric_cases.added(data, [statistics.Examples(True)], units=UNITS)
    with pytest.raises(ValueError, match=message):
        Sheet(sums).resample(multiplicities)


def test_no_slices_have_no_replicates() -> None:
    data = metric_cases.DATA["binary"]
    examples = statistics.Examples(True)
    sums = metric_cases.added(data, [examples], units=UNITS)
    resampled = Sheet(Table.empty(sums.layouts)).leave_one_out()
    assert len(resampled) == 0
    assert resampled.total(examples).shape == (0, 2)
