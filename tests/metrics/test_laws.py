"""Laws of the additive table, over every statistic and every registered metric.

Whatever way the rows come in batches, shards and workers, whatever the path inside the table, the
sums are the same: to the bit where they are whole or the batches are the same, else to rounding.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import hypothesis
import metric_cases
import numpy as np
import pytest
from hypothesis import strategies as st

from evalbeam.transforms.examples import slices
from evalbeam.transforms.metrics import adding, plan, statistics, table
from evalbeam.transforms.metrics.sheet import Sheet

DATA = list(metric_cases.DATA)


def _plan(name: str) -> plan.Plan:
    """All cases' metrics on this data, each under a name of its own."""
    specs = [
        case.metric_spec(None if case.class_name == "BooleanFlipRates" else f"case {i}")
        for i, case in enumerate(metric_cases.CASES)
        if case.data == name
    ]
    return metric_cases.planned(metric_cases.DATA[name], specs, [("base", "cand")])


@pytest.fixture(scope="module")
def plans() -> dict[str, plan.Plan]:
    return {name: _plan(name) for name in DATA}


def _split(size: int, parts: int, seed: int) -> list[np.ndarray]:
    """The rows in random order, cut at random places; some parts may be empty."""
    rng = np.random.default_rng(seed)
    cuts = np.sort(rng.integers(0, size + 1, parts - 1))
    return np.split(rng.permutation(size), cuts)


def _assert_same(left: table.Table, right: table.Table, exact: bool = True) -> None:
    left, right = left.sort(), right.sort()
    assert left.slices == right.slices
    assert left.layouts == right.layouts
    for name in left.layouts:
        here, there = metric_cases.dense(name, left, right, by_unit=True)
        if exact:
            np.testing.assert_array_equal(here, there, err_msg=name)
            continue
        np.testing.assert_allclose(here, there, rtol=1e-12, atol=1e-13, err_msg=name)
        if left.sums[name].low is None and right.sums[name].low is None:
            np.testing.assert_array_equal(here, there, err_msg=name)
            np.testing.assert_array_equal(here, np.round(here), err_msg=name)


def _assert_same_metrics(planned: plan.Plan, left: table.Table, right: table.Table) -> None:
    here, there = Sheet(left.sort()), Sheet(right.sort())
    for metric in planned.metrics:
        np.testing.assert_allclose(
            metric_cases.numbers(metric.finish(here)),
            metric_cases.numbers(metric.finish(there)),
            rtol=1e-10,
            atol=1e-12,
            err_msg=str(metric.key),
        )


def test_every_statistic_is_covered(plans: dict[str, plan.Plan]) -> None:
    met = {type(statistic) for planned in plans.values() for statistic in planned.statistics}
    known = {
        kind
        for kind in vars(statistics).values()
        if isinstance(kind, type) and hasattr(kind, "entries") and kind is not statistics.Statistic
    }
    assert met == known
    moments = {
        statistic.moment
        for planned in plans.values()
        for statistic in planned.statistics
        if isinstance(statistic, statistics.Moment)
    }
    assert moments == set(statistics.MOMENTS)


def test_statistics_of_a_plan_have_names_of_their_own(plans: dict[str, plan.Plan]) -> None:
    for planned in plans.values():
        names = {statistic.name: statistic for statistic in planned.statistics}
        assert len(names) == len(planned.statistics)
        for metric in planned.metrics:
            for statistic in metric.statistics:
                kept = names[statistic.name]
                same_examples = isinstance(kept, statistics.Examples)
                assert kept == statistic or same_examples, statistic.name


@pytest.mark.parametrize("name", DATA)
def test_the_empty_table_is_the_identity(name: str, plans: dict[str, plan.Plan]) -> None:
    full = metric_cases.added(metric_cases.DATA[name], plans[name].statistics, units=3)
    empty = table.Table.empty(full.layouts)
    _assert_same(empty.merge(full), full)
    _assert_same(full.merge(empty), full)
    _assert_same(empty.merge(empty), empty)
    nothing = metric_cases.added(
        metric_cases.DATA[name], plans[name].statistics, [np.zeros(0, int)], units=3
    )
    assert nothing.slices == ()
    _assert_same(nothing, empty)


@pytest.mark.parametrize("name", DATA)
def test_no_slices_have_no_metrics(name: str, plans: dict[str, plan.Plan]) -> None:
    full = metric_cases.added(metric_cases.DATA[name], plans[name].statistics)
    sheet = Sheet(table.Table.empty(full.layouts))
    for metric in plans[name].metrics:
        assert len(metric_cases.numbers(metric.finish(sheet))) == 0


@pytest.mark.parametrize("name", DATA)
def test_merging_commutes_and_associates_to_the_bit(name: str, plans: dict[str, plan.Plan]) -> None:
    data, kept = metric_cases.DATA[name], plans[name].statistics
    a, b, c, d = (
        metric_cases.added(data, kept, [rows], units=3) for rows in _split(len(data), 4, 21)
    )
    first = a.merge(b).merge(c).merge(d)
    _assert_same(first, d.merge(c).merge(b).merge(a))
    _assert_same(first, a.merge(b.merge(c.merge(d))))
    _assert_same(first, c.merge(a).merge(d.merge(b)))
    # The same batches within one worker.
    _assert_same(first, metric_cases.added(data, kept, _split(len(data), 4, 21), units=3))


