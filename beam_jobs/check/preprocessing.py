"""The EvalConfig's preprocessing: signatures whose outputs labels and slices are taken from."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from evalbeam.beam_jobs.check.first_examples import FirstExamples
from evalbeam.beam_jobs.config.resolve import Request
from evalbeam.beam_jobs.job import OpenClasses
from evalbeam.transforms import errors, models
from evalbeam.transforms.examples import scoring
from evalbeam.transforms.metrics.evaluation import Evaluation


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing of all examples, and that of other versions, which must agree.

    Attributes:
      specs: the signatures of the first version that has any.
      others: by version, those of each other one.
    """

    specs: tuple[models.ModelSpec, ...] = ()
    others: tuple[tuple[str, tuple[models.ModelSpec, ...]], ...] = ()

    @property
    def models(self) -> tuple[models.Model, ...]:
        """The signatures, loaded."""
        return tuple(map(models.load, self.specs))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that they give."""
        return tuple(column for model in self.models for column in model.outputs)

    @property
    def notes(self) -> list[str]:
        """What the user should know."""
        return [
            f"{', '.join(model.outputs)}: columns of the {spec.name}, signature {spec.signature!r}"
            for spec, model in zip(self.specs, self.models, strict=True)
        ]


def load(request: Request, specs: Sequence[models.ModelSpec]) -> Preprocessing:
    """Loads the versions' preprocessing.

    Raises:
      ConfigError: a version is not a SavedModel, or has no such signature.
    """
    by_name = {spec.name: spec for spec in specs}
    found = []
    for version, names in request.preprocessing:
        spec = by_name[version]
        if spec.kind != "saved_model":
            raise errors.ConfigError(
                f"version {version!r} is of kind {spec.kind}, but the EvalConfig's "
                "preprocessing_function_names are signatures of SavedModels: name them in the "
                "model_specs of such versions only"
            )
        described = tuple(
            models.ModelSpec(
                *(f"preprocessing of {version}", "transform", spec.path, name),
                allow_unsafe=spec.allow_unsafe,
            )
            for name in names
        )
        found.append((version, described))
    for _, described in found:
        for spec in described:
            models.load(spec)
    if not found:
        return Preprocessing()
    (_, first), *others = found
    return Preprocessing(first, tuple(others))


def apply(
    preprocessing: Preprocessing, first: FirstExamples, used: Collection[str]
) -> FirstExamples:
    """The first examples with the columns that preprocessing gives.

    Raises:
      ConfigError: another version's gives other values of a column that is `used`.
      DataError: it fails on all of them.
    """
    if not preprocessing.specs:
        return first
    transformed, letters = scoring.transform(first.examples, preprocessing.models)
    if transformed is None:
        raise errors.DataError(f"preprocessing fails on all first examples: {letters[0]}")
    for version, specs in preprocessing.others:
        other, _ = scoring.transform(first.examples, list(map(models.load, specs)))
        for column in set(used) & set(preprocessing.columns):
            values = [
                each.columns.column(column)
                for each in (transformed, other)
                if each is not None and column in each.columns.schema.names
            ]
            if len(values) != 2 or not values[0].equals(values[1]):
                raise errors.ConfigError(
                    f"the preprocessing of version {version!r} gives other values of {column!r} "
                    f"than the {preprocessing.specs[0].name}, but versions are compared on the "
                    "same labels and slices"
                )
    few = min(len(first.tried), len(transformed))
    tried = transformed.take(np.arange(few))
    columns = tuple(dict.fromkeys([*first.columns, *preprocessing.columns]))
    return dataclasses.replace(first, examples=transformed, tried=tried, columns=columns)


def check_ahead(
    preprocessing: Preprocessing, evaluation: Evaluation, open_classes: Sequence[OpenClasses]
) -> None:
    """Raises ConfigError for what is looked up in all data before preprocessing could run."""
    if not preprocessing.specs:
        return
    columns = preprocessing.columns
    for term in evaluation.terms():
        if term.quantiles and term.column in columns:
            raise errors.ConfigError(
                f"slices: quantiles of {term.column!r}, which preprocessing gives, are not "
                "supported; write `edges`"
            )
    for found in open_classes:
        if any(column in columns for column in found.columns):
            raise errors.ConfigError(
                f"the classes of {found.columns[0]!r}, which preprocessing gives, are not known "
                "before the job: list them in `data.classes`"
            )
