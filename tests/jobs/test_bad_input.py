"""Every mistake is reported with its location, value and remedy; nothing is published."""

import errno
import gzip
import io
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from tfx_bsl.coders import example_coder

from evalbeam.transforms.examples import scoring
from evalbeam.transforms.formats import files, tfrecord
from evalbeam.transforms.stages import aggregate, predict


@pytest.fixture
def data(tmp_path):
    """200 good rows in data.csv and data.parquet."""
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "label": rng.integers(0, 2, 200),
            "score": rng.random(200),
            "country": rng.choice(["de", "fr"], 200),
        }
    )
    frame.to_csv(tmp_path / "data.csv", index=False)
    frame.to_parquet(tmp_path / "data.parquet")
    return frame


@pytest.fixture
def fails(evalbeam, tmp_path):
    """Runs a config that must fail and leave nothing behind; returns what is printed."""

    def run(config, exit_code, *flags):
        before = os.path.realpath(tmp_path / "results" / "latest")
        path = tmp_path / "job.yaml"
        path.write_text(config if isinstance(config, str) else yaml.safe_dump(config))
        result = evalbeam("run", path, *flags)
        assert result.exit_code == exit_code, f"{result.output}\n{result.exception!r}"
        assert os.path.realpath(tmp_path / "results" / "latest") == before
        assert not (tmp_path / "results" / ".staging").exists()
        assert "Traceback" not in result.output
        return result.output

    return run


def job(**changes):
    config = {
        "data": {"files": "data.csv", "label": "label"},
        "models": [{"name": "v1", "predictions": "score"}],
        "metrics": ["BinaryAccuracy"],
    }
    for key, value in changes.items():
        config[key] = config[key] | value if isinstance(value, dict) else value
    return config


def test_unknown_config_key(fails, data):
    text = "data:\n  files: data.csv\n  lable: label\nmodels:\n  - {name: v1, predictions: s}\n"
    output = fails(text, 2)
    assert "job.yaml:3: data.lable: unknown key 'lable'; did you mean 'label'?" in output


@pytest.mark.parametrize("error", [None, MemoryError()])
@pytest.mark.parametrize("place", [(predict.scoring, "score"), (aggregate.adding, "Adder")])
def test_memory_that_runs_out_is_named(fails, data, monkeypatch, error, place):
    def allocate(*_, **__):
        if error is not None:
            raise error
        return np.empty(1 << 55)

    monkeypatch.setattr(*place, allocate)
    printed = fails(job(), 4)
    what = ": Unable to allocate 256. PiB for an array" if error is None else ""
    assert f"error: out of memory{what}" in printed
    assert re.search(r"this machine, or its container, has .* GB. A smaller `data.batch_s", printed)
    assert len(printed.splitlines()) < 5


def test_passwords_in_urls_are_refused_and_not_printed(fails, evalbeam, data, tmp_path):
    url = "s3://key:hidden-word@bucket/results"
    message = "error: s3://(hidden)@bucket/results: a URL may not hold a password"
    for config in (job(data={"files": url}), job(models=[{"name": "v1", "path": url}])):
        assert message in fails(config, 2)
    for arguments in (("run", "job.yaml", "--output", url), ("results", url)):
        (tmp_path / "job.yaml").write_text(yaml.safe_dump(job()))
        result = evalbeam(*arguments)
        assert result.exit_code == 2
        assert message in result.output
    flags = ("--runner=FlinkRunner", "--flink_master=http://key:hidden-word@localhost:1")
    printed = fails(job(), 4, *flags)
    assert "http://(hidden)@localhost:1" in printed
    assert "hidden-word" not in printed


