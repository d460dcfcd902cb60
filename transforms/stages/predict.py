"""Scores each batch with every version while it is in hand."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
from apache_beam import pvalue
from apache_beam.metrics.metric import Metrics

from evalbeam.transforms import arrow, batch, errors, ledger, models
from evalbeam.transforms.examples import identity, labels
from evalbeam.transforms.models import columns
from evalbeam.transforms.stages import coders  # noqa: F401

LEDGERS = "ledgers"

# So many rows, spread over a batch, that all fail mean that the data or the model is at fault.
_PROBES = 16
_REASON_CHARACTERS = 500
_GRAPH_STACK = ("Graph execution error", "Detected at node", "<stack traces", "File ")


@dataclass(eq=False)  # Not frozen: Beam sets the label of a transform when it is applied.
class Predict(beam.PTransform[pvalue.PCollection[batch.Batch], pvalue.DoOutputsTuple]):
    """PCollection[Batch] -> `scored`: PCollection[Scored], `ledgers`: PCollection[Ledger].

    A row that some version cannot score is a dead letter for all of them, so that versions are
    compared over the same rows; a ledger has those of a batch.

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

    def expand(self, batches: pvalue.PCollection[batch.Batch]) -> pvalue.DoOutputsTuple:
        """One fused step; the batches are never shuffled."""
        return batches | "Score" >> beam.ParDo(
            _Score(self.models, self.heads, self.weight, self.id)
        ).with_output_types(batch.Scored).with_outputs(LEDGERS, main="scored")


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
        self._scored = Metrics.counter("evalbeam", "examples_scored")
        self._dead = Metrics.counter("evalbeam", "examples_dead_lettered")
        self._milliseconds = {
            spec.name: Metrics.distribution("evalbeam", f"predict_ms_{spec.name}") for spec in specs
        }

    def setup(self) -> None:
        self._models = {spec.name: models.load(spec) for spec in self._specs}

    def process(
        self, examples: batch.Batch
    ) -> Iterator[batch.Scored | pvalue.TaggedOutput[str, ledger.Ledger]]:
        scored, dead = score(examples, self._models, self._heads, self._weight, self._id)
        self._dead.inc(len(dead))
        if dead:
            yield pvalue.TaggedOutput(LEDGERS, ledger.Ledger(dead_letters=dead))
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
    if not len(examples):
        return None, []
    truth = {head.output: labels.labels(examples, head) for head in heads}
    weights = None if weight is None else labels.weights(examples, weight)
    hashes = identity.hashes(examples, id_column)
    rows = np.arange(len(examples))
    reasons: dict[int, str] = {}
    results: dict[str, _Predictions] = {}
    for version, model in versions.items():
        failed: dict[int, str] = {}
        try:
            results[version] = _predict(model, examples, rows, heads, failed)
        except errors.JobError as error:
            raise errors.JobError(f"Version {version!r}, {examples.shard}: {error}") from error
        reasons |= {row: f"version {version!r}: {why}" for row, why in failed.items()}
        if failed:  # Else setdiff1d would take as long as all the rest.
            rows = np.setdiff1d(rows, list(failed), assume_unique=True)
        if not len(rows):
            break
    letters = [_letter(examples, row, why) for row, why in sorted(reasons.items())]
    if not len(rows):
        return None, letters
    return batch.Scored(
        batch=examples.take(rows) if letters else examples,
        labels={output: values[rows] for output, values in truth.items()},
        weights=None if weights is None else weights[rows],
        hashes=hashes[rows],
        predictions={
            (version, head.output): result.of(head.output, rows)
            for version, result in results.items()
            for head in heads
        },
        predict_seconds={version: result.seconds for version, result in results.items()},
    ), letters


def predictions(model: models.Model, examples: batch.Batch) -> Mapping[str, np.ndarray]:
    """By output, a model's predictions of those of the examples that it can score.

    Raises:
      JobError: it can score none.
    """
    failed: dict[int, str] = {}
    found = _predict(model, examples, np.arange(len(examples)), (), failed)
    if not len(found.rows):
        raise errors.JobError(
            f"the model can score none of the first {len(examples)} examples of {examples.shard}: "
            f"{failed[0]}"
        )
    return found.outputs


@dataclass(frozen=True)
class _Predictions:
    """What a version gives for some rows (int64, ascending) of a batch, and the seconds it took."""

    rows: np.ndarray
    outputs: Mapping[str, np.ndarray]
    seconds: float

    def of(self, output: str, rows: np.ndarray) -> np.ndarray:
        """An output for some of the rows."""
        return self.outputs[output][np.searchsorted(self.rows, rows)]


