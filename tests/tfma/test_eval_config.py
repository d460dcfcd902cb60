import pathlib
import subprocess
import sys
import textwrap

import pytest

from evalbeam.transforms import errors
from evalbeam.transforms.examples import labels, slices
from evalbeam.transforms.metrics import plan
from evalbeam.transforms.tfma import eval_config, metric_classes, protos

TEXT = """
model_specs { name: "v1" is_baseline: true label_key: "y" example_weight_key: "w" }
model_specs { name: "v2" signature_name: "serving" label_key: "y" example_weight_key: "w"
              prediction_keys { key: "a" value: "pa" } }
slicing_specs {}
slicing_specs { feature_keys: "plan" feature_values { key: "age" value: "5" } }
metrics_specs {
  binarize { class_ids { values: [0, 2] } top_k_list { values: 2 } }
  aggregate { macro_average: true class_weights { key: 1 value: 0.5 }
              class_weights { key: 0 value: 1 } }
  metrics { class_name: "Recall" config: '"thresholds": [0.5]'
            threshold { value_threshold { lower_bound { value: 0.8 } }
                        change_threshold { direction: HIGHER_IS_BETTER
                                           absolute { value: -0.01 } } } }
}
metrics_specs {
  model_names: "v2"
  example_weights { weighted: true unweighted: true }
  metrics { class_name: "AUC"
            per_slice_thresholds { slicing_specs { feature_keys: "plan" }
                                   threshold { value_threshold { upper_bound { value: 1 } } } } }
  thresholds { key: "loss" value { change_threshold { direction: LOWER_IS_BETTER
                                                      relative { value: 0.1 } } } }
}
metrics_specs { query_key: "q" metrics { class_name: "NDCG" config: '{"gain_key": "y"}' } }
options { min_slice_size { value: 10 } disabled_outputs { values: "plots" }
          compute_confidence_intervals { value: true } }
"""


@pytest.fixture
def config(tmp_path: pathlib.Path) -> object:
    path = tmp_path / "config.pbtxt"
    path.write_text(TEXT)
    return eval_config.read_eval_config(str(path))


