"""SavedModels that do more than compute are found, whatever hides it; usual ones are not."""

import numpy as np
import pytest
import tensorflow as tf

from evalbeam.transforms import errors, models
from evalbeam.transforms.models import unsafe

X = tf.TensorSpec([None], tf.float32, name="x")


class Table(tf.Module):
    """As usual: variables, a vocabulary in a file, branches, loops, prints and assertions."""

    def __init__(self, vocabulary):
        super().__init__()
        self.scale = tf.Variable(2.0)
        initializer = tf.lookup.TextFileInitializer(
            vocabulary, tf.string, 0, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
        )
        self.table = tf.lookup.StaticHashTable(initializer, -1)

    @tf.function(input_signature=[X])
    def predict(self, x):
        tf.print("seen", tf.shape(x))
        tf.debugging.assert_all_finite(x, "x is not finite")
        places = self.table.lookup(tf.strings.as_string(x))
        total = tf.while_loop(lambda i: i < 3, lambda i: i + 1, [0])[0]
        x = tf.cond(tf.size(x) > 0, lambda: x * self.scale, lambda: x)
        return {"y": x + tf.cast(places, tf.float32) + tf.cast(total, tf.float32)}


def save(path, function):
    module = tf.Module()
    module.function = tf.function(function, input_signature=[X])
    tf.saved_model.save(module, str(path), signatures=module.function)
    return str(path)


def in_branch(x):
    length = tf.cond(
        tf.size(x) > 10**6, lambda: tf.strings.length(tf.io.read_file("/etc/hosts")), lambda: 0
    )
    return {"y": x + tf.cast(length, tf.float32)}


def in_map(x):
    def of_one(value):
        with tf.control_dependencies([tf.io.write_file("/tmp/out", tf.strings.as_string(value))]):
            return value * 2

    return {"y": tf.map_fn(of_one, x)}


def in_python(x):
    return {"y": tf.numpy_function(lambda values: values * 2, [x], tf.float32)}


def in_data(x):
    lines = tf.data.TextLineDataset(["/etc/hosts"]).reduce(0.0, lambda total, _: total + 1.0)
    return {"y": x + lines}


def printing(x):
    tf.print(x, output_stream="file:///tmp/out")
    return {"y": x}


@pytest.mark.parametrize(
    ("function", "operations"),
    [
        (in_branch, ["ReadFile"]),
        (in_map, ["WriteFile"]),
        (in_python, ["PyFunc"]),
        (in_data, ["TextLineDataset"]),
        (printing, ["PrintV2"]),
    ],
)
def test_what_a_signature_may_run_is_found(tmp_path, function, operations):
    folder = save(tmp_path / "model", function)
    assert unsafe.find(folder) == operations
    spec = models.ModelSpec("v1", "saved_model", folder)
    message = (
        "it has operations that reach files, the network or Python code: "
        f"{operations[0]}. If you trust whoever made it, set `allow_unsafe: true`"
    )
    with pytest.raises(errors.ConfigError, match=message):
        models.load(spec)


def test_what_loading_runs_is_found(tmp_path):
    class Spy(tf.saved_model.experimental.TrackableResource):
        def _create_resource(self):
            return tf.raw_ops.AnonymousIteratorV2(output_types=[tf.int64], output_shapes=[[]])[0]

        def _initialize(self):
            tf.io.write_file(str(tmp_path / "written"), "by loading")

    module = tf.Module()
    module.spy = Spy()
    module.function = tf.function(lambda x: {"y": x}, input_signature=[X])
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=module.function)
    (tmp_path / "written").unlink(missing_ok=True)
    assert unsafe.find(str(tmp_path / "model")) == ["WriteFile"]
    with pytest.raises(errors.ConfigError, match="WriteFile"):
        models.load(models.ModelSpec("v1", "saved_model", str(tmp_path / "model")))
    assert not (tmp_path / "written").exists()


def test_usual_models_are_safe(tmp_path):
    import keras

    vocabulary = tmp_path / "words.txt"
    vocabulary.write_text("1.000000\n2.000000\n")
    module = Table(str(vocabulary))
    tf.saved_model.save(module, str(tmp_path / "table"), signatures=module.predict)
    network = keras.Sequential(
        [keras.Input((3,)), keras.layers.BatchNormalization(), keras.layers.Dense(1)]
    )
    network.export(str(tmp_path / "keras"), verbose=False)
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None])
        y = x * v1.get_variable("w", initializer=2.0)
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(tmp_path / "graph"), {"x": x}, {"y": y})
    for name in ("table", "keras", "graph"):
        assert unsafe.find(str(tmp_path / name)) == []


def test_an_unsafe_model_that_is_trusted_runs(tmp_path):
    function = save(tmp_path / "model", in_branch)
    loaded = tf.saved_model.load(function)
    assert loaded.signatures["serving_default"](tf.constant([1.0]))["y"].numpy() == np.float32(1)
    models.load(models.ModelSpec("v1", "saved_model", function, allow_unsafe=True))
