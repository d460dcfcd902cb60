"""Ragged, sparse and sequence inputs of signatures: filled by lists, or refused by name."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from evalbeam.transforms import arrow, batch, errors, models

LISTS = [[1.0, 2.0], [], [3.0]]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder of SavedModels by the form of their signature's arguments; scores are sums."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("composites")
    ragged, sparse, dense = tf.RaggedTensorSpec, tf.SparseTensorSpec, tf.TensorSpec

    def export(name, arguments, function):
        module = tf.Module()
        module.serve = tf.function(function, input_signature=arguments)
        tf.saved_model.save(module, str(folder / name), signatures=module.serve)

    def add(x):
        return {"s": tf.reduce_sum(x, 1) + 0.25}

    export("ragged", [ragged([None, None], tf.float32)], add)
    export("splits32", [ragged([None, None], tf.float32, row_splits_dtype=tf.int32)], add)
    export(
        "pairs",
        [ragged([None, None, 2], tf.float32, ragged_rank=1)],
        lambda x: {"s": tf.reduce_sum(x, [1, 2])},
    )
    export(
        "text",
        [ragged([None, None], tf.string)],
        lambda x: {"s": tf.reduce_sum(tf.strings.length(x), 1)},
    )
    export(
        "mixed",
        [ragged([None, None], tf.float32), dense([None], tf.int64, name="x_1")],
        lambda x, n: {"s": tf.reduce_sum(x, 1) * tf.cast(n, tf.float32)},
    )
    export(
        "nested",
        [ragged([None, None, None], tf.float32)],
        lambda x: {"s": tf.reduce_sum(x, [1, 2])},
    )
    # Depends on the width, which is that of the row, whatever the other rows have.
    export(
        "sparse",
        [sparse([None, None], tf.float32)],
        lambda x: {"s": tf.reduce_sum(tf.sparse.to_dense(x, default_value=1.0) + 0.5, 1)},
    )
    pair = {"a": dense([None], tf.float32), "b": dense([None], tf.int64)}
    export("pair", [pair], lambda d: {"s": d["a"] + tf.cast(d["b"], tf.float32)})
    structure = {"a": ragged([None, None], tf.float32), "b": sparse([None, None], tf.float32)}
    export("structure", [structure], lambda d: add(d["a"]))

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.sparse_placeholder(tf.float32, [None, 3])
        info = v1.saved_model.build_tensor_info
        sums = info(v1.sparse_reduce_sum(x, 1))
        signature = v1.saved_model.build_signature_def({"x": info(x)}, {"s": sums}, "p")
        builder = v1.saved_model.Builder(str(folder / "tensorflow1"))
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature})
        builder.save()
    return folder


def load(saved, name, **fields):
    return models.load(models.ModelSpec("v", "saved_model", str(saved / name), **fields))


def floats(rows):
    return pa.array(rows, pa.list_(pa.float64()))


@pytest.mark.parametrize(
    ("name", "column", "scores"),
    [
        ("ragged", floats(LISTS), [3.25, 0.25, 3.25]),
        ("ragged", floats([[], []]), [0.25, 0.25]),
        ("ragged", pa.array([[], []]), [0.25, 0.25]),
        ("ragged", pa.array([1, 2]), [1.25, 2.25]),
        ("splits32", floats(LISTS), [3.25, 0.25, 3.25]),
        ("pairs", floats([[1, 2], [], [3, 4, 5, 6]]), [3, 0, 18]),
        ("text", pa.array([["ab", "Köln"], [], ["d"]]), [7, 0, 1]),
        ("sparse", floats([[1, 2], [3, 4]]), [4, 8]),
        ("sparse", floats([[], []]), [0, 0]),
        ("tensorflow1", floats([[1, 2, 3]]), [6]),
    ],
)
def test_lists_fill_ragged_and_sparse_inputs(saved, examples, name, column, scores):
    model = load(saved, name)
    assert model.projection.columns == ("x",)
    np.testing.assert_array_equal(model.predict(examples(x=column))[""], scores)


def test_columns_are_mapped_to_the_argument(saved, examples):
    mapped = (("x", "tokens"), ("x_1_1", "n"))
    model = load(saved, "mixed", inputs=mapped)
    predictions = model.predict(examples(tokens=floats(LISTS), n=[1, 2, 3]))[""]
    np.testing.assert_array_equal(predictions, [3, 0, 9])


def test_the_error_for_a_missing_column_says_what_the_input_is(saved, examples):
    spec = models.ModelSpec("v", "saved_model", str(saved / "ragged"))
    message = r"input 'x' has no column .*`inputs: \{x: <column>\}` with a column of lists, as the"
    with pytest.raises(errors.ConfigError, match=message):
        models.check_inputs(spec, models.load(spec), examples(tokens=floats(LISTS)), ["tokens"])


def test_tensors_that_are_mapped_one_by_one_are_dense(saved, examples):
    model = load(saved, "pair", inputs=(("d", "a"), ("d_1", "b")))
    np.testing.assert_array_equal(model.predict(examples(a=[1.0, 2.0], b=[3, 4]))[""], [4, 6])


def test_sparse_rows_of_other_lengths_are_predicted_by_themselves(saved, examples):
    with pytest.raises(arrow.UnequalRowsError) as caught:
        load(saved, "sparse").predict(examples(x=floats([[1], [2, 3], [4]])))
    assert [group.tolist() for group in caught.value.groups] == [[0, 2], [1]]


@pytest.mark.parametrize(
    ("name", "column", "reasons"),
    [
        ("ragged", floats([[1], None, [2, None], []]), {1: "no value", 2: "null in ragged input"}),
        ("ragged", [["1", "2"], [], ["3", "a"]], {2: "takes float32, but the row has 'a'"}),
        ("ragged", [[], [2**24 + 1], [1]], {1: "cannot represent 16777217"}),
        ("pairs", floats([[1, 2], [], [3]]), {2: "x 2 values, but the row has 1"}),
        ("sparse", floats([[1], None]), {1: "no value for sparse input 'x'"}),
    ],
)
def test_rows_that_an_input_cannot_take(saved, examples, name, column, reasons):
    data = examples(x=column)
    data = dataclasses.replace(data, shard=batch.Shard("eval", "d", "parquet"))
    with pytest.raises(arrow.UnscorableRowsError) as caught:
        load(saved, name).predict(data)
    # Those without a value are found first.
    row = min(reasons)
    assert reasons[row] in caught.value.reasons[row]
    if len(reasons) == 1:
        assert list(caught.value.reasons) == [row]


def test_a_feature_that_a_tf_example_lacks_is_an_empty_list(saved, examples):
    data = examples(x=floats([[1.0], None]))
    assert data.shard.format == "tfrecord"
    np.testing.assert_array_equal(load(saved, "ragged").predict(data)[""], [1.25, 0.25])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nested", r"'x', 'x_1', 'x_2', whose meaning .* a ragged tensor of lists of lists"),
        ("structure", r"'d', 'd_1', 'd_2', .* each an argument of the signature by itself: export"),
    ],
)
def test_what_lists_cannot_fill_is_refused(saved, name, message):
    with pytest.raises(errors.ConfigError, match=message):
        load(saved, name)


def test_an_image_does_not_fill_a_ragged_input(saved):
    image = models.Image("png", name="x")
    with pytest.raises(errors.ConfigError, match=r"input 'x' is ragged, .* 'x' is an image"):
        load(saved, "ragged", images=(("x", image),))
