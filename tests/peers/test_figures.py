"""Whole runs give the figures that other projects publish, or differ from them for a reason."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import pathlib
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal

import click.testing
import figures
import pandas as pd
import pytest
import yaml

from evalbeam.beam_jobs import cli


def _rows(job: figures.Job) -> list[dict]:
    """All examples of a job below each other."""
    rows = []
    for name, example in job.examples.items():
        assert len(example.y) == len(example.p), name
        for i, (y, p) in enumerate(zip(example.y, example.p, strict=True)):
            row = {"example": name, "y": y, "p": p, "q": (example.q or example.p)[i]}
            row["w"] = 1.0 if example.w is None else example.w[i]
            rows.append({**row, **{key: values[i] for key, values in example.groups.items()}})
    return rows


def _config(job: figures.Job, folder: str) -> dict:
    columns = {key for example in job.examples.values() for key in example.groups}
    crosses = [["group"], ["other"], ["group", "other"]]
    slices = [["example", *cross] for cross in crosses if columns.issuperset(cross)]
    versions = ("p", "q") if any(example.q for example in job.examples.values()) else ("p",)
    models = [{"name": name, **job.model, "predictions": name} for name in versions]
    weighted = any(example.w for example in job.examples.values())
    if "eval_config" in job.config:
        # It has the slices and metrics.
        config = {}
    else:
        config = {"slices": [["example"], *slices], "metrics": job.metrics}
    return {
        "data": {
            "files": f"{folder}/data.jsonl",
            "label": "y",
            **({"weight": "w"} if weighted else {}),
            **job.data,
        },
        "models": models,
        **config,
        "output": f"{folder}/results",
        **job.config,
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs a job by its name, once; returns the published folder."""

    @functools.cache
    def invoke(name: str) -> tuple[click.testing.Result, pathlib.Path]:
        folder = tmp_path_factory.mktemp(name)
        job = figures.ALL[name]
        config = _config(job, str(folder))
        if text := config.get("eval_config"):
            (folder / "eval.pbtxt").write_text(text)
            config["eval_config"] = str(folder / "eval.pbtxt")
        (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in _rows(job)))
        (folder / "job.yaml").write_text(yaml.safe_dump(config))
        result = click.testing.CliRunner().invoke(cli.main, ["run", str(folder / "job.yaml")])
        return result, folder / "results" / "latest"

    def published(name: str) -> pathlib.Path:
        result, folder = invoke(name)
        assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
        return folder

    return published


