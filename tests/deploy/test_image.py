"""The image's own steps, run without Docker in a clean environment, up to a job on its workers.

What is FROM and COPY --from in the Dockerfile is here a new virtual environment, and Beam's boot
built from the same source. What needs a machine of its own (apt-get, useradd) is not run.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import dockerfile_parse
import pytest
from clients import CACHE, DEPLOY, ROOT, go_module, needs, output_of

DOCKERFILE = DEPLOY / "Dockerfile"
_OF_THE_MACHINE = ("apt-get ", "useradd ")


def _stages() -> dict[str, list[dict]]:
    """By stage, its instructions, FROM included."""
    stages: dict[str, list[dict]] = {}
    parser = dockerfile_parse.DockerfileParser(fileobj=DOCKERFILE.open("rb"))
    for step in parser.structure:
        if step["instruction"] == "FROM":
            stages[step["value"].split()[-1]] = []
        if step["instruction"] != "COMMENT":
            list(stages.values())[-1].append(step)
    return stages


def _locked_beam() -> str:
    lock = (ROOT / "requirements.txt").read_text()
    return re.search(r"^apache-beam==(\S+) ; python_full_version >= '3.11'", lock, re.M)[1]


@dataclass
class Image:
    """The worker stage, rebuilt under a folder of this machine."""

    root: pathlib.Path
    environment: dict[str, str] = field(default_factory=dict)
    folder: pathlib.Path = pathlib.Path("/")
    user: str = "root"
    entrypoint: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def path(self, inside: str) -> pathlib.Path:
        return self.root / str(self.folder / inside).lstrip("/")

    def build(self, steps: list[dict]) -> None:
        for step in steps:
            getattr(self, f"_{step['instruction'].lower()}")(step["value"])

    def _from(self, value: str) -> None:
        assert re.fullmatch(r"python:3\.\d+-slim-\w+ AS worker", value)
        venv = self.root / "venv"
        output_of(sys.executable, "-m", "venv", venv)
        pip = f"pip=={importlib.metadata.version('pip')}"  # it resumes downloads
        output_of(sys.executable, "-m", "pip", "--python", venv, "install", pip)
        self.environment["PATH"] = f"{self.root}/venv/bin:/usr/bin:/bin"

    def _workdir(self, value: str) -> None:
        self.folder = pathlib.Path(value)
        self.path(".").mkdir(parents=True, exist_ok=True)

    def _copy(self, value: str) -> None:
        *sources, target = value.split()
        if sources[0] == "--from=node":
            self._copy_from_node(sources[1], target)
            return
        if sources[0].startswith("--from="):
            assert sources[0] == f"--from=apache/beam_python3.11_sdk:{_locked_beam()}"
            return  # the boot fixture's
        for source in sources:
            if (ROOT / source).is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "node_modules")
                # Docker keeps links within a folder as links.
                shutil.copytree(ROOT / source, self.path(target), ignore=ignored, symlinks=True)
            else:
                shutil.copy(ROOT / source, self.path(target))

    def _copy_from_node(self, source: str, target: str) -> None:
        """The machine's Node.js, and the packages that its npm installs in that stage's way."""
        if source.endswith("/node"):
            (self.root / "venv" / "bin" / "node").symlink_to(needs("node"))
            return
        inside = re.fullmatch(r"/usr/local/lib/python3\.11/(site-packages/.*)/node_modules", target)
        (library,) = (self.root / "venv" / "lib").glob("python3.*")
        package = library / inside[1]
        assert (package / "package-lock.json").exists(), f"{target} is not where the package is"
        (command,) = (step["value"] for step in _stages()["node"] if step["instruction"] == "RUN")
        output_of(*command.split(), cwd=package, env=_machine())

    def _run(self, value: str) -> None:
        command = re.sub(r"^(--mount=\S+\s+)+", "", value)
        if command.startswith(_OF_THE_MACHINE):
            self.left_out.append(command.split()[0])
            return
        output_of(
            *("bash", "-euo", "pipefail", "-c", command),
            cwd=self.path("."),
            env=_machine() | self.environment,
        )

    def _env(self, value: str) -> None:
        key, _, text = value.partition("=")
        self.environment[key] = str(self.path(text)) if text.startswith("/") else text

    def _user(self, value: str) -> None:
        self.user = value

    def _entrypoint(self, value: str) -> None:
        self.entrypoint = json.loads(value)

    def run(self, *command: object, **more) -> str:
        """What a program of the image prints, in an environment that is the image's alone."""
        return output_of(*command, env=self.environment, **more)


