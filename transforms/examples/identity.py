"""Example identity: a 64-bit hash that is the same in every run, batching and row order."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
import pyarrow as pa

from evalbeam.transforms import arrow, batch, errors
from evalbeam.transforms.formats import files

# 2**64 over the golden ratio: its multiples lie far apart, so positions in a list do not collide.
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def hashes(examples: batch.Batch, id_column: str | None) -> np.ndarray:
    """uint64[N], uniform modulo any number of units.

    With an id column: the hash of the id as text, so that 7, 7.0, "7" and [7] are one id in any
    format. Without: the hash of the raw serialised example if the batch has it, else of all columns
    by name, where a null, an empty list and an absent column are the same.

    Raises:
      DataError: an id is missing, or a list of several values; names file and row.
    """
    if id_column is not None:
        return _hash_text(_ids(examples, id_column))
    if examples.serialized is not None:
        # A model takes them, so TensorFlow is loaded; it hashes without holding the interpreter.
        from evalbeam.transforms.models import serialized

        return serialized.hashes(examples)
    return _hash_content(examples)


def fingerprint(hashes: np.ndarray, labels: Iterable[np.ndarray]) -> int:
    """A fingerprint of a set of examples: the sum modulo 2^64 of one hash per example.

    It depends on each example's identity (uint64[N]) and labels (float64 [N] or [N, K]), but not
    on their order: the fingerprints of two sets add up to that of their union.
    """
    mixed = hashes.copy()
    for values in labels:
        for column in values.T if values.ndim > 1 else [values]:
            mixed = _mix(mixed ^ np.ascontiguousarray(column + 0.0).view(np.uint64))
    return int(_mix(mixed).sum(dtype=np.uint64))


def place_hashes(examples: batch.Batch) -> np.ndarray:
    """uint64[N], a hash of each row's file and position, for sampling rows evenly."""
    (path,) = pd.util.hash_array(np.array([files.absolute(examples.shard.path)], object))
    return _mix(_mix(examples.positions.astype(np.uint64)) ^ path)


def _ids(examples: batch.Batch, column: str) -> pa.Array:
    names = examples.columns.schema.names
    if column not in names:
        raise errors.DataError(
            f"{examples.shard}: no row has the id column {column!r} (columns: "
            f"{', '.join(sorted(names))}). Set `id` to another column, or omit it to identify "
            "examples by their content"
        )
    values, lengths = arrow.flatten(examples.columns.column(column))
    wrong = np.flatnonzero(lengths != 1)
    if len(wrong) or values.null_count:
        row = wrong[0] if len(wrong) else values.is_null().index(True).as_py()
        problem = "is missing" if lengths[row] < 2 else f"has {lengths[row]} values"
        raise errors.DataError(
            f"{examples.name_row(row)}: id column {column!r} {problem}; each "
            "example needs one id. Omit `id` to identify examples by their content"
        )
    return values


def _hash_text(values: pa.Array) -> np.ndarray:
    if pa.types.is_floating(values.type):
        values = arrow.number_text(values)
    if not (pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type)):
        values = values.cast(pa.string()).cast(pa.binary())
    return _hash_bytes(values.to_numpy(zero_copy_only=False))


def _hash_bytes(values: np.ndarray) -> np.ndarray:
    # pandas hashes the bytes with SipHash under a fixed key, stable since 0.20. Not categorized:
    # factorizing mostly distinct values takes five times as long.
    return pd.util.hash_array(values, categorize=False)


def _hash_content(examples: batch.Batch) -> np.ndarray:
    """A sum over values, each hashed with its column's name and its position in the list.

    So the order of columns does not matter, nor whether a column without values is present.
    """
    total = np.zeros(len(examples), np.uint64)
    for name, column in zip(examples.columns.schema.names, examples.columns.columns, strict=True):
        values, lengths = arrow.flatten(column)
        if not len(values):
            continue
        ends = np.cumsum(lengths)
        key = pd.util.hash_array(np.array([name], object))[0]
        if len(values) == len(examples) and lengths.all():
            total += _mix(_bits(values) ^ key)
            continue
        starts = ends - lengths
        positions = (np.arange(len(values)) - np.repeat(starts, lengths)).astype(np.uint64)
        mixed = _mix(_bits(values) ^ (key + positions * _GOLDEN))
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed, dtype=np.uint64)])
        total += sums[ends] - sums[starts]
    return _mix(total)


def _bits(values: pa.Array) -> np.ndarray:
    """A uint64 per value, equal for equal values of any width."""
    if values.null_count:  # Separately, as NumPy would turn integers next to a null into floats.
        bits = np.full(len(values), _GOLDEN)
        bits[values.is_valid().to_numpy(zero_copy_only=False)] = _bits(values.drop_null())
        return bits
    if pa.types.is_floating(values.type):
        numbers = values.to_numpy(zero_copy_only=False).astype(np.float64)
        numbers += 0.0  # -0.0 becomes 0.0; below, every NaN the same NaN.
        numbers[np.isnan(numbers)] = np.nan
        return numbers.view(np.uint64)
    if arrow.is_number(values.type):
        return values.to_numpy(zero_copy_only=False).astype(np.int64).view(np.uint64)
    return _hash_text(values)


def _mix(bits: np.ndarray) -> np.ndarray:
    """MurmurHash3's 64-bit finalizer, in place: each input bit affects all output bits."""
    bits ^= bits >> np.uint64(33)
    bits *= np.uint64(0xFF51AFD7ED558CCD)
    bits ^= bits >> np.uint64(33)
    bits *= np.uint64(0xC4CEB9FE1A85EC53)
    bits ^= bits >> np.uint64(33)
    return bits
