"""What containers may do and use, and who may connect to whom, in everything that deploy/ starts.

Each rule is broken on purpose, in each container, to see that the check finds it.
"""

from __future__ import annotations

import copy
import functools
import ipaddress
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from clients import DEPLOY, compose, render

FOLDERS = ("flink", "flink-once", "spark", "spark-once")
OPERATOR = ("flink-operator", {"app.kubernetes.io/name": "flink-kubernetes-operator"})

# By image, the folders that its programs write to. Flink copies its log for its UI; Spark spills to
# the folders of volumes that are named so.
WRITES = {
    "flink": {"/tmp", "/opt/flink/log"},
    "registry.example.com/evalbeam-spark": {"/tmp", "/var/data"},
    "registry.example.com/evalbeam-launcher": {"/tmp"},
    "registry.example.com/evalbeam": {"/tmp"},
}
# What cannot follow a rule, and why not.
EXCEPTIONS = {
    ("jobmanager", "has no token of the cluster"): "it starts and stops the TaskManagers",
    ("driver", "has no token of the cluster"): "it starts and stops the executors",
}

_SECRET = re.compile("KEY|SECRET|PASSWORD|TOKEN", re.IGNORECASE)


def _templates(document: dict) -> dict[str, dict]:
    """The pod templates in an object, by component, complete with what operators fill in."""
    spec = document.get("spec", {})
    match document["kind"]:
        case "ConfigMap" | "NetworkPolicy":
            return {}
        case "Job":
            return {"launcher": spec["template"]}
        case "CronJob":
            return {"launcher": spec["jobTemplate"]["spec"]["template"]}
        case "FlinkDeployment":
            return {role.lower(): _flink(document, role) for role in ("jobManager", "taskManager")}
        case "SparkApplication":
            return {role: _spark(spec, role) for role in ("driver", "executor")}
        case "ScheduledSparkApplication":
            return {role: _spark(spec["template"], role) for role in ("driver", "executor")}
        case kind:
            pytest.fail(f"{kind}: which pods does it start?")


def _flink(document: dict, role: str) -> dict:
    spec = document["spec"][role]
    template = spec["podTemplate"]
    # Flink's own labels, see "Fields overwritten by Flink" in its documentation.
    labels = {"app": document["metadata"]["name"], "component": role.lower()}
    template["metadata"]["labels"] = labels
    main = _named(template["spec"]["containers"], "flink-main-container")
    main["image"] = document["spec"]["image"]
    bounds = {"cpu": spec["resource"]["cpu"], "memory": spec["resource"]["memory"]}
    main["resources"] = {"requests": bounds, "limits": dict(bounds)}
    return template


def _spark(application: dict, role: str) -> dict:
    spec = application[role]
    template = spec["template"]
    template["metadata"] = {"labels": spec["labels"]}
    main = _named(template["spec"]["containers"], f"spark-kubernetes-{role}")
    main["image"] = application["image"]
    bounds = {"cpu": spec["cores"], "memory": spec["memory"]}  # and its overhead
    main["resources"] = {"requests": bounds, "limits": dict(bounds)}
    return template


def _named(entries: list[dict], name: str) -> dict:
    (found,) = [entry for entry in entries if entry["name"] == name]
    return found


def _containers() -> Iterator[tuple[str, dict, dict]]:
    """All containers: the component, the pod's spec, and the container; each time new ones."""
    for folder in FOLDERS:
        for document in render(folder):
            for component, template in _templates(document).items():
                for kind in ("containers", "initContainers"):
                    for place, _ in enumerate(template["spec"].get(kind, [])):
                        pod = copy.deepcopy(template["spec"])
                        yield component, pod, pod[kind][place]


def _context(pod: dict, container: dict) -> dict:
    return pod.get("securityContext", {}) | container.get("securityContext", {})


def _writable(pod: dict, container: dict) -> set[str]:
    """Where a container has room of its own, with a bound."""
    bounded = {
        volume["name"] for volume in pod["volumes"] if volume.get("emptyDir", {}).get("sizeLimit")
    }
    mounts = container["volumeMounts"]
    return {mount["mountPath"] for mount in mounts if mount["name"] in bounded}


