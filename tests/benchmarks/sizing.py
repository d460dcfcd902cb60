"""What runs need, on paper and measured: the numbers of deploy/SIZING.md.

  python tests/benchmarks/sizing.py            predictions against runs that gave no constant
  python tests/benchmarks/sizing.py --flink    the same on a Flink cluster (after make test-cluster)
  python tests/benchmarks/sizing.py --fit      the runs that the constants are from
  python tests/benchmarks/sizing.py --tables   the predictions for clusters, without any run

The job is the reference job, with one more slice key of so many values, evenly spread, and with
stored predictions where only the sums matter. CPU seconds, not the clock's, are compared: those
hold on a machine that others use.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import reference
import yaml

from evalbeam.transforms.stages import aggregate

EXAMPLE_BYTES = 362  # of the reference job's tf.Examples
TASK_BYTES = 256 << 20
CLUSTER_TASKS = 256
PLOTTED = 1000
# Versions' stored scores differ by noise of this standard deviation, on the scale of logits.
NOISE = 0.1
STORED_VERSIONS = 5
# Parts are finished together up to so many cells (`results.index`).
TASK_CELLS = 1 << 22


# Microseconds more for an example and version in a key of so many values: sums that no cache holds.
KEY_US = {1: 0.0, 1_000: 0.0, 10_000: 0.9, 100_000: 3.4}


@dataclass(frozen=True)
class Constants:
    """What is measured; times are of a core. deploy/SIZING.md says where each comes from."""

    start_s: float = 2.3  # a worker process, until it works
    tensorflow_s: float = 3.0  # ... and more with models
    example_us: float = 2.2  # a tf.Example: read, and its slices looked up
    stored_us: float = 0.45  # the same of a row with stored predictions
    predict_us: float = 1.35  # for each version
    add_us: float = 0.07  # for each version, in few slices
    cell_us: float = 0.55  # a cell of a bundle's table: made, split into partitions, encoded
    encoded_bytes: float = 3.0  # a cell as it is shuffled
    merge_us: float = 0.1  # a cell of either of two tables that are decoded and merged
    finish_cell_us: float = 0.1  # a cell of the merged table: written, read, made into results
    finish_slice_us: float = 17.0  # for each version
    finish_plots_us: float = 700.0  # for each slice that has plots, and version
    finish_start_s: float = 1.0  # a runner and its files, once
    worker_mb: float = 600.0
    tensorflow_mb: float = 400.0  # more with models, ...
    model_mb: float = 60.0  # and for each
    worker_cell_bytes: float = 100.0
    worker_slice_bytes: float = 3000.0  # for each version: arrays of all cells, ...
    worker_arrays_mb: float = 1074.0  # up to this much (`metrics.table`)
    worker_name_bytes: float = 1000.0  # for each slice
    piece_bytes: float = 18.0  # a cell of each bundle's piece of the partition being merged
    merger_cell_bytes: float = 200.0  # a cell of that partition
    finisher_cell_bytes: float = 150.0  # a cell of the partitions that are finished together
    driver_mb: float = 480.0
    driver_part_kb: float = 0.3  # for each part of the state
    local_bytes: float = 4.6  # more on the local runner, for each byte it shuffles
    state_cell_bytes: float = 4.0
    slice_bytes: float = 480.0  # of the tables and of tfma/, for each version
    plots_bytes: float = 160e3  # for each slice that has plots, and version


@dataclass(frozen=True)
class Job:
    examples: int
    keys: int  # values of a key, beside the reference job's 208 slices
    versions: int
    bundles: int
    units: int = 50
    plots: bool = True
    stored: bool = True  # predictions, instead of tf.Examples and models
    cluster: bool = False

    @property
    def partitions(self) -> int:
        """Into how many the slices are split, as `beam_jobs.run.count_partitions` has it."""
        specs = 1 + len(reference.SLICES) + bool(self.keys)
        statistics = sum(times for times, _, _ in _statistics(self))
        return aggregate.count_partitions(self.examples * specs * statistics / 4)

    @property
    def slices(self) -> int:
        """How many slices there are."""
        return sum(count for count, _ in slices(self))


def filled(probabilities: np.ndarray, examples: float) -> float:
    """How many cells have an example, if each falls into one of them."""
    return float(-np.expm1(-examples * probabilities).sum())


@functools.cache
def _statistics(job: Job) -> list[tuple[int, np.ndarray, int]]:
    """Of how many versions; the probability of each cell; a cell's bytes (key, sum, rounding).

    The score is the reference data's: its logit is normal, with noise in all versions but one.
    """
    weights = np.random.default_rng(7).normal(size=reference.FLOATS)
    spread = float(np.sqrt((weights**2).sum())) / 4
    # The share of examples where noise turns the decision; a half of them have either label.
    flipped = math.atan(NOISE / spread) / math.pi
    edges = np.linspace(0, 1, 10_001)
    with np.errstate(divide="ignore"):
        logits = np.log(edges / (1 - edges))
    below = np.array([0.5 * math.erfc(-x / spread / math.sqrt(2)) for x in logits])
    mass, middle = np.diff(below), (edges[1:] + edges[:-1]) / 2
    by_label = np.concatenate([mass * middle, mass * (1 - middle)])
    above = np.tile(middle > 0.5, 2)
    positive = np.arange(len(above)) < len(mass)
    quarters = [by_label[(above == a) & (positive == p)].sum() for a in (0, 1) for p in (0, 1)]
    by_unit = np.repeat(quarters, job.units) / job.units
    eighths = np.concatenate(
        [by_unit * (1 - flipped), np.full_like(by_unit, flipped / len(by_unit))]
    )
    even = np.full(job.units, 1 / job.units)
    found = [
        (1, even, 16),  # the examples
        (job.versions, by_label, 16),  # TFMA's histogram
        (job.versions, by_unit, 16),  # the confusion matrix
        (job.versions - 1, eighths, 16),  # flips against the baseline
        (job.versions, even, 24),  # cross entropy
    ]
    if job.plots:
        found.append((job.versions, mass.reshape(1000, 10).sum(axis=1), 24))
    return found


def slices(job: Job) -> list[tuple[int, float]]:
    """How many slices there are of each size, as a share of the examples."""
    counts = [1, 50, 3, 4, 150, *([job.keys] if job.keys else [])]
    return [(count, 1 / count) for count in counts]


def table(job: Job, examples: float) -> tuple[float, float]:
    """Cells and bytes of the table of so many of the job's examples."""
    cells = size = 0.0
    for count, share in slices(job):
        for times, probabilities, width in _statistics(job):
            found = count * times * filled(probabilities, share * examples)
            cells, size = cells + found, size + width * found
    return cells, size


