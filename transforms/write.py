"""Writes what the workers found into the run's staging folder; publishing is the driver's."""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam import pvalue

from transforms.metrics import table
from transforms.sinks import state


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
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, name)
    # Under another name first: a task that dies, or two attempts at once, leave no half file.
    unfinished = f"{path}.{uuid.uuid4().hex}.unfinished"
    state.write(sums.ordered(), unfinished)
    os.replace(unfinished, path)
    return path


@dataclass(eq=False)  # Not frozen: Beam sets a transform's label.
class WriteJson(beam.PTransform):
    """PCollection of dataclasses -> one JSON object a line, in the file `path`."""

    path: str

    def expand(self, items: pvalue.PCollection) -> pvalue.PCollection:
        """All in one file: there are few of them, or the run fails."""
        return (
            items
            | "To JSON" >> beam.Map(_to_json)
            | "Write lines" >> beam.io.WriteToText(self.path, num_shards=1, shard_name_template="")
        )


def _to_json(item: Any) -> str:
    return json.dumps(vars(item))
