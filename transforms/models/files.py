"""A model's files: local ones in place, remote ones as a local copy."""

from __future__ import annotations

import difflib
import functools
import hashlib
import os
import pathlib
import tempfile
from collections.abc import Iterable, Iterator

from evalbeam.transforms import errors


def local(path: str) -> str:
    """The local path of a model's file or folder; remote ones are copied once per process.

    Raises:
      ConfigError: the path does not exist; suggests the closest name.
    """
    if "://" in path:
        folder, name = _download(path)
        return os.path.join(folder.name, name)
    if not os.path.exists(path):
        parent, name = os.path.split(os.path.normpath(path))
        parent = parent or os.curdir
        if not os.path.isdir(parent):
            raise errors.ConfigError(f"{path} does not exist, nor does its folder {parent}")
        siblings = os.listdir(parent)
        near = difflib.get_close_matches(name, siblings, n=1)
        hint = f" Did you mean {os.path.join(parent, near[0])!r}?" if near else ""
        raise errors.ConfigError(
            f"{path} does not exist; its folder contains {listing(siblings)}.{hint}"
        )
    return path


def tree(path: str) -> list[str]:
    """All files of a local file or folder, sorted by relative path."""
    root = pathlib.Path(path)
    if root.is_file():
        return [path]
    return sorted(_walk(root, frozenset()))


def digest(path: str) -> str:
    """The SHA-256 (hex) of a file; for a folder, over its sorted relative paths and contents."""
    root = local(path)
    if os.path.isfile(root):
        return _hash_file(root).hexdigest()
    total = hashlib.sha256()
    for file in tree(root):
        # A terminated name and a digest of fixed length: no two trees give the same bytes.
        total.update(pathlib.Path(os.path.relpath(file, root)).as_posix().encode() + b"\0")
        total.update(_hash_file(file).digest())
    return total.hexdigest()


def size_bytes(path: str) -> int:
    """The total size of a model's files."""
    return sum(os.path.getsize(file) for file in tree(local(path)))


def _hash_file(path: str) -> hashlib._Hash:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest


def _walk(folder: pathlib.Path, parents: frozenset[pathlib.Path]) -> Iterator[str]:
    """The files in a folder and its subfolders, following links, as loading a model does."""
    real = folder.resolve()
    if real in parents:
        return
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _walk(entry, parents | {real})
        elif entry.is_file():
            yield str(entry)


def listing(names: Iterable[str]) -> str:
    """The first names in order, for a message."""
    ordered = sorted(names)
    more = f" and {len(ordered) - 10} more" if len(ordered) > 10 else ""
    return (", ".join(ordered[:10]) or "nothing") + more


@functools.cache
def _download(path: str) -> tuple[tempfile.TemporaryDirectory[str], str]:
    """A temporary folder, deleted when the process ends, and the name of the copy in it."""
    # Imported here because it imports Beam, which has the remote filesystems and credentials.
    from evalbeam.transforms.formats import files

    source = path.rstrip("/")
    # A folder, or failing that, a file.
    remote = files.match(source + "/**") or files.match(source)
    if not remote:
        raise errors.ConfigError(f"{path} does not exist, or this machine may not read it")
    folder = tempfile.TemporaryDirectory(prefix="evalbeam-model-")
    name = source.rsplit("/", 1)[1]
    for file in remote:
        files.download(file, os.path.join(folder.name, name + file[len(source) :]))
    return folder, name
