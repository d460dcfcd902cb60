"""Writes a run's results as a TFMA result folder, and reads TFMA's own results.

TFMA's writer creates a Python object for each threshold of each plot. A plot consists of doubles
only, so NumPy lays out its bytes here, for all slices of a block at once. Fields that are 0 are
written explicitly, which proto parsers read as the same message.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from google.protobuf import json_format

from evalbeam.transforms import batch
from evalbeam.transforms.examples import slices
from evalbeam.transforms.formats import files, tfrecord
from evalbeam.transforms.metrics import metric
from evalbeam.transforms.results import compare, finish
from evalbeam.transforms.results.index import Number
from evalbeam.transforms.tfma import eval_config, protos

# A TFMA result has a single data set, so it omits other splits.
_SPLIT = batch.MAIN_SPLIT

# Encodes a row of a block as the bytes of a message.
_Encoder = Callable[[int], bytes]

_VARINT, _DOUBLE, _BYTES = 0, 1, 2  # wire types

# Plots whose default names TFMA omits from their keys, so that they share a message.
_CONFUSION_PLOT, _CALIBRATION_PLOT = "confusion_matrix_plot", "calibration_plot"

# The doubles of ConfusionMatrixAtThreshold, in the order of `_compute_rates`.
_CONFUSION_FIELDS = (
    "threshold",
    "true_positives",
    "true_negatives",
    "false_positives",
    "false_negatives",
    "precision",
    "recall",
    "f1",
    "accuracy",
    "false_positive_rate",
    "false_omission_rate",
)


@dataclass(frozen=True)
class Message:
    """What TFMA computed for a slice: a serialized MetricsForSlice or PlotsForSlice.

    `key` is None for a comparison of two slices.
    """

    key: slices.SliceKey | None
    kind: Literal["metrics", "plots"]
    content: bytes


@dataclass(frozen=True)
class Messages:
    """The records of a TFMA result: its MetricsForSlice and its PlotsForSlice messages."""

    metrics: tuple[Any, ...] = ()
    plots: tuple[Any, ...] = ()

    @staticmethod
    def parse(metrics: Iterable[bytes], plots: Iterable[bytes]) -> Messages:
        """Parses serialized messages."""
        pb2 = protos.metrics_for_slice_pb2
        return Messages(
            tuple(map(pb2.MetricsForSlice.FromString, metrics)),
            tuple(map(pb2.PlotsForSlice.FromString, plots)),
        )


_NOTHING = Messages()

_CONFIG_FILE = "eval_config.json"
KINDS: tuple[Literal["metrics", "plots"], ...] = ("metrics", "plots")


def file_name(kind: str, number: int, count: int) -> str:
    """The file name of a part of a TFMA result."""
    return f"{kind}-{number:05d}-of-{count:05d}.tfrecord"


class Writer(contextlib.AbstractContextManager["Writer"]):
    """Writes the metrics and plots of blocks of results as a part of a TFMA result.

    It adds the differences of metrics, candidate minus baseline. Slices of splits other than "eval"
    are omitted; slices that are too small to be reported have an error message instead of results,
    as in TFMA.

    Args:
      paths: by kind, the file to write; disabled kinds are omitted.
      config: the run's EvalConfig, which has the versions, the baseline and the minimum slice size.
      extra: what TFMA computed for the same slices, to be added to our results.
    """

    def __init__(self, paths: Mapping[str, str], config: Any, extra: Messages = _NOTHING) -> None:
        self._config = config
        self._extra = {
            "metrics": _group_by_slice(extra.metrics),
            "plots": _group_by_slice(extra.plots),
        }
        self._paths = paths
        self._files = {kind: open(path, "wb") for kind, path in paths.items()}  # noqa: SIM115

    def add(self, block: finish.Block) -> None:
        """Writes a block's slices; no slice may be in two blocks."""
        encode_metrics = _make_metrics_encoder(block.results, self._config)
        encode_plots = _make_plots_encoder(block.plots, self._config)
        plotted = {row: place for place, row in enumerate(block.plotted.tolist())}
        records: dict[str, list[bytes]] = {kind: [] for kind in KINDS}
        for row, key in enumerate(block.slices):
            if key.split != _SPLIT:
                continue
            slice_key = _serialize_slice_key(key)
            head = _field(1, slice_key)
            extra = {kind: self._extra[kind].pop(slice_key, []) for kind in KINDS}
            if not block.reported[row]:
                least = self._config.options.min_slice_size.value
                records["metrics"].append(head + _explain_omission(least))
                records["plots"].append(head)
                continue
            rest = b"".join(map(_remove_slice, extra["metrics"]))
            records["metrics"].append(head + encode_metrics(row) + rest)
            records["plots"].append(head + encode_plots(plotted.get(row), extra["plots"]))
        for kind, file in self._files.items():
            with files.reporting(self._paths[kind]):
                tfrecord.write(file, records[kind])

    def add_slice_differences(
        self, block: finish.Block, between: Sequence[compare.SliceDifference]
    ) -> None:
        """Writes how baseline slices differ from a block's: the baseline's minus each, as TFMA."""
        file = self._files.get("metrics")
        if file is None:
            return
        for each in between:
            baseline = each.baseline.slices[0]
            if baseline.split != _SPLIT:
                continue
            differences = {
                key: difference
                for key, result in block.results.items()
                if (before := each.baseline.results.get(key)) is not None
                and (difference := _subtract(before, result)) is not None
            }
            encode_metrics = _make_metrics_encoder(differences, self._config)
            head = _field(1, _serialize_slice_key(baseline))
            keys = {row: _serialize_slice_key(block.slices[row]) for row in each.rows.tolist()}
            tfrecord.write(
                file,
                [
                    _field(3, head + _field(2, key)) + encode_metrics(row)
                    for row, key in keys.items()
                ],
            )

    def __exit__(self, *_: object) -> None:
        with contextlib.ExitStack() as stack:
            for kind, file in self._files.items():
                stack.enter_context(files.reporting(self._paths[kind]))
                stack.enter_context(file)
            for kind, file in self._files.items():
                messages = itertools.chain.from_iterable(self._extra[kind].values())
                with files.reporting(self._paths[kind]):
                    tfrecord.write(file, [message.SerializeToString() for message in messages])


