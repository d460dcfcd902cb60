"""Metrics that TFMA computes get what they take, and an EvalConfig means what it says."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn import metrics


@pytest.fixture
def write(tmp_path):
    def write(rows, name="d.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return name

    return write


@pytest.fixture
def refused(evalbeam, tmp_path):
    def run(config, *flags):
        (tmp_path / "job.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        result = evalbeam("run", "job.yaml", *flags)
        assert result.exit_code == 2, f"{result.output}\n{result.exception!r}"
        assert not (tmp_path / "results" / "latest").exists()
        return result.output

    return run


def config(files, metrics=None, **more):
    data = {"files": files, "label": "y", **more.pop("data", {})}
    models = more.pop("models", [{"name": "m", "predictions": "p"}])
    return {"data": data, "models": models, **({"metrics": metrics} if metrics else {}), **more}


def values(run, model="m"):
    frame = pd.read_parquet(run / "metrics.parquet")
    frame = frame[(frame["slice"] == "overall") & (frame["model"] == model)]
    names = zip(frame["metric"], frame["aggregation"], strict=True)
    joined = [f"{name} {aggregation}".rstrip() for name, aggregation in names]
    return dict(zip(joined, frame["value"], strict=True))


SCORES = np.array([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1], [0.1, 0.2, 0.7], [0.25, 0.4, 0.35]])
LABELS = np.array([2, 0, 2, 1])


def one_hot_metrics():
    """By metric, its configuration and its definition on labels 0..2 and scores."""
    truth = np.eye(3)[LABELS]
    smooth = truth * 0.9 + 0.1 / 3
    shares = np.log(np.exp(SCORES) / np.exp(SCORES).sum(axis=1, keepdims=True))
    decided = np.eye(3)[SCORES.argmax(axis=1)]
    overlap = (truth * decided).sum(axis=0) / np.maximum(truth, decided).sum(axis=0)
    return {
        "top_k_categorical_accuracy": (
            {"class_name": "TopKCategoricalAccuracy", "config": {"k": 2}},
            metrics.top_k_accuracy_score(LABELS, SCORES, k=2),
        ),
        "one_hot_mean_io_u": (
            {"class_name": "OneHotMeanIoU", "config": {"num_classes": 3}},
            overlap.mean(),
        ),
        "smooth": (
            {
                "class_name": "CategoricalCrossentropy",
                "config": {"label_smoothing": 0.1, "name": "smooth"},
            },
            -(smooth * np.log(SCORES)).sum(axis=1).mean(),
        ),
        "logits": (
            {
                "class_name": "CategoricalCrossentropy",
                "config": {"from_logits": True, "name": "logits"},
            },
            -(truth * shares).sum(axis=1).mean(),
        ),
    }


@pytest.mark.parametrize("form", ["indices", "one-hot", "names"])
@pytest.mark.parametrize("engine", ["columnar", "tfma"])
def test_labels_in_the_form_that_metrics_take(run_job, write, form, engine):
    truth = {
        "indices": LABELS.tolist(),
        "one-hot": np.eye(3, dtype=int)[LABELS].tolist(),
        "names": [f"c{label}" for label in LABELS],
    }[form]
    rows = [{"y": y, "p": p} for y, p in zip(truth, SCORES.tolist(), strict=True)]
    wanted = one_hot_metrics()
    specs = [spec for spec, _ in wanted.values()]
    found = values(run_job(config(write(rows), specs, task="multiclass"), f"--engine={engine}"))
    for name, (_, expected) in wanted.items():
        assert found[name] == pytest.approx(expected, rel=1e-6), name


def test_labels_in_two_forms_are_refused(refused, write):
    rows = [{"y": int(y), "p": p} for y, p in zip(LABELS, SCORES.tolist(), strict=True)]
    specs = ["SparseCategoricalAccuracy", "CategoricalAccuracy"]
    output = refused(config(write(rows), specs), "--engine=tfma")
    assert "CategoricalAccuracy takes labels one-hot, and SparseCategoricalAccuracy as" in output


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("CategoricalAccuracy", "CategoricalAccuracy is for multiclass, but the task is binary"),
        ("CosineSimilarity", "Metrics of a binary output are, among others, ExampleCount"),
        ("MeanIoU", "compares class ids, not scores; use OneHotMeanIoU"),
        ("Sum", "Keras's Sum is no metric of labels and predictions"),
    ],
)
def test_metrics_that_make_no_sense_are_refused(refused, write, name, message):
    assert message in refused(config(write([{"y": 0, "p": 0.2}, {"y": 1, "p": 0.7}]), [name]))


def test_macro_and_weighted_macro_are_both_there(run_job, write):
    rows = [
        {"y": [1, 0, 0], "p": [0.1, 0.2, 0.3]},
        {"y": [0, 1, 1], "p": [0.1, 0.2, 0.3]},
        {"y": [0, 0, 1], "p": [0.1, 0.2, 0.3]},
    ]
    specs = [
        {"class_name": "MeanPrediction", "aggregate": {"average": average}}
        for average in ("macro", "weighted_macro")
    ]
    found = values(run_job(config(write(rows), specs, task="multilabel")))
    assert found["mean_prediction macro"] == pytest.approx(0.2)
    assert found["mean_prediction weighted_macro"] == pytest.approx((0.1 + 0.2 + 2 * 0.3) / 4)


@pytest.mark.parametrize("weight", [None, "w"])
def test_columns_that_arguments_name_are_read(run_job, refused, write, weight):
    rows = [
        {"y": 0, "p": 0.2, "age": 30, "w": 1.0},
        {"y": 1, "p": 0.7, "age": 38, "w": 3.0},
    ]
    spec = {"class_name": "Mean", "config": {"feature_key_path": ["features", "age"]}}
    data = {} if weight is None else {"weight": weight}
    job = config(write(rows), [spec], data=data)
    if weight is not None:
        assert "set `weighted: false` for it" in refused(job)
        spec["weighted"] = False
    found = values(run_job(job))
    (mean,) = [value for name, value in found.items() if "mean" in name]
    assert mean == pytest.approx(34)


def test_results_that_are_no_number_are_named(run_job, refused, write):
    rows = [{"y": 0, "p": 0.9, "age": 30}, {"y": 1, "p": 0.7, "age": 38}]
    name = write(rows)
    samplers = [
        {"class_name": f"{kind}FeatureSampler", "config": {"feature_key": "age", "sample_size": 1}}
        for kind in ("FalsePositive", "FalseNegative")
    ]
    assert "TFMA would keep one and drop the other" in refused(config(name, samplers))
    run = run_job(config(name, ["ExampleCount", samplers[0]]))
    notes = json.loads((run / "manifest.json").read_text())["notes"]
    assert any("FalsePositiveFeatureSampler has no number for m" in note for note in notes)


@pytest.fixture
def scored(tmp_path):
    rng = np.random.default_rng(1)
    p = rng.random(200)
    frame = pd.DataFrame({"y": (rng.random(200) < p).astype(int), "p": p, "other": p**2})
    frame["w1"], frame["w2"] = 1.0, rng.integers(1, 4, 200).astype(float)
    frame["group"] = np.where(rng.random(200) < 0.5, "a", "b")
    frame.to_csv(tmp_path / "d.csv", index=False)
    return frame


def by_eval_config(tmp_path, text, **data):
    (tmp_path / "eval.pbtxt").write_text(text)
    job = config("d.csv", data=data, eval_config="eval.pbtxt")
    return job


def test_an_eval_config_without_metrics(run_job, tmp_path, scored):
    text = (
        'model_specs { label_key: "y" }\nslicing_specs {}\nslicing_specs { feature_keys: "group" }'
    )
    run = run_job(by_eval_config(tmp_path, text))
    expected = metrics.accuracy_score(scored["y"], scored["p"] > 0.5)
    assert values(run)["binary_accuracy"] == expected
    assert set(pd.read_parquet(run / "metrics.parquet")["slice"]) == {
        "overall",
        "group=a",
        "group=b",
    }


def test_fairness_indicators(run_job, tmp_path, scored):
    text = """
      model_specs { label_key: "y" }
      slicing_specs { feature_keys: "group" }
      metrics_specs {
        metrics { class_name: "FairnessIndicators" config: '{"thresholds": [0.25, 0.5]}' }
      }
    """
    run = run_job(by_eval_config(tmp_path, text))
    frame = pd.read_parquet(run / "metrics.parquet")
    for group in ("a", "b"):
        rows = scored[scored["group"] == group]
        tn, fp, fn, tp = metrics.confusion_matrix(rows["y"], rows["p"] > 0.5).ravel()
        found = frame[frame["slice"] == f"group={group}"].set_index("metric")["value"]
        name = "fairness_indicators_metrics"
        assert found[f"{name}/false_positive_rate@0.50"] == fp / (fp + tn)
        assert found[f"{name}/false_omission_rate@0.50"] == fn / (fn + tn)
        assert found[f"{name}/positive_rate@0.50"] == (tp + fp) / len(rows)


@pytest.mark.parametrize(
    ("model_spec", "data", "message"),
    [
        (
            'example_weight_key: "w2"',
            {"weight": "w1"},
            "data.weight is 'w1', but eval.pbtxt has 'w",
        ),
        ('prediction_key: "other"', {}, "predictions of version 'm' is 'p', but eval.pbtxt has 'o"),
        ('label_key: "other"', {}, "data.label is 'y', but eval.pbtxt has 'other'"),
    ],
)
def test_an_eval_config_that_contradicts_the_config(
    refused, tmp_path, scored, model_spec, data, message
):
    label = "" if "label_key" in model_spec else 'label_key: "y" '
    text = (
        f'model_specs {{ {label}{model_spec} }} metrics_specs {{ metrics {{ class_name: "AUC" }} }}'
    )
    assert message in refused(by_eval_config(tmp_path, text, **data))


def save_taxi(path, threshold=2.0):
    """A model of tf.Examples with its preprocessing, as TFX's Trainer exports it."""
    import tensorflow as tf

    text = tf.TensorSpec([None], tf.string, name="examples")

    class Taxi(tf.Module):
        @tf.function(input_signature=[text])
        def serve(self, examples):
            parsed = tf.io.parse_example(examples, {"a": tf.io.FixedLenFeature([], tf.float32)})
            return {"outputs": tf.sigmoid(parsed["a"])[:, None]}

        @tf.function(input_signature=[text])
        def transform(self, examples):
            features = {"tips": tf.io.FixedLenFeature([], tf.float32)}
            features["tags"] = tf.io.VarLenFeature(tf.string)
            parsed = tf.io.parse_example(examples, features)
            return {
                "tips_xf": tf.cast(parsed["tips"] > threshold, tf.int64)[:, None],
                "tips": tf.cast(parsed["tips"], tf.int64),  # instead of the raw one
                "tags_xf": tf.sparse.map_values(tf.strings.upper, parsed["tags"]),
            }

    taxi = Taxi()
    signatures = {"serving_default": taxi.serve, "transform_features": taxi.transform}
    tf.saved_model.save(taxi, str(path), signatures=signatures)


