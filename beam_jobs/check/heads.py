"""What each output is evaluated as, found with the first examples: tasks, classes, scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from evalbeam.beam_jobs import config
from evalbeam.beam_jobs.check import vocabulary
from evalbeam.beam_jobs.check.first_examples import FirstExamples
from evalbeam.beam_jobs.check.versions import Versions
from evalbeam.beam_jobs.job import OpenClasses
from evalbeam.transforms import arrow, batch, errors, models
from evalbeam.transforms.checks import scores
from evalbeam.transforms.examples import classes, labels, scoring, tasks
from evalbeam.transforms.examples.tasks import Inferred
from evalbeam.transforms.ledger import Ledger
from evalbeam.transforms.metrics import statistics
from evalbeam.transforms.metrics.evaluation import Evaluation
from evalbeam.transforms.metrics.plan import plan


def infer(
    settings: config.Config,
    versions: Versions,
    first: FirstExamples,
    label_columns: Mapping[str, str],
) -> tuple[Inferred, ...]:
    """Each output's head, as configured or as the first examples imply it.

    Args:
      settings: the config.
      versions: the versions, of which the first one predicts.
      first: the examples.
      label_columns: output -> label column.

    Raises:
      ConfigError: labels and predictions fit no task, or the config, versions and labels have
        classes that contradict each other.
    """
    predictions = _predict(versions, first)
    vocabularies = vocabulary.read(versions, first.tried)
    inferred = []
    for output, column in label_columns.items():
        truth = tasks.Truth(*labels.raw(first.tried, column))
        wanted = _want(settings, output)
        carried = vocabularies.get(output, [])
        vocabulary.check(output, wanted.classes, carried)
        if not wanted.classes and wanted.task != "regression":
            chosen = vocabulary.choose(truth, predictions[output], carried)
            if chosen:
                wanted = dataclasses.replace(wanted, classes=chosen.names, version=chosen.version)
        inferred.append(tasks.infer(output, column, truth, predictions[output], wanted))
    return tuple(inferred)


def score(
    settings: config.Config, versions: Versions, first: FirstExamples, outputs: Sequence[Inferred]
) -> batch.Scored:
    """The first examples, scored as every batch of the job is, to fail now rather than later.

    Raises:
      DataError: see `scoring.score`; or no example can be scored. Reports how the task came about.
    """
    data = settings.data
    heads = tuple(each.head for each in outputs)
    try:
        scored, letters = scoring.score(
            first.tried, versions.models, heads, data.weight, data.id, versions.scales
        )
        if scored is None:
            raise errors.DataError(
                f"No row of the first {len(first.tried)} of {first.tried.shard} can be scored: "
                f"{letters[0].reason}"
            )
    except errors.JobError as error:
        how = "; ".join(_describe(each) for each in outputs if each.reason)
        raise type(error)(f"{error}{f' ({how})' if how else ''}") from error
    return scored


def check_scores(evaluation: Evaluation, versions: Versions, scored: batch.Scored) -> None:
    """Checks the first examples' scores as those of all examples are checked in the end.

    Raises:
      ConfigError: they break what the metrics assume.
    """
    ledger = Ledger()
    ledger.see(scored)
    scores.check(evaluation, versions.scales, ledger.seen)


def fit_decisions(
    evaluation: Evaluation, scored: batch.Scored, *, are_defaults: bool
) -> tuple[Evaluation, list[str]]:
    """The evaluation without default metrics that need scores, if a version has only decisions.

    Returns:
      The evaluation, and a note on it.

    Raises:
      ConfigError: the config names a metric that needs scores, for such a version.
    """
    decided = [
        (version, head.output)
        for version in evaluation.models
        for head in evaluation.heads
        if head.task != "regression" and (version, head.output) not in scored.seen
    ]
    kept = []
    for spec in evaluation.metrics:
        needing = _find_scores_needed(dataclasses.replace(evaluation, metrics=(spec,)), decided)
        if needing is None:
            kept.append(spec)
        elif not are_defaults:
            raise errors.ConfigError(
                f"metrics: {spec.class_name} needs scores, but the predictions of version "
                f"{needing!r} are classes. Remove the metric, or restrict it to versions with "
                "scores: `models: [...]`"
            )
    omitted = [spec.class_name for spec in evaluation.metrics if spec not in kept]
    notes = [f"version {version!r} has classes instead of scores" for version, _ in decided]
    if omitted:
        notes.append(f"omitted, as they need scores: {', '.join(dict.fromkeys(omitted))}")
    return dataclasses.replace(evaluation, metrics=tuple(kept)), notes


def _find_scores_needed(evaluation: Evaluation, decided: Sequence[tuple[str, str]]) -> str | None:
    """A version that has only decisions for a metric of scores."""
    for metric in plan(evaluation).metrics:
        version = metric.key.model
        if (version, metric.key.output) in decided and not all(
            map(statistics.is_by_decision, metric.statistics)
        ):
            return version
    return None


def list_open(
    versions: Versions, first: FirstExamples, outputs: Sequence[Inferred]
) -> tuple[OpenClasses, ...]:
    """The outputs whose classes have yet to be found in all the data."""
    return tuple(
        OpenClasses(
            each.head.output,
            (
                each.head.column,
                *(
                    column
                    for spec in versions.specs
                    for column in list_columns(spec, first.examples, each.head)
                ),
            ),
            each.wanted,
        )
        for each in outputs
        if each.is_open
    )


def note(outputs: Sequence[Inferred]) -> Iterator[str]:
    """What was inferred that the user should know."""
    for each in outputs:
        if each.reason:
            yield _describe(each)
        if each.head.task == "multilabel":
            yield (
                "of a multi-label output, metrics of decisions are over all labels together; "
                "`aggregate: {average: macro}` is their mean, `binarize` gives each label's"
            )
        if each.wanted.version:
            yield (
                f"classes of {each.head.column!r}, as version {each.wanted.version!r} has them: "
                f"{classes.describe(each.head.names)}"
            )
        if each.is_open:
            yield (
                f"classes of {each.head.column!r} and predictions in the first examples: "
                f"{classes.describe(each.head.names)}; all of the data is searched for classes "
                "before it is evaluated, which `data.classes` saves"
            )
        by_letters: dict[str, list[str]] = {}
        for name in each.head.names:
            by_letters.setdefault("".join(name.lower().split()), []).append(name)
        for alike in by_letters.values():
            if len(alike) > 1:
                yield f"different classes, though alike: {errors.listed(alike)}"


def _describe(inferred: Inferred) -> str:
    head = inferred.head
    of_output = f" for output {head.output!r}" if head.output else ""
    return f"task inferred{of_output}: {head.task}: {inferred.reason}"


def _predict(versions: Versions, first: FirstExamples) -> Mapping[str, np.ndarray]:
    """The first version's predictions of first examples, by output."""
    name = versions.names[0]
    try:
        return scoring.predictions(versions.models[name], first.tried)
    except errors.JobError as e:
        raise type(e)(f"Version {name!r}: {e}") from e


def _want(settings: config.Config, output: str) -> tasks.Wanted:
    """What the config says of an output."""
    task, positive = settings.task, settings.data.positive
    if isinstance(positive, dict):
        positive = positive.get(output)
    return tasks.Wanted(
        task=task[output] if isinstance(task, dict) else task,
        classes=settings.data.class_names(output),
        positive=positive or "",
        unknown=settings.data.unknown_class or "",
    )


def list_columns(
    spec: models.ModelSpec, examples: batch.Batch, head: labels.Head
) -> tuple[str, ...]:
    """The column in which a version names classes of an output, if it does."""
    predicted = dict(spec.predictions).get(head.output, ())
    if spec.classes:
        return (spec.classes,)
    if len(predicted) == 1 and _holds_names(examples, predicted[0], head):
        return predicted
    return ()


def _holds_names(examples: batch.Batch, column: str, head: labels.Head) -> bool:
    values, lengths = arrow.flatten(examples.columns.column(column))
    return arrow.is_text(values.type) or (
        head.task == "multiclass" and head.scored_classes != 2 and lengths.max(initial=0) == 1
    )
