"""What is installed, and what would install the rest."""

import json
import os
import subprocess
import sys
from importlib import metadata

import pytest

from evalbeam.beam_jobs import doctor
from evalbeam.transforms.models.tfjs import install


def test_installed_parts_have_their_versions(evalbeam):
    result = evalbeam("doctor")
    assert result.exit_code == 0
    for name in ("apache-beam", "tensorflow", "ai-edge-litert", "onnxruntime"):
        (line,) = (
            line for line in result.output.splitlines() if line.strip().startswith(f"{name} ")
        )
        assert metadata.version(name) in line


def test_what_is_missing_comes_with_its_command(monkeypatch):
    def version(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(install, "missing", lambda: "Run `npm ci --prefix here`")
    monkeypatch.setenv("PATH", "/nowhere")
    report = doctor.report()
    assert report.count("missing") == len(doctor.parts()) - 1  # Python is there
    for command in ("pip install", "onnxruntime onnx", "npm ci", "JDK"):
        assert command in report


@pytest.mark.skipif(bool(install.missing()), reason=install.missing() or "")
def test_versions_of_tensorflow_js_and_java_are_asked_for():
    found = {part.name: part.found for part in doctor.parts()}
    wanted = json.loads((install.FOLDER / "package.json").read_text())["dependencies"]
    assert found["TensorFlow.js"] == wanted["@tensorflow/tfjs"]


def test_a_java_that_says_nothing_is_a_missing_one(tmp_path, monkeypatch):
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\nexit 1\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    (part,) = (part for part in doctor.parts() if part.name == "Java")
    assert part.found is None


def test_it_loads_nothing_heavy():
    program = (
        "import sys; from evalbeam.beam_jobs import doctor; doctor.report(); "
        "assert not {'tensorflow', 'keras', 'apache_beam', 'onnxruntime'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
