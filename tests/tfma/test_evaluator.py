import functools
import pathlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
import tensorflow_model_analysis as tfma_package
from google.protobuf import json_format, text_format
from tensorflow_model_analysis.metrics import metric_types

from evalbeam.beam_jobs.launch import runner
from evalbeam.transforms import batch, errors
from evalbeam.transforms.examples import labels, slices
from evalbeam.transforms.formats import tfrecord
from evalbeam.transforms.metrics import adding, metric, plan
from evalbeam.transforms.metrics.evaluation import Evaluation, MetricSpec
from evalbeam.transforms.results import finish
from evalbeam.transforms.tfma import eval_config, evaluator, metric_classes, protos, result_files

MODELS = ("v1", "v2")
SPECS = ((), (slices.Term("plan"),), (slices.Term("age"), slices.Term("tags")))


@dataclass(frozen=True)
class Data:
    """Examples as in tf.Example, and the same as the previous stages emit them."""

    columns: pa.RecordBatch
    labels: np.ndarray
    weights: np.ndarray
    predictions: dict[str, np.ndarray]

    def batches(self, count: int) -> list[batch.Scored]:
        return [self._scored(rows) for rows in np.array_split(np.arange(len(self.labels)), count)]

    def _scored(self, rows: np.ndarray) -> batch.Scored:
        examples = batch.Batch(
            batch.Shard("eval", "memory", "memory"), rows, self.columns.take(pa.array(rows))
        )
        return batch.Scored(
            examples,
            {"": self.labels[rows]},
            self.weights[rows],
            rows.astype(np.uint64),
            {(name, ""): values[rows] for name, values in self.predictions.items()},
            dict.fromkeys(self.predictions, 0.0),
        )


def data(classes: int | None, size: int = 60) -> Data:
    rng = np.random.default_rng(5)
    weights = rng.random(size).astype(np.float32).astype(float) + 0.5
    if classes is None:
        truth = rng.integers(0, 2, size).astype(float)
        scores = {name: rng.random(size).astype(np.float32) for name in MODELS}
    else:
        truth = rng.integers(0, classes, size).astype(float)
        scores = {name: rng.dirichlet(np.ones(classes), size).astype(np.float32) for name in MODELS}
    plans = rng.choice([b"free", b"paid"], size).tolist()
    tags = [rng.choice([b"a", b"b", b"c"], rng.integers(0, 4)).tolist() for _ in range(size)]
    ages = [None if rng.random() < 0.2 else [int(rng.integers(0, 3))] for _ in range(size)]
    columns = {
        "plan": pa.array([[name] for name in plans], pa.large_list(pa.large_binary())),
        "tags": pa.array(tags, pa.large_list(pa.large_binary())),
        "age": pa.array(ages, pa.large_list(pa.int64())),
        "query": pa.array(
            [[int(query)] for query in rng.integers(0, 9, size)], pa.large_list(pa.int64())
        ),
        "y": pa.array([[value] for value in truth], pa.large_list(pa.float32())),
        "w": pa.array([[value] for value in weights], pa.large_list(pa.float32())),
        **{
            name: pa.array(values.reshape(size, -1).tolist(), pa.large_list(pa.float32()))
            for name, values in scores.items()
        },
    }
    return Data(pa.record_batch(columns), truth, weights, scores)


def evaluate(
    folder: pathlib.Path,
    examples: Data,
    config: object,
    head: labels.Head,
    models: tuple[str, ...] = MODELS,
    batches: int = 1,
    correct: bool = True,
    specs: tuple[slices.Spec, ...] = SPECS,
    flags: Sequence[str] = (),
) -> result_files.Messages:
    result_files.write_config(folder, config, dict.fromkeys(models, ""), "", "")
    with runner.pipeline(runner.options(flags)) as pipeline:
        _ = (
            pipeline
            | beam.Create(examples.batches(batches))
            | evaluator.EvaluateWithTfma(
                config.SerializeToString(), models, (head,), specs, correct, one_hot=False
            )
            | beam.Map(lambda message: (message.kind, message.content))
            | beam.GroupByKey()
            | beam.MapTuple(functools.partial(write_records, str(folder)))
        )
    return load_result(folder)


