"""What a run evaluates, as data: any process makes the same plan of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pydantic

from evalbeam.transforms.examples import labels, slices
from evalbeam.transforms.examples.slices import SliceKey, Spec, Term, Value, canonical
from evalbeam.transforms.metrics.metric import ZeroDivision

Engine = Literal["columnar", "tfma"]


@dataclass(frozen=True)
class MetricSpec:
    """A configured metric, as TFMA's MetricsSpec has it with one MetricConfig.

    Attributes:
      class_name: TFMA's or Keras's class, or a class of `module`.
      config: the class's arguments, as JSON.
      module: where a user's own class lives; "" for TFMA's and Keras's.
      models: the versions it is for; () for all.
      outputs: the outputs it is for; () for all.
      class_ids, k_list, top_k_list: how a multi-class output is made binary (TFMA's `binarize`);
        classes by id or by name.
      aggregate: "", "micro", "macro" or "weighted_macro".
      aggregate_top_k: TFMA's `aggregate.top_k_list`.
      class_weights: (class, weight) pairs for the aggregate.
      weighted: whether example weights count; None: they do where there are any.
      zero_division: what a class counts as, in a macro average, if the metric is undefined there;
        "nan" as in TFMA.
      native: it is in our own config, where a multi-class confusion metric is by class.
    """

    class_name: str
    config: str = "{}"
    module: str = ""
    models: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    class_ids: tuple[Any, ...] = ()
    k_list: tuple[int, ...] = ()
    top_k_list: tuple[int, ...] = ()
    aggregate: str = ""
    aggregate_top_k: tuple[int, ...] = ()
    class_weights: tuple[tuple[Any, float], ...] = ()
    weighted: bool | None = None
    zero_division: ZeroDivision = "nan"
    native: bool = False

    @property
    def is_binarized(self) -> bool:
        """Whether a multi-class output is made binary."""
        return bool(self.class_ids or self.k_list or self.top_k_list)

    def is_for(self, output: str) -> bool:
        """Whether it is computed of the output."""
        return not self.outputs or output in self.outputs

    def number_classes(self, head: labels.Head) -> MetricSpec:
        """The metric with an output's classes by id; raises ConfigError as `labels.find_class`."""

        def find(value: int | str) -> int:
            return labels.find_class(head, value, is_id=not self.native)

        return dataclasses.replace(
            self,
            class_ids=tuple(map(find, self.class_ids)),
            class_weights=tuple((find(value), weight) for value, weight in self.class_weights),
        )

    def __str__(self) -> str:
        """The class, and what is configured of it."""
        parts = [self.class_name]
        if self.arguments:
            parts.append(json.dumps(self.arguments))
        for field in dataclasses.fields(self)[2:]:
            if field.name == "native":
                continue
            if (value := getattr(self, field.name)) != field.default:
                shown = ", ".join(map(str, value)) if isinstance(value, tuple) else value
                parts.append(f"{field.name}: {shown}")
        return f"{parts[0]} ({'; '.join(parts[1:])})" if parts[1:] else f"{parts[0]} (as it is)"

    @property
    def arguments(self) -> dict[str, Any]:
        """The class's arguments; null, which TFMA writes for some, is the default."""
        given: dict[str, Any] = json.loads(self.config)
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class Bounds:
    """How far a conversion's metrics may be from the original's, as shares of the original's.

    Attributes:
      good, acceptable: up to these, either way.
      bad: a worsening by more than this.
    """

    good: float = 0.01
    acceptable: float = 0.02
    bad: float = 0.05


@dataclass(frozen=True)
class Pair:
    """Two versions to compare; the candidate is judged by `bounds` if it is a conversion."""

    baseline: str
    candidate: str
    bounds: Bounds | None = None


@dataclass(frozen=True)
class SliceComparison:
    """Slices to compare with baseline slices of the same split, as in TFMA's CrossSlicingSpec.

    Attributes:
      baseline: the spec of the baseline slices.
      compared: the specs of the slices to compare with each; none: all that are not baselines.
    """

    baseline: Spec
    compared: tuple[Spec, ...] = ()

    def __str__(self) -> str:
        """The comparison as shown in plans."""
        compared = "; ".join(map(slices.describe, self.compared)) or "all others"
        return f"{compared} with {slices.describe(self.baseline)}"

    def has_baseline(self, key: SliceKey) -> bool:
        """Whether a slice is one of the baselines."""
        return slices.is_of(key, self.baseline)

    def compares(self, key: SliceKey) -> bool:
        """Whether a slice is one of those to compare with the baselines."""
        if self.compared:
            return any(slices.is_of(key, spec) for spec in self.compared)
        return not self.has_baseline(key)


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated, and how: with the table of sums, all that results are made of.

    Attributes:
      models: the versions.
      heads: the outputs, with their labels and tasks.
      metrics: as configured.
      thresholds: where confusion counts are kept.
      decision_threshold: the one at which decisions of conversions are compared.
      baseline: the version that the others are compared with, if any.
      pairs: the versions to compare: the baseline with the others, originals with conversions.
      slices: the slicing specs, their edges known; the first is (), each split as a whole.
      weight: the column of the example weights, if any.
      id: the column that identifies an example; None: its content does.
      units: hash buckets of examples.
      min_slice_size: slices of fewer examples have no results, except for a whole split.
      engine: "columnar", or "tfma", where TFMA computes all metrics.
      eval_config: the user's TFMA EvalConfig as JSON, if that is where the metrics come from.
      tfma_metrics: TFMA MetricsSpecs, as JSON, that only TFMA computes whatever the engine.
      slice_comparisons: the slices to compare with each other.
    """

    models: tuple[str, ...]
    heads: tuple[labels.Head, ...]
    metrics: tuple[MetricSpec, ...] = ()
    thresholds: tuple[float, ...] = (0.5,)
    decision_threshold: float = 0.5
    baseline: str | None = None
    pairs: tuple[Pair, ...] = ()
    slices: tuple[Spec, ...] = ((),)
    weight: str | None = None
    id: str | None = None
    units: int = 1
    min_slice_size: int = 1
    engine: Engine = "columnar"
    eval_config: str | None = None
    tfma_metrics: tuple[str, ...] = ()
    slice_comparisons: tuple[SliceComparison, ...] = ()

    @property
    def weighted(self) -> bool:
        """Whether examples have weights."""
        return self.weight is not None

    @property
    def conversions(self) -> tuple[tuple[str, str], ...]:
        """Originals and the versions that were converted from them."""
        return tuple((p.baseline, p.candidate) for p in self.pairs if p.bounds is not None)

    def terms(self) -> Iterator[Term]:
        """The columns of all slicing specs, with how each is cut."""
        for spec in self.slices:
            yield from spec

    def named_values(self) -> set[tuple[str, Value]]:
        """The (column, value) pairs that slicing specs name."""
        return {
            (term.column, canonical(term.value)) for term in self.terms() if term.value is not None
        }

    def to_json(self) -> str:
        """The evaluation as JSON, with Infinity if need be; `from_json` gives an equal one."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @staticmethod
    def from_json(text: str) -> Evaluation:
        """The evaluation again; raises ValueError where the text is not one."""
        return _ADAPTER.validate_python(json.loads(text))


_ADAPTER = pydantic.TypeAdapter(Evaluation)
