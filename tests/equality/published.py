"""Compares two published runs of a job: tables and TFMA's files to the bit, and findings."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import json
import math
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from google.protobuf import wrappers_pb2

TABLES = ("metrics", "confusion", "comparisons")
# The columns that identify a table's rows; each table has some of them.
KEYS = (
    "split", "slice", "model", "baseline", "candidate", "output", "metric", "class_id", "k",
    "top_k", "aggregation", "weighted", "threshold", "actual", "predicted",
)  # fmt: skip
# The parts of a finding that each run measures, and those that are text.
MEASURED = ("speed_ratio", "single_speed_ratio")
WORDING = ("rule", "explanation")
MANIFEST = ("baseline", "renamed_metrics", "slices")
MANIFEST_DATA = ("read", "scored", "dead_lettered", "fingerprint")

_SHOWN = 3  # differences of each kind
_NEEDED = wrappers_pb2.DESCRIPTOR  # TFMA's protos depend on this file; importing it registers it.


@dataclass
class Comparison:
    """What was compared, and how it differs.

    Attributes:
      rows: the number of rows in the tables of the first run.
      records: the number of records in TFMA's files of the first run.
      differences: sentences; none if the runs are equal.
      notes: sentences on what may differ: added columns, different wording.
    """

    rows: int = 0
    records: int = 0
    differences: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add_first(self, what: str, differences: Sequence[str]) -> None:
        """Adds the first differences, and the number of the others."""
        self.differences += [f"{what}: {text}" for text in differences[:_SHOWN]]
        if len(differences) > _SHOWN:
            self.differences.append(f"{what}: ... and {len(differences) - _SHOWN:,} more")


def compare(before: Path, after: Path, any_reason: bool = False) -> Comparison:
    """Compares the folders of two runs.

    Args:
      before: the reference run.
      after: the run that must equal it; it may have more columns.
      any_reason: whether the reasons of dead letters may be worded differently.
    """
    comparison = Comparison()
    for name in TABLES:
        tables = [_read_table(folder, name) for folder in (before, after)]
        if tables[0] is None or tables[1] is None:
            comparison.differences.append(f"{name}: missing in one run")
        else:
            _compare_tables(name, tables[0], tables[1], comparison)
    _compare_tfma(before / "tfma", after / "tfma", comparison)
    _compare_findings(before, after, comparison)
    manifests = [_select_manifest(run / "manifest.json") for run in (before, after)]
    comparison.add_first("manifest.json", list(compare_json(manifests[0], manifests[1])))
    _compare_dead_letters(before, after, any_reason, comparison)
    return comparison


# --- tables --------------------------------------------------------------------------------------


def _read_table(run: Path, name: str) -> pa.Table | None:
    """Reads a table, a file or a folder of parts; dictionaries and large strings as text."""
    path = next((p for p in (run / f"{name}.parquet", run / name) if p.exists()), None)
    if path is None:
        return None
    table = pq.read_table(path, partitioning=None)
    return table.cast(
        pa.schema([pa.field(column.name, _to_plain(column.type)) for column in table.schema])
    )


def _to_plain(kind: pa.DataType) -> pa.DataType:
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.string() if pa.types.is_large_string(plain) else plain


def _compare_tables(name: str, before: pa.Table, after: pa.Table, comparison: Comparison) -> None:
    comparison.rows += len(before)
    removed = [column for column in before.column_names if column not in after.column_names]
    if removed:
        comparison.differences.append(f"{name}: columns are missing: {', '.join(removed)}")
    added = [column for column in after.column_names if column not in before.column_names]
    if added:
        comparison.notes.append(f"{name}: added columns: {', '.join(added)}")
    shared = [column for column in before.column_names if column not in removed]
    for column in shared:
        kinds = before.schema.field(column).type, after.schema.field(column).type
        if kinds[0] != kinds[1]:
            comparison.differences.append(f"{name}.{column}: is {kinds[1]}, and was {kinds[0]}")
    codes = {column: _encode(before[column], after[column]) for column in shared}
    rows = _match(codes, len(before))
    keys = [column for column in shared if column in KEYS]
    if rows.repeated:
        comparison.notes.append(f"{name}: {rows.repeated:,} rows have the keys of another row")
    # Only the differences shown are formatted, as there may be millions.
    for side, table, unmatched in (("before", before, rows.first), ("after", after, rows.second)):
        texts = [_describe_row(table, keys, row) for row in unmatched[:_SHOWN].tolist()]
        comparison.add_first(
            f"{name}: row only {side}", texts + [""] * (len(unmatched) - len(texts))
        )
    for column in shared:
        differing = np.flatnonzero(
            codes[column][rows.left] != codes[column][len(before) + rows.right]
        )
        pairs = zip(rows.left[differing].tolist(), rows.right[differing].tolist(), strict=True)
        texts = [
            f"{_describe_row(before, keys, left)}: "
            f"{before[column][left].as_py()!r} -> {after[column][right].as_py()!r}"
            for left, right in itertools.islice(pairs, _SHOWN)
        ]
        comparison.add_first(f"{name}.{column}", texts + [""] * (len(differing) - len(texts)))


def _encode(before: pa.ChunkedArray, after: pa.ChunkedArray) -> np.ndarray:
    """Encodes the values of both, before's first, as int64: equal for equal bits; 0 for null."""
    both = [column.combine_chunks() for column in (before, after)]
    nulls = np.concatenate([column.is_null().to_numpy(zero_copy_only=False) for column in both])
    if pa.types.is_floating(before.type) and pa.types.is_floating(after.type):
        # All NaNs are equal, whatever their bits.
        values = np.concatenate(
            [column.fill_null(0).to_numpy(zero_copy_only=False) for column in both]
        ).astype(np.float64)
        values = np.where(np.isnan(values), np.nan, values).view(np.int64)
    else:
        texts = [column.cast(pa.string()).fill_null("") for column in both]
        encoded = pa.chunked_array(texts).combine_chunks().dictionary_encode()
        values = encoded.indices.to_numpy(zero_copy_only=False)
    _, codes = np.unique(values, return_inverse=True)
    return np.where(nulls, 0, codes + 1).astype(np.int64)


