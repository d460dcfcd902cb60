"""What the demos' tests share."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

TABLES = ("metrics", "confusion", "comparisons")


@pytest.fixture
def rebuild_and_merge(evalbeam: Callable, tmp_path: Path) -> Callable[[Path], None]:
    """Runs a demo's config; its results rebuilt, and of its files merged, must be the same."""

    def run(settings: dict, run_id: str) -> Path:
        (tmp_path / "job.yaml").write_text(yaml.safe_dump(settings))
        result = evalbeam("run", "job.yaml", "--run-id", run_id, "--output", "results")
        assert result.exit_code == 0, result.output
        return tmp_path / "results" / "runs" / run_id

    def check(path: Path) -> None:
        settings = yaml.safe_load(path.read_text())
        whole = run(settings, "whole")
        before = _digests(whole)
        assert evalbeam("results", whole).exit_code == 0
        assert _digests(whole) == before
        files = sorted(glob.glob(settings["data"]["files"]))
        assert len(files) > 1
        parts = []
        for number, file in enumerate(files):
            settings["data"]["files"] = file
            parts.append(run(settings, f"part-{number}"))
        result = evalbeam("merge", *parts, "--output", "merged", "--run-id", "merged")
        assert result.exit_code == 0, result.output
        merged = tmp_path / "merged" / "runs" / "merged"
        for name in TABLES:
            tables = [pd.read_parquet(folder / f"{name}.parquet") for folder in (merged, whole)]
            pd.testing.assert_frame_equal(*tables, rtol=1e-12, atol=1e-15)

    return check


def _digests(run: Path) -> dict[str, str]:
    return {
        path.relative_to(run).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in run.rglob("*")
        if path.is_file()
    }
