"""From configured metrics to what is added up and finished: columnar kernels where we have them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from evalbeam.transforms import errors, metrics
from evalbeam.transforms.examples import labels
from evalbeam.transforms.metrics import metric, statistics

# The metric of a conversion that every run has.
CHANGED = "changed_decisions"


@dataclass(frozen=True)
class MetricSpec:
    """A configured metric, as TFMA's MetricsSpec has it with one MetricConfig.

    Attributes:
      class_name: TFMA's or Keras's class, or a class of `module`.
      config: the class's arguments, as JSON.
      module: where a user's own class lives; "" for TFMA's and Keras's.
      models: the versions it is for; () for all.
      outputs: the outputs it is for; () for all.
      class_ids, k_list, top_k_list: how a multi-class output is made binary (TFMA's `binarize`).
      aggregate: "", "micro", "macro" or "weighted_macro".
      aggregate_top_k: TFMA's `aggregate.top_k_list`.
      class_weights: (class, weight) pairs for the aggregate.
      weighted: whether example weights count; None: they do where there are any.
      native: it stands in our own config, where a multi-class confusion metric is by class.
    """

    class_name: str
    config: str = "{}"
    module: str = ""
    models: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    class_ids: tuple[int, ...] = ()
    k_list: tuple[int, ...] = ()
    top_k_list: tuple[int, ...] = ()
    aggregate: str = ""
    aggregate_top_k: tuple[int, ...] = ()
    class_weights: tuple[tuple[int, float], ...] = ()
    weighted: bool | None = None
    native: bool = False

    def is_for(self, output: str) -> bool:
        """Whether it is computed of the output."""
        return not self.outputs or output in self.outputs

    @property
    def arguments(self) -> dict[str, Any]:
        """The class's arguments; null, which TFMA writes for some, is the default."""
        given: dict[str, Any] = json.loads(self.config)
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class Plan:
    """What a run adds up and finishes.

    Attributes:
      metrics: columnar metrics, in the order configured.
      statistics: what they need, and what every run keeps, each once.
      others: the metrics that TFMA's own combiners compute.
      renamed: by a metric's name in the config, the one that its class gives.
    """

    metrics: tuple[metric.Metric, ...]
    statistics: tuple[statistics.Statistic, ...]
    others: tuple[MetricSpec, ...]
    renamed: Mapping[str, str]

    def own_name(self, name: str) -> str:
        """What a result is called where the config does not name it."""
        return self.renamed.get(name, name)

    def direction(self, name: str) -> int:
        """1 for a result whose higher values are better, -1 for lower, 0 for neither."""
        return metrics.direction(self.own_name(name))


def plan(
    specs: Sequence[MetricSpec],
    models: Sequence[str],
    heads: Sequence[labels.Head],
    baseline: str | None,
    weighted: bool,
    thresholds: Sequence[float],
    conversions: Sequence[tuple[str, str]] = (),
    columnar: bool = True,
) -> Plan:
    """Plans the metrics of all versions and outputs; if not `columnar`, TFMA computes them all.

    Beside what the metrics need, every run keeps the confusion counts (at `thresholds`, or by
    class), and how each version's decisions join the baseline's. For `conversions`, pairs of an
    original and what was made of it, there are the changed decisions and score differences.

    Raises:
      ConfigError: two metrics whose results have one name.
    """
    renamed = _renamed(specs)
    built: dict[metric.Key, metric.Metric] = {}
    origins: dict[metric.Key, MetricSpec] = {}
    others = []
    for spec in specs:
        found = _columnar(spec, models, heads, baseline, weighted) if columnar else None
        if found is None:
            others.append(spec)
            continue
        for one in found:
            before = origins.setdefault(one.key, spec)
            if (before.class_name, before.arguments) != (spec.class_name, spec.arguments):
                raise errors.ConfigError(
                    f"metrics: {before.class_name} {before.config} and {spec.class_name} "
                    f"{spec.config} are both named {one.key.metric!r}, so that one would hide the "
                    "other; name one: `config: {name: ...}`"
                )
            built.setdefault(one.key, one)
    converted: list[statistics.Statistic] = []
    for original, copy in conversions:
        for head in heads:
            decided = decisions(original, copy, head, thresholds)
            if decided is not None:
                one = _changed(decided)
                built[one.key] = one
            converted.append(differences(original, copy, head))
    kept: dict[str, statistics.Statistic] = {}
    for statistic in [
        statistics.Examples(weighted),
        *_always(models, heads, baseline, weighted, thresholds),
        *(statistic for one in built.values() for statistic in one.statistics),
        *converted,
    ]:
        kept.setdefault(statistic.name, statistic)
    return Plan(tuple(built.values()), tuple(kept.values()), tuple(others), renamed)


def _renamed(specs: Sequence[MetricSpec]) -> dict[str, str]:
    """By name, what the class of a metric that is named in the config calls it itself.

    A name is one class's, whatever output it is for: readers know a result by it.
    """
    first: dict[str, MetricSpec] = {}
    for spec in specs:
        name = spec.arguments.get("name", metric.snake_case(spec.class_name))
        if not isinstance(name, str):
            raise errors.ConfigError(f"metrics: the name of {spec.class_name} is no text: {name!r}")
        if name == CHANGED:
            raise errors.ConfigError(f"metrics: {name!r} is evalbeam's own; name it otherwise")
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


def confusion_statistic(
    target: statistics.Target, thresholds: Sequence[float]
) -> statistics.Confusion | statistics.ClassMatrix | None:
    """The confusion counts that every run keeps of a target; None for regression."""
    if target.task == "multiclass":
        return statistics.ClassMatrix(target)
    if target.task in ("binary", "multilabel"):
        return statistics.Confusion(target, tuple(sorted(set(thresholds))))
    return None


def decisions(
    original: str, converted: str, head: labels.Head, thresholds: Sequence[float]
) -> statistics.Decisions | None:
    """What is kept of how a conversion decides; None for regression, which decides nothing."""
    if head.task == "regression":
        return None
    # Several thresholds are for metrics; a version in use has one.
    at = 0.5 if 0.5 in thresholds else thresholds[0]
    return statistics.Decisions(*_pair(original, converted, head), at)


def differences(original: str, converted: str, head: labels.Head) -> statistics.ScoreDifferences:
    """What is kept of how far a conversion's scores are from the original's."""
    return statistics.ScoreDifferences(*_pair(original, converted, head))


def _pair(
    original: str, converted: str, head: labels.Head
) -> tuple[statistics.Target, statistics.Target]:
    one = statistics.Target(original, head.output, head.task, head.classes)
    return one, replace(one, model=converted)


def _changed(decided: statistics.Decisions) -> metric.Metric:
    """The share of examples (multi-label: of examples' labels) that are decided otherwise."""

    def finish(sheet: statistics.Sheet) -> metric.Values:
        joint = decided.joint(sheet.total(decided))
        same = np.trace(joint, axis1=2, axis2=3).sum(axis=1)
        whole = joint.sum(axis=(1, 2, 3))
        return metric.Values(metric.ratio(whole - same, whole))

    target = decided.converted
    key = metric.Key(CHANGED, target.model, target.output, baseline=decided.original.model)
    return metric.Metric(key, (decided,), finish)


def targets(model: str, head: labels.Head, weighted: bool) -> tuple[statistics.Target, ...]:
    """What confusion counts are kept of: the output, or each label of a multi-label one."""
    whole = statistics.Target(model, head.output, head.task, head.classes, weighted=weighted)
    if head.task == "multilabel":
        return tuple(replace(whole, class_id=c) for c in range(head.classes or 0))
    return (whole,)


def _always(
    models: Sequence[str],
    heads: Sequence[labels.Head],
    baseline: str | None,
    weighted: bool,
    thresholds: Sequence[float],
) -> Iterator[statistics.Statistic]:
    for head in heads:
        for model in models:
            for target in targets(model, head, weighted):
                statistic = confusion_statistic(target, thresholds)
                if statistic is None:
                    continue
                yield statistic
                if target.task == "multiclass":
                    yield statistics.ClassCounts(target)
                if baseline is not None and model != baseline and target.class_id is None:
                    before = replace(target, model=baseline)
                    decisions = (0.5,) if target.task == "multiclass" else thresholds
                    for threshold in decisions:
                        yield statistics.Flips(before, target, threshold)


def _columnar(
    spec: MetricSpec,
    models: Sequence[str],
    heads: Sequence[labels.Head],
    baseline: str | None,
    weighted: bool,
) -> list[metric.Metric] | None:
    """The spec's metrics for all versions and outputs; None if a part of it needs TFMA."""
    if spec.module:
        return None
    found: list[metric.Metric] = []
    for model in spec.models or models:
        for head in heads:
            if not spec.is_for(head.output):
                continue
            target = statistics.Target(
                model,
                head.output,
                head.task,
                head.classes,
                weighted=weighted and spec.weighted is not False,
            )
            before = replace(target, model=baseline) if baseline not in (None, model) else None
            for request in _requests(spec, target, before):
                one = metrics.build(request)
                if one is None:
                    return None
                found.extend(one)
            if spec.aggregate in ("macro", "weighted_macro"):
                averaged = _averaged(spec, target)
                if averaged is None:
                    return None
                found.append(averaged)
    return found


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
        by_class = spec.native and target.task == "multiclass"
        yield metric.Request(spec.class_name, config, target, "", before, by_class)


def _averaged(spec: MetricSpec, target: statistics.Target) -> metric.Metric | None:
    """The macro average over classes; None where TFMA has to do it."""
    # The weights name the classes, as TFMA has it; `class_ids` are what is reported by itself.
    classes = tuple(class_id for class_id, _ in spec.class_weights) or spec.class_ids
    if spec.aggregate_top_k or not classes:
        return None
    parts = []
    for class_id in classes:
        request = metric.Request(
            spec.class_name, spec.arguments, replace(target, class_id=class_id)
        )
        one = metrics.build(request)
        if one is None or len(one) != 1:
            return None
        parts.append(one[0])
    weights = np.array([weight for _, weight in spec.class_weights] or [1.0] * len(classes))
    counts = statistics.ClassCounts(target)
    by_label = spec.aggregate == "weighted_macro"
    if by_label and target.task != "multiclass":
        return None
    key = replace(parts[0].key, class_id=None, aggregation=spec.aggregate)
    needed = tuple(statistic for part in parts for statistic in part.statistics)
    return metric.Metric(
        key,
        (*needed, counts) if by_label else needed,
        _average([part.finish for part in parts], classes, weights, counts if by_label else None),
    )


def _average(
    finishes: Sequence[Callable[[statistics.Sheet], metric.Result]],
    classes: Sequence[int],
    weights: np.ndarray,
    counts: statistics.ClassCounts | None,
) -> Callable[[statistics.Sheet], metric.Values]:
    def finish(sheet: statistics.Sheet) -> metric.Values:
        columns = []
        for one in finishes:
            result = one(sheet)
            assert isinstance(result, metric.Values)
            columns.append(result.values)
        values = np.stack(columns, axis=1)
        shares = np.broadcast_to(weights, values.shape)
        if counts is not None:
            shares = shares * sheet.total(counts)[:, 2::3][:, list(classes)]
        return metric.Values(metric.ratio((values * shares).sum(axis=1), shares.sum(axis=1)))

    return finish
