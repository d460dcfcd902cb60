"""JSON lines, plain or compressed: one object per line.

Columns are int64, double, bool, string, or lists of these; an absent key is null. The fields of a
nested object are columns, such as `meta.segment`.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json

from evalbeam.transforms import batch, errors
from evalbeam.transforms.formats import files, lines, rows

SUFFIXES = (".jsonl", ".ndjson", ".json")

# The parser calls itself for each level, and overflows the stack at some thousands.
_MAX_DEPTH = 64
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
_ARRAY = re.compile(rb"\[\s*(\{.*)?", re.DOTALL)
# Between two objects of one line, which an array would separate by a comma.
_NEXT_OBJECT = re.compile(rb"\}[^,\[\]{}]*\{")
_BRACKET = re.compile(rb"[\[\]{}]")


def starts(block: bytes) -> bool:
    """Whether the block starts with an object, or an array, which is refused when read."""
    return block.removeprefix(codecs.BOM_UTF8).lstrip()[:1] in (b"{", b"[")


def pieces(path: str, size_bytes: int) -> list[tuple[int | None, int]]:
    """One piece: lines are counted from the start of the file."""
    return [(None, size_bytes)]


def columns(shard: batch.Shard) -> tuple[str, ...] | None:
    """None: each line may have its own keys."""
    return None


def first_columns(shard: batch.Shard) -> tuple[str, ...]:
    """The keys of the first line that is an object, those of nested ones by path."""
    for run in _lines(shard):
        for line in run if isinstance(run, list) else []:
            with contextlib.suppress(ValueError):
                return tuple(_keys(dict(json.loads(line))))
    return ()


def _keys(entry: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in entry.items():
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def read(
    shard: batch.Shard, projection: batch.Projection, batch_size: int
) -> Iterator[batch.Batch | batch.DeadLetter | batch.OpenEnd]:
    """The shard's lines in batches, and a dead letter for each malformed line.

    Positions count the lines that are not blank. `projection.serialized` has no effect, as there
    is no tf.Example.
    """
    return rows.read(shard, _lines(shard), _JsonDecoder(projection.columns), batch_size)


def _lines(shard: batch.Shard) -> Iterator[list[bytes] | files.Damage | batch.OpenEnd]:
    """The lines that are not blank, and a Damage for each that is nested too deeply.

    A line that is not an object is a run by itself: to the parser, lines are mere space, and
    several that open brackets could together be too deep.

    Raises:
      ConfigError: the file is an array.
    """
    is_first = True
    for run in lines.runs(files.blocks(shard.path)):
        if not isinstance(run, list):
            yield run
            continue
        kept = [stripped for line in run if (stripped := line.strip())]
        if is_first and kept:
            is_first = False
            kept[0] = kept[0].removeprefix(codecs.BOM_UTF8)
            _refuse_array(shard, kept[0])
        good = 0
        for bad in _list_suspects(kept):
            yield kept[good:bad]
            if _is_too_deep(kept[bad]):
                yield files.Damage(f"an object nested more than {_MAX_DEPTH} levels deep")
            else:
                yield [kept[bad]]
            good = bad + 1
        yield kept[good:]


def _refuse_array(shard: batch.Shard, line: bytes) -> None:
    if _ARRAY.fullmatch(line.strip()):
        raise errors.ConfigError(
            f"{shard.path} is a JSON array, but data in JSON has an object per line; "
            "`jq -c '.[]' array.json > rows.jsonl` converts it"
        )


def _list_suspects(kept: Sequence[bytes]) -> list[int]:
    """The lines that are not quickly seen to be objects, and not too deep."""
    text = b"\n".join(kept)
    all_objects = _is_object(text) and text.count(b"}\n{") == len(kept) - 1
    return [
        i
        for i, line in enumerate(kept)
        if line.count(b"[") + line.count(b"{") > _MAX_DEPTH or not (all_objects or _is_object(line))
    ]


def _is_object(line: bytes) -> bool:
    return line.startswith(b"{") and line.endswith(b"}")


def _is_too_deep(line: bytes) -> bool:
    marks = b"".join(_BRACKET.findall(_STRING.sub(b"", line)))
    values = np.frombuffer(marks, np.uint8)
    opening = (values == ord("[")) | (values == ord("{"))
    return bool(np.where(opening, 1, -1).cumsum().max(initial=0) > _MAX_DEPTH)


class _JsonDecoder(rows.TextDecoder):
    """Parses all keys, to infer types, until the type of every column is known."""

    def __init__(self, columns: Sequence[str]) -> None:
        super().__init__(columns)
        # Columns that are fields of nested objects, rather than keys with dots in them.
        self.nested: set[str] = set()

    def parse(self, run: Sequence[bytes], types: Mapping[str, pa.DataType]) -> pa.RecordBatch:
        try:
            table = self._read(b"\n".join(run), types)
        except pa.ArrowInvalid as error:
            raise ValueError(str(error).removesuffix(" in row 0")) from error
        if table.num_rows != len(run):
            raise rows.MiscountError(
                f"parsed {table.num_rows} JSON objects, expected {len(run)}, one per line",
                table.num_rows,
            )
        return self._project(table)

    def count(self, damaged: bytes, error: ValueError) -> int | None:
        """Unknown, too, if another object seems to start in the line."""
        count = super().count(damaged, error)
        return None if count == 1 and _NEXT_OBJECT.search(damaged) else count

    def _read(self, text: bytes, types: Mapping[str, pa.DataType]) -> pa.Table:
        complete = all(name in types for name in self.columns)
        return pyarrow.json.read_json(
            io.BytesIO(text),
            pyarrow.json.ReadOptions(use_threads=False, block_size=len(text) + 1),
            pyarrow.json.ParseOptions(
                explicit_schema=self._schema(types),
                unexpected_field_behavior="ignore" if complete else "infer",
            ),
        )

    def _schema(self, types: Mapping[str, pa.DataType]) -> pa.Schema:
        """The schema of whole objects that have columns of these types."""
        tree: dict[str, Any] = {}
        for name, kind in types.items():
            *parents, last = name.split(".") if name in self.nested else [name]
            branch = tree
            for parent in parents:
                branch = branch.setdefault(parent, {})
            branch[last] = kind
        return pa.schema(_fields(tree))

    def _project(self, table: pa.Table) -> pa.RecordBatch:
        while structs := [
            field.name
            for field in table.schema
            if pa.types.is_struct(field.type)
            and any(name.startswith(f"{field.name}.") for name in self.columns)
        ]:
            before = set(table.schema.names)
            table = _unnest(table, structs)
            self.nested |= set(self.columns) & (set(table.schema.names) - before)
        names = [name for name in self.columns if name in table.schema.names]
        for name in names:
            try:
                table.column(name).validate(full=True)  # The parser lets invalid UTF-8 through.
            except pa.ArrowInvalid as error:
                raise ValueError(f"column {name!r} holds text that is not UTF-8") from error
        return rows.record_batch(table.select(names))


def _fields(tree: Mapping[str, Any]) -> list[pa.Field]:
    return [
        pa.field(name, pa.struct(_fields(kind)) if isinstance(kind, dict) else kind)
        for name, kind in tree.items()
    ]


def _unnest(table: pa.Table, structs: Sequence[str]) -> pa.Table:
    """The table with the fields of these columns instead of them."""
    others = table.drop_columns(list(structs))
    fields = table.select(list(structs)).flatten()
    for name, column in zip(fields.schema.names, fields.columns, strict=True):
        others = others.append_column(name, column)
    return others
