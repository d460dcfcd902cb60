"""Reads and writes TFMA's EvalConfig, without importing TFMA, which takes 16 seconds."""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from google.protobuf import json_format, text_format

from evalbeam.transforms import errors, metrics
from evalbeam.transforms.examples import labels, slices
from evalbeam.transforms.metrics import metric
from evalbeam.transforms.metrics import plan as planning
from evalbeam.transforms.metrics.evaluation import Evaluation, MetricSpec, SliceComparison
from evalbeam.transforms.metrics.plan import plan
from evalbeam.transforms.tfma import protos

# The values that `disabled_outputs` may have.
_OUTPUTS = ("metrics", "plots", "attributions", "validations", "eval_config.json")


@dataclass(frozen=True)
class Model:
    """A ModelSpec. The columns are (output, column) pairs, output "" for the only one.

    Attributes:
      name: the version; "" for a single model without a name.
      baseline: whether the other versions are compared with it.
      signature: the SavedModel's signature; "" for the default.
      preprocessing: the signatures whose outputs are columns, too.
      labels, predictions, weights: the columns of labels, stored predictions and example weights.
    """

    name: str
    baseline: bool
    signature: str
    preprocessing: tuple[str, ...]
    labels: tuple[tuple[str, str], ...]
    predictions: tuple[tuple[str, str], ...]
    weights: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Threshold:
    """A MetricThreshold: bounds of a metric's value, or of its change against the baseline.

    Attributes:
      metric: the metric; None if the config names it only by `name`.
      name: the metric's name in the results.
      slices: the slices that it applies to; None for all.
      lower, upper: bounds of the value; None if unbounded.
      absolute, relative: bounds of the candidate's value minus the baseline's, and of that divided
        by the baseline's: the minimum if higher is better, the maximum if lower is.
      higher_is_better: the direction of a change; None for a bound on the value.
    """

    metric: MetricSpec | None
    name: str
    slices: slices.Spec | None
    lower: float | None = None
    upper: float | None = None
    absolute: float | None = None
    relative: float | None = None
    higher_is_better: bool | None = None


@dataclass(frozen=True)
class Contents:
    """The contents of an EvalConfig, in our terms.

    Attributes:
      models: the ModelSpecs.
      slices: the slicing specs; the whole data if there are none, as in TFMA.
      metrics: the individual metrics.
      tfma_metrics: MetricsSpecs with a query key or output weights, as JSON: for TFMA only.
      thresholds: the bounds on metrics, for gates.
      min_slice_size: slices of fewer examples are omitted, except the overall one.
      intervals: whether confidence intervals are requested, by any method; None if not specified.
      slice_comparisons: the slices to compare with each other.
      bounds_differences: whether there are bounds on the differences of slices.
      tfma_only: sentences on what only `--engine tfma` supports.
    """

    models: tuple[Model, ...]
    slices: tuple[slices.Spec, ...]
    metrics: tuple[MetricSpec, ...]
    tfma_metrics: tuple[str, ...]
    thresholds: tuple[Threshold, ...]
    min_slice_size: int
    intervals: bool | None
    slice_comparisons: tuple[SliceComparison, ...]
    bounds_differences: bool
    tfma_only: tuple[str, ...]


def read_eval_config(path: str) -> Any:
    """Reads the EvalConfig of a local file: text proto, JSON, or eval_config.json of a TFMA result.

    Raises:
      ConfigError: the file is missing or is not an EvalConfig; names the file and line.
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
            f"{path}:{error.GetLine()}: not a TFMA EvalConfig: {_explain_field(str(error))}"
        ) from error
    except json.JSONDecodeError as error:
        raise errors.ConfigError(f"{path}:{error.lineno}: not JSON: {error.msg}") from error
    except json_format.ParseError as error:
        where = f"{path}{_find_line(content, str(error))}"
        raise errors.ConfigError(
            f"{where}: not a TFMA EvalConfig: {_explain_field(str(error))}"
        ) from error


# As text_format and json_format put it.
_UNKNOWN_FIELD = re.compile(
    r'[Mm]essage type "tensorflow_model_analysis\.([\w.]+)" has no field named "(\w+)"'
)


def _explain_field(text: str) -> str:
    """The parser's words, or those on a field that a message does not have."""
    found = _UNKNOWN_FIELD.search(text)
    if not found:
        return text
    message = protos.config_pb2.DESCRIPTOR
    for name in found[1].split("."):
        types = getattr(message, "message_types_by_name", None) or message.nested_types_by_name
        if name not in types:
            return text
        message = types[name]
    fields = list(message.fields_by_name)
    return (
        f'{found[1]} has no field named "{found[2]}".{errors.did_you_mean(found[2], fields)} '
        f"Its fields: {errors.nearest(found[2], fields)}"
    )


