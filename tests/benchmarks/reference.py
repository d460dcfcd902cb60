"""The reference job of the benchmark: seeded tf.Examples, and two small models of them.

16 floats and three string features; slices overall, country (50), device (3), age (4) and
country x device: 208 slice keys.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np

FLOATS = 16
SLICES = (("country",), ("device",), ("age",), ("country", "device"))
METRICS = (
    "ExampleCount",
    "BinaryAccuracy",
    "Precision",
    "Recall",
    "AUC",
    "AUCPrecisionRecall",
    "BinaryCrossentropy",
    "ConfusionMatrixPlot",
    "CalibrationPlot",
)
_VOCABULARIES = {
    "country": [f"country{i:02d}" for i in range(50)],
    "device": ["phone", "tablet", "desktop"],
    "age": ["-25", "25-45", "45-65", "65-"],
}


def write_examples(
    folder: Path, examples: int, shards: int, seed: int = 0, keys: bool = False
) -> None:
    """Writes `examples` tf.Examples as TFRecord files eval-*.tfrecord.

    With `keys` they have two more features: `user`, of up to 100,000 values, and `group`, of 100.

    Random numbers are drawn once for up to 100,000 examples, which repeat beyond that: decoding
    and predicting do not care, and generating stays cheap.
    """
    import tensorflow as tf

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    distinct = min(examples, 100_000)
    numbers = rng.normal(size=(distinct, FLOATS)).astype(np.float32)
    score = numbers @ rng.normal(size=FLOATS) / 4
    label = (rng.random(distinct) < 1 / (1 + np.exp(-score))).astype(np.int64)
    words = {name: rng.integers(len(v), size=distinct) for name, v in _VOCABULARIES.items()}
    serialized = []
    for i in range(distinct):
        example = tf.train.Example()
        feature = example.features.feature
        for j in range(FLOATS):
            feature[f"x{j}"].float_list.value.append(numbers[i, j])
        for name, vocabulary in _VOCABULARIES.items():
            feature[name].bytes_list.value.append(vocabulary[words[name][i]].encode())
        if keys:
            feature["user"].bytes_list.value.append(f"user{i:06d}".encode())
            feature["group"].bytes_list.value.append(f"group{i % 100:02d}".encode())
        feature["label"].int64_list.value.append(label[i])
        serialized.append(example.SerializeToString())
    bounds = np.linspace(0, examples, shards + 1).astype(int)
    for shard, (start, stop) in enumerate(itertools.pairwise(bounds)):
        name = f"eval-{shard:05d}-of-{shards:05d}.tfrecord"
        with tf.io.TFRecordWriter(str(folder / name)) as writer:
            for i in range(start, stop):
                writer.write(serialized[i % distinct])


def write_models(folder: Path, versions: int) -> None:
    """Saves `versions` SavedModels v1, v2, ... whose signature parses serialised examples."""
    import tensorflow as tf

    class Network(tf.Module):
        def __init__(self, seed):
            rng = np.random.default_rng(seed)
            self.w1 = tf.Variable(rng.normal(size=(FLOATS, 32), scale=0.3).astype(np.float32))
            self.w2 = tf.Variable(rng.normal(size=(32, 1), scale=0.3).astype(np.float32))

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
        def serve(self, examples):
            spec = {f"x{j}": tf.io.FixedLenFeature([], tf.float32) for j in range(FLOATS)}
            parsed = tf.io.parse_example(examples, spec)
            x = tf.stack([parsed[f"x{j}"] for j in range(FLOATS)], axis=1)
            return {"score": tf.sigmoid(tf.nn.relu(x @ self.w1) @ self.w2)[:, 0]}

    for version in range(1, versions + 1):
        network = Network(version)
        signatures = {"serving_default": network.serve}
        tf.saved_model.save(network, str(folder / f"v{version}"), signatures=signatures)


def write_config(path: Path, data: Path, models: Path, versions: int, **more: object) -> None:
    """Writes the job's config."""
    import yaml

    config = {
        "name": "reference",
        "task": "binary",
        "data": {"files": str(data / "eval-*.tfrecord"), "format": "tfrecord", "label": "label"},
        "models": [
            {
                "name": f"v{v}",
                "path": str(models / f"v{v}"),
                **({"baseline": True} if v == 1 else {}),
            }
            for v in range(1, versions + 1)
        ],
        "slices": [list(spec) for spec in SLICES],
        "metrics": list(METRICS),
        "output": str(path.parent / "results"),
        **more,
    }
    path.write_text(yaml.safe_dump(config, sort_keys=False))
