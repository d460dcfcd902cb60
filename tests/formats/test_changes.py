"""A file that changes between its listing and its last row fails the run, whatever its format."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pyarrow as pa
import pytest
import writers

from evalbeam.transforms import batch, errors, formats
from evalbeam.transforms.formats import shards

FORMATS = sorted(formats.REGISTRY)
BEFORE = writers.noise(5_000, seed=1)
AFTER = writers.noise(5_000, seed=2)


def replace(path: Path, content: bytes) -> None:
    """As `mv` does: whoever has opened the file still reads the old one."""
    (path.parent / "new").write_bytes(content)
    os.replace(path.parent / "new", path)


def replace_with_the_same_time(path: Path, content: bytes) -> None:
    """As a copy does that preserves times, of a file of the same size."""
    status = path.stat()
    replace(path, content[: status.st_size].ljust(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def overwrite(path: Path, content: bytes) -> None:
    time.sleep(0.02)  # a file system's clock ticks every few milliseconds
    path.write_bytes(content)


def truncate(path: Path, content: bytes) -> None:
    os.truncate(path, path.stat().st_size // 2)


CHANGES = [replace, replace_with_the_same_time, overwrite, truncate]


def read_first(shard: batch.Shard):
    items = formats.read(shard, batch.Projection(("n",)), 100)
    return next(items), items


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    ("format_name", "zipped"),
    [*((name, False) for name in FORMATS), ("csv", True), ("jsonl", True), ("tfrecord", True)],
)
def test_while_it_is_read(tmp_path, format_name, zipped, change):
    path = Path(writers.write(tmp_path, format_name, BEFORE, zipped=zipped))
    shard = shards.list_shards(str(path), format_name, "eval").shards[0]
    first, items = read_first(shard)
    assert isinstance(first, batch.Batch)
    change(path, writers.content(AFTER, format_name))
    with pytest.raises(errors.JobError, match=f"{path} has changed since this run listed it"):
        list(items)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("format_name", FORMATS)
def test_before_it_is_read(tmp_path, format_name, change):
    path = Path(writers.write(tmp_path, format_name, BEFORE))
    shard = shards.list_shards(str(path), format_name, "eval").shards[0]
    change(path, writers.content(AFTER, format_name))
    with pytest.raises(errors.JobError, match=f"{path} has changed since this run listed it"):
        read_first(shard)


@pytest.mark.parametrize("format_name", FORMATS)
def test_in_a_store(memory, format_name):
    url = "memory://bucket/data"
    memory[url] = writers.content(BEFORE, format_name)
    shard = shards.list_shards(url, format_name, "eval").shards[0]
    _, items = read_first(shard)
    memory[url] += b" "
    with pytest.raises(errors.JobError, match=f"{url} has changed since this run listed it"):
        list(items)


def test_a_file_that_is_touched_by_nobody_is_read(tmp_path):
    path = writers.write(tmp_path, "csv", BEFORE)
    [shard] = shards.list_shards(path, "csv", "eval").shards
    items = formats.read(shard, batch.Projection(("n",)), 1000)
    assert writers.values(items, "n") == BEFORE["n"].to_pylist()


def test_machines_number_devices_and_perhaps_files_in_their_own_way():
    listed = batch.Stamp(7, 1, (5, 12))
    assert listed.matches(batch.Stamp(7, 1, (6, 13)))
    assert not listed.matches(batch.Stamp(7, 1, (5, 13)))
    assert not listed.matches(batch.Stamp(7, 2, (6, 12)))
    assert not listed.matches(batch.Stamp(8, 1, (6, 12)))


def test_parquet_of_other_rows_of_the_same_size(tmp_path):
    """Row groups are read one by one: of two versions, each would give some."""
    path = Path(writers.write(tmp_path, "parquet", pa.table({"n": range(14)})))
    first, second = shards.list_shards(str(path), None, "eval").shards
    [part] = formats.read(first, batch.Projection(("n",)), 100)
    assert writers.values([part], "n") == list(range(7))
    replace_with_the_same_time(path, writers.content(pa.table({"n": range(1, 15)}), "parquet"))
    with pytest.raises(errors.JobError, match="another content of the same size"):
        list(formats.read(second, batch.Projection(("n",)), 100))
