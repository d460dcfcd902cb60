from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import writers

from evalbeam.transforms import batch, errors, formats
from evalbeam.transforms.formats import files

PARQUET = formats.get("parquet")


def test_every_row_group_is_a_piece_with_positions_in_the_file(tmp_path):
    path = writers.write(tmp_path, "parquet", pa.table({"n": list(range(17))}))
    pieces = PARQUET.pieces(path, 1000)
    assert [piece for piece, _ in pieces] == [0, 1, 2]
    assert 900 <= sum(size for _, size in pieces) <= 1000
    shard = batch.Shard("eval", path, "parquet", 1)
    batches = list(PARQUET.read(shard, batch.Projection(("n",)), 5))
    assert [part.positions.tolist() for part in batches] == [[7, 8, 9, 10, 11], [12, 13]]
    assert writers.values(batches, "n") == [7, 8, 9, 10, 11, 12, 13]


def test_without_a_piece_all_of_the_file_is_read(tmp_path):
    path = writers.write(tmp_path, "parquet", pa.table({"n": list(range(17))}))
    shard = batch.Shard("eval", path, "parquet")
    batches = list(PARQUET.read(shard, batch.Projection(("n",)), 5))
    assert [len(part) for part in batches] == [5, 5, 5, 2]


def test_types(tmp_path):
    table = pa.table(
        {
            "coded": pa.array(["a", "b", "a"]).dictionary_encode(),
            "fixed": pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.int64(), 2)),
            "list": pa.array([[0.5], [], None]),
            "large": pa.array(["x", None, "z"], pa.large_string()),
            "view": pa.array(["x", None, "z"], pa.string_view()),
            "views": pa.array([["x"], None, ["y", "z"]], pa.list_(pa.string_view())),
            "dotted.name": [True, False, None],
        }
    )
    path = writers.write(tmp_path, "parquet", table)
    [part], _ = writers.read(path, "parquet", table.column_names)
    plain = {"coded": pa.string(), "view": pa.string(), "views": pa.list_(pa.string())}
    kinds = [plain.get(field.name, field.type) for field in table.schema]
    expected = table.cast(pa.schema(list(zip(table.column_names, kinds, strict=True))))
    assert pa.Table.from_batches([part.columns]).equals(expected)


def test_fields_of_structs_are_columns(tmp_path):
    plan = pa.array(["free", "paid", "free"]).dictionary_encode()
    rows = [{"bytes": b"x", "more": {"n": 1}}, None, {"bytes": None, "more": None}]
    table = pa.table({"image": rows, "user": pa.StructArray.from_arrays([plan], ["plan"])})
    path = writers.write(tmp_path, "parquet", table)
    assert PARQUET.columns(batch.Shard("eval", path, "parquet")) == (
        "image.bytes",
        "image.more.n",
        "user.plan",
    )
    [part], _ = writers.read(path, "parquet", ["user.plan", "image.more.n", "image.bytes", "image"])
    assert part.columns.to_pydict() == {
        "image.bytes": [b"x", None, None],
        "image.more.n": [1, None, None],
        "user.plan": ["free", "paid", "free"],
    }


def test_a_tensor_of_fixed_shape_next_to_structs(tmp_path):
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((2, 3, 4), np.float32))
    table = pa.table({"x": tensors, "user": [{"n": 1}, {"n": 2}]})
    path = writers.write(tmp_path, "parquet", table)
    assert PARQUET.columns(batch.Shard("eval", path, "parquet")) == ("x", "user.n")
    [part], _ = writers.read(path, "parquet", ["user.n", "x"])
    assert part.columns["user.n"].to_pylist() == [1, 2]


def test_two_columns_of_one_name_are_refused_where_they_are_read(tmp_path):
    table = pa.table({"n": [1], "image": [{"a": 1}], "image.a": [2]})
    path = writers.write(tmp_path, "parquet", table)
    [part], _ = writers.read(path, "parquet", ["n"])
    assert part.columns.to_pydict() == {"n": [1]}
    with pytest.raises(errors.ConfigError, match=r"several columns are named 'image\.a'"):
        writers.read(path, "parquet", ["image.a"])


def test_a_corrupt_row_group_costs_only_its_rows(tmp_path):
    buffer = io.BytesIO()
    table = pa.table({"n": list(range(3000))})
    pyarrow.parquet.write_table(table, buffer, row_group_size=1000, write_page_checksum=True)
    data = bytearray(buffer.getvalue())
    column = pyarrow.parquet.ParquetFile(buffer).metadata.row_group(1).column(0)
    data[column.data_page_offset + 300] ^= 0xFF
    batches, [letter] = writers.read(
        writers.write(tmp_path, "parquet", bytes(data)), "parquet", "n"
    )
    assert writers.positions(batches) == [*range(1000), *range(2000, 3000)]
    assert letter.position == 1000
    assert letter.reason.startswith("the rest of row group 1 cannot be read: ")
    assert "CRC" in letter.reason