def _mounts_are_safe(pod: dict, container: dict) -> bool:
    kinds = {next(kind for kind in each if kind != "name") for each in pod["volumes"]}
    given = {each["name"] for each in pod["volumes"] if "emptyDir" not in each}
    return kinds <= {"emptyDir", "configMap", "secret"} and all(
        mount.get("readOnly") is True
        for mount in container["volumeMounts"]
        if mount["name"] in given
    )


def _has_bounds(pod: dict, container: dict) -> bool:
    requests = container.get("resources", {}).get("requests", {})
    limits = container.get("resources", {}).get("limits", {})
    return (
        "cpu" in requests
        and bool(limits.get("memory"))
        and (requests.get("memory") == limits["memory"])
    )


def _has_no_secret_in_its_environment(pod: dict, container: dict) -> bool:
    return "envFrom" not in container and not any(
        "valueFrom" in each or (_SECRET.search(each["name"]) and not each["name"].endswith("_FILE"))
        for each in container.get("env", [])
    )


def _is_apart_from_its_machine(pod: dict, container: dict) -> bool:
    shared = {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"}
    return not shared & set(pod) and not _context(pod, container).get("privileged")


def _insecure(key: str, value: Any) -> Callable[[dict, dict], None]:
    """A container that overrules what its pod says, or what it said."""
    return lambda _, container: container.setdefault("securityContext", {}).update({key: value})


_Check = Callable[[dict, dict], bool]
_Change = Callable[[dict, dict], Any]

# By rule: whether a container of a pod follows it, and changes that break it.
RULES: dict[str, tuple[_Check, list[_Change]]] = {
    "is not root": (
        lambda pod, container: (
            _context(pod, container).get("runAsNonRoot") is True
            and _context(pod, container).get("runAsUser") != 0
        ),
        [
            _insecure("runAsNonRoot", False),
            _insecure("runAsUser", 0),
            lambda pod, _: pod.pop("securityContext"),
        ],
    ),
    "cannot become root": (
        lambda pod, container: _context(pod, container).get("allowPrivilegeEscalation") is False,
        [_insecure("allowPrivilegeEscalation", None), _insecure("allowPrivilegeEscalation", True)],
    ),
    "has no capabilities": (
        lambda pod, container: _context(pod, container).get("capabilities") == {"drop": ["ALL"]},
        [_insecure("capabilities", None), _insecure("capabilities", {"add": ["NET_ADMIN"]})],
    ),
    "calls what the runtime's seccomp profile permits": (
        lambda pod, container: (
            _context(pod, container).get("seccompProfile") == {"type": "RuntimeDefault"}
        ),
        [
            _insecure("seccompProfile", {"type": "Unconfined"}),
            lambda pod, _: pod["securityContext"].pop("seccompProfile"),
        ],
    ),
    "cannot write to its image": (
        lambda pod, container: _context(pod, container).get("readOnlyRootFilesystem") is True,
        [_insecure("readOnlyRootFilesystem", None), _insecure("readOnlyRootFilesystem", False)],
    ),
    "writes to bounded room of its own": (
        lambda pod, container: (
            _writable(pod, container) == WRITES[container["image"].partition(":")[0]]
        ),
        [
            lambda _, container: container["volumeMounts"].pop(0),
            lambda pod, _: [each.get("emptyDir", {}).clear() for each in pod["volumes"]],
        ],
    ),
    "reads what it is given, nothing of its machine": (
        _mounts_are_safe,
        [
            lambda pod, _: pod["volumes"].append({"name": "host", "hostPath": {"path": "/"}}),
            lambda pod, container: (
                pod["volumes"].append({"name": "more", "secret": {"secretName": "more"}}),
                container["volumeMounts"].append({"name": "more", "mountPath": "/more"}),
            ),
        ],
    ),
    "is apart from its machine": (
        _is_apart_from_its_machine,
        [
            _insecure("privileged", True),
            lambda pod, _: pod.update(hostNetwork=True),
            lambda pod, _: pod.update(shareProcessNamespace=True),
        ],
    ),
    "has no token of the cluster": (
        lambda pod, _: pod.get("automountServiceAccountToken") is False,
        [lambda pod, _: pod.pop("automountServiceAccountToken", None)],
    ),
    "has no secret in its environment": (
        _has_no_secret_in_its_environment,
        [
            lambda _, container: container.update(envFrom=[{"secretRef": {"name": "storage"}}]),
            lambda _, container: container.setdefault("env", []).append(
                {"name": "AWS_SECRET_ACCESS_KEY", "value": "secret"}
            ),
            lambda _, container: container.setdefault("env", []).append(
                {"name": "X", "valueFrom": {"secretKeyRef": {"name": "storage", "key": "x"}}}
            ),
        ],
    ),
    "has as much memory as it requests, and a share of CPUs": (
        _has_bounds,
        [
            lambda _, container: container.pop("resources"),
            lambda _, container: container["resources"].pop("limits"),
            lambda _, container: container["resources"]["requests"].pop("cpu"),
            lambda _, container: container["resources"]["limits"].update(memory="64Gi"),
        ],
    ),
    "is of a version": (
        lambda _, container: bool(re.search(r":\d|@sha256:", container["image"])),
        [lambda _, container: container.update(image="flink:latest")],
    ),
}


def _problems(component: str, pod: dict, container: dict) -> set[str]:
    broken = {rule for rule, (follows, _) in RULES.items() if not follows(pod, container)}
    return {rule for rule in broken if (component, rule) not in EXCEPTIONS}


def test_containers_follow_the_rules() -> None:
    components = set()
    for component, pod, container in _containers():
        components.add((component, container["name"]))
        assert not _problems(component, pod, container), (component, container["name"])
    assert components == {
        *(("launcher", "evalbeam"), ("jobmanager", "flink-main-container")),
        *(("taskmanager", "flink-main-container"), ("taskmanager", "worker")),
        *(("driver", "spark-kubernetes-driver"), ("executor", "spark-kubernetes-executor")),
        ("executor", "worker"),
    }


@pytest.mark.parametrize("rule", RULES)
def test_a_container_that_breaks_a_rule_is_found(rule: str) -> None:
    for change in RULES[rule][1]:
        for component, pod, container in _containers():
            change(pod, container)
            if (component, rule) not in EXCEPTIONS:
                assert rule in _problems(component, pod, container), component


def test_exceptions_are_needed() -> None:
    broken = {
        (component, rule)
        for component, pod, container in _containers()
        for rule, (follows, _) in RULES.items()
        if not follows(pod, container)
    }
    assert broken == set(EXCEPTIONS)


def test_only_evalbeam_has_the_stores_credentials() -> None:
    for _, _, container in _containers():
        folders = [
            mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "storage"
        ]
        files = [
            each["value"]
            for each in container.get("env", [])
            if each["name"] == "AWS_SHARED_CREDENTIALS_FILE"
        ]
        runs_evalbeam = container["name"] in ("evalbeam", "worker", "spark-kubernetes-driver")
        assert len(files) == runs_evalbeam
        assert files == [f"{folder}/credentials" for folder in folders]


def test_credentials_are_read_as_the_readme_writes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (DEPLOY / "README.md").read_text()
    assert "create secret generic evalbeam-storage --from-file=credentials\n" in text
    (example,) = re.findall(r"```ini\n(.*?)```", text, re.DOTALL)
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    assert boto3.Session().get_credentials() is None  # without the secret, others may follow
    (tmp_path / "credentials").write_text(example + "endpoint_url = http://localhost:9000\n")
    client = boto3.Session().client("s3")
    assert boto3.Session().get_credentials().method == "shared-credentials-file"
    assert (client.meta.region_name, client.meta.endpoint_url) == (
        "eu-central-1",
        "http://localhost:9000",
    )


# By rule: whether a service of Compose follows it, and a change that breaks it. Docker's own
# seccomp profile applies unless a service refuses it.
SERVICE_RULES: dict[str, tuple[Callable[[dict], bool], Callable[[dict], Any]]] = {
    "cannot write to its image": (
        lambda service: service.get("read_only") is True,
        lambda service: service.pop("read_only"),
    ),
    "has no capabilities": (
        lambda service: service.get("cap_drop") == ["ALL"] and "cap_add" not in service,
        lambda service: service.update(cap_add=["SYS_ADMIN"]),
    ),
    "cannot become root, and has a seccomp profile": (
        lambda service: service.get("security_opt") == ["no-new-privileges:true"],
        lambda service: service["security_opt"].append("seccomp:unconfined"),
    ),
    "is not root": (
        lambda service: bool(re.match(r"(\$\{RUN_AS:-)?[1-9]", service.get("user", ""))),
        lambda service: service.pop("user"),
    ),
    "writes to bounded memory": (
        lambda service: (
            bool(service.get("tmpfs")) and all("size=" in mount for mount in service["tmpfs"])
        ),
        lambda service: service["tmpfs"].append("/run"),
    ),
    "has as much memory and as many threads as are set": (
        lambda service: bool(service.get("mem_limit") and service.get("pids_limit")),
        lambda service: service.pop("pids_limit"),
    ),
    "is reached from this machine only": (
        lambda service: all(port.startswith("127.0.0.1:") for port in service.get("ports", [])),
        lambda service: service.setdefault("ports", []).append("8081:8081"),
    ),
    "is apart from its machine": (
        lambda service: (
            not {"privileged", "pid", "ipc", "devices", "userns_mode"} & set(service)
            and service.get("network_mode", "service:").startswith("service:")
            and set(service["volumes"]) <= {"..:/work", "/opt/flink/conf"}
        ),
        lambda service: service["volumes"].append("/var/run/docker.sock:/var/run/docker.sock"),
    ),
    "has no secret in its environment": (
        lambda service: not any(_SECRET.search(name) for name in service.get("environment", {})),
        lambda service: service.setdefault("environment", {}).update(AWS_SECRET_ACCESS_KEY="x"),
    ),
}


def test_services_follow_the_rules() -> None:
    services = compose()["services"]
    assert len(services) == 6
    for name, service in services.items():
        for rule, (follows, _) in SERVICE_RULES.items():
            assert follows(service), f"{name}: {rule}"


@pytest.mark.parametrize("rule", SERVICE_RULES)
def test_a_service_that_breaks_a_rule_is_found(rule: str) -> None:
    follows, change = SERVICE_RULES[rule]
    for name in compose()["services"]:
        service = compose()["services"][name]  # anew, as services share what they have in common
        change(service)
        assert not follows(service), name


# Ports: Flink's as its settings have them, Spark's, worker pools', and some that nobody serves.
PORTS = {22, 443, 4040, 6121, 6122, 6123, 6124, 6125, 6126, 7078, 7079, 8080, 8081, 40000, 50000}
# Who needs which, by the pods that connect and those that serve.
CONNECTIONS = {
    ("taskmanager", "jobmanager"): {6123, 6124},
    ("launcher", "jobmanager"): {8081},
    ("operator", "jobmanager"): {8081},
    ("jobmanager", "taskmanager"): {6122, 6126},
    ("taskmanager", "taskmanager"): {6121},
    ("executor", "driver"): {7078, 7079},
    ("driver", "executor"): {7079},
    ("executor", "executor"): {7079},
}

# A pod's namespace and labels.
_Pod = tuple[str, dict[str, str]]


def _pods() -> dict[str, _Pod]:
    return {
        component: (document["metadata"]["namespace"], template["metadata"]["labels"])
        for folder in FOLDERS
        for document in render(folder)
        for component, template in _templates(document).items()
    }


@functools.cache
def _policies() -> list[dict]:
    found = {
        document["metadata"]["name"]: document
        for folder in FOLDERS
        for document in render(folder)
        if document["kind"] == "NetworkPolicy"
    }
    return list(found.values())


def _selects(selector: dict, labels: dict[str, str]) -> bool:
    assert selector.keys() <= {"matchLabels", "matchExpressions"}
    assert all(each["operator"] == "In" for each in selector.get("matchExpressions", []))
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(each["key"]) in each["values"] for each in selector.get("matchExpressions", [])
    )


