"""Results from saved states: rebuilt results equal the published, merged ones those of all data."""

from __future__ import annotations

import json
import pathlib
import re
import shutil
import subprocess
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
import yaml

from evalbeam.beam_jobs.publish import staging

TABLES = {
    "metrics": ["split", "slice", "model"],
    "confusion": ["split", "slice", "model", "threshold", "actual", "predicted"],
    "comparisons": ["split", "slice", "baseline", "candidate"],
}
WHICH = ["output", "metric", "class_id", "k", "top_k", "aggregation", "weighted", "threshold"]


def data(size: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"id": np.arange(size) + 1_000_000 * seed})
    frame["y"] = rng.integers(0, 2, size)
    frame["amount"] = rng.normal(10, 3, size)
    frame["w"] = rng.exponential(1, size)
    for name in ("p1", "p2"):
        frame[name] = np.clip(0.3 + 0.4 * frame["y"] + rng.normal(0, 0.2, size), 0, 1)
        frame[f"{name}_amount"] = frame["amount"] + rng.normal(0, 1, size)
    frame["p3"] = np.clip(frame["p1"] + rng.choice([0, 0, 0, 0.3], size), 0, 1)
    frame["p3_amount"] = frame["p1_amount"]
    frame["age"] = rng.integers(18, 90, size)
    frame["country"] = rng.choice(["fr", "de", "it", "x;y=z"], size)
    frame["device"] = rng.choice(["phone", "desktop"], size)
    return frame


def config(files: object, **more: object) -> dict:
    scores = [{"name": f"v{i}", "predictions": {"hit": f"p{i}", "spent": f"p{i}_amount"}}
              for i in (1, 2, 3)]  # fmt: skip
    scores[0]["baseline"] = True
    scores[2]["conversion_of"] = "v1"
    return {
        "name": "shops",
        "data": {
            "files": files,
            "label": {"hit": "y", "spent": "amount"},
            "weight": "w",
            "id": "id",
        },
        "models": scores,
        "task": {"hit": "binary", "spent": "regression"},
        "thresholds": [0.3, 0.5, 0.7],
        "slices": [
            ["country"],
            ["country", "device"],
            {"key": "age", "edges": [30, 60]},
            {"values": {"country": "it"}, "keys": ["device"]},
        ],
        "metrics": [
            "ExampleCount",
            {"class_name": "Recall", "outputs": ["hit"]},
            {"class_name": "AUC", "outputs": ["hit"]},
            {"class_name": "ConfusionMatrixPlot", "outputs": ["hit"]},
            {"class_name": "Recall", "outputs": ["hit"], "weighted": False},
            {"class_name": "MeanSquaredError", "outputs": ["spent"]},
        ],
        **more,
    }


def key_columns(table: str, frame: pd.DataFrame) -> list[str]:
    """The columns that identify a table's rows."""
    return list(dict.fromkeys([*TABLES[table], *(name for name in WHICH if name in frame)]))


def assert_same(run: pathlib.Path, expected: pathlib.Path) -> None:
    """Counts are equal to the bit, other numbers to 1e-12, whatever the runs' ids."""
    runs = (run, expected)
    for table in TABLES:
        left, right = (pd.read_parquet(folder / f"{table}.parquet") for folder in runs)
        pd.testing.assert_frame_equal(left, right, rtol=1e-12, atol=1e-15)
        assert not left.duplicated(key_columns(table, left)).any()
    frames = [pd.read_parquet(folder / "metrics.parquet") for folder in runs]
    counts = [frame[frame["metric"] == "example_count"]["value"].to_numpy() for frame in frames]
    assert (counts[0] == counts[1]).all()
    left, right = (json.loads((folder / "findings.json").read_text()) for folder in runs)
    assert [finding["verdict"] for finding in left] == [finding["verdict"] for finding in right]
    for before, after in zip(left, right, strict=True):
        for name in ("examples", "changed", "differences", "largest_difference", "agreement"):
            assert before["evidence"][name] == after["evidence"][name], name
        worst = [finding["evidence"]["worst_slice"] or {} for finding in (before, after)]
        assert worst[0].get("slice") == worst[1].get("slice")
    left, right = (
        json.loads((folder / "manifest.json").read_text())["data"]["eval"] for folder in runs
    )
    for name in ("read", "scored", "dead_lettered", "fingerprint"):
        assert left[name] == right[name], name


