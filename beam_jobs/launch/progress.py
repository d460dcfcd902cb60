"""Shows a run's progress on stderr."""

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
_SECONDS_BETWEEN_UPDATES = 0.25
# If stderr is a log file, print lines instead of a bar.
_SECONDS_BETWEEN_LINES = 10


class _Rate(rich.progress.ProgressColumn):
    def render(self, task: rich.progress.Task) -> str:
        speed = task.finished_speed or task.speed
        return f"{speed:,.0f} examples/s" if speed else "starting"


@contextlib.contextmanager
def watch(board: meter.Board, expected: float | None) -> Iterator[None]:
    """Shows the workers' progress on the board, of about `expected` examples, in the block."""
    console = rich.console.Console(stderr=True)
    done = threading.Event()
    show = _show_bar if console.is_terminal else _print_lines
    watcher = threading.Thread(target=show, args=(console, board, expected, done), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _show_bar(
    console: rich.console.Console,
    board: meter.Board,
    expected: float | None,
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
        task = bar.add_task("evaluating", total=expected)
        while not done.wait(max(_SECONDS_BETWEEN_UPDATES, board.seconds)):
            bar.update(task, completed=_count_examples(board))


def _print_lines(
    console: rich.console.Console,
    board: meter.Board,
    expected: float | None,
    done: threading.Event,
) -> None:
    last_examples, last_time = 0, time.monotonic()
    while not done.wait(_SECONDS_BETWEEN_LINES):
        now, examples = time.monotonic(), _count_examples(board)
        if not examples or examples == last_examples:
            continue
        line = f"{examples:,} examples"
        if last_examples:  # otherwise the rate would include the workers' start-up
            rate = (examples - last_examples) / (now - last_time)
            left = f", {max(expected - examples, 0) / rate:,.0f} s left" if expected else ""
            line += f", {rate:,.0f} examples/s{left}"
        console.print(line, highlight=False)
        last_examples, last_time = examples, now


def _count_examples(board: meter.Board) -> int | None:
    """The number of examples on the board; None if it is unreachable, perhaps temporarily."""
    try:
        return board.total()
    except Exception:  # each filesystem raises its own errors
        return None


def estimate(shards: Sequence[batch.Shard]) -> float | None:
    """The approximate number of examples, from the density of the first shard; None if unknown."""
    first = next((shard for shard in shards if shard.size_bytes), None)
    if first is None:
        return None
    try:
        density = _examples_per_byte(first)
    except Exception:  # The job reports damage; the bar works without an estimate.
        return None
    return density * sum(shard.size_bytes for shard in shards) if density else None


def _examples_per_byte(shard: batch.Shard) -> float:
    if shard.format == "parquet":
        with files.open_raw(shard.path) as file:
            meta = pq.ParquetFile(file).metadata
            size_bytes = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
        return meta.num_rows / max(size_bytes, 1)
    with files.open_raw(shard.path) as file:
        sample = file.read(_SAMPLE_BYTES)
    zipped = sample.startswith(_GZIP_MAGIC)
    content = zlib.decompressobj(wbits=31).decompress(sample) if zipped else sample
    if shard.format == "tfrecord":
        return _count_records(content) / len(sample)
    return content.count(b"\n") / len(sample)


def _count_records(content: bytes) -> int:
    """The number of TFRecords in the bytes; each is length, its CRC, data, its CRC."""
    count = position = 0
    while position + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, position)
        position += 16 + length
        count += 1
    return count
