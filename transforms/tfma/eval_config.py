"""TFMA's part: its EvalConfig in and out, its protos, and which metrics it knows.

TFMA takes 16 seconds to import. Its protos do not need it, so nothing here imports it but
`check_metric`, and that only for what no columnar kernel computes.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from google.protobuf import json_format, text_format

from evalbeam.transforms import errors, metrics
from evalbeam.transforms.examples import labels, slices
from evalbeam.transforms.metrics import metric, plan
from evalbeam.transforms.tfma import protos


@dataclass(frozen=True)
class Model:
    """A ModelSpec. The columns are (output, column) pairs, output "" for the only one.

    Attributes:
      name: the version; "" where the config has one without a name.
      baseline: whether the other versions are compared with it.
      signature: the SavedModel's signature; "" for the default.
      labels, predictions, weights: where labels, stored predictions and example weights are.
    """

    name: str
    baseline: bool
    signature: str
    labels: tuple[tuple[str, str], ...]
    predictions: tuple[tuple[str, str], ...]
    weights: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Threshold:
    """A MetricThreshold: bounds of a metric's value, or of its change against the baseline.

    Attributes:
      metric: the metric; None where the config names one only by `name`.
      name: the metric's name in the results.
      slices: the slices it holds for; None: for all.
      lower, upper: bounds of the value; None: unbounded.
      absolute, relative: bounds of the candidate's value minus the baseline's, and of that divided
        by the baseline's: the least where higher is better, the most where lower is.
      higher_is_better: the direction of a change; None for a value.
    """

    metric: plan.MetricSpec | None
    name: str
    slices: slices.Spec | None
    lower: float | None = None
    upper: float | None = None
    absolute: float | None = None
    relative: float | None = None
    higher_is_better: bool | None = None


@dataclass(frozen=True)
class CrossSlices:
    """A CrossSlicingSpec: the slices of `others` are compared with those of `baseline`.

    No `others` means all slices but the baseline's.
    """

    baseline: slices.Spec
    others: tuple[slices.Spec, ...]


@dataclass(frozen=True)
class Evaluation:
    """What an EvalConfig asks for, in our terms.

    Attributes:
      models: its ModelSpecs.
      slices: its SlicingSpecs; the whole data where it names none, as TFMA has it.
      metrics: its metrics, one by one.
      tfma_metrics: MetricsSpecs, serialised, with a query key or output weights: for TFMA only.
      thresholds: the bounds on metrics, for gates.
      cross_slices: the slices that are compared with each other.
      min_slice_size: slices of fewer examples are left out, the overall one excepted.
      intervals: whether confidence intervals are asked for, by whatever method; None where it
        does not say.
      disabled_outputs: outputs not to be written, such as "plots".
      tfma_only: sentences about what only `--engine tfma` honours.
    """

    models: tuple[Model, ...]
    slices: tuple[slices.Spec, ...]
    metrics: tuple[plan.MetricSpec, ...]
    tfma_metrics: tuple[bytes, ...]
    thresholds: tuple[Threshold, ...]
    cross_slices: tuple[CrossSlices, ...]
    min_slice_size: int
    intervals: bool | None
    disabled_outputs: tuple[str, ...]
    tfma_only: tuple[str, ...]


def read_eval_config(path: str) -> Any:
    """The EvalConfig of a local file: text proto, JSON, or the eval_config.json of a TFMA result.

    Raises:
      ConfigError: a file that is absent or is no EvalConfig; names file, line and what is wrong.
    """
    try:
        content = pathlib.Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise errors.ConfigError(f"{path}: cannot be read as a TFMA EvalConfig: {error}") from error
    try:
        if not content.lstrip().startswith("{"):
            return text_format.Parse(content, protos.config_pb2.EvalConfig())
        fields = json.loads(content)
        if fields.keys() & {"evalConfig", "eval_config"}:
            return json_format.ParseDict(fields, protos.config_pb2.EvalRun()).eval_config
        return json_format.ParseDict(fields, protos.config_pb2.EvalConfig())
    except text_format.ParseError as error:
        raise errors.ConfigError(
            f"{path}, line {error.GetLine()}: not a TFMA EvalConfig: {error}"
        ) from error
    except json.JSONDecodeError as error:
        raise errors.ConfigError(f"{path}, line {error.lineno}: not JSON: {error.msg}") from error
    except json_format.ParseError as error:
        raise errors.ConfigError(
            f"{path}, {_place(content, str(error))}not a TFMA EvalConfig: {error}"
        ) from error


def _place(content: str, message: str) -> str:
    """The line of the field that a message names, which the JSON parser does not tell."""
    quoted = message.split('"')[1::2]
    lines = content.splitlines()
    for name in quoted:
        found = [i for i, line in enumerate(lines, start=1) if f'"{name}"' in line]
        if len(found) == 1:
            return f"line {found[0]}: "
    return ""


def evaluation(config: Any) -> Evaluation:
    """What an EvalConfig asks for.

    Raises:
      ConfigError: what TFMA itself refuses or silently gets wrong; `tfma_only` of the result tells
        what TFMA computes and the columnar engine does not.
    """
    models = tuple(_model(spec) for spec in config.model_specs)
    _check_models(models)
    configured: list[plan.MetricSpec] = []
    whole: list[bytes] = []
    thresholds: list[Threshold] = []
    for spec in config.metrics_specs:
        _check_names(spec, models)
        # As in TFMA, a single model is every metric's, whatever either calls it.
        of = tuple(spec.model_names) if len(models) > 1 else ()
        translated = [(given, _metric_specs(spec, given, of)) for given in spec.metrics]
        if spec.query_key or spec.output_weights:
            whole.append(spec.SerializeToString(deterministic=True))
        else:
            configured += [one for _, several in translated for one in several]
        thresholds += [
            bound
            for given, several in translated
            for one in several
            for bound in _metric_thresholds(given, one)
        ]
        for name, threshold in sorted(spec.thresholds.items()):
            thresholds += _bounds(Threshold(None, name, None), threshold)
        for name, sliced in sorted(spec.per_slice_thresholds.items()):
            thresholds += _per_slice(Threshold(None, name, None), sliced.thresholds)
    options = config.options
    return Evaluation(
        models=models,
        slices=tuple(dict.fromkeys(map(_spec, config.slicing_specs))) or ((),),
        metrics=tuple(dict.fromkeys(configured)),
        tfma_metrics=tuple(whole),
        thresholds=tuple(thresholds),
        cross_slices=tuple(
            CrossSlices(_spec(cross.baseline_spec), tuple(map(_spec, cross.slicing_specs)))
            for cross in config.cross_slicing_specs
        ),
        min_slice_size=max(1, options.min_slice_size.value),
        intervals=(
            options.compute_confidence_intervals.value
            if options.HasField("compute_confidence_intervals")
            else None
        ),
        disabled_outputs=tuple(options.disabled_outputs.values),
        tfma_only=tuple(_tfma_only(config)),
    )


def eval_config(
    models: Sequence[str],
    heads: Sequence[labels.Head],
    specs: Sequence[slices.Spec],
    configured: Sequence[plan.MetricSpec],
    baseline: str | None = None,
    weight: str | None = None,
    tfma_metrics: Sequence[bytes] = (),
) -> Any:
    """The EvalConfig that describes a run, with TFMA's defaults filled in.

    A slice column in bins stands there as a feature key. As TFMA has it, a single model has the
    name "", whatever it is called.

    Args:
      models: the versions.
      heads: what is evaluated.
      specs: the slices.
      configured: the metrics.
      baseline: the version that the others are compared with.
      weight: the column of the examples' weights.
      tfma_metrics: further MetricsSpecs, serialised, see `Evaluation`.
    """
    config = protos.config_pb2.EvalConfig()
    _add_models(config, models, heads, baseline, weight)
    for spec in specs:
        config.slicing_specs.add(
            feature_keys=[term.column for term in spec if term.value is None],
            feature_values={
                term.column: str(term.value) for term in spec if term.value is not None
            },
        )
    outputs = [head.output for head in heads] if len(heads) > 1 else []
    groups: dict[plan.MetricSpec, Any] = {}
    for one in configured:
        settings = replace(one, class_name="", config="{}", module="", native=False)
        if settings not in groups:
            groups[settings] = config.metrics_specs.add()
            _describe(settings, outputs, groups[settings])
        groups[settings].metrics.add(
            class_name=one.class_name, module=one.module, config=one.config
        )
    for serialized in tfma_metrics:
        config.metrics_specs.add().ParseFromString(serialized)
    _name_models(config, models)
    return config


def completed(
    given: Any,
    models: Sequence[str],
    heads: Sequence[labels.Head],
    baseline: str | None = None,
    weight: str | None = None,
) -> Any:
    """A user's EvalConfig as a run's: with the run's versions, labels and weights.

    Slices, metrics, thresholds and options stay as given, and so does what its ModelSpecs say
    beyond that. See `eval_config` for the arguments.
    """
    config = protos.config_pb2.EvalConfig()
    config.CopyFrom(given)
    del config.model_specs[:]
    _add_models(config, models, heads, baseline, weight)
    by_name = {spec.name: spec for spec in given.model_specs}
    for name, spec in zip(models, config.model_specs, strict=True):
        if name in by_name:
            spec.signature_name = by_name[name].signature_name
            spec.model_type = by_name[name].model_type
    _name_models(config, models)
    return config


def config_json(given: Any) -> str:
    """The arguments of a MetricConfig as a JSON object; TFMA lets its braces be left out.

    Raises:
      ConfigError: they are no JSON.
    """
    raw = given.config.strip()
    text = raw if raw.startswith("{") else f"{{{raw}}}"
    try:
        return json.dumps(json.loads(text), sort_keys=True)
    except json.JSONDecodeError as error:
        raise errors.ConfigError(
            f"EvalConfig: config of {given.class_name} is not JSON: {error.msg} in {given.config!r}"
        ) from error


def _model(spec: Any) -> Model:
    return Model(
        name=spec.name,
        baseline=spec.is_baseline,
        signature=spec.signature_name,
        labels=_columns(spec, "label"),
        predictions=_columns(spec, "prediction"),
        weights=_columns(spec, "example_weight"),
    )


def _columns(spec: Any, kind: str) -> tuple[tuple[str, str], ...]:
    one, several = getattr(spec, f"{kind}_key"), getattr(spec, f"{kind}_keys")
    if one and several:
        raise errors.ConfigError(
            f"EvalConfig: model_specs {spec.name!r} has both {kind}_key and {kind}_keys; use "
            f"{kind}_key for one output, {kind}_keys for several"
        )
    return (("", one),) if one else tuple(sorted(several.items()))


def _check_models(models: Sequence[Model]) -> None:
    names = [model.name for model in models]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise errors.ConfigError(f"EvalConfig: several model_specs have the name {doubled[0]!r}")
    if len(names) > 1 and "" in names:
        raise errors.ConfigError("EvalConfig: with several model_specs each needs a name")
    baselines = [model.name for model in models if model.baseline]
    if len(baselines) > 1:
        raise errors.ConfigError(
            f"EvalConfig: {' and '.join(map(repr, baselines))} are both baselines; only one may be"
        )


def _check_names(spec: Any, models: Sequence[Model]) -> None:
    names = [model.name for model in models]
    for name in spec.model_names:
        if len(names) > 1 and name not in names:
            raise errors.ConfigError(
                f"EvalConfig: metrics_specs has model_names {name!r}; the model_specs are "
                f"{errors.listed(names)}"
            )


def _spec(spec: Any) -> slices.Spec:
    if spec.slice_keys_sql:
        raise errors.ConfigError(
            "EvalConfig: slicing_specs with slice_keys_sql; TFMA itself cannot run them, as "
            "tfx_bsl is shipped without SQL. Use feature_keys and feature_values, or a column that "
            "holds the slice"
        )
    both = sorted(set(spec.feature_keys) & set(spec.feature_values))
    if both:
        raise errors.ConfigError(
            f"EvalConfig: slicing_specs has {both[0]!r} in both feature_keys and feature_values"
        )
    terms = [slices.Term(column) for column in set(spec.feature_keys)]
    terms += [slices.Term(column, value) for column, value in spec.feature_values.items()]
    return tuple(sorted(terms, key=lambda term: term.column))


def _tfma_only(config: Any) -> Iterator[str]:
    if config.cross_slicing_specs:
        yield "cross_slicing_specs compare slices with each other"
    options = config.options
    if options.include_default_metrics.value:
        yield "options.include_default_metrics computes the metrics compiled into tf_keras models"
    for spec in config.model_specs:
        for name in ("preprocessing_function_names", "padding_options"):
            if spec.HasField(name) if name == "padding_options" else getattr(spec, name):
                yield f"model_specs {spec.name!r} has {name}"
    for spec in config.metrics_specs:
        crossed = [m for m in spec.metrics if m.cross_slice_thresholds]
        if crossed or spec.cross_slice_thresholds:
            yield "cross_slice_thresholds bound the difference of two slices"


def _metric_specs(spec: Any, given: Any, models: tuple[str, ...]) -> list[plan.MetricSpec]:
    """One for each weighting, and for binarize and aggregate, which are two metrics in TFMA."""
    base = plan.MetricSpec(
        class_name=given.class_name,
        config=config_json(given),
        module="" if _is_own_module(given) else given.module,
        models=models,
        outputs=tuple(spec.output_names),
    )
    ways = []
    if any(_lists(spec.binarize).values()):
        ways.append(replace(base, **_lists(spec.binarize)))  # type: ignore[arg-type]
    if spec.HasField("aggregate"):
        ways.append(_aggregated(base, spec.aggregate))
    weightings: list[bool | None] = [None]
    if spec.HasField("example_weights"):
        weightings = [True] * spec.example_weights.weighted
        weightings += [False] * spec.example_weights.unweighted
        if not weightings:
            raise errors.ConfigError(
                f"EvalConfig: metrics_specs of {given.class_name} has example_weights, but sets "
                "neither weighted nor unweighted; TFMA then computes nothing. Set one, or both"
            )
    return [replace(way, weighted=weighted) for way in ways or [base] for weighted in weightings]


def _is_own_module(given: Any) -> bool:
    """Whether a module, as TFMA writes it into configs, is where TFMA finds the class anyway."""
    package, _, rest = given.module.partition(".")
    own = package in ("tf_keras", "tensorflow_model_analysis") and "metrics" in rest
    return own and given.class_name in metrics.REGISTRY


def _lists(binarize: Any) -> dict[str, tuple[int, ...]]:
    return {
        "class_ids": tuple(binarize.class_ids.values),
        "k_list": tuple(binarize.k_list.values),
        "top_k_list": tuple(binarize.top_k_list.values),
    }


def _aggregated(base: plan.MetricSpec, aggregate: Any) -> plan.MetricSpec:
    kind = aggregate.WhichOneof("type")
    if kind is None or not getattr(aggregate, kind):
        raise errors.ConfigError(
            f"EvalConfig: aggregate of {base.class_name} sets none of micro_average, "
            "macro_average and weighted_macro_average"
        )
    top_k = tuple(aggregate.top_k_list.values)
    weights = tuple(sorted(aggregate.class_weights.items()))
    if top_k and weights:
        raise errors.ConfigError(
            f"EvalConfig: aggregate of {base.class_name} has both class_weights and top_k_list; "
            "TFMA takes one of them"
        )
    if kind != "micro_average" and not (top_k or weights):
        raise errors.ConfigError(
            f"EvalConfig: {kind} of {base.class_name} needs class_weights, which name the classes "
            "to average (weight 1 for each counts them alike)"
        )
    return replace(
        base,
        aggregate=kind.removesuffix("_average"),
        aggregate_top_k=top_k,
        class_weights=weights,
    )


def _metric_thresholds(given: Any, one: plan.MetricSpec) -> Iterator[Threshold]:
    name = one.arguments.get("name") or metric.snake_case(one.class_name)
    yield from _bounds(Threshold(one, name, None), given.threshold)
    yield from _per_slice(Threshold(one, name, None), given.per_slice_thresholds)


def _per_slice(unbounded: Threshold, given: Iterable[Any]) -> Iterator[Threshold]:
    for part in given:
        if not part.slicing_specs:
            raise errors.ConfigError(
                f"EvalConfig: per_slice_thresholds of {unbounded.name} has no slicing_specs; name "
                "them, or use threshold for all slices"
            )
        for spec in part.slicing_specs:
            yield from _bounds(replace(unbounded, slices=_spec(spec)), part.threshold)


def _bounds(unbounded: Threshold, given: Any) -> Iterator[Threshold]:
    """The bounds of the value and of the change; a MetricThreshold may have both."""
    if given.HasField("value_threshold"):
        value = given.value_threshold
        yield replace(
            unbounded, lower=_number(value, "lower_bound"), upper=_number(value, "upper_bound")
        )
    if given.HasField("change_threshold"):
        change = given.change_threshold
        if not change.direction:
            raise errors.ConfigError(
                f"EvalConfig: change_threshold of {unbounded.name} needs a direction, "
                "HIGHER_IS_BETTER or LOWER_IS_BETTER"
            )
        yield replace(
            unbounded,
            absolute=_number(change, "absolute"),
            relative=_number(change, "relative"),
            higher_is_better=change.direction == protos.config_pb2.HIGHER_IS_BETTER,
        )


def _number(message: Any, field: str) -> float | None:
    return getattr(message, field).value if message.HasField(field) else None


def _add_models(
    config: Any,
    models: Sequence[str],
    heads: Sequence[labels.Head],
    baseline: str | None,
    weight: str | None,
) -> None:
    several = len(models) > 1
    for name in models:
        model = config.model_specs.add(
            name=name if several else "",
            is_baseline=several and name == baseline,
            example_weight_key=weight or "",
        )
        if len(heads) == 1:
            model.label_key = heads[0].column
        else:
            model.label_keys.update({head.output: head.column for head in heads})


def _name_models(config: Any, models: Sequence[str]) -> None:
    """Names the models of each metric as TFMA's own defaults do."""
    for spec in config.metrics_specs:
        if len(models) == 1:
            spec.model_names[:] = [""]
        elif not spec.model_names:
            spec.model_names.extend(models)


def _describe(settings: plan.MetricSpec, outputs: Sequence[str], into: Any) -> None:
    into.model_names.extend(settings.models)
    into.output_names.extend(settings.outputs or outputs)
    for name in ("class_ids", "k_list", "top_k_list"):
        if values := getattr(settings, name):
            getattr(into.binarize, name).values.extend(values)
    if settings.aggregate:
        setattr(into.aggregate, f"{settings.aggregate}_average", True)
        if settings.aggregate_top_k:
            into.aggregate.top_k_list.values.extend(settings.aggregate_top_k)
        into.aggregate.class_weights.update(dict(settings.class_weights))
    if settings.weighted is not None:
        into.example_weights.weighted = settings.weighted
        into.example_weights.unweighted = not settings.weighted
