"""What a job did, kept in the data: Beam's counters count a retried bundle twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from evalbeam.transforms import batch
from evalbeam.transforms.examples import identity


@dataclass(frozen=True)
class ShardCounts:
    """What a shard held; entered at its end."""

    split: str
    path: str
    piece: int | None
    rows: int
    dead_letters: int


@dataclass
class Ledger:
    """What a bundle, a task or a batch did, and by addition a job.

    Attributes:
      shards: those that were read to their end.
      dead_letters: what could not be read or scored.
      scored: by split, how many examples were scored.
      fingerprints: by split, the sum modulo 2^64 of one hash for each example's identity and
        labels: equal for the same examples in whatever order, files and batches.
      predict_seconds: by version, the time its predictions took.
      differences: by conversion and output, the largest difference of a score from the original's.
      workers: by worker process, how many examples it scored.
      batches: how many batches were scored.
      state_bytes: the size of the tables of sums that bundles gave to be shuffled and merged.
    """

    shards: list[ShardCounts] = field(default_factory=list)
    dead_letters: list[batch.DeadLetter] = field(default_factory=list)
    scored: Counter[str] = field(default_factory=Counter)
    fingerprints: Counter[str] = field(default_factory=Counter)
    predict_seconds: Counter[str] = field(default_factory=Counter)
    differences: dict[str, dict[str, float]] = field(default_factory=dict)
    workers: Counter[str] = field(default_factory=Counter)
    batches: int = 0
    state_bytes: int = 0

    @property
    def read(self) -> Counter[str]:
        """By split, how many rows were read."""
        rows: Counter[str] = Counter()
        for shard in self.shards:
            rows[shard.split] += shard.rows + shard.dead_letters
        return rows

    @property
    def dead(self) -> Counter[str]:
        """By split, how many rows were given up."""
        rows: Counter[str] = Counter()
        for letter in self.dead_letters:
            rows[letter.split] += letter.rows or 1  # of an unknown number, at least one
        return rows

    def add(
        self, scored: batch.Scored, worker: str, conversions: Iterable[tuple[str, str]] = ()
    ) -> None:
        """Enters a batch that `worker` scored; `conversions` are (original, converted) pairs."""
        split = scored.batch.shard.split
        self.scored[split] += len(scored)
        fingerprint = identity.fingerprint(scored.hashes, scored.labels.values())
        self.fingerprints[split] = (self.fingerprints[split] + fingerprint) % 2**64
        self.predict_seconds.update(scored.predict_seconds)
        self.workers[worker] += len(scored)
        self.batches += 1
        if split == batch.MAIN_SPLIT:
            for original, converted in conversions:
                for output in scored.labels:
                    apart = scored.score_differences(original, converted, output)
                    self._differ(converted, output, float(apart.max()))

    def _differ(self, converted: str, output: str, most: float) -> None:
        known = self.differences.setdefault(converted, {})
        known[output] = max(most, known.get(output, 0.0))

    @staticmethod
    def total(entries: Iterable[Mapping[str, Any]]) -> Ledger:
        """The sum of ledgers that are given as JSON has them."""
        whole = Ledger()
        for entry in entries:
            whole.shards += [ShardCounts(**counts) for counts in entry["shards"]]
            whole.dead_letters += [batch.DeadLetter(**letter) for letter in entry["dead_letters"]]
            for name in ("scored", "fingerprints", "predict_seconds", "workers"):
                getattr(whole, name).update(entry[name])
            for converted, of_outputs in entry["differences"].items():
                for output, most in of_outputs.items():
                    whole._differ(converted, output, most)
            whole.batches += entry["batches"]
            whole.state_bytes += entry["state_bytes"]
        for split, value in whole.fingerprints.items():
            whole.fingerprints[split] = value % 2**64
        return whole
