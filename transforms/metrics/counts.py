"""How many examples a slice has, and what they weigh."""

from __future__ import annotations

from dataclasses import replace

from evalbeam.transforms.metrics import metric, statistics


def _example_count(request: metric.Request) -> tuple[metric.Metric, ...]:
    """The number of examples, never weighted; TFMA's ExampleCount."""
    request.require()
    # Always the run's own statistic: cell 0 counts examples whatever their weights.
    statistic = statistics.Examples(request.target.weighted)
    key = replace(request.key(), weighted=False)
    return (metric.Metric(key, (statistic,), lambda s: metric.Values(s.total(statistic)[:, 0])),)


def _weighted_example_count(request: metric.Request) -> tuple[metric.Metric, ...]:
    """The sum of the example weights; without weights, the number of examples."""
    request.require()
    statistic = statistics.Examples(request.target.weighted)
    return (
        metric.Metric(
            request.key(),
            (statistic,),
            lambda s: metric.Values(s.total(statistic)[:, statistic.weight_cell]),
        ),
    )


METRICS: dict[str, metric.Kind] = {
    "ExampleCount": metric.Kind(_example_count),
    "WeightedExampleCount": metric.Kind(_weighted_example_count),
}
