"""Errors of the config are in its own words, with the line, whatever is wrong with a value."""

from __future__ import annotations

import pytest
import yaml

from evalbeam.beam_jobs import config
from evalbeam.transforms import errors

# What only the validator says.
RAW = ("Input should", "Field required", "should have", "not permitted", " a valid ", "pydantic")
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
    ],
)
def test_files_that_are_no_config(tmp_path, content, message):
    (tmp_path / "job.yaml").write_bytes(content)
    with pytest.raises(errors.ConfigError, match=message):
        config.load(tmp_path / "job.yaml")
