"""Computes results where the sums are: reads parts of the state, writes their rows."""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import pydantic
from apache_beam import pvalue

from evalbeam.transforms.checks import conversion
from evalbeam.transforms.formats import files
from evalbeam.transforms.metrics import adding, metric
from evalbeam.transforms.metrics.evaluation import Evaluation
from evalbeam.transforms.metrics.plan import plan
from evalbeam.transforms.metrics.table import Table
from evalbeam.transforms.results import compare, finish, rebin
from evalbeam.transforms.results.index import Index, Part, Task
from evalbeam.transforms.sinks import state, tables
from evalbeam.transforms.stages import write
from evalbeam.transforms.tfma import eval_config, result_files


@dataclass(frozen=True)
class Finished:
    """What a finished task reports: the number of rows of each table, and the evidence."""

    rows: Mapping[str, int]
    evidence: conversion.Evidence


@dataclass(frozen=True)
class Places:
    """Where parts of results are written, in folders that all workers can reach.

    Attributes:
      tables: by table of `tables.SCHEMAS`, its folder.
      tfma: the folder of the TFMA result.
      finished: a file with a line for each task.
    """

    tables: Mapping[str, str]
    tfma: str
    finished: str


@dataclass(eq=False)  # Not frozen: Beam sets a transform's label.
class Finish(beam.PTransform):
    """PCollection[Index] with one index of all parts -> files of results in `places`.

    Attributes:
      kept: the evaluation that the state keeps.
      wanted: the evaluation to compute the results of; the state keeps its sums.
      state: the folder of the parts.
      places: where to write.
    """

    kept: Evaluation
    wanted: Evaluation
    state: str
    places: Places

    def expand(self, indexes: pvalue.PCollection[Index]) -> pvalue.PCollection:
        """Shuffles names of parts only; the worker that finishes a part reads it."""
        return (
            indexes
            | "List tasks" >> beam.FlatMap(Index.tasks)
            | "Spread tasks over workers" >> beam.Reshuffle()
            | "Finish" >> beam.Map(_finish, self.kept, self.wanted, self.state, self.places)
            | "Write finished" >> write.WriteJson(self.places.finished)
        )


def parse_finished(entry: Mapping[str, Any]) -> Finished:
    """What a task finished, from its JSON object."""
    return _FINISHED.validate_python(entry)


_FINISHED = pydantic.TypeAdapter(Finished)


def _finish(
    task: Task, kept: Evaluation, wanted: Evaluation, folder: str, places: Places
) -> Finished:
    table, messages, numbers = _read(task.parts, kept, wanted, folder)
    expected = () if eval_config.build_for_tfma(wanted) is None else task.numbers
    baselines = []
    if wanted.slice_comparisons and task.baselines:
        theirs, _, their_numbers = _read(task.baseline_parts, kept, wanted, folder)
        baselines = [
            result_files.join(block, their_numbers, expected)
            for row in map(theirs.slices.index, task.baselines)
            for block in finish.finish(theirs.block(row, row + 1), wanted, ())
        ]
    config = eval_config.describe_run(wanted)
    evidence = conversion.Evidence()
    with contextlib.ExitStack() as stack:
        file_name = tables.file_name(task.number, task.count)
        paths = {
            name: stack.enter_context(files.writing(posixpath.join(folder, file_name)))
            for name, folder in places.tables.items()
        }
        tfma_paths: dict[str, str] = {
            kind: stack.enter_context(
                files.writing(
                    posixpath.join(
                        places.tfma, result_files.file_name(kind, task.number, task.count)
                    )
                )
            )
            for kind in result_files.KINDS
            if kind not in config.options.disabled_outputs.values
        }
        with (
            tables.Writer(paths, wanted.heads) as writer,
            result_files.Writer(tfma_paths, config, messages) as tfma_writer,
        ):
            for block in finish.finish(table, wanted, task.plotted):
                # Before TFMA's numbers join the block: the TFMA result has its messages already.
                tfma_writer.add(block)
                block = result_files.join(block, numbers, expected)
                differences = list(compare.compare(block, plan(wanted), wanted.pairs))
                between = list(compare.compare_slices(block, baselines, wanted.slice_comparisons))
                if wanted.engine != "tfma":  # its messages have them
                    tfma_writer.add_slice_differences(block, between)
                writer.add(block, differences, between)
                evidence = evidence.merge(conversion.collect_evidence(block, differences, wanted))
    return Finished(writer.rows, evidence)


def _read(
    parts: Sequence[Part], kept: Evaluation, wanted: Evaluation, folder: str
) -> tuple[Table, result_files.Messages, Mapping[metric.Key, result_files.SliceValues]]:
    """The sums of some parts, and TFMA's messages and the numbers in them if they are wanted."""
    # TFMA's results of two slices may be all that a partition has.
    empty = Table.empty(adding.layouts(plan(kept).statistics, kept.units))
    tables_ = [state.read_table(folder, part) for part in parts if part.kind == "table"]
    table = rebin.rebin(Table.join([empty, *tables_]), plan(kept), plan(wanted))
    if eval_config.build_for_tfma(wanted) is None:
        return table, result_files.Messages(), {}
    messages = result_files.Messages.parse(
        *(
            [
                record
                for part in parts
                if part.kind == kind
                for record in state.read_records(folder, part)
            ]
            for kind in result_files.KINDS
        )
    )
    config = eval_config.build_for_tfma(kept)
    return table, messages, result_files.read_numbers(messages, config, wanted.models)
