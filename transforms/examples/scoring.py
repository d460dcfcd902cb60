"""Scores each batch with every version, and sets aside rows that some version cannot score."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from evalbeam.transforms import arrow, batch, errors, models
from evalbeam.transforms.examples import identity, labels, scores
from evalbeam.transforms.models import columns, failures

# If this many rows, spread over a batch, all fail, then the data or the model is at fault.
_PROBES = 16


def score(
    examples: batch.Batch,
    versions: Mapping[str, models.Model],
    heads: Sequence[labels.Head],
    weight: str | None,
    id_column: str | None,
    scales: Mapping[str, scores.Scale],
    *,
    strict: bool = True,
) -> tuple[batch.Scored | None, list[batch.DeadLetter]]:
    """The rows that every version can score, or None if there are none; and the others.

    Which rows these are depends on each row alone, not on the batch that it is in.

    Args:
      examples: the rows.
      versions: the models.
      heads: the outputs to evaluate.
      weight: the column of the example weights, if any.
      id_column: the column that identifies an example, if any.
      scales: the scale of each version's scores.
      strict: whether any row without scores fails the run, so that a version that seems to fail on
        all rows need not be called for each of them.

    Raises:
      DataError: labels, weights or ids are missing or invalid; a version's output does not match
        the head's task; or, if `strict`, a version fails on all rows that were tried.
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
            results[version] = _predict(
                model, examples, rows, heads, scales[version], failed, strict=strict
            )
        except errors.JobError as error:
            raise type(error)(f"Version {version!r}, {examples.shard}: {error}") from error
        reasons |= {row: f"version {version!r}: {why}" for row, why in failed.items()}
        if failed:  # Otherwise setdiff1d would take as long as everything else.
            rows = np.setdiff1d(rows, list(failed), assume_unique=True)
        if not len(rows):
            break
    letters = [_dead_letter(examples, row, why) for row, why in sorted(reasons.items())]
    if not len(rows):
        return None, letters
    return batch.Scored(
        batch=examples.take(rows) if letters else examples,
        labels={output: values[rows] for output, values in truth.items()},
        weights=None if weights is None else weights[rows],
        hashes=hashes[rows],
        predictions={
            (version, head.output): result.select(head.output, rows)
            for version, result in results.items()
            for head in heads
        },
        predict_seconds={version: result.seconds for version, result in results.items()},
        seen={
            (version, output): seen
            for version, result in results.items()
            for output, seen in result.seen.items()
        },
    ), letters


def transform(
    examples: batch.Batch, transforms: Sequence[models.Model], *, strict: bool = True
) -> tuple[batch.Batch | None, list[batch.DeadLetter]]:
    """The rows that all transforms can take, with their outputs as columns, and the others.

    Raises:
      DataError: a transform fails on all rows that were tried, if `strict`, see `score`.
    """
    letters: list[batch.DeadLetter] = []
    for model in transforms:
        failed: dict[int, str] = {}
        pieces = _attempt(model, examples, np.arange(len(examples)), failed, probe=strict)
        letters += [
            _dead_letter(examples, row, f"preprocessing: {why}")
            for row, why in sorted(failed.items())
        ]
        if not pieces:
            return None, letters
        joined = _join(pieces)
        kept = examples.take(joined.rows) if failed else examples
        columns = {
            name: pa.array(list(values) if values.ndim > 1 else values)
            for name, values in joined.outputs.items()
        }
        examples = kept.with_columns(columns)
    return examples, letters


def predictions(model: models.Model, examples: batch.Batch) -> Mapping[str, np.ndarray]:
    """Output -> a model's predictions for the examples that it can score.

    Raises:
      DataError: it cannot score any of them.
    """
    failed: dict[int, str] = {}
    pieces = _attempt(model, examples, np.arange(len(examples)), failed, probe=True)
    if not pieces:
        raise errors.DataError(
            f"the model cannot score any of the first {len(examples)} examples of "
            f"{examples.shard}: {failed[0]}"
        )
    # Rows of other sizes may have outputs of other shapes.
    return max(pieces, key=lambda piece: len(piece.rows)).outputs


@dataclass(frozen=True)
class _Predictions:
    """A version's outputs for some rows (int64, ascending) of a batch.

    `seconds` is the time that they took, `seen` what was seen of the scores of each output.
    """

    rows: np.ndarray
    outputs: Mapping[str, np.ndarray]
    seconds: float
    seen: Mapping[str, batch.Seen] = field(default_factory=dict)

    def select(self, output: str, rows: np.ndarray) -> np.ndarray:
        """An output for some of the rows."""
        return self.outputs[output][np.searchsorted(self.rows, rows)]


