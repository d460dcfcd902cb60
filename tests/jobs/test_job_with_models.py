"""The whole job with real TensorFlow models on tf.Examples."""

import gzip
import pathlib
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn import metrics as sklearn_metrics

FEATURES = ("age", "income")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """2,000 tf.Examples in three shards, one of them gzip; two models of them."""
    import keras
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({name: rng.normal(size=2000).astype(np.float32) for name in FEATURES})
    frame["label"] = (rng.random(2000) < 1 / (1 + np.exp(-frame["age"]))).astype(int)
    frame["plan"] = rng.choice(["free", "paid"], 2000)
    records = []
    for row in frame.to_dict("records"):
        example = tf.train.Example()
        for name in FEATURES:
            example.features.feature[name].float_list.value.append(row[name])
        example.features.feature["label"].int64_list.value.append(row["label"])
        example.features.feature["plan"].bytes_list.value.append(row["plan"].encode())
        records.append(example.SerializeToString())
    for i, part in enumerate(np.array_split(np.arange(2000), 3)):
        with tf.io.TFRecordWriter(str(folder / f"data-{i}.tfrecord")) as writer:
            for row in part:
                writer.write(records[row])
    plain = (folder / "data-2.tfrecord").read_bytes()
    (folder / "data-2.tfrecord").unlink()
    (folder / "data-2.tfrecord.gz").write_bytes(gzip.compress(plain))

    keras.utils.set_random_seed(1)
    inputs = {name: keras.Input((1,), name=name) for name in FEATURES}
    layer = keras.layers.Concatenate()(list(inputs.values()))
    hidden = keras.layers.Dense(4, "relu")(layer)
    network = keras.Model(inputs, keras.layers.Dense(1, "sigmoid")(hidden))
    network.save(folder / "v2.keras")
    network.export(folder / "v3", verbose=False)

    class Parsing(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def serve(self, examples):
            spec = {name: tf.io.FixedLenFeature([], tf.float32) for name in FEATURES}
            parsed = tf.io.parse_example(examples, spec)
            tf.debugging.assert_less(parsed["age"], 100.0, "age is out of range")
            return {"score": tf.sigmoid(parsed["age"])}

    module = Parsing()
    tf.saved_model.save(module, str(folder / "v1"), signatures={"serving_default": module.serve})
    arrays = {name: frame[[name]].to_numpy() for name in FEATURES}
    scores = {
        "v1": 1 / (1 + np.exp(-frame["age"].to_numpy(float))),
        "v2": network.predict(arrays, verbose=0)[:, 0].astype(float),
    }
    return folder, frame, scores | {"v3": scores["v2"]}


def job(folder, *versions, **data):
    names = {"v1": "v1", "v2": "v2.keras", "v3": "v3"}
    return {
        "data": {"files": str(folder / "data-*"), "format": "tfrecord", "label": "label", **data},
        "models": [
            {"name": name, "path": str(folder / names[name]), "baseline": i == 0}
            for i, name in enumerate(versions)
        ],
        "slices": [["plan"]],
        "metrics": ["ExampleCount", "BinaryAccuracy", "AUC"],
    }


def test_three_kinds_of_models_in_a_run(run_job, world):
    folder, frame, scores = world
    run = run_job(job(folder, "v1", "v2", "v3", batch_size=300))
    metrics = (
        pd.read_parquet(run / "metrics.parquet")
        .set_index(["slice", "model", "metric"])
        .sort_index()
    )
    for name, mask in (("overall", frame["plan"] != ""), ("plan=free", frame["plan"] == "free")):
        label = frame["label"][mask]
        for model, score in scores.items():
            value = metrics["value"].loc[name, model]
            assert value["example_count"] == mask.sum()
            assert value["binary_accuracy"] == ((score[mask] > 0.5) == label).mean()
            area = sklearn_metrics.roc_auc_score(label, score[mask])
            assert value["auc"] == pytest.approx(area, abs=1e-4)


def test_damaged_records_and_rows_that_a_model_rejects(run_job, evalbeam, world, tmp_path):
    import tensorflow as tf

    folder, _, _ = world
    (tmp_path / "data-0.tfrecord").write_bytes((folder / "data-0.tfrecord").read_bytes()[:-3])
    good = next(iter(tf.data.TFRecordDataset(str(folder / "data-1.tfrecord")))).numpy()
    example = tf.train.Example.FromString(good)
    example.features.feature["age"].float_list.value[0] = 200.0
    with tf.io.TFRecordWriter(str(tmp_path / "data-1.tfrecord")) as writer:
        for record in (good, b"no example", example.SerializeToString(), good):
            writer.write(record)
    config = job(tmp_path, "v1")
    config["models"][0]["path"] = str(folder / "v1")
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(config))
    result = evalbeam("run", "job.yaml")
    assert result.exit_code == 2
    assert "3 of 671 rows could not be scored" in result.output
    assert "data-0.tfrecord, row 667 (counted from 1): truncated record" in result.output
    assert (
        "data-1.tfrecord, row 2 (counted from 1): cannot be decoded as tf.Example" in result.output
    )
    assert "data-1.tfrecord, row 3 (counted from 1): version 'v1'" in result.output
    assert "age is out of range" in result.output
    assert not (tmp_path / "results" / "runs").exists()
    config["data"]["max_dead_letters"] = 0.01
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(config))
    result = evalbeam("run", "job.yaml")
    assert result.exit_code == 2
    assert "the number of rows after the damage is unknown; nothing published" in result.output
    whole = (folder / "data-0.tfrecord").read_bytes()
    (tmp_path / "data-0.tfrecord").write_bytes(whole)
    letters = pd.read_json(run_job(config) / "dead_letter" / "rows.jsonl", lines=True)
    assert sorted(letters["position"]) == [1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": {"age": "aeg"}}, "input 'age' is mapped to 'aeg', which is not in the data"),
        ({"inputs": {"age": "plan"}}, "input 'age'"),
        (
            {"signature": "serving"},
            "unknown signature 'serving'; it has 'serve', 'serving_default'",
        ),
        ({"outputs": ["score"]}, "unknown output 'score'"),
    ],
)
def test_models_that_do_not_fit_the_data(evalbeam, world, tmp_path, change, message):
    folder, _, _ = world
    config = job(folder, "v3")
    config["models"][0] |= change
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(config))
    result = evalbeam("run", "job.yaml")
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert not (tmp_path / "results").exists()