def write_config(
    folder: Path,
    config: Any,
    model_locations: Mapping[str, str],
    data_location: str,
    data_format: str,
) -> None:
    """Writes eval_config.json, unless it is disabled, and creates the folder.

    Args:
      folder: the folder of the TFMA result.
      config: the run's EvalConfig.
      model_locations: each version's path, for display.
      data_location, data_format: the data's path and format, for display.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if _CONFIG_FILE in config.options.disabled_outputs.values:
        return
    # load_eval_result looks up a model by the name in its metrics' keys.
    if len(config.model_specs) < 2:
        model_locations = {"": next(iter(model_locations.values()), "")}
    run = protos.config_pb2.EvalRun(
        eval_config=config,
        version=protos.version(),
        data_location=data_location,
        file_format=data_format,
        model_locations=model_locations,
    )
    with files.writing(str(folder / _CONFIG_FILE)) as path:
        Path(path).write_text(
            json_format.MessageToJson(run, sort_keys=True) + "\n", encoding="utf-8"
        )


@dataclass(frozen=True)
class SliceValues:
    """The values of a metric that TFMA computed, by serialized slice key: a number or an array."""

    thresholds: tuple[float, ...] | None
    values: Mapping[bytes, np.ndarray]


def read_numbers(
    messages: Messages, config: Any, models: Sequence[str]
) -> dict[metric.Key, SliceValues]:
    """Reads the numbers in the messages, by metric.

    An array is read if an argument of its metric is a list of the same length: its thresholds.
    Text, matrices and plots are ignored, and so are the differences that TFMA adds to every metric,
    since we compute them ourselves. A metric that itself compares two versions has the baseline in
    its key.

    Args:
      messages: TFMA's messages.
      config: the EvalConfig that TFMA used.
      models: the versions; TFMA's name "" is the only one of them.
    """
    baseline = _find_baseline(config)
    arguments = _list_arguments(config)
    thresholds: dict[metric.Key, tuple[float, ...] | None] = {}
    values: dict[metric.Key, dict[bytes, np.ndarray]] = {}
    for message in messages.metrics:
        if not message.HasField("slice_key"):
            continue
        slice_key = message.slice_key.SerializeToString(deterministic=True)
        plain = {
            _serialize_metric(e.key) for e in message.metric_keys_and_values if not e.key.is_diff
        }
        for entry in message.metric_keys_and_values:
            if entry.key.is_diff and _serialize_metric(entry.key) in plain:
                continue
            value = _read_value(entry.value)
            at = arguments.get((entry.key.name, value.size)) if value.ndim else None
            if value.size == 0 or (value.ndim and at is None):
                continue
            key = _read_key(entry.key, models, baseline if entry.key.is_diff else None)
            thresholds.setdefault(key, at)
            values.setdefault(key, {})[slice_key] = value
    return {key: SliceValues(thresholds[key], values[key]) for key in values}


def join(
    block: finish.Block, computed: Mapping[metric.Key, SliceValues], expected: Sequence[Number]
) -> finish.Block:
    """Adds the numbers that TFMA computed to the block; our results of the same keys stay.

    Args:
      block: our results.
      computed: TFMA's numbers, see `read_numbers`.
      expected: the numbers that TFMA computed for any slice; NaN where a slice lacks one.
    """
    if not expected:
        return block
    slice_keys = [
        _serialize_slice_key(key) if key.split == _SPLIT else None for key in block.slices
    ]
    results = {}
    for number in expected:
        missing = np.full(() if number.thresholds is None else len(number.thresholds), np.nan)
        values = computed[number.key].values if number.key in computed else {}
        rows = [missing if key is None else values.get(key, missing) for key in slice_keys]
        results[number.key] = metric.Values(np.stack(rows), number.thresholds)
    return replace(block, results={**results, **block.results})


def _make_metrics_encoder(results: Mapping[metric.Key, metric.Result], config: Any) -> _Encoder:
    """Encodes the metric_keys_and_values of a row: all plain numbers at once, then the others."""
    prefixes: list[bytes] = []
    columns: list[np.ndarray] = []
    others: list[_Encoder] = []
    for key, is_diff, result in _add_differences(results, config):
        head = _field(1, _serialize_metric_key(key, is_diff, config))
        if isinstance(result, metric.Values) and result.values.ndim == 1:
            body = head + _open(2, 11) + _open(1, 9) + _tag(1, _DOUBLE)
            prefixes.append(_open(51, len(body) + 8) + body)
            columns.append(result.values)
        else:
            others.append(_make_entry_encoder(51, head, _make_value_encoder(result)))
    if not columns:
        return lambda row: b"".join(encode(row) for encode in others)
    numbers = _interleave(prefixes, np.stack(columns, axis=1))
    return lambda row: b"".join([numbers[row].tobytes(), *(encode(row) for encode in others)])


def _make_value_encoder(result: metric.Result) -> _Encoder:
    """Encodes a MetricValue."""
    if isinstance(result, metric.Values):
        return _make_array_encoder(result.values)
    if isinstance(result, metric.Confusions):
        encode_confusions = _make_confusions_encoder(result)
        return lambda row: _field(5, encode_confusions(row))
    assert isinstance(result, metric.ClassMatrices)
    encode_classes = _make_class_matrices_encoder(result)
    return lambda row: _field(11, encode_classes(row))


def _make_plots_encoder(
    results: Mapping[metric.Key, metric.Result], config: Any
) -> Callable[[int | None, Sequence[Any]], bytes]:
    """Encodes the plot_keys_and_values of a row, merged with those of TFMA's messages."""
    encoders = [
        (_serialize_plot_key(key, config), *_make_plot_encoder(result))
        for key, result in results.items()
    ]

    def encode_plots(row: int | None, extra: Sequence[Any]) -> bytes:
        data: dict[bytes, list[bytes]] = {}
        if row is not None:
            for key, number, encode in encoders:
                data.setdefault(key, []).append(_field(number, encode(row)))
        for message in extra:
            for entry in message.plot_keys_and_values:
                parts = data.setdefault(entry.key.SerializeToString(deterministic=True), [])
                parts.append(entry.value.SerializeToString())
        # Concatenated serialized messages are parsed as the merged message.
        return b"".join(
            _field(8, _field(1, key) + _field(2, b"".join(parts))) for key, parts in data.items()
        )

    return encode_plots


