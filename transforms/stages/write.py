"""Writes what the workers found to where the run is staged; publishing is the driver's."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam import pvalue

from evalbeam.transforms.formats import files
from evalbeam.transforms.metrics import table
from evalbeam.transforms.sinks import state


@dataclass(eq=False)  # Not frozen: Beam sets a transform's label.
class WriteState(beam.PTransform):
    """PCollection[(partition, Table)] -> `state/part-P-of-N.parquet` in `folder`."""

    folder: str
    partitions: int

    def expand(self, tables: pvalue.PCollection[tuple[int, table.Table]]) -> pvalue.PCollection:
        """One file for each partition that has slices."""
        return tables | "Write table" >> beam.Map(_write_state, self.folder, self.partitions)


def _write_state(numbered: tuple[int, table.Table], folder: str, partitions: int) -> str:
    number, sums = numbered
    name = f"part-{number:05d}-of-{partitions:05d}.parquet"
    path = f"{folder}/{name}"
    # A task that dies, or two attempts at once, leave no half file.
    with files.writing(path) as written:
        state.write(sums.ordered(), written)
    return path


@dataclass(eq=False)  # Not frozen: Beam sets a transform's label.
class WriteJson(beam.PTransform):
    """PCollection of dataclasses -> one JSON object a line, in the file `path`; none, no file."""

    path: str

    def expand(self, items: pvalue.PCollection) -> pvalue.PCollection:
        """All in one file: there are few of them, or the run fails."""
        return (
            items
            | "To JSON" >> beam.Map(_to_json)
            | "Gather" >> beam.GroupByKey()
            | "Write lines" >> beam.Map(_write_lines, self.path)
        )


def _to_json(item: Any) -> tuple[None, str]:
    return None, json.dumps(vars(item), default=vars)


def _write_lines(gathered: tuple[None, Iterable[str]], path: str) -> str:
    with files.writing(path) as written, open(written, "w") as file:
        file.writelines(f"{line}\n" for line in gathered[1])
    return path