def test_several_outputs(run_job, evalbeam, world, tmp_path):
    import keras

    folder, frame, _ = world
    inputs = {name: keras.Input((1,), name=name) for name in FEATURES}
    layer = keras.layers.Concatenate()(list(inputs.values()))
    outputs = {
        "visits": keras.layers.Dense(1, "sigmoid", name="visits")(layer),
        "spends": keras.layers.Dense(1, name="spends")(layer),
    }
    model = keras.Model(inputs, outputs)
    model.save(tmp_path / "two.keras")
    config = job(folder, "v1")
    config["models"] = [{"name": "two", "path": "two.keras"}]
    config["data"]["label"] = {"visits": "label", "spends": "income"}
    (tmp_path / "wrong.yaml").write_text(
        yaml.safe_dump(config | {"data": {**config["data"], "label": "label"}})
    )
    wrong = evalbeam("run", "wrong.yaml")
    assert wrong.exit_code == 2
    assert "the models have several outputs ('spends', 'visits')" in wrong.output
    config["task"] = {"visits": "binary", "spends": "regression"}
    config["metrics"] = [
        {"class_name": "BinaryAccuracy", "outputs": ["visits"]},
        {"class_name": "MeanSquaredError", "outputs": ["spends"]},
    ]
    run = run_job(config)
    metrics = pd.read_parquet(run / "metrics.parquet")
    overall = metrics[metrics["slice"] == "overall"].set_index(["output", "metric"])["value"]
    arrays = {name: frame[[name]].to_numpy() for name in FEATURES}
    predicted = {k: v[:, 0].astype(float) for k, v in model.predict(arrays, verbose=0).items()}
    right = (predicted["visits"] > 0.5) == frame["label"]
    assert overall["visits", "binary_accuracy"] == right.mean()
    error = ((predicted["spends"] - frame["income"].astype(float)) ** 2).mean()
    assert overall["spends", "mean_squared_error"] == pytest.approx(error, rel=1e-6)


def test_a_function_of_the_working_folder(evalbeam, tmp_path):
    """In a process of its own, whose path is that of a command."""
    (tmp_path / "my_own_models.py").write_text("def predict(x):\n    return x['a'] / 10\n")
    (tmp_path / "d.csv").write_text("y,a\n" + "".join(f"{i % 2},{i % 10}\n" for i in range(40)))
    model = {"name": "m", "callable": "my_own_models:predict", "inputs": ["a"]}
    config = {"data": {"files": "d.csv", "label": "y"}, "models": [model], "metrics": ["AUC"]}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(config))
    program = pathlib.Path(sys.executable).with_name("evalbeam")
    done = subprocess.run([program, "run", "job.yaml"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "40 rows read, 40 scored" in done.stdout
