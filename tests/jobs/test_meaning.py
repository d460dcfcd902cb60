"""Labels, classes and scores as people have them, through the whole job."""

import json
import math
import re

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import special
from sklearn import datasets, linear_model, metrics


def value(run, metric, model="m", slice="overall", **more):
    frame = pd.read_parquet(run / "metrics.parquet")
    for column, wanted in {"metric": metric, "model": model, "slice": slice, **more}.items():
        frame = frame[frame[column] == wanted]
    assert len(frame) == 1, frame
    return frame["value"].iloc[0]


def job(files, label="y", data=(), models=({"name": "m", "predictions": "p"},), **more):
    return {
        "data": {"files": files, "label": label, **dict(data)},
        "models": list(models),
        **more,
    }


@pytest.fixture
def refused(evalbeam, tmp_path):
    """Runs a config, which must be refused; returns what is printed."""

    def run(config, *flags):
        (tmp_path / "job.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        result = evalbeam("run", "job.yaml", *flags)
        assert result.exit_code == 2, f"{result.output}\n{result.exception!r}"
        assert not (tmp_path / "results" / "latest").exists()
        return result.output

    return run


@pytest.fixture
def clicks(tmp_path):
    rng = np.random.default_rng(1)
    x = rng.normal(size=240)
    p = 1 / (1 + np.exp(-x))
    y = (rng.random(240) < p).astype(int)
    frame = pd.DataFrame({"y": y, "p": p, "logit": 3 * x, "percent": 100 * p, "x": x})
    frame["both"] = [[1 - q, q] for q in p]
    return frame


def test_every_version_has_the_scale_it_says(run_job, clicks):
    clicks.drop(columns="both").to_csv("d.csv", index=False)
    models = [
        {"name": "v1", "predictions": "p", "baseline": True},
        {"name": "v2", "predictions": "logit", "scores": "logits"},
        {"name": "v3", "predictions": "percent", "scores": "percent"},
    ]
    run = run_job(job("d.csv", models=models, metrics=["AUC", "BinaryCrossentropy", "Precision"]))
    sigmoid = special.expit(clicks["logit"])
    for version, scores in (("v1", clicks["p"]), ("v2", sigmoid), ("v3", clicks["p"])):
        loss = value(run, "binary_crossentropy", version)
        assert loss == pytest.approx(metrics.log_loss(clicks["y"], scores), rel=1e-5)
        precision = metrics.precision_score(clicks["y"], scores > 0.5)
        assert value(run, "precision", version) == precision
        auc = metrics.roc_auc_score(clicks["y"], scores)
        assert value(run, "auc", version) == pytest.approx(auc, abs=1e-3)


@pytest.mark.parametrize("flags", [(), ("--dry-run",)])
def test_logits_are_not_taken_for_probabilities(refused, clicks, flags):
    clicks.to_parquet("d.parquet")
    models = [{"name": "v1", "predictions": "p"}, {"name": "v2", "predictions": "logit"}]
    output = refused(job("d.parquet", models=models), *flags)
    outside = (~clicks["logit"].between(0, 1)).sum()
    share = f"{outside} of 240 rows ({outside / 240:.1%})"
    assert f"Version 'v2': {share} have scores outside [0, 1]" in output
    assert "`scores: logits` to put them through sigmoid" in output


def test_logits_beyond_the_first_examples_fail_the_run(refused, clicks):
    late = pd.concat([clicks] * 3, ignore_index=True)
    late.loc[700, "p"] = 1.5
    late.to_parquet("d.parquet")
    assert "1 of 720 rows (0.1%) have scores outside [0, 1], from" in refused(job("d.parquet"))


def test_scores_as_they_are(run_job, clicks, evalbeam, tmp_path):
    clicks.to_parquet("d.parquet")
    models = [{"name": "m", "predictions": "logit", "scores": "as_is"}]
    run = run_job(job("d.parquet", models=models, metrics=["BinaryAccuracy"]))
    expected = metrics.accuracy_score(clicks["y"], clicks["logit"] > 0.5)
    assert value(run, "binary_accuracy") == expected
    manifest = json.loads((run / "manifest.json").read_text())
    assert any("taken as they are" in note for note in manifest["notes"])
    assert manifest["models"]["m"]["scores"]["scale"] == "as_is"
    assert manifest["models"]["m"]["scores"]["outputs"][""]["outside"] > 0


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_two_columns_of_a_binary_model(run_job, clicks, form):
    if form == "parquet":
        clicks.to_parquet("d.parquet")
    else:
        clicks.to_json("d.jsonl", orient="records", lines=True)
    models = [{"name": "a", "predictions": "both"}, {"name": "b", "predictions": "p"}]
    run = run_job(job(f"d.{form}", models=models, metrics=["AUC", "Calibration"]))
    auc = metrics.roc_auc_score(clicks["y"], clicks["p"])
    for version in ("a", "b"):
        assert value(run, "auc", version) == pytest.approx(auc, abs=1e-3)
        calibration = clicks["p"].mean() / clicks["y"].mean()
        assert value(run, "calibration", version) == pytest.approx(calibration)


@pytest.mark.parametrize(
    ("names", "found"), [(("no", "yes"), True), ((1, 2), True), ((-1, 1), True), ((2, 4), False)]
)
def test_binary_labels_by_name(run_job, clicks, names, found):
    clicks["y"] = [names[each] for each in clicks["y"]]
    clicks.drop(columns="both").to_csv("d.csv", index=False)
    data = {} if found else {"classes": list(names)}
    run = run_job(job("d.csv", data=data, metrics=["Recall", "BinaryAccuracy"]))
    truth = clicks["y"] == names[1]
    assert value(run, "recall") == metrics.recall_score(truth, clicks["p"] > 0.5)
    run = run_job(job("d.csv", data={**data, "positive": names[0]}, metrics=["Recall"]))
    assert value(run, "recall") == metrics.recall_score(~truth, clicks["p"] > 0.5)


@pytest.fixture(scope="module")
def wine():
    bunch = datasets.load_wine()
    model = linear_model.LogisticRegression(C=0.001, max_iter=1000).fit(bunch.data, bunch.target)
    scores = model.predict_proba(bunch.data)
    frame = pd.DataFrame({"hue": bunch.data[:, 10]})
    frame["cultivar"] = bunch.target_names[bunch.target]
    frame["p"] = list(scores)
    frame[["p0", "p1", "p2"]] = scores
    frame["decision"] = bunch.target_names[scores.argmax(axis=1)]
    frame["logits"] = list(model.decision_function(bunch.data))
    return frame


def expected_recall(wine):
    return metrics.recall_score(wine["cultivar"], wine["decision"], average=None)


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_class_names_are_found_in_the_data(run_job, wine, form):
    # In another order than sorted, and the last class first met after the first examples.
    frame = pd.concat([wine[wine["cultivar"] != "class_2"]] * 3 + [wine], ignore_index=True)
    if form == "parquet":
        frame.to_parquet("d.parquet")
    elif form == "jsonl":
        frame.to_json("d.jsonl", orient="records", lines=True)
    else:
        frame.drop(columns=["p", "logits"]).to_csv("d.csv", index=False)
    models = [{"name": "m", "predictions": ["p0", "p1", "p2"]}]
    run = run_job(job(f"d.{form}", "cultivar", models=models, metrics=["Recall"]))
    for class_id, recall in enumerate(expected_recall(frame)):
        assert value(run, "recall", **{"class": f"class_{class_id}"}) == recall
        assert value(run, "recall", class_id=class_id) == recall
    manifest = json.loads((run / "manifest.json").read_text())
    assert any("'class_0', 'class_1', 'class_2'" in note for note in manifest["notes"])


def test_classes_in_the_order_of_the_scores(run_job, wine):
    names = ["class_2", "class_0", "class_1"]
    wine.assign(p=[each[[2, 0, 1]] for each in wine["p"]]).to_parquet("d.parquet")
    (pd.Series(names)).to_csv("names.txt", index=False, header=False)
    for classes in (names, "names.txt"):
        config = job("d.parquet", "cultivar", data={"classes": classes}, metrics=["Recall"])
        run = run_job(config)
        by_class = [value(run, "recall", **{"class": f"class_{i}"}) for i in range(3)]
        assert by_class == expected_recall(wine).tolist()
    confusion = pd.read_parquet(run / "confusion.parquet")
    matrix = confusion.pivot_table(
        index="actual_class", columns="predicted_class", values="count", fill_value=0, observed=True
    )
    matrix = matrix.rename(index=str, columns=str)
    expected = metrics.confusion_matrix(wine["cultivar"], wine["decision"])
    np.testing.assert_array_equal(matrix.sort_index().sort_index(axis=1), expected)


def test_logits_of_several_classes(run_job, wine):
    wine.to_parquet("d.parquet")
    models = [{"name": "m", "predictions": "logits", "scores": "logits"}]
    config = job("d.parquet", "cultivar", models=models, metrics=["CategoricalCrossentropy"])
    loss = value(run_job(config), "categorical_crossentropy")
    probabilities = special.softmax(np.stack(wine["logits"].to_list()), axis=1)
    assert loss == pytest.approx(metrics.log_loss(wine["cultivar"], probabilities), rel=1e-5)


def test_decisions_without_scores(run_job, refused, wine):
    wine.to_parquet("d.parquet")
    models = [{"name": "m", "predictions": "decision"}]
    output = refused(job("d.parquet", "cultivar", models=models, metrics=["Recall", "AUC"]))
    assert "metrics: AUC needs scores, but the predictions of version 'm' are classes" in output
    run = run_job(job("d.parquet", "cultivar", models=models))
    for class_id, recall in enumerate(expected_recall(wine)):
        assert value(run, "recall", class_id=class_id) == recall


def test_lists_of_the_largest_scores(run_job, wine):
    names = np.array(["class_0", "class_1", "class_2"])
    scores = np.stack(wine["p"].to_list())
    top = np.argsort(-scores, axis=1)[:, :2]
    wine.assign(
        items=[names[row].tolist() for row in top],
        p=[scores[i, row].tolist() for i, row in enumerate(top)],
    ).to_parquet("d.parquet")
    models = [{"name": "m", "predictions": "p", "classes": "items"}]
    run = run_job(job("d.parquet", "cultivar", models=models, metrics=["Recall"]))
    for class_id, recall in enumerate(expected_recall(wine)):
        assert value(run, "recall", class_id=class_id) == recall


def test_labels_that_are_not_among_the_classes(run_job, refused, wine):
    wine = wine.assign(cultivar=wine["cultivar"].where(wine.index != 7, "mead"))
    wine.to_parquet("d.parquet")
    data = {"classes": ["class_0", "class_1", "class_2"]}
    output = refused(job("d.parquet", "cultivar", data=data))
    assert "'mead', which is none of the classes 'class_0', 'class_1', 'class_2'" in output
    data["unknown_class"] = "other"
    run = run_job(job("d.parquet", "cultivar", data=data, metrics=["Recall"]))
    assert value(run, "recall", **{"class": "other"}) == 0
    confusion = pd.read_parquet(run / "confusion.parquet")
    assert confusion[confusion["actual_class"] == "other"]["count"].sum() == 1


def test_one_odd_label_is_named(refused, clicks):
    clicks.loc[50, "y"] = -1
    clicks.to_parquet("d.parquet")
    output = refused(job("d.parquet"))
    assert "label column 'y' is -1.0; binary labels are in [0, 1]" in output
    assert "task inferred: binary" in output


def test_an_infinite_score_is_a_dead_letter(run_job, clicks):
    clicks.loc[50, "p"] = np.inf
    clicks.to_parquet("d.parquet")
    run = run_job(job("d.parquet", data={"max_dead_letters": 0.01}))
    assert value(run, "example_count") == 239
    letter = json.loads((run / "dead_letter" / "rows.jsonl").read_text())
    assert letter["reason"] == "version 'm': the prediction is infinite"


def test_lists_of_class_names_are_multilabel(run_job, tmp_path):
    rows = [
        {"y": ["cat"], "p": [0.9, 0.2]},
        {"y": ["cat", "dog"], "p": [0.8, 0.1]},
        {"y": [], "p": [0.7, 0.3]},
        {"y": ["dog"], "p": [0.1, 0.6]},
    ]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = run_job(job("d.jsonl", data={"classes": ["cat", "dog"]}, metrics=["BinaryAccuracy"]))
    assert value(run, "binary_accuracy") == 6 / 8


def test_the_rule_of_decisions_is_in_every_row(run_job, evalbeam):
    wine = datasets.load_wine()
    features, labels = wine.data[:, [0, 9]], wine.target
    model = linear_model.LogisticRegression(max_iter=500).fit(features[::3], labels[::3])
    scores = model.predict_proba(features)
    pd.DataFrame({"y": labels, "p": list(scores)}).to_parquet("d.parquet")
    binarized = {
        "class_name": "F1Score",
        "config": {"name": "f1_binarized"},
        "binarize": {"class_ids": [0, 1, 2]},
        "aggregate": {"average": "macro"},
    }
    listed = ["F1Score", binarized, {"class_name": "TopKCategoricalAccuracy", "config": {"k": 2}}]
    run = run_job(job("d.parquet", metrics=listed))
    decided = metrics.f1_score(labels, scores.argmax(axis=1), average="macro")
    assert value(run, "f1_score", aggregation="macro", decision="argmax") == pytest.approx(decided)
    split = [metrics.f1_score(labels == c, scores[:, c] > 0.5) for c in range(3)]
    rule = {"decision": "threshold", "threshold": 0.5}
    assert value(run, "f1_binarized", aggregation="macro", **rule) == pytest.approx(np.mean(split))
    for c in range(3):
        assert value(run, "f1_binarized", class_id=c, **rule) == pytest.approx(split[c])
    top = metrics.top_k_accuracy_score(labels, scores, k=2)
    assert value(run, "top_k_categorical_accuracy", decision="top 2") == pytest.approx(top)
    printed = evalbeam("results", run).stdout
    assert "f1_score (macro, argmax)" in printed
    assert "f1_binarized (class 0, at 0.5)" in printed


def test_two_rules_under_one_name_are_refused(refused, tmp_path):
    frame = pd.DataFrame({"y": [0, 1, 2] * 5, "p": [[0.2, 0.3, 0.5]] * 15})
    frame.to_parquet(tmp_path / "d.parquet")
    listed = ["F1Score", {"class_name": "F1Score", "binarize": {"class_ids": [0]}}]
    assert "are both named 'f1_score'" in refused(job("d.parquet", metrics=listed))
    macro = {"average": "macro"}
    for settings, message in (
        (
            ({"zero_division": 0}, {"zero_division": "nan"}),
            "Recall (zero_division: 0) and Recall (as it is) are both named 'recall'",
        ),
        (
            ({"aggregate": macro}, {"aggregate": {**macro, "class_weights": {0: 1, 1: 5}}}),
            "class_weights: (0, 1.0), (1, 5.0); zero_division: skip) are both named 'recall'",
        ),
    ):
        listed = [{"class_name": "Recall", **more} for more in settings]
        assert message in refused(job("d.parquet", metrics=listed))


@pytest.mark.parametrize("zero_division", ["skip", 0, "nan"])
def test_a_macro_average_says_how_many_classes_it_is_over(run_job, evalbeam, zero_division):
    labels, decided = [0, 0, 1, 1, 2, 3], [0, 0, 0, 1, 1, 1]  # 2 and 3 are never predicted
    scores = np.eye(4)[decided].tolist()
    pd.DataFrame({"y": labels, "p": scores}).to_parquet("d.parquet")
    listed = [{"class_name": "Precision", "zero_division": zero_division}]
    run = run_job(job("d.parquet", metrics=listed))
    average = {"skip": "macro", 0: "macro", "nan": "macro"}[zero_division]
    undefined = np.nan if zero_division in ("skip", "nan") else 0
    right = metrics.precision_score(
        *(labels, decided), average=None if zero_division == "skip" else average,
        zero_division=undefined,
    )  # fmt: skip
    right = np.nanmean(right) if zero_division == "skip" else right
    if zero_division == "nan":
        right = np.nan  # scikit-learn's nan leaves classes out
    assert value(run, "precision", aggregation="macro") == pytest.approx(right, nan_ok=True)
    frame = pd.read_parquet(run / "metrics.parquet")
    averaged = frame[frame["aggregation"] == "macro"]
    assert averaged["classes"].tolist() == [2 if zero_division == "skip" else 4]
    assert frame[frame["aggregation"] == ""]["classes"].isna().all()
    assert ("(of 2 classes)" in evalbeam("results", run).stdout) == (zero_division == "skip")


def test_many_classes_show_averages_then_the_worst_of_them(run_job, evalbeam):
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 100, 2000)
    right = np.where(labels == 7, 0.0, 0.9)
    decided = np.where(rng.random(2000) < right, labels, (labels + 1) % 100)
    pd.DataFrame({"y": labels, "p": np.eye(100)[decided].tolist()}).to_parquet("d.parquet")
    run = run_job(job("d.parquet"))
    lines = evalbeam("results", run).stdout.splitlines()
    first = {name: next(i for i, line in enumerate(lines) if name in line) for name in (
        "categorical_accuracy", "precision (macro)", "f1_score (macro)", "Worst classes of 100",
        "all are in metrics.parquet",
    )}  # fmt: skip
    assert list(first.values()) == sorted(first.values())
    (worst,) = (line for line in lines if line.lstrip().startswith("recall ") and "class" in line)
    assert worst.split() == ["recall", "class", "7", str((labels == 7).sum()), "0.0000"]
    assert len(lines) < 60


