"""Prints a run: versions side by side, their worst classes and slices, costs and conversions."""

from __future__ import annotations

import functools
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import rich.box
import rich.console
import rich.table
import rich.text
from pyarrow import compute as pc
from pyarrow.dataset import Dataset

from evalbeam.beam_jobs.job import Job
from evalbeam.transforms import errors, metrics
from evalbeam.transforms.checks import conversion
from evalbeam.transforms.examples import slices
from evalbeam.transforms.metrics import metric
from evalbeam.transforms.metrics.plan import plan as metrics_plan
from evalbeam.transforms.results import compare
from evalbeam.transforms.sinks import tables

_MAX_ROWS = 40
# More rows by class than this are cut to each metric's worst classes.
_MAX_CLASS_ROWS = 12
_WORST_CLASSES = 3
_MAX_WORST_ROWS = 16
_MAX_DIFFERENCES = 1
_TIMES = ("median_us", "p95_us")


@dataclass(frozen=True)
class Heading:
    """What the tables of a run have in common.

    Attributes:
      models: the versions, in order.
      baseline: the version that the others are compared with, if any.
      directions: by metric, 1 if higher values are better, -1 if lower values are, else 0.
      classes: by output, the number of its classes, if it has several.
    """

    models: tuple[str, ...]
    baseline: str | None
    directions: Mapping[str, int]
    classes: Mapping[str, int | None]


def _escape(text: str) -> str:
    """Text on one line, without control characters, which names in the data may have."""
    return errors.printable(text).replace("\n", "\\n")


class _Console(rich.console.Console):
    """Escapes all text that is printed, in tables, too."""

    def render_str(self, text: str, **more: Any) -> rich.text.Text:
        """The text as rich prints it."""
        return super().render_str(_escape(text), **more)


def note(*notes: str | None) -> None:
    """Prints notes on stderr, those that there are."""
    for text in filter(None, notes):
        print(_escape(text), file=sys.stderr)


def show_published(results: Path, published: str, seconds: float) -> None:
    """Prints a published run; failing to print it does not fail the run."""
    try:
        show(results, published, seconds)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print(f"results are in {published}", file=sys.stderr)
    except Exception as e:
        # A closed pipe, or characters that the terminal cannot encode. Python would fail again at
        # exit when it flushes the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if not isinstance(e, BrokenPipeError):
            print(f"results are in {published}, but could not be printed: {e}", file=sys.stderr)


def show_completed(published: str, latest: str) -> None:
    """Prints that a run was published by an earlier attempt, and which run `latest` names."""
    later = "" if published.endswith(f"/{latest}") else ", a later run"
    print(
        f"{published} was already published, by the same config, so nothing was run; `latest` "
        f"names {latest}{later}. Another --run-id evaluates again"
    )