@dataclass(frozen=True)
class _Matches:
    """Rows of two tables that have the same keys.

    Attributes:
      left, right: the matching rows of the first and the second table.
      first, second: the rows that only one of the tables has.
      repeated: the number of rows of the first table with the keys of an earlier row.
    """

    left: np.ndarray
    right: np.ndarray
    first: np.ndarray
    second: np.ndarray
    repeated: int


def _match(codes: dict[str, np.ndarray], count: int) -> _Matches:
    """Matches the first `count` rows with the others by keys and, if those repeat, by values."""
    size = len(next(iter(codes.values())))
    keys = np.zeros(size, np.int64)
    for column, code in codes.items():
        if column in KEYS:
            _, keys = np.unique(keys * (code.max(initial=0) + 1) + code, return_inverse=True)
    values = [code for column, code in codes.items() if column not in KEYS]
    second = np.arange(size) >= count
    order = np.lexsort([*values, keys, second])
    places = keys[order] * 2 + second[order]
    _, starts, lengths = np.unique(places, return_index=True, return_counts=True)
    occurrence = np.empty(size, np.int64)
    begins = np.zeros(size, np.int64)
    for start, length in zip(starts[lengths > 1], lengths[lengths > 1], strict=True):
        begins[start : start + length] = np.arange(length)
    occurrence[order] = begins
    identity = keys * (occurrence.max(initial=0) + 1) + occurrence
    _, left, right = np.intersect1d(
        identity[:count], identity[count:], assume_unique=True, return_indices=True
    )
    return _Matches(
        left,
        right,
        np.setdiff1d(np.arange(count), left),
        np.setdiff1d(np.arange(size - count), right),
        int((occurrence[:count] > 0).sum()),
    )


def _describe_row(table: pa.Table, keys: Sequence[str], row: int) -> str:
    values = {key: table[key][row].as_py() for key in keys}
    return " ".join(f"{key}={value}" for key, value in values.items() if value not in (None, ""))


# --- TFMA's files --------------------------------------------------------------------------------


def _compare_tfma(before: Path, after: Path, comparison: Comparison) -> None:
    kinds: dict[str, Callable[[bytes], Any]] = {
        "metrics": _load_protos().MetricsForSlice.FromString,
        "plots": _load_protos().PlotsForSlice.FromString,
    }
    for kind, parse in kinds.items():
        sides = [_read_messages(folder, kind, parse) for folder in (before, after)]
        comparison.records += sum(map(len, sides[0].values()))
        differences: list[str] = []
        for key in sorted(sides[0].keys() | sides[1].keys()):
            old, new = (side.get(key, []) for side in sides)
            if len(old) != len(new):
                where = _name_slice((old or new)[0])
                differences.append(f"{where}: {len(old)} records -> {len(new)}")
                continue
            for left, right in zip(old, new, strict=True):
                differences += _compare_messages(left, right)
        comparison.add_first(f"tfma/{kind}", differences)
    configs = [json.loads((folder / "eval_config.json").read_text()) for folder in (before, after)]
    comparison.add_first("tfma/eval_config.json", list(compare_json(configs[0], configs[1])))


