"""Data, models and results in object stores, on local servers."""

import gzip
import io
import json
import os
import signal
import urllib.request
from typing import NamedTuple

import boto3
import numpy as np
import pandas as pd
import pytest
import yaml
from apache_beam.internal.gcp import auth
from apache_beam.io import filesystems, localfilesystem
from apache_beam.options import pipeline_options
from gcp_storage_emulator.server import create_server
from moto.server import ThreadedMotoServer

from evalbeam.beam_jobs.publish import staging
from evalbeam.transforms.examples import scoring
from evalbeam.transforms.formats import files
from evalbeam.transforms.stages import predict

TABLES = ("metrics.parquet", "confusion.parquet", "comparisons.parquet")
KEY, SECRET = "not-so-secret-key", "very-secret-key"


class Folders(localfilesystem.LocalFileSystem):
    """A remote filesystem that is not an object store."""

    @classmethod
    def scheme(cls):
        return "folders"


class Store(NamedTuple):
    endpoint: str
    client: object

    def flags(self, key=KEY, secret=SECRET):
        keys = (f"--s3_access_key_id={key}", f"--s3_secret_access_key={secret}")
        return (f"--s3_endpoint_url={self.endpoint}", "--s3_region_name=us-east-1", *keys)

    def put(self, key, content):
        self.client.put_object(Bucket="bucket", Key=key, Body=content)

    def get(self, key):
        return self.client.get_object(Bucket="bucket", Key=key)["Body"].read()

    def keys(self, prefix=""):
        listed = self.client.list_objects_v2(Bucket="bucket", Prefix=prefix).get("Contents", [])
        return {entry["Key"][len(prefix) :] for entry in listed}

    def table(self, key):
        return pd.read_parquet(io.BytesIO(self.get(key)))


