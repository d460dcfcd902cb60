"""Turns the files that a config names into the shards that tasks read."""

from __future__ import annotations

import contextlib
import difflib
import glob
import itertools
import os
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from evalbeam.transforms import batch, errors, formats
from evalbeam.transforms.formats import files

_T = TypeVar("_T")

_TASK_BYTES = 256 << 20
_PLAIN = batch.Dialect()
# The shard number in names such as eval.tfrecord-00003-of-00010.gz.
_NUMBERING = re.compile(r"-\d+-of-\d+")


@dataclass(frozen=True)
class Listing:
    """The shards of a split, sorted by path, and notes on what was found on the way."""

    shards: tuple[batch.Shard, ...]
    notes: tuple[str, ...] = ()


def list_shards(
    patterns: str | Sequence[str],
    format_name: str | None,
    split: str,
    dialect: batch.Dialect = _PLAIN,
) -> Listing:
    """The shards of all the files, each file once, whatever its names.

    Args:
      patterns: one or several paths, folders or globs, local or URLs of Beam's filesystems. Of
        folders and globs, names that start with `_` or `.` are skipped, as Spark and Hive do.
      format_name: the format of all files; None infers each file's from its suffix and content.
      split: the split that the files belong to.
      dialect: how CSV files are written.

    Raises:
      ConfigError: a path or glob that matches no file, only empty files, what is no file or cannot
        be listed; an unknown format or suffix; or a filesystem that cannot be used.
      DataError: a file that may not be read.
    """
    if format_name is not None:
        formats.get(format_name)
    stamps: dict[str, batch.Stamp] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        stamps |= _find(pattern)
    if not any(stamp.size_bytes for stamp in stamps.values()):
        raise errors.ConfigError(
            f"There is no data for split {split!r}: all of its {len(stamps)} files are empty "
            f"({_some(stamps)})."
        )
    stamps, notes = _drop_repeated(stamps)
    shards = tuple(
        batch.Shard(split, path, name, piece, size_bytes, dialect, stamp)
        for path, stamp in sorted(stamps.items())
        for name in [format_name or _infer_format(path)]
        for piece, size_bytes in formats.pieces(name, path, stamp.size_bytes)
    )
    return Listing(shards, notes)


def note_shared(listed: Iterable[batch.Shard]) -> list[str]:
    """A note for each file that several splits have."""
    splits: dict[object, dict[str, str]] = {}
    for shard in listed:
        splits.setdefault(_identify(shard.path, shard.stamp), {})[shard.split] = shard.path
    return [
        f"{next(iter(paths.values()))} is in the splits {errors.listed(paths)}"
        for paths in splits.values()
        if len(paths) > 1
    ]


def _drop_repeated(
    stamps: Mapping[str, batch.Stamp],
) -> tuple[dict[str, batch.Stamp], tuple[str, ...]]:
    """Each file under its shortest path only, and a note for each that has others, too."""
    paths: dict[object, list[str]] = {}
    for path, stamp in stamps.items():
        paths.setdefault(_identify(path, stamp), []).append(path)
    kept, notes = {}, []
    for names in paths.values():
        first, *others = sorted(names, key=lambda path: (path.count("/"), path))
        kept[first] = stamps[first]
        if others:
            notes.append(f"{first} is read once; other names of the file: {_some(others)}")
    return kept, tuple(notes)


def _identify(path: str, stamp: batch.Stamp | None) -> object:
    """What two names of one file share; a remote file's URL, as its store lists it."""
    return stamp if stamp is not None and stamp.node is not None else path


def tasks(shards: Sequence[batch.Shard], least: int) -> list[tuple[batch.Shard, ...]]:
    """Groups the shards, in order, into tasks, each of which reads its shards in one go.

    About `least` tasks, or more so that none reads more than 256 MiB. Thousands of small files thus
    make few tasks, and a task reads ahead from one file into the next.
    """
    size = min(_TASK_BYTES, sum(shard.size_bytes for shard in shards) / least)
    groups: list[list[batch.Shard]] = []
    group_bytes = 0
    for shard in shards:
        if not groups or group_bytes + shard.size_bytes > size or not shard.size_bytes:
            groups.append([])
            group_bytes = 0
        groups[-1].append(shard)
        group_bytes += shard.size_bytes
    return [tuple(group) for group in groups]


