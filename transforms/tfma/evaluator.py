"""Evaluates with TFMA's own evaluators, for metrics without a columnar kernel and for comparison.

Everything here runs in Python for each example, as in TFMA. Importing this module imports TFMA,
which takes 16 seconds: import it only where it is needed.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from tensorflow_model_analysis.writers import metrics_plots_and_validations_writer

from evalbeam.transforms import arrow, batch, errors
from evalbeam.transforms.examples import labels, slices
from evalbeam.transforms.tfma.result_files import Message

# Their merge_accumulators merges all accumulators into the first one, including the first one
# itself, so its bundle counts twice.
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
class EvaluateWithTfma(beam.PTransform[pvalue.PCollection[batch.Scored], pvalue.PCollection]):
    """PCollection[Scored] of one split -> PCollection[Message].

    Attributes:
      eval_config: the serialized EvalConfig, see `eval_config.build_for_tfma`.
      models: the versions, in the order of its model_specs.
      heads: the outputs to evaluate.
      slices: the slicing specs to use; those of `eval_config` are ignored.
      correct: whether to fix TFMA's five merges that count a bundle twice.
    """

    eval_config: bytes
    models: tuple[str, ...]
    heads: tuple[labels.Head, ...]
    slices: tuple[slices.Spec, ...]
    correct: bool
    one_hot: bool

    def expand(self, scored: pvalue.PCollection[batch.Scored]) -> pvalue.PCollection:
        """Applies TFMA's evaluator to our examples.

        Raises:
          ConfigError: TFMA rejects the config or a metric.
        """
        several = len(self.models) > 1
        extracts = scored | "ToExtracts" >> beam.ParDo(
            _ToExtracts(self.models, self.heads, self.slices, self.one_hot)
        )
        try:
            config = config_util.update_eval_config_with_defaults(
                config_pb2.EvalConfig.FromString(self.eval_config), has_baseline=several
            )
            evaluator = tfma_evaluator.MetricsPlotsAndValidationsEvaluator(eval_config=config)
            with _correct_merges() if self.correct else contextlib.nullcontext():
                evaluation = extracts | evaluator.stage_name >> evaluator.ptransform
        except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
            if "does not support example weights" in str(error):
                name = re.search(r"'name': '(\w+)'", str(error))
                raise errors.ConfigError(
                    f"metrics: {name[1] if name else 'a metric by TFMA'} does not take example "
                    "weights: set `weighted: false` for it"
                ) from error
            raise errors.ConfigError(f"TFMA rejects the evaluation: {error}") from error
        return (
            evaluation[constants.METRICS_KEY] | "Metrics" >> beam.Map(_to_metrics),
            evaluation[constants.PLOTS_KEY] | "Plots" >> beam.Map(_to_plots),
        ) | "Messages" >> beam.Flatten()


def _to_metrics(values: Any) -> Message:
    message = metrics_plots_and_validations_writer.convert_slice_metrics_to_proto(values, [])
    return Message(_to_slice_key(values[0]), "metrics", message.SerializeToString())


def _to_plots(values: Any) -> Message:
    message = metrics_plots_and_validations_writer.convert_slice_plots_to_proto(values, [])
    return Message(_to_slice_key(values[0]), "plots", message.SerializeToString())


def _to_slice_key(slice_key: Any) -> slices.SliceKey | None:
    if slicer_lib.is_cross_slice_key(slice_key):
        return None
    return slices.SliceKey(batch.MAIN_SPLIT, tuple(slice_key))


class _ToExtracts(beam.DoFn):
    """Converts scored batches to extracts of single examples, as made by TFMA's extractors."""

    def __init__(
        self,
        models: Sequence[str],
        heads: Sequence[labels.Head],
        specs: Sequence[slices.Spec],
        one_hot: bool,
    ) -> None:
        self._models = models
        self._one_hot = {
            head.output: head.classes or 0
            for head in heads
            if one_hot and head.task == "multiclass"
        }
        self._outputs = tuple(head.output for head in heads)
        self._specs = specs

    def setup(self) -> None:
        self._encoder = slices.Encoder(self._specs)

    def process(self, scored: batch.Scored) -> Iterator[dict[str, Any]]:
        examples = scored.batch
        names, arrays = examples.columns.schema.names, examples.columns.columns
        extracts: dict[str, Any] = {
            constants.FEATURES_KEY: dict(zip(names, map(_split_values, arrays), strict=True)),
            constants.LABELS_KEY: self._arrange(
                lambda _, output: self._encode_labels(scored.labels[output], output)
            ),
            constants.PREDICTIONS_KEY: self._arrange(
                lambda model, output: scored.predictions[model, output]
            ),
            constants.SLICE_KEY_TYPES_KEY: _list_slice_keys(self._encoder, examples),
        }
        if (weights := scored.weights) is not None:
            extracts[constants.EXAMPLE_WEIGHTS_KEY] = self._arrange(lambda *_: weights)
        for row in range(len(scored)):
            yield _take_row(extracts, row)

    def _encode_labels(self, values: np.ndarray, output: str) -> np.ndarray:
        """Class indices one-hot, if that is what the metrics take; no class is all zeros."""
        if output not in self._one_hot:
            return values
        return (values[:, None] == np.arange(self._one_hot[output])).astype(np.float64)

    def _arrange(self, get: Callable[[str, str], np.ndarray]) -> Any:
        """Values by model and output, with a level only if there are several; each is a vector."""

        def get_vectors(model: str, output: str) -> np.ndarray:
            values = get(model, output)
            return values.reshape(len(values), -1)

        by_model = {
            model: {output: get_vectors(model, output) for output in self._outputs}
            if len(self._outputs) > 1
            else get_vectors(model, self._outputs[0])
            for model in self._models
        }
        return by_model if len(self._models) > 1 else by_model[self._models[0]]


