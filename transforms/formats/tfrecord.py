"""TFRecord files of tf.Example, plain or compressed.

Each column is a `large_list` of float32, int64 or dictionary-encoded large_binary, as in
tf.Example; a feature that an example lacks is null. Text is dictionary-encoded because most of it
is slice features with few distinct values: a Python object per value would be a fifth of all work.
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

SUFFIXES = (".tfrecord", ".tfrecords")

# About this many bytes of records are decoded at once.
_RUN_BYTES = 4 << 20
# The number of records from which the types of features are inferred first.
_FIRST = 256

# A record: its length, the length's CRC; the data; the data's CRC.
_LENGTH = struct.Struct("<Q")
_HEADER, _FOOTER = 12, 4  # bytes

# No tf.Example is larger; without a limit, a length could ask for all of the memory.
_MAX_BYTES = (1 << 31) - 1

_REST = "the rest of the file cannot be read"
_CORRUPT_LENGTH = f"corrupt length of a record (CRC mismatch); {_REST}"


def starts(block: bytes) -> bool:
    """Whether the block starts with a record's length and its correct CRC."""
    return len(block) >= _HEADER and _is_length_intact(block, 0)


def pieces(path: str, size_bytes: int) -> list[tuple[int | None, int]]:
    """One piece: the start of a record is known only from the record before it."""
    return [(None, size_bytes)]


def columns(shard: batch.Shard) -> tuple[str, ...] | None:
    """None: each example may have its own features."""
    return None


def first_columns(shard: batch.Shard) -> tuple[str, ...]:
    """The features of the first examples; () if they cannot be decoded."""
    for run in records(files.blocks(shard.path)):
        if not isinstance(run, files.Damage):
            with contextlib.suppress(ValueError):
                return tuple(_decode(None, run).schema.names)
    return ()


def read(
    shard: batch.Shard, projection: batch.Projection, batch_size: int
) -> Iterator[batch.Batch | batch.DeadLetter | batch.OpenEnd]:
    """The shard's examples in batches, and a dead letter for each damaged record.

    Rows from a corrupt length or a truncation on share one dead letter, of an unknown number, as
    there is no way to find the next record.
    """
    runs = records(files.blocks(shard.path))
    decoder = _ExampleDecoder(projection.columns)
    return rows.read(shard, runs, decoder, batch_size, projection.serialized)


def write(file: BinaryIO, data: Sequence[bytes]) -> None:
    """Writes records: each its length, the length's CRC, the data, the data's CRC."""
    lengths = [_LENGTH.pack(len(record)) for record in data]
    length_crcs, data_crcs = _masked_crcs(lengths).tobytes(), _masked_crcs(data).tobytes()
    chunks = []
    for i, record in enumerate(data):
        crc = slice(_FOOTER * i, _FOOTER * (i + 1))
        chunks += [lengths[i], length_crcs[crc], record, data_crcs[crc]]
    file.writelines(chunks)


def records(blocks: Iterator[bytes | files.Damage]) -> Iterator[list[bytes] | files.Damage]:
    """The file's records in runs, with a Damage for what cannot be read between them.

    In Python, yet faster per core than `tf.data.TFRecordDataset`, which passes each record through
    a tensor; and the same code reads remote and damaged files, without TensorFlow.
    """
    run: list[bytes] = []
    pending: list[bytes] = []
    run_bytes, size, needed = 0, 0, _HEADER
    for block in blocks:
        if isinstance(block, files.Damage):
            yield run
            yield block
            return
        pending.append(block)
        size += len(block)
        if size < needed:
            continue  # A record larger than a block is joined once, when it is complete.
        buffer = b"".join(pending)
        starts = _starts(buffer)
        complete = [buffer[a + _HEADER : b - _FOOTER] for a, b in itertools.pairwise(starts)]
        good = 0  # The first record that is neither in a run nor damaged.
        for bad in np.flatnonzero(_masked_crcs(complete) != _footers(buffer, starts[1:])).tolist():
            yield [*run, *complete[good:bad]]
            run, good = [], bad + 1
            # A correct CRC of the data implies a correct length, so only check the length here.
            if not _is_length_intact(buffer, starts[bad]):
                yield files.Damage(_CORRUPT_LENGTH, rows=None)
                return
            yield files.Damage("corrupt record (CRC mismatch)")
        run += complete[good:]
        run_bytes += starts[-1]
        if run_bytes >= _RUN_BYTES:
            yield run
            run, run_bytes = [], 0
        rest = buffer[starts[-1] :]
        pending, size, needed = [rest], len(rest), _HEADER
        if size >= _HEADER:
            if not _is_length_intact(rest, 0):
                yield run
                yield files.Damage(_CORRUPT_LENGTH, rows=None)
                return
            length = _LENGTH.unpack_from(rest)[0]
            if length > _MAX_BYTES:
                yield run
                yield files.Damage(f"a record of {length:,} bytes; {_REST}", rows=None)
                return
            needed += length + _FOOTER
    yield run
    if size:
        yield files.Damage(f"truncated record; {_REST}", rows=None)


