"""Evaluates with TFMA's own evaluators, for metrics without a columnar kernel and for comparison.

Everything here is per example and in Python, as it is in TFMA. Importing this module imports TFMA,
16 seconds: import it where it is needed only.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam import pvalue
from tensorflow_model_analysis import constants
from tensorflow_model_analysis.evaluators import (
    metrics_plots_and_validations_evaluator as tfma_evaluator,
)
from tensorflow_model_analysis.proto import config_pb2
from tensorflow_model_analysis.slicer import slicer_lib
from tensorflow_model_analysis.utils import config_util
from tensorflow_model_analysis.writers import (
    eval_config_writer,
    metrics_plots_and_validations_writer,
)

from evalbeam.transforms import arrow, batch, errors
from evalbeam.transforms.examples import labels, slices

# Their merge_accumulators takes the first accumulator and then merges all of them into it, the
# first one included: what that bundle saw counts twice.
_COUNT_TWICE = tuple(
    f"tensorflow_model_analysis.metrics.{module}"
    for module in (
        "cross_entropy_metrics",
        "flip_metrics",
        "mean_regression_error",
        "model_cosine_similarity",
        "prediction_difference_metrics",
    )
)


@dataclass(eq=False)  # Not frozen: Beam sets the label of a transform when it is applied.
class EvaluateWithTfma(beam.PTransform[pvalue.PCollection[batch.Scored], dict[str, Any]]):
    """PCollection[Scored] of one split -> a TFMA result folder.

    The result is TFMA's writers' own: by writer, the files it wrote.

    Attributes:
      eval_config: the serialised EvalConfig, see `eval_config.eval_config`.
      models: the versions, in the order of its model_specs.
      heads: what is evaluated.
      slices: the slices; they, not the config's slicing_specs, decide who is in which slice.
      model_locations: each version's path, for display.
      output: the folder, on a filesystem that all workers share.
      correct: whether to mend TFMA's five merges that count a bundle twice; without it, TFMA is
        left as it is.
    """

    eval_config: bytes
    models: tuple[str, ...]
    heads: tuple[labels.Head, ...]
    slices: tuple[slices.Spec, ...]
    model_locations: Mapping[str, str]
    output: str
    correct: bool

    def expand(self, scored: pvalue.PCollection[batch.Scored]) -> dict[str, Any]:
        """TFMA's evaluator and writers behind our examples.

        Raises:
          ConfigError: what TFMA refuses in the config or in the metrics.
        """
        several = len(self.models) > 1
        names = self.models if several else ("",)
        extracts = scored | "ToExtracts" >> beam.ParDo(
            _ToExtracts(self.models, self.heads, self.slices)
        )
        try:
            config = config_util.update_eval_config_with_defaults(
                config_pb2.EvalConfig.FromString(self.eval_config), has_baseline=several
            )
            evaluator = tfma_evaluator.MetricsPlotsAndValidationsEvaluator(eval_config=config)
            with _correct_merges() if self.correct else contextlib.nullcontext():
                evaluation = extracts | evaluator.stage_name >> evaluator.ptransform
        except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
            raise errors.ConfigError(f"TFMA refuses the evaluation: {error}") from error
        outputs = {
            key: os.path.join(self.output, key)
            for key in (
                constants.METRICS_KEY,
                constants.PLOTS_KEY,
                constants.ATTRIBUTIONS_KEY,
                constants.VALIDATIONS_KEY,
            )
            if key not in config.options.disabled_outputs.values
        }
        writers = (
            metrics_plots_and_validations_writer.MetricsPlotsAndValidationsWriter(outputs, config),
            eval_config_writer.EvalConfigWriter(
                self.output,
                config,
                model_locations={
                    name: self.model_locations[model]
                    for name, model in zip(names, self.models, strict=True)
                },
            ),
        )
        return {
            writer.stage_name: evaluation | writer.stage_name >> writer.ptransform
            for writer in writers
        }


class _ToExtracts(beam.DoFn):
    """Scored batches to the extracts of single examples that TFMA's own extractors make."""

    def __init__(
        self,
        models: Sequence[str],
        heads: Sequence[labels.Head],
        specs: Sequence[slices.Spec],
    ) -> None:
        self._models = models
        self._outputs = tuple(head.output for head in heads)
        self._specs = specs

    def setup(self) -> None:
        self._encoder = slices.Encoder(self._specs)

    def process(self, scored: batch.Scored) -> Iterator[dict[str, Any]]:
        examples = scored.batch
        names, arrays = examples.columns.schema.names, examples.columns.columns
        extracts: dict[str, Any] = {
            constants.FEATURES_KEY: dict(zip(names, map(_values, arrays), strict=True)),
            constants.LABELS_KEY: self._layout(lambda _, output: scored.labels[output]),
            constants.PREDICTIONS_KEY: self._layout(
                lambda model, output: scored.predictions[model, output]
            ),
            constants.SLICE_KEY_TYPES_KEY: _slice_keys(self._encoder, examples),
        }
        if (weights := scored.weights) is not None:
            extracts[constants.EXAMPLE_WEIGHTS_KEY] = self._layout(lambda *_: weights)
        for row in range(len(scored)):
            yield _row(extracts, row)

    def _layout(self, values: Callable[[str, str], np.ndarray]) -> Any:
        """By model and output, each level only where there are several; examples are vectors."""

        def of(model: str, output: str) -> np.ndarray:
            found = values(model, output)
            return found.reshape(len(found), -1)

        by_model = {
            model: {output: of(model, output) for output in self._outputs}
            if len(self._outputs) > 1
            else of(model, self._outputs[0])
            for model in self._models
        }
        return by_model if len(self._models) > 1 else by_model[self._models[0]]