def _permits(direction: str, pod: _Pod, peer: _Pod | str, port: int, protocol: str = "TCP") -> bool:
    """Whether the policies of a pod let it connect to ("egress") or serve ("ingress") a peer."""
    namespace, labels = pod
    policies = [
        policy
        for policy in _policies()
        if policy["metadata"]["namespace"] == namespace
        and _selects(policy["spec"]["podSelector"], labels)
        and direction.capitalize() in policy["spec"]["policyTypes"]
    ]
    side = {"egress": "to", "ingress": "from"}[direction]
    return not policies or any(
        any((each["port"], each.get("protocol", "TCP")) == (port, protocol) for each in ports)
        and any(_is_peer(each, namespace, peer) for each in rule.get(side, [{}]))
        for policy in policies
        for rule in policy["spec"].get(direction, [])
        for ports in [rule.get("ports", [{"port": port, "protocol": protocol}])]
    )


def _is_peer(entry: dict, own_namespace: str, peer: _Pod | str) -> bool:
    if not entry:
        return True
    if isinstance(peer, str) or "ipBlock" in entry:
        if not isinstance(peer, str) or "ipBlock" not in entry:
            return False
        address = ipaddress.ip_address(peer)
        block = entry["ipBlock"]
        return address in ipaddress.ip_network(block["cidr"]) and not any(
            address in ipaddress.ip_network(excepted) for excepted in block["except"]
        )
    namespace, labels = peer
    names = {"kubernetes.io/metadata.name": namespace}
    within = (
        _selects(entry["namespaceSelector"], names)
        if "namespaceSelector" in entry
        else namespace == own_namespace
    )
    return within and _selects(entry.get("podSelector", {}), labels)


