"""Checks whether a conversion (to TFLite, TensorFlow.js, ONNX, ...) still matches its original."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evalbeam.transforms import batch
from evalbeam.transforms.metrics import statistics
from evalbeam.transforms.metrics.evaluation import Bounds, Evaluation
from evalbeam.transforms.metrics.plan import Conversion, plan
from evalbeam.transforms.metrics.sheet import Sheet
from evalbeam.transforms.metrics.table import sort_key
from evalbeam.transforms.models import measure
from evalbeam.transforms.results import compare, finish

# With fewer examples, the worst slice is mostly bad luck, and decisions do not reveal a cause.
FEWEST_EXAMPLES = 30

# Agreement beyond chance (Cohen's kappa): fair up to 0.4, substantial from 0.6 (Landis and Koch,
# "The measurement of observer agreement for categorical data", 1977).
_FAIR = 0.4
_SUBSTANTIAL = 0.6
# The share of decisions that must have changed before a cause is sought, and that exchanged classes
# must explain.
_MANY = 0.1


@dataclass(frozen=True)
class Change:
    """A metric's values before and after the conversion; `relative` is negative for a loss.

    `aggregation`, `decision`, `k`, `top_k`, `weighted` and `threshold` identify the variant, as in
    metrics.parquet.
    """

    metric: str
    aggregation: str
    decision: str
    k: int | None
    top_k: int | None
    weighted: bool
    threshold: float | None
    slice: str
    examples: int
    before: float
    after: float
    relative: float
    verdict: str


@dataclass(frozen=True)
class Loss:
    """The slice that lost the most, by metrics of one direction, for an output of a conversion.

    Attributes:
      original, converted, output: the conversion and its output.
      direction: 1 for metrics where higher is better (rates), -1 where lower is (errors).
      order: the sort key of losses, the largest first.
      change: the change in the slice.
    """

    original: str
    converted: str
    output: str
    direction: int
    order: tuple[bool, float, int, tuple[str, int, str]]
    change: Change


@dataclass(frozen=True)
class Whole:
    """The evidence on a conversion's output over the whole main split.

    Attributes:
      original, converted, output: the conversion and its output.
      changes: the metrics that have a verdict; not the many by class, whose averages suffice.
      differences: the numbers of examples whose scores differ by up to each of
        `statistics.DIFFERENCES`, and by more.
      joint: the joint counts of both versions' decisions, [problems, before, after]
        (`statistics.Decisions.joint`); None for regression.
    """

    original: str
    converted: str
    output: str
    changes: tuple[Change, ...]
    differences: tuple[int, ...]
    joint: tuple[tuple[tuple[float, ...], ...], ...] | None


@dataclass(frozen=True)
class Evidence:
    """The evidence on conversions from some slices; it is small, and merges."""

    wholes: tuple[Whole, ...] = ()
    losses: tuple[Loss, ...] = ()

    def merge(self, other: Evidence) -> Evidence:
        """The evidence from the slices of both."""
        worst: dict[tuple[str, str, str, int], Loss] = {}
        for loss in (*self.losses, *other.losses):
            key = loss.original, loss.converted, loss.output, loss.direction
            worst[key] = min(worst.get(key, loss), loss, key=lambda each: each.order)
        return Evidence((*self.wholes, *other.wholes), tuple(worst.values()))


def collect_evidence(
    block: finish.Block,
    differences: Sequence[compare.Difference],
    evaluation: Evaluation,
) -> Evidence:
    """The evidence on conversions from a block's slices.

    Args:
      block: the results.
      differences: the differences between versions in the block.
      evaluation: the evaluation of the results.
    """
    planned = plan(evaluation)
    if not planned.conversions:
        return Evidence()
    main = np.array([key.split == batch.MAIN_SPLIT for key in block.slices])
    crossed = np.array([bool(key.pairs) for key in block.slices])
    large = block.reported & (block.examples >= FEWEST_EXAMPLES)
    overall = np.flatnonzero(main & ~crossed).tolist()
    changes: dict[tuple[str, str, str], list[Change]] = {}
    losses: list[Loss] = []
    for number, difference in enumerate(_split_thresholds(differences)):
        key = difference.key
        pair = difference.baseline, key.model, key.output
        for row in overall:
            if difference.verdicts[row] is not None:
                changes.setdefault(pair, []).append(_describe_change(difference, block, row))
        rows = np.flatnonzero(main & crossed & large & (difference.relative < 0))
        # Without a verdict, it is not a conversion's.
        if len(rows) and difference.verdicts[rows[0]] is not None:
            after, relative = difference.after[rows], difference.relative[rows]
            # A value that is no longer defined says less than a number.
            row = int(rows[np.lexsort((rows, relative, np.isnan(after)))[0]])
            order = bool(np.isnan(difference.after[row])), float(difference.relative[row]), number
            losses.append(
                Loss(
                    *pair,
                    direction=planned.direction(key.metric),
                    order=(*order, sort_key(block.slices[row])),
                    change=_describe_change(difference, block, row),
                )
            )
    wholes = tuple(
        _assess_whole(
            block.sheet,
            row,
            conversion,
            changes.get((conversion.original, conversion.converted, conversion.head.output), []),
        )
        for row in overall
        for conversion in planned.conversions
    )
    return Evidence(wholes).merge(Evidence(losses=tuple(losses)))


def _split_thresholds(differences: Sequence[compare.Difference]) -> Iterator[compare.Difference]:
    """The differences, one for each threshold; those by class are omitted."""
    for difference in differences:
        if difference.key.class_id is not None:
            continue
        if difference.thresholds is None or difference.before.ndim == 1:
            yield difference
            continue
        for place, threshold in enumerate(difference.thresholds):
            columns = {
                name: getattr(difference, name)[:, place]
                for name in ("before", "after", "relative", "verdicts")
            }
            yield dataclasses.replace(difference, thresholds=(threshold,), **columns)


def _describe_change(difference: compare.Difference, block: finish.Block, row: int) -> Change:
    key = difference.key
    return Change(
        metric=key.metric,
        aggregation=key.aggregation,
        decision=difference.decision,
        k=key.k,
        top_k=key.top_k,
        weighted=key.weighted,
        threshold=None if difference.thresholds is None else difference.thresholds[0],
        slice=str(block.slices[row]),
        examples=int(block.examples[row]),
        before=float(difference.before[row]),
        after=float(difference.after[row]),
        relative=float(difference.relative[row]),
        verdict=str(difference.verdicts[row]),
    )


def _assess_whole(
    sheet: Sheet, row: int, conversion: Conversion, changes: Sequence[Change]
) -> Whole:
    decisions = conversion.decisions
    joint = None if decisions is None else decisions.joint(sheet.total(decisions))[row].tolist()
    return Whole(
        conversion.original,
        conversion.converted,
        conversion.head.output,
        tuple(changes),
        tuple(sheet.total(conversion.differences)[row].astype(int).tolist()),
        None if joint is None else tuple(tuple(map(tuple, problem)) for problem in joint),
    )


@dataclass(frozen=True)
class Finding:
    """The finding on an output of a conversion, over the main split.

    Attributes:
      original, converted, output: the conversion and its output.
      bounds: the bounds that it is judged by.
      verdict: the verdict on its worst metric over all examples: on rates such as accuracy and
        recall, or on errors if there are no rates; "undecided" without either.
      cause: "class order", "preprocessing" or "scores" if that is the cause, else None.
      explanation: a sentence on the cause, or that it is unknown; None if nothing is wrong.
      metrics: the metrics over all examples that the verdict is based on.
      worst_slice: the metric and slice (of at least FEWEST_EXAMPLES) that lost the most, if any.
      examples: the number of examples.
      changed: the share of examples whose decision changed; None for regression.
      kappa: agreement beyond chance; None for regression, NaN if there is only one class.
      agreement: by the original's class, the number of examples and the share that agree.
      largest_difference: the largest difference of a score.
      differences: the numbers of examples whose scores differ by up to each of
        `statistics.DIFFERENCES`, and by more.
      size_ratio: the conversion's size as a share of the original's.
      speed_ratio, single_speed_ratio: the conversion's speed as a multiple of the original's, in
        batches and one example at a time. The three ratios are None if not measured.
    """

    original: str
    converted: str
    output: str
    bounds: Bounds
    verdict: str
    cause: str | None
    explanation: str | None
    metrics: tuple[Change, ...]
    worst_slice: Change | None
    examples: int
    changed: float | None
    kappa: float | None
    agreement: tuple[Mapping[str, float], ...]
    largest_difference: float
    differences: tuple[int, ...]
    size_ratio: float | None
    speed_ratio: float | None
    single_speed_ratio: float | None

    def entry(self) -> dict[str, Any]:
        """The finding as a JSON object: rule, verdict and evidence."""
        evidence = dataclasses.asdict(self)
        names = ("verdict", "original", "converted", "output", "cause", "explanation")
        edges = [f"up to {edge:g}" for edge in statistics.DIFFERENCES]
        edges.append(f"more than {statistics.DIFFERENCES[-1]:g}")
        evidence["differences"] = dict(zip(edges, evidence["differences"], strict=True))
        evidence = _replace_nonfinite(evidence)
        return {
            "check": "conversion",
            "rule": f"{self.converted} stays within {self.bounds.good:g} (good) or "
            f"{self.bounds.acceptable:g} (acceptable) of {self.original}'s metrics and loses no "
            f"more than {self.bounds.bad:g} (bad), as shares of the original's values",
            **{name: evidence.pop(name) for name in names},
            "evidence": evidence,
        }


def judge(
    evidence: Evidence,
    evaluation: Evaluation,
    largest: Mapping[str, Mapping[str, float]],
    measures: Mapping[str, measure.Measures],
) -> Iterator[Finding]:
    """The findings on each conversion and output.

    Args:
      evidence: the evidence from all slices.
      evaluation: the evaluation that it is from.
      largest: by converted version and output, the largest difference of a score.
      measures: by version, its cost.
    """
    bounds = {(p.baseline, p.candidate): p.bounds for p in evaluation.pairs}
    wholes = {(w.original, w.converted, w.output): w for w in evidence.wholes}
    for conversion in plan(evaluation).conversions:
        original, converted = conversion.original, conversion.converted
        output = conversion.head.output
        limits = bounds[original, converted]
        assert limits is not None  # every conversion has bounds
        losses = {
            loss.direction: loss.change
            for loss in evidence.losses
            if (loss.original, loss.converted, loss.output) == (original, converted, output)
        }
        yield _judge_output(
            wholes[original, converted, output],
            losses,
            evaluation,
            limits,
            largest[converted][output],
            _compute_ratios(measures.get(original), measures.get(converted)),
        )


def _replace_nonfinite(value: Any) -> Any:
    """The value with None for NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {name: _replace_nonfinite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_nonfinite(part) for part in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _judge_output(
    whole: Whole,
    losses: Mapping[int, Change],
    evaluation: Evaluation,
    bounds: Bounds,
    largest: float,
    ratios: Mapping[str, float | None],
) -> Finding:
    planned = plan(evaluation)
    rates = [c for c in whole.changes if planned.direction(c.metric) > 0]
    # The verdict is based on rates; if there are none, on errors.
    changes = tuple(rates or whole.changes)
    verdicts = [compare.VERDICTS.index(change.verdict) for change in changes]
    verdict = compare.VERDICTS[max(verdicts)] if verdicts else "undecided"
    counts = np.array(whole.differences)
    joint = None if whole.joint is None else np.array(whole.joint)
    ranks = any(
        planned.own_name(change.metric) == "auc" and change.verdict in ("good", "acceptable")
        for change in changes
    )
    # A few decisions may agree or differ by chance.
    decisive = joint if counts.sum() >= FEWEST_EXAMPLES else None
    cause, explanation = _explain(verdict, decisive, counts, ranks)
    return Finding(
        original=whole.original,
        converted=whole.converted,
        output=whole.output,
        bounds=bounds,
        verdict=verdict,
        cause=cause,
        explanation=explanation,
        metrics=changes,
        worst_slice=losses.get(1 if rates else -1),
        examples=int(counts.sum()),
        changed=None if joint is None else 1 - _share_agreeing(joint.sum(axis=0)),
        kappa=None if joint is None else _kappa(joint.sum(axis=0)),
        agreement=() if joint is None else _agree_by_class(joint),
        largest_difference=largest,
        differences=whole.differences,
        **ratios,
    )


def _compute_ratios(
    original: measure.Measures | None, converted: measure.Measures | None
) -> dict[str, float | None]:
    """The ratios of a finding, by name."""
    ratios = dict.fromkeys(("size_ratio", "speed_ratio", "single_speed_ratio"))
    if original is None or converted is None:
        return ratios
    if original.size_bytes and converted.size_bytes:
        ratios["size_ratio"] = converted.size_bytes / original.size_bytes
    ratios["speed_ratio"] = original.batch.median_us / converted.batch.median_us
    ratios["single_speed_ratio"] = original.single.median_us / converted.single.median_us
    return ratios


def _agree_by_class(joint: np.ndarray) -> tuple[Mapping[str, float], ...]:
    """The agreement by the original's class, or by label for a multi-label output."""
    if len(joint) > 1:
        same, examples = np.trace(joint, axis1=1, axis2=2), joint.sum(axis=(1, 2))
    else:
        same, examples = np.diagonal(joint[0]), joint[0].sum(axis=1)
    return tuple(
        {"class": i, "examples": int(n), "agreement": float(agreed / n) if n else float("nan")}
        for i, (agreed, n) in enumerate(zip(same, examples, strict=True))
    )


def _share_agreeing(joint: np.ndarray) -> float:
    """The share on the diagonal of a joint matrix [K, K]."""
    return float(np.trace(joint) / joint.sum())


def _share_by_chance(joint: np.ndarray) -> float:
    """The share that would agree if both decided independently, each class as often as now."""
    shares = joint / joint.sum()
    return float(shares.sum(axis=0) @ shares.sum(axis=1))


def _kappa(joint: np.ndarray) -> float:
    """Cohen's kappa of a joint matrix [K, K]; NaN if both always decide for the same class."""
    chance = _share_by_chance(joint)
    return (_share_agreeing(joint) - chance) / (1 - chance) if chance < 1 else float("nan")


def _explain(
    verdict: str, joint: np.ndarray | None, differences: np.ndarray, ranks: bool
) -> tuple[str | None, str | None]:
    """The cause, if it is known, and the explanation.

    `ranks` means that the scores rank the examples as the original's do (AUC). A version whose
    decisions differ is another model, even if its metrics happen to be the same.
    """
    if joint is not None and 1 - _share_agreeing(joint.sum(axis=0)) >= _MANY:
        if ranks:
            return "scores", (
                "its scores rank the examples as the original's do, but are on another scale, so "
                "decisions differ. Look for a missing sigmoid, or outputs that are not dequantised."
            )
        explained = _explain_decisions(joint)
        if explained is not None:
            return explained
    beyond_one = differences[statistics.DIFFERENCES.index(1.0) + 1 :].sum()
    if joint is not None and beyond_one > differences.sum() / 2:
        return "scores", (
            f"the scores of {beyond_one:,} of {differences.sum():,} examples differ by more than "
            "1, which probabilities cannot: only one of the two ends in a softmax or sigmoid."
        )
    if verdict in ("better", "worse", "bad"):
        return None, (
            "the cause is unknown; compare the preprocessing of both (scale and offset of inputs), "
            "the versions of operators and, after quantisation, the calibration data. The evidence "
            "in findings.json has "
            + ("" if joint is None else "agreement by class and ")
            + "differences of scores."
        )
    if verdict == "undecided":
        return None, (
            "there is no metric to judge it by; add one with a preferred direction, such as AUC, "
            "CategoricalAccuracy or MeanSquaredError."
        )
    return None, None


def _explain_decisions(joint: np.ndarray) -> tuple[str, str] | None:
    """The cause of a conversion's changed decisions and the explanation, if known."""
    matrix = joint.sum(axis=0)
    agreement = _share_agreeing(matrix)
    from scipy import optimize  # Workers, who only collect evidence, do without it.

    _, order = optimize.linear_sum_assignment(matrix, maximize=True)
    reordered = _share_agreeing(matrix[:, order])
    exchanged = reordered - agreement >= _MANY and _kappa(matrix[:, order]) >= _SUBSTANTIAL
    if exchanged and len(joint) == 1:  # for several labels, their pairing is unknown
        moved = [f"{b} for {a}" for a, b in enumerate(order) if a != b and matrix[a, b]]
        more = f" and {len(moved) - 10} more" if len(moved) > 10 else ""
        return "class order", (
            f"the conversion has its classes in another order (it predicts {', '.join(moved[:10])}"
            f"{more}): {agreement:.1%} of its decisions agree, and {reordered:.1%} would in the "
            "original's order. Convert it with the original's order of classes."
        )
    if _kappa(matrix) <= _FAIR:
        return "preprocessing", (
            f"{agreement:.1%} of its decisions agree, where chance alone gives "
            f"{_share_by_chance(matrix):.1%}: most likely the conversion's input is not in the "
            "form that it was converted or calibrated for (scale, offset, order of channels or "
            "inputs). Compare the preprocessing of both. If it takes images on another scale, "
            "declare a second image of the same column in `data.images`, and map it: "
            "`inputs: {<model input>: <image>}`."
        )
    return None
