"""The metric classes of TFMA and Keras: which exist, and which arguments they take."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from evalbeam.transforms import errors, metrics
from evalbeam.transforms.metrics import metric, plan, statistics
from evalbeam.transforms.models import quiet
from evalbeam.transforms.tfma import protos


def check_metric(spec: plan.MetricSpec) -> None:
    """Checks that a metric exists and takes its arguments; imports TFMA only where it has to.

    Raises:
      ConfigError: an unknown class, with the nearest known ones, or an argument it does not take.
    """
    arguments = _arguments(spec)
    if not spec.module and _is_columnar(spec.class_name, arguments):
        return
    found = _module_class(spec) if spec.module else _known_class(spec.class_name)
    _check_arguments(spec, found, arguments)


def _arguments(spec: plan.MetricSpec) -> Mapping[str, Any]:
    try:
        given = json.loads(spec.config)
    except json.JSONDecodeError as error:
        raise errors.ConfigError(
            f"Metric {spec.class_name}: config {spec.config!r} is not JSON: {error.msg}"
        ) from error
    if not isinstance(given, dict):
        raise errors.ConfigError(
            f"Metric {spec.class_name}: config is {spec.config}; it must map arguments to values"
        )
    return spec.arguments


def _is_columnar(class_name: str, arguments: Mapping[str, Any]) -> bool:
    """Whether a kernel takes these arguments, at least for one task."""
    tasks = (("binary", None), ("regression", None), ("multiclass", 3), ("multilabel", 3))
    for task, classes in tasks:
        candidate = statistics.Target("candidate", "", task, classes)
        before = replace(candidate, model="baseline")
        request = metric.Request(class_name, arguments, candidate, baseline=before)
        try:
            if metrics.build(request) is not None:
                return True
        except (TypeError, ValueError, AttributeError) as error:
            raise errors.ConfigError(
                f"Metric {class_name}: cannot take {json.dumps(dict(arguments))}: {error}"
            ) from error
    return False


@functools.cache
def _classes() -> dict[str, type]:
    """TFMA's and Keras's metrics by class name; TFMA's go first, as they do in TFMA."""
    with quiet.starting_tensorflow():
        from tensorflow_model_analysis.metrics import metric_types
        from tensorflow_model_analysis.utils.keras_lib import tf_keras

    keras = {
        name: found
        for name, found in vars(tf_keras.metrics).items()
        if inspect.isclass(found) and issubclass(found, tf_keras.metrics.Metric)
    }
    known: dict[str, type] = keras | metric_types.registered_metrics()
    return known


def _known_class(class_name: str) -> type:
    if class_name in _classes():
        return _classes()[class_name]
    near = difflib.get_close_matches(class_name, {*metrics.REGISTRY, *_classes()}, n=3)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise errors.ConfigError(
        f"Unknown metric {class_name!r}.{hint} It is no metric of evalbeam, TFMA or Keras; for a "
        "class of your own name its Python module too: `module: my_package.my_metrics` (a Keras "
        "loss is in `module: tf_keras.losses`)"
    )


def _module_class(spec: plan.MetricSpec) -> type:
    with quiet.starting_tensorflow():
        from tensorflow_model_analysis.metrics import metric_types
        from tensorflow_model_analysis.utils.keras_lib import tf_keras

    if metric_types.is_registered_metric(spec.class_name):
        known = metric_types.registered_metrics()[spec.class_name]
        if known.__module__ != spec.module:
            raise errors.ConfigError(
                f"Metric {spec.class_name} of module {spec.module!r}: TFMA has a metric of that "
                "name and would silently take its own. Give your class another name"
            )
    try:
        module = importlib.import_module(spec.module)
    except ImportError as error:
        raise errors.ConfigError(
            f"Metric {spec.class_name}: module {spec.module!r} cannot be imported: {error}. "
            "Install it, or put its folder on PYTHONPATH, here and on the workers"
        ) from error
    found = getattr(module, spec.class_name, None)
    bases = (metric_types.Metric, tf_keras.metrics.Metric, tf_keras.losses.Loss)
    if inspect.isclass(found) and issubclass(found, bases):
        return found
    near = difflib.get_close_matches(spec.class_name, vars(module), n=1)
    raise errors.ConfigError(
        f"Metric {spec.class_name}: module {spec.module!r} has no such subclass of TFMA's Metric "
        "or of tf_keras's Metric or Loss." + (f" Did you mean {near[0]}?" if near else "")
    )


def _check_arguments(spec: plan.MetricSpec, found: type, arguments: Mapping[str, Any]) -> None:
    from tensorflow_model_analysis.metrics import metric_specs

    # TFMA passes what a class does not name on, and some of it then goes nowhere: Precision with
    # "treshold" is Precision at 0.5. A class of the user's own may mean it.
    known = _parameters(found)
    for name in arguments:
        if name not in known and not spec.module:
            hint = errors.did_you_mean(name, known)
            raise errors.ConfigError(
                f"Metric {spec.class_name} has no argument {name!r}; it takes "
                f"{', '.join(known)}.{hint}"
            )
    try:
        metric_specs.metric_instance(
            protos.config_pb2.MetricConfig(
                class_name=spec.class_name, module=spec.module, config=spec.config
            )
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise errors.ConfigError(
            f"Metric {spec.class_name} cannot be made with {spec.config}: {error}"
        ) from error


def _parameters(found: type) -> tuple[str, ...]:
    """The arguments that a class and, where it passes some on, its bases name."""
    names: dict[str, None] = {}
    for base in found.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(base.__init__).parameters.values()  # type: ignore[misc]
        names.update(dict.fromkeys(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD))
        if all(p.kind is not p.VAR_KEYWORD for p in parameters):
            break
    return tuple(name for name in names if name not in ("self", "create_computations_fn"))
