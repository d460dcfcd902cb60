"""The Flex Template: its parameters are real options, and its launcher's job is the driver."""

from __future__ import annotations

import importlib.util
import json
import re
import types

import apache_beam as beam
import pytest
from apache_beam.options import pipeline_options
from clients import DEPLOY
from google.cloud import dataflow_v1beta3

from evalbeam.beam_jobs import cli
from evalbeam.beam_jobs.launch import runner

METADATA = DEPLOY / "dataflow" / "metadata.json"


@pytest.fixture
def launcher() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("launcher", DEPLOY / "dataflow" / "launcher.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def config(tmp_path) -> str:
    (tmp_path / "data.csv").write_text("visited,score\n" + "1,0.9\n0,0.2\n" * 50)
    path = tmp_path / "nightly.yaml"
    path.write_text(
        f"data: {{files: {tmp_path}/data.csv, label: visited}}\n"
        "models: [{name: v1, predictions: score}]\n"
        "metrics: [ExampleCount]\n"
        f"output: {tmp_path}/results\n"
    )
    return str(path)


def _parameters() -> dict[str, dataflow_v1beta3.ParameterMetadata]:
    # Dataflow's own definition, which refuses what it does not know.
    template = dataflow_v1beta3.TemplateMetadata.from_json(METADATA.read_text())
    return {parameter.name: parameter for parameter in template.parameters}


def test_the_metadata_is_dataflows() -> None:
    assert _parameters()
    wrong = json.loads(METADATA.read_text())
    wrong["parameters"][0]["paramTyp"] = "TEXT"
    with pytest.raises(Exception, match="paramTyp"):
        dataflow_v1beta3.TemplateMetadata.from_json(json.dumps(wrong))


def test_its_parameters_are_the_commands_and_beams_options() -> None:
    ours = {parameter.name: parameter for parameter in cli.run.params}
    # A template that runs nothing would publish nothing: a dry run is for the shell.
    names = {"config" if name == "config_path" else name for name in ours} - {"dry_run"}
    parameters = _parameters()
    assert names <= set(parameters)
    for name in set(parameters) - names:
        runner.options([f"--{name}=1"])
    for name, parameter in parameters.items():
        assert parameter.label
        assert parameter.help_text.endswith(".")
        for regex in parameter.regexes:
            re.compile(regex)
        if name in names:
            required = ours.get(name, ours["config_path"]).required
            assert parameter.is_optional is not required
    engine = parameters["engine"]
    assert [option.value for option in engine.enum_options] == list(ours["engine"].type.choices)
    assert engine.default_value == ours["engine"].default
    assert parameters["output"].help_text == ours["output"].help


def test_the_launcher_takes_every_parameter(launcher, config, monkeypatch) -> None:
    built = []

    class Result:
        def wait_until_finish(self) -> None:
            pytest.fail("a template's launcher must not wait for its job")

    def run(pipeline: beam.Pipeline) -> Result:
        built.append(pipeline.options)
        return Result()

    monkeypatch.setattr(beam.Pipeline, "run", run)
    values = {name: "5" for name in _parameters()} | {"config": config, "engine": "tfma"}
    asked = [f"--{name}={value}" for name, value in values.items()]
    launcher.main([*asked, "--runner=DirectRunner", "--job_name=night"])
    workers = built[0].view_as(pipeline_options.WorkerOptions)
    assert workers.num_workers == workers.max_num_workers == 1
    assert workers.machine_type == "5"


def test_the_launched_job_runs_and_publishes(launcher, config, tmp_path) -> None:
    local = ("--runner=DirectRunner", f"--update_compatibility_version={beam.__version__}")
    template = ("--job_name=night-1", f"--template_location={tmp_path}/template")
    launcher.main([f"--config={config}", *template, *local])
    manifest = json.loads((tmp_path / "results" / "latest" / "manifest.json").read_text())
    assert manifest["run_id"] == "night-1"
    # Dataflow tries what failed again: what is published is not run again.
    launcher.main([f"--config={config}", *template, *local])
    again = json.loads((tmp_path / "results" / "latest" / "manifest.json").read_text())
    assert again == manifest


def test_the_driver_passes_flags_on(launcher, monkeypatch, tmp_path) -> None:
    seen = tmp_path / "arguments"
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{seen}\n')
    python.chmod(0o755)
    monkeypatch.setattr(launcher.sys, "executable", str(python))
    launcher.drive("name: x\n", ["--run-id=night", "--max_num_workers=20"])
    arguments = seen.read_text().splitlines()
    assert arguments[:3] == ["-m", "evalbeam", "run"]
    assert arguments[4:] == ["--run-id=night", "--max_num_workers=20"]