@pytest.fixture(scope="module")
def server():
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """400 tf.Examples in two shards, one of them gzip; the same as tables; two models."""
    import keras
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"age": rng.normal(size=400).astype(np.float32)})
    frame["label"] = (rng.random(400) < 1 / (1 + np.exp(-frame["age"]))).astype(int)
    frame["plan"] = rng.choice(["free", "paid"], 400)
    frame["score"] = rng.random(400).round(3)
    records = []
    for row in frame.to_dict("records"):
        example = tf.train.Example()
        example.features.feature["age"].float_list.value.append(row["age"])
        example.features.feature["label"].int64_list.value.append(row["label"])
        example.features.feature["plan"].bytes_list.value.append(row["plan"].encode())
        records.append(example.SerializeToString())
    for i, part in enumerate((records[:250], records[250:])):
        with tf.io.TFRecordWriter(str(folder / f"data-{i}.tfrecord")) as writer:
            for record in part:
                writer.write(record)
    plain = folder / "data-1.tfrecord"
    (folder / "data-1.tfrecord.gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    frame.to_parquet(folder / "data.parquet", row_group_size=90)
    frame.to_csv(folder / "data.csv", index=False)
    keras.utils.set_random_seed(1)
    inputs = {"age": keras.Input((1,), name="age")}
    network = keras.Model(inputs, keras.layers.Dense(1, "sigmoid")(inputs["age"]))
    network.save(folder / "v1.keras")
    network.export(folder / "v2", verbose=False)
    return folder


@pytest.fixture
def store(server, world, monkeypatch):
    """A store with the world's files; only the flags have its endpoint and credentials."""
    for variable in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(variable, raising=False)
    for variable in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(variable, str(world / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    named = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET}
    client = boto3.client("s3", endpoint_url=server, region_name="us-east-1", **named)
    client.create_bucket(Bucket="bucket")
    store = Store(server, client)
    for file in world.rglob("*"):
        if file.is_file():
            store.put(file.relative_to(world).as_posix(), file.read_bytes())
    store.put("v2/", b"")  # as consoles of stores create folders
    yield store
    _post(server, "reset-auth", b"inf")
    _post(server, "reset")


def _post(server, what, content=b""):
    header = {"Content-Type": "text/plain"}
    request = urllib.request.Request(f"{server}/moto-api/{what}", content, header, method="POST")
    urllib.request.urlopen(request).read()


@pytest.fixture
def deny(store):
    """Makes credentials that deny an action on matching names, and lets the store check them."""

    def make(pattern, action="s3:PutObject"):
        named = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET}
        iam = boto3.client("iam", endpoint_url=store.endpoint, region_name="us-east-1", **named)
        iam.create_user(UserName="user")
        rules = [
            {"Effect": "Allow", "Action": "s3:*", "Resource": "*"},
            {
                "Effect": "Deny",
                "Action": action,
                "Resource": f"arn:aws:s3:::bucket/{pattern}",
            },
        ]
        policy = json.dumps({"Version": "2012-10-17", "Statement": rules})
        iam.put_user_policy(UserName="user", PolicyName="policy", PolicyDocument=policy)
        made = iam.create_access_key(UserName="user")["AccessKey"]
        _post(store.endpoint, "reset-auth", b"0")
        return store.flags(made["AccessKeyId"], made["SecretAccessKey"])

    return make


@pytest.fixture
def open_store(store):
    """Lets the test itself read without credentials."""

    def look():
        _post(store.endpoint, "reset-auth", b"inf")
        return store

    return look


@pytest.fixture
def run(evalbeam, tmp_path):
    def call(config, *flags):
        (tmp_path / "job.yaml").write_text(yaml.safe_dump(config))
        return evalbeam("run", "job.yaml", *flags)

    return call


def stored(files, **more):
    return {
        "data": {"files": files, "label": "label"},
        "models": [{"name": "v1", "predictions": "score"}],
        "slices": [["plan"]],
        "metrics": ["ExampleCount", "BinaryAccuracy", "AUC"],
        "output": "s3://bucket/results",
        **more,
    }


def modelled(root, output):
    models = [{"name": "v1", "path": f"{root}/v1.keras", "baseline": True}]
    models.append({"name": "v2", "path": f"{root}/v2"})
    data = {"files": f"{root}/data-*", "format": "tfrecord", "label": "label", "batch_size": 100}
    return stored([], data=data, models=models, output=output)


def assert_same(store, prefix, folder):
    """The run in the store equals the one in the folder, except for paths, name and times."""
    local = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert store.keys(prefix) == local
    for name in TABLES:
        pd.testing.assert_frame_equal(store.table(prefix + name), pd.read_parquet(folder / name))
    (state,) = (path.relative_to(folder).as_posix() for path in (folder / "state").glob("table-*"))
    pd.testing.assert_frame_equal(store.table(prefix + state), pd.read_parquet(folder / state))
    remote_manifest = json.loads(store.get(prefix + "manifest.json"))
    local_manifest = json.loads((folder / "manifest.json").read_text())
    for split, data in remote_manifest["data"].items():
        del data["files"], local_manifest["data"][split]["files"]
    assert remote_manifest["data"] == local_manifest["data"]


def test_a_run_on_s3_equals_the_run_on_local_files(run, store, world, tmp_path):
    flags = (*store.flags(), "--run-id", "first")
    result = run(modelled("s3://bucket", "s3://bucket/deep/results/"), *flags)
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    assert "results in s3://bucket/deep/results/runs/first\n" in result.output
    assert SECRET not in result.output
    assert run(modelled(world, "results"), "--run-id", "first").exit_code == 0
    assert_same(store, "deep/results/runs/first/", tmp_path / "results" / "runs" / "first")
    assert store.get("deep/results/latest") == b"runs/first\n"
    assert store.keys("deep/results/.staging") == set()
    assert SECRET not in store.get("deep/results/runs/first/manifest.json").decode()


def test_worker_processes_share_the_store(run, store, world, tmp_path):
    flags = ("--direct_num_workers=2", "--direct_running_mode=multi_processing", "--run-id=one")
    sliced = {"slices": [["plan"], {"key": "age", "quantiles": 4}]}
    result = run(stored("s3://bucket/data.parquet", **sliced), *flags, *store.flags())
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    local = stored(str(world / "data.parquet"), **sliced, output="results")
    assert run(local, "--run-id=one").exit_code == 0
    assert_same(store, "results/runs/one/", tmp_path / "results" / "runs" / "one")


def test_results_computed_by_tfma_are_gathered(run, store, world, tmp_path):
    tfma = {"metrics": ["ExampleCount", "AUC"]}
    config = stored("s3://bucket/data.parquet", **tfma)
    result = run(config, "--engine=tfma", "--run-id=one", *store.flags())
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    local = stored(str(world / "data.parquet"), **tfma, output="results")
    assert run(local, "--engine=tfma", "--run-id=one").exit_code == 0
    assert_same(store, "results/runs/one/", tmp_path / "results" / "runs" / "one")


def test_a_second_run_updates_latest_and_an_id_is_used_once(run, store, tfma_messages):
    config = stored("s3://bucket/data.csv")
    assert run(config, "--run-id=one", *store.flags()).exit_code == 0
    assert run(config, "--run-id=two", *store.flags()).exit_code == 0
    assert store.get("results/latest") == b"runs/two\n"
    other = run({**config, "name": "other"}, "--run-id=one", *store.flags())
    assert other.exit_code == 2
    assert "s3://bucket/results/runs/one already exists" in other.output
    again = run(config, "--run-id=one", *store.flags())
    assert again.exit_code == 0
    assert "s3://bucket/results/runs/one was already published" in again.output
    assert "`latest` names two, a later run" in again.output
    assert store.get("results/latest") == b"runs/two\n"
    assert len(tfma_messages("s3://bucket/results/runs/one/tfma").metrics) == 3
    store.put("results/runs/three/metrics.parquet", b"")
    assert "runs/three is incomplete" in run(config, "--run-id=three", *store.flags()).output


def test_damaged_rows_are_listed_or_fail_the_run(run, store, world):
    rows = (world / "data.csv").read_bytes().splitlines(keepends=True)
    rows[17] = b"x,y\n"
    store.put("bad.csv", b"".join(rows))
    config = stored("s3://bucket/bad.csv")
    failed = run(config, *store.flags())
    assert failed.exit_code == 2
    assert "1 of 400 rows could not be scored" in failed.output
    assert "s3://bucket/bad.csv, row 17" in failed.output
    assert store.keys("results") == set()
    config["data"]["max_dead_letters"] = 0.01
    assert run(config, "--run-id=one", *store.flags()).exit_code == 0
    letter = json.loads(store.get("results/runs/one/dead_letter/rows.jsonl"))
    assert (letter["path"], letter["position"]) == ("s3://bucket/bad.csv", 16)


@pytest.mark.parametrize("name", ["data.csv", "data.parquet"])
def test_an_object_that_is_replaced_while_it_is_read(run, store, world, monkeypatch, name):
    """By one of the same size within a second, which is all that S3's times tell."""
    content = (world / name).read_bytes()
    score = scoring.score

    def replace_and_score(*arguments, **more):
        store.put(name, content[:-8] + b"x" + content[-7:])
        return score(*arguments, **more)

    config = stored(f"s3://bucket/{name}")
    config["data"]["batch_size"] = 10
    monkeypatch.setattr(predict.scoring, "score", replace_and_score)
    result = run(config, *store.flags())
    assert result.exit_code == 4, result.output
    assert f"s3://bucket/{name} has changed since this run listed it: it is " in result.output
    assert store.keys("results/runs") == set()


@pytest.mark.parametrize("denied", ["runs/two/tfma/*", "latest"])
def test_a_failed_upload_changes_nothing(run, store, deny, open_store, denied):
    config = stored("s3://bucket/data.csv")
    assert run(config, "--run-id=one", *store.flags()).exit_code == 0
    before = store.keys("results")
    result = run(config, "--run-id=two", *deny(f"results/{denied}"))
    assert result.exit_code == 4, result.output
    assert "error: cannot write s3://bucket/results/" in result.output
    assert "Access" in result.output
    assert open_store().keys("results") == before
    assert store.get("results/latest") == b"runs/one\n"


def test_signals_wait_for_the_end_of_publishing(run, store, monkeypatch):
    point = staging._point

    def interrupt_and_point(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        point(*arguments)

    monkeypatch.setattr(staging, "_point", interrupt_and_point)
    result = run(stored("s3://bucket/data.csv"), "--run-id=one", *store.flags())
    assert result.exit_code == 0, result.output
    assert store.get("results/latest") == b"runs/one\n"


def test_an_interrupted_upload_is_undone(run, store, monkeypatch):
    upload = files.upload

    def interrupt_and_upload(path, url):
        if url.endswith("runs/one/findings.json"):
            os.kill(os.getpid(), signal.SIGINT)
        upload(path, url)

    monkeypatch.setattr(files, "upload", interrupt_and_upload)
    result = run(stored("s3://bucket/data.csv"), "--run-id=one", *store.flags())
    assert result.exit_code == 130, result.output
    assert result.output.endswith("interrupted: nothing was published\n")
    assert store.keys("results") == set()


def test_a_retry_completes_what_lacks_only_latest(run, store):
    config = stored("s3://bucket/data.csv")
    assert run(config, "--run-id=one", *store.flags()).exit_code == 0
    before = store.keys("results")
    # As if it had been killed before it wrote `latest`.
    store.client.delete_object(Bucket="bucket", Key="results/latest")
    assert run({**config, "name": "other"}, "--run-id=one", *store.flags()).exit_code == 2
    again = run(config, "--run-id=one", *store.flags())
    assert again.exit_code == 0, again.output
    assert "nothing was run; `latest` names one. Another --run-id evaluates" in again.output
    assert store.get("results/latest") == b"runs/one\n"
    assert store.keys("results") == before


def test_an_output_that_is_not_writable_is_reported_before_the_job(run, store, deny, open_store):
    result = run(stored("s3://bucket/data.csv"), *deny("results/*"))
    assert result.exit_code == 2, result.output
    assert "cannot write results to s3://bucket/results: cannot write s3://" in result.output
    assert open_store().keys("results") == set()


def test_a_worker_that_may_not_write_fails_the_job(run, deny, open_store):
    result = run(stored("s3://bucket/data.csv"), *deny("results/.staging/*/state/*"))
    assert result.exit_code == 4, result.output
    assert "error: cannot write s3://bucket/results/.staging/" in result.output
    assert open_store().keys("results") == set()


def test_a_dry_run_checks_the_output_too_and_writes_nothing(run, store):
    config = stored("s3://bucket/data.csv")
    result = run(config, "--dry-run", *store.flags())
    assert result.exit_code == 0, result.output
    assert "nothing was run" in result.output
    assert store.keys("results") == set()
    nowhere = run({**config, "output": "s3://nowhere/results"}, "--dry-run", *store.flags())
    assert nowhere.exit_code == 2
    assert "s3://nowhere/results: " in nowhere.output


def test_data_that_may_not_be_read(run, deny):
    flags = deny("data.csv", "s3:GetObject")
    named = run(stored("s3://bucket/data.csv"), *flags)
    assert named.exit_code == 2, named.output
    assert "error: Cannot list 's3://bucket/data.csv': An error occurred (403)" in named.output
    matched = run(stored("s3://bucket/*.csv"), *flags)
    assert matched.exit_code == 4, matched.output
    assert "error: cannot read s3://bucket/data.csv: An error occurred (403)" in matched.output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"output": "s3://nowhere/results"}, "s3://nowhere/results: An error occurred (NoSuchBuck"),
        ({"output": "s3://"}, "s3://: "),
        ({"output": "folders://x/results"}, "output folders://x/results: results can only be"),
        ({"output": "s4://bucket/results"}, "Beam has no filesystem for s4:// here; it supports"),
        ({"data": {"files": "s3://nowhere/*.csv", "label": "label"}}, "s3://nowhere/*.csv: An err"),
        (
            {"data": {"files": "s3://bucket/dat.csv", "label": "label"}},
            "closest names in 's3://bucket': da",
        ),
        ({"models": [{"name": "v1", "path": "s3://bucket/v3"}]}, "s3://bucket/v3 does not exist"),
    ],
)
def test_locations_that_do_not_exist(run, store, change, message):
    result = run(stored("s3://bucket/data.csv", **change), *store.flags())
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert store.keys("results") == set()


