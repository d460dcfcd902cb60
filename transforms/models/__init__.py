"""Loads models as functions of batches: one module per kind of model."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import math
import os
import pathlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, cast

import numpy as np

from evalbeam.transforms import arrow, batch, errors
from evalbeam.transforms.models import columns, files, memory, quiet
from evalbeam.transforms.models.images import Image


@dataclass(frozen=True)
class Kind:
    """A kind of model.

    Attributes:
      module: where its `load` is. A name, not an object: TensorFlow loads only if a model needs it.
      marker: the file in a model's folder that identifies the kind.
      suffix: the suffix of a model's file that identifies it.
      runs_in: where models of the kind are deployed.
      package: the package that runs them, if it is not TensorFlow.
      options: keys of a version's config that only some kinds have.
    """

    module: str
    marker: str = ""
    suffix: str = ""
    runs_in: tuple[str, ...] = ()
    package: str = ""
    options: tuple[str, ...] = ()


REGISTRY = {
    "saved_model": Kind(
        "evalbeam.transforms.models.saved_model",
        marker="saved_model.pb",
        runs_in=("TensorFlow", "TensorFlow Serving"),
        options=("signature", "allow_unsafe"),
    ),
    "keras": Kind(
        "evalbeam.transforms.models.keras",
        suffix=".keras",
        runs_in=("Keras",),
        package="keras",
        options=("allow_unsafe",),
    ),
    "tflite": Kind(
        "evalbeam.transforms.models.tflite",
        suffix=".tflite",
        runs_in=("LiteRT (Android, iOS, embedded)",),
        package="ai-edge-litert",
        options=("signature",),
    ),
    "tfjs": Kind(
        "evalbeam.transforms.models.tfjs",
        marker="model.json",
        runs_in=("TensorFlow.js (browsers, Node.js)",),
    ),
    "onnx": Kind(
        "evalbeam.transforms.models.onnx",
        marker="model.onnx",
        suffix=".onnx",
        runs_in=("ONNX Runtime",),
        package="onnxruntime",
    ),
    "callable": Kind("evalbeam.transforms.models.callable", runs_in=("Python",)),
    "stored": Kind("evalbeam.transforms.models.stored"),
    "transform": Kind("evalbeam.transforms.models.transform"),
}

# Paths that are not a supported model but close to one, by suffix, and what to do instead.
_REMEDIES = {
    ".h5": "load it with Keras and save it as `.keras`, `model.save('name.keras')`",
    ".hdf5": "load it with Keras and save it as `.keras`, `model.save('name.keras')`",
    "saved_model.pb": "use its folder, which also contains the variables",
    "model.json": "use its folder, which also contains the weights",
    **dict.fromkeys(
        # Of scikit-learn, PyTorch, Hugging Face and XGBoost; after model.json.
        (
            *(".joblib", ".pkl", ".pickle", ".skops", ".pt", ".pth", ".pt2", ".safetensors"),
            *(".ubj", ".bst", ".json"),
        ),
        "write a Python function that loads it and predicts, and set `callable: module:function`",
    ),
}


@dataclass(frozen=True)
class ModelSpec:
    """One version, as configured; hashable, so that a process loads it only once.

    Attributes:
      name: the version's name in all results.
      kind: a key of REGISTRY.
      path: the model's file or folder; "" if it has none.
      signature: which signature of a SavedModel or TFLite model to use.
      inputs: (model input, column or image) pairs for inputs whose names differ; a tuple of
        columns is stacked.
      images: (name, image) pairs; inputs with these names take the image instead of a column.
      function: for a callable, "module:function".
      sha256: the required digest of its files; "" to accept any.
      allow_unsafe: whether code inside a `.keras` file may run, and operations of a SavedModel that
        reach files, the network or Python.
      predictions: for stored predictions, (output, columns) pairs; output "" if there is only one.
        Several columns hold a score for each class.
      classes: the column of the classes of each score, if predictions are lists of the largest
        scores; "" otherwise.
      scores: the scale of its scores (`examples.scores.Scale`).
      outputs: the outputs to evaluate, () for all. A single output is named "" in all results,
        whatever the model calls it, so that versions can be compared.
    """

    name: str
    kind: str
    path: str = ""
    signature: str = "serving_default"
    inputs: tuple[tuple[str, str | tuple[str, ...]], ...] = ()
    images: tuple[tuple[str, Image], ...] = ()
    function: str = ""
    sha256: str = ""
    allow_unsafe: bool = False
    predictions: tuple[tuple[str, tuple[str, ...]], ...] = ()
    classes: str = ""
    scores: Literal["", "probabilities", "logits", "percent", "as_is"] = ""
    outputs: tuple[str, ...] = ()


# Numbers, too, as an estimator was trained with.
ClassName = str | int | float


class Model(Protocol):
    """A loaded version, shared by Beam's threads."""

    # The columns it reads, and whether it reads the raw serialised examples.
    projection: batch.Projection
    # Its inputs from columns; () if it reads the serialised examples.
    inputs: tuple[columns.Input, ...]
    # The names of its outputs in all results.
    outputs: tuple[str, ...]
    # The number of trained parameters, if known.
    parameters: int | None
    # The process that it runs in, if not this one.
    pid: int | None

    def predict(self, examples: batch.Batch) -> dict[str, np.ndarray]:
        """By output, float32 or float64, [N] or [N, K].

        Raises:
          arrow.UnscorableRowsError: the model's inputs cannot take the values of some rows.
          arrow.UnequalRowsError: some rows must be predicted separately from others.
          DataError: data or predictions are wrong in every row.
          Exception: anything that the model raises.
        """

    def classes(self, examples: batch.Batch) -> Mapping[str, tuple[ClassName, ...]]:
        """The names of the classes in the order of scores, by output that the model has some for.

        `examples` are tried where only predictions have the names.

        Raises:
          ConfigError: their order varies.
        """


