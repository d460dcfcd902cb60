"""Python functions of batches, for models of PyTorch, scikit-learn, XGBoost and others."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from evalbeam.transforms import batch, errors, models
from evalbeam.transforms.models import columns, tensors


def load(spec: models.ModelSpec, path: str) -> PythonFunction:
    """The spec's function; imports only its module.

    Raises:
      ConfigError: the module or function does not exist, the module cannot be imported, or the
        spec has no inputs.
    """
    if not spec.inputs:
        raise errors.ConfigError(
            "it has no inputs: list the columns that the function takes (`inputs: [age, city]`), "
            "or map its own names to columns (`inputs: {age: AGE}`)"
        )
    return PythonFunction(spec, _import_function(spec.function))


class PythonFunction:
    """A version that is a Python function.

    It is called with a dict of arrays, keyed by the names of the spec's inputs, and returns what
    NumPy can convert to an array, or a dict of these.
    """

    pid = None
    parameters = None

    def __init__(self, spec: models.ModelSpec, function: Callable[[dict[str, np.ndarray]], Any]):
        self._name = spec.function
        self._function = function
        self._wanted = spec.outputs
        self.inputs = tuple(
            tensors.bind(spec, name, source, None, None) for name, source in spec.inputs
        )
        self.outputs = spec.outputs if len(spec.outputs) > 1 else ("",)
        self.projection = batch.Projection(columns.names(self.inputs))

    def predict(self, examples: batch.Batch) -> dict[str, np.ndarray]:
        """By output, float32 or float64, [N] or [N, K]; see models.Model."""
        arrays = columns.arrays(self.inputs, examples)
        # Copies: other versions share these arrays, and the data's own are read-only.
        results = self._call({name: array.copy() for name, array in arrays.items()})
        return {
            output: tensors.to_prediction(name, self._to_array(name, value), len(examples))
            for output, (name, value) in zip(self.outputs, self._select(results), strict=True)
        }

    def classes(self, examples: batch.Batch) -> dict[str, tuple[models.ClassName, ...]]:
        """The function's attribute `classes_`, as scikit-learn's estimators have it."""
        names = list(getattr(self._function, "classes_", ()))
        # Estimators of several outputs have a list for each.
        if not names or len(self.outputs) > 1 or any(map(np.ndim, names)):
            return {}
        return {self.outputs[0]: tuple(np.array(names).tolist())}

    def _call(self, arrays: dict[str, np.ndarray]) -> Any:
        try:
            return self._function(arrays)
        # SystemExit would end the process as if it had succeeded.
        except (Exception, SystemExit) as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            raise RuntimeError(
                f"{self._name} raises {type(error).__name__}: {error} ({where.filename}, line "
                f"{where.lineno}); it was called with {errors.listed(arrays)}"
            ) from error

    def _select(self, results: Any) -> list[tuple[str, Any]]:
        """The outputs to evaluate, with the function's names for them."""
        if not isinstance(results, Mapping):
            if len(self._wanted) > 1:
                raise errors.DataError(
                    f"{self._name} returns {type(results).__name__}, but `outputs` lists "
                    f"{errors.listed(self._wanted)}: return a dict with these keys"
                )
            return [("".join(self._wanted), results)]
        names = errors.listed(results) or "nothing"
        if not self._wanted and len(results) != 1:
            raise errors.DataError(
                f"{self._name} returns several outputs, {names}: list those to evaluate, as in "
                f"`outputs: [{next(iter(results), '')}]`"
            )
        for name in self._wanted:
            if name not in results:
                raise errors.DataError(f"unknown output {name!r}; {self._name} returns {names}")
        return [(name, results[name]) for name in self._wanted or results]

    def _to_array(self, name: str, value: Any) -> np.ndarray:
        try:
            # A copy: the function may reuse the array in its next call.
            array = np.array(value)
        except ValueError as error:  # Lists of different lengths.
            raise errors.DataError(
                f"{self._name} does not return an array for output {name!r}: {error}"
            ) from error
        if not tensors.is_number(array.dtype):
            raise errors.DataError(
                f"{self._name} returns {type(value).__name__} of {array.dtype} for output "
                f"{name!r}; only numbers of shape [N] or [N, K] can be evaluated"
            )
        return array


def import_module(name: str) -> ModuleType:
    """Imports a user's module, from the working folder too, as `python -m` would."""
    # Last: a file of the user's must not hide a package.
    if (folder := os.getcwd()) not in sys.path:
        sys.path.append(folder)
    importlib.invalidate_caches()
    return importlib.import_module(name)


def _import_function(name: str) -> Callable[[dict[str, np.ndarray]], Any]:
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise errors.ConfigError(
            f"{name!r} is not a function's name; write `module:function`, as in `my_models:predict`"
        )
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module_name != missing and not module_name.startswith(f"{missing}."):
            raise errors.ConfigError(_explain_import_error(module_name, error)) from error
        raise errors.ConfigError(
            f"there is no module {missing!r}: put it into the working folder, install it, or add "
            "its folder to PYTHONPATH, here and on every worker"
        ) from error
    # SystemExit: a script that parses arguments when imported.
    except (Exception, SystemExit) as error:
        raise errors.ConfigError(_explain_import_error(module_name, error)) from error
    if not hasattr(module, attribute):
        near = difflib.get_close_matches(attribute, dir(module), n=3)
        hint = f"; closest: {errors.listed(near)}" if near else ""
        raise errors.ConfigError(
            f"module {module_name!r} ({module.__file__}) has no {attribute!r}{hint}"
        )
    function = getattr(module, attribute)
    if not callable(function):
        raise errors.ConfigError(
            f"{name} is of type {type(function).__name__}, not a function. Use a function that "
            "takes a dict of arrays, one per column, and returns the predictions"
        )
    return function


def _explain_import_error(module: str, error: BaseException) -> str:
    return f"importing {module!r} failed with {type(error).__name__}: {error}"