def test_protos_are_those_of_tfma_whichever_is_imported_first() -> None:
    program = """
        import importlib, sys
        from evalbeam.transforms.tfma import protos
        assert "tensorflow_model_analysis" not in sys.modules
        from tensorflow_model_analysis.proto import config_pb2, metrics_for_slice_pb2
        for _ in range(2):
            assert protos.config_pb2.EvalConfig is config_pb2.EvalConfig
            assert protos.metrics_for_slice_pb2.MetricKey is metrics_for_slice_pb2.MetricKey
            importlib.reload(protos)  # and now the other way round
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)


def test_eval_config_in(config: object) -> None:
    found = eval_config.evaluation(config)
    assert found.models == (
        eval_config.Model("v1", True, "", (("", "y"),), (), (("", "w"),)),
        eval_config.Model("v2", False, "serving", (("", "y"),), (("a", "pa"),), (("", "w"),)),
    )
    assert found.slices == ((), (slices.Term("age", "5"), slices.Term("plan")))
    recall = plan.MetricSpec("Recall", '{"thresholds": [0.5]}')
    auc = plan.MetricSpec("AUC", models=("v2",))
    assert found.metrics == (
        plan.MetricSpec("Recall", recall.config, class_ids=(0, 2), top_k_list=(2,)),
        plan.MetricSpec(
            "Recall", recall.config, aggregate="macro", class_weights=((0, 1.0), (1, 0.5))
        ),
        plan.MetricSpec("AUC", models=("v2",), weighted=True),
        plan.MetricSpec("AUC", models=("v2",), weighted=False),
    )
    assert auc.config == "{}"
    [ndcg] = found.tfma_metrics
    assert protos.config_pb2.MetricsSpec.FromString(ndcg).query_key == "q"
    assert (found.min_slice_size, found.intervals) == (10, True)
    assert found.disabled_outputs == ("plots",)
    assert found.tfma_only == ()


def test_thresholds_of_an_eval_config(config: object) -> None:
    found = eval_config.evaluation(config).thresholds
    binarized, averaged, weighted, unweighted = eval_config.evaluation(config).metrics
    assert found == (
        eval_config.Threshold(binarized, "recall", None, lower=0.8),
        eval_config.Threshold(binarized, "recall", None, absolute=-0.01, higher_is_better=True),
        eval_config.Threshold(averaged, "recall", None, lower=0.8),
        eval_config.Threshold(averaged, "recall", None, absolute=-0.01, higher_is_better=True),
        eval_config.Threshold(weighted, "auc", (slices.Term("plan"),), upper=1.0),
        eval_config.Threshold(unweighted, "auc", (slices.Term("plan"),), upper=1.0),
        eval_config.Threshold(None, "loss", None, relative=0.1, higher_is_better=False),
    )


def test_without_slicing_specs_the_whole_data_is_the_slice() -> None:
    assert eval_config.evaluation(protos.config_pb2.EvalConfig()).slices == ((),)
    only = protos.config_pb2.EvalConfig()
    only.slicing_specs.add(feature_keys=["plan"])
    assert eval_config.evaluation(only).slices == ((slices.Term("plan"),),)


def test_json_and_results_are_read_as_text_protos_are(
    config: object, tmp_path: pathlib.Path
) -> None:
    from google.protobuf import json_format

    plain, result = tmp_path / "config.json", tmp_path / "eval_config.json"
    plain.write_text(json_format.MessageToJson(config))
    run = protos.config_pb2.EvalRun(eval_config=config, version="0.52.0")
    result.write_text(json_format.MessageToJson(run))
    assert eval_config.read_eval_config(str(plain)) == config
    assert eval_config.read_eval_config(str(result)) == config


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("model_specs {\n  nam: 'a'\n}", r"config, line 2: not a TFMA EvalConfig: .*nam"),
        ('{\n  "modelSpecs": [,]}', r"config, line 2: not JSON"),
        (
            '{"modelSpecs": [\n  {"nam": "a"}]}',
            r'config, line 2: not a TFMA EvalConfig: .*no field named "nam"',
        ),
        (None, r"config: cannot be read as a TFMA EvalConfig: .*No such file"),
    ],
)
def test_unreadable_configs(content: str | None, message: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "config"
    if content is not None:
        path.write_text(content)
    with pytest.raises(errors.ConfigError, match=message):
        eval_config.read_eval_config(str(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('slicing_specs { slice_keys_sql: "SELECT 1" }', "slice_keys_sql; TFMA itself cannot"),
        (
            'slicing_specs { feature_keys: "a" feature_values { key: "a" value: "1" } }',
            "'a' in both feature_keys and feature_values",
        ),
        ('model_specs { label_key: "a" label_keys { key: "b" value: "c" } }', "both label_key and"),
        ('model_specs { name: "a" } model_specs { name: "a" }', "have the name 'a'"),
        ('model_specs { name: "a" } model_specs {}', "each needs a name"),
        (
            'model_specs { name: "a" is_baseline: true } '
            'model_specs { name: "b" is_baseline: true }',
            "'a' and 'b' are both baselines",
        ),
        (
            'model_specs { name: "a" } model_specs { name: "b" } '
            'metrics_specs { model_names: "c" }',
            "model_names 'c'; the model_specs are 'a', 'b'",
        ),
        (
            'metrics_specs { metrics { class_name: "AUC" config: "{" } }',
            "config of AUC is not JSON",
        ),
        (
            'metrics_specs { example_weights {} metrics { class_name: "AUC" } }',
            "neither weighted nor unweighted",
        ),
        ('metrics_specs { aggregate {} metrics { class_name: "AUC" } }', "sets none of micro"),
        (
            'metrics_specs { aggregate { macro_average: true } metrics { class_name: "AUC" } }',
            "macro_average of AUC needs class_weights",
        ),
        (
            "metrics_specs { aggregate { micro_average: true top_k_list { values: 2 } "
            'class_weights { key: 0 value: 1 } } metrics { class_name: "AUC" } }',
            "both class_weights and top_k_list",
        ),
        (
            'metrics_specs { metrics { class_name: "AUC" threshold { change_threshold {} } } }',
            "change_threshold of auc needs a direction",
        ),
        (
            'metrics_specs { metrics { class_name: "AUC" per_slice_thresholds {} } }',
            "per_slice_thresholds of auc has no slicing_specs",
        ),
    ],
)
def test_configs_that_mean_nothing(text: str, message: str) -> None:
    from google.protobuf import text_format

    config = text_format.Parse(text, protos.config_pb2.EvalConfig())
    with pytest.raises(errors.ConfigError, match=message):
        eval_config.evaluation(config)


def test_what_only_tfma_honours() -> None:
    from google.protobuf import text_format

    config = text_format.Parse(
        """
        model_specs { preprocessing_function_names: "f" }
        cross_slicing_specs { baseline_spec {} slicing_specs { feature_keys: "a" } }
        options { include_default_metrics { value: true } }
        """,
        protos.config_pb2.EvalConfig(),
    )
    found = eval_config.evaluation(config)
    assert [sentence.split()[0] for sentence in found.tfma_only] == [
        "cross_slicing_specs",
        "options.include_default_metrics",
        "model_specs",
    ]
    assert found.cross_slices == (eval_config.CrossSlices((), ((slices.Term("a"),),)),)


def test_eval_config_out_and_in_again() -> None:
    specs = ((), (slices.Term("age", 5), slices.Term("plan")))
    configured = (
        plan.MetricSpec("Recall", '{"thresholds": [0.5]}', class_ids=(0, 2), weighted=False),
        plan.MetricSpec("AUC", models=("v2",), aggregate="micro", aggregate_top_k=(2,)),
        plan.MetricSpec("Mine", module="my.metrics"),
    )
    config = eval_config.eval_config(
        ["v1", "v2"], [labels.Head("", "y", "multiclass", 3)], specs, configured, "v1", "w"
    )
    found = eval_config.evaluation(config)
    assert found.slices == ((), (slices.Term("age", "5"), slices.Term("plan")))
    assert found.models[0] == eval_config.Model("v1", True, "", (("", "y"),), (), (("", "w"),))
    assert [one.class_name for one in found.metrics] == ["Recall", "AUC", "Mine"]
    assert found.metrics[0].class_ids == (0, 2)
    assert found.metrics[0].weighted is False
    assert found.metrics[0].models == ("v1", "v2")
    assert found.metrics[1].aggregate_top_k == (2,)
    assert found.metrics[1].models == ("v2",)
    assert found.metrics[2].module == "my.metrics"


def test_eval_config_of_one_model_and_two_outputs() -> None:
    heads = [labels.Head("a", "ya", "binary"), labels.Head("b", "yb", "regression")]
    spec = protos.config_pb2.MetricsSpec(query_key="q", model_names=["v1"])
    config = eval_config.eval_config(
        ["v1"],
        heads,
        [()],
        [plan.MetricSpec("AUC", outputs=("a",)), plan.MetricSpec("MeanLabel")],
        "v1",
        tfma_metrics=[spec.SerializeToString()],
    )
    [model] = config.model_specs
    assert (model.name, model.is_baseline) == ("", False)
    assert dict(model.label_keys) == {"a": "ya", "b": "yb"}
    assert [list(m.output_names) for m in config.metrics_specs] == [["a"], ["a", "b"], []]
    assert [list(m.model_names) for m in config.metrics_specs] == [[""]] * 3


def test_a_given_config_gets_the_runs_versions(config: object) -> None:
    heads = [labels.Head("", "label", "binary")]
    found = eval_config.completed(config, ["v0", "v2"], heads, "v0")
    assert [spec.name for spec in found.model_specs] == ["v0", "v2"]
    assert [spec.is_baseline for spec in found.model_specs] == [True, False]
    assert [spec.label_key for spec in found.model_specs] == ["label", "label"]
    assert found.model_specs[1].signature_name == "serving"
    assert not found.model_specs[1].example_weight_key
    assert found.options == config.options
    assert [list(spec.model_names) for spec in found.metrics_specs] == [
        ["v0", "v2"],
        ["v2"],
        ["v0", "v2"],
    ]
    alone = eval_config.completed(config, ["v2"], heads)
    assert alone.model_specs[0].name == ""
    assert [list(spec.model_names) for spec in alone.metrics_specs] == [[""]] * 3


def test_defaults_are_tfmas(config: object) -> None:
    from tensorflow_model_analysis.utils import config_util

    heads = [labels.Head("", "y", "binary")]
    for models in (["v1", "v2"], ["v1"]):
        found = eval_config.completed(config, models, heads, "v1", "w")
        found.options.ClearField("compute_confidence_intervals")  # Its default method is not ours.
        for spec in found.metrics_specs:  # Without a baseline TFMA refuses them.
            for one in spec.metrics:
                one.threshold.ClearField("change_threshold")
            spec.ClearField("thresholds")
        updated = config_util.update_eval_config_with_defaults(found, has_baseline=len(models) > 1)
        assert updated == found


def test_a_single_models_metrics_are_its_own_whatever_its_name() -> None:
    config = protos.config_pb2.EvalConfig()
    config.model_specs.add(name="a")
    config.metrics_specs.add(model_names=["b"]).metrics.add(class_name="AUC")
    assert eval_config.evaluation(config).metrics == (plan.MetricSpec("AUC"),)


def test_a_columnar_metric_is_checked_without_tfma() -> None:
    program = """
        import sys
        from evalbeam.transforms.metrics import plan
        from evalbeam.transforms.tfma import metric_classes
        metric_classes.check_metric(plan.MetricSpec("Recall", '{"thresholds": [0.3]}'))
        metric_classes.check_metric(plan.MetricSpec("MultiLabelConfusionMatrixPlot"))
        metric_classes.check_metric(plan.MetricSpec("SymmetricFlipRate"))
        assert "tensorflow_model_analysis" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)


