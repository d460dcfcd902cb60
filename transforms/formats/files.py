"""Reads, lists and writes files: local paths and Beam's filesystem URLs alike."""

from __future__ import annotations

import bz2
import contextlib
import errno
import fnmatch
import glob
import gzip
import lzma
import os
import re
import shutil
import stat
import tempfile
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import pyarrow as pa
from apache_beam.io import filesystem, filesystems

from evalbeam.transforms import errors
from evalbeam.transforms.batch import Stamp
from evalbeam.transforms.formats import s3  # noqa: F401

_BLOCK_BYTES = 1 << 20
# Beam sends each write to S3 as one part, and copies smaller ones again for each write.
_UPLOAD_BYTES = 16 << 20
# Suffixes of compressed files.
COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".zlib", ".zz")
_MAGIC_BYTES = 12
# The suffix of local files that are being written.
UNFINISHED = ".unfinished"


@dataclass(frozen=True)
class Damage:
    """Marks a place in a stream that could not be read.

    `rows` is the number of rows lost; None if unknown.
    """

    reason: str
    rows: int | None = 1


def open_raw(path: str) -> BinaryIO:
    """Opens the file's bytes as they are stored, seekable.

    Raises:
      OSError: a local file cannot be opened.
      JobError: a remote file cannot be opened.
    """
    try:
        return filesystems.FileSystems.open(
            path, compression_type=filesystem.CompressionTypes.UNCOMPRESSED
        )
    except Exception as error:  # Each filesystem raises its own errors.
        if not is_remote(path):
            raise
        raise errors.JobError(f"cannot read {path}: {reason(error)}") from error


def blocks(path: str) -> Iterator[bytes | Damage]:
    """The file's content in blocks of about 1 MiB, decompressed if it is compressed.

    Compression (gzip, bzip2, xz, zstd, zlib) is detected by content, not by name, as object stores
    may unzip what they serve. Damaged or truncated files end with a Damage, after everything that
    could be decompressed. Beam's own decompression is not used: it accepts a truncated file as
    complete.
    """
    with open_raw(path) as file:
        start = file.read(_MAGIC_BYTES)
        file.seek(0)
        if (stream := _decompress(file, start)) is not None:
            yield from _read_compressed(stream)
        else:
            while block := file.read(_BLOCK_BYTES):
                yield block


