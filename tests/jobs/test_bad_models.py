"""A model that does not fit is told before the job, by its version, path and remedy."""

import json
import shutil

import numpy as np
import onnx
import pandas as pd
import pytest
import yaml
from onnx import helper

from evalbeam.transforms.models.tfjs import install

FLOAT = onnx.TensorProto.FLOAT


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Rows with three numbers and one of four classes, and models of them, good and bad."""
    import keras
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.random((50, 3)).tolist(), "label": rng.integers(0, 4, 50)})
    frame.to_parquet(folder / "data.parquet")

    def network(classes, *layers):
        last = keras.layers.Dense(classes, "softmax")
        return keras.Sequential([keras.Input((3,), name="x"), *layers, last])

    network(4).save(folder / "good.keras")
    network(3).save(folder / "three.keras")
    network(4, keras.layers.Lambda(lambda x: x * 2)).save(folder / "lambda.keras")
    network(4).export(str(folder / "saved_model"), verbose=False)
    content = tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved_model")).convert()
    (folder / "good.tflite").write_bytes(content)
    (folder / "cut.tflite").write_bytes(content[: len(content) // 2])

    @tf.function(input_signature=[tf.TensorSpec([None, 3], name="x")])
    def erf(x):
        return {"y": tf.math.igamma(x, x)}

    converter = tf.lite.TFLiteConverter.from_concrete_functions([erf.get_concrete_function()])
    converter.allow_custom_ops = True
    (folder / "custom.tflite").write_bytes(converter.convert())

    odd = helper.make_node("Frobnicate", ["x"], ["y"], domain="of.mine")
    ends = [
        [helper.make_tensor_value_info(name, FLOAT, ["N", size])]
        for name, size in (("x", 3), ("y", 4))
    ]
    graph = helper.make_graph([odd], "odd", *ends)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("of.mine", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), folder / "custom.onnx")

    weights = [{"name": "dense/kernel", "shape": [3, 4], "dtype": "float32"}]
    description = {
        "format": "layers-model",
        "modelTopology": {},
        "weightsManifest": [{"paths": ["group1-shard1of1.bin"], "weights": weights}],
    }
    (folder / "tfjs").mkdir()
    (folder / "tfjs" / "model.json").write_text(json.dumps(description))
    return folder


@pytest.fixture
def refused(evalbeam, tmp_path, world):
    """Runs versions that must be refused; returns what is printed."""

    def run(*models, exit_code=2, **data):
        job = {
            "data": {"files": str(world / "data.parquet"), "label": "label", **data},
            "models": [{"name": f"v{i}"} | model for i, model in enumerate(models)],
        }
        (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
        result = evalbeam("run", "job.yaml")
        assert result.exit_code == exit_code, result.output
        assert not (tmp_path / "results").exists()
        assert "Traceback" not in result.output
        return result.output

    return run


def test_a_signature_that_a_tflite_model_has_not(refused, world):
    said = refused({"path": str(world / "good.tflite"), "signature": "train"})
    assert f"Version 'v0' ({world}/good.tflite): unknown signature 'train'" in said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cut.tflite", "no TFLite file, or a damaged one"),
        ("custom.tflite", "Igamma"),
        ("custom.onnx", "Frobnicate"),
        ("tfjs", "group1-shard1of1.bin, and there is no such file"),
        ("lambda.keras", "If you trust the file, say `allow_unsafe: true`"),
    ],
)
def test_models_that_cannot_be_loaded(refused, world, name, said):
    printed = refused({"path": str(world / name)})
    assert f"Version 'v0' ({world / name}): " in printed
    assert said in printed


def test_a_lambda_layer_runs_where_the_config_allows_it(run_job, world):
    folder = run_job(
        {
            "data": {"files": str(world / "data.parquet"), "label": "label"},
            "models": [
                {"name": "v1", "path": str(world / "lambda.keras"), "allow_unsafe": True},
            ],
        }
    )
    assert json.loads((folder / "manifest.json").read_text())["models"]["v1"]["allow_unsafe"]


def test_an_output_that_is_not_of_the_heads_shape(refused, world):
    said = refused(
        {"path": str(world / "good.keras")},
        {"path": str(world / "three.keras"), "conversion_of": "v0"},
        exit_code=4,
    )
    assert "Version 'v1'" in said
    assert "has the shape [N, 3]; task multiclass needs one prediction per class, [N, 4]" in said


def test_a_model_that_is_not_the_one_that_was_meant(refused, world):
    said = refused({"path": str(world / "good.tflite"), "sha256": "0" * 64})
    assert "its SHA-256 is " in said
    assert f"and the config says {'0' * 64}: it is another model" in said


@pytest.mark.parametrize(
    ("version", "said"),
    [("v12.22.0", "is v12.22.0"), (None, "there is no `node` on the PATH")],
)
def test_a_node_that_is_too_old_or_absent(refused, tmp_path, monkeypatch, world, version, said):
    folder = tmp_path / "model"
    shutil.copytree(world / "tfjs", folder)
    (folder / "group1-shard1of1.bin").write_bytes(bytes(48))
    tools = tmp_path / "bin"
    tools.mkdir()
    if version:
        (tools / "node").write_text(f"#!/bin/sh\necho {version}\n")
        (tools / "node").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools))
    printed = refused({"path": str(folder)})
    assert said in printed
    assert f"npm ci --ignore-scripts --no-audit --no-fund --prefix {install.FOLDER}" in printed
