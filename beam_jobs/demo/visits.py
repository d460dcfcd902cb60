"""Real data and two real model versions to evaluate, made in seconds and without a network.

The data is statsmodels' `randhie`, from the RAND Health Insurance Experiment: its plans, drawn by
lot, charge families between nothing and nearly all of the price of a visit. Each row is a year of
a person, and the models predict whether the person saw a doctor in it.

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

# What the person pays, by the dataset's names: the coinsurance rate, the kind of plan, the yearly
# participation incentive and the maximum expenditure.
_PLAN = ("lncoins", "idp", "lpi", "fmde")
_HEALTH = ("physlm", "disea", "hlthg", "hlthf", "hlthp")

_CONFIG = """\
# Two versions of a model that predicts whether a person visits a doctor within a year.
# `evalbeam demo` writes this file anew; copy it to change it. Paths are relative to the working
# folder.
name: doctor-visits
task: binary
data:
  format: tfrecord
  files: {data}
  label: visited
  id: person            # several rows are years of one person
models:
  - name: v1            # logistic regression on the insurance plan alone
    path: {v1}
    baseline: true      # the version that v2 is compared with
  - name: v2            # a small network on plan and health
    path: {v2}
slices:                 # besides all examples together
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


def find_devices() -> None:
    """Makes TensorFlow look for GPUs, which it says on stderr, now rather than when it trains."""
    tf.zeros(1)


def prepare(folder: Path) -> Path:
    """Writes data, models and a config into `folder`; gives the config's path.

    The same installation writes the same data to the byte. What stands there from an earlier call
    is overwritten.

    - data/train-*.tfrecord and data/eval-*.tfrecord: tf.Examples. No person is in both.
    - models/v1: a SavedModel whose signature takes serialised tf.Examples.
    - models/v2.keras: a Keras model whose inputs have the names of the features.
    - demo.yaml: the config; it names the files as seen from the working folder.

    Raises:
      ConfigError: statsmodels, which ships the data, is not installed.
    """
    rows = _rows()
    # By person, not by row: years of one person are alike, and would leak from split to split.
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
    # JSON's quotes are YAML's too, whatever characters the folder's name has.
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
            "the demo's data comes with statsmodels, which is not installed: "
            "pip install statsmodels"
        ) from error
    rows = randhie.load_pandas().data
    features = rows[[*_PLAN, *_HEALTH]].astype(float)
    # The rows of a person follow one another and agree in every feature, which were taken at the
    # start of the experiment. The data leaves the person's number out, so that relatives of the
    # same answers count as one person; no person counts as two.
    person = (features != features.shift()).any(axis=1).cumsum() - 1
    health = [rows["hlthg"] == 1, rows["hlthf"] == 1, rows["hlthp"] == 1]
    # Between 0 and 1 stands the source's estimate, where the person's own answer is missing.
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
    for shard, part in enumerate(np.array_split(np.arange(len(rows)), _SHARDS)):
        path = folder / f"{split}-{shard:05d}-of-{_SHARDS:05d}.tfrecord"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for example in _examples(rows.iloc[part]):
                # Deterministic: a map of protobuf has no order of its own.
                writer.write(example.SerializeToString(deterministic=True))


def _examples(rows: pd.DataFrame) -> Iterator[tf.train.Example]:
    for row in rows.to_dict("records"):
        yield tf.train.Example(
            features=tf.train.Features(feature={k: _feature(v) for k, v in row.items()})
        )


def _feature(value: str | int | float) -> tf.train.Feature:
    if isinstance(value, str):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))
    if isinstance(value, int):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
    return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))


def _fit(rows: pd.DataFrame, names: Sequence[str], hidden: Sequence[int]) -> keras.Model:
    """A network, without hidden layers a logistic regression, that standardises its inputs."""
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
