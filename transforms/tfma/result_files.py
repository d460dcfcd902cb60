"""A run's results as a TFMA result folder, and the way back.

TFMA's own writer makes a Python object of each threshold of each plot. A plot is nothing but
doubles, so here NumPy lays out its bytes, for all slices of a block at once. Fields that are 0
stand there explicitly, which to a proto parser is the same message.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import json_format

from evalbeam.transforms import batch, errors
from evalbeam.transforms.examples import slices
from evalbeam.transforms.formats import files, tfrecord
from evalbeam.transforms.metrics import metric
from evalbeam.transforms.results import finish
from evalbeam.transforms.tfma import eval_config, protos

# TFMA knows one data set; results of other splits have no place in its folder.
_SPLIT = batch.MAIN_SPLIT

# A row of a block -> the bytes of a message.
_Row = Callable[[int], bytes]

_VARINT, _DOUBLE, _BYTES = 0, 1, 2  # wire types

# Two plots whose default names TFMA leaves out of their keys, so that they share a message.
_CONFUSION_PLOT, _CALIBRATION_PLOT = "confusion_matrix_plot", "calibration_plot"

# The doubles of ConfusionMatrixAtThreshold, in the order of `_rates`.
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
class Messages:
    """The records of a TFMA result: its MetricsForSlice and its PlotsForSlice messages."""

    metrics: tuple[Any, ...] = ()
    plots: tuple[Any, ...] = ()


_NOTHING = Messages()


class Writer(contextlib.AbstractContextManager["Writer"]):
    """Writes metrics, plots and eval_config.json into a local folder, which it creates.

    Beside the versions' metrics stand their differences from the baseline's, candidate minus
    baseline. Slices of other splits than "eval" are left out; those of fewer examples than the
    config's min_slice_size have a remark in place of results, as TFMA has it.

    Args:
      folder: where to.
      config: the run's EvalConfig, which names the versions and the baseline.
      model_locations: each version's path, for display.
      data_location: the data's path, for display.
      data_format: the data's format, for display.
      extra: what TFMA computed of the same versions; it joins our results slice by slice.
    """

    def __init__(
        self,
        folder: str | Path,
        config: Any,
        model_locations: Mapping[str, str],
        data_location: str,
        data_format: str,
        extra: Messages = _NOTHING,
    ) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        _write_config(folder, config, model_locations, data_location, data_format)
        self._config = config
        self._extra_metrics, self._extra_plots = _by_slice(extra.metrics), _by_slice(extra.plots)
        self._metrics = open(folder / "metrics-00000-of-00001.tfrecord", "wb")  # noqa: SIM115
        self._plots = open(folder / "plots-00000-of-00001.tfrecord", "wb")  # noqa: SIM115

    def add(self, block: finish.Block) -> None:
        """Writes a block's slices; no slice stands in two blocks."""
        minimum = self._config.options.min_slice_size.value
        metrics_of = _metrics(block.results, self._config)
        plots_of = _plots(block.plots, self._config)
        drawn = {row: place for place, row in enumerate(block.plotted.tolist())}
        metrics, plots = [], []
        for row, key in enumerate(block.slices):
            if key.split != _SPLIT:
                continue
            slice_key = _slice_key(key)
            head = _field(1, slice_key)
            more_metrics = self._extra_metrics.pop(slice_key, [])
            more_plots = self._extra_plots.pop(slice_key, [])
            if key.pairs and block.examples[row] < minimum:
                metrics.append(head + _too_small(minimum))
                plots.append(head)
                continue
            rest = b"".join(map(_without_slice, more_metrics))
            metrics.append(head + metrics_of(row) + rest)
            plots.append(head + plots_of(drawn.get(row), more_plots))
        tfrecord.write(self._metrics, metrics)
        tfrecord.write(self._plots, plots)

    def __exit__(self, *_: object) -> None:
        left = ((self._extra_metrics, self._metrics), (self._extra_plots, self._plots))
        for by_slice, file in left:
            messages = [message for found in by_slice.values() for message in found]
            tfrecord.write(file, [message.SerializeToString() for message in messages])
            file.close()


