"""TensorFlow functions over named tensors, shared by SavedModels and Keras models."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from evalbeam.transforms import arrow, batch, errors, models
from evalbeam.transforms.models import columns, serialized, tensors

Tensors = dict[str, tf.Tensor]

# The outputs of TensorFlow's estimators, and those that name the classes of each score.
_CLASSES = {"scores": "classes", "probabilities": "all_classes", "logits": "all_classes"}
# So many examples must agree on the order of classes.
_TRIED = 8


class Signature:
    """A version that is a function of named tensors to named tensors.

    Args:
      spec: the version.
      call: the function, traced for any number of rows, so that no batch size retraces it.
      input_specs: input name -> tf.TensorSpec.
      output_specs: output name -> tf.TensorSpec or symbolic tensor.
      takes_serialized: whether its only input takes serialised tf.Examples.
      parameters: the number of trained parameters.
      parts: the ragged and sparse inputs by name, which `input_specs` has as their parts.

    Raises:
      ConfigError: columns cannot fill the inputs, or the outputs cannot be evaluated.
    """

    pid = None

    def __init__(
        self,
        spec: models.ModelSpec,
        call: Callable[[Tensors], Tensors],
        input_specs: Mapping[str, tf.TensorSpec],
        output_specs: Mapping[str, tf.TensorSpec],
        takes_serialized: bool = False,
        parameters: int | None = None,
        parts: Mapping[str, columns.Parts] | None = None,
    ) -> None:
        self._call = call
        self._input_specs = dict(input_specs)
        self._takes_serialized = takes_serialized
        self.inputs = () if takes_serialized else _bind_inputs(spec, input_specs, parts or {})
        output_tensors = list(map(_tensor, output_specs, output_specs.values()))
        texts = {each.name for each in output_tensors if each.dtype == object}
        requested = spec.outputs
        if texts == {"classes"} and set(output_specs) == {"classes", "scores"}:
            requested = requested or ("scores",)
        self._names = tensors.choose_outputs(requested, output_tensors)
        self._classes = {
            output: _CLASSES[name]
            for output, name in self._names.items()
            if _CLASSES.get(name) in texts
        }
        self.outputs = tuple(self._names)
        self.projection = batch.Projection(
            columns.names(self.inputs), takes_serialized, columns.texts(self.inputs)
        )
        self.parameters = parameters

    def predict(self, examples: batch.Batch) -> dict[str, np.ndarray]:
        """By output, float32 or float64, [N] or [N, K]; see models.Model."""
        results = self._call(self._tensors(examples))
        return {
            output: tensors.to_prediction(name, results[name].numpy(), len(examples))
            for output, name in self._names.items()
        }

    def classes(self, examples: batch.Batch) -> dict[str, tuple[str, ...]]:
        """The names of the classes, by output of an estimator; see models.Model."""
        return {
            output: names
            for output, source in self._classes.items()
            if (names := self._read_classes(source, examples))
        }

    def _read_classes(self, source: str, examples: batch.Batch) -> tuple[str, ...]:
        found: list[tuple[str, ...]] = []
        for row in range(len(examples)):
            with contextlib.suppress(arrow.UnscorableRowsError, tf.errors.OpError):
                results = self._call(self._tensors(examples.take(np.array([row]))))
                found.append(tuple(name.decode() for name in results[source].numpy().ravel()))
            if len(found) == _TRIED:
                break
        if len(set(found)) > 1:
            first, other, *_ = dict.fromkeys(found)
            raise errors.ConfigError(
                f"its output {source!r} has the classes in the order {errors.shortened(first)} for "
                f"one example, and {errors.shortened(other)} for another; scores must be of the "
                "same classes in all. Export a signature without sorting"
            )
        return found[0] if found else ()

    def _tensors(self, examples: batch.Batch) -> Tensors:
        if self._takes_serialized:
            (name,) = self._input_specs
            return {name: serialized.tensor(examples)}
        arrays = columns.arrays(self.inputs, examples)
        return {
            name: tf.convert_to_tensor(array, self._input_specs[name].dtype)
            for name, array in arrays.items()
        }


def _bind_inputs(
    spec: models.ModelSpec,
    input_specs: Mapping[str, tf.TensorSpec],
    parts: Mapping[str, columns.Parts],
) -> tuple[columns.Input, ...]:
    hidden = {part for each in parts.values() for part in each.names}
    dense = [_tensor(name, each) for name, each in input_specs.items() if name not in hidden]
    tensors.refuse_fixed_rows(dense)
    listed = [_list_tensor(name, input_specs[each.values], each) for name, each in parts.items()]
    return tensors.bind_inputs(spec, [*dense, *listed])


def _list_tensor(name: str, values: tf.TensorSpec, parts: columns.Parts) -> tensors.Tensor:
    """A ragged or sparse input as a Tensor whose rows are lists."""
    inner = () if values.shape.rank is None else values.shape.as_list()[1:]
    dtype = np.dtype(values.dtype.as_numpy_dtype)
    return tensors.Tensor(name, dtype, (None, None, *inner), parts)


def _tensor(name: str, spec: tf.TensorSpec) -> tensors.Tensor:
    """A spec as a Tensor; outputs may be sparse or ragged, which have no shape."""
    dense = isinstance(spec, (tf.TensorSpec, tf.Tensor)) and spec.shape.rank is not None
    shape = tuple(spec.shape.as_list()) if dense else None
    return tensors.Tensor(name, np.dtype(spec.dtype.as_numpy_dtype), shape)
