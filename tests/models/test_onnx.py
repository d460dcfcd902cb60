import shutil
import sys

import numpy as np
import pytest

from evalbeam.transforms import arrow, errors, models

onnx = pytest.importorskip("onnx", reason="needs the extra evalbeam[onnx]")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra evalbeam[onnx]")

from onnx import helper, numpy_helper  # noqa: E402

from evalbeam.transforms.models import onnx as kind  # noqa: E402

FLOAT, DOUBLE, HALF, TEXT = (
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.STRING,
)
WEIGHTS = np.random.default_rng(0).standard_normal((6, 2)).astype(np.float32)
X = np.random.default_rng(1).random((9, 6)).astype(np.float32)


def spec(path, **fields):
    return models.ModelSpec("v1", "onnx", str(path), **fields)


def tensor(name, dtype, shape):
    return helper.make_tensor_value_info(name, dtype, shape)


def save(path, nodes, takes, gives, constants=(), **more):
    graph = helper.make_graph(nodes, "graph", takes, gives, list(constants))
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=domains, ir_version=9)
    onnx.save(model, path, **more)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with small odd models."""
    folder = tmp_path_factory.mktemp("onnx")
    weights = [
        numpy_helper.from_array(WEIGHTS, "w"),
        numpy_helper.from_array(np.int64([1]), "axis"),
    ]
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    for name, rows, given in (("open", "N", "N"), ("fixed1", 1, 1), ("fixed4", 4, 4)):
        ends = [tensor("x", FLOAT, [rows, 6])], [tensor("y", FLOAT, [given, 2])]
        save(folder / f"{name}.onnx", [product], *ends, weights)
    ends = [tensor("x", FLOAT, ["N", 6])], [tensor("y", FLOAT, ["N", 2])]
    (folder / "beside").mkdir()
    save(
        folder / "beside" / "model.onnx",
        [product],
        *ends,
        weights,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    (folder / "alone.onnx").write_bytes((folder / "beside" / "model.onnx").read_bytes())
    shutil.copytree(folder / "beside", folder / "lacks")
    (folder / "lacks" / "weights.bin").unlink()

    probabilities = tensor("p", FLOAT, ["N", 2])
    maps = helper.make_value_info(
        "maps",
        helper.make_sequence_type_proto(
            helper.make_map_type_proto(
                onnx.TensorProto.INT64, helper.make_tensor_type_proto(FLOAT, [])
            )
        ),
    )
    zipped = helper.make_node(
        "ZipMap", ["p"], ["maps"], domain="ai.onnx.ml", classlabels_int64s=[0, 1]
    )
    label = helper.make_node("ArgMax", ["p"], ["label"], axis=1, keepdims=0)
    labels = tensor("label", onnx.TensorProto.INT64, ["N"])
    save(folder / "zipmap.onnx", [zipped, label], [probabilities], [labels, maps])
    save(folder / "maps.onnx", [zipped], [probabilities], [maps])

    named = helper.make_node(
        "ZipMap", ["p"], ["maps"], domain="ai.onnx.ml", classlabels_strings=["no", "yes"]
    )
    same = helper.make_node("Identity", ["p"], ["q"])
    texts = helper.make_value_info(
        "maps",
        helper.make_sequence_type_proto(
            helper.make_map_type_proto(TEXT, helper.make_tensor_type_proto(FLOAT, []))
        ),
    )
    save(
        folder / "names.onnx", [named, same], [probabilities], [texts, tensor("q", FLOAT, ["N", 2])]
    )
    lists = helper.make_value_info(
        "lists", helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, [None]))
    )
    joined = helper.make_node("ConcatFromSequence", ["lists"], ["y"], axis=0)
    save(folder / "lists.onnx", [joined], [lists], [tensor("y", FLOAT, ["N"])])

    casts = {"double": DOUBLE, "half": HALF, "whole": onnx.TensorProto.INT32, "old": 9}
    save(
        folder / "casts.onnx",
        [helper.make_node("Cast", [f"in_{name}"], [name], to=FLOAT) for name in casts],
        [tensor(f"in_{name}", dtype, ["N"]) for name, dtype in casts.items()],
        [tensor(name, FLOAT, ["N"]) for name in casts],
    )
    save(
        folder / "text.onnx",
        [
            helper.make_node("Identity", ["s"], ["same"]),
            helper.make_node(
                "LabelEncoder",
                ["s"],
                ["code"],
                domain="ai.onnx.ml",
                keys_strings=["Köln", "Rome"],
                values_floats=[1.0, 2.0],
                default_float=-1.0,
            ),
        ],
        [tensor("s", TEXT, ["N"])],
        [tensor("same", TEXT, ["N"]), tensor("code", FLOAT, ["N"])],
    )
    custom = helper.make_node("Secret", ["x"], ["y"], domain="my.ops")
    save(folder / "custom.onnx", [custom], *ends)
    unknown = helper.make_node("Frobnicate", ["x"], ["y"])
    save(folder / "unknown.onnx", [unknown], *ends)
    mixed = [tensor("x", FLOAT, [1, 6]), tensor("z", FLOAT, [3, 6])]
    save(folder / "sizes.onnx", [helper.make_node("Add", ["x", "z"], ["y"])], mixed, ends[1])
    return folder


def test_keras_exports_predict_what_keras_does(digits, examples):
    import keras

    pytest.importorskip("tf2onnx", reason="Keras exports to ONNX through tf2onnx")
    x = np.random.default_rng(3).random((50, 8, 8, 1), dtype=np.float32)
    keras_model = keras.models.load_model(digits / "m.keras")
    model = models.load(spec(digits / "m.onnx"))
    predictions = model.predict(examples(image=x.reshape(50, -1).tolist()))[""]
    assert predictions.dtype == np.float32
    np.testing.assert_allclose(predictions, np.asarray(keras_model(x)), rtol=1e-4, atol=1e-6)
    assert model.parameters == keras_model.count_params()


@pytest.mark.parametrize("name", ["open.onnx", "fixed1.onnx", "fixed4.onnx", "beside"])
def test_any_number_of_rows(made, examples, name):
    assert models.infer_kind(str(made / name)) == "onnx"
    model = models.load(spec(made / name))
    assert model.parameters == WEIGHTS.size
    for rows in (9, 1, 4, 5):
        predictions = model.predict(examples(x=X[:rows].tolist()))[""]
        np.testing.assert_allclose(predictions, X[:rows] @ WEIGHTS, rtol=1e-5, atol=1e-6)


def test_tensors_can_be_chosen_among_other_outputs(made, examples):
    model = models.load(spec(made / "zipmap.onnx", outputs=("label",)))
    assert model.predict(examples(p=[[0.3, 0.7], [0.6, 0.4]]))[""].tolist() == [1.0, 0.0]


def test_names_of_classes_are_those_of_the_converter(made, examples):
    data = examples(p=[[0.5, 0.5]])
    model = models.load(spec(made / "names.onnx", outputs=("q",)))
    assert model.classes(data) == {"": ("no", "yes")}
    assert models.load(spec(made / "open.onnx")).classes(data) == {}


def test_dtypes(made, examples):
    model = models.load(spec(made / "casts.onnx"))
    values = {"double": [1.5, 1e-300], "half": [0.5, 2.0], "whole": [3, -4], "old": [True, False]}
    predictions = model.predict(examples(**{f"in_{name}": one for name, one in values.items()}))
    assert {name: one.tolist() for name, one in predictions.items()} == {
        "double": [1.5, 0.0],
        "half": [0.5, 2.0],
        "whole": [3.0, -4.0],
        "old": [1.0, 0.0],
    }
    assert model.parameters is None


def test_strings_are_utf8(made, examples):
    model = models.load(spec(made / "text.onnx", outputs=("code",)))
    assert model.predict(examples(s=["Rome", "Köln", ""]))[""].tolist() == [2.0, 1.0, -1.0]
    with pytest.raises(arrow.UnscorableRowsError, match=r"row 1: input 's' takes UTF-8") as caught:
        model.predict(examples(s=[b"Rome", b"K\xf6ln", b""]))
    assert list(caught.value.reasons) == [1]


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        (
            "maps",
            {},
            r"'maps' is seq\(map.*not a tensor, and cannot be evaluated. .*'zipmap': False",
        ),
        ("zipmap", {"outputs": ("maps",)}, r"'maps' is seq.*or set `outputs: \[label\]`"),
        ("zipmap", {}, r"'maps' is seq.*'zipmap': False\}`, or set `outputs"),
        ("zipmap", {"outputs": ("lable",)}, "unknown output 'lable'.*Did you mean 'label'"),
        ("text", {}, "output 'same' is string .*Choose among .* with `outputs"),
        ("open", {"inputs": (("z", "x"),)}, "maps 'z', but the model's inputs are 'x'"),
        ("custom", {}, r"ONNX Runtime .* cannot load it: .*my.ops.*ONNX's own operators"),
        ("unknown", {}, r"ONNX Runtime .* cannot load it: .*Frobnicate"),
        ("alone", {}, r"weights in another file, 'weights.bin'. Put both into a separate folder"),
        (
            "beside/model",
            {},
            r"weights in another file, 'weights.bin'. Put both into a separate fold",
        ),
        ("lists", {}, r"input 'lists' is a sequence, seq\(tensor\(float\)\), which columns cannot"),
        ("sizes", {}, r"different numbers of rows: 'x' \[1, 6\], 'z' \[3, 6\]"),
    ],
)
def test_mismatches_are_rejected_at_load(made, name, fields, message):
    with pytest.raises(errors.ConfigError, match=rf"Version 'v1' \(.*{name}.onnx\): .*{message}"):
        models.load(spec(made / f"{name}.onnx", **fields))


def test_a_folder_without_its_weights(made):
    message = r"cannot load it: .*weights.bin.*put their files next to it"
    with pytest.raises(errors.ConfigError, match=message):
        models.load(spec(made / "lacks"))


@pytest.mark.parametrize("where", ["initializer", "constant", "branch", "sparse"])
@pytest.mark.parametrize("location", ["../weights.bin", "weights.bin"])
def test_weights_anywhere_in_the_graph_belong_to_the_folder(tmp_path, where, location):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / location).write_bytes(WEIGHTS.tobytes())
    weights = onnx.TensorProto(name="w", data_type=FLOAT, dims=WEIGHTS.shape)
    if where == "sparse":
        weights.dims[:] = [12]
    weights.external_data.add(key="location", value=location)
    weights.data_location = onnx.TensorProto.EXTERNAL
    nodes, constants = [helper.make_node("MatMul", ["x", "w"], ["y"])], []
    if where == "initializer":
        constants = [weights]
    elif where == "sparse":
        places = numpy_helper.from_array(np.arange(12, dtype=np.int64), "places")
        sparse = helper.make_sparse_tensor(weights, places, [6, 2])
        nodes.insert(0, helper.make_node("Constant", [], ["w"], sparse_value=sparse))
    else:
        nodes.insert(0, helper.make_node("Constant", [], ["w"], value=weights))
    if where == "branch":
        branch = helper.make_graph(nodes, "branch", [], [tensor("y", FLOAT, ["N", 2])])
        always = helper.make_node(
            "Constant", [], ["c"], value=numpy_helper.from_array(np.array(True))
        )
        nodes = [
            always,
            helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch),
        ]
    ends = [tensor("x", FLOAT, ["N", 6])], [tensor("y", FLOAT, ["N", 2])]
    save(folder / "model.onnx", nodes, *ends, constants)
    # ONNX Runtime itself may not take external data everywhere.
    _, files, _ = kind._read_graph(str(folder / "model.onnx"))
    assert files == [location]
    if location.startswith(".."):
        message = r"it has weights in another file, '../weights.bin'. Put both into a separate fold"
        with pytest.raises(errors.ConfigError, match=message):
            models.load(spec(folder))


@pytest.mark.parametrize("name", ["open.onnx", "beside"])
def test_a_file_is_parsed_once_and_before_its_session(made, monkeypatch, name):
    calls = []

    def noted(module, function):
        call = getattr(module, function)

        def note(*arguments, **keywords):
            calls.append(function)
            return call(*arguments, **keywords)

        monkeypatch.setattr(module, function, note)

    noted(onnx, "load_model")
    noted(onnxruntime, "InferenceSession")
    kind.load(spec(made / name), str(made / name))
    assert calls == ["load_model", "InferenceSession"]


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_without_the_extra_the_error_says_how_to_install_it(made, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "evalbeam.transforms.models.onnx", raising=False)
    message = rf"Version 'v1' .*cannot be imported \(.*{package}.*`pip install 'evalbeam\[onnx\]'`"
    with pytest.raises(errors.ConfigError, match=message):
        models.load(spec(made / "open.onnx", outputs=("y",)))
