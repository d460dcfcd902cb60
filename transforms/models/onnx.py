"""ONNX models, run by ONNX Runtime: a `.onnx` file, or a folder with `model.onnx` and weights."""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from evalbeam.transforms import arrow, errors, models
from evalbeam.transforms.models import function, tensors, threads

try:
    import onnx
    import onnxruntime
    from onnx import external_data_helper, numpy_helper
except ImportError as error:
    raise errors.ConfigError(
        f"models of kind onnx need a package that cannot be imported ({error}): "
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
# The model's name, by convention, in a folder with its weights.
_FILE = "model.onnx"
# It runs special operators on a remote service; only models made for it have them.
_REMOTE = "AzureExecutionProvider"
_FATAL = 4


def load(spec: models.ModelSpec, path: str) -> function.Function:
    """The model, on the hardware that ONNX Runtime finds; the CPU runs what nothing else supports.

    Raises:
      ConfigError: weights are in another file but not in the same folder, ONNX Runtime cannot load
        it, or an output is not a tensor; or as in function.Function.
    """
    folder = os.path.isdir(path)
    if folder:
        path = os.path.join(path, _FILE)
    # Before the session, which loads the weights again, so that only one copy is in memory.
    parameters, external_files, vocabularies = _read_graph(path)
    # Digest, size and remote copies would not include files outside of the folder.
    for file in map(pathlib.PurePath, external_files):
        if not folder or file.is_absolute() or ".." in file.parts:
            raise errors.ConfigError(
                f"it has weights in another file, {str(file)!r}. Put both into a separate folder, "
                f"with the model as {_FILE}, and use the folder as `path`"
            )
    session = _start_session(path)
    inputs = {argument.name: argument for argument in session.get_inputs()}
    outputs = {argument.name: argument for argument in session.get_outputs()}
    for name, argument in inputs.items():
        if argument.type not in _DTYPES:
            raise errors.ConfigError(
                f"input {name!r} is {_describe_type(argument.type)}, which columns cannot fill. "
                "Export the model with inputs that are tensors of numbers or strings, or write a "
                "Python function that runs it, and set `callable: module:function`"
            )
    return function.Function(
        spec,
        _Onnx(session, _fixed_rows(inputs)),
        [_tensor(argument) for argument in inputs.values()],
        [_tensor(argument) for argument in _select_tensors(spec, outputs)],
        parameters,
        vocabularies=vocabularies,
    )


class _Onnx:
    """A session; thread-safe."""

    def __init__(self, session: Any, rows: int | None) -> None:
        self._session = session
        self._rows = rows

    def __call__(self, arrays: function.Arrays, names: Collection[str]) -> function.Arrays:
        """The outputs with these names, for any number of rows."""
        output_names = list(names)
        inputs = {
            name: _decode_texts(name, array) if array.dtype == object else array
            for name, array in arrays.items()
        }

        def call(piece: function.Arrays) -> function.Arrays:
            return dict(zip(output_names, self._session.run(output_names, piece), strict=True))

        return function.call_in_pieces(call, inputs, self._rows)


def _read_graph(path: str) -> tuple[int | None, list[str], list[tuple[str, ...]]]:
    """The number of trained parameters, the files that hold weights, and names of classes.

    Counts the graph's initializers except int32 and int64, which are shapes and indices. So it does
    not count the biases of quantised layers, constants that are nodes, or the trees of tree
    operators. None if nothing was counted.
    """
    try:
        model = onnx.load_model(path, load_external_data=False)
    except Exception:  # ONNX Runtime, which loads it next, reports what is wrong with the file.
        return None, [], []
    graph = model.graph
    uncounted = (onnx.TensorProto.INT32, onnx.TensorProto.INT64, onnx.TensorProto.STRING)
    count = sum(
        math.prod(tensor.dims) for tensor in graph.initializer if tensor.data_type not in uncounted
    )
    external_files = {
        external_data_helper.ExternalDataInfo(tensor).location
        for tensor in _list_tensors(model)
        if external_data_helper.uses_external_data(tensor)
    }
    return count or None, sorted(external_files), list(_list_vocabularies(graph))


def _list_tensors(model: Any) -> Iterator[Any]:
    """All tensors: weights and constants of the graph, of graphs in it, and of functions."""
    graphs = [model.graph]
    nodes = [node for function_ in model.functions for node in function_.node]
    for training in model.training_info:
        graphs += [training.initialization, training.algorithm]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            nodes += graph.node
            yield from graph.initializer
            sparse = list(graph.sparse_initializer)
        else:
            attributes = nodes.pop().attribute
            sparse = []
            for attribute in attributes:
                graphs += [attribute.g, *attribute.graphs]
                sparse += [attribute.sparse_tensor, *attribute.sparse_tensors]
                yield attribute.t
                yield from attribute.tensors
        for each in sparse:
            yield each.values
            yield each.indices


def _list_vocabularies(graph: Any) -> Iterator[tuple[str, ...]]:
    """The classes of scikit-learn's estimators, as its converter writes them."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name.startswith("classlabels_"):
                names = [name.decode(errors="replace") for name in attribute.strings]
                yield tuple(names or map(str, attribute.ints))
        if node.op_type == "ArrayFeatureExtractor" and node.input[0] in constants:
            values = numpy_helper.to_array(constants[node.input[0]]).astype(str)
            yield tuple(values.ravel().tolist())


def _start_session(path: str) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads.share()
    # Threads that busy-wait would take the cores from other versions and from Beam.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Errors are raised anyway.
    options.log_severity_level = _FATAL
    providers = [name for name in onnxruntime.get_available_providers() if name != _REMOTE]
    try:
        # No fallback, which prints a message; providers that fail are skipped in any case.
        return onnxruntime.InferenceSession(path, options, providers=providers, enable_fallback=0)
    except Exception as error:  # The runtime's exceptions have no common class.
        raise errors.ConfigError(
            f"ONNX Runtime {onnxruntime.__version__} cannot load it: {_message(error)}. If "
            "the file is damaged, export or copy it again; if an operator is unknown, export with "
            "ONNX's own operators and an opset that this version supports; if weights are missing, "
            "put their files next to it"
        ) from error


def _fixed_rows(inputs: dict[str, Any]) -> int | None:
    """The number of rows that the model takes at once; None for any number."""
    first = [argument.shape[0] for argument in inputs.values() if argument.shape]
    # Old exporters write 0 for a dynamic size.
    fixed = {size for size in first if isinstance(size, int) and size > 0}
    if len(fixed) > 1:
        shapes = ", ".join(f"{name!r} {argument.shape}" for name, argument in inputs.items())
        raise errors.ConfigError(
            f"its inputs take different numbers of rows: {shapes}. Export it with a first "
            "dimension that is dynamic, or the same for all inputs"
        )
    return fixed.pop() if fixed else None


def _select_tensors(spec: models.ModelSpec, outputs: dict[str, Any]) -> list[Any]:
    """The outputs that are tensors.

    scikit-learn's converter outputs probabilities as a list of maps, alongside the decisions as a
    tensor. The decisions must not be evaluated instead, unless the spec lists them.
    """
    others = [argument for argument in outputs.values() if argument.type not in _DTYPES]
    selected = [argument for argument in outputs.values() if argument.type in _DTYPES]
    if invalid := [other for other in others if not spec.outputs or other.name in spec.outputs]:
        alternative = f", or set `outputs: [{selected[0].name}]`" if selected else ""
        raise errors.ConfigError(
            f"output {invalid[0].name!r} is {invalid[0].type}, not a tensor, and cannot be "
            "evaluated. To get probabilities as a tensor from scikit-learn's converter, pass "
            f"`options={{'zipmap': False}}`{alternative}"
        )
    return selected


def _describe_type(name: str) -> str:
    """ONNX's name for a type of values that is not a dense tensor, in words.

    >>> _describe_type("seq(map(string,tensor(float)))"), _describe_type("tensor(bfloat16)")
    ('a sequence, seq(map(string,tensor(float)))', 'a tensor of another type, tensor(bfloat16)')
    """
    forms = {
        "seq": "a sequence",
        "map": "a map",
        "optional": "optional",
        "sparse_tensor": "a sparse tensor",
    }
    return f"{forms.get(name.partition('(')[0], 'a tensor of another type')}, {name}"


def _tensor(argument: Any) -> tensors.Tensor:
    # An empty shape is either a scalar or a shape that the model does not declare.
    sizes = [size if isinstance(size, int) else None for size in argument.shape]
    return tensors.Tensor(
        argument.name, np.dtype(_DTYPES[argument.type]), (None, *sizes[1:]) if sizes else None
    )


def _decode_texts(name: str, array: np.ndarray) -> np.ndarray:
    """Bytes as the strings that the runtime takes.

    Raises:
      UnscorableRowsError: rows with bytes that are not UTF-8.
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


def _message(error: Exception) -> str:
    """The runtime's message on one line, without its error code and the path."""
    text = " ".join(str(error).split())
    return (text.rpartition("failed:")[2] or text).rstrip(".")
