"""The command line. Imports nothing heavy until a command runs, so that --help is instant."""

from __future__ import annotations

import atexit
import contextlib
import difflib
import errno
import io
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import click

_RUN_FLAGS = {"ignore_unknown_options": True, "allow_extra_args": True}


class _Path(click.Path):
    """A path or URL; `~` is the home folder, also where the shell leaves it as in --output=~/x."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            value.encode()
        except UnicodeEncodeError:
            self.fail(f"{value!r} is not UTF-8: rename it, or use a link to it", param, ctx)
        if not value:
            self.fail("it is empty; write a path or URL", param, ctx)
        return os.path.expanduser(value)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="evalbeam")
def main() -> None:
    """Evaluate versions of a model on labelled data: sliced metrics, side by side.

    Exit codes: 0 done, 1 a gate failed, 2 a usage or config error, 3 not comparable or not enough
    data, 4 the job failed.
    """


@main.command(context_settings=_RUN_FLAGS)
@click.argument("config_path", metavar="CONFIG", type=_Path())
@click.option(
    "--output", type=_Path(), help="Folder or URL for all runs' results, instead of the config's."
)
@click.option("--run-id", help="Name of this run's folder, instead of one made from the time.")
@click.option(
    "--engine",
    type=click.Choice(["columnar", "tfma"]),
    default="columnar",
    show_default=True,
    help="tfma: TFMA's own evaluators, several hundred times slower, for comparison.",
)
@click.option("--dry-run", is_flag=True, help="Check everything that can be checked; run nothing.")
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
        raise click.UsageError("CONFIG must come first, before flags for Beam", context)
    _refuse_misspelled(context, context.args)
    with _exit_codes():
        _run(
            config_path,
            output=output,
            run_id=run_id,
            engine=engine,
            dry_run=dry_run,
            beam_options=tuple(context.args),
        )


@main.command(context_settings=_RUN_FLAGS)
@click.argument("run", metavar="RUN", type=_Path())
@click.option(
    "--config",
    "config_path",
    type=_Path(),
    help="Another config, of which the parts that need no new data are used. Needs --output.",
)
@click.option(
    "--output",
    type=_Path(),
    help="Folder or URL of runs to publish to; if omitted: RUN is replaced.",
)
@click.option(
    "--run-id", help="Name of the new run's folder with --output; if omitted: RUN's name."
)
@click.pass_context
def results(
    context: click.Context,
    run: str,
    config_path: str | None,
    output: str | None,
    run_id: str | None,
) -> None:
    """Rebuild a run's results from its saved state.

    RUN is a run's folder or URL.

    Reads neither data nor models. Flags that are not listed here go to Beam.
    """
    if run.startswith("-"):
        raise click.UsageError("RUN must come first, before flags for Beam", context)
    _refuse_misspelled(context, context.args)
    if run_id is not None and output is None:
        raise click.UsageError("--run-id needs --output", context)
    with _exit_codes():
        started = time.monotonic()
        from evalbeam.beam_jobs import rebuild

        rebuild.results(
            rebuild.Arguments(
                (run,), config_path, output, run_id, tuple(context.args), started=started
            )
        )


@main.command(context_settings=_RUN_FLAGS)
@click.argument("arguments", metavar="RUN...", nargs=-1, type=_Path())
@click.option(
    "--output", type=_Path(), required=True, help="Folder or URL to publish the new run in."
)
@click.option("--run-id", help="Name of the new run's folder, instead of one made from the time.")
@click.pass_context
def merge(
    context: click.Context, arguments: tuple[str, ...], output: str, run_id: str | None
) -> None:
    """Merge runs into one over all their data.

    Each RUN is a run's folder or URL: the shards of a day, the days of a week. Flags that are not
    listed here go to Beam, as --flag=value.
    """
    runs = tuple(argument for argument in arguments if not argument.startswith("-"))
    flags = tuple(argument for argument in arguments if argument.startswith("-"))
    _refuse_misspelled(context, flags)
    with _exit_codes():
        started = time.monotonic()
        from evalbeam.beam_jobs import rebuild

        rebuild.merge(rebuild.Arguments(runs, None, output, run_id, flags, started=started))


@main.command()
@click.argument(
    "example", type=click.Choice(["visits", "digits"]), default="visits", metavar="[EXAMPLE]"
)
@click.option(
    "--folder",
    type=_Path(),
    default="demo",
    show_default=True,
    help="Where to write data, models and config.",
)
def demo(example: str, folder: str) -> None:
    """Train models on real data and evaluate them.

    EXAMPLE is visits (the default): two versions of a model that predicts whether a person visited
    a doctor, on 20,190 rows of the RAND Health Insurance Experiment. Or digits: one model of
    scikit-learn's handwritten digits, in all supported forms.
    """
    with _exit_codes():
        from pathlib import Path

        from evalbeam.transforms.models import quiet

        with quiet.starting_tensorflow():
            from evalbeam.beam_jobs.demo import visits as visits
        if example == "visits":
            config = visits.prepare(Path(folder))
        else:
            from evalbeam.beam_jobs.demo import digits

            config = digits.prepare(Path(folder))
        _run(str(config))


@main.command()
@click.argument("name", required=False)
def metrics(name: str | None) -> None:
    """List all metrics, or describe NAME, whatever its spelling."""
    with _exit_codes():
        from evalbeam.beam_jobs.report import glossary

        click.echo(glossary.list_all() if name is None else glossary.explain(name))


@main.command()
def doctor() -> None:
    """Show what is installed, and what each missing part is needed for."""
    with _exit_codes():
        from evalbeam.beam_jobs import doctor as examination

        click.echo(examination.report())


def _refuse_misspelled(context: click.Context, flags: Sequence[str]) -> None:
    """Flags go to Beam, which ignores unknown ones: not if they look like one of the command's."""
    names = [name for parameter in context.command.params for name in parameter.opts]
    own = {_squeeze(name): name for name in names if name.startswith("--")}
    for flag in flags:
        if not flag.startswith("-"):
            continue
        name = flag.split("=")[0]
        # No option of Beam's is as near as this.
        near = difflib.get_close_matches(_squeeze(name), own, n=1, cutoff=0.75)
        if near:
            raise click.UsageError(f"no such flag: {name}; did you mean {own[near[0]]}?", context)


