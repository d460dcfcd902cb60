"""Small real models, built once."""

import numpy as np
import pytest

from transforms import batch


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A folder with a model of every form that the tests load."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(7)
    folder = tmp_path_factory.mktemp("models")

    def export(name, inputs, function, **more):
        module = tf.Module()
        module.bias = tf.Variable(0.25)
        module.function = tf.function(
            lambda **kw: function(module.bias, **kw)
        ).get_concrete_function(
            **{key: tf.TensorSpec(*spec, name=key) for key, spec in inputs.items()}
        )
        signatures = {"serving_default": module.function}
        tf.saved_model.save(module, str(folder / name), signatures=signatures)

    def parsed(bias, examples):
        features = tf.io.parse_example(examples, {"age": tf.io.FixedLenFeature([1], tf.float32)})
        return {"score": features["age"] * 2 + bias}

    export("serialized", {"examples": ([None], tf.string)}, parsed)
    export(
        "features",
        {"age": ([None, 1], tf.float32), "x": ([None, 3], tf.float32), "n": ([None], tf.int32)},
        lambda bias, age, x, n: {
            "score": age[:, 0] + tf.reduce_sum(x, axis=1) + tf.cast(n, tf.float32) + bias
        },
    )
    export(
        "text",
        {"text": ([None], tf.string)},
        lambda bias, text: {"length": tf.strings.length(text)},
    )
    export(
        "several",
        {"age": ([None], tf.float32)},
        lambda bias, age: {
            "p": tf.sigmoid(age),
            "old": age > 40,
            "both": tf.stack([age, -age], axis=1),
            "name": tf.strings.as_string(age),
        },
    )
    export(
        "mean", {"age": ([None], tf.float32)}, lambda bias, age: {"m": tf.reduce_mean(age)[None]}
    )
    export("fixed", {"age": ([8], tf.float32)}, lambda bias, age: {"s": age + bias})
    export("image", {"x": ([None, 2, 3], tf.float32)}, lambda bias, x: {"s": x[:, 1, 0] + bias})
    export(
        "tokens",
        {"x": ([None, None], tf.float32)},
        lambda bias, x: {"s": tf.reduce_sum(x, 1) + bias},
    )
    (folder / "no_model").mkdir()
    (folder / "no_model" / "weights.h5").write_bytes(b"x")
    (folder / "broken.keras").write_bytes(b"x")
    (folder / "damaged").mkdir()
    (folder / "damaged" / "saved_model.pb").write_bytes(b"x")

    sequential = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    sequential.save(folder / "sequential.keras")
    sequential.export(str(folder / "exported"), verbose=False)
    built = keras.Sequential([keras.layers.Dense(4, activation="softmax")])
    built(np.zeros((2, 3), np.float32))
    built.save(folder / "built.keras")
    age, x = keras.Input((1,), name="age"), keras.Input((3,), name="x")
    both = keras.layers.Concatenate()([age, x])
    one, two = keras.layers.Dense(1, name="one")(both), keras.layers.Dense(2, name="two")(both)
    keras.Model({"age": age, "x": x}, {"p": one, "q": two}).save(folder / "named.keras")
    keras.Model([age, x], [one, two]).save(folder / "listed.keras")
    city = keras.Input((1,), name="city", dtype="string")
    lookup = keras.layers.StringLookup(vocabulary=["Rome", "Köln"], output_mode="one_hot")(city)
    keras.Model(city, keras.layers.Dense(1)(lookup)).save(folder / "city.keras")
    keras.Sequential([keras.Input((3,)), keras.layers.Lambda(lambda x: x * 2)]).save(
        folder / "lambda.keras"
    )
    with pytest.warns(UserWarning, match="not yet been built"):
        keras.Sequential([keras.layers.Dense(1)]).save(folder / "unbuilt.keras")

    class Own(keras.layers.Layer):
        def call(self, x):
            return x

    keras.Sequential([keras.Input((3,)), Own()]).save(folder / "own.keras")
    return folder


@pytest.fixture
def examples():
    """Makes a batch of the columns given by name."""
    import pyarrow as pa

    def make(serialized=None, **columns):
        record = pa.RecordBatch.from_pydict(columns)
        rows = record.num_rows if columns else len(serialized)
        return batch.Batch(
            batch.Shard("eval", "data/eval-0", "tfrecord"),
            np.arange(rows),
            record,
            None if serialized is None else np.array(serialized, object),
        )

    return make
