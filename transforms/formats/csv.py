"""CSV files with a header row, plain or gzip; quoted values may contain line breaks.

Columns are int64, double, bool or string. An empty field is null, whether quoted or not; so is NA,
NaN, null and the like in a column of numbers or booleans, but not in one of strings.
"""

from __future__ import annotations

import csv
import io
import itertools
import operator
import re
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute
import pyarrow.csv

from evalbeam.transforms import batch, errors
from evalbeam.transforms.formats import files, lines, rows

SUFFIXES = (".csv", ".csv.gz")

# A quote that is still open so many lines on was never meant to be: its line is damaged.
_MAX_ROW_LINES = 10_000

# A quoted field that goes on to the end of the row.
_OPEN_FIELD = re.compile(rb'(?:^|,)"(?:[^"]|"")*$')

# A row that may span lines: every field is quoted as a whole, or has neither quote nor line break.
_FIELD = rb'(?:"[^"]*(?:""[^"]*)*"|[^",\r\n]*)'
_QUOTED_ROW = re.compile(rb"%b(?:,%b)*\r?" % (_FIELD, _FIELD))

_INTEGER = r"^ *[+-]?[0-9]+ *$"
_NUMBER = r"^ *[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)? *$"

# With fewer values than this that are no number, a column is numeric and they are damage.
_MAX_DAMAGED_SHARE = 0.1


def pieces(path: str, size_bytes: int) -> list[tuple[int | None, int]]:
    """One: rows are counted from the file's beginning."""
    return [(None, size_bytes)]


def columns(path: str) -> tuple[str, ...] | None:
    """The header's names; none for an empty file. Raises ConfigError for a damaged header."""
    runs = _runs(lines.runs(files.blocks(path)))
    try:
        return _split_header(runs)[0]
    except ValueError as error:
        raise errors.ConfigError(f"{path}: {error}") from error


def first_columns(path: str) -> tuple[str, ...]:
    """The declared ones."""
    return columns(path) or ()


def read(
    shard: batch.Shard, projection: batch.Projection, batch_size: int
) -> Iterator[batch.Batch | batch.DeadLetter]:
    """The shard's rows in batches; a dead letter for each row that is damaged.

    Positions count the rows below the header; blank lines are no rows. `projection.serialized`
    keeps nothing, since there is no tf.Example.
    """
    try:
        names, runs = _split_header(_runs(lines.runs(files.blocks(shard.path))))
    except ValueError as error:
        yield rows.dead_letter(shard, -1, f"the file cannot be read: {error}")
    else:
        decoder = _CsvDecoder(projection, names)
        yield from rows.read(shard, runs, decoder, batch_size)


_Run = list[bytes] | files.Damage


def _split_header(runs: Iterator[_Run]) -> tuple[tuple[str, ...], Iterator[_Run]]:
    first = next((run for run in runs if run), None)
    if first is None:
        return (), runs
    if isinstance(first, files.Damage):
        raise ValueError(first.reason)
    names = tuple(next(csv.reader([first[0].decode("utf-8-sig")])))
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"the header names columns twice: {sorted(twice)}")
    return names, itertools.chain([first[1:]], runs)


def _runs(runs: Iterator[_Run]) -> Iterator[_Run]:
    """Runs of lines as runs of rows."""
    begun: list[bytes] = []
    for run in runs:
        if isinstance(run, files.Damage):
            yield run
            return
        whole, begun = _rows(begun + run, _MAX_ROW_LINES)
        yield whole
    yield _rows(begun, 0)[0]


def _rows(run: list[bytes], max_begun: int) -> tuple[list[bytes], list[bytes]]:
    """Rows from lines; and the last lines, up to `max_begun`, if they begin a row.

    If its quote is open for longer, the first line is a row by itself.
    """
    whole: list[bytes] = []
    while True:
        closed, begun = _joined(run)
        whole += closed
        if len(begun) <= max_begun:
            return list(filter(operator.methodcaller("rstrip", b"\r"), whole)), begun
        whole.append(begun[0])
        run = begun[1:]


def _joined(run: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Lines joined where a quoted field goes on; and the lines behind a last open quote.

    Lines with an odd number of quotes open and close such a field, unless what they enclose is no
    proper row: then the first of the two is a row by itself.
    """
    odd = [index for index, line in enumerate(run) if line.count(b'"') % 2]
    whole: list[bytes] = []
    start = 0
    opens = None
    for index in odd:
        if opens is None:
            opens = index
            continue
        whole += run[start:opens]
        row = b"\n".join(run[opens : index + 1])
        if _QUOTED_ROW.fullmatch(row):
            whole.append(row)
            start, opens = index + 1, None
        else:
            whole.append(run[opens])
            start, opens = opens + 1, index
    end = len(run) if opens is None else opens
    return whole + run[start:end], run[end:]


class _CsvDecoder(rows.TextDecoder):
    """Decodes rows of a file whose header has these names."""

    def __init__(self, projection: batch.Projection, names: Sequence[str]) -> None:
        super().__init__([name for name in projection.columns if name in names])
        self.types = {name: pa.string() for name in projection.texts if name in names}
        self.names = names

    def parse(self, run: Sequence[bytes], types: Mapping[str, pa.DataType]) -> pa.RecordBatch:
        # The parser would close a quote that is open at the end.
        if run[-1].count(b'"') % 2 and _OPEN_FIELD.search(run[-1]):
            raise ValueError("a quote is never closed")
        try:
            table = self._read(b"\n".join(run), types)
        except pa.ArrowInvalid as error:
            raise ValueError(re.sub(r"Row #\d+: ", "", str(error))) from error
        if table.num_rows != len(run):
            raise ValueError(f"{table.num_rows} rows where {len(run)} should be")
        projected = rows.record_batch(table.select(self.columns))
        return pa.RecordBatch.from_arrays(
            [_empty_as_null(column) for column in projected.columns], projected.schema.names
        )

    def _read(self, text: bytes, types: Mapping[str, pa.DataType]) -> pa.Table:
        return pyarrow.csv.read_csv(
            io.BytesIO(text),
            pyarrow.csv.ReadOptions(
                use_threads=False, block_size=len(text) + 1, column_names=self.names
            ),
            pyarrow.csv.ParseOptions(newlines_in_values=True),
            pyarrow.csv.ConvertOptions(include_columns=self.columns, column_types=types),
        )

    def settle(self, column: pa.Array) -> pa.DataType | None:
        """Numbers, if all but a few damaged values are."""
        settled = super().settle(column)
        if settled != pa.string() or column.type != pa.string():
            return settled
        matches = pyarrow.compute.match_substring_regex(column, _NUMBER)
        share = pyarrow.compute.mean(matches).as_py()
        if share is None or share < 1 - _MAX_DAMAGED_SHARE:
            return settled
        numbers = column.filter(matches)
        whole = pyarrow.compute.all(pyarrow.compute.match_substring_regex(numbers, _INTEGER))
        return pa.int64() if whole.as_py() else pa.float64()


def _empty_as_null(column: pa.Array) -> pa.Array:
    if not pa.types.is_string(column.type):
        return column
    return pyarrow.compute.if_else(pyarrow.compute.equal(column, ""), None, column)
