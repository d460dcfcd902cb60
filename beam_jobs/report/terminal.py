"""What a run prints: versions side by side, and the slices where they are worst."""

from __future__ import annotations

import functools
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import rich.box
import rich.console
import rich.table

from evalbeam.beam_jobs.job import Job
from evalbeam.transforms import metrics
from evalbeam.transforms.checks import conversion
from evalbeam.transforms.examples import slices
from evalbeam.transforms.results import compare
from evalbeam.transforms.sinks import tables

_MOST_ROWS = 40
_MOST_WORST_ROWS = 16
_MOST_DIFFERENCES = 1
_TIMES = ("median_us", "p95_us")


@dataclass(frozen=True)
class Heading:
    """What the tables of a run are made by.

    Attributes:
      models: the versions, in their order.
      baseline: the one that the others are compared with.
      directions: by metric, 1 where higher values are better, -1 where lower ones are; else 0.
    """

    models: tuple[str, ...]
    baseline: str | None
    directions: Mapping[str, int]


def show(results: Path, published: str, seconds: float) -> None:
    """Prints a run on stdout, from a local folder of its results; `published` is where they are."""
    manifest = json.loads((results / "manifest.json").read_text())
    frame = pd.read_parquet(results / "metrics.parquet")
    renamed = manifest["renamed_metrics"]
    directions = {
        name: metrics.direction(renamed.get(name, name)) for name in frame["metric"].unique()
    }
    heading = Heading(tuple(manifest["models"]), manifest["baseline"], directions)
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
    for split in frame["split"].unique():
        of_split = frame[frame["split"] == split]
        overall = _named(of_split[of_split["slice"] == "overall"])
        build = functools.partial(_overall, overall, heading, str(split))
        _print_side_by_side(console, heading.models, build)
        worst = _worst(of_split[of_split["slice"] != "overall"], heading)
        if worst is not None:
            console.print(worst)
    if any(model["measures"] for model in manifest["models"].values()):
        build = functools.partial(_costs, manifest["models"])
        _print_side_by_side(console, heading.models, build)
    findings = json.loads((results / "findings.json").read_text())
    if findings:
        console.print(_conversions(findings))
        for line in itertools.chain.from_iterable(map(_details, findings)):
            console.print(line, soft_wrap=True)


def _print_side_by_side(
    console: rich.console.Console,
    models: Sequence[str],
    build: Callable[[Sequence[str]], rich.table.Table],
) -> None:
    """Prints tables of as many versions each as the console has room for: no number is cut."""
    # However wide: rich measures what it would cut by default.
    boundless = console.options.update(max_width=1 << 16)
    while models:
        count = len(models)
        table = build(models)
        while count > 1 and console.measure(table, options=boundless).maximum > console.width:
            count -= 1
            table = build(models[:count])
        console.print(table)
        models = models[count:]


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def plan(job: Job) -> str:
    """What a run of the job would do."""
    size = sum(shard.size_bytes for shard in job.shards)
    metrics_of = dict.fromkeys(one.key.metric for one in job.evaluation.plan.metrics)
    lines = [
        f"{job.name}: the config, data and models fit; nothing was run (--dry-run)",
        f"data      {_counted(len(job.shards), 'shard')}, {size / 1e6:,.1f} MB, columns "
        f"{', '.join(job.projection.columns)}; in batches of {job.batch_size:,}",
        f"versions  {', '.join(f'{model.name} ({model.kind})' for model in job.models)}",
        f"baseline  {job.baseline or 'none'}",
        *(f"images    {line}" for line in _images(job)),
        f"slices    {'; '.join(map(slices.describe, job.specs))}",
        f"metrics   {', '.join(metrics_of)}",
    ]
    if job.evaluation.plan.others:
        others = (spec.class_name for spec in job.evaluation.plan.others)
        lines.append(f"by TFMA   {', '.join(others)} (slower: TFMA's own combiners)")
    return "\n".join(lines)


def _images(job: Job) -> Iterator[str]:
    """What models are given for each image that they take, as the first examples show it."""
    if job.first is None:
        return
    declared = {name: image for model in job.models for name, image in model.images}
    for image in declared.values():
        if image.column not in job.first.columns.schema.names:  # No model takes it.
            continue
        values = image.scaled(image.decoded(job.first.columns.column(image.column)))
        size = " x ".join(map(str, values.shape[1:]))
        yield (
            f"{image.name!r} of column {image.column!r}: {size}, values {values.min():g} to "
            f"{values.max():g} in the first examples"
        )


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
    columns = list(tables.WHICH)
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


def _overall(
    frame: pd.DataFrame, heading: Heading, split: str, models: Sequence[str]
) -> rich.table.Table:
    """A row for each metric, a column for each of the versions."""
    examples = int(frame["n"].max()) if len(frame) else 0
    table = _table(f"{split}: all {examples:,} examples")
    table.add_column("metric", no_wrap=True)
    for model in models:
        mark = "\n(baseline)" if model == heading.baseline and len(heading.models) > 1 else ""
        table.add_column(f"{model}{mark}", justify="right")
    candidates = [model for model in models if model != heading.baseline]
    # With more versions the differences speak for themselves.
    differences = heading.baseline in models and len(candidates) <= _MOST_DIFFERENCES
    if differences:
        for model in candidates:
            table.add_column(f"{model} - {heading.baseline}", justify="right")
    for name in list(dict.fromkeys(frame["name"]))[:_MOST_ROWS]:
        values = frame[frame["name"] == name].set_index("model")["value"].to_dict()
        cells = [_number(values.get(model, np.nan)) for model in models]
        if differences:
            before = values.get(heading.baseline, np.nan)
            cells += [_signed(values.get(model, np.nan) - before) for model in candidates]
        table.add_row(name, *cells)
    return table


