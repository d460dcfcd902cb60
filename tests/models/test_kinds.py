"""Laws of every kind: what a job relies on, for any model."""

import concurrent.futures
import dataclasses
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from evalbeam.transforms import errors, models
from evalbeam.transforms.models import files as model_files

X = np.random.default_rng(11).random((37, 64))

MODULE = """
import numpy as np

weights = np.random.default_rng(0).standard_normal((64, 3))


def three(columns):
    return columns["image"] @ weights


def single(columns):
    return columns["image"] @ weights[:, :1]


def once(columns):
    return columns["image"].mean(axis=0, keepdims=True)[:, :1]
"""
# SavedModels whose input is a ragged or a sparse tensor.
LISTS = ("ragged", "sparse")
LITE = ("float", "float16", "dynamic", "float_int8", "int8", "uint8", "int16")
KINDS = {
    **{kind: kind for kind in ("keras", "saved_model", "onnx", "tfjs", "callable", "stored")},
    **dict.fromkeys(LISTS, "saved_model"),
    **dict.fromkeys(LITE, "tflite"),
}
_NEEDS_ONNX = pytest.mark.skipif(
    not (importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("tf2onnx")),
    reason="needs the extra evalbeam[onnx], and tf2onnx, through which Keras exports",
)


def forms(*but):
    """All forms but these, for a test to run over."""
    return pytest.mark.parametrize(
        "form",
        [
            pytest.param(form, marks=_NEEDS_ONNX if form == "onnx" else ())
            for form in KINDS
            if form not in but
        ],
    )


def test_every_kind_has_a_form():
    # Preprocessing is no version.
    assert set(KINDS.values()) == set(models.REGISTRY) - {"transform"}


@pytest.fixture(scope="module")
def specs(request, digits, tmp_path_factory, to_onnx):
    """By form, a model of images: `three` outputs a row, a `single` one, `once` for all rows."""
    import keras
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("kinds")
    (folder / "evalbeam_kinds.py").write_text(MODULE)
    image = keras.Input((64,), name="image")
    dense = keras.layers.Dense(1)
    for name, output in (
        ("single", dense(image)),
        ("once", dense(keras.ops.mean(image, axis=0, keepdims=True))),
    ):
        model = keras.Model(image, output)
        (folder / name).mkdir()
        model.save(folder / name / "m.keras")
        model.export(str(folder / name / "saved"), verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / name / "saved"))
        (folder / name / "float.tflite").write_bytes(converter.convert())
        to_onnx(model, folder / name / "m.onnx")

    variable = tf.Variable(np.random.default_rng(0).standard_normal((64, 3)).astype(np.float32))
    takes = {
        "ragged": (tf.RaggedTensorSpec([None, None]), lambda x: x.to_tensor(shape=[None, 64])),
        "sparse": (
            tf.SparseTensorSpec([None, None]),
            lambda x: tf.reshape(tf.sparse.to_dense(x), [-1, 64]),
        ),
    }
    gives = {
        "three": lambda x: x @ variable,
        "single": lambda x: x @ variable[:, :1],
        "once": lambda x: tf.reduce_mean(x, 0, keepdims=True)[:, :1],
    }

    def compose(taken, to_dense, score):
        return tf.function(lambda image: {"p": score(to_dense(image))}, input_signature=[taken])

    for form, (taken, to_dense) in takes.items():
        for name, score in gives.items():
            module = tf.Module()
            module.weights = variable
            module.serve = compose(taken, to_dense, score)
            tf.saved_model.save(module, str(folder / form / name), signatures=module.serve)

    def make(form, model="three"):
        kind = KINDS[form]
        if form in LISTS:
            return models.ModelSpec("v", kind, str(folder / form / model))
        if kind == "callable":
            function, inputs = f"evalbeam_kinds:{model}", (("image", "image"),)
            return models.ModelSpec("v", kind, function=function, inputs=inputs)
        if kind == "stored":
            return models.ModelSpec("v", kind, predictions=(("", (model,)),))
        if kind == "tfjs":
            return models.ModelSpec("v", kind, str(request.getfixturevalue("tfjs_models") / model))
        where = digits if model == "three" else folder / model
        files = {"keras": "m.keras", "saved_model": "saved", "onnx": "m.onnx"}
        return models.ModelSpec("v", kind, str(where / files.get(form, f"{form}.tflite")))

    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(folder))
        yield make


