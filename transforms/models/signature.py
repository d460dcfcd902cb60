"""A TensorFlow function over named tensors: what SavedModels and Keras models have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from evalbeam.transforms import batch, models
from evalbeam.transforms.models import columns, serialized, tensors

Tensors = dict[str, tf.Tensor]


class Signature:
    """A version that is a function of named tensors to named tensors.

    Args:
      spec: the version.
      call: the traced function, open in the number of rows so that no batch size retraces it.
      takes: by input name, its tf.TensorSpec.
      gives: by output name, its tf.TensorSpec or symbolic tensor.
      takes_serialized: whether it takes serialised tf.Examples, through its only input.
      parameters: how many numbers were trained.

    Raises:
      ConfigError: inputs that columns cannot fill, or outputs that cannot be evaluated.
    """

    pid = None

    def __init__(
        self,
        spec: models.ModelSpec,
        call: Callable[[Tensors], Tensors],
        takes: Mapping[str, tf.TensorSpec],
        gives: Mapping[str, tf.TensorSpec],
        takes_serialized: bool = False,
        parameters: int | None = None,
    ) -> None:
        self._call = call
        self._takes = dict(takes)
        self._takes_serialized = takes_serialized
        self.inputs = () if takes_serialized else _inputs(spec, takes)
        self._chosen = tensors.chosen(spec.outputs, map(_tensor, gives, gives.values()))
        self.outputs = tuple(self._chosen)
        self.projection = batch.Projection(columns.names(self.inputs), takes_serialized)
        self.parameters = parameters

    def predict(self, examples: batch.Batch) -> dict[str, np.ndarray]:
        """By output, float32 or float64, [N] or [N, K]; see models.Model."""
        results = self._call(self._tensors(examples))
        return {
            output: tensors.prediction(name, results[name].numpy(), len(examples))
            for output, name in self._chosen.items()
        }

    def _tensors(self, examples: batch.Batch) -> Tensors:
        if self._takes_serialized:
            (name,) = self._takes
            return {name: serialized.tensor(examples)}
        arrays = columns.arrays(self.inputs, examples)
        return {
            name: tf.convert_to_tensor(array, self._takes[name].dtype)
            for name, array in arrays.items()
        }


def _inputs(
    spec: models.ModelSpec, takes: Mapping[str, tf.TensorSpec]
) -> tuple[columns.Input, ...]:
    declared = [_tensor(name, one) for name, one in takes.items()]
    tensors.refuse_fixed_rows(declared)
    return tensors.inputs(spec, declared)


def _tensor(name: str, spec: tf.TensorSpec) -> tensors.Tensor:
    """The spec of a dense tensor; a sparse or ragged one has no shape that a column could fill."""
    dense = isinstance(spec, (tf.TensorSpec, tf.Tensor)) and spec.shape.rank is not None
    shape = tuple(spec.shape.as_list()) if dense else None
    return tensors.Tensor(name, np.dtype(spec.dtype.as_numpy_dtype), shape)
