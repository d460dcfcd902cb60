"""TensorFlow.js models, as written by its converter or `model.save`: a folder with `model.json`.

TensorFlow.js itself runs them: each worker process starts one Node.js process per model.
"""

from __future__ import annotations

import json
import math
import os
import pathlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from evalbeam.transforms import errors, models
from evalbeam.transforms.models import function, tensors
from evalbeam.transforms.models.tfjs import install, node

_FORMATS = ("graph-model", "layers-model")
_DTYPES = {
    "float32": np.dtype(np.float32),
    "int32": np.dtype(np.int32),
    "bool": np.dtype(np.bool_),
    "complex64": np.dtype(np.complex64),
}


def load(spec: models.ModelSpec, path: str) -> function.Function:
    """The model, in a Node.js process that has tried it on two examples of zeros.

    Raises:
      ConfigError: it is not a TensorFlow.js model, a shard is missing or has the wrong size,
        Node.js or an npm package is missing, an op is not supported, the inputs cannot be filled,
        or the outputs cannot be evaluated.
    """
    description = _read_description(path)
    try:
        _check_shards(path, description)
        parameters = _count_parameters(description)
    except (AttributeError, KeyError, TypeError) as error:
        raise errors.ConfigError(
            f"the list of weights in its model.json is malformed ({error!r}). Convert or save the "
            "model again"
        ) from error
    missing = install.missing()
    if missing is not None:
        raise errors.ConfigError(missing)
    process = node.Process(path, spec.outputs)
    inputs = [_tensor(tensor) for tensor in process.inputs]
    outputs = [_tensor(tensor) for tensor in process.outputs]
    _check_dtypes(process.inputs)
    tensors.refuse_fixed_rows(inputs)

    def call(arrays: function.Arrays, names: Collection[str]) -> function.Arrays:
        # The process was started for these names.
        return process.predict(arrays)

    model = function.Function(spec, call, inputs, outputs, parameters, process.pid)
    _check_rows(outputs, spec.outputs)
    return model


def _read_description(path: str) -> dict[str, Any]:
    """The content of `model.json`."""
    file = os.path.join(path, "model.json")
    if not os.path.isfile(file):
        raise errors.ConfigError(
            "it is not a TensorFlow.js model: the path must be the folder with the model.json and "
            "its shards, as written by the converter or `model.save`"
        )
    try:
        with open(file, encoding="utf-8") as stream:
            description = json.load(stream)
    except (ValueError, RecursionError) as error:
        raise errors.ConfigError(f"its model.json is not valid JSON: {error}") from error
    form = description.get("format") if isinstance(description, dict) else None
    if form not in _FORMATS:
        raise errors.ConfigError(
            f"its model.json has the format {form!r}; valid formats: {errors.listed(_FORMATS)}"
        )
    return description


def _check_shards(path: str, description: Mapping[str, Any]) -> None:
    """Rejects missing or truncated weights, which TensorFlow.js would accept as other values."""
    if description["format"] == "layers-model" and not description.get("weightsManifest"):
        raise errors.ConfigError(
            "its model.json lists no weights, so it would predict with random ones. Save it again"
        )
    for group in description.get("weightsManifest") or ():
        sizes = {}
        for name in group["paths"]:
            if os.path.isabs(name) or ".." in pathlib.PurePath(name).parts:
                raise errors.ConfigError(
                    f"its model.json lists the weights {name}, outside its folder, where its "
                    "digest would not include them. Put all files of the model into one folder"
                )
            file = os.path.join(path, name)
            if not os.path.isfile(file):
                raise errors.ConfigError(
                    f"its model.json lists the weights {name}, but its folder has no such file. "
                    "Copy all files of the model"
                )
            sizes[name] = os.path.getsize(file)
        expected = _stored_bytes(group["weights"])
        if expected is not None and sum(sizes.values()) != expected:
            shards = ", ".join(f"{name} ({size} bytes)" for name, size in sizes.items())
            raise errors.ConfigError(
                f"its weights are {sum(sizes.values())} bytes, but its model.json lists "
                f"{expected}: one of {shards} is damaged or from another model. Copy it again"
            )


def _stored_bytes(weights: Iterable[Mapping[str, Any]]) -> int | None:
    """The size of the shards; None if some are strings, whose length the manifest does not list."""
    total = 0
    for weight in weights:
        dtype = weight.get("quantization", weight)["dtype"]
        if dtype == "string":
            return None
        total += math.prod(weight["shape"]) * np.dtype(dtype).itemsize
    return total


def _count_parameters(description: Mapping[str, Any]) -> int:
    """The number of floats in the weights.

    In a layers model these are its variables. In a graph model they are all constants, as it does
    not record what was trained: constants of preprocessing count, and layers that the converter has
    folded together count once.
    """
    return sum(
        math.prod(weight["shape"])
        for group in description.get("weightsManifest") or ()
        for weight in group["weights"]
        if weight["dtype"] == "float32"
    )


def _check_dtypes(inputs: Iterable[node.Tensor]) -> None:
    for tensor in inputs:
        if tensor.dtype not in ("float32", "int32", "bool"):
            raise errors.ConfigError(
                f"input {tensor.name!r} takes {tensor.dtype}; in TensorFlow.js, a column can fill "
                "float32, int32 or bool. Convert the model without its preprocessing, and provide "
                "the preprocessed numbers as columns"
            )


def _check_rows(outputs: Iterable[tensors.Tensor], requested: Collection[str]) -> None:
    for tensor in outputs:
        is_chosen, shape = not requested or tensor.name in requested, tensor.shape
        if is_chosen and shape is not None and shape[:1] != (None,):
            raise errors.ConfigError(
                f"output {tensor.name!r} has the shape {list(shape)} for two examples: a "
                "model must return one prediction per example"
            )


def _tensor(tensor: node.Tensor) -> tensors.Tensor:
    return tensors.Tensor(tensor.name, _DTYPES.get(tensor.dtype, np.dtype(object)), tensor.shape)
