"""The merged table of sums as Parquet files, and back.

One file for each partition of the slices: a row for each sum, and in the file's metadata what the
numbers in it mean.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from evalbeam.transforms import errors
from evalbeam.transforms.examples import slices
from evalbeam.transforms.metrics import table

_VERSION = 1
_SCHEMA = pa.schema(
    [
        pa.field("statistic", pa.dictionary(pa.int32(), pa.string())),
        pa.field("slice", pa.int32()),
        pa.field("unit", pa.int32()),
        pa.field("cell", pa.int32()),
        pa.field("sum", pa.float64()),
        pa.field("rounding", pa.float64()),
    ]
)


def write(sums: table.Table, path: str | Path) -> None:
    """Writes a partition of the table."""
    meta = {
        "version": _VERSION,
        "slices": [[key.split, *map(list, key.pairs)] for key in sums.slices],
        "statistics": {
            name: {"units": layout.units, "cells": layout.cells}
            for name, layout in sums.layouts.items()
        },
    }
    schema = _SCHEMA.with_metadata({"evalbeam": json.dumps(meta)})
    names = pa.array(list(sums.layouts), pa.string())
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for number, (name, layout) in enumerate(sums.layouts.items()):
            stored = sums.sums[name]
            owner, rest = np.divmod(stored.keys, layout.stride)
            unit, cell = np.divmod(rest, layout.cells)
            code = pa.array(np.full(len(owner), number, np.int32))
            low = np.zeros(len(owner)) if stored.low is None else stored.low
            columns = [
                pa.DictionaryArray.from_arrays(code, names),
                *(pa.array(part.astype(np.int32)) for part in (owner, unit, cell)),
                pa.array(stored.high),
                pa.array(low),
            ]
            writer.write_table(pa.table(columns, schema=schema))


def read(path: str | Path) -> table.Table:
    """Reads a partition of a table; raises JobError where the file is none."""
    try:
        with pq.ParquetFile(path) as file:
            meta = json.loads(file.schema_arrow.metadata[b"evalbeam"])
            stored = file.read()
    except (OSError, pa.ArrowInvalid, KeyError, TypeError) as e:
        raise errors.JobError(f"{path}: not a readable table of sums: {e}") from e
    if meta["version"] != _VERSION:
        raise errors.JobError(
            f"{path}: written in version {meta['version']} of the table's format; this evalbeam "
            f"reads version {_VERSION}"
        )
    layouts = {name: table.Layout(**shape) for name, shape in meta["statistics"].items()}
    keys = tuple(
        slices.SliceKey(split, tuple((column, value) for column, value in pairs))
        for split, *pairs in meta["slices"]
    )
    # The rows of a statistic stand together, in the order of the layouts.
    counts = stored["statistic"].value_counts()
    lengths = dict(zip(*(counts.field(i).to_pylist() for i in range(2)), strict=True))
    sums, start = {}, 0
    for name, layout in layouts.items():
        rows = stored.slice(start, lengths.get(name, 0))
        start += len(rows)
        owner, unit, cell = (
            rows[column].to_numpy().astype(np.int64) for column in ("slice", "unit", "cell")
        )
        low = rows["rounding"].to_numpy()
        sums[name] = table.Sums(
            (owner * layout.units + unit) * layout.cells + cell,
            rows["sum"].to_numpy(),
            low if low.any() else None,
        )
    return table.Table(keys, layouts, sums)