@pytest.fixture(scope="session")
def image() -> Iterator[Image]:
    root = CACHE / "image"
    shutil.rmtree(root, ignore_errors=True)
    built = Image(root)
    built.build(_stages()["worker"])
    yield built
    shutil.rmtree(root)  # gigabytes


def _machine() -> dict[str, str]:
    """This machine's variables, which say how it reaches a package index; not its Python's own."""
    return {key: text for key, text in os.environ.items() if not key.startswith("PYTHON")}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def pool(image: Image) -> Iterator[str]:
    """The address of the image's worker pool: its entrypoint, as on a cluster.

    boot has the port and its own path as constants; here they are others.
    """
    port = _free_port()
    source = CACHE / "boot"
    shutil.copytree(ROOT / "tests" / "deploy" / "boot", source, dirs_exist_ok=True)
    assert f" v{_locked_beam()}\n" in (source / "go.mod").read_text(), "boot is of another Beam"
    beam = go_module(f"github.com/apache/beam/sdks/v2@v{_locked_beam()}")
    boot = image.path(image.entrypoint[0])
    constants = {'"--service_port=50000"': f'"--service_port={port}"'}
    constants[f'--container_executable={image.entrypoint[0]}"'] = f'--container_executable={boot}"'
    texts = {
        path.name: path.read_text()
        for path in (beam / "python" / "container").glob("*.go")
        if not path.name.endswith("_test.go")
    }
    for constant, replaced in constants.items():
        assert texts["boot.go"].count(constant) == 1
        texts["boot.go"] = texts["boot.go"].replace(constant, replaced)
    for name, text in texts.items():
        (source / name).write_text(text)
    output_of(needs("go"), "build", "-o", boot, ".", cwd=source)
    with (CACHE / "pool.log").open("w") as log:
        running = subprocess.Popen(
            [boot, "--worker_pool"],
            cwd=image.path("."),
            env=image.environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + 60
            while not _listens(port):
                assert running.poll() is None, (CACHE / "pool.log").read_text()
                assert time.monotonic() < deadline, "the worker pool does not listen"
                time.sleep(0.2)
            yield f"localhost:{port}"
        finally:
            os.killpg(running.pid, signal.SIGTERM)
            running.wait()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("localhost", port), timeout=1):
        return True
    return False


def _workers_started() -> int:
    return (CACHE / "pool.log").read_text().count("Starting worker with command")


def _flags(pool: str) -> list[str]:
    return [
        "--runner=PortableRunner",
        "--job_endpoint=embed",
        "--environment_type=EXTERNAL",
        f"--environment_config={pool}",
        "--experiments=disable_logging_submission_environment",
    ]


def test_what_is_copied_exists_and_is_sent_to_docker() -> None:
    ignore = DOCKERFILE.with_name("Dockerfile.dockerignore").read_text().splitlines()
    sent = [line[1:] for line in ignore if line.startswith("!")]
    copied = [
        source
        for steps in _stages().values()
        for step in steps
        if step["instruction"] == "COPY" and "--from=" not in step["value"]
        for source in step["value"].split()[:-1]
    ]
    folders = {source for source in copied if (ROOT / source).is_dir()}
    # What is in a folder that is sent is sent.
    needed = [one for one in copied if not any(one.startswith(f"{f}/") for f in folders)]
    assert sorted(sent) == sorted(needed)
    made = {"deploy/jars"}  # by the commands of deploy/README.md
    assert [source for source in copied if not (ROOT / source).exists()] in ([], list(made))


