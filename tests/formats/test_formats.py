"""Laws that every registered format obeys."""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import hypothesis
import numpy as np
import pyarrow as pa
import pytest
import writers
from hypothesis import strategies

from evalbeam.transforms import batch, errors, formats

FORMATS = sorted(formats.REGISTRY)
TEXT_AND_RECORDS = sorted(formats.REGISTRY.keys() - {"parquet"})


def rows(count: int, seed: int = 7) -> pa.Table:
    """Numbers that float32 holds exactly, unicode, and missing values."""
    rng = np.random.default_rng(seed)
    words = ["grün", "日本", 'say "hi", twice', "über\nzwei", "NA"]
    table = {
        "age": [int(value) for value in rng.integers(0, 99, count)],
        "score": [float(value) / 8 + 1 / 16 for value in rng.integers(-99, 99, count)],
        "word": [words[value] for value in rng.integers(0, len(words), count)],
    }
    for column in table.values():
        for row in rng.integers(0, count, count // 5):
            column[row] = None
    return pa.table(table)


def tables() -> strategies.SearchStrategy[pa.Table]:
    eighths = strategies.integers(-(2**20), 2**20).map(lambda value: value / 8)
    # A letter first, since a text that looks like a number is one to CSV.
    words = strategies.text(
        strategies.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=6
    ).map(lambda text: "w" + text)
    row = strategies.tuples(
        strategies.none() | strategies.integers(-(2**53), 2**53),
        strategies.none() | eighths,
        strategies.none() | words,
    )
    schema = pa.schema([("age", pa.int64()), ("score", pa.float64()), ("word", pa.string())])
    return strategies.lists(row, min_size=1, max_size=30).map(
        lambda found: pa.table(list(map(list, zip(*found, strict=True))), schema=schema)
    )


@pytest.mark.parametrize("format_name", FORMATS)
@hypothesis.given(table=tables(), batch_size=strategies.integers(1, 40))
@hypothesis.settings(max_examples=40, deadline=None, derandomize=True)
def test_what_is_written_is_read_at_any_batch_size(format_name, table, batch_size):
    with tempfile.TemporaryDirectory() as folder:
        path = writers.write(Path(folder), format_name, table)
        batches, dead = writers.read(path, format_name, table.column_names, batch_size)
    assert dead == []
    for name in table.column_names:
        assert writers.values(batches, name) == table.column(name).to_pylist()
    assert writers.positions(batches) == list(range(len(table)))


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("count", [1, 7, 20, 3000])
def test_batches_have_the_requested_size(tmp_path, format_name, count):
    path = writers.write(tmp_path, format_name, rows(count))
    source = formats.get(format_name)
    for piece, _ in source.pieces(path, 1):
        shard = batch.Shard("eval", path, format_name, piece)
        *full, last = [len(b) for b in source.read(shard, batch.Projection(("age",)), 4)]
        assert set(full) <= {4}
        assert 1 <= last <= 4


@pytest.mark.parametrize("format_name", FORMATS)
def test_only_projected_columns_are_there(tmp_path, format_name):
    path = writers.write(tmp_path, format_name, rows(20))
    batches, _ = writers.read(path, format_name, ("word", "absent"))
    assert {name for b in batches for name in b.columns.schema.names} == {"word"}


@pytest.mark.parametrize("format_name", FORMATS)
def test_without_columns_there_are_still_rows(tmp_path, format_name):
    path = writers.write(tmp_path, format_name, rows(20))
    batches, dead = writers.read(path, format_name, ())
    assert (writers.positions(batches), dead) == (list(range(20)), [])


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_batch_survives_pickle(tmp_path, format_name):
    path = writers.write(tmp_path, format_name, rows(20))
    batches, _ = writers.read(path, format_name, ("age", "word"), serialized=True)
    for before in batches:
        after = pickle.loads(pickle.dumps(before))
        assert after.columns.equals(before.columns)
        assert (after.positions == before.positions).all()
        np.testing.assert_array_equal(after.serialized, before.serialized)


@pytest.mark.parametrize("format_name", TEXT_AND_RECORDS)
def test_gzip_is_detected_by_content(tmp_path, format_name):
    table = rows(50)
    zipped = writers.write(tmp_path, format_name, table, zipped=True)
    misnamed = Path(zipped).rename(tmp_path / "misnamed")
    batches, dead = writers.read(str(misnamed), format_name, table.column_names)
    assert dead == []
    assert writers.values(batches, "word") == table.column("word").to_pylist()


@pytest.mark.parametrize("format_name", TEXT_AND_RECORDS)
def test_truncated_gzip_keeps_what_comes_before(tmp_path, format_name):
    table = rows(5000)
    path = Path(writers.write(tmp_path, format_name, table, zipped=True))
    path.write_bytes(path.read_bytes()[:-2000])
    batches, dead = writers.read(str(path), format_name, ("age",), 64)
    healthy = sum(map(len, batches))
    assert 2000 < healthy < 5000
    assert writers.values(batches, "age") == table.column("age").to_pylist()[:healthy]
    [letter] = dead
    assert letter.position == healthy
    assert "the rest of the file cannot be read: Compressed file ended" in letter.reason


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("format_name", FORMATS)
def test_any_damaged_byte_costs_rows_and_never_the_job(tmp_path, format_name, zipped):
    table = rows(60)
    rng = np.random.default_rng(7)
    content = Path(writers.write(tmp_path, format_name, table, zipped=zipped)).read_bytes()
    for index in rng.integers(0, len(content), 60):
        damaged = bytearray(content)
        damaged[index] ^= int(rng.integers(1, 256))
        path = tmp_path / "damaged"
        path.write_bytes(damaged)
        batches, dead = writers.read(str(path), format_name, table.column_names)
        healthy = writers.positions(batches)
        assert healthy == sorted(set(healthy))
        assert healthy or dead
        assert not {letter.position for letter in dead} & set(healthy)


@pytest.mark.parametrize("format_name", TEXT_AND_RECORDS)
def test_an_empty_file_has_no_rows(tmp_path, format_name):
    path = writers.write(tmp_path, format_name, b"")
    assert writers.read(path, format_name, ("age",)) == ([], [])


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_missing_file_raises_so_that_it_may_be_retried(tmp_path, format_name):
    shard = batch.Shard("eval", str(tmp_path / "gone"), format_name)
    with pytest.raises(FileNotFoundError, match="gone"):
        list(formats.get(format_name).read(shard, batch.Projection(("age",)), 4))


@pytest.mark.parametrize("format_name", FORMATS)
def test_remote_files_are_read_as_local_ones(memory, format_name):
    table = rows(30)
    memory["memory://bucket/data"] = writers.content(table, format_name)
    batches, dead = writers.read("memory://bucket/data", format_name, table.column_names)
    assert dead == []
    assert writers.values(batches, "score") == table.column("score").to_pylist()


@pytest.mark.parametrize(
    ("format_name", "expected"),
    [
        ("parquet", ("age", "score", "word")),
        ("csv", ("age", "score", "word")),
        ("jsonl", None),
        ("tfrecord", None),
    ],
)
def test_columns(tmp_path, format_name, expected):
    path = writers.write(tmp_path, format_name, rows(3))
    assert formats.get(format_name).columns(batch.Shard("eval", path, format_name)) == expected


def test_reading_loads_no_tensorflow(tmp_path):
    paths = {name: writers.write(tmp_path, name, rows(3)) for name in FORMATS}
    script = f"""
import sys
from evalbeam.transforms import batch, formats
from evalbeam.transforms.stages import read
for name, path in {paths!r}.items():
    list(formats.get(name).read(batch.Shard("eval", path, name), batch.Projection(("age",)), 2))
assert not {{"tensorflow", "tensorflow_model_analysis"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_an_unknown_format_names_the_nearest():
    with pytest.raises(
        errors.ConfigError, match=r"'tfrecords'; valid formats: .* mean 'tfrecord'\?"
    ):
        formats.get("tfrecords")


ROWS = pa.table({"n": range(120)})


@pytest.mark.parametrize("place", [0, 3, 119])
@pytest.mark.parametrize("length", [1 << 20, 1 << 31, 1 << 60])
def test_a_record_of_a_wrong_length_with_a_right_checksum_loses_an_unknown_number(
    tmp_path, place, length
):
    records = list(map(writers.frame, writers.examples(ROWS)))
    records[place] = writers.frame_length(length) + records[place][12:]
    path = writers.write(tmp_path, "tfrecord", b"".join(records))
    batches, [letter] = writers.read(path, "tfrecord", ("n",))
    assert (writers.positions(batches), letter.rows) == (list(range(place)), None)


@pytest.mark.parametrize("format_name", ["csv", "jsonl"])
@pytest.mark.parametrize("line_end", ["\r", "\r\n", "\r\r\n"])
@pytest.mark.parametrize("last", ["", "\n"])
def test_carriage_returns_end_lines(tmp_path, format_name, line_end, last):
    lines = writers.content(ROWS, format_name).decode().splitlines()
    path = writers.write(tmp_path, format_name, (line_end.join(lines) + last).encode())
    batches, letters = writers.read(path, format_name, ("n",))
    assert (writers.values(batches, "n"), letters) == (list(range(120)), [])


@pytest.mark.parametrize("format_name", ["csv", "jsonl"])
@pytest.mark.parametrize(("line_end", "lost"), [("\r", 60), ("\r;", None), ("\u2028", None)])
def test_rows_in_one_line_are_counted_or_unknown(tmp_path, format_name, line_end, lost):
    content = writers.content(pa.table({"n": range(120), "x": range(120)}), format_name).decode()
    lines = content.splitlines()
    mixed = "\n".join([*lines[:40], line_end.join(lines[40:100]), *lines[100:]])
    path = writers.write(tmp_path, format_name, mixed.encode())
    batches, letters = writers.read(path, format_name, ("n", "x"))
    assert sum(map(len, batches)) == len(lines) - (format_name == "csv") - 60
    assert [letter.rows for letter in letters] == [lost]


def test_objects_that_share_a_line_are_unknown(tmp_path):
    path = writers.write(tmp_path, "jsonl", b'{"n": 1}\n{"n": 2}J{"n": 3}\n{"n": [{}, {}}\n')
    _, letters = writers.read(path, "jsonl", ("n",))
    assert [letter.rows for letter in letters] == [None, 1]


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("format_name", ["csv", "jsonl"])
def test_wherever_a_text_is_cut_it_shows(tmp_path, format_name, zipped):
    table = pa.table({"n": range(100, 120), "word": ["a", "b\nc"] * 10})
    content = writers.content(table, format_name)
    end = b"\r\n" if format_name == "csv" else b"\n"
    for cut in range(content.index(end) + len(end), len(content) + 1):
        path = writers.write(tmp_path, format_name, content[:cut], zipped=zipped)
        shard = batch.Shard("eval", path, format_name)
        items = list(formats.read(shard, batch.Projection(("n", "word")), 100))
        is_open = not content[:cut].endswith(end)
        assert is_open == (batch.OpenEnd() in items)
        parts = [item for item in items if isinstance(item, batch.Batch)]
        letters = [item for item in items if isinstance(item, batch.DeadLetter)]
        complete = sum(map(len, parts)) - (is_open and not letters)
        assert writers.values(parts, "n")[:complete] == list(range(100, 100 + complete))
        if is_open:
            assert all(letter.rows is None for letter in letters)