def write_records(folder: str, kind: str, records: Iterable[bytes]) -> None:
    path = pathlib.Path(folder) / result_files.file_name(kind, 0, 1)
    with path.open("wb") as file:
        tfrecord.write(file, list(records))


def load_result(folder: pathlib.Path) -> result_files.Messages:
    """Loads a TFMA result with TFMA."""
    has_plots = any(folder.glob("plots*"))
    return result_files.Messages(
        tuple(tfma_package.load_metrics(str(folder))),
        tuple(tfma_package.load_plots(str(folder))) if has_plots else (),
    )


def evaluate_by_tfma_alone(
    folder: pathlib.Path, examples: Data, config: object, models: tuple[str, ...]
) -> result_files.Messages:
    """Evaluates with TFMA and its own extractors, on predictions stored in the data."""
    stored = protos.config_pb2.EvalConfig()
    stored.CopyFrom(config)
    for name, spec in zip(models, stored.model_specs, strict=True):
        spec.prediction_key = name
        spec.model_type = "materialized_prediction"
    shared = [
        tfma_package.default_eval_shared_model("none", model_name=spec.name, eval_config=stored)
        for spec in stored.model_specs
    ]
    shared = shared if len(shared) > 1 else shared[0]
    extracts = {"arrow_record_batch": examples.columns}
    with runner.pipeline(runner.options(())) as pipeline:
        evaluation = (
            pipeline
            | beam.Create([extracts], reshuffle=False)
            | tfma_package.ExtractAndEvaluate(
                extractors=tfma_package.default_extractors(
                    eval_shared_model=shared, eval_config=stored
                ),
                evaluators=tfma_package.default_evaluators(
                    eval_shared_model=shared, eval_config=stored
                ),
            )
        )
        _ = evaluation | tfma_package.WriteResults(
            writers=tfma_package.default_writers(
                str(folder), eval_shared_model=shared, eval_config=stored
            )
        )
    return load_result(folder)


def values(messages: result_files.Messages) -> dict[tuple[object, ...], object]:
    metrics = {
        (message.slice_key.SerializeToString(), str(metric_types.MetricKey.from_proto(kv.key))): (
            kv.value
        )
        for message in messages.metrics
        for kv in message.metric_keys_and_values
    }
    plots = {
        (message.slice_key.SerializeToString(), str(metric_types.PlotKey.from_proto(kv.key))): (
            kv.value
        )
        for message in messages.plots
        for kv in message.plot_keys_and_values
    }
    return metrics | plots


def number(messages: result_files.Messages, name: str) -> float:
    [value] = [
        kv.value.double_value.value
        for message in messages.metrics
        for kv in message.metric_keys_and_values
        if kv.key.name == name and not message.slice_key.single_slice_keys
    ]
    return value


BINARY = labels.Head("", "y", "binary")
BINARY_METRICS = (
    MetricSpec("ExampleCount"),
    MetricSpec("WeightedExampleCount"),
    MetricSpec("AUC", '{"num_thresholds": 100}'),
    MetricSpec("Recall", '{"thresholds": [0.2, 0.8]}', weighted=False),
    MetricSpec("MeanSquaredError"),
    MetricSpec("ConfusionMatrixPlot", '{"num_thresholds": 4}'),
    MetricSpec("CalibrationPlot", '{"num_buckets": 4}'),
    MetricSpec("SymmetricFlipRate"),
    MetricSpec("LogCoshError"),
)
CLASSES = labels.Head("", "y", "multiclass", 3)
CLASS_METRICS = (
    MetricSpec("Precision", class_ids=(0, 2), top_k_list=(2,)),
    MetricSpec("Recall", aggregate="macro", class_weights=((0, 1.0), (1, 2.0))),
    MetricSpec("AUC", '{"num_thresholds": 100}', aggregate="micro"),
    MetricSpec("MultiClassConfusionMatrixPlot"),
    MetricSpec("SparseCategoricalAccuracy"),
)


