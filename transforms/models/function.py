"""A function over named NumPy arrays: what TFLite, ONNX and TensorFlow.js models are here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

import numpy as np

from evalbeam.transforms import batch, errors, models
from evalbeam.transforms.models import columns, tensors

Arrays = dict[str, np.ndarray]


class Function:
    """A version that is a function of named arrays to named arrays.

    Args:
      spec: the version.
      call: the function: arrays of N rows by input, and which outputs are wanted; threads call it
        at once.
      takes: the inputs.
      gives: the outputs.
      parameters: how many numbers were trained.
      pid: the process that it runs in, if that is not this one.

    Raises:
      ConfigError: inputs that columns cannot fill, or outputs that cannot be evaluated.
    """

    def __init__(
        self,
        spec: models.ModelSpec,
        call: Callable[[Arrays, Collection[str]], Arrays],
        takes: Iterable[tensors.Tensor],
        gives: Iterable[tensors.Tensor],
        parameters: int | None = None,
        pid: int | None = None,
    ) -> None:
        self._call = call
        self._chosen = tensors.chosen(spec.outputs, gives)
        self.inputs = tensors.inputs(spec, takes)
        if not self.inputs:
            raise errors.ConfigError("it has no inputs, so its predictions are of no example")
        self.outputs = tuple(self._chosen)
        self.projection = batch.Projection(columns.names(self.inputs))
        self.parameters = parameters
        self.pid = pid

    def predict(self, examples: batch.Batch) -> Arrays:
        """By output, float32 or float64, [N] or [N, K]; see models.Model."""
        arrays = columns.arrays(self.inputs, examples)
        results = self._call(arrays, self._chosen.values())
        return {
            output: tensors.prediction(name, results[name], len(examples))
            for output, name in self._chosen.items()
        }


def in_pieces(call: Callable[[Arrays], Arrays], arrays: Arrays, rows: int | None) -> Arrays:
    """The predictions of N rows by a function that takes exactly `rows` at once; None: any number.

    The last piece is filled up with copies of its last row, whose predictions are dropped.

    Raises:
      JobError: the function does not give one prediction for each row.
    """
    if rows is None:
        return call(arrays)
    total = len(next(iter(arrays.values())))
    pieces = []
    for start in range(0, total, rows):
        results = call({name: _piece(array, start, rows) for name, array in arrays.items()})
        pieces.append(
            {name: tensors.prediction(name, array, rows) for name, array in results.items()}
        )
    return {name: np.concatenate([piece[name] for piece in pieces])[:total] for name in pieces[0]}


def _piece(array: np.ndarray, start: int, rows: int) -> np.ndarray:
    piece = array[start : start + rows]
    if len(piece) == rows:
        return piece
    return np.concatenate([piece, np.repeat(piece[-1:], rows - len(piece), axis=0)])
