"""Measures what a version costs: size, load time, prediction time, memory."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evalbeam.transforms import arrow, batch, errors, models
from evalbeam.transforms.models import failures, files, memory

# Per version, the most calls to time, and about how many seconds to spend on them.
_CALLS = 40
_SECONDS = 0.25
# Untimed calls before these, which allocate and compile.
_WARM_UP = 3


@dataclass(frozen=True)
class Times:
    """Prediction times, in microseconds per example, over `calls` calls of `rows` examples."""

    rows: int
    calls: int
    median_us: float
    p95_us: float


@dataclass(frozen=True)
class Measures:
    """The cost of one version.

    Attributes:
      size_bytes: the size of its files; None if it has none.
      parameters: the number of trained parameters; None if unknown.
      load_s: the load time in seconds, without importing the library.
      memory_bytes: the peak memory of loading and predicting, beyond what the process held before;
        all memory of a separate process. None if the system does not report it.
      batch: times of predicting batches of the job's size, or fewer rows if those take long.
      single: times of predicting one example at a time.
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
    """The measures by version name, and, by name too, why others could not be measured.

    Stored predictions cost nothing and are in neither.

    Args:
      specs: the versions, already loaded.
      examples: examples that all versions can score.
      batch_size: the job's batch size.
    """
    single = examples.take(np.arange(1))
    loaded, failed, affordable = {}, {}, [batch_size]
    for spec in specs:
        if spec.kind == "stored":
            continue
        model = models.load(spec)
        # Do not fail here: the job itself survives such errors by scoring batches in halves.
        try:
            model.predict(single)
            affordable.append(_affordable_rows(model, examples))
            loaded[spec] = model
        except arrow.UnequalRowsError:
            failed[spec.name] = "its examples differ in size, so that they take several calls"
        except Exception as error:
            failed[spec.name] = failures.explain(error)
    if not loaded:
        return {}, failed
    large, predict_bytes = _large_batch(loaded, examples, min(affordable))
    batches, singles = _time_calls(loaded, large), _time_calls(loaded, single)
    measures = {}
    for spec, model in loaded.items():
        loading = models.loading(spec)
        measures[spec.name] = Measures(
            files.size_bytes(spec.path) if spec.path else None,
            model.parameters,
            loading.seconds,
            _peak_bytes(model, loading, predict_bytes[spec]),
            batches[spec],
            singles[spec],
        )
    return measures, failed


def _affordable_rows(model: models.Model, examples: batch.Batch) -> int:
    """How many rows a few calls can afford: a power of two, so that runs are comparable."""
    seconds: list[float] = []
    # The fastest of several calls, as the first may still warm up; for a slow model one is enough.
    while len(seconds) < _WARM_UP and sum(seconds) < _SECONDS:
        started = time.perf_counter()
        model.predict(examples)
        seconds.append(time.perf_counter() - started)
    rows = max(1, int(_SECONDS / (2 * _WARM_UP) / min(seconds) * len(examples)))
    return 1 << (rows.bit_length() - 1)


def _large_batch(
    loaded: Mapping[models.ModelSpec, models.Model], examples: batch.Batch, rows: int
) -> tuple[batch.Batch, dict[models.ModelSpec, int | None]]:
    """A batch of this many rows, repeating the examples; fewer if a model fails on it.

    Also returns, by version, the memory that the first call took, which allocates it.
    """
    while True:
        large = examples.take(np.resize(np.arange(len(examples)), rows))
        peaks: dict[models.ModelSpec, int | None] = {}
        try:
            for spec, model in loaded.items():
                peaks[spec] = _predict_bytes(model, large)
            return large, peaks
        except Exception as error:
            if rows == 1:  # This row worked before, so the model itself is gone.
                raise errors.JobError(f"Version {spec.name!r}: {error}") from error
            rows //= 2


def _predict_bytes(model: models.Model, examples: batch.Batch) -> int | None:
    watch = memory.Watch()
    model.predict(examples)
    return watch.peak()


def _peak_bytes(
    model: models.Model, loading: models.Loading, predict_bytes: int | None
) -> int | None:
    if model.pid is not None:
        return memory.peak_of(model.pid)
    if loading.peak_bytes is None or loading.kept_bytes is None or predict_bytes is None:
        return None
    return max(loading.peak_bytes, loading.kept_bytes + predict_bytes)


def _time_calls(
    loaded: Mapping[models.ModelSpec, models.Model], examples: batch.Batch
) -> dict[models.ModelSpec, Times]:
    """Times the versions in turns, so that other load on the machine slows all of them alike."""
    for model in loaded.values():
        for _ in range(_WARM_UP):
            model.predict(examples)
    seconds: dict[models.ModelSpec, list[float]] = {spec: [] for spec in loaded}
    deadline = time.perf_counter() + _SECONDS * len(loaded)
    for _ in range(_CALLS):
        for spec, model in loaded.items():
            started = time.perf_counter()
            model.predict(examples)
            seconds[spec].append(time.perf_counter() - started)
        if time.perf_counter() > deadline:
            break
    return {spec: _summarize(calls, len(examples)) for spec, calls in seconds.items()}


def _summarize(seconds: list[float], rows: int) -> Times:
    median, p95 = np.percentile(np.array(seconds) / rows * 1e6, [50, 95]).tolist()
    return Times(rows, len(seconds), median, p95)
