"""Everything that can be known before the data is read: a config to a job that should succeed."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from evalbeam.beam_jobs import config
from evalbeam.beam_jobs.check import consistency, first_examples
from evalbeam.beam_jobs.config import resolve
from evalbeam.beam_jobs.job import Job
from evalbeam.transforms import batch, errors, models
from evalbeam.transforms.examples import labels, slices
from evalbeam.transforms.formats import shards as file_shards
from evalbeam.transforms.metrics import plan
from evalbeam.transforms.models import files, images
from evalbeam.transforms.results import compare, finish
from evalbeam.transforms.stages import predict
from evalbeam.transforms.tfma import eval_config, metric_classes, protos

# What is computed where the config names no metrics.
_DEFAULT_METRICS = {
    "binary": (
        "ExampleCount",
        "BinaryAccuracy",
        "Precision",
        "Recall",
        "F1Score",
        "AUC",
        "AUCPrecisionRecall",
        "BinaryCrossentropy",
        "Calibration",
    ),
    "multiclass": ("ExampleCount", "CategoricalAccuracy", "Precision", "Recall", "F1Score"),
    "multilabel": ("ExampleCount", "BinaryAccuracy", "Precision", "Recall", "F1Score"),
    "regression": (
        "ExampleCount",
        "MeanSquaredError",
        "MeanAbsoluteError",
        "MeanLabel",
        "MeanPrediction",
    ),
}


def check(settings: config.Config, engine: str = "columnar") -> Job:
    """Lists the data, loads the models, scores first examples, and plans the metrics.

    With the engine "tfma" all metrics are TFMA's to compute.

    Raises:
      ConfigError: whatever does not fit, with the value, what was allowed and what to do.
      JobError: first examples that cannot be evaluated.
    """
    asked = resolve.asked(settings, engine)
    settings = asked.settings
    data = settings.data
    declared = tuple((name, image.declared(name)) for name, image in data.images.items())
    versions = tuple(_version(model, declared) for model in settings.models)
    shards = _shards(data)
    # What costs nothing first: models take seconds to load.
    consistency.check_columns(shards, settings, asked.specs)
    for spec in asked.metrics or ():
        metric_classes.check_metric(spec)
    digests, loaded = _loaded(versions)
    label_columns = _label_columns(settings, _outputs(versions, loaded))
    consistency.check_tasks(settings.task, label_columns)
    projection = _projection(asked, label_columns.values(), loaded.values())
    first = first_examples.read(shards, projection, loaded.values())
    consistency.check_types(first)
    for version in versions:
        models.check_inputs(version, loaded[version.name], first.tried, first.columns)
    consistency.check_labels(first, label_columns.values())
    predicted = _predicted(versions[0].name, loaded, first.tried)
    heads, notes = first_examples.heads(first, settings.task, label_columns, predicted)
    notes += asked.notes
    taken = {one.image.name for model in loaded.values() for one in model.inputs if one.image}
    if idle := [name for name, _ in declared if name not in taken]:
        notes.append(f"data.images that no model takes: {', '.join(idle)}")
    baseline = next((model.name for model in settings.models if model.baseline), None)
    if baseline is None and len(versions) > 1:
        baseline = versions[0].name
        notes.append(f"no model is marked `baseline: true`: the first, {baseline!r}, is it")
    # What the job does with every batch, so that it fails now and not on a worker.
    scored, _ = predict.score(first.tried, loaded, heads, data.weight, data.id)
    consistency.check_numbers(first.examples, asked.specs)
    metric_specs = asked.metrics if asked.metrics is not None else _defaults(heads)
    consistency.check_metrics(metric_specs, versions, heads)
    names = tuple(version.name for version in versions)
    weighted, thresholds = data.weight is not None, tuple(settings.thresholds)
    pairs = _pairs(settings, baseline)
    planned = plan.plan(
        metric_specs,
        names,
        heads,
        baseline,
        weighted,
        thresholds,
        compare.conversions(pairs),
        columnar=engine == "columnar",
    )
    evaluation = finish.Evaluation(planned, names, heads, weighted, thresholds)
    whole, by_tfma = _eval_configs(asked, engine, metric_specs, evaluation, baseline)
    if by_tfma is not None and engine == "columnar":
        notes.append(f"by TFMA's own combiners, which are slower: {_metrics_of(by_tfma)}")
    return Job(
        name=settings.name,
        shards=shards,
        projection=projection,
        batch_size=data.batch_size or first_examples.batch_size(first, heads),
        models=versions,
        baseline=baseline,
        specs=asked.specs,
        weight=data.weight,
        id=data.id,
        units=max(1, settings.confidence.units),  # one is as good as none
        max_dead_letters=data.max_dead_letters,
        evaluation=evaluation,
        eval_config=whole.SerializeToString(deterministic=True),
        tfma_config=None if by_tfma is None else by_tfma.SerializeToString(deterministic=True),
        min_slice_size=asked.min_slice_size,
        engine=engine,
        identity=_identity(data.id, projection),
        digests=digests,
        pairs=pairs,
        first=None if scored is None else scored.batch,
        notes=tuple(notes),
    )


def _shards(data: config.Data) -> tuple[batch.Shard, ...]:
    """Of all splits, the main one first."""
    splits = {batch.MAIN_SPLIT: data.files, **data.splits}
    return tuple(
        shard
        for split, listed in splits.items()
        for shard in file_shards.list_shards(listed, data.format, split)
    )


def _loaded(
    versions: Sequence[models.ModelSpec],
) -> tuple[dict[str, str], dict[str, models.Model]]:
    """By version, the digest of its files before they are loaded, and the model.

    One that the config demands is compared while loading: the files are read for it once.
    """
    with_files = [version for version in versions if version.path]
    if count := len(with_files):
        print(f"loading {count} model{'s' if count > 1 else ''} ...", file=sys.stderr)
    digests = {one.name: one.sha256 or files.digest(one.path) for one in with_files}
    return digests, {version.name: models.load(version) for version in versions}


def _predicted(
    version: str, loaded: Mapping[str, models.Model], examples: batch.Batch
) -> Mapping[str, np.ndarray]:
    try:
        return predict.predictions(loaded[version], examples)
    except errors.JobError as e:
        raise errors.JobError(f"Version {version!r}: {e}") from e


def _eval_configs(
    asked: resolve.Asked,
    engine: str,
    metric_specs: tuple[plan.MetricSpec, ...],
    evaluation: finish.Evaluation,
    baseline: str | None,
) -> tuple[Any, Any]:
    """TFMA's EvalConfig of the whole run, and of what TFMA has to compute, None if nothing."""
    weight = asked.settings.data.weight
    described = (evaluation.models, evaluation.heads, asked.specs)
    if asked.given is None:
        whole = eval_config.eval_config(*described, metric_specs, baseline, weight)
    else:
        whole = eval_config.completed(asked.given, *described[:2], baseline, weight)
    if engine == "tfma":
        return whole, whole
    others = evaluation.plan.others
    if not others and not asked.tfma_metrics:
        return whole, None
    return whole, eval_config.eval_config(*described, others, baseline, weight, asked.tfma_metrics)


