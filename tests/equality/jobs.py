"""The jobs that compare.py runs; data and models are seeded, and created once for both sides.

A job's function writes its data and models to an empty folder, where both sides run it, and returns
its config.
"""

from __future__ import annotations

import gzip
import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import reference

Config = dict[str, Any]

_EXAMPLES = 200_000  # of the large jobs

RATES = ["ExampleCount", "BinaryAccuracy", "Precision", "Recall"]
CONFUSION = [
    "TruePositives", "TN", "FalsePositives", "FN", "BinaryAccuracy", "Precision", "Recall",
    "Specificity", "FallOut", "MissRate", "NegativePredictiveValue", "FalseDiscoveryRate",
    "FalseOmissionRate", "Prevalence", "PredictedPositiveRate", "PrevalenceThreshold",
    "ThreatScore", "BalancedAccuracy", "F1Score", "MatthewsCorrelationCoefficient",
    "FowlkesMallowsIndex", "Informedness", "Markedness", "PositiveLikelihoodRatio",
    "NegativeLikelihoodRatio", "DiagnosticOddsRatio", "MaxRecall",
]  # fmt: skip
CURVES = [
    "AUC",
    "AUCPrecisionRecall",
    {"class_name": "AUC", "config": {"num_thresholds": 50, "name": "coarse_auc"}},
    {"class_name": "SensitivityAtSpecificity", "config": {"specificity": 0.8}},
    {"class_name": "SpecificityAtSensitivity", "config": {"sensitivity": 0.8}},
    {"class_name": "PrecisionAtRecall", "config": {"recall": 0.7}},
    {"class_name": "RecallAtPrecision", "config": {"precision": 0.6}},
    {"class_name": "RecallAtFalsePositiveRate", "config": {"false_positive_rate": 0.1}},
    {"class_name": "ThresholdAtRecall", "config": {"recall": 0.7}},
]
MEANS = [
    "ExampleCount",
    "WeightedExampleCount",
    "MeanLabel",
    "MeanPrediction",
    "Calibration",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "RootMeanSquaredError",
    "MeanSquaredLogarithmicError",
    "MeanAbsolutePercentageError",
    "SquaredPearsonCorrelation",
]
FLIPS = ["SymmetricFlipRate", "BooleanFlipRates"]


@dataclass(frozen=True)
class Job:
    """What both sides run.

    Attributes:
      write: writes data and models into a folder, and returns the config.
      flags: further flags of `evalbeam run`.
      demo: instead of `write`, the example of `evalbeam demo` and the path of its config.
    """

    write: Callable[[Path], Config] | None = None
    flags: tuple[str, ...] = ()
    demo: tuple[str, str] | None = None


def _list_models(*columns: str) -> list[dict[str, Any]]:
    """Models v1, v2, ... with stored predictions in these columns; the first is the baseline."""
    return [
        {"name": f"v{i + 1}", "predictions": column, "baseline": i == 0}
        for i, column in enumerate(columns)
    ]


def _draw_people(seed: int, size: int = 6_000) -> pd.DataFrame:
    """Weighted binary examples with single, multiple and missing slice values."""
    rng = np.random.default_rng(seed)
    label = (rng.random(size) < 0.3).astype(int)
    weight = rng.gamma(2.0, 1.0, size)
    weight[rng.random(size) < 0.02] = 0.0
    return pd.DataFrame(
        {
            "id": np.arange(size),
            "label": label,
            "weight": weight,
            "country": rng.choice(np.array(["de", "fr", None]), size, p=[0.5, 0.4, 0.1]),
            "tags": [list(rng.choice(["a", "b", "c"], rng.integers(0, 4))) for _ in range(size)],
            "age": rng.integers(18, 90, size),
            "income": rng.lognormal(10.0, 1.0, size).round(2),
            # Ties and scores on the edges of buckets, and scores of 32 bits.
            "s1": np.clip(rng.normal(0.35 + 0.2 * label, 0.2), 0.01, 0.99).round(2),
            "s2": np.clip(rng.normal(0.35 + 0.3 * label, 0.2), 0.01, 0.99).astype(np.float32),
        }
    )


def _split(frame: pd.DataFrame, count: int) -> list[pd.DataFrame]:
    return [frame.iloc[rows] for rows in np.array_split(np.arange(len(frame)), count)]


def _write_jsonl(frame: pd.DataFrame, path: Path) -> None:
    frame.to_json(path, orient="records", lines=True, double_precision=15)


