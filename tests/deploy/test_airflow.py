"""The DAG, in a real Airflow with its own environment."""

from __future__ import annotations

import json
import os
import pathlib
import re
import sys

import pytest
from clients import CACHE, DEPLOY, output_of

LOCK = DEPLOY / "airflow" / "requirements.txt"

_INSPECT = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1])
def task(one):
    return dict(
        kind=type(one).__name__, retries=one.retries, delay=one.retry_delay.total_seconds(),
        timeout=one.execution_timeout.total_seconds(), command=one.command, run_id=one.run_id,
    )
dags = {
    name: dict(
        runs=dag.max_active_runs, catchup=dag.catchup, schedule=dag.schedule,
        tasks={one.task_id: task(one) for one in dag.tasks},
    )
    for name, dag in bag.dags.items()
}
operator = next(iter(bag.dags.values())).tasks[0]
ends = {}
for code in (0, 1, 2, 3, 4, 130):
    operator.command, operator.run_id = f"sh -c 'exit {code}'", "x"
    try:
        operator.execute({})
        ends[code] = None
    except Exception as e:
        ends[code] = type(e).__name__
print("JSON" + json.dumps(dict(errors=bag.import_errors, dags=dags, ends=ends)))
"""


@pytest.fixture(scope="session")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment variables of a fresh Airflow, whose programs are first on PATH."""
    venv, stamp = CACHE / "airflow", CACHE / "airflow" / LOCK.name
    if not stamp.exists() or stamp.read_bytes() != LOCK.read_bytes():
        output_of(sys.executable, "-m", "venv", "--clear", venv)
        pip = (sys.executable, "-m", "pip", "--python", venv)
        output_of(*pip, "install", "--no-deps", "--require-hashes", "--requirement", LOCK)
        assert "No broken requirements" in output_of(*pip, "check")
        stamp.write_bytes(LOCK.read_bytes())
    environment = {
        "PATH": f"{venv}/bin:{os.environ['PATH']}",
        "HOME": str(tmp_path_factory.mktemp("home")),
        "AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow")),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DEPLOY / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }
    output_of("airflow", "db", "migrate", env=environment)
    return environment


@pytest.fixture(scope="session")
def inspected(airflow: dict[str, str]) -> dict:
    program = (CACHE / "airflow" / "bin" / "python", "-c", _INSPECT)
    said = output_of(*program, DEPLOY / "airflow", env=airflow)
    return json.loads(said.rpartition("JSON")[2])


def test_the_dag_is_imported(inspected: dict) -> None:
    assert inspected["errors"] == {}
    assert list(inspected["dags"]) == ["evalbeam_nightly"]


def test_nights_do_not_overlap_and_are_not_caught_up(inspected: dict) -> None:
    dag = inspected["dags"]["evalbeam_nightly"]
    assert dag["runs"] == 1
    assert dag["catchup"] is False
    assert dag["schedule"] == "0 2 * * *"
    (task,) = dag["tasks"].values()
    assert task["retries"] == 2
    assert task["delay"] > 0
    assert task["timeout"] < 24 * 3600


def test_only_a_failed_job_is_tried_again(inspected: dict) -> None:
    ends = inspected["ends"]
    assert ends.pop("0") is None
    assert ends.pop("4") == "AirflowException"  # which Airflow tries again
    assert set(ends.values()) == {"AirflowFailException"}  # which it does not


def test_a_night_is_evaluated(airflow: dict[str, str], tmp_path: pathlib.Path) -> None:
    (tmp_path / "data.csv").write_text("visited,score\n" + "1,0.9\n0,0.2\n" * 50)
    (tmp_path / "nightly.yaml").write_text(
        f"data: {{files: {tmp_path}/data.csv, label: visited}}\n"
        "models: [{name: v1, predictions: score}]\n"
        "metrics: [ExampleCount]\n"
        f"output: {tmp_path}/results\n"
    )
    evalbeam = f"{sys.executable} -m evalbeam"
    command = f"{evalbeam} run {tmp_path}/nightly.yaml"
    variable = {"AIRFLOW_VAR_EVALBEAM_COMMAND": command}
    said = output_of("airflow", "dags", "test", "evalbeam_nightly", env={**airflow, **variable})
    (run,) = (tmp_path / "results" / "runs").iterdir()
    assert re.fullmatch(r"nightly-\d{8}T\d{6}", run.name), said


def test_the_lock_has_hashes_and_names_no_host() -> None:
    text = LOCK.read_text()
    assert not re.search(r"://|--index-url|--find-links", text)
    entries = [line for line in text.replace("\\\n", " ").splitlines() if line[:1] not in ("", "#")]
    assert any(entry.startswith("apache-airflow-core==") for entry in entries)
    for entry in entries:
        assert re.fullmatch(r"\S+==\S+( ; .+?)?(\s+--hash=sha256:[0-9a-f]{64})+\s*", entry), entry
