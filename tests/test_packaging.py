from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from packaging import requirements, utils

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib  # type: ignore[no-redef]

ROOT = Path(__file__).parent.parent
LOCKS = ("requirements.txt", "requirements-dev.txt")
# Of environments of their own, and so without the project's packages.
APART = ("tests/conversions/converter/requirements.txt",)
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
PLATFORMS = ("linux", "darwin")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def _entries(lock: str) -> list[str]:
    """A lock's requirements, each with its hashes."""
    text = (ROOT / lock).read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def _pins(lock: str, python: str, platform: str) -> dict[str, str]:
    """By package, the version that is locked for a Python on a platform."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": platform,
    }
    pins: dict[str, str] = {}
    for entry in _entries(lock):
        requirement = requirements.Requirement(entry.split("--hash")[0])
        if requirement.marker is None or requirement.marker.evaluate(environment):
            name = utils.canonicalize_name(requirement.name)
            assert name not in pins, f"{name} is locked twice for {python} on {platform}"
            pins[name] = str(requirement.specifier).removeprefix("==")
    return pins


@pytest.mark.parametrize("lock", LOCKS + APART)
def test_every_locked_package_has_hashes(lock: str) -> None:
    for entry in _entries(lock):
        assert re.fullmatch(r"\S+==\S+( ; .+?)?(\s+--hash=sha256:[0-9a-f]{64})+\s*", entry), entry


@pytest.mark.parametrize("lock", LOCKS + APART)
def test_a_lock_names_no_host_and_no_path(lock: str) -> None:
    assert not re.search(r"://|--index-url|--find-links|^-|/", (ROOT / lock).read_text())


def test_the_lock_of_npm_has_hashes_and_names_no_registry() -> None:
    folder = ROOT / "transforms/models/tfjs"
    asked = json.loads((folder / "package.json").read_text())["dependencies"]
    packages = json.loads((folder / "package-lock.json").read_text())["packages"]
    assert packages.pop("")["dependencies"] == asked
    for name, version in asked.items():
        assert packages[f"node_modules/{name}"]["version"] == version, "run `make lock`"
    for name, package in packages.items():
        assert package["integrity"].startswith("sha512-"), name
        assert "resolved" not in package, f"{name}: run `make lock`"


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_locks_fit_what_the_project_asks_for(
    project: dict[str, Any], python: str, platform: str
) -> None:
    extras = project["project"]["optional-dependencies"].values()
    runtime = sum(extras, project["project"]["dependencies"])
    asked = {
        "requirements.txt": runtime,
        "requirements-dev.txt": runtime + project["dependency-groups"]["dev"],
    }
    for lock, texts in asked.items():
        pins = _pins(lock, python, platform)
        for requirement in map(requirements.Requirement, texts):
            if requirement.marker and not requirement.marker.evaluate({"python_version": python}):
                continue
            name = utils.canonicalize_name(requirement.name)
            assert name in pins, f"{lock} lacks {name}: run `make lock`"
            assert requirement.specifier.contains(pins[name]), f"{name}: run `make lock`"


def test_development_runs_on_what_is_shipped() -> None:
    assert set(_entries("requirements.txt")) <= set(_entries("requirements-dev.txt"))


def test_the_commands_are_installed_under_their_names(project: dict[str, Any]) -> None:
    assert project["project"]["scripts"] == {
        "evalbeam": "evalbeam.beam_jobs.cli:start",
        "evalbeam-worker": "evalbeam.beam_jobs.launch.worker:main",
    }


def test_code_lives_in_the_four_folders_alone() -> None:
    # What `make` and an evaluation leave behind is not the project's.
    made = {"build", "dist", "demo", "results"}
    folders = {
        path.relative_to(ROOT).parts[0]
        for path in ROOT.iterdir()
        if path.is_dir() and not path.name.startswith(".") and path.suffix != ".egg-info"
    }
    assert folders - made - {"__pycache__"} <= {"beam_jobs", "transforms", "tests", "deploy"}
    assert not list(ROOT.glob("*.py"))


@pytest.mark.parametrize(
    "page",
    [*ROOT.glob("*.md"), *ROOT.glob("deploy/*.md"), ROOT / "beam_jobs/config/README.md"],
    ids=str,
)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
