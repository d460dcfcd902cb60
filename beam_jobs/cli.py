"""The command line. Nothing heavy is imported before a verb runs: --help must be instant."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any

import click

_RUN_FLAGS = {"ignore_unknown_options": True, "allow_extra_args": True}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="evalbeam")
def main() -> None:
    """Evaluate versions of a model on labelled data: sliced metrics, side by side.

    Exit codes: 0 done, 1 a gate failed, 2 a usage or config error, 3 not comparable or not enough
    data, 4 the job failed.
    """


@main.command(context_settings=_RUN_FLAGS)
@click.argument("config_path", metavar="CONFIG", type=click.Path())
@click.option("--output", help="Folder or URL of all runs' results, in place of the config's.")
@click.option("--run-id", help="Name of this run's folder, in place of one made of the time.")
@click.option(
    "--engine",
    type=click.Choice(["columnar", "tfma"]),
    default="columnar",
    show_default=True,
    help="tfma: TFMA's own evaluators, some hundred times slower, for comparison.",
)
@click.option("--dry-run", is_flag=True, help="Check all that can be checked; run nothing.")
@click.pass_context
def run(
    context: click.Context,
    config_path: str,
    output: str | None,
    run_id: str | None,
    engine: str,
    dry_run: bool,
) -> None:
    """Run the evaluation that CONFIG describes.

    Flags that are not listed here go to Beam: --runner=FlinkRunner, --direct_num_workers=2, ...
    """
    if config_path.startswith("-"):
        raise click.UsageError("CONFIG comes first, flags for Beam after it", context)
    with _exit_codes():
        _run(
            config_path,
            output=output,
            run_id=run_id,
            engine=engine,
            dry_run=dry_run,
            beam_options=tuple(context.args),
        )


@main.command()
@click.argument(
    "example", type=click.Choice(["visits", "digits"]), default="visits", metavar="[EXAMPLE]"
)
@click.option(
    "--folder", default="demo", show_default=True, help="Where data, models and config are put."
)
def demo(example: str, folder: str) -> None:
    """Train models on real data and evaluate them.

    EXAMPLE is visits (by default): two versions of a model on 20,190 rows of the RAND Health
    Insurance Experiment, the question whether a person visited a doctor. Or digits: one model of
    scikit-learn's handwritten digits, in every form that it ships in.
    """
    with _exit_codes():
        from pathlib import Path

        from evalbeam.transforms.models import quiet

        with quiet.starting_tensorflow():
            from evalbeam.beam_jobs.demo import visits as visits

            visits.find_devices()
        if example == "visits":
            config = visits.prepare(Path(folder))
        else:
            from evalbeam.beam_jobs.demo import digits

            config = digits.prepare(Path(folder))
        _run(str(config))


@main.command()
def doctor() -> None:
    """Say what is installed, and what a missing part would enable."""
    from evalbeam.beam_jobs import doctor as examination

    click.echo(examination.report())


def _run(config_path: str, **more: Any) -> None:
    started = time.monotonic()
    from evalbeam.beam_jobs import config

    # Before Beam is imported: a mistake in the config is told at once.
    settings, text = config.load(config_path)
    from evalbeam.beam_jobs import run as job

    job.run(job.Request(config_path, text, settings, started=started, **more))


@main.command()
def schema() -> None:
    """Print the config's JSON Schema, for editors that check YAML."""
    import json

    from evalbeam.beam_jobs import config

    print(json.dumps(config.Config.model_json_schema(), indent=2))


@contextlib.contextmanager
def _exit_codes() -> Iterator[None]:
    """Ends the process with an error's text and exit code instead of a traceback."""
    # TensorFlow's warnings about the machine are no news to anyone; its errors are.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # A scheduler that ends the job does it as politely as a person.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    from evalbeam.transforms import errors

    try:
        yield
    except errors.EvalbeamError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        click.echo("interrupted: nothing was published", err=True)
        threads = (one for one in threading.enumerate() if one is not threading.main_thread())
        if any(not thread.daemon for thread in threads):
            # Beam's threads may wait, forever, for worker processes that are gone.
            os._exit(130)
        sys.exit(130)
    except Exception:
        # A fault of ours: the traceback is for whoever mends it. 1 would say that a gate failed.
        traceback.print_exc()
        sys.exit(errors.JobError.exit_code)
