"""Our numbers are TFMA's own, slice by slice; where TFMA is wrong, both numbers are shown.

TFMA's computations run in process through its own preprocessors, combiners and derived metrics,
with one accumulator for each slice, so that its wrong merges (see below) stay out of the way.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import metric_cases
import numpy as np
import pytest

from evalbeam.transforms import metrics
from evalbeam.transforms.metrics import metric
from evalbeam.transforms.metrics.evaluation import MetricSpec
from evalbeam.transforms.metrics.sheet import Sheet
from evalbeam.transforms.tfma import catalog


class Tfma:
    """TFMA's metrics of a list of examples."""

    def __init__(self) -> None:
        from tensorflow_model_analysis.evaluators import metrics_plots_and_validations_evaluator
        from tensorflow_model_analysis.metrics import metric_specs, metric_types
        from tensorflow_model_analysis.proto import config_pb2
        from tensorflow_model_analysis.utils import config_util

        self.evaluator = metrics_plots_and_validations_evaluator
        self.specs, self.types = metric_specs, metric_types
        self.config, self.config_util = config_pb2, config_util

    def eval_config(self, specs: Sequence[MetricSpec], weighted: bool) -> Any:
        config = self.config.EvalConfig(
            model_specs=[
                self.config.ModelSpec(
                    name=model,
                    label_key="label",
                    example_weight_key="weight" if weighted else None,
                    is_baseline=model == "base",
                )
                for model in metric_cases.MODELS
            ],
            slicing_specs=[self.config.SlicingSpec()],
        )
        for spec in specs:
            to = config.metrics_specs.add()
            to.metrics.add(class_name=spec.class_name, config=spec.config)
            if spec.weighted is False:
                to.example_weights.unweighted = True
            to.binarize.class_ids.values.extend(spec.class_ids)
            to.binarize.k_list.values.extend(spec.k_list)
            to.binarize.top_k_list.values.extend(spec.top_k_list)
            if not (spec.class_ids or spec.k_list or spec.top_k_list):
                to.ClearField("binarize")
            for field in ("class_ids", "k_list", "top_k_list"):
                if not getattr(spec, field):
                    to.binarize.ClearField(field) if to.HasField("binarize") else None
            if spec.aggregate:
                name = spec.aggregate + "_average"
                setattr(to.aggregate, name, True)
                to.aggregate.top_k_list.values.extend(spec.aggregate_top_k)
                if not spec.aggregate_top_k:
                    to.aggregate.ClearField("top_k_list")
                for class_id, weight in spec.class_weights:
                    to.aggregate.class_weights[class_id] = weight
        return self.config_util.update_eval_config_with_defaults(config, has_baseline=True)

    def combiner(self, specs: Sequence[MetricSpec], weighted: bool) -> Any:
        config = self.eval_config(specs, weighted)
        return self.evaluator._filter_and_separate_computations(
            self.specs.to_computations(list(config.metrics_specs), eval_config=config)
        )

    def preprocessed(self, computations: Any, examples: Sequence[dict[str, Any]]) -> list[Any]:
        do_fn = self.evaluator._PreprocessorDoFn(computations.non_derived_computations)
        do_fn.setup()
        return [
            out
            for extracts in examples
            for out in do_fn.process({**extracts, "_slice_key_types": []})
        ]

    def values(self, computations: Any, inputs: Sequence[Any], bundles: int = 1) -> dict[Any, Any]:
        combine = self.evaluator._ComputationsCombineFn(computations.non_derived_computations)
        combine.setup()
        accumulators = []
        for bundle in range(bundles):
            accumulator = combine.create_accumulator()
            for extracts in inputs[bundle::bundles]:
                accumulator = combine.add_input(accumulator, extracts)
            accumulators.append(accumulator)
        if bundles > 1:
            accumulators = [combine.merge_accumulators(accumulators)]
        results = combine.extract_output(accumulators[0])
        for computation in computations.derived_computations:
            results.update(computation.result(results))
        return {
            key
            if hasattr(key, "name") and not hasattr(key, "aggregation_type")
            else key._replace(aggregation_type=None): value
            for key, value in results.items()
        }

    def key(self, of: metric.Key, plot: bool) -> Any:
        """Without the aggregation: groups hold one each, and TFMA writes some of them wrongly."""
        marks = {"class_id": of.class_id, "k": of.k, "top_k": of.top_k}
        sub_key = self.types.SubKey(**marks) if any(m is not None for m in marks.values()) else None
        kind = self.types.PlotKey if plot else self.types.MetricKey
        return kind(
            name=of.metric,
            model_name=of.model,
            sub_key=sub_key,
            example_weighted=of.weighted,
            is_diff=of.baseline is not None,
        )


