"""Any input ends in a documented exit code with few lines: configs, flags and files at random.

A case is made of its seed alone, so that a failure can be repeated:

  python tests/faults/fuzz.py --minutes 10        # other cases each time: seeds from the clock
  python tests/faults/fuzz.py --seed 7 --cases 1  # one of them again

Each case runs in a process of its own, forked from one that has imported what is needed, so that a
crash of a native library is seen as what it is.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from evalbeam.beam_jobs import cli
from evalbeam.transforms.formats import tfrecord

ROWS = 120
SECONDS = 60
LINES = 20
EXIT_CODES = {0, 1, 2, 3, 4, 130}
_BYTES = 12 << 30

EVAL_CONFIG = """
model_specs { name: "v1" label_key: "label" is_baseline: true }
model_specs { name: "v2" label_key: "label" }
slicing_specs {}
slicing_specs { feature_keys: "country" }
slicing_specs { feature_values { key: "age" value: "30" } }
cross_slicing_specs { baseline_spec {} slicing_specs { feature_keys: "country" } }
metrics_specs {
  model_names: ["v1", "v2"]
  metrics { class_name: "ExampleCount" }
  metrics { class_name: "AUC" config: '"num_thresholds": 200' }
  metrics {
    class_name: "Recall"
    config: '"thresholds": [0.3, 0.6]'
    threshold { value_threshold { lower_bound { value: 0.5 } } }
  }
}
options { min_slice_size { value: 2 } }
"""

NASTY: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 7.5, 1e308, 1e400, float("nan"), 2**31, 2**63, 2**64, -(2**63)),
    *("", " ", "\n", "\x00", "\x1b[2J", "a" * 5000, "..", "../..", "/", "~", "*", "**", "[", "]"),
    *(
        "label",
        "s1",
        "age",
        "country",
        "day",
        "nothing",
        "é",
        "💥",
        "\ud800".encode("utf-8", "replace").decode(),
    ),
    *("1e400", "0x10", "2024-02-30", "s3://", "gs://x", "://", "file:///etc/passwd", "/dev/zero"),
    *("/proc/self/mem", "d.csv", "d.jsonl", "d.parquet", "d.tfrecord", "e.pbtxt", "job.yaml", "."),
    *([], {}, [[]], [[[]]], {"a": {"b": []}}, [None], [0.5, 0.5], [1, "a", None], {"": ""}),
)
METRICS = (
    *(
        "AUC",
        "Precision",
        "F1Score",
        "log_loss",
        "R2Score",
        "MeanSquaredError",
        "FairnessIndicators",
    ),
    *("CategoricalAccuracy", "TopKCategoricalAccuracy", "CohenKappa", "Calibration", "nothing"),
    *("ConfusionMatrixPlot", "CalibrationPlot", "RecallAtPrecision", "ExpectedCalibrationError"),
    *("MulticlassConfusionMatrixPlot", "MedianAbsoluteError", "NDCG", "BooleanFlipRates"),
)


def make_world(folder: Path) -> None:
    """Writes the files that cases change copies of."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"id": np.arange(ROWS), "label": rng.integers(0, 2, ROWS)})
    frame["age"] = rng.choice([20, 30, 40], ROWS)
    frame["country"] = rng.choice(["de", "fr", "it"], ROWS)
    frame["day"] = rng.choice(["2024-01-01", "2024-02-29"], ROWS)
    frame["w"] = rng.random(ROWS).round(3)
    for name in ("s1", "s2"):
        frame[name] = np.clip(rng.normal(0.4 + 0.2 * frame["label"], 0.2), 0, 1).round(4)
    frame.to_csv(folder / "d.csv", index=False)
    frame.to_json(folder / "d.jsonl", orient="records", lines=True)
    frame.to_parquet(folder / "d.parquet", row_group_size=40)
    records = [_encode(row) for row in frame.to_dict("records")]
    with open(folder / "d.tfrecord", "wb") as file:
        tfrecord.write(file, records)
    for name in ("d.csv", "d.jsonl", "d.tfrecord"):
        (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes(), mtime=0))
    (folder / "e.pbtxt").write_text(EVAL_CONFIG)


def _encode(row: dict[str, Any]) -> bytes:
    from tensorflow.core.example import example_pb2

    example = example_pb2.Example()
    for name, value in row.items():
        feature = example.features.feature[name]
        if isinstance(value, str):
            feature.bytes_list.value.append(value.encode())
        elif isinstance(value, int):
            feature.int64_list.value.append(value)
        else:
            feature.float_list.value.append(value)
    encoded: bytes = example.SerializeToString()
    return encoded


