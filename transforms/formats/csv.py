"""CSV files with a header row, plain or compressed; quoted values may contain line breaks.

Columns are int64, double, bool or string. An empty field is null, quoted or not. NA, NaN, null and
the like are null in columns of numbers or booleans, and text in columns of strings.
"""

from __future__ import annotations

import codecs
import csv
import functools
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

SUFFIXES = (".csv", ".tsv")

# A quote that is still open after this many lines is a mistake: its line is damaged.
_MAX_ROW_LINES = 10_000

# Other delimiters that a header of a single column may have been written with.
_DELIMITERS = ";\t|"

_INTEGER = r"^ *[+-]?[0-9]+ *$"
_NUMBER = r"^ *[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)? *$"

# If a smaller share of a column's values is not numeric, the column is numeric and they are damage.
_MAX_DAMAGED_SHARE = 0.1


def pieces(path: str, size_bytes: int) -> list[tuple[int | None, int]]:
    """One piece: rows are counted from the start of the file."""
    return [(None, size_bytes)]


def starts(block: bytes) -> bool:
    """False: any text may be CSV."""
    return False


def columns(shard: batch.Shard) -> tuple[str, ...] | None:
    """The names in the header; () for an empty file.

    Raises:
      ConfigError: the header is damaged, or has another delimiter.
    """
    try:
        names, _ = _split_header(_runs(shard), shard.dialect.delimiter)
    except ValueError as error:
        raise errors.ConfigError(f"{shard.path}: {error}") from error
    if len(names) == 1 and (others := [mark for mark in _DELIMITERS if mark in names[0]]):
        mark = "\\t" if others[0] == "\t" else others[0]
        raise errors.ConfigError(
            f"{shard.path}: its header is a single column, {names[0]!r}; if {mark!r} separates "
            f'columns, set `data: {{csv: {{delimiter: "{mark}"}}}}`'
        )
    return names


def first_columns(shard: batch.Shard) -> tuple[str, ...]:
    """The columns in the header."""
    return columns(shard) or ()


def read(
    shard: batch.Shard, projection: batch.Projection, batch_size: int
) -> Iterator[batch.Batch | batch.DeadLetter | batch.OpenEnd]:
    """The shard's rows in batches, and a dead letter for each damaged row.

    Positions count the rows below the header, without blank lines. `projection.serialized` has no
    effect, as there is no tf.Example.
    """
    try:
        names, runs = _split_header(_runs(shard), shard.dialect.delimiter)
    except ValueError as error:
        yield rows.dead_letter(shard, -1, f"the file cannot be read: {error}", None)
    else:
        decoder = _CsvDecoder(projection, names, shard.dialect.delimiter)
        yield from rows.read(shard, runs, decoder, batch_size)


_Run = list[bytes] | files.Damage | batch.OpenEnd


def _split_header(runs: Iterator[_Run], delimiter: str) -> tuple[tuple[str, ...], Iterator[_Run]]:
    first = next((run for run in runs if run and not isinstance(run, batch.OpenEnd)), None)
    if first is None:
        return (), runs
    if isinstance(first, files.Damage):
        raise ValueError(first.reason)
    try:
        header = first[0].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"its header is not UTF-8 text ({error.reason}); set the encoding, such as "
            "`data: {csv: {encoding: latin-1}}` or utf-16"
        ) from error
    try:
        names = tuple(next(csv.reader([header], delimiter=delimiter)))
    except csv.Error as error:
        raise ValueError(f"its header is not one row of names: {error}") from error
    duplicates = {name for name in names if names.count(name) > 1}
    if duplicates:
        raise ValueError(f"columns appear twice in the header: {sorted(duplicates)}")
    return names, itertools.chain([first[1:]], runs)


def _runs(shard: batch.Shard) -> Iterator[_Run]:
    """Runs of rows, in UTF-8."""
    quoted_row = _quoted_row(shard.dialect.delimiter)
    pending: list[bytes] = []
    for run in lines.runs(_encode(files.blocks(shard.path), shard.dialect.encoding)):
        if isinstance(run, files.Damage):
            yield run
            return
        if isinstance(run, batch.OpenEnd):
            yield run
            continue
        complete, pending = _split_rows(pending + run, _MAX_ROW_LINES, quoted_row)
        yield complete
    if len(pending) == 1:  # The last line opens a quote, so what ends it is missing.
        yield batch.OpenEnd()
    yield _split_rows(pending, 0, quoted_row)[0]


