"""What stored predictions and scores must be like: their classes, their order, their spread."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from evalbeam.beam_jobs.check import heads
from evalbeam.beam_jobs.check.first_examples import FirstExamples
from evalbeam.beam_jobs.check.versions import Versions
from evalbeam.transforms import arrow, batch, errors
from evalbeam.transforms.examples import classes, labels
from evalbeam.transforms.examples.tasks import Inferred
from evalbeam.transforms.metrics import classes as class_metrics
from evalbeam.transforms.metrics import statistics
from evalbeam.transforms.metrics.evaluation import Evaluation, MetricSpec
from evalbeam.transforms.metrics.plan import plan

# A fraction, or a number as people write it in some languages; whole numbers name classes.
_NUMBER = re.compile(r"[-+]?\d*[.,]\d+(e[-+]?\d+)?\s*%?|[-+]?\d+\s*%", re.IGNORECASE)
# So many predictions, all of them wrong, are no classes.
_MANY = 10
# At least this share of pairs of scores in one bucket is worth a note.
_CROWDED = 0.02
_LAST_NUMBER = re.compile(r"\d+$")


def check_stored(
    versions: Versions, first: FirstExamples, outputs: Sequence[Inferred]
) -> list[str]:
    """Stored predictions must be of the labels' classes, and scores in the order of the classes.

    Returns:
      Notes on labels of no class, and on columns whose names say something else.

    Raises:
      ConfigError: they are not.
    """
    notes: list[str] = []
    for each in outputs:
        labelled, _ = labels.raw(first.examples, each.head.column)
        names = set(each.wanted.classes or classes.texts(labelled).to_pylist())
        notes += _note_no_class(labelled, each.head)
        for spec in versions.specs:
            listed = dict(spec.predictions).get(each.head.output, ())
            where = f"Version {spec.name!r}: "
            if len(listed) > 1:
                _check_order(
                    f"{where}`predictions: [{', '.join(listed)}]`", listed, each.head, labelled
                )
            elif listed and each.head.names and each.head.task == "binary":
                notes += _note_negative(spec.name, listed[0], each.head)
            for column in heads.list_columns(spec, first.examples, each.head):
                _check_names(f"{where}column {column!r}", first.examples, column, names)
    return notes


def _note_no_class(labelled: pa.Array, head: labels.Head) -> Iterator[str]:
    """A note on labels -1 among class indices."""
    if head.task != "multiclass" or head.names or not arrow.is_number(labelled.type):
        return
    values = labelled.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    if count := int((values == -1).sum()):
        yield (
            f"{count:,} of the first {len(labelled):,} labels in {head.column!r} are -1, no class: "
            "every prediction for them counts as wrong, and their loss is 0. Remove these rows if "
            "they are not labelled"
        )


def _note_negative(version: str, column: str, head: labels.Head) -> Iterator[str]:
    """A note if the only column of scores is named for the negative class."""
    positive = head.class_name(1)
    negative = head.class_name(0)
    if re.search(rf"(^|[^0-9A-Za-z]){re.escape(negative)}$", column, re.IGNORECASE):
        yield (
            f"version {version!r}: column {column!r} is taken for scores of {positive!r}, the "
            f"positive class, though it is named for {negative!r}"
        )


def _check_names(where: str, examples: batch.Batch, column: str, names: set[str]) -> None:
    """Raises ConfigError unless a column's classes have to do with the labels' names."""
    if column not in examples.columns.schema.names:  # which scoring says best
        return
    values, _ = arrow.flatten(examples.columns.column(column))
    found = set(classes.texts(values).to_pylist())
    others = classes.sort(found - names)
    if numbers := [name for name in others if _NUMBER.fullmatch(name)]:
        raise errors.ConfigError(
            f"{where} holds numbers as text, such as {numbers[0]!r}: store them as numbers, with "
            "a decimal point and no sign of percent"
        )
    if len(values) >= _MANY and not found & names:
        raise errors.ConfigError(
            f"{where} holds {classes.describe(others)}, none of which is a class of the labels in "
            f"the first {len(examples)} examples, {classes.describe(classes.sort(names))}: labels "
            "and predictions must name classes alike"
        )


def _check_order(where: str, columns: Sequence[str], head: labels.Head, labelled: pa.Array) -> None:
    """Raises ConfigError if columns of scores end with the classes' names in another order."""
    names = head.names
    if not names and pa.types.is_boolean(labelled.type):
        names = ("False", "True")
    if not names:
        names = tuple(map(str, range(len(columns))))
        numbers = [match[0] for match in map(_LAST_NUMBER.search, columns) if match]
        counted = [str(place + 1) for place in range(len(columns))]
        if numbers == counted and 0 not in labelled.unique().to_pylist():
            raise errors.ConfigError(
                f"{where} is named for the classes 1 to {len(columns)}, but the labels, of which "
                f"none is 0, are taken for 0 to {len(columns) - 1}: list the classes in "
                f"`data.classes: [{', '.join(counted)}]`, or from 0 on if that is what labels are"
            )
    of_columns = [
        max((name for name in names if column.lower().endswith(name.lower())), key=len, default="")
        for column in columns
    ]
    if set(of_columns) == set(names) and tuple(of_columns) != names:
        raise errors.ConfigError(
            f"{where} has the classes in the order {errors.listed(of_columns)}, but they "
            f"are {classes.describe(names)}: write the columns in this order, or list the "
            "classes in `data.classes` in that of the columns"
        )


