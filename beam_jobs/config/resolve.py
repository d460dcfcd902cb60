"""What a config and the EvalConfig that it may name ask for together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from evalbeam.beam_jobs import config
from evalbeam.transforms import errors
from evalbeam.transforms.examples import slices
from evalbeam.transforms.metrics import plan
from evalbeam.transforms.tfma import eval_config


@dataclass(frozen=True)
class Asked:
    """What the config and its EvalConfig, if it has one, ask for together.

    Attributes:
      settings: the config, with the columns and the baseline that only the EvalConfig names.
      specs: the slices, overall first.
      metrics: None for the usual ones of the task.
      tfma_metrics: serialised MetricsSpecs that only TFMA computes.
      given: the EvalConfig.
      min_slice_size: as in the EvalConfig.
      notes: what is not done with it.
    """

    settings: config.Config
    specs: tuple[slices.Spec, ...]
    metrics: tuple[plan.MetricSpec, ...] | None
    tfma_metrics: tuple[bytes, ...] = ()
    given: Any = None
    min_slice_size: int = 1
    notes: tuple[str, ...] = ()


def asked(settings: config.Config, engine: str) -> Asked:
    """What the config asks for, with its EvalConfig read and merged into it.

    Raises:
      ConfigError: an EvalConfig that cannot be read, or contradicts the config.
    """
    if settings.eval_config is None:
        entries = settings.metrics
        return Asked(
            settings,
            settings.slicing_specs(),
            None if entries is None else tuple(entry.spec() for entry in entries),
        )
    given = eval_config.read_eval_config(settings.eval_config)
    evaluation = eval_config.evaluation(given)
    if evaluation.tfma_only and engine != "tfma":
        raise errors.ConfigError(
            f"{settings.eval_config}: only `--engine tfma` does this: "
            + "; ".join(evaluation.tfma_only)
        )
    notes = []
    if evaluation.thresholds:
        notes.append("the EvalConfig's thresholds are not checked by this version of evalbeam")
    if evaluation.intervals:
        notes.append("confidence intervals are not computed by this version of evalbeam")
    return Asked(
        _merged(settings, evaluation),
        tuple(dict.fromkeys(((), *evaluation.slices))),
        evaluation.metrics,
        evaluation.tfma_metrics,
        given,
        evaluation.min_slice_size,
        tuple(notes),
    )


def _merged(settings: config.Config, evaluation: eval_config.Evaluation) -> config.Config:
    """The config, where it is silent with what the EvalConfig's model_specs say."""
    by_name = {spec.name: spec for spec in evaluation.models}
    names = [model.name for model in settings.models]
    if len(by_name) > 1 and set(by_name) != set(names):
        raise errors.ConfigError(
            f"{settings.eval_config}: its model_specs are {errors.listed(sorted(by_name))}, "
            f"and the config's models {errors.listed(names)}: give them the same names"
        )
    specs = [by_name.get(name) or next(iter(by_name.values()), None) for name in names]
    label, weight = settings.data.label, settings.data.weight
    labelled = {spec.labels for spec in specs if spec is not None and spec.labels}
    weighted = {spec.weights for spec in specs if spec is not None and spec.weights}
    for what, found in (("label", labelled), ("weight", weighted)):
        if len(found) > 1:
            raise errors.ConfigError(
                f"{settings.eval_config}: its model_specs name different {what} columns; versions "
                "are compared on the same ones"
            )
    if labelled:
        (named,) = labelled
        theirs = named[0][1] if named[0][0] == "" else dict(named)
        if label not in (None, theirs):
            raise errors.ConfigError(
                f"data.label is {label!r}, but {settings.eval_config} says {theirs!r}: drop one"
            )
        label = theirs
    if weight is None and weighted:
        weight = next(iter(weighted))[0][1]
    if label is None:
        raise errors.ConfigError(
            f"neither data.label nor {settings.eval_config} (model_specs.label_key) names the "
            "label's column"
        )
    any_baseline = any(model.baseline for model in settings.models)
    versions = [
        model.model_copy(
            update={
                "baseline": model.baseline
                or (not any_baseline and model.name in by_name and by_name[model.name].baseline),
                "signature": spec.signature
                if spec is not None and spec.signature and model.path
                else model.signature,
            }
        )
        for model, spec in zip(settings.models, specs, strict=True)
    ]
    data = settings.data.model_copy(update={"label": label, "weight": weight})
    return settings.model_copy(update={"data": data, "models": versions})
