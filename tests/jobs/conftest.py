"""What tests of whole jobs share."""

import hashlib
import pathlib

import pytest


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
def rejected(evalbeam, tmp_path, digest_files):
    """Calls evalbeam, which must exit with code 2 and write nothing; returns the output."""

    def call(*arguments: object) -> str:
        before = digest_files(tmp_path)
        result = evalbeam(*arguments)
        assert result.exit_code == 2, result.output
        assert digest_files(tmp_path) == before
        assert result.output.count("\n") < 20
        return result.output

    return call
