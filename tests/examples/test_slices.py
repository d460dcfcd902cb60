"""Slices against a plain reading of the rows, and TFMA's own slicer."""

from __future__ import annotations

import contextlib
import datetime
import math
from collections.abc import Sequence
from typing import Any

import hypothesis
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import strategies as st

from evalbeam.transforms import batch, errors
from evalbeam.transforms.examples import slices


def _values(cell: Any) -> list[Any]:
    """A row's distinct values as slice keys have them; None and NaN are missing."""
    found: list[Any] = []
    for value in cell if isinstance(cell, list) else [cell]:
        if value is None or (isinstance(value, float) and math.isnan(value)):
            continue
        value = value.decode() if isinstance(value, bytes) else value
        value = _spelled(int(value) if isinstance(value, bool) else value)
        if value not in found:
            found.append(value)
    return found


def _spelled(value: Any) -> Any:
    """The one value of 1, 1.0 and "1": what its text says, where that is a plain number's."""
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    for parse in (int, float):
        with contextlib.suppress(ValueError):
            if str(parse(text)) == text and math.isfinite(parse(text)):
                return parse(text)
    return text


def expected_slices(
    rows: Sequence[dict[str, Any]], specs: Sequence[slices.Spec]
) -> list[set[tuple]]:
    """For each row the pairs of its slices, one combination of values at a time."""
    found = []
    for row in rows:
        keys: set[tuple] = set()
        for spec in specs:
            partial: list[tuple] = [()]
            for term in spec:
                values = _values(row.get(term.column))
                if term.edges:
                    bins = term.bins()
                    values = [bins[sum(v >= e for e in term.edges)] for v in values]
                if term.value is not None:
                    values = [v for v in values if v == _spelled(term.value)]
                partial = [(*p, (term.column, v)) for p in partial for v in dict.fromkeys(values)]
            keys |= {tuple(sorted(p, key=lambda pair: pair[0])) for p in partial}
        found.append(keys)
    return found


def examples(columns: dict[str, pa.Array], size: int, split: str = "eval") -> batch.Batch:
    arrays, names = list(columns.values()), list(columns)
    fields = [pa.field(name, array.type) for name, array in zip(names, arrays, strict=True)]
    table = pa.record_batch(arrays, schema=pa.schema(fields)) if arrays else None
    if table is None:  # rows without a column, as a Batch's columns may be absent
        table = pa.record_batch([pa.nulls(size)], names=["unused"])
    return batch.Batch(batch.Shard(split, "data", "memory"), np.arange(size), table)


def encoded_slices(encoder: slices.Encoder, one: batch.Batch) -> list[set[tuple]]:
    """For each row the pairs of its slices, as encoded; no slice may stand twice in a row."""
    found: list[set[tuple]] = [set() for _ in range(len(one))]
    for members in encoder.encode(one):
        rows = np.arange(len(one)) if members.rows is None else members.rows
        assert len(rows) == len(members.ids)
        assert (np.diff(rows) >= 0).all(), "rows come in order, so that sums do too"
        for row, slice_id in zip(rows.tolist(), members.ids.tolist(), strict=True):
            key = encoder.keys[slice_id]
            assert key.split == one.shard.split
            assert key.pairs not in found[row], "twice in the same slice"
            found[row].add(key.pairs)
    return found


TEXTS = ["a", "b", "c", "5", "a;b=c", "é"]
KINDS: dict[str, tuple[pa.DataType, st.SearchStrategy]] = {
    "text": (pa.string(), st.sampled_from(TEXTS)),
    "large text": (pa.large_string(), st.sampled_from(TEXTS)),
    "bytes": (pa.binary(), st.sampled_from([text.encode() for text in TEXTS])),
    "bool": (pa.bool_(), st.booleans()),
    "int": (pa.int64(), st.integers(-3, 6)),
    "small int": (pa.int8(), st.integers(-3, 6)),
    "float": (pa.float64(), st.sampled_from([0.1, 0.5, 5.0, -2.0, math.nan])),
}
LISTS = (pa.list_, pa.large_list)


