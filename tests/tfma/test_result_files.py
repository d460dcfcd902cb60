"""TFMA itself reads everything that is written."""

import pathlib
from collections.abc import Mapping

import numpy as np
import tensorflow_model_analysis as tfma_package
from tensorflow_model_analysis.metrics import (
    binary_confusion_matrices,
    calibration_histogram,
    calibration_plot,
    metric_types,
    multi_class_confusion_matrix_metrics,
)

from evalbeam.transforms.examples import labels, slices
from evalbeam.transforms.metrics import metric
from evalbeam.transforms.metrics.evaluation import MetricSpec
from evalbeam.transforms.metrics.sheet import Sheet
from evalbeam.transforms.metrics.table import Table
from evalbeam.transforms.results import finish, index
from evalbeam.transforms.tfma import eval_config, protos, result_files

HEADS = [labels.Head("", "y", "binary")]
SLICES = (
    slices.SliceKey("eval"),
    slices.SliceKey("eval", (("age", 5), ("plan", "gold;ünï"))),
    slices.SliceKey("train"),
    slices.SliceKey("eval", (("score", 0.1),)),
)
INSIDE = [0, 1, 3]  # the rows of the split "eval"
AUC, LOSS = metric.Key("auc", "v1"), metric.Key("loss", "v1", weighted=True)


def block(
    results: Mapping[metric.Key, metric.Result],
    plots: Mapping[metric.Key, metric.Result] | None = None,
    least: int = 1,
) -> finish.Block:
    counts = np.array([100.0, 40.0, 1000.0, 5.0])
    reported = np.array([not key.pairs for key in SLICES]) | (counts >= least)
    sheet = Sheet(Table.empty({}))
    return finish.Block(
        SLICES, sheet, reported, counts, counts, results, (), np.arange(4), plots or {}
    )


def config(models: tuple[str, ...] = ("v1", "v2")) -> object:
    return eval_config.build(models, HEADS, [()], [MetricSpec("AUC")], "v1")


def write(
    folder: pathlib.Path,
    results: Mapping[metric.Key, metric.Result],
    models: tuple[str, ...] = ("v1", "v2"),
    plots: Mapping[metric.Key, metric.Result] | None = None,
    least: int = 1,
    **more: object,
) -> None:
    locations = {name: f"models/{name}" for name in models}
    result_files.write_config(folder, config(models), locations, "data.tfrecord", "tfrecord")
    paths = {kind: str(folder / result_files.file_name(kind, 0, 1)) for kind in result_files.KINDS}
    limited = config(models)
    limited.options.min_slice_size.value = least
    with result_files.Writer(paths, limited, **more) as writer:
        writer.add(block(results, plots, least))


def read(folder: pathlib.Path) -> result_files.Messages:
    return result_files.Messages(
        tuple(tfma_package.load_metrics(str(folder))), tuple(tfma_package.load_plots(str(folder)))
    )


def metrics(folder: pathlib.Path) -> list[dict[metric_types.MetricKey, object]]:
    return [
        {
            metric_types.MetricKey.from_proto(kv.key): kv.value
            for kv in message.metric_keys_and_values
        }
        for message in tfma_package.load_metrics(str(folder))
    ]


def plots(folder: pathlib.Path) -> list[dict[metric_types.PlotKey, object]]:
    return [
        {metric_types.PlotKey.from_proto(kv.key): kv.value for kv in message.plot_keys_and_values}
        for message in tfma_package.load_plots(str(folder))
    ]


