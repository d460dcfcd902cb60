"""JSON lines, plain or gzip: one object per line.

Columns are int64, double, bool, string, or lists of these; an absent key is null.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.json

from evalbeam.transforms import batch
from evalbeam.transforms.formats import files, lines, rows

SUFFIXES = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")


def pieces(path: str, size_bytes: int) -> list[tuple[int | None, int]]:
    """One piece: lines are counted from the start of the file."""
    return [(None, size_bytes)]


def columns(path: str) -> tuple[str, ...] | None:
    """None: each line may have its own keys."""
    return None


def first_columns(path: str) -> tuple[str, ...]:
    """The keys of the first line that is an object."""
    for run in _drop_blank(lines.runs(files.blocks(path))):
        for line in [] if isinstance(run, files.Damage) else run:
            with contextlib.suppress(ValueError):
                return tuple(dict(json.loads(line)))
    return ()


def read(
    shard: batch.Shard, projection: batch.Projection, batch_size: int
) -> Iterator[batch.Batch | batch.DeadLetter]:
    """The shard's lines in batches, and a dead letter for each malformed line.

    Positions count the lines that are not blank. `projection.serialized` has no effect, as there
    is no tf.Example.
    """
    runs = _drop_blank(lines.runs(files.blocks(shard.path)))
    return rows.read(shard, runs, _JsonDecoder(projection.columns), batch_size)


def _drop_blank(
    runs: Iterator[list[bytes] | files.Damage],
) -> Iterator[list[bytes] | files.Damage]:
    for run in runs:
        yield run if isinstance(run, files.Damage) else list(filter(bytes.strip, run))


class _JsonDecoder(rows.TextDecoder):
    """Parses all keys, to infer types, until the type of every column is known."""

    def parse(self, run: Sequence[bytes], types: Mapping[str, pa.DataType]) -> pa.RecordBatch:
        try:
            table = self._read(b"\n".join(run), types)
        except pa.ArrowInvalid as error:
            raise ValueError(str(error).removesuffix(" in row 0")) from error
        if table.num_rows != len(run):
            raise ValueError(
                f"parsed {table.num_rows} JSON objects, expected {len(run)}, one per line"
            )
        return _project(table, self.columns)

    def _read(self, text: bytes, types: Mapping[str, pa.DataType]) -> pa.Table:
        complete = all(name in types for name in self.columns)
        return pyarrow.json.read_json(
            io.BytesIO(text),
            pyarrow.json.ReadOptions(use_threads=False, block_size=len(text) + 1),
            pyarrow.json.ParseOptions(
                explicit_schema=pa.schema(list(types.items())),
                unexpected_field_behavior="ignore" if complete else "infer",
            ),
        )


def _project(table: pa.Table, columns: Sequence[str]) -> pa.RecordBatch:
    names = [name for name in columns if name in table.schema.names]
    for name in names:
        try:
            table.column(name).validate(full=True)  # The parser lets invalid UTF-8 through.
        except pa.ArrowInvalid as error:
            raise ValueError(f"column {name!r} holds text that is not UTF-8") from error
    return rows.record_batch(table.select(names))
