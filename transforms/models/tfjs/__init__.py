"""TensorFlow.js models, as its converter and `model.save` write them: a folder with `model.json`.

They are run by TensorFlow.js itself, in a Node.js process for each model of a worker process.
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
# How the values of a weight lie in a shard; a quantised one has the dtype it is quantised to.
_BYTES = {
    "float32": 4,
    "int32": 4,
    "bool": 1,
    "complex64": 8,
    "float16": 2,
    "uint8": 1,
    "uint16": 2,
}


def load(spec: models.ModelSpec, path: str) -> function.Function:
    """The model, in a Node.js process that has tried it out on two examples of zeros.

    Raises:
      ConfigError: no TensorFlow.js model, a shard that is missing or of another size, no Node.js
        or npm packages, an op that they have not, or inputs and outputs that cannot be filled or
        evaluated.
    """
    description = _description(path)
    try:
        _check_shards(path, description)
        parameters = _parameters(description)
    except (AttributeError, KeyError, TypeError) as error:
        raise errors.ConfigError(
            f"its model.json lists its weights as no converter does ({error!r}). Convert or save "
            "the model again"
        ) from error
    missing = install.missing()
    if missing is not None:
        raise errors.ConfigError(missing)
    process = node.Process(path, spec.outputs)
    takes = [_tensor(one) for one in process.inputs]
    gives = [_tensor(one) for one in process.outputs]
    _check_dtypes(process.inputs)
    tensors.refuse_fixed_rows(takes)

    def call(arrays: function.Arrays, names: Collection[str]) -> function.Arrays:
        # The names are those that the process was started for.
        return process.predict(arrays)

    loaded = function.Function(spec, call, takes, gives, parameters, process.pid)
    _check_rows(gives, spec.outputs)
    return loaded


def _description(path: str) -> dict[str, Any]:
    """What `model.json` says."""
    file = os.path.join(path, "model.json")
    if not os.path.isfile(file):
        raise errors.ConfigError(
            "it is no TensorFlow.js model: the path must be the folder that has the model.json, "
            "and its shards, as the converter or `model.save` writes it"
        )
    try:
        with open(file, encoding="utf-8") as stream:
            description = json.load(stream)
    except (ValueError, RecursionError) as error:
        raise errors.ConfigError(f"its model.json is no JSON: {error}") from error
    form = description.get("format") if isinstance(description, dict) else None
    if form not in _FORMATS:
        raise errors.ConfigError(
            f"its model.json has the format {form!r}; known are {' and '.join(map(repr, _FORMATS))}"
        )
    return description


def _check_shards(path: str, description: Mapping[str, Any]) -> None:
    """Refuses weights that are missing or cut short, which TensorFlow.js would take for others."""
    if description["format"] == "layers-model" and not description.get("weightsManifest"):
        raise errors.ConfigError(
            "its model.json lists no weights: it would predict with random ones. Save it again"
        )
    for group in description.get("weightsManifest") or ():
        found = {}
        for name in group["paths"]:
            if os.path.isabs(name) or ".." in pathlib.PurePath(name).parts:
                raise errors.ConfigError(
                    f"its model.json lists the weights {name}, outside its folder, which its "
                    "digest would not cover. Put all files of the model into one folder"
                )
            file = os.path.join(path, name)
            if not os.path.isfile(file):
                raise errors.ConfigError(
                    f"its model.json lists the weights {name}, and there is no such file beside "
                    "it. Copy all files of the model"
                )
            found[name] = os.path.getsize(file)
        wanted = _stored_bytes(group["weights"])
        if wanted is not None and sum(found.values()) != wanted:
            listed = ", ".join(f"{name} ({size} bytes)" for name, size in found.items())
            raise errors.ConfigError(
                f"its weights are {sum(found.values())} bytes, and its model.json lists "
                f"{wanted}: one of {listed} is damaged or of another model. Copy it again"
            )


def _stored_bytes(weights: Iterable[Mapping[str, Any]]) -> int | None:
    """The size of the shards; None with strings among them, whose length is in no manifest."""
    total = 0
    for weight in weights:
        dtype = weight.get("quantization", weight)["dtype"]
        if dtype not in _BYTES:
            return None
        total += math.prod(weight["shape"]) * _BYTES[dtype]
    return total


def _parameters(description: Mapping[str, Any]) -> int:
    """How many floats the weights hold.

    Of a layers model they are its variables. Of a graph model they are all constants, for it does
    not tell what was trained: constants of the preprocessing count, and layers that the converter
    has folded into one count once.
    """
    return sum(
        math.prod(weight["shape"])
        for group in description.get("weightsManifest") or ()
        for weight in group["weights"]
        if weight["dtype"] == "float32"
    )


def _check_dtypes(takes: Iterable[node.Tensor]) -> None:
    for tensor in takes:
        if tensor.dtype not in ("float32", "int32", "bool"):
            raise errors.ConfigError(
                f"input {tensor.name!r} takes {tensor.dtype}; a column fills float32, int32 or "
                "bool in TensorFlow.js. Convert the model without what is before its numbers, "
                "and bring these as columns"
            )


def _check_rows(gives: Iterable[tensors.Tensor], wanted: Collection[str]) -> None:
    for tensor in gives:
        chosen, shape = not wanted or tensor.name in wanted, tensor.shape
        if chosen and shape is not None and shape[:1] != (None,):
            raise errors.ConfigError(
                f"output {tensor.name!r} has the shape {list(shape)} for two examples. A "
                "model must give one prediction for each example"
            )


def _tensor(found: node.Tensor) -> tensors.Tensor:
    return tensors.Tensor(found.name, _DTYPES.get(found.dtype, np.dtype(object)), found.shape)