@pytest.mark.parametrize("length", [0, 5, -3])
def test_a_file_without_footer_is_one_dead_letter(tmp_path, length):
    path = Path(writers.write(tmp_path, "parquet", pa.table({"n": [1, 2]})))
    path.write_bytes(path.read_bytes()[:length])
    batches, [letter] = writers.read(str(path), "parquet", ("n",))
    assert batches == []
    assert letter.position == -1
    assert letter.reason.startswith("the file cannot be read: ")
    with pytest.raises(errors.ConfigError, match=r"data\.parquet: .*"):
        PARQUET.columns(batch.Shard("eval", str(path), "parquet"))


def test_a_failed_request_is_not_damage(memory, monkeypatch):
    memory["memory://data"] = writers.content(pa.table({"n": [1, 2]}), "parquet")

    class Failing(io.BytesIO):
        def read(self, *args):
            raise ConnectionError("reset by peer")

    monkeypatch.setattr(files, "open_raw", lambda path: Failing(memory[path]))
    with pytest.raises(ConnectionError, match="reset by peer"):
        writers.read("memory://data", "parquet", ("n",))


FLIPS = """
import random, sys
from evalbeam.transforms import batch, formats
content, columns = open("good", "rb").read(), ("n", "x", "word")
footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")

def read(content):
    open("flipped", "wb").write(content)
    parquet = formats.get("parquet")
    return [
        item
        for piece, _ in parquet.pieces("flipped", 1)
        for item in parquet.read(
            batch.Shard("eval", "flipped", "parquet", piece), batch.Projection(columns), 16
        )
    ]

def values(items):
    text = str([(part.positions.tolist(), part.columns.to_pylist()) for part in items])
    return text.replace("b'", "'")  # of a column whose text is no longer marked as text

expected = values(read(content))
for seed in range(2 * (len(content) - footer)):
    random.seed(seed)
    flipped = bytearray(content)
    places = [footer + seed // 2] + random.choices(range(footer, len(content) - 8), k=seed % 2 * 2)
    for place in places:
        flipped[place] ^= 1 << random.randrange(8)
    items = read(flipped)
    parts = [item for item in items if isinstance(item, batch.Batch)]
    letters = [item for item in items if isinstance(item, batch.DeadLetter)]
    if not letters:
        assert values(items) == expected, (seed, places)
    elif all(letter.rows for letter in letters):
        # Columns that cannot be read lose the rows that all of the footer counts.
        assert sum(map(len, parts)) + sum(letter.rows for letter in letters) == 40, seed
"""


def test_flipped_bits_of_a_footer_never_end_the_process_or_go_unseen(tmp_path):
    table = pa.table(
        {
            "n": range(40),
            "x": np.arange(40) / 8,
            "word": ["ab"[n % 2] for n in range(40)],
            "list": [[n, 1] for n in range(40)],
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "good", row_group_size=16)
    subprocess.run([sys.executable, "-c", FLIPS], check=True, cwd=tmp_path)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_a_page_of_another_number_of_rows_is_not_taken_for_all_of_them(tmp_path, version):
    buffer = io.BytesIO()
    table = pa.table({"n": range(40)})
    pyarrow.parquet.write_table(
        table, buffer, use_dictionary=False, compression="none", data_page_version=version
    )
    column = pyarrow.parquet.ParquetFile(buffer).metadata.row_group(0).column(0)
    start, values = column.data_page_offset, 40 * 8
    unknown = 0
    for place in range(start, start + column.total_compressed_size - values):
        for bit in range(8):
            damaged = bytearray(buffer.getvalue())
            damaged[place] ^= 1 << bit
            path = writers.write(tmp_path, "parquet", bytes(damaged))
            batches, letters = writers.read(path, "parquet", ("n",))
            lost = [letter.rows for letter in letters]
            unknown += None in lost
            assert None in lost or sum(map(len, batches)) + sum(lost) == 40
    assert unknown


def test_text_that_is_not_utf_8_is_damage(tmp_path):
    content = writers.content(
        pa.table({"n": range(9), "word": ["a"] * 7 + ["b", "grün"]}), "parquet"
    )
    damaged = content.replace("grün".encode(), b"gr\xff\xffn")
    path = writers.write(tmp_path, "parquet", damaged)
    batches, [letter] = writers.read(path, "parquet", ("n", "word"))
    assert (writers.positions(batches), letter.rows) == (list(range(7)), 2)
    assert "UTF8" in letter.reason


def test_a_column_whose_name_is_damaged_is_not_taken_to_be_absent(tmp_path):
    content = writers.content(pa.table({"n": [1, 2], "word": ["a", "b"]}), "parquet")
    damaged = content.replace(b"\x04word", b"\x04ward", 1)  # in the schema, before the row groups
    batches, [letter] = writers.read(
        writers.write(tmp_path, "parquet", damaged), "parquet", ("n", "word")
    )
    assert (batches, letter.rows) == ([], None)
    assert "a column 'word' in its row groups, but not in its schema" in letter.reason
    whole = writers.write(tmp_path, "parquet", content)
    batches, letters = writers.read(whole, "parquet", ("n", "ward"))
    assert (writers.values(batches, "n"), letters) == ([1, 2], [])
