"""Parquet files; each row group is a shard.

Columns have the types of the file's schema (scalars, lists, fixed-size lists); dictionary-encoded
columns are decoded to plain values. The fields of a struct are columns, such as `image.bytes`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from evalbeam.transforms import batch, errors
from evalbeam.transforms.formats import files, rows

SUFFIXES = (".parquet", ".parq", ".pq")


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
) -> Iterator[batch.Batch | batch.DeadLetter]:
    """The shard's row group in batches, or the whole file if its `piece` is None.

    Damage loses the rest of its row group, from the first batch that cannot be read: one dead
    letter, at the first lost row; at -1 if the file has no readable footer.
    `projection.serialized` has no effect, as there is no tf.Example.
    """
    return rows.rebatch(_read(shard, projection.columns, batch_size), batch_size)


def _read(
    shard: batch.Shard, names: tuple[str, ...], batch_size: int
) -> Iterator[batch.Batch | batch.DeadLetter]:
    try:
        with _open(shard.path) as file:
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
    records = file.iter_batches(batch_size, row_groups=[group], columns=present, use_threads=False)
    try:
        while (record := _next(records)) is not None:
            end = position + record.num_rows
            yield batch.Batch(shard, np.arange(position, end), _flatten(record))
            position = end
        _check_rows(file.metadata.row_group(group), position - start, present)
    except _DamageError as error:
        reason = f"the rest of row group {group} cannot be read: {error}"
        lost = file.metadata.row_group(group).num_rows - (position - start)
        # A footer that counts no more rows than were read does not tell how many are lost.
        yield rows.dead_letter(shard, position, reason, lost if lost > 0 else None)


def _check_rows(group: pyarrow.parquet.RowGroupMetaData, read: int, names: list[str]) -> None:
    """Raises _DamageError if the footer counts other rows than the pages have."""
    counts = {"the row group": group.num_rows}
    for i in range(group.num_columns):
        column = group.column(i)
        with contextlib.suppress(UnicodeDecodeError):  # another column's damaged name
            # Of lists it counts their items, which need not be as many as rows.
            if column.path_in_schema in names:
                counts[f"column {column.path_in_schema!r}"] = column.num_values
    wrong = {what: count for what, count in counts.items() if count != read}
    if wrong:
        what, count = next(iter(wrong.items()))
        raise _DamageError(f"the footer counts {count:,} rows of {what}, but {read:,} were read")


class _DamageError(Exception):
    """The file's content is damaged."""


@contextlib.contextmanager
def _detect_damage() -> Iterator[None]:
    """Raises _DamageError for damage, but not for a failed request, which can be retried."""
    try:
        yield
    except pa.ArrowException as error:
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
        _check_footer(file.metadata)
        yield file


def _check_footer(metadata: pyarrow.parquet.FileMetaData) -> None:
    """Raises _DamageError for a footer that contradicts itself."""
    groups = sum(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
    if groups != metadata.num_rows:
        raise _DamageError(
            f"its footer counts {metadata.num_rows:,} rows, but {groups:,} in its row groups"
        )


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
    """The same rows without dictionaries, views and structs."""
    names, columns = [], []
    for top, values in zip(record.schema.names, record.columns, strict=True):
        for name, column in _fields(top, values):
            names.append(name)
            columns.append(column.cast(_decoded(column.type)))
    return pa.RecordBatch.from_arrays(columns, names)


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