def test_metrics_by_other_names(run_job, evalbeam, tmp_path):
    scores = np.eye(3)[[0, 1, 2, 1]] * 0.7 + 0.1
    pd.DataFrame({"y": [0, 1, 2, 0], "p": scores.tolist()}).to_parquet("d.parquet")
    run = run_job(job("d.parquet", metrics=["accuracy", "log_loss", "cohen_kappa_score"]))
    notes = json.loads((run / "manifest.json").read_text())["notes"]
    assert "metric 'accuracy' is 'CategoricalAccuracy'" in notes
    assert value(run, "categorical_accuracy") == 0.75
    assert value(run, "cohen_kappa") == pytest.approx(
        metrics.cohen_kappa_score([0, 1, 2, 0], [0, 1, 2, 1])
    )


def test_a_name_that_is_a_metric_of_another_task(refused, tmp_path):
    pd.DataFrame({"y": [0.5, 3.0, 2.0], "p": [1.0, 2.0, 3.0]}).to_parquet(tmp_path / "d.parquet")
    output = refused(job("d.parquet", metrics=["accuracy"]))
    assert "'accuracy' is no metric of task 'regression'" in output


def test_metrics_are_listed_and_explained(evalbeam):
    listed = evalbeam("metrics").stdout
    assert "ExpectedCalibrationError" in listed
    assert "NDCG (by TFMA)" in listed
    explained = evalbeam("metrics", "average_precision").stdout
    assert explained.startswith("AUCPrecisionRecall: the area under the precision-recall curve")
    assert "scikit-learn's average precision is a step function" in explained
    failed = evalbeam("metrics", "Presision")
    assert failed.exit_code == 2
    assert "Did you mean Precision" in failed.output


