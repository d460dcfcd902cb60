from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from sklearn import metrics
from statsmodels.datasets import randhie

from evalbeam.beam_jobs import config
from evalbeam.beam_jobs.demo import visits
from evalbeam.transforms import errors


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("a folder") / "demo"
    assert visits.prepare(folder) == folder / "demo.yaml"
    return folder


def _records(folder: Path, split: str) -> list[bytes]:
    files = sorted(str(file) for file in (folder / "data").glob(f"{split}-*.tfrecord"))
    return list(tf.data.TFRecordDataset(files).as_numpy_iterator())


def _frame(records: list[bytes]) -> pd.DataFrame:
    def row(record: bytes) -> dict[str, float | int | bytes]:
        features = tf.train.Example.FromString(record).features.feature
        return {k: getattr(v, v.WhichOneof("kind")).value[0] for k, v in features.items()}

    return pd.DataFrame(map(row, records))


@pytest.fixture(scope="module")
def train(folder: Path) -> pd.DataFrame:
    return _frame(_records(folder, "train"))


@pytest.fixture(scope="module")
def evaluated(folder: Path) -> pd.DataFrame:
    """The eval split, with both versions' predictions."""
    records = _records(folder, "eval")
    rows = _frame(records)
    v1 = tf.saved_model.load(str(folder / "models/v1")).signatures["serving_default"]
    v2 = keras.models.load_model(folder / "models/v2.keras")
    inputs = {name: rows[[name]].to_numpy(np.float32) for name in v2.input}
    (v1_output,) = v1(examples=tf.constant(records)).values()
    return rows.assign(
        v1=v1_output.numpy()[:, 0], v2=v2.predict(inputs, batch_size=4096, verbose=0)[:, 0]
    )


def test_both_splits_hold_all_rows_of_the_dataset(
    train: pd.DataFrame, evaluated: pd.DataFrame
) -> None:
    source = randhie.load_pandas().data
    both = pd.concat([train, evaluated])
    assert len(both) == len(source) == 20_190
    assert both["visited"].sum() == (source["mdvis"] > 0).sum()
    for name in (*visits._PLAN, *visits._HEALTH):
        np.testing.assert_allclose(np.sort(both[name]), np.sort(source[name]), rtol=1e-6)
    assert 0.45 < len(train) / len(both) < 0.55
    assert abs(train["visited"].mean() - evaluated["visited"].mean()) < 0.02


def test_no_person_is_in_both_splits(train: pd.DataFrame, evaluated: pd.DataFrame) -> None:
    assert not set(train["person"]) & set(evaluated["person"])


def test_a_person_found_by_equal_rows_has_all_years_of_the_real_person() -> None:
    original = Path(randhie.__file__).parent / "src" / "randhie.csv"
    if not original.exists():
        pytest.skip("this statsmodels does not ship the original data, which has person ids")
    real = pd.read_csv(original)["zper"]
    person = visits._rows()["person"]
    assert person.groupby(real).nunique().max() == 1
    assert 0.85 < person.nunique() / real.nunique() < 1


def test_slices_say_what_the_columns_say(evaluated: pd.DataFrame) -> None:
    assert set(evaluated["health"]) == {b"excellent", b"good", b"fair", b"poor"}
    assert evaluated.groupby("health")[["hlthg", "hlthf", "hlthp"]].mean().to_dict("index") == {
        b"excellent": {"hlthg": 0, "hlthf": 0, "hlthp": 0},
        b"good": {"hlthg": 1, "hlthf": 0, "hlthp": 0},
        b"fair": {"hlthg": 0, "hlthf": 1, "hlthp": 0},
        b"poor": {"hlthg": 0, "hlthf": 0, "hlthp": 1},
    }
    limited = evaluated.groupby("limited")["physlm"]
    assert (limited.min()[b"yes"], limited.max()[b"no"]) == (1, 0)
    assert 0 < limited.min()[b"unknown"] <= limited.max()[b"unknown"] < 1
    plans = evaluated.groupby("plan")
    assert plans["idp"].mean().to_dict() == {b"deductible": 1, b"coinsured": 0, b"free": 0}
    assert plans["lncoins"].max()[b"free"] == 0 < plans["lncoins"].min()[b"coinsured"]


def test_both_versions_predict_and_the_second_is_better(evaluated: pd.DataFrame) -> None:
    predictions = evaluated[["v1", "v2"]].to_numpy()
    assert ((predictions > 0) & (predictions < 1)).all()
    v1, v2 = (metrics.roc_auc_score(evaluated["visited"], evaluated[v]) for v in ("v1", "v2"))
    assert v2 - 0.02 > v1 > 0.58
    # Calibrated in the large: a version that is not would make a poor example.
    np.testing.assert_allclose(predictions.mean(axis=0), evaluated["visited"].mean(), atol=0.03)


def test_the_config_is_valid_and_its_paths_exist(folder: Path) -> None:
    loaded, _ = config.load(folder / "demo.yaml")
    (pattern,) = loaded.data.files
    assert len(list(Path(pattern).parent.glob(Path(pattern).name))) == 4
    assert [(m.name, m.baseline) for m in loaded.models] == [("v1", True), ("v2", False)]
    for model in loaded.models:
        assert model.path is not None
        assert Path(model.path).exists()


def test_the_data_is_the_same_to_the_byte(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def model_alike(*_: object, **__: object) -> keras.Model:
        return keras.models.load_model(folder / "models/v2.keras")

    monkeypatch.setattr(visits, "_fit", model_alike)
    monkeypatch.setattr(visits, "_export", lambda *_: None)
    visits.prepare(tmp_path)
    files = sorted((folder / "data").iterdir())
    assert len(files) == 8
    for file in files:
        assert (tmp_path / "data" / file.name).read_bytes() == file.read_bytes()


def test_without_statsmodels_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "statsmodels.datasets", None)
    with pytest.raises(errors.ConfigError, match="pip install statsmodels"):
        visits.prepare(tmp_path)


def test_results_are_rebuilt_and_merged(folder: Path, rebuild_and_merge) -> None:
    rebuild_and_merge(folder / "demo.yaml")