@pytest.fixture
def taxi(tmp_path):
    import tensorflow as tf

    rng = np.random.default_rng(5)
    a, tips = rng.normal(size=90), rng.uniform(0, 4, 90)
    tags = [list(rng.choice(["x", "y"], rng.integers(0, 3))) for _ in range(90)]

    def number(value):
        return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))

    def texts(values):
        encoded = [value.encode() for value in values]
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=encoded))

    with tf.io.TFRecordWriter(str(tmp_path / "d.tfrecord")) as writer:
        for i in range(90):
            features = {"a": number(a[i]), "tips": number(tips[i]), "tags": texts(tags[i])}
            example = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(example.SerializeToString())
    save_taxi(tmp_path / "model")
    return a, tips, tags


def write_taxi_config(tmp_path, names="transform_features"):
    (tmp_path / "eval.pbtxt").write_text(
        f"""
        model_specs {{ signature_name: "serving_default" label_key: "tips_xf"
                      preprocessing_function_names: "{names}" }}
        metrics_specs {{ metrics {{ class_name: "ExampleCount" }} metrics {{ class_name: "AUC" }} }}
        slicing_specs {{}}
        slicing_specs {{ feature_keys: "tags_xf" }}
        slicing_specs {{ feature_keys: "tips" }}
        """
    )


