"""Generates real images, and one model in all supported forms, in seconds.

The images are scikit-learn's `digits`: 1,797 handwritten digits of 8 x 8 pixels, from the UCI
repository's "Optical Recognition of Handwritten Digits".

This module imports TensorFlow; the command line imports it only to run the demo.
"""

from __future__ import annotations

import importlib.util
import io
import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import keras
import numpy as np
import pandas as pd
import tensorflow as tf
import yaml
from PIL import Image

from evalbeam.transforms import errors
from evalbeam.transforms.models import quiet
from evalbeam.transforms.models.tfjs import install

_SEED = 7
_SHARDS = 2
_MAX_PIXEL = 16  # of the dataset

_CONFIG = """\
# One model of handwritten digits in several forms: do they still predict the same?
# `evalbeam demo digits` overwrites this file; copy it to change it. Paths are relative to the
# working folder.
name: digits
task: multiclass
data:
  files: {data}
  label: digit
  images:
    image: {{scale: 1/255}}    # PNG files in the column `image`, as numbers from 0 to 1
models:
{models}
slices:
  - [stroke]                 # thin, medium or bold
metrics: [ExampleCount, CategoricalAccuracy, Precision, Recall, F1Score]
output: results
"""


def prepare(folder: Path) -> Path:
    """Writes data, models and a config to `folder`; returns the config's path.

    - digits/data/eval-*.parquet: the images as PNG, their digit, and how bold the stroke is.
    - digits/models: saved_model, keras, TFLite (float and int8), TensorFlow.js and ONNX; the last
      two are skipped, with a note, if a package is missing.
    - digits.yaml: the config, with paths relative to the working folder.

    Raises:
      ConfigError: scikit-learn, which ships the data, is not installed.
    """
    images, digits = _digits()
    in_train = np.random.default_rng(_SEED).random(len(digits)) < 0.5
    _write(images[~in_train], digits[~in_train], folder / "digits/data")
    keras.utils.set_random_seed(_SEED)
    click.echo(f"training on {in_train.sum():,} images (a small Conv2D network) ...", err=True)
    model = train(images[in_train], digits[in_train])
    models = folder / "digits/models"
    models.mkdir(parents=True, exist_ok=True)
    click.echo("converting it ...", err=True)
    missing = {"tfjs": install.missing(), "onnx": _missing_for_onnx()}
    for form in filter(missing.get, missing):
        click.echo(f"skipping {form}: {missing[form]}", err=True)
    paths = {form: models / name for form, (name, _) in _FORMS.items() if not missing.get(form)}
    # Errors are raised; all other output is about the converters' internals.
    with quiet.without(re.compile(b"")), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for form, path in paths.items():
            _FORMS[form][1](model, images[in_train], path)
    entries = [
        {"name": name, "path": str(path)}
        | ({"conversion_of": "saved_model"} if i else {"baseline": True})
        for i, (name, path) in enumerate(paths.items())
    ]
    lines = "".join(f"  - {_to_flow_style(entry)}\n" for entry in entries).rstrip("\n")
    config = folder / "digits.yaml"
    data = json.dumps(str(folder / "digits/data/eval-*.parquet"))
    config.write_text(_CONFIG.format(data=data, models=lines))
    return config