def _make_plot_encoder(result: metric.Result) -> tuple[int, _Encoder]:
    """The field number in PlotData, and an encoder of its content."""
    if isinstance(result, metric.Buckets):
        return 1, _make_buckets_encoder(result)
    if isinstance(result, metric.Confusions):
        return 2, _make_confusions_encoder(result)
    if isinstance(result, metric.ClassMatrices):
        return 4, _make_class_matrices_encoder(result)
    assert isinstance(result, metric.LabelMatrices)
    return 5, _make_label_matrices_encoder(result)


def _add_differences(
    results: Mapping[metric.Key, metric.Result], config: Any
) -> Iterator[tuple[metric.Key, bool, metric.Result]]:
    """Every result and its difference from the baseline, with whether it is a difference."""
    baseline = _find_baseline(config)
    for key, result in results.items():
        is_diff = key.baseline is not None
        yield key, is_diff, result
        before = None if baseline is None else results.get(replace(key, model=baseline))
        if before is None or is_diff or key.model == baseline:
            continue
        if (difference := _subtract(result, before)) is not None:
            yield key, True, difference


def _subtract(result: metric.Result, other: metric.Result) -> metric.Result | None:
    """A result minus another one of its kind; None for results that cannot be subtracted."""
    if isinstance(result, metric.Values) and isinstance(other, metric.Values):
        with np.errstate(invalid="ignore"):  # inf - inf: NaN is correct.
            return replace(result, values=result.values - other.values)
    if isinstance(result, metric.Confusions) and isinstance(other, metric.Confusions):
        counts = {
            name: getattr(result, name) - getattr(other, name) for name in ("tp", "tn", "fp", "fn")
        }
        return replace(result, **counts)
    if isinstance(result, metric.ClassMatrices) and isinstance(other, metric.ClassMatrices):
        pairs = zip(result.counts, other.counts, strict=True)
        return replace(result, counts=tuple(after - before for after, before in pairs))
    return None


