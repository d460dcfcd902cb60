"""Computes results from saved states: of a single run again, or of several runs merged."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evalbeam.beam_jobs import config, pipeline
from evalbeam.beam_jobs.check import choose_decision_threshold, list_metrics, stores
from evalbeam.beam_jobs.config import resolve
from evalbeam.beam_jobs.launch import cluster, runner
from evalbeam.beam_jobs.publish import assemble, manifest, staging, verify
from evalbeam.beam_jobs.report import terminal
from evalbeam.transforms import errors
from evalbeam.transforms.examples import slices
from evalbeam.transforms.ledger import Ledger
from evalbeam.transforms.metrics.evaluation import Evaluation, MetricSpec
from evalbeam.transforms.metrics.plan import plan
from evalbeam.transforms.results import rebin
from evalbeam.transforms.sinks import state
from evalbeam.transforms.sinks.state import State
from evalbeam.transforms.stages import aggregate
from evalbeam.transforms.tfma import eval_config

# The parts of a config that determine what is read and added up, so a saved state fixes them.
_NEED_DATA = ("data", "models", "task", "slices", "confidence")
_MOST_NOTES = 10
# The most characters of a value in an error.
_TEXT = 300


@dataclass(frozen=True)
class Arguments:
    """The command line's arguments.

    Attributes:
      runs: run folders or URLs.
      config_path: the path of another config, if any.
      output: the folder or URL of all runs, to publish to; None to replace the run.
      run_id: the id of the result; None for the run's id, or for a new one when merging.
      beam_options: Beam's pipeline options, as on a command line.
      started: when the command started, by time.monotonic.
    """

    runs: tuple[str, ...]
    config_path: str | None
    output: str | None
    run_id: str | None
    beam_options: tuple[str, ...]
    started: float


def results(arguments: Arguments) -> None:
    """Computes a run's results again from its state, without data and models.

    Raises:
      ConfigError: the run has no valid state, or the config needs sums that the state lacks.
      JobError: the job failed; nothing was published.
    """
    options = runner.options(arguments.beam_options)
    if arguments.config_path is not None and arguments.output is None:
        raise errors.ConfigError(
            "--config needs --output FOLDER: a run's results are not replaced by different ones"
        )
    stores.check(arguments.runs, arguments.output, options)
    terminal.note(cluster.check(options))
    run = staging.resolve(arguments.runs[0])
    saved = state.load(run)
    _verify(saved)
    evaluation, description = saved.results, saved.run
    if arguments.config_path is not None:
        evaluation, description = _apply_config(saved, arguments.config_path)
    run_id = staging.check_run_id(arguments.run_id) or description["run_id"]
    description = description.copy()
    description["run_id"] = run_id
    if _complete(arguments, description, evaluation, saved.ledger):
        return
    with (
        staging.replacing(run)
        if arguments.output is None
        else staging.staged(arguments.output, run_id) as stage
    ):
        stage.copy_state(saved.folder)
        built = runner.pipeline(options)
        pipeline.rebuild(built, saved, evaluation, stage)
        runner.run(built)
        stage.gather()
        assemble.assemble(
            stage, saved.evaluation, evaluation, saved.index, saved.ledger, description
        )
        if arguments.output is None:
            folder, published = staging.replace(stage, run), run
        else:
            folder = staging.publish(stage, arguments.output, run_id)
            published = staging.run_path(arguments.output, run_id)
        terminal.show_published(folder, published, time.monotonic() - arguments.started)


def merge(arguments: Arguments) -> None:
    """Merges the states of several runs into a run, as if it had read all their data.

    Raises:
      ConfigError: a run has no valid state, or the runs cannot be merged; names the reason.
      JobError: the job failed; nothing was published.
    """
    options = runner.options(arguments.beam_options)
    assert arguments.output is not None
    stores.check(arguments.runs, arguments.output, options)
    states = [state.load(staging.resolve(run)) for run in arguments.runs]
    for saved in states:
        _verify(saved)
    _check_mergeable(arguments.runs, states)
    terminal.note(cluster.check(options))
    least = max(saved.evaluation.min_slice_size for saved in states)
    evaluation = dataclasses.replace(states[0].evaluation, min_slice_size=least)
    evaluation, notes = _drop_tfma(evaluation)
    if any(saved.evaluation.min_slice_size != least for saved in states):
        notes.append(f"min_slice_size: the runs differ; {least}, the largest, is used")
    notes += _note_common_files(arguments.runs, states)
    terminal.note(*notes)
    name = str(states[0].run["name"])
    run_id = staging.check_run_id(arguments.run_id) or staging.new_run_id(name)
    ledger = Ledger.merge([saved.ledger for saved in states])
    partitions = aggregate.count_partitions(sum(saved.index.cells for saved in states))
    if _complete(arguments, _describe_merged(states, notes), evaluation, ledger):
        return
    with staging.staged(arguments.output, run_id) as stage:
        built = runner.pipeline(options)
        pipeline.merge(built, states, evaluation, stage, partitions)
        job_id = runner.run(built)
        stage.gather()
        index = stage.read_index()
        verify.verify(evaluation, index, ledger)
        notes += assemble.note_plots(evaluation, index)
        notes += assemble.note_baselines(index)
        description = _describe_merged(states, notes)
        description["run_id"] = run_id
        description["runner"] = runner.name(options)
        description["job_id"] = job_id
        description["options"] = runner.redact(options)
        description["timings_s"] = {"merge": time.monotonic() - arguments.started}
        assemble.assemble(stage, evaluation, evaluation, index, ledger, description)
        folder = staging.publish(stage, arguments.output, run_id)
        published = staging.run_path(arguments.output, run_id)
        terminal.show_published(folder, published, time.monotonic() - arguments.started)


def _complete(
    arguments: Arguments, description: state.Run, evaluation: Evaluation, ledger: Ledger
) -> bool:
    """Completes what an earlier attempt has published, and reports that; False if it has not."""
    if arguments.output is None or arguments.run_id is None:
        return False
    rebuilt = manifest.build(description, evaluation, ledger, [])

    def is_same(published: Mapping[str, Any]) -> bool:
        return manifest.is_rebuilt(published, rebuilt)

    latest = staging.complete(arguments.output, arguments.run_id, is_same)
    if latest is not None:
        terminal.show_completed(staging.run_path(arguments.output, arguments.run_id), latest)
    return latest is not None


def _apply_config(saved: State, path: str) -> tuple[Evaluation, state.Run]:
    """The saved evaluation with the parts of a config that need no new data, and its description.

    Prints a note on the parts of the config that differ and need a new run.
    """
    settings, text = config.load(path)
    kept = saved.evaluation
    request = resolve.resolve(settings, kept.engine)
    if settings.eval_config is not None:
        _check_eval_config(settings.eval_config, request, kept)
    before, after = config.parse(saved.run["config"]["text"]), config.parse(text)
    if saved.run["merged"]:  # The first run's config names only that run's files.
        for content in (before, after):
            content["data"] = {**content["data"], "files": None}
    changed = [key for key in _NEED_DATA if before.get(key) != after.get(key)]
    notes = []
    if changed:
        notes.append(
            f"{path}: ignored, since they differ from the run's config and need a new run: "
            f"{', '.join(f'`{key}`' for key in changed)}"
        )
    specs, spelling_notes = list_metrics(request.metrics, kept.heads)
    notes += spelling_notes
    bounds = settings.conversion.bounds()
    evaluation = dataclasses.replace(
        kept,
        metrics=specs,
        thresholds=tuple(settings.thresholds),
        decision_threshold=choose_decision_threshold(settings.thresholds),
        pairs=tuple(
            dataclasses.replace(pair, bounds=bounds) if pair.bounds else pair for pair in kept.pairs
        ),
        min_slice_size=request.min_slice_size,
        eval_config=request.eval_config,
        tfma_metrics=request.tfma_metrics,
    )
    _check_sums(path, kept, evaluation)
    terminal.note(*notes)
    description = saved.run.copy()
    description["config"] = {"path": path, "text": text}
    description["notes"] = [*saved.run["notes"], *notes]
    return evaluation, description


def _check_eval_config(path: str, request: resolve.Request, kept: Evaluation) -> None:
    """Raises ConfigError if an EvalConfig asks for other data than the state has."""
    data = request.settings.data
    for what, wanted, found in (
        ("slices", set(request.slices), {tuple(map(_without_edges, s)) for s in kept.slices}),
        ("labels", set(data.label_columns()), {head.column for head in kept.heads}),
        ("comparisons of slices", request.slice_comparisons, kept.slice_comparisons),
        ("the weight", data.weight, kept.weight),
        ("the baseline", request.settings.baseline or kept.baseline, kept.baseline),
    ):
        if wanted != found:
            raise errors.ConfigError(
                f"{path} has {what} that differ from the run's: run the evaluation again with it"
            )


def _without_edges(term: slices.Term) -> slices.Term:
    return dataclasses.replace(term, edges=()) if term.quantiles else term


def _check_sums(path: str, kept: Evaluation, wanted: Evaluation) -> None:
    """Raises ConfigError if results need sums that the state does not keep."""
    missing = {s.name: None for s in rebin.find_missing(plan(kept), plan(wanted))}
    needs = {
        f"{metric.key.metric} ({statistic.name})": statistic.name
        for metric in plan(wanted).metrics
        for statistic in metric.statistics
        if statistic.name in missing
    }
    # What no metric needs, every run keeps: confusion counts, and decisions of two versions.
    needs |= {name: name for name in missing if name not in needs.values()}
    names = list(needs)
    computed, wanted_by_tfma = _list_by_tfma(kept), _list_by_tfma(wanted)
    names += [f"{name} (computed by TFMA)" for name in wanted_by_tfma if name not in computed]
    if names:
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        raise errors.ConfigError(
            f"{path}: the run's state does not keep the sums that these need: "
            f"{'; '.join(names[:5])}{more}. Run the evaluation again with this config"
        )
    if wanted_by_tfma and len(wanted_by_tfma) < len(computed):
        raise errors.ConfigError(
            f"{path}: the metrics that TFMA computed can only be kept or omitted together: "
            f"{', '.join(computed)}"
        )


def _check_mergeable(runs: Sequence[str], states: Sequence[State]) -> None:
    """Raises ConfigError if the runs cannot be merged; names the difference."""
    if len(runs) < 2:
        raise errors.ConfigError("merge needs at least two runs")
    first = states[0]
    for run, saved in zip(runs[1:], states[1:], strict=True):
        for difference in _find_differences(first, saved):
            raise errors.ConfigError(
                f"{runs[0]} and {run} cannot be merged: they differ in {difference}"
            )
    for number, (run, saved) in enumerate(zip(runs, states, strict=True)):
        for other, earlier in zip(runs[:number], states[:number], strict=True):
            for component in _components(saved):
                for other_component in _components(earlier):
                    _check_different(run, component, other, other_component)
        if saved.results != saved.evaluation:
            raise errors.ConfigError(
                f"{run}: its results were made with another config (evalbeam results --config): "
                "merge the run that it was made from"
            )
    if first.evaluation.engine == "tfma":
        raise errors.ConfigError(
            f"{runs[0]}: TFMA computed all its metrics (--engine tfma), which cannot be merged. "
            "Run the evaluations without --engine tfma"
        )


def _components(saved: State) -> list[state.Component]:
    """The runs that a state is made of."""
    ledger = saved.ledger
    own = state.Component(
        run_id=saved.run["run_id"], scored=ledger.scored, fingerprints=ledger.fingerprints
    )
    return saved.run["merged"] or [own]


def _check_different(
    run: str, one: state.Component, other_run: str, other: state.Component
) -> None:
    """Raises ConfigError if two runs are the same, or have the same examples."""
    if one["run_id"] == other["run_id"]:
        raise errors.ConfigError(
            f"{other_run} and {run} both include the run {one['run_id']!r}: its examples would "
            "count twice"
        )
    for split, rows in one["scored"].items():
        fingerprint = one["fingerprints"].get(split)
        same = fingerprint == other["fingerprints"].get(split)
        if rows and rows == other["scored"].get(split) and same:
            raise errors.ConfigError(
                f"{other_run} and {run} have the same {rows:,} examples in split {split!r} "
                f"(fingerprint {fingerprint:016x}), which would count twice"
            )


def _note_common_files(runs: Sequence[str], states: Sequence[State]) -> list[str]:
    """Notes on files that several runs have read: perhaps they hold other rows each time."""
    notes = []
    readers: dict[str, list[str]] = {}
    for run, saved in zip(runs, states, strict=True):
        for path in {path for paths in saved.run["data"]["files"].values() for path in paths}:
            readers.setdefault(path, []).append(run)
    for path, names in readers.items():
        if len(names) > 1:
            notes.append(
                f"{path} was read by {len(names)} of the runs ({', '.join(names)}): rows that they "
                "have in common count twice"
            )
    return notes[:_MOST_NOTES]


def _verify(saved: State) -> None:
    """Checks that a state's counts agree; raises JobError otherwise."""
    verify.check_counts(saved.ledger)
    verify.verify(saved.evaluation, saved.index, saved.ledger)


