"""A run's results as a TFMA result folder, and the way back.

TFMA's own writer makes a Python object of each threshold of each plot. A plot is nothing but
doubles, so here its bytes are laid out by NumPy, for all slices of a block at once. Fields that
are 0 stand there explicitly, which every proto parser takes for the same message.
"""

from __future__ import annotations

import functools
import os
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

import google_crc32c
import numpy as np
from google.protobuf import json_format

from transforms import errors, slices
from transforms.formats import files
from transforms.metrics import metric, tfma

# Results of some slices: arrays of as many rows.
Block = tuple[Sequence[slices.SliceKey], Mapping[metric.Key, metric.Result]]

_SPLIT = "eval"  # TFMA knows one data set; the other splits have no place in its result.
_LENGTH, _CRC = struct.Struct("<Q"), struct.Struct("<I")
# Plots under these names have none in their keys and share one message, as TFMA has it.
_UNNAMED = {
    "confusion_matrix_plot": "confusion_matrix_at_thresholds",
    "calibration_plot": "calibration_histogram_buckets",
}


@dataclass(frozen=True)
class Messages:
    """The records of a TFMA result.

    Attributes:
      metrics: MetricsForSlice messages.
      plots: PlotsForSlice messages.
    """

    metrics: tuple[Any, ...] = ()
    plots: tuple[Any, ...] = ()


def write(
    folder: str,
    blocks: Iterable[Block],
    config: Any,
    model_locations: Mapping[str, str],
    data_location: str,
    data_format: str,
    extra: Messages | None = None,
    validation: Any = None,
) -> None:
    """Writes metrics, plots and eval_config.json into a local folder, which it creates.

    Beside each version's metrics stand their differences from the baseline's, candidate minus
    baseline. Slices of other splits than "eval" are left out.

    Args:
      folder: where to.
      blocks: the results; no slice stands in two blocks.
      config: the run's EvalConfig, which names the versions and the baseline.
      model_locations: each version's path, for display.
      data_location: the data's path, for display.
      data_format: the data's format, for display.
      extra: what TFMA computed of the same versions; it joins our results slice by slice.
      validation: a ValidationResult, if the run has one.
    """
    os.makedirs(folder, exist_ok=True)
    names = [spec.name for spec in config.model_specs]
    several = len(names) > 1
    baseline = next((spec.name for spec in config.model_specs if spec.is_baseline), None)
    metrics, plots = _by_slice(extra or Messages())
    with _shard(folder, "metrics") as metrics_file, _shard(folder, "plots") as plots_file:
        for keys, results in blocks:
            rows = np.array([i for i, key in enumerate(keys) if key.split == _SPLIT], np.int64)
            whole = _Metrics(_with_differences(results, baseline if several else None), several)
            drawn = _Plots(results, several)
            for row in rows:
                key = _slice_key(keys[row]).SerializeToString(deterministic=True)
                added = [one.SerializeToString() for one in metrics.pop(key, ())]
                _write_record(metrics_file, b"".join([_field(1, key), *whole.of(row), *added]))
                entries = [entry for one in plots.pop(key, ()) for entry in one]
                _write_record(plots_file, b"".join([_field(1, key), *drawn.of(row, entries)]))
    raise NotImplementedError
