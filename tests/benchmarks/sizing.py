"""What runs need, on paper and measured: the numbers of deploy/SIZING.md.

  python tests/benchmarks/sizing.py            predictions against runs that gave no constant
  python tests/benchmarks/sizing.py --fit      the runs that the constants are from
  python tests/benchmarks/sizing.py --tables   the predictions for clusters, without any run

The job is the reference job, with one more slice key of so many values, evenly spread, and with
stored predictions where only the sums matter. CPU seconds, not the clock's, are compared: those
hold on a machine that others use.
"""

from __future__ import annotations

import argparse
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

EXAMPLE_BYTES = 362  # of the reference job's tf.Examples
TASK_BYTES = 256 << 20
CLUSTER_TASKS = 256
PARTITIONS = 16
PLOTTED = 1000


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
    cell_us: float = 0.66  # a cell of a bundle's table: made, encoded, written
    partition_us: float = 0.3  # on a cluster, where its table is cut in 16
    merge_us: float = 0.05  # a cell of either of two tables that are merged
    worker_mb: float = 375.0
    tensorflow_mb: float = 400.0  # more with models, ...
    model_mb: float = 60.0  # and for each
    worker_cell_bytes: float = 150.0
    worker_slice_bytes: float = 5000.0  # for each version
    merger_cell_bytes: float = 200.0  # of a worker that merges, for each cell of all it merges
    driver_mb: float = 335.0
    driver_cell_bytes: float = 95.0
    driver_slice_bytes: float = 1700.0  # for each version
    driver_cell_us: float = 0.2
    driver_slice_us: float = 20.0  # for each version
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
    stored: bool = True  # predictions, in place of tf.Examples and models
    cluster: bool = False


def filled(probabilities: np.ndarray, examples: float) -> float:
    """How many cells have an example, if each falls into one of them."""
    return float(-np.expm1(-examples * probabilities).sum())