def _write_tfrecord(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        for row in rows:
            writer.write(_encode_example(row))


def _encode_example(row: Mapping[str, Any]) -> bytes:
    """A serialised tf.Example; None is a missing feature."""
    import tensorflow as tf

    example = tf.train.Example()
    for name, value in row.items():
        if value is None:
            continue
        feature = example.features.feature[name]
        values = value if isinstance(value, list) else [value]
        if not values or isinstance(values[0], str | bytes):
            encoded = (text.encode() if isinstance(text, str) else text for text in values)
            feature.bytes_list.value.extend(encoded)
        elif isinstance(values[0], int):
            feature.int64_list.value.extend(values)
        else:
            feature.float_list.value.extend(values)
    serialized: bytes = example.SerializeToString(deterministic=True)
    return serialized


def _compress(path: Path) -> None:
    """Compresses a file with gzip, adding .gz to its name."""
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    path.unlink()


def _make_reference(folder: Path) -> Config:
    reference.write_models(folder)
    return reference.config(
        reference.write_examples(folder, _EXAMPLES).relative_to(folder),
        [{"name": "v1", "path": "v1", "baseline": True}, {"name": "v2", "path": "v2"}],
    )


def _make_many_slices(folder: Path) -> Config:
    reference.write_models(folder)
    files = reference.write_examples(folder, _EXAMPLES, wide=True).relative_to(folder)
    plots = [
        {"class_name": "ConfusionMatrixPlot", "config": {"num_thresholds": 20}},
        {"class_name": "CalibrationPlot", "config": {"num_buckets": 10}},
    ]
    return reference.config(
        files,
        [{"name": "v1", "path": "v1", "baseline": True}, {"name": "v2", "path": "v2"}],
        slices=[["key10000"], ["country", "device"]],
        metrics=[*(name for name in reference.METRICS if not name.endswith("Plot")), *plots],
    )


def _make_binary_csv(folder: Path) -> Config:
    """All confusion metrics at three thresholds, weights, two splits, edges."""
    frame = _draw_people(1).drop(columns="tags")
    for i, part in enumerate(_split(frame.iloc[:4_000], 3)):
        part.to_csv(folder / f"eval-{i}.csv", index=False)
    for i, part in enumerate(_split(frame.iloc[4_000:], 2)):
        part.to_csv(folder / f"train-{i}.csv", index=False)
    return {
        "task": "binary",
        "data": {
            "files": "eval-*.csv",
            "splits": {"train": "train-*.csv"},
            "label": "label",
            "weight": "weight",
            "id": "id",
            "batch_size": 700,
        },
        "models": _list_models("s1", "s2"),
        "slices": [
            ["country"],
            {"key": "age", "edges": [30, 60]},
            ["country", {"key": "age", "edges": [45]}],
        ],
        "metrics": [
            "ExampleCount",
            *CONFUSION,
            *FLIPS,
            {"class_name": "ConfusionMatrixAtThresholds", "config": {"thresholds": [0.2, 0.6]}},
        ],
        "thresholds": [0.3, 0.5, 0.7],
    }


def _make_binary_jsonl(folder: Path) -> Config:
    """Multi-valued and missing slice values, values slices, gzip, with and without weights."""
    for i, part in enumerate(_split(_draw_people(2), 3)):
        _write_jsonl(part, folder / f"data-{i}.jsonl")
    _compress(folder / "data-1.jsonl")
    return {
        "data": {
            "files": ["data-0.jsonl", "data-1.jsonl.gz", "data-2.jsonl"],
            "format": "jsonl",
            "label": "label",
            "weight": "weight",
            "batch_size": 500,
        },
        "models": _list_models("s1", "s2"),
        "slices": [
            ["tags"],
            ["country", "tags"],
            {"values": {"country": "de"}},
            {"values": {"country": "de"}, "keys": ["tags"]},
            {"values": {"age": 40}},
        ],
        "metrics": [
            *RATES,
            *(name for name in MEANS if name != "ExampleCount"),
            "AUC",
            {"class_name": "AUC", "weighted": False},
            {"class_name": "Recall", "weighted": False, "config": {"thresholds": [0.2, 0.8]}},
            {"class_name": "BinaryCrossEntropy", "models": ["v2"]},
            {"class_name": "BinaryCrossentropy", "config": {"name": "clipped"}},
            "SymmetricFlipRate",
        ],
        "confidence": {"units": 7},
    }


def _make_binary_parquet(folder: Path) -> Config:
    """Fractional labels, curves, plots, quantiles and renamed metrics."""
    frame = _draw_people(3)
    rng = np.random.default_rng(33)
    drawn = rng.integers(0, 9, len(frame)) / 8
    frame["label"] = np.where(rng.random(len(frame)) < 0.5, frame["label"], drawn)
    for i, part in enumerate(_split(frame, 2)):
        part.to_parquet(folder / f"data-{i}.parquet", row_group_size=1_000)
    return {
        "task": "binary",
        "data": {"files": "data-*.parquet", "label": "label", "weight": "weight", "id": "id"},
        "models": _list_models("s1", "s2"),
        "slices": [
            ["tags"],
            {"key": "income", "quantiles": 4},
            ["country", {"key": "age", "quantiles": 3}],
        ],
        "metrics": [
            *MEANS,
            *CURVES,
            "CoefficientOfDiscrimination",
            "RelativeCoefficientOfDiscrimination",
            "BinaryCrossEntropy",
            {"class_name": "Precision", "config": {"name": "share_right"}},
            "ConfusionMatrixPlot",
            "CalibrationPlot",
            *FLIPS,
        ],
    }


def _make_binary_tfrecord(folder: Path) -> Config:
    """The default metrics of an inferred task; examples are identified by their content."""
    for i, part in enumerate(_split(_draw_people(4), 3)):
        rows = part.drop(columns="id").to_dict("records")
        _write_tfrecord([{str(k): v for k, v in row.items()} for row in rows], folder / f"{i}.tfr")
    _compress(folder / "2.tfr")
    return {
        "data": {"files": "*.tfr*", "format": "tfrecord", "label": "label", "batch_size": 900},
        "models": _list_models("s1", "s2", "s1"),
        "slices": [["country"], ["tags"], ["country", "tags"], {"key": "age", "edges": [30, 60]}],
        "thresholds": [0.4, 0.6],
    }


def _make_spellings(folder: Path) -> Config:
    """A slice value that each file spells differently, and a file in two splits."""
    for i, ages in enumerate((["1", "2"], ["1.0", "2.5"], ["1", "old"], ["01000", "true"])):
        frame = pd.DataFrame({"label": [0, 1] * 20, "score": 0.7, "age": ages * 20})
        frame.to_csv(folder / f"data-{i}.csv", index=False)
    return {
        "data": {"files": "data-*.csv", "label": "label", "splits": {"again": "data-0.csv"}},
        "models": _list_models("score"),
        "slices": [["age"]],
        "metrics": RATES,
    }


def _draw_class_scores(rng: np.random.Generator, label: np.ndarray, classes: int) -> np.ndarray:
    """Scores that sum to 1, with ties for the largest, float64[N, classes]."""
    raw = rng.integers(1, 9, (len(label), classes)).astype(float)
    raw[np.arange(len(label)), label] += rng.integers(0, 5, len(label))
    return raw / raw.sum(axis=1, keepdims=True)


def _make_multiclass(folder: Path) -> Config:
    rng = np.random.default_rng(5)
    label = rng.choice(4, 3_000, p=[0.4, 0.3, 0.2, 0.1])
    frame = pd.DataFrame({"label": label, "weight": rng.uniform(0.1, 3, len(label))})
    frame["device"] = rng.choice(np.array(["phone", "tablet", None]), len(label))
    frame["s1"] = list(_draw_class_scores(rng, label, 4).astype(np.float32))
    frame["s2"] = list(_draw_class_scores(rng, label, 4))
    for i, part in enumerate(_split(frame, 2)):
        part.to_parquet(folder / f"data-{i}.parquet", row_group_size=400)
    return {
        "task": "multiclass",
        "data": {"files": "data-*.parquet", "label": "label", "weight": "weight"},
        "models": _list_models("s1", "s2"),
        "slices": [["device"]],
        "metrics": [
            "ExampleCount",
            "WeightedExampleCount",
            "CategoricalAccuracy",
            "SparseCategoricalAccuracy",
            "Precision",
            "Recall",
            "F1Score",
            "MatthewsCorrelationCoefficient",
            "CategoricalCrossEntropy",
            "SparseCategoricalCrossentropy",
            {"class_name": "AUC", "aggregate": {"average": "micro"}},
            {
                "class_name": "AUC",
                "binarize": {"class_ids": [0, 3]},
                "aggregate": {"average": "macro"},
            },
            {"class_name": "BinaryAccuracy", "binarize": {"class_ids": [1, 2], "k_list": [1]}},
            {"class_name": "BalancedAccuracy", "binarize": {"top_k_list": [2]}},
            {
                "class_name": "Specificity",
                "aggregate": {"average": "weighted_macro", "class_weights": {0: 1, 1: 2}},
            },
            {"class_name": "FallOut", "aggregate": {"average": "micro", "top_k_list": [1, 2]}},
            "MultiClassConfusionMatrixPlot",
        ],
        "thresholds": [0.5],
    }


def _make_multilabel(folder: Path) -> Config:
    rng = np.random.default_rng(6)
    label = (rng.random((3_000, 3)) < [0.5, 0.3, 0.1]).astype(int)
    frame = pd.DataFrame({"label": label.tolist(), "kind": rng.choice(["a", "b"], len(label))})
    for name in ("s1", "s2"):
        scores = 0.3 * label + 0.7 * rng.random(label.shape)
        tied = rng.random(label.shape) < 0.3
        frame[name] = np.where(tied, np.round(scores * 8) / 8, scores).clip(0.01, 0.99).tolist()
    for i, part in enumerate(_split(frame, 2)):
        _write_jsonl(part, folder / f"data-{i}.jsonl")
    return {
        "task": "multilabel",
        "data": {"files": "data-*.jsonl", "label": "label"},
        "models": [*_list_models("s1"), {"name": "v2", "predictions": "s2", "conversion_of": "v1"}],
        "slices": [["kind"]],
        "metrics": [
            *RATES,
            "F1Score",
            "AUC",
            "BinaryCrossentropy",
            {"class_name": "AUC", "binarize": {"class_ids": [0, 2]}},
            {
                "class_name": "Recall",
                "aggregate": {"average": "macro", "class_weights": {0: 1, 1: 2, 2: 1}},
            },
            "MultiLabelConfusionMatrixPlot",
        ],
        "thresholds": [0.4, 0.5],
    }


def _make_regression(folder: Path) -> Config:
    rng = np.random.default_rng(7)
    label = np.round(rng.gamma(2.0, 3.0, 4_000), 2)
    label[rng.random(len(label)) < 0.1] = 0.0
    frame = pd.DataFrame({"label": label, "weight": rng.uniform(0.1, 3, len(label))})
    frame["height"] = rng.permutation(len(label)) / 10
    frame["s1"] = np.abs(label + rng.normal(0, 2, len(label))).astype(np.float32)
    frame["s2"] = np.abs(label + rng.normal(0, 1, len(label)))
    for i, part in enumerate(_split(frame, 3)):
        part.to_csv(folder / f"data-{i}.csv", index=False)
    return {
        "task": "regression",
        "data": {"files": "data-*.csv", "label": "label", "weight": "weight"},
        "models": _list_models("s1", "s2"),
        "slices": [{"key": "height", "quantiles": 5}, {"key": "height", "edges": [100, 300]}],
        "metrics": [*MEANS, "CalibrationPlot"],
    }


def _make_outputs(folder: Path) -> Config:
    """Stored predictions of two outputs, each with a label and a conversion."""
    rng = np.random.default_rng(8)
    size = 2_500
    clicked = (rng.random(size) < 0.4).astype(int)
    frame = pd.DataFrame({"clicked": clicked, "spent": rng.gamma(2.0, 3.0, size)})
    frame["importance"] = rng.uniform(0.1, 2, size)
    frame["country"] = rng.choice(["de", "fr", "it"], size)
    for name, noise in (("v1", 0.3), ("v2", 0.2), ("lite", 0.31)):
        frame[f"{name}_click"] = np.clip(rng.normal(0.3 + 0.4 * clicked, noise), 0, 1)
        frame[f"{name}_spent"] = frame["spent"] + rng.normal(0, 10 * noise, size)
    for i, part in enumerate(_split(frame, 2)):
        _write_jsonl(part, folder / f"data-{i}.jsonl")
    models: list[dict[str, Any]] = [
        {"name": name, "predictions": {"clicked": f"{name}_click", "spent": f"{name}_spent"}}
        for name in ("v1", "v2", "lite")
    ]
    models[0]["baseline"] = True
    models[2]["conversion_of"] = "v2"
    return {
        "task": {"clicked": "binary", "spent": "regression"},
        "data": {
            "files": "data-*.jsonl",
            "label": {"clicked": "clicked", "spent": "spent"},
            "weight": "importance",
        },
        "models": models,
        "slices": [["country"]],
        "metrics": [
            "ExampleCount",
            {"class_name": "AUC", "outputs": ["clicked"]},
            {"class_name": "BinaryAccuracy", "outputs": ["clicked"]},
            {"class_name": "SymmetricFlipRate", "outputs": ["clicked"]},
            {"class_name": "MeanSquaredError", "outputs": ["spent"], "weighted": False},
            {"class_name": "MeanAbsoluteError", "outputs": ["spent"]},
        ],
    }


_FEATURES = ("age", "income")


def _write_plans(folder: Path, size: int = 2_000) -> None:
    """tf.Examples with two floats, a label and a slice, in three shards, the last one gzip."""
    rng = np.random.default_rng(9)
    frame = pd.DataFrame({name: rng.normal(size=size).astype(np.float32) for name in _FEATURES})
    frame["label"] = (rng.random(size) < 1 / (1 + np.exp(-frame["age"]))).astype(int)
    frame["plan"] = rng.choice(["free", "paid"], size)
    rows = [{str(k): v for k, v in row.items()} for row in frame.to_dict("records")]
    for i, part in enumerate(np.array_split(np.arange(size), 3)):
        _write_tfrecord([rows[row] for row in part], folder / f"data-{i}.tfrecord")
    _compress(folder / "data-2.tfrecord")


def _write_parsing(path: Path) -> None:
    """A SavedModel on serialised tf.Examples that rejects ages of 100 and above."""
    import tensorflow as tf

    def serve(examples: Any) -> Any:
        spec = {name: tf.io.FixedLenFeature([], tf.float32) for name in _FEATURES}
        parsed = tf.io.parse_example(examples, spec)
        tf.debugging.assert_less(parsed["age"], 100.0, "age is out of range")
        return {"score": tf.sigmoid(parsed["age"])}

    module = tf.Module()
    module.serve = tf.function(serve, input_signature=[tf.TensorSpec([None], tf.string)])
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.serve})


