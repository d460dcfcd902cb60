from __future__ import annotations

import pyarrow as pa
import pytest
import writers

from evalbeam.transforms import batch, errors, formats


def read(tmp_path, text: str | bytes, columns=("n", "s"), batch_size=4):
    data = text.encode() if isinstance(text, str) else text
    return writers.read(writers.write(tmp_path, "csv", data), "csv", columns, batch_size)


def numbered(count: int) -> list[str]:
    return [f"{n},s{n}" for n in range(count)]


def lines(rows: list[str]) -> str:
    return "\n".join(["n,s", *rows]) + "\n"


@pytest.mark.parametrize("position", [0, 7, 149_999])
@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("abc,x", "column 'n' holds 'abc' (string), but is int64 elsewhere"),
        ("1", "CSV parse error: Expected 2 columns, got 1: 1"),
        ("1,2,3", "CSV parse error: Expected 2 columns, got 3: 1,2,3"),
        ('1,"open', "a quote is never closed"),
        (
            b"1,\xff",
            "column 's' holds '\\\\xff' text that is not UTF-8; set `data: {csv: "
            "{encoding: latin-1}}`, say",
        ),
    ],
)
def test_a_damaged_row_costs_only_itself(tmp_path, position, row, reason):
    rows = numbered(150_000 if position > 7 else 20)
    before, after = lines(rows[:position]), "\n".join(rows[position + 1 :]) + "\n"
    data = row if isinstance(row, bytes) else row.encode()
    batches, [letter] = read(
        tmp_path, before.encode() + data + b"\n" + after.encode(), batch_size=999
    )
    assert (letter.position, letter.reason) == (position, reason)
    expected = [n for n in range(len(rows)) if n != position]
    assert writers.positions(batches) == expected
    assert writers.values(batches, "n") == expected


def test_two_stray_quotes_damage_two_rows(tmp_path):
    rows = numbered(9)
    rows[2], rows[5] = '2,"open', '5,"open'
    batches, dead = read(tmp_path, lines(rows))
    assert [letter.position for letter in dead] == [2, 5]
    assert writers.values(batches, "n") == [0, 1, 3, 4, 6, 7, 8]


def test_quotes_inside_a_field_are_text(tmp_path):
    batches, dead = read(tmp_path, 'n,s\n1,5" pipe\n2,x\n3,7" pipe\n')
    assert dead == []
    assert writers.values(batches, "s") == ['5" pipe', "x", '7" pipe']


def test_quoted_line_breaks_are_text_and_blank_lines_are_not_rows(tmp_path):
    batches, dead = read(tmp_path, '\ufeffn,s\r\n\r\n1,"a\r\n\r\nb"\r\n\r\n2,"say ""x"""')
    assert dead == []
    assert writers.values(batches, "s") == ["a\r\n\r\nb", 'say "x"']
    assert writers.positions(batches) == [0, 1]


def test_integers_become_wider_from_the_first_fraction_on(tmp_path):
    rows = numbered(150_000)
    rows[140_000] = "0.5,x"
    batches, dead = read(tmp_path, lines(rows), batch_size=1000)
    kinds = [part.columns.schema.field("n").type for part in batches]
    assert dead == []
    assert kinds == [pa.int64()] * 140 + [pa.float64()] * 10
    assert writers.values(batches, "n")[139_999:140_002] == [139_999, 0.5, 140_001]


def test_a_column_that_is_empty_at_first_keeps_its_later_values(tmp_path):
    rows = [f"{n}," for n in range(200_000)] + ["7,late"]
    batches, dead = read(tmp_path, lines(rows), batch_size=1000)
    assert dead == []
    assert writers.values(batches, "s")[-2:] == [None, "late"]


def test_missing_values(tmp_path):
    batches, _ = read(tmp_path, 'n,s\nNA,NA\n,""\nnan,x\n1,\n')
    assert writers.values(batches, "n") == [None, None, None, 1]
    assert writers.values(batches, "s") == ["NA", None, "x", None]


def test_dates_are_text(tmp_path):
    batches, _ = read(tmp_path, "n,s\n1,2024-01-01\n2,someday\n")
    assert writers.values(batches, "s") == ["2024-01-01", "someday"]


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"a,b,a\n", "columns appear twice in the header: ['a']"),
        (b"\xff,b\n", "its header is not UTF-8 text"),
    ],
)
def test_a_damaged_header_is_an_error_or_a_dead_letter(tmp_path, header, reason):
    path = writers.write(tmp_path, "csv", header + b"1,2,3\n")
    with pytest.raises(errors.ConfigError) as error:
        formats.get("csv").columns(batch.Shard("eval", path, "csv"))
    assert reason in str(error.value)
    batches, [letter] = writers.read(path, "csv", ("a",))
    assert batches == []
    assert letter.position == -1
    assert reason in letter.reason


@pytest.mark.parametrize("header", [b"n,x\r1,2\r3,4", b"n" * 200_000 + b",x", b"n,n", b"\xff"])
def test_a_damaged_header_loses_an_unknown_number_of_rows(tmp_path, header):
    path = writers.write(tmp_path, "csv", header + b"\n5,6\n7,8\n")
    batches, [letter] = writers.read(path, "csv", ("n", "x"))
    assert (batches, letter.rows) == ([], None)
    assert letter.reason.startswith("the file cannot be read: ")
