"""Reading, listing and writing files, the same way for local paths and Beam's filesystem URLs."""

from __future__ import annotations

import contextlib
import glob
import gzip
import os
import shutil
import tempfile
import uuid
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from apache_beam.io import filesystem, filesystems

from evalbeam.transforms import errors
from evalbeam.transforms.formats import s3  # noqa: F401

_BLOCK_BYTES = 1 << 20
# Beam sends each write to S3 as one part, and copies smaller ones together again and again.
_UPLOAD_BYTES = 16 << 20
_GZIP_MAGIC = b"\x1f\x8b\x08"


@dataclass(frozen=True)
class Damage:
    """Stands in a stream for what could not be read there.

    `rows` is how many rows that are; None where nobody knows.
    """

    reason: str
    rows: int | None = 1


def open_raw(path: str) -> BinaryIO:
    """The file's bytes as they are stored, seekable.

    Raises:
      OSError: a local file that cannot be opened.
      JobError: a remote one.
    """
    try:
        return filesystems.FileSystems.open(
            path, compression_type=filesystem.CompressionTypes.UNCOMPRESSED
        )
    except Exception as error:  # Every filesystem has errors of its own.
        if not is_remote(path):
            raise
        raise errors.JobError(f"cannot read {path}: {reason(error)}") from error


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
        # What ends in a slash are the empty objects that stand for folders in a store's console.
        sizes = {
            found.path: found.size_in_bytes
            for found in result.metadata_list
            if not found.path.endswith("/")
        }
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


def download(url: str, path: str) -> None:
    """Copies a remote file to a local path, whose folder is made; raises as `open_raw` does."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open_raw(url) as source, open(path, "wb") as target:
        shutil.copyfileobj(source, target, _UPLOAD_BYTES)


def upload(path: str, url: str) -> None:
    """Copies a local file to a URL, where it is there as a whole or, on an error, not at all.

    Raises:
      JobError: the filesystem refuses it.
    """
    with open(path, "rb") as source:
        try:
            target = filesystems.FileSystems.create(
                url, compression_type=filesystem.CompressionTypes.UNCOMPRESSED
            )
            # Not in a `with`: closing is what makes the object, of half a file too.
            shutil.copyfileobj(source, target, _UPLOAD_BYTES)
            target.close()
        except Exception as error:  # Every filesystem has errors of its own.
            raise errors.JobError(f"cannot write {url}: {reason(error)}") from error


@contextlib.contextmanager
def writing(path: str) -> Iterator[str]:
    """A local name to write a file under, which is at `path`, as a whole, when the block ends.

    A block that fails, or is given up, leaves nothing there; of two at once, one wins.

    Raises:
      OSError: a local folder that is not there, or may not be written to.
      JobError: a remote filesystem refuses it.
    """
    if is_remote(path):
        with tempfile.TemporaryDirectory(prefix="evalbeam-") as folder:
            written = os.path.join(folder, "file")
            yield written
            upload(written, path)
        return
    unfinished = f"{path}.{uuid.uuid4().hex}.unfinished"
    yield unfinished
    os.replace(unfinished, path)


def delete(urls: Iterable[str]) -> None:
    """Deletes remote files; those that are gone already are no error."""
    filesystems.FileSystems.delete(list(urls))


def reason(error: BaseException) -> str:
    """What a filesystem says is wrong, without what Beam wraps it in."""
    while isinstance(error, filesystem.BeamIOError) and error.exception_details:
        error = next(iter(error.exception_details.values()))
    return str(getattr(error, "message", None) or error)