@st.composite
def _columns(draw: st.DrawFn, size: int) -> tuple[dict[str, pa.Array], list[dict[str, Any]]]:
    columns, rows = {}, [dict[str, Any]() for _ in range(size)]
    for name in ("x", "y", "z"):
        if draw(st.integers(0, 9)) == 0:
            continue  # the batch does not have it
        kind, values = KINDS[draw(st.sampled_from(list(KINDS)))]
        form = draw(st.sampled_from(["plain", "list", "large list", "fixed list", "dictionary"]))
        one = st.none() | values
        if form == "plain":
            cells = draw(st.lists(one, min_size=size, max_size=size))
            column = pa.array(cells, kind)
        elif form == "dictionary":
            cells = draw(st.lists(one, min_size=size, max_size=size))
            column = pa.array(cells, kind).dictionary_encode()
        elif form == "fixed list":
            lists = st.lists(one, min_size=2, max_size=2)
            cells = draw(st.lists(st.none() | lists, min_size=size, max_size=size))
            column = pa.array(cells, pa.list_(kind, 2))
        else:
            lists = st.lists(one, max_size=4)
            cells = draw(st.lists(st.none() | lists, min_size=size, max_size=size))
            column = pa.array(cells, (pa.list_ if form == "list" else pa.large_list)(kind))
        columns[name] = column
        for row, cell in zip(rows, cells, strict=True):
            row[name] = cell
    return columns, rows


def _term(name: str) -> st.SearchStrategy[slices.Term]:
    wanted = st.sampled_from(["a", "5", 5, 5.0, 0.1, "0.5", 1])
    return st.just(slices.Term(name)) | wanted.map(lambda value: slices.Term(name, value))


SPECS = st.lists(
    st.lists(st.sampled_from("xyz"), unique=True, max_size=3).flatmap(
        lambda names: st.tuples(*map(_term, names))
    ),
    min_size=1,
    max_size=5,
)


@hypothesis.given(SPECS, st.data(), st.sampled_from([0, 4, 1 << 22]))
@hypothesis.settings(max_examples=200, deadline=None)
def test_slices_are_those_of_the_rows(
    specs: list[slices.Spec], data: st.DataObject, lookup_cells: int
) -> None:
    """Crosses, lists with repeats, missing values, overlapping specs, over growing vocabularies."""
    encoder = slices.Encoder(specs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slices, "_LOOKUP_CELLS", lookup_cells)
        for _ in range(data.draw(st.integers(1, 3))):
            size = data.draw(st.integers(0, 6))
            columns, rows = data.draw(_columns(size))
            one = examples(columns, size)
            assert encoded_slices(encoder, one) == expected_slices(rows, specs)
    assert len(set(encoder.keys)) == len(encoder.keys)


@hypothesis.given(
    st.lists(
        st.none() | st.lists(st.none() | st.floats(-10, 10) | st.just(math.nan), max_size=3),
        max_size=8,
    ),
    st.lists(st.integers(-9, 9).map(float), min_size=1, max_size=4, unique=True).map(sorted),
)
@hypothesis.settings(max_examples=100, deadline=None)
def test_edges_make_bins_closed_below(cells: list[list[float] | None], edges: list[float]) -> None:
    spec = (slices.Term("x", edges=tuple(edges)),)
    one = examples({"x": pa.array(cells, pa.list_(pa.float64()))}, len(cells))
    got = encoded_slices(slices.Encoder([spec]), one)
    assert got == expected_slices([{"x": cell} for cell in cells], [spec])
    for cell, keys in zip(cells, got, strict=True):
        for value in cell or []:
            if value is not None and not math.isnan(value):
                low = max((e for e in edges if e <= value), default=None)
                names = [name for ((_, name),) in keys]
                start = "(-inf, " if low is None else f"[{low:g}, "
                assert any(name.startswith(start) for name in names)


def test_bins_have_names_of_their_own() -> None:
    term = slices.Term("x", edges=(1234567.0, 1234568.0, 1234568.5))
    assert len(set(term.bins())) == 4
    assert slices.Term("age", edges=(25.0, 45.0)).bins() == ("(-inf, 25)", "[25, 45)", "[45, inf)")
    one = examples({"x": pa.array([1234567.5, 2e6])}, 2)
    first, second = encoded_slices(slices.Encoder([(term,)]), one)
    assert first == {(("x", "[1234567.0, 1234568.0)"),)}
    assert second == {(("x", "[1234568.5, inf)"),)}


def test_bins_of_text_are_refused() -> None:
    encoder = slices.Encoder([(slices.Term("x", edges=(1.0,)),)])
    with pytest.raises(errors.JobError, match=r"slice column 'x' has edges .* 'old' is not"):
        encoder.encode(examples({"x": pa.array(["old", "young"])}, 2))


def test_short_floats_keep_their_short_digits() -> None:
    one = examples({"x": pa.array([0.1, 0.3], pa.float32())}, 2)
    encoder = slices.Encoder([(slices.Term("x"),), (slices.Term("x", "0.1"),)])
    assert encoded_slices(encoder, one) == [{(("x", 0.1),)}, {(("x", 0.3),)}]
    assert [str(key) for key in encoder.keys] == ["x=0.1", "x=0.3"]