def test_auc_of_several_classes_is_of_each_against_the_rest(run_job):
    rng = np.random.default_rng(6)
    labels, scores = rng.integers(0, 3, 200), rng.dirichlet(np.ones(3), 200)
    scores = (scores + np.eye(3)[labels]) / 2
    pd.DataFrame({"y": labels, "p": scores.tolist()}).to_parquet("d.parquet")
    together = {
        "class_name": "AUC",
        "config": {"name": "auc_together"},
        "aggregate": {"average": "micro"},
    }
    run = run_job(job("d.parquet", metrics=["AUC", together]))
    right = metrics.roc_auc_score(labels, scores, multi_class="ovr")
    assert value(run, "auc", aggregation="macro", classes=3) == pytest.approx(right, abs=1e-4)
    flat = metrics.roc_auc_score(np.eye(3)[labels].ravel(), scores.ravel())
    found = value(run, "auc_together", aggregation="micro")
    assert found == pytest.approx(flat, abs=1e-4)


def test_decisions_that_look_like_scores(refused, tmp_path):
    frame = pd.DataFrame({"y": [-1, 1] * 20, "p": [-1, 1, 1, -1] * 10})
    frame.to_csv(tmp_path / "d.csv", index=False)
    output = refused(job("d.csv"))
    assert "from -1 to 1" in output
    assert "If they are the classes themselves, store them as text" in output


