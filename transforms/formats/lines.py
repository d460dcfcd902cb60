"""Text files as runs of lines."""

from __future__ import annotations

from collections.abc import Iterator

from evalbeam.transforms.formats import files


def runs(blocks: Iterator[bytes | files.Damage]) -> Iterator[list[bytes] | files.Damage]:
    """The lines of the blocks, without their line feed; a last line may lack it.

    A line that damage cuts off is left out: the damage stands for it.
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
