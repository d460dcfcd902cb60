from __future__ import annotations

import os

import pytest
from apache_beam.options import pipeline_options

from beam_jobs import runner
from transforms import batch

GB = 10**9


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """Of 8 cores and plenty of memory; what is set for TensorFlow ends with the test."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(os, "sysconf", lambda name: 4096 if name == "SC_PAGE_SIZE" else 1 << 26)
    monkeypatch.setattr(runner, "_CONTAINER_LIMIT", tmp_path / "none")
    monkeypatch.setattr(runner, "_GPUS", f"{tmp_path}/none")
    for variable in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)


def spread(size_bytes: int, *flags: str, files: int = 100) -> tuple[int, str, str | None]:
    options = runner.options(flags)
    shards = [batch.Shard("eval", "x", "csv", None, size_bytes // files)] * files
    note = runner.use_processes(options, flags, shards)
    direct = options.view_as(pipeline_options.DirectOptions)
    return direct.direct_num_workers, direct.direct_running_mode, note


def test_little_data_stay_in_this_process():
    assert spread(GB // 10) == (1, "in_memory", None)
    assert "TF_NUM_INTRAOP_THREADS" not in os.environ


def test_much_data_get_a_process_for_each_core():
    workers, mode, note = spread(20 * GB)
    assert (workers, mode) == (8, "multi_processing")
    assert note is not None
    assert note.startswith("starting 8 worker processes for 20.0 GB of data")
    assert os.environ["TF_NUM_INTRAOP_THREADS"] == "1"


def test_processes_fit_into_memory(monkeypatch):
    monkeypatch.setattr(os, "sysconf", lambda name: 4096 if name == "SC_PAGE_SIZE" else 1 << 20)
    assert spread(200 * GB)[0] == 2  # of 4 GiB


def test_a_container_may_use_less(monkeypatch, tmp_path):
    (tmp_path / "limit").write_text(f"{6 << 30}\n")
    monkeypatch.setattr(runner, "_CONTAINER_LIMIT", tmp_path / "limit")
    assert spread(200 * GB)[0] == 3
    (tmp_path / "limit").write_text("max\n")
    assert spread(200 * GB)[0] == 8


def test_no_more_processes_than_shards():
    assert spread(200 * GB, files=1)[0] == 1
    assert spread(200 * GB, files=3)[0] == 3


def test_a_gpu_is_for_one_process(monkeypatch, tmp_path):
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(runner, "_GPUS", f"{tmp_path}/nvidia[0-9]*")
    assert spread(200 * GB)[0] == 1


def test_flags_are_left_alone():
    assert spread(200 * GB, "--direct_num_workers=1") == (1, "in_memory", None)
    workers = "--direct_num_workers=4"
    assert spread(0, workers) == (4, "multi_threading", None)
    assert spread(0, workers, "--direct_running_mode=multi_processing")[0] == 4
    assert os.environ["TF_NUM_INTRAOP_THREADS"] == "2"


def test_tasks_are_a_few_for_each_worker():
    assert runner.tasks(runner.options([])) == 1
    assert runner.tasks(runner.options(["--direct_num_workers=3"])) == 12
