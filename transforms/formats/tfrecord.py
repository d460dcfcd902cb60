"""TFRecord files of tf.Example, plain or gzip.

Every column is a `large_list` of float32, int64 or dictionary-encoded large_binary, as tf.Example
has it; a feature that an example does not have is null. A dictionary, because most texts are slice
features of few different values: a Python object for each of them would be a fifth of all work.
"""

from __future__ import annotations

import contextlib
import itertools
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO

import google_crc32c
import numpy as np
import pyarrow as pa
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx_bsl.coders import example_coder

from evalbeam.transforms import batch
from evalbeam.transforms.formats import files, rows

SUFFIXES = (".tfrecord", ".tfrecords", ".tfrecord.gz", ".tfrecords.gz")

# About so many bytes of records are decoded at once.
_RUN_BYTES = 4 << 20
# So many of them are looked at for the types of features.
_FIRST = 256

# A record: its length, the length's CRC; the data; the data's CRC.
_LENGTH = struct.Struct("<Q")
_HEADER, _FOOTER = 12, 4  # bytes

_REST = "the rest of the file cannot be read"
_CORRUPT_LENGTH = f"corrupt length of a record (CRC mismatch); {_REST}"


def pieces(path: str, size_bytes: int) -> list[tuple[int | None, int]]:
    """One: where a record starts is known only from the record before it."""
    return [(None, size_bytes)]


def columns(path: str) -> tuple[str, ...] | None:
    """None: every example may have features of its own."""
    return None


def first_columns(path: str) -> tuple[str, ...]:
    """The features of the first examples; none where they cannot be decoded."""
    for run in records(files.blocks(path)):
        if not isinstance(run, files.Damage):
            with contextlib.suppress(ValueError):
                return tuple(_decode(None, run).schema.names)
    return ()


def read(
    shard: batch.Shard, projection: batch.Projection, batch_size: int
) -> Iterator[batch.Batch | batch.DeadLetter]:
    """The shard's examples in batches; a dead letter for each damaged record.

    Rows behind a corrupt length or a truncation are beyond reach, since nothing tells where the
    next record starts: they share one dead letter.
    """
    runs = records(files.blocks(shard.path))
    decoder = _ExampleDecoder(projection.columns)
    return rows.read(shard, runs, decoder, batch_size, projection.serialized)


def write(file: BinaryIO, data: Sequence[bytes]) -> None:
    """Writes records: each its length, the length's CRC, the data, the data's CRC."""
    lengths = [_LENGTH.pack(len(record)) for record in data]
    of_lengths, of_data = _masked_crcs(lengths).tobytes(), _masked_crcs(data).tobytes()
    parts = []
    for i, record in enumerate(data):
        crc = slice(_FOOTER * i, _FOOTER * (i + 1))
        parts += [lengths[i], of_lengths[crc], record, of_data[crc]]
    file.writelines(parts)


def records(blocks: Iterator[bytes | files.Damage]) -> Iterator[list[bytes] | files.Damage]:
    """The file's records in runs, and what is damaged between them.

    In Python, and per core still faster than `tf.data.TFRecordDataset`, which hands each record
    through a tensor; and the same code reads remote and damaged files, without TensorFlow.
    """
    run: list[bytes] = []
    pending: list[bytes] = []
    held, size, needed = 0, 0, _HEADER
    for block in blocks:
        if isinstance(block, files.Damage):
            yield run
            yield block
            return
        pending.append(block)
        size += len(block)
        if size < needed:
            continue  # A record larger than a block: joined once, when it is complete.
        buffer = b"".join(pending)
        starts = _starts(buffer)
        found = [buffer[a + _HEADER : b - _FOOTER] for a, b in itertools.pairwise(starts)]
        good = 0  # Before it, records are in a run, or damaged.
        for bad in np.flatnonzero(_masked_crcs(found) != _footers(buffer, starts[1:])).tolist():
            yield [*run, *found[good:bad]]
            run, good = [], bad + 1
            # A record's CRC vouches for its length too, so that only here it needs a look.
            if not _length_is_whole(buffer, starts[bad]):
                yield files.Damage(_CORRUPT_LENGTH, rows=None)
                return
            yield files.Damage("corrupt record (CRC mismatch)")
        run += found[good:]
        held += starts[-1]
        if held >= _RUN_BYTES:
            yield run
            run, held = [], 0
        rest = buffer[starts[-1] :]
        pending, size, needed = [rest], len(rest), _HEADER
        if size >= _HEADER:
            if not _length_is_whole(rest, 0):
                yield run
                yield files.Damage(_CORRUPT_LENGTH, rows=None)
                return
            needed += _LENGTH.unpack_from(rest)[0] + _FOOTER
    yield run
    if size:
        yield files.Damage(f"truncated record; {_REST}")


def _starts(buffer: bytes) -> list[int]:
    """Where the complete records start, and the end of the last one; believes their lengths."""
    start, last = 0, len(buffer) - _HEADER
    starts = [0]
    while start <= last:
        start += _LENGTH.unpack_from(buffer, start)[0] + _HEADER + _FOOTER
        starts.append(start)
    if start > len(buffer):
        starts.pop()
    return starts


def _length_is_whole(buffer: bytes, start: int) -> bool:
    crc = _masked_crcs([buffer[start : start + _LENGTH.size]])
    return crc.tobytes() == buffer[start + _LENGTH.size : start + _HEADER]


