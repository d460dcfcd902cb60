"""What tests of whole jobs share."""

import pytest


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