def test_credentials_and_endpoints_that_do_not_work(run, store, deny, monkeypatch):
    config = stored("s3://bucket/data.csv")
    no_keys = run(config, f"--s3_endpoint_url={store.endpoint}")
    assert no_keys.exit_code == 2
    assert "Unable to locate credentials; set AWS_ACCESS_KEY_ID and" in no_keys.output
    refuses = run(config, *store.flags(), "--s3_endpoint_url=http://127.0.0.1:9")
    assert refuses.exit_code == 2
    assert 'connect to the endpoint URL: "http://127.0.0.1:9/bucket' in refuses.output
    assert "check the URL, --s3_endpoint_url" in refuses.output
    no_url = run(config, *store.flags(), "--s3_endpoint_url=localhost:9000")
    assert "Invalid endpoint: localhost:9000; check" in no_url.output
    good = deny("none")
    wrong = run(config, *good, "--s3_secret_access_key=wrong-secret")
    assert wrong.exit_code == 2
    assert "(SignatureDoesNotMatch)" in wrong.output
    assert "check the credentials, and that they may list s3://bucket/data.csv\n" in wrong.output
    assert "wrong-secret" not in wrong.output
    misspelt = run(config, *good, "--s3_secret_key=wrong-secret")
    assert "unknown option --s3_secret_key: it is neither" in misspelt.output
    assert "wrong-secret" not in misspelt.output


