"""Operations of SavedModels that do more than compute: they reach files, Python or the network."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tensorflow.core.protobuf import saved_model_pb2

# Of files, if one may write them, or give their content away as a prediction.
_FILES = {
    *("ReadFile", "WriteFile", "MatchingFiles", "Save", "SaveSlices", "SaveV2"),
    *("MergeV2Checkpoints", "LoadAndRemapMatrix", "ImportEvent"),
    *("CreateSummaryFileWriter", "CreateSummaryDbWriter", "CSVDataset", "LMDBDataset"),
    *("ExperimentalCSVDataset", "ExperimentalLMDBDataset", "FixedLengthRecordDataset"),
    *("FixedLengthRecordDatasetV2", "TextLineDataset", "TFRecordDataset", "TFRecordDatasetV2"),
    *("SqlDataset", "ExperimentalSqlDataset", "CacheDataset", "CacheDatasetV2", "SnapshotDataset"),
    *("SnapshotDatasetV2", "SaveDataset", "SaveDatasetV2", "LoadDataset", "WholeFileReader"),
    *("WholeFileReaderV2", "TextLineReader", "TextLineReaderV2", "TFRecordReader"),
    *("TFRecordReaderV2", "FixedLengthRecordReader", "FixedLengthRecordReaderV2", "LMDBReader"),
    *("DebugIdentity", "DebugIdentityV2", "DebugIdentityV3", "DebugNanCount"),
    *("DebugNumericSummary", "DebugNumericSummaryV2"),
}
_PYTHON = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}
_NETWORK = {"DataServiceDataset", "DataServiceDatasetV2", "DataServiceDatasetV3"}
_NETWORK |= {"DataServiceDatasetV4", "RpcCall", "RpcClient", "RpcServer", "RemoteCall"}
_UNSAFE = _FILES | _PYTHON | _NETWORK

_MAIN_OPS = ("saved_model_main_op", "legacy_init_op")


def find(folder: str) -> list[str]:
    """The names of such operations that a SavedModel may run when it is loaded or called, sorted.

    Those that save its variables are not among them: all SavedModels have them, and none is called.
    """
    model = saved_model_pb2.SavedModel()
    model.ParseFromString((Path(folder) / "saved_model.pb").read_bytes())
    found: set[str] = set()
    for graph in model.meta_graphs:
        found.update(node.op for node in _walk(graph) if _is_unsafe(node))
    return sorted(found)


def _is_unsafe(node: Any) -> bool:
    # tf.print writes to a stream or, if its output stream is a URL, to a file.
    return node.op in _UNSAFE or (
        node.op == "PrintV2" and node.attr["output_stream"].s.startswith(b"file:")
    )


def _walk(graph: Any) -> Iterator[Any]:
    """The nodes that signatures, initializers and functions of the model reach."""
    nodes = {node.name: node for node in graph.graph_def.node}
    functions = {each.signature.name: each for each in graph.graph_def.library.function}
    waiting = list(_list_starts(graph))
    seen = set(waiting)
    called = set(graph.object_graph_def.concrete_functions)
    while waiting:
        if (node := nodes.get(waiting.pop())) is None:
            continue
        yield node
        called.update(_list_functions(node))
        inputs = set(map(_node_name, node.input)) - seen
        seen |= inputs
        waiting += inputs
    waiting = list(called)
    while waiting:
        if (function := functions.get(waiting.pop())) is None:
            continue
        yield from function.node_def
        names = set(itertools.chain.from_iterable(map(_list_functions, function.node_def))) - called
        called |= names
        waiting += names


def _list_starts(graph: Any) -> Iterator[str]:
    for signature in graph.signature_def.values():
        for output in signature.outputs.values():
            # A sparse or composite output consists of several.
            names = [output.name, *(getattr(output.coo_sparse, name) for name in _COO)]
            names += [component.name for component in output.composite_tensor.components]
            yield from map(_node_name, names)
    yield graph.saver_def.restore_op_name
    for key in _MAIN_OPS:
        yield from map(_node_name, graph.collection_def[key].node_list.value)


_COO = ("values_tensor_name", "indices_tensor_name", "dense_shape_tensor_name")


def _node_name(tensor: str) -> str:
    return tensor.lstrip("^").partition(":")[0]


def _list_functions(node: Any) -> Iterable[str]:
    yield node.op
    for value in node.attr.values():
        yield value.func.name
        yield from (function.name for function in value.list.func)
