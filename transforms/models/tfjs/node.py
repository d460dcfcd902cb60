"""A Node.js process that runs one TensorFlow.js model: `server.mjs`, called over pipes."""

from __future__ import annotations

import collections
import io
import json
import math
import signal
import struct
import subprocess
import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, cast

import numpy as np

from evalbeam.transforms import errors
from evalbeam.transforms.models.tfjs import install

# As in server.mjs, which describes the frames.
_DTYPES = tuple(map(np.dtype, (np.float32, np.int32, np.bool_)))
_OK = 0
_STATUS_BYTES = 4
# No answer is this large, as WebAssembly has 4 GiB; text that is read as a length is larger.
_LARGEST_FRAME = 1 << 40
# How much of stderr to include in an error.
_STDERR_LINES = 20
_LINE_BYTES = 1000
# How long to wait for the process to end after it has closed its pipes.
_END_SECONDS = 5.0

Bytes = bytes | memoryview


@dataclass(frozen=True)
class Tensor:
    """An input or output, as described by TensorFlow.js.

    Attributes:
      name: the name of the signature's argument, the layer or the node.
      dtype: float32, int32, bool, string or complex64.
      shape: the sizes, None for dynamic ones; None if the shape is unknown.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None


class Process:
    """One model in its own Node.js process, which ends with this object or this process.

    A process that has ended is not restarted: the model would crash it again, after loading again.

    Args:
      folder: the local folder of a `model.json`.
      wanted: the outputs that `predict` returns, () for all.

    Attributes:
      inputs, outputs: the model's inputs and outputs; outputs have the shape for two examples, or
        None if the process could not generate any.
      pid: the process ID.

    Raises:
      ConfigError: TensorFlow.js cannot load or run the model.
    """

    def __init__(self, folder: str, wanted: Sequence[str] = ()) -> None:
        self._process = subprocess.Popen(
            ["node", str(install.FOLDER / "server.mjs"), folder, *wanted],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Unbuffered: tensors are read and written without a copy.
            bufsize=0,
            # Ctrl-C must only reach this process, whose end closes the other's stdin.
            start_new_session=True,
        )
        self._finalizer = weakref.finalize(self, _end, self._process)
        self.pid = self._process.pid
        self._lock = threading.Lock()
        self._end_reason = ""
        # In a thread: an unread pipe would block the process, and a file would grow forever.
        self._stderr: collections.deque[str] = collections.deque(maxlen=_STDERR_LINES)
        self._reader = threading.Thread(
            # Buffered: otherwise reading a line takes a system call per byte.
            target=_collect_lines,
            args=(io.BufferedReader(cast(io.FileIO, self._process.stderr)), self._stderr),
            daemon=True,
        )
        self._reader.start()
        try:
            description = json.loads(bytes(self._exchange(())))
        except (RuntimeError, errors.JobError) as error:
            raise errors.ConfigError(f"TensorFlow.js cannot run it: {error}") from error
        self.inputs = _parse_tensors(description["inputs"])
        self.outputs = _parse_tensors(description["outputs"])
        names = [output.name for output in self.outputs]
        self._output_names = [name for name in names if name in wanted] if wanted else names

    def predict(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The wanted outputs for these inputs, by name; float32, int32 or bool.

        Raises:
          RuntimeError: TensorFlow.js fails on these inputs; others may work.
          JobError: the process has ended.
        """
        chunks = [chunk for tensor in self.inputs for chunk in _encode(arrays[tensor.name])]
        length = struct.pack("=Q", sum(len(chunk) for chunk in chunks))
        with self._lock:
            answer = self._exchange((length, *chunks))
        return dict(zip(self._output_names, _decode(answer), strict=True))

    def _exchange(self, chunks: Iterable[Bytes]) -> np.ndarray:
        """Sends the chunks of a frame; returns the answer without its status, uint8[n]."""
        if self._end_reason:
            raise errors.JobError(self._end_reason)
        try:
            for chunk in chunks:
                _write(cast(IO[bytes], self._process.stdin), chunk)
            (length,) = struct.unpack("=Q", self._read(8).data)
            answer = self._read(length)
        except (EOFError, BrokenPipeError) as error:
            self._end_reason = self._explain_end()
            raise errors.JobError(self._end_reason) from error
        except BaseException as error:
            # The pipes now hold half a frame, which a later call would read as its answer.
            _end(self._process)
            self._end_reason = (
                f"its Node.js process was stopped, as a call was interrupted by {error!r}"
            )
            raise
        (status,) = answer[:_STATUS_BYTES].view(np.uint32)
        if status != _OK:
            raise RuntimeError(bytes(answer[_STATUS_BYTES:]).decode(errors="replace"))
        return answer[_STATUS_BYTES:]

    def _read(self, length: int) -> np.ndarray:
        if length > _LARGEST_FRAME:
            raise errors.JobError(
                f"its Node.js process {self.pid} returned an invalid answer: something other than "
                "server.mjs writes to its stdout, such as a `node` that is a script, or code from "
                "NODE_OPTIONS"
            )
        buffer = np.empty(length, np.uint8)
        rest = buffer.data
        while rest:
            count = cast(io.FileIO, self._process.stdout).readinto(rest)
            if not count:
                raise EOFError
            rest = rest[count:]
        return buffer

    def _explain_end(self) -> str:
        try:
            code = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:  # Its pipes are closed, but it keeps running.
            self._process.kill()
            code = self._process.wait()
        self._reader.join(timeout=1)
        how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        output = "\n".join(self._stderr).strip() or "(nothing)"
        return (
            f"its Node.js process {self.pid} ended {how} and is not restarted. If memory ran out, "
            "set a smaller `batch_size` in the config's `data`, or use larger workers. The last "
            f"lines of its stderr:\n{output}"
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kills the process: it has no state to save."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        cast(IO[bytes], pipe).close()


def _collect_lines(stream: IO[bytes], lines: collections.deque[str]) -> None:
    with stream:
        for line in iter(lambda: stream.readline(_LINE_BYTES), b""):
            lines.append(line.decode(errors="replace").rstrip())


def _parse_tensors(tensors: Sequence[Mapping[str, Any]]) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(
            tensor["name"],
            tensor["dtype"],
            None if tensor["shape"] is None else tuple(tensor["shape"]),
        )
        for tensor in tensors
    )


def _write(stream: IO[bytes], chunk: Bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[stream.write(rest) :]


def _encode(array: np.ndarray) -> tuple[Bytes, Bytes, Bytes]:
    """A tensor: its header, its values as stored in memory, and padding to 4 bytes."""
    header = struct.pack(f"=II{array.ndim}I", _DTYPES.index(array.dtype), array.ndim, *array.shape)
    values = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    return header, values, bytes(-len(values) % 4)


def _decode(content: np.ndarray) -> list[np.ndarray]:
    """The tensors, as views of the bytes."""
    arrays, start = [], 0
    while start < len(content):
        dtype, rank = struct.unpack_from("=II", content.data, start)
        shape = struct.unpack_from(f"={rank}I", content.data, start + 8)
        start += 8 + 4 * rank
        end = start + math.prod(shape) * _DTYPES[dtype].itemsize
        arrays.append(content[start:end].view(_DTYPES[dtype]).reshape(shape))
        start = end + -end % 4
    return arrays
