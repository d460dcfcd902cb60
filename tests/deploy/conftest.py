"""Schemas, which come by their ordinary clients into .cache/, at pinned versions.

Where a client is missing, the tests that need it are skipped and say so; where a download fails,
they fail.
"""

from __future__ import annotations

import json
import zipfile

import pytest
import yaml
from clients import CACHE, go_module, needs, output_of

FLINK_OPERATOR = "org.apache.flink:flink-kubernetes-operator-api:1.10.0"
SPARK_OPERATOR = "github.com/kubeflow/spark-operator/v2@v2.4.0"
COMPOSE = "github.com/compose-spec/compose-go/v2@v2.16.2"


@pytest.fixture(scope="session", autouse=True)
def _cache() -> None:
    CACHE.mkdir(exist_ok=True)


@pytest.fixture(scope="session")
def flink_crd() -> dict:
    """The operator's definition of a FlinkDeployment."""
    _, artifact, version = FLINK_OPERATOR.split(":")
    jar = CACHE / f"{artifact}-{version}.jar"
    if not jar.exists():
        copy = ("dependency:copy", f"-Dartifact={FLINK_OPERATOR}", f"-DoutputDirectory={CACHE}")
        output_of(needs("mvn"), "--quiet", "--batch-mode", *copy, cwd=CACHE)
    with zipfile.ZipFile(jar) as entries:
        return yaml.safe_load(
            entries.read("META-INF/fabric8/flinkdeployments.flink.apache.org-v1.yml")
        )


@pytest.fixture(scope="session")
def spark_crds() -> dict[str, dict]:
    """The operator's definitions, by kind."""
    folder = go_module(SPARK_OPERATOR) / "config" / "crd" / "bases"
    found = [yaml.safe_load(path.read_text()) for path in folder.glob("*.yaml")]
    return {definition["spec"]["names"]["kind"]: definition for definition in found}


@pytest.fixture(scope="session")
def compose_schema() -> dict:
    return json.loads((go_module(COMPOSE) / "schema" / "compose-spec.json").read_text())