@pytest.fixture(scope="session")
def tfma() -> Tfma:
    return Tfma()


def examples_of(data: metric_cases.Data, one_hot: bool = False) -> list[dict[str, Any]]:
    """Extracts in float64, so that TFMA's float32 arithmetic does not blur what is compared."""
    out = []
    for i in range(len(data)):
        label = np.atleast_1d(data.labels[i])
        if one_hot:
            label = np.eye(data.classes or 0)[int(label[0])]
        out.append(
            {
                "features": {},
                "labels": {model: label for model in metric_cases.MODELS},
                "predictions": {
                    model: np.atleast_1d(scores[i]).astype(np.float64)
                    for model, scores in data.predictions.items()
                },
                "example_weights": {
                    model: np.array([1.0 if data.weights is None else data.weights[i]])
                    for model in metric_cases.MODELS
                },
            }
        )
    return out


def numbers(value: Any, like: np.ndarray) -> np.ndarray:
    """TFMA's value in the shape of ours."""
    kind = type(value).__name__
    if kind == "ConfusionMatrixAtThresholds":  # the plot's proto
        fields = ("true_positives", "true_negatives", "false_positives", "false_negatives")
        return np.array([[getattr(m, field) for m in value.matrices] for field in fields])
    if kind == "Matrices" and hasattr(value, "tp"):
        return np.array([value.tp, value.tn, value.fp, value.fn])
    if kind == "CalibrationHistogramBuckets":
        fields = ("total_weighted_refined_prediction", "total_weighted_label")
        sums = [[getattr(b, field).value for b in value.buckets] for field in fields]
        return np.array([*sums, [b.num_weighted_examples.value for b in value.buckets]])
    if kind == "MultiClassConfusionMatrixAtThresholds" or kind == "Matrices":
        proto = value
        if kind == "Matrices":
            proto = value.to_proto().multi_class_confusion_matrix_at_thresholds
        out = np.zeros(like.shape)
        for matrix, into in zip(proto.matrices, out, strict=True):
            for entry in matrix.entries:
                predicted = entry.predicted_class_id
                into[entry.actual_class_id, predicted] = entry.num_weighted_examples
        return out  # -1, no prediction, is the last column
    if kind == "MultiLabelConfusionMatrixAtThresholds":
        out = np.zeros(like.shape)
        fields = ("true_positives", "false_positives", "true_negatives", "false_negatives")
        for matrix, into in zip(value.matrices, out, strict=True):
            for entry in matrix.entries:
                cell = [getattr(entry, field) for field in fields]
                into[entry.actual_class_id, entry.predicted_class_id] = cell
        return out
    return np.asarray(value, np.float64)


Group = tuple[str, str, bool, str]


def _group(case: metric_cases.Case) -> Group:
    """Data, how classes are made binary, and the labels' form: what runs together.

    Class matrices run alone: TFMA's key for them omits their thresholds.
    """
    alone = str(case) if case.class_name.startswith("MultiClassConfusion") else ""
    return case.data, json.dumps(case.spec), case.one_hot, alone


def _groups() -> list[Group]:
    return list(dict.fromkeys(_group(c) for c in metric_cases.CASES if c.tfma is not None))


# Where a slice has one class only, or no weight, TFMA and Keras give 0 and we give NaN.
_ZERO_FOR_UNDEFINED = {
    "AUC",
    "AUCPrecisionRecall",
    "BinaryCrossentropy",
    "RootMeanSquaredError",
    *metric_cases.BOUNDED,
}


