"""Kubernetes' and Compose's files: they fit their schemas, each other, and the real command."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from clients import DEPLOY, ROOT, compose, needs, output_of, render

from evalbeam.beam_jobs import cli, config
from evalbeam.beam_jobs.launch import runner
from evalbeam.transforms import errors

KUBERNETES = "1.30"  # the oldest that is still cared for by the clouds
FOLDERS = ("flink", "flink-once", "spark", "spark-once")
IMAGE = "registry.example.com/evalbeam"


def _of_kind(kind: str, folder: str) -> dict:
    (found,) = [one for one in render(folder) if one["kind"] == kind]
    return found


def _nodes(node: Any) -> Iterator[dict]:
    """All mappings in a document."""
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node:
        if isinstance(child, dict | list):
            yield from _nodes(child)


def _closed(schema: Any) -> Any:
    """A definition's schema in which a field that it does not know is a mistake, as for kubectl."""
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        closed.setdefault("additionalProperties", False)
    return closed


def _check(document: dict, definition: dict) -> None:
    group, version = document["apiVersion"].split("/")
    assert definition["spec"]["group"] == group
    (served,) = [one for one in definition["spec"]["versions"] if one["name"] == version]
    schema = _closed(served["schema"]["openAPIV3Schema"])
    # What Kubernetes itself knows of each object.
    schema["properties"] |= {"apiVersion": {}, "kind": {}, "metadata": {"type": "object"}}
    jsonschema.validate(document, schema, jsonschema.Draft202012Validator)


@pytest.mark.parametrize("folder", FOLDERS)
def test_kubernetes_own_kinds_fit_its_schema(folder: str) -> None:
    kinds = []
    for document in render(folder):
        if document["apiVersion"] in ("v1", "batch/v1", "networking.k8s.io/v1"):
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
            kinds.append(document["kind"])
    assert {"ConfigMap", "NetworkPolicy"} <= set(kinds)


def test_the_flink_cluster_fits_the_operators_definition(flink_crd: dict) -> None:
    cluster = _of_kind("FlinkDeployment", "flink")
    _check(cluster, flink_crd)
    for role in ("jobManager", "taskManager"):
        pod = cluster["spec"][role]["podTemplate"]
        pod["spec"]["containers"][0]["image"] = cluster["spec"]["image"]  # as the operator does
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


@pytest.mark.parametrize(
    ("kind", "folder"), [("ScheduledSparkApplication", "spark"), ("SparkApplication", "spark-once")]
)
def test_a_spark_application_fits_the_operators_definition(
    kind: str, folder: str, spark_crds: dict[str, dict]
) -> None:
    _check(_of_kind(kind, folder), spark_crds[kind])


def test_a_definition_refuses_an_unknown_field(spark_crds: dict[str, dict]) -> None:
    application = _of_kind("SparkApplication", "spark-once")
    application["spec"]["driver"]["memry"] = "2g"
    with pytest.raises(jsonschema.ValidationError, match="memry"):
        _check(application, spark_crds["SparkApplication"])


def test_once_and_nightly_are_the_same_run() -> None:
    nightly = _of_kind("CronJob", "flink")["spec"]["jobTemplate"]["spec"]
    assert nightly == _of_kind("Job", "flink-once")["spec"]
    nightly = _of_kind("ScheduledSparkApplication", "spark")["spec"]["template"]
    assert nightly == _of_kind("SparkApplication", "spark-once")["spec"]


def test_nights_do_not_overlap_and_end() -> None:
    cron = _of_kind("CronJob", "flink")["spec"]
    assert cron["concurrencyPolicy"] == "Forbid"
    assert cron["timeZone"]
    job = cron["jobTemplate"]["spec"]
    assert job["backoffLimit"] > 0
    assert job["activeDeadlineSeconds"] < 24 * 3600
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    spark = _of_kind("ScheduledSparkApplication", "spark")["spec"]
    assert spark["concurrencyPolicy"] == "Forbid"
    assert spark["schedule"] == cron["schedule"]
    assert spark["timeZone"] == cron["timeZone"]