def test_classes_of_metrics_by_name(run_job, refused, tmp_path):
    labels = ["b", "a", "c", "a", "c", "c"]
    scores = np.array([[2, 5, 3], [6, 3, 1], [1, 2, 7], [3, 6, 1], [4, 4, 2], [2, 2, 6]]) / 10
    pd.DataFrame({"y": labels, "p": scores.tolist()}).to_parquet("d.parquet")
    macro = {"average": "macro", "class_weights": {"a": 1.0, "c": 3.0}}
    listed = [
        {"class_name": "Recall", "binarize": {"class_ids": ["c"]}, "aggregate": macro},
        {"class_name": "OneHotIoU", "config": {"num_classes": 3, "target_class_ids": [0]}},
    ]
    run = run_job(job("d.parquet", metrics=listed))
    recall = {"a": 1 / 2, "c": 2 / 3}
    assert value(run, "recall", **{"class": "c"}) == recall["c"]
    weighted = (recall["a"] + 3 * recall["c"]) / 4
    assert value(run, "recall", aggregation="macro") == pytest.approx(weighted)
    listed[0] = {"class_name": "Recall", "binarize": {"class_ids": ["cc"]}}
    (tmp_path / "results" / "latest").unlink()
    output = refused(job("d.parquet", metrics=listed))
    assert "metrics: Recall has the class 'cc'; there are 'c', 'a', 'b'" in output


def test_a_number_that_may_be_a_class_or_its_id(refused, run_job, tmp_path):
    scores = np.eye(3)[[0, 1, 2, 0]] * 0.7 + 0.1
    pd.DataFrame({"y": [1, 2, 3, 2], "p": scores.tolist()}).to_parquet("d.parquet")
    listed = [{"class_name": "Recall", "binarize": {"class_ids": [1]}}]
    output = refused(job("d.parquet", metrics=listed))
    assert "Recall has the class 1, which may be the class '1' or the one of id 1, '2'" in output
    listed = [{"class_name": "Recall", "binarize": {"class_ids": ["2"]}}]
    assert value(run_job(job("d.parquet", metrics=listed)), "recall", **{"class": "2"}) == 0.5


def test_areas_of_pairs_of_classes(run_job, refused, tmp_path):
    rng = np.random.default_rng(9)
    labels, scores = rng.integers(0, 4, 300), rng.dirichlet(np.ones(4), 300)
    scores = (scores + np.eye(4)[labels]) / 2
    pd.DataFrame({"y": labels, "p": scores.tolist()}).to_parquet("d.parquet")
    run = run_job(job("d.parquet", metrics=["roc_auc_ovo"]))
    right = metrics.roc_auc_score(labels, scores, multi_class="ovo")
    assert value(run, "one_versus_one_auc") == pytest.approx(right, abs=1e-4)
    many = pd.DataFrame({"y": np.arange(60), "p": np.eye(60).tolist()})
    many.to_parquet(tmp_path / "d.parquet")
    (tmp_path / "results" / "latest").unlink()
    output = refused(job("d.parquet", metrics=["roc_auc_ovo"]))
    assert "of which there may be at most 50 here, not 60; use AUC" in output