@pytest.mark.parametrize("group", _groups(), ids=str)
def test_metrics_are_tfmas(group: Group, tfma: Tfma) -> None:
    data = metric_cases.DATA[group[0]]
    cases = [c for c in metric_cases.CASES if c.tfma is not None and _group(c) == group]
    named = {
        "" if case.class_name == "BooleanFlipRates" else f"case {i}": case
        for i, case in enumerate(cases)
    }
    specs = [case.metric_spec(name or None) for name, case in named.items()]
    computations = tfma.combiner(specs, data.weights is not None)
    inputs = tfma.preprocessed(computations, examples_of(data, group[2]))
    planned = metric_cases.planned(data, specs)
    sums = metric_cases.added(data, planned.statistics)
    slices = metric_cases.rows_by_slice(data)
    sheet = Sheet(sums)
    results = {part.key: part.finish(sheet) for part in planned.metrics}
    compared = set()
    for i, key in enumerate(sums.slices):
        if data.classes and len(key.pairs) > 1:
            continue  # the small slices are in the binary data; Keras takes its time
        with np.errstate(all="ignore"):
            theirs = tfma.values(computations, [inputs[row] for row in slices[key.pairs]])
        for of, result in results.items():
            case = named.get(of.metric, named.get(""))
            assert case is not None
            plot = case.class_name.endswith("Plot")
            ours = metric_cases.numbers(result)[i]
            expected = numbers(theirs[tfma.key(of, plot)], ours)
            if case.class_name in _ZERO_FOR_UNDEFINED and np.isnan(ours):
                assert expected == 0 or np.isnan(expected)
                continue
            assert case.tfma is not None
            np.testing.assert_allclose(
                ours, expected, rtol=case.tfma, atol=1e-9 * (1 + 1e3 * (case.tfma > 1e-9)),
                err_msg=f"{case}: {of} of {key}",
            )  # fmt: skip
            compared.add(str(case))
    assert compared == set(map(str, cases))


def test_default_names_are_tfmas(tfma: Tfma) -> None:
    for class_name in metrics.REGISTRY.keys() - catalog.ONLY_OURS:
        case = next(
            case
            for case in metric_cases.CASES
            if case.class_name == class_name and not case.spec.get("native")
        )
        data = metric_cases.DATA[case.data]
        spec = case.metric_spec()
        computations = tfma.combiner([spec], data.weights is not None)
        theirs = {
            key
            for computation in (
                *computations.non_derived_computations,
                *computations.derived_computations,
            )
            for key in computation.keys
            if not key.name.startswith("_")
        }
        ours = {part.key for part in metric_cases.planned(data, [spec]).metrics}
        plot = class_name.endswith("Plot")
        wanted = {tfma.key(key, plot) for key in ours}
        if case.class_name == "ExampleCount":
            wanted = {key._replace(model_name="") for key in wanted}
            theirs = {key._replace(model_name="") for key in theirs}
        assert wanted <= theirs, class_name


def test_configs_that_tfma_writes_stay_columnar(tfma: Tfma) -> None:
    written = {
        "binary": tfma.specs.default_binary_classification_specs(),
        "multiclass": [
            *tfma.specs.default_multi_class_classification_specs(sparse=True)[:1],
            *tfma.specs.default_multi_class_classification_specs(sparse=False)[:1],
        ],
        "regression": tfma.specs.default_regression_specs(),
    }
    for data_name, specs in written.items():
        for config in (config for spec in specs for config in spec.metrics):
            if config.class_name == "Accuracy":  # Keras's share of scores that equal the label
                continue
            spec = MetricSpec(config.class_name, config.config)
            assert not metric_cases.planned(metric_cases.DATA[data_name], [spec]).by_tfma, config
    for class_name in ("BinaryCrossEntropy", "CategoricalCrossEntropy", "SymmetricFlipRate"):
        config = tfma.specs._serialize_tfma_metric(
            tfma.types.registered_metrics()[class_name]()
        ).config
        data = metric_cases.DATA["multilabel" if "Categorical" in class_name else "binary"]
        assert not metric_cases.planned(data, [MetricSpec(class_name, config)]).by_tfma


# --- where TFMA is wrong ------------------------------------------------------------------------