def test_names_in_data_cannot_control_the_terminal(fails, evalbeam, tmp_path):
    evil = "\x1b[2J\x1b[1;1Hall good\n0 dead letters\u202e\x9b"
    rows = {"label": [0, 1] * 40, "score": [0.2, 0.7] * 40, evil: [evil] * 80}
    pd.DataFrame(rows).to_parquet(tmp_path / "data.parquet")
    pd.DataFrame(rows).assign(label=[evil, "no"] * 40).to_parquet(tmp_path / "named.parquet")
    config = job(data={"files": "data.parquet"}, slices=[[evil]])
    for content in (config, job(data={"files": "named.parquet"})):
        (tmp_path / "job.yaml").write_text(yaml.safe_dump(content))
        printed = [evalbeam("run", "job.yaml", *flags) for flags in (["--dry-run"], [])]
        assert [result.exit_code for result in printed] == [0, 0]
        for result in printed:
            assert "\\x1b[2J" in result.output
            assert "\n0 dead" not in result.output
            assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", result.output)
    config["data"]["label"] = "lable"
    printed = fails(config, 2)
    assert "'\\x1b[2J" in printed
    assert "\x1b" not in printed


@pytest.mark.parametrize(
    "metric",
    [
        {"class_name": "AUC", "config": {"num_thresholds": 10**11}},
        {"class_name": "AUC", "config": {"num_thresholds": 1e11}},
        {"class_name": "CalibrationPlot", "config": {"num_buckets": 10**11}},
        {"class_name": "ConfusionMatrixPlot", "config": {"num_thresholds": 10**11}},
        {"class_name": "ExpectedCalibrationError", "config": {"num_bins": 10**11}},
    ],
    ids=str,
)
def test_what_would_not_fit_into_memory(fails, data, metric):
    printed = fails(job(metrics=[metric]), 2)
    assert re.search(
        r"has num_\w+ 100,000,000,000.*would not fit into memory; at most 1,0", printed
    )


def test_config_that_is_not_yaml(fails):
    assert "not valid YAML" in fails("data: [", 2)


def test_a_key_that_appears_twice(fails, data):
    text = "data: {files: data.csv, label: label}\nslices: []\nmodels: []\nslices: [[country]]\n"
    assert "job.yaml:4: 'slices' appears twice (first on line 2)" in fails(text, 2)


def test_metrics_of_the_same_name(fails, data):
    metrics = [{"class_name": "RecallAtPrecision", "config": {"precision": p}} for p in (0.7, 0.9)]
    assert "both named 'recall_at_precision'" in fails(job(metrics=metrics), 2)


def test_latest_that_is_not_a_link(fails, tmp_path, data):
    (tmp_path / "results" / "latest").mkdir(parents=True)
    assert "results/latest is not a link" in fails(job(), 2)


def test_slice_values_that_yaml_reads_as_booleans(fails, data):
    output = fails(job(slices=[{"values": {"country": False}}]), 2)
    assert "put the value in quotes" in output


def test_class_that_does_not_exist(fails, data):
    metrics = [{"class_name": "AUC", "binarize": {"class_ids": [7]}}]
    assert "class id 7; valid ids: none, as the task is binary" in fails(job(metrics=metrics), 2)


def test_slice_names_are_not_markup(evalbeam, tmp_path, data):
    data["country"] = ["[/b]x", "[red]y"] * 100
    data.to_csv(tmp_path / "data.csv", index=False)
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job(slices=[["country"]])))
    result = evalbeam("run", "job.yaml")
    assert result.exit_code == 0, result.output
    assert "country=[/b]x" in result.output or "country=[red]y" in result.output


def test_an_empty_file_among_others(evalbeam, tmp_path, data):
    (tmp_path / "data-2.csv").write_text("")
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job(data={"files": "data*.csv"})))
    assert evalbeam("run", "job.yaml").exit_code == 0


def test_unknown_task(fails, data):
    output = fails(job(task="classification"), 2)
    assert "task: must be one of 'binary', 'multiclass', 'multilabel' or 'regression'" in output
    assert "literal" not in output


def test_run_id_that_is_a_path(fails, data):
    assert "--run-id '../evil'" in fails(job(), 2, "--run-id=../evil")


def test_unknown_runner(fails, data):
    assert "--runner=DirectRuner" in fails(job(), 2, "--runner=DirectRuner")


def test_metrics_of_models_and_outputs_that_do_not_exist(fails, data):
    output = fails(job(metrics=[{"class_name": "AUC", "models": ["v2"]}]), 2)
    assert "AUC is for model 'v2', but the models are 'v1'" in output
    output = fails(job(metrics=[{"class_name": "AUC", "outputs": ["x"]}]), 2)
    assert "AUC is for output 'x'" in output