def _find_differences(first: State, other: State) -> Iterator[str]:
    """What differs between two states to be merged, in words."""
    for field_ in dataclasses.fields(Evaluation):
        before, after = (getattr(saved.evaluation, field_.name) for saved in (first, other))
        if before != after and field_.name != "min_slice_size":  # sums do not depend on it
            name = _LABELS.get(field_.name, field_.name.replace("_", " "))
            yield f"{name}: {_describe_difference(before, after)}"
    for version, model in first.run["models"].items():
        for key, value in model.items():
            after = other.run["models"][version][key]
            if key not in _NOT_THE_MODEL and value != after:
                yield f"{key} of version {version!r}: {_describe_difference(value, after)}"
    splits = [tuple(saved.run["data"]["files"]) for saved in (first, other)]
    if set(splits[0]) != set(splits[1]):
        yield f"splits: {_describe_difference(*splits)}"
    images = [config.parse(s.run["config"]["text"])["data"].get("images") for s in (first, other)]
    if images[0] != images[1]:
        yield f"data.images: {_describe_difference(*images)}"


# What versions of two runs need not share: where the model is, and what it cost.
_NOT_THE_MODEL = ("path", "measures")

# The fields of an evaluation, as users know them.
_LABELS = {
    "models": "versions",
    "heads": "outputs, labels or tasks",
    "pairs": "pairs of versions or a conversion's bounds",
    "slices": "slices or their edges",
    "weight": "the weight column",
    "id": "the id column",
    "units": "confidence.units",
    "eval_config": "the EvalConfig",
    "tfma_metrics": "metrics computed by TFMA",
}


