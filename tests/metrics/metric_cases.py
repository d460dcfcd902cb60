"""What the metric tests share: data, one case or more for every metric, their plain definitions.

An oracle gets the rows of one slice and returns what the metric must be there, computed by
scikit-learn, SciPy or a few lines of NumPy straight from the definition; nothing in here imports
the code under test except the types that it is fed with.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import sklearn.metrics
from scipy import integrate, stats

from evalbeam.transforms import batch
from evalbeam.transforms.examples import labels, slices
from evalbeam.transforms.metrics import adding, metric, plan, table
from evalbeam.transforms.metrics.evaluation import Bounds, Evaluation, MetricSpec, Pair
from evalbeam.transforms.metrics.statistics import Statistic

MODELS = ("base", "cand")
NAN = float("nan")


@dataclass(frozen=True)
class Data:
    task: str
    classes: int | None
    columns: pa.RecordBatch
    labels: np.ndarray
    weights: np.ndarray | None
    predictions: dict[str, np.ndarray]
    hashes: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def scored(self, rows: np.ndarray | None = None, split: str = "eval") -> batch.Scored:
        rows = np.arange(len(self)) if rows is None else np.asarray(rows, np.int64)
        examples = batch.Batch(
            batch.Shard(split, "data", "memory"),
            rows,
            self.columns.take(pa.array(rows, pa.int64())),
        )
        return batch.Scored(
            examples,
            {"": self.labels[rows]},
            None if self.weights is None else self.weights[rows],
            self.hashes[rows],
            {(model, ""): scores[rows] for model, scores in self.predictions.items()},
            dict.fromkeys(self.predictions, 0.0),
        )


@dataclass(frozen=True)
class Rows:
    """The examples of one slice, as an oracle sees them."""

    y: np.ndarray
    p: np.ndarray
    base: np.ndarray
    w: np.ndarray
    classes: int | None


SPECS: tuple[slices.Spec, ...] = (
    (),
    (slices.Term("country"),),
    (slices.Term("device"),),
    (slices.Term("country"), slices.Term("device")),
    (slices.Term("age", edges=(30.0, 50.0)),),
)


def _columns(rng: np.random.Generator, size: int) -> tuple[pa.RecordBatch, np.ndarray]:
    devices = np.array(["phone", "tablet", "negatives", "positives", "low", None], object)
    device = devices[rng.choice(6, size, p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.1])]
    names = ["at", "be", "ch"]
    country = [
        None if draw == 0 else [names[i] for i in rng.integers(0, 3, draw - 1)]
        for draw in rng.integers(0, 4, size)
    ]
    age = rng.integers(18, 80, size)
    columns = pa.RecordBatch.from_arrays(
        [
            pa.array(country, pa.list_(pa.string())),
            pa.array(device, pa.string()),
            pa.array(age, pa.int64()),
        ],
        ["country", "device", "age"],
    )
    return columns, device


def binary(
    seed: int = 1, size: int = 220, fractional: bool = False, weighted: bool = True, inner=False
) -> Data:
    """Ties, scores on bucket edges and thresholds, slices without positives, negatives, alarms."""
    rng = np.random.default_rng(seed)
    columns, device = _columns(rng, size)
    y = (rng.random(size) < 0.4).astype(float)
    if fractional:
        y = np.where(rng.random(size) < 0.5, y, rng.integers(0, 9, size) / 8)
    y[device == "negatives"] = 0
    y[device == "positives"] = 1

    def scores(dtype: type) -> np.ndarray:
        p = np.clip(0.35 * y + rng.random(size) * 0.65, 0, 1)
        special = rng.random(size)
        p = np.where(special < 0.25, np.round(p, 4), p)  # on a bucket's edge
        p = np.where((special >= 0.25) & (special < 0.45), np.round(p * 8) / 8, p)  # ties
        if inner:
            p = 0.01 + 0.98 * p
        return np.where(device == "low", p / 5, p).astype(dtype)

    weights = rng.uniform(0.1, 3, size)
    weights[rng.random(size) < 0.05] = 0.0
    return Data(
        "binary",
        None,
        columns,
        y,
        weights if weighted else None,
        {"base": scores(np.float32), "cand": scores(np.float64)},
        rng.integers(0, 2**63, size).astype(np.uint64),
    )


def multiclass(seed: int = 2, size: int = 200, weighted: bool = True) -> Data:
    """Four classes, the last of them never predicted; ties on the largest score."""
    rng = np.random.default_rng(seed)
    columns, device = _columns(rng, size)
    y = rng.choice(4, size, p=[0.4, 0.3, 0.2, 0.1]).astype(float)
    y[device == "positives"] = 1

    def scores(dtype: type) -> np.ndarray:
        raw = rng.integers(1, 9, (size, 4)).astype(float)
        raw[np.arange(size), y.astype(int)] += rng.integers(0, 5, size)
        raw[:, 3] = 0.5
        return (raw / raw.sum(axis=1, keepdims=True)).astype(dtype)

    return Data(
        "multiclass",
        4,
        columns,
        y,
        rng.uniform(0.1, 3, size) if weighted else None,
        {"base": scores(np.float32), "cand": scores(np.float64)},
        rng.integers(0, 2**63, size).astype(np.uint64),
    )


def multilabel(seed: int = 3, size: int = 160) -> Data:
    rng = np.random.default_rng(seed)
    columns, _ = _columns(rng, size)
    y = (rng.random((size, 3)) < [0.5, 0.3, 0.1]).astype(float)

    def scores(dtype: type) -> np.ndarray:
        p = 0.3 * y + 0.7 * rng.random((size, 3))
        p = np.where(rng.random(p.shape) < 0.3, np.round(p * 8) / 8, p)
        return np.clip(p, 0.01, 0.99).astype(dtype)

    return Data(
        "multilabel",
        3,
        columns,
        y,
        rng.uniform(0.1, 3, size),
        {"base": scores(np.float32), "cand": scores(np.float64)},
        rng.integers(0, 2**63, size).astype(np.uint64),
    )


def regression(seed: int = 4, size: int = 200) -> Data:
    rng = np.random.default_rng(seed)
    columns, _ = _columns(rng, size)
    y = np.round(rng.gamma(2.0, 3.0, size), 2)
    y[rng.random(size) < 0.1] = 0.0

    def scores(dtype: type) -> np.ndarray:
        return np.abs(y + rng.normal(0, 2, size)).astype(dtype)

    weights = rng.uniform(0.1, 3, size)
    return Data(
        "regression",
        None,
        columns,
        y,
        weights,
        {"base": scores(np.float32), "cand": scores(np.float64)},
        rng.integers(0, 2**63, size).astype(np.uint64),
    )


DATA: dict[str, Data] = {
    "binary": binary(),
    "unweighted": binary(seed=5, weighted=False),
    "fractional": binary(seed=6, fractional=True),
    "inner": binary(seed=7, inner=True),
    "multiclass": multiclass(),
    "multiclass unweighted": multiclass(seed=8, weighted=False),
    "multilabel": multilabel(),
    "regression": regression(),
}


# --- which examples are in which slice, in plain Python -----------------------------------------


def values_of(cell: Any) -> list[Any]:
    """A row's distinct slice values, None and NaN being missing."""
    cells = cell if isinstance(cell, list | tuple | np.ndarray) else [cell]
    distinct: list[Any] = []
    for value in cells:
        if value is None or (isinstance(value, float) and math.isnan(value)):
            continue
        value = value.decode() if isinstance(value, bytes) else value
        value = int(value) if isinstance(value, bool) else value
        if value not in distinct:
            distinct.append(value)
    return distinct


