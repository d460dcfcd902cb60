"""What flows between the stages: shards, batches of decoded examples, scored batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from evalbeam.transforms.memo import Memo

# The split of `data.files`; `data.splits` has the others.
MAIN_SPLIT = "eval"


@dataclass(frozen=True)
class Dialect:
    """How CSV files are written.

    Attributes:
      delimiter: the character between columns.
      encoding: the name of the text's encoding, as Python knows it.
    """

    delimiter: str = ","
    encoding: str = "utf-8"


@dataclass(frozen=True)
class Stamp:
    """What differs if a file's content does, known without reading it.

    Attributes:
      size_bytes: the file's size.
      modified: nanoseconds since 1970 for a local file; for a remote one its ETag, or seconds since
        1970 if Beam's filesystem gives no ETag.
      node: the device and inode of a local file.
    """

    size_bytes: int
    modified: int | float | str
    node: tuple[int, int] | None = None

    def matches(self, other: Stamp) -> bool:
        """Whether both are of the same content, seen from one machine or from two."""
        if (self.size_bytes, self.modified) != (other.size_bytes, other.modified):
            return False
        if self.node is None or other.node is None:
            return True
        # Machines number the device of a shared folder each in their own way, and a FUSE
        # filesystem its files, too.
        return self.node == other.node or self.node[0] != other.node[0]


@dataclass(frozen=True)
class Shard:
    """The part of the data that one task reads.

    `piece` is the index of a Parquet row group, or None for the whole file. `size_bytes` is the
    shard's share of the file's size, `dialect` how a CSV file is written. `stamp` is the file's
    when it was listed; a shard without one is read whatever happens to its file.
    """

    split: str
    path: str
    format: str
    piece: int | None = None
    size_bytes: int = 0
    dialect: Dialect = Dialect()
    stamp: Stamp | None = None

    def __str__(self) -> str:
        return self.path if self.piece is None else f"{self.path} row group {self.piece}"


@dataclass(frozen=True)
class Projection:
    """What a format must decode.

    Attributes:
      columns: the column names.
      serialized: whether to keep the raw examples, too.
      texts: the columns that an untyped format (CSV) must keep as text. As a number, 007 would
        become 7, and a column could be numeric in one file and text in the next.
    """

    columns: tuple[str, ...]
    serialized: bool = False
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Batch:
    """Decoded examples of one shard, in file order.

    Attributes:
      shard: the shard they are from.
      positions: int64[N], each row's 0-based index in its file (for Parquet: in the whole file).
      columns: N rows; one Arrow column for each projected column that this batch has. A column
        that no row of the batch has may be absent. Scalars are primitive columns, or
        `list<primitive>` as in tf.Example; a missing value is null or an empty list.
      serialized: object[N] of bytes, the raw serialised tf.Examples if the projection asks for
        them; a NumPy array, so that neither reading nor predicting copies them.
      memo: values derived from the batch that versions share.
    """

    shard: Shard
    positions: np.ndarray
    columns: pa.RecordBatch
    serialized: np.ndarray | None = None
    memo: Memo = field(default_factory=Memo, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.positions)

    def name_row(self, row: int) -> str:
        """Where a row is, for an error message."""
        return f"{self.shard}, {_name_row(int(self.positions[row]))}"

    def take(self, rows: np.ndarray) -> Batch:
        """The batch of these rows (int64 indices), in this order."""
        indices = pa.array(rows, pa.int64())
        return Batch(
            self.shard,
            self.positions[rows],
            self.columns.take(indices),
            None if self.serialized is None else self.serialized[rows],
        )

    def with_columns(self, columns: Mapping[str, pa.Array]) -> Batch:
        """The batch with more columns, or others of the same name."""
        names = self.columns.schema.names
        arrays = {name: self.columns.column(name) for name in names} | dict(columns)
        record = pa.RecordBatch.from_pydict(arrays) if arrays else self.columns
        return Batch(self.shard, self.positions, record, self.serialized)


def _name_row(position: int) -> str:
    return "somewhere" if position < 0 else f"row {position + 1} (counted from 1)"


@dataclass(frozen=True)
class DeadLetter:
    """A row that could not be scored: its position, the stage that rejected it, and the reason.

    `position` is the row's 0-based index in its file, or -1 if unknown. `rows` is the number of
    rows lost from there on; None is an unknown number, which exceeds any tolerance.
    """

    split: str
    path: str
    position: int
    stage: str
    reason: str
    rows: int | None = 1

    def __str__(self) -> str:
        """Where it is, and the reason."""
        return f"{self.path}, {_name_row(self.position)}: {self.reason}"

    @property
    def least(self) -> int:
        """The rows lost: at least one if the number is unknown."""
        return self.rows or 1


@dataclass(frozen=True)
class OpenEnd:
    """Precedes the last row of a text file that ends without a line end: it may be cut off."""


@dataclass(frozen=True)
class Seen:
    """What was seen of a version's scores of one output; merges by adding.

    Attributes:
      rows: the number of rows.
      low, high: the smallest and the largest score.
      outside: rows with a score outside [0, 1].
      unnormalized: of a multi-class output, rows that do not sum to one.
      graded: rows with a score other than 0 and 1.
      given_low, given_high: the smallest and the largest of them before any conversion.
    """

    rows: int = 0
    low: float = np.inf
    high: float = -np.inf
    outside: int = 0
    unnormalized: int = 0
    graded: int = 0
    given_low: float = np.inf
    given_high: float = -np.inf

    def merge(self, other: Seen) -> Seen:
        """What both saw."""
        return Seen(
            self.rows + other.rows,
            min(self.low, other.low),
            max(self.high, other.high),
            self.outside + other.outside,
            self.unnormalized + other.unnormalized,
            self.graded + other.graded,
            min(self.given_low, other.given_low),
            max(self.given_high, other.given_high),
        )


@dataclass(frozen=True)
class Scored:
    """A batch in which every row has a label and a prediction of each version.

    Attributes:
      batch: the examples, N rows.
      labels: by output, float64[N] (class index, 0/1 or a real value) or float64[N, K].
      weights: float64[N], or None if every example counts as one.
      hashes: uint64[N], each example's identity: the hash of its id, or of its content.
      predictions: by (version, output), float32 or float64, [N] or [N, K]; finite, or -inf for a
        class that has no score beside scores below 0.
      predict_seconds: by version, the time to predict this batch.
      seen: by (version, output), what was seen of the scores of classification outputs.
    """

    batch: Batch
    labels: Mapping[str, np.ndarray]
    weights: np.ndarray | None
    hashes: np.ndarray
    predictions: Mapping[tuple[str, str], np.ndarray]
    predict_seconds: Mapping[str, float]
    seen: Mapping[tuple[str, str], Seen] = field(default_factory=dict)
    _memo: Memo = field(default_factory=Memo, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.batch)

    def score_differences(self, original: str, converted: str, output: str) -> np.ndarray:
        """Each example's largest difference between two versions' scores, float64[N].

        If both scores are infinite, it is 0 for the same sign and infinite otherwise.
        """

        def compute() -> np.ndarray:
            before, after = (self.predictions[model, output] for model in (original, converted))
            with np.errstate(invalid="ignore"):
                differences = np.abs(np.subtract(after, before, dtype=np.float64))
            differences[before == after] = 0.0
            return differences if differences.ndim == 1 else differences.max(axis=1)

        return self._memo.once((original, converted, output), compute)