def show(results: Path, published: str, seconds: float) -> None:
    """Prints a run to stdout from a local folder of results, which are published at `published`."""
    manifest = json.loads((results / "manifest.json").read_text())
    stored = tables.read(results / "metrics.parquet")
    renamed = manifest["renamed_metrics"]
    frame = stored.to_table(filter=pc.field("slice") == "overall").to_pandas()
    directions = {
        name: metrics.direction(renamed.get(name, name)) for name in frame["metric"].unique()
    }
    classes = {name: output["classes"] for name, output in manifest["outputs"].items()}
    heading = Heading(tuple(manifest["models"]), manifest["baseline"], directions, classes)
    read, scored, dead = (
        sum(split[count] for split in manifest["data"].values())
        for count in ("read", "scored", "dead_lettered")
    )
    versions = _count(len(heading.models), "version")
    # Lines in a file or pipe may be long, so that tables are not cut.
    # No markup: a slice may have the name [b].
    width = None if sys.stdout.isatty() else 200
    console = _Console(highlight=False, markup=False, width=width)
    console.print(manifest["name"], style="bold")
    letters = _count(dead, "dead letter")
    console.print(f"{read:,} rows read, {scored:,} scored by {versions}, {letters}")
    console.print(f"{seconds:.1f} s; results in {published}", soft_wrap=True)
    worst_slices = _find_worst_slices(stored, heading, "value")
    compared = tables.read(results / "slice_comparisons.parquet")
    worst_differences = _find_worst_slices(compared, heading, "difference", ("baseline_slice",))
    for split in frame["split"].unique():
        overall = _add_names(frame[frame["split"] == split])
        of_class = overall["class_id"].notna()
        averages, by_class = overall[~of_class], overall[of_class]
        are_few = by_class["name"].nunique() <= _MAX_CLASS_ROWS
        shown = pd.concat([averages, by_class]) if are_few else averages
        build = functools.partial(_tabulate_overall, shown, heading, str(split))
        _print_side_by_side(console, heading.models, build)
        if not are_few:
            examples = _count_by_class(tables.read(results / "confusion.parquet"), str(split))
            worst_classes = _find_worst_classes(by_class, heading)
            build = functools.partial(_tabulate_classes, worst_classes, by_class, examples, heading)
            _print_side_by_side(console, heading.models, build)
        for worst, value in ((worst_slices, "value"), (worst_differences, "difference")):
            rows = worst[worst["split"] == split]
            if len(rows):
                console.print(_tabulate_worst(rows, overall, heading, value))
    if any(model["measures"] for model in manifest["models"].values()):
        build = functools.partial(_tabulate_costs, manifest["models"])
        _print_side_by_side(console, heading.models, build)
    findings = json.loads((results / "findings.json").read_text())
    findings = [finding for finding in findings if finding["check"] == "conversion"]
    if findings:
        console.print(_tabulate_conversions(findings))
        for line in itertools.chain.from_iterable(map(_explain, findings)):
            console.print(line, soft_wrap=True)


def _print_side_by_side(
    console: rich.console.Console,
    models: Sequence[str],
    build: Callable[[Sequence[str]], rich.table.Table],
) -> None:
    """Prints tables with as many versions as fit on the console, without cutting numbers."""
    # By default, rich measures the table as cut.
    unlimited = console.options.update(max_width=1 << 16)
    while models:
        count = len(models)
        table = build(models)
        while count > 1 and console.measure(table, options=unlimited).maximum > console.width:
            count -= 1
            table = build(models[:count])
        console.print(table)
        models = models[count:]


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def describe_plan(job: Job) -> str:
    """Describes what a run of the job would do."""
    size = sum(shard.size_bytes for shard in job.shards)
    planned = metrics_plan(job.evaluation)
    names = dict.fromkeys(each.key.metric for each in planned.metrics)
    lines = [
        f"{job.name}: the config fits the data and models; nothing was run (--dry-run)",
        f"data      {_count(len(job.shards), 'shard')}, {size / 1e6:,.1f} MB, columns "
        f"{', '.join(job.projection.columns)}; in batches of {job.batch_size:,}",
        f"versions  {', '.join(f'{model.name} ({model.kind})' for model in job.models)}",
        f"baseline  {job.evaluation.baseline or 'none'}",
        *(f"images    {line}" for line in _describe_images(job)),
        f"slices    {'; '.join(map(slices.describe, job.evaluation.slices))}",
        *(f"compared  {comparison}" for comparison in job.evaluation.slice_comparisons),
        f"metrics   {', '.join(names)}",
    ]
    for each in planned.by_tfma:
        lines.append(f"by TFMA   {each.spec.class_name}, which is slower: {each.reason}")
    return "\n".join(map(_escape, lines))


def _describe_images(job: Job) -> Iterator[str]:
    """Describes the first examples' images as models take them."""
    declared = {name: image for model in job.models for name, image in model.images}
    for image in declared.values():
        if image.column not in job.first.columns.schema.names:  # no model takes it
            continue
        values = image.rescale(image.decode(job.first.columns.column(image.column)))
        size = " x ".join(map(str, values.shape[1:]))
        yield (
            f"{image.name!r} of column {image.column!r}: {size}, values {values.min():g} to "
            f"{values.max():g} in the first examples"
        )