def test_numbers_and_their_differences(tmp_path: pathlib.Path) -> None:
    old, new = np.array([0.5, 0.25, 9, np.nan]), np.array([0.75, 0.0, 9, 1])
    write(
        tmp_path,
        {metric.Key("auc", "v1"): metric.Values(old), metric.Key("auc", "v2"): metric.Values(new)},
    )
    before = tfma_package.load_eval_result(str(tmp_path), model_name="v1")
    after = tfma_package.load_eval_result(str(tmp_path), model_name="v2")
    assert [key for key, _ in after.slicing_metrics] == [
        (),
        (("age", 5), ("plan", "gold;ünï")),
        (("score", np.float32(0.1)),),
    ]
    for i, row in enumerate(INSIDE):
        for result, name, expected in (
            (before, "auc", old[row]),
            (after, "auc", new[row]),
            (after, "auc_diff", new[row] - old[row]),
        ):
            value = result.slicing_metrics[i][1][""][""][name]["doubleValue"]
            np.testing.assert_equal(float(value), expected)
    assert "auc_diff" not in before.get_metric_names()
    assert after.config == config()
    assert (after.data_location, after.file_format) == ("data.tfrecord", "tfrecord")
    assert after.model_location == "models/v2"
    both = tfma_package.load_eval_results(str(tmp_path))
    assert len(both.get_results()) == 2


def test_a_single_model_has_no_name(tmp_path: pathlib.Path) -> None:
    write(tmp_path, {AUC: metric.Values(np.arange(4.0))}, ("v1",))
    result = tfma_package.load_eval_result(str(tmp_path))
    assert result.get_metrics_for_slice(())["auc"] == {"doubleValue": 0.0}
    assert result.model_location == "models/v1"
    [key] = metrics(tmp_path)[0]
    assert key == metric_types.MetricKey("auc", example_weighted=False)


def test_keys_of_all_variants(tmp_path: pathlib.Path) -> None:
    values = metric.Values(np.arange(4.0))
    keys = {
        metric.Key("a", "v2", output="o", class_id=0, weighted=True): metric_types.MetricKey(
            "a", "v2", "o", metric_types.SubKey(class_id=0), None, True
        ),
        metric.Key("b", "v2", k=2, aggregation="micro"): metric_types.MetricKey(
            "b", "v2", "", metric_types.SubKey(k=2), metric_types.AggregationType(True)
        ),
        metric.Key("c", "v2", top_k=3, aggregation="macro"): metric_types.MetricKey(
            "c",
            "v2",
            "",
            metric_types.SubKey(top_k=3),
            metric_types.AggregationType(macro_average=True),
        ),
        metric.Key("d", "v2", aggregation="weighted_macro"): metric_types.MetricKey(
            "d", "v2", "", None, metric_types.AggregationType(weighted_macro_average=True)
        ),
        metric.Key("flip_rate", "v2", baseline="v1"): metric_types.MetricKey(
            "flip_rate", "v2", is_diff=True
        ),
    }
    write(tmp_path, dict.fromkeys(keys, values))
    assert set(metrics(tmp_path)[0]) == set(keys.values())
    raw = next(iter(tfma_package.load_metrics(str(tmp_path))))
    assert all(kv.key.HasField("example_weighted") for kv in raw.metric_keys_and_values)


def test_arrays(tmp_path: pathlib.Path) -> None:
    old, new = np.arange(12.0).reshape(4, 3), np.ones((4, 3))
    at = (0.1, 0.5, 0.9)
    write(
        tmp_path,
        {
            metric.Key("recall", "v1"): metric.Values(old, at),
            metric.Key("recall", "v2"): metric.Values(new, at),
        },
    )
    for i, row in enumerate(INSIDE):
        read = metrics(tmp_path)[i]
        for key, expected in (
            (metric_types.MetricKey("recall", "v1"), old[row]),
            (metric_types.MetricKey("recall", "v2"), new[row]),
            (metric_types.MetricKey("recall", "v2", is_diff=True), new[row] - old[row]),
        ):
            array = read[key].array_value
            assert list(array.shape) == [3]
            assert array.data_type == array.FLOAT64
            assert list(array.float64_values) == expected.tolist()


def confusions(rng: np.random.Generator, at: tuple[float, ...]) -> metric.Confusions:
    counts = rng.integers(0, 3, (4, 4, len(at))).astype(float)  # zeros: undefined ratios
    return metric.Confusions(at, *counts)


