"""Shared by all kinds of model: named input and output tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from evalbeam.transforms import errors, models
from evalbeam.transforms.models import columns


@dataclass(frozen=True)
class Tensor:
    """An input or output, as declared by the model.

    Attributes:
      name: the name in the model.
      dtype: the NumPy dtype; object for strings.
      shape: the sizes, with None for dynamic ones; the first is the number of rows. None if the
        rank is unknown.
      parts: the tensors that the model takes instead, if it is a ragged or sparse input.
    """

    name: str
    dtype: np.dtype
    shape: tuple[int | None, ...] | None
    parts: columns.Parts | None = None

    def __str__(self) -> str:
        dtype = "string" if self.dtype == object else self.dtype.name
        return f"{dtype} of shape {'unknown' if self.shape is None else list(self.shape)}"


def refuse_fixed_rows(input_tensors: Iterable[Tensor]) -> None:
    """Raises ConfigError if an input takes a fixed number of rows."""
    for tensor in input_tensors:
        if tensor.shape and tensor.shape[0] is not None:
            raise errors.ConfigError(
                f"input {tensor.name!r} has the shape {list(tensor.shape)}, so it takes only "
                f"batches of {tensor.shape[0]}. Export the model with None as its first dimension"
            )


def bind_inputs(
    spec: models.ModelSpec, input_tensors: Iterable[Tensor]
) -> tuple[columns.Input, ...]:
    """Binds each input to the column or image that the spec maps it to, else to that of its name.

    Raises:
      ConfigError: the spec maps a name that is not an input, or no column can fill an input.
    """
    by_name = {tensor.name: tensor for tensor in input_tensors}
    mapped = dict(spec.inputs)
    for name in mapped:
        if name not in by_name:
            raise errors.ConfigError(
                f"`inputs` maps {name!r}, but the model's inputs are "
                f"{errors.shortened(list(by_name))}.{errors.did_you_mean(name, by_name)}"
                + _suggest_stacking(spec, by_name)
            )
    for name, tensor in by_name.items():
        if not tensor.shape:
            raise errors.ConfigError(
                f"input {name!r} is {tensor}; a column can fill dense tensors of shape [None] or "
                "[None, ...]. Export a signature with such inputs, or one over serialised "
                "tf.Examples"
            )
    inputs = []
    for name, tensor in by_name.items():
        bound = bind(spec, name, mapped.get(name, name), tensor.dtype, (tensor.shape or ())[1:])
        if tensor.parts and bound.image:
            raise errors.ConfigError(
                f"input {name!r} is {tensor.parts.form}, which columns of lists fill, but "
                f"{bound.image.name!r} is an image: export the model with a dense input of images"
            )
        inputs.append(replace(bound, parts=tensor.parts))
    return tuple(inputs)


def bind(
    spec: models.ModelSpec,
    name: str,
    source: str | tuple[str, ...],
    dtype: np.dtype | None,
    shape: tuple[int | None, ...] | None,
) -> columns.Input:
    """The input that is filled from `source`: an image or a column, or a stack of columns.

    Raises:
      ConfigError: an image is stacked.
    """
    sources = (source,) if isinstance(source, str) else source
    images = dict(spec.images)
    if image := images.get(sources[0]) if len(sources) == 1 else None:
        return columns.Input(name, image.column, dtype or np.dtype(np.float32), shape, image)
    if stacked := [each for each in sources if each in images]:
        raise errors.ConfigError(
            f"`inputs` stacks {errors.shortened(sources)} for {name!r}, but {stacked[0]!r} is an "
            "image, which cannot be stacked: map images to inputs of their own"
        )
    return columns.Input(name, sources[0], dtype, shape, more=sources[1:])


def _suggest_stacking(spec: models.ModelSpec, by_name: Mapping[str, Tensor]) -> str:
    """What to write if a list of columns was meant to be stacked for the only input."""
    names = [name for name, source in spec.inputs if name == source]
    if len(by_name) > 1 or len(names) < len(spec.inputs):
        return ""
    (only,) = by_name
    return f" To stack columns, write `inputs: {{{only}: [{', '.join(names)}]}}`"


def choose_outputs(requested: Sequence[str], output_tensors: Iterable[Tensor]) -> dict[str, str]:
    """Name in results -> name in the model, of the outputs to evaluate; () requests all.

    Raises:
      ConfigError: an output is unknown or cannot be evaluated.
    """
    by_name = {tensor.name: tensor for tensor in output_tensors}
    for name in requested:
        if name not in by_name:
            raise errors.ConfigError(
                f"unknown output {name!r}; the model's outputs are "
                f"{errors.listed(sorted(by_name))}.{errors.did_you_mean(name, by_name)}"
            )
    # Sorted: TensorFlow restores a signature's outputs in arbitrary order.
    chosen = tuple(requested) or tuple(sorted(by_name))
    for name in chosen:
        tensor = by_name[name]
        if not is_number(tensor.dtype) or len(tensor.shape or (None,)) not in (1, 2):
            raise errors.ConfigError(
                f"output {name!r} is {tensor}; only numbers of shape [None] or [None, K] can be "
                f"evaluated. Choose among {errors.listed(sorted(by_name))} with `outputs: [...]`"
            )
    return {"" if len(chosen) == 1 else name: name for name in chosen}


def choose_classes(tensor: Tensor, vocabularies: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """The only vocabulary that has as many names as an output has scores; () if there is none.

    A single score is that of the second of two classes.

    >>> choose_classes(Tensor("p", np.dtype("f4"), (None, 3)), [("a", "b"), ("x", "y", "z")])
    ('x', 'y', 'z')
    """
    width = tensor.shape[1] if tensor.shape and len(tensor.shape) > 1 else 1
    count = 2 if width == 1 else width
    fitting = {names for names in vocabularies if count in (None, len(names))}
    fitting = {names for names in fitting if len(set(names)) == len(names)}
    return fitting.pop() if len(fitting) == 1 else ()


def to_prediction(name: str, array: np.ndarray, rows: int) -> np.ndarray:
    """Converts a model's output to float32 or float64, [N] or [N, K]; [N, 1] becomes [N].

    Raises:
      DataError: the number of rows or the rank is wrong.
    """
    if rows == 1 and array.ndim < 2 and array.shape != (1,):
        array = array.reshape(1, -1)  # Squeezed, as functions do that were tried on many rows only.
    if array.ndim not in (1, 2) or len(array) != rows:
        raise errors.DataError(
            f"output {name!r} has the shape {list(array.shape)} for {rows} examples; it must be "
            f"[{rows}] or [{rows}, K]: a model must return one prediction per example"
        )
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float64 if array.dtype.kind in "biu" else np.float32)
    return array[:, 0] if array.shape[1:] == (1,) else array


def is_number(dtype: np.dtype) -> bool:
    """Whether values of this dtype can be predictions."""
    # Non-native dtypes such as bfloat16 are of kind V.
    return dtype.kind in "biufV"