_CALLABLE = """\
import numpy as np


def predict(columns):
    return 1 / (1 + np.exp(-columns["age"] - columns["income"] / 4))
"""


def _make_model_forms(folder: Path) -> Config:
    """SavedModels with both kinds of signatures, a Keras file and a callable."""
    import keras

    _write_plans(folder)
    _write_parsing(folder / "v1")
    keras.utils.set_random_seed(1)
    inputs = {name: keras.Input((1,), name=name) for name in _FEATURES}
    hidden = keras.layers.Dense(4, "relu")(keras.layers.Concatenate()(list(inputs.values())))
    network = keras.Model(inputs, keras.layers.Dense(1, "sigmoid")(hidden))
    network.save(folder / "v2.keras")
    network.export(folder / "v3", verbose=False)
    (folder / "equality_model.py").write_text(_CALLABLE)
    return {
        "data": {
            "files": "data-*",
            "format": "tfrecord",
            "label": "label",
            "batch_size": 300,
        },
        "models": [
            {"name": "v1", "path": "v1", "baseline": True},
            {"name": "v2", "path": "v2.keras"},
            {"name": "v3", "path": "v3", "conversion_of": "v2"},
            {"name": "v4", "callable": "equality_model:predict", "inputs": list(_FEATURES)},
        ],
        "slices": [["plan"]],
        "metrics": [*RATES, "AUC", "BinaryCrossentropy", "SymmetricFlipRate"],
    }