def read(folder: str | Path) -> Messages:
    """The records of a TFMA result folder, local or remote.

    Raises:
      JobError: a damaged file.
    """
    folder, pb2 = str(folder), protos.metrics_for_slice_pb2
    return Messages(
        tuple(map(pb2.MetricsForSlice.FromString, _records(folder, "metrics"))),
        tuple(map(pb2.PlotsForSlice.FromString, _records(folder, "plots"))),
    )


def joined(
    blocks: Iterable[finish.Block], messages: Messages, config: Any, models: Sequence[str]
) -> Iterator[finish.Block]:
    """Our blocks with the numbers that TFMA computed, where they have none of the same key.

    Arrays join where an argument of their metric is a list of as many numbers: their thresholds.
    Text, matrices and plots do not; they are in the messages. Nor do the differences that TFMA
    takes of every metric, which are ours to take; a metric that itself compares two versions
    names the baseline in its key. Where a slice has no such number it is NaN.

    Args:
      blocks: our results.
      messages: TFMA's.
      config: the EvalConfig they were made with.
      models: the versions; the only one stands for TFMA's "".
    """
    found = _numbers(messages, config, models)
    if not found:
        yield from blocks
        return
    for block in blocks:
        theirs = {}
        slice_keys = [_slice_key(key) if key.split == _SPLIT else b"" for key in block.slices]
        inside = np.array([key.split == _SPLIT for key in block.slices])
        for key, (thresholds, by_slice) in found.items():
            shape = () if thresholds is None else (len(thresholds),)
            nothing = np.full(shape, np.nan)
            rows = [
                by_slice.get(slice_key, nothing) if one else nothing
                for slice_key, one in zip(slice_keys, inside, strict=True)
            ]
            theirs[key] = metric.Values(np.stack(rows), thresholds)
        yield replace(block, results={**theirs, **block.results})


def _metrics(results: Mapping[metric.Key, metric.Result], config: Any) -> _Row:
    """The metric_keys_and_values of a row: all plain numbers in one go, then the others."""
    prefixes: list[bytes] = []
    columns: list[np.ndarray] = []
    others: list[_Row] = []
    for key, is_diff, result in _with_differences(results, config):
        head = _field(1, _metric_key(key, is_diff, config))
        if isinstance(result, metric.Values) and result.values.ndim == 1:
            body = head + _open(2, 11) + _open(1, 9) + _tag(1, _DOUBLE)
            prefixes.append(_open(51, len(body) + 8) + body)
            columns.append(result.values)
        else:
            others.append(_entry(51, head, _value(result)))
    if not columns:
        return lambda row: b"".join(other(row) for other in others)
    numbers = _interleave(prefixes, np.stack(columns, axis=1))
    return lambda row: b"".join([numbers[row].tobytes(), *(other(row) for other in others)])


def _value(result: metric.Result) -> _Row:
    """A MetricValue."""
    if isinstance(result, metric.Values):
        return _array(result.values)
    if isinstance(result, metric.Confusions):
        matrices = _confusions(result)
        return lambda row: _field(5, matrices(row))
    assert isinstance(result, metric.ClassMatrices)
    classes = _class_matrices(result)
    return lambda row: _field(11, classes(row))


def _plots(
    results: Mapping[metric.Key, metric.Result], config: Any
) -> Callable[[int | None, Sequence[Any]], bytes]:
    """The plot_keys_and_values of a row, joined with those of TFMA's messages of the slice."""
    drawn = [(_plot_key(key, config), *_plot(result)) for key, result in results.items()]

    def plots_of(row: int | None, extra: Sequence[Any]) -> bytes:
        data: dict[bytes, list[bytes]] = {}
        if row is not None:
            for key, number, of_row in drawn:
                data.setdefault(key, []).append(_field(number, of_row(row)))
        for message in extra:
            for entry in message.plot_keys_and_values:
                parts = data.setdefault(entry.key.SerializeToString(deterministic=True), [])
                parts.append(entry.value.SerializeToString())
        # Several parts of a plot, one after the other, are a proto's way of merging them.
        return b"".join(
            _field(8, _field(1, key) + _field(2, b"".join(parts))) for key, parts in data.items()
        )

    return plots_of