def test_a_classification_metric_on_a_regression(fails, data):
    assert "AUC is for classification" in fails(job(task="regression", metrics=["AUC"]), 2)


def test_keys_of_a_later_version(fails, data):
    output = fails(job(gates=[{"metric": "Recall", "min": 0.8}]), 2)
    assert "does not evaluate gates" in output


def test_missing_config(evalbeam):
    result = evalbeam("run", "none.yaml")
    assert result.exit_code == 2
    assert "none.yaml: cannot read the config" in result.output


def test_missing_file(fails, data):
    output = fails(job(data={"files": "dta.csv"}), 2)
    assert "dta.csv" in output
    assert "data.csv" in output  # the nearest name that is there


def test_empty_glob(fails, data):
    output = fails(job(data={"files": "eval-*.csv"}), 2)
    assert "eval-*.csv" in output


def test_empty_data(fails, tmp_path):
    (tmp_path / "data.csv").write_text("label,score\n")
    assert "data.csv" in fails(job(), 2)


def test_label_column_absent(fails, data):
    output = fails(job(data={"label": "lable"}), 2)
    assert "job.yaml:3: data.label: data.csv has no column 'lable'. Did you mean 'label'?" in output


def test_of_many_columns_the_nearest_are_listed(fails, data, tmp_path):
    more = pd.DataFrame(0, index=data.index, columns=[f"feature_{i}" for i in range(200)])
    pd.concat([data, more], axis=1).to_csv(tmp_path / "data.csv", index=False)
    output = fails(job(data={"weight": "feature7"}), 2)
    assert "data.weight: data.csv has no column 'feature7'. Did you mean 'feature_7'?" in output
    assert "(203 in all)" in output
    assert len(output) < 400


@pytest.mark.parametrize(("value", "message"), [(np.nan, "nan"), (3.0, "3"), (None, "missing")])
def test_bad_label(fails, tmp_path, data, value, message):
    labels = data["label"].astype(float).to_list()
    labels[150] = value
    table = pa.table({"label": pa.array(labels, pa.float64()), "score": data["score"]})
    pq.write_table(table, tmp_path / "data.parquet")
    output = fails(job(task="binary", data={"files": "data.parquet"}), 2)
    assert "data.parquet" in output
    assert "[while running" not in output
    assert "row 151 (counted from 1)" in output
    assert "label" in output
    assert message in output.lower()


def test_model_path_absent(fails, data):
    output = fails(job(models=[{"name": "v1", "path": "models/v1"}]), 2)
    assert "models/v1" in output
    assert "'v1'" in output


def test_predictions_column_absent(fails, data):
    output = fails(job(models=[{"name": "v1", "predictions": "scores"}]), 2)
    assert "'scores'" in output
    assert "'score'" in output


def test_slice_column_absent_from_a_declared_schema(fails, data):
    output = fails(job(slices=[["contry"]]), 2)
    assert "contry" in output
    assert "Did you mean 'country'?" in output


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ([{"class_name": "AUC", "config": {"name": 5}}], "the name of AUC is not text: 5"),
        (
            ["AUC", {"class_name": "Hinge", "config": {"name": "auc"}}],
            "AUC and Hinge are both named 'auc'",
        ),
        (
            [{"class_name": "AUC", "config": {"name": "changed_decisions"}}],
            "'changed_decisions' is evalbeam's own",
        ),
    ],
)
def test_names_of_metrics(fails, data, metrics, message):
    assert message in fails(job(metrics=metrics), 2)


