"""The index of parts: indexes merge in any order, and tasks cover all parts."""

import functools

import hypothesis
import metric_cases
import numpy as np
import pytest
from hypothesis import strategies as st

from evalbeam.transforms.examples.slices import Term
from evalbeam.transforms.metrics import metric, plan
from evalbeam.transforms.metrics.evaluation import MetricSpec, SliceComparison
from evalbeam.transforms.results import finish, index
from evalbeam.transforms.stages import aggregate


@functools.cache
def index_parts(count: int) -> tuple[index.Index, ...]:
    """The indexes of a table's partitions."""
    data = metric_cases.DATA["binary"]
    planned = plan.plan(metric_cases.evaluation(data, [MetricSpec("AUC")]))
    table = metric_cases.added(data, planned.statistics)
    return tuple(
        index.index_table(
            index.Part(
                f"table-{number}", "table", number, len(part.slices), 7 * number, 1, f"sha{number}"
            ),
            part,
            wanted=[("plan", "gold"), ("plan", "none such")],
        )
        for number, part in aggregate.split(table, count)
    )


def test_an_index_knows_its_slices_and_examples():
    data = metric_cases.DATA["binary"]
    planned = plan.plan(metric_cases.evaluation(data, [MetricSpec("AUC")]))
    table = metric_cases.added(data, planned.statistics)
    (whole,) = index_parts(1)
    assert whole.examples == {"eval": len(data)}
    assert whole.slices == len(table.slices)
    assert whole.columns == tuple(sorted({c for key in table.slices for c, _ in key.pairs}))
    counts = dict(zip(table.slices, table.dense("examples")[:, 0], strict=True))
    assert {key: n for n, key in whole.largest} == counts
    assert [n for n, _ in whole.largest] == sorted(counts.values(), reverse=True)


@hypothesis.given(st.permutations(range(len(index_parts(8)))), st.integers(1, 7))
def test_indexes_of_partitions_merge_into_that_of_the_whole(order, cut):
    (whole,) = index_parts(1)
    shuffled = [index_parts(8)[i] for i in order]
    halves = index.merge_all(shuffled[:cut]), index.merge_all(shuffled[cut:])
    merged = index.merge_all(halves)
    assert merged == index.merge_all(index_parts(8))
    for name in ("examples", "columns", "values", "largest", "slices"):
        assert getattr(merged, name) == getattr(whole, name)


def test_the_empty_index_is_the_identity():
    (whole,) = index_parts(1)
    assert (
        index.merge_all((index.Index(), whole)) == whole == index.merge_all((whole, index.Index()))
    )
    assert list(index.Index().tasks()) == []


def test_an_index_survives_json():
    numbers = (
        index.Number(metric.Key("ndcg", "v1", class_id=2, weighted=True), (0.1, 0.5)),
        index.Number(metric.Key("loss", "v2", baseline="v1"), None),
    )
    whole = index.merge_all(
        [*index_parts(8), index.Index(parts=index_parts(1)[0].parts, numbers=numbers)]
    )
    assert whole.numbers == tuple(sorted(numbers, key=str))
    assert index.Index.from_json(whole.to_json()) == whole


@pytest.mark.parametrize("limit", [1, 30, 10_000])
def test_tasks_cover_every_part_once_and_keep_partitions_whole(limit, monkeypatch):
    monkeypatch.setattr(index, "_TASK_CELLS", limit)
    whole = index.merge_all(index_parts(8))
    messages = index.Part("tfma-metrics-2", "metrics", 2, 0, 0, 1, "sha")
    whole = index.merge_all((whole, index.Index(parts=(messages,))))
    tasks = list(whole.tasks())
    assert [task.number for task in tasks] == list(range(len(tasks)))
    assert {task.count for task in tasks} == {len(tasks)}
    assert sorted(part.name for task in tasks for part in task.parts) == [
        part.name for part in whole.parts
    ]
    for task in tasks:
        partitions = {part.partition for part in task.parts}
        assert all(part in task.parts for part in whole.parts if part.partition in partitions), (
            "a partition is split"
        )
        cells = sum(part.cells for part in task.parts)
        assert cells <= limit or len(partitions) == 1
    assert (len(tasks) == 1) == (limit == 10_000)


def test_ties_go_to_the_first_slices(monkeypatch):
    monkeypatch.setattr(finish, "PLOTTED", 3)
    (whole,) = [index.merge_all(index_parts(1))]
    sizes = [n for n, _ in index._select_largest(whole.largest)]
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) == 3
    tied = [(5, key) for _, key in whole.largest]
    names = [str(key) for _, key in index._select_largest(reversed(tied))]
    assert names == [str(key) for key in sorted((k for _, k in tied), key=index.sort_key)][:3]


def test_the_number_of_partitions_grows_up_to_a_limit():
    counts = [aggregate.count_partitions(10.0**power) for power in range(14)]
    assert counts[0] == 1
    assert counts == sorted(counts)
    assert counts[-1] == 4096
    assert all(np.log2(count).is_integer() for count in counts)


def test_baseline_slices_are_the_largest_and_come_with_their_parts(monkeypatch):
    monkeypatch.setattr(index, "BASELINES", 2)
    data = metric_cases.DATA["binary"]
    planned = plan.plan(metric_cases.evaluation(data, [MetricSpec("AUC")]))
    table = metric_cases.added(data, planned.statistics)
    comparison = SliceComparison((Term("country"),))
    indexes = [
        index.index_table(
            index.Part(f"table-{number}", "table", number, len(part.slices), 1, 1, f"sha{number}"),
            part,
            comparisons=[comparison],
        )
        for number, part in aggregate.split(table, 8)
    ]
    merged = index.merge_all(indexes)
    counts = dict(zip(table.slices, table.dense("examples")[:, 0], strict=True))
    countries = {key: n for key, n in counts.items() if [c for c, _ in key.pairs] == ["country"]}
    assert merged.baseline_slices == len(countries) > 2
    assert [each.examples for each in merged.baselines] == sorted(countries.values(), reverse=True)[
        :2
    ]
    for task in merged.tasks():
        assert task.baselines == tuple(each.key for each in merged.baselines)
        assert {part.partition for part in task.baseline_parts} == {
            each.partition for each in merged.baselines
        }