def _row(extracts: Any, row: int) -> Any:
    if isinstance(extracts, dict):
        return {key: _row(values, row) for key, values in extracts.items()}
    return extracts[row]


def _values(column: pa.Array) -> list[np.ndarray]:
    """Each row's values; text as bytes, as tf.Example has it, and a missing value as no value."""
    flat, lengths = arrow.flatten(column)
    if pa.types.is_string(flat.type) or pa.types.is_large_string(flat.type):
        flat = flat.cast(pa.binary())
    return np.split(flat.to_numpy(zero_copy_only=False), np.cumsum(lengths)[:-1])


def _slice_keys(encoder: slices.Encoder, examples: batch.Batch) -> list[np.ndarray]:
    found: list[list[Any]] = [[] for _ in range(len(examples))]
    for members in encoder.encode(examples):
        rows = range(len(examples)) if members.rows is None else members.rows.tolist()
        for row, slice_id in zip(rows, members.ids.tolist(), strict=True):
            found[row].append(encoder.keys[slice_id].pairs)
    return [slicer_lib.slice_keys_to_numpy_array(keys) for keys in found]


class _CorrectCombineFn(tfma_evaluator._ComputationsCombineFn):
    """TFMA's combiner of all metrics, with no bundle merged twice."""

    def merge_accumulators(self, accumulators: Iterable[Any], *args: Any, **kwargs: Any) -> Any:
        by_combiner = zip(*accumulators, strict=True)
        # `next(iter(accumulators))` takes the first out of an iterator, but not out of a list.
        return [
            combiner.merge_accumulators(
                iter(parts) if _counts_twice(combiner) else parts, *args, **kwargs
            )
            for combiner, parts in zip(self._combiners, by_combiner, strict=True)
        ]


def _counts_twice(combiner: beam.CombineFn) -> bool:
    return type(combiner).merge_accumulators.__module__ in _COUNT_TWICE


@contextlib.contextmanager
def _correct_merges() -> Iterator[None]:
    """Pipelines that are built meanwhile merge correctly.

    TFMA makes its combiner deep inside, from a name in its module: no argument reaches it.
    """
    original = tfma_evaluator._ComputationsCombineFn
    tfma_evaluator._ComputationsCombineFn = _CorrectCombineFn
    try:
        yield
    finally:
        tfma_evaluator._ComputationsCombineFn = original