def _make_model_outputs(folder: Path) -> Config:
    """A Keras file with two outputs."""
    import keras

    _write_plans(folder)
    keras.utils.set_random_seed(2)
    inputs = {name: keras.Input((1,), name=name) for name in _FEATURES}
    layer = keras.layers.Concatenate()(list(inputs.values()))
    outputs = {
        "visits": keras.layers.Dense(1, "sigmoid", name="visits")(layer),
        "spends": keras.layers.Dense(1, name="spends")(layer),
    }
    keras.Model(inputs, outputs).save(folder / "two.keras")
    return {
        "task": {"visits": "binary", "spends": "regression"},
        "data": {
            "files": "data-*",
            "format": "tfrecord",
            "label": {"visits": "label", "spends": "income"},
        },
        "models": [{"name": "two", "path": "two.keras"}],
        "slices": [["plan"]],
        "metrics": [
            {"class_name": "BinaryAccuracy", "outputs": ["visits"]},
            {"class_name": "MeanSquaredError", "outputs": ["spends"]},
        ],
    }


_SHUFFLED = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]


def _load_digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's digits: float32[N, 8, 8, 1] within 0 to 16, and int64[N]."""
    from sklearn import datasets

    digits = datasets.load_digits()
    return digits.images[..., None].astype(np.float32), digits.target


