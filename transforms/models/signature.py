"""A TensorFlow function over named tensors: what SavedModels and Keras models have in common."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from transforms import batch, errors, models
from transforms.models import columns, serialized

Tensors = dict[str, tf.Tensor]


class Signature:
    """A version that is a function of named tensors to named tensors.

    Args:
      spec: the version.
      call: the traced function, open in the number of rows so that no batch size retraces it.
      takes: by input name, its tf.TensorSpec.
      gives: by output name, its tf.TensorSpec or symbolic tensor.
      takes_serialized: whether it takes serialised tf.Examples, through its only input.

    Raises:
      ConfigError: inputs that columns cannot fill, or outputs that cannot be evaluated.
    """

    def __init__(
        self,
        spec: models.ModelSpec,
        call: Callable[[Tensors], Tensors],
        takes: Mapping[str, tf.TensorSpec],
        gives: Mapping[str, tf.TensorSpec],
        takes_serialized: bool = False,
    ) -> None:
        self._call = call
        self._takes = dict(takes)
        self._takes_serialized = takes_serialized
        self.inputs = () if takes_serialized else _inputs(dict(spec.inputs), takes)
        self._chosen = _chosen(spec.outputs, gives)
        self.outputs = tuple(self._chosen)
        self.projection = batch.Projection(
            tuple(dict.fromkeys(declared.column for declared in self.inputs)), takes_serialized
        )

    def predict(self, examples: batch.Batch) -> dict[str, np.ndarray]:
        """By output, float32 or float64, [N] or [N, K]; see models.Model."""
        results = self._call(self._tensors(examples))
        return {
            output: _prediction(name, results[name], len(examples))
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
    mapping: Mapping[str, str], takes: Mapping[str, tf.TensorSpec]
) -> tuple[columns.Input, ...]:
    for name in mapping:
        if name not in takes:
            near = difflib.get_close_matches(name, takes, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise errors.ConfigError(
                f"`inputs` maps {name!r}, but the model's inputs are "
                f"{', '.join(map(repr, takes))}.{hint}"
            )
    return tuple(_input(name, mapping.get(name, name), spec) for name, spec in takes.items())


def _input(name: str, column: str, spec: tf.TensorSpec) -> columns.Input:
    if not isinstance(spec, tf.TensorSpec) or spec.shape.rank in (None, 0):
        raise errors.ConfigError(
            f"input {name!r} is {spec}; a column fills dense tensors of shape [None] or "
            "[None, ...]. Export a signature with such inputs, or one over serialised tf.Examples"
        )
    rows, *shape = spec.shape.as_list()
    if rows is not None:
        raise errors.ConfigError(
            f"input {name!r} has the shape {spec.shape.as_list()}, batches of exactly {rows}. "
            "Export the model with None as its first dimension"
        )
    return columns.Input(name, column, np.dtype(spec.dtype.as_numpy_dtype), tuple(shape))


def _chosen(wanted: tuple[str, ...], gives: Mapping[str, tf.TensorSpec]) -> dict[str, str]:
    """By the name in results, the model's output."""
    for name in wanted:
        if name not in gives:
            near = difflib.get_close_matches(name, gives, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise errors.ConfigError(
                f"unknown output {name!r}; the model's outputs are "
                f"{', '.join(map(repr, sorted(gives)))}.{hint}"
            )
    # TensorFlow restores a signature's outputs in no order to rely on.
    chosen = wanted or tuple(sorted(gives))
    for name in chosen:
        _check_output(name, gives[name], gives)
    return {"" if len(chosen) == 1 else name: name for name in chosen}


def _check_output(name: str, spec: tf.TensorSpec, gives: Mapping[str, tf.TensorSpec]) -> None:
    numeric = spec.dtype.is_floating or spec.dtype.is_integer or spec.dtype.is_bool
    if not numeric or (spec.shape.rank is not None and spec.shape.rank not in (1, 2)):
        raise errors.ConfigError(
            f"output {name!r} is {spec.dtype.name} of shape {spec.shape}; numbers of shape [None] "
            f"or [None, K] can be evaluated. Choose with `outputs: [...]` among "
            f"{', '.join(map(repr, sorted(gives)))}"
        )


def _prediction(name: str, tensor: tf.Tensor, rows: int) -> np.ndarray:
    shape = tensor.shape.as_list()
    if len(shape) not in (1, 2) or shape[0] != rows:
        raise errors.JobError(
            f"output {name!r} has the shape {shape} for {rows} examples; it must be [{rows}] or "
            f"[{rows}, K]. A model must give one prediction for each example"
        )
    array = tensor.numpy()
    if tensor.dtype not in (tf.float32, tf.float64):
        array = array.astype(np.float32 if tensor.dtype.is_floating else np.float64)
    return array[:, 0] if shape[1:] == [1] else array
