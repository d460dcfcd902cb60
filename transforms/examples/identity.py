"""Which example it is: a 64-bit hash that is the same in every run, batching and row order."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from evalbeam.transforms import arrow, batch, errors
from evalbeam.transforms.formats import files

# 2**64 over the golden ratio: its multiples lie far apart, so places in a list do not collide.
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def hashes(examples: batch.Batch, id_column: str | None) -> np.ndarray:
    """uint64[N], uniform modulo any number of units.

    With an id column, the hash of the id as text: 7, 7.0, "7" and [7] are one id, whatever format
    they come from. Without, the hash of the raw serialised example where the batch has it, else
    of all columns by name, where a null, an empty list and an absent column are the same.

    Raises:
      JobError: an id that is missing or a list of several; names file and row.
    """
    if id_column is not None:
        return _hash_text(_ids(examples, id_column))
    if examples.serialized is not None:
        # Where a model takes them, and has loaded TensorFlow, which hashes beside Python.
        from evalbeam.transforms.models import serialized

        return serialized.hashes(examples)
    return _content(examples)


def fingerprint(hashes: np.ndarray, labels: Iterable[np.ndarray]) -> int:
    """A number for a set of examples: the sum modulo 2^64 of one hash for each.

    It depends on every example's identity (uint64[N]) and labels (float64 [N] or [N, K]), and
    not on their order: the fingerprints of two sets add up to that of both together.
    """
    mixed = hashes.copy()
    for values in labels:
        for column in values.T if values.ndim > 1 else [values]:
            mixed = _mix(mixed ^ np.ascontiguousarray(column + 0.0).view(np.uint64))
    return int(_mix(mixed).sum(dtype=np.uint64))


def place_hashes(examples: batch.Batch) -> np.ndarray:
    """uint64[N] of where the rows stand, their file and position: for sampling rows evenly."""
    (path,) = pd.util.hash_array(np.array([files.absolute(examples.shard.path)], object))
    return _mix(_mix(examples.positions.astype(np.uint64)) ^ path)


def _ids(examples: batch.Batch, column: str) -> pa.Array:
    names = examples.columns.schema.names
    if column not in names:
        raise errors.JobError(
            f"{examples.shard}: no row has the id column {column!r} (columns: "
            f"{', '.join(sorted(names))}). Name another column as `id`, or leave `id` out to "
            "identify examples by their content"
        )
    values, lengths = arrow.flatten(examples.columns.column(column))
    wrong = np.flatnonzero(lengths != 1)
    if len(wrong) or values.null_count:
        row = wrong[0] if len(wrong) else values.is_null().index(True).as_py()
        what = "is missing" if lengths[row] < 2 else f"has {lengths[row]} values"
        raise errors.JobError(
            f"{examples.shard} row {examples.positions[row]}: id column {column!r} {what}; every "
            "example needs one id. Leave `id` out to identify examples by their content"
        )
    return values


def _hash_text(values: pa.Array) -> np.ndarray:
    if pa.types.is_floating(values.type):
        values = _number_text(values)
    if not (pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type)):
        values = values.cast(pa.string()).cast(pa.binary())
    return _hash_bytes(values.to_numpy(zero_copy_only=False))


def _hash_bytes(values: np.ndarray) -> np.ndarray:
    # pandas hashes the bytes with SipHash under a key of its own, stable since 0.20.
    # Not categorized: its factorizing of mostly different values takes five times as long.
    return pd.util.hash_array(values, categorize=False)


def _number_text(values: pa.Array) -> pa.Array:
    """Floats as text, whole ones (pandas makes them of integers beside nulls) as integers."""
    numbers = values.to_numpy(zero_copy_only=False)
    whole = (np.abs(numbers) < 2**63) & (numbers == np.floor(numbers))
    integers = np.where(whole, numbers, 0).astype(np.int64)
    return pc.if_else(
        pa.array(whole), pa.array(integers).cast(pa.string()), values.cast(pa.string())
    )


def _content(examples: batch.Batch) -> np.ndarray:
    """A sum over values, each hashed with its column's name and position.

    So neither the order of columns matters nor whether one without values is there.
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
        places = (np.arange(len(values)) - np.repeat(starts, lengths)).astype(np.uint64)
        parts = _mix(_bits(values) ^ (key + places * _GOLDEN))
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(parts, dtype=np.uint64)])
        total += sums[ends] - sums[starts]
    return _mix(total)


def _bits(values: pa.Array) -> np.ndarray:
    """uint64 for each value, the same for the same value of any width."""
    if values.null_count:  # Apart, or NumPy would make floats of the integers beside a null.
        bits = np.full(len(values), _GOLDEN)
        bits[values.is_valid().to_numpy(zero_copy_only=False)] = _bits(values.drop_null())
        return bits
    if pa.types.is_floating(values.type):
        numbers = values.to_numpy(zero_copy_only=False).astype(np.float64)
        numbers += 0.0  # One zero, and below one NaN.
        numbers[np.isnan(numbers)] = np.nan
        return numbers.view(np.uint64)
    if arrow.is_number(values.type):
        return values.to_numpy(zero_copy_only=False).astype(np.int64).view(np.uint64)
    return _hash_text(values)


def _mix(bits: np.ndarray) -> np.ndarray:
    """MurmurHash3's 64-bit finalizer, in place: every bit of the input moves every bit."""
    bits ^= bits >> np.uint64(33)
    bits *= np.uint64(0xFF51AFD7ED558CCD)
    bits ^= bits >> np.uint64(33)
    bits *= np.uint64(0xC4CEB9FE1A85EC53)
    bits ^= bits >> np.uint64(33)
    return bits
