"""Reports which optional parts are installed, what each is for, and how to install the others."""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib import metadata

import rich.box
import rich.console
import rich.table

from evalbeam.transforms.models.tfjs import install


@dataclass(frozen=True)
class Part:
    """A package or program that evalbeam uses.

    Attributes:
      name: the part's name.
      purpose: what it is needed for.
      version: the installed version; None if it is missing.
      remedy: how to install it.
    """

    name: str
    purpose: str
    version: str | None
    remedy: str


def list_parts() -> list[Part]:
    """All parts, starting with those that every run needs."""
    return [
        Part("Python", "everything", platform.python_version(), ""),
        _package("apache-beam", "everything"),
        _package("tensorflow", "SavedModels and .keras files"),
        _package("tensorflow-model-analysis", "metrics without a kernel, --engine tfma"),
        _package("ai-edge-litert", "TFLite models"),
        _package("pillow", "images"),
        _package("onnxruntime", "ONNX models", "onnxruntime onnx"),
        _tensorflow_js(),
        _package("boto3", "s3:// URLs"),
        _package("statsmodels", "evalbeam demo"),
        _package("scikit-learn", "evalbeam demo digits"),
        _java(),
    ]


def report() -> str:
    """The parts as a table, followed by how to install the missing ones."""
    parts = list_parts()
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    for column in ("part", "version", "for"):
        table.add_column(column, no_wrap=column != "for")
    for part in parts:
        table.add_row(part.name, part.version or "missing", part.purpose)
    console = rich.console.Console(highlight=False, markup=False)
    with console.capture() as capture:
        console.print(table)
        for part in parts:
            if part.version is None:
                # Unwrapped, so that the command can be copied.
                console.print(f"{part.name}: {part.remedy}", soft_wrap=True)
    return capture.get().rstrip()


def _package(name: str, purpose: str, requirements: str = "") -> Part:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        version = None
    return Part(name, purpose, version, f"pip install {requirements or name}")


def _tensorflow_js() -> Part:
    missing = install.missing()
    dependencies = json.loads((install.FOLDER / "package.json").read_text())["dependencies"]
    version = None if missing else dependencies["@tensorflow/tfjs"]
    return Part("TensorFlow.js", "TensorFlow.js models", version, missing or "")


def _java() -> Part:
    """Java, on which Beam's job servers for Flink and Spark run."""
    version = None
    if java := shutil.which("java"):
        output = subprocess.run(
            [java, "-version"], capture_output=True, text=True, timeout=60
        ).stderr
        version = (re.findall(r'version "([^"]+)"', output) or [None])[0]
    remedy = "install JDK 17; see deploy/README.md"
    return Part("Java", "Flink and Spark", version, remedy)
