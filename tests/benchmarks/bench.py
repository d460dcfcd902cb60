"""Measures what design and README promise about speed: `make bench`, or `make bench ARGS=--quick`.

Every figure is a ratio of whole processes measured in turn, A B A B ..., so that it holds when the
machine's speed drifts. Throughputs are slopes between two data sizes, so that imports and loading
drop out. Writes results.json, and its tables into RESULTS.md, beside this file (--quick: prints).
"""

from __future__ import annotations

import argparse
import datetime
import functools
import importlib.metadata
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from concurrent import futures
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import reference
import yaml

HERE = Path(__file__).parent
PYTHON = sys.executable
MEASURED = "<!-- measured: what follows is written by make bench -->"

# Far enough apart that the slope drowns the seconds by which start-ups differ.
SIZES = (200_000, 2_200_000)
# TFMA does less than a thousand examples a second.
TFMA_SIZES = (2_000, 12_000)
MORE_VERSIONS = 4
ROWS = 1_000_000  # of the curves over other things
PINNED = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
NO_PLOTS = [name for name in reference.METRICS if not name.endswith("Plot")]

Command = Sequence[object]


@dataclass(frozen=True)
class Cost:
    """A process: seconds on the wall, and the peak memory in MB of it or its largest child."""

    wall_s: float
    peak_mb: float


@dataclass(frozen=True)
class Figure:
    """A row of the table; the values are those of the repeats."""

    what: str
    goal: str
    unit: str
    values: list[float]

    def spread(self) -> str:
        low, middle, high = min(self.values), statistics.median(self.values), max(self.values)
        text = f"{_short(middle)} {self.unit}".strip()
        return text if len(self.values) == 1 else f"{text} ({_short(low)} to {_short(high)})"


@dataclass(frozen=True)
class Point:
    """A point of a scaling curve, measured once: the run's seconds and peak memory."""

    curve: str
    at: str
    examples: int
    wall_s: float
    peak_mb: float


