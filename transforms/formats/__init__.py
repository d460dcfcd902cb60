"""Bytes to columns, one module per file format. To add one, write a module and register it here."""

from __future__ import annotations

import contextlib
import errno
import importlib
from collections.abc import Iterator
from typing import Protocol

from evalbeam.transforms import batch, errors
from evalbeam.transforms.formats import partitions

# Modules, not objects: a format's libraries (TensorFlow for TFRecord) load on first use.
REGISTRY = {
    "tfrecord": "evalbeam.transforms.formats.tfrecord",
    "parquet": "evalbeam.transforms.formats.parquet",
    "csv": "evalbeam.transforms.formats.csv",
    "jsonl": "evalbeam.transforms.formats.jsonl",
}


# None is of Arrow's errors, for damaged files.
_LASTING = (None, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)


class Format(Protocol):
    """What a format's module provides."""

    # File name suffixes that identify the format, such as (".jsonl",), without compression's.
    SUFFIXES: tuple[str, ...]

    def starts(self, block: bytes) -> bool:
        """Whether a file of the format may start so, and one of another format hardly can."""

    def pieces(self, path: str, size_bytes: int) -> list[tuple[int | None, int]]:
        """The (piece, size in bytes) of each shard of a file; [(None, size)] if it is not split."""

    def columns(self, shard: batch.Shard) -> tuple[str, ...] | None:
        """All columns that the file declares; None if only reading all of it would show them."""

    def first_columns(self, shard: batch.Shard) -> tuple[str, ...]:
        """The columns of the file's first rows, for error messages to list."""

    def read(
        self, shard: batch.Shard, projection: batch.Projection, batch_size: int
    ) -> Iterator[batch.Batch | batch.DeadLetter | batch.OpenEnd]:
        """The shard's rows in batches of `batch_size` (the last may be shorter), and dead letters.

        A text that ends without a line end gives an OpenEnd, too.

        A file that cannot be opened raises, so that the runner can retry; damage is permanent.
        Batches may be slices of larger arrays: unpack lists with `flatten()`, not `values`.
        """


def pieces(name: str, path: str, size_bytes: int) -> list[tuple[int | None, int]]:
    """The pieces of a file in the format of this name; raises as `reading`."""
    with reading(path):
        return get(name).pieces(path, size_bytes)


def columns(shard: batch.Shard) -> tuple[str, ...] | None:
    """All columns of a shard's file and folders; None if only reading all of it would show them."""
    with reading(shard):
        declared = get(shard.format).columns(shard)
    return declared and (*declared, *partitions.parse(shard.path))


def first_columns(shard: batch.Shard) -> tuple[str, ...]:
    """The columns of the file's first rows and of its folders, for error messages to list."""
    with reading(shard):
        first = get(shard.format).first_columns(shard)
    return (*first, *partitions.parse(shard.path))


def shadowed_columns(shard: batch.Shard) -> set[str]:
    """The columns that both the shard's file and its folders have: the file's are read."""
    folders = partitions.parse(shard.path).keys()
    if not folders:
        return set()
    with reading(shard):
        return folders & set(get(shard.format).first_columns(shard))


def read(
    shard: batch.Shard, projection: batch.Projection, batch_size: int
) -> Iterator[batch.Batch | batch.DeadLetter | batch.OpenEnd]:
    """What the shard's format reads, with the columns of its folders.

    Raises as `reading`; JobError, too, if the file has changed since it was listed, at the latest
    after its last row.
    """
    from evalbeam.transforms.formats import files  # imports Beam, which a config does not need

    items = get(shard.format).read(shard, projection, batch_size)
    wanted = {
        name: value
        for name, value in partitions.parse(shard.path).items()
        if name in projection.columns
    }
    with reading(shard), files.unchanged(shard.path, shard.stamp):
        for item in items:
            if wanted and isinstance(item, batch.Batch):
                item = partitions.add(item, wanted)
            yield item


@contextlib.contextmanager
def reading(what: batch.Shard | str) -> Iterator[None]:
    """For opening and reading a file or shard; the block's own EvalbeamErrors pass.

    Raises:
      DataError: the file is at fault, or may not be read.
      JobError: the machine or the network is at fault, so that a retry may succeed.
    """
    try:
        yield
    except errors.EvalbeamError:
        raise
    except Exception as error:
        kind = errors.DataError if _is_lasting(error) else errors.JobError
        raise kind(f"Cannot read {what}: {error}") from error


def _is_lasting(error: Exception) -> bool:
    """Whether a retry would fail, too."""
    if isinstance(error, OSError):
        return error.errno in _LASTING
    return isinstance(error, ValueError)


def get(name: str) -> Format:
    """The format's module; raises ConfigError for an unknown name."""
    if name not in REGISTRY:
        hint = errors.did_you_mean(name, REGISTRY)
        raise errors.ConfigError(
            f"Unknown data format {name!r}; valid formats: {', '.join(REGISTRY)}.{hint}"
        )
    module: Format = importlib.import_module(REGISTRY[name])
    return module
