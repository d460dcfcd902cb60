"""Tables of few rows are files, of many rows folders; whatever reads one reads the other."""

import json

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evalbeam.transforms.examples.labels import Head
from evalbeam.transforms.examples.slices import SliceKey
from evalbeam.transforms.metrics import metric
from evalbeam.transforms.metrics.sheet import Sheet
from evalbeam.transforms.metrics.table import Table, sort_key
from evalbeam.transforms.results import finish
from evalbeam.transforms.sinks import tables

HEADS = [Head("", "y", "binary")]
KEYS = [
    SliceKey("eval"),
    SliceKey("train"),
    SliceKey("eval", (("a", "x;y"),)),
    SliceKey("eval", (("a", "back\\"),)),
    SliceKey("eval", (("a", "x"), ("b", "=;\\;"))),
    SliceKey("eval", (("b", "overall"),)),
    SliceKey("train", (("a", 1), ("b", 2), ("c", 3))),
    SliceKey("eval", (("ü", "é"),)),
]


def block(keys):
    ordered = tuple(sorted(keys, key=sort_key))
    sizes = np.array([10.0 + KEYS.index(key) for key in ordered])
    values = metric.Values(sizes / 100)
    at = metric.Values(np.stack([sizes, sizes + 0.5], axis=1), (0.3, 0.7))
    results = {metric.Key("auc", "v1"): values, metric.Key("recall", "v2"): at}
    counts = finish.Counts(
        "v1",
        "",
        None,
        *(np.arange(len(keys)).repeat(2), np.full(2 * len(keys), 0.5)),
        *(np.tile([0, 1], len(keys)), np.zeros(2 * len(keys), int), sizes.repeat(2)),
    )
    reported = np.ones(len(keys), bool)
    sheet = Sheet(Table.empty({}))
    return finish.Block(
        ordered, sheet, reported, sizes, sizes, results, (counts,), np.arange(0), {}
    )


def write(folder, keys, name="part"):
    folder.mkdir(exist_ok=True)
    paths = {table: str(folder / f"{name}-{table}.parquet") for table in tables.SCHEMAS}
    with tables.Writer(paths, HEADS) as writer:
        writer.add(block(keys), [])
    return writer.rows


def test_the_rows_of_a_slice_are_next_to_each_other(tmp_path):
    rows = write(tmp_path, KEYS)
    others = dict.fromkeys(("comparisons", "slice_comparisons"), 0)
    assert rows == {"metrics": 3 * len(KEYS), "confusion": 2 * len(KEYS), **others}
    found = pd.read_parquet(tmp_path / "part-metrics.parquet")
    order = [(key.split, str(key)) for key in sorted(KEYS, key=sort_key)]
    assert list(zip(found["split"], found["slice"], strict=True)) == [
        key for key in order for _ in range(3)
    ]
    assert found["threshold"].to_numpy()[:3].tolist()[1:] == [0.3, 0.7]
    assert found["value"].to_numpy()[:3].tolist() == [0.1, 10.0, 10.5]


@pytest.mark.parametrize("cuts", [[4], [1, 2, 6]])
def test_a_file_of_several_parts_is_that_of_one(tmp_path, cuts):
    write(tmp_path / "whole", KEYS)
    shuffled = [KEYS[i] for i in np.random.default_rng(0).permutation(len(KEYS))]
    pieces = np.split(np.arange(len(KEYS)), cuts)
    for number, piece in enumerate(pieces):
        write(tmp_path / "parts", [shuffled[i] for i in piece], f"part-{number}")
    for table in ("metrics", "confusion"):
        parts = sorted((tmp_path / "parts").glob(f"*-{table}.parquet"))
        target = tmp_path / f"{table}.parquet"
        tables.assemble(parts, 1, target)
        expected = pd.read_parquet(tmp_path / "whole" / f"part-{table}.parquet")
        pd.testing.assert_frame_equal(pd.read_parquet(target), expected, check_exact=True)
        assert pq.read_schema(target) == pq.read_schema(
            tmp_path / "whole" / f"part-{table}.parquet"
        )


@pytest.fixture
def both(tmp_path, monkeypatch):
    """A table as a file and as a folder."""
    for name, most in (("file", 1000), ("folder", 2)):
        for number, piece in enumerate(np.split(np.arange(len(KEYS)), [3])):
            write(tmp_path / name, [KEYS[i] for i in piece], f"part-{number}")
        monkeypatch.setattr(tables, "_FILE_ROWS", most)
        parts = sorted((tmp_path / name).glob("*-metrics.parquet"))
        tables.assemble(parts, 3 * len(KEYS), tmp_path / f"{name}.parquet")
    assert (tmp_path / "file.parquet").is_file()
    assert sorted(path.name for path in (tmp_path / "folder.parquet").iterdir()) == [
        "part-00000-of-00002.parquet",
        "part-00001-of-00002.parquet",
    ]
    return tmp_path / "file.parquet", tmp_path / "folder.parquet"


def test_pandas_reads_folders_as_files(both):
    file, folder = (
        pd.read_parquet(path)
        .astype({"split": str, "slice": str})
        .sort_values(["split", "slice", "metric", "threshold"])
        for path in both
    )
    pd.testing.assert_frame_equal(
        file.reset_index(drop=True), folder.reset_index(drop=True), check_exact=True
    )
    filtered = pd.read_parquet(both[1], filters=[("slice", "==", "overall")])
    assert set(filtered["split"]) == {"eval", "train"}


def test_duckdb_reads_folders_as_files(both):
    query = (
        "select split, slice, metric, threshold, value, n from read_parquet('{}') "
        "order by split, slice, metric, threshold"
    )
    file, folder = both
    rows = [duckdb.sql(query.format(path)).fetchall() for path in (file, f"{folder}/*.parquet")]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 3 * len(KEYS)


def test_readers_take_what_they_need_of_either(both):
    for path in both:
        stored = tables.read(path)
        wanted = stored.to_table(filter=pa.compute.field("metric") == "auc", columns=["slice"])
        assert wanted.num_rows == len(KEYS)


def test_schemas_are_those_of_the_readme():
    import pathlib

    text = (pathlib.Path(__file__).parents[2] / "README.md").read_text()
    for name, schema in tables.SCHEMAS.items():
        (line,) = (row for row in text.splitlines() if row.startswith(f"| `{name}.parquet` |"))
        missing = [field.name for field in schema if field.name not in line]
        assert not missing, (name, json.dumps(missing))
