"""The job on a Flink cluster is the job on a laptop, whatever dies meanwhile."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import boto3
import pytest
from conftest import Flink, Job, assert_equal, ended, eventually, findings, manifest
from moto.server import ThreadedMotoServer

from evalbeam.transforms.models.tfjs import install


@pytest.fixture(scope="module")
def undisturbed(flink: Flink, processes: tuple[str, str], large: tuple[Job, Path]) -> Path:
    """The large job's results on the cluster when nothing happens."""
    job, _ = large
    return job.run("undisturbed", *flink.flags, *processes)


def test_the_demo_through_worker_pools(flink: Flink, demo: tuple[Job, Path]) -> None:
    job, expected = demo
    found = job.run("pools", *flink.flags, *flink.pools)
    assert_equal(found, expected)
    told = manifest(found)
    assert told["runner"] == "FlinkRunner"
    assert told["job_id"].startswith("BeamApp-")
    assert told["options"]["flink_master"] == flink.master
    assert len(told["workers"]) == 2


def test_a_model_in_every_form(flink: Flink, digits: tuple[Job, Path]) -> None:
    job, expected = digits
    found = job.run("forms", *flink.flags, *flink.pools)
    assert_equal(found, expected)
    assert findings(found) == findings(expected)
    kinds = {model["kind"] for model in manifest(found)["models"].values()}
    assert kinds >= {"saved_model", "keras", "tflite", "onnx"}
    assert "tfjs" in kinds or install.missing()


@pytest.mark.parametrize("name", ["demo", "digits"])
def test_results_are_rebuilt_and_merged_on_the_cluster(
    flink: Flink, request: pytest.FixtureRequest, name: str
) -> None:
    job, whole = request.getfixturevalue(name)
    on_flink = (*flink.flags, *flink.pools)
    rebuilt = job.rebuild(whole, "rebuilt", *on_flink)
    halves = job.halves()
    locally = job.merge(halves, "merged-locally")
    merged = job.merge(halves, "merged", *on_flink)
    for found, expected in ((rebuilt, whole), (merged, locally), (merged, whole)):
        assert_equal(found, expected)
        assert findings(found) == findings(expected)
    assert manifest(merged)["runner"] == "FlinkRunner"
    assert manifest(merged)["merged"] == ["half-0", "half-1"]


def test_work_is_spread_and_only_sums_are_shuffled(
    flink: Flink, large: tuple[Job, Path], undisturbed: Path
) -> None:
    job, expected = large
    assert_equal(undisturbed, expected)
    told = manifest(undisturbed)
    scored = told["workers"].values()
    # 40 shards, dealt out in turn.
    assert len(scored) == 2
    assert max(scored) < 1.5 * min(scored)
    assert sum(scored) == 4_000_000
    # By Flink's own count of what went from combining to merging, and by ours of the tables.
    shuffled = sum(
        vertex["metrics"]["write-bytes"]
        for vertex in flink.get(f"jobs/{flink.jobs()[-1]['jid']}")["vertices"]
        if "GroupCombine" in vertex["name"]
    )
    data = sum(path.stat().st_size for path in job.folder.glob("data-4000000/*"))
    print(f"{data:,} bytes of data, {told['state_bytes']:,} of tables, {shuffled:,} shuffled")
    assert 0 < 4 * shuffled < told["state_bytes"] < data / 20


def test_a_worker_that_dies_costs_time_only(
    flink: Flink, processes: tuple[str, str], large: tuple[Job, Path], undisturbed: Path
) -> None:
    job, _ = large
    command = job.start_scoring("worker-died", *flink.flags, *processes)
    os.kill(flink.processes.workers()[0], signal.SIGKILL)
    found = job.finished(command, "worker-died")
    assert f"Flink 1.20.5 at http://{flink.master}: 2 of 2 slots are free" in job.told
    assert re.search(r"^[\d,]+ examples, [\d,]+ examples/s, [\d,]+ s left$", job.told, re.M)
    assert "Traceback" not in job.told
    assert _attempts(flink) > 0
    assert_equal(found, undisturbed, exactly=True)


def test_a_taskmanager_that_dies_costs_time_only(
    flink: Flink, processes: tuple[str, str], large: tuple[Job, Path], undisturbed: Path
) -> None:
    job, _ = large
    command = job.start_scoring("taskmanager-died", *flink.flags, *processes)
    flink.kill_taskmanager("taskmanager-1")
    flink.add_taskmanager()  # as Kubernetes would, or whoever looks after the cluster
    found = job.finished(command, "taskmanager-died")
    assert _attempts(flink) > 0
    assert_equal(found, undisturbed, exactly=True)


