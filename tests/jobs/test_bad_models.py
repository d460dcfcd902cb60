"""Models that do not match are reported before the job, with version, path and remedy."""

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
    """Rows with three numbers and one of four classes, and valid and invalid models for them."""
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
def rejected_run(evalbeam, tmp_path, world):
    """Runs versions that must be rejected; returns the output."""

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


def test_an_unknown_signature_of_a_tflite_model(rejected_run, world):
    printed = rejected_run({"path": str(world / "good.tflite"), "signature": "train"})
    assert f"Version 'v0' ({world}/good.tflite): unknown signature 'train'" in printed


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cut.tflite", "not a TFLite file, or it is damaged"),
        ("custom.tflite", "Igamma"),
        ("custom.onnx", "Frobnicate"),
        ("tfjs", "group1-shard1of1.bin, but its folder has no such file"),
        ("lambda.keras", "If you trust the file, set `allow_unsafe: true`"),
    ],
)
def test_models_that_cannot_be_loaded(rejected_run, world, name, message):
    printed = rejected_run({"path": str(world / name)})
    assert f"Version 'v0' ({world / name}): " in printed
    assert message in printed


def test_a_lambda_layer_runs_if_the_config_allows_it(run_job, world):
    folder = run_job(
        {
            "data": {"files": str(world / "data.parquet"), "label": "label"},
            "models": [
                {"name": "v1", "path": str(world / "lambda.keras"), "allow_unsafe": True},
            ],
        }
    )
    assert json.loads((folder / "manifest.json").read_text())["models"]["v1"]["allow_unsafe"]


def test_an_output_of_another_shape_than_the_heads(rejected_run, world):
    printed = rejected_run(
        {"path": str(world / "good.keras")},
        {"path": str(world / "three.keras"), "conversion_of": "v0"},
    )
    assert "version 'v1'" in printed
    assert "has the shape [N, 3]; task multiclass needs one prediction per class, [N, 4]" in printed


def test_a_model_with_another_digest(rejected_run, world):
    printed = rejected_run({"path": str(world / "good.tflite"), "sha256": "0" * 64})
    assert "its SHA-256 digest is " in printed
    assert f"but the config requires {'0' * 64}: this is not the intended model" in printed


@pytest.mark.parametrize(
    ("version", "message"),
    [("v12.22.0", "is v12.22.0"), (None, "there is no `node` on the PATH")],
)
def test_a_node_that_is_too_old_or_missing(
    rejected_run, tmp_path, monkeypatch, world, version, message
):
    folder = tmp_path / "model"
    shutil.copytree(world / "tfjs", folder)
    (folder / "group1-shard1of1.bin").write_bytes(bytes(48))
    tools = tmp_path / "bin"
    tools.mkdir()
    if version:
        (tools / "node").write_text(f"#!/bin/sh\necho {version}\n")
        (tools / "node").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools))
    printed = rejected_run({"path": str(folder)})
    assert message in printed
    assert f"npm ci --ignore-scripts --no-audit --no-fund --prefix {install.FOLDER}" in printed
