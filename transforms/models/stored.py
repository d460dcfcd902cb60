"""Stored predictions: columns of the data, scalars or lists."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evalbeam.transforms import batch, errors, models
from evalbeam.transforms.models import columns


@dataclass(frozen=True)
class Stored:
    """Columns of predictions, used as a model."""

    inputs: tuple[columns.Input, ...]
    parameters: None = None
    pid: None = None

    @property
    def projection(self) -> batch.Projection:
        """The predictions' columns."""
        return batch.Projection(columns.names(self.inputs))

    @property
    def outputs(self) -> tuple[str, ...]:
        """The outputs' names."""
        return tuple(declared.name for declared in self.inputs)

    def predict(self, examples: batch.Batch) -> dict[str, np.ndarray]:
        """By output, float64[N] for scalars and lists of one, else float64[N, K]."""
        return columns.arrays(self.inputs, examples)


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
            columns.Input("" if len(outputs) == 1 else output, pairs[output], np.dtype("f8"), None)
            for output in outputs
        )
    )