def _both(
    tfma: Tfma,
    data: metric_cases.Data,
    spec: MetricSpec,
    bundles: int = 1,
    one_hot: bool = False,
) -> tuple[dict[metric.Key, np.ndarray], dict[metric.Key, np.ndarray]]:
    """Ours and TFMA's numbers of all examples, by key."""
    computations = tfma.combiner([spec], data.weights is not None)
    inputs = tfma.preprocessed(computations, examples_of(data, one_hot))
    with np.errstate(all="ignore"):
        results = tfma.values(computations, inputs, bundles)
    planned = metric_cases.planned(data, [spec])
    sheet = Sheet(metric_cases.added(data, planned.statistics, specs=[()]))
    ours, theirs = {}, {}
    for part in planned.metrics:
        ours[part.key] = metric_cases.numbers(part.finish(sheet))[0]
        key = tfma.key(part.key, spec.class_name.endswith("Plot"))
        theirs[part.key] = numbers(results[key], ours[part.key])
    return ours, theirs


@pytest.mark.parametrize(
    "class_name",
    [
        "MeanSquaredError",
        "MeanAbsoluteError",
        "MeanAbsolutePercentageError",
        "MeanSquaredLogarithmicError",
        "BinaryCrossEntropy",
        "SymmetricFlipRate",
    ],
)
def test_tfma_counts_the_first_bundle_twice_when_merging(tfma: Tfma, class_name: str) -> None:
    data = metric_cases.DATA["inner"]
    spec = MetricSpec(class_name)
    ours, once = _both(tfma, data, spec)
    _, merged = _both(tfma, data, spec, bundles=4)
    for key, value in ours.items():
        assert value == pytest.approx(once[key], rel=1e-9)
        if key.baseline or class_name != "SymmetricFlipRate":
            assert merged[key] != pytest.approx(value, rel=1e-4)


def test_tfmas_auc_merges_right(tfma: Tfma) -> None:
    ours, merged = _both(tfma, metric_cases.DATA["inner"], MetricSpec("AUC"), bundles=4)
    for key, value in ours.items():
        assert value == pytest.approx(merged[key], rel=1e-9)


def test_area_of_one_class_is_zero_in_tfma_and_undefined_here(tfma: Tfma) -> None:
    data = metric_cases.DATA["unweighted"]
    for constant in (0.0, 1.0):
        constant_labels = metric_cases.Data(
            "binary", None, data.columns, np.full(len(data), constant), None, data.predictions,
            data.hashes,
        )  # fmt: skip
        ours, theirs = _both(tfma, constant_labels, MetricSpec("AUC"))
        assert all(value == 0 for value in theirs.values())
        assert all(np.isnan(value) for value in ours.values())


def _edge_scores(y: Sequence[float], p: Sequence[float]) -> metric_cases.Data:
    data = metric_cases.binary(seed=61, size=len(y), weighted=False)
    scores = np.array(p)
    return metric_cases.Data(
        "binary", None, data.columns, np.array(y), None, {"base": scores, "cand": scores},
        data.hashes,
    )  # fmt: skip


def test_no_loss_of_a_certain_right_answer_is_nan_in_tfma(tfma: Tfma) -> None:
    data = _edge_scores([0, 1, 1], [0.0, 1.0, 0.5])
    ours, theirs = _both(tfma, data, MetricSpec("BinaryCrossEntropy"))
    assert all(np.isnan(value) for value in theirs.values())  # 0 * log 0
    assert list(ours.values()) == [pytest.approx(math.log(2) / 3)] * 2


def test_kerass_loss_of_a_certain_wrong_answer_is_rounded_in_float32(tfma: Tfma) -> None:
    data = _edge_scores([0, 1], [1.0, 0.5])
    ours, theirs = _both(tfma, data, MetricSpec("BinaryCrossentropy"))
    exact = (-math.log(2e-7) - math.log(0.5 + 1e-7)) / 2
    assert list(ours.values()) == [pytest.approx(exact, rel=1e-8)] * 2
    # 1 - 1e-7 is 0.99999988 in float32.
    assert list(theirs.values()) == [pytest.approx(exact, rel=1e-2)] * 2
    assert list(theirs.values()) != [pytest.approx(exact, rel=1e-4)] * 2


def test_prevalence_threshold_divides_by_zero_in_tfma(tfma: Tfma) -> None:
    data = _edge_scores([0, 1, 1, 0], [0.6, 0.6, 0.4, 0.4])  # recall equals fall-out
    spec = MetricSpec("PrevalenceThreshold")
    with pytest.raises(ZeroDivisionError):
        _both(tfma, data, spec)
    planned = metric_cases.planned(data, [spec])
    sheet = Sheet(metric_cases.added(data, planned.statistics, specs=[()]))
    for part in planned.metrics:
        assert np.isnan(metric_cases.numbers(part.finish(sheet))).all()


