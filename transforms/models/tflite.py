"""TFLite models (float, float16, dynamic-range and full-integer), run by LiteRT."""

from __future__ import annotations

import functools
import io
import math
import os
import pathlib
import threading
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import interpreter as litert
from ai_edge_litert import schema_py_generated as schema

from evalbeam.transforms import arrow, errors, models
from evalbeam.transforms.models import function, quiet, tensors, threads

_QUANTIZED = (np.int8, np.uint8, np.int16)
_FLOATS = (
    schema.TensorType.FLOAT16,
    schema.TensorType.FLOAT32,
    schema.TensorType.FLOAT64,
    schema.TensorType.BFLOAT16,
)
# LiteRT's prefix for TensorFlow operators, which only its Flex delegate supports.
_SELECT_TF = "Flex"
# In LiteRT's errors from before any computation, which occur with any data.
_UNPREPARED = "failed to prepare"
# Relative, for the order of sums, which may differ between sizes. Too small only costs speed.
_PROBE_TOLERANCE = 1e-3


def load(spec: models.ModelSpec, path: str) -> function.Function:
    """The spec's signature, or the model itself if it has no signatures.

    Raises:
      ConfigError: it is not a TFLite file, is damaged, needs operators that LiteRT does not
        support, or has no such signature; or as in function.Function.
    """
    if not os.path.isfile(path):
        raise errors.ConfigError("it is not a file, but a TFLite model is a single file")
    # Read rather than memory-mapped: overwriting the file while the model is in use would crash the
    # process.
    content = pathlib.Path(path).read_bytes()
    with quiet.starting_litert():
        try:
            return _load(spec, content)
        # Raised by LiteRT, or here for names or shapes that cannot be read.
        except (ValueError, RuntimeError) as error:
            raise errors.ConfigError(
                f"LiteRT cannot read its {len(content)} bytes: {_message(error)}. It is not a "
                "TFLite file, or it is damaged: export or copy it again"
            ) from error


def _load(spec: models.ModelSpec, content: bytes) -> function.Function:
    # LiteRT verifies all offsets, so it rejects truncated files.
    start = functools.partial(
        litert.Interpreter, model_content=content, num_threads=threads.share()
    )
    interpreter = start()
    graph = schema.Model.GetRootAs(content, 0)
    custom = _custom_operators(graph)
    _refuse_select_tf(custom)
    lite = _Lite(start, interpreter, _choose_signature(spec, interpreter), _keeps_state(graph))
    model = function.Function(
        spec,
        lite,
        lite.input_tensors,
        lite.output_tensors,
        _count_parameters(graph),
        vocabularies=_list_vocabularies(content),
    )
    try:
        lite.find_rows(tensors.choose_outputs(spec.outputs, lite.output_tensors).values())
    except RuntimeError as error:
        needs = f" with the custom operators {', '.join(custom)}" if custom else ""
        raise errors.ConfigError(
            f"LiteRT cannot run the model{needs}: {_message(error)}. Convert it again with "
            "operators that LiteRT supports, or evaluate the model that it was converted from"
        ) from error
    return model


@dataclass(frozen=True)
class _Stored:
    """An input or output as stored by the interpreter.

    Attributes:
      name: the name in the signature, or of the tensor.
      dtype: the stored dtype; object for strings.
      shape: the sizes when the model is loaded.
      dynamic: which of the sizes may vary.
      scale, zero_point: of a quantised tensor, value = (stored - zero_point) * scale; scale is 0 if
        it is not quantised.
    """

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    dynamic: tuple[bool, ...]
    scale: float
    zero_point: int

    @property
    def tensor(self) -> tensors.Tensor:
        """The tensor as seen from outside: any number of rows, values not quantised."""
        sizes = [
            None if dynamic else size
            for size, dynamic in zip(self.shape, self.dynamic, strict=True)
        ]
        dtype = np.dtype(np.float32) if self.scale else self.dtype
        return tensors.Tensor(self.name, dtype, (None, *sizes[1:]) if sizes else ())

    def quantize(self, values: np.ndarray) -> np.ndarray:
        """Values as stored: quantised to the nearest step, ties to even.

        Raises:
          UnscorableRowsError: rows with NaN, which integers cannot represent.
        """
        if not self.scale:
            return values
        arrow.refuse(
            np.isnan(values).reshape(len(values), -1).any(axis=1),
            lambda row: f"input {self.name!r} is quantised and cannot represent NaN",
        )
        limits = np.iinfo(self.dtype)
        with np.errstate(over="ignore"):
            steps = np.rint(values / np.float32(self.scale)) + np.float32(self.zero_point)
        return np.clip(steps, limits.min, limits.max).astype(self.dtype)

    def probe(self, rows: int, rng: np.random.Generator) -> np.ndarray:
        """Values to try the model with, different in each row."""
        shape = (rows, *self.shape[1:])
        if self.tensor.dtype.kind == "f":
            return rng.random(shape).astype(self.tensor.dtype)
        # Valid as indices into even the smallest table, and as texts of numbers.
        bits = rng.integers(0, 2, shape)
        return bits.astype(bytes if self.dtype == object else np.int8).astype(self.dtype)

    def dequantize(self, stored: np.ndarray) -> np.ndarray:
        """The inverse, up to rounding; float32 if the tensor is quantised."""
        if not self.scale:
            return stored
        return (stored.astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)


