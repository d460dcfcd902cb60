"""A SavedModel's preprocessing, such as TFX's `transform_features`: examples to more columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from evalbeam.transforms import batch, errors, models
from evalbeam.transforms.models import saved_model, serialized


def load(spec: models.ModelSpec, path: str) -> Transform:
    """The preprocessing that is the spec's signature.

    Raises:
      ConfigError: it is not a SavedModel, or has no such signature.
    """
    return Transform(spec, path)


class Transform:
    """A signature whose outputs are columns, for labels, slices and weights; see models.Model."""

    pid = None
    parameters = None

    def __init__(self, spec: models.ModelSpec, path: str) -> None:
        loaded = saved_model.read(path, allow_unsafe=spec.allow_unsafe)
        if spec.signature not in loaded.signatures:
            raise errors.ConfigError(
                f"preprocessing_function_names has {spec.signature!r}, but the model's signatures "
                f"are {errors.listed(loaded.signatures) or 'none'}. Preprocessing must be a "
                "signature: a layer or function that is saved with the model is not called"
            )
        function = loaded.signatures[spec.signature]
        inputs = function.structured_input_signature[1]
        if not saved_model.takes_serialized(inputs):
            raise errors.ConfigError(
                f"signature {spec.signature!r} takes {errors.listed(sorted(inputs))}, but "
                "preprocessing takes serialized tf.Examples"
            )
        (self._input,) = inputs
        self._loaded, self._name = loaded, spec.signature
        self.inputs = ()
        self.projection = batch.Projection((), True, ())
        self.outputs = tuple(sorted(function.structured_outputs))

    def predict(self, examples: batch.Batch) -> dict[str, np.ndarray]:
        """By column its values, [N] or [N, K]; object[N] of lists where rows differ in length."""
        tensors = {self._input: serialized.tensor(examples)}
        results = self._loaded.signatures[self._name](**tensors)
        return {name: _to_rows(results[name], len(examples)) for name in self.outputs}

    def classes(self, examples: batch.Batch) -> dict[str, tuple[str, ...]]:
        """None: its outputs are no scores; see models.Model."""
        return {}


def _to_rows(tensor: Any, count: int) -> np.ndarray:
    if isinstance(tensor, tf.SparseTensor):
        tensor = tf.RaggedTensor.from_sparse(tensor)
    if isinstance(tensor, tf.RaggedTensor):
        rows = np.empty(count, object)
        rows[:] = tensor.to_list()
        return rows
    values: np.ndarray = tensor.numpy()
    if values.shape[:1] != (count,):
        raise errors.DataError(
            f"preprocessing returned {list(values.shape)} values for {count} examples"
        )
    values = values.reshape(count, -1)
    return values[:, 0] if values.shape[1] == 1 else values
