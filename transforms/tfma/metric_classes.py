"""Checks metric classes of TFMA, Keras and users: that they exist, and take their arguments."""

from __future__ import annotations

import difflib
import functools
import inspect
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from evalbeam.transforms import errors, metrics
from evalbeam.transforms.metrics import glossary, metric, statistics
from evalbeam.transforms.metrics.evaluation import MetricSpec
from evalbeam.transforms.models import callable, quiet
from evalbeam.transforms.tfma import catalog, protos

# Each slice and version has so many sums.
_MOST = 1_000_000


def check_metric(spec: MetricSpec) -> None:
    """Checks that a metric exists and takes its arguments; imports TFMA only if needed.

    Raises:
      ConfigError: the class is unknown, or does not take an argument; suggests similar names.
    """
    if not spec.module:
        catalog.refuse(spec.class_name)
    arguments = _parse_arguments(spec)
    _check_counts(spec.class_name, arguments)
    if not spec.module:
        reason = _find_reason(spec.class_name, arguments)
        if reason is None:
            return
        if spec.class_name in metrics.REGISTRY and spec.class_name not in _list_classes():
            raise errors.ConfigError(
                f"metrics: {spec.class_name} cannot be computed: {reason}. It is "
                f"{glossary.DEFINITIONS[spec.class_name]}"
            )
    metric_class = _import_class(spec) if spec.module else _find_class(spec.class_name)
    _check_arguments(spec, metric_class, arguments)


def _parse_arguments(spec: MetricSpec) -> Mapping[str, Any]:
    try:
        arguments = json.loads(spec.config)
    except json.JSONDecodeError as error:
        raise errors.ConfigError(
            f"Metric {spec.class_name}: config {spec.config!r} is not JSON: {error.msg}"
        ) from error
    if not isinstance(arguments, dict):
        raise errors.ConfigError(
            f"Metric {spec.class_name}: config must map arguments to values, not be {spec.config}"
        )
    return spec.arguments


def _check_counts(class_name: str, arguments: Mapping[str, Any]) -> None:
    """Raises ConfigError for numbers of thresholds, buckets or classes that nothing can hold."""
    for name, value in arguments.items():
        if name.startswith("num_") and isinstance(value, int | float) and value > _MOST:
            raise errors.ConfigError(
                f"metrics: {class_name} has {name} {value:,}, which would not fit into memory; at "
                f"most {_MOST:,}"
            )


def _find_reason(class_name: str, arguments: Mapping[str, Any]) -> str | None:
    """Why no columnar kernel takes these arguments; None if one does for at least one task."""
    reason = ""
    tasks = (("binary", None), ("regression", None), ("multiclass", 3), ("multilabel", 3))
    for task, classes in tasks:
        candidate = statistics.Target("candidate", "", task, classes)
        before = replace(candidate, model="baseline")
        request = metric.Request(class_name, arguments, candidate, baseline=before)
        try:
            metrics.build(request)
            return None
        except metric.NeedsTfma as error:
            # Of a task that it is for, rather than that it is for another one.
            if task in metrics.list_tasks(class_name):
                reason = str(error)
        except (TypeError, ValueError, AttributeError) as error:
            raise errors.ConfigError(
                f"Metric {class_name}: cannot take {json.dumps(dict(arguments))}: {error}"
            ) from error
    return reason


@functools.cache
def _list_classes() -> dict[str, type]:
    """TFMA's and Keras's metrics by class name; TFMA's take precedence, as in TFMA."""
    with quiet.starting_tensorflow():
        from tensorflow_model_analysis.metrics import metric_types
        from tensorflow_model_analysis.utils.keras_lib import tf_keras

    keras = {
        name: value
        for name, value in vars(tf_keras.metrics).items()
        if inspect.isclass(value) and issubclass(value, tf_keras.metrics.Metric)
    }
    classes: dict[str, type] = keras | metric_types.registered_metrics()
    return classes


