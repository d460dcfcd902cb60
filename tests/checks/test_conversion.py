"""The conversion check, out of the whole job: labels and stored predictions in, findings out."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn import metrics as sklearn_metrics

from evalbeam.beam_jobs.report import terminal


def _scores(classes, count, certainty=0.8):
    """Scores, float64[N, K], whose largest is the class's."""
    rest = (1 - certainty) / (count - 1)
    return np.where(np.asarray(classes)[:, None] == np.arange(count), certainty, rest)


@pytest.fixture
def judged(run_job, tmp_path):
    """Runs versions of stored predictions; returns their findings by version, and the run."""

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
        found = json.loads((folder / "findings.json").read_text(), parse_constant=_no_constant)
        return {one["converted"]: one for one in found}, folder

    return run


def _no_constant(name):
    raise AssertionError(f"{name} is not JSON")


def _binary(tp, fn, fp, tn):
    """Labels and scores of these counts."""
    label = np.repeat([1, 1, 0, 0], [tp, fn, fp, tn])
    return label, np.repeat([0.9, 0.2, 0.7, 0.1], [tp, fn, fp, tn])


def _values(folder, metric):
    found = pd.read_parquet(folder / "metrics.parquet")
    found = found[(found["metric"] == metric) & (found["slice"] == "overall")]
    return found.set_index("model")["value"]


METRICS = ["ExampleCount", "BinaryAccuracy", "Precision", "Recall"]


def test_the_worked_example(judged):
    """TP 45, FN 5, FP 3, TN 47 of a converted model; by what the original was, what it is worth."""
    label, converted = _binary(45, 5, 3, 47)

    def original(more_found):
        """The same decisions, but so many of the missed positives found."""
        scores = converted.copy()
        scores[np.flatnonzero((label == 1) & (converted < 0.5))[:more_found]] = 0.6
        return scores

    for more, verdict, changed in ((0, "good", 0.0), (1, "worse", 0.01), (3, "bad", 0.03)):
        found, folder = judged(label, {"v1": original(more), "js": converted}, metrics=METRICS)
        assert _values(folder, "binary_accuracy")["js"] == 92 / 100
        assert _values(folder, "precision")["js"] == pytest.approx(45 / 48)
        assert _values(folder, "recall")["js"] == 45 / 50
        assert found["js"]["verdict"] == verdict
        facts = found["js"]["evidence"]
        assert facts["changed"] == pytest.approx(changed, abs=1e-15)
        by_metric = {one["metric"]: one for one in facts["metrics"]}
        recall = (45 + more) / 50
        assert by_metric["recall"]["before"] == pytest.approx(recall)
        assert by_metric["recall"]["relative"] == pytest.approx((0.9 - recall) / recall)
        # One found positive more or less: accuracy moves by 1.08%, recall by 2.17%.
        accuracy = {0: "good", 1: "acceptable", 3: "worse"}[more]
        assert by_metric["binary_accuracy"]["verdict"] == accuracy
        assert by_metric["precision"]["verdict"] == "good"
        assert found["js"]["cause"] is None


def test_bounds_are_configured(judged):
    label, converted = _binary(45, 5, 3, 47)
    _, original = _binary(48, 2, 3, 47)
    bounds = {"good": 0.02, "acceptable": 0.07, "bad": 0.2}
    found, _ = judged(label, {"v1": original, "js": converted}, metrics=METRICS, conversion=bounds)
    assert found["js"]["verdict"] == "acceptable"
    assert found["js"]["evidence"]["bounds"] == bounds
    assert found["js"]["rule"].startswith("js stays within 0.02 (good) or 0.07 (acceptable) of v1")


