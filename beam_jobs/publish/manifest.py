"""Describes a run for manifest.json: config, data, models, package versions, counts and times."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import pydantic

from evalbeam.beam_jobs import config
from evalbeam.beam_jobs.job import Job
from evalbeam.transforms import models
from evalbeam.transforms.examples import labels, slices
from evalbeam.transforms.ledger import Ledger
from evalbeam.transforms.metrics.evaluation import Engine, Evaluation
from evalbeam.transforms.metrics.plan import plan
from evalbeam.transforms.models import measure

# The packages that every result depends on.
_PACKAGES = ("evalbeam", "apache-beam", "tensorflow", "tensorflow-model-analysis", "numpy")


def describe(
    job: Job,
    costs: Mapping[str, measure.Measures],
    *,
    run_id: str,
    config_path: str,
    config_text: str,
    runner: str,
    job_id: str | None,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """The description of a run beyond its evaluation and ledger: the state's run.json."""
    files: dict[str, dict[str, None]] = {}
    for shard in job.shards:
        files.setdefault(shard.split, {})[shard.path] = None
    return {
        "run_id": run_id,
        "name": job.name,
        "finished_at": now(),
        "merged": [],
        "config": {"path": config_path, "text": config_text},
        "data": {
            "files": {split: list(paths) for split, paths in files.items()},
            "format": job.main.format,
            "fingerprint_of": job.identity,
        },
        "models": {spec.name: _describe_spec(job, spec, costs) for spec in job.models},
        "notes": list(job.notes),
        "runner": runner,
        "job_id": job_id,
        "options": dict(options),
        "batch_size": job.batch_size,
        "versions": list_versions(job.models),
        "timings_s": {},
    }


def list_versions(specs: Sequence[models.ModelSpec]) -> dict[str, str]:
    """The versions of Python and of the packages that results depend on."""
    kinds = {spec.kind for spec in specs}
    packages = [*_PACKAGES]
    packages += [k.package for name, k in models.REGISTRY.items() if name in kinds and k.package]
    if any(spec.images for spec in specs):
        packages.append("pillow")
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }


def now() -> str:
    """The current time, as in a manifest."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat()


def build(
    run: Mapping[str, Any],
    evaluation: Evaluation,
    ledger: Ledger,
    findings: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Builds the manifest as a JSON object, from the run's state only.

    Args:
      run: the description of the run, see `describe`.
      evaluation: the evaluation of the results.
      ledger: the rows read and scored, in total.
      findings: the entries of findings.json.
    """
    text = run["config"]["text"]
    merged = [component["run_id"] for component in run["merged"]]
    return {
        "run_id": run["run_id"],
        "name": run["name"],
        "finished_at": run["finished_at"],
        **({"merged": merged} if merged else {}),
        "config": {
            "path": run["config"]["path"],
            "sha256": _digest(text),
            "content": config.parse(text),
        },
        "data": _describe_data(run, ledger),
        "models": {name: _describe_model(run, name, ledger, findings) for name in run["models"]},
        "outputs": {head.output: _describe_head(head) for head in evaluation.heads},
        "baseline": evaluation.baseline,
        "renamed_metrics": dict(plan(evaluation).renamed),
        "slices": [slices.describe(spec) for spec in evaluation.slices],
        "engine": evaluation.engine,
        "notes": run["notes"],
        "runner": run["runner"],
        "job_id": run["job_id"],
        "options": run["options"],
        "batch_size": run["batch_size"],
        "workers": ledger.workers,
        "state_bytes": ledger.state_bytes,
        "versions": run["versions"],
        "timings_s": run["timings_s"],
        # This version does not evaluate gates, so no run may look as if it had passed them.
        "verdict": "not gated",
    }


def is_of(published: Mapping[str, Any], text: str, engine: Engine) -> bool:
    """Whether a manifest is that of a run, not merged, by the config with this text."""
    run = (published["config"]["sha256"], published["engine"], published.get("merged"))
    return run == (_digest(text), engine, None)


def is_rebuilt(published: Mapping[str, Any], rebuilt: Mapping[str, Any]) -> bool:
    """Whether two manifests are of the same results: of the same data, by the same config."""
    keys = ("config", "data", "engine", "merged")
    return all(published.get(key) == rebuilt.get(key) for key in keys)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


_MEASURES = pydantic.TypeAdapter(measure.Measures)


def read_measures(run: Mapping[str, Any]) -> dict[str, measure.Measures]:
    """By version, the costs of those that were measured."""
    return {
        name: _MEASURES.validate_python(model["measures"])
        for name, model in run["models"].items()
        if model["measures"] is not None
    }


def _describe_spec(
    job: Job, spec: models.ModelSpec, costs: Mapping[str, measure.Measures]
) -> dict[str, Any]:
    cost = costs.get(spec.name)
    return {
        # Images are in the config already.
        **{name: part for name, part in dataclasses.asdict(spec).items() if name != "images"},
        "sha256": job.digests.get(spec.name),
        "measures": None if cost is None else dataclasses.asdict(cost),
    }


def _describe_head(head: labels.Head) -> dict[str, Any]:
    """An output's label, task and classes, which are in the order of their ids."""
    names = [head.class_name(number) for number in range(head.classes or 2)] if head.names else None
    return {"label": head.column, "task": head.task, "classes": head.classes, "class_names": names}


def _describe_data(run: Mapping[str, Any], ledger: Ledger) -> dict[str, Any]:
    read, dead = ledger.read, ledger.dead
    return {
        split: {
            "files": files,
            "read": read[split],
            "scored": ledger.scored[split],
            "dead_lettered": dead[split],
            # Of the identity and labels of all scored examples, in any order.
            "fingerprint": f"{ledger.fingerprints[split]:016x}",
            "fingerprint_of": run["data"]["fingerprint_of"],
        }
        for split, files in run["data"]["files"].items()
    }


def _describe_model(
    run: Mapping[str, Any], name: str, ledger: Ledger, findings: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    seconds = ledger.predict_seconds.get(name, 0.0)
    return {
        **run["models"][name],
        "scores": {
            "scale": run["models"][name]["scores"] or "probabilities",
            "outputs": {
                output: dataclasses.asdict(seen)
                for output, seen in ledger.seen.get(name, {}).items()
            },
        },
        "forms": _list_forms(run, name, findings),
        "predict_s": seconds,
        "predict_ms_per_batch": 1000 * seconds / max(ledger.batches, 1),
        "predict_us_per_example": 1e6 * seconds / max(sum(ledger.scored.values()), 1),
    }


def _list_forms(
    run: Mapping[str, Any], name: str, findings: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The forms of a version and where they run: its own form, and its conversions."""
    kinds = {version: model["kind"] for version, model in run["models"].items()}
    own = {"version": name, "output": None, "kind": kinds[name], "verdict": None}
    converted = [
        {
            "version": finding["converted"],
            "output": finding["output"],
            "kind": kinds[finding["converted"]],
            "verdict": finding["verdict"],
        }
        for finding in findings
        if finding["check"] == "conversion" and finding["original"] == name
    ]
    return [
        {**form, "runs_in": list(models.REGISTRY[form["kind"]].runs_in)}
        for form in (own, *converted)
    ]