@pytest.mark.parametrize("data_name", ["inner", "multilabel"])
def test_prevalence_threshold_is_tfmas_elsewhere(tfma: Tfma, data_name: str) -> None:
    spec = MetricSpec("PrevalenceThreshold")
    ours, theirs = _both(tfma, metric_cases.DATA[data_name], spec)
    for key, value in ours.items():
        assert value == pytest.approx(theirs[key], rel=1e-9)


def test_categorical_cross_entropy_of_class_indices_is_wrong_in_tfma(tfma: Tfma) -> None:
    data = metric_cases.DATA["multiclass"]
    spec = MetricSpec("CategoricalCrossEntropy")
    ours, sparse = _both(tfma, data, spec)
    _, dense = _both(tfma, data, spec, one_hot=True)
    for key, value in ours.items():
        rows = metric_cases.rows_of(data, np.arange(len(data)), key.model, True)
        assert value == pytest.approx(metric_cases.categorical(rows, key, spec), rel=1e-9)
        assert value == pytest.approx(dense[key], rel=1e-9)
        # The index itself is multiplied with the logarithms of all classes' scores.
        assert sparse[key] != pytest.approx(value, rel=0.1)


def test_falling_thresholds_lose_predictions_in_tfma(tfma: Tfma) -> None:
    data = metric_cases.DATA["multiclass unweighted"]
    falling = MetricSpec("MultiClassConfusionMatrixAtThresholds", '{"thresholds": [0.6, 0.2]}')
    rising = MetricSpec("MultiClassConfusionMatrixAtThresholds", '{"thresholds": [0.2, 0.6]}')
    ours, _ = _both(tfma, data, falling)
    ours_rising, theirs_rising = _both(tfma, data, rising)
    _, theirs = _both(tfma, data, falling)  # its matrices come sorted by threshold
    for key, value in ours.items():
        np.testing.assert_array_equal(value[::-1], ours_rising[key])
        np.testing.assert_array_equal(ours_rising[key], theirs_rising[key])
        # Once "no prediction", an example stays so at the lower threshold.
        assert theirs[key][0][:, -1].sum() > value[1][:, -1].sum() == 0


def test_class_matrices_at_other_thresholds_are_the_first_ones_in_tfma(tfma: Tfma) -> None:
    data = metric_cases.DATA["multiclass unweighted"]
    specs = [
        MetricSpec("MultiClassConfusionMatrixPlot"),  # at 0
        MetricSpec("MultiClassConfusionMatrixAtThresholds"),  # at 0.5
    ]
    computations = tfma.combiner(specs, False)
    results = tfma.values(computations, tfma.preprocessed(computations, examples_of(data)))
    planned = metric_cases.planned(data, specs)
    sheet = Sheet(metric_cases.added(data, planned.statistics, specs=[()]))
    for part, spec in zip(planned.metrics, np.repeat(specs, 2), strict=True):
        ours = metric_cases.numbers(part.finish(sheet))[0]
        rows = metric_cases.rows_of(data, np.arange(len(data)), part.key.model, True)
        expected = metric_cases.class_matrices(rows, part.key, spec)
        np.testing.assert_array_equal(ours, expected)
        theirs = results[tfma.key(part.key, spec.class_name.endswith("Plot"))]
        agrees = (numbers(theirs, ours) == ours).all()
        assert agrees == (spec is specs[0])


def test_top_k_of_all_classes_loses_scores_below_one_in_tfma(tfma: Tfma) -> None:
    """One score of exactly 1, none omitted: TFMA takes the first bucket for the omitted ones."""
    data = metric_cases.multiclass(size=30, weighted=False)
    scores = data.predictions["cand"].copy()
    scores[0] = [1.0, 0.0, 0.0, 0.0]
    certain = metric_cases.Data(
        "multiclass", 4, data.columns, data.labels, None, {"base": scores, "cand": scores},
        data.hashes,
    )  # fmt: skip
    ours, theirs = _both(tfma, certain, MetricSpec("TruePositives", top_k_list=(4,)))
    for key, value in ours.items():
        assert value == len(certain)  # every class is among all four
        assert theirs[key] <= 1


