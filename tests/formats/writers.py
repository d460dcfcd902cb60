"""Writes tables in every format, and files with known damage."""

from __future__ import annotations

import csv
import gzip
import io
import json
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet
from tfx_bsl.coders import example_coder

from evalbeam.transforms import batch, formats

SUFFIXES = {"tfrecord": ".tfrecord", "parquet": ".parquet", "csv": ".csv", "jsonl": ".jsonl"}


def noise(rows: int, seed: int) -> pa.Table:
    """Random numbers, which fill many of the blocks that a reader reads ahead."""
    rng = np.random.default_rng(seed)
    return pa.table({"n": rng.random(rows), "x": rng.random((rows, 8)).tolist()})


def frame(data: bytes) -> bytes:
    """A TFRecord."""
    return frame_length(len(data)) + data + _masked_crc(data)


def frame_length(length: int) -> bytes:
    """The start of a TFRecord of this length."""
    packed = struct.pack("<Q", length)
    return packed + _masked_crc(packed)


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def examples(table: pa.Table) -> list[bytes]:
    """A serialised tf.Example for each row; null is an absent feature."""
    encoder = example_coder.RecordBatchToExamplesEncoder()
    encoded = []
    for row in table.to_pylist():
        present = {
            name: pa.array([value if isinstance(value, list) else [value]])
            for name, value in row.items()
            if value is not None
        }
        single = {
            name: array.cast(pa.list_(pa.float32()))
            if array.type == pa.list_(pa.float64())
            else array.cast(pa.list_(pa.binary()))
            if array.type == pa.list_(pa.string())
            else array
            for name, array in present.items()
        }
        encoded += encoder.encode(pa.RecordBatch.from_pydict(single)) if single else [b""]
    return encoded


def content(table: pa.Table, format_name: str) -> bytes:
    """The table as a file's bytes."""
    if format_name == "tfrecord":
        return b"".join(map(frame, examples(table)))
    if format_name == "jsonl":
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist()]
        return "".join(lines).encode()
    if format_name == "csv":
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\r\n")
        writer.writerow(table.column_names)
        writer.writerows([list(row.values()) for row in table.to_pylist()])
        return text.getvalue().encode()
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer, row_group_size=7)
    return buffer.getvalue()


def write(
    folder: Path, format_name: str, data: pa.Table | bytes, name: str = "data", zipped: bool = False
) -> str:
    """The path of a new file with this table or these bytes."""
    data = data if isinstance(data, bytes) else content(data, format_name)
    path = folder / (name + SUFFIXES[format_name] + (".gz" if zipped else ""))
    path.write_bytes(gzip.compress(data) if zipped else data)
    return str(path)


def read(
    path: str,
    format_name: str,
    columns: Sequence[str],
    batch_size: int = 4,
    serialized: bool = False,
) -> tuple[list[batch.Batch], list[batch.DeadLetter]]:
    """All of a file's batches and dead letters."""
    source = formats.get(format_name)
    projection = batch.Projection(tuple(columns), serialized)
    items = [
        item
        for piece, _ in source.pieces(path, 1)
        for item in source.read(
            batch.Shard("eval", path, format_name, piece), projection, batch_size
        )
    ]
    return (
        [item for item in items if isinstance(item, batch.Batch)],
        [item for item in items if isinstance(item, batch.DeadLetter)],
    )


def values(batches: Iterable[batch.Batch], column: str) -> list[object]:
    """A column's values; lists of one as scalars, as tf.Example has no others."""
    found: list[object] = []
    for part in batches:
        if column in part.columns.schema.names:
            found += [_plain(value) for value in part.columns.column(column).to_pylist()]
        else:
            found += [None] * len(part)
    return found


def _plain(value: object) -> object:
    if isinstance(value, list):
        items = [_plain(item) for item in value]
        return items[0] if len(items) == 1 else items or None
    return value.decode() if isinstance(value, bytes) else value


def positions(batches: Iterable[batch.Batch]) -> list[int]:
    """The positions of all rows."""
    return [int(position) for part in batches for position in part.positions]
