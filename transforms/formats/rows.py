"""What row formats share: one type for each column, damage by row, batches of one size."""

from __future__ import annotations

import abc
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import numpy as np
import pyarrow as pa

from transforms import batch
from transforms.formats import files

_T = TypeVar("_T")


@dataclass(frozen=True)
class Decoded:
    """Consecutive healthy rows: their bytes, and their columns."""

    rows: Sequence[bytes]
    columns: pa.RecordBatch


class Decoder(abc.ABC):
    """Decodes rows; a column keeps the type that it has where it first shows a value.

    A later value of another type damages its row, except for integers followed by fractions
    (`wider`): from there on the column is wider. Types are those of one shard: a column that is
    whole numbers in one file and has fractions in the next is int64 in one and double in the
    other.
    """

    # By type, the type that a column may change to.
    wider: ClassVar[Mapping[pa.DataType, pa.DataType]] = {}

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = columns
        self.types: dict[str, pa.DataType] = {}

    @abc.abstractmethod
    def parse(self, rows: Sequence[bytes], types: Mapping[str, pa.DataType]) -> pa.RecordBatch:
        """The rows' projected columns: in `types` where named there, else in inferred types.

        Raises ValueError if any row is damaged or does not fit `types`.
        """

    def settle(self, inferred: pa.DataType) -> pa.DataType | None:
        """The type that a column has from now on; None while only missing values were seen."""
        return None if pa.types.is_null(inferred) else inferred

    def decode(self, rows: Sequence[bytes]) -> Iterator[Decoded | files.Damage]:
        """The rows in order, each in a Decoded or as a Damage of its own."""
        try:
            decoded = self._parse_settled(rows)
        except ValueError as error:
            if len(rows) == 1:
                yield from self._decode_damaged(rows[0], str(error))
            else:
                middle = len(rows) // 2
                yield from self.decode(rows[:middle])
                yield from self.decode(rows[middle:])
        else:
            yield Decoded(rows, decoded)

    def _parse_settled(self, rows: Sequence[bytes]) -> pa.RecordBatch:
        parsed = self.parse(rows, self.types)
        for field in parsed.schema:
            if field.name not in self.types and (settled := self.settle(field.type)) is not None:
                self.types[field.name] = settled
        known = [name for name in parsed.schema.names if name in self.types]
        if any(parsed.schema.field(name).type != self.types[name] for name in known):
            parsed = self.parse(rows, self.types)
        return parsed.select(known)

    def _decode_damaged(self, row: bytes, reason: str) -> Iterator[Decoded | files.Damage]:
        try:
            self._widen(row)
            yield Decoded([row], self._parse_settled([row]))
        except _MisfitError as error:
            yield files.Damage(str(error))
        except ValueError:
            yield files.Damage(reason)

    def _widen(self, row: bytes) -> None:
        """Changes the types that this row is too wide for; _MisfitError names what cannot be."""
        alone = self.parse([row], {})
        for name, settled in self.types.items():
            try:
                self.parse([row], {name: settled})
            except ValueError as error:
                found = alone.schema.field(name).type
                if found != self.wider.get(settled):
                    value = reprlib.repr(alone.column(name)[0].as_py())
                    raise _MisfitError(
                        f"column {name!r} holds {value} ({found}), but is {settled} before"
                    ) from error
                self.types[name] = found


class TextDecoder(Decoder):
    """What CSV and JSON have in common: numbers, booleans, strings, and lists of them."""

    wider: ClassVar[Mapping[pa.DataType, pa.DataType]] = {
        pa.int64(): pa.float64(),
        pa.list_(pa.int64()): pa.list_(pa.float64()),
    }

    def settle(self, inferred: pa.DataType) -> pa.DataType | None:
        """Dates and times stay the text that they are: whether all look alike is chance."""
        if pa.types.is_list(inferred):
            item = self.settle(inferred.value_type)
            return None if item is None else pa.list_(item)
        if pa.types.is_temporal(inferred) or pa.types.is_binary(inferred):
            return pa.string()
        return super().settle(inferred)


