"""What TensorFlow.js models need: Node.js, and the packages that npm installs in this folder."""

from __future__ import annotations

import json
import pathlib
import re
import shlex
import shutil
import subprocess
from typing import Any

# The folder of server.mjs, its package-lock.json and the installed packages.
FOLDER = pathlib.Path(__file__).parent


def missing() -> str | None:
    """What TensorFlow.js models lack on this machine and how to install it; None if nothing."""
    package = _read_json(FOLDER / "package.json")
    # 16, as older versions of npm cannot read the lock file, and WebAssembly lacks SIMD.
    oldest = package["engines"]["node"].removeprefix(">=")
    command = f"`npm ci --ignore-scripts --no-audit --no-fund --prefix {shlex.quote(str(FOLDER))}`"
    node = shutil.which("node")
    if node is None:
        return (
            "TensorFlow.js models run in Node.js, but there is no `node` on the PATH. Install "
            f"Node.js {oldest} or newer with npm, then run {command}"
        )
    version = _version(node)
    if int((re.findall(r"\d+", version) or ["0"])[0]) < int(oldest):
        return (
            f"TensorFlow.js models need Node.js {oldest} or newer, but {node} is "
            f"{version or 'of unknown version'}. Install a newer one with npm, then run {command}"
        )
    for name, required in package["dependencies"].items():
        try:
            installed = _read_json(FOLDER / "node_modules" / name / "package.json")["version"]
        except (OSError, ValueError, KeyError):  # absent, or from an interrupted installation
            installed = None
        if installed != required:
            problem = "it is not installed" if installed is None else f"{installed} is installed"
            return (
                f"TensorFlow.js models need the npm package {name} {required}, but {problem}. Run "
                f"{command}"
            )
    return None


def _version(node: str) -> str:
    """The output of `node --version`, "" if it fails."""
    try:
        result = subprocess.run(
            [node, "--version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip()


def _read_json(path: pathlib.Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