def _find_baseline(config: Any) -> str | None:
    return next((spec.name for spec in config.model_specs if spec.is_baseline), None)


def _make_array_encoder(values: np.ndarray) -> _Encoder:
    """Encodes MetricValue.array_value of float64[slices, T]."""
    array = protos.metrics_for_slice_pb2.ArrayValue(
        data_type=protos.metrics_for_slice_pb2.ArrayValue.FLOAT64, shape=values.shape[1:]
    )
    head = array.SerializeToString() + _open(7, 8 * values.shape[1])
    doubles = values.astype("<f8")
    return lambda row: _field(7, head + doubles[row].tobytes())


def _make_confusions_encoder(result: metric.Confusions) -> _Encoder:
    """Encodes ConfusionMatrixAtThresholds."""
    values = _compute_rates(result)
    message = protos.metrics_for_slice_pb2.ConfusionMatrixAtThresholds.ConfusionMatrixAtThreshold
    numbers = [message.DESCRIPTOR.fields_by_name[name].number for name in _CONFUSION_FIELDS]
    tags = [_tag(number, _DOUBLE) for number in numbers]
    return _make_elements_encoder(tags, values)


def _compute_rates(result: metric.Confusions) -> np.ndarray:
    """float64[slices, T, 11]; undefined rates have the values of TFMA's Matrices.to_proto."""
    tp, tn, fp, fn = result.tp, result.tn, result.fp, result.fn
    precision = _ratio(tp, tp + fp, 1.0)
    recall = _ratio(tp, tp + fn, 0.0)
    thresholds = np.array([round(threshold, 6) for threshold in result.thresholds])
    return np.stack(
        [
            np.broadcast_to(thresholds, tp.shape),
            tp,
            tn,
            fp,
            fn,
            precision,
            recall,
            _ratio(2 * precision * recall, precision + recall, 0.0),
            _ratio(tp + tn, tp + tn + fp + fn, 0.0),
            _ratio(fp, tn + fp, 0.0),
            _ratio(fn, tn + fn, np.nan),
        ],
        axis=-1,
    )


def _ratio(numerator: np.ndarray, denominator: np.ndarray, undefined: float) -> np.ndarray:
    out = np.full(numerator.shape, undefined)
    return np.divide(numerator, denominator, out=out, where=denominator > 0)


def _make_buckets_encoder(result: metric.Buckets) -> _Encoder:
    """Encodes CalibrationHistogramBuckets; the three sums are wrapped doubles."""
    shape = result.scores.shape
    lower = np.broadcast_to(np.array([-np.inf, *result.edges]), shape)
    upper = np.broadcast_to(np.array([*result.edges, np.inf]), shape)
    values = np.stack([lower, upper, result.weights, result.labels, result.scores], axis=-1)
    wrapped = [_open(number, 9) + _tag(1, _DOUBLE) for number in (3, 4, 5)]
    return _make_elements_encoder([_tag(1, _DOUBLE), _tag(2, _DOUBLE), *wrapped], values)


