"""Writes the workers' results to where the run is staged; the driver publishes them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam import pvalue

from evalbeam.transforms.formats import files
from evalbeam.transforms.metrics.evaluation import Evaluation
from evalbeam.transforms.metrics.table import Table
from evalbeam.transforms.results import index
from evalbeam.transforms.results.index import Index, Number
from evalbeam.transforms.sinks import state
from evalbeam.transforms.stages import aggregate
from evalbeam.transforms.tfma import eval_config, result_files


@dataclass(eq=False)  # Not frozen: Beam sets a transform's label.
class WriteTables(beam.PTransform):
    """PCollection[(partition, Table)] -> PCollection[Index], and a file for each in `folder`."""

    evaluation: Evaluation
    partitions: int
    folder: str

    def expand(self, tables: pvalue.PCollection[tuple[int, Table]]) -> pvalue.PCollection:
        """One file for each partition that has slices."""
        return tables | "Write table" >> beam.Map(
            _write_table, self.folder, self.partitions, self.evaluation
        )


def _write_table(
    numbered: tuple[int, Table],
    folder: str,
    partitions: int,
    evaluation: Evaluation,
) -> Index:
    number, table = numbered
    table = table.sort()
    part = state.write_table(table, folder, number, partitions)
    return index.index_table(part, table, evaluation.named_values(), evaluation.slice_comparisons)


@dataclass(eq=False)  # Not frozen: Beam sets a transform's label.
class WriteMessages(beam.PTransform):
    """PCollection[Message], computed by TFMA -> PCollection[Index], and files in `folder`."""

    evaluation: Evaluation
    partitions: int
    folder: str

    def expand(self, messages: pvalue.PCollection[result_files.Message]) -> pvalue.PCollection:
        """Two files for each partition, to be read where its sums are finished."""
        return (
            messages
            | "By partition" >> beam.Map(_by_partition, self.partitions)
            | "Gather messages" >> beam.GroupByKey()
            | "Write messages"
            >> beam.Map(_write_messages, self.evaluation, self.folder, self.partitions)
        )


def _by_partition(
    message: result_files.Message, partitions: int
) -> tuple[int, result_files.Message]:
    key = message.key
    return 0 if key is None else aggregate.assign_partition(key, partitions), message


def _write_messages(
    numbered: tuple[int, Iterable[result_files.Message]],
    evaluation: Evaluation,
    folder: str,
    partitions: int,
) -> Index:
    number, messages = numbered[0], list(numbered[1])
    contents = {
        kind: sorted(message.content for message in messages if message.kind == kind)
        for kind in result_files.KINDS
    }
    parts = tuple(
        state.write_records(contents[kind], kind, folder, number, partitions)
        for kind in result_files.KINDS
    )
    values = result_files.read_numbers(
        result_files.Messages.parse(**contents),
        eval_config.build_for_tfma(evaluation),
        evaluation.models,
    )
    return Index(
        parts=parts,
        numbers=tuple(Number(key, numbers.thresholds) for key, numbers in values.items()),
    )


@dataclass(eq=False)  # Not frozen: Beam sets a transform's label.
class WriteTotal(beam.PTransform):
    """PCollection[Index] -> PCollection[Index] with the merged one, and its file `path`."""

    path: str

    def expand(self, indexes: pvalue.PCollection[Index]) -> pvalue.PCollection:
        """Indexes are small, so a single worker merges them."""
        return (
            indexes
            | "To one key" >> beam.Map(_with_one_key)
            | "Gather" >> beam.GroupByKey()
            | "Write index" >> beam.Map(_write_total, self.path)
        )


def _with_one_key(part: Index) -> tuple[None, Index]:
    return None, part


def _write_total(gathered: tuple[None, Iterable[Index]], path: str) -> Index:
    total = index.merge_all(gathered[1])
    with files.writing(path) as written, open(written, "w", encoding="utf-8") as file:
        file.write(total.to_json())
    return total


@dataclass(eq=False)  # Not frozen: Beam sets a transform's label.
class WriteJson(beam.PTransform):
    """PCollection of dataclasses -> JSON lines in the file `path`; no file if it is empty."""

    path: str

    def expand(self, items: pvalue.PCollection) -> pvalue.PCollection:
        """A single file: there are few elements, or the run fails."""
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