@pytest.mark.parametrize("column", ["pairs", "table"])
def test_columns_of_unsupported_types(fails, tmp_path, column):
    pairs = pa.array([[{"a": 1}], []])
    table = pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int64()))
    columns = {"label": [0, 1], "score": [0.1, 0.9], "pairs": pairs, "table": table}
    pq.write_table(pa.table(columns), tmp_path / "data.parquet")
    whole = job(data={"files": "data.parquet"}, slices=[[column]])
    assert f"column '{column}' holds values of type" in fails(whole, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'model_specs {\n  label_key: "label"\n  example_weight_key: "scor"\n}',
            "eval.pbtxt:3: data.csv has no column 'scor'. Did you mean 'score'? Its columns: ",
        ),
        (
            'model_specs { label_key: "label" }\nslicing_specs { feature_keys: "contry" }',
            "eval.pbtxt:2: data.csv has no column 'contry'. Did you mean 'country'?",
        ),
        (
            'model_specs { label_key: "label" }\nmetrics_specs {\n'
            '  metrics { class_name: "log_loss" }\n}',
            "eval.pbtxt:3: Unknown metric 'log_loss'. Did you mean LogLoss?",
        ),
        (
            'model_specs { label_key: "label" }\nmetrics_specs {\n  metrics {\n'
            '    class_name: "Recall"\n    config: \'"treshold": 0.5\'\n  }\n}',
            "eval.pbtxt:5: Metric Recall has no argument 'treshold'",
        ),
        (
            'model_specs { label_key: "label" }\nmetrics_specs {\n'
            '  metrics { class_name: "CategoricalAccuracy" }\n}',
            "eval.pbtxt:3: CategoricalAccuracy is for multiclass, but the task is binary",
        ),
        (
            'model_specs { label_key: "label" }\nmetrics_specs {\n  model_names: "zz"\n}',
            "eval.pbtxt:3: metrics_specs has model_names 'zz', but the models are 'v1'",
        ),
        (
            'model_specs { label_key: "label" }\nmetrics_specs {\n'
            '  metrics { class_name: "BinaryAccuracy" config: \'"threshold": 1.5\' }\n}',
            "eval.pbtxt:3: BinaryAccuracy has the threshold 1.5, but all scores of the first",
        ),
        (
            'model_specs { label_key: "label" }\nmetrics_specs {\n'
            '  metrics { class_name: "ConfusionMatrixAtThresholds"\n'
            "            config: '\"thresholds\": [0.5, -0.1, 2]' }\n}",
            "eval.pbtxt:3: ConfusionMatrixAtThresholds has the threshold -0.1, but all scores of",
        ),
    ],
)
def test_mistakes_in_an_eval_config_have_its_line(fails, tmp_path, data, text, message):
    (tmp_path / "eval.pbtxt").write_text(text)
    whole = {**job(), "eval_config": "eval.pbtxt", "data": {"files": "data.csv"}}
    del whole["metrics"]
    assert f"error: {message}" in fails(whole, 2)


@pytest.mark.parametrize("scale", [None, "as_is"])
def test_a_threshold_outside_the_scores_is_refused(fails, data, scale):
    whole = job(metrics=[{"class_name": "BinaryAccuracy", "config": {"threshold": 1.5}}])
    whole["models"] = [
        {"name": "v1", "predictions": "score", **({"scores": scale} if scale else {})}
    ]
    assert "BinaryAccuracy has the threshold 1.5, but all scores of the first" in fails(whole, 2)
    whole = {**whole, "metrics": ["AUC"], "thresholds": [0.5, -3]}
    assert "-3" in fails(whole, 2)


def test_a_metric_has_its_line(fails, data):
    text = "data: {files: data.csv, label: label}\nmodels: [{name: v1, predictions: score}]\n"
    metrics = "metrics:\n  - AUC\n  - class_name: Acuracy\n"
    assert "job.yaml:5: Unknown metric 'Acuracy'" in fails(text + metrics, 2)


def test_weight_column_absent_from_first_rows(fails, tmp_path, data):
    data.to_json(tmp_path / "data.jsonl", orient="records", lines=True)
    output = fails(job(data={"files": "data.jsonl", "weight": "contry"}), 2)
    assert "data.weight: column 'contry' is in none of the first 200 examples" in output
    assert "Did you mean 'country'? They have 'country', 'label', 'score'" in output


@pytest.mark.parametrize("data_keys", [{"weight": "w"}, {}])
def test_a_column_that_one_file_lacks(fails, tmp_path, data, data_keys):
    data.assign(w=1.0).to_csv(tmp_path / "data-1.csv", index=False)
    data.rename(columns={"country": "land"}).to_csv(tmp_path / "data-2.csv", index=False)
    column = data_keys.get("weight", "country")
    output = fails(job(data={"files": "data-*.csv", **data_keys}, slices=[[column]]), 2)
    assert f"error: data-2.csv has no column '{column}', which data-1.csv has. Its col" in output
    assert "add it, or remove the file from `data`" in output