@pytest.fixture
def runs(run_job, tmp_path):
    """Runs the config over parts of the data, and over the whole data."""
    whole = data(3000)

    def run(*bounds: int, **more: object) -> tuple[pathlib.Path, list[pathlib.Path]]:
        published = []
        for number, part in enumerate(np.split(np.arange(len(whole)), bounds)):
            whole.iloc[part].to_parquet(tmp_path / f"part-{number}.parquet")
            job = config(f"part-{number}.parquet", **more)
            published.append(run_job(job, "--run-id", f"part-{number}"))
        files = [f"part-{number}.parquet" for number in range(len(bounds) + 1)]
        return run_job(config(files, **more), "--run-id", "whole"), published

    return run


@pytest.fixture
def merge_runs(evalbeam, tmp_path):
    """Merges runs; returns the folder of the merged run."""

    def merge(name: str, *parts: pathlib.Path) -> pathlib.Path:
        result = evalbeam("merge", *parts, "--output", "merged", "--run-id", name)
        assert result.exit_code == 0, result.output
        return tmp_path / "merged" / "runs" / name

    return merge


def test_rebuilt_results_equal_the_published(run_job, assert_rebuilds, tmp_path):
    data(2000).to_parquet(tmp_path / "data.parquet")
    data(500, 1).to_parquet(tmp_path / "train.parquet")
    job = config("data.parquet", slices=[["country"], {"key": "age", "quantiles": 4}])
    job["data"]["splits"] = {"train": "train.parquet"}
    run = run_job(job)
    (tmp_path / "data.parquet").unlink()  # neither data nor models are needed
    assert_rebuilds(run)


def test_rebuilding_with_dead_letters_and_small_slices(run_job, assert_rebuilds, tmp_path):
    rows = [json.dumps(row) for row in data(300).to_dict("records")]
    rows[17] = rows[17][:20]
    (tmp_path / "data.jsonl").write_text("\n".join(rows) + "\n")
    job = config("data.jsonl", min_slice_size=40)
    job["data"]["max_dead_letters"] = 0.1
    run = run_job(job)
    frame = pd.read_parquet(run / "metrics.parquet")
    assert frame["n"].min() >= 40
    assert (run / "dead_letter" / "rows.jsonl").read_text().count("\n") == 1
    assert_rebuilds(run)


def test_the_order_of_rows_does_not_depend_on_parts(
    run_job, assert_rebuilds, tmp_path, monkeypatch
):
    from evalbeam.transforms.results import index
    from evalbeam.transforms.sinks import tables
    from evalbeam.transforms.stages import aggregate

    data(2000).to_parquet(tmp_path / "data.parquet")
    whole = run_job(config("data.parquet"), "--run-id", "whole")
    monkeypatch.setattr(aggregate, "_PARTITION_CELLS", 1 << 12)
    monkeypatch.setattr(index, "_TASK_CELLS", 1 << 12)
    in_parts = run_job(config("data.parquet"), "--run-id", "in-parts")
    assert len(list((in_parts / "state").glob("table-*"))) > 4
    assert len(list((in_parts / "tfma").glob("metrics-*"))) > 2
    assert_same(in_parts, whole)
    assert_rebuilds(in_parts)
    monkeypatch.setattr(tables, "_FILE_ROWS", 100)
    folder = run_job(config("data.parquet"), "--run-id", "folder")
    for table in TABLES:
        assert len(list((folder / f"{table}.parquet").glob("part-*.parquet"))) > 2
        left, right = (
            pd.read_parquet(run / f"{table}.parquet")
            .astype(dict.fromkeys(["split", "slice"], str))
            .sort_values(key_columns(table, pd.read_parquet(whole / f"{table}.parquet")))
            .reset_index(drop=True)
            for run in (folder, whole)
        )
        pd.testing.assert_frame_equal(left, right, check_categorical=False, check_exact=True)
    assert_rebuilds(folder)


