from __future__ import annotations

import errno
import os

import pyarrow as pa
import pytest
import writers

from evalbeam.transforms import batch, errors
from evalbeam.transforms.formats import files, shards

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
    found = shards.list_shards(patterns, "csv", "eval").shards
    assert names(found) == ["eval-0.csv", "eval-1.csv", "eval-2.csv"]
    assert found[0].size_bytes == (folder / "eval-0.csv").stat().st_size
    assert {(shard.split, shard.format, shard.piece) for shard in found} == {("eval", "csv", None)}


def test_relative_globs(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert len(shards.list_shards("*-1.csv", "csv", "eval").shards) == 1


@pytest.mark.parametrize("pattern", ["day=*", "day=*/", "*=2026-1*", "day=2026-1*/**"])
def test_folders_that_a_glob_matches_are_read_as_folders(tmp_path, pattern):
    for day in ("2026-10", "2026-11", "2026-12"):
        (tmp_path / "days" / f"day={day}" / "part").mkdir(parents=True)
        writers.write(tmp_path / "days" / f"day={day}" / "part", "csv", TABLE, "a")
    (tmp_path / "days" / "day=2026-12" / "_SUCCESS").touch()
    (tmp_path / "days" / "_SUCCESS").touch()
    found = shards.list_shards(f"{tmp_path}/days/{pattern}", None, "eval").shards
    assert [shard.path.split("/")[-3] for shard in found] == [
        "day=2026-10",
        "day=2026-11",
        "day=2026-12",
    ]


def test_remote_folders_that_a_glob_matches(memory):
    memory["memory://bucket/day=1/a.csv"] = memory["memory://bucket/day=2/b.csv"] = b"n\n1\n"
    found = shards.list_shards("memory://bucket/day=*", None, "eval").shards
    assert [shard.path for shard in found] == [
        "memory://bucket/day=1/a.csv",
        "memory://bucket/day=2/b.csv",
    ]


def test_row_groups_are_shards(folder):
    found = shards.list_shards(f"{folder}/train.parquet", None, "train").shards
    assert [shard.piece for shard in found] == [0, 1]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.CSV", "csv"), ("a.csv.gz", "csv"), ("a.tfrecord-00001-of-00003.gz", "tfrecord"),
     ("a-00001-of-00003.tfrecords", "tfrecord"), ("a.jsonl", "jsonl")],
)  # fmt: skip
def test_the_format_is_inferred_from_the_suffix(tmp_path, name, expected):
    (tmp_path / name).write_bytes(b"x")
    [shard] = shards.list_shards(str(tmp_path / name), None, "eval").shards
    assert shard.format == expected


