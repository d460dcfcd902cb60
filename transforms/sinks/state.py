"""Writes and reads a run's state: everything that its results are computed from.

evaluation.json    what was evaluated, and the version of the state's format
index.json         the list of the table and TFMA files, with their digests
table-*.parquet    the merged table of sums, a file for each partition of the slices: a row for
                   each sum; the file's metadata says what its numbers mean
tfma-*.tfrecord    what TFMA computed, in the same partitions
ledger.json        the rows read and scored, in total
run.json           the run: config, models, data, measured costs, runner
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import posixpath
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pydantic
from typing_extensions import TypedDict  # as pydantic needs it before Python 3.12

from evalbeam.transforms import errors
from evalbeam.transforms.examples import slices
from evalbeam.transforms.formats import files, tfrecord
from evalbeam.transforms.ledger import Ledger
from evalbeam.transforms.metrics.evaluation import Evaluation
from evalbeam.transforms.metrics.table import Layout, Sums, Table
from evalbeam.transforms.results.index import Index, Kind, Part

# The version of the state's format.
VERSION = 6

EVALUATION = "evaluation.json"
INDEX = "index.json"
LEDGER = "ledger.json"
RUN = "run.json"

_SCHEMA = pa.schema(
    [
        pa.field("statistic", pa.dictionary(pa.int32(), pa.string())),
        pa.field("slice", pa.int32()),
        pa.field("unit", pa.int32()),
        pa.field("cell", pa.int32()),
        pa.field("sum", pa.float64()),
        pa.field("rounding", pa.float64()),
    ]
)


class Component(TypedDict):
    """A run that was merged: its id and, by split, its scored examples and their fingerprint."""

    run_id: str
    scored: dict[str, int]
    fingerprints: dict[str, int]


class Data(TypedDict):
    """The data of a run: files by split, the format of the main split, what identifies examples."""

    files: dict[str, list[str]]
    format: str
    fingerprint_of: str


class Config(TypedDict):
    """The config of a run."""

    path: str
    text: str


class Run(TypedDict):
    """The content of run.json, what a manifest has besides the evaluation and the ledger."""

    run_id: Annotated[str, pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    name: str
    finished_at: str
    merged: list[Component]
    config: Config
    data: Data
    models: dict[str, dict[str, Any]]
    notes: list[str]
    runner: str
    job_id: str | None
    options: dict[str, Any]
    batch_size: int
    versions: dict[str, str]
    timings_s: dict[str, float]


_RUN = pydantic.TypeAdapter(Run)


@dataclass(frozen=True)
class State:
    """A run's state without its sums, which workers read.

    Attributes:
      folder: the local folder or URL.
      evaluation: the evaluation whose sums are kept.
      results: the evaluation of the run's results; differs if they were made with `--config`.
      index: the index of the parts.
      ledger: the rows read and scored, in total.
      run: the description of the run, for its manifest.
    """

    folder: str
    evaluation: Evaluation
    results: Evaluation
    index: Index
    ledger: Ledger
    run: Run


def load(run: str) -> State:
    """The state of a run folder, local or remote.

    Raises:
      ConfigError: it is not a run folder, or its state is missing, incomplete, damaged or in
        another version of the format.
    """
    folder = posixpath.join(run.rstrip("/"), "state")
    stored = _read_json(folder, EVALUATION)
    version = stored.get("version")
    if version != VERSION:
        raise errors.ConfigError(
            f"{folder}: written in version {version} of the state's format; this evalbeam reads "
            f"version {VERSION}. Use the evalbeam that wrote it (manifest.json names its version), "
            "or run the evaluation again"
        )
    try:
        evaluation, results = (
            Evaluation.from_json(json.dumps(stored[name])) for name in ("evaluation", "results")
        )
        index = Index.from_json(_read_text(folder, INDEX))
        ledger = Ledger.parse(_read_json(folder, LEDGER))
        _ = ledger.read, ledger.dead  # raises if their numbers are not numbers
        description = _RUN.validate_python(_read_json(folder, RUN))
    except pydantic.ValidationError as e:
        first = e.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise errors.ConfigError(f"{folder}: damaged: {where}: {first['msg']}") from e
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as e:
        raise errors.ConfigError(f"{folder}: damaged: {type(e).__name__}: {e}") from e
    names = [part.name for part in index.parts]
    if len(set(names)) < len(names) or set(description["models"]) != set(evaluation.models):
        raise errors.ConfigError(f"{folder}: damaged: its files contradict each other")
    sizes = {posixpath.basename(path): size for path, size in files.children(folder).items()}
    for part in index.parts:
        if sizes.get(part.name) != part.nbytes:
            status = "is missing" if part.name not in sizes else f"has {sizes[part.name]:,} bytes"
            raise errors.ConfigError(
                f"{folder}: incomplete: {part.name} {status}, but {INDEX} lists it with "
                f"{part.nbytes:,} bytes. Restore it from a backup, or run the evaluation again"
            )
    return State(folder, evaluation, results, index, ledger, description)


def dump_evaluation(kept: Evaluation, results: Evaluation) -> str:
    """The content of evaluation.json: the evaluation of the sums, and that of the results."""
    entries = {
        "version": VERSION,
        "evaluation": json.loads(kept.to_json()),
        "results": json.loads(results.to_json()),
    }
    return json.dumps(entries, indent=1) + "\n"


def write_table(table: Table, folder: str, partition: int, partitions: int) -> Part:
    """Writes a partition of the table, with sorted slices."""
    stream = pa.BufferOutputStream()
    _write_parquet(table, stream)
    cells = sum(len(sums.keys) for sums in table.sums.values())
    stem = f"table-{partition:05d}-of-{partitions:05d}"
    name, nbytes, digest = _write(folder, stem, "parquet", stream.getvalue())
    return Part(name, "table", partition, len(table.slices), cells, nbytes, digest)


def write_records(
    records: Iterable[bytes], kind: Kind, folder: str, partition: int, partitions: int
) -> Part:
    """Writes the serialized messages that TFMA computed for a partition's slices."""
    stream = io.BytesIO()
    tfrecord.write(stream, list(records))
    stem = f"tfma-{kind}-{partition:05d}-of-{partitions:05d}"
    name, nbytes, digest = _write(folder, stem, "tfrecord", stream.getvalue())
    return Part(name, kind, partition, 0, 0, nbytes, digest)


