"""Generates real data and two model versions to evaluate, in seconds and without network access.

The data is statsmodels' `randhie`, from the RAND Health Insurance Experiment, whose randomly
assigned plans charge families between none and almost all of the price of a visit. Each row is one
year of one person, and the models predict whether the person saw a doctor in that year.

This module imports TensorFlow; the command line imports it only to run the demo.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from evalbeam.transforms import errors

_SEED = 7
_SHARDS = 4
_LABEL = "visited"

# What the person pays, in the dataset's names: the coinsurance rate, the kind of plan, the yearly
# participation incentive and the maximum expenditure.
_PLAN = ("lncoins", "idp", "lpi", "fmde")
_HEALTH = ("physlm", "disea", "hlthg", "hlthf", "hlthp")

_CONFIG = """\
# Two versions of a model that predicts whether a person visits a doctor within a year.
# `evalbeam demo` overwrites this file; copy it to change it. Paths are relative to the working
# folder.
name: doctor-visits
task: binary
data:
  format: tfrecord
  files: {data}
  label: visited
  id: person            # a person has several rows, one per year
models:
  - name: v1            # logistic regression on the insurance plan only
    path: {v1}
    baseline: true      # the version that v2 is compared with
  - name: v2            # a small network on plan and health
    path: {v2}
slices:                 # in addition to all examples together
  - [health]
  - [limited]
  - [plan]
  - [health, limited]   # every combination
metrics:
  - ExampleCount
  - BinaryAccuracy
  - Precision
  - Recall
  - AUC
  - ConfusionMatrixPlot
  - {{class_name: RecallAtPrecision, config: {{precision: 0.8}}}}
thresholds: [0.5]
output: results
"""


def prepare(folder: Path) -> Path:
    """Writes data, models and a config to `folder`; returns the config's path.

    The same installation always writes the same bytes of data. Existing files are overwritten.

    - data/train-*.tfrecord and data/eval-*.tfrecord: tf.Examples; no person is in both.
    - models/v1: a SavedModel whose signature takes serialised tf.Examples.
    - models/v2.keras: a Keras model whose inputs have the names of the features.
    - demo.yaml: the config, with paths relative to the working folder.

    Raises:
      ConfigError: statsmodels, which ships the data, is not installed.
    """
    rows = _rows()
    # By person, not by row: the years of a person are similar and would leak between splits.
    people = np.random.default_rng(_SEED).random(rows["person"].max() + 1) < 0.5
    in_train = people[rows["person"]]
    train = rows[in_train]
    _write(train, folder / "data", "train")
    _write(rows[~in_train], folder / "data", "eval")

    keras.utils.set_random_seed(_SEED)
    (folder / "models").mkdir(exist_ok=True)
    click.echo(f"training v1 on {len(train):,} rows (logistic regression, plan) ...", err=True)
    v1 = _fit(train, _PLAN, hidden=())
    _export(v1, _PLAN, folder / "models/v1")
    click.echo(f"training v2 on {len(train):,} rows (network, plan and health) ...", err=True)
    v2 = _fit(train, _PLAN + _HEALTH, hidden=(16,))
    v2.save(folder / "models/v2.keras")

    config = folder / "demo.yaml"
    # JSON strings are valid YAML, whatever characters the folder's name contains.
    paths = {"data": "data/eval-*.tfrecord", "v1": "models/v1", "v2": "models/v2.keras"}
    config.write_text(
        _CONFIG.format(**{key: json.dumps(str(folder / path)) for key, path in paths.items()})
    )
    return config


def _rows() -> pd.DataFrame:
    """The label, `person`, the slicing features, and the dataset's own columns as features."""
    try:
        from statsmodels.datasets import randhie
    except ImportError as error:
        raise errors.ConfigError(
            "the demo needs statsmodels' data, but statsmodels is not installed: "
            "pip install statsmodels"
        ) from error
    rows = randhie.load_pandas().data
    features = rows[[*_PLAN, *_HEALTH]].astype(float)
    # The rows of a person are consecutive and agree in all features, which were recorded at the
    # start of the experiment. As the data has no person IDs, relatives with the same answers count
    # as one person; no person counts as two.
    person = (features != features.shift()).any(axis=1).cumsum() - 1
    health = [rows["hlthg"] == 1, rows["hlthf"] == 1, rows["hlthp"] == 1]
    # Values between 0 and 1 are the source's estimates of missing answers.
    limited = [rows["physlm"] == 1, rows["physlm"] == 0]
    plan = [rows["idp"] == 1, rows["lncoins"] == 0]
    return features.assign(
        person=person,
        visited=(rows["mdvis"] > 0).astype(int),
        health=np.select(health, ["good", "fair", "poor"], "excellent"),
        limited=np.select(limited, ["yes", "no"], "unknown"),
        plan=np.select(plan, ["deductible", "free"], "coinsured"),
    )


def _write(rows: pd.DataFrame, folder: Path, split: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for shard, indices in enumerate(np.array_split(np.arange(len(rows)), _SHARDS)):
        path = folder / f"{split}-{shard:05d}-of-{_SHARDS:05d}.tfrecord"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for example in _to_examples(rows.iloc[indices]):
                # Deterministic, as the order of a protobuf map is arbitrary.
                writer.write(example.SerializeToString(deterministic=True))


def _to_examples(rows: pd.DataFrame) -> Iterator[tf.train.Example]:
    for row in rows.to_dict("records"):
        yield tf.train.Example(
            features=tf.train.Features(feature={k: _to_feature(v) for k, v in row.items()})
        )


def _to_feature(value: str | int | float) -> tf.train.Feature:
    if isinstance(value, str):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))
    if isinstance(value, int):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
    return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))


def _fit(rows: pd.DataFrame, names: Sequence[str], hidden: Sequence[int]) -> keras.Model:
    """Trains a network with standardised inputs; without hidden layers, a logistic regression."""
    arrays = {name: rows[[name]].to_numpy(np.float32) for name in names}
    inputs = {name: keras.Input((1,), name=name) for name in names}
    standardize = keras.layers.Normalization()
    standardize.adapt(np.concatenate(list(arrays.values()), axis=1))
    layer = standardize(keras.layers.Concatenate()(list(inputs.values())))
    for units in hidden:
        layer = keras.layers.Dense(units, "relu")(layer)
    model = keras.Model(inputs, keras.layers.Dense(1, "sigmoid", name=_LABEL)(layer))
    model.compile(keras.optimizers.Adam(0.003), "binary_crossentropy")
    model.fit(arrays, rows[_LABEL].to_numpy(), batch_size=128, epochs=10, verbose=0)
    return model


def _export(model: keras.Model, names: Sequence[str], path: Path) -> None:
    spec = {name: tf.io.FixedLenFeature([1], tf.float32) for name in names}

    def serve(examples: tf.Tensor) -> tf.Tensor:
        return model(tf.io.parse_example(examples, spec))

    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        "serving_default", serve, [tf.TensorSpec([None], tf.string, name="examples")]
    )
    archive.write_out(str(path), verbose=False)