def test_no_stage_runs_as_root_unless_it_has_to() -> None:
    stages = _stages()
    del stages["node"]  # it runs nothing
    last = {
        name: [step["value"] for step in steps if step["instruction"] == "USER"][-1]
        for name, steps in stages.items()
    }
    assert last.pop("dataflow") == "root"
    assert set(last.values()) == {"10001"}
    assert len(last) == 3


def test_versions_are_those_of_the_lock() -> None:
    text = DOCKERFILE.read_text()
    assert set(re.findall(r"beam_python3\.11_sdk:(\S+)", text)) == {_locked_beam()}
    pythons = re.findall(r"^FROM python:(3\.\d+)|beam_python(3\.\d+)_sdk", text, re.M)
    assert {one or other for one, other in pythons} == {"3.11"}
    assert "python311-template-launcher-base:" in text


def test_the_workers_stage_is_built(image: Image) -> None:
    # pip check is a step of its own; that it is one, and that nothing else was left out:
    assert image.left_out == ["useradd"]
    assert "pip check" in DOCKERFILE.read_text()
    assert "No broken requirements found" in image.run("pip", "check")
    examined = image.run("evalbeam", "doctor", cwd="/")
    assert re.search(r"TensorFlow\.js +4\.", examined), examined
    where = image.run("python", "-c", "import evalbeam; print(evalbeam.__file__)", cwd="/")
    assert where.startswith(str(image.root / "venv"))
    assert image.run("evalbeam", "--version").startswith("evalbeam, version ")


def test_a_beam_job_runs_on_its_workers(image: Image, pool: str, tmp_path: pathlib.Path) -> None:
    job = """
import os, sys
import apache_beam as beam
with beam.Pipeline(argv=sys.argv[2:]) as pipeline:
    squares = pipeline | beam.Create(range(10)) | beam.Reshuffle() | beam.Map(lambda x: x * x)
    total = squares | beam.CombineGlobally(sum)
    lines = total | beam.Map(lambda x: f"{x} {os.getpid()} {sys.prefix}")
    lines | beam.io.WriteToText(sys.argv[1], shard_name_template="")
print(os.getpid())
"""
    before = _workers_started()
    driver = image.run("python", "-c", job, tmp_path / "sum", *_flags(pool)).strip()
    total, worker, prefix = (tmp_path / "sum").read_text().split()
    assert total == "285"
    assert worker != driver
    assert _workers_started() > before
    # boot wrote into its working folder, and made no environment of its own: as any user may.
    assert image.folder == pathlib.Path("/tmp")
    assert image.path("pipeline_options.json").exists()
    assert prefix == str(image.root / "venv")


def test_evalbeam_runs_on_its_workers(image: Image, pool: str, tmp_path: pathlib.Path) -> None:
    rows = [f"{n},{n % 2},{0.9 if n % 4 else 0.1},{'ab'[n % 2]}\n" for n in range(400)]
    (tmp_path / "data.csv").write_text("person,visited,score,health\n" + "".join(rows))
    (tmp_path / "nightly.yaml").write_text(
        f"data: {{files: {tmp_path}/data.csv, label: visited, id: person}}\n"
        "models: [{name: v1, predictions: score}]\n"
        "slices: [[health]]\n"
        "metrics: [ExampleCount, Recall]\n"
        f"output: {tmp_path}/results\n"
    )
    before = _workers_started()
    command = ("evalbeam", "run", tmp_path / "nightly.yaml")
    said = image.run(*command, *_flags(pool), cwd=tmp_path)
    assert re.search(r"example_count\s+400\b", said)
    assert re.search(r"recall\s+1\.0", said)
    manifest = json.loads((tmp_path / "results" / "latest" / "manifest.json").read_text())
    assert manifest["runner"] == "PortableRunner"
    assert _workers_started() > before
