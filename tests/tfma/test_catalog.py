"""Every metric class of TFMA and Keras, on every task: right by its definition, or refused."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn import metrics as sklearn_metrics

from evalbeam.transforms import errors, metrics
from evalbeam.transforms.metrics import glossary, metric
from evalbeam.transforms.tfma import catalog, metric_classes

# What TFMA computes here, by class: its arguments, and its value of labels, scores, the baseline's
# scores and weights, by task.
ARGUMENTS = {
    "OneHotIoU": {"num_classes": 3, "target_class_ids": [0, 2]},
    "OneHotMeanIoU": {"num_classes": 3},
    "Mean": {"feature_key_path": ["features", "f"]},
}
# Refused with weights, which TFMA would ignore.
UNWEIGHTED = ("Mean", "ModelCosineSimilarity")
# Named in a note as in tfma/ only.
NOT_NUMBERS = {
    "ScoreDistributionPlot",
    "FalseNegativeFeatureSampler",
    "FalsePositiveFeatureSampler",
}


def overlap(truth, decided, weights):
    """TP / (TP + FP + FN) of bool arrays."""
    return weights[truth & decided].sum() / weights[truth | decided].sum()


def binary_iou(rows):
    y, up = rows.y == 1, rows.p >= 0.5
    return np.mean([overlap(y, up, rows.w), overlap(~y, ~up, rows.w)])


def class_iou(classes):
    def oracle(rows):
        up = rows.p.argmax(axis=1)
        return np.mean([overlap(rows.y == c, up == c, rows.w) for c in classes])

    return oracle


def cosine(rows):
    """Of both versions' scores, all rows together row by row, never weighted."""
    pairs = zip(rows.base, rows.p, strict=True)
    return np.mean([a @ b / np.sqrt(a @ a) / np.sqrt(b @ b) for a, b in pairs])


def difference(rows):
    share = 2 * np.abs(rows.base - rows.p) / np.abs(rows.base + rows.p)
    return np.average(share, weights=rows.w)


def mean_feature(rows):
    return rows.f.mean()


ORACLES = {
    ("BinaryIoU", "binary"): binary_iou,
    ("OneHotIoU", "multiclass"): class_iou([0, 2]),
    ("OneHotMeanIoU", "multiclass"): class_iou([0, 1, 2]),
    **{("ModelCosineSimilarity", task): cosine for task in metric.SEVERAL_CLASSES},
    **{("SymmetricPredictionDifference", task): difference for task in ("binary", "regression")},
    **{("Mean", task): mean_feature for task in metric.ALL_TASKS},
}


class Rows:
    def __init__(self, task, size, weighted):
        rng = np.random.default_rng(size)
        if task == "multiclass":
            self.y = rng.permutation(np.arange(size) % 3)
            self.p, self.base = rng.dirichlet(np.ones(3), (2, size))
            self.p = (self.p + np.eye(3)[self.y]) / 2
        elif task == "multilabel":
            self.y = rng.integers(0, 2, (size, 3))
            self.p, self.base = rng.uniform(0.1, 0.9, (2, size, 3))
        elif task == "binary":
            self.y = np.arange(size) % 2
            self.p, self.base = rng.uniform(0.1, 0.9, (2, size))
        else:
            self.y, self.p, self.base = rng.uniform(1, 5, (3, size))
        self.w = rng.uniform(0.5, 2, size) if weighted else np.ones(size)
        self.f = rng.random(size)

    def frame(self):
        columns = {"y": self.y, "p": self.p, "base": self.base, "w": self.w, "f": self.f}
        return pd.DataFrame({name: list(values) for name, values in columns.items()})


def test_every_class_is_known():
    known = {*metrics.REGISTRY, *NOT_NUMBERS, *(name for name, _ in ORACLES)}
    for name in metric_classes._list_classes():
        if name in known:
            continue
        with pytest.raises(errors.ConfigError, match=name):
            catalog.refuse(name)
    listed = {name for name in glossary.DEFINITIONS if name not in catalog._OF_QUERIES}
    assert listed <= known


def test_classes_have_an_oracle_for_every_task_that_they_are_for():
    for name in {name for name, _ in ORACLES}:
        tasks = {task for other, task in ORACLES if other == name}
        assert tasks == set(catalog.list_tasks(name)), name


