import subprocess
import sys

import numpy as np
import pytest

from evalbeam.transforms import arrow, errors, models

# What rounding may do to a probability: float forms differ by the order of their sums, float16 by
# its 11 bits, 8-bit weights and activations by a step or two of the output's, which is 1/256.
FORMS = {
    "float": 1e-5,
    "float16": 5e-4,
    "dynamic": 0.01,
    "float_int8": 0.01,
    "int8": 0.01,
    "uint8": 0.01,
    "int16": 0.01,
}


def spec(path, **fields):
    return models.ModelSpec("v1", "tflite", str(path), **fields)


def images(rows, seed=3):
    return np.random.default_rng(seed).random((rows, 8, 8, 1), dtype=np.float32)


def listed(array):
    return array.reshape(len(array), -1).tolist()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with small odd models."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("tflite")
    weights = np.random.default_rng(0).standard_normal((6, 2)).astype(np.float32)
    ops = tf.lite.OpsSet

    def convert(name, function, shapes, **settings):
        module = tf.Module()
        module.function = tf.function(function).get_concrete_function(
            *(tf.TensorSpec(shape, dtype, name=name) for name, (shape, dtype) in shapes.items())
        )
        converter = tf.lite.TFLiteConverter.from_concrete_functions([module.function], module)
        for setting, value in settings.items():
            setattr(converter, setting, value)
        (folder / f"{name}.tflite").write_bytes(converter.convert())

    def mixed(x):
        rows = tf.reshape(x, [-1, 3])
        attention = tf.nn.softmax(rows @ tf.transpose(rows))
        return tf.reshape(attention @ rows, [-1, 6]) @ weights

    x, numbers = {"x": ([None], tf.float32)}, ([None], tf.float32)
    for rows in (1, 4):
        fixed = {"x": ([rows, 2, 3], tf.float32)}
        convert(f"fixed{rows}", lambda x, n=rows: tf.reshape(x, [n, 6]) @ weights, fixed)
    convert("resized", lambda x: tf.reshape(x, [-1, 6]) @ weights, {"x": ([1, 2, 3], tf.float32)})
    convert("mixed", mixed, {"x": ([1, 2, 3], tf.float32)})
    convert("tokens", lambda x: tf.reduce_sum(x, 1), {"x": ([None, None], tf.float32)})
    convert("whole", lambda n: n * 2, {"n": ([None], tf.int32)})
    convert("text", lambda s: {"same": tf.equal(s, "Köln"), "s": s}, {"s": ([None], tf.string)})
    convert("scalar", lambda x, k: x * k, {"x": numbers, "k": ([], tf.float32)})
    convert("custom", lambda x: tf.raw_ops.Betainc(a=x, b=x, x=x), x, allow_custom_ops=True)
    inverse = lambda x: tf.linalg.inv(x[:, None, None])[:, 0, 0]  # noqa: E731
    select = tf.lite.TargetSpec(supported_ops=[ops.TFLITE_BUILTINS, ops.SELECT_TF_OPS])
    convert("select", inverse, x, target_spec=select)

    module = tf.Module()
    module.bias = tf.Variable(0.25)
    module.up = tf.function(
        lambda x: {"y": x + module.bias}, input_signature=[tf.TensorSpec(*numbers, "x")]
    )
    module.both = tf.function(
        lambda a, b: {"sum": a + b, "pair": tf.stack([a, b], 1)},
        input_signature=[tf.TensorSpec(*numbers, "a"), tf.TensorSpec(*numbers, "b")],
    )
    signatures = {"up": module.up, "both": module.both}
    tf.saved_model.save(module, str(folder / "saved"), signatures=signatures)
    for name, keys in (("one", ["up"]), ("two", ["up", "both"])):
        converter = tf.lite.TFLiteConverter.from_saved_model(
            str(folder / "saved"), signature_keys=keys
        )
        (folder / f"{name}.tflite").write_bytes(converter.convert())
    (folder / "unsigned.tflite").write_bytes(unsigned((folder / "one.tflite").read_bytes()))
    (folder / "recurrent.tflite").write_bytes(recurrent())
    return folder


