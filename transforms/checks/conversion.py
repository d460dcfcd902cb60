"""Whether a converted model (TFLite, TensorFlow.js, ONNX, ...) is still the one it was made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import optimize

from evalbeam.transforms import batch
from evalbeam.transforms.examples import labels, slices
from evalbeam.transforms.metrics import plan, statistics, table
from evalbeam.transforms.models import measure
from evalbeam.transforms.results import compare, finish

# Below this many examples the slice hit worst is mostly the unluckiest one, and decisions tell no
# cause.
FEWEST_EXAMPLES = 30

# Agreement beyond chance (Cohen's kappa): up to 0.4 is no more than fair, from 0.6 on substantial
# (Landis and Koch, "The measurement of observer agreement for categorical data", 1977).
_FAIR = 0.4
_SUBSTANTIAL = 0.6
# So many decisions, as a share of all, must have changed for a cause to be sought, and must be
# explained by exchanged classes.
_MANY = 0.1


@dataclass(frozen=True)
class Change:
    """A metric's values before and after the conversion; `relative` is negative where worse.

    `aggregation`, `k`, `top_k`, `weighted` and `threshold` say which of its variants, as in
    metrics.parquet.
    """

    metric: str
    aggregation: str
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
class Finding:
    """What is known of an output of a conversion, over the main split.

    Attributes:
      original, converted, output: which.
      bounds: what it is judged by.
      verdict: of its worst metric over all examples: of rates such as accuracy and recall, or, if
        there are none, of errors; "undecided" without any.
      cause: "class order", "preprocessing" or "scores" where that is what went wrong, else None.
      explanation: the cause in a sentence, or that it is not known; None where all is well.
      metrics: of all examples, those that the verdict is made of.
      worst_slice: the metric and slice of at least FEWEST_EXAMPLES that lost most, if any lost.
      examples: how many there are.
      changed: the share whose decision changed; None for regression.
      kappa: agreement beyond chance; None for regression, NaN where there is but one class.
      agreement: by the original's class, how many examples it has and the share that agree.
      largest_difference: of a score, the example's largest one.
      differences: how many examples differ up to each of `statistics.DIFFERENCES`, and beyond.
      size_ratio: the conversion's size, as a share of the original's.
      speed_ratio, single_speed_ratio: how many times as fast it predicts, in batches and one
        example at a time. These three are None where there is nothing to measure.
    """

    original: str
    converted: str
    output: str
    bounds: compare.Bounds
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
        """The finding for JSON: rule, verdict and evidence."""
        facts = dataclasses.asdict(self)
        named = ("verdict", "original", "converted", "output", "cause", "explanation")
        edges = [f"up to {edge:g}" for edge in statistics.DIFFERENCES]
        edges.append(f"more than {statistics.DIFFERENCES[-1]:g}")
        facts["differences"] = dict(zip(edges, facts["differences"], strict=True))
        facts = _finite(facts)
        return {
            "check": "conversion",
            "rule": f"{self.converted} stays within {self.bounds.good:g} (good) or "
            f"{self.bounds.acceptable:g} (acceptable) of {self.original}'s metrics, and loses no "
            f"more than {self.bounds.bad:g} (bad), as shares of these",
            **{name: facts.pop(name) for name in named},
            "evidence": facts,
        }


def findings(
    merged: table.Table,
    evaluation: finish.Evaluation,
    pairs: Sequence[compare.Pair],
    judged: pd.DataFrame,
    largest: Mapping[str, Mapping[str, float]],
    measures: Mapping[str, measure.Measures],
) -> Iterator[Finding]:
    """What is known of each conversion and output.

    Args:
      merged: the sums of all slices.
      evaluation: what they are of.
      pairs: those with bounds are conversions.
      judged: what `tables.verdicts` reads of the main split.
      largest: by converted version and output, the largest difference of a score.
      measures: by version, what it costs.
    """
    whole = merged.slices.index(slices.SliceKey(batch.MAIN_SPLIT))
    sheet = statistics.Sheet(merged.select([whole]))
    for pair in pairs:
        if pair.bounds is None:
            continue
        of_pair = judged[
            (judged["baseline"] == pair.baseline) & (judged["candidate"] == pair.candidate)
        ]
        ratios = _ratios(measures.get(pair.baseline), measures.get(pair.candidate))
        for head in evaluation.heads:
            of_head = _decisive(of_pair[of_pair["output"] == head.output], evaluation.plan)
            most = largest[pair.candidate][head.output]
            yield _finding(sheet, evaluation, pair, pair.bounds, head, of_head, most, ratios)


def _finite(value: Any) -> Any:
    """The value with None for what JSON has no number for: NaN, and changes from 0."""
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _finding(
    whole: statistics.Sheet,
    evaluation: finish.Evaluation,
    pair: compare.Pair,
    bounds: compare.Bounds,
    head: labels.Head,
    changes: pd.DataFrame,
    largest: float,
    ratios: Mapping[str, float | None],
) -> Finding:
    overall = changes[changes["slice"] == "overall"]
    verdicts = [compare.VERDICTS.index(verdict) for verdict in overall["verdict"]]
    verdict = compare.VERDICTS[max(verdicts)] if verdicts else "undecided"
    apart = plan.differences(pair.baseline, pair.candidate, head)
    counts = whole.total(apart)[0].astype(int)
    decided = plan.decisions(pair.baseline, pair.candidate, head, evaluation.thresholds)
    joint = None if decided is None else decided.joint(whole.total(decided))[0]
    of_auc = overall["metric"].map(evaluation.plan.own_name) == "auc"
    ranks = bool(overall[of_auc]["verdict"].isin(["good", "acceptable"]).any())
    # A few decisions may agree or not by chance.
    known = joint if counts.sum() >= FEWEST_EXAMPLES else None
    cause, explanation = _explained(verdict, known, counts, ranks)
    return Finding(
        original=pair.baseline,
        converted=pair.candidate,
        output=head.output,
        bounds=bounds,
        verdict=verdict,
        cause=cause,
        explanation=explanation,
        metrics=tuple(_change(row) for row in overall.itertuples()),
        worst_slice=_worst(changes),
        examples=int(counts.sum()),
        changed=None if joint is None else 1 - _agreeing(joint.sum(axis=0)),
        kappa=None if joint is None else _kappa(joint.sum(axis=0)),
        agreement=() if joint is None else _agreement(joint),
        largest_difference=largest,
        differences=tuple(counts.tolist()),
        **ratios,
    )


def _ratios(
    original: measure.Measures | None, converted: measure.Measures | None
) -> dict[str, float | None]:
    """A finding's ratios, by name."""
    found = dict.fromkeys(("size_ratio", "speed_ratio", "single_speed_ratio"))
    if original is None or converted is None:
        return found
    if original.size_bytes and converted.size_bytes:
        found["size_ratio"] = converted.size_bytes / original.size_bytes
    found["speed_ratio"] = original.batch.median_us / converted.batch.median_us
    found["single_speed_ratio"] = original.single.median_us / converted.single.median_us
    return found


