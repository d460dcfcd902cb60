"""The whole job beside TFMA: its result files, its EvalConfig, its combiners, its engine."""

import sys

import numpy as np
import pandas as pd
import pytest

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
        if pd.isna(row.threshold)
    }


def tfma_values(run, model):
    """What TFMA's own loader reads, under our slices' names."""
    result = tfma.load_eval_result(str(run / "tfma"), model_name=model)
    found = {}
    for pairs, outputs in result.slicing_metrics:
        name = ";".join(f"{key}={value}" for key, value in pairs) or "overall"
        for metric, value in outputs[""][""].items():
            if not metric.endswith("_diff"):
                found[name, model, metric] = value["doubleValue"]
    return found


def test_tfma_reads_the_numbers_of_the_table(run_job, data):
    run = run_job(job(slices=[["country"]], metrics=[*METRICS, "ConfusionMatrixPlot"]))
    loaded = tfma_values(run, "v1") | tfma_values(run, "v2")
    assert loaded == values(run)
    plots = tfma.load_plots(str(run / "tfma"))
    assert len(list(plots)) == 4


def test_engine_tfma_agrees(run_job, data):
    config = job(slices=[["country"]], metrics=METRICS)
    ours = values(run_job(config))
    run = run_job(config, "--engine", "tfma", "--run-id", "by-tfma")
    theirs = values(run)
    assert theirs.keys() == ours.keys()
    for key, value in ours.items():
        assert theirs[key] == pytest.approx(value, rel=1e-9), key
    assert tfma_values(run, "v2").items() <= theirs.items()


MY_METRIC = """
import apache_beam as beam
import tensorflow_model_analysis as tfma

class _Sum(beam.CombineFn):
    def __init__(self, key):
        self.key = key
    def create_accumulator(self):
        return 0.0
    def add_input(self, total, element):
        return total + float(element.prediction[self.key.model_name].item())
    def merge_accumulators(self, totals):
        return sum(totals)
    def extract_output(self, total):
        return {self.key: total}

def _computations(model_names=("",), name="score_sum", **_):
    keys = [tfma.metrics.MetricKey(name, model_name=m, example_weighted=False) for m in model_names]
    return [
        tfma.metrics.MetricComputation(keys=[k], preprocessors=None, combiner=_Sum(k)) for k in keys
    ]

class ScoreSum(tfma.metrics.Metric):
    def __init__(self, name="score_sum"):
        super().__init__(_computations, name=name)
"""


def test_metrics_without_a_kernel_go_through_tfma(run_job, tmp_path, monkeypatch, data):
    (tmp_path / "score_metrics.py").write_text(MY_METRIC)
    monkeypatch.syspath_prepend(tmp_path)
    metrics = [
        "AUC",
        "SymmetricPredictionDifference",
        {"class_name": "ScoreSum", "module": "score_metrics"},
    ]
    run = run_job(job(slices=[["country"]], metrics=metrics), "--direct_num_workers=2")
    found = values(run)
    for country in ("overall", "de", "fr", "it"):
        rows = data if country == "overall" else data[data["country"] == country]
        name = "overall" if country == "overall" else f"country={country}"
        s1, s2 = (rows[column].astype(float) for column in ("s1", "s2"))
        assert found[name, "v1", "score_sum"] == pytest.approx(s1.sum(), rel=1e-6)
        difference = (2 * (s1 - s2).abs() / (s1 + s2)).mean()
        assert found[name, "v2", "symmetric_prediction_difference"] == pytest.approx(
            difference, rel=1e-6
        )
        assert (name, "v2", "auc") in found
    sys.modules.pop("score_metrics", None)


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


def test_eval_config_is_accepted_as_it_is(run_job, evalbeam, tmp_path, data):
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


def test_unknown_metric_names_the_nearest(evalbeam, tmp_path, data):
    import yaml

    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job(metrics=["Precison"])))
    result = evalbeam("run", "job.yaml")
    assert result.exit_code == 2
    assert "Precison" in result.output
    assert "Did you mean Precision" in result.output


def test_eval_config_with_other_models(evalbeam, tmp_path, data):
    import yaml

    (tmp_path / "eval_config.pbtxt").write_text(EVAL_CONFIG.replace('"v2"', '"v3"'))
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job(eval_config="eval_config.pbtxt")))
    result = evalbeam("run", "job.yaml")
    assert result.exit_code == 2
    assert "its model_specs are 'v1', 'v3'" in result.output