@pytest.mark.parametrize("task", metric.ALL_TASKS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("size", [1, 61])
@pytest.mark.parametrize("engine", ["columnar", "tfma"])
def test_tfma_gives_what_a_class_is(run_job, task, weighted, size, engine):
    """In several bundles, of several files."""
    rows = Rows(task, size, weighted)
    for number, part in enumerate(np.array_split(rows.frame(), min(size, 3))):
        part.to_parquet(f"part-{number}.parquet")
    names = [name for name, other in ORACLES if other == task]
    if size == 1:  # a class that does not occur has no overlap
        names = [name for name in names if "IoU" not in name]
    run = run_job(
        {
            "task": task,
            "data": {"files": "part-*", "label": "y", **({"weight": "w"} if weighted else {})},
            "models": [
                {"name": "base", "predictions": "base", "scores": "as_is", "baseline": True},
                {"name": "cand", "predictions": "p", "scores": "as_is"},
            ],
            "metrics": [
                {
                    "class_name": name,
                    "config": ARGUMENTS.get(name, {}),
                    **({"weighted": False} if name in UNWEIGHTED else {}),
                }
                for name in names
            ],
        },
        "--engine",
        engine,
    )
    frame = pd.read_parquet(run / "metrics.parquet")
    for name in names:
        prefix = metric.snake_case(name)
        found = frame[frame["metric"].str.startswith(prefix) & (frame["model"] != "base")]
        if name == "Mean":  # of a column, whatever the version
            found = frame[frame["metric"].str.startswith("mean_features")]
        assert len(found) == 1, name
        right = ORACLES[name, task](rows)
        assert found["value"].iloc[0] == pytest.approx(right, rel=1e-5), name


@pytest.mark.parametrize("name", sorted({name for name, _ in ORACLES}))
def test_other_tasks_are_refused(evalbeam, tmp_path, name):
    for task in set(metric.ALL_TASKS) - set(catalog.list_tasks(name)):
        Rows(task, 9, False).frame().to_parquet(tmp_path / "d.parquet")
        config = {
            "task": task,
            "data": {"files": "d.parquet", "label": "y"},
            "models": [{"name": "m", "predictions": "p", "scores": "as_is"}],
            "metrics": [{"class_name": name, "config": ARGUMENTS.get(name, {})}],
        }
        (tmp_path / "job.yaml").write_text(yaml.safe_dump(config))
        result = evalbeam("run", "job.yaml", "--dry-run")
        assert result.exit_code == 2
        assert f"metrics: {name} is for" in result.output


@pytest.mark.parametrize("name", sorted(catalog.ONLY_OURS))
def test_what_tfma_cannot_compute_is_refused(evalbeam, tmp_path, name):
    task = metrics.list_tasks(name)[0]
    Rows(task, 9, True).frame().to_parquet(tmp_path / "d.parquet")
    config = {
        "task": task,
        "data": {"files": "d.parquet", "label": "y", "weight": "w"},
        "models": [{"name": "m", "predictions": "p", "scores": "as_is"}],
        "metrics": [{"class_name": name, "config": {"quantiles": [0.5]} if "Quan" in name else {}}],
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(config))
    assert evalbeam("run", "job.yaml", "--dry-run").exit_code == 0
    result = evalbeam("run", "job.yaml", "--dry-run", "--engine", "tfma")
    assert result.exit_code == 2
    assert f"metrics: TFMA cannot compute {name}, evalbeam's own kernel can" in result.output


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("FBetaScore", {"average": "macro"}, "its argument average='macro' has no kernel"),
        ("R2Score", {"num_regressors": 2}, "its argument num_regressors=2 has no kernel"),
    ],
)
def test_arguments_of_what_tfma_cannot_compute_are_refused(
    evalbeam, tmp_path, name, arguments, reason
):
    Rows("binary", 9, False).frame().to_parquet(tmp_path / "d.parquet")
    config = {
        "task": "binary",
        "data": {"files": "d.parquet", "label": "y"},
        "models": [{"name": "m", "predictions": "p", "scores": "as_is"}],
        "metrics": [{"class_name": name, "config": arguments}],
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(config))
    result = evalbeam("run", "job.yaml", "--dry-run")
    assert result.exit_code == 2
    output = " ".join(result.output.split())
    assert f"metrics: {name} cannot be computed: {reason}, and TFMA cannot" in output


def test_rankings_by_a_query_key(run_job, tmp_path):
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"q": np.repeat(list("abcd"), 5), "y": rng.integers(0, 2, 20) * 1.0})
    frame["gain"], frame["p"] = rng.integers(0, 4, 20) * 1.0, rng.random(20)
    frame.to_json("d.jsonl", orient="records", lines=True)
    (tmp_path / "eval.pbtxt").write_text(
        """
        model_specs { label_key: "y" }
        metrics_specs {
          query_key: "q"
          metrics { class_name: "NDCG" config: '"gain_key": "gain", "top_k_list": [3]' }
        }
        """
    )
    models = [{"name": "m", "predictions": "p"}]
    run = run_job({"data": {"files": "d.jsonl"}, "models": models, "eval_config": "eval.pbtxt"})
    found = pd.read_parquet(run / "metrics.parquet")
    right = []
    for _, group in frame.groupby("q"):
        best = np.sort(group["gain"])[::-1][:3]
        ranked = group.sort_values("p", ascending=False)["gain"].to_numpy()[:3]
        discount = np.log2(np.arange(3) + 2)
        right.append((ranked / discount).sum() / (best / discount).sum() if best.sum() else 0)
    assert found["value"].tolist() == pytest.approx([np.mean(right)])
    notes = json.loads((run / "manifest.json").read_text())["notes"]
    assert any("query_key" in note for note in notes)
    ideal = sklearn_metrics.ndcg_score([frame["gain"][:5]], [frame["p"][:5]], k=3)
    assert right[0] == pytest.approx(ideal)