def _name(
    row: pd.Series | Mapping[str, Any], *, of_class: bool = True, has_rule: bool = False
) -> str:
    """A metric's name with what distinguishes its variants.

    Args:
      row: a row of metrics.parquet.
      of_class: whether to name the class.
      has_rule: whether to add how scores become decisions, if that is the usual way, too.
    """
    details = [
        *([f"output {row['output']}"] if row["output"] else []),
        *([_name_class(row)] if of_class and pd.notna(row["class_id"]) else []),
        *([f"k {row['k']:.0f}"] if pd.notna(row["k"]) else []),
        *([f"top {row['top_k']:.0f}"] if pd.notna(row["top_k"]) else []),
        *([str(row["aggregation"])] if row["aggregation"] else []),
        *([_name_rule(row)] if has_rule or not _is_usual(row) else []),
    ]
    details = list(filter(None, details))
    return f"{row['metric']} ({', '.join(details)})" if details else str(row["metric"])


def _name_rule(row: pd.Series | Mapping[str, Any]) -> str:
    if pd.notna(row["threshold"]):
        # FairnessIndicators has the threshold in its names.
        return "" if "@" in row["metric"] else f"at {row['threshold']:g}"
    return str(row["decision"]) if row["decision"] == metric.ARGMAX else ""


def _is_usual(row: pd.Series | Mapping[str, Any]) -> bool:
    return pd.isna(row["threshold"]) or (
        row["threshold"] == 0.5 and row["decision"] == metric.THRESHOLD
    )


def _name_class(row: pd.Series | Mapping[str, Any]) -> str:
    return str(row["class"]) if pd.notna(row["class"]) else f"class {row['class_id']:.0f}"


def _add_names(frame: pd.DataFrame) -> pd.DataFrame:
    columns = list(tables.WHICH)
    variants = frame[columns].drop_duplicates()
    # The rule of decisions is part of the names where an output has several.
    rules = variants.loc[variants["decision"].notna(), ["output", "decision", "threshold"]]
    has_rule = rules.drop_duplicates().groupby("output", observed=True).size().gt(1).to_dict()
    names, without_class = (
        [
            _name(row, of_class=of_class, has_rule=has_rule.get(row["output"], False))
            for row in variants.to_dict("records")
        ]
        for of_class in (True, False)
    )
    variants["without_class"] = without_class
    # If examples have weights, metrics that ignore them are marked.
    unweighted = ~variants["weighted"] & (variants["metric"] != "example_count")
    marked = unweighted if variants["weighted"].any() else unweighted & False
    variants["name"] = [
        f"{name}, unweighted" if mark else name for name, mark in zip(names, marked, strict=True)
    ]
    return frame.merge(variants, on=columns, how="left", sort=False)


def _format_number(value: float) -> str:
    if np.isnan(value):
        return "-"
    if np.isinf(value):
        return str(value)
    if value == round(value) and abs(value) >= 10:
        return f"{value:,.0f}"
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:,.1f}"


def _make_table(title: str) -> rich.table.Table:
    return rich.table.Table(
        title=_line(title),
        box=rich.box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
    )


def _line(text: str) -> rich.text.Text:
    """A title or caption on one line, however narrow its table is."""
    return rich.text.Text(_escape(text), no_wrap=True, overflow="ignore")


def _tabulate_overall(
    frame: pd.DataFrame, heading: Heading, split: str, models: Sequence[str]
) -> rich.table.Table:
    """A row for each metric, a column for each version."""
    examples = int(frame["n"].max()) if len(frame) else 0
    table = _make_table(f"{split}: all {examples:,} examples")
    table.add_column("metric", no_wrap=True)
    for model in models:
        note = "\n(baseline)" if model == heading.baseline and len(heading.models) > 1 else ""
        table.add_column(rich.text.Text(f"{_escape(model)}{note}"), justify="right")
    candidates = [model for model in models if model != heading.baseline]
    # For more versions, differences would take too much room.
    differences = heading.baseline in models and len(candidates) <= _MAX_DIFFERENCES
    if differences:
        for model in candidates:
            table.add_column(f"{model} - {heading.baseline}", justify="right")
    names = list(dict.fromkeys(frame["name"]))
    for name in names[:_MAX_ROWS]:
        rows = frame[frame["name"] == name].set_index("model")
        table.add_row(name, *_format_versions(rows, heading, models, candidates, differences))
    if len(names) > _MAX_ROWS:
        more = _count(len(names) - _MAX_ROWS, "more row")
        table.caption = _line(f"and {more} in metrics.parquet")
    return table


