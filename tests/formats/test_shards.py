from __future__ import annotations

import pyarrow as pa
import pytest
import writers

from evalbeam.transforms import batch, errors
from evalbeam.transforms.formats import shards

TABLE = pa.table({"n": list(range(9))})


@pytest.fixture
def folder(tmp_path):
    for name in ("eval-0", "eval-1"):
        writers.write(tmp_path, "csv", TABLE, name)
    writers.write(tmp_path, "parquet", TABLE, "train")
    (tmp_path / "eval-2.csv").touch()
    return tmp_path


def names(found) -> list[str]:
    return [shard.path.rsplit("/", 1)[1] for shard in found]


def test_each_file_once_and_sorted(folder):
    patterns = [f"{folder}/eval-1.csv", f"{folder}/eval-*.csv", f"{folder}/./eval-0.csv"]
    found = shards.list_shards(patterns, "csv", "eval")
    assert names(found) == ["eval-0.csv", "eval-1.csv", "eval-2.csv"]
    assert found[0].size_bytes == (folder / "eval-0.csv").stat().st_size
    assert {(shard.split, shard.format, shard.piece) for shard in found} == {("eval", "csv", None)}


def test_relative_globs(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert len(shards.list_shards("*-1.csv", "csv", "eval")) == 1


@pytest.mark.parametrize("pattern", ["day=*", "day=*/", "*=2026-1*", "day=2026-1*/**"])
def test_folders_that_a_glob_matches_are_read_as_folders(tmp_path, pattern):
    for day in ("2026-10", "2026-11", "2026-12"):
        (tmp_path / "days" / f"day={day}" / "part").mkdir(parents=True)
        writers.write(tmp_path / "days" / f"day={day}" / "part", "csv", TABLE, "a")
    (tmp_path / "days" / "day=2026-12" / "_SUCCESS").touch()
    (tmp_path / "days" / "_SUCCESS").touch()
    found = shards.list_shards(f"{tmp_path}/days/{pattern}", None, "eval")
    assert [shard.path.split("/")[-3] for shard in found] == [
        "day=2026-10",
        "day=2026-11",
        "day=2026-12",
    ]


def test_remote_folders_that_a_glob_matches(memory):
    memory["memory://bucket/day=1/a.csv"] = memory["memory://bucket/day=2/b.csv"] = b"n\n1\n"
    found = shards.list_shards("memory://bucket/day=*", None, "eval")
    assert [shard.path for shard in found] == [
        "memory://bucket/day=1/a.csv",
        "memory://bucket/day=2/b.csv",
    ]


def test_row_groups_are_shards(folder):
    found = shards.list_shards(f"{folder}/train.parquet", None, "train")
    assert [shard.piece for shard in found] == [0, 1]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.CSV", "csv"), ("a.csv.gz", "csv"), ("a.tfrecord-00001-of-00003.gz", "tfrecord"),
     ("a-00001-of-00003.tfrecords", "tfrecord"), ("a.jsonl", "jsonl")],
)  # fmt: skip
def test_the_format_is_inferred_from_the_suffix(tmp_path, name, expected):
    (tmp_path / name).write_bytes(b"x")
    [shard] = shards.list_shards(str(tmp_path / name), None, "eval")
    assert shard.format == expected


def test_remote_files(memory):
    memory["memory://bucket/a.csv"] = memory["memory://bucket/b.csv"] = b"n\n1\n"
    found = shards.list_shards("memory://bucket/*.csv", None, "eval")
    assert [shard.path for shard in found] == ["memory://bucket/a.csv", "memory://bucket/b.csv"]


@pytest.mark.parametrize(
    ("pattern", "format_name", "text"),
    [
        (
            "eval-O.csv",
            "csv",
            r"no file or folder '.*eval-O\.csv'; closest names in '.*': eval-[012]\.csv, ",
        ),
        (
            "test-*.csv",
            "csv",
            r"No file or folder matches '.*test-\*\.csv'; '.*' contains day=1/, eval-0\.csv, ",
        ),
        ("dya=1/x.csv", "csv", r"no file or folder '.*x\.csv'; closest names in '.*': day=1/, "),
        ("dya=1/", "csv", r"no file or folder '.*dya=1/'; closest names in '.*': day=1/, "),
        ("dya=*/*.csv", "csv", r"No file or folder matches '.*'; '.*' contains day=1/, eval-0"),
        (
            "eval-2.csv",
            "csv",
            r"no data for split 'eval': all of its 1 files are empty \(.*eval-2\.csv\)\.",
        ),
        ("train.parquet", "tfrecords", r"Unknown data format 'tfrecords'"),
        (
            "odd.txt",
            None,
            r"format of '.*odd\.txt' .*known suffixes: \.tfrecord, .*data\.format",
        ),
    ],
)
def test_errors_say_what_is_there(folder, pattern, format_name, text):
    (folder / "odd.txt").write_text("x")
    (folder / "day=1").mkdir()
    with pytest.raises(errors.ConfigError, match=text):
        shards.list_shards(f"{folder}/{pattern}", format_name, "eval")


def test_a_pattern_of_buckets(memory):
    with pytest.raises(errors.ConfigError, match=r"matches 'memory://b.*nothing"):
        shards.list_shards("memory://buck*/a.csv", None, "eval")


def test_an_unknown_filesystem():
    with pytest.raises(errors.ConfigError, match=r"Cannot list 'nosuch://a': Unable to get file"):
        shards.list_shards("nosuch://a", "csv", "eval")


def shard(name: str, size_bytes: int) -> batch.Shard:
    return batch.Shard("eval", name, "csv", None, size_bytes)


@pytest.mark.parametrize("least", [1, 7, 64])
def test_tasks_hold_every_shard_once_and_in_order(least):
    listed = [shard(f"{i}.csv", 1000 + i % 5 * 1000) for i in range(30)]
    tasks = shards.tasks(listed, least)
    assert [one for task in tasks for one in task] == listed
    assert all(tasks)
    assert min(least, 30) <= len(tasks) <= 2 * least


def test_tasks_of_many_gigabytes():
    large = [shard(f"{i}.csv", 200 << 20) for i in range(100)]
    assert {len(task) for task in shards.tasks(large, 1)} <= {1, 2}


def test_shards_of_unknown_size_are_spread_too():
    assert len(shards.tasks([shard("a", 0), shard("b", 0)], 4)) == 2
    assert shards.tasks([], 4) == []
