"""What a version costs, measured on real models."""

import collections
import os
import subprocess
import sys

import numpy as np
import pytest

from evalbeam.transforms import models
from evalbeam.transforms.models import measure, memory


def test_a_models_files_parameters_and_times(folder, examples):
    spec = models.ModelSpec("v1", "keras", str(folder / "named.keras"), outputs=("p",))
    data = examples(age=[1.0, 2.0], x=[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    found, failed = measure.measure([spec], data, 64)
    one = found["v1"]
    assert failed == {}
    assert one.size_bytes == (folder / "named.keras").stat().st_size
    assert one.parameters == (4 * 1 + 1) + (4 * 2 + 2)
    assert one.load_s > 0
    assert one.single.rows == 1
    for times in (one.batch, one.single):
        assert times.calls >= 1
        assert 0 < times.median_us <= times.p95_us


def test_variables_of_a_saved_model_are_counted(folder):
    spec = models.ModelSpec("v1", "saved_model", str(folder / "exported"))
    assert models.load(spec).parameters == 4


def test_stored_predictions_cost_nothing(examples):
    spec = models.ModelSpec("v1", "stored", predictions=(("", ("p",)),))
    assert measure.measure([spec], examples(p=[0.5]), 64) == ({}, {})


class Fake:
    """A model with its own clock: fixed seconds per row, more in the first three calls of a size.

    It raises for more than `most` rows, and for fewer than `least`.
    """

    parameters = pid = None

    def __init__(self, clock, seconds, most, least):
        self.clock, self.seconds, self.most, self.least = clock, seconds, most, least
        self.calls = collections.Counter()

    def predict(self, examples):
        rows = len(examples)
        if not self.least <= rows <= self.most:
            raise ValueError(f"{rows} rows")
        self.calls[rows] += 1
        self.clock[0] += self.seconds * rows + (1.0 if self.calls[rows] <= 3 else 0.0)


@pytest.fixture
def measured(examples, monkeypatch):
    """Measures fakes, given as (seconds a row, most rows, least rows), with 10 examples."""
    clock = [0.0]
    monkeypatch.setattr(measure.time, "perf_counter", lambda: clock[0])

    def run(batch_size, **fakes):
        made = {name: Fake(clock, *fake) for name, fake in fakes.items()}
        loading = models.Loading(None, (), 1.5, 1000, 600)
        monkeypatch.setattr(models, "loading", lambda spec: loading)
        monkeypatch.setattr(models, "load", lambda spec: made[spec.name])
        specs = [models.ModelSpec(name, "keras") for name in fakes]
        data = examples(x=np.arange(10.0))
        for fake in made.values():
            fake.calls[len(data)] = 3  # the check's
        return (*measure.measure(specs, data, batch_size), made)

    return run


def test_warm_up_is_not_timed(measured):
    found, _, _ = measured(20, v1=(0.001, 1e9, 1))
    for times, rows in ((found["v1"].batch, 20), (found["v1"].single, 1)):
        assert times.rows == rows
        # The first calls took a second more.
        assert times.median_us == pytest.approx(1000)
        assert times.p95_us == pytest.approx(1000)
    assert found["v1"].load_s == 1.5


def test_a_slow_version_reduces_the_rows_of_all_versions(measured):
    found, _, made = measured(10_000, fast=(1e-6, 1e9, 1), slow=(0.005, 1e9, 1))
    assert found["fast"].batch.rows == found["slow"].batch.rows < 10
    assert found["fast"].batch.calls == found["slow"].batch.calls >= 1
    assert found["slow"].batch.median_us == pytest.approx(5000)
    assert sum(rows * calls for rows, calls in made["slow"].calls.items()) * 0.005 < 2


def test_a_version_that_fails_on_large_batches_is_measured_on_smaller_ones(measured):
    found, failed, _ = measured(64, v1=(1e-6, 20, 1), v2=(1e-6, 1e9, 1))
    assert failed == {}
    assert found["v1"].batch.rows == found["v2"].batch.rows == 16


def test_a_version_that_cannot_be_measured_does_not_stop_the_run(measured):
    found, failed, _ = measured(64, alone=(1e-6, 1e9, 2), good=(1e-6, 1e9, 1))
    assert failed == {"alone": "ValueError: 1 rows"}
    assert list(found) == ["good"]
    assert measured(64, none=(1e-6, 5, 1))[:2] == ({}, {"none": "ValueError: 10 rows"})


needs_clear_refs = pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="this system does not report peaks"
)


@needs_clear_refs
def test_memory_is_what_is_held_beyond_what_was():
    program = """
import numpy as np
from evalbeam.transforms.models import memory
before = np.ones(50_000_000 // 8)
watch = memory.Watch()
kept = np.ones(40_000_000 // 8)
freed = np.ones(80_000_000 // 8)
del freed
print(watch.kept(), watch.peak())
"""
    kept, peak = subprocess.check_output([sys.executable, "-c", program], text=True).split()
    assert 39e6 < int(kept) < 45e6
    assert 119e6 < int(peak) < 126e6


@needs_clear_refs
def test_the_peak_of_another_process():
    program = "import sys; x = bytearray(100_000_000); del x; print(); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        found = memory.peak_of(process.pid)
        process.stdin.close()
    assert 100e6 < found < 150e6


def test_memory_is_none_if_the_system_does_not_report_it(monkeypatch):
    monkeypatch.setattr(memory, "_read", lambda *_: None)
    watch = memory.Watch()
    assert (watch.peak(), watch.kept(), memory.peak_of(1)) == (None, None, None)