def _write(folder: str, stem: str, suffix: str, content: bytes | pa.Buffer) -> tuple[str, int, str]:
    """Writes a part's file under a name with its digest; returns name, size and digest.

    A retried task may merge in another order, and write other bytes for the same sums: these must
    not replace what the index has the digest of.
    """
    digest = hashlib.sha256(content).hexdigest()
    name = f"{stem}-{digest[:12]}.{suffix}"
    # Neither a task that dies nor two concurrent attempts leave a partial file.
    with files.writing(posixpath.join(folder, name)) as path, open(path, "wb") as file:
        file.write(content)
    return name, len(content), digest


def read_table(folder: str, part: Part) -> Table:
    """Reads a partition of a table.

    Raises:
      JobError: the file is damaged.
    """
    content = _read(folder, part)
    try:
        with pq.ParquetFile(pa.BufferReader(content)) as file:
            meta = json.loads(file.schema_arrow.metadata[b"evalbeam"])
            stored = file.read()
    except (OSError, pa.ArrowInvalid, KeyError, TypeError) as e:
        raise errors.JobError(f"{folder}/{part.name}: not a readable table of sums: {e}") from e
    layouts = {name: Layout(**shape) for name, shape in meta["statistics"].items()}
    keys = tuple(
        slices.SliceKey(split, tuple((column, value) for column, value in pairs))
        for split, *pairs in meta["slices"]
    )
    # The rows of a statistic are contiguous, in the order of the layouts.
    counts = stored["statistic"].value_counts()
    lengths = dict(zip(*(counts.field(i).to_pylist() for i in range(2)), strict=True))
    sums, start = {}, 0
    for name, layout in layouts.items():
        rows = stored.slice(start, lengths.get(name, 0))
        start += len(rows)
        owner, unit, cell = (
            rows[column].to_numpy().astype(np.int64) for column in ("slice", "unit", "cell")
        )
        low = rows["rounding"].to_numpy()
        sums[name] = Sums(
            (owner * layout.units + unit) * layout.cells + cell,
            rows["sum"].to_numpy(),
            low if low.any() else None,
        )
    return Table(keys, layouts, sums)


def read_records(folder: str, part: Part) -> list[bytes]:
    """Reads TFMA's serialized messages; raises JobError if the file is damaged."""
    content = _read(folder, part)
    messages: list[bytes] = []
    for run in tfrecord.records(iter([content])):
        if isinstance(run, files.Damage):
            raise errors.JobError(f"{folder}/{part.name}: {run.reason}")
        messages += run
    return messages


def _write_parquet(table: Table, stream: pa.NativeFile) -> None:
    meta = {
        "slices": [[key.split, *map(list, key.pairs)] for key in table.slices],
        "statistics": {
            name: {"units": layout.units, "cells": layout.cells}
            for name, layout in table.layouts.items()
        },
    }
    schema = _SCHEMA.with_metadata({"evalbeam": json.dumps(meta)})
    names = pa.array(list(table.layouts), pa.string())
    with pq.ParquetWriter(stream, schema, compression="zstd") as writer:
        for number, (name, layout) in enumerate(table.layouts.items()):
            stored = table.sums[name]
            owner, rest = np.divmod(stored.keys, layout.stride)
            unit, cell = np.divmod(rest, layout.cells)
            code = pa.array(np.full(len(owner), number, np.int32))
            columns = [
                pa.DictionaryArray.from_arrays(code, names),
                *(pa.array(part.astype(np.int32)) for part in (owner, unit, cell)),
                *map(pa.array, stored.normalize()),
            ]
            writer.write_table(pa.table(columns, schema=schema))


def _read(folder: str, part: Part) -> bytes:
    path = posixpath.join(folder, part.name)
    with files.open_raw(path) as file:
        content = file.read()
    if hashlib.sha256(content).hexdigest() != part.sha256:
        raise errors.JobError(
            f"{path}: damaged: its SHA-256 digest differs from the one in {INDEX}. Restore it from "
            "a backup, or run the evaluation again"
        )
    return content


def _read_text(folder: str, name: str) -> str:
    path = posixpath.join(folder, name)
    try:
        with files.open_raw(path) as file:
            return file.read().decode()
    except (OSError, errors.JobError, UnicodeDecodeError) as e:
        run = posixpath.dirname(folder)
        is_output = not files.is_remote(run) and os.path.lexists(f"{run}/latest")
        raise errors.ConfigError(
            f"{path} cannot be read ({getattr(e, 'strerror', None) or e}): {run} is not a run "
            "folder with a complete state" + (f"; did you mean {run}/latest?" if is_output else "")
        ) from e


def _read_json(folder: str, name: str) -> dict[str, Any]:
    text = _read_text(folder, name)
    try:
        entries = json.loads(text)
    except (RecursionError, ValueError) as e:
        raise errors.ConfigError(f"{folder}/{name}: damaged: {e}") from e
    if not isinstance(entries, dict):
        raise errors.ConfigError(f"{folder}/{name}: damaged: not a JSON object")
    return entries
