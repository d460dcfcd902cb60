"""From an evaluation to what is added up and finished: columnar kernels where we have them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from evalbeam.transforms import errors, metrics
from evalbeam.transforms.examples import labels
from evalbeam.transforms.metrics import metric, statistics
from evalbeam.transforms.metrics.evaluation import Evaluation, MetricSpec
from evalbeam.transforms.metrics.sheet import Sheet

# The metric of a conversion that every run has.
CHANGED = "changed_decisions"


@dataclass(frozen=True)
class ByTfma:
    """A configured metric that TFMA's own combiners compute, and the reason why."""

    spec: MetricSpec
    reason: str


@dataclass(frozen=True)
class KeptConfusions:
    """Confusion counts that every run keeps: of an output, or of a label of a multi-label one."""

    target: statistics.Target
    statistic: statistics.Confusion | statistics.ClassMatrix


@dataclass(frozen=True)
class Conversion:
    """What is kept of a conversion's output; `decisions` is None for regression.

    Attributes:
      original, converted: the versions.
      head: the output.
      decisions: how the two decide.
      differences: how far apart their scores are.
    """

    original: str
    converted: str
    head: labels.Head
    decisions: statistics.Decisions | None
    differences: statistics.ScoreDifferences


@dataclass(frozen=True)
class Plan:
    """What a run adds up and finishes.

    Attributes:
      metrics: columnar metrics, in the order configured.
      by_tfma: the metrics that TFMA's own combiners compute.
      renamed: by a metric's name in the config, the one that its class gives.
      confusions: the confusion counts that every run keeps.
      flips: how each version's decisions join the baseline's.
      conversions: what is kept of each conversion.
      statistics: all that these need, each once.
    """

    metrics: tuple[metric.Metric, ...]
    by_tfma: tuple[ByTfma, ...]
    renamed: Mapping[str, str]
    confusions: tuple[KeptConfusions, ...]
    flips: tuple[statistics.Flips, ...]
    conversions: tuple[Conversion, ...]
    statistics: tuple[statistics.Statistic, ...]

    @property
    def has_plots(self) -> bool:
        """Whether some metric is a plot."""
        return any(planned.plot for planned in self.metrics)

    def own_name(self, name: str) -> str:
        """What a result is called where the config does not name it."""
        return self.renamed.get(name, name)

    def direction(self, name: str) -> int:
        """1 for a result whose higher values are better, -1 for lower, 0 for neither."""
        return metrics.direction(self.own_name(name))


def report_hidden(one: MetricSpec, other: MetricSpec, name: str) -> errors.ConfigError:
    """The error for two metrics whose results have one name."""
    return errors.ConfigError(
        f"metrics: {one} and {other} are both named {name!r}, so that one would hide the other; "
        "name one: `config: {name: ...}`"
    )


# What tells results of one name apart, beside their sums.
_VALUED_BY = ("arguments", "class_weights", "zero_division")


@functools.lru_cache(maxsize=16)
def plan(evaluation: Evaluation) -> Plan:
    """Plans the metrics of all versions and outputs; the same of equal evaluations, anywhere.

    Besides what the metrics need, every run keeps the confusion counts (at its thresholds, or by
    class), and how each version's decisions join the baseline's; of each conversion, the changed
    decisions and score differences.

    Raises:
      ConfigError: two metrics whose results have one name.
    """
    renamed = _renamed(evaluation.metrics)
    built: dict[metric.Key, metric.Metric] = {}
    origins: dict[metric.Key, MetricSpec] = {}
    by_tfma = []
    for spec in evaluation.metrics:
        try:
            planned = _columnar(evaluation, spec)
        except metric.NeedsTfma as reason:
            by_tfma.append(ByTfma(spec, str(reason)))
            continue
        for part in planned:
            before = origins.setdefault(part.key, spec)
            same = built.setdefault(part.key, part).statistics == part.statistics
            if not same or any(getattr(before, n) != getattr(spec, n) for n in _VALUED_BY):
                raise report_hidden(before, spec, part.key.metric)
    conversions = tuple(_conversions(evaluation))
    for conversion in conversions:
        if conversion.decisions is not None:
            changed = _changed(conversion.decisions)
            built[changed.key] = changed
    confusions = tuple(_confusions(evaluation))
    flips = tuple(_flips(evaluation))
    needed = [
        statistics.Examples(evaluation.weighted),
        *(kept.statistic for kept in confusions),
        *(
            statistics.ClassCounts(kept.target)
            for kept in confusions
            if kept.target.task == "multiclass"
        ),
        *flips,
        *(statistic for planned in built.values() for statistic in planned.statistics),
        *(c.decisions for c in conversions if c.decisions is not None),
        *(conversion.differences for conversion in conversions),
    ]
    # The first of a name: the run's own count of examples has the cells of all others.
    kept: dict[str, statistics.Statistic] = {}
    for statistic in needed:
        kept.setdefault(statistic.name, statistic)
    return Plan(
        metrics=tuple(built.values()),
        by_tfma=tuple(by_tfma),
        renamed=renamed,
        confusions=confusions,
        flips=flips,
        conversions=conversions,
        statistics=tuple(kept.values()),
    )


