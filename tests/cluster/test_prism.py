"""The job on Prism, Beam's own portable runner."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from conftest import CACHE, Job, assert_equal, manifest, need


def test_the_demo(demo: tuple[Job, Path]) -> None:
    prism = CACHE / f"prism-v{metadata.version('apache-beam')}" / "prism"
    need(prism)
    job, expected = demo
    found = job.run(
        "prism",
        "--runner=PrismRunner",
        f"--prism_location={prism}",
        "--environment_type=LOOPBACK",
    )
    assert_equal(found, expected)
    assert manifest(found)["runner"] == "PrismRunner"