def _find_line(content: str, message: str) -> str:
    """The line of the field that the JSON parser's message names, which does not have the line."""
    quoted = message.split('"')[1::2]
    lines = content.splitlines()
    for name in quoted:
        numbers = [i for i, line in enumerate(lines, start=1) if f'"{name}"' in line]
        if len(numbers) == 1:
            return f":{numbers[0]}"
    return ""


def locate(path: str, message: str) -> str:
    """The path of an EvalConfig, with the first line of a name that a message has, if any."""
    lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    # Names in quotes are what is wrong; others may be, such as those of metrics.
    for name in (*re.findall(r"'([^']+)'", message), *re.findall(r"\w+", message)):
        for number, line in enumerate(lines, start=1):
            if re.search(rf"""["']{re.escape(name)}\\?["']""", line):
                return f"{path}:{number}"
    return path


def interpret(config: Any, versions: Sequence[str] = ()) -> Contents:
    """Interprets an EvalConfig; `tfma_only` of the result lists what our engine does not support.

    Args:
      config: the EvalConfig.
      versions: names of models besides those of its model_specs.

    Raises:
      ConfigError: something that TFMA rejects or silently gets wrong.
    """
    models = tuple(_interpret_model(spec) for spec in config.model_specs)
    _check_models(models)
    metric_specs: list[MetricSpec] = []
    tfma_metrics: list[str] = []
    thresholds: list[Threshold] = []
    for spec in config.metrics_specs:
        _check_names(spec, models, versions)
        # As in TFMA, every metric is for the single model, by whichever of its names.
        names = tuple(spec.model_names) if len(models) > 1 else ()
        interpreted = [
            (metric_config, _interpret_metric(spec, metric_config, names))
            for metric_config in spec.metrics
        ]
        if spec.query_key or spec.output_weights:
            tfma_metrics.append(json_format.MessageToJson(spec, indent=None, sort_keys=True))
        else:
            metric_specs += [metric_spec for _, variants in interpreted for metric_spec in variants]
        thresholds += [
            threshold
            for metric_config, variants in interpreted
            for metric_spec in variants
            for threshold in _interpret_thresholds(metric_config, metric_spec)
        ]
        for name, threshold in sorted(spec.thresholds.items()):
            thresholds += _bound(Threshold(None, name, None), threshold)
        for name, per_slice in sorted(spec.per_slice_thresholds.items()):
            thresholds += _bound_slices(Threshold(None, name, None), per_slice.thresholds)
    options = config.options
    _check_outputs(options)
    slicing_specs = tuple(dict.fromkeys(map(_interpret_slices, config.slicing_specs))) or ((),)
    return Contents(
        models=models,
        slices=slicing_specs,
        metrics=tuple(dict.fromkeys(metric_specs)),
        tfma_metrics=tuple(tfma_metrics),
        thresholds=tuple(thresholds),
        min_slice_size=max(1, options.min_slice_size.value),
        intervals=(
            options.compute_confidence_intervals.value
            if options.HasField("compute_confidence_intervals")
            else None
        ),
        slice_comparisons=_interpret_comparisons(config.cross_slicing_specs, slicing_specs),
        bounds_differences=any(
            spec.cross_slice_thresholds or any(m.cross_slice_thresholds for m in spec.metrics)
            for spec in config.metrics_specs
        ),
        tfma_only=tuple(_list_tfma_only(config)),
    )