def test_changes_differences_and_agreement_are_what_numpy_says(judged):
    rng = np.random.default_rng(3)
    label = rng.integers(0, 4, 900)
    before = rng.dirichlet(np.ones(4), 900)
    after = np.clip(
        before + rng.normal(size=(900, 4)) * 10.0 ** rng.integers(-8, 0, (900, 1)), 0, 1
    )
    after[:50] = before[:50]
    kind = rng.choice(["a", "b", "c"], 900)
    found, folder = judged(label, {"v1": before, "lite": after}, {"kind": kind})
    facts = found["lite"]["evidence"]
    one, two = before.argmax(axis=1), after.argmax(axis=1)
    assert facts["examples"] == 900
    assert facts["changed"] == pytest.approx((one != two).mean(), abs=1e-12)
    assert facts["kappa"] == pytest.approx(sklearn_metrics.cohen_kappa_score(one, two), abs=1e-12)
    assert facts["largest_difference"] == np.abs(after - before).max()
    apart = np.abs(after - before).max(axis=1)
    edges = [0, 1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 10, 100]
    up_to = [(apart <= edge).sum() for edge in edges]
    assert list(facts["differences"].values()) == [*np.diff([0, *up_to]), 0]
    assert list(facts["differences"])[:3] == ["up to 0", "up to 1e-06", "up to 1e-05"]
    for c, of_class in enumerate(facts["agreement"]):
        inside = one == c
        assert of_class["class"] == c
        assert of_class["examples"] == inside.sum()
        assert of_class["agreement"] == pytest.approx((two[inside] == c).mean())
    table = pd.read_parquet(folder / "metrics.parquet")
    changed = table[table["metric"] == "changed_decisions"].set_index("slice")["value"]
    for name in "abc":
        inside = kind == name
        assert changed[f"kind={name}"] == pytest.approx((one != two)[inside].mean())


def test_the_slice_hit_worst_and_the_verdicts_of_slices(judged):
    label = np.tile([0, 1], 100)
    before = np.where(label == 1, 0.9, 0.1)
    plan = np.repeat(["free", "paid", "rare"], [100, 90, 10])
    after = before.copy()
    after[:4] = 1 - before[:4]  # 4 of 100
    after[190:] = 1 - before[190:]  # all of 10, which are too few to name
    found, folder = judged(
        label, {"v1": before, "lite": after}, {"plan": plan}, metrics=["BinaryAccuracy"]
    )
    assert found["lite"]["verdict"] == "bad"
    worst = found["lite"]["evidence"]["worst_slice"]
    assert (worst["slice"], worst["examples"], worst["after"]) == ("plan=free", 100, 0.96)
    table = pd.read_parquet(folder / "comparisons.parquet")
    verdicts = table[table["metric"] == "binary_accuracy"].set_index("slice")["verdict"]
    assert verdicts.to_dict() == {
        "overall": "bad",
        "plan=free": "worse",
        "plan=paid": "good",
        "plan=rare": "bad",
    }


def test_the_table_of_comparisons_has_both_values(judged):
    label, before = _binary(45, 5, 3, 47)
    after = before.copy()
    after[:9] = 0.2  # TP 36, FN 14
    metrics = ["Recall", "FalsePositives", "BinaryCrossentropy"]
    _, folder = judged(label, {"v1": before, "lite": after}, metrics=metrics)
    table = pd.read_parquet(folder / "comparisons.parquet").set_index("metric")
    values = ["before", "after", "difference", "relative"]
    assert table.loc["recall", values].tolist() == pytest.approx([0.9, 0.72, -0.18, -0.2])
    loss = table.loc["binary_crossentropy"]
    losses = [sklearn_metrics.log_loss(label, scores) for scores in (before, after)]
    assert [loss["before"], loss["after"]] == pytest.approx(losses, rel=1e-6)
    assert loss["relative"] == pytest.approx(1 - losses[1] / losses[0], rel=1e-5)
    assert table.loc["false_positives", ["before", "after"]].tolist() == [3, 3]
    assert np.isnan(table.loc["false_positives", "relative"])


