"""Sums at a subset of the kept thresholds."""

import dataclasses

import metric_cases
import numpy as np
import pytest

from evalbeam.transforms.metrics import plan
from evalbeam.transforms.metrics.evaluation import MetricSpec
from evalbeam.transforms.results import finish, rebin

KEPT = (0.2, 0.5, 0.8)


def evaluation(data, thresholds, metrics=("ExampleCount",)):
    specs = [MetricSpec(name) for name in metrics]
    whole = metric_cases.evaluation(metric_cases.DATA[data], specs)
    return dataclasses.replace(whole, thresholds=thresholds)


@pytest.mark.parametrize("data", ["binary", "fractional", "multilabel", "unweighted"])
@pytest.mark.parametrize("thresholds", [(0.5,), (0.8, 0.2), (0.2, 0.5, 0.8)])
def test_derived_sums_are_those_of_a_run_with_fewer_thresholds(data, thresholds):
    kept, wanted = evaluation(data, KEPT), evaluation(data, thresholds)
    assert rebin.find_missing(plan.plan(kept), plan.plan(wanted)) == []
    examples = metric_cases.DATA[data]
    tables = [
        metric_cases.added(examples, plan.plan(each).statistics, units=3).sort()
        for each in (kept, wanted)
    ]
    derived = rebin.rebin(tables[0], plan.plan(kept), plan.plan(wanted))
    assert derived.layouts == tables[1].layouts
    for name, sums in tables[1].sums.items():
        assert (derived.sums[name].keys == sums.keys).all(), name
        np.testing.assert_allclose(derived.sums[name].values, sums.values, rtol=1e-14)
    blocks = [list(finish.finish(table, wanted, ())) for table in (derived, tables[1])]
    for derived_block, block in zip(*blocks, strict=True):
        for left, right in zip(derived_block.counts, block.counts, strict=True):
            np.testing.assert_allclose(left.counts, right.counts, rtol=1e-13)


def test_missing_statistics_are_named():
    kept = plan.plan(evaluation("binary", KEPT))
    wanted = plan.plan(evaluation("binary", (0.3,), ["ExampleCount", "AUC"]))
    missing = [
        statistic.name.partition(" of ")[0] for statistic in rebin.find_missing(kept, wanted)
    ]
    assert sorted(set(missing)) == ["confusion at 0.3", "flips at 0.3", "histogram [0.0, 1.0)"]
