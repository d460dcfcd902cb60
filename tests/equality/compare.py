"""Runs a fixed set of jobs with two evalbeam commands and compares the results bit by bit.

  python tests/equality/compare.py --folder DIR \\
      --before 'env PYTHONPATH=/old python -m beam_jobs' --after .venv/bin/evalbeam [JOB ...]

For changes that must not change any result. jobs.py has the jobs, and `--list` prints their names;
published.py defines what is compared. The exit code is 1 if anything differs or a run fails.

- DIR/jobs/JOB has a job's config, data and models. They are created once, the demos' by BEFORE, so
  that both sides see the same bytes. After changing a job in jobs.py, delete this folder and
  DIR/before/JOB.
- DIR/before/JOB and DIR/after/JOB are the runs; their output is in JOB.log next to them. BEFORE's
  runs are reused, unless you add `--rerun`; AFTER's never are.
- Without `--after`, only BEFORE is run. BEFORE given twice shows what is reproducible at all.

Both commands run in DIR/jobs/JOB, one after the other, on the local runner in a single process. A
path that is a separate word of a command may be relative to the current folder; in `env NAME=path`
it must be absolute.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jobs
import published
import yaml

_RUN = "run"  # the id of every run
_LAST_LINES = 15  # of a failed command's output


class FailedError(Exception):
    """A command failed; has the end of its output."""


@dataclass(frozen=True)
class Side:
    """An evalbeam command and the folder of its runs."""

    name: str
    command: tuple[str, ...]
    folder: Path

    def run_folder(self, job: str) -> Path:
        """The folder of a job's run."""
        return self.folder / job / "runs" / _RUN

    def run(self, job: str, config: Path, flags: Sequence[str]) -> None:
        """Deletes a job's earlier run and runs it; its output goes to JOB.log."""
        shutil.rmtree(self.folder / job, ignore_errors=True)
        output = self.folder / job
        words = ["run", config.name, "--output", str(output), "--run-id", _RUN, *flags]
        # Paths in demos' configs are relative to the parent of their folder.
        cwd = config.parent
        if jobs.JOBS[job].demo is not None:
            cwd, words[1] = config.parent.parent, f"{config.parent.name}/{config.name}"
        _call([*self.command, *words], cwd, self.folder / f"{job}.log")


def main() -> int:
    """Runs and compares the jobs; returns the exit code."""
    arguments = _parse_arguments()
    if arguments.list:
        print("\n".join(jobs.JOBS))
        return 0
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    folder = Path(os.path.abspath(arguments.folder))
    before = Side("before", _split_command(arguments.before), folder / "before")
    after = Side("after", _split_command(arguments.after or ""), folder / "after")
    rows = []
    for name in arguments.jobs or jobs.JOBS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            rows.append(_compare_job(name, folder / "jobs" / name, before, after, arguments))
        except (FailedError, OSError, LookupError) as error:  # a file or an entry may be missing
            text = str(error) or type(error).__name__
            rows.append((name, "FAILED", "", "", "", text))
    head = ("job", "equal?", "rows", "records", "before, after", "what differs")
    _print([head, *rows])
    return 0 if all(row[1] in ("yes", "-") for row in rows) else 1


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("jobs", nargs="*", metavar="JOB", help="the jobs to run; default: all")
    parser.add_argument("--before", help="the reference evalbeam command")
    parser.add_argument("--after", help="the command to compare; without it, only BEFORE is run")
    parser.add_argument("--folder", help="the folder of data and runs, which are kept")
    parser.add_argument("--rerun", action="store_true", help="run BEFORE again, too")
    parser.add_argument(
        "--any-reason", action="store_true", help="ignore the reasons of dead letters"
    )
    parser.add_argument("--list", action="store_true", help="print the names of the jobs")
    arguments = parser.parse_args()
    if not arguments.list and not (arguments.before and arguments.folder):
        parser.error("--before and --folder are required")
    unknown = sorted(set(arguments.jobs) - jobs.JOBS.keys())
    if unknown:
        parser.error(f"unknown jobs: {', '.join(unknown)}; valid jobs: {', '.join(jobs.JOBS)}")
    return arguments


def _split_command(text: str) -> tuple[str, ...]:
    """The words of a command, with absolute paths; symlinks stay, as .venv needs them."""
    words = shlex.split(text)
    return tuple(os.path.abspath(w) if "/" in w and os.path.exists(w) else w for w in words)


def _compare_job(
    name: str, folder: Path, before: Side, after: Side, arguments: argparse.Namespace
) -> tuple[str, ...]:
    """Compares a job; returns its row of the summary."""
    config = _create(name, folder, before)
    flags = jobs.JOBS[name].flags
    if arguments.rerun or not (before.run_folder(name) / "manifest.json").exists():
        before.run(name, config, flags)
    if not after.command:
        return name, "-", "", "", _read_seconds(before, name), ""
    after.run(name, config, flags)
    comparison = published.compare(
        before.run_folder(name), after.run_folder(name), arguments.any_reason
    )
    return (
        name,
        "NO" if comparison.differences else "yes",
        f"{comparison.rows:,}",
        f"{comparison.records:,}",
        f"{_read_seconds(before, name)}, {_read_seconds(after, name)}",
        "\n".join([*comparison.differences, *(f"(note) {note}" for note in comparison.notes)]),
    )


def _create(name: str, folder: Path, before: Side) -> Path:
    """The path of a job's config; creates it, its data and models if they are missing."""
    job = jobs.JOBS[name]
    config = folder / (job.demo[1] if job.demo else "job.yaml")
    if config.exists():
        return config
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if job.demo is not None:
        log = folder / "demo.log"
        _call([*before.command, "demo", job.demo[0], "--folder", "demo"], folder, log)
    else:
        assert job.write is not None
        content = job.write(folder)
        content["name"] = name
        # Written last, so that a folder without it is incomplete.
        config.write_text(yaml.safe_dump(_to_plain(content), sort_keys=False))
    return config


def _to_plain(value: object) -> object:
    """The value for YAML, with paths as text."""
    if isinstance(value, dict):
        return {key: _to_plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def _call(command: Sequence[str], cwd: Path, log: Path) -> None:
    """Runs a command, which may import modules in its folder; logs its output and duration.

    Raises:
      FailedError: the command failed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join(filter(None, [str(cwd), os.environ.get("PYTHONPATH")]))
    started = time.monotonic()
    with log.open("w") as file:
        done = subprocess.run(
            command, cwd=cwd, stdout=file, stderr=file, env={**os.environ, "PYTHONPATH": path}
        )
        file.write(f"\n{time.monotonic() - started:.0f} s\n")
    if done.returncode:
        lines = log.read_text().splitlines()[-_LAST_LINES:]
        raise FailedError("\n".join([f"exit code {done.returncode}; the end of {log}:", *lines]))


def _read_seconds(side: Side, job: str) -> str:
    log = side.folder / f"{job}.log"
    return log.read_text().splitlines()[-1] if log.exists() else "?"


def _print(rows: Sequence[Sequence[str]]) -> None:
    """Prints the summary; differences are on separate lines."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    for *cells, text in rows:
        first, *more = text.splitlines() or [""]
        line = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        print(f"{line}  {first}".rstrip())
        for line in more:
            print(f"{'':{sum(widths) + 2 * len(widths)}}{line}")


if __name__ == "__main__":
    sys.exit(main())