def test_five_is_five_in_any_type_but_not_in_a_longer_text() -> None:
    wanted = (slices.Term("x", "5"),)
    for column, hits in [
        (pa.array([5, 6]), [True, False]),
        (pa.array([5.0, 5.5]), [True, False]),
        (pa.array(["5", "5.0", "05"]), [True, True, False]),
        (pa.array([b"5", b"x"]), [True, False]),
    ]:
        got = encoded_slices(slices.Encoder([wanted]), examples({"x": column}, len(column)))
        assert [bool(keys) for keys in got] == hits


def test_overlapping_specs_count_an_example_once() -> None:
    specs = [
        (slices.Term("x"), slices.Term("y")),
        (slices.Term("y"), slices.Term("x")),
        (slices.Term("y", "b"), slices.Term("x")),
        (slices.Term("x", "a"),),
        (slices.Term("x"),),
    ]
    columns = {"x": pa.array([["a", "a"], ["c"]]), "y": pa.array(["b", "b"])}
    encoder = slices.Encoder(specs)
    members = encoder.encode(examples(columns, 2))
    assert sum(len(one.ids) for one in members) == 4
    assert {key.pairs for key in encoder.keys} == {
        (("x", "a"),),
        (("x", "c"),),
        (("x", "a"), ("y", "b")),
        (("x", "c"), ("y", "b")),
    }


def test_integers_of_slices_do_not_change_as_vocabularies_grow() -> None:
    specs = [(slices.Term("x"),), (slices.Term("x"), slices.Term("y"))]
    encoder = slices.Encoder(specs)
    rng = np.random.default_rng(1)
    known: dict[slices.SliceKey, int] = {}
    for top in (2, 5, 40, 40, 300):
        columns = {"x": rng.integers(0, top, 200), "y": rng.integers(0, top, 200)}
        arrays = {name: pa.array(values) for name, values in columns.items()}
        got = encoded_slices(encoder, examples(arrays, 200))
        cells = zip(columns["x"].tolist(), columns["y"].tolist(), strict=True)
        rows = [{"x": x, "y": y} for x, y in cells]
        assert got == expected_slices(rows, specs)
        for key, number in known.items():
            assert encoder.keys[number] == key
        known = {key: number for number, key in enumerate(encoder.keys)}


def test_no_examples_have_no_slices() -> None:
    encoder = slices.Encoder([(), (slices.Term("x"),), (slices.Term("x"), slices.Term("y"))])
    empty = examples({"x": pa.array([], pa.string()), "y": pa.array([], pa.int64())}, 0)
    assert encoded_slices(encoder, empty) == []
    assert encoder.keys == []


def test_a_column_of_nulls_or_none_at_all_gives_only_the_overall_slice() -> None:
    encoder = slices.Encoder([(), (slices.Term("x"),), (slices.Term("x", "a"),)])
    for column in (
        pa.nulls(3),
        pa.nulls(3, pa.string()),
        pa.nulls(3, pa.list_(pa.string())),
        pa.array([[], None, [None]], pa.list_(pa.null())),
        pa.array([[], None, [None]], pa.list_(pa.dictionary(pa.int32(), pa.string()))),
    ):
        assert encoded_slices(encoder, examples({"x": column}, 3)) == [{()}] * 3
    assert encoded_slices(encoder, examples({}, 3)) == [{()}] * 3


def test_lists_of_dictionary_values() -> None:
    inner = pa.array(["a", "b", None, "a"]).dictionary_encode()
    column = pa.ListArray.from_arrays(pa.array([0, 2, 4]), inner)
    encoder = slices.Encoder([(slices.Term("x"),)])
    assert encoded_slices(encoder, examples({"x": column}, 2)) == [
        {(("x", "a"),), (("x", "b"),)},
        {(("x", "a"),)},
    ]


def test_rows_of_a_cut_out_batch_are_its_own() -> None:
    column = pa.array([["a"], ["b", "b"], None, ["c", "a"], ["d"]])
    whole = examples({"x": column}, 5)
    encoder = slices.Encoder([(slices.Term("x"),)])
    part = batch.Batch(whole.shard, whole.positions[1:4], whole.columns.slice(1, 3))
    assert encoded_slices(encoder, part) == [{(("x", "b"),)}, set(), {(("x", "c"),), (("x", "a"),)}]
    assert encoded_slices(encoder, whole.take(np.array([4, 1]))) == [
        {(("x", "d"),)},
        {(("x", "b"),)},
    ]


