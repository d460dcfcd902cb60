"""The conversion check within the whole job, from labels and stored predictions to findings."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn import metrics as sklearn_metrics

from evalbeam.beam_jobs.report import terminal


def _scores(classes, count, certainty=0.8):
    """Scores, float64[N, K], with the largest one for the class."""
    rest = (1 - certainty) / (count - 1)
    return np.where(np.asarray(classes)[:, None] == np.arange(count), certainty, rest)


@pytest.fixture
def run_versions(run_job, tmp_path):
    """Runs versions of stored predictions; returns the findings by version, and the run folder."""

    def run(label, versions, slices=None, **config):
        frame = pd.DataFrame(
            {name: list(values) for name, values in {"label": label, **versions}.items()}
        )
        for name, values in (slices or {}).items():
            frame[name] = values
        for part, rows in enumerate(np.array_split(np.arange(len(frame)), 3)):
            frame.iloc[rows].to_parquet(tmp_path / f"data-{part}.parquet")
        original, *others = versions
        job = {
            "data": {"files": "data-*.parquet", "label": "label", "batch_size": 64},
            "models": [
                {"name": original, "predictions": original},
                *(
                    {"name": name, "predictions": name, "conversion_of": original}
                    for name in others
                ),
            ],
            "slices": [[name] for name in slices or {}],
        }
        folder = run_job(job | config)
        text = (folder / "findings.json").read_text()
        findings = json.loads(text, parse_constant=_reject_constant)
        return {finding["converted"]: finding for finding in findings}, folder

    return run


def _reject_constant(name):
    raise AssertionError(f"{name} is not JSON")


def _binary(tp, fn, fp, tn):
    """Labels and scores with these counts."""
    label = np.repeat([1, 1, 0, 0], [tp, fn, fp, tn])
    return label, np.repeat([0.9, 0.2, 0.7, 0.1], [tp, fn, fp, tn])


def _values(folder, metric):
    frame = pd.read_parquet(folder / "metrics.parquet")
    frame = frame[(frame["metric"] == metric) & (frame["slice"] == "overall")]
    return frame.set_index("model")["value"]


METRICS = ["ExampleCount", "BinaryAccuracy", "Precision", "Recall"]


def test_the_worked_example(run_versions):
    """A conversion with TP 45, FN 5, FP 3, TN 47; the verdict depends on the original."""
    label, converted = _binary(45, 5, 3, 47)

    def make_original(recovered):
        """The same decisions, except for some false negatives that become true positives."""
        scores = converted.copy()
        scores[np.flatnonzero((label == 1) & (converted < 0.5))[:recovered]] = 0.6
        return scores

    for recovered, verdict, changed in ((0, "good", 0.0), (1, "worse", 0.01), (3, "bad", 0.03)):
        versions = {"v1": make_original(recovered), "js": converted}
        findings, folder = run_versions(label, versions, metrics=METRICS)
        assert _values(folder, "binary_accuracy")["js"] == 92 / 100
        assert _values(folder, "precision")["js"] == pytest.approx(45 / 48)
        assert _values(folder, "recall")["js"] == 45 / 50
        assert findings["js"]["verdict"] == verdict
        evidence = findings["js"]["evidence"]
        assert evidence["changed"] == pytest.approx(changed, abs=1e-15)
        by_metric = {change["metric"]: change for change in evidence["metrics"]}
        recall = (45 + recovered) / 50
        assert by_metric["recall"]["before"] == pytest.approx(recall)
        assert by_metric["recall"]["relative"] == pytest.approx((0.9 - recall) / recall)
        # A single true positive more changes accuracy by 1.08%, recall by 2.17%.
        accuracy = {0: "good", 1: "acceptable", 3: "worse"}[recovered]
        assert by_metric["binary_accuracy"]["verdict"] == accuracy
        assert by_metric["precision"]["verdict"] == "good"
        assert findings["js"]["cause"] is None


def test_bounds_can_be_configured(run_versions):
    label, converted = _binary(45, 5, 3, 47)
    _, original = _binary(48, 2, 3, 47)
    bounds = {"good": 0.02, "acceptable": 0.07, "bad": 0.2}
    findings, _ = run_versions(
        label, {"v1": original, "js": converted}, metrics=METRICS, conversion=bounds
    )
    assert findings["js"]["verdict"] == "acceptable"
    assert findings["js"]["evidence"]["bounds"] == bounds
    assert findings["js"]["rule"].startswith(
        "js stays within 0.02 (good) or 0.07 (acceptable) of v1"
    )


def test_changes_differences_and_agreement_match_numpy(run_versions):
    rng = np.random.default_rng(3)
    label = rng.integers(0, 4, 900)
    before = rng.dirichlet(np.ones(4), 900)
    after = np.clip(
        before + rng.normal(size=(900, 4)) * 10.0 ** rng.integers(-8, 0, (900, 1)), 0, 1
    )
    after[:50] = before[:50]
    kind = rng.choice(["a", "b", "c"], 900)
    findings, folder = run_versions(label, {"v1": before, "lite": after}, {"kind": kind})
    evidence = findings["lite"]["evidence"]
    old, new = before.argmax(axis=1), after.argmax(axis=1)
    assert evidence["examples"] == 900
    assert evidence["changed"] == pytest.approx((old != new).mean(), abs=1e-12)
    assert evidence["kappa"] == pytest.approx(
        sklearn_metrics.cohen_kappa_score(old, new), abs=1e-12
    )
    assert evidence["largest_difference"] == np.abs(after - before).max()
    differences = np.abs(after - before).max(axis=1)
    edges = [0, 1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 10, 100]
    up_to = [(differences <= edge).sum() for edge in edges]
    assert list(evidence["differences"].values()) == [*np.diff([0, *up_to]), 0]
    assert list(evidence["differences"])[:3] == ["up to 0", "up to 1e-06", "up to 1e-05"]
    for c, entry in enumerate(evidence["agreement"]):
        inside = old == c
        assert entry["class"] == c
        assert entry["examples"] == inside.sum()
        assert entry["agreement"] == pytest.approx((new[inside] == c).mean())
    table = pd.read_parquet(folder / "metrics.parquet")
    changed = table[table["metric"] == "changed_decisions"].set_index("slice")["value"]
    for name in "abc":
        inside = kind == name
        assert changed[f"kind={name}"] == pytest.approx((old != new)[inside].mean())


def test_the_worst_slice_and_the_verdicts_of_slices(run_versions):
    label = np.tile([0, 1], 100)
    before = np.where(label == 1, 0.9, 0.1)
    plan = np.repeat(["free", "paid", "rare"], [100, 90, 10])
    after = before.copy()
    after[:4] = 1 - before[:4]  # 4 of 100
    after[190:] = 1 - before[190:]  # all of 10, which are too few to report
    findings, folder = run_versions(
        label, {"v1": before, "lite": after}, {"plan": plan}, metrics=["BinaryAccuracy"]
    )
    assert findings["lite"]["verdict"] == "bad"
    worst = findings["lite"]["evidence"]["worst_slice"]
    assert (worst["slice"], worst["examples"], worst["after"]) == ("plan=free", 100, 0.96)
    table = pd.read_parquet(folder / "comparisons.parquet")
    verdicts = table[table["metric"] == "binary_accuracy"].set_index("slice")["verdict"]
    assert verdicts.to_dict() == {
        "overall": "bad",
        "plan=free": "worse",
        "plan=paid": "good",
        "plan=rare": "bad",
    }


def test_comparisons_have_both_values(run_versions):
    label, before = _binary(45, 5, 3, 47)
    after = before.copy()
    after[:9] = 0.2  # TP 36, FN 14
    metrics = ["Recall", "FalsePositives", "BinaryCrossentropy"]
    _, folder = run_versions(label, {"v1": before, "lite": after}, metrics=metrics)
    table = pd.read_parquet(folder / "comparisons.parquet").set_index("metric")
    values = ["before", "after", "difference", "relative"]
    assert table.loc["recall", values].tolist() == pytest.approx([0.9, 0.72, -0.18, -0.2])
    loss = table.loc["binary_crossentropy"]
    losses = [sklearn_metrics.log_loss(label, scores) for scores in (before, after)]
    assert [loss["before"], loss["after"]] == pytest.approx(losses, rel=1e-6)
    assert loss["relative"] == pytest.approx(1 - losses[1] / losses[0], rel=1e-5)
    assert table.loc["false_positives", ["before", "after"]].tolist() == [3, 3]
    assert np.isnan(table.loc["false_positives", "relative"])


def test_a_renamed_metric_is_judged_by_its_class(run_versions, capsys):
    label, before = _binary(45, 5, 3, 47)
    plan = np.where(np.arange(100) % 3, "free", "paid")
    metrics = [
        {"class_name": "Recall", "config": {"name": "sensitivity_of_ours"}},
        {"class_name": "AUC", "config": {"name": "ranking"}},
    ]
    versions = {"v1": before, "lite": before * 0.5}
    findings, folder = run_versions(label, versions, {"plan": plan}, metrics=metrics)
    changes = findings["lite"]["evidence"]["metrics"]
    verdicts = {change["metric"]: change["verdict"] for change in changes}
    assert verdicts == {"sensitivity_of_ours": "bad", "ranking": "good"}
    assert (findings["lite"]["verdict"], findings["lite"]["cause"]) == ("bad", "scores")
    terminal.show(folder, "here", 1.0)
    worst = capsys.readouterr().out.partition("Worst slices")[2].partition("Conversions")[0]
    assert "sensitivity_of_ours" in worst
    assert "ranking" in worst


def test_a_renamed_metric_by_tfma_is_judged_by_its_class(run_job, tmp_path):
    label, before = _binary(45, 5, 3, 47)
    data = {"label": label, "v1": before, "lite": np.where(label, 0.6, before)}
    pd.DataFrame(data).to_csv(tmp_path / "data.csv", index=False)
    metrics = [{"class_name": "MeanSquaredError", "config": {"name": "auc"}}]
    job = {
        "data": {"files": "data.csv", "label": "label"},
        "models": [
            {"name": "v1", "predictions": "v1"},
            {"name": "lite", "predictions": "lite", "conversion_of": "v1"},
        ],
        "metrics": metrics,
    }
    expected = [np.mean((data[name] - label) ** 2) for name in ("v1", "lite")]
    for engine in ("columnar", "tfma"):
        folder = run_job(job, "--engine", engine, "--run-id", engine)
        table = pd.read_parquet(folder / "comparisons.parquet").set_index("metric")
        values = table.loc["auc", ["before", "after", "relative"]].tolist()
        relative = (expected[0] - expected[1]) / expected[0]
        assert values == pytest.approx([*expected, relative], rel=1e-6)
        assert table.loc["auc", "verdict"] == "bad"  # a larger error, by more than 5%


def test_errors_decide_if_no_rate_over_all_examples_is_defined(run_versions):
    label = np.linspace(0.0, 1.0, 100)
    after = label + 1.0
    # The original's scores are all equal, so that their correlation is undefined.
    metrics = ["MeanAbsolutePercentageError", "SquaredPearsonCorrelation"]
    part = np.repeat(["a", "b"], 50)
    findings, folder = run_versions(
        label,
        {"v1": np.full(100, 0.5), "lite": np.where(part == "b", after, 0.5)},
        {"part": part},
        task="regression",
        metrics=metrics,
    )
    table = pd.read_parquet(folder / "comparisons.parquet").set_index(["metric", "slice"])
    assert np.isnan(table.loc[("squared_pearson_correlation", "overall"), "before"])
    assert findings["lite"]["verdict"] == "bad"


def test_few_decisions_do_not_reveal_a_cause(run_versions):
    findings, _ = run_versions(
        np.ones(1), {"v1": np.array([0.9]), "lite": np.array([0.2])}, task="binary"
    )
    assert findings["lite"]["cause"] is None


@pytest.mark.parametrize("count", [2, 10])
def test_shuffled_classes_are_detected(run_versions, count):
    rng = np.random.default_rng(5)
    label = rng.integers(0, count, 600)
    predicted = np.where(rng.random(600) < 0.95, label, rng.integers(0, count, 600))
    order = np.roll(np.arange(count), 1)
    scores = _scores(predicted, count)
    findings, _ = run_versions(label, {"v1": scores, "js": scores[:, order]}, task="multiclass")
    assert (findings["js"]["verdict"], findings["js"]["cause"]) == ("bad", "class order")
    text = findings["js"]["explanation"]
    assert "1 for 0" in text
    assert "0.0% of its decisions agree, and 100.0% would in the original's order" in text


def test_two_exchanged_classes_are_detected_and_no_others(run_versions):
    rng = np.random.default_rng(5)
    label = rng.integers(0, 10, 1000)
    scores = _scores(label, 10)
    order = np.arange(10)
    order[[3, 5]] = 5, 3
    findings, _ = run_versions(label, {"v1": scores, "js": scores[:, order]})
    assert (findings["js"]["verdict"], findings["js"]["cause"]) == ("bad", "class order")
    assert "(it predicts 5 for 3, 3 for 5)" in findings["js"]["explanation"]


def test_a_binary_score_of_the_other_class_is_detected(run_versions):
    label, scores = _binary(45, 5, 3, 47)
    findings, _ = run_versions(label, {"v1": scores, "js": 1 - scores})
    assert (findings["js"]["verdict"], findings["js"]["cause"]) == ("bad", "class order")
    assert "(it predicts 1 for 0, 0 for 1)" in findings["js"]["explanation"]


@pytest.mark.parametrize("how", ["random", "constant"])
def test_agreement_near_chance_is_detected(run_versions, how):
    rng = np.random.default_rng(6)
    label = rng.integers(0, 10, 800)
    guesses = rng.integers(0, 10, 800) if how == "random" else np.full(800, 4)
    versions = {"v1": _scores(label, 10), "js": _scores(guesses, 10)}
    findings, _ = run_versions(label, versions, task="multiclass")
    assert (findings["js"]["verdict"], findings["js"]["cause"]) == ("bad", "preprocessing")
    assert "where chance alone gives 1" in findings["js"]["explanation"]


def test_a_bad_conversion_with_an_unknown_cause(run_versions):
    rng = np.random.default_rng(7)
    label = rng.integers(0, 10, 800)
    noisy = np.where(rng.random(800) < 0.85, label, rng.integers(0, 10, 800))
    findings, _ = run_versions(label, {"v1": _scores(label, 10), "js": _scores(noisy, 10)})
    assert (findings["js"]["verdict"], findings["js"]["cause"]) == ("bad", None)
    assert findings["js"]["explanation"].startswith("the cause is unknown")


def test_a_regression_is_judged_by_its_errors(run_versions):
    rng = np.random.default_rng(8)
    label = rng.normal(50, 10, 300)
    before = label + rng.normal(size=300)
    versions = {"v1": before, "same": before * (1 + 1e-7), "off": before + 1.0}
    findings, folder = run_versions(label, versions, task="regression")
    assert findings["same"]["verdict"] == "good"
    assert findings["off"]["verdict"] == "bad"
    assert findings["off"]["cause"] is None
    evidence = findings["off"]["evidence"]
    assert (evidence["changed"], evidence["kappa"], evidence["agreement"]) == (None, None, [])
    assert evidence["largest_difference"] == np.abs(versions["off"] - before).max()
    assert "changed_decisions" not in set(pd.read_parquet(folder / "metrics.parquet")["metric"])


def test_each_output_is_judged_by_the_metrics_of_its_task(run_job, tmp_path):
    rng = np.random.default_rng(4)
    bought, spent = rng.integers(0, 2, 200), rng.normal(50, 5, 200)
    p, amount = np.where(bought == 1, 0.9, 0.1), spent + rng.normal(size=200)
    pd.DataFrame(
        {"bought": bought, "spent": spent, "p": p, "amount": amount, "broken": 9999 - 50 * amount}
    ).to_parquet(tmp_path / "data.parquet")
    folder = run_job(
        {
            "task": {"buys": "binary", "spends": "regression"},
            "data": {"files": "data.parquet", "label": {"buys": "bought", "spends": "spent"}},
            "models": [
                {"name": "v1", "predictions": {"buys": "p", "spends": "amount"}},
                {
                    "name": "lite",
                    "predictions": {"buys": "p", "spends": "broken"},
                    "conversion_of": "v1",
                },
            ],
        }
    )
    findings = json.loads((folder / "findings.json").read_text())
    assert {finding["output"]: finding["verdict"] for finding in findings} == {
        "buys": "good",
        "spends": "bad",
    }


def test_a_missing_softmax_is_detected(run_versions):
    rng = np.random.default_rng(2)
    label = rng.integers(0, 4, 200)
    logits = _scores(label, 4) * 20 - 3
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    findings, _ = run_versions(label, {"v1": shares, "js": logits})
    assert (findings["js"]["verdict"], findings["js"]["cause"]) == ("good", "scores")
    assert (
        "the scores of 200 of 200 examples differ by more than 1" in findings["js"]["explanation"]
    )


def test_scores_on_another_scale_are_detected(run_versions):
    rng = np.random.default_rng(3)
    label = rng.integers(0, 2, 400)
    scores = np.clip(0.5 * label + 0.5 * rng.random(400), 0, 1)
    findings, _ = run_versions(label, {"v1": scores, "half": scores / 2})
    assert (findings["half"]["verdict"], findings["half"]["cause"]) == ("bad", "scores")
    assert "rank the examples as the original's do" in findings["half"]["explanation"]


def test_few_changed_decisions_do_not_suggest_preprocessing(run_versions):
    label, scores = np.zeros(2000), np.full(2000, 0.1)
    label[0] = 1
    scores[0] = 0.9
    findings, _ = run_versions(label, {"v1": scores, "js": np.full(2000, 0.1)}, metrics=METRICS)
    assert (findings["js"]["verdict"], findings["js"]["cause"]) == ("bad", None)
    assert findings["js"]["evidence"]["kappa"] == pytest.approx(0)


def test_without_a_metric_to_judge_by_the_verdict_is_undecided(run_versions):
    label, scores = _binary(45, 5, 3, 47)
    versions = {"v1": scores, "js": scores, "swapped": 1 - scores}
    findings, _ = run_versions(label, versions, metrics=["ExampleCount"])
    assert (findings["js"]["verdict"], findings["js"]["cause"]) == ("undecided", None)
    assert "there is no metric to judge it by" in findings["js"]["explanation"]
    # The cause is reported nevertheless.
    assert (findings["swapped"]["verdict"], findings["swapped"]["cause"]) == (
        "undecided",
        "class order",
    )


def test_multilabel_outputs_are_compared_by_label(run_versions):
    rng = np.random.default_rng(9)
    label = rng.integers(0, 2, (400, 3))
    before = np.clip(label * 0.6 + rng.random((400, 3)) * 0.4, 0, 1)
    after = before.copy()
    flipped = rng.random(400) < 0.1
    after[flipped, 2] = 1 - after[flipped, 2]
    findings, _ = run_versions(label, {"v1": before, "lite": after}, task="multilabel")
    evidence = findings["lite"]["evidence"]
    different = (before > 0.5) != (after > 0.5)
    assert evidence["changed"] == pytest.approx(different.mean())
    agreement = [entry["agreement"] for entry in evidence["agreement"]]
    assert agreement == pytest.approx((1 - different.mean(axis=0)).tolist())


def test_a_conversion_of_a_version_that_is_not_the_baseline(run_job, tmp_path):
    label, scores = _binary(45, 5, 3, 47)
    frame = pd.DataFrame({"label": label, "old": scores[::-1], "new": scores, "lite": scores})
    frame.to_csv(tmp_path / "data.csv", index=False)
    folder = run_job(
        {
            "data": {"files": "data.csv", "label": "label"},
            "models": [
                {"name": "old", "predictions": "old", "baseline": True},
                {"name": "new", "predictions": "new"},
                {"name": "lite", "predictions": "lite", "conversion_of": "new"},
            ],
            "metrics": METRICS,
        }
    )
    table = pd.read_parquet(folder / "comparisons.parquet")
    table["verdict"] = table["verdict"].astype(object).fillna("none")
    pairs = table.groupby(["baseline", "candidate"], observed=True)["verdict"].agg(set)
    assert pairs.to_dict() == {
        ("old", "new"): {"none"},
        ("old", "lite"): {"none"},
        ("new", "lite"): {"good", "none"},  # a count has no verdict
    }
    (finding,) = json.loads((folder / "findings.json").read_text())
    assert (finding["original"], finding["verdict"]) == ("new", "good")
    models = json.loads((folder / "manifest.json").read_text())["models"]
    assert [form["version"] for form in models["new"]["forms"]] == ["new", "lite"]
    assert models["new"]["forms"][1]["verdict"] == "good"
    assert models["old"]["measures"] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"conversion_of": "v"},
            "models.1.conversion_of: unknown model 'v'; did you mean 'v1'?",
        ),
        ({"conversion_of": "lite"}, "conversions form a cycle: 'lite' of 'lite'"),
        ({"inputs": ["a"]}, "model 'lite' has `predictions`, so `inputs` does not apply"),
        ({"signature": "s"}, "model 'lite' has no `path`, so `signature` does not apply"),
        ({"sha256": "ab" * 32}, "model 'lite' has no `path`, so `sha256` does not apply"),
        ({"path": "m"}, "model 'lite' has `path` and `predictions`: keep one"),
        ({"predictions": None}, "model 'lite' needs one of `path` (a model), `callable` (a functi"),
        ({"sha256": "ab"}, "models.1.sha256"),
    ],
)
def test_mistakes_in_the_config(evalbeam, tmp_path, change, message):
    models = [
        {"name": "v1", "predictions": "a"},
        {"name": "lite", "predictions": "b", "conversion_of": "v1"} | change,
    ]
    config = {"data": {"files": "data.csv", "label": "label"}, "models": models}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(config))
    result = evalbeam("run", "job.yaml")
    assert result.exit_code == 2
    assert message in result.output


def test_cycles_of_conversions_are_rejected(evalbeam, tmp_path):
    models = [
        {"name": name, "predictions": name, "conversion_of": original}
        for name, original in ("ab", "bc", "ca")
    ]
    config = {"data": {"files": "data.csv", "label": "label"}, "models": models}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(config))
    result = evalbeam("run", "job.yaml")
    assert result.exit_code == 2
    assert "conversions form a cycle: 'a' of 'b' of 'c' of 'a'" in result.output


def test_bounds_must_ascend(evalbeam, tmp_path):
    config = {
        "data": {"files": "data.csv", "label": "label"},
        "models": [{"name": "v1", "predictions": "a"}],
        "conversion": {"good": 0.03},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(config))
    result = evalbeam("run", "job.yaml")
    assert result.exit_code == 2
    assert "conversion: the bounds must ascend from good to acceptable to bad, not 0.03, 0.02" in (
        result.output
    )