class _Lite:
    """A signature of an interpreter, called by one thread at a time.

    Args:
      start: creates an interpreter, to replace a broken one.
      interpreter: the first one.
      signature: the signature's name; None for the model itself.
      keeps_state: whether tensors keep their values between calls, as in recurrent layers.
    """

    def __init__(
        self, start: Callable[[], Any], interpreter: Any, signature: str | None, keeps_state: bool
    ) -> None:
        self._start = start
        self._signature = signature
        self._keeps_state = keeps_state
        self._rows: int | None = None
        self._lock = threading.Lock()
        self._use(interpreter)

    def _use(self, interpreter: Any) -> None:
        self._interpreter = interpreter
        if self._signature is None:
            self._run: Any = _Unsigned(self._interpreter)
        else:
            # It resizes and allocates in each call, which is free if the size has not changed.
            self._run = self._interpreter.get_signature_runner(self._signature)
        inputs, outputs = self._run.get_input_details(), self._run.get_output_details()
        self._inputs = {name: _stored(name, details) for name, details in inputs.items()}
        self._outputs = {name: _stored(name, details) for name, details in outputs.items()}

    @property
    def input_tensors(self) -> list[tensors.Tensor]:
        """The inputs."""
        return [stored.tensor for stored in self._inputs.values()]

    @property
    def output_tensors(self) -> list[tensors.Tensor]:
        """The outputs."""
        return [stored.tensor for stored in self._outputs.values()]

    def __call__(self, arrays: function.Arrays, names: Collection[str]) -> function.Arrays:
        """The outputs with these names, for any number of rows."""
        return self._call_in_pieces(arrays, names, self._rows)

    def find_rows(self, names: Collection[str]) -> None:
        """Finds out whether the model takes any number of rows, or only the exported number.

        Many models are exported with one row but take more; others then fail, or mix rows with each
        other, which only shows in their outputs. So the model is tried with one row more than
        exported, and accepted if each row's outputs are the same as in pieces of the exported size.

        Raises:
          RuntimeError: the model cannot be run with any number of rows.
        """
        # A dynamic number of rows is 1 when the model is loaded.
        exported = max(stored.shape[0] for stored in self._inputs.values())
        is_dynamic = all(stored.dynamic[0] for stored in self._inputs.values())
        rng = np.random.default_rng(0)
        probe = {name: stored.probe(exported + 1, rng) for name, stored in self._inputs.items()}
        try:
            separate = self._call_in_pieces(probe, names, exported)
        except RuntimeError as error:
            # If sizes other than the rows are dynamic, or the values matter, the data may work.
            has_fixed_sizes = not any(any(stored.dynamic[1:]) for stored in self._inputs.values())
            if has_fixed_sizes and _UNPREPARED in str(error):
                raise
            self._rows = None if is_dynamic else exported
            self._use(self._start())
            return
        except errors.JobError:  # It does not return one prediction per row for any size.
            return
        try:
            together = self._call_in_pieces(probe, names, None)
        except RuntimeError:
            self._rows = exported
            self._use(self._start())  # The failed resize has broken the interpreter.
            return
        if not is_dynamic and not all(self._agree(name, together, separate) for name in names):
            self._rows = exported

    def _call_in_pieces(
        self, arrays: function.Arrays, names: Collection[str], rows: int | None
    ) -> function.Arrays:
        stored = {name: self._inputs[name].quantize(array) for name, array in arrays.items()}

        def call(piece: function.Arrays) -> function.Arrays:
            results = self._run(**piece)
            if self._keeps_state:
                self._interpreter.reset_all_variables()
            return {name: self._outputs[name].dequantize(results[name]) for name in names}

        with self._lock:
            return function.call_in_pieces(call, stored, rows)

    def _agree(self, name: str, together: function.Arrays, separate: function.Arrays) -> bool:
        actual, expected = together[name], separate[name]
        return actual.size == expected.size and np.allclose(
            actual.reshape(expected.shape),
            expected,
            rtol=_PROBE_TOLERANCE,
            # Sums in another order may round to the next quantisation step.
            atol=self._outputs[name].scale or 1e-6,
            equal_nan=True,
        )


