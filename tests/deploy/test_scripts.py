"""Shell scripts, those that have no ending included."""

from __future__ import annotations

import pathlib
import subprocess

import pytest
from clients import ROOT, needs, output_of


def _scripts() -> list[pathlib.Path]:
    listed = ("git", "ls-files", "--cached", "--others", "--exclude-standard")
    found = subprocess.run(listed, cwd=ROOT, text=True, capture_output=True, check=True).stdout
    paths = [ROOT / line for line in found.splitlines()]
    return [path for path in paths if path.is_file() and _is_shell(path)]


def _is_shell(path: pathlib.Path) -> bool:
    if path.suffix == ".sh":
        return True
    with path.open("rb") as file:
        first = file.readline()
    return first.startswith(b"#!") and first.strip().endswith((b"/bash", b"/sh", b" bash", b" sh"))


@pytest.mark.parametrize("script", _scripts(), ids=lambda path: str(path.relative_to(ROOT)))
def test_shellcheck_finds_nothing(script: pathlib.Path) -> None:
    output_of(needs("shellcheck"), "--enable=all", "--exclude=SC2250,SC2312", script)


def test_there_are_scripts() -> None:
    assert ROOT / ".ci" / "run" in _scripts()
