"""Checks a config, and makes a job of it, as far as possible before reading the data."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from evalbeam.beam_jobs import config
from evalbeam.beam_jobs.check import (
    consistency,
    first_examples,
    heads,
    predictions,
    preprocessing,
)
from evalbeam.beam_jobs.check import versions as loading
from evalbeam.beam_jobs.check.versions import Versions
from evalbeam.beam_jobs.config.resolve import Request, resolve
from evalbeam.beam_jobs.job import Job
from evalbeam.transforms import batch, errors, formats, metrics, models
from evalbeam.transforms.examples import labels, slices
from evalbeam.transforms.formats import shards as file_shards
from evalbeam.transforms.metrics import glossary
from evalbeam.transforms.metrics.evaluation import Engine, Evaluation, MetricSpec, Pair
from evalbeam.transforms.metrics.plan import is_by_class, plan
from evalbeam.transforms.tfma import eval_config, metric_classes


def check(settings: config.Config, engine: Engine = "columnar") -> Job:
    """Lists the data, loads the models, scores first examples, and plans the metrics.

    Raises:
      ConfigError: the config does not fit the data or the models.
      JobError: first examples cannot be evaluated.
    """
    request = resolve(settings, engine)
    data = request.settings.data
    # Cheap checks first: models take seconds to load.
    specs = loading.describe(request.settings)
    shards, listing_notes = _list_shards(data)
    if not request.preprocessing:  # whose columns are not in the data
        consistency.check_columns(shards, request.settings, request.slices, specs)
    for i, spec in enumerate(request.metrics or ()):
        with _located("metrics", i):
            for meant in glossary.list_meant(spec):
                metric_classes.check_metric(meant)
    versions = loading.load(specs)
    transforms = preprocessing.load(request, specs)
    label_columns = _map_labels(request.settings, versions.outputs())
    consistency.check_outputs(request.settings, label_columns)
    projection = _project(request, label_columns.values(), versions, transforms)
    first = _read_first(shards, projection, versions, label_columns, data.weight, transforms)
    outputs = heads.infer(request.settings, versions, first, label_columns)
    stored_notes = predictions.check_stored(versions, first, outputs)
    scored = heads.score(request.settings, versions, first, outputs)
    consistency.check_slices(first.examples, request.slices)
    found = tuple(each.head for each in outputs)
    with _located("metrics"):
        evaluation, spelling_notes = _make_evaluation(request, engine, versions, found)
        consistency.check_metrics(evaluation.metrics, versions.specs, found)
        consistency.check_for_tfma(evaluation)
    evaluation, decision_notes = heads.fit_decisions(
        evaluation, scored, are_defaults=request.metrics is None
    )
    with _located("metrics"):
        consistency.check_thresholds(evaluation, scored)
    heads.check_scores(evaluation, versions, scored)
    predictions.check_lists(evaluation, versions, first)
    predictions.check_ordered(evaluation, outputs)
    open_classes = heads.list_open(versions, first, outputs)
    preprocessing.check_ahead(transforms, evaluation, open_classes)
    return Job(
        name=settings.name,
        shards=shards,
        projection=projection,
        batch_size=data.batch_size or first_examples.batch_size(first, found),
        models=versions.specs,
        evaluation=evaluation,
        max_dead_letters=data.max_dead_letters,
        identity=_describe_identity(data.id, projection),
        digests=versions.digests,
        first=scored.batch,
        preprocessing=transforms.specs,
        open_classes=open_classes,
        notes=(
            *listing_notes,
            *_note_shadowed(shards[0], projection),
            *heads.note(outputs),
            *stored_notes,
            *decision_notes,
            *predictions.note_crowded(evaluation, scored),
            *spelling_notes,
            *request.notes,
            *transforms.notes,
            *_note_images(data, versions),
            *_note_baseline(request.settings, evaluation),
            *_note_tfma(evaluation),
        ),
    )


@contextlib.contextmanager
def _located(*keys: str | int) -> Iterator[None]:
    """Gives errors that do not say where in the config they are these keys."""
    try:
        yield
    except errors.ConfigError as error:
        raise errors.ConfigError(str(error), error.keys or keys) from error


def _list_shards(data: config.Data) -> tuple[tuple[batch.Shard, ...], list[str]]:
    """The shards of all splits, the main split first, and notes on their files."""
    splits = {batch.MAIN_SPLIT: data.files, **data.splits}
    listings = [
        file_shards.list_shards(patterns, data.format, split, data.csv.dialect())
        for split, patterns in splits.items()
    ]
    shards = tuple(shard for listing in listings for shard in listing.shards)
    notes = [note for listing in listings for note in listing.notes]
    return shards, [*notes, *file_shards.note_shared(shards)]


def _read_first(
    shards: Sequence[batch.Shard],
    projection: batch.Projection,
    versions: Versions,
    label_columns: Mapping[str, str],
    weight: str | None,
    transforms: preprocessing.Preprocessing,
) -> first_examples.FirstExamples:
    """Reads first examples, and checks that they fit the labels and the models' inputs."""
    first = first_examples.read(shards, projection, versions.models.values())
    first = preprocessing.apply(transforms, first, projection.columns)
    consistency.check_types(first)
    for spec in versions.specs:
        models.check_inputs(spec, versions.models[spec.name], first.tried, first.columns)
    consistency.check_present(first, label_columns.values(), weight)
    return first


