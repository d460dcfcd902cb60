"""ONNX models, through ONNX Runtime: a `.onnx` file, or a folder with `model.onnx` and weights."""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from typing import Any

import numpy as np

from evalbeam.transforms import arrow, errors, models
from evalbeam.transforms.models import function, tensors, threads

try:
    import onnx
    import onnxruntime
    from onnx import external_data_helper
except ImportError as error:
    raise errors.ConfigError(
        f"models of kind onnx need packages of which one cannot be imported ({error}): "
        "`pip install 'evalbeam[onnx]'`"
    ) from error

_DTYPES = {
    "tensor(float16)": np.float16,
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int8)": np.int8,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
}
# The model in a folder with its weights, as exporters name it.
_FILE = "model.onnx"
# It sends operators of its own to a service; no model has them that is not made for it.
_REMOTE = "AzureExecutionProvider"
_FATAL = 4


def load(spec: models.ModelSpec, path: str) -> function.Function:
    """The model, on the hardware that ONNX Runtime finds; the CPU for what nothing else takes.

    Raises:
      ConfigError: weights outside the file and no folder to hold both, ONNX Runtime cannot load it,
        or an output is no tensor; and what function.Function raises.
    """
    folder = os.path.isdir(path)
    if folder:
        path = os.path.join(path, _FILE)
    # Before the session, which has weights of its own: so the two never take memory at once.
    parameters, elsewhere = _weights(path)
    # Digest, size and remote copies would lack the other file.
    if elsewhere and not folder:
        raise errors.ConfigError(
            f"it has weights in another file, {elsewhere!r}. Put both in a folder of their own, "
            f"the model as {_FILE}, and name the folder"
        )
    session = _session(path)
    takes = {one.name: one for one in session.get_inputs()}
    gives = {one.name: one for one in session.get_outputs()}
    for name, one in takes.items():
        if one.type not in _DTYPES:
            raise errors.ConfigError(
                f"input {name!r} is {one.type}; columns fill {', '.join(_DTYPES)}"
            )
    return function.Function(
        spec,
        _Onnx(session, _rows(takes)),
        [_tensor(one) for one in takes.values()],
        [_tensor(one) for one in _evaluable(spec, gives)],
        parameters,
    )


class _Onnx:
    """A session; threads run it at once."""

    def __init__(self, session: Any, rows: int | None) -> None:
        self._session = session
        self._rows = rows

    def __call__(self, arrays: function.Arrays, names: Collection[str]) -> function.Arrays:
        """The outputs of these names, for any number of rows."""
        wanted = list(names)
        taken = {
            name: _texts(name, array) if array.dtype == object else array
            for name, array in arrays.items()
        }

        def call(piece: function.Arrays) -> function.Arrays:
            return dict(zip(wanted, self._session.run(wanted, piece), strict=True))

        return function.in_pieces(call, taken, self._rows)


def _weights(path: str) -> tuple[int | None, str]:
    """How many numbers were trained, and the other file that some of them are in, "" for none.

    Counted are the graph's initializers, but for int32 and int64: shapes and indices. So the biases
    of quantised layers are not counted, nor constants that are nodes, nor the trees of tree
    operators. None where nothing is.
    """
    try:
        graph = onnx.load_model(path, load_external_data=False).graph
    except Exception:  # ONNX Runtime, which is asked next, says what is wrong with the file.
        return None, ""
    uncounted = (onnx.TensorProto.INT32, onnx.TensorProto.INT64, onnx.TensorProto.STRING)
    count = sum(math.prod(one.dims) for one in graph.initializer if one.data_type not in uncounted)
    elsewhere = (
        external_data_helper.ExternalDataInfo(one).location
        for one in graph.initializer
        if external_data_helper.uses_external_data(one)
    )
    return count or None, next(elsewhere, "")


def _session(path: str) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads.share()
    # Threads that wait for work in a loop would take the cores from other versions and from Beam.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # What goes wrong is raised too.
    options.log_severity_level = _FATAL
    providers = [one for one in onnxruntime.get_available_providers() if one != _REMOTE]
    try:
        # Without a second attempt, which it would print: without those that fail it starts anyway.
        return onnxruntime.InferenceSession(path, options, providers=providers, enable_fallback=0)
    except Exception as error:  # The runtime's exceptions have no common class.
        raise errors.ConfigError(
            f"ONNX Runtime {onnxruntime.__version__} cannot load it: {_told(error)}. If the file "
            "is damaged, export or copy it again; if an operator is unknown, export with operators "
            "of ONNX's own and an opset that this version has; if weights are missing, they are in "
            "files that belong beside it"
        ) from error


def _rows(takes: dict[str, Any]) -> int | None:
    """How many rows the model takes at once; None for any number."""
    first = [one.shape[0] for one in takes.values() if one.shape]
    # 0 is what old exporters write for a size that is open.
    fixed = {size for size in first if isinstance(size, int) and size > 0}
    if len(fixed) > 1:
        shapes = ", ".join(f"{name!r} {one.shape}" for name, one in takes.items())
        raise errors.ConfigError(
            f"its inputs are of different numbers of rows: {shapes}. Export it with a first "
            "dimension that is open, or the same for all"
        )
    return fixed.pop() if fixed else None


def _evaluable(spec: models.ModelSpec, gives: dict[str, Any]) -> list[Any]:
    """The outputs that are tensors.

    scikit-learn's converter makes a list of maps of probabilities, and gives the decisions beside
    it as a tensor: these are not to be evaluated in their place, unless the spec says so.
    """
    odd = [one for one in gives.values() if one.type not in _DTYPES]
    found = [one for one in gives.values() if one.type in _DTYPES]
    if asked := [one for one in odd if not spec.outputs or one.name in spec.outputs]:
        instead = f", or choose `outputs: [{found[0].name}]`" if found else ""
        raise errors.ConfigError(
            f"output {asked[0].name!r} is {asked[0].type}, no tensor that can be evaluated. "
            "scikit-learn's converter gives probabilities as a tensor with "
            f"`options={{'zipmap': False}}`: convert it so{instead}"
        )
    return found


def _tensor(one: Any) -> tensors.Tensor:
    # No sizes stand for a scalar and for a shape that the model does not tell.
    sizes = [size if isinstance(size, int) else None for size in one.shape]
    return tensors.Tensor(
        one.name, np.dtype(_DTYPES[one.type]), (None, *sizes[1:]) if sizes else None
    )


def _texts(name: str, array: np.ndarray) -> np.ndarray:
    """Strings as the runtime takes them.

    Raises:
      UnscorableRowsError: rows with bytes that are no text.
    """
    bad, texts = {}, np.empty(array.size, object)
    for index, value in enumerate(array.flat):
        try:
            texts[index] = value.decode()
        except UnicodeDecodeError as error:
            row = index * len(array) // array.size
            bad[row] = f"input {name!r} takes UTF-8: {error}"
    if bad:
        raise arrow.UnscorableRowsError(bad)
    return texts.reshape(array.shape)


def _told(error: Exception) -> str:
    """The runtime's message on one line, without its code and the path, which is said already."""
    told = " ".join(str(error).split())
    return (told.rpartition("failed:")[2] or told).rstrip(".")