def _footers(buffer: bytes, ends: Sequence[int]) -> np.ndarray:
    """The CRCs of records, uint32[N], which stand before their ends."""
    at = np.array(ends, np.int64)[:, None] + np.arange(-_FOOTER, 0)
    return np.frombuffer(buffer, np.uint8)[at].view("<u4")[:, 0]


def _masked_crcs(data: Sequence[bytes]) -> np.ndarray:
    """The CRCs of lengths or data of TFRecords as files have them, uint32[N]."""
    crc = np.fromiter(map(google_crc32c.value, data), "<u4", len(data))
    return (crc >> 15 | crc << 17) + np.uint32(0xA282EAD8)


class _ExampleDecoder(rows.Decoder):
    """Decodes by a schema, which skips the features that are not projected."""

    def parse(self, run: Sequence[bytes], types: Mapping[str, pa.DataType]) -> pa.RecordBatch:
        # The first examples mostly have them all, and decoding without a schema is slow.
        for sample in (run[:_FIRST], run):
            unknown = [name for name in self.columns if name not in types]
            if _any_occurs(unknown, sample):
                types = {**types, **_inferred(unknown, sample)}
        if types and "tensorflow" in sys.modules:
            return _decode_by_tensorflow(types, run)
        return _encoded(_decode(_schema(types), run))


def _encoded(parsed: pa.RecordBatch) -> pa.RecordBatch:
    """The columns of texts as dictionaries."""
    columns = []
    for column in parsed.columns:
        if pa.types.is_large_list(column.type) and column.type.value_type == pa.large_binary():
            missing = column.is_null() if column.null_count else None
            values = column.values.dictionary_encode()
            column = pa.LargeListArray.from_arrays(column.offsets, values, mask=missing)
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, parsed.schema.names)


def _inferred(names: Sequence[str], examples: Sequence[bytes]) -> dict[str, pa.DataType]:
    schema = _decode(None, examples).schema
    present = [schema.field(name) for name in names if name in schema.names]
    types = {field.name: field.type for field in present if not pa.types.is_null(field.type)}
    text = pa.large_list(pa.large_binary())
    return {name: pa.large_list(_TEXT) if kind == text else kind for name, kind in types.items()}


def _any_occurs(names: Sequence[str], examples: Sequence[bytes]) -> bool:
    """Whether any of the names stands anywhere in the bytes, as a feature's name would."""
    joined = b"".join(examples) if names else b""
    return any(name.encode() in joined for name in names)


def _decode(schema: bytes | None, examples: Sequence[bytes]) -> pa.RecordBatch:
    # Always a new decoder, which is cheap: after an error, an old one gives wrong answers.
    decoder = example_coder.ExamplesToRecordBatchDecoder(schema)
    try:
        return decoder.DecodeBatch(examples)
    except RuntimeError as error:
        raise ValueError(f"cannot be decoded as tf.Example: {error}") from error


def _decode_by_tensorflow(
    types: Mapping[str, pa.DataType], examples: Sequence[bytes]
) -> pa.RecordBatch:
    """As `_decode` and `_encoded`, many times as fast; where a model has loaded TensorFlow anyway.

    The same columns, but a feature that is there with no values is null, as an absent one.
    """
    tf = sys.modules["tensorflow"]
    try:
        parsed = tf.raw_ops.ParseExampleV2(
            serialized=rows.objects(examples),
            names=[],
            sparse_keys=[],
            dense_keys=[],
            ragged_keys=list(types),
            dense_defaults=[],
            num_sparse=0,
            sparse_types=[],
            ragged_value_types=[_TENSOR_TYPES[kind.value_type] for kind in types.values()],
            ragged_split_types=[tf.int64] * len(types),
            dense_shapes=[],
        )
    except tf.errors.InvalidArgumentError:
        # It fails too, and its reason is readable.
        return _encoded(_decode(_schema(types), examples))
    columns = []
    for kind, values, splits in zip(
        types.values(), parsed.ragged_values, parsed.ragged_row_splits, strict=True
    ):
        ends = splits.numpy()
        if kind.value_type == _TEXT:
            distinct, codes = tf.unique(values)
            words = pa.array(distinct.numpy(), pa.large_binary())
            flat = pa.DictionaryArray.from_arrays(codes.numpy(), words)
        else:
            flat = pa.array(values.numpy(), kind.value_type)
        missing = pa.array(ends[1:] == ends[:-1])
        columns.append(pa.LargeListArray.from_arrays(pa.array(ends), flat, mask=missing))
    return pa.RecordBatch.from_arrays(columns, list(types))


_TEXT = pa.dictionary(pa.int32(), pa.large_binary())
_TENSOR_TYPES = {pa.float32(): "float32", pa.int64(): "int64", _TEXT: "string"}
_FEATURE_TYPES = {
    pa.float32(): schema_pb2.FLOAT,
    pa.int64(): schema_pb2.INT,
    _TEXT: schema_pb2.BYTES,
}


def _schema(types: Mapping[str, pa.DataType]) -> bytes:
    features = [
        schema_pb2.Feature(name=name, type=_FEATURE_TYPES[kind.value_type])
        for name, kind in types.items()
    ]
    serialized: bytes = schema_pb2.Schema(feature=features).SerializeToString()
    return serialized
