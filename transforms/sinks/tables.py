"""Writes results as long Parquet tables: a row for each number, the rows of a slice contiguous."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import dataset
from pyarrow.dataset import Dataset

from evalbeam.transforms.examples.labels import Head
from evalbeam.transforms.formats import files
from evalbeam.transforms.metrics import metric
from evalbeam.transforms.results import compare, finish

_NAME = pa.dictionary(pa.int32(), pa.string())
_WHERE = [("split", _NAME), ("slice", _NAME)]
_WHICH = [
    ("output", _NAME),
    ("metric", _NAME),
    ("class_id", pa.int32()),
    ("class", _NAME),
    ("k", pa.int32()),
    ("top_k", pa.int32()),
    ("aggregation", _NAME),
    ("decision", _NAME),
    ("weighted", pa.bool_()),
    ("threshold", pa.float64()),
]

# The columns that identify a result of a slice and version.
WHICH = tuple(name for name, _ in _WHICH)

# Columns for intervals and tests are reserved, so that readers need not change later.
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
        ("classes", pa.int64()),
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
        ("class", _NAME),
        ("actual_class", _NAME),
        ("predicted_class", _NAME),
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
# A row for a slice, a baseline slice and a metric; empty unless slices are to be compared.
SLICE_COMPARISONS = pa.schema(
    [
        *_WHERE,
        ("baseline_slice", _NAME),
        ("model", _NAME),
        *_WHICH,
        ("before", pa.float64()),
        ("after", pa.float64()),
        ("difference", pa.float64()),
        ("ci_lower", pa.float64()),
        ("ci_upper", pa.float64()),
        ("method", _NAME),
        ("n", pa.int64()),
        ("baseline_n", pa.int64()),
    ]
)

SCHEMAS = {
    "metrics": METRICS,
    "confusion": CONFUSION,
    "comparisons": COMPARISONS,
    "slice_comparisons": SLICE_COMPARISONS,
}

# A table with more rows is a folder of parts instead of a file.
_FILE_ROWS = 500_000


class Writer(contextlib.AbstractContextManager["Writer"]):
    """Writes blocks of results as the tables of SCHEMAS.

    Slices that are too small to be reported are omitted.

    Args:
      paths: by table, the local file to write.
      heads: the outputs, whose classes may have names.

    Attributes:
      rows: by table, the number of rows written.
    """

    def __init__(self, paths: Mapping[str, str], heads: Sequence[Head]) -> None:
        self._heads = {head.output: head for head in heads}
        self._paths = paths
        self._writers = {
            name: pq.ParquetWriter(paths[name], schema, compression="zstd")
            for name, schema in SCHEMAS.items()
        }
        self.rows = dict.fromkeys(SCHEMAS, 0)

    def add(
        self,
        block: finish.Block,
        differences: Sequence[compare.Difference],
        between_slices: Sequence[compare.SliceDifference] = (),
    ) -> None:
        """Writes a block's rows."""
        kept = block.reported
        names = _Names.of(block)
        slice_comparisons = [
            _tabulate_slice_comparison(block, names, self._heads, each) for each in between_slices
        ]
        for name, rows in (
            ("metrics", _tabulate_metrics(block, names, kept, self._heads)),
            ("confusion", _tabulate_confusion(block, names, kept, self._heads)),
            ("comparisons", _tabulate_comparisons(block, names, kept, self._heads, differences)),
            *(("slice_comparisons", rows) for rows in slice_comparisons),
        ):
            with files.reporting(self._paths[name]):
                self._writers[name].write_table(rows)
            self.rows[name] += len(rows)

    def __exit__(self, *_: object) -> None:
        for name, writer in self._writers.items():
            with files.reporting(self._paths[name]):
                writer.close()


def file_name(number: int, count: int) -> str:
    """The file name of a part of a table."""
    return f"part-{number:05d}-of-{count:05d}.parquet"


def assemble(parts: Sequence[Path], rows: int, target: Path) -> None:
    """Assembles a table from its parts: `target` is a file, or a folder of parts for many rows.

    The order of rows is reproducible: by slice in a file, and by part in a folder.
    """
    if rows > _FILE_ROWS:
        target.mkdir()
        for number, part in enumerate(parts):
            part.rename(target / file_name(number, len(parts)))
    elif len(parts) == 1:
        parts[0].rename(target)
    else:
        with files.writing(str(target)) as path:
            pq.write_table(
                _sort_rows(pa.concat_tables(map(pq.read_table, parts))), path, compression="zstd"
            )


def read(path: Path) -> Dataset:
    """Opens a table, a file or a folder of parts, without reading it into memory."""
    return dataset.dataset(path, format="parquet")


