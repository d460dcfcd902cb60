"""Bytes to columns: one module for each file format. To add one: a module and a line below."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Protocol

from evalbeam.transforms import batch, errors

# Modules, not objects: a format's libraries (TensorFlow for TFRecord) load when it is used.
REGISTRY = {
    "tfrecord": "evalbeam.transforms.formats.tfrecord",
    "parquet": "evalbeam.transforms.formats.parquet",
    "csv": "evalbeam.transforms.formats.csv",
    "jsonl": "evalbeam.transforms.formats.jsonl",
}


class Format(Protocol):
    """What a format's module provides."""

    # File name endings by which a format is recognised, such as (".csv", ".csv.gz").
    SUFFIXES: tuple[str, ...]

    def pieces(self, path: str, size_bytes: int) -> list[tuple[int | None, int]]:
        """The (piece, size in bytes) of each shard of a file; [(None, size)] if not split."""

    def columns(self, path: str) -> tuple[str, ...] | None:
        """All the columns a file declares; None where only reading all of it would tell."""

    def first_columns(self, path: str) -> tuple[str, ...]:
        """The columns of a file's first rows, for errors that say what there is."""

    def read(
        self, shard: batch.Shard, projection: batch.Projection, batch_size: int
    ) -> Iterator[batch.Batch | batch.DeadLetter]:
        """The shard's rows in batches of `batch_size` (the last one shorter), and what is damaged.

        A file that cannot be opened raises, so that a runner may retry: damage is what stays.
        Batches may be slices of larger ones: take lists apart with `flatten()`, not `values`.
        """


def get(name: str) -> Format:
    """The format's module; raises ConfigError for an unknown name."""
    if name not in REGISTRY:
        hint = errors.did_you_mean(name, REGISTRY)
        raise errors.ConfigError(
            f"Unknown data format {name!r}; known are {', '.join(REGISTRY)}.{hint}"
        )
    module: Format = importlib.import_module(REGISTRY[name])
    return module