def reference_slices(row: dict[str, Any], specs: Sequence[slices.Spec]) -> set[tuple]:
    """TFMA's get_slices_for_features_dicts for one example, plus our bins."""
    keys: set[tuple] = set()
    for spec in specs:
        partial: list[tuple] = [()]
        for term in spec:
            values = values_of(row.get(term.column))
            if term.edges:
                bins = term.bins()
                values = [bins[sum(value >= edge for edge in term.edges)] for value in values]
            if term.value is not None:
                values = [value for value in values if str(value) == str(term.value)]
            partial = [(*key, (term.column, v)) for key in partial for v in dict.fromkeys(values)]
        keys |= {tuple(sorted(key, key=lambda pair: pair[0])) for key in partial}
    return keys


def rows_by_slice(data: Data, specs: Sequence[slices.Spec] = SPECS) -> dict[tuple, np.ndarray]:
    rows: dict[tuple, list[int]] = {}
    for i, row in enumerate(data.columns.to_pylist()):
        for key in reference_slices(row, specs):
            rows.setdefault(key, []).append(i)
    return {key: np.array(index) for key, index in rows.items()}


def rows_of(data: Data, index: np.ndarray, model: str, weighted: bool) -> Rows:
    weights = data.weights if weighted and data.weights is not None else np.ones(len(data))
    return Rows(
        data.labels[index],
        data.predictions[model][index].astype(float),
        data.predictions["base"][index].astype(float),
        weights[index],
        data.classes,
    )


# --- running the code under test -----------------------------------------------------------------


def planned(
    data: Data, specs: Sequence[MetricSpec], conversions: Sequence[tuple[str, str]] = ()
) -> plan.Plan:
    return plan.plan(evaluation(data, specs, conversions))


def evaluation(
    data: Data, specs: Sequence[MetricSpec], conversions: Sequence[tuple[str, str]] = ()
) -> Evaluation:
    head = labels.Head("", "label", data.task, data.classes)  # type: ignore[arg-type]
    return Evaluation(
        models=MODELS,
        heads=(head,),
        metrics=tuple(specs),
        baseline="base",
        pairs=tuple(Pair(*pair, Bounds()) for pair in conversions),
        slices=SPECS,
        weight=None if data.weights is None else "weight",
    )


def added(
    data: Data,
    statistics: Sequence[Statistic],
    batches: Sequence[np.ndarray] | None = None,
    units: int = 1,
    specs: Sequence[slices.Spec] = SPECS,
) -> table.Table:
    adder = adding.Adder(specs, statistics, units)
    for rows in [np.arange(len(data))] if batches is None else batches:
        adder.add(data.scored(rows))
    return adder.table()


def dense(name: str, *tables: table.Table, by_unit: bool = False) -> list[np.ndarray]:
    """The tables' sums of a statistic, [slices, cells], or [slices, units, cells].

    Of the cells that any of the tables has: there may be too many for an array of all.
    """
    owners = [np.divmod(each.sums[name].keys, each.layouts[name].cells) for each in tables]
    cells = np.unique(np.concatenate([cell for _, cell in owners]))
    arrays = []
    for each, (place, cell) in zip(tables, owners, strict=True):
        units = each.layouts[name].units
        sums = np.zeros((len(each.slices) * units, len(cells)))
        sums[place, np.searchsorted(cells, cell)] = each.sums[name].values
        by_slice = sums.reshape(len(each.slices), units, len(cells))
        arrays.append(by_slice if by_unit else by_slice.sum(axis=1))
    return arrays


def numbers(result: metric.Result) -> np.ndarray:
    """A result as one float64[slices, ...]."""
    if isinstance(result, metric.Values):
        return result.values
    if isinstance(result, metric.Confusions):
        return np.stack([result.tp, result.tn, result.fp, result.fn], axis=1)
    if isinstance(result, metric.Buckets):
        return np.stack([result.scores, result.labels, result.weights], axis=1)
    return np.stack(result.counts, axis=1)


# --- definitions ---------------------------------------------------------------------------------


def div(a: float, b: float) -> float:
    return a / b if b > 0 else NAN


def counts(y: np.ndarray, p: np.ndarray, w: np.ndarray, t: float) -> tuple[float, ...]:
    """TP, TN, FP, FN; each label is split into a positive and a negative part."""
    up = p > t
    return (
        float((w * y)[up].sum()),
        float((w * (1 - y))[~up].sum()),
        float((w * (1 - y))[up].sum()),
        float((w * y)[~up].sum()),
    )


def _mcc(tp: float, tn: float, fp: float, fn: float) -> float:
    margins = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return div(tp * tn - fp * fn, math.sqrt(margins))


def _prevalence_threshold(tp: float, tn: float, fp: float, fn: float) -> float:
    tpr, fpr = div(tp, tp + fn), div(fp, fp + tn)
    # The usual form (sqrt(tpr * fpr) - fpr) / (tpr - fpr); without a difference it is 0/0.
    return (math.sqrt(tpr * fpr) - fpr) / (tpr - fpr) if tpr != fpr else NAN


DEFINITIONS: dict[str, Callable[[float, float, float, float], float]] = {
    "TruePositives": lambda tp, tn, fp, fn: tp,
    "TrueNegatives": lambda tp, tn, fp, fn: tn,
    "FalsePositives": lambda tp, tn, fp, fn: fp,
    "FalseNegatives": lambda tp, tn, fp, fn: fn,
    "BinaryAccuracy": lambda tp, tn, fp, fn: div(tp + tn, tp + tn + fp + fn),
    "Precision": lambda tp, tn, fp, fn: div(tp, tp + fp),
    "Recall": lambda tp, tn, fp, fn: div(tp, tp + fn),
    "MaxRecall": lambda tp, tn, fp, fn: div(tp, tp + fn),
    "Specificity": lambda tp, tn, fp, fn: div(tn, tn + fp),
    "FallOut": lambda tp, tn, fp, fn: div(fp, tn + fp),
    "MissRate": lambda tp, tn, fp, fn: div(fn, tp + fn),
    "NegativePredictiveValue": lambda tp, tn, fp, fn: div(tn, tn + fn),
    "FalseDiscoveryRate": lambda tp, tn, fp, fn: div(fp, tp + fp),
    "FalseOmissionRate": lambda tp, tn, fp, fn: div(fn, tn + fn),
    "Prevalence": lambda tp, tn, fp, fn: div(tp + fn, tp + tn + fp + fn),
    "PredictedPositiveRate": lambda tp, tn, fp, fn: div(tp + fp, tp + tn + fp + fn),
    "PrevalenceThreshold": _prevalence_threshold,
    "ThreatScore": lambda tp, tn, fp, fn: div(tp, tp + fn + fp),
    "BalancedAccuracy": lambda tp, tn, fp, fn: (div(tp, tp + fn) + div(tn, tn + fp)) / 2,
    "F1Score": lambda tp, tn, fp, fn: div(tp, tp + (fp + fn) / 2),
    "MatthewsCorrelationCoefficient": _mcc,
    "FowlkesMallowsIndex": lambda tp, tn, fp, fn: math.sqrt(div(tp, tp + fp) * div(tp, tp + fn)),
    "Informedness": lambda tp, tn, fp, fn: div(tp, tp + fn) - div(fp, fp + tn),
    "Markedness": lambda tp, tn, fp, fn: div(tp, tp + fp) - div(fn, fn + tn),
    "PositiveLikelihoodRatio": lambda tp, tn, fp, fn: div(div(tp, tp + fn), div(fp, fp + tn)),
    "NegativeLikelihoodRatio": lambda tp, tn, fp, fn: div(div(fn, tp + fn), div(tn, fp + tn)),
    "DiagnosticOddsRatio": lambda tp, tn, fp, fn: div(tp * tn, fp * fn) if tn else NAN,
}
# What has a definition of its own for all classes at once.
WHOLE = ("BalancedAccuracy", "MatthewsCorrelationCoefficient")
ALIASES = {
    "TP": "TruePositives",
    "TN": "TrueNegatives",
    "FP": "FalsePositives",
    "FN": "FalseNegatives",
    "PPV": "Precision",
    "TPR": "Recall",
    "TNR": "Specificity",
    "FPR": "FallOut",
    "FNR": "MissRate",
    "NPV": "NegativePredictiveValue",
}
DEFINITIONS |= {alias: DEFINITIONS[name] for alias, name in ALIASES.items()}