def _sort_rows(table: pa.Table) -> pa.Table:
    """The rows, sorted by slice (`metrics.table.sort_key`)."""
    schema = table.schema
    names = [field.name for field in schema if pa.types.is_dictionary(field.type)]
    for column in names:
        place = schema.get_field_index(column)
        table = table.set_column(place, column, table[column].cast(pa.string()))
    split, name = table["split"], table["slice"]
    # An escaped `;` is part of a value.
    separators = pc.count_substring(pc.replace_substring_regex(name, r"\\.", ""), ";")
    columns = pc.if_else(pc.equal(name, "overall"), 0, pc.add(separators, 1))
    order = pc.sort_indices(
        pa.table({"split": split, "columns": columns, "slice": name}),
        sort_keys=[(key, "ascending") for key in ("split", "columns", "slice")],
    )
    # Dictionaries in the order of the rows, whatever their order in the parts.
    return table.take(order).combine_chunks().cast(schema)


@dataclass(frozen=True)
class _Names:
    """The names of a block's slices, encoded as in a table: int32[S] codes, and dictionaries."""

    split: np.ndarray
    splits: pa.Array
    slice: np.ndarray
    slices: pa.Array

    @staticmethod
    def of(block: finish.Block) -> _Names:
        # Each name once, although splits share names: otherwise equal files would differ in bytes.
        split = pa.array([key.split for key in block.slices]).dictionary_encode()
        name = pa.array([str(key) for key in block.slices]).dictionary_encode()
        return _Names(
            split.indices.to_numpy(), split.dictionary, name.indices.to_numpy(), name.dictionary
        )

    def columns(self, row: np.ndarray) -> dict[str, pa.Array]:
        """The columns `split` and `slice` for the slices `row` (int64[N])."""
        return {
            "split": pa.DictionaryArray.from_arrays(self.split[row], self.splits),
            "slice": pa.DictionaryArray.from_arrays(self.slice[row], self.slices),
        }


def _tabulate_metrics(
    block: finish.Block, names: _Names, kept: np.ndarray, heads: Mapping[str, Head]
) -> pa.Table:
    values = {key: r for key, r in block.results.items() if isinstance(r, metric.Values)}
    return _tabulate(
        METRICS,
        names,
        np.flatnonzero(kept),
        [
            {"model": key.model, "decision": result.decision or None, **_identify(key, heads)}
            for key, result in values.items()
        ],
        [result.thresholds for result in values.values()],
        {
            "value": [result.values for result in values.values()],
            "classes": [_count_averaged(result) for result in values.values()],
        },
        {"n": block.examples, "weight_sum": block.weights},
    )


def _count_averaged(result: metric.Values) -> np.ndarray:
    """The number of classes of an average, in the shape of its values; NaN if it is none."""
    if result.classes is None:
        return np.full(result.values.shape, np.nan)
    return np.asarray(result.classes, np.float64)


def _tabulate_comparisons(
    block: finish.Block,
    names: _Names,
    kept: np.ndarray,
    heads: Mapping[str, Head],
    differences: Sequence[compare.Difference],
) -> pa.Table:
    return _tabulate(
        COMPARISONS,
        names,
        np.flatnonzero(kept),
        [
            {
                "baseline": d.baseline,
                "candidate": d.key.model,
                "decision": d.decision or None,
                **_identify(d.key, heads),
            }
            for d in differences
        ],
        [d.thresholds for d in differences],
        {
            "before": [d.before for d in differences],
            "after": [d.after for d in differences],
            "difference": [d.values for d in differences],
            "relative": [d.relative for d in differences],
            "verdict": [d.verdicts for d in differences],
        },
        {"n": block.examples},
    )


def _tabulate_slice_comparison(
    block: finish.Block,
    names: _Names,
    heads: Mapping[str, Head],
    between: compare.SliceDifference,
) -> pa.Table:
    values = {
        key: (before, after)
        for key, after in block.results.items()
        if isinstance(after, metric.Values)
        and isinstance(before := between.baseline.results.get(key), metric.Values)
    }
    befores = [np.broadcast_to(b.values, a.values.shape) for b, a in values.values()]
    afters = [after.values for _, after in values.values()]
    with np.errstate(invalid="ignore"):  # inf - inf: NaN is correct.
        differences = [after - before for before, after in zip(befores, afters, strict=True)]
    return _tabulate(
        SLICE_COMPARISONS,
        names,
        between.rows,
        [
            {
                "baseline_slice": str(between.baseline.slices[0]),
                "model": key.model,
                "decision": after.decision or None,
                **_identify(key, heads),
            }
            for key, (_, after) in values.items()
        ],
        [after.thresholds for _, after in values.values()],
        {"before": befores, "after": afters, "difference": differences},
        {
            "n": block.examples,
            "baseline_n": np.full(len(block.slices), between.baseline.examples[0]),
        },
    )