def _find(pattern: str) -> dict[str, batch.Stamp]:
    stamps = _match(pattern)
    if glob.has_magic(pattern):
        stamps = _drop_hidden(stamps, pattern)
    if not stamps:  # Of folders, then.
        folders = pattern.rstrip("/")
        literal = not (files.is_remote(folders) or glob.has_magic(folders))
        escaped = glob.escape(folders) if literal else folders
        stamps = _drop_hidden(_match(f"{escaped}/**"), folders)
    if not files.is_remote(pattern):
        _refuse_folders(pattern, stamps)
        _refuse_undecodable(stamps)
    if stamps:
        return stamps
    folder, name = _find_folder(pattern)
    names = _list(folder)
    where = repr(folder or ".")
    if glob.has_magic(pattern):
        raise errors.ConfigError(
            f"No file or folder matches {pattern!r}; {where} contains {_some(names) or 'nothing'}."
        )
    near = _some(difflib.get_close_matches(name, names, n=3, cutoff=0))
    raise errors.ConfigError(
        f"There is no file or folder {pattern!r}; closest names in {where}: {near or 'none'}."
    )


def _find_folder(pattern: str) -> tuple[str, str]:
    """The innermost folder of a pattern that is there, and what the pattern has in it."""
    folder, name = posixpath.split(pattern.rstrip("/"))
    while glob.has_magic(folder) or not (files.is_remote(pattern) or os.path.isdir(folder or ".")):
        folder, name = posixpath.split(folder)
    return folder, name


def _list(folder: str) -> list[str]:
    """The names in a folder; those of folders in it end with a slash if it is local."""
    # It may not be read, or have files that cannot be listed, or be a URL's scheme.
    with contextlib.suppress(errors.ConfigError, OSError):
        if files.is_remote(folder):
            return [posixpath.basename(path) for path in _match(posixpath.join(folder, "*"))]
        with os.scandir(folder or ".") as entries:
            return sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in entries)
    return []


def _refuse_folders(pattern: str, found: Iterable[str]) -> None:
    """Raises ConfigError for a folder that a glob matches as if it were a file, as Spark's are."""
    suffixes = tuple(_list_suffixes())
    if not glob.has_magic(pattern) or pattern.endswith("**"):
        return
    named = {path for path in files.expand(pattern) if path.lower().endswith(suffixes)}
    for path in sorted(_drop_hidden(dict.fromkeys(named), pattern)):
        if os.path.isdir(path) and not any(each.startswith(f"{path}/") for each in found):
            raise errors.ConfigError(
                f"{path!r} is a folder, and {pattern!r} does not match the files in it: name the "
                f"folder itself, or write {pattern + '/*'!r}"
            )


def _refuse_undecodable(found: Iterable[str]) -> None:
    for path in found:
        try:
            path.encode()
        except UnicodeEncodeError as error:
            raise errors.ConfigError(
                f"the name of the file {path!r} is not UTF-8: rename it"
            ) from error


def _drop_hidden(stamps: Mapping[str, _T], pattern: str) -> dict[str, _T]:
    """Without files that are hidden, or in hidden folders, beyond the pattern's fixed part."""
    fixed = len(list(itertools.takewhile(lambda part: not glob.has_magic(part), _split(pattern))))
    return {
        path: stamp
        for path, stamp in stamps.items()
        if not any(part.startswith(("_", ".")) for part in _split(path)[fixed:])
    }


def _split(path: str) -> list[str]:
    return [part for part in os.path.normpath(path).split("/") if part]


def _match(pattern: str) -> dict[str, batch.Stamp]:
    try:
        return files.find(pattern)
    except Exception as error:  # Each filesystem raises its own errors.
        raise errors.ConfigError(f"Cannot list {pattern!r}: {files.reason(error)}") from error


def _infer_format(path: str) -> str:
    name = posixpath.basename(path).lower()
    for compressed in files.COMPRESSED:
        name = name.removesuffix(compressed)
    name = _NUMBERING.sub("", name)
    suffixes = _list_suffixes()
    for suffix, format_name in suffixes.items():
        if name.endswith(suffix):
            return format_name
    if (content := _infer_from_content(path)) is not None:
        return content
    raise errors.ConfigError(
        f"Cannot infer the format of {path!r} from its name or content; known suffixes: "
        f"{', '.join(suffixes)}. Set data.format."
    )


def _list_suffixes() -> dict[str, str]:
    """The format of each suffix."""
    return {
        suffix: format_name
        for format_name in formats.REGISTRY
        for suffix in formats.get(format_name).SUFFIXES
    }


def _infer_from_content(path: str) -> str | None:
    """The format whose files start as this one does; None if unknown or empty."""
    with formats.reading(path):
        block = next(files.blocks(path), b"")
    if isinstance(block, files.Damage) or not block:
        return None
    for name in formats.REGISTRY:
        if formats.get(name).starts(block):
            return name
    return None


def _some(names: Iterable[str]) -> str:
    """The first few names, for an error message."""
    first = list(itertools.islice(names, 6))
    return ", ".join(first[:5]) + (", ..." if len(first) > 5 else "")
