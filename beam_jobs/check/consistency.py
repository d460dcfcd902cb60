"""Checks the config against data and models: columns, metrics, classes, tasks."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from evalbeam.beam_jobs import config
from evalbeam.beam_jobs.check.first_examples import FirstExamples
from evalbeam.transforms import arrow, batch, errors, formats, metrics, models
from evalbeam.transforms.examples import labels, slices
from evalbeam.transforms.metrics import classes as class_metrics
from evalbeam.transforms.metrics import metric
from evalbeam.transforms.metrics.evaluation import Evaluation, MetricSpec
from evalbeam.transforms.metrics.plan import plan, report_hidden
from evalbeam.transforms.tfma import catalog, eval_config


def check_columns(
    shards: Sequence[batch.Shard],
    settings: config.Config,
    specs: Sequence[slices.Spec],
    versions: Sequence[models.ModelSpec],
) -> None:
    """Columns must be declared by each file; formats that declare none are not checked.

    Raises:
      ConfigError: names the first missing column.
    """
    uses: dict[str, tuple[str | int, ...]] = dict.fromkeys(slices.columns(specs), ("slices",))
    uses |= dict.fromkeys(settings.data.label_columns(), ("data", "label"))
    for key in ("weight", "id"):
        if column := getattr(settings.data, key):
            uses[column] = ("data", key)
    for i, version in enumerate(versions):
        for _, stored in version.predictions:
            uses |= dict.fromkeys(stored, ("models", i, "predictions"))
    declared = {shard.path: formats.columns(shard) for shard in shards}
    # An empty file has neither header nor rows.
    by_path = {path: columns for path, columns in declared.items() if columns}
    for column, keys in uses.items():
        without = [path for path, columns in by_path.items() if column not in columns]
        if not without:
            continue
        path, columns = without[0], by_path[without[0]]
        having = next((path for path, columns in by_path.items() if column in columns), None)
        if having is not None:
            raise errors.ConfigError(
                f"{path} has no column {column!r}, which {having} has. Its columns: "
                f"{errors.nearest(column, columns)}. All files need the columns of the config: add "
                "it, or remove the file from `data`"
            )
        raise errors.ConfigError(
            f"{'.'.join(map(str, keys))}: {path} has no column {column!r}."
            f"{errors.did_you_mean(column, columns)} Its columns: "
            f"{errors.nearest(column, columns)}",
            keys,
        )


def check_outputs(settings: config.Config, outputs: Collection[str]) -> None:
    """What is given by output must be for the models' outputs.

    Raises:
      ConfigError: it is for another one, or several outputs have one list of classes.
    """
    data = settings.data
    if isinstance(settings.task, Mapping) and set(settings.task) != set(outputs):
        raise errors.ConfigError(
            f"task names the outputs {errors.listed(settings.task)}, but the models have "
            f"{errors.listed(outputs)}",
            ("task",),
        )
    for key, given in (("classes", data.classes), ("positive", data.positive)):
        for output in given if isinstance(given, Mapping) else ():
            if output not in outputs:
                there = errors.listed(outputs) if set(outputs) != {""} else "a single one, no name"
                raise errors.ConfigError(
                    f"data.{key} is for the output {output!r}, but the models have {there}."
                    f"{errors.did_you_mean(output, outputs)}",
                    ("data", key),
                )


def check_present(first: FirstExamples, label_columns: Collection[str], weight: str | None) -> None:
    """At least one example must have each label and a weight; raises ConfigError otherwise."""
    used = [(column, "label") for column in label_columns]
    used += [(weight, "weight")] if weight is not None else []
    for column, key in used:
        if column not in first.examples.columns.schema.names:
            raise errors.ConfigError(
                f"data.{key}: column {column!r} is in none of the first {len(first.examples)} "
                f"examples of {first.examples.shard}.{errors.did_you_mean(column, first.columns)} "
                f"They have {errors.nearest(column, first.columns)}",
                ("data", key),
            )


def check_types(first: FirstExamples) -> None:
    """Columns must hold numbers, text, bytes or lists of these; raises ConfigError otherwise."""
    for name, column in zip(
        first.examples.columns.schema.names, first.examples.columns.columns, strict=True
    ):
        values, _ = arrow.flatten(column)
        if pa.types.is_nested(values.type):
            raise errors.ConfigError(
                f"{first.examples.shard}: column {name!r} holds values of type {column.type}; "
                "supported are numbers, text, bytes and lists of these"
            )


def check_slices(examples: batch.Batch, specs: Sequence[slices.Spec]) -> None:
    """Columns with edges or quantiles must hold numbers, those by day or month dates.

    Raises:
      ConfigError: one does not.
    """
    for term in (term for spec in specs for term in spec):
        try:
            if term.edges or term.quantiles:
                slices.numbers(examples, term.column)
            elif term.by:
                slices.check_dates(examples, term.column, term.by)
        except errors.JobError as e:
            raise errors.ConfigError(str(e)) from e


def check_metrics(
    specs: Sequence[MetricSpec],
    versions: Sequence[models.ModelSpec],
    heads: Sequence[labels.Head],
) -> None:
    """Metrics must name existing versions and outputs, and be valid for their tasks.

    Raises:
      ConfigError: names the first that is not.
    """
    names = [version.name for version in versions]
    outputs = [head.output for head in heads]
    for spec in specs:
        for what, requested, existing in (
            ("model", spec.models, names),
            ("output", spec.outputs, outputs),
        ):
            for name in requested:
                if name not in existing:
                    raise errors.ConfigError(
                        f"metrics: {spec.class_name} is for {what} {name!r}, but the {what}s are "
                        f"{errors.listed(existing)}.{errors.did_you_mean(name, existing)}"
                    )
        _check_classes(spec, heads)
        for head in heads:
            if not spec.is_for(head.output):
                continue
            _check_task(spec, head, heads)
            _check_average(spec, head)
            _check_top(spec, head)


def check_thresholds(evaluation: Evaluation, scored: batch.Scored) -> None:
    """Thresholds must be in [0, 1] if the first examples' scores are.

    Where scores are taken as they are, which is the default with an EvalConfig, they may be any
    numbers, and so may thresholds. Infinite ones are meant to decide all alike.

    Raises:
      ConfigError: one is outside, where it would decide all alike.
    """
    _check_between(evaluation.thresholds, scored.seen.values(), "thresholds has", ("thresholds",))
    for spec in evaluation.metrics:
        arguments = {} if spec.module else spec.arguments
        given = arguments.get("thresholds", arguments.get("threshold"))
        for head in evaluation.heads:
            seen = [
                scored.seen[version, head.output]
                for version in spec.models or evaluation.models
                if spec.is_for(head.output) and (version, head.output) in scored.seen
            ]
            of_metric = f"metrics: {spec.class_name} has the threshold"
            _check_between(given if isinstance(given, list) else [given], seen, of_metric)


def _check_between(
    thresholds: Iterable[Any], seen: Collection[batch.Seen], owner: str, keys: tuple[str, ...] = ()
) -> None:
    if not seen or any(each.outside for each in seen):
        return
    for value in thresholds:
        number = isinstance(value, int | float) and math.isfinite(value)
        if number and not -_BEYOND <= value <= 1 + _BEYOND:
            raise errors.ConfigError(
                f"{owner} {value:g}, but all scores of the first examples are in [0, 1], so that "
                "it decides all alike: thresholds must be in [0, 1]",
                keys,
            )


# TFMA's and Keras's own outermost thresholds are 1e-7 beyond [0, 1].
_BEYOND = 1e-6


def check_for_tfma(evaluation: Evaluation) -> None:
    """Raises ConfigError for metrics that TFMA cannot compute, or not in the same run."""
    for spec in evaluation.metrics if evaluation.engine == "tfma" else ():
        thresholds = spec.arguments.get("thresholds")
        if spec.aggregate.endswith("macro") and isinstance(thresholds, list) and thresholds[1:]:
            raise errors.ConfigError(
                f"metrics: TFMA averages {spec.class_name} over classes at one threshold only, not "
                f"at {len(thresholds)}: give one, or leave out `--engine tfma`"
            )
        if spec.class_name in catalog.ONLY_OURS and not spec.module:
            raise errors.ConfigError(
                f"metrics: TFMA cannot compute {spec.class_name}, evalbeam's own kernel can: leave "
                "out `--engine tfma`, or the metric"
            )
    for planned in plan(evaluation).by_tfma if evaluation.engine == "columnar" else ():
        if planned.spec.class_name in catalog.ONLY_OURS and not planned.spec.module:
            raise errors.ConfigError(
                f"metrics: {planned.spec.class_name} cannot be computed: {planned.reason}, and "
                "TFMA cannot compute it at all"
            )
    _check_hidden(evaluation)
    if (built := eval_config.build_for_tfma(evaluation)) is not None:
        class_names = eval_config.list_classes(built)
        catalog.takes_one_hot(class_names)
        catalog.check_together(class_names)


def _check_hidden(evaluation: Evaluation) -> None:
    """Raises ConfigError for metrics by TFMA whose results have the name of another's.

    The plan compares what kernels compute; TFMA keeps one of two without a word.
    """
    by_tfma = [planned.spec for planned in plan(evaluation).by_tfma]
    if evaluation.engine == "tfma":
        by_tfma = list(evaluation.metrics)
    for spec in by_tfma:
        for other in evaluation.metrics:
            is_named_alike = other != spec and _name(other) == _name(spec)
            if is_named_alike and _overlap(spec, other, evaluation.weighted):
                raise report_hidden(spec, other, _name(spec))


def _name(spec: MetricSpec) -> str:
    kind = metrics.REGISTRY.get(spec.class_name)
    name = spec.arguments.get("name") or (kind and kind.name)
    # TFMA and Keras write CrossEntropy and Crossentropy.
    return str(name or metric.snake_case(spec.class_name)).replace("cross_entropy", "crossentropy")


def _overlap(one: MetricSpec, two: MetricSpec, weighted: bool) -> bool:
    """Whether two metrics have a result of the same version, output, class and weighting."""
    for names, others in ((one.models, two.models), (one.outputs, two.outputs)):
        if names and others and not set(names) & set(others):  # () is all
            return False
    for key in ("class_ids", "k_list", "top_k_list", "aggregate", "aggregate_top_k"):
        if getattr(one, key) != getattr(two, key):
            return False
    return not weighted or (one.weighted is False) == (two.weighted is False)


def _check_task(spec: MetricSpec, head: labels.Head, heads: Sequence[labels.Head]) -> None:
    """Raises ConfigError for a metric that makes no sense of an output's task."""
    tasks = metric.ALL_TASKS if spec.module else catalog.list_tasks(spec.class_name)
    if head.task in tasks or (spec.is_binarized and "binary" in tasks):
        return
    fits = [other.output for other in heads if other.task in tasks]
    remedy = f"; restrict it with `outputs: [{', '.join(fits)}]`" if fits else ""
    for_tasks = "classification" if tasks == metric.CLASSIFICATION else " and ".join(tasks)
    usual = ", ".join(metrics.DEFAULTS[head.task])
    raise errors.ConfigError(
        f"metrics: {spec.class_name} is for {for_tasks}, but "
        + (f"output {head.output!r}" if head.output else "the task")
        + f" is {head.task}{remedy}. Metrics of a {head.task} output are, among others, {usual}"
    )


