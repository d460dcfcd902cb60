"""A path to a function of batches: one module for each kind of model."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
import pathlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np

from evalbeam.transforms import arrow, batch, errors
from evalbeam.transforms.models import columns, files, memory, quiet
from evalbeam.transforms.models.images import Image

# Modules, not objects: TensorFlow loads only when a model needs it.
REGISTRY = {
    "saved_model": "evalbeam.transforms.models.saved_model",
    "keras": "evalbeam.transforms.models.keras",
    "tflite": "evalbeam.transforms.models.tflite",
    "tfjs": "evalbeam.transforms.models.tfjs",
    "onnx": "evalbeam.transforms.models.onnx",
    "callable": "evalbeam.transforms.models.callable",
    "stored": "evalbeam.transforms.models.stored",
}
# What tells a model's kind: a file in its folder, or the ending of its name.
_FILES = {"saved_model.pb": "saved_model", "model.json": "tfjs", "model.onnx": "onnx"}
_ENDINGS = {".keras": "keras", ".tflite": "tflite", ".onnx": "onnx"}

# What is no model of a known kind, by the ending of its name, but nearly.
_NEARLY = {
    ".h5": "load it with Keras and save it as `.keras`, `model.save('name.keras')`",
    ".hdf5": "load it with Keras and save it as `.keras`, `model.save('name.keras')`",
    "saved_model.pb": "name its folder, which has the variables too",
    "model.json": "name its folder, which has the weights too",
    **dict.fromkeys(
        (".joblib", ".pkl", ".pickle", ".pt", ".pth", ".ubj"),
        "write a Python function that loads it and predicts, and name that: "
        "`callable: module:function`",
    ),
}

# Where models of a kind are deployed.
RUNS_IN = {
    "saved_model": ("TensorFlow", "TensorFlow Serving"),
    "keras": ("Keras",),
    "tflite": ("LiteRT (Android, iOS, embedded)",),
    "tfjs": ("TensorFlow.js (browsers, Node.js)",),
    "onnx": ("ONNX Runtime",),
    "callable": ("Python",),
}
# The package that runs models of a kind, where it is not TensorFlow's.
PACKAGES = {"keras": "keras", "onnx": "onnxruntime", "tflite": "ai-edge-litert"}


@dataclass(frozen=True)
class ModelSpec:
    """One version, as the config names it; hashable, so that a process loads it once.

    Attributes:
      name: the version's name in every result.
      kind: a key of REGISTRY.
      path: the model's file or folder; "" where it has none.
      signature: of a SavedModel or TFLite model with several; "serving_default" unless told
        otherwise.
      inputs: (model input, column or image) pairs where the names differ.
      images: (name, image) pairs: what inputs of these names are, instead of columns.
      function: for a callable, "module:function".
      sha256: what the digest of its files must be; "" where that is left open.
      allow_unsafe: whether code inside a `.keras` file may run.
      predictions: for stored predictions, (output, column) pairs; output "" where there is one.
      outputs: the outputs that are evaluated, () for all of them. Where one output is evaluated,
        it has the name "" in all results, whatever the model calls it: versions compare by it.
    """

    name: str
    kind: str
    path: str = ""
    signature: str = "serving_default"
    inputs: tuple[tuple[str, str], ...] = ()
    images: tuple[tuple[str, Image], ...] = ()
    function: str = ""
    sha256: str = ""
    allow_unsafe: bool = False
    predictions: tuple[tuple[str, str], ...] = ()
    outputs: tuple[str, ...] = ()


class Model(Protocol):
    """A loaded version; Beam's threads share it."""

    # The columns it reads, and whether it reads the raw serialised examples.
    projection: batch.Projection
    # What it takes from the columns; () where it reads the serialised examples.
    inputs: tuple[columns.Input, ...]
    # The names of its outputs in all results.
    outputs: tuple[str, ...]
    # How many numbers were trained, where that is known.
    parameters: int | None
    # The process that it runs in, if that is not this one.
    pid: int | None

    def predict(self, examples: batch.Batch) -> dict[str, np.ndarray]:
        """By output, float32 or float64, [N] or [N, K].

        Raises:
          arrow.UnscorableRowsError: for rows whose values the model's inputs cannot take.
          JobError: data or predictions that no choice of rows would mend.
          Exception: whatever the model raises.
        """


class Loader(Protocol):
    """What the module of a kind provides."""

    def load(self, spec: ModelSpec, path: str) -> Model:
        """The model at the local `path`; ConfigError, without the version's name, if unfit."""


@dataclass(frozen=True)
class Loading:
    """A model, and what loading it took.

    Attributes:
      model: it.
      stamp: which files, of which time.
      seconds: the time, its library's import left out.
      peak_bytes, kept_bytes: this process's memory, at most and in the end; None where the system
        does not say.
    """

    model: Model
    stamp: tuple[tuple[str, int], ...]
    seconds: float
    peak_bytes: int | None
    kept_bytes: int | None


_LOCK = threading.Lock()
_LOADED: dict[ModelSpec, Loading] = {}


def load(spec: ModelSpec) -> Model:
    """The version's model, see `loading`."""
    return loading(spec).model


