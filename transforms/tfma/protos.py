"""TFMA's protos, without importing TFMA, which takes 16 seconds."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import pathlib
from types import ModuleType
from typing import Any

from google.protobuf import wrappers_pb2

_PACKAGE = "tensorflow_model_analysis"
_NEEDED = wrappers_pb2.DESCRIPTOR  # TFMA's protos depend on this file; importing it registers it.


def _load(name: str) -> ModuleType:
    """Loads one of TFMA's generated modules from its file.

    By path rather than from its package, which imports all of TFMA. The descriptor pool accepts the
    same file twice and returns the same classes, whether TFMA is imported before or after.
    """
    package = importlib.util.find_spec(_PACKAGE)
    assert package is not None
    assert package.submodule_search_locations is not None
    path = pathlib.Path(package.submodule_search_locations[0]) / "proto" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"_tfma_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


config_pb2: Any = _load("config_pb2")
metrics_for_slice_pb2: Any = _load("metrics_for_slice_pb2")


def version() -> str:
    """TFMA's version."""
    return importlib.metadata.version(_PACKAGE)