@functools.cache
def _load_protos() -> Any:
    """TFMA's protos of results, without importing TFMA, which takes 16 s."""
    package = importlib.util.find_spec("tensorflow_model_analysis")
    assert package is not None
    assert package.submodule_search_locations is not None
    path = Path(package.submodule_search_locations[0]) / "proto/metrics_for_slice_pb2.py"
    config = _load_module(path.with_name("config_pb2.py"))
    assert config is not None  # imported as results depend on it
    return _load_module(path)


def _load_module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"_equality_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _read_messages(
    folder: Path, kind: str, parse: Callable[[bytes], Any]
) -> dict[bytes, list[Any]]:
    """The messages of all shards by serialised slice key, sorted."""
    messages: dict[bytes, list[Any]] = {}
    for path in sorted(folder.glob(f"{kind}-*.tfrecord")):
        for record in _read_records(path):
            message = parse(record)
            key = b"|".join(map(_serialize, (message.slice_key, message.cross_slice_key)))
            messages.setdefault(key, []).append(message)
    return {key: sorted(several, key=_serialize) for key, several in messages.items()}


def _read_records(path: Path) -> Iterator[bytes]:
    """The records of a TFRecord file: length, checksum, content, checksum."""
    content, at = path.read_bytes(), 0
    while at < len(content):
        (size,) = struct.unpack_from("<Q", content, at)
        yield content[at + 12 : at + 12 + size]
        at += 12 + size + 4


def _serialize(message: Any) -> bytes:
    serialized: bytes = message.SerializeToString(deterministic=True)
    return serialized


def _name_slice(message: Any) -> str:
    named = []
    for single in message.slice_key.single_slice_keys:
        value = getattr(single, single.WhichOneof("kind") or "column")
        named.append(f"{single.column}={value.decode() if isinstance(value, bytes) else value}")
    return ";".join(named) or "overall"


def _compare_messages(before: Any, after: Any) -> Iterator[str]:
    """The differences of two messages of a slice; the order of entries does not matter."""
    if _serialize(before) == _serialize(after):
        return
    where = _name_slice(before)
    entries = [field.name for field, _ in before.ListFields() if field.name.endswith("_values")]
    entries += [field.name for field, _ in after.ListFields() if field.name.endswith("_values")]
    for name in dict.fromkeys(entries):
        sides = [_group_by_key(getattr(message, name)) for message in (before, after)]
        for key in sorted(sides[0].keys() | sides[1].keys()):
            old, new = (side.get(key, []) for side in sides)
            entry = f"{where}, {_join_lines((old or new)[0].key)}"
            if len(old) != len(new):
                yield f"{entry}: {len(old)} values -> {len(new)}"
            for left, right in zip(old, new, strict=False):
                yield from _compare_fields(left.value, right.value, entry)
    rest = [type(before).FromString(message.SerializeToString()) for message in (before, after)]
    for message in rest:
        for name in entries:
            message.ClearField(name)
    yield from _compare_fields(rest[0], rest[1], where)


def _group_by_key(entries: Any) -> dict[bytes, list[Any]]:
    groups: dict[bytes, list[Any]] = {}
    for entry in entries:
        groups.setdefault(_serialize(entry.key), []).append(entry)
    return {key: sorted(several, key=_serialize) for key, several in groups.items()}


def _join_lines(message: Any) -> str:
    return " ".join(str(message).split()) or "(no name)"


def _compare_fields(before: Any, after: Any, where: str) -> Iterator[str]:
    """The differences of two messages of the same type, by field."""
    sides = [[field.name for field, _ in side.ListFields()] for side in (before, after)]
    for name in dict.fromkeys([*sides[0], *sides[1]]):
        path = f"{where}.{name}"
        old, new = getattr(before, name), getattr(after, name)
        absent = name not in sides[0] or name not in sides[1]
        if absent and not isinstance(old, str | bytes | int | float):
            yield f"{path}: only {'before' if name in sides[0] else 'after'}"
            continue
        if hasattr(old, "DESCRIPTOR"):
            yield from _compare_fields(old, new, path)
        elif hasattr(old, "keys"):
            for key in sorted({*old, *new}):
                if key not in old or key not in new:
                    yield f"{path}[{key}]: only {'before' if key in old else 'after'}"
                elif hasattr(old[key], "DESCRIPTOR"):
                    yield from _compare_fields(old[key], new[key], f"{path}[{key}]")
                elif not _equals(old[key], new[key]):
                    yield f"{path}[{key}]: {old[key]!r} -> {new[key]!r}"
        elif isinstance(old, str | bytes | int | float):
            if not _equals(old, new):
                yield f"{path}: {old!r} -> {new!r}"
        elif len(old) != len(new):
            yield f"{path}: {len(old)} elements -> {len(new)}"
        else:
            for i, (left, right) in enumerate(zip(old, new, strict=True)):
                if hasattr(left, "DESCRIPTOR"):
                    yield from _compare_fields(left, right, f"{path}[{i}]")
                elif not _equals(left, right):
                    yield f"{path}[{i}]: {left!r} -> {right!r}"


