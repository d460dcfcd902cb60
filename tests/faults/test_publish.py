"""A run is published whole or not at all, whatever happens meanwhile, and a retry works."""

import contextlib
import errno
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml

from evalbeam.beam_jobs.publish import assemble, staging

CONFIG = {
    "data": {"files": "data.csv", "label": "label"},
    "models": [{"name": "v1", "predictions": "score"}],
    "slices": [["group"]],
    "metrics": ["BinaryAccuracy"],
}


@pytest.fixture
def output(tmp_path):
    """The folder of all runs, next to a config and its data; nothing is in it yet."""
    rng = np.random.default_rng(1)
    columns = {"label": rng.integers(0, 2, 400), "score": rng.random(400)}
    frame = pd.DataFrame({**columns, "group": rng.integers(0, 300, 400)})
    frame.to_csv(tmp_path / "data.csv", index=False)
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(CONFIG))
    (tmp_path / "other.yaml").write_text(yaml.safe_dump({**CONFIG, "name": "other"}))
    return tmp_path / "results"


def start(folder, code):
    """Starts a run in a process of its own, in which `code` runs first."""
    code += "\nfrom evalbeam.beam_jobs import cli\ncli.main(['run', 'job.yaml', '--run-id', 'one'])"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def no_links(monkeypatch):
    """A filesystem without links, such as vfat."""

    def refuse(*_, **__):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "symlink", refuse)


@pytest.mark.parametrize("step", ["rename", "replace"])
def test_signals_wait_for_the_end_of_publishing(evalbeam, output, monkeypatch, step):
    original = getattr(os, step)

    def move(source, target):
        is_last = str(target).endswith(("/runs/one", "results/latest"))
        if is_last:
            interrupt()
        original(source, target)
        if is_last:
            interrupt()

    monkeypatch.setattr(os, step, move)
    result = evalbeam("run", "job.yaml", "--run-id", "one")
    assert result.exit_code == 0, result.output
    assert os.readlink(output / "latest") == "runs/one"
    assert sorted(os.listdir(output)) == ["latest", "runs"]


def test_signals_wait_for_the_end_of_replacing(evalbeam, output, monkeypatch, digest_files):
    assert evalbeam("run", "job.yaml", "--run-id", "one").exit_code == 0
    before = digest_files(output)
    replace = staging.replace

    def replace_and_interrupt(*arguments):
        replaced = replace(*arguments)
        interrupt()
        return replaced

    monkeypatch.setattr(staging, "replace", replace_and_interrupt)
    result = evalbeam("results", "results/latest")
    assert result.exit_code == 0, result.output
    assert digest_files(output) == before


def test_a_signal_before_publishing_is_obeyed(evalbeam, output, monkeypatch):
    monkeypatch.setattr(assemble, "note_plots", lambda *_: interrupt() or [])
    result = evalbeam("run", "job.yaml", "--run-id", "one")
    assert result.exit_code == 130
    assert result.output.endswith("interrupted: nothing was published\n")
    assert os.listdir(output) == []


def test_signals_after_publishing_do_not_change_the_exit_code(output, tmp_path):
    """At the start of the interpreter's exit, and when it has torn down most of itself."""
    process = start(
        tmp_path,
        "import atexit, os, signal, sys\n"
        "def interrupt(kill=os.kill, pid=os.getpid()):\n"
        "    kill(pid, 2), kill(pid, 15)\n"
        "class Last:\n"
        "    def __del__(self, interrupt=interrupt): interrupt()\n"
        "sys.modules['last'] = Last()\n"
        "atexit.register(interrupt)",
    )
    assert process.returncode == 0, process.stderr
    assert "Exception" not in process.stderr
    assert (output / "latest" / "manifest.json").exists()


def test_a_retry_completes_a_run_that_was_killed_before_latest(evalbeam, output, tmp_path):
    kill = (
        "import os\nreplace = os.replace\ndef kill(source, target):\n"
        "    if str(target).endswith('latest'): os.kill(os.getpid(), 9)\n"
        "    replace(source, target)\nos.replace = kill"
    )
    process = start(tmp_path, kill)
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert (output / "runs" / "one" / "manifest.json").exists()
    assert not os.path.lexists(output / "latest")
    other = evalbeam("run", "other.yaml", "--run-id", "one")
    assert other.exit_code == 2
    assert "runs/one already exists, and published results are never changed" in other.output
    result = evalbeam("run", "job.yaml", "--run-id", "one")
    assert result.exit_code == 0, result.output
    assert result.output == (
        "results/runs/one was already published, by the same config, so nothing was run; `latest` "
        "names one. Another --run-id evaluates again\n"
    )
    assert not list(output.glob(".latest-*"))
    assert os.readlink(output / "latest") == "runs/one"


