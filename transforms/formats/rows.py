"""Shared by row formats: one type per column, damage by row, batches of equal size."""

from __future__ import annotations

import abc
import collections
import contextlib
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from evalbeam.transforms import batch
from evalbeam.transforms.formats import files

# The number of rows of a run, evenly spread, that vote on a type when rows disagree.
_VOTERS = 1000


class MiscountError(ValueError):
    """A row that holds this number of rows."""

    def __init__(self, message: str, rows: int) -> None:
        super().__init__(message)
        self.rows = rows


@dataclass(frozen=True)
class Decoded:
    """Consecutive undamaged rows: their bytes and their columns."""

    rows: Sequence[bytes]
    columns: pa.RecordBatch


class Decoder(abc.ABC):
    """Decodes rows; a column keeps the type of its first value.

    If the first values disagree, the most common type wins. A later value of another type damages
    its row, except for a fraction after integers (`wider`): from there on the column is wider.
    Types are per shard: a column of whole numbers in one file and of fractions in the next is int64
    in the first and double in the second.
    """

    # Type -> the type that a column of it may widen to.
    wider: ClassVar[Mapping[pa.DataType, pa.DataType]] = {}

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = columns
        self.types: dict[str, pa.DataType] = {}

    @abc.abstractmethod
    def parse(self, run: Sequence[bytes], types: Mapping[str, pa.DataType]) -> pa.RecordBatch:
        """The rows' projected columns: of the type in `types`, if any, else of an inferred type.

        Raises ValueError if any row is damaged or does not match `types`.
        """

    def settle(self, column: pa.Array) -> pa.DataType | None:
        """The final type of a column of inferred type; None while the column has no value."""
        return None if pa.types.is_null(column.type) else column.type

    def count(self, damaged: bytes, error: ValueError) -> int | None:
        """The number of rows that are lost with a damaged one; None if unknown."""
        return 1

    def decode(self, run: Sequence[bytes]) -> Iterator[Decoded | files.Damage]:
        """The rows in order, each in a Decoded or as its own Damage."""
        try:
            decoded = self._parse_settled(run)
        except ValueError:
            self._settle_by_majority(run)
            yield from self._salvage(run)
        else:
            yield Decoded(run, decoded)

    def _salvage(self, run: Sequence[bytes]) -> Iterator[Decoded | files.Damage]:
        """Like `decode`, by halving the run until a part has no damage or is a single row."""
        try:
            decoded = self._parse_settled(run)
        except ValueError as error:
            if len(run) == 1:
                yield from self._salvage_row(run[0], error)
            else:
                middle = len(run) // 2
                yield from self._salvage(run[:middle])
                yield from self._salvage(run[middle:])
        else:
            yield Decoded(run, decoded)

    def _salvage_row(self, row: bytes, error: ValueError) -> Iterator[Decoded | files.Damage]:
        """A row that does not match the types: widens its columns, or reports the damage."""
        try:
            self._widen(row)
            decoded = self._parse_settled([row])
        except _MisfitError as misfit:
            yield files.Damage(str(misfit))
        except ValueError:
            yield files.Damage(str(error), self.count(row, error))
        else:
            yield Decoded([row], decoded)

    def _parse_settled(self, run: Sequence[bytes]) -> pa.RecordBatch:
        parsed = self.parse(run, self.types)
        self.types.update(
            (name, settled)
            for name, column in zip(parsed.schema.names, parsed.columns, strict=True)
            if name not in self.types and (settled := self.settle(column)) is not None
        )
        settled_fields = [field for field in parsed.schema if field.name in self.types]
        if any(field.type != self.types[field.name] for field in settled_fields):
            parsed = self.parse(run, self.types)
        return parsed.select([field.name for field in settled_fields])

    def _settle_by_majority(self, run: Sequence[bytes]) -> None:
        """Settles types on which rows disagree; otherwise one bad row would damage all others."""
        votes: dict[str, collections.Counter[pa.DataType]] = {
            name: collections.Counter() for name in self.columns if name not in self.types
        }
        for row in run[:: len(run) // _VOTERS + 1] if votes else ():
            with contextlib.suppress(ValueError):
                parsed = self.parse([row], {})
                for name in votes.keys() & set(parsed.schema.names):
                    votes[name][self.settle(parsed.column(name))] += 1
        for name, counts in votes.items():
            del counts[None]
            if counts:
                self.types[name] = counts.most_common(1)[0][0]

    def _widen(self, row: bytes) -> None:
        """Widens types for this row; raises _MisfitError if that is not possible."""
        alone = self.parse([row], {})
        for name, settled in self.types.items():
            try:
                self.parse([row], {name: settled})
            except ValueError as error:
                inferred = alone.schema.field(name).type
                if inferred != self.wider.get(settled):
                    value = reprlib.repr(_decode_bytes(alone.column(name)[0].as_py()))
                    reason = (
                        "text that is not UTF-8; set `data: {csv: {encoding: latin-1}}`, say"
                        if pa.types.is_binary(inferred)
                        else f"({_describe(inferred)}), but is {_describe(settled)} elsewhere"
                    )
                    raise _MisfitError(f"column {name!r} holds {value} {reason}") from error
                self.types[name] = inferred


def _decode_bytes(value: object) -> object:
    """A value for an error message: bytes as text."""
    if isinstance(value, list):
        return list(map(_decode_bytes, value))
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value


def _describe(kind: pa.DataType) -> str:
    """A type for an error message: lists and text by one name, however they are stored."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"list of {_describe(kind.value_type)}"
    if pa.types.is_dictionary(kind):
        return _describe(kind.value_type)
    is_bytes = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    return "bytes" if is_bytes else str(kind)


class TextDecoder(Decoder):
    """Shared by CSV and JSON: numbers, booleans, strings, and lists of them."""

    # Three levels, for images: height, width, channels.
    wider: ClassVar[Mapping[pa.DataType, pa.DataType]] = {
        pa.int64(): pa.float64(),
        pa.list_(pa.int64()): pa.list_(pa.float64()),
        pa.list_(pa.list_(pa.int64())): pa.list_(pa.list_(pa.float64())),
        pa.list_(pa.list_(pa.list_(pa.int64()))): pa.list_(pa.list_(pa.list_(pa.float64()))),
    }

    def count(self, damaged: bytes, error: ValueError) -> int | None:
        """Several if it is parsed as several; unknown if a character may end lines elsewhere."""
        if isinstance(error, MiscountError):
            return max(1, error.rows)
        lines = damaged.decode(errors="replace").splitlines()
        return 1 if len(lines) == 1 else None

    def settle(self, column: pa.Array) -> pa.DataType | None:
        """Dates and times stay text: whether all values parse as dates is a matter of chance."""
        if pa.types.is_list(column.type):
            item = self.settle(column.flatten())
            return None if item is None else pa.list_(item)
        if pa.types.is_temporal(column.type) or pa.types.is_binary(column.type):
            return pa.string()
        return super().settle(column)


class _MisfitError(ValueError):
    """A value of another type than its column."""


def read(
    shard: batch.Shard,
    runs: Iterator[Sequence[bytes] | files.Damage | batch.OpenEnd],
    decoder: Decoder,
    batch_size: int,
    serialized: bool = False,
) -> Iterator[batch.Batch | batch.DeadLetter | batch.OpenEnd]:
    """Batches of the shard's rows, a dead letter for each Damage, and an OpenEnd if there is one.

    Damage after an OpenEnd is where the file was cut off: of an unknown number of rows.

    Args:
      shard: where the rows come from.
      runs: the rows' bytes in file order, in runs of any length.
      decoder: a new decoder, as its types are those of the shard.
      batch_size: the number of rows of each batch but the last.
      serialized: whether batches keep the rows' bytes.
    """
    return rebatch(_decode(shard, runs, decoder, serialized), batch_size)


def _decode(
    shard: batch.Shard,
    runs: Iterator[Sequence[bytes] | files.Damage | batch.OpenEnd],
    decoder: Decoder,
    serialized: bool,
) -> Iterator[batch.Batch | batch.DeadLetter | batch.OpenEnd]:
    position = 0
    is_open = False
    for run in (run for run in runs if run):
        if isinstance(run, batch.OpenEnd):
            is_open = True
            yield run
            continue
        for item in [run] if isinstance(run, files.Damage) else decoder.decode(run):
            if isinstance(item, files.Damage):
                reason, lost = item.reason, item.rows
                if is_open:
                    reason, lost = f"{reason}; the file ends here, without a line end", None
                yield dead_letter(shard, position, reason, lost)
                position += 1
            else:
                end = position + len(item.rows)
                yield batch.Batch(
                    shard,
                    np.arange(position, end),
                    item.columns,
                    objects(item.rows) if serialized else None,
                )
                position = end


def objects(rows: Sequence[bytes]) -> np.ndarray:
    """The rows' bytes as an object[N] array, which NumPy and TensorFlow take."""
    array = np.empty(len(rows), object)
    array[:] = rows
    return array


def dead_letter(
    shard: batch.Shard, position: int, reason: str, rows: int | None = 1
) -> batch.DeadLetter:
    """A dead letter of the read stage."""
    return batch.DeadLetter(shard.split, shard.path, position, "read", reason, rows)


def rebatch(
    items: Iterable[batch.Batch | batch.DeadLetter | batch.OpenEnd], batch_size: int
) -> Iterator[batch.Batch | batch.DeadLetter | batch.OpenEnd]:
    """The same rows in batches of `batch_size` (the last may be shorter), the rest in between.

    Equal sizes regardless of blocks and damage, as a TensorFlow function is traced for each shape.
    """
    pending: list[batch.Batch] = []
    rows = 0
    for item in items:
        if not isinstance(item, batch.Batch):
            yield item
            continue
        pending.append(item)
        rows += len(item)
        if rows >= batch_size:
            whole = _concatenate(pending)
            full = rows - rows % batch_size
            for start in range(0, full, batch_size):
                yield _slice(whole, start, batch_size)
            rows -= full
            pending = [_slice(whole, full, rows)] if rows else []
    if rows:
        yield _concatenate(pending)


def _concatenate(batches: list[batch.Batch]) -> batch.Batch:
    if len(batches) == 1:
        return batches[0]
    names = dict.fromkeys(name for piece in batches for name in piece.columns.schema.names)
    tables = [
        pa.Table.from_batches([piece.columns])
        if piece.columns.num_columns
        # A table without columns has no rows.
        else pa.table({name: pa.nulls(len(piece)) for name in names})
        for piece in batches
    ]
    # Permissive: a column may be absent from one batch, or wider in a later one.
    columns = pa.concat_tables(tables, promote_options="permissive")
    serialized = [piece.serialized for piece in batches if piece.serialized is not None]
    return batch.Batch(
        batches[0].shard,
        np.concatenate([piece.positions for piece in batches]),
        record_batch(columns),
        np.concatenate(serialized) if serialized else None,
    )


def record_batch(table: pa.Table) -> pa.RecordBatch:
    """The table as one record batch; unlike `to_batches`, even if it has no columns."""
    arrays = [column.combine_chunks() for column in table.columns]
    return pa.RecordBatch.from_arrays(arrays, schema=table.schema)


def _slice(whole: batch.Batch, start: int, length: int) -> batch.Batch:
    return batch.Batch(
        whole.shard,
        whole.positions[start : start + length],
        whole.columns.slice(start, length),
        None if whole.serialized is None else whole.serialized[start : start + length],
    )
