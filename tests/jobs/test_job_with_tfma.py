"""The whole job compared with TFMA: its result files, EvalConfig, combiners and engine."""

import json
import pathlib
import re
import sys

import numpy as np
import pandas as pd
import pytest
import yaml

tfma = pytest.importorskip("tensorflow_model_analysis")


@pytest.fixture(scope="module")
def people():
    rng = np.random.default_rng(11)
    size = 600
    label = (rng.random(size) < 0.4).astype(float)
    frame = pd.DataFrame({"id": np.arange(size), "label": label})
    frame["country"] = rng.choice(["de", "fr", "it"], size)
    for name, strength in (("s1", 0.1), ("s2", 0.3)):
        score = np.clip(rng.normal(0.35 + strength * label, 0.2), 0.01, 0.99)
        frame[name] = score.astype(np.float32)
    frame["query"] = rng.integers(0, 90, size)
    return frame


@pytest.fixture
def data(people, tmp_path):
    people.iloc[:350].to_parquet(tmp_path / "data-0.parquet")
    people.iloc[350:].to_parquet(tmp_path / "data-1.parquet")
    return people


def job(**more):
    return {
        "data": {"files": "data-*.parquet", "label": "label", "id": "id"},
        "models": [
            {"name": "v1", "predictions": "s1", "baseline": True},
            {"name": "v2", "predictions": "s2"},
        ],
        **more,
    }


METRICS = ["ExampleCount", "BinaryAccuracy", "Precision", "Recall", "AUC", "MeanPrediction"]


def values(run):
    frame = pd.read_parquet(run / "metrics.parquet")
    return {
        (row.slice, row.model, row.metric): row.value
        for row in frame.itertuples()
        if pd.isna(row.threshold) or row.threshold == 0.5
    }


def tfma_values(run, model):
    """The values that TFMA's loader reads, by our slice names."""
    result = tfma.load_eval_result(str(run / "tfma"), model_name=model)
    read = {}
    for pairs, outputs in result.slicing_metrics:
        name = ";".join(f"{key}={value}" for key, value in pairs) or "overall"
        for metric, value in outputs[""][""].items():
            if not metric.endswith("_diff"):
                read[name, model, metric] = value["doubleValue"]
    return read


def test_tfma_reads_the_numbers_of_the_table(run_job, data):
    run = run_job(job(slices=[["country"]], metrics=[*METRICS, "ConfusionMatrixPlot"]))
    loaded = tfma_values(run, "v1") | tfma_values(run, "v2")
    assert loaded == values(run)
    plots = tfma.load_plots(str(run / "tfma"))
    assert len(list(plots)) == 4


def test_engine_tfma_agrees(run_job, data):
    config = job(slices=[["country"]], metrics=METRICS)
    columnar = values(run_job(config))
    run = run_job(config, "--engine", "tfma", "--run-id", "by-tfma")
    by_tfma = values(run)
    assert by_tfma.keys() == columnar.keys()
    for key, value in columnar.items():
        assert by_tfma[key] == pytest.approx(value, rel=1e-9), key
    assert tfma_values(run, "v2").items() <= by_tfma.items()


CROSS_SLICES = """
slicing_specs {}
slicing_specs { feature_keys: "country" }
slicing_specs { feature_keys: ["country", "vip"] }
cross_slicing_specs { baseline_spec {} slicing_specs { feature_keys: "country" } }
cross_slicing_specs { baseline_spec { feature_values { key: "country" value: "de" } } }
metrics_specs {
  model_names: ["v1", "v2"]
  metrics { class_name: "ExampleCount" }
  metrics { class_name: "AUC" }
  metrics { class_name: "Recall" config: '"thresholds": [0.4, 0.6]' }
  metrics { class_name: "ScoreSum" module: "score_metrics" }
}
"""


def cross_slice_values(run):
    """TFMA's differences of slices: (baseline, slice, model, metric, whether of versions)."""
    found = {}
    for message in tfma.load_metrics(str(run / "tfma")):
        if not message.HasField("cross_slice_key"):
            continue
        pair = tuple(
            ";".join(f"{part.column}={part.bytes_value.decode()}" for part in key.single_slice_keys)
            or "overall"
            for key in (
                message.cross_slice_key.baseline_slice_key,
                message.cross_slice_key.comparison_slice_key,
            )
        )
        for entry in message.metric_keys_and_values:
            which = (*pair, entry.key.model_name, entry.key.name, entry.key.is_diff)
            array = entry.value.array_value.float64_values or entry.value.array_value.float32_values
            assert which not in found
            found[which] = list(array) or [entry.value.double_value.value]
    return found