@dataclass(frozen=True)
class Needs:
    """What a job needs, in MB and seconds; NaN where it was not measured.

    Attributes:
      tables_mb: the tables of all bundles, in memory.
      shuffled_mb: the same as they are shuffled.
      workers_s: of all workers' cores.
      worker_mb: of the largest worker process.
      finish_s: of a core, to make the results of the merged table, as `evalbeam results` does.
      driver_mb: of the process that started the run; on the local runner, with the runner.
      results_mb: on the disk.
    """

    tables_mb: float
    shuffled_mb: float
    workers_s: float
    worker_mb: float
    finish_s: float
    driver_mb: float
    results_mb: float


def predict(job: Job, c: Constants) -> Needs:
    """What the model says."""
    cells, size = table(job, job.examples / job.bundles)
    merged, _ = table(job, job.examples)
    count = job.slices * job.versions
    plotted = min(job.slices, PLOTTED) * job.versions * job.plots
    partitions = min(job.partitions, job.slices)
    examples_us = job.examples * (c.stored_us if job.stored else c.example_us)
    versions_us = job.examples * job.versions * (c.add_us + key_us(job.keys))
    start_s, models_mb = c.start_s, 0.0
    if not job.stored:
        versions_us += job.examples * job.versions * c.predict_us
        start_s += c.tensorflow_s
        models_mb = c.tensorflow_mb + c.model_mb * job.versions
    shuffled_bytes = job.bundles * cells * c.encoded_bytes
    finish_us = c.finish_cell_us * merged + c.finish_slice_us * count
    finish_us += c.finish_plots_us * plotted + 1e6 * c.finish_start_s
    bundles_us = job.bundles * c.cell_us * cells + merges_us(job, c)
    arrays_bytes = min(c.worker_slice_bytes * count, c.worker_arrays_mb * 1e6)
    adding_bytes = c.worker_cell_bytes * cells + c.worker_name_bytes * job.slices + arrays_bytes
    part = merged / partitions
    merging_bytes = c.merger_cell_bytes * part + c.piece_bytes * job.bundles * cells / partitions
    finishing_bytes = c.finisher_cell_bytes * min(merged, max(part, TASK_CELLS))
    driver_mb = c.driver_mb + models_mb + c.driver_part_kb * partitions / 1e3
    if not job.cluster:
        driver_mb += c.local_bytes * shuffled_bytes / 1e6
    results = c.state_cell_bytes * merged + c.slice_bytes * count + c.plots_bytes * plotted
    return Needs(
        tables_mb=job.bundles * size / 1e6,
        shuffled_mb=shuffled_bytes / 1e6,
        workers_s=start_s * job.bundles
        + (examples_us + versions_us + bundles_us + finish_us) / 1e6,
        worker_mb=c.worker_mb
        + models_mb
        + max(adding_bytes, merging_bytes * (job.bundles > 1), finishing_bytes) / 1e6,
        finish_s=finish_us / 1e6,
        driver_mb=driver_mb,
        results_mb=results / 1e6,
    )