@pytest.mark.parametrize("bounds", [(1,), (1500,), (700, 1400, 2999)])
def test_merged_parts_equal_the_whole(runs, merge_runs, assert_rebuilds, bounds):
    whole, parts = runs(*bounds)
    merged = merge_runs("merged", *parts)
    assert_same(merged, whole)
    manifest = json.loads((merged / "manifest.json").read_text())
    assert manifest["merged"] == [f"part-{number}" for number in range(len(parts))]
    assert len(manifest["data"]["eval"]["files"]) == len(parts)
    assert_rebuilds(merged)


def test_merging_commutes_and_associates(runs, merge_runs):
    whole, (a, b, c) = runs(1000, 1800)
    assert_same(merge_runs("cba", c, b, a), whole)
    assert_same(merge_runs("ab_c", merge_runs("ab", a, b), c), whole)
    assert_same(merge_runs("a_bc", a, merge_runs("bc", b, c)), whole)


def test_latest_is_resolved_to_the_run_it_names(run_job, evalbeam, tmp_path):
    for number in (0, 1):
        data(200, number).to_parquet(tmp_path / f"{number}.parquet")
        run_job(config(f"{number}.parquet", output=f"results-{number}"))
    result = evalbeam("merge", "results-0/latest", "results-1/latest", "--output", "merged")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "merged" / "latest" / "manifest.json").exists()
    result = evalbeam("results", "merged/latest", "--output", "copy", "--run-id", "copy")
    assert result.exit_code == 0, result.output
    assert_same(tmp_path / "copy" / "latest", tmp_path / "merged" / "latest")


# Which results of another config can be computed from the state, and which cannot.


def other_config(tmp_path: pathlib.Path, **changes: object) -> pathlib.Path:
    path = tmp_path / "other.yaml"
    path.write_text(yaml.safe_dump(config("data.parquet", **changes)))
    return path


def test_another_config_that_needs_no_new_data(run_job, evalbeam, tmp_path, digest_files):
    data(1000).to_parquet(tmp_path / "data.parquet")
    run = run_job(config("data.parquet"), "--run-id", "first")
    before = digest_files(run)
    changes = {
        "thresholds": [0.7, 0.5],
        "min_slice_size": 100,
        "conversion": {"good": 0.3, "acceptable": 0.5, "bad": 0.9},
        "metrics": [
            {"class_name": "Precision", "outputs": ["hit"], "config": {"thresholds": 0.3}},
            {"class_name": "AUC", "outputs": ["hit"]},
        ],
    }
    path = other_config(tmp_path, **changes)
    result = evalbeam("results", run, "--config", path, "--output", "other", "--run-id", "second")
    assert result.exit_code == 0, result.output
    assert digest_files(run) == before
    derived = tmp_path / "other" / "runs" / "second"
    fresh = run_job(config("data.parquet", **changes), "--run-id", "fresh")
    assert_same(derived, fresh)
    result = evalbeam("results", derived)
    assert result.exit_code == 0, result.output
    assert_same(derived, fresh)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"thresholds": [0.4]}, "does not keep the sums that these need: .*confusion at 0.4"),
        (
            {
                "metrics": [
                    {"class_name": "Recall", "config": {"thresholds": 0.9}, "outputs": ["hit"]}
                ]
            },
            r"recall \(confusion at 0\.9 of v1",
        ),
        (
            {"metrics": [{"class_name": "BinaryCrossentropy", "outputs": ["hit"]}]},
            r"binary_crossentropy \(clipped cross entropy of v1",
        ),
        ({"metrics": [{"class_name": "NDCG", "config": {"gain_key": "w"}}]}, "computed by TFMA"),
        ({"thresholds": [0.7, 0.3]}, "decisions at 0.7 of v1"),
    ],
)
def test_metrics_whose_sums_are_not_kept_are_rejected(
    run_job, evalbeam, tmp_path, changes, message
):
    data(200).to_parquet(tmp_path / "data.parquet")
    run = run_job(config("data.parquet"))
    result = evalbeam(
        "results", run, "--config", other_config(tmp_path, **changes), "--output", "other"
    )
    assert result.exit_code == 2, result.output
    assert re.search(message, result.output), result.output
    assert not (tmp_path / "other" / "runs").exists()


