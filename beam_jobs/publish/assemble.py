"""Assembles a run folder from what workers have finished: everything that spans slices."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evalbeam.beam_jobs.publish import manifest
from evalbeam.beam_jobs.publish.staging import Staging
from evalbeam.transforms.checks import conversion
from evalbeam.transforms.formats import files
from evalbeam.transforms.ledger import Ledger
from evalbeam.transforms.metrics.evaluation import Evaluation
from evalbeam.transforms.metrics.plan import plan
from evalbeam.transforms.results.finish import PLOTTED
from evalbeam.transforms.results.index import BASELINES, Index
from evalbeam.transforms.sinks import state, tables
from evalbeam.transforms.stages import finish
from evalbeam.transforms.tfma import eval_config, result_files


def assemble(
    stage: Staging,
    kept: Evaluation,
    results: Evaluation,
    index: Index,
    ledger: Ledger,
    run: Mapping[str, Any],
) -> None:
    """Assembles a run in its staging folder from the workers' parts.

    Args:
      stage: where the run is staged, with the workers' parts gathered.
      kept: the evaluation whose sums are kept.
      results: the evaluation of the results.
      index: the index of the state's parts.
      ledger: the rows read and scored, in total.
      run: the description of the run, see `manifest.describe`.
    """
    evidence = _assemble_tables(stage)
    _write_tfma_config(stage, results, run)
    letters = (json.dumps(vars(letter)) + "\n" for letter in ledger.dead_letters)
    _write(stage.dead_letters, "".join(letters))
    costs = manifest.read_measures(run)
    findings = [
        finding.entry()
        for finding in conversion.judge(evidence, results, ledger.differences, costs)
    ]
    _write_json(stage.folder / "findings.json", findings)
    _write_json(stage.folder / "manifest.json", manifest.build(run, results, ledger, findings))
    stage.keep_parts(index)
    _write(stage.state / state.EVALUATION, state.dump_evaluation(kept, results))
    _write_json(stage.state / state.LEDGER, vars(ledger))
    _write_json(stage.state / state.RUN, run)


def _assemble_tables(stage: Staging) -> conversion.Evidence:
    """Makes the tables of their parts; returns the evidence of all slices."""
    rows: Counter[str] = Counter()
    evidence = conversion.Evidence()
    for finished in map(finish.parse_finished, stage.read_entries(stage.finished)):
        rows.update(finished.rows)
        evidence = evidence.merge(finished.evidence)
    for name, folder in stage.tables.items():
        parts = sorted(folder.glob("*.parquet"))
        tables.assemble(parts, rows[name], stage.folder / f"{name}.parquet")
    return evidence


def _write_tfma_config(stage: Staging, evaluation: Evaluation, run: Mapping[str, Any]) -> None:
    result_files.write_config(
        stage.tfma,
        eval_config.describe_run(evaluation),
        {name: model["path"] for name, model in run["models"].items()},
        next(iter(run["data"]["files"].values()))[0],
        run["data"]["format"],
    )


def note_plots(evaluation: Evaluation, index: Index) -> list[str]:
    """A note if not all slices of the main split have plots."""
    if index.plottable <= PLOTTED or not plan(evaluation).has_plots:
        return []
    count = f"{index.plottable:,}"
    return [f"only the {PLOTTED:,} largest of {count} slices have plots; all have metrics"]


def note_baselines(index: Index) -> list[str]:
    """A note if not all baseline slices of comparisons are compared with."""
    if index.baseline_slices <= BASELINES:
        return []
    return [
        f"cross_slicing_specs: slices are compared with the {BASELINES:,} largest of "
        f"{index.baseline_slices:,} baseline slices only"
    ]


def _write_json(path: Path, content: Any) -> None:
    _write(path, json.dumps(content, indent=2, default=vars) + "\n")


def _write(path: Path, text: str) -> None:
    with files.writing(str(path)) as written:
        Path(written).write_text(text)