def test_only_a_failed_job_is_tried_again() -> None:
    job = _of_kind("Job", "flink-once")["spec"]
    (rule,) = job["podFailurePolicy"]["rules"]
    codes = {errors.ConfigError.exit_code, errors.NotComparableError.exit_code, 1}
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"]["operator"] == "In"
    assert set(rule["onExitCodes"]["values"]) == codes
    assert errors.JobError.exit_code not in codes
    (container,) = job["template"]["spec"]["containers"]
    assert rule["onExitCodes"]["containerName"] == container["name"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_config_that_is_deployed_is_one(folder: str, tmp_path) -> None:
    (text,) = _of_kind("ConfigMap", folder)["data"].values()
    path = tmp_path / "nightly.yaml"
    path.write_text(text)
    settings, _ = config.load(str(path))
    # No volume is shared between pods.
    assert settings.output.startswith("s3://")
    assert all(model.path.startswith("s3://") for model in settings.models)


def _commands() -> Iterator[tuple[str, list[str]]]:
    for folder, kind in (("flink", "CronJob"), ("flink-once", "Job")):
        (container,) = [
            node
            for node in _nodes(_of_kind(kind, folder))
            if "args" in node and node.get("name") == "evalbeam"
        ]
        yield folder, container["args"]
    yield (
        "compose",
        [
            re.sub(r"\$\{CONFIG:-(.*)\}", r"\1", part)
            for part in compose()["services"]["launcher"]["command"]
        ],
    )
    for folder in ("spark", "spark-once"):
        (arguments,) = [
            node["arguments"]
            for one in render(folder)
            for node in _nodes(one)
            if "arguments" in node
        ]
        yield folder, ["run", *arguments]


def test_commands_have_only_options_that_exist() -> None:
    for _, (verb, *arguments) in _commands():
        command = cli.main.commands[verb]
        context = command.make_context(verb, list(arguments))
        assert context.params["config_path"].endswith(".yaml")
        runner.options(context.args)


def test_commands_find_their_config() -> None:
    commands = dict(_commands())
    for folder in FOLDERS:
        nodes = list(_nodes(render(folder)))
        (name,) = [one["metadata"]["name"] for one in nodes if one.get("kind") == "ConfigMap"]
        (volume,) = [node["name"] for node in nodes if node.get("configMap") == {"name": name}]
        (mount,) = [node["mountPath"] for node in nodes if _mounts(node, volume)]
        (key,) = _of_kind("ConfigMap", folder)["data"]
        assert commands[folder][1] == f"{mount}/{key}"


def _mounts(node: dict, volume: str) -> bool:
    return node.get("name") == volume and "mountPath" in node


def test_flink_finds_its_jar_its_workers_and_its_master() -> None:
    cluster = _of_kind("FlinkDeployment", "flink")
    version = re.fullmatch(r"flink:(\d+\.\d+)-java17", cluster["spec"]["image"])[1]
    assert cluster["spec"]["flinkVersion"] == "v" + version.replace(".", "_")
    containers = cluster["spec"]["taskManager"]["podTemplate"]["spec"]["containers"]
    (worker,) = [one for one in containers if one.get("args") == ["--worker_pool"]]
    ports = {port["containerPort"] for port in worker["ports"]}
    masters = {
        "flink": f"{cluster['metadata']['name']}-rest:8081",
        "flink-once": f"{cluster['metadata']['name']}-rest:8081",
        "compose": "jobmanager:8081",
    }
    commands = dict(_commands())
    for where, master in masters.items():
        flags = dict(flag.lstrip("-").split("=", 1) for flag in commands[where][2:])
        assert flags["flink_master"] == master
        assert flags["flink_version"] == version
        assert flags["environment_type"] == "EXTERNAL"
        assert flags["environment_config"] == "localhost:50000"
        assert flags["flink_job_server_jar"] == "/opt/evalbeam/jars/flink/flink-job-server.jar"
    assert ports == {50000}
    assert f"flink:{version}-java17" in (DEPLOY / "compose.yaml").read_text()
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    assert "COPY deploy/jars /opt/evalbeam/jars\n" in dockerfile


def test_flink_is_set_up_as_the_tested_one() -> None:
    """tests/cluster kills workers of a Flink that has these settings."""
    asked = yaml.safe_load((DEPLOY / "flink" / "config.yaml").read_text())
    asked = {key: str(value) for key, value in asked.items()}
    assert asked["restart-strategy.type"] == "fixed-delay"
    here = _of_kind("FlinkDeployment", "flink")["spec"]["flinkConfiguration"]
    assert asked.items() <= here.items()
    properties = compose()["x-flink"]["environment"]["FLINK_PROPERTIES"]
    here = {key: str(value) for key, value in yaml.safe_load(properties).items()}
    assert asked.items() <= here.items()


def test_images_are_what_the_dockerfile_builds_of_this_version() -> None:
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.M)[1]
    stages = set(re.findall(r"^FROM .* AS (\w+)$", (DEPLOY / "Dockerfile").read_text(), re.M))
    built = {f"-{stage}:{version}" for stage in stages} | {f":{version}"}
    paths = [path for path in DEPLOY.rglob("*") if path.suffix in (".yaml", ".md", "")]
    named = {
        found
        for path in paths
        if path.is_file()
        for found in re.findall(rf"{IMAGE}([\w-]*:[\w.-]*\w)", path.read_text())
    }
    assert {f":{version}", f"-launcher:{version}", f"-spark:{version}"} <= named <= built