@dataclass
class Results:
    """What a run of the benchmark found, in the order it found it."""

    rounds: list[dict[str, float]] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)

    def figure(self, what: str, goal: str, unit: str, values: Sequence[float]) -> None:
        self.figures.append(Figure(what, goal, unit, list(values)))
        print(f"{what}: {self.figures[-1].spread()}", file=sys.stderr, flush=True)

    def point(self, curve: str, at: str, examples: int, cost: Cost) -> None:
        self.points.append(Point(curve, at, examples, cost.wall_s, cost.peak_mb))
        print(f"{curve}, {at}: {cost.wall_s:.1f} s, {cost.peak_mb:,.0f} MB", file=sys.stderr)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def run(command: Command, cores: Collection[int] = (), **environment: str) -> Cost:
    """Runs a command to its end, on some cores only if they are named; raises if it fails."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        [str(part) for part in command],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if cores else None,
    )
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command} failed:\n{errors[-2000:]}")
    return Cost(time.perf_counter() - begun, used.ru_maxrss / 1024)


class Bench:
    """Commands, over data and models in a folder, which are made when they are first asked for."""

    def __init__(self, folder: Path, repeats: int) -> None:
        self.folder, self.repeats = folder, repeats
        self._configs = 0
        # TensorFlow stays out of this process: what it takes would count as its children's.
        self._maker = futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        self._make(reference.write_models, folder / "models")

    def _make(self, write: Callable[..., Any], *arguments: object) -> Any:
        return self._maker.submit(write, *arguments).result()

    def examples(self, examples: int, wide: bool = False) -> Path:
        files: Path = self._make(reference.write_examples, self.folder, examples, wide)
        return files

    def predictions(self, examples: int) -> Path:
        path = self.folder / f"predictions-{examples}.parquet"
        made: Path = self._make(reference.write_predictions, path, examples)
        return made

    def model(self, name: str) -> Path:
        return self.folder / "models" / name

    def evalbeam(
        self,
        examples: int,
        *flags: str,
        versions: int = 1,
        wide: bool = False,
        models: list[dict[str, object]] | None = None,
        **config: object,
    ) -> Command:
        """The command line of the reference job, or of one like it."""
        files = self.examples(examples, wide)
        names = [f"v{version}" for version in range(1, versions + 1)]
        models = models or [{"name": name, "path": str(self.model(name))} for name in names]
        return self._run(reference.config(files, models, **config), *flags)

    def stored(self, examples: int) -> Command:
        """The same, of predictions stored with the data."""
        path = self.predictions(examples)
        models: list[dict[str, object]] = [{"name": "v1", "predictions": "score"}]
        return self._run(reference.config(path, models, metrics=NO_PLOTS))

    def _run(self, config: dict[str, object], *flags: str) -> Command:
        self._configs += 1
        path = self.folder / f"job-{self._configs}.yaml"
        config["output"] = str(self.folder / "results")
        path.write_text(yaml.safe_dump(config, sort_keys=False))
        return [PYTHON, "-m", "evalbeam", "run", path, *flags]

    def last_predict_us(self) -> float:
        """Microseconds of an example's predict, by the last run's versions but the first."""
        manifest = json.loads((self.folder / "results/latest/manifest.json").read_text())
        _, *others = manifest["models"].values()
        return statistics.mean(model["predict_us_per_example"] for model in others)

    def floor(self, examples: int) -> Command:
        return [PYTHON, HERE / "floor_job.py", self.examples(examples), self.model("v1")]

    def tfma(self, examples: int) -> Command:
        files = self.examples(examples)
        return [PYTHON, HERE / "tfma_job.py", files, self.model("v1"), self.folder / "tfma"]

    def by_hand(self, library: str, examples: int) -> Command:
        return [PYTHON, HERE / "by_hand.py", library, self.predictions(examples)]

    def slope(
        self,
        command: Callable[[int], Command],
        sizes: tuple[int, int] = SIZES,
        cores: Collection[int] = (),
        **environment: str,
    ) -> float:
        """Microseconds per example."""
        small, large = (run(command(size), cores, **environment).wall_s for size in sizes)
        return 1e6 * (large - small) / (sizes[1] - sizes[0])


def main_figures(bench: Bench, results: Results, quick: bool) -> None:
    """What all else is measured against."""
    rounds: list[dict[str, float]] = []
    for _ in range(bench.repeats):
        took = {
            "tfma": bench.slope(bench.tfma, TFMA_SIZES),
            "ours": bench.slope(bench.evalbeam),
            "floor": bench.slope(bench.floor),
        }
        if not quick:
            versions = {"versions": 1 + MORE_VERSIONS}
            took["versions"] = bench.slope(functools.partial(bench.evalbeam, **versions))
            took["predict"] = bench.last_predict_us()
            for units in (0, 20, 100):
                config: dict[str, Any] = {"confidence": {"units": units}}
                took[f"units {units}"] = bench.slope(functools.partial(bench.evalbeam, **config))
            for workers in (1, 2):
                flags = (
                    "--direct_running_mode=multi_processing",
                    f"--direct_num_workers={workers}",
                )
                took[f"workers {workers}"] = bench.slope(
                    lambda n, f=flags: bench.evalbeam(n, *f), cores=range(workers), **PINNED
                )
        rounds.append(took)
    results.rounds += rounds

    def ratio(what: str, goal: str, one: str, other: str) -> None:
        results.figure(what, goal, "times", [took[one] / took[other] for took in rounds])

    ratio("examples/s against TFMA's own evaluator, one version", "at least 400", "tfma", "ours")
    ratio("time against the floor (read, parse, predict)", "at most 1.2", "ours", "floor")
    results.figure("examples/s, one version", "", "", [1e6 / took["ours"] for took in rounds])
    if quick:
        return
    added = [(took["versions"] - took["ours"]) / MORE_VERSIONS / took["predict"] for took in rounds]
    what = f"each of {MORE_VERSIONS} more versions, against its own predict time"
    results.figure(what, "at most 1.15", "times", added)
    for units in (20, 100):
        what = f"sums by {units} units, against none (what intervals need of the data's pass)"
        ratio(what, "at most 1.3 with intervals", f"units {units}", "units 0")
    what = "rate of two workers on two cores against one on one, TensorFlow's threads pinned"
    ratio(what, "at least 1.8", "workers 1", "workers 2")


def many_slices(bench: Bench, results: Results) -> None:
    """Whole processes over as many rows."""
    for plots in (False, True):
        metrics = list(reference.METRICS) if plots else NO_PLOTS

        def seconds(count: int, metrics: list[str] = metrics) -> float:
            more = {"slices": [[f"key{count}"]], "metrics": metrics}
            return run(bench.evalbeam(SIZES[1], wide=True, **more)).wall_s

        results.figure(
            f"100,000 slice keys against 100, {'with' if plots else 'without'} plots",
            "at most 2",
            "times",
            [seconds(100_000) / seconds(100) for _ in range(bench.repeats)],
        )


def start_up(bench: Bench, results: Results) -> None:
    imports = [PYTHON, "-c", "import tensorflow, tensorflow_model_analysis"]
    results.figure(
        "8,000 examples, one key of 4 values, cold start to exit, over importing TF and TFMA",
        "at most 5",
        "s",
        [
            run(bench.evalbeam(8_000, slices=[["age"]])).wall_s - run(imports).wall_s
            for _ in range(bench.repeats)
        ],
    )


def against_libraries(bench: Bench, results: Results) -> None:
    """Whole processes on predictions stored in a Parquet file of 2 million rows."""
    rows = 2_000_000
    for library in ("sklearn", "polars"):
        results.figure(
            f"{library} by hand, in memory, on 2,000,000 stored predictions, no plots, against us",
            "",
            "times our time",
            [
                run(bench.by_hand(library, rows)).wall_s / run(bench.stored(rows)).wall_s
                for _ in range(bench.repeats)
            ],
        )


def curves(bench: Bench, results: Results, largest: int) -> None:
    """How time and memory grow, a run for each point."""
    for rows in (10**power for power in range(4, 9)):
        if rows <= largest:
            results.point("rows", f"{rows:,}", rows, run(bench.evalbeam(rows)))
    for count in reference.KEYS:
        command = bench.evalbeam(ROWS, wide=True, slices=[[f"key{count}"]])
        results.point("slice keys", f"{count:,}", ROWS, run(command))
    for versions in (1, 2, 4, 8):
        command = bench.evalbeam(ROWS, versions=versions)
        results.point("versions", f"{versions}", ROWS, run(command))
    results.point("classes", "binary", 200_000, run(bench.evalbeam(200_000, wide=True)))
    for count in reference.CLASSES:
        command = bench.evalbeam(
            200_000,
            wide=True,
            models=[{"name": "v1", "path": str(bench.model(f"classes{count}"))}],
            task="multiclass",
            data={"files": str(bench.examples(200_000, wide=True)), "label": f"class{count}"},
            metrics=["ExampleCount", "SparseCategoricalAccuracy", "Precision", "Recall"],
        )
        results.point("classes", f"{count:,}", 200_000, run(command))
    for units in (0, 20, 100):
        command = bench.evalbeam(ROWS, confidence={"units": units})
        results.point("units", f"{units}", ROWS, run(command))
    # Whether processes pay where evalbeam, left alone, would not start them yet.
    rows = min(10_000_000, largest)
    for processes in (1, 2):
        mode = ("--direct_running_mode=multi_processing",) if processes > 1 else ()
        command = bench.evalbeam(rows, *mode, f"--direct_num_workers={processes}")
        results.point("processes", f"{processes}", rows, run(command))


def tables(results: Results, made: str) -> str:
    """The results as Markdown."""
    figures = [f"| {f.what} | {f.goal} | {f.spread()} |" for f in results.figures]
    points = [
        f"| {p.curve} | {p.at} | {p.examples:,} | {p.wall_s:.1f} | {p.peak_mb:,.0f} |"
        for p in results.points
    ]
    lines = [made, "", "| what | goal | measured |", "|---|---|---|", *figures]
    if points:
        lines += ["", "Scaling: one run of the reference job each, start-up included.", ""]
        lines += [
            "| curve | at | examples | seconds | peak MB of a process |",
            "|---|---|---|---|---|",
            *points,
        ]
    return "\n".join([*lines, ""])


def write(results: Results, made: str) -> None:
    """results.json, and what stands behind the mark in RESULTS.md."""
    page = HERE / "RESULTS.md"
    said = page.read_text().partition(MEASURED)[0]
    page.write_text(f"{said}{MEASURED}\n\n{tables(results, made)}")
    record = {
        "made": made,
        "us_per_example": results.rounds,
        "figures": [asdict(figure) for figure in results.figures],
        "points": [asdict(point) for point in results.points],
    }
    (HERE / "results.json").write_text(json.dumps(record, indent=2) + "\n")


def _made(seconds: float, repeats: int) -> str:
    names = ("evalbeam", "apache-beam", "tensorflow", "tensorflow-model-analysis", "numpy")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    return (
        f"{datetime.date.today()}; {machine}; {versions}; {seconds / 60:.0f} minutes. "
        f"Median (least to most) of {repeats} repeats."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the main figures only, once")
    parser.add_argument(
        "--largest", type=int, default=10_000_000, help="rows of the longest run of the curves"
    )
    given = parser.parse_args()
    begun = time.perf_counter()
    results = Results()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), 1 if given.quick else 3)
        main_figures(bench, results, given.quick)
        start_up(bench, results)
        if given.quick:
            for rows in (SIZES[0], SIZES[1]):
                results.point("rows", f"{rows:,}", rows, run(bench.evalbeam(rows)))
        else:
            many_slices(bench, results)
            against_libraries(bench, results)
            curves(bench, results, given.largest)
    made = _made(time.perf_counter() - begun, bench.repeats)
    if given.quick:
        print(tables(results, made))
    else:
        write(results, made)


if __name__ == "__main__":
    main()
