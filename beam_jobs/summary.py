"""What a run prints: versions side by side, and the slices where they are worst."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import rich.box
import rich.console
import rich.table

from beam_jobs import check
from transforms import compare, metrics, slices

# Below this many examples the worst slice is mostly the unluckiest one.
_FEWEST_EXAMPLES = 30
_MOST_ROWS = 40
_MOST_WORST_ROWS = 16
_MOST_DIFFERENCES = 1


@dataclass(frozen=True)
class Heading:
    """The versions, in their order, and the one that the others are compared with."""

    models: tuple[str, ...]
    baseline: str | None


def show(results: Path, published: str, seconds: float) -> None:
    """Prints a run on stdout, from a local folder of its results; `published` is where they are."""
    manifest = json.loads((results / "manifest.json").read_text())
    heading = Heading(tuple(manifest["models"]), manifest["baseline"])
    read, scored, dead = (
        sum(split[count] for split in manifest["data"].values())
        for count in ("read", "scored", "dead_lettered")
    )
    versions = _counted(len(heading.models), "version")
    # In a file or a pipe lines may be long: a table is not to be cut for a terminal's sake.
    # No markup: a slice may be called [b].
    width = None if sys.stdout.isatty() else 200
    console = rich.console.Console(highlight=False, markup=False, width=width)
    console.print(manifest["name"], style="bold")
    letters = _counted(dead, "dead letter")
    console.print(f"{read:,} rows read, {scored:,} scored by {versions}, {letters}")
    console.print(f"{seconds:.1f} s; results in {published}", soft_wrap=True)
    frame = pd.read_parquet(results / "metrics.parquet")
    for split in frame["split"].unique():
        of_split = frame[frame["split"] == split]
        console.print(_overall(of_split[of_split["slice"] == "overall"], heading, str(split)))
        worst = _worst(of_split[of_split["slice"] != "overall"], heading)
        if worst is not None:
            console.print(worst)
    if any(model["measures"] for model in manifest["models"].values()):
        console.print(_costs(manifest["models"]))
    findings = json.loads((results / "findings.json").read_text())
    if findings:
        console.print(_conversions(findings))
        for one in findings:
            if one["explanation"]:
                console.print(
                    f"{one['converted']} is {one['verdict']}, {one['cause']}: {one['explanation']}",
                    soft_wrap=True,
                )


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def plan(job: check.Job) -> str:
    """What a run of the job would do."""
    size = sum(shard.size_bytes for shard in job.shards)
    metrics_of = dict.fromkeys(one.key.metric for one in job.evaluation.plan.metrics)
    lines = [
        f"{job.name}: the config, data and models fit; nothing was run (--dry-run)",
        f"data      {_counted(len(job.shards), 'shard')}, {size / 1e6:,.1f} MB, columns "
        f"{', '.join(job.projection.columns)}; in batches of {job.batch_size:,}",
        f"versions  {', '.join(f'{model.name} ({model.kind})' for model in job.models)}",
        f"baseline  {job.baseline or 'none'}",
        f"slices    {'; '.join(map(slices.describe, job.specs))}",
        f"metrics   {', '.join(metrics_of)}",
    ]
    if job.evaluation.plan.others:
        others = (spec.class_name for spec in job.evaluation.plan.others)
        lines.append(f"by TFMA   {', '.join(others)} (slower: TFMA's own combiners)")
    return "\n".join(lines)


def _name(row: pd.Series | Mapping[str, Any]) -> str:
    """A metric's name with what tells its variants apart."""
    marks = [
        *([f"output {row['output']}"] if row["output"] else []),
        *([f"class {row['class_id']:.0f}"] if pd.notna(row["class_id"]) else []),
        *([f"k {row['k']:.0f}"] if pd.notna(row["k"]) else []),
        *([f"top {row['top_k']:.0f}"] if pd.notna(row["top_k"]) else []),
        *([str(row["aggregation"])] if row["aggregation"] else []),
        *([f"at {row['threshold']:g}"] if pd.notna(row["threshold"]) else []),
    ]
    return f"{row['metric']} ({', '.join(marks)})" if marks else str(row["metric"])


def _named(frame: pd.DataFrame) -> pd.DataFrame:
    columns = ["output", "metric", "class_id", "k", "top_k", "aggregation", "weighted", "threshold"]
    variants = frame[columns].drop_duplicates()
    names = [_name(row) for _, row in variants.iterrows()]
    # Where examples have weights, what does not count them says so.
    plain = ~variants["weighted"] & (variants["metric"] != "example_count")
    marked = plain if variants["weighted"].any() else plain & False
    variants["name"] = [
        f"{name}, unweighted" if mark else name for name, mark in zip(names, marked, strict=True)
    ]
    return frame.merge(variants, on=columns, how="left", sort=False)


def _number(value: float) -> str:
    if np.isnan(value):
        return "-"
    if np.isinf(value):
        return str(value)
    if value == round(value) and abs(value) >= 10:
        return f"{value:,.0f}"
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:,.1f}"


def _table(title: str) -> rich.table.Table:
    return rich.table.Table(title=title, box=rich.box.SIMPLE_HEAD, title_justify="left")