def loading(spec: ModelSpec) -> Loading:
    """The version's model, loaded once per process, whatever the number of threads that ask.

    A model whose files have changed since (one trained again in the same notebook) loads anew.

    Raises:
      ConfigError: unknown kind, absent path, or a model that does not fit its kind or the spec.
    """
    # One lock for all: threads that start together ask for the same versions anyway.
    with _LOCK, _naming(spec):
        path = files.local(spec.path) if spec.path else ""
        stamp = (
            tuple((file, os.stat(file).st_mtime_ns) for file in files.tree(path)) if path else ()
        )
        loaded = _LOADED.get(spec)
        if loaded is None or loaded.stamp != stamp:
            _check_digest(spec, path)
            with quiet.starting_tensorflow():
                loader = _kind(spec.kind)
                watch, started = memory.Watch(), time.perf_counter()
                model = loader.load(spec, path)
                seconds = time.perf_counter() - started
            loaded = Loading(model, stamp, seconds, watch.peak(), watch.kept())
            _LOADED[spec] = loaded
        return loaded


def check_inputs(
    spec: ModelSpec, model: Model, examples: batch.Batch, known: Sequence[str]
) -> None:
    """Checks names, dtypes and shapes of the model's inputs against a first batch of the data.

    `known` are the data's columns, beside those that were read, for the error to name.

    Raises:
      ConfigError: no row of the batch could be scored; says what to change.
    """
    with _naming(spec):
        if model.projection.serialized and examples.serialized is None:
            raise errors.ConfigError(
                f"its signature {spec.signature!r} takes serialised tf.Examples, and data in "
                f"format {examples.shard.format!r} has none. If its input is a column, say so: "
                "`inputs: {<model input>: <column>}`"
            )
        for declared in model.inputs:
            if declared.column not in examples.columns.schema.names:
                names = {*known, *examples.columns.schema.names}
                raise errors.ConfigError(_no_column(spec, declared, sorted(names)))
        rest = examples
        while True:
            try:
                columns.arrays(model.inputs, rest)
                return
            except errors.JobError as error:
                raise errors.ConfigError(str(error)) from error
            except arrow.UnscorableRowsError as error:
                if len(error.reasons) == len(rest):
                    raise errors.ConfigError(
                        f"no row of the first batch of {examples.shard} can be scored: {error}"
                    ) from error
                # Behind these rows may be what is wrong with all others.
                rest = rest.take(np.delete(np.arange(len(rest)), list(error.reasons)))


def infer_kind(path: str) -> str:
    """The kind of the model at `path`, local or remote.

    Raises:
      ConfigError: nothing is there, or nothing that is known.
    """
    local = pathlib.Path(files.local(path))
    if local.is_dir():
        for name, kind in _FILES.items():
            if (local / name).exists():
                return kind
        found = f"a folder with {files.listing(os.listdir(local))}"
    elif local.suffix in _ENDINGS:
        return _ENDINGS[local.suffix]
    else:
        found = f"the file {local.name}"
    for end, remedy in _NEARLY.items():
        if local.name.endswith(end):
            raise errors.ConfigError(f"{path} is not evaluated as it is: {remedy}")
    known = [f"a folder with {name} ({kind})" for name, kind in _FILES.items()]
    known += [f"a file whose name ends in {end} ({kind})" for end, kind in _ENDINGS.items()]
    raise errors.ConfigError(
        f"{path} is no model of a known kind: found {found}; known are {', '.join(known)}"
    )


def _check_digest(spec: ModelSpec, path: str) -> None:
    if spec.sha256 and (found := files.digest(path)) != spec.sha256:
        raise errors.ConfigError(
            f"its SHA-256 is {found}, and the config says {spec.sha256}: it is another model than "
            "was meant, and was not loaded"
        )


@contextlib.contextmanager
def _naming(spec: ModelSpec) -> Iterator[None]:
    """Puts the version's name and path before the text of a ConfigError."""
    try:
        yield
    except errors.ConfigError as error:
        path = f" ({spec.path})" if spec.path else ""
        raise errors.ConfigError(f"Version {spec.name!r}{path}: {error}") from error


def _kind(name: str) -> Loader:
    if name not in REGISTRY:
        hint = errors.did_you_mean(name, REGISTRY)
        raise errors.ConfigError(
            f"unknown kind of model {name!r}; known are {', '.join(REGISTRY)}.{hint}"
        )
    return cast(Loader, importlib.import_module(REGISTRY[name]))


def _no_column(spec: ModelSpec, declared: columns.Input, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(declared.column, names, n=1)
    nearest = f"; nearest: {near[0]!r}" if near else ""
    if fields := [name for name in names if name.startswith(f"{declared.column}.")]:
        nearest = f"; it is a struct, whose fields are columns: {errors.listed(fields)}"
    images = [name for name, _ in spec.images]
    if declared.image is None and (near := difflib.get_close_matches(declared.column, images, 1)):
        nearest += f"; nearest image: {near[0]!r}"
    data_has = f"(data has: {', '.join(sorted(names)) or 'no column'}{nearest})"
    if spec.kind == "stored":
        return (
            f"its predictions' column {declared.column!r} is not in the data {data_has}. Name the "
            "column that holds them: `predictions: <column>`"
        )
    if declared.image is not None:
        return (
            f"{declared} has no column in the data {data_has}. Name the column that holds it in "
            f"the config: `data: {{images: {{{declared.image.name}: {{column: <column>}}}}}}`"
        )
    mapped = f", mapped to {declared.column!r}," if declared.column != declared.name else ""
    return (
        f"input {declared.name!r}{mapped} has no column in the data {data_has}. Add to this "
        f"model in the config: `inputs: {{{declared.name}: <column>}}`"
    )
