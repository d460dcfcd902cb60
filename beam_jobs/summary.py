"""What a run prints: versions side by side, and the slices where they are worst."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import rich.box
import rich.console
import rich.table

from transforms import metrics

# Below this many examples the worst slice is mostly the unluckiest one.
_FEWEST_EXAMPLES = 30
_MOST_ROWS = 40


@dataclass(frozen=True)
class Heading:
    """What stands above the tables."""

    name: str
    models: tuple[str, ...]
    baseline: str | None
    lines: tuple[str, ...]


def show(run: Path, heading: Heading) -> None:
    """Prints a published run's metrics on stdout."""
    frame = pd.read_parquet(run / "metrics.parquet")
    # In a file or a pipe lines may be long: a table is not to be cut for a terminal's sake.
    console = rich.console.Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    console.print(f"[bold]{heading.name}[/bold]")
    for line in heading.lines:
        console.print(line, markup=False)
    for split in frame["split"].unique():
        of_split = frame[frame["split"] == split]
        console.print(_overall(of_split[of_split["slice"] == "overall"], heading, str(split)))
        worst = _worst(of_split[of_split["slice"] != "overall"], heading)
        if worst is not None:
            console.print(worst)


def _name(row: pd.Series) -> str:
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
    columns = ["output", "metric", "class_id", "k", "top_k", "aggregation", "threshold"]
    variants = frame[columns].drop_duplicates()
    variants["name"] = [_name(row) for _, row in variants.iterrows()]
    return frame.merge(variants, on=columns, how="left", sort=False)


def _number(value: float) -> str:
    if np.isnan(value):
        return "-"
    if value == round(value) and abs(value) >= 10:
        return f"{value:,.0f}"
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:,.1f}"


def _table(title: str) -> rich.table.Table:
    return rich.table.Table(title=title, box=rich.box.SIMPLE_HEAD, title_justify="left")


def _overall(frame: pd.DataFrame, heading: Heading, split: str) -> rich.table.Table:
    frame = _named(frame)
    examples = int(frame["n"].max()) if len(frame) else 0
    table = _table(f"{split}: all {examples:,} examples")
    table.add_column("metric")
    for model in heading.models:
        mark = " (baseline)" if model == heading.baseline and len(heading.models) > 1 else ""
        table.add_column(f"{model}{mark}", justify="right")
    candidates = [model for model in heading.models if model != heading.baseline]
    if heading.baseline:
        for model in candidates:
            table.add_column(f"{model} - {heading.baseline}", justify="right")
    for name in list(dict.fromkeys(frame["name"]))[:_MOST_ROWS]:
        values = frame[frame["name"] == name].set_index("model")["value"].to_dict()
        cells = [_number(values.get(model, np.nan)) for model in heading.models]
        if heading.baseline:
            before = values.get(heading.baseline, np.nan)
            cells += [_signed(values.get(model, np.nan) - before) for model in candidates]
        table.add_row(name, *cells)
    return table


def _signed(value: float) -> str:
    if np.isnan(value):
        return "-"
    return "0" if value == 0 else ("+" if value > 0 else "") + _number(value)


def _worst(frame: pd.DataFrame, heading: Heading) -> rich.table.Table | None:
    """For each metric that has a better way: each version's worst slice."""
    known = metrics.HIGHER_IS_BETTER | metrics.LOWER_IS_BETTER
    frame = frame[(frame["n"] >= _FEWEST_EXAMPLES) & frame["metric"].isin(known)]
    frame = _named(frame[frame["value"].notna()])
    if not len(frame):
        return None
    table = _table(f"Worst slices of at least {_FEWEST_EXAMPLES} examples")
    for column in ("metric", "version"):
        table.add_column(column)
    table.add_column("value", justify="right")
    table.add_column("slice", overflow="fold")
    table.add_column("examples", justify="right")
    for name in list(dict.fromkeys(frame["name"]))[:_MOST_ROWS]:
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
