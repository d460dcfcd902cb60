"""Versions against the baseline, over the same rows of every slice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from transforms import finish
from transforms.metrics import metric


@dataclass(frozen=True)
class Difference:
    """A candidate's values minus the baseline's; `key` is the candidate's."""

    key: metric.Key
    baseline: str
    values: metric.Values


def differences(block: finish.Block, baseline: str | None) -> Iterator[Difference]:
    """The differences of all metrics that both have."""
    if baseline is None:
        return
    for key, result in block.results.items():
        if key.model == baseline or not isinstance(result, metric.Values):
            continue
        before = block.results.get(replace(key, model=baseline))
        if isinstance(before, metric.Values) and before.thresholds == result.thresholds:
            values = metric.Values(result.values - before.values, result.thresholds)
            yield Difference(key, baseline, values)