def _find_class(class_name: str) -> type:
    if class_name in _list_classes():
        return _list_classes()[class_name]
    meant = glossary.find(class_name)  # in another spelling, which only our own config takes
    similar = [meant] if isinstance(meant, str) else list(dict.fromkeys((meant or {}).values()))
    similar = similar or difflib.get_close_matches(class_name, glossary.DEFINITIONS, n=3)
    hint = f" Did you mean {' or '.join(similar)}?" if similar else ""
    raise errors.ConfigError(
        f"Unknown metric {class_name!r}.{hint} `evalbeam metrics` lists all. For your own class, "
        "add its Python module: `module: my_package.my_metrics` (Keras losses are in "
        "`module: tf_keras.losses`)"
    )


def _import_class(spec: MetricSpec) -> type:
    with quiet.starting_tensorflow():
        from tensorflow_model_analysis.metrics import metric_types
        from tensorflow_model_analysis.utils.keras_lib import tf_keras

    if metric_types.is_registered_metric(spec.class_name):
        tfma_class = metric_types.registered_metrics()[spec.class_name]
        if tfma_class.__module__ != spec.module:
            raise errors.ConfigError(
                f"Metric {spec.class_name} of module {spec.module!r}: TFMA has a metric of that "
                "name and would silently use its own. Rename your class"
            )
    try:
        module = callable.import_module(spec.module)
    except ImportError as error:
        raise errors.ConfigError(
            f"Metric {spec.class_name}: module {spec.module!r} cannot be imported: {error}. "
            "Put it into the working folder, install it, or add its folder to PYTHONPATH, here and "
            "on the workers"
        ) from error
    metric_class = getattr(module, spec.class_name, None)
    bases = (metric_types.Metric, tf_keras.metrics.Metric, tf_keras.losses.Loss)
    if inspect.isclass(metric_class) and issubclass(metric_class, bases):
        return metric_class
    similar = difflib.get_close_matches(spec.class_name, vars(module), n=1)
    raise errors.ConfigError(
        f"Metric {spec.class_name}: module {spec.module!r} has no such subclass of TFMA's Metric "
        "or of tf_keras's Metric or Loss." + (f" Did you mean {similar[0]}?" if similar else "")
    )


def _check_arguments(spec: MetricSpec, metric_class: type, arguments: Mapping[str, Any]) -> None:
    from tensorflow_model_analysis.metrics import metric_specs

    # TFMA forwards unknown arguments and ignores some of them: Precision with "treshold" would be
    # Precision at 0.5. A user's own class may use them.
    parameters = _list_parameters(metric_class)
    for name in arguments:
        if name not in parameters and not spec.module:
            hint = errors.did_you_mean(name, parameters)
            raise errors.ConfigError(
                f"Metric {spec.class_name} has no argument {name!r}; it takes "
                f"{', '.join(parameters)}.{hint}"
            )
    missing = [name for name in _list_required(metric_class) if name not in arguments]
    if missing:
        written = ", ".join(f"{name}: ..." for name in missing)
        raise errors.ConfigError(
            f"Metric {spec.class_name} needs {errors.listed(missing)}: write "
            f"`config: {{{written}}}`"
        )
    try:
        metric_specs.metric_instance(
            protos.config_pb2.MetricConfig(
                class_name=spec.class_name, module=spec.module, config=spec.config
            )
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise errors.ConfigError(
            f"Metric {spec.class_name} cannot be created with {spec.config}: {error}"
        ) from error


def _list_required(metric_class: type) -> list[str]:
    """The parameters of a class that have no default."""
    parameters = list(inspect.signature(metric_class.__init__).parameters.values())[1:]  # type: ignore[misc]
    return [
        parameter.name
        for parameter in parameters
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        and parameter.default is parameter.empty
    ]


def _list_parameters(metric_class: type) -> tuple[str, ...]:
    """The parameters of a class and, if it forwards arguments, of its bases."""
    names: dict[str, None] = {}
    for base in metric_class.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(base.__init__).parameters.values()  # type: ignore[misc]
        names.update(dict.fromkeys(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD))
        if all(p.kind is not p.VAR_KEYWORD for p in parameters):
            break
    return tuple(name for name in names if name not in ("self", "create_computations_fn"))