def _encode_image(image: np.ndarray, kind: str = "PNG") -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return file.getvalue()


def _train_network(images: np.ndarray, digits: np.ndarray) -> Any:
    """A small network, trained on images within 0 to 1."""
    import keras

    keras.utils.set_random_seed(3)
    network = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10, "softmax"),
        ]
    )
    network.compile("adam", "sparse_categorical_crossentropy")
    network.fit(images, digits, epochs=5, verbose=0)
    return network


def _make_conversions(folder: Path) -> Config:
    """TFLite and Keras files of a network, one with shuffled classes, one with unscaled input."""
    import tensorflow as tf

    images, digits = _load_digits()
    network = _train_network(images / 16, digits)
    network.save(folder / "digits.keras")
    network.export(str(folder / "saved_model"), verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved_model"))
    (folder / "float.tflite").write_bytes(converter.convert())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None] / 16] for image in images[:100])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    (folder / "int8.tflite").write_bytes(converter.convert())
    *before, kernel, bias = network.get_weights()
    network.set_weights([*before, kernel[:, _SHUFFLED], bias[_SHUFFLED]])
    network.export(str(folder / "shuffled"), verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "shuffled"))
    (folder / "shuffled.tflite").write_bytes(converter.convert())
    frame = pd.DataFrame(
        {
            "image": [_encode_image(np.round(image[..., 0]).astype(np.uint8)) for image in images],
            "digit": digits,
            "half": np.where(np.arange(len(digits)) % 2, "odd", "even"),
        }
    )
    for i, part in enumerate(_split(frame, 3)):
        part.to_parquet(folder / f"data-{i}.parquet")
    converted = {"conversion_of": "original"}
    return {
        "task": "multiclass",
        "data": {
            "files": "data-*.parquet",
            "label": "digit",
            "batch_size": 200,
            "images": {
                "image": {"scale": "1/16"},
                "tiny": {"column": "image", "scale": "1/4096"},
            },
        },
        "models": [
            {"name": "original", "path": "saved_model", "baseline": True},
            {"name": "keras", "path": "digits.keras", **converted},
            {"name": "float", "path": "float.tflite", **converted},
            {"name": "int8", "path": "int8.tflite", **converted},
            {"name": "shuffled", "path": "shuffled.tflite", **converted},
            {
                "name": "unscaled",
                "path": "float.tflite",
                "inputs": {"image": "tiny"},
                "conversion_of": "float",
            },
        ],
        "slices": [["half"]],
        "metrics": [
            "ExampleCount",
            "CategoricalAccuracy",
            "Precision",
            "Recall",
            "F1Score",
            "MultiClassConfusionMatrixPlot",
        ],
        "conversion": {"good": 0.005, "acceptable": 0.02, "bad": 0.08},
    }