def _check_average(spec: MetricSpec, head: labels.Head) -> None:
    if spec.aggregate.endswith("macro") and head.task not in metric.SEVERAL_CLASSES:
        of_output = f"output {head.output!r} is" if head.output else "the task is"
        raise errors.ConfigError(
            f"metrics: {spec.class_name}: a {spec.aggregate} average is over classes, but "
            f"{of_output} {head.task}, "
            + (
                "measured on its positive class. Remove the average, or set `task: multiclass` for "
                "an average over both classes"
                if head.task == "binary"
                else "which has none. Remove the average"
            )
        )


def _check_top(spec: MetricSpec, head: labels.Head) -> None:
    """Raises ConfigError for a share of labels among k largest scores that is 1 by default."""
    is_default = spec.class_name.endswith("TopKCategoricalAccuracy") and "k" not in spec.arguments
    if is_default and (head.classes or 0) <= class_metrics.TOP:
        raise errors.ConfigError(
            f"metrics: {spec.class_name} is 1 for k = {class_metrics.TOP}, its default, as there "
            f"are only {head.classes} classes: set a smaller one, `config: {{k: ...}}`"
        )


def _check_classes(spec: MetricSpec, heads: Sequence[labels.Head]) -> None:
    for head in heads if spec.class_ids or spec.class_weights else ():
        if not spec.is_for(head.output):
            continue
        try:
            spec.number_classes(head)
        except errors.ConfigError as error:
            raise errors.ConfigError(f"metrics: {spec.class_name} has {error}") from error