def _decisive(changes: pd.DataFrame, planned: plan.Plan) -> pd.DataFrame:
    """Those that an output's verdict is made of: its rates; where it has none, its errors."""
    rates = changes["metric"].map(planned.direction).astype(int) > 0
    defined = (rates & (changes["slice"] == "overall")).any()
    return changes[rates if defined else ~rates]


def _worst(changes: pd.DataFrame) -> Change | None:
    inside = (changes["slice"] != "overall") & (changes["n"] >= FEWEST_EXAMPLES)
    lost = changes[inside & (changes["relative"] < 0)]
    if not len(lost):
        return None
    # What is not defined any more says less than a number.
    if lost["after"].notna().any():
        lost = lost[lost["after"].notna()]
    return _change(next(lost.nsmallest(1, "relative").itertuples()))


def _change(row: Any) -> Change:
    return Change(
        metric=str(row.metric),
        aggregation=str(row.aggregation),
        k=None if pd.isna(row.k) else int(row.k),
        top_k=None if pd.isna(row.top_k) else int(row.top_k),
        weighted=bool(row.weighted),
        threshold=None if pd.isna(row.threshold) else float(row.threshold),
        slice=str(row.slice),
        examples=int(row.n),
        before=float(row.before),
        after=float(row.after),
        relative=float(row.relative),
        verdict=str(row.verdict),
    )


