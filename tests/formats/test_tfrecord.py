from __future__ import annotations

import importlib
import sys

import pyarrow as pa
import pytest
import writers

from evalbeam.transforms.formats import files, tfrecord

AGES = list(range(10))
RECORDS = [writers.frame(data) for data in writers.examples(pa.table({"age": AGES}))]


@pytest.fixture(params=["tfx_bsl", "tensorflow"], autouse=True)
def decoder(request, monkeypatch):
    """Either of the two that decode, which must not show."""
    if request.param == "tensorflow":
        importlib.import_module("tensorflow")
    else:
        monkeypatch.delitem(sys.modules, "tensorflow", raising=False)


def read(tmp_path, records, columns=("age",), serialized=False):
    path = writers.write(tmp_path, "tfrecord", b"".join(records))
    return writers.read(path, "tfrecord", columns, serialized=serialized)


def flipped(data: bytes, index: int) -> bytes:
    return data[:index] + bytes([data[index] ^ 1]) + data[index + 1 :]


@pytest.mark.parametrize(
    ("damaged", "reason"),
    [
        (flipped(RECORDS[3], 15), "corrupt record (CRC mismatch)"),
        (flipped(RECORDS[3], len(RECORDS[3]) - 1), "corrupt record (CRC mismatch)"),
        (writers.frame(b"no example"), "cannot be decoded as tf.Example: "),
    ],
)
def test_a_damaged_record_costs_only_itself(tmp_path, damaged, reason):
    batches, dead = read(tmp_path, [*RECORDS[:3], damaged, *RECORDS[4:]])
    assert [len(part) for part in batches] == [4, 4, 1]
    assert writers.positions(batches) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert writers.values(batches, "age") == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    [letter] = dead
    assert (letter.split, letter.position, letter.stage) == ("eval", 3, "read")
    assert letter.reason.startswith(reason)


@pytest.mark.parametrize(
    ("rest", "reason"),
    [
        ([flipped(RECORDS[3], 0), *RECORDS[4:]], "corrupt length of a record (CRC mismatch)"),
        ([RECORDS[3][:-1]], "truncated record"),
        ([RECORDS[3][:5]], "truncated record"),
    ],
)
def test_behind_a_lost_frame_nothing_can_be_read(tmp_path, rest, reason):
    batches, dead = read(tmp_path, [*RECORDS[:3], *rest])
    assert writers.values(batches, "age") == [0, 1, 2]
    [letter] = dead
    assert letter.position == 3
    assert letter.reason == f"{reason}; the rest of the file cannot be read"
    assert letter.rows is None


def test_a_record_vouches_for_its_own_length(tmp_path):
    batches, dead = read(tmp_path, [*RECORDS[:3], flipped(RECORDS[3], 9), *RECORDS[4:]])
    assert (writers.values(batches, "age"), dead) == (list(range(len(RECORDS))), [])


def test_types_are_those_of_tf_example(tmp_path):
    table = pa.table({"i": [[1, 2]], "f": [[0.5]], "s": [["a"]]})
    [part], _ = read(tmp_path, map(writers.frame, writers.examples(table)), ("i", "f", "s"))
    assert [field.type.value_type for field in part.columns.schema] == [
        pa.int64(),
        pa.float32(),
        pa.dictionary(pa.int32(), pa.large_binary()),
    ]


def test_the_context_of_sequence_examples_is_their_columns(tmp_path):
    # It is where a tf.Example has its features; the feature lists follow, in a field of their own.
    lists = b"\x12\x05\x0a\x03\x0a\x01x"
    contexts = writers.examples(pa.table({"age": AGES}))
    records = [writers.frame(context + lists) for context in contexts]
    batches, letters = read(tmp_path, records, ("age", "x"), serialized=True)
    assert not letters
    ages = [age for each in batches for age in each.columns.column("age").to_pylist()]
    assert ages == [[age] for age in AGES]
    assert [raw[-7:] for each in batches for raw in each.serialized] == [lists] * len(AGES)


def test_words_of_all_runs_make_one_column(tmp_path, monkeypatch):
    monkeypatch.setattr(tfrecord, "_RUN_BYTES", 1)
    monkeypatch.setattr(files, "_BLOCK_BYTES", 64)
    words = [[f"word{i % 7}"] * (i % 3) or None for i in range(100)]
    table = pa.table({"s": pa.array(words, pa.list_(pa.string()))})
    batches, _ = read(tmp_path, map(writers.frame, writers.examples(table)), ("s",))
    expected = [row and [word.encode() for word in row] for row in words]
    found = [row for part in batches for row in part.columns.column("s").to_pylist()]
    assert found == expected


def test_a_feature_that_shows_late_is_not_lost(tmp_path):
    records = RECORDS * 300
    late = writers.examples(pa.table({"age": [1], "late": ["now"]}))[0]
    batches, _ = read(tmp_path, [*records, writers.frame(late), *records], ("age", "late"))
    expected = [None] * len(records)
    assert writers.values(batches, "late") == [*expected, "now", *expected]


@pytest.mark.parametrize("position", [0, 5, 2500])
def test_a_value_of_another_type_is_damage_at_any_position(tmp_path, position):
    records = RECORDS * 300
    records[position] = writers.frame(writers.examples(pa.table({"age": ["old"]}))[0])
    batches, [letter] = read(tmp_path, records)
    assert sum(map(len, batches)) == len(records) - 1
    assert letter.position == position
    expected = "column 'age' holds ['old'] (list of bytes), but is list of int64 elsewhere"
    assert letter.reason == expected
    assert "int64" in letter.reason


def test_types_of_other_features_do_not_matter(tmp_path):
    mixed = [pa.table({"age": [1], "x": [1]}), pa.table({"age": [2], "x": ["a"]})]
    records = [writers.frame(writers.examples(table)[0]) for table in mixed]
    batches, dead = read(tmp_path, records)
    assert (writers.values(batches, "age"), dead) == ([1, 2], [])


def test_raw_examples_are_kept_alongside_their_columns(tmp_path):
    records = [*RECORDS[:3], writers.frame(b"no example"), *RECORDS[4:]]
    batches, _ = read(tmp_path, records, serialized=True)
    kept = [writers.frame(data) for part in batches for data in part.serialized]
    assert kept == RECORDS[:3] + RECORDS[4:]


def test_a_record_larger_than_any_block(tmp_path):
    table = pa.table({"word": ["a", "b" * 5_000_000, "c"]})
    batches, _ = read(tmp_path, map(writers.frame, writers.examples(table)), ("word",))
    assert writers.values(batches, "word") == table.column("word").to_pylist()


def test_rows_without_any_column_keep_their_place(tmp_path):
    damaged = flipped(RECORDS[1], len(RECORDS[1]) - 6)
    batches, [letter] = read(tmp_path, [writers.frame(b""), damaged, *RECORDS[2:5]])
    assert letter.position == 1
    assert [part.positions.tolist() for part in batches] == [[0, 2, 3, 4]]
    assert writers.values(batches, "age") == [None, 2, 3, 4]
