"""A nightly evaluation: copy this file into Airflow's folder of DAGs.

The variable `evalbeam_command` is the command to run on Airflow's workers. evalbeam is installed
there in an environment of its own, since its packages and Airflow's do not go together:

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
    """Runs an evalbeam command; only a job that failed is worth another attempt."""

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
            # A gate that failed, a mistake in the config: the next attempt would end as this did.
            raise AirflowFailException(f"evalbeam ended with exit code {code}, see above")

    def on_kill(self) -> None:
        """Ends the command with the task."""
        self.process.send_sigterm()


with DAG(
    "evalbeam_nightly",
    schedule="0 2 * * *",
    start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc),
    catchup=False,  # last month's nights are not evaluated when the DAG is switched on
    max_active_runs=1,  # a night that is late is not overtaken by the next
):
    Evalbeam(
        task_id="evaluate",
        command="{{ var.value.evalbeam_command }}",
        # The same for each attempt: a run that was published is refused, not done again.
        run_id="nightly-{{ dag_run.run_after | ts_nodash }}",
        retries=2,
        retry_delay=datetime.timedelta(minutes=10),
        execution_timeout=datetime.timedelta(hours=6),
    )
