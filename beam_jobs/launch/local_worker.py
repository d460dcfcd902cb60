"""A worker process of a local run, started by `processes`. Imports Beam only once it is watched."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import threading
import traceback
from typing import NoReturn


def work(folder: str) -> NoReturn:
    """What a worker process does; it also ends with the launcher, which may leave it `folder`."""
    threading.Thread(target=_end_with_launcher, args=(folder,), daemon=True).start()
    code = 0
    try:
        _work()
    except BaseException as error:
        sys.stderr.writelines(traceback.format_exception_only(error))
        code = 1
    # Otherwise Python would wait for threads that wait for what has failed.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _work() -> None:
    from apache_beam.runners.worker import sdk_worker_main

    from evalbeam.beam_jobs.launch import runner

    runner.quiet_beam()
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.addFilter(runner.is_informative)
    logging.basicConfig(handlers=[handler])
    sdk_worker_main.main([])


def _end_with_launcher(folder: str) -> None:
    sys.stdin.buffer.read()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)