def test_without_boto3_the_extra_is_named(run, store, monkeypatch):
    from evalbeam.beam_jobs.check import stores

    monkeypatch.setattr(stores, "s3_errors", None)
    result = run(stored("s3://bucket/data.csv"), *store.flags())
    assert result.exit_code == 2
    assert "s3:// needs boto3, which is not installed: pip install boto3" in result.output


def test_a_copy_is_complete_or_missing(run, store, tmp_path):
    assert run(stored("s3://bucket/data.csv"), "--dry-run", *store.flags()).exit_code == 0
    (tmp_path / "empty").touch()
    files.upload(str(tmp_path / "empty"), "s3://bucket/copies/empty")
    content = np.random.default_rng(0).bytes(40 << 20)  # several parts
    (tmp_path / "large").write_bytes(content)
    files.upload(str(tmp_path / "large"), "s3://bucket/copies/large")
    files.download("s3://bucket/copies/large", str(tmp_path / "back" / "large"))
    assert (tmp_path / "back" / "large").read_bytes() == content
    with pytest.raises(ZeroDivisionError), files.writing("s3://bucket/copies/half") as path:
        (tmp_path / path).write_text(f"half{1 / 0}")
    assert store.keys("copies/") == {"empty", "large"}


@pytest.fixture
def gs(monkeypatch):
    """A local Google Cloud Storage server; Beam neither looks for credentials nor uses any."""
    server = create_server("127.0.0.1", 0, in_memory=True, default_bucket="bucket")
    server.start()
    port = server._api._httpd.server_address[1]
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(auth._Credentials, "_credentials_init", True)
    monkeypatch.setattr(auth._Credentials, "_credentials", None)
    yield
    server.stop()