def test_slice_column_absent_from_all_data(fails, tmp_path, data):
    data.to_json(tmp_path / "data.jsonl", orient="records", lines=True)
    output = fails(job(data={"files": "data.jsonl"}, slices=[["contry"]]), 2)
    assert "column 'contry' has no value in any of the 200 rows" in output


def test_slice_column_that_is_not_numeric(fails, data):
    output = fails(job(slices=[{"key": "country", "edges": [1, 2]}]), 2)
    assert "'country' has edges" in output


def test_unknown_flag(fails, data):
    assert "--dirct_num_workers" in fails(job(), 2, "--dirct_num_workers=2")


@pytest.mark.parametrize(
    ("flag", "meant"),
    [
        ("--runer=FlinkRunner", "unknown option --runer: .* Did you mean '--runner'?"),
        ("--paralellism=3", "unknown option --paralellism: .* Did you mean '--parallelism'?"),
        ("--direct_num_worker=2", "--direct_num_worker: .* mean '--direct_num_workers'?"),
        ("--outptu=x", "no such flag: --outptu; did you mean --output?"),
    ],
)
def test_flags_that_are_nearly_one(fails, data, flag, meant):
    assert re.search(meant.replace("?", r"\?"), fails(job(), 2, flag))


@pytest.mark.parametrize("flags", [(), ("--dry-run",)])
def test_a_url_with_one_slash(fails, data, flags):
    output = fails(job(), 2, "--output=s3:/bucket/x", *flags)
    assert "error: s3:/bucket/x: a URL has two slashes after the colon. Did you mean" in output
    assert "'s3://bucket/x'?" in output
    assert "'gs://bucket/a.csv'?" in fails(job(data={"files": "gs:/bucket/a.csv"}), 2, *flags)


def test_run_id_that_exists(evalbeam, fails, tmp_path, data):
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job()))
    assert evalbeam("run", "job.yaml", "--run-id", "r1").exit_code == 0
    assert "results are never changed" in fails(job(name="other"), 2, "--run-id", "r1")
    assert "results are never changed" in fails(job(), 2, "--run-id", "r1", "--engine=tfma")


def test_dry_run_runs_nothing(evalbeam, tmp_path, data):
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job(slices=[["country"]])))
    result = evalbeam("run", "job.yaml", "--dry-run")
    assert result.exit_code == 0
    assert "nothing was run" in result.output
    assert "overall; country" in result.output
    assert not (tmp_path / "results").exists()


def test_rows_that_cannot_be_read_are_dead_letters(fails, run_job, tmp_path, data):
    lines = (tmp_path / "data.csv").read_text().splitlines()
    lines[100] = "1,0.5"  # a value is missing
    lines[102] = "1,high,de"  # not a number
    (tmp_path / "data.csv").write_text("\n".join(lines) + "\n")
    output = fails(job(), 2)
    assert "2 of 200 rows could not be scored" in output
    assert "data.csv, row 100" in output
    assert "data.csv, row 102" in output
    assert "'high'" in output
    run = run_job(job(data={"max_dead_letters": 0.01}))
    letters = pd.read_json(run / "dead_letter" / "rows.jsonl", lines=True)
    assert letters["position"].to_list() == [99, 101]
    metrics = pd.read_parquet(run / "metrics.parquet")
    assert metrics["n"].to_list() == [198]


def test_nan_predictions_are_dead_letters(fails, tmp_path, data):
    data.loc[17, "score"] = np.nan
    table = pd.DataFrame(data)
    table.to_parquet(tmp_path / "data.parquet")
    assert pq.read_table(tmp_path / "data.parquet")["score"].null_count == 1
    output = fails(job(data={"files": "data.parquet"}), 2)
    assert "1 of 200 rows could not be scored" in output
    assert "row 18" in output