def check_ordered(evaluation: Evaluation, outputs: Sequence[Inferred]) -> None:
    """Raises ConfigError for a metric of ordered classes whose order nobody has given."""
    for metric in evaluation.metrics:
        weights = metric.arguments.get("weights")
        for each in outputs if metric.class_name == "CohenKappa" and weights else ():
            names = each.head.names
            is_known = not names or each.wanted.classes or classes.are_numbers(names)
            if metric.is_for(each.head.output) and not is_known:
                raise errors.ConfigError(
                    f"metrics: CohenKappa with `weights: {weights}` is of classes in an order, but "
                    f"{classes.describe(names)} are sorted by name: list them in `data.classes`, "
                    "in their order and that of scores"
                )


def check_lists(evaluation: Evaluation, versions: Versions, first: FirstExamples) -> None:
    """Raises ConfigError for metrics of more top classes than a version's lists have."""
    for spec in versions.specs:
        if not spec.classes or spec.classes not in first.examples.columns.schema.names:
            continue
        _, lengths = arrow.flatten(first.examples.columns.column(spec.classes))
        shortest = int(lengths[lengths > 0].min(initial=np.iinfo(np.int64).max))
        for metric in evaluation.metrics:
            k = max((*metric.top_k_list, *metric.aggregate_top_k, _top(metric)), default=0)
            if k > shortest and (not metric.models or spec.name in metric.models):
                raise errors.ConfigError(
                    f"metrics: {metric.class_name} is of the top {k} classes, but lists of "
                    f"version {spec.name!r} have only {shortest} in column {spec.classes!r}: the "
                    "others are not known. Store more, or ask for fewer"
                )


def _top(metric: MetricSpec) -> int:
    """How many classes with the largest scores a metric's arguments take; 0 for others."""
    if metric.class_name.endswith("TopKCategoricalAccuracy"):
        return int(metric.arguments.get("k", class_metrics.TOP))
    return int(metric.arguments.get("top_k") or 0)


def note_crowded(evaluation: Evaluation, scored: batch.Scored) -> Iterator[str]:
    """Notes on versions whose scores crowd in few of the buckets by which ranks are counted.

    Of first examples, since what differs within a bucket is not known later.
    """
    view = statistics.View(scored)
    users: dict[statistics.Histogram | statistics.ClassHistograms, list[str]] = {}
    for metric in plan(evaluation).metrics:
        for statistic in metric.statistics:
            if isinstance(statistic, statistics.Histogram | statistics.ClassHistograms):
                users.setdefault(statistic, []).append(metric.key.metric)
    crowded: dict[tuple[str, float], list[str]] = {}
    for statistic, names in users.items():
        target = statistic.target
        share = _share_together(view.pairs(target)[1], view.buckets(target, 0.0, 1.0))
        if share > _CROWDED:
            crowded.setdefault((target.model, share), []).extend(names)
    for (version, share), names in crowded.items():
        yield (
            f"version {version!r}: {share:.0%} of the pairs of first examples have different "
            f"scores in one of the {statistics.HISTOGRAM_BUCKETS:,} buckets between 0 and 1, where "
            f"{', '.join(dict.fromkeys(names))} see ties (scores beyond 0 and 1 count as these): "
            f"they may be off by up to {share / 2:.2g}. A function that spreads the scores in "
            "their order, such as their ranks, changes nothing else about these metrics"
        )


def _share_together(found: np.ndarray, buckets: np.ndarray) -> float:
    """The share of pairs of different scores, [N] or [N, K], in one bucket; the largest share."""
    shares = []
    for values, places in zip(np.atleast_2d(found.T), np.atleast_2d(buckets.T), strict=True):
        together, equal = (
            (np.unique(each, return_counts=True)[1].astype(float) ** 2).sum()
            for each in (places, values)
        )
        shares.append((together - equal) / len(values) ** 2)
    return max(shares, default=0.0)