def test_a_retry_does_not_put_latest_back(evalbeam, output):
    for run_id in ("one", "two"):
        assert evalbeam("run", "job.yaml", "--run-id", run_id).exit_code == 0
    result = evalbeam("run", "job.yaml", "--run-id", "one")
    assert result.exit_code == 0
    assert "`latest` names two, a later run." in result.output
    assert os.readlink(output / "latest") == "runs/two"


def test_a_retry_completes_what_was_rebuilt_or_merged(evalbeam, output, tmp_path):
    frame = pd.read_csv(tmp_path / "data.csv")
    for run_id, rows in (("one", frame[:200]), ("two", frame[200:])):
        rows.to_csv(tmp_path / "data.csv", index=False)
        assert evalbeam("run", "job.yaml", "--run-id", run_id).exit_code == 0
    latest, again = tmp_path / "new" / "latest", ("--output", "new", "--run-id", "again")
    for command in (("merge", "results/runs/one", "results/runs/two"), ("results", "new/runs/all")):
        flags = ("--output", "new", "--run-id", "all" if command[0] == "merge" else "copy")
        assert evalbeam(*command, *flags).exit_code == 0
        latest.unlink()
        result = evalbeam(*command, *flags)
        assert result.exit_code == 0, result.output
        assert f"new/runs/{flags[-1]} was already published" in result.output
        assert os.readlink(latest) == f"runs/{flags[-1]}"
    assert evalbeam("results", "results/runs/one", *again).exit_code == 0
    result = evalbeam("results", "results/runs/two", *again)
    assert result.exit_code == 2
    assert "new/runs/again already exists" in result.output


def test_without_latest_nothing_is_published(evalbeam, output, monkeypatch):
    with monkeypatch.context() as patched:

        def refuse(source, target):
            if str(target).endswith("latest"):
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(target))
            os.rename(source, target)

        patched.setattr(os, "replace", refuse)
        result = evalbeam("run", "job.yaml", "--run-id", "one")
    assert result.exit_code == 4
    assert "error: cannot publish results/runs/one: [Errno 5]" in result.output
    assert os.listdir(output / "runs") == []
    assert sorted(os.listdir(output)) == ["runs"]
    assert evalbeam("run", "job.yaml", "--run-id", "one").exit_code == 0


def test_without_links_latest_is_a_file(evalbeam, output, request, assert_rebuilds, tmp_path):
    """It replaces a link, too, as of an output that was copied to such a filesystem."""
    assert evalbeam("run", "job.yaml", "--run-id", "one").exit_code == 0
    request.getfixturevalue("no_links")
    result = evalbeam("run", "job.yaml", "--run-id", "two")
    assert result.exit_code == 0, result.output
    assert not (output / "latest").is_symlink()
    assert (output / "latest").read_text() == "runs/two\n"
    assert sorted(os.listdir(output)) == ["latest", "runs"]
    before = (output / "runs" / "two" / "metrics.parquet").stat().st_mtime_ns
    assert evalbeam("results", "results/latest").exit_code == 0
    assert (output / "runs" / "two" / "metrics.parquet").stat().st_mtime_ns > before
    assert_rebuilds(output / "runs" / "two")
    copied = evalbeam("results", "results/latest", "--output", "copy")
    assert copied.exit_code == 0, copied.output
    assert (tmp_path / "copy" / "latest").read_text() == "runs/two\n"
    merged = evalbeam("merge", "results/latest", "copy/latest", "--output", "m")
    assert "both include the run 'two'" in merged.output
    assert "did you mean" in evalbeam("results", "results").output
    assert evalbeam("run", "job.yaml", "--run-id", "two").exit_code == 0


def test_staging_in_a_folder_that_another_run_deletes(output, monkeypatch):
    """When another run ends, and between any two calls, it deletes the empty parent."""
    mkdir, deleted = os.mkdir, []

    def create(path, mode=0o777):
        mkdir(path, mode)
        if str(path).endswith(".staging") and len(deleted) < 3:
            os.rmdir(path)
            deleted.append(path)

    monkeypatch.setattr(os, "mkdir", create)
    with staging.staged(str(output), "one") as stage:
        assert stage.state.is_dir()
    assert len(deleted) == 3
    assert os.listdir(output) == []