def _make_evaluation(
    request: Request, engine: Engine, versions: Versions, found: tuple[labels.Head, ...]
) -> tuple[Evaluation, list[str]]:
    """The evaluation that the config requests, for these versions and outputs, and notes on it."""
    settings = request.settings
    baseline = settings.baseline
    if baseline is None and len(versions.names) > 1:
        baseline = versions.names[0]
    specs, notes = list_metrics(request.metrics, found)
    evaluation = Evaluation(
        models=versions.names,
        heads=found,
        metrics=specs,
        thresholds=tuple(settings.thresholds),
        decision_threshold=choose_decision_threshold(settings.thresholds),
        baseline=baseline,
        pairs=_pair_versions(settings, baseline),
        slices=request.slices,
        weight=settings.data.weight,
        id=settings.data.id,
        units=max(1, settings.confidence.units),  # one is the same as none
        min_slice_size=request.min_slice_size,
        engine=engine,
        eval_config=request.eval_config,
        tfma_metrics=request.tfma_metrics,
        slice_comparisons=request.slice_comparisons,
    )
    return evaluation, notes


def _pair_versions(settings: config.Config, baseline: str | None) -> tuple[Pair, ...]:
    """The baseline paired with each other version, and originals with conversions, each once."""
    bounds = settings.conversion.bounds()
    compared = []
    for model in settings.models:
        if model.conversion_of is not None:
            compared.append(Pair(model.conversion_of, model.name, bounds))
        if baseline not in (None, model.name, model.conversion_of):
            compared.append(Pair(str(baseline), model.name))
    return tuple(compared)


def _note_shadowed(shard: batch.Shard, projection: batch.Projection) -> Iterator[str]:
    for column in sorted(formats.shadowed_columns(shard).intersection(projection.columns)):
        yield f"column {column!r} of the files is used, not that of their folders ({shard.path})"


def _note_images(data: config.Data, versions: Versions) -> Iterator[str]:
    inputs = [declared for model in versions.models.values() for declared in model.inputs]
    used = {declared.image.name for declared in inputs if declared.image}
    if unused := [name for name in data.images if name not in used]:
        yield f"data.images that no model takes: {', '.join(unused)}"


def _note_baseline(settings: config.Config, evaluation: Evaluation) -> Iterator[str]:
    if evaluation.baseline is not None and settings.baseline is None:
        yield (
            f"using {evaluation.baseline!r} (the first) as the baseline: no model is marked "
            "`baseline: true`"
        )


def _note_tfma(evaluation: Evaluation) -> Iterator[str]:
    """Notes which metrics TFMA computes, and why; if all, which of them it decides otherwise."""
    if evaluation.engine == "tfma":
        names = [
            spec.class_name
            for spec in evaluation.metrics
            if any(is_by_class(spec, head) for head in evaluation.heads if spec.is_for(head.output))
        ]
        if names:
            yield (
                "by the threshold 0.5, over all classes together, where evalbeam's own kernels "
                "decide by the largest score, class by class: "
                f"{', '.join(dict.fromkeys(names))}"
            )
        return
    reasons: dict[str, list[str]] = {}
    for metric in plan(evaluation).by_tfma:
        reasons.setdefault(metric.reason, []).append(metric.spec.class_name)
    for text in evaluation.tfma_metrics:
        names = [metric.class_name for metric in eval_config.parse_metrics_spec(text).metrics]
        reasons.setdefault("a query_key or output_weights", []).extend(names)
    for reason, names in reasons.items():
        yield f"computed by TFMA, which is slower: {', '.join(dict.fromkeys(names))} ({reason})"


