"""Jobs of models that take lists of any length: ragged, sparse, dense and in SequenceExamples."""

import json
import pathlib

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evalbeam.transforms.formats import tfrecord

ROWS = 40
ODD = {3: None, 11: [1.0, None]}  # not scored, wherever they are in a batch


@pytest.fixture(scope="module")
def lists():
    rng = np.random.default_rng(3)
    return [rng.random(rng.integers(0, 4)).tolist() for _ in range(ROWS)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """SavedModels whose score is the sigmoid of a row's sum, less one."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("lists")

    def export(name, spec, to_sum):
        module = tf.Module()
        module.serve = tf.function(
            lambda x: {"p": tf.sigmoid(to_sum(x) - 1.0)}, input_signature=[spec]
        )
        tf.saved_model.save(module, str(folder / name), signatures=module.serve)

    def sum_rows(x):
        return tf.reduce_sum(x, 1)

    def parse(examples):
        age = {"age": tf.io.FixedLenFeature([], tf.float32)}
        steps = {"x": tf.io.FixedLenSequenceFeature([], tf.float32)}
        context, sequence, _ = tf.io.parse_sequence_example(examples, age, steps)
        return sum_rows(sequence["x"]) + 0.0 * context["age"]

    export("ragged", tf.RaggedTensorSpec([None, None], tf.float32), sum_rows)
    export(
        "sparse",
        tf.SparseTensorSpec([None, None], tf.float32),
        lambda x: tf.sparse.reduce_sum(x, 1),
    )
    export(
        "nested",
        tf.RaggedTensorSpec([None, None, None], tf.float32),
        lambda x: tf.reduce_sum(x, [1, 2]),
    )
    export("sequence", tf.TensorSpec([None], tf.string, name="examples"), parse)
    return folder


def score(values):
    return 1 / (1 + np.exp(1 - np.sum(values)))


def value(run, metric, model, part="overall"):
    frame = pd.read_parquet(run / "metrics.parquet")
    rows = frame[(frame["metric"] == metric) & (frame["model"] == model) & (frame["slice"] == part)]
    return rows["value"].item()


@pytest.mark.parametrize(
    ("form", "batch_size"), [("parquet", 1), ("parquet", 2), ("parquet", ROWS), ("jsonl", 7)]
)
def test_what_is_scored_depends_on_the_row_alone(run_job, folder, lists, form, batch_size):
    values = [ODD.get(row, each) for row, each in enumerate(lists)]
    labels = [row % 2 for row in range(ROWS)]
    if form == "parquet":
        columns = {"x": pa.array(values, pa.list_(pa.float64())), "y": labels}
        pq.write_table(pa.table(columns), "d.parquet")
    else:
        lines = [json.dumps({"x": x, "y": y}) for x, y in zip(values, labels, strict=True)]
        pathlib.Path("d.jsonl").write_text("\n".join(lines))
    run = run_job(
        {
            "data": {
                "files": f"d.{form}",
                "label": "y",
                "batch_size": batch_size,
                "max_dead_letters": 0.1,
            },
            "models": [{"name": name, "path": str(folder / name)} for name in ("ragged", "sparse")],
            "metrics": ["MeanPrediction", "ExampleCount"],
            "task": "binary",
        }
    )
    expected = np.mean([score(each) for row, each in enumerate(lists) if row not in ODD])
    letters = pd.read_json(run / "dead_letter" / "rows.jsonl", lines=True)
    assert sorted(letters["position"]) == list(ODD)
    for name in ("ragged", "sparse"):
        assert value(run, "example_count", name) == ROWS - len(ODD)
        assert value(run, "mean_prediction", name) == pytest.approx(expected, rel=1e-5)


def sequences(lists):
    import tensorflow as tf

    def feature(**fields):
        return tf.train.Feature(**fields)

    def number(value):
        return feature(float_list=tf.train.FloatList(value=[value]))

    return [
        tf.train.SequenceExample(
            context=tf.train.Features(
                feature={
                    "age": number(row),
                    "y": number(row % 2),
                    "city": feature(
                        bytes_list=tf.train.BytesList(value=[[b"Rome", b"Oslo"][row % 2]])
                    ),
                }
            ),
            feature_lists=tf.train.FeatureLists(
                feature_list={"x": tf.train.FeatureList(feature=[*map(number, values)])}
            ),
        ).SerializeToString()
        for row, values in enumerate(lists)
    ]


def test_sequence_examples_have_labels_and_slices_in_their_context(run_job, folder, lists):
    with open("d.tfrecord", "wb") as file:
        tfrecord.write(file, sequences(lists))
    run = run_job(
        {
            "data": {"files": "d.tfrecord", "label": "y", "batch_size": 7},
            "models": [{"name": "v", "path": str(folder / "sequence")}],
            "metrics": ["MeanPrediction"],
            "slices": [["city"]],
        }
    )
    for part, rows in (("overall", lists), ("city=Rome", lists[::2]), ("city=Oslo", lists[1::2])):
        expected = np.mean([score(each) for each in rows])
        assert value(run, "mean_prediction", "v", part) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        ("nested", {}, "takes the tensors 'x', 'x_1', 'x_2', whose meaning the file does not tell"),
        ("sequence", {"label": "x"}, "column 'x' is in none of the first 40 examples"),
    ],
)
def test_what_cannot_be_filled_is_refused_by_the_dry_run(
    rejected, folder, lists, model, data, message
):
    with open("d.tfrecord", "wb") as file:
        tfrecord.write(file, sequences(lists))
    job = {
        "data": {"files": "d.tfrecord", "label": "y", **data},
        "models": [{"name": "v", "path": str(folder / model)}],
    }
    with open("job.yaml", "w") as file:
        json.dump(job, file)
    assert message in rejected("run", "job.yaml", "--dry-run")