def _starts(buffer: bytes) -> list[int]:
    """The starts of the complete records and the end of the last one, trusting their lengths."""
    start, last = 0, len(buffer) - _HEADER
    starts = [0]
    while start <= last:
        start += _LENGTH.unpack_from(buffer, start)[0] + _HEADER + _FOOTER
        starts.append(start)
    if start > len(buffer):
        starts.pop()
    return starts


def _is_length_intact(buffer: bytes, start: int) -> bool:
    crc = _masked_crcs([buffer[start : start + _LENGTH.size]])
    return crc.tobytes() == buffer[start + _LENGTH.size : start + _HEADER]


def _footers(buffer: bytes, ends: Sequence[int]) -> np.ndarray:
    """The stored CRCs of records, uint32[N], the last bytes before their ends."""
    offsets = np.array(ends, np.int64)[:, None] + np.arange(-_FOOTER, 0)
    return np.frombuffer(buffer, np.uint8)[offsets].view("<u4")[:, 0]


def _masked_crcs(data: Sequence[bytes]) -> np.ndarray:
    """The masked CRCs of lengths or data, as TFRecord files store them, uint32[N]."""
    crc = np.fromiter(map(google_crc32c.value, data), "<u4", len(data))
    return (crc >> 15 | crc << 17) + np.uint32(0xA282EAD8)


class _ExampleDecoder(rows.Decoder):
    """Decodes with a schema, which skips features that are not projected."""

    def parse(self, run: Sequence[bytes], types: Mapping[str, pa.DataType]) -> pa.RecordBatch:
        # The first examples mostly have all features, and decoding without a schema is slow.
        for sample in (run[:_FIRST], run):
            unknown = [name for name in self.columns if name not in types]
            if _any_occurs(unknown, sample):
                types = {**types, **_infer_types(unknown, sample)}
        if types and "tensorflow" in sys.modules:
            return _decode_with_tensorflow(types, run)
        return _encode_texts(_decode(_schema(types), run))


def _encode_texts(parsed: pa.RecordBatch) -> pa.RecordBatch:
    """Dictionary-encodes the text columns."""
    columns = []
    for column in parsed.columns:
        if pa.types.is_large_list(column.type) and column.type.value_type == pa.large_binary():
            missing = column.is_null() if column.null_count else None
            values = column.values.dictionary_encode()
            column = pa.LargeListArray.from_arrays(column.offsets, values, mask=missing)
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, parsed.schema.names)


def _infer_types(names: Sequence[str], examples: Sequence[bytes]) -> dict[str, pa.DataType]:
    schema = _decode(None, examples).schema
    present = [schema.field(name) for name in names if name in schema.names]
    types = {field.name: field.type for field in present if not pa.types.is_null(field.type)}
    text = pa.large_list(pa.large_binary())
    return {name: pa.large_list(_TEXT) if kind == text else kind for name, kind in types.items()}


def _any_occurs(names: Sequence[str], examples: Sequence[bytes]) -> bool:
    """Whether any of the names occurs in the bytes, as the name of a feature would."""
    content = b"".join(examples) if names else b""
    return any(name.encode() in content for name in names)


def _decode(schema: bytes | None, examples: Sequence[bytes]) -> pa.RecordBatch:
    # Always a new decoder, which is cheap: after an error, a used one returns wrong values.
    decoder = example_coder.ExamplesToRecordBatchDecoder(schema)
    try:
        return decoder.DecodeBatch(examples)
    except RuntimeError as error:
        raise ValueError(f"cannot be decoded as tf.Example: {error}") from error


def _decode_with_tensorflow(
    types: Mapping[str, pa.DataType], examples: Sequence[bytes]
) -> pa.RecordBatch:
    """Like `_decode` and `_encode_texts`, but many times faster; needs TensorFlow to be loaded.

    Returns the same columns, except that a feature without values is null, like an absent one.
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
        # This fails too, with a readable reason.
        return _encode_texts(_decode(_schema(types), examples))
    columns = []
    for kind, values, splits in zip(
        types.values(), parsed.ragged_values, parsed.ragged_row_splits, strict=True
    ):
        ends = splits.numpy()
        if kind.value_type == _TEXT:
            distinct, codes = tf.unique(values)
            vocabulary = pa.array(distinct.numpy(), pa.large_binary())
            flat = pa.DictionaryArray.from_arrays(codes.numpy(), vocabulary)
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
