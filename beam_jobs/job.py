"""A run, checked and spelled out: what every other step of it is told."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from evalbeam.transforms import batch, models
from evalbeam.transforms.examples import slices
from evalbeam.transforms.formats import files
from evalbeam.transforms.results import compare, finish


@dataclass(frozen=True)
class Job:
    """A run, checked and spelled out.

    Attributes:
      name: the config's.
      shards: of all splits.
      projection: the columns that the labels, slices and models read.
      batch_size: examples decoded and predicted at once.
      models: the versions.
      baseline: the version that the others are compared with, if any.
      specs: the slicing specs; those by quantiles have no edges yet.
      weight, id: columns.
      units: hash buckets of examples.
      max_dead_letters: the share of rows that may fail to be scored.
      evaluation: metrics, outputs and thresholds.
      eval_config: the serialised TFMA EvalConfig that describes the run.
      tfma_config: the serialised EvalConfig of what TFMA has to compute, if anything.
      min_slice_size: smaller slices have no results, except for a whole split.
      engine: "columnar" or "tfma".
      identity: what identifies an example.
      digests: by version, the SHA-256 of its files, before they were loaded.
      pairs: the versions to compare: the baseline with the others, originals with conversions.
      first: first examples, such as all versions can score; None if none of those looked at.
      notes: what was inferred or decided and the user should know.
    """

    name: str
    shards: tuple[batch.Shard, ...]
    projection: batch.Projection
    batch_size: int
    models: tuple[models.ModelSpec, ...]
    baseline: str | None
    specs: tuple[slices.Spec, ...]
    weight: str | None
    id: str | None
    units: int
    max_dead_letters: float
    evaluation: finish.Evaluation
    eval_config: bytes
    tfma_config: bytes | None
    min_slice_size: int
    engine: str
    identity: str
    digests: Mapping[str, str]
    pairs: tuple[compare.Pair, ...]
    first: batch.Batch | None
    notes: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The versions' names."""
        return tuple(model.name for model in self.models)

    @property
    def conversions(self) -> tuple[tuple[str, str], ...]:
        """Originals and what was converted from them."""
        return compare.conversions(self.pairs)

    def with_absolute_paths(self) -> Job:
        """The job for workers that run in another folder than this process."""
        return dataclasses.replace(
            self,
            shards=tuple(
                dataclasses.replace(shard, path=files.absolute(shard.path)) for shard in self.shards
            ),
            models=tuple(
                dataclasses.replace(model, path=files.absolute(model.path)) if model.path else model
                for model in self.models
            ),
        )
