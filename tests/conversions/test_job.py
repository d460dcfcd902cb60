"""One network in every form that it ships in, evaluated in one run of the whole job."""

import hashlib
import io
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn import metrics as sklearn_metrics

from evalbeam.transforms.models import files

SHUFFLED = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]


@pytest.fixture(scope="module")
def forms(digits, tfjs_forms):
    """By version, its file or folder: the original, its conversions, and two that are broken."""
    import tensorflow as tf

    folder, model = digits.folder, digits.model
    model.export(str(folder / "digits.onnx"), format="onnx", verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved_model"))
    (folder / "float.tflite").write_bytes(converter.convert())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in digits.images[:100])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    (folder / "int8.tflite").write_bytes(converter.convert())
    *before, kernel, bias = model.get_weights()
    broken = digits.with_weights([*before, kernel[:, SHUFFLED], bias[SHUFFLED]])
    broken.export(str(folder / "shuffled"), verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "shuffled"))
    (folder / "shuffled.tflite").write_bytes(converter.convert())
    return {
        "original": folder / "saved_model",
        "keras": folder / "digits.keras",
        "float": folder / "float.tflite",
        "int8": folder / "int8.tflite",
        "graph": tfjs_forms["graph_float32"],
        "layers": tfjs_forms["layers_float32"],
        "uint8": tfjs_forms["graph_uint8"],
        "onnx": folder / "digits.onnx",
        "shuffled": folder / "shuffled.tflite",
        "unscaled": tfjs_forms["graph_float32"],
    }