def test_a_damaged_row_group_counts_with_all_its_rows(fails, tmp_path, data):
    table = pa.Table.from_pandas(pd.concat([data] * 10), preserve_index=False)
    path = tmp_path / "data.parquet"
    pq.write_table(table, path, row_group_size=500, write_page_checksum=True)
    damaged = bytearray(path.read_bytes())
    start = pq.ParquetFile(path).metadata.row_group(2).column(0).data_page_offset
    damaged[start + 40 : start + 60] = bytes(20)
    path.write_bytes(damaged)
    output = fails(job(data={"files": "data.parquet", "max_dead_letters": 0.1}), 2)
    assert "500 of 2,000 rows could not be scored" in output


def test_an_unknown_number_of_lost_rows_exceeds_any_limit(fails, tmp_path, data):
    path = tmp_path / "data.csv.gz"
    data.to_csv(path, index=False)
    path.write_bytes(path.read_bytes()[:-200])
    output = fails(job(data={"files": "data.csv.gz", "max_dead_letters": 0.9}), 2)
    assert "the number of rows after the damage is unknown" in output


@pytest.mark.parametrize("name", ["data.csv", "data.jsonl", "data.csv.gz"])
def test_a_text_without_a_last_line_end_is_noted(evalbeam, fails, tmp_path, data, name):
    write = data.to_json if "json" in name else data.to_csv
    text = write(**({"orient": "records", "lines": True} if "json" in name else {"index": False}))
    compress = gzip.compress if name.endswith("gz") else bytes
    (tmp_path / name).write_bytes(compress(text.encode()[:-1]))
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job(data={"files": name})))
    result = evalbeam("run", "job.yaml")
    assert result.exit_code == 0
    assert f"no line end after the last row, which may be cut off: '{name}'" in result.output
    (tmp_path / name).write_bytes(compress(text.encode()[:-4]))
    output = fails(job(data={"files": name, "max_dead_letters": 1.0}), 2)
    assert "the file ends here, without a line end" in output


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_truncated_file_of_records_exceeds_any_limit(fails, tmp_path, cut):
    label = pa.array([[n % 2] for n in range(120)])
    score = pa.array([[n / 120] for n in range(120)], pa.list_(pa.float32()))
    examples = pa.RecordBatch.from_arrays([label, score], ["label", "score"])
    content = io.BytesIO()
    tfrecord.write(content, example_coder.RecordBatchToExamplesEncoder().encode(examples))
    (tmp_path / "d.tfrecord").write_bytes(content.getvalue()[:-cut])
    output = fails(job(data={"files": "d.tfrecord", "max_dead_letters": 1.0}), 2)
    assert "the number of rows after the damage is unknown" in output


def test_output_that_is_not_a_folder(fails, tmp_path, data):
    (tmp_path / "taken").write_text("")
    assert "taken is a file" in fails(job(output="taken"), 2)
    assert "Beam has no filesystem for nowhere:// here" in fails(job(output="nowhere://x"), 2)


def test_flags_of_beam_are_passed_to_beam(evalbeam, tmp_path, data):
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job()))
    flags = ("--direct_num_workers", "1", "--no_use_public_ips", "--runner=DirectRunner")
    result = evalbeam("run", "job.yaml", *flags)
    assert result.exit_code == 0, result.output


def test_a_dry_run_detects_what_would_fail(fails, tmp_path, data):
    data["scores"] = [[0.1, 0.2, 0.7]] * len(data)
    data.to_parquet(tmp_path / "data.parquet")
    models = [{"name": "v1", "predictions": "score"}, {"name": "v2", "predictions": "scores"}]
    output = fails(job(data={"files": "data.parquet"}, models=models), 2, "--dry-run")
    assert "'v2'" in output


def test_a_bug_is_not_a_failed_gate(evalbeam, tmp_path, data, monkeypatch):
    from evalbeam.beam_jobs import run

    def fail(*_):
        raise RuntimeError("a fault")

    monkeypatch.setattr(run, "run", fail)
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job()))
    assert evalbeam("run", "job.yaml").exit_code == 4


