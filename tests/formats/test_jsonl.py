from __future__ import annotations

import json

import pyarrow as pa
import pytest
import writers


def read(tmp_path, lines: list[str | bytes], columns=("n",), batch_size=999):
    data = b"\n".join(line.encode() if isinstance(line, str) else line for line in lines)
    return writers.read(writers.write(tmp_path, "jsonl", data), "jsonl", columns, batch_size)


def numbered(count: int) -> list[str | bytes]:
    return [f'{{"n": {n}, "s": "s{n}", "x": [{n}]}}' for n in range(count)]


@pytest.mark.parametrize("position", [0, 7, 59_999])
@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('{"n": 1', "JSON parse error: Missing a comma or '}' after an object member."),
        ('{"n": "abc", "s": "a"}', "column 'n' holds 'abc' (string), but is int64 elsewhere"),
        ('{"n": 1, "s": 5}', "column 's' holds 5 (int64), but is string elsewhere"),
        ('{"n": 1} {"n": 2}', "parsed 2 JSON objects, expected 1, one per line"),
        ("[1]", "JSON parse error: Column() changed from object to array"),
        (b'{"n": 1, "s": "\xff"}', "column 's' holds text that is not UTF-8"),
    ],
)
def test_a_damaged_line_costs_only_itself(tmp_path, position, row, reason):
    rows = numbered(60_000 if position > 7 else 20)
    rows[position] = row
    batches, [letter] = read(tmp_path, rows, ("n", "s"))
    assert letter.position == position
    assert reason in letter.reason
    expected = [n for n in range(len(rows)) if n != position]
    assert writers.positions(batches) == expected
    assert writers.values(batches, "n") == expected


def test_lists_of_numbers_become_wider(tmp_path):
    rows = [json.dumps({"x": [1, 2]})] * 80_000 + [json.dumps({"x": [0.5, None]})]
    batches, dead = read(tmp_path, rows, ("x",))
    assert dead == []
    assert batches[0].columns.schema.field("x").type == pa.list_(pa.int64())
    assert batches[-1].columns.schema.field("x").type == pa.list_(pa.float64())
    assert writers.values(batches, "x")[-1] == [0.5, None]


def test_a_key_that_shows_late_is_not_lost(tmp_path):
    rows = [*numbered(60_000), '{"n": 1, "late": "now"}']
    batches, _ = read(tmp_path, rows, ("n", "late"))
    assert writers.values(batches, "late") == [None] * 60_000 + ["now"]


def test_dates_are_text(tmp_path):
    batches, dead = read(tmp_path, ['{"n": "2024-01-01"}', '{"n": "someday"}'])
    assert (writers.values(batches, "n"), dead) == (["2024-01-01", "someday"], [])


def test_types_of_other_keys_do_not_matter(tmp_path):
    batches, dead = read(tmp_path, ['{"n": 1, "x": 1}', '{"n": 2, "x": "a"}'])
    assert (writers.values(batches, "n"), dead) == ([1, 2], [])


def test_blank_lines_are_not_rows(tmp_path):
    batches, dead = read(tmp_path, ['{"n": 1}\r', "", " \r", '{"n": 2}\r', ""])
    assert (writers.positions(batches), dead) == ([0, 1], [])


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_whole_numbers_widen_to_fractions_in_lists_as_deep_as_images(tmp_path, depth):
    def nested(number):
        for _ in range(depth):
            number = [number]
        return number

    whole = [json.dumps({"n": nested(n)}) for n in range(1200)]
    batches, letters = read(tmp_path, [*whole, json.dumps({"n": nested(0.5)})], batch_size=2000)
    assert letters == []
    assert batches[0].columns.column("n").to_pylist() == [
        nested(n) for n in (*map(float, range(1200)), 0.5)
    ]


@pytest.mark.parametrize(("opening", "closing"), [('{"a":', "}"), ("[", "]"), ('{"a": [', "]}")])
def test_lines_that_are_too_deep_together_do_not_end_the_process(tmp_path, opening, closing):
    rows = ['{"n": 1}', '{"x": ' + opening * 30, *[opening * 30] * 1000]
    rows += ["1" + closing * 30, *[closing * 30] * 1000, "}", '{"n": 2}']
    batches, letters = read(tmp_path, rows)
    assert writers.values(batches, "n") == [1, 2]
    assert len(letters) == len(rows) - 2