# Class name -> scikit-learn's function of (y, decision, weight); undefined cases excluded.
SKLEARN: dict[str, Callable[..., float]] = {
    "BinaryAccuracy": sklearn.metrics.accuracy_score,
    "Precision": sklearn.metrics.precision_score,
    "Recall": sklearn.metrics.recall_score,
    "F1Score": sklearn.metrics.f1_score,
    "ThreatScore": sklearn.metrics.jaccard_score,
    "BalancedAccuracy": sklearn.metrics.balanced_accuracy_score,
    "MatthewsCorrelationCoefficient": sklearn.metrics.matthews_corrcoef,
    "Informedness": lambda *a, **k: sklearn.metrics.balanced_accuracy_score(*a, adjusted=True, **k),
}


def pairs(rows: Rows, key: metric.Key, spec: MetricSpec) -> tuple[np.ndarray, ...]:
    """Labels, scores and weights as binary examples, the way TFMA's documentation has it."""
    if rows.p.ndim == 1:
        return rows.y, rows.p, rows.w
    of_class = dict(spec.class_weights)
    out = []
    for y, p, w in zip(rows.y, rows.p, rows.w, strict=True):
        truth = y if rows.y.ndim > 1 else [float(c == y) for c in range(rows.classes or 0)]
        falling = sorted(range(len(p)), key=lambda c: (-p[c], c))
        classes: Sequence[int] = range(len(p))
        scores = list(p)
        if key.class_id is not None:
            classes = [key.class_id]
        elif key.k is not None:
            classes = [falling[key.k - 1]]
        elif key.top_k is not None and key.aggregation:
            classes = falling[: key.top_k]
        if key.top_k is not None and not key.aggregation:
            scores = [s if c in falling[: key.top_k] else -math.inf for c, s in enumerate(p)]
        for c in classes:
            weight = w * of_class.get(c, 0.0) if of_class and key.aggregation else w
            out.append((truth[c], scores[c], weight))
    y, p, w = np.array(out).T
    return y, p, w


Oracle = Callable[[Rows, metric.Key, MetricSpec], Any]


def decided(rows: Rows, key: metric.Key, spec: MetricSpec) -> Any:
    """A metric of the confusion matrix at one threshold or several."""
    y, p, w = pairs(rows, key, spec)
    of = DEFINITIONS[spec.class_name]
    given = spec.arguments.get("thresholds", spec.arguments.get("threshold"))
    default = 1e-12 if spec.class_name == "MaxRecall" else 0.5
    if given is None:
        return of(*counts(y, p, w, -math.inf if key.top_k else default))
    values = [of(*counts(y, p, w, t)) for t in given]
    return values[0] if len(values) == 1 else np.array(values)


def at_thresholds(rows: Rows, key: metric.Key, spec: MetricSpec) -> Any:
    y, p, w = pairs(rows, key, spec)
    return np.array([counts(y, p, w, t) for t in spec.arguments["thresholds"]]).T


def by_class(rows: Rows, key: metric.Key, spec: MetricSpec) -> Any:
    """Each class against the rest, decided by the largest score; or the mean over classes."""
    values = []
    predicted = rows.p.argmax(axis=1)
    for c in range(rows.classes or 0):
        y = (rows.y == c).astype(float)
        up = (predicted == c).astype(float)
        values.append(DEFINITIONS[spec.class_name](*counts(y, up, rows.w, 0.5)))
    if key.class_id is not None:
        return values[key.class_id]
    return np.mean(fill_undefined(np.array(values), spec))


def fill_undefined(values: np.ndarray, spec: MetricSpec) -> np.ndarray:
    """The values of classes that a macro average is over."""
    if spec.zero_division == "skip":
        return values[~np.isnan(values)]
    return np.nan_to_num(values) if spec.zero_division == "0" else values


def of_all_classes(rows: Rows, key: metric.Key, spec: MetricSpec) -> Any:
    """What scikit-learn gives for all classes at once; rows of no class are all zeros."""
    truth = (rows.y[:, None] == np.arange(rows.classes or 0)).astype(float)
    decided = np.eye(rows.classes or 0)[rows.p.argmax(axis=1)]
    if spec.class_name == "BalancedAccuracy":
        known = rows.y >= 0
        if not known.any():
            return NAN
        y, up, w = rows.y[known], rows.p[known].argmax(axis=1), rows.w[known]
        return sklearn.metrics.recall_score(
            y, up, sample_weight=w, average="macro", labels=np.unique(y[w > 0]), zero_division=0
        )
    w = rows.w / rows.w.sum()
    spread = [((each - w @ each) ** 2).T @ w for each in (truth, decided)]
    together = w @ ((truth - w @ truth) * (decided - w @ decided)).sum(axis=1)
    return div(together, math.sqrt(spread[0].sum() * spread[1].sum()))


def averaged(rows: Rows, key: metric.Key, spec: MetricSpec) -> Any:
    if not key.aggregation:
        return decided(rows, key, spec)
    of_class = dict(spec.class_weights) or dict.fromkeys(spec.class_ids, 1.0)
    total = weight = 0.0
    for c, share in of_class.items():
        y = rows.y[:, c] if rows.y.ndim > 1 else (rows.y == c).astype(float)
        value = DEFINITIONS[spec.class_name](*counts(y, rows.p[:, c], rows.w, 0.5))
        if np.isnan(value) and spec.zero_division == "skip":
            continue
        value = 0.0 if np.isnan(value) and spec.zero_division == "0" else value
        if spec.aggregate == "weighted_macro":
            share *= (rows.w * y).sum()
        total += share * value
        weight += share
    return div(total, weight)


def quantiles(rows: Rows, key: metric.Key, spec: MetricSpec) -> Any:
    """The smallest error that enough weight is up to; the mean with the next if just enough."""
    counted = rows.w > 0
    if not counted.any():
        return NAN
    errors, weights = np.abs(rows.y - rows.p)[counted], rows.w[counted]
    order = np.argsort(errors)
    errors, reached = errors[order], np.cumsum(weights[order])
    wanted = float(key.metric.partition("@")[2] or 0.5) * reached[-1]
    place = min(int((reached < wanted * (1 - 1e-12)).sum()), len(errors) - 1)
    after = place + math.isclose(reached[place], wanted, rel_tol=1e-12)
    return errors[[place, min(after, len(errors) - 1)]].mean()