def _encode(
    blocks: Iterator[bytes | files.Damage], encoding: str
) -> Iterator[bytes | files.Damage]:
    """The blocks of text in this encoding as UTF-8."""
    if codecs.lookup(encoding).name == "utf-8":
        yield from blocks
        return
    decoder = codecs.getincrementaldecoder(encoding)()
    for block in blocks:
        if isinstance(block, files.Damage):
            yield block
            return
        try:
            yield decoder.decode(block).encode()
        except UnicodeDecodeError as error:
            yield files.Damage(f"the rest of the file is not {encoding}: {error}", rows=None)
            return
    try:
        yield decoder.decode(b"", final=True).encode()
    except UnicodeDecodeError as error:
        yield files.Damage(f"the file ends within a character of {encoding}: {error}", rows=None)


@functools.cache
def _open_field(delimiter: str) -> re.Pattern[bytes]:
    """A quoted field that is still open at the end of the row."""
    return re.compile(rb'(?:^|%b)"(?:[^"]|"")*$' % re.escape(delimiter.encode()))


@functools.cache
def _quoted_row(delimiter: str) -> re.Pattern[bytes]:
    """A row that may span lines: each field is fully quoted, or has no quote and no line break."""
    mark = re.escape(delimiter.encode())
    field = rb'(?:"[^"]*(?:""[^"]*)*"|[^"%b\r\n]*)' % mark
    return re.compile(rb"%b(?:%b%b)*\r?" % (field, mark, field))


def _split_rows(
    run: list[bytes], max_pending: int, quoted_row: re.Pattern[bytes]
) -> tuple[list[bytes], list[bytes]]:
    """The complete rows in these lines, and the last lines, up to `max_pending`, of an open row.

    If a quote stays open for longer, its line is a row by itself.
    """
    complete: list[bytes] = []
    while True:
        closed, pending = _join_quoted(run, quoted_row)
        complete += closed
        if len(pending) <= max_pending:
            return list(filter(operator.methodcaller("rstrip", b"\r"), complete)), pending
        complete.append(pending[0])
        run = pending[1:]


def _join_quoted(
    run: list[bytes], quoted_row: re.Pattern[bytes]
) -> tuple[list[bytes], list[bytes]]:
    """Joins the lines of quoted fields; returns the rows, and the lines from a last open quote on.

    Lines with an odd number of quotes open and close such a field, unless they do not enclose a
    valid row: then the first of the two is a row by itself.
    """
    odd = [index for index, line in enumerate(run) if line.count(b'"') % 2]
    complete: list[bytes] = []
    start = 0
    opening = None
    for index in odd:
        if opening is None:
            opening = index
            continue
        complete += run[start:opening]
        row = b"\n".join(run[opening : index + 1])
        if quoted_row.fullmatch(row):
            complete.append(row)
            start, opening = index + 1, None
        else:
            complete.append(run[opening])
            start, opening = opening + 1, index
    end = len(run) if opening is None else opening
    return complete + run[start:end], run[end:]


class _CsvDecoder(rows.TextDecoder):
    """Decodes the rows of a file with these names in its header."""

    def __init__(self, projection: batch.Projection, names: Sequence[str], delimiter: str) -> None:
        super().__init__([name for name in projection.columns if name in names])
        self.types = {name: pa.string() for name in projection.texts if name in names}
        self.names = names
        self.delimiter = delimiter

    def parse(self, run: Sequence[bytes], types: Mapping[str, pa.DataType]) -> pa.RecordBatch:
        # The parser would silently close a quote that is still open at the end.
        if run[-1].count(b'"') % 2 and _open_field(self.delimiter).search(run[-1]):
            raise ValueError("a quote is never closed")
        try:
            table = self._read(b"\n".join(run), types)
        except pa.ArrowInvalid as error:
            reason = re.sub(r"Row #\d+: ", "", str(error))
            if "UTF8" in reason:
                reason += "; if the file has another encoding, set `data: {csv: {encoding: ...}}`"
            raise ValueError(reason) from error
        if table.num_rows != len(run):
            raise rows.MiscountError(
                f"parsed {table.num_rows} rows, expected {len(run)}", table.num_rows
            )
        projected = rows.record_batch(table.select(self.columns))
        return pa.RecordBatch.from_arrays(
            [_empty_to_null(column) for column in projected.columns], projected.schema.names
        )

    def _read(self, text: bytes, types: Mapping[str, pa.DataType]) -> pa.Table:
        return pyarrow.csv.read_csv(
            io.BytesIO(text),
            pyarrow.csv.ReadOptions(
                use_threads=False, block_size=len(text) + 1, column_names=self.names
            ),
            pyarrow.csv.ParseOptions(delimiter=self.delimiter, newlines_in_values=True),
            pyarrow.csv.ConvertOptions(include_columns=self.columns, column_types=types),
        )

    def settle(self, column: pa.Array) -> pa.DataType | None:
        """A numeric type if all but a few damaged values are numbers."""
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


def _empty_to_null(column: pa.Array) -> pa.Array:
    if not pa.types.is_string(column.type):
        return column
    return pyarrow.compute.if_else(pyarrow.compute.equal(column, ""), None, column)
