"""What a metric is: a name for the result, the statistics it needs, a function of their sums."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from evalbeam.transforms import errors
from evalbeam.transforms.metrics import statistics
from evalbeam.transforms.metrics.sheet import Sheet


class NeedsTfma(Exception):
    """No kernel of ours computes a metric as configured, so that TFMA has to.

    Its text is the reason, and completes the sentence "AUC is computed by TFMA: <reason>".
    """


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
    """Numbers, NaN where undefined.

    Attributes:
      values: float64[rows], or [rows, T] for several thresholds.
      thresholds: the thresholds, if a score decides by them.
      decision: how scores become decisions: ARGMAX, THRESHOLD, such as "top 5" (the largest do), or
        "" if they do not.
      classes: how many classes a macro average is over, int64 of the shape of `values`.
    """

    values: np.ndarray
    thresholds: tuple[float, ...] | None = None
    decision: str = ""
    classes: np.ndarray | None = None


@dataclass(frozen=True)
class Confusions:
    """Binary confusion counts at thresholds, each float64[rows, T]."""

    thresholds: tuple[float, ...]
    tp: np.ndarray
    tn: np.ndarray
    fp: np.ndarray
    fn: np.ndarray


@dataclass(frozen=True)
class Buckets:
    """Sums per score bucket: `edges` are the B - 1 inner bounds; the arrays float64[rows, B]."""

    edges: tuple[float, ...]
    scores: np.ndarray
    labels: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class ClassMatrices:
    """Multi-class confusion counts: float64[rows, K, K + 1] for each threshold.

    The last predicted class stands for "no prediction".
    """

    thresholds: tuple[float, ...]
    counts: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class LabelMatrices:
    """Multi-label counts: float64[rows, K, K, 4] (TP, FP, TN, FN) for each threshold."""

    thresholds: tuple[float, ...]
    counts: tuple[np.ndarray, ...]


# A class in which a metric is undefined is left out of a macro average, or counts as 0 (as in
# scikit-learn), or makes it undefined.
ZeroDivision = Literal["skip", "0", "nan"]

Result = Values | Confusions | Buckets | ClassMatrices | LabelMatrices
Finish = Callable[[Sheet], Result]


@dataclass(frozen=True)
class Metric:
    """One result of a run: the statistics that workers add up, and what is made of their sums.

    `finish` computes it of all rows of a sheet at once; `plot`: it is a curve or picture.

    The root mean squared error, of two examples whose squared errors add up to 8:

    >>> from evalbeam.transforms.examples.slices import SliceKey
    >>> from evalbeam.transforms.metrics.table import Layout, Sums, Table
    >>> examples = statistics.Examples(weighted=False)
    >>> errors = statistics.Moment(statistics.Target("v1", "", "regression"), "squared error")
    >>> def finish(sheet):
    ...     mean = ratio(sheet.total(errors)[:, 0], sheet.total(examples)[:, 0])
    ...     return Values(np.sqrt(mean))
    >>> rmse = Metric(Key("rmse", "v1"), (errors, examples), finish)
    >>> sums = {
    ...     "examples": Sums(keys=np.array([0]), high=np.array([2.0])),
    ...     errors.name: Sums(keys=np.array([0]), high=np.array([8.0])),
    ... }
    >>> table = Table((SliceKey("eval"),), dict.fromkeys(sums, Layout(units=1, cells=1)), sums)
    >>> rmse.finish(Sheet(table)).values
    array([2.])
    """

    key: Key
    statistics: tuple[statistics.Statistic, ...]
    finish: Finish
    plot: bool = False

    @property
    def by_unit(self) -> bool:
        """Whether all of its sums are kept by unit, so that resampled sheets have it too."""
        return all(statistic.by_unit for statistic in self.statistics)


@dataclass(frozen=True)
class Request:
    """A metric as configured, for one version, output and way of making it binary.

    Attributes:
      class_name: TFMA's or Keras's class name, such as "Recall".
      config: the class's arguments.
      target: what to measure it on.
      aggregation: how classes are brought to one number: "" (not at all) or "micro"; also "macro"
        or "weighted_macro" if `by_class`.
      baseline: the same target of the baseline version, where there is one and this is another.
      by_class: decided by the largest score, of each class and as their macro average (what
        scikit-learn's classification_report shows), or the `aggregation` alone.
      zero_division: of a macro average, what a class counts as in which the metric is undefined.
      class_weights: (class, weight) pairs of an average by class; () for all classes alike.
    """

    class_name: str
    config: Mapping[str, Any]
    target: statistics.Target
    aggregation: str = ""
    baseline: statistics.Target | None = None
    by_class: bool = False
    zero_division: ZeroDivision = "nan"
    class_weights: tuple[tuple[int, float], ...] = ()

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

    def require(self, *names: str, **defaults: Any) -> None:
        """Raises NeedsTfma unless all arguments are `name`, among `names`, or as in `defaults`."""
        for name, value in self.config.items():
            supported = name in ("name", *names) or (name in defaults and defaults[name] == value)
            if not supported:
                raise self.no_kernel_for(name)

    def require_task(self, *tasks: str) -> None:
        """Raises NeedsTfma unless the output is for one of the tasks."""
        if self.target.task not in tasks:
            raise NeedsTfma(f"it has no kernel for {self.target.task} outputs")

    def require_classes(self) -> None:
        """Raises NeedsTfma for a regression output, which makes no decisions."""
        if self.target.task == "regression":
            raise NeedsTfma("of a regression output, TFMA checks that labels lie in [0, 1]")

    def require_whole(self) -> None:
        """Raises NeedsTfma if the output is made binary: for one class, or the largest scores."""
        for name in ("class_id", "k", "top_k"):
            if (value := getattr(self.target, name)) is not None:
                raise NeedsTfma(f"it has no kernel for {name}={value}")

    def refuse(self, argument: str, allowed: str) -> errors.ConfigError:
        """The error that an argument's value is a mistake, for TFMA too."""
        return errors.ConfigError(
            f"metrics: {self.class_name}: its argument {argument} is "
            f"{self.config.get(argument)!r}; it must be {allowed}"
        )

    def no_kernel_for(self, argument: str) -> NeedsTfma:
        """The error that an argument's value is not supported, or is missing."""
        if argument not in self.config:
            return NeedsTfma(f"its argument {argument} is missing")
        return NeedsTfma(f"its argument {argument}={self.config[argument]!r} has no kernel")

    def with_class(self) -> Request:
        """The request with `class_id` and `top_k` arguments moved into the target.

        Raises:
          NeedsTfma: the target has a class or top k already, a mistake that TFMA explains best.
        """
        class_id, top_k = self.config.get("class_id"), self.config.get("top_k")
        if class_id is None and top_k is None:
            return self
        if self.target.class_id is not None or self.target.top_k is not None:
            name, value = ("top_k", top_k) if class_id is None else ("class_id", class_id)
            raise NeedsTfma(
                f"its argument {name}={value!r} and the way it is made binary both choose classes"
            )
        config = {k: v for k, v in self.config.items() if k not in ("class_id", "top_k")}
        target = replace(self.target, class_id=class_id, top_k=top_k)
        return replace(self, config=config, target=target)


# The metrics of a request, or NeedsTfma.
Builder = Callable[[Request], tuple[Metric, ...]]

HIGHER, LOWER, NEITHER = 1, -1, 0
# The largest score decides, or scores above a threshold do.
ARGMAX, THRESHOLD = "argmax", "threshold"
ALL_TASKS = ("binary", "multiclass", "multilabel", "regression")
CLASSIFICATION = ("binary", "multiclass", "multilabel")
SEVERAL_CLASSES = ("multiclass", "multilabel")


@dataclass(frozen=True)
class Kind:
    """All that is registered of a metric class.

    Attributes:
      build: makes the metrics of a request, or raises NeedsTfma.
      direction: HIGHER or LOWER, whichever values are better; NEITHER for counts, which grow with
        the data, for means and for rates of decisions.
      tasks: the tasks whose outputs it makes sense of.
      name: what its result is called, if not the snake case of the class's name.
      by_class: whether our own config means it `by_class` (see Request) where one of several
        classes is right.
    """

    build: Builder
    direction: int = NEITHER
    tasks: tuple[str, ...] = ALL_TASKS
    name: str = ""
    by_class: bool = False


def snake_case(name: str) -> str:
    """A class's default metric name, as Keras makes it: BinaryAccuracy -> binary_accuracy."""
    spaced = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", spaced).lower()


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Their quotient; NaN where the denominator is not positive."""
    undefined = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator > 0)


def average(
    values: np.ndarray, weights: np.ndarray, zero_division: ZeroDivision
) -> tuple[np.ndarray, np.ndarray]:
    """The macro average over classes, float64[rows, ...], and the number of them, of that shape.

    Args:
      values: float64[rows, classes, ...], NaN where undefined.
      weights: float64[classes] or [rows, classes].
      zero_division: what an undefined value counts as.
    """
    weights = np.broadcast_to(weights, values.shape[:2])
    weights = weights.reshape(weights.shape + (1,) * (values.ndim - 2))
    if zero_division == "0":
        values = np.nan_to_num(values, nan=0.0, posinf=np.inf, neginf=-np.inf)
    counted = np.ones(values.shape, bool) if zero_division == "nan" else ~np.isnan(values)
    shares = np.where(counted, weights, 0.0)
    total = np.where(counted, values * weights, 0.0).sum(axis=1)
    return ratio(total, shares.sum(axis=1)), counted.sum(axis=1)


def remainder(whole: np.ndarray, part: np.ndarray) -> np.ndarray:
    """The whole without a part of it; 0 where they differ by rounding alone.

    A slice without negatives must give 0 for them, or 0/0 would no longer be NaN.
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

    def of(self, sheet: Sheet) -> np.ndarray:
        """float64[rows]."""
        return sheet.total(self.statistic)[:, self.cell]
