"""What a version costs: its size, the time it takes to load and to predict, its memory."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evalbeam.transforms import batch, errors, models
from evalbeam.transforms.models import files, memory

# Of each version at most so many calls are timed, in about so many seconds.
_CALLS = 40
_SECONDS = 0.25
# Calls before those, which allocate and compile what later ones use.
_WARM_UP = 3


@dataclass(frozen=True)
class Times:
    """How long predictions took, in microseconds an example, over `calls` of `rows` examples."""

    rows: int
    calls: int
    median_us: float
    p95_us: float


@dataclass(frozen=True)
class Measures:
    """What one version costs.

    Attributes:
      size_bytes: of its files; None where it has none.
      parameters: how many numbers were trained; None where that is not known.
      load_s: what loading took, its library's import left out.
      memory_bytes: what loading and predicting took at their peak, beyond what the process held
        before; of a process of its own, all of it. None where the system does not say.
      batch: predicting batches of the job's size, or of fewer rows where those take long.
      single: predicting one example at a time.
    """

    size_bytes: int | None
    parameters: int | None
    load_s: float
    memory_bytes: int | None
    batch: Times
    single: Times


def measure(
    specs: Sequence[models.ModelSpec], examples: batch.Batch, batch_size: int
) -> tuple[dict[str, Measures], dict[str, str]]:
    """By version's name, what it costs; and why some could not be measured, by name too.

    Stored predictions cost nothing now, and are in neither.

    Args:
      specs: the versions; they are loaded already.
      examples: such as all versions can score.
      batch_size: the job's.
    """
    one = examples.take(np.arange(1))
    made, failed, affordable = {}, {}, [batch_size]
    for spec in specs:
        if spec.kind == "stored":
            continue
        model = models.load(spec)
        # What the job would survive, by scoring such batches in halves, is no reason to end here.
        try:
            model.predict(one)
            affordable.append(_affordable(model, examples))
            made[spec] = model
        except Exception as error:
            failed[spec.name] = f"{type(error).__name__}: {error}"
    if not made:
        return {}, failed
    large, predicting = _large(made, examples, min(affordable))
    batches, singles = _times(made, large), _times(made, one)
    found = {}
    for spec, model in made.items():
        loading = models.loading(spec)
        found[spec.name] = Measures(
            files.size_bytes(spec.path) if spec.path else None,
            model.parameters,
            loading.seconds,
            _memory(model, loading, predicting[spec]),
            batches[spec],
            singles[spec],
        )
    return found, failed


def _affordable(model: models.Model, examples: batch.Batch) -> int:
    """How many rows a few calls can have, a power of two, so that runs can be compared."""
    seconds: list[float] = []
    # The fastest of some: the first may still be warming up. Of a slow model one says enough.
    while len(seconds) < _WARM_UP and sum(seconds) < _SECONDS:
        started = time.perf_counter()
        model.predict(examples)
        seconds.append(time.perf_counter() - started)
    rows = max(1, int(_SECONDS / (2 * _WARM_UP) / min(seconds) * len(examples)))
    return 1 << (rows.bit_length() - 1)


def _large(
    made: Mapping[models.ModelSpec, models.Model], examples: batch.Batch, rows: int
) -> tuple[batch.Batch, dict[models.ModelSpec, int | None]]:
    """A batch of so many of the examples, again and again; of fewer where some model raises.

    And by version the memory that predicting it took, at the first call, which allocates it.
    """
    while True:
        large = examples.take(np.resize(np.arange(len(examples)), rows))
        taken: dict[models.ModelSpec, int | None] = {}
        try:
            for spec, model in made.items():
                taken[spec] = _peak(model, large)
            return large, taken
        except Exception as error:
            if rows == 1:  # It took this one before: the model itself is gone.
                raise errors.JobError(f"Version {spec.name!r}: {error}") from error
            rows //= 2


def _peak(model: models.Model, examples: batch.Batch) -> int | None:
    watch = memory.Watch()
    model.predict(examples)
    return watch.peak()


def _memory(model: models.Model, loading: models.Loading, predicting: int | None) -> int | None:
    if model.pid is not None:
        return memory.peak_of(model.pid)
    if loading.peak_bytes is None or loading.kept_bytes is None or predicting is None:
        return None
    return max(loading.peak_bytes, loading.kept_bytes + predicting)


def _times(
    made: Mapping[models.ModelSpec, models.Model], examples: batch.Batch
) -> dict[models.ModelSpec, Times]:
    """The versions take turns, so that what else the machine does slows all of them alike."""
    for model in made.values():
        for _ in range(_WARM_UP):
            model.predict(examples)
    seconds: dict[models.ModelSpec, list[float]] = {spec: [] for spec in made}
    ends = time.perf_counter() + _SECONDS * len(made)
    for _ in range(_CALLS):
        for spec, model in made.items():
            started = time.perf_counter()
            model.predict(examples)
            seconds[spec].append(time.perf_counter() - started)
        if time.perf_counter() > ends:
            break
    return {spec: _summary(found, len(examples)) for spec, found in seconds.items()}


def _summary(seconds: list[float], rows: int) -> Times:
    median, p95 = np.percentile(np.array(seconds) / rows * 1e6, [50, 95]).tolist()
    return Times(rows, len(seconds), median, p95)