def _make_class_matrices_encoder(result: metric.ClassMatrices) -> _Encoder:
    """Encodes MultiClassConfusionMatrixAtThresholds; -1 is "no prediction", as in TFMA."""
    classes = result.counts[0].shape[1]
    predicted = (-1, *range(classes))  # our last column is TFMA's first
    counts = [np.roll(matrix, 1, axis=-1)[..., None] for matrix in result.counts]
    return _make_matrices_encoder(result.thresholds, predicted, counts, fields=(3,))


def _make_label_matrices_encoder(result: metric.LabelMatrices) -> _Encoder:
    """Encodes MultiLabelConfusionMatrixAtThresholds."""
    predicted = range(result.counts[0].shape[1])
    return _make_matrices_encoder(result.thresholds, predicted, result.counts, fields=(6, 5, 4, 3))


def _make_matrices_encoder(
    thresholds: Sequence[float],
    predicted: Sequence[int],
    counts: Sequence[np.ndarray],
    fields: Sequence[int],
) -> _Encoder:
    """Encodes for each threshold a matrix of the (actual, predicted) pairs that occur.

    `counts` has for each threshold float64[slices, K, L, F]: for each of the L classes in
    `predicted`, the F doubles of an entry, whose field numbers are `fields`.
    """
    tags = [_tag(number, _DOUBLE) for number in fields]
    ascending = np.argsort(thresholds)
    pairs = counts[0].shape[1] * len(predicted)
    flat = {i: counts[i].reshape(len(counts[i]), pairs, len(fields)) for i in ascending}

    @functools.cache
    def encode_classes(cell: int) -> bytes:
        actual, place = divmod(cell, len(predicted))
        head = _tag(1, _VARINT) + _varint(actual)
        return head + _tag(2, _VARINT) + _varint(predicted[place])

    def encode_matrix(threshold: float, cells: np.ndarray) -> bytes:
        occur = np.flatnonzero(cells.any(axis=1))
        numbers = _interleave(tags, cells[occur])
        entries = [
            _field(2, encode_classes(cell) + doubles.tobytes())
            for cell, doubles in zip(occur.tolist(), numbers, strict=True)
        ]
        return b"".join([_tag(1, _DOUBLE), struct.pack("<d", threshold), *entries])

    return lambda row: b"".join(
        _field(1, encode_matrix(thresholds[i], cells[row])) for i, cells in flat.items()
    )


def _make_elements_encoder(prefixes: Sequence[bytes], values: np.ndarray) -> _Encoder:
    """Encodes repeated field 1, of messages of doubles: float64[slices, elements, fields].

    All elements have the same fields, so they have the same length.
    """
    size = sum(len(prefix) + 8 for prefix in prefixes)
    rows = _interleave([_open(1, size) + prefixes[0], *prefixes[1:]], values)
    return lambda row: rows[row].tobytes()


def _interleave(prefixes: Sequence[bytes], values: np.ndarray) -> np.ndarray:
    """float64[..., F] -> records[...]: a prefix and a little-endian double, F times."""
    layout: list[tuple[str, str]] = []
    for i, prefix in enumerate(prefixes):
        layout += [(f"prefix{i}", f"V{len(prefix)}"), (f"value{i}", "<f8")]
    rows = np.empty(values.shape[:-1], layout)
    for i, prefix in enumerate(prefixes):
        rows[f"prefix{i}"] = np.void(prefix)
        rows[f"value{i}"] = values[..., i]
    return rows


def _make_entry_encoder(number: int, head: bytes, encode_value: _Encoder) -> _Encoder:
    return lambda row: _field(number, head + _field(2, encode_value(row)))


def _field(number: int, content: bytes) -> bytes:
    """Encodes a field that is a message."""
    return _open(number, len(content)) + content


def _open(number: int, size: int) -> bytes:
    return _tag(number, _BYTES) + _varint(size)


def _tag(number: int, wire_type: int) -> bytes:
    return _varint(number << 3 | wire_type)


def _varint(value: int) -> bytes:
    """Encodes seven bits per byte, the lowest first; negative numbers as 64 bits, as in protos."""
    value &= (1 << 64) - 1
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def _serialize_metric_key(key: metric.Key, is_diff: bool, config: Any) -> bytes:
    message = protos.metrics_for_slice_pb2.MetricKey(name=key.metric, is_diff=is_diff)
    if key.aggregation:
        setattr(message.aggregation_type, f"{key.aggregation}_average", True)
    return _serialize_key(message, key, config)