@pytest.mark.parametrize("engine", ["columnar", "tfma"])
def test_labels_and_slices_of_transformed_features(run_job, tmp_path, taxi, engine):
    a, tips, tags = taxi
    write_taxi_config(tmp_path)
    models = [{"name": "m", "path": "model"}, {"name": "again", "path": "model"}]
    run = run_job(
        {
            "data": {"files": "d.tfrecord", "batch_size": 32},
            "models": models,
            "eval_config": "eval.pbtxt",
        },
        "--engine",
        engine,
    )
    assert values(run)["auc"] == pytest.approx(metrics.roc_auc_score(tips > 2, a), abs=1e-3)
    frame = pd.read_parquet(run / "metrics.parquet")
    frame = frame[(frame["metric"] == "example_count") & (frame["model"] == "m")]
    counts = frame.set_index("slice")["value"].to_dict()
    assert counts == {
        "overall": 90,
        **{f"tags_xf={tag.upper()}": sum(tag in each for each in tags) for tag in "xy"},
        **{f"tips={whole}": (tips.astype(int) == whole).sum() for whole in range(4)},
    }


def test_preprocessing_that_cannot_be_done(refused, tmp_path, taxi):
    write_taxi_config(tmp_path, "tft_layer")
    job = {"data": {"files": "d.tfrecord"}, "eval_config": "eval.pbtxt"}
    one = [{"name": "m", "path": "model"}]
    assert "the model's signatures are 'serving_default', 'transform_features'" in refused(
        {**job, "models": one}
    )
    write_taxi_config(tmp_path)
    save_taxi(tmp_path / "other", threshold=3.0)
    output = refused({**job, "models": [*one, {"name": "n", "path": "other"}]})
    assert "the preprocessing of version 'n' gives other values of 'tips_xf'" in output


