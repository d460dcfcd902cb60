"""Splits text files into runs of lines."""

from __future__ import annotations

from collections.abc import Iterator

from evalbeam.transforms.batch import OpenEnd
from evalbeam.transforms.formats import files


def runs(
    blocks: Iterator[bytes | files.Damage],
) -> Iterator[list[bytes] | files.Damage | OpenEnd]:
    """The lines of the blocks, without line ends; an OpenEnd before a last line that has none.

    Lines end in line feeds or, in a file whose first block has none but at its end, in carriage
    returns. A line that is cut off by damage is omitted: the Damage stands for it.
    """
    pending: list[bytes] = []
    old: bool | None = None
    for block in blocks:
        if isinstance(block, files.Damage):
            yield block
            return
        if old is None:
            old = b"\r" in block and b"\n" not in block.rstrip()
        if old:
            block = block.replace(b"\r", b"\n")
        pending.append(block)
        if b"\n" in block:
            *lines, rest = b"".join(pending).split(b"\n")
            yield lines
            pending = [rest]
    if last := b"".join(pending):
        yield OpenEnd()
        yield [last]
