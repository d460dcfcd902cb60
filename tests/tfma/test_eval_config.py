import json
import pathlib
import subprocess
import sys
import textwrap

import pytest
from google.protobuf import json_format

from evalbeam.beam_jobs import config as configs
from evalbeam.beam_jobs.config import resolve
from evalbeam.transforms import errors
from evalbeam.transforms.examples import labels, slices
from evalbeam.transforms.metrics.evaluation import MetricSpec
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


def test_protos_are_those_of_tfma_in_any_order_of_imports() -> None:
    program = """
        import importlib, sys
        from evalbeam.transforms.tfma import protos
        assert "tensorflow_model_analysis" not in sys.modules
        from tensorflow_model_analysis.proto import config_pb2, metrics_for_slice_pb2
        for _ in range(2):
            assert protos.config_pb2.EvalConfig is config_pb2.EvalConfig
            assert protos.metrics_for_slice_pb2.MetricKey is metrics_for_slice_pb2.MetricKey
            importlib.reload(protos)  # the other order
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)


def test_an_eval_config_is_interpreted(config: object) -> None:
    contents = eval_config.interpret(config)
    assert contents.models == (
        eval_config.Model("v1", True, "", (), (("", "y"),), (), (("", "w"),)),
        eval_config.Model("v2", False, "serving", (), (("", "y"),), (("a", "pa"),), (("", "w"),)),
    )
    assert contents.slices == ((), (slices.Term("age", "5"), slices.Term("plan")))
    recall = MetricSpec("Recall", '{"thresholds": [0.5]}')
    auc = MetricSpec("AUC", models=("v2",))
    assert contents.metrics == (
        MetricSpec("Recall", recall.config, class_ids=(0, 2), top_k_list=(2,)),
        MetricSpec("Recall", recall.config, aggregate="macro", class_weights=((0, 1.0), (1, 0.5))),
        MetricSpec("AUC", models=("v2",), weighted=True),
        MetricSpec("AUC", models=("v2",), weighted=False),
    )
    assert auc.config == "{}"
    [ndcg] = contents.tfma_metrics
    assert eval_config.parse_metrics_spec(ndcg).query_key == "q"
    assert (contents.min_slice_size, contents.intervals) == (10, True)
    assert contents.tfma_only == ()


@pytest.mark.parametrize("name", ["", "v1", "spec"])
def test_a_single_model_has_any_of_its_names(name: str) -> None:
    config = protos.config_pb2.EvalConfig()
    config.model_specs.add(name="spec")
    config.metrics_specs.add(model_names=[name]).metrics.add(class_name="AUC")
    assert eval_config.interpret(config, ["v1"]).metrics == (MetricSpec("AUC"),)


def test_thresholds_of_an_eval_config(config: object) -> None:
    contents = eval_config.interpret(config)
    binarized, averaged, weighted, unweighted = contents.metrics
    assert contents.thresholds == (
        eval_config.Threshold(binarized, "recall", None, lower=0.8),
        eval_config.Threshold(binarized, "recall", None, absolute=-0.01, higher_is_better=True),
        eval_config.Threshold(averaged, "recall", None, lower=0.8),
        eval_config.Threshold(averaged, "recall", None, absolute=-0.01, higher_is_better=True),
        eval_config.Threshold(weighted, "auc", (slices.Term("plan"),), upper=1.0),
        eval_config.Threshold(unweighted, "auc", (slices.Term("plan"),), upper=1.0),
        eval_config.Threshold(None, "loss", None, relative=0.1, higher_is_better=False),
    )


def test_without_slicing_specs_the_whole_data_is_the_slice() -> None:
    assert eval_config.interpret(protos.config_pb2.EvalConfig()).slices == ((),)
    only = protos.config_pb2.EvalConfig()
    only.slicing_specs.add(feature_keys=["plan"])
    assert eval_config.interpret(only).slices == ((slices.Term("plan"),),)


def test_json_and_tfma_results_are_read_like_text_protos(
    config: object, tmp_path: pathlib.Path
) -> None:
    plain, result = tmp_path / "config.json", tmp_path / "eval_config.json"
    plain.write_text(json_format.MessageToJson(config))
    run = protos.config_pb2.EvalRun(eval_config=config, version="0.52.0")
    result.write_text(json_format.MessageToJson(run))
    assert eval_config.read_eval_config(str(plain)) == config
    assert eval_config.read_eval_config(str(result)) == config


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("model_specs {\n  nam: 'a'\n}", r"config:2: not a TFMA EvalConfig: .*nam"),
        ('{\n  "modelSpecs": [,]}', r"config:2: not JSON"),
        (
            '{"modelSpecs": [\n  {"nam": "a"}]}',
            r'config:2: not a TFMA EvalConfig: .*no field named "nam"',
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
        (
            'slicing_specs { slice_keys_sql: "SELECT 1" }',
            "slice_keys_sql, which TFMA itself cannot",
        ),
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
            "model_names 'c', but the models are 'a', 'b'",
        ),
        (
            'model_specs { name: "one" } metrics_specs { model_names: "oen" }',
            r"model_names 'oen', but the models are 'one'\. Did you mean 'one'\?",
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
        *(
            (
                f"metrics_specs {{ {part} {{ {key} {{ values: 0 }} }} "
                'metrics { class_name: "Recall" } }',
                rf"{part}\.{key} of Recall has 0; its values must be at least 1",
            )
            for part, key in (
                ("binarize", "k_list"),
                ("binarize", "top_k_list"),
                ("aggregate", "top_k_list"),
            )
        ),
        (
            'options { disabled_outputs { values: "plot" } }',
            "disabled_outputs has 'plot'; valid outputs: .*Did you mean 'plots'?",
        ),
    ],
)
def test_invalid_configs_are_rejected(text: str, message: str) -> None:
    from google.protobuf import text_format

    config = text_format.Parse(text, protos.config_pb2.EvalConfig())
    with pytest.raises(errors.ConfigError, match=message):
        eval_config.interpret(config)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            'model_specs {\n lable_key: "y"\n}',
            ':2: not a TFMA EvalConfig: ModelSpec has no field named "lable_key". '
            "Did you mean 'label_key'? Its fields: 'label_key', 'label_keys', ",
        ),
        (
            '{"metricsSpecs": [{"metrics": [\n{"clas_name": "AUC"}]}]}',
            ':2: not a TFMA EvalConfig: MetricConfig has no field named "clas_name". '
            "Did you mean 'class_name'? Its fields: 'class_name', ",
        ),
        (
            "options { min_slice_sizes {} }",
            ':1: not a TFMA EvalConfig: Options has no field named "min_slice_sizes". '
            "Did you mean 'min_slice_size'? Its fields: 'min_slice_size', ",
        ),
    ],
)
def test_a_misspelt_field_is_named_with_the_nearest(
    tmp_path: pathlib.Path, content: str, message: str
) -> None:
    path = tmp_path / "e.pbtxt"
    path.write_text(content)
    with pytest.raises(errors.ConfigError) as caught:
        eval_config.read_eval_config(str(path))
    assert f"{path}{message}" in str(caught.value)


def test_what_only_tfma_supports() -> None:
    from google.protobuf import text_format

    config = text_format.Parse(
        """
        model_specs { padding_options {} preprocessing_function_names: "f" }
        options { include_default_metrics { value: true } }
        """,
        protos.config_pb2.EvalConfig(),
    )
    contents = eval_config.interpret(config)
    assert [sentence.split()[0] for sentence in contents.tfma_only] == [
        "options.include_default_metrics",
        "model_specs",
    ]
    assert contents.models[0].preprocessing == ("f",)


def test_comparisons_of_slices_are_of_slices_that_there_are() -> None:
    from google.protobuf import text_format

    def interpret(text: str) -> eval_config.Contents:
        return eval_config.interpret(text_format.Parse(text, protos.config_pb2.EvalConfig()))

    contents = interpret(
        """
        slicing_specs { feature_keys: ["b", "a"] }
        cross_slicing_specs {
          baseline_spec {}
          slicing_specs { feature_keys: "a" feature_values { key: "b" value: "1" } }
        }
        metrics_specs { cross_slice_thresholds { key: "auc" value {} } }
        """
    )
    (comparison,) = contents.slice_comparisons
    assert str(comparison) == "a x b=1 with overall"
    assert contents.bounds_differences
    with pytest.raises(
        errors.ConfigError,
        match="cross_slicing_specs has the slices 'c', which slicing_specs does not: add them",
    ):
        interpret('cross_slicing_specs { baseline_spec { feature_keys: "c" } }')


def test_a_built_eval_config_is_interpreted_as_it_was_given() -> None:
    specs = ((), (slices.Term("age", 5), slices.Term("plan")))
    metrics = (
        MetricSpec("Recall", '{"thresholds": [0.5]}', class_ids=(0, 2), weighted=False),
        MetricSpec("AUC", models=("v2",), aggregate="micro", aggregate_top_k=(2,)),
        MetricSpec("Mine", module="my.metrics"),
    )
    config = eval_config.build(
        ["v1", "v2"], [labels.Head("", "y", "multiclass", 3)], specs, metrics, "v1", "w"
    )
    contents = eval_config.interpret(config)
    assert contents.slices == ((), (slices.Term("age", "5"), slices.Term("plan")))
    assert contents.models[0] == eval_config.Model(
        "v1", True, "", (), (("", "y"),), (), (("", "w"),)
    )
    assert [spec.class_name for spec in contents.metrics] == ["Recall", "AUC", "Mine"]
    assert contents.metrics[0].class_ids == (0, 2)
    assert contents.metrics[0].weighted is False
    assert contents.metrics[0].models == ("v1", "v2")
    assert contents.metrics[1].aggregate_top_k == (2,)
    assert contents.metrics[1].models == ("v2",)
    assert contents.metrics[2].module == "my.metrics"


def test_eval_config_of_a_single_model_with_two_outputs() -> None:
    heads = [labels.Head("a", "ya", "binary"), labels.Head("b", "yb", "regression")]
    spec = protos.config_pb2.MetricsSpec(query_key="q", model_names=["v1"])
    config = eval_config.build(
        ["v1"],
        heads,
        [()],
        [MetricSpec("AUC", outputs=("a",)), MetricSpec("MeanLabel")],
        "v1",
        tfma_metrics=[json_format.MessageToJson(spec)],
    )
    [model] = config.model_specs
    assert (model.name, model.is_baseline) == ("", False)
    assert dict(model.label_keys) == {"a": "ya", "b": "yb"}
    assert [list(m.output_names) for m in config.metrics_specs] == [["a"], ["a", "b"], []]
    assert [list(m.model_names) for m in config.metrics_specs] == [[""]] * 3


def test_a_users_config_is_completed_with_the_runs_versions(config: object) -> None:
    heads = [labels.Head("", "label", "binary")]
    completed = eval_config.complete(config, ["v0", "v2"], heads, "v0")
    assert [spec.name for spec in completed.model_specs] == ["v0", "v2"]
    assert [spec.is_baseline for spec in completed.model_specs] == [True, False]
    assert [spec.label_key for spec in completed.model_specs] == ["label", "label"]
    assert completed.model_specs[1].signature_name == "serving"
    assert not completed.model_specs[1].example_weight_key
    assert completed.options == config.options
    assert [list(spec.model_names) for spec in completed.metrics_specs] == [
        ["v0", "v2"],
        ["v2"],
        ["v0", "v2"],
    ]
    single = eval_config.complete(config, ["v2"], heads)
    assert single.model_specs[0].name == ""
    assert [list(spec.model_names) for spec in single.metrics_specs] == [[""]] * 3


def test_defaults_are_tfmas(config: object) -> None:
    from tensorflow_model_analysis.utils import config_util

    heads = [labels.Head("", "y", "binary")]
    for models in (["v1", "v2"], ["v1"]):
        completed = eval_config.complete(config, models, heads, "v1", "w")
        completed.options.ClearField("compute_confidence_intervals")  # its default method differs
        for spec in completed.metrics_specs:  # without a baseline, TFMA rejects these
            for metric in spec.metrics:
                metric.threshold.ClearField("change_threshold")
            spec.ClearField("thresholds")
        updated = config_util.update_eval_config_with_defaults(
            completed, has_baseline=len(models) > 1
        )
        assert updated == completed


def test_a_columnar_metric_is_checked_without_tfma() -> None:
    program = """
        import sys
        from evalbeam.transforms.metrics.evaluation import MetricSpec
        from evalbeam.transforms.tfma import metric_classes
        metric_classes.check_metric(MetricSpec("Recall", '{"thresholds": [0.3]}'))
        metric_classes.check_metric(MetricSpec("MultiLabelConfusionMatrixPlot"))
        metric_classes.check_metric(MetricSpec("SymmetricFlipRate"))
        assert "tensorflow_model_analysis" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)


