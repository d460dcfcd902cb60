"""How often a version decides differently from the baseline: TFMA's flip rates."""

from __future__ import annotations

from dataclasses import replace

from evalbeam.transforms.metrics import metric, statistics
from evalbeam.transforms.metrics.metric import ratio
from evalbeam.transforms.metrics.sheet import Sheet

# Class name -> the cells (2 * baseline above the threshold + candidate above it) it counts.
_DECISIONS = {
    "SymmetricFlipRate": (1, 2),
    "NegToNegFlipRate": (0,),
    "NegToPosFlipRate": (1,),
    "PosToNegFlipRate": (2,),
    "PosToPosFlipRate": (3,),
}
# BooleanFlipRates gives all five, under names that its arguments can change.
_ALL = {
    "flip_rate": "SymmetricFlipRate",
    "neg_to_neg_flip_rate": "NegToNegFlipRate",
    "neg_to_pos_flip_rate": "NegToPosFlipRate",
    "pos_to_neg_flip_rate": "PosToNegFlipRate",
    "pos_to_pos_flip_rate": "PosToPosFlipRate",
}


def _rate(request: metric.Request, class_name: str, name: str | None) -> metric.Metric:
    assert request.baseline is not None
    threshold = float(request.config.get("threshold", 0.5))
    statistic = statistics.Flips(request.baseline, request.target, threshold)

    def finish(sheet: Sheet) -> metric.Values:
        # Over labels: a flip is about decisions only.
        decisions = sheet.total(statistic).reshape(len(sheet), 2, 4).sum(axis=1)
        counted = decisions[:, _DECISIONS[class_name]].sum(axis=1)
        rate = ratio(counted, decisions.sum(axis=1))
        return metric.Values(rate, (threshold,), metric.THRESHOLD)

    key = replace(request.key(name), baseline=request.baseline.model)
    return metric.Metric(key, (statistic,), finish)


def _require_decisions(request: metric.Request) -> None:
    request.require_task("binary", "regression")
    if request.aggregation:
        raise metric.NeedsTfma(f"it has no kernel for a {request.aggregation} average")


def _single_rate(request: metric.Request) -> tuple[metric.Metric, ...]:
    request.require("threshold")
    _require_decisions(request)
    if request.baseline is None:
        return ()  # the baseline itself, or no baseline: nothing to compare with
    return (_rate(request, request.class_name, None),)


def _all_rates(request: metric.Request) -> tuple[metric.Metric, ...]:
    request.require("threshold", *(f"{name}_name" for name in _ALL))
    _require_decisions(request)
    if request.baseline is None:
        return ()
    return tuple(
        _rate(request, class_name, request.config.get(f"{name}_name", name))
        for name, class_name in _ALL.items()
    )


# Of several classes, TFMA takes each class's score for a decision of its own.
_TASKS = ("binary", "regression")

METRICS: dict[str, metric.Kind] = {
    **{name: metric.Kind(_single_rate, tasks=_TASKS) for name in _DECISIONS},
    "BooleanFlipRates": metric.Kind(_all_rates, tasks=_TASKS),
}
