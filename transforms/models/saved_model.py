"""TensorFlow SavedModels: a signature over serialised tf.Examples, or over feature tensors."""

from __future__ import annotations

import math
import os

import tensorflow as tf

from evalbeam.transforms import errors, models
from evalbeam.transforms.models import signature


def load(spec: models.ModelSpec, path: str) -> signature.Signature:
    """The spec's signature.

    Its only input takes serialised tf.Examples if it is a string of shape [None] and not mapped
    to a column; else inputs are columns.

    Raises:
      ConfigError: not a SavedModel, or no such signature; and what signature.Signature raises.
    """
    if not os.path.exists(os.path.join(path, "saved_model.pb")):
        raise errors.ConfigError(
            "it is no SavedModel, which is a folder with saved_model.pb. A `.keras` file is of "
            "kind keras; Keras 3 writes a SavedModel with `model.export(folder)`"
        )
    try:
        loaded = tf.saved_model.load(path)
    except Exception as error:  # TensorFlow raises anything, from OSError to its own NotFound.
        raise errors.ConfigError(f"TensorFlow cannot load it: {error}") from error
    if spec.signature not in loaded.signatures:
        known = errors.listed(loaded.signatures) or "none at all"
        raise errors.ConfigError(f"unknown signature {spec.signature!r}; it has {known}")
    function = loaded.signatures[spec.signature]
    takes = dict(sorted(function.structured_input_signature[1].items()))

    def call(tensors: signature.Tensors) -> signature.Tensors:
        # Through `loaded`, which keeps the variables alive: the function holds them weakly.
        return loaded.signatures[spec.signature](**tensors)

    serialized = _takes_serialized(spec, takes)
    parameters = sum(math.prod(one.shape.as_list()) for one in function.graph.variables)
    gives = function.structured_outputs
    return signature.Signature(spec, call, takes, gives, serialized, parameters)


def _takes_serialized(spec: models.ModelSpec, takes: dict[str, tf.TensorSpec]) -> bool:
    if len(takes) != 1 or spec.inputs:
        return False
    (only,) = takes.values()
    return only.dtype == tf.string and only.shape.rank in (None, 1)