def convert_with_tfma(result: metric.Confusions, row: int) -> object:
    parts = (part[row].tolist() for part in (result.tp, result.tn, result.fp, result.fn))
    matrices = binary_confusion_matrices.Matrices(list(result.thresholds), *parts)
    return matrices.to_proto().confusion_matrix_at_thresholds


def test_confusion_matrices_are_equal_to_tfmas(tmp_path: pathlib.Path) -> None:
    rng = np.random.default_rng(1)
    plotted = confusions(rng, (-1e-6, 0.0, *np.linspace(0, 1, 50)))
    old, new = (confusions(rng, (0.25, 1 / 3)) for _ in range(2))
    at = "confusion_matrix_at_thresholds"
    difference = metric.Confusions(
        old.thresholds, new.tp - old.tp, new.tn - old.tn, new.fp - old.fp, new.fn - old.fn
    )
    write(
        tmp_path,
        {metric.Key(at, "v1"): old, metric.Key(at, "v2"): new},
        plots={
            metric.Key("confusion_matrix_plot", "v1", class_id=1): plotted,
            metric.Key("mine", "v1"): plotted,
        },
    )
    sub_key = metric_types.SubKey(class_id=1)
    for i, row in enumerate(INSIDE):
        read = plots(tmp_path)[i]
        expected = convert_with_tfma(plotted, row).SerializeToString()
        assert set(read) == {
            metric_types.PlotKey("", "v1", sub_key=sub_key),
            metric_types.PlotKey("mine", "v1"),
        }
        for data in read.values():
            assert data.confusion_matrix_at_thresholds.SerializeToString() == expected
        read = metrics(tmp_path)[i]
        for key, result in (
            (metric_types.MetricKey(at, "v1"), old),
            (metric_types.MetricKey(at, "v2"), new),
            (metric_types.MetricKey(at, "v2", is_diff=True), difference),
        ):
            matrices = read[key].confusion_matrix_at_thresholds
            expected = convert_with_tfma(result, row).SerializeToString()
            assert matrices.SerializeToString() == expected
    result = tfma_package.load_eval_result(str(tmp_path), model_name="v1")
    matrices = result.plots[0][1][""]["classId:1"]["confusionMatrixAtThresholds"]["matrices"]
    assert len(matrices) == 52
    assert matrices[0]["threshold"] == -1e-6


def test_calibration_buckets_are_equal_to_tfmas_and_share_the_plot(tmp_path: pathlib.Path) -> None:
    rng = np.random.default_rng(2)
    edges = (0.0, 0.5, 1.0)
    scores, truth, weights = rng.random((3, 4, 4)).round(1)
    weights[0, 1] = truth[0, 1] = scores[0, 1] = 0
    key = metric.Key("calibration_plot", "v1", weighted=True)
    write(
        tmp_path,
        {},
        plots={
            key: metric.Buckets(edges, scores, truth, weights),
            metric.Key("confusion_matrix_plot", "v1", weighted=True): confusions(rng, (0.5,)),
        },
    )
    for i, row in enumerate(INSIDE):
        [(shared, data)] = plots(tmp_path)[i].items()
        assert shared == metric_types.PlotKey("", "v1", example_weighted=True)
        histogram = [
            calibration_histogram.Bucket(n, *sums)
            for n, sums in enumerate(zip(truth[row], scores[row], weights[row], strict=True))
        ]
        expected = calibration_plot._to_proto([-np.inf, *edges], histogram)
        assert data.calibration_histogram_buckets == expected
        assert len(data.confusion_matrix_at_thresholds.matrices) == 1


