"""Assembles a run folder from what workers have finished: everything that spans slices."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from evalbeam.beam_jobs.publish import manifest
from evalbeam.beam_jobs.publish.staging import Staging
from evalbeam.transforms.checks import conversion
from evalbeam.transforms.ledger import Ledger
from evalbeam.transforms.metrics.evaluation import Evaluation
from evalbeam.transforms.metrics.plan import plan
from evalbeam.transforms.results.finish import PLOTTED
from evalbeam.transforms.results.index import Index
from evalbeam.transforms.sinks import state, tables
from evalbeam.transforms.stages import finish
from evalbeam.transforms.tfma import eval_config, result_files


def assemble(
    stage: Staging, evaluation: Evaluation, ledger: Ledger, run: Mapping[str, Any]
) -> None:
    """Assembles the results of a run in its staging folder from the workers' parts.

    Args:
      stage: where the run is staged, with the workers' parts gathered.
      evaluation: the evaluation of the results.
      ledger: the rows read and scored, in total.
      run: the description of the run, see `manifest.describe`.
    """
    rows: Counter[str] = Counter()
    evidence = conversion.Evidence()
    for finished in finish.read_finished(stage.finished.read_text(encoding="utf-8").splitlines()):
        rows.update(finished.rows)
        evidence = evidence.merge(finished.evidence)
    for name, folder in stage.tables.items():
        parts = sorted(folder.glob("*.parquet"))
        tables.assemble(parts, rows[name], stage.folder / f"{name}.parquet")
    result_files.write_config(
        stage.tfma,
        eval_config.describe_run(evaluation),
        {name: model["path"] for name, model in run["models"].items()},
        next(iter(run["data"]["files"].values()))[0],
        run["data"]["format"],
    )
    with stage.dead_letters.open("w") as file:
        file.writelines(json.dumps(vars(letter)) + "\n" for letter in ledger.dead_letters)
    costs = manifest.read_measures(run)
    findings = [
        finding.entry()
        for finding in conversion.judge(evidence, evaluation, ledger.differences, costs)
    ]
    _write_json(stage, "findings.json", findings)
    _write_json(stage, "manifest.json", manifest.build(run, evaluation, ledger, findings))


def write_state(
    stage: Staging,
    kept: Evaluation,
    results: Evaluation,
    ledger: Ledger,
    run: Mapping[str, Any],
) -> None:
    """Writes the state's files other than the workers' parts.

    Args:
      stage: where the run is staged.
      kept: the evaluation whose sums are kept.
      results: the evaluation of the results in the folder.
      ledger: the rows read and scored, in total.
      run: the description of the run, see `manifest.describe`.
    """
    (stage.state / state.EVALUATION).write_text(state.dump_evaluation(kept, results))
    (stage.state / state.LEDGER).write_text(json.dumps(vars(ledger), default=vars, indent=1) + "\n")
    (stage.state / state.RUN).write_text(json.dumps(run, indent=1) + "\n")


def note_plots(evaluation: Evaluation, index: Index) -> list[str]:
    """A note if not all slices have plots."""
    if index.slices <= PLOTTED or not plan(evaluation).has_plots:
        return []
    return [f"only the {PLOTTED:,} largest of {index.slices:,} slices have plots; all have metrics"]


def _write_json(stage: Staging, name: str, content: Any) -> None:
    (stage.folder / name).write_text(json.dumps(content, indent=2) + "\n")