def test_splits_have_slices_of_their_own() -> None:
    encoder = slices.Encoder([(), (slices.Term("x"),)])
    column = {"x": pa.array(["a"])}
    encoded_slices(encoder, examples(column, 1, "train"))
    encoded_slices(encoder, examples(column, 1, "test"))
    assert {(key.split, str(key)) for key in encoder.keys} == {
        ("train", "overall"),
        ("train", "x=a"),
        ("test", "overall"),
        ("test", "x=a"),
    }


@pytest.mark.parametrize(
    ("pairs", "shown"),
    [
        ((), "overall"),
        ((("health", "good"), ("limited", 1)), "health=good;limited=1"),
        ((("a;b", "c=d"),), r"a\;b=c\=d"),
        ((("path", "\\;"),), r"path=\\\;"),
        ((("x", ""),), "x="),
    ],
)
def test_keys_are_shown_with_their_separators_escaped(pairs: tuple, shown: str) -> None:
    assert str(slices.SliceKey("eval", pairs)) == shown


@hypothesis.given(
    st.lists(st.tuples(st.text(";=\\ab", max_size=4), st.text(";=\\ab", max_size=4)), max_size=3),
    st.lists(st.tuples(st.text(";=\\ab", max_size=4), st.text(";=\\ab", max_size=4)), max_size=3),
)
def test_different_keys_are_shown_differently(one: list, two: list) -> None:
    hypothesis.assume(one and two and one != two)
    assert str(slices.SliceKey("", tuple(one))) != str(slices.SliceKey("", tuple(two)))


def test_columns_and_numbers() -> None:
    specs = [(), (slices.Term("b"), slices.Term("a")), (slices.Term("a", 1),)]
    assert slices.columns(specs) == ("a", "b")
    one = examples({"x": pa.array([[1, 2], None, [3]], pa.list_(pa.int64()))}, 3)
    rows, values = slices.numbers(one, "x")
    np.testing.assert_array_equal(rows, [0, 0, 2])
    np.testing.assert_array_equal(values, [1.0, 2.0, 3.0])
    assert [len(part) for part in slices.numbers(one, "absent")] == [0, 0]
    rows, values = slices.numbers(examples({"x": pa.array([1, 2])}, 2), "x")
    assert rows is None
    np.testing.assert_array_equal(values, [1.0, 2.0])
    message = r"row 2 \(counted from 1\): slice column 'x' has edges .* 'old' is not a number"
    for column in (pa.array(["1", "old"]), pa.array([[b"1", b"2"], [b"3", b"old"]])):
        with pytest.raises(errors.JobError, match=message):
            slices.numbers(examples({"x": column}, 2), "x")


def test_slices_are_tfmas() -> None:
    """Its slicer on the same features, where it and we spell values alike."""
    from tensorflow_model_analysis.proto import config_pb2
    from tensorflow_model_analysis.slicer import slicer_lib

    specs = [
        (),
        (slices.Term("text"),),
        (slices.Term("number"), slices.Term("text")),
        (slices.Term("number", 3), slices.Term("flag")),
        (slices.Term("text", "a"),),
        (slices.Term("real"), slices.Term("text"), slices.Term("flag")),
    ]
    rng = np.random.default_rng(2)
    rows: list[dict[str, Any]] = []
    for _ in range(300):
        row = {
            "text": [["a", "b", "é"][i].encode() for i in rng.integers(0, 3, rng.integers(0, 4))],
            "number": rng.integers(1, 5, rng.integers(0, 3)).tolist(),
            "flag": rng.integers(0, 2, rng.integers(0, 2)).tolist(),
            "real": rng.choice([0.5, 0.25], rng.integers(0, 3)).tolist(),
        }
        rows.append({name: values or None for name, values in row.items()})
    tfma_specs = []
    for spec in specs:
        proto = config_pb2.SlicingSpec()
        for term in spec:
            if term.value is None:
                proto.feature_keys.append(term.column)
            else:
                proto.feature_values[term.column] = str(term.value)
        tfma_specs.append(slicer_lib.SingleSliceSpec(spec=proto))
    kinds = {"text": pa.binary(), "number": pa.int64(), "flag": pa.int64(), "real": pa.float32()}
    columns = {
        name: pa.array([row[name] for row in rows], pa.list_(kind)) for name, kind in kinds.items()
    }
    ours = encoded_slices(slices.Encoder(specs), examples(columns, len(rows)))
    for row, keys in zip(rows, ours, strict=True):
        features = {name: np.array(v) for name, v in row.items() if v is not None}
        theirs = slicer_lib.get_slices_for_features_dicts([features], None, tfma_specs)
        assert keys == set(theirs)


