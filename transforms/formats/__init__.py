"""Bytes to columns, one module per file format. To add one, write a module and register it here."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Protocol

from evalbeam.transforms import batch, errors

# Modules, not objects: a format's libraries (TensorFlow for TFRecord) load on first use.
REGISTRY = {
    "tfrecord": "evalbeam.transforms.formats.tfrecord",
    "parquet": "evalbeam.transforms.formats.parquet",
    "csv": "evalbeam.transforms.formats.csv",
    "jsonl": "evalbeam.transforms.formats.jsonl",
}


class Format(Protocol):
    """What a format's module provides."""

    # File name suffixes that identify the format, such as (".csv", ".csv.gz").
    SUFFIXES: tuple[str, ...]

    def pieces(self, path: str, size_bytes: int) -> list[tuple[int | None, int]]:
        """The (piece, size in bytes) of each shard of a file; [(None, size)] if it is not split."""

    def columns(self, path: str) -> tuple[str, ...] | None:
        """All columns that the file declares; None if only reading all of it would show them."""

    def first_columns(self, path: str) -> tuple[str, ...]:
        """The columns of the file's first rows, for error messages to list."""

    def read(
        self, shard: batch.Shard, projection: batch.Projection, batch_size: int
    ) -> Iterator[batch.Batch | batch.DeadLetter]:
        """The shard's rows in batches of `batch_size` (the last may be shorter), and dead letters.

        A file that cannot be opened raises, so that the runner can retry; damage is permanent.
        Batches may be slices of larger arrays: unpack lists with `flatten()`, not `values`.
        """


def get(name: str) -> Format:
    """The format's module; raises ConfigError for an unknown name."""
    if name not in REGISTRY:
        hint = errors.did_you_mean(name, REGISTRY)
        raise errors.ConfigError(
            f"Unknown data format {name!r}; valid formats: {', '.join(REGISTRY)}.{hint}"
        )
    module: Format = importlib.import_module(REGISTRY[name])
    return module
