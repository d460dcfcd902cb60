import re

import numpy as np
import pyarrow as pa
import pytest

from evalbeam.transforms import batch, errors
from evalbeam.transforms.examples import labels


def examples(**columns):
    record = pa.RecordBatch.from_pydict(columns)
    positions = np.arange(100, 100 + record.num_rows)
    return batch.Batch(batch.Shard("eval", "data/eval-3", "csv"), positions, record)


def head(task, classes=None):
    return labels.Head("", "y", task, classes)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([0, 1, 1]),
        pa.array([[0.0], [1.0], [1.0]], pa.list_(pa.float32())),
        pa.array([False, True, True]),
        pa.array([0, 1, 1], pa.int8()).dictionary_encode(),
    ],
)
def test_labels_are_float64_in_any_format(column):
    values = labels.labels(examples(y=column), head("binary"))
    assert values.dtype == np.float64
    np.testing.assert_array_equal(values, [0, 1, 1])


def test_fractions_and_float_noise_are_binary_labels():
    values = labels.labels(examples(y=[0.25, 1 + 5e-8, -5e-8]), head("binary"))
    np.testing.assert_array_equal(values, [0.25, 1 + 5e-8, -5e-8])


def test_multiclass_labels_are_indices():
    three = head("multiclass", 3)
    np.testing.assert_array_equal(labels.labels(examples(y=[0, 2, -1]), three), [0, 2, -1])
    one_hot = [[0, 0, 1], [0, 0, 0], [1, 0, 0]]
    np.testing.assert_array_equal(labels.labels(examples(y=one_hot), three), [2, -1, 0])


def test_multilabel_labels_are_lists():
    values = labels.labels(examples(y=[[0, 1], [1, 1]]), head("multilabel", 2))
    np.testing.assert_array_equal(values, [[0, 1], [1, 1]])


@pytest.mark.parametrize(
    ("column", "wanted", "message"),
    [
        ([1, None], head("binary"), "row 102 .*: label column 'y' is missing; each example needs"),
        ([[1], []], head("binary"), "row 102 .*: label column 'y' is missing"),
        (pa.nulls(2), head("binary"), r"row 101 .*: .*\(2 such rows in this batch of 2\)"),
        ([1.0, float("nan")], head("regression"), "row 102 .*: .* is nan; it must be a finite"),
        ([[1, 0], [1, None]], head("multilabel", 2), r"row 102 .*: .* is \[1.0, nan\]; it must be"),
        ([0, 1.5], head("binary"), r"row 102 .*: .* is 1.5; binary labels are in \[0, 1\]"),
        ([0.0, -1e-6], head("binary"), "row 102 .*: .* is -1e-06; binary labels"),
        ([[1, 0], [1, 2]], head("multilabel", 2), r"row 102 .*: .* is \[1.0, 2.0\]; multilabel"),
        ([0, 3], head("multiclass", 3), r"is 3.0; .* from -1 \(no class\) to 2"),
        ([0, 0.5], head("multiclass"), r"is 0.5; class indices are integers from -1"),
        ([[1, 0], [1, 1]], head("multiclass", 2), r"row 102 .*: .* is \[1.0, 1.0\]; a class is"),
        ([[1, 0], [1]], head("multilabel", 2), "row 101 .*: .* has 2 values, other rows have 1"),
        ([[1, 0, 0]], head("multilabel", 2), "holds 3 values .* takes a list of 2"),
        ([1], head("multilabel", 2), "holds 1 values .* takes a list of 2"),
        ([[1, 0]], head("binary"), "holds 2 values per row; task binary takes one"),
        (["yes"], head("binary"), "holds string, such as 'yes'; it must be numeric"),
    ],
)  # fmt: skip
def test_wrong_labels_are_reported(column, wanted, message):
    with pytest.raises(errors.JobError, match=message) as caught:
        labels.labels(examples(y=column), wanted)
    assert str(caught.value).startswith("data/eval-3")


def test_an_absent_label_column_is_reported():
    message = re.escape("no row has the label column 'y'; there are 'y1', 'x'")
    with pytest.raises(errors.JobError, match=message):
        labels.labels(examples(x=[1], y1=[2]), head("binary"))


def test_weights():
    values = labels.weights(examples(w=[[2], [0]]), "w")
    assert values.dtype == np.float64
    np.testing.assert_array_equal(values, [2, 0])


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([1.0, None], "row 102 .*: weight column 'w' is missing"),
        ([1.0, float("nan")], "row 102 .*: weight column 'w' is nan"),
        (
            [1.0, -0.5],
            "row 102 .*: weight column 'w' is -0.5; weights must not be negative",
        ),
        ([[1, 2]], "holds 2 values per row; a weight is a single value"),
        (["a"], "weight column 'w' holds string"),
    ],
)
def test_wrong_weights_are_reported(column, message):
    with pytest.raises(errors.JobError, match=message):
        labels.weights(examples(w=column), "w")
