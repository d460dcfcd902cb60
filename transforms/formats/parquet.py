"""Parquet files; every row group is a shard.

Columns have the types of the file's schema (scalars, lists, fixed-size lists); dictionary-encoded
ones are decoded to plain values. Of structs the fields are columns, `image.bytes` for example.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from evalbeam.transforms import batch, errors
from evalbeam.transforms.formats import files, rows

SUFFIXES = (".parquet", ".pq")


def pieces(path: str, size_bytes: int) -> list[tuple[int | None, int]]:
    """Each row group, with its part of the file's size.

    A file whose footer cannot be read is one piece, so that its damage is counted by `read`.
    """
    try:
        with _open(path) as file:
            metadata = file.metadata
    except _DamageError:
        return [(None, size_bytes)]
    sizes = [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]
    total = max(sum(sizes), 1)
    return [(i, size_bytes * size // total) for i, size in enumerate(sizes)]


def columns(path: str) -> tuple[str, ...] | None:
    """The schema's columns. Raises ConfigError for a file that cannot be read."""
    try:
        with _open(path) as file:
            return _names(file)
    except _DamageError as error:
        raise errors.ConfigError(f"{path}: {error}") from error


def first_columns(path: str) -> tuple[str, ...]:
    """The declared ones."""
    return columns(path) or ()


def read(
    shard: batch.Shard, projection: batch.Projection, batch_size: int
) -> Iterator[batch.Batch | batch.DeadLetter]:
    """The shard's row group in batches, or all of the file if its `piece` is None.

    Damage costs the row group from the batch where it shows: one dead letter, at the first of the
    lost rows; at -1 if the file has no readable footer. `projection.serialized` keeps nothing,
    since there is no tf.Example.
    """
    return rows.rebatch(_read(shard, projection.columns, batch_size), batch_size)


def _read(
    shard: batch.Shard, names: tuple[str, ...], batch_size: int
) -> Iterator[batch.Batch | batch.DeadLetter]:
    try:
        with _open(shard.path) as file:
            every = range(file.metadata.num_row_groups)
            for group in every if shard.piece is None else [shard.piece]:
                yield from _read_group(shard, file, group, names, batch_size)
    except _DamageError as error:
        yield rows.dead_letter(shard, -1, f"the file cannot be read: {error}", None)


def _read_group(
    shard: batch.Shard,
    file: pyarrow.parquet.ParquetFile,
    group: int,
    names: tuple[str, ...],
    batch_size: int,
) -> Iterator[batch.Batch | batch.DeadLetter]:
    position = start = sum(file.metadata.row_group(i).num_rows for i in range(group))
    known = _names(file)
    present = [name for name in names if name in known]
    if several := [name for name in present if known.count(name) > 1]:
        raise errors.ConfigError(
            f"{shard.path}: several columns are named {several[0]!r}: rename one"
        )
    parts = file.iter_batches(batch_size, row_groups=[group], columns=present, use_threads=False)
    try:
        while (part := _next(parts)) is not None:
            end = position + part.num_rows
            yield batch.Batch(shard, np.arange(position, end), _plain(part))
            position = end
    except _DamageError as error:
        reason = f"the rest of row group {group} cannot be read: {error}"
        lost = file.metadata.row_group(group).num_rows - (position - start)
        yield rows.dead_letter(shard, position, reason, lost)


class _DamageError(Exception):
    """The file's content is damaged."""


@contextlib.contextmanager
def _damage() -> Iterator[None]:
    """Tells damage, which stays, from a failed request to a remote store, which may be retried."""
    try:
        yield
    except pa.ArrowException as error:
        raise _DamageError(str(error)) from error
    except OSError as error:
        # Arrow's own have no number; those of Python's files and of filesystems pass through it.
        if type(error) is OSError and error.errno is None:
            raise _DamageError(str(error)) from error
        raise


@contextlib.contextmanager
def _open(path: str) -> Iterator[pyarrow.parquet.ParquetFile]:
    # A local one as Arrow's own: its threads, which read ahead, would need Python for any other,
    # and abort a process that is about to exit.
    with files.open_raw(path) if files.is_remote(path) else pa.OSFile(path) as raw:
        with _damage():
            file = pyarrow.parquet.ParquetFile(raw, page_checksum_verification=True)
        yield file


def _next(parts: Iterator[pa.RecordBatch]) -> pa.RecordBatch | None:
    with _damage():
        return next(parts, None)


def _names(file: pyarrow.parquet.ParquetFile) -> tuple[str, ...]:
    return tuple(name for top in file.schema_arrow for name in _paths(top.name, top.type))


def _paths(name: str, kind: pa.DataType) -> Iterator[str]:
    """The names that `_fields` gives to a column of this type."""
    if not pa.types.is_struct(kind):
        yield name
        return
    for field in kind:
        yield from _paths(f"{name}.{field.name}", field.type)


def _plain(part: pa.RecordBatch) -> pa.RecordBatch:
    """Without dictionaries and structs."""
    names, columns = [], []
    for top, values in zip(part.schema.names, part.columns, strict=True):
        for name, column in _fields(top, values):
            decode = pa.types.is_dictionary(column.type)
            names.append(name)
            columns.append(column.dictionary_decode() if decode else column)
    return pa.RecordBatch.from_arrays(columns, names)


def _fields(name: str, column: pa.Array) -> Iterator[tuple[str, pa.Array]]:
    """A struct's columns, at any depth, null where the struct is; any other column as it is."""
    if not pa.types.is_struct(column.type):
        yield name, column
        return
    for field, values in zip(column.type, column.flatten(), strict=True):
        yield from _fields(f"{name}.{field.name}", values)
