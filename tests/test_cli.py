"""How the program ends, whatever becomes of its streams and whenever signals come."""

import signal
import subprocess
import sys

import pytest

# Ends slowly, and prints when it starts to.
SLOW_END = """
import atexit, sys, time
from evalbeam.beam_jobs import cli
def end():
    print("ending", flush=True)
    time.sleep(1)
    print("ended")
atexit.register(end)
sys.argv = ["evalbeam", "metrics", *sys.argv[1:]]
cli.start()
"""


@pytest.mark.parametrize(
    ("streams", "metric", "code"),
    [
        (">&-", "", 0),
        (">&- 2>&- <&-", "nonsense", 2),
        ("2</dev/null", "nonsense", 2),  # open, but not to be written to
        ("| true", "", 0),
        ("2>&1 | true", "nonsense", 2),
        (">/dev/full", "", 4),
    ],
)
def test_streams_do_not_change_the_exit_code(streams, metric, code):
    command = f"set -o pipefail; {sys.executable} -m evalbeam metrics {metric} {streams}"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(("metric", "code"), [("AUC", 0), ("nonsense", 2)])
def test_signals_come_too_late_once_the_command_has_ended(metric, code):
    command = [sys.executable, "-c", SLOW_END, metric]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )
    while process.stdout.readline() != "ending\n":
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    output, error = process.communicate()
    assert process.returncode == code, error
    assert output == "ended\n"
    assert "Traceback" not in error
