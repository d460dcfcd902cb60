"""The data and models of the benchmark: seeded, and small enough to be made in a minute.

The reference job: tf.Examples of 16 floats and three string features, sliced by country (50),
device (3), age (4) and country x device: 208 slice keys.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

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
KEYS = (10, 100, 1_000, 10_000, 100_000)
CLASSES = (10, 1_000)
VERSIONS = 8
SHARD = 100_000
_VOCABULARIES = {
    "country": [f"country{i:02d}" for i in range(50)],
    "device": ["phone", "tablet", "desktop"],
    "age": ["-25", "25-45", "45-65", "65-"],
}


def columns(examples: int, seed: int = 0, wide: bool = False) -> dict[str, np.ndarray]:
    """The features of `examples` examples, and a `score` that tells something about the label.

    With `wide` there are more: `key10` to `key100000`, each of so many values, and the labels
    `class10` and `class1000`.
    """
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=(examples, FLOATS)).astype(np.float32)
    score = 1 / (1 + np.exp(-numbers @ np.random.default_rng(7).normal(size=FLOATS) / 4))
    found = {f"x{j}": numbers[:, j] for j in range(FLOATS)}
    for name, words in _VOCABULARIES.items():
        found[name] = np.array(words, object)[rng.integers(len(words), size=examples)]
    found["label"] = (rng.random(examples) < score).astype(np.int64)
    found["score"] = score.astype(np.float32)
    if wide:
        for count in KEYS:
            names = np.array([f"key{i:06d}" for i in range(count)], object)
            found[f"key{count}"] = names[rng.integers(count, size=examples)]
        for count in CLASSES:
            found[f"class{count}"] = rng.integers(count, size=examples)
    return found


def _write_shard(path: Path, examples: int, seed: int, wide: bool) -> None:
    import tensorflow as tf
    from tfx_bsl.coders import example_coder

    arrays = {}
    for name, values in columns(examples, seed, wide).items():
        if name != "score":
            flat = values.astype("S") if values.dtype == object else values
            arrays[name] = pa.ListArray.from_arrays(
                np.arange(examples + 1, dtype=np.int32), pa.array(flat)
            )
    encoded = example_coder.RecordBatchToExamplesEncoder().encode(
        pa.RecordBatch.from_pydict(arrays)
    )
    with tf.io.TFRecordWriter(str(path)) as writer:
        for example in encoded:
            writer.write(example)


def write_examples(folder: Path, examples: int, wide: bool = False) -> Path:
    """Makes TFRecord files in a folder below `folder`, and gives their glob.

    Shards have 100,000 examples. They are copies of a single one, whose examples so repeat, except
    for `wide` data: there a slice of 20 examples is to have 20 different ones.
    """
    data = folder / f"{'wide' if wide else 'data'}-{examples}"
    glob = data / "eval-*.tfrecord"
    if data.exists():
        return glob
    data.mkdir(parents=True)
    shards = -(-examples // SHARD)
    for shard in range(shards):
        rows = min(SHARD, examples - shard * SHARD)
        shared = folder / f"shard-{rows}-{shard if wide else 0}{'-wide' if wide else ''}.tfrecord"
        if not shared.exists():
            _write_shard(shared, rows, shard, wide)
        shutil.copyfile(shared, data / f"eval-{shard:05d}-of-{shards:05d}.tfrecord")
    return glob


def write_predictions(path: Path, examples: int) -> Path:
    """A Parquet file of labels, scores and slice features; each of its 8 row groups is a shard."""
    if not path.exists():
        found = columns(examples)
        table = pa.table({name: found[name] for name in ("label", "score", *_VOCABULARIES)})
        pq.write_table(table, path, row_group_size=-(-examples // 8))
    return path


def write_models(folder: Path) -> None:
    """Saves SavedModels whose signature parses serialised examples.

    v1 to v8 give a score, classes10 and classes1000 a distribution over so many classes.
    """
    import tensorflow as tf

    class Network(tf.Module):
        def __init__(self, seed: int, classes: int) -> None:
            rng = np.random.default_rng(seed)
            self.classes = classes
            self.w1 = tf.Variable(rng.normal(size=(FLOATS, 32), scale=0.3).astype(np.float32))
            self.w2 = tf.Variable(rng.normal(size=(32, classes), scale=0.3).astype(np.float32))

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
        def serve(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
            spec = {f"x{j}": tf.io.FixedLenFeature([], tf.float32) for j in range(FLOATS)}
            parsed = tf.io.parse_example(examples, spec)
            x = tf.stack([parsed[f"x{j}"] for j in range(FLOATS)], axis=1)
            logits = tf.nn.relu(x @ self.w1) @ self.w2
            if self.classes == 1:
                return {"score": tf.sigmoid(logits)[:, 0]}
            return {"scores": tf.nn.softmax(logits)}

    networks = {f"v{version}": Network(version, 1) for version in range(1, VERSIONS + 1)}
    networks |= {f"classes{count}": Network(0, count) for count in CLASSES}
    for name, network in networks.items():
        signatures = {"serving_default": network.serve}
        tf.saved_model.save(network, str(folder / name), signatures=signatures)


def config(files: Path, models: list[dict[str, object]], **more: object) -> dict[str, object]:
    """The reference job's config, of these versions; `more` replaces parts of it."""
    whole: dict[str, object] = {
        "name": "reference",
        "task": "binary",
        "data": {"files": str(files), "label": "label"},
        "models": models,
        "slices": [list(spec) for spec in SLICES],
        "metrics": list(METRICS),
    }
    return whole | more