@pytest.mark.parametrize(
    ("head", "metric_specs", "models"),
    [
        (BINARY, BINARY_METRICS, MODELS),
        (CLASSES, CLASS_METRICS, MODELS),
        (BINARY, BINARY_METRICS[:4], ("v1",)),
    ],
    ids=["binary", "multiclass", "one model"],
)
def test_equals_tfma_on_its_own(
    head: labels.Head,
    metric_specs: Sequence[MetricSpec],
    models: tuple[str, ...],
    tmp_path: pathlib.Path,
) -> None:
    examples = data(head.classes)
    config = eval_config.build(models, [head], SPECS, metric_specs, "v1", "w")
    ours = evaluate(tmp_path / "ours", examples, config, head, models)
    alone = evaluate_by_tfma_alone(tmp_path / "tfma", examples, config, models)
    actual, expected = values(ours), values(alone)
    assert actual.keys() == expected.keys()
    # Overall, 2 plans, and 3 ages x 3 tags.
    assert len({slice_key for slice_key, _ in actual}) == 12
    for key, value in expected.items():
        assert_close(actual[key], value, key)
    assert tfma_package.load_eval_result(
        str(tmp_path / "ours"), model_name=models[-1] if len(models) > 1 else None
    ).slicing_metrics


COLUMNAR = (
    # By default, TFMA's is the sum of the weights, under the same name.
    MetricSpec("ExampleCount", weighted=False),
    MetricSpec("ConfusionMatrixAtThresholds", '{"thresholds": [0.3]}'),
    # No AUC: for a slice with a single class, TFMA's is 0, and ours undefined.
    *(
        spec
        for spec in BINARY_METRICS
        if spec.class_name not in ("ExampleCount", "AUC", "LogCoshError")
    ),
)
CLASS_MATRICES = (
    MetricSpec("MultiClassConfusionMatrixPlot"),
    MetricSpec("MultiLabelConfusionMatrixPlot"),
    MetricSpec("Precision", class_ids=(0, 2)),
    MetricSpec("Recall", aggregate="micro"),
)
# Not together with the plot, as TFMA would use the same thresholds for both. And ascending: in
# other orders, TFMA keeps "no prediction" for an example at the thresholds that follow.
AT_THRESHOLDS = (MetricSpec("MultiClassConfusionMatrixAtThresholds", '{"thresholds": [0.4, 0.6]}'),)


@pytest.mark.parametrize(
    ("head", "metric_specs"),
    [(BINARY, COLUMNAR), (CLASSES, CLASS_MATRICES), (CLASSES, AT_THRESHOLDS)],
    ids=["binary", "classes", "thresholds"],
)
def test_our_results_are_written_as_by_tfma(
    head: labels.Head, metric_specs: Sequence[MetricSpec], tmp_path: pathlib.Path
) -> None:
    examples = data(head.classes)
    config = eval_config.build(MODELS, [head], SPECS, metric_specs, "v1", "w")
    evaluation = Evaluation(
        MODELS, (head,), tuple(metric_specs), baseline="v1", weight="w", slices=SPECS
    )
    planned = plan.plan(evaluation)
    assert not planned.by_tfma
    adder = adding.Adder(SPECS, planned.statistics, 10)
    for scored in examples.batches(3):
        adder.add(scored)
    table = adder.table()
    (tmp_path / "ours").mkdir()
    paths = {
        kind: str(tmp_path / "ours" / result_files.file_name(kind, 0, 1))
        for kind in result_files.KINDS
    }
    with result_files.Writer(paths, config) as writer:
        for block in finish.finish(table, evaluation, table.slices):
            writer.add(block)
    expected = values(evaluate(tmp_path / "tfma", examples, config, head))
    actual = values(load_result(tmp_path / "ours"))
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        assert_close(drop_zeros(actual[key]), drop_zeros(value), key)


def drop_zeros(value: object) -> object:
    """Drops the zeros that TFMA writes in differences of class matrices where versions agree."""
    kept = type(value)()
    kept.CopyFrom(value)
    for matrix in kept.multi_class_confusion_matrix_at_thresholds.matrices:
        entries = [entry for entry in matrix.entries if abs(entry.num_weighted_examples) > 1e-9]
        del matrix.entries[:]
        matrix.entries.extend(entries)
    return kept


def assert_close(actual: object, expected: object, key: object) -> None:
    """The messages are equal to 1e-6, as labels and weights have 32 bits in TFMA, and here."""
    texts = [text_format.MessageToString(message).split() for message in (actual, expected)]
    for left, right in zip(*texts, strict=True):
        try:
            assert float(left) == pytest.approx(float(right), rel=1e-6, nan_ok=True), key
        except ValueError:
            assert left == right, key


