"""However a table is cut into parts and blocks, the results of its slices are the same."""

from __future__ import annotations

import metric_cases
import numpy as np
import pytest

from evalbeam.transforms.examples import labels
from evalbeam.transforms.metrics import metric, table
from evalbeam.transforms.results import finish

NAMES = ["binary", "multiclass", "multilabel", "regression"]


def _evaluated(name: str) -> tuple[table.Table, finish.Evaluation]:
    data = metric_cases.DATA[name]
    specs = [
        case.metric_spec(None if case.class_name == "BooleanFlipRates" else f"case {i}")
        for i, case in enumerate(metric_cases.CASES)
        if case.data == name
    ]
    planned = metric_cases.planned(data, specs)
    head = labels.Head("", "label", data.task, data.classes)  # type: ignore[arg-type]
    evaluation = finish.Evaluation(planned, metric_cases.MODELS, (head,), True, (0.5,))
    return metric_cases.added(data, planned.statistics, units=3).ordered(), evaluation


def _by_slice(blocks: list[finish.Block]) -> dict[str, dict[metric.Key, np.ndarray]]:
    found: dict[str, dict[metric.Key, np.ndarray]] = {}
    for block in blocks:
        for row, key in enumerate(block.slices):
            found[str(key)] = {
                one: metric_cases.numbers(result)[row] for one, result in block.results.items()
            }
        for place, row in enumerate(block.plotted):
            found[str(block.slices[row])] |= {
                one: metric_cases.numbers(result)[place] for one, result in block.plots.items()
            }
    return found


def _cells(blocks: list[finish.Block]) -> set[tuple[object, ...]]:
    return {
        (str(block.slices[row]), one.model, one.class_id, str(at), *cell)
        for block in blocks
        for one in block.counts
        for row, at, *cell in zip(
            one.rows, one.at, one.actual, one.predicted, one.counts.round(9), strict=True
        )
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cells", [1, 40_000])
def test_blocks_and_parts_change_nothing(
    name: str, cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, evaluation = _evaluated(name)
    monkeypatch.setattr(finish, "_BLOCK_CELLS", 1 << 40)
    at_once = list(finish.blocks(whole, evaluation))
    places = range(len(whole.slices))
    parts = [whole.select([i for i in places if i % 3 == part]) for part in range(3)]
    monkeypatch.setattr(finish, "_BLOCK_CELLS", cells)
    in_blocks = list(finish.blocks(table.Table.joined(parts), evaluation))
    assert len(in_blocks) > len(at_once) == 1
    expected, found = _by_slice(at_once), _by_slice(in_blocks)
    assert list(found) == list(expected)
    for key, results in expected.items():
        assert found[key].keys() == results.keys()
        for one, values in results.items():
            np.testing.assert_allclose(found[key][one], values, rtol=1e-12, err_msg=f"{key} {one}")
    assert _cells(in_blocks) == _cells(at_once)


def test_the_largest_slices_have_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, evaluation = _evaluated("binary")
    everything = _by_slice(list(finish.blocks(whole, evaluation)))
    examples = whole.dense("examples")[:, 0]
    largest = {str(whole.slices[i]) for i in np.argsort(-examples, kind="stable")[:5]}
    monkeypatch.setattr(finish, "PLOTTED", 5)
    monkeypatch.setattr(finish, "_BLOCK_CELLS", 40_000)
    blocks = list(finish.blocks(whole, evaluation))
    assert {str(block.slices[row]) for block in blocks for row in block.plotted} == largest
    plots = {one.key for one in evaluation.plan.metrics if one.plot}
    assert plots
    for key, results in _by_slice(blocks).items():
        assert (plots <= results.keys()) == (key in largest)
        for one, values in results.items():
            np.testing.assert_allclose(values, everything[key][one], rtol=1e-12)
