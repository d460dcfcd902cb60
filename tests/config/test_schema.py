"""The JSON Schema that editors check YAML with takes what evalbeam takes, and no more."""

import json
import pathlib
import re

import jsonschema
import pytest
import yaml

from evalbeam.beam_jobs import config
from evalbeam.beam_jobs.demo import digits, visits

ROOT = pathlib.Path(__file__).parents[2]
PAGES = ("README.md", "beam_jobs/config/README.md")
WHOLE = {
    "data": {"files": "a.csv", "label": "label"},
    "models": [{"name": "v", "predictions": "p"}],
}


@pytest.fixture(scope="module")
def schema(tmp_path_factory):
    from click.testing import CliRunner

    from evalbeam.beam_jobs import cli

    printed = json.loads(CliRunner().invoke(cli.main, ["schema"]).output)
    jsonschema.Draft202012Validator.check_schema(printed)
    return printed


def test_every_key_is_described(schema):
    for part in (schema, *schema["$defs"].values()):
        bare = [key for key, one in part.get("properties", {}).items() if "description" not in one]
        assert not bare, part.get("title")


def _examples():
    """The YAML of the documentation, each made whole, and the demos' configs."""
    pages = "".join((ROOT / page).read_text() for page in PAGES)
    for number, text in enumerate(re.findall(r"```yaml\n(.*?)```", pages, re.S)):
        given = yaml.safe_load(text)
        if isinstance(given, dict):
            whole = {**WHOLE, **given}
            whole["data"] = {**WHOLE["data"], **(given.get("data") or {})}
            yield pytest.param(whole, id=f"README {number}")
    paths = {"data": '"d"', "v1": '"a"', "v2": '"b"'}
    yield pytest.param(yaml.safe_load(visits._CONFIG.format(**paths)), id="visits")
    models = "  - {name: v, path: p}"
    yield pytest.param(
        yaml.safe_load(digits._CONFIG.format(data='"d"', models=models)), id="digits"
    )


@pytest.mark.parametrize("given", _examples())
def test_examples_are_valid_for_both(schema, given):
    config.Config.model_validate(given)
    jsonschema.validate(given, schema)


@pytest.mark.parametrize(
    "wrong",
    [
        {"metrics": [3]},
        {"slices": [{"quantile": 3}]},
        {"data": {"files": 3, "label": "label"}},
        {"models": [{"name": "v", "predictions": "p", "inputs": "age"}]},
        {"gate": []},
    ],
)
def test_what_is_refused_is_refused_by_both(schema, wrong):
    with pytest.raises(ValueError):
        config.Config.model_validate({**WHOLE, **wrong})
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**WHOLE, **wrong}, schema)
