"""Errors of the config are in its own words, with the line, whatever is wrong with a value."""

from __future__ import annotations

import pytest
import yaml

from evalbeam.beam_jobs import config
from evalbeam.transforms import errors

# What only the validator says.
RAW = ("Input should", "Field required", "should have", "not permitted", " a valid ", "pydantic")
RAW += ("function-", "dict[", "list[", ".str:", ".int:", ".float:", "None", "datetime")
WRONG = (None, 7.5, -3, True, "text", [], [[1]], {}, {"a": {"b": 1}})


def base():
    return {
        "name": "run",
        "task": "binary",
        "data": {
            "files": ["d.csv"],
            "format": "csv",
            "csv": {"delimiter": ",", "encoding": "utf-8"},
            "label": "y",
            "classes": ["a", "b"],
            "positive": "b",
            "weight": "w",
            "id": "i",
            "splits": {"train": ["t.csv"]},
            "images": {"x": {"column": "png", "size": [8, 8], "channels": 1, "scale": 1.0}},
            "batch_size": 7,
            "max_dead_letters": 0.1,
        },
        "models": [
            {"name": "m", "path": "m", "inputs": {"x": "x"}, "outputs": ["p"], "scores": "logits"}
        ],
        "slices": [["a", "b"], {"key": "age", "edges": [1, 2]}, {"values": {"a": "b"}}],
        "metrics": [{"class_name": "AUC", "config": {}, "aggregate": {"average": "macro"}}],
        "thresholds": [0.5],
        "min_slice_size": 1,
        "conversion": {"good": 0.01},
        "confidence": {"level": 0.95, "units": 50, "seed": 7},
        "output": "results",
    }


def places(value, path=()):
    """The paths of all values in a config."""
    if path:
        yield path
    if isinstance(value, dict):
        items = value.items()
    else:
        items = enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        yield from places(child, (*path, key))


@pytest.mark.parametrize("path", list(places(base())), ids=lambda path: ".".join(map(str, path)))
def test_no_value_brings_out_the_validators_words(tmp_path, path):
    for wrong in WRONG:
        tree = base()
        *parents, last = path
        part = tree
        for parent in parents:
            part = part[parent]
        part[last] = wrong
        file = tmp_path / "job.yaml"
        file.write_text(yaml.safe_dump(tree, sort_keys=False))
        try:
            config.load(file)
        except errors.ConfigError as error:
            text = str(error)
            assert not any(raw in text for raw in RAW), (wrong, text)
            assert f"{file}:" in text, (wrong, text)
            assert text.count("\n") < 20, text


def test_the_base_is_right(tmp_path):
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(base(), sort_keys=False))
    config.load(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "job.yaml: the config is empty; it needs `data` and `models`"),
        (b"# nothing\n", "the config is empty"),
        (b"\xff\xfed\x00a\x00", r"it is not text in UTF-8 \(byte 0xff at 0\)"),
        (b"data:\n\tfiles: x\n", "job.yaml:2: not valid YAML: a tab; YAML is indented with spaces"),
        (b"data: [\n", "job.yaml:2: not valid YAML: "),
        (b"hello", "a config is a mapping of keys, not 'hello'"),
        (b"data: &d {files: [*d]}", r"or an alias \(\*name\) is in what it names"),
        (b"data: " + b"[" * 5000 + b"]" * 5000, "lists and mappings are nested too deeply"),
        (
            b"a0: &a0 [x]\n"
            + b"".join(
                b"a%d: &a%d [%s]\n" % (i, i, b",".join([b"*a%d" % (i - 1)] * 9))
                for i in range(1, 12)
            ),
            r"its aliases \(\*name\) stand for more than 1,000,000 values",
        ),
    ],
)
def test_files_that_are_no_config(tmp_path, content, message):
    (tmp_path / "job.yaml").write_bytes(content)
    with pytest.raises(errors.ConfigError, match=message):
        config.load(tmp_path / "job.yaml")


