"""A nightly evaluation: copy this file to Airflow's DAGs folder.

The variable `evalbeam_command` is the command to run on Airflow's workers, where evalbeam is
installed in its own environment, as its packages conflict with Airflow's:

    airflow variables set evalbeam_command "/opt/evalbeam/bin/evalbeam run nightly.yaml ..."
"""

from __future__ import annotations

import datetime
import shlex
from typing import Any

from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.sdk import DAG, BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException

_JOB_FAILED = 4


class Evalbeam(BaseOperator):
    """Runs an evalbeam command; retries only if the job failed."""

    template_fields = ("command", "run_id")

    def __init__(self, *, command: str, run_id: str, **more: Any) -> None:
        super().__init__(**more)
        self.command = command
        self.run_id = run_id
        self.process = SubprocessHook()

    def execute(self, context: Any) -> None:
        """Runs the command; its output is the task's log."""
        command = [*shlex.split(self.command), f"--run-id={self.run_id}"]
        code = self.process.run_command(command).exit_code
        if code == _JOB_FAILED:
            raise AirflowException("the job failed")
        if code:
            # A failed gate or a mistake in the config: a retry would fail again.
            raise AirflowFailException(f"evalbeam ended with exit code {code}; see the log above")

    def on_kill(self) -> None:
        """Stops the command with the task."""
        self.process.send_sigterm()


with DAG(
    "evalbeam_nightly",
    schedule="0 2 * * *",
    start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc),
    catchup=False,  # do not evaluate past nights when the DAG is enabled
    max_active_runs=1,  # do not start before a late run has ended
):
    Evalbeam(
        task_id="evaluate",
        command="{{ var.value.evalbeam_command }}",
        # The same for each attempt, so that a published run is accepted, not repeated.
        run_id="nightly-{{ dag_run.run_after | ts_nodash }}",
        retries=2,
        retry_delay=datetime.timedelta(minutes=10),
        execution_timeout=datetime.timedelta(hours=6),
    )