def _format_versions(
    rows: pd.DataFrame,
    heading: Heading,
    models: Sequence[str],
    candidates: Sequence[str],
    differences: bool,
) -> Iterator[str]:
    """A metric's value for each of `models` and, if wanted, the candidates' differences.

    Args:
      rows: the metric's rows, with the version as index.
      heading: what tables have in common.
      models, candidates, differences: which values and differences.
    """
    values = rows["value"].to_dict()
    for model in models:
        text = _format_number(values.get(model, np.nan))
        if model in values and pd.notna(counted := rows["classes"][model]):
            all_classes = heading.classes[rows["output"][model]]
            text += f" (of {counted:.0f} classes)" if counted != all_classes else ""
        yield text
    if differences:
        before = values.get(heading.baseline, np.nan)
        for model in candidates:
            yield _format_signed(values.get(model, np.nan) - before)


def _count_by_class(stored: Dataset, split: str) -> Mapping[tuple[str, int], float]:
    """The number of a split's examples (their weight, if there are weights), by output and class.

    The same of every version, so read of one.
    """
    wanted = (pc.field("slice") == "overall") & (pc.field("split") == split)
    columns = ["model", "output", "class_id", "threshold", "actual", "count"]
    frame = _decode_categories(stored.to_table(columns=columns, filter=wanted).to_pandas())
    frame = frame[frame["model"] == frame["model"].iloc[0]]
    frame = frame[frame["threshold"].isna() | (frame["threshold"] == frame["threshold"].min())]
    of_label = frame["class_id"].notna()
    frame = frame[~of_label | (frame["actual"] == 1)]
    frame["class"] = frame["class_id"].where(of_label, frame["actual"]).astype(int)
    counts: dict[tuple[str, int], float] = frame.groupby(["output", "class"])["count"].sum()
    return dict(counts)


def _find_worst_classes(by_class: pd.DataFrame, heading: Heading) -> dict[str, list[str]]:
    """By metric, the rows of the classes in which any version is the worst."""
    worst: dict[str, list[str]] = {}
    for name, rows in by_class.groupby("without_class", sort=False):
        direction = heading.directions[rows["metric"].iloc[0]] or 1
        order = (rows["value"] * direction).sort_values(kind="stable").index
        found = rows.loc[order, "name"][rows.loc[order, "value"].notna()]
        worst[str(name)] = list(dict.fromkeys(found))[:_WORST_CLASSES]
    return worst


def _tabulate_classes(
    worst: Mapping[str, Sequence[str]],
    by_class: pd.DataFrame,
    examples: Mapping[tuple[str, int], float],
    heading: Heading,
    models: Sequence[str],
) -> rich.table.Table:
    """For each metric its worst classes, a column for each version."""
    count = by_class["class_id"].nunique()
    table = _make_table(f"Worst classes of {count:,}")
    table.caption = _line("all are in metrics.parquet")
    table.add_column("metric", no_wrap=True)
    table.add_column("class", overflow="fold")
    table.add_column("examples", justify="right")
    for model in models:
        table.add_column(model, justify="right")
    for label, names in worst.items():
        for place, name in enumerate(names):
            rows = by_class[by_class["name"] == name].set_index("model")
            one = rows.iloc[0]
            number = examples.get((one["output"], int(one["class_id"])), 0.0)
            cells = _format_versions(rows, heading, models, (), False)
            weight = f"{number:,.0f}" if number == round(number) else f"{number:,.1f}"
            table.add_row("" if place else label, _name_class(one), weight, *cells)
    return table