def test_thresholds_of_an_eval_config_may_be_where_scores_are(run_job, tmp_path):
    """Of logits anywhere; of probabilities as far beyond [0, 1] as TFMA's own; or infinite."""
    rng = np.random.default_rng(1)
    labels, logits = rng.integers(0, 2, 200), rng.normal(0, 3, 200)
    frame = {"y": labels, "logit": logits, "p": 1 / (1 + np.exp(-logits))}
    pd.DataFrame(frame).to_parquet("d.parquet")
    for column, thresholds in (("logit", [-0.5, 1.5]), ("p", [-1e-7, 0.5, 1.0000001, math.inf])):
        (tmp_path / "eval.pbtxt").write_text(
            'model_specs { label_key: "y" } metrics_specs { metrics { class_name: "Recall" '
            f"config: '\"thresholds\": {json.dumps(thresholds)}' }} }}"
        )
        models = [{"name": "m", "predictions": column}]
        data = {"files": "d.parquet"}
        run = run_job({"data": data, "models": models, "eval_config": "eval.pbtxt"})
        rows = pd.read_parquet(run / "metrics.parquet").sort_values("threshold")
        right = [(frame[column][labels == 1] > at).mean() for at in thresholds]
        assert rows["value"].tolist() == pytest.approx(right)


def test_averages_over_classes_at_several_thresholds(run_job):
    rng = np.random.default_rng(0)
    labels, weights = rng.integers(0, 3, 300), rng.integers(1, 4, 300)
    scores = (4 * rng.dirichlet(np.ones(3), 300) + np.eye(3)[labels]) / 5
    frame = {"y": labels, "p": scores.tolist(), "w": weights, "g": rng.integers(0, 2, 300)}
    pd.DataFrame(frame).to_parquet("d.parquet")
    averages = {
        "macro": np.ones(3),
        "weighted_macro": np.bincount(labels, weights),
        "cw": [1, 0, 3],
    }
    listed = []
    for name in averages:
        average = {"average": "macro", "class_weights": {0: 1.0, 2: 3.0}}
        average = {"average": name} if name != "cw" else average
        for thresholds in ([0.3, 0.4], [0.3, 0.4, 0.5], [0.2, 0.3, 0.4, 0.5]):
            config = {"name": f"{name}{len(thresholds)}", "thresholds": thresholds}
            listed.append({"class_name": "Precision", "config": config, "aggregate": average})
    run = run_job(job("d.parquet", data={"weight": "w"}, metrics=listed, slices=["g"]))
    table = pd.read_parquet(run / "metrics.parquet")
    for spec in listed:
        name, config = spec["config"]["name"], spec["config"]
        rows = table[(table["metric"] == name) & (table["slice"] == "overall")]
        for at in config["thresholds"]:
            of_class = [
                metrics.precision_score(labels == c, scores[:, c] > at, sample_weight=weights)
                for c in range(3)
            ]
            right = np.average(of_class, weights=averages[name[:-1]])
            assert rows[rows["threshold"] == at]["value"].tolist() == [pytest.approx(right)]


@pytest.mark.parametrize("average", ["macro", "weighted", "micro"])
def test_averages_of_decisions_are_scikit_learns(run_job, average):
    rng = np.random.default_rng(3)
    labels, weights = rng.choice(["a", "b", "c"], 300, p=[0.6, 0.3, 0.1]), rng.integers(1, 4, 300)
    scores = rng.dirichlet(np.ones(3), 300) + 0.3 * (labels[:, None] == np.array(["a", "b", "c"]))
    scores = scores / scores.sum(axis=1, keepdims=True)
    pd.DataFrame({"y": labels, "p": scores.tolist(), "w": weights}).to_parquet("d.parquet")
    names = {
        "f1": "f1_score",
        "precision": "precision",
        "recall": "recall",
        "jaccard": "threat_score",
    }
    listed = [f"{name}_{average}" for name in names]
    run = run_job(job("d.parquet", data={"weight": "w"}, metrics=listed))
    decided = np.array(["a", "b", "c"])[scores.argmax(axis=1)]
    notes = json.loads((run / "manifest.json").read_text())["notes"]
    aggregation = {"weighted": "weighted_macro"}.get(average, average)
    assert any(f"metric 'f1_{average}' is 'F1Score', {aggregation} average" in n for n in notes)
    for name, result in names.items():
        right = getattr(metrics, f"{name}_score")(
            labels, decided, average=average, sample_weight=weights
        )
        found = value(run, result, aggregation=aggregation, decision="argmax")
        assert found == pytest.approx(right)


def test_averages_over_classes_need_classes(refused, clicks):
    clicks.to_parquet("d.parquet")
    output = refused(job("d.parquet", metrics=["f1_macro"]))
    assert "F1Score" in output or "f1" in output
    assert "a macro average is over classes, but the task is binary" in output
    assert "set `task: multiclass` for an average over both classes" in output


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("confusion_matrix", "every run has confusion counts, in confusion.parquet"),
        (
            {"class_name": "CohenKappa", "config": {"weights": "cubic"}},
            "must be linear or quadratic",
        ),
        ({"class_name": "AUC", "config": {"curve": "XX"}}, "must be ROC or PR"),
        ({"class_name": "FBetaScore", "config": {"beta": -1}}, "must be a number above 0"),
        ({"class_name": "ExpectedCalibrationError", "config": {"num_bins": 0}}, "from 1 on"),
        ({"class_name": "AbsoluteErrorQuantiles", "config": {"quantiles": 0.5}}, "list of shares"),
        ({"class_name": "BrierScore", "config": {"scale": 1}}, "argument scale=1 has no kernel"),
    ],
)
def test_arguments_that_no_metric_takes(refused, clicks, metric, said):
    clicks.to_parquet("d.parquet")
    output = refused(job("d.parquet", metrics=[metric]))
    assert said in output
    assert "Did you mean" not in output


