"""Results do not depend on how a table is cut into parts and blocks."""

from __future__ import annotations

import metric_cases
import numpy as np
import pytest

from evalbeam.transforms.metrics import metric, plan
from evalbeam.transforms.metrics.evaluation import Evaluation
from evalbeam.transforms.metrics.table import Table
from evalbeam.transforms.results import finish, index

NAMES = ["binary", "multiclass", "multilabel", "regression"]


def _evaluate(name: str) -> tuple[Table, Evaluation]:
    data = metric_cases.DATA[name]
    specs = [
        case.metric_spec(None if case.class_name == "BooleanFlipRates" else f"case {i}")
        for i, case in enumerate(metric_cases.CASES)
        if case.data == name
    ]
    evaluation = metric_cases.evaluation(data, specs)
    table = metric_cases.added(data, plan.plan(evaluation).statistics, units=3)
    return table.sort(), evaluation


def _group_by_slice(blocks: list[finish.Block]) -> dict[str, dict[metric.Key, np.ndarray]]:
    results: dict[str, dict[metric.Key, np.ndarray]] = {}
    for block in blocks:
        for row, name in enumerate(block.slices):
            results[str(name)] = {
                key: metric_cases.numbers(result)[row] for key, result in block.results.items()
            }
        for place, row in enumerate(block.plotted):
            results[str(block.slices[row])] |= {
                key: metric_cases.numbers(plot)[place] for key, plot in block.plots.items()
            }
    return results


def _collect_cells(blocks: list[finish.Block]) -> set[tuple[object, ...]]:
    return {
        (str(block.slices[row]), counts.model, counts.class_id, str(at), *cell)
        for block in blocks
        for counts in block.counts
        for row, at, *cell in zip(
            counts.rows,
            counts.at,
            counts.actual,
            counts.predicted,
            counts.counts.round(9),
            strict=True,
        )
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cells", [1, 40_000])
def test_blocks_and_parts_change_nothing(
    name: str, cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, evaluation = _evaluate(name)
    monkeypatch.setattr(finish, "_BLOCK_CELLS", 1 << 40)
    at_once = list(finish.finish(whole, evaluation, whole.slices))
    places = range(len(whole.slices))
    parts = [whole.select([i for i in places if i % 3 == part]) for part in range(3)]
    monkeypatch.setattr(finish, "_BLOCK_CELLS", cells)
    in_blocks = list(finish.finish(Table.join(parts), evaluation, whole.slices))
    assert len(in_blocks) > len(at_once) == 1
    expected, actual = _group_by_slice(at_once), _group_by_slice(in_blocks)
    assert list(actual) == list(expected)
    for name, results in expected.items():
        assert actual[name].keys() == results.keys()
        for key, values in results.items():
            np.testing.assert_allclose(
                actual[name][key], values, rtol=1e-12, err_msg=f"{name} {key}"
            )
    assert _collect_cells(in_blocks) == _collect_cells(at_once)


def test_the_largest_slices_have_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, evaluation = _evaluate("binary")
    all_results = _group_by_slice(list(finish.finish(whole, evaluation, whole.slices)))
    examples = whole.dense("examples")[:, 0]
    largest = {str(whole.slices[i]) for i in np.argsort(-examples, kind="stable")[:5]}
    monkeypatch.setattr(finish, "PLOTTED", 5)
    monkeypatch.setattr(finish, "_BLOCK_CELLS", 40_000)
    # Each part knows its own slices only; the merged index knows the largest of all.
    places = range(len(whole.slices))
    parts = [whole.select([i for i in places if i % 3 == part]) for part in range(3)]
    indexes = [
        index.index_table(index.Part(str(number), "table", number, 1, 1, 0, ""), part)
        for number, part in enumerate(parts)
    ]
    plotted = [key for _, key in index.merge_all(indexes).largest]
    blocks = list(finish.finish(whole, evaluation, plotted))
    assert {str(block.slices[row]) for block in blocks for row in block.plotted} == largest
    plots = {each.key for each in plan.plan(evaluation).metrics if each.plot}
    assert plots
    for name, results in _group_by_slice(blocks).items():
        assert (plots <= results.keys()) == (name in largest)
        for key, values in results.items():
            np.testing.assert_allclose(values, all_results[name][key], rtol=1e-12)