def _predict(
    model: models.Model,
    examples: batch.Batch,
    rows: np.ndarray,
    heads: Sequence[labels.Head],
    failed: dict[int, str],
) -> _Predictions:
    """The model's predictions of all rows but those that it adds to `failed`."""
    pieces = _attempt(model, examples, rows, failed)
    if not pieces:
        return _Predictions(rows[:0], {}, 0.0)
    joined = _Predictions(
        np.concatenate([piece.rows for piece in pieces]),
        {
            output: np.concatenate([piece.outputs[output] for piece in pieces])
            for output in pieces[0].outputs
        },
        sum(piece.seconds for piece in pieces),
    )
    for head in heads:
        _check_output(head, joined.outputs)
        unknown = np.isnan(joined.outputs[head.output])
        for row in joined.rows[unknown if unknown.ndim == 1 else unknown.any(axis=1)]:
            failed[int(row)] = "the prediction is NaN"
    return joined


def _attempt(
    model: models.Model,
    examples: batch.Batch,
    rows: np.ndarray,
    failed: dict[int, str],
    *,
    halved: bool = False,
) -> list[_Predictions]:
    """Predicts the rows: at once, or in halves and their halves down to the rows that raise."""
    if not len(rows):
        return []
    try:
        return [_call(model, examples, rows, shared=not halved)]
    except errors.EvalbeamError:
        raise
    except arrow.UnscorableRowsError as error:
        failed |= {int(rows[row]): why for row, why in error.reasons.items()}
        rest = np.delete(rows, list(error.reasons))
        return _attempt(model, examples, rest, failed, halved=halved)
    except Exception as error:  # A model raises anything, and some rows may be the cause.
        if len(rows) == 1:
            failed[int(rows[0])] = _reason(error)
            return []
        if not halved:
            _refuse_broken(model, examples, rows, error)
    pieces = []
    for half in np.array_split(rows, 2):
        pieces += _attempt(model, examples, half, failed, halved=True)
    return pieces


def _call(
    model: models.Model, examples: batch.Batch, rows: np.ndarray, *, shared: bool = False
) -> _Predictions:
    if len(rows) == len(examples):
        chosen = examples
    elif shared:
        # Further versions score the same rest, and what was made of it serves them too.
        chosen = examples.memo.once(rows.tobytes(), functools.partial(examples.take, rows))
    else:
        chosen = examples.take(rows)
    # Made for the first version that takes them, and shared: no version's time.
    columns.arrays(model.inputs, chosen)
    started = time.perf_counter()
    outputs = model.predict(chosen)
    return _Predictions(rows, outputs, time.perf_counter() - started)


def _refuse_broken(
    model: models.Model, examples: batch.Batch, rows: np.ndarray, error: Exception
) -> None:
    """Raises JobError if rows from all over the batch fail alone in the way the batch did.

    Without it a model that fails on everything would take two calls for each row of the data,
    to make a dead letter of each. Fewer rows than probes prove nothing: a shard's last batch may
    hold one row, a bad one.
    """
    if len(rows) < _PROBES:
        return
    for row in rows[np.linspace(0, len(rows) - 1, _PROBES).astype(np.int64)]:
        try:
            _call(model, examples, np.array([row]))
            return
        except Exception as row_error:
            if type(row_error) is not type(error):
                return
    raise errors.JobError(
        f"the model fails on a batch of {len(rows)} examples and on each of the {_PROBES} of them "
        f"that were tried alone: {_reason(error)}. Check that the model and the data belong "
        "together"
    ) from error


def _check_output(head: labels.Head, outputs: Mapping[str, np.ndarray]) -> None:
    if head.output not in outputs:
        raise errors.JobError(
            f"no output {head.output!r}; it gives {errors.listed(outputs)}. Name the "
            "outputs to evaluate: `outputs: [...]`"
        )
    shape = outputs[head.output].shape
    seen = (
        f"output {head.output!r} has the shape {'[N]' if len(shape) == 1 else f'[N, {shape[1]}]'}"
    )
    if head.task in ("binary", "regression"):
        if len(shape) == 2:
            raise errors.JobError(f"{seen}; task {head.task} needs one prediction per example, [N]")
    elif len(shape) == 1 or head.classes not in (None, shape[1]):
        raise errors.JobError(
            f"{seen}; task {head.task} needs one prediction per class, [N, {head.classes or 'K'}]"
        )


def _letter(examples: batch.Batch, row: int, reason: str) -> batch.DeadLetter:
    shard = examples.shard
    return batch.DeadLetter(
        shard.split, shard.path, int(examples.positions[row]), "predict", reason
    )


def _reason(error: Exception) -> str:
    """The error on one line, without the graph's stack that TensorFlow puts before its message."""
    lines = (line.strip() for line in str(error).splitlines())
    told = " ".join(line for line in lines if line and not line.startswith(_GRAPH_STACK))
    return f"{type(error).__name__}: {told}"[:_REASON_CHARACTERS]
