"""Loading, kinds, digests and the check before launch."""

import concurrent.futures
import os
import shutil
import subprocess
import sys
import threading

import pyarrow as pa
import pytest
from apache_beam.io import localfilesystem

from evalbeam.transforms import errors, models
from evalbeam.transforms.models import files, saved_model


def spec(path, kind="saved_model", **fields):
    return models.ModelSpec("v1", kind, str(path), **fields)


def test_threads_that_ask_at_once_share_one_load(folder, monkeypatch):
    loads, load = [], saved_model.load
    start = threading.Barrier(8)

    def counted(*arguments):
        loads.append(arguments)
        return load(*arguments)

    def ask(_):
        start.wait()
        return models.load(spec(folder / "mean", outputs=("m",)))

    monkeypatch.setattr(saved_model, "load", counted)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(8)))
    assert len(loads) == 1
    assert all(model is found[0] for model in found)


def test_a_model_trained_again_is_loaded_again(folder, tmp_path, examples):
    shutil.copytree(folder / "features", tmp_path / "model")
    assert len(models.load(spec(tmp_path / "model")).projection.columns) == 3
    shutil.rmtree(tmp_path / "model")
    shutil.copytree(folder / "mean", tmp_path / "model", copy_function=shutil.copy)
    assert len(models.load(spec(tmp_path / "model")).projection.columns) == 1


def test_kinds_are_inferred(folder):
    assert models.infer_kind(str(folder / "mean")) == "saved_model"
    assert models.infer_kind(str(folder / "named.keras")) == "keras"
    with pytest.raises(
        errors.ConfigError, match=r"it is a folder with weights.h5; supported: a folder"
    ):
        models.infer_kind(str(folder / "no_model"))
    with pytest.raises(errors.ConfigError, match=r"weights.h5 cannot .* as is: load it with Keras"):
        models.infer_kind(str(folder / "no_model" / "weights.h5"))
    with pytest.raises(errors.ConfigError, match=r"saved_model.pb cannot .*: use its folder"):
        models.infer_kind(str(folder / "mean" / "saved_model.pb"))


def test_files_of_unknown_kind(tmp_path):
    for name in ("forest.joblib", "net.safetensors", "boost.json", "notes.txt"):
        (tmp_path / name).touch()
    for name in ("forest.joblib", "net.safetensors", "boost.json"):
        with pytest.raises(errors.ConfigError, match=r"and set `callable: module:function`"):
            models.infer_kind(str(tmp_path / name))
    with pytest.raises(errors.ConfigError, match=r"it is the file notes.txt; supported: a folder"):
        models.infer_kind(str(tmp_path / "notes.txt"))


def test_unknown_kinds_and_absent_paths(folder):
    with pytest.raises(errors.ConfigError, match=r"unknown model kind 'kers'; .*mean 'keras'"):
        models.load(spec(folder / "mean", "kers"))
    with pytest.raises(
        errors.ConfigError, match=r"Version 'v1' \(.*mena\): .*mena does not exist.*mean .*/mean'"
    ):
        models.load(spec(folder / "mena"))
    with pytest.raises(errors.ConfigError, match="nor does its folder"):
        models.infer_kind(str(folder / "there" / "is" / "none"))


def test_digests_follow_names_and_contents_alone(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "variables").mkdir(parents=True)
        (tmp_path / name / "variables" / "data").write_bytes(b"weights")
        (tmp_path / name / "saved_model.pb").write_bytes(b"graph")
    one = files.digest(str(tmp_path / "one"))
    assert one == "3a258c7965c0f1d7bb1f5b320aa471c5da626f01ce1332b0d2f5429bfc9044a7"
    assert one == files.digest(str(tmp_path / "two") + os.sep)
    (tmp_path / "two" / "variables" / "data").write_bytes(b"other")
    assert one != files.digest(str(tmp_path / "two"))
    (tmp_path / "two" / "variables" / "data").write_bytes(b"weights")
    (tmp_path / "two" / "saved_model.pb").rename(tmp_path / "two" / "renamed.pb")
    assert one != files.digest(str(tmp_path / "two"))
    (tmp_path / "model.keras").write_bytes(b"x")
    shutil.copy(tmp_path / "model.keras", tmp_path / "again.keras")
    assert files.digest(str(tmp_path / "model.keras")) == files.digest(
        str(tmp_path / "again.keras")
    )


