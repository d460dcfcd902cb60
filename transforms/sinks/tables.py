"""Results as long Parquet tables: a row for each number."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from evalbeam.transforms.metrics import metric
from evalbeam.transforms.results import compare, finish

_NAME = pa.dictionary(pa.int32(), pa.string())
_WHERE = [("split", _NAME), ("slice", _NAME)]
_WHICH = [
    ("output", _NAME),
    ("metric", _NAME),
    ("class_id", pa.int32()),
    ("k", pa.int32()),
    ("top_k", pa.int32()),
    ("aggregation", _NAME),
    ("weighted", pa.bool_()),
    ("threshold", pa.float64()),
]

# The columns that tell results of one slice and version apart.
WHICH = tuple(name for name, _ in _WHICH)

# Intervals and tests have their columns already, so that readers need not change when they come.
METRICS = pa.schema(
    [
        *_WHERE,
        ("model", _NAME),
        *_WHICH,
        ("value", pa.float64()),
        ("ci_lower", pa.float64()),
        ("ci_upper", pa.float64()),
        ("ci_method", _NAME),
        ("n", pa.int64()),
        ("weight_sum", pa.float64()),
    ]
)
CONFUSION = pa.schema(
    [
        *_WHERE,
        ("model", _NAME),
        ("output", _NAME),
        ("class_id", pa.int32()),
        ("threshold", pa.float64()),
        ("actual", pa.int32()),
        ("predicted", pa.int32()),
        ("count", pa.float64()),
    ]
)
# Only conversions have verdicts.
COMPARISONS = pa.schema(
    [
        *_WHERE,
        ("baseline", _NAME),
        ("candidate", _NAME),
        *_WHICH,
        ("before", pa.float64()),
        ("after", pa.float64()),
        ("difference", pa.float64()),
        ("relative", pa.float64()),
        ("ci_lower", pa.float64()),
        ("ci_upper", pa.float64()),
        ("p_value", pa.float64()),
        ("p_adjusted", pa.float64()),
        ("method", _NAME),
        ("verdict", _NAME),
        ("n", pa.int64()),
    ]
)


class Writer(contextlib.AbstractContextManager["Writer"]):
    """Writes metrics.parquet, confusion.parquet and comparisons.parquet into a local folder.

    Slices of fewer than `least` examples are left out, a whole split excepted.
    """

    def __init__(self, folder: Path, least: int) -> None:
        self._least = least
        self._metrics = pq.ParquetWriter(folder / "metrics.parquet", METRICS, compression="zstd")
        self._confusion = pq.ParquetWriter(
            folder / "confusion.parquet", CONFUSION, compression="zstd"
        )
        self._comparisons = pq.ParquetWriter(
            folder / "comparisons.parquet", COMPARISONS, compression="zstd"
        )

    def add(self, block: finish.Block, differences: Sequence[compare.Difference]) -> None:
        """Writes a block's rows."""
        kept = np.array([not key.pairs for key in block.slices]) | (block.examples >= self._least)
        names = _Names.of(block)
        self._metrics.write_table(_metrics(block, names, kept))
        self._confusion.write_table(_confusion(block, names, kept))
        self._comparisons.write_table(_comparisons(block, names, kept, differences))

    def __exit__(self, *_: object) -> None:
        for writer in (self._metrics, self._confusion, self._comparisons):
            writer.close()


def verdicts(folder: Path, split: str) -> pd.DataFrame:
    """The rows of comparisons.parquet of a split that have a verdict.

    Not those of classes: there are many, and their averages say what is asked.
    """
    wanted = (pc.field("split") == split) & pc.field("verdict").is_valid()
    wanted &= pc.field("class_id").is_null()
    return pq.read_table(folder / "comparisons.parquet", filters=wanted).to_pandas()


@dataclass(frozen=True)
class _Names:
    """What the slices of a block are called in a table."""

    split: np.ndarray
    splits: list[str]
    slices: pa.Array

    @staticmethod
    def of(block: finish.Block) -> _Names:
        splits = sorted({key.split for key in block.slices})
        split = np.array([splits.index(key.split) for key in block.slices], np.int32)
        return _Names(split, splits, pa.array([str(key) for key in block.slices]))

    def columns(self, row: np.ndarray) -> dict[str, pa.Array]:
        """The columns `split` and `slice` of rows of these slices, int64[N]."""
        return {
            "split": pa.DictionaryArray.from_arrays(self.split[row], self.splits),
            "slice": pa.DictionaryArray.from_arrays(row.astype(np.int32), self.slices),
        }


