"""Stored predictions: columns of the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from evalbeam.transforms import arrow, batch, errors, models
from evalbeam.transforms.models import columns
from evalbeam.transforms.models.columns import Input


@dataclass(frozen=True)
class Stored:
    """Columns of predictions, used as a model.

    Attributes:
      declared: the columns of each output; several hold a score for each class.
      listed: the column of the classes of each score, where rows list the largest scores only.
    """

    declared: tuple[Input, ...]
    listed: str = ""
    parameters: None = None
    pid: None = None

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The inputs of all outputs; () of lists, whose lengths differ."""
        if self.listed:
            return ()
        return self.declared

    @property
    def projection(self) -> batch.Projection:
        """The predictions' columns."""
        listed = [self.listed] if self.listed else []
        return batch.Projection((*columns.names(self.declared), *listed))

    @property
    def outputs(self) -> tuple[str, ...]:
        """The outputs' names."""
        return tuple(declared.name for declared in self.declared)

    def predict(self, examples: batch.Batch) -> dict[str, np.ndarray]:
        """By output, what the columns hold.

        Scores are float64, [N] for scalars and lists of one, else [N, K]; names of classes
        object[N] of text or bytes; lists of the largest scores a structured array [N] with the
        fields `classes`, object[k] with None beyond a list's end, and `scores`, float64[k].
        """
        if self.listed:
            (declared,) = self.declared
            return {declared.name: _read_lists(examples, declared.column, self.listed)}
        values = columns.arrays(self.declared, examples)
        return {declared.name: _as_scores(declared, values) for declared in self.declared}

    def classes(self, examples: batch.Batch) -> dict[str, tuple[str, ...]]:
        """None: `data.classes` has the order of columns; see models.Model."""
        return {}


def load(spec: models.ModelSpec, path: str) -> Stored:
    """The columns in the spec; loads nothing."""
    if not spec.predictions:
        raise errors.ConfigError("it has no column of predictions; set `predictions: <column>`")
    pairs = dict(spec.predictions)
    unknown = [output for output in spec.outputs if output not in pairs]
    if unknown:
        raise errors.ConfigError(
            f"unknown output {unknown[0]!r}; it has predictions for {errors.listed(pairs)}"
        )
    outputs = spec.outputs or tuple(pairs)
    return Stored(
        tuple(
            Input("" if len(outputs) == 1 else output, first, None, None, more=tuple(more))
            for output in outputs
            for first, *more in [pairs[output]]
        ),
        spec.classes,
    )


def _as_scores(declared: Input, values: Mapping[str, np.ndarray]) -> np.ndarray:
    """Numbers as float64, names of classes as they are."""
    array = values[declared.name]
    if array.dtype != object:
        cast, exact = arrow.cast_values(array, np.dtype("f8"))
        inexact = np.logical_not(exact.reshape(len(array), -1).all(axis=1))
        arrow.refuse(inexact, lambda row: f"{declared}: float64 cannot represent {array[row]}")
        return cast
    if array.ndim > 1:
        raise errors.DataError(f"{declared} holds several texts per row; predictions are numbers")
    return array


def _read_lists(examples: batch.Batch, scores: str, listed: str) -> np.ndarray:
    """The lists of two columns, score by score and class by class."""
    names = examples.columns.schema.names
    for column in (scores, listed):
        if column not in names:
            raise errors.DataError(
                f"no row has the column {column!r}; there are {errors.nearest(column, names)}"
            )
    (numbers, lengths), (values, counts) = (
        arrow.flatten(examples.columns.column(column)) for column in (scores, listed)
    )
    arrow.refuse(
        lengths != counts,
        lambda row: f"{lengths[row]} scores in {scores!r}, but {counts[row]} classes in {listed!r}",
    )
    arrow.refuse(lengths == 0, lambda row: f"no value for column {scores!r}")
    if not arrow.is_number(numbers.type):
        raise errors.DataError(f"column {scores!r} takes numbers, but the data has {numbers.type}")
    width = int(lengths.max())
    result = np.zeros(len(examples), [("classes", object, (width,)), ("scores", "f8", (width,))])
    result["classes"] = None
    rows = np.repeat(np.arange(len(examples)), lengths)
    places = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    result["scores"][rows, places] = numbers.cast(pa.float64()).to_numpy(zero_copy_only=False)
    result["classes"][rows, places] = values.to_pylist()
    return result
