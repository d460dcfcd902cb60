"""Loads the versions of a config."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from evalbeam.beam_jobs import config
from evalbeam.transforms import errors, models
from evalbeam.transforms.examples import scores
from evalbeam.transforms.models import files, images


@dataclass(frozen=True)
class Versions:
    """The versions of a run.

    Attributes:
      specs: the model specs.
      digests: by version, the SHA-256 of its files, before they were loaded.
      models: by version, the loaded model.
    """

    specs: tuple[models.ModelSpec, ...]
    digests: Mapping[str, str]
    models: Mapping[str, models.Model]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the versions, in order."""
        return tuple(spec.name for spec in self.specs)

    @property
    def scales(self) -> dict[str, scores.Scale]:
        """By version, the scale of its scores."""
        return {spec.name: spec.scores for spec in self.specs}

    def outputs(self) -> tuple[str, ...]:
        """The outputs, which must be the same for all versions.

        Raises:
          ConfigError: the outputs differ.
        """
        original = self.models[self.names[0]]
        for name in self.names[1:]:
            outputs = self.models[name].outputs
            if set(outputs) != set(original.outputs):
                raise errors.ConfigError(
                    f"Versions {self.names[0]!r} and {name!r} have different outputs, "
                    f"{errors.listed(original.outputs)} and {errors.listed(outputs)}. Choose the "
                    "outputs to evaluate with `outputs:` of each model"
                )
        return original.outputs


def describe(settings: config.Config) -> tuple[models.ModelSpec, ...]:
    """Describes the models to load.

    Raises:
      ConfigError: a path is not a model, or a key does not apply to the kind of model.
    """
    declared = tuple((name, image.resolve(name)) for name, image in settings.data.images.items())
    # With an EvalConfig, as TFMA takes them.
    default: scores.Scale = "" if settings.eval_config is None else "as_is"
    return tuple(
        dataclasses.replace(_describe_model(model, declared), scores=model.scores or default)
        for model in settings.models
    )


def load(specs: tuple[models.ModelSpec, ...]) -> Versions:
    """Loads the models; loading compares the digests that the config requires."""
    with_files = [spec for spec in specs if spec.path]
    if count := len(with_files):
        print(f"loading {count} model{'s' if count > 1 else ''} ...", file=sys.stderr)
    digests = {spec.name: spec.sha256 or files.digest(spec.path) for spec in with_files}
    return Versions(specs, digests, {spec.name: models.load(spec) for spec in specs})


def _describe_model(
    model: config.Model, declared: tuple[tuple[str, images.Image], ...]
) -> models.ModelSpec:
    if model.predictions is not None:
        stored = model.predictions
        pairs = stored if isinstance(stored, dict) else {"": stored}
        return models.ModelSpec(
            model.name,
            "stored",
            predictions=tuple(
                (output, (columns,) if isinstance(columns, str) else tuple(columns))
                for output, columns in pairs.items()
            ),
            classes=model.classes or "",
            outputs=tuple(model.outputs),
        )
    if model.callable is not None:
        return models.ModelSpec(
            model.name,
            "callable",
            inputs=model.sources(),
            images=declared,
            function=model.callable,
            outputs=tuple(model.outputs),
        )
    assert model.path is not None
    try:
        kind = models.infer_kind(model.path)
    except errors.ConfigError as e:
        raise errors.ConfigError(f"Version {model.name!r}: {e}") from e
    for key, default in (("signature", models.ModelSpec.signature), ("allow_unsafe", False)):
        if getattr(model, key) != default and key not in models.REGISTRY[kind].options:
            kinds = [name for name, other in models.REGISTRY.items() if key in other.options]
            raise errors.ConfigError(
                f"Version {model.name!r}: `{key}` is for {' or '.join(kinds)} models, but "
                f"{model.path} is a {kind} model: remove it"
            )
    return models.ModelSpec(
        model.name,
        kind,
        model.path,
        model.signature,
        model.sources(),
        declared,
        sha256=model.sha256 or "",
        allow_unsafe=model.allow_unsafe,
        outputs=tuple(model.outputs),
    )
