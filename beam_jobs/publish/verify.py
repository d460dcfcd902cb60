"""Verifies before publishing that every row was read once, scored or rejected, and added up."""

from __future__ import annotations

from collections import Counter

from evalbeam.beam_jobs.job import Job
from evalbeam.transforms import batch, errors
from evalbeam.transforms.ledger import Ledger
from evalbeam.transforms.metrics import metric
from evalbeam.transforms.metrics.evaluation import Evaluation
from evalbeam.transforms.metrics.plan import plan
from evalbeam.transforms.results.index import Index

_MAX_LETTERS = 5


def reconcile(job: Job, ledger: Ledger) -> None:
    """Checks that every shard was read to the end, and every row scored or, rarely, rejected.

    Raises:
      JobError: a shard or row is missing.
      DataError: too many rows were rejected.
    """
    read = Counter((shard.split, shard.path, shard.piece) for shard in ledger.shards)
    if read != Counter((shard.split, shard.path, shard.piece) for shard in job.shards):
        raise errors.JobError(
            f"each of {len(job.shards)} shards should have been read once, but the ledgers list "
            f"{len(ledger.shards)}: nothing published"
        )
    check_counts(ledger)
    _check_dead_letters(job, ledger)
    if not ledger.scored[batch.MAIN_SPLIT]:
        raise errors.DataError("no row of data.files could be scored: nothing published")


def check_counts(ledger: Ledger) -> None:
    """Checks that every row was scored or rejected; raises JobError otherwise."""
    dead = ledger.dead
    for split, rows in ledger.read.items():
        if rows != ledger.scored[split] + dead[split]:
            raise errors.JobError(
                f"Split {split!r}: {rows:,} rows were read, but {ledger.scored[split]:,} scored "
                f"and {dead[split]:,} rejected: nothing published"
            )


def _check_dead_letters(job: Job, ledger: Ledger) -> None:
    letters = ledger.dead_letters
    dead, read = ledger.dead.total(), ledger.read.total()
    unknown = [letter for letter in letters if letter.rows is None]
    if not unknown and dead <= job.max_dead_letters * read:
        return
    limit = f"data.max_dead_letters allows a share of {job.max_dead_letters:g}"
    if unknown:
        limit = "the number of rows after the damage is unknown"
    first = [*unknown, *(letter for letter in letters if letter.rows is not None)]
    lines = "\n".join(f"  {letter}" for letter in first[:_MAX_LETTERS])
    more = len(letters) - _MAX_LETTERS
    raise errors.DataError(
        f"{dead:,} of {read:,} rows could not be scored, and {limit}; nothing published.\n{lines}"
        + (f"\n  and {more:,} more" if more > 0 else "")
    )


def verify(evaluation: Evaluation, index: Index, ledger: Ledger) -> None:
    """Checks that the table has every scored row once, and every slice column.

    Raises:
      JobError: rows were lost or duplicated.
      ConfigError: no row has a value of a slice column.
    """
    if Counter(index.examples) != +ledger.scored:
        raise errors.JobError(
            f"{ledger.scored.total():,} rows were scored, but the merged table holds "
            f"{sum(index.examples.values()):,}: nothing published"
        )
    for term in evaluation.terms():
        if term.value is None and term.column not in index.columns:
            raise errors.ConfigError(
                f"slices: column {term.column!r} has no value in any of the "
                f"{ledger.read.total():,} rows; check its name"
            )


def note_open_ends(ledger: Ledger) -> list[str]:
    """A note on the text files that end without a line end, as files do that are cut off."""
    paths = sorted({shard.path for shard in ledger.shards if shard.open_end})
    if not paths:
        return []
    return [f"no line end after the last row, which may be cut off: {errors.shortened(paths)}"]


def note_missing_numbers(evaluation: Evaluation, index: Index) -> list[str]:
    """A note for each metric by TFMA that has no number in the tables, and the versions without.

    Its result is none, such as a sample of examples or a plot, or TFMA did not compute it.
    """
    numbers = {(number.key.metric, number.key.model) for number in index.numbers}
    notes = []
    for planned in plan(evaluation).by_tfma:
        spec = planned.spec
        name = spec.arguments.get("name", metric.snake_case(spec.class_name))
        versions = spec.models or evaluation.models
        without = [version for version in versions if (name, version) not in numbers]
        named = any(result.startswith(name) for result, _ in numbers)
        if without and not named:
            notes.append(
                f"{spec.class_name} has no number for {', '.join(without)}: what TFMA made of it "
                "is in tfma/ only"
            )
    return notes


def note_empty_slices(evaluation: Evaluation, index: Index) -> list[str]:
    """A note for each slice value of the config that no example has."""
    empty = sorted(evaluation.named_values() - set(index.values), key=str)
    return [f"slice {column}={value} has no examples" for column, value in empty]