def _tabulate_confusion(
    block: finish.Block, names: _Names, kept: np.ndarray, heads: Mapping[str, Head]
) -> pa.Table:
    if not block.counts:
        return CONFUSION.empty_table()
    which = np.repeat(np.arange(len(block.counts)), [len(part.counts) for part in block.counts])
    row, threshold, actual, predicted, count = (
        np.concatenate([getattr(part, name) for part in block.counts])
        for name in ("rows", "at", "actual", "predicted", "counts")
    )
    by_slice = np.argsort(row, kind="stable")
    inside = by_slice[kept[row[by_slice]]]
    columns = {
        **names.columns(row[inside]),
        "threshold": pa.array(threshold[inside], from_pandas=True),  # NaN: none
        "actual": pa.array(actual[inside].astype(np.int32)),
        "predicted": pa.array(predicted[inside].astype(np.int32)),
        "count": pa.array(count[inside]),
    }
    for name in ("model", "output", "class_id"):
        values = pa.array(
            [getattr(part, name) for part in block.counts], CONFUSION.field(name).type
        )
        columns[name] = values.take(pa.array(which[inside]))
    columns |= _name_classes(
        [(heads[part.output], part.class_id) for part in block.counts],
        which[inside],
        actual[inside],
        predicted[inside],
    )
    return _build_table(CONFUSION, columns)


def _name_classes(
    problems: Sequence[tuple[Head, int | None]],
    which: np.ndarray,
    actual: np.ndarray,
    predicted: np.ndarray,
) -> dict[str, pa.Array]:
    """The names of classes in N rows of confusion counts, where they have names.

    Args:
      problems: outputs, and the label of a multi-label one.
      which: int64[N], the problem of each row.
      actual, predicted: int64[N], the classes.
    """
    named: list[str] = []
    offsets = []
    for head, label in problems:
        offsets.append(len(named))
        if label is not None:  # the label of a multi-label output is absent or present
            named += ["", ""]
        else:
            named += [head.class_name(i) for i in range(head.classes or 2)]
    start = np.asarray(offsets)[which]
    of_labels = ["" if label is None else head.class_name(label) for head, label in problems]
    return {
        "class": _take_names(of_labels, which),
        "actual_class": _take_names(named, start + actual),
        "predicted_class": _take_names(named, start + predicted),
    }


def _take_names(names: Sequence[str], index: np.ndarray) -> pa.Array:
    return pa.array([name or None for name in names], _NAME).take(pa.array(index))


def _identify(key: metric.Key, heads: Mapping[str, Head]) -> dict[str, str | int | bool | None]:
    class_id = key.class_id
    return {
        "output": key.output,
        "metric": key.metric,
        "class_id": class_id,
        "class": None if class_id is None else heads[key.output].class_name(class_id) or None,
        "k": key.k,
        "top_k": key.top_k,
        "aggregation": key.aggregation,
        "weighted": key.weighted,
    }


def _tabulate(
    schema: pa.Schema,
    names: _Names,
    rows: np.ndarray,
    keys: Sequence[Mapping[str, str | int | bool | None]],
    thresholds: Sequence[tuple[float, ...] | None],
    values: Mapping[str, Sequence[np.ndarray]],
    of_slices: Mapping[str, np.ndarray],
) -> pa.Table:
    """A row for each slice of `rows`, result and threshold, in this order.

    Args:
      schema: the schema of the table.
      names: the names of the block's slices.
      rows: int64, the slices to tabulate.
      keys: for each result, the columns that identify it.
      thresholds: for each result, its thresholds, if any.
      values: by column, for each result an array over all of the block's slices, [S] or [S, T].
      of_slices: by column, a number for each of the block's slices.
    """
    if not keys:
        return schema.empty_table()
    widths = [len(at or (None,)) for at in thresholds]
    which = pa.array(np.tile(np.repeat(np.arange(len(keys)), widths), len(rows)))
    row = np.repeat(rows, sum(widths))
    at = np.concatenate([at or (np.nan,) for at in thresholds])
    columns = {
        **names.columns(row),
        "threshold": pa.array(np.tile(at, len(rows)), from_pandas=True),  # NaN: none
    }
    for name, results in values.items():
        by_slice = [result[rows].reshape(len(rows), -1) for result in results]
        flat = np.concatenate(by_slice, axis=1).reshape(-1)
        kind = schema.field(name).type
        if pa.types.is_integer(kind):
            columns[name] = pa.array(flat, from_pandas=True).cast(kind)  # NaN: none
        else:
            columns[name] = pa.array(flat, kind)
    for name in keys[0]:
        column = pa.array([key[name] for key in keys], schema.field(name).type)
        columns[name] = column.take(which)
    for name, numbers in of_slices.items():
        columns[name] = pa.array(numbers[row]).cast(schema.field(name).type)
    return _build_table(schema, columns)


def _build_table(schema: pa.Schema, columns: Mapping[str, pa.Array]) -> pa.Table:
    """The table of a schema; missing columns are null."""
    size = len(columns["slice"])
    arrays = [
        columns[field.name] if field.name in columns else pa.nulls(size, field.type)
        for field in schema
    ]
    return pa.table(arrays, schema=schema)