def test_metrics_of_tfma_keras_and_users_are_found(
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
    metric_classes.check_metric(MetricSpec("Mean", '{"feature_key_path": ["features", "y"]}'))
    metric_classes.check_metric(MetricSpec("CosineSimilarity"))
    metric_classes.check_metric(MetricSpec("Huber", module="tf_keras.losses"))
    metric_classes.check_metric(MetricSpec("Mine", '{"own": 1}', module="my_metrics"))
    with pytest.raises(errors.ConfigError, match=r"no such subclass.* Did you mean Mine\?"):
        metric_classes.check_metric(MetricSpec("Min", module="my_metrics"))
    with pytest.raises(errors.ConfigError, match="TFMA has a metric of that name"):
        metric_classes.check_metric(MetricSpec("AUC", module="my_metrics"))


@pytest.mark.parametrize(
    ("class_name", "config", "module", "message"),
    [
        ("Recal", "{}", "", r"Unknown metric 'Recal'\. Did you mean Recall.*module: my_package"),
        ("Precision", '{"treshold": 0.3}', "", "no argument 'treshold'.*Did you mean 'thresholds'"),
        ("Mean", '{"key": "y"}', "", "no argument 'key'; it takes feature_key_path"),
        ("Mean", "{}", "", "Metric Mean needs 'feature_key_path': write `config: {feature_key_"),
        ("NDCG", "{}", "", "NDCG ranks the examples of a query: use an EvalConfig whose"),
        ("CosineSimilarity", '{"axes": 1}', "", "no argument 'axes'.*Did you mean 'axis'"),
        ("Recall", '{"thresholds": "high"}', "", "Metric Recall: cannot take .*high"),
        ("Recall", "{", "", "Metric Recall: config '{' is not JSON"),
        ("Recall", "[]", "", "must map arguments to values"),
        ("Mine", "{}", "no.such", "module 'no.such' cannot be imported"),
    ],
)
def test_metrics_and_arguments_that_do_not_exist(
    class_name: str, config: str, module: str, message: str
) -> None:
    with pytest.raises(errors.ConfigError, match=message):
        metric_classes.check_metric(MetricSpec(class_name, config, module))


def test_what_is_kept_of_a_config_has_one_order(tmp_path):
    """Otherwise protobuf's maps have another one in each process, and a state's digests, too."""
    names = [f"column{number}" for number in range(9)]
    values = " ".join(f'feature_values {{ key: "{name}" value: "1" }}' for name in names)
    weights = " ".join(f'output_weights {{ key: "{name}" value: 1 }}' for name in names)
    metrics = f'metrics_specs {{ {weights} metrics {{ class_name: "AUC" }} }}'
    (tmp_path / "c.pbtxt").write_text(f"slicing_specs {{ {values} }} {metrics}")
    settings = configs.Config(
        data=configs.Data(files=["data.csv"], label="y"),
        models=[configs.Model(name="v1", predictions="p")],
        eval_config=str(tmp_path / "c.pbtxt"),
    )
    request = resolve.resolve(settings, "columnar")
    for kept in (request.eval_config, *request.tfma_metrics):
        assert kept == json.dumps(json.loads(kept), sort_keys=True)
    assert len(request.tfma_metrics) == 1
