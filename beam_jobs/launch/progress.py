"""A progress bar on stderr while a run goes on."""

from __future__ import annotations

import contextlib
import struct
import threading
import time
import zlib
from collections.abc import Iterator, Sequence

import pyarrow.parquet as pq
import rich.console
import rich.progress

from evalbeam.transforms import batch, meter
from evalbeam.transforms.formats import files

_SAMPLE_BYTES = 1 << 18
_GZIP_MAGIC = b"\x1f\x8b"
_SECONDS_BETWEEN_LOOKS = 0.25
# Where stderr is a log file, a line now and then instead of a bar.
_SECONDS_BETWEEN_LINES = 10


class _Rate(rich.progress.ProgressColumn):
    def render(self, task: rich.progress.Task) -> str:
        speed = task.finished_speed or task.speed
        return f"{speed:,.0f} examples/s" if speed else "starting"


@contextlib.contextmanager
def watch(board: meter.Board, shards: Sequence[batch.Shard]) -> Iterator[None]:
    """Shows what the workers have written on the board, until the block ends."""
    console = rich.console.Console(stderr=True)
    done = threading.Event()
    show = _bar if console.is_terminal else _lines
    watcher = threading.Thread(target=show, args=(console, board, shards, done), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _bar(
    console: rich.console.Console,
    board: meter.Board,
    shards: Sequence[batch.Shard],
    done: threading.Event,
) -> None:
    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.TextColumn("{task.completed:,} examples"),
        _Rate(),
        rich.progress.TimeRemainingColumn(),
        rich.progress.TextColumn("left"),
    )
    with rich.progress.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("evaluating", total=estimate(shards))
        while not done.wait(max(_SECONDS_BETWEEN_LOOKS, board.seconds)):
            bar.update(task, completed=_seen(board))


def _lines(
    console: rich.console.Console,
    board: meter.Board,
    shards: Sequence[batch.Shard],
    done: threading.Event,
) -> None:
    expected = estimate(shards)
    before, since = 0, time.monotonic()
    while not done.wait(_SECONDS_BETWEEN_LINES):
        now, examples = time.monotonic(), _seen(board)
        if not examples or examples == before:
            continue
        line = f"{examples:,} examples"
        if before:  # else the start of the workers would be taken for slowness
            rate = (examples - before) / (now - since)
            left = f", {max(expected - examples, 0) / rate:,.0f} s left" if expected else ""
            line += f", {rate:,.0f} examples/s{left}"
        console.print(line, highlight=False)
        before, since = examples, now


def _seen(board: meter.Board) -> int | None:
    """What the board shows; None where it is out of reach, for a moment perhaps."""
    try:
        return board.total()
    except Exception:  # every filesystem has errors of its own
        return None


def estimate(shards: Sequence[batch.Shard]) -> float | None:
    """About how many examples the shards hold, by the first one's density; None if unknown."""
    first = next((shard for shard in shards if shard.size_bytes), None)
    if first is None:
        return None
    try:
        density = _examples_per_byte(first)
    except Exception:  # A damaged first file is the job's to report; the bar does without.
        return None
    return density * sum(shard.size_bytes for shard in shards) if density else None


def _examples_per_byte(shard: batch.Shard) -> float:
    if shard.format == "parquet":
        with files.open_raw(shard.path) as file:
            meta = pq.ParquetFile(file).metadata
            stored = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
        return meta.num_rows / max(stored, 1)
    with files.open_raw(shard.path) as file:
        stored = file.read(_SAMPLE_BYTES)
    zipped = stored.startswith(_GZIP_MAGIC)
    text = zlib.decompressobj(wbits=31).decompress(stored) if zipped else stored
    if shard.format == "tfrecord":
        return _records(text) / len(stored)
    return text.count(b"\n") / len(stored)


def _records(framed: bytes) -> int:
    """How many TFRecord frames lie in the bytes: length, its CRC, data, its CRC."""
    count = position = 0
    while position + 12 <= len(framed):
        (length,) = struct.unpack_from("<Q", framed, position)
        position += 16 + length
        count += 1
    return count
