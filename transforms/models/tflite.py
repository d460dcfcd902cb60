"""TFLite models: float, float16, dynamic-range and full-integer, through LiteRT."""

from __future__ import annotations

import functools
import math
import os
import pathlib
import threading
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
# What LiteRT calls the TensorFlow operators that only its Flex delegate has.
_SELECT_TF = "Flex"
# How LiteRT says that it found the fault before it computed anything: no data would mend it.
_UNPREPARED = "failed to prepare"
# Relative; of what the order of sums may change between sizes. Too small costs speed only.
_PROBE_TOLERANCE = 1e-3


def load(spec: models.ModelSpec, path: str) -> function.Function:
    """The spec's signature, or the model itself where it has none.

    Raises:
      ConfigError: no TFLite file or a damaged one, operators that LiteRT does not have, or no such
        signature; and what function.Function raises.
    """
    if not os.path.isfile(path):
        raise errors.ConfigError("it is no file, as a TFLite model is")
    # Read rather than mapped into memory: a file that is written anew while its model is in use
    # would end the process.
    content = pathlib.Path(path).read_bytes()
    with quiet.starting_litert():
        try:
            return _loaded(spec, content)
        # What LiteRT raises, and what a file gives whose names or shapes are not to be read.
        except (ValueError, RuntimeError) as error:
            raise errors.ConfigError(
                f"LiteRT cannot read its {len(content)} bytes: {_told(error)}. It is no TFLite "
                "file, or a damaged one: export or copy it again"
            ) from error


def _loaded(spec: models.ModelSpec, content: bytes) -> function.Function:
    # It verifies all offsets of the file, so that one cut short is refused, not followed.
    start = functools.partial(
        litert.Interpreter, model_content=content, num_threads=threads.share()
    )
    interpreter = start()
    graph = schema.Model.GetRootAs(content, 0)
    custom = _custom_operators(graph)
    _refuse_select_tf(custom)
    lite = _Lite(start, interpreter, _signature(spec, interpreter), _keeps_state(graph))
    loaded = function.Function(spec, lite, lite.takes, lite.gives, _parameters(graph))
    try:
        lite.find_rows(tensors.chosen(spec.outputs, lite.gives).values())
    except RuntimeError as error:
        needs = f" with the custom operators {', '.join(custom)}" if custom else ""
        raise errors.ConfigError(
            f"LiteRT cannot run the model{needs}: {_told(error)}. Convert it again, with "
            "operators that LiteRT has, or evaluate the model that it was converted from"
        ) from error
    return loaded


@dataclass(frozen=True)
class _Stored:
    """An input or output as the interpreter stores it.

    Attributes:
      name: the signature's name for it, or the tensor's.
      dtype: as it is stored; object for strings.
      shape: the sizes that it has when it is loaded.
      open: which of them may vary.
      scale, zero_point: of a quantised tensor, value = (stored - zero_point) * scale; scale 0
        where it is not quantised.
    """

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    open: tuple[bool, ...]
    scale: float
    zero_point: int

    @property
    def tensor(self) -> tensors.Tensor:
        """What is declared to the columns and results: any number of rows, numbers unquantised."""
        sizes = [None if free else size for size, free in zip(self.shape, self.open, strict=True)]
        dtype = np.dtype(np.float32) if self.scale else self.dtype
        return tensors.Tensor(self.name, dtype, (None, *sizes[1:]) if sizes else ())

    def quantize(self, values: np.ndarray) -> np.ndarray:
        """Values as the tensor has them: quantised to the nearest step, ties to the even one.

        Raises:
          UnscorableRowsError: rows with NaN, for which integers have no value.
        """
        if not self.scale:
            return values
        arrow.refuse(
            np.isnan(values).reshape(len(values), -1).any(axis=1),
            lambda row: f"input {self.name!r} is quantised, which has no value NaN",
        )
        range_ = np.iinfo(self.dtype)
        with np.errstate(over="ignore"):
            steps = np.rint(values / np.float32(self.scale)) + np.float32(self.zero_point)
        return np.clip(steps, range_.min, range_.max).astype(self.dtype)

    def probe(self, rows: int, rng: np.random.Generator) -> np.ndarray:
        """Values to try the model with, unlike from row to row."""
        shape = (rows, *self.shape[1:])
        if self.tensor.dtype.kind == "f":
            return rng.random(shape).astype(self.tensor.dtype)
        # As indices into the smallest table, as texts of numbers.
        bits = rng.integers(0, 2, shape)
        return bits.astype(bytes if self.dtype == object else np.int8).astype(self.dtype)

    def dequantize(self, stored: np.ndarray) -> np.ndarray:
        """The inverse, up to rounding; float32 where the tensor is quantised."""
        if not self.scale:
            return stored
        return (stored.astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)


