import numpy as np
import pytest
from scipy import special

from evalbeam.transforms import errors
from evalbeam.transforms.batch import Seen
from evalbeam.transforms.examples import scores
from evalbeam.transforms.examples.labels import Head

BINARY = Head("", "y", "binary")
THREE = Head("", "y", "multiclass", 3, ("a", "b", "c"))


def convert(predictions, head, scale=""):
    return scores.convert(np.asarray(predictions), head, scale)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_logits(dtype):
    logits = np.array([[-2.0, 0.5, 3.0], [1.0, 1.0, -700.0]], dtype)
    result, undefined, seen = convert(logits, THREE, "logits")
    expected = special.softmax(logits.astype("f8"), axis=1)
    np.testing.assert_allclose(result, expected, rtol=1e-14)
    assert (undefined, seen.outside, seen.unnormalized) == ({}, 0, 0)
    sigmoid = 1 / (1 + np.exp(-logits[:, 2].astype("f8")))
    np.testing.assert_allclose(convert(logits[:, 2], BINARY, "logits")[0], sigmoid, rtol=1e-14)
    labels = Head("", "y", "multilabel", 3)
    each = convert(logits, labels, "logits")[0]
    np.testing.assert_allclose(each, special.expit(logits.astype("f8")), rtol=1e-14)


def test_percent():
    np.testing.assert_array_equal(convert([0.0, 50.0, 100.0], BINARY, "percent")[0], [0, 0.5, 1])


def test_two_columns_of_a_binary_task():
    both = [[0.9, 0.1], [0.2, 0.8]]
    np.testing.assert_array_equal(convert(both, BINARY)[0], [0.1, 0.8])
    first = Head("", "y", "binary", names=("spam", "ham"), positive=0)
    np.testing.assert_array_equal(convert(both, first)[0], [0.9, 0.2])
    logits = np.log(both)
    np.testing.assert_allclose(convert(logits, BINARY, "logits")[0], [0.1, 0.8], rtol=1e-14)


def test_one_column_for_two_classes():
    two = Head("", "y", "multiclass", 2)
    np.testing.assert_array_equal(convert([0.25, 1.0], two)[0], [[0.75, 0.25], [0, 1]])


def test_names_of_classes_are_decisions():
    predicted = np.array([b"c", b"x", b"a"], object)
    result, undefined, seen = convert(predicted, THREE)
    np.testing.assert_array_equal(result[[0, 2]], [[0, 0, 1], [1, 0, 0]])
    assert undefined == {1: "the prediction 'x' is none of the classes 'a', 'b', 'c'"}
    assert seen is None
    named = Head("", "y", "binary", names=("no", "yes"))
    result, _, _ = convert(np.array([b"yes", b"no"], object), named)
    np.testing.assert_array_equal(result, [1, 0])


def test_numbers_are_decisions_where_there_are_several_classes():
    result, undefined, _ = convert([2.0, 0.0, 7.0], Head("", "y", "multiclass", 3))
    np.testing.assert_array_equal(result[:2], [[0, 0, 1], [1, 0, 0]])
    assert list(undefined) == [2]


def test_lists_of_the_largest_scores():
    lists = np.zeros(2, [("classes", object, (2,)), ("scores", "f8", (2,))])
    lists["classes"] = [[b"c", b"a"], [b"b", None]]
    lists["scores"] = [[0.7, 0.2], [0.9, 0.0]]
    result, undefined, seen = convert(lists, THREE)
    np.testing.assert_array_equal(result, [[0.2, 0, 0.7], [0, 0.9, 0]])
    assert (undefined, seen.unnormalized) == ({}, 0)
    with pytest.raises(errors.JobError, match="the softmax of logits needs those of all classes"):
        convert(lists, THREE, "logits")


def test_undefined_scores():
    result = convert([0.5, np.nan, np.inf, -np.inf], BINARY)[1]
    assert result == {1: "the prediction is NaN"} | dict.fromkeys(
        (2, 3), "the prediction is infinite"
    )
    # An infinite logit is a probability of 0 or 1.
    assert convert([np.inf, -np.inf], BINARY, "logits")[1] == {}
    np.testing.assert_array_equal(convert([np.inf, -np.inf], BINARY, "logits")[0], [1, 0])


def test_unknown_classes_have_no_score():
    head = Head("", "y", "multiclass", 4, ("a", "b", "c", "other"), unknown=True)
    result, _, _ = convert([[0.2, 0.3, 0.5]], head)
    np.testing.assert_array_equal(result, [[0.2, 0.3, 0.5, 0]])


def judge(predictions, head=BINARY, scale="", by_scale=True):
    seen = scores.look(*[np.asarray(predictions, float)] * 2, head)
    return scores.judge(head, scale, seen, by_scale=by_scale)


@pytest.mark.parametrize(
    ("predictions", "head", "scale", "problem", "note"),
    [
        ([0.1, 0.9], BINARY, "", "", ""),
        ([-0.0005, 1.0005], BINARY, "", "", ""),
        ([-3.0, 0.5], BINARY, "", r"1 of 2 rows .50.0%. .* from -3 to 0.5.*`scores: logits`", ""),
        ([3.0, 97.0], BINARY, "", "`scores: percent` to divide them by 100", ""),
        ([-3.0, 0.5], BINARY, "as_is", "", "taken as they are"),
        ([0.2, 3.0], BINARY, "percent", "These are not percent", ""),
        ([0.3, 0.3], BINARY, "", "", "all 2 scores are 0.3"),
        ([0.0, 1.0], BINARY, "", "", "all 2 scores are 0 or 1: decisions"),
        ([[0.2, 0.3, 0.5]], THREE, "", "", ""),
        ([[0.9, 0.9, 0.5]], THREE, "", "do not sum to one", ""),
        ([[-1.0, 4.0, 0.5]], THREE, "", "to put them through softmax", ""),
    ],
)
def test_scores_are_judged(predictions, head, scale, problem, note):
    found = judge(predictions, head, scale)
    for text, pattern in zip(found, (problem, note), strict=True):
        assert bool(text) == bool(pattern), found
        if pattern:
            with pytest.raises(AssertionError, match=pattern):
                raise AssertionError(text)


def test_the_largest_score_of_a_row_needs_no_scale():
    problem, note = judge([[-1.0, 4.0, 0.5]], THREE, by_scale=False)
    assert not problem
    assert "depend only on which class has the largest score" in note


def test_what_was_seen_adds_up():
    rng = np.random.default_rng(3)
    values = rng.normal(size=(100, 3))
    whole = scores.look(values, values, THREE)
    total = Seen()
    for piece in np.array_split(values, 7):
        total = total.merge(scores.look(piece, piece, THREE))
    assert total == whole
    assert whole.outside == ((values < -1e-3) | (values > 1 + 1e-3)).any(axis=1).sum()