def test_pods_connect_only_as_they_must() -> None:
    pods = _pods()
    assert len(pods) == 5
    others = {
        "operator": OPERATOR,
        "neighbour": ("evalbeam", {"app": "another"}),
        "stranger": ("default", {"app": "evalbeam", "component": "taskmanager"}),
    }
    clients = pods | others
    found = {
        (client, server): {
            port
            for port in PORTS
            if _permits("egress", clients[client], pods[server], port)
            and _permits("ingress", pods[server], clients[client], port)
        }
        for client in clients
        for server in pods
    }
    assert {pair: ports for pair, ports in found.items() if ports} == CONNECTIONS


def test_pods_reach_stores_and_names_and_no_credentials_of_their_machine() -> None:
    store, api, metadata = "52.216.0.1", "10.0.0.1", "169.254.169.254"
    for component, pod in _pods().items():
        assert _permits("egress", pod, store, 443)
        assert _permits("egress", pod, "2600:1fa0::1", 443)
        assert not _permits("egress", pod, store, 80)
        assert _permits("egress", pod, "169.254.20.10", 53, "UDP")
        for port in (80, 443):
            assert not _permits("egress", pod, metadata, port)
            assert not _permits("egress", pod, "fd00:ec2::254", port)
        starts_pods = component in ("jobmanager", "driver")
        assert _permits("egress", pod, api, 6443) == starts_pods


def test_ports_are_those_of_flink_and_spark() -> None:
    (cluster,) = [one for one in render("flink") if one["kind"] == "FlinkDeployment"]
    flink = cluster["spec"]["flinkConfiguration"]
    assert {key: flink[key] for key in flink if key.endswith(".port")} == {
        "blob.server.port": "6124",
        "taskmanager.data.port": "6121",
        "taskmanager.rpc.port": "6122",
        "metrics.internal.query-service.port": "6126",
    }
    (application,) = [one for one in render("spark-once") if one["kind"] == "SparkApplication"]
    spark = application["spec"]["sparkConf"]
    assert {key: spark[key] for key in spark if key.endswith("ort")} == {
        "spark.driver.port": "7078",
        "spark.blockManager.port": "7079",
    }