def test_a_folder_of_versions_is_not_a_model(tmp_path):
    for number in (1, 2, 10):
        (tmp_path / "serving" / str(number)).mkdir(parents=True)
        (tmp_path / "serving" / str(number) / "saved_model.pb").touch()
    (tmp_path / "serving" / "notes.txt").touch()
    message = (
        r"serving is not a model, but a folder of models \(1, 10, 2\): .*, such as .*serving/10$"
    )
    with pytest.raises(errors.ConfigError, match=message):
        models.infer_kind(f"{tmp_path}/serving")


def test_files_behind_links_are_part_of_a_model(tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "data").write_bytes(b"weights")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "graph").write_bytes(b"graph")
    (tmp_path / "model" / "variables").symlink_to(tmp_path / "weights")
    (tmp_path / "weights" / "round").symlink_to(tmp_path / "weights")
    path = str(tmp_path / "model")
    assert files.size_bytes(path) == len(b"weights" + b"graph")
    before = files.digest(path)
    (tmp_path / "weights" / "data").write_bytes(b"others.")
    assert files.digest(path) != before


class _Remote(localfilesystem.LocalFileSystem):
    """The local disk under another scheme, as Beam finds the filesystems of gs:// and s3://."""

    @classmethod
    def scheme(cls):
        return "remote"

    def match(self, patterns, limits=None):
        return [
            type(found)(
                found.pattern,
                [
                    type(file)("remote://" + file.path, file.size_in_bytes)
                    for file in found.metadata_list
                ],
            )
            for found in super().match(
                [pattern[len("remote://") :] for pattern in patterns], limits
            )
        ]

    def open(self, path, *arguments, **keywords):
        return super().open(path[len("remote://") :], *arguments, **keywords)


def test_remote_models_are_copied(folder, examples):
    remote = f"remote://{folder}/mean"
    assert models.infer_kind(remote) == "saved_model"
    assert files.digest(remote) == files.digest(str(folder / "mean"))
    assert models.load(spec(remote)).predict(examples(age=[2.0]))[""].tolist() == [2.0]
    assert models.infer_kind(f"remote://{folder}/named.keras") == "keras"
    with pytest.raises(errors.ConfigError, match=r"remote://.*nothing does not exist, or this"):
        models.infer_kind(f"remote://{folder}/nothing")


def test_inputs_that_fit_pass(folder, examples):
    named = spec(folder / "named.keras", "keras")
    fitting = examples(age=[1, None], x=[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    models.check_inputs(named, models.load(named), fitting, ())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"agee": [1.0], "x": [[1.0, 2.0, 3.0]]},
            r"input 'age' has no column in the data \(its columns: 'agee', 'x'\). Add "
            r"to this model in the config: `inputs: \{age: <column>\}`",
        ),
        (
            {"age": ["old"], "x": [[1.0, 2.0, 3.0]]},
            "input 'age' takes float32, but the row has 'old'",
        ),
        (
            {"age": [1.0], "x": [[1.0, 2.0]]},
            "no row of the first .* takes 3 values, but the row has 2",
        ),
        ({"age": pa.nulls(1), "x": [[1.0, 2.0, 3.0]]}, "no value for input 'age'"),
    ],
)
def test_inputs_that_do_not_match_are_rejected(folder, examples, data, message):
    named = spec(folder / "named.keras", "keras")
    with pytest.raises(errors.ConfigError, match=rf"Version 'v1' \(.*named.keras\): .*{message}"):
        models.check_inputs(named, models.load(named), examples(**data), ())


def test_mapped_columns_and_serialised_examples_that_are_not_there(folder, examples):
    mapped = spec(folder / "mean", inputs=(("age", "years"),))
    with pytest.raises(errors.ConfigError, match=r"input 'age' is mapped to 'years', which is not"):
        models.check_inputs(mapped, models.load(mapped), examples(age=[1.0]), ())
    text = spec(folder / "text")
    with pytest.raises(errors.ConfigError, match=r"takes serialised tf.Examples.*inputs: \{<model"):
        models.check_inputs(text, models.load(text), examples(text=["a"]), ())


def test_tensorflow_is_not_imported_until_a_model_needs_it():
    program = (
        "import sys; from evalbeam.transforms import models; "
        "models.load(models.ModelSpec('v', 'stored', predictions=(('', ('a',)),))); "
        "models.load(models.ModelSpec('v', 'callable', function='json:loads', "
        "inputs=(('a', 'a'),))); "
        "runtimes = {'tensorflow', 'keras', 'apache_beam', 'ai_edge_litert', 'onnxruntime'}; "
        "assert not runtimes & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
