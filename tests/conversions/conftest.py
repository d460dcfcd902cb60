"""One small network, trained once on scikit-learn's digits, and the forms that it ships in."""

import json
import pathlib
import subprocess
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from evalbeam.transforms.models.tfjs import install

ROOT = pathlib.Path(__file__).parents[2]
CONVERTER = ROOT / ".cache" / "converter"

INPUT = ("image", (8, 8, 1))
LAYERS = [
    ("Conv2D", {"filters": 16, "kernel_size": 3, "activation": "relu"}),
    ("MaxPooling2D", {}),
    ("Flatten", {}),
    ("Dense", {"units": 10, "activation": "softmax", "name": "digit"}),
]


@dataclass(frozen=True)
class Digits:
    """The network and the digits it has not seen.

    Attributes:
      images: float32[N, 8, 8, 1] within 0 to 1.
      labels: int64[N].
      model: the Keras model.
      folder: its files: saved_model/, digits.keras and weights.npz.
    """

    images: np.ndarray
    labels: np.ndarray
    model: Any
    folder: pathlib.Path

    def with_weights(self, weights):
        """The Keras model with other weights, listed as `get_weights` lists them."""
        model = _network()
        model.set_weights(weights)
        return model


def _network():
    import keras

    name, shape = INPUT
    layers = [getattr(keras.layers, kind)(**arguments) for kind, arguments in LAYERS]
    return keras.Sequential([keras.Input(shape, name=name), *layers])


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """The trained network, as Keras writes it."""
    import keras
    from sklearn import datasets

    data = datasets.load_digits()
    images = (data.images / 16).astype(np.float32)[..., None]
    seen = np.random.default_rng(7).random(len(images)) < 0.5
    keras.utils.set_random_seed(7)
    model = _network()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(images[seen], data.target[seen], epochs=30, verbose=0)
    folder = tmp_path_factory.mktemp("digits")
    model.save(folder / "digits.keras")
    model.export(str(folder / "saved_model"), verbose=False)
    np.savez(folder / "weights.npz", *model.get_weights())
    return Digits(images[~seen], data.target[~seen], model, folder)


@pytest.fixture(scope="session")
def convert():
    """Runs conversions, as convert.py lists them, with TensorFlow.js's own converter."""
    if install.missing():
        pytest.skip(install.missing())
    if not (CONVERTER / ".ready").exists():
        pytest.skip(
            f"TensorFlow.js's converter is not in {CONVERTER}: `make test-conversions` installs "
            "it, with Python 3.10 or 3.11"
        )

    def run(*conversions):
        subprocess.run(
            [CONVERTER / "bin/python", pathlib.Path(__file__).with_name("convert.py")],
            input=json.dumps(conversions, default=str),
            text=True,
            check=True,
        )

    return run


@pytest.fixture(scope="session")
def tfjs_forms(digits, convert):
    """By name, the folders of the network as TensorFlow.js models."""
    graph = {"saved_model": digits.folder / "saved_model"}
    layers = {"input": INPUT, "layers": LAYERS, "weights": digits.folder / "weights.npz"}
    conversions = {
        f"{form}_{stored}": {
            **source,
            "to": digits.folder / f"{form}_{stored}",
            **({} if stored == "float32" else {"quantize": stored}),
        }
        for form, source in (("graph", graph), ("layers", layers))
        for stored in ("float32", "float16", "uint8")
    }
    convert(*conversions.values())
    return {name: conversion["to"] for name, conversion in conversions.items()}