def _decompress(file: BinaryIO, start: bytes) -> BinaryIO | None:
    """The decompressed content of a file that starts with these bytes; None if it is plain."""
    if start.startswith(b"\x1f\x8b\x08"):
        return cast(BinaryIO, gzip.GzipFile(fileobj=file))
    if start.startswith(b"BZh"):
        return cast(BinaryIO, _Streams(file, bz2.BZ2Decompressor))
    if start.startswith(b"\xfd7zXZ\x00"):
        return cast(BinaryIO, _Streams(file, lzma.LZMADecompressor))
    if start.startswith(b"\x28\xb5\x2f\xfd"):
        return cast(BinaryIO, pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd"))
    if start[:2] in (b"\x78\x01", b"\x78\x9c", b"\x78\xda") and _is_zlib(start):
        return cast(BinaryIO, _Streams(file, zlib.decompressobj))
    return None


def _is_zlib(start: bytes) -> bool:
    """Whether these are no other file's: a TFRecord may start with a length that looks like it."""
    try:
        zlib.decompressobj().decompress(start)
    except zlib.error:
        return False
    return True


class _Streams:
    """Decompresses the streams of a file, which may be several, one after the other.

    Unlike `bz2.BZ2File` and `lzma.LZMAFile`, which take damage in a later stream for the end of the
    data, and `zlib`, which knows one stream only.
    """

    def __init__(self, file: BinaryIO, start: Callable[[], Any]) -> None:
        self._file = file
        self._start = start
        self._stream = start()

    def read1(self, size: int) -> bytes:
        """Up to `size` bytes; none at the end."""
        while True:
            # What zlib has not consumed is given again; the others keep theirs.
            given = getattr(self._stream, "unconsumed_tail", b"")
            ended = False
            if self._stream.eof:
                given = self._stream.unused_data.lstrip(b"\0")  # padding
                while not given:
                    if not (block := self._file.read(_BLOCK_BYTES)):
                        return b""
                    given = block.lstrip(b"\0")
                self._stream = self._start()
            elif getattr(self._stream, "needs_input", not given):
                given = self._file.read(_BLOCK_BYTES)
                ended = not given
            if chunk := self._stream.decompress(given, size):
                return chunk
            if ended and not self._stream.eof:
                raise EOFError("the compressed stream ends before its end marker")


def _read_compressed(stream: BinaryIO) -> Iterator[bytes | Damage]:
    damage = None
    block = bytearray()
    # read1, because read would drop what it decompressed just before an error.
    read = stream.read if isinstance(stream, pa.NativeFile) else stream.read1  # type: ignore[attr-defined]
    try:
        while chunk := read(_BLOCK_BYTES):
            block += chunk
            if len(block) >= _BLOCK_BYTES:
                yield bytes(block)
                block.clear()
    except (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
        damage = Damage(f"the rest of the file cannot be read: {error}", rows=None)
    except OSError as error:  # Of bzip2 and zstd without errno, unlike a failed request.
        if error.errno is not None:
            raise
        damage = Damage(f"the rest of the file cannot be read: {error}", rows=None)
    if block:
        yield bytes(block)
    if damage:
        yield damage


def match(pattern: str) -> dict[str, int]:
    """The size in bytes of each file that matches a path or glob, sorted by path; as `find`."""
    return {path: stamp.size_bytes for path, stamp in find(pattern).items()}


def find(pattern: str) -> dict[str, Stamp]:
    """The stamp of each file that matches a path or glob, sorted by path.

    Raises the filesystem's own errors for an unknown scheme or a failed request, and OSError as
    `expand`.
    """
    if is_remote(pattern):
        [result] = filesystems.FileSystems.match([pattern])
        # Paths ending in a slash are the empty objects that a store's console creates for folders.
        stamps = {
            metadata.path: _stamp_remote(metadata)
            for metadata in result.metadata_list
            if not metadata.path.endswith("/")
        }
    else:
        stamps = {
            _normalize(path): _stamp_local(status)
            for path in expand(pattern)
            if (status := _status(path)) is not None and stat.S_ISREG(status.st_mode)
        }
    return dict(sorted(stamps.items()))


def _normalize(path: str) -> str:
    # "a/../b" is not "b" if a is a link.
    return path if ".." in path.split("/") else os.path.normpath(path)


def expand(pattern: str) -> Iterator[str]:
    """The local files and folders that match a path or glob, in any order.

    As `glob.glob`, which passes over what it cannot list, and follows a link to a folder above
    itself 40 times.

    Raises:
      OSError: a folder cannot be listed, or a link leads nowhere: data may be missing.
    """
    if os.path.lexists(pattern):
        yield pattern
        return
    first, *parts = pattern.split("/")
    yield from _expand("/", parts, ()) if not first else _expand("", [first, *parts], ())


def _expand(folder: str, parts: Sequence[str], above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """What matches the parts in a folder; `above`: the nodes of folders that `**` has passed."""
    part, *rest = parts
    if part == "**":
        status = _status(folder or ".")
        if status is None or (node := (status.st_dev, status.st_ino)) in above:
            return
        yield from _expand(folder, rest or ["*"], ())
        for path, entry in _scan(folder, "*"):
            if _is_folder(entry):
                yield from _expand(path, parts, (*above, node))
    elif glob.has_magic(part):
        for path, entry in _scan(folder, part):
            if not rest:
                yield path
            elif _is_folder(entry):
                yield from _expand(path, rest, ())
    else:
        path = os.path.join(folder, part)
        if _status(path) is not None:
            yield from _expand(path, rest, ()) if rest else [path]


def _scan(folder: str, part: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """A folder's entries that match a part of a glob, hidden ones only if that is hidden, too."""
    match = re.compile(fnmatch.translate(part)).match
    with (
        contextlib.suppress(FileNotFoundError, NotADirectoryError),
        os.scandir(folder or ".") as entries,
    ):
        for entry in entries:
            if match(entry.name) and (part.startswith(".") or not entry.name.startswith(".")):
                yield os.path.join(folder, entry.name), entry


def _is_folder(entry: os.DirEntry[str]) -> bool:
    if not entry.is_symlink():
        return entry.is_dir()
    status = _status(entry.path)
    return status is not None and stat.S_ISDIR(status.st_mode)


def _status(path: str) -> os.stat_result | None:
    """None if there is nothing; raises OSError if that cannot be known, or for a broken link."""
    try:
        return os.stat(path)
    except NotADirectoryError:
        return None
    except FileNotFoundError:
        if os.path.islink(path):
            raise FileNotFoundError(errno.ENOENT, "it is a link to nothing", path) from None
        return None


def stamp(path: str) -> Stamp:
    """The file's stamp.

    Raises:
      OSError: there is no such local file.
      JobError: a remote file's metadata cannot be had.
    """
    if not is_remote(path):
        return _stamp_local(os.stat(path))
    try:
        return _stamp_remote(filesystems.FileSystems.get_filesystem(path).metadata(path))
    except Exception as error:  # Each filesystem raises its own errors.
        raise errors.JobError(f"cannot read {path}: {reason(error)}") from error


def _stamp_local(status: os.stat_result) -> Stamp:
    return Stamp(status.st_size, status.st_mtime_ns, (status.st_dev, status.st_ino))


def _stamp_remote(metadata: filesystem.FileMetadata) -> Stamp:
    modified = getattr(metadata, "etag", metadata.last_updated_in_seconds)
    return Stamp(metadata.size_in_bytes, modified)


@contextlib.contextmanager
def unchanged(path: str, listed: Stamp | None) -> Iterator[None]:
    """For reading a file: raises JobError, before or after it, if the stamp is no longer `listed`.

    A file that changes while it is read may look damaged, or whole: of an error in the block, the
    change is the reason. Without a stamp, nothing is checked.
    """
    if listed is None:
        yield
        return
    _check_unchanged(path, listed)
    try:
        yield
    except Exception as error:
        _check_unchanged(path, listed, error)
        raise
    _check_unchanged(path, listed)


def _check_unchanged(path: str, listed: Stamp, cause: Exception | None = None) -> None:
    found = stamp(path)
    if listed.matches(found):
        return
    was = f"{listed.size_bytes:,} bytes"
    if found.size_bytes == listed.size_bytes:
        was = "another content of the same size"
    raise errors.JobError(
        f"{path} has changed since this run listed it: it is {found.size_bytes:,} bytes, and was "
        f"{was}. Rows of two versions would be mixed, so nothing is published; run again when "
        "nothing writes to the file"
    ) from cause


def children(folder: str, pattern: str = "*") -> dict[str, int]:
    """The size in bytes of each file of a folder, local or remote, that matches the pattern."""
    return match(f"{folder if is_remote(folder) else glob.escape(folder)}/{pattern}")


def absolute(path: str) -> str:
    """The path in a form that is valid from any working folder; URLs already are."""
    return path if is_remote(path) else os.path.abspath(path)


def is_remote(path: str) -> bool:
    """Whether the path is a URL, which only a Beam filesystem can open."""
    return filesystems.FileSystems.get_scheme(path) is not None


def download(url: str, path: str) -> None:
    """Copies a remote file to a local path, creating its folder.

    Raises as `open_raw` and `writing` do.
    """
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open_raw(url) as source, writing(path) as local, open(local, "wb") as target:
        shutil.copyfileobj(source, target, _UPLOAD_BYTES)


def upload(path: str, url: str) -> None:
    """Copies a local file to a URL: completely or, on an error, not at all.

    Raises:
      JobError: the filesystem rejects it.
    """
    with open(path, "rb") as source:
        try:
            target = filesystems.FileSystems.create(
                url, compression_type=filesystem.CompressionTypes.UNCOMPRESSED
            )
            # Not in a `with`: closing creates the object, even from half a file.
            shutil.copyfileobj(source, target, _UPLOAD_BYTES)
            target.close()
        except Exception as error:  # Each filesystem raises its own errors.
            raise errors.JobError(f"cannot write {url}: {reason(error)}") from error


@contextlib.contextmanager
def writing(path: str) -> Iterator[str]:
    """A local name to write to; the complete file appears at `path` when the block ends.

    A block that fails or is abandoned leaves nothing at `path`; of two concurrent writers, one
    wins.

    Raises:
      OSError: a local folder does not exist or is not writable.
      JobError: the disk is full or read-only, or a remote filesystem rejects the file.
    """
    if is_remote(path):
        with tempfile.TemporaryDirectory(prefix="evalbeam-") as folder:
            local = os.path.join(folder, "file")
            with reporting(local):
                yield local
            upload(local, path)
        return
    unfinished = f"{path}.{uuid.uuid4().hex}{UNFINISHED}"
    try:
        with reporting(unfinished):
            yield unfinished
            os.replace(unfinished, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(unfinished)
        raise


@contextlib.contextmanager
def reporting(path: str) -> Iterator[None]:
    """For writing to a local file: raises JobError if the disk is full or read-only.

    The system's error has neither the file nor the free space.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in errors.UNWRITABLE:
            raise
        folder, name = os.path.split(path)
        name = re.sub(rf"\.\w+{re.escape(UNFINISHED)}$", "", name)
        written = os.path.getsize(path) if os.path.exists(path) else 0
        raise errors.JobError(
            f"cannot write {os.path.join(folder, name)}: {os.strerror(error.errno)}, after "
            f"{written:,} bytes of it; {shutil.disk_usage(folder).free:,} bytes are free there. "
            "Nothing was published: make room and try again"
        ) from error


def delete(urls: Iterable[str]) -> None:
    """Deletes remote files; missing ones are not an error."""
    filesystems.FileSystems.delete(list(urls))


def reason(error: BaseException) -> str:
    """A filesystem's error message, without Beam's wrapping."""
    while isinstance(error, filesystem.BeamIOError) and error.exception_details:
        error = next(iter(error.exception_details.values()))
    return str(getattr(error, "message", None) or error)