def describe_run(evaluation: Evaluation) -> Any:
    """The EvalConfig that describes a run: the user's, completed, if there is one."""
    models, heads = evaluation.models, evaluation.heads
    if evaluation.eval_config is None:
        config = build(
            *(models, heads, evaluation.slices, evaluation.metrics),
            *(evaluation.baseline, evaluation.weight),
        )
    else:
        user_config = json_format.Parse(evaluation.eval_config, protos.config_pb2.EvalConfig())
        config = complete(user_config, models, heads, evaluation.baseline, evaluation.weight)
    if evaluation.min_slice_size > 1:
        config.options.min_slice_size.value = evaluation.min_slice_size
    return config


def build_for_tfma(evaluation: Evaluation) -> Any:
    """The EvalConfig of what TFMA must compute, or None."""
    if evaluation.engine == "tfma":
        return describe_run(evaluation)
    specs = [planned.spec for planned in plan(evaluation).by_tfma]
    if not specs and not evaluation.tfma_metrics:
        return None
    return build(
        *(evaluation.models, evaluation.heads, evaluation.slices, specs),
        *(evaluation.baseline, evaluation.weight, evaluation.tfma_metrics),
    )


def list_classes(config: Any) -> list[str]:
    """The class names of all metrics in an EvalConfig."""
    return [metric.class_name for spec in config.metrics_specs for metric in spec.metrics]


def parse_metrics_spec(text: str) -> Any:
    """Parses a MetricsSpec in JSON."""
    return json_format.Parse(text, protos.config_pb2.MetricsSpec())


