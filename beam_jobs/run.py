"""The main job: check, run the pipeline, verify its counts, finish, publish."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import json
import logging
import os
import platform
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import apache_beam as beam
import yaml
from apache_beam.options import pipeline_options

from beam_jobs import check, config, pipeline, progress, summary
from transforms import errors, finish, models, slices
from transforms.metrics import table, tfma
from transforms.sinks import state, tables, tfma_result

# On a cluster the slices are merged in so many parts, by as many workers.
_CLUSTER_PARTITIONS = 16
_LETTERS_SHOWN = 5
# The packages whose versions a result depends on.
_PACKAGES = ("evalbeam", "apache-beam", "tensorflow", "tensorflow-model-analysis", "numpy")


@dataclass(frozen=True)
class Request:
    """What the command line asks for.

    Attributes:
      config_path, config_text: the YAML file and what it holds.
      settings: the same, validated.
      output: in place of the config's output folder.
      run_id: in place of one made of the name and the time.
      engine: "columnar", or "tfma" for TFMA's own evaluators.
      dry_run: check and say what would be done, no more.
      beam_options: Beam's pipeline options, as on a command line.
    """

    config_path: str
    config_text: str
    settings: config.Config
    output: str | None = None
    run_id: str | None = None
    engine: str = "columnar"
    dry_run: bool = False
    beam_options: tuple[str, ...] = ()


def run(request: Request) -> Path | None:
    """Runs the job and publishes its results; returns their folder, None after a dry run.

    Raises:
      ConfigError, JobError: nothing was published, `latest` is what it was.
    """
    started = time.monotonic()
    settings = request.settings
    output = Path(request.output or settings.output)
    run_id = request.run_id or _new_id(settings.name)
    published = output / "runs" / run_id
    if published.exists():
        raise errors.ConfigError(
            f"{published} exists already, and a run's results are never changed: give another "
            "--run-id, or none"
        )
    options = _options(request.beam_options)
    job = check.check(settings, request.engine)
    for note in job.notes:
        print(note, file=sys.stderr)
    checked = time.monotonic()
    if request.dry_run:
        print(_plan_text(job))
        return None
    # A folder of this attempt's own: one that was killed may have left another behind.
    staging = pipeline.Staging(output / ".staging" / f"{run_id}-{os.getpid()}")
    with _staged(staging):
        job = _with_edges(job, staging, options)
        _execute(job, staging, options, request.engine)
        ran = time.monotonic()
        counts, ledger = _reconcile(job, staging)
        merged = [state.read(path) for path in sorted(staging.state.glob("*.parquet"))]
        _verify(job, merged, counts)
        _write_results(job, merged, staging)
        finished = time.monotonic()
        manifest = {
            "run_id": run_id,
            "name": job.name,
            "finished_at": datetime.datetime.now(datetime.timezone.utc).isoformat(),
            "config": _config_entry(request.config_path, request.config_text),
            "data": _data_entry(job, counts, ledger),
            "models": _model_entries(job, ledger),
            "baseline": job.baseline,
            "slices": [_spec_text(spec) for spec in job.specs],
            "engine": request.engine,
            "notes": list(job.notes),
            "runner": options.view_as(pipeline_options.StandardOptions).runner,
            "versions": {"python": platform.python_version(), **_versions()},
            "timings_s": {
                "check": checked - started,
                "pipeline": ran - checked,
                "finish": finished - ran,
            },
            "verdict": "not gated",
        }
        (staging.folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
        shutil.rmtree(staging.folder / "work")
        _publish(staging.folder, published, output / "latest")
    _show(job, published, counts, finished - started)
    return published


def _new_id(name: str) -> str:
    now = datetime.datetime.now(datetime.timezone.utc)
    return f"{name}-{now:%Y%m%dT%H%M%S}-{os.urandom(2).hex()}"


def _options(given: Sequence[str]) -> pipeline_options.PipelineOptions:
    flags = list(given)
    if not any(flag.startswith("--runner") for flag in flags):
        # Without the version Beam would first look for Prism, a runner that it downloads.
        flags = [
            "--runner=DirectRunner",
            f"--update_compatibility_version={beam.version.__version__}",
            "--direct_running_mode=in_memory",
            *flags,
        ]
    parsed = pipeline_options.PipelineOptions(flags)
    unknown = set(f.split("=")[0].lstrip("-") for f in flags) - set(_known_options())
    if unknown:
        raise errors.ConfigError(
            f"unknown option --{sorted(unknown)[0]}: neither evalbeam's (see `evalbeam run "
            "--help`) nor one of Beam's pipeline options"
        )
    return parsed


def _known_options() -> set[str]:
    parsed = pipeline_options.PipelineOptions([])
    return set(parsed.get_all_options(drop_default=False))


def _is_local(options: pipeline_options.PipelineOptions) -> bool:
    return "Direct" in str(options.view_as(pipeline_options.StandardOptions).runner)


@contextlib.contextmanager
def _staged(staging: pipeline.Staging) -> Iterator[None]:
    """The staging folder, which is gone when the block ends, however it ends."""
    staging.progress.mkdir(parents=True)
    staging.dead_letters.parent.mkdir()
    try:
        yield
    finally:
        shutil.rmtree(staging.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            staging.folder.parent.rmdir()  # if no other run is staged


def _with_edges(
    job: check.Job, staging: pipeline.Staging, options: pipeline_options.PipelineOptions
) -> check.Job:
    """The job with the edges of slice columns that are cut into quantiles."""
    if not any(term.quantiles for spec in job.specs for term in spec):
        return job
    built = beam.Pipeline(options=options)
    pipeline.find_edges(built, job, staging)
    _wait(built)
    edges = {(c["column"], c["quantiles"]): tuple(c["edges"]) for c in _lines(staging.edges)}
    missing = [t.column for s in job.specs for t in s if t.quantiles and not _edges(t, edges)]
    if missing:
        raise errors.ConfigError(
            f"slices: column {missing[0]!r} has no value in any row, so no quantiles; check its "
            "name"
        )
    specs = tuple(
        tuple(dataclasses.replace(t, edges=_edges(t, edges)) if t.quantiles else t for t in spec)
        for spec in job.specs
    )
    return dataclasses.replace(job, specs=specs)


def _edges(term: slices.Term, found: dict[tuple[str, int], tuple[float, ...]]) -> tuple[float, ...]:
    return found.get((term.column, term.quantiles or 0), ())


def _execute(
    job: check.Job,
    staging: pipeline.Staging,
    options: pipeline_options.PipelineOptions,
    engine: str,
) -> None:
    local = _is_local(options)
    built = beam.Pipeline(options=options)
    pipeline.build(built, job, staging, 1 if local else _CLUSTER_PARTITIONS, engine)
    with progress.watch(staging.progress, job.shards) if local else contextlib.nullcontext():
        _wait(built)


def _wait(built: beam.Pipeline) -> None:
    # An exception on a worker comes home with its traceback: once is enough.
    logging.getLogger("apache_beam.runners.common").setLevel(logging.CRITICAL)
    try:
        built.run().wait_until_finish()
    except Exception as e:
        raise _cause(e) from e


def _cause(error: BaseException) -> errors.EvalbeamError:
    """What went wrong on a worker: Beam adds the step to it, or brings home only a traceback."""
    text = str(error)
    for kind in (errors.ConfigError, errors.NotComparableError, errors.JobError):
        name = f"transforms.errors.{kind.__name__}: "
        if isinstance(error, kind) or name in text:
            told = text.rpartition(name)[2]
            return kind(re.split(r" \[while running '|\n\n", told)[0].strip())
    # A fault of ours or of the machine: whoever mends it needs the traceback.
    return errors.JobError(f"The pipeline failed: {text.strip()}")


@dataclass(frozen=True)
class _Counts:
    """By split: rows read, scored and given up."""

    read: Counter[str]
    scored: Counter[str]
    dead: Counter[str]


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _reconcile(job: check.Job, staging: pipeline.Staging) -> tuple[_Counts, dict[str, Any]]:
    """Every shard read to its end, every row scored or given up, and not too many of these."""
    counts = _Counts(Counter(), Counter(), Counter())
    read = _lines(staging.read_counts)
    for line in read:
        counts.read[line["split"]] += line["rows"] + line["dead_letters"]
    (ledger,) = _lines(staging.ledger)
    counts.scored.update(ledger["scored"])
    letters = _lines(staging.dead_letters)
    counts.dead.update(letter["split"] for letter in letters)
    shards = {(line["path"], line["piece"]) for line in read}
    if len(read) != len(shards) or shards != {(s.path, s.piece) for s in job.shards}:
        raise errors.JobError(
            f"{len(job.shards)} shards were to be read, and {len(shards)} were: nothing published"
        )
    for split, rows in counts.read.items():
        if rows != counts.scored[split] + counts.dead[split]:
            raise errors.JobError(
                f"Split {split!r}: {rows:,} rows read, but {counts.scored[split]:,} scored and "
                f"{counts.dead[split]:,} given up: nothing published"
            )
    share = len(letters) / max(sum(counts.read.values()), 1)
    if share > job.max_dead_letters:
        shown = "\n".join(
            f"  {letter['path']}, row {letter['position']}: {letter['reason']}"
            for letter in letters[:_LETTERS_SHOWN]
        )
        more = len(letters) - _LETTERS_SHOWN
        raise errors.JobError(
            f"{len(letters):,} of {sum(counts.read.values()):,} rows could not be scored, and "
            f"data.max_dead_letters allows a share of {job.max_dead_letters:g}; nothing "
            f"published.\n{shown}" + (f"\n  and {more:,} more" if more > 0 else "")
        )
    return counts, ledger


def _verify(job: check.Job, merged: Sequence[table.Table], counts: _Counts) -> None:
    """The table holds every scored row once, and every slicing column exists."""
    in_table: Counter[str] = Counter()
    columns: set[str] = set()
    for part in merged:
        examples = part.dense("examples")[:, 0]
        for key, n in zip(part.slices, examples, strict=True):
            columns.update(column for column, _ in key.pairs)
            if not key.pairs:
                in_table[key.split] += int(n)
    if in_table != +counts.scored:
        raise errors.JobError(
            f"{sum(counts.scored.values()):,} rows were scored, but the merged table holds "
            f"{sum(in_table.values()):,}: nothing published"
        )
    for spec in job.specs:
        for term in spec:
            if term.value is None and term.column not in columns:
                raise errors.ConfigError(
                    f"slices: column {term.column!r} has no value in any of the "
                    f"{sum(counts.read.values()):,} rows; check its name"
                )


def _write_results(
    job: check.Job, merged: Sequence[table.Table], staging: pipeline.Staging
) -> None:
    """The tables and the TFMA result, block by block of slices."""
    eval_config = tfma.config_pb2.EvalConfig.FromString(job.eval_config)
    by_tfma, tfma_config = tfma_result.Messages(), eval_config
    if job.tfma_config is not None:
        by_tfma = tfma_result.read(staging.tfma)
        tfma_config = tfma.config_pb2.EvalConfig.FromString(job.tfma_config)
    names = job.evaluation.models

    def written(writer: tables.Writer) -> Iterator[finish.Block]:
        for part in merged:
            for block in finish.blocks(_large_enough(part, job.min_slice_size), job.evaluation):
                (whole,) = tfma_result.joined([block], by_tfma, tfma_config, names)
                writer.add(whole)
                yield block

    main = [shard for shard in job.shards if shard.split == check.MAIN_SPLIT]
    with tables.Writer(staging.folder, job.baseline) as writer:
        tfma_result.write(
            staging.folder / "tfma",
            written(writer),
            eval_config,
            {model.name: model.path for model in job.models},
            main[0].path,
            main[0].format,
            extra=by_tfma,
        )


def _large_enough(sums: table.Table, least: int) -> table.Table:
    """The table without slices of fewer examples; a whole split stays."""
    if least <= 1:
        return sums
    examples = sums.dense("examples")[:, 0]
    kept = [i for i, key in enumerate(sums.slices) if not key.pairs or examples[i] >= least]
    return sums.select(kept)


def _config_entry(path: str, text: str) -> dict[str, Any]:
    digest = hashlib.sha256(text.encode()).hexdigest()
    return {"path": path, "sha256": digest, "content": yaml.safe_load(text)}


def _data_entry(job: check.Job, counts: _Counts, ledger: dict[str, Any]) -> dict[str, Any]:
    paths: dict[str, list[str]] = {}
    for shard in job.shards:
        if shard.path not in paths.setdefault(shard.split, []):
            paths[shard.split].append(shard.path)
    return {
        split: {
            "files": listed,
            "read": counts.read[split],
            "scored": counts.scored[split],
            "dead_lettered": counts.dead[split],
            # Order-independent, of every scored example's identity and labels.
            "fingerprint": f"{ledger['fingerprints'].get(split, 0):016x}",
        }
        for split, listed in paths.items()
    }


def _model_entries(job: check.Job, ledger: dict[str, Any]) -> dict[str, Any]:
    scored = sum(ledger["scored"].values())
    entries = {}
    for model in job.models:
        seconds = ledger["predict_seconds"].get(model.name, 0.0)
        entries[model.name] = {
            **dataclasses.asdict(model),
            "sha256": models.digest(model.path) if model.path else None,
            "predict_s": seconds,
            "predict_ms_per_batch": 1000 * seconds / max(ledger["batches"], 1),
            "predict_us_per_example": 1e6 * seconds / max(scored, 1),
        }
    return entries


def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in _PACKAGES}


def _publish(staged: Path, published: Path, latest: Path) -> None:
    """Moves the finished folder to its place, then flips the pointer; each step is atomic."""
    published.parent.mkdir(parents=True, exist_ok=True)
    os.rename(staged, published)
    pointer = latest.with_name(f".latest-{published.name}")
    pointer.symlink_to(Path("runs") / published.name)
    os.replace(pointer, latest)


def _plan_text(job: check.Job) -> str:
    size = sum(shard.size_bytes for shard in job.shards)
    lines = [
        f"{job.name}: the config, data and models fit; nothing was run (--dry-run)",
        f"data      {len(job.shards)} shards, {size / 1e6:,.1f} MB, columns "
        f"{', '.join(job.projection.columns)}",
        f"versions  {', '.join(f'{model.name} ({model.kind})' for model in job.models)}",
        f"baseline  {job.baseline or 'none'}",
        f"slices    {'; '.join(_spec_text(spec) for spec in job.specs)}",
        f"metrics   {', '.join(dict.fromkeys(m.key.metric for m in job.evaluation.plan.metrics))}",
    ]
    if job.evaluation.plan.others:
        others = (spec.class_name for spec in job.evaluation.plan.others)
        lines.append(f"by TFMA   {', '.join(others)} (slower: TFMA's own combiners)")
    return "\n".join(lines)


def _spec_text(spec: slices.Spec) -> str:
    return " x ".join(_term_text(term) for term in spec) or "overall"


def _term_text(term: slices.Term) -> str:
    if term.value is not None:
        return f"{term.column}={term.value}"
    if term.edges:
        return f"{term.column} cut at {', '.join(f'{edge:g}' for edge in term.edges)}"
    return f"{term.column} in {term.quantiles} quantiles" if term.quantiles else term.column


def _show(job: check.Job, published: Path, counts: _Counts, seconds: float) -> None:
    rows = sum(counts.read.values())
    dead = sum(counts.dead.values())
    lines = [
        f"{rows:,} rows read, {rows - dead:,} scored by {len(job.models)} versions, {dead:,} given "
        f"up; {seconds:.1f} s",
        f"results in {published}",
    ]
    summary.show(
        published,
        summary.Heading(
            job.name, tuple(model.name for model in job.models), job.baseline, tuple(lines)
        ),
    )