def base_config(rng: random.Random, data: str) -> dict[str, Any]:
    """A config that is right, of parts chosen at random."""
    config: dict[str, Any] = {
        "data": {"files": data, "label": "label"},
        "models": [{"name": "v1", "predictions": "s1"}, {"name": "v2", "predictions": "s2"}],
    }
    if rng.random() < 0.3:
        return config | {"eval_config": "e.pbtxt"}
    for key, value in (
        ("id", "id"),
        ("weight", "w"),
        ("batch_size", 32),
        ("max_dead_letters", 0.5),
    ):
        if rng.random() < 0.4:
            config["data"][key] = value
    parts = {
        "slices": [["country"], ["age", "country"], [{"key": "s1", "quantiles": 3}]],
        "metrics": rng.sample(METRICS, rng.randint(1, 4)),
        "thresholds": [0.3, 0.5],
        "min_slice_size": 5,
        "confidence": {"units": 10},
        "task": "binary",
    }
    return config | {key: value for key, value in parts.items() if rng.random() < 0.5}


def change_config(rng: random.Random, config: Any) -> None:
    """Replaces, removes, renames or adds something anywhere in a config."""
    path = rng.choice(list(_paths(config)))
    *parents, last = path
    part = config
    for key in parents:
        part = part[key]
    action = rng.choice(("replace", "replace", "replace", "remove", "rename", "wrap"))
    if action == "replace":
        part[last] = rng.choice(NASTY)
    elif action == "remove":
        del part[last]
    elif action == "wrap":
        part[last] = [part[last]]
    elif isinstance(part, dict):
        value = part.pop(last)
        part[rng.choice((str(last)[::-1], str(last)[1:], f"{last}s", "size", "outputs"))] = value
    else:
        part.append(rng.choice(NASTY))


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else ()
    for key, child in enumerate(value) if isinstance(value, list) else items:
        yield from _paths(child, (*path, key))


def change_bytes(rng: random.Random, content: bytes) -> bytes:
    """Flips, cuts, repeats, overwrites or inserts bytes."""
    damaged = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5, 30))):
        if not damaged:
            break
        at = rng.randrange(len(damaged))
        size = min(rng.choice((1, 4, 20, 300)), len(damaged) - at)
        action = rng.choice(("flip", "flip", "flip", "cut", "repeat", "zero", "insert", "end"))
        if action == "flip":
            damaged[at] ^= 1 << rng.randrange(8)
        elif action == "cut":
            del damaged[at : at + size]
        elif action == "repeat":
            damaged[at:at] = damaged[at : at + size]
        elif action == "zero":
            damaged[at : at + size] = bytes(size)
        elif action == "insert":
            damaged[at:at] = rng.randbytes(size)
        elif rng.random() < 0.3:
            del damaged[at:]
    return bytes(damaged)


FLAGS: tuple[Callable[[random.Random], list[str]], ...] = (
    lambda rng: ["--run-id", str(rng.choice(NASTY))],
    lambda rng: ["--output", str(rng.choice(NASTY)).replace("\x00", "0")],
    lambda rng: [f"--direct_num_workers={rng.choice((-1, 0, 1, 2, 'x', ''))}"],
    lambda rng: [f"--{rng.choice(('outptu', 'runner', 'engin', 'x', '', 'dry_run', 'job_name'))}"],
    lambda rng: [f"--runner={rng.choice(('Direct', 'DirectRunner', '', 'FlinkRunner', 'X'))}"],
    lambda rng: ["--engine", str(rng.choice(("columnar", "", "tfma2")))],
)


def make_case(seed: int, world: Path, folder: Path) -> list[str]:
    """Writes a case's files; returns its command line."""
    rng = random.Random(seed)
    shutil.copytree(world, folder, dirs_exist_ok=True)
    data = rng.choice(sorted(path.name for path in world.glob("d.*")))
    config = base_config(rng, data)
    kinds = rng.sample(("config", "text", "file", "flags", "eval_config"), rng.choice((1, 1, 1, 2)))
    if "config" in kinds:
        for _ in range(rng.choice((1, 1, 2, 4))):
            change_config(rng, config)
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True).encode("utf-8", "replace")
    (folder / "job.yaml").write_bytes(change_bytes(rng, text) if "text" in kinds else text)
    if "file" in kinds:
        path = folder / data
        path.write_bytes(change_bytes(rng, path.read_bytes()))
    if "eval_config" in kinds:
        path = folder / "e.pbtxt"
        path.write_bytes(change_bytes(rng, path.read_bytes()))
    flags = rng.choice(FLAGS)(rng) if "flags" in kinds else []
    if rng.random() < 0.3:
        flags.append("--dry-run")
    return ["run", "job.yaml", *(flag.replace("\x00", "0") for flag in flags)]


