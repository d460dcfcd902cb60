"""Reads the first examples of the data, and infers the batch size from them."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from evalbeam.transforms import arrow, batch, errors, formats, models
from evalbeam.transforms.examples import labels
from evalbeam.transforms.models import columns

# The number of examples from which columns and tasks are inferred.
_EXAMPLES = 256

# The most examples in a batch, and the most bytes and scores per version.
_BATCH = 16_384
_BATCH_BYTES = 32 << 20
_BATCH_SCORES = 1 << 22


@dataclass(frozen=True)
class FirstExamples:
    """The first examples that can be read.

    Attributes:
      examples: the examples, from the main split.
      columns: the names of all columns of their file, for errors to list.
      image_bytes: the size of one example's images, as the models take them; 0 without images.
      tried: the examples to try models with; fewer if images are large, as a network needs many
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
    """Reads the first examples that can be read.

    Raises:
      DataError: no example can be read.
      ConfigError: there are no examples.
    """
    examples = _read(shards, projection)
    image_bytes = _image_bytes(examples, loaded)
    few = min(len(examples), max(1, _BATCH_BYTES // max(1, image_bytes)))
    return FirstExamples(
        examples=examples,
        columns=formats.first_columns(examples.shard),
        image_bytes=image_bytes,
        tried=examples.take(np.arange(few)) if few < len(examples) else examples,
    )


def batch_size(first: FirstExamples, heads: Sequence[labels.Head]) -> int:
    """The job's batch size: large enough to be fast, smaller for large examples or scores."""
    examples = first.examples
    raw_bytes = sum(map(len, examples.serialized)) if examples.serialized is not None else 0
    # Without dictionaries, which are shared by many examples.
    column_bytes = sum(arrow.flatten(column)[0].nbytes for column in examples.columns.columns)
    example_bytes = max(1, (raw_bytes + column_bytes) // len(examples) + first.image_bytes)
    classes = max(head.classes or 1 for head in heads)
    return max(1, min(_BATCH, _BATCH_BYTES // example_bytes, _BATCH_SCORES // classes))


def _read(shards: Sequence[batch.Shard], projection: batch.Projection) -> batch.Batch:
    letters: list[batch.DeadLetter] = []
    for shard in shards:
        if shard.split != batch.MAIN_SPLIT:
            continue
        for item in formats.read(shard, projection, _EXAMPLES):
            if isinstance(item, batch.Batch) and len(item):
                return item
            if isinstance(item, batch.DeadLetter):
                letters.append(item)
    paths = sorted({shard.path for shard in shards if shard.split == batch.MAIN_SPLIT})
    if letters:
        raise errors.DataError(f"No example of data.files can be read. {letters[0]}")
    raise errors.ConfigError(
        f"data.files contains no examples; empty files: {', '.join(paths[:5])}"
        f"{', ...' if len(paths) > 5 else ''}"
    )


def _image_bytes(examples: batch.Batch, loaded: Collection[models.Model]) -> int:
    """The size of the images of the first example that has them all, counting each image once."""
    inputs = {
        dataclasses.replace(declared, name=""): declared
        for model in loaded
        for declared in model.inputs
        if declared.image is not None
    }
    for row in range(len(examples) if inputs else 0):
        example = examples.take(np.array([row]))
        # A damaged image or a missing column, which is reported when inputs are checked.
        with contextlib.suppress(arrow.UnscorableRowsError, errors.DataError, KeyError):
            return sum(_count_bytes(declared, example) for declared in inputs.values())
    return 0


def _count_bytes(declared: columns.Input, example: batch.Batch) -> int:
    """The size of one example's image, even if it does not match the model's input."""
    assert declared.image is not None
    try:
        return int(columns.arrays((declared,), example)[declared.name].nbytes)
    except (arrow.UnscorableRowsError, errors.DataError):
        return int(declared.image.decode(example.columns.column(declared.column)).nbytes)
