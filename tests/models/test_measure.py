"""What a version costs, measured on real models."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass

import numpy as np
import pytest

from transforms import batch, models
from transforms.models import measure, memory


def test_a_models_files_parameters_and_times(folder, examples):
    spec = models.ModelSpec("v1", "keras", str(folder / "named.keras"), outputs=("p",))
    data = examples(age=[1.0, 2.0], x=[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    model = models.load(spec)
    model.predict(data)
    found = measure.measure({spec: model}, data, 64)["v1"]
    assert found.size_bytes == (folder / "named.keras").stat().st_size
    assert found.parameters == (4 * 1 + 1) + (4 * 2 + 2)
    assert 0 < found.load_s < 60
    assert found.batch.rows == 64
    assert found.single.rows == 1
    for times in (found.batch, found.single):
        assert times.calls >= 1
        assert 0 < times.median_us <= times.p95_us


def test_variables_of_a_saved_model_are_counted(folder):
    spec = models.ModelSpec("v1", "saved_model", str(folder / "exported"))
    assert models.load(spec).parameters == 4


def test_stored_predictions_cost_nothing(examples):
    spec = models.ModelSpec("v1", "stored", predictions=(("", "p"),))
    assert measure.measure({spec: models.load(spec)}, examples(p=[0.5]), 64) == {}


@dataclass
class Slow:
    """Takes so many seconds a row, notes its calls' rows; the second call takes longer."""

    seconds: float
    rows: list
    inputs: tuple = ()
    parameters: int | None = None
    pid: int | None = None

    def predict(self, examples: batch.Batch):
        time.sleep(self.seconds * len(examples) + (0.1 if len(self.rows) == 1 else 0.0))
        self.rows.append(len(examples))


def _measured(examples, monkeypatch, batch_size, **seconds):
    made = {models.ModelSpec(name, "keras"): Slow(s, []) for name, s in seconds.items()}
    loading = models.Loading(None, (), 1.5, 1000, 600)
    monkeypatch.setattr(models, "loading", lambda spec: loading)
    data = examples(x=np.arange(10.0))
    return measure.measure(made, data, batch_size), {m.name: made[m].rows for m in made}


def test_warm_up_is_left_out_and_the_share_of_a_row_is_told(examples, monkeypatch):
    found, _ = _measured(examples, monkeypatch, 20, v1=0.0005)
    assert found["v1"].batch.rows == 20
    assert 500 <= found["v1"].batch.median_us < 700
    assert 500 <= found["v1"].single.median_us < 1000
    assert found["v1"].load_s == 1.5


def test_a_slow_version_is_measured_with_fewer_rows_as_are_those_beside_it(examples, monkeypatch):
    found, rows = _measured(examples, monkeypatch, 10_000, fast=1e-6, slow=0.01)
    assert found["fast"].batch.rows == found["slow"].batch.rows < 10
    assert found["slow"].batch.calls == found["fast"].batch.calls
    assert sum(rows["slow"]) * 0.01 < 4


needs_clear_refs = pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="this system does not tell its peaks"
)


@needs_clear_refs
def test_memory_is_what_is_held_beyond_what_was():
    program = """
import numpy as np
from transforms.models import memory
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
def test_another_process_tells_its_peak():
    program = "import sys; x = bytearray(100_000_000); del x; print(); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        found = memory.peak_of(process.pid)
        process.stdin.close()
    assert 100e6 < found < 150e6


def test_where_the_system_tells_nothing_nothing_is_made_up(monkeypatch):
    monkeypatch.setattr(memory, "_read", lambda *_: None)
    watch = memory.Watch()
    assert (watch.peak(), watch.kept(), memory.peak_of(1)) == (None, None, None)
