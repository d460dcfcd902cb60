"""TensorFlow SavedModels: a signature over serialised tf.Examples, or over feature tensors."""

from __future__ import annotations

import math
import os

import tensorflow as tf

from evalbeam.transforms import errors, models
from evalbeam.transforms.models import signature


def load(spec: models.ModelSpec, path: str) -> signature.Signature:
    """The spec's signature.

    If its only input is a string of shape [None] that is not mapped to a column, it takes
    serialised tf.Examples; otherwise inputs are columns.

    Raises:
      ConfigError: it is not a SavedModel, or has no such signature; or as in signature.Signature.
    """
    if not os.path.exists(os.path.join(path, "saved_model.pb")):
        raise errors.ConfigError(
            "it is not a SavedModel, that is a folder with saved_model.pb. A `.keras` file is of "
            "kind keras; Keras 3 writes a SavedModel with `model.export(folder)`"
        )
    try:
        loaded = tf.saved_model.load(path)
    except Exception as error:  # TensorFlow raises many kinds, from OSError to its own NotFound.
        raise errors.ConfigError(f"TensorFlow cannot load it: {error}") from error
    if spec.signature not in loaded.signatures:
        names = errors.listed(loaded.signatures) or "none"
        raise errors.ConfigError(f"unknown signature {spec.signature!r}; it has {names}")
    function = loaded.signatures[spec.signature]
    inputs = dict(sorted(function.structured_input_signature[1].items()))

    def call(tensors: signature.Tensors) -> signature.Tensors:
        # Through `loaded`, which keeps the variables alive; the function only has weak references.
        return loaded.signatures[spec.signature](**tensors)

    serialized = _takes_serialized(spec, inputs)
    parameters = sum(math.prod(variable.shape.as_list()) for variable in function.graph.variables)
    outputs = function.structured_outputs
    return signature.Signature(spec, call, inputs, outputs, serialized, parameters)


def _takes_serialized(spec: models.ModelSpec, inputs: dict[str, tf.TensorSpec]) -> bool:
    if len(inputs) != 1 or spec.inputs:
        return False
    (only,) = inputs.values()
    return only.dtype == tf.string and only.shape.rank in (None, 1)