def _serialize_plot_key(key: metric.Key, config: Any) -> bytes:
    has_name = key.metric not in (_CONFUSION_PLOT, _CALIBRATION_PLOT)
    message = protos.metrics_for_slice_pb2.PlotKey(name=key.metric if has_name else "")
    return _serialize_key(message, key, config)


def _serialize_key(message: Any, key: metric.Key, config: Any) -> bytes:
    # TFMA names a single model "", whatever its version.
    message.model_name = key.model if len(config.model_specs) > 1 else ""
    message.output_name = key.output
    for name in ("class_id", "k", "top_k"):
        if (number := getattr(key, name)) is not None:
            getattr(message.sub_key, name).value = number
    message.example_weighted.value = key.weighted  # present even if False
    serialized: bytes = message.SerializeToString(deterministic=True)
    return serialized


def _serialize_slice_key(key: slices.SliceKey) -> bytes:
    message = protos.metrics_for_slice_pb2.SliceKey()
    for column, value in key.pairs:
        single = message.single_slice_keys.add(column=column)
        if isinstance(value, str):
            single.bytes_value = value.encode()
        elif isinstance(value, int):
            single.int64_value = value
        else:
            single.float_value = value
    serialized: bytes = message.SerializeToString(deterministic=True)
    return serialized


def _group_by_slice(messages: Sequence[Any]) -> dict[bytes | int, list[Any]]:
    """The messages by serialized slice key; comparisons of slices have unique keys."""
    groups: dict[bytes | int, list[Any]] = {}
    for place, message in enumerate(messages):
        has_slice = message.HasField("slice_key")
        key = message.slice_key.SerializeToString(deterministic=True) if has_slice else place
        groups.setdefault(key, []).append(message)
    return groups


def _explain_omission(minimum: int) -> bytes:
    """What TFMA writes for a slice with too few examples; its views look for this text."""
    message = protos.metrics_for_slice_pb2.MetricsForSlice()
    message.metrics["__ERROR__"].debug_message = (
        "Example count for this slice key is lower than the minimum required value: "
        f"{minimum}. No data is aggregated for this slice."
    )
    serialized: bytes = message.SerializeToString()
    return serialized


def _remove_slice(message: Any) -> bytes:
    rest = type(message)()
    rest.CopyFrom(message)
    rest.ClearField("slice_key")
    serialized: bytes = rest.SerializeToString()
    return serialized


def _list_arguments(config: Any) -> dict[tuple[str, int], tuple[float, ...]]:
    """The lists of numbers among the arguments, by metric name and length."""
    lists = {}
    for spec in config.metrics_specs:
        for metric_config in spec.metrics:
            arguments = json.loads(eval_config.normalize_config(metric_config))
            name = arguments.get("name") or metric.snake_case(metric_config.class_name)
            for value in arguments.values():
                if isinstance(value, list) and all(isinstance(v, int | float) for v in value):
                    lists[name, len(value)] = tuple(map(float, value))
    return lists


def _serialize_metric(key: Any) -> bytes:
    """The key of the metric, for the metric itself and for its difference."""
    metric_key = type(key)()
    metric_key.CopyFrom(key)
    metric_key.ClearField("is_diff")
    serialized: bytes = metric_key.SerializeToString(deterministic=True)
    return serialized


def _read_value(value: Any) -> np.ndarray:
    """float64[] or [T]; empty for values that are not numbers."""
    if value.HasField("double_value"):
        return np.array(value.double_value.value)
    array = value.array_value
    numbers = (*array.int32_values, *array.int64_values, *array.float32_values)
    return np.array([*numbers, *array.float64_values], np.float64)


def _read_key(message: Any, models: Sequence[str], baseline: str | None) -> metric.Key:
    kind = message.aggregation_type.WhichOneof("type")
    sub_key = message.sub_key
    return metric.Key(
        metric=message.name,
        model=message.model_name or models[0],
        output=message.output_name,
        class_id=sub_key.class_id.value if sub_key.HasField("class_id") else None,
        k=sub_key.k.value if sub_key.HasField("k") else None,
        top_k=sub_key.top_k.value if sub_key.HasField("top_k") else None,
        aggregation=kind.removesuffix("_average") if kind else "",
        weighted=message.example_weighted.value,
        baseline=baseline,
    )
