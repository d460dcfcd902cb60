import re

import numpy as np
import pyarrow as pa
import pytest

from evalbeam.transforms import arrow, errors, models
from evalbeam.transforms.models import columns


def spec(folder, name, **fields):
    return models.ModelSpec("v1", "saved_model", str(folder / name), **fields)


def test_a_signature_over_serialised_examples(folder, examples):
    import tensorflow as tf

    ages = [20.0, 41.5]
    serialized = [
        tf.train.Example(
            features=tf.train.Features(
                feature={"age": tf.train.Feature(float_list=tf.train.FloatList(value=[age]))}
            )
        ).SerializeToString()
        for age in ages
    ]
    model = models.load(spec(folder, "serialized"))
    assert model.projection.serialized
    assert model.projection.columns == ()
    predictions = model.predict(examples(serialized))
    assert list(predictions) == [""]
    np.testing.assert_array_equal(predictions[""], np.float32([40.25, 83.25]))
    direct = tf.saved_model.load(str(folder / "serialized")).signatures["serving_default"]
    expected = direct(examples=tf.constant(serialized))["score"].numpy()[:, 0]
    np.testing.assert_array_equal(predictions[""], expected)


FEATURES = {
    "tf.Example": {
        "age": pa.array([[20.0], [30.0]], pa.list_(pa.float32())),
        "x": pa.array([[1, 2, 3], [4, 5, 6.5]], pa.list_(pa.float32())),
        "n": pa.array([[1], [-2]], pa.list_(pa.int64())),
    },
    "Parquet": {
        "age": pa.array([20.0, 30.0], pa.float64()),
        "x": pa.array([[1, 2, 3], [4, 5, 6.5]], pa.list_(pa.float64(), 3)),
        "n": pa.array([1, -2], pa.int64()),
    },
    "whole numbers": {
        "age": pa.array([20, 30], pa.int64()),
        "x": pa.array([[1, 2, 3], [4, 5, 6.5]], pa.large_list(pa.float64())),
        "n": pa.array([1.0, -2.0], pa.float64()),
    },
}


@pytest.mark.parametrize("form", FEATURES)
def test_a_signature_over_columns_takes_what_each_format_gives(folder, examples, form):
    model = models.load(spec(folder, "features"))
    assert set(model.projection.columns) == {"age", "x", "n"}
    predictions = model.predict(examples(**FEATURES[form]))[""]
    np.testing.assert_array_equal(predictions, np.float32([27.25, 43.75]))
    assert predictions.dtype == np.float32


def test_predictions_of_a_slice_are_a_slice_of_predictions(folder, examples):
    model = models.load(spec(folder, "features"))
    whole = examples(**FEATURES["tf.Example"])
    for row in range(2):
        part = model.predict(whole.take(np.array([row])))[""]
        np.testing.assert_array_equal(part, model.predict(whole)[""][[row]])
    sliced = type(whole)(whole.shard, whole.positions[1:], whole.columns.slice(1))
    np.testing.assert_array_equal(model.predict(sliced)[""], model.predict(whole)[""][1:])


def test_a_mapped_string_input_reads_its_column(folder, examples):
    model = models.load(spec(folder, "text", inputs=(("text", "review"),)))
    assert model.projection.columns == ("review",)
    strings = pa.array(["good", "", "Köln", "good"])
    encoded = strings.dictionary_encode()
    listed = pa.LargeListArray.from_arrays(pa.array(range(len(strings) + 1)), encoded)
    for column in (strings, encoded, strings.cast(pa.binary()), listed):
        predictions = model.predict(examples(review=column))[""]
        np.testing.assert_array_equal(predictions, [4, 0, 5, 4])
        assert predictions.dtype == np.float64


def test_several_outputs(folder, examples):
    model = models.load(spec(folder, "several", outputs=("p", "old", "both")))
    predictions = model.predict(examples(age=[0.0, 50.0]))
    assert model.outputs == ("p", "old", "both") == tuple(predictions)
    np.testing.assert_array_equal(predictions["old"], [0.0, 1.0])
    np.testing.assert_array_equal(predictions["both"], [[0, 0], [50, -50]])
    one = models.load(spec(folder, "several", outputs=("p",))).predict(examples(age=[0.0]))
    np.testing.assert_array_equal(one[""], np.float32([0.5]))


