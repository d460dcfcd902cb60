"""The whole job, through Beam: its numbers against plain numpy and the worked examples."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn import metrics as sklearn_metrics

from evalbeam.transforms.metrics import table
from evalbeam.transforms.metrics.table import Table
from evalbeam.transforms.sinks import state


def _expand(**counts):
    """Labels and scores that give these confusion counts at the threshold 0.5."""
    kinds = {"tp": (1, 0.9), "fp": (0, 0.8), "fn": (1, 0.2), "tn": (0, 0.1)}
    rows = [kinds[kind] for kind, count in counts.items() for _ in range(count)]
    return pd.DataFrame(rows, columns=["label", "score"])


def _value(run, metric, model="v1", slice="overall", **more):
    frame = pd.read_parquet(run / "metrics.parquet")
    for column, wanted in {"metric": metric, "model": model, "slice": slice, **more}.items():
        frame = frame[frame[column] == wanted]
    assert len(frame) == 1, frame
    return frame["value"].iloc[0]


def _stored(data, *models, **more):
    """A config for stored predictions: (name, column) pairs, the first the baseline."""
    return {
        "data": {"files": data, "label": "label"},
        "models": [
            {"name": name, "predictions": column, "baseline": i == 0}
            for i, (name, column) in enumerate(models)
        ],
        **more,
    }


RATES = ["ExampleCount", "BinaryAccuracy", "Precision", "Recall"]


def test_confusion_matrix_of_a_model(run_job, tmp_path):
    _expand(tp=85, fp=15, fn=10, tn=90).to_csv(tmp_path / "data.csv", index=False)
    run = run_job(_stored("data.csv", ("v1", "score"), metrics=RATES))
    assert _value(run, "example_count") == 200
    assert _value(run, "binary_accuracy") == 0.875
    assert _value(run, "precision") == 0.85
    assert round(_value(run, "recall"), 4) == 0.8947
    matrix = pd.read_parquet(run / "confusion.parquet").set_index(["actual", "predicted"])["count"]
    assert matrix.to_dict() == {(0, 0): 90, (0, 1): 15, (1, 0): 10, (1, 1): 85}


def test_accuracy_paradox(run_job, tmp_path):
    # 98% accuracy with 12% recall: 3 of 25 frauds found among 1,250, with 3 false alarms.
    _expand(tp=3, fn=22, fp=3, tn=1222).to_parquet(tmp_path / "data.parquet")
    run = run_job(_stored("data.parquet", ("v1", "score"), metrics=RATES))
    assert _value(run, "binary_accuracy") == 0.98
    assert _value(run, "recall") == 0.12


def test_a_converted_model_next_to_its_original(run_job, tmp_path):
    # TP 45, FN 5, FP 3, TN 47.
    _expand(tp=45, fn=5, fp=3, tn=47).to_json(tmp_path / "data.jsonl", orient="records", lines=True)
    run = run_job(_stored("data.jsonl", ("v1", "score"), metrics=RATES))
    assert _value(run, "binary_accuracy") == 0.92
    assert _value(run, "precision") == 45 / 48
    assert _value(run, "recall") == 0.9


def test_cat_or_dog(run_job, tmp_path):
    # Rows True Cat 50/10, True Dog 5/35; Cat is class 0.
    pairs = [(0, 0)] * 50 + [(0, 1)] * 10 + [(1, 0)] * 5 + [(1, 1)] * 35
    frame = pd.DataFrame(pairs, columns=["label", "predicted"])
    frame["scores"] = [[0.9, 0.1] if p == 0 else [0.2, 0.8] for p in frame["predicted"]]
    frame.to_parquet(tmp_path / "data.parquet")
    run = run_job(
        _stored(
            "data.parquet",
            ("v1", "scores"),
            task="multiclass",
            metrics=["Precision", "Recall", "F1Score"],
        )
    )
    assert _value(run, "precision", class_id=0) == 50 / 55
    assert _value(run, "recall", class_id=0) == 50 / 60
    assert round(_value(run, "f1_score", class_id=0), 2) == 0.87
    matrix = pd.read_parquet(run / "confusion.parquet").set_index(["actual", "predicted"])["count"]
    assert matrix.to_dict() == {(0, 0): 50, (0, 1): 10, (1, 0): 5, (1, 1): 35}


def test_two_versions_side_by_side(run_job, tmp_path):
    # The same 200 examples: v1 TP 80 FP 20 FN 15 TN 85, v2 TP 85 FP 15 FN 10 TN 90.
    v1 = _expand(tp=80, fn=15, fp=20, tn=85).sort_values("label", kind="stable")
    v2 = _expand(tp=85, fn=10, fp=15, tn=90).sort_values("label", kind="stable")
    frame = pd.DataFrame({"label": v1["label"].values, "s1": v1["score"].values})
    frame["s2"] = v2["score"].values
    frame.to_csv(tmp_path / "data.csv", index=False)
    run = run_job(_stored("data.csv", ("v1", "s1"), ("v2", "s2"), metrics=RATES))
    assert _value(run, "precision", "v1") == 0.80
    assert round(_value(run, "recall", "v1"), 3) == 0.842
    assert _value(run, "precision", "v2") == 0.85
    assert round(_value(run, "recall", "v2"), 3) == 0.895
    comparisons = pd.read_parquet(run / "comparisons.parquet").set_index("metric")
    assert comparisons.loc["precision", "difference"] == 0.85 - 0.80
    assert comparisons.loc["recall", "difference"] == 85 / 95 - 80 / 95
    assert (comparisons["candidate"] == "v2").all()
    assert (comparisons["baseline"] == "v1").all()


@pytest.fixture(scope="module")
def people():
    """10,000 weighted examples with single, multiple and missing slice values."""
    rng = np.random.default_rng(3)
    size = 10_000
    label = (rng.random(size) < 0.3).astype(float)
    tags = [list(rng.choice(["a", "b", "c"], rng.integers(0, 4))) for _ in range(size)]
    country = rng.choice(["de", "fr", None], size, p=[0.5, 0.4, 0.1])
    return pd.DataFrame(
        {
            "id": np.arange(size),
            "label": label,
            "weight": rng.gamma(2.0, 1.0, size),
            "country": country,
            "tags": tags,
            "age": rng.integers(18, 90, size),
            "s1": np.clip(rng.normal(0.35 + 0.2 * label, 0.2), 0.01, 0.99).round(2),
            "s2": np.clip(rng.normal(0.35 + 0.3 * label, 0.2), 0.01, 0.99).astype(np.float32),
        }
    )


def _config(files, **more):
    return _stored(
        files,
        ("v1", "s1"),
        ("v2", "s2"),
        slices=[["country"], ["tags"], ["country", "tags"], {"key": "age", "edges": [30, 60]}],
        metrics=[*RATES, "AUC", "MeanPrediction", "BinaryCrossEntropy", "SymmetricFlipRate"],
        thresholds=[0.3, 0.5],
        **more,
    )


def _compute_plainly(people):
    """The value by (slice, model, metric), computed as plainly as possible."""
    slices = {"overall": np.ones(len(people), bool)}
    for country in ("de", "fr"):
        slices[f"country={country}"] = (people["country"] == country).values
    for tag in "abc":
        has = people["tags"].map(lambda tags, tag=tag: tag in tags).values
        slices[f"tags={tag}"] = has
        for country in ("de", "fr"):
            slices[f"country={country};tags={tag}"] = has & slices[f"country={country}"]
    ages = {"(-inf, 30)": (0, 30), "[30, 60)": (30, 60), "[60, inf)": (60, 200)}
    for name, (low, high) in ages.items():
        slices[f"age={name}"] = ((people["age"] >= low) & (people["age"] < high)).values
    values = {}
    for name, mask in slices.items():
        rows = people[mask]
        y, w = rows["label"].values, rows["weight"].values
        for model, column in (("v1", "s1"), ("v2", "s2")):
            p = rows[column].values.astype(float)
            positive = p > 0.5
            loss = -(y * np.log(p) + (1 - y) * np.log(1 - p))
            values |= {
                (name, model, "example_count"): len(rows),
                (name, model, "binary_accuracy"): w[positive == y].sum() / w.sum(),
                (name, model, "precision"): w[positive & (y == 1)].sum() / w[positive].sum(),
                (name, model, "recall"): w[positive & (y == 1)].sum() / w[y == 1].sum(),
                (name, model, "mean_prediction"): (w * p).sum() / w.sum(),
                (name, model, "binary_crossentropy"): (w * loss).sum() / w.sum(),
                # Buckets of 1e-4 tie scores that differ by less: the rest is exact.
                (name, model, "auc"): sklearn_metrics.roc_auc_score(y, p, sample_weight=w),
            }
        flipped = (rows["s1"].values > 0.5) != (rows["s2"].values > 0.5)
        values[name, "v2", "symmetric_flip_rate"] = w[flipped].sum() / w.sum()
    return values


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_whole_job_equals_plain_numpy(run_job, tmp_path, people, workers, kind):
    for i, part in enumerate(np.array_split(np.arange(len(people)), 3)):
        shard = people.iloc[part]
        if kind == "parquet":
            table = pa.Table.from_pandas(shard, preserve_index=False)
            pq.write_table(table, tmp_path / f"data-{i}.parquet", row_group_size=1000)
        else:
            path = tmp_path / f"data-{i}.jsonl"
            shard.to_json(path, orient="records", lines=True, double_precision=15)
    config = _config(f"data-*.{kind}")
    config["data"] |= {"weight": "weight", "id": "id", "batch_size": 700}
    run = run_job(config, f"--direct_num_workers={workers}")
    frame = pd.read_parquet(run / "metrics.parquet")
    expected = _compute_plainly(people)
    assert set(zip(frame["slice"], frame["model"], frame["metric"], strict=True)) == set(expected)
    for row in frame.itertuples():
        tolerance = 2e-4 if row.metric == "auc" and row.model == "v2" else 1e-12
        value = expected[row.slice, row.model, row.metric]
        assert row.value == pytest.approx(value, rel=tolerance), (row.slice, row.model, row.metric)
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["data"]["eval"]["read"] == manifest["data"]["eval"]["scored"] == len(people)


def test_any_batching_gives_identical_counts(run_job, tmp_path, people):
    people.to_parquet(tmp_path / "data.parquet", row_group_size=2500)
    tables, fingerprints = [], []
    for batch_size, workers in ((10_000, 1), (700, 2), (33, 2)):
        config = _config("data.parquet")
        config["data"] |= {"id": "id", "batch_size": batch_size}
        run = run_job(config, f"--direct_num_workers={workers}")
        saved = state.load(str(run))
        tables.append(
            Table.join([state.read_table(saved.folder, part) for part in saved.index.parts])
        )
        manifest = json.loads((run / "manifest.json").read_text())
        fingerprints.append(manifest["data"]["eval"]["fingerprint"])
    first, *others = tables
    assert len(set(fingerprints)) == 1
    for other in others:
        assert other.slices == first.slices
        for name, sums in first.sums.items():
            assert (other.sums[name].keys == sums.keys).all(), name
            if name.startswith(("examples", "confusion", "histogram", "flips")):
                assert (other.sums[name].high == sums.high).all(), name
                assert other.sums[name].low is None, name
            else:
                np.testing.assert_allclose(other.sums[name].high, sums.high, rtol=1e-12)


def test_every_split_has_results(run_job, tmp_path, people):
    people.iloc[:6000].to_parquet(tmp_path / "train.parquet")
    people.iloc[6000:].to_parquet(tmp_path / "eval.parquet")
    config = _config("eval.parquet")
    config["data"]["splits"] = {"train": "train.parquet"}
    run = run_job(config)
    assert _value(run, "example_count", split="eval") == 4000
    assert _value(run, "example_count", split="train") == 6000


def test_quantiles_cut_slices_of_equal_size(run_job, tmp_path, people):
    people["height"] = np.random.default_rng(5).permutation(len(people)) / 10
    people.to_parquet(tmp_path / "data.parquet", row_group_size=3000)
    config = _stored("data.parquet", ("v1", "s1"), slices=[{"key": "height", "quantiles": 4}])
    run = run_job(config, "--direct_num_workers=2")
    frame = pd.read_parquet(run / "metrics.parquet")
    counts = frame[frame["metric"] == "example_count"].set_index("slice")["value"].drop("overall")
    assert counts.to_list() == [2500] * 4


def test_equal_slice_values_may_be_spelled_differently(run_job, tmp_path):
    for i, ages in enumerate((["1", "2"], ["1.0", "2.5"], ["1", "old"])):
        frame = pd.DataFrame({"label": [0, 1] * 20, "score": 0.7, "age": ages * 20})
        frame.to_csv(tmp_path / f"data-{i}.csv", index=False)
    run = run_job(
        _stored("data-*.csv", ("v1", "score"), slices=[["age"]], metrics=["ExampleCount"]),
        "--direct_num_workers=2",
    )
    counts = pd.read_parquet(run / "metrics.parquet").set_index("slice")["value"].to_dict()
    assert counts == {"overall": 120, "age=1": 60, "age=2": 20, "age=2.5": 20, "age=old": 20}


def test_slice_values_of_csv_are_text_as_written(run_job, tmp_path):
    for i, codes in enumerate((["01000", "true"], ["01000", "K1A"])):
        frame = pd.DataFrame({"label": [0, 1] * 20, "score": 0.7, "code": codes * 20})
        frame.to_csv(tmp_path / f"data-{i}.csv", index=False)
    run = run_job(
        _stored("data-*.csv", ("v1", "score"), slices=[["code"]], metrics=["ExampleCount"])
    )
    counts = pd.read_parquet(run / "metrics.parquet").set_index("slice")["value"].to_dict()
    assert counts == {"overall": 80, "code=01000": 40, "code=true": 20, "code=K1A": 20}


def test_the_same_file_may_be_in_two_splits(run_job, tmp_path):
    _expand(tp=3, fn=2, tn=5).to_csv(tmp_path / "data.csv", index=False)
    config = _stored("data.csv", ("v1", "score"), metrics=RATES)
    config["data"]["splits"] = {"again": "data.csv"}
    run = run_job(config)
    assert _value(run, "recall", split="eval") == _value(run, "recall", split="again") == 0.6


def test_weighted_and_unweighted_metrics_are_distinguished(run_job, tmp_path):
    frame = _expand(tp=3, fn=2, tn=5)
    frame["weight"] = np.arange(10.0)
    frame.to_csv(tmp_path / "data.csv", index=False)
    config = _stored(
        "data.csv",
        ("v1", "score"),
        metrics=["Recall", {"class_name": "Recall", "weighted": False}],
    )
    config["data"]["weight"] = "weight"
    run = run_job(config)
    assert _value(run, "recall", weighted=False) == 3 / 5
    assert _value(run, "recall", weighted=True) == 3 / 10


def test_weights_of_zero_add_no_cells(run_job, tmp_path, monkeypatch):
    """Only pairs of classes that occur have rows, whether sums are in an array or in pairs."""
    rows = {"y": [0, 1, 2], "a": [0.5, 0.2, 0.1], "b": [0.3, 0.6, 0.2], "c": [0.2, 0.2, 0.7]}
    frame = pd.DataFrame(rows | {"w": [1.0, 0.0, 2.0], "s": ["x", "y", "y"]})
    frame["p"] = frame[["a", "b", "c"]].to_numpy().tolist()
    frame.to_parquet(tmp_path / "data.parquet")
    config = {
        "task": "multiclass",
        "data": {"files": "data.parquet", "label": "y", "weight": "w"},
        "models": [{"name": "v1", "predictions": "p"}],
        "slices": [["s"]],
        "metrics": ["ExampleCount"],
    }
    tables = []
    for cells in (1 << 23, 0):
        monkeypatch.setattr(table, "_DENSE_CELLS", cells)
        confusion = pd.read_parquet(run_job(config) / "confusion.parquet")
        tables.append(confusion[["slice", "actual", "predicted", "count"]].to_numpy().tolist())
    assert tables[0] == tables[1]
    assert [row[1:] for row in tables[0] if row[0] == "overall"] == [[0, 0, 1.0], [2, 2, 2.0]]


def test_all_slices_have_metrics_and_the_largest_have_plots(run_job, tmp_path, tfma_messages):
    rng = np.random.default_rng(0)
    size = 4000
    frame = pd.DataFrame({"y": rng.integers(2, size=size), "p": rng.random(size)})
    frame["user"] = [f"u{i}" for i in np.minimum(np.arange(size), 2999)]  # the last has 1,001
    frame.to_parquet(tmp_path / "data.parquet")
    published = run_job(
        {
            "data": {"files": "data.parquet", "label": "y"},
            "models": [{"name": "v1", "predictions": "p"}],
            "slices": [["user"]],
            "metrics": ["ExampleCount", "ConfusionMatrixPlot"],
        }
    )
    notes = json.loads((published / "manifest.json").read_text())["notes"]
    assert "only the 1,000 largest of 3,001 slices have plots; all have metrics" in notes
    assert len(pd.read_parquet(published / "metrics.parquet")) == 3001
    plots = tfma_messages(published / "tfma").plots
    plotted = [message for message in plots if message.plot_keys_and_values]
    assert (len(plots), len(plotted)) == (3001, 1000)
    names = [message.slice_key.single_slice_keys for message in plotted]
    assert any(not keys for keys in names)
    assert any(keys and keys[0].bytes_value == b"u2999" for keys in names)
