import os

import pytest

from evalbeam.transforms.models import threads


@pytest.mark.parametrize("told", [None, "", "0", "all"])
def test_a_process_on_its_own_uses_its_cores(monkeypatch, told):
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    if told is not None:
        monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", told)
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count())
    assert threads.share() == len(cores)


def test_a_process_among_others_uses_its_share(monkeypatch):
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "3")
    assert threads.share() == 3
