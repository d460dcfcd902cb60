"""Everything that can be known before the data is read: a config to a job that should succeed."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import json
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from beam_jobs import config, eval_config
from transforms import (
    batch,
    compare,
    errors,
    finish,
    formats,
    labels,
    metrics,
    models,
    predict,
    slices,
)
from transforms.formats import files
from transforms.formats import shards as file_shards
from transforms.metrics import plan, tfma
from transforms.models import arrow, columns, images

# So many examples show what the data's columns are and what task the labels and predictions are.
_FIRST_EXAMPLES = 256

# A batch has this many examples, of at most so many bytes and so many scores of a version.
_BATCH = 16_384
_BATCH_BYTES = 32 << 20
_BATCH_SCORES = 1 << 22

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


@dataclass(frozen=True)
class Job:
    """A run, checked and spelled out.

    Attributes:
      name: the config's.
      shards: of all splits.
      projection: the columns that the labels, slices and models read.
      batch_size: examples decoded and predicted at once.
      models: the versions.
      baseline: the version that the others are compared with, if any.
      specs: the slicing specs; those by quantiles have no edges yet.
      weight, id: columns.
      units: hash buckets of examples.
      max_dead_letters: the share of rows that may fail to be scored.
      evaluation: metrics, outputs and thresholds.
      eval_config: the serialised TFMA EvalConfig that describes the run.
      tfma_config: the serialised EvalConfig of what TFMA has to compute, if anything.
      min_slice_size: smaller slices have no results, except for a whole split.
      engine: "columnar" or "tfma".
      identity: what identifies an example.
      digests: by version, the SHA-256 of its files, before they were loaded.
      pairs: the versions to compare: the baseline with the others, originals with conversions.
      first: first examples, such as all versions can score; None if none of those looked at.
      notes: what was inferred or decided and the user should know.
    """

    name: str
    shards: tuple[batch.Shard, ...]
    projection: batch.Projection
    batch_size: int
    models: tuple[models.ModelSpec, ...]
    baseline: str | None
    specs: tuple[slices.Spec, ...]
    weight: str | None
    id: str | None
    units: int
    max_dead_letters: float
    evaluation: finish.Evaluation
    eval_config: bytes
    tfma_config: bytes | None
    min_slice_size: int
    engine: str
    identity: str
    digests: Mapping[str, str]
    pairs: tuple[compare.Pair, ...]
    first: batch.Batch | None
    notes: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The versions' names."""
        return tuple(model.name for model in self.models)

    @property
    def conversions(self) -> tuple[tuple[str, str], ...]:
        """Originals and what was converted from them."""
        return compare.conversions(self.pairs)