def _renamed(specs: Sequence[MetricSpec]) -> dict[str, str]:
    """By name, what the class of a metric that is named in the config calls it itself.

    A name is one class's, whatever output it is for: readers know a result by it.
    """
    first: dict[str, MetricSpec] = {}
    for spec in specs:
        name = spec.arguments.get("name", metric.snake_case(spec.class_name))
        if not isinstance(name, str):
            raise errors.ConfigError(
                f"metrics: the name of {spec.class_name} is not text: {name!r}"
            )
        if name == CHANGED:
            raise errors.ConfigError(f"metrics: {name!r} is evalbeam's own name; choose another")
        if first.setdefault(name, spec).class_name != spec.class_name:
            raise errors.ConfigError(
                f"metrics: {first[name].class_name} and {spec.class_name} are both named {name!r}, "
                "so that one would be taken for the other; name one: `config: {name: ...}`"
            )
    return {
        name: metric.snake_case(spec.class_name)
        for name, spec in first.items()
        if "name" in spec.arguments
    }


def _changed(decided: statistics.Decisions) -> metric.Metric:
    """The share of examples (multi-label: of examples' labels) that are decided otherwise."""

    def finish(sheet: Sheet) -> metric.Values:
        joint = decided.joint(sheet.total(decided))
        same = np.trace(joint, axis1=2, axis2=3).sum(axis=1)
        whole = joint.sum(axis=(1, 2, 3))
        return metric.Values(metric.ratio(whole - same, whole))

    target = decided.converted
    key = metric.Key(CHANGED, target.model, target.output, baseline=decided.original.model)
    return metric.Metric(key, (decided,), finish)


def _confusions(evaluation: Evaluation) -> Iterator[KeptConfusions]:
    thresholds = tuple(sorted(set(evaluation.thresholds)))
    for head in evaluation.heads:
        for model in evaluation.models:
            target = _target(evaluation, model, head)
            if head.task == "multiclass":
                yield KeptConfusions(target, statistics.ClassMatrix(target))
            elif head.task == "binary":
                yield KeptConfusions(target, statistics.Confusion(target, thresholds))
            elif head.task == "multilabel":
                for class_id in range(head.classes or 0):
                    label = replace(target, class_id=class_id)
                    yield KeptConfusions(label, statistics.Confusion(label, thresholds))


def _flips(evaluation: Evaluation) -> Iterator[statistics.Flips]:
    if evaluation.baseline is None:
        return
    for head in evaluation.heads:
        if head.task not in ("binary", "multiclass"):
            continue
        before = _target(evaluation, evaluation.baseline, head)
        for model in evaluation.models:
            if model == evaluation.baseline:
                continue
            # The largest score decides for a class, whatever the thresholds.
            thresholds = (0.5,) if head.task == "multiclass" else evaluation.thresholds
            for threshold in thresholds:
                yield statistics.Flips(before, replace(before, model=model), threshold)


def _conversions(evaluation: Evaluation) -> Iterator[Conversion]:
    threshold = evaluation.decision_threshold
    for original, converted in evaluation.conversions:
        for head in evaluation.heads:
            before = statistics.Target(original, head.output, head.task, head.classes)
            targets = before, replace(before, model=converted)
            yield Conversion(
                original,
                converted,
                head,
                None if head.task == "regression" else statistics.Decisions(*targets, threshold),
                statistics.ScoreDifferences(*targets),
            )


def _target(evaluation: Evaluation, model: str, head: labels.Head) -> statistics.Target:
    return statistics.Target(
        model, head.output, head.task, head.classes, weighted=evaluation.weighted
    )


def _columnar(evaluation: Evaluation, spec: MetricSpec) -> list[metric.Metric]:
    """The spec's metrics of all versions and outputs; NeedsTfma if a part of it needs TFMA."""
    if evaluation.engine == "tfma":
        raise metric.NeedsTfma("--engine tfma")
    if spec.module:
        raise metric.NeedsTfma(f"a class of the module {spec.module}")
    planned: list[metric.Metric] = []
    for model in spec.models or evaluation.models:
        for head in evaluation.heads:
            if not spec.is_for(head.output):
                continue
            target = _target(evaluation, model, head)
            if spec.weighted is False:
                target = replace(target, weighted=False)
            compared = evaluation.baseline not in (None, model)
            before = replace(target, model=str(evaluation.baseline)) if compared else None
            completed = complete(_numbered(spec, head), head)
            if is_by_class(completed, head):
                planned += metrics.build(_request_by_class(completed, target, before))
                continue
            for request in _requests(completed, target, before):
                planned += metrics.build(request)
            if completed.aggregate in ("macro", "weighted_macro"):
                planned.append(_averaged(completed, target))
    return planned


