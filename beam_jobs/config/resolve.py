"""Resolves a config together with its EvalConfig, if it names one."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf import json_format

from evalbeam.beam_jobs.config.settings import Config, Model
from evalbeam.transforms import errors
from evalbeam.transforms.examples.slices import Spec
from evalbeam.transforms.metrics.evaluation import Engine, MetricSpec, SliceComparison
from evalbeam.transforms.tfma import eval_config


@dataclass(frozen=True)
class Request:
    """What the config and its EvalConfig, if any, request together.

    Attributes:
      settings: the config, completed with columns and the baseline from the EvalConfig.
      slices: the slicing specs, overall first.
      metrics: the metrics; None for the defaults of the task.
      min_slice_size: the larger of both.
      preprocessing: by version, the signatures whose outputs are columns.
      tfma_metrics: MetricsSpecs, as JSON, that only TFMA computes.
      eval_config: the EvalConfig, as JSON.
      slice_comparisons: the slices to compare with each other.
      notes: what the EvalConfig requests but is not evaluated.
    """

    settings: Config
    slices: tuple[Spec, ...]
    metrics: tuple[MetricSpec, ...] | None
    min_slice_size: int
    preprocessing: tuple[tuple[str, tuple[str, ...]], ...] = ()
    tfma_metrics: tuple[str, ...] = ()
    eval_config: str | None = None
    slice_comparisons: tuple[SliceComparison, ...] = ()
    notes: tuple[str, ...] = ()


def resolve(settings: Config, engine: Engine) -> Request:
    """Reads the config's EvalConfig, if any, and merges both.

    Raises:
      ConfigError: the EvalConfig cannot be read, or contradicts the config.
    """
    if settings.eval_config is None:
        entries = settings.metrics
        return Request(
            settings,
            settings.slicing_specs(),
            None if entries is None else tuple(entry.spec() for entry in entries),
            settings.min_slice_size,
        )
    parsed = eval_config.read_eval_config(settings.eval_config)
    try:
        contents = eval_config.interpret(parsed, [model.name for model in settings.models])
    except errors.ConfigError as e:
        where = eval_config.locate(settings.eval_config, str(e))
        raise errors.ConfigError(f"{where}: {e}") from e
    if contents.tfma_only and engine != "tfma":
        raise errors.ConfigError(
            f"{settings.eval_config}: supported by `--engine tfma` only: "
            + "; ".join(contents.tfma_only)
        )
    min_slice_size = max(contents.min_slice_size, settings.min_slice_size)
    if contents.slice_comparisons and engine == "tfma" and min_slice_size > 1:
        raise errors.ConfigError(
            f"{settings.eval_config}: TFMA cannot compare slices (cross_slicing_specs) with a "
            f"min_slice_size, here {min_slice_size}: remove one of them, or `--engine tfma`"
        )
    notes = []
    if contents.thresholds or contents.bounds_differences:
        notes.append("this version of evalbeam does not check the EvalConfig's thresholds")
    if contents.intervals:
        notes.append("this version of evalbeam does not compute confidence intervals")
    is_empty = not contents.metrics and not contents.tfma_metrics
    if is_empty:
        notes.append("the EvalConfig has no metrics: evaluating the usual ones of the task")
    return Request(
        _merge(settings, contents),
        tuple(dict.fromkeys(((), *contents.slices))),
        None if is_empty else contents.metrics,
        min_slice_size,
        _list_preprocessing(settings, contents),
        contents.tfma_metrics,
        None if is_empty else json_format.MessageToJson(parsed, indent=None, sort_keys=True),
        contents.slice_comparisons,
        tuple(notes),
    )


def _match(settings: Config, contents: eval_config.Contents) -> list[eval_config.Model | None]:
    """The model_spec of each version; the only one is for all."""
    by_name = {spec.name: spec for spec in contents.models}
    first = next(iter(by_name.values()), None)
    return [by_name.get(model.name) or first for model in settings.models]


def _list_preprocessing(
    settings: Config, contents: eval_config.Contents
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple(
        (model.name, spec.preprocessing)
        for model, spec in zip(settings.models, _match(settings, contents), strict=True)
        if spec is not None and spec.preprocessing
    )


def _merge(settings: Config, contents: eval_config.Contents) -> Config:
    """The config, completed with what only the EvalConfig's model_specs have."""
    by_name = {spec.name: spec for spec in contents.models}
    names = [model.name for model in settings.models]
    if len(by_name) > 1 and set(by_name) != set(names):
        raise errors.ConfigError(
            f"{settings.eval_config}: its model_specs are {errors.listed(sorted(by_name))}, "
            f"but the config's models are {errors.listed(names)}: use the same names"
        )
    specs = _match(settings, contents)
    label, weight = settings.data.label, settings.data.weight
    label_columns = {spec.labels for spec in specs if spec is not None and spec.labels}
    weight_columns = {spec.weights for spec in specs if spec is not None and spec.weights}
    for what, columns in (("label", label_columns), ("weight", weight_columns)):
        if len(columns) > 1:
            raise errors.ConfigError(
                f"{settings.eval_config}: its model_specs name different {what} columns, but "
                "versions are compared on the same one"
            )
    if label_columns:
        (by_output,) = label_columns
        spec_label = by_output[0][1] if by_output[0][0] == "" else dict(by_output)
        if label not in (None, spec_label):
            raise _contradicts("data.label", label, settings.eval_config, spec_label)
        label = spec_label
    if weight_columns:
        spec_weight = next(iter(weight_columns))[0][1]
        if weight not in (None, spec_weight):
            raise _contradicts("data.weight", weight, settings.eval_config, spec_weight)
        weight = spec_weight
    for model, spec in zip(settings.models, specs, strict=True):
        if spec is not None:
            _check_model(model, spec, settings)
    if label is None:
        raise errors.ConfigError(
            f"neither data.label nor {settings.eval_config} (model_specs.label_key) names the "
            "label column"
        )
    has_baseline = settings.baseline is not None
    versions = [
        model.model_copy(
            update={
                "baseline": model.baseline
                or (not has_baseline and model.name in by_name and by_name[model.name].baseline),
                "signature": spec.signature
                if spec is not None and spec.signature and model.path
                else model.signature,
            }
        )
        for model, spec in zip(settings.models, specs, strict=True)
    ]
    data = settings.data.model_copy(update={"label": label, "weight": weight})
    return settings.model_copy(update={"data": data, "models": versions})


def _check_model(model: Model, spec: eval_config.Model, settings: Config) -> None:
    """Raises ConfigError if the config and the EvalConfig differ on a version."""
    where = f"of version {model.name!r}"
    if model.predictions is not None and spec.predictions:
        by_output = spec.predictions
        wanted = by_output[0][1] if by_output[0][0] == "" else dict(by_output)
        if model.predictions != wanted:
            key = f"predictions {where}"
            raise _contradicts(key, model.predictions, settings.eval_config, wanted)
    if "signature" in model.model_fields_set and spec.signature not in ("", model.signature):
        key = f"signature {where}"
        raise _contradicts(key, model.signature, settings.eval_config, spec.signature)
    is_other = settings.baseline not in (None, model.name)
    if spec.name == model.name and spec.baseline and is_other:
        raise _contradicts("baseline", settings.baseline, settings.eval_config, model.name)


def _contradicts(key: str, value: object, path: str | None, other: object) -> errors.ConfigError:
    return errors.ConfigError(f"{key} is {value!r}, but {path} has {other!r}: remove one of them")
