"""From the files that a config names to the shards that tasks read."""

from __future__ import annotations

import difflib
import glob
import itertools
import posixpath
import re
from collections.abc import Iterable, Sequence

from evalbeam.transforms import batch, errors, formats
from evalbeam.transforms.formats import files

_TASK_BYTES = 256 << 20
# The middle of names such as eval.tfrecord-00003-of-00010.gz.
_NUMBERING = re.compile(r"-\d+-of-\d+")


def list_shards(
    patterns: str | Sequence[str], format_name: str | None, split: str
) -> tuple[batch.Shard, ...]:
    """The shards of all the files, sorted by path, each file once.

    Args:
      patterns: a path or glob, or several; local, or a URL of one of Beam's filesystems.
      format_name: of all the files; None tells each file's by its suffix.
      split: which split the files are.

    Raises:
      ConfigError: for a path or glob that stands for no file, files that are all empty, an
        unknown format or suffix, or a filesystem that cannot be used.
    """
    if format_name is not None:
        formats.get(format_name)
    sizes: dict[str, int] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        sizes |= _found(pattern)
    if not any(sizes.values()):
        raise errors.ConfigError(
            f"There is no data for split {split!r}: of its {len(sizes)} files "
            f"({_some(sizes)}), all are empty."
        )
    return tuple(
        batch.Shard(split, path, name, piece, size_bytes)
        for path in sorted(sizes)
        for name in [format_name or _format_of(path)]
        for piece, size_bytes in formats.get(name).pieces(path, sizes[path])
    )


def tasks(shards: Sequence[batch.Shard], least: int) -> list[tuple[batch.Shard, ...]]:
    """The shards in their order, in as many parts as tasks are to read, each in one go.

    About `least` tasks, and more where they would read more than 256 MiB. Thousands of small files
    so make few tasks, and reading one runs into the next.
    """
    size = min(_TASK_BYTES, sum(shard.size_bytes for shard in shards) / least)
    found: list[list[batch.Shard]] = []
    held = 0
    for shard in shards:
        if not found or held + shard.size_bytes > size or not shard.size_bytes:
            found.append([])
            held = 0
        found[-1].append(shard)
        held += shard.size_bytes
    return [tuple(task) for task in found]


def _found(pattern: str) -> dict[str, int]:
    sizes = _match(pattern)
    if sizes:
        return sizes
    folder, name = posixpath.split(pattern)
    # Not below a folder with wildcards: to list those could take long.
    beside = [] if glob.has_magic(folder) else _match(posixpath.join(folder, "*"))
    names = [posixpath.basename(path) for path in beside]
    if glob.has_magic(name):
        raise errors.ConfigError(
            f"No file matches {pattern!r}; the folder holds {_some(names) or 'no files'}."
        )
    near = difflib.get_close_matches(name, names, n=3, cutoff=0)
    raise errors.ConfigError(
        f"There is no file {pattern!r}; nearest in the folder: {_some(near) or 'no files'}."
    )


def _match(pattern: str) -> dict[str, int]:
    try:
        return files.match(pattern)
    except Exception as error:  # Every filesystem has errors of its own.
        raise errors.ConfigError(f"Cannot list {pattern!r}: {files.reason(error)}") from error


def _format_of(path: str) -> str:
    name = _NUMBERING.sub("", posixpath.basename(path)).lower()
    suffixes = {
        suffix: format_name
        for format_name in formats.REGISTRY
        for suffix in formats.get(format_name).SUFFIXES
    }
    for suffix, format_name in suffixes.items():
        if name.endswith(suffix):
            return format_name
    raise errors.ConfigError(
        f"Cannot tell the format of {path!r} by its name: known suffixes are "
        f"{', '.join(suffixes)}. Name the format under data.format."
    )


def _some(names: Iterable[str]) -> str:
    """A few of the names, for an error's text."""
    shown = list(itertools.islice(names, 6))
    return ", ".join(shown[:5]) + (", ..." if len(shown) > 5 else "")