class Loader(Protocol):
    """The interface of a kind's module."""

    def load(self, spec: ModelSpec, path: str) -> Model:
        """Loads the model at the local `path`; raises ConfigError, without the version's name."""


@dataclass(frozen=True)
class Loading:
    """A loaded model, and the cost of loading it.

    Attributes:
      model: the model.
      stamp: its files and their modification times.
      seconds: the load time, without importing the library.
      peak_bytes, kept_bytes: memory that this process gained, at its peak and after loading; None
        if the system does not report it.
    """

    model: Model
    stamp: tuple[tuple[str, int], ...]
    seconds: float
    peak_bytes: int | None
    kept_bytes: int | None


_LOCK = threading.Lock()
_LOADED: dict[ModelSpec, Loading] = {}


def load(spec: ModelSpec) -> Model:
    """The version's model; see `loading`."""
    return loading(spec).model


def loading(spec: ModelSpec) -> Loading:
    """The version's model, loaded once per process, however many threads request it.

    A model whose files have changed since (retrained in the same notebook) is loaded again.

    Raises:
      ConfigError: the kind is unknown, the path does not exist, or the model does not match its
        kind or the spec.
    """
    # One lock for all: threads that start together request the same versions anyway.
    with _LOCK, _name_version(spec):
        path = files.local(spec.path) if spec.path else ""
        stamp = (
            tuple((file, os.stat(file).st_mtime_ns) for file in files.tree(path)) if path else ()
        )
        loaded = _LOADED.get(spec)
        if loaded is None or loaded.stamp != stamp:
            _check_digest(spec, path)
            with quiet.starting_tensorflow():
                loader = _import_kind(spec.kind)
                watch, started = memory.Watch(), time.perf_counter()
                model = loader.load(spec, path)
                seconds = time.perf_counter() - started
            loaded = Loading(model, stamp, seconds, watch.peak(), watch.kept())
            _LOADED[spec] = loaded
        return loaded


def check_inputs(
    spec: ModelSpec, model: Model, examples: batch.Batch, column_names: Sequence[str]
) -> None:
    """Checks names, dtypes and shapes of the model's inputs against the data's first batch.

    `column_names` are all of the data's columns, for error messages to list.

    Raises:
      ConfigError: no row of the batch can be scored; says what to change.
    """
    with _name_version(spec):
        if model.projection.serialized and examples.serialized is None:
            raise errors.ConfigError(
                f"its signature {spec.signature!r} takes serialised tf.Examples, but data in "
                f"format {examples.shard.format!r} has none. If its input is a column, set "
                "`inputs: {<model input>: <column>}`"
            )
        present = examples.columns.schema.names
        for declared in model.inputs:
            for column in declared.columns:
                if column not in present:
                    names = sorted({*column_names, *present})
                    raise errors.ConfigError(_explain_missing_column(spec, declared, column, names))
        try:
            reason = _why_unscorable(model.inputs, examples)
        except errors.DataError as error:
            raise errors.ConfigError(str(error)) from error
        if reason:
            raise errors.ConfigError(
                f"no row of the first batch of {examples.shard} can be scored: {reason}"
            )


def _why_unscorable(inputs: Sequence[columns.Input], examples: batch.Batch) -> str:
    """Why no row of the batch can fill the inputs; "" if any row can."""
    try:
        columns.arrays(inputs, examples)
    except arrow.UnequalRowsError as error:
        reasons = [_why_unscorable(inputs, examples.take(group)) for group in error.groups]
        return reasons[0] if all(reasons) else ""
    except arrow.UnscorableRowsError as error:
        if len(error.reasons) == len(examples):
            return error.reasons[min(error.reasons)]
        # The other rows may all have another fault: check them without these.
        rest = np.delete(np.arange(len(examples)), list(error.reasons))
        return _why_unscorable(inputs, examples.take(rest))
    return ""