def test_slices_are_compared_with_baseline_slices(
    run_job, rejected, score_metrics, data, tmp_path, assert_rebuilds
):
    rng = np.random.default_rng(1)
    for path in tmp_path.glob("data-*.parquet"):
        frame = pd.read_parquet(path)
        frame["vip"] = np.where(rng.random(len(frame)) < 0.15, "yes", "no")
        frame.to_parquet(path)
    (tmp_path / "cross.pbtxt").write_text(CROSS_SLICES)
    config = job(eval_config="cross.pbtxt")
    runs = [
        run_job(config, "--engine", engine, "--run-id", engine) for engine in ("columnar", "tfma")
    ]
    metrics = pd.read_parquet(runs[0] / "metrics.parquet").astype({"slice": str})
    reported = set(metrics["slice"])
    assert len(reported) == 1 + 3 + 6
    which = ["model", "metric", "threshold"]
    value = metrics.set_index([*which, "slice"])
    for run in runs:
        table = pd.read_parquet(run / "slice_comparisons.parquet")
        table = table.astype({"slice": str, "baseline_slice": str})
        pairs = set(zip(table["baseline_slice"], table["slice"], strict=True))
        countries = {"country=de", "country=fr", "country=it"}
        assert pairs == {
            *(("overall", country) for country in countries),
            *(("country=de", name) for name in reported - {"country=de"}),
        }
        assert set(table["metric"]) == {"example_count", "auc", "recall", "score_sum"}
        for column, name, examples in (
            ("before", "baseline_slice", "baseline_n"),
            ("after", "slice", "n"),
        ):
            rows = value.loc[pd.MultiIndex.from_frame(table[[*which, name]])]
            np.testing.assert_allclose(table[column], rows["value"], rtol=1e-9)
            assert table[examples].tolist() == rows["n"].tolist()
        np.testing.assert_array_equal(table["difference"], table["after"] - table["before"])
    ours, theirs = map(cross_slice_values, runs)
    assert ours.keys() == theirs.keys()
    for key, numbers in ours.items():
        assert numbers == pytest.approx(theirs[key], rel=1e-6, abs=1e-6), key
    assert_rebuilds(runs[0])
    (tmp_path / "cross.pbtxt").write_text(CROSS_SLICES + "options { min_slice_size { value: 40 } }")
    run = run_job(config, "--run-id", "large-slices")
    table = pd.read_parquet(run / "slice_comparisons.parquet").astype({"slice": str})
    assert "country=de;vip=no" in set(table["slice"])
    assert "country=de;vip=yes" not in set(table["slice"])
    assert {pair[1] for pair in cross_slice_values(run)} == set(table["slice"])
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(config))
    message = "TFMA cannot compare slices (cross_slicing_specs) with a min_slice_size, here 40"
    assert message in rejected("run", "job.yaml", "--engine", "tfma")


def test_merged_runs_compare_slices_as_one_run(run_job, evalbeam, data, tmp_path):
    (tmp_path / "cross.pbtxt").write_text(
        'slicing_specs { feature_keys: "country" }'
        'cross_slicing_specs { baseline_spec { feature_keys: "country" } slicing_specs {} }'
    )
    config = job(eval_config="cross.pbtxt")
    whole = run_job(config, "--run-id", "whole")
    for part in ("0", "1"):
        run_job(
            {**config, "data": {**config["data"], "files": f"data-{part}.parquet"}},
            "--run-id",
            f"part-{part}",
        )
    runs = [f"results/runs/part-{part}" for part in ("0", "1")]
    result = evalbeam("merge", *runs, "--output", "merged")
    assert result.exit_code == 0, result.output
    one, other = (
        pd.read_parquet(run / "slice_comparisons.parquet")
        for run in (whole, tmp_path / "merged" / "latest")
    )
    assert set(one["baseline_slice"]) == {"country=de", "country=fr", "country=it"}
    pd.testing.assert_frame_equal(one, other, rtol=1e-12)


MY_METRIC = pathlib.Path(__file__).with_name("score_sum.py").read_text()


@pytest.fixture
def score_metrics(tmp_path, monkeypatch):
    """A module with a user's metric."""
    (tmp_path / "score_metrics.py").write_text(MY_METRIC)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("score_metrics", None)


def test_metrics_without_a_kernel_are_computed_by_tfma(run_job, score_metrics, data):
    metrics = [
        "AUC",
        "SymmetricPredictionDifference",
        {"class_name": "ScoreSum", "module": "score_metrics"},
    ]
    run = run_job(job(slices=[["country"]], metrics=metrics), "--direct_num_workers=2")
    computed = values(run)
    for country in ("overall", "de", "fr", "it"):
        rows = data if country == "overall" else data[data["country"] == country]
        name = "overall" if country == "overall" else f"country={country}"
        s1, s2 = (rows[column].astype(float) for column in ("s1", "s2"))
        assert computed[name, "v1", "score_sum"] == pytest.approx(s1.sum(), rel=1e-6)
        difference = (2 * (s1 - s2).abs() / (s1 + s2)).mean()
        assert computed[name, "v2", "symmetric_prediction_difference"] == pytest.approx(
            difference, rel=1e-6
        )
        assert (name, "v2", "auc") in computed


