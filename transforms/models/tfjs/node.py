"""A Node.js process that runs one TensorFlow.js model: `server.mjs`, spoken to over pipes."""

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

# As in server.mjs, where the frames are described.
_DTYPES = tuple(map(np.dtype, (np.float32, np.int32, np.bool_)))
_OK = 0
_STATUS_BYTES = 4
# No answer is as large: WebAssembly has 4 GiB. Text in place of a length is larger.
_LARGEST_FRAME = 1 << 40
# Of stderr, what an error tells.
_STDERR_LINES = 20
_LINE_BYTES = 1000
# After it has closed its pipes.
_END_SECONDS = 5.0

Bytes = bytes | memoryview


@dataclass(frozen=True)
class Tensor:
    """An input or output, as TensorFlow.js describes it.

    Attributes:
      name: of the signature's argument, the layer or the node.
      dtype: the library's word: float32, int32, bool, string or complex64.
      shape: None for open sizes; the whole is None where it is not known.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None


class Process:
    """One model in a Node.js process of its own, which ends with this object or this process.

    It is never started again: a model that ends its process would do so again, and again take
    the time of a load.

    Args:
      folder: the local folder of a `model.json`.
      wanted: the outputs that `predict` returns, () for all of them.

    Attributes:
      inputs, outputs: what the model takes and gives; outputs have the shape that two examples
        had, or None where none could be made up.
      pid: the process.

    Raises:
      ConfigError: TensorFlow.js cannot load the model, or not run it.
    """

    def __init__(self, folder: str, wanted: Sequence[str] = ()) -> None:
        self._process = subprocess.Popen(
            ["node", str(install.FOLDER / "server.mjs"), folder, *wanted],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Unbuffered: tensors pass between their arrays and the pipes without a copy.
            bufsize=0,
            # Ctrl-C is for this side, with whose end its stdin ends.
            start_new_session=True,
        )
        self._finalizer = weakref.finalize(self, _end, self._process)
        self.pid = self._process.pid
        self._lock = threading.Lock()
        self._ended = ""
        # By a thread: a pipe that nobody reads would stop the process, a file would grow for ever.
        self._stderr: collections.deque[str] = collections.deque(maxlen=_STDERR_LINES)
        self._reader = threading.Thread(
            # Buffered: else reading a line is a call of the system for each byte.
            target=_collect,
            args=(io.BufferedReader(cast(io.FileIO, self._process.stderr)), self._stderr),
            daemon=True,
        )
        self._reader.start()
        try:
            described = json.loads(bytes(self._exchange(())))
        except (RuntimeError, errors.JobError) as error:
            raise errors.ConfigError(f"TensorFlow.js cannot run it: {error}") from error
        self.inputs = _described(described["inputs"])
        self.outputs = _described(described["outputs"])
        names = [output.name for output in self.outputs]
        self._sent = [name for name in names if name in wanted] if wanted else names

    def predict(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The wanted outputs for the inputs, by name; float32, int32 or bool.

        Raises:
          RuntimeError: what TensorFlow.js says of these inputs; others may be fine.
          JobError: the process has ended, now or before.
        """
        parts = [part for one in self.inputs for part in _encode(arrays[one.name])]
        length = struct.pack("=Q", sum(len(part) for part in parts))
        with self._lock:
            answer = self._exchange((length, *parts))
        return dict(zip(self._sent, _decode(answer), strict=True))

    def _exchange(self, parts: Iterable[Bytes]) -> np.ndarray:
        """Sends the parts of a frame; the bytes of the answer, uint8[n], without its status."""
        if self._ended:
            raise errors.JobError(self._ended)
        try:
            for part in parts:
                _write(cast(IO[bytes], self._process.stdin), part)
            (length,) = struct.unpack("=Q", self._read(8).data)
            answer = self._read(length)
        except (EOFError, BrokenPipeError) as error:
            self._ended = self._how_it_ended()
            raise errors.JobError(self._ended) from error
        except BaseException as error:
            # The pipes hold half a frame now, which a later call would take for its answer.
            _end(self._process)
            self._ended = f"its Node.js process was ended when a call was broken off by {error!r}"
            raise
        (status,) = answer[:_STATUS_BYTES].view(np.uint32)
        if status != _OK:
            raise RuntimeError(bytes(answer[_STATUS_BYTES:]).decode(errors="replace"))
        return answer[_STATUS_BYTES:]

    def _read(self, length: int) -> np.ndarray:
        if length > _LARGEST_FRAME:
            raise errors.JobError(
                f"its Node.js process {self.pid} does not answer as server.mjs does: something "
                "else writes to its stdout, such as a `node` that is a script, or NODE_OPTIONS"
            )
        buffer = np.empty(length, np.uint8)
        rest = buffer.data
        while rest:
            count = cast(io.FileIO, self._process.stdout).readinto(rest)
            if not count:
                raise EOFError
            rest = rest[count:]
        return buffer

    def _how_it_ended(self) -> str:
        try:
            code = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:  # Its pipes are closed, and it goes on.
            self._process.kill()
            code = self._process.wait()
        self._reader.join(timeout=1)
        how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        words = "\n".join(self._stderr).strip() or "(nothing)"
        return (
            f"its Node.js process {self.pid} ended {how}, and is not started again. If memory ran "
            "out, set a smaller `batch_size` in the config's `data`, or take larger workers. The "
            f"last lines of its stderr:\n{words}"
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the process at once: it holds nothing that anyone waits for."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        cast(IO[bytes], pipe).close()


def _collect(stream: IO[bytes], lines: collections.deque[str]) -> None:
    with stream:
        for line in iter(lambda: stream.readline(_LINE_BYTES), b""):
            lines.append(line.decode(errors="replace").rstrip())


def _described(tensors: Sequence[Mapping[str, Any]]) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(
            tensor["name"],
            tensor["dtype"],
            None if tensor["shape"] is None else tuple(tensor["shape"]),
        )
        for tensor in tensors
    )


def _write(stream: IO[bytes], part: Bytes) -> None:
    rest = memoryview(part)
    while rest:
        rest = rest[stream.write(rest) :]


def _encode(array: np.ndarray) -> tuple[Bytes, Bytes, Bytes]:
    """A tensor: its head, its values as they lie in memory, and what fills the last 4 bytes."""
    head = struct.pack(f"=II{array.ndim}I", _DTYPES.index(array.dtype), array.ndim, *array.shape)
    values = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    return head, values, bytes(-len(values) % 4)


def _decode(content: np.ndarray) -> list[np.ndarray]:
    """The tensors, as views of the bytes."""
    found, at = [], 0
    while at < len(content):
        dtype, rank = struct.unpack_from("=II", content.data, at)
        shape = struct.unpack_from(f"={rank}I", content.data, at + 8)
        at += 8 + 4 * rank
        end = at + math.prod(shape) * _DTYPES[dtype].itemsize
        found.append(content[at:end].view(_DTYPES[dtype]).reshape(shape))
        at = end + -end % 4
    return found
