"""Models that are functions of named NumPy arrays: TFLite, ONNX and TensorFlow.js."""

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
      call: the function, called with arrays of N rows by input and the names of the outputs to
        return; it must be thread-safe.
      input_tensors: the inputs.
      output_tensors: the outputs.
      parameters: the number of trained parameters.
      pid: the process that it runs in, if not this one.
      vocabularies: lists of names of classes that its files have.

    Raises:
      ConfigError: columns cannot fill the inputs, or the outputs cannot be evaluated.
    """

    def __init__(
        self,
        spec: models.ModelSpec,
        call: Callable[[Arrays, Collection[str]], Arrays],
        input_tensors: Iterable[tensors.Tensor],
        output_tensors: Iterable[tensors.Tensor],
        parameters: int | None = None,
        pid: int | None = None,
        vocabularies: Iterable[tuple[str, ...]] = (),
    ) -> None:
        self._call = call
        declared = {tensor.name: tensor for tensor in output_tensors}
        self._names = tensors.choose_outputs(spec.outputs, declared.values())
        self._classes = {
            output: names
            for output, name in self._names.items()
            if (names := tensors.choose_classes(declared[name], vocabularies))
        }
        self.inputs = tensors.bind_inputs(spec, input_tensors)
        if not self.inputs:
            raise errors.ConfigError("it has no inputs, so it cannot predict examples")
        self.outputs = tuple(self._names)
        self.projection = batch.Projection(
            columns.names(self.inputs), texts=columns.texts(self.inputs)
        )
        self.parameters = parameters
        self.pid = pid

    def predict(self, examples: batch.Batch) -> Arrays:
        """By output, float32 or float64, [N] or [N, K]; see models.Model."""
        arrays = columns.arrays(self.inputs, examples)
        results = self._call(arrays, self._names.values())
        return {
            output: tensors.to_prediction(name, results[name], len(examples))
            for output, name in self._names.items()
        }

    def classes(self, examples: batch.Batch) -> dict[str, tuple[str, ...]]:
        """The names of the classes, by output; see models.Model."""
        return self._classes


def call_in_pieces(call: Callable[[Arrays], Arrays], arrays: Arrays, rows: int | None) -> Arrays:
    """Predicts N rows with a function that takes exactly `rows` rows; None: any number.

    The last piece is padded with copies of its last row, whose predictions are dropped.

    Raises:
      JobError: the function does not return one prediction per row.
    """
    if rows is None:
        return call(arrays)
    total = len(next(iter(arrays.values())))
    pieces = []
    for start in range(0, total, rows):
        results = call({name: _cut_piece(array, start, rows) for name, array in arrays.items()})
        pieces.append(
            {name: tensors.to_prediction(name, array, rows) for name, array in results.items()}
        )
    return {name: np.concatenate([piece[name] for piece in pieces])[:total] for name in pieces[0]}


def _cut_piece(array: np.ndarray, start: int, rows: int) -> np.ndarray:
    piece = array[start : start + rows]
    if len(piece) == rows:
        return piece
    return np.concatenate([piece, np.repeat(piece[-1:], rows - len(piece), axis=0)])
