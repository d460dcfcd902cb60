"""TensorFlow SavedModels: a signature over serialised tf.Examples, or over feature tensors."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from evalbeam.transforms import errors, models
from evalbeam.transforms.models import composites, signature, unsafe


def load(spec: models.ModelSpec, path: str) -> signature.Signature:
    """The spec's signature.

    If its only input is a string of shape [None] that is not mapped to a column, it takes
    serialised tf.Examples; otherwise inputs are columns.

    Raises:
      ConfigError: it is not a SavedModel, or has no such signature; or as in composites.find and
        signature.Signature.
    """
    loaded = read(path, allow_unsafe=spec.allow_unsafe)
    if spec.signature not in loaded.signatures:
        names = errors.listed(loaded.signatures) or "none"
        raise errors.ConfigError(f"unknown signature {spec.signature!r}; it has {names}")
    function = loaded.signatures[spec.signature]
    inputs = dict(sorted(function.structured_input_signature[1].items()))

    def call(tensors: signature.Tensors) -> signature.Tensors:
        # Through `loaded`, which keeps the variables alive; the function only has weak references.
        return loaded.signatures[spec.signature](**tensors)

    serialized = not spec.inputs and takes_serialized(inputs)
    parameters = sum(math.prod(variable.shape.as_list()) for variable in function.graph.variables)
    parts = composites.find(function, inputs, dict(spec.inputs))
    outputs = function.structured_outputs
    return signature.Signature(spec, call, inputs, outputs, serialized, parameters, parts)


def read(path: str, *, allow_unsafe: bool) -> Any:
    """The SavedModel in a local folder; raises ConfigError if it is none, or unsafe."""
    if not os.path.exists(os.path.join(path, "saved_model.pb")):
        raise errors.ConfigError(
            "it is not a SavedModel, that is a folder with saved_model.pb. A `.keras` file is of "
            "kind keras; Keras 3 writes a SavedModel with `model.export(folder)`"
        )
    try:
        if not allow_unsafe and (found := unsafe.find(path)):
            raise errors.ConfigError(
                f"it has operations that reach files, the network or Python code: "
                f"{', '.join(found)}. If you trust whoever made it, set `allow_unsafe: true`"
            )
        return tf.saved_model.load(path)
    except errors.ConfigError:
        raise
    except Exception as error:  # TensorFlow raises many kinds, from OSError to its own NotFound.
        raise errors.ConfigError(f"TensorFlow cannot load it: {error}") from error


def takes_serialized(inputs: Mapping[str, tf.TensorSpec]) -> bool:
    """Whether a signature's inputs are a single one of text, one per row: serialised examples."""
    if len(inputs) != 1:
        return False
    (only,) = inputs.values()
    return only.dtype == tf.string and only.shape.rank in (None, 1)