def test_tfma_keras_and_own_metrics_are_known(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_metrics.py").write_text(
        "from tensorflow_model_analysis.metrics import metric_types\n"
        "class Mine(metric_types.Metric):\n"
        "    def __init__(self, name='mine', **kwargs):\n"
        "        super().__init__(lambda **_: [], name=name, **kwargs)\n"
        "class AUC(Mine):\n"
        "    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    metric_classes.check_metric(plan.MetricSpec("NDCG", '{"gain_key": "y"}'))
    metric_classes.check_metric(plan.MetricSpec("CosineSimilarity"))
    metric_classes.check_metric(plan.MetricSpec("Huber", module="tf_keras.losses"))
    metric_classes.check_metric(plan.MetricSpec("Mine", '{"own": 1}', module="my_metrics"))
    with pytest.raises(errors.ConfigError, match=r"no such subclass.* Did you mean Mine\?"):
        metric_classes.check_metric(plan.MetricSpec("Min", module="my_metrics"))
    with pytest.raises(errors.ConfigError, match="TFMA has a metric of that name"):
        metric_classes.check_metric(plan.MetricSpec("AUC", module="my_metrics"))


@pytest.mark.parametrize(
    ("class_name", "config", "module", "message"),
    [
        ("Recal", "{}", "", r"Unknown metric 'Recal'\. Did you mean Recall.*module: my_package"),
        ("Precision", '{"treshold": 0.3}', "", "no argument 'treshold'.*Did you mean 'thresholds'"),
        ("NDCG", '{"gain": "y"}', "", "no argument 'gain'; it takes gain_key, top_k_list, name"),
        ("NDCG", "{}", "", "NDCG cannot be made with {}: .*gain_key"),
        ("CosineSimilarity", '{"axes": 1}', "", "no argument 'axes'.*Did you mean 'axis'"),
        ("Recall", '{"thresholds": "high"}', "", "Metric Recall: cannot take .*high"),
        ("Recall", "{", "", "Metric Recall: config '{' is not JSON"),
        ("Recall", "[]", "", "must map arguments to values"),
        ("Mine", "{}", "no.such", "module 'no.such' cannot be imported"),
    ],
)
def test_metrics_that_do_not_exist(class_name: str, config: str, module: str, message: str) -> None:
    with pytest.raises(errors.ConfigError, match=message):
        metric_classes.check_metric(plan.MetricSpec(class_name, config, module))