def _metrics(block: finish.Block, names: _Names, kept: np.ndarray) -> pa.Table:
    found = {k: result for k, result in block.results.items() if isinstance(result, metric.Values)}
    return _long(
        METRICS,
        names,
        np.flatnonzero(kept),
        [{"model": key.model, **_which(key)} for key in found],
        [result.thresholds for result in found.values()],
        {"value": [result.values for result in found.values()]},
        {"n": block.examples, "weight_sum": block.weights},
    )


def _comparisons(
    block: finish.Block, names: _Names, kept: np.ndarray, found: Sequence[compare.Difference]
) -> pa.Table:
    return _long(
        COMPARISONS,
        names,
        np.flatnonzero(kept),
        [{"baseline": d.baseline, "candidate": d.key.model, **_which(d.key)} for d in found],
        [one.thresholds for one in found],
        {
            "before": [one.before for one in found],
            "after": [one.after for one in found],
            "difference": [one.values for one in found],
            "relative": [one.relative for one in found],
            "verdict": [one.verdicts for one in found],
        },
        {"n": block.examples},
    )


def _confusion(block: finish.Block, names: _Names, kept: np.ndarray) -> pa.Table:
    if not block.counts:
        return CONFUSION.empty_table()
    which = np.repeat(np.arange(len(block.counts)), [len(one.counts) for one in block.counts])
    row, threshold, actual, predicted, count = (
        np.concatenate([getattr(one, name) for one in block.counts])
        for name in ("rows", "at", "actual", "predicted", "counts")
    )
    inside = kept[row]
    columns = {
        **names.columns(row[inside]),
        "threshold": pa.array(threshold[inside], from_pandas=True),  # NaN: none
        "actual": pa.array(actual[inside].astype(np.int32)),
        "predicted": pa.array(predicted[inside].astype(np.int32)),
        "count": pa.array(count[inside]),
    }
    for name in ("model", "output", "class_id"):
        of_each = pa.array([getattr(one, name) for one in block.counts], CONFUSION.field(name).type)
        columns[name] = of_each.take(pa.array(which[inside]))
    return _table(CONFUSION, columns)


def _which(key: metric.Key) -> dict[str, str | int | bool | None]:
    return {
        "output": key.output,
        "metric": key.metric,
        "class_id": key.class_id,
        "k": key.k,
        "top_k": key.top_k,
        "aggregation": key.aggregation,
        "weighted": key.weighted,
    }


def _long(
    schema: pa.Schema,
    names: _Names,
    rows: np.ndarray,
    keys: Sequence[Mapping[str, str | int | bool | None]],
    thresholds: Sequence[tuple[float, ...] | None],
    values: Mapping[str, Sequence[np.ndarray]],
    of_slices: Mapping[str, np.ndarray],
) -> pa.Table:
    """A row for each result, slice of `rows` (int64) and threshold, in this order.

    Args:
      schema: the table's.
      names: of the block's slices.
      rows: the slices that are wanted.
      keys: for each result, its columns of one value.
      thresholds: of each result, if it has some.
      values: columns, for each result an array of all the block's slices [S] or [S, T].
      of_slices: further columns, a number for each of the block's slices.
    """
    if not keys:
        return schema.empty_table()
    widths = [len(one or (None,)) for one in thresholds]
    which = pa.array(np.repeat(np.arange(len(keys)), np.multiply(widths, len(rows))))
    row = np.concatenate([np.repeat(rows, width) for width in widths])
    at = np.concatenate([np.tile(one or (np.nan,), len(rows)) for one in thresholds])
    columns = {
        **names.columns(row),
        "threshold": pa.array(at, from_pandas=True),  # NaN: none
    }
    for name, results in values.items():
        flat = np.concatenate([one[rows].reshape(-1) for one in results])
        columns[name] = pa.array(flat, schema.field(name).type)
    for name in keys[0]:
        of_each = pa.array([key[name] for key in keys], schema.field(name).type)
        columns[name] = of_each.take(which)
    for name, numbers in of_slices.items():
        columns[name] = pa.array(numbers[row]).cast(schema.field(name).type)
    return _table(schema, columns)


def _table(schema: pa.Schema, columns: Mapping[str, pa.Array]) -> pa.Table:
    """The schema's columns; those that are not given are null."""
    size = len(columns["slice"])
    arrays = [
        columns[field.name] if field.name in columns else pa.nulls(size, field.type)
        for field in schema
    ]
    return pa.table(arrays, schema=schema)