def build(
    models: Sequence[str],
    heads: Sequence[labels.Head],
    specs: Sequence[slices.Spec],
    metric_specs: Sequence[MetricSpec],
    baseline: str | None = None,
    weight: str | None = None,
    tfma_metrics: Sequence[str] = (),
) -> Any:
    """The EvalConfig that describes a run, with TFMA's defaults filled in.

    A slice column in bins becomes a feature key. As in TFMA, a single model has the name "",
    whatever its version.

    Args:
      models: the versions.
      heads: the outputs to evaluate.
      specs: the slicing specs.
      metric_specs: the metrics.
      baseline: the version that the others are compared with.
      weight: the column of the example weights.
      tfma_metrics: further MetricsSpecs, as JSON, see `Contents`.
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
    groups: dict[MetricSpec, Any] = {}
    for metric_spec in metric_specs:
        # An output of those that it is for: TFMA knows no names, and the same ids of all outputs.
        head = next((head for head in heads if metric_spec.is_for(head.output)), None)
        if head is not None:
            metric_spec = _complete(metric_spec, head)
        settings = replace(metric_spec, class_name="", config="{}", module="", native=False)
        if settings not in groups:
            groups[settings] = config.metrics_specs.add()
            _fill_settings(groups[settings], settings, outputs)
        groups[settings].metrics.add(
            class_name=metric_spec.class_name,
            module=metric_spec.module,
            config=metric_spec.config,
        )
    for text in tfma_metrics:
        json_format.Parse(text, config.metrics_specs.add())
    _name_models(config, models)
    return config


def complete(
    user_config: Any,
    models: Sequence[str],
    heads: Sequence[labels.Head],
    baseline: str | None = None,
    weight: str | None = None,
) -> Any:
    """Completes a user's EvalConfig with a run's versions, labels and weights.

    Slices, metrics, thresholds and options stay as they are, and so do the signatures and model
    types of its ModelSpecs. See `build` for the arguments.
    """
    config = protos.config_pb2.EvalConfig()
    config.CopyFrom(user_config)
    del config.model_specs[:]
    _add_models(config, models, heads, baseline, weight)
    by_name = {spec.name: spec for spec in user_config.model_specs}
    for name, spec in zip(models, config.model_specs, strict=True):
        if name in by_name:
            spec.signature_name = by_name[name].signature_name
            spec.model_type = by_name[name].model_type
            spec.preprocessing_function_names[:] = by_name[name].preprocessing_function_names
    _name_models(config, models)
    return config


def normalize_config(metric_config: Any) -> str:
    """The arguments of a MetricConfig as a JSON object; in TFMA its braces are optional.

    Raises:
      ConfigError: they are not JSON.
    """
    raw = metric_config.config.strip()
    text = raw if raw.startswith("{") else f"{{{raw}}}"
    try:
        return json.dumps(json.loads(text), sort_keys=True)
    except json.JSONDecodeError as error:
        raise errors.ConfigError(
            f"config of {metric_config.class_name} is not JSON: {error.msg} in "
            f"{metric_config.config!r}"
        ) from error


def _interpret_model(spec: Any) -> Model:
    return Model(
        name=spec.name,
        baseline=spec.is_baseline,
        signature=spec.signature_name,
        preprocessing=tuple(spec.preprocessing_function_names),
        labels=_read_columns(spec, "label"),
        predictions=_read_columns(spec, "prediction"),
        weights=_read_columns(spec, "example_weight"),
    )


def _read_columns(spec: Any, kind: str) -> tuple[tuple[str, str], ...]:
    single, by_output = getattr(spec, f"{kind}_key"), getattr(spec, f"{kind}_keys")
    if single and by_output:
        raise errors.ConfigError(
            f"model_specs {spec.name!r} has both {kind}_key and {kind}_keys; use "
            f"{kind}_key for one output, {kind}_keys for several"
        )
    return (("", single),) if single else tuple(sorted(by_output.items()))


def _check_models(models: Sequence[Model]) -> None:
    names = [model.name for model in models]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise errors.ConfigError(f"several model_specs have the name {repeated[0]!r}")
    if len(names) > 1 and "" in names:
        raise errors.ConfigError("if there are several model_specs, each needs a name")
    baselines = [model.name for model in models if model.baseline]
    if len(baselines) > 1:
        raise errors.ConfigError(
            f"{' and '.join(map(repr, baselines))} are both baselines; keep one"
        )


def _check_names(spec: Any, models: Sequence[Model], versions: Sequence[str]) -> None:
    names = [model.name for model in models]
    # TFMA's name of a single model is "".
    valid = names if len(names) > 1 else [*dict.fromkeys((*filter(None, names), *versions)), ""]
    for name in spec.model_names:
        if name not in valid:
            raise errors.ConfigError(
                f"metrics_specs has model_names {name!r}, but the models are "
                f"{errors.listed(filter(None, valid))}.{errors.did_you_mean(name, valid)}"
            )


def _interpret_slices(spec: Any) -> slices.Spec:
    if spec.slice_keys_sql:
        raise errors.ConfigError(
            "slicing_specs has slice_keys_sql, which TFMA itself cannot run, as "
            "tfx_bsl is shipped without SQL. Use feature_keys and feature_values, or a column that "
            "holds the slice"
        )
    both = sorted(set(spec.feature_keys) & set(spec.feature_values))
    if both:
        raise errors.ConfigError(
            f"slicing_specs has {both[0]!r} in both feature_keys and feature_values"
        )
    terms = [slices.Term(column) for column in set(spec.feature_keys)]
    terms += [slices.Term(column, value) for column, value in spec.feature_values.items()]
    return tuple(sorted(terms, key=lambda term: term.column))


def _interpret_comparisons(
    cross_specs: Iterable[Any], specs: Sequence[slices.Spec]
) -> tuple[SliceComparison, ...]:
    comparisons = [
        SliceComparison(
            _interpret_slices(cross_spec.baseline_spec),
            tuple(map(_interpret_slices, cross_spec.slicing_specs)),
        )
        for cross_spec in cross_specs
    ]
    for comparison in comparisons:
        for compared in (comparison.baseline, *comparison.compared):
            if not any(_includes(spec, compared) for spec in [(), *specs]):
                raise errors.ConfigError(
                    f"cross_slicing_specs has the slices {slices.describe(compared)!r}, which "
                    "slicing_specs does not: add them there"
                )
    return tuple(dict.fromkeys(comparisons))


def _includes(spec: slices.Spec, other: slices.Spec) -> bool:
    """Whether a spec has all slices of another one."""
    return len(spec) == len(other) and all(
        one.column == two.column and one.value in (None, two.value)
        for one, two in zip(spec, other, strict=True)
    )


def _check_outputs(options: Any) -> None:
    for name in options.disabled_outputs.values:
        if name not in _OUTPUTS:
            raise errors.ConfigError(
                f"options.disabled_outputs has {name!r}; valid outputs: "
                f"{errors.listed(_OUTPUTS)}.{errors.did_you_mean(name, _OUTPUTS)}"
            )


def _list_tfma_only(config: Any) -> Iterator[str]:
    options = config.options
    if options.include_default_metrics.value:
        yield "options.include_default_metrics (metrics compiled into tf_keras models)"
    for spec in config.model_specs:
        if spec.HasField("padding_options"):
            yield f"model_specs {spec.name!r}: padding_options"


def _interpret_metric(spec: Any, metric_config: Any, models: tuple[str, ...]) -> list[MetricSpec]:
    """A MetricSpec for each weighting, and for binarize and aggregate: separate metrics in TFMA."""
    base = MetricSpec(
        class_name=metric_config.class_name,
        config=normalize_config(metric_config),
        module="" if _is_default_module(metric_config) else metric_config.module,
        models=models,
        outputs=tuple(spec.output_names),
    )
    variants: list[MetricSpec] = []
    _check_ranks(base.class_name, spec)
    if any(_read_binarize(spec.binarize).values()):
        variants.append(replace(base, **_read_binarize(spec.binarize)))  # type: ignore[arg-type]
    if spec.HasField("aggregate"):
        variants.append(_aggregate(base, spec.aggregate))
    weightings: list[bool | None] = [None]
    if spec.HasField("example_weights"):
        weightings = [True] * spec.example_weights.weighted
        weightings += [False] * spec.example_weights.unweighted
        if not weightings:
            raise errors.ConfigError(
                f"metrics_specs of {metric_config.class_name} has example_weights with "
                "neither weighted nor unweighted, so TFMA would compute nothing. Set one or both"
            )
    return [
        replace(variant, weighted=weighted)
        for variant in variants or [base]
        for weighted in weightings
    ]


def _is_default_module(metric_config: Any) -> bool:
    """Whether the module, which TFMA writes into configs, is where TFMA looks by default."""
    package, _, rest = metric_config.module.partition(".")
    default = package in ("tf_keras", "tensorflow_model_analysis") and "metrics" in rest
    return default and metric_config.class_name in metrics.REGISTRY


def _read_binarize(binarize: Any) -> dict[str, tuple[int, ...]]:
    return {
        "class_ids": tuple(binarize.class_ids.values),
        "k_list": tuple(binarize.k_list.values),
        "top_k_list": tuple(binarize.top_k_list.values),
    }


def _check_ranks(class_name: str, spec: Any) -> None:
    for key, ranks in (
        ("binarize.k_list", spec.binarize.k_list.values),
        ("binarize.top_k_list", spec.binarize.top_k_list.values),
        ("aggregate.top_k_list", spec.aggregate.top_k_list.values),
    ):
        if wrong := [rank for rank in ranks if rank < 1]:
            raise errors.ConfigError(
                f"{key} of {class_name} has {wrong[0]}; its values must be at least 1, "
                "the largest score"
            )


def _aggregate(base: MetricSpec, aggregate: Any) -> MetricSpec:
    kind = aggregate.WhichOneof("type")
    if kind is None or not getattr(aggregate, kind):
        raise errors.ConfigError(
            f"aggregate of {base.class_name} sets none of micro_average, "
            "macro_average and weighted_macro_average"
        )
    top_k = tuple(aggregate.top_k_list.values)
    weights = tuple(sorted(aggregate.class_weights.items()))
    if top_k and weights:
        raise errors.ConfigError(
            f"aggregate of {base.class_name} has both class_weights and top_k_list; "
            "keep one, as TFMA supports only one of them"
        )
    if kind != "micro_average" and not (top_k or weights):
        raise errors.ConfigError(
            f"{kind} of {base.class_name} needs class_weights for the classes to "
            "average (a weight of 1 each counts them equally)"
        )
    return replace(
        base,
        aggregate=kind.removesuffix("_average"),
        aggregate_top_k=top_k,
        class_weights=weights,
    )


def _interpret_thresholds(metric_config: Any, metric_spec: MetricSpec) -> Iterator[Threshold]:
    name = metric_spec.arguments.get("name") or metric.snake_case(metric_spec.class_name)
    unbounded = Threshold(metric_spec, name, None)
    yield from _bound(unbounded, metric_config.threshold)
    yield from _bound_slices(unbounded, metric_config.per_slice_thresholds)


def _bound_slices(unbounded: Threshold, messages: Iterable[Any]) -> Iterator[Threshold]:
    for message in messages:
        if not message.slicing_specs:
            raise errors.ConfigError(
                f"per_slice_thresholds of {unbounded.name} has no slicing_specs; add "
                "some, or use threshold for all slices"
            )
        for spec in message.slicing_specs:
            sliced = replace(unbounded, slices=_interpret_slices(spec))
            yield from _bound(sliced, message.threshold)


def _bound(unbounded: Threshold, message: Any) -> Iterator[Threshold]:
    """The bounds of the value and of the change; a MetricThreshold may have both."""
    if message.HasField("value_threshold"):
        value = message.value_threshold
        yield replace(
            unbounded,
            lower=_read_number(value, "lower_bound"),
            upper=_read_number(value, "upper_bound"),
        )
    if message.HasField("change_threshold"):
        change = message.change_threshold
        if not change.direction:
            raise errors.ConfigError(
                f"change_threshold of {unbounded.name} needs a direction, "
                "HIGHER_IS_BETTER or LOWER_IS_BETTER"
            )
        yield replace(
            unbounded,
            absolute=_read_number(change, "absolute"),
            relative=_read_number(change, "relative"),
            higher_is_better=change.direction == protos.config_pb2.HIGHER_IS_BETTER,
        )


def _read_number(message: Any, field: str) -> float | None:
    return getattr(message, field).value if message.HasField(field) else None


def _add_models(
    config: Any,
    models: Sequence[str],
    heads: Sequence[labels.Head],
    baseline: str | None,
    weight: str | None,
) -> None:
    has_several = len(models) > 1
    for name in models:
        model = config.model_specs.add(
            name=name if has_several else "",
            is_baseline=has_several and name == baseline,
            example_weight_key=weight or "",
        )
        if len(heads) == 1:
            model.label_key = heads[0].column
        else:
            model.label_keys.update({head.output: head.column for head in heads})


def _name_models(config: Any, models: Sequence[str]) -> None:
    """Names the models of each metric as TFMA's defaults do."""
    for spec in config.metrics_specs:
        if len(models) == 1:
            spec.model_names[:] = [""]
        elif not spec.model_names:
            spec.model_names.extend(models)


