"""Results as long Parquet tables: a row for each number."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from transforms import compare, finish
from transforms.metrics import metric

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
COMPARISONS = pa.schema(
    [
        *_WHERE,
        ("baseline", _NAME),
        ("candidate", _NAME),
        *_WHICH,
        ("difference", pa.float64()),
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

    def __init__(self, folder: Path, baseline: str | None, least: int) -> None:
        self._baseline = baseline
        self._least = least
        self._metrics = pq.ParquetWriter(folder / "metrics.parquet", METRICS, compression="zstd")
        self._confusion = pq.ParquetWriter(
            folder / "confusion.parquet", CONFUSION, compression="zstd"
        )
        self._comparisons = pq.ParquetWriter(
            folder / "comparisons.parquet", COMPARISONS, compression="zstd"
        )

    def add(self, block: finish.Block) -> None:
        """Writes a block's rows."""
        kept = np.array([not key.pairs for key in block.slices]) | (block.examples >= self._least)
        names = _Names.of(block)
        self._metrics.write_table(_metrics(block, names, kept))
        self._confusion.write_table(_confusion(block, names, kept))
        self._comparisons.write_table(_comparisons(block, names, kept, self._baseline))

    def __exit__(self, *_: object) -> None:
        for writer in (self._metrics, self._confusion, self._comparisons):
            writer.close()


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
        """The columns `split` and `slice` of the rows of these slices, int[N]."""
        return {
            "split": pa.DictionaryArray.from_arrays(self.split[row], self.splits),
            "slice": pa.DictionaryArray.from_arrays(row.astype(np.int32), self.slices),
        }


def _metrics(block: finish.Block, names: _Names, kept: np.ndarray) -> pa.Table:
    parts = [
        _rows(
            METRICS,
            names,
            kept,
            result,
            {"model": key.model, **_which(key)},
            {"value": result.values, "n": block.examples, "weight_sum": block.weights},
        )
        for key, result in block.results.items()
        if isinstance(result, metric.Values)
    ]
    return pa.concat_tables([METRICS.empty_table(), *parts]).unify_dictionaries()


def _comparisons(
    block: finish.Block, names: _Names, kept: np.ndarray, baseline: str | None
) -> pa.Table:
    parts = [
        _rows(
            COMPARISONS,
            names,
            kept,
            one.values,
            {"baseline": one.baseline, "candidate": one.key.model, **_which(one.key)},
            {"difference": one.values.values, "n": block.examples},
        )
        for one in compare.differences(block, baseline)
    ]
    return pa.concat_tables([COMPARISONS.empty_table(), *parts]).unify_dictionaries()


def _confusion(block: finish.Block, names: _Names, kept: np.ndarray) -> pa.Table:
    parts = []
    for one in block.counts:
        # The many empty cells of a table of many classes are left out; binary ones stay whole.
        whole = one.counts.shape[-1] == 2
        cells = np.indices(one.counts.shape).reshape(4, -1) if whole else one.counts.nonzero()
        row, threshold, actual, predicted = cells
        columns = {
            **names.columns(row),
            "model": _same(one.model, len(row)),
            "output": _same(one.output, len(row)),
            "class_id": pa.repeat(pa.scalar(one.class_id, pa.int32()), len(row)),
            "threshold": pa.array(one.thresholds, pa.float64()).take(pa.array(threshold)),
            "actual": pa.array(actual.astype(np.int32)),
            "predicted": pa.array(predicted.astype(np.int32)),
            "count": pa.array(one.counts[row, threshold, actual, predicted]),
        }
        parts.append(_table(CONFUSION, columns, kept[row]))
    return pa.concat_tables([CONFUSION.empty_table(), *parts]).unify_dictionaries()


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


def _rows(
    schema: pa.Schema,
    names: _Names,
    kept: np.ndarray,
    result: metric.Values,
    same: dict[str, str | int | bool | None],
    values: dict[str, np.ndarray],
) -> pa.Table:
    """A row for each slice and threshold; `values` are [slices] or [slices, thresholds]."""
    thresholds: Sequence[float | None] = result.thresholds or (None,)
    size = len(kept) * len(thresholds)
    row = np.repeat(np.arange(len(kept)), len(thresholds))
    threshold = pa.array(np.tile(np.arange(len(thresholds)), len(kept)))
    columns = {
        **names.columns(row),
        "threshold": pa.array(thresholds, pa.float64()).take(threshold),
    }
    for name, value in same.items():
        kind = schema.field(name).type
        columns[name] = (
            _same(str(value), size) if kind == _NAME else pa.repeat(pa.scalar(value, kind), size)
        )
    for name, numbers in values.items():
        flat = numbers.reshape(-1) if numbers.size == size else numbers[row]
        columns[name] = pa.array(flat).cast(schema.field(name).type)
    return _table(schema, columns, kept[row])


def _same(value: str, size: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(np.zeros(size, np.int32), [value])


def _table(schema: pa.Schema, columns: dict[str, pa.Array], kept: np.ndarray) -> pa.Table:
    """The rows (bool[N]) of the schema's columns; columns that are not given are null."""
    arrays = [
        columns[field.name] if field.name in columns else pa.nulls(len(kept), field.type)
        for field in schema
    ]
    whole = pa.table(arrays, schema=schema)
    return whole if kept.all() else whole.filter(pa.array(kept))