def test_remote_files(memory):
    memory["memory://bucket/a.csv"] = memory["memory://bucket/b.csv"] = b"n\n1\n"
    patterns = ["memory://bucket/*.csv", "memory://bucket/a.csv"]
    found = shards.list_shards(patterns, None, "eval").shards
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


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder with a file, a.csv."""
    monkeypatch.chdir(tmp_path)
    writers.write(tmp_path, "csv", TABLE, "a")
    return tmp_path


@pytest.mark.parametrize(
    ("patterns", "paths"),
    [
        (["a.csv", "sub/../a.csv"], ["a.csv"]),
        (["a.csv", "{here}/a.csv"], ["a.csv"]),
        (["sub/soft.csv", "a.csv"], ["a.csv"]),
        (["sub/hard.csv", "sub/soft.csv"], ["sub/hard.csv"]),
        (["a.csv", "sub"], ["a.csv"]),
        (["**/*.csv"], ["a.csv"]),
    ],
)
def test_a_file_of_several_names_is_read_once(here, patterns, paths):
    (here / "sub").mkdir()
    (here / "sub" / "hard.csv").hardlink_to(here / "a.csv")
    (here / "sub" / "soft.csv").symlink_to("../a.csv")
    listing = shards.list_shards([each.format(here=here) for each in patterns], None, "eval")
    assert [shard.path for shard in listing.shards] == paths
    [note] = listing.notes
    assert note.startswith(f"{paths[0]} is read once; other names of the file: ")


def test_a_glob_of_one_file_twice_needs_no_note(here):
    listing = shards.list_shards(["a.csv", "./a.csv", "*.csv"], None, "eval")
    assert (len(listing.shards), listing.notes) == (1, ())


def test_copies_are_other_files(here):
    (here / "b.csv").write_bytes((here / "a.csv").read_bytes())
    listing = shards.list_shards("*.csv", None, "eval")
    assert (names_of(listing), listing.notes) == (["a.csv", "b.csv"], ())


@pytest.mark.parametrize("pattern", [".", "**", "**/*.csv", "sub/**"])
def test_links_in_a_circle_end(here, pattern):
    (here / "sub").mkdir()
    writers.write(here / "sub", "csv", TABLE, "b")
    for name in ("one", "two"):
        (here / name).symlink_to(".")
        (here / "sub" / name).symlink_to("..")
    listing = shards.list_shards(pattern, None, "eval")
    assert len(listing.shards) == 2


def names_of(listing) -> list[str]:
    return [shard.path for shard in listing.shards]


def test_a_file_in_two_splits_is_noted(here):
    (here / "b.csv").symlink_to("a.csv")
    both = [
        shard
        for split, path in (("eval", "a.csv"), ("train", "b.csv"))
        for shard in shards.list_shards(path, None, split).shards
    ]
    assert shards.note_shared(both) == ["a.csv is in the splits 'eval', 'train'"]


@pytest.mark.parametrize("pattern", ["*.csv", "**", "*/x.csv", "loop.csv", "gone.csv", "dt/*.csv"])
def test_links_to_nothing_are_refused(here, pattern):
    (here / "loop.csv").symlink_to("loop.csv")
    (here / "gone.csv").symlink_to("nothing")
    (here / "dt").symlink_to("unmounted")
    with pytest.raises(errors.ConfigError, match=r"Cannot list .*: \[Errno (2|40)\]"):
        shards.list_shards(pattern, None, "eval")


@pytest.mark.parametrize("pattern", ["*", "**"])
def test_links_to_nothing_are_no_matter_where_they_are_hidden(here, pattern):
    (here / ".gone.csv").symlink_to("nothing")
    assert names_of(shards.list_shards(pattern, None, "eval")) == ["a.csv"]


def test_a_folder_named_like_a_file(here):
    (here / "spark.csv").mkdir()
    writers.write(here / "spark.csv", "csv", TABLE, "part-0")
    with pytest.raises(errors.ConfigError, match=r"'spark\.csv' is a folder.*'\*\.csv/\*'"):
        shards.list_shards("*.csv", None, "eval")
    for pattern in ("spark.csv", "*.csv/*"):
        assert names_of(shards.list_shards(pattern, None, "eval")) == ["spark.csv/part-0.csv"]
    for pattern in ("**", "**/*.csv"):
        assert len(shards.list_shards(pattern, None, "eval").shards) == 2


def test_a_folder_or_file_that_may_not_be_read(here, monkeypatch):
    (here / "sub").mkdir()
    scan, open_local = os.scandir, files.open_raw

    def refuse(path):
        if str(path).endswith("sub"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scan(path)

    def refuse_file(path):
        if path.endswith("plain"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return open_local(path)

    monkeypatch.setattr(os, "scandir", refuse)
    for pattern in ("sub/*.csv", "**/*.csv", "*/*.csv", "sub"):
        with pytest.raises(errors.ConfigError, match=r"Cannot list .*Permission denied: 'sub'"):
            shards.list_shards(pattern, None, "eval")
    (here / "plain").write_bytes(b"n")
    monkeypatch.setattr(files, "open_raw", refuse_file)
    with pytest.raises(errors.DataError, match=r"Cannot read plain: .*Permission denied: 'plain'"):
        shards.list_shards("plain", None, "eval")


@pytest.mark.parametrize("name", ["a" * 300 + ".csv", "a\0.csv"])
def test_names_that_cannot_be(here, name):
    with pytest.raises(errors.ConfigError, match="Cannot list "):
        shards.list_shards(name, None, "eval")


def test_names_that_are_not_utf_8(here):
    writers.write(here, "csv", TABLE, os.fsdecode(b"b\xff"))
    with pytest.raises(errors.ConfigError, match=r"'b\\udcff\.csv' is not UTF-8: rename it"):
        shards.list_shards("*.csv", None, "eval")
