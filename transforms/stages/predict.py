"""Scores each batch with every version while it is in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import apache_beam as beam
from apache_beam import pvalue
from apache_beam.metrics.metric import Metrics

from evalbeam.transforms import models
from evalbeam.transforms.batch import Batch, Scored
from evalbeam.transforms.examples import labels, scores, scoring
from evalbeam.transforms.ledger import Ledger
from evalbeam.transforms.models import ModelSpec
from evalbeam.transforms.stages import coders  # noqa: F401  # registers coders

LEDGERS = "ledgers"


@dataclass(eq=False)  # Not frozen: Beam sets the label of a transform when it is applied.
class Predict(beam.PTransform[pvalue.PCollection[Batch], pvalue.DoOutputsTuple]):
    """PCollection[Batch] -> `scored`: PCollection[Scored], `ledgers`: PCollection[Ledger].

    A row that any version cannot score is a dead letter for all versions, so that they are compared
    over the same rows; a ledger has the dead letters of a batch.

    Attributes:
      models: the versions; loaded once per worker process.
      heads: the outputs to evaluate; every version has them.
      weight: the column of the example weights, if any.
      id: the column that identifies an example, if any.
      preprocessing: the signatures whose outputs are columns, too.
      strict: whether any dead letter fails the run, see `scoring.score`.
    """

    models: tuple[ModelSpec, ...]
    heads: tuple[labels.Head, ...]
    weight: str | None
    id: str | None
    preprocessing: tuple[ModelSpec, ...] = ()
    strict: bool = True

    def expand(self, batches: pvalue.PCollection[Batch]) -> pvalue.DoOutputsTuple:
        """A single fused step; batches are never shuffled."""
        return batches | "Score" >> beam.ParDo(
            _Score(self.models, self.heads, self.weight, self.id, self.preprocessing, self.strict)
        ).with_output_types(Scored).with_outputs(LEDGERS, main="scored")


class _Score(beam.DoFn):
    def __init__(
        self,
        specs: tuple[ModelSpec, ...],
        heads: tuple[labels.Head, ...],
        weight: str | None,
        id_column: str | None,
        preprocessing: tuple[ModelSpec, ...],
        strict: bool,
    ) -> None:
        self._preprocessing = preprocessing
        self._strict = strict
        self._specs = specs
        self._scales: dict[str, scores.Scale] = {spec.name: spec.scores for spec in specs}
        self._heads = heads
        self._weight = weight
        self._id = id_column
        self._scored = Metrics.counter("evalbeam", "examples_scored")
        self._dead = Metrics.counter("evalbeam", "examples_dead_lettered")
        self._milliseconds = {
            spec.name: Metrics.distribution("evalbeam", f"predict_ms_{spec.name}") for spec in specs
        }

    def setup(self) -> None:
        self._models = {spec.name: models.load(spec) for spec in self._specs}
        self._transforms = [models.load(spec) for spec in self._preprocessing]

    def process(self, batch: Batch) -> Iterator[Scored | pvalue.TaggedOutput[str, Ledger]]:
        transformed, letters = scoring.transform(batch, self._transforms, strict=self._strict)
        scored = None
        if transformed is not None:
            scored, more = scoring.score(
                *(transformed, self._models, self._heads, self._weight, self._id, self._scales),
                strict=self._strict,
            )
            letters += more
        self._dead.inc(len(letters))
        if letters:
            yield pvalue.TaggedOutput(LEDGERS, Ledger(dead_letters=letters))
        if scored is not None:
            self._scored.inc(len(scored))
            for version, seconds in scored.predict_seconds.items():
                self._milliseconds[version].update(round(seconds * 1000))
            yield scored