def unsigned(content):
    """The model without its signatures, as files of old converters are."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    model.signatureDefs = None
    return packed(model, flatbuffers.Builder())


def packed(model, builder):
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def recurrent():
    """h = relu(x * 1 + h * 0.5) over time, with h a tensor that outlives a call, of one row."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    constants = {"w": [[1.0]], "r": [[0.5]], "b": [0.0]}
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.buffers, graph.tensors = 3, [schema.BufferT()], []
    for name, shape in {"x": [1, 3, 1], "w": [1, 1], "r": [1, 1], "b": [1], "h": [1, 1]}.items():
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.isVariable = name, shape, name == "h"
        tensor.buffer = 0
        if name in constants:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.float32(constants[name]).tobytes(), np.uint8)
            tensor.buffer = len(model.buffers)
            model.buffers.append(buffer)
        graph.tensors.append(tensor)
    given = schema.TensorT()
    given.name, given.shape, given.buffer = "y", [1, 3, 1], 0
    graph.tensors.append(given)
    code, operator = schema.OperatorCodeT(), schema.OperatorT()
    code.builtinCode = schema.BuiltinOperator.UNIDIRECTIONAL_SEQUENCE_RNN
    code.deprecatedBuiltinCode, code.version = code.builtinCode, 1
    options = schema.SequenceRNNOptionsT()
    options.fusedActivationFunction = schema.ActivationFunctionType.RELU
    operator.builtinOptionsType = schema.BuiltinOptions.SequenceRNNOptions
    operator.builtinOptions = options
    operator.inputs, operator.outputs = [0, 1, 2, 3, 4], [5]
    graph.operators, graph.inputs, graph.outputs = [operator], [0], [5]
    # [1, 3, 1] to [1, 3], which can be evaluated.
    flat = schema.TensorT()
    flat.name, flat.shape, flat.buffer = "flat", [1, 3], 0
    graph.tensors.append(flat)
    reshape, reshaped = schema.OperatorCodeT(), schema.OperatorT()
    reshape.builtinCode = reshape.deprecatedBuiltinCode = schema.BuiltinOperator.RESHAPE
    reshape.version, reshaped.opcodeIndex = 1, 1
    shape = schema.ReshapeOptionsT()
    shape.newShape = [1, 3]
    reshaped.builtinOptionsType, reshaped.builtinOptions = (
        schema.BuiltinOptions.ReshapeOptions,
        shape,
    )
    reshaped.inputs, reshaped.outputs = [5], [6]
    graph.operators.append(reshaped)
    graph.outputs = [6]
    model.operatorCodes, model.subgraphs = [code, reshape], [graph]
    return packed(model, flatbuffers.Builder())


@pytest.mark.parametrize("form", FORMS)
def test_each_form_predicts_what_keras_does(digits, examples, form):
    import keras

    x = images(50)
    model = models.load(spec(digits / f"{form}.tflite"))
    predictions = model.predict(examples(image=listed(x)))[""]
    expected = np.asarray(keras.models.load_model(digits / "m.keras")(x))
    assert predictions.dtype == np.float32
    assert predictions.shape == (50, 3)
    np.testing.assert_allclose(predictions, expected, atol=FORMS[form])
    # A wrong model would be detected: the predictions vary by more than the tolerance.
    assert expected.std(axis=0).min() > 2 * FORMS[form]


@pytest.mark.parametrize("form", ["int8", "uint8", "int16"])
def test_integers_are_those_of_the_tensors_parameters(digits, examples, form):
    """Against LiteRT's reference kernels, with the parameters applied by hand."""
    from ai_edge_litert import interpreter as litert

    x = images(20)
    plain = litert.Interpreter(
        str(digits / f"{form}.tflite"),
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF,
    )
    ((takes,), (gives,)) = plain.get_input_details(), plain.get_output_details()
    scale, zero_point = takes["quantization"]
    range_ = np.iinfo(takes["dtype"])
    steps = np.clip(np.rint(x / np.float32(scale)) + zero_point, range_.min, range_.max)
    plain.resize_tensor_input(takes["index"], x.shape)
    plain.allocate_tensors()
    plain.set_tensor(takes["index"], steps.astype(takes["dtype"]))
    plain.invoke()
    scale, zero_point = gives["quantization"]
    expected = (plain.get_tensor(gives["index"]).astype(np.float64) - zero_point) * scale
    predictions = models.load(spec(digits / f"{form}.tflite")).predict(examples(image=listed(x)))
    # Different kernels may round a sum to the next step, in each of the four layers.
    np.testing.assert_allclose(predictions[""], expected, atol=0.01)


def test_integer_ends_predict_what_float_ends_do(digits, examples):
    """The float form quantises and dequantises inside, with the same parameters."""
    x = listed(images(200))
    inside = models.load(spec(digits / "float_int8.tflite")).predict(examples(image=x))[""]
    outside = models.load(spec(digits / "int8.tflite")).predict(examples(image=x))[""]
    np.testing.assert_array_equal(inside, outside)


def test_values_beyond_the_quantised_range_are_clipped_and_nan_is_refused(digits, examples):
    model = models.load(spec(digits / "int8.tflite"))
    least, most = [0.0] * 64, [1.0] * 64
    beyond = model.predict(examples(image=[[-1e30] * 64, [1e30] * 64, [float("inf")] * 64]))[""]
    within = model.predict(examples(image=[least, most, most]))[""]
    np.testing.assert_array_equal(beyond, within)
    with pytest.raises(arrow.UnscorableRowsError, match=r"row 1: .*'image' is quantised") as caught:
        model.predict(examples(image=[least, [*least[1:], float("nan")], most]))
    assert list(caught.value.reasons) == [1]


@pytest.mark.parametrize("form", ["float", "float16", "int8"])
def test_parameters_are_counted(digits, form):
    import keras

    count = keras.models.load_model(digits / "m.keras").count_params()
    assert models.load(spec(digits / f"{form}.tflite")).parameters == count


