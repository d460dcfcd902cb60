"""Coders for what flows between stages, where a runner shuffles it or asks for its size."""

from __future__ import annotations

import pickle
import struct
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.coders import typecoders

from evalbeam.transforms.batch import Batch, Scored
from evalbeam.transforms.metrics.table import Sums, Table

_BYTES_PER_ROW = 100  # a guess, for the runner's monitoring only
_SIZE = struct.Struct("<Q")


class BatchCoder(beam.coders.Coder):
    """Pickles batches and scored batches; estimates their size from the number of rows.

    Beam samples the encoded size of what passes between steps. For batches, which never leave
    their worker, it would pickle megabytes for a number that nobody reads.
    """

    def encode(self, value: Any) -> bytes:
        """The pickled batch."""
        return pickle.dumps(value, protocol=5)

    def decode(self, encoded: bytes) -> Any:
        """The decoded batch."""
        return pickle.loads(encoded)

    def estimate_size(self, value: Any) -> int:
        """The approximate encoded size in bytes, without encoding."""
        return _BYTES_PER_ROW * len(value)

    def is_deterministic(self) -> bool:
        """Pickle gives no guarantee."""
        return False


class TableCoder(beam.coders.Coder):
    """Compresses tables of sums, losslessly: most sums are small counts, most keys close together.

    A table takes 16 bytes per sum in memory, and 2 to 5 encoded.
    """

    def encode(self, value: Table) -> bytes:
        """The table, compressed."""
        packed = {name: _pack(sums) for name, sums in value.sums.items()}
        plain = pickle.dumps((value.slices, dict(value.layouts), packed), protocol=5)
        return _SIZE.pack(len(plain)) + _codec().compress(plain, asbytes=True)

    def decode(self, encoded: bytes) -> Table:
        """The decoded table."""
        (size,) = _SIZE.unpack_from(encoded)
        plain = _codec().decompress(encoded[_SIZE.size :], size, asbytes=True)
        slices, layouts, packed = pickle.loads(plain)
        return Table(slices, layouts, {name: _unpack(*parts) for name, parts in packed.items()})

    def estimate_size(self, value: Table) -> int:
        """The approximate encoded size in bytes, without encoding."""
        return value.nbytes // 4

    def is_deterministic(self) -> bool:
        """Pickle gives no guarantee."""
        return False


def _codec() -> pa.Codec:
    return pa.Codec("zstd", compression_level=1)


def _pack(sums: Sums) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """The gaps between keys, the sums and the roundings; integers in the narrowest type."""
    gaps = np.diff(sums.keys, prepend=0)
    low = None if sums.low is None else _narrow(sums.low)
    return _narrow_integers(gaps), _narrow(sums.high), low


def _unpack(gaps: np.ndarray, high: np.ndarray, low: np.ndarray | None) -> Sums:
    return Sums(
        np.cumsum(gaps, dtype=np.int64),
        high.astype(np.float64),
        None if low is None else low.astype(np.float64),
    )


def _narrow(values: np.ndarray) -> np.ndarray:
    """float64[M] as integers where that is lossless to the bit (unlike -0.0)."""
    with np.errstate(invalid="ignore"):
        whole = values.astype(np.int64)
    same = np.array_equal(whole.astype(np.float64).view(np.int64), values.view(np.int64))
    return _narrow_integers(whole) if same else values


def _narrow_integers(whole: np.ndarray) -> np.ndarray:
    if not len(whole):
        return whole.astype(np.int8)
    kind = np.promote_types(np.min_scalar_type(whole.min()), np.min_scalar_type(whole.max()))
    return whole.astype(kind) if kind.kind in "iu" else whole


typecoders.registry.register_coder(Batch, BatchCoder)
typecoders.registry.register_coder(Scored, BatchCoder)
typecoders.registry.register_coder(Table, TableCoder)
