"""Measures what design and README promise about speed: `make bench`, or `make bench ARGS=--quick`.

Every figure is a ratio of whole processes measured in turn, A B A B ..., so that it holds when the
machine's speed drifts. Throughputs are slopes between two data sizes, so that imports and loading
drop out. Writes results.json and RESULTS.md beside this file.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import reference

HERE = Path(__file__).parent
PYTHON = sys.executable


@dataclass(frozen=True)
class Cost:
    """A process: seconds on the wall and of all cores, and the peak memory of one process in MB."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


@dataclass(frozen=True)
class Figure:
    """A row of the table; the values are those of the repeats."""

    what: str
    goal: str
    unit: str
    values: list[float]
    note: str = ""

    def spread(self) -> str:
        low, middle, high = min(self.values), statistics.median(self.values), max(self.values)
        return f"{_short(middle)} ({_short(low)} to {_short(high)})"


def run(arguments: Sequence[object], **environment: str) -> Cost:
    """Runs a command to its end; raises if it fails."""
    begun = datetime.datetime.now()
    process = subprocess.Popen(
        [str(part) for part in arguments],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{arguments} failed:\n{errors[-2000:]}")
    wall = (datetime.datetime.now() - begun).total_seconds()
    return Cost(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


class Bench:
    """Data and models in a folder, made when they are first asked for."""

    def __init__(self, folder: Path, repeats: int, small: int, large: int) -> None:
        self.folder, self.repeats, self.small, self.large = folder, repeats, small, large
        reference.write_models(folder / "models", 2)

    def data(self, examples: int, keys: bool = False) -> Path:
        folder = self.folder / f"data-{examples}{'-keys' if keys else ''}"
        if not folder.exists():
            reference.write_examples(folder, examples, 8, keys=keys)
        return folder

    def model(self, version: int) -> Path:
        return self.folder / "models" / f"v{version}"

    def evalbeam(
        self, examples: int, *flags: str, versions: int = 1, keys: bool = False, **config: object
    ) -> list[object]:
        """The command line of the reference job."""
        path = self.folder / f"job-{abs(hash((examples, versions, keys, str(config))))}.yaml"
        data = self.data(examples, keys)
        reference.write_config(path, data, self.folder / "models", versions, **config)
        return [PYTHON, "-m", "beam_jobs", "run", path, "--output", self.folder / "out", *flags]

    def floor(self, examples: int, versions: int = 1) -> list[object]:
        models = [self.model(version) for version in range(1, versions + 1)]
        glob = self.data(examples) / "eval-*.tfrecord"
        return [PYTHON, HERE / "floor_job.py", glob, *models]

    def tfma(self, examples: int) -> list[object]:
        glob = self.data(examples) / "eval-*.tfrecord"
        out = self.folder / "tfma-out"
        return [PYTHON, HERE / "tfma_job.py", glob, self.model(1), out]

    def seconds_per_example(
        self,
        command: Callable[[int], list[object]],
        sizes: tuple[int, int] | None = None,
        **env: str,
    ) -> float:
        """The slope between two sizes."""
        small, large = sizes or (self.small, self.large)
        first, second = run(command(small), **env), run(command(large), **env)
        return (second.wall_s - first.wall_s) / (large - small)

    def ratios(self, one: Callable[[], float], other: Callable[[], float]) -> list[float]:
        """one / other, measured in turn."""
        return [one() / other() for _ in range(self.repeats)]


def figures(bench: Bench, quick: bool) -> list[Figure]:
    slope = bench.seconds_per_example
    table = []

    def add(*row: object) -> None:
        figure = Figure(*row)  # type: ignore[arg-type]
        table.append(figure)
        print(f"{figure.what}: {figure.spread()} {figure.unit}", file=sys.stderr, flush=True)

    tfma_sizes = (1_000, 4_000) if quick else (2_000, 12_000)
    rates: list[float] = []

    def ours() -> float:
        rates.append(1 / slope(bench.evalbeam))
        return 1 / rates[-1]

    add(
        "examples/s against TFMA's own evaluator, one version",
        "at least 400",
        "times",
        bench.ratios(lambda: slope(bench.tfma, tfma_sizes), ours),
    )
    add(
        "time against the floor (read, parse, predict)",
        "at most 1.2",
        "times",
        bench.ratios(ours, lambda: slope(bench.floor)),
    )
    add("examples/s, one version", "", "examples/s", rates)
    if not quick:
        _slower_figures(bench, add)
    sizes = (bench.small, bench.large) if quick else (bench.large, 10 * bench.large)
    for size in sizes:
        add(
            f"peak memory, {size:,} examples",
            "flat, under 2,000",
            "MB",
            [run(bench.evalbeam(size)).peak_mb],
        )
    imports = [PYTHON, "-c", "import tensorflow, tensorflow_model_analysis"]
    add(
        "8,000 examples, one key of 6 values, cold start to exit, over importing TF and TFMA",
        "at most 5",
        "s",
        [
            run(bench.evalbeam(8_000, slices=[["age"]])).wall_s - run(imports).wall_s
            for _ in range(bench.repeats)
        ],
    )
    return table


def _slower_figures(bench: Bench, add: Callable[..., None]) -> None:
    """What takes most of the time, and a quick look leaves out."""
    slope = bench.seconds_per_example
    add(
        "a second version, against its own predict time",
        "at most 1.15",
        "times",
        bench.ratios(
            lambda: slope(lambda n: bench.evalbeam(n, versions=2)) - slope(bench.evalbeam),
            lambda: slope(lambda n: bench.floor(n, 2)) - slope(bench.floor),
        ),
    )
    for units in (20, 100):
        add(
            f"{units} units against 1",
            "at most 1.3 with intervals",
            "times",
            bench.ratios(
                lambda units=units: slope(lambda n: bench.evalbeam(n, confidence={"units": units})),
                lambda: slope(lambda n: bench.evalbeam(n, confidence={"units": 1})),
            ),
        )
    for plots in (False, True):
        metrics = [m for m in reference.METRICS if plots or not m.endswith("Plot")]
        add(
            f"100,000 slice keys against 100, {'with' if plots else 'without'} plots",
            "at most 2",
            "times",
            [
                run(
                    bench.evalbeam(bench.large, keys=True, slices=[["user"]], metrics=metrics)
                ).wall_s
                / run(
                    bench.evalbeam(bench.large, keys=True, slices=[["group"]], metrics=metrics)
                ).wall_s
                for _ in range(bench.repeats)
            ],
            "whole processes on the larger size",
        )
    pinned = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}

    def workers(count: int) -> float:
        flags = ("--direct_running_mode=multi_processing", f"--direct_num_workers={count}")
        return slope(lambda n: bench.evalbeam(n, *flags), **pinned)

    add(
        "two workers against one, TensorFlow pinned to one thread each",
        "at least 1.8",
        "times the rate",
        bench.ratios(lambda: workers(1), lambda: workers(2)),
    )


def write(table: Sequence[Figure], seconds: float) -> None:
    names = ("evalbeam", "apache-beam", "tensorflow", "tensorflow-model-analysis", "numpy")
    versions = {name: importlib.metadata.version(name) for name in names}
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    made = (
        f"{datetime.date.today()}; {machine}; {', '.join(f'{k} {v}' for k, v in versions.items())}"
    )
    rows = [f"| {f.what} | {f.goal} | {f.spread()} {f.unit} | {f.note} |" for f in table]
    text = "\n".join(
        [
            "# Measured",
            "",
            f"{made}; {seconds / 60:.0f} minutes. Median (least to most) of the repeats; made by "
            "`make bench`.",
            "",
            "| what | goal | measured | how |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )
    (HERE / "RESULTS.md").write_text(text)
    record = {"made": made, "figures": [asdict(figure) for figure in table]}
    (HERE / "results.json").write_text(json.dumps(record, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the main figures only, once")
    quick = parser.parse_args().quick
    begun = datetime.datetime.now()
    with tempfile.TemporaryDirectory() as folder:
        # Far enough apart that the slope drowns the seconds by which start-ups differ.
        bench = Bench(Path(folder), 1 if quick else 3, 200_000, 2_200_000)
        table = figures(bench, quick)
    write(table, (datetime.datetime.now() - begun).total_seconds())


if __name__ == "__main__":
    main()