class _Unsigned:
    """A substitute for the interpreter's signature runner, for models without signatures."""

    def __init__(self, interpreter: Any) -> None:
        self._interpreter = interpreter
        self._inputs = _shorten_names(interpreter.get_input_details())
        self._outputs = _shorten_names(interpreter.get_output_details())

    def get_input_details(self) -> dict[str, Mapping[str, Any]]:
        """The inputs' details by name, as in LiteRT."""
        return self._inputs

    def get_output_details(self) -> dict[str, Mapping[str, Any]]:
        """The outputs' details by name, as in LiteRT."""
        return self._outputs

    def __call__(self, **arrays: np.ndarray) -> function.Arrays:
        """All outputs."""
        for name, array in arrays.items():
            self._interpreter.resize_tensor_input(self._inputs[name]["index"], array.shape)
        self._interpreter.allocate_tensors()
        for name, array in arrays.items():
            self._interpreter.set_tensor(self._inputs[name]["index"], array)
        self._interpreter.invoke()
        return {
            name: self._interpreter.get_tensor(details["index"])
            for name, details in self._outputs.items()
        }


def _shorten_names(tensor_details: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Tensors by name, without the converters' prefix and suffix if the names stay unique."""
    by_name = {details["name"]: details for details in tensor_details}
    short = [name.removeprefix("serving_default_").removesuffix(":0") for name in by_name]
    names = short if len(set(short)) == len(short) else by_name
    return dict(zip(names, by_name.values(), strict=True))


def _stored(name: str, details: Mapping[str, Any]) -> _Stored:
    dtype = np.dtype(object if details["dtype"] is np.bytes_ else details["dtype"])
    # Empty in files of old converters if all sizes are fixed.
    declared = list(details["shape_signature"]) or list(details["shape"])
    scales = details["quantization_parameters"]["scales"]
    quantized = len(scales) == 1 and dtype in _QUANTIZED
    return _Stored(
        name,
        dtype,
        tuple(map(int, details["shape"])),
        tuple(size < 0 for size in declared),
        float(scales[0]) if quantized else 0.0,
        int(details["quantization_parameters"]["zero_points"][0]) if quantized else 0,
    )


def _choose_signature(spec: models.ModelSpec, interpreter: Any) -> str | None:
    names = list(interpreter.get_signature_list())
    if spec.signature in names:
        return spec.signature
    is_default = spec.signature == models.ModelSpec.signature
    if is_default and len(names) <= 1:
        return names[0] if names else None
    listed = errors.listed(names) or "none: omit `signature`"
    raise errors.ConfigError(
        f"it has several signatures, {listed}: choose one, as in `signature: {names[0]}`"
        if is_default
        else f"unknown signature {spec.signature!r}; it has {listed}"
    )


def _list_vocabularies(content: bytes) -> list[tuple[str, ...]]:
    """The lines of text files that TFLite's metadata packs behind the model, such as labels.txt."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            files = [name for name in archive.namelist() if name.endswith(".txt")]
            texts = [archive.read(name).decode("utf-8-sig") for name in files]
    except (zipfile.BadZipFile, UnicodeDecodeError):
        return []
    return [tuple(line.strip() for line in text.strip().splitlines()) for text in texts]


def _custom_operators(graph: Any) -> list[str]:
    codes = (
        graph.OperatorCodes(index).CustomCode() for index in range(graph.OperatorCodesLength())
    )
    return [code.decode() for code in codes if code]


def _refuse_select_tf(custom: Iterable[str]) -> None:
    selected = [code[len(_SELECT_TF) :] for code in custom if code.startswith(_SELECT_TF)]
    if selected:
        raise errors.ConfigError(
            f"it has TensorFlow's operators {', '.join(selected)} (SELECT_TF_OPS), which LiteRT "
            "does not support. Convert it with TFLITE_BUILTINS only, or evaluate the model that it "
            "was converted from"
        )


def _keeps_state(graph: Any) -> bool:
    return any(tensor.IsVariable() for tensor in _tensors(graph))


def _count_parameters(graph: Any) -> int:
    """The number of values in constants that are floats or quantised; others are shapes and axes.

    May be fewer than were trained, as the converter folds batch normalisation into other layers.
    """
    sizes = {}
    for tensor in _tensors(graph):
        buffer, quantization = graph.Buffers(tensor.Buffer()), tensor.Quantization()
        # In files beyond 2 GB the data follow the flatbuffer, at an offset.
        is_constant = buffer.DataLength() or buffer.Offset() > 1
        is_quantized = quantization is not None and quantization.ScaleLength()
        if is_constant and (tensor.Type() in _FLOATS or is_quantized):
            shape = (tensor.Shape(axis) for axis in range(tensor.ShapeLength()))
            sizes[tensor.Buffer()] = math.prod(shape)
    return sum(sizes.values())


def _tensors(graph: Any) -> Iterator[Any]:
    for index in range(graph.SubgraphsLength()):
        subgraph = graph.Subgraphs(index)
        yield from map(subgraph.Tensors, range(subgraph.TensorsLength()))


def _message(error: Exception) -> str:
    """LiteRT's messages on one line; it joins them without a space."""
    return " ".join(str(error).replace("Node number", ". Node number").split()).rstrip(".")
