"""What a metric is: a name for the result, the statistics it needs, a function of their sums."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from evalbeam.transforms.metrics import statistics


@dataclass(frozen=True)
class Key:
    """Which number of which version a result is; TFMA's MetricKey or PlotKey.

    `aggregation` is "", "micro", "macro" or "weighted_macro". `baseline` is set where the metric
    itself compares two versions.
    """

    metric: str
    model: str
    output: str = ""
    class_id: int | None = None
    k: int | None = None
    top_k: int | None = None
    aggregation: str = ""
    weighted: bool = False
    baseline: str | None = None


@dataclass(frozen=True)
class Values:
    """float64[slices], or [slices, T] for as many `thresholds`; NaN where undefined."""

    values: np.ndarray
    thresholds: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Confusions:
    """Binary confusion counts at thresholds, each float64[slices, T]."""

    thresholds: tuple[float, ...]
    tp: np.ndarray
    tn: np.ndarray
    fp: np.ndarray
    fn: np.ndarray


@dataclass(frozen=True)
class Buckets:
    """Sums per score bucket: `edges` are the B - 1 inner bounds; the arrays float64[slices, B]."""

    edges: tuple[float, ...]
    scores: np.ndarray
    labels: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class ClassMatrices:
    """Multi-class confusion counts: float64[slices, K, K + 1] for each threshold.

    The last predicted class stands for "no prediction".
    """

    thresholds: tuple[float, ...]
    counts: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class LabelMatrices:
    """Multi-label counts: float64[slices, K, K, 4] (TP, FP, TN, FN) for each threshold."""

    thresholds: tuple[float, ...]
    counts: tuple[np.ndarray, ...]


Result = Values | Confusions | Buckets | ClassMatrices | LabelMatrices
Finish = Callable[[statistics.Sheet], Result]


@dataclass(frozen=True)
class Metric:
    """One result of a run, over all slices at once; `plot`: a curve or picture, not numbers."""

    key: Key
    statistics: tuple[statistics.Statistic, ...]
    finish: Finish
    plot: bool = False


@dataclass(frozen=True)
class Request:
    """A metric as configured, for one version, output and way of making it binary.

    Attributes:
      class_name: TFMA's or Keras's class name, such as "Recall".
      config: the class's arguments.
      target: what to measure it on.
      aggregation: how classes are brought to one number: "" (not at all) or "micro".
      baseline: the same target of the baseline version, where there is one and this is another.
      by_class: a multi-class confusion metric is wanted for each class, decided by the largest
        score (what scikit-learn's classification_report shows), and as their macro average.
    """

    class_name: str
    config: Mapping[str, Any]
    target: statistics.Target
    aggregation: str = ""
    baseline: statistics.Target | None = None
    by_class: bool = False

    def key(self, name: str | None = None) -> Key:
        """The result's key; `name` where the class's own default is not the snake case of it."""
        target = self.target
        return Key(
            metric=self.config.get("name") or name or snake_case(self.class_name),
            model=target.model,
            output=target.output,
            class_id=target.class_id,
            k=target.k,
            top_k=target.top_k,
            aggregation=self.aggregation,
            weighted=target.weighted,
        )

    def accepts(self, *names: str, **defaults: Any) -> bool:
        """Whether only these arguments (and `name`) are configured, `defaults` as they are."""
        return all(
            key in ("name", *names) or (key in defaults and defaults[key] == value)
            for key, value in self.config.items()
        )

    def with_class(self) -> Request | None:
        """The request with `class_id` and `top_k` arguments moved into the target."""
        class_id, top_k = self.config.get("class_id"), self.config.get("top_k")
        if class_id is None and top_k is None:
            return self
        if self.target.class_id is not None or self.target.top_k is not None:
            return None  # TFMA has the better words for this mistake
        config = {k: v for k, v in self.config.items() if k not in ("class_id", "top_k")}
        target = replace(self.target, class_id=class_id, top_k=top_k)
        return replace(self, config=config, target=target, by_class=False)


# What a metric module registers: the metrics of a request, or None where this one needs TFMA.
Builder = Callable[[Request], tuple[Metric, ...] | None]


def snake_case(name: str) -> str:
    """A class's default metric name, as Keras makes it: BinaryAccuracy -> binary_accuracy."""
    spaced = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", spaced).lower()


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Their quotient; NaN where the denominator is not positive."""
    undefined = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator > 0)


def remainder(whole: np.ndarray, part: np.ndarray) -> np.ndarray:
    """The whole without a part of it; 0 where rounding alone tells them apart.

    A slice without negatives must give 0 for them, or 0/0 would not be NaN any more.
    """
    rest = whole - part
    return np.where(rest > 1e-12 * np.abs(whole), rest, 0.0)


@dataclass(frozen=True)
class Weight:
    """The sum of the weights of a target's (label, score) pairs: what means are divided by."""

    target: statistics.Target
    statistic: statistics.Statistic = field(init=False)
    cell: int = field(init=False)

    def __post_init__(self) -> None:
        several = self.target.task in ("multiclass", "multilabel") and (
            self.target.class_id is None and self.target.k is None
        )
        examples = statistics.Examples(self.target.weighted)
        pairs = statistics.Moment(self.target, "count")
        by_pair = several or bool(self.target.class_weights)
        object.__setattr__(self, "statistic", pairs if by_pair else examples)
        object.__setattr__(self, "cell", 0 if by_pair else examples.weight_cell)

    def of(self, sheet: statistics.Sheet) -> np.ndarray:
        """float64[slices]."""
        return sheet.total(self.statistic)[:, self.cell]