def test_a_renamed_metric_is_judged_as_what_it_is(judged, capsys):
    label, before = _binary(45, 5, 3, 47)
    plan = np.where(np.arange(100) % 3, "free", "paid")
    metrics = [
        {"class_name": "Recall", "config": {"name": "sensitivity_of_ours"}},
        {"class_name": "AUC", "config": {"name": "ranking"}},
    ]
    versions = {"v1": before, "lite": before * 0.5}
    found, folder = judged(label, versions, {"plan": plan}, metrics=metrics)
    verdicts = {one["metric"]: one["verdict"] for one in found["lite"]["evidence"]["metrics"]}
    assert verdicts == {"sensitivity_of_ours": "bad", "ranking": "good"}
    assert (found["lite"]["verdict"], found["lite"]["cause"]) == ("bad", "scores")
    terminal.show(folder, "here", 1.0)
    worst = capsys.readouterr().out.partition("Worst slices")[2].partition("Conversions")[0]
    assert "sensitivity_of_ours" in worst
    assert "ranking" in worst


def test_by_tfma_a_renamed_metric_is_judged_too(run_job, tmp_path):
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


def test_errors_judge_where_no_rate_of_all_examples_is_defined(judged):
    label = np.linspace(0.0, 1.0, 100)
    before, after = label + 0.1, label + 0.3
    before[0] = after[0] = np.inf  # no correlation over all, but in part b
    metrics = ["MeanAbsolutePercentageError", "SquaredPearsonCorrelation"]
    part = np.repeat(["a", "b"], 50)
    found, folder = judged(label, {"v1": before, "lite": after}, {"part": part}, metrics=metrics)
    table = pd.read_parquet(folder / "comparisons.parquet").set_index(["metric", "slice"])
    assert table.loc[("squared_pearson_correlation", "part=b"), "verdict"] == "good"
    assert found["lite"]["verdict"] == "bad"


def test_a_few_decisions_tell_no_cause(judged):
    found, _ = judged(np.ones(1), {"v1": np.array([0.9]), "lite": np.array([0.2])}, task="binary")
    assert found["lite"]["cause"] is None


@pytest.mark.parametrize("count", [2, 10])
def test_shuffled_classes_are_named(judged, count):
    rng = np.random.default_rng(5)
    label = rng.integers(0, count, 600)
    predicted = np.where(rng.random(600) < 0.95, label, rng.integers(0, count, 600))
    order = np.roll(np.arange(count), 1)
    scores = _scores(predicted, count)
    found, _ = judged(label, {"v1": scores, "js": scores[:, order]}, task="multiclass")
    assert (found["js"]["verdict"], found["js"]["cause"]) == ("bad", "class order")
    text = found["js"]["explanation"]
    assert "1 for 0" in text
    assert "0.0% of its decisions agree, and 100.0% would with them in place" in text


def test_two_exchanged_classes_are_named_and_no_others(judged):
    rng = np.random.default_rng(5)
    label = rng.integers(0, 10, 1000)
    scores = _scores(label, 10)
    order = np.arange(10)
    order[[3, 5]] = 5, 3
    found, _ = judged(label, {"v1": scores, "js": scores[:, order]})
    assert (found["js"]["verdict"], found["js"]["cause"]) == ("bad", "class order")
    assert "(it says 5 for 3, 3 for 5)" in found["js"]["explanation"]


def test_a_binary_score_of_the_other_class_is_named(judged):
    label, scores = _binary(45, 5, 3, 47)
    found, _ = judged(label, {"v1": scores, "js": 1 - scores})
    assert (found["js"]["verdict"], found["js"]["cause"]) == ("bad", "class order")
    assert "(it says 1 for 0, 0 for 1)" in found["js"]["explanation"]