def test_an_estimator_names_its_classes(folder, examples):
    model = models.load(spec(folder, "estimator", outputs=("probabilities",)))
    data = examples(x=[None, [0.25, 0.5]])
    assert model.classes(data) == {"": ("no", "yes")}
    assert model.classes(data.take(np.array([0]))) == {}
    assert models.load(spec(folder, "mean")).classes(data) == {}


def test_higher_ranks_are_filled_in_row_order(folder, examples):
    rows = pa.array([[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0]], pa.list_(pa.float32()))
    predictions = models.load(spec(folder, "image")).predict(examples(x=rows))[""]
    np.testing.assert_array_equal(predictions, np.float32([3.25, 2.25]))


def test_open_sizes_are_the_rows(folder, examples):
    model = models.load(spec(folder, "tokens"))
    np.testing.assert_array_equal(model.predict(examples(x=[[1.0, 2.0]]))[""], np.float32([3.25]))
    # Rows of other sizes are predicted by themselves.
    with pytest.raises(arrow.UnequalRowsError):
        model.predict(examples(x=[[1.0, 2.0], [1.0]]))


@pytest.mark.parametrize(
    ("column", "reasons"),
    [
        ([[1.0], None, []], {1: "no value for input 'age'", 2: "no value for input 'age'"}),
        ([[1.0], [2.0, 3.0]], {1: "takes 1 values, but the row has 2"}),
        ([[1.0], [None]], {1: "null in input 'age'"}),
        ([1.0, None], {1: "no value"}),
        ([0, 2**24 + 1], {1: "takes float32, which cannot represent 16777217"}),
        ([1.0, 1e300], {1: "takes float32, which cannot represent 1e\\+300"}),
    ],
)
def test_rows_that_an_input_cannot_take(folder, examples, column, reasons):
    model = models.load(spec(folder, "mean"))
    with pytest.raises(arrow.UnscorableRowsError) as caught:
        model.predict(examples(age=column))
    assert list(caught.value.reasons) == list(reasons)
    for row, reason in reasons.items():
        assert re.search(reason, caught.value.reasons[row])


@pytest.mark.parametrize("value", [2**40, -(2**31) - 1, 1.5, float("nan")])
def test_rows_outside_an_integer_input(folder, examples, value):
    data = {**FEATURES["whole numbers"], "n": pa.array([7, value])}
    with pytest.raises(arrow.UnscorableRowsError, match="row 1: input 'n' takes int32"):
        models.load(spec(folder, "features")).predict(examples(**data))


def test_unsigned_values_do_not_wrap_around(examples):
    declared = columns.Input("n", "n", np.dtype(np.int64), ())
    data = examples(n=pa.array([1, 2**63 + 5], pa.uint64()))
    with pytest.raises(arrow.UnscorableRowsError, match="row 1"):
        columns.arrays((declared,), data)


def test_reasons_of_all_inputs_come_together(folder, examples):
    data = {**FEATURES["tf.Example"], "n": [None, [1]], "x": [[1.0, 2.0, 3.0], [1.0]]}
    with pytest.raises(arrow.UnscorableRowsError) as caught:
        models.load(spec(folder, "features")).predict(examples(**data))
    assert sorted(caught.value.reasons) == [0, 1]


def test_a_column_absent_from_a_batch_has_no_values(folder, examples):
    with pytest.raises(arrow.UnscorableRowsError, match="2 rows; row 0: no value for input"):
        models.load(spec(folder, "mean")).predict(examples(other=[1, 2]))


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("sequential.keras", {}, r"Version 'v1' \(.*\): it is not a SavedModel.*kind keras"),
        ("no_model", {}, r"Version 'v1' \(.*no_model\): it is not a SavedModel"),
        ("damaged", {}, "TensorFlow cannot load it"),
        ("features", {"signature": "serve"}, "unknown signature 'serve'; it has 'serving_default'"),
        (
            "several",
            {"outputs": ("q",)},
            "unknown output 'q'; the model's outputs are 'both', 'name', 'old', 'p'",
        ),
        ("several", {"outputs": ("bot",)}, "Did you mean 'both'"),
        ("several", {}, "output 'name' is string .*Choose among .* with `outputs"),
        ("features", {"inputs": (("aeg", "a"),)}, "maps 'aeg'.*'age', 'n', 'x'.*mean 'age'"),
        ("fixed", {}, r"'age' has the shape \[8\], so it takes only batches of 8"),
    ],
)
def test_mismatches_are_rejected_at_load(folder, name, fields, message):
    with pytest.raises(errors.ConfigError, match=message):
        models.load(spec(folder, name, **fields))