def test_class_matrices_are_equal_to_tfmas(tmp_path: pathlib.Path) -> None:
    rng = np.random.default_rng(3)
    counts = [rng.integers(0, 2, (4, 3, 4)).astype(float) for _ in range(4)]
    at = (0.7, 0.2)
    name = "multi_class_confusion_matrix_at_thresholds"
    write(
        tmp_path,
        {
            metric.Key(name, "v1"): metric.ClassMatrices(at, tuple(counts[:2])),
            metric.Key(name, "v2"): metric.ClassMatrices(at, tuple(counts[2:])),
        },
        plots={metric.Key("p", "v1"): metric.ClassMatrices(at, tuple(counts[:2]))},
    )

    def expect(parts: list[np.ndarray], row: int) -> object:
        entry = multi_class_confusion_matrix_metrics.MatrixEntryKey
        matrices = multi_class_confusion_matrix_metrics.Matrices(
            {
                threshold: {
                    entry(int(a), -1 if p == 3 else int(p)): part[row, a, p]
                    for a, p in zip(*part[row].nonzero(), strict=True)
                }
                for threshold, part in zip(at, parts, strict=True)
            }
        )
        return matrices.to_proto().multi_class_confusion_matrix_at_thresholds

    for i, row in enumerate(INSIDE):
        read = metrics(tmp_path)[i]
        for key, parts in (
            (metric_types.MetricKey(name, "v1"), counts[:2]),
            (metric_types.MetricKey(name, "v2"), counts[2:]),
            (
                metric_types.MetricKey(name, "v2", is_diff=True),
                [counts[2] - counts[0], counts[3] - counts[1]],
            ),
        ):
            assert read[key].multi_class_confusion_matrix_at_thresholds == expect(parts, row)
        plot = plots(tmp_path)[i][metric_types.PlotKey("p", "v1")]
        assert plot.multi_class_confusion_matrix_at_thresholds == expect(counts[:2], row)


def test_label_matrices(tmp_path: pathlib.Path) -> None:
    counts = np.zeros((4, 2, 2, 4))
    counts[0, 1, 0] = [1, 2, 3, 4]  # TP, FP, TN, FN
    key = metric.Key("multi_label_confusion_matrix_plot", "v1")
    write(tmp_path, {}, plots={key: metric.LabelMatrices((0.5,), (counts,))})
    first, second, _ = plots(tmp_path)
    plot = metric_types.PlotKey("multi_label_confusion_matrix_plot", "v1")
    [matrix] = first[plot].multi_label_confusion_matrix_at_thresholds.matrices
    [entry] = matrix.entries
    assert matrix.threshold == 0.5
    assert (entry.actual_class_id, entry.predicted_class_id) == (1, 0)
    assert (entry.true_positives, entry.false_positives) == (1, 2)
    assert (entry.true_negatives, entry.false_negatives) == (3, 4)
    [empty] = second[plot].multi_label_confusion_matrix_at_thresholds.matrices
    assert not empty.entries


def test_small_slices_have_an_error_message(tmp_path: pathlib.Path) -> None:
    write(tmp_path, {AUC: metric.Values(np.ones(4))}, ("v1",), least=10)
    overall, large, small = tfma_package.load_metrics(str(tmp_path))
    assert len(overall.metric_keys_and_values) == len(large.metric_keys_and_values) == 1
    assert not small.metric_keys_and_values
    assert "minimum required value: 10" in small.metrics["__ERROR__"].debug_message