def _predict(
    model: models.Model,
    examples: batch.Batch,
    rows: np.ndarray,
    heads: Sequence[labels.Head],
    scale: scores.Scale,
    failed: dict[int, str],
    *,
    strict: bool,
) -> _Predictions:
    """The predictions for all rows but those that it adds to `failed`, as heads take them."""
    pieces = []
    for piece in _attempt(model, examples, rows, failed, probe=strict):
        try:
            pieces.append(_convert(piece, heads, scale, failed))
        # The fault of these rows, not of the version, if others of the data fit.
        except errors.DataError as error:
            failed |= dict.fromkeys(piece.rows.tolist(), str(error))
    return _join(pieces) if pieces else _Predictions(rows[:0], {}, 0.0)


def _convert(
    piece: _Predictions,
    heads: Sequence[labels.Head],
    scale: scores.Scale,
    failed: dict[int, str],
) -> _Predictions:
    """The outputs as the heads take them; adds rows without a score to `failed`."""
    outputs, seen = {}, {}
    for head in heads:
        if head.output not in piece.outputs:
            raise errors.DataError(
                f"there is no output {head.output!r}; the model returns "
                f"{errors.listed(piece.outputs)}. List the outputs to evaluate with "
                "`outputs: [...]`"
            )
        predicted = piece.outputs[head.output]
        outputs[head.output], undefined, look = scores.convert(predicted, head, scale)
        failed |= {int(piece.rows[row]): why for row, why in undefined.items()}
        if look is not None:
            seen[head.output] = look
    return replace(piece, outputs=outputs, seen=seen)


def _join(pieces: Sequence[_Predictions]) -> _Predictions:
    """The pieces in the order of their rows."""
    rows = np.concatenate([piece.rows for piece in pieces])
    order = np.argsort(rows)
    return _Predictions(
        rows[order],
        {
            output: np.concatenate([piece.outputs[output] for piece in pieces])[order]
            for output in pieces[0].outputs
        },
        sum(piece.seconds for piece in pieces),
        {
            output: functools.reduce(batch.Seen.merge, (piece.seen[output] for piece in pieces))
            for output in pieces[0].seen
        },
    )


def _attempt(
    model: models.Model,
    examples: batch.Batch,
    rows: np.ndarray,
    failed: dict[int, str],
    *,
    probe: bool,
    halved: bool = False,
) -> list[_Predictions]:
    """Predicts the rows together or, if that fails, in ever smaller halves down to the bad rows.

    Raises:
      DataError: `probe`, and the model fails on single rows as it does on all.
    """
    if not len(rows):
        return []
    try:
        return [_call(model, examples, rows, shared=not halved)]
    except errors.EvalbeamError:
        raise
    except arrow.UnscorableRowsError as error:
        failed |= {int(rows[row]): why for row, why in error.reasons.items()}
        rest = np.delete(rows, list(error.reasons))
        return _attempt(model, examples, rest, failed, probe=probe, halved=halved)
    except arrow.UnequalRowsError as error:
        pieces = []
        for group in error.groups:
            pieces += _attempt(model, examples, rows[group], failed, probe=probe, halved=halved)
        return pieces
    except Exception as error:  # A model can raise anything, perhaps because of some rows.
        if len(rows) == 1:
            failed[int(rows[0])] = failures.explain(error)
            return []
        if probe:
            _refuse_broken(model, examples, rows, error)
    pieces = []
    for half in np.array_split(rows, 2):
        pieces += _attempt(model, examples, half, failed, probe=False, halved=True)
    return pieces


def _call(
    model: models.Model, examples: batch.Batch, rows: np.ndarray, *, shared: bool = False
) -> _Predictions:
    if len(rows) == len(examples):
        chosen = examples
    elif shared:
        # Other versions score the same remaining rows, and can reuse what is computed from them.
        chosen = examples.memo.once(rows.tobytes(), functools.partial(examples.take, rows))
    else:
        chosen = examples.take(rows)
    # Computed for the first version that needs them, then shared, so part of no version's time.
    columns.arrays(model.inputs, chosen)
    started = time.perf_counter()
    outputs = model.predict(chosen)
    return _Predictions(rows, outputs, time.perf_counter() - started)


def _refuse_broken(
    model: models.Model, examples: batch.Batch, rows: np.ndarray, error: Exception
) -> None:
    """Raises DataError if single rows from all over the batch fail just as the batch did.

    Without this check, a model that always fails would be called twice per row of the data, to turn
    each row into a dead letter. With fewer rows than probes there is no verdict: a shard's last
    batch may have a single row, a bad one.
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
    raise errors.DataError(
        f"the model fails on a batch of {len(rows)} examples, and on each of the {_PROBES} of them "
        f"that were tried separately: {failures.explain(error)}. Check that the model matches the "
        "data"
    ) from error


def _dead_letter(examples: batch.Batch, row: int, reason: str) -> batch.DeadLetter:
    shard = examples.shard
    return batch.DeadLetter(
        shard.split, shard.path, int(examples.positions[row]), "predict", reason
    )