def _costs(models: Mapping[str, Any], names: Sequence[str]) -> rich.table.Table:
    """What each of the versions of these names costs."""
    table = _table("What versions cost")
    table.add_column("", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right")
    measured = next(model["measures"] for model in models.values() if model["measures"])
    rows = f"{measured['batch']['rows']:,}"
    labels = ["size", "parameters", "time to load", "memory", f"us each, {rows} at once"]
    labels += ["  95th percentile", "us alone", "  95th percentile"]
    costs = [_cost(models[name]["measures"]) or ["-"] * len(labels) for name in names]
    table.add_row("form", *(models[name]["kind"] for name in names))
    for label, *cells in zip(labels, *costs, strict=True):
        table.add_row(label, *cells)
    return table


def _cost(measures: Mapping[str, Any] | None) -> list[str]:
    if measures is None:
        return []
    times = [measures[calls][which] for calls in ("batch", "single") for which in _TIMES]
    return [
        _bytes(measures["size_bytes"]),
        "-" if measures["parameters"] is None else f"{measures['parameters']:,}",
        f"{1000 * measures['load_s']:,.0f} ms",
        _bytes(measures["memory_bytes"]),
        *map(_microseconds, times),
    ]


def _microseconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _bytes(size: int | None) -> str:
    if size is None:
        return "-"
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:,.1f} {unit}"
    return f"{size} B"


def _conversions(findings: Sequence[Mapping[str, Any]]) -> rich.table.Table:
    table = _table("Conversions: are they still the same model?")
    for column in ("version", "of"):
        table.add_column(column, overflow="fold")
    table.add_column("verdict", no_wrap=True)
    for column in ("decisions\nchanged", "largest\nchange", "size", "speed"):
        table.add_column(column, justify="right", no_wrap=True)
    for one in findings:
        facts = one["evidence"]
        largest = facts["largest_difference"]
        table.add_row(
            _converted(one),
            one["original"],
            one["verdict"],
            "-" if facts["changed"] is None else f"{facts['changed']:.2%}",
            "inf" if largest is None else f"{largest:,.2g}" if largest < 100 else f"{largest:,.0f}",
            *(_ratio(facts[ratio]) for ratio in ("size_ratio", "speed_ratio")),
        )
    return table


def _details(finding: Mapping[str, Any]) -> Iterator[str]:
    """What a conversion changed, and why, in sentences."""
    facts = finding["evidence"]
    moved = max(facts["metrics"], key=_severity, default=None)
    changes = [moved] if moved is not None and moved["relative"] != 0 else []
    changes += [facts["worst_slice"]] if facts["worst_slice"] else []
    if changes:
        yield f"{_converted(finding)}: {'; '.join(map(_moved, changes))}"
    if finding["explanation"]:
        verdict = finding["verdict"]
        if verdict in ("good", "acceptable"):
            verdict += " by these metrics, and still another model"
        verdict = ", ".join(filter(None, (verdict, finding["cause"])))
        yield f"{_converted(finding)} is {verdict}: {finding['explanation']}"


def _converted(finding: Mapping[str, Any]) -> str:
    output = f" ({finding['output']})" if finding["output"] else ""
    return finding["converted"] + output


def _severity(change: Mapping[str, Any]) -> tuple[int, bool, float]:
    """How much a metric has to do with its conversion's verdict, and says of it."""
    relative = change["relative"]
    return (
        compare.VERDICTS.index(change["verdict"]),
        change["after"] is not None,
        np.inf if relative is None else abs(relative),
    )


def _moved(change: Mapping[str, Any]) -> str:
    """A metric before and after, and where."""
    name = _name({**change, "output": "", "class_id": None})
    where = "" if change["slice"] == "overall" else f" in {change['slice']}"
    # In JSON there is no NaN, nor infinity.
    before, after = (
        "undefined" if change[when] is None else _number(change[when])
        for when in ("before", "after")
    )
    return f"{name} {before} -> {after}{where}"


def _ratio(ratio: float | None) -> str:
    return "-" if ratio is None else f"x {ratio:.2g}"


def _signed(value: float) -> str:
    if np.isnan(value):
        return "-"
    return "0" if value == 0 else ("+" if value > 0 else "") + _number(value)


def _worst(frame: pd.DataFrame, heading: Heading) -> rich.table.Table | None:
    """For each metric that has a better way: each version's worst slice."""
    better = frame["metric"].map(heading.directions).astype(int)
    # Of a metric by class the average says enough here.
    frame = frame[(better != 0) & frame["class_id"].isna()]
    frame = frame[frame["n"] >= conversion.FEWEST_EXAMPLES]
    frame = _named(frame[frame["value"].notna()])
    if not len(frame):
        return None
    table = _table(f"Worst slices of at least {conversion.FEWEST_EXAMPLES} examples")
    for column in ("metric", "version"):
        table.add_column(column, no_wrap=True)
    table.add_column("value", justify="right")
    table.add_column("slice", overflow="fold")
    table.add_column("examples", justify="right")
    for name in list(dict.fromkeys(frame["name"]))[
        : max(1, _MOST_WORST_ROWS // len(heading.models))
    ]:
        rows = frame[frame["name"] == name]
        lower = heading.directions[rows["metric"].iloc[0]] < 0
        for model in heading.models:
            of_model = rows[rows["model"] == model]
            if len(of_model):
                place = of_model["value"].idxmax() if lower else of_model["value"].idxmin()
                row = of_model.loc[place]
                shown = name if model == heading.models[0] else ""
                cells = _number(row["value"]), str(row["slice"]), f"{row['n']:,}"
                table.add_row(shown, model, *cells)
    return table
