"""What a run was: its config, data, models, versions, counts and times, for manifest.json."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import yaml

from evalbeam.beam_jobs.job import Job
from evalbeam.transforms import ledger, models
from evalbeam.transforms.examples import slices
from evalbeam.transforms.models import measure

# The packages whose versions every result depends on.
_PACKAGES = ("evalbeam", "apache-beam", "tensorflow", "tensorflow-model-analysis", "numpy")


def build(
    job: Job,
    entered: ledger.Ledger,
    findings: Sequence[Mapping[str, Any]],
    costs: Mapping[str, measure.Measures],
    *,
    run_id: str,
    config_path: str,
    config_text: str,
    runner: str,
    job_id: str | None,
    options: dict[str, Any],
    timings_s: dict[str, float],
) -> dict[str, Any]:
    """The manifest, for JSON."""
    kinds = {model.kind for model in job.models}
    packages = [*_PACKAGES, *(name for kind, name in models.PACKAGES.items() if kind in kinds)]
    if any(model.images for model in job.models):
        packages.append("pillow")
    return {
        "run_id": run_id,
        "name": job.name,
        "finished_at": datetime.datetime.now(datetime.timezone.utc).isoformat(),
        "config": {
            "path": config_path,
            "sha256": hashlib.sha256(config_text.encode()).hexdigest(),
            "content": yaml.safe_load(config_text),
        },
        "data": _data(job, entered),
        "models": {
            model.name: _model(job, model, entered, findings, costs) for model in job.models
        },
        "baseline": job.baseline,
        "renamed_metrics": dict(job.evaluation.plan.renamed),
        "slices": [slices.describe(spec) for spec in job.specs],
        "engine": job.engine,
        "notes": list(job.notes),
        "runner": runner,
        "job_id": job_id,
        "options": options,
        "batch_size": job.batch_size,
        "workers": entered.workers,
        "state_bytes": entered.state_bytes,
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in packages},
        },
        "timings_s": timings_s,
        # Gates are not evaluated by this version: no run may look as if it had passed them.
        "verdict": "not gated",
    }


def _data(job: Job, entered: ledger.Ledger) -> dict[str, Any]:
    read, dead = entered.read, entered.dead
    files: dict[str, dict[str, None]] = {}
    for shard in job.shards:
        files.setdefault(shard.split, {})[shard.path] = None
    return {
        split: {
            "files": list(paths),
            "read": read[split],
            "scored": entered.scored[split],
            "dead_lettered": dead[split],
            # Order-independent, of every scored example's identity and labels.
            "fingerprint": f"{entered.fingerprints[split]:016x}",
            "fingerprint_of": job.identity,
        }
        for split, paths in files.items()
    }


def _model(
    job: Job,
    model: models.ModelSpec,
    entered: ledger.Ledger,
    findings: Sequence[Mapping[str, Any]],
    costs: Mapping[str, measure.Measures],
) -> dict[str, Any]:
    seconds = entered.predict_seconds.get(model.name, 0.0)
    measures = costs.get(model.name)
    return {
        # The images stand in the config, once.
        **{name: part for name, part in dataclasses.asdict(model).items() if name != "images"},
        "sha256": job.digests.get(model.name),
        "measures": None if measures is None else dataclasses.asdict(measures),
        "forms": _forms(job, model, findings),
        "predict_s": seconds,
        "predict_ms_per_batch": 1000 * seconds / max(entered.batches, 1),
        "predict_us_per_example": 1e6 * seconds / max(sum(entered.scored.values()), 1),
    }


def _forms(
    job: Job, model: models.ModelSpec, findings: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Where the version runs: in its own form, and in those that it was converted to."""
    kinds = {one.name: one.kind for one in job.models}
    own = {"version": model.name, "output": None, "kind": model.kind, "verdict": None}
    converted = [
        {
            "version": one["converted"],
            "output": one["output"],
            "kind": kinds[one["converted"]],
            "verdict": one["verdict"],
        }
        for one in findings
        if one["original"] == model.name
    ]
    return [
        {**form, "runs_in": list(models.RUNS_IN.get(form["kind"], ()))}
        for form in (own, *converted)
    ]