def test_top_k_of_fewer_classes(refused, tmp_path):
    pd.DataFrame({"y": [0, 1, 2] * 5, "p": np.eye(3)[[0, 2, 2] * 5].tolist()}).to_parquet(
        "d.parquet"
    )
    output = refused(job("d.parquet", metrics=["top_k_accuracy"]))
    assert "TopKCategoricalAccuracy is 1 for k = 5, its default, as there are only 3" in output


@pytest.mark.parametrize("offset", [0, 1e3, 1e9])
def test_spread_of_labels_far_from_zero(run_job, offset):
    rng = np.random.default_rng(8)
    labels = rng.normal(size=500)
    scores = labels + rng.normal(size=500) / 2
    pd.DataFrame({"y": labels + offset, "p": scores + offset}).to_parquet("d.parquet")
    run = run_job(job("d.parquet", metrics=["r2", "SquaredPearsonCorrelation"]))
    right = np.nan if offset == 1e9 else metrics.r2_score(labels, scores)
    assert value(run, "r2_score") == pytest.approx(right, rel=1e-6, nan_ok=True)
    right = np.nan if offset == 1e9 else np.corrcoef(labels, scores)[0, 1] ** 2
    assert value(run, "squared_pearson_correlation") == pytest.approx(right, rel=1e-6, nan_ok=True)


def test_classes_without_a_score_are_never_the_largest(run_job):
    rows = [
        {"y": "a", "p": [-0.1, -3.0], "c": ["a", "b"]},
        {"y": "b", "p": [-2.0, -0.5], "c": ["c", "b"]},
        {"y": "d", "p": [-0.2, -0.3], "c": ["c", "a"]},
    ]
    pd.DataFrame(rows).to_parquet("d.parquet")
    models = [{"name": "m", "predictions": "p", "classes": "c"}]
    data = {"classes": ["a", "b", "c"], "unknown_class": "other"}
    listed = ["accuracy", {"class_name": "TopKCategoricalAccuracy", "config": {"k": 2}}]
    run = run_job(job("d.parquet", data=data, models=models, metrics=listed))
    assert value(run, "categorical_accuracy") == pytest.approx(2 / 3)
    assert value(run, "top_k_categorical_accuracy") == pytest.approx(2 / 3)


def test_unknown_labels_of_raw_scores(run_job):
    frame = {"y": ["a", "b", "x"], "p": [[-1.0, -4.0], [-5.0, -2.0], [-3.0, -4.0]]}
    pd.DataFrame(frame).to_parquet("d.parquet")
    data = {"classes": ["a", "b"], "unknown_class": "other"}
    models = [{"name": "m", "predictions": "p", "scores": "as_is"}]
    config = job("d.parquet", data=data, models=models, task="multiclass", metrics=["accuracy"])
    assert value(run_job(config), "categorical_accuracy") == pytest.approx(2 / 3)


def test_a_list_that_has_a_class_twice_is_a_dead_letter(run_job):
    rows = [{"y": "a", "p": [0.5, 0.2], "c": c} for c in (["a", "b"], ["b", "b"], ["b", "c"])]
    pd.DataFrame(rows).to_parquet("d.parquet")
    models = [{"name": "m", "predictions": "p", "classes": "c"}]
    data = {"max_dead_letters": 0.5}
    run = run_job(job("d.parquet", data=data, models=models, metrics=["accuracy"]))
    assert value(run, "categorical_accuracy") == 0.5
    letters = pd.read_json(run / "dead_letter" / "rows.jsonl", lines=True)
    assert "the class 'b' is listed several times" in letters["reason"].iloc[0]


@pytest.mark.parametrize("names", [(5, 9), (1, 2)])
@pytest.mark.parametrize("task", ["multiclass", "binary", None])
@pytest.mark.parametrize("constant", [False, True])
def test_two_classes_that_are_numbers(refused, tmp_path, names, task, constant):
    labels = list(names) * 20
    decided = [names[0]] * 40 if constant else list(names) * 10 + list(names[::-1]) * 10
    pd.DataFrame({"y": labels, "p": decided}).to_csv(tmp_path / "d.csv", index=False)
    more = {"task": task} if task else {}
    output = refused(job("d.csv", data={"classes": list(names)}, metrics=["accuracy"], **more))
    assert "If they are the classes themselves, store them as text" in output


def test_what_is_given_for_an_output_that_there_is_none_of(refused, clicks):
    clicks.to_parquet("d.parquet")
    output = refused(job("d.parquet", data={"positive": {"clik": "yes"}}))
    assert "data.positive is for the output 'clik', but the models have a single one" in output
    clicks["z"] = clicks["y"]
    clicks.to_parquet("d.parquet")
    models = [{"name": "m", "predictions": {"click": "p", "buy": "p"}}]
    label = {"click": "y", "buy": "z"}
    data = {"classes": {"clik": "missing.txt"}}
    output = refused(job("d.parquet", label=label, data=data, models=models))
    assert "data.classes is for the output 'clik'" in output
    assert "Did you mean 'click'?" in output


@pytest.mark.parametrize(
    ("labels", "predictions", "said"),
    [
        (["0", "1"], ["0,9", "0,1"], "holds numbers as text, such as '0,1'"),
        (["0", "1"], ["90%", "10%"], "holds numbers as text, such as '10%'"),
        (["0", "1"], ["0.93", "1"], "holds numbers as text, such as '0.93'"),
        (["sick", "well"], ["Sick ", "Well "], "holds 'Sick ', 'Well ', none of which is a class"),
        ([True, False], ["yes", "no"], "the labels in the first 20 examples, 'false', 'true'"),
    ],
)
@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_predictions_that_name_no_class(refused, tmp_path, labels, predictions, said, form):
    frame = pd.DataFrame({"y": labels * 10, "p": predictions * 10})
    if form == "parquet":
        frame.to_parquet(tmp_path / "d.parquet")
    else:
        frame.to_json(tmp_path / "d.jsonl", orient="records", lines=True)
    assert f"Version 'm': column 'p' {said}" in refused(job(f"d.{form}")) or said in refused(
        job(f"d.{form}")
    )