def test_google_cloud_storage(run, gs, world, tmp_path):
    config = stored("gs://bucket/data.csv", output="gs://bucket/results")
    filesystems.FileSystems.set_options(pipeline_options.PipelineOptions())
    files.upload(str(world / "data.csv"), "gs://bucket/data.csv")
    result = run(config, "--run-id=one")
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    assert "results in gs://bucket/results/runs/one\n" in result.output
    local = stored(str(world / "data.csv"), output="results")
    assert run(local, "--run-id=one").exit_code == 0
    folder = tmp_path / "results" / "runs" / "one"
    paths = files.match("gs://bucket/results/**")
    assert set(paths) == {
        "gs://bucket/results/latest",
        *(
            f"gs://bucket/results/runs/one/{path.relative_to(folder).as_posix()}"
            for path in folder.rglob("*")
            if path.is_file()
        ),
    }
    with files.open_raw("gs://bucket/results/runs/one/metrics.parquet") as file:
        pd.testing.assert_frame_equal(pd.read_parquet(file), pd.read_parquet(folder / TABLES[0]))
    with files.open_raw("gs://bucket/results/latest") as file:
        assert file.read() == b"runs/one\n"
    assert "runs/one was already published" in run(config, "--run-id=one").output
    assert "runs/one already exists" in run({**config, "name": "n"}, "--run-id=one").output
    nowhere = run({**config, "output": "gs://nowhere/results"})
    assert nowhere.exit_code == 2
    assert "error: gs://nowhere/results: " in nowhere.output
    assert "check the URL, and that this machine may list it" in nowhere.output


def test_runs_in_a_store_are_rebuilt_and_merged(run, store, evalbeam, tmp_path, world):
    flags = store.flags()
    frame = pd.read_parquet(world / "data.parquet")
    for number, rows in enumerate((frame[:150], frame[150:])):
        store.put(f"part-{number}.csv", rows.to_csv(index=False).encode())
        config = stored(f"s3://bucket/part-{number}.csv")
        result = run(config, "--run-id", f"part-{number}", *flags)
        assert result.exit_code == 0, result.output
    result = run(stored("s3://bucket/part-*.csv", output="whole"), *flags)
    assert result.exit_code == 0, result.output
    parts = [f"s3://bucket/results/runs/part-{number}" for number in (0, 1)]
    arguments = ("--output", "s3://bucket/merged", "--run-id", "merged", *flags)
    result = evalbeam("merge", parts[0], "s3://bucket/results/latest", *arguments)
    assert result.exit_code == 0, result.output
    assert store.get("merged/latest") == b"runs/merged\n"
    for name in TABLES:
        merged = store.table(f"merged/runs/merged/{name}")
        whole = pd.read_parquet(tmp_path / "whole" / "latest" / name)
        pd.testing.assert_frame_equal(merged, whole, rtol=1e-12)
    result = evalbeam("results", parts[0], *flags)
    assert result.exit_code == 2, result.output
    assert "a store cannot replace a run atomically" in result.output
    result = evalbeam("results", parts[0], "--output", "s3://bucket/again", *flags)
    assert result.exit_code == 0, result.output
    keys = store.keys("results/runs/part-0/")
    assert store.keys("again/runs/part-0/") == keys
    for key in keys:
        again, before = (store.get(f"{place}/runs/part-0/{key}") for place in ("again", "results"))
        assert again == before, key
    assert not store.keys("again/.staging")