def _make_stored_conversions(folder: Path) -> Config:
    """Stored predictions with each cause that a finding may have, and with an unknown cause."""
    rng = np.random.default_rng(10)
    label = rng.integers(0, 4, 3_000)
    logits = rng.normal(size=(len(label), 4))
    logits[np.arange(len(label)), label] += 2.0
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    noise = rng.normal(size=shares.shape) * 10.0 ** rng.integers(-8, 0, (len(label), 1))
    faint = np.clip(shares + noise, 0, 1)
    lost = np.where(rng.random(len(label))[:, None] < 0.07, shares[:, [1, 0, 3, 2]], shares)
    frame = pd.DataFrame({"label": label, "kind": rng.choice(["a", "b", "c"], len(label))})
    versions = {
        "v1": shares,
        "faint": faint,
        "exchanged": shares[:, [2, 1, 0, 3]],
        "logits": logits * 20 - 3,
        "chance": shares[rng.permutation(len(label))],
        "lost": lost,
    }
    for name, scores in versions.items():
        frame[name] = list(scores)
    for i, part in enumerate(_split(frame, 3)):
        part.to_parquet(folder / f"data-{i}.parquet", row_group_size=600)
    return {
        "data": {"files": "data-*.parquet", "label": "label", "batch_size": 640},
        "models": [
            {"name": name, "predictions": name} | ({"conversion_of": "v1"} if i else {})
            for i, name in enumerate(versions)
        ],
        "slices": [["kind"]],
    }


def _make_dead_letters(folder: Path) -> Config:
    """A truncated file, a record that is not a tf.Example, and one that the model rejects."""
    import tensorflow as tf

    _write_plans(folder)
    _write_parsing(folder / "v1")
    first, second = folder / "data-0.tfrecord", folder / "data-1.tfrecord"
    first.write_bytes(first.read_bytes()[:-3])
    good = [record.numpy() for record in tf.data.TFRecordDataset(str(second)).take(9)]
    example = tf.train.Example.FromString(good[0])
    example.features.feature["age"].float_list.value[0] = 200.0
    with tf.io.TFRecordWriter(str(second)) as writer:
        for record in (*good, b"no example", example.SerializeToString(), *good):
            writer.write(record)
    return {
        "data": {
            "files": "data-*",
            "format": "tfrecord",
            "label": "label",
            "max_dead_letters": 0.01,
            "batch_size": 128,
        },
        "models": [{"name": "v1", "path": "v1"}],
        "slices": [["plan"]],
        "metrics": [*RATES, "AUC"],
    }


def _make_dead_letters_jsonl(folder: Path) -> Config:
    """Lines that are not JSON, predictions that are missing, NaN or text."""
    frame = _draw_people(11, 1_000)
    lines = frame.to_json(orient="records", lines=True, double_precision=15).splitlines()
    lines[100] = lines[100][:-9]
    lines[200] = "{'label': 1}"
    for row, score in ((300, None), (301, "high"), (302, float("nan"))):
        lines[row] = json.dumps({**json.loads(lines[row]), "s2": score})
    (folder / "data-0.jsonl").write_text("\n".join(lines[:600]) + "\n")
    (folder / "data-1.jsonl").write_text("\n".join(lines[600:]) + "\n")
    return {
        "data": {
            "files": "data-*.jsonl",
            "label": "label",
            "weight": "weight",
            "id": "id",
            "max_dead_letters": 0.05,
            "batch_size": 64,
        },
        "models": _list_models("s1", "s2"),
        "slices": [["country"]],
        "metrics": [*RATES, "AUC"],
    }


def _make_images(folder: Path) -> Config:
    """Encoded and raw images, scaled, resized, in colour, channels first."""
    import keras

    images, digits = _load_digits()
    network = _train_network(images / 16, digits)
    network.save(folder / "network.keras")
    taken = keras.Input((8, 8, 1), name="whole")
    keras.Model(taken, network(keras.layers.Rescaling(1 / 16)(taken))).save(folder / "whole.keras")
    coloured = keras.Input((3, 4, 4), name="coloured")
    grey = keras.layers.Permute((2, 3, 1))(coloured[:, 1:2])
    large = keras.layers.UpSampling2D()(grey)
    keras.Model(coloured, network(large)).save(folder / "coloured.keras")
    pngs = [_encode_image(np.round(image[..., 0]).astype(np.uint8)) for image in images]
    frame = pd.DataFrame(
        {
            "image": [{"bytes": png, "path": f"{i % 2}.png"} for i, png in enumerate(pngs)],
            "pixels": [image.ravel() for image in images],
            "digit": digits,
        }
    )
    frame.to_parquet(folder / "digits.parquet", row_group_size=700)
    return {
        "task": "multiclass",
        "data": {
            "files": "digits.parquet",
            "label": "digit",
            "images": {
                "image": {"column": "image.bytes", "scale": "1/16"},
                "whole": {"column": "image.bytes"},
                "raw": {"column": "pixels", "shape": [8, 8, 1], "scale": "1/16", "offset": 0.01},
                "coloured": {
                    "column": "image.bytes",
                    "size": [4, 4],
                    "interpolation": "bicubic",
                    "channels": 3,
                    "channels_first": True,
                    "scale": [1, "1/16", 0],
                },
            },
        },
        "models": [
            {"name": "v1", "path": "network.keras", "baseline": True},
            {"name": "whole", "path": "whole.keras"},
            {"name": "raw", "path": "network.keras", "inputs": {"image": "raw"}},
            {"name": "coloured", "path": "coloured.keras"},
        ],
        "slices": [["image.path"]],
    }