def test_images_are_named_in_one_place(tmp_path) -> None:
    """Their registry and, for those that want it, their digests."""
    moved = tmp_path / "kubernetes"
    shutil.copytree(DEPLOY / "kubernetes", moved)
    settings = moved / "settings" / "kustomization.yaml"
    component = yaml.safe_load(settings.read_text())
    digests = {}
    for number, image in enumerate(component["images"]):
        image["newName"] = image["newName"].replace("registry.example.com", "ghcr.io/someone")
        image["digest"] = f"sha256:{number:064}"
        digests[image["newName"]] = image["digest"]
    settings.write_text(yaml.safe_dump(component))
    found = set()
    for folder in FOLDERS:
        text = output_of(needs("kubectl"), "kustomize", moved / folder)
        assert IMAGE not in text
        found |= set(re.findall(r"\bimage: (.*)", text))
    assert found == {f"{name}@{digest}" for name, digest in digests.items()}


def test_the_compose_file_fits_its_schema(compose_schema: dict) -> None:
    jsonschema.validate(compose(), compose_schema)
    wrong = compose()
    wrong["services"]["launcher"]["comand"] = []
    with pytest.raises(jsonschema.ValidationError, match="comand"):
        jsonschema.validate(wrong, compose_schema)


def test_docker_compose_reads_the_compose_file() -> None:
    docker = needs("docker")
    if subprocess.run([docker, "compose", "version"], capture_output=True).returncode:
        pytest.skip("needs Docker's compose plug-in, which is not installed")
    output_of(docker, "compose", "--file", DEPLOY / "compose.yaml", "config", "--quiet")


def test_each_taskmanager_has_a_worker_in_its_network() -> None:
    services = compose()["services"]
    managers = {name for name, one in services.items() if one.get("command") == "taskmanager"}
    joined = [one["network_mode"] for one in services.values() if "network_mode" in one]
    assert len(managers) == 2
    assert sorted(joined) == sorted(f"service:{name}" for name in managers)
    for service in services.values():
        if "network_mode" in service:
            assert service["command"] == ["--worker_pool"]
            assert service["build"]["target"] == "worker"
    slots = len(managers) * 2
    assert f"--parallelism={slots}" in services["launcher"]["command"][-1]