def check(settings: config.Config, engine: str = "columnar") -> Job:
    """Lists the data, loads the models, scores a first batch, and plans the metrics.

    With the engine "tfma" all metrics are TFMA's to compute.

    Raises:
      ConfigError: whatever does not fit, with the value, what was allowed and what to do.
      JobError: first examples that cannot be evaluated.
    """
    asked = eval_config.asked(settings, engine)
    settings = asked.settings
    declared = tuple((name, image.declared(name)) for name, image in settings.data.images.items())
    versions = tuple(_version(model, declared) for model in settings.models)
    shards = tuple(
        shard
        for split, listed in (
            (batch.MAIN_SPLIT, settings.data.files),
            *settings.data.splits.items(),
        )
        for shard in file_shards.list_shards(listed, settings.data.format, split)
    )
    # What costs nothing first: models take seconds to load.
    _check_declared(shards, settings, asked.specs)
    for spec in asked.metrics or ():
        tfma.check_metric(spec)
    if stored := [version for version in versions if version.path]:
        print(f"loading {len(stored)} model{'s' if len(stored) > 1 else ''} ...", file=sys.stderr)
    digests = {version.name: models.digest(version.path) for version in versions if version.path}
    loaded = {version.name: models.load(version) for version in versions}
    outputs = _outputs(versions, loaded)
    label_columns = _label_columns(settings, outputs)
    projection = _projection(asked, label_columns.values(), loaded.values())
    first = _first_batch(shards, projection)
    image_bytes = _image_bytes(first, loaded.values())
    # Models see fewer of large images: a network needs many times their memory.
    few = min(len(first), max(1, _BATCH_BYTES // max(1, image_bytes)))
    seen = first.take(np.arange(few)) if few < len(first) else first
    known = formats.get(first.shard.format).first_columns(first.shard.path)
    for version in versions:
        models.check_inputs(version, loaded[version.name], seen, known)
    heads, notes = _heads(settings, label_columns, versions, loaded, first, seen, known)
    notes += asked.notes
    taken = {one.image.name for model in loaded.values() for one in model.inputs if one.image}
    if idle := [name for name, _ in declared if name not in taken]:
        notes.append(f"data.images that no model takes: {', '.join(idle)}")
    baseline = next((model.name for model in settings.models if model.baseline), None)
    if baseline is None and len(versions) > 1:
        baseline = versions[0].name
        notes.append(f"no model is marked `baseline: true`: the first, {baseline!r}, is it")
    # What the job does with every batch, so that it fails now and not on a worker.
    scored, _ = predict.score(seen, loaded, heads, settings.data.weight, settings.data.id)
    identity = _identity(settings.data.id, projection)
    _check_numeric(first, asked.specs)
    metric_specs = asked.metrics if asked.metrics is not None else _defaults(heads)
    _check_fit(metric_specs, versions, heads)
    names = tuple(version.name for version in versions)
    weight = settings.data.weight
    thresholds = tuple(settings.thresholds)
    columnar = () if engine == "tfma" else metric_specs
    pairs = _pairs(settings, baseline)
    planned = plan.plan(
        columnar,
        names,
        heads,
        baseline,
        weight is not None,
        thresholds,
        compare.conversions(pairs),
    )
    described = (names, heads, asked.specs)
    if asked.given is None:
        whole = tfma.eval_config(*described, metric_specs, baseline, weight)
    else:
        whole = tfma.completed(asked.given, names, heads, baseline, weight)
    by_tfma = whole if engine == "tfma" else None
    if by_tfma is None and (planned.others or asked.tfma_metrics):
        by_tfma = tfma.eval_config(*described, planned.others, baseline, weight, asked.tfma_metrics)
        notes.append(f"by TFMA's own combiners, which are slower: {_metrics_of(by_tfma)}")
    return Job(
        name=settings.name,
        shards=shards,
        projection=projection,
        batch_size=settings.data.batch_size or _batch_size(first, image_bytes, heads),
        models=versions,
        baseline=baseline,
        specs=asked.specs,
        weight=weight,
        id=settings.data.id,
        units=max(1, settings.confidence.units),  # one is as good as none
        max_dead_letters=settings.data.max_dead_letters,
        evaluation=finish.Evaluation(planned, names, heads, weight is not None, thresholds),
        eval_config=whole.SerializeToString(deterministic=True),
        tfma_config=None if by_tfma is None else by_tfma.SerializeToString(deterministic=True),
        min_slice_size=asked.min_slice_size,
        engine=engine,
        identity=identity,
        digests=digests,
        pairs=pairs,
        first=None if scored is None else scored.batch,
        notes=tuple(notes),
    )


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


def with_absolute_paths(job: Job) -> Job:
    """The job for workers that run in another folder than this process."""
    return dataclasses.replace(
        job,
        shards=tuple(
            dataclasses.replace(shard, path=files.absolute(shard.path)) for shard in job.shards
        ),
        models=tuple(
            dataclasses.replace(model, path=files.absolute(model.path)) if model.path else model
            for model in job.models
        ),
    )


def _batch_size(first: batch.Batch, image_bytes: int, heads: Sequence[labels.Head]) -> int:
    """As many examples as are fast together, and fewer where they or their scores are large."""
    raw = sum(map(len, first.serialized)) if first.serialized is not None else 0
    # Without dictionaries, which are those of many examples.
    read = sum(arrow.flatten(column)[0].nbytes for column in first.columns.columns)
    example = max(1, (raw + read) // len(first) + image_bytes)
    classes = max(head.classes or 1 for head in heads)
    return max(1, min(_BATCH, _BATCH_BYTES // example, _BATCH_SCORES // classes))


def _image_bytes(first: batch.Batch, loaded: Collection[models.Model]) -> int:
    """What one example's images are as the models take them, each once; 0 where none can be had."""
    inputs = {
        dataclasses.replace(declared, name=""): declared
        for model in loaded
        for declared in model.inputs
        if declared.image is not None
    }
    for row in range(len(first) if inputs else 0):
        one = first.take(np.array([row]))
        # A damaged one, or no such column, which is told when inputs are checked.
        with contextlib.suppress(arrow.UnscorableRowsError, errors.JobError, KeyError):
            return sum(_bytes_of(declared, one) for declared in inputs.values())
    return 0


def _bytes_of(declared: columns.Input, one: batch.Batch) -> int:
    """What the image of the only row takes, also one that does not fit the model."""
    assert declared.image is not None
    try:
        return int(columns.arrays((declared,), one)[declared.name].nbytes)
    except (arrow.UnscorableRowsError, errors.JobError):
        return int(declared.image.decoded(one.columns.column(declared.column)).nbytes)


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
    first = versions[0]
    for version in versions[1:]:
        if set(loaded[version.name].outputs) != set(loaded[first.name].outputs):
            raise errors.ConfigError(
                f"Versions {first.name!r} and {version.name!r} have different outputs, "
                f"{_listed(loaded[first.name].outputs)} and "
                f"{_listed(loaded[version.name].outputs)}. Choose those to evaluate with "
                "`outputs:` of each model"
            )
    return loaded[first.name].outputs


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)


def _label_columns(settings: config.Config, outputs: Sequence[str]) -> dict[str, str]:
    """The label's column for each output."""
    label = settings.data.label
    if isinstance(label, str) and len(outputs) == 1:
        return {outputs[0]: label}
    if isinstance(label, str):
        raise errors.ConfigError(
            f"the models have several outputs ({_listed(outputs)}), and data.label names one column"
            " for all: write `label: {output: column, ...}`, or choose one output with `outputs:` "
            "of each model"
        )
    assert label is not None
    if set(label) != set(outputs):
        raise errors.ConfigError(
            f"data.label names the outputs {_listed(list(label))}, and the models have "
            f"{_listed(outputs)}: give each of these its label's column, or choose outputs with "
            "`outputs:` of each model"
        )
    return {output: label[output] for output in outputs}


def _projection(
    asked: eval_config.Asked, label_columns: Collection[str], loaded: Collection[models.Model]
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
        wanted.add(tfma.config_pb2.MetricsSpec.FromString(raw).query_key)
    for name, value in _arguments(asked):
        if name.endswith("_key") and isinstance(value, str):
            wanted.add(value)
    # What only slices and identity read is text there; models and labels need numbers.
    numeric = {*label_columns, data.weight, *(c for m in loaded for c in m.projection.columns)}
    numeric |= {t.column for spec in asked.specs for t in spec if t.edges or t.quantiles}
    texts = {*slices.columns(asked.specs), *([data.id] if data.id else [])} - numeric
    return batch.Projection(tuple(sorted(wanted - {""})), serialized, tuple(sorted(texts)))


def _arguments(asked: eval_config.Asked) -> Iterator[tuple[str, Any]]:
    for spec in asked.metrics or ():
        yield from spec.arguments.items()
    for raw in asked.tfma_metrics:
        for given in tfma.config_pb2.MetricsSpec.FromString(raw).metrics:
            yield from json.loads(tfma.config_json(given)).items()


def _check_declared(
    shards: Sequence[batch.Shard], settings: config.Config, specs: Sequence[slices.Spec]
) -> None:
    """Columns that a format declares must be there; what a file does not declare may still come."""
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
                    f"{path}: {use} is not among its columns ({', '.join(declared)})"
                    f"{_nearest(column, declared)}"
                )


def _check_numeric(first: batch.Batch, specs: Sequence[slices.Spec]) -> None:
    """Columns that are cut must hold numbers."""
    for term in (term for spec in specs for term in spec if term.edges or term.quantiles):
        try:
            slices.numbers(first, term.column)
        except errors.JobError as e:
            raise errors.ConfigError(str(e)) from e


def _check_fit(
    specs: Sequence[plan.MetricSpec],
    versions: Sequence[models.ModelSpec],
    heads: Sequence[labels.Head],
) -> None:
    """Metrics must be of versions and outputs that exist, and of tasks that they are for."""
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
                        f"{_listed(known)}{_nearest(name, known)}"
                    )
        _check_classes(spec, heads)
        for head in heads:
            asked_for = not spec.outputs or head.output in spec.outputs
            if asked_for and head.task == "regression" and metrics.needs_classes(spec.class_name):
                fits = [other.output for other in heads if other.task != "regression"]
                remedy = f"; name those it is for: `outputs: [{', '.join(fits)}]`" if fits else ""
                raise errors.ConfigError(
                    f"metrics: {spec.class_name} is for classification, and "
                    + (f"output {head.output!r}" if head.output else "the task")
                    + f" is regression{remedy}"
                )


def _check_classes(spec: plan.MetricSpec, heads: Sequence[labels.Head]) -> None:
    for head in heads if spec.class_ids else ():
        if spec.outputs and head.output not in spec.outputs:
            continue
        wrong = [one for one in spec.class_ids if not 0 <= one < (head.classes or 0)]
        if wrong:
            known = f"0 to {head.classes - 1}" if head.classes else f"none: the task is {head.task}"
            raise errors.ConfigError(
                f"metrics: {spec.class_name} has the class id {wrong[0]}; known are {known}"
            )


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _first_batch(shards: Sequence[batch.Shard], projection: batch.Projection) -> batch.Batch:
    """The first examples of the main split that can be read."""
    letters: list[batch.DeadLetter] = []
    for shard in shards:
        if shard.split != batch.MAIN_SPLIT:
            continue
        for item in formats.get(shard.format).read(shard, projection, _FIRST_EXAMPLES):
            if isinstance(item, batch.Batch) and len(item):
                return item
            if isinstance(item, batch.DeadLetter):
                letters.append(item)
    listed = sorted({shard.path for shard in shards if shard.split == batch.MAIN_SPLIT})
    if letters:
        first = letters[0]
        raise errors.JobError(
            f"No example of data.files can be read. {first.path}, row {first.position}: "
            f"{first.reason}"
        )
    raise errors.ConfigError(
        f"data.files holds no examples: {', '.join(listed[:5])}"
        f"{' and others' if len(listed) > 5 else ''} are empty"
    )


def _heads(
    settings: config.Config,
    label_columns: Mapping[str, str],
    versions: Sequence[models.ModelSpec],
    loaded: Mapping[str, models.Model],
    first: batch.Batch,
    seen: batch.Batch,
    known: Sequence[str],
) -> tuple[tuple[labels.Head, ...], list[str]]:
    """Each output's task: as configured, or as the first batch, or what models see of it, shows."""
    for column in label_columns.values():
        if column not in first.columns.schema.names:
            raise errors.ConfigError(
                f"{first.shard}: data.label {column!r} is in none of the first {len(first)} "
                f"examples (they have {', '.join(known)}){_nearest(column, known)}"
            )
    if isinstance(settings.task, dict) and set(settings.task) != set(label_columns):
        raise errors.ConfigError(
            f"task names the outputs {_listed(list(settings.task))}, and the models have "
            f"{_listed(list(label_columns))}"
        )
    predicted = _first_predictions(versions, loaded, seen)
    heads, notes = [], []
    for output, column in label_columns.items():
        task = settings.task[output] if isinstance(settings.task, dict) else settings.task
        scores = predicted[output]
        classes = scores.shape[1] if scores.ndim > 1 else None
        if task is None:
            inferred = labels.infer_task(labels.raw(first, column), scores)
            of_output = f" for output {output!r}" if output else ""
            notes.append(f"task inferred{of_output}: {inferred.reason}")
            task, classes = inferred.task, inferred.classes
        heads.append(labels.Head(output, column, task, classes))
    return tuple(heads), notes


def _first_predictions(
    versions: Sequence[models.ModelSpec],
    loaded: Mapping[str, models.Model],
    first: batch.Batch,
) -> dict[str, np.ndarray]:
    """The first version's predictions of the first examples that it can score."""
    version = versions[0]
    reason: Exception | None = None
    for rows in (np.arange(len(first)), *(np.array([row]) for row in range(len(first)))):
        try:
            return loaded[version.name].predict(first.take(rows))
        except errors.JobError as e:
            raise errors.JobError(f"Version {version.name!r}: {e}") from e
        except Exception as e:  # a row of it may be at fault: dead letters are the job's affair
            reason = e
    raise errors.JobError(
        f"Version {version.name!r} can score none of the first {len(first)} examples of "
        f"{first.shard}: {type(reason).__name__}: {reason}"
    )


def _defaults(heads: Sequence[labels.Head]) -> tuple[plan.MetricSpec, ...]:
    return tuple(
        plan.MetricSpec(name, outputs=(head.output,), native=True)
        for head in heads
        for name in _DEFAULT_METRICS[head.task]
    )
