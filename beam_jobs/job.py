"""A job: a checked config with all its details resolved."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from evalbeam.transforms import batch
from evalbeam.transforms.examples import tasks
from evalbeam.transforms.formats import files
from evalbeam.transforms.metrics.evaluation import Evaluation
from evalbeam.transforms.models import ModelSpec


@dataclass(frozen=True)
class OpenClasses:
    """An output whose classes have yet to be found in the data.

    Attributes:
      output: the output.
      columns: the columns that hold names of its classes.
      wanted: what the config says of it.
    """

    output: str
    columns: tuple[str, ...]
    wanted: tasks.Wanted


@dataclass(frozen=True)
class Job:
    """A checked config with all its details resolved.

    Attributes:
      name: the config's name.
      shards: the shards of all splits.
      projection: the columns to decode.
      batch_size: the number of examples to decode and predict at once.
      models: the versions.
      evaluation: what to evaluate; slices by quantiles have no edges yet, and outputs of
        `open_classes` only the classes of first examples.
      open_classes: outputs whose classes have yet to be found.
      max_dead_letters: the share of rows that may fail to be scored.
      identity: what identifies an example, as text.
      digests: by version, the SHA-256 of its files, before they were loaded.
      first: first examples that all versions can score.
      preprocessing: signatures of a version whose outputs are columns, too.
      notes: what was inferred or chosen that the user should know.
    """

    name: str
    shards: tuple[batch.Shard, ...]
    projection: batch.Projection
    batch_size: int
    models: tuple[ModelSpec, ...]
    evaluation: Evaluation
    max_dead_letters: float
    identity: str
    digests: Mapping[str, str]
    first: batch.Batch
    notes: tuple[str, ...]
    open_classes: tuple[OpenClasses, ...] = ()
    preprocessing: tuple[ModelSpec, ...] = ()

    @property
    def main(self) -> batch.Shard:
        """The first shard of the main split."""
        return next(shard for shard in self.shards if shard.split == batch.MAIN_SPLIT)

    def with_absolute_paths(self) -> Job:
        """The job for workers whose working folder differs from this process's."""
        return dataclasses.replace(
            self,
            shards=tuple(
                dataclasses.replace(shard, path=files.absolute(shard.path)) for shard in self.shards
            ),
            models=tuple(map(_with_absolute_path, self.models)),
            preprocessing=tuple(map(_with_absolute_path, self.preprocessing)),
        )


def _with_absolute_path(spec: ModelSpec) -> ModelSpec:
    return dataclasses.replace(spec, path=files.absolute(spec.path)) if spec.path else spec