@contextlib.contextmanager
def small(folder, size):
    """A filesystem of this size at the folder."""
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "none", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("filesystems cannot be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk(evalbeam, output):
    """Wherever it happens, it is reported by the file's name, and nothing is left."""
    named = set()
    for size in (16, 88, 120):
        with small(output, size):
            result = evalbeam("run", "job.yaml")
            assert result.exit_code == 4, (size, result.output)
            error = result.output.splitlines()[-1]
            assert error.startswith(f"error: cannot write {output}/.staging/"), error
            assert ": No space left on device, after " in error
            assert "0 bytes are free there. Nothing was published: make room and try" in error
            assert os.listdir(output) == []
        named.add(error.split(":")[1].split("/")[-1])
    assert len(named) == 3


def test_a_disk_that_becomes_read_only(evalbeam, output, monkeypatch):
    judge = assemble.conversion.judge

    def remount(*arguments):
        subprocess.run(["mount", "-o", "remount,ro", str(output)], check=True)
        return judge(*arguments)

    monkeypatch.setattr(assemble.conversion, "judge", remount)
    with small(output, 1000):
        result = evalbeam("run", "job.yaml")
        assert result.exit_code == 4, result.output
        assert "/findings.json: Read-only file system, after 0 bytes of it" in result.output
        assert "Traceback" not in result.output
        assert os.listdir(output) == [".staging"]


def test_a_limit_on_the_size_of_files(evalbeam, output):
    _, most = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, most))
    try:
        result = evalbeam("run", "job.yaml")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert result.exit_code == 4, result.output
    assert ".parquet: File too large, after 2,000 bytes of it" in result.output
    assert os.listdir(output) == []


@pytest.mark.parametrize("name", ["runs", ".staging", "latest"])
@pytest.mark.parametrize("flags", [(), ("--dry-run",)])
def test_a_file_in_the_place_of_a_folder(evalbeam, output, name, flags):
    output.mkdir()
    (output / name).write_text("notes")
    result = evalbeam("run", "job.yaml", *flags)
    assert result.exit_code == 2, result.output
    assert (
        f"{output / name} is a file" in result.output or "is not a link to a run" in result.output
    )
    assert result.output.count("\n") == 1
    assert os.listdir(output) == [name]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--output", ""), "it is empty; write a path or URL"),
        (("--output", "o" * 300), "File name too long"),
        (("--output", "o/" * 3000), "File name too long"),
        (("--output", os.fsdecode(b"caf\xe9")), "is not UTF-8: rename it"),
        (("--run-id", "one\n"), "--run-id 'one\\n': a name consists of up to 128 letters"),
        (("--run-id", "\x1b[2J"), "--run-id '\\x1b[2J': a name consists of"),
        (("--run-id", "x" * 129), "a name consists of up to 128 letters"),
    ],
)
def test_names_that_cannot_be(evalbeam, output, flags, message):
    result = evalbeam("run", "job.yaml", *flags)
    assert result.exit_code == 2, f"{result.output}{result.exception!r}"
    assert message in result.output
    assert "Traceback" not in result.output
    assert not output.exists()


@pytest.mark.parametrize("run", ["r" * 300, "r/" * 3000, os.fsdecode(b"caf\xe9"), ""])
def test_runs_that_cannot_be(evalbeam, output, run):
    for result in (evalbeam("results", run), evalbeam("merge", run, run, "--output", "m")):
        assert result.exit_code == 2, f"{result.output}{result.exception!r}"
        assert "Traceback" not in result.output
        assert result.output.count("\n") < 6


def test_a_home_folder_wherever_a_path_is_given(evalbeam, output, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    pathlib.Path(tmp_path / "data.csv").rename(home / "data.csv")
    (home / "names.txt").write_text("0\n1\n")
    data = {"files": "~/data.csv", "label": "label", "splits": {"more": ["~/data.c*"]}}
    data["classes"] = "~/names.txt"
    config = {**CONFIG, "data": data, "output": "~/results"}
    (home / "job.yaml").write_text(yaml.safe_dump(config))
    result = evalbeam("run", "~/job.yaml", "--run-id", "one")
    assert result.exit_code == 0, result.output
    result = evalbeam("results", "~/results/latest", "--output=~/again", "--config=~/job.yaml")
    assert result.exit_code == 0, result.output
    assert json.loads((home / "again" / "latest" / "manifest.json").read_text())["run_id"] == "one"
    result = evalbeam("merge", "~/results/latest", "~/again/latest", "--output=~/merged")
    assert "count twice" in result.output
    assert sorted(os.listdir(tmp_path)) == ["home", "job.yaml", "other.yaml"]
