"""Computes results from saved states: of a single run again, or of several runs merged."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from evalbeam.beam_jobs import config, pipeline
from evalbeam.beam_jobs.check import pairs, stores
from evalbeam.beam_jobs.config.resolve import resolve
from evalbeam.beam_jobs.launch import runner
from evalbeam.beam_jobs.publish import assemble, manifest, staging, verify
from evalbeam.beam_jobs.report import terminal
from evalbeam.beam_jobs.run import check_run_id, new_run_id
from evalbeam.transforms import errors
from evalbeam.transforms.ledger import Ledger
from evalbeam.transforms.metrics.evaluation import Evaluation
from evalbeam.transforms.metrics.plan import plan
from evalbeam.transforms.results import rebin
from evalbeam.transforms.results.index import Index
from evalbeam.transforms.sinks import state
from evalbeam.transforms.sinks.state import State
from evalbeam.transforms.stages import aggregate
from evalbeam.transforms.tfma import eval_config

# The parts of a config that determine what is read and added up, so a saved state fixes them.
_NEED_DATA = ("data", "models", "task", "slices", "confidence")


@dataclass(frozen=True)
class Request:
    """The command line's request.

    Attributes:
      runs: run folders or URLs.
      config_path: the path of another config, if any.
      output: the folder or URL of all runs, to publish to; None to replace the run.
      run_id: the id of the result; None for the run's id, or for a new one when merging.
      beam_options: Beam's pipeline options, as on a command line.
      started: when the command started, by time.monotonic.
    """

    runs: tuple[str, ...]
    config_path: str | None = None
    output: str | None = None
    run_id: str | None = None
    beam_options: tuple[str, ...] = ()
    started: float = field(default_factory=time.monotonic)


def results(request: Request) -> None:
    """Computes a run's results again from its state, without data and models.

    Raises:
      ConfigError: the run has no valid state, or the config needs sums that the state lacks.
      JobError: the job failed; nothing was published.
    """
    options = runner.options(request.beam_options)
    if request.config_path is not None and request.output is None:
        raise errors.ConfigError(
            "--config needs --output FOLDER: a run's results are not replaced by different ones"
        )
    stores.check(request.runs, request.output, options)
    run = staging.resolve(request.runs[0])
    saved = state.load(run)
    verify.verify(saved.evaluation, saved.index, saved.ledger)
    evaluation, description = saved.results, saved.run
    if request.config_path is not None:
        evaluation, description = _apply_config(saved, request.config_path)
    run_id = check_run_id(request.run_id) or description["run_id"]
    description = {**description, "run_id": run_id}
    with (
        staging.replacing(run)
        if request.output is None
        else staging.staged(request.output, run_id) as stage
    ):
        stage.copy_state(saved.folder)
        built = runner.pipeline(options)
        pipeline.rebuild(built, saved, evaluation, stage)
        runner.run(built)
        stage.gather()
        assemble.assemble(stage, evaluation, saved.ledger, description)
        assemble.write_state(stage, saved.evaluation, evaluation, saved.ledger, description)
        if request.output is None:
            folder, published = staging.replace(stage, run), run
        else:
            folder = staging.publish(stage, request.output, run_id)
            published = staging.run_path(request.output, run_id)
        terminal.show_published(folder, published, time.monotonic() - request.started)


def merge(request: Request) -> None:
    """Merges the states of several runs into a run, as if it had read all their data.

    Raises:
      ConfigError: a run has no valid state, or the runs cannot be merged; names the reason.
      JobError: the job failed; nothing was published.
    """
    options = runner.options(request.beam_options)
    assert request.output is not None
    stores.check(request.runs, request.output, options)
    states = [state.load(staging.resolve(run)) for run in request.runs]
    _check_mergeable(request.runs, states)
    evaluation, notes = _drop_tfma(states[0].evaluation)
    for note in notes:
        print(note, file=sys.stderr)
    name = str(states[0].run["name"])
    run_id = check_run_id(request.run_id) or new_run_id(name)
    ledger = Ledger.merge([saved.ledger for saved in states])
    partitions = aggregate.count_partitions(sum(saved.index.cells for saved in states))
    with staging.staged(request.output, run_id) as stage:
        built = runner.pipeline(options)
        pipeline.merge(built, states, evaluation, stage, partitions)
        job_id = runner.run(built)
        stage.gather()
        index = Index.from_json(stage.index.read_text(encoding="utf-8"))
        verify.verify(evaluation, index, ledger)
        description = {
            **_describe_merged(states, [*notes, *assemble.note_plots(evaluation, index)]),
            "run_id": run_id,
            "runner": runner.name(options),
            "job_id": job_id,
            "options": runner.redact(options),
            "timings_s": {"merge": time.monotonic() - request.started},
        }
        assemble.assemble(stage, evaluation, ledger, description)
        assemble.write_state(stage, evaluation, evaluation, ledger, description)
        folder = staging.publish(stage, request.output, run_id)
        published = staging.run_path(request.output, run_id)
        terminal.show_published(folder, published, time.monotonic() - request.started)


def _apply_config(saved: State, path: str) -> tuple[Evaluation, dict[str, Any]]:
    """The saved evaluation with the parts of a config that need no new data, and its description.

    Prints a note on the parts of the config that differ and need a new run.
    """
    settings, text = config.load(path)
    kept = saved.evaluation
    request = resolve(settings, kept.engine)
    before, after = yaml.safe_load(saved.run["config"]["text"]), yaml.safe_load(text)
    changed = [key for key in _NEED_DATA if before.get(key) != after.get(key)]
    notes = []
    if changed:
        notes.append(
            f"{path}: {', '.join(f'`{key}`' for key in changed)} differ from the run's config "
            "and are ignored: they need a new run"
        )
    names = tuple(model.name for model in settings.models)
    bounds = {(p.baseline, p.candidate): p.bounds for p in pairs(settings, kept.baseline)}
    evaluation = dataclasses.replace(
        kept,
        metrics=kept.metrics if request.metrics is None else request.metrics,
        thresholds=tuple(settings.thresholds),
        pairs=tuple(
            dataclasses.replace(
                pair, bounds=pair.bounds and bounds.get((pair.baseline, pair.candidate))
            )
            for pair in kept.pairs
        )
        if names == kept.models
        else kept.pairs,
        min_slice_size=request.min_slice_size,
        eval_config=request.eval_config,
    )
    _check_sums(path, kept, evaluation)
    for note in notes:
        print(note, file=sys.stderr)
    description = {
        **saved.run,
        "config": {"path": path, "text": text},
        "notes": [*saved.run["notes"], *notes],
    }
    return evaluation, description


def _check_sums(path: str, kept: Evaluation, wanted: Evaluation) -> None:
    """Raises ConfigError if results need sums that the state does not keep."""
    missing = {statistic.name for statistic in rebin.find_missing(plan(kept), plan(wanted))}
    metrics = [
        f"{metric.key.metric} ({', '.join(names)})"
        for metric in plan(wanted).metrics
        if (names := sorted({s.name for s in metric.statistics} & missing))
    ]
    counts = [kept.statistic.name for kept in plan(wanted).confusions]
    metrics += [name for name in counts if name in missing]
    kept_by_tfma = {metric.spec for metric in plan(kept).by_tfma}
    metrics += [
        f"{metric.spec.class_name} (computed by TFMA)"
        for metric in plan(wanted).by_tfma
        if metric.spec not in kept_by_tfma
    ]
    flips = [flip.name for flip in plan(wanted).flips if flip.name in missing]
    if names := list(dict.fromkeys([*metrics, *flips])):
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        raise errors.ConfigError(
            f"{path}: the run's state does not keep the sums that these need: "
            f"{'; '.join(names[:5])}{more}. Run the evaluation again with this config"
        )


def _check_mergeable(runs: Sequence[str], states: Sequence[State]) -> None:
    """Raises ConfigError if the runs cannot be merged; names the difference."""
    if len(runs) < 2:
        raise errors.ConfigError("merge needs at least two runs")
    first = states[0]
    for run, saved in zip(runs[1:], states[1:], strict=True):
        for what, before, after in _find_differences(first, saved):
            raise errors.ConfigError(
                f"{runs[0]} and {run} cannot be merged: {what} differ, {before} and {after}"
            )
    for number, (run, saved) in enumerate(zip(runs, states, strict=True)):
        for other, earlier in zip(runs[:number], states[:number], strict=True):
            ids = {saved.run["run_id"], *saved.run["merged"]}
            if common := sorted(ids & {earlier.run["run_id"], *earlier.run["merged"]}):
                raise errors.ConfigError(
                    f"{other} and {run} both include the run {common[0]!r}: its examples would "
                    "count twice"
                )
            for split, rows in saved.ledger.scored.items():
                same = saved.ledger.fingerprints[split] == earlier.ledger.fingerprints[split]
                if rows and rows == earlier.ledger.scored[split] and same:
                    raise errors.ConfigError(
                        f"{other} and {run} have the same {rows:,} examples in split {split!r} "
                        f"(fingerprint {saved.ledger.fingerprints[split]:016x}), which would count "
                        "twice"
                    )
    if first.evaluation.engine == "tfma":
        raise errors.ConfigError(
            f"{runs[0]}: TFMA computed all its metrics (--engine tfma), which cannot be merged. "
            "Run the evaluations without --engine tfma"
        )


def _find_differences(first: State, other: State) -> Iterator[tuple[str, str, str]]:
    """What differs between two states to be merged, and both values as text."""
    for field_ in dataclasses.fields(Evaluation):
        before, after = (getattr(saved.evaluation, field_.name) for saved in (first, other))
        if before != after:
            yield _LABELS.get(field_.name, field_.name), _shorten(before), _shorten(after)
    for name, model in first.run["models"].items():
        before, after = model["sha256"], other.run["models"][name]["sha256"]
        if before != after:
            yield f"the models of version {name!r}", f"SHA-256 {before}", f"SHA-256 {after}"


# The fields of an evaluation, as users know them.
_LABELS = {
    "models": "the versions",
    "heads": "outputs, labels or tasks",
    "pairs": "the pairs of versions or a conversion's bounds",
    "slices": "the slices or their edges",
    "weight": "the weight columns",
    "id": "the id columns",
    "units": "the units (confidence.units)",
    "eval_config": "the EvalConfigs",
}


def _shorten(value: object) -> str:
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _drop_tfma(evaluation: Evaluation) -> tuple[Evaluation, list[str]]:
    """The evaluation of merged runs, without metrics computed by TFMA, and a note on these."""
    if eval_config.build_for_tfma(evaluation) is None:
        return evaluation, []
    by_tfma = {metric.spec for metric in plan(evaluation).by_tfma}
    names = [spec.class_name for spec in by_tfma]
    for text in evaluation.tfma_metrics:
        names += [metric.class_name for metric in eval_config.parse_metrics_spec(text).metrics]
    columnar = tuple(spec for spec in evaluation.metrics if spec not in by_tfma)
    note = f"not merged, as metrics computed by TFMA are not sums: {', '.join(sorted(names))}"
    return dataclasses.replace(evaluation, metrics=columnar, tfma_metrics=()), [note]


def _describe_merged(states: Sequence[State], notes: Sequence[str]) -> dict[str, Any]:
    """The description of a merged run; where runs differ, that of the first one."""
    first = states[0].run
    files: dict[str, list[str]] = {}
    for saved in states:
        for split, paths in saved.run["data"]["files"].items():
            files[split] = list(dict.fromkeys([*files.get(split, []), *paths]))
    merged = [run_id for s in states for run_id in s.run["merged"] or [s.run["run_id"]]]
    return {
        **first,
        "finished_at": manifest.now(),
        "merged": merged,
        "data": {**first["data"], "files": files},
        "notes": list(dict.fromkeys([*(n for s in states for n in s.run["notes"]), *notes])),
    }