def test_infinities_are_values_too():
    for value, name in ((float("inf"), "inf"), ("inf", "inf"), (float("-inf"), "-inf")):
        assert slices.canonical(value) == name


DATES = {
    "year": [2026, 2026, 2025, 2024],
    "month": ["2026-11", "2026-01", "2025-12", "2024-02"],
    "week": ["2026-W48", "2026-W01", "2026-W01", "2024-W09"],
    "day": ["2026-11-26", "2026-01-01", "2025-12-31", "2024-02-29"],
    "weekday": ["Thursday", "Thursday", "Wednesday", "Thursday"],
}


@pytest.mark.parametrize("by", list(DATES))
@pytest.mark.parametrize("form", ["date", "time", "zone", "text", "offset", "bytes", "dictionary"])
def test_dates_by_period(by, form):
    days = [datetime.date(2026, 11, 26), datetime.date(2026, 1, 1)]
    days += [datetime.date(2025, 12, 31), datetime.date(2024, 2, 29)]
    evening = [datetime.datetime.combine(day, datetime.time(23, 30)) for day in days]
    texts = pa.array([day.isoformat() for day in days])
    columns = {
        "date": pa.array(days),
        "time": pa.array(evening, pa.timestamp("ns")),
        # Half past eleven there is the next day in UTC.
        "zone": pc.assume_timezone(pa.array(evening, pa.timestamp("ms")), "America/New_York"),
        "text": texts,
        "offset": pa.array([f"{time.isoformat()}Z" for time in evening]),
        "bytes": texts.cast(pa.binary()),
        "dictionary": texts.dictionary_encode(),
    }
    encoder = slices.Encoder([(slices.Term("t", by=by),)])
    (members,) = encoder.encode(examples({"t": columns[form]}, 4))
    assert [encoder.keys[i].pairs[0][1] for i in members.ids] == DATES[by]


@pytest.mark.parametrize(
    "text",
    [
        "20261126",
        "20261126T233000Z",
        "2026-11-26 23:30:00.123456789",
        "2026-11-26T23:30:00.1Z",
        "2026-11-26 23:30:00+00",
        "2026-11-26 23:30:00.25+00",
        "2026-11-26 18:30:00-05:00",
        "2026-11-26 23:30:00 +0000",
        "2026-11-26 23:30:00 UTC",
        " 2026-11-26T23:30:00z ",
    ],
)
def test_spellings_of_dates(text):
    for column in (pa.array([text]), pa.array([[text]]), pa.array([text.encode()])):
        encoder = slices.Encoder([(slices.Term("t", by="day"),)])
        (members,) = encoder.encode(examples({"t": column}, 1))
        assert [encoder.keys[i].pairs[0][1] for i in members.ids] == ["2026-11-26"]


@pytest.mark.parametrize("column", [[20261126, None], [20261126.0, None], ["2026-11-26", ""]])
def test_a_missing_date_is_in_no_slice(column):
    encoder = slices.Encoder([(slices.Term("t", by="month"),)])
    (members,) = encoder.encode(examples({"t": pa.array(column)}, 2))
    assert [(encoder.keys[i].pairs[0][1]) for i in members.ids] == ["2026-11"]
    assert members.rows.tolist() == [0]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        (["2026-11-26"] * 3 + ["26.11.2026"], r"'26\.11\.2026'"),
        (["2026-11-26", "", "2026-11-27", "2026-02-30"], "'2026-02-30'"),
        ([["2026-11-26", "2026-11-26"], [], ["2026-11-26"], ["2026-11-26", "?"]], r"'\?'"),
        ([b"20261126", None, b"20261126", b"20261399"], "'20261399'"),
        ([b"20261126", None, b"20261126", b"\xff"], r"'\\\\xff'"),
        ([20261126, 20261126, 20261127, 1764115200], "'1764115200'"),
        ([20261126.0, None, 20261126.0, 2026.5], "'2026.5'"),
    ],
)
def test_what_is_no_date_is_refused(column, value):
    encoder = slices.Encoder([(slices.Term("t", by="month"),)])
    message = rf"row 4 \(counted from 1\): slice column 't' is by month, but {value} is not a date"
    with pytest.raises(errors.DataError, match=message):
        encoder.encode(examples({"t": pa.array(column)}, 4))