@pytest.mark.parametrize("seed", [31, 32])
@pytest.mark.parametrize("name", DATA)
def test_any_split_of_the_rows_gives_the_same_table(
    name: str, seed: int, plans: dict[str, plan.Plan]
) -> None:
    data, planned = metric_cases.DATA[name], plans[name]
    whole = metric_cases.added(data, planned.statistics, units=3)
    batches = _split(len(data), 9, seed)
    workers = [
        metric_cases.added(data, planned.statistics, batches[worker::3], units=3)
        for worker in range(3)
    ]
    merged = workers[2].merge(workers[0]).merge(workers[1])
    _assert_same(whole, merged, exact=False)
    _assert_same_metrics(planned, whole, merged)


@pytest.mark.parametrize("name", DATA)
def test_units_add_up_to_the_whole(name: str, plans: dict[str, plan.Plan]) -> None:
    data, planned = metric_cases.DATA[name], plans[name]
    whole = metric_cases.added(data, planned.statistics, units=1).sort()
    seven = metric_cases.added(data, planned.statistics, units=7).sort()
    assert whole.slices == seven.slices
    for statistic in planned.statistics:
        split, together = metric_cases.dense(statistic.name, seven, whole)
        np.testing.assert_allclose(split, together, rtol=1e-12, atol=1e-13)
        assert seven.layouts[statistic.name].units == (7 if statistic.by_unit else 1)
    _assert_same_metrics(planned, whole, seven)