EVAL_CONFIG_BY_TFMA = """
model_specs { name: "v1" label_key: "label" is_baseline: true }
model_specs { name: "v2" label_key: "label" }
slicing_specs {}
slicing_specs { feature_keys: "country" }
metrics_specs {
  query_key: "query"
  metrics { class_name: "NDCG" config: '"gain_key": "label", "top_k_list": [1, 2]' }
}
metrics_specs {
  metrics { class_name: "ExampleCount" }
  metrics { class_name: "AUC" }
  metrics { class_name: "ScoreSum" module: "score_metrics" }
}
"""


@pytest.fixture
def run_with_tfma(run_job, score_metrics, data, tmp_path):
    """Runs a job in which TFMA computes a metric with a query key and a user's metric."""

    def run(files, engine, run_id="run"):
        (tmp_path / "eval_config.pbtxt").write_text(EVAL_CONFIG_BY_TFMA)
        config = job(eval_config="eval_config.pbtxt")
        config["data"]["files"] = files
        published = run_job(config, "--engine", engine, "--run-id", run_id)
        metrics = {metric for _, _, metric in values(published)}
        assert metrics == {"ndcg", "example_count", "auc", "score_sum"}
        return published

    return run


@pytest.mark.parametrize("engine", ["columnar", "tfma"])
def test_results_computed_by_tfma_are_rebuilt(run_with_tfma, assert_rebuilds, tmp_path, engine):
    run = run_with_tfma("data-*.parquet", engine)
    for path in tmp_path.glob("data-*.parquet"):
        path.unlink()
    assert_rebuilds(run)


def test_metrics_computed_by_tfma_are_not_merged(run_with_tfma, evalbeam, data, tmp_path):
    runs = [run_with_tfma(f"data-{i}.parquet", "columnar", f"run-{i}") for i in (0, 1)]
    result = evalbeam("merge", *runs, "--output", "merged")
    assert result.exit_code == 0, result.output
    merged = tmp_path / "merged" / "latest"
    note = json.loads((merged / "manifest.json").read_text())["notes"][-1]
    # Each with its arguments.
    message = r"not merged, as metrics computed by TFMA are not sums: NDCG .*, ScoreSum .*"
    assert re.fullmatch(message, note)
    assert note in result.output.splitlines()
    computed = values(merged)
    assert {metric for _, _, metric in computed} == {"example_count", "auc"}
    assert computed["overall", "v1", "example_count"] == len(data)
    assert tfma_values(merged, "v2").keys() == {key for key in computed if key[1] == "v2"}


def test_runs_of_engine_tfma_are_not_merged(run_with_tfma, rejected):
    runs = [run_with_tfma(f"data-{i}.parquet", "tfma", f"run-{i}") for i in (0, 1)]
    output = rejected("merge", *runs, "--output", "merged")
    assert "TFMA computed all its metrics (--engine tfma), which cannot be merged" in output
    assert "Run the evaluations without --engine tfma" in output


EVAL_CONFIG = """
model_specs { name: "v1" label_key: "label" is_baseline: true }
model_specs { name: "v2" label_key: "label" }
slicing_specs {}
slicing_specs { feature_keys: "country" }
slicing_specs { feature_values { key: "country" value: "it" } }
metrics_specs {
  metrics { class_name: "Precision" config: '"thresholds": [0.4, 0.6]' }
  metrics { class_name: "AUC"
    threshold { value_threshold { lower_bound { value: 0.5 } } } }
}
"""


def test_an_eval_config_is_accepted_unchanged(run_job, evalbeam, tmp_path, data):
    (tmp_path / "eval_config.pbtxt").write_text(EVAL_CONFIG)
    config = job(eval_config="eval_config.pbtxt")
    del config["data"]["label"]
    del config["models"][0]["baseline"]
    run = run_job(config)
    frame = pd.read_parquet(run / "metrics.parquet")
    assert set(frame["slice"]) == {"overall", "country=de", "country=fr", "country=it"}
    for row in frame[(frame["metric"] == "precision") & (frame["slice"] == "overall")].itertuples():
        positive = data[{"v1": "s1", "v2": "s2"}[row.model]].astype(float) > row.threshold
        assert row.value == data["label"][positive].mean()
    assert set(pd.read_parquet(run / "comparisons.parquet")["baseline"]) == {"v1"}
    stored = (run / "tfma" / "eval_config.json").read_text()
    assert '"isBaseline": true' in stored
    assert '"lowerBound": 0.5' in stored


def test_an_unknown_metric_suggests_a_similar_one(evalbeam, tmp_path, data):
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job(metrics=["Precison"])))
    result = evalbeam("run", "job.yaml")
    assert result.exit_code == 2
    assert "Precison" in result.output
    assert "Did you mean Precision" in result.output


def test_an_eval_config_with_other_models(evalbeam, tmp_path, data):
    (tmp_path / "eval_config.pbtxt").write_text(EVAL_CONFIG.replace('"v2"', '"v3"'))
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job(eval_config="eval_config.pbtxt")))
    result = evalbeam("run", "job.yaml")
    assert result.exit_code == 2
    assert "its model_specs are 'v1', 'v3'" in result.output
