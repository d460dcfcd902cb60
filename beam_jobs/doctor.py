"""What is installed, and what a missing part would enable, with the command that installs it."""

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
    """Something that evalbeam uses.

    Attributes:
      name: its.
      purpose: what it is for.
      found: its version; None where it is missing.
      remedy: how to install it.
    """

    name: str
    purpose: str
    found: str | None
    remedy: str


def parts() -> list[Part]:
    """All parts, what every run needs first."""
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
    """The parts as a table, and below it, to be copied whole, how to install what is missing."""
    found = parts()
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    for column in ("part", "version", "for"):
        table.add_column(column, no_wrap=column != "for")
    for part in found:
        table.add_row(part.name, part.found or "missing", part.purpose)
    console = rich.console.Console(highlight=False, markup=False)
    with console.capture() as printed:
        console.print(table)
        for part in found:
            if part.found is None:
                console.print(f"{part.name}: {part.remedy}", soft_wrap=True)
    return printed.get().rstrip()


def _package(name: str, purpose: str, needed: str = "") -> Part:
    try:
        found = metadata.version(name)
    except metadata.PackageNotFoundError:
        found = None
    return Part(name, purpose, found, f"pip install {needed or name}")


def _tensorflow_js() -> Part:
    missing = install.missing()
    wanted = json.loads((install.FOLDER / "package.json").read_text())["dependencies"]
    found = None if missing else wanted["@tensorflow/tfjs"]
    return Part("TensorFlow.js", "TensorFlow.js models", found, missing or "")


def _java() -> Part:
    """What Beam's job servers for Flink and Spark run on."""
    found = None
    if java := shutil.which("java"):
        told = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60).stderr
        found = (re.findall(r'version "([^"]+)"', told) or [None])[0]
    remedy = "a JDK of version 17; see deploy/README.md"
    return Part("Java", "Flink and Spark", found, remedy)