@pytest.fixture(scope="module")
def run(digits, forms, tmp_path_factory):
    """The published folder of one run of all forms."""
    import subprocess
    import sys

    import yaml

    folder = tmp_path_factory.mktemp("run")
    frame = pd.DataFrame(
        {
            "image": [_png(image) for image in digits.images],
            "digit": digits.labels,
            "half": np.where(np.arange(len(digits.labels)) % 2, "odd", "even"),
        }
    )
    for part, rows in enumerate(np.array_split(np.arange(len(frame)), 3)):
        frame.iloc[rows].to_parquet(folder / f"data-{part}.parquet")
    versions = [
        {"name": name, "path": str(path)} | ({} if name == "original" else _CONVERSION)
        for name, path in forms.items()
    ]
    versions[0]["baseline"] = True
    versions[2]["sha256"] = hashlib.sha256(forms["float"].read_bytes()).hexdigest()
    versions[-1]["inputs"] = {"image": "tiny"}
    config = {
        "task": "multiclass",
        "data": {
            "files": "data-*.parquet",
            "label": "digit",
            "batch_size": 200,
            "images": {
                "image": {"scale": "1/255"},
                "tiny": {"column": "image", "scale": "1/65025"},
            },
        },
        "models": versions,
        "slices": [["half"]],
        "metrics": [
            "ExampleCount",
            "CategoricalAccuracy",
            "Precision",
            "Recall",
            "F1Score",
            "MultiClassConfusionMatrixPlot",
        ],
    }
    (folder / "forms.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    program = "from evalbeam.beam_jobs import cli; cli.main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "run", "forms.yaml"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (folder / "printed.txt").write_text(done.stdout)
    return folder


_CONVERSION = {"conversion_of": "original"}


def _png(image):
    file = io.BytesIO()
    Image.fromarray(np.round(image[..., 0] * 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def predicted(digits):
    """What Keras predicts of the images as the files hold them, in 8 bits."""
    return digits.model.predict(np.round(digits.images * 255) / np.float32(255), verbose=0)


def _results(run, table):
    return pd.read_parquet(run / "results" / "latest" / f"{table}.parquet")


def _findings(run):
    found = json.loads((run / "results" / "latest" / "findings.json").read_text())
    return {one["converted"]: one for one in found}


def _manifest(run):
    return json.loads((run / "results" / "latest" / "manifest.json").read_text())


def test_faithful_forms_have_the_original_s_numbers(run, digits, predicted):
    report = sklearn_metrics.classification_report(
        digits.labels, predicted.argmax(axis=1), output_dict=True
    )
    table = _results(run, "metrics")
    overall = table[(table["slice"] == "overall") & table["class_id"].isna()]
    for name in ("original", "keras", "float", "graph", "layers", "onnx"):
        values = overall[overall["model"] == name].set_index("metric")["value"]
        assert values["example_count"] == len(digits.labels)
        assert values["categorical_accuracy"] == pytest.approx(report["accuracy"], abs=1e-12)
        for metric, theirs in (("precision", "precision"), ("recall", "recall")):
            assert values[metric] == pytest.approx(report["macro avg"][theirs], abs=1e-12)
        by_class = table[
            (table["model"] == name) & (table["slice"] == "overall") & table["class_id"].notna()
        ]
        f1 = by_class[by_class["metric"] == "f1_score"].set_index("class_id")["value"]
        for c in range(10):
            assert f1[c] == pytest.approx(report[str(c)]["f1-score"], abs=1e-12)


def test_confusion_matrices_are_scikit_learns(run, digits, predicted):
    table = _results(run, "confusion")
    table = table[table["slice"] == "overall"]
    expected = sklearn_metrics.confusion_matrix(digits.labels, predicted.argmax(axis=1))
    for name in ("original", "graph", "onnx"):
        cells = table[table["model"] == name]
        found = np.zeros((10, 10))
        found[cells["actual"], cells["predicted"]] = cells["count"]
        np.testing.assert_array_equal(found, expected)


def test_verdicts_of_conversions(run, predicted):
    found = _findings(run)
    for name in ("keras", "float", "graph", "layers", "onnx"):
        assert found[name]["verdict"] == "good"
        facts = found[name]["evidence"]
        assert facts["changed"] == 0
        assert facts["kappa"] == 1
        # float32 sums in other orders, of scores up to 1.
        assert facts["largest_difference"] < 1e-5
        assert sum(facts["differences"].values()) == facts["examples"] == len(predicted)
    for name in ("int8", "uint8"):
        assert found[name]["verdict"] in ("good", "acceptable")
        facts = found[name]["evidence"]
        assert facts["changed"] < 0.02
        assert 1e-4 < facts["largest_difference"] < 0.5
    assert found["int8"]["evidence"]["size_ratio"] < 0.2


def test_a_conversion_with_shuffled_classes_is_bad_and_named(run):
    found = _findings(run)["shuffled"]
    assert (found["verdict"], found["cause"]) == ("bad", "class order")
    printed = (run / "printed.txt").read_text()
    assert "shuffled is bad, class order: the conversion has its classes in another order" in (
        printed
    )
    moved = {(new, old) for new, old in enumerate(SHUFFLED) if new != old}
    assert all(f"{new} for {old}" in found["explanation"] for new, old in moved)


def test_a_conversion_with_wrong_scaling_is_bad_and_named(run):
    found = _findings(run)["unscaled"]
    assert (found["verdict"], found["cause"]) == ("bad", "preprocessing")
    printed = (run / "printed.txt").read_text()
    assert "unscaled is bad, preprocessing:" in printed
    assert "is not in the form that it was converted or calibrated for" in printed


def test_each_version_is_measured(run, forms, digits):
    manifest = _manifest(run)
    for name, path in forms.items():
        model = manifest["models"][name]
        assert model["sha256"] == files.digest(str(path))
        measures = model["measures"]
        assert measures["size_bytes"] == files.size_bytes(str(path))
        # TensorFlow.js' graph and ONNX count constants; all count this network's weights.
        assert measures["parameters"] == digits.model.count_params()
        assert measures["load_s"] > 0
        assert measures["memory_bytes"] is None or measures["memory_bytes"] > 0
        assert 1 <= measures["batch"]["rows"] <= 200
        assert 0 < measures["batch"]["median_us"] <= measures["batch"]["p95_us"]
        assert measures["single"]["median_us"] > measures["batch"]["median_us"]
    assert manifest["models"]["float"]["sha256"] == (
        hashlib.sha256(forms["float"].read_bytes()).hexdigest()
    )
    runs_in = {form["version"]: form for form in manifest["models"]["original"]["forms"]}
    assert list(runs_in) == list(forms)
    assert runs_in["graph"]["runs_in"] == ["TensorFlow.js (browsers, Node.js)"]
    assert runs_in["shuffled"]["verdict"] == "bad"


def test_what_is_printed_says_it_at_a_glance(run):
    printed = (run / "printed.txt").read_text()
    assert "What versions cost" in printed
    assert "Conversions: are they still the same model?" in printed