def test_an_example_without_what_preprocessing_takes(refused, tmp_path, taxi):
    import tensorflow as tf

    records = [record.numpy() for record in tf.data.TFRecordDataset(str(tmp_path / "d.tfrecord"))]
    example = tf.train.Example.FromString(records[7])
    del example.features.feature["tips"]
    records[7] = example.SerializeToString()
    with tf.io.TFRecordWriter(str(tmp_path / "d.tfrecord")) as writer:
        for record in records:
            writer.write(record)
    write_taxi_config(tmp_path)
    output = refused(
        {
            "data": {"files": "d.tfrecord"},
            "models": [{"name": "m", "path": "model"}],
            "eval_config": "eval.pbtxt",
        }
    )
    assert (
        "row 8 (counted from 1): preprocessing: the example has no 'tips', which the signature "
        "requires\n"
    ) in output


def test_an_eval_config_of_two_outputs(run_job, tmp_path):
    """Metrics by output, averages with weights of classes, thresholds by model: as TFX has them."""
    rng = np.random.default_rng(8)
    frame = pd.DataFrame({"click": rng.integers(0, 2, 80), "kind": rng.integers(0, 3, 80)})
    for version in ("old", "new"):
        frame[f"{version}_click"] = rng.random(80)
        frame[f"{version}_kind"] = rng.dirichlet(np.ones(3), 80).tolist()
    frame.to_json("d.jsonl", orient="records", lines=True)
    (tmp_path / "eval.pbtxt").write_text(
        """
        model_specs { name: "old" is_baseline: true
          label_keys { key: "c" value: "click" } label_keys { key: "k" value: "kind" } }
        model_specs { name: "new"
          label_keys { key: "c" value: "click" } label_keys { key: "k" value: "kind" } }
        metrics_specs {
          output_names: "c" model_names: "new"
          metrics { class_name: "Precision" threshold { value_threshold {
            lower_bound { value: 0.4 } } } }
        }
        metrics_specs {
          output_names: "k"
          metrics { class_name: "Recall" }
          binarize { class_ids { values: [0] } }
          aggregate { macro_average: true class_weights { key: 0 value: 1.0 }
                      class_weights { key: 2 value: 3.0 } }
        }
        """
    )
    run = run_job(
        {
            "data": {"files": "d.jsonl"},
            "models": [
                {"name": name, "predictions": {"c": f"{name}_click", "k": f"{name}_kind"}}
                for name in ("old", "new")
            ],
            "eval_config": "eval.pbtxt",
        }
    )
    found = pd.read_parquet(run / "metrics.parquet").set_index(
        ["output", "metric", "model", "aggregation"]
    )["value"]
    precision = metrics.precision_score(frame["click"], frame["new_click"] > 0.5)
    assert found["c", "precision", "new", ""] == precision
    assert ("c", "precision", "old", "") not in found.index
    for version in ("old", "new"):
        scores = np.stack(frame[f"{version}_kind"])
        recall = [metrics.recall_score(frame["kind"] == c, scores[:, c] > 0.5) for c in range(3)]
        assert found["k", "recall", version, ""] == recall[0]
        weighted = (recall[0] + 3 * recall[2]) / 4
        assert found["k", "recall", version, "macro"] == pytest.approx(weighted)
    notes = json.loads((run / "manifest.json").read_text())["notes"]
    assert any("does not check the EvalConfig's thresholds" in note for note in notes)


def test_averages_over_classes_are_the_same_of_both_engines(run_job):
    rng = np.random.default_rng(2)
    labels, scores = rng.integers(0, 3, 90), rng.dirichlet(np.ones(3), 90)
    frame = pd.DataFrame({"y": [f"c{label}" for label in labels]})
    frame["p"] = ((scores + np.eye(3)[labels]) / 2).tolist()
    frame.to_json("d.jsonl", orient="records", lines=True)
    recall = {"class_name": "Recall", "aggregate": {"average": "macro"}}
    by_name = {
        "class_name": "Precision",
        "aggregate": {"average": "weighted_macro", "class_weights": {"c0": 1.0, "c2": 2.0}},
    }
    job = config("d.jsonl", ["AUC", recall, by_name])
    columnar = values(run_job(job))
    by_tfma = values(run_job(job, "--engine", "tfma"))
    assert columnar["auc macro"] == pytest.approx(by_tfma["auc macro"], rel=1e-6)
    assert columnar["recall macro"] == pytest.approx(by_tfma["recall macro"], rel=1e-6)
    # TFMA writes a weighted average under the key of a plain one.
    assert columnar["precision weighted_macro"] == pytest.approx(
        by_tfma["precision macro"], rel=1e-6
    )