HEAD = "data: {files: d.csv, label: y}\nmodels:\n  - {name: v1, predictions: p}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # What would not fit into memory.
        (
            HEAD + "slices: [{key: age, quantiles: 1000000000}]",
            r"4: slices.0.quantiles: must be at most 1,000, not 1000000000",
        ),
        (
            HEAD.replace("y}", "y, batch_size: 1000000000000}"),
            "1: data.batch_size: must be at most 1,000,000, not 1000000000000",
        ),
        # A value that may have several forms is judged by the one that it comes closest to.
        (
            HEAD.replace("label: y", "label: 3"),
            "1: data.label: must be text or a mapping of keys to values, not 3; put text in quotes",
        ),
        (HEAD.replace("y}", "{a: 3}}"), "1: data.label.a: must be text, not 3; put text in quotes"),
        (
            HEAD.replace("y}", "y, classes: [null, x]}"),
            "1: data.classes.0: null is not a class; write text, a number, true or false",
        ),
        (
            HEAD.replace("y}", "y, positive: [a]}"),
            "1: data.positive: [a] is not a class; write text, a number, true or false",
        ),
        (
            HEAD.replace(": p}", ": {a: [b], c: 4}}"),
            "3: models.0.predictions.c: must be text or a list, not 4; put text in quotes",
        ),
        *(
            (
                f"{HEAD}slices:\n  - {{values: {{g: {value}}}}}\n",
                f"5: slices.0.values.g: must be text or a number, not {value}; a slice has one "
                "value of a column, and rows without a value are in none",
            )
            for value in ("[a, b]", "null")
        ),
        *(
            (
                f"{HEAD}slices:\n  - [h]\n  - {entry}\n",
                "6: slices.1: crosses the column 'g' with itself: name it once",
            )
            for entry in ("[g, {key: g, by: month}]", "{values: {g: 1}, keys: [g]}")
        ),
        # Keys that belong elsewhere.
        (
            HEAD + "metrics:\n  - class_name: F1Score\n    config: {zero_division: 0}\n",
            "6: metrics.0.config.zero_division: `zero_division` goes next to `config`, not in it",
        ),
        (
            HEAD + "metrics:\n  - {class_name: F1Score, aggregate: {zero_division: 0, average: "
            "macro}}\n",
            "5: metrics.0.aggregate.zero_division: `zero_division` goes next to `aggregate`, not "
            "in it",
        ),
        (HEAD + "weight: w\n", "4: weight: `weight` goes in `data`"),
        (
            HEAD + "metrics: [{class_name: Recall, top_k_list: [2]}]\n",
            "4: metrics.0.top_k_list: `top_k_list` goes in `binarize`",
        ),
        (HEAD + "1: 2\n", "4: 1: keys must be text, not 1"),
        (HEAD.replace("y}", "y, output: r}"), "1: data.output: `output` goes next to `data`, not"),
        # Numbers out of bounds.
        (
            HEAD + "thresholds: [0.5, 1.5]\n",
            "4: thresholds: 1.5 is not in [0, 1], as scores are; those that are not probabilities "
            "need `scores: as_is` of their version",
        ),
        (
            HEAD + "metrics:\n  - {class_name: Recall, config: {thresholds: -1}}\n",
            "5: metrics.0.config.thresholds: -1 is not in [0, 1], as scores are",
        ),
        (
            HEAD + "metrics:\n  - {class_name: Recall, binarize: {top_k_list: [2, 0]}}\n",
            "5: metrics.0.binarize.top_k_list.1: must be at least 1, not 0",
        ),
        (
            HEAD + "metrics:\n  - {class_name: Recall, binarize: {k_list: [-1]}}\n",
            "5: metrics.0.binarize.k_list.0: must be at least 1, not -1",
        ),
        # What concerns several keys is reported where it becomes wrong.
        (
            HEAD + "  - {name: v2, predictions: q}\n  - {name: v1, predictions: r}\n",
            "5: models.2.name: model names must be unique; 'v1' appears twice",
        ),
        (
            HEAD.replace("p}", "p, baseline: true}")
            + "  - name: v2\n    predictions: q\n    baseline: true\n",
            "6: models.1.baseline: only one model may be the baseline, not 'v1' and 'v2'",
        ),
        (
            HEAD + "eval_config: e.pbtxt\nslices: [[g]]\n",
            "5: slices: `eval_config` replaces `slices` and `metrics`: remove these, or "
            "`eval_config`",
        ),
        (
            HEAD.replace("y}", "y,\n  format: csvx}"),
            "2: data.format: unknown format 'csvx'; did you mean 'csv'?",
        ),
    ],
)
def test_mistakes_have_their_line_and_value(tmp_path, text, message):
    (tmp_path / "job.yaml").write_text(text)
    with pytest.raises(errors.ConfigError) as raised:
        config.load(tmp_path / "job.yaml")
    assert str(raised.value).startswith(f"{tmp_path}/job.yaml:{message}")
    assert "\n" not in str(raised.value)


def test_dates_are_text(tmp_path):
    days = ("2026-11-01", "2026-11-01 10:00:00")
    text = HEAD + "slices:\n" + "".join(f"  - {{values: {{day: {day}}}}}\n" for day in days)
    (tmp_path / "job.yaml").write_text(text)
    settings, _ = config.load(tmp_path / "job.yaml")
    values = [spec[0].value for spec in settings.slicing_specs()[1:]]
    assert values == list(days)


def test_scores_as_they_are_have_thresholds_as_they_are(tmp_path):
    text = HEAD.replace("p}", "p, scores: as_is}") + "thresholds: [-2, 0, 3.5]\n"
    (tmp_path / "job.yaml").write_text(text)
    assert config.load(tmp_path / "job.yaml")[0].thresholds == [-2, 0, 3.5]


@pytest.mark.parametrize(
    ("given", "meant"), [("0", "0"), ("0.0", "0"), (".nan", "nan"), ("'0'", "0"), ("skip", "skip")]
)
def test_spellings_of_zero_division(tmp_path, given, meant):
    text = f"{HEAD}metrics:\n  - {{class_name: F1Score, zero_division: {given}}}\n"
    (tmp_path / "job.yaml").write_text(text)
    settings, _ = config.load(tmp_path / "job.yaml")
    assert settings.metrics[0].zero_division == meant