@pytest.fixture(scope="module")
def results(run):
    """By the name of a job, its metrics and confusion matrices."""

    @functools.cache
    def read(name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        paths = [run(name) / f"{table}.parquet" for table in ("metrics", "confusion")]
        tables = (pd.read_parquet(path).astype({"slice": str}) for path in paths)
        metrics, confusion = (table.set_index("slice") for table in tables)
        return metrics, confusion

    return read


def _slice(example: str, part: str) -> str:
    return f"example={example};{part}" if part else f"example={example}"


def _matrices(table: pd.DataFrame, threshold: float | None) -> list:
    """Counts as [actual][predicted], of several labels as a list of these."""
    table = table[table["model"] == "p"]
    if threshold is not None:
        table = table[table["threshold"] == threshold]
    if table["class_id"].notna().any():
        return [_matrix(part) for _, part in table.groupby("class_id")]
    return _matrix(table)


def _matrix(table: pd.DataFrame) -> list[list[float]]:
    counts = table.pivot(index="actual", columns="predicted", values="count")
    classes = range(int(max(table["actual"].max(), table["predicted"].max())) + 1)
    # Cells without a row are empty.
    return counts.reindex(index=classes, columns=classes).fillna(0).to_numpy().tolist()


def _value(results, job: str, example: str, part: str, key: str) -> float | list:
    """The result of one key; a list by class if there are values of classes only."""
    metrics, confusion = results(job)
    name, _, at = key.partition(" @")
    name, _, average = name.partition(" ")
    where = _slice(example, part)
    threshold = float(at) if at else None
    if name == "confusion":
        return _matrices(confusion.loc[[where]], threshold)
    rows = metrics.loc[[where]]
    rows = rows[rows["metric"] == name]
    if average.startswith("top_"):
        rows = rows[rows["top_k"] == int(average.removeprefix("top_"))]
    else:
        rows = rows[rows["aggregation"].fillna("") == average]
    if threshold is not None:
        rows = rows[rows["threshold"] == threshold]
    # A figure about two versions is the second one's.
    rows = rows[rows["model"] == ("q" if name in figures.OF_TWO else "p")]
    assert len(rows), f"{job} has no {key}"
    if rows["class_id"].notna().any() and not average:
        return rows.sort_values("class_id")["value"].tolist()
    assert len(rows) == 1, rows
    return float(rows["value"].iloc[0])


def _agrees(value, figure) -> bool:
    """Whether a value is the published one: a number exactly, a text to its last digit."""
    if isinstance(figure, list):
        return len(value) == len(figure) and all(map(_agrees, value, figure))
    if figure is None:
        return True
    if isinstance(figure, str):
        last = Decimal(1).scaleb(Decimal(figure).as_tuple().exponent)
        if not math.isfinite(value):
            return False
        # What is 0.625 but for rounding errors is printed as 0.625, not cut to 0.624.
        exact = Decimal(f"{value:.9g}")
        return Decimal(figure) in {exact.quantize(last, way) for way in (ROUND_HALF_UP, ROUND_DOWN)}
    # Keras and torchmetrics add up in single precision, and Keras adds 1e-7 here and there.
    return value == pytest.approx(figure, rel=5e-7, abs=1e-9, nan_ok=True)


def _cases() -> list:
    cases = []
    for name, job in figures.JOBS.items():
        for key, example in job.examples.items():
            parts = {"": example.figures, **example.slices}
            cases += [
                pytest.param(
                    name, key, part, metric, figure,
                    id=f"{name}-{_slice(key, part).removeprefix('example=')}-{metric}",
                )
                for part, found in parts.items()
                for metric, figure in found.items()
            ]  # fmt: skip
    return cases


@pytest.mark.parametrize(("job", "example", "part", "key", "figure"), _cases())
def test_figures_of_others(results, job, example, part, key, figure):
    value = _value(results, job, example, part, key)
    source = figures.JOBS[job].examples[example].source
    assert _agrees(value, figure), f"{key} is {value}; {source}: {figure}"


_COUNTS = ("false_negatives", "true_negatives", "false_positives", "true_positives")
_RATES = ("precision", "recall", "f1", "accuracy", "false_omission_rate")


def _matrices_of(value) -> dict:
    if value.HasField("multi_class_confusion_matrix_at_thresholds"):
        matrices = value.multi_class_confusion_matrix_at_thresholds.matrices
        names = ("num_weighted_examples",)
    else:
        matrices = value.multi_label_confusion_matrix_at_thresholds.matrices
        names = _COUNTS
    return {
        matrix.threshold: {
            (entry.actual_class_id, entry.predicted_class_id): tuple(
                getattr(entry, name) for name in names
            )
            for entry in matrix.entries
        }
        for matrix in matrices
    }


def _confusions_of(value) -> dict:
    return {
        matrix.threshold: tuple(getattr(matrix, name) for name in _COUNTS + _RATES)
        for matrix in value.confusion_matrix_at_thresholds.matrices
    }


def _buckets_of(value) -> dict:
    """Buckets that have examples."""
    return {
        bucket.lower_threshold_inclusive: (
            bucket.num_weighted_examples.value,
            bucket.total_weighted_label.value,
            bucket.total_weighted_refined_prediction.value,
        )
        for bucket in value.calibration_histogram_buckets.buckets
        if bucket.num_weighted_examples.value
    }


def _flat(value) -> dict:
    """Numbers by where they are, which approx takes."""
    cells = value if isinstance(value, dict) else {(): value}
    return {
        (*key, i): number
        for key, cell in cells.items()
        for i, number in enumerate(cell if isinstance(cell, tuple) else (cell,))
    }


_READERS = {"matrices": _matrices_of, "confusions": _confusions_of, "buckets": _buckets_of}


def _file_cases() -> list:
    return [
        pytest.param(name, key, kind, figure, id=f"{name}-{key}-{kind}")
        for name, job in figures.FILES.items()
        for key, example in job.examples.items()
        for kind, figure in example.figures.items()
    ]


@pytest.mark.parametrize(("job", "example", "kind", "figure"), _file_cases())
def test_plots_of_others(run, tfma_messages, job, example, kind, figure):
    messages = tfma_messages(run(job) / "tfma")
    items = [
        (message.slice_key, item)
        for messages_of, field in (
            (messages.metrics, "metric_keys_and_values"),
            (messages.plots, "plot_keys_and_values"),
        )
        for message in messages_of
        for item in getattr(message, field)
    ]
    found = {}
    for where, item in items:
        if any(key.bytes_value == example.encode() for key in where.single_slice_keys):
            found |= _READERS[kind](item.value)
    for place, published in figure.items():
        (nearest,) = [at for at in found if at == pytest.approx(place)]
        assert _flat(found[nearest]) == pytest.approx(_flat(published), rel=1e-6, nan_ok=True)
    if kind == "buckets":
        assert len(found) == len(figure)


@pytest.mark.parametrize(
    "different", figures.DIFFERENT, ids=lambda d: f"{d.job}-{d.example}-{d.key}"
)
def test_figures_that_differ_for_a_reason(results, different):
    value = _value(results, different.job, different.example, different.part, different.key)
    assert _agrees(value, different.value), different.why
    assert not _agrees(value, different.figure), f"no longer different: {different.why}"


def test_every_example_names_its_source_and_is_used():
    different = {(d.job, d.example) for d in figures.DIFFERENT}
    for name, job in figures.ALL.items():
        for key, example in job.examples.items():
            assert example.source.split()[0].rstrip(",") in figures.PROJECTS, key
            assert example.figures or example.slices or (name, key) in different, key


def test_a_metric_that_is_infinite_for_two_versions(run, monkeypatch):
    # TFMA's cross entropy of a wrong decision without a doubt, as of torchmetrics' decisions.
    example = figures.BINARY["torch-decided"]
    example = dataclasses.replace(example, q=example.p)
    job = figures.Job(["BinaryCrossEntropy"], {"decided": example}, {"task": "binary"})
    monkeypatch.setitem(figures.ALL, "infinite", job)
    table = pd.read_parquet(run("infinite") / "metrics.parquet")
    assert (table["value"] == math.inf).all()