def _agreement(joint: np.ndarray) -> tuple[Mapping[str, float], ...]:
    """By class as the original decides; of a multi-label output by label."""
    if len(joint) > 1:
        same, examples = np.trace(joint, axis1=1, axis2=2), joint.sum(axis=(1, 2))
    else:
        same, examples = np.diagonal(joint[0]), joint[0].sum(axis=1)
    return tuple(
        {"class": i, "examples": int(n), "agreement": float(one / n) if n else float("nan")}
        for i, (one, n) in enumerate(zip(same, examples, strict=True))
    )


def _agreeing(joint: np.ndarray) -> float:
    """The share on the diagonal of a joint matrix [K, K]."""
    return float(np.trace(joint) / joint.sum())


def _by_chance(joint: np.ndarray) -> float:
    """The share that would agree if both decided as often for each class, but independently."""
    shares = joint / joint.sum()
    return float(shares.sum(axis=0) @ shares.sum(axis=1))


def _kappa(joint: np.ndarray) -> float:
    """Cohen's kappa of a joint matrix [K, K]; NaN where both know but one class."""
    chance = _by_chance(joint)
    return (_agreeing(joint) - chance) / (1 - chance) if chance < 1 else float("nan")


def _explained(
    verdict: str, joint: np.ndarray | None, differences: np.ndarray, ranks: bool
) -> tuple[str | None, str | None]:
    """The cause of what is wrong, if it is known, and a sentence.

    `ranks` says that the examples' order by score is the original's (AUC). Versions that decide
    otherwise are another model, though their metrics may chance to be alike.
    """
    if joint is not None and 1 - _agreeing(joint.sum(axis=0)) >= _MANY:
        if ranks:
            return "scores", (
                "its scores rank the examples as the original's do, but stand on another scale, so "
                "that decisions differ. Look for a missing sigmoid, or outputs not dequantised."
            )
        cause = _cause_of_decisions(joint)
        if cause is not None:
            return cause
    beyond_one = differences[statistics.DIFFERENCES.index(1.0) + 1 :].sum()
    if joint is not None and beyond_one > differences.sum() / 2:
        return "scores", (
            f"the scores of {beyond_one:,} of {differences.sum():,} examples differ by more than "
            "1, which probabilities cannot: a last softmax or sigmoid is in one of the two only."
        )
    if verdict in ("better", "worse", "bad"):
        return None, (
            "the cause is not known; compare what both do before their first layer (scale and "
            "offset of inputs), the versions of operators, and, after quantisation, the data it "
            "was calibrated with. The evidence in findings.json has "
            + ("" if joint is None else "agreement by class and ")
            + "differences of scores."
        )
    if verdict == "undecided":
        return None, (
            "there is no metric to judge it by; add one with a better way, such as AUC, "
            "CategoricalAccuracy or MeanSquaredError."
        )
    return None, None


def _cause_of_decisions(joint: np.ndarray) -> tuple[str, str] | None:
    """What makes a conversion's decisions another model's, and a sentence that says so."""
    matrix = joint.sum(axis=0)
    agreement = _agreeing(matrix)
    _, order = optimize.linear_sum_assignment(matrix, maximize=True)
    explained = _agreeing(matrix[:, order])
    exchanged = explained - agreement >= _MANY and _kappa(matrix[:, order]) >= _SUBSTANTIAL
    if exchanged and len(joint) == 1:  # of labels it is not known which goes with which
        moved = [f"{b} for {a}" for a, b in enumerate(order) if a != b and matrix[a, b]]
        more = f" and {len(moved) - 10} more" if len(moved) > 10 else ""
        return "class order", (
            f"the conversion has its classes in another order (it says {', '.join(moved[:10])}"
            f"{more}): {agreement:.1%} of its decisions agree, and {explained:.1%} would with them "
            "in place. Give it the original's order of classes."
        )
    if _kappa(matrix) <= _FAIR:
        return "preprocessing", (
            f"{agreement:.1%} of its decisions agree, where chance alone gives "
            f"{_by_chance(matrix):.1%}: most likely the conversion gets its input in another form "
            "than it was made for, or than it was calibrated with when it was quantised (scaling, "
            "offset, order of channels or inputs). Compare what both do before their first layer. "
            "If it takes an image in another scale, declare a second one of the same column in "
            "`data.images`, and map it: `inputs: {<model input>: <image>}`."
        )
    return None
