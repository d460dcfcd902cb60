from __future__ import annotations

import os
import time

import apache_beam as beam
import pytest
from apache_beam.options import pipeline_options

from evalbeam.beam_jobs.launch import cluster, runner
from evalbeam.transforms import batch, errors
from evalbeam.transforms.models import memory

GB = 10**9


class Slow(bytes):
    """An element that takes longer to encode than Beam's second between two sendings."""


class SlowCoder(beam.coders.Coder):
    def encode(self, value):
        time.sleep(1.3)
        return bytes(value)

    def decode(self, encoded):
        return Slow(encoded)

    def is_deterministic(self):
        return True


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """Of 8 cores and plenty of memory; what is set for TensorFlow ends with the test."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(os, "sysconf", lambda name: 4096 if name == "SC_PAGE_SIZE" else 1 << 26)
    monkeypatch.setattr(memory, "_CONTAINER_LIMIT", tmp_path / "none")
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
    monkeypatch.setattr(memory, "_CONTAINER_LIMIT", tmp_path / "limit")
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


def test_secrets_are_not_shown():
    secret = "hunter2"
    flags = [
        f"--s3_secret_access_key={secret}",
        f"--job_server_jvm_property=-Djavax.net.ssl.keyStorePassword={secret}",
        f'--environment_config={{"command": "x", "env": {{"MINE": "{secret}"}}}}',
        f"--environment_options=mine={secret}",
        f"--s3_endpoint_url=https://me:{secret}@localhost",
        f"--temp_location=https://store/x?sv=1&sig={secret}",
        "--experiments=one",
        f"--experiments=db_passwd={secret}",
        "--job_name=nightly",
    ]
    visible = runner.redact(runner.options(flags))
    assert secret not in str(visible)
    assert visible["s3_secret_access_key"] == "(hidden)"
    assert visible["job_name"] == "nightly"
    assert visible["experiments"] == ["one", "(hidden)"]
    assert visible["runner"] == "DirectRunner"


def test_clusters_keep_workers_between_stages_by_default():
    flags = ["--runner=SparkRunner", "--environment_type=PROCESS"]
    visible = runner.redact(runner.options(flags))
    assert visible["environment_cache_millis"] == "60000"
    assert visible["experiments"] == ["disable_logging_submission_environment"]
    assert visible["job_server_jvm_properties"] == ["-Dspark.excludeOnFailure.enabled=(hidden)"]
    visible = runner.redact(runner.options([*flags, "--environment_cache_millis=5"]))
    assert visible["environment_cache_millis"] == "5"


def test_a_pipeline_leaves_the_options_as_they_are():
    options = runner.options(["--runner=PortableRunner", "--job_endpoint=localhost:1"])
    built = runner.pipeline(options)
    built.options.view_as(pipeline_options.StandardOptions).runner = None
    assert runner.name(options) == "PortableRunner"


def test_java_errors_are_reported_without_their_stack():
    text = (
        "Pipeline x failed in state FAILED: org.apache.spark.SparkException: Aborted: Lost task\n"
        "\tat org.apache.beam.sdk.X.run(X.java:12)\n\tat java.base/java.lang.Thread.run\n"
        "\t... 3 more\n\nDriver stacktrace:\n"
    )
    assert str(runner._explain(RuntimeError(text))) == (
        "The pipeline failed: Pipeline x failed in state FAILED: org.apache.spark.SparkException: "
        "Aborted: Lost task"
    )


def test_unusable_cluster_settings_are_reported_at_once(tmp_path):
    flink = ["--runner=FlinkRunner", "--flink_version=1.20"]
    with pytest.raises(errors.ConfigError, match=r"there is no such file.*fetch_jars.sh flink"):
        cluster.check(runner.options([*flink, f"--flink_job_server_jar={tmp_path}/none.jar"]))
    with pytest.raises(
        errors.JobError, match=r"Flink does not answer at http://localhost:1 .*refused"
    ):
        cluster.check(runner.options([*flink, "--flink_master=localhost:1"]))
    for config in ("", '--environment_config={"env": {}}'):
        flags = [*flink, "--environment_type=PROCESS", *([config] if config else [])]
        with pytest.raises(errors.ConfigError, match="needs a command in --environment_config"):
            cluster.check(runner.options(flags))
    relative = '--environment_config={"command": "evalbeam-worker"}'
    with pytest.raises(errors.ConfigError, match="write its full path"):
        cluster.check(runner.options([*flink, "--environment_type=PROCESS", relative]))
    with pytest.raises(errors.ConfigError, match=r"needs .* --job_endpoint=HOST:PORT"):
        cluster.check(runner.options(["--runner=PortableRunner"]))
    assert cluster.check(runner.options([])) is None


def test_elements_that_take_a_while_to_encode_arrive_whole_from_threads(tmp_path):
    beam.coders.registry.register_coder(Slow, SlowCoder)
    options = runner.options(["--direct_num_workers=2"])
    with runner.pipeline(options) as pipeline:
        values = (
            pipeline
            | beam.Create([0, 1])
            | beam.Map(lambda i: (i, Slow(b"%d" % i))).with_output_types(tuple[int, Slow])
            | beam.GroupByKey()
            | beam.MapTuple(lambda key, values: f"{key}: {b''.join(values).decode()}")
        )
        _ = values | beam.io.WriteToText(f"{tmp_path}/whole", shard_name_template="")
    assert sorted((tmp_path / "whole").read_text().split("\n")) == ["", "0: 0", "1: 1"]


def test_only_an_interrupt_is_one():
    for step in ("", " [while running 'Predict/Score']"):
        with pytest.raises(KeyboardInterrupt):
            raise runner._explain(RuntimeError(f"Traceback ...\nKeyboardInterrupt{step}\n"))
    explained = runner._explain(RuntimeError("column 'KeyboardInterrupt' is missing"))
    assert isinstance(explained, errors.JobError)