@functools.cache
def _statistics(job: Job) -> list[tuple[int, np.ndarray, int]]:
    """Of how many versions; the probability of each cell; a cell's bytes (key, sum, rounding).

    The score is the reference data's: its logit is normal.
    """
    weights = np.random.default_rng(7).normal(size=reference.FLOATS)
    spread = float(np.sqrt((weights**2).sum())) / 4
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
    even = np.full(job.units, 1 / job.units)
    found = [
        (1, even, 16),  # the examples
        (job.versions, by_label, 16),  # TFMA's histogram
        (job.versions, by_unit, 16),  # the confusion matrix
        (job.versions - 1, by_unit, 16),  # flips against the baseline: here there are none
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
    """What a job needs, in MB and seconds; `worker_s` is of all workers' cores."""

    shuffled_mb: float
    worker_s: float
    worker_mb: float
    driver_s: float
    driver_mb: float
    results_mb: float


def predict(job: Job, c: Constants) -> Needs:
    """What the model says."""
    cells, size = table(job, job.examples / job.bundles)
    merged, _ = table(job, job.examples)
    count = sum(one for one, _ in slices(job)) * job.versions
    plotted = min(count, PLOTTED * job.versions) * job.plots
    examples_us = job.examples * (c.stored_us if job.stored else c.example_us)
    versions_us = job.examples * job.versions * (c.add_us + key_us(job.keys))
    start_s, models_mb = c.start_s, 0.0
    if not job.stored:
        versions_us += job.examples * job.versions * c.predict_us
        start_s += c.tensorflow_s
        models_mb = c.tensorflow_mb + c.model_mb * job.versions
    cell_us = c.cell_us + c.partition_us * job.cluster
    bundles_us = job.bundles * cell_us * cells + merges_us(job, c)
    shuffled_mb = job.bundles * size / 1e6
    adding_bytes = c.worker_cell_bytes * cells
    merging_bytes = c.merger_cell_bytes * merged / (PARTITIONS if job.cluster else 1)
    worker_bytes = max(adding_bytes, merging_bytes * (job.bundles > 1))
    driver_mb = c.driver_mb + (c.driver_cell_bytes * merged + c.driver_slice_bytes * count) / 1e6
    results = c.state_cell_bytes * merged + c.slice_bytes * count + c.plots_bytes * plotted
    return Needs(
        shuffled_mb,
        start_s * job.bundles + (examples_us + versions_us + bundles_us) / 1e6,
        c.worker_mb + models_mb + (worker_bytes + c.worker_slice_bytes * count) / 1e6,
        (c.driver_cell_us * merged + c.driver_slice_us * count) / 1e6,
        driver_mb + (0 if job.cluster else shuffled_mb),  # the local runner keeps what it shuffles
        results / 1e6,
    )


def key_us(keys: int) -> float:
    """Between what is measured, and beyond, by the logarithm of the key's values."""
    known = sorted(KEY_US)
    low, high = next((p for p in itertools.pairwise(known) if keys <= p[1]), tuple(known[-2:]))
    position = math.log(max(keys, 1) / low) / math.log(high / low)
    return KEY_US[low] + position * (KEY_US[high] - KEY_US[low])


def merges_us(job: Job, c: Constants) -> float:
    """One bundle's table after the other is added to the sum of all."""
    if job.bundles == 1:
        return 0.0
    cells, _ = table(job, job.examples / job.bundles)
    merged, _ = table(job, job.examples)
    return c.merge_us * job.bundles * (cells + merged)


def _data(job: Job, folder: Path) -> Path:
    if not job.stored:
        return reference.write_examples(folder, job.examples)
    path = folder / f"stored-{job.examples}.parquet"
    if not path.exists():
        found = reference.columns(job.examples, wide=True)
        names = ("label", "score", "country", "device", "age", *(f"key{k}" for k in reference.KEYS))
        groups = -(-job.examples // 16)
        pq.write_table(pa.table({name: found[name] for name in names}), path, row_group_size=groups)
    return path


def _config(job: Job, folder: Path) -> Path:
    names = [f"v{version}" for version in range(1, job.versions + 1)]
    kind = "predictions" if job.stored else "path"
    config = reference.config(
        _data(job, folder),
        [{"name": n, kind: "score" if job.stored else str(folder / "models" / n)} for n in names],
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


def measure(job: Job, folder: Path) -> Needs:
    """What a run with a worker process for each bundle uses, beside the process that started it."""
    flags = ("--direct_running_mode=multi_processing", f"--direct_num_workers={job.bundles}")
    command = [sys.executable, "-m", "evalbeam", "run", str(_config(job, folder)), *flags]
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_NUM_INTRAOP_THREADS": "1"}
    quiet["TF_NUM_INTEROP_THREADS"] = "1"
    process = subprocess.Popen(
        command,
        env={**os.environ, **quiet},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    cpu: dict[int, float] = {}
    peak: dict[int, float] = {}
    while process.poll() is None:
        for pid, cpu_s, peak_mb in _processes(process.pid):
            # One that has just ended has no memory any more.
            cpu[pid], peak[pid] = cpu_s, max(peak_mb, peak.get(pid, 0))
        time.sleep(0.1)
    if process.returncode:
        raise RuntimeError(f"{command} failed: exit code {process.returncode}")
    run = folder / "results/latest"
    manifest = json.loads((run / "manifest.json").read_text())
    workers = cpu.keys() - {process.pid}
    return Needs(
        shuffled_mb=manifest["state_bytes"] / 1e6,
        worker_s=sum(cpu[pid] for pid in workers),
        worker_mb=max(peak[pid] for pid in workers),
        driver_s=manifest["timings_s"]["finish"],
        driver_mb=peak[process.pid],
        results_mb=sum(path.stat().st_size for path in run.rglob("*")) / 1e6,
    )


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


def compare(jobs: tuple[Job, ...], folder: Path) -> None:
    """Prints a row for each job: prediction / measured = ratio."""
    names = [one.name for one in dataclasses.fields(Needs)]
    print("|".join(["", "job", *names, ""]) + "\n" + "|---" * (len(names) + 1) + "|")
    for job in jobs:
        said, found = predict(job, Constants()), measure(job, folder)
        cells = [
            f"{getattr(said, name):,.0f} / {getattr(found, name):,.0f} = "
            f"{getattr(said, name) / getattr(found, name):.2f}"
            for name in names
        ]
        print("|".join(["", _described(job), *cells, ""]), flush=True)


def _described(job: Job) -> str:
    count = sum(one for one, _ in slices(job))
    more = [f"{job.units} units"] * (job.units != 50) + ["no plots"] * (not job.plots)
    more += ["models"] * (not job.stored)
    return ", ".join(
        [
            f"{job.examples / 1e6:g} M",
            f"{count:,} slices",
            f"{job.versions} versions",
            f"{job.bundles} bundles",
            *more,
        ]
    )


def tables() -> None:
    """Prints what clusters need: a bundle for each core, as on Flink and Spark."""
    c = Constants()
    print("|examples|slices|versions|adding up, h|merging, h|a table, GB|shuffled, GB", end="|")
    print("... on Dataflow|worker, GB|driver, GB|driver, min|results, GB|")
    print("|---" * 12 + "|")
    for examples, keys, versions in itertools.product((10**9, 10**11), (0, 10**4, 10**6), (2, 20)):
        tasks = max(CLUSTER_TASKS, math.ceil(examples * EXAMPLE_BYTES / TASK_BYTES))
        row = [f"10^{math.log10(examples):.0f}", f"{keys or 208:,}", f"{versions}"]
        hours = []
        for cores in (16, 256, 2000):
            job = Job(examples, keys, versions, min(cores, tasks), stored=False, cluster=True)
            needs = predict(job, c)
            merge_s = merges_us(job, c) / 1e6
            late = math.ceil(tasks / job.bundles) * job.bundles / tasks
            adding_h = (needs.worker_s - merge_s) / job.bundles * late / 3600
            hours.append((adding_h, merge_s / min(PARTITIONS, job.bundles) / 3600, needs, job))
        row += [" / ".join(_number(one[0]) for one in hours)]
        row += [" / ".join(_number(one[1]) for one in hours)]
        _, _, needs, job = hours[1]
        row += [_number(needs.shuffled_mb / 1e3 / job.bundles), _number(needs.shuffled_mb / 1e3)]
        most = predict(dataclasses.replace(job, bundles=tasks), c)
        row += [_number(most.shuffled_mb / 1e3), _number(needs.worker_mb / 1e3)]
        row += [_number(needs.driver_mb / 1e3), _number(needs.driver_s / 60)]
        print("|".join(["", *row, _number(needs.results_mb / 1e3), ""]))


def _number(value: float) -> str:
    """Two digits."""
    rounded = float(f"{value:.2g}")
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:g}" if rounded >= 0.01 else "<0.01"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fit", action="store_true", help="the runs that gave the constants")
    parser.add_argument("--tables", action="store_true", help="print the predictions for clusters")
    given = parser.parse_args()
    if given.tables:
        tables()
        return
    with tempfile.TemporaryDirectory() as folder:
        reference.write_models(Path(folder) / "models")
        compare(FITTED if given.fit else CHECKED, Path(folder))


if __name__ == "__main__":
    main()