def _plot(result: metric.Result) -> tuple[int, _Row]:
    """The field of PlotData and its content."""
    if isinstance(result, metric.Buckets):
        return 1, _buckets(result)
    if isinstance(result, metric.Confusions):
        return 2, _confusions(result)
    if isinstance(result, metric.ClassMatrices):
        return 4, _class_matrices(result)
    assert isinstance(result, metric.LabelMatrices)
    return 5, _label_matrices(result)


def _with_differences(
    results: Mapping[metric.Key, metric.Result], config: Any
) -> Iterator[tuple[metric.Key, bool, metric.Result]]:
    """Every result, whether it is a difference, and the differences from the baseline."""
    baseline = _baseline(config)
    for key, result in results.items():
        compares = key.baseline is not None
        yield key, compares, result
        before = None if baseline is None else results.get(replace(key, model=baseline))
        if before is None or compares or key.model == baseline:
            continue
        if isinstance(result, metric.Values) and isinstance(before, metric.Values):
            yield key, True, replace(result, values=result.values - before.values)
        elif isinstance(result, metric.Confusions) and isinstance(before, metric.Confusions):
            counts = {
                name: getattr(result, name) - getattr(before, name)
                for name in ("tp", "tn", "fp", "fn")
            }
            yield key, True, replace(result, **counts)
        elif isinstance(result, metric.ClassMatrices) and isinstance(before, metric.ClassMatrices):
            pairs = zip(result.counts, before.counts, strict=True)
            yield key, True, replace(result, counts=tuple(after - old for after, old in pairs))


def _baseline(config: Any) -> str | None:
    return next((spec.name for spec in config.model_specs if spec.is_baseline), None)


def _array(values: np.ndarray) -> _Row:
    """MetricValue.array_value of float64[slices, T]."""
    array = protos.metrics_for_slice_pb2.ArrayValue(
        data_type=protos.metrics_for_slice_pb2.ArrayValue.FLOAT64, shape=values.shape[1:]
    )
    head = array.SerializeToString() + _open(7, 8 * values.shape[1])
    doubles = values.astype("<f8")
    return lambda row: _field(7, head + doubles[row].tobytes())


def _confusions(result: metric.Confusions) -> _Row:
    """ConfusionMatrixAtThresholds."""
    values = _rates(result)
    message = protos.metrics_for_slice_pb2.ConfusionMatrixAtThresholds.ConfusionMatrixAtThreshold
    numbers = [message.DESCRIPTOR.fields_by_name[name].number for name in _CONFUSION_FIELDS]
    tags = [_tag(number, _DOUBLE) for number in numbers]
    return _elements(tags, values)


def _rates(result: metric.Confusions) -> np.ndarray:
    """float64[slices, T, 11]; what is undefined is what TFMA's Matrices.to_proto makes of it."""
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


def _buckets(result: metric.Buckets) -> _Row:
    """CalibrationHistogramBuckets; the three sums are wrapped doubles."""
    shape = result.scores.shape
    lower = np.broadcast_to(np.array([-np.inf, *result.edges]), shape)
    upper = np.broadcast_to(np.array([*result.edges, np.inf]), shape)
    values = np.stack([lower, upper, result.weights, result.labels, result.scores], axis=-1)
    wrapped = [_open(number, 9) + _tag(1, _DOUBLE) for number in (3, 4, 5)]
    return _elements([_tag(1, _DOUBLE), _tag(2, _DOUBLE), *wrapped], values)


def _class_matrices(result: metric.ClassMatrices) -> _Row:
    """MultiClassConfusionMatrixAtThresholds; -1 is "no prediction", as in TFMA."""
    classes = result.counts[0].shape[1]
    predicted = (-1, *range(classes))  # our last column is TFMA's first
    counts = [np.roll(one, 1, axis=-1)[..., None] for one in result.counts]
    return _matrices(result.thresholds, predicted, counts, fields=(3,))


def _label_matrices(result: metric.LabelMatrices) -> _Row:
    """MultiLabelConfusionMatrixAtThresholds."""
    predicted = range(result.counts[0].shape[1])
    return _matrices(result.thresholds, predicted, result.counts, fields=(6, 5, 4, 3))