def _complete(spec: MetricSpec, head: labels.Head) -> MetricSpec:
    """A metric of our own config with its classes as TFMA takes them: by id, and none left out."""
    if head.names:
        spec = spec.number_classes(head)
    spec = planning.complete(spec, head)
    is_of_all = spec.aggregate in ("macro", "weighted_macro") and not spec.class_ids
    if is_of_all and not spec.class_weights and not spec.aggregate_top_k:
        every = tuple((class_id, 1.0) for class_id in range(head.classes or 0))
        return replace(spec, class_weights=every)
    return spec


def _fill_settings(message: Any, settings: MetricSpec, outputs: Sequence[str]) -> None:
    message.model_names.extend(settings.models)
    message.output_names.extend(settings.outputs or outputs)
    for name in ("class_ids", "k_list", "top_k_list"):
        if values := getattr(settings, name):
            getattr(message.binarize, name).values.extend(values)
    if settings.aggregate:
        setattr(message.aggregate, f"{settings.aggregate}_average", True)
        if settings.aggregate_top_k:
            message.aggregate.top_k_list.values.extend(settings.aggregate_top_k)
        message.aggregate.class_weights.update(dict(settings.class_weights))
    if settings.weighted is not None:
        message.example_weights.weighted = settings.weighted
        message.example_weights.unweighted = not settings.weighted
