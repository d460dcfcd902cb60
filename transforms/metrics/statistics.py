"""What is added up: the cells that each example of a batch falls into, and what it adds there."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol

import numpy as np

from evalbeam.transforms import batch
from evalbeam.transforms.memo import Memo

# TFMA's calibration histogram; AUC and its relatives read it (calibration_histogram.py).
HISTOGRAM_BUCKETS = 10_000
# Score differences are counted up to and including each of these, above the previous one.
DIFFERENCES = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 10.0, 100.0)
# Keras clips probabilities by this before taking their logarithm.
_KERAS_EPSILON = 1e-7


@dataclass(frozen=True)
class Target:
    """One problem that a version's output is measured on.

    A multi-class output is measured whole, or made binary the way TFMA does it: one class against
    the rest (`class_id`), the k-th largest score (`k`), or all scores as binary examples,
    of which `top_k` keeps the k largest (the others become -inf, or with `truncate` are dropped).

    Attributes:
      model: the version.
      output: the model's output, "" where it has one.
      task: "binary", "multiclass", "multilabel" or "regression".
      classes: K, for multiclass and multilabel.
      weighted: whether example weights count.
      class_weights: (class, weight) pairs for a weighted micro average; other classes weigh 0.
    """

    model: str
    output: str
    task: str
    classes: int | None = None
    class_id: int | None = None
    k: int | None = None
    top_k: int | None = None
    truncate: bool = False
    weighted: bool = False
    class_weights: tuple[tuple[int, float], ...] = ()

    @property
    def unweighted(self) -> Target:
        """The same problem, in which every example and class counts as one."""
        return replace(self, weighted=False, class_weights=())

    def __str__(self) -> str:
        marks = [self.model, *([f"output={self.output}"] if self.output else [])]
        for mark in ("class_id", "k", "top_k"):
            if getattr(self, mark) is not None:
                marks.append(f"{mark}={getattr(self, mark)}")
        if self.truncate:
            marks.append("truncate")
        if self.class_weights:
            marks.append(",".join(f"{c}:{w!r}" for c, w in self.class_weights))
        if self.weighted:
            marks.append("weighted")
        return " ".join(marks)


@dataclass(frozen=True)
class Entries:
    """What a batch adds to a statistic.

    Attributes:
      cells: int64, [N] or [N, J]: example i adds to the cells of row i.
      values: float64 of the same shape, or None where each adds one.
    """

    cells: np.ndarray
    values: np.ndarray | None = None


class Statistic(Protocol):
    """A hashable description of sums, which a worker can compute from any batch."""

    @property
    def name(self) -> str:
        """Its name in the table; two statistics of the same name are the same."""

    @property
    def cells(self) -> int:
        """Cells per slice (and unit)."""

    @property
    def by_unit(self) -> bool:
        """Whether its sums are kept by unit, for intervals and paired comparisons."""

    def entries(self, view: View) -> Entries:
        """What the batch adds."""


@dataclass
class View:
    """A scored batch as the statistics see it; what several of them need is computed once."""

    scored: batch.Scored
    _memo: Memo = field(default_factory=Memo)

    def pairs(self, target: Target) -> tuple[np.ndarray, np.ndarray]:
        """The target's labels and predictions, float64, both [N] or both [N, J]."""
        return self._memo.once(target.unweighted, lambda: self._pairs(target))

    def buckets(self, target: Target, left: float, right: float) -> np.ndarray:
        """TFMA's bucket of each score, int64: 0 below `left`, 10,001 from `right` on."""

        def compute() -> np.ndarray:
            _, predictions = self.pairs(target)
            position = (predictions - left) / (right - left) * HISTOGRAM_BUCKETS + 1
            return np.clip(np.floor(position), 0, HISTOGRAM_BUCKETS + 1).astype(np.int64)

        return self._memo.once((target.unweighted, left, right), compute)

    def raw(self, target: Target) -> tuple[np.ndarray, np.ndarray]:
        """Labels as they are ([N] or [N, K]) and all predictions, float64."""
        predictions = self.scored.predictions[target.model, target.output]
        return self.scored.labels[target.output], predictions.astype(np.float64, copy=False)

    def classes(self, target: Target) -> tuple[np.ndarray, np.ndarray]:
        """The actual and the predicted class (the first of the largest scores), int64[N]."""

        def compute() -> tuple[np.ndarray, np.ndarray]:
            labels, predictions = self.raw(target)
            actual = labels.argmax(axis=1) if labels.ndim > 1 else labels.astype(np.int64)
            return actual, predictions.argmax(axis=1)

        return self._memo.once((target.model, target.output), compute)

    def weights(self, target: Target) -> np.ndarray | None:
        """float64[N], or [N, J] with class weights; None where every example counts as one."""
        weights = self.scored.weights if target.weighted else None
        if not target.class_weights:
            return weights
        of_class = np.zeros(target.classes or 0)
        for class_id, weight in target.class_weights:
            of_class[class_id] = weight
        if target.truncate and target.top_k is not None:
            of_class = of_class[_largest(self.raw(target)[1], target.top_k)]
        return of_class * (np.ones(len(self.scored)) if weights is None else weights)[:, None]

    def _pairs(self, target: Target) -> tuple[np.ndarray, np.ndarray]:
        labels, predictions = self.raw(target)
        if predictions.ndim == 1:
            return labels, predictions
        if target.class_id is not None and target.top_k is None:
            of_class = labels == target.class_id if labels.ndim == 1 else labels[:, target.class_id]
            return of_class.astype(np.float64), predictions[:, target.class_id]
        if labels.ndim == 1:  # a class index; -1 is no class at all
            labels = (labels[:, None] == np.arange(predictions.shape[1])).astype(np.float64)
        if target.k is not None:
            kth = _largest(predictions, target.k)[:, -1]
            rows = np.arange(len(predictions))
            return labels[rows, kth], predictions[rows, kth]
        if target.top_k is not None:
            top = _largest(predictions, target.top_k)
            if target.truncate:
                return _pick(labels, top), _pick(predictions, top)
            others_infinite = np.full(predictions.shape, -np.inf)
            np.put_along_axis(others_infinite, top, _pick(predictions, top), 1)
            predictions = others_infinite
            if target.class_id is not None:
                return labels[:, target.class_id], predictions[:, target.class_id]
        return labels, predictions


