"""Columns that the folders of a path hold: `dt=2024-01-01/part-0.parquet`, as Spark writes them."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

import pyarrow as pa
from pyarrow import dataset

from evalbeam.transforms.batch import Batch

# What fits int64.
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")


@functools.lru_cache(maxsize=1 << 12)
def parse(path: str) -> Mapping[str, pa.Scalar]:
    """The path's columns; a null is Hive's default partition.

    Whole numbers are int64 unless they have leading zeros; other values are text.

    >>> parse("scored/dt=2024-01-01/shard=7/part-0.parquet")
    {'dt': <pyarrow.StringScalar: '2024-01-01'>, 'shard': <pyarrow.Int64Scalar: 7>}
    """
    folder, _, _ = path.rpartition("/")
    names = [part.partition("=")[0] for part in folder.split("/") if "=" in part[1:]]
    if not names:
        return {}
    schema = pa.schema([(name, pa.string()) for name in dict.fromkeys(names)])
    values = dataset.get_partition_keys(dataset.HivePartitioning(schema).parse(path))
    return {name: _scalar(values.get(name)) for name in schema.names}


def _scalar(value: str | None) -> pa.Scalar:
    if value is not None and _WHOLE.fullmatch(value):
        return pa.scalar(int(value), pa.int64())
    return pa.scalar(value, pa.string())


def add(examples: Batch, columns: Mapping[str, pa.Scalar]) -> Batch:
    """The batch with these columns, each of one value; a column of the file takes precedence."""
    names = examples.columns.schema.names
    return examples.with_columns(
        {
            name: pa.repeat(value, len(examples))
            for name, value in columns.items()
            if name not in names
        }
    )