def _squeeze(flag: str) -> str:
    """A flag without what its misspellings differ in."""
    return flag.lstrip("-").replace("-", "").replace("_", "").lower()


def _run(config_path: str, **more: Any) -> None:
    started = time.monotonic()
    from evalbeam.beam_jobs import config

    # Before importing Beam, so that mistakes in the config are reported at once.
    settings, text = config.load(config_path)
    from evalbeam.beam_jobs import run as job

    job.run(job.Arguments(config_path, text, settings, started=started, **more))


@main.command()
def schema() -> None:
    """Print the config's JSON Schema, for editors that check YAML."""
    with _exit_codes():
        import json

        from evalbeam.beam_jobs import config

        click.echo(json.dumps(config.Config.model_json_schema(), indent=2))


@contextlib.contextmanager
def _exit_codes() -> Iterator[None]:
    """Ends the process with an error's text and exit code instead of a traceback."""
    # Hide TensorFlow's warnings about the machine, but not its errors.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Treat a scheduler's SIGTERM like Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    from evalbeam.transforms import errors

    try:
        yield
    except errors.EvalbeamError as error:
        click.echo(f"error: {errors.printable(str(error))}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        click.echo("interrupted: nothing was published", err=True)
        sys.exit(130)
    except MemoryError as error:
        from evalbeam.transforms.models import memory

        click.echo(f"error: {memory.explain(str(error))}", err=True)
        sys.exit(errors.JobError.exit_code)
    except OSError as error:
        if error.errno in errors.UNWRITABLE:
            click.echo(f"error: cannot write: {error}; nothing was published", err=True)
        else:
            traceback.print_exc()
        sys.exit(errors.JobError.exit_code)
    except Exception:
        # A bug: print the traceback. Exit code 1 would mean that a gate failed.
        traceback.print_exc()
        sys.exit(errors.JobError.exit_code)
    finally:
        # How it ends is known: what is left takes a moment, and must not change that.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)


class _Output(io.FileIO):
    """Stdout or stderr, whose reader may leave, as `head` does: that changes nothing here."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EBADF):
                raise
            return len(data)


def start() -> NoReturn:
    """The program: `main` with standard streams that work, and an end that is certain."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Closed by the caller: otherwise, the next file to be opened would have this number.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for number, name in ((1, "stdout"), (2, "stderr")):
        given = getattr(sys, name)  # None if it was closed
        stream = io.TextIOWrapper(
            io.BufferedWriter(_Output(number, "w", closefd=False)),
            encoding=given and given.encoding,
            # Names of data and models may have characters that the encoding lacks.
            errors="backslashreplace",
            line_buffering=number == 2 or os.isatty(number),
        )
        setattr(sys, name, stream)
    code: Any = 0
    try:
        main(prog_name="evalbeam")
    except SystemExit as end:
        code = end.code
    # Python would wait for threads of Beam's, which may wait forever for processes that are gone.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)