def _matrices(
    thresholds: Sequence[float],
    predicted: Sequence[int],
    counts: Sequence[np.ndarray],
    fields: Sequence[int],
) -> _Row:
    """For each threshold a matrix of the (actual, predicted) pairs that occur.

    `counts`, for each threshold, is float64[slices, K, L, F]: for each of the L classes
    `predicted` the F doubles of an entry, whose field numbers are `fields`.
    """
    tags = [_tag(number, _DOUBLE) for number in fields]
    ascending = np.argsort(thresholds)
    pairs = counts[0].shape[1] * len(predicted)
    flat = {i: counts[i].reshape(len(counts[i]), pairs, len(fields)) for i in ascending}

    @functools.cache
    def head(cell: int) -> bytes:
        actual, place = divmod(cell, len(predicted))
        of_actual = _tag(1, _VARINT) + _varint(actual)
        return of_actual + _tag(2, _VARINT) + _varint(predicted[place])

    def matrix(threshold: float, cells: np.ndarray) -> bytes:
        occur = np.flatnonzero(cells.any(axis=1))
        numbers = _interleave(tags, cells[occur])
        entries = [
            _field(2, head(cell) + number.tobytes())
            for cell, number in zip(occur.tolist(), numbers, strict=True)
        ]
        return b"".join([_tag(1, _DOUBLE), struct.pack("<d", threshold), *entries])

    return lambda row: b"".join(
        _field(1, matrix(thresholds[i], cells[row])) for i, cells in flat.items()
    )


def _elements(prefixes: Sequence[bytes], values: np.ndarray) -> _Row:
    """A repeated field, number 1, of messages of doubles: float64[slices, elements, fields].

    As every element has the same fields, they all have the same length.
    """
    size = sum(len(prefix) + 8 for prefix in prefixes)
    rows = _interleave([_open(1, size) + prefixes[0], *prefixes[1:]], values)
    return lambda row: rows[row].tobytes()


def _interleave(prefixes: Sequence[bytes], values: np.ndarray) -> np.ndarray:
    """float64[..., F] -> rows[...] of bytes: a prefix and a little-endian double, F times."""
    layout: list[tuple[str, str]] = []
    for i, prefix in enumerate(prefixes):
        layout += [(f"prefix{i}", f"V{len(prefix)}"), (f"value{i}", "<f8")]
    rows = np.empty(values.shape[:-1], layout)
    for i, prefix in enumerate(prefixes):
        rows[f"prefix{i}"] = np.void(prefix)
        rows[f"value{i}"] = values[..., i]
    return rows


def _entry(number: int, head: bytes, value: _Row) -> _Row:
    return lambda row: _field(number, head + _field(2, value(row)))


def _field(number: int, content: bytes) -> bytes:
    """A field that holds a message."""
    return _open(number, len(content)) + content


def _open(number: int, size: int) -> bytes:
    return _tag(number, _BYTES) + _varint(size)


