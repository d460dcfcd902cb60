"""Keras 3 `.keras` files: functional and sequential models."""

from __future__ import annotations

import os
import zipfile
from typing import Any

import keras
import tensorflow as tf

from evalbeam.transforms import errors, models
from evalbeam.transforms.models import signature

# Of an error of Keras that is passed on.
_ERROR_CHARACTERS = 500


def load(spec: models.ModelSpec, path: str) -> signature.Signature:
    """The model, traced once for batches of any size.

    Raises:
      ConfigError: it is not a `.keras` file, has a Lambda layer, needs custom code that is not
        installed, or does not declare its inputs; or as in signature.Signature.
    """
    if not (os.path.isfile(path) and zipfile.is_zipfile(path)):
        raise errors.ConfigError(
            "it is not a `.keras` file as written by Keras 3's `model.save('name.keras')`"
        )
    model = _load(spec, path)
    structure = _structure(model)
    inputs = _input_specs(structure)

    def call(tensors: signature.Tensors) -> signature.Tensors:
        packed = keras.tree.pack_sequence_as(structure, [tensors[name] for name in inputs])
        return _name_outputs(model, model(packed, training=False))

    # Not the concrete function alone: through `call` this one keeps the model's variables alive.
    function = tf.function(call, input_signature=[inputs])
    outputs = function.get_concrete_function().structured_outputs
    return signature.Signature(spec, function, inputs, outputs, parameters=model.count_params())


def _load(spec: models.ModelSpec, path: str) -> Any:
    try:
        return keras.models.load_model(path, compile=False, safe_mode=not spec.allow_unsafe)
    except Exception as error:  # Keras raises ValueError, TypeError, and anything a layer raises.
        if "Lambda" in str(error) and not spec.allow_unsafe:
            raise errors.ConfigError(
                "it has a Lambda layer, which is arbitrary Python code inside the file. If you "
                "trust the file, set `allow_unsafe: true`; otherwise export a SavedModel where the "
                "model was trained (`model.export(folder)`), or replace the layer"
            ) from error
        if "tf_keras" in str(error) or "'keras.src.engine" in str(error):
            raise errors.ConfigError(
                "it was saved by Keras 2 (tf_keras), and Keras 3 cannot load it. Where the model "
                "was trained, export a SavedModel, `model.export(folder)`, or save its weights and "
                "load them into the same layers of Keras 3"
            ) from error
        raise errors.ConfigError(
            f"Keras cannot load it: {_shorten(error)}. Custom layers need their code here; a "
            "SavedModel (`model.export(folder)`) does not"
        ) from error


def _shorten(error: Exception) -> str:
    """The start of an error, which may list the whole model."""
    text = str(error)
    return text if len(text) <= _ERROR_CHARACTERS else f"{text[:_ERROR_CHARACTERS]} ..."


def _structure(model: Any) -> Any:
    """The model's symbolic inputs: a tensor, a list, or a dict by name."""
    try:
        return model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    except AttributeError as error:
        raise errors.ConfigError(
            f"it is a {type(model).__name__} that does not declare its inputs; build it with "
            "`keras.Input` before saving, or export a SavedModel: `model.export(folder)`"
        ) from error


def _input_specs(structure: Any) -> dict[str, tf.TensorSpec]:
    """By input name, in the order of the flattened structure; the names of a dict are its keys."""
    specs = {}
    for path, tensor in keras.tree.flatten_with_path(structure):
        name = path[-1] if path and isinstance(path[-1], str) else tensor.name
        # Keras keeps the batch size of the example that a model was built on; any size is valid.
        specs[name] = tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype, name)
    return specs


def _name_outputs(model: Any, results: Any) -> signature.Tensors:
    if isinstance(results, dict):
        return results
    if isinstance(results, (list, tuple)):
        return dict(zip(model.output_names, results, strict=True))
    return {"output": results}
