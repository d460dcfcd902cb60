import numpy as np
import pyarrow as pa
import pytest

from evalbeam.transforms import arrow, errors
from evalbeam.transforms.examples import labels, tasks


def infer(truth, predictions, **wanted):
    values, lengths = arrow.flatten(pa.array(truth))
    return tasks.infer(
        "", "y", tasks.Truth(values, lengths), np.array(predictions), tasks.Wanted(**wanted)
    )


TWO = [[0.1, 0.9], [0.5, 0.5]]
THREE = [[0.1, 0.2, 0.7], [0.5, 0.25, 0.25], [1.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    ("truth", "predictions", "task", "classes", "reason"),
    [
        ([0, 1, 0.5], [0.1, 0.9, np.nan], "binary", None, "labels and predictions are in"),
        # Logits: a fault of the scores, which is reported, and no other task.
        ([0, 1, 1], [-3.0, 4.0, 7.0], "binary", None, "labels are 0 and 1"),
        ([0, 2, 3], [0.1, 0.9, 0.2], "regression", None, "labels are not in [0, 1]"),
        ([0.2, 0.7, 0.3], [1.5, 7.0, -3.0], "regression", None, "predictions are not in [0, 1]"),
        ([3, 1, 3], [2.0, 1.0, 3.0], "regression", None, "set `task: multiclass`"),
        ([0, 1], TWO, "binary", None, "two predictions, one per class"),
        ([0, 2, 1], THREE, "multiclass", 3, "3 predictions per example; the label is a class"),
        ([0, -1, 1], THREE, "multiclass", 3, "the label is a class index"),
        ([[0, 1], [1, 0]], TWO, "multiclass", 2, "one-hot lists of 2"),
        ([[1, 1], [1, 0]], TWO, "multilabel", 2, "2 values, not all one-hot"),
    ],
)
def test_tasks_of_numbers(truth, predictions, task, classes, reason):
    inferred = infer(truth, predictions)
    assert (inferred.head.task, inferred.head.classes) == (task, classes)
    assert reason in inferred.reason
    assert not inferred.is_open


@pytest.mark.parametrize(
    ("truth", "predictions", "task", "names"),
    [
        (["b", "m"], [0.1, 0.9], "binary", ("b", "m")),
        (["b", "m"], TWO, "binary", ("b", "m")),
        ([-1, 1], [0.1, 0.9], "binary", ("-1", "1")),
        ([-1, 1], [-2.5, 0.7], "binary", ("-1", "1")),
        ([1, 2, 2], [0.1, 0.9, 0.8], "binary", ("1", "2")),
        ([2, 4], TWO, "binary", ("2", "4")),
        (["c", "a", "b"], THREE, "multiclass", ("a", "b", "c")),
        ([3, 1, 2], THREE, "multiclass", ("1", "2", "3")),
        ([10, 30, 20], THREE, "multiclass", ("10", "20", "30")),
        ([["a"], ["b", "c"], []], THREE, "multilabel", ("a", "b", "c")),
        (["a", "b", "c"], [b"a", b"a", b"d"], "multiclass", ("a", "b", "c", "d")),
        (["no", "yes"], [b"no", b"no"], "binary", ("no", "yes")),
    ],
)
def test_classes_with_names_are_found(truth, predictions, task, names):
    predictions = np.array(predictions, object if isinstance(predictions[0], bytes) else float)
    inferred = infer(truth, predictions)
    assert inferred.is_open
    assert (inferred.head.task, inferred.head.names) == (task, names)


def test_one_odd_value_does_not_change_the_task():
    truth = np.tile([0, 1], 60)
    for odd in (-1, 7):
        truth[50] = odd
        assert infer(truth.tolist(), np.full(120, 0.5)).head.task == "binary"
    scores = np.full(120, 0.5)
    scores[3] = np.inf
    assert infer(np.tile([0.25, 1], 60).tolist(), scores).head.task == "binary"


@pytest.mark.parametrize(
    ("truth", "predictions", "wanted", "message"),
    [
        ([[0, 1]] * 4, np.zeros(4), {}, r"Labels of shape \[N, 2\] and predictions of shape \[N\]"),
        ([[0, 1]] * 4, np.zeros((4, 3)), {}, r"and predictions of shape \[N, 3\] fit no task"),
        (["a", "b", "c"], [0.1, 0.2, 0.3], {}, "3 classes, 'a', 'b', 'c', but there is one predi"),
        (
            ["a", "b"],
            [0.1, 0.2],
            {"task": "binary", "classes": ("a",)},
            "has 1 classes, 'a'; a binary task has two",
        ),
        (["a", "b"], [0.1, 0.2], {"classes": ("a", "b"), "positive": "c"}, "data.positive is 'c'"),
        (
            ["a", "b", "c"],
            THREE,
            {"classes": ("a", "b", "c", "d")},
            "has 4 classes, .*, but there are 3 scores per example",
        ),
    ],
)
def test_what_fits_no_task(truth, predictions, wanted, message):
    with pytest.raises(errors.ConfigError, match=message):
        infer(truth, predictions, **wanted)


def test_found_classes_must_fit():
    three = labels.Head("", "y", "multiclass", 3)
    assert tasks.complete(three, ("a", "b", "c"), tasks.Wanted()).names == ("a", "b", "c")
    with pytest.raises(errors.ConfigError, match="has 2 classes, 'a', 'b', but there are 3 scores"):
        tasks.complete(three, ("a", "b"), tasks.Wanted())
    with pytest.raises(errors.ConfigError, match="more than 10,000 distinct values, such as '0'"):
        tasks.complete(three, tuple(map(str, range(10_001))), tasks.Wanted())
    binary = tasks.complete(labels.Head("", "y", "binary"), ("a", "b"), tasks.Wanted(positive="a"))
    assert binary.positive == 0
    assert [binary.class_name(class_id) for class_id in (0, 1)] == ["b", "a"]


def test_unknown_labels_are_a_class_of_their_own():
    inferred = infer(["a", "b", "c"], THREE, classes=("a", "b", "c"), unknown="other")
    head = inferred.head
    assert (head.classes, head.scored_classes) == (4, 3)
    assert head.names == ("a", "b", "c", "other")