@dataclass(frozen=True)
class Outcome:
    """How a case ended: its exit code or signal, its lines on stderr, and what is wrong with it."""

    code: int | str
    err: str
    wrong: str


def run_case(arguments: list[str], folder: Path) -> Outcome:
    """Runs the command in a forked process in `folder`, and judges how it ended."""
    pid = os.fork()
    if not pid:
        _become(arguments, folder)
    code = _wait(pid)
    err = (folder / "stderr").read_bytes().decode("utf-8", "replace")
    return Outcome(code, err, "; ".join(_judge(code, err, arguments, folder)))


def _become(arguments: list[str], folder: Path) -> None:
    """The command line, as if it were a process of its own; does not return."""
    code = 70
    try:
        os.setpgid(0, 0)
        os.chdir(folder)
        for number, name in enumerate(("/dev/null", "stdout", "stderr")):
            flags = os.O_RDONLY if not number else os.O_WRONLY | os.O_CREAT | os.O_APPEND
            os.dup2(os.open(name, flags, 0o644), number)
        resource.setrlimit(resource.RLIMIT_DATA, (_BYTES, _BYTES))
        cli.main(arguments, prog_name="evalbeam")
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else 0 if exit_.code is None else 1
    except BaseException:  # what no user may see
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        os._exit(code)


def _wait(pid: int) -> int | str:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            if os.WIFSIGNALED(status):
                return signal.Signals(os.WTERMSIG(status)).name
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "hangs"


def _judge(code: int | str, err: str, arguments: list[str], folder: Path) -> Iterator[str]:
    if code not in EXIT_CODES:
        yield f"ended by {code}"
    if "Traceback" in err:
        yield "a traceback"
    if (lines := len(err.splitlines())) > LINES:
        yield f"{lines} lines on stderr"
    if code not in (0, "hangs") and not err.strip():
        yield "no word"
    if any(folder.glob("results/.staging/*")):
        yield "left its staging folder"
    runs = list(folder.glob("results/runs/*"))
    if runs and (code != 0 or "--dry-run" in arguments):
        yield "published, and failed"
    for run in runs:
        manifest = json.loads((run / "manifest.json").read_text())
        for split in manifest["data"].values():
            if split["read"] != split["scored"] + split["dead_lettered"]:
                yield f"counts of {split}"


def main() -> None:
    """Runs cases until the time is up; exits with 1 if any was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--cases", type=int, default=10**9)
    parser.add_argument("--seed", type=int, default=int(time.time()) * 1000)
    given = parser.parse_args()
    deadline = time.monotonic() + 60 * given.minutes
    root = Path(tempfile.mkdtemp(prefix="evalbeam-fuzz-"))
    world = root / "world"
    world.mkdir()
    make_world(world)
    _warm_up(world, root / "warm")
    ended: Counter[int | str] = Counter()
    wrong = 0
    seed = given.seed
    while time.monotonic() < deadline and seed < given.seed + given.cases:
        folder = root / str(seed)
        arguments = make_case(seed, world, folder)
        outcome = run_case(arguments, folder)
        ended[outcome.code] += 1
        if outcome.wrong:
            wrong += 1
            print(f"seed {seed}: {outcome.wrong}: evalbeam {' '.join(map(repr, arguments))}")
            print(f"  in {folder}\n  " + "\n  ".join(outcome.err.splitlines()[-6:]), flush=True)
        else:
            shutil.rmtree(folder)
        seed += 1
    counts = ", ".join(
        f"{count:,} ended with {code}" for code, count in sorted(ended.items(), key=str)
    )
    print(f"{sum(ended.values()):,} cases from seed {given.seed}: {counts}; {wrong:,} wrong")
    if not wrong:
        shutil.rmtree(root)
    sys.exit(bool(wrong))


def _warm_up(world: Path, folder: Path) -> None:
    """Imports what a run imports, so that each case need not: in this process, without threads."""
    import apache_beam  # noqa: F401

    from evalbeam.beam_jobs import rebuild, run  # noqa: F401
    from evalbeam.transforms.tfma import protos  # noqa: F401


if __name__ == "__main__":
    main()
