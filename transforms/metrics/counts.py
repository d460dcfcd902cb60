"""How many examples a slice has, and what they weigh."""

from __future__ import annotations

from dataclasses import replace

from evalbeam.transforms.metrics import metric, statistics


def _example_count(request: metric.Request) -> tuple[metric.Metric, ...] | None:
    """The number of examples, never weighted; TFMA's ExampleCount."""
    if not request.accepts():
        return None
    # Always the run's own statistic: cell 0 counts examples whatever their weights.
    statistic = statistics.Examples(request.target.weighted)
    key = replace(request.key(), weighted=False)
    return (metric.Metric(key, (statistic,), lambda s: metric.Values(s.total(statistic)[:, 0])),)


def _weighted_example_count(request: metric.Request) -> tuple[metric.Metric, ...] | None:
    """The sum of the example weights; without weights, the number of examples."""
    if not request.accepts():
        return None
    statistic = statistics.Examples(request.target.weighted)
    return (
        metric.Metric(
            request.key(),
            (statistic,),
            lambda s: metric.Values(s.total(statistic)[:, statistic.weight_cell]),
        ),
    )


METRICS: dict[str, metric.Builder] = {
    "ExampleCount": _example_count,
    "WeightedExampleCount": _weighted_example_count,
}
