import sys

import numpy as np
import pyarrow as pa
import pytest

from evalbeam.transforms import arrow, errors, models

MODULE = """
import numpy as np
from sklearn.linear_model import LogisticRegression

rng = np.random.default_rng(0)
X = rng.standard_normal((200, 3))
model = LogisticRegression().fit(X, X[:, 0] + X[:, 1] > 0)

constant = 3
seen = {}


def probability(columns):
    return model.predict_proba(np.column_stack([columns["a"], columns["b"], columns["c"]]))[:, 1]


probability.classes_ = model.classes_


def look(columns):
    seen.clear()
    seen.update(columns)
    return np.zeros(len(next(iter(columns.values()))))


def spoil(columns):
    columns["a"] += 1
    return columns["a"]


def both(columns):
    return {"p": columns["a"], "q": np.stack([columns["a"]] * 2, axis=1)}


def one(columns):
    return {"p": columns["a"]}


def frame(columns):
    import pandas as pd

    return pd.DataFrame({"x": columns["a"]})


def listed(columns):
    return [[float(value)] for value in columns["a"]]


def ragged(columns):
    return [[0.0] * int(value) for value in columns["a"]]


def texts(columns):
    return ["yes"] * len(columns["a"])


def nothing(columns):
    pass


def leaves(columns):
    raise SystemExit(0)


BUFFER = np.zeros(2)


def reuses(columns):
    BUFFER[:] = columns["a"]
    return BUFFER


def wrong(columns):
    return columns["income"]
"""


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """Modules where Python finds them."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "evalbeam_mine.py").write_text(MODULE)
    (folder / "evalbeam_needs.py").write_text("import a_package_that_is_not_there")
    (folder / "evalbeam_raises.py").write_text("raise RuntimeError('no licence found')")
    (folder / "evalbeam_script.py").write_text("import sys; sys.exit(2)")
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(folder))
        yield folder


def spec(function, *inputs, **fields):
    pairs = tuple((name, name) for name in inputs or ("a",))
    module = "" if ":" in function else "evalbeam_mine:"
    return models.ModelSpec(
        "v3", "callable", function=module + function, **{"inputs": pairs, **fields}
    )


def test_names_of_classes_are_an_attribute_of_the_function(examples):
    data = examples(a=[1.0])
    model = models.load(spec("probability", "a", "b", "c"))
    assert model.classes(data) == {"": (False, True)}
    assert models.load(spec("look")).classes(data) == {}
    sys.modules["evalbeam_mine"].look.classes_ = [np.array(["a"]), np.array(["b", "c"])]
    assert models.load(spec("look", "b")).classes(data) == {}


def test_a_scikit_learn_model(examples):
    model = models.load(spec("probability", "a", "b", "c"))
    assert model.projection.columns == ("a", "b", "c")
    assert (model.pid, model.parameters, model.outputs) == (None, None, ("",))
    x = np.random.default_rng(5).standard_normal((20, 3))
    data = examples(a=x[:, 0], b=x[:, 1], c=x[:, 2])
    expected = sys.modules["evalbeam_mine"].model.predict_proba(x)[:, 1]
    np.testing.assert_array_equal(model.predict(data)[""], expected)


def test_columns_arrive_as_the_data_has_them(examples):
    data = {
        "whole": pa.array([1, 2], pa.int64()),
        "small": pa.array([1, 2], pa.uint8()),
        "double": pa.array([0.5, 1.5], pa.float64()),
        "single": pa.array([0.5, 1.5], pa.float32()),
        "truth": pa.array([True, False]),
        "text": pa.array(["Köln", ""]),
        "raw": pa.array([b"\xff", b""]),
        "word": pa.array(["x", "y"]).dictionary_encode(),
        "lists": pa.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], pa.list_(pa.float32())),
        "single_lists": pa.array([[7], [8]], pa.list_(pa.int64())),
    }
    models.load(spec("look", *data)).predict(examples(**data))
    seen = sys.modules["evalbeam_mine"].seen
    assert {name: one.dtype.name for name, one in seen.items()} == {
        "whole": "int64",
        "small": "uint8",
        "double": "float64",
        "single": "float32",
        "truth": "bool",
        "text": "object",
        "raw": "object",
        "word": "object",
        "lists": "float32",
        "single_lists": "int64",
    }
    assert seen["text"].tolist() == ["Köln", ""]
    assert seen["raw"].tolist() == [b"\xff", b""]
    assert seen["word"].tolist() == ["x", "y"]
    assert seen["lists"].tolist() == [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    assert seen["single_lists"].tolist() == [7, 8]


def test_inputs_have_the_names_of_the_config(examples):
    models.load(spec("look", inputs=(("age", "AGE"),))).predict(examples(AGE=[40]))
    assert sys.modules["evalbeam_mine"].seen["age"].tolist() == [40]


def test_rows_without_a_value_cannot_be_scored(examples):
    model = models.load(spec("look"))
    with pytest.raises(arrow.UnscorableRowsError, match="row 1: no value for input 'a'"):
        model.predict(examples(a=[1.0, None]))
    with pytest.raises(errors.JobError, match=r"takes numbers or strings, but the data has date32"):
        model.predict(examples(a=pa.array([1, 2], pa.date32())))


def test_arrays_are_the_functions_own(examples):
    data = examples(a=[1.0, 2.0])
    model = models.load(spec("spoil"))
    for _ in range(2):
        assert model.predict(data)[""].tolist() == [2.0, 3.0]
    assert data.columns.column("a").to_pylist() == [1.0, 2.0]


@pytest.mark.parametrize("function", ["one", "frame", "listed"])
def test_one_output(examples, function):
    predictions = models.load(spec(function)).predict(examples(a=[1, 2]))
    assert list(predictions) == [""]
    assert predictions[""].dtype == np.float64
    assert predictions[""].tolist() == [1.0, 2.0]


def test_several_outputs(examples):
    model = models.load(spec("both", outputs=("q", "p")))
    assert model.outputs == ("q", "p")
    predictions = model.predict(examples(a=[1, 2]))
    assert predictions["q"].tolist() == [[1.0, 1.0], [2.0, 2.0]]
    chosen = models.load(spec("both", outputs=("p",)))
    assert chosen.predict(examples(a=[1, 2]))[""].tolist() == [1.0, 2.0]
    named = models.load(spec("listed", outputs=("score",)))
    assert named.predict(examples(a=[1, 2]))[""].tolist() == [1.0, 2.0]


def test_errors_of_a_function_are_reported_with_their_line(examples):
    model = models.load(spec("wrong"))
    line = MODULE.splitlines().index('    return columns["income"]') + 1
    said = rf"evalbeam_mine:wrong raises KeyError: 'income' \(.*evalbeam_mine.py, line {line}\)"
    with pytest.raises(RuntimeError, match=f"{said}; it was called with 'a'"):
        model.predict(examples(a=[1, 2]))


def test_a_function_that_leaves_the_process_is_one_that_raises(examples):
    with pytest.raises(RuntimeError, match="evalbeam_mine:leaves raises SystemExit: 0"):
        models.load(spec("leaves")).predict(examples(a=[1, 2]))


def test_a_function_may_fill_the_same_array_again(examples):
    model = models.load(spec("reuses"))
    before = model.predict(examples(a=[1, 2]))[""]
    model.predict(examples(a=[3, 4]))
    assert before.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("function", "outputs", "message"),
    [
        ("both", (), r"returns several outputs, 'p', 'q': list those .*`outputs: \[p\]`"),
        ("both", ("r",), "unknown output 'r'; evalbeam_mine:both returns 'p', 'q'"),
        ("listed", ("p", "q"), "returns list, but `outputs` lists 'p', 'q': return a dict with"),
        ("ragged", (), "evalbeam_mine:ragged does not return an array for output ''"),
        ("texts", (), "returns list of <U3 for output ''; only numbers of shape"),
        ("nothing", (), "returns NoneType of object for output ''"),
    ],
)
def test_results_that_are_not_predictions(examples, function, outputs, message):
    model = models.load(spec(function, outputs=outputs))
    with pytest.raises(errors.JobError, match=message):
        model.predict(examples(a=[1, 2]))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("a_module_that_is_not_there:f", "no module 'a_module_.*to PYTHONPATH, here and on every"),
        ("evalbeam_mine.inner:f", "no module 'evalbeam_mine.inner'"),
        ("evalbeam_mine:probabilty", r"\(.*evalbeam_mine.py\) has no .*closest: 'probability'"),
        ("evalbeam_mine:constant", "evalbeam_mine:constant is of type int, not a function"),
        (
            "evalbeam_needs:f",
            "importing 'evalbeam_needs' failed with ModuleNotFoundError: .*a_pack",
        ),
        ("evalbeam_raises:f", "importing .* failed with RuntimeError: no licence found"),
        ("evalbeam_script:f", "importing .* failed with SystemExit: 2"),
        (":f", "':f' is not a function's name; write `module:function`"),
        ("evalbeam_mine:", "is not a function's name"),
    ],
)
def test_functions_that_cannot_be_called_are_rejected(function, message):
    with pytest.raises(errors.ConfigError, match=f"Version 'v3': .*{message}"):
        models.load(spec(function))


def test_inputs_must_be_named():
    with pytest.raises(errors.ConfigError, match=r"has no inputs: .*`inputs: \[age, city\]`"):
        models.load(spec("look", inputs=()))


def test_an_input_that_is_not_in_the_data(examples):
    wrong = spec("look", inputs=(("a", "agee"),))
    with pytest.raises(errors.ConfigError, match=r"input 'a' is mapped to 'agee', which is not"):
        models.check_inputs(wrong, models.load(wrong), examples(age=[1.0]), ())