def _largest(predictions: np.ndarray, k: int) -> np.ndarray:
    """The classes of each row's k largest scores, int64[N, k], descending; first of equal ones."""
    return np.argsort(-predictions, axis=1, kind="stable")[:, :k]


def _pick(values: np.ndarray, classes: np.ndarray) -> np.ndarray:
    return np.take_along_axis(values, classes, axis=1)


def _times(values: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Values [N] or [N, J] times weights [N] or [N, J]; at weight 0 not even inf counts."""
    if weights is None:
        return values
    weights = weights[:, None] if weights.ndim < values.ndim else weights
    shape = np.broadcast_shapes(values.shape, weights.shape)
    return np.multiply(values, weights, out=np.zeros(shape), where=weights != 0)


def _spread(weights: np.ndarray | None, cells: np.ndarray) -> np.ndarray | None:
    """Each example's weight for all of its cells."""
    return None if weights is None else np.broadcast_to(weights[:, None], cells.shape)


def _by_label(bins: np.ndarray, labels: np.ndarray, weights: np.ndarray | None) -> Entries:
    """Cells 2 * bin + (1 if positive); a fractional label adds to both, in proportion."""
    positive = labels == 1.0
    if (positive | (labels == 0.0)).all():
        cells = 2 * bins + positive
        return Entries(cells, None if weights is None else _times(np.ones(bins.shape), weights))
    values = np.stack([_times(1.0 - labels, weights), _times(labels, weights)], axis=-1)
    cells = 2 * bins[..., None] + np.arange(2)
    return Entries(cells.reshape(len(bins), -1), values.reshape(len(bins), -1))


@dataclass(frozen=True)
class Examples:
    """Cell 0: the number of examples; cell 1, with weights: the sum of their weights."""

    weighted: bool
    by_unit: bool = field(default=True, init=False)
    name: str = field(default="examples", init=False)

    @property
    def weight_cell(self) -> int:
        """The cell of the sum of the weights, which without weights is the number of examples.

        An unweighted metric reads it in a weighted run too, where there are two cells.
        """
        return 1 if self.weighted else 0

    @property
    def cells(self) -> int:  # noqa: D102
        return 2 if self.weighted else 1

    def entries(self, view: View) -> Entries:  # noqa: D102
        size = len(view.scored)
        if view.scored.weights is None or not self.weighted:
            return Entries(np.zeros(size, np.int64))
        cells = np.broadcast_to(np.arange(2), (size, 2))
        return Entries(cells, np.stack([np.ones(size), view.scored.weights], axis=1))


@dataclass(frozen=True)
class Confusion:
    """Exact confusion counts at thresholds: cell 2 * i + positive, i thresholds below the score.

    A score above a threshold (strictly) is a predicted positive there. `thresholds` ascend.

    At one threshold, the cells are true negatives, false negatives, false and true positives:

    >>> scored = batch.Scored(
    ...     batch=...,
    ...     labels={"": np.array([0.0, 1.0, 0.0, 1.0])},
    ...     weights=None,
    ...     hashes=...,
    ...     predictions={("v1", ""): np.array([0.1, 0.2, 0.8, 0.9])},
    ...     predict_seconds={},
    ... )
    >>> Confusion(Target("v1", "", "binary"), (0.5,)).entries(View(scored)).cells
    array([0, 1, 2, 3])
    """

    target: Target
    thresholds: tuple[float, ...]
    by_unit: bool = field(default=True, init=False)

    @property
    def name(self) -> str:  # noqa: D102
        return f"confusion at {','.join(map(repr, self.thresholds))} of {self.target}"

    @property
    def cells(self) -> int:  # noqa: D102
        return 2 * (len(self.thresholds) + 1)

    def entries(self, view: View) -> Entries:  # noqa: D102
        labels, predictions = view.pairs(self.target)
        if len(self.thresholds) == 1:
            bins = (predictions > self.thresholds[0]).astype(np.int64)
        else:
            bins = np.searchsorted(np.asarray(self.thresholds), predictions, side="left")
        return _by_label(bins, labels, view.weights(self.target))


@dataclass(frozen=True)
class Histogram:
    """TFMA's histogram of scores in [left, right): cell 2 * bucket + positive.

    Of the 10,002 buckets the first is for scores below `left`, the last for those from `right` on:

    >>> histogram = Histogram(Target("v1", "", "binary"))
    >>> histogram.cells
    20004
    >>> scored = batch.Scored(
    ...     batch=...,
    ...     labels={"": np.array([0.0, 1.0, 0.0, 1.0])},
    ...     weights=None,
    ...     hashes=...,
    ...     predictions={("v1", ""): np.array([-0.1, 0.0, 0.00025, 1.0])},
    ...     predict_seconds={},
    ... )
    >>> buckets, positive = np.divmod(histogram.entries(View(scored)).cells, 2)
    >>> buckets, positive
    (array([    0,     1,     3, 10001]), array([0, 1, 0, 1]))
    """

    target: Target
    left: float = 0.0
    right: float = 1.0
    by_unit: bool = field(default=False, init=False)  # 10,002 buckets x units: as large as the data

    @property
    def name(self) -> str:  # noqa: D102
        return f"histogram [{self.left!r}, {self.right!r}) of {self.target}"

    @property
    def cells(self) -> int:  # noqa: D102
        return 2 * (HISTOGRAM_BUCKETS + 2)

    def entries(self, view: View) -> Entries:  # noqa: D102
        labels, _ = view.pairs(self.target)
        bins = view.buckets(self.target, self.left, self.right)
        return _by_label(bins, labels, view.weights(self.target))


@dataclass(frozen=True)
class ClassHistograms:
    """Of K classes, a histogram of each one's scores, apart by the actual class.

    Cell (c * K + actual) * 10,002 + bucket, with the buckets of Histogram.
    """

    target: Target
    by_unit: bool = field(default=False, init=False)  # as a histogram

    @property
    def name(self) -> str:  # noqa: D102
        return f"histograms by class of {self.target}"

    @property
    def cells(self) -> int:  # noqa: D102
        return (self.target.classes or 0) ** 2 * (HISTOGRAM_BUCKETS + 2)

    def entries(self, view: View) -> Entries:  # noqa: D102
        actual, _ = view.classes(self.target)
        buckets = view.buckets(self.target, 0.0, 1.0)
        classes = np.arange(buckets.shape[1])
        pair = classes * buckets.shape[1] + actual[:, None]
        cells = np.where(actual[:, None] < 0, -1, pair * (HISTOGRAM_BUCKETS + 2) + buckets)
        return Entries(cells, _spread(view.weights(self.target), cells))


@dataclass(frozen=True)
class BucketMoment:
    """Per score bucket the weighted sum of one of MOMENTS.

    The buckets are those of TFMA's CalibrationPlot: its 10,000 rebinned to `buckets` by their lower
    edges (`calibration_histogram.rebin`), and one beyond either end.
    """

    target: Target
    moment: str
    buckets: int
    left: float
    right: float
    by_unit: bool = field(default=False, init=False)

    @property
    def name(self) -> str:  # noqa: D102
        return (
            f"{self.moment} in {self.buckets} buckets [{self.left!r}, {self.right!r}) "
            f"of {self.target}"
        )

    @property
    def cells(self) -> int:  # noqa: D102
        return self.buckets + 2

    def entries(self, view: View) -> Entries:  # noqa: D102
        values = _moment(self.moment, *view.pairs(self.target))
        fine = view.buckets(self.target, self.left, self.right)
        return Entries(self.bins()[fine], _times(values, view.weights(self.target)))

    def edges(self) -> np.ndarray:
        """The bounds between the buckets, float64[buckets + 1]."""
        return _edges(self.buckets, self.left, self.right)

    def bins(self) -> np.ndarray:
        """The bucket that each of TFMA's 10,002 falls into, int64[10,002]."""
        return _bins(self.buckets, self.left, self.right)


def _edges(buckets: int, left: float, right: float) -> np.ndarray:
    return left + np.arange(buckets + 1) * (right - left) / buckets


@functools.cache
def _bins(buckets: int, left: float, right: float) -> np.ndarray:
    fine = np.arange(HISTOGRAM_BUCKETS) / HISTOGRAM_BUCKETS * (right - left)
    lower = np.concatenate([[-np.inf], fine + left, [np.inf]])
    bins = np.searchsorted(_edges(buckets, left, right), lower, side="right")
    bins.setflags(write=False)
    return bins


# The buckets of errors from one power of two to the next.
_PARTS = 256


@dataclass(frozen=True)
class ErrorHistogram:
    """How many |label - score| there are of each size, in buckets of a constant relative width.

    Cell 0 is for errors of 0, and those below 2^-100. A bucket's width is at most 1/256 of its
    values, so its middle is within 0.2% of each of them.
    """

    target: Target
    by_unit: bool = field(default=False, init=False)  # as many buckets as there are examples
    cells: int = field(default=2 * 100 * _PARTS + 1, init=False)

    @property
    def name(self) -> str:  # noqa: D102
        return f"histogram of errors of {self.target}"

    def entries(self, view: View) -> Entries:  # noqa: D102
        labels, scores = view.pairs(self.target)
        mantissa, exponent = np.frexp(np.abs(labels - scores))
        part = ((mantissa - 0.5) * 2 * _PARTS).astype(np.int64)
        cells = 1 + (exponent.astype(np.int64) + 100) * _PARTS + part
        cells = np.where((mantissa == 0) | (exponent < -100), 0, np.minimum(cells, self.cells - 1))
        return Entries(cells, view.weights(self.target))

    def middles(self, cells: np.ndarray) -> np.ndarray:
        """The middle of the cells' buckets, float64."""
        exponent, part = np.divmod(cells - 1, _PARTS)
        return np.where(
            cells == 0, 0.0, np.ldexp(0.5 + (part + 0.5) / (2 * _PARTS), exponent - 100)
        )


# Spearman's buckets of values from one power of two to the next. Twice that of cells: values on a
# bucket's edge, such as whole numbers of up to 64, are known to be equal.
_RANK_PARTS = 64
# The powers of two that have buckets of their own; the square of all buckets is a 32-bit number.
_RANK_POWERS = range(-80, 80)
# On each side of 0, which is a bucket itself.
_RANK_SIDE = 2 * _RANK_PARTS * len(_RANK_POWERS)
# Within the outermost buckets, which have all values beyond them, too.
_LEAST = np.nextafter(2.0**_RANK_POWERS.start, np.inf)
_MOST = np.nextafter(2.0**_RANK_POWERS.stop, 0.0)


@dataclass(frozen=True)
class RankCells:
    """How many examples have a label in one bucket and a score in another.

    Cell `label's bucket * BUCKETS + score's bucket`. Buckets ascend with the values, from one power
    of two to the next of their distance from `center`, 64 of equal width for each. A value on a
    bucket's lower edge has a bucket of its own.
    """

    BUCKETS: ClassVar[int] = 2 * _RANK_SIDE + 1

    target: Target
    center: float = 0.0
    by_unit: bool = field(default=False, init=False)  # as many cells as there are examples
    cells: int = field(default=BUCKETS**2, init=False)

    @property
    def name(self) -> str:  # noqa: D102
        center = f" from {self.center!r}" if self.center else ""
        return f"ranks{center} of {self.target}"

    def entries(self, view: View) -> Entries:  # noqa: D102
        labels, scores = map(self._bucket, view.pairs(self.target))
        return Entries(labels * self.BUCKETS + scores, view.weights(self.target))

    def _bucket(self, values: np.ndarray) -> np.ndarray:
        distance = values - self.center
        mantissa, exponent = np.frexp(np.clip(np.abs(distance), _LEAST, _MOST))
        position = (2 * mantissa - 1) * _RANK_PARTS
        part = np.floor(position)
        power = exponent.astype(np.int64) - 1 - _RANK_POWERS.start
        steps = 2 * (power * _RANK_PARTS + part.astype(np.int64)) + np.where(position == part, 1, 2)
        signed = np.where(distance == 0, 0, np.where(distance < 0, -steps, steps))
        # Of values whose distance is rounded to the edge, one alone is given back by it.
        beyond = np.sign(values - (distance + self.center)).astype(np.int64)
        return _RANK_SIDE + signed + np.where(position == part, beyond, 0)

    @staticmethod
    def holds_one_value(buckets: np.ndarray) -> np.ndarray:
        """Whether all values in a bucket are equal, bool."""
        steps = np.abs(buckets - _RANK_SIDE)
        return (steps == 0) | (steps % 2 == 1)


def _xlogy(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """x * log(y), with 0 * log(0) = 0."""
    return np.where(x == 0, 0.0, x * np.log(y))


def _cross_entropy(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    return -(_xlogy(labels, scores) + _xlogy(1 - labels, 1 - scores))


def _keras_cross_entropy(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Keras clips the scores, and then keeps the logarithms away from 0 once more."""
    clipped = _clipped(scores)
    positive = labels * np.log(clipped + _KERAS_EPSILON)
    return -(positive + (1 - labels) * np.log(1 - clipped + _KERAS_EPSILON))


def _clipped(scores: np.ndarray) -> np.ndarray:
    return np.clip(scores, _KERAS_EPSILON, 1 - _KERAS_EPSILON)


def _categorical(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """[N]; scores are first normalised to sum to 1. Works on one-hot labels [N, K]."""
    shares = scores / scores.sum(axis=1, keepdims=True)
    return -_xlogy(labels, shares).sum(axis=1)


def _keras_categorical(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    shares = scores / scores.sum(axis=1, keepdims=True)
    return -_xlogy(labels, _clipped(shares)).sum(axis=1)


def _keras_sparse_categorical(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Here Keras clips first, and normalises what it has clipped."""
    clipped = _clipped(scores)
    return -_xlogy(labels, clipped / clipped.sum(axis=1, keepdims=True)).sum(axis=1)


def _log_error(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    return (np.log1p(labels) - np.log1p(scores)) ** 2


def _percentage_error(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """|label - score| / |label|, 0 where the label is 0 (those are not counted either)."""
    return np.where(labels == 0, 0.0, np.abs((labels - scores) / labels))


def _log_loss(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """scikit-learn clips by the smallest step of a double."""
    epsilon = np.finfo(np.float64).eps
    clipped = np.clip(scores, epsilon, 1 - epsilon)
    return -(labels * np.log(clipped) + (1 - labels) * np.log(1 - clipped))


def _categorical_log_loss(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    epsilon = np.finfo(np.float64).eps
    return -(labels * np.log(np.clip(scores, epsilon, 1 - epsilon))).sum(axis=1)


def _hinge(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Labels 0 and 1 stand for -1 and 1, as in Keras."""
    return np.maximum(1 - (2 * labels - 1) * scores, 0)


def _categorical_hinge(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    own = (labels * scores).sum(axis=1)
    other = ((1 - labels) * scores).max(axis=1)
    return np.maximum(other - own + 1, 0)


def _divergence(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Kullback and Leibler's; Keras clips both by its epsilon."""
    labels, scores = np.clip(labels, _KERAS_EPSILON, 1), np.clip(scores, _KERAS_EPSILON, 1)
    return (labels * np.log(labels / scores)).sum(axis=1)


def _cosine(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The cosine of the angle between an example's labels and scores; 0 for a vector of zeros."""
    norms = np.linalg.norm(labels, axis=1) * np.linalg.norm(scores, axis=1)
    return np.divide(
        (labels * scores).sum(axis=1), norms, out=np.zeros(norms.shape), where=norms > 0
    )


# Functions of labels and scores, both [N] or both [N, J], whose weighted sums metrics are made of.
MOMENTS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "count": lambda labels, scores: np.ones(scores.shape),
    "label": lambda labels, scores: labels,
    "score": lambda labels, scores: scores,
    "label^2": lambda labels, scores: labels**2,
    "score^2": lambda labels, scores: scores**2,
    "label*score": lambda labels, scores: labels * scores,
    "absolute error": lambda labels, scores: np.abs(labels - scores),
    "squared error": lambda labels, scores: (labels - scores) ** 2,
    "squared log error": _log_error,
    "percentage error": _percentage_error,
    "nonzero label": lambda labels, scores: (labels != 0).astype(np.float64),
    "cross entropy": _cross_entropy,
    "clipped cross entropy": _keras_cross_entropy,
    "categorical cross entropy": _categorical,
    "clipped categorical cross entropy": _keras_categorical,
    "clipped sparse categorical cross entropy": _keras_sparse_categorical,
    "log loss": _log_loss,
    "categorical log loss": _categorical_log_loss,
    "squared distance": lambda labels, scores: ((labels - scores) ** 2).sum(axis=1),
    "hinge": _hinge,
    "squared hinge": lambda labels, scores: _hinge(labels, scores) ** 2,
    "categorical hinge": _categorical_hinge,
    "divergence": _divergence,
    "cosine": _cosine,
    "log cosh": lambda labels, scores: np.logaddexp(scores - labels, labels - scores) - np.log(2),
    "poisson": lambda labels, scores: scores - labels * np.log(scores + _KERAS_EPSILON),
}


# Those that do not depend on scores.
_MOMENTS_OF_LABELS = ("count", "label", "label^2", "nonzero label")


def _moment(name: str, labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """One of MOMENTS; of infinite scores and of logarithms of 0 it may be infinite or NaN."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return MOMENTS[name](labels, scores)


@dataclass(frozen=True)
class Moment:
    """The weighted sum of one of MOMENTS over the target's (label, score) pairs."""

    target: Target
    moment: str
    by_unit: bool = field(default=True, init=False)
    cells: int = field(default=1, init=False)

    @property
    def name(self) -> str:  # noqa: D102
        return f"{self.moment} of {self.target}"

    def entries(self, view: View) -> Entries:  # noqa: D102
        labels, predictions = view.pairs(self.target)
        values = _moment(self.moment, labels, predictions)
        values = _times(values, view.weights(self.target))
        if values.ndim > 1:  # all pairs of an example fall into the single cell
            values = values.sum(axis=1)
        return Entries(np.zeros(len(values), np.int64), values)


@dataclass(frozen=True)
class ClassMatrix:
    """Counts of (actual, predicted) classes: cell actual * (K + 1) + predicted.

    The predicted class is the one of the largest score; K stands for none, where that score is
    not above `threshold`. An actual class of -1 (none) is not counted.
    """

    target: Target
    threshold: float | None = None
    by_unit: bool = field(default=False, init=False)  # K^2 cells; intervals need ClassCounts only

    @property
    def name(self) -> str:  # noqa: D102
        at = "" if self.threshold is None else f" at {self.threshold!r}"
        return f"class matrix{at} of {self.target}"

    @property
    def cells(self) -> int:  # noqa: D102
        classes = self.target.classes or 0
        return classes * (classes + 1)

    def entries(self, view: View) -> Entries:  # noqa: D102
        actual, predicted = view.classes(self.target)
        classes = self.target.classes or 0
        if self.threshold is not None:
            top = view.raw(self.target)[1].max(axis=1)
            predicted = np.where(top > self.threshold, predicted, classes)
        cells = np.where(actual < 0, -1, actual * (classes + 1) + predicted)
        weights = view.weights(self.target)
        return Entries(cells, weights)


@dataclass(frozen=True)
class ClassCounts:
    """For each class of K: how often it was both (cell 3c), predicted (+1), and actual (+2)."""

    target: Target
    by_unit: bool = field(default=True, init=False)

    @property
    def name(self) -> str:  # noqa: D102
        return f"class counts of {self.target}"

    @property
    def cells(self) -> int:  # noqa: D102
        return 3 * (self.target.classes or 0)

    def entries(self, view: View) -> Entries:  # noqa: D102
        actual, predicted = view.classes(self.target)
        both = np.where(actual == predicted, 3 * actual, -1)
        truly = np.where(actual < 0, -1, 3 * actual + 2)
        cells = np.stack([both, 3 * predicted + 1, truly], axis=1)
        weights = view.weights(self.target)
        return Entries(cells, _spread(weights, cells))


@dataclass(frozen=True)
class TopClasses:
    """Cell 0: how often fewer than `k` classes have a larger score than the actual class."""

    target: Target
    k: int
    by_unit: bool = field(default=True, init=False)
    cells: int = field(default=1, init=False)

    @property
    def name(self) -> str:  # noqa: D102
        return f"top {self.k} classes of {self.target}"

    def entries(self, view: View) -> Entries:  # noqa: D102
        actual, _ = view.classes(self.target)
        _, predictions = view.raw(self.target)
        own = np.take_along_axis(predictions, np.maximum(actual, 0)[:, None], axis=1)
        among = ((predictions > own).sum(axis=1) < self.k) & (actual >= 0)
        return Entries(np.where(among, 0, -1), view.weights(self.target))


def is_by_rank(statistic: Statistic) -> bool:
    """Whether a multi-class statistic depends only on which of a row's scores is the largest."""
    if isinstance(statistic, ClassMatrix):
        return statistic.threshold is None
    if isinstance(statistic, Moment):
        return statistic.moment in _MOMENTS_OF_LABELS
    return isinstance(statistic, Examples | ClassCounts | Flips | Decisions | TopClasses)


def is_by_decision(statistic: Statistic) -> bool:
    """Whether a statistic says the same of decisions, as scores of 0 and 1, as of any scores."""
    if isinstance(statistic, Confusion):
        target, thresholds = statistic.target, statistic.thresholds
        return target.k is None and target.top_k is None and all(0 <= at < 1 for at in thresholds)
    if isinstance(statistic, ClassMatrix | LabelMatrix):
        return statistic.threshold is None or 0 <= statistic.threshold < 1
    if isinstance(statistic, TopClasses):
        return statistic.k == 1
    return is_by_rank(statistic)


@dataclass(frozen=True)
class LabelMatrix:
    """For labels (a, b), a true, TP, FP, TN, FN of b: cell 4 * (a * K + b) + kind."""

    target: Target
    threshold: float
    by_unit: bool = field(default=False, init=False)

    @property
    def name(self) -> str:  # noqa: D102
        return f"label matrix at {self.threshold!r} of {self.target}"

    @property
    def cells(self) -> int:  # noqa: D102
        return 4 * (self.target.classes or 0) ** 2

    def entries(self, view: View) -> Entries:  # noqa: D102
        labels, predictions = view.pairs(self.target)
        true, positive = labels != 0, predictions > self.threshold
        kind = np.where(positive, np.where(true, 0, 1), np.where(true, 3, 2))
        classes = labels.shape[1]
        # Each example's true labels, side by side: mostly one or few of many.
        rows, a = true.nonzero()
        several = true.sum(axis=1)
        place = np.arange(len(rows)) - np.repeat(np.cumsum(several) - several, several)
        cells = np.full((len(labels), several.max(initial=0), classes), -1)
        cells[rows, place] = 4 * (a[:, None] * classes + np.arange(classes)) + kind[rows]
        cells = cells.reshape(len(labels), -1)
        weights = view.weights(self.target)
        return Entries(cells, _spread(weights, cells))


@dataclass(frozen=True)
class Flips:
    """Joint decisions of two versions on the same examples, in 8 cells.

    Binary: 4 * label + 2 * (baseline above the threshold) + (candidate above it).
    Multi-class: 4 * (the same class) + 2 * (baseline right) + (candidate right).
    """

    baseline: Target
    candidate: Target
    threshold: float = 0.5
    by_unit: bool = field(default=True, init=False)
    cells: int = field(default=8, init=False)

    @property
    def name(self) -> str:  # noqa: D102
        return f"flips at {self.threshold!r} of {self.baseline} to {self.candidate}"

    def entries(self, view: View) -> Entries:  # noqa: D102
        weights = view.weights(self.candidate)
        if self.candidate.task == "multiclass":
            actual, before = view.classes(self.baseline)
            _, after = view.classes(self.candidate)
            cells = 4 * (before == after) + 2 * (before == actual) + (after == actual)
            return Entries(cells.astype(np.int64), weights)
        labels, before = view.pairs(self.baseline)
        _, after = view.pairs(self.candidate)
        decisions = 2 * (before > self.threshold) + (after > self.threshold)
        if self.candidate.task == "regression":  # no classes: all in the cells of label 0
            labels = np.zeros(labels.shape)
        entries = _by_label(np.zeros(labels.shape, np.int64), labels, weights)
        label_bit = entries.cells  # 0 or 1
        if label_bit.shape != decisions.shape:
            decisions = np.repeat(decisions.reshape(len(labels), -1), 2, axis=1)
        return Entries(4 * label_bit + decisions, entries.values)


@dataclass(frozen=True)
class Decisions:
    """Joint decisions of two versions on the same examples, whatever the label; not weighted.

    Multi-class: cell K * (the original's class) + the other's, each the largest score's. Binary,
    and for each class of a multi-label output: cell 4 * class + 2 * (the original above the
    threshold) + (the other above it).
    """

    original: Target
    converted: Target
    threshold: float = 0.5
    by_unit: bool = field(default=True, init=False)

    @property
    def name(self) -> str:  # noqa: D102
        return f"decisions at {self.threshold!r} of {self.original} and {self.converted}"

    @property
    def cells(self) -> int:  # noqa: D102
        classes = self.original.classes or 1
        return classes * (classes if self.original.task == "multiclass" else 4)

    def entries(self, view: View) -> Entries:  # noqa: D102
        if self.original.task == "multiclass":
            _, before = view.classes(self.original)
            _, after = view.classes(self.converted)
            return Entries(before * (self.original.classes or 0) + after, None)
        _, before = view.pairs(self.original)
        _, after = view.pairs(self.converted)
        decisions = 2 * (before > self.threshold) + (after > self.threshold)
        if decisions.ndim > 1:
            decisions = decisions + 4 * np.arange(decisions.shape[1])
        return Entries(decisions, None)

    def joint(self, cells: np.ndarray) -> np.ndarray:
        """The cells of slices, float64[slices, cells], as [slices, problems, before, after].

        A multi-label output is a problem for each class; all others are one.
        """
        choices = (self.original.classes or 0) if self.original.task == "multiclass" else 2
        return cells.reshape(len(cells), self.cells // choices**2, choices, choices)


@dataclass(frozen=True)
class ScoreDifferences:
    """How many examples' scores differ how much: cell i, up to DIFFERENCES[i]; not weighted."""

    original: Target
    converted: Target
    by_unit: bool = field(default=False, init=False)
    cells: int = field(default=len(DIFFERENCES) + 1, init=False)

    @property
    def name(self) -> str:  # noqa: D102
        return f"score differences of {self.original} and {self.converted}"

    def entries(self, view: View) -> Entries:  # noqa: D102
        before, after = self.original, self.converted
        differences = view.scored.score_differences(before.model, after.model, before.output)
        return Entries(np.searchsorted(np.asarray(DIFFERENCES), differences, side="left"), None)