def _tabulate_costs(models: Mapping[str, Any], names: Sequence[str]) -> rich.table.Table:
    """A row for each cost, a column for each version."""
    table = _make_table("What versions cost")
    table.add_column("", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right")
    measured = next(model["measures"] for model in models.values() if model["measures"])
    rows = f"{measured['batch']['rows']:,}"
    labels = ["size", "parameters", "time to load", "memory"]
    for size in (rows, "1"):
        labels += [f"µs per example, batch of {size}", "  95th percentile"]
    costs = [_format_costs(models[name]["measures"]) or ["-"] * len(labels) for name in names]
    table.add_row("form", *(models[name]["kind"] for name in names))
    for label, *cells in zip(labels, *costs, strict=True):
        table.add_row(label, *cells)
    return table


def _format_costs(measures: Mapping[str, Any] | None) -> list[str]:
    if measures is None:
        return []
    times = [measures[calls][which] for calls in ("batch", "single") for which in _TIMES]
    return [
        _format_bytes(measures["size_bytes"]),
        "-" if measures["parameters"] is None else f"{measures['parameters']:,}",
        f"{1000 * measures['load_s']:,.0f} ms",
        _format_bytes(measures["memory_bytes"]),
        *map(_format_microseconds, times),
    ]


def _format_microseconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _format_bytes(size: int | None) -> str:
    if size is None:
        return "-"
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:,.1f} {unit}"
    return f"{size} B"


def _tabulate_conversions(findings: Sequence[Mapping[str, Any]]) -> rich.table.Table:
    table = _make_table("Conversions: are they still the same model?")
    for column in ("version", "original"):
        table.add_column(column, overflow="fold")
    table.add_column("verdict", no_wrap=True)
    for column in ("decisions\nchanged", "largest\nchange", "size", "speed"):
        table.add_column(rich.text.Text(column), justify="right", no_wrap=True)
    for finding in findings:
        evidence = finding["evidence"]
        largest = evidence["largest_difference"]
        table.add_row(
            _name_conversion(finding),
            finding["original"],
            finding["verdict"],
            "-" if evidence["changed"] is None else f"{evidence['changed']:.2%}",
            "inf" if largest is None else f"{largest:,.2g}" if largest < 100 else f"{largest:,.0f}",
            *(_format_ratio(evidence[ratio]) for ratio in ("size_ratio", "speed_ratio")),
        )
    return table


def _explain(finding: Mapping[str, Any]) -> Iterator[str]:
    """What a conversion changed, and why, in sentences."""
    evidence = finding["evidence"]
    worst = max(evidence["metrics"], key=_rank_severity, default=None)
    changes = [worst] if worst is not None and worst["relative"] != 0 else []
    changes += [evidence["worst_slice"]] if evidence["worst_slice"] else []
    if changes:
        yield f"{_name_conversion(finding)}: {'; '.join(map(_describe_change, changes))}"
    if finding["explanation"]:
        verdict = finding["verdict"]
        if verdict in ("good", "acceptable"):
            verdict += " by these metrics, but not the same model"
        verdict = ", ".join(filter(None, (verdict, finding["cause"])))
        yield f"{_name_conversion(finding)} is {verdict}: {finding['explanation']}"


def _name_conversion(finding: Mapping[str, Any]) -> str:
    output = f" ({finding['output']})" if finding["output"] else ""
    return finding["converted"] + output


def _rank_severity(change: Mapping[str, Any]) -> tuple[int, bool, float]:
    """How much a metric's change contributes to the verdict, and how much it says."""
    relative = change["relative"]
    return (
        compare.VERDICTS.index(change["verdict"]),
        change["after"] is not None,
        np.inf if relative is None else abs(relative),
    )