def train(images: np.ndarray, digits: np.ndarray) -> keras.Model:
    """Trains a small convolutional network on images, float32[N, 8, 8, 1] in [0, 1], and int[N]."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            keras.layers.Conv2D(16, 3, activation="relu", name="conv"),
            keras.layers.MaxPooling2D(name="pool"),
            keras.layers.Flatten(name="flat"),
            keras.layers.Dense(10, activation="softmax", name="digit"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy")
    model.fit(images, digits, batch_size=32, epochs=20, verbose=0)
    return model


def _tflite_converter(path: Path) -> tf.lite.TFLiteConverter:
    """A converter of the SavedModel next to `path`; one from Keras would print to the screen."""
    return tf.lite.TFLiteConverter.from_saved_model(str(path.with_name("saved_model")))


def _convert_to_int8(path: Path, images: np.ndarray) -> bytes:
    """Converts to full-integer TFLite: weights, activations, input and output are int8."""
    converter = _tflite_converter(path)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in images[:200])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


def _missing_for_onnx() -> str | None:
    if all(importlib.util.find_spec(name) for name in ("tf2onnx", "onnxruntime")):
        return None
    return "pip install tf2onnx onnx onnxruntime"


def _write_tfjs(model: keras.Model, folder: Path) -> None:
    """Writes the network of `train` as a TensorFlow.js layers model, in the format of Keras 2.

    TensorFlow.js' own converter does the same, but cannot be installed alongside this TensorFlow.
    """
    folder.mkdir(parents=True, exist_ok=True)
    conv, pool, flat, digit = model.layers
    layers = [
        ("InputLayer", {"name": "image", "batch_input_shape": [None, 8, 8, 1]}),
        ("Conv2D", _settings(conv, "filters", "kernel_size", "activation")),
        ("MaxPooling2D", _settings(pool, "pool_size")),
        ("Flatten", _settings(flat)),
        ("Dense", _settings(digit, "units", "activation")),
    ]
    weights = [
        (f"{layer.name}/{part}", np.asarray(values, "<f4"))
        for layer in (conv, digit)
        for part, values in zip(("kernel", "bias"), layer.get_weights(), strict=True)
    ]
    network = {
        "class_name": "Sequential",
        "config": {
            "name": "digits",
            "layers": [{"class_name": kind, "config": config} for kind, config in layers],
        },
    }
    manifest = {
        "paths": ["group1-shard1of1.bin"],
        "weights": [
            {"name": name, "shape": list(values.shape), "dtype": "float32"}
            for name, values in weights
        ],
    }
    topology = {"keras_version": "2.15.0", "backend": "tensorflow", "model_config": network}
    (folder / "group1-shard1of1.bin").write_bytes(b"".join(v.tobytes() for _, v in weights))
    (folder / "model.json").write_text(
        json.dumps(
            {
                "format": "layers-model",
                "modelTopology": topology,
                "weightsManifest": [manifest],
            }
        )
    )


# Form -> the name of its file or folder, and what writes it; the first is the original.
_FORMS: dict[str, tuple[str, Callable[[keras.Model, np.ndarray, Path], Any]]] = {
    "saved_model": ("saved_model", lambda model, _, path: model.export(str(path), verbose=False)),
    "keras": ("digits.keras", lambda model, _, path: model.save(path)),
    "tflite": (
        "digits.tflite",
        lambda model, _, path: path.write_bytes(_tflite_converter(path).convert()),
    ),
    "tflite-int8": (
        "digits-int8.tflite",
        lambda model, images, path: path.write_bytes(_convert_to_int8(path, images)),
    ),
    "tfjs": ("tfjs", lambda model, _, path: _write_tfjs(model, path)),
    "onnx": (
        "digits.onnx",
        lambda model, _, path: model.export(str(path), format="onnx", verbose=False),
    ),
}


def _settings(layer: keras.Layer, *names: str) -> dict[str, Any]:
    config = layer.get_config()
    return {name: config[name] for name in ("name", *names)}


def _digits() -> tuple[np.ndarray, np.ndarray]:
    """The images, float32[N, 8, 8, 1] in [0, 1], and the digits, int[N]."""
    try:
        from sklearn import datasets
    except ImportError as error:
        raise errors.ConfigError(
            "the demo needs scikit-learn's images, but scikit-learn is not installed: "
            "pip install scikit-learn"
        ) from error
    digits = datasets.load_digits()
    return (digits.images[..., None] / _MAX_PIXEL).astype(np.float32), digits.target


def _write(images: np.ndarray, digits: np.ndarray, folder: Path) -> None:
    ink = images.mean(axis=(1, 2, 3))
    stroke = np.array(["thin", "medium", "bold"])[
        np.searchsorted(np.quantile(ink, [1 / 3, 2 / 3]), ink)
    ]
    rows = pd.DataFrame({"image": list(map(_png, images)), "digit": digits, "stroke": stroke})
    folder.mkdir(parents=True, exist_ok=True)
    for shard, indices in enumerate(np.array_split(np.arange(len(rows)), _SHARDS)):
        path = folder / f"eval-{shard:05d}-of-{_SHARDS:05d}.parquet"
        rows.iloc[indices].to_parquet(path, index=False)


def _png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.round(image[..., 0] * 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def _to_flow_style(entry: dict[str, Any]) -> str:
    return yaml.safe_dump(entry, default_flow_style=True, sort_keys=False, width=1000).strip()
