"""Stored predictions: columns of the data."""

from __future__ import annotations

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
      predictions: (output, inputs) pairs; several inputs hold a score for each class.
      listed: the column of the classes of each score, where rows list the largest scores only.
    """

    predictions: tuple[tuple[str, tuple[Input, ...]], ...]
    listed: str = ""
    parameters: None = None
    pid: None = None

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The inputs of all outputs; () of lists, whose lengths differ."""
        if self.listed:
            return ()
        return tuple(declared for _, inputs in self.predictions for declared in inputs)

    @property
    def projection(self) -> batch.Projection:
        """The predictions' columns."""
        inputs = [declared for _, inputs in self.predictions for declared in inputs]
        listed = [self.listed] if self.listed else []
        return batch.Projection((*columns.names(inputs), *listed))

    @property
    def outputs(self) -> tuple[str, ...]:
        """The outputs' names."""
        return tuple(output for output, _ in self.predictions)

    def predict(self, examples: batch.Batch) -> dict[str, np.ndarray]:
        """By output, what the columns hold.

        Scores are float64, [N] for scalars and lists of one, else [N, K]; names of classes
        object[N] of bytes; lists of the largest scores a structured array [N] with the fields
        `classes`, object[k] with None beyond a list's end, and `scores`, float64[k].
        """
        if self.listed:
            ((output, (declared,)),) = self.predictions
            return {output: _read_lists(examples, declared.column, self.listed)}
        return {output: _read(inputs, examples) for output, inputs in self.predictions}


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
            (
                "" if len(outputs) == 1 else output,
                tuple(Input("", column, None, None) for column in pairs[output]),
            )
            for output in outputs
        ),
        spec.classes,
    )


def _read(inputs: tuple[Input, ...], examples: batch.Batch) -> np.ndarray:
    pieces = [_as_scores(declared, examples) for declared in inputs]
    if len(pieces) == 1:
        return pieces[0]
    for declared, piece in zip(inputs, pieces, strict=True):
        if piece.dtype == object or piece.ndim > 1:
            raise errors.JobError(
                f"{declared} is one of {len(inputs)} columns of predictions, so it must hold one "
                "number per row"
            )
    return np.stack(pieces, axis=1)


def _as_scores(declared: Input, examples: batch.Batch) -> np.ndarray:
    values = columns.arrays((declared,), examples)[declared.name]
    if values.dtype == object:
        if values.ndim > 1:
            raise errors.JobError(f"{declared} holds lists of text; predictions are numbers")
        return values
    size = values[0].size if len(values) else 1
    cast = arrow.cast(values.reshape(-1), np.dtype("f8"), size, str(declared))
    return cast.reshape(values.shape)


def _read_lists(examples: batch.Batch, scores: str, listed: str) -> np.ndarray:
    """The lists of two columns, score by score and class by class."""
    names = examples.columns.schema.names
    for column in (scores, listed):
        if column not in names:
            raise errors.JobError(
                f"no row has the column {column!r}.{errors.did_you_mean(column, names)}"
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
        raise errors.JobError(f"column {scores!r} takes numbers, but the data has {numbers.type}")
    width = int(lengths.max())
    result = np.zeros(len(examples), [("classes", object, (width,)), ("scores", "f8", (width,))])
    result["classes"] = None
    rows = np.repeat(np.arange(len(examples)), lengths)
    places = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    result["scores"][rows, places] = numbers.cast(pa.float64()).to_numpy(zero_copy_only=False)
    result["classes"][rows, places] = values.to_pylist()
    return result