def test_indices_of_named_classes(refused, tmp_path):
    frame = pd.DataFrame({"y": ["a", "b", "c"] * 10, "p": [0, 1, 2] * 10})
    frame.to_csv(tmp_path / "d.csv", index=False)
    output = refused(job("d.csv", task="multiclass"))
    assert "column 'p' holds '0', '1', '2', none of which is a class of the labels" in output


def test_a_scale_of_classes(refused, tmp_path):
    frame = pd.DataFrame({"y": ["a", "b", "c"] * 10, "p": ["a", "b", "b"] * 10})
    frame.to_csv(tmp_path / "d.csv", index=False)
    models = [{"name": "m", "predictions": "p", "scores": "logits"}]
    output = refused(job("d.csv", models=models))
    assert (
        "its predictions are classes, such as 'a', and no scores: remove `scores: logits`" in output
    )


def test_columns_of_scores_in_another_order(refused, run_job, wine, tmp_path):
    scores = (
        wine[["p0", "p1", "p2"]].add_prefix("class_").rename(columns=lambda c: c.replace("p", ""))
    )
    frame = pd.concat([wine["cultivar"].rename("y"), scores.add_prefix("p_")], axis=1)
    frame.to_csv(tmp_path / "d.csv", index=False)
    models = [{"name": "m", "predictions": ["p_class_1", "p_class_0", "p_class_2"]}]
    output = refused(job("d.csv", models=models))
    assert "has the classes in the order 'class_1', 'class_0', 'class_2'" in output
    data = {"classes": ["class_1", "class_0", "class_2"]}
    run_job(job("d.csv", data=data, models=models))


def test_a_scale_that_the_scores_do_not_have_is_doubted(run_job, clicks):
    clicks.to_parquet("d.parquet")
    models = [{"name": "m", "predictions": "p", "scores": "logits"}]
    run = run_job(job("d.parquet", models=models))
    notes = json.loads((run / "manifest.json").read_text())["notes"]
    assert any("lie in [0, 1] before `scores: logits` is applied" in note for note in notes)


def test_classes_that_look_alike(run_job):
    frame = {"y": ["Sick", "sick ", "well"] * 5, "p": ["Sick", "Sick", "well"] * 5}
    pd.DataFrame(frame).to_parquet("d.parquet")
    run = run_job(job("d.parquet"))
    notes = json.loads((run / "manifest.json").read_text())["notes"]
    assert "different classes, though alike: 'Sick', 'sick '" in notes


def scored(labels, seed=0, classes=None):
    """Scores that tell the labels, [N] or [N, classes]."""
    rng = np.random.default_rng(seed)
    if classes is None:
        return np.clip(0.35 + 0.3 * labels + rng.normal(0, 0.2, len(labels)), 0.001, 0.999)
    raw = rng.random((len(labels), classes)) + np.eye(classes)[labels]
    return raw / raw.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("labels", "columns"),
    [
        (np.arange(12), sorted(f"class_{c}" for c in range(12))),
        (np.arange(4), [f"proba_{c}" for c in (3, 1, 0, 2)]),
        (np.arange(2), ["proba_1", "proba_0"]),
        (np.array([False, True]), ["p_True", "p_False"]),
        (np.array([False, True]), ["P_TRUE", "P_FALSE"]),
    ],
)
def test_columns_of_scores_in_another_order_than_numbers(
    refused, run_job, tmp_path, labels, columns
):
    y = np.tile(labels, 30)
    scores = scored(np.tile(np.arange(len(labels)), 30), classes=len(labels))
    table = pd.DataFrame({"y": y})
    for column in columns:
        table[column] = scores[
            :, int(re.sub("(?i)true", "1", re.sub("(?i)false", "0", column)).rpartition("_")[2])
        ]
    table.to_parquet(tmp_path / "d.parquet")
    models = [{"name": "m", "predictions": columns}]
    output = refused(job("d.parquet", models=models, metrics=["accuracy"]))
    assert "has the classes in the order" in output
    assert "write the columns in this order" in output
    ordered = (
        sorted(columns, key=lambda name: (len(name), name)) if len(labels) > 2 else columns[::-1]
    )
    models = [{"name": "m", "predictions": ordered}]
    run = run_job(job("d.parquet", models=models, metrics=["accuracy"]))
    right = scores.argmax(axis=1) == np.tile(np.arange(len(labels)), 30)
    if len(labels) == 2:
        right = (scores[:, 1] > 0.5) == y
    names = pd.read_parquet(run / "metrics.parquet").astype({"metric": str}).set_index("metric")
    assert names["value"].iloc[0] == pytest.approx(right.mean())


def test_columns_that_count_from_one_without_a_class_zero(refused, tmp_path):
    y = np.tile([1, 2, 3], 40)
    columns = [f"proba_{c}" for c in range(1, 5)]
    table = pd.DataFrame(scored(y - 1, classes=4), columns=columns).assign(y=y)
    table.to_csv(tmp_path / "d.csv", index=False)
    models = [{"name": "m", "predictions": columns}]
    output = refused(job("d.csv", models=models, metrics=["accuracy"]))
    assert "is named for the classes 1 to 4, but the labels, of which none is 0, are tak" in output
    assert "`data.classes: [1, 2, 3, 4]`" in output


def test_a_column_named_for_the_negative_class_is_reported(run_job, evalbeam, tmp_path):
    y = np.tile([0, 1], 60)
    table = pd.DataFrame({"y": np.where(y == 1, "yes", "no"), "p_no": 1 - scored(y)})
    table.assign(p_yes=scored(y)).to_csv(tmp_path / "d.csv", index=False)
    for column, is_doubted in (("p_no", True), ("p_yes", False)):
        models = [{"name": "m", "predictions": column}]
        run = run_job(job("d.csv", models=models, metrics=["AUC"]))
        notes = " ".join(json.loads((run / "manifest.json").read_text())["notes"])
        said = "column 'p_no' is taken for scores of 'yes', the positive class, though it is named"
        assert (said in notes) == is_doubted