def test_a_run_that_is_killed_publishes_nothing(evalbeam, tmp_path, data):
    """Whenever it is killed, `latest` is unchanged, and the next run works."""
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job()))
    assert evalbeam("run", "job.yaml", "--run-id", "first").exit_code == 0
    big = pd.concat([data] * 4000)
    big.to_csv(tmp_path / "data.csv", index=False)
    process = subprocess.Popen(
        [sys.executable, "-m", "evalbeam", "run", "job.yaml", "--run-id", "second"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "results" / ".staging").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert os.readlink(tmp_path / "results" / "latest") == "runs/first"
    assert not (tmp_path / "results" / "runs" / "second").exists()
    data.to_csv(tmp_path / "data.csv", index=False)
    assert evalbeam("run", "job.yaml", "--run-id", "second").exit_code == 0
    assert os.readlink(tmp_path / "results" / "latest") == "runs/second"
    # The next run removed what the killed one left.
    assert not (tmp_path / "results" / ".staging").exists()


@pytest.mark.parametrize("flags", [(), ("--dry-run",)])
def test_an_output_that_is_a_file(evalbeam, tmp_path, data, flags):
    (tmp_path / "results").write_text("notes")
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job()))
    result = evalbeam("run", "job.yaml", *flags)
    assert result.exit_code == 2
    assert f"output results: {tmp_path / 'results'} is a file" in result.output
    assert (tmp_path / "results").read_text() == "notes"


def test_a_bad_label_beyond_the_first_examples(evalbeam, tmp_path):
    frame = pd.DataFrame({"label": [0, 1] * 400, "score": np.linspace(0, 1, 800)})
    frame.loc[700, "label"] = 3
    frame.to_csv(tmp_path / "data.csv", index=False)
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job()))
    result = evalbeam("run", "job.yaml")
    assert result.exit_code == 2
    assert "data.csv, row 701 (counted from 1): label column 'label' is 3.0" in result.output
    assert len(result.output.splitlines()) < 10


@pytest.mark.parametrize("name", ["data.csv", "data.parquet"])
def test_a_file_that_is_replaced_while_it_is_read(
    evalbeam, fails, tmp_path, data, monkeypatch, name
):
    """Of two versions of the data, no mixture is published; the next run is of the new ones."""
    big = pd.concat([data] * 20)
    write = pd.DataFrame.to_csv if name == "data.csv" else pd.DataFrame.to_parquet
    more = {} if name == "data.csv" else {"row_group_size": 500}
    write(big, tmp_path / name, index=False, **more)
    write(big.assign(label=1 - big["label"]), tmp_path / "new", index=False, **more)
    score = scoring.score

    def replace_and_score(*arguments, **more):
        if (tmp_path / "new").exists():
            os.replace(tmp_path / "new", tmp_path / name)
        return score(*arguments, **more)

    config = job(data={"files": name, "batch_size": 10})
    monkeypatch.setattr(predict.scoring, "score", replace_and_score)
    output = fails(config, 4)
    assert f"{name} has changed since this run listed it: it is " in output
    assert len(output.splitlines()) < 6
    assert evalbeam("run", "job.yaml").exit_code == 0


def test_a_file_of_two_names_counts_once(run_job, evalbeam, tmp_path, data):
    (tmp_path / "link.csv").symlink_to("data.csv")
    (tmp_path / "again").symlink_to(".")
    config = job(data={"files": ["data.csv", str(tmp_path / "data.csv"), "link.csv", "**/*.csv"]})
    run = run_job(config)
    assert pd.read_parquet(run / "metrics.parquet")["n"].to_list() == [200]
    [note, *_] = json.loads((run / "manifest.json").read_text())["notes"]
    others = f"link.csv, {tmp_path}/data.csv"
    assert note == f"data.csv is read once; other names of the file: {others}"


@pytest.mark.parametrize("name", ["a" * 300 + ".csv", "loop.csv", "folder*.csv", "gone.csv"])
def test_what_is_no_file(fails, tmp_path, data, name):
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    (tmp_path / "gone.csv").symlink_to("nothing.csv")
    (tmp_path / "folder.csv").mkdir()
    output = fails(job(data={"files": name}), 2)
    assert output.startswith(("error: Cannot list ", "error: 'folder.csv' is a folder"))
    assert output.count("\n") == 1


def test_a_file_that_may_not_be_read(fails, tmp_path, data, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(files, "open_raw", refuse)
    output = fails(job(), 2)
    assert output == "error: Cannot read data.csv: [Errno 13] Permission denied: 'data.csv'\n"