def spearman(rows: Rows, key: metric.Key, spec: MetricSpec) -> Any:
    """The correlation of buckets' ranks, and how far that of the values in them may be from it."""
    counted = rows.w > 0
    center = json.loads(spec.config or "{}").get("center", 0.0)
    share = rows.w[counted] / rows.w.sum()
    y, p = (_find_interval(values[counted] - center) for values in (rows.y, rows.p))
    if len(set(y)) < 2 or len(set(p)) < 2:
        return NAN
    u, v = _rank(y, share), _rank(p, share)
    least = math.sqrt((share * u**2).sum() * (share * v**2).sum())
    covariance = (share * u * v).sum()
    if not key.metric.endswith("_error_bound"):
        return covariance / least
    (a, most_a), (b, most_b) = _order(y, v, share), _order(p, u, share)
    unknown = (share * (a * v + b * u)).sum() + math.sqrt(most_a * most_b)
    most = math.sqrt(((share * u**2).sum() + most_a) * ((share * v**2).sum() + most_b))
    ends = [(covariance + sign * unknown) / root for sign in (-1, 1) for root in (least, most)]
    return np.abs(np.clip(ends, -1, 1) - covariance / least).max()


def _find_interval(values: np.ndarray) -> list[tuple[float, float]]:
    """Least and largest of the values that are not told apart, which may be the value alone."""
    intervals = []
    for value in values.tolist():
        width = 2.0 ** (math.floor(math.log2(abs(value))) - 6) if value else 1.0
        if value % width == 0:
            intervals.append((value, value))
        else:
            intervals.append((math.floor(value / width) * width, math.ceil(value / width) * width))
    return intervals


def _rank(bucket: list[tuple[float, float]], share: np.ndarray) -> np.ndarray:
    """The share below and half of that at the same place, from the middle."""
    below = [share[[other < own for other in bucket]].sum() for own in bucket]
    equal = [share[[other == own for other in bucket]].sum() for own in bucket]
    return np.array(below) + np.array(equal) / 2 - 0.5


def _order(
    bucket: list[tuple[float, float]], other: np.ndarray, share: np.ndarray
) -> tuple[np.ndarray, float]:
    """Ranks within buckets by another rank, from the bucket's, and the most of their variance."""
    offset, variance = np.zeros(len(share)), 0.0
    for interval in {(low, high) for low, high in bucket if low < high}:
        inside = np.array([own == interval for own in bucket])
        total = share[inside].sum()
        variance += total**3 / 12
        offset[inside] = total * _rank(list(other[inside]), share[inside] / total)
    return offset, variance


def bucketed(p: np.ndarray) -> np.ndarray:
    """Scores down to their bucket's lower edge."""
    edge = np.floor(p * 10_000) / 10_000
    return np.where(p < 0, -np.inf, np.where(p >= 1, np.inf, edge))