@pytest.fixture
def data(examples):
    return examples(image=X.tolist(), three=X[:, :3].tolist(), single=X[:, :1].tolist())


@forms()
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


@forms(*LITE[1:])
def test_one_value_a_row_is_one_dimension(specs, data, form):
    model = models.load(specs(form, "single"))
    assert model.outputs == ("",)
    assert model.predict(data)[""].shape == (37,)
    assert model.predict(data.take(np.array([4])))[""].shape == (1,)


@forms("stored", *LITE[1:])
def test_a_model_that_does_not_return_one_prediction_per_example(specs, data, form):
    with pytest.raises(
        (errors.ConfigError, errors.JobError), match="must return one prediction per"
    ):
        models.load(specs(form, "once")).predict(data)


@forms()
def test_threads_share_a_model_while_predicting(specs, data, form):
    model = models.load(specs(form))
    rng = np.random.default_rng(4)
    batches = [data.take(rng.integers(0, 37, size)) for size in range(1, 40)]
    expected = [model.predict(one)[""] for one in batches]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda one: model.predict(one)[""], batches))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


@forms()
def test_what_a_model_declares(specs, form):
    spec = specs(form)
    model = models.load(spec)
    assert model.projection.columns == tuple(one.column for one in model.inputs)
    assert model.outputs == ("",)
    assert model.pid != os.getpid()
    assert model.parameters is None or model.parameters > 0
    if spec.path:
        assert models.infer_kind(spec.path) == spec.kind


@forms("callable")
def test_an_output_that_it_does_not_have(specs, form):
    wrong = dataclasses.replace(specs(form), outputs=("logits",))
    with pytest.raises(errors.ConfigError, match=r"Version 'v'.*unknown output 'logits'"):
        models.load(wrong)


@forms("callable", "stored")
def test_a_digest_that_does_not_match(specs, form):
    wrong = dataclasses.replace(specs(form), sha256="00")
    with pytest.raises(
        errors.ConfigError, match=r"its SHA-256 digest is .*, but the config requires 00"
    ):
        models.load(wrong)


@forms("callable", "stored")
def test_a_digest_covers_every_file(specs, form, tmp_path):
    source = pathlib.Path(specs(form).path)
    copy = tmp_path / source.name
    (shutil.copytree if source.is_dir() else shutil.copyfile)(source, copy)
    spec = dataclasses.replace(specs(form), path=str(copy), sha256=model_files.digest(str(copy)))
    models.load(spec)
    for file in map(pathlib.Path, model_files.tree(str(copy))):
        whole = file.read_bytes()
        for place in {0, len(whole) // 2, len(whole) - 1} if whole else ():
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises(errors.ConfigError, match="its SHA-256 digest is "):
                models.load(spec)
        file.write_bytes(whole)
        if copy.is_dir():
            file.rename(file.with_suffix(".other"))
            with pytest.raises(errors.ConfigError, match="its SHA-256 digest is "):
                models.load(spec)
            file.with_suffix(".other").rename(file)


CUT_SHORT = """
import pathlib, sys
from evalbeam.transforms import errors, models
from evalbeam.transforms.models import files

spec = models.ModelSpec("v", *sys.argv[1:])
for file in map(pathlib.Path, files.tree(spec.path)):
    whole = file.read_bytes()
    step = len(whole) // 97 + 1
    for length in sorted({*range(min(64, len(whole))), *range(0, len(whole), step)}):
        file.write_bytes(whole[:length])
        try:
            models.load(spec)
        except errors.ConfigError:
            continue
        raise AssertionError(f"{length} of the {len(whole)} bytes of {file} were loaded")
    file.write_bytes(whole)
models.load(spec)
"""


# A SavedModel runs without its fingerprint, which TensorFlow only logs.
@forms("callable", "stored", "saved_model", *LISTS)
def test_files_cut_short_are_refused_and_the_screen_stays_clean(specs, form, tmp_path):
    """In a separate process, which a crash of the runtime would end."""
    spec = specs(form)
    path = pathlib.Path(spec.path)
    cut = tmp_path / path.name
    (shutil.copytree if path.is_dir() else shutil.copy)(path, cut)
    result = subprocess.run(
        [sys.executable, "-c", CUT_SHORT, spec.kind, str(cut)], capture_output=True, text=True
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