def _describe_change(change: Mapping[str, Any]) -> str:
    """A metric's values before and after, and the slice."""
    name = _name({**change, "output": "", "class_id": None})
    where = "" if change["slice"] == "overall" else f" in {change['slice']}"
    # JSON has neither NaN nor infinity.
    before, after = (
        "undefined" if change[when] is None else _format_number(change[when])
        for when in ("before", "after")
    )
    return f"{name} {before} -> {after}{where}"


def _format_ratio(ratio: float | None) -> str:
    return "-" if ratio is None else f"x {ratio:.2g}"


def _format_signed(value: float) -> str:
    if np.isnan(value):
        return "-"
    return "0" if value == 0 else ("+" if value > 0 else "") + _format_number(value)


def _find_worst_slices(
    stored: Dataset, heading: Heading, value: str, more: Sequence[str] = ()
) -> pd.DataFrame:
    """For each metric with a preferred direction, each version's worst slice in each split.

    Reads the table in pieces, as it may be larger than memory.

    Args:
      stored: a table of results.
      heading: what tables have in common.
      value: the column by which a slice is the worst.
      more: further columns to read.
    """
    directed = [name for name, direction in heading.directions.items() if direction]
    # For a metric by class, the average suffices here.
    wanted = (pc.field("slice") != "overall") & pc.field("class_id").is_null()
    wanted &= pc.field("n") >= conversion.FEWEST_EXAMPLES
    wanted &= pc.field("metric").isin(pa.array(directed, pa.string())) & ~pc.field(value).is_nan()
    columns = ["split", "slice", "model", *tables.WHICH, value, "n", *more]
    kept = stored.schema.empty_table().select(columns).to_pandas()
    for piece in stored.to_batches(columns=columns, filter=wanted):
        kept = _keep_worst(
            pd.concat([kept, _decode_categories(piece.to_pandas())], ignore_index=True),
            heading,
            value,
        )
    return kept


def _decode_categories(frame: pd.DataFrame) -> pd.DataFrame:
    """Categorical columns as text, as categories differ between pieces."""
    texts = frame.select_dtypes("category").columns
    return frame.astype(dict.fromkeys(texts, object))


def _keep_worst(frame: pd.DataFrame, heading: Heading, value: str) -> pd.DataFrame:
    loss = frame[value] * -frame["metric"].map(heading.directions).astype(float)
    keys = ["split", "model", *tables.WHICH]
    order = loss.sort_values(ascending=False, kind="stable").index
    return frame.loc[order].drop_duplicates(keys).sort_index() if len(frame) else frame


def _tabulate_worst(
    frame: pd.DataFrame, overall: pd.DataFrame, heading: Heading, value: str
) -> rich.table.Table:
    """For each metric with a preferred direction, each version's worst slice by its `value`.

    The order and names of metrics are those in `overall`. Differences are from a baseline slice.
    """
    of_difference = value == "difference"
    variants = overall[[*tables.WHICH, "name"]].drop_duplicates()
    frame = _decode_categories(variants).merge(
        frame, on=list(tables.WHICH), how="inner", sort=False
    )
    what = "Slices furthest behind their baseline slice," if of_difference else "Worst slices"
    table = _make_table(f"{what} of at least {conversion.FEWEST_EXAMPLES} examples")
    for column in ("metric", "version"):
        table.add_column(column, no_wrap=True)
    table.add_column(value, justify="right")
    table.add_column("slice", overflow="fold")
    if of_difference:
        table.add_column("baseline slice", overflow="fold")
    table.add_column("examples", justify="right")
    for name in list(dict.fromkeys(frame["name"]))[
        : max(1, _MAX_WORST_ROWS // len(heading.models))
    ]:
        rows = frame[frame["name"] == name]
        for model in heading.models:
            model_rows = rows[rows["model"] == model]
            if len(model_rows):
                row = model_rows.iloc[0]
                label = name if model == heading.models[0] else ""
                formatted = (_format_signed if of_difference else _format_number)(row[value])
                names = [str(row["slice"])]
                if of_difference:
                    names.append(str(row["baseline_slice"]))
                table.add_row(label, model, formatted, *names, f"{row['n']:,}")
    return table
