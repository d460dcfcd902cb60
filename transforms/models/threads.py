"""How many threads a model's runtime may use."""

from __future__ import annotations

import os


def share() -> int:
    """The cores of this process, or its share of them where several work on this machine.

    Whoever starts worker processes tells each of them its share in the variable that TensorFlow
    reads; other runtimes would take all cores in each process.
    """
    told = os.environ.get("TF_NUM_INTRAOP_THREADS", "")
    if told.isdigit() and int(told):
        return int(told)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