def is_by_class(spec: MetricSpec, head: labels.Head) -> bool:
    """Whether the largest score decides: for our own config, unless it says otherwise."""
    kind = metrics.REGISTRY.get(spec.class_name)
    decides = {"threshold", "thresholds", "class_id", "top_k"} & spec.arguments.keys()
    is_plain = not (spec.is_binarized or spec.aggregate_top_k or decides)
    return spec.native and is_plain and head.task == "multiclass" and bool(kind and kind.by_class)


def _request_by_class(
    spec: MetricSpec, target: statistics.Target, before: statistics.Target | None
) -> metric.Request:
    return metric.Request(
        class_name=spec.class_name,
        config=spec.arguments,
        target=target,
        aggregation=spec.aggregate,
        baseline=before,
        by_class=True,
        zero_division=spec.zero_division,
        class_weights=spec.class_weights,
    )


def _numbered(spec: MetricSpec, head: labels.Head) -> MetricSpec:
    """The metric with an output's classes by id, if any of them is given by its name."""
    values = (*spec.class_ids, *(value for value, _ in spec.class_weights))
    return spec.number_classes(head) if any(isinstance(v, str) for v in values) else spec


def complete(spec: MetricSpec, head: labels.Head) -> MetricSpec:
    """The metric with the way it treats several classes, if the config does not say it.

    TFMA takes the scores of all classes together as if they were of one, which it does not show.
    """
    is_whole = not (spec.is_binarized or spec.aggregate)
    is_whole = is_whole and not {"class_id", "top_k"} & spec.arguments.keys()
    several = head.task in metric.SEVERAL_CLASSES
    if spec.native and is_whole and several and spec.class_name in _ONE_VERSUS_REST:
        return replace(spec, aggregate="macro")
    return spec


# Metrics that are the mean over classes, each against all others, as in scikit-learn.
_ONE_VERSUS_REST = ("AUC", "AUCPrecisionRecall")


def _requests(
    spec: MetricSpec, target: statistics.Target, before: statistics.Target | None
) -> Iterator[metric.Request]:
    """One request for each way the spec makes the target binary, and for the micro average."""
    config = spec.arguments
    binary: list[dict[str, int]] = [
        *({"class_id": value} for value in spec.class_ids),
        *({"k": value} for value in spec.k_list),
        *({"top_k": value} for value in spec.top_k_list),
    ]
    for marks in binary:
        baseline = replace(before, **marks) if before else None  # type: ignore[arg-type]
        yield metric.Request(spec.class_name, config, replace(target, **marks), "", baseline)  # type: ignore[arg-type]
    if spec.aggregate == "micro":
        for top_k in spec.aggregate_top_k or (None,):
            whole = replace(
                target,
                top_k=top_k,
                truncate=top_k is not None,
                class_weights=spec.class_weights,
            )
            yield metric.Request(spec.class_name, config, whole, "micro", before)
    elif not binary and not spec.aggregate:
        yield metric.Request(
            spec.class_name, config, target, "", before, zero_division=spec.zero_division
        )


def _averaged(spec: MetricSpec, target: statistics.Target) -> metric.Metric:
    """The macro average over classes."""
    # The weights name the classes, as TFMA has it; `class_ids` are what is reported by itself.
    classes = (
        tuple(class_id for class_id, _ in spec.class_weights)
        or spec.class_ids
        or tuple(range(target.classes or 0))
    )
    if spec.aggregate_top_k or not classes:
        raise metric.NeedsTfma(f"its {spec.aggregate} average is not over classes")
    parts = []
    for class_id in classes:
        request = metric.Request(
            spec.class_name, spec.arguments, replace(target, class_id=class_id)
        )
        planned = metrics.build(request)
        if len(planned) != 1:
            raise metric.NeedsTfma(f"its {spec.aggregate} average is of several results")
        parts.append(planned[0])
    weights = np.array([weight for _, weight in spec.class_weights] or [1.0] * len(classes))
    labels_of = (
        [statistics.Moment(replace(target, class_id=class_id), "label") for class_id in classes]
        if spec.aggregate == "weighted_macro"
        else []
    )
    key = replace(parts[0].key, class_id=None, aggregation=spec.aggregate)
    needed = tuple(statistic for part in parts for statistic in part.statistics)
    return metric.Metric(
        key,
        (*needed, *labels_of),
        _average([part.finish for part in parts], weights, labels_of, spec.zero_division),
    )


def _average(
    finishes: Sequence[Callable[[Sheet], metric.Result]],
    weights: np.ndarray,
    labels_of: Sequence[statistics.Moment],
    zero_division: metric.ZeroDivision,
) -> Callable[[Sheet], metric.Values]:
    def finish(sheet: Sheet) -> metric.Values:
        parts = []
        for one in finishes:
            result = one(sheet)
            assert isinstance(result, metric.Values)
            parts.append(result)
        values = np.stack([part.values for part in parts], axis=1)
        shares = weights
        if labels_of:
            shares = shares * np.concatenate([sheet.total(each) for each in labels_of], axis=1)
        averages, counted = metric.average(values, shares, zero_division)
        return replace(parts[0], values=averages, classes=counted)

    return finish
