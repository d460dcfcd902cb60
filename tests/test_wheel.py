"""What a wheel of the working tree holds, and that it runs beside users' own `transforms`."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parent.parent
# What a build needs; copied, since a build writes into its folder.
SOURCES = ("pyproject.toml", "setup.cfg", "README.md", "LICENSE")
FOLDERS = ("beam_jobs", "transforms", "deploy/package")
LINKS = ("beam_jobs", "transforms", "__main__.py")
TFJS = "transforms/models/tfjs"
DATA = ("server.mjs", "package.json", "package-lock.json", ".npmrc")
OFFLINE = ("--quiet", "--disable-pip-version-check", "--no-index", "--no-deps")


def _environment(**variables: str) -> dict[str, str]:
    """This machine's variables, without those of this Python, and those given."""
    machine = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return machine | variables


def _output(*command: object, cwd: Path, **variables: str) -> str:
    """What a command prints; the test fails if it fails."""
    ended = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=_environment(**variables),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, f"{ended.stdout[-3000:]}\n{ended.stderr[-3000:]}"
    return ended.stdout


def _build(source: Path, folder: Path) -> Path:
    """The wheel of a folder or an sdist."""
    pip = (sys.executable, "-m", "pip", "wheel", *OFFLINE, "--no-build-isolation")
    _output(*pip, "--wheel-dir", folder, source, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


def _contents(wheel: Path) -> dict[str, bytes]:
    """By name, the files that a wheel installs, without its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
        return {name: archive.read(name) for name in names}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources, with what npm and a build of an earlier layout leave there."""
    tree = tmp_path_factory.mktemp("tree")
    for name in SOURCES:
        shutil.copy(ROOT / name, tree)
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "node_modules")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, tree / name, ignore=ignore, symlinks=True)
    litter = (f"{TFJS}/node_modules/node-gyp/gyp/__init__.py", "build/lib/transforms/batch.py")
    for path in map(tree.joinpath, litter):
        path.parent.mkdir(parents=True)
        path.touch()
    return tree


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build(tree, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def commands(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands of an environment with the wheel, and without the repository."""
    venv = tmp_path_factory.mktemp("environment")
    _output(sys.executable, "-m", "venv", "--without-pip", venv, cwd=venv)
    pip = (sys.executable, "-m", "pip", "--python", venv / "bin" / "python")
    _output(*pip, "install", *OFFLINE, wheel, cwd=venv)
    # This environment's packages, which the wheel depends on; not what its .pth files add.
    packages = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site,) = venv.glob("lib/python3.*/site-packages")
    (site / "dependencies.pth").write_text("\n".join(packages))
    return venv / "bin"


@pytest.fixture
def users(tmp_path: Path) -> Path:
    """A user's folder, whose packages have the names of the repository's folders."""
    for package in ("beam_jobs", "transforms"):
        (tmp_path / package).mkdir()
    (tmp_path / "beam_jobs" / "__init__.py").write_text("raise RuntimeError('a module of users')\n")
    (tmp_path / "transforms" / "__init__.py").write_text(
        "def predict(columns):\n    return columns['age'] / 100\n"
    )
    for part in range(4):
        rows = (f"{age},{age % 2},{age % 5 / 5}\n" for age in range(part, 100, 4))
        (tmp_path / f"data-{part}.csv").write_text("age,visited,score\n" + "".join(rows))
    (tmp_path / "visits.yaml").write_text(
        "data: {files: data-*.csv, label: visited}\n"
        "models:\n"
        "  - {name: stored, predictions: score}\n"
        "  - {name: called, callable: 'transforms:predict', inputs: [age]}\n"
        "metrics: [ExampleCount, {class_name: MeanPrediction}]\n"
        "output: results\n"
    )
    return tmp_path


@pytest.fixture
def pool(commands: Path, users: Path) -> Iterator[str]:
    """The address of a pool of workers, started in the user's folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"localhost:{free.getsockname()[1]}"
    log = users / "pool.log"
    process = subprocess.Popen(
        [commands / "evalbeam-worker", "--worker_pool", f"--address={address}"],
        cwd=users,
        env=_environment(PYTHONPATH=str(users)),
        stdin=subprocess.DEVNULL,
        stderr=log.open("w"),
    )
    try:
        deadline = time.monotonic() + 60
        while "worker pool at" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "the pool does not listen"
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()  # its workers, too
        process.wait()


def test_its_one_package_is_evalbeam(wheel: Path) -> None:
    files = _contents(wheel)
    folders = [ROOT / "beam_jobs", ROOT / "transforms"]
    modules = {path for folder in folders for path in folder.rglob("*.py")}
    expected = {
        f"evalbeam/{path.relative_to(ROOT)}" for path in modules if "node_modules" not in path.parts
    }
    expected |= {f"evalbeam/{TFJS}/{name}" for name in DATA}
    assert set(files) == expected | {"evalbeam/__init__.py", "evalbeam/__main__.py"}
    for name in expected:
        assert files[name] == (ROOT / name.removeprefix("evalbeam/")).read_bytes(), name


def test_the_sdist_gives_the_same_wheel(tree: Path, wheel: Path, tmp_path: Path) -> None:
    program = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    _output(sys.executable, "-c", program, tmp_path, cwd=tree)
    (sdist,) = tmp_path.glob("*.tar.gz")
    assert _contents(_build(sdist, tmp_path)) == _contents(wheel)


@pytest.mark.parametrize("name", LINKS)
def test_links_lead_into_the_same_tree(tree: Path, name: str) -> None:
    link = Path("deploy/package/evalbeam", name)
    target = (ROOT / link).readlink()
    assert not target.is_absolute()
    assert (tree / link).resolve().is_relative_to(tree.resolve())


def test_a_checkout_without_links_is_named(tmp_path: Path) -> None:
    package = tmp_path / "evalbeam"
    package.mkdir()
    for name in ("__init__.py", *LINKS):  # as Git writes links where there are none
        path = ROOT / "deploy" / "package" / "evalbeam" / name
        text = str(path.readlink()) if path.is_symlink() else path.read_text()
        (package / name).write_text(text)
    command = (sys.executable, "-m", "evalbeam", "--help")
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "ImportError" in ended.stderr
    assert "lacks beam_jobs and transforms: in the repository they are symbolic" in ended.stderr


def _run(commands: Path, users: Path, command: str, *flags: str) -> dict[str, int]:
    """Runs and verifies the user's evaluation; by worker process, how many examples it scored."""
    program, *options = command.split()
    arguments = (*options, "run", "visits.yaml", *flags)
    _output(commands / program, *arguments, cwd=users, PYTHONPATH=str(users))
    results = users / "results" / "latest"
    metrics = pd.read_parquet(results / "metrics.parquet")
    means = metrics[metrics.metric == "mean_prediction"].set_index("model").value
    assert means.to_dict() == pytest.approx({"stored": 0.4, "called": 0.495})
    return json.loads((results / "manifest.json").read_text())["workers"]


@pytest.mark.parametrize("command", ["evalbeam", "python -m evalbeam"])
def test_it_runs_beside_users_modules(commands: Path, users: Path, command: str) -> None:
    assert list(_run(commands, users, command, "--direct_num_workers=1").values()) == [100]


def test_its_processes_run_beside_users_modules(commands: Path, users: Path) -> None:
    flags = ("--direct_num_workers=2", "--direct_running_mode=multi_processing")
    assert len(_run(commands, users, "evalbeam", *flags)) == 2


def test_its_workers_run_beside_users_modules(commands: Path, users: Path, pool: str) -> None:
    portable = ("--runner=PortableRunner", "--job_endpoint=embed")
    external = ("--environment_type=EXTERNAL", f"--environment_config={pool}")
    assert sum(_run(commands, users, "evalbeam", *portable, *external).values()) == 100
