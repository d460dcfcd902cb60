"""The first examples of the data, and what they show: tasks, and how many make a batch."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from beam_jobs import config
from transforms import batch, errors, formats, labels, models
from transforms.models import arrow, columns

# So many examples show what the data's columns are and what task the labels and predictions are.
_EXAMPLES = 256

# A batch has this many examples, of at most so many bytes and so many scores of a version.
_BATCH = 16_384
_BATCH_BYTES = 32 << 20
_BATCH_SCORES = 1 << 22


@dataclass(frozen=True)
class First:
    """The first examples.

    Attributes:
      examples: of the main split, as they were read.
      columns: what the file has that they are of.
      image_bytes: what one example's images are as the models take them; 0 without any.
      shown: those that models are tried with. Of large images they are fewer: a network needs many
        times their memory.
    """

    examples: batch.Batch
    columns: tuple[str, ...]
    image_bytes: int
    shown: batch.Batch


def read(
    shards: Sequence[batch.Shard],
    projection: batch.Projection,
    loaded: Collection[models.Model],
) -> First:
    """The first examples that can be read.

    Raises:
      JobError: none can be read.
      ConfigError: there are none.
    """
    examples = _read(shards, projection)
    image_bytes = _image_bytes(examples, loaded)
    few = min(len(examples), max(1, _BATCH_BYTES // max(1, image_bytes)))
    return First(
        examples=examples,
        columns=formats.get(examples.shard.format).first_columns(examples.shard.path),
        image_bytes=image_bytes,
        shown=examples.take(np.arange(few)) if few < len(examples) else examples,
    )


def heads(
    first: First,
    settings: config.Config,
    label_columns: Mapping[str, str],
    versions: Sequence[models.ModelSpec],
    loaded: Mapping[str, models.Model],
) -> tuple[tuple[labels.Head, ...], list[str]]:
    """Each output's task, as configured or as the examples show, and what was inferred.

    Raises:
      ConfigError: labels or tasks that are not there, or of which none fits.
      JobError: the first version cannot score any example.
    """
    names = first.examples.columns.schema.names
    for column in label_columns.values():
        if column not in names:
            raise errors.ConfigError(
                f"{first.examples.shard}: data.label {column!r} is in none of the first "
                f"{len(first.examples)} examples (they have {', '.join(first.columns)})."
                f"{errors.did_you_mean(column, first.columns)}"
            )
    if isinstance(settings.task, dict) and set(settings.task) != set(label_columns):
        raise errors.ConfigError(
            f"task names the outputs {errors.listed(settings.task)}, and the models have "
            f"{errors.listed(label_columns)}"
        )
    predicted = _predictions(versions[0].name, loaded[versions[0].name], first.shown)
    found, notes = [], []
    for output, column in label_columns.items():
        task = settings.task[output] if isinstance(settings.task, dict) else settings.task
        scores = predicted[output]
        classes = scores.shape[1] if scores.ndim > 1 else None
        if task is None:
            inferred = labels.infer_task(labels.raw(first.examples, column), scores)
            of_output = f" for output {output!r}" if output else ""
            notes.append(f"task inferred{of_output}: {inferred.reason}")
            task, classes = inferred.task, inferred.classes
        found.append(labels.Head(output, column, task, classes))
    return tuple(found), notes


def batch_size(first: First, heads: Sequence[labels.Head]) -> int:
    """As many examples as are fast together, and fewer where they or their scores are large."""
    examples = first.examples
    raw = sum(map(len, examples.serialized)) if examples.serialized is not None else 0
    # Without dictionaries, which are those of many examples.
    read = sum(arrow.flatten(column)[0].nbytes for column in examples.columns.columns)
    example = max(1, (raw + read) // len(examples) + first.image_bytes)
    classes = max(head.classes or 1 for head in heads)
    return max(1, min(_BATCH, _BATCH_BYTES // example, _BATCH_SCORES // classes))


def _read(shards: Sequence[batch.Shard], projection: batch.Projection) -> batch.Batch:
    letters: list[batch.DeadLetter] = []
    for shard in shards:
        if shard.split != batch.MAIN_SPLIT:
            continue
        for item in formats.get(shard.format).read(shard, projection, _EXAMPLES):
            if isinstance(item, batch.Batch) and len(item):
                return item
            if isinstance(item, batch.DeadLetter):
                letters.append(item)
    listed = sorted({shard.path for shard in shards if shard.split == batch.MAIN_SPLIT})
    if letters:
        first = letters[0]
        raise errors.JobError(
            f"No example of data.files can be read. {first.path}, row {first.position}: "
            f"{first.reason}"
        )
    raise errors.ConfigError(
        f"data.files holds no examples: {', '.join(listed[:5])}"
        f"{' and others' if len(listed) > 5 else ''} are empty"
    )


def _image_bytes(examples: batch.Batch, loaded: Collection[models.Model]) -> int:
    """Of the first example whose images can be had; each image once."""
    inputs = {
        dataclasses.replace(declared, name=""): declared
        for model in loaded
        for declared in model.inputs
        if declared.image is not None
    }
    for row in range(len(examples) if inputs else 0):
        one = examples.take(np.array([row]))
        # A damaged one, or no such column, which is told when inputs are checked.
        with contextlib.suppress(arrow.UnscorableRowsError, errors.JobError, KeyError):
            return sum(_bytes_of(declared, one) for declared in inputs.values())
    return 0


def _bytes_of(declared: columns.Input, one: batch.Batch) -> int:
    """What the image of the only row takes, also one that does not fit the model."""
    assert declared.image is not None
    try:
        return int(columns.arrays((declared,), one)[declared.name].nbytes)
    except (arrow.UnscorableRowsError, errors.JobError):
        return int(declared.image.decoded(one.columns.column(declared.column)).nbytes)


def _predictions(version: str, model: models.Model, shown: batch.Batch) -> dict[str, np.ndarray]:
    """By output, of those of the examples that the version can score."""
    reason: Exception | None = None
    for rows in (np.arange(len(shown)), *(np.array([row]) for row in range(len(shown)))):
        try:
            return model.predict(shown.take(rows))
        except errors.JobError as e:
            raise errors.JobError(f"Version {version!r}: {e}") from e
        except Exception as e:  # a row of it may be at fault: dead letters are the job's affair
            reason = e
    raise errors.JobError(
        f"Version {version!r} can score none of the first {len(shown)} examples of "
        f"{shown.shard}: {type(reason).__name__}: {reason}"
    )
