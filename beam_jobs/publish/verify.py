"""Before anything is published: every row read once, scored or given up, and in the table."""

from __future__ import annotations

from collections import Counter

from evalbeam.beam_jobs.job import Job
from evalbeam.transforms import batch, errors, ledger
from evalbeam.transforms.examples import slices
from evalbeam.transforms.metrics import statistics, table

_LETTERS_SHOWN = 5


def reconcile(job: Job, entered: ledger.Ledger) -> None:
    """Every shard read to its end, every row scored or given up, and not too many of these.

    Raises:
      JobError: otherwise.
    """
    read = Counter((shard.split, shard.path, shard.piece) for shard in entered.shards)
    if read != Counter((shard.split, shard.path, shard.piece) for shard in job.shards):
        raise errors.JobError(
            f"{len(job.shards)} shards were to be read once each, and {len(entered.shards)} were: "
            "nothing published"
        )
    dead = entered.dead
    for split, rows in entered.read.items():
        if rows != entered.scored[split] + dead[split]:
            raise errors.JobError(
                f"Split {split!r}: {rows:,} rows read, but {entered.scored[split]:,} scored and "
                f"{dead[split]:,} given up: nothing published"
            )
    _check_dead_letters(job, entered)
    if not entered.scored[batch.MAIN_SPLIT]:
        raise errors.JobError("no row of data.files could be scored: nothing published")


def _check_dead_letters(job: Job, entered: ledger.Ledger) -> None:
    letters = entered.dead_letters
    dead, read = entered.dead.total(), entered.read.total()
    unknown = [letter for letter in letters if letter.rows is None]
    if not unknown and dead <= job.max_dead_letters * read:
        return
    allowed = f"data.max_dead_letters allows a share of {job.max_dead_letters:g}"
    if unknown:
        allowed = "how many more stood behind the damage is unknown"
    first = [*unknown, *(letter for letter in letters if letter.rows is not None)]
    shown = "\n".join(
        f"  {letter.path}, row {letter.position}: {letter.reason}"
        for letter in first[:_LETTERS_SHOWN]
    )
    more = len(letters) - _LETTERS_SHOWN
    raise errors.JobError(
        f"{dead:,} of {read:,} rows could not be scored, and {allowed}; nothing published.\n{shown}"
        + (f"\n  and {more:,} more" if more > 0 else "")
    )


def verify(job: Job, merged: table.Table, entered: ledger.Ledger) -> list[str]:
    """The table holds every scored row once, and every slicing column; returns what is odd.

    Raises:
      JobError: rows that are lost or doubled.
      ConfigError: a slicing column that no row has.
    """
    in_table: Counter[str] = Counter()
    columns: set[str] = set()
    values: set[tuple[str, slices.Value]] = set()
    examples = merged.dense(statistics.Examples.name)[:, 0]
    for key, n in zip(merged.slices, examples, strict=True):
        columns.update(column for column, _ in key.pairs)
        values.update(key.pairs)
        if not key.pairs:
            in_table[key.split] += int(n)
    if in_table != +entered.scored:
        raise errors.JobError(
            f"{entered.scored.total():,} rows were scored, but the merged table holds "
            f"{in_table.total():,}: nothing published"
        )
    for spec in job.specs:
        for term in spec:
            if term.value is None and term.column not in columns:
                raise errors.ConfigError(
                    f"slices: column {term.column!r} has no value in any of the "
                    f"{entered.read.total():,} rows; check its name"
                )
    wanted = {
        (term.column, slices.canonical(term.value))
        for spec in job.specs
        for term in spec
        if term.value is not None
    }
    return [
        f"slice {column}={value}: no example" for column, value in sorted(wanted - values, key=str)
    ]
