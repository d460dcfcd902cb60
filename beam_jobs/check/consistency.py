"""Whether what the config names fits data and models: columns, metrics, classes, tasks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import pyarrow as pa

from evalbeam.beam_jobs import config
from evalbeam.beam_jobs.check.first_examples import FirstExamples
from evalbeam.transforms import arrow, batch, errors, formats, metrics, models
from evalbeam.transforms.examples import labels, slices
from evalbeam.transforms.metrics import plan


def check_columns(
    shards: Sequence[batch.Shard], settings: config.Config, specs: Sequence[slices.Spec]
) -> None:
    """Columns that a format declares must be there; what a file does not declare may still come.

    Raises:
      ConfigError: of the first that is not.
    """
    label = settings.data.label
    label_columns = [label] if isinstance(label, str) else list((label or {}).values())
    uses = {column: f"slices column {column!r}" for column in slices.columns(specs)}
    uses |= {column: f"data.label {column!r}" for column in label_columns}
    if settings.data.weight:
        uses[settings.data.weight] = f"data.weight {settings.data.weight!r}"
    if settings.data.id:
        uses[settings.data.id] = f"data.id {settings.data.id!r}"
    formats_of = {shard.path: shard.format for shard in shards}
    for path, name in formats_of.items():
        declared = formats.get(name).columns(path)
        if not declared:  # an empty file has no header, and no rows either
            continue
        for column, use in uses.items():
            if column not in declared:
                raise errors.ConfigError(
                    f"{path}: {use} is not among its columns ({', '.join(declared)})."
                    f"{errors.did_you_mean(column, declared)}"
                )


def check_tasks(task: str | Mapping[str, str] | None, outputs: Collection[str]) -> None:
    """Tasks by output must be those of the models. Raises ConfigError where they are others."""
    if isinstance(task, Mapping) and set(task) != set(outputs):
        raise errors.ConfigError(
            f"task names the outputs {errors.listed(task)}, and the models have "
            f"{errors.listed(outputs)}"
        )


def check_labels(first: FirstExamples, label_columns: Collection[str]) -> None:
    """Some example must have each label. Raises ConfigError where none has."""
    for column in label_columns:
        if column not in first.examples.columns.schema.names:
            raise errors.ConfigError(
                f"{first.examples.shard}: data.label {column!r} is in none of the first "
                f"{len(first.examples)} examples (they have {', '.join(first.columns)})."
                f"{errors.did_you_mean(column, first.columns)}"
            )


def check_types(first: FirstExamples) -> None:
    """Columns must hold numbers, texts, bytes or lists of them. Raises ConfigError for others."""
    for name, column in zip(
        first.examples.columns.schema.names, first.examples.columns.columns, strict=True
    ):
        values, _ = arrow.flatten(column)
        if pa.types.is_nested(values.type):
            raise errors.ConfigError(
                f"{first.examples.shard}: column {name!r} holds values of type {column.type}; "
                "numbers, texts, bytes and lists of them are read"
            )


def check_numbers(examples: batch.Batch, specs: Sequence[slices.Spec]) -> None:
    """Columns that are cut must hold numbers. Raises ConfigError where one does not."""
    for term in (term for spec in specs for term in spec if term.edges or term.quantiles):
        try:
            slices.numbers(examples, term.column)
        except errors.JobError as e:
            raise errors.ConfigError(str(e)) from e


def check_metrics(
    specs: Sequence[plan.MetricSpec],
    versions: Sequence[models.ModelSpec],
    heads: Sequence[labels.Head],
) -> None:
    """Metrics must be of versions and outputs that exist, and of tasks that they are for.

    Raises:
      ConfigError: of the first that is not.
    """
    names = [version.name for version in versions]
    outputs = [head.output for head in heads]
    for spec in specs:
        for what, given, known in (
            ("model", spec.models, names),
            ("output", spec.outputs, outputs),
        ):
            for name in given:
                if name not in known:
                    raise errors.ConfigError(
                        f"metrics: {spec.class_name} is for {what} {name!r}, but the {what}s are "
                        f"{errors.listed(known)}.{errors.did_you_mean(name, known)}"
                    )
        _check_classes(spec, heads)
        for head in heads:
            if not spec.is_for(head.output):
                continue
            if head.task == "multiclass" and spec.class_name == "Accuracy":
                raise errors.ConfigError(
                    "metrics: Keras's Accuracy counts predictions that equal the label to the "
                    "digit; for classes it is CategoricalAccuracy"
                )
            if head.task == "regression" and metrics.needs_classes(spec.class_name):
                fits = [other.output for other in heads if other.task != "regression"]
                remedy = f"; name those it is for: `outputs: [{', '.join(fits)}]`" if fits else ""
                raise errors.ConfigError(
                    f"metrics: {spec.class_name} is for classification, and "
                    + (f"output {head.output!r}" if head.output else "the task")
                    + f" is regression{remedy}"
                )


def _check_classes(spec: plan.MetricSpec, heads: Sequence[labels.Head]) -> None:
    for head in heads if spec.class_ids else ():
        if not spec.is_for(head.output):
            continue
        wrong = [one for one in spec.class_ids if not 0 <= one < (head.classes or 0)]
        if wrong:
            known = f"0 to {head.classes - 1}" if head.classes else f"none: the task is {head.task}"
            raise errors.ConfigError(
                f"metrics: {spec.class_name} has the class id {wrong[0]}; known are {known}"
            )
