"""Programs from outside that the tests call, and where things are."""

from __future__ import annotations

import functools
import json
import pathlib
import shutil
import subprocess
from typing import Any

import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CACHE = ROOT / ".cache"


def needs(client: str) -> str:
    """The client's path; the test is skipped without it."""
    found = shutil.which(client)
    if found is None:
        pytest.skip(f"needs {client}, which is not installed")
    return found


def output_of(*command: object, **more: Any) -> str:
    """A command's output; if the command fails, the test fails with the end of its output."""
    ended = subprocess.run(
        [str(part) for part in command], text=True, capture_output=True, timeout=900, **more
    )
    if ended.returncode:  # why is said last, and a report may be cut: not all that it had done
        last = (ended.stdout[-1500:], ended.stderr[-1500:])
        pytest.fail("\n".join((f"exit {ended.returncode} of {command}", *last)), pytrace=False)
    return ended.stdout


def go_module(module: str) -> pathlib.Path:
    told = output_of(needs("go"), "mod", "download", "-json", module, cwd=CACHE)
    return pathlib.Path(json.loads(told)["Dir"])


def render(folder: str) -> list[dict]:
    """The objects that a folder of deploy/kubernetes makes, each time new ones."""
    return list(yaml.safe_load_all(_rendered(folder)))


@functools.cache
def _rendered(folder: str) -> str:
    return output_of(needs("kubectl"), "kustomize", DEPLOY / "kubernetes" / folder)


def compose() -> dict:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())
