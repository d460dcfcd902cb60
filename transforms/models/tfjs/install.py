"""What TensorFlow.js models need of the machine: Node.js, and packages that npm installs here."""

from __future__ import annotations

import json
import pathlib
import re
import shlex
import shutil
import subprocess
from typing import Any

# Where server.mjs and the lock of its npm packages are, and the packages themselves.
FOLDER = pathlib.Path(__file__).parent


def missing() -> str | None:
    """What this machine lacks for TensorFlow.js models and what installs it; None if nothing."""
    asked = _json(FOLDER / "package.json")
    # 16: with an older one npm cannot read the lock, and WebAssembly has no SIMD.
    oldest = asked["engines"]["node"].removeprefix(">=")
    command = f"`npm ci --ignore-scripts --no-audit --no-fund --prefix {shlex.quote(str(FOLDER))}`"
    node = shutil.which("node")
    if node is None:
        return (
            "TensorFlow.js models run in Node.js, and there is no `node` on the PATH. Install "
            f"Node.js {oldest} or newer with npm, then run {command}"
        )
    version = _version(node)
    if int((re.findall(r"\d+", version) or ["0"])[0]) < int(oldest):
        return (
            f"TensorFlow.js models need Node.js {oldest} or newer, and {node} is "
            f"{version or 'of no known version'}. Install a newer one with npm, then run {command}"
        )
    for name, wanted in asked["dependencies"].items():
        package = FOLDER / "node_modules" / name / "package.json"
        try:
            found = _json(package)["version"]
        except (OSError, ValueError, KeyError):  # absent, or from an installation that broke off
            found = None
        if found != wanted:
            told = "it is not installed" if found is None else f"{found} is installed"
            return (
                f"TensorFlow.js models need the npm package {name} {wanted}, and {told}. Run "
                f"{command}"
            )
    return None


def _version(node: str) -> str:
    """What `node --version` prints, "" if it fails."""
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


def _json(path: pathlib.Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