def key_us(keys: int) -> float:
    """Between what is measured, and beyond, by the logarithm of the key's values."""
    known = sorted(KEY_US)
    low, high = next((p for p in itertools.pairwise(known) if keys <= p[1]), tuple(known[-2:]))
    position = math.log(max(keys, 1) / low) / math.log(high / low)
    return KEY_US[low] + position * (KEY_US[high] - KEY_US[low])


def merges_us(job: Job, c: Constants) -> float:
    """The bundles' tables are added up in pairs, as `stages.merge.Merge` does."""
    moved, bundles = 0.0, float(job.bundles)
    while bundles > 1:
        cells, _ = table(job, job.examples / bundles)
        moved += bundles * cells
        bundles /= 2
    return c.merge_us * moved


def _data(job: Job, folder: Path) -> Path:
    if not job.stored:
        return reference.write_examples(folder, job.examples)
    path = folder / f"stored-{job.examples}.parquet"
    if not path.exists():
        found = reference.columns(job.examples, wide=True)
        names = ["label", "country", "device", "age", *(f"key{k}" for k in reference.KEYS)]
        columns = {name: found[name] for name in names}
        logits = np.log(found["score"]) - np.log1p(-found["score"])
        for version in range(1, STORED_VERSIONS + 1):
            noise = np.random.default_rng(version).normal(size=job.examples, scale=NOISE)
            noisy = logits + noise * (version > 1)
            columns[f"score{version}"] = (1 / (1 + np.exp(-noisy))).astype(np.float32)
        groups = -(-job.examples // 16)
        pq.write_table(pa.table(columns), path, row_group_size=groups)
    return path


def _config(job: Job, folder: Path) -> Path:
    versions = range(1, job.versions + 1)
    models: list[dict[str, object]] = [
        {"name": f"v{version}", "predictions": f"score{version}"}
        if job.stored
        else {"name": f"v{version}", "path": str(folder / "models" / f"v{version}")}
        for version in versions
    ]
    config = reference.config(
        _data(job, folder),
        models,
        slices=[list(spec) for spec in reference.SLICES] + [[f"key{job.keys}"]] * bool(job.keys),
        metrics=[name for name in reference.METRICS if job.plots or not name.endswith("Plot")],
        confidence={"units": job.units},
        output=str(folder / "results"),
    )
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def _processes(root: int) -> Iterator[tuple[int, float, float]]:
    """Of a process and all below it: its id, CPU seconds and peak memory in MB so far."""
    parents, used = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            status = (stat.parent / "status").read_text()
        except OSError:
            continue  # it has ended
        pid = int(stat.parent.name)
        parents[pid] = int(fields[1])
        peak = next((x for x in status.splitlines() if x.startswith("VmHWM")), "VmHWM: 0 kB")
        cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        used[pid] = (cpu, int(peak.split()[1]) * 1024 / 1e6)
    for pid in parents:
        above = pid
        while above in parents and above != root:
            above = parents[above]
        if above == root:
            yield pid, *used[pid]


def _is_worker(pid: int) -> bool:
    with contextlib.suppress(OSError):
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        return b"sdk_worker_main" in command or b"local_worker" in command
    return False


@dataclass
class Watch:
    """CPU seconds and peak memory in MB of processes, by id, while a command runs.

    `pid` is the command's; `workers` are Beam's worker processes.
    """

    pid: int = 0
    workers: set[int] = dataclasses.field(default_factory=set)
    cpu_s: dict[int, float] = dataclasses.field(default_factory=dict)
    peak_mb: dict[int, float] = dataclasses.field(default_factory=dict)

    def run(self, command: list[str], *others: int) -> None:
        """Runs the command to its end; watches it and the other processes, with all below them."""
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_NUM_INTRAOP_THREADS": "1"}
        quiet["TF_NUM_INTEROP_THREADS"] = "1"
        process = subprocess.Popen(
            command,
            env={**os.environ, **quiet},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.pid = process.pid
        while process.poll() is None:
            for root in (process.pid, *others):
                for pid, cpu_s, peak_mb in _processes(root):
                    # One that has just ended has no memory any more.
                    self.cpu_s[pid] = cpu_s
                    self.peak_mb[pid] = max(peak_mb, self.peak_mb.get(pid, 0))
                    if _is_worker(pid):
                        self.workers.add(pid)
            time.sleep(0.1)
        if process.returncode:
            raise RuntimeError(f"{command} failed: exit code {process.returncode}")


def measure(job: Job, folder: Path) -> Needs:
    """What a run with a worker process for each bundle uses, beside the process that started it."""
    flags = ("--direct_running_mode=multi_processing", f"--direct_num_workers={job.bundles}")
    watch = Watch()
    watch.run([*EVALBEAM, "run", str(_config(job, folder)), *flags])
    workers = watch.cpu_s.keys() - {watch.pid}
    run = folder / "results/latest"
    finishing, starting = Watch(), Watch()
    finishing.run([*EVALBEAM, "results", str(run)])
    starting.run([sys.executable, "-c", "import evalbeam.beam_jobs.rebuild"])
    return Needs(
        tables_mb=json.loads((run / "manifest.json").read_text())["state_bytes"] / 1e6,
        shuffled_mb=math.nan,
        workers_s=sum(watch.cpu_s[pid] for pid in workers),
        worker_mb=max(watch.peak_mb[pid] for pid in workers),
        finish_s=sum(finishing.cpu_s.values()) - sum(starting.cpu_s.values()),
        driver_mb=watch.peak_mb[watch.pid],
        results_mb=_size(run),
    )


def measure_on_flink(job: Job, folder: Path) -> Needs:
    """What a run uses on a Flink cluster of a TaskManager of one slot for each bundle."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "cluster"))
    from conftest import BIN, Flink

    worker = json.dumps({"command": str(BIN / "evalbeam-worker")})
    processes = ("--environment_type=PROCESS", f"--environment_config={worker}")
    logs = Path(tempfile.mkdtemp(dir=folder))
    cluster = Flink(logs)
    try:
        for _ in range(job.bundles):
            cluster.add_taskmanager()
        watch = Watch()
        command = [*EVALBEAM, "run", str(_config(job, folder)), *cluster.flags, *processes]
        watch.run([*command, f"--parallelism={job.bundles}"], *cluster.processes.ids())
        vertices = cluster.get(f"jobs/{cluster.jobs()[-1]['jid']}")["vertices"]
    finally:
        cluster.end()
    run = folder / "results/latest"
    return Needs(
        tables_mb=json.loads((run / "manifest.json").read_text())["state_bytes"] / 1e6,
        shuffled_mb=max(
            vertex["metrics"]["write-bytes"] for vertex in vertices if "Group" in vertex["name"]
        )
        / 1e6,
        workers_s=math.nan,
        worker_mb=max(watch.peak_mb[pid] for pid in watch.workers),
        finish_s=math.nan,
        driver_mb=watch.peak_mb[watch.pid],
        results_mb=_size(run),
    )


def _size(run: Path) -> float:
    return sum(path.stat().st_size for path in run.rglob("*")) / 1e6


EVALBEAM = [sys.executable, "-m", "evalbeam"]

# Together they tell the constants apart.
FITTED = (
    Job(100_000, 0, 1, 1),
    Job(1_000_000, 0, 1, 1),
    Job(1_000_000, 0, 5, 1),
    Job(3_000_000, 0, 1, 1),
    Job(3_000_000, 0, 5, 1),
    Job(1_000_000, 10_000, 1, 1),
    Job(3_000_000, 10_000, 1, 1),
    Job(1_000_000, 10_000, 4, 1),
    Job(1_000_000, 100_000, 1, 1),
    Job(3_000_000, 100_000, 1, 1),
    Job(1_000_000, 100_000, 4, 1),
    Job(1_000_000, 10_000, 2, 2),
    Job(1_000_000, 0, 5, 3),
    Job(200_000, 0, 1, 1, stored=False),
    Job(2_200_000, 0, 1, 1, stored=False),
    Job(2_200_000, 0, 5, 1, stored=False),
)
CHECKED = (
    Job(2_000_000, 0, 2, 2),
    Job(2_000_000, 1_000, 3, 2),
    Job(2_000_000, 10_000, 2, 4),
    Job(2_000_000, 100_000, 2, 2),
    Job(500_000, 100_000, 3, 1, plots=False),
    Job(2_000_000, 10_000, 2, 2, units=1),
    Job(2_000_000, 0, 3, 2, stored=False),
)


# Of clusters, where the driver has no work but its own.
ON_FLINK = (
    Job(2_000_000, 0, 2, 2, cluster=True),
    Job(2_000_000, 10_000, 2, 2, cluster=True),
    Job(2_000_000, 100_000, 2, 2, cluster=True),
)


def compare(jobs: tuple[Job, ...], folder: Path) -> None:
    """Prints a row for each job: prediction / measured = ratio."""
    names = [one.name for one in dataclasses.fields(Needs)]
    print("|".join(["", "job", *names, ""]) + "\n" + "|---" * (len(names) + 1) + "|")
    for job in jobs:
        said = predict(job, Constants())
        found = measure_on_flink(job, folder) if job.cluster else measure(job, folder)
        pairs = ((getattr(said, name), getattr(found, name)) for name in names)
        cells = [
            "" if math.isnan(measured) else f"{ours:,.0f} / {measured:,.0f} = {ours / measured:.2f}"
            for ours, measured in pairs
        ]
        print("|".join(["", _described(job), *cells, ""]), flush=True)


def _described(job: Job) -> str:
    more = [f"{job.units} units"] * (job.units != 50) + ["no plots"] * (not job.plots)
    more += ["models"] * (not job.stored)
    return ", ".join(
        [
            f"{job.examples / 1e6:g} M",
            f"{job.slices:,} slices",
            f"{job.versions} versions",
            f"{job.bundles} bundles",
            *more,
        ]
    )


def tables() -> None:
    """Prints what clusters need: a bundle for each core, as on Flink and Spark."""
    c = Constants()
    print("|examples|slices|versions|partitions|adding up, h|merging and finishing, h", end="|")
    print("a table, GB|shuffled, GB|... on Dataflow|worker, GB|driver, GB|results, GB|")
    print("|---" * 12 + "|")
    for examples, keys, versions in itertools.product((10**9, 10**11), (0, 10**4, 10**6), (2, 20)):
        tasks = max(CLUSTER_TASKS, math.ceil(examples * EXAMPLE_BYTES / TASK_BYTES))
        row = [f"10^{math.log10(examples):.0f}", f"{keys or 208:,}", f"{versions}"]
        whole = Job(examples, keys, versions, 1)
        row += [f"{min(whole.partitions, whole.slices):,}"]
        hours = []
        for cores in (16, 256, 2000):
            job = Job(examples, keys, versions, min(cores, tasks), stored=False, cluster=True)
            needs = predict(job, c)
            behind_s = merges_us(job, c) / 1e6 + needs.finish_s
            late = math.ceil(tasks / job.bundles) * job.bundles / tasks
            adding_h = (needs.workers_s - behind_s) / job.bundles * late / 3600
            at_once = min(job.partitions, job.slices, job.bundles)
            hours.append((adding_h, behind_s / at_once / 3600, needs, job))
        row += [" / ".join(_number(one[0]) for one in hours)]
        row += [" / ".join(_number(one[1]) for one in hours)]
        _, _, needs, job = hours[1]
        row += [_number(needs.tables_mb / 1e3 / job.bundles), _number(needs.shuffled_mb / 1e3)]
        most = predict(dataclasses.replace(job, bundles=tasks), c)
        row += [_number(most.shuffled_mb / 1e3), _number(needs.worker_mb / 1e3)]
        row += [_number(needs.driver_mb / 1e3), _number(needs.results_mb / 1e3)]
        print("|".join(["", *row, ""]))


def _number(value: float) -> str:
    """Two digits."""
    rounded = float(f"{value:.2g}")
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:g}" if rounded >= 0.01 else "<0.01"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fit", action="store_true", help="the runs that gave the constants")
    parser.add_argument("--flink", action="store_true", help="predictions against runs on Flink")
    parser.add_argument("--tables", action="store_true", help="print the predictions for clusters")
    given = parser.parse_args()
    if given.tables:
        tables()
        return
    with tempfile.TemporaryDirectory() as folder:
        reference.write_models(Path(folder) / "models")
        jobs = FITTED if given.fit else ON_FLINK if given.flink else CHECKED
        compare(jobs, Path(folder))


if __name__ == "__main__":
    main()
