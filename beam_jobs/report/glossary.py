"""Describes metrics, without running anything."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

import rich.box
import rich.console
import rich.table

from evalbeam.transforms import errors, metrics
from evalbeam.transforms.metrics import glossary, metric
from evalbeam.transforms.tfma import catalog

_BETTER = {metric.HIGHER: "higher", metric.LOWER: "lower", metric.NEITHER: ""}


def list_all() -> str:
    """A table of all metrics."""
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    for column in ("metric", "tasks", "better", "what it is"):
        table.add_column(column, no_wrap=True)
    for name in sorted(glossary.DEFINITIONS, key=str.lower):
        mark = "" if name in metrics.REGISTRY else " (by TFMA)"
        table.add_row(f"{name}{mark}", _name_tasks(name), _direct(name), glossary.DEFINITIONS[name])
    console = rich.console.Console(width=200, highlight=False, markup=False)
    with console.capture() as captured:
        console.print(table)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    return "\n".join([*lines, "`evalbeam metrics NAME` shows where one differs from others'."])


def explain(name: str) -> str:
    """All that is known of a metric.

    Raises:
      ConfigError: there is no metric of this name.
    """
    meant = name if name in glossary.DEFINITIONS else glossary.find(name)
    if meant is None:
        near = difflib.get_close_matches(name, glossary.DEFINITIONS, n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise errors.ConfigError(f"there is no metric {name!r}.{hint} `evalbeam metrics` lists all")
    names = [meant] if isinstance(meant, str) else dict.fromkeys(meant.values())
    return "\n\n".join("\n".join(_explain(each)) for each in names)


def _explain(name: str) -> Iterator[str]:
    entry = glossary.describe(name)
    yield f"{name}: {entry.definition}"
    yield f"  tasks     {_name_tasks(name)}"
    yield f"  better    {_direct(name) or 'neither higher nor lower'}"
    own = "evalbeam's own kernel" if name in metrics.REGISTRY else "TFMA, which is slower"
    yield f"  computed  by {own}"
    if entry.differences:
        yield f"  differs   {entry.differences}"
    if entry.aliases:
        yield f"  also      {', '.join(entry.aliases)}"


def _name_tasks(name: str) -> str:
    tasks = catalog.list_tasks(name)
    return "all" if set(tasks) == set(metric.ALL_TASKS) else ", ".join(tasks)


def _direct(name: str) -> str:
    return _BETTER[metrics.REGISTRY[name].direction] if name in metrics.REGISTRY else ""