def test_class_weights_of_top_k_go_by_place_in_tfma(tfma: Tfma) -> None:
    """... and so TFMA refuses them in its config, where we weigh each class as it says."""
    data = metric_cases.DATA["multiclass"]
    spec = MetricSpec(
        "TruePositives", aggregate="micro", aggregate_top_k=(2,), class_weights=((0, 1.0),)
    )
    with pytest.raises(ValueError, match="class_weights are not supported when top_k_list"):
        tfma.combiner([spec], True)
    planned = metric_cases.planned(data, [spec])
    sheet = Sheet(metric_cases.added(data, planned.statistics, specs=[()]))
    for part in planned.metrics:
        rows = metric_cases.rows_of(data, np.arange(len(data)), part.key.model, True)
        falling = np.argsort(-rows.p, axis=1, kind="stable")[:, :2]
        hit = (rows.y == 0) & (falling == 0).any(axis=1)
        assert metric_cases.numbers(part.finish(sheet)) == pytest.approx([rows.w[hit].sum()])


def test_logarithmic_error_below_minus_one_is_skipped_by_tfma(tfma: Tfma) -> None:
    data = metric_cases.regression(size=20)
    scores = data.predictions["cand"].copy()
    scores[3] = -2.0
    below = metric_cases.Data(
        "regression", None, data.columns, data.labels, data.weights,
        {"base": scores, "cand": scores}, data.hashes,
    )  # fmt: skip
    ours, theirs = _both(tfma, below, MetricSpec("MeanSquaredLogarithmicError"))
    assert all(np.isfinite(value) for value in theirs.values())  # the mean of the others
    assert all(np.isnan(value) for value in ours.values())  # log(-1) is not defined


def test_weighted_macro_average_is_keyed_as_macro_in_tfma(tfma: Tfma) -> None:
    spec = MetricSpec("Precision", aggregate="weighted_macro", class_weights=((0, 1.0), (1, 1.0)))
    computations = tfma.combiner([spec], True)
    keys = [key for computation in computations.derived_computations for key in computation.keys]
    aggregated = [key.aggregation_type for key in keys if key.name == "precision"]
    assert any(of is not None and of.macro_average for of in aggregated)
    assert not any(of is not None and of.weighted_macro_average for of in aggregated)
    planned = metric_cases.planned(metric_cases.DATA["multiclass"], [spec])
    assert {part.key.aggregation for part in planned.metrics} == {"weighted_macro"}


def test_top_k_collapses_across_aggregations_in_tfma(tfma: Tfma) -> None:
    """Its histogram's key omits the aggregation, so the two share one computation."""
    data = metric_cases.DATA["multiclass"]
    binarized = MetricSpec("TruePositives", '{"name": "one"}', top_k_list=(2,))
    micro = MetricSpec("FalsePositives", '{"name": "two"}', aggregate="micro", aggregate_top_k=(2,))
    apart, _ = _both(tfma, data, micro)
    negatives = MetricSpec("TrueNegatives", '{"name": "three"}', top_k_list=(2,))
    averaged = MetricSpec(
        "TrueNegatives", '{"name": "four"}', aggregate="micro", aggregate_top_k=(2,)
    )
    computations = tfma.combiner([binarized, micro, negatives, averaged], True)
    inputs = tfma.preprocessed(computations, examples_of(data))
    results = tfma.values(computations, inputs)
    planned = metric_cases.planned(data, [negatives, averaged])
    sheet = Sheet(metric_cases.added(data, planned.statistics, specs=[()]))
    for part in planned.metrics:
        ours = metric_cases.numbers(part.finish(sheet))[0]
        spec = averaged if part.key.aggregation else negatives
        rows = metric_cases.rows_of(data, np.arange(len(data)), part.key.model, True)
        assert ours == pytest.approx(metric_cases.decided(rows, part.key, spec), abs=1e-9)
        # What is omitted with an aggregation is not a negative; TFMA counts it as one here.
        theirs = next(
            value
            for key, value in results.items()
            if key.name == part.key.metric and key.model_name == part.key.model
        )
        agrees = theirs == pytest.approx(ours, abs=1e-6)
        assert agrees == (part.key.metric == "three")
    del apart