def test_a_unit_holds_its_own_examples(plans: dict[str, plan.Plan]) -> None:
    data, planned = metric_cases.DATA["binary"], plans["binary"]
    seven = metric_cases.added(data, planned.statistics, units=7)
    for unit in range(7):
        rows = np.flatnonzero(data.hashes % np.uint64(7) == unit)
        alone = metric_cases.added(data, planned.statistics, [rows])
        at = [seven.slices.index(key) for key in alone.slices]
        for statistic in planned.statistics:
            if statistic.by_unit:
                by_unit, own = metric_cases.dense(statistic.name, seven, alone, by_unit=True)
                np.testing.assert_allclose(
                    by_unit[at, unit], own.sum(axis=1), rtol=1e-12, atol=1e-13
                )


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("dense_cells", [0, 60, 50_000])
def test_spilling_changes_nothing(
    name: str, dense_cells: int, plans: dict[str, plan.Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, planned = metric_cases.DATA[name], plans[name]
    batches = _split(len(data), 5, 41)
    roomy = metric_cases.added(data, planned.statistics, batches, units=3)
    expected = [metric_cases.numbers(part.finish(Sheet(roomy.sort()))) for part in planned.metrics]
    monkeypatch.setattr(table, "_DENSE_CELLS", dense_cells)
    monkeypatch.setattr(table, "_LOOSE_PAIRS", 50)
    monkeypatch.setattr(slices, "_LOOKUP_CELLS", 2)
    tight = metric_cases.added(data, planned.statistics, batches, units=3)
    _assert_same(roomy, tight)
    sheet = Sheet(tight.sort())
    for part, values in zip(planned.metrics, expected, strict=True):
        np.testing.assert_allclose(
            metric_cases.numbers(part.finish(sheet)), values, rtol=1e-12, atol=1e-13
        )


def test_selected_slices_keep_their_sums(plans: dict[str, plan.Plan]) -> None:
    data, planned = metric_cases.DATA["binary"], plans["binary"]
    full = metric_cases.added(data, planned.statistics, units=3).sort()
    index = list(range(1, len(full.slices), 2))
    some = full.select(index)
    assert some.slices == tuple(full.slices[i] for i in index)
    for name in full.layouts:
        own, of_all = metric_cases.dense(name, some, full, by_unit=True)
        np.testing.assert_array_equal(own, of_all[index])
    rest = full.select([i for i in range(len(full.slices)) if i not in index])
    _assert_same(some.merge(rest), full)
    assert full.select([]).slices == ()
    for metric in planned.metrics:
        everywhere = metric_cases.numbers(metric.finish(Sheet(full)))
        np.testing.assert_allclose(
            metric_cases.numbers(metric.finish(Sheet(some))),
            everywhere[index],
            rtol=1e-12,
            atol=1e-13,
        )


def test_merging_does_not_change_its_operands(plans: dict[str, plan.Plan]) -> None:
    data, kept = metric_cases.DATA["binary"], plans["binary"].statistics
    left, right = (metric_cases.added(data, kept, [rows]) for rows in _split(len(data), 2, 51))
    before = {
        name: (left.sums[name].high.copy(), right.sums[name].high.copy()) for name in left.sums
    }
    left.merge(right)
    right.merge(left)
    for name, (here, there) in before.items():
        np.testing.assert_array_equal(left.sums[name].high, here)
        np.testing.assert_array_equal(right.sums[name].high, there)


def test_splits_of_the_data_stay_apart() -> None:
    data = metric_cases.DATA["binary"]
    planned = _plan("binary")
    adder = adding.Adder(metric_cases.SPECS, planned.statistics, 1)
    adder.add(data.scored(np.arange(100), split="train"))
    adder.add(data.scored(np.arange(100, len(data)), split="test"))
    both = adder.table()
    train = metric_cases.added(data, planned.statistics, [np.arange(100)])
    at = [both.slices.index(slices.SliceKey("train", key.pairs)) for key in train.slices]
    for name in both.layouts:
        of_both, of_train = metric_cases.dense(name, both, train)
        np.testing.assert_array_equal(of_both[at], of_train)


_FLOATS = st.floats(-1e9, 1e9, allow_nan=False).map(lambda x: float(np.float64(x)))
_PAIRS = st.lists(st.tuples(st.integers(0, 40), _FLOATS), max_size=30)


@hypothesis.given(st.lists(_PAIRS, max_size=6), st.sampled_from([0, 16, 1 << 20]))
@hypothesis.settings(max_examples=150, deadline=None)
def test_accumulated_batches_add_up_without_rounding(
    batches: list[list[tuple[int, float]]], dense_cells: int
) -> None:
    """To 1e-30 of their size, in exact arithmetic, whatever the path."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "_DENSE_CELLS", dense_cells)
        patch.setattr(table, "_LOOSE_PAIRS", 20)
        accumulator = table.Accumulator(table.Layout(1, 8))
        by_key: dict[int, list[float]] = {}
        for number, pairs in enumerate(batches):
            keys = np.array([key for key, _ in pairs], np.int64)
            values = np.array([value for _, value in pairs], np.float64)
            accumulator.add(keys, values, min(number + 6, 6))
            of_batch: dict[int, float] = {}
            for key, value in pairs:
                of_batch[key] = of_batch.get(key, 0.0) + value
            for key, value in of_batch.items():
                by_key.setdefault(key, []).append(value)
        sums = accumulator.sums()
    low = np.zeros(len(sums.keys)) if sums.low is None else sums.low
    assert (np.diff(sums.keys) > 0).all()
    exact_sums = {
        key: Fraction(high) + Fraction(rest)
        for key, high, rest in zip(
            sums.keys.tolist(), sums.high.tolist(), low.tolist(), strict=True
        )
    }
    for key, parts in by_key.items():
        exact = sum(map(Fraction, parts), Fraction(0))
        size = sum(map(abs, map(Fraction, parts)), Fraction(0))
        assert abs(exact_sums.get(key, Fraction(0)) - exact) <= size / 10**30
    assert set(exact_sums) <= set(by_key)


@hypothesis.given(st.lists(st.lists(st.integers(0, 40), max_size=30), max_size=6))
@hypothesis.settings(max_examples=100, deadline=None)
def test_counts_are_counts(batches: Sequence[Sequence[int]]) -> None:
    for dense_cells in (0, 16, 1 << 20):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(table, "_DENSE_CELLS", dense_cells)
            patch.setattr(table, "_LOOSE_PAIRS", 20)
            accumulator = table.Accumulator(table.Layout(1, 8))
            for keys in batches:
                accumulator.add(np.array(keys, np.int64), None, 6)
            sums = accumulator.sums()
        distinct, counts = np.unique(
            np.array([key for keys in batches for key in keys], np.int64), return_counts=True
        )
        np.testing.assert_array_equal(sums.keys, distinct)
        np.testing.assert_array_equal(sums.high, counts)


def test_infinite_sums_stay_infinite() -> None:
    accumulator = table.Accumulator(table.Layout(1, 1))
    for value in (1.0, np.inf, 2.0, 1e308, 1e308):
        accumulator.add(np.zeros(1, np.int64), np.array([value]), 1)
    sums = accumulator.sums()
    assert (sums.high + sums.low).tolist() == [np.inf]
    both = sums.add(sums)
    assert (both.high + both.low).tolist() == [np.inf]


@hypothesis.given(
    st.lists(
        st.lists(st.floats(-1e12, 1e12, allow_subnormal=False), min_size=1, max_size=8),
        min_size=2,
        max_size=6,
    ),
    st.randoms(use_true_random=False),
)
def test_normalized_sums_are_those_of_any_order_of_merging(
    parts: list[list[float]], random: Any
) -> None:
    pieces = []
    for part in parts:
        accumulator = table.Accumulator(table.Layout(1, 3))
        for value in part:
            accumulator.add(np.array([1]), np.array([value]), 1)
        pieces.append(accumulator.sums())
    shuffled = random.sample(pieces, len(pieces))
    totals = [functools.reduce(table.Sums.add, order) for order in (pieces, shuffled)]
    (high, low), (other, rest) = (total.normalize() for total in totals)
    for total in totals:
        assert (total.normalize()[0] == total.values).all()
    np.testing.assert_allclose(high, other, rtol=1e-15, atol=1e-3 * 2**-52)
    assert (np.abs(low) <= np.spacing(np.abs(high)) / 2).all()
    assert (np.abs(rest) <= np.spacing(np.abs(other)) / 2).all()