class _MisfitError(ValueError):
    """A value that does not have its column's type."""


def read(
    shard: batch.Shard,
    runs: Iterator[Sequence[bytes] | files.Damage],
    decoder: Decoder,
    batch_size: int,
    serialized: bool = False,
) -> Iterator[batch.Batch | batch.DeadLetter]:
    """Batches of the shard's rows, and a dead letter for each damage.

    Args:
      shard: where the rows are from.
      runs: the rows' bytes in file order, in runs of any length.
      decoder: for these rows; it must be new, since its types are those of the shard.
      batch_size: every batch's number of rows, except for the last.
      serialized: whether batches keep the rows' bytes.
    """
    return rebatch(_decode(shard, runs, decoder, serialized), batch_size)


def _decode(
    shard: batch.Shard,
    runs: Iterator[Sequence[bytes] | files.Damage],
    decoder: Decoder,
    serialized: bool,
) -> Iterator[batch.Batch | batch.DeadLetter]:
    position = 0
    for run in _ahead(runs):
        for item in [run] if isinstance(run, files.Damage) else decoder.decode(run):
            if isinstance(item, files.Damage):
                yield dead_letter(shard, position, item.reason)
                position += 1
            else:
                end = position + len(item.rows)
                yield batch.Batch(
                    shard,
                    np.arange(position, end),
                    item.columns,
                    pa.array(item.rows, pa.large_binary()) if serialized else None,
                )
                position = end


def _ahead(items: Iterator[_T]) -> Iterator[_T]:
    """The items, the next one fetched while one is used: decoders release the GIL."""
    with futures.ThreadPoolExecutor(1, "read-ahead") as pool:
        fetched = pool.submit(next, items, None)
        while (item := fetched.result()) is not None:
            fetched = pool.submit(next, items, None)
            yield item


def dead_letter(shard: batch.Shard, position: int, reason: str) -> batch.DeadLetter:
    """What this stage gives up on."""
    return batch.DeadLetter(shard.split, shard.path, position, "read", reason)


def rebatch(
    items: Iterable[batch.Batch | batch.DeadLetter], batch_size: int
) -> Iterator[batch.Batch | batch.DeadLetter]:
    """The same rows in batches of `batch_size` rows, the last one shorter; dead letters as they come.

    One size, whatever the blocks and the damage: a TensorFlow function is traced for each shape.
    """
    pending: list[batch.Batch] = []
    rows = 0
    for item in items:
        if isinstance(item, batch.DeadLetter):
            yield item
            continue
        pending.append(item)
        rows += len(item)
        if rows >= batch_size:
            whole = _concatenated(pending)
            full = rows - rows % batch_size
            for start in range(0, full, batch_size):
                yield _part(whole, start, batch_size)
            rows -= full
            pending = [_part(whole, full, rows)] if rows else []
    if rows:
        yield _concatenated(pending)


def _concatenated(batches: list[batch.Batch]) -> batch.Batch:
    if len(batches) == 1:
        return batches[0]
    # Permissive: a column may be absent from one part, or wider in a later one.
    columns = pa.concat_tables(
        [pa.Table.from_batches([part.columns]) for part in batches], promote_options="permissive"
    )
    serialized = [part.serialized for part in batches if part.serialized is not None]
    return batch.Batch(
        batches[0].shard,
        np.concatenate([part.positions for part in batches]),
        record_batch(columns),
        pa.concat_arrays(serialized) if serialized else None,
    )


def record_batch(table: pa.Table) -> pa.RecordBatch:
    """The table in one piece; unlike `to_batches`, also if it has no columns."""
    arrays = [column.combine_chunks() for column in table.columns]
    return pa.RecordBatch.from_arrays(arrays, schema=table.schema)


def _part(whole: batch.Batch, start: int, length: int) -> batch.Batch:
    return batch.Batch(
        whole.shard,
        whole.positions[start : start + length],
        whole.columns.slice(start, length),
        None if whole.serialized is None else whole.serialized.slice(start, length),
    )