class _Lite:
    """A signature of an interpreter, called by one thread at a time.

    Args:
      start: makes an interpreter, for when one is in ruins.
      interpreter: the first.
      signature: None for the model itself.
      keeps_state: whether tensors outlive a call, as those of recurrent layers do.
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
            # It resizes and allocates at each call, which does nothing for the size at hand.
            self._run = self._interpreter.get_signature_runner(self._signature)
        takes, gives = self._run.get_input_details(), self._run.get_output_details()
        self._takes = {name: _stored(name, details) for name, details in takes.items()}
        self._gives = {name: _stored(name, details) for name, details in gives.items()}

    @property
    def takes(self) -> list[tensors.Tensor]:
        """The inputs."""
        return [one.tensor for one in self._takes.values()]

    @property
    def gives(self) -> list[tensors.Tensor]:
        """The outputs."""
        return [one.tensor for one in self._gives.values()]

    def __call__(self, arrays: function.Arrays, names: Collection[str]) -> function.Arrays:
        """The outputs of these names, for any number of rows."""
        return self._in_pieces(arrays, names, self._rows)

    def find_rows(self, names: Collection[str]) -> None:
        """Finds whether the model takes any number of rows, or only its own.

        Many a model is exported with one row, yet takes more; others fail then, or mix the rows
        with each other, which only shows in what they give. So those are tried with more rows than
        their own, and believed if each row's outputs are what they are in pieces of its own size.

        Raises:
          RuntimeError: the model cannot be run with any number of rows.
        """
        # Those that are open have one row at first.
        own = max(one.shape[0] for one in self._takes.values())
        declared_open = all(one.open[0] for one in self._takes.values())
        rng = np.random.default_rng(0)
        probe = {name: one.probe(own + 1, rng) for name, one in self._takes.items()}
        try:
            alone = self._in_pieces(probe, names, own)
        except RuntimeError as error:
            # Where sizes beside the rows are open, or the values matter, the data may fit.
            sized = not any(any(one.open[1:]) for one in self._takes.values())
            if sized and _UNPREPARED in str(error):
                raise
            self._rows = None if declared_open else own
            self._use(self._start())
            return
        except errors.JobError:  # It does not give a prediction for each row, however it is run.
            return
        try:
            together = self._in_pieces(probe, names, None)
        except RuntimeError:
            self._rows = own
            self._use(self._start())  # The size that failed has left the interpreter in ruins.
            return
        if not declared_open and not all(self._agree(name, together, alone) for name in names):
            self._rows = own

    def _in_pieces(
        self, arrays: function.Arrays, names: Collection[str], rows: int | None
    ) -> function.Arrays:
        stored = {name: self._takes[name].quantize(array) for name, array in arrays.items()}

        def call(piece: function.Arrays) -> function.Arrays:
            results = self._run(**piece)
            if self._keeps_state:
                self._interpreter.reset_all_variables()
            return {name: self._gives[name].dequantize(results[name]) for name in names}

        with self._lock:
            return function.in_pieces(call, stored, rows)

    def _agree(self, name: str, together: function.Arrays, alone: function.Arrays) -> bool:
        one, other = together[name], alone[name]
        return one.size == other.size and np.allclose(
            one.reshape(other.shape),
            other,
            rtol=_PROBE_TOLERANCE,
            # Sums in another order may round to the step beside.
            atol=self._gives[name].scale or 1e-6,
            equal_nan=True,
        )


class _Unsigned:
    """What an interpreter's signature runner is, for a model that has no signature."""

    def __init__(self, interpreter: Any) -> None:
        self._interpreter = interpreter
        self._takes = _readable(interpreter.get_input_details())
        self._gives = _readable(interpreter.get_output_details())

    def get_input_details(self) -> dict[str, Mapping[str, Any]]:
        """By name, as LiteRT has them."""
        return self._takes

    def get_output_details(self) -> dict[str, Mapping[str, Any]]:
        """By name, as LiteRT has them."""
        return self._gives

    def __call__(self, **arrays: np.ndarray) -> function.Arrays:
        """All outputs."""
        for name, array in arrays.items():
            self._interpreter.resize_tensor_input(self._takes[name]["index"], array.shape)
        self._interpreter.allocate_tensors()
        for name, array in arrays.items():
            self._interpreter.set_tensor(self._takes[name]["index"], array)
        self._interpreter.invoke()
        return {
            name: self._interpreter.get_tensor(details["index"])
            for name, details in self._gives.items()
        }


