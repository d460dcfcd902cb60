"""The report of installed parts, and of how to install the others."""

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


def test_missing_parts_are_reported_with_the_command_to_install_them(monkeypatch):
    def version(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(install, "missing", lambda: "Run `npm ci --prefix here`")
    monkeypatch.setenv("PATH", "/nowhere")
    report = doctor.report()
    assert report.count("missing") == len(doctor.list_parts()) - 1  # Python is there
    for command in ("pip install", "onnxruntime onnx", "npm ci", "JDK"):
        assert command in report


@pytest.mark.skipif(bool(install.missing()), reason=install.missing() or "")
def test_the_version_of_tensorflow_js():
    versions = {part.name: part.version for part in doctor.list_parts()}
    dependencies = json.loads((install.FOLDER / "package.json").read_text())["dependencies"]
    assert versions["TensorFlow.js"] == dependencies["@tensorflow/tfjs"]


def test_a_java_without_a_version_is_missing(tmp_path, monkeypatch):
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\nexit 1\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    (part,) = (part for part in doctor.list_parts() if part.name == "Java")
    assert part.version is None


def test_it_loads_nothing_heavy():
    program = (
        "import sys; from evalbeam.beam_jobs import doctor; doctor.report(); "
        "assert not {'tensorflow', 'keras', 'apache_beam', 'onnxruntime'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
