"""The Kubernetes manifests, held against the API's own schema and against what the processes need."""

import inspect
import re
from collections.abc import Callable
from typing import Any

import kubernetes_validate
import pytest
from ruamel.yaml import YAML

from shared.settings import read_api_settings, read_consumer_settings, read_database_url, read_relay_settings
from shared.version import VERSION
from tests.processes import ROOT, worker_settings

FILES = sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))
RESOURCES: dict[str, dict[str, Any]] = {
    f"{document['kind']}/{document['metadata']['name']}": document
    for file in FILES
    for document in YAML(typ="safe").load_all(file)
}
WORKLOADS = {name: each for name, each in RESOURCES.items() if each["kind"] in {"Deployment", "Job"}}
DEPLOYMENTS = {name: each for name, each in WORKLOADS.items() if each["kind"] == "Deployment"}
READERS: dict[str, Callable[[], object]] = {
    "Deployment/outbox-api": read_api_settings,
    "Deployment/outbox-relay": read_relay_settings,
    "Deployment/outbox-worker": read_consumer_settings,
    "Job/outbox-migrate": read_database_url,
}
READ_BY_OTHERS = {"PORT", "RQ_CONNECTION_CLASS", "RQ_WORKER_CLASS"}
LEAVE_SECONDS = 5


def pod(name: str) -> dict[str, Any]:
    spec: dict[str, Any] = WORKLOADS[name]["spec"]["template"]["spec"]
    return spec


def container(name: str) -> dict[str, Any]:
    [only] = pod(name)["containers"]
    found: dict[str, Any] = only
    return found


def variables(name: str) -> dict[str, Any]:
    return {each["name"]: each for each in container(name)["env"]}


@pytest.mark.parametrize("name", sorted(RESOURCES))
def test_kubernetes_takes_it(name: str) -> None:
    kubernetes_validate.validate(RESOURCES[name], "1.33", strict=True)


def test_all_run_the_same_build() -> None:
    [image] = {container(name)["image"] for name in WORKLOADS}

    assert image == f"registry.example.com/outbox-signup:{VERSION}"


@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_a_process_gets_what_it_reads_and_nothing_else(name: str) -> None:
    known = set(re.findall('"([A-Z][A-Z_]+)"', inspect.getsource(READERS[name])))

    assert variables(name).keys() - known - READ_BY_OTHERS == set()
    assert {"DATABASE_URL"} <= variables(name).keys()


def test_what_a_process_is_given_is_enough_for_it_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    values = worker_settings("postgresql://h/d", "redis://h", "smtp://h")
    for name, read in READERS.items():
        with monkeypatch.context() as only:
            for variable, described in variables(name).items():
                only.setenv(variable, described.get("value") or values[variable])
            read()


@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_no_secret_stands_in_a_manifest(name: str) -> None:
    secret = {"DATABASE_URL", "RQ_REDIS_URL", "SECRET_KEY", "SMTP_URL"} & variables(name).keys()

    assert [each for each in secret if "secretKeyRef" not in variables(name)[each].get("valueFrom", {})] == []


@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_a_container_may_do_as_little_as_it_can_do_with(name: str) -> None:
    assert pod(name)["securityContext"]["runAsNonRoot"] is True
    assert pod(name)["automountServiceAccountToken"] is False
    assert container(name)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "memory" in container(name)["resources"]["limits"]


@pytest.mark.parametrize("name", sorted(DEPLOYMENTS))
def test_one_may_go_while_another_stays(name: str) -> None:
    deployment = DEPLOYMENTS[name]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    budget = RESOURCES[name.replace("Deployment", "PodDisruptionBudget")]["spec"]

    assert deployment["spec"]["replicas"] > 1
    assert budget == {"maxUnavailable": 1, "selector": {"matchLabels": labels}}
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert "livenessProbe" in container(name)


def test_the_service_finds_the_api() -> None:
    service = RESOURCES["Service/outbox-api"]["spec"]

    assert service["selector"] == DEPLOYMENTS["Deployment/outbox-api"]["spec"]["template"]["metadata"]["labels"]
    assert service["ports"][0]["targetPort"] == container("Deployment/outbox-api")["ports"][0]["name"]
    assert variables("Deployment/outbox-api")["PORT"]["value"] == "8080"


def test_a_worker_that_is_stopped_may_finish_its_send(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in worker_settings("postgresql://h/d", "redis://h", "smtp://h").items():
        monkeypatch.setenv(name, value)
    needed = read_consumer_settings().send_deadline_seconds + LEAVE_SECONDS

    assert pod("Deployment/outbox-worker")["terminationGracePeriodSeconds"] > needed