def test_changes_of_the_config_that_need_new_data_are_reported(run_job, evalbeam, tmp_path):
    data(200).to_parquet(tmp_path / "data.parquet")
    run = run_job(config("data.parquet"))
    path = other_config(tmp_path, slices=[["device"]], confidence={"units": 7})
    result = evalbeam("results", run, "--config", path, "--output", "other")
    assert result.exit_code == 0, result.output
    note = "ignored, since they differ from the run's config and need a new run: `slices`, "
    assert f"{note}`confidence`" in result.output
    frame = pd.read_parquet(tmp_path / "other" / "latest" / "metrics.parquet")
    assert "country=fr" in set(frame["slice"])


def test_a_config_without_metrics_gives_the_usual_ones(run_job, evalbeam, tmp_path):
    data(500).to_parquet(tmp_path / "data.parquet")
    plain = config("data.parquet")
    names = ["ExampleCount", "AUC", "BinaryAccuracy", "Precision", "Recall", "F1Score"]
    names += ["AUCPrecisionRecall", "BinaryCrossentropy", "Calibration"]
    plain["metrics"] = [{"class_name": name, "outputs": ["hit"]} for name in names]
    plain["metrics"] += [
        {"class_name": f"Mean{name}", "outputs": ["spent"]}
        for name in ("SquaredError", "AbsoluteError", "Label", "Prediction")
    ]
    run = run_job(plain, "--run-id", "all")
    path = other_config(tmp_path)
    settings = yaml.safe_load(path.read_text())
    del settings["metrics"]
    path.write_text(yaml.safe_dump(settings))
    result = evalbeam("results", run, "--config", path, "--output", "other")
    assert result.exit_code == 0, result.output
    assert_same(tmp_path / "other" / "latest", run_job(settings, "--run-id", "fresh"))


def test_what_an_eval_config_says_otherwise_of_the_data_is_rejected(run_job, evalbeam, tmp_path):
    data(200).to_parquet(tmp_path / "data.parquet")
    job = {
        "data": {"files": "data.parquet", "label": "y"},
        "models": [{"name": "v1", "predictions": "p1"}, {"name": "v2", "predictions": "p2"}],
        "slices": [["country"]],
        "metrics": ["AUC", "ExampleCount"],
    }
    run = run_job(job)
    specs = "".join(f'model_specs {{ name: "{name}" MARK{name} }}\n' for name in ("v1", "v2"))
    metrics = 'metrics_specs { metrics { class_name: "ExampleCount" } }\n'
    del job["slices"], job["metrics"]
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(job | {"eval_config": "e.pbtxt"}))
    for marks, slicing, message in (
        ({"v1": "is_baseline: true"}, "country", None),
        ({"v1": "is_baseline: true"}, "device", "e.pbtxt has slices that differ from the run's"),
        ({"v2": "is_baseline: true"}, "country", "e.pbtxt has the baseline that differ"),
        ({"v1": 'example_weight_key: "w"'}, "country", "e.pbtxt has the weight that differ"),
    ):
        text = specs
        for name in ("v1", "v2"):
            text = text.replace(f"MARK{name}", marks.get(name, ""))
        text += f'{metrics}slicing_specs {{ feature_keys: "{slicing}" }}'
        (tmp_path / "e.pbtxt").write_text(text)
        arguments = ("results", run, "--config", "other.yaml", "--output", f"out-{slicing}")
        result = evalbeam(*arguments, "--run-id", f"run-{message is None}")
        assert result.exit_code == (0 if message is None else 2), result.output
        assert message is None or message in result.output, result.output


def test_the_largest_minimum_slice_size_is_used(two_runs, run_job, evalbeam, tmp_path):
    job = config("1.parquet", min_slice_size=60)
    other = run_job(job, "--run-id", "other")
    result = evalbeam("merge", two_runs[0], other, "--output", "m")
    assert result.exit_code == 0, result.output
    assert "min_slice_size: the runs differ; 60, the largest, is used" in result.output
    assert pd.read_parquet(tmp_path / "m" / "latest" / "metrics.parquet")["n"].min() >= 60


def test_files_that_several_runs_read_are_reported(two_runs, run_job, evalbeam, tmp_path):
    data(300, 7).to_parquet(tmp_path / "1.parquet")  # other rows under the name
    other = run_job(config("1.parquet"), "--run-id", "other")
    result = evalbeam("merge", *two_runs, other, "--output", "m")
    assert result.exit_code == 0, result.output
    assert "1.parquet was read by 2 of the runs" in result.output