X = np.random.default_rng(1).random((9, 6)).astype(np.float32)


@pytest.mark.parametrize("name", ["fixed1", "fixed4", "resized"])
def test_models_of_a_fixed_size_take_any_number_of_rows(made, examples, name):
    model = models.load(spec(made / f"{name}.tflite"))
    weights = np.random.default_rng(0).standard_normal((6, 2)).astype(np.float32)
    for rows in (9, 1, 4, 5):
        predictions = model.predict(examples(x=X[:rows].tolist()))[""]
        np.testing.assert_allclose(predictions, X[:rows] @ weights, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["mixed", "recurrent"])
def test_rows_do_not_meet_each_other(made, examples, name):
    """Models for one row that would mix the rows of a larger batch, or carry state to the next."""
    model = models.load(spec(made / f"{name}.tflite"))
    rows = X[:, :3].tolist() if name == "recurrent" else X.tolist()
    together = model.predict(examples(x=rows))[""]
    alone = [model.predict(examples(x=[row]))[""][0] for row in rows]
    np.testing.assert_array_equal(together, alone)
    if name == "recurrent":
        first, second = X[:, 0], X[:, 0] * 0.5 + X[:, 1]
        expected = np.stack([first, second, second * 0.5 + X[:, 2]], axis=1)
        np.testing.assert_allclose(together, expected, rtol=1e-5)


def test_signatures(made, examples):
    one = models.load(spec(made / "one.tflite"))
    assert one.predict(examples(x=[1.0, 2.0]))[""].tolist() == [1.25, 2.25]
    both = models.load(spec(made / "two.tflite", signature="both"))
    assert both.outputs == ("pair", "sum")
    predictions = both.predict(examples(a=[1.0, 2.0], b=[3.0, 5.0]))
    assert predictions["sum"].tolist() == [4.0, 7.0]
    assert predictions["pair"].tolist() == [[1.0, 3.0], [2.0, 5.0]]
    up = models.load(spec(made / "two.tflite", signature="up", inputs=(("x", "a"),)))
    assert up.predict(examples(a=[1.0]))[""].tolist() == [1.25]


def test_a_model_without_signatures_has_its_tensors_names(made, examples):
    model = models.load(spec(made / "unsigned.tflite", inputs=(("up_x", "a"),)))
    for rows in (1, 3, 2):
        assert model.predict(examples(a=[1.0] * rows))[""].tolist() == [1.25] * rows


def test_other_dtypes(made, examples):
    whole = models.load(spec(made / "whole.tflite")).predict(examples(n=[1, -3]))[""]
    assert whole.tolist() == [2.0, -6.0]
    text = models.load(spec(made / "text.tflite", outputs=("same",)))
    assert text.predict(examples(s=["Köln", "", "Rome"]))[""].tolist() == [1.0, 0.0, 0.0]


def test_open_sizes_are_the_rows(made, examples):
    model = models.load(spec(made / "tokens.tflite"))
    assert model.predict(examples(x=[[1.0, 2.0, 3.0]] * 2))[""].tolist() == [6.0, 6.0]
    assert model.predict(examples(x=[[1.0, 2.0]]))[""].tolist() == [3.0]


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("two", {}, "several signatures, 'both', 'up': choose one, as in `signature: both`"),
        ("two", {"signature": "pu"}, "unknown signature 'pu'; it has 'both', 'up'"),
        ("one", {"signature": "down"}, "unknown signature 'down'; it has 'up'"),
        ("unsigned", {"signature": "up"}, "unknown signature 'up'; it has none: omit"),
        ("text", {}, "output 's' is string .*Choose among .* with `outputs"),
        ("text", {"outputs": ("sam",)}, "unknown output 'sam'.*Did you mean 'same'"),
        ("scalar", {}, r"input 'k' is float32 of shape \[\]; a column can fill"),
        ("custom", {}, "custom operators Betainc: Encountered unresolved.*converted from"),
        ("select", {}, r"TensorFlow's operators MatrixInverse \(SELECT_TF_OPS\).*TFLITE_BUILTINS"),
    ],
)
def test_mismatches_are_rejected_at_load(made, name, fields, message):
    with pytest.raises(errors.ConfigError, match=rf"Version 'v1' \(.*{name}.tflite\): .*{message}"):
        models.load(spec(made / f"{name}.tflite", **fields))


def test_files_that_are_not_tflite_are_rejected(tmp_path):
    with pytest.raises(errors.ConfigError, match="it is not a file, but a TFLite model is"):
        models.load(spec(tmp_path))
    (tmp_path / "text.tflite").write_bytes(b"not a model" * 100)
    with pytest.raises(errors.ConfigError, match=r"cannot read its 1100 bytes: .*or it is damaged"):
        models.load(spec(tmp_path / "text.tflite"))


def test_tensorflow_is_not_needed(digits):
    code = (
        "import sys; from evalbeam.transforms import models; "
        f"models.load(models.ModelSpec('v1', 'tflite', {str(digits / 'float.tflite')!r})); "
        "print('tensorflow' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "False\n", result.stderr
