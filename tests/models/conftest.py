"""Small real models, built once."""

import importlib.util
import json
import pathlib
import subprocess

import numpy as np
import pytest

from evalbeam.transforms import batch
from evalbeam.transforms.models.tfjs import install


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
    export(
        "estimator",
        {"x": ([None, 2], tf.float32)},
        lambda bias, x: {
            "probabilities": x + bias,
            "all_classes": tf.tile([["no", "yes"]], [tf.shape(x)[0], 1]),
        },
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


@pytest.fixture(scope="session")
def to_onnx():
    """Writes a Keras model as ONNX, if what Keras needs for that is installed."""

    def write(model, path):
        if importlib.util.find_spec("tf2onnx"):
            model(np.zeros((1, *model.inputs[0].shape[1:]), np.float32))
            model.export(str(path), format="onnx", verbose=False)

    return write


@pytest.fixture(scope="session")
def digits(tmp_path_factory, to_onnx):
    """A folder with one convolutional net, `m.keras`, in the forms that it is converted to."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(7)
    folder = tmp_path_factory.mktemp("digits")
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            # More than 1,024 weights: the converter's dynamic range leaves fewer as they are.
            keras.layers.Dense(16, activation="relu"),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    rng = np.random.default_rng(7)
    # Biases that are not 0, which converters drop; weights by which predictions differ by many
    # quantisation steps.
    model.set_weights([rng.normal(0, 0.3, one.shape) for one in model.get_weights()])
    model.save(folder / "m.keras")
    model.export(str(folder / "saved"), verbose=False)
    to_onnx(model, folder / "m.onnx")

    def convert(name, **settings):
        converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved"))
        for setting, value in settings.items():
            setattr(converter, setting, value)
        (folder / f"{name}.tflite").write_bytes(converter.convert())

    def target(**fields):
        return tf.lite.TargetSpec(**fields)

    smaller = [tf.lite.Optimize.DEFAULT]
    quantized = {
        "optimizations": smaller,
        "representative_dataset": lambda: (
            [image[None]] for image in np.random.default_rng(1).random((100, 8, 8, 1), np.float32)
        ),
    }
    integers = target(supported_ops=[tf.lite.OpsSet.TFLITE_BUILTINS_INT8])
    wide = target(
        supported_ops=[tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8]
    )
    convert("float")
    half = target(supported_ops=[tf.lite.OpsSet.TFLITE_BUILTINS], supported_types=[tf.float16])
    convert("float16", optimizations=smaller, target_spec=half)
    convert("dynamic", optimizations=smaller)
    convert("float_int8", **quantized, target_spec=integers)
    for dtype in (tf.int8, tf.uint8):
        ends = {"inference_input_type": dtype, "inference_output_type": dtype}
        convert(dtype.name, **quantized, target_spec=integers, **ends)
    ends = {"inference_input_type": tf.int16, "inference_output_type": tf.int16}
    convert("int16", **quantized, target_spec=wide, **ends)
    return folder


@pytest.fixture(scope="session")
def tfjs_models(tmp_path_factory):
    """A folder with models that TensorFlow.js made, and graphs; skips where it cannot run."""
    if missing := install.missing():
        pytest.skip(missing)
    folder = tmp_path_factory.mktemp("tfjs")
    make = pathlib.Path(__file__).with_name("make_tfjs.mjs")
    subprocess.run(["node", make, install.FOLDER, folder], check=True)
    rows, number = {"dim": [{"size": "-1"}]}, {"type": "DT_FLOAT"}

    def graph(name, dtype, operation, signature=None):
        takes = {"dtype": {"type": dtype}, "shape": {"shape": rows}}
        nodes = [
            {"name": "x", "op": "Placeholder", "attr": takes},
            {"name": "y", "input": ["x"], **operation},
        ]
        described = {
            "format": "graph-model",
            "modelTopology": {"node": nodes, "versions": {}},
            "weightsManifest": [],
        }
        (folder / name).mkdir()
        (folder / name / "model.json").write_text(
            json.dumps(described | ({"signature": signature} if signature else {}))
        )

    cast = {"op": "Cast", "attr": {"DstT": number}}
    graph("cast", "DT_BOOL", cast)
    tensor = {"dtype": "DT_INT64", "tensorShape": rows}
    named = {
        "inputs": {"count": {**tensor, "name": "x:0"}},
        "outputs": {"p": {**tensor, "name": "y:0", "dtype": "DT_FLOAT"}},
    }
    graph("named", "DT_INT64", cast, named)
    tensors = {
        "inputs": {"x:0": {**tensor, "name": "x:0"}},
        "outputs": {"y:0": {**tensor, "name": "y:0"}},
    }
    graph("tensors", "DT_INT64", cast, tensors)
    graph("text", "DT_STRING", {"op": "Identity"})
    graph("custom", "DT_FLOAT", {"op": "FrobnicateV2"})
    graph("once", "DT_FLOAT", {"op": "Shape"})
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
