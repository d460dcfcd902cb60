"""The names of classes that models carry: used where the config has none, and compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from evalbeam.beam_jobs.check.versions import Versions
from evalbeam.transforms import arrow, batch, errors
from evalbeam.transforms.examples import classes, tasks


@dataclass(frozen=True)
class Vocabulary:
    """The classes of an output in the order of scores, and the version that has them."""

    version: str
    names: tuple[str, ...]


def read(versions: Versions, examples: batch.Batch) -> dict[str, list[Vocabulary]]:
    """By output, those of each version that has one.

    Raises:
      ConfigError: a version's classes vary in order, or versions have them in other orders.
    """
    found: dict[str, list[Vocabulary]] = {}
    for version, model in versions.models.items():
        try:
            vocabularies = model.classes(examples)
        except errors.ConfigError as error:
            raise errors.ConfigError(f"Version {version!r}: {error}") from error
        for output, values in vocabularies.items():
            names = tuple(map(classes.name, values))
            # Numbers of classes instead of names say nothing.
            if len(names) > 1 and names != tuple(map(str, range(len(names)))):
                found.setdefault(output, []).append(Vocabulary(version, names))
    for first, *others in found.values():
        for other in others:
            if _differ_in_order(first.names, other.names):
                raise errors.ConfigError(
                    f"Versions {first.version!r} and {other.version!r} have their classes in other "
                    f"orders, {classes.describe(first.names)} and {classes.describe(other.names)}, "
                    "but are compared score by score: export them in the same order"
                )
    return found


def check(output: str, given: Sequence[str], vocabularies: Sequence[Vocabulary]) -> None:
    """Raises ConfigError if `data.classes` contradicts a version's own classes."""
    for each in vocabularies:
        if _differ_in_order(given, each.names):
            of_output = f" of output {output!r}" if output else ""
            raise errors.ConfigError(
                f"data.classes{of_output} are {classes.describe(given)}, but version "
                f"{each.version!r} has its scores in the order {classes.describe(each.names)}: "
                "write them in this order, or remove them",
                ("data", "classes"),
            )


def choose(
    truth: tasks.Truth, predictions: np.ndarray, vocabularies: Sequence[Vocabulary]
) -> Vocabulary | None:
    """The first version's classes, if predictions and labels are of them.

    Raises:
      ConfigError: labels have names, but others.
    """
    if not vocabularies:
        return None
    chosen = vocabularies[0]
    count = predictions.shape[1] if predictions.ndim > 1 else 2
    is_number = predictions.dtype.names is None and predictions.dtype != object
    if is_number and count != len(chosen.names):
        return None
    values = truth.values.drop_null()
    if arrow.is_text(values.type) or classes.are_numbers(chosen.names):
        labelled = classes.sort(classes.texts(values.unique()).to_pylist())
        if set(labelled) & set(chosen.names):
            return chosen
        if not arrow.is_text(values.type) or not labelled:
            return None
        raise errors.ConfigError(
            f"the labels are {classes.describe(labelled)}, but version {chosen.version!r} has the "
            f"classes {classes.describe(chosen.names)}: list the labels' names in `data.classes`, "
            "in the order of the model's"
        )
    if not arrow.is_number(values.type):
        return None
    numbers = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return chosen if np.isin(numbers, np.arange(len(chosen.names))).all() else None


def _differ_in_order(some: Sequence[str], others: Sequence[str]) -> bool:
    """Whether a name that both have is in another place; names that only one has may be synonyms.

    >>> _differ_in_order(["cat", "dog"], ["dog", "cat"]), _differ_in_order(["cat"], ["Katze"])
    (True, False)
    """
    places: Mapping[str, int] = {name: place for place, name in enumerate(some)}
    return any(places.get(name, place) != place for place, name in enumerate(others))
