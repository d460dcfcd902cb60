"""Splits text files into runs of lines."""

from __future__ import annotations

from collections.abc import Iterator

from evalbeam.transforms.formats import files


def runs(blocks: Iterator[bytes | files.Damage]) -> Iterator[list[bytes] | files.Damage]:
    """The lines of the blocks, without line feeds; the last line need not end in one.

    A line that is cut off by damage is omitted: the Damage stands for it.
    """
    pending: list[bytes] = []
    for block in blocks:
        if isinstance(block, files.Damage):
            yield block
            return
        pending.append(block)
        if b"\n" in block:
            *lines, rest = b"".join(pending).split(b"\n")
            yield lines
            pending = [rest]
    if last := b"".join(pending):
        yield [last]
