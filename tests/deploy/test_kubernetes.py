"""The Kubernetes manifests, held against the API's own schema and against what the processes need."""

import inspect
import re
from collections.abc import Callable
from typing import Any

import kubernetes_validate
import pytest
from ruamel.yaml import YAML

from shared.database.connections import connect
from shared.settings.api import read_api_settings
from shared.settings.consumer import read_consumer_settings
from shared.settings.postgresql_url import read_database_url
from shared.settings.relay import read_relay_settings
from shared.version import VERSION
from tests.programs.processes import ROOT, worker_settings
from tests.rows import open_breaker

FOLDER = ROOT / "deploy" / "kubernetes"
KUSTOMIZATION: dict[str, Any] = YAML(typ="safe").load(FOLDER / "kustomization.yaml")
KEDA = ROOT / "deploy" / "kubernetes-keda"
SCALED_OBJECT: dict[str, Any] = YAML(typ="safe").load(KEDA / "scaledobject.yaml")
FILES = [FOLDER / name for name in KUSTOMIZATION["resources"]]
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


def test_the_kustomization_has_every_file_and_sets_the_image_of_all() -> None:
    [image] = KUSTOMIZATION["images"]

    assert {*FILES, FOLDER / "kustomization.yaml"} == set(FOLDER.iterdir())
    assert f"{image['name']}:{image['newTag']}" == f"registry.example.com/outbox-signup:{VERSION}"


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
    assert pod(name)["enableServiceLinks"] is False
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


def test_an_outage_of_postgresql_takes_no_pod_away() -> None:
    """A new version that cannot reach PostgreSQL replaces no old one all the same."""
    api = container("Deployment/outbox-api")

    assert api["startupProbe"]["httpGet"]["path"] == "/readyz"
    assert api["startupProbe"]["periodSeconds"] * api["startupProbe"]["failureThreshold"] >= 600
    assert [api[probe]["httpGet"]["path"] for probe in ("readinessProbe", "livenessProbe")] == ["/healthz", "/healthz"]
    assert DEPLOYMENTS["Deployment/outbox-api"]["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_a_migration_ends_and_is_cleared_away() -> None:
    job = WORKLOADS["Job/outbox-migrate"]["spec"]
    printed = (ROOT / "docs" / "deployment.md").read_text()
    [timeout] = re.findall(r"kubectl wait .*--timeout=(\d+)s job/outbox-migrate", printed)

    assert container("Job/outbox-migrate")["command"] == ["alembic", "upgrade", "head"]
    assert 0 < job["activeDeadlineSeconds"] < int(timeout)
    assert job["ttlSecondsAfterFinished"] > 0


@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_a_network_policy_lets_a_process_reach_what_it_needs_and_be_reached(name: str) -> None:
    labels = WORKLOADS[name]["spec"]["template"]["metadata"]["labels"]
    policies = [each["spec"] for each in RESOURCES.values() if each["kind"] == "NetworkPolicy"]
    chosen = [spec for spec in policies if spec["podSelector"]["matchLabels"].items() <= labels.items()]
    opened = {
        direction: {port["port"] for spec in chosen for rule in spec.get(direction, []) for port in rule["ports"]}
        for direction in ("ingress", "egress")
    }
    # Who sends mails sends webhooks, too.
    needed = {"DATABASE_URL": {53, 5432}, "RQ_REDIS_URL": {6379, 26379}, "SMTP_URL": {25, 465, 587, 443}}

    assert opened["egress"] == set().union(*(needed[each] for each in needed.keys() & variables(name).keys()))
    assert opened["ingress"] == {port["containerPort"] for port in container(name).get("ports", [])}
    assert {"Ingress", "Egress"} == {kind for spec in chosen for kind in spec["policyTypes"]}


def test_keda_scales_what_there_is_by_a_variable_that_it_has() -> None:
    [trigger] = SCALED_OBJECT["spec"]["triggers"]
    target = f"Deployment/{SCALED_OBJECT['spec']['scaleTargetRef']['name']}"
    most = SCALED_OBJECT["spec"]["maxReplicaCount"] * int(trigger["metadata"]["targetQueryValue"])

    assert trigger["metadata"]["connectionFromEnv"] in variables(target)
    assert SCALED_OBJECT["spec"]["minReplicaCount"] == DEPLOYMENTS[target]["spec"]["replicas"]
    assert f"LIMIT {most}" in trigger["metadata"]["query"]


def test_keda_counts_what_waits_by_indexes_alone(database_url: str) -> None:
    [trigger] = SCALED_OBJECT["spec"]["triggers"]
    query = trigger["metadata"]["query"]
    with connect(database_url, "keda") as connection:
        connection.execute(
            "INSERT INTO outbox (task, payload, destination) SELECT 't', '{}', 'mail' FROM generate_series(1, 3)"
        )
        connection.execute(
            "INSERT INTO outbox (task, payload, queue, due_at) VALUES ('t', '{}', 'default', 'infinity')"
        )
        waiting = connection.execute(query).fetchone()
        connection.execute("SET enable_seqscan = off")
        plan = "\n".join(row[0] for row in connection.execute(f"EXPLAIN {query}"))
        open_breaker(connection)
        while_the_mail_server_is_away = connection.execute(query).fetchone()

    assert waiting == (3,)
    assert "Seq Scan on outbox " not in plan
    assert while_the_mail_server_is_away == (0,)


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
