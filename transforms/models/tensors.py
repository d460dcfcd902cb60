"""What kinds of model have in common: named tensors in, named tensors out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from evalbeam.transforms import errors, models
from evalbeam.transforms.models import columns


@dataclass(frozen=True)
class Tensor:
    """An input or output, as the model declares it.

    Attributes:
      name: the model's name for it.
      dtype: NumPy's; object for strings.
      shape: None for sizes that are open, the first of them the rows; the whole is None where
        even their number is open.
    """

    name: str
    dtype: np.dtype
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        dtype = "string" if self.dtype == object else self.dtype.name
        return f"{dtype} of shape {'unknown' if self.shape is None else list(self.shape)}"


def refuse_fixed_rows(takes: Iterable[Tensor]) -> None:
    """Raises ConfigError for an input of a fixed number of rows."""
    for tensor in takes:
        if tensor.shape and tensor.shape[0] is not None:
            raise errors.ConfigError(
                f"input {tensor.name!r} has the shape {list(tensor.shape)}, batches of exactly "
                f"{tensor.shape[0]}. Export the model with None as its first dimension"
            )


def inputs(spec: models.ModelSpec, takes: Iterable[Tensor]) -> tuple[columns.Input, ...]:
    """What the model takes from the columns: those that the spec maps, else those of its names.

    Raises:
      ConfigError: a mapping of something else than an input, or an input that no column fills.
    """
    by_name = {tensor.name: tensor for tensor in takes}
    mapped, images = dict(spec.inputs), dict(spec.images)
    for name in mapped:
        if name not in by_name:
            raise errors.ConfigError(
                f"`inputs` maps {name!r}, but the model's inputs are "
                f"{errors.listed(by_name)}.{errors.did_you_mean(name, by_name)}"
            )
    found = []
    for name, tensor in by_name.items():
        if not tensor.shape:
            raise errors.ConfigError(
                f"input {name!r} is {tensor}; a column fills dense tensors of shape [None] or "
                "[None, ...]. Export a signature with such inputs, or one over serialised "
                "tf.Examples"
            )
        column = mapped.get(name, name)
        image = images.get(column)
        found.append(
            columns.Input(
                name, image.column if image else column, tensor.dtype, tensor.shape[1:], image
            )
        )
    return tuple(found)


def chosen(wanted: Sequence[str], gives: Iterable[Tensor]) -> dict[str, str]:
    """The outputs to evaluate, by the name that they have in results, the model's own.

    Raises:
      ConfigError: an unknown output, or one that cannot be evaluated.
    """
    by_name = {tensor.name: tensor for tensor in gives}
    for name in wanted:
        if name not in by_name:
            raise errors.ConfigError(
                f"unknown output {name!r}; the model's outputs are "
                f"{errors.listed(sorted(by_name))}.{errors.did_you_mean(name, by_name)}"
            )
    # Sorted: TensorFlow restores a signature's outputs in no order to rely on.
    taken = tuple(wanted) or tuple(sorted(by_name))
    for name in taken:
        tensor = by_name[name]
        if not is_number(tensor.dtype) or len(tensor.shape or (None,)) not in (1, 2):
            raise errors.ConfigError(
                f"output {name!r} is {tensor}; numbers of shape [None] or [None, K] can be "
                f"evaluated. Choose with `outputs: [...]` among "
                f"{errors.listed(sorted(by_name))}"
            )
    return {"" if len(taken) == 1 else name: name for name in taken}


def prediction(name: str, array: np.ndarray, rows: int) -> np.ndarray:
    """A model's output as predictions: float32 or float64, [N] or [N, K]; [N, 1] is [N].

    Raises:
      JobError: it has another number of rows, or another rank.
    """
    if array.ndim not in (1, 2) or len(array) != rows:
        raise errors.JobError(
            f"output {name!r} has the shape {list(array.shape)} for {rows} examples; it must be "
            f"[{rows}] or [{rows}, K]. A model must give one prediction for each example"
        )
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float64 if array.dtype.kind in "biu" else np.float32)
    return array[:, 0] if array.shape[1:] == (1,) else array


def is_number(dtype: np.dtype) -> bool:
    """Whether values of this dtype can be predictions."""
    # bfloat16 and its kin, which are not NumPy's own, are of kind V.
    return dtype.kind in "biufV"
