"""What tests of several modules share."""

import hashlib
import pathlib
import signal

import click.testing
import pytest
import yaml

from evalbeam.beam_jobs import cli
from evalbeam.transforms.formats import files, tfrecord
from evalbeam.transforms.tfma import result_files


@pytest.fixture(autouse=True)
def signals():
    """Python's handlers of signals: a command that has published or ended ignores them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.fixture
def evalbeam(tmp_path, monkeypatch):
    """Calls the command line in this process, from a folder of the test's own."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> click.testing.Result:
        return click.testing.CliRunner().invoke(cli.main, [str(part) for part in arguments])

    return call


@pytest.fixture
def run_job(evalbeam, tmp_path):
    """Runs a config given as a mapping; returns the published folder."""

    def run(config: dict, *flags: str) -> pathlib.Path:
        path = tmp_path / "job.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False))
        result = evalbeam("run", path, *flags)
        assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
        return (tmp_path / config.get("output", "results") / "latest").resolve()

    return run


@pytest.fixture
def digest_files():
    """Returns the digest of every file in a folder, by relative path."""

    def digest(folder: pathlib.Path) -> dict[str, str]:
        return {
            path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    return digest


@pytest.fixture
def assert_rebuilds(evalbeam, digest_files):
    """Rebuilds a run in place; every file must be the same to the bit."""

    def rebuild(run: pathlib.Path) -> None:
        before = digest_files(run)
        result = evalbeam("results", run)
        assert result.exit_code == 0, result.output
        assert digest_files(run) == before
        assert not (run.parent / ".staging").exists()

    return rebuild


@pytest.fixture
def tfma_messages():
    """Reads a TFMA result, local or remote, without TFMA, which takes long to import."""

    def records(folder: object, kind: str) -> list[bytes]:
        paths = files.match(f"{folder}/{kind}-*.tfrecord")
        runs = [run for path in paths for run in tfrecord.records(files.blocks(path))]
        return [record for run in runs for record in run]

    def read(folder: object) -> result_files.Messages:
        return result_files.Messages.parse(records(folder, "metrics"), records(folder, "plots"))

    return read