def _describe_difference(before: object, after: object) -> str:
    """Both values; of lists, what only one of them has."""
    if isinstance(before, tuple) and isinstance(after, tuple):
        only = [part for part in before if part not in after], [p for p in after if p not in before]
        first, second = ("; ".join(map(_describe, parts)) or "nothing" for parts in only)
        return f"{first[:_TEXT]} only in the first, {second[:_TEXT]} only in the second"
    first, second = _describe(before), _describe(after)
    return f"{first[:_TEXT]} in the first, {second[:_TEXT]} in the second"


def _describe(value: object) -> str:
    if isinstance(value, MetricSpec):
        return f"{value.class_name} {value.config}"
    if isinstance(value, tuple) and all(isinstance(part, slices.Term) for part in value):
        return slices.describe(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return str(dataclasses.asdict(value))
    return str(value)


def _drop_tfma(evaluation: Evaluation) -> tuple[Evaluation, list[str]]:
    """The evaluation of merged runs, without metrics computed by TFMA, and a note on these."""
    names = _list_by_tfma(evaluation)
    if not names:
        return evaluation, []
    dropped = {metric.spec for metric in plan(evaluation).by_tfma}
    columnar = tuple(spec for spec in evaluation.metrics if spec not in dropped)
    note = f"not merged, as metrics computed by TFMA are not sums: {', '.join(names)}"
    return dataclasses.replace(evaluation, metrics=columnar, tfma_metrics=()), [note]


def _list_by_tfma(evaluation: Evaluation) -> list[str]:
    """The metrics that TFMA computes, with their arguments."""
    specs = [metric.spec for metric in plan(evaluation).by_tfma]
    names = [_describe(spec) for spec in specs]
    for text in evaluation.tfma_metrics:
        for metric in eval_config.parse_metrics_spec(text).metrics:
            names.append(f"{metric.class_name} {metric.config}")
    return sorted(set(names))


def _describe_merged(states: Sequence[State], notes: Sequence[str]) -> state.Run:
    """The description of a merged run; where runs differ, that of the first one."""
    first = states[0].run
    files: dict[str, list[str]] = {}
    for saved in states:
        for split, paths in saved.run["data"]["files"].items():
            files[split] = list(dict.fromkeys([*files.get(split, []), *paths]))
    merged = [component for saved in states for component in _components(saved)]
    description = first.copy()
    description["finished_at"] = manifest.now()
    description["merged"] = merged
    description["data"] = {**first["data"], "files": files}
    description["notes"] = list(
        dict.fromkeys([*(n for saved in states for n in saved.run["notes"]), *notes])
    )
    return description