def _take_row(extracts: Any, row: int) -> Any:
    if isinstance(extracts, dict):
        return {key: _take_row(values, row) for key, values in extracts.items()}
    return extracts[row]


def _split_values(column: pa.Array) -> list[np.ndarray]:
    """The values of each row: text as bytes, as in tf.Example; empty for a missing value."""
    flat, lengths = arrow.flatten(column)
    if pa.types.is_string(flat.type) or pa.types.is_large_string(flat.type):
        flat = flat.cast(pa.binary())
    return np.split(flat.to_numpy(zero_copy_only=False), np.cumsum(lengths)[:-1])


def _list_slice_keys(encoder: slices.Encoder, examples: batch.Batch) -> list[np.ndarray]:
    by_row: list[list[Any]] = [[] for _ in range(len(examples))]
    for members in encoder.encode(examples):
        rows = range(len(examples)) if members.rows is None else members.rows.tolist()
        for row, slice_id in zip(rows, members.ids.tolist(), strict=True):
            by_row[row].append(encoder.keys[slice_id].pairs)
    return [slicer_lib.slice_keys_to_numpy_array(keys) for keys in by_row]


class _CorrectCombineFn(tfma_evaluator._ComputationsCombineFn):
    """TFMA's combiner of all metrics, which merges no bundle twice."""

    def merge_accumulators(self, accumulators: Iterable[Any], *args: Any, **kwargs: Any) -> Any:
        by_combiner = zip(*accumulators, strict=True)
        # `next(iter(accumulators))` consumes the first element of an iterator, but not of a list.
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
    """Pipelines built in this context merge correctly.

    TFMA looks its combiner up by name in its module, so only a patch can replace it.
    """
    original = tfma_evaluator._ComputationsCombineFn
    tfma_evaluator._ComputationsCombineFn = _CorrectCombineFn
    try:
        yield
    finally:
        tfma_evaluator._ComputationsCombineFn = original
