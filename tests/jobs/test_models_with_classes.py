"""Names of classes that models carry, in an order of their own."""

import io
import json
import zipfile

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

NAMES = ["rome", "bonn", "oslo"]
MODULE = """
import numpy as np


def predict(columns):
    powers = np.exp(columns["x"])
    return powers / powers.sum(axis=1, keepdims=True)


predict.classes_ = np.array(["rome", "bonn", "oslo"])
"""
FILES = {"estimator": "estimator", "labelled": "labelled.tflite", "converted": "converted.onnx"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Rows, and softmax models of each kind that can carry names."""
    import onnx
    import tensorflow as tf
    from onnx import helper, numpy_helper

    folder = tmp_path_factory.mktemp("classes")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3))
    labels = np.array(NAMES)[(x + rng.normal(size=x.shape)).argmax(axis=1)]
    frame = pd.DataFrame({"x": x.tolist(), "city": labels, "decided": x.argmax(axis=1)})
    frame.to_parquet(folder / "d.parquet")
    (folder / "evalbeam_cities.py").write_text(MODULE)

    def export(name, list_names):
        @tf.function(input_signature=[tf.TensorSpec([None, 3], name="x")])
        def classify(x):
            return {"classes": list_names(x), "scores": tf.nn.softmax(x)}

        tf.saved_model.save(tf.Module(), str(folder / name), signatures=classify)

    export("estimator", lambda x: tf.tile([NAMES], [tf.shape(x)[0], 1]))
    export("reversed", lambda x: tf.tile([NAMES[::-1]], [tf.shape(x)[0], 1]))
    export("sorted", lambda x: tf.gather(NAMES, tf.argsort(x)))

    @tf.function(input_signature=[tf.TensorSpec([None, 3], name="x")])
    def softmax(x):
        return {"p": tf.nn.softmax(x)}

    concrete = softmax.get_concrete_function()
    content = tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as files:
        files.writestr("labels.txt", "\n".join(NAMES) + "\n")
        files.writestr("vocab.txt", "the\nof\n")
    (folder / "labelled.tflite").write_bytes(content + archive.getvalue())

    def tensor(name, dtype, shape):
        return helper.make_tensor_value_info(name, dtype, shape)

    domain = {"domain": "ai.onnx.ml"}
    graph = helper.make_graph(
        [
            helper.make_node("Softmax", ["x"], ["p"], axis=1),
            helper.make_node("ArgMax", ["p"], ["index"], axis=1, keepdims=0),
            helper.make_node("ArrayFeatureExtractor", ["names", "index"], ["label"], **domain),
        ],
        "graph",
        [tensor("x", onnx.TensorProto.FLOAT, ["N", 3])],
        [
            tensor("p", onnx.TensorProto.FLOAT, ["N", 3]),
            tensor("label", onnx.TensorProto.STRING, [1, "N"]),
        ],
        [numpy_helper.from_array(np.array(NAMES, object), "names")],
    )
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(
        helper.make_model(graph, opset_imports=domains, ir_version=9), folder / "converted.onnx"
    )
    return folder


def version(world, name, **more):
    return {"name": name, "path": str(world / FILES.get(name, name)), **more}


@pytest.fixture
def job(world, monkeypatch):
    monkeypatch.syspath_prepend(str(world))

    def make(*models, label="city", **data):
        return {
            "data": {"files": str(world / "d.parquet"), "label": label, **data},
            "models": list(models),
            "metrics": ["Recall"],
        }

    return make


def recalls(run, name):
    frame = pd.read_parquet(run / "metrics.parquet")
    frame = frame[(frame["metric"] == "recall") & (frame["model"] == name)]
    return frame.dropna(subset=["class"]).set_index("class")["value"].to_dict()


def test_scores_are_of_the_models_own_classes(run_job, world, job):
    models = [
        version(world, "estimator"),
        version(world, "labelled"),
        version(world, "converted", outputs=["p"]),
        {"name": "function", "callable": "evalbeam_cities:predict", "inputs": ["x"]},
    ]
    frame = pd.read_parquet(world / "d.parquet")
    decided = np.array(NAMES)[frame["decided"]]
    found = metrics.recall_score(frame["city"], decided, labels=NAMES, average=None)
    for one in models:  # Each carries them by itself.
        run = run_job(job(one))
        assert recalls(run, one["name"]) == pytest.approx(dict(zip(NAMES, found, strict=True)))
        notes = json.loads((run / "manifest.json").read_text())["notes"]
        assert any(
            f"as version '{one['name']}' has them: 'rome', 'bonn', 'oslo'" in note for note in notes
        )
    # Indices get names, too.
    run = run_job(job(*models, label="decided"))
    assert recalls(run, "labelled") == dict.fromkeys(NAMES, 1.0)


@pytest.mark.parametrize(
    ("names", "data", "message"),
    [
        (
            ["labelled"],
            {"classes": sorted(NAMES)},
            "data.classes are 'bonn', 'oslo', 'rome', but version 'labelled' has its "
            "scores in the order 'rome', 'bonn', 'oslo'",
        ),
        (
            ["labelled", "reversed"],
            {},
            "Versions 'labelled' and 'reversed' have their classes in other orders",
        ),
        (["sorted"], {}, "Version 'sorted': its output 'classes' has the classes in the order"),
    ],
)
def test_contradictions_are_refused(rejected, world, job, names, data, message):
    config = job(*(version(world, name) for name in names), **data)
    with open("job.yaml", "w") as file:
        json.dump(config, file)
    assert message in rejected("run", "job.yaml", "--dry-run")


def test_labels_of_other_names(rejected, run_job, world, job):
    frame = pd.read_parquet(world / "d.parquet")
    frame["city"] = frame["city"].str.title()
    frame.to_parquet("d.parquet")
    config = job(version(world, "labelled"))
    config["data"]["files"] = "d.parquet"
    with open("job.yaml", "w") as file:
        json.dump(config, file)
    output = rejected("run", "job.yaml", "--dry-run")
    assert "the labels are 'Bonn', 'Oslo', 'Rome', but version 'labelled' has the classes" in output
    config["data"]["classes"] = [name.title() for name in NAMES]
    assert set(recalls(run_job(config), "labelled")) == {"Rome", "Bonn", "Oslo"}
