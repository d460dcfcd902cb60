"""A model's files: local as they are, remote ones as a local copy."""

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
      ConfigError: nothing is there; names what is nearest.
    """
    if "://" in path:
        folder, name = _copied(path)
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
            f"{path} does not exist; its folder holds {listing(siblings)}.{hint}"
        )
    return path


def tree(path: str) -> list[str]:
    """The files of a local file or folder, sorted by their relative paths."""
    root = pathlib.Path(path)
    if root.is_file():
        return [path]
    return sorted(_walk(root, frozenset()))


def digest(path: str) -> str:
    """SHA-256 (hex) of a model's file; of a folder, over its sorted relative paths and contents."""
    root = local(path)
    if os.path.isfile(root):
        return _content(root).hexdigest()
    total = hashlib.sha256()
    for file in tree(root):
        # Of fixed length after a terminated name, so that no two trees give the same bytes.
        total.update(pathlib.Path(os.path.relpath(file, root)).as_posix().encode() + b"\0")
        total.update(_content(file).digest())
    return total.hexdigest()


def size_bytes(path: str) -> int:
    """The size of a model's"""
    return sum(os.path.getsize(file) for file in tree(local(path)))


def _content(file: str) -> hashlib._Hash:
    content = hashlib.sha256()
    with open(file, "rb") as stream:
        while chunk := stream.read(1 << 20):
            content.update(chunk)
    return content


def _walk(folder: pathlib.Path, above: frozenset[pathlib.Path]) -> Iterator[str]:
    """The files below a folder, behind links too, which a model is loaded through as well."""
    real = folder.resolve()
    if real in above:
        return
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _walk(entry, above | {real})
        elif entry.is_file():
            yield str(entry)


def listing(names: Iterable[str]) -> str:
    """A few names in order, for a message."""
    ordered = sorted(names)
    more = f" and {len(ordered) - 10} more" if len(ordered) > 10 else ""
    return (", ".join(ordered[:10]) or "nothing") + more


@functools.cache
def _copied(path: str) -> tuple[tempfile.TemporaryDirectory[str], str]:
    """A temporary folder, deleted with the process, and the name in it of the model's copy."""
    # Here, since it imports Beam, which knows the remote filesystems and their credentials.
    from evalbeam.transforms.formats import files

    source = path.rstrip("/")
    # A folder, or else a file.
    remote = files.match(source + "/**") or files.match(source)
    if not remote:
        raise errors.ConfigError(f"{path} does not exist, or this machine may not read it")
    folder = tempfile.TemporaryDirectory(prefix="evalbeam-model-")
    name = source.rsplit("/", 1)[1]
    for file in remote:
        files.download(file, os.path.join(folder.name, name + file[len(source) :]))
    return folder, name
