"""Opening and listing files, the same way for local paths and Beam's filesystem URLs."""

from __future__ import annotations

import glob
import gzip
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from apache_beam.io import filesystem, filesystems

_BLOCK_BYTES = 1 << 20
_GZIP_MAGIC = b"\x1f\x8b\x08"


@dataclass(frozen=True)
class Damage:
    """Stands in a stream for what could not be read there.

    `rows` is how many rows that are; None where nobody knows.
    """

    reason: str
    rows: int | None = 1


def open_raw(path: str) -> BinaryIO:
    """The file's bytes as they are stored, seekable; OSError or Beam's error if it cannot open."""
    return filesystems.FileSystems.open(
        path, compression_type=filesystem.CompressionTypes.UNCOMPRESSED
    )


def blocks(path: str) -> Iterator[bytes | Damage]:
    """The file's content in blocks of about 1 MiB, unzipped if it is gzip.

    Gzip is told by content and not by name, since object stores may unzip what they serve.
    Damaged or truncated gzip ends with a Damage, after all that could still be unzipped. Beam's
    own decompression takes a truncated file for a complete one, so it is not used.
    """
    with open_raw(path) as file:
        zipped = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
        file.seek(0)
        if zipped:
            yield from _unzipped(file)
        else:
            while block := file.read(_BLOCK_BYTES):
                yield block


def _unzipped(file: BinaryIO) -> Iterator[bytes | Damage]:
    damage = None
    block = bytearray()
    with gzip.GzipFile(fileobj=file) as stream:
        try:
            # read1, because read would drop what it unzipped just before an error.
            while part := stream.read1(_BLOCK_BYTES):
                block += part
                if len(block) >= _BLOCK_BYTES:
                    yield bytes(block)
                    block.clear()
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            damage = Damage(f"the rest of the file cannot be read: {error}", rows=None)
    if block:
        yield bytes(block)
    if damage:
        yield damage


def match(pattern: str) -> dict[str, int]:
    """The size in bytes of each file that a path or glob stands for, sorted by path.

    Raises what the filesystem raises for an unknown scheme or a failed request.
    """
    if is_remote(pattern):
        [result] = filesystems.FileSystems.match([pattern])
        sizes = {found.path: found.size_in_bytes for found in result.metadata_list}
    else:
        # Beam's local matching walks every folder below, and finds nothing for relative globs.
        paths = [pattern] if os.path.exists(pattern) else glob.glob(pattern, recursive=True)
        sizes = {
            os.path.normpath(path): os.path.getsize(path) for path in paths if os.path.isfile(path)
        }
    return dict(sorted(sizes.items()))


def absolute(path: str) -> str:
    """The path as a process in any folder finds the file; URLs are so already."""
    return path if is_remote(path) else os.path.abspath(path)


def is_remote(path: str) -> bool:
    """Whether the path is a URL, which only a Beam filesystem can open."""
    return filesystems.FileSystems.get_scheme(path) is not None
