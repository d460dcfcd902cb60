"""Ragged and sparse inputs of a SavedModel's signatures, which TensorFlow saves as their parts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from evalbeam.transforms import errors
from evalbeam.transforms.models.columns import Parts

# TensorFlow's names for the parts of a sparse input of a signature of TensorFlow 1.
_SPARSE_SUFFIXES = ("_indices", "_values", "_dense_shape")


def find(
    function: Any, inputs: Mapping[str, tf.TensorSpec], mapped: Collection[str]
) -> dict[str, Parts]:
    """By name, the inputs of a signature that are ragged or sparse.

    A signature takes such an argument as several dense tensors: flat values and row splits, or
    indices, values and a dense shape. The saved function that it calls still has one name for
    them. It has one name for a structure of dense tensors, too, which can look the same; if the
    config maps the tensors to columns one by one, they are dense.

    Args:
      function: the signature.
      inputs: its inputs by name.
      mapped: the inputs that the config maps to columns.

    Raises:
      ConfigError: an argument may be ragged or sparse, but not in a way that lists can fill.
    """
    found = {}
    for name, parts in _arguments(function, inputs):
        if len(parts) == 1 or any(part in mapped for part in parts[1:]):
            continue
        first, *others = (inputs[part] for part in parts)
        if _is_sparse(first, others):
            found[name] = Parts("sparse", tuple(parts))
        elif len(others) == 1 and _are_splits(others[0]):
            found[name] = Parts("ragged", tuple(parts))
        elif any(_are_splits(part) or _is_shape(part) for part in others):
            mapping = ", ".join(f"{part}: <column>" for part in parts[:2])
            raise errors.ConfigError(
                f"input {name!r} takes the tensors {errors.shortened(parts)}, whose meaning the "
                "file does not tell: a ragged tensor of lists of lists, or a structure with ragged "
                "or sparse parts. Columns of lists fill ragged and sparse tensors of two "
                "dimensions, each an argument of the signature by itself: export it so, or a "
                "signature over serialised tf.Examples. If the tensors are dense, map them one by "
                f"one: `inputs: {{{mapping}, ...}}`"
            )
    return found


def _arguments(
    function: Any, inputs: Mapping[str, tf.TensorSpec]
) -> Iterator[tuple[str, list[str]]]:
    """The saved function's arguments of several tensors: a name, and the inputs in order."""
    for last in inputs:
        name = last.removesuffix(_SPARSE_SUFFIXES[-1])
        parts = [name + suffix for suffix in _SPARSE_SUFFIXES]
        if name != last and all(part in inputs for part in parts):
            yield name, parts
    if not any(map(_are_splits, inputs.values())) and not any(map(_is_shape, inputs.values())):
        return
    library = {each.signature.name: each for each in function.graph.as_graph_def().library.function}
    for call in function.graph.get_operations():
        if call.type not in ("PartitionedCall", "StatefulPartitionedCall"):
            continue
        called = library[call.get_attr("f").name]
        arguments: dict[bytes, list[str]] = {}
        for index, tensor in enumerate(call.inputs):
            if tensor.op.name in inputs:
                argument = called.arg_attr[index].attr["_user_specified_name"].s
                arguments.setdefault(argument, []).append(tensor.op.name)
        for parts in arguments.values():
            yield parts[0], parts


def _is_sparse(indices: tf.TensorSpec, others: Sequence[tf.TensorSpec]) -> bool:
    """Whether the parts are those of a sparse tensor of two dimensions."""
    return (
        len(others) == 2
        and indices.dtype == tf.int64
        and indices.shape.as_list() == [None, 2]
        and others[0].shape.rank == 1
        and _is_shape(others[1])
    )


def _is_shape(spec: tf.TensorSpec) -> bool:
    """Whether it may be a sparse tensor's dense shape: int64 of a fixed size."""
    return spec.dtype == tf.int64 and spec.shape.rank == 1 and spec.shape[0] is not None


def _are_splits(spec: tf.TensorSpec) -> bool:
    """Whether it may be a ragged tensor's row splits: integers, of any number."""
    return spec.dtype in (tf.int32, tf.int64) and spec.shape.as_list() == [None]