# Bad input: an error, and nothing is written.


@pytest.fixture
def two_runs(run_job, tmp_path) -> Iterator[list[pathlib.Path]]:
    """Two runs of the same config over different data."""
    runs = []
    for number in (0, 1):
        data(200, number).to_parquet(tmp_path / f"{number}.parquet")
        runs.append(run_job(config(f"{number}.parquet"), "--run-id", f"run-{number}"))
    return runs


def test_a_run_is_never_merged_twice(two_runs, rejected, tmp_path, evalbeam):
    output = rejected("merge", two_runs[0], two_runs[0], "--output", "m")
    assert "both include the run 'run-0': its examples would count twice" in output
    result = evalbeam("merge", *two_runs, "--output", "both", "--run-id", "both")
    assert result.exit_code == 0, result.output
    output = rejected("merge", two_runs[1], "both/latest", "--output", "m")
    assert "both include the run 'run-1'" in output


def test_the_same_data_are_never_merged_twice(run_job, rejected, tmp_path):
    data(200).to_parquet(tmp_path / "data.parquet")
    run = run_job(config("data.parquet"), "--run-id", "run")
    shutil.copy(tmp_path / "data.parquet", tmp_path / "copy.parquet")
    copy = run_job(config("copy.parquet"), "--run-id", "copy")
    output = rejected("merge", run, copy, "--output", "m")
    assert "have the same 200 examples in split 'eval' (fingerprint" in output


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"slices": [["country"]]},
            "they differ in slices or their edges: country x device; age cut at 30, 60; country=it "
            "x device only in the first, nothing only in the second",
        ),
        (
            {"thresholds": [0.5]},
            "thresholds: 0.3; 0.7 only in the first, nothing only in the second",
        ),
        ({"confidence": {"units": 20}}, "confidence.units: 50 in the first, 20 in the second"),
        (
            {"metrics": [{"class_name": "AUC", "outputs": ["hit"]}]},
            "metrics: ExampleCount {}; Recall {}",
        ),
    ],
)
def test_runs_of_different_evaluations_are_not_merged(
    two_runs, run_job, rejected, tmp_path, changes, message
):
    other = run_job(config("1.parquet", **changes), "--run-id", "other")
    output = rejected("merge", two_runs[0], other, "--output", "m")
    assert message in output, output


def test_runs_with_different_id_columns_or_edges_are_not_merged(
    two_runs, run_job, rejected, tmp_path
):
    job = config("1.parquet")
    del job["data"]["id"]
    other = run_job(job, "--run-id", "content")
    output = rejected("merge", two_runs[0], other, "--output", "m")
    assert "the id column: id in the first, None in the second" in output
    quantiles = {"slices": [{"key": "age", "quantiles": 3}]}
    parts = [
        run_job(config(f"{number}.parquet", **quantiles), "--run-id", f"cut-{number}")
        for number in (0, 1)
    ]
    output = rejected("merge", *parts, "--output", "m")
    assert "slices or their edges: age cut at " in output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predictions": {"hit": "p2", "spent": "p3_amount"}}, "predictions of version 'v2': "),
        ({"predictions": {"hit": "p2", "spent": "p2_amount"}}, None),
    ],
)
def test_runs_of_other_stored_predictions_are_not_merged(
    two_runs, run_job, rejected, evalbeam, change, message
):
    job = config("1.parquet")
    job["models"][1] |= change
    other = run_job(job, "--run-id", "other")
    if message is not None:
        assert message in rejected("merge", two_runs[0], other, "--output", "m")
    else:
        assert evalbeam("merge", two_runs[0], other, "--output", "m").exit_code == 0


def test_runs_of_different_models_are_not_merged(two_runs, rejected):
    path = two_runs[1] / "state" / "run.json"
    run = json.loads(path.read_text())
    run["models"]["v2"]["sha256"] = "0" * 64
    path.write_text(json.dumps(run))
    output = rejected("merge", *two_runs, "--output", "m")
    assert "sha256 of version 'v2': None in the first, 0000000" in output