def all_counts(
    rows: Rows, key: metric.Key, spec: MetricSpec
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """The counts at every threshold of the curve, one comparison of all scores at a time."""
    size = spec.arguments.get("num_thresholds", 10_000)
    return _all_counts(*(array.tobytes() for array in pairs(rows, key, spec)), size)


@functools.lru_cache(maxsize=300)
def _all_counts(
    labels_: bytes, scores: bytes, weights: bytes, size: int
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    y, p, w = (np.frombuffer(array) for array in (labels_, scores, weights))
    thresholds = np.array([-1e-7, *[(i + 1) / (size - 1) for i in range(size - 2)], 1 + 1e-7])
    fence = np.where(thresholds == 0, thresholds, thresholds + 1e-7)
    up = bucketed(p)[None, :] >= fence[:, None]
    up[0] = True
    up[-1] = False  # TFMA sets these two
    share = np.stack([w * y, w * (1 - y)], axis=1)
    above, below = up.astype(float) @ share, (~up).astype(float) @ share
    return thresholds, (above[:, 0], below[:, 1], above[:, 1], below[:, 0])


def quotient(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(b > 0, a / b, np.nan)


def area(rows: Rows, key: metric.Key, spec: MetricSpec) -> float:
    """The area under the curve through the points of all thresholds; NaN for one class only."""
    _, (tp, tn, fp, fn) = all_counts(rows, key, spec)
    which = "PR" if spec.class_name == "AUCPrecisionRecall" else spec.arguments.get("curve", "ROC")
    if tp[0] == 0 or (which == "ROC" and fp[0] == 0):
        return NAN
    method = spec.arguments.get("summation_method", "interpolation")
    recall = quotient(tp, tp + fn)
    if which == "PR" and method == "interpolation":
        return _davis_goadrich(tp, fp)
    x, y = (quotient(fp, fp + tn), recall) if which == "ROC" else (recall, quotient(tp, tp + fp))
    y = np.nan_to_num(y)
    heights = {
        "interpolation": (y[:-1] + y[1:]) / 2,
        "minoring": np.minimum(y[:-1], y[1:]),
        "majoring": np.maximum(y[:-1], y[1:]),
    }[method]
    return float(((x[:-1] - x[1:]) * heights).sum())


def _davis_goadrich(tp: np.ndarray, fp: np.ndarray) -> float:
    """Precision integrated over recall, FP growing in line with TP between two points."""
    total = 0.0
    for i in np.flatnonzero(np.diff(tp) < 0):
        low, high = (tp[i + 1], fp[i + 1]), (tp[i], fp[i])
        slope = (high[1] - low[1]) / (high[0] - low[0])

        def precision(x: float, low=low, slope=slope) -> float:
            return x / (x + low[1] + slope * (x - low[0]))

        if low == (0.0, 0.0):
            total += (high[0]) / (1 + slope)  # constant precision from the origin
        else:
            total += integrate.quad(precision, low[0], high[0], epsabs=1e-13, epsrel=1e-13)[0]
    return total / tp[0]


BOUNDED = {
    "SensitivityAtSpecificity": ("specificity", "specificity", "recall"),
    "SpecificityAtSensitivity": ("sensitivity", "recall", "specificity"),
    "PrecisionAtRecall": ("recall", "recall", "precision"),
    "RecallAtPrecision": ("precision", "precision", "recall"),
    "RecallAtFalsePositiveRate": ("false_positive_rate", "fpr", "recall"),
    "ThresholdAtRecall": ("recall", "recall", "threshold"),
}


def constrained(rows: Rows, key: metric.Key, spec: MetricSpec) -> float:
    """Over all thresholds, the best of one rate where another keeps its bound."""
    thresholds, (tp, tn, fp, fn) = all_counts(rows, key, spec)
    rates = {
        "specificity": quotient(tn, tn + fp),
        "recall": quotient(tp, tp + fn),
        "precision": quotient(tp, tp + fp),
        "fpr": quotient(fp, fp + tn),
        "threshold": thresholds,
    }
    argument, bounded, wanted = BOUNDED[spec.class_name]
    bound, limited, best = spec.arguments[argument], rates[bounded], rates[wanted]
    if np.isnan(limited).all() or np.isnan(best).all():
        return NAN
    with np.errstate(invalid="ignore"):
        fits = limited <= bound if bounded == "fpr" else limited >= bound
    fits &= ~np.isnan(best)
    return float(best[fits].max()) if fits.any() else 0.0


def confusion_plot(rows: Rows, key: metric.Key, spec: MetricSpec) -> np.ndarray:
    y, p, w = pairs(rows, key, spec)
    size = spec.arguments.get("num_thresholds", 1000)
    fences = [-math.inf, 0.0, *[i / size + 1e-7 for i in range(1, size + 1)]]
    low = bucketed(p)
    columns = []
    for fence in fences:
        up = low >= fence
        sums = [(w * y)[up], (w * (1 - y))[~up], (w * (1 - y))[up], (w * y)[~up]]
        columns.append([s.sum() for s in sums])
    return np.array(columns).T


def calibration_plot(rows: Rows, key: metric.Key, spec: MetricSpec) -> np.ndarray:
    y, p, w = pairs(rows, key, spec)
    size = spec.arguments.get("num_buckets", 1000)
    left, right = spec.arguments.get("left", 0.0), spec.arguments.get("right", 1.0)
    fine = np.floor((p - left) / (right - left) * 10_000) / 10_000 * (right - left) + left
    fine = np.where(p < left, -np.inf, np.where(p >= right, np.inf, fine))
    edges = np.array([left + i * (right - left) / size for i in range(size + 1)])
    place = (edges <= fine[:, None]).sum(axis=1)
    out = np.zeros((3, size + 2))
    for i, values in enumerate((p * w, y * w, w)):
        np.add.at(out[i], place, values)
    return out


def mean(of: Callable[..., float]) -> Oracle:
    """A weighted mean by scikit-learn or NumPy: of(y, p, w)."""

    def oracle(rows: Rows, key: metric.Key, spec: MetricSpec) -> float:
        y, p, w = pairs(rows, key, spec)
        return of(y, p, w) if w.sum() > 0 else NAN

    return oracle


def _log_loss(y: np.ndarray, p: np.ndarray, w: np.ndarray) -> float:
    """scikit-learn's, each label split in two so that fractions are fine."""
    return (
        sklearn.metrics.log_loss(
            np.repeat([1, 0], len(y)),
            np.concatenate([p, p]),
            sample_weight=np.concatenate([w * y, w * (1 - y)]),
            labels=[0, 1],
            normalize=False,
        )
        / w.sum()
    )


def _keras_log_loss(y: np.ndarray, p: np.ndarray, w: np.ndarray) -> float:
    q = np.clip(p, 1e-7, 1 - 1e-7)  # tf_keras.backend.binary_crossentropy
    losses = -(y * np.log(q + 1e-7) + (1 - y) * np.log(1 - q + 1e-7))
    return float(np.average(losses, weights=w))


def _percentage(y: np.ndarray, p: np.ndarray, w: np.ndarray) -> float:
    kept = (y != 0) & (w > 0)
    if not kept.any():
        return NAN
    return 100 * sklearn.metrics.mean_absolute_percentage_error(
        y[kept], p[kept], sample_weight=w[kept]
    )


def _squared_pearson(y: np.ndarray, p: np.ndarray, w: np.ndarray) -> float:
    y, p, w = y[w > 0], p[w > 0], w[w > 0]
    if len(y) < 2 or np.ptp(y) == 0 or np.ptp(p) == 0:
        return NAN
    if (w == w[0]).all():
        return float(stats.pearsonr(y, p).statistic ** 2)
    cov = np.cov(y, p, aweights=w)
    return float(cov[0, 1] ** 2 / (cov[0, 0] * cov[1, 1]))


def _tjur(y: np.ndarray, p: np.ndarray, w: np.ndarray) -> tuple[float, float]:
    if (w * y).sum() == 0 or (w * (1 - y)).sum() == 0:
        return NAN, NAN
    return float(np.average(p, weights=w * y)), float(np.average(p, weights=w * (1 - y)))


def _one_hot(rows: Rows) -> np.ndarray:
    return rows.y if rows.y.ndim > 1 else np.eye(rows.classes or 0)[rows.y.astype(int)]


def categorical(rows: Rows, key: metric.Key, spec: MetricSpec) -> float:
    """scikit-learn's log loss over classes."""
    present = rows.p / rows.p.sum(axis=1, keepdims=True)
    losses = -np.log(present[_one_hot(rows) == 1])
    ours = float(np.average(losses, weights=rows.w))
    theirs = sklearn.metrics.log_loss(
        rows.y.astype(int), present, sample_weight=rows.w, labels=range(rows.classes or 0)
    )
    assert ours == theirs or abs(ours - theirs) < 1e-12 * ours
    return theirs


def accuracy(rows: Rows, key: metric.Key, spec: MetricSpec) -> float:
    return sklearn.metrics.accuracy_score(rows.y, rows.p.argmax(axis=1), sample_weight=rows.w)


def by_example(of: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Oracle:
    """The weighted mean over examples of a function of one-hot labels and scores, [N, K]."""
    return lambda rows, key, spec: float(np.average(of(_one_hot(rows), rows.p), weights=rows.w))


def _r2(y: np.ndarray, p: np.ndarray, w: np.ndarray) -> float:
    if np.ptp(y[w > 0]) == 0:
        return NAN
    return sklearn.metrics.r2_score(y, p, sample_weight=w)


def _hinge(y: np.ndarray, p: np.ndarray, w: np.ndarray) -> float:
    return float(np.average(np.maximum(1 - np.where(y == 1, 1, -1) * p, 0), weights=w))


def _calibration_error(bins: int) -> Callable[..., float]:
    def of(y: np.ndarray, p: np.ndarray, w: np.ndarray) -> float:
        total = 0.0
        place = np.floor(p * bins)  # as the bins of score buckets do: 1 is one of its own
        for one in set(place):
            inside = place == one
            total += abs((w * (p - y))[inside].sum())
        return total / w.sum()

    return of


def top_accuracy(rows: Rows, key: metric.Key, spec: MetricSpec) -> float:
    k = spec.arguments.get("k", 5)
    own = rows.p[np.arange(len(rows.p)), rows.y.astype(int)]
    return float(np.average((rows.p > own[:, None]).sum(axis=1) < k, weights=rows.w))


def kappa(rows: Rows, key: metric.Key, spec: MetricSpec) -> float:
    several = rows.p.ndim > 1
    predicted = rows.p.argmax(axis=1) if several else rows.p > 0.5
    classes = range(rows.classes or 0) if several else [0, 1]
    if len({*rows.y[rows.w > 0], *np.asarray(predicted, float)[rows.w > 0]}) < 2:
        return NAN
    return sklearn.metrics.cohen_kappa_score(
        rows.y.astype(int),
        predicted.astype(int),
        weights=spec.arguments.get("weights"),
        labels=list(classes),
        sample_weight=rows.w,
    )


def f_beta(rows: Rows, key: metric.Key, spec: MetricSpec) -> Any:
    beta = spec.arguments.get("beta", 1.0)

    def of(tp: float, tn: float, fp: float, fn: float) -> float:
        precision, recall = div(tp, tp + fp), div(tp, tp + fn)
        if tp == 0:
            return NAN if fp + fn == 0 else 0.0
        return (1 + beta**2) * precision * recall / (beta**2 * precision + recall)

    if rows.p.ndim == 1:
        return of(*counts(rows.y, rows.p, rows.w, spec.arguments.get("threshold", 0.5)))
    predicted = rows.p.argmax(axis=1)
    values = [
        of(*counts((rows.y == c).astype(float), (predicted == c).astype(float), rows.w, 0.5))
        for c in range(rows.classes or 0)
    ]
    return values[key.class_id] if key.class_id is not None else np.mean(values)


def fairness(rows: Rows, key: metric.Key, spec: MetricSpec) -> float:
    """By the name of the result, such as fairness_indicators_metrics/positive_rate@0.50."""
    rate, _, threshold = key.metric.partition("/")[2].partition("@")
    tp, tn, fp, fn = counts(*pairs(rows, key, spec), float(threshold))
    of = {
        "false_positive_rate": (fp, fp + tn),
        "false_negative_rate": (fn, fn + tp),
        "true_positive_rate": (tp, tp + fn),
        "true_negative_rate": (tn, tn + fp),
        "positive_rate": (tp + fp, tp + tn + fp + fn),
        "negative_rate": (tn + fn, tp + tn + fp + fn),
        "false_discovery_rate": (fp, fp + tp),
        "false_omission_rate": (fn, fn + tn),
        "precision": (tp, tp + fp),
        "recall": (tp, tp + fn),
    }
    return div(*of[rate])


def class_matrices(rows: Rows, key: metric.Key, spec: MetricSpec) -> np.ndarray:
    classes = rows.classes or 0
    plot = spec.class_name.endswith("Plot")
    out = []
    for t in spec.arguments.get("thresholds", [0.0] if plot else [0.5]):
        predicted = np.where(rows.p.max(axis=1) > t, rows.p.argmax(axis=1), classes)
        out.append(
            sklearn.metrics.confusion_matrix(
                rows.y.astype(int), predicted, labels=range(classes + 1), sample_weight=rows.w
            )[:classes]
        )
    return np.array(out)


def label_matrices(rows: Rows, key: metric.Key, spec: MetricSpec) -> np.ndarray:
    truth = _one_hot(rows)
    classes = truth.shape[1]
    out = []
    for t in spec.arguments.get("thresholds", [0.5]):
        matrix = np.zeros((classes, classes, 4))
        for a in range(classes):
            of = truth[:, a] == 1
            for b in range(classes):
                tp, tn, fp, fn = counts(truth[of, b], rows.p[of, b], rows.w[of], t)
                matrix[a, b] = tp, fp, tn, fn
        out.append(matrix)
    return np.array(out)


FLIPS = {
    "symmetric_flip_rate": lambda a, b: a != b,
    "flip_rate": lambda a, b: a != b,
    "neg_to_neg_flip_rate": lambda a, b: ~a & ~b,
    "neg_to_pos_flip_rate": lambda a, b: ~a & b,
    "pos_to_neg_flip_rate": lambda a, b: a & ~b,
    "pos_to_pos_flip_rate": lambda a, b: a & b,
}


def flips(rows: Rows, key: metric.Key, spec: MetricSpec) -> float:
    t = spec.arguments.get("threshold", 0.5)
    several = spec.class_name == "BooleanFlipRates"
    name = key.metric if several else metric.snake_case(spec.class_name)
    happened = FLIPS[name](rows.base > t, rows.p > t)
    return float(np.average(happened, weights=rows.w)) if rows.w.sum() > 0 else NAN


# --- the cases -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A configured metric on some data.

    `tfma` is by how much, relatively, TFMA's own number may differ: 1e-9 where it adds up in
    float64, 1e-6 where in float32; None where it can't be asked (test_tfma_agrees says why).
    """

    class_name: str
    data: str
    oracle: Oracle
    config: dict[str, Any] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)
    tfma: float | None = 1e-9
    one_hot: bool = False  # how TFMA is given multi-class labels
    near: float = 1e-9  # by how much, relatively, our number may differ

    def __str__(self) -> str:
        extra = {**self.config, **self.spec}
        shown = ", ".join(f"{key}={value}" for key, value in extra.items())
        return f"{self.class_name}({shown}) on {self.data}"

    def metric_spec(self, name: str | None = None) -> MetricSpec:
        config = dict(self.config) if name is None else {**self.config, "name": name}
        return MetricSpec(self.class_name, json.dumps(config), **self.spec)


def _cases() -> list[Case]:
    cases: list[Case] = []
    add = lambda *args, **kwargs: cases.append(Case(*args, **kwargs))  # noqa: E731
    for data in ("binary", "unweighted", "multiclass"):
        add("ExampleCount", data, lambda rows, key, spec: len(rows.y), spec={"weighted": False})
        add("WeightedExampleCount", data, lambda rows, key, spec: rows.w.sum())
    add("WeightedExampleCount", "binary", lambda r, k, s: len(r.y), spec={"weighted": False})

    for name in DEFINITIONS:
        # TFMA divides by zero for this one (test_tfma_agrees).
        near = None if name == "PrevalenceThreshold" else 1e-9
        add(name, "binary", decided, tfma=near)
        add(name, "unweighted", decided, tfma=near)
        add(name, "fractional", decided, tfma=near)
        if name != "MaxRecall":
            argument = "threshold" if name == "BinaryAccuracy" else "thresholds"
            several = {argument: [0.75, 0.25, 0.5, 0.1234]}
            add(name, "binary", decided, several, tfma=near)
            of = of_all_classes if name in WHOLE else by_class
            add(name, "multiclass", of, spec={"native": True}, tfma=None)
        add(name, "multilabel", decided, tfma=None)
        if name not in ALIASES:
            add(name, "multiclass", decided, spec={"class_ids": (0, 3)}, tfma=near)
    for name in ("Precision", "Recall", "F1Score", "TruePositives", "TrueNegatives"):
        add(name, "binary", decided, spec={"weighted": False})
        add(name, "multiclass", decided)
        add(name, "multiclass", decided, {"class_id": 2})
        add(name, "multiclass", decided, {"top_k": 2})
        add(name, "multiclass", decided, {"top_k": 2, "thresholds": [0.3]})
        add(name, "multiclass", decided, spec={"k_list": (1, 2)})
        add(name, "multiclass", decided, spec={"top_k_list": (1, 3)})
        add(name, "multiclass", decided, spec={"aggregate": "micro"})
        add(name, "multiclass", decided, spec={"aggregate": "micro", "aggregate_top_k": (1, 2)})
        weights = ((0, 1.0), (2, 0.5), (1, 2.0))
        micro = {"aggregate": "micro", "class_weights": weights}
        add(name, "multiclass", decided, spec=micro)
        add(name, "multilabel", decided, spec=micro)
        # TFMA weighs by the place in the top k, not by the class.
        add(name, "multiclass", decided, spec={**micro, "aggregate_top_k": (2,)}, tfma=None)
        add(name, "multiclass", averaged, spec={"aggregate": "macro", "class_weights": weights})
        add(
            name,
            "multiclass",
            averaged,
            spec={"aggregate": "macro", "class_ids": (0, 1)},
            tfma=None,
        )
        both = {"aggregate": "macro", "class_ids": (0, 1), "class_weights": weights}
        add(name, "multiclass", averaged, spec=both)
        add(
            name,
            "multiclass",
            averaged,
            spec={"aggregate": "weighted_macro", "class_weights": weights},
        )
        if name in ("Precision", "Recall", "F1Score"):
            for zero_division in ("skip", "0"):
                rule = {"zero_division": zero_division}
                add(name, "multiclass", by_class, spec={**rule, "native": True}, tfma=None)
                macro = {**rule, "aggregate": "macro", "class_weights": weights}
                add(name, "multiclass", averaged, spec=macro, tfma=None)
        add(name, "multilabel", decided, spec={"class_ids": (0, 1, 2)})
        add(name, "multilabel", averaged, spec={"aggregate": "macro", "class_weights": weights})
    for data in ("binary", "fractional"):
        add("ConfusionMatrixAtThresholds", data, at_thresholds, {"thresholds": [0.25, 0.5, 0.9]})

    for data in ("binary", "unweighted", "fractional"):
        add("AUC", data, area)
        add("AUCPrecisionRecall", data, area)
        add("ConfusionMatrixPlot", data, confusion_plot)
        add("CalibrationPlot", data, calibration_plot)
    for method in ("minoring", "majoring"):
        for curve in ("ROC", "PR"):
            add("AUC", "binary", area, {"summation_method": method, "curve": curve})
    add("AUC", "binary", area, {"num_thresholds": 200})
    add("AUC", "binary", area, {"num_thresholds": 2})
    add("AUC", "multiclass", area, {"class_id": 1})
    add("AUC", "multilabel", area, spec={"class_ids": (0, 2)})
    add("AUC", "multilabel", area, spec={"aggregate": "micro"})
    add("ConfusionMatrixPlot", "binary", confusion_plot, {"num_thresholds": 7})
    add("ConfusionMatrixPlot", "multiclass", confusion_plot, spec={"class_ids": (1,)})
    add("CalibrationPlot", "binary", calibration_plot, {"num_buckets": 10})
    add("CalibrationPlot", "binary", calibration_plot, {"num_buckets": 7})
    add("CalibrationPlot", "multilabel", calibration_plot, {"num_buckets": 20}, {"class_ids": (0,)})
    scale = {"num_buckets": 30, "left": -1.5, "right": 17.3}
    add("CalibrationPlot", "regression", calibration_plot, scale)
    for name, (argument, *_) in BOUNDED.items():
        for bound in (0.0, 0.13, 0.97):
            add(name, "binary", constrained, {argument: bound})
        add(name, "unweighted", constrained, {argument: 0.5})
        add(name, "fractional", constrained, {argument: 0.7, "num_thresholds": 500})
        add(name, "multiclass", constrained, {argument: 0.4, "class_id": 0})

    means: dict[str, Callable[..., float]] = {
        "MeanLabel": lambda y, p, w: np.average(y, weights=w),
        "MeanPrediction": lambda y, p, w: np.average(p, weights=w),
        "Calibration": lambda y, p, w: div((w * p).sum(), (w * y).sum()),
        "MeanAbsoluteError": lambda y, p, w: sklearn.metrics.mean_absolute_error(
            y, p, sample_weight=w
        ),
        "MeanSquaredError": lambda y, p, w: sklearn.metrics.mean_squared_error(
            y, p, sample_weight=w
        ),
        "RootMeanSquaredError": lambda y, p, w: sklearn.metrics.root_mean_squared_error(
            y, p, sample_weight=w
        ),
        "MeanSquaredLogarithmicError": lambda y, p, w: sklearn.metrics.mean_squared_log_error(
            y, p, sample_weight=w
        ),
        "MeanAbsolutePercentageError": _percentage,
        "SquaredPearsonCorrelation": _squared_pearson,
    }
    for name, of in means.items():
        near = 1e-6 if name == "RootMeanSquaredError" else 1e-9
        for data in ("regression", "inner", "fractional"):
            add(name, data, mean(of), tfma=near)
        add(name, "regression", mean(of), spec={"weighted": False}, tfma=near)
    add("SpearmanCorrelation", "regression", spearman, tfma=None)
    add("SpearmanCorrelation", "regression", spearman, {"center": 6.0}, tfma=None)
    add("SpearmanCorrelation", "regression", spearman, spec={"weighted": False}, tfma=None)
    for data in ("regression", "binary", "unweighted"):
        add("MedianAbsoluteError", data, quantiles, tfma=None, near=0.002)
        shares = {"quantiles": [0.0, 0.25, 0.5, 0.9, 1.0]}
        add("AbsoluteErrorQuantiles", data, quantiles, shares, tfma=None, near=0.002)
    squared_hinge = lambda y, p, w: np.average(  # noqa: E731
        np.maximum(1 - (2 * y - 1) * p, 0) ** 2, weights=w
    )
    pointwise = {**means, "Hinge": _hinge, "SquaredHinge": squared_hinge}
    pointwise |= {"Poisson": _poisson, "LogCoshError": _log_cosh}
    for name in ("MeanLabel", "MeanPrediction", "Calibration"):
        add(name, "multilabel", mean(means[name]), spec={"class_ids": (1,)})
        add(name, "multilabel", mean(means[name]), spec={"aggregate": "micro"})
    for data in ("inner", "unweighted", "fractional"):
        add("CoefficientOfDiscrimination", data, mean(lambda y, p, w: np.subtract(*_tjur(y, p, w))))
        add("RelativeCoefficientOfDiscrimination", data, mean(lambda *a: div(*_tjur(*a))))
    # scikit-learn clips at the smallest float where TFMA gives inf or NaN: scores within (0, 1).
    add("BinaryCrossEntropy", "inner", mean(_log_loss))
    add("BinaryCrossentropy", "inner", mean(_keras_log_loss), tfma=1e-6)
    add("BinaryCrossentropy", "binary", mean(_keras_log_loss), tfma=None)
    add("BinaryCrossEntropy", "multilabel", mean(_log_loss))
    add("BinaryCrossEntropy", "multilabel", mean(_log_loss), spec={"class_ids": (1,)})
    add("BinaryCrossentropy", "multilabel", mean(_keras_log_loss), tfma=1e-6)
    for data in ("multiclass", "multiclass unweighted"):
        add("CategoricalCrossEntropy", data, categorical, one_hot=True)
        add("CategoricalCrossentropy", data, categorical, one_hot=True, tfma=1e-6)
        add("SparseCategoricalCrossentropy", data, categorical, tfma=1e-6)
        add("CategoricalAccuracy", data, accuracy, one_hot=True, tfma=1e-6)
        add("SparseCategoricalAccuracy", data, accuracy, tfma=1e-6)
    add("SparseCategoricalAccuracy", "multiclass", accuracy, spec={"weighted": False}, tfma=1e-6)

    for name in ("MultiClassConfusionMatrixPlot", "MultiClassConfusionMatrixAtThresholds"):
        add(name, "multiclass", class_matrices)
        add(name, "multiclass", class_matrices, {"thresholds": [0.2, 0.4, 0.6]})
    add("MultiLabelConfusionMatrixPlot", "multilabel", label_matrices)
    add("MultiLabelConfusionMatrixPlot", "multilabel", label_matrices, {"thresholds": [0.25, 0.5]})
    add("MultiLabelConfusionMatrixPlot", "multiclass", label_matrices, {"thresholds": [0.25]})

    for name in FLIPS:
        if name == "flip_rate":
            continue
        class_name = "".join(part.capitalize() for part in name.split("_"))
        for data in ("binary", "unweighted", "regression"):
            threshold = 5.0 if data == "regression" else 0.25
            add(class_name, data, flips, {"threshold": threshold})
        add(class_name, "binary", flips)
    add("BooleanFlipRates", "fractional", flips)
    add("BooleanFlipRates", "regression", flips, {"threshold": 5.0})

    # What TFMA makes of several classes' scores taken together.
    for data in ("multiclass", "multilabel"):
        for name in ("Hinge", "SquaredHinge", "Poisson", "LogCoshError", *means):
            if name not in ("MeanLabel", "MeanPrediction", "Calibration") or data == "multiclass":
                add(name, data, mean(pointwise[name]), tfma=None)
        for name in ("CoefficientOfDiscrimination", "RelativeCoefficientOfDiscrimination"):
            combine = np.subtract if name.startswith("Co") else div
            of_pairs = functools.partial(_combine_tjur, combine)
            add(name, data, mean(of_pairs), tfma=None)
        for name, (argument, *_) in BOUNDED.items():
            add(name, data, constrained, {argument: 0.4}, tfma=None)
        add("AUCPrecisionRecall", data, area, tfma=None)
        add("ConfusionMatrixPlot", data, confusion_plot, tfma=None)
        add("CalibrationPlot", data, calibration_plot, tfma=None)
        add("ConfusionMatrixAtThresholds", data, at_thresholds, {"thresholds": [0.3]}, tfma=None)
    for name, of in (("BinaryCrossEntropy", _log_loss), ("BinaryCrossentropy", _keras_log_loss)):
        add(name, "multiclass", mean(of), tfma=None)
    add("LogLoss", "multilabel", mean(_log_loss), tfma=None)
    add("BrierScore", "multilabel", mean(means["MeanSquaredError"]), tfma=None)
    add("ExpectedCalibrationError", "multilabel", mean(_calibration_error(15)), tfma=None)
    add("OneVersusOneAUC", "multiclass", pairs_of_classes, tfma=None)
    add(
        "OneVersusOneAUC", "multiclass", pairs_of_classes, spec={"zero_division": "skip"}, tfma=None
    )
    # Eight: scores on an edge, of which there are some, are exactly on it.
    add("ExpectedCalibrationError", "multiclass", _confidence_error, {"num_bins": 8}, tfma=None)
    add("FBetaScore", "multilabel", decided_f2, {"beta": 2.0}, tfma=None)
    add("FairnessIndicators", "multilabel", fairness, {"thresholds": [0.5]}, tfma=None)
    add("Poisson", "regression", mean(_poisson), tfma=None)
    for data in ("multilabel", "regression"):
        count = {"weighted": False}
        add("ExampleCount", data, lambda rows, key, spec: len(rows.y), spec=count, tfma=None)
        add("WeightedExampleCount", data, lambda rows, key, spec: rows.w.sum(), tfma=None)
    add("CategoricalCrossEntropy", "multilabel", by_example(_soft_log_loss), tfma=None)
    add("CategoricalCrossentropy", "multilabel", by_example(_keras_soft_log_loss), tfma=None)
    add("KLDivergence", "multilabel", by_example(_divergence), tfma=None)
    add("CategoricalHinge", "multilabel", by_example(_any_hinge), tfma=None)
    add("CosineSimilarity", "multilabel", by_example(_any_cosine), tfma=None)

    # TFMA cannot make R2Score and FBetaScore, and lacks those of scikit-learn.
    for data in ("regression", "inner"):
        add("R2Score", data, mean(_r2), tfma=None)
        # Keras has 0 where there is nothing to average.
        add("LogCoshError", data, mean(_log_cosh), tfma=None if data == "inner" else 1e-5)
    for name, config in (("FBetaScore", {}), ("FBetaScore", {"beta": 2.0})):
        for data in ("binary", "fractional"):
            add(name, data, f_beta, config, tfma=None)
        add(name, "multiclass", f_beta, config, {"native": True}, tfma=None)
    add("FBetaScore", "binary", f_beta, {"beta": 0.5, "threshold": 0.25}, tfma=None)
    for data in ("binary", "unweighted"):
        add("CohenKappa", data, kappa, tfma=None)
    for weights in (None, "linear", "quadratic"):
        add("CohenKappa", "multiclass", kappa, {"weights": weights}, tfma=None)
    for data in ("inner", "fractional"):
        add("BrierScore", data, mean(means["MeanSquaredError"]), tfma=None)
        add("ExpectedCalibrationError", data, mean(_calibration_error(15)), tfma=None)
    add(
        "ExpectedCalibrationError", "inner", mean(_calibration_error(5)), {"num_bins": 5}, tfma=None
    )
    add("LogLoss", "binary", mean(_log_loss), tfma=None)
    add("LogLoss", "fractional", mean(_log_loss), tfma=None)
    for data in ("multiclass", "multiclass unweighted"):
        add("LogLoss", data, by_example(_several_log_loss), tfma=None)
        add("BrierScore", data, by_example(lambda y, p: ((y - p) ** 2).sum(axis=1)), tfma=None)
        for k in (1, 2, 3):
            config = {"k": k}
            add("TopKCategoricalAccuracy", data, top_accuracy, config, one_hot=True, tfma=1e-6)
            add("SparseTopKCategoricalAccuracy", data, top_accuracy, config, tfma=1e-6)
        add(
            "CategoricalHinge",
            data,
            by_example(_categorical_hinge),
            one_hot=True,
            tfma=1e-6,
        )
        add("KLDivergence", data, by_example(_divergence), one_hot=True, tfma=1e-6)
        add("CosineSimilarity", data, by_example(_cosine), one_hot=True, tfma=1e-6)
    for data in ("binary", "inner"):
        near = None if data == "inner" else 1e-6
        add("Hinge", data, mean(_hinge), tfma=near)
        add("SquaredHinge", data, mean(squared_hinge), tfma=near)
        add("Poisson", data, mean(_poisson), tfma=near and 1e-5)
    add("FairnessIndicators", "binary", fairness, {"thresholds": [0.25, 0.5]}, tfma=None)
    add("FairnessIndicators", "fractional", fairness, tfma=None)
    return cases


def _log_cosh(y: np.ndarray, p: np.ndarray, w: np.ndarray) -> float:
    return float(np.average(np.log(np.cosh(p - y)), weights=w))


def _poisson(y: np.ndarray, p: np.ndarray, w: np.ndarray) -> float:
    return float(np.average(p - y * np.log(p + 1e-7), weights=w))


def _several_log_loss(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    return -np.log(np.clip(p[y == 1], np.finfo(float).eps, 1))


def _categorical_hinge(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    return np.maximum(np.where(y == 1, -np.inf, p).max(axis=1) - p[y == 1] + 1, 0)


def _divergence(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    y, p = np.clip(y, 1e-7, 1), np.clip(p, 1e-7, 1)
    return (y * np.log(y / p)).sum(axis=1)


def _cosine(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    return p[y == 1] / np.sqrt((p**2).sum(axis=1))


def _any_hinge(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Keras's, whatever the number of labels."""
    return np.maximum(((1 - y) * p).max(axis=1) - (y * p).sum(axis=1) + 1, 0)


def _any_cosine(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    lengths = np.sqrt((y**2).sum(axis=1)) * np.sqrt((p**2).sum(axis=1))
    return (y * p).sum(axis=1) / np.maximum(lengths, 1e-12)


def _soft_log_loss(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    return -(y * np.log(p / p.sum(axis=1, keepdims=True))).sum(axis=1)


def _keras_soft_log_loss(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    shares = np.clip(p / p.sum(axis=1, keepdims=True), 1e-7, 1 - 1e-7)
    return -(y * np.log(shares)).sum(axis=1)


def _combine_tjur(combine: Callable[..., Any], y: np.ndarray, p: np.ndarray, w: np.ndarray) -> Any:
    return combine(*_tjur(y, p, w))


def pairs_of_classes(rows: Rows, key: metric.Key, spec: MetricSpec) -> Any:
    """The mean over pairs of classes, of scores down to their buckets."""
    areas = []
    for one in range(rows.classes or 0):
        for other in range(rows.classes or 0):
            both = np.isin(rows.y, (one, other)) & (rows.w > 0)
            y, p, w = rows.y[both] == one, bucketed(rows.p[both, one]), rows.w[both]
            if one == other:
                continue
            if y.all() or not y.any():
                areas.append(NAN)
                continue
            p = np.clip(p, -1, 2)  # infinite
            areas.append(sklearn.metrics.roc_auc_score(y, p, sample_weight=w))
    found = fill_undefined(np.array(areas), spec)
    return found.mean() if len(found) else NAN


def _confidence_error(rows: Rows, key: metric.Key, spec: MetricSpec) -> Any:
    right = (rows.p.argmax(axis=1) == rows.y).astype(float)
    return _calibration_error(8)(right, rows.p.max(axis=1), rows.w)


def decided_f2(rows: Rows, key: metric.Key, spec: MetricSpec) -> Any:
    tp, _, fp, fn = counts(*pairs(rows, key, spec), 0.5)
    return div(5 * tp, 5 * tp + 4 * fn + fp)


CASES = _cases()