@pytest.mark.parametrize("how", ["random", "constant"])
def test_agreement_near_chance_is_named(judged, how):
    rng = np.random.default_rng(6)
    label = rng.integers(0, 10, 800)
    guesses = rng.integers(0, 10, 800) if how == "random" else np.full(800, 4)
    versions = {"v1": _scores(label, 10), "js": _scores(guesses, 10)}
    found, _ = judged(label, versions, task="multiclass")
    assert (found["js"]["verdict"], found["js"]["cause"]) == ("bad", "preprocessing")
    assert "where chance alone gives 1" in found["js"]["explanation"]


def test_a_bad_conversion_of_neither_kind_is_bad_all_the_same(judged):
    rng = np.random.default_rng(7)
    label = rng.integers(0, 10, 800)
    noisy = np.where(rng.random(800) < 0.85, label, rng.integers(0, 10, 800))
    found, _ = judged(label, {"v1": _scores(label, 10), "js": _scores(noisy, 10)})
    assert (found["js"]["verdict"], found["js"]["cause"]) == ("bad", None)
    assert found["js"]["explanation"].startswith("the cause is not known")


def test_a_regression_is_judged_by_its_errors(judged):
    rng = np.random.default_rng(8)
    label = rng.normal(50, 10, 300)
    before = label + rng.normal(size=300)
    versions = {"v1": before, "same": before * (1 + 1e-7), "off": before + 1.0}
    found, folder = judged(label, versions, task="regression")
    assert found["same"]["verdict"] == "good"
    assert found["off"]["verdict"] == "bad"
    assert found["off"]["cause"] is None
    facts = found["off"]["evidence"]
    assert (facts["changed"], facts["kappa"], facts["agreement"]) == (None, None, [])
    assert facts["largest_difference"] == np.abs(versions["off"] - before).max()
    assert "changed_decisions" not in set(pd.read_parquet(folder / "metrics.parquet")["metric"])


def test_outputs_of_different_tasks_are_judged_each_by_its_own(run_job, tmp_path):
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
    found = json.loads((folder / "findings.json").read_text())
    assert {one["output"]: one["verdict"] for one in found} == {"buys": "good", "spends": "bad"}


def test_scores_without_a_last_softmax_are_named(judged):
    rng = np.random.default_rng(2)
    label = rng.integers(0, 4, 200)
    logits = _scores(label, 4) * 20 - 3
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found, _ = judged(label, {"v1": shares, "js": logits})
    assert (found["js"]["verdict"], found["js"]["cause"]) == ("good", "scores")
    assert "the scores of 200 of 200 examples differ by more than 1" in found["js"]["explanation"]


def test_scores_on_another_scale_are_named(judged):
    rng = np.random.default_rng(3)
    label = rng.integers(0, 2, 400)
    scores = np.clip(0.5 * label + 0.5 * rng.random(400), 0, 1)
    found, _ = judged(label, {"v1": scores, "half": scores / 2})
    assert (found["half"]["verdict"], found["half"]["cause"]) == ("bad", "scores")
    assert "rank the examples as the original's do" in found["half"]["explanation"]


def test_few_changed_decisions_are_no_sign_of_another_input(judged):
    label, scores = np.zeros(2000), np.full(2000, 0.1)
    label[0] = 1
    scores[0] = 0.9
    found, _ = judged(label, {"v1": scores, "js": np.full(2000, 0.1)}, metrics=METRICS)
    assert (found["js"]["verdict"], found["js"]["cause"]) == ("bad", None)
    assert found["js"]["evidence"]["kappa"] == pytest.approx(0)


def test_a_version_with_infinite_scores_is_shown(judged, capsys):
    rng = np.random.default_rng(3)
    label = rng.normal(size=50)
    after = label + 0.1
    after[3] = np.inf
    found, folder = judged(label, {"v1": label + 0.1, "js": after}, task="regression")
    assert found["js"]["verdict"] == "bad"
    assert found["js"]["evidence"]["largest_difference"] is None
    terminal.show(folder, "here", 1.0)
    assert "mean_squared_error 0.0100 -> undefined" in capsys.readouterr().out