def _metrics_of(given: Any) -> str:
    """The classes of an EvalConfig's metrics."""
    names = dict.fromkeys(one.class_name for spec in given.metrics_specs for one in spec.metrics)
    return ", ".join(names)


def _pairs(settings: config.Config, baseline: str | None) -> tuple[compare.Pair, ...]:
    """The baseline with each other version, and originals with conversions; each pair once."""
    bounds = compare.Bounds(**settings.conversion.model_dump())
    pairs = []
    for model in settings.models:
        if model.conversion_of is not None:
            pairs.append(compare.Pair(model.conversion_of, model.name, bounds))
        if baseline not in (None, model.name, model.conversion_of):
            pairs.append(compare.Pair(str(baseline), model.name))
    return tuple(pairs)


def _identity(id_column: str | None, projection: batch.Projection) -> str:
    if id_column is not None:
        return f"column {id_column}"
    if projection.serialized:
        return "the serialised example"
    return f"the columns {', '.join(projection.columns)}"


def _version(
    model: config.Model, declared: tuple[tuple[str, images.Image], ...]
) -> models.ModelSpec:
    if model.predictions is not None:
        stored = model.predictions
        pairs = {"": stored} if isinstance(stored, str) else stored
        return models.ModelSpec(
            model.name,
            "stored",
            predictions=tuple(pairs.items()),
            outputs=tuple(model.outputs),
        )
    if model.callable is not None:
        return models.ModelSpec(
            model.name,
            "callable",
            inputs=tuple(model.inputs.items()),
            images=declared,
            function=model.callable,
            outputs=tuple(model.outputs),
        )
    assert model.path is not None
    try:
        kind = models.infer_kind(model.path)
    except errors.ConfigError as e:
        raise errors.ConfigError(f"Version {model.name!r}: {e}") from e
    for key, given, kinds in (
        ("signature", model.signature != models.ModelSpec.signature, ("saved_model", "tflite")),
        ("allow_unsafe", model.allow_unsafe, ("keras",)),
    ):
        if given and kind not in kinds:
            raise errors.ConfigError(
                f"Version {model.name!r}: `{key}` is for models of the kind {' or '.join(kinds)}, "
                f"and {model.path} is of the kind {kind}: drop it"
            )
    return models.ModelSpec(
        model.name,
        kind,
        model.path,
        model.signature,
        tuple(model.inputs.items()),
        declared,
        sha256=model.sha256 or "",
        allow_unsafe=model.allow_unsafe,
        outputs=tuple(model.outputs),
    )


