"""Laws of every kind: what a job relies on, whatever the model is."""

import dataclasses
import importlib.util

import numpy as np
import pytest

from transforms import errors, models

X = np.random.default_rng(11).random((37, 64))

MODULE = """
import numpy as np

weights = np.random.default_rng(0).standard_normal((64, 3))


def predict(columns):
    return columns["image"] @ weights


def single(columns):
    return columns["image"] @ weights[:, :1]
"""
LITE = ("float", "float16", "dynamic", "float_int8", "int8", "uint8", "int16")
KINDS = ["keras", "saved_model", "callable", "stored", "onnx", *LITE]
_NEEDS_ONNX = pytest.mark.skipif(
    not (importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("tf2onnx")),
    reason="needs the extra evalbeam[onnx], and tf2onnx, through which Keras exports",
)
FORMS = [pytest.param(kind, marks=_NEEDS_ONNX if kind == "onnx" else ()) for kind in KINDS]


@pytest.fixture(scope="module")
def specs(digits, tmp_path_factory, to_onnx):
    """By form, a model of images with three outputs a row, and one with a single output."""
    import keras
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("kinds")
    (folder / "evalbeam_kinds.py").write_text(MODULE)
    single = keras.Sequential([keras.Input((64,), name="image"), keras.layers.Dense(1)])
    single.save(folder / "m.keras")
    single.export(str(folder / "saved"), verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved"))
    (folder / "float.tflite").write_bytes(converter.convert())
    to_onnx(single, folder / "m.onnx")

    def make(form, single=False):
        where = folder if single else digits
        if form == "callable":
            name = "single" if single else "predict"
            return models.ModelSpec(
                "v", form, function=f"evalbeam_kinds:{name}", inputs=(("image", "image"),)
            )
        if form == "stored":
            column = "first" if single else "three"
            return models.ModelSpec("v", form, predictions=(("", column),))
        if form in LITE:
            file = where / ("float.tflite" if single else f"{form}.tflite")
            return models.ModelSpec("v", "tflite", str(file))
        files = {"keras": "m.keras", "saved_model": "saved", "onnx": "m.onnx"}
        return models.ModelSpec("v", form, str(where / files[form]))

    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(folder))
        yield make


@pytest.fixture
def data(examples):
    return examples(image=X.tolist(), three=X[:, :3].tolist(), first=X[:, :1].tolist())


@pytest.mark.parametrize("form", FORMS)
def test_any_batching_gives_the_same_predictions_in_the_order_of_the_rows(specs, data, form):
    model = models.load(specs(form))
    whole = model.predict(data)[""]
    assert whole.shape == (37, 3)
    assert whole.dtype in (np.float32, np.float64)
    assert len(np.unique(whole[:, 0])) > 5
    rng = np.random.default_rng(2)
    for pieces in (2, 5, 37):
        rows = np.array_split(rng.permutation(37), pieces)
        for some in rows:
            part = model.predict(data.take(some))[""]
            # The order of a matrix product's sums may follow its size.
            np.testing.assert_allclose(part, whole[some], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", [one for one in FORMS if one.values[0] not in LITE[1:]])
def test_one_value_a_row_is_one_dimension(specs, data, form):
    model = models.load(specs(form, single=True))
    assert model.outputs == ("",)
    assert model.predict(data)[""].shape == (37,)
    assert model.predict(data.take(np.array([4])))[""].shape == (1,)


@pytest.mark.parametrize("form", FORMS)
def test_what_a_model_says_of_itself(specs, form):
    spec = specs(form)
    model = models.load(spec)
    assert model.projection.columns == tuple(one.column for one in model.inputs)
    assert model.outputs == ("",)
    assert model.pid is None
    assert model.parameters is None or model.parameters > 0
    if spec.path:
        assert models.infer_kind(spec.path) == spec.kind


@pytest.mark.parametrize("form", [one for one in FORMS if one.values[0] != "callable"])
def test_an_output_that_it_does_not_have(specs, form):
    wrong = dataclasses.replace(specs(form), outputs=("logits",))
    with pytest.raises(errors.ConfigError, match=r"Version 'v'.*unknown output 'logits'"):
        models.load(wrong)


@pytest.mark.parametrize(
    "form", [one for one in FORMS if one.values[0] not in ("callable", "stored")]
)
def test_a_digest_that_does_not_fit(specs, form):
    wrong = dataclasses.replace(specs(form), sha256="00")
    with pytest.raises(errors.ConfigError, match=r"its SHA-256 is .* and the config says 00"):
        models.load(wrong)