def test_lists_that_are_shorter_than_a_metrics_top_k(refused, run_job, tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(120):
        listed = rng.choice(50, 3, replace=False)
        label = rng.choice(listed) if rng.random() < 0.4 else rng.integers(50)
        rows.append({"y": str(label), "c": [str(c) for c in listed], "s": [0.5, 0.3, 0.2]})
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    models = [{"name": "m", "predictions": "s", "classes": "c"}]
    names = [str(c) for c in range(50)]
    for metric in (
        {"class_name": "TopKCategoricalAccuracy", "config": {"k": 5}},
        "TopKCategoricalAccuracy",
        {"class_name": "Recall", "config": {"top_k": 10}},
        {"class_name": "Precision", "binarize": {"top_k_list": [4]}},
    ):
        output = refused(job("d.jsonl", data={"classes": names}, models=models, metrics=[metric]))
        assert "but lists of version 'm' have only 3 in column 'c': the others are not kn" in output
    run = run_job(
        job(
            "d.jsonl",
            data={"classes": names},
            models=models,
            metrics=[{"class_name": "TopKCategoricalAccuracy", "config": {"k": 3}}],
        )
    )
    right = np.mean([row["y"] in row["c"] for row in rows])
    assert value(run, "top_k_categorical_accuracy") == pytest.approx(right)


def test_weights_of_ordered_classes_need_their_order(refused, run_job, tmp_path):
    rng = np.random.default_rng(0)
    names = np.array(["low", "medium", "high"])
    y, p = rng.integers(0, 3, (2, 120))
    pd.DataFrame({"y": names[y], "p": names[p]}).to_csv(tmp_path / "d.csv", index=False)
    listed = [{"class_name": "CohenKappa", "config": {"weights": "quadratic"}}]
    output = refused(job("d.csv", metrics=listed))
    assert "'high', 'low', 'medium' are sorted by name: list them in `data.classes`" in output
    run = run_job(job("d.csv", data={"classes": names.tolist()}, metrics=listed))
    right = metrics.cohen_kappa_score(y, p, weights="quadratic")
    assert value(run, "cohen_kappa") == pytest.approx(right)


def test_labels_of_no_class_are_reported(run_job, tmp_path):
    y = np.tile([0, 1, 2, 0, 1, 2, 0, 1, -1, 2], 20)
    pd.DataFrame({"y": y, "p": list(scored(y, classes=3))}).to_parquet(tmp_path / "d.parquet")
    models = [{"name": "m", "predictions": "p"}]
    run = run_job(job("d.parquet", models=models, metrics=["accuracy"]))
    notes = " ".join(json.loads((run / "manifest.json").read_text())["notes"])
    assert (
        "20 of the first 200 labels in 'y' are -1, no class: every prediction for them count"
        in notes
    )


@pytest.mark.parametrize("share", [0.15, 0.4])
def test_labels_that_are_mostly_bits_are_no_regression_without_a_word(
    refused, run_job, tmp_path, share
):
    y = np.tile([0, 1], 100)
    p = scored(y)
    y[: int(200 * share)] = -1
    pd.DataFrame({"y": y, "p": p}).to_csv(tmp_path / "d.csv", index=False)
    config = job("d.csv", models=[{"name": "m", "predictions": "p"}])
    output = refused(config)
    assert f"the labels are 0 and 1, but {int(200 * share)} of 200 are others, such as -1" in output
    run = run_job({**config, "task": "regression"})
    assert value(run, "mean_squared_error") == pytest.approx(((y - p) ** 2).mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("spread", "scale", "doubted"),
    [
        (lambda p: p, None, False),
        (lambda p: p.round(2), None, False),  # equal scores are ties in any count
        (lambda p: p * 1e-4, None, True),
        (lambda p: 1 - p * 1e-4, None, True),
        (lambda p: np.log(p / (1 - p)) * 4, "as_is", True),
    ],
)
def test_scores_that_crowd_in_few_buckets_are_reported(run_job, tmp_path, spread, scale, doubted):
    y = np.tile([0, 1], 300)
    p = spread(scored(y))
    pd.DataFrame({"y": y, "p": p}).to_parquet(tmp_path / "d.parquet")
    models = [{"name": "m", "predictions": "p", **({"scores": scale} if scale else {})}]
    run = run_job(job("d.parquet", models=models, metrics=["AUC", "BinaryAccuracy"]))
    notes = " ".join(json.loads((run / "manifest.json").read_text())["notes"])
    assert ("where auc see ties" in notes) == doubted
    off = abs(value(run, "auc") - metrics.roc_auc_score(y, p))
    if doubted:
        bound = float(re.search(r"may be off by up to (\d.\d+)", notes)[1])
        assert off <= 2 * bound  # of pairs of one class each, of which there are half as many
    else:
        assert off < 0.001


@pytest.mark.parametrize(
    ("one", "other", "flags"),
    [
        ({"from_logits": True}, {}, ()),
        ({"label_smoothing": 0.1}, {"label_smoothing": 0.4}, ()),
        ({}, {"label_smoothing": 0.2}, ()),
        ({"thresholds": [0.3]}, {"thresholds": [0.7]}, ("--engine", "tfma")),
    ],
)
def test_a_metric_by_tfma_hides_no_other(refused, clicks, one, other, flags):
    clicks.to_parquet("d.parquet")
    name = "Precision" if flags else "BinaryCrossentropy"
    listed = [{"class_name": name, "config": config} for config in (one, other)]
    for metrics_ in (listed, listed[::-1]):
        models = [{"name": "v1", "predictions": "p", "scores": "as_is"}]
        output = refused(job("d.parquet", models=models, metrics=metrics_), *flags)
        assert "are both named '" in output
        assert "name one: `config: {name: ...}`" in output