def _outputs(
    versions: Sequence[models.ModelSpec], loaded: Mapping[str, models.Model]
) -> tuple[str, ...]:
    """The outputs that every version has, which must be the same for all."""
    original = versions[0]
    for version in versions[1:]:
        if set(loaded[version.name].outputs) != set(loaded[original.name].outputs):
            raise errors.ConfigError(
                f"Versions {original.name!r} and {version.name!r} have different outputs, "
                f"{errors.listed(loaded[original.name].outputs)} and "
                f"{errors.listed(loaded[version.name].outputs)}. Choose those to evaluate with "
                "`outputs:` of each model"
            )
    return loaded[original.name].outputs


def _label_columns(settings: config.Config, outputs: Sequence[str]) -> dict[str, str]:
    """The label's column for each output."""
    label = settings.data.label
    if isinstance(label, str) and len(outputs) == 1:
        return {outputs[0]: label}
    if isinstance(label, str):
        raise errors.ConfigError(
            f"the models have several outputs ({errors.listed(outputs)}), and data.label names "
            "one column for all: write `label: {output: column, ...}`, or choose one output "
            "with `outputs:` of each model"
        )
    assert label is not None
    if set(label) != set(outputs):
        raise errors.ConfigError(
            f"data.label names the outputs {errors.listed(label)}, and the models have "
            f"{errors.listed(outputs)}: give each of these its label's column, or choose outputs "
            "with `outputs:` of each model"
        )
    return {output: label[output] for output in outputs}


def _projection(
    asked: resolve.Asked, label_columns: Collection[str], loaded: Collection[models.Model]
) -> batch.Projection:
    data = asked.settings.data
    wanted = {*label_columns, *slices.columns(asked.specs)}
    wanted |= {column for column in (data.weight, data.id) if column is not None}
    serialized = False
    for model in loaded:
        wanted |= set(model.projection.columns)
        serialized = serialized or model.projection.serialized
    # Features that TFMA's own metrics read: query_key, and arguments such as gain_key.
    for raw in asked.tfma_metrics:
        wanted.add(protos.config_pb2.MetricsSpec.FromString(raw).query_key)
    for name, value in _arguments(asked):
        if name.endswith("_key") and isinstance(value, str):
            wanted.add(value)
    # What only slices and identity read is text there; models and labels need numbers.
    numeric = {*label_columns, data.weight, *(c for m in loaded for c in m.projection.columns)}
    numeric |= {t.column for spec in asked.specs for t in spec if t.edges or t.quantiles}
    texts = {*slices.columns(asked.specs), *([data.id] if data.id else [])} - numeric
    return batch.Projection(tuple(sorted(wanted - {""})), serialized, tuple(sorted(texts)))


def _arguments(asked: resolve.Asked) -> Iterator[tuple[str, Any]]:
    for spec in asked.metrics or ():
        yield from spec.arguments.items()
    for raw in asked.tfma_metrics:
        for given in protos.config_pb2.MetricsSpec.FromString(raw).metrics:
            yield from json.loads(eval_config.config_json(given)).items()


def _defaults(heads: Sequence[labels.Head]) -> tuple[plan.MetricSpec, ...]:
    return tuple(
        plan.MetricSpec(name, outputs=(head.output,), native=True)
        for head in heads
        for name in _DEFAULT_METRICS[head.task]
    )
