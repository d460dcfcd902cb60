"""TensorFlow.js models that its converter makes predict what Keras predicts."""

import json

import numpy as np
import pyarrow as pa
import pytest

from evalbeam.transforms import batch, models

FORMS = ("graph", "layers")


def examples(images):
    column = pa.FixedSizeListArray.from_arrays(pa.array(images.reshape(-1)), images[0].size)
    record = pa.RecordBatch.from_pydict({"image": column})
    shard = batch.Shard("eval", "data/eval-0", "parquet")
    return batch.Batch(shard, np.arange(len(images)), record)


def stored(folder):
    """(weight, half of a step between the values that it can have) by shape, as the files hold."""
    (group,) = json.loads((folder / "model.json").read_text())["weightsManifest"]
    content, found = b"".join((folder / name).read_bytes() for name in group["paths"]), {}
    for weight in group["weights"]:
        shape, how = tuple(weight["shape"]), weight.get("quantization", {"dtype": weight["dtype"]})
        size = int(np.prod(shape)) * np.dtype(how["dtype"]).itemsize
        values, content = np.frombuffer(content[:size], how["dtype"]), content[size:]
        half = np.spacing(np.abs(values)).astype(np.float32) / 2
        if "scale" in how:
            values, half = values * np.float32(how["scale"]) + how["min"], how["scale"] / 2
        if weight["dtype"] == "float32":
            found[shape] = values.astype(np.float32).reshape(shape), np.max(half)
    return found


@pytest.mark.parametrize("weights", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("form", FORMS)
def test_it_predicts_what_keras_predicts(digits, tfjs_forms, form, weights):
    folder = tfjs_forms[f"{form}_{weights}"]
    model = models.load(models.ModelSpec("v", "tfjs", str(folder)))
    assert model.parameters == digits.model.count_params()
    predicted = model.predict(examples(digits.images))[""]
    # Keras with the weights as they are stored: what remains is the order of float32 sums.
    held, trained = stored(folder), digits.model.get_weights()
    twin = digits.with_weights([held[weight.shape][0] for weight in trained])
    np.testing.assert_allclose(predicted, twin.predict(digits.images, verbose=0), atol=1e-5)
    # These are the trained ones, but for their rounding.
    for weight in trained:
        rounded, half = held[weight.shape]
        assert np.abs(rounded - weight).max() <= half * 1.001 + 1e-7
    # Which moves few digits across an edge.
    expected = digits.model.predict(digits.images, verbose=0)
    same = np.mean(predicted.argmax(axis=1) == expected.argmax(axis=1))
    assert same == 1 if weights == "float32" else same > 0.99
    assert np.mean(predicted.argmax(axis=1) == digits.labels) > 0.9


def test_control_flow(convert, tmp_path):
    import tensorflow as tf

    class Halver(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def halve(self, x):
            # Until nothing is above one: how often hangs on the values.
            return {"y": tf.while_loop(lambda y: tf.reduce_any(y > 1), lambda y: (y / 2,), (x,))[0]}

    halver = Halver()
    tf.saved_model.save(halver, str(tmp_path / "saved_model"), signatures=halver.halve)
    convert({"saved_model": tmp_path / "saved_model", "to": tmp_path / "graph"})
    model = models.load(models.ModelSpec("v", "tfjs", str(tmp_path / "graph")))
    shard = batch.Shard("eval", "data/eval-0", "parquet")
    for values in ([1.0, 0.5], [24.0, 12.0, 1.0], [3.0]):
        data = batch.Batch(
            shard, np.arange(len(values)), pa.RecordBatch.from_pydict({"x": pa.array(values)})
        )
        expected = halver.halve(tf.constant(values, tf.float32))["y"].numpy()
        np.testing.assert_array_equal(model.predict(data)[""], expected)
