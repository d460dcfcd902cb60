"""The first examples of the data, and what they show: tasks, and how many make a batch."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evalbeam.transforms import arrow, batch, errors, formats, models
from evalbeam.transforms.examples import labels
from evalbeam.transforms.models import columns

# So many examples show what the data's columns are and what task the labels and predictions are.
_EXAMPLES = 256

# A batch has this many examples, of at most so many bytes and so many scores of a version.
_BATCH = 16_384
_BATCH_BYTES = 32 << 20
_BATCH_SCORES = 1 << 22


@dataclass(frozen=True)
class FirstExamples:
    """The first examples that can be read.

    Attributes:
      examples: of the main split.
      columns: the names of all columns of their file, for errors to list.
      image_bytes: what one example's images are as the models take them; 0 without any.
      tried: those that models are tried with. Of large images they are fewer: a network needs many
        times their memory.
    """

    examples: batch.Batch
    columns: tuple[str, ...]
    image_bytes: int
    tried: batch.Batch


def read(
    shards: Sequence[batch.Shard],
    projection: batch.Projection,
    loaded: Collection[models.Model],
) -> FirstExamples:
    """The first examples that can be read.

    Raises:
      JobError: none can be read.
      ConfigError: there are none.
    """
    examples = _read(shards, projection)
    image_bytes = _image_bytes(examples, loaded)
    few = min(len(examples), max(1, _BATCH_BYTES // max(1, image_bytes)))
    return FirstExamples(
        examples=examples,
        columns=formats.get(examples.shard.format).first_columns(examples.shard.path),
        image_bytes=image_bytes,
        tried=examples.take(np.arange(few)) if few < len(examples) else examples,
    )


def heads(
    first: FirstExamples,
    task: labels.Task | Mapping[str, labels.Task] | None,
    label_columns: Mapping[str, str],
    predicted: Mapping[str, np.ndarray],
) -> tuple[tuple[labels.Head, ...], list[str]]:
    """Each output's task, as configured or as the examples show, and notes of what was inferred.

    Args:
      first: the examples.
      task: of all outputs or of each; None where it is to be inferred.
      label_columns: by output, the label's column.
      predicted: by output, a version's predictions.

    Raises:
      ConfigError: labels and predictions that fit no task.
    """
    found, notes = [], []
    for output, column in label_columns.items():
        known = task[output] if isinstance(task, Mapping) else task
        scores = predicted[output]
        classes = scores.shape[1] if scores.ndim > 1 else None
        if known is None:
            inferred = labels.infer_task(labels.raw(first.examples, column), scores)
            of_output = f" for output {output!r}" if output else ""
            notes.append(f"task inferred{of_output}: {inferred.reason}")
            known, classes = inferred.task, inferred.classes
        found.append(labels.Head(output, column, known, classes))
    return tuple(found), notes


def batch_size(first: FirstExamples, heads: Sequence[labels.Head]) -> int:
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
