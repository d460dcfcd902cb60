"""The digits' demo: data, the forms of its model, and the config that names them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn import datasets

from evalbeam.beam_jobs import check, config
from evalbeam.beam_jobs.demo import digits
from evalbeam.transforms import models
from evalbeam.transforms.models.tfjs import install


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("a folder") / "demo"
    assert digits.prepare(folder) == folder / "digits.yaml"
    return folder


@pytest.fixture(scope="module")
def rows(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "digits/data")


def test_the_images_are_the_datasets(rows: pd.DataFrame) -> None:
    source = datasets.load_digits()
    known = dict(zip(map(np.ndarray.tobytes, source.images), source.target, strict=True))
    for png, digit in zip(rows["image"], rows["digit"], strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(png)))
        assert known[np.round(pixels / 255 * 16).astype(float).tobytes()] == digit
    assert 800 < len(rows) < 1000
    assert set(rows["stroke"]) == {"thin", "medium", "bold"}
    assert rows["stroke"].value_counts().min() > 250


def test_the_config_lists_every_form_that_is_available(folder: Path) -> None:
    loaded, _ = config.load(folder / "digits.yaml")
    kinds = ["saved_model", "keras", "tflite", "tflite-int8", "onnx"]
    if not install.missing():
        kinds.insert(4, "tfjs")
    assert [model.name for model in loaded.models] == kinds
    assert [model.conversion_of for model in loaded.models] == [None] + ["saved_model"] * (
        len(kinds) - 1
    )


def test_all_forms_fit_and_the_job_is_one_of_ten_classes(folder: Path) -> None:
    loaded, _ = config.load(folder / "digits.yaml")
    job = check.check(loaded)
    assert [head.classes for head in job.evaluation.heads] == [10]
    assert {models.load(spec).parameters for spec in job.models} == {1610}


def test_forms_that_lack_a_package_are_skipped_with_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install, "missing", lambda: "Run `npm ci`")
    monkeypatch.setattr(digits, "_missing_for_onnx", lambda: "pip install onnx")
    loaded, _ = config.load(digits.prepare(tmp_path))
    names = [model.name for model in loaded.models]
    assert names == ["saved_model", "keras", "tflite", "tflite-int8"]
    notes = capsys.readouterr().err
    assert "skipping tfjs: Run `npm ci`" in notes
    assert "skipping onnx: pip install onnx" in notes


def test_results_are_rebuilt_and_merged(folder: Path, rebuild_and_merge) -> None:
    rebuild_and_merge(folder / "digits.yaml")
