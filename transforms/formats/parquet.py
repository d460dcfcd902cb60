"""Parquet files; each row group is a shard.

Columns have the types of the file's schema (scalars, lists, fixed-size lists); dictionary-encoded
columns are decoded to plain values. The fields of a struct are columns, such as `image.bytes`.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
from collections.abc import Collection, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from evalbeam.transforms import batch, errors
from evalbeam.transforms.formats import files, rows

SUFFIXES = (".parquet", ".parq", ".pq")

# The end of a file: the length of the footer before it, and the magic number.
_TAIL = struct.Struct("<I4s")
# In the footer, the start of the path of a column: the third field, a list of up to 14 texts.
_PATH_IN_SCHEMA = rb"\x19[\x18\x28\x38\x48\x58\x68\x78\x88\x98\xa8\xb8\xc8\xd8\xe8]"


def starts(block: bytes) -> bool:
    """Whether the block has the format's magic number."""
    return block.startswith(b"PAR1")


def pieces(path: str, size_bytes: int) -> list[tuple[int | None, int]]:
    """Each row group, with its share of the file's size.

    A file without a readable footer, or with one that contradicts itself, is one piece, so that
    `read` counts its damage.
    """
    try:
        with _open(path) as file:
            metadata = file.metadata
        _check_footer(metadata)
    except _DamageError:
        return [(None, size_bytes)]
    sizes = [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]
    total = max(sum(sizes), 1)
    return [(i, size_bytes * size // total) for i, size in enumerate(sizes)]


def columns(shard: batch.Shard) -> tuple[str, ...] | None:
    """The schema's columns. Raises ConfigError for a file that cannot be read."""
    try:
        with _open(shard.path) as file:
            return _names(file)
    except _DamageError as error:
        raise errors.ConfigError(f"{shard.path}: {error}") from error


def first_columns(shard: batch.Shard) -> tuple[str, ...]:
    """The columns in the schema."""
    return columns(shard) or ()


def read(
    shard: batch.Shard, projection: batch.Projection, batch_size: int
) -> Iterator[batch.Batch | batch.DeadLetter | batch.OpenEnd]:
    """The shard's row group in batches, or the whole file if its `piece` is None.

    Damage loses the rest of its row group, from the first batch that cannot be read: one dead
    letter, at the first lost row; at -1 if the file has no readable footer. If the footer
    contradicts itself or the pages, the number of lost rows is unknown.
    `projection.serialized` has no effect, as there is no tf.Example.
    """
    return rows.rebatch(_read(shard, projection.columns, batch_size), batch_size)


def _read(
    shard: batch.Shard, names: tuple[str, ...], batch_size: int
) -> Iterator[batch.Batch | batch.DeadLetter]:
    try:
        with _open(shard.path) as file:
            if shard.piece is None:
                _check_footer(file.metadata)
            groups = range(file.metadata.num_row_groups) if shard.piece is None else [shard.piece]
            for group in groups:
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
    file_names = _names(file)
    present = [name for name in names if name in file_names]
    if duplicates := [name for name in present if file_names.count(name) > 1]:
        raise errors.ConfigError(
            f"{shard.path}: several columns are named {duplicates[0]!r}: rename them"
        )
    expected = file.metadata.row_group(group).num_rows
    try:
        _check_absent(shard.path, _list_absent(names, file_names))
        records = file.iter_batches(
            batch_size, row_groups=[group], columns=present, use_threads=False
        )
        while (record := _next(records)) is not None:
            end = position + record.num_rows
            yield batch.Batch(shard, np.arange(position, end), _flatten(record))
            position = end
        if position - start != expected:
            raise _ContradictionError(
                f"its footer counts {expected:,} rows, but its pages have {position - start:,}"
            )
        _check_values(file.metadata, group, present)
    except _DamageError as error:
        reason = f"the rest of row group {group} cannot be read: {error}"
        known = not isinstance(error, _ContradictionError)
        lost = expected - (position - start) if known else None
        yield rows.dead_letter(shard, position, reason, lost)


class _DamageError(Exception):
    """The file's content is damaged."""


class _ContradictionError(_DamageError):
    """Two places of the file disagree, so neither is to be trusted."""


@contextlib.contextmanager
def _detect_damage() -> Iterator[None]:
    """Raises _DamageError for damage, but not for a failed request, which can be retried."""
    try:
        yield
    except (pa.ArrowException, UnicodeDecodeError) as error:  # the latter of a column's name
        raise _DamageError(str(error)) from error
    except OSError as error:
        # Arrow's own errors have no errno, unlike those of Python's files and of filesystems.
        if type(error) is OSError and error.errno is None:
            raise _DamageError(str(error)) from error
        raise


@contextlib.contextmanager
def _open(path: str) -> Iterator[pyarrow.parquet.ParquetFile]:
    # Local files as Arrow's own file objects: Arrow's read-ahead threads would need the interpreter
    # for any other, and abort a process that is about to exit.
    with files.open_raw(path) if files.is_remote(path) else pa.OSFile(path) as raw:
        with _detect_damage():
            file = pyarrow.parquet.ParquetFile(raw, page_checksum_verification=True)
            _names(file)
        yield file


def _check_footer(metadata: pyarrow.parquet.FileMetaData) -> None:
    """Raises _ContradictionError if the file and its row groups differ in their rows."""
    counts = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    if min(counts, default=0) < 0 or sum(counts) != metadata.num_rows:
        raise _ContradictionError(
            f"its footer counts {metadata.num_rows:,} rows, but {sum(counts):,} in its row groups"
        )


def _check_values(
    metadata: pyarrow.parquet.FileMetaData, group: int, names: Collection[str]
) -> None:
    """Raises _ContradictionError if columns that were read have other values than the group rows.

    Not before they were read: pyarrow ends the process at damage in what the footer says of a
    column, which Arrow reports while reading.
    """
    row_group = metadata.row_group(group)
    prefixes = tuple(f"{name}." for name in names)
    for i in range(row_group.num_columns):
        declared = metadata.schema.column(i)
        if not f"{declared.path}.".startswith(prefixes):  # as a list's items: "n.list.element"
            continue
        column = row_group.column(i)
        # Of lists the footer counts items, and one for an empty list.
        most = column.num_values if declared.max_repetition_level else row_group.num_rows
        if not row_group.num_rows <= column.num_values <= most:
            raise _ContradictionError(
                f"its footer counts {row_group.num_rows:,} rows, but {column.num_values:,} values "
                f"of column {declared.path!r}"
            )


def _list_absent(names: Collection[str], file_names: Collection[str]) -> list[str]:
    """The names that are neither columns of the file nor structs."""
    others = set(names).difference(file_names)
    return [
        name
        for name in sorted(others)
        if not any(each.startswith(f"{name}.") for each in file_names)
    ]


def _check_absent(path: str, names: Collection[str]) -> None:
    """Raises _ContradictionError if columns that the schema lacks are in the footer's row groups.

    Looks at the bytes: only what Arrow has read is safe to ask pyarrow for.
    """
    if not names:
        return
    with files.open_raw(path) as raw:
        raw.seek(-_TAIL.size, os.SEEK_END)
        size, _ = _TAIL.unpack(raw.read(_TAIL.size))
        raw.seek(-_TAIL.size - size, os.SEEK_END)
        footer = raw.read(size)
    for name in names:
        spellings = b"|".join(
            b"".join(re.escape(_encode(part)) for part in parts)
            for parts in ([name], name.split("."))
        )
        if re.search(_PATH_IN_SCHEMA + b"(?:" + spellings + b")", footer):
            raise _ContradictionError(
                f"its footer has a column {name!r} in its row groups, but not in its schema"
            )


def _encode(text: str) -> bytes:
    """The text in Thrift's compact protocol, if it is shorter than 128 bytes."""
    return bytes([len(text.encode()) % 128]) + text.encode()


def _next(records: Iterator[pa.RecordBatch]) -> pa.RecordBatch | None:
    with _detect_damage():
        return next(records, None)


def _names(file: pyarrow.parquet.ParquetFile) -> tuple[str, ...]:
    return tuple(name for top in file.schema_arrow for name in _paths(top.name, top.type))


def _paths(name: str, kind: pa.DataType) -> Iterator[str]:
    """The names that `_fields` gives the columns of this type."""
    if not pa.types.is_struct(kind):
        yield name
        return
    for field in kind:
        yield from _paths(f"{name}.{field.name}", field.type)


def _flatten(record: pa.RecordBatch) -> pa.RecordBatch:
    """The same rows without dictionaries, views and structs.

    Raises:
      _DamageError: values are invalid.
    """
    names, columns = [], []
    with _detect_damage():
        for top, values in zip(record.schema.names, record.columns, strict=True):
            for name, column in _fields(top, values):
                names.append(name)
                columns.append(column.cast(_decoded(column.type)))
        flat = pa.RecordBatch.from_arrays(columns, names)
        flat.validate(full=True)  # Reading lets text through that is not UTF-8.
    return flat


def _decoded(kind: pa.DataType) -> pa.DataType:
    """The type of the same values without dictionaries and views."""
    if pa.types.is_dictionary(kind):
        return _decoded(kind.value_type)
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        return pa.large_list(_decoded(kind.value_type))
    if pa.types.is_list(kind):
        return pa.list_(_decoded(kind.value_type))
    return kind


def _fields(name: str, column: pa.Array) -> Iterator[tuple[str, pa.Array]]:
    """A struct's fields, at any depth, null where the struct is; any other column unchanged."""
    if not pa.types.is_struct(column.type):
        yield name, column
        return
    for field, values in zip(column.type, column.flatten(), strict=True):
        yield from _fields(f"{name}.{field.name}", values)