def _readable(listed: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Tensors by their names, without what converters put around them where that is no loss."""
    by_name = {details["name"]: details for details in listed}
    short = [name.removeprefix("serving_default_").removesuffix(":0") for name in by_name]
    names = short if len(set(short)) == len(short) else by_name
    return dict(zip(names, by_name.values(), strict=True))


def _stored(name: str, details: Mapping[str, Any]) -> _Stored:
    dtype = np.dtype(object if details["dtype"] is np.bytes_ else details["dtype"])
    # LiteRT leaves this empty where all sizes are fixed in a file of an old converter.
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


def _signature(spec: models.ModelSpec, interpreter: Any) -> str | None:
    known = list(interpreter.get_signature_list())
    if spec.signature in known:
        return spec.signature
    unsaid = spec.signature == models.ModelSpec.signature
    if unsaid and len(known) <= 1:
        return known[0] if known else None
    has = errors.listed(known) or "none at all: leave `signature` out"
    raise errors.ConfigError(
        f"it has several signatures, {has}: name one with `signature: {known[0]}`"
        if unsaid
        else f"unknown signature {spec.signature!r}; it has {has}"
    )


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
            "does not have. Convert it with TFLITE_BUILTINS alone, or evaluate the model that it "
            "was converted from"
        )


def _keeps_state(graph: Any) -> bool:
    return any(tensor.IsVariable() for tensor in _tensors(graph))


def _parameters(graph: Any) -> int:
    """The numbers in the constants that are floats or quantised; the others are shapes and axes.

    The converter has folded batch normalisation into its neighbours, so it may be fewer than were
    trained.
    """
    sizes = {}
    for tensor in _tensors(graph):
        buffer, quantization = graph.Buffers(tensor.Buffer()), tensor.Quantization()
        # Beyond 2 GB the data are behind the flatbuffer, at an offset.
        constant = buffer.DataLength() or buffer.Offset() > 1
        quantized = quantization is not None and quantization.ScaleLength()
        if constant and (tensor.Type() in _FLOATS or quantized):
            shape = (tensor.Shape(axis) for axis in range(tensor.ShapeLength()))
            sizes[tensor.Buffer()] = math.prod(shape)
    return sum(sizes.values())


def _tensors(graph: Any) -> Iterator[Any]:
    for index in range(graph.SubgraphsLength()):
        subgraph = graph.Subgraphs(index)
        yield from (subgraph.Tensors(one) for one in range(subgraph.TensorsLength()))


def _told(error: Exception) -> str:
    """LiteRT's messages, which it puts together without a space, on one line."""
    return " ".join(str(error).replace("Node number", ". Node number").split()).rstrip(".")
