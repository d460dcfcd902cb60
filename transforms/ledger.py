"""The counts of a job, kept in the data: Beam's counters count a retried bundle twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from evalbeam.transforms.batch import MAIN_SPLIT, DeadLetter, Scored, Seen
from evalbeam.transforms.examples import identity

# The ledger's counters, which are added up and saved alike.
_COUNTERS = ("scored", "fingerprints", "predict_seconds", "workers")


@dataclass(frozen=True)
class ShardCounts:
    """The rows of a shard; recorded at its end. `open_end`: of a text without a last line end."""

    split: str
    path: str
    piece: int | None
    rows: int
    dead_letters: int
    open_end: bool = False


@dataclass
class Ledger:
    """What a batch, a task or a bundle did; the sum of all ledgers is what the job did.

    Attributes:
      shards: the shards that were read to the end.
      dead_letters: the rows that could not be read or scored.
      scored: by split, the number of scored examples.
      fingerprints: by split, the sum modulo 2^64 of a hash of each example's identity and labels:
        equal for the same examples, whatever their order, files and batches.
      predict_seconds: by version, the time that its predictions took.
      differences: by conversion and output, the largest difference of a score from the original's.
      seen: by version and output, what was seen of the scores of classification outputs.
      workers: by worker process, the number of examples it scored.
      batches: the number of scored batches.
      state_bytes: the size of the tables of sums that bundles emitted to be shuffled and merged.
    """

    shards: list[ShardCounts] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    scored: Counter[str] = field(default_factory=Counter)
    fingerprints: Counter[str] = field(default_factory=Counter)
    predict_seconds: Counter[str] = field(default_factory=Counter)
    differences: dict[str, dict[str, float]] = field(default_factory=dict)
    seen: dict[str, dict[str, Seen]] = field(default_factory=dict)
    workers: Counter[str] = field(default_factory=Counter)
    batches: int = 0
    state_bytes: int = 0

    @property
    def read(self) -> Counter[str]:
        """By split, the number of rows read."""
        rows: Counter[str] = Counter()
        for shard in self.shards:
            rows[shard.split] += shard.rows + shard.dead_letters
        return rows

    @property
    def dead(self) -> Counter[str]:
        """By split, the number of rejected rows."""
        rows: Counter[str] = Counter()
        for letter in self.dead_letters:
            rows[letter.split] += letter.least
        return rows

    def add(self, scored: Scored, worker: str, conversions: Iterable[tuple[str, str]] = ()) -> None:
        """Adds a batch that `worker` scored; `conversions` are (original, converted) pairs."""
        split = scored.batch.shard.split
        self.scored[split] += len(scored)
        fingerprint = identity.fingerprint(scored.hashes, scored.labels.values())
        self.fingerprints[split] = (self.fingerprints[split] + fingerprint) % 2**64
        self.predict_seconds.update(scored.predict_seconds)
        self.workers[worker] += len(scored)
        self.batches += 1
        self.see(scored)
        if split == MAIN_SPLIT:
            for original, converted in conversions:
                for output in scored.labels:
                    differences = scored.score_differences(original, converted, output)
                    self._keep_largest(converted, output, float(differences.max()))

    def _keep_largest(self, converted: str, output: str, difference: float) -> None:
        by_output = self.differences.setdefault(converted, {})
        by_output[output] = max(difference, by_output.get(output, 0.0))

    def see(self, scored: Scored) -> None:
        """Adds what was seen of a batch's scores."""
        for (version, output), seen in scored.seen.items():
            self._see(version, output, seen)

    def _see(self, version: str, output: str, seen: Seen) -> None:
        if seen.rows:
            by_output = self.seen.setdefault(version, {})
            by_output[output] = by_output.get(output, Seen()).merge(seen)

    @staticmethod
    def merge(ledgers: Iterable[Ledger]) -> Ledger:
        """The sum of several ledgers."""
        total = Ledger()
        for ledger in ledgers:
            total.shards += ledger.shards
            total.dead_letters += ledger.dead_letters
            for name in _COUNTERS:
                getattr(total, name).update(getattr(ledger, name))
            for converted, by_output in ledger.differences.items():
                for output, difference in by_output.items():
                    total._keep_largest(converted, output, difference)
            for version, outputs in ledger.seen.items():
                for output, seen in outputs.items():
                    total._see(version, output, seen)
            total.batches += ledger.batches
            total.state_bytes += ledger.state_bytes
        for split, value in total.fingerprints.items():
            total.fingerprints[split] = value % 2**64
        return total

    @staticmethod
    def parse(entry: Mapping[str, Any]) -> Ledger:
        """The ledger whose JSON object is given; raises some error if it is not one's."""
        counts = {
            name: Counter({key: +number for key, number in entry[name].items()})
            for name in _COUNTERS
        }
        return Ledger(
            shards=[ShardCounts(**shard) for shard in entry["shards"]],
            dead_letters=[DeadLetter(**letter) for letter in entry["dead_letters"]],
            differences={name: dict(outputs) for name, outputs in entry["differences"].items()},
            seen={
                version: {output: Seen(**seen) for output, seen in outputs.items()}
                for version, outputs in entry["seen"].items()
            },
            batches=entry["batches"],
            state_bytes=entry["state_bytes"],
            **counts,
        )