def test_folders_that_are_not_runs(two_runs, rejected, tmp_path):
    for arguments in (("results", "nowhere"), ("merge", two_runs[0], "nowhere", "--output", "m")):
        assert "is not a run folder with a complete state" in rejected(*arguments)
    assert "merge needs at least two runs" in rejected("merge", two_runs[0], "--output", "m")


def test_a_run_without_a_valid_state(two_runs, rejected):
    (two_runs[0] / "state" / "index.json").unlink()
    assert "index.json cannot be read" in rejected("results", two_runs[0])
    path = two_runs[1] / "state" / "evaluation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 99}))
    output = rejected("merge", two_runs[1], two_runs[1], "--output", "m")
    assert "written in version 99 of the state's format; this evalbeam reads version" in output


def test_a_damaged_part_fails_the_job_and_keeps_the_run(two_runs, evalbeam, digest_files):
    (part,) = (two_runs[0] / "state").glob("table-*")
    content = bytearray(part.read_bytes())
    content[100] ^= 1
    part.write_bytes(content)
    before = digest_files(two_runs[0])
    result = evalbeam("results", two_runs[0])
    assert result.exit_code == 4, result.output
    assert "damaged: its SHA-256 digest differs from the one in index.json" in result.output
    assert digest_files(two_runs[0]) == before


def test_an_output_that_exists(two_runs, rejected):
    output = rejected("results", two_runs[0], "--output", "results")
    assert "already exists" in output
    assert "--config needs --output FOLDER" in rejected(
        "results", two_runs[0], "--config", "job.yaml"
    )
    output = rejected("merge", *two_runs, "--output", "results", "--run-id", "run-0")
    assert "already exists" in output


def test_results_are_not_rebuilt_if_sums_are_lost(two_runs, evalbeam, digest_files):
    path = two_runs[0] / "state" / "ledger.json"
    ledger = json.loads(path.read_text())
    ledger["scored"]["eval"] += 1
    path.write_text(json.dumps(ledger))
    before = digest_files(two_runs[0])
    result = evalbeam("results", two_runs[0])
    assert result.exit_code == 4, result.output
    assert "Split 'eval': 200 rows were read, but 201 scored and 0 rejected" in result.output
    assert digest_files(two_runs[0]) == before


def test_results_of_another_config_are_not_merged(two_runs, evalbeam, rejected, tmp_path):
    path = other_config(tmp_path, min_slice_size=9)
    result = evalbeam("results", two_runs[0], "--config", path, "--output", "other")
    assert result.exit_code == 0, result.output
    output = rejected("merge", "other/latest", two_runs[1], "--output", "m")
    assert "its results were made with another config" in output


def test_runs_with_different_splits_are_not_merged(two_runs, run_job, rejected):
    job = config("1.parquet")
    job["data"]["splits"] = {"train": "0.parquet"}
    other = run_job(job, "--run-id", "other")
    output = rejected("merge", two_runs[0], other, "--output", "m")
    assert "splits: nothing only in the first, train only in the second" in output


def test_a_run_that_was_being_replaced_comes_back(two_runs, assert_rebuilds):
    """What a process killed between the two renames leaves."""
    run = two_runs[0]
    left = run.parent / ".staging" / f"{run.name}@old@{staging._machine()}@{_dead_process()}"
    left.parent.mkdir()
    run.rename(left)
    half = run.parent / ".staging" / f"{run.name}@{staging._machine()}@{_dead_process()}"
    half.mkdir()
    assert staging.resolve(str(run)) == str(run)
    assert run.exists()
    assert_rebuilds(run)


def _dead_process() -> int:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return process.pid


def test_a_folder_of_any_name_holds_runs(run_job, evalbeam, assert_rebuilds, tmp_path):
    data(200).to_parquet(tmp_path / "data.parquet")
    for name in ("with [brackets]", "st*r", "ünï"):
        run = run_job(config("data.parquet", output=name), "--run-id", "one")
        assert_rebuilds(run)


def test_a_folder_of_runs_is_not_a_run(two_runs, rejected, tmp_path):
    assert f"did you mean {tmp_path}/results/latest?" in rejected("results", "results")


def test_a_flag_of_beam_without_its_value(two_runs, rejected):
    output = rejected("results", two_runs[0], "--direct_num_workers")
    assert "argument --direct_num_workers: expected one argument" in output
    assert output.count("\n") == 1
