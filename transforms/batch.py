"""What flows between the stages: shards, batches of decoded examples, scored batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from evalbeam.transforms.memo import Memo

# The split of `data.files`; all others are beside it.
MAIN_SPLIT = "eval"


@dataclass(frozen=True)
class Shard:
    """The part of the data that one task reads.

    `piece` is a Parquet row group's index; None is the whole file. `size_bytes` is the share of
    the file that the shard stands for, used for progress only.
    """

    split: str
    path: str
    format: str
    piece: int | None = None
    size_bytes: int = 0

    def __str__(self) -> str:
        return self.path if self.piece is None else f"{self.path} row group {self.piece}"


@dataclass(frozen=True)
class Projection:
    """What a format has to decode.

    Attributes:
      columns: names.
      serialized: whether the raw examples are kept too.
      texts: those of the columns that a format without types (CSV) is to leave as they stand: as
        numbers 007 would be 7, and a column that is numbers in one file, text in the next, two.
    """

    columns: tuple[str, ...]
    serialized: bool = False
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Batch:
    """Decoded examples of one shard, in file order.

    Attributes:
      shard: where they come from.
      positions: int64[N], each row's 0-based index in its file (for Parquet: in the whole file).
      columns: N rows; one Arrow column for each projected column that this batch has. A column
        that no row of the batch has may be absent. Scalars are primitive columns, or
        `list<primitive>` as tf.Example has them; a missing value is null or an empty list.
      serialized: object[N] of bytes, the raw serialised tf.Examples, where the projection asks for
        them: as NumPy has them, so that neither reading nor predicting copies them.
      memo: what versions take of the batch, and share.
    """

    shard: Shard
    positions: np.ndarray
    columns: pa.RecordBatch
    serialized: np.ndarray | None = None
    memo: Memo = field(default_factory=Memo, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.positions)

    def take(self, rows: np.ndarray) -> Batch:
        """The batch of these rows (int64 indices), in their order."""
        indices = pa.array(rows, pa.int64())
        return Batch(
            self.shard,
            self.positions[rows],
            self.columns.take(indices),
            None if self.serialized is None else self.serialized[rows],
        )


@dataclass(frozen=True)
class DeadLetter:
    """A row that could not be scored: where it stands, which stage gave up on it, and why.

    `position` is the row's 0-based index in its file, -1 where that is unknown. `rows` is how many
    rows are lost from there on; None, an unknown number, which no tolerance covers.
    """

    split: str
    path: str
    position: int
    stage: str
    reason: str
    rows: int | None = 1


@dataclass(frozen=True)
class Scored:
    """A batch whose every row has a label and every version's prediction.

    Attributes:
      batch: the examples, N rows.
      labels: by output, float64[N] (class index, 0/1 or a real value) or float64[N, K].
      weights: float64[N], or None when every example counts as one.
      hashes: uint64[N], each example's identity: the id column's hash, or the content's.
      predictions: by (version, output), float32 or float64, [N] or [N, K]; never NaN.
      predict_seconds: by version, what predicting this batch took.
    """

    batch: Batch
    labels: Mapping[str, np.ndarray]
    weights: np.ndarray | None
    hashes: np.ndarray
    predictions: Mapping[tuple[str, str], np.ndarray]
    predict_seconds: Mapping[str, float]
    _memo: Memo = field(default_factory=Memo, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.batch)

    def score_differences(self, original: str, converted: str, output: str) -> np.ndarray:
        """Each example's largest difference between two versions' scores, float64[N].

        Of scores that are infinite in both it is 0, or infinite where their signs differ.
        """

        def compute() -> np.ndarray:
            before, after = (self.predictions[model, output] for model in (original, converted))
            with np.errstate(invalid="ignore"):
                apart = np.abs(np.subtract(after, before, dtype=np.float64))
            apart[before == after] = 0.0
            return apart if apart.ndim == 1 else apart.max(axis=1)

        return self._memo.once((original, converted, output), compute)