def _tag(number: int, wire_type: int) -> bytes:
    return _varint(number << 3 | wire_type)


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; a negative number as 64 bits, as protos have it."""
    value &= (1 << 64) - 1
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def _metric_key(key: metric.Key, is_diff: bool, config: Any) -> bytes:
    message = protos.metrics_for_slice_pb2.MetricKey(name=key.metric, is_diff=is_diff)
    if key.aggregation:
        setattr(message.aggregation_type, f"{key.aggregation}_average", True)
    return _fill_key(message, key, config)


def _plot_key(key: metric.Key, config: Any) -> bytes:
    named = key.metric not in (_CONFUSION_PLOT, _CALIBRATION_PLOT)
    message = protos.metrics_for_slice_pb2.PlotKey(name=key.metric if named else "")
    return _fill_key(message, key, config)


def _fill_key(message: Any, key: metric.Key, config: Any) -> bytes:
    # TFMA calls the model of an evaluation of one "", whatever its name.
    message.model_name = key.model if len(config.model_specs) > 1 else ""
    message.output_name = key.output
    for name in ("class_id", "k", "top_k"):
        if (number := getattr(key, name)) is not None:
            getattr(message.sub_key, name).value = number
    message.example_weighted.value = key.weighted  # present, even where it is False
    serialized: bytes = message.SerializeToString(deterministic=True)
    return serialized


def _slice_key(key: slices.SliceKey) -> bytes:
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


def _by_slice(messages: Sequence[Any]) -> dict[bytes | int, list[Any]]:
    """Messages by their serialised slice keys; those of two slices have a key of their own."""
    found: dict[bytes | int, list[Any]] = {}
    for place, message in enumerate(messages):
        single = message.HasField("slice_key")
        key = message.slice_key.SerializeToString(deterministic=True) if single else place
        found.setdefault(key, []).append(message)
    return found


def _too_small(minimum: int) -> bytes:
    """What TFMA writes for a slice of too few examples; its views look for this text."""
    message = protos.metrics_for_slice_pb2.MetricsForSlice()
    message.metrics["__ERROR__"].debug_message = (
        "Example count for this slice key is lower than the minimum required value: "
        f"{minimum}. No data is aggregated for this slice."
    )
    serialized: bytes = message.SerializeToString()
    return serialized


def _without_slice(message: Any) -> bytes:
    rest = type(message)()
    rest.CopyFrom(message)
    rest.ClearField("slice_key")
    serialized: bytes = rest.SerializeToString()
    return serialized


def _write_config(
    folder: Path,
    config: Any,
    model_locations: Mapping[str, str],
    data_location: str,
    data_format: str,
) -> None:
    """eval_config.json; load_eval_result looks a model up by the name its metrics have."""
    if len(config.model_specs) < 2:
        model_locations = {"": next(iter(model_locations.values()), "")}
    run = protos.config_pb2.EvalRun(
        eval_config=config,
        version=protos.version(),
        data_location=data_location,
        file_format=data_format,
        model_locations=model_locations,
    )
    (folder / "eval_config.json").write_text(
        json_format.MessageToJson(run) + "\n", encoding="utf-8"
    )


def _records(folder: str, kind: str) -> Iterator[bytes]:
    for path in files.match(os.path.join(folder, f"{kind}*.tfrecord")):
        for run in tfrecord.records(files.blocks(path)):
            if isinstance(run, files.Damage):
                raise errors.JobError(f"{path}: {run.reason}; run the evaluation again")
            yield from run


# By key: the thresholds of an array, or None, and each slice's number or array.
_Numbers = dict[metric.Key, tuple[tuple[float, ...] | None, dict[bytes, np.ndarray]]]


def _numbers(messages: Messages, config: Any, models: Sequence[str]) -> _Numbers:
    baseline = _baseline(config)
    arguments = _list_arguments(config)
    found: _Numbers = {}
    for message in messages.metrics:
        if not message.HasField("slice_key"):
            continue
        slice_key = message.slice_key.SerializeToString(deterministic=True)
        plain = {_bare(e.key) for e in message.metric_keys_and_values if not e.key.is_diff}
        for entry in message.metric_keys_and_values:
            if entry.key.is_diff and _bare(entry.key) in plain:
                continue
            numbers = _read_value(entry.value)
            thresholds = arguments.get((entry.key.name, numbers.size)) if numbers.ndim else None
            if numbers.size == 0 or (numbers.ndim and thresholds is None):
                continue
            key = _read_key(entry.key, models, baseline if entry.key.is_diff else None)
            found.setdefault(key, (thresholds, {}))[1][slice_key] = numbers
    return found


def _list_arguments(config: Any) -> dict[tuple[str, int], tuple[float, ...]]:
    """By metric name and length: the lists of numbers among the arguments."""
    found = {}
    for spec in config.metrics_specs:
        for given in spec.metrics:
            arguments = json.loads(eval_config.config_json(given))
            name = arguments.get("name") or metric.snake_case(given.class_name)
            for value in arguments.values():
                if isinstance(value, list) and all(isinstance(v, int | float) for v in value):
                    found[name, len(value)] = tuple(map(float, value))
    return found


def _bare(key: Any) -> bytes:
    """A metric's key, be it the metric's or its difference's."""
    bare = type(key)()
    bare.CopyFrom(key)
    bare.ClearField("is_diff")
    serialized: bytes = bare.SerializeToString(deterministic=True)
    return serialized


def _read_value(value: Any) -> np.ndarray:
    """float64[] or [T]; empty for what is no number."""
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
