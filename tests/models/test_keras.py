import numpy as np
import pyarrow as pa
import pytest

from evalbeam.transforms import arrow, errors, models

X = [[1.0, 2.0, 3.0], [-1.0, 0.5, 0.0]]


def spec(folder, name, **fields):
    return models.ModelSpec("v2", "keras", str(folder / name), **fields)


def direct(folder, name, value):
    import keras

    results = keras.models.load_model(folder / name)(value)
    return keras.tree.map_structure(np.asarray, results)


@pytest.mark.parametrize("name", ["sequential.keras", "built.keras"])
def test_a_sequential_model_reads_the_mapped_column(folder, examples, name):
    import keras

    (tensor,) = keras.models.load_model(folder / name).inputs
    model = models.load(spec(folder, name, inputs=((tensor.name, "features"),)))
    predictions = model.predict(examples(features=pa.array(X, pa.list_(pa.float64(), 3))))
    expected = direct(folder, name, np.float32(X))
    expected = expected[:, 0] if expected.shape[1] == 1 else expected
    np.testing.assert_allclose(predictions[""], expected, rtol=1e-6)
    assert predictions[""].shape == expected.shape


def test_the_error_for_a_missing_mapping_shows_the_line_to_add(folder, examples):
    import keras

    (tensor,) = keras.models.load_model(folder / "sequential.keras").inputs
    unmapped = spec(folder, "sequential.keras")
    message = rf"Version 'v2' .*`inputs: \{{{tensor.name}: \[<column>, .*or the name of one column"
    with pytest.raises(errors.ConfigError, match=message):
        models.check_inputs(unmapped, models.load(unmapped), examples(features=X), ())


@pytest.mark.parametrize(
    ("name", "outputs"), [("named.keras", ("p", "q")), ("listed.keras", ("one", "two"))]
)
def test_functional_models_take_inputs_and_give_outputs_by_name(folder, examples, name, outputs):
    model = models.load(spec(folder, name))
    assert model.outputs == outputs
    predictions = model.predict(examples(x=X, age=[40, 50]))
    arguments = {"age": np.float32([[40], [50]]), "x": np.float32(X)}
    structure = arguments if name == "named.keras" else list(arguments.values())
    expected = direct(folder, name, structure)
    first, second = expected.values() if isinstance(expected, dict) else expected
    np.testing.assert_allclose(predictions[outputs[0]], first[:, 0], rtol=1e-6)
    np.testing.assert_allclose(predictions[outputs[1]], second, rtol=1e-6)
    chosen = models.load(spec(folder, name, outputs=outputs[1:]))
    np.testing.assert_array_equal(
        chosen.predict(examples(x=X, age=[40, 50]))[""], predictions[outputs[1]]
    )


def test_a_string_input(folder, examples):
    import tensorflow as tf

    predictions = models.load(spec(folder, "city.keras")).predict(
        examples(city=[["Köln"], ["Rome"], ["Oslo"]])
    )
    expected = direct(folder, "city.keras", tf.constant([["Köln"], ["Rome"], ["Oslo"]]))
    np.testing.assert_allclose(predictions[""], expected[:, 0], rtol=1e-6)


@pytest.mark.parametrize("form", ["ragged", "sparse"])
def test_ragged_and_sparse_inputs_take_rows_of_one_length_at_a_time(tmp_path, examples, form):
    import keras

    x = keras.Input((None,), name="x", **{form: True})
    keras.Model(x, keras.ops.sum(x, axis=1, keepdims=True)).save(tmp_path / "m.keras")
    model = models.load(spec(tmp_path, "m.keras"))
    predictions = model.predict(examples(x=[[1.0, 2.0], [3.0, 4.0]]))[""]
    np.testing.assert_array_equal(predictions, [3, 7])
    with pytest.raises(arrow.UnequalRowsError):
        model.predict(examples(x=[[1.0, 2.0], [3.0]]))


def test_batch_sizes_do_not_retrace(folder, examples, monkeypatch):
    model = models.load(spec(folder, "named.keras"))
    import tensorflow as tf

    def refuse(*arguments, **keywords):
        raise AssertionError("traced again")

    monkeypatch.setattr(tf.Graph, "__init__", refuse)
    with pytest.raises(AssertionError, match="traced again"):
        tf.function(lambda x: x)(tf.constant(1.0))
    for rows in (1, 2, 7):
        predictions = model.predict(examples(x=X[:1] * rows, age=[40] * rows))
        assert predictions["q"].shape == (rows, 2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken.keras", r"Version 'v2' \(.*broken.keras\): it is not a `.keras` file"),
        ("features", "it is not a `.keras` file"),
        ("lambda.keras", "has a Lambda layer.*model.export"),
        ("own.keras", "Keras cannot load it.*Custom layers need their code"),
        ("unbuilt.keras", "a Sequential that does not declare its inputs.*keras.Input"),
    ],
)
def test_models_that_cannot_be_loaded_are_rejected(folder, name, message):
    with pytest.raises(errors.ConfigError, match=f"(?s){message}"):
        models.load(spec(folder, name))