def _make_damaged_images(folder: Path) -> Config:
    """JPEG pictures of a Conv2D network, some damaged or missing."""
    import keras

    rng = np.random.default_rng(12)
    taken = keras.Input((6, 6, 3), name="picture")
    mean = keras.layers.Conv2D(1, 6, use_bias=False, kernel_initializer="ones")(taken)
    scores = keras.layers.Dense(2, activation="softmax")
    network = keras.Model(taken, scores(keras.layers.Flatten()(mean)))
    scores.set_weights([np.array([[-1.0, 1.0]]), np.array([54.0, -54.0])])
    network.save(folder / "pets.keras")
    label = rng.integers(0, 2, 200)
    looks = np.where(rng.random(200) < 0.15, 1 - label, label)
    pictures: list[bytes | None] = [
        _encode_image(rng.integers(130 * look, 120 + 130 * look, (9, 12, 3), np.uint8), "JPEG")
        for look in looks
    ]
    pictures[3] = pictures[3][:-40] if pictures[3] else None
    pictures[4] = None
    pictures[70] = b"<html>404 not found</html>"
    pd.DataFrame({"picture": pictures, "is": label}).to_parquet(folder / "pets.parquet")
    return {
        "task": "multiclass",
        "data": {
            "files": "pets.parquet",
            "label": "is",
            "images": {"picture": {"size": [6, 6], "channels": 3, "scale": "1/255"}},
            "max_dead_letters": 0.05,
        },
        "models": [{"name": "v1", "path": "pets.keras"}],
    }


def _write_by_country(folder: Path) -> None:
    rng = np.random.default_rng(13)
    size = 900
    label = (rng.random(size) < 0.4).astype(int)
    frame = pd.DataFrame({"id": np.arange(size), "label": label, "gain": 1.0 + label})
    frame["query"] = [f"q{i}" for i in rng.integers(0, 120, size)]
    frame["weight"] = rng.uniform(0.1, 3, size)
    frame["country"] = rng.choice(["de", "fr", "it"], size, p=[0.6, 0.37, 0.03])
    for name, strength in (("s1", 0.1), ("s2", 0.3)):
        score = np.clip(rng.normal(0.35 + strength * label, 0.2), 0.01, 0.99)
        frame[name] = score.astype(np.float32)
    for i, part in enumerate(_split(frame, 2)):
        part.to_parquet(folder / f"data-{i}.parquet")


_EVAL_CONFIG = """
model_specs { name: "v1" label_key: "label" example_weight_key: "weight" is_baseline: true }
model_specs { name: "v2" label_key: "label" example_weight_key: "weight" }
slicing_specs {}
slicing_specs { feature_keys: "device" }
slicing_specs { feature_values { key: "device" value: "watch" } }
slicing_specs { feature_keys: "device" feature_values { key: "country" value: "de" } }
metrics_specs {
  binarize { class_ids { values: [0, 2] } top_k_list { values: 2 } }
  metrics { class_name: "Recall" config: '"thresholds": [0.4, 0.6]' }
  metrics { class_name: "AUC"
    threshold { value_threshold { lower_bound { value: 0.5 } } } }
}
metrics_specs {
  aggregate { macro_average: true class_weights { key: 1 value: 0.5 }
              class_weights { key: 0 value: 1 } }
  metrics { class_name: "Precision" }
}
metrics_specs {
  example_weights { weighted: true unweighted: true }
  aggregate { micro_average: true }
  metrics { class_name: "AUC" config: '"name": "area"' }
}
metrics_specs {
  model_names: "v2"
  metrics { class_name: "ExampleCount" }
  metrics { class_name: "CategoricalAccuracy" }
  metrics { class_name: "MultiClassConfusionMatrixPlot" }
}
options { min_slice_size { value: 100 } }
"""


