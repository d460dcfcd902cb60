"""Whole runs give the figures that other projects publish, or differ from them for a reason."""

from __future__ import annotations

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
    models = [{"name": name, **job.model, "predictions": name} for name in ("p", "q")]
    weighted = any(example.w for example in job.examples.values())
    return {
        "data": {
            "files": f"{folder}/data.jsonl",
            "label": "y",
            **({"weight": "w"} if weighted else {}),
            **job.data,
        },
        "models": models,
        "slices": [["example"], *slices],
        "metrics": job.metrics,
        "output": f"{folder}/results",
        **job.config,
    }


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """By the name of a job, its metrics and confusion matrices; each job runs once."""

    @functools.cache
    def run(name: str) -> tuple[click.testing.Result, pathlib.Path]:
        folder = tmp_path_factory.mktemp(name)
        job = figures.JOBS[name]
        (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in _rows(job)))
        (folder / "job.yaml").write_text(yaml.safe_dump(_config(job, str(folder))))
        result = click.testing.CliRunner().invoke(cli.main, ["run", str(folder / "job.yaml")])
        return result, folder / "results" / "latest"

    @functools.cache
    def read(name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        result, latest = run(name)
        assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
        tables = (
            pd.read_parquet(latest / f"{table}.parquet") for table in ("metrics", "confusion")
        )
        metrics, confusion = (table.astype({"slice": str}).set_index("slice") for table in tables)
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
    rows = rows[(rows["metric"] == name) & (rows["aggregation"].fillna("") == average)]
    if threshold is not None:
        rows = rows[rows["threshold"] == threshold]
    # A figure about two versions is the second one's.
    rows = rows[rows["model"] == ("q" if "flip_rate" in name else "p")]
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
        # Single precision first: of 2.4999999 most projects print 2.5.
        exact = Decimal(f"{value:.9g}") if math.isfinite(value) else Decimal("NaN")
        ways = (ROUND_HALF_UP, ROUND_DOWN)
        return math.isfinite(value) and any(
            exact.quantize(last, rounding=way) == Decimal(figure) for way in ways
        )
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


@pytest.mark.parametrize(
    "different", figures.DIFFERENT, ids=lambda d: f"{d.job}-{d.example}-{d.key}"
)
def test_figures_that_differ_for_a_reason(results, different):
    value = _value(results, different.job, different.example, different.part, different.key)
    assert _agrees(value, different.value), different.why
    assert not _agrees(value, different.figure), f"no longer different: {different.why}"


def test_every_example_names_its_source_and_is_used():
    different = {(d.job, d.example) for d in figures.DIFFERENT}
    for name, job in figures.JOBS.items():
        for key, example in job.examples.items():
            assert example.source.split()[0].rstrip(",") in figures.PROJECTS, key
            assert example.figures or example.slices or (name, key) in different, key