def test_without_a_metric_to_judge_by_it_says_so(judged):
    label, scores = _binary(45, 5, 3, 47)
    versions = {"v1": scores, "js": scores, "swapped": 1 - scores}
    found, _ = judged(label, versions, metrics=["ExampleCount"])
    assert (found["js"]["verdict"], found["js"]["cause"]) == ("undecided", None)
    assert "there is no metric to judge it by" in found["js"]["explanation"]
    # But what its decisions show is told.
    assert (found["swapped"]["verdict"], found["swapped"]["cause"]) == ("undecided", "class order")


def test_labels_of_many_are_compared_one_by_one(judged):
    rng = np.random.default_rng(9)
    label = rng.integers(0, 2, (400, 3))
    before = np.clip(label * 0.6 + rng.random((400, 3)) * 0.4, 0, 1)
    after = before.copy()
    flipped = rng.random(400) < 0.1
    after[flipped, 2] = 1 - after[flipped, 2]
    found, _ = judged(label, {"v1": before, "lite": after}, task="multilabel")
    facts = found["lite"]["evidence"]
    different = (before > 0.5) != (after > 0.5)
    assert facts["changed"] == pytest.approx(different.mean())
    agreement = [one["agreement"] for one in facts["agreement"]]
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
    (found,) = json.loads((folder / "findings.json").read_text())
    assert (found["original"], found["verdict"]) == ("new", "good")
    models = json.loads((folder / "manifest.json").read_text())["models"]
    assert [form["version"] for form in models["new"]["forms"]] == ["new", "lite"]
    assert models["new"]["forms"][1]["verdict"] == "good"
    assert models["old"]["measures"] is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"conversion_of": "v"},
            "job.yaml:1: model 'lite', conversion_of: unknown model 'v'; did you mean 'v1'?",
        ),
        ({"conversion_of": "lite"}, "conversions go in a circle: 'lite' of 'lite'"),
        ({"inputs": ["a"]}, "model 'lite' has no inputs: `predictions` are made already"),
        ({"signature": "s"}, "model 'lite' has no model file for `signature` to be of"),
        ({"sha256": "ab" * 32}, "model 'lite' has no model file for `sha256` to be of"),
        ({"path": "m"}, "model 'lite' has `path` and `predictions`: keep one"),
        ({"predictions": None}, "model 'lite' needs one of `path` (a model), `callable` (a functi"),
        ({"sha256": "ab"}, "models.1.sha256"),
    ],
)
def test_mistakes_in_the_config(evalbeam, tmp_path, change, said):
    models = [
        {"name": "v1", "predictions": "a"},
        {"name": "lite", "predictions": "b", "conversion_of": "v1"} | change,
    ]
    config = {"data": {"files": "data.csv", "label": "label"}, "models": models}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(config))
    result = evalbeam("run", "job.yaml")
    assert result.exit_code == 2
    assert said in result.output


def test_conversions_do_not_go_in_circles(evalbeam, tmp_path):
    models = [
        {"name": one, "predictions": one, "conversion_of": other}
        for one, other in ("ab", "bc", "ca")
    ]
    config = {"data": {"files": "data.csv", "label": "label"}, "models": models}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(config))
    result = evalbeam("run", "job.yaml")
    assert result.exit_code == 2
    assert "conversions go in a circle: 'a' of 'b' of 'c' of 'a'" in result.output


def test_bounds_must_ascend(evalbeam, tmp_path):
    config = {
        "data": {"files": "data.csv", "label": "label"},
        "models": [{"name": "v1", "predictions": "a"}],
        "conversion": {"good": 0.03},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(config))
    result = evalbeam("run", "job.yaml")
    assert result.exit_code == 2
    assert (
        "conversion: the bounds must ascend from good over acceptable to bad, not 0.03, 0.02"
        in (result.output)
    )
