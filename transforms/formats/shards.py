"""Turns the files that a config names into the shards that tasks read."""

from __future__ import annotations

import difflib
import glob
import itertools
import os
import posixpath
import re
from collections.abc import Iterable, Sequence

from evalbeam.transforms import batch, errors, formats
from evalbeam.transforms.formats import files

_TASK_BYTES = 256 << 20
_PLAIN = batch.Dialect()
# The shard number in names such as eval.tfrecord-00003-of-00010.gz.
_NUMBERING = re.compile(r"-\d+-of-\d+")


def list_shards(
    patterns: str | Sequence[str],
    format_name: str | None,
    split: str,
    dialect: batch.Dialect = _PLAIN,
) -> tuple[batch.Shard, ...]:
    """The shards of all the files, sorted by path, each file once.

    Args:
      patterns: one or several paths, folders or globs, local or URLs of Beam's filesystems. Of
        folders and globs, names that start with `_` or `.` are skipped, as Spark and Hive do.
      format_name: the format of all files; None infers each file's from its suffix.
      split: the split that the files belong to.
      dialect: how CSV files are written.

    Raises:
      ConfigError: a path or glob that matches no file, only empty files, an unknown format or
        suffix, or a filesystem that cannot be used.
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
    return tuple(
        batch.Shard(split, path, name, piece, size_bytes, dialect, stamp)
        for path, stamp in sorted(stamps.items())
        for name in [format_name or _infer_format(path)]
        for piece, size_bytes in formats.get(name).pieces(path, stamp.size_bytes)
    )


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
    elif not stamps:
        folder = pattern.rstrip("/")
        escaped = folder if files.is_remote(folder) else glob.escape(folder)
        stamps = _drop_hidden(_match(f"{escaped}/**"), folder)
    if stamps:
        return stamps
    folder, name = posixpath.split(pattern)
    # Not for a folder with wildcards, which could take long to list.
    siblings = [] if glob.has_magic(folder) else _match(posixpath.join(folder, "*"))
    names = [posixpath.basename(path) for path in siblings]
    if glob.has_magic(name):
        raise errors.ConfigError(
            f"No file matches {pattern!r}; the folder contains {_some(names) or 'no files'}."
        )
    near = difflib.get_close_matches(name, names, n=3, cutoff=0)
    raise errors.ConfigError(
        f"There is no file {pattern!r}; closest names in its folder: {_some(near) or 'none'}."
    )


def _drop_hidden(stamps: dict[str, batch.Stamp], pattern: str) -> dict[str, batch.Stamp]:
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
    suffixes = {
        suffix: format_name
        for format_name in formats.REGISTRY
        for suffix in formats.get(format_name).SUFFIXES
    }
    for suffix, format_name in suffixes.items():
        if name.endswith(suffix):
            return format_name
    if (content := _infer_from_content(path)) is not None:
        return content
    raise errors.ConfigError(
        f"Cannot infer the format of {path!r} from its name or content; known suffixes: "
        f"{', '.join(suffixes)}. Set data.format."
    )


def _infer_from_content(path: str) -> str | None:
    """The format whose files start as this one does; None if unknown or empty."""
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
