"""Python functions of batches: how PyTorch, scikit-learn or XGBoost models are evaluated."""

from __future__ import annotations

import difflib
import importlib
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from evalbeam.transforms import batch, errors, models
from evalbeam.transforms.models import columns, tensors


def load(spec: models.ModelSpec, path: str) -> PythonFunction:
    """The spec's function; nothing is imported but its module.

    Raises:
      ConfigError: no such module or function, a module that cannot be imported, or no inputs.
    """
    if not spec.inputs:
        raise errors.ConfigError(
            "it names no columns: say what the function takes, as a list of columns "
            "(`inputs: [age, city]`), or by the names that it knows them by (`inputs: {age: AGE}`)"
        )
    return PythonFunction(spec, _function(spec.function))


class PythonFunction:
    """A version that is a Python function.

    It is called with a dict of arrays by the names of the spec's inputs, and gives what NumPy makes
    an array of, or a dict of such.
    """

    pid = None
    parameters = None

    def __init__(self, spec: models.ModelSpec, function: Callable[[dict[str, np.ndarray]], Any]):
        self._name = spec.function
        self._function = function
        self._wanted = spec.outputs
        self.inputs = tuple(_input(spec, name, column) for name, column in spec.inputs)
        self.outputs = spec.outputs if len(spec.outputs) > 1 else ("",)
        self.projection = batch.Projection(columns.names(self.inputs))

    def predict(self, examples: batch.Batch) -> dict[str, np.ndarray]:
        """By output, float32 or float64, [N] or [N, K]; see models.Model."""
        arrays = columns.arrays(self.inputs, examples)
        # Copies: other versions have the same arrays, and the data's own cannot be written to.
        results = self._call({name: array.copy() for name, array in arrays.items()})
        return {
            output: tensors.prediction(name, self._array(name, value), len(examples))
            for output, (name, value) in zip(self.outputs, self._chosen(results), strict=True)
        }

    def _call(self, arrays: dict[str, np.ndarray]) -> Any:
        try:
            return self._function(arrays)
        # SystemExit would end the process as if all had gone well.
        except (Exception, SystemExit) as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            raise RuntimeError(
                f"{self._name} raises {type(error).__name__}: {error} ({where.filename}, line "
                f"{where.lineno}); it was given {errors.listed(arrays)}"
            ) from error

    def _chosen(self, results: Any) -> list[tuple[str, Any]]:
        """The outputs to evaluate, by the function's names for them."""
        if not isinstance(results, Mapping):
            if len(self._wanted) > 1:
                raise errors.JobError(
                    f"{self._name} gives {type(results).__name__}, and `outputs` names "
                    f"{errors.listed(self._wanted)}: return a dict of them"
                )
            return [("".join(self._wanted), results)]
        known = errors.listed(results) or "nothing"
        if not self._wanted and len(results) != 1:
            raise errors.JobError(
                f"{self._name} gives several outputs, {known}: name those to evaluate, "
                f"`outputs: [{next(iter(results), '')}]`"
            )
        for name in self._wanted:
            if name not in results:
                raise errors.JobError(f"unknown output {name!r}; {self._name} gives {known}")
        return [(name, results[name]) for name in self._wanted or results]

    def _array(self, name: str, value: Any) -> np.ndarray:
        try:
            # A copy: the function may fill the same array at its next call.
            array = np.array(value)
        except ValueError as error:  # Lists of different lengths.
            raise errors.JobError(f"{self._name} gives no array: {error}") from error
        if not tensors.is_number(array.dtype):
            raise errors.JobError(
                f"{self._name} gives {type(value).__name__} of {array.dtype} for output {name!r}; "
                "numbers of shape [N] or [N, K] can be evaluated"
            )
        return array


def _input(spec: models.ModelSpec, name: str, column: str) -> columns.Input:
    image = dict(spec.images).get(column)
    if image:
        return columns.Input(name, image.column, np.dtype(np.float32), None, image)
    return columns.Input(name, column, None, None)


def _function(name: str) -> Callable[[dict[str, np.ndarray]], Any]:
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise errors.ConfigError(
            f"{name!r} names no function; write `module:function`, as in `my_models:predict`"
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module_name != missing and not module_name.startswith(f"{missing}."):
            raise errors.ConfigError(_no_import(module_name, error)) from error
        raise errors.ConfigError(
            f"no module {missing!r}: it must be installed, or its folder be in PYTHONPATH, here "
            "and on every worker"
        ) from error
    # SystemExit: a script that parses arguments as it is imported.
    except (Exception, SystemExit) as error:
        raise errors.ConfigError(_no_import(module_name, error)) from error
    if not hasattr(module, attribute):
        near = difflib.get_close_matches(attribute, dir(module), n=3)
        hint = f"; nearest: {errors.listed(near)}" if near else ""
        raise errors.ConfigError(
            f"module {module_name!r} ({module.__file__}) has no {attribute!r}{hint}"
        )
    found = getattr(module, attribute)
    if not callable(found):
        raise errors.ConfigError(
            f"{name} is of type {type(found).__name__}, no function. Name one that takes a dict of "
            "arrays, one for each column, and returns the predictions"
        )
    return found


def _no_import(module: str, error: BaseException) -> str:
    return f"importing {module!r} fails with {type(error).__name__}: {error}"