def test_a_launcher_that_dies_publishes_nothing(
    flink: Flink, processes: tuple[str, str], large: tuple[Job, Path], undisturbed: Path
) -> None:
    job, _ = large
    latest = (job.folder / "results" / "latest").resolve()
    command = job.start_scoring("launcher-died", *flink.flags, *processes)
    os.killpg(command.pid, signal.SIGKILL)
    command.communicate()
    assert not (job.runs / "launcher-died").exists()
    assert (job.folder / "results" / "latest").resolve() == latest
    # The job may run again, which sweeps up what the other left; and that one then gives up.
    orphan = flink.jobs()[-1]["jid"]
    found = job.run("launcher-died", *flink.flags, *processes)
    assert_equal(found, undisturbed, exactly=True)
    eventually("the orphan gives up", lambda: flink.get(f"jobs/{orphan}")["state"] == "FAILED")
    assert "the process that started the job is gone" in str(flink.get(f"jobs/{orphan}/exceptions"))
    assert not (job.folder / "results" / ".staging").exists()


def test_an_interrupted_job_is_cancelled(
    flink: Flink, processes: tuple[str, str], large: tuple[Job, Path]
) -> None:
    job, _ = large
    command = job.start_scoring("interrupted", *flink.flags, *processes)
    os.kill(command.pid, signal.SIGTERM)
    _, err = ended(command)
    assert command.returncode == 130, err
    assert "interrupted: nothing was published" in err
    assert "Traceback" not in err
    assert not (job.runs / "interrupted").exists()
    assert not (job.folder / "results" / ".staging").exists()
    eventually("Flink cancels the job", lambda: flink.jobs()[-1]["state"] == "CANCELED")
    eventually("its workers end", lambda: not flink.processes.workers())


def test_what_fails_on_a_worker_is_told(
    flink: Flink, processes: tuple[str, str], demo: tuple[Job, Path]
) -> None:
    job, _ = demo
    data = sorted((job.folder / "demo" / "data").glob("eval-*.tfrecord"))[-1]
    whole = data.read_bytes()
    data.write_bytes(whole[:-100])
    try:
        command = job.start("damaged", *flink.flags, *processes)
        _, err = ended(command)
    finally:
        data.write_bytes(whole)
    assert command.returncode == 2
    assert re.search(r"rows could not be scored.*nothing published", err), err
    assert "truncated record; the rest of the file cannot be read" in err
    assert "Traceback" not in err
    assert not (job.runs / "damaged").exists()


def _attempts(flink: Flink) -> int:
    """How often the newest job was started again."""
    job = flink.jobs()[-1]["jid"]
    return len(flink.get(f"jobs/{job}/exceptions")["exceptionHistory"]["entries"])


def test_data_models_and_results_in_an_object_store(
    flink: Flink, processes: tuple[str, str], demo: tuple[Job, Path], tmp_path: Path
) -> None:
    job, expected = demo
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        keys = {"aws_access_key_id": "key", "aws_secret_access_key": "not-so-secret"}
        client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys)
        client.create_bucket(Bucket="evaluations")
        for file in (job.folder / "demo").rglob("*"):
            if file.is_file():
                key = file.relative_to(job.folder).as_posix()
                client.upload_file(str(file), "evaluations", key)
        text = (job.folder / job.config).read_text()
        config = tmp_path / "remote.yaml"
        config.write_text(text.replace('"demo/', '"s3://evaluations/demo/'))
        command = Job(job.folder, str(config)).start(
            "remote",
            "--output=s3://evaluations/results",
            f"--s3_endpoint_url={endpoint}",
            "--s3_region_name=us-east-1",
            "--s3_access_key_id=key",
            "--s3_secret_access_key=not-so-secret",
            *flink.flags,
            *processes,
        )
        out, err = ended(command)
        assert command.returncode == 0, f"{out}\n{err}"
        stored = client.list_objects_v2(Bucket="evaluations", Prefix="results/")["Contents"]
        prefix = "results/runs/remote/"
        for key in (one["Key"] for one in stored):
            assert key == "results/latest" or key.startswith(prefix), key
            target = tmp_path / key
            target.parent.mkdir(parents=True, exist_ok=True)
            client.download_file("evaluations", key, str(target))
    finally:
        server.stop()
    assert (tmp_path / "results" / "latest").read_text() == "runs/remote\n"
    found = tmp_path / prefix
    assert_equal(found, expected)
    assert "not-so-secret" not in (found / "manifest.json").read_text()