def _describe_identity(id_column: str | None, projection: batch.Projection) -> str:
    """What identifies an example, as text."""
    if id_column is not None:
        return f"column {id_column}"
    if projection.serialized:
        return "the serialised example"
    return f"the columns {', '.join(projection.columns)}"


def _map_labels(settings: config.Config, outputs: Sequence[str]) -> dict[str, str]:
    """The label column of each output."""
    label = settings.data.label
    if isinstance(label, str) and len(outputs) == 1:
        return {outputs[0]: label}
    if isinstance(label, str):
        raise errors.ConfigError(
            f"the models have several outputs ({errors.listed(outputs)}), but data.label names a "
            "single column: write `label: {output: column, ...}`, or choose one output with "
            "`outputs:` of each model"
        )
    assert label is not None
    if set(label) != set(outputs):
        raise errors.ConfigError(
            f"data.label names the outputs {errors.listed(label)}, but the models have "
            f"{errors.listed(outputs)}: add a label column for each of these, or choose outputs "
            "with `outputs:` of each model"
        )
    return {output: label[output] for output in outputs}


def _project(
    request: Request,
    label_columns: Collection[str],
    versions: Versions,
    transforms: preprocessing.Preprocessing,
) -> batch.Projection:
    """The columns to decode."""
    data = request.settings.data
    columns = {*label_columns, *slices.columns(request.slices)}
    columns |= {column for column in (data.weight, data.id) if column is not None}
    projections = [model.projection for model in versions.models.values()]
    columns |= {column for projection in projections for column in projection.columns}
    # Features that TFMA's metrics read: query_key, and arguments such as gain_key.
    columns |= {eval_config.parse_metrics_spec(text).query_key for text in request.tfma_metrics}
    for name, value in _list_arguments(request):
        if name.endswith("_key") and isinstance(value, str):
            columns.add(value)
        if name.endswith("_key_path") and isinstance(value, list) and value:
            columns.add(str(value[-1]))  # as in [features, age]
    # Columns for slices, identity and inputs of strings only are read as text; labels and other
    # inputs need numbers.
    numeric = {*label_columns, data.weight}
    numeric |= {column for each in projections for column in {*each.columns} - {*each.texts}}
    numeric |= {t.column for spec in request.slices for t in spec if t.edges or t.quantiles}
    texts = {*slices.columns(request.slices), *([data.id] if data.id else [])}
    texts |= {column for each in projections for column in each.texts}
    texts -= numeric
    return batch.Projection(
        tuple(sorted(columns - {""})),
        bool(transforms.specs) or any(projection.serialized for projection in projections),
        tuple(sorted(texts)),
    )


def _list_arguments(request: Request) -> Iterator[tuple[str, Any]]:
    for spec in request.metrics or ():
        yield from spec.arguments.items()
    for text in request.tfma_metrics:
        for metric_config in eval_config.parse_metrics_spec(text).metrics:
            yield from json.loads(eval_config.normalize_config(metric_config)).items()


def choose_decision_threshold(thresholds: Sequence[float]) -> float:
    """The threshold of decisions: several are for metrics, but a version in use has one."""
    return 0.5 if 0.5 in thresholds else thresholds[0]


def list_metrics(
    requested: Sequence[MetricSpec] | None, heads: Sequence[labels.Head]
) -> tuple[tuple[MetricSpec, ...], list[str]]:
    """The metrics by their classes' names, and notes; None: the usual ones of each task."""
    if requested is not None:
        return glossary.spell(requested, heads)
    usual = tuple(
        MetricSpec(name, outputs=(head.output,), zero_division="skip", native=True)
        for head in heads
        for name in metrics.DEFAULTS[head.task]
    )
    return usual, []