def _overall(frame: pd.DataFrame, heading: Heading, split: str) -> rich.table.Table:
    frame = _named(frame)
    examples = int(frame["n"].max()) if len(frame) else 0
    table = _table(f"{split}: all {examples:,} examples")
    table.add_column("metric", no_wrap=True)
    for model in heading.models:
        mark = " (baseline)" if model == heading.baseline and len(heading.models) > 1 else ""
        table.add_column(f"{model}{mark}", justify="right")
    candidates = [model for model in heading.models if model != heading.baseline]
    # Side by side while there is room; with more versions the differences speak for themselves.
    differences = heading.baseline is not None and len(candidates) <= _MOST_DIFFERENCES
    if differences:
        for model in candidates:
            table.add_column(f"{model} - {heading.baseline}", justify="right")
    for name in list(dict.fromkeys(frame["name"]))[:_MOST_ROWS]:
        values = frame[frame["name"] == name].set_index("model")["value"].to_dict()
        cells = [_number(values.get(model, np.nan)) for model in heading.models]
        if differences:
            before = values.get(heading.baseline, np.nan)
            cells += [_signed(values.get(model, np.nan) - before) for model in candidates]
        table.add_row(name, *cells)
    return table


def _costs(models: Mapping[str, Any]) -> rich.table.Table:
    """What each version costs."""
    rows = next(m["measures"]["batch"]["rows"] for m in models.values() if m["measures"])
    table = _table(
        "What versions cost (us: microseconds to predict an example, median and 95th percentile)"
    )
    table.add_column("version", no_wrap=True)
    table.add_column("form", no_wrap=True)
    batches = f"{rows:,} at once"
    for column in ("size", "parameters", "load", f"us, {batches}", "p95", "us, alone", "p95"):
        table.add_column(column, justify="right")
    table.add_column("memory", justify="right", no_wrap=True)
    for name, model in models.items():
        measures = model["measures"]
        if measures is None:
            table.add_row(name, model["kind"])
            continue
        parameters, batches, single = (measures[k] for k in ("parameters", "batch", "single"))
        table.add_row(
            name,
            model["kind"],
            _bytes(measures["size_bytes"]),
            "-" if parameters is None else f"{parameters:,}",
            f"{1000 * measures['load_s']:,.0f} ms",
            *(f"{batches[which]:,.3g}" for which in ("median_us", "p95_us")),
            *(f"{single[which]:,.0f}" for which in ("median_us", "p95_us")),
            _bytes(measures["memory_bytes"]),
        )
    return table


def _bytes(size: int | None) -> str:
    if size is None:
        return "-"
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:,.1f} {unit}"
    return f"{size} B"


def _conversions(findings: Sequence[Mapping[str, Any]]) -> rich.table.Table:
    table = _table("Conversions: are they still the same model?")
    table.add_column("version", no_wrap=True)
    table.add_column("of", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("metric that moved most")
    table.add_column("changed decisions", justify="right")
    table.add_column("largest difference", justify="right")
    table.add_column("slice hit worst", overflow="fold")
    for column in ("size", "speed"):
        table.add_column(column, justify="right", no_wrap=True)
    for one in findings:
        facts = one["evidence"]
        output = f" ({one['output']})" if one["output"] else ""
        moved = max(facts["metrics"], key=_severity, default=None)
        slices = facts["worst_slice"]
        table.add_row(
            one["converted"] + output,
            one["original"],
            one["verdict"],
            _moved(moved),
            "-" if facts["changed"] is None else f"{facts['changed']:.2%}",
            f"{facts['largest_difference']:.2g}",
            "-" if slices is None else f"{slices['slice']}: {_moved(slices)}",
            *(_times(facts[ratio]) for ratio in ("size_ratio", "speed_ratio")),
        )
    return table


def _severity(change: Mapping[str, Any]) -> tuple[int, float]:
    """How much a metric has to do with its conversion's verdict."""
    relative = change["relative"]
    return compare.VERDICTS.index(change["verdict"]), np.inf if relative is None else abs(relative)


def _moved(change: Mapping[str, Any] | None) -> str:
    """A metric before and after."""
    if change is None or change["relative"] == 0:
        return "-"
    name = _name({**change, "output": "", "class_id": None})
    return f"{name} {_number(change['before'])} -> {_number(change['after'])}"


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"x {ratio:.2g}"


def _signed(value: float) -> str:
    if np.isnan(value):
        return "-"
    return "0" if value == 0 else ("+" if value > 0 else "") + _number(value)


def _worst(frame: pd.DataFrame, heading: Heading) -> rich.table.Table | None:
    """For each metric that has a better way: each version's worst slice."""
    known = metrics.HIGHER_IS_BETTER | metrics.LOWER_IS_BETTER
    # Of a metric by class the average says enough here.
    frame = frame[(frame["n"] >= _FEWEST_EXAMPLES) & frame["metric"].isin(known)]
    frame = frame[frame["class_id"].isna()]
    frame = _named(frame[frame["value"].notna()])
    if not len(frame):
        return None
    table = _table(f"Worst slices of at least {_FEWEST_EXAMPLES} examples")
    for column in ("metric", "version"):
        table.add_column(column, no_wrap=True)
    table.add_column("value", justify="right")
    table.add_column("slice", overflow="fold")
    table.add_column("examples", justify="right")
    for name in list(dict.fromkeys(frame["name"]))[: _MOST_WORST_ROWS // len(heading.models)]:
        rows = frame[frame["name"] == name]
        lower = rows["metric"].iloc[0] in metrics.LOWER_IS_BETTER
        for model in heading.models:
            of_model = rows[rows["model"] == model]
            if len(of_model):
                place = of_model["value"].idxmax() if lower else of_model["value"].idxmin()
                row = of_model.loc[place]
                shown = name if model == heading.models[0] else ""
                cells = _number(row["value"]), str(row["slice"]), f"{row['n']:,}"
                table.add_row(shown, model, *cells)
    return table