def _make_eval_config(folder: Path) -> Config:
    """An EvalConfig with binarize, aggregate and min_slice_size, mostly for our own kernels."""
    rng = np.random.default_rng(14)
    label = rng.choice(4, 2_000, p=[0.4, 0.3, 0.2, 0.1])
    frame = pd.DataFrame({"label": label, "weight": rng.uniform(0.1, 3, len(label))})
    frame["device"] = rng.choice(["phone", "tablet", "watch"], len(label), p=[0.6, 0.37, 0.03])
    frame["country"] = rng.choice(["de", "fr"], len(label))
    frame["s1"] = list(_draw_class_scores(rng, label, 4))
    frame["s2"] = list(_draw_class_scores(rng, label, 4))
    for i, part in enumerate(_split(frame, 2)):
        part.to_parquet(folder / f"data-{i}.parquet")
    (folder / "eval_config.pbtxt").write_text(_EVAL_CONFIG)
    models = [{"name": name, "predictions": f"s{name[1:]}"} for name in ("v1", "v2")]
    return {
        "task": "multiclass",
        "data": {"files": "data-*.parquet"},
        "models": models,
        "eval_config": "eval_config.pbtxt",
    }


# A user's metric.
_USER_METRIC = (Path(__file__).parents[1] / "jobs/score_sum.py").read_text()

_EVAL_CONFIG_BY_TFMA = """
model_specs { name: "v1" label_key: "label" is_baseline: true }
model_specs { name: "v2" label_key: "label" }
slicing_specs {}
slicing_specs { feature_keys: "country" }
metrics_specs {
  query_key: "query"
  metrics { class_name: "NDCG" config: '"gain_key": "gain", "top_k_list": [1, 2]' }
}
metrics_specs {
  metrics { class_name: "Precision" config: '"thresholds": [0.4, 0.6]' }
  metrics { class_name: "AUC" }
  metrics { class_name: "LogCoshError" }
  metrics { class_name: "Hinge" }
  metrics { class_name: "ScoreSum" module: "equality_metric" }
}
options { min_slice_size { value: 50 } }
"""


def _make_eval_config_by_tfma(folder: Path) -> Config:
    """An EvalConfig with NDCG, Keras metrics and a user's metric, alongside two of our kernels."""
    _write_by_country(folder)
    (folder / "eval_config.pbtxt").write_text(_EVAL_CONFIG_BY_TFMA)
    (folder / "equality_metric.py").write_text(_USER_METRIC)
    return {
        "task": "binary",
        "data": {"files": "data-*.parquet", "id": "id"},
        "models": [{"name": name, "predictions": f"s{name[1:]}"} for name in ("v1", "v2")],
        "eval_config": "eval_config.pbtxt",
    }


def _make_by_tfma(folder: Path) -> Config:
    """Metrics without a kernel, with weights, alongside those with one."""
    _write_by_country(folder)
    (folder / "equality_metric.py").write_text(_USER_METRIC)
    return {
        "data": {"files": "data-*.parquet", "label": "label", "weight": "weight"},
        "models": _list_models("s1", "s2"),
        "slices": [["country"]],
        "metrics": [
            "AUC",
            "ExampleCount",
            "SymmetricPredictionDifference",
            "SquaredHinge",
            "Poisson",
            {"class_name": "ScoreSum", "module": "equality_metric", "weighted": False},
            {"class_name": "SymmetricFlipRate", "config": {"threshold": 0.4}},
        ],
    }


def _make_engine_tfma(folder: Path) -> Config:
    """All metrics computed by TFMA itself."""
    _write_by_country(folder)
    return {
        "data": {"files": "data-*.parquet", "label": "label", "weight": "weight", "id": "id"},
        "models": _list_models("s1", "s2"),
        "slices": [["country"], {"key": "id", "edges": [300, 600]}],
        "metrics": [
            *RATES,
            "AUC",
            "MeanPrediction",
            "MeanSquaredError",
            "BinaryCrossentropy",
            "SymmetricFlipRate",
            "ConfusionMatrixPlot",
            "CalibrationPlot",
        ],
    }


JOBS: dict[str, Job] = {
    "demo-visits": Job(demo=("visits", "demo/demo.yaml")),
    "demo-digits": Job(demo=("digits", "demo/digits.yaml")),
    "reference": Job(_make_reference),
    "many-slices": Job(_make_many_slices),
    "binary-csv": Job(_make_binary_csv),
    "binary-jsonl": Job(_make_binary_jsonl),
    "binary-parquet": Job(_make_binary_parquet),
    "binary-tfrecord": Job(_make_binary_tfrecord),
    "spellings": Job(_make_spellings),
    "multiclass": Job(_make_multiclass),
    "multilabel": Job(_make_multilabel),
    "regression": Job(_make_regression),
    "outputs": Job(_make_outputs),
    "model-forms": Job(_make_model_forms),
    "model-outputs": Job(_make_model_outputs),
    "conversions": Job(_make_conversions),
    "stored-conversions": Job(_make_stored_conversions),
    "dead-letters": Job(_make_dead_letters),
    "dead-letters-jsonl": Job(_make_dead_letters_jsonl),
    "images": Job(_make_images),
    "damaged-images": Job(_make_damaged_images),
    "eval-config": Job(_make_eval_config),
    "eval-config-by-tfma": Job(_make_eval_config_by_tfma),
    "by-tfma": Job(_make_by_tfma),
    "engine-tfma": Job(_make_engine_tfma, flags=("--engine", "tfma")),
}