def test_tfmas_own_results_are_joined_by_slice(tmp_path: pathlib.Path) -> None:
    by_tfma, ours = tmp_path / "tfma", tmp_path / "ours"
    rng = np.random.default_rng(4)
    plotted = confusions(rng, (0.5,))
    loss = metric.Values(np.arange(4.0))
    write(by_tfma, {LOSS: loss}, plots={metric.Key("confusion_matrix_plot", "v1"): plotted})
    extra = read(by_tfma)
    cross = protos.metrics_for_slice_pb2.MetricsForSlice()
    cross.cross_slice_key.SetInParent()
    elsewhere = protos.metrics_for_slice_pb2.MetricsForSlice()
    elsewhere.slice_key.single_slice_keys.add(column="x", int64_value=1)
    extra = result_files.Messages((*extra.metrics, cross, elsewhere), extra.plots)
    sums = np.ones((4, 2))
    buckets = metric.Buckets((0.5,), sums, sums, sums)
    write(
        ours,
        {AUC: metric.Values(np.ones(4))},
        plots={metric.Key("calibration_plot", "v1"): buckets},
        extra=extra,
    )
    loaded = list(tfma_package.load_metrics(str(ours)))
    assert [len(message.metric_keys_and_values) for message in loaded] == [2, 2, 2, 0, 0]
    assert loaded[1].slice_key == extra.metrics[1].slice_key
    assert loaded[3].HasField("cross_slice_key")
    [(_, data)] = plots(ours)[0].items()
    assert len(data.calibration_histogram_buckets.buckets) == 2
    assert len(data.confusion_matrix_at_thresholds.matrices) == 1


def test_tfmas_numbers_are_joined_to_our_blocks(tmp_path: pathlib.Path) -> None:
    at = (0.1, 0.9)
    tfma_config = eval_config.build(
        ["v1", "v2"],
        HEADS,
        [()],
        [MetricSpec("Recall", '{"thresholds": [0.1, 0.9]}'), MetricSpec("AUC")],
        "v1",
    )
    recall = metric.Key("recall", "v2", class_id=1)
    similarity = metric.Key("model_cosine_similarity", "v2", baseline="v1")
    numbers, arrays = np.array([0.5, 0.25, 7.0, 0.75]), np.arange(8.0).reshape(4, 2)
    write(
        tmp_path,
        {
            AUC: metric.Values(numbers),
            metric.Key("auc", "v2"): metric.Values(numbers + 1),
            recall: metric.Values(arrays, at),
            similarity: metric.Values(numbers),
        },
    )
    other = metric.Values(np.zeros(4))
    values = result_files.read_numbers(read(tmp_path), tfma_config, ["v1", "v2"])
    elsewhere = metric.Key("auc", "v2", class_id=7)  # for slices of other parts only
    expected = [
        *(index.Number(key, part.thresholds) for key, part in values.items()),
        index.Number(elsewhere, at),
    ]
    joined = result_files.join(block({AUC: other}), values, expected)
    np.testing.assert_equal(joined.results[elsewhere].values, np.full((4, 2), np.nan))
    assert set(joined.results) == {AUC, metric.Key("auc", "v2"), recall, similarity, elsewhere}
    assert joined.results[AUC] is other
    np.testing.assert_equal(joined.results[similarity].values, [0.5, 0.25, np.nan, 0.75])
    assert joined.results[recall].thresholds == at
    np.testing.assert_equal(joined.results[recall].values[INSIDE], arrays[INSIDE])


def test_data_frames(tmp_path: pathlib.Path) -> None:
    write(tmp_path, {AUC: metric.Values(np.array([0.5, 0.25, 9, 1]))})
    frames = tfma_package.dataframe.metrics_as_dataframes(tfma_package.load_metrics(str(tmp_path)))
    assert frames.double_value["metric_values", "double_value"].tolist() == [0.5, 0.25, 1]


def test_disabled_outputs_are_not_written(tmp_path: pathlib.Path) -> None:
    disabled = config()
    disabled.options.disabled_outputs.values.append("eval_config.json")
    result_files.write_config(tmp_path / "tfma", disabled, {"v1": "", "v2": ""}, "d", "csv")
    metrics_only = {"metrics": str(tmp_path / "tfma" / "metrics-00000-of-00001.tfrecord")}
    with result_files.Writer(metrics_only, disabled) as writer:
        writer.add(block({AUC: metric.Values(np.ones(4))}))
    assert [path.name for path in (tmp_path / "tfma").iterdir()] == [
        "metrics-00000-of-00001.tfrecord"
    ]
