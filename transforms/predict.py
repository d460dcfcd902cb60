"""Scores each batch with every version while it is in hand."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import apache_beam as beam
import numpy as np

from transforms import batch, errors, identity, labels, models
from transforms.models import columns

DEAD_LETTERS = "dead_letters"

# So many rows, spread over a batch, that all fail mean that the data or the model is at fault.
_PROBES = 16
_REASON_CHARACTERS = 500


@dataclass(eq=False)  # Not frozen: Beam sets the label of a transform when it is applied.
class Predict(beam.PTransform):
    """PCollection[Batch] -> `scored`: PCollection[Scored], `dead_letters`: PCollection[DeadLetter].

    A row that some version cannot score is a dead letter for all of them, so that versions are
    compared over the same rows.

    Attributes:
      models: the versions; loaded once per worker process.
      heads: what is evaluated; each version has each head's output.
      weight: the column of the examples' weights, if any.
      id: the column of the examples' identity, if any.
    """

    models: tuple[models.ModelSpec, ...]
    heads: tuple[labels.Head, ...]
    weight: str | None
    id: str | None

    def expand(self, batches: beam.PCollection) -> beam.pvalue.DoOutputsTuple:
        """One fused step; the batches are never shuffled."""
        return batches | "Score" >> beam.ParDo(
            _Score(self.models, self.heads, self.weight, self.id)
        ).with_outputs(DEAD_LETTERS, main="scored")


class _Score(beam.DoFn):
    def __init__(
        self,
        specs: tuple[models.ModelSpec, ...],
        heads: tuple[labels.Head, ...],
        weight: str | None,
        id_column: str | None,
    ) -> None:
        self._specs = specs
        self._heads = heads
        self._weight = weight
        self._id = id_column
        self._scored = beam.metrics.Metrics.counter("evalbeam", "examples_scored")
        self._dead = beam.metrics.Metrics.counter("evalbeam", "examples_dead_lettered")
        self._milliseconds = {
            spec.name: beam.metrics.Metrics.distribution("evalbeam", f"predict_ms_{spec.name}")
            for spec in specs
        }

    def setup(self) -> None:
        self._models = {spec.name: models.load(spec) for spec in self._specs}

    def process(self, examples: batch.Batch) -> Iterator[batch.Scored | beam.pvalue.TaggedOutput]:
        scored, dead = score(examples, self._models, self._heads, self._weight, self._id)
        self._dead.inc(len(dead))
        for letter in dead:
            yield beam.pvalue.TaggedOutput(DEAD_LETTERS, letter)
        if scored is not None:
            self._scored.inc(len(scored))
            for version, seconds in scored.predict_seconds.items():
                self._milliseconds[version].update(round(seconds * 1000))
            yield scored


def score(
    examples: batch.Batch,
    versions: Mapping[str, models.Model],
    heads: Sequence[labels.Head],
    weight: str | None,
    id_column: str | None,
) -> tuple[batch.Scored | None, list[batch.DeadLetter]]:
    """The rows that every version can score, or None if there are none, and the others.

    Raises:
      JobError: labels, weights or ids that are missing or wrong; a version whose output is not of
        the head's task; a version that fails on every one of the rows that were tried.
    """
    truth = {head.output: labels.labels(examples, head) for head in heads}
    weights = None if weight is None else labels.weights(examples, weight)
    hashes = identity.hashes(examples, id_column)
    rows = np.arange(len(examples))
    reasons: dict[int, str] = {}
    attempts: dict[str, _Attempt] = {}
    for version, model in versions.items():
        attempt = attempts[version] = _Attempt(version, model, heads)
        attempt.run(examples, rows)
        reasons.update(attempt.reasons)
        rows = np.setdiff1d(rows, list(attempt.reasons), assume_unique=True)
        if not len(rows):
            break
    ...