def _equals(before: Any, after: Any) -> bool:
    """Whether new numbers or texts are equal; 0.0 and -0.0 are not, NaN and NaN are."""
    if isinstance(before, float) and isinstance(after, float):
        if math.isnan(before) or math.isnan(after):
            return math.isnan(before) and math.isnan(after)
        return struct.pack("<d", before) == struct.pack("<d", after)
    return type(before) is type(after) and bool(before == after)


# --- JSON ----------------------------------------------------------------------------------------


def compare_json(before: Any, after: Any, where: str = "") -> Iterator[str]:
    """The differences of two JSON values."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys([*before, *after]):
            if key not in before or key not in after:
                yield f"{where}.{key}: only {'before' if key in before else 'after'}"
            else:
                yield from compare_json(before[key], after[key], f"{where}.{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for i, (left, right) in enumerate(zip(before, after, strict=True)):
            yield from compare_json(left, right, f"{where}[{i}]")
    elif not _equals(before, after):
        yield f"{where}: {before!r} -> {after!r}"


def _compare_findings(before: Path, after: Path, comparison: Comparison) -> None:
    sides = []
    for run in (before, after):
        findings = json.loads((run / "findings.json").read_text())
        sides.append(
            {
                f"{finding['original']} to {finding['converted']}, {finding['output']}": finding
                for finding in findings
            }
        )
        for finding in findings:
            for name in MEASURED:
                # Values vary between runs; whether there is one does not.
                if name in finding["evidence"]:
                    finding["evidence"][name] = finding["evidence"][name] is not None
    worded = [{key: _pop(finding, WORDING) for key, finding in side.items()} for side in sides]
    comparison.add_first("findings.json", list(compare_json(sides[0], sides[1])))
    for key in worded[0].keys() & worded[1].keys():
        for text in compare_json(worded[0][key], worded[1][key]):
            comparison.notes.append(f"findings.json, wording of {key}: {text}")


def _pop(entry: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: entry.pop(name) for name in names if name in entry}


def _select_manifest(path: Path) -> dict[str, Any]:
    """A manifest's data, slices and names, without times and versions."""
    manifest = json.loads(path.read_text())
    selected = {name: manifest[name] for name in MANIFEST if name in manifest}
    data = {
        split: {name: entry[name] for name in MANIFEST_DATA if name in entry}
        for split, entry in manifest["data"].items()
    }
    return {**selected, "data": data}


def _compare_dead_letters(
    before: Path, after: Path, any_reason: bool, comparison: Comparison
) -> None:
    """Compares rows as a multiset."""
    sides = []
    for run in (before, after):
        lines = (run / "dead_letter" / "rows.jsonl").read_text().splitlines()
        sides.append([json.loads(line) for line in lines])
    rows = [sorted(json.dumps(row, sort_keys=True) for row in side) for side in sides]
    if rows[0] == rows[1]:
        return
    reasons = [{_locate(row): row.get("reason") for row in side} for side in sides]
    if any_reason and sorted(map(_locate, sides[0])) == sorted(map(_locate, sides[1])):
        comparison.notes += [
            f"dead_letter, wording of {place}: {reason!r} -> {reasons[1][place]!r}"
            for place, reason in reasons[0].items()
            if reason != reasons[1][place]
        ][:_SHOWN]
        return
    for side, unmatched in (
        ("before", [row for row in rows[0] if row not in rows[1]]),
        ("after", [row for row in rows[1] if row not in rows[0]]),
    ):
        comparison.add_first(f"dead_letter: row only {side}", unmatched)


def _locate(row: dict[str, Any]) -> str:
    return json.dumps({name: row[name] for name in row if name != "reason"}, sort_keys=True)
