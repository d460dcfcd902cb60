"""What reading, parsing and predicting alone cost: `python floor_job.py DATA_GLOB MODEL`.

tf.data in C++, with the label and the slice features parsed, and no metrics.
"""

import glob
import os
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import tensorflow as tf

BATCH = 16_384  # evalbeam's default


def main(data: str, model: str) -> None:
    loaded = tf.saved_model.load(model)
    predict = loaded.signatures["serving_default"]
    features = {"label": tf.io.FixedLenFeature([], tf.int64)}
    features |= {name: tf.io.RaggedFeature(tf.string) for name in ("country", "device", "age")}
    examples = (
        tf.data.TFRecordDataset(sorted(glob.glob(data)), buffer_size=1 << 20)
        .batch(BATCH)
        .map(lambda serialized: (serialized, tf.io.parse_example(serialized, features)))
        .prefetch(2)
    )
    for serialized, _ in examples:
        predict(serialized)["score"].numpy()


if __name__ == "__main__":
    main(*sys.argv[1:])
