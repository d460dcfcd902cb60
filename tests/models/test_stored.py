import numpy as np
import pytest

from evalbeam.transforms import arrow, errors, models


def spec(*predictions, **fields):
    pairs = tuple((output, (column,)) for output, column in predictions)
    return models.ModelSpec("v0", "stored", predictions=pairs, **fields)


@pytest.mark.parametrize("column", [[0.25, 0.5], [[0.25], [0.5]]])
def test_scalars_and_lists_of_one(examples, column):
    model = models.load(spec(("", "score")))
    assert model.projection.columns == ("score",)
    predictions = model.predict(examples(score=column))
    assert predictions[""].dtype == np.float64
    np.testing.assert_array_equal(predictions[""], [0.25, 0.5])


def test_lists_and_several_outputs(examples):
    model = models.load(spec(("p", "score"), ("q", "scores")))
    predictions = model.predict(examples(score=[1, 0], scores=[[0.5, 0.5], [0.25, 0.75]]))
    np.testing.assert_array_equal(predictions["p"], [1.0, 0.0])
    np.testing.assert_array_equal(predictions["q"], [[0.5, 0.5], [0.25, 0.75]])
    one = models.load(spec(("p", "score"), ("q", "scores"), outputs=("q",)))
    assert one.outputs == ("",)
    assert one.projection.columns == ("scores",)


def test_rows_unlike_the_others_cannot_be_scored(examples):
    data = examples(scores=[[0.5], [0.25, 0.75], None, [0.5, 0.5], [0.0, 1.0]])
    with pytest.raises(arrow.UnscorableRowsError) as caught:
        models.load(spec(("", "scores"))).predict(data)
    assert caught.value.reasons.keys() == {2}
    with pytest.raises(arrow.UnequalRowsError) as separated:
        models.load(spec(("", "scores"))).predict(data.take(np.array([0, 1, 3, 4])))
    assert [rows.tolist() for rows in separated.value.groups] == [[0], [1, 2, 3]]


def test_errors(examples):
    with pytest.raises(errors.ConfigError, match="Version 'v0': it has no column of predictions"):
        models.load(spec())
    with pytest.raises(errors.ConfigError, match="unknown output 'r'; it has predictions for 'p'"):
        models.load(spec(("p", "a"), outputs=("r",)))
    wrong = spec(("", "scoer"))
    with pytest.raises(
        errors.ConfigError,
        match=r"'scoer' of its predictions is not in the data .*'score'",
    ):
        models.check_inputs(wrong, models.load(wrong), examples(score=[1.0]), ())


def test_names_of_classes_are_passed_on(examples):
    predictions = models.load(spec(("", "score"))).predict(examples(score=["cat", "dog"]))
    assert predictions[""].tolist() == ["cat", "dog"]


def test_a_column_without_a_value_is_named(examples):
    spec = models.ModelSpec("v", "stored", predictions=(("", ("a", "b")),))
    rows = examples(a=[0.5, 0.5], b=[0.5, None])
    with pytest.raises(arrow.UnscorableRowsError, match=r"row 1: no value for column 'b'$"):
        models.load(spec).predict(rows)
    (declared,) = models.load(spec).inputs
    assert str(declared) == "columns 'a', 'b'"