def infer_kind(path: str) -> str:
    """The kind of the model at `path`, local or remote.

    Raises:
      ConfigError: nothing exists there, or no model of a supported kind.
    """
    local = pathlib.Path(files.local(path))
    if kind_name := _recognize(local):
        return kind_name
    if local.is_dir():
        names = sorted(os.listdir(local))
        # By number, as of versions that TensorFlow Serving takes, the last one last.
        inside = sorted((name for name in names if _recognize(local / name)), key=_number)
        if inside:
            raise errors.ConfigError(
                f"{path} is not a model, but a folder of models ({files.listing(inside)}): choose "
                f"one, such as {path.rstrip('/')}/{inside[-1]}"
            )
        description = f"a folder with {files.listing(names)}"
    else:
        description = f"the file {local.name}"
    for suffix, remedy in _REMEDIES.items():
        if local.name.endswith(suffix):
            raise errors.ConfigError(f"{path} cannot be evaluated as is: {remedy}")
    supported = [
        f"a folder with {kind.marker} ({name})" for name, kind in REGISTRY.items() if kind.marker
    ]
    supported += [
        f"a file named *{kind.suffix} ({name})" for name, kind in REGISTRY.items() if kind.suffix
    ]
    raise errors.ConfigError(
        f"{path} is not a model of a supported kind: it is {description}; supported: "
        f"{', '.join(supported)}"
    )


def _recognize(local: pathlib.Path) -> str | None:
    """The kind of a model's file or folder; None if it is not one."""
    for name, kind in REGISTRY.items():
        if kind.marker and (local / kind.marker).exists():
            return name
        if kind.suffix and local.suffix == kind.suffix and not local.is_dir():
            return name
    return None


def _number(name: str) -> tuple[int, str]:
    return (int(name) if name.isdecimal() else 0, name)


def _check_digest(spec: ModelSpec, path: str) -> None:
    if spec.sha256 and (digest := files.digest(path)) != spec.sha256:
        raise errors.ConfigError(
            f"its SHA-256 digest is {digest}, but the config requires {spec.sha256}: this is not "
            "the intended model, and it was not loaded"
        )


@contextlib.contextmanager
def _name_version(spec: ModelSpec) -> Iterator[None]:
    """Prefixes the text of a ConfigError with the version's name and path."""
    try:
        yield
    except errors.ConfigError as error:
        path = f" ({spec.path})" if spec.path else ""
        raise errors.ConfigError(f"Version {spec.name!r}{path}: {error}") from error


def _import_kind(name: str) -> Loader:
    if name not in REGISTRY:
        hint = errors.did_you_mean(name, REGISTRY)
        raise errors.ConfigError(
            f"unknown model kind {name!r}; valid kinds: {', '.join(REGISTRY)}.{hint}"
        )
    return cast(Loader, importlib.import_module(REGISTRY[name].module))


def _explain_missing_column(
    spec: ModelSpec, declared: columns.Input, column: str, names: Sequence[str]
) -> str:
    data_columns = f"(its columns: {errors.nearest(column, names)})"
    if fields := [name for name in names if name.startswith(f"{column}.")]:
        data_columns += f"; it is a struct, whose fields are columns: {errors.shortened(fields)}"
    images = [name for name, _ in spec.images]
    if declared.image is None and (near := difflib.get_close_matches(column, images, 1)):
        data_columns += f"; closest image: {near[0]!r}"
    if spec.kind == "stored":
        return (
            f"the column {column!r} of its predictions is not in the data {data_columns}. "
            "Set `predictions: <column>` to the column that holds them"
        )
    if declared.image is not None:
        return (
            f"{declared} has no column in the data {data_columns}. Set the column that holds it in "
            f"the config: `data: {{images: {{{declared.image.name}: {{column: <column>}}}}}}`"
        )
    if declared.more or column != declared.name:
        return (
            f"input {declared.name!r} is mapped to {column!r}, which is not in the data "
            f"{data_columns}. Set `inputs: {{{declared.name}: ...}}` to columns that are"
        )
    remedy = f"`inputs: {{{declared.name}: <column>}}`"
    if declared.parts is not None:
        remedy += f" with a column of lists, as the input is {declared.parts.form}"
    size = math.prod(size or 1 for size in declared.shape or ())
    if size > 1:
        remedy = (
            f"`inputs: {{{declared.name}: [<column>, <column>, ...]}}` with the columns that hold "
            f"its {size} values, in the model's order, or the name of one column of lists"
        )
    return (
        f"input {declared.name!r} has no column in the data {data_columns}. Add to this model in "
        f"the config: {remedy}"
    )
