"""The number of threads that a model's runtime may use."""

from __future__ import annotations

import os


def share() -> int:
    """The number of cores of this process, or its share if several processes share the machine.

    Worker processes get their share in the environment variable that TensorFlow reads; other
    runtimes would use all cores in each process.
    """
    threads = os.environ.get("TF_NUM_INTRAOP_THREADS", "")
    if threads.isdigit() and int(threads):
        return int(threads)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