def similarity(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    return (before * after).sum(axis=1) / norms


def difference(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return 2 * np.abs(after - before) / np.abs(after + before)


@pytest.mark.parametrize(
    ("name", "head", "definition"),
    [
        ("ModelCosineSimilarity", CLASSES, similarity),
        ("SymmetricPredictionDifference", BINARY, difference),
    ],
)
def test_no_bundle_counts_twice(
    name: str,
    head: labels.Head,
    definition: Callable[[np.ndarray, np.ndarray], np.ndarray],
    tmp_path: pathlib.Path,
) -> None:
    examples = data(head.classes)
    config = eval_config.build(MODELS, [head], [()], [MetricSpec(name)], "v1")
    threads = ("--direct_num_workers=4", "--direct_running_mode=multi_threading")
    corrected, original = (
        number(
            evaluate(
                tmp_path / str(correct),
                examples,
                config,
                head,
                batches=7,
                correct=correct,
                specs=((),),
                flags=threads,
            ),
            metric.snake_case(name),
        )
        for correct in (True, False)
    )
    scores = (examples.predictions[model].astype(float) for model in MODELS)
    expected = definition(*scores).mean()
    assert corrected == pytest.approx(expected, rel=1e-6)
    # TFMA's own result; once this fails, TFMA is fixed and `correct` can be removed.
    assert original != pytest.approx(expected, rel=1e-4)


def test_ranking_and_users_metrics(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_metrics.py").write_text(USER_METRIC)
    monkeypatch.syspath_prepend(str(tmp_path))
    examples = data(None)
    highest = MetricSpec("Highest", module="their_metrics")
    metric_classes.check_metric(highest)
    ndcg = text_format.Parse(
        'query_key: "query" metrics { class_name: "NDCG" config: \'"gain_key": "y", '
        '"top_k_list": [2], "name": "ndcg"\' }',
        protos.config_pb2.MetricsSpec(),
    )
    config = eval_config.build(
        ("v1",), [BINARY], SPECS, [highest], tfma_metrics=[json_format.MessageToJson(ndcg)]
    )
    messages = evaluate(tmp_path / "result", examples, config, BINARY, ("v1",), batches=3)
    assert number(messages, "highest") == examples.predictions["v1"].max()
    assert 0 < number(messages, "ndcg") <= 1


USER_METRIC = """
import apache_beam as beam
from tensorflow_model_analysis.metrics import metric_types, metric_util

class Highest(metric_types.Metric):
    def __init__(self, name="highest"):
        super().__init__(metric_util.merge_per_key_computations(_highest), name=name)

def _highest(name, eval_config, model_name="", output_name=""):
    key = metric_types.MetricKey(name, model_name, output_name)
    return [metric_types.MetricComputation([key], None, _Highest(key))]

class _Highest(beam.CombineFn):
    def __init__(self, key):
        self.key = key
    def create_accumulator(self):
        return 0.0
    def add_input(self, accumulator, element):
        return max(accumulator, element.prediction.item())
    def merge_accumulators(self, accumulators):
        return max(accumulators)
    def extract_output(self, accumulator):
        return {self.key: accumulator}
"""


def test_slices_may_be_bins(tmp_path: pathlib.Path) -> None:
    examples = data(None)
    binned = ((slices.Term("age", edges=(1.0,)),),)
    config = eval_config.build(("v1",), [BINARY], binned, [MetricSpec("ExampleCount")])
    messages = evaluate(tmp_path, examples, config, BINARY, ("v1",), specs=binned)
    ages = [age[0] for age in examples.columns.column("age").to_pylist() if age]
    assert {
        message.slice_key.single_slice_keys[0].bytes_value.decode(): int(
            message.metric_keys_and_values[0].value.double_value.value
        )
        for message in messages.metrics
    } == {"(-inf, 1)": ages.count(0), "[1, inf)": len(ages) - ages.count(0)}


def test_what_tfma_rejects_is_a_config_error(tmp_path: pathlib.Path) -> None:
    config = eval_config.build(("v1",), [BINARY], SPECS, [MetricSpec("NDCG")])
    with pytest.raises(errors.ConfigError, match=r"TFMA rejects the evaluation: .*gain_key"):
        evaluate(tmp_path, data(None), config, BINARY, ("v1",))
